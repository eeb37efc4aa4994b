"""Locks: two runs must not work on one subject in one folder.

A lock is a small file that says who holds it. It works on network file systems, where ``flock``
may not: making a hard link is atomic there too. The holder touches it now and then. A lock is
stale, and taken over, when its process is known to be gone (same machine), or when it was not
touched for long (another machine). Ages are measured with the clock of the file system.
"""

import contextlib
import json
import logging
import os
import socket
import stat
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from qsmflow.bids.findings import Finding

_LOGGER = logging.getLogger('qsmflow.cli')
FOLDER = '.qsmflow-locks'
#: Seconds between two touches, and without one until a lock is stale. Attributes of network file
#: systems may be a minute old.
HEARTBEAT, STALE = 15.0, 180.0


class InUseError(RuntimeError):
    """Another run works here."""

    exit_code = 75


class LockLostError(RuntimeError):
    """Another run took this one for dead and has taken its place."""

    exit_code = 75


@dataclass(frozen=True)
class Owner:
    """The process that holds a lock.

    Attributes
    ----------
    run : str
        Name of the run.
    host : str
        Name of the machine.
    pid : int
        Process identifier.
    place : str
        Boot and process name space: within one, a process identifier means one process.
    started : str
        When the process began, in ticks since the boot: identifiers are used again.
    since : str
        Time at which the lock was taken, for the message.
    """

    run: str
    host: str
    pid: int
    place: str
    started: str
    since: str

    @classmethod
    def me(cls, run: str) -> 'Owner':
        """Return this process."""
        pid = os.getpid()
        since = time.strftime('%Y-%m-%d %H:%M:%S%z')
        return cls(run, socket.gethostname(), pid, _place(), _start_time(pid), since)

    @property
    def here(self) -> bool:
        """Whether its process identifier means something to this process."""
        return bool(self.place) and self.place == _place()

    def gone(self) -> bool:
        """Tell whether the process is known to have ended."""
        return self.here and _start_time(self.pid) != self.started

    def __str__(self) -> str:
        return f'run {self.run} (host {self.host}, process {self.pid}, since {self.since})'


class Locks:
    """The locks of one run on subjects of its folders.

    Parameters
    ----------
    output_dir, work_dir : path-like
        Folders to lock. They exist.
    subjects : iterable of str
        Labels.
    run : str
        Name of this run.
    on_lost : callable, optional
        Is told, in another thread, if a lock was taken over.
    clean : bool
        Whether this run wants the whole of the work folder, to clean it.

    Raises
    ------
    InUseError
        On entering, if another run works on one of these subjects, or cleans the work folder;
        the message names it. Nothing is held then.
    """

    def __init__(
        self,
        output_dir: str | os.PathLike,
        work_dir: str | os.PathLike,
        subjects: Iterable[str],
        run: str,
        *,
        on_lost: Callable[[Path], None] = lambda path: None,
        clean: bool = False,
    ):
        self.work_dir = Path(work_dir)
        self.folders = [Path(output_dir) / FOLDER, self.work_dir / FOLDER]
        self.subjects = list(subjects)
        self.owner = Owner.me(run)
        self._clean = clean
        self._on_lost = on_lost
        self._own: dict[Path, Path] = {}
        self._held: list[Path] = []
        self._stop = threading.Event()

    def __enter__(self) -> 'Locks':
        try:
            for folder in self.folders:
                self._own[folder] = self._sign_in(folder)
                if self._clean and folder.parent == self.work_dir:
                    self._take(folder / 'clean')
                for label in self.subjects:
                    self._take(folder / f'sub-{label}')
            self._look_around()
        except BaseException:
            self._release()
            raise
        threading.Thread(target=self._beat, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self.release()

    def release(self) -> None:
        """Give all locks back."""
        self._stop.set()
        self._release()

    def cleaned(self) -> None:
        """Let other runs into the work folder, once it is clean."""
        self._drop(self.work_dir / FOLDER / 'clean')

    def _sign_in(self, folder: Path) -> Path:
        """Write down who this run is; its locks are further names of this file."""
        while True:
            _make(folder)
            own = folder / f'{uuid.uuid4().hex}.run'
            try:
                own.write_text(json.dumps(asdict(self.owner)))
            except FileNotFoundError:
                continue  # another run has just ended and removed the empty folder
            for other in folder.glob('*.run'):
                if other != own and _stale(_read(other), _age(other)):
                    other.unlink(missing_ok=True)
            return own

    def _take(self, path: Path) -> None:
        own = self._own[path.parent]
        while not _link(own, path):
            owner, age = _read(path), _age(path)
            if age is None:
                continue  # it was released just now
            if not _stale(owner, age):
                raise InUseError(str(self._in_use(path, owner)))
            _LOGGER.warning('%s was left behind by %s; it is taken over', path, owner or 'a run')
            _remove_stale(path, owner, own)
        self._held.append(path)

    def _look_around(self) -> None:
        """Look for a run that cleans the work folder, or, to clean it, for any other run.

        Either side makes its lock before it looks, so that one of the two sees the other.
        """
        for path in sorted((self.work_dir / FOLDER).iterdir()):
            wanted = path.name == 'clean' or (self._clean and path.name.startswith('sub-'))
            if wanted and '.' not in path.name and path not in self._held:
                owner, age = _read(path), _age(path)
                if age is not None and not _stale(owner, age):
                    raise InUseError(str(self._in_use(path, owner)))

    def _in_use(self, path: Path, owner: Owner | None) -> Finding:
        who, folder = str(owner or 'another run'), path.parent.parent
        way_out = (
            f'Wait until it has ended. If it is dead, its lock {path} is taken over '
            f'{STALE:g} s after its last sign of life, at once on its own machine'
        )
        if folder != self.work_dir:
            message = f'{who} is writing the results of {path.name} to this output folder'
            return Finding('E102', 'FATAL', message, str(folder), remedy=f'{way_out}.')
        what = 'empties' if path.name == 'clean' else f'works on {path.name} in'
        if self._clean and path.name != 'clean':
            message = f'{who} {what} this work folder, which --clean-workdir would empty'
        else:
            message = f'{who} {what} this work folder'
        remedy = f'{way_out}. Or give this run a work folder of its own with -w.'
        return Finding('E101', 'FATAL', message, str(folder), remedy=remedy)

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT):
            for own in self._own.values():
                with contextlib.suppress(OSError):
                    os.utime(own)
            for path in list(self._held):
                if not self._still_held(path) and not self._stop.is_set():
                    self._on_lost(path)
                    return

    def _still_held(self, path: Path) -> bool:
        """Look after one lock; one that someone deleted is made again."""
        try:
            if _read(path) == self.owner:
                # A file of its own where there are no hard links. If someone deletes it just now,
                # the next beat makes it again.
                with contextlib.suppress(FileNotFoundError):
                    os.utime(path)
                return True
            return path not in self._held or _link(self._own[path.parent], path)
        except OSError:
            return self._stop.is_set()

    def _release(self) -> None:
        for path in list(reversed(self._held)):
            self._drop(path)
        for folder, own in self._own.items():
            with contextlib.suppress(OSError):
                own.unlink(missing_ok=True)
                folder.rmdir()  # another run may be in it

    def _drop(self, path: Path) -> None:
        if path in self._held:
            self._held.remove(path)
            if _read(path) == self.owner:
                with contextlib.suppress(OSError):
                    path.unlink()


def _make(folder: Path) -> None:
    """Make a folder that another run may remove at any moment."""
    while True:
        try:
            return folder.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            # Either it was there, and was removed before pathlib could see that it is a folder, or
            # it is something else.
            with contextlib.suppress(FileNotFoundError):
                if not stat.S_ISDIR(folder.lstat().st_mode):
                    raise


def _link(own: Path, path: Path) -> bool:
    """Make a lock with its content in one step; False if there is one already."""
    try:
        os.link(own, path)
    except FileExistsError:
        # A network file system may repeat a request that had succeeded.
        with contextlib.suppress(OSError):
            return os.path.samefile(own, path)
        return False
    except FileNotFoundError:
        raise
    except OSError:  # a file system without hard links
        return _create(path, own.read_text())
    return True


def _create(path: Path, content: str) -> bool:
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return False
    with os.fdopen(handle, 'w') as stream:
        stream.write(content)
    return True


def _remove_stale(path: Path, owner: Owner | None, own: Path) -> None:
    """Remove a stale lock, unless another run has taken its place meanwhile.

    Of several runs that see it, one at a time looks again and removes.
    """
    guard = path.with_name(f'{path.name}.takeover')
    if not _link(own, guard):
        if _stale(_read(guard), _age(guard)):
            guard.unlink(missing_ok=True)
        time.sleep(0.1)
        return
    try:
        if _read(path) == owner:
            path.unlink(missing_ok=True)
    finally:
        guard.unlink(missing_ok=True)


def _stale(owner: Owner | None, age: float | None) -> bool:
    """Tell whether the holder is dead, as far as can be known."""
    if owner is not None and owner.here:
        return owner.gone()  # it is known, however long the process was stopped
    return age is not None and age > STALE


def _read(path: Path) -> Owner | None:
    """Return the owner of a lock; None if there is no lock, or not all of it yet."""
    try:
        return Owner(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _age(path: Path) -> float | None:
    """Return the seconds since a lock was touched, None if there is no lock."""
    probe = path.with_name(f'{uuid.uuid4().hex}.probe')
    try:
        touched = path.stat().st_mtime
        probe.touch()
        return probe.stat().st_mtime - touched
    except OSError:
        return None
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()


def _place() -> str:
    """Name the boot and the name space in which process identifiers are unique."""
    try:
        boot = Path('/proc/sys/kernel/random/boot_id').read_text().strip()
        return f'{boot} {os.readlink("/proc/self/ns/pid")}'
    except OSError:
        return ''


def _start_time(pid: int) -> str:
    """Return when a process began, in ticks since the boot; empty if there is none."""
    try:
        fields = Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()
    except OSError:
        return ''
    return '' if fields[0] in 'ZX' else fields[19]
