"""Fits of a line, field and phase offset, to each voxel: linear, or on the complex circle."""

import numpy as np

from qsmflow.algorithms import operators as ops
from qsmflow.algorithms._checks import check_count
from qsmflow.algorithms._jit import njit, prange
from qsmflow.algorithms.field._samples import (
    Samples,
    empty_map,
    field_map,
    noise_in_space,
    noise_level,
    single_echo,
)


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
        As of :func:`qsmflow.algorithms.field.sequential.sequential`.

    Raises
    ------
    ValueError
        If shapes, echo times, ``voxel_size`` or ``f0`` are not valid.

    References
    ----------
    .. [1] Kressler B, et al. IEEE Trans Med Imaging 2010;29:273-281.
       doi:10.1109/TMI.2009.2023787

    Examples
    --------
    >>> from qsmflow.units import radians_per_ppm
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
        As of :func:`qsmflow.algorithms.field.sequential.sequential`.

    Raises
    ------
    ValueError
        If shapes, echo times, ``voxel_size``, ``f0`` or ``max_iter`` are not valid.

    References
    ----------
    .. [1] Liu T, et al. Magn Reson Med 2013;69:467-476. doi:10.1002/mrm.24272

    Examples
    --------
    >>> from qsmflow.units import radians_per_ppm
    >>> te = np.array([0.004, 0.009, 0.013])
    >>> phase = radians_per_ppm(te, 128.0) * np.full((2, 2, 2, 1), 0.2)
    >>> fit = nonlinear(phase, None, np.ones((2, 2, 2), bool), (1, 1, 1), te=te, f0=128.0)
    >>> round(float(fit.total_field.mean()), 4)
    0.2
    """
    check_count(max_iter=max_iter)
    return _fit_lines(
        unwrapped_phase, magnitude, mask, voxel_size, te, f0, fit_offset, int(max_iter), tol
    )


def _fit_lines(unwrapped_phase, magnitude, mask, voxel_size, te, f0, fit_offset, max_iter, tol):
    data = Samples(unwrapped_phase, magnitude, mask, voxel_size, te, f0)
    count, stride = len(data.voxels), data.stride
    if not count:
        return empty_map(data)
    if data.k.size == 1:
        return single_echo(data)
    columns = [np.empty(count, np.float32) for _ in range(4)]
    scaled = np.full((data.k.size, -(-count // stride)), np.nan, np.float32)
    ops.use_threads()
    _line_kernel(
        data.phase, data.magnitude, data.k, bool(fit_offset), max_iter, tol, stride, *columns,
        scaled,
    )  # fmt: skip
    field, offset, information, residual = columns
    free = data.k.size > 1 + bool(fit_offset)
    noise = noise_level(scaled) if free else noise_in_space(data)
    deviation = noise / np.sqrt(np.maximum(information, 1e-20))
    return field_map(data, field, deviation, residual, offset)


@njit(cache=True, parallel=True, error_model='numpy')
def _line_kernel(
    phase, magnitude, k, fit_offset, max_iter, tol, stride, field, offset, info, residual, scaled
):
    """Fit a line to each voxel, then refine it on the circle with up to ``max_iter`` steps.

    ``scaled`` takes the residuals of every ``stride``-th voxel.
    """
    n = k.size
    for v in prange(phase.shape[1]):
        a11 = a12 = a22 = total = 0.0
        for j in range(n):
            w = magnitude[j, v] * magnitude[j, v]
            a11 += w
            a12 += w * k[j]
            a22 += w * k[j] * k[j]
            total += magnitude[j, v]
        determinant = a11 * a22 - a12 * a12
        # With signal in a single echo an intercept cannot be told from the field.
        both = fit_offset and determinant > 1e-9 * a11 * a22
        f = p = 0.0
        for iteration in range(max_iter + 1):
            b1 = b2 = 0.0
            for j in range(n):
                e = phase[j, v] - p - k[j] * f
                e = np.sin(e) if iteration > 0 else e
                w = magnitude[j, v] * magnitude[j, v]
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
            m = magnitude[j, v]
            e = phase[j, v] - p - k[j] * f
            misfit += m * 2 * abs(np.sin(e / 2))
            if both:
                share = a22 - 2 * a12 * k[j] + a11 * k[j] * k[j]
                left = 1 - m * m * share / determinant
            else:
                left = 1 - m * m * k[j] * k[j] / a22 if a22 > 0 else 0.0
            if m > 0 and left > 0.1 and v % stride == 0:
                scaled[j, v // stride] = m * e / np.sqrt(left)
        residual[v] = min(misfit / total, 1.0) if total > 0 else 1.0
