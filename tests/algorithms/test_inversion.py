"""The direct inversions, RTS and total variation."""

from functools import partial

import numpy as np
import pytest

from qsmflow.algorithms import operators as ops
from qsmflow.algorithms.inversion.direct import l2, tkd
from qsmflow.algorithms.inversion.rts import rts
from qsmflow.algorithms.inversion.tv import tv
from tests.algorithms.fields import phantom, relative_error
from tests.algorithms.inversion_battery import SMALL, InversionBattery, full_grid_field

ITERATIVE = {'tv': partial(tv, pad=6, max_iter=8), 'l2': partial(l2, pad=6)}


class TestTkd(InversionBattery):
    method = staticmethod(tkd)
    positive = 'threshold'
    linear = True
    flip_limit = 1e-4

    @pytest.mark.skip('has no weights')
    def test_weights_keep_bad_voxels_from_spreading(self):
        pass


class TestL2(InversionBattery):
    method = staticmethod(l2)
    linear = True
    flip_limit = 1e-4


class TestWeightedL2(InversionBattery):
    method = staticmethod(partial(l2, max_iter=200, tol=1e-5))
    linear = True
    flip_limit = 1e-3

    def small(self, local_field, mask, voxel_size, **options):
        options = {'weights': 0.5 * mask, **options}
        if options['weights'] is None:
            options['weights'] = 0.5 * mask
        return super().small(local_field, mask, voxel_size, **options)


class TestRts(InversionBattery):
    method = staticmethod(rts)
    error = 0.40
    quick = {'max_iter': 8}


class TestTv(InversionBattery):
    method = staticmethod(tv)
    error = 0.25
    quick = {'max_iter': 8}
    flip_limit = 0.25

    def test_both_parts_iterate(self):
        _, mask, local, _ = phantom(SMALL)
        _, history = self.small(local, mask, (1, 1, 1), return_history=True)
        assert len(history) == 16


def test_uniform_weights_leave_the_closed_solution_when_the_mask_fills_the_grid():
    chi, field = full_grid_field()
    full = np.ones(chi.shape, bool)
    closed = l2(field, full, (1, 1, 1), pad=0)
    iterated = l2(field, full, (1, 1, 1), pad=0, weights=1.0 * full, max_iter=300, tol=1e-5)
    np.testing.assert_allclose(iterated, closed, atol=2e-3 * np.abs(closed).max())


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
    for reweight in (None, 0.005):
        estimate = tv(local, mask, (1, 1, 1), reg_weight=1e-3, pad=8, reweight=reweight)
        means.append(estimate[chi > 0.09].mean() - estimate[chi < -0.07].mean())
    assert means[0] < means[1] < 0.2


def test_more_regularisation_is_smoother():
    _, mask, local, _ = phantom(SMALL)
    noise = np.random.default_rng(0).normal(scale=0.005, size=mask.shape).astype(np.float32)
    for invert in ITERATIVE.values():
        total_variation = [
            np.abs(ops.gradient(invert(local + noise, mask, (1, 1, 1), reg_weight=w))).sum()
            for w in (1e-4, 1e-2)
        ]
        assert total_variation[1] < 0.8 * total_variation[0]


def test_truncation_correction_raises_contrast():
    _, mask, local, _ = phantom(SMALL)
    plain, corrected = (tkd(local, mask, (1, 1, 1), correct=c) for c in (False, True))
    factor = np.median(corrected[mask] / plain[mask])
    assert 1 / factor == pytest.approx(0.82, abs=0.02)
