"""What only the steps of the graph see: a head in air, and the ways to break it."""

import numpy as np

from qsmflow.phantom import small_acquisition

from .registry import defect

HEAD_TE = (0.004, 0.008, 0.012, 0.016)
VOXEL_ML = 0.216  #: volume of a voxel of 6 mm


class Scan:
    """A head as arrays, with what the steps of the graph are given beside them.

    ``given`` says whether the mask was given, ``options`` go to the step.
    """

    def __init__(self):
        clean = small_acquisition(shape=(32, 38, 32), voxel_size=6.0, te=HEAD_TE, snr=100)
        self.te, self.f0, self.b0_dir = clean.te, clean.f0, clean.b0_dir
        self.magnitude, self.phase = clean.magnitude.copy(), clean.phase.copy()
        self.affine = clean.affine.copy()
        self.mask = clean.truth['mask'].copy()
        self.total_field, self.chi = clean.truth['total_field'], clean.truth['chi']
        self.given = True
        self.options: dict = {}

    @property
    def centre(self) -> np.ndarray:
        """Return the voxel in the middle of the brain."""
        return np.argwhere(self.mask).mean(axis=0).round().astype(int)

    def box(self, half: int) -> tuple[slice, ...]:
        """Return a cube around that voxel."""
        return tuple(slice(n - half, n + half + 1) for n in self.centre)

    def scale_to(self, volume_ml: float) -> None:
        """Leave nothing but the brain, and give it another volume, by the size of the voxels."""
        self.magnitude *= self.mask[..., None]
        factor = (volume_ml / (VOXEL_ML * np.count_nonzero(self.mask))) ** (1 / 3)
        self.affine[:3, :3] *= factor


def seen(seen_by: str, code: str, level: str, **keywords):
    """Register a defect that a step of the graph sees."""
    return defect(code, level, stage='node', seen_by=seen_by, **keywords)


def wrapped(phase: np.ndarray) -> np.ndarray:
    """Return angles in -pi to pi."""
    return np.angle(np.exp(1j * phase)).astype(np.float32)


# ---- Phase ----------------------------------------------------------------------------------


@seen('chain', 'A13', 'FIX')
def phase_negated(scan):
    scan.phase = -scan.phase


@seen('sign', 'A13', 'WARN')
def magnitude_without_contrast(scan):
    scan.magnitude[:] = 1


@seen('chain', 'A13', 'WARN')
def sign_that_contradicts_the_air(scan):
    scan.phase = -scan.phase
    scan.options['sign'] = '+1'


@seen('chain', 'A14', 'FIX')
def every_second_slice_turned(scan):
    turned = np.pi * (np.arange(scan.phase.shape[2]) % 2)
    scan.phase = wrapped(scan.phase + turned[:, None])


@seen('chain', 'B41', 'FIX')
def bipolar_readout(scan):
    scan.phase = bipolar(scan.phase)


@seen('bipolar', 'B41', 'WARN')
def bipolar_correction_without_signal(scan):
    scan.magnitude[:] = 0
    scan.options['bipolar'] = 'on'


def bipolar(phase: np.ndarray, gradient: float = 0.015) -> np.ndarray:
    """Add what even and odd echoes gain from a readout in turns along the first axis, rad/mm."""
    ramp = gradient * 6.0 * (np.arange(32) - 15.5)[:, None, None, None]
    return wrapped(phase + ramp * np.array([-1, 1, -1, 1]))


# ---- Mask -----------------------------------------------------------------------------------


@seen('mask', 'D79', 'ERROR', file='mask')
def mask_without_a_voxel(scan):
    scan.mask[:] = False


@seen('mask', 'D79', 'WARN')
def mask_that_was_found_is_tiny(scan):
    tiny = np.zeros_like(scan.mask)
    tiny[scan.box(2)] = True
    scan.mask, scan.given = tiny, False


@seen('brain', 'D79', 'WARN')
def object_too_small_for_any_brain(scan):
    scan.scale_to(20)


@seen('brain', 'D89', 'WARN')
def brain_too_small_for_an_adult(scan):
    scan.scale_to(420)


@seen('brain', 'C75', 'WARN')
def slab(scan):
    planes = slice(14, 24)
    scan.magnitude = scan.magnitude[:, :, planes]
    scan.affine[:3, 3] += planes.start * scan.affine[:3, 2]


@seen('mask', 'D80', 'FIX', file='mask')
def mask_with_an_island_and_a_hole(scan):
    scan.mask[tuple(scan.centre)] = False
    scan.mask[0, 0, 0] = True


@seen('mask', 'D80', 'WARN', file='mask')
def mask_with_two_parts_and_a_large_hole(scan):
    scan.mask[scan.box(1)] = False
    scan.mask[:3, :3, :3] = True


@seen('mask', 'D80', 'WARN', file='mask')
def mask_at_the_border(scan):
    low = np.indices(scan.mask.shape)[2] < 12
    scan.mask |= low & scan.mask.any(axis=2, keepdims=True)


@seen('mask', 'D86', 'WARN')
def metal_in_the_brain(scan):
    """A ball of 2.6 cm without signal, in a mask that was found."""
    distance = np.linalg.norm(np.indices(scan.mask.shape).T - scan.centre, axis=-1).T
    scan.magnitude[distance < 2.2] = 0
    scan.given = False


# ---- Echoes, registration, regions ----------------------------------------------------------


@seen('field', 'D88', 'WARN')
def echoes_that_do_not_fit_together(scan):
    """The phase of one echo in one of twelve voxels of the brain is that of another field."""
    where = scan.mask & (np.random.default_rng(0).random(scan.mask.shape) < 0.08)
    scan.options['offset'] = where * np.float32(1.8)


@seen('registration', 'D84', 'WARN')
def t1w_that_shows_noise(scan):
    noise = np.random.default_rng(0).normal(500, 100, scan.mask.shape)
    scan.options['t1w'] = noise


@seen('regions', 'D87', 'WARN')
def region_at_the_edge_of_the_mask(scan):
    scan.options['labels'] = region(scan, edge=True)


def region(scan: Scan, edge: bool = False) -> np.ndarray:
    """Return the label of a box in the middle of the brain, or at its edge."""
    x, y, z = scan.centre
    if edge:
        x = np.flatnonzero(scan.mask[:, y, z]).min()
    labels = np.zeros(scan.mask.shape, int)
    labels[x - 3 : x + 3, y - 2 : y + 3, z - 2 : z + 2] = 1
    return labels
