"""What commands do to folders: those of others are left alone, and none is made for nothing."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / 'bids'))

import defects

from qsmflow.cli.run import main


@pytest.fixture
def dataset(tmp_path):
    return defects.write_clean(tmp_path / 'ds').root


@pytest.fixture
def foreign(tmp_path):
    """Return results of another program, with a methods text."""
    out = tmp_path / 'fmriprep'
    (out / 'logs').mkdir(parents=True)
    content = {'DatasetType': 'derivative', 'GeneratedBy': [{'Name': 'fMRIPrep'}]}
    (out / 'dataset_description.json').write_text(json.dumps(content))
    (out / 'logs/CITATION.md').write_text('theirs')
    (out / 'sub-01.html').write_text('theirs')
    anat, figures = out / 'sub-01/anat', out / 'sub-01/figures'
    anat.mkdir(parents=True)
    figures.mkdir()
    (anat / 'sub-01_atlas-x_stats.tsv').write_text('region\tvalue\nx\t1\n')
    summary = figures / 'sub-01_desc-summary_report.json'
    summary.write_text(json.dumps({'series': 'sub-01'}))
    return out


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob('*') if path.is_file()}


@pytest.mark.parametrize(
    'options',
    [
        ('participant', '--boilerplate-only', '--skip-bids-validation'),
        ('participant', '--reports-only'),
        ('group',),
    ],
)
def test_results_of_another_program_are_left_alone(dataset, foreign, capsys, options):
    before = files(foreign)
    assert main([str(dataset), str(foreign), *options]) == 2
    assert '[FATAL E97]' in (log := capsys.readouterr().err)
    assert 'the results of fMRIPrep' in log
    assert files(foreign) == before


@pytest.mark.parametrize(
    ('options', 'code'),
    [
        (('participant', '--participant-label', '99'), 2),
        (('participant', '--inversion', 'tkd', '--inversion-param', 'x=1'), 2),
        (('participant', '--bids-filter-file', 'FILTER'), 2),
        (('participant', '--reports-only'), 65),
        (('group',), 65),
    ],
)
def test_a_run_that_does_not_start_leaves_no_folders(dataset, tmp_path, options, code):
    path = tmp_path / 'filter.json'
    path.write_text('{"megr": {}}')
    before = set(tmp_path.rglob('*'))
    options = [str(path) if word == 'FILTER' else word for word in options]
    given = [str(dataset), str(tmp_path / 'new/out'), *options, '-w', str(tmp_path / 'w/work')]
    try:
        found = main([*given, '--skip-bids-validation'])
    except SystemExit as usage:
        found = usage.code
    assert found == code
    assert set(tmp_path.rglob('*')) == before


def test_folders_that_were_there_stay(dataset, tmp_path):
    out, work = tmp_path / 'out', tmp_path / 'work'
    out.mkdir()
    work.mkdir()
    options = ['participant', '-w', str(work), '--participant-label', '99']
    assert main([str(dataset), str(out), *options]) == 2
    assert out.is_dir()
    assert work.is_dir()
