"""Relaxometry against closed forms, noise and broken signals."""

import numpy as np
import pytest

from qsmflow.algorithms import relaxometry
from qsmflow.algorithms.relaxometry import arlo, loglinear, noise_level, uniform_spacing

METHODS = {'arlo': arlo, 'loglinear': loglinear}
TE = np.arange(1, 8) * 0.005
VOXEL = (1.0, 1.0, 1.0)


def decay(rates, te=TE, s0=1000.0):
    """One voxel along x for each rate, float32 like an image."""
    rates = np.asarray(rates, float).reshape(-1, 1, 1, 1)
    return (s0 * np.exp(-rates * te)).astype(np.float32)


def fit(method, magnitude, te=TE, **options):
    return METHODS[method](magnitude, np.ones(magnitude.shape[:3], bool), VOXEL, te=te, **options)


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('rate', [5, 20, 40, 80])
def test_brain_rates_are_recovered(method, rate):
    result = fit(method, decay([rate]))
    np.testing.assert_allclose(result.r2star, rate, rtol=3e-4)
    np.testing.assert_allclose(result.t2star, 1 / rate, rtol=3e-4)
    np.testing.assert_allclose(result.s0, 1000, rtol=5e-4)
    assert result.r2star.dtype == result.t2star.dtype == result.s0.dtype == np.float32


@pytest.mark.parametrize(
    ('rate', 'expected'), [(40, 39.9997), (80, 79.989), (160, 159.66), (300, 293.5)]
)
def test_arlo_has_the_known_bias_of_simpsons_rule(rate, expected):
    np.testing.assert_allclose(fit('arlo', decay([rate])).r2star, expected, rtol=2e-4)


def test_loglinear_is_exact_for_any_spacing():
    te = np.array([0.004, 0.012, 0.020, 0.028])
    rates = [1.5, 20, 100, 250]
    got = fit('loglinear', decay(rates, te), te).r2star.ravel()
    np.testing.assert_allclose(got, rates, rtol=1e-4)


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('rate', [10, 30, 60, 100])
def test_bias_at_snr_50_is_below_two_percent(method, rate):
    rng = np.random.default_rng(rate)
    clean = np.broadcast_to(decay([rate]), (5000, 1, 1, TE.size))
    noise = 20 * (rng.normal(size=clean.shape) + 1j * rng.normal(size=clean.shape))
    got = fit(method, np.abs(clean + noise), noise=20.0).r2star
    assert abs(float(got.mean(dtype=float)) / rate - 1) < 0.02


def test_weights_follow_the_signal():
    """An outlier in a weak late echo must matter less than it does to an unweighted line."""
    magnitude = decay([60])
    magnitude[..., -1] *= 1.5
    logs = np.log(magnitude[0, 0, 0].astype(float))
    unweighted = -np.polyfit(TE, logs, 1)[0]
    weighted = float(fit('loglinear', magnitude, noise=0).r2star[0, 0, 0])
    assert abs(weighted - 60) < 0.5 * abs(unweighted - 60)


@pytest.mark.parametrize('method', METHODS)
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
    assert rates[0] == rates[3] == rates[4] == 0  # no signal, negative, rising
    assert result.t2star.ravel()[4] == 0
    assert result.t2star.max() <= 1 / relaxometry.R2STAR_SEEN
    assert rates[5] > 100
    assert rates[6] == pytest.approx(30, rel=1e-3)


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


def test_two_echoes_suffice_for_loglinear_only():
    te = TE[:2]
    got = fit('loglinear', decay([25], te), te).r2star
    np.testing.assert_allclose(got, 25, rtol=1e-4)
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


def test_noise_is_not_invented():
    """Masked air and tissue in the corners say nothing: no echo may be dropped for them."""
    masked = head_in_air(7.0)
    masked[masked < 100] = 0
    assert noise_level(masked) == 0
    tissue = 500 + 7 * np.random.default_rng(0).normal(size=(40, 40, 40, 2))
    assert noise_level(tissue) == 0
