"""Lists of voxels, and smoothing within a mask."""

import numpy as np
import pytest
from scipy import ndimage

from qsmflow.algorithms._smoothing import MaskedSmoother
from qsmflow.algorithms._voxels import Voxels

SHAPE = (20, 18, 16)


@pytest.fixture(scope='module')
def mask():
    rng = np.random.default_rng(0)
    smooth = ndimage.gaussian_filter(rng.normal(size=SHAPE), 3)
    mask = smooth > np.quantile(smooth, 0.6)
    mask[:2] = False
    return mask


def test_lists_are_in_c_order_and_come_back(mask):
    rng = np.random.default_rng(1)
    volumes = rng.normal(size=(*SHAPE, 3)).astype(np.float32)
    voxels = Voxels(mask)
    assert len(voxels) == np.count_nonzero(mask)
    np.testing.assert_array_equal(voxels.coords, np.argwhere(mask))
    np.testing.assert_array_equal(voxels.gather(volumes), volumes[mask].T)
    np.testing.assert_array_equal(voxels.gather(volumes, 2), volumes[mask].T[:2])
    back = voxels.scatter(volumes[mask][:, 1])
    np.testing.assert_array_equal(back, np.where(mask, volumes[..., 1], 0))
    low, high = voxels.corners
    np.testing.assert_array_equal(low, np.argwhere(mask).min(axis=0))
    np.testing.assert_array_equal(high, np.argwhere(mask).max(axis=0) + 1)


@pytest.mark.parametrize('step', [1, 3, 50])
def test_layers_split_the_list_by_planes(mask, step):
    voxels = Voxels(mask)
    origin = int(voxels.corners[0][0])
    starts = voxels.layers(step, origin)
    assert starts[0] == 0
    assert starts[-1] == len(voxels)
    layer = (voxels.coords[:, 0] - origin) // step
    np.testing.assert_array_equal(np.diff(starts), np.bincount(layer))


def test_no_voxels():
    voxels = Voxels(np.zeros(SHAPE, bool))
    assert len(voxels) == 0
    assert voxels.gather(np.ones((*SHAPE, 2))).shape == (2, 0)
    assert not voxels.scatter(np.zeros(0)).any()
    assert MaskedSmoother(voxels, (1, 1, 1), 2.0)(np.zeros(0), np.zeros(0)).shape == (0,)


@pytest.mark.parametrize('sigma', [1.0, 3.0, 8.0])
def test_constants_stay_constant_up_to_the_rim(mask, sigma):
    voxels = Voxels(mask)
    values = np.stack([np.full(len(voxels), 0.7), np.full(len(voxels), -3.0)])
    weights = np.random.default_rng(2).uniform(0.1, 1, len(voxels))
    smooth = MaskedSmoother(voxels, (1.0, 1.5, 2.0), sigma)(values, weights)
    assert smooth.dtype == np.float32
    np.testing.assert_allclose(smooth, values, rtol=1e-5)


@pytest.mark.parametrize(('sigma', 'limit'), [(1.5, 1e-5), (5.0, 0.02)])
def test_it_is_the_normalised_gaussian(mask, sigma, limit):
    rng = np.random.default_rng(3)
    values = ndimage.gaussian_filter(rng.normal(size=SHAPE), 1.5)[mask]
    weights = rng.uniform(0, 1, values.size)
    weights[::7] = 0
    voxels = Voxels(mask)
    above, below = (
        ndimage.gaussian_filter(
            voxels.scatter(v).astype(float), sigma, mode='constant', truncate=6
        )[mask]
        for v in (values * weights, weights)
    )
    found = MaskedSmoother(voxels, (1.0, 1.0, 1.0), sigma)(values, weights)
    error = np.sqrt(np.mean((found - above / below) ** 2)) / np.std(values)
    assert error < max(limit, 2e-4)


def test_values_without_weight_do_not_count_even_if_they_are_not_finite(mask):
    voxels = Voxels(mask)
    values, weights = np.full(len(voxels), 2.0), np.ones(len(voxels))
    values[5], weights[5] = np.nan, 0
    smooth = MaskedSmoother(voxels, (1, 1, 1), 2.0)
    np.testing.assert_allclose(smooth(values, weights), 2, rtol=1e-5)
    assert not smooth(values, 0 * weights).any()


def test_a_few_places_are_a_part_of_all(mask):
    voxels = Voxels(mask)
    rng = np.random.default_rng(4)
    values, weights = rng.normal(size=(2, len(voxels)))
    smooth = MaskedSmoother(voxels, (1, 2, 1), 3.0)
    at = np.array([0, 17, len(voxels) - 1])
    weights = np.abs(weights)
    np.testing.assert_array_equal(smooth(values, weights, at=at), smooth(values, weights)[at])
