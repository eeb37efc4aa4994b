"""The status table says what is known, whenever the run ends."""

import csv

import pytest

from qsmflow.bids import Finding
from qsmflow.cli import participant
from qsmflow.cli.progress import Monitor
from qsmflow.cli.status import Ledger, Outcome
from qsmflow.settings import BIDSSettings, Settings


@pytest.fixture
def ledger(tmp_path):
    return Ledger(tmp_path / 'logs/run/status.tsv')


def table(ledger):
    with ledger.path.open(newline='') as stream:
        return [tuple(row.values()) for row in csv.DictReader(stream, delimiter='\t')]


def test_interrupted_before_anything_is_known(ledger):
    ledger.phase = 'reading the dataset'
    ledger.interrupt('received SIGTERM')
    assert table(ledger) == [('all', 'interrupted', ended('SIGTERM', 'reading the dataset'))]


def ended(name, phase):
    return (
        f'[FATAL E104] received {name} while {phase}. '
        'Run the same command again: finished steps are not repeated.'
    )


def watched(ledger):
    monitor = Monitor({'sub-01': 1, 'sub-02': 2, 'sub-03': 1, 'sub-03 T1w': 1})
    ledger.put(Outcome('sub-09', 'not started', '[ERROR B31] no\tEchoTime'))
    groups = {'sub-01': ('sub-01',), 'sub-02': ('sub-02',), 'sub-03': ('sub-03', 'sub-03 T1w')}
    ledger.watch(groups.items(), monitor)
    for name in ('sub_01', 'sub_02', 'sub_03'):
        monitor.update(f'qsmflow_wf.{name}_wf.{name}_wf.a', 'end')
    return monitor


def test_complete_series_are_done_and_the_others_are_not(ledger):
    watched(ledger)
    ledger.expect('sub-01 report')
    ledger.phase = 'computing'
    ledger.interrupt('received SIGINT')
    assert table(ledger) == [
        ('sub-09', 'not started', '[ERROR B31] no EchoTime'),
        ('sub-01', 'done', 'n/a'),
        ('sub-02', 'interrupted', ended('SIGINT', 'computing')),
        ('sub-03', 'interrupted', ended('SIGINT', 'computing')),
        ('sub-01 report', 'interrupted', ended('SIGINT', 'computing')),
    ]
    assert [one.subject for one in ledger.outcomes()] == [
        *('sub-09', 'sub-01', 'sub-02', 'sub-03', 'sub-01'),
    ]


def test_the_group_at_fault_has_failed(ledger):
    watched(ledger)
    ledger.close('killed', failed={'sub-03 T1w'})
    assert {one.name: one.status for one in ledger.unfinished()} == {
        'sub-09': 'not started',
        'sub-02': 'interrupted',
        'sub-03': 'failed',
    }


def test_what_is_known_stays(ledger):
    watched(ledger)
    ledger.put(Outcome('sub-02', 'failed', 'why'))
    ledger.close('late')
    assert {one.name: one.reason for one in ledger.unfinished()}['sub-02'] == 'why'


def test_notes_are_in_the_report_of_whom_they_concern(ledger, tmp_path):
    ledger.notes += [
        Finding('E92', 'WARN', 'one for all', 'participants.tsv'),
        Finding('B46', 'WARN', 'one for the first', 'sub-01/anat/sub-01_dir-AP_MEGRE.nii.gz'),
    ]
    settings = Settings(bids=BIDSSettings(output_dir=str(tmp_path)))
    participant._report(ledger, settings, ['sub-01', 'sub-010'])
    pages = [(tmp_path / f'sub-{one}.html').read_text(encoding='utf-8') for one in ('01', '010')]
    assert ['[WARN E92] participants.tsv: one for all' in page for page in pages] == [True, True]
    assert ['one for the first' in page for page in pages] == [True, False]
