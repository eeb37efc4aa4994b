"""How much memory the methods need, from measurements, so that work can be planned.

The unit is one float32 volume of the grid that a method works on: the image, or the bounding box
of the mask, with the method's padding. ``python benchmarks/speed.py --memory-table --update``
measures every method and writes ``VOLUMES`` anew.
"""

import math
from typing import NamedTuple

from qsmflow.algorithms.operators import pad_shape


class Memory(NamedTuple):
    """Peak memory of one method beyond its arguments.

    Attributes
    ----------
    volumes : float
        Float32 volumes of the method's grid, results among them.
    per_echo : float
        Volumes for each echo on top, of a method that takes a multi-echo series.
    pad : int
        Voxels that the method adds on each side.
    reach : float
        What it adds on each side beyond that, in mm: the radius of its largest sphere.
    """

    volumes: float
    per_echo: float = 0.0
    pad: int = 0
    reach: float = 0.0


#: Peak memory of each method with its default options, by stage and name.
VOLUMES: dict[tuple[str, str], Memory] = {
    # measured: begin
    ('unwrapping', 'romeo'): Memory(5.3, 1.41, 0, 0.0),
    ('unwrapping', 'best_path'): Memory(5.3, 1.42, 0, 0.0),
    ('unwrapping', 'laplacian'): Memory(7.5, 1.92, 0, 0.0),
    ('field', 'sequential'): Memory(9.9, 1.05, 0, 0.0),
    ('field', 'weighted'): Memory(9.1, 1.19, 0, 0.0),
    ('field', 'nonlinear'): Memory(9.0, 1.19, 0, 0.0),
    ('field', 'refined'): Memory(10.0, 1.03, 0, 0.0),
    ('field', 'averaged'): Memory(9.0, 1.19, 0, 0.0),
    ('background', 'pdf'): Memory(9.4, 0.0, 16, 0.0),
    ('background', 'vsharp'): Memory(8.5, 0.0, 0, 12.0),
    ('background', 'resharp'): Memory(13.7, 0.0, 0, 6.0),
    ('background', 'sharp'): Memory(7.3, 0.0, 0, 6.0),
    ('background', 'ismv'): Memory(11.2, 0.0, 0, 5.0),
    ('background', 'lbv'): Memory(11.7, 0.0, 0, 0.0),
    ('background', 'iharperella'): Memory(13.5, 0.0, 0, 0.0),
    ('background', 'tfi'): Memory(17.6, 0.0, 16, 0.0),
    ('inversion', 'tv'): Memory(17.5, 0.0, 16, 0.0),
    ('inversion', 'rts'): Memory(15.7, 0.0, 4, 0.0),
    ('inversion', 'l2'): Memory(10.8, 0.0, 16, 0.0),
    ('inversion', 'tkd'): Memory(4.7, 0.0, 8, 0.0),
    ('inversion', 'tsvd'): Memory(4.7, 0.0, 8, 0.0),
    ('inversion', 'tikhonov'): Memory(10.8, 0.0, 16, 0.0),
    ('inversion', 'ndi'): Memory(10.2, 0.0, 16, 0.0),
    ('inversion', 'medi'): Memory(14.3, 0.0, 16, 0.0),
    ('inversion', 'medi0'): Memory(14.2, 0.0, 16, 0.0),
    ('inversion', 'nltv'): Memory(17.8, 0.0, 16, 0.0),
    ('inversion', 'nltgv'): Memory(32.7, 0.0, 16, 0.0),
    ('inversion', 'whqsm'): Memory(20.8, 0.0, 16, 0.0),
    ('inversion', 'l1qsm'): Memory(18.8, 0.0, 16, 0.0),
    ('inversion', 'hdqsm'): Memory(19.7, 0.0, 16, 0.0),
    ('inversion', 'ilsqr'): Memory(14.9, 0.0, 16, 3.0),
    ('inversion', 'star'): Memory(21.2, 0.0, 16, 0.0),
    ('inversion', 'tgv'): Memory(31.9, 0.0, 0, 0.0),
    ('inversion', 'tgv_phase'): Memory(29.4, 0.0, 0, 0.0),
    ('relaxometry', 'arlo'): Memory(4.0, 0.0, 0, 0.0),
    ('relaxometry', 'loglinear'): Memory(4.0, 0.0, 0, 0.0),
    ('relaxometry', 'numart2s'): Memory(4.0, 0.0, 0, 0.0),
    ('relaxometry', 'nlls'): Memory(4.0, 0.0, 0, 0.0),
    # measured: end
}


def memory_volumes(stage: str, method: str) -> Memory:
    """Return the peak memory of a method with its default options.

    Parameters
    ----------
    stage, method : str
        As in ``STAGES``.

    Returns
    -------
    Memory
        For a method that was not measured, the most that any method of the stage needs.

    Raises
    ------
    ValueError
        If no method of the stage was measured.

    Examples
    --------
    >>> memory_volumes('inversion', 'tkd').pad
    8
    """
    if (stage, method) in VOLUMES:
        return VOLUMES[stage, method]
    known = [memory for (name, _), memory in VOLUMES.items() if name == stage]
    if not known:
        stages = ', '.join(sorted({name for name, _ in VOLUMES}))
        raise ValueError(f'no figures for the stage {stage!r}; there are some for {stages}.')
    return Memory(*(max(values) for values in zip(*known, strict=True)))


def working_grid(memory: Memory, shape, voxel_size=None) -> tuple[int, int, int]:
    """Return the padded grid in whose volumes a method's memory is counted.

    Parameters
    ----------
    memory : Memory
        Figures of the method.
    shape : tuple of int
        Shape of the image, or of the bounding box of the mask.
    voxel_size : tuple of float, optional
        In mm; 1 mm by default.

    Returns
    -------
    tuple of int

    Examples
    --------
    >>> working_grid(Memory(10, pad=16), (160, 192, 160))
    (192, 225, 192)
    """
    steps = (1.0, 1.0, 1.0) if voxel_size is None else voxel_size
    return pad_shape(shape, tuple(memory.pad + math.ceil(memory.reach / step) for step in steps))


def estimate_gb(stage: str, method: str, shape, voxel_size=None, *, n_echoes: int = 1) -> float:
    """Return the memory that a method with its default options needs beyond its arguments.

    Parameters
    ----------
    stage, method : str
        As in ``STAGES``.
    shape : tuple of int
        Shape of the image, or, less generously, of the bounding box of the mask.
    voxel_size : tuple of float, optional
        In mm; 1 mm by default. It matters for methods with spheres.
    n_echoes : int, optional
        Number of echoes of the series that the method takes.

    Returns
    -------
    float
        In gigabytes of 10^9 bytes. Measured with a head that fills half of its bounding box.

    Raises
    ------
    ValueError
        For an unknown stage, or a shape or number of echoes that is not positive.

    Examples
    --------
    >>> small, large = (estimate_gb('inversion', 'tv', (n, n, n)) for n in (100, 200))
    >>> 0 < 3 * small < large
    True
    """
    if len(shape) != 3 or min(shape) < 1 or n_echoes < 1:
        raise ValueError(
            'shape must be three positive numbers, and n_echoes positive; got '
            f'{tuple(shape)} and {n_echoes}.'
        )
    memory = memory_volumes(stage, method)
    voxels = math.prod(working_grid(memory, shape, voxel_size))
    return 4e-9 * voxels * (memory.volumes + memory.per_echo * n_echoes)
