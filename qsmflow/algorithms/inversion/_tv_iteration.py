"""Iteration of the methods with total variation and outside sources: `tv` and `tfi`."""

import math

import numpy as np
from scipy import ndimage

from qsmflow.algorithms import _kernels as kernels
from qsmflow.algorithms import operators as ops
from qsmflow.algorithms._sources import coarse_grid, fit_sources
from qsmflow.algorithms.inversion import _tv_kernels as steps

#: Defaults of the splits' parameters, of over-relaxation, and of the weight of total variation at
#: the rim of the mask and outside.
MU, RHO, RELAXATION = 0.1, 0.02, 1.8
RIM_WEIGHT, OUTSIDE_WEIGHT = 5.0, 0.01
# Expected size of sources inside over that of sources outside, once the sources inside are known
# but for their error.
_INSIDE_SCALE = 0.002
# Width of the rim, in voxels.
_RIM = 2


class Iteration:
    """The state of the iteration, and its steps."""

    def __init__(self, problem, mu, rho, relaxation, *, mu_harmonic=1, harmonic_weight=None):
        grid = problem.grid
        self.problem = problem
        self.mu, self.rho, self.mu_harmonic = (np.float32(v) for v in (mu, rho, mu_harmonic))
        self.relaxation = np.float32(relaxation)
        self.started = False
        self.gradient_state = np.zeros((3, *grid), np.float32)
        self.data_state = np.zeros(grid, np.float32)
        self.chi_spectrum = np.zeros((*grid[:2], grid[2] // 2 + 1), np.complex64)
        self.chi = np.zeros(grid, np.float32)
        self.model = np.zeros(grid, np.float32)
        self.harmonic = harmonic_weight is not None
        if self.harmonic:
            self.kept = np.float32(mu_harmonic / (mu_harmonic + harmonic_weight))
            self.harmonic_state = np.zeros(grid, np.float32)
            self.laplacian = np.zeros(grid, np.float32)

    def run(self, reg_weight, penalty, max_iter, tol):
        """Iterate in place and return the relative changes of the susceptibility."""
        # Held while it runs, not between the parts.
        room = [np.empty(self.problem.grid, np.float32) for _ in range(2)]
        history = []
        for _ in range(int(max_iter)):
            history.append(self._iterate(np.float32(reg_weight / self.rho), penalty, room))
            if history[-1] < tol:
                break
        return history

    def _iterate(self, level, penalty, room):
        problem, state = self.problem, self.gradient_state
        # There is no susceptibility yet that the states could move to.
        relaxation = self.relaxation if self.started else np.float32(0)
        self.started = True
        ops.use_threads()
        steps.relax_gradient(self.chi, penalty, level, relaxation, *problem.steps, state)
        steps.gradient_source(state, penalty, level, *problem.steps, *room)
        source = ops.rfft(room[1])
        steps.relax_data(
            self.model, problem.field, problem.weight2, self.mu, relaxation, self.data_state
        )
        data = ops.rfft(self.model)
        if self.harmonic:
            change = self._fit_both(source, data, relaxation)
        else:
            change = self._fit_chi(source, data)
        self.chi = ops.irfft(source, problem.grid)
        self.model = ops.irfft(data, problem.grid)
        return math.sqrt(change)

    def _fit_chi(self, source, data):
        problem = self.problem
        return kernels.fit_chi(
            source,
            data,
            self.chi_spectrum,
            problem.kernel,
            *problem.eigenvalues,
            self.mu,
            self.rho,
            np.float32(0),
        )

    def _fit_both(self, source, data, relaxation):
        problem = self.problem
        steps.relax_harmonic(
            self.laplacian, problem.inside, self.kept, relaxation, self.harmonic_state
        )
        bend = ops.rfft(self.laplacian)
        change = steps.fit_both(
            source,
            data,
            bend,
            self.chi_spectrum,
            problem.kernel,
            *problem.eigenvalues,
            self.mu,
            self.rho,
            self.mu_harmonic,
        )
        self.laplacian = ops.irfft(bend, problem.grid)
        return change


def rim_of(problem):
    """Return the voxels of the mask that lie near its edge, on the padded grid."""
    inside = problem.mask[problem.box]
    rim = np.zeros(problem.grid, bool)
    # The box alone is less than half of the grid, and beyond it is outside.
    ops.crop(rim, inside.shape)[:] = inside & ~ndimage.binary_erosion(inside, iterations=_RIM)
    return rim


def nested_dipoles(problem, voxel_size, b0_dir, levels):
    """Return the kernels of the problem's grid and of coarser ones."""
    dipoles, grid = [problem.kernel], problem.grid
    for level in range(1, levels):
        grid = coarse_grid(grid)
        steps = [2**level * float(step) for step in voxel_size]
        dipoles.append(ops.dipole_kernel(grid, steps, b0_dir=b0_dir))
    return dipoles


def take_up_background(problem, chi, dipoles, iterations):
    """Subtract the field of outside sources from the field, in place."""
    inside = problem.mask[problem.box]
    own = ops.crop(problem.dipole(chi * problem.inside), inside.shape)
    field = ops.crop(problem.field, inside.shape)
    misfit = field[inside] - own[inside]
    del own
    weight = np.sqrt(ops.crop(problem.weight2, inside.shape)[inside])
    scale = np.where(problem.inside, np.float32(_INSIDE_SCALE), np.float32(1))
    sources, _ = fit_sources(inside, misfit, weight, scale, dipoles, iterations)
    del scale
    ops.crop(sources, inside.shape)[inside] = 0
    background = ops.crop(problem.dipole(sources), inside.shape)
    field[inside] -= background[inside]
