"""Run the nodes of a graph as jobs of Slurm.

For graphs that start on a machine that can submit jobs. Whole datasets are better served by one
job for each participant: see ``docs/hpc.md``.
"""

import math
import os
import shlex
import subprocess
import time
from pathlib import Path

from nipype.pipeline.engine.utils import load_resultfile
from nipype.pipeline.plugins.slurm import SLURMPlugin

#: Memory that a job gets beyond what its node claims: claims are estimates, and Slurm kills.
MEMORY_FACTOR = 1.25
_LINES_SHOWN = 5
_MISREAD = ("'", '\\', '[', ']', '*', '?')


class FolderNameError(ValueError):
    """The base folder has a name that nipype's scripts for jobs, or its patterns, misread.

    Attributes
    ----------
    exit_code : int
        Exit status of the command line: 2, a usage error.
    """

    exit_code = 2


class SlurmPlugin(SLURMPlugin):
    """nipype's ``SLURM`` plugin, made fit for long runs on a shared cluster.

    Paths may hold spaces; each job asks for the processors and the memory of its node; the queue
    is asked once for all jobs; jobs are cancelled when the run is interrupted; and a job that
    ends without a result is told with the last lines of its output.

    Parameters
    ----------
    plugin_args : dict, optional
        Those of nipype: ``sbatch_args``, ``template``, ``max_tries``, ``retry_timeout``,
        ``max_jobs``, ``status_callback``; and ``poll_seconds``, the time between two looks at
        the queue (5). What ``sbatch_args`` says of memory and processors wins over the node's.

    Examples
    --------
    >>> from qsmflow.workflows import init_dipole_inversion_wf
    >>> plugin = SlurmPlugin(plugin_args={'sbatch_args': '--partition=short'})
    >>> workflow = init_dipole_inversion_wf(method='tkd')
    >>> workflow.run(plugin=plugin)  # doctest: +SKIP
    """

    def __init__(self, plugin_args=None):
        super().__init__(plugin_args=dict(plugin_args or {}))
        self._poll_seconds = float(self.plugin_args.get('poll_seconds', 5.0))
        self._queue: set[int] = set()
        self._asked = -math.inf  # when the queue last answered
        self._next_look = -math.inf
        self._submitted: dict[int, float] = {}
        self._outputs: dict[int, Path] = {}

    def run(self, graph, config, updatehash=False):
        """Run the graph; jobs do not outlive it.

        Raises
        ------
        FolderNameError
            If a node's base folder cannot be used.
        """
        for folder in {str(node.base_dir) for node in graph.nodes()}:
            wrong = [letter for letter in _MISREAD if letter in folder]
            if wrong:
                raise FolderNameError(
                    f'the work folder {folder} cannot hold {" ".join(wrong)} when steps run as '
                    'jobs; give another'
                )
        try:
            super().run(graph, config, updatehash=updatehash)
        except BaseException:
            self._cancel()
            raise

    def _cancel(self) -> None:
        if self._pending:
            command = ['scancel', *map(str, self._pending)]
            subprocess.run(command, capture_output=True, check=False)

    def _submit_batchtask(self, scriptfile, node):
        script = Path(scriptfile)
        folder = script.parent
        pattern = f'{str(folder).replace("%", "%%")}/slurm-%j.out'
        options = self._options(node)
        command = [
            'sbatch',
            '--parsable',
            f'--output={pattern}',
            f'--job-name={_job_name(node)}',
            *options,
            str(script),
        ]
        job = self._submit(command, node)
        self._pending[job] = node.output_dir()
        self._submitted[job] = time.monotonic()
        self._outputs[job] = folder / f'slurm-{job}.out'
        return job

    def _options(self, node) -> list[str]:
        """Return the options of ``sbatch`` for a node, those of the user last."""
        given = shlex.split(self._sbatch_args or '')
        own = shlex.split(node.plugin_args.get('sbatch_args', ''))
        given = own if node.plugin_args.get('overwrite') else [*given, *own]
        sized = []
        if not any(option.startswith('--mem') for option in given):
            sized.append(f'--mem={math.ceil(1024 * MEMORY_FACTOR * node.mem_gb)}M')
        if not any(option.startswith(('--cpus-per-task', '-c')) for option in given):
            sized.append(f'--cpus-per-task={node.n_procs or 1}')
        return [*sized, *given]

    def _submit(self, command: list[str], node) -> int:
        for attempt in range(self._max_tries + 1):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode == 0:
                return int(done.stdout.strip().partition(';')[0])
            if attempt < self._max_tries:
                time.sleep(self._retry_timeout)
        raise RuntimeError(
            f'sbatch refused the job of {node.fullname}: {done.stderr.strip()}. '
            f'The command was: {shlex.join(command)}'
        )

    def _is_pending(self, taskid):
        if time.monotonic() >= self._next_look:
            self._look()
        return taskid in self._queue or self._submitted[taskid] >= self._asked

    def _look(self) -> None:
        """Note which jobs of this user are in the queue.

        Without an answer no job is taken for finished: the controller is busy.
        """
        # The time before the question: a job that is submitted meanwhile need not be in it.
        asked = time.monotonic()
        command = ['squeue', '--noheader', f'--user={os.getuid()}', '--format=%A']
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            self._queue = {int(job) for job in done.stdout.split()}
            self._asked = asked
        self._next_look = asked + self._poll_seconds

    def _get_result(self, taskid):
        """Return what a finished job left; None while it is in the queue.

        That of nipype looks for the result by a pattern, which brackets in a path change.
        """
        if self._is_pending(taskid):
            return None
        path = self._result_file(Path(self._pending[taskid]))
        if path is None:
            return {'result': None, 'traceback': [self._lost(taskid)], 'hostname': 'unknown'}
        content = load_resultfile(str(path))
        if not isinstance(content, dict):
            return {'result': content, 'traceback': None}
        # An error of the node: not to be taken for its result when the graph is run again.
        path.rename(path.with_name('crashstore.pklz'))
        return content

    def _result_file(self, folder: Path) -> Path | None:
        """Return the result of a node; on a shared disk it may come after the end of its job."""
        deadline = time.monotonic() + float(self._config['execution']['job_finished_timeout'])
        while True:
            path = next(folder.glob('result_*.pklz'), None)
            if path is not None or time.monotonic() > deadline:
                return path
            time.sleep(min(1.0, self._poll_seconds))

    def _lost(self, taskid: int) -> str:
        """Say that a job left nothing, with the end of its output."""
        path = self._outputs[taskid]
        lines = path.read_text(errors='replace').splitlines() if path.is_file() else []
        said = ' | '.join(line.strip() for line in lines[-_LINES_SHOWN:]) or 'nothing'
        return (
            f'JobLostError: job {taskid} ended without a result: cancelled, out of time or out '
            f'of memory. Its output, {path}, says: {said}'
        )

    def _clear_task(self, taskid):
        super()._clear_task(taskid)
        self._submitted.pop(taskid, None)
        self._outputs.pop(taskid, None)


def _job_name(node) -> str:
    """Return the node's name, the innermost part first, as queues show few characters."""
    return '.'.join(reversed(node.fullname.split('.')))
