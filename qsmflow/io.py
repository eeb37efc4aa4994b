"""Volumes on disk: the only home of nibabel among the numerical parts.

Arrays stay in the voxel order of the file. What an algorithm needs to know of the file's geometry
is two small tuples: ``voxel_size`` (mm, array-axis order) and ``b0_dir`` (unit vector of the main
field in array axes).
"""

import os
import zlib
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import nibabel.wrapstruct
import numpy as np
from nibabel.orientations import axcodes2ornt, ornt_transform

from qsmflow.files import completed

#: What nibabel raises for files that are no images, or whose headers make no sense.
NOT_AN_IMAGE = (
    nib.filebasedimages.ImageFileError,
    nib.spatialimages.HeaderDataError,
    nib.wrapstruct.WrapStructError,
    *(ValueError, TypeError, OverflowError, EOFError),
)
#: What reading a file may raise that is damaged, or no image.
UNREADABLE = (OSError, zlib.error, *NOT_AN_IMAGE)

#: Two affines are one grid when no corner of the volume moves by more than this, in mm.
GRID_TOLERANCE = 1e-3


class GridMismatchError(ValueError):
    """Two images that must share a grid do not."""


@dataclass(frozen=True, eq=False)
class Volume:
    """An array with its place in the scanner.

    Attributes
    ----------
    data : ndarray, shape (X, Y, Z) or (X, Y, Z, E)
        Voxel values, in the file's own axis order.
    affine : ndarray of float, shape (4, 4)
        Voxel indices to scanner coordinates, in mm (RAS+).
    path : str
        The file it came from, for messages; empty for arrays made in memory.
    """

    data: np.ndarray
    affine: np.ndarray
    path: str = ''

    @property
    def shape(self) -> tuple[int, ...]:
        """Spatial shape, (X, Y, Z)."""
        return self.data.shape[:3]

    @property
    def voxel_size(self) -> tuple[float, float, float]:
        """Voxel edge lengths, in mm, in array-axis order."""
        return tuple(float(v) for v in np.linalg.norm(self.affine[:3, :3], axis=0))

    @property
    def b0_dir(self) -> tuple[float, float, float]:
        """Unit vector of the main field (scanner +z) in array axes; its sign is arbitrary."""
        return b0_direction(self.affine)


def b0_direction(affine: np.ndarray) -> tuple[float, float, float]:
    """Return the scanner's z axis in the array's axes.

    Parameters
    ----------
    affine : ndarray of float, shape (4, 4)
        Voxel indices to scanner coordinates, without shear.

    Returns
    -------
    tuple of float
        Unit vector, one component for each array axis. The dipole kernel is even, so its sign
        does not matter.

    Examples
    --------
    A sagittal acquisition stores the scanner's z axis as its second array axis:

    >>> b0_direction(np.array([[0, 0, 2.0, 0], [1.0, 0, 0, 0], [0, 1.0, 0, 0], [0, 0, 0, 1]]))
    (0.0, 1.0, 0.0)
    """
    columns = np.asarray(affine, float)[:3, :3]
    direction = columns[2] / np.linalg.norm(columns, axis=0)
    direction = direction / np.linalg.norm(direction)
    return tuple(float(v) + 0.0 for v in direction)


@dataclass(frozen=True)
class AxisOrder:
    """The way between an array as it is stored and the same array in the order RAS+.

    Finite differences and the blocks of coarse grids know the sense of an axis, so that an
    algorithm gives slightly different values for an image and its mirror image. Run in one
    order, it gives the same values however an image was stored.

    Attributes
    ----------
    orientation : ndarray of float, shape (3, 2)
        Target axis and sense of each stored axis, as of :func:`nibabel.io_orientation`.

    Examples
    --------
    >>> order = AxisOrder.of(np.diag([-1.0, 1.0, 1.0, 1.0]))
    >>> order.to_ras(np.arange(3.0).reshape(3, 1, 1)).ravel().tolist()
    [2.0, 1.0, 0.0]
    >>> order.vector((0.6, 0.0, 0.8))
    (-0.6, 0.0, 0.8)
    """

    orientation: np.ndarray

    @classmethod
    def of(cls, affine: np.ndarray) -> 'AxisOrder':
        """Return the order of an array with this affine."""
        return cls(nib.io_orientation(affine))

    def to_ras(self, array: np.ndarray) -> np.ndarray:
        """Return an array in the order RAS+, C-contiguous."""
        return np.ascontiguousarray(nib.apply_orientation(array, self.orientation))

    def from_ras(self, array: np.ndarray) -> np.ndarray:
        """Return an array in the order in which it is stored."""
        back = ornt_transform(axcodes2ornt('RAS'), self.orientation)
        return np.ascontiguousarray(nib.apply_orientation(array, back))

    def lengths(self, values: tuple[float, ...]) -> tuple[float, ...]:
        """Return one number for each axis, such as voxel sizes, in the order RAS+."""
        turned = {
            int(axis): value for (axis, _), value in zip(self.orientation, values, strict=True)
        }
        return tuple(turned[axis] for axis in range(3))

    def vector(self, values: tuple[float, ...]) -> tuple[float, ...]:
        """Return the components of a direction in the order RAS+."""
        return self.lengths(
            tuple(
                v * sense for (_, sense), v in zip(self.orientation.tolist(), values, strict=True)
            )
        )


def load_volume(
    path: str | os.PathLike,
    dtype: type = np.float32,
    *,
    component: str = 'real',
    volume: int | None = None,
) -> Volume:
    """Load a NIfTI image with its scaling applied.

    Parameters
    ----------
    path : path-like
        NIfTI file, 3-D or 4-D. Trailing axes of length one are dropped.
    dtype : type, optional
        Type of the array.
    component : {'real', 'imag'}, optional
        What to take of complex voxels if ``dtype`` is not complex.
    volume : int, optional
        Of a 4-D image, load only this volume, counted from 0. A 3-D image is volume 0.

    Returns
    -------
    Volume
    """
    # Slice by slice, from a file that stays open: no second copy of the image, as whole numbers,
    # as double precision or in the order of the file.
    image = nib.load(path, mmap=False, keep_file_open=True)
    chosen = () if volume is None or image.ndim < 4 else (volume,)
    shape = image.shape[: image.ndim - len(chosen)]
    data = np.empty(shape, dtype)
    for index in np.ndindex(shape[:1:-1]):
        here = (..., *index[::-1])
        values = image.dataobj[(*here, *chosen)]
        if np.iscomplexobj(values) and not np.iscomplexobj(data):
            values = getattr(values, component)
        data[here] = values
    while data.ndim > 3 and data.shape[-1] == 1:
        data = data[..., 0]
    return Volume(data, image.affine.copy(), str(path))


def load_echoes(
    paths: list[str],
    echoes: list[int] | None = None,
    *,
    component: str = 'real',
    volume: int | None = None,
) -> Volume:
    """Load images of one grid and stack them along a last axis.

    Parameters
    ----------
    paths : list of path-like
        One 3-D image for each echo, or a single 4-D image.
    echoes : list of int, optional
        Echoes to keep, counted from 0; all by default.
    component : {'real', 'imag'}, optional
        What to take of complex voxels.
    volume : int, optional
        Volume of each file, counted from 0, where files hold repetitions of an echo.

    Returns
    -------
    Volume
        Data of shape (X, Y, Z, E), float32.

    Raises
    ------
    GridMismatchError
        If the images do not share a grid.
    """
    if len(paths) == 1 and volume is None:
        only = load_volume(paths[0], component=component)
        data = only.data if only.data.ndim == 4 else only.data[..., np.newaxis]
        return Volume(data[..., echoes] if echoes else data, only.affine, only.path)
    chosen = [paths[echo] for echo in echoes] if echoes else paths
    first = load_volume(chosen[0], component=component, volume=volume)
    data = np.empty((*first.shape, len(chosen)), np.float32)
    data[..., 0] = first.data
    stack = Volume(data, first.affine, first.path)
    del first  # never more than one image beside the stack
    for echo, path in enumerate(chosen[1:], start=1):
        data[..., echo] = _on_grid(stack, path, component=component, volume=volume)
    return stack


def _on_grid(like: Volume, path: str, **options) -> np.ndarray:
    """Load the array of an image that must lie on a grid."""
    image = load_volume(path, **options)
    check_same_grid(like, image)
    return image.data


def load_mask(path: str | os.PathLike, like: Volume | None = None) -> np.ndarray:
    """Load a mask as booleans and check that it lies on the grid of ``like``.

    Raises
    ------
    GridMismatchError
        If shape or affine differ from those of ``like``.
    """
    data = load_volume(path).data if like is None else _on_grid(like, path)
    return data > 0.5


def load_given_mask(path: str | os.PathLike, like: Volume) -> np.ndarray:
    """Load a mask that may come from anywhere: any kind of values, any grid.

    Parameters
    ----------
    path : path-like
        Mask image; see :func:`mask_values` for what its values may be.
    like : Volume
        Gives the grid; see :func:`resample_mask`.

    Returns
    -------
    ndarray of bool, shape (X, Y, Z)
    """
    volume = load_volume(path)
    mask = Volume(mask_values(volume.data)[0], volume.affine, volume.path)
    return mask.data if same_grid(like, mask) else resample_mask(mask, like)


def mask_values(data: np.ndarray) -> tuple[np.ndarray, str]:
    """Tell what the values of a mask stand for.

    Parameters
    ----------
    data : ndarray of float, shape (X, Y, Z)
        Values of a mask image. What is not finite is outside.

    Returns
    -------
    mask : ndarray of bool, shape (X, Y, Z)
        Where the larger of two values is (the other must be 0); where a probability is above
        0.5; where a label is not 0; above 0.5 for anything else.
    kind : {'binary', 'probability', 'labels', 'image'}
        Which of these it is.

    Examples
    --------
    >>> [mask_values(np.array(v))[1] for v in ([0, 255.0], [0, 0.3, 0.8], [0, 1, 7.0], [-2.5, 9])]
    ['binary', 'probability', 'labels', 'image']
    """
    known = np.nan_to_num(np.asarray(data, np.float32), nan=0, posinf=0, neginf=0)
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 0.0)
    if low >= 0 and (high == 0 or not np.any((known > 0) & (known < high))):
        return known > 0, 'binary'
    if low >= 0 and high <= 1.001:
        return known > 0.5, 'probability'
    if low >= 0 and not np.any(known != np.rint(known)):
        return known > 0, 'labels'
    return known > 0.5, 'image'


def resample_mask(mask: Volume, like: Volume) -> np.ndarray:
    """Bring a mask to another grid by the nearest neighbour, in the coordinates of the scanner.

    Parameters
    ----------
    mask : Volume
        3-D, bool.
    like : Volume
        Gives the grid.

    Returns
    -------
    ndarray of bool, shape (X, Y, Z)
        False beyond the field of view of the mask.
    """
    from scipy.ndimage import affine_transform

    index = np.linalg.inv(mask.affine) @ like.affine
    moved = affine_transform(
        mask.data.astype(np.uint8), index[:3, :3], index[:3, 3], output_shape=like.shape, order=0
    )
    return moved > 0


def same_grid(first: Volume, second: Volume) -> bool:
    """Tell whether two volumes share shape and place, within ``GRID_TOLERANCE`` at the corners."""
    if first.shape != second.shape:
        return False
    corners = np.array([[i, j, k, 1] for i in (0, 1) for j in (0, 1) for k in (0, 1)], float)
    corners[:, :3] *= np.array(first.shape) - 1
    shift = corners @ (first.affine - second.affine).T
    return bool(np.abs(shift).max() <= GRID_TOLERANCE)


def check_same_grid(first: Volume, second: Volume) -> None:
    """Raise ``GridMismatchError`` unless the two volumes share a grid."""
    if not same_grid(first, second):
        raise GridMismatchError(
            f'{second.path or "array"} (shape {second.shape}) does not lie on the grid of '
            f'{first.path or "array"} (shape {first.shape}): both need one shape and one affine. '
            'Resample the former, or check which image belongs to which series.'
        )


def save_volume(data: np.ndarray, like: Volume, path: str | os.PathLike) -> str:
    """Write an array with a fresh header on the grid of another volume.

    Booleans and labels are stored as integers, everything else as float32 with slope 1, so that
    nothing of the source's integer scaling is inherited. The file appears under its name only
    when it is complete, and holds no time stamp: the same data give the same bytes.

    Parameters
    ----------
    data : ndarray, shape (X, Y, Z) or (X, Y, Z, E)
        Values to store.
    like : Volume
        Gives the affine.
    path : path-like
        Ends in ``.nii`` or ``.nii.gz``.

    Returns
    -------
    str
        The absolute path.
    """
    path = Path(path).absolute()
    if data.dtype == bool:
        data = data.astype(np.uint8)
    elif np.issubdtype(data.dtype, np.integer):
        data = data.astype(np.uint8 if data.min() >= 0 and data.max() < 256 else np.int32)
    else:
        data = data.astype(np.float32, copy=False)
    image = nib.Nifti1Image(data, like.affine)
    image.header.set_xyzt_units('mm', 'sec')
    image.set_qform(like.affine, code=1)
    image.set_sform(like.affine, code=1)
    with completed(path) as partial:
        nib.save(image, partial)
    return str(path)
