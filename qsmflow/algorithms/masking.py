"""Masks: thresholds, morphology in millimetres, and the repair of a brain mask's rim."""

import numpy as np
from scipy import ndimage

from qsmflow.algorithms import _mask_kernels as kernels
from qsmflow.algorithms import operators as ops

#: Neighbourhoods of a voxel: faces only, and faces, edges and corners.
FACES = ndimage.generate_binary_structure(3, 1)
ALL_NEIGHBOURS = ndimage.generate_binary_structure(3, 3)


def otsu_threshold(values, bins: int = 256) -> float:
    """Return the threshold that separates two classes best (largest between-class variance).

    Parameters
    ----------
    values : ndarray of float
        Samples of any shape; those that are not finite are left out.
    bins : int, optional
        Number of histogram bins.

    Returns
    -------
    float
        In the unit of ``values``; the only value if there is but one.

    References
    ----------
    Otsu N. IEEE Trans Syst Man Cybern 1979;9:62-66. doi:10.1109/TSMC.1979.4310076

    Examples
    --------
    >>> 2 < otsu_threshold(np.array([1.0, 1.1, 2.0, 9.0, 9.5, 10.0])) < 9
    True
    """
    values = np.asarray(values)
    if values.dtype != np.float32:
        values = values.astype(np.float64)
    if values.size == 0:
        return 0.0
    low, high = float(values.min()), float(values.max())
    if not np.isfinite(low + high):
        return otsu_threshold(values[np.isfinite(values)], bins)
    if low == high:
        return low
    edges = np.linspace(low, high, bins + 1)
    counts = _histogram(values, edges)
    centres = (edges[:-1] + edges[1:]) / 2
    low = np.cumsum(counts)[:-1]
    high = values.size - low
    total = np.cumsum(counts * centres)
    with np.errstate(invalid='ignore', divide='ignore'):
        gap = total[:-1] / low - (total[-1] - total[:-1]) / high
    between = np.nan_to_num(low * high * gap**2)
    # Between well separated classes the criterion is flat: take the middle of the plateau.
    best = np.flatnonzero(between >= between.max() * (1 - 1e-9))
    return float(edges[1 + (best[0] + best[-1]) // 2])


def _histogram(values, edges):
    """Return how many values there are in each of bins of equal width."""
    rows = values.shape[0] if values.ndim > 1 and values.shape[0] < 1024 else 1
    counts = np.zeros((rows, edges.size - 1), np.int64)
    ops.use_threads()
    kernels.count_bins(values.reshape(rows, -1), edges, counts)
    return counts.sum(axis=0)


def robust_mask(magnitude, *, factor: float = 1.0) -> np.ndarray:
    """Separate the head from the air by its magnitude.

    The square root of the magnitude evens out coil shading; Otsu's threshold of it, an opening,
    the largest component and filled holes give the mask.

    Parameters
    ----------
    magnitude : ndarray of float, shape (X, Y, Z) or (X, Y, Z, E)
        Magnitude, in arbitrary units. Of several echoes the root of the mean square is used.
    factor : float, optional
        Multiplies the threshold (of the square root). Smaller keeps more.

    Returns
    -------
    mask : ndarray of bool, shape (X, Y, Z)
        True in the head; all False where the image is empty.

    Examples
    --------
    >>> image = np.zeros((16, 16, 16))
    >>> image[4:12, 4:12, 4:12] = 100
    >>> int(robust_mask(image).sum())
    512
    """
    signal = np.asarray(magnitude, np.float32)
    if signal.ndim == 4:
        echoes, signal = signal, np.empty(signal.shape[:3], np.float32)
        ops.use_threads()
        kernels.root_mean_square(echoes, signal)
    else:
        signal = np.nan_to_num(signal, posinf=0, neginf=0)
    ceiling = np.percentile(signal, 99)
    if ceiling <= 0:
        ceiling = signal.max()
    signal = np.clip(signal, 0, ceiling)
    np.sqrt(signal, out=signal)
    mask = signal > factor * otsu_threshold(signal)
    return fill_holes(largest_component(_without_spurs(mask)))


def largest_component(mask, *, connectivity: int = 1) -> np.ndarray:
    """Keep the largest connected part of a mask.

    Parameters
    ----------
    mask : ndarray of bool, shape (X, Y, Z)
        Any mask.
    connectivity : int, optional
        1 joins voxels that share a face, 3 also those that share an edge or a corner.

    Returns
    -------
    ndarray of bool, shape (X, Y, Z)
        The part with most voxels; all False for an empty mask.

    Examples
    --------
    >>> mask = np.zeros((1, 1, 6), bool)
    >>> mask[0, 0, [0, 2, 3, 4]] = True
    >>> largest_component(mask)[0, 0].astype(int)
    array([0, 0, 1, 1, 1, 0])
    """
    mask = np.asarray(mask, bool)
    labels, count = ndimage.label(mask, ndimage.generate_binary_structure(mask.ndim, connectivity))
    if count < 2:
        return mask.copy()
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return labels == sizes.argmax()


def fill_holes(mask) -> np.ndarray:
    """Fill the background that is not connected to the outside of a mask.

    Parameters
    ----------
    mask : ndarray of bool, shape (X, Y, Z)
        Any mask. Background that reaches the edge of the volume is outside.

    Returns
    -------
    ndarray of bool, shape (X, Y, Z)

    Examples
    --------
    >>> mask = np.ones((3, 3, 3), bool)
    >>> mask[1, 1, 1] = False
    >>> bool(fill_holes(mask).all())
    True
    """
    mask = np.asarray(mask, bool)
    box = _bounding_box(mask, (1, 1, 1))
    filled = mask.copy()
    if box is not None:
        filled[box] |= _enclosed(mask[box])
    return filled


def _enclosed(mask):
    """Return the background from which no way by faces leads to the edge of the volume."""
    labels, count = ndimage.label(~mask)
    inside = np.ones(count + 1, bool)
    inside[0] = False
    for axis in range(mask.ndim):
        for end in (0, -1):
            inside[np.unique(np.take(labels, end, axis))] = False
    return inside[labels]


def erode(mask, radius_mm: float, voxel_size) -> np.ndarray:
    """Remove what lies within a distance of the background.

    Parameters
    ----------
    mask : ndarray of bool, shape (X, Y, Z)
        Any mask.
    radius_mm : float
        Distance, in mm, between voxel centres. Less than the smallest voxel edge changes nothing.
    voxel_size : tuple of float
        Voxel edge lengths, in mm, in array-axis order.

    Returns
    -------
    ndarray of bool, shape (X, Y, Z)
        What lies beyond the volume is unknown and does not count as background.

    Examples
    --------
    >>> mask = np.zeros((9, 9, 9), bool)
    >>> mask[1:8, 1:8, 1:8] = True
    >>> int(erode(mask, 1.0, (1, 1, 1)).sum()), int(erode(mask, 1.0, (1, 1, 2)).sum())
    (125, 175)
    """
    mask = np.asarray(mask, bool)
    box = _bounding_box(mask, (1, 1, 1))
    if box is None or radius_mm <= 0:
        return mask.copy()
    inner = mask[box]
    eroded = mask.copy()
    if not inner.all():
        eroded[box] = _farther(inner, radius_mm + 1e-6, voxel_size)
    return eroded


def dilate(mask, radius_mm: float, voxel_size) -> np.ndarray:
    """Add what lies within a distance of a mask.

    Parameters
    ----------
    mask : ndarray of bool, shape (X, Y, Z)
        Any mask.
    radius_mm : float
        Distance, in mm, between voxel centres.
    voxel_size : tuple of float
        Voxel edge lengths, in mm, in array-axis order.

    Returns
    -------
    ndarray of bool, shape (X, Y, Z)

    Examples
    --------
    >>> mask = np.zeros((7, 7, 7), bool)
    >>> mask[3, 3, 3] = True
    >>> int(dilate(mask, 1.0, (1, 1, 1)).sum()), int(dilate(mask, 1.0, (1, 1, 2)).sum())
    (7, 5)
    """
    mask = np.asarray(mask, bool)
    margin = tuple(1 + int(max(radius_mm, 0) / size) for size in voxel_size)
    box = _bounding_box(mask, margin)
    grown = mask.copy()
    if box is not None and radius_mm > 0:
        grown[box] = ~_farther(~mask[box], radius_mm + 1e-6, voxel_size)
    return grown


def without_blank(mask, magnitude, phase=None) -> tuple[np.ndarray, float]:
    """Take from a mask what holds no data: blanked signal or phase, as masking leaves it.

    A voxel is blank if its magnitude is zero in all echoes, or its phase is the same in all of
    them and what a stored zero becomes. Single blank voxels stay. Blank planes at the border of
    the image take the voxels beside them along, whose values were interpolated with zero.

    Parameters
    ----------
    mask : ndarray of bool, shape (X, Y, Z)
        Any mask.
    magnitude : ndarray of float, shape (X, Y, Z, E)
        Magnitude.
    phase : ndarray of float, shape (X, Y, Z, E), optional
        Wrapped phase, in rad.

    Returns
    -------
    mask : ndarray of bool, shape (X, Y, Z)
        A copy without blank voxels.
    fraction : float
        Part of the mask that was taken, from 0 to 1.

    Examples
    --------
    >>> signal = np.ones((8, 8, 8, 1))
    >>> signal[:, :, :3] = 0
    >>> kept, fraction = without_blank(np.ones((8, 8, 8), bool), signal)
    >>> kept[0, 0].tolist(), fraction
    ([False, False, False, False, True, True, True, True], 0.5)
    """
    mask = np.asarray(mask, bool)
    empty = ~np.asarray(magnitude).any(axis=-1)
    blank = empty.copy()
    if phase is not None:
        first = np.asarray(phase)[..., 0]
        same = (first == 0) | (first == np.float32(-np.pi))
        for echo in range(1, np.shape(phase)[-1]):
            same &= phase[..., echo] == first
        blank |= same
    if not (blank & mask).any():
        return mask.copy(), 0.0
    # The border of the image is no reason to keep a blank voxel that lies at it.
    padded = ndimage.binary_opening(np.pad(blank, 1, mode='edge'), FACES)
    blank &= padded[1:-1, 1:-1, 1:-1]
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        used = np.flatnonzero(~empty.all(axis=others))
        if used.size:
            planes = np.arange(empty.shape[axis])
            start, end = used[0], used[-1]
            outside = (planes < start + (start > 0)) | (planes > end - (end < planes[-1]))
            blank |= outside.reshape([-1 if a == axis else 1 for a in range(3)])
    kept = mask & ~blank
    return kept, float(1 - kept.sum() / mask.sum())


def refine_brain_mask(
    mask,
    *,
    magnitude,
    quality=None,
    residual=None,
    voxel_size,
    magnitude_fraction: float = 0.15,
    quality_fraction: float = 0.4,
    residual_limit: float = 0.3,
    max_depth: float = 15.0,
) -> tuple[np.ndarray, float]:
    """Take unreliable voxels off the rim of a brain mask, and nothing from its inside.

    A voxel is unreliable when its first-echo magnitude is far below that of the brain (air, bone),
    when its phase is not coherent, or when no field explains its echoes. Of these voxels only the
    compact ones that are connected to the outside and lie near it are removed. Iron-rich nuclei,
    veins and haemorrhages are dark and incoherent too, but lie inside: they are kept, since an
    inversion needs their field, and a hole would turn them into background.

    Parameters
    ----------
    mask : ndarray of bool, shape (X, Y, Z)
        Brain mask.
    magnitude : ndarray of float, shape (X, Y, Z) or (X, Y, Z, E)
        Magnitude, in arbitrary units; of several echoes the first is used, because later ones are
        dark in good tissue near the sinuses as well.
    quality : ndarray of float, shape (X, Y, Z), optional
        Phase quality, in [0, 1]; high is good.
    residual : ndarray of float, shape (X, Y, Z), optional
        Relative residual of the field fit, in [0, 1]; low is good.
    voxel_size : tuple of float
        Voxel edge lengths, in mm, in array-axis order.
    magnitude_fraction : float, optional
        Magnitude below this fraction of the median in the mask is unreliable.
    quality_fraction : float, optional
        Quality below this fraction of the median in the mask is unreliable.
    residual_limit : float, optional
        Residual above this is unreliable.
    max_depth : float, optional
        Nothing is removed deeper than this below the surface of ``mask``, in mm.

    Returns
    -------
    refined : ndarray of bool, shape (X, Y, Z)
        One component without holes, inside ``mask`` apart from holes that it fills.
    removed_fraction : float
        Part of ``mask`` that is not in ``refined``, from 0 to 1.

    Examples
    --------
    >>> image = np.full((20, 20, 20), 100.0)
    >>> image[:5] = 1.0                                   # air at the rim ...
    >>> image[12, 12, 12] = 1.0                           # ... and a dark spot inside
    >>> mask = np.zeros(image.shape, bool)
    >>> mask[2:18, 2:18, 2:18] = True
    >>> refined, removed = refine_brain_mask(mask, magnitude=image, voxel_size=(1, 1, 1))
    >>> bool(refined[12, 12, 12]), bool(refined[3, 10, 10]), round(removed, 2)
    (True, False, 0.19)
    """
    mask = np.asarray(mask, bool)
    if not mask.any():
        return mask.copy(), 0.0
    bad = _unreliable(
        mask, magnitude, quality, residual, magnitude_fraction, quality_fraction, residual_limit
    )
    # The air that the opening below looks at, but no more: distances take much memory.
    box = _bounding_box(mask, (3, 3, 3))
    kept = np.zeros_like(mask)
    kept[box] = _without_bad_rim(mask[box], bad[box], voxel_size, max_depth)
    if not kept.any():
        return mask.copy(), 0.0
    return kept, float(np.count_nonzero(mask & ~kept) / np.count_nonzero(mask))


def _without_bad_rim(mask, bad, voxel_size, max_depth):
    """Take off the bad voxels that hang together with the outside."""
    # One voxel of air around makes "connected to the outside" hold at the edge of the volume too.
    whole, bad = np.pad(mask, 1), np.pad(bad, 1)
    removable = bad & ~_farther(whole, max_depth, voxel_size) | ~whole
    # The opening cuts paths one voxel wide: surface veins would lead the removal into the brain.
    compact = ndimage.binary_opening(removable, FACES) | ~whole
    outside = ndimage.binary_propagation(~whole, structure=FACES, mask=compact)
    kept = fill_holes(largest_component(_without_spurs(whole & ~outside)))
    return kept[(slice(1, -1),) * 3]


def _unreliable(
    mask, magnitude, quality, residual, magnitude_fraction, quality_fraction, residual_limit
):
    signal = np.asarray(magnitude)
    signal = signal[..., 0] if signal.ndim == 4 else signal
    signal = np.nan_to_num(signal.astype(np.float32), posinf=0, neginf=0)
    bad = signal < magnitude_fraction * np.median(signal[mask])
    if quality is not None:
        quality = np.nan_to_num(np.asarray(quality, np.float32))
        bad |= quality < quality_fraction * np.median(quality[mask])
    if residual is not None:
        bad |= ~(np.asarray(residual) <= residual_limit)
    return bad & mask


def _farther(mask, distance, voxel_size):
    """Return where the nearest background, of which there is some, is beyond a distance in mm."""
    # The distances that scipy returns take four times the memory of the indices they come from.
    nearest = ndimage.distance_transform_edt(
        mask, sampling=voxel_size, return_distances=False, return_indices=True
    )
    far = np.empty(mask.shape, bool)
    planes = np.ogrid[tuple(slice(n) for n in mask.shape[1:])]
    for i in range(mask.shape[0]):
        steps = [nearest[axis, i] - here for axis, here in enumerate((i, *planes))]
        squares = [(step * size) ** 2 for step, size in zip(steps, voxel_size, strict=True)]
        far[i] = np.sqrt(sum(squares)) > distance
    return far


def _without_spurs(mask):
    """Take off what is one voxel thin, leaving the corners of thick parts as they are."""
    ops.use_threads()
    whole = np.ascontiguousarray(mask, bool).view(np.uint8)
    part, opened = np.empty_like(whole), np.empty_like(whole)
    kernels.erode_faces(whole, part)
    kernels.dilate_faces(part, opened)
    if not opened.any():
        return mask
    kernels.dilate_all_within(opened, whole, part)
    return part.view(bool)


def _bounding_box(mask, margin):
    """Return slices around a mask with a margin in voxels, or None for an empty mask."""
    box = []
    for axis, extra in enumerate(margin):
        others = tuple(a for a in range(mask.ndim) if a != axis)
        found = np.flatnonzero(mask.any(axis=others))
        if not found.size:
            return None
        box.append(slice(max(0, found[0] - extra), min(mask.shape[axis], found[-1] + 1 + extra)))
    return tuple(box)
