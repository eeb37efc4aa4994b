"""Dipole sources fitted to a field: the least squares of background removal."""

import numpy as np

from qsmflow.algorithms import _kernels as kernels
from qsmflow.algorithms import operators as ops
from qsmflow.algorithms.solvers import cgls


def fit_sources(field, weight, scale, dipoles, iterations, tol=0.0):
    r"""Fit sources to a field by weighted least squares, on coarse grids first.

    .. math:: \min_x \| W (f - d * S x) \|^2

    by conjugate gradients, whose early end is what regularises. Each grid is half as fine as the
    one before; what a coarse grid finds is where the next one begins. Smooth fields, which cost
    most iterations, so converge where an iteration costs little.

    Parameters
    ----------
    field : ndarray of float32, shape (X, Y, Z)
        Field :math:`f` on the padded grid, in ppm.
    weight : ndarray of float32, shape (X, Y, Z)
        Weight :math:`W`; zero where there is no field.
    scale : ndarray of float32, shape (X, Y, Z)
        Expected size :math:`S` of the sources.
    dipoles : sequence of ndarray of float32
        Kernels of the grids, the finest first; one for each entry of ``iterations``.
    iterations : sequence of int
        Largest number of iterations on each grid, the finest first.
    tol : float, optional
        Each grid stops when the relative norm of the gradient is below this.

    Returns
    -------
    sources : ndarray of float32, shape (X, Y, Z)
        Sources :math:`S x`, in ppm.
    history : list of float
        Relative norm of the gradient after each iteration on the finest grid.
    """
    x, history = _nested(field, weight, scale, dipoles, iterations, tol)
    x *= scale
    return x, history


def _nested(field, weight, scale, dipoles, iterations, tol):
    start = None
    if len(iterations) > 1:
        start, _ = _nested(*_halved(field, weight, scale), dipoles[1:], iterations[1:], tol)
        for axis in range(3):
            start = np.repeat(start, 2, axis)
    return _conjugate_gradients(field, weight, scale, dipoles[0], start, iterations[0], tol)


def _halved(field, weight, scale):
    """Return field, weight and scale on a grid of half the fineness."""
    weight2 = weight**2
    total = _block_sum(weight2)
    mean = np.divide(_block_sum(field * weight2), total, out=np.zeros_like(total), where=total > 0)
    return mean, np.sqrt(total / 8), np.sqrt(_block_sum(scale**2) / 8)


def _block_sum(volume):
    pairs = [n for size in volume.shape for n in (size // 2, 2)]
    return volume.reshape(pairs).sum(axis=(1, 3, 5))


def _conjugate_gradients(field, weight, scale, kernel, start, max_iter, tol):
    buffer = np.empty(field.shape, np.float32)

    def between(x, before, after):
        ops.use_threads()
        kernels.multiply(x, before, buffer)
        spectrum = ops.rfft(buffer)
        kernels.filter_spectrum(spectrum, kernel)
        image = ops.irfft(spectrum, field.shape)
        kernels.multiply(image, after, image)
        return image

    return cgls(
        lambda x: between(x, scale, weight),
        lambda residual: between(residual, weight, scale),
        field * weight,
        start=start,
        max_iter=max_iter,
        tol=tol,
    )
