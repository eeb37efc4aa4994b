"""The field interfaces do what the kernels do, on files."""

import numpy as np
import pytest

from qsmflow import io
from qsmflow.algorithms import get_method, phase
from qsmflow.algorithms.catalog import names
from qsmflow.algorithms.phase_offset import remove_phase_offset
from qsmflow.interfaces.field import FieldFit, FieldSign, other_unwrappings


@pytest.mark.parametrize('method', names('field'))
def test_fit_is_the_kernel(scan, files, save, run, check, method):
    mask = scan.truth['mask']
    arguments = (scan.magnitude, mask, scan.voxel_size)
    unwrapped = get_method('unwrapping', 'romeo')(scan.phase, *arguments, te=scan.te)
    out = run(
        FieldFit(
            unwrapped_phase=save('unwrapped', unwrapped),
            magnitude=files.magnitude,
            mask=files.mask,
            te=list(scan.te),
            f0=scan.f0,
            method=method,
        )
    )
    expected = get_method('field', method)(unwrapped, *arguments, te=scan.te, f0=scan.f0)
    for name in ('total_field', 'field_noise', 'residual', 'phase_offset', 'weights'):
        check(getattr(out, name), getattr(expected, name))


# --- unwrapping that failed ---


def turned(unwrapped, mask, share=0.5):
    """Add a turn to the first echo in a share of the mask, as a cut through the head would."""
    unwrapped = unwrapped.copy()
    places = np.flatnonzero(mask)
    flat = unwrapped.reshape(-1, unwrapped.shape[-1])
    flat[places[: int(share * places.size)], 0] += np.float32(2 * np.pi)
    return unwrapped


@pytest.fixture(scope='module')
def wrapped(scan):
    mask = scan.truth['mask']
    return remove_phase_offset(scan.phase, scan.magnitude, mask, scan.voxel_size, te=scan.te)[0]


@pytest.fixture
def unwrap(scan, wrapped):
    """Return a function that unwraps the scan."""

    def by(method, **params):
        where = (scan.magnitude, scan.truth['mask'], scan.voxel_size)
        return get_method('unwrapping', method)(wrapped, *where, te=scan.te, **params)

    return by


@pytest.fixture
def broken_inputs(scan, files, save, wrapped, unwrap):
    """Return the inputs of a fit to phase that is wrong in half of the head."""
    return {
        'unwrapped_phase': save('broken', turned(unwrap('romeo'), scan.truth['mask'])),
        'phase': save('wrapped', wrapped),
        'magnitude': files.magnitude,
        'mask': files.mask,
        'te': list(scan.te),
        'f0': scan.f0,
    }


@pytest.fixture
def spoil(scan, monkeypatch):
    """Return a function that makes methods of unwrapping fail in a share of the head."""

    def make(**shares):
        def pick(stage, name):
            real = get_method(stage, name)
            if stage != 'unwrapping' or name not in shares:
                return real
            mask = scan.truth['mask']
            return lambda *args, **kwargs: turned(real(*args, **kwargs), mask, shares[name])

        monkeypatch.setattr('qsmflow.interfaces.field.get_method', pick)

    return make


def field_error(scan, path):
    mask = scan.truth['mask']
    return np.abs(io.load_volume(path).data - scan.truth['total_field'])[mask].mean()


def test_good_unwrapping_is_kept_and_judged(scan, files, save, unwrap, broken_inputs, run, caplog):
    good = save('good', unwrap('romeo'))
    out = run(FieldFit(**broken_inputs | {'unwrapped_phase': good}))
    assert out.unwrapped_phase == good, 'not even written again'
    (only,) = out.info['Tried']
    assert out.info | {'Tried': []} == {
        'Requested': 'romeo', 'Method': 'romeo', 'Parameters': {}, 'Failed': False,
        'Reason': '', 'Tried': [],
    }  # fmt: skip
    assert not only['Failed']
    assert only['ResidualShare'] < 0.01
    assert only['TurnShare'] < 0.01
    assert not caplog.records


@pytest.mark.parametrize('method', ['sequential', 'weighted'])
def test_failed_unwrapping_is_done_again(scan, unwrap, broken_inputs, run, check, caplog, method):
    out = run(FieldFit(**broken_inputs, method=method, unwrapping_params={'max_seeds': 2}))
    expected = unwrap('romeo', individual=True, max_seeds=2)
    check(out.unwrapped_phase, expected)
    where = (scan.magnitude, scan.truth['mask'], scan.voxel_size)
    fit = get_method('field', method)(expected, *where, te=scan.te, f0=scan.f0)
    for name in ('total_field', 'field_noise', 'residual', 'phase_offset', 'weights'):
        check(getattr(out, name), getattr(fit, name))
    assert field_error(scan, out.total_field) < 0.02
    info = out.info
    assert (info['Requested'], info['Method'], info['Failed']) == ('romeo', 'romeo', False)
    assert info['Parameters'] == {'individual': True, 'max_seeds': 2}
    assert [one['Failed'] for one in info['Tried']] == [True, False]
    assert info['Tried'][0]['ResidualShare'] > 0.4
    assert 'of the mask' in info['Reason']
    (record,) = caplog.records
    assert record.levelname == 'WARNING'
    assert record.message.startswith('unwrapping by romeo (max_seeds=2) failed: ')
    assert 'individual=True' in record.message
    assert record.message.endswith(']'), 'the folder says which series it was'
    assert info['Note'] in record.message


def test_methods_are_tried_in_order(scan, unwrap, broken_inputs, spoil, run, check):
    spoil(romeo=0.5, best_path=0.4)
    info = run(FieldFit(**broken_inputs)).info
    assert [one['Method'] for one in info['Tried']] == ['romeo', 'romeo', *names('unwrapping')[1:]]
    assert info['Method'] == 'laplacian'
    assert not info['Failed']
    spoil(romeo=0.5)
    out = run(FieldFit(**broken_inputs))
    assert [one['Method'] for one in out.info['Tried']] == ['romeo', 'romeo', 'best_path']
    check(out.unwrapped_phase, unwrap('best_path'))


def test_other_unwrappings():
    assert other_unwrappings('romeo', {'template': 1}, 3) == [
        ('romeo', {'template': 1, 'individual': True}), ('best_path', {}), ('laplacian', {}),
    ]  # fmt: skip
    by_one = [('best_path', {}), ('laplacian', {})]
    assert other_unwrappings('romeo', {'individual': True}, 3) == by_one
    assert other_unwrappings('romeo', {}, 1) == by_one
    assert other_unwrappings('best_path', {'template': 1}, 3) == [('romeo', {}), ('laplacian', {})]
    assert other_unwrappings('laplacian', {}, 3) == [('romeo', {}), ('best_path', {})]


def test_where_all_fail_alike_the_method_asked_for_is_kept(
    scan, broken_inputs, spoil, run, caplog
):
    spoil(romeo=0.5, best_path=0.4, laplacian=0.6)
    out = run(FieldFit(**broken_inputs))
    assert out.unwrapped_phase == broken_inputs['unwrapped_phase']
    assert (out.info['Method'], out.info['Parameters']) == ('romeo', {})
    assert out.info['Failed']
    assert len(out.info['Tried']) == 4
    assert field_error(scan, out.total_field) > 0.3
    assert 'the data themselves' in caplog.text
    assert 'its result is kept' in caplog.text


def test_where_all_fail_one_that_is_much_better_is_kept(
    scan, unwrap, broken_inputs, spoil, run, check, caplog
):
    spoil(romeo=0.5, best_path=0.2, laplacian=0.6)
    out = run(FieldFit(**broken_inputs))
    assert (out.info['Method'], out.info['Failed']) == ('best_path', True)
    check(out.unwrapped_phase, turned(unwrap('best_path'), scan.truth['mask'], 0.2))
    assert 'best_path, with far fewer bad voxels, is kept' in caplog.text


@pytest.mark.parametrize(
    ('changes', 'reason'),
    [({'fallback': False}, 'switched off'), ({'phase': None}, 'no wrapped phase was given')],
)
def test_without_other_methods_the_failure_is_said(
    scan, broken_inputs, run, caplog, changes, reason
):
    inputs = {k: v for k, v in (broken_inputs | changes).items() if v is not None}
    out = run(FieldFit(**inputs))
    assert out.unwrapped_phase == inputs['unwrapped_phase']
    assert out.info['Failed']
    assert len(out.info['Tried']) == 1
    assert f'no other method was tried ({reason})' in out.info['Note']
    assert out.info['Note'] in caplog.text


def test_parameters_of_the_fit_hold_for_every_attempt(scan, broken_inputs, unwrap, run, check):
    params = {'weighting': 'te'}
    out = run(FieldFit(**broken_inputs, method='averaged', params=params))
    where = (scan.magnitude, scan.truth['mask'], scan.voxel_size)
    phase = unwrap('romeo', individual=True)
    expected = get_method('field', 'averaged')(phase, *where, te=scan.te, f0=scan.f0, **params)
    check(out.total_field, expected.total_field)


def test_wrapped_phase_of_another_grid_is_refused(wrapped, broken_inputs, save, run):
    other = save('other', wrapped, io.Volume(wrapped, np.diag([6.0, 6, 6, 1])))
    with pytest.raises(io.GridMismatchError):
        run(FieldFit(**broken_inputs | {'phase': other}))


def test_fit_of_one_echo(scan, files, save, run):
    single = {
        'unwrapped_phase': save('one', scan.truth['total_field'] * 2 * np.pi * scan.f0 * 0.004),
        'magnitude': files.first,
    }
    out = run(FieldFit(**single, mask=files.mask, te=[0.004], f0=scan.f0))
    mask = scan.truth['mask']
    np.testing.assert_allclose(
        io.load_volume(out.total_field).data[mask], scan.truth['total_field'][mask], atol=1e-4
    )
    assert not out.info['Failed']
    assert out.info['Tried'][0]['TurnShare'] is None


def sign_inputs(files, field):
    return {'total_field': field, 'first_magnitude': files.first, 'mask': files.mask}


def test_right_sign_is_kept_and_the_evidence_is_the_kernels(scan, files, run, check):
    out = run(FieldSign(**sign_inputs(files, files.total_field)))
    evidence = phase.field_sign_evidence(
        scan.truth['total_field'],
        scan.magnitude[..., 0],
        scan.truth['mask'],
        scan.voxel_size,
        b0_dir=scan.b0_dir,
    )
    assert evidence > 0.3
    assert out.info['Evidence'] == pytest.approx(evidence, abs=1e-6)
    assert out.info['Sign'] == 1
    assert out.info['Source'].startswith('field of the air')
    check(out.total_field, scan.truth['total_field'])


def test_sign_of_an_inverted_head_is_found_and_flipped(scan, files, save, run, check):
    inverted = save('inverted', -scan.truth['total_field'])
    out = run(FieldSign(**sign_inputs(files, inverted)))
    assert out.info['Sign'] == -1
    assert out.info['Evidence'] < FieldSign.flip_limit
    check(out.total_field, scan.truth['total_field'])


@pytest.mark.parametrize('sign', ['+1', '-1'])
def test_user_decides_against_the_evidence(scan, files, run, check, sign):
    out = run(FieldSign(**sign_inputs(files, files.total_field), sign=sign))
    assert out.info['Sign'] == int(sign)
    assert out.info['Source'] == 'user'
    assert out.info['Evidence'] > 0.3
    check(out.total_field, int(sign) * scan.truth['total_field'])


def test_without_contrast_the_convention_stands(scan, files, save, run):
    flat = save('flat', np.ones(scan.truth['mask'].shape))
    inputs = sign_inputs(files, files.total_field) | {'first_magnitude': flat}
    info = dict(run(FieldSign(**inputs)).info)
    (finding,) = info.pop('findings')
    assert (finding['code'], finding['level']) == ('A13', 'WARN')
    assert info == {'Sign': 1, 'Source': 'convention', 'Evidence': 0.0}


def test_direction_of_the_field_can_be_given(scan, files, run):
    wrong = run(FieldSign(**sign_inputs(files, files.total_field), b0_dir=(1.0, 0.0, 0.0)))
    right = run(FieldSign(**sign_inputs(files, files.total_field), b0_dir=scan.b0_dir))
    assert wrong.info['Evidence'] < right.info['Evidence'] - 0.1


def test_magnitude_of_another_grid_is_refused(scan, files, save, run):
    other = io.Volume(scan.magnitude[..., 0], np.diag([6.0, 6, 6, 1]))
    inputs = sign_inputs(files, files.total_field)
    inputs['first_magnitude'] = save('other', scan.magnitude[..., 0], other)
    with pytest.raises(io.GridMismatchError):
        run(FieldSign(**inputs))
