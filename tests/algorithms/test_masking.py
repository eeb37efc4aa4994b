"""Masks: morphology against brute force, and a rim that is repaired without holes inside."""

import numpy as np
import pytest
from scipy import ndimage

from qsmflow.algorithms import masking
from qsmflow.algorithms.masking import (
    dilate,
    erode,
    fill_holes,
    largest_component,
    otsu_threshold,
    refine_brain_mask,
    robust_mask,
    without_blank,
)


def ball(shape, centre, radius, voxel_size=(1, 1, 1)):
    grid = np.indices(shape).astype(float)
    square = sum(
        ((axis - c) * size) ** 2 for axis, c, size in zip(grid, centre, voxel_size, strict=True)
    )
    return square <= radius**2


def brute_dilate(mask, radius, voxel_size):
    points = np.argwhere(mask) * voxel_size
    grid = np.argwhere(np.ones(mask.shape, bool)) * voxel_size
    near = (np.linalg.norm(grid[:, None] - points[None], axis=-1) <= radius + 1e-6).any(1)
    return near.reshape(mask.shape)


@pytest.mark.parametrize('voxel_size', [(1, 1, 1), (0.7, 1.1, 2.0)])
@pytest.mark.parametrize('radius', [1.0, 2.3])
def test_morphology_in_millimetres_is_that_of_all_distances(radius, voxel_size):
    rng = np.random.default_rng(0)
    mask = rng.random((9, 8, 7)) < 0.05
    np.testing.assert_array_equal(
        dilate(mask, radius, voxel_size), brute_dilate(mask, radius, voxel_size)
    )
    solid = ~mask
    np.testing.assert_array_equal(
        erode(solid, radius, voxel_size), ~brute_dilate(mask, radius, voxel_size)
    )


@pytest.mark.parametrize('change', [erode, dilate])
def test_morphology_follows_the_axes(change):
    mask = ball((15, 17, 19), (7, 8, 9), 5)
    size = (1.0, 1.5, 2.0)
    turned = change(mask.transpose(2, 0, 1), 2.5, (size[2], size[0], size[1]))
    np.testing.assert_array_equal(turned, change(mask, 2.5, size).transpose(2, 0, 1))


@pytest.mark.parametrize('change', [erode, dilate])
def test_radius_zero_and_empty_masks_change_nothing(change):
    mask = ball((9, 9, 9), (4, 4, 4), 3)
    np.testing.assert_array_equal(change(mask, 0, (1, 1, 1)), mask)
    assert not change(np.zeros((5, 5, 5), bool), 2, (1, 1, 1)).any()
    full = np.ones((5, 5, 5), bool)
    assert change(full, 2, (1, 1, 1)).all()


def test_largest_component_uses_faces_unless_told():
    mask = np.zeros((5, 5, 5), bool)
    mask[0, 0, :3] = mask[1, 1, 3:] = True
    assert largest_component(mask).sum() == 3
    assert largest_component(mask, connectivity=3).sum() == 5
    assert not largest_component(np.zeros((3, 3, 3), bool)).any()


def test_fill_holes_leaves_open_bays():
    mask = ball((15, 15, 15), (7, 7, 7), 6)
    mask[7, 7, 7] = False
    mask[:8, 4, 7] = False
    filled = fill_holes(mask)
    assert filled[7, 7, 7]
    assert not filled[5, 4, 7]
    assert not mask[7, 7, 7]


@pytest.mark.parametrize('seed', range(20))
def test_compiled_morphology_is_that_of_scipy(seed):
    """At the edges of the volume as well, and in volumes of one voxel across."""
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.random(rng.integers(1, 14, 3)), 0.6 * (seed % 2))
    mask = noise > rng.choice([0.3, 0.45, 0.55])
    opened = ndimage.binary_opening(mask, masking.FACES)
    thick = ndimage.binary_dilation(opened, masking.ALL_NEIGHBOURS) & mask
    expected = thick if opened.any() else mask
    np.testing.assert_array_equal(masking._without_spurs(mask), expected)
    np.testing.assert_array_equal(masking.fill_holes(mask), ndimage.binary_fill_holes(mask))


@pytest.mark.parametrize('size', [1, 2, 150, 40_000])
def test_histogram_is_that_of_numpy(size):
    """For rounded values as well, many of which lie at the edges of bins."""
    for digits in (1, 2, 6):
        values = np.random.default_rng(size).gamma(2, size=size).round(digits).astype(np.float32)
        if values.min() < values.max():
            expected, edges = np.histogram(values.astype(np.float64), 256)
            np.testing.assert_array_equal(masking._histogram(values, edges), expected)


def test_values_that_are_not_finite_have_no_say():
    rng = np.random.default_rng(0)
    signal = np.abs(rng.normal(size=(16, 16, 16, 3))).astype(np.float32)
    signal[4:12, 4:12, 4:12] += 20
    broken = signal.copy()
    broken[0, 0, 0] = np.nan, np.inf, -np.inf
    signal[0, 0, 0] = 0
    np.testing.assert_array_equal(masking.robust_mask(broken), masking.robust_mask(signal))
    values = signal[..., 0].astype(np.float64)
    known = masking.otsu_threshold(values)
    assert masking.otsu_threshold(np.append(values, [np.nan, np.inf])) == known


def test_otsu_lies_between_two_classes():
    rng = np.random.default_rng(1)
    values = np.concatenate([rng.normal(0, 1, 500), rng.normal(10, 1, 500), [np.nan, np.inf]])
    assert 3 < otsu_threshold(values) < 7
    assert otsu_threshold(np.full(4, 2.0)) == 2.0
    assert otsu_threshold(np.array([np.nan])) == 0.0


def test_robust_mask_finds_a_shaded_head_in_noise():
    rng = np.random.default_rng(2)
    head = ball((40, 40, 40), (20, 20, 20), 14)
    shading = np.linspace(0.4, 1.6, 40)[:, None, None]
    signal = 100 * head * shading
    signal[18:22, 18:22, 18:22] = 0  # a void inside is filled
    noise = rng.normal(size=(2, *head.shape)) * 4
    magnitude = np.abs(signal + noise[0] + 1j * noise[1])
    magnitude[0, 0, 0] = 1e6  # a spike must not set the scale
    found = robust_mask(magnitude)
    assert 2 * (found & head).sum() / (found.sum() + head.sum()) > 0.97
    np.testing.assert_array_equal(robust_mask(np.stack([magnitude] * 2, -1)), found)
    assert not robust_mask(np.zeros((8, 8, 8))).any()


@pytest.fixture
def brain():
    """A brain with air at its base, dark nuclei, a dark vein on the surface and one inside."""
    shape = (48, 48, 48)
    mask = ball(shape, (24, 24, 24), 19)
    magnitude = np.full(shape, 100.0, np.float32)
    magnitude[~mask] = 2.0
    air = ball(shape, (24, 40, 10), 8)
    nucleus = ball(shape, (24, 24, 24), 4)
    vein = np.zeros(shape, bool)
    vein[24, 24, 20:] = True
    for dark in (air, nucleus, vein):
        magnitude[dark] = 2.0
    return mask, magnitude, air, nucleus, vein


def check_refined(refined, removed, brain):
    mask, _, air, nucleus, vein = brain
    assert not (refined & ~mask).any()
    assert refined[nucleus].all()
    assert refined[vein & mask].mean() > 0.9  # its mouth at the surface may go
    assert refined[air & mask].mean() < 0.15
    assert refined[mask & ~air].mean() > 0.99
    assert removed == pytest.approx(1 - refined.sum() / mask.sum())
    np.testing.assert_array_equal(fill_holes(refined), refined)
    np.testing.assert_array_equal(largest_component(refined), refined)


def test_rim_is_removed_and_the_inside_is_kept(brain):
    mask, magnitude = brain[:2]
    before = mask.copy()
    check_refined(*refine_brain_mask(mask, magnitude=magnitude, voxel_size=(1, 1, 1)), brain)
    np.testing.assert_array_equal(mask, before)


def test_quality_and_residual_count_like_magnitude(brain):
    mask, magnitude = brain[:2]
    even = np.full(mask.shape, 50.0)
    quality = np.where(magnitude > 50, 0.9, 0.1)
    residual = np.where(magnitude > 50, 0.02, np.nan)
    for extra in ({'quality': quality}, {'residual': residual}):
        refined, removed = refine_brain_mask(mask, magnitude=even, voxel_size=(1, 1, 1), **extra)
        check_refined(refined, removed, brain)


def test_only_the_first_of_several_echoes_counts(brain):
    mask, magnitude = brain[:2]
    echoes = np.stack([np.full(mask.shape, 50.0), magnitude], -1)
    refined, removed = refine_brain_mask(mask, magnitude=echoes, voxel_size=(1, 1, 1))
    np.testing.assert_array_equal(refined, mask)
    assert removed == 0


def test_depth_is_limited_in_millimetres(brain):
    mask, magnitude, air = brain[:3]
    shallow, few = refine_brain_mask(mask, magnitude=magnitude, voxel_size=(1, 1, 1), max_depth=2)
    deep, many = refine_brain_mask(mask, magnitude=magnitude, voxel_size=(1, 1, 1))
    assert few < 0.5 * many
    assert shallow[air & mask].mean() > deep[air & mask].mean()


def test_mask_that_touches_the_edge_of_the_volume():
    mask = np.ones((20, 20, 20), bool)
    magnitude = np.full(mask.shape, 100.0)
    magnitude[:4] = 0
    refined, _ = refine_brain_mask(mask, magnitude=magnitude, voxel_size=(1, 1, 1))
    np.testing.assert_array_equal(refined, magnitude > 0)


def test_nothing_reliable_or_nothing_at_all():
    mask = np.zeros((9, 9, 9), bool)
    assert refine_brain_mask(mask, magnitude=mask * 1.0, voxel_size=(1, 1, 1))[1] == 0
    mask[3:6, 3:6, 3:6] = True
    noise = np.full(mask.shape, 1.0)
    refined, removed = refine_brain_mask(
        mask, magnitude=noise, residual=noise, voxel_size=(1, 1, 1)
    )
    np.testing.assert_array_equal(refined, mask)  # removing everything is no refinement
    assert removed == 0


def _signal(shape=(12, 12, 12), echoes=2):
    rng = np.random.default_rng(4)
    return 1 + rng.random((*shape, echoes)), rng.uniform(-3, 3, (*shape, echoes))


def test_masked_phase_leaves_the_mask():
    """Stored zeros of a masked phase become 0 rad, or -pi where zero means the start of a turn."""
    for value in (0.0, np.float32(-np.pi)):
        magnitude, phase = _signal()
        phase[:, :, 8:] = value
        kept, fraction = without_blank(np.ones((12, 12, 12), bool), magnitude, phase)
        np.testing.assert_array_equal(kept, np.indices(kept.shape)[2] < 8)
        assert fraction == pytest.approx(1 / 3)


def test_single_zeros_and_zeros_of_one_echo_are_no_blank():
    magnitude, phase = _signal()
    phase[5, 5, 5] = 0
    phase[:, :, 8:, 0] = 0
    magnitude[3, 3, 3] = 0
    mask = np.ones((12, 12, 12), bool)
    kept, fraction = without_blank(mask, magnitude, phase)
    assert kept.all()
    assert fraction == 0


def test_blank_planes_take_their_neighbours_along():
    magnitude, _ = _signal()
    magnitude[:2] = 0
    magnitude[:, -1:] = 0
    kept, _ = without_blank(np.ones((12, 12, 12), bool), magnitude)
    expected = np.zeros_like(kept)
    expected[3:, :-2] = True
    np.testing.assert_array_equal(kept, expected)
