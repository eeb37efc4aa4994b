"""Background removal by total field inversion: sources inside and outside the mask together."""

import numpy as np

from qsmflow.algorithms import operators as ops
from qsmflow.algorithms._checks import check_count, check_positive
from qsmflow.algorithms.background.pdf import pdf
from qsmflow.algorithms.inversion._problem import Problem
from qsmflow.algorithms.inversion._tv_iteration import (
    MU,
    OUTSIDE_WEIGHT,
    RELAXATION,
    RHO,
    RIM_WEIGHT,
    Iteration,
    rim_of,
    take_up_background,
)

# Confidence, relative to the largest, from which on a value of the field is taken as it is.
_SURE = 0.5


def tfi(
    total_field,
    mask,
    voxel_size,
    *,
    b0_dir=(0.0, 0.0, 1.0),
    weights=None,
    reg_weight=2e-4,
    voxel_average=True,
    rounds=2,
    outside_iter=20,
    pdf_iter=30,
    coarse_iter=(60, 200),
    pad=16,
    max_iter=20,
    tol=1e-3,
    return_history=False,
):
    r"""Remove the background field by an inversion of the total field (TFI).

    .. math:: \min_{\chi, x} \tfrac12 \| W (f - d * (\chi + x)) \|^2
        + \lambda \sum_v w_v |\nabla\chi|_v, \quad l = f - d * x

    with sources :math:`\chi` inside the mask and :math:`x` outside. A removal that knows nothing
    of the sources inside takes the harmonic part of their field for background. Here they are
    fitted, too, as in total field inversion [1]_, with total variation in place of its
    preconditioner alone, and the field of the sources outside is what is taken away.

    `pdf` gives the first local field. Each round then fits :math:`\chi` to the local field by
    total variation, and :math:`x` to what :math:`\chi` does not explain.

    Parameters
    ----------
    total_field : ndarray of float, shape (X, Y, Z)
        Total field, in ppm. Values outside ``mask`` are ignored.
    mask : ndarray of bool, shape (X, Y, Z)
        Region of interest.
    voxel_size : tuple of float
        Voxel edge lengths, in mm, in array-axis order.
    b0_dir : tuple of float, optional
        Unit vector of the main field, in array axes.
    weights : ndarray of float, shape (X, Y, Z), optional
        Confidence :math:`W` in [0, 1]. Ones by default. Below half of the largest, the local
        field goes over to that of :math:`\chi`, with the square of the confidence.
    reg_weight : float, optional
        Weight :math:`\lambda` of total variation, in ppm. Larger is smoother.
    voxel_average : bool, optional
        Estimate the mean of the susceptibility over each voxel, as in `tv`. ``False`` for fields
        that are themselves averages over voxels.
    rounds : int, optional
        Rounds of both fits.
    outside_iter : int, optional
        Iterations of the fit of :math:`x` in each round.
    pdf_iter : int, optional
        Iterations of `pdf` on the grid of the data.
    coarse_iter : sequence of int, optional
        Iterations of `pdf` on coarser grids.
    pad : int, optional
        Voxels added on each side of the mask's bounding box.
    max_iter : int, optional
        Largest number of iterations of total variation in the first round; later rounds, which
        go on where it ended, take half.
    tol : float, optional
        A round ends its iterations when the relative change of the susceptibility is below this.
    return_history : bool, optional
        Return the relative change of the susceptibility in each iteration as well.

    Returns
    -------
    local_field : ndarray of float32, shape (X, Y, Z)
        Local field, in ppm, zero outside ``mask``.
    mask : ndarray of bool, shape (X, Y, Z)
        Where the local field holds: the whole mask given.
    history : list of float
        Only with ``return_history``.

    Raises
    ------
    ValueError
        If a parameter is out of its range, or the volumes do not fit together.

    Notes
    -----
    Two FFT pairs per iteration of either fit. The susceptibility is a means here: what a dipole
    inversion makes of the local field is as a rule better, and may be of any kind. Parameters are
    this package's choice on simulated heads; ``docs/study.md`` has the comparison.

    References
    ----------
    .. [1] Liu Z, et al. Magn Reson Med 2017;78:303-315. doi:10.1002/mrm.26331

    Examples
    --------
    >>> x, y, z = np.ogrid[-8:8, -8:8, -8:8]
    >>> mask = x**2 + y**2 + z**2 < 36
    >>> local, _ = tfi(np.where(mask, 0.1 + 0.05 * z, 0), mask, (1, 1, 1))
    >>> bool(np.abs(local).max() < 0.02)
    True
    """
    check_positive(reg_weight=reg_weight)
    check_count(max_iter=max_iter, rounds=rounds, outside_iter=outside_iter, pdf_iter=pdf_iter)
    start, mask = pdf(
        total_field, mask, voxel_size, b0_dir=b0_dir, weights=weights, pad=pad,
        max_iter=pdf_iter, coarse_iter=coarse_iter,
    )  # fmt: skip
    problem = Problem.build(start, mask, voxel_size, b0_dir, weights, pad)
    del start
    if voxel_average:
        problem.kernel /= ops.voxel_response(problem.grid)
    penalty = np.where(problem.inside, np.float32(1), np.float32(OUTSIDE_WEIGHT))
    penalty[rim_of(problem)] *= np.float32(RIM_WEIGHT)
    step = Iteration(problem, MU, RHO, RELAXATION)
    history = []
    for done in range(int(rounds)):
        count = max_iter if done == 0 else -(-int(max_iter) // 2)
        history += step.run(reg_weight, penalty, count, tol)
        take_up_background(problem, step.chi, [problem.kernel], (int(outside_iter),))
    del penalty
    local = problem.placed(_with_model(problem, step.chi))
    return (local, mask, history) if return_history else (local, mask)


def _with_model(problem, chi):
    """Return the local field, or that of the sources inside where it is not known."""
    trust = problem.weight2 / (np.float32(_SURE**2) * problem.weight2.max())
    np.minimum(trust, 1, out=trust)
    if trust[problem.inside].min() == 1:
        return problem.field
    model = problem.dipole(chi * problem.inside)
    return model + trust * (problem.field - model)
