"""Iterative dipole inversion with a weighted total-variation penalty: the default method."""

import numpy as np

from qsmflow.algorithms import _kernels as kernels
from qsmflow.algorithms import operators as ops
from qsmflow.algorithms._checks import check_count, check_counts, check_positive, check_volume
from qsmflow.algorithms.inversion._problem import Problem
from qsmflow.algorithms.inversion._tv_iteration import (
    MU,
    OUTSIDE_WEIGHT,
    RELAXATION,
    RHO,
    RIM_WEIGHT,
    Iteration,
    nested_dipoles,
    rim_of,
    take_up_background,
)

# Rule of the regularisation weight, in 1/ppm and ppm^2.
_PER_VARIANCE = 25.0
_SYSTEMATIC_VARIANCE = 6e-6


def tv(
    local_field,
    mask,
    voxel_size,
    *,
    b0_dir=(0.0, 0.0, 1.0),
    weights=None,
    field_noise=None,
    reg_weight=None,
    rim_weight=RIM_WEIGHT,
    outside_weight=OUTSIDE_WEIGHT,
    voxel_average=True,
    refine=20,
    refine_coarse=(),
    harmonic_weight=None,
    reweight=0.005,
    robust=0.01,
    mu=MU,
    rho=RHO,
    mu_harmonic=3.0,
    relaxation=RELAXATION,
    pad=16,
    max_iter=20,
    tol=1e-3,
    return_history=False,
):
    r"""Invert the dipole field with total variation, outside sources and one reweighting.

    .. math:: \min_{\chi, h} \tfrac12 \| W (d * \chi + h - f) \|^2
        + \lambda \sum_v w_v |\nabla \chi|_v + \tfrac{\beta}{2} \| \nabla^2 h \|^2_M

    Solved by the alternating direction method of multipliers with over-relaxation and the splits
    :math:`s = d * \chi + h`, :math:`g = \nabla\chi` and :math:`q = \nabla^2 h` [1]_ [2]_ [3]_.
    The weight :math:`w` is 1 inside the mask, larger in its rim, where the background that is
    left looks like sources, and small outside, where sources may take it up. After ``max_iter``
    iterations

    - dipole sources outside are fitted to what the sources inside do not explain, and their field
      is subtracted: the local field of a removal that knew nothing of the sources inside lacks
      the harmonic part of their field;
    - the penalty is reweighted once, with :math:`w = 1 / (1 + |\nabla\chi| / \epsilon)` and mean
      1 in the mask, which restores contrast [4]_,

    and as many iterations follow.

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
    field_noise : ndarray of float, shape (X, Y, Z), optional
        Standard deviation of the field by thermal noise, in ppm.
    reg_weight : float, optional
        Weight :math:`\lambda` of total variation, in ppm. Larger is smoother. By default that of
        :func:`regularisation_weight`.
    rim_weight : float, optional
        Weight :math:`w` within two voxels of the edge of the mask.
    outside_weight : float, optional
        Weight :math:`w` outside the mask.
    voxel_average : bool, optional
        Estimate the mean of the susceptibility over each voxel. A scan measures the middle of
        k-space, so that the field it gives is that of a susceptibility cut off there, whose
        edges ring; the mean over the voxel multiplies its spectrum by a sinc along each axis.
        ``False`` for fields that are themselves averages over voxels.
    refine : int, optional
        Iterations of the fit of outside sources between the parts; 0 leaves it out.
    refine_coarse : sequence of int, optional
        Iterations of that fit on grids of half the fineness, of a quarter and so on, which come
        first and cost little. With them a few iterations of ``refine`` will do, at a slight loss:
        with four after twenty, 0.1 to 0.6 % of nrmse on simulated heads of 2.5 mm.
    harmonic_weight : float or None, optional
        Weight :math:`\beta` of the Laplacian of a residual background :math:`h` (150 in [2]_).
        None leaves :math:`h` out, which saves a third of the time.
    reweight : float or None, optional
        Step :math:`\epsilon`, in ppm, at which the penalty is halved in the second part. None
        leaves the second part out.
    robust : float or None, optional
        Misfit, in ppm, at which a voxel's weight is halved in the second part [5]_; at least 2.5
        robust standard deviations of the misfit are taken. None keeps the weights.
    mu, rho, mu_harmonic : float, optional
        Parameters of the three splits. They change the way to the solution, not the solution.
        Voxels of low weight converge :math:`1/\mu` times slower than others.
    relaxation : float, optional
        Over-relaxation, in (0, 2); 1 is the plain method.
    pad : int, optional
        Voxels added on each side of the mask's bounding box.
    max_iter : int, optional
        Iterations of each part.
    tol : float, optional
        A part stops when the relative change of the susceptibility is below this.
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
        If the volumes do not fit together or a parameter is out of its range.

    Notes
    -----
    Two FFT pairs per iteration, three with :math:`h`, and two per iteration of ``refine``. The
    parameters are this package's choice on simulated heads at 3 T and 7 T; ``docs/study.md`` has
    the comparison. Differences are taken per mean voxel edge and the shrinkage is isotropic.

    References
    ----------
    .. [1] Bilgic B, et al. Magn Reson Med 2014;72:1444-1459. doi:10.1002/mrm.25029
    .. [2] Milovic C, et al. Magn Reson Med 2019;81:1399-1411. doi:10.1002/mrm.27483
    .. [3] Boyd S, et al. Found Trends Mach Learn 2011;3:1-122. doi:10.1561/2200000016
    .. [4] Candes EJ, et al. J Fourier Anal Appl 2008;14:877-905.
       doi:10.1007/s00041-008-9045-x
    .. [5] Liu T, et al. Magn Reson Med 2013;69:467-476. doi:10.1002/mrm.24272

    Examples
    --------
    >>> chi = np.zeros((24, 24, 24), np.float32)
    >>> chi[8:16, 8:16, 8:16] = 0.1
    >>> mask = np.ones(chi.shape, bool)
    >>> estimate = tv(ops.forward_field(chi, (1, 1, 1)), mask, (1, 1, 1), pad=8)
    >>> bool(np.corrcoef(estimate.ravel(), chi.ravel())[0, 1] > 0.97)
    True
    """
    if reg_weight is None:
        reg_weight = regularisation_weight(field_noise, mask)
    check_positive(
        reg_weight=reg_weight,
        rim_weight=rim_weight,
        outside_weight=outside_weight,
        mu=mu,
        rho=rho,
    )
    check_count(max_iter=max_iter)
    check_count(0, refine=refine)
    check_counts(0, refine_coarse=refine_coarse)
    if harmonic_weight is not None:
        check_positive(harmonic_weight=harmonic_weight, mu_harmonic=mu_harmonic)
    if not 0 < relaxation < 2:
        raise ValueError(f'relaxation must lie in (0, 2); got {relaxation!r}.')
    problem = Problem.build(local_field, mask, voxel_size, b0_dir, weights, pad)
    if voxel_average:
        problem.kernel /= ops.voxel_response(problem.grid)
    penalty = np.where(problem.inside, np.float32(1), np.float32(outside_weight))
    rim = rim_of(problem)
    penalty[rim] *= np.float32(rim_weight)
    step = Iteration(
        problem, mu, rho, relaxation, mu_harmonic=mu_harmonic, harmonic_weight=harmonic_weight
    )
    history = step.run(reg_weight, penalty, max_iter, tol)
    if reweight is not None:
        check_positive(reweight=reweight)
        if refine:
            iterations = (int(refine), *refine_coarse)
            dipoles = nested_dipoles(problem, voxel_size, b0_dir, len(iterations))
            take_up_background(problem, step.chi, dipoles, iterations)
        _reweight(step.chi, problem, np.float32(1 / reweight), penalty)
        penalty[rim] *= np.float32(rim_weight)
        penalty[~problem.inside] = outside_weight
        if robust is not None:
            check_positive(robust=robust)
            _trust_less(problem, step.model, robust)
        history += step.run(reg_weight, penalty, max_iter, tol)
    chi = problem.placed(step.chi)
    return (chi, history) if return_history else chi


def regularisation_weight(field_noise, mask):
    r"""Return the weight of total variation that suits the noise of a field.

    :math:`\lambda = c\,(\sigma^2 + \sigma_0^2)` with the median :math:`\sigma` of the thermal
    noise, and :math:`\sigma_0` = 2.45 ppb for the errors that no thermal noise explains:
    background left, dephasing, partial volume. That the weight grows with the variance of the
    data is what a fixed distribution of the gradients asks for; :math:`c` = 25 per ppm and
    :math:`\sigma_0` were fitted to the best weights on simulated heads of 1 mm at 3 T and 7 T
    with a noise of 0.5 to 3 ppb.

    Parameters
    ----------
    field_noise : ndarray of float, shape (X, Y, Z), or None
        Standard deviation of the field by thermal noise, in ppm; None counts as none.
    mask : ndarray of bool, shape (X, Y, Z)
        Region of interest.

    Returns
    -------
    float
        Weight, in ppm.

    Examples
    --------
    >>> region = np.ones((2, 2, 2), bool)
    >>> round(1e4 * regularisation_weight(None, region), 2)
    1.5
    >>> round(1e4 * regularisation_weight(0.003 * region, region), 2)
    3.75
    """
    thermal = 0.0
    if field_noise is not None:
        noise, region = check_volume(field_noise, mask, 'field_noise')
        thermal = float(np.median(noise[region]))
    return _PER_VARIANCE * (thermal**2 + _SYSTEMATIC_VARIANCE)


def _trust_less(problem, model, robust):
    """Lower the weights of data that the model misses, in place."""
    misfit = np.abs(model - problem.field)
    spread = 1.4826 * float(np.median(misfit[problem.weight2 > 0]))
    misfit /= max(robust, 2.5 * spread)
    problem.weight2 /= (1 + misfit**2) ** 2


def _reweight(chi, problem, inverse_step, penalty):
    """Set the penalty's weights from the gradient of chi, with mean 1 inside, in place."""
    ops.use_threads()
    kernels.reweight(chi, *problem.steps, inverse_step, penalty)
    penalty /= penalty[problem.inside].mean(dtype=np.float64)
