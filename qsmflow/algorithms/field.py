"""From unwrapped multi-echo phase to the field, its noise and the confidence in it."""

from dataclasses import dataclass
from typing import NamedTuple

import numba
import numpy as np

from qsmflow.units import radians_per_ppm

from ._smoothing import MaskedSmoother
from .unwrap import check_echoes, wrap_scalar

# Phase errors that no noise estimate knows of: motion, flow, several compartments in a voxel.
_SYSTEMATIC = 0.08
# Until the offset is known, a misfit of this size says nothing about an echo.
_UNKNOWN_OFFSET = 0.5
# Residuals beyond this many standard deviations count for less and less (Geman-McClure).
_CUTOFF = 2.5
# The mean of the Geman-McClure factor over normal noise. Without it every echo would seem to
# carry less information than it does.
_NORMAL_FACTOR = 0.80
# Smallest noise relative to the median magnitude; below it lies the rounding of stored phase.
_SMALLEST_NOISE = 1e-4


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
        Confidence in the field, 0 to 1.
    """

    total_field: np.ndarray
    field_noise: np.ndarray
    residual: np.ndarray
    phase_offset: np.ndarray
    weights: np.ndarray


class _Samples:
    """The voxels of the mask as lists: phase, magnitude, and rad per ppm of each echo."""

    def __init__(self, unwrapped_phase, magnitude, mask, te, f0):
        te = check_echoes(unwrapped_phase, magnitude, mask, te)
        if not (np.isfinite(f0) and f0 > 0):
            raise ValueError(f'f0 must be the imaging frequency in MHz; got {f0!r}.')
        self.k = radians_per_ppm(te, f0)
        self.region = np.asarray(mask, bool)
        self.phase = unwrapped_phase[self.region].astype(np.float32)
        if magnitude is None:
            self.magnitude = np.ones(self.phase.shape, np.float32)
        else:
            self.magnitude = magnitude[self.region].astype(np.float32)
        # An echo without a value is an echo without signal.
        known = np.isfinite(self.phase) & np.isfinite(self.magnitude)
        self.phase[~known] = 0
        self.magnitude[~known] = 0
        np.maximum(self.magnitude, 0, out=self.magnitude)
        # Scaled so that the noise floor and the weights keep clear of the limits of float32.
        level = float(np.median(self.magnitude[:, 0])) if len(self.magnitude) else 0.0
        self.magnitude /= level if level > 0 else max(float(self.magnitude.max(initial=0)), 1e-30)
        self.valid = known[:, 0] & self.magnitude.any(axis=1)

    def volume(self, values):
        out = np.zeros(self.region.shape, np.float32)
        out[self.region] = values
        return out


def sequential(unwrapped_phase, magnitude, mask, voxel_size, *, te, f0, sigma=4.0, alternations=3):
    r"""Fit the field echo by echo, trusting the spatial unwrapping of the first echo alone.

    The first echo gives a first field. Each later echo :math:`j` is compared, wrapped, with what
    the field so far predicts,
    :math:`e_j = \mathrm{wrap}(\varphi_j - \varphi_0 - k_j f)`, and refines the field with the
    weight of its signal-to-noise ratio, times
    :math:`(1 + e_j^2 / (2.5\,s_j)^2)^{-2}` [1]_ for the standard deviation :math:`s_j` of
    :math:`e_j` expected. An echo that disagrees, because it was dephased, is so left out softly
    instead of pulling the field by a turn. :math:`k_j` is the phase of 1 ppm at echo :math:`j`.

    The phase offset :math:`\varphi_0` is refined in turn: the intercepts of weighted lines
    through the residuals of each voxel are smoothed with their inverse variance, normalised in
    the mask.

    Parameters
    ----------
    unwrapped_phase : ndarray of float, shape (X, Y, Z, E)
        Phase, in rad; the first echo unwrapped in space, the others at any multiple of 2 pi.
    magnitude : ndarray of float, shape (X, Y, Z, E), or None
        Magnitude, in arbitrary units.
    mask : ndarray of bool, shape (X, Y, Z)
        Region of interest.
    voxel_size : tuple of float
        Voxel edge lengths, in mm, in array-axis order.
    te : sequence of float, shape (E,)
        Echo times, in s, increasing; any spacing.
    f0 : float
        Imaging frequency, in MHz.
    sigma : float, optional
        Standard deviation of the Gaussian that smooths the phase offset, in mm.
    alternations : int, optional
        Number of refinements of the phase offset; 0 takes it as removed already.

    Returns
    -------
    FieldMap
        Zero outside ``mask``; the mean of the field is left in. ``weights`` is
        :math:`\min(1, 2\,\mathrm{median}(\sigma_f)/\sigma_f)^2`. Voxels without any signal or
        phase get the field of their neighbours and weight 0.

    Raises
    ------
    ValueError
        If shapes, echo times or ``f0`` are not valid.

    Notes
    -----
    Noise is estimated from the residuals and needs no air in the image; with one echo, from
    second differences in space. One echo gives ``phase / k``, and the phase offset stays in it.

    References
    ----------
    .. [1] Geman S, McClure DE. Bull Int Stat Inst 1987;52:5-21.
    .. [2] Eckstein K, et al. Magn Reson Med 2018;79:2996-3006. doi:10.1002/mrm.26963

    Examples
    --------
    >>> te, truth = np.array([0.004, 0.009, 0.013]), np.linspace(-0.3, 0.3, 8).reshape(2, 2, 2, 1)
    >>> phase = radians_per_ppm(te, 128.0) * truth
    >>> fit = sequential(phase, None, np.ones((2, 2, 2), bool), (1, 1, 1), te=te, f0=128.0)
    >>> bool(np.allclose(fit.total_field, truth[..., 0], atol=1e-5))
    True
    """
    data = _Samples(unwrapped_phase, magnitude, mask, te, f0)
    if not len(data.phase):
        return _empty(data)
    coords = np.argwhere(data.region)
    offset = np.zeros(len(data.phase), np.float32)
    if data.k.size == 1:
        return _single_echo(data, coords, voxel_size)
    smooth = MaskedSmoother(coords, voxel_size, sigma)
    noise, tolerance = 0.05, _UNKNOWN_OFFSET
    for _ in range(alternations):
        fit = _sequential_fit(data.phase, data.magnitude, data.k, offset, noise, tolerance**2)
        noise = _noise_level(fit.scaled)
        # Far intercepts come from a wrongly unwrapped first echo and say nothing of the offset.
        trust = fit.intercept_precision / (1 + fit.intercept**2) ** 2 * data.valid
        offset = offset + smooth(fit.intercept, trust)
        tolerance = _SYSTEMATIC
    if not alternations:
        fit = _sequential_fit(data.phase, data.magnitude, data.k, offset, noise, _SYSTEMATIC**2)
        noise = _noise_level(fit.scaled)
    fit = _sequential_fit(data.phase, data.magnitude, data.k, offset, noise, _SYSTEMATIC**2)
    deviation = 1 / np.sqrt(fit.information)
    return _field_map(data, coords, voxel_size, fit.field, deviation, fit.residual, offset)


class _Fit(NamedTuple):
    """What the sequential fit finds for each voxel; ``information`` is 1 / variance."""

    field: np.ndarray
    information: np.ndarray
    intercept: np.ndarray
    intercept_precision: np.ndarray
    residual: np.ndarray
    scaled: np.ndarray


def _sequential_fit(phase, magnitude, k, offset, noise, slack):
    columns = [np.empty(len(phase), np.float32) for _ in range(5)]
    scaled = np.full(phase.shape, np.nan, np.float32)
    _sequential_kernel(phase, magnitude, k, offset, noise, slack, *columns, scaled)
    return _Fit(*columns, scaled)


@numba.njit(cache=True, error_model='numpy')
def _sequential_kernel(
    phase, magnitude, k, offset, noise, slack, field, info, intercept, precision, residual, scaled
):
    """Fit all voxels; ``slack`` is the variance (rad^2) granted to each echo beside its noise.

    ``info`` is the inverse variance of the field, ``precision`` that of the intercept, and
    ``scaled`` the residuals times magnitude, divided by what the fit leaves of them.
    """
    n = k.size
    variance = noise * noise
    weight = np.zeros(n)
    for v in range(phase.shape[0]):
        m = magnitude[v, 0]
        weight[0] = max(m * m, variance / 4) / variance
        f = (phase[v, 0] - offset[v]) / k[0]
        s = weight[0] * k[0] * k[0]
        normal = s
        for j in range(1, n):
            m = magnitude[v, j]
            if m <= 0:
                weight[j] = 0
                continue
            e = wrap_scalar(phase[v, j] - offset[v] - k[j] * f)
            w = max(m * m - variance, 0.05 * variance) / variance
            spread = 1 / w + k[j] * k[j] / s + slack
            ratio = e * e / (_CUTOFF * _CUTOFF * spread)
            a = 1 / ((1 + ratio) * (1 + ratio))
            weight[j] = a * w
            step = weight[j] * k[j] * k[j]
            f = (s * f + weight[j] * k[j] * (k[j] * f + e)) / (s + step)
            s += step
            normal += min(1.0, a / _NORMAL_FACTOR) * w * k[j] * k[j]
        field[v] = f
        info[v] = normal
        a11 = a12 = b1 = b2 = misfit = total = 0.0
        for j in range(n):
            m = magnitude[v, j]
            e = wrap_scalar(phase[v, j] - offset[v] - k[j] * f)
            a11 += weight[j]
            a12 += weight[j] * k[j]
            b1 += weight[j] * e
            b2 += weight[j] * k[j] * e
            misfit += m * 2 * abs(np.sin(e / 2))
            total += m
            left = 1 - weight[j] * k[j] * k[j] / s
            if m > 0 and left > 0.1:
                scaled[v, j] = m * e / np.sqrt(left)
        determinant = a11 * s - a12 * a12
        usable = determinant > 1e-6 * a11 * s
        intercept[v] = (s * b1 - a12 * b2) / determinant if usable else 0.0
        precision[v] = determinant / s if usable else 0.0
        residual[v] = min(misfit / total, 1.0) if total > 0 else 1.0


def _single_echo(data, coords, voxel_size):
    noise = _noise_in_space(data)
    strength = np.maximum(data.magnitude[:, 0], noise / 2)
    zeros = np.zeros(len(data.phase), np.float32)
    field = data.phase[:, 0] / data.k[0]
    deviation = noise / (strength * data.k[0])
    return _field_map(data, coords, voxel_size, field, deviation, zeros, zeros)


def weighted(unwrapped_phase, magnitude, mask, voxel_size, *, te, f0, fit_offset=True):
    r"""Fit a weighted line to the unwrapped phases.

    .. math:: \min_{f, \varphi_0} \sum_j m_j^2 (\varphi_j - \varphi_0 - k_j f)^2

    with the inverse variance of the phase, :math:`m_j^2`, as weight [1]_; :math:`k_j` is the phase
    of 1 ppm at echo :math:`j`.

    Parameters
    ----------
    unwrapped_phase : ndarray of float, shape (X, Y, Z, E)
        Unwrapped phase, in rad.
    magnitude : ndarray of float, shape (X, Y, Z, E), or None
        Magnitude, in arbitrary units.
    mask : ndarray of bool, shape (X, Y, Z)
        Region of interest.
    voxel_size : tuple of float
        Voxel edge lengths, in mm.
    te : sequence of float, shape (E,)
        Echo times, in s, increasing; any spacing.
    f0 : float
        Imaging frequency, in MHz.
    fit_offset : bool, optional
        Fit the phase at echo time zero in each voxel. ``False`` takes it as removed, which
        halves the noise or better. One echo never has an offset.

    Returns
    -------
    FieldMap
        As of :func:`sequential`.

    Raises
    ------
    ValueError
        If shapes, echo times or ``f0`` are not valid.

    References
    ----------
    .. [1] Kressler B, et al. IEEE Trans Med Imaging 2010;29:273-281.
       doi:10.1109/TMI.2009.2023787

    Examples
    --------
    >>> te = np.array([0.004, 0.009, 0.013])
    >>> phase = 1.0 + radians_per_ppm(te, 128.0) * np.full((2, 2, 2, 1), 0.2)
    >>> fit = weighted(phase, None, np.ones((2, 2, 2), bool), (1, 1, 1), te=te, f0=128.0)
    >>> round(float(fit.total_field.mean()), 4), round(float(fit.phase_offset.mean()), 4)
    (0.2, 1.0)
    """
    return _fit_lines(
        unwrapped_phase, magnitude, mask, voxel_size, te, f0, fit_offset, max_iter=0, tol=0.0
    )


def nonlinear(
    unwrapped_phase,
    magnitude,
    mask,
    voxel_size,
    *,
    te,
    f0,
    fit_offset=True,
    max_iter=30,
    tol=1e-4,
):
    r"""Fit field and phase offset to the complex signal by Gauss-Newton.

    .. math:: \min_{f, \varphi_0} \sum_j m_j^2 |e^{i\varphi_j} - e^{i(\varphi_0 + k_j f)}|^2

    [1]_, from the weighted line as start, so that the field needs no unwrapping afterwards and any
    spacing of echoes will do. A phase that is off by 2 pi in a late echo does no harm as long as
    the start is right.

    Parameters
    ----------
    unwrapped_phase : ndarray of float, shape (X, Y, Z, E)
        Unwrapped phase, in rad.
    magnitude : ndarray of float, shape (X, Y, Z, E), or None
        Magnitude, in arbitrary units.
    mask : ndarray of bool, shape (X, Y, Z)
        Region of interest.
    voxel_size : tuple of float
        Voxel edge lengths, in mm.
    te : sequence of float, shape (E,)
        Echo times, in s, increasing; any spacing.
    f0 : float
        Imaging frequency, in MHz.
    fit_offset : bool, optional
        Fit the phase at echo time zero in each voxel. ``False`` takes it as removed.
    max_iter : int, optional
        Largest number of steps.
    tol : float, optional
        The iteration ends when a step changes no echo's phase by more than this, in rad.

    Returns
    -------
    FieldMap
        As of :func:`sequential`.

    Raises
    ------
    ValueError
        If shapes, echo times or ``f0`` are not valid.

    References
    ----------
    .. [1] Liu T, et al. Magn Reson Med 2013;69:467-476. doi:10.1002/mrm.24272

    Examples
    --------
    >>> te = np.array([0.004, 0.009, 0.013])
    >>> phase = radians_per_ppm(te, 128.0) * np.full((2, 2, 2, 1), 0.2)
    >>> fit = nonlinear(phase, None, np.ones((2, 2, 2), bool), (1, 1, 1), te=te, f0=128.0)
    >>> round(float(fit.total_field.mean()), 4)
    0.2
    """
    return _fit_lines(
        unwrapped_phase, magnitude, mask, voxel_size, te, f0, fit_offset, max_iter, tol
    )


def _fit_lines(unwrapped_phase, magnitude, mask, voxel_size, te, f0, fit_offset, max_iter, tol):
    data = _Samples(unwrapped_phase, magnitude, mask, te, f0)
    if not len(data.phase):
        return _empty(data)
    coords = np.argwhere(data.region)
    if data.k.size == 1:
        return _single_echo(data, coords, voxel_size)
    columns = [np.empty(len(data.phase), np.float32) for _ in range(4)]
    scaled = np.full(data.phase.shape, np.nan, np.float32)
    _line_kernel(
        data.phase, data.magnitude, data.k, bool(fit_offset), max_iter, tol, *columns, scaled
    )
    field, offset, information, residual = columns
    free = data.k.size > 1 + bool(fit_offset)
    noise = _noise_level(scaled) if free else _noise_in_space(data)
    deviation = noise / np.sqrt(np.maximum(information, 1e-20))
    return _field_map(data, coords, voxel_size, field, deviation, residual, offset)


@numba.njit(cache=True, error_model='numpy')
def _line_kernel(
    phase, magnitude, k, fit_offset, max_iter, tol, field, offset, info, residual, scaled
):
    """Fit a line to each voxel, then refine it on the circle with up to ``max_iter`` steps."""
    n = k.size
    for v in range(phase.shape[0]):
        a11 = a12 = a22 = total = 0.0
        for j in range(n):
            w = magnitude[v, j] * magnitude[v, j]
            a11 += w
            a12 += w * k[j]
            a22 += w * k[j] * k[j]
            total += magnitude[v, j]
        determinant = a11 * a22 - a12 * a12
        # With signal in a single echo an intercept cannot be told from the field.
        both = fit_offset and determinant > 1e-9 * a11 * a22
        f = p = 0.0
        for iteration in range(max_iter + 1):
            b1 = b2 = 0.0
            for j in range(n):
                e = phase[v, j] - p - k[j] * f
                e = np.sin(e) if iteration > 0 else e
                w = magnitude[v, j] * magnitude[v, j]
                b1 += w * e
                b2 += w * k[j] * e
            if both:
                df = (a11 * b2 - a12 * b1) / determinant
                dp = (a22 * b1 - a12 * b2) / determinant
            else:
                df = b2 / a22 if a22 > 0 else 0.0
                dp = 0.0
            f += df
            p += dp
            if iteration > 0 and abs(dp) + abs(df) * k[n - 1] < tol:
                break
        field[v] = f
        offset[v] = p
        info[v] = determinant / a11 if both else a22
        misfit = 0.0
        for j in range(n):
            m = magnitude[v, j]
            e = phase[v, j] - p - k[j] * f
            misfit += m * 2 * abs(np.sin(e / 2))
            if both:
                share = a22 - 2 * a12 * k[j] + a11 * k[j] * k[j]
                left = 1 - m * m * share / determinant
            else:
                left = 1 - m * m * k[j] * k[j] / a22 if a22 > 0 else 0.0
            if m > 0 and left > 0.1:
                scaled[v, j] = m * e / np.sqrt(left)
        residual[v] = min(misfit / total, 1.0) if total > 0 else 1.0


def _noise_level(scaled):
    """Return the robust standard deviation of the residuals, in units of the magnitude."""
    # Some 10^5 values give it to half a percent.
    sample = np.abs(scaled[:: max(1, len(scaled) // 100_000)])
    sample = sample[np.isfinite(sample)]
    level = 1.4826 * float(np.median(sample)) if sample.size else 0.0
    return max(level, _SMALLEST_NOISE)


def _noise_in_space(data):
    """Return the noise, in units of the magnitude, from second differences of the first echo."""
    values = np.where(data.valid, data.phase[:, 0], np.nan)
    phase = np.full(data.region.shape, np.nan, np.float32)
    phase[data.region] = values
    strength = data.volume(data.magnitude[:, 0])
    levels = []
    for axis in range(3):
        second = np.diff(phase, n=2, axis=axis)
        middle = tuple(slice(1, -1) if a == axis else slice(None) for a in range(3))
        second = np.abs(second * strength[middle])
        second = second[np.isfinite(second)]
        if second.size > 20:
            levels.append(1.4826 * float(np.median(second)) / np.sqrt(6))
    # Anatomy adds to the differences, so the smallest level is the nearest to the noise.
    return max(min(levels, default=0.0), _SMALLEST_NOISE)


def _field_map(data, coords, voxel_size, field, deviation, residual, offset):
    valid = data.valid
    field = np.asarray(field, np.float32)
    residual = np.where(valid, residual, 1)
    # Half a radian of the first echo or so: what is known of a field without any signal.
    deviation = np.where(valid, np.minimum(deviation, 2 / data.k[0]), 2 / data.k[0])
    typical = np.median(deviation[valid]) if valid.any() else 1.0
    weights = np.where(valid, np.minimum(1, 2 * typical / deviation) ** 2, 0)
    known = valid
    for reach in (1, 4, 16):
        # The next neighbours first; further ones only where a void has none.
        if known.all() or not known.any():
            break
        smooth = MaskedSmoother(coords, voxel_size, reach * max(voxel_size))
        near = smooth(field, known.astype(np.float32))
        field = np.where(known, field, near)
        known = known | (near != 0)
    return FieldMap(
        total_field=data.volume(field),
        field_noise=data.volume(deviation),
        residual=data.volume(residual),
        phase_offset=data.volume(offset),
        weights=data.volume(weights),
    )


def _empty(data):
    return FieldMap(*(np.zeros(data.region.shape, np.float32) for _ in range(5)))
