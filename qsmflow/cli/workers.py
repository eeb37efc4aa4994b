"""The plugin that runs a graph on this machine, and ends when it should.

nipype's ``MultiProc`` waits for ever for a worker that was killed, for a task whose result cannot
be sent back, and for whatever its workers compute when the run is interrupted.
"""

import contextlib
import faulthandler
import gc
import logging
import multiprocessing
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from traceback import format_exception

from nipype import config as nipype_config
from nipype.pipeline.plugins import MultiProcPlugin

from qsmflow.bids.findings import Finding
from qsmflow.cli import progress
from qsmflow.cli.signals import last_words, raise_again
from qsmflow.cli.system import disk_problem, exists, how_ended, kill, resident_bytes

_LOGGER = logging.getLogger('qsmflow.cli')
_RESUME = 'and start the same command again: finished steps are not repeated.'


@dataclass(frozen=True)
class NodeFailure:
    """A node that failed.

    Attributes
    ----------
    group : str
        Series, or T1w image, that the node belongs to.
    node : str
        Full name of the node.
    reason : str
        Last line of its traceback.
    crash_file : str
        The whole traceback and the node's inputs; empty if it could not be written.
    """

    group: str
    node: str
    reason: str
    crash_file: str


class RunEndedError(RuntimeError):
    """The run cannot go on because of what one step met.

    Attributes
    ----------
    nodes : tuple of str
        Full names of the steps at fault.
    """

    exit_code = 1

    def __init__(self, finding: Finding, nodes: Iterable[str] = ()):
        super().__init__(str(finding))
        self.finding = finding
        self.nodes = tuple(nodes)


class WorkerKilledError(RunEndedError):
    """A worker process disappeared, as a rule because the machine was out of memory."""


class DiskFullError(RunEndedError):
    """Nothing can be written any more."""

    exit_code = 73


class SafeMultiProcPlugin(MultiProcPlugin):
    """``MultiProc`` that ends when it should.

    It ends when a worker is killed or the disk is full, and names the step; and when the run is
    interrupted, it ends its workers, instead of waiting for what they compute. A task whose
    result cannot be sent back has failed, and the others go on.

    Parameters
    ----------
    plugin_args : dict
        Those of ``MultiProc``; ``log_level`` for nipype's loggers in the workers; ``folders``,
        in which the run writes.

    Attributes
    ----------
    ended : list of int
        Process identifiers of the workers that were ended before their work was done.
    failures : list of NodeFailure
        Nodes that failed.
    """

    _broken: BaseException | None = None

    def __init__(self, plugin_args=None):
        super().__init__(plugin_args=plugin_args)
        self.pool.shutdown()
        self._folder = tempfile.mkdtemp(prefix='qsmflow-tasks-')
        self.pool = ProcessPoolExecutor(
            max_workers=self.processors,
            initializer=_start_worker,
            initargs=(
                self._cwd,
                self.plugin_args['log_level'],
                self.plugin_args.get('resource_monitor', False),
            ),
            mp_context=multiprocessing.get_context('forkserver'),
        )
        # The pool forgets its processes when one of them dies.
        self._workers = self.pool._processes
        self._resident: dict[int, int] = {}
        self._sampled = 0.0
        self.ended: list[int] = []
        self.failures: list[NodeFailure] = []

    def run(self, graph, config, updatehash=False):
        """Run the graph; workers do not outlive it."""
        # nipype collects garbage at every poll, which would look at all objects of the graph and
        # of the libraries each time, and keep a fifth of a processor busy.
        gc.freeze()
        try:
            with last_words(lambda reason: self._clean()):
                super().run(graph, config, updatehash=updatehash)
        except BaseException:
            self._end_workers()
            raise
        finally:
            gc.unfreeze()
            self._clean()

    def _clean(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def _end_workers(self) -> None:
        workers = list(self._workers.values())
        self.ended = [worker.pid for worker in workers]
        for worker in workers:
            # Not terminate(): what they were writing has no final name yet.
            if worker.pid:
                kill(worker.pid)
        self.pool.shutdown(wait=False, cancel_futures=True)
        deadline = time.monotonic() + 1
        while any(exists(pid) for pid in self.ended) and time.monotonic() < deadline:
            time.sleep(0.02)

    def _generate_dependency_list(self, graph):
        super()._generate_dependency_list(graph)
        subjects = dict.fromkeys(_subject(node) for node in self.procs)
        self._turns = {name: turn for turn, name in enumerate(sorted(subjects))}

    def _sort_jobs(self, jobids, scheduler='tsort'):
        """Finish one subject before the next: a run that ends early has whole results."""
        return sorted(jobids, key=lambda job: (self._turns.get(_subject(self.procs[job]), 0), job))

    def _submit_job(self, node, updatehash=False):
        self._taskid += 1
        try:
            future = self.pool.submit(_run_task, node, updatehash, self._taskid, self._folder)
        except BrokenProcessPool as error:
            raise self._killed() from error
        future.taskid = self._taskid
        self._task_obj[self._taskid] = future
        future.add_done_callback(self._async_callback)
        self._watch_new_worker()
        return self._taskid

    def _watch_new_worker(self) -> None:
        """Let the pool watch the worker that it has just started.

        It tells its watching thread of a task before it starts a process for it, so that the
        thread may go on to wait without it, and never learn that this one was killed.
        """
        with self.pool._shutdown_lock:
            if self.pool._executor_manager_thread_wakeup is not None:
                self.pool._executor_manager_thread_wakeup.wakeup()

    def _async_callback(self, future):
        try:
            result = future.result()
        except BrokenProcessPool as error:
            self._broken = error
            return
        except BaseException as error:
            # Anything that is raised here is lost, and the run would wait for ever.
            text = format_exception(type(error), error, error.__traceback__)
            result = {'result': None, 'traceback': text, 'taskid': future.taskid}
        self._taskresult[result['taskid']] = result

    def _clear_task(self, taskid):
        """Forget a task and its result, which nipype keeps, and with it the environment."""
        super()._clear_task(taskid)
        self._taskresult.pop(taskid, None)

    def _send_procs_to_workers(self, updatehash=False, graph=None):
        raise_again()
        if self._broken is not None:
            raise self._killed() from self._broken
        self._sample_memory()
        return super()._send_procs_to_workers(updatehash=updatehash, graph=graph)

    def _clean_queue(self, jobid, graph, result=None):
        """Give up what waits for a node that failed, unless it is the run that was interrupted."""
        raise_again()
        return super()._clean_queue(jobid, graph, result=result)

    def _report_crash(self, node, result=None):
        """Keep node and reason, and end the run if nothing can be written any more."""
        text = ''.join((result or {}).get('traceback') or [])
        reason = last_error(text)
        before = set(_crash_files(node))
        try:
            crash_file = super()._report_crash(node, result=result)
        except OSError as error:
            crash_file = ''
            for half in set(_crash_files(node)) - before:
                half.unlink(missing_ok=True)
            _LOGGER.error('%s failed, and no crash file could be written (%s)', node, error)
            _LOGGER.error('%s', text)
            text += str(error)
        name = node.fullname
        self.failures.append(NodeFailure(progress.describe(name)[0], name, reason, crash_file))
        full = disk_problem(text, self.plugin_args.get('folders', ()))
        if full:
            raise DiskFullError(_disk_finding(name, full), [name])
        return crash_file

    def _sample_memory(self) -> None:
        """Take down what each worker holds: afterwards nobody can tell."""
        if time.monotonic() - self._sampled < 1:
            return
        self._sampled = time.monotonic()
        for pid in list(self._workers):
            if found := resident_bytes(pid):
                self._resident[pid] = found

    def _killed(self) -> WorkerKilledError:
        """Say which worker was killed, how, and what it did."""
        thread = self.pool._executor_manager_thread
        if thread is not None:  # it ends the other workers, and then knows how each of them ended
            thread.join(timeout=5)
        codes = {pid: worker.exitcode for pid, worker in self._workers.items()}
        dead = {pid: code for pid, code in codes.items() if code not in (None, 0, -signal.SIGTERM)}
        pending = {tid: self.procs[job].fullname for tid, job in self.pending_tasks}
        nodes, details = [], []
        for pid, code in dead.items():
            name = pending.get(_noted(self._folder, pid))
            if name is None:
                continue
            nodes.append(name)
            details.append(self._describe(name, pid, code))
        if not nodes:
            running = [self.procs[i].fullname for i, on in enumerate(self.proc_pending) if on]
            nodes = running
            how = ' and '.join(dict.fromkeys(map(how_ended, dead.values()))) or 'was killed'
            steps = ', '.join(map(_step, running)) or 'no step'
            details = [f'a worker {how}; there ran {steps}']
        finding = Finding(
            *('E103', 'FATAL', '; '.join(details)),
            remedy='Most often the machine, the container or the job is out of memory. Give the '
            f'run more memory, or fewer processes with --nprocs, {_RESUME}',
        )
        return WorkerKilledError(finding, nodes)

    def _describe(self, name: str, pid: int, code: int) -> str:
        facts = []
        if pid in self._resident:
            facts.append(f'it held {self._resident[pid] / 1024**3:.2f} GB when last seen')
        planned = [node.mem_gb for node in self.procs if node.fullname == name]
        if planned:
            facts.append(f'{planned[0]:.2f} GB were planned for it')
        facts.append(f'the run may use {self.memory_gb:.2f} GB')
        ended = f'the process of {_step(name)} {how_ended(code)}'
        return f'a worker was killed: {ended} ({", ".join(facts)})'


def last_error(text: str) -> str:
    r"""Return the message of the exception that ended a traceback.

    Examples
    --------
    >>> last_error('Traceback:\n  File "x", line 1\nValueError: no brain found\n\n')
    'ValueError: no brain found'
    """
    lines = re.findall(r'^\s*([A-Za-z_.]+(?:Error|Exception|Interrupt)\b.*)$', text, re.MULTILINE)
    return lines[-1].strip() if lines else 'see the crash file'


def _disk_finding(node: str, problem: str) -> Finding:
    message = f'{_step(node)} could not be written: {problem}'
    return Finding('E98', 'FATAL', message, remedy=f'Make room, or give another folder, {_RESUME}')


def _subject(node) -> str:
    """Return the part of a node's name that is its subject's; empty where there is none."""
    return ''.join(node.fullname.split('.')[1:2])


def _step(name: str) -> str:
    """Return a node as its user knows it, and its full name."""
    group, stage = progress.describe(name)
    return f'{group}: {stage!r} [{name}]'


def _crash_files(node) -> list[Path]:
    folder = (node.config or {}).get('execution', {}).get('crashdump_dir')
    return list(Path(folder).glob('crash-*')) if folder else []


def _run_task(node, updatehash, taskid, folder):
    """Run a node in a worker, which leaves word of what it is doing."""
    with contextlib.suppress(OSError):
        Path(folder, str(os.getpid())).write_text(str(taskid))
    task = {'result': None, 'traceback': None, 'taskid': taskid}
    try:
        task['result'] = node.run(updatehash=updatehash)
    except BaseException:
        task['traceback'] = format_exception(*sys.exc_info())
        # A node that failed before it began has no result to look at.
        with contextlib.suppress(Exception):
            task['result'] = node.result
    return task


def _noted(folder: str, pid: int) -> int | None:
    """Return the task that a worker was at."""
    try:
        return int(Path(folder, str(pid)).read_text())
    except (OSError, ValueError):
        return None


def _start_worker(folder: str, log_level: int, monitored: bool = False) -> None:
    """Set up a worker process: its folder, and loggers and settings, which it does not inherit."""
    os.chdir(folder)
    if monitored:
        watch_resources()
    quiet_nipype(log_level)
    show_messages()
    if log_level <= logging.DEBUG:
        faulthandler.enable()
    # Ctrl-C reaches the whole process group; the main process alone decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent() -> None:
    """End this worker when the main process is gone, which it would not notice otherwise."""
    multiprocessing.parent_process().join()
    os._exit(1)


def show_messages() -> None:
    """Send the messages of what runs in this worker where those of the main process go."""
    logger = logging.getLogger('qsmflow')
    logger.setLevel(logging.INFO)
    # nipype gives the root logger a handler, which would print everything twice.
    logger.propagate = False
    logger.addHandler(progress.message_handler())


def watch_resources() -> None:
    """Let nipype measure memory and time of every step in this process."""
    nipype_config.enable_resource_monitor()
    # The shortest interval that nipype allows, in seconds.
    nipype_config.set('execution', 'resource_monitor_frequency', '0.2')


def quiet_nipype(level: int) -> None:
    """Set the level of nipype's loggers."""
    for name in ('nipype.workflow', 'nipype.interface', 'nipype.utils'):
        logging.getLogger(name).setLevel(level)
