import numpy as np
import pytest
from scipy import ndimage

from qsmflow.algorithms import get_method
from qsmflow.algorithms.field import FieldMap
from qsmflow.algorithms.field.average import WEIGHTINGS, averaged
from qsmflow.algorithms.field.lines import nonlinear, weighted
from qsmflow.algorithms.field.refined import _refine, refined
from qsmflow.algorithms.field.sequential import _fields, sequential
from qsmflow.units import radians_per_ppm

METHODS = [sequential, weighted, nonlinear, refined, averaged]
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


@pytest.mark.parametrize('method', ['sequential', 'weighted', 'nonlinear', 'averaged'])
def test_a_voxel_with_a_phase_of_its_own_gets_no_weight(method):
    te, f0 = np.array([0.004, 0.010, 0.016]), 127.7
    k = radians_per_ppm(te, f0)
    x = np.arange(16) / 16
    field = (0.2 * (x[:, None, None] + x[None, :, None] * x)).astype(np.float32)
    field[8:, 8:, 8:] += 0.15  # a border, an edge and a corner are no such voxel
    field[4, 5, 6] += 0.5
    mask = np.ones(field.shape, bool)
    fit = get_method('field', method)(field[..., None] * k, None, mask, (1, 1, 1), te=te, f0=f0)
    others = mask.copy()
    others[4, 5, 6] = False
    assert fit.weights[4, 5, 6] < 1e-3
    assert fit.weights[others].min() > 0.1
    assert np.mean(fit.weights[others] > 0.99) > 0.99


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


def wrapped(x):
    return x - 2 * np.pi * np.rint(x / (2 * np.pi))


def sequential_reference(phase, magnitude, k, noise):
    """Return the sequential fit of voxels (N, E) in float64, straight from its equations."""
    f = phase[:, 0] / k[0]
    s = np.maximum(magnitude[:, 0] ** 2, noise**2 / 4) / noise**2 * k[0] ** 2
    for j in range(1, k.size):
        e = wrapped(phase[:, j] - k[j] * f)
        w = np.maximum(magnitude[:, j] ** 2 - noise**2, 0.05 * noise**2) / noise**2
        a = (1 + e**2 / (2.5**2 * (1 / w + k[j] ** 2 / s + 0.08**2))) ** -2
        f = (s * f + a * w * k[j] * (k[j] * f + e)) / (s + a * w * k[j] ** 2)
        s = s + a * w * k[j] ** 2
    e = wrapped(phase - k * f[:, None])
    misfit = np.sum(magnitude * 2 * np.abs(np.sin(e / 2)), axis=1) / magnitude.sum(axis=1)
    return f, np.minimum(misfit, 1)


def lists(te, snr, **options):
    """Return phase and magnitude of the voxels as the kernels take them, (E, N), and k."""
    phase, magnitude = scan(te, snr=snr, **options)
    pick = region()
    k = radians_per_ppm(te, F0)
    return phase[pick].T.astype(np.float32), (magnitude[pick].T / 1000).astype(np.float32), k


@pytest.mark.parametrize('te', [EVEN, UNEVEN], ids=len)
@pytest.mark.parametrize('snr', [50, 5])
def test_sequential_is_its_equations_in_float64(te, snr):
    phase, magnitude, k = lists(te, snr)
    count = phase.shape[1]
    field, info, residual = (np.empty(count, np.float32) for _ in range(3))
    level = np.float32(1 / snr), np.float32(0.08**2)
    offset = np.zeros(count, np.float32)
    _fields(phase, magnitude, k.astype(np.float32), offset, *level, field, info, residual)
    expected, misfit = sequential_reference(phase.T.astype(float), magnitude.T, k, 1 / snr)
    np.testing.assert_allclose(field, expected, atol=2e-6)
    np.testing.assert_allclose(residual, misfit, atol=2e-5)


def test_sequential_does_not_lose_digits_to_float32():
    te = np.array([0.020, 0.021, 0.022, 0.023])
    x, _, _ = grid()
    offset = 0.2 * np.cos(2 * x)
    phase, magnitude = scan(te, offset=offset)
    mask = region()
    found = sequential(phase, magnitude, mask, SIZE, te=te, f0=F0, alternations=12)
    # Near echo times ask much of the intercepts. The offset is smooth, so it can be found.
    assert np.abs(found.phase_offset - offset)[mask].max() < 0.05


@pytest.mark.parametrize('fit', METHODS)
def test_one_voxel_and_one_slice(fit):
    phase, magnitude = scan(EVEN, snr=100)
    one = np.zeros(SHAPE, bool)
    one[12, 12, 10] = True
    plane = region()
    plane[..., :10] = plane[..., 11:] = False
    for mask in (one, plane):
        found = fit(phase, magnitude, mask, SIZE, te=EVEN, f0=F0)
        error = (found.total_field - truth())[mask]
        assert np.sqrt(np.mean(error**2)) < 0.006
        assert found.field_noise[mask].min() > 0


@pytest.mark.parametrize('fit', METHODS)
def test_the_same_bytes_wherever_the_data_are_in_memory(fit):
    phase, magnitude = scan(EVEN, snr=20, offset=0.1)
    first = fit(phase, magnitude, region(), SIZE, te=EVEN, f0=F0)
    kept = []
    for gap in (1, 3, 1000, 30_001):
        kept.append(np.empty(gap, np.float32))
        again = fit(phase.copy(), magnitude.copy(), region(), SIZE, te=EVEN, f0=F0)
        for name in FieldMap.__dataclass_fields__:
            np.testing.assert_array_equal(getattr(first, name), getattr(again, name))


def weights_of(weighting, magnitude, te):
    return {
        'phase_var': magnitude**2 * te**2,
        'phase_snr': magnitude * te,
        'average': np.ones_like(magnitude),
        'te': np.ones_like(magnitude) * te,
        'magnitude': magnitude,
    }[weighting]


@pytest.mark.parametrize('weighting', WEIGHTINGS)
def test_average_is_its_formula(weighting):
    phase, magnitude = scan(UNEVEN, snr=20)
    mask = region()
    found = averaged(
        phase, magnitude, mask, SIZE, te=UNEVEN, f0=F0, weighting=weighting
    ).total_field[mask]
    w = weights_of(weighting, magnitude[mask], UNEVEN)
    hertz = np.sum(w * phase[mask] / UNEVEN, axis=1) / w.sum(axis=1) / (2 * np.pi)
    np.testing.assert_allclose(found, hertz / F0, atol=1e-6)


@pytest.mark.parametrize('weighting', WEIGHTINGS)
def test_noise_of_every_average_is_the_measured_one(weighting):
    phase, magnitude = scan(EVEN, snr=50)
    mask = region()
    found = averaged(phase, magnitude, mask, SIZE, te=EVEN, f0=F0, weighting=weighting)
    score = (found.total_field - truth())[mask] / found.field_noise[mask]
    assert np.std(score) == pytest.approx(1, abs=0.07)


def test_inverse_variance_is_the_best_average_and_the_line_through_the_origin():
    phase, magnitude = scan(EVEN, snr=30, r2star=60.0)
    mask = region()
    kwargs = {'te': EVEN, 'f0': F0}
    error = {
        name: np.std(
            (
                averaged(phase, magnitude, mask, SIZE, weighting=name, **kwargs).total_field
                - truth()
            )[mask]
        )
        for name in WEIGHTINGS
    }
    assert min(error, key=error.get) == 'phase_var'
    line = weighted(phase, magnitude, mask, SIZE, fit_offset=False, **kwargs)
    mean = averaged(phase, magnitude, mask, SIZE, **kwargs)
    for name in ('total_field', 'field_noise', 'residual'):
        np.testing.assert_allclose(getattr(mean, name), getattr(line, name), rtol=1e-4, atol=1e-6)


def test_echoes_without_signal_do_not_count_in_any_average():
    phase, magnitude = scan(EVEN)
    phase[..., 4] = 77
    magnitude[..., 4] = 0
    mask = region()
    for weighting in WEIGHTINGS:
        found = averaged(
            phase, magnitude, mask, SIZE, te=EVEN, f0=F0, weighting=weighting
        ).total_field
        np.testing.assert_allclose(found[mask], truth()[mask], atol=2e-6)
    with pytest.raises(ValueError, match='phase_var, phase_snr'):
        averaged(phase, magnitude, mask, SIZE, te=EVEN, f0=F0, weighting='snr')


def robust_objective(phase, magnitude, k, f, p, noise, prior):
    """Return the objective of the refined fit for voxels (N, E), in float64."""
    w = np.maximum(magnitude**2 - noise**2, 0.05 * noise**2) / noise**2
    c2 = 2.5**2 * (1 / w + 0.08**2)
    d = np.abs(np.exp(1j * phase) - np.exp(1j * (p[:, None] + k * f[:, None]))) ** 2
    return np.sum(w * c2 * d / (c2 + d), axis=1) + prior * p**2


@pytest.mark.parametrize('snr', [50, 8])
def test_refinement_minimises_its_objective_and_never_raises_it(snr):
    phase, magnitude, k = lists(EVEN, snr, r2star=50.0)
    phase[2] += np.pi * (np.random.default_rng(6).random(phase.shape[1]) < 0.05)
    count, prior = phase.shape[1], 1 / 0.05**2
    start = (phase[0] / k[0]).astype(np.float32)
    field, offset = start.copy(), np.zeros(count, np.float32)
    info, residual = np.empty((2, count), np.float32)
    _refine(phase, magnitude, k, 1 / snr**2, prior, 50, 1e-7, field, offset, info, residual)
    data = phase.T.astype(float), magnitude.T.astype(float), k

    def objective(f, p):
        return robust_objective(*data, f.astype(float), p.astype(float), 1 / snr, prior)

    before, after = objective(start, 0 * offset), objective(field, offset)
    assert (after <= before + 1e-4).all()
    assert np.median(after / before) < 0.8
    # Flat to first order: the slope over the curvature is the way to the minimum, in rad.
    step = 1e-3
    slopes = []
    for df, dp in ((step / k[2], 0), (0, step)):
        up = objective(field.astype(float) + df, offset.astype(float) + dp)
        down = objective(field.astype(float) - df, offset.astype(float) - dp)
        slopes.append(np.abs(up - down) / np.maximum(up + down - 2 * after, 1e-9) / 2)
    assert np.percentile(slopes, 95) < 0.5
    assert np.median(slopes) < 0.05


def test_refinement_lowers_the_error_when_the_offset_is_known():
    errors = {}
    for fit in (sequential, refined):
        squares = []
        for seed in range(3):
            phase, magnitude = scan(EVEN, snr=15, seed=seed, r2star=40.0)
            found = fit(phase, magnitude, region(), SIZE, te=EVEN, f0=F0, alternations=0)
            squares.append(np.median(np.abs(found.total_field - truth())[region()]))
        errors[fit] = np.mean(squares)
    assert errors[refined] < errors[sequential]


def test_refinement_leaves_a_field_that_is_off_by_a_turn():
    phase, magnitude = scan(EVEN, snr=100)
    phase[10:12, 10, 10] += 2 * np.pi * np.array([1, 0, 0, 0, 0])
    mask = region()
    kwargs = {'te': EVEN, 'f0': F0, 'alternations': 0}
    start = sequential(phase, magnitude, mask, SIZE, **kwargs).total_field
    found = refined(phase, magnitude, mask, SIZE, **kwargs)
    np.testing.assert_allclose(found.total_field[10:12, 10, 10], start[10:12, 10, 10], atol=0.02)
    assert found.residual[10:12, 10, 10].min() > 0.3


def test_offset_deviation_decides_how_much_of_an_offset_goes_to_each_voxel():
    phase, magnitude = scan(EVEN, snr=100)
    phase[10, 10, 10] += 0.3
    mask = region()
    kwargs = {'te': EVEN, 'f0': F0, 'alternations': 0}
    tight, loose = (
        refined(phase, magnitude, mask, SIZE, offset_deviation=d, **kwargs) for d in (1e-4, 1.0)
    )
    assert abs(tight.phase_offset[10, 10, 10]) < 0.01
    assert loose.phase_offset[10, 10, 10] == pytest.approx(0.3, abs=0.06)
    assert np.median(loose.field_noise[mask]) > 1.5 * np.median(tight.field_noise[mask])
    for name in ('offset_deviation', 'tol'):
        with pytest.raises(ValueError, match=name):
            refined(phase, magnitude, mask, SIZE, te=EVEN, f0=F0, **{name: 0.0})


@pytest.mark.parametrize('fit', [sequential, weighted], ids=lambda f: f.__name__)
def test_single_echo_distrusts_a_patch_that_is_wrong_by_a_turn(fit):
    shape, te = (24, 24, 24), (0.020,)
    grid = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing='ij')
    # A field of a vein's size and gradient is no reason for doubt.
    field = 0.05 * np.exp(-8 * (grid[0] ** 2 + grid[1] ** 2)) + 0.1 * grid[2]
    phase = radians_per_ppm(te[0], F0) * field
    wrong = np.zeros(shape, bool)
    wrong[4:6, 10:13, 10:13] = True
    phase = np.where(wrong, phase + 2 * np.pi, phase)[..., None]
    found = fit(phase, None, np.ones(shape, bool), (1, 1, 1), te=te, f0=F0).weights
    far = ndimage.distance_transform_edt(~wrong) > 4
    assert found[wrong].max() < 0.1
    assert found[far].min() > 0.98
