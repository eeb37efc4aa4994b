"""The group level: one table and one page over all subjects, or over those that are asked for."""

import logging
from collections.abc import Mapping
from pathlib import Path

from qsmflow.settings import Settings
from qsmflow.settings.groups import BIDSSettings

#: Entity -> the setting that holds the labels to take, and what messages call it.
_LABELS = {
    'sub': ('participant_label', 'participant'),
    'ses': ('session_label', 'session'),
    'acq': ('acq_label', 'acquisition'),
    'run': ('run_label', 'run'),
}
_LOGGER = logging.getLogger('qsmflow.cli')


class NothingToGroupError(RuntimeError):
    """There are no region tables to put together."""

    exit_code = 65


def run(settings: Settings) -> int:
    """Put the region tables of all subjects together, or say what would be.

    Parameters
    ----------
    settings : Settings
        Input and output folder, labels, and whether this is a dry run.

    Returns
    -------
    int
        0.

    Raises
    ------
    DatasetError
        With exit code 2: ``E97`` if the output folder is that of another program; ``E91`` if a
        label is in none of the tables, which names the nearest.
    NothingToGroupError
        If the output folder holds no region table of the series that are asked for.
    """
    from qsmflow.cli.history import mixture, require_own
    from qsmflow.report import build_group
    from qsmflow.report.group import find_tables

    out_dir = Path(settings.bids.output_dir)
    require_own(out_dir)
    labels = chosen_labels(settings.bids, find_tables(out_dir))
    tables = find_tables(out_dir, labels)
    if not tables:
        which = ' of these labels' if labels else ''
        raise NothingToGroupError(
            f'{out_dir} holds no region table{which} (sub-*/**/anat/*_atlas-*_stats.tsv). Run the '
            'participant level on this folder first.'
        )
    mixed = [str(finding) for finding in mixture(out_dir, settings.bids.bids_dir)]
    for text in mixed:
        _LOGGER.warning('%s', text)
    if settings.execution.dry_run:
        _show(tables, out_dir)
        return 0
    participants = Path(settings.bids.bids_dir) / 'participants.tsv'
    info = {'warning': ' '.join(mixed), 'only': _shown(labels)}
    participants = participants if participants.is_file() else None
    for path in build_group(out_dir, participants, info, labels):
        _LOGGER.info('wrote %s', path)
    return 0


def chosen_labels(given: BIDSSettings, tables: Mapping) -> dict[str, list[str]]:
    """Check the labels that are asked for against those that the tables have.

    Parameters
    ----------
    given : BIDSSettings
        Labels; empty for all.
    tables : mapping
        Result of :func:`qsmflow.report.group.find_tables`.

    Returns
    -------
    dict of str to list of str
        Entity -> labels, for those entities that are asked for.

    Raises
    ------
    DatasetError
        ``E91`` with exit code 2, if a label is in none of the tables.
    """
    series = [entities for found in tables.values() for _, entities in found]
    chosen = {}
    for entity, (setting, what) in _LABELS.items():
        wanted = [label.removeprefix(f'{entity}-') for label in getattr(given, setting)]
        if wanted and series:
            there = {one[entity] for one in series if entity in one}
            if entity == 'run':  # run-01 and run-1 are one label to its user
                padded = {_number(label): label for label in there}
                wanted = [padded.get(_number(label), label) for label in wanted]
            _require_labels(wanted, there, what, given.output_dir)
            chosen[entity] = wanted
            series = [one for one in series if one.get(entity) in wanted]
    return chosen


def _number(label: str) -> str:
    return label.lstrip('0') or '0'


def _require_labels(wanted: list[str], there: set[str], what: str, out_dir: str) -> None:
    from qsmflow.bids.findings import EXIT_USAGE, DatasetError, Finding, suggestion

    findings = [
        Finding(
            *('E91', 'FATAL', f'no region table has the {what} {label!r}', out_dir),
            remedy=suggestion(label, there, what),
        )
        for label in wanted
        if label not in there
    ]
    if findings:
        raise DatasetError(findings, EXIT_USAGE)


def _show(tables: Mapping, out_dir: Path) -> None:
    """Print which tables would be written, and from which series."""
    from qsmflow.cli.plan import print_text

    lines = [f'The group level would write into {out_dir}:', '']
    for atlas, found in sorted(tables.items()):
        names = [path.name.partition('_atlas-')[0] for path, _ in found]
        lines += [f'group_atlas-{atlas}_stats.tsv, of {len(names)} series:']
        lines += [f'  {name}' for name in names]
    lines += ['group.html', '', 'Nothing was written.']
    print_text('\n'.join(lines) + '\n')


def _shown(labels: Mapping[str, list[str]]) -> str:
    """Write the labels for the head of the page."""
    return '; '.join(
        ', '.join(f'{entity}-{label}' for label in wanted) for entity, wanted in labels.items()
    )
