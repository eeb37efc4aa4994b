"""Dipole sources fitted to a field: the least squares of background removal."""

import numpy as np

from qsmflow.algorithms import _kernels as kernels
from qsmflow.algorithms import operators as ops
from qsmflow.algorithms._jit import njit, prange
from qsmflow.algorithms._voxels import Voxels
from qsmflow.algorithms.solvers import add_scaled, dot, scale_add


def fit_sources(inside, field, weight, scale, dipoles, iterations, tol=0.0):
    r"""Fit sources to a field by weighted least squares, on coarse grids first.

    .. math:: \min_x \| W (f - d * S x) \|^2

    by conjugate gradients, whose early end is what regularises. Each grid is half as fine as the
    one before; what a coarse grid finds is where the next one begins. Smooth fields, which cost
    most iterations, so converge where an iteration costs little.

    All sources that the iteration visits are :math:`x = x_0 + S\,d * W y` with a list :math:`y`
    over the voxels of the mask. It works on such lists, a fraction of the padded grid, and needs
    volumes for the transforms only.

    Parameters
    ----------
    inside : ndarray of bool, shape (X, Y, Z)
        Mask, at the start of the padded grid: the voxels with a field.
    field : ndarray of float32, shape (N,)
        Field :math:`f` at the voxels of the mask, in ppm.
    weight : ndarray of float32, shape (N,)
        Weight :math:`W` at the voxels of the mask.
    scale : ndarray of float32, shape (X', Y', Z')
        Expected size :math:`S` of the sources, on the padded grid.
    dipoles : sequence of ndarray of float32
        Kernels of the grids, the finest first; one for each entry of ``iterations``. The shape of
        each next grid is the `coarse_grid` of the one before.
    iterations : sequence of int
        Largest number of iterations on each grid, the finest first.
    tol : float, optional
        Each grid stops when the relative norm of the gradient is below this.

    Returns
    -------
    sources : ndarray of float32, shape (X', Y', Z')
        Sources :math:`S x`, in ppm.
    history : list of float
        Relative norm of the gradient with which each iteration on the finest grid began.
    """
    x, history = _nested(Voxels(inside), field, weight, scale, dipoles, iterations, tol)
    kernels.multiply(x, scale, x)
    return x, history


def coarse_grid(grid):
    """Return the shape of the grid of half the fineness, a fast one for transforms.

    Parameters
    ----------
    grid : tuple of int
        Shape of a padded grid.

    Returns
    -------
    tuple of int

    Examples
    --------
    >>> coarse_grid((180, 225, 16))
    (90, 120, 8)
    """
    return ops.pad_shape([(n + 1) // 2 for n in grid], 0)


def _nested(voxels, field, weight, scale, dipoles, iterations, tol):
    coarse = None
    if len(iterations) > 1:
        halved = _halved(voxels, field, weight, scale)
        coarse, _ = _nested(*halved, dipoles[1:], iterations[1:], tol)
    return _System(voxels, weight, scale, dipoles[0]).solve(field, coarse, iterations[0], tol)


def _halved(voxels, field, weight, scale):
    """Return voxels, field, weight and scale on a grid of half the fineness."""
    shape = [(n + 1) // 2 for n in voxels.mask.shape]
    moment, total = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    coarse_scale = np.empty(coarse_grid(scale.shape), np.float32)
    ops.use_threads()
    _sum_blocks(field, weight, voxels.mask, voxels.starts, moment, total)
    _block_size(scale, coarse_scale)
    known = total > 0
    total = total[known]
    return Voxels(known), moment[known] / total, np.sqrt(total / 8), coarse_scale


class _System:
    """The operator :math:`A = W d * S` from sources on a padded grid to a list of voxels."""

    def __init__(self, voxels, weight, scale, kernel):
        self.voxels = voxels
        self.list = weight, voxels.mask, voxels.starts
        self.scale = scale
        self.kernel = kernel
        # Zero outside the mask for good.
        self.padded = np.zeros(scale.shape, np.float32)

    def solve(self, field, coarse, max_iter, tol):
        """Return the sources that conjugate gradients find, and the history.

        ``coarse`` is what a grid of half the fineness found, or None.
        """
        residual = field * self.list[0]
        if coarse is not None:
            start = np.empty(self.scale.shape, np.float32)
            ops.use_threads()
            _refine(coarse, self.scale, start)
            residual -= self._field_of(start)
            del start
        solution, history = self._iterate(residual, max_iter, tol)
        sources = self._back(solution)
        ops.use_threads()
        _add_start(self.scale, np.zeros((1, 1, 1), np.float32) if coarse is None else coarse,
                   sources)  # fmt: skip
        return sources, history

    def _iterate(self, residual, max_iter, tol):
        # The conjugate gradients of the least squares, written for y: one product with A A^T.
        solution = np.zeros_like(residual)
        image_of_residual = self._normal(residual) if max_iter > 0 else solution
        direction, image = residual.copy(), image_of_residual.copy()
        gamma = first = dot(residual, image_of_residual)
        history = []
        while gamma > 0 and len(history) < max_iter and (gamma / first) ** 0.5 >= tol:
            curvature = dot(image, image)
            if curvature <= 0:
                break
            history.append((gamma / first) ** 0.5)
            add_scaled(solution, gamma / curvature, direction)
            if len(history) == max_iter:
                break
            add_scaled(residual, -gamma / curvature, image)
            image_of_residual = self._normal(residual)
            previous, gamma = gamma, dot(residual, image_of_residual)
            scale_add(direction, gamma / previous, residual)
            scale_add(image, gamma / previous, image_of_residual)
        return solution, history

    def _normal(self, values):
        """Return the product with A A^T."""
        volume = self._back(values)
        ops.use_threads()
        _scale_twice(volume, self.scale)
        return self._field_of(volume)

    def _back(self, values):
        """Return the product of the kernel with the weighted values of a list."""
        ops.use_threads()
        _spread(values, *self.list, self.padded)
        return ops.convolve(self.padded, self.kernel)

    def _field_of(self, sources):
        """Return the weighted field of sources, as a list."""
        field = ops.convolve(sources, self.kernel)
        out = np.empty(len(self.voxels), np.float32)
        ops.use_threads()
        _collect(field, *self.list, out)
        return out


# --- compiled loops ---------------------------------------------------------------------------


@njit(cache=True, parallel=True)
def _spread(values, weight, mask, starts, out):
    for i in prange(mask.shape[0]):
        v = starts[i]
        for j in range(mask.shape[1]):
            for k in range(mask.shape[2]):
                if mask[i, j, k]:
                    out[i, j, k] = values[v] * weight[v]
                    v += 1


@njit(cache=True, parallel=True)
def _collect(volume, weight, mask, starts, out):
    for i in prange(mask.shape[0]):
        v = starts[i]
        for j in range(mask.shape[1]):
            for k in range(mask.shape[2]):
                if mask[i, j, k]:
                    out[v] = volume[i, j, k] * weight[v]
                    v += 1


@njit(cache=True, parallel=True)
def _scale_twice(volume, scale):
    for i in prange(volume.shape[0]):
        for j in range(volume.shape[1]):
            for k in range(volume.shape[2]):
                volume[i, j, k] *= scale[i, j, k] * scale[i, j, k]


@njit(cache=True, parallel=True)
def _refine(coarse, scale, out):
    for i in prange(out.shape[0]):
        for j in range(out.shape[1]):
            for k in range(out.shape[2]):
                out[i, j, k] = scale[i, j, k] * coarse[i // 2, j // 2, k // 2]


@njit(cache=True, parallel=True)
def _add_start(scale, coarse, volume):
    # A single coarse voxel stands for none.
    none = coarse.size == 1
    for i in prange(volume.shape[0]):
        for j in range(volume.shape[1]):
            for k in range(volume.shape[2]):
                start = np.float32(0) if none else coarse[i // 2, j // 2, k // 2]
                volume[i, j, k] = start + scale[i, j, k] * volume[i, j, k]


@njit(cache=True, parallel=True)
def _sum_blocks(field, weight, mask, starts, moment, total):
    for i in prange(total.shape[0]):
        for p in range(2 * i, min(2 * i + 2, mask.shape[0])):
            v = starts[p]
            for j in range(mask.shape[1]):
                for k in range(mask.shape[2]):
                    if mask[p, j, k]:
                        weight2 = weight[v] * weight[v]
                        moment[i, j // 2, k // 2] += weight2 * field[v]
                        total[i, j // 2, k // 2] += weight2
                        v += 1


@njit(cache=True, parallel=True)
def _block_size(scale, out):
    # The root of the mean square over blocks of 2 x 2 x 2 voxels; the grid ends with its last one.
    nx, ny, nz = scale.shape
    for i in prange(out.shape[0]):
        for j in range(out.shape[1]):
            for k in range(out.shape[2]):
                total = np.float32(0)
                for p in range(2 * i, 2 * i + 2):
                    for q in range(2 * j, 2 * j + 2):
                        for r in range(2 * k, 2 * k + 2):
                            size = scale[min(p, nx - 1), min(q, ny - 1), min(r, nz - 1)]
                            total += size * size
                out[i, j, k] = np.sqrt(total / np.float32(8))
