"""What is fixed, or needs no fixing, gives the map of the clean data: every such row."""

import gzip

import nibabel as nib
import numpy as np
import pytest
from defects import DEFECTS, UNEVEN, Scan, companions
from defects.scan import bipolar, wrapped
from nodes import Bench
from tiny import reconstruct

from qsmflow import io
from qsmflow.bids import collect
from qsmflow.bids.catalog import FINDINGS, HANDLED

#: FIX rows, and of the rows without a finding those that are made in a dataset.
FIXED = [
    d for d in DEFECTS if d.level == 'FIX' or (not d.level and d.stage == 'collection')
]  # fmt: skip
#: Rows without a finding that concern no map, and those of the surroundings, which make no
#: difference to any file: see test_surroundings.py.
NO_MAP = {'E94', 'E95', 'E105', 'E106', 'E108', 'E109'}
#: Largest RMS difference from the clean map, relative to the SD of that, by label. Whatever is
#: not listed must agree but for rounding of 32-bit numbers to other units.
ROUNDING = 0.005
TOLERANCE = {
    # Stored in steps of 1.5, 3.1, 6.3 and 9 mrad.
    **dict.fromkeys(('siemens_integers', 'symmetric_integers', 'units_say_rad'), 0.02),
    **dict.fromkeys(('background_flag', 'philips_display', 'philips_fields_of_the_sidecar'), 0.02),
    # Digits of 32-bit numbers are lost where radians are a small part of what is stored.
    'slope_applied_twice': 0.01,
    # The offset of each slice is known up to noise.
    'slice_offsets': 0.02,
    # The regularisation follows the noise, which is in ppm.
    'field_from_frequency': 0.02,
    # Other data: all voxels with one weight; another echo time and noise.
    'no_magnitude': 0.03,
    'uneven_spacing': 0.05,
    # The main field is turned by a sixth of a degree.
    'slightly_sheared': 0.02,
    # Padded differently; fits and solvers with a tolerance.
    'odd_matrix_sizes': 0.02,
    # Iterations of the fits and solvers on other numbers; what was added is known up to noise.
    **dict.fromkeys(('phase_negated', 'every_second_slice_turned'), 0.01),
    'bipolar_readout': 0.02,
    # What does not touch what is computed.
    **dict.fromkeys(('affine_rounding', 'mask_of_probabilities', 'mask_of_labels'), 0),
    **dict.fromkeys(('mask_with_nan', 'mask_with_an_island_and_a_hole', 'lesion'), 0),
    **dict.fromkeys(('lesion_in_its_older_name', 'two_runs', 'sidecars_at_the_top_alone'), 0),
}
#: What the reference is where it is not the clean dataset as it stands.
SINGLE_ECHO = {'repeats_of_a_single_echo_with_index': [1]}
#: Factor of the map where the imaging frequency is another.
FACTOR = {'field_from_frequency': 127.732435554 / 123.2}


@pytest.fixture(scope='module')
def clean_map(clean_root, tmp_path_factory):
    """Return the map of the clean dataset with a mask, computed once for each request."""
    kept = {}

    def make(echoes, mask):
        key = (str(echoes), mask.tobytes())
        if key not in kept:
            (series,) = collect(clean_root, echoes=echoes).series
            kept[key] = reconstruct(series, mask, tmp_path_factory.mktemp('clean') / 'run')
        return kept[key]

    return make


@pytest.fixture(scope='module')
def scan_map(clean_root, tmp_path_factory):
    """Return a function that reconstructs a scan: result, findings of the steps, series."""

    def make(scan, echoes=None):
        return Bench(scan, tmp_path_factory.mktemp('scan')).chain(clean_root, echoes)

    return make


@pytest.fixture(scope='module')
def plain(scan_map):
    """Return the result of the clean scan."""
    return scan_map(Scan())[0]


def difference(found, expected, factor=1.0):
    """Return the RMS difference relative to the SD of what is expected, in the common mask."""
    inside = found.mask & expected.mask
    assert inside.sum() > 0.95 * expected.mask.sum() > 1000
    wanted = factor * expected.chi[inside]
    return float(np.sqrt(np.mean((found.chi[inside] - wanted) ** 2)) / wanted.std())


def mask_of(series):
    """Return the mask that the series has, or that of the phantom."""
    if series.mask is None:
        return companions.head()[tuple(slice(-n, None) for n in series.shape)]
    like = io.Volume(np.zeros(series.shape), np.array(series.affine))
    return io.load_given_mask(series.mask, like)


def cropped(result, shape):
    """Return a result without the first planes that a smaller grid does not have."""
    inside = tuple(slice(-n, None) for n in shape)
    return type(result)(result.chi[inside], result.mask[inside], result.facts, result.file)


def test_every_row_is_compared():
    """All rows that have the level FIX, and all rows without a finding that concern a map."""
    rows = {code for code, kind in FINDINGS.items() if 'FIX' in kind.levels}
    rows |= set(HANDLED) - NO_MAP
    assert {defect.code for defect in FIXED} == rows
    assert set(TOLERANCE) | set(SINGLE_ECHO) | set(FACTOR) <= {defect.label for defect in FIXED}


@pytest.mark.parametrize('defect', FIXED, ids=lambda d: d.name)
def test_map_equals_the_clean_one(request, clean_map, tmp_path, defect):
    tolerance = TOLERANCE.get(defect.label, ROUNDING)
    if defect.stage == 'node':
        scan = Scan()
        defect.make(scan)
        found, _, _ = request.getfixturevalue('scan_map')(scan)
        assert difference(found, request.getfixturevalue('plain')) <= tolerance
        return
    dataset = request.getfixturevalue('dataset')
    defect.make(dataset)
    for series in collect(dataset.root, **dataset.options).series:
        found = reconstruct(series, mask_of(series), tmp_path / series.name)
        mask = companions.head()
        if defect.label == 'blank_border':
            mask[:, :, :5] = False
            assert found.facts['mask']['blank_fraction'] > 0.1
        expected = clean_map(SINGLE_ECHO.get(defect.label), mask)
        off = difference(
            found, cropped(expected, series.shape), FACTOR.get(defect.label, 1.0)
        )  # fmt: skip
        assert off <= tolerance
        header = nib.load(found.file).header
        assert header.get_data_dtype() == np.float32, 'C63: nothing is rounded'
        assert np.isnan(header['scl_slope']) or header['scl_slope'] == 1


def test_comparison_notices_an_error_of_scale(clean_map):
    expected = clean_map(None, companions.head())
    assert difference(expected, expected, 1.05) > 0.04


def test_bipolar_readout_spoils_the_map_if_it_is_left(scan_map, plain):
    scan = Scan()
    scan.phase, scan.options['bipolar'] = bipolar(scan.phase), 'off'
    assert difference(scan_map(scan)[0], plain) > 0.5


def test_bipolar_readout_of_a_subset_keeps_the_numbers(scan_map):
    chosen = [1, 2, 4]
    clean, _, _ = scan_map(Scan(), chosen)
    scan = Scan()
    scan.phase = bipolar(scan.phase)
    result, findings, series = scan_map(scan, chosen)
    assert {f.code for f in series.findings} >= {'B42'}
    assert [(f['code'], f['level']) for f in findings] == [('B41', 'FIX')]
    assert difference(result, clean) < 0.02


def test_offsets_of_slices_of_a_head(scan_map, plain):
    """In the way of the steps that judge sign and readout."""
    scan = Scan()
    offsets = np.random.default_rng(5).uniform(-np.pi, np.pi, (32, 1))
    scan.phase = wrapped(scan.phase + offsets)
    result, _, series = scan_map(scan)
    assert [f.level for f in series.findings if f.code == 'A15'] == ['FIX']
    assert difference(result, plain) < 0.02


def test_map_with_a_resampled_mask(dataset, clean_map, tmp_path):
    """Row D77: the mask has steps of 2 mm at its rim, so that the inside alone is compared."""
    companions.mask_on_another_grid(dataset)
    (series,) = collect(dataset.root, **dataset.options).series
    found = reconstruct(series, mask_of(series), tmp_path / 'run')
    expected = clean_map(None, companions.head())
    both = found.mask & expected.mask
    assert both.sum() > 0.5 * expected.mask.sum()
    assert np.corrcoef(found.chi[both], expected.chi[both])[0, 1] > 0.95


def test_uneven_series_has_its_times(dataset):
    next(d for d in DEFECTS if d.label == 'uneven_spacing').make(dataset)
    (series,) = collect(dataset.root).series
    assert series.te == pytest.approx(UNEVEN)


def test_content_that_pretends_to_be_compressed_twice(dataset):
    """Not a row, but seen: the file is told as no image, and nothing is guessed."""
    dataset.image(2).write_bytes(gzip.compress(dataset.image(2).read_bytes()))
    ((_, findings),) = collect(dataset.root).failed
    assert [f.code for f in findings if f.stops] == ['C57']
