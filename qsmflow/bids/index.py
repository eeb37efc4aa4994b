"""The index of a dataset, made by pybids, and kept between runs where the user asks for it.

A kept index is a pybids database. SQLite locks do not work on many network file systems, so the
database is never opened where it lies: it is copied into the temporary folder first, and a new
one replaces the old one as a whole. It is used only while nothing of what it describes changed.
"""

import json
import logging
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from qsmflow.bids import checks_dataset
from qsmflow.files import completed, write_text

#: Name of the file in a folder of pybids.
DATABASE = 'layout_index.sqlite'
#: Our mark beside it: a database of another program is read, but never replaced.
MARK = 'qsmflow_index.json'
_OTHER_FOLDERS = (
    'func|dwi|fmap|perf|eeg|ieeg|meg|pet|micr|beh|nirs|motion|mrs',
    'code|stimuli|sourcedata|models|derivatives|phenotype|logs',
)
_LOGGER = logging.getLogger('qsmflow.bids')


def make_index(root: Path, labels: Sequence[str], broken: Iterable[str]):
    """Index the anatomical images of some subjects.

    Broken sidecars are hidden: one of them would stop the indexing of the whole dataset. Names
    are not validated here, so that wrong ones can be told.

    Parameters
    ----------
    root : Path
        Dataset.
    labels : sequence of str
        Subjects.
    broken : iterable of str
        Sidecars to hide, by path below the dataset.

    Returns
    -------
    bids.BIDSLayout
    """
    from bids import BIDSLayout, BIDSLayoutIndexer

    chosen = '|'.join(re.escape(label) for label in labels)
    subject_folders, root_folders = _OTHER_FOLDERS
    ignore = [
        re.compile(rf'^/sub-(?!(?:{chosen})(?:/|$))'),
        re.compile(rf'^/sub-[^/]+/(?:ses-[^/]+/)?(?:{subject_folders})(?:/|$)'),
        re.compile(rf'^/(?:{root_folders})(?:/|$)'),
        re.compile(r'/\.'),
        *(re.compile(f'^/{re.escape(path)}$') for path in broken),
    ]
    indexer = BIDSLayoutIndexer(validate=False, ignore=ignore)
    # Without validation of the root: a missing description was judged before.
    return BIDSLayout(root, validate=False, indexer=indexer)


def open_index(
    root: Path, labels: Sequence[str], broken: Iterable[str], database_dir: str | os.PathLike
):
    """Return the index that a folder keeps, or make one of the whole dataset and keep it there.

    Parameters
    ----------
    root, labels, broken
        As of :func:`make_index`; the labels are those that are needed.
    database_dir : path-like
        Folder of a pybids database, also of one that ``pybids layout`` or fMRIPrep made.

    Returns
    -------
    bids.BIDSLayout
        Of all subjects, or of the needed ones if the folder cannot be written.
    """
    folder = Path(database_dir)
    if (folder / DATABASE).is_file():
        reason = changed_since(root, labels, (folder / DATABASE).stat().st_mtime)
        layout = None if reason else _load(root, folder)
        if layout is not None and not (missing := _not_indexed(layout, root, labels)):
            _LOGGER.info('the index in %s is used', folder)
            return layout
        reason = reason or (f'{missing} is not in it' if layout else 'it cannot be read here')
        if not (folder / MARK).is_file():
            _LOGGER.warning(
                'the index in %s is not used: %s. It was made by another program, so it is left '
                'as it is; remove it, or give another folder, to have one made',
                folder,
                reason,
            )
            return make_index(root, labels, broken)
        _LOGGER.info('the index in %s is made anew: %s', folder, reason)
    started = time.time()
    everyone = checks_dataset.subjects(root)
    layout = make_index(root, everyone, checks_dataset.broken_sidecars(root, everyone))
    try:
        _keep(layout, root, folder, started)
    except OSError as error:
        _LOGGER.warning('the index could not be kept in %s: %s', folder, error.strerror or error)
    return layout


def changed_since(root: Path, labels: Iterable[str], moment: float) -> str:
    """Return the first file or folder that changed after a time; empty if there is none.

    The time of the last change of the inode counts too: it cannot be set back, so that a file
    replaced by an older one is noticed.

    Parameters
    ----------
    root : Path
        Dataset.
    labels : iterable of str
        Subjects that count.
    moment : float
        Unix time.
    """
    for path in _described(root, labels):
        try:
            found = path.stat()
        except OSError:  # a link without target: told by the checks
            found = path.lstat()
        if max(found.st_mtime, found.st_ctime) > moment:
            return f'{path.relative_to(root).as_posix()} changed after it'
    return ''


def _described(root: Path, labels: Iterable[str]):
    """Yield the files and folders that the index of some subjects depends on."""
    yield from (root, *sorted(root.glob('*.json')))
    for label in labels:
        subject = root / f'sub-{label}'
        for folder in (subject, *sorted(subject.glob('ses-*'))):
            yield from (folder, *sorted(folder.glob('*.json')))
            if (folder / 'anat').is_dir():
                yield from (folder / 'anat', *sorted((folder / 'anat').iterdir()))


def _load(root: Path, folder: Path):
    """Return a copy of a kept index, or None where it is of no use for this dataset."""
    from bids import BIDSLayout
    from sqlalchemy.exc import SQLAlchemyError

    copy = tempfile.TemporaryDirectory(prefix='qsmflow-index-')
    try:
        shutil.copyfile(folder / DATABASE, Path(copy.name) / DATABASE)
        layout = BIDSLayout(root, database_path=copy.name, validate=False)
        if str(layout._root) != str(root):
            return None
        layout.get_files()
    except (SQLAlchemyError, OSError, AttributeError, ValueError) as error:
        _LOGGER.debug('the index in %s cannot be read', folder, exc_info=error)
        return None
    layout.kept_copy = copy  # removed when the layout is
    return layout


def _not_indexed(layout, root: Path, labels: Iterable[str]) -> str:
    """Return the first image with a valid name that an index lacks."""
    from qsmflow.bids.names import is_usable_name

    known = {str(file.path) for file in layout.get_files().values()}
    for label in labels:
        for path in sorted((root / f'sub-{label}').rglob('anat/*.nii*')):
            relative = path.relative_to(root).as_posix()
            if str(path) not in known and is_usable_name(relative):
                return relative
    return ''


def _keep(layout, root: Path, folder: Path, started: float) -> None:
    """Store an index; it appears complete, whoever else does the same.

    Its time is that at which the indexing began: what changed since is not in it for certain.
    """
    import bids

    folder.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix='qsmflow-index-'))
    try:
        layout.connection_manager.save_database(made, replace_connection=False)
        with completed(folder / DATABASE) as partial:
            shutil.copyfile(made / DATABASE, partial)
            os.utime(partial, (started, started))
    finally:
        shutil.rmtree(made, ignore_errors=True)
    about = {'Dataset': str(root), 'pybids': bids.__version__}
    write_text(folder / MARK, json.dumps(about, indent=2) + '\n')
    _LOGGER.info('the index of the dataset is kept in %s', folder)
