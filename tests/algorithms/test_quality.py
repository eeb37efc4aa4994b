"""Scores against closed forms and against scikit-image."""

import numpy as np
import pytest
from skimage.metrics import structural_similarity

from qsmflow.algorithms import quality


@pytest.fixture
def maps():
    rng = np.random.default_rng(0)
    truth = rng.normal(0, 0.05, (16, 17, 18))
    recon = 0.8 * truth + rng.normal(0, 0.02, truth.shape) + 0.3
    mask = np.zeros(truth.shape, bool)
    mask[2:-2, 3:-3, 2:-3] = True
    return recon, truth, mask


def test_nrmse_is_the_ratio_of_norms(maps):
    recon, truth, mask = maps
    a, b = recon[mask] - recon[mask].mean(), truth[mask] - truth[mask].mean()
    assert quality.nrmse(recon, truth, mask) == pytest.approx(
        100 * np.linalg.norm(a - b) / np.linalg.norm(b)
    )
    assert quality.nrmse(np.zeros_like(truth), truth, mask) == pytest.approx(100)


def test_detrended_error_ignores_slope_and_offset(maps):
    recon, truth, mask = maps
    score = quality.nrmse_detrended(recon, truth, mask)
    assert score == pytest.approx(quality.nrmse_detrended(3 * recon - 7, truth, mask))
    slope, intercept = np.polyfit(truth[mask], recon[mask], 1)
    corrected = (recon - intercept) / slope
    assert score == pytest.approx(quality.nrmse(corrected, truth, mask), rel=1e-6)
    assert quality.nrmse_detrended(np.zeros_like(truth), truth, mask) == np.inf


def test_correlation_is_numpys(maps):
    recon, truth, mask = maps
    assert quality.correlation(recon, truth, mask) == pytest.approx(
        np.corrcoef(recon[mask], truth[mask])[0, 1]
    )
    assert np.isnan(quality.correlation(np.ones_like(truth), truth, mask))


def test_xsim_is_ssim_with_its_constants(maps):
    recon, truth, mask = maps
    a, b = (np.where(mask, m - m[mask].mean(), 0) for m in (recon, truth))
    _, image = structural_similarity(
        a, b, win_size=5, data_range=1, K1=0.01, K2=0.001, full=True, use_sample_covariance=False
    )
    inner = mask.copy()
    # scikit-image reflects at the border of the volume: compare where the window lies inside.
    inner[:2], inner[-2:], inner[:, :2], inner[:, -2:] = False, False, False, False
    inner[..., :2], inner[..., -2:] = False, False
    assert quality.xsim(recon, truth, mask) == pytest.approx(image[mask].mean(), abs=1e-9)
    assert inner.sum() == mask.sum()


def test_xsim_falls_with_noise(maps):
    _, truth, mask = maps
    noise = np.random.default_rng(1).normal(size=truth.shape)
    scores = [quality.xsim(truth + s * noise, truth, mask) for s in (0, 0.01, 0.05)]
    assert scores[0] == pytest.approx(1)
    assert scores[0] > scores[1] > scores[2]


def test_scores_ignore_what_lies_outside_the_mask(maps):
    recon, truth, mask = maps
    other = np.where(mask, recon, 1e3)
    for score in (quality.nrmse, quality.nrmse_detrended, quality.correlation, quality.xsim):
        assert score(other, truth, mask) == pytest.approx(score(recon, truth, mask))


def test_constant_truth_and_empty_mask_have_no_score(maps):
    recon, truth, mask = maps
    nothing = np.zeros_like(mask)
    for score in (quality.nrmse, quality.nrmse_detrended, quality.correlation, quality.xsim):
        assert np.isnan(score(recon, truth, nothing))
    assert np.isnan(quality.nrmse(recon, np.ones_like(truth), mask))
    assert np.isnan(quality.nrmse_detrended(recon, np.ones_like(truth), mask))


def test_region_scores_use_means():
    labels = np.repeat(np.arange(6), 20).reshape(6, 4, 5)
    truth = np.array([0, 0.03, 0.05, 0.1, 0.15, 0.2])[labels]
    rng = np.random.default_rng(0)
    noise = rng.normal(size=labels.shape)
    for index in range(6):
        noise[labels == index] -= noise[labels == index].mean()
    recon = 0.8 * truth + 0.01 + noise
    nuclei = [1, 2, 3, 4, 5, 77]  # 77 has no voxel
    assert quality.dgm_linearity(recon, truth, labels, nuclei) == pytest.approx(0.2)
    errors = 1000 * np.abs(-0.2 * np.array([0.03, 0.05, 0.1, 0.15, 0.2]) + 0.01)
    assert quality.roi_mae(recon, truth, labels, nuclei) == pytest.approx(errors.mean())
    assert np.isnan(quality.region_means(truth, labels, [77])[0])


def test_region_error_after_demeaning_ignores_the_reference():
    labels = np.repeat(np.arange(4), 10).reshape(4, 2, 5)
    truth = 0.05 * labels
    whole = np.ones(labels.shape, bool)
    assert quality.roi_mae(truth + 0.4, truth, labels, [1, 2, 3]) == pytest.approx(400)
    assert quality.roi_mae(truth + 0.4, truth, labels, [1, 2, 3], whole) == pytest.approx(
        0, abs=1e-9
    )


def test_linearity_needs_two_regions():
    labels = np.ones((2, 2, 2), int)
    assert np.isnan(quality.dgm_linearity(labels, labels, labels, [1]))
    assert np.isnan(quality.dgm_linearity(labels, labels, labels, [5]))
    assert np.isnan(quality.roi_mae(labels, labels, labels, [5]))


def test_streaks_are_counted_in_the_shell_only():
    truth = np.zeros((21, 21, 21))
    source = np.zeros(truth.shape, bool)
    source[9:12, 9:12, 9:12] = True
    truth[source] = -0.3
    recon = truth.copy()
    recon[source] = -0.1
    recon[0] = 5.0
    assert quality.calc_streak(recon, truth, source) == 0
    recon[13, 10, 10] = 0.06
    shell = 11**3 - 3**3
    expected = 0.06 * np.sqrt(1 / shell - 1 / shell**2) / 0.3
    assert quality.calc_streak(recon, truth, source) == pytest.approx(expected)
    assert np.isnan(quality.calc_streak(recon, truth, np.zeros_like(source)))


def test_dice_of_known_overlaps():
    first = np.zeros((4, 4, 4), bool)
    first[:2] = True
    assert quality.dice(first, first) == 1
    assert quality.dice(first, ~first) == 0
    assert quality.dice(first, np.ones_like(first)) == pytest.approx(2 / 3)
    assert np.isnan(quality.dice(~first & first, ~first & first))


def test_all_scores_are_those_of_the_functions():
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 8, (14, 14, 14))
    truth = np.array([0, 0.05, 0.1, 0.15, -0.03, 0.02, 0.3, -0.4])[labels]
    recon = 0.9 * truth + rng.normal(0, 0.01, truth.shape)
    mask = labels > 0
    options = {'nuclei': (1, 2, 3), 'tissue': (4, 5), 'blood': (6,), 'calcification': (7,)}
    found = quality.scores(recon, truth, mask, labels, **options)
    assert found['nrmse'] == quality.nrmse(recon, truth, mask)
    assert found['nrmse_dgm'] == quality.nrmse_detrended(recon, truth, np.isin(labels, (1, 2, 3)))
    assert found['nrmse_tissue'] == quality.nrmse_detrended(recon, truth, np.isin(labels, (4, 5)))
    assert found['roi_mae'] == quality.roi_mae(recon, truth, labels, (1, 2, 3, 4, 5), mask)
    assert all(np.isfinite(value) for value in found.values())
    only = quality.scores(recon, truth, mask, labels, nuclei=(1, 2))
    assert np.isnan(only['nrmse_blood'])
    assert np.isnan(only['calc_streak'])
    assert only['dgm_linearity'] == pytest.approx(
        quality.dgm_linearity(recon, truth, labels, (1, 2))
    )
