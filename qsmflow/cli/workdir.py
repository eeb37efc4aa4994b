"""Where the steps of a run are kept in the work folder, and how they are removed.

The work folder may be shared with anything, as the current folder is with ``-w .``: only what this
program has made there is ever removed.
"""

import contextlib
import logging
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from qsmflow import __version__
from qsmflow.settings import Settings

_LOGGER = logging.getLogger('qsmflow.cli')
#: Name of the graph, and of the folder that nipype makes for its steps.
GRAPH = 'qsmflow_wf'
#: ``qsmflow-<version>``, the version as packages write it: two numbers or more.
_NAME = re.compile(
    r'qsmflow-\d+(\.\d+)+((a|b|rc)\d+)?(\.post\d+)?(\.dev\d+)?(\+[a-z0-9]+(\.[a-z0-9]+)*)?'
)


def uses_work_folder(settings: Settings) -> bool:
    """Tell whether a run needs a work folder; a dry run makes none, and looks at its place."""
    execution = settings.execution
    texts = execution.reports_only or execution.boilerplate_only
    return settings.bids.analysis_level == 'participant' and not texts


def version_folder(work_dir: Path) -> Path:
    """Return the folder of this version's steps.

    Hashes cover a node's inputs, not our code: another version starts in a folder of its own.
    """
    return work_dir / f'qsmflow-{__version__}'


def is_hidden_in(work_dir: Path, out_dir: Path) -> bool:
    """Tell whether the work folder is, or lies in, a hidden folder of the results.

    Such a folder is no part of the BIDS dataset that they form.

    Examples
    --------
    >>> is_hidden_in(Path('/out/.work'), Path('/out')), is_hidden_in(Path('/out/w'), Path('/out'))
    (True, False)
    """
    if not work_dir.is_relative_to(out_dir):
        return False
    return work_dir.relative_to(out_dir).as_posix().startswith('.') and work_dir != out_dir


def clean(work_dir: Path, out_dir: Path, datasets: Mapping[str, Path]) -> list[Path]:
    """Remove the steps of earlier runs, of any version, from the work folder.

    That is ``qsmflow-<version>/qsmflow_wf``, and its parent if nothing else is in it. Links, and
    all other files and folders, stay.

    Parameters
    ----------
    work_dir : Path
        Work folder.
    out_dir : Path
        Output folder.
    datasets : mapping of str to Path
        Options and the datasets they name.

    Returns
    -------
    list of Path
        What was removed.

    Raises
    ------
    DatasetError
        If one of them is, contains or lies in the output folder or a dataset (``E96``); exit code
        2, and nothing was removed. A hidden folder of the results is no part of them.
    """
    found = []
    for folder in sorted(work_dir.glob('qsmflow-*')):
        steps = folder / GRAPH
        if not _NAME.fullmatch(folder.name) and folder != version_folder(work_dir):
            continue
        if not steps.is_dir():
            continue
        if folder.is_symlink() or steps.is_symlink():
            _LOGGER.warning('%s is or lies in a link, which --clean-workdir leaves alone', steps)
            continue
        found.append(steps)
    inside = is_hidden_in(work_dir.resolve(), out_dir.resolve())
    for steps in found:
        for option, path in {'OUTPUT_DIR': out_dir, **datasets}.items():
            _require_apart(steps, option, path, inside)
    for steps in found:
        shutil.rmtree(steps)
        with contextlib.suppress(OSError):  # something else is in it
            steps.parent.rmdir()
    return found


def _require_apart(steps: Path, option: str, path: Path, inside: bool) -> None:
    """Refuse to remove a folder that has to do with a dataset or the results."""
    from qsmflow.bids.findings import EXIT_USAGE, DatasetError, Finding

    place, other = steps.resolve(), path.resolve()
    if other.is_relative_to(place):
        what = 'is' if other == place else 'contains'
    elif place.is_relative_to(other) and not inside:
        what = 'lies in'
    else:
        return
    message = f'--clean-workdir would remove this folder, which {what} {option}'
    remedy = 'Give another -w/--work-dir, or remove by hand what is not needed.'
    finding = Finding('E96', 'FATAL', message, str(steps), {option: str(path)}, remedy)
    raise DatasetError([finding], EXIT_USAGE)
