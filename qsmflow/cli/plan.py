"""What is read and checked with the settings at hand, and how the plan is shown."""

import dataclasses
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qsmflow import bids
from qsmflow.bids import (
    Collection,
    DatasetError,
    Finding,
    plan_as_dict,
    refusal_as_dict,
    render_plan,
)
from qsmflow.bids.checks_mask import with_mask
from qsmflow.bids.filters import read_filter_file
from qsmflow.files import completed
from qsmflow.settings import Settings


def collected(settings: Settings) -> Collection:
    """Read the dataset and check what the settings select of it.

    Parameters
    ----------
    settings : Settings
        Settings of the run.

    Returns
    -------
    Collection
        Checked by what the dataset and its files tell; see :func:`checked`.

    Raises
    ------
    DatasetError
        If nothing can start: a wrong request, or a dataset without gradient-echo data.
    """
    given, recon = settings.bids, settings.reconstruction
    queries = given.bids_filter_file
    return bids.collect(
        bids_dir=given.bids_dir,
        participant_label=list(given.participant_label) or None,
        session_label=list(given.session_label) or None,
        acq_label=list(given.acq_label) or None,
        run_label=list(given.run_label) or None,
        bids_filter=read_filter_file(queries) if queries else None,
        database_dir=given.bids_database_dir,
        phase_scale=recon.phase_scale,
        field_strength=recon.field_strength,
        b0_dir=recon.b0_vector,
        echoes=list(recon.echoes) or None,
        volume_index=recon.volume_index,
        force=list(recon.force),
        need_description=not given.skip_bids_validation,
        derivatives=dict(given.derivatives),
    )


def checked(collection: Collection, settings: Settings) -> Collection:
    """Return a collection after the checks that need more than the dataset.

    Parameters
    ----------
    collection : Collection
        What the dataset gave.
    settings : Settings
        Settings of the run.

    Returns
    -------
    Collection
        With the mask of the command line, if there is one; series that do not fit into the
        memory (``C76``), or lack the echoes that a setting needs (``B41``), are among ``failed``.
    """
    if settings.reconstruction.mask not in ('auto', 'derivatives'):
        collection = with_mask(collection, settings.reconstruction.mask)
    series, failed = [], []
    for item in collection.series:
        found = [check(item, settings) for check in (memory_finding, bipolar_finding)]
        findings = (*item.findings, *(finding for finding in found if finding is not None))
        if any(finding.stops for finding in findings):
            failed.append((item.name, findings))
        else:
            series.append(dataclasses.replace(item, findings=findings))
    return dataclasses.replace(
        collection, series=tuple(series), failed=(*collection.failed, *failed)
    )


def memory_finding(series, settings: Settings) -> Finding | None:
    """Say that a series does not fit into the memory of the run (``C76``).

    With ``--low-mem`` it is tried nevertheless, and with a plugin of the user's own the memory is
    not that of this machine.
    """
    from qsmflow.workflows.base import estimated_memory

    if settings.execution.plugin_file:
        return None
    limit = settings.resources.mem_gb
    needed = estimated_memory(series, settings)
    step = max(needed, key=needed.get)
    if needed[step] <= limit:
        return None
    evidence = {
        'step': step.replace('_', ' '),
        'needed_gb': needed[step],
        'limit_gb': round(limit, 2),
        'shape': list(series.shape),
        'echoes': len(series.te),
    }
    name = series.sources[0].partition('raw:')[2]
    if settings.resources.low_mem:
        message = 'a step may need more memory than there is; it is tried because of --low-mem'
        remedy = 'Should it be killed, allow more with --mem, or choose a method that needs less.'
        return Finding('C76', 'WARN', message, name, evidence, remedy)
    message = f'a step needs about {needed[step]:.2f} GB; the run may use {limit:.2f} GB'
    remedy = (
        'Allow more with --mem if the machine has it, or choose a method that needs less. '
        '--low-mem tries even steps that seem not to fit, one at a time.'
    )
    return Finding('C76', 'ERROR', message, name, evidence, remedy)


def bipolar_finding(series, settings: Settings) -> Finding | None:
    """Say that the correction of a bipolar readout is insisted on and not possible (``B41``)."""
    from qsmflow.workflows.field import untested_reason

    if settings.reconstruction.bipolar != 'on' or not series.has_phase:
        return None
    reason = untested_reason('auto', list(series.te), list(series.echo_numbers))
    if not reason:
        return None
    message = f'a bipolar readout cannot be corrected as --bipolar on asks for: {reason}'
    name = series.sources[0].partition('raw:')[2]
    evidence = {'echoes': len(series.te), 'echo_numbers': list(series.echo_numbers)}
    remedy = 'Choose --bipolar auto or off, use more echoes, or leave this acquisition out.'
    return Finding('B41', 'ERROR', message, name, evidence, remedy)


def against_output(collection: Collection, settings: Settings) -> Collection:
    """Return a collection with what a run would say of the results in the output folder.

    Nothing is written. What may be otherwise when the run begins is not looked at: room, and other
    runs.

    Parameters
    ----------
    collection : Collection
        After all other checks.
    settings : Settings
        Settings of the run.

    Raises
    ------
    DatasetError
        ``E97`` or ``E99``, as the run would; after the plan was shown with it.
    """
    from qsmflow.cli.history import require_one_method
    from qsmflow.cli.space import require_access

    subjects = list(dict.fromkeys(item.subject for item in collection.series))
    out_dir, work_dir = settings.bids.output_dir, settings.execution.work_dir
    try:
        require_access(out_dir, work_dir, subjects)
        found = require_one_method(out_dir, subjects, settings)
    except DatasetError as error:
        refused = dataclasses.replace(collection, findings=(*collection.findings, *error.findings))
        show(refused, settings, error.exit_code)
        raise
    return dataclasses.replace(collection, findings=(*collection.findings, *found))


def show(collection: Collection, settings: Settings, exit_code: int | None = None) -> None:
    """Print the plan, or write it as JSON.

    Parameters
    ----------
    collection : Collection
        What was found.
    settings : Settings
        Settings of the run.
    exit_code : int, optional
        With which the program ends, if the collection alone does not tell.
    """
    target = settings.execution.dry_run_json
    if target is not None:
        content = plan_as_dict(collection)
        if exit_code is not None:
            content['exit_code'] = exit_code
        _write(content, target)
    if target != '-':
        print_text(render_plan(collection) + '\n')


@contextmanager
def refusals_told(settings: Settings) -> Iterator[None]:
    """Write the reason as JSON, if that was asked for, when nothing can start."""
    try:
        yield
    except DatasetError as error:
        target = settings.execution.dry_run_json
        if target is not None:
            _write(refusal_as_dict(error, settings.bids.bids_dir), target)
        raise


def _write(content: dict, target: str) -> None:
    text = json.dumps(content, indent=2, ensure_ascii=False) + '\n'
    if target == '-':
        print_text(text)
        return
    with completed(Path(target)) as partial:
        partial.write_text(text, encoding='utf-8')


def print_text(text: str) -> None:
    """Write to standard output; a reader that has gone, as of ``| head``, is no error."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        # What Python still holds would raise again when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
