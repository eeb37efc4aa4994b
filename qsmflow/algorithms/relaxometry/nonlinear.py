"""The iterative fit of the decay, which knows of the noise floor."""

from qsmflow.algorithms._checks import check_count, check_positive

from . import _kernels
from ._model import Decay, Relaxation


def nlls(magnitude, mask, voxel_size, *, te, noise=None, max_iter=30, tol=1e-4) -> Relaxation:
    r"""Fit the decay by nonlinear least squares, with the noise floor in the model.

    The mean square of a magnitude with noise :math:`\sigma` is that of the signal plus
    :math:`2\sigma^2` [1]_, at any ratio of signal to noise. All echoes are fitted in the squares,

    .. math:: \min_{S_0, R_2^*} \sum_j w_j \bigl( m_j^2 - 2\sigma^2
                                 - S_0^2 e^{-2 R_2^* TE_j} \bigr)^2, \qquad
              w_j = \frac{1}{S_0^2 e^{-2 R_2^* TE_j} + \sigma^2},

    with weights that are the inverse variance of the square, up to a constant, and follow the fit.
    Their expectation is met by the true parameters, so that no echo need be left out. Without
    noise the fit is that of the magnitude itself,
    :math:`\min \sum_j (m_j - S_0 e^{-R_2^* TE_j})^2`.

    Parameters
    ----------
    magnitude : ndarray of float, shape (X, Y, Z, E)
        Magnitude of two or more echoes, in arbitrary units; it is not modified. Values that are
        not finite are left out, negative ones count as zero.
    mask : ndarray of bool, shape (X, Y, Z)
        Region to fit.
    voxel_size : tuple of float
        Voxel edge lengths, in mm; not used.
    te : array_like of float, shape (E,)
        Echo times, in s, increasing; any spacing.
    noise : float, optional
        Noise :math:`\sigma` of one channel, in units of the magnitude. By default it is estimated
        by :func:`~qsmflow.algorithms.relaxometry.noise_level`; 0 for a fit without floor.
    max_iter : int, optional
        Largest number of Levenberg-Marquardt steps in a voxel; most take three to six.
    tol : float, optional
        A voxel is done when a step changes the signal relatively, and the rate times the span of
        the echo times, by no more than this.

    Returns
    -------
    Relaxation
        ``r2star`` in 1/s, ``t2star`` in s and ``s0``; zero outside ``mask``.

    Raises
    ------
    ValueError
        If there are fewer than two echoes, ``max_iter`` or ``tol`` are not positive, or the
        arguments are not valid otherwise.

    Notes
    -----
    Starts from :func:`~qsmflow.algorithms.relaxometry.loglinear`. The damping of the steps [2]_
    is that of the diagonal, from 1e-3, a tenth after each step that lowers the sum for the weights
    of the moment, ten times larger before another try. The rate is held between 0 and 1000 1/s.

    References
    ----------
    .. [1] Gudbjartsson H, Patz S. Magn Reson Med 1995;34:910-914. doi:10.1002/mrm.1910340618
    .. [2] Marquardt DW. J Soc Ind Appl Math 1963;11:431-441. doi:10.1137/0111030

    Examples
    --------
    >>> import numpy as np
    >>> te = np.array([0.004, 0.012, 0.028])
    >>> floor = np.sqrt(np.exp(-2 * 80 * te) + 2 * 0.1**2) * np.ones((4, 4, 4, 1))
    >>> fit = nlls(floor, np.ones((4, 4, 4), bool), (1, 1, 1), te=te, noise=0.1)
    >>> round(float(fit.r2star[0, 0, 0]), 2)
    80.0
    """
    check_count(max_iter=max_iter)
    check_positive(tol=tol)
    decay = Decay(magnitude, mask, voxel_size, te, noise)
    limits = int(max_iter), float(tol)
    _kernels.nlls(*decay.images, decay.te, decay.floor, decay.noise, limits, *decay.maps)
    return Relaxation(*decay.maps)
