"""Write images and sidecars into a BIDS dataset, new or existing, and never over a file."""

import contextlib
import csv
import errno
import fcntl
import gzip
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path

import qsmflow
from qsmflow.bids.derivatives import BIDS_VERSION
from qsmflow.dicom.errors import ConversionError
from qsmflow.dicom.naming import Target
from qsmflow.files import completed

_DESCRIPTION = slice(148, 228)  #: free text of a NIfTI-1 header
_README = """\
{name}
{line}

Gradient-echo images for quantitative susceptibility mapping, converted from DICOM.

They were converted by qsmflow-dicom {version} with dcm2niix {tool}. Pixels are as the scanner
saved them. Sidecars keep what says how an image was acquired; names, dates, places, serial numbers
and free text are left out.

Please say here who was scanned, how, and under which conditions the data may be used.
"""


def check_dataset_folder(root: str | os.PathLike) -> bool:
    """Check that a folder is a raw BIDS dataset, or can become one.

    Parameters
    ----------
    root : path-like
        Folder; it need not exist.

    Returns
    -------
    bool
        Whether there is a dataset already.

    Raises
    ------
    ConversionError
        With exit code 2, if there is something else.
    """
    root = Path(root)
    if not root.exists():
        return False
    if not root.is_dir():
        raise ConversionError(f'{root} is a file, not a folder', 2)
    description = root / 'dataset_description.json'
    if not description.exists():
        if any(root.iterdir()):
            raise ConversionError(
                f'{root} is neither empty nor a BIDS dataset: it has no dataset_description.json. '
                'Name a new folder, or one with a dataset',
                2,
            )
        return False
    try:
        kind = json.loads(description.read_text(encoding='utf-8')).get('DatasetType', 'raw')
    except (ValueError, AttributeError) as error:
        raise ConversionError(f'{description} cannot be read: {error}', 2) from error
    if kind != 'raw':
        raise ConversionError(f'{root} is a dataset of type {kind!r}; expected a raw one', 2)
    return True


def check_new(root: str | os.PathLike, targets: Sequence[Target]) -> None:
    """Check that no file of a plan exists.

    Raises
    ------
    ConversionError
        With exit code 2, naming files that exist.
    """
    root = Path(root)
    paths = [path for t in targets for path in (t.relative, t.relative_sidecar)]
    taken = [path for path in paths if os.path.lexists(root / path)]
    # The same image without compression would be the same name to BIDS.
    taken += [t.relative[:-3] for t in targets if os.path.lexists(root / t.relative[:-3])]
    if taken:
        shown = ', '.join(taken[:3]) + (', ...' if len(taken) > 3 else '')
        raise ConversionError(
            f'{len(taken)} files are there already and are not overwritten ({shown}). Give '
            'another --session-label, --acq-label or --run, or remove them',
            2,
        )


def write_targets(
    root: str | os.PathLike, targets: Sequence[Target], participant: str, *, name: str, tool: str
) -> list[str]:
    """Write a plan into a dataset, which is created if there is none.

    Sidecars come before images. If anything fails, what this call wrote is removed.

    Parameters
    ----------
    root : path-like
        Root of the dataset.
    targets : sequence of Target
        Images and their names; none of these may exist.
    participant : str
        Label for ``participants.tsv``.
    name : str
        Name of a new dataset.
    tool : str
        Version of dcm2niix.

    Returns
    -------
    list of str
        Files written, below ``root``.

    Raises
    ------
    ConversionError
        If a file exists.
    OSError
        If the folder cannot be written.
    """
    root = Path(root)
    exists = check_dataset_folder(root)
    check_new(root, targets)
    root.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    try:
        if not exists:
            for file, text in _dataset_files(name, tool).items():
                # Another conversion into the same new dataset may have been first.
                with contextlib.suppress(ConversionError):
                    _place(root / file, text.encode(), written)
        for target in targets:
            text = json.dumps(dict(target.content), indent=2, ensure_ascii=False) + '\n'
            _place(root / target.relative_sidecar, text.encode(), written)
            _place(root / target.relative, target.image.path, written)
        table = root / 'participants.tsv'
        if not exists or table.exists():  # a table of one would leave the others out
            _add_participant(table, f'sub-{participant}')
    except BaseException:
        _remove(written, root)
        raise
    return [path.relative_to(root).as_posix() for path in written]


def _remove(paths: Sequence[Path], root: Path) -> None:
    """Remove files, and the folders below a root that are empty without them."""
    for path in sorted(paths, key=lambda path: path.parent == root):
        if path.parent == root and any(root.glob('sub-*')):
            continue  # another conversion into the same new dataset relies on it
        path.unlink(missing_ok=True)
        for folder in path.parents:
            if folder == root.parent:
                break
            with contextlib.suppress(OSError):
                folder.rmdir()


def _place(path: Path, content: bytes | Path, written: list[Path]) -> None:
    """Make a file appear complete, and only if none has its name."""
    with completed(path) as partial:
        if isinstance(content, Path):
            content = _without_time(content.read_bytes())
        partial.write_bytes(content)
        try:
            os.link(partial, path)
        except FileExistsError:
            raise ConversionError(f'{path} is there already and is not overwritten', 2) from None
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            if os.path.lexists(path):  # a file system without hard links: `completed` renames
                message = f'{path} is there already and is not overwritten'
                raise ConversionError(message, 2) from None
    written.append(path)


def _without_time(packed: bytes) -> bytes:
    """Return a compressed NIfTI-1 image with the same voxels, and no time of day in its text.

    dcm2niix writes ``TE=4;Time=101500.000`` there, whatever it is asked to leave out.
    """
    content = bytearray(gzip.decompress(packed))
    if content[344:348] == b'n+1\0':
        text = bytes(content[_DESCRIPTION]).rstrip(b'\0')
        kept = b';'.join(item for item in text.split(b';') if not item.startswith(b'Time='))
        content[_DESCRIPTION] = kept.ljust(80, b'\0')
    return gzip.compress(bytes(content), compresslevel=6, mtime=0)


def _dataset_files(name: str, tool: str) -> dict[str, str]:
    """Return the files of a new dataset, first the one that makes it a dataset."""
    description = {
        'Name': name,
        'BIDSVersion': BIDS_VERSION,
        'DatasetType': 'raw',
        'GeneratedBy': [
            {'Name': 'qsmflow-dicom', 'Version': qsmflow.__version__},
            {'Name': 'dcm2niix', 'Version': tool, 'CodeURL': 'https://github.com/rordenlab/dcm2niix'},
        ],
    }  # fmt: skip
    readme = _README.format(
        name=name, line='=' * len(name), version=qsmflow.__version__, tool=tool
    )
    return {
        'dataset_description.json': json.dumps(description, indent=2, ensure_ascii=False) + '\n',
        'participants.tsv': 'participant_id\n',
        'README': readme,
    }


def _add_participant(path: Path, label: str) -> None:
    """Append a participant to ``participants.tsv``, where it is not in there yet.

    Conversions of several participants may run at once: each holds a lock while it looks and adds.
    """
    with path.open('a+', encoding='utf-8', newline='') as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        stream.seek(0)
        text = stream.read()
        rows = list(csv.reader(io.StringIO(text), delimiter='\t')) or [['participant_id']]
        if not text:
            stream.write('participant_id\n')
        header = [cell.lstrip('\ufeff') for cell in rows[0]]
        if 'participant_id' not in header:
            return  # not ours to mend; the validator tells
        column = header.index('participant_id')
        if any(len(row) > column and row[column] == label for row in rows[1:]):
            return
        row = ['n/a'] * len(header)
        row[column] = label
        ends = '' if not text or text.endswith('\n') else '\n'
        stream.write(ends + '\t'.join(row) + '\n')
