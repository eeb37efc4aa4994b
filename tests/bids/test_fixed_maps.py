"""What is fixed in groups C and D leaves no trace in the map.

The defect and the clean dataset are reconstructed, both with the same mask. The tolerance is a
share of the spread of the clean map.
"""

import gzip

import numpy as np
import pytest
from defects import DEFECTS, companions
from reconstruct import susceptibility

from qsmflow.bids import collect

#: Defect -> largest deviation, as a share of the spread of the clean map. Rounding of float32
#: where not said otherwise.
TOLERANCE = {
    'complex_series': 2e-3,  # magnitude and phase went through real and imaginary parts
    'affine_rounding': 0,
    'slightly_sheared': 0.05,  # the main field is turned by a sixth of a degree
    'mask_of_probabilities': 0,
    'mask_of_labels': 0,
    'mask_with_nan': 0,
    'mask_with_islands_and_holes': 0,
    'lesion': 0,
}


def mask_with_islands_and_holes(ds):
    data = companions.head().astype(np.uint8)
    data[0, 0, :2] = 1
    data[12, 14, 10] = 0
    companions.write_mask(ds, data)


@pytest.fixture
def clean_map(clean_root, dataset):
    """Return the map of the dataset before it is broken; its mask is given as well."""
    companions.write_mask(dataset, companions.head().astype(np.uint8))
    (series,) = collect(dataset.root, **dataset.options).series
    return susceptibility(series)


def defect(label):
    named = {d.label: d.make for d in DEFECTS}
    return named.get(label) or globals()[label]


@pytest.mark.parametrize('label', TOLERANCE)
def test_map_equals_the_clean_one(dataset, clean_map, label):
    defect(label)(dataset)
    (series,) = collect(dataset.root, **dataset.options).series
    found = susceptibility(series)
    spread = clean_map[clean_map != 0].std()
    assert spread > 1e-3, 'the clean map is not empty'
    assert np.abs(found - clean_map).max() <= TOLERANCE[label] * spread


def test_map_with_a_resampled_mask(dataset, clean_map):
    """Row D77: the mask has steps of 2 mm at its rim, so that the inside alone is compared."""
    companions.mask_on_another_grid(dataset)
    (series,) = collect(dataset.root, **dataset.options).series
    found = susceptibility(series)
    both = (found != 0) & (clean_map != 0)
    assert both.sum() > 0.5 * np.count_nonzero(clean_map)
    assert np.corrcoef(found[both], clean_map[both])[0, 1] > 0.95


def test_content_that_pretends_to_be_compressed_twice(dataset):
    """Not a row, but seen: the file is told as no image, and nothing is guessed."""
    dataset.image(2).write_bytes(gzip.compress(dataset.image(2).read_bytes()))
    ((_, findings),) = collect(dataset.root).failed
    assert [f.code for f in findings if f.stops] == ['C57']
