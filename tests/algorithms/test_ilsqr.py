"""iLSQR, and least squares in the Fourier domain."""

import numpy as np
import pytest

from qsmflow.algorithms import operators as ops
from qsmflow.algorithms.inversion import _ilsqr_kernels as kernels
from qsmflow.algorithms.inversion import ilsqr as module
from qsmflow.algorithms.inversion._problem import Problem
from qsmflow.algorithms.inversion._spectral import solve_normal
from qsmflow.algorithms.inversion.direct import tkd
from qsmflow.algorithms.inversion.ilsqr import ilsqr
from qsmflow.algorithms.solvers import cgls
from tests.algorithms.fields import phantom, relative_error
from tests.algorithms.inversion_battery import SMALL, InversionBattery

TINY = (6, 5, 8)


class TestIlsqr(InversionBattery):
    method = staticmethod(ilsqr)
    error = 0.2
    positive = 'threshold'
    # Rounding moves voxels across the steep end of the weights between two percentiles.
    permutation_limit = 4e-3


@pytest.fixture(scope='module')
def small_problem():
    _, mask, local, _ = phantom(SMALL)
    weights = np.where(np.random.default_rng(3).random(mask.shape) < 0.5, 0.5, 1.0)
    return Problem.build(local, mask, (1, 1, 1), (0, 0, 1), weights, 6)


def dense(apply, shape):
    """Return the matrix of a linear function of volumes, in double precision."""
    columns = []
    for index in range(int(np.prod(shape))):
        unit = np.zeros(shape, np.float32)
        unit.flat[index] = 1
        columns.append(np.asarray(apply(unit), np.float64).ravel())
    return np.stack(columns, axis=1)


def filtered(multiplier, shape):
    def apply(volume):
        spectrum = ops.rfft(volume)
        spectrum *= multiplier
        return ops.irfft(spectrum, shape)

    return apply


@pytest.mark.parametrize('shape', [TINY, (5, 6, 7)])
def test_normal_equation_in_the_fourier_domain_agrees_with_a_dense_solution(shape):
    random = np.random.default_rng(0)
    # The shift keeps the matrix regular, so that the limit does not hang on rounding.
    kernel = ops.dipole_kernel(shape, (1, 1, 1), b0_dir=(0.3, -0.4, 0.866)) + np.float32(1)
    weight = random.uniform(0.3, 1, shape).astype(np.float32)
    data = random.normal(size=shape).astype(np.float32)
    y, history = solve_normal(
        kernel,
        lambda v: v * weight,
        kernel * ops.rfft(weight * data),
        shape,
        max_iter=200,
        tol=1e-6,
    )
    matrix = dense(filtered(kernel, shape), shape)
    square = matrix.T @ (weight.ravel()[:, None].astype(float) * matrix)
    expected = np.linalg.solve(square, matrix.T @ (weight * data).ravel().astype(float))
    assert history[-1] < 1e-5
    np.testing.assert_allclose(
        ops.irfft(y, shape).ravel(), expected, atol=1e-4 * np.abs(expected).max()
    )


def test_first_step_is_weighted_least_squares(small_problem):
    problem = small_problem
    fast, history = module._least_squares(problem, 8, 0)
    root = np.sqrt(module._laplacian_weights(problem) * problem.weight2)
    plain, _ = cgls(
        lambda x: problem.dipole(x) * root,
        lambda r: problem.dipole(r * root),
        problem.field * root,
        max_iter=8,
        tol=0,
    )
    assert len(history) == 8
    np.testing.assert_allclose(fast, plain, atol=1e-3 * np.abs(plain).max())


def test_weighted_laplacian_is_the_normal_operator_of_the_weighted_gradient():
    random = np.random.default_rng(1)
    volume = random.normal(size=TINY).astype(np.float32)
    weights = random.random((3, *TINY)).astype(np.float32)
    sizes = (0.8, 1.0, 1.25)
    out = np.empty(TINY, np.float32)
    kernels.weighted_laplacian(volume, weights, *(np.float32(s**-2) for s in sizes), out)
    expected = -ops.divergence(weights * ops.gradient(volume, sizes), sizes)
    np.testing.assert_allclose(out, expected, atol=1e-5)


def test_bend_looks_at_neighbours_inside_the_mask_only():
    x = np.arange(9, dtype=np.float32)
    volume = np.broadcast_to(x[:, None, None], (9, 5, 5)).copy()
    inside = np.zeros(volume.shape, bool)
    inside[2:7, 1:4, 1:4] = True
    volume[~inside] = 1e3
    out = np.full(volume.shape, np.nan, np.float32)
    kernels.bend(volume, inside, *np.ones(3, np.float32), out)
    assert not out[~inside].any()
    # A line is straight but at its ends, where one neighbour is missing.
    assert not out[3:6].any()
    np.testing.assert_allclose(out[2:7:4, 1:4, 1:4], 1)


def test_laplacian_weights_fall_where_the_field_is_rough(small_problem):
    problem = small_problem
    rough = np.argwhere(problem.inside)[300::700]
    field = problem.field.copy()
    problem.field[tuple(rough.T)] += 1
    weight = module._laplacian_weights(problem)
    problem.field = field
    assert weight[tuple(rough.T)].max() < 0.5
    assert np.median(weight[problem.inside]) == pytest.approx(1)
    assert weight.min() == pytest.approx(0.2, abs=1e-6)


def test_streaks_are_those_of_a_dense_solution():
    shape, threshold = TINY, 0.15
    random = np.random.default_rng(2)
    problem = Problem.build(
        random.normal(size=shape), np.ones(shape, bool), (1, 1, 1.2), (0, 0, 1), None, 0
    )
    first = random.normal(size=problem.grid).astype(np.float32)
    edges = random.uniform(0.2, 1, (3, *problem.grid)).astype(np.float32)
    found, _ = module._streaks(problem, first, edges.copy(), threshold, 300, 1e-6)

    size = tuple(1 / float(s) for s in problem.steps)
    part = (np.abs(problem.kernel) < threshold).astype(np.float32)
    part[0, 0, 0] = 0
    project = dense(filtered(part, problem.grid), problem.grid)
    slope = dense(lambda v: edges * ops.gradient(v, size), problem.grid)
    y = np.linalg.lstsq(slope @ project, slope @ first.ravel().astype(float), rcond=1e-6)[0]
    expected = project @ y
    assert 0 < np.count_nonzero(part) < part.size / 2
    np.testing.assert_allclose(found.ravel(), expected, atol=3e-3 * np.abs(expected).max())


def test_subtracting_streaks_more_than_halves_the_error():
    chi, mask, local, _ = phantom()
    problem = Problem.build(local, mask, (1, 1, 1), (0, 0, 1), None, 8)
    first, _ = module._least_squares(problem, 50, 1e-2)
    before = relative_error(problem.placed(first), chi, mask)
    after = relative_error(ilsqr(local, mask, (1, 1, 1), pad=8), chi, mask)
    assert after < 0.5 * before
    assert after < 0.5 * relative_error(tkd(local, mask, (1, 1, 1), pad=8), chi, mask)


def test_streaks_change_nothing_where_the_kernel_is_large():
    _, mask, local, _ = phantom(SMALL)
    problem = Problem.build(local, mask, (1, 1, 1), (0, 0, 1), None, 6)
    first, _ = module._least_squares(problem, 10, 0)
    edges = np.ones((3, *problem.grid), np.float32)
    streaks, _ = module._streaks(problem, first, edges, 0.1, 10, 0)
    spectrum = np.abs(ops.rfft(streaks))
    large = np.abs(problem.kernel) >= 0.1
    assert spectrum[large].max() < 1e-5 * spectrum.max()


def test_iterations_stay_within_the_budget():
    _, mask, local, _ = phantom()
    _, history = ilsqr(local, mask, (1, 1, 1), pad=8, return_history=True)
    assert len(history) < 60


def test_agrees_with_finer_tolerances_of_the_second_solve():
    _, mask, local, _ = phantom()
    one, other = (
        ilsqr(local, mask, (1, 1, 1), pad=8, streak_tol=tol, max_iter=100) for tol in (0.05, 0.01)
    )
    assert relative_error(one, other, mask) < 0.1


def test_larger_smoothing_radius_changes_the_edges_found():
    _, mask, local, _ = phantom(SMALL)
    one, other = (ilsqr(local, mask, (1, 1, 1), pad=6, radius=r) for r in (1.0, 6.0))
    assert 1e-3 < relative_error(one, other, mask) < 0.5
