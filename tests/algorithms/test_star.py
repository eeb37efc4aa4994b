"""STAR-QSM: two levels of regularisation."""

import numpy as np
import pytest

from qsmflow.algorithms import operators as ops
from qsmflow.algorithms.inversion._strong import split_off
from qsmflow.algorithms.inversion.star import star
from qsmflow.algorithms.inversion.tv import tv
from qsmflow.algorithms.quality import calc_streak
from tests.algorithms.fields import phantom, relative_error
from tests.algorithms.inversion_battery import SMALL, InversionBattery
from tests.algorithms.strong_source import CALCIFICATION, HAEMORRHAGE, with_source


class TestStar(InversionBattery):
    method = staticmethod(star)
    error = 0.15
    # The fields of the phantom are those of whole voxels, not of the middle of k-space.
    quick = {'max_iter': 8, 'strong_iter': 6, 'voxel_average': False}
    full = {'pad': 8, 'voxel_average': False}
    # That of `tv`, whose second part sharpens the difference.
    flip_limit = 0.25


@pytest.mark.parametrize('source', [HAEMORRHAGE, CALCIFICATION])
def test_strong_sources_are_found_and_their_field_taken_out(source):
    chi, mask, field, where = with_source(*source)
    found, rest, history = split_off(
        field, mask, (1, 1, 1), b0_dir=(0, 0, 1), weights=None, strong_weight=3e-3,
        threshold=0.15, pad=6, max_iter=12, tol=1e-5,
    )  # fmt: skip
    assert found[where].mean() / chi[where].mean() == pytest.approx(1, abs=0.1)
    assert np.count_nonzero(found[~where]) < 0.01 * mask.sum()
    assert not found[~mask].any()
    again = rest + ops.forward_field(found, (1, 1, 1)) * mask
    np.testing.assert_allclose(again, field, atol=2e-3)
    assert np.linalg.norm(rest) < 0.4 * np.linalg.norm(field)
    assert len(history) == 24


@pytest.mark.parametrize(('source', 'gain'), [(HAEMORRHAGE, 0.8), ((1.0, 4.5), 0.6)])
def test_fewer_streaks_than_total_variation(source, gain):
    chi, mask, field, where = with_source(*source)
    plain, two_levels = (
        invert(field, mask, (1, 1, 1), pad=6, voxel_average=False) for invert in (tv, star)
    )
    streaks = [calc_streak(estimate, chi, where, mask) for estimate in (plain, two_levels)]
    assert streaks[1] < gain * streaks[0]
    assert relative_error(two_levels, chi, mask) < relative_error(plain, chi, mask)


def test_is_total_variation_without_strong_sources():
    _, mask, local, _ = phantom(SMALL)
    options = {'pad': 6, 'max_iter': 5, 'tol': 1e-5, 'voxel_average': False}
    plain = tv(local, mask, (1, 1, 1), **options)
    two_levels, history = star(local, mask, (1, 1, 1), **options, return_history=True)
    np.testing.assert_array_equal(two_levels, plain)
    assert len(history) == 24 + 10


def test_the_weight_of_the_rest_follows_the_noise_as_in_total_variation():
    _, mask, local, _ = phantom(SMALL)
    options = {'pad': 6, 'max_iter': 5, 'voxel_average': False}
    noise = np.where(mask, 0.003, np.nan)
    plain, two_levels = (
        invert(local, mask, (1, 1, 1), field_noise=noise, **options) for invert in (tv, star)
    )
    np.testing.assert_array_equal(two_levels, plain)
    given = star(local, mask, (1, 1, 1), reg_weight=3.75e-4, **options)
    np.testing.assert_allclose(two_levels, given, atol=1e-7)
    assert relative_error(star(local, mask, (1, 1, 1), **options), given, mask) > 0.01


def test_parameters_reach_their_level():
    _, mask, field, _ = with_source(*HAEMORRHAGE)
    base = {'pad': 6, 'max_iter': 5, 'voxel_average': False}
    one = star(field, mask, (1, 1, 1), **base)
    for change in (
        {'reg_weight': 1e-3},
        {'strong_weight': 1e-2},
        {'threshold': 2.0},
        {'voxel_average': True},
        {'strong_iter': 3},
    ):
        other = star(field, mask, (1, 1, 1), **{**base, **change})
        assert relative_error(other, one, mask) > 1e-3


@pytest.mark.parametrize('name', ['strong_weight', 'threshold', 'strong_iter'])
def test_impossible_parameters_are_named(name):
    _, mask, local, _ = phantom(SMALL)
    with pytest.raises(ValueError, match=name):
        star(local, mask, (1, 1, 1), **{name: 0})
