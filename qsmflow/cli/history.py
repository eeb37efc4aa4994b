"""With which version and methods, and from which dataset, the results in a folder were made.

Results of one folder are compared with each other, so they must have come about in one way. A
small record for each subject tells how.
"""

import json
import logging
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from qsmflow import __version__
from qsmflow.algorithms.catalog import STAGES
from qsmflow.bids.derivatives import write_json
from qsmflow.bids.findings import EXIT_USAGE, DatasetError, Finding
from qsmflow.bids.series import GRESeries
from qsmflow.cli import origin
from qsmflow.settings import Settings

_LOGGER = logging.getLogger('qsmflow.cli')
_NAME = re.compile(r'sub-(.+)_settings\.json')
#: Settings that describe how, and not what for: they hold for a whole study. Others, such as
#: ``phase_sign`` and ``mask``, say what is true of one acquisition.
_METHOD = (*STAGES, 'params', 'unwrapping_fallback', 'mask_method', 'reference', 'echoes')


def method_settings(settings: Settings) -> dict[str, Any]:
    """Return the settings that all results of a study must share, as JSON knows them.

    Parameters
    ----------
    settings : Settings
        Settings of a run.

    Returns
    -------
    dict
        Methods and parameters of all stages, and what else changes numbers. Input facts, what is
        written, and how the machine is used, are no part of it.
    """
    found = {name: getattr(settings.reconstruction, name) for name in _METHOD}
    found['random_seed'] = settings.execution.random_seed
    if settings.execution.sloppy:
        found['sloppy'] = True
    return json.loads(json.dumps(found))


def require_one_method(
    out_dir: str | Path, subjects: list[str], settings: Settings
) -> tuple[Finding, ...]:
    """Refuse to mix results of different methods or datasets, and tell what else is old.

    Parameters
    ----------
    out_dir : path-like
        Output folder.
    subjects : list of str
        Labels that are going to be processed.
    settings : Settings
        Settings of this run.

    Returns
    -------
    tuple of Finding
        ``E97``, as warnings: results of another version, results that will be replaced, and
        results that may come from another dataset.

    Raises
    ------
    DatasetError
        If results of other subjects were made by other methods or from another dataset, unless
        the settings allow it; or if the folder is that of another program or a raw dataset. Exit
        code 2.
    """
    out_dir = Path(out_dir)
    require_own(out_dir)
    records = read_records(out_dir)
    return (
        *_other_methods(out_dir, records, subjects, settings),
        *_other_datasets(out_dir, records, subjects, settings),
        *_old_versions(out_dir, records),
    )


def _other_methods(
    out_dir: Path, records: dict[str, dict], subjects: list[str], settings: Settings
) -> list[Finding]:
    """Tell of results by other methods; refuse where they would stay beside those of this run."""
    mine = method_settings(settings)
    others = {label: one for label, one in records.items() if one.get('Settings') != mine}
    findings = []
    kept = sorted(set(others) - set(subjects))
    if kept:
        message = f'results of {_names(kept)} were made by other methods than this run uses'
        changes = _changes(others[kept[0]].get('Settings') or {}, mine)
        remedy = (
            'Use another output folder; or repeat the earlier settings, with --config-file '
            'and the qsmflow.toml of that run in logs/; or process all subjects in one run, '
            'which replaces everything; or insist with --allow-mixed-settings.'
        )
        findings.append(_mixed(settings, message, out_dir, changes, remedy))
    replaced = sorted(set(others) & set(subjects))
    if replaced:
        message = f'results of {_names(replaced)} were made by other methods and are replaced'
        changes = _changes(others[replaced[0]].get('Settings') or {}, mine)
        findings.append(_replaced(message, out_dir, changes))
    return findings


def _other_datasets(
    out_dir: Path, records: dict[str, dict], subjects: list[str], settings: Settings
) -> list[Finding]:
    """Tell of results from another dataset; refuse where they would stay beside those of this run.

    The sources of all results are named by one link, which is that of this run.
    """
    bids_dir = settings.bids.bids_dir
    now = origin.describe(bids_dir) if bids_dir else {}
    found = origin.compare(_origins(records), bids_dir) if bids_dir else {}
    findings = []
    other = found.get('other', [])
    kept = [label for label in other if label not in subjects]
    if kept:
        message = f'results of {_names(kept)} were made from another dataset than {bids_dir}'
        changes = _changes(_described(records[kept[0]]), now, 'none')
        remedy = (
            'Use an output folder for each dataset; or insist with --allow-mixed-settings: the '
            'Sources of the earlier results will then name the wrong dataset.'
        )
        findings.append(_mixed(settings, message, out_dir, changes, remedy))
    replaced = [label for label in other if label in subjects]
    if replaced:
        message = f'results of {_names(replaced)} were made from another dataset and are replaced'
        changes = _changes(_described(records[replaced[0]]), now, 'none')
        findings.append(_replaced(message, out_dir, changes))
    unsure = [label for label in found.get('unsure', []) if label not in subjects]
    if unsure:
        message = (
            f'results of {_names(unsure)} may come from another dataset than {bids_dir}: the '
            'images that they were made from are not there, or have changed'
        )
        remedy = 'If so, use an output folder for each dataset.'
        findings.append(Finding('E97', 'WARN', message, str(out_dir), remedy=remedy))
    return findings


def _mixed(
    settings: Settings, message: str, out_dir: Path, changes: list[str], remedy: str
) -> Finding:
    """Refuse a mixture, or return what is said of it if the user insists."""
    evidence = {'before -> now': changes}
    if settings.execution.allow_mixed_settings:
        remedy = 'Do not compare them with each other.'
        return Finding('E97', 'WARN', message, str(out_dir), evidence, remedy)
    finding = Finding('E97', 'FATAL', message, str(out_dir), evidence, remedy)
    raise DatasetError([finding], EXIT_USAGE)


def _replaced(message: str, out_dir: Path, changes: list[str]) -> Finding:
    remedy = 'Files that this run does not make stay; delete the folder first to be rid of them.'
    return Finding('E97', 'WARN', message, str(out_dir), {'before -> now': changes}, remedy)


def write_record(
    out_dir: str | Path, subject: str, settings: Settings, series: Iterable[GRESeries] = ()
) -> None:
    """Take down the version, the methods and the dataset of a subject's results.

    Parameters
    ----------
    out_dir : path-like
        Output folder.
    subject : str
        Label.
    settings : Settings
        Settings of this run.
    series : iterable of GRESeries, optional
        Those of the subject.
    """
    content = {
        'Version': __version__,
        'Settings': method_settings(settings),
        'Dataset': origin.origin(settings.bids.bids_dir, series),
    }
    write_json(_folder(out_dir) / f'sub-{subject}_settings.json', content)


def read_records(out_dir: str | Path) -> dict[str, dict]:
    """Return the record of each subject; one that cannot be read is left out with a warning."""
    records = {}
    for path in sorted(_folder(out_dir).glob('sub-*_settings.json')):
        try:
            content = json.loads(path.read_text(encoding='utf-8'))
            records[_NAME.fullmatch(path.name)[1]] = dict(content)
        except (OSError, ValueError, TypeError) as error:
            _LOGGER.warning('%s cannot be read and is ignored (%s)', path, error)
    return records


def mixture(out_dir: str | Path, bids_dir: str | Path = '') -> tuple[Finding, ...]:
    """Return ``E97`` if the results of an output folder did not all come about in one way.

    Parameters
    ----------
    out_dir : path-like
        Output folder.
    bids_dir : path-like, optional
        Dataset that they should come from.
    """
    records = read_records(out_dir)
    kinds = {json.dumps(one.get('Settings'), sort_keys=True) for one in records.values()}
    versions = sorted({str(one.get('Version')) for one in records.values()})
    findings = []
    remedy = 'Process all subjects again in the same way before comparing them.'
    if len(kinds) > 1:
        message = f'the results were made by {len(kinds)} different choices of methods'
        findings.append(Finding('E97', 'WARN', message, str(out_dir), remedy=remedy))
    if len(versions) > 1:
        message = f'the results were made by versions {", ".join(versions)}'
        findings.append(Finding('E97', 'WARN', message, str(out_dir), remedy=remedy))
    other = origin.compare(_origins(records), bids_dir)['other'] if str(bids_dir) else []
    if other:
        message = f'results of {_names(other)} were made from another dataset than {bids_dir}'
        remedy = 'Use an output folder for each dataset.'
        findings.append(Finding('E97', 'WARN', message, str(out_dir), remedy=remedy))
    return tuple(findings)


def _origins(records: dict[str, dict]) -> dict[str, dict]:
    """Return what was kept of the dataset of each subject's results; nothing in old records."""
    kept = {label: one.get('Dataset') for label, one in records.items()}
    return {label: one for label, one in kept.items() if isinstance(one, dict)}


def _described(record: dict) -> dict:
    return {key: text for key, text in record['Dataset'].items() if key != 'Images'}


def _folder(out_dir: str | Path) -> Path:
    return Path(out_dir) / 'logs'


def _old_versions(out_dir: Path, records: dict[str, dict]) -> list[Finding]:
    old = {label: str(one.get('Version')) for label, one in records.items()}
    old = {label: version for label, version in old.items() if version != __version__}
    if not records and any(out_dir.glob('sub-*/')):
        version = next(iter(_generators(out_dir).values()), __version__)
        old = {} if version == __version__ else {'all': version}
    if not old:
        return []
    versions = ', '.join(sorted(set(old.values())))
    message = f'there are results of version {versions} here, and this is {__version__}'
    remedy = 'Process a whole study with one version; CHANGES.md says what changes in numbers.'
    return [Finding('E97', 'WARN', message, str(out_dir), {'subjects': len(old)}, remedy)]


def require_own(out_dir: str | Path) -> None:
    """Refuse to write into a folder that holds a dataset of another kind.

    Raises
    ------
    DatasetError
        ``E97``, with exit code 2, if its ``dataset_description.json`` is that of another program
        or of a raw dataset.
    """
    out_dir = Path(out_dir)
    path = out_dir / 'dataset_description.json'
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError):
        return
    generators = _generators(out_dir)
    if isinstance(content, dict) and not generators:
        what = 'a raw dataset' if content.get('DatasetType', 'raw') == 'raw' else 'a dataset'
    elif generators and 'qsmflow' not in generators:
        what = f'the results of {", ".join(generators)}'
    else:
        return
    remedy = f'Give a folder of its own, such as {out_dir / "qsmflow"}.'
    message = f'the output folder holds {what}, whose files would be overwritten'
    raise DatasetError([Finding('E97', 'FATAL', message, str(path), remedy=remedy)], EXIT_USAGE)


def _generators(out_dir: Path) -> dict[str, str]:
    """Return names and versions of the programs that a dataset says it was made by."""
    try:
        content = json.loads((out_dir / 'dataset_description.json').read_text(encoding='utf-8'))
        made_by = content.get('GeneratedBy') or []
        return {str(one.get('Name')): str(one.get('Version', '?')) for one in made_by}
    except (OSError, ValueError, AttributeError):
        return {}


def _changes(before: dict, now: dict, absent: str = 'default') -> list[str]:
    """Say what differs, a setting at a time."""
    before, now = _flat(before), _flat(now)
    return [
        f'{key}: {before.get(key, absent)} -> {now.get(key, absent)}'
        for key in sorted({*before, *now})
        if before.get(key) != now.get(key)
    ]


def _flat(content: dict, prefix: str = '') -> dict[str, str]:
    found = {}
    for key, value in content.items():
        if isinstance(value, dict):
            found |= _flat(value, f'{prefix}{key}.')
        else:
            found[f'{prefix}{key}'] = str(value)
    return found


def _names(labels: list[str]) -> str:
    shown = ', '.join(f'sub-{label}' for label in labels[:5])
    return shown + (f' and {len(labels) - 5} more' if len(labels) > 5 else '')
