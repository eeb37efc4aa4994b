"""Drawing a graph, with and without the program that does it; earlier runs of a report."""

import json
import os
import sys

import pytest
from nipype.interfaces.utility import IdentityInterface

from qsmflow.cli import texts
from qsmflow.engine import Node, Workflow


@pytest.fixture
def workflow(tmp_path):
    found = Workflow(name='qsmflow_wf', base_dir=str(tmp_path / 'work'))
    first, second = (
        Node(IdentityInterface(fields=['x']), name=name) for name in ('first', 'second')
    )
    found.connect(first, 'x', second, 'x')
    return found


def test_graph_is_kept_where_nothing_can_draw_it(workflow, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv('PATH', str(tmp_path / 'empty'))
    texts.draw_graph(workflow, tmp_path)
    assert 'first' in (tmp_path / 'graph.dot').read_text()
    assert 'Install Graphviz' in caplog.text
    assert not list(tmp_path.glob('*.svg'))


def test_graph_is_drawn_where_dot_is(workflow, tmp_path, monkeypatch, caplog):
    program = tmp_path / 'bin/dot'
    program.parent.mkdir()
    program.write_text(
        f'#!{sys.executable}\nimport sys\n'
        'source = next(a for a in sys.argv[1:] if a.endswith(".dot"))\n'
        'open(source.replace(".dot", ".svg"), "w").write("<svg/>")\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv('PATH', f'{program.parent}:{os.environ["PATH"]}')
    texts.draw_graph(workflow, tmp_path)
    assert 'first' in (tmp_path / 'graph.dot').read_text()
    assert 'Graphviz' not in caplog.text


def earlier(out, run, rows, settings='x = 1\n'):
    folder = out / 'logs' / run
    folder.mkdir(parents=True)
    (folder / 'status.tsv').write_text('name\tstatus\treason\n' + ''.join(rows))
    (folder / 'qsmflow.toml').write_text(settings)
    return folder / 'status.tsv'


def test_report_names_the_last_run_that_processed_the_subject(tmp_path):
    one, two = 'sub-01 report\tdone\tn/a\n', 'sub-02 report\tdone\tn/a\n'
    os.utime(earlier(tmp_path, 'a', [one, two], 'x = "a"\n'), (100, 100))
    os.utime(earlier(tmp_path, 'b', [one], 'x = "b"\n'), (200, 200))
    os.utime(earlier(tmp_path, 'c', [two], 'x = "c"\n'), (300, 300))
    info, unfinished = texts._earlier_run(tmp_path, '01')
    assert unfinished == []
    assert info['run_uuid'] == 'b'
    assert info['settings'] == 'x = "b"\n'
    assert 'report made with' not in info
    assert texts._earlier_run(tmp_path, '02')[0]['run_uuid'] == 'c'
    assert 'run_uuid' not in texts._earlier_run(tmp_path, '03')[0]


def test_what_was_left_undone_is_told_again(tmp_path):
    lost = 'sub-01_run-2\tfailed\tno brain\n'
    other = 'sub-011\tfailed\tx\n'
    earlier(
        tmp_path, 'a', ['sub-01_run-1\tdone\tn/a\n', lost, other, 'sub-01 report\tdone\tn/a\n']
    )
    _, unfinished = texts._earlier_run(tmp_path, '01')
    assert unfinished == [{'name': 'sub-01_run-2', 'status': 'failed', 'reason': 'no brain'}]


def test_results_of_another_version_keep_its_name(tmp_path):
    figures = tmp_path / 'sub-01/figures'
    figures.mkdir(parents=True)
    summary = {'series': 'sub-01', 'versions': {'qsmflow': '0.0.9'}}
    (figures / 'sub-01_desc-summary_report.json').write_text(json.dumps(summary))
    info, _ = texts._earlier_run(tmp_path, '01')
    assert info['version'] == '0.0.9'
    assert info['report made with'].startswith('qsmflow ')
