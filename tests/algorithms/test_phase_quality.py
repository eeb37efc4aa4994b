import numpy as np
import pytest

from qsmflow.algorithms.field.lines import weighted
from qsmflow.algorithms.field.sequential import sequential
from qsmflow.algorithms.phase_quality import singularities, unwrapping_failed
from qsmflow.units import radians_per_ppm

SHAPE = (12, 11, 10)
F0 = 127.732
#: Ratios of echo times: whole ones hide a wrong first echo from the residual.
TIMES = {'whole': np.array([0.004, 0.012, 0.020]), 'uneven': np.array([0.004, 0.010, 0.017])}


def vortex(axis, centre):
    """Return a phase that turns once about a line along ``axis``."""
    others = [a for a in range(3) if a != axis]
    u, v = (np.indices(SHAPE)[a] - c for a, c in zip(others, centre, strict=True))
    return np.arctan2(v, u)


def wrapped(phase):
    return np.angle(np.exp(1j * phase))


@pytest.mark.parametrize('axis', [0, 1, 2])
def test_a_vortex_is_one_loop_in_each_plane(axis):
    count = singularities(vortex(axis, (4.5, 5.5)), np.ones(SHAPE, bool))
    expected = np.zeros(SHAPE, np.uint8)
    block = [slice(4, 6), slice(5, 7)]
    block.insert(axis, slice(None))
    expected[tuple(block)] = 1
    assert count.dtype == np.uint8
    np.testing.assert_array_equal(count, expected)


def test_a_pair_of_vortices_in_one_plane():
    # Of opposite sign, three voxels apart along the first axis.
    phase = vortex(2, (2.5, 5.5)) - vortex(2, (5.5, 5.5))
    count = singularities(wrapped(phase), np.ones(SHAPE, bool))
    assert count.sum() == 4 * 2 * SHAPE[2]
    assert sorted(set(np.nonzero(count)[0])) == [2, 3, 5, 6]


def test_continuous_phase_has_none_however_steep_and_whether_wrapped_or_not():
    x, y, z = np.indices(SHAPE)
    phase = 2.5 * x - 1.9 * y + 0.005 * z**2 * x
    everywhere = np.ones(SHAPE, bool)
    assert not singularities(wrapped(phase), everywhere).any()
    assert not singularities(phase, everywhere).any()


def test_turns_do_not_matter():
    rng = np.random.default_rng(0)
    noise = rng.uniform(-np.pi, np.pi, SHAPE)
    turned = noise + 2 * np.pi * rng.integers(-3, 4, SHAPE)
    everywhere = np.ones(SHAPE, bool)
    np.testing.assert_array_equal(
        singularities(noise, everywhere), singularities(turned, everywhere)
    )


def test_noise_alone_makes_a_third_of_all_loops_singular():
    shape = (30, 30, 30)
    noise = np.random.default_rng(1).uniform(-np.pi, np.pi, shape)
    count = singularities(noise, np.ones(shape, bool))
    assert count.sum() / 4 / (3 * 29 * 29 * 30) == pytest.approx(1 / 3, abs=0.01)
    assert count.max() <= 12


@pytest.mark.parametrize(('snr', 'limit'), [(5, 0), (2, 0.02)])
def test_tissue_has_next_to_none(snr, limit):
    rng = np.random.default_rng(2)
    shape = (40, 40, 40)
    signal = 1 + (rng.normal(size=shape) + 1j * rng.normal(size=shape)) / snr
    count = singularities(np.angle(signal), np.ones(shape, bool))
    assert count.sum() / 4 <= limit * 3 * 40**3


@pytest.mark.parametrize('axis', [0, 1, 2])
def test_orientations_can_be_counted_alone_and_add_up(axis):
    noise = np.random.default_rng(3).uniform(-np.pi, np.pi, SHAPE)
    everywhere = np.ones(SHAPE, bool)
    parts = [singularities(noise, everywhere, axis=a) for a in range(3)]
    np.testing.assert_array_equal(sum(parts), singularities(noise, everywhere))
    assert parts[axis].max() <= 4
    alone = [
        singularities(np.take(noise, [i], axis), np.ones_like(np.take(noise, [i], axis)))
        for i in range(SHAPE[axis])
    ]
    np.testing.assert_array_equal(np.concatenate(alone, axis), parts[axis])


def test_only_loops_inside_the_mask_with_finite_phase_count():
    phase = vortex(2, (4.5, 5.5))
    mask = np.ones(SHAPE, bool)
    mask[4, 5, :4] = False
    phase[5, 6, 4:7] = np.nan
    before = phase.copy()
    count = singularities(phase, mask)
    np.testing.assert_array_equal(phase, before)
    assert not count[:, :, :7].any()
    assert count[:, :, 7:].sum() == 4 * 3


def test_one_voxel_and_bad_arguments():
    one = np.zeros(SHAPE, bool)
    one[3, 3, 3] = True
    assert not singularities(vortex(0, (3.5, 3.5)), one).any()
    with pytest.raises(ValueError, match='axis'):
        singularities(np.zeros(SHAPE), np.ones(SHAPE, bool), axis=3)
    with pytest.raises(ValueError, match='mask is empty'):
        singularities(np.zeros(SHAPE), np.zeros(SHAPE, bool))
    with pytest.raises(ValueError, match='grid'):
        singularities(np.zeros(SHAPE), np.ones((2, 2, 2), bool))


def scan(te):
    shape = (20, 20, 20)
    rng = np.random.default_rng(4)
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing='ij')
    field = 0.2 * x - 0.3 * y * z
    phase = radians_per_ppm(te, F0) * field[..., None] + 0.03 * rng.normal(size=(*shape, te.size))
    return phase, x**2 + y**2 + z**2 < 0.9


def judge(fit, phase, mask, te, **options):
    found = fit(phase, None, mask, (2, 2, 2), te=te, f0=F0)
    return unwrapping_failed(
        found.residual,
        mask,
        unwrapped_phase=phase,
        total_field=found.total_field,
        phase_offset=found.phase_offset,
        te=te,
        f0=F0,
        **options,
    )


@pytest.mark.parametrize('fit', [sequential, weighted])
@pytest.mark.parametrize('te', TIMES.values(), ids=TIMES)
def test_right_unwrapping_passes(fit, te):
    phase, mask = scan(te)
    failed, info = judge(fit, phase, mask, te)
    assert failed is False
    assert info == {'residual_share': 0.0, 'turn_share': 0.0, 'reason': ''}


@pytest.mark.parametrize('te', TIMES.values(), ids=TIMES)
def test_half_a_first_echo_off_by_a_turn_is_found(te):
    phase, mask = scan(te)
    phase[:10, ..., 0] += 2 * np.pi
    failed, info = judge(sequential, phase, mask, te)
    assert failed is True
    assert info['turn_share'] == pytest.approx(0.5, abs=0.05)
    assert 'most echoes are off by multiples of 2 pi' in info['reason']
    # The residual alone sees it only where the ratio of echo times is not whole.
    assert (info['residual_share'] > 0.4) is (te is TIMES['uneven'])


def test_a_late_echo_off_by_a_turn_fails_the_fit_that_it_harms():
    te = TIMES['whole']
    phase, mask = scan(te)
    phase[:10, ..., 1] -= 2 * np.pi
    failed, info = judge(weighted, phase, mask, te)
    assert failed
    assert 'residual exceeds 0.3' in info['reason']
    assert not judge(sequential, phase, mask, te)[0]


@pytest.mark.parametrize(('wrong', 'expected'), [(0.02, False), (0.2, True)])
def test_share_decides(wrong, expected):
    te = TIMES['whole']
    phase, mask = scan(te)
    rng = np.random.default_rng(5)
    phase[..., 0] += 2 * np.pi * (rng.random(mask.shape) < wrong)
    failed, info = judge(sequential, phase, mask, te)
    assert failed is expected
    assert info['turn_share'] == pytest.approx(wrong, abs=0.01)
    assert judge(sequential, phase, mask, te, share=0.5)[0] is False
    assert judge(sequential, phase, mask, te, share=0.001)[0] is True


def test_residual_alone():
    residual = np.zeros(SHAPE)
    residual[:3] = 0.4
    mask = np.ones(SHAPE, bool)
    failed, info = unwrapping_failed(residual, mask)
    assert failed
    assert info['turn_share'] is None
    assert info['residual_share'] == pytest.approx(0.25)
    assert not unwrapping_failed(residual, mask, largest=0.5)[0]
    mask[:3] = False
    assert not unwrapping_failed(residual, mask)[0]
    residual[3:8] = np.nan
    assert unwrapping_failed(residual, mask)[0]


def test_one_echo_has_no_turns_to_compare():
    te = np.array([0.01])
    phase, mask = scan(te)
    assert judge(sequential, phase, mask, te)[1]['turn_share'] is None


def test_bad_arguments_of_the_judgement():
    mask = np.ones(SHAPE, bool)
    zeros = np.zeros(SHAPE)
    for name, value in (('largest', 0.0), ('share', 1.0), ('share', np.nan)):
        with pytest.raises(ValueError, match=name):
            unwrapping_failed(zeros, mask, **{name: value})
    with pytest.raises(ValueError, match='total_field, te is missing'):
        unwrapping_failed(zeros, mask, unwrapped_phase=zeros[..., None], f0=F0)
    with pytest.raises(ValueError, match='grid'):
        unwrapping_failed(zeros[:3], mask)
