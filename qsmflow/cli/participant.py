"""The participant level: from a dataset to maps, tables and one report per subject."""

import csv
import dataclasses
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path

from qsmflow import __version__
from qsmflow.bids.findings import Finding
from qsmflow.cli.progress import shared_group
from qsmflow.files import completed
from qsmflow.settings import Settings, SettingsError

_LOGGER = logging.getLogger('qsmflow.cli')


@dataclass(frozen=True)
class Outcome:
    """How one series, or the report of a subject, ended.

    Attributes
    ----------
    name : str
        Series or COSMOS map, as in file names; or ``sub-<label>`` for what belongs to a subject.
    status : {'done', 'failed', 'not started', 'interrupted'}
        ``'not started'`` when a check of the input stopped it.
    reason : str
        Empty when done.
    """

    name: str
    status: str
    reason: str = ''


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
        If there is no series at all, or a label does not exist.
    SettingsError
        If a series does not have the echoes that a setting needs.
    """
    from qsmflow.cli import texts

    if settings.execution.reports_only:
        return texts.rebuild_reports(settings)
    from qsmflow.bids import collect
    from qsmflow.bids.companions import require_masks
    from qsmflow.bids.orientations import with_orientations
    from qsmflow.cli import plan
    from qsmflow.cli.validation import validated

    with plan.refusals_told(settings):
        collection = collect(**_selection(settings))
    if settings.reconstruction.mask == 'derivatives':
        collection = require_masks(collection)
    if settings.reconstruction.cosmos:
        collection = with_orientations(collection)
    if settings.execution.sloppy:
        collection = _noted(collection, SLOPPY)
    if not settings.bids.skip_bids_validation:
        collection = validated(collection)
    collection = plan.checked(collection, settings)
    plan.show(collection, settings)
    if settings.reconstruction.bipolar == 'on':
        _require_bipolar(collection.series)
    outcomes = [
        Outcome(name, 'not started', '; '.join(str(item) for item in findings if item.stops))
        for name, findings in collection.failed
    ]
    if settings.execution.dry_run or not (outcomes or collection.series):
        return collection.exit_code
    if settings.execution.boilerplate_only:
        return texts.only_methods(collection, settings)
    log_dir = _start_output(settings)
    if collection.series:
        outcomes += _process(collection, settings, log_dir, outcomes)
        outcomes += _report(collection, settings)
    _write_status(outcomes, log_dir / 'status.tsv')
    failed = [outcome for outcome in outcomes if outcome.status != 'done']
    for outcome in failed:
        _LOGGER.error('%s: %s (%s)', outcome.name, outcome.status, outcome.reason)
    if not collection.series:
        return collection.exit_code
    return 1 if failed else 0


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


def _require_bipolar(series) -> None:
    """Check that the correction of a bipolar readout, if insisted on, is possible everywhere."""
    from qsmflow.workflows.field import untested_reason

    for item in series:
        try:
            untested_reason('on', list(item.te), list(item.echo_numbers))
        except ValueError as error:
            raise SettingsError(f'argument --bipolar: {item.name}: {error}') from error


def _selection(settings: Settings) -> dict:
    """Return the arguments of ``collect``."""
    from qsmflow.bids.filters import read_filter_file

    bids, recon = settings.bids, settings.reconstruction
    filter_file = bids.bids_filter_file
    return {
        'bids_dir': bids.bids_dir,
        'participant_label': list(bids.participant_label) or None,
        'session_label': list(bids.session_label) or None,
        'acq_label': list(bids.acq_label) or None,
        'run_label': list(bids.run_label) or None,
        'bids_filter': read_filter_file(filter_file) if filter_file else None,
        'database_dir': bids.bids_database_dir,
        'phase_scale': recon.phase_scale,
        'field_strength': recon.field_strength,
        'b0_dir': recon.b0_vector,
        'echoes': list(recon.echoes) or None,
        'derivatives': dict(bids.derivatives),
    }


def _start_output(settings: Settings) -> Path:
    """Write what describes the output, and return the folder of this run's logs."""
    from qsmflow.atlas import write_descriptions
    from qsmflow.bids import write_dataset_files

    out_dir = Path(settings.bids.output_dir)
    links = dict(settings.bids.derivatives)
    write_dataset_files(out_dir, settings.bids.bids_dir, __version__, links=links)
    write_descriptions(settings.outputs.atlas, out_dir)
    log_dir = out_dir / 'logs' / settings.execution.run_uuid
    log_dir.mkdir(parents=True, exist_ok=True)
    (log_dir / 'qsmflow.toml').write_text(settings.to_toml(), encoding='utf-8')
    return log_dir


def _process(
    collection, settings: Settings, log_dir: Path, earlier: list[Outcome]
) -> list[Outcome]:
    """Build the graph, run it, and say how each series ended.

    When the run is interrupted, the status so far is written, ``earlier`` outcomes first.
    """
    from qsmflow.bids.orientations import orientation_groups
    from qsmflow.cli.execution import configure_nipype, make_monitor, run_graph
    from qsmflow.cli.texts import write_methods
    from qsmflow.workflows.base import init_qsmflow_wf

    work_dir = Path(settings.execution.work_dir)
    if settings.execution.clean_workdir and work_dir.is_dir():
        for old in work_dir.glob('qsmflow-*'):
            shutil.rmtree(old)
    # Hashes cover a node's inputs, not our code: another version starts in a folder of its own.
    base_dir = work_dir / f'qsmflow-{__version__}'
    base_dir.mkdir(parents=True, exist_ok=True)
    configure_nipype(settings, log_dir)
    workflow = init_qsmflow_wf(
        series=collection.series, settings=settings, out_dir=settings.bids.output_dir
    )
    workflow.base_dir = str(base_dir)
    if settings.execution.write_graph:
        workflow.write_graph(str(log_dir / 'graph.dot'), graph2use='colored', simple_form=True)
    write_methods(workflow, settings)
    groups = orientation_groups(collection.series) if settings.reconstruction.cosmos else ()
    groups = [group for group in groups if group.enough]
    monitor = make_monitor(workflow, settings)
    try:
        failures = run_graph(workflow, settings, log_dir, monitor)
    except BaseException as error:
        reason = f'{type(error).__name__}: {error}'
        outcomes = [
            _interrupted(name, needed, monitor, reason)
            for name, needed in _parts(collection.series, groups)
        ]
        _write_status([*earlier, *outcomes], log_dir / 'status.tsv')
        raise
    outcomes = [_outcome(name, needed, failures) for name, needed in _parts(collection.series)]
    return outcomes + [_cosmos_outcome(group, failures) for group in groups]


def _outcome(name: str, needed: tuple[str, ...], failures) -> Outcome:
    """Say how a series ended, and log the nodes that failed."""
    own = [item for item in failures if item.group in needed]
    for item in own:
        message = '%s: %s failed: %s (%s)'
        _LOGGER.error(message, name, item.node, item.reason, item.crash_file)
        _LOGGER.debug('%s', Path(item.crash_file).read_text(encoding='utf-8', errors='replace'))
    reason = '; '.join(f'{item.node}: {item.reason}' for item in own)
    return Outcome(name, 'failed' if own else 'done', reason)


def _cosmos_outcome(group, failures) -> Outcome:
    """Say how a COSMOS map ended: it is not begun where a reconstruction that it needs failed."""
    series = {item.name for item in group.series}
    lost = [
        item for item in failures if item.group in series and '.reconstruction_wf.' in item.node
    ]
    if lost:
        names = ', '.join(sorted({item.group for item in lost}))
        return Outcome(group.name, 'failed', f'not made: the reconstruction of {names} failed')
    return _outcome(group.name, (group.name,), failures)


def _interrupted(name: str, needed: tuple[str, ...], monitor, reason: str) -> Outcome:
    """Say whether a series or COSMOS map was complete when the run ended early."""
    if all(monitor.complete(group) for group in needed):
        return Outcome(name, 'done')
    return Outcome(name, 'interrupted', reason)


def _parts(series, groups=()) -> list[tuple[str, tuple[str, ...]]]:
    """Return each series and COSMOS map by its name, with the groups of nodes that it needs."""
    parts = []
    for item in series:
        shared = (shared_group(f'sub-{item.subject}'),) if item.t1w else ()
        parts.append((item.name, (item.name, *shared)))
    return parts + [(group.name, (group.name,)) for group in groups]


def _report(collection, settings: Settings) -> list[Outcome]:
    """Write the report of each subject; a report that fails is a failure of the run."""
    from qsmflow.report import build_report

    out_dir = Path(settings.bids.output_dir)
    outcomes = []
    for subject in dict.fromkeys(series.subject for series in collection.series):
        try:
            path = build_report(out_dir, subject, _run_info(settings))
            _LOGGER.info('report: %s', path)
            outcomes.append(Outcome(f'sub-{subject} report', 'done'))
        except (OSError, ValueError, KeyError) as error:
            _LOGGER.exception('the report of sub-%s failed', subject)
            outcomes.append(Outcome(f'sub-{subject} report', 'failed', str(error)))
    return outcomes


def _run_info(settings: Settings) -> dict:
    """Return what the report says about the run as a whole."""
    return {
        'version': __version__,
        'run_uuid': settings.execution.run_uuid,
        'settings': settings.to_toml(),
    }


def _write_status(outcomes: list[Outcome], path: Path) -> None:
    """Write one line for each series and report; ``path`` appears when it is complete."""
    with completed(path) as partial, partial.open('w', encoding='utf-8', newline='') as stream:
        writer = csv.writer(stream, delimiter='\t', lineterminator='\n')
        writer.writerow(['name', 'status', 'reason'])
        for outcome in outcomes:
            reason = ' '.join(outcome.reason.split()) or 'n/a'
            writer.writerow([outcome.name, outcome.status, reason])
