"""Progress of a run: a live view on a terminal, timestamped lines elsewhere."""

import re
import sys
import time
from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Monitor:
    """Counts finished nodes for each group of nodes (a series, a T1w image).

    Attributes
    ----------
    totals : dict of str to int
        Nodes of each group.
    failures : list of tuple
        Group and node name of each failed node.
    """

    totals: dict[str, int]
    live: bool = False
    finished: Counter = field(default_factory=Counter)
    failures: list[tuple[str, str]] = field(default_factory=list)
    _seen: set[str] = field(default_factory=set)
    _progress: object = None
    _tasks: dict = field(default_factory=dict)

    def __enter__(self):
        """Start the live view, if there is a terminal."""
        if self.live:
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

            self._progress = Progress(
                '{task.description}',
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                '{task.fields[stage]}',
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

    def _show(self, group: str, stage: str, failed: bool) -> None:
        if self._progress is not None:
            if group in self._tasks:
                self._progress.advance(self._tasks[group])
            return
        total = self.totals.get(group, 0)
        word = 'FAILED' if failed else 'done'
        say(f'{group}: {stage} {word} ({self.finished[group]}/{total})')


def say(text: str) -> None:
    """Print a line with the time before it."""
    print(f'[{time.strftime("%Y-%m-%d %H:%M:%S")}] {text}', file=sys.stderr, flush=True)


def describe(full_name: str) -> tuple[str, str]:
    """Split a node's full name into its group and a readable stage.

    Examples
    --------
    >>> describe('qsmflow_wf.sub_01_wf.sub_01_ses_1_wf.susceptibility_wf.refer')
    ('sub-01_ses-1', 'susceptibility: refer')
    """
    parts = full_name.split('.')
    groups = [part for part in parts if re.match(r'sub_\w+_wf$', part)]
    inner = parts[parts.index(groups[-1]) + 1 :] if groups else parts[1:]
    stage = ': '.join(part.removesuffix('_wf').replace('_', ' ') for part in inner)
    return group_name(groups[-1]) if groups else 'all', stage


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
    if _MONITOR is not None:
        _MONITOR.update(node.fullname, status)
