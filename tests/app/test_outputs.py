"""The participant level with its defaults, and the group level: what they leave."""

import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from qsmflow import atlas, io
from qsmflow.registration import warp_labels
from tests.app.helpers import (
    GROUP_FILES,
    STAMP,
    VALIDATOR,
    agreement,
    load,
    rows,
    status,
    truth,
)

EXPECTED = Path(__file__).with_name('outputs.txt').read_text().split()
#: Regions of many voxels, even on the coarse grid of the small phantom.
REGIONS = [(name, side) for name in ('caudate', 'putamen', 'GPe') for side in 'LR']


def test_finishes_and_says_so(base_run):
    assert base_run.code == 0, base_run.stderr
    assert base_run.last_line.endswith(
        'all requested acquisitions and reports are done; exit code 0'
    )
    assert status(base_run) == {'sub-01': ('done', 'n/a'), 'sub-01 report': ('done', 'n/a')}


def test_writes_exactly_what_is_listed(base_run):
    assert sorted(base_run.files - GROUP_FILES) == sorted(EXPECTED)
    hidden = [path for path in Path(base_run.out).rglob('.*') if path.name != '.bidsignore']
    assert not hidden


@pytest.mark.parametrize('which', ['input', 'output'])
def test_is_valid_bids(phantom, base_run, which):
    folder = phantom if which == 'input' else base_run.out
    done = subprocess.run([VALIDATOR, folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_progress_is_lines_with_time_when_there_is_no_terminal(base_run):
    lines = [line for line in base_run.stderr.splitlines() if line.startswith('[')]
    assert all(re.match(rf'{STAMP}sub-01( T1w)?: .+ done \(\d+/\d+\)$', line) for line in lines)
    assert any('dipole inversion: invert done' in line for line in lines)
    assert 8 < len(lines) < 35, 'one line for each step, none for each stored file'
    assert '\x1b' not in base_run.stderr
    assert 'Traceback' not in base_run.stderr


def test_regions_agree_with_the_truth(phantom, base_run):
    table = rows(Path(base_run.out) / 'sub-01/anat/sub-01_atlas-CIT168_stats.tsv')
    found = {(row['region'], row['hemi'], row['map']): row for row in table}
    true = {(r['name'], r['hemi']): r for r in rows(truth(phantom, 'desc-truth_stats.tsv'))}
    chi = np.array([float(found[(*region, 'chi')]['mean']) for region in REGIONS])
    r2star = np.array([float(found[(*region, 'R2star')]['mean']) for region in REGIONS])
    assert {found[(*region, 'chi')]['unit'] for region in REGIONS} == {'ppb'}
    # The table is in ppb, the truth in ppm. The tolerance is that of voxels of 4 mm.
    expected = 1000 * np.array([float(true[region]['chi_mean']) for region in REGIONS])
    assert np.abs(chi - expected).max() < 45
    assert 0.5 < np.polyfit(expected, chi, 1)[0] < 1.3
    expected = np.array([float(true[region]['r2star_mean']) for region in REGIONS])
    assert np.abs(r2star / expected - 1).max() < 0.2
    whole = found['whole_brain', 'n/a', 'chi']
    assert abs(float(whole['mean'])) < 0.01, 'the whole brain is the reference'
    assert whole['reference'] == 'whole_brain'


def test_labels_follow_from_the_stored_transforms(base_run):
    anat = Path(base_run.out) / 'sub-01/anat'
    ways = (
        'from-GRE_to-GRE_mode-image_desc-CIT168nuclei_xfm.nii.gz',
        'from-T1w_to-GRE_mode-image_xfm.txt',
        'from-MNI152NLin2009cAsym_to-T1w_mode-image_xfm.h5',
    )
    stored = io.load_volume(anat / 'sub-01_atlas-CIT168_dseg.nii.gz')
    dseg = io.load_volume(atlas.load_atlas('CIT168').dseg)
    moved = warp_labels(dseg, stored, [str(anat / f'sub-01_{way}') for way in ways])
    np.testing.assert_array_equal(moved.data, stored.data)


def test_map_agrees_with_the_truth(phantom, base_run):
    anat = Path(base_run.out) / 'sub-01/anat'
    correlation, slope = agreement(
        anat / 'sub-01_Chimap.nii.gz', anat / 'sub-01_desc-qsm_mask.nii.gz', phantom
    )
    assert correlation > 0.6
    assert 0.5 < slope < 1.3
    brain = load(truth(phantom, 'desc-brain_mask.nii.gz')) > 0
    mask = load(anat / 'sub-01_desc-brain_mask.nii.gz') > 0
    assert 2 * np.sum(brain & mask) / (brain.sum() + mask.sum()) > 0.9


def test_report_has_every_section(base_run):
    html = (Path(base_run.out) / 'sub-01.html').read_text(encoding='utf-8')
    sections = re.findall(r'<section[^>]* id="sub-01-([^"]+)"', html)
    assert sections == [
        *('findings', 'magnitude', 'phase', 'total-field', 'local-field', 'chi', 'r2star'),
        *('atlas', 'registration', 'table-CIT168', 'methods', 'details'),
    ]
    assert html.count('data:image/png;base64,') >= 8
    assert not re.search(r'(?:src|href)="(?!#|data:|https://doi)[^"]', html), 'self-contained'


def test_citations_and_settings_lie_beside_the_results(phantom, base_run):
    import tomllib

    text = (Path(base_run.out) / 'logs/CITATION.md').read_text(encoding='utf-8')
    assert 'projection onto dipole fields (Liu et al. 2011)' in text
    assert '@' not in text.split('## References')[0], 'every citation was resolved'
    entries = (Path(base_run.out) / 'logs/CITATION.bib').read_text(encoding='utf-8')
    assert entries.count('\n@') + entries.startswith('@') == len(
        re.findall(r'^\d+\. ', text, re.MULTILINE)
    )
    settings = tomllib.loads((base_run.logs / 'qsmflow.toml').read_text(encoding='utf-8'))
    assert settings['bids']['bids_dir'] == str(phantom)
    assert settings['execution']['run_uuid'] == base_run.logs.name
    assert settings['reconstruction']['inversion'] == 'tv'


def test_input_is_not_touched(app, phantom, state, base_run):
    before = json.loads((app.root / 'raw.json').read_text())
    assert {name: list(entry) for name, entry in state(phantom).items()} == before


def test_group_level(app, phantom, base_run):
    with app.alone('group'):
        run = app.run(phantom, base_run.out, 'group')
    assert run.code == 0, run.stderr
    assert run.last_line.endswith('exit code 0')
    assert run.files >= GROUP_FILES
    table = rows(Path(base_run.out) / 'group_atlas-CIT168_stats.tsv')
    own = rows(Path(base_run.out) / 'sub-01/anat/sub-01_atlas-CIT168_stats.tsv')
    assert len(table) == len(own)
    assert {row['participant_id'] for row in table} == {'sub-01'}
    (participant,) = rows(phantom / 'participants.tsv')
    assert {row['age'] for row in table} == {participant['age']}
    assert [row['mean'] for row in table] == [row['mean'] for row in own]
    assert 'caudate' in (Path(base_run.out) / 'group.html').read_text(encoding='utf-8')


def test_group_level_without_tables(app, phantom, tmp_path):
    run = app.run(phantom, tmp_path / 'out', 'group')
    assert run.code == 65
    assert 'participant level' in run.last_line
    assert run.last_line.endswith('exit code 65')


def test_dry_run_leaves_nothing(app, phantom, state, tmp_path):
    before = state(phantom)
    out, work = tmp_path / 'out', tmp_path / 'work'
    run = app.run(phantom, out, 'participant', '--dry-run', work=work)
    assert run.code == 0, run.stderr
    assert 'sub-01: will be processed' in run.stdout
    assert not list(tmp_path.iterdir())
    assert state(phantom) == before
