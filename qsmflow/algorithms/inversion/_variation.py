"""Penalties on the variation of susceptibility, as splits for `_admm`.

Each has ``rho``, the parameter of its split, and ``update(chi)``, which returns the source of the
next susceptibility as `GradientSplit.update` does. Penalties are weights of voxels, shape
(1, X, Y, Z), or of the differences along each axis, shape (3, X, Y, Z).
"""

import numpy as np

from qsmflow.algorithms import _kernels as kernels
from qsmflow.algorithms import operators as ops
from qsmflow.algorithms._checks import check_volume
from qsmflow.algorithms.inversion import _admm_kernels as steps
from qsmflow.algorithms.inversion._problem import GradientSplit


def make_penalty(problem, magnitude, outside_weight):
    """Return weights that are ``outside_weight`` outside the mask and have mean 1 inside.

    Without a magnitude they are 1 inside. With one they are low across its edges, along each axis
    ``1 / (1 + difference / scale)``; the scale is the robust standard deviation of the differences
    in the mask, so that what is no more than noise or texture keeps its weight.
    """
    if magnitude is None:
        return np.where(problem.inside, np.float32(1), np.float32(outside_weight))[None]
    magnitude, _ = check_volume(magnitude, problem.mask, 'magnitude')
    inside = problem.mask[problem.box]
    edges = ops.gradient(magnitude[problem.box])
    np.abs(edges, out=edges)
    edges *= np.reshape(problem.steps, (3, 1, 1, 1))
    within = np.stack([inside & _next(inside, axis) for axis in range(3)])
    edges *= within
    edges /= _scale(edges[within])
    edges += 1
    np.reciprocal(edges, out=edges)
    edges /= edges[:, inside].mean(dtype=np.float64)
    penalty = np.full((3, *problem.grid), outside_weight, np.float32)
    for along, part in zip(penalty, edges, strict=True):
        np.copyto(ops.crop(along, inside.shape), part, where=inside)
    return penalty


def _next(inside, axis):
    """Return whether the next voxel along an axis is inside; the last has none."""
    found = np.zeros_like(inside)
    last = inside.shape[axis] - 1
    here, there = [slice(None)] * 3, [slice(None)] * 3
    here[axis], there[axis] = slice(0, last), slice(1, None)
    found[tuple(here)] = inside[tuple(there)]
    return found


def _scale(differences):
    """Return the robust standard deviation, the mean where that is zero, or one."""
    if not differences.any():
        return np.float32(1)
    return np.float32(1.4826 * np.median(differences) or differences.mean(dtype=np.float64))


def _uneven(penalty):
    """Return the bounds, in each row, of voxels whose penalties differ between the axes."""
    bounds = np.zeros((*penalty.shape[1:3], 2), np.int64)
    if len(penalty) > 1:
        ops.use_threads()
        steps.find_uneven(penalty, bounds)
    return bounds


class TotalVariation:
    """Total variation with isotropic norm."""

    def __init__(self, problem, penalty, reg_weight, rho):
        self.split = GradientSplit(problem.grid, problem.steps)
        self.penalty = penalty
        self.uneven = _uneven(penalty)
        self.rho = rho
        self.level = np.float32(reg_weight / rho)

    def update(self, chi):
        """Return the source of the next susceptibility."""
        split = self.split
        if len(self.penalty) == 1:
            return split.update(chi, self.penalty[0], self.level)
        ops.use_threads()
        steps.project_weighted(
            chi, self.penalty, self.uneven, self.level, *split.steps, split.dual
        )
        kernels.dual_source(split.dual, *split.steps, split.divergence, split.source)
        return split.source


class GeneralisedVariation:
    """The splits of second-order total generalised variation.

    The vector field moves by a gradient step before each susceptibility and follows its gradient
    after it: a symmetric sweep over both, with the limit of their joint solution in the Fourier
    domain, which would take five pairs of transforms where this takes two.
    """

    #: Ratio of the parameters of the second split and the first.
    ratio = 1.0

    def __init__(self, problem, penalty, reg_weight, second_weight, rho):
        grid = problem.grid
        self.penalty, self.second_penalty = penalty, penalty.mean(axis=0)
        self.uneven = _uneven(penalty)
        self.steps = problem.steps
        self.rho = rho
        self.level = np.float32(reg_weight / rho)
        self.second_level = np.float32(second_weight / (self.ratio * rho))
        # The derivative of a vector field has at most the norm of the gradient.
        norm2 = 4 * sum(float(step) ** 2 for step in problem.steps)
        self.step = np.float32(1 / (1 + self.ratio * norm2))
        self.vector = np.zeros((3, *grid), np.float32)
        self.dual = np.zeros((3, *grid), np.float32)
        self.tensor_dual = np.zeros((6, *grid), np.float32)
        self.pull = np.zeros((3, *grid), np.float32)
        self.dual_divergence = np.zeros(grid, np.float32)
        self.divergence = np.empty(grid, np.float32)
        self.source = np.empty(grid, np.float32)
        self.before = None

    def update(self, chi):
        """Return the source of the next susceptibility."""
        ops.use_threads()
        if self.before is not None:
            steps.follow_gradient(chi, self.before, self.step, *self.steps, self.vector)
        self.before = chi
        steps.project_tensor(
            self.vector,
            self.second_penalty,
            self.second_level,
            *self.steps,
            self.tensor_dual,
            self.divergence,
        )
        steps.vector_step(
            chi,
            self.vector,
            self.tensor_dual,
            self.penalty,
            self.uneven,
            self.level,
            np.float32(self.ratio),
            self.step,
            *self.steps,
            self.dual,
            self.pull,
        )
        steps.vector_source(
            self.dual,
            self.vector,
            *self.steps,
            self.dual_divergence,
            self.divergence,
            self.source,
        )
        return self.source
