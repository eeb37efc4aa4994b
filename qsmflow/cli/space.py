"""What is looked at before anything is written: rights, and room on the disks."""

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from qsmflow.bids.findings import EXIT_OUTPUT, DatasetError, Finding
from qsmflow.bids.series import GRESeries
from qsmflow.cli.workdir import GRAPH, version_folder
from qsmflow.settings import Settings

_LOGGER = logging.getLogger('qsmflow.cli')
#: Volumes of 4 bytes that stay in the work folder for each series, and for each of its echoes, and
#: bytes beside them. Measured with the default methods on a phantom of five echoes: 20 volumes,
#: 4 for each echo, 4 MB.
_WORK_VOLUMES, _WORK_ECHOES, _WORK_BYTES = 20, 4, 4e6
#: The same of the output folder, where images are compressed to about 0.27 and figures are small;
#: and bytes for each further space, in which voxels have 1 mm.
_OUT_VOLUMES, _OUT_BYTES, _SPACE_BYTES = 2.5, 3e6, 25e6
#: What the registration of a T1w image to the template leaves in either folder.
_T1W_WORK, _T1W_OUT = 60e6, 30e6
#: Part of the estimate below which nothing starts, and below which there is a warning.
_REFUSE, _WARN = 0.8, 1.2


def estimate(series: Sequence[GRESeries], settings: Settings) -> dict[str, float]:
    """Estimate the room that a run takes in its folders, in bytes.

    Parameters
    ----------
    series : sequence of GRESeries
        Their grids and numbers of echoes count.
    settings : Settings
        What is written.

    Returns
    -------
    dict
        ``work`` and ``output``.
    """
    work = output = 0.0
    spaces = settings.outputs.output_spaces
    for item in series:
        volume = 4.0 * item.shape[0] * item.shape[1] * item.shape[2]
        work += volume * (_WORK_VOLUMES + _WORK_ECHOES * len(item.te)) + _WORK_BYTES
        output += volume * _OUT_VOLUMES + _OUT_BYTES + _SPACE_BYTES * len(spaces)
    if settings.outputs.atlas or spaces:
        count = len({item.t1w or item.name for item in series})
        work, output = work + count * _T1W_WORK, output + count * _T1W_OUT
    return {'work': work, 'output': output}


def require_space(series: Sequence[GRESeries], settings: Settings) -> tuple[Finding, ...]:
    """Compare the room on the disks with what the run will take.

    What an earlier run has left for these subjects will be used again, and counts as room.

    Parameters
    ----------
    series : sequence of GRESeries
        What is going to be processed.
    settings : Settings
        Folders, and what is written.

    Returns
    -------
    tuple of Finding
        ``E98`` as a warning where it is tight.

    Raises
    ------
    DatasetError
        If it will not do; exit code 73.
    """
    needed = estimate(series, settings)
    subjects = list(dict.fromkeys(item.subject for item in series))
    work_dir, out_dir = Path(settings.execution.work_dir), Path(settings.bids.output_dir)
    disks: dict[int, list] = {}  # device -> bytes needed, bytes free, folder, options
    for folder, option, own, size in (
        (work_dir, '-w/--work-dir', _work_folders(work_dir, subjects), needed['work']),
        (out_dir, 'OUTPUT_DIR', [out_dir / f'sub-{one}' for one in subjects], needed['output']),
    ):
        device, free = _disk(folder)
        entry = disks.setdefault(device, [0.0, free, folder, []])
        entry[0] += max(size - sum(map(_size, own)), 0)
        entry[3].append(option)
    findings = []
    for size, free, folder, options in disks.values():
        if free >= _WARN * size:
            continue
        stops = free < _REFUSE * size
        message = 'too little space' if stops else 'hardly enough space'
        evidence = {'free_GB': free / 1024**3, 'needed_GB': size / 1024**3}
        remedy = (
            f'Make room, give another {" and ".join(options)}, or process fewer participants at a '
            'time.'
        )
        level = 'FATAL' if stops else 'WARN'
        findings.append(Finding('E98', level, message, str(folder), evidence, remedy))
    if any(finding.stops for finding in findings):
        raise DatasetError(findings, EXIT_OUTPUT)
    return tuple(findings)


def require_access(
    out_dir: str | os.PathLike, work_dir: str | os.PathLike, subjects: Iterable[str]
) -> None:
    """Refuse to begin where the folders of a subject belong to someone else.

    Such folders come from runs of another user, or of root in a container.

    Raises
    ------
    DatasetError
        ``E99``, with exit code 73.
    """
    subjects, out_dir = list(subjects), Path(out_dir)
    roots = [out_dir / 'logs', *(out_dir / f'sub-{one}' for one in subjects)]
    for root in [*roots, *_work_folders(Path(work_dir), subjects)]:
        denied = next(_denied(root), None)
        if denied is None:
            continue
        owner = os.stat(denied)
        message = 'this folder of an earlier run cannot be written'
        evidence = {
            'owner': f'user {owner.st_uid}, group {owner.st_gid}',
            'this process': f'user {os.getuid()}, group {os.getgid()}',
        }
        remedy = (
            f'Have its owner run: chown -R {os.getuid()}:{os.getgid()} {str(root)!r}, or give '
            'another folder.'
        )
        finding = Finding('E99', 'FATAL', message, str(denied), evidence, remedy)
        raise DatasetError([finding], EXIT_OUTPUT)


def tell_resumed(work_dir: str | os.PathLike, subjects: Iterable[str]) -> None:
    """Say that there are steps of an earlier run, which will not be repeated."""
    folders = _work_folders(Path(work_dir), subjects)
    count = sum(1 for folder in folders for _ in folder.rglob('result_*.pklz'))
    if count:
        message = f'{count} steps of an earlier run are there; those that hold are not repeated'
        _LOGGER.info('%s', Finding('E100', 'INFO', message, str(work_dir)))


def _denied(root: Path) -> Iterator[str]:
    """Yield the folders, from a root on, that cannot be read and written."""
    if not root.exists():
        return
    if not os.access(root, os.R_OK | os.W_OK | os.X_OK):
        yield str(root)
        return
    for entry in os.scandir(root):
        if entry.is_dir(follow_symlinks=False):
            yield from _denied(Path(entry.path))


def _work_folders(work_dir: Path, subjects: Iterable[str]) -> list[Path]:
    """Return the folders in which nipype keeps the nodes of subjects."""
    from qsmflow.workflows.base import subject_workflow_name

    base = version_folder(work_dir) / GRAPH
    return [base / subject_workflow_name(subject) for subject in subjects]


def _disk(folder: Path) -> tuple[int, int]:
    """Return the device of a folder and its free bytes."""
    found = os.statvfs(folder)
    return os.stat(folder).st_dev, found.f_bavail * found.f_frsize


def _size(folder: Path) -> int:
    """Return the bytes of the files below a folder."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(root, name)).st_size
            except OSError:
                continue
    return total
