"""Graphs on a cluster: nodes as jobs, with what nipype and Slurm ask of them.

Jobs are run by imitations of Slurm's commands; ``test_slurm.py`` has a real one.
"""

import json
import os
import pickle
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
from nipype import config
from nipype.pipeline.engine.utils import load_resultfile

from qsmflow.cli import execution, progress
from qsmflow.cluster import FolderNameError, SlurmPlugin
from qsmflow.settings import (
    BIDSSettings,
    ExecutionSettings,
    ResourceSettings,
    Settings,
)
from tests.cluster.graphs import chain, fan

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def importable(monkeypatch):
    """Let jobs import this folder's modules."""
    paths = [str(ROOT), *filter(None, [os.environ.get('PYTHONPATH')])]
    monkeypatch.setenv('PYTHONPATH', os.pathsep.join(paths))


@pytest.fixture
def nipype_options():
    """Put nipype's options back after a test."""
    before = dict(config._sections['execution'])
    yield
    config.update_config({'execution': before})


@pytest.fixture
def plugin(fake_slurm, importable, nipype_options, tmp_path):
    config.update_config(
        {
            'execution': {
                'poll_sleep_duration': '0.1',
                # A result that is not there after the end of a job does not come on one machine.
                'job_finished_timeout': '0.1',
                'crashdump_dir': str(tmp_path),
            }
        }
    )
    return SlurmPlugin(plugin_args={'poll_seconds': 0.2, 'retry_timeout': 0, 'max_tries': 1})


def submissions(fake_slurm):
    return [shlex.split(line) for line in (fake_slurm / 'sbatch.log').read_text().splitlines()]


# Jobs.


def test_nodes_run_as_jobs_in_a_folder_with_spaces(plugin, fake_slurm, tmp_path, monkeypatch):
    monkeypatch.delenv('LOGNAME', raising=False)
    folder = tmp_path / 'work; é'
    (fake_slurm / 'busy').touch()  # no answer from the queue is no end of a job
    graph = chain(folder).run(plugin=plugin)
    results = {node.name: node.result.outputs.number for node in graph.nodes()}
    assert results == {'first': 2, 'second': 3}
    first, second = submissions(fake_slurm)
    assert first[0] == '--parsable'
    assert '--job-name=first.chain_wf' in first
    assert '--mem=256M' in first, 'what the node claims and a quarter more'
    assert '--cpus-per-task=1' in second
    assert len(list((folder / 'chain_wf/batch').glob('slurm-*.out'))) == 2


def test_folders_that_nipype_would_misread_are_refused(plugin, tmp_path):
    for name in ("it's", 'run [1]'):
        with pytest.raises(FolderNameError, match=r'the work folder .* cannot hold'):
            chain(tmp_path / name).run(plugin=plugin)


def test_what_the_user_says_of_memory_wins(tmp_path):
    plugin = SlurmPlugin(
        plugin_args={'sbatch_args': '--mem-per-cpu=900 -c 3 --partition="long jobs"'}
    )
    workflow = chain(tmp_path)
    first, second = (workflow.get_node(name) for name in ('first', 'second'))
    second.plugin_args = {'sbatch_args': '--mem=2G', 'overwrite': True}
    assert plugin._options(first) == ['--mem-per-cpu=900', '-c', '3', '--partition=long jobs']
    assert plugin._options(second) == ['--cpus-per-task=1', '--mem=2G']


def test_an_error_in_a_job_is_told_as_such(plugin, tmp_path):
    with pytest.raises(RuntimeError, match='the number 1 is not liked'):
        chain(tmp_path, how='error').run(plugin=plugin)


def test_a_killed_job_is_told_with_its_output(plugin, tmp_path):
    with pytest.raises(RuntimeError, match=r'job \d+ ended without a result.*says: ') as error:
        chain(tmp_path, how='kill').run(plugin=plugin)
    assert 'slurm-' in str(error.value)


def test_a_refused_job_is_told_with_the_command(plugin, fake_slurm, tmp_path):
    (fake_slurm / 'refuse').touch()
    with pytest.raises(RuntimeError, match=r'no partition.*The command was: sbatch'):
        chain(tmp_path).run(plugin=plugin)
    assert len(submissions(fake_slurm)) == 2, 'tried again once'


def test_jobs_are_cancelled_when_the_run_is_interrupted(plugin, fake_slurm, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(plugin, '_look', interrupt)
    with pytest.raises(KeyboardInterrupt):
        chain(tmp_path, seconds=60).run(plugin=plugin)
    (job,) = (fake_slurm / 'jobs').read_text().split()
    assert (fake_slurm / 'scancel.log').read_text().split() == [job]


def test_nodes_that_did_run_are_not_run_again(plugin, fake_slurm, tmp_path):
    workflow = chain(tmp_path)
    workflow.get_node('second').inputs.how = 'error'
    with pytest.raises(RuntimeError, match='is not liked'):
        workflow.run(plugin=plugin)
    workflow = chain(tmp_path)
    workflow.run(plugin=SlurmPlugin(plugin_args={'poll_seconds': 0.2}))
    names = [words[2].partition('=')[2] for words in submissions(fake_slurm)]
    assert names == ['first.chain_wf', 'second.chain_wf', 'second.chain_wf']


# What is pickled: interfaces by their module, and the callback.


IN_A_NEW_PROCESS = """
import pickle, sys
for kind in pickle.load(open(sys.argv[1], 'rb')):
    kind()
"""


def test_interfaces_can_be_imported_by_a_job(tmp_path):
    """Jobs know an interface by its module: none may be made in a script or in a function."""
    from nipype.interfaces.base import BaseInterface

    import qsmflow.interfaces as ours
    from qsmflow.workflows import init_reconstruction_wf

    public = [getattr(ours, name) for name in ours.__all__]
    kinds = {kind for kind in public if isinstance(kind, type) and issubclass(kind, BaseInterface)}
    workflow = init_reconstruction_wf(te=[0.004, 0.012, 0.02], f0=123.2, b0_dir=None)
    names = workflow.list_node_names()
    kinds |= {type(workflow.get_node(name).interface) for name in names}
    ours_only = sorted(
        (kind for kind in kinds if kind.__module__.startswith('qsmflow')),
        key=lambda kind: kind.__name__,
    )
    assert len(ours_only) > 20
    (tmp_path / 'kinds').write_bytes(pickle.dumps(ours_only))
    done = subprocess.run(
        [sys.executable, '-c', IN_A_NEW_PROCESS, tmp_path / 'kinds'],
        capture_output=True, text=True, cwd=tmp_path, timeout=100,
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_every_node_can_be_pickled():
    from qsmflow.workflows import init_reconstruction_wf

    workflow = init_reconstruction_wf(te=[0.004, 0.012, 0.02], f0=123.2, b0_dir=None)
    for name in workflow.list_node_names():
        node = workflow.get_node(name)
        assert pickle.loads(pickle.dumps(node)).fullname == node.fullname


def test_the_callback_is_pickled_by_name():
    assert pickle.loads(pickle.dumps(progress.status_callback)) is progress.status_callback


@pytest.mark.parametrize('file', ['Linear', 'MultiProc', 'SLURM'])
def test_callback_and_mapnodes_go_with_every_plugin(
    fake_slurm, importable, nipype_options, tmp_path, file
):
    """An object that cannot be pickled beside a MapNode lets MultiProc wait for ever."""
    path = tmp_path / 'plugin.json'
    path.write_text(json.dumps({'plugin': file, 'plugin_args': {'poll_seconds': 0.2}}))
    settings = Settings(
        bids=BIDSSettings(bids_dir=str(tmp_path), output_dir=str(tmp_path / 'out')),
        resources=ResourceSettings(nprocs=2, mem_gb=8.0),
        execution=ExecutionSettings(plugin_file=str(path)),
    )
    execution.configure_nipype(settings, tmp_path / 'logs')
    (tmp_path / 'logs').mkdir()
    workflow = fan(tmp_path / 'work')
    monitor = execution.make_monitor(workflow, settings)
    started = time.monotonic()
    assert execution.run_graph(workflow, settings, tmp_path / 'logs', monitor) == ()
    assert monitor.failures == []
    ends = {name.rpartition('.')[2] for name in monitor._seen}
    assert ends >= {'several', 'total'}
    (result,) = (tmp_path / 'work/fan_wf/total').glob('result_*.pklz')
    assert load_resultfile(str(result)).outputs.number == 32
    if file == 'SLURM':
        names = [words[2].partition('=')[2] for words in submissions(fake_slurm)]
        assert len(names) == 4, 'the two parts, what they make together, and the sum'
        looks = len((fake_slurm / 'squeue.log').read_text().splitlines())
        assert looks <= (time.monotonic() - started) / 0.2 + 1, 'once for all jobs'
    else:
        assert not (fake_slurm / 'sbatch.log').exists()


def test_logname_is_set_for_graphs_that_are_imported():
    environment = {k: v for k, v in os.environ.items() if k not in ('LOGNAME', 'USER')}
    done = subprocess.run(
        [sys.executable, '-c', 'import os, qsmflow.engine; print(os.environ["LOGNAME"])'],
        capture_output=True, text=True, timeout=100, check=True,
        env={**environment, 'PYTHONPATH': str(ROOT)},
    )  # fmt: skip
    assert done.stdout.strip() == 'qsmflow'
