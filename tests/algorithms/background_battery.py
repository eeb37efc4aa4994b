"""What every background removal must fulfil, as a class to derive a test class from.

class TestPdf(BackgroundBattery):
    method = staticmethod(pdf)
"""

import numpy as np
import pytest

from tests.algorithms.fields import SHAPE, phantom

VOXELS = [(1.0, 1.0, 1.0), (1.0, 1.2, 2.0)]
POLYNOMIALS = {
    '1': lambda x, y, z: np.ones(SHAPE),
    'x': lambda x, y, z: x,
    'z': lambda x, y, z: z,
    'xy': lambda x, y, z: x * y,
    'x2-y2': lambda x, y, z: x**2 - y**2,
    '2z2-x2-y2': lambda x, y, z: 2 * z**2 - x**2 - y**2,
}


@pytest.fixture(scope='module')
def case():
    return phantom()


class BackgroundBattery:
    """Set ``method``; the rest where the method needs it."""

    #: The function under test, as a ``staticmethod``.
    method = None
    #: Its options in all tests.
    options: dict = {}
    #: Share of the mask that it must keep.
    kept = 0.45
    #: Share of an external field that may stay (relative norm on the support).
    external = 0.06
    #: Share of harmonic polynomials that may stay; None where that is not promised.
    harmonic = 0.02
    #: Whether the result is linear in the field.
    linear = True
    #: Range of the slope of the local field found on the true one.
    slope = (0.7, 1.1)
    #: Relative change (of the maximum) under permutations and flips.
    axes_limit = 2e-3

    def remove(self, *args, **options):
        return type(self).method(*args, **{**self.options, **options})

    def test_local_field_is_recovered(self, case):
        _, mask, local, background = case
        estimate, support = self.remove(local + background, mask, (1, 1, 1))
        assert support[mask].mean() > self.kept
        assert not estimate[~support].any()
        assert not support[~mask].any()
        assert np.linalg.norm(background) > 3 * np.linalg.norm(local)
        assert np.corrcoef(estimate[support], local[support])[0, 1] > 0.9
        slope = np.polyfit(local[support], estimate[support], 1)[0]
        assert self.slope[0] < slope < self.slope[1]

    def test_external_field_is_removed(self, case):
        _, mask, _, background = case
        estimate, support = self.remove(background, mask, (1, 1, 1))
        assert np.linalg.norm(estimate) < self.external * np.linalg.norm(background[support])

    @pytest.mark.parametrize('voxel_size', VOXELS)
    @pytest.mark.parametrize('name', POLYNOMIALS)
    def test_harmonic_polynomials_vanish(self, voxel_size, name):
        if self.harmonic is None:
            pytest.skip('not promised: sources in a finite frame do not make every polynomial')
        _, mask, _, _ = phantom(voxel_size=voxel_size)
        axes = [(np.arange(n) - n / 2) * s for n, s in zip(SHAPE, voxel_size, strict=True)]
        field = POLYNOMIALS[name](*np.meshgrid(*axes, indexing='ij'))
        field = field / np.abs(field).max()
        estimate, support = self.remove(field, mask, voxel_size)
        limit = self.harmonic * np.sqrt(np.mean(field[support] ** 2))
        assert np.std(estimate[support]) < limit

    def test_axes_and_flips(self):
        voxel_size, b0_dir = np.array([1.0, 1.2, 1.5]), np.array([0.3, -0.4, 0.866])
        _, mask, local, background = phantom((23, 24, 21), voxel_size, b0_dir)
        total = local + background
        one, support = self.remove(total, mask, voxel_size, b0_dir=b0_dir)
        order = [2, 0, 1]
        other, moved = self.remove(
            total.transpose(order), mask.transpose(order), voxel_size[order], b0_dir=b0_dir[order]
        )
        limit = self.axes_limit * np.abs(one).max()
        assert np.array_equal(moved, support.transpose(order))
        np.testing.assert_allclose(other, one.transpose(order), atol=limit)
        b0_dir[1] *= -1
        flipped, turned = self.remove(
            np.flip(total, 1), np.flip(mask, 1), voxel_size, b0_dir=b0_dir
        )
        assert np.array_equal(turned, np.flip(support, 1))
        np.testing.assert_allclose(flipped, np.flip(one, 1), atol=limit)

    def test_scaling_zero_and_input(self, case):
        _, mask, local, background = case
        total = local + background
        before = total.copy()
        once, _ = self.remove(total, mask, (1, 1, 1))
        assert np.array_equal(total, before)
        if self.linear:
            twice, _ = self.remove(2 * total, mask, (1, 1, 1))
            np.testing.assert_allclose(twice, 2 * once, atol=1e-5)
        assert once.dtype == np.float32
        assert not self.remove(0 * total, mask, (1, 1, 1))[0].any()

    def test_values_outside_the_mask_are_ignored(self, case):
        _, mask, local, background = case
        total = local + background
        one, _ = self.remove(total, mask, (1, 1, 1))
        other, _ = self.remove(np.where(mask, total, np.nan), mask, (1, 1, 1))
        assert np.array_equal(one, other)

    def test_bad_input_is_named(self, case):
        _, mask, local, _ = case
        with pytest.raises(ValueError, match='mask is empty'):
            self.remove(local, 0 * mask, (1, 1, 1))
        with pytest.raises(ValueError, match='one grid'):
            self.remove(local, mask[1:], (1, 1, 1))
        with pytest.raises(ValueError, match='voxel_size'):
            self.remove(local, mask, (1, 1, 0))
        with pytest.raises(ValueError, match='not finite'):
            self.remove(np.full(mask.shape, np.inf), mask, (1, 1, 1))
        with pytest.raises(ValueError, match=r'weights must lie in \[0, 1\]'):
            self.remove(local, mask, (1, 1, 1), weights=3.0 * mask)
