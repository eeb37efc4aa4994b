"""From which dataset the results in an output folder were made.

One dataset may be moved, mounted elsewhere, renamed or copied in part, and two datasets may have
the same path in a container, the same name and the same labels. What tells them apart is their
images: of each series a few bytes of one image are kept, and looked for in the dataset at hand.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

#: Bytes of an image that are kept, as a hash, and participants that are looked at. Array jobs of
#: large studies would read every participant once for each of them.
_BYTES, _SAMPLE = 4096, 10


def describe(bids_dir: str | os.PathLike) -> dict[str, str]:
    """Return ``Name`` and ``DatasetDOI`` of a dataset, those that it has."""
    try:
        content = json.loads(Path(bids_dir, 'dataset_description.json').read_bytes())
        found = {key: content.get(key) for key in ('Name', 'DatasetDOI')}
    except (OSError, ValueError, AttributeError):
        return {}
    return {key: ' '.join(text.split()) for key, text in found.items() if isinstance(text, str)}


def origin(bids_dir: str | os.PathLike, series: Iterable = ()) -> dict[str, Any]:
    """Return what is kept of the dataset of a subject's results.

    Parameters
    ----------
    bids_dir : path-like
        Raw dataset; nothing is known of it if empty.
    series : iterable of GRESeries
        Series of the subject.

    Returns
    -------
    dict
        ``Name`` and ``DatasetDOI``, and ``Images``: the mark of one image of each series.
    """
    if not str(bids_dir):
        return {}
    images = {}
    for item in series:
        name = Path(os.path.relpath(item.files[0], bids_dir)).as_posix()
        images[name] = mark(item.files[0])
    return {**describe(bids_dir), 'Images': images}


def mark(path: str | os.PathLike) -> str:
    """Return the size of a file and a hash of its middle; empty if it cannot be read."""
    try:
        with open(path, 'rb') as stream:
            size = os.fstat(stream.fileno()).st_size
            stream.seek(max(0, (size - _BYTES) // 2))
            return f'{size}-{hashlib.sha256(stream.read(_BYTES)).hexdigest()[:16]}'
    except OSError:
        return ''


def judge(kept: Mapping[str, Any], bids_dir: str | os.PathLike) -> str:
    """Say whether results come from a dataset.

    Parameters
    ----------
    kept : mapping
        Of :func:`origin`, from the time when they were made.
    bids_dir : path-like
        Dataset at hand.

    Returns
    -------
    str
        ``'same'``, also where nothing speaks against it; ``'other'`` if no image is the same and
        name or DOI differ; ``'unsure'`` if images are not there or have changed, and name and DOI
        do not decide.
    """
    images = dict(kept.get('Images') or {})
    now = {name: mark(Path(bids_dir, name)) for name in images}
    if any(images[name] == found for name, found in now.items() if found):
        return 'same'
    before, after = _comparable(kept), _comparable(describe(bids_dir))
    for key in ('DatasetDOI', 'Name'):
        if key in before and key in after:
            if before[key] != after[key]:
                return 'other'
            if key == 'DatasetDOI':
                return 'same'
    # An image that is not at hand, as git-annex leaves it, has not changed.
    changed = [name for name, found in now.items() if found or not _is_there(bids_dir, name)]
    return 'unsure' if changed else 'same'


def compare(
    origins: Mapping[str, Mapping[str, Any]], bids_dir: str | os.PathLike
) -> dict[str, list[str]]:
    """Judge the results of several subjects, of many a sample.

    Parameters
    ----------
    origins : mapping of str to mapping
        What was kept, by the label of the subject.
    bids_dir : path-like
        Dataset at hand.

    Returns
    -------
    dict
        Labels under ``'other'`` and ``'unsure'``.
    """
    kinds: dict[str, list[str]] = {}
    for label, kept in sorted(origins.items()):
        kinds.setdefault(json.dumps(_comparable(kept), sort_keys=True), []).append(label)
    found: dict[str, list[str]] = {'same': [], 'other': [], 'unsure': []}
    for labels in kinds.values():
        sample = labels[:: -(-len(labels) // _SAMPLE)]
        verdicts = {label: judge(origins[label], bids_dir) for label in sample}
        if 'other' in verdicts.values():
            # Under its new name it is the same dataset if the images of one subject are.
            verdicts = dict.fromkeys(labels, 'same' if 'same' in verdicts.values() else 'other')
        for label, verdict in verdicts.items():
            found[verdict].append(label)
    return {key: sorted(found[key]) for key in ('other', 'unsure')}


def _comparable(content: Mapping[str, Any]) -> dict[str, str]:
    """Return name and DOI without what differs between versions of one dataset.

    Examples
    --------
    >>> _comparable({'Name': 'Iron', 'DatasetDOI': 'doi:10.18112/openneuro.ds000001.v1.0.2'})
    {'Name': 'iron', 'DatasetDOI': '10.18112/openneuro.ds000001'}
    """
    found = {}
    if name := str(content.get('Name') or '').casefold():
        found['Name'] = name
    if doi := str(content.get('DatasetDOI') or '').casefold():
        doi = re.sub(r'^(doi:|https?://(dx\.)?doi\.org/)', '', doi)
        found['DatasetDOI'] = re.sub(r'\.v\d+(\.\d+)*$', '', doi)
    return found


def _is_there(bids_dir: str | os.PathLike, name: str) -> bool:
    return os.path.lexists(Path(bids_dir, name))
