"""The participant level: from a dataset to maps, tables and one report per subject."""

import contextlib
import dataclasses
import logging
import os
import signal
from collections.abc import Iterable
from pathlib import Path

from qsmflow import __version__
from qsmflow.bids.findings import Finding
from qsmflow.cli import progress
from qsmflow.cli.locks import LockLostError, Locks
from qsmflow.cli.signals import Terminated, last_words, raise_again
from qsmflow.cli.status import Ledger, Outcome
from qsmflow.files import remove_partial, write_text
from qsmflow.settings import Settings

_LOGGER = logging.getLogger('qsmflow.cli')


def run(settings: Settings) -> int:
    """Process every requested series.

    Parameters
    ----------
    settings : Settings
        The run's settings.

    Returns
    -------
    int
        0 if every series and report is done, 65 if the checks of the input stopped all series,
        else 1.

    Raises
    ------
    DatasetError
        If there is no series at all, a label does not exist, or the output folder is not ours.
    """
    from qsmflow.cli import texts
    from qsmflow.cli.history import require_own

    if settings.execution.reports_only or settings.execution.boilerplate_only:
        require_own(settings.bids.output_dir)
    if settings.execution.reports_only:
        return texts.rebuild_reports(settings)
    ledger = Ledger(_log_dir(settings) / 'status.tsv')
    only_part = settings.execution.dry_run or settings.execution.boilerplate_only
    try:
        with contextlib.nullcontext() if only_part else last_words(ledger.interrupt):
            code = _run(settings, ledger)
            if code:
                raise_again()
            return code
    except (KeyboardInterrupt, Terminated) as error:
        if not only_part:
            _LOGGER.error('%s', ledger.interrupt(str(error) or 'interrupted'))
            _report(ledger, settings, [item.subject for item in ledger.unfinished()])
            ledger.write()
        raise


def _run(settings: Settings, ledger: Ledger) -> int:
    """Read and check the dataset, tell the plan, and carry it out."""
    from qsmflow.bids.companions import require_masks
    from qsmflow.bids.orientations import with_orientations
    from qsmflow.cli import plan, texts
    from qsmflow.cli.validation import validated

    ledger.phase = 'reading the dataset'
    with plan.refusals_told(settings):
        collection = plan.collected(settings)
    if settings.reconstruction.mask == 'derivatives':
        collection = require_masks(collection)
    if settings.reconstruction.cosmos:
        collection = with_orientations(collection)
    if settings.execution.sloppy:
        collection = _noted(collection, SLOPPY)
    if not settings.bids.skip_bids_validation:
        collection = validated(collection)
    collection = plan.checked(collection, settings)
    if settings.execution.dry_run:
        collection = plan.against_output(collection, settings)
    plan.show(collection, settings)
    if settings.execution.dry_run or not (collection.failed or collection.series):
        return collection.exit_code
    if settings.execution.boilerplate_only:
        return texts.only_methods(collection, settings)
    ledger.notes += [item for item in collection.findings if item.level == 'WARN']
    for name, findings in collection.failed:
        reason = '; '.join(str(item) for item in findings if item.stops)
        ledger.put(Outcome(name, 'not started', reason))
    _work(collection, settings, ledger)
    for outcome in ledger.unfinished():
        _LOGGER.error('%s: %s (%s)', outcome.name, outcome.status, outcome.reason)
    if not collection.series:
        return collection.exit_code
    return 1 if ledger.unfinished() else 0


def _work(collection, settings: Settings, ledger: Ledger) -> None:
    """Process the series of a collection, alone with its subjects in output and work folder.

    Raises
    ------
    InUseError
        If another run works on one of the subjects; nothing was written then.
    LockLostError
        If another run has taken this one for dead.
    """
    from qsmflow.cli.history import require_one_method, write_record
    from qsmflow.cli.space import require_access, require_space, tell_resumed

    subjects = list(dict.fromkeys(item.subject for item in collection.series))
    out_dir, work_dir = settings.bids.output_dir, settings.execution.work_dir
    lost: list[Path] = []

    def on_lost(path: Path) -> None:
        lost.append(path)
        os.kill(os.getpid(), signal.SIGTERM)

    locks = Locks(
        *(out_dir, work_dir, subjects, settings.execution.run_uuid),
        on_lost=on_lost,
        clean=settings.execution.clean_workdir,
    )
    try:
        with locks, last_words(lambda reason: locks.release()):
            require_access(out_dir, work_dir, subjects)
            findings = require_one_method(out_dir, subjects, settings)
            if settings.execution.clean_workdir:
                _clean(settings)
                locks.cleaned()
            findings += require_space(collection.series, settings)
            for finding in findings:
                _LOGGER.warning('%s', finding)
            ledger.notes += findings
            tell_resumed(work_dir, subjects)
            log_dir = _start_output(settings, collection.series)
            for subject in subjects:
                remove_partial(Path(out_dir, f'sub-{subject}'))
                own = [item for item in collection.series if item.subject == subject]
                write_record(out_dir, subject, settings, own)
            if collection.series:
                _process(collection, settings, log_dir, ledger)
            _close(ledger, settings)
    except Terminated as error:
        if lost:
            raise LockLostError(
                f'another run has taken this one for dead and works in its place (see {lost[0]}); '
                'this run ends'
            ) from error
        raise


def _clean(settings: Settings) -> None:
    """Remove the steps of earlier runs from the work folder, and say which."""
    from qsmflow.cli.workdir import clean

    given = settings.bids
    datasets = {f'--derivatives {name}': Path(path) for name, path in given.derivatives.items()}
    datasets['BIDS_DIR'] = Path(given.bids_dir)
    for path in clean(Path(settings.execution.work_dir), Path(given.output_dir), datasets):
        _LOGGER.info('removed the steps of earlier runs: %s', path)


def _close(ledger: Ledger, settings: Settings) -> None:
    """Write the reports and the status table."""
    ledger.phase = 'writing reports'
    _report(ledger, settings, [outcome.subject for outcome in ledger.outcomes()])
    ledger.write()


#: Told in log, sidecars and report of a run that traded quality for speed.
SLOPPY = Finding(
    'SLOPPY',
    'WARN',
    'this run traded quality for speed (--sloppy): its results are for trials only',
    remedy='Run again without --sloppy.',
)


def _noted(collection, finding: Finding):
    """Return a collection whose series carry one more finding."""
    series = tuple(
        dataclasses.replace(item, findings=(*item.findings, finding)) for item in collection.series
    )
    return dataclasses.replace(collection, series=series)


def _start_output(settings: Settings, series) -> Path:
    """Write what describes the output, and return the folder of this run's logs."""
    from qsmflow.atlas import LABEL_TABLES, load_atlas, write_descriptions
    from qsmflow.bids import write_dataset_files

    out_dir = Path(settings.bids.output_dir)
    links = dict(settings.bids.derivatives)
    atlases = [load_atlas(name).name for name in settings.outputs.atlas]
    write_dataset_files(out_dir, settings.bids.bids_dir, __version__, links=links, atlases=atlases)
    given = [one for item in series if item.precomputed for one in item.precomputed.segmentations]
    tables = [one.table for one in given if settings.outputs.atlas and one.table in LABEL_TABLES]
    write_descriptions([*settings.outputs.atlas, *tables], out_dir)
    log_dir = _log_dir(settings)
    log_dir.mkdir(parents=True, exist_ok=True)
    write_text(log_dir / 'qsmflow.toml', settings.to_toml())
    return log_dir


def _log_dir(settings: Settings) -> Path:
    return Path(settings.bids.output_dir) / 'logs' / settings.execution.run_uuid


def _process(collection, settings: Settings, log_dir: Path, ledger: Ledger) -> None:
    """Build the graph, run it, and take down how each series ended.

    When the run ends early, reports and status table are written nevertheless.
    """
    from qsmflow.bids.orientations import orientation_groups
    from qsmflow.cli.execution import (
        InsufficientMemoryError,
        RunEndedError,
        configure_nipype,
        make_monitor,
        run_graph,
    )
    from qsmflow.cli.texts import draw_graph, write_methods
    from qsmflow.cli.workdir import version_folder
    from qsmflow.workflows.base import init_qsmflow_wf

    ledger.phase = 'building the graph'
    ledger.expect(*(item.name for item in collection.series))
    base_dir = version_folder(Path(settings.execution.work_dir))
    base_dir.mkdir(parents=True, exist_ok=True)
    configure_nipype(settings, log_dir)
    workflow = init_qsmflow_wf(
        series=collection.series, settings=settings, out_dir=settings.bids.output_dir
    )
    workflow.base_dir = str(base_dir)
    if settings.execution.write_graph:
        draw_graph(workflow, log_dir)
    write_methods(workflow, settings)
    groups = orientation_groups(collection.series) if settings.reconstruction.cosmos else ()
    groups = [group for group in groups if group.enough]
    monitor = make_monitor(workflow, settings)
    parts = _parts(collection.series, groups)
    ledger.watch(parts, monitor)
    ledger.phase = 'computing'
    try:
        failures = run_graph(workflow, settings, log_dir, monitor)
    except RunEndedError as error:
        failed = {progress.describe(node)[0] for node in error.nodes}
        ledger.close(str(error), failed=failed)
        _end_early(ledger, settings)
        raise
    except Exception as error:
        small = isinstance(error, InsufficientMemoryError)
        reason = str(error) if small else f'{type(error).__name__}: {error}'
        ledger.close(reason, status='not started' if small else 'interrupted')
        _end_early(ledger, settings)
        raise
    series_parts = _parts(collection.series)
    ledger.put(*(_outcome(*part, failures, monitor) for part in series_parts))
    ledger.put(*(_cosmos_outcome(group, failures, monitor) for group in groups))


def _end_early(ledger: Ledger, settings: Settings) -> None:
    """Write what can be written of a run that failed; its own error matters more."""
    try:
        _close(ledger, settings)
    except OSError as error:
        _LOGGER.error('%s could not be written (%s)', ledger.path, error)


def _outcome(name: str, needed: tuple[str, ...], failures, monitor: progress.Monitor) -> Outcome:
    """Say how a series ended, and log the nodes that failed."""
    own = [item for item in failures if item.group in needed]
    for item in own:
        message = '%s: %s failed: %s (%s)'
        _LOGGER.error(message, name, item.node, item.reason, item.crash_file)
        with contextlib.suppress(OSError):  # it may not have been written
            _LOGGER.debug(
                '%s', Path(item.crash_file).read_text(encoding='utf-8', errors='replace')
            )
    if own:
        return Outcome(name, 'failed', '; '.join(str(_step_failed(item, monitor)) for item in own))
    if not monitor.ended or all(monitor.complete(group) for group in needed):
        return Outcome(name, 'done')
    begun = any(monitor.finished[group] for group in needed)
    return Outcome(name, 'interrupted' if begun else 'not started', monitor.ended)


def _step_failed(item, monitor: progress.Monitor) -> Finding:
    """Return what is said of a node that failed."""
    see = f'See {item.crash_file or "the messages of the run (standard error)"}'
    others = monitor.ended or 'other series are not concerned'
    return Finding('E110', 'ERROR', f'{item.node}: {item.reason}', remedy=f'{see}; {others}.')


def _cosmos_outcome(group, failures, monitor: progress.Monitor) -> Outcome:
    """Say how a COSMOS map ended: it is not begun where a reconstruction that it needs failed."""
    series = {item.name for item in group.series}
    lost = [
        item for item in failures if item.group in series and '.reconstruction_wf.' in item.node
    ]
    if lost:
        names = ', '.join(sorted({item.group for item in lost}))
        return Outcome(group.name, 'failed', f'not made: the reconstruction of {names} failed')
    return _outcome(group.name, (group.name,), failures, monitor)


def _parts(series, groups=()) -> list[tuple[str, tuple[str, ...]]]:
    """Return each series and COSMOS map by its name, with the groups of nodes that it needs."""
    parts = []
    for item in series:
        shared = (progress.shared_group(f'sub-{item.subject}'),) if item.t1w else ()
        parts.append((item.name, (item.name, *shared)))
    return parts + [(group.name, (group.name,)) for group in groups]


def _report(ledger: Ledger, settings: Settings, subjects: Iterable[str]) -> None:
    """Write the reports of subjects; a report that fails is a failure of the run."""
    from qsmflow.report import build_report

    out_dir = Path(settings.bids.output_dir)
    subjects = [name for name in dict.fromkeys(subjects) if name.startswith('sub-')]
    ledger.expect(*(f'{name} report' for name in subjects))
    for name in subjects:
        status = [
            dataclasses.asdict(outcome)
            for outcome in ledger.unfinished()
            if outcome.subject == name and outcome.name != f'{name} report'
        ]
        status += [
            {'name': 'this run', 'status': 'note', 'reason': str(finding)}
            for finding in ledger.notes
            if finding.file.partition('/')[0] == name or not finding.file.startswith('sub-')
        ]
        try:
            path = build_report(out_dir, name, _run_info(settings), status)
            _LOGGER.info('report: %s', path)
            ledger.put(Outcome(f'{name} report', 'done'))
        except (OSError, ValueError, KeyError) as error:
            _LOGGER.exception('the report of %s failed', name)
            ledger.put(Outcome(f'{name} report', 'failed', str(error)))


def _run_info(settings: Settings) -> dict:
    """Return what the report says about the run as a whole."""
    return {
        'version': __version__,
        'run_uuid': settings.execution.run_uuid,
        'settings': settings.to_toml(),
    }
