"""What is told of the series of a run that stops at a failure, or soon after it."""

import csv
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / 'bids'))

import defects
from defects import program

from qsmflow.cli import workers
from qsmflow.engine import Workflow

SUBJECTS = ('01', '02', '03')


def nothing():
    return None


def graph(**_):
    """Return a graph in which the second of three participants fails in its first of two steps."""
    whole = Workflow(name='qsmflow_wf')
    for label in SUBJECTS:
        subject, series = Workflow(name=f'sub_{label}_wf'), Workflow(name=f'sub_{label}_wf')
        first = program.step(program.fail if label == '02' else nothing, 'fit')
        series.connect(first, 'out', program.step(echo, 'invert'), 'value')
        subject.add_nodes([series])
        whole.add_nodes([subject])
    return whole


def echo(value):
    return value


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Return a function that runs the program; it gives the status table and the log."""

    def start(*options):
        dataset = defects.write_clean(tmp_path / 'ds', SUBJECTS)
        launch = defects.Launch(dataset, monkeypatch)
        launch.steps = [program.step(nothing, 'so_that_it_runs')]
        launch.options += options
        monkeypatch.setattr(launch, 'graph', graph)
        for label in ('01', '02'):  # results of theirs, which reports need
            (launch.out / f'sub-{label}').mkdir(parents=True)
        assert launch.run() == 1
        (table,) = launch.out.glob('logs/*/status.tsv')
        with table.open(newline='') as stream:
            rows = {row['name']: row for row in csv.DictReader(stream, delimiter='\t')}
        return rows, capsys.readouterr().err, launch.out

    return start


def states(rows):
    return {name: row['status'] for name, row in rows.items() if 'report' not in name}


def test_others_are_done_after_a_failure(run):
    rows, log, _ = run()
    assert states(rows) == {'sub-01': 'done', 'sub-02': 'failed', 'sub-03': 'done'}
    assert rows['sub-02']['reason'].endswith('other series are not concerned.')
    assert 'other series are not concerned' in log


def early(plugin, *arguments):
    raise RuntimeError('nipype gives up')


@pytest.mark.parametrize('how', ['option', 'nipype'])
def test_series_that_were_not_run_are_not_done(run, monkeypatch, how):
    if how == 'nipype':
        monkeypatch.setattr(workers.SafeMultiProcPlugin, '_remove_node_deps', early)
    rows, log, out = run(*(['--stop-on-first-crash'] if how == 'option' else []))
    assert states(rows) == {'sub-01': 'done', 'sub-02': 'failed', 'sub-03': 'not started'}
    why = {'option': '(--stop-on-first-crash)', 'nipype': 'RuntimeError: nipype gives up'}[how]
    for name in ('sub-02', 'sub-03'):
        assert why in rows[name]['reason']
        assert why in log
    assert 'not concerned' not in rows['sub-02']['reason']
    assert why in (out / 'sub-03.html').read_text(encoding='utf-8')
    assert {row['status'] for name, row in rows.items() if 'report' in name} == {'done'}
    assert 'Traceback' not in log


def test_a_series_that_was_begun_is_interrupted(run, monkeypatch):
    """Its first step is done when the failure of another one stops the run."""
    monkeypatch.setattr(
        workers.SafeMultiProcPlugin, '_sort_jobs', lambda self, jobs, **_: by_step(self, jobs)
    )
    rows, _, _ = run('--stop-on-first-crash')
    assert states(rows) == {'sub-01': 'interrupted', 'sub-02': 'failed', 'sub-03': 'not started'}


def by_step(plugin, jobs):
    """Give the first steps of all participants their turn before the second ones."""
    return sorted(jobs, key=lambda job: (plugin.procs[job].name == 'invert', job))
