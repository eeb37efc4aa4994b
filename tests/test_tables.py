"""Region tables: what is written is what is read, and a group keeps every subject."""

import json

import numpy as np
import pandas as pd
import pytest

from qsmflow import tables
from qsmflow.algorithms.regions import RegionRow, region_statistics

NAN = float('nan')


def rows(offset=0.0):
    labels = np.zeros((12, 12, 12), int)
    labels[2:6, 2:6, 2:6], labels[7:11, 2:6, 2:6] = 1, 2
    chi = 0.05 * labels + offset
    regions = [
        RegionRow('caudate', 'L', (1,)),
        RegionRow('caudate', 'R', (2,)),
        RegionRow('dentate', 'L', (3,)),
        RegionRow('whole_brain'),
    ]
    maps = {'chi': chi, 'R2star': chi * 0 + 20.0, 'T2star': chi * 0 + 0.05}
    return region_statistics(maps, labels, regions, labels >= 0, (1, 1, 1), reference='csf')


def pick(table, region, hemi, name='chi'):
    match = table[(table.region == region) & (table.hemi == hemi) & (table['map'] == name)]
    assert len(match) == 1
    return match.iloc[0]


def test_written_numbers_are_read_in_table_units(tmp_path):
    path = tables.write_stats(rows(), tmp_path / 'deep' / 'sub-01_atlas-X_stats.tsv')
    table = tables.read_stats(path)
    assert list(table.columns) == list(tables.COLUMNS)
    assert len(table) == 12
    chi = pick(table, 'caudate', 'R')
    assert (chi['mean'], chi['unit'], chi['reference']) == (pytest.approx(100), 'ppb', 'csf')
    assert chi['difference'] == pytest.approx(-50)
    assert chi['asymmetry'] == pytest.approx(-2 / 3, rel=1e-5)
    assert pick(table, 'caudate', 'R', 'R2star')['mean'] == 20
    t2star = pick(table, 'caudate', 'R', 'T2star')
    assert (t2star['mean'], t2star['unit']) == (pytest.approx(50), 'ms')


def test_dictionary_says_what_values_mean(tmp_path):
    regions = {'caudate': 'Caudate nucleus', 'whole_brain': 'All of it', 'unused': 'Not there'}
    path = tables.write_stats(rows(), tmp_path / 'a_stats.tsv', regions=regions)
    dictionary = json.loads(path.with_suffix('.json').read_text())
    assert dictionary['region']['Levels'] == {
        'caudate': 'Caudate nucleus', 'whole_brain': 'All of it',
    }  # fmt: skip
    assert set(dictionary['kind']['Levels']) == {'region', 'group', 'mask'}
    assert '0.8' in dictionary['qc']['Levels']['partial']
    assert '10' in dictionary['qc']['Levels']['small']
    flags = {'ok', 'empty', 'partial', 'small', 'registration', 'prior'}
    assert set(dictionary['qc']['Levels']) == flags


def test_file_is_tidy_text(tmp_path):
    path = tables.write_stats(rows(), tmp_path / 'a_stats.tsv')
    lines = path.read_bytes().decode().split('\n')
    assert lines[0].split('\t') == list(tables.COLUMNS)
    assert lines[-1] == ''
    assert {len(line.split('\t')) for line in lines[:-1]} == {len(tables.COLUMNS)}
    (empty,) = [line.split('\t') for line in lines if line.startswith('dentate\tL\tregion\tchi')]
    cells = dict(zip(tables.COLUMNS, empty, strict=True))
    assert cells['mean'] == cells['p5'] == cells['core_mean'] == 'n/a'
    assert (cells['n_voxels'], cells['qc']) == ('0', 'empty')
    assert 'nan' not in path.read_text()


def test_same_rows_give_the_same_bytes_and_no_debris(tmp_path):
    one = tables.write_stats(rows(), tmp_path / 'one_stats.tsv')
    two = tables.write_stats(rows(), tmp_path / 'two_stats.tsv')
    assert one.read_bytes() == two.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        'one_stats.json', 'one_stats.tsv', 'two_stats.json', 'two_stats.tsv'
    ]  # fmt: skip


def test_failure_leaves_the_old_table(tmp_path):
    path = tables.write_stats(rows(), tmp_path / 'a_stats.tsv')
    before = path.read_bytes()
    with pytest.raises(ValueError, match='no columns'):
        tables.write_stats([{'region': 'x', 'colour': 'red'}], path)
    assert path.read_bytes() == before
    with pytest.raises(ValueError, match=r'ends in \.tsv'):
        tables.write_stats(rows(), tmp_path / 'a_stats.csv')


def test_rows_in_table_units_are_not_converted_twice(tmp_path):
    path = tables.write_stats(rows(), tmp_path / 'a_stats.tsv')
    first = tables.read_stats(path)
    again = tables.read_stats(
        tables.write_stats(first.to_dict('records'), tmp_path / 'b_stats.tsv')
    )
    pd.testing.assert_frame_equal(first, again)


def test_numbers_keep_six_digits_and_text_its_line(tmp_path):
    row = {'region': 'a\tb\n', 'map': 'R2star', 'mean': 1234567.0, 'sd': 1 / 3, 'p5': -0.0}
    path = tables.write_stats([row], tmp_path / 'a_stats.tsv')
    table = tables.read_stats(path)
    assert table.region[0] == 'a b'
    cells = path.read_text().splitlines()[1].split('\t')
    values = dict(zip(tables.COLUMNS, cells, strict=True))
    assert (values['mean'], values['sd'], values['p5']) == ('1.23457e+06', '0.333333', '0')
    assert values['median'] == 'n/a'


def test_dictionary_describes_every_column(tmp_path):
    path = tables.write_stats(rows(), tmp_path / 'a_stats.tsv')
    dictionary = json.loads(path.with_suffix('.json').read_text())
    assert list(dictionary) == list(tables.COLUMNS)
    assert all(entry['Description'] for entry in dictionary.values())
    assert dictionary['volume_mm3']['Units'] == 'mm^3'
    assert 'unit' in dictionary['mean']['Units']


def test_table_of_another_kind_is_refused(tmp_path):
    path = tmp_path / 'x.tsv'
    path.write_text('a\tb\n1\t2\n')
    with pytest.raises(ValueError, match='not a table of regions'):
        tables.read_stats(path)


@pytest.fixture
def study(tmp_path):
    people = tmp_path / 'participants.tsv'
    people.write_text(
        'participant_id\tage\tgroup\tmean\nsub-02\t61\tPD\t1\nsub-01\tn/a\tHC\t2\nsub-09\t5\tHC\t3\n'
    )
    parts = []
    for subject, session, offset in (
        ('02', '1', 0.01),
        ('02', '2', 0.02),
        ('01', '1', 0.0),
        ('03', '1', 0.03),
    ):
        name = tmp_path / f'sub-{subject}_ses-{session}_stats.tsv'
        tables.write_stats(rows(offset), name)
        parts.append((name, {'sub': subject, 'ses': session}))
    return parts, people


def test_group_joins_series_and_participants(study, tmp_path):
    parts, people = study
    table = tables.group_table(parts, people)
    assert len(table) == 4 * 12
    assert list(table.columns[:5]) == [
        'participant_id',
        'session_id',
        'age',
        'group',
        'participant_mean',
    ]
    assert table.participant_id.drop_duplicates().tolist() == ['sub-01', 'sub-02', 'sub-03']
    second = table[(table.participant_id == 'sub-02') & (table.session_id == 'ses-2')]
    assert pick(second, 'caudate', 'L')['mean'] == pytest.approx(70)
    assert second.age.unique().tolist() == [61]
    assert table[table.participant_id == 'sub-01'].age.isna().all()
    assert table[table.participant_id == 'sub-03'].group.isna().all()  # not in participants.tsv


def test_group_without_participants_or_sessions(study):
    parts, _ = study
    alone = tables.group_table([(parts[0][0], {'subject': 'sub-02'})])
    assert list(alone.columns) == ['participant_id', *tables.COLUMNS]
    missing = tables.group_table([(parts[0][0], {'sub': '02', 'run': '1'})], 'no/participants.tsv')
    assert list(missing.columns[:2]) == ['participant_id', 'run']
    empty = tables.group_table([])
    assert list(empty.columns) == ['participant_id', *tables.COLUMNS]


def test_sessions_of_some_subjects_only(study):
    parts, people = study
    mixed = [(parts[0][0], {'sub': '02', 'ses': '1'}), (parts[2][0], {'sub': '01'})]
    table = tables.group_table(mixed, people)
    assert table[table.participant_id == 'sub-01'].session_id.unique().tolist() == ['']


def test_participants_without_identifier_are_refused(study, tmp_path):
    parts, _ = study
    bad = tmp_path / 'bad.tsv'
    bad.write_text('id\tage\n01\t3\n')
    with pytest.raises(ValueError, match='participant_id'):
        tables.group_table(parts, bad)


def test_group_is_written_with_its_dictionary(study, tmp_path):
    parts, people = study
    table = tables.flag_outliers(tables.group_table(parts, people))
    path = tables.write_group(
        table, tmp_path / 'group_atlas-X_stats.tsv', {'age': {'Description': 'Age in years'}}
    )
    dictionary = json.loads(path.with_suffix('.json').read_text())
    assert set(dictionary) == set(table.columns)
    assert dictionary['age']['Description'] == 'Age in years'
    back = tables.read_stats(path)
    assert len(back) == len(table)
    np.testing.assert_allclose(back['mean'].astype(float), table['mean'], rtol=1e-5)
    assert set(back.outlier) == {'0'}
    assert back.age[0] == 'n/a'


def test_columns_of_participants_are_described_as_in_the_dataset(study, tmp_path):
    people = tmp_path / 'participants.tsv'
    people.write_text('participant_id\tage\tsex\tkind\tbirth_date\tx\n01\t3\tF\tb\t1970\t1\n')
    told = {
        'age': {'Description': 'Age at\n the scan', 'Units': 'year', 'Secret': 'x', 'LongName': 3},
        'sex': {'Levels': {'F': {'Description': 'female', 'TermURL': 'u'}, '=M': '=male'}},
        'kind': {'Description': 'Kind of study'},
        'birth_date': {'Description': 'When Jane Roe was born'},
    }
    people.with_suffix('.json').write_text(json.dumps(told))
    described = tables.participant_columns(people)
    assert described == {
        'age': {'Description': 'Age at the scan', 'Units': 'year'},
        'sex': {
            'Levels': {'F': 'female', "'=M": "'=male"},
            'Description': 'Column sex of participants.tsv',
        },
        'participant_kind': {'Description': 'Kind of study'},
        'x': {'Description': 'Column x of participants.tsv'},
    }
    people.with_suffix('.json').write_text('{ not json')
    assert set(tables.participant_columns(people)) == set(described)
    people.with_suffix('.json').write_text('[]')
    assert tables.participant_columns(people)['age']['Description'].startswith('Column age')
    assert tables.participant_columns(None) == {}


def group_of(values, region='SN'):
    return pd.DataFrame({'region': region, 'hemi': 'L', 'map': 'chi', 'mean': values})


def test_outliers_follow_the_formula():
    values = np.array([10.0, 11, 12, 13, 14, 15, 40])
    flagged = tables.flag_outliers(group_of(values))
    mad = np.median(np.abs(values - np.median(values)))
    np.testing.assert_allclose(flagged.robust_z, 0.6745 * (values - 13) / mad)
    assert flagged.outlier.tolist() == [False] * 6 + [True]


def test_outliers_are_sought_within_region_side_and_map():
    table = pd.concat([group_of([1.0, 2, 3, 2, 1]), group_of([101.0, 102, 103, 102, 101], 'GPe')])
    assert not tables.flag_outliers(table).outlier.any()
    table = table.assign(hemi='', **{'map': 'chi'})
    assert not tables.flag_outliers(table).outlier.any()


def test_few_or_missing_values_have_no_outliers():
    few = tables.flag_outliers(group_of([1.0, 1.0, 99.0]))
    assert few.robust_z.isna().all()
    assert not few.outlier.any()
    holes = tables.flag_outliers(group_of([1.0, 2, 3, 2, NAN, 50]))
    assert holes.outlier.tolist() == [False] * 5 + [True]
    assert np.isnan(holes.robust_z[4])


def test_equal_values_make_any_other_an_outlier():
    flagged = tables.flag_outliers(group_of([5.0, 5, 5, 5, 6]))
    assert flagged.outlier.tolist() == [False] * 4 + [True]
    assert flagged.robust_z[0] == 0


def test_flagging_does_not_modify_its_input():
    table = group_of([1.0, 2, 3, 4, 5])
    tables.flag_outliers(table)
    assert 'outlier' not in table
