"""Preconditioned conjugate gradients with the unknown kept as a half spectrum.

Kept so, the dipole and every convolution penalty or preconditioner are products, and one
iteration on a data term costs one pair of transforms: the field of the search direction, and the
spectrum of the data term's gradient.
"""

import math

import numpy as np

from qsmflow.algorithms import operators as ops
from qsmflow.algorithms.inversion import _descent_kernels as kernels


class Directions:
    """The search directions of nonlinear conjugate gradients (Polak-Ribiere, not negative).

    References
    ----------
    .. [1] Polak E, Ribiere G. Rev Fr Inform Rech Oper 1969;16:35-43.
    """

    def __init__(self, grid):
        shape = (*grid[:2], grid[2] // 2 + 1)
        self.voxels = float(np.prod(grid))
        # The last frequency of an even axis has no counterpart of opposite sign.
        self.even = grid[2] % 2 == 0
        self.direction = np.zeros(shape, np.complex64)
        #: Inner product of the direction with its product with the penalty.
        self.penalty_square = 0.0
        self._previous = np.zeros(shape, np.complex64)
        self._square = 0.0

    def turn(self, gradient, inverse, kernel):
        """Return slope and field spectrum of the next direction; keeps ``gradient``.

        ``inverse`` is the preconditioner, ``kernel`` what makes a field of an unknown.
        """
        ops.use_threads()
        products = kernels.inner_products(gradient, self._previous, inverse, self.even)
        return self._turn(gradient, inverse, kernel, None, *products)

    def turn_for(self, gradient, inverse, kernel, penalty, unknown):
        """Return what ``turn`` does, for the gradient by the field of an unknown.

        ``gradient`` becomes that by the unknown itself, with a ``penalty`` or None.
        """
        ops.use_threads()
        products = kernels.gradient_products(
            gradient, kernel, penalty, unknown, self._previous, inverse, self.even
        )
        return self._turn(gradient, inverse, kernel, penalty, *products)

    def _turn(self, gradient, inverse, kernel, penalty, square, cross):
        beta = max(0.0, (square - cross) / self._square) if self._square > 0 else 0.0
        image, self._previous, self._square = self._previous, gradient, square
        multipliers = inverse, kernel, penalty
        for factor in (beta, 0.0):
            slope, bent = kernels.turn(
                self.direction, np.float32(factor), gradient, *multipliers, image, self.even
            )
            if slope <= 0:
                break
        self.penalty_square = bent / self.voxels
        return slope / self.voxels, image


def least_squares(field, weight2, kernel, penalty, inverse, *, scale=0.0, max_iter, tol):
    r"""Minimise a data term with a convolution penalty, from zero.

    .. math:: \min_x \tfrac12 \| W (e^{i s K x} - e^{i s f}) \|^2 / s^2
        + \tfrac12 \langle x, R x \rangle

    Parameters
    ----------
    field, weight2 : ndarray of float32, shape (X, Y, Z)
        Data :math:`f` and squared weights :math:`W^2` on the padded grid.
    kernel, penalty, inverse : ndarray of float32, shape (X, Y, Z // 2 + 1)
        Multipliers of :math:`K`, of :math:`R` (or None), and of the preconditioner.
    scale : float
        Phase :math:`s` of one unit of the field, in rad; 0 for the linear limit
        :math:`\tfrac12 \| W (K x - f) \|^2`.
    max_iter : int
        Largest number of iterations; one transform pair each.
    tol : float
        Stop when the relative change of the unknown is below this.

    Returns
    -------
    x : ndarray of float32, shape (X, Y, Z)
        Minimiser.
    history : list of float
        Relative change in each iteration.
    """
    directions = Directions(field.shape)
    unknown = np.zeros(kernel.shape, np.complex64)
    model = np.zeros_like(field)
    residual = np.empty_like(field)
    scale = np.float32(scale)
    ops.use_threads()
    kernels.data_gradient(model, field, weight2, scale, residual)
    history = []
    for _ in range(int(max_iter)):
        gradient = ops.rfft(residual)
        slope, image = directions.turn_for(gradient, inverse, kernel, penalty, unknown)
        residual = ops.irfft(image, field.shape)
        curvature = kernels.weighted_square(weight2, residual) + directions.penalty_square
        if not (slope < 0 and curvature > 0):
            break
        step = np.float32(-slope / curvature)
        kernels.advance_model(model, residual, step, field, weight2, scale)
        change = kernels.advance_spectrum(unknown, directions.direction, step)
        history.append(math.sqrt(change))
        if history[-1] < tol:
            break
    return ops.irfft(unknown, field.shape), history


def preconditioner(kernel, penalty, weight2):
    """Return the inverse of the normal equations for equal weights, as a half spectrum.

    Parameters
    ----------
    kernel, penalty : ndarray of float32, shape (X, Y, Z // 2 + 1)
        Multipliers of the model and of the penalty.
    weight2 : ndarray of float32, shape (X, Y, Z)
        Squared weights; their mean where they are not zero stands for all of them.

    Returns
    -------
    ndarray of float32, shape (X, Y, Z // 2 + 1)
        Zero where neither data nor penalty say anything.
    """
    mean = weight2.sum(dtype=np.float64) / max(np.count_nonzero(weight2), 1)
    inverse = np.empty_like(kernel)
    ops.use_threads()
    kernels.invert(kernel, np.float32(mean), penalty, inverse)
    return inverse


def full_mean(half, grid):
    """Return the mean over all frequencies of a real even multiplier.

    Parameters
    ----------
    half : ndarray of float32, shape (X, Y, Z // 2 + 1)
        Half spectrum of the multiplier.
    grid : tuple of int
        Shape (X, Y, Z) of the volumes.

    Returns
    -------
    float32

    Examples
    --------
    >>> float(full_mean(np.ones((4, 4, 3), np.float32), (4, 4, 4)))
    1.0
    """
    twice = np.full(half.shape[2], 2.0)
    twice[0] = 1.0
    if grid[2] % 2 == 0:
        twice[-1] = 1.0
    return np.float32((half.sum(axis=(0, 1), dtype=np.float64) @ twice) / np.prod(grid))
