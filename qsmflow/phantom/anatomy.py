"""The head of the phantom in template space: the vendored images, and shapes of our own.

Everything is a level: a smooth function of place whose threshold is the surface of a structure.
A head on any grid is then a matter of looking levels up at warped coordinates.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from scipy import ndimage

from qsmflow import atlas, io

#: Template intensities (0-100) halfway between CSF and grey, and grey and white matter.
CSF_TO_GREY = 42.0
GREY_TO_WHITE = 73.0

#: Template intensities of the head outside the brain.
DARK = 26.0
BRIGHT = 62.0

#: How far from the brain dark tissue of the head is bone, in mm; what is dark beyond is muscle.
BONE_REACH = 16.0


@dataclass(frozen=True, eq=False)
class Level:
    """A smooth function of place in template space.

    Attributes
    ----------
    data : ndarray, shape (X, Y, Z)
        Values.
    affine : ndarray of float, shape (4, 4)
        Voxel indices to template coordinates, in mm; without rotation.
    """

    data: np.ndarray
    affine: np.ndarray

    def at(self, points: np.ndarray, order: int = 1) -> np.ndarray:
        """Look values up at points of shape (3, N), in mm; the edge goes on for ever."""
        scale = np.diag(self.affine)[:3, np.newaxis].astype(np.float32)
        origin = self.affine[:3, 3:].astype(np.float32)
        return ndimage.map_coordinates(
            self.data, (points - origin) / scale, order=order, mode='nearest', prefilter=False
        )


@dataclass(frozen=True, eq=False)
class Template:
    """Levels of the head in template space.

    Attributes
    ----------
    brain_t1 : Level
        Brain-only T1w intensity, 0-100.
    brain : Level
        Brain mask, smoothed; the surface is at 0.5.
    nuclei : Level
        Labels of CIT168.
    head_t1 : Level
        Full-head T1w intensity.
    head : Level
        Head without the air around it, smoothed; the surface is at 0.5.
    brain_distance : Level
        Distance from the brain, in mm; zero inside.
    veins : Level
        Distance from the nearest vein's wall, in mm, negative inside the vein.
    """

    brain_t1: Level
    brain: Level
    nuclei: Level
    head_t1: Level
    head: Level
    brain_distance: Level
    veins: Level


@lru_cache(maxsize=1)
def load_template() -> Template:
    """Return the template, made once in a process."""
    t1 = io.load_volume(atlas.template('T1w_brain_res-1'))
    head_t1 = io.load_volume(atlas.template('T1w_res-2'))
    nuclei = io.load_volume(atlas.load_atlas('CIT168').dseg, np.uint8)
    mask = ndimage.binary_fill_holes(t1.data > 0)
    half_mask = io.load_mask(atlas.template('brain_mask_res-2'), like=head_t1)
    brain = ndimage.gaussian_filter(mask.astype(np.float32), 0.8)
    distance = ndimage.distance_transform_edt(~half_mask, sampling=2.0).astype(np.float32)
    return Template(
        brain_t1=Level(t1.data, t1.affine),
        brain=Level(brain, t1.affine),
        nuclei=Level(nuclei.data, nuclei.affine),
        head_t1=Level(head_t1.data, head_t1.affine),
        head=Level(_head_envelope(head_t1.data, half_mask), head_t1.affine),
        brain_distance=Level(distance, head_t1.affine),
        veins=Level(_vein_level(mask, t1.affine), t1.affine),
    )


def _head_envelope(head_t1: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """Fill the head's outline slice by slice, which closes the nose and the neck."""
    bright = ndimage.binary_opening((head_t1 > 16) | brain)
    labels, _ = ndimage.label(bright)
    solid = labels == np.bincount(labels.ravel())[1:].argmax() + 1
    solid = ndimage.binary_closing(np.pad(solid, 6, mode='edge'), iterations=5)
    solid = np.stack([ndimage.binary_fill_holes(s) for s in np.moveaxis(solid, 2, 0)], axis=2)
    return ndimage.gaussian_filter(solid[6:-6, 6:-6, 6:-6].astype(np.float32), 1.0)


# --- air and nuclei as ellipsoids -------------------------------------------------------------

#: Air spaces of the skull: centre and semi-axes, in mm; those with x > 0 are on both sides.
AIR_SPACES = (
    ((0.0, 24.0, -40.0), (9.0, 12.0, 8.0)),  # sphenoid sinus
    ((6.0, 46.0, -36.0), (5.0, 15.0, 9.0)),  # ethmoid cells
    ((9.0, 77.0, -6.0), (8.0, 4.5, 10.0)),  # frontal sinus
    ((31.0, 38.0, -62.0), (11.0, 14.0, 13.0)),  # maxillary sinus
    ((0.0, 48.0, -58.0), (6.0, 26.0, 10.0)),  # nasal cavity
    ((0.0, 10.0, -74.0), (8.0, 7.0, 22.0)),  # pharynx
    ((62.0, -24.0, -38.0), (20.0, 3.5, 3.5)),  # ear canal
    ((55.0, -36.0, -42.0), (7.0, 8.0, 9.0)),  # mastoid cells
)

#: Air is kept at least this far from the brain, in mm.
AIR_MARGIN = 2.0


def in_air_spaces(points: np.ndarray) -> np.ndarray:
    """Tell which points, of shape (3, N) in template mm, lie in an air space of the skull."""
    x, y, z = points
    inside = np.zeros(x.shape, bool)
    for (cx, cy, cz), (ax, ay, az) in AIR_SPACES:
        side = np.abs(x) if cx else x
        inside |= ((side - cx) / ax) ** 2 + ((y - cy) / ay) ** 2 + ((z - cz) / az) ** 2 < 1
    return inside


def _frame(x, y, z, centre, yaw):
    """Turn right-sided coordinates into (across, along, up) of a structure turned by ``yaw``."""
    angle = np.deg2rad(yaw)
    dx, dy = x - centre[0], y - centre[1]
    across = np.cos(angle) * dx - np.sin(angle) * dy
    along = np.sin(angle) * dx + np.cos(angle) * dy
    return across, along, z - centre[2]


def thalamus_level(points: np.ndarray, scale: float = 1.0) -> np.ndarray:
    """Return the level of the two thalami: positive inside, in mm near the surface."""
    x, y, z = points
    frame = _frame(np.abs(x), y, z, (11.5, -18.5, 8.0), -28.0)
    across, along, up = (coordinate / scale for coordinate in frame)
    radius = np.sqrt((across / 8.6) ** 2 + (along / 16.0) ** 2 + (up / 9.8) ** 2)
    return (1 - radius) * 9.0 * scale


#: Of the dentate nucleus: centre, turn in degrees, semi-axes (across, along, up) of the sheet,
#: its thickness, and the depth and number of its folds.
DENTATE_CENTRE = (13.0, -59.0, -34.5)
DENTATE_YAW = 35.0
DENTATE_AXES = (5.8, 9.0, 6.2)
DENTATE_THICKNESS = 1.8
DENTATE_FOLDS = (0.10, 8)


def dentate_level(points: np.ndarray, scale: float = 1.0) -> np.ndarray:
    """Return the level of the two dentate nuclei: positive inside, in mm near the surface.

    A folded sheet on an ellipsoid, open where the hilum faces anteromedially.
    """
    x, y, z = points
    frame = _frame(np.abs(x), y, z, DENTATE_CENTRE, DENTATE_YAW)
    across, along, up = (coordinate / scale for coordinate in frame)
    a, b, c = across / DENTATE_AXES[0], along / DENTATE_AXES[1], up / DENTATE_AXES[2]
    radius = np.sqrt(a**2 + b**2 + c**2) + 1e-6
    depth, number = DENTATE_FOLDS
    sheet = 1 + depth * np.cos(number * np.arctan2(c, b))
    level = DENTATE_THICKNESS / 2 - np.abs(radius - sheet) * min(DENTATE_AXES)
    open_side = (a / radius + 0.35) * 6.0
    return np.minimum(level, open_side) * scale


# --- veins ------------------------------------------------------------------------------------

#: Veins laid out by hand: radius in mm and points in template mm; x > 0 is mirrored. They are
#: the straight sinus, the great cerebral vein, the internal cerebral, thalamostriate, septal and
#: basal veins, and the transverse sinus.
_VEINS = (
    (2.0, ((0, -42, 6), (0, -48, 8), (0, -62, -2), (0, -76, -11), (0, -88, -17))),
    (1.5, ((0, -36, 10), (0, -42, 6))),
    (0.9, ((2.5, 1, 13), (2.6, -10, 17), (2.4, -22, 17), (1.5, -32, 13), (0, -37, 10))),
    (0.8, ((17, -16, 21), (15, -6, 20), (9, 1, 17), (2.5, 1, 13))),
    (0.7, ((6, 26, 12), (4, 12, 14), (2.5, 1, 13))),
    (0.9, ((9, 0, -17), (15, -12, -15), (17, -22, -9), (11, -33, -2), (2, -39, 6))),
    (2.6, ((0, -90, -18), (25, -88, -22), (45, -72, -26), (54, -56, -30))),
)  # fmt: skip


def _vein_level(brain: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Return the distance from the nearest vein's wall, in mm, at most 3."""
    level = np.full(brain.shape, 3.0, np.float32)
    for radius, points in [*_fixed_veins(), *_surface_veins(brain, affine)]:
        for start, end in pairwise(points):
            _draw_segment(level, affine, np.asarray(start, float), np.asarray(end, float), radius)
    return level


def _fixed_veins():
    for radius, points in _VEINS:
        yield radius, points
        if any(point[0] for point in points):
            yield radius, tuple((-x, y, z) for x, y, z in points)


def _surface_veins(brain, affine):
    """Lay the superior sagittal sinus along the brain's upper edge, and cortical veins to it."""
    edge = _edge_finder(brain, affine)
    sagittal = [edge(0.0, angle) for angle in np.linspace(-15, 195, 43)]
    yield 2.6, sagittal
    # Fixed seed: the tree is part of the template; what differs between heads is their warp.
    random = np.random.default_rng(20)
    for sign in (-1, 1):
        for start in np.linspace(15, 165, 15):
            swerve = random.uniform(-14, 14)
            reach = random.uniform(45, 85)
            tilt = np.linspace(0, reach, 12)
            wiggle = random.normal(0, 1.2, tilt.size).cumsum()
            bend = swerve * np.sin(np.linspace(0, np.pi / 2, tilt.size)) + wiggle
            path = [edge(sign * t, start + b) for t, b in zip(tilt, bend, strict=True)]
            yield random.uniform(0.8, 1.3), path


def _edge_finder(brain, affine, centre=(0.0, -18.0, 8.0), depth=2.5):
    """Return a function from (tilt, angle) in degrees to a point just inside the brain's edge."""
    steps = np.arange(20.0, 110.0, 0.5)
    origin = np.asarray(centre)

    def edge(tilt, angle):
        t, a = np.deg2rad(tilt), np.deg2rad(angle)
        # Angle 0 is anterior, 90 up, 180 posterior; the tilt turns the half plane to the side.
        ray = np.array([np.sin(t) * np.sin(a), np.cos(a), np.cos(t) * np.sin(a)])
        points = origin + steps[:, np.newaxis] * ray
        index = np.rint(points - affine[:3, 3]).astype(int).T
        index = np.clip(index, 0, np.array(brain.shape)[:, np.newaxis] - 1)
        inside = np.nonzero(brain[tuple(index)])[0]
        return points[inside[-1]] - depth * ray if inside.size else points[0]

    return edge


def _draw_segment(level, affine, start, end, radius, reach=3.0):
    """Lower ``level`` (1 mm grid) to the distance from one straight piece of a vein."""
    origin = affine[:3, 3]
    low = np.floor(np.minimum(start, end) - radius - reach - origin).astype(int)
    high = np.ceil(np.maximum(start, end) + radius + reach - origin).astype(int) + 1
    low, high = np.maximum(low, 0), np.minimum(high, level.shape)
    if (high <= low).any():
        return
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    grid = np.meshgrid(
        *(np.arange(a, b) + o for a, b, o in zip(low, high, origin, strict=True)),
        indexing='ij',
        sparse=True,
    )
    line = end - start
    length = max(float(line @ line), 1e-9)
    along = sum((g - s) * d for g, s, d in zip(grid, start, line, strict=True)) / length
    along = np.clip(along, 0, 1)
    gap = sum((g - s - along * d) ** 2 for g, s, d in zip(grid, start, line, strict=True))
    np.minimum(level[box], np.sqrt(gap) - radius, out=level[box], casting='same_kind')
