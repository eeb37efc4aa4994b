"""The BIDS App, run once for each test session on one small phantom, and shared by its tests."""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

# The processes of a parallel test session share the processors. numba looks when it is imported.
if 'PYTEST_XDIST_WORKER_COUNT' in os.environ:
    share = len(os.sched_getaffinity(0)) // int(os.environ['PYTEST_XDIST_WORKER_COUNT'])
    os.environ.setdefault('OMP_NUM_THREADS', str(max(1, share)))


@pytest.fixture(autouse=True)
def same_environment():
    """Take back the variables that the program sets for its process and those that it starts."""
    before = dict(os.environ)
    yield
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


@dataclass(frozen=True)
class Run:
    """A finished run of the program.

    Attributes
    ----------
    code : int
        Exit code.
    stdout, stderr : str
        What it printed.
    started, seconds : float
        Unix time of its start, and how long it took.
    out, work : str
        Output and work folder.
    """

    code: int
    stdout: str
    stderr: str
    started: float
    seconds: float
    out: str
    work: str

    @property
    def last_line(self) -> str:
        """Return the last line of the log."""
        return self.stderr.rstrip().splitlines()[-1]

    @property
    def files(self) -> set[str]:
        """Return the output files, the name of the run's log folder replaced by ``RUN``."""
        out = Path(self.out)
        paths = (path.relative_to(out) for path in out.rglob('*') if path.is_file())
        return {_without_run(path) for path in paths}

    @property
    def logs(self) -> Path:
        """Return the log folder of the run; there must be one."""
        (folder,) = (path for path in (Path(self.out) / 'logs').iterdir() if path.is_dir())
        return folder


def _without_run(path: Path) -> str:
    if path.parts[0] == 'logs' and len(path.parts) > 2:
        return Path('logs', 'RUN', *path.parts[2:]).as_posix()
    return path.as_posix()


class App:
    """Starts the program in a process of its own, below one folder."""

    def __init__(self, root: Path):
        self.root = root

    def command(self, raw, out, level: str, *options: str, work=None) -> list[str]:
        """Return a command line."""
        work = ('-w', str(work)) if work else ()
        start = [sys.executable, '-m', 'qsmflow', str(raw), str(out), level]
        return [*start, *work, *map(str, options)]

    def run(self, raw, out, level: str = 'participant', *options: str, work=None) -> Run:
        """Run the program to its end."""
        started = time.time()
        done = subprocess.run(
            self.command(raw, out, level, *options, work=work),
            capture_output=True, text=True, timeout=850, cwd=self.root,
        )  # fmt: skip
        seconds = time.time() - started
        return Run(
            done.returncode, done.stdout, done.stderr, started, seconds, str(out), str(work)
        )

    @contextlib.contextmanager
    def alone(self, name: str):
        """Let only one process of a parallel test session in at a time."""
        with (self.root / f'{name}.lock').open('w') as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    def once(self, name: str, action) -> Run:
        """Return what ``action`` returned in the process that came first."""
        kept = self.root / f'{name}.json'
        with self.alone(name):
            if not kept.exists():
                kept.write_text(json.dumps(asdict(action())))
        return Run(**json.loads(kept.read_text()))


@pytest.fixture(scope='session')
def app(tmp_path_factory):
    """Start the program; its folder is shared by the processes of a parallel test session."""
    base = tmp_path_factory.getbasetemp()
    root = (base.parent if os.environ.get('PYTEST_XDIST_WORKER') else base) / 'app'
    root.mkdir(exist_ok=True)
    return App(root)


@pytest.fixture(scope='session')
def phantom(app):
    """Return the folder of a dataset with one subject and one session of coarse voxels."""
    raw = app.root / 'raw'
    with app.alone('phantom'):
        if not raw.exists():
            command = [sys.executable, '-m', 'qsmflow.phantom.cli', str(raw) + '.part']
            options = ['--small', '--subjects', '1', '--sessions', '1']
            subprocess.run([*command, *options], check=True, capture_output=True)
            shutil.move(str(raw) + '.part', raw)
    return raw


def _state(folder: Path) -> dict[str, tuple[int, str]]:
    """Return time of change and content of every file, and the time of every folder."""
    return {
        path.relative_to(folder).as_posix(): (
            path.stat().st_mtime_ns,
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else '',
        )
        for path in [folder, *sorted(folder.rglob('*'))]
    }


@pytest.fixture(scope='session')
def state():
    """Return the function that takes down the state of a folder."""
    return _state


@pytest.fixture(scope='session')
def base_run(app, phantom):
    """Return the run of the whole participant level with its defaults.

    ``raw.json`` keeps the state of the dataset before it.
    """

    def action():
        (app.root / 'raw.json').write_text(json.dumps(_state(phantom)))
        return app.run(phantom, app.root / 'out', work=app.root / 'work')

    return app.once('base', action)
