"""The field as a weighted mean of phase over echo time."""

import numpy as np

from qsmflow.algorithms import operators as ops
from qsmflow.algorithms._jit import njit, prange
from qsmflow.algorithms.field._samples import (
    Samples,
    empty_map,
    field_map,
    noise_level,
    single_echo,
)

#: Weights by name: the powers of magnitude and of echo time.
WEIGHTINGS = {
    'phase_var': (2, 2),
    'phase_snr': (1, 1),
    'average': (0, 0),
    'te': (0, 1),
    'magnitude': (1, 0),
}


def averaged(unwrapped_phase, magnitude, mask, voxel_size, *, te, f0, weighting='phase_var'):
    r"""Average phase over echo time, with weights.

    .. math:: f = \frac{\sum_j w_j \varphi_j / k_j}{\sum_j w_j}

    with the phase of 1 ppm, :math:`k_j = 2\pi f_0\, TE_j`. The phase offset must have been
    removed, and every echo unwrapped: 2 pi too much in one echo pulls the field.

    Parameters
    ----------
    unwrapped_phase : ndarray of float, shape (X, Y, Z, E)
        Unwrapped phase without offset, in rad.
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
    weighting : str, optional
        Weights :math:`w_j` for magnitude :math:`m_j`. ``'phase_var'``: :math:`m_j^2 TE_j^2`, the
        inverse variance, as the phase has the variance :math:`\sigma^2/m_j^2`; ``'phase_snr'``:
        :math:`m_j TE_j`, ROMEO's default [1]_; ``'average'``: 1; ``'te'``: :math:`TE_j`;
        ``'magnitude'``: :math:`m_j`. Echoes without signal never count.

    Returns
    -------
    FieldMap
        As of :func:`qsmflow.algorithms.field.sequential.sequential`; ``phase_offset`` is zero.

    Raises
    ------
    ValueError
        If shapes, echo times, ``voxel_size`` or ``f0`` are not valid, or there is no such
        ``weighting``.

    References
    ----------
    .. [1] Dymerska B, et al. Magn Reson Med 2021;85:2294-2308. doi:10.1002/mrm.28563

    Examples
    --------
    >>> from qsmflow.units import radians_per_ppm
    >>> te = np.array([0.004, 0.009, 0.013])
    >>> phase = radians_per_ppm(te, 128.0) * np.full((2, 2, 2, 1), 0.2)
    >>> fit = averaged(phase, None, np.ones((2, 2, 2), bool), (1, 1, 1), te=te, f0=128.0)
    >>> round(float(fit.total_field.mean()), 4)
    0.2
    """
    if weighting not in WEIGHTINGS:
        raise ValueError(f'weighting must be one of {", ".join(WEIGHTINGS)}; got {weighting!r}.')
    data = Samples(unwrapped_phase, magnitude, mask, voxel_size, te, f0)
    if not len(data.voxels):
        return empty_map(data)
    if data.k.size == 1:
        return single_echo(data)
    power, time_power = WEIGHTINGS[weighting]
    columns = [np.empty(len(data.voxels), np.float32) for _ in range(3)]
    stride = data.stride
    scaled = np.full((data.k.size, -(-len(data.voxels) // stride)), np.nan, np.float32)
    ops.use_threads()
    _average(
        data.phase, data.magnitude, data.k, power, data.k**time_power, stride, *columns, scaled
    )
    field, spread, residual = columns
    deviation = noise_level(scaled) * spread
    return field_map(data, field, deviation, residual, np.zeros_like(field))


@njit(cache=True, parallel=True, error_model='numpy')
def _average(phase, magnitude, k, power, factor, stride, field, spread, residual, scaled):
    """Average; ``spread`` is the deviation of the field for a noise of 1.

    ``scaled`` takes the residuals of every ``stride``-th voxel, times magnitude, divided by what
    the mean leaves of them.
    """
    n = k.size
    for v in prange(field.size):
        total = f = square = signal = misfit = 0.0
        for j in range(n):
            m = magnitude[j, v]
            if m > 0:
                w = m**power * factor[j]
                total += w
                f += w * phase[j, v] / k[j]
                square += (w / (k[j] * m)) ** 2
                signal += m
        f = f / total if total > 0 else 0.0
        square = square / (total * total) if total > 0 else 1e20
        for j in range(n):
            m = magnitude[j, v]
            if m <= 0:
                continue
            e = phase[j, v] - k[j] * f
            misfit += m * 2 * abs(np.sin(e / 2))
            if v % stride == 0:
                share = m**power * factor[j] / total
                left = 1 - 2 * share + (m * k[j]) ** 2 * square
                if left > 0.1:
                    scaled[j, v // stride] = m * e / np.sqrt(left)
        field[v] = f
        spread[v] = np.sqrt(square)
        residual[v] = min(misfit / signal, 1.0) if signal > 0 else 1.0
