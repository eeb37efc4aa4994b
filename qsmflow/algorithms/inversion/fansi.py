"""Nonlinear dipole inversion with variational regularisation: FANSI and WH-QSM."""

import math

import numpy as np

from qsmflow.algorithms._checks import check_count, check_positive
from qsmflow.algorithms.inversion import _admm
from qsmflow.algorithms.inversion._problem import Problem
from qsmflow.algorithms.inversion._variation import (
    GeneralisedVariation,
    TotalVariation,
    make_penalty,
)


def nltv(
    local_field,
    mask,
    voxel_size,
    *,
    b0_dir=(0.0, 0.0, 1.0),
    weights=None,
    magnitude=None,
    phase_scale=16.0,
    reg_weight=1e-4,
    outside_weight=0.01,
    harmonic_weight=None,
    mu=0.3,
    rho=0.01,
    mu_harmonic=0.1,
    start_iter=10,
    pad=16,
    max_iter=30,
    tol=1e-3,
    return_history=False,
):
    r"""Invert the dipole field with complex-phase misfit and total variation (FANSI nlTV).

    .. math:: \min_{\chi, h} \frac{1}{2 s^2} \| W (e^{i s (d * \chi + h)} - e^{i s f}) \|^2
        + \lambda \sum_v | w_v \nabla\chi |_v + \tfrac{\beta}{2} \| \nabla^2 h \|^2_M

    The misfit of complex phases [1]_ nears that of the field where it is small, counts a voxel
    less the further off it is, and knows the field up to multiples of 2 pi of the phase only:
    voxels that were unwrapped wrongly do no harm.

    Parameters
    ----------
    local_field : ndarray of float, shape (X, Y, Z)
        Local field, in ppm. Values outside ``mask`` are ignored.
    mask : ndarray of bool, shape (X, Y, Z)
        Region of interest.
    voxel_size : tuple of float
        Voxel edge lengths, in mm, in array-axis order.
    b0_dir : tuple of float, optional
        Unit vector of the main field, in array axes.
    weights : ndarray of float, shape (X, Y, Z), optional
        Confidence :math:`W` in [0, 1]. Ones by default.
    magnitude : ndarray of float, shape (X, Y, Z), optional
        Image, such as the combined magnitude in a.u., whose edges are those of the
        susceptibility: the weight :math:`w` of the difference along each axis is then
        :math:`1 / (1 + |\partial m| / \sigma)` with mean 1 in the mask, where :math:`\sigma` is
        1.48 times the median of all differences in the mask. Without, :math:`w` is 1.
    phase_scale : float, optional
        Phase :math:`s` of 1 ppm, in rad; 16 is that at 3 T and 20 ms.
    reg_weight : float, optional
        Weight :math:`\lambda` of total variation, in ppm: a published one, for phases, over
        ``phase_scale``. Larger is smoother.
    outside_weight : float, optional
        Weight :math:`w` outside the mask. Small, so that sources there can take up what is
        left of the background; 1 gives the published method.
    harmonic_weight : float or None, optional
        Weight :math:`\beta` of the Laplacian of a residual background :math:`h`, as in `whqsm`.
        None leaves :math:`h` out.
    mu, rho, mu_harmonic : float, optional
        ADMM parameters of the splits of the field, the gradient and the Laplacian. They change
        the way to the solution, not the solution.
    start_iter : int, optional
        Iterations that decide multiples of 2 pi beforehand, where a phase in the mask exceeds
        pi / 2. Zero leaves them out: then sources with phases beyond pi may be lost.
    pad : int, optional
        Voxels added on each side of the mask's bounding box.
    max_iter : int, optional
        Largest number of iterations afterwards.
    tol : float, optional
        Stop when the relative change of the susceptibility is below this.
    return_history : bool, optional
        Return the relative change in each iteration as well.

    Returns
    -------
    chi : ndarray of float32, shape (X, Y, Z)
        Susceptibility, in ppm, zero outside ``mask``, not referenced to any tissue.
    history : list of float
        Only with ``return_history``; of the start and of what follows.

    Raises
    ------
    ValueError
        If a parameter is not positive, or the volumes do not fit together.

    Notes
    -----
    An iteration takes two pairs of Fourier transforms, three with the harmonic background. In
    place of the Newton steps of [1]_, which need ``mu`` of at least :math:`W^2`, the data step is
    that of the parabola with weight :math:`W^2 \sin(r) / r` about the nearest turn, for the
    present phase misfit :math:`r`: it lies above the data term and touches it there, so that the
    limits are the same with any ``mu``, and voxels of low weight need not wait. The shrinkage is
    isotropic. The start is a fit with Huber's misfit and more smoothing; its multiples of
    2 pi and weights hold for four iterations.

    Public implementations take a weight of 2e-4 for phases, 150 iterations and the same ``tol``.
    The defaults here, and the form of the edge weights, were chosen on simulated heads at 3 T,
    where more iterations fit more noise.

    References
    ----------
    .. [1] Milovic C, et al. Magn Reson Med 2018;80:814-821. doi:10.1002/mrm.27073

    Examples
    --------
    >>> from qsmflow.algorithms.operators import forward_field
    >>> chi = np.zeros((24, 24, 24), np.float32)
    >>> chi[8:16, 8:16, 8:16] = 0.1
    >>> field = forward_field(chi, (1, 1, 1))
    >>> field[4, ::4, ::4] += 2 * np.pi / 16
    >>> estimate = nltv(field, np.ones(chi.shape, bool), (1, 1, 1), pad=8)
    >>> bool(np.corrcoef(estimate.ravel(), chi.ravel())[0, 1] > 0.97)
    True
    """
    _check(reg_weight, outside_weight, phase_scale, mu, rho, start_iter, max_iter)
    if harmonic_weight is not None:
        check_positive(harmonic_weight=harmonic_weight, mu_harmonic=mu_harmonic)
    problem = Problem.build(local_field, mask, voxel_size, b0_dir, weights, pad)
    penalty = make_penalty(problem, magnitude, outside_weight)
    start = _admm.find_turns(problem, penalty, phase_scale, start_iter)
    variation = TotalVariation(problem, penalty, reg_weight, rho)
    admm = _admm.Admm(problem, variation, mu, harmonic_weight, mu_harmonic)
    history = _run(admm, start, phase_scale, max_iter, tol)
    chi = problem.placed(admm.chi)
    return (chi, history) if return_history else chi


def whqsm(
    local_field,
    mask,
    voxel_size,
    *,
    b0_dir=(0.0, 0.0, 1.0),
    weights=None,
    magnitude=None,
    phase_scale=16.0,
    reg_weight=1e-4,
    outside_weight=0.01,
    harmonic_weight=150.0,
    mu=0.3,
    rho=0.01,
    mu_harmonic=0.1,
    start_iter=10,
    pad=16,
    max_iter=30,
    tol=1e-3,
    return_history=False,
):
    r"""Invert the dipole field jointly with a harmonic residual background (WH-QSM).

    .. math:: \min_{\chi, h} \frac{1}{2 s^2} \| W (e^{i s (d * \chi + h)} - e^{i s f}) \|^2
        + \lambda \sum_v | w_v \nabla\chi |_v + \tfrac{\beta}{2} \| \nabla^2 h \|^2_M

    The problem of `nltv` with a field :math:`h` that sources do not explain and whose Laplacian
    in the mask is small: what background removal has left [1]_.

    Parameters
    ----------
    local_field : ndarray of float, shape (X, Y, Z)
        Local field, in ppm. Values outside ``mask`` are ignored.
    mask : ndarray of bool, shape (X, Y, Z)
        Region of interest.
    voxel_size : tuple of float
        Voxel edge lengths, in mm, in array-axis order.
    b0_dir : tuple of float, optional
        Unit vector of the main field, in array axes.
    weights : ndarray of float, shape (X, Y, Z), optional
        Confidence in [0, 1]. Ones by default.
    magnitude : ndarray of float, shape (X, Y, Z), optional
        Image whose edges are those of the susceptibility, as in `nltv`.
    phase_scale : float, optional
        Phase of 1 ppm, in rad; 16 is that at 3 T and 20 ms.
    reg_weight : float, optional
        Weight :math:`\lambda` of total variation, in ppm. Larger is smoother.
    outside_weight : float, optional
        Weight of total variation outside the mask over that inside; 1 gives the published
        method.
    harmonic_weight : float, optional
        Weight :math:`\beta` of the squared Laplacian of :math:`h` in the mask, with differences
        per mean voxel edge. The default is the published one.
    mu, rho, mu_harmonic : float, optional
        ADMM parameters of the splits of the field, the gradient and the Laplacian.
    start_iter : int, optional
        Iterations that decide multiples of 2 pi beforehand, as in `nltv`.
    pad : int, optional
        Voxels added on each side of the mask's bounding box.
    max_iter : int, optional
        Largest number of iterations afterwards.
    tol : float, optional
        Stop when the relative change of the susceptibility is below this.
    return_history : bool, optional
        Return the relative change in each iteration as well.

    Returns
    -------
    chi : ndarray of float32, shape (X, Y, Z)
        Susceptibility, in ppm, zero outside ``mask``, not referenced to any tissue.
    history : list of float
        Only with ``return_history``.

    Raises
    ------
    ValueError
        If a parameter is not positive, or the volumes do not fit together.

    Notes
    -----
    An iteration takes three pairs of Fourier transforms; those of the start take two. Unlike in
    [1]_, susceptibility and background are solved for together, not in turns: that, and a
    ``mu_harmonic`` below the published 3, lets the background come in within tens of iterations
    where it took hundreds. What is harmonic in the field of the sources themselves goes to
    :math:`h` as well: without a background left, `nltv` is the more accurate. See there for the
    data term, and for the defaults that are not published ones.

    References
    ----------
    .. [1] Milovic C, et al. Magn Reson Med 2019;81:1399-1411. doi:10.1002/mrm.27483

    Examples
    --------
    >>> from qsmflow.algorithms.operators import forward_field
    >>> chi = np.zeros((24, 24, 24), np.float32)
    >>> chi[8:16, 8:16, 8:16] = 0.1
    >>> field = forward_field(chi, (1, 1, 1)) + np.linspace(-0.02, 0.02, 24)
    >>> estimate = whqsm(field, np.ones(chi.shape, bool), (1, 1, 1), pad=8)
    >>> bool(np.corrcoef(estimate.ravel(), chi.ravel())[0, 1] > 0.97)
    True
    """
    return nltv(
        local_field,
        mask,
        voxel_size,
        b0_dir=b0_dir,
        weights=weights,
        magnitude=magnitude,
        phase_scale=phase_scale,
        reg_weight=reg_weight,
        outside_weight=outside_weight,
        harmonic_weight=harmonic_weight,
        mu=mu,
        rho=rho,
        mu_harmonic=mu_harmonic,
        start_iter=start_iter,
        pad=pad,
        max_iter=max_iter,
        tol=tol,
        return_history=return_history,
    )


def nltgv(
    local_field,
    mask,
    voxel_size,
    *,
    b0_dir=(0.0, 0.0, 1.0),
    weights=None,
    magnitude=None,
    phase_scale=16.0,
    reg_weight=1e-4,
    reg_ratio=2.0,
    outside_weight=0.01,
    mu=0.3,
    rho=0.01,
    start_iter=10,
    pad=16,
    max_iter=30,
    tol=1e-3,
    return_history=False,
):
    r"""Invert the dipole field with complex-phase misfit and generalised variation (FANSI nlTGV).

    .. math:: \min_{\chi, v} \frac{1}{2 s^2} \| W (e^{i s (d * \chi)} - e^{i s f}) \|^2
        + \lambda \sum | w (\nabla\chi - v) | + 2 \lambda \sum | w \mathcal{E} v |

    The second-order total generalised variation [2]_ with the symmetrised derivative
    :math:`\mathcal{E}` lets the susceptibility have slopes: where total variation makes steps
    of a ramp, this keeps it.

    Parameters
    ----------
    local_field : ndarray of float, shape (X, Y, Z)
        Local field, in ppm. Values outside ``mask`` are ignored.
    mask : ndarray of bool, shape (X, Y, Z)
        Region of interest.
    voxel_size : tuple of float
        Voxel edge lengths, in mm, in array-axis order.
    b0_dir : tuple of float, optional
        Unit vector of the main field, in array axes.
    weights : ndarray of float, shape (X, Y, Z), optional
        Confidence :math:`W` in [0, 1]. Ones by default.
    magnitude : ndarray of float, shape (X, Y, Z), optional
        Image whose edges are those of the susceptibility, as in `nltv`. The second-order term
        takes the mean weight of the three axes.
    phase_scale : float, optional
        Phase :math:`s` of 1 ppm, in rad; 16 is that at 3 T and 20 ms.
    reg_weight : float, optional
        Weight :math:`\lambda` of the first-order term, in ppm. Larger is smoother.
    reg_ratio : float, optional
        Weight of the second-order term over that of the first, 2 in [1]_. Differences are taken
        per mean voxel edge.
    outside_weight : float, optional
        Weight :math:`w` outside the mask; 1 gives the published method.
    mu, rho : float, optional
        ADMM parameters of the splits of the field and of both derivatives.
    start_iter : int, optional
        Iterations that decide multiples of 2 pi beforehand, with total variation, as in `nltv`.
    pad : int, optional
        Voxels added on each side of the mask's bounding box.
    max_iter : int, optional
        Largest number of iterations afterwards.
    tol : float, optional
        Stop when the relative change of the susceptibility is below this.
    return_history : bool, optional
        Return the relative change in each iteration as well.

    Returns
    -------
    chi : ndarray of float32, shape (X, Y, Z)
        Susceptibility, in ppm, zero outside ``mask``, not referenced to any tissue.
    history : list of float
        Only with ``return_history``.

    Raises
    ------
    ValueError
        If a parameter is not positive, or the volumes do not fit together.

    Notes
    -----
    An iteration takes two pairs of Fourier transforms. The published scheme takes five, as it
    solves for susceptibility and slopes together in the Fourier domain; here the slopes move by a
    gradient step before each susceptibility and follow its gradient after it, a symmetric
    Gauss-Seidel sweep with the same limit, whose objective falls nearly as fast per iteration on
    simulated objects. Slopes through the whole object come in last. See `nltv` for the data term.

    References
    ----------
    .. [1] Milovic C, et al. Magn Reson Med 2018;80:814-821. doi:10.1002/mrm.27073
    .. [2] Bredies K, Kunisch K, Pock T. SIAM J Imaging Sci 2010;3:492-526.
       doi:10.1137/090769521

    Examples
    --------
    >>> from qsmflow.algorithms.operators import forward_field
    >>> chi = np.zeros((24, 24, 24), np.float32)
    >>> chi[8:16, 8:16, 8:16] = np.linspace(-0.1, 0.1, 8)[:, None, None]
    >>> mask = np.ones(chi.shape, bool)
    >>> estimate = nltgv(forward_field(chi, (1, 1, 1)), mask, (1, 1, 1), pad=8)
    >>> bool(np.corrcoef(estimate.ravel(), chi.ravel())[0, 1] > 0.97)
    True
    """
    _check(reg_weight, outside_weight, phase_scale, mu, rho, start_iter, max_iter)
    check_positive(reg_ratio=reg_ratio)
    problem = Problem.build(local_field, mask, voxel_size, b0_dir, weights, pad)
    penalty = make_penalty(problem, magnitude, outside_weight)
    start = _admm.find_turns(problem, penalty, phase_scale, start_iter)
    variation = GeneralisedVariation(problem, penalty, reg_weight, reg_ratio * reg_weight, rho)
    admm = _admm.Admm(problem, variation, mu)
    history = _run(admm, start, phase_scale, max_iter, tol)
    chi = problem.placed(admm.chi)
    return (chi, history) if return_history else chi


def _check(reg_weight, outside_weight, phase_scale, mu, rho, start_iter, max_iter):
    check_positive(
        reg_weight=reg_weight,
        outside_weight=outside_weight,
        phase_scale=phase_scale,
        mu=mu,
        rho=rho,
    )
    check_count(max_iter=max_iter)
    check_count(0, start_iter=start_iter)


def _run(admm, start, phase_scale, max_iter, tol):
    """Iterate on the complex phases and return the history, with that of the start."""
    problem, mu = admm.problem, admm.mu

    def settled(start):
        weight2 = problem.weight2 * np.sinc(start.phase * np.float32(1 / math.pi))
        return _admm.squared_misfit(start.field, weight2, mu)

    chord = _admm.squared_chord(problem.field, problem.weight2, mu, phase_scale)
    return _admm.run_from(start, admm, settled, chord, max_iter, tol)
