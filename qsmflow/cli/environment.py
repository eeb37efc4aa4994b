"""The process's environment: folders that can be written, and threads within the limits.

In a container the root is read-only, the user has no home and no entry in the password file, and
variables of the host may reach in. Libraries look for their folders and thread counts when they
are imported, so :func:`prepare` runs before any of them.
"""

import contextlib
import logging
import os
import sys
import tempfile
from collections.abc import Iterable, MutableMapping
from pathlib import Path

from qsmflow.cli.usage import refusal
from qsmflow.cli.workdir import uses_work_folder
from qsmflow.kernel_cache import private_folder
from qsmflow.settings import Settings

_LOGGER = logging.getLogger('qsmflow.cli')

_THREADS = (
    'OMP_NUM_THREADS',
    'OPENBLAS_NUM_THREADS',
    'MKL_NUM_THREADS',
    'NUMBA_NUM_THREADS',
)
_FOLDERS = ('HOME', 'MPLCONFIGDIR', 'XDG_CACHE_HOME', 'NUMBA_CACHE_DIR')


def prepare(settings: Settings, environ: MutableMapping[str, str] = os.environ) -> list[Path]:
    """Make output and work folder, and set variables for libraries and child processes.

    A dry run makes neither folder; the group level, and what writes reports or the methods text
    only, needs no work folder.

    Parameters
    ----------
    settings : Settings
        Settings of the run.
    environ : mapping, optional
        Environment to change.

    Returns
    -------
    list of Path
        Folders that were made, outer ones first; see :func:`remove_empty`.

    Raises
    ------
    OSError
        If output or work folder cannot be made or written. Its ``exit_code`` is 73.
    """
    work_dir = Path(settings.execution.work_dir)
    if not uses_work_folder(settings):  # its place was not looked at
        work_dir = Path(settings.bids.output_dir, '.work')
    wanted = {}
    if not settings.execution.dry_run:
        wanted[settings.bids.output_dir] = 'OUTPUT_DIR'
        if uses_work_folder(settings):
            wanted[str(work_dir)] = '-w/--work-dir'
    made = _missing(wanted)
    try:
        for folder, option in wanted.items():
            require_writable(folder, option)
    except OSError:
        remove_empty(made)
        raise
    ours = _folder_if_no_temporary(work_dir, settings.execution.run_uuid, environ)
    # The C library keeps freed arrays of up to 32 MB for later, so that a worker would hold on to
    # the memory of the steps it has done. This takes effect in processes started from here.
    environ.setdefault('MALLOC_MMAP_THRESHOLD_', str(1 << 20))
    # numba refuses another number of threads once they run, as in a program that computed before
    # it called this one. Ours then keep to the limit by what operators.use_threads sets.
    running = {'NUMBA_NUM_THREADS'} if environ is os.environ and 'numba' in sys.modules else set()
    for name in sorted(set(_THREADS) - running):
        environ[name] = str(settings.resources.omp_nthreads)
    # Registration gives the same result twice only with one thread and a seed, both set early.
    environ['ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS'] = '1'
    environ['ANTS_RANDOM_SEED'] = str(settings.execution.random_seed)
    environ.setdefault('MPLBACKEND', 'Agg')
    # Of ended workers it warns after our last line, which is to be the last.
    quiet = 'ignore:resource_tracker:UserWarning'
    given = environ.get('PYTHONWARNINGS')
    environ['PYTHONWARNINGS'] = f'{given},{quiet}' if given else quiet
    # nipype's Slurm plugin asks for it, and containers and cron do not set it.
    environ.setdefault('LOGNAME', environ.get('USER', 'qsmflow'))
    replaced = {}
    for name in _FOLDERS:
        value = environ.get(name)
        usable = value and _can_be_made(Path(value))
        needed = name == 'HOME' or value is not None
        if needed and not usable:
            ours = ours or private_folder(stem='qsmflow')
            folder = ours / name.lower()
            folder.mkdir(exist_ok=True)
            environ[name] = str(folder)
            replaced[name] = folder
    if replaced:
        _tell(replaced)
    return made


def remove_empty(folders: Iterable[Path]) -> None:
    """Remove those folders in which nothing is, the inner ones first.

    After a typo in a label, for example, nothing is left of a run that wrote nothing.
    """
    for folder in reversed(list(folders)):
        with contextlib.suppress(OSError):
            folder.rmdir()


def _missing(folders: Iterable[str]) -> list[Path]:
    """Return the folders, and what they lie in, that are not there yet; outer ones first."""
    missing = set()
    for folder in map(Path, folders):
        missing |= {path for path in (folder, *folder.parents) if not path.exists()}
    return sorted(missing, key=lambda path: len(path.parts))


def _tell(replaced: dict[str, Path]) -> None:
    """Say which folders are taken for others; only now may libraries be imported."""
    from qsmflow.bids.findings import Finding

    for name, folder in replaced.items():
        message = f'{name} is not set to a folder that can be written; {folder} takes its place'
        _LOGGER.info('%s', Finding('E107', 'INFO', message))


def require_writable(path: str | Path, option: str) -> Path:
    """Make a folder and write a file into it, to know before the work rather than after.

    Parameters
    ----------
    path : str or Path
        Folder.
    option : str
        Option that names it, for the message.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    OSError
        If it cannot be made or written (``E99``); ``exit_code`` is 73.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path) as handle:
            handle.write(b'0')
    except OSError as error:
        message = f'{option} cannot be written: {error.strerror}'
        evidence = {'uid': os.getuid(), 'gid': os.getgid()}
        remedy = 'Give another folder, change its owner or rights, or mount it writable.'
        failure = OSError(error.errno, refusal('E99', message, remedy, path, evidence))
        failure.exit_code = 73
        raise failure from error
    return path


def _folder_if_no_temporary(
    work_dir: Path, run_uuid: str, environ: MutableMapping[str, str]
) -> Path | None:
    """Make a folder for temporary files in the work folder, if there is no other.

    Python falls back to the current folder, which is no place for temporary files.
    """
    with contextlib.suppress(FileNotFoundError):
        if Path(tempfile.gettempdir()).absolute() != Path.cwd():
            return None
    folder = work_dir / run_uuid / 'tmp'
    folder.mkdir(parents=True, exist_ok=True)
    environ['TMPDIR'] = str(folder)
    tempfile.tempdir = None  # ask again
    return folder


def _can_be_made(path: Path) -> bool:
    """Tell whether a folder can be written, or its nearest existing parent can."""
    if not path.is_absolute():
        return False
    while not path.exists():
        path = path.parent
    return path.is_dir() and os.access(path, os.W_OK)
