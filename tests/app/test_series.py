"""Series that are not the usual ones, and steps that fail."""

import json
import re
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from tests.app.helpers import agreement, load, status, truth


def series_files(phantom, part='*'):
    return sorted((phantom / 'sub-01/anat').glob(f'sub-01_echo-*_part-{part}_MEGRE.*'))


def copy_series(phantom, raw, acq, files, edit=lambda path: None):
    """Copy files of the phantom's series under another ``acq`` label."""
    anat = raw / 'sub-01/anat'
    for source in files:
        target = anat / source.name.replace('sub-01_', f'sub-01_acq-{acq}_')
        shutil.copy(source, target)
        edit(target)


def truncate(path):
    if path.name.endswith('echo-2_part-phase_MEGRE.nii.gz'):
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])


def add_complex(phantom, raw):
    """Write the phantom's series as real and imaginary parts."""
    for source in series_files(phantom, 'mag'):
        if source.suffix == '.json':
            continue
        phase = nib.load(str(source).replace('part-mag', 'part-phase'))
        signal_ = np.asanyarray(nib.load(source).dataobj) * np.exp(1j * phase.get_fdata())
        for part, values in (('real', signal_.real), ('imag', signal_.imag)):
            name = source.name.replace('sub-01_', 'sub-01_acq-complex_')
            target = raw / 'sub-01/anat' / name.replace('part-mag', f'part-{part}')
            nib.save(nib.Nifti1Image(values.astype(np.float32), phase.affine), target)
            sidecar = json.loads(Path(str(source).replace('.nii.gz', '.json')).read_text())
            sidecar = {**sidecar, 'Units': 'arbitrary'}
            Path(str(target).replace('.nii.gz', '.json')).write_text(json.dumps(sidecar))


def empty_dataset(phantom, raw):
    (raw / 'sub-01/anat').mkdir(parents=True)
    shutil.copy(phantom / 'dataset_description.json', raw)
    return raw


@pytest.fixture(scope='module')
def variants(app, phantom):
    """Return a run of several unusual series, one of them broken, without registration."""
    raw, out = app.root / 'variants', app.root / 'variants-out'

    def action():
        empty_dataset(phantom, raw)
        every = series_files(phantom)
        copy_series(phantom, raw, 'broken', every, truncate)
        copy_series(phantom, raw, 'phaseonly', series_files(phantom, 'phase'))
        copy_series(phantom, raw, 'single', [f for f in every if '_echo-3_' in f.name])
        copy_series(phantom, raw, 'usual', every)
        add_complex(phantom, raw)
        mask = truth(phantom, 'desc-brain_mask.nii.gz')
        options = ('--mask', mask, '--atlas', 'none', '--level', 'minimal')
        return app.run(raw, out, 'participant', *options, work=app.root / 'variants-work')

    return app.once('variants', action)


@pytest.mark.slow
def test_a_broken_series_does_not_stop_the_others(variants):
    assert variants.code == 1, variants.stderr
    assert variants.last_line.endswith('exit code 1')
    found = status(variants)
    state_, reason = found.pop('sub-01_acq-broken')
    assert state_ == 'not started'
    assert 'sub-01_acq-broken_echo-2_part-phase_MEGRE.nii.gz' in reason
    names = [f'sub-01_acq-{acq}' for acq in ('complex', 'phaseonly', 'single', 'usual')]
    assert found == dict.fromkeys([*names, 'sub-01 report'], ('done', 'n/a'))
    assert not [name for name in variants.files if 'acq-broken' in name]


@pytest.mark.slow
@pytest.mark.parametrize(
    ('acq', 'suffixes'),
    [
        ('usual', ['Chimap', 'R2starmap', 'S0map', 'T2starmap', 'mask', 'mask']),
        ('complex', ['Chimap', 'R2starmap', 'S0map', 'T2starmap', 'mask', 'mask']),
        ('phaseonly', ['Chimap', 'mask', 'mask']),
        ('single', ['Chimap', 'mask', 'mask']),
    ],
)
def test_unusual_series(phantom, variants, acq, suffixes):
    anat = Path(variants.out) / 'sub-01/anat'
    images = sorted(anat.glob(f'sub-01_acq-{acq}_*.nii.gz'))
    assert [path.name.split('.')[0].rpartition('_')[2] for path in images] == suffixes
    assert 'fmap' not in {Path(name).parent.name for name in variants.files}, '--level minimal'
    correlation, slope = agreement(
        anat / f'sub-01_acq-{acq}_Chimap.nii.gz',
        anat / f'sub-01_acq-{acq}_desc-qsm_mask.nii.gz',
        phantom,
        rim=2,  # a given mask is used as it is, and its rim has little signal
    )
    assert correlation > (0.35 if acq == 'single' else 0.7)
    assert 0.5 < slope < 1.2
    sidecar = json.loads((anat / f'sub-01_acq-{acq}_Chimap.json').read_text())
    assert sidecar['Mask']['method'] == 'given'


@pytest.mark.slow
def test_complex_parts_give_the_same_map(variants):
    anat = Path(variants.out) / 'sub-01/anat'
    one, other = (load(anat / f'sub-01_acq-{acq}_Chimap.nii.gz') for acq in ('usual', 'complex'))
    # Their phase differs by rounding, which the iterative methods enlarge, most of all at the rim.
    assert np.percentile(np.abs(one - other)[one != 0], 99) < 2e-3
    assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.999


@pytest.mark.slow
def test_phase_alone_gives_its_own_mask(app, phantom, tmp_path):
    raw = empty_dataset(phantom, tmp_path / 'raw')
    copy_series(phantom, raw, 'phaseonly', series_files(phantom, 'phase'))
    out = tmp_path / 'out'
    run = app.run(raw, out, 'participant', work=tmp_path / 'work')
    assert run.code == 0, run.stderr
    anat = out / 'sub-01/anat'
    sidecar = json.loads((anat / 'sub-01_acq-phaseonly_Chimap.json').read_text())
    assert sidecar['Mask']['method'] == 'phase quality'
    found = load(anat / 'sub-01_acq-phaseonly_desc-brain_mask.nii.gz') > 0
    brain = load(truth(phantom, 'desc-brain_mask.nii.gz')) > 0
    assert np.sum(found & brain) / brain.sum() > 0.8
    assert 'where the phase is coherent' in (out / 'logs/CITATION.md').read_text()
    assert not [name for name in run.files if 'R2star' in name or '_stats' in name]


@pytest.mark.slow
def test_all_series_broken(app, phantom, tmp_path):
    raw = empty_dataset(phantom, tmp_path / 'raw')
    copy_series(phantom, raw, 'broken', series_files(phantom), truncate)
    run = app.run(raw, tmp_path / 'out', 'participant', work=tmp_path / 'work')
    assert run.code == 65
    assert run.last_line.endswith('exit code 65')
    states = {name: state_ for name, (state_, _) in status(run).items()}
    assert states == {'sub-01_acq-broken': 'not started', 'sub-01 report': 'done'}


@pytest.mark.slow
def test_a_node_that_fails_is_listed(app, phantom, tmp_path):
    mask = ('--mask', truth(phantom, 'desc-brain_mask.nii.gz'), '--atlas', 'none')
    method = ('--bgfr', 'resharp', '--bgfr-param', 'radius=100')
    run = app.run(phantom, tmp_path / 'out', 'participant', *mask, *method, work=tmp_path / 'work')
    assert run.code == 1
    assert run.last_line.endswith('exit code 1')
    state_, reason = status(run)['sub-01']
    assert state_ == 'failed'
    assert re.search(r'background_removal_wf\.remove: ValueError: A sphere of radius 100', reason)
    (crash,) = run.logs.glob('crash-*.txt')
    assert str(crash) in run.stderr
    assert 'background removal: remove FAILED' in run.stderr
    assert not (tmp_path / 'out/sub-01/anat/sub-01_Chimap.nii.gz').exists()
