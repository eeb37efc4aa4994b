"""The robust sequential fit: echo by echo, each unwrapped by the field so far."""

import numpy as np

from qsmflow.algorithms import operators as ops
from qsmflow.algorithms._checks import check_count, check_positive
from qsmflow.algorithms._jit import njit, prange
from qsmflow.algorithms._smoothing import MaskedSmoother
from qsmflow.algorithms.field._samples import (
    Samples,
    empty_map,
    field_map,
    noise_level,
    single_echo,
)

# Phase errors that no noise estimate knows of: motion, flow, several compartments in a voxel.
SYSTEMATIC = 0.08
# Until the offset is known, a misfit of this size says nothing about an echo.
_UNKNOWN_OFFSET = 0.5
# Residuals beyond this many standard deviations count for less and less (Geman-McClure).
CUTOFF = np.float32(2.5)
# The mean of the Geman-McClure factor over normal noise. Without it every echo would seem to
# carry less information than it does.
NORMAL_FACTOR = np.float32(0.80)
# Voxels that are worked on together: what they need fits into the nearest cache. The loops over
# them are compiled to vector instructions; without fast math these round as single ones do, so
# that the result does not depend on which of the two a place in memory asks for.
_BLOCK = 256
_TURN = np.float32(2 * np.pi)
_ZERO, _ONE, _TWO = np.float32(0), np.float32(1), np.float32(2)


def sequential(unwrapped_phase, magnitude, mask, voxel_size, *, te, f0, sigma=4.0, alternations=3):
    r"""Fit the field echo by echo, trusting the spatial unwrapping of the first echo alone.

    The first echo gives a first field. Each later echo :math:`j` is compared, wrapped, with what
    the field so far predicts,
    :math:`e_j = \mathrm{wrap}(\varphi_j - \varphi_0 - k_j f)`, and refines the field with the
    weight of its signal-to-noise ratio, times
    :math:`(1 + e_j^2 / (2.5\,s_j)^2)^{-2}` [1]_ for the standard deviation :math:`s_j` of
    :math:`e_j` expected. An echo that disagrees, because it was dephased, is so left out softly
    instead of pulling the field by 2 pi. :math:`k_j` is the phase of 1 ppm at echo :math:`j`.

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
        Standard deviation of the Gaussian that smooths the phase offset, in mm. This package's
        choice, on simulated heads, like that of ``alternations``.
    alternations : int, optional
        Number of refinements of the phase offset; 0 takes it as removed already.

    Returns
    -------
    FieldMap
        Zero outside ``mask``; the mean of the field is left in. ``weights`` is
        :math:`\min(1, 2\,\mathrm{median}(\sigma_f)/\sigma_f)^2`, and less in a small
        voxel whose field stands alone. Voxels without any signal or phase get the field of their
        neighbours and weight 0.

    Raises
    ------
    ValueError
        If shapes, echo times, ``voxel_size``, ``f0``, ``sigma`` or ``alternations`` are not valid.

    Notes
    -----
    Noise is estimated from the residuals and needs no air in the image; with one echo, from
    second differences in space. One echo gives ``phase / k``, and the phase offset stays in it;
    its weights fall where the phase is rough by about a radian from voxel to voxel.

    References
    ----------
    .. [1] Geman S, McClure DE. Bull Int Stat Inst 1987;52:5-21.
    .. [2] Eckstein K, et al. Magn Reson Med 2018;79:2996-3006. doi:10.1002/mrm.26963

    Examples
    --------
    >>> from qsmflow.units import radians_per_ppm
    >>> te, truth = np.array([0.004, 0.009, 0.013]), np.linspace(-0.3, 0.3, 8).reshape(2, 2, 2, 1)
    >>> phase = radians_per_ppm(te, 128.0) * truth
    >>> fit = sequential(phase, None, np.ones((2, 2, 2), bool), (1, 1, 1), te=te, f0=128.0)
    >>> bool(np.allclose(fit.total_field, truth[..., 0], atol=1e-5))
    True
    """
    check_positive(sigma=sigma)
    check_count(0, alternations=alternations)
    data = Samples(unwrapped_phase, magnitude, mask, voxel_size, te, f0)
    if not len(data.voxels):
        return empty_map(data)
    if data.k.size == 1:
        return single_echo(data)
    field, information, residual, offset, _ = solve(data, sigma, alternations)
    return field_map(data, field, 1 / np.sqrt(information), residual, offset)


def solve(data, sigma, alternations):
    """Alternate between field and offset.

    Parameters
    ----------
    data : Samples
        Two echoes or more.
    sigma, alternations
        As of :func:`sequential`.

    Returns
    -------
    field, information, residual, offset : ndarray of float32, shape (N,)
        In ppm, 1/ppm^2, 1 and rad.
    noise : float
        Noise, in units of the magnitude.
    """
    lists = data.phase, data.magnitude, data.k.astype(np.float32)
    count = len(data.voxels)
    offset = np.zeros(count, np.float32)
    noise, tolerance = 0.05, _UNKNOWN_OFFSET if alternations else SYSTEMATIC
    smooth = MaskedSmoother(data.voxels, data.voxel_size, sigma)
    intercept, trust = np.empty(count, np.float32), np.empty(count, np.float32)
    for _ in range(int(alternations)):
        ops.use_threads()
        level = np.float32(noise), np.float32(tolerance**2)
        _intercepts(*lists, offset, *level, data.valid, intercept, trust)
        noise = _noise_of(data, offset, *level)
        offset += smooth(intercept, trust)
        tolerance = SYSTEMATIC
    slack = np.float32(SYSTEMATIC**2)
    if not alternations:
        noise = _noise_of(data, offset, np.float32(noise), slack)
    columns = [np.empty(count, np.float32) for _ in range(3)]
    ops.use_threads()
    _fields(*lists, offset, np.float32(noise), slack, *columns)
    return *columns, offset, noise


def _noise_of(data, offset, noise, slack):
    """Return the noise in the residuals of the fit, from a sample of the voxels."""
    phase, magnitude = data.some()
    scaled = np.full(phase.shape, np.nan, np.float32)
    some = np.ascontiguousarray(offset[:: data.stride])
    _residuals(phase, magnitude, data.k.astype(np.float32), some, noise, slack, scaled)
    return noise_level(scaled)


@njit(cache=True, error_model='numpy', inline='always')
def _misfit(phase, offset, k, field):
    e = phase - offset - k * field
    return e - _TURN * np.rint(e / _TURN)


@njit(cache=True, error_model='numpy', inline='always')
def _fit_block(phase, magnitude, k, offset, noise, slack, at, n, field, info, normal, weight):
    """Fit ``n`` voxels from ``at`` on; ``slack`` is the variance (rad^2) granted to each echo.

    ``info`` is the sum of the squared k with the weights of the echoes, ``normal`` the inverse
    variance of the field.
    """
    variance = noise * noise
    floor = np.float32(0.05) * variance
    k2 = k[0] * k[0]
    for i in range(n):
        m = magnitude[0, at + i]
        w = max(m * m, variance / np.float32(4)) / variance
        weight[0, i] = w
        field[i] = (phase[0, at + i] - offset[at + i]) / k[0]
        info[i] = w * k2
        normal[i] = w * k2
    for j in range(1, k.size):
        k2 = k[j] * k[j]
        for i in range(n):
            m = magnitude[j, at + i]
            e = _misfit(phase[j, at + i], offset[at + i], k[j], field[i])
            w = max(m * m - variance, floor) / variance if m > _ZERO else _ZERO
            # The variance of e is 1 / w + k2 / info + slack; free of a division by w.
            both = w * info[i]
            spread = info[i] + k2 * w + slack * both
            root = _ONE + e * e * both / (CUTOFF * CUTOFF * spread)
            a = _ONE / (root * root)
            weight[j, i] = a * w
            info[i] += a * w * k2
            field[i] += a * w * k[j] * e / info[i]
            normal[i] += min(_ONE, a / NORMAL_FACTOR) * w * k2


@njit(cache=True, parallel=True, error_model='numpy')
def _intercepts(phase, magnitude, k, offset, noise, slack, valid, intercept, trust):
    """Find the intercepts of lines through the residuals, and how far to trust each."""
    n_echoes, count = phase.shape
    for block in prange((count + _BLOCK - 1) // _BLOCK):
        at = block * _BLOCK
        n = min(_BLOCK, count - at)
        work = np.empty((7, _BLOCK), np.float32)
        weight = np.empty((n_echoes, _BLOCK), np.float32)
        field, info, normal, total, centre, mean, slope = work
        _fit_block(phase, magnitude, k, offset, noise, slack, at, n, field, info, normal, weight)
        for i in range(n):
            total[i] = _ZERO
            centre[i] = _ZERO
            mean[i] = _ZERO
            slope[i] = _ZERO
            normal[i] = _ZERO
        for j in range(n_echoes):
            for i in range(n):
                w = weight[j, i]
                total[i] += w
                centre[i] += w * k[j]
                mean[i] += w * _misfit(phase[j, at + i], offset[at + i], k[j], field[i])
        for i in range(n):
            centre[i] /= total[i]
            mean[i] /= total[i]
        for j in range(n_echoes):
            for i in range(n):
                # About the centre, so that near echo times do not cancel in float32.
                away = k[j] - centre[i]
                normal[i] += weight[j, i] * away * away
                e = _misfit(phase[j, at + i], offset[at + i], k[j], field[i])
                slope[i] += weight[j, i] * away * e
        for i in range(n):
            usable = normal[i] > np.float32(1e-6) * info[i]
            found = mean[i] - centre[i] * slope[i] / normal[i] if usable else _ZERO
            # Far intercepts come from a wrongly unwrapped first echo: they tell nothing.
            far = _ONE + found * found
            precision = total[i] * normal[i] / info[i] / (far * far)
            intercept[at + i] = found
            trust[at + i] = precision if usable and valid[at + i] else _ZERO


@njit(cache=True, parallel=True, error_model='numpy')
def _fields(phase, magnitude, k, offset, noise, slack, out, info, residual):
    """Fit all voxels; ``info`` is the inverse variance of the field."""
    n_echoes, count = phase.shape
    for block in prange((count + _BLOCK - 1) // _BLOCK):
        at = block * _BLOCK
        n = min(_BLOCK, count - at)
        work = np.empty((5, _BLOCK), np.float32)
        weight = np.empty((n_echoes, _BLOCK), np.float32)
        field, sums, normal, misfit, total = work
        _fit_block(phase, magnitude, k, offset, noise, slack, at, n, field, sums, normal, weight)
        for i in range(n):
            misfit[i] = _ZERO
            total[i] = _ZERO
        for j in range(n_echoes):
            for i in range(n):
                m = magnitude[j, at + i]
                e = _misfit(phase[j, at + i], offset[at + i], k[j], field[i])
                misfit[i] += m * chord(e)
                total[i] += m
        for i in range(n):
            out[at + i] = field[i]
            info[at + i] = normal[i]
            residual[at + i] = min(misfit[i] / total[i], _ONE) if total[i] > _ZERO else _ONE


@njit(cache=True, inline='always')
def chord(angle):
    """Return ``2 |sin(angle / 2)|`` for an angle in [-pi, pi], to 1e-7, without a branch."""
    half = abs(angle) / _TWO
    x = half * half
    series = np.float32(-2.5052108e-8)
    series = series * x + np.float32(2.7557319e-6)
    series = series * x + np.float32(-1.9841270e-4)
    series = series * x + np.float32(8.3333333e-3)
    series = series * x + np.float32(-1.6666667e-1)
    return _TWO * half * (_ONE + x * series)


@njit(cache=True, error_model='numpy')
def _residuals(phase, magnitude, k, offset, noise, slack, scaled):
    """Find residuals times magnitude, divided by what the fit leaves of them."""
    n_echoes, count = phase.shape
    work = np.empty((3, _BLOCK), np.float32)
    weight = np.empty((n_echoes, _BLOCK), np.float32)
    field, info, normal = work
    for at in range(0, count, _BLOCK):
        n = min(_BLOCK, count - at)
        _fit_block(phase, magnitude, k, offset, noise, slack, at, n, field, info, normal, weight)
        for j in range(n_echoes):
            for i in range(n):
                m = magnitude[j, at + i]
                left = _ONE - weight[j, i] * k[j] * k[j] / info[i]
                if m > _ZERO and left > np.float32(0.1):
                    e = _misfit(phase[j, at + i], offset[at + i], k[j], field[i])
                    scaled[j, at + i] = m * e / np.sqrt(left)
