"""The descent of MEDI: nonlinear data term and smoothed L1 norm of the masked gradient."""

import math

import numpy as np

from qsmflow.algorithms import operators as ops
from qsmflow.algorithms.inversion import _descent_kernels as shared
from qsmflow.algorithms.inversion import _medi_kernels as kernels
from qsmflow.algorithms.inversion._descent import Directions


class MediDescent:
    r"""Conjugate gradients on the objective of MEDI, from zero.

    .. math:: \tfrac12 \| W (e^{i s d * \chi} - e^{i s f}) \|^2 / s^2
        + \sum_{i} m_i \left(\sqrt{(\nabla_i \chi)^2 + \epsilon^2} - \epsilon\right)
        + \tfrac{\kappa}{2} \| M_C (\chi - \bar\chi_C) \|^2

    The step along each direction is that of the Gauss-Newton quadratic with the norm's lagged
    weights :math:`m_i / \sqrt{(\nabla_i \chi)^2 + \epsilon^2}`. It touches the objective from
    above, so that no step raises the objective and no line search is needed.
    """

    def __init__(self, problem, faces, scale, epsilon):
        self.problem = problem
        self.faces = faces
        self.scale = np.float32(scale)
        self.epsilon = np.float32(epsilon)
        self.directions = Directions(problem.grid)
        self.chi = np.zeros(problem.grid, np.float32)
        self.model = np.zeros(problem.grid, np.float32)
        self.inverse = np.empty(problem.kernel.shape, np.float32)
        self.data_scale = np.float32(problem.weight2[problem.inside].mean(dtype=np.float64))
        self.smooth = np.float32(faces.mean(dtype=np.float64) / epsilon)
        self.uniform = np.empty(0, np.intp)
        self.uniform_weight = np.float32(0)
        self.residual = np.empty(problem.grid, np.float32)
        self._refresh()

    def _refresh(self):
        """Set the data term's gradient by the field, after a change of weights."""
        problem = self.problem
        ops.use_threads()
        shared.data_gradient(self.model, problem.field, problem.weight2, self.scale, self.residual)

    def join(self, region, weight):
        """Let the susceptibility of a region, boolean on the padded grid, tend to its mean."""
        self.uniform = np.flatnonzero(region)
        self.uniform_weight = np.float32(weight)
        self._refresh()

    def run(self, max_iter, tol):
        """Iterate in place and return the relative changes of the susceptibility."""
        history = []
        while len(history) < max_iter:
            change = self._iterate()
            if change is None:
                break
            history.append(change)
            if change < tol:
                break
        return history

    def _iterate(self):
        problem = self.problem
        gradient = self._gradient()
        kernels.fill_inverse(
            self.inverse, problem.kernel, *problem.eigenvalues, self.data_scale, self.smooth
        )
        slope, image = self.directions.turn(gradient, self.inverse, problem.kernel)
        direction = ops.irfft(self.directions.direction.copy(), problem.grid)
        image = ops.irfft(image, problem.grid)
        curvature = self._curvature(direction, image)
        if not (slope < 0 and curvature > 0):
            self._refresh()
            return None
        step = np.float32(-slope / curvature)
        change = kernels.advance(self.chi, direction, step, problem.inside)
        shared.advance_model(self.model, image, step, problem.field, problem.weight2, self.scale)
        self.residual = image
        return math.sqrt(change)

    def _gradient(self):
        """Return the spectrum of the objective's gradient."""
        problem = self.problem
        gradient = ops.rfft(self.residual)
        # The residual is in the spectrum: its array takes the gradient of the norm.
        bend = self.residual
        kernels.edge_gradient(self.chi, self.faces, *problem.steps, self.epsilon**2, bend)
        bend.ravel()[self.uniform] += self._uniform_pull(self.chi)
        shared.add_spectrum(gradient, problem.kernel, ops.rfft(bend))
        return gradient

    def _curvature(self, direction, image):
        """Return the curvature along a direction, and set the preconditioner's weight."""
        problem = self.problem
        edges, weights = kernels.edge_curvature(
            self.chi, direction, self.faces, *problem.steps, self.epsilon**2
        )
        self.smooth = np.float32(weights / self.faces.size)
        pull = self._uniform_pull(direction).astype(np.float64)
        homogeneous = float(pull @ direction.ravel()[self.uniform])
        return shared.weighted_square(problem.weight2, image) + edges + homogeneous

    def _uniform_pull(self, volume):
        values = volume.ravel()[self.uniform]
        if values.size:
            values = self.uniform_weight * (values - values.mean(dtype=np.float64)).astype(
                np.float32
            )
        return values

    def trust_less(self, factor):
        r"""Lower the weights of voxels whose misfit exceeds ``factor`` standard deviations.

        Returns whether there was one.
        """
        problem = self.problem
        misfit = np.sin((0.5 * self.scale) * (self.model - problem.field))
        np.abs(misfit, out=misfit)
        misfit *= 2 * np.sqrt(problem.weight2)
        limit = factor * float(misfit[problem.weight2 > 0].std(dtype=np.float64))
        far = misfit > limit
        if limit == 0 or not far.any():
            return False
        problem.weight2[far] *= (limit / misfit[far]) ** 4
        self._refresh()
        return True


def face_weights(inside, reg_weight, outside_weight, *, magnitude=None, steps=None, fraction=0.0):
    """Return the weights of the faces between voxels, zero on edges of the magnitude.

    Parameters
    ----------
    inside : ndarray of bool, shape (X, Y, Z)
        Mask on the padded grid.
    reg_weight : float
        Weight between two voxels of the mask.
    outside_weight : float
        Factor of the weights elsewhere.
    magnitude : ndarray of float32, shape (X, Y, Z), optional
        Magnitude on the padded grid. Without it there are no edges.
    steps : tuple of float32, optional
        Inverse voxel edges, with ``magnitude``.
    fraction : float, optional
        Share of the faces between voxels of the mask that count as edges, the steepest first.

    Returns
    -------
    ndarray of float32, shape (3, X, Y, Z)
        Weight of the face between each voxel and its next neighbour along each axis.

    Examples
    --------
    >>> inside = np.array([[[False, True, True, True]]])
    >>> magnitude = np.array([[[0, 1, 1, 3]]], np.float32)
    >>> face_weights(inside, 1, 0.1, magnitude=magnitude, steps=(1, 1, 1), fraction=0.1)[2]
    array([[[0.1, 1. , 0. , 0.1]]], dtype=float32)
    """
    slopes = np.empty((3, *inside.shape), np.float32)
    level = np.inf
    if magnitude is None:
        magnitude, steps, fraction = np.zeros(inside.shape, np.float32), (1, 1, 1), 0.0
    ops.use_threads()
    kernels.face_slopes(inside, magnitude, *(np.float32(s) for s in steps), slopes)
    if fraction:
        values = slopes[slopes >= 0]
        count = round(fraction * values.size)
        level = np.partition(values, -count)[-count] if count else level
    kernels.weigh_slopes(
        slopes, np.float32(level), np.float32(reg_weight), np.float32(reg_weight * outside_weight)
    )
    return slopes
