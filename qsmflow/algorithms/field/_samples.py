"""What the field fits share: the samples of each voxel, the noise in them, and the field map."""

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from qsmflow.algorithms import operators as ops
from qsmflow.algorithms._checks import check_voxel_size
from qsmflow.algorithms._jit import njit, prange
from qsmflow.algorithms._smoothing import MaskedSmoother
from qsmflow.algorithms._voxels import Voxels
from qsmflow.algorithms.unwrap import check_echoes
from qsmflow.units import radians_per_ppm

# Smallest noise relative to the median magnitude; below it lies the rounding of stored phase.
_SMALLEST_NOISE = 1e-4
# Roughness of the phase of a single echo, in rad, at which a voxel keeps a quarter of its weight.
# Chosen at 2 mm on the head of seed 3: 0.5 and 1 rad differ little, 0.25 costs contrast.
ROUGH = 1.0
# Field, in ppm, by which a voxel may differ from its neighbours along every axis. On the tuning
# beds at 2 mm, 0.2 % of voxels with a phase of their own then cost nothing (nrmse 53.9 instead of
# 118 %, as without them), and a haemorrhage loses nothing.
ALONE = 0.05
# Largest voxel edge, in mm, at which that is judged: in larger ones neighbours differ by as much
# of themselves. Applied at 6 mm, it halved the correlation of a map with the truth.
ALONE_AT_MOST = 2.0
# Voxels whose residuals give the noise to half a percent.
_NOISE_SAMPLE = 100_000


@dataclass(frozen=True)
class FieldMap:
    """A field map with what is known of its reliability. All arrays have shape (X, Y, Z).

    Attributes
    ----------
    total_field : ndarray of float32
        Field relative to the main field, in ppm, positive where the field is raised.
    field_noise : ndarray of float32
        Standard deviation of the field by thermal noise, in ppm.
    residual : ndarray of float32
        Relative residual of the signal, 0 (perfect fit) to 1.
    phase_offset : ndarray of float32
        Phase at echo time zero that the fit found, in rad.
    weights : ndarray of float32
        Confidence in the field, 0 to 1; next to none where a voxel's field stands alone.
    """

    total_field: np.ndarray
    field_noise: np.ndarray
    residual: np.ndarray
    phase_offset: np.ndarray
    weights: np.ndarray


class Samples:
    """The voxels of the mask as lists: phase and magnitude (E, N), and rad per ppm of each echo.

    An echo without a value is an echo without signal. ``valid`` tells the voxels with a phase in
    the first echo and a signal in any. The median magnitude of the first echo is 1.
    """

    def __init__(self, unwrapped_phase, magnitude, mask, voxel_size, te, f0):
        te = check_echoes(unwrapped_phase, magnitude, mask, te)
        self.voxel_size = check_voxel_size(voxel_size)
        if not (np.isfinite(f0) and f0 > 0):
            raise ValueError(f'f0 must be the imaging frequency in MHz; got {f0!r}.')
        self.k = radians_per_ppm(te, f0)
        self.voxels = Voxels(mask)
        self.phase = self.voxels.gather(unwrapped_phase)
        if magnitude is None:
            self.magnitude = np.ones(self.phase.shape, np.float32)
        else:
            self.magnitude = self.voxels.gather(magnitude)
        self.valid = np.empty(len(self.voxels), bool)
        ops.use_threads()
        _clean(self.phase, self.magnitude, self.valid)
        # Scaled so that the noise floor and the weights keep clear of the limits of float32.
        level = float(np.median(self.magnitude[0])) if len(self.voxels) else 0.0
        self.magnitude /= level if level > 0 else max(float(self.magnitude.max(initial=0)), 1e-30)

    @property
    def stride(self):
        """Every how manieth voxel is enough to estimate the noise."""
        return max(1, len(self.voxels) // _NOISE_SAMPLE)

    def some(self):
        """Return phase and magnitude of every ``stride``-th voxel."""
        step = self.stride
        return tuple(
            np.ascontiguousarray(lists[:, ::step]) for lists in (self.phase, self.magnitude)
        )


@njit(cache=True, parallel=True)
def _clean(phase, magnitude, valid):
    zero = np.float32(0)
    for v in prange(valid.size):
        signal = False
        for j in range(phase.shape[0]):
            known = math.isfinite(phase[j, v]) and math.isfinite(magnitude[j, v])
            if j == 0:
                valid[v] = known
            if not known:
                phase[j, v] = zero
            if not known or magnitude[j, v] < zero:
                magnitude[j, v] = zero
            signal |= magnitude[j, v] > zero
        valid[v] &= signal


def noise_level(scaled):
    """Return the robust standard deviation of residuals, in units of the magnitude.

    Parameters
    ----------
    scaled : ndarray of float
        Residuals times magnitude, divided by what the fit leaves of them; NaN where that is too
        little.
    """
    sample = np.abs(scaled[np.isfinite(scaled)])
    level = 1.4826 * float(np.median(sample)) if sample.size else 0.0
    return max(level, _SMALLEST_NOISE)


def noise_in_space(data):
    """Return the noise, in units of the magnitude, from second differences of the first echo."""
    strength = data.voxels.scatter(data.magnitude[0])
    levels = []
    for middle, second in _second_differences(data):
        second = np.abs(second * strength[middle])
        second = second[np.isfinite(second)]
        if second.size > 20:
            levels.append(1.4826 * float(np.median(second)) / np.sqrt(6))
    # Anatomy adds to the differences, so the smallest level is the nearest to the noise.
    return max(min(levels, default=0.0), _SMALLEST_NOISE)


def roughness(data):
    """Return the standard deviation of a voxel's phase that its neighbourhood shows, in rad.

    Second differences of the first echo, as of independent noise, in three voxels each way.
    """
    square, count = (np.zeros(data.voxels.mask.shape, np.float32) for _ in range(2))
    for middle, second in _second_differences(data):
        known = np.isfinite(second)
        square[middle] += np.where(known, second, 0) ** 2 / 6
        count[middle] += known
    square, count = (ndimage.uniform_filter(volume, 3) for volume in (square, count))
    # Where no voxel has both neighbours, nothing speaks against its phase.
    found = np.divide(square, count, where=count > 1e-3, out=np.zeros_like(square))
    return data.voxels.gather(np.sqrt(np.maximum(found, 0))[..., None])[0]


def _second_differences(data):
    """Yield second differences of the phase (rad) along each axis, and where their centres are."""
    phase = data.voxels.scatter(np.where(data.valid, data.phase[0], np.nan))
    phase[~data.voxels.mask] = np.nan
    for axis in range(3):
        middle = tuple(slice(1, -1) if a == axis else slice(None) for a in range(3))
        yield middle, np.diff(phase, n=2, axis=axis)


def single_echo(data):
    """Return the field map of one echo: its phase over that of 1 ppm.

    No second echo contradicts a phase that is wrong by 2 pi, so that neighbours must: a voxel
    loses its weight where the phase is rough by about a radian.
    """
    noise = noise_in_space(data)
    strength = np.maximum(data.magnitude[0], noise / 2)
    zeros = np.zeros(len(data.voxels), np.float32)
    field = data.phase[0] / np.float32(data.k[0])
    deviation = noise / (strength * data.k[0])
    found = field_map(data, field, deviation, zeros, zeros)
    smooth = 1 / (1 + (roughness(data) / ROUGH) ** 2) ** 2
    return replace(found, weights=found.weights * data.voxels.scatter(smooth))


def field_map(data, field, deviation, residual, offset):
    """Put the lists of a fit into volumes, with weights, and fill the voxels without a value."""
    valid = data.valid
    field = np.asarray(field, np.float32)
    deviation = np.asarray(deviation, np.float32)
    # Half a radian of the first echo or so: what is known of a field without any signal.
    largest = np.float32(2 / data.k[0])
    deviation = np.minimum(deviation, largest)
    if not valid.all():
        residual = np.where(valid, residual, 1)
        deviation[~valid] = largest
        field = _filled(data.voxels, data.voxel_size, field, valid)
    typical = np.median(deviation[valid]) if valid.any() else np.float32(1)
    weights = np.minimum(1, 2 * typical / deviation) ** 2 * valid
    if max(data.voxel_size) <= ALONE_AT_MOST:
        weights = weights * _agreement(data.voxels, field)
    lists = (field, deviation, residual, offset, weights)
    return FieldMap(*(data.voxels.scatter(values) for values in lists))


def _agreement(voxels, field):
    """Return 1 where a voxel's field is like that of its neighbours, less where it stands alone.

    What stands out along all three axes is a voxel with a phase of its own; veins, borders and
    their corners are smooth along one axis at least.
    """
    alone = np.empty(len(voxels), np.float32)
    volume = voxels.scatter(field)
    ops.use_threads()
    _stand_out(volume, voxels.mask, voxels.starts, alone)
    return np.minimum(1, (ALONE / np.maximum(alone, ALONE)) ** 4)


@njit(cache=True, parallel=True)
def _stand_out(field, mask, starts, out):
    """Write by how much a voxel differs from the mean of its two neighbours on an axis, at least.

    Zero where no axis has both neighbours in the mask.
    """
    for i in prange(mask.shape[0]):
        v = starts[i]
        for j in range(mask.shape[1]):
            for k in range(mask.shape[2]):
                if not mask[i, j, k]:
                    continue
                least = np.float32(np.inf)
                for a in range(3):
                    x, y, z = np.int64(a == 0), np.int64(a == 1), np.int64(a == 2)
                    low = min(i - x, j - y, k - z) >= 0
                    if not (low and i + x < mask.shape[0]
                            and j + y < mask.shape[1] and k + z < mask.shape[2]):  # fmt: skip
                        continue
                    if mask[i - x, j - y, k - z] and mask[i + x, j + y, k + z]:
                        rise = field[i + x, j + y, k + z] - field[i, j, k]
                        bend = rise - (field[i, j, k] - field[i - x, j - y, k - z])
                        least = min(least, abs(bend) / np.float32(2))
                out[v] = least if least < np.inf else np.float32(0)
                v += 1


def _filled(voxels, voxel_size, field, known):
    """Give voxels without a value that of their neighbours: the next first, then further ones."""
    for reach in (1, 4, 16):
        if known.all() or not known.any():
            break
        smooth = MaskedSmoother(voxels, voxel_size, reach * max(voxel_size))
        void = np.flatnonzero(~known)
        near = smooth(field, known, at=void)
        field = field.copy()
        field[void] = near
        known = known.copy()
        known[void] = near != 0
    return field


def empty_map(data):
    """Return the field map of an empty mask."""
    return FieldMap(*(np.zeros(data.voxels.mask.shape, np.float32) for _ in range(5)))
