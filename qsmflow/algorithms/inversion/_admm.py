"""Alternating directions for dipole inversions: data terms, the iteration, and its start."""

import math
from dataclasses import dataclass
from functools import partial

import numpy as np

from qsmflow.algorithms import _kernels as kernels
from qsmflow.algorithms import operators as ops
from qsmflow.algorithms.inversion import _admm_kernels as steps
from qsmflow.algorithms.inversion._variation import TotalVariation

# --- data terms -----------------------------------------------------------------------------
#
# Each gives a proximal step ``step(model, dual)`` of the split of the model field: it updates
# the dual variable in place and leaves in `model` what the next update fits, the split variable
# less its dual. The chords divide by the scale or its square, so that they near the misfits
# where these are small. They are not convex: each step is that of the convex function that
# touches them at the model and lies above them elsewhere.


def squared_misfit(field, weight2, mu):
    """Return the step of half the sum of squares of the weighted misfit, in ppm."""
    return partial(kernels.data_step, field=field, weight2=weight2, mu=np.float32(mu))


def squared_chord(field, weight2, mu, phase_scale):
    """Return the step of the same for the misfit of complex phases."""
    scale = np.float32(phase_scale)
    return partial(steps.phase_step, field=field, weight2=weight2, mu=np.float32(mu), scale=scale)


def absolute_misfit(field, weight, mu):
    """Return the step of the sum of absolute weighted misfits, in ppm."""
    return partial(steps.absolute_step, field=field, weight=weight, mu=np.float32(mu))


def absolute_chord(field, weight, mu, phase_scale):
    """Return the step of the same for the misfit of complex phases."""
    scale = np.float32(phase_scale)
    return partial(steps.chord_step, field=field, weight=weight, mu=np.float32(mu), scale=scale)


# --- iteration ------------------------------------------------------------------------------


class Admm:
    """Susceptibility and, on request, a harmonic residual background, found in turns."""

    def __init__(self, problem, regulariser, mu, harmonic_weight=None, mu_harmonic=None):
        grid = problem.grid
        half = (*grid[:2], grid[2] // 2 + 1)
        self.problem = problem
        self.regulariser = regulariser
        self.mu, self.mu_harmonic = mu, mu_harmonic
        self.chi_spectrum = np.zeros(half, np.complex64)
        self.chi = np.zeros(grid, np.float32)
        self.model = np.zeros(grid, np.float32)
        self.data_dual = np.zeros(grid, np.float32)
        self.harmonic = harmonic_weight is not None
        if self.harmonic:
            self.shrink = np.float32(harmonic_weight / (mu_harmonic + harmonic_weight))
            self.harmonic_dual = np.zeros(grid, np.float32)
            self.laplacian = np.zeros(grid, np.float32)

    def run(self, data_step, max_iter, tol):
        """Iterate in place and return the relative changes of the susceptibility."""
        history = []
        for _ in range(int(max_iter)):
            history.append(self._iterate(data_step))
            if history[-1] < tol:
                break
        return history

    def _iterate(self, data_step):
        source = ops.rfft(self.regulariser.update(self.chi))
        ops.use_threads()
        data_step(self.model, self.data_dual)
        data = ops.rfft(self.model)
        change = self._with_harmonic(source, data) if self.harmonic else self._step(source, data)
        self.chi = ops.irfft(source, self.problem.grid)
        self.model = ops.irfft(data, self.problem.grid)
        return math.sqrt(change)

    def _step(self, source, data):
        return kernels.fit_chi(
            source,
            data,
            self.chi_spectrum,
            self.problem.kernel,
            *self.problem.eigenvalues,
            np.float32(self.mu),
            np.float32(self.regulariser.rho),
            np.float32(1),
        )

    def _with_harmonic(self, source, data):
        problem = self.problem
        kernels.harmonic_step(self.laplacian, self.harmonic_dual, problem.inside, self.shrink)
        bend = ops.rfft(self.laplacian)
        change = steps.coupled_step(
            source,
            data,
            bend,
            self.chi_spectrum,
            problem.kernel,
            *problem.eigenvalues,
            np.float32(self.mu),
            np.float32(self.regulariser.rho),
            np.float32(self.mu_harmonic),
        )
        self.laplacian = ops.irfft(bend, problem.grid)
        return change


# --- multiples of 2 pi -------------------------------------------------------------------------

#: Parameters of the start: Huber's bend and the weight of total variation, in ppm, and mu, rho.
_BEND, _SMOOTH, _MU, _RHO = 0.02, 1e-3, 0.3, 0.01
#: Iterations that keep the multiples of 2 pi and the weights of the start.
_KEPT = 4


@dataclass
class Start:
    """What a nonlinear method begins with.

    The field is that without the multiples of 2 pi of its misfit to a first model, and `phase`
    what is left of this misfit, in rad; both are None where no multiples are in doubt.
    """

    field: np.ndarray | None
    phase: np.ndarray | None
    history: list


def find_turns(problem, penalty, phase_scale, iterations):
    """Return a `Start` from a model that most voxels agree on.

    A nonlinear method that begins at zero takes a phase beyond pi for one about the next multiple
    of 2 pi. Where the field leaves room for doubt, a fit that is convex, robust and smooth
    decides.
    """
    largest = float(np.abs(problem.field).max())
    if iterations == 0 or largest * phase_scale <= math.pi / 2:
        return Start(None, None, [])
    admm = Admm(problem, TotalVariation(problem, penalty, _SMOOTH, _RHO), _MU)
    bent = partial(
        steps.bent_step,
        field=problem.field,
        weight2=problem.weight2,
        mu=np.float32(_MU),
        bend=np.float32(_BEND),
    )
    history = admm.run(bent, iterations, 0)
    turn = np.float32(2 * math.pi / phase_scale)
    phase = admm.model
    phase -= problem.field
    turns = np.rint(phase / turn)
    turns *= turn
    phase -= turns
    phase *= np.float32(phase_scale)
    turns += problem.field
    return Start(turns, phase, history)


def run_from(start, admm, settled, chord, max_iter, tol):
    """Iterate in place, and return the history with that of the start.

    ``settled(start)`` is the step of the convex data term that touches the chord at the start; it
    holds for a few iterations, until the model is near.
    """
    history = list(start.history)
    kept = 0
    if start.field is not None:
        kept = min(_KEPT, int(max_iter))
        history += admm.run(settled(start), kept, 0)
    return history + admm.run(chord, int(max_iter) - kept, tol)
