"""What comes from others is text: no markup, no formula, no path, and nothing private."""

import csv
import html
import json
import re

import pytest

from qsmflow.bids.checks_metadata import PUBLIC_FIELDS
from qsmflow.bids.derivatives import derivative_path
from qsmflow.report import build_group, build_report
from qsmflow.settings import ExecutionSettings, SettingsError
from qsmflow.tables import write_stats

SCRIPT = '<script>alert("x")</script>'
HOSTILE = f'{SCRIPT}</title><img src=x onerror=y>\t=HYPERLINK("http://x")\n\'$\\frac{{\' &amp;'

QUOTED = '"' + SCRIPT.replace('"', '""') + '\t=a\nb"'


def rows(path):
    with open(path, encoding='utf-8', newline='') as stream:
        return list(csv.DictReader(stream, delimiter='\t', quoting=csv.QUOTE_NONE))


def assert_inert(page):
    assert 'alert(' in page, 'the text is there'
    assert '<script>alert' not in page
    assert '<img src=x' not in page
    assert page.count('</title>') == 1


def region_table(out, subject, region='caudate', mean=0.04):
    row = {'region': region, 'hemi': 'L', 'kind': 'region', 'map': 'chi', 'mean': mean}
    more = {'n_voxels': 9, 'coverage': 1.0, 'median': mean, 'p25': mean, 'p75': mean}
    path = out / subject / 'anat' / f'{subject}_atlas-X_stats.tsv'
    return write_stats([{**row, **more, 'p5': mean, 'p95': mean, 'qc': 'ok'}], path)


@pytest.fixture
def group(tmp_path):
    """Return tables and page of a group whose participants.tsv and regions are hostile."""
    raw, out = tmp_path / 'raw', tmp_path / 'out'
    raw.mkdir()
    cells = {
        'participant_id': [f'sub-0{n}' for n in range(1, 6)],
        'note': ['=1+1', '@SUM(A1)', "+cmd|' /C calc'!A0", '-2+3+cmd|x', QUOTED],
        'genotype': ['+/-', '-', '+', '-/-', '+/+'],
        'age': ['31', '-4', '1e1', '52', '63'],
        'site_name': ['A'] * 5,
        'patient_name': ['Jane Roe'] * 5,
        'BirthDate': ['1970-01-02'] * 5,
        '=header': ['x'] * 5,
    }
    lines = ['\t'.join(cells), *('\t'.join(row) for row in zip(*cells.values(), strict=True))]
    (raw / 'participants.tsv').write_text('\n'.join(lines) + '\n')
    for number in range(1, 6):
        region = HOSTILE if number == 1 else 'caudate'
        region_table(out, f'sub-0{number}', region, 0.04 if number < 5 else 9.0)
    build_group(out, raw / 'participants.tsv')
    return out


def test_group_table_has_no_formulas_and_no_broken_rows(group):
    table = rows(group / 'group_atlas-X_stats.tsv')
    notes = [row['note'] for row in table]
    assert notes[:4] == ["'=1+1", "'@SUM(A1)", "'+cmd|' /C calc'!A0", "'-2+3+cmd|x"]
    assert notes[4] == f'{SCRIPT} =a b'
    assert [row['genotype'] for row in table] == ['+/-', '-', '+', '-/-', '+/+']
    assert [row['age'] for row in table] == ['31', '-4', '10', '52', '63']
    assert {row["'=header"] for row in table} == {'x'}
    assert None not in table[0], 'as many cells as columns'
    assert all('\t' not in value for row in table for value in row.values())
    assert table[0]['region'] == ' '.join(HOSTILE.split())


def test_private_columns_are_not_copied(group):
    for path in group.glob('group*'):
        text = path.read_text(encoding='utf-8')
        assert 'Jane Roe' not in text
        assert '1970' not in text
    assert rows(group / 'group_atlas-X_stats.tsv')[0]['site_name'] == 'A'


def test_group_page_is_inert(group):
    assert_inert((group / 'group.html').read_text(encoding='utf-8'))


def test_report_is_inert_whatever_the_summary_holds(tmp_path):
    """A sidecar's texts reach the page by the summary: all of it is hostile here."""
    name, figures = 'sub-01', tmp_path / 'sub-01/figures'
    figures.mkdir(parents=True)
    finding = dict.fromkeys(('code', 'level', 'message', 'file', 'remedy'), HOSTILE)
    summary = {
        'series': HOSTILE,
        'status': HOSTILE,
        'sources': [HOSTILE],
        'acquisition': {**dict.fromkeys(PUBLIC_FIELDS, HOSTILE), 'EchoTime': 0.01, HOSTILE: 1},
        'findings': [{**finding, 'evidence': {HOSTILE: HOSTILE, 'list': [HOSTILE]}}],
        'warnings': [HOSTILE],
        'mask': {'method': HOSTILE, 'volume_ml': 1.0, HOSTILE: HOSTILE},
        'reference': {'region': HOSTILE, 'mean': 0.1},
        'registration': {'passed': False, 'reasons': [HOSTILE]},
        'methods': HOSTILE,
        'parameters': {HOSTILE: {HOSTILE: HOSTILE}},
        'versions': {HOSTILE: HOSTILE},
        HOSTILE: {HOSTILE: HOSTILE},
    }
    summary['acquisition']['MagneticFieldStrength'] = 3.0
    (figures / f'{name}_desc-summary_report.json').write_text(json.dumps(summary))
    region_table(tmp_path, 'sub-01', HOSTILE)
    status = [{'name': 'sub-01', 'status': 'failed', 'reason': HOSTILE}]
    path = build_report(
        tmp_path, '01', {'title': HOSTILE, 'note': HOSTILE, 'x': 'a\n' + HOSTILE}, status
    )
    page = path.read_text(encoding='utf-8')
    assert_inert(page)
    tags = set(re.findall(r'<\s*/?\s*([a-zA-Z]+)', page))
    assert 'iframe' not in tags
    assert html.escape(SCRIPT, quote=False)[:20] in page


@pytest.mark.parametrize(
    'label', ['../x', '..', 'a/b', '/etc', 'a_b', '', ' ', 'a\n', 'x' + '/..' * 9]
)
def test_labels_cannot_lead_out_of_the_output_folder(label):
    for key in ('desc', 'space', 'atlas', 'label', 'seg', 'res'):
        try:
            path = derivative_path({'sub': '01'}, suffix='dseg', **{'atlas': 'X', key: label})
        except ValueError:
            continue
        assert label == '', 'an empty label is left out'
        assert '..' not in path


@pytest.mark.parametrize('name', ['../x', '/tmp/x', 'a/b', '..', '.hidden', 'a b', 'a\n'])
def test_name_of_a_run_is_no_path(name):
    with pytest.raises(SettingsError, match='run_uuid'):
        ExecutionSettings(run_uuid=name)
    assert ExecutionSettings(run_uuid='20261128-1200_a.b-c').run_uuid


def test_private_fields_of_sidecars_are_in_no_list():
    """What is copied is a list of names; none of them says who, when or where."""
    private = re.compile(r'Patient|Name$|Date|Time$|ID$|UID|Serial|Institution|Station|Operator')
    allowed = {'ManufacturersModelName', 'ReceiveCoilName', 'RepetitionTime', 'DwellTime'}
    assert not [f for f in PUBLIC_FIELDS if private.search(f) and f not in allowed]
