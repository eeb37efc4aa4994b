"""The fits of a line, and of a line on the circle."""

import numpy as np
import pytest

from qsmflow.algorithms.field.lines import nonlinear, weighted
from tests.algorithms.field_scan import EVEN, F0, SIZE, UNEVEN, region, scan, truth


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
