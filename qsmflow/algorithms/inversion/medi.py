"""Morphology enabled dipole inversion (MEDI), and MEDI+0 with its reference in the fluid."""

import math

import numpy as np

from qsmflow.algorithms import operators as ops
from qsmflow.algorithms._checks import (
    check_count,
    check_mask,
    check_positive,
    check_volume,
    check_voxel_size,
)
from qsmflow.algorithms.inversion._medi import MediDescent, face_weights
from qsmflow.algorithms.inversion._problem import Problem
from qsmflow.algorithms.regions import CSF_R2STAR, csf_mask

# Weights are judged anew after so many iterations: enough for the fit to reach good voxels.
_ROUND = 10

#: A fluid of fewer voxels is too small to be trusted as a reference.
MIN_CSF_VOXELS = 100


def medi(
    local_field,
    mask,
    voxel_size,
    *,
    b0_dir=(0.0, 0.0, 1.0),
    weights=None,
    magnitude=None,
    phase_scale=16.0,
    reg_weight=1e-4,
    edge_fraction=0.3,
    outside_weight=0.1,
    smoothing=3e-4,
    radius=None,
    merit=6.0,
    pad=16,
    max_iter=30,
    tol=4e-3,
    return_history=False,
):
    r"""Invert the dipole field with a penalty on edges that the magnitude does not have (MEDI).

    .. math:: \min_\chi \tfrac12 \| W (e^{i s d * \chi} - e^{i s f}) \|^2 / s^2
        + \lambda \| M_G \nabla \chi \|_1

    The nonlinear data term [2]_ compares signals of phase :math:`s f`: noise counts as it does in
    the complex image, and a field wrong by 2 pi does no harm. :math:`M_G` is 0 on the
    edges of the magnitude, where the susceptibility may jump at no cost, and 1 elsewhere
    [1]_ [3]_.

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
        Confidence :math:`W` in [0, 1], the inverse of the field's noise. Ones by default.
    magnitude : ndarray of float, shape (X, Y, Z), optional
        Magnitude combined over the echoes, in any unit. Without it :math:`M_G` is 1, and the
        penalty is plain total variation.
    phase_scale : float, optional
        Phase :math:`s` of 1 ppm, in rad: 16 is 3 T at 20 ms. It says from where on the field
        counts as 2 pi; the balance of the terms does not depend on it.
    reg_weight : float, optional
        Weight :math:`\lambda` of the penalty, in ppm. Larger is smoother. MEDI's own
        :math:`\lambda_M` multiplies the data term instead, with susceptibility in rad of the
        echo spacing: :math:`\lambda = 1 / (2 \lambda_M s)`. Its 1000 is 1.2e-4 for a spacing of
        5 ms at 3 T (:math:`s` = 4).
    edge_fraction : float, optional
        Share of the differences within the mask that count as edges, in [0, 1). MEDI's 90 % is
        in differences of three directions per voxel, and so 0.3.
    outside_weight : float, optional
        Factor of the penalty on differences that leave the mask or lie outside it. One is the
        published method, and best where the background is removed to the last. Small lets sources
        outside the mask take up what is left of it (this package's choice, on simulated heads).
    smoothing : float, optional
        Difference :math:`\epsilon` per mean voxel edge, in ppm, below which the norm is
        quadratic: :math:`\sqrt{x^2 + \epsilon^2}` stands for :math:`|x|`. MEDI's 1e-3 rad is
        2.5e-4 at :math:`s` = 4.
    radius : float or None, optional
        Radius of a sphere, in mm, whose mean is taken out of field and model, against background
        that is left; the MEDI toolbox has 5. The data of a rim of this width are then not used;
        the susceptibility there follows from the rest. None, the default, leaves it out.
    merit : float or None, optional
        Voxels whose misfit exceeds this number of standard deviations lose weight, by the square
        of the excess, after every tenth iteration (MERIT) [2]_. None keeps the weights.
    pad : int, optional
        Voxels added on each side of the mask's bounding box.
    max_iter : int, optional
        Largest number of iterations.
    tol : float, optional
        Stop when the relative change of the susceptibility is below this, but not before the
        weights were judged once.
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
        If a parameter is out of its range, the volumes do not fit together, or the sphere fits
        nowhere into the mask.

    Notes
    -----
    The published Gauss-Newton method solves a linear system in each of its steps by conjugate
    gradients. Here the weights of both terms follow every iteration: conjugate gradients go down
    the objective itself, with a step by the Gauss-Newton curvature, which never raises it, and
    preconditioned with the solution for equal weights [4]_. An iteration takes two pairs of
    Fourier transforms, 60 in all with the defaults.

    References
    ----------
    .. [1] Liu J, et al. NeuroImage 2012;59:2560-2568. doi:10.1016/j.neuroimage.2011.08.082
    .. [2] Liu T, et al. Magn Reson Med 2013;69:467-476. doi:10.1002/mrm.24272
    .. [3] Liu T, et al. Magn Reson Med 2011;66:777-783. doi:10.1002/mrm.22816
    .. [4] Chouzenoux E, et al. IEEE Trans Image Process 2011;20:1517-1528.
       doi:10.1109/TIP.2010.2103083

    Examples
    --------
    >>> chi = np.zeros((24, 24, 24), np.float32)
    >>> chi[8:16, 8:16, 8:16] = 0.1
    >>> field = ops.forward_field(chi, (1, 1, 1))
    >>> estimate = medi(field, np.ones(chi.shape, bool), (1, 1, 1), magnitude=1 + chi, pad=8)
    >>> bool(np.corrcoef(estimate.ravel(), chi.ravel())[0, 1] > 0.97)
    True
    """
    check_positive(phase_scale=phase_scale, smoothing=smoothing)
    check_count(max_iter=max_iter)
    problem = Problem.build(local_field, mask, voxel_size, b0_dir, weights, pad)
    _take_out_means(problem, voxel_size, radius)
    faces = _penalty(problem, magnitude, reg_weight, edge_fraction, outside_weight)
    descent = MediDescent(problem, faces, phase_scale, smoothing)
    history = _go_down(descent, merit, max_iter, tol)
    chi = problem.placed(descent.chi)
    return (chi, history) if return_history else chi


def medi0(
    local_field,
    mask,
    voxel_size,
    *,
    b0_dir=(0.0, 0.0, 1.0),
    weights=None,
    magnitude=None,
    r2star=None,
    phase_scale=16.0,
    reg_weight=1e-4,
    csf_weight=0.1,
    csf_threshold=CSF_R2STAR,
    edge_fraction=0.3,
    outside_weight=0.1,
    smoothing=3e-4,
    radius=None,
    merit=6.0,
    pad=16,
    max_iter=30,
    tol=4e-3,
    return_history=False,
):
    r"""Invert the dipole field as MEDI does, with uniform fluid in the ventricles (MEDI+0).

    .. math:: \min_\chi \tfrac12 \| W (e^{i s d * \chi} - e^{i s f}) \|^2 / s^2
        + \lambda \| M_G \nabla \chi \|_1
        + \tfrac{\kappa}{2} \| M_C (\chi - \bar\chi_C) \|^2

    with the mean :math:`\bar\chi_C` over the fluid :math:`M_C`, which is zero in the result [1]_.
    The fluid is found by its slow decay, see :func:`qsmflow.algorithms.regions.csf_mask`, after
    ten iterations without the last term, so that voxels of it whose susceptibility differs
    (choroid plexus) are left out.

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
    weights, magnitude : ndarray of float, shape (X, Y, Z), optional
        As of :func:`medi`.
    r2star : ndarray of float, shape (X, Y, Z), optional
        Effective transverse relaxation rate, in 1/s. Without it, or with fewer than 100 voxels of
        fluid, the result is that of :func:`medi`, not referenced.
    phase_scale, reg_weight : float, optional
        As of :func:`medi`.
    csf_weight : float, optional
        Weight :math:`\kappa` of the fluid's variance: the ratio of MEDI's :math:`\lambda_{CSF}`,
        100, to its :math:`\lambda_M`, 1000.
    csf_threshold : float, optional
        R2* below this is fluid, in 1/s.
    edge_fraction, outside_weight, smoothing, radius, merit, pad, max_iter, tol
        As of :func:`medi`.
    return_history : bool, optional
        Return the relative change in each iteration as well.

    Returns
    -------
    chi : ndarray of float32, shape (X, Y, Z)
        Susceptibility, in ppm, zero outside ``mask``, relative to the fluid's mean.
    history : list of float
        Only with ``return_history``.

    Raises
    ------
    ValueError
        As of :func:`medi`.

    Notes
    -----
    Iterations and transforms are those of :func:`medi`.

    References
    ----------
    .. [1] Liu Z, et al. Magn Reson Med 2018;79:2795-2803. doi:10.1002/mrm.26946

    Examples
    --------
    >>> chi = np.zeros((24, 24, 24), np.float32)
    >>> chi[4:9, 8:16, 8:16], chi[14:19, 8:16, 8:16] = 0.1, -0.05
    >>> field, mask = ops.forward_field(chi, (1, 1, 1)), np.ones(chi.shape, bool)
    >>> r2star = np.where(chi < 0, 1.0, 20.0)
    >>> estimate = medi0(field, mask, (1, 1, 1), r2star=r2star, pad=8)
    >>> bool(abs(estimate[chi < 0].mean()) < 1e-3), bool(estimate[chi > 0].mean() > 0.1)
    (True, True)
    """
    check_positive(
        phase_scale=phase_scale,
        csf_weight=csf_weight,
        csf_threshold=csf_threshold,
        smoothing=smoothing,
    )
    check_count(max_iter=max_iter)
    problem = Problem.build(local_field, mask, voxel_size, b0_dir, weights, pad)
    if r2star is not None:
        check_mask(mask, np.shape(r2star), 'r2star')
    _take_out_means(problem, voxel_size, radius)
    faces = _penalty(problem, magnitude, reg_weight, edge_fraction, outside_weight)
    descent = MediDescent(problem, faces, phase_scale, smoothing)
    fluid = np.zeros(problem.mask.shape, bool)

    def join_fluid():
        if r2star is None:
            return
        estimate = problem.placed(descent.chi)
        found = csf_mask(r2star, estimate, problem.mask, voxel_size, threshold=csf_threshold)
        if np.count_nonzero(found) >= MIN_CSF_VOXELS:
            fluid[:] = found
            descent.join(ops.pad_to(fluid[problem.box], problem.grid), csf_weight)

    history = _go_down(descent, merit, max_iter, tol, join_fluid)
    chi = problem.placed(descent.chi)
    if fluid.any():
        chi[problem.mask] -= chi[fluid].mean(dtype=np.float64)
    return (chi, history) if return_history else chi


def _go_down(descent, merit, max_iter, tol, after_first=None):
    """Iterate, judging the weights after every round, and return the relative changes."""
    if merit is not None:
        check_positive(merit=merit)
    once = merit is None and after_first is None
    history = []
    for index in range(math.ceil(max_iter / _ROUND)):
        wanted = min(_ROUND, int(max_iter) - len(history))
        part = descent.run(wanted, tol)
        history += part
        if (index or once) and (not part or part[-1] < tol):
            break
        if merit is not None:
            descent.trust_less(merit)
        if after_first is not None and index == 0:
            after_first()
    return history


def _penalty(problem, magnitude, reg_weight, edge_fraction, outside_weight):
    """Return the weights of the faces between voxels."""
    check_positive(reg_weight=reg_weight, outside_weight=outside_weight)
    if not 0 <= edge_fraction < 1:
        raise ValueError(
            f'edge_fraction must lie in [0, 1), the share of differences that are edges; '
            f'got {edge_fraction!r}.'
        )
    if magnitude is not None:
        magnitude, _ = check_volume(magnitude, problem.mask, 'magnitude')
        magnitude = ops.pad_to(magnitude[problem.box], problem.grid)
    return face_weights(
        problem.inside,
        reg_weight,
        outside_weight,
        magnitude=magnitude,
        steps=problem.steps,
        fraction=edge_fraction,
    )


def _take_out_means(problem, voxel_size, radius):
    """Take the mean over a sphere out of field and model, in place."""
    if radius is None:
        return
    check_positive(radius=radius)
    voxel_size = check_voxel_size(voxel_size)
    mean = ops.smv_kernel(problem.grid, voxel_size, radius)

    def averaged(volume):
        return ops.irfft(ops.rfft(volume.astype(np.float32)) * mean, problem.grid)

    # But for a sliver of a surface voxel.
    whole = problem.inside & (averaged(problem.inside) > 0.999)
    if not whole.any():
        raise ValueError(
            f'A sphere of radius {radius:g} mm fits nowhere into the mask. Take a smaller radius '
            'or check the mask.'
        )
    count = max(1.0, 4 / 3 * math.pi * radius**3 / math.prod(voxel_size))
    # The variance of the difference from the mean; the floor keeps voxels without weight from
    # taking all of it from the spheres that touch them.
    variance = problem.inside / np.maximum(problem.weight2, np.float32(1e-4))
    variance += averaged(variance) / np.float32(count)
    known = whole & (problem.weight2 > 0)
    problem.weight2 = np.divide(1, variance, out=np.zeros_like(variance), where=known)
    problem.field -= averaged(problem.field)
    problem.field *= known
    problem.kernel = problem.kernel * (1 - mean)
