"""The interfaces from total field to susceptibility do what the kernels do, on files."""

import numpy as np
import pytest

from qsmflow import io
from qsmflow.algorithms import get_method, regions
from qsmflow.algorithms.catalog import STAGES, names
from qsmflow.algorithms.operators import forward_field
from qsmflow.bids.catalog import FINDINGS as KNOWN
from qsmflow.interfaces.findings import FINDINGS
from qsmflow.interfaces.susceptibility import (
    BackgroundRemoval,
    DipoleInversion,
    SusceptibilityReference,
)

QUICK = {
    'tv': {'max_iter': 4},
    'rts': {'max_iter': 4},
    'pdf': {'max_iter': 5},
    'vsharp': {'radii': (12.0,)},
}


@pytest.fixture(params=['affine', 'given'])
def direction(request, scan):
    """Return the input that tells the field, and what it must come to."""
    if request.param == 'affine':
        return {}, scan.b0_dir
    return {'b0_dir': (0.0, 1.0, 0.0)}, (0.0, 1.0, 0.0)


@pytest.mark.parametrize('weighted', [False, True])
@pytest.mark.parametrize('method', names('background'))
def test_background_removal_is_the_kernel(scan, files, run, check, direction, method, weighted):
    given, b0_dir = direction
    params = QUICK.get(method, {})
    weights = {'weights': files.weights} if weighted else {}
    out = run(
        BackgroundRemoval(
            total_field=files.total_field,
            mask=files.mask,
            method=method,
            params=params,
            **weights,
            **given,
        )
    )
    mask = scan.truth['mask']
    field, inside = get_method('background', method)(
        scan.truth['total_field'],
        mask,
        scan.voxel_size,
        b0_dir=b0_dir,
        weights=mask * np.float32(0.5) if weighted else None,
        **params,
    )
    check(out.local_field, field)
    check(out.mask, inside)


OF_A_FIELD = [name for name, entry in STAGES['inversion'].items() if entry.takes != 'phase']


@pytest.mark.parametrize('method', OF_A_FIELD)
def test_inversion_is_the_kernel(scan, files, run, check, direction, method):
    given, b0_dir = direction
    params = QUICK.get(method, {})
    out = run(
        DipoleInversion(
            local_field=files.local_field,
            mask=files.mask,
            weights=files.weights,
            method=method,
            params=params,
            **given,
        )
    )
    mask = scan.truth['mask']
    chi = get_method('inversion', method)(
        scan.truth['local_field'],
        mask,
        scan.voxel_size,
        b0_dir=b0_dir,
        weights=mask * np.float32(0.5),
        **params,
    )
    check(out.chimap, chi)
    assert np.abs(chi).max() > 0


@pytest.mark.parametrize('sign', [None, 1, -1])
def test_inversion_of_phase_is_the_kernel(scan, files, save, run, check, direction, sign):
    given, b0_dir = direction
    if sign is not None:
        given = given | {'sign': {'Sign': sign, 'Source': 'user'}}
    out = run(
        DipoleInversion(
            phase=save('turned', (sign or 1) * scan.phase),
            magnitude=files.magnitude,
            mask=files.mask,
            weights=files.weights,
            te=list(scan.te),
            f0=scan.f0,
            method='tgv_phase',
            params={'max_iter': 5},
            **given,
        )
    )
    chi = get_method('inversion', 'tgv_phase')(
        scan.phase,
        scan.truth['mask'],
        scan.voxel_size,
        te=scan.te,
        f0=scan.f0,
        magnitudes=scan.magnitude,
        b0_dir=b0_dir,
        weights=scan.truth['mask'] * np.float32(0.5),
        max_iter=5,
    )
    check(out.chimap, chi)
    assert np.abs(chi).max() > 0
    check(out.local_field, forward_field(chi, scan.voxel_size, b0_dir=b0_dir) * scan.truth['mask'])


def test_inversion_of_phase_in_two_passes(scan, files, save, run):
    weights = scan.truth['mask'] * np.float32(1)
    weights[tuple(np.argwhere(scan.truth['mask'])[100::500].T)] = 0.1
    out = run(
        DipoleInversion(
            phase=files.phase, mask=files.mask, weights=save('some', weights),
            te=list(scan.te), f0=scan.f0, method='tgv_phase', params={'max_iter': 3},
            strategy='two_pass',
        )
    )  # fmt: skip
    assert out.convergence['Iterations'] == 6
    assert np.abs(io.load_volume(out.chimap).data).max() > 0


@pytest.mark.parametrize(
    ('method', 'inputs', 'message'),
    [
        ('tgv_phase', ['local_field', 'te', 'f0'], 'wrapped phase of the echoes; got a field'),
        ('tgv', ['phase', 'te', 'f0'], "total field; got phase. Set 'local_field'"),
        ('tkd', ['phase'], "local field; got phase. Set 'local_field'"),
        ('tgv_phase', ['phase', 'te'], "Set 'te', in s, and 'f0', in MHz"),
        ('tgv_phase', ['phase', 'f0'], "Set 'te', in s, and 'f0', in MHz"),
        ('tgv_phase', ['phase', 'local_field'], 'mutually exclusive'),
    ],
)
def test_inversion_without_what_it_takes_is_refused(scan, files, run, method, inputs, message):
    known = {'te': list(scan.te), 'f0': scan.f0, 'phase': files.phase}
    known['local_field'] = files.local_field
    given = {name: known[name] for name in inputs}
    with pytest.raises((ValueError, OSError), match=message):
        run(DipoleInversion(mask=files.mask, method=method, **given))


def test_inputs_of_another_grid_are_refused(scan, files, save, run):
    elsewhere = io.Volume(scan.truth['mask'], np.diag([6.0, 6, 6, 1]))
    weights = save('elsewhere', scan.truth['mask'] * np.float32(1), elsewhere)
    for interface, field in ((BackgroundRemoval, 'total_field'), (DipoleInversion, 'local_field')):
        inputs = {field: getattr(files, field), 'mask': files.mask, 'weights': weights}
        with pytest.raises(io.GridMismatchError):
            run(interface(**inputs))


def test_unknown_method_is_refused():
    with pytest.raises(Exception, match="must be 'tv'"):
        DipoleInversion(method='magic')


@pytest.mark.parametrize('strategy', ['single', 'two_pass'])
@pytest.mark.parametrize('method', ['tv', 'ilsqr', 'tkd'])
def test_inversion_tells_how_it_ended(files, run, method, strategy):
    params = {} if method == 'tkd' else {'max_iter': 3}
    out = run(
        DipoleInversion(
            local_field=files.local_field, mask=files.mask, weights=files.weights,
            method=method, params=params, strategy=strategy,
        )
    )  # fmt: skip
    if method == 'tkd':
        assert out.convergence == {}, 'there is nothing to iterate'
        return
    assert out.convergence['Iterations'] == 6  # of two stages
    assert out.convergence['LastChange'] > 0
    assert out.convergence['Converged'] is False


@pytest.mark.parametrize(
    ('method', 'params', 'ended'),
    [
        ('pdf', {'max_iter': 4, 'coarse_iter': ()}, (4, False)),
        ('pdf', {'tol': 0.5}, (1, True)),
        ('resharp', {'max_iter': 2, 'tol': 1e-9}, (2, False)),
        ('resharp', {'tol': 0.9}, (1, True)),
        ('vsharp', {'radii': (12.0,)}, None),
    ],
)
def test_background_removal_tells_how_it_ended(files, run, method, params, ended):
    out = run(
        BackgroundRemoval(
            total_field=files.total_field, mask=files.mask, method=method, params=params
        )
    )
    if ended is None:
        assert out.convergence == {}
    else:
        assert (out.convergence['Iterations'], out.convergence['Converged']) == ended


def reference(files, run, **inputs):
    return run(SusceptibilityReference(chimap=files.chi, mask=files.mask, **inputs))


def test_whole_brain_reference(scan, files, run, check):
    out = reference(files, run)
    chi, mask = scan.truth['chi'], scan.truth['mask']
    expected, stats = regions.apply_reference(chi, mask, 'whole_brain')
    check(out.chimap, np.where(mask, expected, 0))
    assert abs(io.load_volume(out.chimap).data[mask].mean()) < 1e-6
    told = out.reference
    assert (told['region'], told['requested']) == ('whole_brain', 'whole_brain')
    assert told['mean'] == pytest.approx(stats.mean)
    assert told['sd'] == pytest.approx(stats.sd)
    assert told['n'] == told['whole_brain_n'] == mask.sum()
    assert told['whole_brain_mean'] == pytest.approx(0, abs=1e-9)


def test_no_reference_leaves_the_map_and_still_tells_the_mean(scan, files, run, check):
    out = reference(files, run, region='none')
    chi, mask = scan.truth['chi'], scan.truth['mask']
    check(out.chimap, np.where(mask, chi, 0))
    assert out.reference['region'] == 'none'
    assert out.reference['mean'] == pytest.approx(chi[mask].mean(dtype=float), abs=1e-9)
    assert out.reference['whole_brain_mean'] == pytest.approx(out.reference['mean'])


def test_csf_reference(scan, files, save, run):
    chi, mask = scan.truth['chi'], scan.truth['mask']
    where = np.argwhere(mask).mean(axis=0).round().astype(int)
    r2star = np.full(mask.shape, 20.0, np.float32)
    r2star[tuple(slice(c - 3, c + 4) for c in where)] = 1.0
    out = reference(files, run, region='csf', r2star=save('decay', r2star))
    region, used = regions.reference_region('csf', mask, scan.voxel_size, r2star=r2star, chi=chi)
    assert used == out.reference['region'] == 'csf'
    assert FINDINGS not in out.reference
    assert out.reference['n'] == region.sum() < mask.sum()
    shifted = io.load_volume(out.chimap).data
    assert abs(shifted[region].mean()) < 1e-6
    assert out.reference['whole_brain_mean'] == pytest.approx(
        shifted[mask].mean(dtype=float), abs=1e-7
    )


@pytest.mark.parametrize('decay', ['none', 'no fluid'])
def test_csf_reference_that_cannot_be_had_is_told(scan, files, save, run, check, decay, caplog):
    inputs = {}
    if decay == 'no fluid':
        inputs['r2star'] = save('decay', np.full(scan.truth['mask'].shape, 20.0))
    with caplog.at_level('WARNING'):
        out = reference(files, run, region='csf', **inputs)
    assert 'REFREGION' in caplog.text
    (told,) = out.reference[FINDINGS]
    assert (told['code'], told['level']) == ('REFREGION', 'WARN')
    assert told['level'] in KNOWN[told['code']].levels
    assert ('no map of it' in told['message']) is (decay == 'none')
    assert told['evidence']['used'] == 'whole_brain'
    assert told['remedy']
    assert out.reference['requested'] == 'csf'
    assert out.reference['region'] == 'whole_brain'
    check(out.chimap, io.load_volume(reference(files, run).chimap).data)
