import numpy as np
import pytest

from qsmflow.algorithms.field import FieldMap, nonlinear, sequential, weighted
from qsmflow.units import radians_per_ppm

METHODS = [sequential, weighted, nonlinear]
F0 = 127.732
EVEN = np.array([0.004, 0.010, 0.016, 0.022, 0.028])
UNEVEN = np.array([0.0046, 0.0103, 0.0190, 0.0300])
SHAPE = (24, 26, 22)
SIZE = (2.0, 2.0, 2.0)


def grid():
    return np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing='ij')


def truth():
    x, y, z = grid()
    return 0.15 * x - 0.1 * y * z + 0.2 * np.exp(-8 * (x**2 + y**2 + z**2))


def scan(te, *, snr=None, offset=0.0, seed=0, r2star=30.0):
    """Return (unwrapped phase, magnitude) of the field ``truth()``."""
    te = np.asarray(te)
    phase = np.asarray(offset)[..., None] + radians_per_ppm(te, F0) * truth()[..., None]
    x, _, _ = grid()
    magnitude = 1000 * np.exp(-r2star * te) * (1 + 0.3 * x[..., None])
    if snr is None:
        return phase, np.broadcast_to(magnitude, phase.shape).copy()
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=phase.shape) + 1j * rng.normal(size=phase.shape)
    signal = magnitude + 1000 / snr * noise
    return phase + np.angle(signal), np.abs(signal)


def region():
    x, y, z = grid()
    return x**2 + y**2 + z**2 < 0.9


@pytest.mark.parametrize('fit', METHODS)
@pytest.mark.parametrize('te', [EVEN, UNEVEN, EVEN[:2], EVEN[:1]], ids=len)
def test_noise_free_field_is_recovered(fit, te):
    phase, magnitude = scan(te)
    mask = region()
    found = fit(phase, magnitude, mask, SIZE, te=te, f0=F0)
    np.testing.assert_allclose(found.total_field[mask], truth()[mask], atol=2e-6)
    assert found.residual[mask].max() < 1e-4
    assert np.abs(found.phase_offset[mask]).max() < 1e-4
    for name in FieldMap.__dataclass_fields__:
        values = getattr(found, name)
        assert values.dtype == np.float32
        assert values.shape == SHAPE
        assert not values[~mask].any()
    assert found.weights.min() >= 0
    assert found.weights.max() <= 1
    assert found.field_noise[mask].min() > 0


@pytest.mark.parametrize('fit', METHODS)
@pytest.mark.parametrize('te', [EVEN, UNEVEN], ids=len)
@pytest.mark.parametrize('snr', [100, 50, 15])
def test_predicted_noise_is_the_measured_one(fit, te, snr):
    phase, magnitude = scan(te, snr=snr)
    mask = region()
    found = fit(phase, magnitude, mask, SIZE, te=te, f0=F0)
    score = (found.total_field - truth())[mask] / found.field_noise[mask]
    assert np.std(score) == pytest.approx(1, abs=0.10)
    if snr > 15:
        assert np.mean(score) == pytest.approx(0, abs=0.15)


@pytest.mark.parametrize('te', [EVEN[:1], EVEN[:2]], ids=len)
@pytest.mark.parametrize('fit', METHODS)
def test_predicted_noise_with_few_echoes(fit, te):
    phase, magnitude = scan(te, snr=20)
    mask = region()
    found = fit(phase, magnitude, mask, SIZE, te=te, f0=F0)
    score = (found.total_field - truth())[mask] / found.field_noise[mask]
    assert np.std(score) == pytest.approx(1, abs=0.15)


def test_late_echoes_lower_the_noise_of_the_sequential_fit():
    mask = region()
    errors = []
    for n in (1, 2, 5):
        phase, magnitude = scan(EVEN[:n], snr=50)
        found = sequential(phase, magnitude, mask, SIZE, te=EVEN[:n], f0=F0)
        errors.append(np.std((found.total_field - truth())[mask]))
    assert errors[0] > 1.5 * errors[1] > 2 * errors[2]


def test_sequential_ignores_turns_of_later_echoes():
    phase, magnitude = scan(EVEN, snr=50)
    rng = np.random.default_rng(1)
    other = phase.copy()
    other[..., 1:] += 2 * np.pi * rng.integers(-2, 3, other[..., 1:].shape)
    mask = region()
    fits = [sequential(p, magnitude, mask, SIZE, te=EVEN, f0=F0) for p in (phase, other)]
    np.testing.assert_allclose(fits[0].total_field, fits[1].total_field, atol=1e-5)


def test_sequential_drops_an_echo_that_disagrees_and_says_so():
    phase, magnitude = scan(EVEN, snr=50)
    # The last two echoes of a block are dephased: little signal, any phase.
    block = (slice(8, 13),) * 3
    rng = np.random.default_rng(2)
    phase[(*block, slice(3, None))] = rng.uniform(-3, 3, (5, 5, 5, 2))
    magnitude[(*block, slice(3, None))] *= 0.2
    mask = region()
    kwargs = {'te': EVEN, 'f0': F0}
    found = sequential(phase, magnitude, mask, SIZE, **kwargs)
    plain = weighted(phase, magnitude, mask, SIZE, fit_offset=False, **kwargs)
    errors = [np.sqrt(np.mean((f.total_field - truth())[block] ** 2)) for f in (found, plain)]
    assert errors[0] < 0.5 * errors[1]
    assert errors[0] < 0.008
    assert np.median(found.field_noise[block]) > 1.3 * np.median(found.field_noise[mask])
    assert np.median(found.residual[block]) > 3 * np.median(found.residual[mask])


def test_voxels_with_little_signal_get_little_weight_but_some():
    phase, magnitude = scan(EVEN, snr=50)
    rng = np.random.default_rng(3)
    block = (slice(8, 12),) * 3
    phase[block] = rng.uniform(-np.pi, np.pi, phase[block].shape)
    magnitude[block] = 20 * rng.rayleigh(size=magnitude[block].shape)
    mask = region()
    weights = sequential(phase, magnitude, mask, SIZE, te=EVEN, f0=F0).weights
    assert weights[block].max() < 0.5
    assert weights[block].min() > 0
    good = mask.copy()
    good[block] = False
    assert np.mean(weights[good]) > 0.95


@pytest.mark.parametrize('te', [EVEN, UNEVEN], ids=len)
def test_sequential_takes_out_what_is_left_of_a_phase_offset(te):
    x, y, z = grid()
    offset = 0.3 * x**2 - 0.2 * y + 0.15 * np.exp(-4 * z**2)
    phase, magnitude = scan(te, snr=50, offset=offset)
    mask = region()
    found = sequential(phase, magnitude, mask, SIZE, te=te, f0=F0)
    assert np.sqrt(np.mean((found.phase_offset - offset)[mask] ** 2)) < 0.05
    kept = sequential(phase, magnitude, mask, SIZE, te=te, f0=F0, alternations=0)
    errors = [np.sqrt(np.mean((f.total_field - truth())[mask] ** 2)) for f in (found, kept)]
    assert errors[0] < 0.4 * errors[1]
    assert not kept.phase_offset.any()


@pytest.mark.parametrize('fit', [weighted, nonlinear])
def test_line_fits_find_any_offset(fit):
    phase, magnitude = scan(UNEVEN, offset=1.7)
    mask = region()
    found = fit(phase, magnitude, mask, SIZE, te=UNEVEN, f0=F0)
    np.testing.assert_allclose(found.total_field[mask], truth()[mask], atol=2e-6)
    np.testing.assert_allclose(found.phase_offset[mask], 1.7, atol=1e-4)
    fixed = fit(phase, magnitude, mask, SIZE, te=UNEVEN, f0=F0, fit_offset=False)
    assert not fixed.phase_offset.any()
    assert np.abs(fixed.total_field - truth())[mask].min() > 0.01


def test_nonlinear_forgives_a_late_turn():
    phase, magnitude = scan(EVEN, snr=100, r2star=80.0)
    phase[10, 10, 10, 4] += 2 * np.pi
    mask = region()
    kwargs = {'te': EVEN, 'f0': F0, 'fit_offset': False}
    line = weighted(phase, magnitude, mask, SIZE, **kwargs)
    circle = nonlinear(phase, magnitude, mask, SIZE, **kwargs)
    expected = truth()[10, 10, 10]
    assert abs(line.total_field[10, 10, 10] - expected) > 0.02
    assert abs(circle.total_field[10, 10, 10] - expected) < 0.005


@pytest.mark.parametrize('fit', METHODS)
@pytest.mark.parametrize('te', [EVEN, EVEN[:2], EVEN[:1]], ids=len)
def test_nan_and_signal_voids_do_not_spread(fit, te):
    phase, magnitude = scan(te, snr=50)
    clean = fit(phase, magnitude, region(), SIZE, te=te, f0=F0)
    phase[10, 10, 10] = np.nan
    magnitude[12, 12, 12] = 0
    magnitude[14, 12, 12] = np.nan
    phase[8, 12, 12, -1] = np.inf
    before = phase.copy(), magnitude.copy()
    mask = region()
    found = fit(phase, magnitude, mask, SIZE, te=te, f0=F0)
    np.testing.assert_array_equal(phase, before[0])
    np.testing.assert_array_equal(magnitude, before[1])
    voids = [(10, 10, 10), (12, 12, 12), (14, 12, 12)]
    for name in FieldMap.__dataclass_fields__:
        assert np.isfinite(getattr(found, name)).all()
    for void in voids:
        assert found.weights[void] == 0
        assert found.field_noise[void] > 10 * np.median(found.field_noise[mask])
        # Never 0, which would be a value like any other.
        assert abs(found.total_field[void] - truth()[void]) < 0.05
    elsewhere = mask.copy()
    for void in [*voids, (8, 12, 12)]:
        elsewhere[void] = False
    difference = np.abs(found.total_field - clean.total_field)[elsewhere]
    # Some of the noise of a voxel (0.002 ppm) reaches its neighbours with the phase offset.
    assert difference.max() < 1e-3


@pytest.mark.parametrize('fit', METHODS)
def test_empty_mask_and_all_zero_data(fit):
    phase, magnitude = scan(EVEN)
    empty = fit(phase, magnitude, np.zeros(SHAPE, bool), SIZE, te=EVEN, f0=F0)
    assert not empty.total_field.any()
    dark = fit(phase, 0 * magnitude, region(), SIZE, te=EVEN, f0=F0)
    assert np.isfinite(dark.total_field).all()
    assert not dark.weights.any()


@pytest.mark.parametrize('fit', METHODS)
def test_axes_may_be_permuted_and_magnitude_scaled(fit):
    phase, magnitude = scan(EVEN, snr=50)
    mask = region()
    mask[:, :5] = False
    found = fit(phase, magnitude, mask, (1.0, 2.0, 3.0), te=EVEN, f0=F0)
    order = (2, 0, 1, 3)
    turned = fit(
        phase.transpose(order),
        1e-9 * magnitude.transpose(order),
        mask.transpose(2, 0, 1),
        (3.0, 1.0, 2.0),
        te=EVEN,
        f0=F0,
    )
    for name in ('total_field', 'weights', 'residual'):
        expected = getattr(found, name).transpose(2, 0, 1)
        np.testing.assert_allclose(getattr(turned, name), expected, atol=1e-3)


@pytest.mark.parametrize('fit', METHODS)
def test_without_magnitude_all_echoes_count_alike(fit):
    phase, _ = scan(EVEN, snr=50, r2star=0.0)
    mask = region()
    found = fit(phase, None, mask, SIZE, te=EVEN, f0=F0)
    assert np.std((found.total_field - truth())[mask]) < 0.003


@pytest.mark.parametrize('f0', [0.0, -1.0, np.nan])
def test_impossible_frequency_is_an_error(f0):
    phase, magnitude = scan(EVEN)
    with pytest.raises(ValueError, match='MHz'):
        sequential(phase, magnitude, region(), SIZE, te=EVEN, f0=f0)
