"""Filters of the user: which images of a dataset are used, by the entities of their names.

A filter file is JSON, in the form that fMRIPrep reads: queries, each with entities and the values
that they must have::

    {"megre": {"acquisition": "qsm"}, "t1w": {"acquisition": ["mprage", "mp2rage"], "run": null}}

``null`` means without the entity, ``"*"`` with any value of it. Names are compared, not metadata,
so that images with a wrong name can be filtered too.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from qsmflow.bids.findings import EXIT_USAGE, DatasetError, Finding, suggestion
from qsmflow.bids.names import ENTITY_ORDER, parse_name

#: What can be narrowed: gradient-echo images, T1w images, masks and segmentations.
QUERIES = {
    'megre': 'gradient-echo images of the dataset',
    't1w': 'T1w images of the dataset and of derivatives',
    'mask': 'brain masks of derivatives',
    'dseg': 'segmentations of derivatives',
}
_QUERIES_ARE = (
    f'Queries are {", ".join(f"{name} ({meaning})" for name, meaning in QUERIES.items())}.'
)
#: Names of entities in pybids and fMRIPrep, where they are not those of file names.
LONG_NAMES = {
    'subject': 'sub', 'session': 'ses', 'acquisition': 'acq', 'nucleus': 'nuc', 'volume': 'voi',
    'ceagent': 'ce', 'tracer': 'trc', 'staining': 'stain', 'reconstruction': 'rec',
    'direction': 'dir', 'modality': 'mod', 'segmentation': 'seg', 'resolution': 'res',
    'density': 'den', 'description': 'desc',
}  # fmt: skip
_PARTS_OF_NAMES = ('datatype', 'suffix', 'extension')
_KNOWN = (*LONG_NAMES, *ENTITY_ORDER, *_PARTS_OF_NAMES)

Query = Mapping[str, Any]


def read_filter_file(path: str | Path) -> dict[str, dict[str, Any]]:
    """Read a filter file.

    Parameters
    ----------
    path : path-like
        JSON file.

    Returns
    -------
    dict of dict
        As of :func:`check_filters`.

    Raises
    ------
    DatasetError
        ``E91`` with exit code 2 if it is no JSON object, or has an unknown query or entity.
    """
    try:
        content = json.loads(Path(path).read_bytes().decode('utf-8-sig'))
    except (OSError, ValueError) as error:
        message = f'argument --bids-filter-file: {path} cannot be read: {error}'
        raise _refused(message, 'Write it as a JSON object.') from error
    try:
        if not isinstance(content, Mapping):
            raise _refused('the filter is no JSON object', f'{_QUERIES_ARE} {{}} filters nothing.')
        return check_filters(content)
    except DatasetError as error:
        (finding,) = error.findings
        message = f'argument --bids-filter-file: {path}: {finding.message}'
        raise _refused(message, finding.remedy) from error


def check_filters(filters: Mapping[str, Query] | None) -> dict[str, dict[str, Any]]:
    """Check names of queries and entities.

    Parameters
    ----------
    filters : mapping or None
        Queries with entities and values.

    Returns
    -------
    dict of dict
        The same, with the entities as they stand in file names.

    Raises
    ------
    DatasetError
        ``E91`` with exit code 2; names what is close.

    Examples
    --------
    >>> check_filters({'megre': {'acquisition': 'qsm', 'run': None}})
    {'megre': {'acq': 'qsm', 'run': None}}
    """
    if filters is not None and not isinstance(filters, Mapping):
        raise _refused('the filter is no JSON object', _QUERIES_ARE)
    checked: dict[str, dict[str, Any]] = {}
    for name, query in (filters or {}).items():
        if name not in QUERIES:
            remedy = (
                suggestion(str(name), QUERIES, 'query').partition('Available')[0] + _QUERIES_ARE
            )
            raise _refused(f'the filter has an unknown query {name!r}', remedy)
        if not isinstance(query, Mapping):
            raise _refused(
                f'the query {name!r} is no JSON object',
                'Write entities and values, as in {"acquisition": "qsm"}.',
            )
        checked[name] = {}
        for entity, value in query.items():
            if entity not in _KNOWN:
                remedy = suggestion(str(entity), _KNOWN, 'entity').partition('Available')[0]
                remedy += f'Entities are {", ".join(LONG_NAMES)} and those of file names.'
                raise _refused(f'the query {name!r} has an unknown entity {entity!r}', remedy)
            checked[name][LONG_NAMES.get(entity, entity)] = _checked_value(name, entity, value)
    return checked


def _checked_value(name: str, entity: str, value: Any) -> Any:
    items = value if isinstance(value, list | tuple) else [value]
    simple = all(isinstance(item, str | int | None) for item in items)
    if not items or not simple or any(isinstance(item, bool) for item in items):
        raise _refused(
            f'the query {name!r} has no usable value for {entity!r}: {value!r}',
            'Give a label, a list of labels, null (without the entity) or "*" (any).',
        )
    return value


def matches(relative: str, query: Query) -> bool:
    """Tell whether a file is one that a query keeps.

    Parameters
    ----------
    relative : str
        Path below its dataset, with forward slashes.
    query : mapping
        As of :func:`check_filters`. Labels may have their entity before them, and numbers may
        be padded with zeros: ``1`` is ``01``.

    Examples
    --------
    >>> name = 'sub-01/anat/sub-01_acq-hi_run-01_T1w.nii.gz'
    >>> matches(name, {'acq': 'acq-hi', 'run': 1}), matches(name, {'acq': None})
    (True, False)
    >>> matches(name, {'acq': ['lo', 'hi'], 'suffix': 'T1w', 'datatype': '*'})
    True
    """
    folder, _, name = relative.rpartition('/')
    found, suffix, extension = parse_name(name)
    values = {**found, 'suffix': suffix, 'extension': extension}
    values['datatype'] = folder.rpartition('/')[2]
    return all(_fits(key, values.get(key), wanted) for key, wanted in query.items())


def _fits(key: str, label: str | None, wanted: Any) -> bool:
    if isinstance(wanted, list | tuple):
        return any(_fits(key, label, item) for item in wanted)
    if wanted is None or label is None:
        return wanted is None and label is None
    if wanted == '*':
        return True
    return _bare(key, label) == _bare(key, str(wanted))


def _bare(key: str, label: str) -> str:
    """Return a label without its entity, a number without zeros, an extension without its dot."""
    label = label.removeprefix(f'{key}-')
    if key == 'extension':
        return label.removeprefix('.')
    numbered = key in ('run', 'echo', 'flip', 'inv', 'chunk') and label.isdigit()
    return label.lstrip('0') or '0' if numbered else label


def kept_nothing(images: Iterable, query: Query, what: str, level: str) -> Finding:
    """Say that a query keeps none of the images that there are, and which labels these have.

    Parameters
    ----------
    images : iterable
        What there was, with ``entities``.
    query : mapping
        The query.
    what : str
        Its name.
    level : {'FATAL', 'WARN'}
        Level of the finding.

    Returns
    -------
    Finding
        ``E91``.
    """
    images = list(images)
    labels = {
        key: sorted({image.entities[key] for image in images if key in image.entities})
        for key in query
        if key in ENTITY_ORDER
    }
    shown = '; '.join(f'{key}: {", ".join(found) or "none"}' for key, found in labels.items())
    message = f'the query {what!r} keeps none of {len(images)} images: {json.dumps(dict(query))}'
    return Finding('E91', level, message, remedy=f'Labels that there are: {shown or "none"}.')


def _refused(message: str, remedy: str) -> DatasetError:
    return DatasetError([Finding('E91', 'FATAL', message, remedy=remedy)], EXIT_USAGE)
