"""Direct dipole inversion: from the local field to susceptibility in one step.

The mean of the susceptibility is not determined by the field. The methods set the spectrum at
frequency zero of the padded grid to zero and subtract nothing afterwards: referencing is a step
of its own.
"""

import numpy as np

from qsmflow.algorithms import operators as ops
from qsmflow.algorithms._checks import (
    check_count,
    check_mask,
    check_positive,
    check_volume,
    check_voxel_size,
    check_weights,
)
from qsmflow.algorithms.inversion import _direct_kernels as kernels
from qsmflow.algorithms.inversion._descent import least_squares, preconditioner
from qsmflow.algorithms.inversion._problem import Problem, relative_voxel_size


def tkd(
    local_field,
    mask,
    voxel_size,
    *,
    b0_dir=(0.0, 0.0, 1.0),
    weights=None,
    threshold=0.15,
    correct=False,
    pad=8,
    return_history=False,
):
    r"""Invert the dipole field by truncated k-space division (TKD).

    :math:`\chi = \mathcal{F}^{-1}\{\operatorname{sign}(D)\,\mathcal{F}f / \max(|D|, t)\}` for
    dipole kernel :math:`D`, local field :math:`f` and truncation level :math:`t` [1]_.

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
        Not used; part of the common signature.
    threshold : float, optional
        Truncation level, in (0, 2/3). Larger is smoother and lowers contrast. 0.15 is that of
        QSM.jl, QSM.rs and SEPIA.
    correct : bool, optional
        Divide by the mean of :math:`D` times the truncated inverse, the share of the contrast
        that truncation keeps [2]_.
    pad : int, optional
        Voxels added on each side of the mask's bounding box. More changes the nrmse by 0.2 %
        at most on simulated heads.
    return_history : bool, optional
        Return an empty history as well, for the common signature.

    Returns
    -------
    chi : ndarray of float32, shape (X, Y, Z)
        Susceptibility, in ppm, zero outside ``mask``, not referenced to any tissue.
    history : list of float
        Only with ``return_history``; empty.

    Raises
    ------
    ValueError
        If ``threshold`` lies outside (0, 2/3), or the volumes do not fit together.

    References
    ----------
    .. [1] Shmueli K, et al. Magn Reson Med 2009;62:1510-1522. doi:10.1002/mrm.22135
    .. [2] Schweser F, et al. Magn Reson Med 2013;69:1582-1594. doi:10.1002/mrm.24405

    Examples
    --------
    >>> chi = np.zeros((32, 32, 32), np.float32)
    >>> chi[12:20, 12:20, 12:20] = 0.1
    >>> field = ops.forward_field(chi, (1, 1, 1))
    >>> estimate = tkd(field, np.ones(chi.shape, bool), (1, 1, 1))
    >>> bool(np.corrcoef(estimate.ravel(), chi.ravel())[0, 1] > 0.9)
    True
    """
    _check_threshold(threshold)
    chi = _truncated(
        local_field, mask, voxel_size, b0_dir, weights, threshold, 1 / threshold, correct, pad
    )
    return (chi, []) if return_history else chi


def tsvd(
    local_field,
    mask,
    voxel_size,
    *,
    b0_dir=(0.0, 0.0, 1.0),
    weights=None,
    threshold=0.1,
    correct=False,
    pad=8,
    return_history=False,
):
    r"""Invert the dipole field by truncated singular value decomposition (TSVD).

    :math:`\chi = \mathcal{F}^{-1}\{[\,|D| > t\,]\, \mathcal{F}f / D\}` for dipole kernel
    :math:`D`, local field :math:`f` and truncation level :math:`t` [1]_. Frequencies below the
    level are set to zero, where :func:`tkd` divides them by the level: fewer streaks, and less
    of the contrast.

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
        Not used; part of the common signature.
    threshold : float, optional
        Truncation level, in (0, 2/3). Larger has fewer streaks and less contrast. QSM.jl has
        0.15, as for TKD; the default is smaller because nothing below it is kept (this package's
        choice, on simulated heads).
    correct : bool, optional
        Divide by the mean of :math:`D` times the truncated inverse, which for this method is the
        share of the frequencies that are kept [2]_: 0.64 at a level of 0.15.
    pad : int, optional
        Voxels added on each side of the mask's bounding box. More changes the nrmse by 0.2 %
        at most on simulated heads.
    return_history : bool, optional
        Return an empty history as well, for the common signature.

    Returns
    -------
    chi : ndarray of float32, shape (X, Y, Z)
        Susceptibility, in ppm, zero outside ``mask``, not referenced to any tissue.
    history : list of float
        Only with ``return_history``; empty.

    Raises
    ------
    ValueError
        If ``threshold`` lies outside (0, 2/3), or the volumes do not fit together.

    References
    ----------
    .. [1] Wharton S, et al. Magn Reson Med 2010;63:1292-1304. doi:10.1002/mrm.22334
    .. [2] Schweser F, et al. Magn Reson Med 2013;69:1582-1594. doi:10.1002/mrm.24405

    Examples
    --------
    >>> chi = np.zeros((32, 32, 32), np.float32)
    >>> chi[12:20, 12:20, 12:20] = 0.1
    >>> field = ops.forward_field(chi, (1, 1, 1))
    >>> estimate = tsvd(field, np.ones(chi.shape, bool), (1, 1, 1))
    >>> bool(np.corrcoef(estimate.ravel(), chi.ravel())[0, 1] > 0.9)
    True
    """
    _check_threshold(threshold)
    chi = _truncated(local_field, mask, voxel_size, b0_dir, weights, threshold, 0.0, correct, pad)
    return (chi, []) if return_history else chi


def l2(
    local_field,
    mask,
    voxel_size,
    *,
    b0_dir=(0.0, 0.0, 1.0),
    weights=None,
    reg_weight=1e-2,
    pad=16,
    max_iter=40,
    tol=2e-2,
    return_history=False,
):
    r"""Invert the dipole field with a quadratic penalty on the gradient.

    .. math:: \min_\chi \| W (d * \chi - f) \|^2 + \lambda \| \nabla \chi \|^2

    Without weights the solution is closed:
    :math:`D \mathcal{F}f / (D^2 + \lambda \sum_i |E_i|^2)` with the forward differences
    :math:`E_i` [1]_. With weights it is found by conjugate gradients, preconditioned with the
    closed solution. Linear in the field.

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
        Confidence :math:`W` in [0, 1]. By default all voxels of the grid count alike, those
        outside the mask with a field of zero.
    reg_weight : float, optional
        Weight :math:`\lambda` of the penalty, 1e-2 as in QSM.jl. Differences are taken per mean
        voxel edge.
    pad : int, optional
        Voxels added on each side of the mask's bounding box.
    max_iter : int, optional
        Largest number of iterations, with weights only.
    tol : float, optional
        Stop when the relative change of the susceptibility is below this, with weights only.
    return_history : bool, optional
        Return the relative change in each iteration as well.

    Returns
    -------
    chi : ndarray of float32, shape (X, Y, Z)
        Susceptibility, in ppm, zero outside ``mask``, not referenced to any tissue.
    history : list of float
        Only with ``return_history``; empty for the closed solution.

    Raises
    ------
    ValueError
        If a parameter is out of its range, or the volumes do not fit together.

    References
    ----------
    .. [1] Bilgic B, et al. J Magn Reson Imaging 2014;40:181-191. doi:10.1002/jmri.24365

    Examples
    --------
    >>> chi = np.zeros((32, 32, 32), np.float32)
    >>> chi[12:20, 12:20, 12:20] = 0.1
    >>> field = ops.forward_field(chi, (1, 1, 1))
    >>> estimate = l2(field, np.ones(chi.shape, bool), (1, 1, 1))
    >>> bool(np.corrcoef(estimate.ravel(), chi.ravel())[0, 1] > 0.9)
    True
    """
    check_positive(reg_weight=reg_weight)
    check_count(max_iter=max_iter)
    if weights is None:
        given = local_field, mask, voxel_size, b0_dir, pad
        chi = closed_solution(*given, gradient_weight=reg_weight)
        return (chi, []) if return_history else chi
    problem = Problem.build(local_field, mask, voxel_size, b0_dir, weights, pad)
    ex, ey, ez = problem.eigenvalues
    penalty = np.float32(reg_weight) * (ex[:, None, None] + ey[:, None] + ez)
    inverse = preconditioner(problem.kernel, penalty, problem.weight2)
    data = problem.field, problem.weight2, problem.kernel
    solution, history = least_squares(*data, penalty, inverse, max_iter=max_iter, tol=tol)
    chi = problem.placed(solution)
    return (chi, history) if return_history else chi


def closed_solution(
    local_field,
    mask,
    voxel_size,
    b0_dir,
    pad,
    *,
    identity_weight=0.0,
    gradient_weight=0.0,
    correct=False,
):
    """Return the least squares with quadratic penalties where all voxels of the grid count alike.

    The arguments are those of `l2`, with a weight for the squared map and for its squared
    gradient; ``correct`` is that of `tikhonov`.
    """

    def divide(spectrum, kernel, grid, size):
        return kernels.divide_regularised(
            spectrum,
            kernel,
            *ops.laplacian_eigenvalues(grid, relative_voxel_size(size)),
            np.float32(identity_weight),
            np.float32(gradient_weight),
            grid[2] % 2 == 0,
        )

    return _divided(local_field, mask, voxel_size, b0_dir, pad, divide, correct)


def _truncated(field, mask, voxel_size, b0_dir, weights, threshold, below, correct, pad):
    """Divide by the kernel where it exceeds the threshold, else multiply by its sign * below."""

    def divide(spectrum, kernel, grid, size):
        level = np.float32(threshold), np.float32(below)
        return kernels.divide_truncated(spectrum, kernel, *level, grid[2] % 2 == 0)

    if weights is not None:
        check_weights(weights, check_mask(mask, np.shape(field), 'local_field'))
    return _divided(field, mask, voxel_size, b0_dir, pad, divide, correct)


def _divided(local_field, mask, voxel_size, b0_dir, pad, divide, correct):
    """Divide the spectrum of the field by what stands for the kernel.

    ``divide`` does that in place, and returns the sum over all frequencies of the contrast that
    is kept; ``correct`` divides by its mean.
    """
    field, mask = check_volume(local_field, mask, 'local_field')
    voxel_size = check_voxel_size(voxel_size)
    box = ops.bounding_box(mask)
    grid = ops.pad_shape(mask[box].shape, pad)
    kernel = ops.dipole_kernel(grid, voxel_size, b0_dir=b0_dir)
    spectrum = ops.rfft(field[box], grid)
    ops.use_threads()
    kept = divide(spectrum, kernel, grid, voxel_size)
    spectrum[0, 0, 0] = 0
    chi = _placed(ops.irfft(spectrum, grid, mask[box].shape), mask, box)
    if correct and kept > 0:
        chi[box] *= np.float32(np.prod(grid) / kept)
    return chi


def _check_threshold(threshold):
    if not 0 < threshold < 2 / 3:
        raise ValueError(f'threshold must lie in (0, 2/3), the range of |D|; got {threshold!r}.')


def _placed(padded, mask, box):
    """Return the data part of a padded volume in the full grid, zero outside the mask."""
    chi = np.zeros(mask.shape, np.float32)
    inside = mask[box]
    np.multiply(ops.crop(padded, inside.shape), inside, out=chi[box])
    return chi
