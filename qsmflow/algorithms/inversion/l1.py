"""Dipole inversion with absolute misfits, which outliers cannot rule: L1-QSM and HD-QSM."""

import numpy as np

from qsmflow.algorithms._checks import check_count, check_positive
from qsmflow.algorithms.inversion import _admm
from qsmflow.algorithms.inversion._problem import Problem
from qsmflow.algorithms.inversion._variation import TotalVariation, make_penalty


def l1qsm(
    local_field,
    mask,
    voxel_size,
    *,
    b0_dir=(0.0, 0.0, 1.0),
    weights=None,
    magnitude=None,
    phase_scale=16.0,
    nonlinear=True,
    reg_weight=0.03,
    outside_weight=0.01,
    mu=10.0,
    rho=1.0,
    start_iter=10,
    pad=16,
    max_iter=30,
    tol=1e-3,
    return_history=False,
):
    r"""Invert the dipole field with absolute misfit and total variation (L1-QSM).

    .. math:: \min_\chi \frac{1}{s} \sum_v W_v | e^{i s (d * \chi)} - e^{i s f} |_v
        + \lambda \sum_v | w_v \nabla\chi |_v

    An absolute misfit pulls with the same force however large it is, so that voxels that no
    susceptibility explains, such as those with wrong phases, leave no streaks [1]_; and a field
    without noise is fitted without loss of contrast.

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
        susceptibility: the weight :math:`w` of the difference along each axis is then lower
        across them, as in :func:`qsmflow.algorithms.inversion.fansi.nltv`. Without, it is 1.
    phase_scale : float, optional
        Phase :math:`s` of 1 ppm, in rad; 16 is that at 3 T and 20 ms.
    nonlinear : bool, optional
        Take the misfit of complex phases, which knows the field up to multiples of 2 pi only.
        Without, the misfit is :math:`|d * \chi - f|`, which it nears where it is small.
    reg_weight : float, optional
        Weight :math:`\lambda` of total variation, without unit: about that of `nltv` over the
        standard deviation of the field's noise. Larger is smoother.
    outside_weight : float, optional
        Weight :math:`w` outside the mask. Small, so that sources there can take up what is
        left of the background; 1 gives the published method.
    mu, rho : float, optional
        ADMM parameters of the splits of the field and the gradient, in 1/ppm. They change the
        way to the solution, not the solution.
    start_iter : int, optional
        Iterations that decide multiples of 2 pi beforehand, where a phase in the mask exceeds
        pi / 2. Zero leaves them out.
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
    An iteration takes two pairs of Fourier transforms. The chord of two phases is split off as a
    whole: its step is that of the absolute misfit to the nearest turn, weighted by the cosine of
    half the present misfit, which lies above the chord and touches it there. The published
    scheme takes a further split and Newton steps for the same. The shrinkage is isotropic. All
    defaults were chosen on simulated heads at 3 T with fields of 2 ppb noise.

    References
    ----------
    .. [1] Milovic C, et al. Magn Reson Med 2022;87:457-473. doi:10.1002/mrm.28957

    Examples
    --------
    >>> from qsmflow.algorithms.operators import forward_field
    >>> chi = np.zeros((24, 24, 24), np.float32)
    >>> chi[8:16, 8:16, 8:16] = 0.1
    >>> field = forward_field(chi, (1, 1, 1))
    >>> field[4, ::4, ::4] += 0.05
    >>> estimate = l1qsm(field, np.ones(chi.shape, bool), (1, 1, 1), pad=8)
    >>> bool(np.corrcoef(estimate.ravel(), chi.ravel())[0, 1] > 0.98)
    True
    """
    check_positive(
        phase_scale=phase_scale,
        reg_weight=reg_weight,
        outside_weight=outside_weight,
        mu=mu,
        rho=rho,
    )
    check_count(max_iter=max_iter)
    check_count(0, start_iter=start_iter)
    problem = Problem.build(local_field, mask, voxel_size, b0_dir, weights, pad)
    penalty = make_penalty(problem, magnitude, outside_weight)
    weight = np.sqrt(problem.weight2)
    start = _admm.find_turns(problem, penalty, phase_scale, start_iter if nonlinear else 0)
    admm = _admm.Admm(problem, TotalVariation(problem, penalty, reg_weight, rho), mu)

    def settled(start):
        return _admm.absolute_misfit(start.field, weight * np.cos(start.phase / 2), mu)

    if nonlinear:
        step = _admm.absolute_chord(problem.field, weight, mu, phase_scale)
    else:
        step = _admm.absolute_misfit(problem.field, weight, mu)
    history = _admm.run_from(start, admm, settled, step, max_iter, tol)
    chi = problem.placed(admm.chi)
    return (chi, history) if return_history else chi


def hdqsm(
    local_field,
    mask,
    voxel_size,
    *,
    b0_dir=(0.0, 0.0, 1.0),
    weights=None,
    magnitude=None,
    reg_weight=1e-4,
    first_weight=0.01,
    robust=0.01,
    outside_weight=0.01,
    mu=0.3,
    rho=0.01,
    mu_first=10.0,
    rho_first=1.0,
    first_iter=20,
    pad=16,
    max_iter=80,
    tol=1e-2,
    return_history=False,
):
    r"""Invert the dipole field with absolute, then squared misfit (hybrid data fidelity, HD-QSM).

    .. math:: \chi_1 = \arg\min_\chi \sum_v W_v | d * \chi - f |_v
        + \lambda_1 \sum_v | w_v \nabla\chi |_v, \qquad
        \min_\chi \tfrac12 \| W' (d * \chi - f) \|^2 + \lambda \sum_v | w_v \nabla\chi |_v

    The first stage is robust and shows where the field is not that of any susceptibility: its
    misfit :math:`|d * \chi_1 - f|` lowers the weights :math:`W'` of the second, which suits
    noise better [1]_.

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
        Image whose edges are those of the susceptibility, as in `l1qsm`.
    reg_weight : float, optional
        Weight :math:`\lambda` of total variation in the second stage, in ppm. Larger is
        smoother. The authors' example has 1.6e-5 for one subject.
    first_weight : float, optional
        Weight :math:`\lambda_1` in the first stage, without unit: the square root of the default
        ``reg_weight``, the authors' rule.
    robust : float or None, optional
        Misfit :math:`r` of the first stage, in ppm, at which a voxel's weight is halved: it is
        multiplied by :math:`1 / (1 + (m / r)^2)` for a misfit :math:`m`; :math:`r` is at least
        2.5 robust standard deviations of the misfit. None takes the published factor of one less
        the misfit over its largest value, by which one bad voxel can shield the others.
    outside_weight : float, optional
        Weight :math:`w` outside the mask; 1 gives the published method.
    mu, rho : float, optional
        ADMM parameters of the second stage.
    mu_first, rho_first : float, optional
        ADMM parameters of the first stage, in 1/ppm.
    first_iter : int, optional
        Iterations of the first stage.
    pad : int, optional
        Voxels added on each side of the mask's bounding box.
    max_iter : int, optional
        Largest number of iterations of the second stage.
    tol : float, optional
        The second stage stops when the relative change of the susceptibility is below this.
    return_history : bool, optional
        Return the relative change in each iteration of both stages as well.

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
    An iteration takes two pairs of Fourier transforms. Both numbers of iterations and ``tol`` are
    those of [1]_. Unlike there, the second stage starts from zero: the limit is the same, and
    where it stops early the result is nearer to the truth on simulated heads. The shrinkage is
    isotropic.

    References
    ----------
    .. [1] Lambert M, et al. Magn Reson Med 2022. doi:10.1002/mrm.29218

    Examples
    --------
    >>> from qsmflow.algorithms.operators import forward_field
    >>> chi = np.zeros((24, 24, 24), np.float32)
    >>> chi[8:16, 8:16, 8:16] = 0.1
    >>> field = forward_field(chi, (1, 1, 1))
    >>> field[4, ::4, ::4] += 0.2
    >>> estimate = hdqsm(field, np.ones(chi.shape, bool), (1, 1, 1), pad=8)
    >>> bool(np.corrcoef(estimate.ravel(), chi.ravel())[0, 1] > 0.97)
    True
    """
    check_positive(
        reg_weight=reg_weight,
        first_weight=first_weight,
        outside_weight=outside_weight,
        mu=mu,
        rho=rho,
        mu_first=mu_first,
        rho_first=rho_first,
    )
    check_count(first_iter=first_iter, max_iter=max_iter)
    if robust is not None:
        check_positive(robust=robust)
    problem = Problem.build(local_field, mask, voxel_size, b0_dir, weights, pad)
    penalty = make_penalty(problem, magnitude, outside_weight)
    first = _admm.Admm(
        problem, TotalVariation(problem, penalty, first_weight, rho_first), mu_first
    )
    step = _admm.absolute_misfit(problem.field, np.sqrt(problem.weight2), mu_first)
    history = first.run(step, first_iter, 0)
    weight2 = _doubted(problem, first.model, robust)
    del first
    second = _admm.Admm(problem, TotalVariation(problem, penalty, reg_weight, rho), mu)
    history += second.run(_admm.squared_misfit(problem.field, weight2, mu), max_iter, tol)
    chi = problem.placed(second.chi)
    return (chi, history) if return_history else chi


def _doubted(problem, model, robust):
    """Return the squared weights times what the misfit of a model leaves of them."""
    misfit = np.abs(model - problem.field)
    used = problem.weight2 > 0
    if robust is None:
        factor = 1 - misfit / (misfit[used].max() or 1)
    else:
        spread = 1.4826 * float(np.median(misfit[used]))
        factor = 1 / (1 + (misfit / np.float32(max(robust, 2.5 * spread))) ** 2)
    factor *= used
    return problem.weight2 * factor**2
