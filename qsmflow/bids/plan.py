"""Tell what would be done: the tables of ``--dry-run`` and the same as a dictionary."""

from collections.abc import Iterable
from typing import Any

from qsmflow import __version__
from qsmflow.bids.catalog import FINDINGS
from qsmflow.bids.findings import LEVELS, DatasetError, Finding
from qsmflow.bids.query import Collection
from qsmflow.bids.series import GRESeries

_COLUMNS = ('series', 'echoes', 'TE (ms)', 'field (T)', 'matrix', 'voxel (mm)', 'phase', 'T1w')
_FINDING_COLUMNS = ('level', 'code', 'acquisition', 'what was found', 'file')


def plan_as_dict(collection: Collection) -> dict[str, Any]:
    """Return a collection as a dictionary for JSON: series, failures and findings.

    Parameters
    ----------
    collection : Collection
        What ``collect`` gave.

    Returns
    -------
    dict
        ``qsmflow`` (the version), ``bids_dir``, ``series`` (each with its ``findings``),
        ``failed`` (``name`` and ``findings``), ``findings`` of the dataset, ``counts`` of all
        findings by level, and ``exit_code``. It can be written as JSON.
    """
    return {
        'qsmflow': __version__,
        'bids_dir': collection.bids_dir,
        'series': [_series_as_dict(item) for item in collection.series],
        'failed': [
            {'name': name, 'findings': [finding.as_dict() for finding in findings]}
            for name, findings in collection.failed
        ],
        'findings': [finding.as_dict() for finding in collection.findings],
        'counts': _counts(finding for _, finding in _all_findings(collection)),
        'exit_code': collection.exit_code,
    }


def refusal_as_dict(error: DatasetError, bids_dir: str) -> dict[str, Any]:
    """Return what stopped a run before anything was found, in the form of :func:`plan_as_dict`.

    Parameters
    ----------
    error : DatasetError
        Why nothing can start.
    bids_dir : str
        Root of the dataset.
    """
    return {
        'qsmflow': __version__,
        'bids_dir': bids_dir,
        'series': [],
        'failed': [],
        'findings': [finding.as_dict() for finding in error.findings],
        'counts': _counts(error.findings),
        'exit_code': error.exit_code,
    }


def _all_findings(collection: Collection) -> list[tuple[str, Finding]]:
    """Return all findings, each with the acquisition that it belongs to, gravest first."""
    found = [('dataset', finding) for finding in collection.findings]
    for item in collection.series:
        found += [(item.name, finding) for finding in item.findings]
    for name, findings in collection.failed:
        found += [(name, finding) for finding in findings]
    return sorted(found, key=lambda pair: LEVELS.index(pair[1].level))


def _counts(findings: Iterable[Finding]) -> dict[str, int]:
    levels = [finding.level for finding in findings]
    return {level: levels.count(level) for level in LEVELS}


def render_plan(collection: Collection) -> str:
    """Return a collection as plain text: tables of series and findings, then each in full.

    Parameters
    ----------
    collection : Collection
        What ``collect`` gave.

    Returns
    -------
    str
        Lines without trailing blanks; the last states how many acquisitions can be processed.
    """
    lines = [f'Dataset: {collection.bids_dir}', '']
    if collection.series:
        rows = [_row(item, collection.bids_dir) for item in collection.series]
        lines += [*_table([_COLUMNS, *rows]), '']
    found = _all_findings(collection)
    if found:
        rows = [_finding_row(name, finding) for name, finding in found]
        lines += [*_table([_FINDING_COLUMNS, *rows]), '']
    for item in collection.series:
        lines += _block(f'{item.name}: will be processed', item.findings)
    for name, findings in collection.failed:
        lines += _block(f'{name}: CANNOT be processed', findings)
    if collection.findings:
        lines += _block('Dataset', collection.findings)
    n_series, n_failed = len(collection.series), len(collection.failed)
    lines.append(f'{n_series} can be processed, {n_failed} cannot.')
    return '\n'.join(line.rstrip() for line in lines) + '\n'


def _series_as_dict(series: GRESeries) -> dict[str, Any]:
    scaling = series.scaling
    return {
        'name': series.name,
        'suffix': series.suffix,
        'sources': list(series.sources),
        'EchoTime': list(series.te),
        'echo_numbers': list(series.echo_numbers),
        'MagneticFieldStrength': series.field_strength,
        'ImagingFrequency': series.f0,
        'shape': list(series.shape),
        'voxel_size': list(series.voxel_size),
        'B0Direction': list(series.b0_dir),
        'PhaseScaling': None
        if scaling is None
        else {
            'method': scaling.rule,
            'rawRange': [scaling.raw_min, scaling.raw_max],
            'factor': scaling.slope,
            'offset': scaling.intercept,
        },
        't1w': series.t1w and _t1w_name(series),
        't1w_note': series.t1w_note,
        'mask': series.mask,
        'protocol': [rule.as_dict() for rule in series.protocol],
        'findings': [finding.as_dict() for finding in series.findings],
    }


def _finding_row(name: str, finding: Finding) -> tuple[str, ...]:
    kind = FINDINGS.get(finding.code)
    what = finding.message if kind is None else kind.title
    return finding.level, finding.code, name, what, finding.file.rpartition('/')[2] or '-'


def _row(series: GRESeries, bids_dir: str) -> tuple[str, ...]:
    te = ', '.join(f'{1000 * t:.4g}' for t in series.te[:6]) + (', ...' * (len(series.te) > 6))
    phase = 'real + imaginary' if series.scaling is None else series.scaling.rule
    t1w = 'none' if series.t1w is None else _t1w_name(series)
    return (
        series.name,
        str(len(series.te)),
        te,
        f'{series.field_strength:g}',
        ' x '.join(map(str, series.shape)),
        ' x '.join(f'{v:.3g}' for v in series.voxel_size),
        phase,
        t1w.rpartition('/')[2],
    )


def _t1w_name(series: GRESeries) -> str:
    """Return the T1w image below its dataset; of a derivative dataset, as a BIDS URI."""
    return series.t1w_uri.removeprefix('bids:raw:')


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        '  '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]
    rule = '  '.join('-' * width for width in widths)
    return [lines[0], rule, *lines[1:]]


def _block(title: str, findings: tuple[Finding, ...]) -> list[str]:
    ordered = sorted(findings, key=lambda finding: LEVELS.index(finding.level))
    return [title, *(f'  {finding}' for finding in ordered), '']
