"""What every fit of the field does."""

import numpy as np
import pytest
from scipy import ndimage

from qsmflow.algorithms import get_method
from qsmflow.algorithms.field import FieldMap
from qsmflow.algorithms.field.average import averaged
from qsmflow.algorithms.field.lines import nonlinear, weighted
from qsmflow.algorithms.field.refined import refined
from qsmflow.algorithms.field.sequential import sequential
from qsmflow.units import radians_per_ppm
from tests.algorithms.field_scan import EVEN, F0, SHAPE, SIZE, UNEVEN, region, scan, truth

METHODS = [sequential, weighted, nonlinear, refined, averaged]


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
