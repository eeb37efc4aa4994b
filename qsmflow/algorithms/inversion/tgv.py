"""One-step inversion of the total field, or of wrapped phase, by total generalised variation."""

import math

import numpy as np
from scipy import ndimage

from qsmflow.algorithms import operators as ops
from qsmflow.algorithms._checks import (
    check_count,
    check_mask,
    check_positive,
    check_volume,
    check_voxel_size,
    check_weights,
)
from qsmflow.algorithms.field.sequential import CUTOFF
from qsmflow.algorithms.inversion import _tgv_kernels as kernels
from qsmflow.algorithms.inversion._problem import relative_voxel_size
from qsmflow.algorithms.inversion._tgv_grid import Grid
from qsmflow.algorithms.unwrap import check_echoes
from qsmflow.units import radians_per_ppm

#: Over-relaxation, and the step of the susceptibility times the root of the penalty's weight. Both
#: change the way to the solution only; the latter was chosen for weights from 1e-5 to 1e-3 ppm.
_RELAX = np.float32(1.8)
_TAU = 0.25

#: Weight of the field at voxels without an equation of their own.
_RIM_WEIGHT = 0.1

#: Misfit of an echo with those before it, in rad, at which a quarter of its weight is left, if the
#: noise is not larger. Chosen on the head of seed 3 at 2 mm: with 1 rad, dephased echoes at the
#: rim raise the error by a quarter.
_DISAGREEMENT = 0.5

#: Median of the largest of three absolute normal values.
_MEDIAN_OF_THREE = np.float32(1.26)

#: Squared norms that the blocks of the saddle-point operator have with the steps taken: slack and
#: susceptibility in the data equation, susceptibility and vector field in the gradient, vector
#: field in the symmetrised gradient. The norm of the whole is below one.
_SHARES = (0.24, 0.58, 0.22, 0.004, 0.7)


def tgv(
    total_field,
    mask,
    voxel_size,
    *,
    b0_dir=(0.0, 0.0, 1.0),
    weights=None,
    reg_weight=1e-4,
    reg_ratio=3.0,
    robust=0.005,
    erosions=0,
    max_iter=80,
    tol=5e-3,
    return_history=False,
):
    r"""Invert the total field in one step, with total generalised variation (TGV).

    .. math:: \min_{\chi, w, \eta} \tfrac12 \| W \eta \|^2
        + \alpha_1 \| \nabla \chi - w \|_1 + \alpha_0 \| \mathcal{E} w \|_1
        \quad \text{with} \quad
        \nabla^2 \eta = \nabla^2 f - \Box \chi, \quad
        \Box = \tfrac13 \nabla^2 - (b \cdot \nabla)^2

    The equation holds at voxels whose neighbours are all inside the mask [1]_. The Laplacian of
    the field is free of the background, as this is harmonic there, and the slack :math:`\eta`,
    free at the rim, is what is left of the field after its best harmonic part and the field of
    :math:`\chi`: the data term is that of a dipole inversion, with the removal of the background
    built in. The penalty [2]_ knows a linear rise, taken up by the vector field :math:`w`, from a
    step, so that it makes no staircase of it; :math:`\mathcal{E}` is the symmetrised gradient.

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
        Confidence :math:`W` in [0, 1]. Ones by default.
    reg_weight : float, optional
        Weight :math:`\alpha_1` of the gradient, in ppm, per mean voxel edge. Larger is smoother.
        The default is this package's choice, on simulated heads. Other implementations have it
        for phase in rad; divided by the rad per ppm it is in ppm: 0.0005, which most of them
        take, is 3e-5 ppm at 3 T and 20 ms (16 rad per ppm), and 0.002 [4]_ is 1.2e-4 ppm.
    reg_ratio : float, optional
        :math:`\alpha_0 / \alpha_1`, in mean voxel edges: 3 in most implementations, 1.5 in [4]_.
        With less than 2, slopes that span few voxels are smooth as well; in heads it has little
        effect.
    robust : float or None, optional
        Slack, in ppm, beyond which the data term grows linearly (Huber), so that single wrong
        voxels do little harm. This package's choice; None is the published quadratic term.
    erosions : int, optional
        Layers of voxels to take off the mask; the susceptibility is zero there. Other
        implementations take off three, as the field is least reliable at the rim. With weights
        and ``robust`` none is best, by the error over the whole mask.
    max_iter : int, optional
        Largest number of iterations.
    tol : float, optional
        Stop when the relative change of the susceptibility is below this. The default is reached
        after 40 to 60 iterations in heads.
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
        If an argument is not valid, ``erosions`` leaves nothing of the mask, or no voxel of it
        has its eighteen neighbours inside, as in a single slice: there is no equation then.

    Notes
    -----
    The stencils have nineteen points, so that their ratio is the dipole kernel to fourth order;
    with seven, the equation is wrong by half as much again for tissue, and several times as much
    for the field of strong sources near the mask, which then does not look harmonic. Voxels of
    the rim, which have no equation of their own, count with a tenth of their weight: they share
    their volume with what is outside.

    The published solver, primal-dual steps [3]_ with local operators alone, needs a thousand
    iterations and more, as smooth parts pass on from voxel to voxel. Here the steps of
    :math:`\chi` and of the equation's multiplier are preconditioned by the inverse of a screened
    Laplacian, and over-relaxed: the two together undo the derivatives in :math:`\Box`, and some
    fifty iterations do, without a start on coarser grids. An iteration takes two FFT pairs on the
    unpadded bounding box, and stencils of about the time of one and a half; the step sizes take
    sixteen pairs before.

    References
    ----------
    .. [1] Langkammer C, et al. NeuroImage 2015;111:622-630.
       doi:10.1016/j.neuroimage.2015.02.041
    .. [2] Bredies K, et al. SIAM J Imaging Sci 2010;3:492-526. doi:10.1137/090769521
    .. [3] Chambolle A, Pock T. J Math Imaging Vis 2011;40:120-145.
       doi:10.1007/s10851-010-0251-1
    .. [4] QuantitativeSusceptibilityMappingTGV.jl,
       https://github.com/korbinian90/QuantitativeSusceptibilityMappingTGV.jl

    Examples
    --------
    >>> chi = np.zeros((24, 24, 24), np.float32)
    >>> chi[8:16, 8:16, 8:16] = 0.1
    >>> background = 0.2 * np.arange(24, dtype=np.float32)
    >>> field = ops.forward_field(chi, (1, 1, 1)) + background
    >>> estimate = tgv(field, np.ones(chi.shape, bool), (1, 1, 1))
    >>> bool(np.corrcoef(estimate.ravel(), chi.ravel())[0, 1] > 0.9)
    True
    """
    options = _check_options(reg_weight, reg_ratio, robust, erosions, max_iter)
    field, mask = check_volume(total_field, mask, 'total_field')

    def laplacian(grid, box):
        return grid.laplacian_of(grid.bends(field[box]))

    chi, history = _invert(laplacian, mask, voxel_size, b0_dir, weights, options, tol)
    return (chi, history) if return_history else chi


def tgv_phase(
    phase,
    mask,
    voxel_size,
    *,
    te,
    f0,
    magnitudes=None,
    b0_dir=(0.0, 0.0, 1.0),
    weights=None,
    reg_weight=1e-4,
    reg_ratio=3.0,
    robust=0.005,
    erosions=0,
    max_iter=80,
    tol=5e-3,
    return_history=False,
):
    r"""Invert the wrapped phase of all echoes in one step, with total generalised variation.

    As :func:`tgv`, with the Laplacian of the field from the phases :math:`\varphi_j`: nothing has
    to be unwrapped in space [1]_. With the phase of 1 ppm, :math:`k_j = 2\pi f_0\, TE_j`, and
    the magnitude :math:`m_j`, it is built from the means of second differences

    .. math:: \frac{\sum_j w_j\, (\partial^2 \varphi_j + 2\pi n_j) / k_j}{\sum_j w_j}, \quad
        w_j = m_j^2\, TE_j^2\, (1 + e_j^2 / c^2)^{-2}

    The multiples :math:`n_j` of 2 pi bring those of the first echo next to zero, and those of each
    further echo next to the mean of the echoes before. An echo that is :math:`e_j` off it, because
    it was dephased, is left out softly: :math:`c` is 0.5 rad, or 2.5 standard deviations of the
    noise where that is more. Where second differences of the first echo are less than pi,
    and the echoes agree, the result is that of the field.

    Parameters
    ----------
    phase : ndarray of float, shape (X, Y, Z, E)
        Phase, in rad, wrapped or not, rising with the field. Values outside ``mask`` are ignored.
        A phase offset that is not harmonic should be removed before.
    mask : ndarray of bool, shape (X, Y, Z)
        Region of interest.
    voxel_size : tuple of float
        Voxel edge lengths, in mm, in array-axis order.
    te : sequence of float, shape (E,)
        Echo times, in s, increasing.
    f0 : float
        Imaging frequency, in MHz.
    magnitudes : ndarray of float, shape (X, Y, Z, E), optional
        Magnitude of each echo, in arbitrary units. Equal ones by default.
    b0_dir, weights, reg_ratio, robust, max_iter, tol, return_history
        As for :func:`tgv`.
    reg_weight : float, optional
        As for :func:`tgv`. A single echo is noisier than several: 2e-4 suits one of 16 ms at 3 T,
        and earlier ones need more, in proportion to their noise in ppm.
    erosions : int, optional
        As for :func:`tgv`. With a single echo, 2 is better: at its rim, wraps closer than two
        voxels and signal voids are frequent.

    Returns
    -------
    chi : ndarray of float32, shape (X, Y, Z)
        Susceptibility, in ppm, zero outside ``mask``, not referenced to any tissue.
    history : list of float
        Only with ``return_history``.

    Raises
    ------
    ValueError
        As :func:`tgv`, and if the shapes of phase and magnitudes, the echo times or ``f0`` are
        not valid.

    References
    ----------
    .. [1] Langkammer C, et al. NeuroImage 2015;111:622-630.
       doi:10.1016/j.neuroimage.2015.02.041

    Examples
    --------
    >>> chi = np.zeros((24, 24, 24), np.float32)
    >>> chi[8:16, 8:16, 8:16] = 0.1
    >>> field = ops.forward_field(chi, (1, 1, 1)) + 0.1 * np.arange(24, dtype=np.float32)
    >>> mask, te = np.ones(chi.shape, bool), (0.01, 0.02)
    >>> wrapped = np.angle(np.exp(1j * radians_per_ppm(np.array(te), 127.7) * field[..., None]))
    >>> one = tgv_phase(wrapped, mask, (1, 1, 1), te=te, f0=127.7)
    >>> bool(np.allclose(one, tgv(field, mask, (1, 1, 1)), atol=1e-3))
    True
    """
    options = _check_options(reg_weight, reg_ratio, robust, erosions, max_iter)
    check_positive(f0=f0)
    mask = check_mask(mask, np.shape(phase)[:3], 'phase')
    scales = radians_per_ppm(check_echoes(phase, magnitudes, mask, te), f0)

    def laplacian(grid, box):
        return _phase_laplacian(grid, phase, magnitudes, mask, scales, box)

    chi, history = _invert(laplacian, mask, voxel_size, b0_dir, weights, options, tol)
    return (chi, history) if return_history else chi


def _phase_laplacian(grid, phase, magnitudes, mask, scales, box):
    """Return the Laplacian of the field, in ppm, from wrapped phases; see :func:`tgv_phase`."""
    mean = np.zeros((3, *grid.shape), np.float32)
    total = np.zeros(grid.shape, np.float32)
    level = 1.0 if magnitudes is None else float(_signal(magnitudes, mask, 0).max()) or 1.0
    for echo, scale in enumerate(scales):
        field, _ = check_volume(phase[..., echo], mask, f'phase of echo {echo + 1}')
        field /= np.float32(scale)
        period = np.float32(2 * math.pi / scale)
        bends = grid.bends(field[box])
        bends -= mean
        bends -= period * np.rint(bends / period)
        weight = mask if magnitudes is None else _signal(magnitudes, mask, echo)
        weight = (grid.placed(weight[box]) * np.float32(scale / scales[-1] / level)) ** 2
        if echo:
            weight *= _agreement(grid, bends, weight, total, np.float32(_DISAGREEMENT / scale))
        total += weight
        # Without any signal so far, the mean stays where it was.
        mean += bends * (weight / np.maximum(total, np.finfo(np.float32).tiny))
    return grid.laplacian_of(mean)


def _agreement(grid, misfit, weight, before, least):
    """Return the factor, at most 1, for an echo whose second differences are off the mean.

    The Geman-McClure factor of :func:`qsmflow.algorithms.field.sequential.sequential`: a misfit
    counts in units of what noise makes of it, but of ``least`` ppm at least.
    """
    misfit = np.abs(misfit).max(axis=0)
    # Variances by noise are inverse weights; without a signal on either side nothing can be said.
    expected = np.sqrt(sum(1 / np.maximum(w, np.float32(1e-12)) for w in (weight, before)))
    noise = np.median((misfit / expected)[grid.inner != 0]) / _MEDIAN_OF_THREE
    limit = np.maximum(least, CUTOFF * np.float32(noise) * expected)
    return (1 + (misfit / limit) ** 2) ** -2


def _signal(magnitudes, mask, echo):
    """Return the magnitude of one echo in the mask, zero where there is none."""
    signal = np.nan_to_num(magnitudes[..., echo], nan=0, posinf=0, neginf=0)
    return np.maximum(signal, 0, dtype=np.float32) * mask


def _check_options(reg_weight, reg_ratio, robust, erosions, max_iter):
    """Return both weights, the limit of the slack, and two counts."""
    check_positive(reg_weight=reg_weight, reg_ratio=reg_ratio)
    check_count(max_iter=max_iter)
    check_count(0, erosions=erosions)
    if robust is not None:
        check_positive(robust=robust)
    limit = np.finfo(np.float32).max if robust is None else robust
    return reg_weight, reg_ratio * reg_weight, limit, int(erosions), int(max_iter)


def _invert(laplacian, mask, voxel_size, b0_dir, weights, options, tol):
    """Solve for the Laplacian of a field that a function of grid and bounding box returns."""
    *penalty, erosions, max_iter = options
    voxel_size = check_voxel_size(voxel_size)
    weights = check_weights(weights, mask)
    if erosions:
        mask = _eroded(mask, erosions)
    box = ops.bounding_box(mask)
    grid = Grid(mask[box], relative_voxel_size(voxel_size), b0_dir)
    if not grid.inner.any():
        raise ValueError(
            'The mask has no voxel whose eighteen neighbours are all inside, so that the equation '
            f'of TGV holds nowhere (erosions: {erosions}). Check the mask, or take another '
            'inversion.'
        )
    chi = np.zeros(mask.shape, np.float32)
    solver = _PrimalDual(grid, laplacian(grid, box), weights[box], *penalty)
    history = []
    for _ in range(max_iter):
        history.append(solver.iterate())
        if history[-1] < tol:
            break
    chi[box] = solver.chi[grid.data]
    return chi, history


def _eroded(mask, erosions):
    out = ndimage.binary_erosion(mask, iterations=erosions)
    if not out.any():
        raise ValueError(
            f'erosions={erosions} leaves nothing of a mask of {np.count_nonzero(mask)} voxels. '
            'Take fewer, or check the mask.'
        )
    return out


class _PrimalDual:
    """The state of the preconditioned primal-dual iteration, and its steps."""

    def __init__(self, grid, source, weights, alpha1, alpha0, limit):
        self.grid, self.source = grid, source
        self.weight2 = (grid.placed(weights) * grid.rim(_RIM_WEIGHT)) ** 2
        self.alphas = np.float32(alpha1), np.float32(alpha0)
        self.limit = np.float32(limit)
        self.chi, self.chi_bar, self.eta, self.eta_bar, self.multiplier, self.work = (
            np.zeros(grid.shape, np.float32) for _ in range(6)
        )
        self.w, self.w_bar, self.p = (np.zeros((3, *grid.shape), np.float32) for _ in range(3))
        self.q = np.zeros((6, *grid.shape), np.float32)
        tau = _TAU / math.sqrt(alpha1)
        steps = step_sizes(tau, grid.norms(), grid.steps)
        self.tau, self.tau_eta, self.tau_w, self.sigma_v, self.sigma_p, self.sigma_q = steps

    def iterate(self):
        """Take one step of all variables and return the relative change of chi."""
        grid = self.grid
        ops.use_threads()
        kernels.dual_step(
            self.chi_bar, self.w_bar, self.eta_bar, grid.mask, grid.inner, self.source,
            grid.wave, grid.laplacian, grid.inverse, self.sigma_p, self.sigma_q, *self.alphas,
            _RELAX, grid.rows, self.p, self.q, self.work,
        )  # fmt: skip
        upward = grid.smoothed(self.work)
        factor = _RELAX * self.sigma_v
        kernels.add_inside(upward, factor, grid.inner, grid.rows, self.multiplier)
        kernels.primal_step(
            self.multiplier, self.p, self.q, grid.mask, grid.inner, self.weight2, grid.wave,
            grid.laplacian, grid.inverse, self.tau_eta, self.tau_w, self.limit, _RELAX,
            grid.rows, self.w, self.eta, self.w_bar, self.eta_bar, self.work,
        )  # fmt: skip
        downward = grid.smoothed(self.work)
        change = kernels.chi_step(
            downward, self.tau, _RELAX, grid.mask, grid.rows, self.chi, self.chi_bar
        )
        return math.sqrt(change)


def step_sizes(tau, norms, steps):
    """Return the steps of chi, eta and w, and of the multipliers of the three equations.

    Parameters
    ----------
    tau : float
        Step of the susceptibility.
    norms : tuple of float
        Squared norms of the operators of the data equation, as `Grid.norms` returns them.
    steps : tuple of float
        Relative voxel edge lengths.

    Returns
    -------
    tuple of float32
    """
    slack, wave, smooth, vector, bend = _SHARES
    sigma_v = wave / (norms[1] * tau)
    sigma_p = smooth / tau
    tau_eta = slack / (norms[0] * sigma_v)
    tau_w = vector / sigma_p
    sigma_q = bend / (4 * sum(h**-2 for h in steps) * tau_w)
    return tuple(np.float32(s) for s in (tau, tau_eta, tau_w, sigma_v, sigma_p, sigma_q))
