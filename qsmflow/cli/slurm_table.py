"""The table of exit codes that the tasks of an array write, and who has to run again."""

import csv
import subprocess
from dataclasses import dataclass
from pathlib import Path

from qsmflow.cli.run import EXIT_CODES
from qsmflow.cli.slurm_scripts import COLUMNS, JOBS, PARTICIPANTS, STARTED

_KILLED = 'killed; out of memory, as a rule'
_WORDLESS = 'ended without a word: killed, out of memory, or its node was lost'
_NEVER = 'never began'
GROUP_LEVEL = 'group'


@dataclass(frozen=True)
class Failed:
    """A participant that has to run again.

    Attributes
    ----------
    participant : str
        Label; or ``'group'``.
    task : int
        Number in the array; 0 for the group level.
    exit_code : int or None
        None if there is none.
    meaning : str
        What the exit code means.
    """

    participant: str
    task: int
    exit_code: int | None
    meaning: str


@dataclass(frozen=True)
class State:
    """How far a dataset is: labels that are done or in the queue, and what failed.

    Attributes
    ----------
    done, queued : tuple of str
        Labels.
    failed : tuple of Failed
        In the order of the tasks.
    group : Failed or None
        The group level, if it was started and failed.
    longest : int
        Seconds that the longest finished task took; 0 if none is finished.
    queue_known : bool
        Whether Slurm told what it has in its queue.
    """

    done: tuple[str, ...]
    queued: tuple[str, ...]
    failed: tuple[Failed, ...]
    group: Failed | None
    longest: int
    queue_known: bool


class TableError(ValueError):
    """A file is not the table of exit codes, or what belongs beside it is missing."""

    exit_code = 2


def read_state(table: str | Path) -> State:
    """Read the table, and ask Slurm what has not ended yet.

    Parameters
    ----------
    table : str or Path
        ``exit_codes.tsv``; the list of participants lies beside it.

    Returns
    -------
    State

    Raises
    ------
    TableError
        If the file is not such a table.
    """
    table = Path(table)
    folder = table.parent
    rows = _rows(table)
    labels = _lines(folder / PARTICIPANTS)
    if not labels:
        raise TableError(f'{folder / PARTICIPANTS}: expected the labels of the participants')
    last = {row['participant']: row for row in rows}
    queue = _queue()
    waiting = _tasks_in(queue or (), _lines(folder / JOBS))
    done, queued, failed = [], [], []
    for task, label in enumerate(labels, start=1):
        row = last.get(label)
        if row is not None and row['exit_code'] == '0':
            done.append(label)
        elif task in waiting:
            queued.append(label)
        else:
            failed.append(_failed(label, task, row))
    group = last.get(GROUP_LEVEL)
    lost = group is not None and group['exit_code'] != '0' and group['job'] not in (queue or ())
    return State(
        done=tuple(done),
        queued=tuple(queued),
        failed=tuple(failed),
        group=_failed(GROUP_LEVEL, 0, group) if lost else None,
        longest=max((int(row['seconds']) for row in rows if row['exit_code'] == '0'), default=0),
        queue_known=queue is not None,
    )


def _failed(label: str, task: int, row: dict | None) -> Failed:
    if row is None:
        return Failed(label, task, None, _NEVER)
    if row['exit_code'] == STARTED:
        return Failed(label, task, None, _WORDLESS)
    code = int(row['exit_code'])
    return Failed(label, task, code, EXIT_CODES.get(code, _KILLED if code > 128 else 'failed'))


def _rows(table: Path) -> list[dict]:
    """Return the lines of the table, but for one that a full disk has cut short."""
    try:
        with table.open(encoding='utf-8', newline='') as stream:
            reader = csv.DictReader(stream, delimiter='\t')
            names, rows = reader.fieldnames, list(reader)
    except (OSError, UnicodeDecodeError) as error:
        raise TableError(f'{table}: {error}') from error
    if tuple(names or ()) != COLUMNS:
        raise TableError(
            f'{table}: expected the columns {", ".join(COLUMNS)}, which qsmflow-slurm writes; '
            f'found {", ".join(names or ()) or "nothing"}'
        )
    return [row for row in rows if _is_whole(row)]


def _is_whole(row: dict) -> bool:
    code, seconds = row['exit_code'] or '', row['seconds'] or ''
    return (code == STARTED or code.isdigit()) and seconds.isdigit() and None not in row


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding='utf-8').split() if path.is_file() else []


def _queue() -> set[str] | None:
    """Return jobs and tasks in the queue, as ``12`` and ``12_3``; None if Slurm does not tell."""
    command = ['squeue', '--me', '--noheader', '--array', '--format=%i']
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return set(done.stdout.split())


def _tasks_in(queue, jobs: list[str]) -> set[int]:
    """Return the tasks of our arrays that are in the queue."""
    pairs = (item.partition('_') for item in queue)
    return {int(task) for job, _, task in pairs if job in jobs and task.isdigit()}
