"""A head on a grid: the template's anatomy, warped to one person, in one position."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from scipy import ndimage

from qsmflow import io
from qsmflow.algorithms.operators import workers
from qsmflow.phantom import anatomy, variants
from qsmflow.phantom.composition import MAPS, tissue_at

#: Field of view of the default grid, in mm, and the template point at its centre.
FIELD_OF_VIEW = (184.0, 224.0, 184.0)
CENTRE = (0.0, -17.0, 14.0)

_WARP_STEP = 8.0
_TEXTURE_STEP = 2.0


@dataclass(frozen=True)
class Pose:
    """Where the head lies in the scanner.

    Attributes
    ----------
    rotation_deg : tuple of float
        Turns about the scanner's x, y and z axes, in degrees, in this order.
    translation : tuple of float
        Shift, in mm.
    """

    rotation_deg: tuple[float, float, float] = (0.0, 0.0, 0.0)
    translation: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @property
    def matrix(self) -> np.ndarray:
        """Head to scanner coordinates, shape (4, 4); the turns are about ``CENTRE``."""
        turn = rotation_matrix(self.rotation_deg)
        result = np.eye(4)
        result[:3, :3] = turn
        result[:3, 3] = np.array(CENTRE) - turn @ np.array(CENTRE) + np.array(self.translation)
        return result


def rotation_matrix(angles_deg) -> np.ndarray:
    """Return the rotation about x, then y, then z, shape (3, 3).

    Examples
    --------
    >>> rotation_matrix((90, 0, 0)).round() @ [0, 1, 0]
    array([0., 0., 1.])
    """
    a, b, c = np.deg2rad(angles_deg)
    x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return z @ y @ x


@dataclass(frozen=True, eq=False)
class Person:
    """One anatomy: how it differs from the template, and its texture.

    Attributes
    ----------
    seed : int
        Number from which everything follows; 0 is the template's own shape.
    scale : tuple of float
        Size relative to the template, along x, y and z.
    warp : tuple of Level
        Displacement to the template along x, y and z, in mm.
    texture : tuple of Level
        Two independent smooth noise fields of unit variance.
    calcification : bool or float
        Whether there is a small calcification in the left frontal white matter, or its
        susceptibility in ppm.
    haemorrhage : bool or float
        Whether there is a haemorrhage in the right parietal white matter, or its susceptibility
        in ppm.
    atrophy : float
        Loss of brain tissue within the same skull, from 0 to 1.
    nuclei_scale : float
        Linear size of the deep nuclei relative to the template's.
    """

    seed: int
    scale: tuple[float, float, float]
    warp: tuple[anatomy.Level, ...]
    texture: tuple[anatomy.Level, ...]
    calcification: bool | float = False
    haemorrhage: bool | float = False
    atrophy: float = 0.0
    nuclei_scale: float = 1.0

    def to_template(self, points: np.ndarray) -> np.ndarray:
        """Map head coordinates to template coordinates, both of shape (3, N) in mm, float32."""
        scale = np.asarray(self.scale, np.float32)[:, np.newaxis]
        centre = np.asarray(CENTRE, np.float32)[:, np.newaxis]
        moved = (points - centre) / scale + centre
        if self.seed:
            moved += np.stack([level.at(points) for level in self.warp])
        return moved


@lru_cache(maxsize=4)
def make_person(
    seed: int = 0,
    *,
    strength: float = 1.0,
    calcification: bool | float = False,
    haemorrhage: bool | float = False,
    atrophy: float = 0.0,
    nuclei_scale: float = 1.0,
) -> Person:
    """Draw an anatomy.

    Parameters
    ----------
    seed : int, optional
        0 keeps the template's shape; any other number gives a person of its own.
    strength : float, optional
        Size of the differences: at 1, sizes differ by 3 % (SD) and places by 2.5 mm (SD).
    calcification : bool or float, optional
        Add a calcification of 2.5 mm radius: of -0.3 ppm, or of this many ppm.
    haemorrhage : bool or float, optional
        Add a haemorrhage of 6 mm radius: of 1 ppm, or of this many ppm.
    atrophy : float, optional
        Loss of brain tissue, from 0 to 1: ventricles and sulci are wider, and the cortex stands
        back from the skull by up to 2 mm.
    nuclei_scale : float, optional
        Linear size of the deep nuclei, from 0.8 to 1.2.

    Returns
    -------
    Person

    Raises
    ------
    ValueError
        If a number is out of its range, or a lesion has the wrong sign.
    """
    variants.check(calcification, haemorrhage, atrophy, nuclei_scale)
    random = np.random.default_rng([seed, 7])
    scale = 1 + (seed != 0) * strength * 0.03 * random.standard_normal(3).clip(-2, 2)
    # 18 mm of smoothing: a warp this smooth and this small cannot fold.
    warp = _smooth_noise(random, 3, _WARP_STEP, 18.0, 2.5 * strength)
    texture = _smooth_noise(random, 2, _TEXTURE_STEP, 2.5, 1.0)
    return Person(
        seed, tuple(map(float, scale)), warp, texture,
        calcification, haemorrhage, atrophy, nuclei_scale,
    )  # fmt: skip


def _smooth_noise(random, number, step, sigma, amplitude):
    half = np.array([112.0, 144.0, 128.0])
    shape = np.ceil(2 * half / step).astype(int) + 1
    affine = np.diag([step, step, step, 1.0])
    affine[:3, 3] = np.array(CENTRE) - half
    levels = []
    for _ in range(number):
        noise = random.standard_normal(shape).astype(np.float32)
        noise = ndimage.gaussian_filter(noise, sigma / step, mode='wrap')
        levels.append(anatomy.Level(noise * np.float32(amplitude / noise.std()), affine))
    return tuple(levels)


@dataclass(frozen=True, eq=False)
class Head:
    """A head on a grid, with the properties of every voxel at 3 T.

    Attributes
    ----------
    chi_para, chi_dia : ndarray of float32, shape (X, Y, Z)
        Paramagnetic and diamagnetic susceptibility, in ppm. Air, also around the head, is
        ``tissues.CHI_AIR`` above soft tissue.
    r2, r2prime : ndarray of float32, shape (X, Y, Z)
        Irreversible and reversible relaxation at 3 T, in 1/s.
    m0 : ndarray of float32, shape (X, Y, Z)
        Proton density relative to CSF.
    t1 : ndarray of float32, shape (X, Y, Z)
        Longitudinal relaxation time at 3 T, in s.
    labels : ndarray of uint8, shape (X, Y, Z)
        Tissue of each voxel: see ``tissues``; 0 is air outside the head.
    brain_mask : ndarray of bool, shape (X, Y, Z)
        Brain with its CSF.
    affine : ndarray of float, shape (4, 4)
        Voxel indices to scanner coordinates, in mm.
    person, pose
        What it was made from, so that it can be laid on another grid.
    """

    chi_para: np.ndarray
    chi_dia: np.ndarray
    r2: np.ndarray
    r2prime: np.ndarray
    m0: np.ndarray
    t1: np.ndarray
    labels: np.ndarray
    brain_mask: np.ndarray
    affine: np.ndarray
    person: Person = field(repr=False)
    pose: Pose = field(repr=False)

    @property
    def chi(self) -> np.ndarray:
        """Total susceptibility, in ppm."""
        return self.chi_para + self.chi_dia

    @property
    def r2star(self) -> np.ndarray:
        """Effective relaxation at 3 T, in 1/s."""
        return self.r2 + self.r2prime

    @property
    def voxel_size(self) -> tuple[float, float, float]:
        """Voxel edge lengths, in mm."""
        return io.Volume(self.labels, self.affine).voxel_size

    @property
    def b0_dir(self) -> tuple[float, float, float]:
        """Unit vector of the main field, in array axes."""
        return io.b0_direction(self.affine)


def make_head(
    *,
    voxel_size=1.0,
    seed: int = 0,
    strength: float = 1.0,
    pose: Pose | None = None,
    shape: tuple[int, int, int] | None = None,
    calcification: bool | float = False,
    haemorrhage: bool | float = False,
    atrophy: float = 0.0,
    nuclei_scale: float = 1.0,
) -> Head:
    """Make a head on an axial grid.

    Parameters
    ----------
    voxel_size : float or tuple of float, optional
        Voxel edge lengths, in mm.
    seed : int, optional
        Anatomy: the same number gives the same person. 0 has the template's own shape.
    strength : float, optional
        Size of the anatomical differences from the template.
    pose : Pose, optional
        Position in the scanner.
    shape : tuple of int, optional
        Shape of the grid; by default it spans ``FIELD_OF_VIEW``.
    calcification, haemorrhage, atrophy, nuclei_scale
        What else is different about the person: see :func:`make_person`.

    Returns
    -------
    Head

    Examples
    --------
    >>> head = make_head(voxel_size=8)
    >>> head.chi.shape, bool(head.brain_mask.any())
    ((23, 28, 23), True)
    """
    voxel_size = as_voxel_size(voxel_size)
    shape = tuple(shape) if shape else default_shape(voxel_size)
    person = make_person(
        seed, strength=strength, calcification=calcification, haemorrhage=haemorrhage,
        atrophy=atrophy, nuclei_scale=nuclei_scale,
    )  # fmt: skip
    return rasterise(person, pose or Pose(), shape, centred_affine(shape, voxel_size))


def as_voxel_size(voxel_size) -> tuple[float, float, float]:
    """Return three positive edge lengths from one or three.

    Raises
    ------
    ValueError
        If a length is not positive, or there are two of them.
    """
    sizes = np.broadcast_to(np.asarray(voxel_size, float), (3,))
    if not (sizes > 0).all():
        raise ValueError(f'voxel_size must be positive; got {voxel_size}.')
    return tuple(float(v) for v in sizes)


def default_shape(voxel_size) -> tuple[int, int, int]:
    """Return the shape of a grid that spans ``FIELD_OF_VIEW``."""
    return tuple(round(f / v) for f, v in zip(FIELD_OF_VIEW, voxel_size, strict=True))


def centred_affine(shape, voxel_size, rotation_deg=(0.0, 0.0, 0.0)) -> np.ndarray:
    """Return the affine of a grid whose centre is at ``CENTRE``, turned about it."""
    affine = np.eye(4)
    affine[:3, :3] = rotation_matrix(rotation_deg) @ np.diag(voxel_size)
    affine[:3, 3] = np.array(CENTRE) - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


def rasterise(person: Person, pose: Pose, shape, affine: np.ndarray) -> Head:
    """Lay a head on any grid, by the tissue at each voxel's centre.

    Parameters
    ----------
    person : Person
        Anatomy.
    pose : Pose
        Position in the scanner.
    shape : tuple of int
        Shape of the grid.
    affine : ndarray of float, shape (4, 4)
        Voxel indices to scanner coordinates.

    Returns
    -------
    Head
    """
    to_head = np.linalg.inv(pose.matrix) @ affine
    maps = {name: np.empty(shape, np.float32) for name in MAPS}
    labels = np.empty(shape, np.uint8)
    mask = np.empty(shape, bool)
    anatomy.load_template()

    def fill(rows: slice) -> None:
        points = _grid_points(to_head, rows, shape)
        values, label, inside = tissue_at(person, points)
        target = (rows.stop - rows.start, *shape[1:])
        for name in MAPS:
            maps[name][rows] = values[name].reshape(target)
        labels[rows] = label.reshape(target)
        mask[rows] = inside.reshape(target)

    # Slabs of about a quarter of a million voxels keep the temporary arrays in the cache's reach.
    thickness = max(1, 250_000 // (shape[1] * shape[2]))
    slabs = [slice(i, min(i + thickness, shape[0])) for i in range(0, shape[0], thickness)]
    with ThreadPoolExecutor(workers()) as pool:
        list(pool.map(fill, slabs))
    return Head(
        **maps, labels=labels, brain_mask=mask, affine=np.array(affine), person=person, pose=pose
    )


def _grid_points(matrix, rows, shape):
    axes = [np.arange(rows.start, rows.stop), np.arange(shape[1]), np.arange(shape[2])]
    grid = np.meshgrid(*axes, indexing='ij', sparse=True)
    points = [sum(matrix[r, c] * grid[c] for c in range(3)) + matrix[r, 3] for r in range(3)]
    return np.stack([p.ravel() for p in points]).astype(np.float32)
