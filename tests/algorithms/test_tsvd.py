"""Truncated singular value decomposition, beside truncated division."""

import numpy as np
import pytest

from qsmflow.algorithms import operators as ops
from qsmflow.algorithms.inversion.direct import tkd, tsvd
from tests.algorithms.fields import phantom, relative_error
from tests.algorithms.inversion_battery import InversionBattery, full_grid_field

VOXEL = (1, 1, 1)


class TestTsvd(InversionBattery):
    method = staticmethod(tsvd)
    positive = 'threshold'
    linear = True
    flip_limit = 1e-4

    @pytest.mark.skip('has no weights')
    def test_weights_keep_bad_voxels_from_spreading(self):
        pass


@pytest.mark.parametrize(('invert', 'below'), [(tkd, True), (tsvd, False)])
def test_it_is_the_truncated_inverse_where_the_mask_fills_the_grid(invert, below):
    _, field = full_grid_field()
    kernel = ops.dipole_kernel(field.shape, VOXEL, real=False).astype(np.float64)
    inverse = np.zeros_like(kernel)
    large = np.abs(kernel) > 0.15
    inverse[large] = 1 / kernel[large]
    if below:
        inverse[~large] = np.where(kernel[~large] < 0, -1, 1) / 0.15
    inverse[0, 0, 0] = 0
    expected = np.fft.ifftn(np.fft.fftn(field.astype(np.float64)) * inverse).real
    found = invert(field, np.ones(field.shape, bool), VOXEL, threshold=0.15, pad=0)
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
    ('invert', 'threshold', 'kept'),
    [(tkd, 0.1, 0.879), (tkd, 0.15, 0.820), (tkd, 0.2, 0.761), (tsvd, 0.15, 0.642)],
)
def test_the_correction_divides_by_the_share_of_contrast_kept(invert, threshold, kept):
    _, mask, local, _ = phantom()
    plain, corrected = (
        invert(local, mask, VOXEL, threshold=threshold, correct=c) for c in (False, True)
    )
    inside = np.abs(plain) > 0.01
    np.testing.assert_allclose(plain[inside] / corrected[inside], kept, atol=0.005)


def test_frequencies_between_the_levels_are_lost_to_tsvd_only():
    chi, mask, local, _ = phantom()
    errors = [relative_error(f(local, mask, VOXEL, threshold=0.2), chi, mask) for f in (tkd, tsvd)]
    assert errors[0] < errors[1]


def test_nothing_above_the_level_gives_zero_also_with_correction():
    field = np.random.default_rng(0).normal(size=(9, 8, 1)).astype(np.float32)
    mask = np.ones(field.shape, bool)
    # In the frequencies of one slice across the main field the kernel is 1/3.
    assert not tsvd(field, mask, VOXEL, threshold=0.4, correct=True, pad=0).any()
