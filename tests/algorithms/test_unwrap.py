from functools import partial

import nibabel as nib
import numpy as np
import pytest

from qsmflow.algorithms.phase import wrap
from qsmflow.algorithms.phase_offset import remove_phase_offset
from qsmflow.algorithms.unwrap import (
    best_path,
    check_echoes,
    laplacian,
    quality_map,
    romeo,
    second_difference_reliability,
)
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


@pytest.mark.parametrize('unwrap', [romeo, best_path])
@pytest.mark.parametrize('shape', ['ramp', 'quadratic', 'peak'])
def test_result_is_truth_plus_one_multiple(shape, unwrap):
    x, y, z = grid()
    truth = {
        'ramp': 25 * x + 9 * z,
        'quadratic': 12 * (x**2 - y**2),
        'peak': 12 * np.exp(-2 * z**2),
    }
    truth = truth[shape][..., None]
    region = np.ones(SHAPE, bool)
    found = turns(unwrap(wrap(truth), None, region, (1, 1, 1), te=[0.01]), truth, region)
    np.testing.assert_allclose(found, np.rint(found.flat[0]), atol=1e-5)


@pytest.mark.parametrize('individual', [False, True])
@pytest.mark.parametrize('unwrap', [romeo, best_path])
def test_all_echoes_are_unwrapped_at_low_snr(unwrap, individual):
    # By itself, without the other echoes, best_path needs steps below half a turn.
    field = field_of_many_wraps() / (2 if individual else 1)
    phase, magnitude = scan(field, snr=20)
    x, y, z = grid()
    region = x**2 + y**2 + z**2 < 0.95
    found = unwrap(phase, magnitude, region, (1, 1, 1), te=TE, individual=individual)
    for j, t in enumerate(TE):
        off = np.rint(turns(found[..., j], field * t, region))
        assert np.mean(off != np.median(off)) < 1e-3
    assert np.ptp(field[region] * TE[-1]) > 3 * TURN  # else there would be nothing to unwrap
    assert not found[~region].any()


EXACT = {
    'romeo': romeo,
    'best_path': best_path,
    **{
        f'{weights} {seeds}': partial(romeo, edge_weights=weights, max_seeds=seeds)
        for weights, seeds in (('romeo2', 1), ('romeo3', 3), ('romeo6', 50), ('001000', 8))
    },
}


@pytest.mark.parametrize('individual', [False, True])
@pytest.mark.parametrize('method', EXACT)
def test_result_is_exact_and_deterministic_for_any_input(method, individual, monkeypatch):
    rng = np.random.default_rng(1)
    # Beyond one turn as well: phase need not come wrapped.
    phase = rng.uniform(-9, 9, (*SHAPE, 3)).astype(np.float32)
    magnitude = rng.uniform(0, 1, phase.shape).astype(np.float32)
    region = rng.random(SHAPE) < 0.7
    unwrap = partial(EXACT[method], te=TE, individual=individual)
    first = unwrap(phase, magnitude, region, (1, 1, 1))
    found = turns(first, phase, region)
    np.testing.assert_allclose(found, np.rint(found), atol=1e-5)
    assert np.ptp(np.rint(found)) > 1
    assert not first[~region].any()
    monkeypatch.setenv('OMP_NUM_THREADS', '1')
    np.testing.assert_array_equal(first, unwrap(phase, magnitude, region, (1, 1, 1)))
    other = [np.asfortranarray(a) for a in (phase, magnitude, region)]
    np.testing.assert_array_equal(first, unwrap(*other, (1, 1, 1)))


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


@pytest.mark.parametrize('unwrap', [romeo, best_path, laplacian])
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


def reference_weights(phase, other, ratio, magnitude, axis):
    """Return the six terms of the edges along an axis, from their formulas."""
    p, q, m = (np.moveaxis(v.astype(float), axis, 0) for v in (phase, other, magnitude))
    step = wrap(np.diff(p, axis=0))
    bend = np.full(p.shape, np.nan)
    bend[1:-1] = 1 - np.abs(wrap(p[:-2] - 2 * p[1:-1] + p[2:])) / 2
    bend = np.maximum(bend, 0)
    low, high = np.minimum(m[1:], m[:-1]), np.maximum(m[1:], m[:-1])
    middle = np.percentile(m, 95) / 2
    terms = [
        1 - np.abs(step) / np.pi,
        np.maximum(0, 1 - np.abs(step - ratio * wrap(np.diff(q, axis=0)))),
        np.nan_to_num(bend[:-1] * bend[1:], nan=0.9),
        (low / high) ** 2,
        0.5 + 0.5 * np.minimum(1, low / middle),
        0.5 + 0.5 * np.minimum(1, middle / high),
    ]
    return [0.1 + 0.9 * term for term in terms]


@pytest.mark.parametrize(
    ('edge_weights', 'on'),
    [('romeo', 4), ('romeo6', 6), ('romeo2', (0, 3)), ('romeo3', (0, 1, 3)), ('001001', (2, 5))],
)
def test_quality_is_the_mean_of_the_formulas(edge_weights, on):
    phase, magnitude = scan(field_of_many_wraps() / 4, snr=8)
    region = np.ones(SHAPE, bool)
    quality = quality_map(phase, magnitude, region, TE, template=1, edge_weights=edge_weights)
    total, count = np.zeros(SHAPE), np.zeros(SHAPE)
    for axis in range(3):
        images = phase[..., 1], phase[..., 2], TE[1] / TE[2], magnitude[..., 1]
        terms = reference_weights(images[0], images[1], images[2], images[3], axis)
        weight = np.prod([terms[i] for i in (range(on) if isinstance(on, int) else on)], axis=0)
        for part in (slice(1, None), slice(None, -1)):
            np.moveaxis(total, axis, 0)[part] += weight
            np.moveaxis(count, axis, 0)[part] += 1
    # A cost is one of 254 levels.
    np.testing.assert_allclose(quality, total / count, atol=0.5 / 254 + 1e-4)


def second_differences(phase):
    """Return the 13 squared second differences, summed, of the inner voxels."""
    total = 0
    inner = phase[1:-1, 1:-1, 1:-1]
    for step in np.ndindex(3, 3, 3):
        if step > (1, 1, 1):
            ends = [
                phase[tuple(slice(1 + sign * (s - 1), n - 1 + sign * (s - 1)) for s, n in axes)]
                for sign in (-1, 1)
                for axes in [list(zip(step, phase.shape, strict=True))]
            ]
            total = total + (wrap(ends[0] - inner) - wrap(inner - ends[1])) ** 2
    return total


def test_reliability_is_the_inverse_of_the_second_differences():
    phase, _ = scan(field_of_many_wraps() / 4, snr=8)
    region = np.ones(SHAPE, bool)
    region[5, 6, 7] = False
    found = second_difference_reliability(phase, region, echo=1)
    expected = 1 / np.sqrt(second_differences(phase[..., 1].astype(float)))
    inner = found[1:-1, 1:-1, 1:-1]
    whole = np.ones(inner.shape, bool)
    whole[3:6, 4:7, 5:8] = False
    np.testing.assert_allclose(inner[whole], expected[whole], rtol=1e-3)
    # Twelve of thirteen lines are left beside the hole, and stand for all.
    np.testing.assert_allclose(inner[3, 4, 5], expected[3, 4, 5], rtol=0.3)
    assert found[5, 6, 7] == 0
    assert found[0, 0, 0] == 0  # no line through a corner stays inside
    assert np.all(found[1:-1, 0, 1:-1] > 0)


def sorted_edges(phase):
    """Unwrap by joining groups of voxels along edges sorted by reliability, one by one."""
    reliability = np.zeros(phase.shape)
    reliability[1:-1, 1:-1, 1:-1] = 1 / np.sqrt(second_differences(phase))
    number = np.arange(phase.size).reshape(phase.shape)
    first, second = [], []
    for axis in range(3):
        along = np.moveaxis(number, axis, 0)
        first.append(along[:-1].ravel())
        second.append(along[1:].ravel())
    first, second = np.concatenate(first), np.concatenate(second)
    values, reliability = phase.ravel().copy(), reliability.ravel()
    group = np.arange(phase.size)
    members = {n: [n] for n in range(phase.size)}
    for edge in np.argsort(-(reliability[first] + reliability[second]), kind='stable'):
        a, b = first[edge], second[edge]
        if group[a] != group[b]:
            if len(members[group[a]]) < len(members[group[b]]):
                a, b = b, a
            moved = members.pop(group[b])
            values[moved] += TURN * np.rint((values[a] - values[b]) / TURN)
            group[moved] = group[a]
            members[group[a]] += moved
    return values.reshape(phase.shape)


def test_best_path_agrees_with_sorted_edges():
    x, y, z = grid((16, 15, 14))
    truth = 14 * np.exp(-4 * (x**2 + y**2 + z**2)) + 4 * x
    region, inner = np.ones(truth.shape, bool), (slice(2, -2),) * 3
    for seed in range(3):
        phase, _ = scan(truth / TE[0], te=TE[:1], snr=2, seed=seed)
        joined = sorted_edges(phase[..., 0].astype(float))
        same = {}
        for name in ('bestpath', '100000'):
            found = romeo(phase, None, region, (1, 1, 1), te=TE[:1], edge_weights=name)
            off = np.rint((found[..., 0] - joined)[inner] / TURN)
            same[name] = np.mean(off == np.median(off))
        # Ties and the border are all that tells the two apart.
        assert same['bestpath'] > 0.98 > same['100000']


def test_edge_weights_use_what_they_name():
    phase, magnitude = scan(field_of_many_wraps(), snr=5)
    region = np.ones(SHAPE, bool)

    def first_echo(edge_weights, other=phase[..., 1], strength=magnitude):
        both = np.stack([phase[..., 0], other], axis=-1)
        strength = None if strength is None else strength[..., :2]
        return quality_map(both, strength, region, TE[:2], edge_weights=edge_weights)

    for same in ('romeo4', '111100'):
        np.testing.assert_array_equal(first_echo('romeo'), first_echo(same))
    # Terms without data are left out.
    np.testing.assert_array_equal(
        first_echo('romeo6', strength=None), first_echo('111000', strength=None)
    )
    for name, sees_echo, sees_magnitude in (
        ('romeo2', False, True), ('romeo3', True, True), ('111000', True, False),
        ('bestpath', False, False),
    ):  # fmt: skip
        changed = np.any(first_echo(name) != first_echo(name, other=phase[::-1, ..., 1]))
        assert changed == sees_echo
        changed = np.any(first_echo(name) != first_echo(name, strength=magnitude[::-1]))
        assert changed == sees_magnitude
    same = partial(romeo, phase, magnitude, region, (1, 1, 1), te=TE)
    np.testing.assert_array_equal(
        same(edge_weights='bestpath'), best_path(phase, magnitude, region, (1, 1, 1), te=TE)
    )


def test_regions_of_several_seeds_are_joined_by_the_vote_of_their_border():
    # All edges between the halves climb 2.4 rad, but for two over one bad voxel between them,
    # which climb the same less a turn, in two steps that are each smaller than 2.4.
    phase = np.where(np.arange(20) < 10, 0.0, 2.4)[:, None, None] * np.ones((20, 9, 9))
    phase[9, 4, 4] = 1.2 - np.pi
    region = np.ones(phase.shape, bool)
    steps = {}
    for seeds in (1, 2, 6):
        found = romeo(
            wrap(phase)[..., None],
            *(None, region, (1, 1, 1)),
            te=[0.01],
            edge_weights='100000',
            max_seeds=seeds,
        )[..., 0]
        steps[seeds] = found[15, 0, 0] - found[2, 0, 0]
    assert steps[1] == pytest.approx(2.4 - TURN, abs=1e-4)
    assert steps[2] == steps[6] == pytest.approx(2.4, abs=1e-4)


@pytest.mark.parametrize('max_seeds', [1, 4, 40])
@pytest.mark.parametrize('individual', [False, True])
def test_parts_that_do_not_touch_follow_the_other_echoes(max_seeds, individual):
    x, y, _ = grid()
    te = np.array([0.004, 0.0098, 0.0163])
    field = np.where(x > 0, 700.0, -150.0) + 400 * y
    phase, magnitude = scan(field, te=te, snr=30)
    region = np.abs(x) > 0.2
    found = romeo(
        phase, magnitude, region, (1, 1, 1), te=te, max_seeds=max_seeds, individual=individual
    )
    for j, t in enumerate(te):
        off = np.rint(turns(found[..., j], field * t, region))
        assert np.mean(off != 0) < 1e-3


@pytest.mark.parametrize('individual', [False, True])
@pytest.mark.parametrize('unwrap', [romeo, best_path, partial(romeo, max_seeds=5)])
def test_small_and_unknown_regions(unwrap, individual):
    phase, magnitude = scan(field_of_many_wraps(), snr=30)
    unwrap = partial(unwrap, te=TE, individual=individual)
    voxel = np.zeros(SHAPE, bool)
    voxel[0, -1, 3] = True
    found = unwrap(phase, magnitude, voxel, (1, 1, 1))
    np.testing.assert_allclose(found[voxel][0, 0], phase[voxel][0, 0], atol=1e-5)
    plane = np.zeros(SHAPE, bool)
    plane[:, :, 7] = True
    off = turns(unwrap(phase, magnitude, plane, (1, 1, 1)), phase, plane)
    np.testing.assert_allclose(off, np.rint(off), atol=1e-5)
    unknown = phase.copy()
    unknown[..., 0] = np.nan
    found = unwrap(unknown, magnitude, plane, (1, 1, 1))
    assert np.isnan(found[plane]).all()
    assert not found[~plane].any()
    unknown = phase.copy()
    unknown[..., 1] = np.inf
    found = unwrap(unknown, magnitude, plane, (1, 1, 1))
    assert np.isfinite(found[plane][:, [0, 2]]).all()
    assert np.isnan(found[plane][:, 1]).all()


def test_quality_map_ranks_signal_above_noise():
    phase, magnitude = scan(field_of_many_wraps() / 5, snr=40)
    x, _, _ = grid()
    noise = x > 0.3
    rng = np.random.default_rng(2)
    phase[noise] = rng.uniform(-np.pi, np.pi, phase[noise].shape)
    quality = quality_map(phase, magnitude, np.ones(SHAPE, bool), te=TE)
    assert quality.min() >= 0
    assert quality.max() <= 1
    assert np.percentile(quality[x < 0.1], 2) > np.percentile(quality[x > 0.5], 98)
    # A voxel without neighbours in the mask has no edge.
    single = np.zeros(SHAPE, bool)
    single[3, 3, 3] = True
    assert not quality_map(phase, magnitude, single, te=TE).any()


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


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'template': 1}, 'template must be an echo index in 0..0; got 1'),
        ({'edge_weights': 'romeo5'}, "edge_weights must be one of romeo, .*; got 'romeo5'"),
        ({'edge_weights': '1211'}, "got '1211'"),
        ({'max_seeds': 0}, 'max_seeds must be a whole number, 1 or more; got 0'),
    ],
)
def test_wrong_options_are_named(options, message):
    phase, region = np.zeros((3, 3, 3, 1)), np.ones((3, 3, 3), bool)
    with pytest.raises(ValueError, match=message):
        romeo(phase, None, region, (1, 1, 1), te=[1], **options)


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
