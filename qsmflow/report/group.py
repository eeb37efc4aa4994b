"""The group level: one table over all subjects and sessions for each atlas, and a first page."""

import contextlib
import json
import os
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from qsmflow.files import write_text
from qsmflow.report.html import cell, data_uri, environment, head, summaries

from .. import tables
from . import charts

_STATS_NAME = re.compile(r'(?P<series>.+)_atlas-(?P<atlas>[A-Za-z0-9]+)(?:_.+)?_stats\.tsv')
_SHOWN = ('chi', 'R2star')


def build_group(
    out_dir: str | os.PathLike,
    participants_tsv: str | os.PathLike | None = None,
    info: Mapping[str, object] | None = None,
    labels: Mapping[str, Collection[str]] | None = None,
) -> list[Path]:
    """Write the group's tables and its page.

    Parameters
    ----------
    out_dir : path-like
        Folder of the derivatives, where the participant level has written region tables.
    participants_tsv : path-like, optional
        ``participants.tsv`` of the dataset, merged into the tables.
    info : mapping, optional
        Facts on the run for the head of the page; ``title`` names the dataset.
    labels : mapping of str to collection of str, optional
        Which series to take; see :func:`find_tables`.

    Returns
    -------
    list of Path
        ``OUT/group_atlas-<label>_stats.tsv`` for each atlas, which has its data dictionary beside
        it, and last ``OUT/group.html``.

    Raises
    ------
    FileNotFoundError
        If there is no region table below ``out_dir``.
    """
    out_dir = Path(out_dir)
    found = find_tables(out_dir, labels)
    if not found:
        raise FileNotFoundError(
            f'no region table (sub-*/**/anat/*_atlas-*_stats.tsv) below {out_dir}: '
            'run the participant level first.'
        )
    atlases, written = [], []
    described = tables.participant_columns(participants_tsv)
    for atlas, paths in sorted(found.items()):
        table = tables.flag_outliers(tables.group_table(paths, participants_tsv))
        name = f'group_atlas-{atlas}_stats.tsv'
        regions = _regions(path for path, _ in paths)
        written.append(tables.write_group(table, out_dir / name, described, regions))
        atlases.append({'atlas': atlas, 'file': name, **_atlas_part(table)})
    page = environment().get_template('group.html.j2')
    text = page.render(
        atlases=atlases,
        people=_people(out_dir, labels),
        missing=_missing(out_dir, found, participants_tsv, labels),
        threshold=tables.OUTLIER_Z,
        **head(info),
    )
    return [*written, write_text(out_dir / 'group.html', text)]


def find_tables(
    out_dir: Path, labels: Mapping[str, Collection[str]] | None = None
) -> dict[str, list[tuple[Path, dict[str, str]]]]:
    """Find the region tables of all subjects, or of those that are asked for.

    Parameters
    ----------
    out_dir : Path
        Folder of the derivatives.
    labels : mapping of str to collection of str, optional
        Entity -> labels to take, without the entity before them, as in ``{'sub': ['01']}``.

    Returns
    -------
    dict of str to list of (Path, dict)
        Label of the atlas -> tables with the entities of their series.
    """
    found: dict[str, list] = {}
    for path in sorted(Path(out_dir).glob('sub-*/**/anat/sub-*_atlas-*_stats.tsv')):
        match = _STATS_NAME.fullmatch(path.name)
        if match and _selected(match['series'], labels):
            entities = _entities(match['series'])
            for key in ('space', 'res', 'label'):
                entities.pop(key, None)
            found.setdefault(match['atlas'], []).append((path, entities))
    return found


def _entities(series: str) -> dict[str, str]:
    pairs = (part.partition('-') for part in series.split('_'))
    return {key: value for key, _, value in pairs}


def _selected(series: str, labels: Mapping[str, Collection[str]] | None) -> bool:
    """Tell whether a series has one of the labels that are asked for, in each entity."""
    found = _entities(series)
    return all(found.get(key) in wanted for key, wanted in (labels or {}).items())


def _regions(paths: Iterable[Path]) -> dict[str, str]:
    """Return what the regions are, as the dictionaries of the series' tables say."""
    levels: dict[str, str] = {}
    for path in paths:
        # An earlier version, or another hand, may have left no such entry.
        with contextlib.suppress(OSError, ValueError, KeyError, AttributeError, TypeError):
            content = json.loads(path.with_suffix('.json').read_text(encoding='utf-8'))
            levels = dict(content['region']['Levels']) | levels
    return levels


def series_labels(table: pd.DataFrame) -> pd.Series:
    """Name each row by its series, leaving out entities that all series share.

    Parameters
    ----------
    table : DataFrame
        Result of :func:`qsmflow.tables.group_table`.

    Returns
    -------
    Series of str
        Such as ``'01'`` or ``'01 ses-2 run-1'``.
    """
    names = table['participant_id'].str.removeprefix('sub-')
    for key in ('session_id', 'acq', 'ce', 'rec', 'dir', 'run', 'inv'):
        if key in table and table[key].nunique() > 1:
            value = table[key].astype(str)
            value = value if key == 'session_id' else f'{key}-' + value
            names = names.where(table[key].eq(''), names + ' ' + value)
    return names


def _atlas_part(table: pd.DataFrame) -> dict:
    """Return charts, outliers and summary of one atlas."""
    table = table.assign(label=series_labels(table))
    drawn = []
    for name in charts.shown_maps(table, _SHOWN):
        svg = charts.group_chart(table, name)
        drawn.append(
            {
                'title': charts.map_title(table, name),
                'uri': data_uri(svg.encode(), 'image/svg+xml'),
            }
        )
    flagged = table[table['outlier'].astype(bool)]
    flagged = flagged.reindex(flagged['robust_z'].abs().sort_values(ascending=False).index)
    return {
        'charts': drawn,
        'outliers': [_outlier(row) for row in flagged.to_dict('records')],
        'summary': _summary(table),
        'n_series': table['label'].nunique(),
        'incomplete': int((~table['qc'].isin(['ok', ''])).sum()),
    }


def _outlier(row: Mapping) -> dict:
    z = row['robust_z']
    return {
        'participant': row['participant_id'],
        'label': row['label'],
        'region': row['region'].replace('_', ' '),
        'hemi': row['hemi'],
        'map': charts.MAPS.get(row['map'], row['map']),
        'value': cell(row['mean'], '.1f'),
        'unit': row['unit'],
        'z': cell(z, '+.1f') if np.isfinite(z) else {'text': '∞', 'key': '1e9'},
        'qc': row['qc'],
    }


def _summary(table: pd.DataFrame) -> list[dict]:
    """Return one row for each region, side and map: count and spread over the group."""
    rows = []
    keys = ['region', 'hemi', 'map', 'unit']
    shown = table[table['map'].isin(_SHOWN)]
    for (region, hemi, name, unit), part in shown.groupby(keys, sort=False):
        values = part['mean'].dropna().to_numpy(float)
        stats = np.percentile(values, [0, 25, 50, 75, 100]) if values.size else [None] * 5
        spread = float(np.std(values, ddof=1)) if values.size > 1 else None
        mean = float(values.mean()) if values.size else None
        rows.append(
            {
                'region': region.replace('_', ' '),
                'hemi': hemi,
                'map': charts.MAPS.get(name, name),
                'unit': unit,
                'n': values.size,
                'cells': [cell(v, '.1f') for v in (mean, spread, *stats)],
                'outliers': int(part['outlier'].sum()),
            }
        )
    return rows


def _people(out_dir: Path, labels: Mapping[str, Collection[str]] | None) -> list[dict]:
    """Return one row for each series: what became of it and where its page is."""
    rows = []
    for path in summaries(out_dir):
        series = path.name.removesuffix('_desc-summary_report.json')
        if not _selected(series, labels):
            continue
        subject = path.relative_to(out_dir).parts[0]
        try:
            summary = json.loads(path.read_text(encoding='utf-8'))
            levels = [str(f.get('level', '')).upper() for f in summary.get('findings') or []]
            status = str(summary.get('status') or 'complete')
            warnings = len(summary.get('warnings') or []) + sum(x == 'WARN' for x in levels)
            errors = sum(level in ('ERROR', 'FATAL') for level in levels)
        except (OSError, ValueError, AttributeError):
            status, warnings, errors = 'failed', 0, 1
        rows.append(
            {
                'series': series,
                'page': f'{subject}.html' if (out_dir / f'{subject}.html').is_file() else '',
                'status': status,
                'warnings': warnings,
                'errors': errors,
            }
        )
    return rows


def _missing(out_dir: Path, found: Mapping, participants_tsv, labels) -> list[str]:
    """Name the participants without any table: listed, or with a folder, but not measured."""
    measured = {f'sub-{e["sub"]}' for paths in found.values() for _, e in paths}
    known = {path.name for path in out_dir.glob('sub-*') if path.is_dir()}
    if participants_tsv is not None and Path(participants_tsv).is_file():
        listed = pd.read_csv(participants_tsv, sep='\t', dtype=str)['participant_id'].dropna()
        known |= {f'sub-{label.strip().removeprefix("sub-")}' for label in listed}
    if labels and 'sub' in labels:
        known &= {f'sub-{label}' for label in labels['sub']}
    return sorted(known - measured)
