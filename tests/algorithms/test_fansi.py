"""Nonlinear total variation, its generalised form, and the weak harmonic background."""

import math
from functools import partial

import numpy as np
import pytest

from qsmflow.algorithms import operators as ops
from qsmflow.algorithms.inversion import _admm
from qsmflow.algorithms.inversion import _admm_kernels as kernels
from qsmflow.algorithms.inversion._problem import Problem
from qsmflow.algorithms.inversion._variation import (
    GeneralisedVariation,
    TotalVariation,
    make_penalty,
)
from qsmflow.algorithms.inversion.fansi import nltgv, nltv, whqsm
from qsmflow.algorithms.inversion.tv import tv
from tests.algorithms import variational
from tests.algorithms.fields import ellipsoid, phantom, relative_error
from tests.algorithms.inversion_battery import SMALL, InversionBattery

TURN = np.float32(2 * math.pi / 16)
MEDIUM = (32, 30, 28)


class TestNltv(InversionBattery):
    method = staticmethod(nltv)
    error = 0.15
    quick = {'max_iter': 8}
    positive = 'phase_scale'


class TestWhqsm(InversionBattery):
    method = staticmethod(whqsm)
    error = 0.15
    quick = {'max_iter': 8}
    positive = 'harmonic_weight'


class TestNltgv(InversionBattery):
    method = staticmethod(nltgv)
    error = 0.25
    quick = {'max_iter': 8}


def noisy(shape=MEDIUM, noise=0.001, b0_dir=(0.0, 0.0, 1.0)):
    chi, mask, local, _ = phantom(shape, b0_dir=b0_dir)
    random = np.random.default_rng(0)
    return chi, mask, (local + random.normal(scale=noise, size=shape) * mask).astype(np.float32)


# --- against other algorithms in float64 ----------------------------------------------------


@pytest.mark.parametrize('edges', [False, True])
def test_objective_falls_to_the_minimum(edges):
    field, mask, weights = variational.small_problem()
    magnitude = np.random.default_rng(1).uniform(0.5, 1, mask.shape) if edges else None
    penalty = 1.0
    if edges:
        problem = Problem.build(field, mask, (1, 1, 1), (0, 0, 1), weights, 0)
        penalty = make_penalty(problem, magnitude, 1.0).astype(np.float64)
    objective = variational.tv_objective(variational.squared_chord, field, weights, 2e-4, penalty)
    least = variational.minimise(objective, mask.size)
    values = []
    for iterations in (30, 300):
        chi = nltv(
            field, mask, (1, 1, 1), weights=weights, magnitude=magnitude,
            reg_weight=2e-4, pad=0, max_iter=iterations, tol=0,
        )  # fmt: skip
        values.append(objective(chi.astype(np.float64).ravel())[0])
    assert values[0] < 1.01 * least
    assert values[1] == pytest.approx(least, rel=1e-4)


def test_generalised_variation_falls_to_the_minimum():
    field, mask, weights = variational.small_problem()
    objective = variational.tgv_objective(variational.squared_chord, field, weights, 2e-4, 4e-4)
    least = variational.minimise(objective, 4 * mask.size)
    problem = Problem.build(field, mask, (1, 1, 1), (0, 0, 1), weights, 0)
    variation = GeneralisedVariation(problem, make_penalty(problem, None, 1.0), 2e-4, 4e-4, 0.01)
    admm = _admm.Admm(problem, variation, 0.3)
    admm.run(_admm.squared_chord(problem.field, problem.weight2, 0.3, 16.0), 300, 0)
    unknowns = np.concatenate([admm.chi[None], variation.vector]).astype(np.float64)
    assert objective(unknowns.ravel())[0] == pytest.approx(least, rel=1e-3)


def test_dual_of_the_data_is_the_derivative_of_the_chord():
    _, mask, field = noisy(SMALL)
    problem = Problem.build(field, mask, (1, 1, 1), (0, 0, 1), 0.7 * mask, 4)
    admm = _admm.Admm(
        problem, TotalVariation(problem, make_penalty(problem, None, 0.01), 1e-3, 0.01), 0.3
    )
    admm.run(_admm.squared_chord(problem.field, problem.weight2, 0.3, 40.0), 400, 0)
    slope = problem.weight2 * np.sin(40 * (admm.model - problem.field)) / 40
    np.testing.assert_allclose(0.3 * admm.data_dual, slope, atol=1e-3 * np.abs(slope).max())


def test_small_phases_give_the_linear_solution():
    _, mask, field = noisy(SMALL)
    problem = Problem.build(field, mask, (1, 1, 1), (0, 0, 1), None, 6)
    penalty = make_penalty(problem, None, 0.01)
    admm = _admm.Admm(problem, TotalVariation(problem, penalty, 1e-4, 0.01), 0.3)
    admm.run(_admm.squared_misfit(problem.field, problem.weight2, 0.3), 20, 0)
    chi = nltv(field, mask, (1, 1, 1), phase_scale=1e-2, pad=6, max_iter=20, tol=0)
    np.testing.assert_allclose(chi, problem.placed(admm.chi), atol=1e-5)


def axes_of_ellipsoids(shape):
    """Return half axes that are equal in some rows, and towards the ends of most others."""
    axes = np.exp(np.random.default_rng(0).uniform(-2, 1, (3, *shape))).astype(np.float32)
    axes[:, 0] = axes[0, 0]
    axes[:, :, 1, :9] = axes[1, :, 1, :9]
    axes[:, :, 2, -5:] = axes[2, :, 2, -5:]
    return axes


def bounds_of_uneven(axes):
    bounds = np.empty((*axes.shape[1:3], 2), np.int64)
    kernels.find_uneven(axes, bounds)
    return bounds


def test_bounds_of_voxels_with_different_axes():
    bounds = bounds_of_uneven(axes_of_ellipsoids((6, 5, 19)))
    assert (bounds[0, :, 0] == bounds[0, :, 1]).all()
    assert bounds[1:].tolist() == [[[0, 19], [8, 19], [0, 16], [0, 19], [0, 19]]] * 5


def test_projection_onto_ellipsoids():
    random = np.random.default_rng(0)
    shape = (6, 5, 19)
    x = random.normal(size=shape).astype(np.float32)
    dual = random.normal(size=(3, *shape)).astype(np.float32)
    axes = axes_of_ellipsoids(shape)
    points = dual + [np.roll(x, -1, axis) - x for axis in range(3)]
    kernels.project_weighted(
        x, axes, bounds_of_uneven(axes), np.float32(1), *np.ones(3, np.float32), dual
    )
    outside = (points**2 / axes**2).sum(axis=0) > 1
    np.testing.assert_allclose(dual[:, ~outside], points[:, ~outside], rtol=1e-5)
    scaled = (dual / axes)[:, outside]
    off = np.abs((scaled**2).sum(axis=0) - 1)
    assert np.quantile(off, 0.99) < 1e-3
    assert off.max() < 0.02
    # The way back to the point is normal to the surface.
    away, normal = (points - dual)[:, outside], (dual / axes**2)[:, outside]
    cosine = (away * normal).sum(axis=0)
    cosine /= np.linalg.norm(away, axis=0) * np.linalg.norm(normal, axis=0)
    assert 50 < outside.sum() < outside.size - 5
    np.testing.assert_allclose(cosine, 1, atol=1e-4)


@pytest.mark.parametrize('scale', [4.0, 16.0])
def test_data_step_is_that_of_the_touching_parabola(scale):
    random = np.random.default_rng(0)
    shape = (6, 5, 4)
    model, dual, field, weight2 = (random.normal(size=shape).astype(np.float32) for _ in range(4))
    weight2 **= 2
    misfit = model.astype(np.float64) - field
    shift = 2 * math.pi / scale * np.rint(misfit * scale / (2 * math.pi))
    curvature = weight2 * np.sinc(scale * (misfit - shift) / math.pi)
    total = model.astype(np.float64) + dual
    split = (curvature * (field + shift) + 0.3 * total) / (curvature + 0.3)
    kernels.phase_step(model, dual, field, weight2, np.float32(0.3), np.float32(scale))
    np.testing.assert_allclose(dual, total - split, atol=2e-5)
    np.testing.assert_allclose(model, 2 * split - total, atol=4e-5)


# --- what the methods are for ---------------------------------------------------------------


def test_wrong_turns_do_no_harm():
    chi, mask, field = noisy()
    right = nltv(field, mask, (1, 1, 1), pad=6)
    field[tuple(np.argwhere(mask)[50::60].T)] += TURN
    field[12:15, 10:14, 14:17] -= TURN
    wrapped = nltv(field, mask, (1, 1, 1), pad=6)
    linear = tv(field, mask, (1, 1, 1), pad=6, robust=None)
    assert relative_error(wrapped, chi, mask) < relative_error(right, chi, mask) + 0.05
    assert relative_error(wrapped, chi, mask) < 0.2 * relative_error(linear, chi, mask)


def test_start_saves_strong_sources():
    chi, mask, _, _ = phantom(MEDIUM)
    chi[ellipsoid(MEDIUM, (1, 1, 1), (3, 2, -3), (2.6, 2.6, 2.6))] = 1.5
    field = ops.forward_field(chi, (1, 1, 1)) * mask
    assert np.abs(field).max() > 0.5 * TURN
    with_start, without = (nltv(field, mask, (1, 1, 1), pad=6, start_iter=n) for n in (10, 0))
    assert relative_error(with_start, chi, mask) < 0.2
    assert relative_error(without, chi, mask) > 0.6


def test_start_is_left_out_where_no_turn_is_in_doubt():
    _, mask, field = noisy(SMALL)
    assert np.abs(field).max() * 16 < math.pi / 2
    _, history = nltv(field, mask, (1, 1, 1), pad=6, max_iter=5, return_history=True)
    assert len(history) == 5
    field[8, 8, 8] += TURN
    _, history = nltv(field, mask, (1, 1, 1), pad=6, max_iter=5, return_history=True)
    assert len(history) == 15


def test_random_phases_count_less_than_in_the_linear_problem():
    chi, mask, field = noisy()
    bad = tuple(np.argwhere(mask)[200::400].T)
    field[bad] += np.random.default_rng(5).uniform(-1.5 * TURN, 1.5 * TURN, len(bad[0]))
    nonlinear = nltv(field, mask, (1, 1, 1), pad=6)
    linear = tv(field, mask, (1, 1, 1), pad=6, robust=None)
    assert relative_error(nonlinear, chi, mask) < 0.5 * relative_error(linear, chi, mask)


@pytest.mark.parametrize('size', [0.02, 0.1])
def test_harmonic_term_takes_up_background_left(size):
    chi, mask, field = noisy()
    x, y, z = (np.linspace(-1, 1, n) for n in MEDIUM)
    left = x[:, None, None] ** 2 - y[:, None] ** 2 + z
    clean = relative_error(whqsm(field, mask, (1, 1, 1), pad=6), chi, mask)
    field += np.float32(size) * (left * mask).astype(np.float32)
    plain, harmonic = (
        relative_error(invert(field, mask, (1, 1, 1), pad=6), chi, mask)
        for invert in (nltv, whqsm)
    )
    assert harmonic < clean + 0.1 + 2 * size
    assert harmonic < 0.5 * plain


def test_coupled_step_solves_the_normal_equations():
    random = np.random.default_rng(0)
    shape = (4, 3, 5)
    source, data, bend, chi = (
        (random.normal(size=shape) + 1j * random.normal(size=shape)).astype(np.complex64)
        for _ in range(4)
    )
    kernel = random.uniform(-0.6, 0.3, shape).astype(np.float32)
    axes = [random.uniform(0.1, 2, n).astype(np.float32) for n in shape]
    lap = axes[0][:, None, None] + axes[1][:, None] + axes[2]
    mu, rho, muh = (np.float32(value) for value in (0.3, 0.01, 0.1))
    target, wanted = data.copy(), bend.copy()
    right = rho * (lap * chi + source)
    kernels.coupled_step(source, data, bend, chi, kernel, *axes, mu, rho, muh)
    background = data - kernel * chi
    misfit = mu * (data - target)
    np.testing.assert_allclose(kernel * misfit + rho * lap * chi, right, atol=1e-5)
    np.testing.assert_allclose(misfit - muh * lap * (bend - wanted), 0, atol=1e-5)
    np.testing.assert_allclose(bend, -lap * background, atol=1e-4)
    np.testing.assert_array_equal(source, chi)


def test_edges_of_the_magnitude_keep_those_of_the_susceptibility():
    chi, mask, field = noisy(noise=0.003)
    random = np.random.default_rng(1)
    magnitude = 1 - 3 * chi + random.normal(scale=0.01, size=chi.shape)
    for invert in (partial(nltv, reg_weight=5e-4), partial(nltgv, reg_weight=5e-4)):
        plain = invert(field, mask, (1, 1, 1), pad=6)
        guided = invert(field, mask, (1, 1, 1), pad=6, magnitude=magnitude)
        assert relative_error(guided, chi, mask) < 0.8 * relative_error(plain, chi, mask)


def test_edge_weights():
    _, mask, field = noisy(SMALL)
    problem = Problem.build(field, mask, (1, 1, 2), (0, 0, 1), None, 3)
    magnitude = np.ones(SMALL)
    magnitude[:, :, 10:] = 2
    flat = make_penalty(problem, np.ones(SMALL), 0.1)
    np.testing.assert_allclose(flat[:, problem.inside], 1, rtol=1e-5)
    np.testing.assert_allclose(flat[:, ~problem.inside], 0.1)
    for scale in (1.0, 1e4):
        penalty = make_penalty(problem, scale * magnitude, 0.1)
        assert penalty[:, problem.inside].mean() == pytest.approx(1, rel=1e-5)
        low = np.argwhere(penalty < 0.5 * penalty.max())
        low = low[problem.inside[tuple(low[:, 1:].T)]]
        first = problem.box[2].start
        assert set(low[:, 0]) == {2}
        assert set(low[:, 3]) == {9 - first}


def test_magnitude_on_another_grid_is_named():
    _, mask, field = noisy(SMALL)
    with pytest.raises(ValueError, match='magnitude'):
        nltv(field, mask, (1, 1, 1), magnitude=np.ones((3, 3, 3)))
    with pytest.raises(ValueError, match='start_iter'):
        nltv(field, mask, (1, 1, 1), start_iter=-1)


def test_generalised_variation_keeps_a_ramp():
    shape = MEDIUM
    mask = ellipsoid(shape, (1, 1, 1), (0, 0, 0), (12, 11, 10))
    inner = ellipsoid(shape, (1, 1, 1), (0, 0, 0), (8, 7, 6))
    ramp = (np.arange(shape[0]) - shape[0] / 2)[:, None, None] / 80
    chi = np.where(inner, ramp, 0).astype(np.float32)
    noise = np.random.default_rng(0).normal(scale=0.002, size=shape)
    field = ((ops.forward_field(chi, (1, 1, 1)) + noise) * mask).astype(np.float32)
    deep = ellipsoid(shape, (1, 1, 1), (0, 0, 0), (6, 5, 4))
    slopes = []
    for invert in (nltv, nltgv):
        estimate = invert(field, mask, (1, 1, 1), reg_weight=1e-3, pad=6, max_iter=60)
        slopes.append(np.diff(estimate, axis=0)[deep[:-1]])
    flat = [np.mean(s < 0.25 / 80) for s in slopes]
    assert flat[1] < 0.5 * flat[0]
    assert slopes[1].std() < 0.8 * slopes[0].std()
