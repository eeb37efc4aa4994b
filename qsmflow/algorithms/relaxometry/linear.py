"""Fits of the decay without iterations: ARLO, the trapezoid rule, and a weighted line."""

from . import _kernels
from ._model import Decay, Relaxation, in_ms, uniform_spacing


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
        :func:`~qsmflow.algorithms.relaxometry.noise_level`; 0 keeps all echoes.

    Returns
    -------
    Relaxation
        ``r2star`` in 1/s, ``t2star`` in s and ``s0``; zero outside ``mask``.

    Raises
    ------
    ValueError
        If there are fewer than three echoes, their spacing is not uniform, or the arguments are
        not valid otherwise.

    Notes
    -----
    Simpson's rule is exact up to the third order, which makes the rate slightly low where the
    decay within three echoes is steep: at 5 ms spacing by 0.2 % for 160 1/s and 2.2 % for 300 1/s.

    References
    ----------
    .. [1] Pei M, et al. Magn Reson Med 2015;73:843-850. doi:10.1002/mrm.25137

    Examples
    --------
    >>> import numpy as np
    >>> te = np.array([0.005, 0.010, 0.015, 0.020])
    >>> decay = np.exp(-40 * te) * np.ones((4, 4, 4, 1))
    >>> round(float(arlo(decay, np.ones((4, 4, 4), bool), (1, 1, 1), te=te).r2star[0, 0, 0]), 1)
    40.0
    """
    decay = Decay(magnitude, mask, voxel_size, te, noise)
    if decay.te.size < 3 or not uniform_spacing(decay.te):
        raise ValueError(
            'arlo needs three or more equally spaced echoes; got echo times '
            f'{in_ms(decay.te)} ms. Use loglinear instead.'
        )
    _kernels.linear(*decay.images, decay.te, decay.floor, _kernels.ARLO, *decay.maps)
    return Relaxation(*decay.maps)


def numart2s(magnitude, mask, voxel_size, *, te, noise=None) -> Relaxation:
    r"""Fit the decay by the ratio of its drop to its integral (NumART2*).

    An exponential falls from the first to the last echo by :math:`R_2^*` times the area below it.
    With the trapezoid rule for the area [1]_,

    .. math:: R_2^* = \frac{m_1 - m_n}
                     {\sum_{j=1}^{n-1} \tfrac12 (TE_{j+1} - TE_j)(m_j + m_{j+1})},

    which for equal spacing :math:`\tau` is the published
    :math:`T_2^* = \frac{\tau}{2} (m_1 + m_n + 2 \sum_{j=2}^{n-1} m_j) / (m_1 - m_n)`.

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
        :func:`~qsmflow.algorithms.relaxometry.noise_level`; 0 keeps all echoes.

    Returns
    -------
    Relaxation
        ``r2star`` in 1/s, ``t2star`` in s and ``s0``; zero outside ``mask``.

    Raises
    ------
    ValueError
        If there are fewer than two echoes, or the arguments are not valid otherwise.

    Notes
    -----
    The trapezoid lies above the exponential, so that the rate comes out low: each interval
    :math:`h` gives :math:`(2/h) \tanh(R_2^* h / 2)` instead of :math:`R_2^*`, and the whole their
    mean, weighted by area. At 5 ms spacing 80 1/s becomes 78.95 and 300 1/s becomes 254. The
    quickest fit there is, but :func:`arlo` is nearer to the truth at the same cost.

    References
    ----------
    .. [1] Hagberg GE, et al. Magn Reson Med 2002;48:877-882. doi:10.1002/mrm.10283

    Examples
    --------
    >>> import numpy as np
    >>> te = np.array([0.005, 0.010, 0.020])
    >>> decay = np.exp(-20 * te) * np.ones((4, 4, 4, 1))
    >>> fit = numart2s(decay, np.ones((4, 4, 4), bool), (1, 1, 1), te=te)
    >>> round(float(fit.r2star[0, 0, 0]), 1)
    20.0
    """
    decay = Decay(magnitude, mask, voxel_size, te, noise)
    _kernels.linear(*decay.images, decay.te, decay.floor, _kernels.TRAPEZOID, *decay.maps)
    return Relaxation(*decay.maps)


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
        :func:`~qsmflow.algorithms.relaxometry.noise_level`; 0 keeps all echoes.

    Returns
    -------
    Relaxation
        ``r2star`` in 1/s, ``t2star`` in s and ``s0``; zero outside ``mask``.

    Raises
    ------
    ValueError
        If there are fewer than two echoes, or the arguments are not valid otherwise.

    Notes
    -----
    Source: textbook least squares weighted by the inverse variance.

    Examples
    --------
    >>> import numpy as np
    >>> te = np.array([0.004, 0.012, 0.028])
    >>> decay = np.exp(-25 * te) * np.ones((4, 4, 4, 1))
    >>> fit = loglinear(decay, np.ones((4, 4, 4), bool), (1, 1, 1), te=te)
    >>> round(float(fit.r2star[0, 0, 0]), 2)
    25.0
    """
    decay = Decay(magnitude, mask, voxel_size, te, noise)
    _kernels.linear(*decay.images, decay.te, decay.floor, _kernels.LINE, *decay.maps)
    return Relaxation(*decay.maps)
