"""The fit that adds one echo after the other."""

import numpy as np
import pytest

from qsmflow.algorithms.field.lines import weighted
from qsmflow.algorithms.field.sequential import _fields, sequential
from tests.algorithms.field_scan import EVEN, F0, SIZE, UNEVEN, grid, lists, region, scan, truth


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
