"""The group level: it follows labels and ``--dry-run``, and refuses what it cannot follow."""

import csv

import pytest

from qsmflow import tables
from qsmflow.bids.findings import DatasetError
from qsmflow.cli import group
from qsmflow.cli.parser import parse_args
from tests.cli.usage import refuse
from tests.report.conftest import make_rows

SERIES = ('sub-01_ses-pre_run-1', 'sub-01_ses-post_run-2', 'sub-02_ses-pre', 'sub-10_acq-hi')


@pytest.fixture
def results(folders, tmp_path):
    """Write the region tables of four series; return the command line of the group level."""
    for name in SERIES:
        anat = tmp_path / 'out' / name.partition('_')[0] / 'anat'
        tables.write_stats(make_rows(), anat / f'{name}_atlas-CIT168_stats.tsv')
    return [*folders[:2], 'group']


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob('*'))


def combined(folder):
    """Return participants and sessions of the table that was written."""
    with open(folder / 'group_atlas-CIT168_stats.tsv', encoding='utf-8') as stream:
        rows = list(csv.DictReader(stream, delimiter='\t'))
    return {(row['participant_id'], row.get('session_id', '')) for row in rows}


def test_dry_run_names_the_tables_and_writes_nothing(results, tmp_path, capsys):
    before = names(tmp_path)
    assert group.run(parse_args([*results, '--dry-run'])) == 0
    out = capsys.readouterr().out
    assert 'group_atlas-CIT168_stats.tsv, of 4 series' in out
    for name in (*SERIES, 'group.html'):
        assert name in out
    assert names(tmp_path) == before


@pytest.mark.parametrize(
    ('options', 'expected'),
    [
        (
            [],
            {('sub-01', 'ses-pre'), ('sub-01', 'ses-post'), ('sub-02', 'ses-pre')}
            | {('sub-10', 'n/a')},
        ),
        (['--participant-label', '02', '10'], {('sub-02', 'ses-pre'), ('sub-10', 'n/a')}),
        (['--session-label', 'ses-post'], {('sub-01', 'ses-post')}),
        (['--acq-label', 'hi'], {('sub-10', '')}),
        (['--run-label', '01'], {('sub-01', 'ses-pre')}),
    ],
)
def test_labels_narrow_the_table(results, tmp_path, options, expected):
    assert group.run(parse_args([*results, *options])) == 0
    assert combined(tmp_path / 'out') == expected


def test_the_page_says_what_was_chosen_and_misses_nobody_else(results, tmp_path):
    (tmp_path / 'raw/participants.tsv').write_text('participant_id\nsub-01\nsub-77\n')
    assert group.run(parse_args([*results, '--participant-label', '01'])) == 0
    page = (tmp_path / 'out/group.html').read_text(encoding='utf-8')
    assert 'sub-01' in page
    assert 'sub-77' not in page
    assert 'sub-02' not in page


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (['--participant-label', '03'], ["participant '03'", 'Did you mean', '01, 02, 10']),
        (['--session-label', 'prae'], ["session 'prae'", 'Did you mean pre?']),
        (['--participant-label', '02', '--session-label', 'post'], ["session 'post'"]),
    ],
)
def test_unknown_labels_are_refused(results, tmp_path, options, words):
    before = names(tmp_path)
    with pytest.raises(DatasetError) as caught:
        group.run(parse_args([*results, *options]))
    assert caught.value.exit_code == 2
    for word in ('E91', *words):
        assert word in str(caught.value)
    assert names(tmp_path) == before


def test_no_table_at_all(folders):
    with pytest.raises(group.NothingToGroupError, match='participant level') as caught:
        group.run(parse_args([*folders[:2], 'group', '--participant-label', '01']))
    assert caught.value.exit_code == 65


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (['--reports-only'], ['--reports-only', 'anew']),
        (['--boilerplate_only'], ['--boilerplate_only', 'participant level']),
        (['--dry-run-json', '-'], ['--dry-run-json', 'Give --dry-run']),
        (['--bids-filter-file', 'filter.json'], ['--bids-filter-file', '--participant-label']),
    ],
)
def test_what_it_cannot_follow_is_refused(results, capsys, tmp_path, options, words):
    (tmp_path / 'here/filter.json').write_text('{}')
    message = refuse(capsys, [*results, *options])
    for word in ('not possible at the group level', *words):
        assert word in message


def test_a_settings_file_is_held_to_the_same(results, capsys, tmp_path):
    config = tmp_path / 'config.toml'
    (tmp_path / 'filter.json').write_text('{}')
    config.write_text(f'[bids]\nbids_filter_file = "{tmp_path}/filter.json"\n')
    assert parse_args([*results, '--config-file', str(config)]), 'it was for the participants'
    config.write_text('[execution]\nreports_only = true\n')
    assert 'execution.reports_only' in refuse(capsys, [*results, '--config-file', str(config)])
