"""What the operating system tells of processes and disks."""

import contextlib
import errno
import os
import re
import signal
from collections.abc import Iterable
from pathlib import Path

#: Errors that every other step would meet too: the disk, not the step, is at fault.
_FULL = {errno.ENOSPC: 'is full', errno.EDQUOT: 'has no quota left', errno.EROFS: 'is read-only'}
#: Less than this is no space, in bytes.
_NO_SPACE = 1 << 20


def descendants(pid: int) -> list[int]:
    """Return the processes that a process has started, and those that they have.

    Examples
    --------
    >>> os.getpid() in descendants(os.getppid())
    True
    """
    children: dict[int, list[int]] = {}
    for folder in Path('/proc').glob('[0-9]*'):
        with contextlib.suppress(OSError, ValueError, IndexError):
            parent = int((folder / 'stat').read_text().rpartition(')')[2].split()[1])
            children.setdefault(parent, []).append(int(folder.name))
    found, queue = [], [pid]
    while queue:
        own = children.get(queue.pop(), [])
        found += own
        queue += own
    return found


def kill(pid: int) -> None:
    """Kill a process, if it is there."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def exists(pid: int) -> bool:
    """Tell whether a process is there and not a zombie.

    Examples
    --------
    >>> exists(os.getpid()), exists(-1)
    (True, False)
    """
    try:
        return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] != 'Z'
    except OSError:
        return False


def resident_bytes(pid: int) -> int:
    """Return the memory that a process holds; 0 if it is not there."""
    try:
        return int(Path(f'/proc/{pid}/statm').read_text().split()[1]) * os.sysconf('SC_PAGE_SIZE')
    except (OSError, ValueError, IndexError):
        return 0


def how_ended(code: int) -> str:
    """Say what an exit code means, as :mod:`multiprocessing` gives it.

    Examples
    --------
    >>> how_ended(-9), how_ended(1)
    ('was killed by SIGKILL', 'ended with code 1')
    """
    return f'was killed by {_signal_name(-code)}' if code < 0 else f'ended with code {code}'


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f'signal {number}'


def disk_problem(text: str, folders: Iterable[str | os.PathLike] = ()) -> str:
    """Say what is wrong with a disk, if that is what an error is about.

    Parameters
    ----------
    text : str
        Message or traceback.
    folders : iterable of path-like, optional
        Folders that the run writes to.

    Returns
    -------
    str
        Empty if the disk is not at fault.

    Examples
    --------
    >>> disk_problem('OSError: [Errno 122] Disk quota exceeded')
    'the disk has no quota left'
    >>> disk_problem('ValueError: no brain')
    ''
    """
    folders = [Path(folder) for folder in folders]
    empty = [str(folder) for folder in folders if _free_bytes(folder) < _NO_SPACE]
    if empty:
        return f'the disk of {" and of ".join(empty)} is full'
    codes = {int(code) for code in re.findall(r'\[Errno (\d+)\]', text)}
    found = next((code for code in _FULL if code in codes), None)
    if found is None:
        return ''
    where = ' or of '.join(map(str, folders))
    return f'the disk{f" of {where}" if where else ""} {_FULL[found]}'


def _free_bytes(folder: Path) -> int:
    try:
        found = os.statvfs(folder)
    except OSError:
        return _NO_SPACE
    return found.f_bavail * found.f_frsize
