"""Absolute misfits: L1-QSM and HD-QSM."""

import math
from functools import partial

import numpy as np
import pytest

from qsmflow.algorithms.inversion import _admm_kernels as kernels
from qsmflow.algorithms.inversion._problem import Problem
from qsmflow.algorithms.inversion.l1 import _doubted, hdqsm, l1qsm
from qsmflow.algorithms.inversion.tv import tv
from tests.algorithms import variational
from tests.algorithms.fields import phantom, relative_error
from tests.algorithms.inversion_battery import SMALL, InversionBattery

TURN = np.float32(2 * math.pi / 16)
MEDIUM = (32, 30, 28)


class TestL1(InversionBattery):
    method = staticmethod(l1qsm)
    error = 0.15
    quick = {'max_iter': 12}


class TestLinearL1(InversionBattery):
    method = staticmethod(partial(l1qsm, nonlinear=False))
    error = 0.15
    quick = {'max_iter': 12}
    positive = 'rho'


class TestHd(InversionBattery):
    method = staticmethod(hdqsm)
    error = 0.15
    quick = {'max_iter': 8, 'first_iter': 8}
    positive = 'first_weight'


def noisy(shape=MEDIUM, noise=0.001):
    chi, mask, local, _ = phantom(shape)
    random = np.random.default_rng(0)
    return chi, mask, (local + random.normal(scale=noise, size=shape) * mask).astype(np.float32)


@pytest.mark.parametrize('nonlinear', [False, True])
def test_objective_falls_to_the_minimum(nonlinear):
    field, mask, weights = variational.small_problem()
    data = variational.absolute_chord if nonlinear else variational.absolute
    objective = variational.tv_objective(data, field, weights, 0.03)
    least = variational.minimise(objective, mask.size)
    values = []
    for iterations in (30, 400):
        chi = l1qsm(
            field, mask, (1, 1, 1), weights=weights, nonlinear=nonlinear,
            pad=0, max_iter=iterations, tol=0,
        )  # fmt: skip
        values.append(objective(chi.astype(np.float64).ravel())[0])
    assert values[0] < 1.15 * least
    assert values[1] < 1.002 * least


def test_second_stage_falls_to_the_minimum_of_its_objective():
    field, mask, weights = variational.small_problem()
    options = {'weights': weights, 'pad': 0, 'outside_weight': 1.0}
    chi = hdqsm(field, mask, (1, 1, 1), reg_weight=2e-4, max_iter=400, tol=1e-9, **options)
    first = l1qsm(
        field, mask, (1, 1, 1), nonlinear=False, reg_weight=0.01, max_iter=20, tol=0, **options
    )
    misfit = variational.Dipole()(first) - field
    limit = max(0.01, 2.5 * 1.4826 * np.median(np.abs(misfit[weights > 0])))
    objective = variational.tv_objective(
        variational.squared, field, weights / (1 + (misfit / limit) ** 2), 2e-4
    )
    least = variational.minimise(objective, mask.size)
    assert objective(chi.astype(np.float64).ravel())[0] == pytest.approx(least, rel=1e-3)


def test_weights_after_the_first_stage():
    _, mask, field = noisy(SMALL)
    problem = Problem.build(field, mask, (1, 1, 1), (0, 0, 1), 0.5 * mask, 3)
    model = problem.field.copy()
    model[8, 8, 8] += 0.04
    model[9, 9, 9] -= 0.01
    published = _doubted(problem, model, None)
    assert published[8, 8, 8] == pytest.approx(0, abs=1e-6)
    assert published[9, 9, 9] == pytest.approx(0.25 * 0.75**2, rel=1e-3)
    robust = _doubted(problem, model, 0.01)
    assert robust[9, 9, 9] == pytest.approx(0.25 / 4, rel=1e-3)
    assert robust[7, 7, 7] == pytest.approx(0.25)
    assert not robust[~problem.inside].any()


@pytest.mark.parametrize('scale', [4.0, 16.0])
def test_data_step_is_that_of_the_touching_absolute_value(scale):
    random = np.random.default_rng(0)
    shape = (6, 5, 4)
    model, dual, field, weight = (random.normal(size=shape).astype(np.float32) for _ in range(4))
    weight = np.abs(weight)
    misfit = model.astype(np.float64) - field
    shift = 2 * math.pi / scale * np.rint(misfit * scale / (2 * math.pi))
    limit = weight * np.cos(scale * (misfit - shift) / 2) / 3
    total = model.astype(np.float64) + dual
    expected = np.clip(total - field - shift, -limit, limit)
    kernels.chord_step(model, dual, field, weight, np.float32(3), np.float32(scale))
    np.testing.assert_allclose(dual, expected, atol=2e-5)
    np.testing.assert_allclose(model, total - 2 * expected, atol=4e-5)


@pytest.mark.parametrize('invert', [l1qsm, partial(l1qsm, nonlinear=False), hdqsm])
def test_outliers_do_little_harm(invert):
    chi, mask, field = noisy()
    clean = relative_error(invert(field, mask, (1, 1, 1), pad=6), chi, mask)
    bad = tuple(np.argwhere(mask)[200::400].T)
    field[bad] += np.random.default_rng(5).uniform(-1.5 * TURN, 1.5 * TURN, len(bad[0]))
    error = relative_error(invert(field, mask, (1, 1, 1), pad=6), chi, mask)
    linear = relative_error(tv(field, mask, (1, 1, 1), pad=6, robust=None), chi, mask)
    assert error < clean + 0.05
    assert error < 0.2 * linear


def test_clean_field_is_fitted_without_loss_of_contrast():
    chi, mask, local, _ = phantom()
    absolute, squared = (invert(local, mask, (1, 1, 1), pad=8) for invert in (l1qsm, tv))
    assert relative_error(absolute, chi, mask) < 0.5 * relative_error(squared, chi, mask)


def test_wrong_turns_in_a_cluster_need_the_phase():
    chi, mask, field = noisy()
    right = relative_error(l1qsm(field, mask, (1, 1, 1), pad=6), chi, mask)
    field[12:16, 10:15, 14:18] += TURN
    nonlinear, linear = (
        relative_error(l1qsm(field, mask, (1, 1, 1), pad=6, nonlinear=n), chi, mask)
        for n in (True, False)
    )
    assert nonlinear < right + 0.05
    assert linear > 2 * nonlinear


def test_robust_scale_is_not_shielded_by_one_large_misfit():
    chi, mask, field = noisy()
    field[tuple(np.argwhere(mask)[200::400].T)] += 0.1
    field[tuple(np.argwhere(mask)[4000])] += 2
    robust, published = (hdqsm(field, mask, (1, 1, 1), pad=6, robust=r) for r in (0.01, None))
    assert relative_error(robust, chi, mask) < 0.5 * relative_error(published, chi, mask)


def test_edges_of_the_magnitude_keep_those_of_the_susceptibility():
    chi, mask, field = noisy(noise=0.003)
    magnitude = 1 - 3 * chi + np.random.default_rng(1).normal(scale=0.01, size=chi.shape)
    for invert in (partial(l1qsm, reg_weight=0.1), partial(hdqsm, reg_weight=5e-4)):
        plain = invert(field, mask, (1, 1, 1), pad=6)
        guided = invert(field, mask, (1, 1, 1), pad=6, magnitude=magnitude)
        assert relative_error(guided, chi, mask) < 0.8 * relative_error(plain, chi, mask)


def test_both_stages_iterate():
    _, mask, field = noisy(SMALL)
    _, history = hdqsm(
        field, mask, (1, 1, 1), pad=6, first_iter=5, max_iter=3, tol=1e-9, return_history=True
    )
    assert len(history) == 8


def test_bad_parameters_are_named():
    _, mask, field = noisy(SMALL)
    with pytest.raises(ValueError, match='start_iter'):
        l1qsm(field, mask, (1, 1, 1), start_iter=-1)
    with pytest.raises(ValueError, match='robust'):
        hdqsm(field, mask, (1, 1, 1), robust=0)
