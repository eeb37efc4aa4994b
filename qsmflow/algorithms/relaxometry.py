"""Effective transverse relaxation from the decay of the magnitude over the echoes.

The model is one exponential, :math:`m_j = S_0 e^{-R_2^* TE_j}`. Both methods leave out the echoes
of a voxel from the first that sinks into the noise floor on, because the floor flattens the decay.
"""

from dataclasses import dataclass

import numpy as np

#: Largest R2* that is reported, in 1/s.
R2STAR_MAX = 1000.0
#: A slower decay, in 1/s, cannot be told from none within the echo times of a scan: water itself
#: decays about as slowly, and the inverse of noise about zero would rule any mean of T2*.
R2STAR_SEEN = 0.5

#: Mean of a Rayleigh distribution over its parameter, sqrt(pi/2).
RAYLEIGH_MEAN = float(np.sqrt(np.pi / 2))

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


def noise_level(magnitude: np.ndarray) -> float:
    """Estimate the noise from the air in the corners of the volume.

    The corners of the last echo hold air alone in most head scans. Their magnitude then follows
    the Rayleigh distribution, whose mean is 1.2533 and whose standard deviation is 0.655 times
    the noise. Corners that are empty (a masked image) or that do not have that ratio (tissue, or
    many combined coils) say nothing about the noise and are left out.

    Parameters
    ----------
    magnitude : ndarray of float, shape (X, Y, Z, E)
        Magnitude, in arbitrary units.

    Returns
    -------
    float
        Standard deviation of the noise of one channel, in units of the magnitude; 0 when no
        corner shows it.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> air = np.abs(rng.normal(size=(24, 24, 24, 1)) + 1j * rng.normal(size=(24, 24, 24, 1)))
    >>> round(noise_level(air), 1)
    1.0
    """
    last = magnitude[..., -1]
    edges = [max(2, min(8, n // 4)) for n in last.shape]
    sides = [(slice(0, e), slice(-e, None)) for e in edges]
    estimates = []
    for block in ((x, y, z) for x in sides[0] for y in sides[1] for z in sides[2]):
        values = np.asarray(last[block], np.float64)
        values = values[np.isfinite(values) & (values > 0)]
        spread = values.std() if values.size >= 8 else 0.0
        if spread > 0 and 1.6 < values.mean() / spread < 2.3:
            estimates.append(values.mean() / RAYLEIGH_MEAN)
    return float(np.median(estimates)) if len(estimates) >= 2 else 0.0


def arlo(magnitude, mask, voxel_size, *, te, noise=None) -> Relaxation:
    r"""Fit the decay by auto-regression on linear operations (ARLO).

    With :math:`S_i` the integral of the signal over three echoes by Simpson's rule and
    :math:`\delta_i = m_i - m_{i+2}`, the exponential obeys :math:`R_2^* S_i = \delta_i`, and

    .. math:: R_2^* = \frac{\tau/3 \sum \delta_i^2 + \sum S_i \delta_i}
                           {\sum S_i^2 + \tau/3 \sum S_i \delta_i},

    for echo spacing :math:`\tau` [1]_. Voxels with fewer than three echoes above the noise floor
    are fitted with :func:`loglinear`.

    Parameters
    ----------
    magnitude : ndarray of float, shape (X, Y, Z, E)
        Magnitude of three or more echoes, in arbitrary units; it is not modified. Values that are
        not finite count as zero.
    mask : ndarray of bool, shape (X, Y, Z)
        Region to fit.
    voxel_size : tuple of float
        Voxel edge lengths, in mm; not used.
    te : array_like of float, shape (E,)
        Echo times, in s, equally spaced.
    noise : float, optional
        Noise of one channel, in units of the magnitude. By default it is estimated by
        :func:`noise_level`; 0 keeps all echoes.

    Returns
    -------
    Relaxation
        ``r2star`` in 1/s, ``t2star`` in s and ``s0``; zero outside ``mask``.

    Raises
    ------
    ValueError
        If there are fewer than three echoes or their spacing is not uniform.

    Notes
    -----
    Simpson's rule is exact up to the third order, which makes the rate slightly low where the
    decay within three echoes is steep: at 5 ms spacing by 0.2 % for 160 1/s and 2.2 % for 300 1/s.

    References
    ----------
    .. [1] Pei M, et al. Magn Reson Med 2015;73:843-850. doi:10.1002/mrm.25137

    Examples
    --------
    >>> te = np.array([0.005, 0.010, 0.015, 0.020])
    >>> decay = np.exp(-40 * te) * np.ones((4, 4, 4, 1))
    >>> round(float(arlo(decay, np.ones((4, 4, 4), bool), (1, 1, 1), te=te).r2star[0, 0, 0]), 1)
    40.0
    """
    te = _check(magnitude, mask, te)
    if te.size < 3 or not uniform_spacing(te):
        raise ValueError(
            'arlo needs three or more equally spaced echoes; got echo times '
            f'{[round(1e3 * t, 3) for t in te.tolist()]} ms. Use loglinear instead.'
        )
    signal, usable = _usable_signal(magnitude, mask, noise)
    third = float(np.mean(np.diff(te))) / 3
    both = usable[:, 2:]  # usable falls once and for all, so the third echo vouches for all three
    area = third * (signal[:, :-2] + 4 * signal[:, 1:-1] + signal[:, 2:]) * both
    drop = (signal[:, :-2] - signal[:, 2:]) * both
    cross = np.einsum('ne,ne->n', area, drop)
    above = third * np.einsum('ne,ne->n', drop, drop) + cross
    below = np.einsum('ne,ne->n', area, area) + third * cross
    rate = np.divide(above, below, out=np.zeros_like(above), where=below > 0)
    few = ~both[:, 0]
    rate[few] = _weighted_line(signal[few], usable[few], te)
    return _relaxation(rate, signal, usable, te, mask)


def loglinear(magnitude, mask, voxel_size, *, te, noise=None) -> Relaxation:
    r"""Fit a weighted straight line to the logarithm of the magnitude.

    .. math:: \min_{a, R_2^*} \sum_j w_j (\ln m_j - a + R_2^* TE_j)^2

    The weights are the squared signal, the inverse variance of its logarithm: first that measured,
    then once more that of the fit, which removes the bias of weights that carry the noise.

    Parameters
    ----------
    magnitude : ndarray of float, shape (X, Y, Z, E)
        Magnitude of two or more echoes, in arbitrary units; it is not modified. Values that are
        not finite count as zero.
    mask : ndarray of bool, shape (X, Y, Z)
        Region to fit.
    voxel_size : tuple of float
        Voxel edge lengths, in mm; not used.
    te : array_like of float, shape (E,)
        Echo times, in s, increasing; any spacing.
    noise : float, optional
        Noise of one channel, in units of the magnitude. By default it is estimated by
        :func:`noise_level`; 0 keeps all echoes.

    Returns
    -------
    Relaxation
        ``r2star`` in 1/s, ``t2star`` in s and ``s0``; zero outside ``mask``.

    Raises
    ------
    ValueError
        If there are fewer than two echoes.

    Notes
    -----
    Source: textbook least squares weighted by the inverse variance.

    Examples
    --------
    >>> te = np.array([0.004, 0.012, 0.028])
    >>> decay = np.exp(-25 * te) * np.ones((4, 4, 4, 1))
    >>> fit = loglinear(decay, np.ones((4, 4, 4), bool), (1, 1, 1), te=te)
    >>> round(float(fit.r2star[0, 0, 0]), 2)
    25.0
    """
    te = _check(magnitude, mask, te)
    signal, usable = _usable_signal(magnitude, mask, noise)
    rate = _weighted_line(signal, usable, te)
    return _relaxation(rate, signal, usable, te, mask)


def _check(magnitude, mask, te):
    te = np.asarray(te, np.float64)
    if np.ndim(magnitude) != 4 or magnitude.shape[-1] != te.size:
        raise ValueError(
            f'magnitude must have shape (X, Y, Z, {te.size}), one volume for each echo time; '
            f'got {np.shape(magnitude)}.'
        )
    if mask.shape != magnitude.shape[:3]:
        raise ValueError(f'mask has shape {mask.shape}, magnitude {magnitude.shape[:3]}.')
    if te.size < 2 or np.any(np.diff(te) <= 0):
        raise ValueError(
            'R2* needs two or more echo times in increasing order; '
            f'got {[round(1e3 * t, 3) for t in te.tolist()]} ms.'
        )
    return te


def _usable_signal(magnitude, mask, noise):
    """Return the signal (N, E) in the mask and which echoes of it lie above the noise floor."""
    signal = np.asarray(magnitude)[np.asarray(mask, bool)].astype(np.float64)
    signal[~np.isfinite(signal) | (signal < 0)] = 0
    sigma = noise_level(magnitude) if noise is None else float(noise)
    usable = signal > 3 * RAYLEIGH_MEAN * sigma
    usable = np.logical_and.accumulate(usable, axis=1)
    usable[:, :2] = True  # a decay too fast to see still has a lower bound, from two echoes
    return signal, usable


def _weighted_line(signal, usable, te):
    """Return the decay rate (N,) of a weighted line through the logarithms."""
    tiny = np.finfo(np.float32).tiny
    logs = np.log(np.maximum(signal, tiny))
    rate = np.zeros(len(signal))
    weights = signal * signal * usable
    for _ in range(2):
        total = weights.sum(1)
        total[total <= 0] = 1
        centre = (weights @ te) / total
        level = np.einsum('ne,ne->n', weights, logs) / total
        away = te[None, :] - centre[:, None]
        square = np.einsum('ne,ne,ne->n', weights, away, away)
        cross = np.einsum('ne,ne,ne->n', weights, away, logs)
        rate = np.divide(-cross, square, out=np.zeros(len(signal)), where=square > 0)
        fitted = level[:, None] - rate[:, None] * away
        relative = np.clip(fitted - fitted.max(1, initial=-np.inf, keepdims=True), -40, 0)
        weights = np.exp(2 * relative) * usable * (signal > 0)
    return rate


def _relaxation(rate, signal, usable, te, mask):
    rate = np.clip(np.nan_to_num(rate), 0, R2STAR_MAX)
    decay = np.exp(-rate[:, None] * te) * usable
    square = np.einsum('ne,ne->n', decay, decay)
    amplitude = np.einsum('ne,ne->n', decay, signal) / np.maximum(square, 1e-300)
    empty = ~np.any(signal > 0, axis=1)
    rate[empty] = 0
    amplitude[empty] = 0
    inverse = np.divide(1.0, rate, out=np.zeros_like(rate), where=rate >= R2STAR_SEEN)
    return Relaxation(*(_fill(values, mask) for values in (rate, inverse, amplitude)))


def _fill(values, mask):
    volume = np.zeros(mask.shape, np.float32)
    volume[np.asarray(mask, bool)] = values
    return volume
