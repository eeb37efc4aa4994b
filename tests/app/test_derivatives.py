"""What other pipelines made of a T1w image is used instead of our own steps, and told."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests import derived
from tests.app.helpers import VALIDATOR, load, rows, status, truth

pytestmark = pytest.mark.slow
#: Regions of many voxels: name in the tables of FreeSurfer -> labels of the truth.
REGIONS = {
    ('putamen', 'L'): [1],
    ('putamen', 'R'): [101],
    ('caudate', 'L'): [2],
    ('caudate', 'R'): [102],
    ('pallidum', 'L'): [5, 6],
    ('pallidum', 'R'): [105, 106],
    ('thalamus', 'L'): [20],
    ('thalamus', 'R'): [120],
}


@pytest.fixture(scope='session')
def given_run(app, phantom, base_run):
    """Return a run that is given what fMRIPrep, FreeSurfer and SynthSeg would have made."""
    out = app.root / 'out-given'

    def action():
        facts = derived.Truth(phantom)
        prep = derived.fmriprep(app.root / 'fmriprep', facts, transforms_of=base_run.out)
        fs = derived.freesurfer(app.root / 'fs', facts)
        seg = derived.synthseg(app.root / 'seg', facts)
        names = [f'prep={prep}', f'fs={fs}', f'seg={seg}']
        return app.run(phantom, out, 'participant', '-d', *names, work=base_run.work)

    with app.alone('second'):  # it shares the work folder
        return app.once('given', action)


def table(run, atlas):
    found = rows(Path(run.out) / f'sub-01/anat/sub-01_atlas-{atlas}_stats.tsv')
    return {(row['region'], row['hemi'], row['map']): row for row in found}


def test_finishes_without_our_own_steps(given_run):
    assert given_run.code == 0, given_run.stderr
    assert status(given_run)['sub-01'] == ('done', 'n/a')
    own = [line for line in given_run.stderr.splitlines() if line.startswith('[')]
    assert not [
        line for line in own if 'T1w' in line and ('extract' in line or 'register' in line)
    ]
    copies = [name for name in given_run.files if 'from-T1w_to-MNI' in name or 'space-T1w' in name]
    assert not copies, 'what others made stays with them'


@pytest.mark.parametrize('atlas', ['aseg', 'aparcaseg', 'synthseg'])
def test_regions_of_segmentations_agree_with_the_truth(phantom, given_run, atlas):
    found = table(given_run, atlas)
    chi = load(truth(phantom, 'Chimap.nii.gz'))
    labels = load(truth(phantom, 'desc-truth_dseg.nii.gz'))
    expected = [1000 * chi[np.isin(labels, own)].mean() for own in REGIONS.values()]
    measured = [float(found[(*region, 'chi')]['mean']) for region in REGIONS]
    # In ppb; voxels of 4 mm blur the borders of both the map and the labels.
    assert np.abs(np.subtract(measured, expected)).max() < 30
    assert np.corrcoef(measured, expected)[0, 1] > 0.9
    white = float(found['cerebral_white_matter', 'L', 'chi']['mean'])
    assert white < min(measured)


def test_labels_lie_where_the_truth_has_them(phantom, given_run):
    anat = Path(given_run.out) / 'sub-01/anat'
    found = load(anat / 'sub-01_atlas-aseg_dseg.nii.gz')
    true = load(truth(phantom, 'desc-truth_dseg.nii.gz'))
    for label, own in {12: [1], 51: [101], 10: [20], 49: [120], 2: [30]}.items():
        here, there = found == label, np.isin(true, own)
        dice = 2 * np.sum(here & there) / (here.sum() + there.sum())
        assert dice > (0.6 if label != 2 else 0.75), f'label {label}'


def test_given_transforms_place_the_atlas_as_our_own(base_run, given_run):
    one, other = (
        load(Path(run.out) / 'sub-01/anat/sub-01_atlas-CIT168_dseg.nii.gz') > 0
        for run in (base_run, given_run)
    )
    assert 2 * np.sum(one & other) / (one.sum() + other.sum()) > 0.8


def test_each_use_is_recorded(given_run):
    out = Path(given_run.out)
    anat = out / 'sub-01/anat'

    def sources(atlas):
        return json.loads((anat / f'sub-01_atlas-{atlas}_dseg.json').read_text())['Sources']

    assert 'bids:prep:sub-01/anat/sub-01_desc-aseg_dseg.nii.gz' in sources('aseg')
    assert 'bids:prep:sub-01/anat/sub-01_desc-preproc_T1w.nii.gz' in sources('aseg')
    assert 'bids:fs:sub-01/mri/aparc+aseg.mgz' in sources('aparcaseg')
    assert 'bids:seg:sub-01_T1w_synthseg.nii.gz' in sources('synthseg')
    assert any('from-T1w_to-MNI152NLin2009cAsym' in uri for uri in sources('CIT168'))
    links = json.loads((out / 'dataset_description.json').read_text())['DatasetLinks']
    assert {'raw', 'prep', 'fs', 'seg'} <= set(links)
    text = (out / 'logs/CITATION.md').read_text()
    assert 'were taken from fMRIPrep 25.1.0 (dataset prep)' in text
    assert 'segmentation synthseg' in text
    assert 'found by registration to the full-head template' not in text.split('T1w image')[-1]
    page = (out / 'sub-01.html').read_text()
    assert 'fMRIPrep 25.1.0 (dataset prep)' in page
    assert 'DERANAT' in page
    facts = json.loads((out / 'sub-01/figures/sub-01_desc-summary_report.json').read_text())
    steps = facts['registration']['steps']
    assert [step.get('kind') for step in steps] == ['rigid', 'given']
    assert all(step['passed'] for step in steps)
    assert steps[1]['round_trip_mm'] < 2


def test_results_are_valid_bids(given_run):
    done = subprocess.run([VALIDATOR, given_run.out], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
