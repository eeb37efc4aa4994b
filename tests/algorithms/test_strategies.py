"""One pass, two passes, and strong sources on top of the rest."""

from functools import partial

import numpy as np
import pytest

from qsmflow.algorithms import operators as ops
from qsmflow.algorithms.inversion.direct import tkd
from qsmflow.algorithms.inversion.ilsqr import ilsqr
from qsmflow.algorithms.inversion.rts import rts
from qsmflow.algorithms.inversion.strategies import single, superposed, two_pass
from qsmflow.algorithms.inversion.tv import tv
from qsmflow.algorithms.quality import calc_streak
from tests.algorithms.fields import phantom, relative_error
from tests.algorithms.inversion_battery import SMALL
from tests.algorithms.strong_source import CALCIFICATION, HAEMORRHAGE, with_source

VOXEL = (1, 1, 1)
OPTIONS = {'pad': 6}
ALL = {
    'single': single,
    'two_pass': partial(two_pass, threshold=0.5),
    'superposed': partial(superposed, pad=6, max_iter=4),
}


def with_hole():
    """Return chi, mask, a field that is wrong in a hole, weights that know of it, and the rest."""
    chi, mask, local, _ = phantom()
    hole = np.zeros(mask.shape, bool)
    hole[20:24, 24:28, 12:16] = True
    field = local.copy()
    field[hole] += np.random.default_rng(0).normal(scale=0.5, size=int(hole.sum()))
    return chi, mask, field, np.where(hole, 0.05, 1.0) * mask, mask & ~hole


@pytest.mark.parametrize('strategy', ALL.values(), ids=ALL)
def test_common_contract(strategy):
    _, mask, local, _ = phantom(SMALL)
    weights = mask * np.float32(0.9)
    weights[tuple(np.argwhere(mask)[100])] = 0.1
    field = local.copy()
    field[~mask] = np.nan
    kept = field.copy(), mask.copy(), weights.copy()
    b0_dir = (0.3, -0.4, 0.866)
    chi, history = strategy(
        rts, field, mask, VOXEL, b0_dir=b0_dir, weights=weights, options={'pad': 6, 'max_iter': 3},
        return_history=True,
    )  # fmt: skip
    assert chi.dtype == np.float32
    assert np.isfinite(chi).all()
    assert not chi[~mask].any()
    assert len(history) >= 3
    for now, before in zip((field, mask, weights), kept, strict=True):
        np.testing.assert_array_equal(now, before)
    assert not strategy(tkd, 0 * local, mask, VOXEL, weights=weights).any()
    with pytest.raises(ValueError, match='mask is empty'):
        strategy(tkd, local, 0 * mask, VOXEL, weights=weights)
    with pytest.raises(ValueError, match='one grid'):
        strategy(tkd, local, mask[1:], VOXEL, weights=weights)


def test_single_is_the_inversion():
    _, mask, local, _ = phantom(SMALL)
    options = {'threshold': 0.2, 'pad': 6}
    one = single(tkd, local, mask, VOXEL, b0_dir=(0, 1, 0), options=options)
    np.testing.assert_array_equal(one, tkd(local, mask, VOXEL, b0_dir=(0, 1, 0), **options))
    assert options == {'threshold': 0.2, 'pad': 6}


# --- two passes -----------------------------------------------------------------------------


def test_reliable_voxels_are_those_of_the_first_pass():
    _, mask, field, weights, reliable = with_hole()
    joined = two_pass(tkd, field, mask, VOXEL, weights=weights, options=OPTIONS)
    first = tkd(field, reliable, VOXEL, pad=6)
    filled = tkd(field, mask, VOXEL, pad=6)
    np.testing.assert_array_equal(joined[reliable], first[reliable])
    shift = first[reliable].mean() - filled[reliable].mean()
    hole = mask & ~reliable
    np.testing.assert_allclose(joined[hole], filled[hole] + shift, atol=1e-6)


@pytest.mark.parametrize(('invert', 'gain'), [(tkd, 0.6), (partial(ilsqr, max_iter=20), 1.0)])
def test_a_corrupted_hole_does_not_reach_reliable_voxels(invert, gain):
    chi, mask, field, weights, reliable = with_hole()
    once = single(invert, field, mask, VOXEL, weights=weights, options=OPTIONS)
    twice = two_pass(invert, field, mask, VOXEL, weights=weights, options=OPTIONS)
    clean = invert(phantom()[2], mask, VOXEL, pad=6)
    errors = [relative_error(estimate, chi, reliable) for estimate in (clean, once, twice)]
    assert errors[2] < gain * errors[1]
    assert errors[2] < errors[0] + 0.15


def test_an_explicit_mask_of_reliable_voxels_needs_no_weights():
    _, mask, field, weights, reliable = with_hole()
    by_mask = two_pass(tkd, field, mask, VOXEL, reliable=reliable, options=OPTIONS)
    by_weights = two_pass(tkd, field, mask, VOXEL, weights=weights, options=OPTIONS)
    np.testing.assert_array_equal(by_mask, by_weights)


def test_one_pass_where_two_make_no_sense():
    _, mask, field, _, _ = with_hole()
    once = single(tkd, field, mask, VOXEL, options=OPTIONS)
    few = np.argwhere(mask)[::3]
    sparse = np.zeros(mask.shape, bool)
    sparse[tuple(few.T)] = True
    for given in (mask, sparse, 0 * mask):
        chi = two_pass(tkd, field, mask, VOXEL, reliable=given, options=OPTIONS)
        np.testing.assert_array_equal(chi, once)


def test_two_passes_must_know_what_is_reliable():
    _, mask, field, weights, reliable = with_hole()
    with pytest.raises(ValueError, match='neither weights nor reliable'):
        two_pass(tkd, field, mask, VOXEL)
    with pytest.raises(ValueError, match='threshold must lie'):
        two_pass(tkd, field, mask, VOXEL, weights=weights, threshold=1.5)
    with pytest.raises(ValueError, match='reliable has shape'):
        two_pass(tkd, field, mask, VOXEL, reliable=reliable[1:])


# --- strong sources -------------------------------------------------------------------------


@pytest.mark.parametrize('source', [HAEMORRHAGE, CALCIFICATION])
@pytest.mark.parametrize(
    ('invert', 'gain'), [(tkd, 0.7), (rts, 0.8), (partial(tv, max_iter=10), 0.9)]
)
def test_streaks_of_strong_sources_drop(invert, gain, source):
    chi, mask, field, where = with_source(*source)
    once, layered = (
        strategy(invert, field, mask, VOXEL, options=OPTIONS) for strategy in (single, superposed)
    )
    streaks = [calc_streak(estimate, chi, where, mask) for estimate in (once, layered)]
    assert streaks[1] < gain * streaks[0]
    rest = mask & ~where
    assert relative_error(layered, chi, rest) < relative_error(once, chi, rest)
    ratio = layered[where].mean() / chi[where].mean()
    assert ratio == pytest.approx(1, abs=0.15)


def test_normal_tissue_keeps_its_contrast():
    chi, mask, field, where = with_source(*HAEMORRHAGE)
    healthy = phantom()[0]
    without = field - ops.forward_field(chi - healthy, VOXEL) * mask
    expected, once, layered = (
        strategy(rts, f, mask, VOXEL, options=OPTIONS)
        for strategy, f in ((single, without), (single, field), (superposed, field))
    )
    nucleus = (chi > 0.09) & ~where
    contrast = [v[nucleus].mean() - v[chi < -0.07].mean() for v in (expected, once, layered)]
    assert contrast[1] < 0.9 * contrast[0]
    assert contrast[2] == pytest.approx(contrast[0], rel=0.03)


def test_nothing_changes_without_strong_sources():
    _, mask, local, _ = phantom(SMALL)
    once, layered = (
        strategy(tkd, local, mask, VOXEL, options=OPTIONS) for strategy in (single, superposed)
    )
    np.testing.assert_allclose(layered, once, atol=1e-6)


@pytest.mark.parametrize('name', ['strong_weight', 'threshold', 'max_iter'])
def test_impossible_parameters_are_named(name):
    _, mask, local, _ = phantom(SMALL)
    with pytest.raises(ValueError, match=name):
        superposed(tkd, local, mask, VOXEL, **{name: 0})
