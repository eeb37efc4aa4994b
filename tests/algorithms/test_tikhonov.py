"""Iterative inversion with a Tikhonov penalty."""

from functools import partial

import numba
import numpy as np
import pytest

from qsmflow.algorithms import operators as ops
from qsmflow.algorithms.inversion import _descent, _descent_kernels
from qsmflow.algorithms.inversion._problem import Problem
from qsmflow.algorithms.inversion.direct import l2
from qsmflow.algorithms.inversion.tikhonov import tikhonov
from tests.algorithms.fields import phantom, relative_error
from tests.algorithms.inversion_battery import SMALL, InversionBattery, full_grid_field

VOXEL = (1, 1, 1)
CONVERGED = {'max_iter': 300, 'tol': 1e-6}


class TestIdentity(InversionBattery):
    method = staticmethod(partial(tikhonov, max_iter=100, tol=1e-5))
    linear = True
    flip_limit = 1e-3
    # What the default stop gives.
    full = {'pad': 8, 'max_iter': 30, 'tol': 2e-2}

    def test_the_mean_is_not_removed(self):
        # A field of zero outside happens to bring the mean of the small object near zero.
        _, mask, local, _ = phantom(SMALL)
        estimate = self.small(local, mask, VOXEL, zero_outside=0)
        assert abs(estimate[mask].mean()) > 1e-4


class TestGradient(InversionBattery):
    method = staticmethod(partial(tikhonov, regulariser='gradient', max_iter=400, tol=1e-5))
    linear = True
    flip_limit = 1e-3
    full = {'pad': 8, 'max_iter': 30, 'tol': 2e-2}


def dense_operators(shape, b0_dir):
    """Return the matrices of the periodic dipole field and of the gradient, in float64."""
    size = int(np.prod(shape))
    kernel = ops.dipole_kernel(shape, VOXEL, b0_dir=b0_dir, real=False).astype(np.float64)
    units = np.eye(size).reshape(size, *shape)
    spectra = np.fft.fftn(units, axes=(1, 2, 3)) * kernel
    dipole = np.fft.ifftn(spectra, axes=(1, 2, 3)).real.reshape(size, size).T
    steps = [np.roll(units, -1, axis) - units for axis in (1, 2, 3)]
    return dipole, np.vstack([step.reshape(size, size).T for step in steps])


@pytest.mark.parametrize('regulariser', ['identity', 'gradient'])
def test_dense_reference(regulariser):
    shape, b0_dir, reg_weight = (6, 5, 6), (0.3, -0.4, 0.866), 0.02
    random = np.random.default_rng(3)
    field = random.normal(size=shape).astype(np.float32)
    weights = random.uniform(0.2, 1, size=shape).astype(np.float32)
    dipole, gradient = dense_operators(shape, b0_dir)
    penalty = np.eye(field.size) if regulariser == 'identity' else gradient.T @ gradient
    w2 = weights.ravel().astype(np.float64) ** 2
    normal = dipole.T @ (w2[:, None] * dipole) + reg_weight * penalty
    expected = np.linalg.lstsq(normal, dipole.T @ (w2 * field.ravel()), rcond=1e-10)[0]
    found = tikhonov(
        field, np.ones(shape, bool), VOXEL, b0_dir=b0_dir, weights=weights,
        reg_weight=reg_weight, regulariser=regulariser, pad=0, **CONVERGED,
    )  # fmt: skip
    np.testing.assert_allclose(found.ravel(), expected, atol=1e-4 * np.abs(expected).max())


def test_closed_form_where_the_mask_fills_the_grid():
    _, field = full_grid_field()
    full = np.ones(field.shape, bool)
    kernel = ops.dipole_kernel(field.shape, VOXEL)
    expected = ops.irfft(ops.rfft(field) * kernel / (kernel**2 + 0.03), field.shape)
    options = {'reg_weight': 0.03, 'pad': 0, 'zero_outside': 1, 'return_history': True}
    found, history = tikhonov(field, full, VOXEL, **options)
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
    assert history == []


@pytest.mark.parametrize('regulariser', ['identity', 'gradient'])
def test_equal_weights_have_the_closed_solution(regulariser):
    _, mask, local, _ = phantom(SMALL)
    options = {'regulariser': regulariser, 'pad': 6, 'return_history': True}
    closed, history = tikhonov(local, mask, VOXEL, zero_outside=1, **options)
    assert history == []
    # Weights that hardly differ are left to the iteration.
    iterated, history = tikhonov(local, mask, VOXEL, zero_outside=0.9999, **options, **CONVERGED)
    assert len(history) > 0
    np.testing.assert_allclose(closed, iterated, atol=1e-3 * np.abs(closed).max())


def test_closed_solution_is_corrected_alike():
    _, mask, local, _ = phantom(SMALL)
    options = {'correct': True, 'pad': 6}
    closed = tikhonov(local, mask, VOXEL, zero_outside=1, **options)
    iterated = tikhonov(local, mask, VOXEL, zero_outside=0.9999, **options, **CONVERGED)
    np.testing.assert_allclose(closed, iterated, atol=1e-3 * np.abs(closed).max())


def test_the_gradient_is_the_weighted_l2():
    _, mask, local, _ = phantom(SMALL)
    options = {'reg_weight': 0.02, 'pad': 6, 'tol': 1e-4, 'max_iter': 30}
    one = tikhonov(local, mask, VOXEL, regulariser='gradient', zero_outside=0, **options)
    other = l2(local, mask, VOXEL, weights=1.0 * mask, **options)
    np.testing.assert_allclose(one, other, atol=1e-5)


def test_the_default_stop_is_near_the_solution():
    _, mask, local, _ = phantom()
    stopped = tikhonov(local, mask, VOXEL, pad=8)
    assert relative_error(stopped, tikhonov(local, mask, VOXEL, pad=8, **CONVERGED), mask) < 0.03


def test_preconditioning_saves_iterations():
    _, mask, local, _ = phantom(SMALL)
    problem = Problem.build(local, mask, VOXEL, (0, 0, 1), None, 6)
    penalty = np.full(problem.kernel.shape, 5e-3, np.float32)
    counts = []
    for inverse in (
        np.ones_like(problem.kernel),
        _descent.preconditioner(problem.kernel, penalty, problem.weight2),
    ):
        best, _ = _descent.least_squares(
            problem.field, problem.weight2, problem.kernel, penalty, inverse, **CONVERGED
        )
        for count in range(1, 60):
            found, _ = _descent.least_squares(
                problem.field, problem.weight2, problem.kernel, penalty, inverse,
                max_iter=count, tol=0,
            )  # fmt: skip
            if relative_error(found, best, problem.inside) < 0.01:
                break
        counts.append(count)
    assert counts[1] <= 0.7 * counts[0]


def test_correction_restores_the_slope():
    chi, mask, local, _ = phantom()
    slopes = [
        np.polyfit(chi[mask], tikhonov(local, mask, VOXEL, pad=8, correct=c)[mask], 1)[0]
        for c in (False, True)
    ]
    assert slopes[0] < slopes[1]
    assert abs(slopes[1] - 1) < abs(slopes[0] - 1)


@pytest.mark.parametrize('regulariser', ['identity', 'gradient'])
def test_a_little_zero_outside_helps(regulariser):
    chi, mask, local, _ = phantom()
    runs = [
        tikhonov(
            local, mask, VOXEL, regulariser=regulariser, zero_outside=weight, pad=8,
            return_history=True,
        )
        for weight in (0.0, 0.3)
    ]  # fmt: skip
    assert relative_error(runs[1][0], chi, mask) < 0.9 * relative_error(runs[0][0], chi, mask)
    assert len(runs[1][1]) < len(runs[0][1])


def test_more_regularisation_has_less_energy():
    _, mask, local, _ = phantom(SMALL)
    for regulariser in ('identity', 'gradient'):
        energies = [
            np.var(
                tikhonov(
                    local, mask, VOXEL, reg_weight=w, regulariser=regulariser, pad=6, tol=1e-3
                )[mask]
            )
            for w in (1e-3, 1e-1)
        ]
        assert energies[1] < 0.5 * energies[0]


def test_bad_choices_are_named():
    _, mask, local, _ = phantom(SMALL)
    with pytest.raises(ValueError, match='regulariser must be one of'):
        tikhonov(local, mask, VOXEL, regulariser='laplacian')
    with pytest.raises(ValueError, match="needs the regulariser 'identity'"):
        tikhonov(local, mask, VOXEL, regulariser='gradient', correct=True)
    with pytest.raises(ValueError, match='zero_outside'):
        tikhonov(local, mask, VOXEL, zero_outside=2)


def _spectra(count, shape, seed=0):
    parts = np.random.default_rng(seed).normal(size=(count, 2, *shape)).astype(np.float32)
    return [np.ascontiguousarray(real + 1j * imag, np.complex64) for real, imag in parts]


@pytest.mark.parametrize('even', [True, False])
def test_inner_products_are_those_of_the_full_spectra(even):
    shape = (5, 4, 6)
    gradient, unknown, previous, direction, image = _spectra(5, shape)
    kernel, penalty, inverse = np.random.default_rng(1).random((3, *shape), np.float32)
    count = np.full(shape[2], 2.0)
    count[0] = 1
    count[-1] = 1 if even else 2

    def product(a, b):
        return float((count * (a.conj() * b).real).sum())

    expected = kernel * gradient + penalty * unknown
    found = _descent_kernels.gradient_products(
        gradient, kernel, penalty, unknown, previous, inverse, even
    )
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-6)
    sums = product(gradient, inverse * gradient), product(gradient, inverse * previous)
    np.testing.assert_allclose(found, sums, rtol=1e-5)
    expected = np.float32(0.3) * direction - inverse * gradient
    found = _descent_kernels.turn(
        direction, np.float32(0.3), gradient, inverse, kernel, penalty, image, even
    )
    np.testing.assert_allclose(direction, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(image, kernel * expected, rtol=1e-5, atol=1e-6)
    sums = product(gradient, direction), product(direction, penalty * direction)
    np.testing.assert_allclose(found, sums, rtol=1e-4)


@pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason='one thread only')
def test_sums_do_not_depend_on_the_number_of_threads():
    shape = (30, 20, 17)
    gradient, unknown, previous, direction, image = _spectra(5, shape)
    kernel, penalty, inverse = np.random.default_rng(1).random((3, *shape), np.float32)
    found = []
    threads = numba.get_num_threads()
    for number in (1, 2):
        numba.set_num_threads(number)
        multipliers = kernel, penalty
        found.append(
            (
                _descent_kernels.gradient_products(
                    gradient.copy(), *multipliers, unknown, previous, inverse, True
                ),
                _descent_kernels.turn(
                    direction.copy(), np.float32(0.3), gradient, inverse, *multipliers, image, True
                ),
                _descent_kernels.advance_spectrum(unknown.copy(), direction, np.float32(0.1)),
                _descent_kernels.weighted_square(kernel, inverse),
            )
        )
    numba.set_num_threads(threads)
    assert found[0] == found[1]
