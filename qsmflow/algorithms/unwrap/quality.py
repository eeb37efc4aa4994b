"""Maps of how well phase can be unwrapped, voxel by voxel."""

import numpy as np

from ._costs import WORST, check_edge_weights, second_differences
from ._echoes import check_echo, check_echoes
from ._grid import Box
from ._growing import mean_costs
from .path_following import edges_of_echo

#: Largest reliability that is told apart, in 1/rad; below this lies the rounding of float32.
LARGEST_RELIABILITY = 1e4


def quality_map(phase, magnitude, mask, te, *, template=0, edge_weights='romeo'):
    """Return how well each voxel's phase agrees with that of its neighbours.

    The quality is the mean weight of the edges to the up to six neighbours inside the mask, with
    the weights of :func:`~qsmflow.algorithms.unwrap.romeo` [1]_.

    Parameters
    ----------
    phase : ndarray of float, shape (X, Y, Z, E)
        Wrapped phase, in rad.
    magnitude : ndarray of float, shape (X, Y, Z, E), or None
        Magnitude, in arbitrary units.
    mask : ndarray of bool, shape (X, Y, Z)
        Region of interest.
    te : sequence of float, shape (E,)
        Echo times, in s, increasing.
    template : int, optional
        Index of the echo that is looked at, together with the next one.
    edge_weights : str, optional
        As in ``romeo``.

    Returns
    -------
    ndarray of float32, shape (X, Y, Z)
        Quality in [0, 1]; 0 outside ``mask`` and for voxels without a neighbour.

    Raises
    ------
    ValueError
        If shapes or echo times are not consistent, there is no echo ``template``, or
        ``edge_weights`` is unknown.

    References
    ----------
    .. [1] Dymerska B, et al. Magn Reson Med 2021;85:2294-2308. doi:10.1002/mrm.28563

    Examples
    --------
    >>> smooth = np.zeros((4, 4, 4, 1))
    >>> quality = quality_map(smooth, None, np.ones((4, 4, 4), bool), te=[0.01])
    >>> round(float(quality.mean()), 1)
    1.0
    """
    te = check_echoes(phase, magnitude, mask, te)
    check_edge_weights(edge_weights)
    check_echo(template, te.size)
    mask = np.asarray(mask, bool)
    out = np.zeros(mask.shape, np.float32)
    if mask.any():
        box = Box(mask)
        _, _, edges = edges_of_echo(box, phase, magnitude, te, edge_weights, template)
        cost = mean_costs(edges, *box.strides[:2], box.shape[0])
        box.fill(1 - cost / np.float32(WORST), out)
    return out


def second_difference_reliability(phase, mask, *, echo=0):
    r"""Return the reliability of each voxel by the second differences of its phase.

    .. math:: R = \Bigl( \sum_{d=1}^{13} \bigl( W(\varphi_{-d} - \varphi_0)
                        - W(\varphi_0 - \varphi_{+d}) \bigr)^2 \Bigr)^{-1/2}

    over the 13 lines through a voxel and two of its 26 neighbours [1]_. Small where noise,
    or an edge of susceptibility, bends the phase.

    Parameters
    ----------
    phase : ndarray of float, shape (X, Y, Z, E)
        Wrapped phase, in rad.
    mask : ndarray of bool, shape (X, Y, Z)
        Region of interest. Lines that leave it are replaced by the mean of the others.
    echo : int, optional
        Index of the echo.

    Returns
    -------
    ndarray of float32, shape (X, Y, Z)
        Reliability, in 1/rad, at most ``LARGEST_RELIABILITY``; 0 outside ``mask`` and for voxels
        without a line inside it.

    Raises
    ------
    ValueError
        If shapes are not consistent, or there is no such echo.

    References
    ----------
    .. [1] Abdul-Rahman HS, et al. Appl Opt 2007;46:6623-6635. doi:10.1364/AO.46.006623

    Examples
    --------
    >>> ramp = np.arange(5.0)[:, None, None, None] * np.ones((5, 5, 5, 1))
    >>> ramp[2, 2, 2] += 0.5
    >>> reliability = second_difference_reliability(ramp, np.ones((5, 5, 5), bool))
    >>> round(float(reliability[2, 2, 2]), 3)  # 1 / sqrt(13 (2 0.5)^2)
    0.277
    """
    check_echoes(phase, None, mask, np.arange(1.0, np.shape(phase)[-1] + 1))
    check_echo(echo, phase.shape[3], 'echo')
    mask = np.asarray(mask, bool)
    out = np.zeros(mask.shape, np.float32)
    if mask.any():
        box = Box(mask)
        bend = np.full(box.size, np.nan, np.float32)
        second_differences(box.phase(phase, echo), box.shape[0], *box.strides[:2], bend)
        reliability = 1 / np.maximum(bend, np.float32(1 / LARGEST_RELIABILITY))
        box.fill(np.nan_to_num(reliability, nan=0), out)
    return out
