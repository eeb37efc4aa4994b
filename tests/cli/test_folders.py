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
