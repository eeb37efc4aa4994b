"""The sequential fit, refined by robust Gauss-Newton steps on the complex signal."""

import math

import numpy as np

from qsmflow.algorithms import operators as ops
from qsmflow.algorithms._checks import check_count, check_positive
from qsmflow.algorithms._jit import njit, prange
from qsmflow.algorithms.field._samples import Samples, empty_map, field_map, single_echo
from qsmflow.algorithms.field.sequential import CUTOFF, NORMAL_FACTOR, SYSTEMATIC, solve

# Times that a step which raises the objective is halved before the voxel is left as it is.
_HALVINGS = 3


def refined(
    unwrapped_phase,
    magnitude,
    mask,
    voxel_size,
    *,
    te,
    f0,
    sigma=4.0,
    alternations=3,
    offset_deviation=0.005,
    max_iter=10,
    tol=1e-4,
):
    r"""Refine the sequential fit by robust Gauss-Newton steps on the complex signal.

    :func:`~qsmflow.algorithms.field.sequential.sequential` takes each echo once, in order. Here
    all echoes are fitted together, from that result as start:

    .. math::
        \min_{f, p} \sum_j w_j\, \frac{c_j^2 d_j}{c_j^2 + d_j} + \frac{p^2}{\sigma_0^2}, \qquad
        d_j = |e^{i\varphi_j} - e^{i(\varphi_0 + p + k_j f)}|^2

    with the inverse variance :math:`w_j` of the phase, the smoothed offset :math:`\varphi_0`, a
    correction :math:`p` of it in each voxel, and :math:`c_j^2 = 2.5^2 (1/w_j + 0.08^2)`, beyond
    which an echo counts for less and less [1]_. Each step solves the two normal equations of the
    linearised signal [2]_; it is halved, up to three times, until the objective falls, and a voxel
    whose objective does not fall keeps what it has. A field that starts wrong by 2 pi therefore
    stays so.

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
    sigma, alternations : float and int, optional
        As of the sequential fit.
    offset_deviation : float, optional
        Standard deviation :math:`\sigma_0` of the smoothed offset, in rad. The larger, the more
        of the noise goes into the field. This package's choice: about what is wrong with it in
        simulated heads.
    max_iter : int, optional
        Largest number of steps.
    tol : float, optional
        The iteration of a voxel ends when a step changes no echo's phase by more than this, in
        rad.

    Returns
    -------
    FieldMap
        As of the sequential fit.

    Raises
    ------
    ValueError
        If shapes, echo times, ``voxel_size``, ``f0`` or another parameter are not valid.

    Notes
    -----
    In simulated heads at 3 T and 7 T the median error is 1 % smaller than that of the sequential
    fit, the largest errors are a few percent larger: late echoes that disagree are judged by a
    field that they took part in. The noise that is stated includes that of the offset.

    References
    ----------
    .. [1] Geman S, McClure DE. Bull Int Stat Inst 1987;52:5-21.
    .. [2] Liu T, et al. Magn Reson Med 2013;69:467-476. doi:10.1002/mrm.24272

    Examples
    --------
    >>> from qsmflow.units import radians_per_ppm
    >>> te, truth = np.array([0.004, 0.009, 0.013]), np.linspace(-0.3, 0.3, 8).reshape(2, 2, 2, 1)
    >>> phase = radians_per_ppm(te, 128.0) * truth
    >>> fit = refined(phase, None, np.ones((2, 2, 2), bool), (1, 1, 1), te=te, f0=128.0)
    >>> bool(np.allclose(fit.total_field, truth[..., 0], atol=1e-5))
    True
    """
    check_positive(sigma=sigma, offset_deviation=offset_deviation, tol=tol)
    check_count(max_iter=max_iter)
    check_count(0, alternations=alternations)
    data = Samples(unwrapped_phase, magnitude, mask, voxel_size, te, f0)
    if not len(data.voxels):
        return empty_map(data)
    if data.k.size == 1:
        return single_echo(data)
    field, information, residual, offset, noise = solve(data, sigma, alternations)
    ops.use_threads()
    _refine(
        data.phase,
        data.magnitude,
        data.k,
        noise * noise,
        1 / offset_deviation**2,
        int(max_iter),
        tol,
        field,
        offset,
        information,
        residual,
    )
    return field_map(data, field, 1 / np.sqrt(information), residual, offset)


@njit(cache=True, inline='always', error_model='numpy')
def _evaluate(phase, magnitude, k, v, variance, prior, field, offset, shift):
    """Return the objective, the sums of the linearised problem, and 1 / variance of the field."""
    total = prior * shift * shift
    a11, a12, a22 = prior, 0.0, 0.0
    b1, b2 = -prior * shift, 0.0
    n11, n12, n22 = prior, 0.0, 0.0
    for j in range(k.size):
        m = magnitude[j, v]
        if m <= 0:
            continue
        w = max(m * m - variance, 0.05 * variance) / variance
        cut = CUTOFF * CUTOFF * (1 / w + SYSTEMATIC * SYSTEMATIC)
        e = phase[j, v] - offset - shift - k[j] * field
        d = 2 - 2 * math.cos(e)
        part = cut / (cut + d)
        total += w * d * part
        a = part * part
        pull = a * w * math.sin(e)
        b1 += pull
        b2 += pull * k[j]
        a11 += a * w
        a12 += a * w * k[j]
        a22 += a * w * k[j] * k[j]
        w *= min(1.0, a / NORMAL_FACTOR)
        n11 += w
        n12 += w * k[j]
        n22 += w * k[j] * k[j]
    return total, a11, a12, a22, b1, b2, n22 - n12 * n12 / n11


@njit(cache=True, parallel=True, error_model='numpy')
def _refine(
    phase, magnitude, k, variance, prior, max_iter, tol, field, offset, information, residual
):
    """Refine field and offset in place; each voxel on its own."""
    last = k[k.size - 1]
    for v in prange(field.size):
        f, start, p = float(field[v]), float(offset[v]), 0.0
        best, a11, a12, a22, b1, b2, info = _evaluate(
            phase, magnitude, k, v, variance, prior, f, start, p
        )
        for _ in range(max_iter):
            determinant = a11 * a22 - a12 * a12
            if not determinant > 1e-9 * a11 * a22:
                break
            df = (a11 * b2 - a12 * b1) / determinant
            dp = (a22 * b1 - a12 * b2) / determinant
            fell = False
            for _ in range(_HALVINGS + 1):
                new, c11, c12, c22, d1, d2, fresh = _evaluate(
                    phase, magnitude, k, v, variance, prior, f + df, start, p + dp
                )
                fell = new < best
                if fell:
                    break
                df *= 0.5
                dp *= 0.5
            if not fell:
                break
            f += df
            p += dp
            best, a11, a12, a22, b1, b2, info = new, c11, c12, c22, d1, d2, fresh
            if abs(dp) + abs(df) * last < tol:
                break
        misfit = total = 0.0
        for j in range(k.size):
            m = magnitude[j, v]
            misfit += m * 2 * abs(math.sin((phase[j, v] - start - p - k[j] * f) / 2))
            total += m
        field[v] = f
        offset[v] = start + p
        information[v] = max(info, 1e-20)
        residual[v] = min(misfit / total, 1.0) if total > 0 else 1.0
