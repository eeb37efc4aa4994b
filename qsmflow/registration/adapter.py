"""The only home of antspyx: images in and out, transforms on disk, the optimiser, resampling.

Images are handed over as arrays with their affine, so ANTs never reads a NIfTI header and cannot
choose another of its affines. Everything runs in one thread and with a given seed.
"""

import os
import tempfile
from pathlib import Path

import numpy as np

from qsmflow.io import Volume
from qsmflow.registration.hdf5 import remove_times

#: Seed of the metric's sampling where none is given.
SEED = 42

_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def load_ants():
    """Import antspyx so that it computes in one thread.

    ITK reads the variable when it is first used. ``ants.config.setload_ants_deterministic`` is not
    called: it would reseed NumPy and refuse the mutual-information registrations. The seed goes
    to each call instead.
    """
    os.environ['ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS'] = '1'
    import ants

    return ants


def to_ants(volume: Volume):
    """Hand a volume to ANTs with its place in space.

    Parameters
    ----------
    volume : Volume
        3-D, any orientation, left- or right-handed.

    Returns
    -------
    ants.ANTsImage
        float32, with ITK's origin, spacing and direction (LPS). Values that are not finite are 0.
    """
    affine = _RAS_TO_LPS @ np.asarray(volume.affine, float)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    data = np.nan_to_num(np.ascontiguousarray(volume.data, np.float32), posinf=0, neginf=0)
    return load_ants().from_numpy(
        data,
        origin=affine[:3, 3].tolist(),
        spacing=spacing.tolist(),
        direction=affine[:3, :3] / spacing,
    )


def grid_of(volume: Volume):
    """Hand the grid of a volume to ANTs; its data may be anything, and are not read."""
    return to_ants(Volume(np.zeros(volume.shape, np.float32), volume.affine))


def mask_to_ants(mask: Volume):
    """Hand a mask to ANTs.

    Parameters
    ----------
    mask : Volume
        3-D, bool.

    Returns
    -------
    ants.ANTsImage
        Of unsigned char. The optimiser reads a mask's memory as such without a look at its type:
        a float mask would be taken for noise.
    """
    return to_ants(mask).clone('unsigned char')


def from_ants(image) -> Volume:
    """Take a volume back from ANTs.

    Parameters
    ----------
    image : ants.ANTsImage
        3-D image.

    Returns
    -------
    Volume
        float32, affine in RAS+ mm.
    """
    affine = np.eye(4)
    affine[:3, :3] = np.asarray(image.direction) * np.asarray(image.spacing)
    affine[:3, 3] = image.origin
    return Volume(image.numpy().astype(np.float32, copy=False), _RAS_TO_LPS @ affine)


def write_affine(
    matrix: np.ndarray, path: str | os.PathLike, *, centre: np.ndarray | None = None
) -> str:
    """Write a linear transform as an ITK text file.

    Parameters
    ----------
    matrix : ndarray of float, shape (4, 4)
        Fixed to moving coordinates, in RAS mm.
    path : path-like
        Ends in ``.txt``.
    centre : ndarray of float, shape (3,), optional
        Centre of rotation, RAS mm in the fixed image. It does not change the transform, but an
        optimiser that starts from the file turns about it: it should lie in the head.

    Returns
    -------
    str
        The path.
    """
    lps = _RAS_TO_LPS @ matrix @ _RAS_TO_LPS
    pivot = np.zeros(3) if centre is None else _RAS_TO_LPS[:3, :3] @ np.asarray(centre, float)
    shift = lps[:3, 3] + lps[:3, :3] @ pivot - pivot
    numbers = ' '.join(repr(float(v)) for v in (*lps[:3, :3].ravel(), *shift))
    fixed = ' '.join(repr(float(v)) for v in pivot)
    Path(path).write_text(
        '#Insight Transform File V1.0\n#Transform 0\nTransform: AffineTransform_double_3_3\n'
        f'Parameters: {numbers}\nFixedParameters: {fixed}\n'
    )
    return str(path)


def read_affine(path: str | os.PathLike) -> np.ndarray:
    """Read a linear ITK transform, text or ``.mat``.

    Parameters
    ----------
    path : path-like
        File with one linear transform.

    Returns
    -------
    ndarray of float, shape (4, 4)
        Fixed to moving coordinates, in RAS mm.

    Examples
    --------
    >>> matrix = np.array([[1, 0, 0, 5.0], [0, 0, 1, 0], [0, -1, 0, 2], [0, 0, 0, 1]])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     bool(np.allclose(read_affine(write_affine(matrix, f'{folder}/x.txt')), matrix))
    True
    """
    transform = load_ants().read_transform(str(path))
    parameters = np.asarray(transform.parameters, float)
    centre = np.asarray(transform.fixed_parameters, float)[:3]
    lps = np.eye(4)
    lps[:3, :3] = parameters[:9].reshape(3, 3)
    lps[:3, 3] = parameters[9:12] + centre - lps[:3, :3] @ centre
    return _RAS_TO_LPS @ lps @ _RAS_TO_LPS


#: Stages: name -> (ANTs transform, metric, iterations, levels in mm, smoothing in voxels).
_STAGES = {
    'rigid_coarse': ('Rigid[0.2]', 'mattes[{},{},1,32]', '100x30', (12, 8), '1x0.5'),
    'affine_coarse': ('Affine[0.2]', 'mattes[{},{},1,32]', '100x50', (12, 8), '1x0.5'),
    'rigid': ('Rigid[0.1]', 'mattes[{},{},1,32,regular,0.5]', '60x30', (8, 4), '1x0.5'),
    'affine': ('Affine[0.1]', 'mattes[{},{},1,32,regular,0.5]', '60x30', (8, 4), '1x0.5'),
    'syn_mi': ('SyN[0.1,3,0.5]', 'mattes[{},{},1,32]', '100x100', (8, 4), '1x0.5'),
    'syn_cc': ('SyN[0.2,3,0]', 'cc[{},{},1,2]', '60x40', (8, 4), '1x0.5'),
    'affine_light': ('Affine[0.1]', 'mattes[{},{},1,32,regular,0.5]', '60x30', (12, 6), '1x0.5'),
    'syn_light': ('SyN[0.2,3,0]', 'mattes[{},{},1,32]', '40x20', (6, 3), '1x0'),
}


def optimise(
    fixed, moving, stages, initial, prefix, *, fixed_mask=None, moving_mask=None, seed=SEED
):
    """Run antsRegistration over named stages.

    Parameters
    ----------
    fixed, moving : ants.ANTsImage
        Images.
    stages : sequence of str
        Keys of the table of stages.
    initial : str
        ITK file to start from.
    prefix : str
        Stem of the files that are written.
    fixed_mask, moving_mask : ants.ANTsImage, optional
        Where the metric is evaluated.
    seed : int, optional
        Seed of the metric's sampling.

    Returns
    -------
    tuple of str
        One linear transform, or a forward and an inverse composite.
    """
    ants = load_ants()
    from ants.internal import get_pointer_string

    one, two = get_pointer_string(fixed), get_pointer_string(moving)
    masks = [get_pointer_string(m) if m is not None else 'NA' for m in (fixed_mask, moving_mask)]
    edge = min(fixed.spacing)
    warp = any(stage.startswith('syn') for stage in stages)
    args = ['--dimensionality', '3', '--initial-moving-transform', str(initial)]
    for stage in stages:
        transform, metric, iterations, levels, smooth = _STAGES[stage]
        shrink = 'x'.join(str(max(1, round(level / edge))) for level in levels)
        args += ['--metric', metric.format(one, two), '--transform', transform]
        args += ['--convergence', f'[{iterations},1e-6,10]']
        args += ['--shrink-factors', shrink, '--smoothing-sigmas', smooth]
        args += ['--masks', f'[{masks[0]},{masks[1]}]']
    args += ['--float', '1', '--collapse-output-transforms', '1', '--random-seed', str(seed)]
    args += ['--write-composite-transform', str(int(warp)), '--output', str(prefix)]
    ants.registration(args, None)
    if warp:
        files = (f'{prefix}Composite.h5', f'{prefix}InverseComposite.h5')
        for file in files:
            remove_times(file)
        return files
    return (f'{prefix}0GenericAffine.mat',)


def map_points(points: np.ndarray, transform: str) -> np.ndarray:
    """Map points through a transform.

    Parameters
    ----------
    points : ndarray of float, shape (N, 3)
        Coordinates in the fixed image's space, RAS mm.
    transform : str
        ITK file.

    Returns
    -------
    ndarray of float, shape (N, 3)
        Where they lie in the moving image's space, RAS mm.
    """
    import pandas as pd

    flip = np.array([-1.0, -1.0, 1.0])
    table = pd.DataFrame(np.asarray(points, float) * flip, columns=list('xyz'))
    mapped = load_ants().apply_transforms_to_points(3, table, [str(transform)], [False])
    return mapped[['x', 'y', 'z']].to_numpy() * flip


def resample(
    volume: Volume, like: Volume, transforms: list[str], *, interpolation: str = 'linear'
) -> Volume:
    """Bring a volume to another grid through one or more transforms, interpolating once.

    Parameters
    ----------
    volume : Volume
        3-D image, or labels.
    like : Volume
        Gives the grid; its data are not used.
    transforms : list of str
        ITK files in ANTs' order: the last one is the nearest to ``volume``. To bring a map from
        GRE to the template through T1w give ``[T1w-to-template, GRE-to-T1w]``. An empty list
        changes the grid only.
    interpolation : {'linear', 'nearest', 'cubic', 'label'}
        ``'label'`` keeps integers by ANTs' ``genericLabel``; see also
        :func:`~qsmflow.registration.labels.warp_labels`.

    Returns
    -------
    Volume
        On the grid of ``like``; 0 where nothing maps. float32, or the integer type of
        ``volume`` for labels.

    Raises
    ------
    ValueError
        If the interpolation is not one of those named.
    """
    names = {
        'linear': 'linear',
        'nearest': 'nearestNeighbor',
        'cubic': 'bSpline',
        'label': 'genericLabel',
    }
    if interpolation not in names:
        raise ValueError(f'interpolation must be one of {list(names)}; got {interpolation!r}')
    data = apply(to_ants(volume), grid_of(like), transforms, names[interpolation])
    if interpolation in ('nearest', 'label') and not np.issubdtype(volume.data.dtype, np.floating):
        data = np.rint(data).astype(volume.data.dtype)
    return Volume(data, like.affine, volume.path)


def apply(moving, fixed, transforms: list[str], interpolator: str) -> np.ndarray:
    """Apply transforms to an ANTs image.

    Parameters
    ----------
    moving, fixed : ants.ANTsImage
        Image to move, and image that gives the grid.
    transforms : list of str
        ITK files in ANTs' order; none for the identity.
    interpolator : str
        ANTs' name of the interpolator.

    Returns
    -------
    ndarray of float32, shape (X, Y, Z)
    """
    chain = [str(path) for path in transforms] or ['identity']
    if chain == ['identity']:
        with tempfile.TemporaryDirectory() as folder:
            chain = [write_affine(np.eye(4), f'{folder}/identity.txt')]
            return apply(moving, fixed, chain, interpolator)
    moved = load_ants().apply_transforms(
        fixed=fixed,
        moving=moving,
        transformlist=chain,
        whichtoinvert=[False] * len(chain),
        interpolator=interpolator,
        singleprecision=True,
    )
    return moved.numpy().astype(np.float32, copy=False)
