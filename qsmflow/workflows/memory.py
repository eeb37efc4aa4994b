"""How much memory each step of a reconstruction needs, so that no more are run than fit.

A step is one node. It runs in a worker process, which holds the libraries, the volumes that the
interface has loaded, and what the method takes beyond them.
"""

import math
from collections.abc import Mapping, Sequence

from qsmflow.algorithms._differences import cell_steps
from qsmflow.algorithms.catalog import STAGES
from qsmflow.algorithms.cost import estimate_gb

#: Extent of a large adult brain along right-left, front-back and up-down, in mm. Where the brain
#: is, is not known before a run. A simulated head measures 143 x 192 x 153, the template
#: 146 x 182 x 156, a volunteer at 3 T 135 x 171 x 138.
BRAIN = (145.0, 190.0, 155.0)

#: Memory of a worker process with the libraries of these steps, in GB. Registration and figures
#: bring up to 0.15 GB more to a worker that has run them before.
WORKER_GB = 0.3

#: What a step without an estimate may need, in GB.
DEFAULT_GB = 2.0

#: Float32 volumes of the image that a node holds beside what its method takes, and volumes for
#: each echo. Measured with 2, 4 and 8 echoes, in voxels of 1 to 2 mm.
HELD: dict[str, tuple[float, float]] = {
    'preparation': (1.0, 2.0),
    'mask_refinement': (4.5, 2.0),
    'bipolar': (0.4, 2.6),
    'offset': (5.1, 2.0),
    'unwrapping': (0.3, 2.0),
    'field': (0.3, 2.0),
    'sign': (4.5, 0.0),
    'background': (2.8, 0.0),
    'inversion': (2.8, 0.0),
    'reference': (5.5, 0.0),
    'relaxometry': (0.3, 1.0),
}

#: Volumes more of steps that unwrap differences of echoes, if their cells are single voxels.
CELLS = {'bipolar': 6.6, 'offset': 4.5}

#: Memory of the ways to find the brain: GB that do not depend on the image, then as in ``HELD``.
#: The network of deepbet was not measured.
EXTRACTION: dict[str, tuple[float, float, float]] = {
    'registration': (0.2, 4.5, 0.0),
    'deepbet': (1.7, 4.5, 0.0),
    'quality': (0.0, 5.5, 1.0),
}

#: Everything that has an estimate.
STEPS = ('brain_mask', *HELD)

_GB = 1024**3


def step_memory(
    shape: Sequence[int],
    voxel_size: Sequence[float],
    n_echoes: int,
    methods: Mapping[str, str],
    *,
    mask_method: str = 'registration',
) -> dict[str, float]:
    """Estimate the memory of each step of a reconstruction.

    Methods that work on the bounding box of the mask are taken to work on a box of the size of
    ``BRAIN``, or on the whole image if that is smaller or the mask may be more than a brain
    (``mask_method='quality'``).

    Parameters
    ----------
    shape : sequence of int
        Spatial shape, in the order right-left, front-back, up-down.
    voxel_size : sequence of float
        Edge lengths in that order, in mm.
    n_echoes : int
        Number of echoes.
    methods : mapping of str to str
        Method of each stage of :data:`qsmflow.algorithms.catalog.STAGES`; the default of those
        that are left out.
    mask_method : {'registration', 'deepbet', 'quality'}
        How the brain is found.

    Returns
    -------
    dict of str to float
        GB of 1024**3 bytes for each of ``STEPS``, the process with its libraries included.

    Examples
    --------
    >>> memory = step_memory((256, 256, 160), (0.8, 0.8, 1.0), 5, {'inversion': 'tkd'})
    >>> memory['inversion'] < memory['field'] < 2
    True
    """
    volume = 4 * math.prod(shape) / _GB
    held = {step: (0.0, *known) for step, known in HELD.items()}
    held['brain_mask'] = EXTRACTION[mask_method]
    box = tuple(shape) if mask_method == 'quality' else _brain_box(shape, voxel_size)
    chosen = {stage: methods.get(stage) or next(iter(STAGES[stage])) for stage in STAGES}
    memory = {}
    for step, (fixed, base, per_echo) in held.items():
        base += CELLS.get(step, 0.0) / math.prod(cell_steps(voxel_size).tolist())
        needed = WORKER_GB + fixed + volume * (base + per_echo * n_echoes)
        if step == 'inversion':
            needed += volume * _further_volumes(chosen, n_echoes)
            needed += max(_method(step, name, box, voxel_size) for name in _inversions(chosen))
        elif step in STAGES:
            needed += _method(step, chosen[step], box, voxel_size, n_echoes)
        memory[step] = round(needed, 2)
    return memory


def claim(mem_gb: float | Mapping[str, float], step: str) -> float:
    """Return the memory of one step from what a builder was given.

    Parameters
    ----------
    mem_gb : float or mapping of str to float
        GB of every step, or of each by its name.
    step : str
        One of ``STEPS``.

    Returns
    -------
    float
        GB; ``DEFAULT_GB`` for a step that a mapping leaves out.

    Examples
    --------
    >>> claim(4.0, 'field'), claim({'field': 1.5}, 'field'), claim({'field': 1.5}, 'sign')
    (4.0, 1.5, 2.0)
    """
    return mem_gb.get(step, DEFAULT_GB) if isinstance(mem_gb, Mapping) else mem_gb


def _brain_box(shape, voxel_size) -> tuple[int, ...]:
    """Return the largest box that a brain is expected to take, in voxels."""
    return tuple(
        min(n, math.ceil(extent / size))
        for n, extent, size in zip(shape, BRAIN, voxel_size, strict=True)
    )


def _method(stage, name, box, voxel_size, n_echoes=1) -> float:
    """Return what a method takes beyond its arguments, in GB of 1024**3 bytes."""
    return 1e9 / _GB * estimate_gb(stage, name, box, tuple(voxel_size), n_echoes=n_echoes)


def _inversions(chosen: Mapping[str, str]) -> tuple[str, ...]:
    """Return the inversions that run one after the other: strong sources are found by TV."""
    strong = ('tv',) if chosen['strategy'] == 'superposed' else ()
    return (chosen['inversion'], *strong)


def _further_volumes(chosen: Mapping[str, str], n_echoes: int) -> int:
    """Return the number of volumes that an inversion takes on top: extras, a first estimate."""
    entry = STAGES['inversion'][chosen['inversion']]
    volumes = sum(name in ('magnitude', 'r2star', 'field_noise') for name in entry.extras)
    # A series is held as it is stored, and in the order in which it is worked on.
    series = [name for name in (entry.takes, *entry.extras) if name in ('phase', 'magnitudes')]
    volumes += 2 * n_echoes * len(series)
    return volumes + (2 if chosen['strategy'] != 'single' else 0)
