"""Progress of a run: a live view on a terminal, timestamped lines elsewhere."""

import json
import logging
import re
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from qsmflow.files import write_text

#: Nodes that only store, draw or pass on: they count, but a line for each would be noise.
_QUIET = re.compile(r'(?:^|: )(?:ds \S.*|.* rpt|label table|(field )?details|summary|gather .*)$')


@dataclass
class Monitor:
    """Counts finished nodes for each group of nodes (a series, a T1w image).

    Attributes
    ----------
    totals : dict of str to int
        Nodes of each group.
    live : bool
        Show bars instead of lines.
    measure : bool
        Take down what each finished node used, in ``usage``.
    failures : list of tuple
        Group and node name of each failed node.
    ended : str
        Why the graph ended early, so that not all nodes have run; empty if it did not.
    """

    totals: dict[str, int]
    live: bool = False
    measure: bool = False
    usage: list[dict] = field(default_factory=list)
    finished: Counter = field(default_factory=Counter)
    failures: list[tuple[str, str]] = field(default_factory=list)
    ended: str = ''
    _seen: set[str] = field(default_factory=set)
    _progress: object = None
    _tasks: dict = field(default_factory=dict)

    def __enter__(self):
        """Start the live view, if there is a terminal."""
        if self.live:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

            self._progress = Progress(
                '{task.description}',
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                '{task.fields[stage]}',
                # Standard output is for results: it may be a file while this is a terminal.
                console=Console(stderr=True),
            )
            self._tasks = {
                group: self._progress.add_task(group, total=total, stage='')
                for group, total in self.totals.items()
            }
            self._progress.start()
        return self

    def __exit__(self, *_):
        """End the live view."""
        if self._progress is not None:
            self._progress.stop()

    def update(self, name: str, status: str) -> None:
        """Take note of a node's new status: ``'start'``, ``'end'`` or ``'exception'``."""
        group, stage = describe(name)
        if status == 'start':
            if self._progress is not None and group in self._tasks:
                self._progress.update(self._tasks[group], stage=stage)
            return
        if name in self._seen:
            return
        self._seen.add(name)
        self.finished[group] += 1
        if status == 'exception':
            self.failures.append((group, name))
        self._show(group, stage, failed=status == 'exception')

    def complete(self, group: str) -> bool:
        """Tell whether all nodes of a group are finished and none failed."""
        failed = any(failed == group for failed, _ in self.failures)
        return not failed and self.finished[group] >= self.totals.get(group, 0)

    def _show(self, group: str, stage: str, failed: bool) -> None:
        if self._progress is not None:
            if group in self._tasks:
                self._progress.advance(self._tasks[group])
            return
        total = self.totals.get(group, 0)
        last = self.finished[group] == total
        if failed or last or not _QUIET.search(stage):
            word = 'FAILED' if failed else 'done'
            say(f'{group}: {stage} {word} ({self.finished[group]}/{total})')


def say(text: str) -> None:
    """Print a line with the time before it."""
    print(f'[{time.strftime("%Y-%m-%d %H:%M:%S")}] {text}', file=sys.stderr, flush=True)


def message_handler() -> logging.Handler:
    """Return a handler that writes the package's messages to standard error, with the time."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        logging.Formatter('%(asctime)s %(levelname)s qsmflow: %(message)s', '%Y-%m-%d %H:%M:%S')
    )
    return handler


def describe(full_name: str) -> tuple[str, str]:
    """Split a node's full name into its group and a readable stage.

    The group is the series, or the subject with the word ``T1w`` for what its series share.

    Examples
    --------
    >>> describe('qsmflow_wf.sub_01_wf.sub_01_ses_1_wf.susceptibility_wf.refer')
    ('sub-01_ses-1', 'susceptibility: refer')
    >>> describe('qsmflow_wf.sub_01_wf.t1w_0_wf.register')
    ('sub-01 T1w', 't1w 0: register')
    """
    parts = full_name.split('.')
    found = [n for n, part in enumerate(parts) if re.match(r'sub_\w+_wf$', part)]
    inner = parts[found[-1] + 1 :] if found else parts[1:]
    stage = ': '.join(part.removesuffix('_wf').replace('_', ' ') for part in inner)
    if not found:
        return 'all', stage
    group = group_name(parts[found[-1]])
    return (shared_group(group) if len(found) == 1 else group), stage


def shared_group(subject: str) -> str:
    """Return the group of the nodes that the series of a subject share.

    Examples
    --------
    >>> shared_group('sub-01')
    'sub-01 T1w'
    """
    return f'{subject} T1w'


def group_name(workflow_name: str) -> str:
    """Return the entities that a workflow's name stands for.

    Examples
    --------
    >>> group_name('sub_01_ses_a_run_2_wf')
    'sub-01_ses-a_run-2'
    """
    tokens = workflow_name.removesuffix('_wf').split('_')
    pairs = [f'{key}-{value}' for key, value in zip(tokens[::2], tokens[1::2], strict=False)]
    return '_'.join(pairs)


_MONITOR: Monitor | None = None


def watch(monitor: Monitor | None) -> None:
    """Send the status of nodes to this monitor, or to none."""
    global _MONITOR
    _MONITOR = monitor


def status_callback(node, status: str) -> None:
    """Pass a node's status on; nipype pickles this function, so it has no state of its own."""
    if _MONITOR is None:
        return
    _MONITOR.update(node.fullname, status)
    if _MONITOR.measure and status != 'start':
        _MONITOR.usage.append(_usage(node, status))


#: Columns of the table of resources, and what they hold.
USAGE = {
    'group': 'Series, or subject and T1w for what its series share',
    'step': 'Step of the workflow',
    'status': 'end, or exception',
    'seconds': 'Time that the step took',
    'peak_gb': 'Largest memory of its process, sampled every 0.2 s, in GB of 1024^3 bytes; '
    'n/a for a copy, which the main process makes',
    'estimated_gb': 'Memory that was planned for the step',
    'threads': 'Threads that were planned for the step',
    'cpu_percent': 'Largest load that was sampled; 100 is one processor',
}


def _usage(node, status: str) -> dict:
    """Return what a node used: one row of the table of resources."""
    group, step = describe(node.fullname)
    runtime = getattr(node.result, 'runtime', None)
    runtime = runtime[0] if isinstance(runtime, list) and runtime else runtime
    # Copies are made by the main process, whose memory is counted with that of its workers.
    own = not getattr(node, 'run_without_submitting', False)
    return {
        'group': group,
        'step': step,
        'status': status,
        'seconds': getattr(runtime, 'duration', None),
        'peak_gb': getattr(runtime, 'mem_peak_gb', None) if own else None,
        'estimated_gb': node.mem_gb,
        'threads': node.n_procs,
        'cpu_percent': getattr(runtime, 'cpu_percent', None),
    }


def write_usage(rows: list[dict], path: Path) -> None:
    """Write what every step used: a table, the largest memory first, and what its columns mean.

    Parameters
    ----------
    rows : list of dict
        ``Monitor.usage``.
    path : Path
        Table, ``.tsv``; the dictionary gets the same name with ``.json``.
    """

    def text(value):
        if value is None:
            return 'n/a'
        return f'{value:.3f}' if isinstance(value, float) else str(value)

    ordered = sorted(rows, key=lambda row: -(row['peak_gb'] or 0))
    lines = ['\t'.join(USAGE), *('\t'.join(text(row[key]) for key in USAGE) for row in ordered)]
    write_text(path, '\n'.join(lines) + '\n')
    about = {key: {'Description': meaning} for key, meaning in USAGE.items()}
    write_text(path.with_suffix('.json'), json.dumps(about, indent=2) + '\n')
