"""What the fits of the decay share: limits, the result, the checks, and the noise floor."""

from dataclasses import dataclass

import numpy as np

from qsmflow.algorithms import operators as ops
from qsmflow.algorithms._checks import check_voxel_size

from .noise import RAYLEIGH_MEAN, noise_level

#: Largest R2* that is reported, in 1/s.
R2STAR_MAX = 1000.0
#: A slower decay, in 1/s, cannot be told from none within the echo times of a scan: water itself
#: decays about as slowly, and the inverse of noise about zero would rule any mean of T2*.
R2STAR_SEEN = 0.5

#: Echo spacings are uniform when they differ by less than this fraction.
SPACING_TOLERANCE = 0.01


@dataclass(frozen=True, eq=False)
class Relaxation:
    """Maps of the magnitude decay.

    Attributes
    ----------
    r2star : ndarray of float32, shape (X, Y, Z)
        Effective transverse relaxation rate, in 1/s, within 0 and ``R2STAR_MAX``. Zero inside the
        mask means that the signal did not decay.
    t2star : ndarray of float32, shape (X, Y, Z)
        Its inverse, in s; zero, for not defined, where ``r2star`` is below ``R2STAR_SEEN``.
    s0 : ndarray of float32, shape (X, Y, Z)
        Signal extrapolated to echo time zero, in units of the magnitude.
    """

    r2star: np.ndarray
    t2star: np.ndarray
    s0: np.ndarray


def uniform_spacing(te: np.ndarray) -> bool:
    """Tell whether three or more echo times (s, increasing) have one spacing, within 1 %.

    Examples
    --------
    >>> uniform_spacing([0.005, 0.010, 0.015]), uniform_spacing([0.004, 0.012, 0.028])
    (True, False)
    """
    steps = np.diff(np.asarray(te, float))
    if steps.size < 2 or steps.min() <= 0:
        return False
    return bool(np.ptp(steps) <= SPACING_TOLERANCE * steps.mean())


class Decay:
    """The checked input of a fit, and the maps that it fills.

    Parameters
    ----------
    magnitude : ndarray of float, shape (X, Y, Z, E)
        Magnitude of two or more echoes.
    mask : ndarray of bool, shape (X, Y, Z)
        Region to fit.
    voxel_size : tuple of float
        Voxel edge lengths, in mm; only checked.
    te : array_like of float, shape (E,)
        Echo times, in s, increasing.
    noise : float, or None
        Noise of one channel; None to measure it.

    Attributes
    ----------
    images : tuple of ndarray
        Magnitude and mask, as the compiled loops want them.
    te : ndarray of float64, shape (E,)
        Echo times, in s.
    noise : float
        Noise of one channel, in units of the magnitude.
    floor : float
        Signal at or below it may be noise alone: three times the mean of the noise.
    maps : tuple of ndarray of float32, shape (X, Y, Z)
        R2*, T2* and signal at echo time zero, all zero at first.

    Raises
    ------
    ValueError
        If shapes disagree, the magnitude is complex, there are fewer than two echoes, the echo
        times are not positive and increasing, or the noise is negative or not finite.
    """

    def __init__(self, magnitude, mask, voxel_size, te, noise):
        check_voxel_size(voxel_size)
        self.te = np.asarray(te, np.float64)
        _check(magnitude, mask, self.te, noise)
        self.noise = noise_level(magnitude) if noise is None else float(noise)
        self.floor = 3 * RAYLEIGH_MEAN * self.noise
        self.images = np.asarray(magnitude, np.float32), np.ascontiguousarray(mask, bool)
        self.maps = tuple(np.zeros(mask.shape, np.float32) for _ in range(3))
        ops.use_threads()


def _check(magnitude, mask, te, noise):
    if np.ndim(magnitude) != 4 or magnitude.shape[-1] != te.size:
        raise ValueError(
            f'magnitude must have shape (X, Y, Z, {te.size}), one volume for each echo time; '
            f'got {np.shape(magnitude)}.'
        )
    if mask.shape != magnitude.shape[:3]:
        raise ValueError(f'mask has shape {mask.shape}, magnitude {magnitude.shape[:3]}.')
    if np.iscomplexobj(magnitude):
        raise ValueError(
            f'magnitude must be real; got {magnitude.dtype}. Take the absolute value of the '
            'signal.'
        )
    if te.size < 2 or not (te[0] > 0 and np.isfinite(te).all() and np.all(np.diff(te) > 0)):
        raise ValueError(
            'R2* needs two or more echo times, in s, positive and in increasing order; got '
            f'{in_ms(te)} ms.'
        )
    if noise is not None and not (np.isfinite(noise) and noise >= 0):
        raise ValueError(
            'noise must be a number of 0 or more, in units of the magnitude, or None to measure '
            f'it in the air; got {noise!r}.'
        )


def in_ms(te):
    """Return echo times, given in s, as a list in ms for a message."""
    return [round(1e3 * t, 3) for t in np.asarray(te, float).tolist()]
