"""Run dcm2niix, and read what it wrote."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from qsmflow.bids.checks_files import inspect_image
from qsmflow.dicom.errors import ConversionError
from qsmflow.dicom.images import Converted

TOOL = 'dcm2niix'
INSTALL = "pip install 'qsmflow[dicom]'  (or: pip install dcm2niix)"
#: In this order. What each is for:
#: -g i  no settings from a file in the home folder
#: -b y -ba y  a BIDS sidecar without names, dates and identifiers of the patient
#: -z i  compressed by dcm2niix itself, whether pigz is installed or not
#: -p y  Philips values as they were measured: phase in radians, and magnitudes of all echoes on
#:       one scale, which display values (-p n) are not
#: -l o -m n -x n -i n  pixels as they are; never merge echoes, never crop, leave nothing out
#: -d 9  folders in folders
#: -c ''  no comment of the DICOM header in that of the image
#: -w 2  images with one name all survive
#: -f  study, series and series number: what belongs together is known from the UIDs, which the
#:       sidecars lack; these names live in a private temporary folder only
OPTIONS = (
    *('-g', 'i', '-b', 'y', '-ba', 'y', '-z', 'i', '-p', 'y', '-l', 'o', '-m', 'n', '-x', 'n'),
    *('-i', 'n', '-d', '9', '-w', '2', '-c', '', '-f', '%k~%j~%s~'),
)
_NO_DICOM = (2, 5)
_CANNOT_WRITE = (6, 7)
_SOME_FAILED = 8


def find_tool() -> str:
    """Return the path of dcm2niix: beside the interpreter, else on the search path.

    Raises
    ------
    ConversionError
        With exit code 127 and the line that installs it.
    """
    beside = str(Path(sys.executable).parent)
    path = shutil.which(TOOL, path=beside) or shutil.which(TOOL)
    if path is None:
        raise ConversionError(f'{TOOL} is not installed. Install it: {INSTALL}', 127)
    return path


def tool_version(tool: str) -> str:
    """Return the version that dcm2niix says it has, or ``'unknown'``."""
    done = subprocess.run([tool, '-h'], capture_output=True, check=False, timeout=60)
    match = re.search(rb'version v?([\w.]+)', done.stdout)
    return match[1].decode() if match else 'unknown'


def convert(dicom_dir: str | os.PathLike, folder: str | os.PathLike) -> list[str]:
    """Convert all DICOM files below a folder.

    Parameters
    ----------
    dicom_dir : path-like
        Folder with DICOM files, or one such file (enhanced DICOM). It is only read.
    folder : path-like
        Existing folder that images and sidecars are written to.

    Returns
    -------
    list of str
        What dcm2niix warned of, each line once.

    Raises
    ------
    ConversionError
        If there is no DICOM (65), nothing could be converted (65), the folder cannot be written
        (73), or dcm2niix is missing or does not run (127).
    """
    source = Path(os.path.abspath(dicom_dir))
    if not source.exists():
        raise ConversionError(f'{source} does not exist', 2)
    single = ['-s', 'y'] if source.is_file() else []
    command = [find_tool(), *OPTIONS, *single, '-o', str(folder), str(source)]
    try:
        done = subprocess.run(command, capture_output=True, check=False)
    except OSError as error:
        message = f'{command[0]} cannot be run: {error.strerror}. Install it: {INSTALL}'
        raise ConversionError(message, 127) from error
    text = (done.stdout + b'\n' + done.stderr).decode('utf-8', 'replace')
    lines = _warnings(text, source)
    if done.returncode in _NO_DICOM:
        raise ConversionError(f'no DICOM images were found in {source}. {_hint(source)}')
    if done.returncode in _CANNOT_WRITE:
        raise ConversionError(f'{TOOL} could not write to {folder}: is the disk full?', 73)
    if not any(Path(folder).glob('*.nii.gz')):
        told = '; '.join(lines[-3:]) or f'exit code {done.returncode}'
        raise ConversionError(
            f'{TOOL} converted nothing in {source}: {told}. If files are damaged, copy or export '
            'them again.'
        )
    if done.returncode != 0:
        some = 'some DICOM files could not be converted'
        code = '' if done.returncode == _SOME_FAILED else f' (exit code {done.returncode})'
        lines.insert(0, f'{some}{code}: copy or export them again if they matter')
    return lines


def read_converted(folder: str | os.PathLike) -> tuple[list[Converted], list[str]]:
    """Read everything that :func:`convert` wrote.

    Parameters
    ----------
    folder : path-like
        Folder with images and sidecars.

    Returns
    -------
    images : list of Converted
        In the order of series and file name.
    problems : list of str
        Images that cannot be read, and why.
    """
    images, problems = [], []
    for path in sorted(Path(folder).glob('*.nii.gz')):
        stem = path.name.removesuffix('.nii.gz')
        study, series, number, ends = _split(stem)
        facts, findings = inspect_image(path, f'series {number}')
        sidecar = path.with_name(stem + '.json')
        if facts is None:
            problems += [str(finding) for finding in findings]
        elif 'Eq' in ends:
            problems.append(f'series {number}: slices at unequal distances: a file may be missing')
        elif not sidecar.exists():
            problems.append(f'series {number}: {TOOL} wrote no sidecar')
        elif (metadata := _load(sidecar)) is None:
            problems.append(f'series {number}: the sidecar of {TOOL} cannot be read')
        else:
            images.append(Converted(path, study, series, number, ends, metadata, facts))
    return sorted(images, key=lambda image: (image.number, image.path.name)), problems


def _load(sidecar: Path) -> dict | None:
    """Return the content of a sidecar; control characters in texts are let through."""
    try:
        content = json.loads(sidecar.read_text(encoding='utf-8', errors='replace'), strict=False)
    except ValueError:
        return None
    return content if isinstance(content, dict) else None


def _split(stem: str) -> tuple[str, str, int, tuple[str, ...]]:
    """Take a file name apart: study, series, series number, and what dcm2niix added."""
    study, series, number, rest = (stem.split('~', 3) + [''] * 3)[:4]
    digits = re.match(r'\d+', number)
    return study, series, int(digits[0]) if digits else 0, tuple(filter(None, rest.split('_')))


def _warnings(text: str, source: Path) -> list[str]:
    """Return the warnings and errors, each once, without the file names they start with."""
    lines = []
    for line in text.splitlines():
        match = re.search(r'(Warning|Error): *(.*)', line)
        # A line is told by its reason: that of each slice differs in numbers only.
        if match and 'Check sorted order' not in line:
            message = re.split(r'Philips Scaling Values|Convert \d+ DICOM', match[2])[0]
            lines.append(message.replace(str(source), '...').strip())
    return list(dict.fromkeys(lines))


def _hint(source: Path) -> str:
    """Say what the folder holds instead."""
    names = [path.name for path in source.rglob('*') if path.is_file()] if source.is_dir() else []
    archives = ('.gz', '.zip', '.tar', '.tgz', '.7z')
    packed = [name for name in names if name.endswith(archives)]
    if packed:
        return f'Unpack the archives first ({packed[0]} is one of {len(packed)}).'
    if any(name.endswith('.nii') for name in names):
        return 'It holds NIfTI images: name them as docs/convert.md shows.'
    return f'It holds {len(names)} other files.' if names else 'It holds no files.'
