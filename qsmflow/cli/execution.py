"""Run a graph: plugin, memory and threads, progress, and what failed."""

import configparser
import logging
import re
import sys
import tempfile
from pathlib import Path

from nipype import config as nipype_config
from nipype import logging as nipype_logging

from qsmflow.cli import progress
from qsmflow.cli.plugins import nipype_plugin, read_plugin_file
from qsmflow.cli.signals import raise_again
from qsmflow.cli.workers import (
    NodeFailure,
    RunEndedError,
    SafeMultiProcPlugin,
    last_error,
    quiet_nipype,
    watch_resources,
)
from qsmflow.engine import Workflow
from qsmflow.settings import Settings


class InsufficientMemoryError(RuntimeError):
    """A step needs more memory than the run may use."""

    exit_code = 1


def log_level(settings: Settings) -> int:
    """Return the level of nipype's loggers: progress is shown by other means."""
    if settings.execution.debug:
        return logging.DEBUG
    return logging.INFO if settings.execution.verbosity > 0 else logging.CRITICAL


def configure_nipype(settings: Settings, crash_dir: Path) -> None:
    """Set nipype's own options: content hashes, text crash files, no network, quiet log.

    A workflow copies them when it is built, so this comes first.
    """
    # A percent sign in a path is no reference to another option; workflows read the raw values.
    nipype_config._config._interpolation = configparser.Interpolation()
    nipype_config.update_config(
        {
            'execution': {
                'crashdump_dir': str(crash_dir),
                'crashfile_format': 'txt',
                'hash_method': 'content',
                'check_version': 'false',
                'stop_on_first_crash': str(settings.execution.stop_on_first_crash).lower(),
                'remove_unnecessary_outputs': 'false',
                'poll_sleep_duration': '0.2',
            },
            'logging': {'log_to_file': 'false'},
        }
    )
    if settings.execution.resource_monitor:
        watch_resources()
    nipype_logging.update_logging(nipype_config)
    quiet_nipype(log_level(settings))


def run_graph(
    workflow: Workflow, settings: Settings, crash_dir: Path, monitor: progress.Monitor
) -> tuple[NodeFailure, ...]:
    """Run a workflow and return the nodes that failed.

    Parameters
    ----------
    workflow : Workflow
        What to run, built after :func:`configure_nipype`; its ``base_dir`` is set.
    settings : Settings
        Resources and behaviour on failure.
    crash_dir : Path
        Where crash files go.
    monitor : progress.Monitor
        Is told of every node, see :func:`make_monitor`, and of an early end.

    Returns
    -------
    tuple of NodeFailure
        Empty if everything finished. Nodes that depend on one that failed are not among them, nor
        those that an early end left.

    Raises
    ------
    InsufficientMemoryError
        If a node cannot fit into the memory of the run; nothing is run then.
    RunEndedError
        If a worker process was killed, or the disk is full.
    """
    require_memory(workflow, settings)
    before = set(crash_dir.glob('crash-*'))
    plugin = _plugin(settings)
    with monitor:
        progress.watch(monitor)
        try:
            workflow.run(plugin=plugin)
        except RunEndedError:
            raise
        except Exception as error:
            raise_again()
            # nipype raises at the end, once for all failed nodes, or at the first one if it is to
            # stop there; each has a crash file.
            if not set(crash_dir.glob('crash-*')) - before and not monitor.failures:
                raise
            monitor.ended = _why_ended_early(error, plugin, settings)
            logging.getLogger(__name__).debug('the graph ended with: %s', error)
        finally:
            progress.watch(None)
            if settings.execution.resource_monitor:
                progress.write_usage(monitor.usage, crash_dir / 'resources.tsv')
            _remove_partial(Path(settings.bids.output_dir), getattr(plugin, 'ended', []))
    return tuple(getattr(plugin, 'failures', ())) or _failures(crash_dir, before)


def _why_ended_early(error: Exception, plugin, settings: Settings) -> str:
    """Say why a graph ended before all that could run had run; empty if it had."""
    if settings.execution.stop_on_first_crash:
        return 'the run stopped at the first failure (--stop-on-first-crash)'
    # nipype's plugins mark what they give up as done, so that in the end all nodes are.
    if all(getattr(plugin, 'proc_done', ())):
        return ''
    return f'the run ended early: {last_error(f"{type(error).__name__}: {error}")}'


def require_memory(workflow: Workflow, settings: Settings) -> None:
    """Refuse a workflow with a node that needs more memory than there is.

    With ``--low-mem`` it is tried nevertheless: what a node needs is estimated. With a plugin of
    the user's own the memory is not that of this machine.

    Parameters
    ----------
    workflow : Workflow
        What is to be run.
    settings : Settings
        Memory of the run.

    Raises
    ------
    InsufficientMemoryError
        If there is such a node; the message names the largest.
    """
    if settings.resources.low_mem or settings.execution.plugin_file:
        return
    limit = settings.resources.mem_gb
    needed = {name: workflow.get_node(name).mem_gb for name in workflow.list_node_names()}
    node = max(needed, key=needed.get, default='')
    if not node or needed[node] <= limit:
        return
    series, step = progress.describe(f'{workflow.name}.{node}')
    count = sum(gb > limit for gb in needed.values())
    more = f' ({count} steps need more than that)' if count > 1 else ''
    raise InsufficientMemoryError(
        f'{series}: the step {step!r} needs about {needed[node]:.2f} GB; the run may use '
        f'{limit:.2f} GB{more}. Allow more with --mem if the machine has it, or choose a method '
        'that needs less. --low-mem runs one large step at a time and tries even those that seem '
        'not to fit.'
    )


def make_monitor(workflow: Workflow, settings: Settings) -> progress.Monitor:
    """Return what shows the progress of a workflow: live on a terminal, else lines."""
    live = sys.stderr.isatty() and settings.execution.verbosity == 0
    measure = settings.execution.resource_monitor
    return progress.Monitor(_count_nodes(workflow), live=live, measure=measure)


def _remove_partial(out_dir: Path, workers: list[int]) -> None:
    """Remove the files that ended workers were writing."""
    for worker in workers:
        for path in out_dir.glob(f'sub-*/**/.part-{worker}-*'):
            path.unlink(missing_ok=True)


def _plugin(settings: Settings):
    """Return the plugin of the user's file, or ours; a single processor has a worker too.

    The main process stays free to end at a signal, and to tell when the worker was killed.
    """
    arguments = {
        'n_procs': settings.resources.nprocs,
        'memory_gb': settings.resources.mem_gb,
        'raise_insufficient': False,
        'log_level': log_level(settings),
        'resource_monitor': settings.execution.resource_monitor,
        'folders': [settings.bids.output_dir, settings.execution.work_dir, tempfile.gettempdir()],
    }
    name, own = 'MultiProc', {}
    if settings.execution.plugin_file:
        name, own = read_plugin_file(settings.execution.plugin_file)
    common = {'status_callback': progress.status_callback}
    if name == 'MultiProc':
        return SafeMultiProcPlugin(plugin_args={**arguments, **own, **common})
    return nipype_plugin(name)(plugin_args={**own, **common})


def _count_nodes(workflow: Workflow) -> dict[str, int]:
    """Count the nodes of each group that will run; inputnodes and outputnodes are not."""
    totals: dict[str, int] = {}
    for name in workflow.list_node_names():
        if name.rpartition('.')[2] in ('inputnode', 'outputnode'):
            continue
        group, _ = progress.describe(f'{workflow.name}.{name}')
        totals[group] = totals.get(group, 0) + 1
    return totals


def _failures(crash_dir: Path, before: set[Path]) -> tuple[NodeFailure, ...]:
    """Read node and reason from the new crash files."""
    failures = {}
    for path in sorted(set(crash_dir.glob('crash-*')) - before):
        text = path.read_text(encoding='utf-8', errors='replace')
        node = re.search(r'^Node: (.+)$', text, re.MULTILINE)
        name = node.group(1).strip() if node else path.stem
        failures[name] = NodeFailure(
            group=progress.describe(name)[0],
            node=name,
            reason=last_error(text),
            crash_file=str(path),
        )
    return tuple(failures.values())
