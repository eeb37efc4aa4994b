"""Least squares in the Fourier domain: one FFT pair for each product with a kernel.

Where the unknown of a normal equation is kept as a spectrum, both its transforms at the ends
drop out, which halves the cost of an iteration.
"""

import math

import numpy as np

from qsmflow.algorithms import _kernels as kernels
from qsmflow.algorithms import operators as ops
from qsmflow.algorithms.solvers import conjugate_gradient


def solve_normal(multiplier, operator, rhs, grid, *, max_iter, tol):
    r"""Solve :math:`P \mathcal{F} O \mathcal{F}^{-1} P\, y = b` by conjugate gradients from zero.

    The normal equation of least squares whose forward model is a Fourier filter :math:`P` and
    then an operator of which :math:`O` is the square.

    Parameters
    ----------
    multiplier : ndarray of float32, shape (X, Y, Z // 2 + 1)
        Half spectrum of the real filter :math:`P`.
    operator : callable
        ``operator(volume) -> O volume``, symmetric and positive semidefinite; it may overwrite
        its argument and return a reusable array.
    rhs : ndarray of complex64, shape (X, Y, Z // 2 + 1)
        Half spectrum :math:`b`, in the range of the whole operator; its content is lost.
    grid : tuple of int
        Shape (X, Y, Z) of the volumes.
    max_iter : int
        Largest number of iterations.
    tol : float
        Stop when the norm of the residual is below ``tol`` times that of ``rhs``.

    Returns
    -------
    y : ndarray of complex64, shape (X, Y, Z // 2 + 1)
        Half spectrum of the solution.
    history : list of float
        Relative norm of the residual after each iteration.

    Notes
    -----
    One FFT pair per iteration. The planes of a half spectrum that stand for two frequencies are
    scaled by the root of two inside, so that inner products are those of the full spectrum.

    Examples
    --------
    >>> rhs = ops.rfft(np.random.default_rng(0).normal(size=(4, 4, 4)).astype(np.float32))
    >>> twice = np.full((4, 4, 3), 2, np.float32)
    >>> y, _ = solve_normal(twice, lambda v: v, rhs.copy(), (4, 4, 4), max_iter=9, tol=1e-6)
    >>> bool(np.allclose(4 * y, rhs, atol=1e-4))
    True
    """
    scale = _half_scale(grid[2])
    inward, outward = multiplier / scale, multiplier * scale
    buffer = np.empty(rhs.shape, np.complex64)
    ops.use_threads()

    def apply(y):
        kernels.filtered(y.view(np.complex64), inward, buffer)
        image = ops.rfft(operator(ops.irfft(buffer, grid)))
        kernels.filter_spectrum(image, outward)
        return image.view(np.float32)

    rhs *= scale
    y, history = conjugate_gradient(apply, rhs.view(np.float32), max_iter=max_iter, tol=tol)
    y = y.view(np.complex64)
    y /= scale
    return y, history


def _half_scale(n):
    """Return the root of the number of frequencies that each plane of a half spectrum holds."""
    scale = np.full(n // 2 + 1, math.sqrt(2), np.float32)
    scale[0] = 1
    if n % 2 == 0:
        scale[-1] = 1
    return scale
