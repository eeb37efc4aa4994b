"""What is fixed gives the map of the clean data: every FIX row of groups A and B."""

import numpy as np
import pytest
from defects import DEFECTS, UNEVEN, phantom, write_scan
from tiny import reconstruct

from qsmflow.bids import collect
from qsmflow.phantom import small_acquisition

FIXED = [d for d in DEFECTS if d.level == 'FIX' and d.code[0] in 'AB']
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
}
#: What the reference is where it is not the clean dataset as it stands.
SINGLE_ECHO = {'repeats_of_a_single_echo_with_index': [1]}
#: Factor of the map where the imaging frequency is another.
FACTOR = {'field_from_frequency': 127.732435554 / 123.2}


def head():
    return phantom()[0][..., 0] > 200


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


def difference(found, expected, factor=1.0):
    """Return the RMS difference relative to the SD of what is expected, in the common mask."""
    inside = found.mask & expected.mask
    assert inside.sum() > 0.95 * expected.mask.sum() > 1000
    wanted = factor * expected.chi[inside]
    return float(np.sqrt(np.mean((found.chi[inside] - wanted) ** 2)) / wanted.std())


@pytest.mark.parametrize('defect', FIXED, ids=lambda d: f'{d.code}-{d.label}')
def test_map_equals_the_clean_one(clean_map, dataset, tmp_path, defect):
    defect.make(dataset)
    (series,) = collect(dataset.root, **dataset.options).series
    found = reconstruct(series, head(), tmp_path / 'run')
    mask = head()
    if defect.label == 'blank_border':
        mask[:, :, :5] = False
        assert found.facts['mask']['blank_fraction'] > 0.1
    expected = clean_map(SINGLE_ECHO.get(defect.label), mask)
    off = difference(found, expected, FACTOR.get(defect.label, 1.0))
    assert off < TOLERANCE.get(defect.label, ROUNDING)


def test_comparison_notices_an_error_of_scale(clean_map):
    expected = clean_map(None, head())
    assert difference(expected, expected, 1.05) > 0.04


# What only the computation finds. It needs a head in air.

#: Rounding of 32-bit numbers, after iterations of the fits and solvers on other data than above.
ITERATED = 0.01
HEAD_TE = (0.004, 0.008, 0.012, 0.016)


@pytest.fixture(scope='module')
def scan():
    return small_acquisition(shape=(32, 38, 32), voxel_size=6.0, te=HEAD_TE, snr=100)


@pytest.fixture(scope='module')
def scan_map(scan, clean_root, tmp_path_factory):
    """Return a function that gives map and findings of the scan with another phase."""
    import shutil

    from defects import Dataset

    def make(phase, echoes=None, **options):
        folder = tmp_path_factory.mktemp('scan')
        shutil.copytree(clean_root, folder / 'ds')
        dataset = Dataset(folder / 'ds')
        write_scan(dataset, scan.magnitude, phase, HEAD_TE, scan.affine)
        (series,) = collect(dataset.root, echoes=echoes).series
        result = reconstruct(series, scan.truth['mask'], folder / 'run', **options)
        parts = ('preparation', 'sign', 'bipolar')
        found = [f for part in parts for f in result.facts.get(part, {}).get('findings', [])]
        return result, found, series

    return make


@pytest.fixture(scope='module')
def plain(scan, scan_map):
    return scan_map(scan.phase, sign='auto', bipolar='auto')


def bipolar(phase, gradient=0.015):
    """Add what even and odd echoes gain from a readout in turns along the first axis, rad/mm."""
    ramp = gradient * 6.0 * (np.arange(32) - 15.5)[:, None, None, None]
    return wrapped(phase + ramp * np.array([-1, 1, -1, 1]))


def wrapped(phase):
    return np.angle(np.exp(1j * phase))


def test_clean_head_has_no_finding_of_the_computation(plain):
    result, findings, _ = plain
    assert findings == []
    assert result.facts['sign']['Evidence'] > 0.3


def test_negated_phase(scan, scan_map, plain):
    result, findings, _ = scan_map(-scan.phase, sign='auto', bipolar='auto')
    assert [(f['code'], f['level']) for f in findings] == [('A13', 'FIX')]
    assert findings[0]['evidence']['correlation_with_field_of_air'] < -0.3
    assert difference(result, plain[0]) < ITERATED


def test_alternating_slices(scan, scan_map, plain):
    phase = wrapped(scan.phase + np.pi * (np.arange(32) % 2)[:, None])
    result, findings, _ = scan_map(phase, sign='auto', bipolar='auto')
    assert [(f['code'], f['level']) for f in findings] == [('A14', 'FIX')]
    assert findings[0]['evidence']['share_of_slices_that_jump'] > 0.8
    assert difference(result, plain[0]) < ITERATED


def test_offsets_of_slices(scan, scan_map, plain):
    offsets = np.random.default_rng(5).uniform(-np.pi, np.pi, (32, 1))
    result, _, series = scan_map(wrapped(scan.phase + offsets), sign='auto', bipolar='auto')
    assert [f.level for f in series.findings if f.code == 'A15'] == ['FIX']
    assert difference(result, plain[0]) < 0.02


def test_bipolar_readout(scan, scan_map, plain):
    result, findings, _ = scan_map(bipolar(scan.phase), sign='auto', bipolar='auto')
    assert [(f['code'], f['level']) for f in findings] == [('B41', 'FIX')]
    assert findings[0]['evidence']['axis'] == 'i'
    assert difference(result, plain[0]) < 0.02
    left = scan_map(bipolar(scan.phase), sign='auto', bipolar='off')[0]
    assert difference(left, plain[0]) > 0.5, 'uncorrected, it spoils the map'


def test_bipolar_readout_of_a_subset_keeps_the_numbers(scan, scan_map):
    chosen = [1, 2, 4]
    clean, _, _ = scan_map(scan.phase, echoes=chosen, sign='auto', bipolar='auto')
    result, findings, series = scan_map(
        bipolar(scan.phase), echoes=chosen, sign='auto', bipolar='auto'
    )
    assert {f.code for f in series.findings} >= {'B42'}
    assert [(f['code'], f['level']) for f in findings] == [('B41', 'FIX')]
    assert difference(result, clean) < 0.02


def test_uneven_series_has_its_times(dataset):
    next(d for d in DEFECTS if d.label == 'uneven_spacing').make(dataset)
    (series,) = collect(dataset.root).series
    assert series.te == pytest.approx(UNEVEN)
