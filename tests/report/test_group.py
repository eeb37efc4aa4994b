import json
import re

import pandas as pd
import pytest

from qsmflow import tables
from qsmflow.report import build_group, charts
from qsmflow.report.group import find_tables, series_labels


@pytest.fixture
def group(tmp_path, write_series):
    """Eight subjects, one with two sessions, one far out."""
    for i in range(1, 9):
        write_series(tmp_path, f'sub-{i:02d}_ses-1', session='1', shift=0.8 if i == 5 else i / 100)
    write_series(tmp_path, 'sub-02_ses-2', session='2', shift=0.03, status='failed')
    participants = tmp_path / 'participants.tsv'
    rows = '\n'.join(f'sub-{i:02d}\t{20 + i}\t{"F" if i % 2 else "M"}' for i in range(1, 11))
    participants.write_text(f'participant_id\tage\tsex\n{rows}\n', encoding='utf-8')
    return tmp_path, participants


def test_one_tidy_table_merged_with_participants(group):
    out_dir, participants = group
    written = build_group(out_dir, participants)
    assert [p.name for p in written] == ['group_atlas-CIT168_stats.tsv', 'group.html']
    table = pd.read_csv(written[0], sep='\t', na_values=['n/a'])
    assert len(table) == 9 * 12
    keys = ['participant_id', 'session_id', 'region', 'hemi', 'map']
    assert not table.duplicated(keys).any()
    assert set(table.loc[table.participant_id == 'sub-04', 'age']) == {24}
    assert (out_dir / 'group_atlas-CIT168_stats.json').is_file()


def test_dictionary_of_the_group_has_the_words_of_the_dataset(group):
    out_dir, participants = group
    entry = {'Description': 'Age at the scan', 'Units': 'year'}
    participants.with_suffix('.json').write_text(json.dumps({'age': entry}))
    stats = next(iter(sorted(out_dir.glob('sub-*/**/anat/*_stats.json'))))
    content = json.loads(stats.read_text())
    content['region']['Levels'] = {'caudate': 'Caudate nucleus'}
    stats.write_text(json.dumps(content))
    build_group(out_dir, participants)
    dictionary = json.loads((out_dir / 'group_atlas-CIT168_stats.json').read_text())
    assert dictionary['age'] == entry
    assert dictionary['sex'] == {'Description': 'Column sex of participants.tsv'}
    assert dictionary['region']['Levels'] == {'caudate': 'Caudate nucleus'}


def test_outliers_are_named_in_table_and_page(group):
    out_dir, participants = group
    stats, page = build_group(out_dir, participants)
    table = pd.read_csv(stats, sep='\t', na_values=['n/a'])
    assert set(table.loc[table.outlier == 1, 'participant_id']) == {'sub-05'}
    text = page.read_text(encoding='utf-8')
    section = text[text.index('id="CIT168-outliers"') : text.index('id="CIT168-chart-1"')]
    named = re.findall(r'<a href="(sub-\d+)\.html">(.*?)</a>', section)
    assert set(named) == {('sub-05', '05 ses-1')}
    assert len(named) == 10  # 6 region sides x 2 maps, less the empty one in both


def test_chart_names_the_outlier():
    rows = [
        {'region': 'GPe', 'hemi': 'L', 'kind': 'region', 'map': 'chi', 'unit': 'ppb',
         'mean': value, 'label': f's{i}'}
        for i, value in enumerate([100.0, 101.0, 99.0, 102.0, 98.0, 400.0, 401.0, -200.0])
    ]  # fmt: skip
    table = tables.flag_outliers(pd.DataFrame(rows))
    svg = charts.group_chart(table, 'chi')
    comments = re.findall(r'<!-- (.*?) -->', svg)
    assert 's6, s5' in comments  # neighbours share one label
    assert 's7' in comments
    assert 'χ (ppb)' in comments
    assert 's0' not in comments
    assert svg == charts.group_chart(table, 'chi')
    assert charts.group_chart(table, 'R2star') == ''


def test_participants_without_a_table_are_named(group):
    out_dir, participants = group
    (out_dir / 'sub-77' / 'figures').mkdir(parents=True)
    page = build_group(out_dir, participants)[-1].read_text(encoding='utf-8')
    assert '3 participants have no region table' in page
    assert 'sub-09, sub-10, sub-77' in page
    assert '<span class="badge failed">failed</span>' in page


def test_tables_of_other_atlases_stay_apart(group, write_series):
    out_dir, _ = group
    source = out_dir / 'sub-01/ses-1/anat/sub-01_ses-1_atlas-CIT168_stats.tsv'
    source.with_name('sub-01_ses-1_atlas-mine_stats.tsv').write_bytes(source.read_bytes())
    found = find_tables(out_dir)
    assert {atlas: len(paths) for atlas, paths in found.items()} == {'CIT168': 9, 'mine': 1}
    assert found['mine'][0][1] == {'sub': '01', 'ses': '1'}
    names = [p.name for p in build_group(out_dir)]
    assert names == [
        'group_atlas-CIT168_stats.tsv', 'group_atlas-mine_stats.tsv', 'group.html',
    ]  # fmt: skip


def test_labels_leave_out_what_all_share():
    table = pd.DataFrame(
        {'participant_id': ['sub-01', 'sub-01', 'sub-02'], 'session_id': ['ses-1', 'ses-2', ''],
         'run': ['1', '1', '1']}
    )  # fmt: skip
    assert series_labels(table).tolist() == ['01 ses-1', '01 ses-2', '02']


def test_a_group_of_one_has_no_outliers(tmp_path, write_series):
    write_series(tmp_path, 'sub-01')
    page = build_group(tmp_path)[-1].read_text(encoding='utf-8')
    assert 'fewer than four values' in page


def test_nothing_to_group_says_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match='run the participant level first'):
        build_group(tmp_path)
