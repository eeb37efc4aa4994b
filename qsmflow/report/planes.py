"""Where to cut a volume, and how to lay the cuts on the page.

Volumes are turned to their closest anatomical orientation by flips and transpositions alone, so
no value is interpolated: what a figure shows are voxels. Oblique volumes are shown in the planes
of their acquisition. The display is radiological (the subject's right is on the left of axial and
coronal panels; anterior is on the left of sagittal panels), and each panel carries its letters.
"""

from dataclasses import dataclass

import nibabel as nib
import numpy as np

#: Planes in the order of the rows of a figure: name -> array axis (RAS) that is cut.
PLANES = {'axial': 2, 'coronal': 1, 'sagittal': 0}

#: Letters at the left and the right edge of a panel.
EDGE_LETTERS = {'axial': ('R', 'L'), 'coronal': ('R', 'L'), 'sagittal': ('A', 'P')}


@dataclass(frozen=True, eq=False)
class Oriented:
    """A volume whose axes run to the right, to anterior and to superior.

    Attributes
    ----------
    data : ndarray, shape (X, Y, Z)
        Voxel values; a view of the original array.
    affine : ndarray of float, shape (4, 4)
        Voxel indices of this array to scanner coordinates, in mm.
    voxel_size : tuple of float
        Edge lengths, in mm.
    obliquity : float
        Largest angle between an array axis and its anatomical axis, in degrees.
    """

    data: np.ndarray
    affine: np.ndarray
    voxel_size: tuple[float, float, float]
    obliquity: float


def orient(data: np.ndarray, affine: np.ndarray) -> Oriented:
    """Turn a volume to RAS+ order by flips and transpositions.

    Parameters
    ----------
    data : ndarray, shape (X, Y, Z)
        Voxel values in any axis order.
    affine : ndarray of float, shape (4, 4)
        Voxel indices to scanner coordinates, in mm.

    Returns
    -------
    Oriented

    Raises
    ------
    ValueError
        If ``data`` is not three-dimensional.

    Examples
    --------
    A volume stored from left to right in reverse comes back with its first axis flipped:

    >>> data = np.arange(8).reshape(2, 2, 2)
    >>> bool((orient(data, np.diag([-1.0, 1, 1, 1])).data == data[::-1]).all())
    True
    """
    data = np.asarray(data)
    if data.ndim != 3:
        raise ValueError(
            f'a figure needs a volume of shape (X, Y, Z); got {data.shape}. '
            'Choose one echo before drawing.'
        )
    affine = np.asarray(affine, float)
    orientation = nib.io_orientation(affine)
    turned = nib.apply_orientation(data, orientation)
    affine = affine @ nib.orientations.inv_ornt_aff(orientation, data.shape)
    size = np.linalg.norm(affine[:3, :3], axis=0)
    cosines = np.clip(np.diag(affine[:3, :3]) / size, -1, 1)
    return Oriented(
        turned,
        affine,
        tuple(float(v) for v in size),
        float(np.degrees(np.arccos(cosines)).max()),
    )


def bounding_box(
    mask: np.ndarray, voxel_size: tuple[float, float, float], *, margin: float = 0.0
) -> tuple[slice, slice, slice]:
    """Return the box that holds a mask, grown by a margin and clipped to the array.

    Parameters
    ----------
    mask : ndarray of bool, shape (X, Y, Z)
        Region; when empty, the box is the whole array.
    voxel_size : tuple of float
        Edge lengths, in mm.
    margin : float, optional
        Growth on each side, in mm.

    Returns
    -------
    tuple of slice

    Examples
    --------
    >>> mask = np.zeros((8, 8, 8), bool)
    >>> mask[3, 4, 2:6] = True
    >>> bounding_box(mask, (1, 1, 2), margin=2)
    (slice(1, 6, None), slice(2, 7, None), slice(1, 7, None))
    """
    box = []
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        hit = np.flatnonzero(mask.any(axis=others))
        if hit.size == 0:
            return tuple(slice(0, n) for n in mask.shape)
        grow = round(margin / voxel_size[axis])
        start = max(int(hit[0]) - grow, 0)
        box.append(slice(start, min(int(hit[-1]) + grow + 1, mask.shape[axis])))
    return tuple(box)


def spread_slices(mask: np.ndarray, axis: int, count: int) -> list[int]:
    """Choose slices spread evenly over the extent of a mask, away from its two ends.

    Parameters
    ----------
    mask : ndarray of bool, shape (X, Y, Z)
        Region to cover; when empty, the whole array is covered.
    axis : int
        Axis that is cut.
    count : int
        Number of slices.

    Returns
    -------
    list of int
        Indices in rising order; fewer than ``count`` when the extent is thinner.

    Examples
    --------
    >>> spread_slices(np.ones((4, 4, 101), bool), 2, 3)
    [15, 50, 85]
    """
    others = tuple(a for a in range(3) if a != axis)
    hit = np.flatnonzero(mask.any(axis=others))
    first, last = (hit[0], hit[-1]) if hit.size else (0, mask.shape[axis] - 1)
    fractions = np.linspace(0.15, 0.85, count) if count > 1 else np.array([0.5])
    return sorted({int(i) for i in np.round(first + fractions * (last - first))})


def covering_slices(labels: np.ndarray, axis: int, count: int) -> list[int]:
    """Choose slices that together show every label near its largest cross-section.

    Parameters
    ----------
    labels : ndarray of int, shape (X, Y, Z)
        Label image, 0 outside.
    axis : int
        Axis that is cut.
    count : int
        Number of slices, at most.

    Returns
    -------
    list of int
        Indices in rising order.

    Notes
    -----
    Greedy cover: each slice scores the summed relative area of the labels, each counted only
    beyond what the slices chosen before already show of it. Where few slices show all, others are
    added that show at least half of a label's largest cross-section, far from those chosen.

    Examples
    --------
    >>> labels = np.zeros((8, 8, 8), int)
    >>> labels[:, :4, 1] = 1
    >>> labels[:, 4:, 6] = 2
    >>> covering_slices(labels, 2, 2)
    [1, 6]
    >>> labels[:, :4, 1:6] = 1
    >>> covering_slices(labels, 2, 3)
    [1, 3, 6]
    """
    indices = np.unique(labels[labels > 0])
    if indices.size == 0:
        return spread_slices(labels > 0, axis, count)
    others = tuple(a for a in range(3) if a != axis)
    area = np.stack([(labels == index).sum(axis=others) for index in indices]).astype(float)
    area /= area.max(axis=1, keepdims=True)
    shown = np.zeros(len(indices))
    chosen: list[int] = []
    for _ in range(min(count, labels.shape[axis])):
        gain = np.maximum(area - shown[:, np.newaxis], 0).sum(axis=0)
        gain[chosen] = -1
        best = int(gain.argmax())
        if gain[best] <= 0:
            break
        chosen.append(best)
        shown = np.maximum(shown, area[:, best])
    return sorted(chosen + _far_from(chosen, np.flatnonzero(area.max(axis=0) >= 0.5), count))


def _far_from(chosen: list[int], others: np.ndarray, count: int) -> list[int]:
    """Choose further slices, each as far from those before it as can be, up to a number."""
    more: list[int] = []
    while len(chosen) + len(more) < count:
        away = np.abs(others[:, np.newaxis] - [*chosen, *more]).min(axis=1)
        if away.max() == 0:
            break
        more.append(int(others[away.argmax()]))
    return more


def cut(data: np.ndarray, plane: str, index: int, box: tuple[slice, slice, slice]) -> np.ndarray:
    """Cut one panel out of an oriented array: rows upwards, columns as displayed.

    Parameters
    ----------
    data : ndarray, shape (X, Y, Z)
        Array in RAS+ order.
    plane : {'axial', 'coronal', 'sagittal'}
        Plane of the panel.
    index : int
        Position along the axis that is cut.
    box : tuple of slice
        Part of the array to show.

    Returns
    -------
    ndarray, shape (rows, columns)
        For display with the first row at the bottom; right (or anterior) is on the left.
    """
    axis = PLANES[plane]
    where = [index if a == axis else box[a] for a in range(3)]
    return data[tuple(where)][::-1, :].T


def panel_size(
    plane: str, box: tuple[slice, slice, slice], voxel_size: tuple[float, float, float]
) -> tuple[float, float]:
    """Return width and height of a panel, in mm."""
    first, second = (a for a in range(3) if a != PLANES[plane])
    return (
        (box[first].stop - box[first].start) * voxel_size[first],
        (box[second].stop - box[second].start) * voxel_size[second],
    )


def position(volume: Oriented, plane: str, index: int) -> float:
    """Return the scanner coordinate of a slice at the centre of the volume, in mm."""
    axis = PLANES[plane]
    centre = (np.array(volume.data.shape) - 1) / 2
    centre[axis] = index
    return float(volume.affine[axis, :3] @ centre + volume.affine[axis, 3])
