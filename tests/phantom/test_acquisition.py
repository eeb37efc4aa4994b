import numpy as np
import pytest

from qsmflow import units
from qsmflow.algorithms.operators import forward_field
from qsmflow.phantom import make_head, simulate_gre, simulate_t1w, small_acquisition, tissues
from qsmflow.phantom.grid import FineGrid, orient
from qsmflow.phantom.head import Pose, centred_affine


def wrap(phase):
    return np.angle(np.exp(1j * phase))


@pytest.fixture(scope='module')
def clean():
    """A scan without noise and without dephasing: the signal equation holds exactly."""
    return small_acquisition(snr=float('inf'))


def test_phase_follows_the_true_field(clean):
    mask = clean.truth['mask']
    for echo, te in enumerate(clean.te):
        turn = units.radians_per_ppm(te, clean.f0) * clean.truth['total_field']
        error = wrap(clean.phase[..., echo] - turn - clean.truth['phase_offset'])[mask]
        assert np.abs(error).max() < 2e-3


def test_magnitude_decays_with_the_true_rate(clean):
    mask = clean.truth['mask']
    for echo, te in enumerate(clean.te):
        expected = clean.truth['s0'] * np.exp(-te * clean.truth['r2star'])
        np.testing.assert_allclose(clean.magnitude[mask, echo], expected[mask], rtol=1e-3)


def test_fields_add_up(clean):
    truth = clean.truth
    np.testing.assert_allclose(
        truth['total_field'], truth['local_field'] + truth['background_field'], atol=1e-5
    )
    np.testing.assert_allclose(truth['chi'], truth['chi_para'] + truth['chi_dia'], atol=1e-6)
    assert (truth['chi'][~truth['mask']] == 0).all()


def test_local_field_is_that_of_the_true_susceptibility(clean):
    predicted = forward_field(clean.truth['chi'], clean.voxel_size, b0_dir=clean.b0_dir, pad=6)
    mask = clean.truth['mask']
    error = predicted[mask] - clean.truth['local_field'][mask]
    # The truth is averaged from a finer grid: at 4 mm that is an eighth of its spread.
    assert error.std() < 0.2 * clean.truth['local_field'][mask].std()


def test_background_is_harmonic_inside_the_brain(clean):
    """The sources of the background lie outside, so that its Laplacian vanishes within."""
    from scipy import ndimage

    core = ndimage.binary_erosion(clean.truth['mask'], iterations=4)
    laplacian = ndimage.laplace(clean.truth['background_field'].astype(float))
    local = ndimage.laplace(clean.truth['local_field'].astype(float))
    assert np.median(np.abs(laplacian[core])) < 0.05 * np.median(np.abs(local[core]))


def test_shim_takes_out_what_is_smooth():
    head = make_head(voxel_size=16.0, seed=1)
    options = {'voxel_size': 8.0, 'dephasing': False, 'snr': float('inf')}
    scan, raw = (simulate_gre(head, shim=shim, **options) for shim in (True, False))
    mask = scan.truth['mask']
    assert scan.truth['total_field'][mask].std() < 0.7 * raw.truth['total_field'][mask].std()
    assert abs(scan.truth['total_field'][mask].mean()) < 0.02
    np.testing.assert_array_equal(scan.truth['local_field'], raw.truth['local_field'])


def test_noise_has_the_stated_level():
    noisy, clean = small_acquisition(), small_acquisition(snr=float('inf'))
    white = clean.truth['labels'] == tissues.WHITE.label
    level = clean.magnitude[white, 0].mean()
    assert level == pytest.approx(1000, rel=1e-3)
    for echo in (0, -1):
        signal = noisy.magnitude[..., echo] * np.exp(1j * noisy.phase[..., echo])
        true = clean.magnitude[..., echo] * np.exp(1j * clean.phase[..., echo])
        noise = signal - true
        assert noise.real.std() == pytest.approx(1000 / 60, rel=0.02)
        assert noise.imag.std() == pytest.approx(1000 / 60, rel=0.02)
    assert clean.magnitude[white, -1].mean() * 60 / 1000 == pytest.approx(37, abs=2)


def test_same_seed_same_scan_and_range_of_the_phase():
    options = {'shape': (24, 28, 24), 'voxel_size': 8.0}
    first = small_acquisition(**options)
    small_acquisition.cache_clear()
    again = small_acquisition(**options)
    np.testing.assert_array_equal(first.phase, again.phase)
    np.testing.assert_array_equal(first.magnitude, again.magnitude)
    assert first.phase.dtype == first.magnitude.dtype == np.float32
    assert first.phase.min() >= -np.pi
    assert first.phase.max() < np.pi
    head = make_head(voxel_size=16.0, seed=1)
    other = simulate_gre(
        head, voxel_size=8.0, shape=(24, 28, 24), dephasing=False, seed=2, phase_offset=False
    )
    assert not np.allclose(other.magnitude, first.magnitude)
    assert (other.truth['phase_offset'] == 0).all()
    np.testing.assert_array_equal(other.truth['chi'], first.truth['chi'])


def test_shared_arrays_are_read_only():
    with pytest.raises(ValueError, match='read-only'):
        small_acquisition().phase[0] = 0


def test_oblique_field_has_its_direction():
    scan = small_acquisition(
        rotation_deg=(-40.0, 0.0, 0.0), snr=float('inf'), shape=(32, 37, 32), voxel_size=6.0
    )
    assert scan.b0_dir == pytest.approx((0, -np.sin(np.deg2rad(40)), np.cos(np.deg2rad(40))))
    predicted = forward_field(scan.truth['chi'], scan.voxel_size, b0_dir=scan.b0_dir, pad=6)
    wrong = forward_field(scan.truth['chi'], scan.voxel_size, b0_dir=(0, 0, 1), pad=6)
    mask, truth = scan.truth['mask'], scan.truth['local_field']
    assert (predicted - truth)[mask].std() < 0.5 * (wrong - truth)[mask].std()


@pytest.mark.parametrize('axes', ['LPS', 'PSR', 'AIR'])
def test_other_axes_show_the_same_head(axes):
    options = {'shape': (24, 28, 24), 'voxel_size': 8.0, 'snr': float('inf')}
    straight, turned = (small_acquisition(axes=a, **options) for a in ('RAS', axes))
    back = np.linalg.inv(straight.affine) @ turned.affine
    index = np.indices(turned.truth['mask'].shape).reshape(3, -1)
    place = np.rint(back[:3, :3] @ index + back[:3, 3:]).astype(int)
    for key, tolerance in (('chi', 1e-4), ('labels', 0), ('local_field', 1e-3)):
        expected = straight.truth[key][tuple(place)].reshape(turned.truth[key].shape)
        error = np.abs(turned.truth[key].astype(float) - expected)[turned.truth['mask']]
        assert np.percentile(error, 99.5) <= tolerance, key


def test_impossible_requests_are_refused():
    head = make_head(voxel_size=16.0)
    with pytest.raises(ValueError, match='rise'):
        simulate_gre(head, te=(0.01, 0.005))
    with pytest.raises(ValueError, match='look like ms'):
        simulate_gre(head, te=(5, 10))
    with pytest.raises(ValueError, match='axes'):
        simulate_gre(head, axes='RAL')
    with pytest.raises(ValueError, match='oversampling'):
        simulate_gre(head, oversampling=1.5)


def test_field_strength_scales_frequency_and_relaxation():
    options = {'shape': (24, 28, 24), 'voxel_size': 8.0, 'snr': float('inf')}
    low, high = (small_acquisition(field_strength=t, **options) for t in (3.0, 7.0))
    assert high.f0 == pytest.approx(low.f0 * 7 / 3)
    np.testing.assert_allclose(low.truth['local_field'], high.truth['local_field'], atol=1e-6)
    white = low.truth['labels'] == tissues.WHITE.label
    ratio = high.truth['r2star'][white].mean() / low.truth['r2star'][white].mean()
    assert 1.5 < ratio < 2.2


def test_bipolar_readout_tilts_even_echoes_only():
    head = make_head(voxel_size=16.0, seed=1)
    options = {'voxel_size': 6.0, 'dephasing': False, 'snr': float('inf'), 'seed': 1}
    plain, bipolar = simulate_gre(head, **options), simulate_gre(head, bipolar=0.8, **options)
    difference = wrap(bipolar.phase - plain.phase)
    mask = plain.truth['mask']
    assert np.abs(difference[mask][:, ::2]).max() < 1e-4
    n = mask.shape[0]
    ramp = 0.8 * ((2 * np.arange(n) + 1) / n - 1)
    expected = np.broadcast_to(ramp[:, None, None], mask.shape)[mask]
    np.testing.assert_allclose(difference[mask][:, 1], expected, atol=1e-3)


class TestFineGrid:
    def test_both_grids_span_the_same_field_of_view(self):
        affine = centred_affine((10, 12, 8), (2.0, 2.0, 3.0), (10, 5, 0))
        grid = FineGrid.make((10, 12, 8), affine, 3)
        assert grid.shape == (30, 36, 24)
        for corner in (np.zeros(3), np.array([1, 1, 1]), np.array([1, 0, 0])):
            coarse, fine = (corner * n - 0.5 for n in ((10, 12, 8), grid.shape))
            np.testing.assert_allclose(
                affine[:3, :3] @ coarse + affine[:3, 3],
                grid.affine[:3, :3] @ fine + grid.affine[:3, 3],
                atol=1e-9,
            )

    @pytest.mark.parametrize('factor', [1, 2, 3])
    def test_average(self, factor):
        random = np.random.default_rng(0)
        grid = FineGrid.make((4, 6, 8), np.eye(4), factor)
        data = random.random(grid.shape, np.float32)
        blocks = data.reshape(4, factor, 6, factor, 8, factor)
        np.testing.assert_allclose(grid.average(data), blocks.mean(axis=(1, 3, 5)), rtol=1e-5)

    @pytest.mark.parametrize('factor', [2, 3])
    @pytest.mark.parametrize('n', [9, 10])
    def test_cropped_kspace_is_that_of_the_fine_signal(self, n, factor):
        """A wave below the scan's band is kept at the scan's voxel centres, one above is lost."""
        grid = FineGrid.make((n, n + 1, n + 2), np.eye(4), factor)
        for axis in range(3):
            m, fine = grid.coarse_shape[axis], grid.shape[axis]
            for number in (3, -4, m // 2 + 1, -(m // 2) - 2):
                shape = [1, 1, 1]
                shape[axis] = -1
                wave = np.exp(2j * np.pi * number * (np.arange(fine) + 0.5) / fine)
                signal = (wave.reshape(shape) * np.ones(grid.shape)).astype(np.complex64)
                kept = grid.crop_kspace(signal)
                expected = np.exp(2j * np.pi * number * (np.arange(m) + 0.5) / m)
                expected = expected * (abs(number) <= m // 2)
                np.testing.assert_allclose(
                    kept, expected.reshape(shape) * np.ones(grid.coarse_shape), atol=1e-5
                )

    def test_a_real_signal_stays_real(self):
        grid = FineGrid.make((6, 8, 10), np.eye(4), 2)
        real = np.random.default_rng(1).random(grid.shape).astype(np.complex64)
        assert np.abs(grid.crop_kspace(real).imag).max() < 1e-5

    def test_orient_keeps_the_place_of_every_voxel(self):
        affine = centred_affine((3, 4, 5), (1.0, 2.0, 3.0), (10, 20, 30))
        shape, turned = orient((3, 4, 5), affine, 'PIL')
        assert shape == (4, 5, 3)
        first = turned @ [0, 0, 0, 1]
        np.testing.assert_allclose(first, affine @ [2, 3, 4, 1], atol=1e-9)


def test_t1w_contrast_and_position():
    head = make_head(voxel_size=16.0, seed=1)
    moved = make_head(voxel_size=16.0, seed=1, pose=Pose((12.0, 0, 0), (5.0, 0, 0)))
    image, other = (simulate_t1w(h, voxel_size=4.0) for h in (head, moved))
    labels = make_head(voxel_size=4.0, seed=1).labels
    white, grey, csf = (image.data[labels == k].mean() for k in (30, 31, 32))
    assert white > 1.15 * grey > 1.5 * csf
    assert np.corrcoef(image.data.ravel(), other.data.ravel())[0, 1] < 0.95


def test_dephasing_lowers_the_signal_where_the_field_is_steep():
    whole = small_acquisition(snr=float('inf'))
    dephased = small_acquisition(snr=float('inf'), dephasing=True)
    mask = whole.truth['mask']
    ratio = (dephased.magnitude / np.maximum(whole.magnitude, 1e-6))[mask]
    steep = np.linalg.norm(np.gradient(whole.truth['total_field']), axis=0)[mask]
    worst, best = steep > np.percentile(steep, 98), steep < np.median(steep)
    assert np.median(ratio[worst, -1]) < 0.8 < 0.95 < np.median(ratio[best, -1])
