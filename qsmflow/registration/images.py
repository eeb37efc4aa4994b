"""Preparation of images for registration, and the measure of their agreement. Arrays only."""

import numpy as np
from scipy import ndimage

from qsmflow.io import Volume


def foreground(magnitude: np.ndarray) -> np.ndarray:
    """Find the head in a magnitude image.

    Parameters
    ----------
    magnitude : ndarray, shape (X, Y, Z)
        Magnitude, in arbitrary units.

    Returns
    -------
    ndarray of bool, shape (X, Y, Z)
        The largest object brighter than a threshold between noise and signal, opened and with its
        holes filled. All true when nothing stands out.
    """
    data = np.nan_to_num(magnitude)
    smooth = ndimage.gaussian_filter(np.asarray(data, np.float32), 1.0)
    top = np.percentile(smooth, 99)
    if top <= 0:
        return np.ones(data.shape, bool)
    mask = smooth > _otsu(np.minimum(smooth, top)) * 0.5
    labels, count = ndimage.label(ndimage.binary_opening(mask))
    if count == 0:
        return mask if mask.any() else np.ones(data.shape, bool)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return ndimage.binary_fill_holes(labels == sizes.argmax())


def _otsu(values: np.ndarray) -> float:
    """Return the threshold that separates two classes best (Otsu's criterion)."""
    counts, edges = np.histogram(values, bins=128)
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)
    above = below[-1] - below
    sums = np.cumsum(counts * centres)
    with np.errstate(divide='ignore', invalid='ignore'):
        between = below * above * (sums / below - (sums[-1] - sums) / above) ** 2
    return float(centres[np.nanargmax(between)])


def flatten_intensity(
    magnitude: np.ndarray, mask: np.ndarray, voxel_size: tuple, *, sigma: float = 25.0
) -> np.ndarray:
    """Remove slow shading and bring the values to a common scale.

    The image is divided by its own mean within about ``sigma``, taken inside the mask. This is
    far cheaper than N4 and enough for a local or information-theoretic similarity.

    Parameters
    ----------
    magnitude : ndarray, shape (X, Y, Z)
        Magnitude, in arbitrary units.
    mask : ndarray of bool, shape (X, Y, Z)
        Where the mean is taken.
    voxel_size : tuple of float
        Voxel edge lengths, in mm.
    sigma : float, optional
        Width of the Gaussian, in mm.

    Returns
    -------
    ndarray of float32, shape (X, Y, Z)
        About 1 in the mask, clipped to [0, 3].
    """
    widths = [sigma / v for v in voxel_size]
    inside = mask.astype(np.float32)
    data = np.nan_to_num(np.asarray(magnitude, np.float32))
    total = ndimage.gaussian_filter(data * inside, widths)
    weight = ndimage.gaussian_filter(inside, widths)
    shading = total / np.maximum(weight, 1e-3)
    floor = 0.05 * float(shading[mask].max(initial=0.0)) + 1e-12
    return np.clip(data / np.maximum(shading, floor), 0, 3)


def local_similarity(
    fixed: np.ndarray, moving: np.ndarray, mask: np.ndarray, *, radius: int = 2
) -> float:
    r"""Measure how well two images of different contrast agree.

    The square of the correlation in a cube around each voxel, averaged with the product of the
    two local standard deviations as weight:
    :math:`S = \sum w\, r^2 / \sum w`. It asks only that contrast be related *locally* and
    linearly, of either sign, so T1w and gradient-echo images can be compared; unrelated images
    give about one over the number of independent voxels in the cube.

    Parameters
    ----------
    fixed, moving : ndarray, shape (X, Y, Z)
        Two images on one grid.
    mask : ndarray of bool, shape (X, Y, Z)
        Where they are compared; nothing outside is used.
    radius : int, optional
        Half width of the cube, in voxels.

    Returns
    -------
    float
        In [0, 1]; 0 for an empty mask.
    """
    size = 2 * radius + 1
    inside = mask.astype(np.float32)

    def mean(values):
        return ndimage.uniform_filter(values * inside, size, mode='constant')

    weight = np.maximum(mean(np.ones_like(inside)), 1e-6)
    first, second = np.asarray(fixed, np.float32), np.asarray(moving, np.float32)
    mean_1, mean_2 = mean(first) / weight, mean(second) / weight
    var_1 = np.maximum(mean(first * first) / weight - mean_1**2, 0)
    var_2 = np.maximum(mean(second * second) / weight - mean_2**2, 0)
    cov = mean(first * second) / weight - mean_1 * mean_2
    use = mask & (weight > 0.5)
    spread = np.sqrt(var_1 * var_2)
    importance = spread[use].sum(dtype=float)
    if not importance > 0:
        return 0.0
    score = (cov[use] ** 2 / np.maximum(spread[use], 1e-12)).sum(dtype=float)
    return float(min(score / importance, 1.0))


def working_image(
    volume: Volume,
    resolution: float,
    *,
    mask: np.ndarray | None = None,
    keep_outside: bool = False,
    margin: float = 12.0,
) -> tuple[Volume, Volume]:
    """Cut an image to its object and bring it to isotropic voxels for registration.

    Parameters
    ----------
    volume : Volume
        3-D image, any orientation and voxel size.
    resolution : float
        Voxel edge, in mm; never finer than the image's finest axis.
    mask : ndarray of bool, shape (X, Y, Z), optional
        The object, and nothing else is kept of the image; without it, the head found by
        :func:`foreground` with its surroundings.
    keep_outside : bool, optional
        Keep the image outside the mask, and its range of values.
    margin : float, optional
        What is kept around the object, in mm.

    Returns
    -------
    image : Volume
        Flattened intensities (see :func:`flatten_intensity`) on a grid with orthogonal axes,
        with a mask stretched so that its tissue contrast fills the range of a histogram.
    mask : Volume
        The object on the same grid, bool.
    """
    inside = foreground(volume.data) if mask is None else np.asarray(mask, bool)
    if not inside.any():
        inside = np.ones(volume.shape, bool)
    voxel = np.array(volume.voxel_size)
    edge = max(resolution, float(voxel.min()))
    flat = flatten_intensity(volume.data, inside, volume.voxel_size)
    grid = _isotropic_grid(volume, inside, edge, margin)
    blur = [0.4 * np.sqrt(max(edge**2 - v**2, 0.0)) / v for v in voxel]
    index = np.linalg.inv(volume.affine) @ grid.affine

    def bring(values):
        smooth = ndimage.gaussian_filter(values.astype(np.float32), blur)
        return ndimage.affine_transform(
            smooth, index[:3, :3], index[:3, 3], output_shape=grid.shape, order=1
        )

    data, kept = bring(flat), bring(inside) > 0.5
    if mask is not None and not keep_outside:
        data = _stretch(data, kept)
    return (
        Volume(data, grid.affine, volume.path),
        Volume(kept, grid.affine, volume.path),
    )


def _stretch(data: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Give the mask's values the range 0.25 to 1.25 and set the rest to 0.

    Mutual information counts in a few tens of bins over the whole range. Brain tissue in a
    gradient-echo magnitude differs by a few per cent and would share two or three of them.
    """
    if not mask.any():
        return data
    low, high = np.percentile(data[mask], [1, 99])
    scaled = np.clip((data - low) / max(high - low, 1e-12), 0, 1) + 0.25
    return np.where(mask, scaled, 0).astype(np.float32)


def _isotropic_grid(volume: Volume, mask: np.ndarray, edge: float, margin: float) -> Volume:
    """Lay an isotropic, orthogonal grid around the mask, along the array's own axes."""
    voxel = np.array(volume.voxel_size)
    left, _, right = np.linalg.svd(volume.affine[:3, :3] / voxel)
    axes = left @ right
    boxes = [np.flatnonzero(mask.any(axis=other)) for other in ((1, 2), (0, 2), (0, 1))]
    pad = margin / voxel
    low = np.array([box[0] for box in boxes]) - np.minimum(pad, [box[0] for box in boxes])
    high = np.minimum([box[-1] for box in boxes] + pad, np.array(mask.shape) - 1)
    centre = volume.affine[:3, :3] @ ((low + high) / 2) + volume.affine[:3, 3]
    shape = np.maximum(np.ceil((high - low) * voxel / edge).astype(int) + 1, 8)
    affine = np.eye(4)
    affine[:3, :3] = axes * edge
    affine[:3, 3] = centre - affine[:3, :3] @ ((shape - 1) / 2)
    return Volume(np.empty(shape, bool), affine)
