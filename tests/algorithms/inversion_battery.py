"""What every dipole inversion must fulfil, as a class to derive a test class from.

class TestTkd(InversionBattery):
    method = staticmethod(tkd)
    error = 0.45
"""

import numpy as np
import pytest

from qsmflow.algorithms import operators as ops
from tests.algorithms.fields import B0_DIRECTIONS, phantom, relative_error

SMALL = (23, 24, 21)


class InversionBattery:
    """Set ``method`` and ``error``; the rest where the method needs it."""

    #: The function under test, as a ``staticmethod``.
    method = None
    #: Relative error on the phantom of ``fields``: the method's class, with a tenth to spare.
    error = 0.45
    #: Options that make it quick enough for tests that look at no accuracy.
    quick: dict = {}
    #: Options of the accuracy tests.
    full: dict = {'pad': 8}
    #: A parameter that must be positive.
    positive = 'reg_weight'
    #: Whether the result is linear in the field (after convergence, where it iterates).
    linear = False
    #: Relative change under a flip: the isotropic norm of forward differences knows the sense.
    flip_limit = 0.15
    #: Relative change (of the maximum) under a permutation of axes.
    permutation_limit = 1e-3

    def small(self, *args, **options):
        return type(self).method(*args, **{'pad': 6, **self.quick, **options})

    @pytest.mark.parametrize('b0_dir', B0_DIRECTIONS)
    def test_susceptibility_is_recovered(self, b0_dir):
        chi, mask, local, _ = phantom(b0_dir=b0_dir)
        estimate = type(self).method(local, mask, (1, 1, 1), b0_dir=b0_dir, **self.full)
        assert estimate.dtype == np.float32
        assert not estimate[~mask].any()
        assert relative_error(estimate, chi, mask) < self.error

    def test_anisotropic_voxels(self):
        voxel_size = (0.8, 0.8, 1.6)
        chi, mask, local, _ = phantom((44, 44, 24), voxel_size)
        estimate = type(self).method(local, mask, voxel_size, **self.full)
        assert relative_error(estimate, chi, mask) < self.error + 0.1

    def test_paramagnetic_is_positive(self):
        chi, mask, local, _ = phantom(SMALL)
        estimate = self.small(local, mask, (1, 1, 1))
        assert estimate[chi > 0.09].mean() > estimate[chi == 0].mean() + 0.04
        assert estimate[chi < -0.07].mean() < estimate[mask & (chi == 0)].mean() - 0.02

    @pytest.mark.parametrize('order', [(2, 0, 1), (1, 0, 2)])
    def test_permuted_axes(self, order):
        order = list(order)
        voxel_size, b0_dir = np.array([1.0, 1.2, 1.5]), np.array([0.3, -0.4, 0.866])
        _, mask, local, _ = phantom(SMALL, voxel_size, b0_dir)
        one = self.small(local, mask, voxel_size, b0_dir=b0_dir)
        other = self.small(
            local.transpose(order), mask.transpose(order), voxel_size[order], b0_dir=b0_dir[order]
        )
        limit = self.permutation_limit * np.abs(one).max()
        np.testing.assert_allclose(other, one.transpose(order), atol=limit)

    @pytest.mark.parametrize('axis', [0, 2])
    def test_flipped_axes(self, axis):
        b0_dir = np.array([0.3, -0.4, 0.866])
        _, mask, local, _ = phantom(SMALL, b0_dir=b0_dir)
        one = self.small(local, mask, (1, 1, 1), b0_dir=b0_dir)
        b0_dir[axis] *= -1
        other = self.small(np.flip(local, axis), np.flip(mask, axis), (1, 1, 1), b0_dir=b0_dir)
        difference = np.flip(other, axis) - one
        assert np.linalg.norm(difference) < self.flip_limit * np.linalg.norm(one)

    def test_sign_of_b0_has_no_effect(self):
        _, mask, local, _ = phantom(SMALL)
        one, other = (
            self.small(local, mask, (1, 1, 1), b0_dir=v) for v in [(0.1, 0.2, 1), (-0.1, -0.2, -1)]
        )
        np.testing.assert_allclose(one, other, atol=1e-5)

    @pytest.mark.parametrize('weighted', [False, True])
    def test_zero_field_gives_zero(self, weighted):
        _, mask, local, _ = phantom(SMALL)
        weights = 0.5 * mask if weighted else None
        assert not self.small(0 * local, mask, (1, 1, 1), weights=weights).any()

    def test_inputs_are_unchanged_and_the_rest_is_ignored(self):
        _, mask, local, _ = phantom(SMALL)
        field, weights = local.copy(), mask * np.float32(0.8)
        field[~mask] = np.nan
        kept = field.copy(), mask.copy(), weights.copy()
        one = self.small(field, mask, (1, 1, 1), weights=weights)
        for now, before in zip((field, mask, weights), kept, strict=True):
            np.testing.assert_array_equal(now, before)
        np.testing.assert_array_equal(one, self.small(local, mask, (1, 1, 1), weights=weights))

    def test_history_on_request(self):
        _, mask, local, _ = phantom(SMALL)
        chi, history = self.small(local, mask, (1, 1, 1), return_history=True)
        assert chi.shape == mask.shape
        assert all(h >= 0 for h in history)
        if len(history) > 1:
            assert history[-1] < history[0]

    def test_linear_where_it_says_so(self):
        if not self.linear:
            pytest.skip('not linear in the field')
        _, mask, local, background = phantom(SMALL)
        one, two, both = (
            self.small(f, mask, (1, 1, 1)) for f in (local, background, 2 * local - 3 * background)
        )
        np.testing.assert_allclose(both, 2 * one - 3 * two, atol=1e-3 * np.abs(both).max())

    def test_the_mean_is_not_removed(self):
        # Most of the mask lies below its surroundings, so the mean over the mask is not zero.
        _, mask, local, _ = phantom(SMALL)
        estimate = self.small(local, mask, (1, 1, 1))
        assert abs(estimate[mask].mean()) > 1e-4

    def test_weights_keep_bad_voxels_from_spreading(self):
        chi, mask, local, _ = phantom(SMALL)
        bad = np.argwhere(mask)[200::400]
        field, weights = local.copy(), mask.astype(np.float32)
        field[tuple(bad.T)] += 0.3
        weights[tuple(bad.T)] = 0.02
        plain, weighted = (self.small(field, mask, (1, 1, 1), weights=w) for w in (None, weights))
        assert relative_error(weighted, chi, mask) < relative_error(plain, chi, mask)

    def test_bad_input_is_named(self):
        invert = type(self).method
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
        with pytest.raises(ValueError, match=self.positive):
            invert(local, mask, (1, 1, 1), **{self.positive: -1})

    def test_single_slice_and_one_voxel_masks(self):
        field = np.random.default_rng(0).normal(size=(9, 8, 1)).astype(np.float32)
        assert np.isfinite(self.small(field, np.ones(field.shape, bool), (1, 1, 1))).all()
        one = np.zeros((5, 5, 5), bool)
        one[2, 2, 2] = True
        assert np.isfinite(self.small(one * 0.1, one, (1, 1, 1))).all()


def full_grid_field(shape=(12, 16, 18)):
    """Return a random susceptibility and its periodic field, where closed forms are exact."""
    chi = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    return chi, ops.forward_field(chi, (1, 1, 1), pad=0)
