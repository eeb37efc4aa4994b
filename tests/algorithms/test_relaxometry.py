"""Relaxometry against closed forms, noise and broken signals."""

import numpy as np
import pytest
from scipy.optimize import least_squares

from qsmflow.algorithms import relaxometry
from qsmflow.algorithms.relaxometry import (
    arlo,
    loglinear,
    nlls,
    noise_level,
    numart2s,
    uniform_spacing,
)

METHODS = {'arlo': arlo, 'loglinear': loglinear, 'numart2s': numart2s, 'nlls': nlls}
TE = np.arange(1, 8) * 0.005
VOXEL = (1.0, 1.0, 1.0)


def decay(rates, te=TE, s0=1000.0):
    """One voxel along x for each rate, float32 like an image."""
    rates = np.asarray(rates, float).reshape(-1, 1, 1, 1)
    return (s0 * np.exp(-rates * te)).astype(np.float32)


def fit(method, magnitude, te=TE, **options):
    return METHODS[method](magnitude, np.ones(magnitude.shape[:3], bool), VOXEL, te=te, **options)


def noisy(rate, sigma, n=5000, te=TE, seed=0):
    """The same decay in ``n`` voxels, with noise in both channels."""
    rng = np.random.default_rng(seed)
    clean = np.broadcast_to(decay([rate], te), (n, 1, 1, te.size))
    noise = sigma * (rng.normal(size=clean.shape) + 1j * rng.normal(size=clean.shape))
    return np.abs(clean + noise).astype(np.float32)


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('rate', [5, 20, 40, 80])
def test_brain_rates_are_recovered(method, rate):
    result = fit(method, decay([rate]))
    # The trapezoid rule is what numart2s is, with its bias; the tests below have its closed form.
    tolerance = 0.015 if method == 'numart2s' else 3e-4
    np.testing.assert_allclose(result.r2star, rate, rtol=tolerance)
    np.testing.assert_allclose(result.t2star, 1 / rate, rtol=tolerance)
    np.testing.assert_allclose(result.s0, 1000, rtol=2 * tolerance)
    assert result.r2star.dtype == result.t2star.dtype == result.s0.dtype == np.float32


@pytest.mark.parametrize(
    ('rate', 'expected'), [(40, 39.9997), (80, 79.989), (160, 159.66), (300, 293.5)]
)
def test_arlo_has_the_known_bias_of_simpsons_rule(rate, expected):
    np.testing.assert_allclose(fit('arlo', decay([rate])).r2star, expected, rtol=2e-4)


@pytest.mark.parametrize(('rate', 'expected'), [(80, 78.95), (160, 152.0), (300, 254.06)])
def test_numart2s_has_the_known_bias_of_the_trapezoid_rule(rate, expected):
    np.testing.assert_allclose(fit('numart2s', decay([rate])).r2star, expected, rtol=2e-4)


@pytest.mark.parametrize('rate', [20, 80, 200])
def test_numart2s_weights_uneven_intervals_by_their_area(rate):
    te = np.array([0.003, 0.008, 0.011, 0.021])
    signal, step = np.exp(-rate * te), np.diff(te)
    area = step * (signal[1:] + signal[:-1]) / 2
    expected = np.average(2 / step * np.tanh(rate * step / 2), weights=area)
    np.testing.assert_allclose(fit('numart2s', decay([rate], te), te).r2star, expected, rtol=1e-4)


@pytest.mark.parametrize('method', ['loglinear', 'nlls'])
def test_any_spacing_is_exact(method):
    te = np.array([0.004, 0.012, 0.020, 0.028])
    rates = [1.5, 20, 100, 250]
    got = fit(method, decay(rates, te), te).r2star.ravel()
    np.testing.assert_allclose(got, rates, rtol=1e-4)


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('rate', [10, 30, 60, 100])
def test_bias_at_snr_50_is_below_two_percent(method, rate):
    got = fit(method, noisy(rate, 20.0), noise=20.0).r2star
    bias = float(got.mean(dtype=float)) / rate - 1
    if method == 'numart2s':
        # Its own, and what it loses more as echoes drop out one by one.
        bias -= 400 * np.tanh(rate / 400) / rate - 1
    assert abs(bias) < (0.03 if method == 'numart2s' else 0.02)


@pytest.mark.parametrize(('rate', 'snr'), [(100, 20), (60, 10)])
def test_nlls_has_no_bias_where_the_signal_sinks_into_the_noise(rate, snr):
    """To leave out echoes, or not to, both bias a line; the floor in the model does not."""
    magnitude = noisy(rate, 1000 / snr, n=20000)
    medians = {
        (method, noise): np.median(fit(method, magnitude, noise=noise).r2star) / rate - 1
        for method in ('loglinear', 'nlls')
        for noise in (0.0, 1000 / snr)
    }
    assert abs(medians['nlls', 1000 / snr]) < 0.02
    for other in (('loglinear', 0.0), ('loglinear', 1000 / snr), ('nlls', 0.0)):
        assert medians[other] < -0.04


def test_nlls_floor_is_twice_the_variance():
    """The floor in its expectation, exactly: the rate must come back as it was."""
    for sigma in (1.0, 50.0, 300.0):
        magnitude = np.sqrt(decay([5, 40, 150, 400]).astype(float) ** 2 + 2 * sigma**2)
        got = fit('nlls', magnitude, noise=sigma, tol=1e-8)
        np.testing.assert_allclose(got.r2star.ravel(), [5, 40, 150, 400], rtol=2e-3)
        np.testing.assert_allclose(got.s0, 1000, rtol=2e-3)


def test_nlls_without_noise_is_the_least_squares_fit():
    magnitude = noisy(60, 60.0, n=12, seed=3)
    got = fit('nlls', magnitude, noise=0)
    for voxel in range(12):
        data = magnitude[voxel, 0, 0].astype(float)
        best = least_squares(
            lambda p, data: p[0] * np.exp(-p[1] * TE) - data,
            *([900.0, 40.0],),
            x_scale=[1000, 50],
            xtol=1e-12,
            args=(data,),
        )
        found = got.s0[voxel, 0, 0], got.r2star[voxel, 0, 0]
        np.testing.assert_allclose(found, best.x, rtol=2e-4)


def test_nlls_meets_its_estimating_equations():
    """At the solution, the weighted residuals of the squares have no part along the model."""
    sigma = 80.0
    magnitude = noisy(50, sigma, n=50, seed=5)
    got = fit('nlls', magnitude, noise=sigma, tol=1e-9, max_iter=200)
    data = magnitude[:, 0, 0].astype(float) ** 2 - 2 * sigma**2
    rate, s0 = (v[:, 0].astype(float) for v in (got.r2star, got.s0))
    power = s0**2 * np.exp(-2 * rate * TE)
    share = (data - power) / (power + sigma**2)
    scale = np.abs(share).sum(axis=1)
    for slope in (power, TE / TE[-1] * power):
        balance = (share * slope / power[:, :1]).sum(axis=1)
        assert np.abs(balance / scale).max() < 1e-4


def test_nlls_stays_within_bounds_and_still_fits_the_signal():
    rising = decay([-40])
    got = fit('nlls', rising, noise=0)
    assert got.r2star[0, 0, 0] == 0
    np.testing.assert_allclose(got.s0, rising.mean(), rtol=1e-3)
    steep = decay([2500], te=np.array([0.001, 0.002, 0.003]))
    got = fit('nlls', steep, np.array([0.001, 0.002, 0.003]), noise=0)
    assert got.r2star[0, 0, 0] == relaxometry.R2STAR_MAX


def test_nlls_steps_and_tolerance_are_heeded():
    magnitude = noisy(150, 60.0, n=50)
    far = fit('nlls', magnitude, noise=60.0, max_iter=1).r2star
    near = fit('nlls', magnitude, noise=60.0).r2star
    exact = fit('nlls', magnitude, noise=60.0, tol=1e-10, max_iter=300).r2star
    assert np.abs(near - exact).max() < 0.1 < np.abs(far - exact).max()
    for wrong in ({'tol': 0}, {'max_iter': 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            fit('nlls', magnitude, **wrong)


@pytest.mark.parametrize('noise', [-1.0, np.nan])
def test_impossible_noise_is_refused(noise):
    with pytest.raises(ValueError, match='noise must be a number of 0 or more'):
        fit('arlo', decay([30]), noise=noise)


@pytest.mark.parametrize('method', METHODS)
def test_result_depends_on_values_alone(method, monkeypatch):
    """Not on the order of the axes in memory, nor on the number of threads."""
    magnitude = noisy(40, 30.0, n=240).reshape(12, 5, 4, TE.size)
    mask = np.random.default_rng(1).random((12, 5, 4)) < 0.8
    first = METHODS[method](magnitude, mask, VOXEL, te=TE, noise=30.0)
    monkeypatch.setenv('OMP_NUM_THREADS', '1')
    other = METHODS[method](
        np.asfortranarray(magnitude), np.asfortranarray(mask), VOXEL, te=TE, noise=30.0
    )
    for a, b in zip(vars(first).values(), vars(other).values(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize('n_echoes', [3, 6])
@pytest.mark.parametrize('method', METHODS)
def test_result_does_not_depend_on_the_place(method, n_echoes):
    """Voxels are worked on in blocks, and in vectors with some left over at the end."""
    te = 0.005 * np.arange(1, n_echoes + 1)
    magnitude = noisy(60, 60.0, n=3500, te=te).reshape(5, 7, 100, n_echoes)
    mask = np.random.default_rng(1).random((5, 7, 100)) < 0.9
    whole = METHODS[method](magnitude, mask, VOXEL, te=te, noise=60.0)
    single = METHODS[method](
        magnitude.reshape(-1, 1, 1, n_echoes), mask.reshape(-1, 1, 1), VOXEL, te=te, noise=60.0
    )
    for a, b in zip(vars(whole).values(), vars(single).values(), strict=True):
        np.testing.assert_array_equal(a.ravel(), b.ravel())
        assert not a[~mask].any()


def test_fast_decays_have_the_same_signal_at_echo_time_zero():
    """The exponentials of the fits are their own, up to e^80."""
    te = np.array([0.01, 0.02, 0.03])
    for rate in (0.6, 5.0, 300.0, 999.0):
        magnitude = 1e8 * np.exp(-rate * te).reshape(1, 1, 1, 3)
        for method in ('loglinear', 'numart2s', 'arlo'):
            found = fit(method, magnitude, te, noise=0)
            got = float(found.r2star[0, 0, 0])
            model = np.exp(-got * te)
            expected = (model @ magnitude.ravel()) / (model @ model)
            assert float(found.s0[0, 0, 0]) == pytest.approx(expected, rel=2e-5)


def test_weights_follow_the_signal():
    """An outlier in a weak late echo must matter less than it does to an unweighted line."""
    magnitude = decay([60])
    magnitude[..., -1] *= 1.5
    logs = np.log(magnitude[0, 0, 0].astype(float))
    unweighted = -np.polyfit(TE, logs, 1)[0]
    weighted = float(fit('loglinear', magnitude, noise=0).r2star[0, 0, 0])
    assert abs(weighted - 60) < 0.5 * abs(unweighted - 60)


@pytest.mark.parametrize('method', ['arlo', 'loglinear'])
def test_noise_floor_is_left_out(method):
    """A decay that ends in a plateau of noise must not look slow."""
    sigma = 20.0
    magnitude = np.hypot(decay([150]), sigma * relaxometry.RAYLEIGH_MEAN)
    with_floor = float(fit(method, magnitude, noise=0).r2star[0, 0, 0])
    without = float(fit(method, magnitude, noise=sigma).r2star[0, 0, 0])
    assert abs(without - 150) < 6
    assert abs(without - 150) < 0.5 * abs(with_floor - 150)


@pytest.mark.parametrize('method', METHODS)
def test_broken_signals_stay_within_bounds(method):
    magnitude = decay([30, 30, 30, 30, -40, 3000, 30])
    magnitude[0] = 0
    magnitude[1, ..., 3] = np.nan
    magnitude[2, ..., 1:] = 0
    magnitude[3] = -magnitude[3]
    result = fit(method, magnitude)
    for image in (result.r2star, result.t2star, result.s0):
        assert np.isfinite(image).all()
        assert image.min() >= 0
    assert result.r2star.max() <= relaxometry.R2STAR_MAX
    rates = result.r2star.ravel()
    if method == 'nlls':
        assert rates[1] == pytest.approx(30, rel=1e-3)  # one echo that is not known, not zero
    assert rates[0] == rates[3] == rates[4] == 0  # no signal, negative, rising
    assert result.t2star.ravel()[4] == 0
    assert result.t2star.max() <= 1 / relaxometry.R2STAR_SEEN
    assert rates[5] > 100
    assert rates[6] == pytest.approx(30, rel=2e-3)


@pytest.mark.parametrize('noise', [0.0, 20.0])
@pytest.mark.parametrize('method', METHODS)
def test_voxels_without_any_signal_are_zero(method, noise):
    magnitude = decay([30, 30, 30, 30])
    magnitude[0] = np.nan
    magnitude[1] = -np.inf
    magnitude[2] = 0
    magnitude[3, ..., 0] = np.nan
    result = fit(method, magnitude, noise=noise)
    for image in (result.r2star, result.t2star, result.s0):
        assert not image[:3].any()
        assert np.isfinite(image).all()


@pytest.mark.parametrize('method', METHODS)
def test_inputs_stay_and_outside_is_zero(method):
    magnitude = np.broadcast_to(decay([30]), (4, 5, 6, TE.size)).copy()
    before = magnitude.copy()
    mask = np.zeros((4, 5, 6), bool)
    mask[1:3, 1:4, 2:5] = True
    result = METHODS[method](magnitude, mask, VOXEL, te=TE)
    np.testing.assert_array_equal(magnitude, before)
    for image in (result.r2star, result.t2star, result.s0):
        assert not image[~mask].any()
        assert image[mask].all()


@pytest.mark.parametrize('method', METHODS)
def test_scale_of_the_magnitude_does_not_matter(method):
    magnitude = decay([10, 30, 90])
    first, second = fit(method, magnitude), fit(method, magnitude * 4096)
    np.testing.assert_allclose(first.r2star, second.r2star, rtol=1e-5)
    np.testing.assert_allclose(first.s0 * 4096, second.s0, rtol=1e-5)


@pytest.mark.parametrize('method', METHODS)
def test_empty_mask_gives_zeros(method):
    magnitude = decay([30, 40])
    result = METHODS[method](magnitude, np.zeros((2, 1, 1), bool), VOXEL, te=TE)
    assert not result.r2star.any()


def test_two_echoes_suffice_for_all_but_arlo():
    te = TE[:2]
    for method in ('loglinear', 'nlls', 'numart2s'):
        got = fit(method, decay([25], te), te).r2star
        np.testing.assert_allclose(got, 25, rtol=2e-3 if method == 'numart2s' else 1e-4)
    with pytest.raises(ValueError, match='three or more equally spaced'):
        fit('arlo', decay([25], te), te)


@pytest.mark.parametrize(
    ('te', 'message'),
    [
        ([0.004, 0.012, 0.028], 'equally spaced'),
        ([0.012, 0.004, 0.020], 'increasing order'),
        ([0.004, 0.012], r'shape \(X, Y, Z, 2\)'),
    ],
)
def test_wrong_echo_times_are_refused(te, message):
    with pytest.raises(ValueError, match=message):
        fit('arlo', decay([25], np.array([0.004, 0.012, 0.020])), te)


def test_one_echo_is_refused():
    with pytest.raises(ValueError, match='two or more echo times'):
        fit('loglinear', decay([25], TE[:1]), TE[:1])


def test_mask_of_another_shape_is_refused():
    with pytest.raises(ValueError, match='mask has shape'):
        arlo(decay([25]), np.ones((2, 1, 1), bool), VOXEL, te=TE)


def test_spacing_tolerates_rounding_in_the_sidecar():
    assert uniform_spacing([0.00492, 0.00984, 0.01476, 0.01969])
    assert not uniform_spacing([0.005, 0.010, 0.016])


def head_in_air(sigma, seed=0):
    rng = np.random.default_rng(seed)
    signal = np.zeros((40, 40, 40, 2))
    signal[10:30, 10:30, 10:30] = 500
    noise = rng.normal(size=signal.shape) + 1j * rng.normal(size=signal.shape)
    return np.abs(signal + sigma * noise)


def test_noise_is_measured_in_the_corners():
    assert noise_level(head_in_air(7.0)) == pytest.approx(7.0, rel=0.05)


@pytest.mark.parametrize('channels', [2, 8, 24])
def test_noise_floor_of_many_channels_is_measured(channels):
    """The root of the sum of squares has a higher floor than one channel has."""
    parts = [head_in_air(7.0, seed) ** 2 for seed in range(channels)]
    assert noise_level(np.sqrt(sum(parts))) == pytest.approx(7.0 * np.sqrt(channels), rel=0.05)


def test_decaying_tissue_of_low_signal_is_no_air():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(40, 40, 40, 2)) + 1j * rng.normal(size=(40, 40, 40, 2))
    tissue = np.abs(np.array([60.0, 30.0]) + 7 * noise)
    last = tissue[..., -1]
    assert last.mean() / last.std() < 12  # else the ratio alone would tell
    assert noise_level(tissue) == 0


def test_noise_is_not_invented():
    """Masked air and tissue in the corners say nothing: no echo may be dropped for them."""
    masked = head_in_air(7.0)
    masked[masked < 100] = 0
    assert noise_level(masked) == 0
    tissue = 500 + 7 * np.random.default_rng(0).normal(size=(40, 40, 40, 2))
    assert noise_level(tissue) == 0
