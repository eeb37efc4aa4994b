"""Checks before anything is indexed: the dataset and the request."""

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from qsmflow.bids.findings import EXIT_DATA, EXIT_USAGE, DatasetError, Finding, unreadable
from qsmflow.bids.findings import suggestion as _suggestion

_DESCRIPTION = '{"Name": "My study", "BIDSVersion": "1.11.1", "DatasetType": "raw"}'


def check_dataset(
    bids_dir: str | os.PathLike, need_description: bool = True
) -> tuple[Path, list[Finding]]:
    """Check that a folder is a raw BIDS dataset with subjects.

    Parameters
    ----------
    bids_dir : path-like
        Root of the dataset.
    need_description : bool, optional
        Whether a missing or incomplete ``dataset_description.json`` ends the run.

    Returns
    -------
    root : pathlib.Path
        Its absolute path.
    findings : list of Finding
        ``B53``, as a warning, where a description is not needed and missing.

    Raises
    ------
    DatasetError
        ``E90`` not there or no subjects, ``B53`` no ``dataset_description.json``, ``B50`` a
        broken one, ``B54`` a derivative dataset.
    """
    root = Path(os.path.abspath(bids_dir))
    if not root.is_dir():
        message = f'the dataset {root} is not there'
        remedy = 'Check the path; in a container, check that the folder is mounted.'
        raise DatasetError([Finding('E90', 'FATAL', message, remedy=remedy)], EXIT_DATA)
    if not subjects(root):
        shown = sorted(item.name for item in root.iterdir())[:12]
        message = f'{root} holds no subject folder (sub-*)'
        remedy = (
            'Give the root folder of a BIDS dataset; in a container, check what is mounted there.'
        )
        if _holds_dicom(root):
            remedy = 'It holds DICOM files: make a BIDS dataset of them first, with qsmflow-dicom.'
        finding = Finding('E90', 'FATAL', message, evidence={'holds': shown}, remedy=remedy)
        raise DatasetError([finding], EXIT_DATA)
    return root, _check_description(root, need_description)


def _holds_dicom(root: Path, looked_at: int = 100) -> bool:
    """Tell whether one of the first files of a folder is DICOM, by the mark that starts it."""
    files = (path for path in root.rglob('*') if path.is_file())
    for path in islice(files, looked_at):
        with contextlib.suppress(OSError), path.open('rb') as handle:
            if handle.read(132)[128:] == b'DICM':
                return True
    return False


def _check_description(root: Path, needed: bool) -> list[Finding]:
    """Check ``dataset_description.json``; what is missing is a warning if it is not needed."""
    description = root / 'dataset_description.json'
    if not description.exists():
        message = 'the dataset has no dataset_description.json'
        remedy = f'Write a file of this name with: {_DESCRIPTION}'
        shown = sorted(item.name for item in root.iterdir())[:12]
        return _undescribed(message, description.name, {'holds': shown}, remedy, needed)
    content, problem = read_json(description, description.name)
    if problem is not None:
        finding = dataclasses.replace(problem, code='B50', level='FATAL')
        raise DatasetError([finding], EXIT_DATA)
    if content.get('DatasetType') == 'derivative':
        message = 'the dataset says of itself that it is a derivative (DatasetType)'
        remedy = 'Give the raw dataset; derivatives such as masks are given with --derivatives.'
        evidence = {'DatasetType': 'derivative'}
        finding = Finding('B54', 'FATAL', message, description.name, evidence, remedy)
        raise DatasetError([finding], EXIT_DATA)
    missing = [key for key in ('Name', 'BIDSVersion') if not content.get(key)]
    if not missing:
        return []
    remedy = f'Complete it, for example: {_DESCRIPTION}'
    evidence = {'missing': missing}
    return _undescribed('required keys are missing', description.name, evidence, remedy, needed)


def _undescribed(
    message: str, name: str, evidence: dict, remedy: str, needed: bool
) -> list[Finding]:
    """Return the warning ``B53``, or raise it where the description is needed."""
    if not needed:
        return [Finding('B53', 'WARN', message, name, evidence, remedy)]
    remedy += '. --skip-bids-validation goes on without it.'
    finding = Finding('B53', 'FATAL', message, name, evidence, remedy)
    raise DatasetError([finding], EXIT_DATA)


def subjects(root: Path) -> list[str]:
    """Return the labels of the subject folders of a dataset, sorted."""
    return sorted(p.name[4:] for p in root.glob('sub-*') if p.is_dir() and len(p.name) > 4)


def sessions(root: Path, subject: str) -> list[str]:
    """Return the labels of the session folders of a subject, sorted."""
    folders = (root / f'sub-{subject}').glob('ses-*')
    return sorted(p.name[4:] for p in folders if p.is_dir() and len(p.name) > 4)


def choose_labels(
    wanted: Iterable[str] | None, available: Iterable[str], what: str, prefix: str
) -> list[str]:
    """Check requested labels against those there are.

    Parameters
    ----------
    wanted : iterable of str or None
        Labels, with or without ``prefix``; None for all.
    available : iterable of str
        Labels of the dataset.
    what : str
        How messages name them (``'participant'``).
    prefix : str
        What may stand before a label (``'sub-'``).

    Returns
    -------
    list of str
        Labels without prefix, without repetition, sorted.

    Raises
    ------
    DatasetError
        ``E91`` with exit code 2, if one of them is not there; names close matches.

    Examples
    --------
    >>> choose_labels(['sub-02', '01'], ['01', '02', '03'], 'participant', 'sub-')
    ['01', '02']
    """
    available = sorted(set(available))
    if wanted is None:
        return available
    wanted = sorted({str(label).removeprefix(prefix) for label in wanted})
    findings = [
        Finding(
            *('E91', 'FATAL', f'the dataset has no {what} {label!r}'),
            remedy=_suggestion(label, available, what),
        )
        for label in wanted
        if label not in available
    ]
    if findings:
        raise DatasetError(findings, EXIT_USAGE)
    return wanted


def read_json(path: Path, name: str) -> tuple[dict, Finding | None]:
    """Read a JSON object, forgiving a byte-order mark.

    Returns
    -------
    content : dict
        Empty if there is a problem.
    problem : Finding or None
        ``B50`` with line and column, or ``C58`` for a link whose target is not there.
    """
    if path.is_symlink() and not path.exists():
        message, remedy = 'is a link whose target is not there', f'Fetch it: datalad get {name}'
        evidence = {'target': os.readlink(path)}
        return {}, Finding('C58', 'ERROR', message, name, evidence, remedy)
    remedy = 'Correct the file; a JSON checker shows the place.'
    try:
        content = json.loads(path.read_bytes().decode('utf-8-sig'))
    except OSError as error:
        return {}, unreadable(error, name)
    except UnicodeDecodeError as error:
        message, evidence = 'is not UTF-8', {'byte': error.start}
        return {}, Finding('B50', 'ERROR', message, name, evidence, 'Save it as UTF-8.')
    except json.JSONDecodeError as error:
        message = f'is no valid JSON: {error.msg}'
        evidence = {'line': error.lineno, 'column': error.colno}
        return {}, Finding('B50', 'ERROR', message, name, evidence, remedy)
    except (RecursionError, ValueError) as error:  # nested without end, numbers without end
        return {}, Finding('B50', 'ERROR', f'cannot be read: {error}', name, {}, remedy)
    if not isinstance(content, dict):
        evidence = {'type': type(content).__name__}
        return {}, Finding('B50', 'ERROR', 'is no JSON object', name, evidence, remedy)
    intended = content.get('IntendedFor', [])
    if isinstance(intended, str):
        intended = [intended]
    if not isinstance(intended, list) or not all(isinstance(i, str) for i in intended):
        message, evidence = 'IntendedFor holds no paths', {'IntendedFor': str(intended)}
        return {}, Finding('B50', 'ERROR', message, name, evidence, remedy)
    return content, None


def broken_sidecars(root: Path, labels: Iterable[str]) -> dict[str, Finding]:
    """Read every sidecar that can concern the requested subjects, and return the broken ones.

    One broken file would end the indexing of the whole dataset; here it stops only the
    acquisitions that it applies to. Files of other subjects are not opened. Files with a
    byte-order mark are readable here but not by pybids, and count as broken too, with a remedy
    of their own.

    Returns
    -------
    dict of Finding
        By path below the dataset, with forward slashes.
    """
    paths = list(root.glob('*.json'))
    for label in labels:
        for pattern in ('*.json', 'anat/*.json', 'ses-*/*.json', 'ses-*/anat/*.json'):
            paths += (root / f'sub-{label}').glob(pattern)
    broken = {}
    for path in sorted(paths):
        name = path.relative_to(root).as_posix()
        _, problem = read_json(path, name)
        if problem is None and path.read_bytes().startswith(b'\xef\xbb\xbf'):
            message, remedy = 'starts with a byte-order mark', 'Save it as UTF-8 without BOM.'
            problem = Finding('B50', 'ERROR', message, name, {'first_bytes': 'efbbbf'}, remedy)
        if problem is not None:
            broken[name] = problem
    return broken


def check_participants(root: Path) -> list[Finding]:
    """Compare ``participants.tsv``, if there is one, with the folders (``E92``).

    Parameters
    ----------
    root : Path
        Root of the dataset.
    """
    path = root / 'participants.tsv'
    if not path.is_file():
        return []
    try:
        lines = path.read_bytes().decode('utf-8-sig').splitlines()
    except (OSError, UnicodeDecodeError) as error:
        message, remedy = f'cannot be read: {error}', 'Save it as UTF-8 text.'
        return [Finding('E92', 'WARN', message, path.name, {}, remedy)]
    rows = [line.split('\t') for line in lines if line.strip()]
    remedy = 'Correct the table: the group level takes age and sex from it.'
    if not rows or 'participant_id' not in rows[0]:
        message, evidence = 'has no column participant_id', {'columns': rows[0] if rows else []}
        return [Finding('E92', 'WARN', message, path.name, evidence, remedy)]
    column = rows[0].index('participant_id')
    listed = [row[column].removeprefix('sub-') for row in rows[1:] if len(row) > column]
    there = subjects(root)
    evidence = {
        'not_in_table': sorted(set(there) - set(listed)),
        'without_folder': sorted(set(listed) - set(there)),
        'twice': sorted({label for label in listed if listed.count(label) > 1}),
    }
    evidence = {key: labels for key, labels in evidence.items() if labels}
    if not evidence:
        return []
    message = 'the participants listed are not those of the folders'
    return [Finding('E92', 'WARN', message, path.name, evidence, remedy)]
