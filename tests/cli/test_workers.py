"""What becomes of a run when a worker is killed, a result is lost, or input vanishes.

The graphs are small, the processes real. What the whole program makes of a killed worker, a full
disk and a step that fails is tested with the rows of the catalogue (tests/bids/test_defects.py).
"""

import itertools
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
from nipype.interfaces.utility import Function

from qsmflow.cli import execution, signals, workers
from qsmflow.engine import Node, Workflow
from qsmflow.settings import BIDSSettings, ExecutionSettings, ResourceSettings, Settings

QUICK = 60  #: seconds an end may take on a busy machine; without our plugin it never comes


def write(path, text='done'):
    with open(path, 'w') as stream:
        stream.write(text)
    return path


def kill_self(seconds=0):
    import os
    import signal

    held = bytearray(b'x') * (200 << 20)  # what the message will tell
    time.sleep(seconds)
    os.kill(os.getpid(), signal.SIGKILL)
    return held


def sleep(seconds):
    time.sleep(seconds)


def turned_into_another_error():
    import os
    import signal

    try:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
    except BaseException:
        raise ValueError('a value is wrong') from None


def swallowed():
    import contextlib
    import os
    import signal

    with contextlib.suppress(BaseException):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)


def no_pickle():
    return lambda: None


def node(function, name, **inputs):
    made = Node(
        Function(function=function, output_names=['out'], imports=['import time']), name=name
    )
    for key, value in inputs.items():
        setattr(made.inputs, key, value)
    return made


def graph(tmp_path, **series):
    """Return a graph of one subject with a series for each keyword: its nodes."""
    whole = Workflow(name='qsmflow_wf', base_dir=str(tmp_path / 'work'))
    subject = Workflow(name='sub_01_wf')
    for label, nodes in series.items():
        inner = Workflow(name=f'sub_01_acq_{label}_wf')
        inner.add_nodes(nodes)
        subject.add_nodes([inner])
    whole.add_nodes([subject])
    return whole


@pytest.fixture
def run(tmp_path):
    """Return a function that runs nodes, by their series, on one or more processes."""
    crash_dir = tmp_path / 'out/logs/run'
    crash_dir.mkdir(parents=True)
    (tmp_path / 'work').mkdir()

    def settings(nprocs=1):
        return Settings(
            bids=BIDSSettings(output_dir=str(tmp_path / 'out')),
            resources=ResourceSettings(nprocs=nprocs, mem_gb=4.0),
            execution=ExecutionSettings(work_dir=str(tmp_path / 'work')),
        )

    execution.configure_nipype(settings(), crash_dir)  # workflows copy it when they are made

    def start(nprocs=1, **series):
        workflow = series.pop('whole', None) or graph(tmp_path, **series)
        start.monitor = execution.make_monitor(workflow, settings(nprocs))
        return execution.run_graph(workflow, settings(nprocs), crash_dir, start.monitor)

    return start


def test_killed_worker_ends_the_run_and_is_named(run, tmp_path):
    began = time.monotonic()
    with pytest.raises(workers.WorkerKilledError) as ended:
        run(
            2,
            a=[node(kill_self, 'invert', seconds=2.5)],
            b=[node(sleep, 'wait', seconds=300)],
        )
    assert time.monotonic() - began < QUICK
    text = str(ended.value)
    assert '[FATAL E103]' in text
    assert "sub-01_acq-a: 'invert' [qsmflow_wf.sub_01_wf.sub_01_acq_a_wf.invert]" in text
    assert 'killed by SIGKILL' in text
    held = float(text.partition('it held ')[2].partition(' GB')[0])
    assert 0.2 < held < 2
    assert 'of memory' in text
    assert '--nprocs' in text
    assert 'wait' not in ended.value.nodes[0], 'only the one that was killed is blamed'
    assert ended.value.nodes == ('qsmflow_wf.sub_01_wf.sub_01_acq_a_wf.invert',)
    assert ended.value.exit_code == 1


@pytest.mark.timeout(60)
def test_worker_that_starts_late_is_watched(run, monkeypatch):
    """The pool's thread looks at its processes before the new one is there."""
    begin = ProcessPoolExecutor._adjust_process_count

    def late(pool):
        time.sleep(0.5)
        begin(pool)

    monkeypatch.setattr(ProcessPoolExecutor, '_adjust_process_count', late)
    first, second = node(sleep, 'wait', seconds=300), node(kill_self, 'invert', seconds=1)
    with pytest.raises(workers.WorkerKilledError, match=r"acq-b: 'invert'"):
        run(2, a=[first], b=[second])


def test_killed_again_and_again_ends_each_time(run, tmp_path):
    target = str(tmp_path / 'kept.txt')
    for attempt in range(2):
        with pytest.raises(workers.WorkerKilledError, match=r"acq-b: 'invert'"):
            run(1, a=[node(write, 'keep', path=target)], b=[node(kill_self, 'invert')])
        assert Path(target).read_text() == 'done', attempt
        assert run.monitor.complete('sub-01_acq-a')
        assert not run.monitor.complete('sub-01_acq-b')


def test_what_cannot_be_sent_back_fails_alone(run, tmp_path):
    """Without the plugin of ours the run would wait for these tasks for ever."""
    target = str(tmp_path / 'kept.txt')
    failures = run(1, a=[node(no_pickle, 'odd')], b=[node(write, 'keep', path=target)])
    assert [(item.group, item.node.rpartition('.')[2]) for item in failures] == [
        ('sub-01_acq-a', 'odd')
    ]
    assert 'pickle' in failures[0].reason
    assert Path(failures[0].crash_file).is_file()
    assert Path(target).is_file()


def test_own_state_is_removed(run, tmp_path, monkeypatch):
    monkeypatch.setattr('tempfile.tempdir', str(tmp_path / 'tmp'))
    (tmp_path / 'tmp').mkdir()
    assert run(1, a=[node(sleep, 'rest', seconds=0)]) == ()
    assert list((tmp_path / 'tmp').iterdir()) == []


def test_results_of_finished_steps_are_not_kept(run, tmp_path, monkeypatch):
    made = []
    init = workers.SafeMultiProcPlugin.__init__

    def remember(self, plugin_args=None):
        init(self, plugin_args=plugin_args)
        made.append(self)

    monkeypatch.setattr(workers.SafeMultiProcPlugin, '__init__', remember)
    assert run(2, a=[node(sleep, f'rest{n}', seconds=0) for n in range(4)]) == ()
    assert made[0]._taskid == 4
    assert (made[0]._taskresult, made[0]._task_obj) == ({}, {})


def test_one_subject_is_finished_before_the_next(tmp_path, run):
    """Of two chains, the second begins when the first is done, though both could at once."""
    order = tmp_path / 'order.txt'
    whole = Workflow(name='qsmflow_wf', base_dir=str(tmp_path / 'work'))
    for label in ('01', '02', '03'):
        inner = Workflow(name=f'sub_{label}_wf')
        steps = [node(note, f'step{n}', path=str(order), text=label) for n in range(3)]
        inner.connect([(one, two, [('out', 'after')]) for one, two in itertools.pairwise(steps)])
        whole.add_nodes([inner])
    assert run(1, whole=whole) == ()
    assert order.read_text() == '010101020202030303'


def note(path, text, after=None):
    with open(path, 'a') as stream:
        stream.write(text)
    return text


def test_input_that_vanishes_fails_its_node_alone(run, tmp_path):
    """Also on the second run, when nipype looks at the cache of the node first."""
    from qsmflow.engine import identity
    from qsmflow.interfaces.bids import DerivativesSink

    lost, kept = tmp_path / 'lost.txt', tmp_path / 'kept.txt'
    for attempt in range(2):
        lost.write_text('x')
        whole = Workflow(name='qsmflow_wf', base_dir=str(tmp_path / 'work'))
        inner = Workflow(name='sub_01_wf')
        door = identity('inputnode', ['in_file'], in_file=str(lost))
        sink = DerivativesSink(out_dir=str(tmp_path / 'out'), path='a.txt', kind='file')
        inner.connect(door, 'in_file', Node(sink, name='store'), 'in_file')
        inner.add_nodes([node(write, 'keep', path=str(kept))])
        whole.add_nodes([inner])
        lost.unlink()
        (failure,) = run(1, whole=whole)
        assert failure.node.endswith('store'), attempt
        assert f'{lost} was there when the input was checked, and is gone now' in failure.reason
        assert kept.is_file()


@pytest.mark.parametrize('function', [turned_into_another_error, swallowed])
def test_a_signal_in_a_step_of_the_main_process_is_no_failure_of_the_step(run, function):
    """A library may take the exception for one of its own, or for nothing."""
    step = node(function, 'check')
    step.run_without_submitting = True
    with signals.handled(grace=60), pytest.raises(signals.Terminated, match='SIGTERM'):
        run(1, a=[step, node(sleep, 'wait', seconds=300)])
    assert not run.monitor.failures
