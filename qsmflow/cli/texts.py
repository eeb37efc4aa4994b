"""Parts of a run that compute nothing: reports made again, and the methods text alone."""

import csv
import json
import logging
import shutil
from pathlib import Path

from qsmflow import __version__
from qsmflow.bids.findings import DatasetError
from qsmflow.settings import Settings

_LOGGER = logging.getLogger('qsmflow.cli')


class NothingToReportError(RuntimeError):
    """The output folder holds no results to report on."""

    exit_code = 65


def rebuild_reports(settings: Settings) -> int:
    """Make the reports of the results in the output folder again.

    The dataset is not read. Facts on the run come from the log folder of the last run that
    processed the subject.

    Parameters
    ----------
    settings : Settings
        Output folder and participants; all that are there by default.

    Returns
    -------
    int
        0, or 1 if a report failed.

    Raises
    ------
    NothingToReportError
        If the folder holds no results.
    DatasetError
        If a label is not among the results; exit code 2.
    """
    from qsmflow.bids.checks_dataset import choose_labels
    from qsmflow.report import build_report
    from qsmflow.report.html import summaries

    out_dir = Path(settings.bids.output_dir)
    there = [
        folder.name.removeprefix('sub-')
        for folder in sorted(out_dir.glob('sub-*'))
        if folder.is_dir() and summaries(folder)
    ]
    if not there:
        raise NothingToReportError(
            f'{out_dir} holds no results (sub-*/**/figures/*_desc-summary_report.json). Run the '
            'participant level on this folder first.'
        )
    wanted = list(settings.bids.participant_label) or None
    failed = 0
    for subject in choose_labels(wanted, there, 'participant with results', 'sub-'):
        try:
            info, unfinished = _earlier_run(out_dir, subject)
            path = build_report(out_dir, subject, info, unfinished)
            _LOGGER.info('report: %s', path)
        except (OSError, ValueError, KeyError):
            _LOGGER.exception('the report of sub-%s failed', subject)
            failed += 1
    return 1 if failed else 0


def _earlier_run(out_dir: Path, subject: str) -> tuple[dict[str, str], list[dict[str, str]]]:
    """Return what the report says about the last run of a subject, and what that left undone."""
    info = {'version': _version(out_dir, subject)}
    if info['version'] != __version__:
        info['report made with'] = f'qsmflow {__version__}'
    runs = []
    for path in out_dir.glob('logs/*/status.tsv'):
        rows = [row for row in _rows(path) if _belongs(row.get('name') or '', subject)]
        if any(row['name'] == f'sub-{subject} report' for row in rows):
            runs.append((path.stat().st_mtime, path.parent, rows))
    if not runs:
        return info, []
    _, folder, rows = max(runs, key=lambda run: run[:2])
    settings = folder / 'qsmflow.toml'
    info['run_uuid'] = folder.name
    info['settings'] = settings.read_text(encoding='utf-8') if settings.is_file() else ''
    unfinished = [
        row for row in rows if row['status'] != 'done' and row['name'] != f'sub-{subject} report'
    ]
    return info, unfinished


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding='utf-8', newline='') as stream:
        return list(csv.DictReader(stream, delimiter='\t'))


def _belongs(name: str, subject: str) -> bool:
    """Tell whether a row of a table of status belongs to a subject.

    Examples
    --------
    >>> _belongs('sub-01_run-1', '01'), _belongs('sub-01 report', '01'), _belongs('sub-011', '01')
    (True, True, False)
    """
    return name.replace(' ', '_').partition('_')[0] == f'sub-{subject}'


def _version(out_dir: Path, subject: str) -> str:
    """Return the version that computed the results of a subject, as far as they tell."""
    from qsmflow.report.html import summaries

    for path in summaries(out_dir / f'sub-{subject}'):
        try:
            return str(json.loads(path.read_text(encoding='utf-8'))['versions']['qsmflow'])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return __version__


def write_methods(workflow, settings: Settings) -> list[Path]:
    """Write the methods text of a workflow, with its citations, into the log folder."""
    from qsmflow.report import write_citations

    html = not settings.outputs.md_only_boilerplate
    folder = Path(settings.bids.output_dir) / 'logs'
    return write_citations(workflow.visit_desc(), folder, html=html)


def draw_graph(workflow, log_dir: Path) -> None:
    """Write the graph of a workflow as ``graph.dot``, and as ``graph.svg`` if Graphviz is there.

    Parameters
    ----------
    workflow : Workflow
        What will be run.
    log_dir : Path
        Folder of the two files.
    """
    path = log_dir / 'graph.dot'
    try:
        workflow.write_graph(str(path), graph2use='colored', format='svg', simple_form=True)
    except OSError:
        if shutil.which('dot') is not None or not path.is_file():
            raise
        _LOGGER.warning(
            '%s is written but not drawn: the program dot is not installed. Install Graphviz '
            'and give: dot -Tsvg -O %s',
            *(path, path),
        )


def only_methods(collection, settings: Settings) -> int:
    """Write the methods text of what would be run, and stop.

    Parameters
    ----------
    collection : Collection
        Series of the run.
    settings : Settings
        Settings of the run.

    Returns
    -------
    int
        0.

    Raises
    ------
    DatasetError
        If there is no series; exit code 65.
    """
    from qsmflow.workflows.base import init_qsmflow_wf

    if not collection.series:
        findings = [item for _, found in collection.failed for item in found if item.stops]
        raise DatasetError(findings, collection.exit_code)
    workflow = init_qsmflow_wf(
        series=collection.series, settings=settings, out_dir=settings.bids.output_dir
    )
    for path in write_methods(workflow, settings):
        _LOGGER.info('wrote %s', path)
    return 0
