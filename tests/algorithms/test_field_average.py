"""Weighted averages of the echoes."""

import numpy as np
import pytest

from qsmflow.algorithms.field.average import WEIGHTINGS, averaged
from qsmflow.algorithms.field.lines import weighted
from tests.algorithms.field_scan import EVEN, F0, SIZE, UNEVEN, region, scan, truth


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
