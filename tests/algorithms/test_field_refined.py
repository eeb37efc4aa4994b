"""The robust refinement of the sequential fit."""

import numpy as np
import pytest

from qsmflow.algorithms.field.refined import _refine, refined
from qsmflow.algorithms.field.sequential import sequential
from tests.algorithms.field_scan import EVEN, F0, SIZE, lists, region, scan, truth


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
