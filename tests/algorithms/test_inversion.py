from functools import partial

import numpy as np
import pytest

from qsmflow.algorithms import operators as ops
from qsmflow.algorithms.inversion import l2, tkd
from qsmflow.algorithms.regularized import rts, tv
from tests.algorithms.fields import B0_DIRECTIONS, phantom, relative_error

METHODS = {'tkd': tkd, 'l2': l2, 'rts': rts, 'tv': tv}
every_method = pytest.mark.parametrize('name', METHODS)
# Relative error of the object below: each method's own class of accuracy, with a tenth to spare.
ERRORS = {'tkd': 0.45, 'l2': 0.45, 'rts': 0.40, 'tv': 0.25}
SMALL = (23, 24, 21)


def _quick(name):
    return partial(METHODS[name], pad=6, **({'max_iter': 8} if name in ('rts', 'tv') else {}))


@every_method
@pytest.mark.parametrize('b0_dir', B0_DIRECTIONS)
def test_susceptibility_is_recovered(name, b0_dir):
    chi, mask, local, _ = phantom(b0_dir=b0_dir)
    estimate = METHODS[name](local, mask, (1, 1, 1), b0_dir=b0_dir, pad=8)
    assert estimate.dtype == np.float32
    assert not estimate[~mask].any()
    assert relative_error(estimate, chi, mask) < ERRORS[name]


@every_method
def test_anisotropic_voxels(name):
    voxel_size = (0.8, 0.8, 1.6)
    chi, mask, local, _ = phantom((44, 44, 24), voxel_size)
    estimate = METHODS[name](local, mask, voxel_size, pad=8)
    assert relative_error(estimate, chi, mask) < ERRORS[name] + 0.1


@every_method
def test_paramagnetic_is_positive(name):
    chi, mask, local, _ = phantom(SMALL)
    estimate = _quick(name)(local, mask, (1, 1, 1))
    assert estimate[chi > 0.09].mean() > estimate[chi == 0].mean() + 0.04
    assert estimate[chi < -0.07].mean() < estimate[mask & (chi == 0)].mean() - 0.02


@every_method
@pytest.mark.parametrize('order', [(2, 0, 1), (1, 0, 2)])
def test_permuted_axes(name, order):
    order = list(order)
    voxel_size, b0_dir = np.array([1.0, 1.2, 1.5]), np.array([0.3, -0.4, 0.866])
    _, mask, local, _ = phantom(SMALL, voxel_size, b0_dir)
    one = _quick(name)(local, mask, voxel_size, b0_dir=b0_dir)
    other = _quick(name)(
        local.transpose(order), mask.transpose(order), voxel_size[order], b0_dir=b0_dir[order]
    )
    np.testing.assert_allclose(other, one.transpose(order), atol=1e-3 * np.abs(one).max())


@every_method
@pytest.mark.parametrize('axis', [0, 2])
def test_flipped_axes(name, axis):
    b0_dir = np.array([0.3, -0.4, 0.866])
    _, mask, local, _ = phantom(SMALL, b0_dir=b0_dir)
    one = _quick(name)(local, mask, (1, 1, 1), b0_dir=b0_dir)
    b0_dir[axis] *= -1
    other = _quick(name)(np.flip(local, axis), np.flip(mask, axis), (1, 1, 1), b0_dir=b0_dir)
    difference = np.flip(other, axis) - one
    # The isotropic norm of forward differences is not the same after a flip.
    limit = 0.15 if name in ('rts', 'tv') else 1e-4
    assert np.linalg.norm(difference) < limit * np.linalg.norm(one)


@every_method
def test_sign_of_b0_has_no_effect(name):
    _, mask, local, _ = phantom(SMALL)
    one, other = (
        _quick(name)(local, mask, (1, 1, 1), b0_dir=v) for v in [(0.1, 0.2, 1), (-0.1, -0.2, -1)]
    )
    np.testing.assert_allclose(one, other, atol=1e-5)


@every_method
@pytest.mark.parametrize('weighted', [False, True])
def test_zero_field_gives_zero(name, weighted):
    _, mask, local, _ = phantom(SMALL)
    weights = 0.5 * mask if weighted else None
    assert not _quick(name)(0 * local, mask, (1, 1, 1), weights=weights).any()


@every_method
def test_inputs_are_unchanged_and_the_rest_is_ignored(name):
    _, mask, local, _ = phantom(SMALL)
    field, weights = local.copy(), mask * np.float32(0.8)
    field[~mask] = np.nan
    kept = field.copy(), mask.copy(), weights.copy()
    one = _quick(name)(field, mask, (1, 1, 1), weights=weights)
    for now, before in zip((field, mask, weights), kept, strict=True):
        np.testing.assert_array_equal(now, before)
    np.testing.assert_array_equal(one, _quick(name)(local, mask, (1, 1, 1), weights=weights))


@every_method
def test_history_on_request(name):
    _, mask, local, _ = phantom(SMALL)
    chi, history = _quick(name)(local, mask, (1, 1, 1), return_history=True)
    assert chi.shape == mask.shape
    assert len(history) == {'tkd': 0, 'l2': 0, 'rts': len(history), 'tv': 16}[name]
    assert all(h >= 0 for h in history)
    if name in ('rts', 'tv'):
        assert history[-1] < history[0]


@pytest.mark.parametrize(
    'invert',
    [tkd, l2, partial(l2, weights=0.5 * np.ones(SMALL), max_iter=200, tol=1e-5)],
    ids=['tkd', 'l2', 'l2-weighted'],
)
def test_linear_methods_are_linear(invert):
    _, mask, local, background = phantom(SMALL)
    one, two, both = (
        invert(f, mask, (1, 1, 1), pad=6) for f in (local, background, 2 * local - 3 * background)
    )
    np.testing.assert_allclose(both, 2 * one - 3 * two, atol=1e-3 * np.abs(both).max())


def test_uniform_weights_leave_the_closed_solution_when_the_mask_fills_the_grid():
    chi = np.random.default_rng(0).normal(size=(12, 16, 18)).astype(np.float32)
    field = ops.forward_field(chi, (1, 1, 1), pad=0)
    full = np.ones(chi.shape, bool)
    closed = l2(field, full, (1, 1, 1), pad=0)
    iterated = l2(field, full, (1, 1, 1), pad=0, weights=1.0 * full, max_iter=300, tol=1e-5)
    np.testing.assert_allclose(iterated, closed, atol=2e-3 * np.abs(closed).max())


@every_method
def test_the_mean_is_not_removed(name):
    # Most of the mask lies below its surroundings, so the mean over the mask is not zero.
    _, mask, local, _ = phantom(SMALL)
    assert abs(_quick(name)(local, mask, (1, 1, 1))[mask].mean()) > 1e-4


@pytest.mark.parametrize('name', ['l2', 'rts', 'tv'])
def test_weights_lower_the_influence_of_bad_voxels(name):
    chi, mask, local, _ = phantom()
    places = tuple(np.argwhere(mask)[200::400].T)
    field, weights = local.copy(), mask.astype(np.float32)
    field[places] += 0.5
    weights[places] = 0.01
    options = {'robust': None} if name == 'tv' else {}
    plain = METHODS[name](field, mask, (1, 1, 1), pad=6, **options)
    weighted = METHODS[name](field, mask, (1, 1, 1), pad=6, weights=weights, **options)
    assert relative_error(weighted, chi, mask) < 0.8 * relative_error(plain, chi, mask)


def test_robust_restart_catches_bad_voxels_without_weights():
    chi, mask, local, _ = phantom()
    field = local.copy()
    field[tuple(np.argwhere(mask)[200::400].T)] += 0.3
    plain = tv(field, mask, (1, 1, 1), pad=6, robust=None)
    robust = tv(field, mask, (1, 1, 1), pad=6)
    assert relative_error(robust, chi, mask) < 0.7 * relative_error(plain, chi, mask)


def test_harmonic_term_takes_up_background_left():
    chi, mask, local, _ = phantom()
    z = np.arange(mask.shape[2]) - mask.shape[2] / 2
    field = local + np.float32(1e-5) * z**3 * mask
    # Sources outside the mask could take up a harmonic background too: make them expensive.
    plain, harmonic = (
        tv(field, mask, (1, 1, 1), pad=8, outside_weight=1.0, harmonic_weight=weight)
        for weight in (None, 150.0)
    )
    assert relative_error(harmonic, chi, mask) < relative_error(plain, chi, mask)


def test_reweighting_restores_contrast():
    chi, mask, local, _ = phantom()
    means = []
    for reweight in (None, 0.02):
        estimate = tv(local, mask, (1, 1, 1), reg_weight=1e-3, pad=8, reweight=reweight)
        means.append(estimate[chi > 0.09].mean() - estimate[chi < -0.07].mean())
    assert means[0] < means[1] < 0.2


def test_more_regularisation_is_smoother():
    _, mask, local, _ = phantom(SMALL)
    noise = np.random.default_rng(0).normal(scale=0.005, size=mask.shape).astype(np.float32)
    for name in ('l2', 'tv'):
        total_variation = [
            np.abs(ops.gradient(_quick(name)(local + noise, mask, (1, 1, 1), reg_weight=w))).sum()
            for w in (1e-4, 1e-2)
        ]
        assert total_variation[1] < 0.8 * total_variation[0]


def test_truncation_correction_raises_contrast():
    _, mask, local, _ = phantom(SMALL)
    plain, corrected = (tkd(local, mask, (1, 1, 1), correct=c) for c in (False, True))
    factor = np.median(corrected[mask] / plain[mask])
    assert 1 / factor == pytest.approx(0.82, abs=0.02)


@every_method
def test_bad_input_is_named(name):
    invert = METHODS[name]
    _, mask, local, _ = phantom(SMALL)
    with pytest.raises(ValueError, match='mask is empty'):
        invert(local, 0 * mask, (1, 1, 1))
    with pytest.raises(ValueError, match='one grid'):
        invert(local, mask[1:], (1, 1, 1))
    with pytest.raises(ValueError, match='not finite'):
        invert(np.full(mask.shape, np.nan), mask, (1, 1, 1))
    with pytest.raises(ValueError, match='b0_dir'):
        invert(local, mask, (1, 1, 1), b0_dir=(0, 0, 0))
    with pytest.raises(ValueError, match='voxel_size'):
        invert(local, mask, (1, -1, 1))
    with pytest.raises(ValueError, match='weights are zero'):
        invert(local, mask, (1, 1, 1), weights=0.0 * mask)
    parameter = 'threshold' if name == 'tkd' else 'reg_weight'
    with pytest.raises(ValueError, match=parameter):
        invert(local, mask, (1, 1, 1), **{parameter: -1})


def test_single_slice_and_one_voxel_masks():
    field = np.random.default_rng(0).normal(size=(9, 8, 1)).astype(np.float32)
    for name in METHODS:
        assert np.isfinite(_quick(name)(field, np.ones(field.shape, bool), (1, 1, 1))).all()
    one = np.zeros((5, 5, 5), bool)
    one[2, 2, 2] = True
    assert np.isfinite(_quick('tv')(one * 0.1, one, (1, 1, 1))).all()
