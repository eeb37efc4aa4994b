import numpy as np
import pytest

from qsmflow.algorithms.operators import forward_field
from qsmflow.algorithms.phase import (
    SCALING_RULES,
    PhaseScaling,
    field_sign_evidence,
    identify_scaling,
    parse_scaling,
    remove_slice_chop,
    scale_to_radians,
    slice_chop,
    wrap,
)
from qsmflow.algorithms.phase_offset import remove_phase_offset

TRUTH = np.random.default_rng(0).uniform(-np.pi, np.pi, 40_000)


def angle_between(a, b):
    return np.angle(np.exp(1j * (np.asarray(a, np.float64) - b)))


# Each vendor's encoding of an angle, the quantisation step in rad, and the sidecar's Units.
ENCODINGS = {
    'rad': (lambda x: x, 1e-6, 'rad'),
    'rad-2pi': (lambda x: x % (2 * np.pi), 1e-6, 'rad'),
    'siemens-unsigned': (
        lambda x: np.floor((x + np.pi) / np.pi * 2048),
        np.pi / 2048,
        'arbitrary',
    ),
    'siemens-signed': (lambda x: 2 * np.floor(x / np.pi * 2048), np.pi / 2048, 'arbitrary'),
    'mrad': (lambda x: np.round(x * 1000), 1e-3, 'arbitrary'),
    'philips-display': (lambda x: 4 * np.floor(x / np.pi * 125), np.pi / 125, 'arbitrary'),
    'degrees': (lambda x: np.degrees(x), 1e-5, 'arbitrary'),
    'degrees-360': (lambda x: np.round(np.degrees(x) % 360), np.pi / 180, 'arbitrary'),
}


def test_every_rule_but_one_is_told_by_its_range():
    assert set(ENCODINGS) | {'rad-unwrapped'} == set(SCALING_RULES)


def test_unwrapped_phase_is_wrapped_again_if_asked_for():
    scaling = parse_scaling('rad-unwrapped')
    phase = scale_to_radians(TRUTH + 6 * np.pi, scaling)
    assert np.abs(angle_between(phase, TRUTH)).max() < 1e-5
    assert np.abs(phase).max() <= np.float32(np.pi)


@pytest.mark.parametrize('rule', ENCODINGS)
def test_each_known_range_is_found_and_decoded(rule):
    encode, step, units = ENCODINGS[rule]
    raw = encode(TRUTH)
    scaling = identify_scaling(raw.min(), raw.max(), integer=step > 1e-4, units=units)
    assert scaling.rule == rule
    phase = scale_to_radians(raw, scaling)
    assert phase.dtype == np.float32
    assert phase.min() >= -np.pi
    assert phase.max() < np.float32(np.pi)
    # Encoders that cut instead of rounding are off by up to a whole step.
    assert np.abs(angle_between(phase, TRUTH)).max() <= 1.001 * step


@pytest.mark.parametrize(
    ('low', 'high', 'integer', 'units'),
    [
        (-0.8, 0.9, False, None),  # high-pass filtered
        (-3.14, 2.28, False, 'arbitrary'),  # scaled twice
        (-11.0, 14.0, False, 'rad'),  # unwrapped
        (-3.0, 3.0, True, 'rad'),  # cut to whole numbers
        (0.0, 2047.0, True, 'arbitrary'),
        (-2048.0, 2047.0, True, 'arbitrary'),
        (-32768.0, 32767.0, True, None),
        (0.0, 0.0, True, None),
        (np.nan, 1.0, False, None),
        (0.5, 4095.5, False, None),
    ],
)
def test_unknown_ranges_are_refused(low, high, integer, units):
    assert identify_scaling(low, high, integer=integer, units=units) is None


@pytest.mark.parametrize(
    ('low', 'high', 'units', 'rule', 'note'),
    [
        (0, 4095, 'rad', 'siemens-unsigned', 'Units is "rad"'),
        (-3.1415, 3.1415, 'arbitrary', 'rad', 'values are radians'),
        (-8192, 4094, 'arbitrary', 'siemens-signed', '-8192'),
        (-1.2, 1.1, 'rad', 'rad', 'of 2 pi'),
        (-3.1415, 3.1415, 'rad', 'rad', None),
    ],
)
def test_what_is_odd_is_noted(low, high, units, rule, note):
    scaling = identify_scaling(low, high, integer=high > 10, units=units)
    assert scaling.rule == rule
    assert (scaling.raw_min, scaling.raw_max) == (low, high)
    assert note in scaling.note if note else scaling.note == ''


def test_parse_scaling():
    assert parse_scaling('auto') is None
    assert parse_scaling('rad').slope == 1
    factor = parse_scaling(str(np.pi / 2048))
    assert scale_to_radians([1024], factor) == pytest.approx(np.pi / 2, abs=1e-5)
    for bad in ('radian', '0', 'nan', 'inf', ''):
        with pytest.raises(ValueError, match='phase scale'):
            parse_scaling(bad)


def test_scaling_leaves_input_and_sets_nan_to_zero():
    raw = np.array([[0, 4096], [np.nan, np.inf]])
    before = raw.copy()
    phase = scale_to_radians(raw, parse_scaling('siemens-unsigned'))
    np.testing.assert_array_equal(raw, before)
    np.testing.assert_allclose(phase, [[-np.pi, -np.pi], [0, 0]], atol=1e-6)
    with pytest.raises(AttributeError):
        PhaseScaling('rad', 1, 0).slope = 2


def test_wrap_keeps_what_is_in_range_and_the_type():
    x = np.linspace(-3.14, 3.14, 101, dtype=np.float32)
    np.testing.assert_array_equal(wrap(x), x)
    assert wrap(x).dtype == np.float32
    far = wrap(TRUTH + 6 * np.pi)
    np.testing.assert_allclose(far, TRUTH, atol=1e-12)
    edge = wrap(np.array([np.pi, -np.pi, 3 * np.pi]))
    np.testing.assert_allclose(edge, -np.pi)
    assert wrap(4.0) == pytest.approx(4 - 2 * np.pi)


def chopped_scan(axis):
    shape = (10, 12, 14)
    rng = np.random.default_rng(1)
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing='ij')
    phase = (2 * x - 3 * y + z**2)[..., None] * np.array([1, 2.5])
    phase = wrap(phase + 0.1 * rng.normal(size=phase.shape))
    odd = np.arange(shape[axis]) % 2 * np.pi
    chopped = wrap(phase + odd.reshape([-1 if a == axis else 1 for a in range(4)]))
    return phase, chopped, np.ones(phase.shape)


@pytest.mark.parametrize('axis', [0, 1, 2])
def test_slice_chop_is_found_and_removed(axis):
    phase, chopped, magnitude = chopped_scan(axis)
    before = chopped.copy()
    assert slice_chop(magnitude, chopped, axis=axis) == 1
    assert slice_chop(magnitude, phase, axis=axis) == 0
    assert slice_chop(None, chopped[..., 0], axis=axis) == 1
    repaired = remove_slice_chop(chopped, axis=axis)
    np.testing.assert_array_equal(chopped, before)
    np.testing.assert_allclose(angle_between(repaired, phase), 0, atol=1e-5)


def test_slice_chop_of_one_echo_only_is_not_chopping():
    phase, chopped, magnitude = chopped_scan(2)
    mixed = np.stack([chopped[..., 0], phase[..., 1]], axis=-1)
    assert slice_chop(magnitude, mixed) == 0
    assert slice_chop(magnitude[:, :, :1], mixed[:, :, :1]) == 0


def offset_scan(te, *, snr=50, shape=(40, 44, 36), size=4.0):
    """Return (phase, magnitude, mask, offset, voxel size) with an offset of third order."""
    rng = np.random.default_rng(0)
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing='ij')
    field = 300 * np.exp(-6 * (x**2 + y**2 + (z - 0.5) ** 2)) + 100 * x * y - 60 * z
    offset = 0.8 + 1.5 * x - 1.2 * y * z + 0.8 * z**3 - 0.7 * x**2
    magnitude = np.exp(-30 * np.asarray(te)) * (1 + 0.3 * y[..., None])
    signal = magnitude * np.exp(1j * (offset[..., None] + field[..., None] * te))
    signal = signal + (rng.normal(size=signal.shape) + 1j * rng.normal(size=signal.shape)) / snr
    mask = x**2 + y**2 + z**2 < 0.85
    return np.angle(signal), np.abs(signal), mask, offset, (size,) * 3


@pytest.mark.parametrize(
    'te', [(0.004, 0.010, 0.016, 0.022), (0.0046, 0.0103, 0.019), (0.004, 0.009)]
)
def test_phase_offset_is_removed_up_to_the_rim(te):
    te = np.array(te)
    phase, magnitude, mask, offset, size = offset_scan(te)
    corrected, found = remove_phase_offset(phase, magnitude, mask, size, te=te)
    misfit = angle_between(found, offset)[mask]
    # A turn of the difference of the echoes moves the offset by a constant.
    misfit = angle_between(misfit, np.angle(np.exp(1j * misfit).mean()))
    assert np.sqrt(np.mean(misfit**2)) < 0.05
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in mask.shape], indexing='ij')
    rim = (x**2 + y**2 + z**2)[mask] > 0.75
    assert np.abs(np.mean(misfit[rim])) < 0.03
    np.testing.assert_allclose(
        angle_between(corrected, phase - found[..., None])[mask], 0, atol=1e-5
    )
    assert not corrected[~mask].any()
    assert not found[~mask].any()


def test_phase_offset_of_one_echo_is_zero():
    phase, magnitude, mask, _, size = offset_scan((0.004,), shape=(10, 10, 10))
    corrected, found = remove_phase_offset(phase, magnitude, mask, size, te=(0.004,))
    assert not found.any()
    np.testing.assert_allclose(corrected[mask], phase[mask], atol=1e-6)


def test_phase_offset_survives_nan_and_no_magnitude():
    te = (0.004, 0.010)
    phase, magnitude, mask, _, size = offset_scan(te, shape=(20, 20, 20))
    phase[10, 10, 10] = np.nan
    magnitude[9, 9, 9] = 0
    before = phase.copy(), magnitude.copy()
    for weights in (magnitude, None):
        corrected, found = remove_phase_offset(phase, weights, mask, size, te=te)
        assert np.isfinite(found).all()
        assert np.isnan(corrected[10, 10, 10]).all()
        assert np.count_nonzero(np.isnan(corrected)) == 2
    np.testing.assert_array_equal(phase, before[0])
    np.testing.assert_array_equal(magnitude, before[1])
    with pytest.raises(ValueError, match='sigma'):
        remove_phase_offset(phase, magnitude, mask, size, te=te, sigma=0)


def test_phase_offset_needs_no_unwrapping_of_single_voxels():
    # At 1 mm the difference of the echoes is unwrapped in cells of 2 x 2 x 2 voxels.
    te = (0.004, 0.010, 0.016)
    phase, magnitude, mask, *_ = offset_scan(te, shape=(48, 44, 40))
    found = [
        remove_phase_offset(phase, magnitude, mask, (size,) * 3, te=te, sigma=4 * size)[1]
        for size in (1.0, 2.5)
    ]
    assert np.abs(angle_between(*found)).max() < 1e-5


def test_phase_offset_of_noise_beside_the_object_stays_out_of_it():
    te = (0.004, 0.010)
    phase, magnitude, mask, _, size = offset_scan(te, shape=(24, 24, 24))
    clean = remove_phase_offset(phase, magnitude, mask, size, te=te)[1]
    rng = np.random.default_rng(7)
    outside = ~mask
    phase[outside] = rng.uniform(-np.pi, np.pi, phase[outside].shape)
    magnitude[outside] = 0.02 * rng.rayleigh(size=magnitude[outside].shape)
    wide = remove_phase_offset(phase, magnitude, np.ones_like(mask), size, te=te)[1]
    difference = angle_between(wide, clean)[mask]
    difference -= np.median(difference)
    assert np.percentile(np.abs(difference), 99) < 0.05


def test_phase_offset_of_odd_masks_and_twice_the_same():
    te = (0.004, 0.010, 0.016)
    phase, magnitude, mask, offset, size = offset_scan(te, shape=(24, 24, 24))
    one, plane = np.zeros_like(mask), mask.copy()
    one[12, 12, 12] = True
    plane[..., :12] = plane[..., 13:] = False
    for region in (one, plane):
        found = remove_phase_offset(phase, magnitude, region, size, te=te)[1]
        misfit = angle_between(found, offset)[region]
        assert np.sqrt(np.mean(misfit**2)) < 0.15
    empty = remove_phase_offset(phase, magnitude, 0 * mask, size, te=te)
    assert not empty[0].any()
    assert not empty[1].any()
    first, second = (remove_phase_offset(phase, magnitude, mask, size, te=te)[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)


def head_with_sinus(b0_dir):
    """Return the field (ppm) and the magnitude of an ellipsoid with an air cavity."""
    shape, size = (44, 52, 44), (4.0, 4.0, 4.0)
    x, y, z = np.meshgrid(*[np.linspace(-1.1, 1.1, n) for n in shape], indexing='ij')
    radius = np.sqrt(x**2 + y**2 + 1.2 * z**2)
    skull = (radius > 0.82) & (radius < 0.88)
    air = (radius > 1) | ((x**2 + (y - 0.7) ** 2 + (z + 0.4) ** 2) < 0.2**2)
    brain = (radius < 0.8) & ~air
    field = forward_field(np.where(air, 0, -9.4).astype(np.float32), size, b0_dir=b0_dir)
    magnitude = np.where(air | skull, 0.02, 1.0)
    shim = 0.8 - 0.5 * x + 0.9 * z**2 - 0.4 * x * y
    return field + shim, magnitude, brain, size


@pytest.mark.parametrize('b0_dir', [(0.0, 0.0, 1.0), (0.0, 0.6, 0.8)])
def test_sign_of_the_field_shows_in_the_air(b0_dir):
    field, magnitude, brain, size = head_with_sinus(b0_dir)
    noisy = field + 0.02 * np.random.default_rng(0).normal(size=field.shape)
    evidence = field_sign_evidence(noisy, magnitude, brain, size, b0_dir=b0_dir)
    inverted = field_sign_evidence(-noisy, magnitude, brain, size, b0_dir=b0_dir)
    assert evidence > 0.6
    assert inverted == pytest.approx(-evidence, abs=1e-6)


def test_sign_without_air_or_brain_is_undecided():
    field, magnitude, brain, size = head_with_sinus((0.0, 0.0, 1.0))
    everywhere = np.ones_like(magnitude)
    assert field_sign_evidence(field, everywhere, brain, size, b0_dir=(0, 0, 1)) == 0
    none = np.zeros_like(brain)
    assert field_sign_evidence(field, magnitude, none, size, b0_dir=(0, 0, 1)) == 0
    flat = np.zeros_like(field)
    assert field_sign_evidence(flat, magnitude, brain, size, b0_dir=(0, 0, 1)) == 0
