"""Nonlinear dipole inversion (NDI)."""

import numpy as np

from qsmflow.algorithms import operators as ops
from qsmflow.algorithms._checks import check_count, check_positive
from qsmflow.algorithms.inversion import _descent_kernels as kernels
from qsmflow.algorithms.inversion._descent import least_squares
from qsmflow.algorithms.inversion._problem import Problem

# The gradient descent diverges where the step times W^2 D^2 exceeds 1; D^2 is 4/9 at most.
_STEP_LIMIT = 2.25


def ndi(
    local_field,
    mask,
    voxel_size,
    *,
    b0_dir=(0.0, 0.0, 1.0),
    weights=None,
    phase_scale=16.0,
    reg_weight=0.0,
    accelerate=True,
    step=1.0,
    zero_outside=0.3,
    pad=16,
    max_iter=12,
    tol=1e-3,
    return_history=False,
):
    r"""Invert the dipole field by a few steps on a nonlinear data term (NDI).

    .. math:: \min_\chi \tfrac12 \| W (e^{i s d * \chi} - e^{i s f}) \|^2 / s^2
        + \tfrac{\lambda}{2} \| \chi \|^2

    from zero [1]_. The data term compares signals of phase :math:`s f`, so that an error of
    2 pi in the field, such as from wrong unwrapping, does no harm.

    **The number of iterations is what regularises.** What the dipole kernel passes well comes in
    the first of them, noise near its cone of zeros in the later ones: the error falls and then
    rises again. Take more for a cleaner field or for contrast, fewer for a noisy field, and do
    not iterate to convergence.

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
        Confidence :math:`W` in [0, 1]; the published method takes the magnitude. Ones by
        default.
    phase_scale : float, optional
        Phase :math:`s` of 1 ppm, in rad: 16 is 3 T at 20 ms.
    reg_weight : float, optional
        Weight :math:`\lambda` of the energy of the susceptibility, not negative. Zero, as
        published, leaves the number of iterations alone to regularise; QSM.rs takes 1e-5.
    accelerate : bool, optional
        Take conjugate gradients with a step by the Gauss-Newton curvature [2]_ instead of the
        published gradient descent. Twelve iterations then do what about a hundred did.
    step : float, optional
        Step :math:`\tau` of the gradient descent (the authors' 1), in (0, 2.25) for weights up
        to 1; without ``accelerate`` only.
    zero_outside : float, optional
        Weight, as :math:`W`, of a field of zero outside the mask, in [0, 1]. With 0, as
        published, the mask's data alone decide. A little keeps sources outside the mask, which
        the data hardly tell, from taking part of the contrast: the error falls by a tenth on
        simulated heads.
    pad : int, optional
        Voxels added on each side of the mask's bounding box.
    max_iter : int, optional
        Number of iterations. The default is this package's choice, on simulated heads at 3 T;
        for the gradient descent the literature has 150 to 200.
    tol : float, optional
        Stop earlier when the relative change is below this.
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
        If a parameter is out of its range, or the volumes do not fit together.

    Notes
    -----
    An iteration takes one pair of Fourier transforms, with and without ``accelerate``. The
    published step in radians is :math:`\chi \leftarrow \chi - 2 \tau\, d * [W^2
    \sin(s (d * \chi - f))] / s`.

    References
    ----------
    .. [1] Polak D, et al. NMR Biomed 2020;33:e4271. doi:10.1002/nbm.4271
    .. [2] Milovic C, Shmueli K. Proc Intl Soc Mag Reson Med 2021:3982 (conjugate gradients).

    Examples
    --------
    >>> chi = np.zeros((24, 24, 24), np.float32)
    >>> chi[8:16, 8:16, 8:16] = 0.1
    >>> mask = np.ones(chi.shape, bool)
    >>> estimate = ndi(ops.forward_field(chi, (1, 1, 1)), mask, (1, 1, 1), pad=8)
    >>> bool(np.corrcoef(estimate.ravel(), chi.ravel())[0, 1] > 0.9)
    True
    """
    check_positive(phase_scale=phase_scale, step=step)
    check_count(max_iter=max_iter)
    if not (accelerate or step < _STEP_LIMIT):
        raise ValueError(
            f'step must lie in (0, {_STEP_LIMIT}) for the gradient descent not to diverge; got '
            f'{step!r}.'
        )
    if not (np.isfinite(reg_weight) and reg_weight >= 0):
        raise ValueError(f'reg_weight must be zero or a positive number; got {reg_weight!r}.')
    if not 0 <= zero_outside <= 1:
        raise ValueError(f'zero_outside must lie in [0, 1], as weights do; got {zero_outside!r}.')
    problem = Problem.build(local_field, mask, voxel_size, b0_dir, weights, pad)
    problem.weight2[~problem.inside] = zero_outside**2
    penalty = None
    if reg_weight:
        penalty = np.full(problem.kernel.shape, reg_weight, np.float32)
    if accelerate:
        solution, history = least_squares(
            problem.field,
            problem.weight2,
            problem.kernel,
            penalty,
            np.ones(problem.kernel.shape, np.float32),
            scale=phase_scale,
            max_iter=max_iter,
            tol=tol,
        )
    else:
        solution, history = _gradient_descent(
            problem, reg_weight, phase_scale, step, max_iter, tol
        )
    chi = problem.placed(solution)
    return (chi, history) if return_history else chi


def _gradient_descent(problem, reg_weight, scale, step, max_iter, tol):
    """Return the susceptibility after steps of one length, and the relative changes."""
    chi = np.zeros(problem.kernel.shape, np.complex64)
    residual = np.empty(problem.grid, np.float32)
    model = np.zeros(problem.grid, np.float32)
    scale, pull = np.float32(scale), np.float32(2 * step * reg_weight)
    history = []
    ops.use_threads()
    for _ in range(int(max_iter)):
        kernels.data_gradient(model, problem.field, problem.weight2, scale, residual)
        move = ops.rfft(residual)
        move *= problem.kernel
        move *= np.float32(-2 * step)
        if pull:
            move -= pull * chi
        change = kernels.advance_spectrum(chi, move, np.float32(1))
        model = ops.irfft(chi * problem.kernel, problem.grid)
        history.append(float(np.sqrt(change)))
        if history[-1] < tol:
            break
    return ops.irfft(chi, problem.grid), history
