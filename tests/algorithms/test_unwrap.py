import nibabel as nib
import numpy as np
import pytest

from qsmflow.algorithms.phase import remove_phase_offset, wrap
from qsmflow.algorithms.unwrap import check_echoes, laplacian, romeo, voxel_quality
from tests.realdata import real_data

TURN = 2 * np.pi
SHAPE = (24, 26, 22)
TE = np.array([0.004, 0.010, 0.016])


def grid(shape=SHAPE):
    return np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing='ij')


def scan(field, te=TE, snr=None, seed=0):
    """Return wrapped phase and magnitude of a field in rad/s."""
    signal = np.exp(1j * field[..., None] * te)
    if snr:
        rng = np.random.default_rng(seed)
        signal = (
            signal + (rng.normal(size=signal.shape) + 1j * rng.normal(size=signal.shape)) / snr
        )
    return np.angle(signal).astype(np.float32), np.abs(signal).astype(np.float32)


def field_of_many_wraps():
    x, y, z = grid()
    return 2500 * np.exp(-3 * (x**2 + y**2 + z**2)) + 300 * x


def turns(unwrapped, reference, region):
    return ((unwrapped - reference) / TURN)[region]


@pytest.mark.parametrize('shape', ['ramp', 'quadratic', 'peak'])
def test_romeo_returns_truth_plus_one_multiple(shape):
    x, y, z = grid()
    truth = {
        'ramp': 25 * x + 9 * z,
        'quadratic': 12 * (x**2 - y**2),
        'peak': 12 * np.exp(-2 * z**2),
    }
    truth = truth[shape][..., None]
    region = np.ones(SHAPE, bool)
    found = turns(romeo(wrap(truth), None, region, (1, 1, 1), te=[0.01]), truth, region)
    np.testing.assert_allclose(found, np.rint(found.flat[0]), atol=1e-5)


@pytest.mark.parametrize('individual', [False, True])
def test_romeo_unwraps_all_echoes_at_low_snr(individual):
    field = field_of_many_wraps()
    phase, magnitude = scan(field, snr=20)
    x, y, z = grid()
    region = x**2 + y**2 + z**2 < 0.95
    found = romeo(phase, magnitude, region, (1, 1, 1), te=TE, individual=individual)
    for j, t in enumerate(TE):
        off = np.rint(turns(found[..., j], field * t, region))
        assert np.mean(off != np.median(off)) < 1e-3
        assert np.ptp(field[region] * t) > TURN  # else there would be nothing to unwrap
    assert not found[~region].any()


def test_romeo_is_exact_and_deterministic_for_any_input():
    rng = np.random.default_rng(1)
    phase = rng.uniform(-np.pi, np.pi, (*SHAPE, 3)).astype(np.float32)
    magnitude = rng.uniform(0, 1, phase.shape).astype(np.float32)
    region = rng.random(SHAPE) < 0.7
    first = romeo(phase, magnitude, region, (1, 1, 1), te=TE)
    found = turns(first, phase, region)
    np.testing.assert_allclose(found, np.rint(found), atol=1e-5)
    np.testing.assert_array_equal(first, romeo(phase, magnitude, region, (1, 1, 1), te=TE))


def test_romeo_later_echoes_lie_within_half_a_turn_of_the_template():
    phase, magnitude = scan(field_of_many_wraps(), snr=10)
    found = romeo(phase, magnitude, np.ones(SHAPE, bool), (1, 1, 1), te=TE, template=1)
    for j in (0, 2):
        assert np.abs(found[..., j] - found[..., 1] * TE[j] / TE[1]).max() <= np.pi + 1e-3


def test_romeo_does_not_depend_on_order_of_axes():
    phase, magnitude = scan(field_of_many_wraps(), snr=30)
    region = np.ones(SHAPE, bool)
    found = romeo(phase, magnitude, region, (1, 1, 1), te=TE)
    order = (2, 0, 1, 3)
    other = romeo(
        phase.transpose(order),
        magnitude.transpose(order),
        region.transpose(2, 0, 1),
        (1, 1, 1),
        te=TE,
    )
    # Ties between edges may be broken otherwise; that may not matter but in noise.
    assert np.mean(np.abs(other - found.transpose(order)) > 1) < 1e-3


@pytest.mark.parametrize('te', [(0.004, 0.0098, 0.0163), (0.004, 0.008, 0.012)])
def test_romeo_aligns_parts_that_do_not_touch(te):
    te = np.array(te)
    x, _, _ = grid()
    # The second part lies more than half a turn (first echo) above the first one.
    field = np.where(x > 0, 700.0, -150.0)
    phase, magnitude = scan(field, te=te, snr=50)
    region = np.abs(x) > 0.2
    region[: SHAPE[0] // 2, :2] = False
    found = romeo(phase, magnitude, region, (1, 1, 1), te=te)
    misfit = (found[..., 0] - field * te[0])[region]
    if te[1] != 2 * te[0]:
        # Uneven spacing: the later echoes tell the multiple.
        assert np.abs(misfit).max() < 1
    else:
        # Even spacing cannot tell, so the smaller step is taken.
        steps = [np.median(found[region & side, 0]) for side in (x > 0, x < 0)]
        assert abs(steps[0] - steps[1]) <= np.pi


def test_romeo_uses_the_magnitude_to_keep_off_bad_paths():
    # A sheet of noise cuts the volume but for a bridge with signal.
    x, y, _ = grid()
    field = 1500 * y + 400 * x
    phase, magnitude = scan(field, snr=60)
    sheet = (np.abs(x) < 0.2) & (y > -0.6)
    rng = np.random.default_rng(3)
    phase[sheet] = rng.uniform(-np.pi, np.pi, phase[sheet].shape)
    magnitude[sheet] = 0.02
    good = ~sheet
    off = np.rint(
        turns(romeo(phase, magnitude, good | sheet, (1, 1, 1), te=TE)[..., 0], field * TE[0], good)
    )
    assert np.mean(off != np.median(off)) < 1e-3


def test_nan_and_zero_magnitude_do_not_spread():
    field = field_of_many_wraps()
    phase, magnitude = scan(field)
    phase[5, 5, 5, 0] = np.nan
    phase[8, 8, 8, 2] = np.inf
    magnitude[10, 10, 10] = 0
    magnitude[11, 11, 11] = np.nan
    region = np.ones(SHAPE, bool)
    found = romeo(phase, magnitude, region, (1, 1, 1), te=TE)
    assert np.isnan(found[5, 5, 5]).all()
    assert not np.isfinite(found[8, 8, 8, 2])
    rest = np.isfinite(found)
    assert np.count_nonzero(~rest) == 4
    off = ((found - field[..., None] * TE) / TURN)[rest]
    np.testing.assert_allclose(off, np.rint(off), atol=1e-4)
    first = turns(found[..., 0], field * TE[0], rest[..., 0])
    np.testing.assert_allclose(first, np.rint(first[0]), atol=1e-4)


@pytest.mark.parametrize('unwrap', [romeo, laplacian])
def test_inputs_stay_and_an_empty_mask_gives_zeros(unwrap):
    phase, magnitude = scan(field_of_many_wraps(), snr=30)
    before = phase.copy(), magnitude.copy()
    region = np.ones(SHAPE, bool)
    found = unwrap(phase, magnitude, region, (1, 1, 1), te=TE)
    np.testing.assert_array_equal(phase, before[0])
    np.testing.assert_array_equal(magnitude, before[1])
    assert found.dtype == np.float32
    assert not unwrap(phase, magnitude, ~region, (1, 1, 1), te=TE).any()


def test_laplacian_follows_a_smooth_field_in_the_mask():
    x, y, z = grid()
    field = 1200 * np.exp(-3 * (x**2 + y**2 + z**2)) + 200 * x
    phase, magnitude = scan(field, snr=100)
    region = np.ones(SHAPE, bool)
    found = laplacian(phase, magnitude, region, (1.0, 1.2, 0.9), te=TE)
    inner = (slice(3, -3),) * 3
    for j, t in enumerate(TE):
        misfit = (found[..., j] - field * t)[inner]
        assert np.corrcoef(found[..., j][inner].ravel(), field[inner].ravel())[0, 1] > 0.995
        assert np.std(misfit) < 0.06 * np.std(field[inner] * t)
    assert not laplacian(phase, magnitude, x > 0.5, (1, 1, 1), te=TE)[x <= 0.5].any()


def test_voxel_quality_ranks_signal_above_noise():
    phase, magnitude = scan(field_of_many_wraps() / 5, snr=40)
    x, _, _ = grid()
    noise = x > 0.3
    rng = np.random.default_rng(2)
    phase[noise] = rng.uniform(-np.pi, np.pi, phase[noise].shape)
    quality = voxel_quality(phase, magnitude, np.ones(SHAPE, bool), te=TE)
    assert quality.min() >= 0
    assert quality.max() <= 1
    assert np.percentile(quality[x < 0.1], 2) > np.percentile(quality[x > 0.5], 98)
    # A voxel without neighbours in the mask has no edge.
    single = np.zeros(SHAPE, bool)
    single[3, 3, 3] = True
    assert not voxel_quality(phase, magnitude, single, te=TE).any()


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'te': [0.01, 0.01, 0.02]}, 'increasing'),
        ({'te': [0.01, 0.02]}, 'te names 2'),
        ({'te': [-0.01, 0.01, 0.02]}, 'positive'),
        ({'te': [0.01, np.nan, 0.02]}, 'positive'),
        ({'mask': np.ones((3, 3, 4), bool)}, 'not on the grid'),
        ({'magnitude': np.ones((3, 3, 3, 2))}, 'differ'),
        ({'phase': np.ones((3, 3, 3))}, 'echo last'),
    ],
)
def test_check_echoes_names_the_contradiction(change, message):
    shape = (3, 3, 3)
    arguments = {
        **{'phase': np.ones((*shape, 3)), 'magnitude': np.ones((*shape, 3))},
        **{'mask': np.ones(shape, bool), 'te': TE},
    }
    with pytest.raises(ValueError, match=message):
        check_echoes(**{**arguments, **change})


def test_unknown_template_is_an_error():
    with pytest.raises(ValueError, match='template'):
        romeo(
            np.zeros((3, 3, 3, 1)), None, np.ones((3, 3, 3), bool), (1, 1, 1), te=[1], template=1
        )


@pytest.mark.realdata
def test_real_echoes_agree_better_than_with_quality_guided_unwrapping():
    restoration = pytest.importorskip('skimage.restoration')
    folder = real_data('romeo-7t-crop')
    phase = np.asarray(nib.load(folder / 'small_Phase.nii.gz').dataobj, np.float32)
    magnitude = np.asarray(nib.load(folder / 'small_Mag.nii.gz').dataobj, np.float32)
    # The extremes of the stored values stand for -pi and pi.
    phase = wrap(phase * np.float32(np.pi / np.abs(phase).max()))
    te, size = np.array([0.004, 0.008, 0.012]), (0.46875, 0.46875, 1.0)
    region = np.ones(phase.shape[:3], bool)
    phase, _ = remove_phase_offset(phase, magnitude, region, size, te=te)
    found = romeo(phase, magnitude, region, size, te=te)
    whole = turns(found, phase, region)
    np.testing.assert_allclose(whole, np.rint(whole), atol=1e-5)
    other = np.stack([restoration.unwrap_phase(phase[..., j], rng=0) for j in range(3)], axis=-1)
    for a, b in ((0, 1), (1, 2), (0, 2)):
        ours, theirs = (np.abs(disagreement(u, te, a, b)) for u in (found, other))
        assert ours.mean() <= theirs.mean() + 1e-6
        assert np.median(ours) <= np.median(theirs) + 1e-6
        assert np.count_nonzero(ours > np.pi) <= np.count_nonzero(theirs > np.pi)
        assert np.mean(ours > np.pi) < 1e-4


def disagreement(unwrapped, te, a, b):
    """Return what the linear model of the phase leaves, without the constant."""
    misfit = unwrapped[..., b] - unwrapped[..., a] * te[b] / te[a]
    return misfit - np.median(misfit)
