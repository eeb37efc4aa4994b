"""The BIDS validator, asked only about what a run uses.

A dataset can have errors that do not matter here: in functional runs, in subjects that were not
asked for. Its verdict therefore never stops a run; what can be used is decided by the checks of
:mod:`qsmflow.bids`, which read every image.
"""

import dataclasses
import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from qsmflow.bids import Collection, Finding
from qsmflow.bids.grouping import applies
from qsmflow.bids.names import split_extension

TOOL = 'bids-validator-deno'
TIMEOUT = 300.0  #: seconds; a dataset of thousands of subjects may need more
#: Stems of the files at the root that describe the whole dataset.
_DATASET_FILES = {
    *('dataset_description', 'participants', 'samples', 'README', 'CHANGES', 'LICENSE'),
    'CITATION',
}
#: Warnings are not shown, headers are read by our own checks, and of other datasets inside this
#: one (derivatives, sourcedata) nothing is asked.
_OPTIONS = ('--format', 'json', '--ignoreWarnings', '--ignoreNiftiHeaders', '--prune')
_LOGGER = logging.getLogger('qsmflow.cli')


def find_tool() -> str | None:
    """Return the path of the validator, on the search path or beside the interpreter.

    Programs of a virtual environment that was not activated are found by the latter.
    """
    beside = str(Path(sys.executable).parent)
    return shutil.which(TOOL) or shutil.which(TOOL, path=beside)


def validated(collection: Collection) -> Collection:
    """Return a collection with the findings of the validator among those of the dataset."""
    return dataclasses.replace(collection, findings=(*collection.findings, *validate(collection)))


def validate(
    collection: Collection, *, tool: str | None = None, timeout: float = TIMEOUT
) -> tuple[Finding, ...]:
    """Run the BIDS validator on a dataset and return what concerns the files in use.

    Parameters
    ----------
    collection : Collection
        What will be processed, and what failed.
    tool : str, optional
        Path of the validator; looked for when not given.
    timeout : float, optional
        Seconds after which the validation is given up.

    Returns
    -------
    tuple of Finding
        ``E93``: a warning for each kind of error in files that are used or that describe the
        whole dataset; or one INFO finding that says why there was no validation. Never raises
        for anything that the validator does.
    """
    tool = tool or find_tool()
    if tool is None:
        remedy = f'To validate, install it: pip install {TOOL}. Or give --skip-bids-validation.'
        return (_skipped(f'{TOOL} is not installed', remedy),)
    _LOGGER.debug('running %s on %s', tool, collection.bids_dir)
    command = [tool, *_OPTIONS, collection.bids_dir]
    # Its runtime would ask for newer versions of itself.
    environment = {**os.environ, 'NO_COLOR': '1', 'DENO_NO_UPDATE_CHECK': '1'}
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=timeout, check=False, env=environment
        )
    except subprocess.TimeoutExpired:
        remedy = f'To know its verdict, run it by hand: {TOOL} {collection.bids_dir}'
        return (_skipped(f'it did not end within {timeout:g} s', remedy),)
    except OSError as error:
        return (_skipped(f'{tool} cannot be run: {error.strerror}'),)
    try:
        issues, meanings = _read(done.stdout)
    except (ValueError, KeyError, TypeError):
        last = done.stderr.decode('utf-8', 'replace').strip().splitlines()[-1:] or ['no output']
        return (_skipped(f'{TOOL} failed with exit code {done.returncode}: {last[0]}'),)
    images = used_images(collection)
    return _as_findings([i for i in issues if concerns(i['location'], images)], meanings)


def used_images(collection: Collection) -> tuple[str, ...]:
    """Return the images of a collection, those of failed series as far as findings name them.

    Returns
    -------
    tuple of str
        Paths below the dataset, with forward slashes.
    """
    paths = []
    for series in collection.series:
        inside = series.t1w and Path(series.t1w).is_relative_to(collection.bids_dir)
        paths += [*series.files, *([series.t1w] if inside else [])]
    relative = [os.path.relpath(path, collection.bids_dir).replace(os.sep, '/') for path in paths]
    relative += [item.file for _, findings in collection.failed for item in findings if item.file]
    return tuple(dict.fromkeys(relative))


def concerns(location: str, images: Iterable[str]) -> bool:
    """Tell whether an issue at a place has to do with the images in use.

    Parameters
    ----------
    location : str
        Path below the dataset, with a leading slash, as the validator gives it.
    images : iterable of str
        Paths below the dataset, with forward slashes.

    Examples
    --------
    >>> images = ['sub-01/anat/sub-01_echo-1_part-phase_MEGRE.nii.gz']
    >>> concerns('/part-phase_MEGRE.json', images), concerns('/participants.tsv', images)
    (True, True)
    >>> concerns('/sub-01/func/sub-01_task-rest_bold.nii.gz', images)
    False
    """
    path = location.strip('/')
    if '/' not in path and (not path or split_extension(path)[0] in _DATASET_FILES):
        return True
    sidecar = path.endswith('.json')
    return any(path == image or (sidecar and applies(path, image)) for image in images)


def _read(output: bytes) -> tuple[list[dict[str, str]], Mapping[str, str]]:
    """Return the errors that the validator printed, and what their codes mean."""
    report = json.loads(output)['issues']
    errors = [
        {
            'code': str(issue['code']),
            'detail': str(issue.get('subCode') or issue.get('issueMessage') or ''),
            'location': str(issue.get('location') or ''),
        }
        for issue in report['issues']
        if issue['severity'] == 'error'
    ]
    return errors, report.get('codeMessages') or {}


def _as_findings(
    issues: Sequence[Mapping[str, str]], meanings: Mapping[str, str]
) -> tuple[Finding, ...]:
    """Return one finding for each kind of error, with its first file and the number of files."""
    kinds: dict[tuple[str, str], list[str]] = {}
    for issue in sorted(issues, key=lambda issue: issue['location']):
        kinds.setdefault((issue['code'], issue['detail']), []).append(issue['location'])
    findings = []
    for (code, detail), places in kinds.items():
        meaning = ' '.join(str(meanings.get(code, '')).split()).rstrip('.')
        evidence: dict[str, Any] = {'code': code, 'files': len(set(places))}
        if detail:
            evidence['detail'] = ' '.join(detail.split())
        message = f'BIDS validator: {meaning or code}'
        remedy = f'Correct the dataset; {TOOL} shows every place.'
        name = places[0].lstrip('/')
        findings.append(Finding('E93', 'WARN', message, name, evidence, remedy))
    return tuple(findings)


def _skipped(reason: str, remedy: str = '') -> Finding:
    message = f'the dataset was not validated: {reason}'
    return Finding('E93', 'INFO', message, remedy=remedy)
