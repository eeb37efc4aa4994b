"""A head on a grid: the template's anatomy, warped to one person, in one position."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from scipy import ndimage

from qsmflow import io
from qsmflow.algorithms.operators import workers
from qsmflow.phantom import anatomy, tissues

#: Field of view of the default grid, in mm, and the template point at its centre.
FIELD_OF_VIEW = (184.0, 224.0, 184.0)
CENTRE = (0.0, -17.0, 14.0)

#: Relative texture (SD) of the susceptibilities, of M0, and of R2 and T1.
TEXTURE = {'chi': 0.12, 'm0': 0.03, 'relaxation': 0.05}

_WARP_STEP = 8.0
_TEXTURE_STEP = 2.0

_MAPS = ('chi_para', 'chi_dia', 'r2', 'r2prime', 'm0', 't1')


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
    calcification : bool
        Whether there is a small calcification in the left frontal white matter.
    """

    seed: int
    scale: tuple[float, float, float]
    warp: tuple[anatomy.Level, ...]
    texture: tuple[anatomy.Level, ...]
    calcification: bool = False

    def to_template(self, points: np.ndarray) -> np.ndarray:
        """Map head coordinates to template coordinates, both of shape (3, N) in mm, float32."""
        scale = np.asarray(self.scale, np.float32)[:, np.newaxis]
        centre = np.asarray(CENTRE, np.float32)[:, np.newaxis]
        moved = (points - centre) / scale + centre
        if self.seed:
            moved += np.stack([level.at(points) for level in self.warp])
        return moved


@lru_cache(maxsize=4)
def make_person(seed: int = 0, *, strength: float = 1.0, calcification: bool = False) -> Person:
    """Draw an anatomy.

    Parameters
    ----------
    seed : int, optional
        0 keeps the template's shape; any other number gives a person of its own.
    strength : float, optional
        Size of the differences: at 1, sizes differ by 3 % (SD) and places by 2.5 mm (SD).
    calcification : bool, optional
        Add a calcification of 2.5 mm radius and -0.3 ppm.

    Returns
    -------
    Person
    """
    random = np.random.default_rng([seed, 7])
    scale = 1 + (seed != 0) * strength * 0.03 * random.standard_normal(3).clip(-2, 2)
    # 18 mm of smoothing: a warp this smooth and this small cannot fold.
    warp = _smooth_noise(random, 3, _WARP_STEP, 18.0, 2.5 * strength)
    texture = _smooth_noise(random, 2, _TEXTURE_STEP, 2.5, 1.0)
    return Person(seed, tuple(map(float, scale)), warp, texture, calcification)


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
    calcification: bool = False,
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
    calcification : bool, optional
        Add a small calcification.

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
    person = make_person(seed, strength=strength, calcification=calcification)
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
    maps = {name: np.empty(shape, np.float32) for name in _MAPS}
    labels = np.empty(shape, np.uint8)
    mask = np.empty(shape, bool)
    anatomy.load_template()

    def fill(rows: slice) -> None:
        points = _grid_points(to_head, rows, shape)
        values, label, inside = _tissue_at(person, points)
        target = (rows.stop - rows.start, *shape[1:])
        for name in _MAPS:
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


def _tissue_at(person, points):
    """Return the maps, labels and brain mask at points of shape (3, N) in head coordinates."""
    template = anatomy.load_template()
    place = person.to_template(points)
    inside = template.brain.at(place) > 0.5
    values = {name: np.empty(inside.size, np.float32) for name in _MAPS}
    labels = np.empty(inside.size, np.uint8)
    outer, outer_labels = _outside_brain(template, place[:, ~inside])
    inner, inner_labels = _inside_brain(template, person, place[:, inside], points[:, inside])
    for name in _MAPS:
        values[name][~inside] = outer[name]
        values[name][inside] = inner[name]
    labels[~inside], labels[inside] = outer_labels, inner_labels
    return values, labels, inside


def _properties(tissue):
    return {
        'chi_para': tissue.chi_para,
        'chi_dia': tissue.chi_dia,
        'r2': 1 / tissue.t2,
        'r2prime': tissue.r2prime,
        'm0': tissue.m0,
        't1': tissue.t1,
    }


def _mix(parts):
    """Mix tissues by their fractions; ``r2prime`` is here the factor of ``Tissue``."""
    tables = [(_properties(tissue), fraction) for tissue, fraction in parts]
    return {
        name: sum(np.float32(table[name]) * fraction for table, fraction in tables)
        for name in _MAPS
    }


def _paint(values, labels, tissue, fraction, label):
    """Lay a tissue over what is there, by the fraction of it in each voxel."""
    touched = fraction > 0
    part = fraction[touched]
    for name, value in _properties(tissue).items():
        values[name][touched] += part * (np.float32(value) - values[name][touched])
    where = fraction > 0.5
    labels[where] = label[where] if isinstance(label, np.ndarray) else label


def _finish(values):
    strength = values['chi_para'] - values['chi_dia']
    values['r2prime'] = values['r2prime'] * strength * np.float32(tissues.R2PRIME_PER_PPM)
    return values


def _smoothstep(value, low, high):
    t = np.clip((value - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def _outside_brain(template, place):
    intensity = template.head_t1.at(place)
    head = template.head.at(place) > 0.5
    distance = template.brain_distance.at(place)
    fat = _smoothstep(intensity, anatomy.BRIGHT - 10, anatomy.BRIGHT + 10)
    values = _mix([(tissues.MUSCLE, 1 - fat), (tissues.FAT, fat)])
    labels = np.where(fat > 0.5, tissues.FAT.label, tissues.MUSCLE.label).astype(np.uint8)
    # Below the template's last slice there is its repetition: a neck without a skull.
    bone = (intensity < anatomy.DARK) & (distance < anatomy.BONE_REACH)
    bone &= place[2] > -76
    _paint(values, labels, tissues.BONE, bone.astype(np.float32), tissues.BONE.label)
    cavity = anatomy.in_air_spaces(place) & (distance > anatomy.AIR_MARGIN)
    air = (cavity | ~head).astype(np.float32)
    _paint(values, labels, tissues.AIR, air, tissues.AIR.label)
    labels[~head] = 0
    return _finish(values), labels


def _inside_brain(template, person, place, points):
    intensity = template.brain_t1.at(place)
    white = _smoothstep(intensity, anatomy.GREY_TO_WHITE - 5, anatomy.GREY_TO_WHITE + 5)
    csf = 1 - _smoothstep(intensity, anatomy.CSF_TO_GREY - 7, anatomy.CSF_TO_GREY + 7)
    grey = 1 - white - csf
    values = _mix([(tissues.WHITE, white), (tissues.GREY, grey), (tissues.CSF, csf)])
    # Brighter white matter holds more myelin: this follows the template's own structure.
    values['chi_dia'] *= 1 + white * np.clip((intensity - 83) * 0.02, -0.3, 0.3)
    labels = np.full(intensity.size, tissues.GREY.label, np.uint8)
    labels[white > 0.5] = tissues.WHITE.label
    labels[csf > 0.5] = tissues.CSF.label
    right = place[0] > 0
    _paint_nuclei(template, place, values, labels, right, csf)
    veins = np.clip(0.5 - template.veins.at(place) / 0.6, 0, 1)
    _paint(values, labels, tissues.VEIN, veins, tissues.VEIN.label)
    if person.calcification:
        centre = np.array([[-24.0], [22.0], [24.0]])
        stone = (((place - centre) ** 2).sum(axis=0) < 2.5**2).astype(np.float32)
        _paint(values, labels, tissues.CALCIFICATION, stone, tissues.CALCIFICATION.label)
    _add_texture(person, points, values, labels)
    return _finish(values), labels


def _paint_nuclei(template, place, values, labels, right, csf):
    by_label = {tissue.label: tissue for tissue in tissues.NUCLEI}
    sided = np.where(right, tissues.RIGHT, 0).astype(np.uint8)
    thalamus, dentate = by_label[20], by_label[21]
    level = anatomy.thalamus_level(place)
    part = np.clip(0.5 + level / 2, 0, 1) * (csf < 0.5)
    _paint(values, labels, thalamus, part.astype(np.float32), sided + np.uint8(20))
    nuclei = np.rint(template.nuclei.at(place, order=0)).astype(np.uint8)
    for index in np.unique(nuclei[nuclei > 0]):
        here = (nuclei == index).astype(np.float32)
        _paint(values, labels, by_label[int(index) % tissues.RIGHT], here, int(index))
    near = (np.abs(place[2] + 34) < 14) & (np.abs(place[1] + 60) < 18)
    part = np.zeros(near.size, np.float32)
    part[near] = np.clip(0.5 + anatomy.dentate_level(place[:, near]) / 0.6, 0, 1)
    _paint(values, labels, dentate, part, sided + np.uint8(21))


def _add_texture(person, points, values, labels):
    """Vary the properties smoothly from place to place; fluid and blood stay uniform."""
    solid = ~np.isin(labels, (tissues.CSF.label, tissues.VEIN.label))
    first, second = (level.at(points) * solid for level in person.texture)
    values['chi_para'] *= 1 + np.float32(TEXTURE['chi']) * np.clip(first, -3, 3)
    values['chi_dia'] *= 1 + np.float32(TEXTURE['chi']) * np.clip(second, -3, 3)
    values['m0'] *= 1 + np.float32(TEXTURE['m0']) * first
    values['r2'] *= 1 + np.float32(TEXTURE['relaxation']) * second
    values['t1'] *= 1 - np.float32(TEXTURE['relaxation']) * second
