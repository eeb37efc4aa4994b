"""The reconstruction runs from every kind of stored data, and finds the truth."""

import numpy as np
import pytest

from qsmflow import io, workflows
from qsmflow.algorithms import get_method
from qsmflow.interfaces.phase import PhaseOffsetRemoval

TE = [0.004, 0.010, 0.016]
MAPS = ('refer.chimap', 'refer.reference', 'field_mapping_wf.fit.total_field', 'remove.mask')


def reconstruct(scan, files, **options):
    options = {'te': TE, 'f0': scan.f0, 'mask_file': files.mask} | options
    workflow = workflows.init_reconstruction_wf(**options)
    door = workflow.inputs.inputnode
    door.magnitude_files, door.phase_files = [files.magnitude], [files.phase]
    return workflow, door


def data(path):
    return io.load_volume(path).data


def correlation(first, second, where):
    return float(np.corrcoef(first[where], second[where])[0, 1])


def test_maps_are_near_the_truth(scan, files, core, results):
    workflow, _ = reconstruct(scan, files)
    chi, reference, field, mask, decay, removed, sign = results(
        workflow,
        *MAPS,
        'relaxometry_wf.fit.r2star',
        'refine.removed_fraction',
        'orient.info',
    )
    truth, brain = scan.truth, scan.truth['mask']
    assert correlation(data(field), truth['total_field'], brain) > 0.95
    assert correlation(data(chi), truth['chi'], core) > 0.7
    assert np.median(np.abs(data(decay) - truth['r2star'])[brain]) < 4
    inside = data(mask) > 0.5
    assert abs(data(chi)[inside].mean()) < 1e-6
    assert not data(chi)[~inside].any()
    assert reference['region'] == 'whole_brain'
    assert removed == 0
    assert sign['Sign'] == 1


def test_real_and_imaginary_images_give_the_same_maps(scan, files, core, results):
    workflow, door = reconstruct(scan, files)
    door.magnitude_files = door.phase_files = []
    door.real_files, door.imaginary_files = [files.real], [files.imaginary]
    (chi,) = results(workflow, MAPS[0])
    assert correlation(data(chi), scan.truth['chi'], core) > 0.7


def test_phase_alone_needs_no_magnitude(scan, files, core, results):
    workflow, door = reconstruct(
        scan, files, has_magnitude=False, mask_method='quality', mask_file=None, reference='csf'
    )
    door.magnitude_files = []
    chi, reference, field, mask, info = results(workflow, *MAPS, 'refine.info')
    brain = scan.truth['mask'] & (data(mask) > 0.5)
    assert brain.sum() > 0.85 * scan.truth['mask'].sum()
    assert correlation(data(field), scan.truth['total_field'], brain) > 0.9
    assert correlation(data(chi), scan.truth['chi'], core) > 0.5
    assert (reference['requested'], reference['region']) == ('csf', 'whole_brain')
    assert info['method'] == 'phase quality'
    assert info['volume_ml'] > 0


@pytest.mark.parametrize('echoes', [[1], [0, 2]])
def test_few_echoes_suffice(scan, files, core, results, echoes):
    te = [TE[echo] for echo in echoes]
    quick = {'inversion': 'tkd', 'background': 'resharp'}
    workflow, _ = reconstruct(scan, files, te=te, echoes=echoes, methods=quick)
    (local,) = results(workflow, 'remove.local_field')
    names = workflow.list_node_names()
    single = len(echoes) == 1
    assert any('relaxometry' in name for name in names) is not single
    offset = [n for n in names if isinstance(workflow.get_node(n).interface, PhaseOffsetRemoval)]
    assert bool(offset) is not single
    assert correlation(data(local), scan.truth['local_field'], core) > (0.3 if single else 0.6)


QUICK = {'inversion': 'tkd', 'background': 'resharp'}


def field_error(scan, path):
    """Return the error of the field in ppm, but for a constant."""
    error = (data(path) - scan.truth['total_field'])[scan.truth['mask']]
    return np.abs(error - np.median(error)).mean()


def test_bipolar_readout_is_found_and_corrected(scan, files, results, tmp_path):
    ramp = np.linspace(-2, 2, scan.phase.shape[0])[:, None, None, None] * np.array([0, 1, 0])
    like = io.Volume(scan.phase, scan.affine)
    turned = np.angle(np.exp(1j * (scan.phase + ramp)))
    path = io.save_volume(turned, like, tmp_path / 'bipolar.nii')
    errors = {}
    for mode, wanted in (
        ('auto', (MAPS[2], 'field_mapping_wf.bipolar.info')),
        ('off', (MAPS[2],)),
    ):
        workflow, door = reconstruct(scan, files, methods=QUICK, bipolar=mode)
        door.phase_files = [path]
        workflow.name = f'{mode}_wf'
        field, *info = results(workflow, *wanted)
        assert all(one['Corrected'] for one in info)
        errors[mode] = field_error(scan, field)
    assert errors['auto'] < 0.01 < 0.03 < errors['off']


def test_unwrapping_that_fails_is_done_again(scan, files, results, monkeypatch, caplog):
    def pick(stage, name):
        def break_(*args, **kwargs):
            unwrapped = get_method(stage, name)(*args, **kwargs)
            unwrapped[:16, ..., 0] += 2 * np.pi
            return unwrapped

        return break_

    monkeypatch.setattr('qsmflow.interfaces.phase.get_method', pick)
    workflow, _ = reconstruct(scan, files, methods=QUICK)
    info, field = results(workflow, 'field_mapping_wf.fit.info', MAPS[2])
    assert info['Parameters'] == {'individual': True}
    assert [one['Failed'] for one in info['Tried']] == [True, False]
    assert field_error(scan, field) < 0.02
    assert 'unwrapping by romeo failed' in caplog.text


@pytest.mark.parametrize(('inversion', 'least'), [('tkd', 0.5), ('tgv_phase', 0.5)])
def test_inverted_phase_is_noticed_and_turned(
    scan, files, core, results, tmp_path, inversion, least
):
    workflow, door = reconstruct(scan, files, methods={'inversion': inversion})
    like = io.Volume(scan.phase, scan.affine)
    door.phase_files = [io.save_volume(-scan.phase, like, tmp_path / 'turned.nii')]
    chi, sign = results(workflow, MAPS[0], 'orient.info')
    assert sign['Sign'] == -1
    assert correlation(data(chi), scan.truth['chi'], core) > least
