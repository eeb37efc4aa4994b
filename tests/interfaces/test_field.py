"""The field interfaces do what the kernels do, on files."""

import numpy as np
import pytest

from qsmflow import io
from qsmflow.algorithms import get_method, phase
from qsmflow.algorithms.catalog import names
from qsmflow.interfaces.field import FieldFit, FieldSign


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
    assert run(FieldSign(**inputs)).info == {'Sign': 1, 'Source': 'convention', 'Evidence': 0.0}


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
