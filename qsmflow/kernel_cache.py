"""Where numba keeps compiled kernels, so that the second process starts at once.

numba caches beside the package. Where that cannot be written (a read-only image, a foreign user)
it refuses to compile at all (``no locator available``), and it never reads from a folder that it
cannot write. So such a place gets a private folder for temporary files, and where the
installation brings compiled kernels (a *store*, made by ``python -m qsmflow.cli.warmup``), their
files are linked into that folder: what is there is loaded, what is missing is compiled and written
beside it.

Compiled code is keyed on the processor. A store is made for a processor that almost every machine
of its kind includes, and numba is told to compile for it where the machine does.
"""

import contextlib
import json
import os
import platform
import stat
import sys
import tempfile
from collections.abc import MutableMapping
from pathlib import Path

#: Where an installation keeps its compiled kernels.
STORE = Path(sys.prefix) / 'share' / 'qsmflow' / 'kernels'

#: File of a store that says for which processor it was compiled, and which build it is.
MANIFEST = 'store.json'

#: For each kind of machine: the processor a store is made for, and what ``/proc/cpuinfo`` must
#: list. Level 3 of x86-64 holds AVX2 and FMA: Intel since 2013, AMD since 2015.
PORTABLE = {
    'x86_64': (
        'x86-64-v3',
        frozenset(('avx', 'avx2', 'bmi1', 'bmi2', 'f16c', 'fma', 'abm', 'movbe', 'xsave')),
    ),
    'aarch64': ('generic', frozenset()),
}


def prepare(
    environ: MutableMapping[str, str] = os.environ,
    package: Path = Path(__file__).parent,
    store: Path = STORE,
) -> None:
    """Tell numba where to keep compiled kernels; it must not be imported yet.

    Parameters
    ----------
    environ : mapping, optional
        Environment to change. What it says about numba's folder or processor is left alone.
    package : Path, optional
        Folder of the package.
    store : Path, optional
        Kernels that came with the installation.
    """
    if 'NUMBA_CACHE_DIR' in environ:
        return
    manifest = _manifest(store)
    usable = manifest is not None and _use_processor(manifest['cpu'], environ)
    if not usable and os.access(package, os.W_OK):
        return
    try:
        folder = private_folder(manifest['build'] if usable else '')
        if usable:
            link_store(store, folder)
    except OSError:
        # Nothing can be written here: numba looks in the home folder next.
        return
    environ['NUMBA_CACHE_DIR'] = str(folder)


def private_folder(name: str = '', stem: str = 'qsmflow-numba') -> Path:
    """Return a folder for temporary files in which no other user can write.

    Kernels are code. On a machine where many share ``/tmp``, a folder that another user made
    beforehand is not used.

    Parameters
    ----------
    name : str, optional
        Name of the subfolder to make in it.
    stem : str, optional
        How the folder's name starts.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    OSError
        If there is no place where it can be made.
    """
    folder = Path(tempfile.gettempdir()) / f'{stem}-{os.getuid()}'
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
    if not ours or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        folder = Path(tempfile.mkdtemp(prefix=f'{stem}-'))
    if name:
        folder = folder / name
        folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def link_store(store: Path, folder: Path) -> None:
    """Make every file of a store appear in a folder, once.

    numba writes by renaming, so that a new entry replaces the link and never the file behind it.

    Parameters
    ----------
    store : Path
        Folder as numba wrote it.
    folder : Path
        Folder that numba will use.

    Raises
    ------
    OSError
        If the folder cannot be written.
    """
    done = folder / MANIFEST
    if done.exists():
        return
    for source in store.glob('*/*.nb[ci]'):
        target = folder / source.parent.name / source.name
        target.parent.mkdir(mode=0o700, exist_ok=True)
        _link(source, target)
    _link(store / MANIFEST, done)


def supports(needed: frozenset[str], cpuinfo: Path = Path('/proc/cpuinfo')) -> bool:
    """Tell whether the processor has all the features that a store needs.

    Parameters
    ----------
    needed : frozenset of str
        Names as in ``/proc/cpuinfo``.
    cpuinfo : Path, optional
        That file.

    Returns
    -------
    bool
        Also False where it cannot be known.
    """
    if not needed:
        return True
    try:
        lines = cpuinfo.read_text(encoding='utf-8').splitlines()
    except (OSError, UnicodeDecodeError):
        return False
    flags = [set(line.partition(':')[2].split()) for line in lines if line.startswith('flags')]
    return bool(flags) and all(needed <= each for each in flags)


def _manifest(store: Path) -> dict[str, str] | None:
    try:
        found = json.loads((store / MANIFEST).read_text(encoding='utf-8'))
        return {name: str(found[name]) for name in ('cpu', 'build')}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _use_processor(name: str, environ: MutableMapping[str, str]) -> bool:
    """Have numba compile for the processor of a store, if this machine and the user let it."""
    portable, needed = PORTABLE.get(platform.machine(), ('', frozenset()))
    if name != portable or not supports(needed):
        return False
    chosen = {'NUMBA_CPU_NAME': name, 'NUMBA_CPU_FEATURES': ''}
    if any(environ.get(key, value) != value for key, value in chosen.items()):
        return False
    environ.update(chosen)
    return True


def _link(source: Path, target: Path) -> None:
    # It may exist: of a process that does the same at this moment, or compiled here.
    with contextlib.suppress(FileExistsError):
        target.symlink_to(source)
