"""Findings as users of the program meet them: log, sidecars, report, status table, exit code."""

import json
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent / 'bids'))  # for the datasets that are broken there

import defects

from qsmflow.phantom import small_acquisition

TE = (0.004, 0.010, 0.016, 0.022)
COMPUTED = ('A13', 'A14', 'B41')


@pytest.fixture(scope='module')
def findings_run(app):
    """Run a dataset of three participants.

    The phase of the first is negated, alternates between slices and has a bipolar readout. The
    second has magnitudes alone, the third has swapped parts.
    """
    scan = small_acquisition(te=TE)
    root = app.root / 'findings'

    def action():
        dataset = defects.write_clean(root / 'raw', subjects=())
        turned = np.pi * (np.arange(scan.phase.shape[2]) % 2)[:, None]
        ramp = 0.01 * 4.0 * np.arange(scan.phase.shape[0])[:, None, None, None]
        ramp = ramp * np.array([-1, 1, -1, 1])
        broken = np.angle(np.exp(-1j * (scan.phase + turned + ramp)))
        arrays = {
            '01': (scan.magnitude, broken),
            '02': (scan.magnitude, scan.phase),
            '03': (scan.phase, scan.magnitude),
        }
        for sub, (magnitude, phase) in arrays.items():
            defects.write_scan(dataset, magnitude, phase, TE, scan.affine, sub)
        for path in dataset.anat('02').glob('*part-phase*'):
            path.unlink()
        mask = root / 'mask.nii.gz'
        defects.write_image(mask, scan.truth['mask'].astype(np.uint8), scan.affine)
        options = ['--atlas', 'none', '--preset', 'fast', '--mask', mask]
        options += ['--force', 'r2star-only', '--nprocs', '1', '--skip-bids-validation']
        return app.run(root / 'raw', root / 'out', 'participant', *options, work=root / 'work')

    return app.once('findings', action)


@pytest.mark.slow
def test_codes_are_everywhere(findings_run):
    out = Path(findings_run.out)
    assert findings_run.code == 1, findings_run.stderr
    sidecar = json.loads((out / 'sub-01/anat/sub-01_Chimap.json').read_text())
    report = (out / 'sub-01.html').read_text()
    for code in COMPUTED:
        (warning,) = (w for w in sidecar['Warnings'] if w['code'] == code)
        assert warning['level'] == 'FIX'
        assert warning['evidence']
        assert f'[FIX {code}]' in findings_run.stderr
        assert code in report


@pytest.mark.slow
def test_what_cannot_be_used_is_told_and_leaves_the_others_alone(findings_run):
    assert '[ERROR A18]' in findings_run.stdout
    assert not (Path(findings_run.out) / 'sub-03/anat/sub-03_Chimap.nii.gz').exists()
    table = (findings_run.logs / 'status.tsv').read_text()
    assert 'sub-03\tnot started\t[ERROR A18]' in table
    assert 'sub-01\tdone' in table


@pytest.mark.slow
def test_magnitude_alone_gives_r2star(findings_run):
    out = Path(findings_run.out)
    found = nib.load(out / 'sub-02/anat/sub-02_R2starmap.nii.gz').get_fdata()
    scan = small_acquisition(te=TE)
    inside = scan.truth['mask']
    true = scan.truth['r2star'][inside]
    assert np.corrcoef(found[inside], true)[0, 1] > 0.8
    assert not (out / 'sub-02/anat/sub-02_Chimap.nii.gz').exists()
    sidecar = json.loads((out / 'sub-02/anat/sub-02_R2starmap.json').read_text())
    assert 'B28' in {warning['code'] for warning in sidecar['Warnings']}
    assert 'B28' in (out / 'sub-02.html').read_text()


def test_graph_of_magnitude_alone_has_no_susceptibility(tmp_path):
    from qsmflow.bids import collect
    from qsmflow.settings import Settings
    from qsmflow.workflows.base import init_series_wf

    dataset = defects.write_clean(tmp_path / 'raw')
    for path in dataset.phases():
        path.unlink()
    (series,) = collect(dataset.root, force=['r2star-only']).series
    graph = init_series_wf(series=series, settings=Settings(), out_dir=str(tmp_path / 'out'))
    names = {name.rpartition('.')[2] for name in graph.list_node_names()}
    assert {'ds_r2star', 'ds_t2star', 'ds_s0', 'ds_mask'} <= names
    assert not {'ds_chimap', 'ds_total_field', 'unwrap', 'invert'} & names


def test_graph_knows_repetition_and_offsets_of_slices(tmp_path):
    from qsmflow.bids import collect
    from qsmflow.settings import Settings
    from qsmflow.workflows.base import init_series_wf

    dataset = defects.write_clean(tmp_path / 'raw')
    made = {item.label: item.make for item in defects.DEFECTS}
    made['slice_offsets'](dataset)
    made['repeats_with_index'](dataset)
    (series,) = collect(dataset.root, **dataset.options).series
    graph = init_series_wf(series=series, settings=Settings(), out_dir=str(tmp_path / 'out'))
    prepare = graph.get_node('reconstruction_wf.preparation_wf.prepare').inputs
    assert (prepare.volume, prepare.slice_offsets) == (1, True)
    assert prepare.te == list(defects.TE)
