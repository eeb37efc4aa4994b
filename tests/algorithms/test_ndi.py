"""Nonlinear dipole inversion."""

from functools import partial

import numpy as np
import pytest

from qsmflow.algorithms import operators as ops
from qsmflow.algorithms.inversion import _descent_kernels as kernels
from qsmflow.algorithms.inversion.ndi import ndi
from tests.algorithms.fields import phantom, relative_error
from tests.algorithms.inversion_battery import SMALL, InversionBattery, full_grid_field

VOXEL = (1, 1, 1)
DESCENT = {'accelerate': False, 'tol': 0.0}


class TestConjugateGradients(InversionBattery):
    method = staticmethod(ndi)
    flip_limit = 1e-3

    def test_the_mean_is_not_removed(self):
        # A field of zero outside happens to bring the mean of the small object near zero.
        _, mask, local, _ = phantom(SMALL)
        estimate = self.small(local, mask, VOXEL, zero_outside=0)
        assert abs(estimate[mask].mean()) > 1e-4


class TestGradientDescent(InversionBattery):
    method = staticmethod(partial(ndi, accelerate=False, max_iter=100))
    quick = {'max_iter': 20}
    flip_limit = 1e-3


def objective(chi, field, weights, scale, reg_weight):
    """Return the objective of the periodic problem, in float64."""
    kernel = ops.dipole_kernel(chi.shape, VOXEL, real=False).astype(np.float64)
    model = np.fft.ifftn(np.fft.fftn(chi) * kernel).real
    data = np.abs(np.exp(1j * scale * model) - np.exp(1j * scale * field)) ** 2
    return 0.5 * (weights**2 * data).sum() / scale**2 + 0.5 * reg_weight * (chi**2).sum()


@pytest.mark.parametrize('start', [1, 4])
def test_a_step_goes_down_the_gradient(start):
    random = np.random.default_rng(1)
    field = random.normal(scale=0.1, size=(6, 5, 4)).astype(np.float32)
    weights = random.uniform(0.3, 1, size=field.shape).astype(np.float32)
    full = np.ones(field.shape, bool)
    scale, reg_weight, step = 16.0, 1e-2, 0.25
    options = {'weights': weights, 'phase_scale': scale, 'reg_weight': reg_weight, 'step': step}
    before, after = (
        ndi(field, full, VOXEL, pad=0, max_iter=n, **options, **DESCENT).astype(np.float64)
        for n in (start, start + 1)
    )
    gradient = np.empty(field.size)
    for index in range(field.size):
        shift = np.zeros(field.size)
        shift[index] = 1e-5
        shift = shift.reshape(field.shape)
        values = [
            objective(before + s * shift, field, weights, scale, reg_weight) for s in (1, -1)
        ]
        gradient[index] = (values[0] - values[1]) / 2e-5
    expected = -2 * step * gradient
    np.testing.assert_allclose(
        (after - before).ravel(), expected, atol=1e-4 * np.abs(expected).max()
    )


@pytest.mark.parametrize('reg_weight', [0.0, 0.02])
def test_iterations_are_the_filter_that_they_are_known_for(reg_weight):
    _, field = full_grid_field()
    full = np.ones(field.shape, bool)
    kernel = ops.dipole_kernel(field.shape, VOXEL).astype(np.float64)
    total = kernel**2 + reg_weight
    passed = 1 - (1 - 2 * 0.8 * total) ** 7
    share = np.divide(passed, total, out=np.zeros_like(total), where=total > 0)
    expected = ops.irfft((ops.rfft(field) * kernel * share).astype(np.complex64), field.shape)
    found = ndi(
        field, full, VOXEL, phase_scale=1e-2, reg_weight=reg_weight, step=0.8, pad=0, max_iter=7,
        **DESCENT,
    )  # fmt: skip
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def test_conjugate_gradients_reach_the_tikhonov_solution():
    _, field = full_grid_field()
    full = np.ones(field.shape, bool)
    kernel = ops.dipole_kernel(field.shape, VOXEL)
    expected = ops.irfft(ops.rfft(field) * kernel / (kernel**2 + 0.02), field.shape)
    found = ndi(
        field, full, VOXEL, phase_scale=1e-3, reg_weight=0.02, pad=0, max_iter=100, tol=1e-6
    )
    np.testing.assert_allclose(found, expected, atol=2e-4 * np.abs(expected).max())


def test_twelve_accelerated_iterations_do_what_a_hundred_did():
    chi, mask, local, _ = phantom()
    quick = ndi(local, mask, VOXEL, pad=8)
    slow = ndi(local, mask, VOXEL, pad=8, max_iter=100, **DESCENT)
    few = ndi(local, mask, VOXEL, pad=8, max_iter=12, **DESCENT)
    errors = [relative_error(estimate, chi, mask) for estimate in (quick, slow, few)]
    assert errors[0] < errors[1] + 0.02
    assert errors[0] < errors[2] - 0.05


def test_it_converges_to_noise():
    chi, mask, local, _ = phantom()
    noise = np.random.default_rng(0).normal(scale=0.001, size=mask.shape).astype(np.float32)
    errors = [
        relative_error(ndi(local + noise, mask, VOXEL, pad=8, max_iter=n, tol=0), chi, mask)
        for n in (2, 12, 80)
    ]
    assert errors[1] < errors[0]
    assert errors[1] < errors[2]


def test_a_little_zero_outside_helps():
    chi, mask, local, _ = phantom()
    errors = [
        relative_error(ndi(local, mask, VOXEL, zero_outside=w, pad=8), chi, mask) for w in (0, 0.3)
    ]
    assert errors[1] < 0.9 * errors[0]


def test_a_field_wrong_by_a_turn_does_no_harm():
    chi, mask, local, _ = phantom()
    wrapped = local.copy()
    wrapped[tuple(np.argwhere(mask)[100::50].T)] += np.float32(2 * np.pi / 16)
    right, wrong = (ndi(field, mask, VOXEL, pad=8) for field in (local, wrapped))
    assert relative_error(wrong, right, mask) < 1e-3
    # At a scale that sees no turn the same field is ruined.
    linear = ndi(wrapped, mask, VOXEL, pad=8, phase_scale=0.1)
    assert relative_error(linear, chi, mask) > 2 * relative_error(wrong, chi, mask)


def test_bad_parameters_are_named():
    _, mask, local, _ = phantom(SMALL)
    with pytest.raises(ValueError, match='step'):
        ndi(local, mask, VOXEL, step=0)
    with pytest.raises(ValueError, match='phase_scale'):
        ndi(local, mask, VOXEL, phase_scale=-1)
    with pytest.raises(ValueError, match='zero_outside'):
        ndi(local, mask, VOXEL, zero_outside=-0.1)


def test_the_data_gradient_is_good_to_single_precision():
    model = np.linspace(-4, 4, 60_000, dtype=np.float32).reshape(30, 40, 50)
    field, weight2 = np.full_like(model, 0.25), np.full_like(model, 0.5)
    found = np.empty_like(model)
    kernels.data_gradient(model, field, weight2, np.float32(16), found)
    phase = 16 * (model.astype(np.float64) - 0.25)
    np.testing.assert_allclose(found, 0.5 * np.sin(phase) / 16, atol=1e-5 / 16)
    near = np.abs(phase) < np.pi / 2
    np.testing.assert_allclose(found[near], 0.5 * np.sin(phase[near]) / 16, rtol=1e-6)
