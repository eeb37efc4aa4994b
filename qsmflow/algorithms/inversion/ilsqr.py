"""Dipole inversion by least squares with removal of streaks (iLSQR)."""

import numpy as np

from qsmflow.algorithms import _kernels as products
from qsmflow.algorithms import operators as ops
from qsmflow.algorithms._checks import check_count, check_positive
from qsmflow.algorithms.inversion import _ilsqr_kernels as kernels
from qsmflow.algorithms.inversion._problem import Problem
from qsmflow.algorithms.inversion._spectral import solve_normal

# Percentiles of the Laplacian of the field and of the gradient of the fast estimate, between
# which the weights fall; and of the kernel's magnitude, between which smoothing fades out.
_LAPLACIAN_RANGE = (60, 99.9)
_GRADIENT_RANGE = (50, 70)
_KERNEL_RANGE = (1, 30)

# Weight that is left to data with the largest Laplacian.
_LEAST_WEIGHT = 0.2


def ilsqr(
    local_field,
    mask,
    voxel_size,
    *,
    b0_dir=(0.0, 0.0, 1.0),
    weights=None,
    threshold=0.1,
    radius=3.0,
    streak_tol=0.05,
    pad=16,
    max_iter=50,
    tol=1e-2,
    return_history=False,
):
    r"""Invert the dipole field by least squares, then estimate and subtract the streaks (iLSQR).

    Four steps [1]_:

    1. An estimate with the whole spectrum, :math:`\chi_1`, from
       :math:`D \mathcal{F} w \mathcal{F}^{-1} D\, \hat\chi = D \mathcal{F} w f` for the kernel
       :math:`D` and the field :math:`f`, where the weight :math:`w` falls with the magnitude of
       the field's Laplacian. The number of iterations regularises.
    2. A fast estimate that has no streaks but blurred values,
       :math:`\chi_F = \mathcal{F}^{-1} \operatorname{sign}(D) \mathcal{F} f`, smoothed by a
       spherical mean where :math:`|D|` is small. It tells where edges are: the weights
       :math:`G` fall from 1 to 0 with its absolute differences along each axis.
    3. The streaks, the part of :math:`\chi_1` from where the kernel is small that makes edges
       where there should be none,

       .. math:: \min_y \| G \nabla (\chi_1 - \mathcal{F}^{-1} M y) \|^2, \quad
           M = [\,|D| < t\,]

    4. :math:`\chi = \chi_1 - \mathcal{F}^{-1} M y`.

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
        Confidence in [0, 1]; its square multiplies :math:`w`. Ones by default.
    threshold : float, optional
        Kernel magnitude :math:`t` below which streaks arise, in (0, 2/3). The published value.
    radius : float, optional
        Radius of the spherical mean of the second step, in mm. The published value.
    streak_tol : float, optional
        The third step stops when the relative norm of the gradient is below this. The published
        0.01 is no more accurate on a simulated head and takes three times as long.
    pad : int, optional
        Voxels added on each side of the mask's bounding box.
    max_iter : int, optional
        Largest number of iterations of the first and of the third step. The published value.
    tol : float, optional
        The first step stops when the relative norm of the residual is below this. The published
        value; smaller amplifies noise.
    return_history : bool, optional
        Return the relative norm of the residual after each iteration of the first and then of
        the third step as well.

    Returns
    -------
    chi : ndarray of float32, shape (X, Y, Z)
        Susceptibility, in ppm, zero outside ``mask``, not referenced to any tissue.
    history : list of float
        Only with ``return_history``.

    Raises
    ------
    ValueError
        If ``threshold`` lies outside (0, 2/3), another parameter is not positive, or the volumes
        do not fit together.

    Notes
    -----
    One FFT pair per iteration in both solves, four more in all: some forty pairs. Both solves
    are conjugate gradients on the normal equations with the unknown kept as a spectrum. That of
    the first step minimises :math:`\| w^{1/2} (d * \chi - f) \|` where the paper's LSQR minimises
    the norm of the system's own residual, which squares the operator and takes two pairs; the
    stop is the same. That of the third step is preconditioned by the Laplacian, so that broad
    streaks converge as quickly as fine ones. The published power 0.001 of :math:`|D|` in the
    weights of the second step is replaced by its limit, the logarithm. The published scaling of
    :math:`\chi_F` to truncated division is left out: :math:`G` are percentiles and do not
    depend on it. The smallest weight of the first step, 0.2, follows the authors' software
    instead of the paper's 0; neighbours outside the mask are left out of the Laplacian.

    References
    ----------
    .. [1] Li W, et al. NeuroImage 2015;108:111-122. doi:10.1016/j.neuroimage.2014.12.043

    Examples
    --------
    >>> chi = np.zeros((24, 24, 24), np.float32)
    >>> chi[8:16, 8:16, 8:16] = 0.1
    >>> mask = np.ones(chi.shape, bool)
    >>> estimate = ilsqr(ops.forward_field(chi, (1, 1, 1)), mask, (1, 1, 1), pad=8)
    >>> bool(np.corrcoef(estimate.ravel(), chi.ravel())[0, 1] > 0.95)
    True
    """
    if not 0 < threshold < 2 / 3:
        raise ValueError(f'threshold must lie in (0, 2/3), the range of |D|; got {threshold!r}.')
    check_positive(radius=radius, streak_tol=streak_tol, tol=tol)
    check_count(max_iter=max_iter)
    problem = Problem.build(local_field, mask, voxel_size, b0_dir, weights, pad)
    first, history = _least_squares(problem, int(max_iter), tol)
    first *= problem.inside
    edges = _edge_weights(_fast_estimate(problem, voxel_size, radius), problem)
    streaks, more = _streaks(problem, first, edges, threshold, int(max_iter), streak_tol)
    first -= streaks
    chi = problem.placed(first)
    return (chi, history + more) if return_history else chi


def _least_squares(problem, max_iter, tol):
    """Return the susceptibility of the first step, with all its streaks."""
    weight = _laplacian_weights(problem)
    weight *= problem.weight2

    def weighted(volume):
        products.scale(volume, weight)
        return volume

    right = ops.rfft(problem.field * weight)
    products.filter_spectrum(right, problem.kernel)
    spectrum, history = solve_normal(
        problem.kernel, weighted, right, problem.grid, max_iter=max_iter, tol=tol
    )
    return ops.irfft(spectrum, problem.grid), history


def _laplacian_weights(problem):
    """Return weights that fall with the absolute Laplacian of the field."""
    laplacian = np.empty(problem.grid, np.float32)
    ops.use_threads()
    squares = (step * step for step in problem.steps)
    kernels.bend(problem.field, problem.inside, *squares, laplacian)
    low, high = np.percentile(laplacian[problem.inside], _LAPLACIAN_RANGE)
    weight = _falling(laplacian, low, high)
    weight *= 1 - _LEAST_WEIGHT
    weight += _LEAST_WEIGHT
    return weight


def _fast_estimate(problem, voxel_size, radius):
    """Return the estimate from the kernel's sign, of no particular scale."""
    size = np.abs(problem.kernel)
    low, high = np.percentile(size, _KERNEL_RANGE)
    share = 1 - _falling(np.log(np.maximum(size, 1e-12)), *np.log(np.maximum((low, high), 1e-12)))
    mean = ops.smv_kernel(problem.grid, voxel_size, radius)
    smoothing = share + (1 - share) * mean
    spectrum = ops.rfft(problem.field)
    products.filter_spectrum(spectrum, np.sign(problem.kernel) * smoothing)
    estimate = ops.irfft(spectrum, problem.grid)
    estimate *= problem.inside
    spectrum = ops.rfft(estimate)
    products.filter_spectrum(spectrum, smoothing)
    return ops.irfft(spectrum, problem.grid)


def _edge_weights(estimate, problem):
    """Return the weight of each forward difference, zero across edges and outside the mask."""
    estimate *= problem.inside
    difference = ops.gradient(estimate)
    np.abs(difference, out=difference)
    low, high = np.percentile(difference[:, problem.inside], _GRADIENT_RANGE)
    weights = _falling(difference, low, high)
    weights *= problem.inside
    return weights


def _streaks(problem, first, edges, threshold, max_iter, tol):
    """Return what the ill-conditioned part of the spectrum adds to flat regions."""
    squares = tuple(step * step for step in problem.steps)
    edges *= edges
    image = np.empty(problem.grid, np.float32)

    def bent(volume):
        ops.use_threads()
        kernels.weighted_laplacian(volume, edges, *squares, image)
        return image

    ex, ey, ez = problem.eigenvalues
    laplacian = ex[:, None, None] + ey[:, None] + ez
    laplacian[0, 0, 0] = 1
    part = (np.abs(problem.kernel) < threshold) / np.sqrt(laplacian)
    part[0, 0, 0] = 0
    right = ops.rfft(bent(first))
    products.filter_spectrum(right, part)
    spectrum, history = solve_normal(part, bent, right, problem.grid, max_iter=max_iter, tol=tol)
    products.filter_spectrum(spectrum, part)
    return ops.irfft(spectrum, problem.grid), history


def _falling(values, low, high):
    """Return 1 below ``low``, 0 above ``high``, and a line between, in place of the values."""
    if not high > low:
        return (values <= low).astype(np.float32)
    high, span = np.float32(high), np.float32(high - low)
    ops.use_threads()
    kernels.falling(values.reshape(-1, *values.shape[-2:]), high, span)
    return values
