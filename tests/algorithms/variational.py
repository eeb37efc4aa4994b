"""Objectives of the variational inversions in float64, and their minima by another algorithm."""

import numpy as np
from scipy.optimize import minimize

from qsmflow.algorithms import operators as ops
from tests.algorithms.fields import phantom

SHAPE = (10, 9, 8)


def small_problem():
    """Return a field with noise, a mask that fills the grid, and weights, some of them zero."""
    random = np.random.default_rng(3)
    chi, _, _, _ = phantom(SHAPE)
    field = ops.forward_field(chi, (1, 1, 1), pad=0) + random.normal(scale=0.004, size=SHAPE)
    weights = random.uniform(0.2, 1, SHAPE) * (random.uniform(size=SHAPE) > 0.1)
    return field.astype(np.float32), np.ones(SHAPE, bool), weights.astype(np.float32)


class Dipole:
    """The dipole operator on the periodic grid in float64; its own adjoint."""

    def __init__(self, shape=SHAPE):
        self.kernel = ops.dipole_kernel(shape, (1, 1, 1), real=False).astype(np.float64)

    def __call__(self, chi):
        return np.fft.ifftn(self.kernel * np.fft.fftn(chi)).real


def forward(x):
    return np.stack([np.roll(x, -1, axis) - x for axis in range(3)])


def forward_adjoint(v):
    return sum(np.roll(v[axis], 1, axis) - v[axis] for axis in range(3))


def bend(w):
    """Return the symmetrised backward differences, shape (3, 3, X, Y, Z)."""
    rows = np.stack([w - np.roll(w, 1, axis + 1) for axis in range(3)])
    return (rows + rows.swapaxes(0, 1)) / 2


def bend_adjoint(q):
    q = (q + q.swapaxes(0, 1)) / 2
    return sum(q[axis] - np.roll(q[axis], -1, axis + 1) for axis in range(3))


def lengths(v, eps):
    """Return the smoothed lengths of vectors or tensors, and their derivative."""
    axes = tuple(range(v.ndim - 3))
    size = np.sqrt((v**2).sum(axes) + eps**2)
    return size, v / size


def squared(misfit, weights, eps):
    return (weights**2 * misfit**2).sum() / 2, weights**2 * misfit


def squared_chord(misfit, weights, eps, scale=16.0):
    value = (weights**2 * (1 - np.cos(scale * misfit))).sum() / scale**2
    return value, weights**2 * np.sin(scale * misfit) / scale


def absolute(misfit, weights, eps):
    size = np.sqrt(misfit**2 + eps**2)
    return (weights * size).sum(), weights * misfit / size


def absolute_chord(misfit, weights, eps, scale=16.0):
    sine, cosine = np.sin(scale * misfit / 2), np.cos(scale * misfit / 2)
    size = np.sqrt((2 * sine / scale) ** 2 + eps**2)
    return (weights * size).sum(), weights * 2 * sine * cosine / scale / size


def tv_objective(data, field, weights, reg_weight, penalty=1.0):
    """Return ``f(chi, eps) -> value, gradient`` with total variation smoothed by `eps`."""
    dipole = Dipole()

    def objective(chi, eps=0.0):
        chi = chi.reshape(SHAPE)
        value, slope = data(dipole(chi) - field, weights, eps)
        size, direction = lengths(penalty * forward(chi), max(eps, 1e-30))
        gradient = dipole(slope) + reg_weight * forward_adjoint(penalty * direction)
        return value + reg_weight * size.sum(), gradient.ravel()

    return objective


def tgv_objective(data, field, weights, reg_weight, second_weight):
    """Return the same for susceptibility and slopes together, shape (4, X, Y, Z)."""
    dipole = Dipole()

    def objective(unknowns, eps=0.0):
        chi, slopes = unknowns.reshape(4, *SHAPE)[0], unknowns.reshape(4, *SHAPE)[1:]
        value, slope = data(dipole(chi) - field, weights, eps)
        size1, along1 = lengths(forward(chi) - slopes, max(eps, 1e-30))
        size2, along2 = lengths(bend(slopes), max(eps, 1e-30))
        gradient = np.empty((4, *SHAPE))
        gradient[0] = dipole(slope) + reg_weight * forward_adjoint(along1)
        gradient[1:] = second_weight * bend_adjoint(along2) - reg_weight * along1
        value += reg_weight * size1.sum() + second_weight * size2.sum()
        return value, gradient.ravel()

    return objective


def minimise(objective, size):
    """Return the value at a minimum found by L-BFGS with less and less smoothing."""
    x = np.zeros(size)
    for eps in (1e-2, 1e-3, 1e-4, 1e-5):
        found = minimize(
            objective, x, (eps,), jac=True, method='L-BFGS-B',
            options={'maxiter': 200, 'maxcor': 20, 'maxfun': 250, 'ftol': 1e-10, 'gtol': 1e-12},
        )  # fmt: skip
        x = found.x
    return objective(x)[0]
