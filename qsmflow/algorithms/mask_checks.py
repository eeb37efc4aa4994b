"""What can be wrong with a brain mask, measured, and what of it can be mended."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from qsmflow.algorithms.masking import FACES


@dataclass(frozen=True)
class MaskRepair:
    """What was mended in a mask, and what was left.

    Attributes
    ----------
    islands, holes : int
        Parts that were removed, and holes that were filled.
    changed_ml : float
        Volume of both, in ml.
    parts, open_holes : int
        Parts that are left, and holes too large to be filled.
    holes_ml : float
        Volume of the latter, in ml.
    """

    islands: int
    holes: int
    changed_ml: float
    parts: int
    open_holes: int
    holes_ml: float


def repair_mask(mask, voxel_size, *, max_ml: float = 1.0) -> tuple[np.ndarray, MaskRepair]:
    """Remove small islands of a mask and fill small holes.

    What is larger was perhaps meant: a hemisphere apart, or metal that was left out.

    Parameters
    ----------
    mask : ndarray of bool, shape (X, Y, Z)
        Any mask.
    voxel_size : tuple of float
        Voxel edge lengths, in mm, in array-axis order.
    max_ml : float, optional
        Largest volume of what counts as small, in ml. The largest part of the mask stays.

    Returns
    -------
    mask : ndarray of bool, shape (X, Y, Z)
        The mended mask.
    repair : MaskRepair
        What was done.

    Examples
    --------
    >>> mask = np.zeros((12, 12, 12), bool)
    >>> mask[2:10, 2:10, 2:10] = True
    >>> mask[5, 5, 5], mask[0, 0, 0] = False, True
    >>> mended, repair = repair_mask(mask, (1.0, 1.0, 1.0))
    >>> repair.islands, repair.holes, int(mended.sum()), repair.parts
    (1, 1, 512, 1)
    """
    mask = np.asarray(mask, bool)
    voxel_ml = float(np.prod(voxel_size)) / 1000
    limit = max_ml / voxel_ml
    parts, sizes = _parts(mask)
    small = (sizes > 0) & (sizes <= limit)
    small[sizes.argmax()] = False
    mended = mask & ~small[parts]
    background, spaces = _parts(~mended)
    closed = (spaces > 0) & ~_at_border(background, spaces.size)
    fill = closed & (spaces <= limit)
    mended = mended | fill[background]
    left = closed & ~fill
    repair = MaskRepair(
        islands=int(small.sum()),
        holes=int(fill.sum()),
        changed_ml=float((sizes[small].sum() + spaces[fill].sum()) * voxel_ml),
        parts=int(np.count_nonzero(sizes) - small.sum()),
        open_holes=int(left.sum()),
        holes_ml=float(spaces[left].sum() * voxel_ml),
    )
    return mended, repair


def _parts(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Label the parts of a mask that share faces, and return the size of each; 0 is outside."""
    labels, _ = ndimage.label(mask, FACES)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return labels, sizes


def _at_border(labels: np.ndarray, count: int) -> np.ndarray:
    """Tell which labels reach the border of the volume."""
    touching = np.zeros(count, bool)
    for axis in range(labels.ndim):
        for end in (0, -1):
            touching[np.unique(labels.take(end, axis))] = True
    return touching


def border_share(mask) -> float:
    """Return the part of a mask's surface that lies on the border of the volume.

    Parameters
    ----------
    mask : ndarray of bool, shape (X, Y, Z)
        Any mask.

    Returns
    -------
    float
        Faces of voxels on the border over all outer faces; 0 for an empty mask.

    Examples
    --------
    >>> mask = np.zeros((4, 4, 4), bool)
    >>> mask[:2, 1:3, 1:3] = True
    >>> round(border_share(mask), 3)
    0.167
    """
    mask = np.asarray(mask, bool)
    border = inner = 0
    for axis in range(mask.ndim):
        border += sum(int(np.count_nonzero(mask.take(end, axis))) for end in (0, -1))
        planes = np.moveaxis(mask, axis, 0)
        inner += int(np.count_nonzero(planes[1:] != planes[:-1]))
    return border / (border + inner) if border + inner else 0.0


def void_volume(mask, magnitude, voxel_size, *, fraction: float = 0.1) -> float:
    """Return the volume inside a mask that gives no signal, in ml.

    Air, metal and calcified or bleeding tissue are dark in the first echo already. Single voxels
    and thin sheets, as of noise and vessels, do not count.

    Parameters
    ----------
    mask : ndarray of bool, shape (X, Y, Z)
        Brain mask.
    magnitude : ndarray of float, shape (X, Y, Z)
        Magnitude of the first echo, in arbitrary units.
    voxel_size : tuple of float
        Voxel edge lengths, in mm.
    fraction : float, optional
        Of the median in the mask: less is no signal.

    Returns
    -------
    float
    """
    mask = np.asarray(mask, bool)
    if not mask.any():
        return 0.0
    dark = mask & (magnitude < fraction * np.median(magnitude[mask]))
    return float(ndimage.binary_opening(dark, FACES).sum() * np.prod(voxel_size) / 1000)
