"""The page of one subject, built from the files that the subject's graph left behind."""

import base64
import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path

import jinja2
import pandas as pd
from markupsafe import Markup

from qsmflow.files import write_text
from qsmflow.report.facts import (
    blocks,
    evidence_text,
    format_name,
    format_value,
    used_parameters,
)

from .. import __version__, tables
from . import charts, citations

#: Levels of a finding, gravest first; the class of its badge.
LEVELS = ('FATAL', 'ERROR', 'WARN', 'FIX', 'INFO')

_MIME = {'.png': 'image/png', '.svg': 'image/svg+xml'}
#: Entities that a figure may have beyond those of its series.
_OWN_ENTITIES = r'(?:_(?:space|chunk|atlas|seg|scale|res|label)-[A-Za-z0-9]+)*'
_KNOWN = {
    'series', 'status', 'sources', 'acquisition', 'findings', 'warnings', 'mask', 'reference',
    'registration', 'quality', 'methods', 'parameters', 'versions', 'preparation', 'sign',
    'bipolar', 'unwrapping', 'dentate', 'refinement', 'regularisation',
    'background_convergence', 'inversion_convergence',
}  # fmt: skip
#: Statistics in the page's region table: map -> columns and their headings.
_STATISTICS = {
    'chi': {'mean': 'χ mean', 'sd': 'χ SD', 'median': 'χ median', 'difference': 'χ L−R'},
    'R2star': {'mean': 'R2* mean', 'sd': 'R2* SD'},
    'T2star': {'mean': 'T2* mean'},
}


def build_report(
    out_dir: str | os.PathLike,
    subject: str,
    info: Mapping[str, object] | None = None,
    status: Iterable[Mapping[str, str]] = (),
) -> Path:
    """Write the self-contained page of one subject.

    Parameters
    ----------
    out_dir : path-like
        Folder of the derivatives; what is read there is listed in :mod:`qsmflow.report`.
    subject : str
        Label of the subject, with or without ``sub-``.
    info : mapping, optional
        Facts on the run for the head of the page, shown as ``name: value``; ``title`` names the
        dataset. Text of several lines, such as the settings, goes to the foot.
    status : iterable of mapping, optional
        What is not done: ``name`` of the series, ``status`` and ``reason``; or, with the status
        ``note``, what is to be said of the run. With it there need not be any result.

    Returns
    -------
    Path
        ``OUT/sub-X.html``. It appears when it is complete, and the same files give the same page.

    Raises
    ------
    FileNotFoundError
        If the subject has no folder in ``out_dir``.
    """
    out_dir = Path(out_dir)
    subject = f'sub-{subject.removeprefix("sub-")}'
    folder = out_dir / subject
    unfinished = [_unfinished(one) for one in status]
    if not folder.is_dir() and not unfinished:
        raise FileNotFoundError(
            f'{folder} does not exist: the report reads what the participant level wrote there.'
        )
    paths = summaries(folder)
    series = [_series(path, folder) for path in paths]
    text = (
        environment()
        .get_template('report.html.j2')
        .render(
            subject=subject,
            series=series,
            alerts=[*unfinished, *_alerts(series)],
            levels=LEVELS,
            **head(info),
        )
    )
    return write_text(out_dir / f'{subject}.html', text)


def summaries(folder: Path) -> list[Path]:
    """Return the summaries of all series below a folder, run 2 before run 10.

    Examples
    --------
    >>> summaries(Path('no-such-folder'))
    []
    """

    def key(path: Path) -> list:
        parts = re.split(r'(\d+)', path.name.removesuffix('_desc-summary_report.json'))
        return [int(part) if part.isdigit() else part for part in parts]

    return sorted(folder.glob('**/figures/*_desc-summary_report.json'), key=key)


def head(info: Mapping[str, object] | None) -> dict:
    """Split the facts on a run into what the templates' head and foot show."""
    info = {str(k): v for k, v in (info or {}).items() if v not in (None, '')}
    return {
        'title': str(info.pop('title', '')),
        'version': str(info.pop('version', __version__)),
        'texts': {k: str(v) for k, v in info.items() if '\n' in str(v)},
        'info': {k: v for k, v in info.items() if '\n' not in str(v)},
    }


def environment() -> jinja2.Environment:
    """Return the template environment: everything is escaped unless marked as safe."""
    env = jinja2.Environment(
        loader=jinja2.FunctionLoader(_template),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    env.filters['value'] = format_value
    env.filters['label'] = format_name
    return env


def data_uri(content: bytes, mime: str) -> Markup:
    """Return content as a ``data:`` address, so that the page needs no other file."""
    return Markup(f'data:{mime};base64,{base64.b64encode(content).decode()}')


def _template(name: str) -> str:
    return (files('qsmflow') / 'data' / name).read_text(encoding='utf-8')


def _series(path: Path, folder: Path) -> dict:
    """Collect what the page shows of one series."""
    name = path.name.removesuffix('_desc-summary_report.json')
    summary, problem = _read_summary(path)
    anchor = re.sub(r'[^A-Za-z0-9]+', '-', name)
    methods, keys = citations.to_html(str(summary.get('methods') or ''))
    unknown = [k for k in citations.citations(str(summary.get('methods') or '')) if k not in keys]
    warnings = [_as_finding(w, 'WARN') for w in summary.get('warnings') or []]
    if problem:
        warnings.insert(0, _as_finding(problem, 'ERROR'))
    if unknown:
        warnings.append(_as_finding(f'No bibliography entry for {", ".join(unknown)}.', 'WARN'))
    findings = [_as_finding(f, 'INFO') for f in summary.get('findings') or []]
    warnings += _failed_checks(summary)
    findings = sorted(findings + warnings, key=lambda f: LEVELS.index(f['level']))
    return {
        'name': name,
        'anchor': anchor,
        'status': str(summary.get('status') or ('failed' if problem else 'complete')),
        'tiles': _tiles(summary),
        'findings': findings,
        'figures': _figures(path.parent, name, anchor),
        'tables': _tables(folder, name),
        'methods': methods,
        'references': [
            {'text': citations.reference(k), 'doi': citations.bibliography()[k].get('doi', '')}
            for k in keys
        ],
        'summary': {key: summary.get(key) or {} for key in sorted(_KNOWN)},
        'parameters': used_parameters(summary),
        'blocks': blocks(summary),
        'other': {k: v for k, v in summary.items() if k not in _KNOWN},
    }


def _read_summary(path: Path) -> tuple[dict, str]:
    """Read a summary; a broken one costs its facts, not the page."""
    try:
        summary = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        return {}, f'{path.name} could not be read ({error}); run this subject again.'
    if not isinstance(summary, dict):
        return {}, f'{path.name} does not hold a JSON object; run this subject again.'
    parts = (
        'acquisition',
        'mask',
        'reference',
        'registration',
        'quality',
        'parameters',
        'versions',
        'preparation',
        'sign',
        'bipolar',
        'unwrapping',
        'dentate',
        'refinement',
        'regularisation',
        'background_convergence',
        'inversion_convergence',
    )
    wrong = [p for p in parts if summary.get(p) and not isinstance(summary[p], dict)]
    for part in wrong:
        summary[part] = {'value': summary[part]}
    return summary, ''


def _as_finding(item: object, level: str) -> dict[str, str]:
    """Return a finding with every field, from a dict or from a plain message."""
    item = dict(item) if isinstance(item, Mapping) else {'message': item}
    fields = {
        key: str(item.get(key) or '') for key in ('code', 'level', 'message', 'file', 'remedy')
    }
    fields['message'] = fields['message'][:1].upper() + fields['message'][1:]
    fields['evidence'] = evidence_text(item.get('evidence'))
    fields['level'] = fields['level'].upper().replace('WARNING', 'WARN')
    if fields['level'] not in LEVELS:
        fields['level'] = level
    return fields


def _failed_checks(summary: Mapping) -> list[dict[str, str]]:
    """Return what the checks of brain mask, registration and unwrapping say, if they failed."""
    checks = {
        'mask': (
            'D89',
            'The check of the brain mask failed',
            'Look at the figure of the mask; give a better one with --mask.',
        ),
        'registration': (
            'D84',
            'The registration check failed: regions may be misplaced',
            'Look at the registration figure before using the region table.',
        ),
    }
    found = []
    told = {w.get('code') for w in summary.get('warnings') or [] if isinstance(w, Mapping)}
    for part, (code, message, remedy) in checks.items():
        facts = summary.get(part) or {}
        if facts.get('passed') is False and code not in told:
            reasons = '; '.join(map(str, facts.get('reasons') or []))
            finding = {'code': code, 'message': f'{message}.', 'evidence': reasons}
            finding |= {'remedy': remedy}
            found.append(_as_finding(finding, 'WARN'))
    note = (summary.get('unwrapping') or {}).get('Note')
    if note:
        remedy = 'Look at the figure of the total field.'
        found.append(_as_finding({'message': f'{note}.', 'remedy': remedy}, 'WARN'))
    return found


def _unfinished(one: Mapping[str, str]) -> dict[str, str]:
    """Return a series that was not finished, or a note on the run, as what must be seen first."""
    note = one['status'] == 'note'
    reason = one['reason'] or 'see the messages of the run (standard error)'
    return {
        'level': 'WARN' if note else 'ERROR',
        'message': reason if note else f'{one["status"].capitalize()}: {reason}',
        'remedy': '',
        'series': one['name'],
        'anchor': '',
    }


def _alerts(series: list[dict]) -> list[dict]:
    """Return what must be seen first: findings from WARN upwards, gravest first."""
    alerts = [
        {**finding, 'series': one['name'], 'anchor': one['anchor']}
        for one in series
        for finding in one['findings']
        if finding['level'] in ('FATAL', 'ERROR', 'WARN')
    ]
    return sorted(alerts, key=lambda a: LEVELS.index(a['level']))


def _tiles(summary: Mapping) -> list[dict[str, str]]:
    """Return the facts that are read first, as ``name``, ``value``, ``note`` and ``state``."""
    tiles = []

    def tile(name: str, value: str, note: str = '', state: str = '') -> None:
        tiles.append({'name': name, 'value': value, 'note': note, 'state': state})

    acquisition = summary.get('acquisition') or {}
    if acquisition.get('MagneticFieldStrength'):
        tile('Field', f'{format_value(acquisition["MagneticFieldStrength"])} T')
    times = acquisition.get('EchoTime')
    times = times if isinstance(times, list) else [times] if times else []
    if times:
        ms = [1e3 * float(t) for t in times]
        tile(
            'Echoes', str(len(ms)), f'{ms[0]:.3g}–{ms[-1]:.3g} ms' if ms[1:] else f'{ms[0]:.3g} ms'
        )
    if acquisition.get('VoxelSize'):
        tile('Voxel', ' × '.join(f'{float(v):.3g}' for v in acquisition['VoxelSize']) + ' mm')
    mask = summary.get('mask') or {}
    if mask.get('volume_ml') is not None:
        tile('Brain mask', f'{float(mask["volume_ml"]):.0f} ml', format_value(mask.get('method')))
    reference = summary.get('reference') or {}
    if reference.get('region'):
        note = ''
        if reference.get('mean') is not None:
            note = f'{1e3 * float(reference["mean"]):.1f}'.replace('-', '−')
            if reference.get('sd') is not None:
                note += f' ± {1e3 * float(reference["sd"]):.1f}'
            note += ' ppb before'
        tile('χ reference', str(reference['region']).replace('_', ' '), note)
    registration = summary.get('registration') or {}
    if registration.get('passed') is not None:
        passed = bool(registration['passed'])
        score = registration.get('score')
        tile(
            'Registration',
            'passed' if passed else 'failed',
            f'score {float(score):.2f}' if score is not None else '',
            'good' if passed else 'bad',
        )
    return tiles


def _figures(folder: Path, name: str, anchor: str) -> list[dict]:
    """Return the figures of a series in the order of the specification."""
    found = []
    for section in json.loads(_template('report_spec.json'))['sections']:
        desc, suffix = (
            section['pattern']['desc'],
            section['pattern'].get('suffix', r'[A-Za-z0-9]+'),
        )
        pattern = re.compile(
            f'{re.escape(name)}{_OWN_ENTITIES}_desc-{re.escape(desc)}_{suffix}\\.(?:png|svg)'
        )
        images = [path for path in sorted(folder.iterdir()) if pattern.fullmatch(path.name)]
        if images:
            found.append(
                {
                    **section,
                    'anchor': f'{anchor}-{section["id"]}',
                    'images': [_image(path, section['title']) for path in images],
                }
            )
    return found


def _image(path: Path, title: str) -> dict:
    """Return an image as a data address, with the facts of its own."""
    extra = {}
    facts = path.with_suffix('.json')
    if facts.is_file():
        try:
            extra = json.loads(facts.read_text(encoding='utf-8'))
        except ValueError:
            extra = {'caption': f'The facts on this figure ({facts.name}) could not be read.'}
    return {
        'name': path.name,
        'uri': data_uri(path.read_bytes(), _MIME[path.suffix]),
        'alt': f'{title}: {path.name}',
        'facts': str(extra.get('caption', '')) if isinstance(extra, dict) else '',
    }


def _tables(folder: Path, name: str) -> list[dict]:
    """Return the region tables of a series with their charts."""
    found = []
    pattern = re.compile(f'{re.escape(name)}{_OWN_ENTITIES}(?:_desc-[A-Za-z0-9]+)?_stats\\.tsv')
    for path in sorted(folder.glob(f'**/anat/{name}_*_stats.tsv')):
        atlas = re.search(r'_atlas-([A-Za-z0-9]+)', path.name)
        if not atlas or not pattern.fullmatch(path.name):
            continue
        atlas = atlas.group(1)
        entry = {'atlas': atlas, 'file': path.name, 'problem': '', 'chart': ''}
        try:
            stats = tables.read_stats(path)
        except ValueError as error:
            found.append({**entry, 'problem': str(error)})
            continue
        chart = charts.region_chart(stats)
        if chart:
            entry['chart'] = data_uri(chart.encode(), _MIME['.svg'])
        found.append({**entry, **_region_rows(stats)})
    return found


def _region_rows(stats: pd.DataFrame) -> dict:
    """Turn the long table into one row for each region and side."""
    units = dict(zip(stats['map'], stats['unit'], strict=True))
    columns = [(name, key) for name in _STATISTICS if name in units for key in _STATISTICS[name]]
    heads = [{'title': 'voxels', 'unit': ''}, {'title': 'coverage', 'unit': ''}]
    heads += [{'title': _STATISTICS[name][key], 'unit': units[name]} for name, key in columns]
    rows = []
    for (region, hemi), group in stats.groupby(['region', 'hemi'], sort=False):
        by_map = {row['map']: row for row in group.to_dict('records')}
        first = next(iter(by_map.values()))
        cells = [cell(first['n_voxels'], '.0f'), cell(first['coverage'], '.0%')]
        cells += [cell(by_map.get(name, {}).get(key), '.1f') for name, key in columns]
        # Maps may differ in where they have values: every flag of the region is shown.
        flags = dict.fromkeys(f for row in by_map.values() for f in row['qc'].split(';') if f)
        qc = '; '.join([f for f in flags if f != 'ok'] or flags)
        rows.append({'region': region.replace('_', ' '), 'hemi': hemi, 'cells': cells, 'qc': qc})
    return {'heads': heads, 'rows': rows}


def cell(value: object, fmt: str) -> dict[str, str]:
    """Return text and sorting key of a number; a missing one is shown as n/a and sorts last.

    Examples
    --------
    >>> cell(-1.25, '.2f'), cell(None, '.2f')
    ({'text': '−1.25', 'key': '-1.25'}, {'text': 'n/a', 'key': ''})
    """
    number = math.nan if value is None else float(value)
    if math.isnan(number):
        return {'text': 'n/a', 'key': ''}
    return {'text': format(number, fmt).replace('-', '−'), 'key': repr(number)}
