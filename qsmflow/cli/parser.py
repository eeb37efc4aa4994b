"""From the command line to settings: reading, merging and checking what was given."""

import contextlib
import os
import re
import shlex
import sys
import uuid
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from qsmflow.cli.config_file import atlases, params_that_hold, read_config
from qsmflow.cli.hints import option_hint
from qsmflow.cli.options import STAGE_OPTIONS, build_parser
from qsmflow.cli.usage import refusal
from qsmflow.cli.workdir import is_hidden_in, uses_work_folder, version_folder
from qsmflow.settings import Settings, SettingsError, nearest

#: Dashes that word processors make of ``-``.
_TYPOGRAPHIC_DASHES = '‐‑‒–—―−'
#: Options that the group level cannot follow, and why.
_NOT_FOR_GROUP = {
    'execution.reports_only': 'each run of it makes its page anew. Leave the option out',
    'execution.boilerplate_only': 'it has no methods text. Run the participant level with it',
    'execution.dry_run_json': 'it checks no images. Give --dry-run, which prints the tables',
    'bids.bids_filter_file': 'it reads region tables, no images. Choose them by labels, such as '
    '--participant-label and --session-label',
}


class MissingToolError(RuntimeError):
    """A tool or an optional package is not installed.

    Attributes
    ----------
    exit_code : int
        Exit status of the command line: 127.
    """

    exit_code = 127


def parse_args(argv: list[str] | None = None, notes: list[str] | None = None) -> Settings:
    """Turn the command line into settings.

    Parameters
    ----------
    argv : list of str, optional
        Arguments without the program's name; those of the process by default.
    notes : list of str, optional
        Gets what the log is to say, which is set up by the settings that are returned.

    Returns
    -------
    Settings
        Effective settings: defaults, then the preset, then the configuration file, then the
        command line.

    Raises
    ------
    SystemExit
        With code 2 after a usage error, whose message names the option, or 0 after ``--help``
        and ``--version``.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = build_parser()
    _check_dashes(parser, argv)
    namespace, unknown = parser.parse_known_args(argv)
    if unknown:
        _report_unknown(parser, unknown)
    given = vars(namespace)
    notes = [] if notes is None else notes
    try:
        config = read_config(given.get('config_file'))
    except SettingsError as error:
        parser.error(str(error))
    name = _naming(parser, argv, config)
    try:
        settings = Settings.from_dict(_merge(config, given, notes))
    except SettingsError as error:
        parser.error(_in_words_of_options(str(error), parser, name))
    _check_inputs(parser, settings)
    _check_level(parser, settings, given, name)
    _check_folders(parser, settings)
    return settings


def check_methods(settings: Settings) -> None:
    """Check what only the algorithms know: method parameters, phase scale and atlas names.

    This imports them, so it is apart from :func:`parse_args`.

    Raises
    ------
    SystemExit
        With code 2; the message names the option.
    MissingToolError
        If a method needs a package that is not installed.
    """
    from importlib.util import find_spec

    from qsmflow import algorithms

    parser = build_parser()
    recon = settings.reconstruction
    _check_files(settings)
    if recon.mask_method == 'deepbet' and find_spec('deepbet') is None:
        raise MissingToolError(
            'argument --mask-method: deepbet is not installed; pip install "qsmflow[deepbet]"'
        )
    for stage, params in recon.params.items():
        method = getattr(recon, stage)
        known = algorithms.method_parameters(stage, method) if params else {}
        for key in params:
            if key not in known:
                parser.error(
                    f'argument --{STAGE_OPTIONS[stage]}-param: {method} has no parameter {key!r}.'
                    f'{nearest(key, known)}'
                )
    if recon.phase_scale != 'auto':
        from qsmflow.algorithms.phase import parse_scaling

        try:
            parse_scaling(recon.phase_scale)
        except ValueError as error:
            parser.error(f'argument --phase-scale: {error}')
    names = [name for name in settings.outputs.atlas if not Path(name).exists()]
    if names:
        from qsmflow.atlas import builtin_atlases

        known = list(builtin_atlases())
        for name in names:
            if name not in known:
                parser.error(
                    f'argument --atlas: there is no atlas {name!r}.{nearest(name, known)}'
                )


def _check_files(settings: Settings) -> None:
    """Read the small files that options name: better now than after hours.

    Raises
    ------
    SettingsError, DatasetError
        With exit code 2; the message names the option and the file.
    """
    if settings.execution.plugin_file is not None:
        from qsmflow.cli.plugins import read_plugin_file

        read_plugin_file(settings.execution.plugin_file)
    if settings.bids.bids_filter_file is not None:
        from qsmflow.bids.filters import read_filter_file

        read_filter_file(settings.bids.bids_filter_file)


def _check_dashes(parser, argv) -> None:
    for text in argv:
        if text[:1] and text[0] in _TYPOGRAPHIC_DASHES:
            bare = text.lstrip(_TYPOGRAPHIC_DASHES + '-')
            message = f'{text!r} starts with a typographic dash, as made by word processors'
            remedy = f'Please type {"-" if len(bare) == 1 else "--"}{bare}.'
            parser.error(refusal('E91', message, remedy))


def _report_unknown(parser, unknown) -> None:
    known = [name for action in parser._actions for name in action.option_strings]
    known = [name for name in known if '_' not in name]
    flags = [text.partition('=')[0] for text in unknown if text.startswith('-')]
    if flags:
        hint = option_hint(flags[0], known).strip()
        parser.error(refusal('E91', f'there is no option {flags[0]}', hint))
    parser.error(f'unexpected {" ".join(unknown)!r}: three positional arguments are expected')


def typed_options(parser, argv: list[str]) -> dict[str, str]:
    """Return the options on a command line: the setting of each, and how it was written.

    Parameters
    ----------
    parser : argparse.ArgumentParser
        Result of :func:`qsmflow.cli.options.build_parser`.
    argv : list of str
        Arguments.

    Examples
    --------
    >>> typed_options(build_parser(), ['raw', 'out', 'participant', '--n_cpus=2'])
    {'resources.nprocs': '--n_cpus'}
    """
    settings = {flag: action.dest for action in parser._actions for flag in action.option_strings}
    flags = [word.partition('=')[0] for word in argv]
    return {settings[flag]: flag for flag in flags if flag in settings}


def _naming(parser, argv: list[str], config: dict) -> Callable[[str], str]:
    """Return what tells how the user has written a setting: an option, or a line of the file."""
    typed = typed_options(parser, argv)
    flags = {
        action.dest: flag
        for action in reversed(parser._actions)
        for flag in reversed(action.option_strings)
        if flag.startswith('--')
    }

    def name(key: str) -> str:
        group, _, setting = key.partition('.')
        in_file = key not in typed and setting in config.get(group, {})
        return key if in_file else typed.get(key, flags.get(key, key))

    return name


def _in_words_of_options(message: str, parser, name: Callable[[str], str]) -> str:
    """Write options in the place of settings, and their values as they are typed."""
    for key in {action.dest for action in parser._actions if '.' in action.dest}:
        if name(key) != key:
            value = rf"\b{re.escape(key)}\b(?: = '([^']*)')?"
            message = re.sub(value, lambda found: _with_value(name, found), message)
    return message


def _with_value(name: Callable[[str], str], found: re.Match) -> str:
    key = found[0].partition(' ')[0]
    return f'{name(key)} {found[1]}' if found[1] is not None else name(key)


def _merge(config: dict, given: dict, notes: list[str]) -> dict:
    """Lay the options over the configuration file, and fill what depends on the moment."""
    merged = {name: dict(content) for name, content in config.items()}
    if 'resources.nprocs' in given:
        # The number of threads in the file was chosen for another number of processors.
        merged.get('resources', {}).pop('omp_nthreads', None)
    for key, value in given.items():
        group, _, name = key.partition('.')
        content = merged.setdefault(group, {}) if name else {}
        if not name or name.startswith('params.'):
            continue
        if key == 'bids.derivatives':
            _check_names(value)
            content[name] = {**content.get(name, {}), **dict(value)}
        elif key == 'outputs.atlas':
            content[name] = atlases(value)
        elif isinstance(value, list):
            content[name] = list(dict.fromkeys(value))
        else:
            content[name] = value
    execution = merged.setdefault('execution', {})
    if execution.get('sloppy'):
        merged.setdefault('reconstruction', {}).setdefault('preset', 'fast')
    _merge_params(config, merged, given, notes)
    execution.setdefault('run_uuid', _new_run_uuid())
    if not execution.get('work_dir'):
        bids = merged['bids']
        execution['work_dir'] = _default_work_dir(bids['bids_dir'], bids['output_dir'])
    return merged


def _merge_params(config: dict, merged: dict, given: dict, notes: list[str]) -> None:
    """Lay parameters over those of the file, whose own hold for its own methods only."""
    recon = merged.setdefault('reconstruction', {})
    params, left_out = params_that_hold(config.get('reconstruction', {}), recon)
    for stage, before, after in left_out:
        lost = ', '.join(config['reconstruction']['params'][stage])
        notes.append(
            f'--{STAGE_OPTIONS[stage]} is {after}, and {before} in the settings file: its '
            f'parameters of {before} are left out ({lost})'
        )
    for stage in STAGE_OPTIONS:
        pairs = dict(given.get(f'reconstruction.params.{stage}', ()))
        if pairs:
            params[stage] = {**params.get(stage, {}), **pairs}
    recon['params'] = params


def _check_names(datasets: list[tuple[str, str]]) -> None:
    """Refuse two datasets of one name: one of them would be lost."""
    names = [name for name, _ in datasets]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice and len(set(datasets)) > len(set(names)):
        raise SettingsError(
            f'argument -d/--derivatives: {twice[0]!r} names two datasets; give each a name of its '
            'own, as in first=PATH second=PATH'
        )


def _new_run_uuid() -> str:
    return f'{datetime.now():%Y%m%d-%H%M%S}_{uuid.uuid4()}'


def _default_work_dir(bids_dir: str, output_dir: str) -> str:
    """Return ``./work``, or a hidden folder in the output where that is no place for it.

    So it is where the current folder is read-only, or lies in the dataset or in the results.
    """
    work = Path.cwd() / 'work'
    raw, out = Path(bids_dir).resolve(), Path(output_dir).resolve()
    if os.access(work.parent, os.W_OK) and not _misplaced_work(raw, out, work.resolve()):
        return str(work)
    return str(Path(output_dir) / '.work')


def _check_inputs(parser, settings: Settings) -> None:
    """Check files that a configuration file may name, which the options' own checks never saw."""
    mask, plugin = settings.reconstruction.mask, settings.execution.plugin_file
    queries = settings.bids.bids_filter_file
    if queries is not None and not Path(queries).is_file():
        parser.error(f'argument --bids-filter-file: there is no file {queries}')
    if mask not in ('auto', 'derivatives') and not Path(mask).is_file():
        parser.error(f'argument --mask: there is no file {mask}')
    if plugin is not None and not Path(plugin).is_file():
        parser.error(f'argument --use-plugin: there is no file {plugin}')
    for name, folder in settings.bids.derivatives.items():
        if name == 'raw' or not re.fullmatch(r'[A-Za-z0-9._-]+', name):
            parser.error(
                f'argument -d/--derivatives: {name!r} cannot be the name of a dataset: letters, '
                'digits, dots, dashes and underscores, and not raw, which is BIDS_DIR. Write '
                f'NAME=PATH, as in {shlex.quote(f"{_usable_name(name)}={folder}")}'
            )
        if not Path(folder).is_dir():
            parser.error(f'argument -d/--derivatives: {name}: there is no folder {folder}')


def _usable_name(name: str) -> str:
    usable = re.sub('[^A-Za-z0-9._-]+', '_', name).strip('_')
    return usable if usable not in ('', 'raw') else 'other'


def _check_level(parser, settings: Settings, given: dict, name: Callable[[str], str]) -> None:
    """Refuse at the group level what it would pass over."""
    if settings.bids.analysis_level != 'group':
        return
    for key, reason in _NOT_FOR_GROUP.items():
        group, _, setting = key.partition('.')
        # The filter of a settings file is that of the participant level, which has followed it.
        wanted = getattr(getattr(settings, group), setting)
        if wanted and (group == 'execution' or key in given):
            parser.error(f'argument {name(key)}: not possible at the group level: {reason}.')


def _check_folders(parser, settings: Settings) -> None:
    """Refuse output and work folder in the wrong place (``E96``); nothing is written before."""
    bids, execution = settings.bids, settings.execution
    raw, out, work = (
        Path(folder).resolve() for folder in (bids.bids_dir, bids.output_dir, execution.work_dir)
    )
    problem = _misplaced_output(raw, out)
    if uses_work_folder(settings):
        problem = problem or _misplaced_work(raw, out, work)
    for option, path in (
        ('--bids-database-dir', bids.bids_database_dir),
        ('--dry-run-json', execution.dry_run_json),
    ):
        if path not in (None, '', '-') and _lies_in(path, raw):
            message = f'{option} lies in the raw dataset, which is never written to'
            problem = problem or (str(path), message, 'Give another place.')
    if problem:
        where, message, remedy = problem
        target = execution.dry_run_json
        if target is not None and (target == '-' or not _lies_in(target, raw)):
            _write_refusal(settings, problem)
        parser.error(refusal('E96', message, remedy, where, {'BIDS_DIR': raw}))


def _lies_in(path: str, raw: Path) -> bool:
    return Path(path).resolve().is_relative_to(raw)


def _write_refusal(settings: Settings, problem: tuple[Path, str, str]) -> None:
    """Tell a program that asked for JSON why nothing can start (``E96``)."""
    from qsmflow.bids.findings import EXIT_USAGE, DatasetError, Finding
    from qsmflow.cli.plan import refusals_told

    where, message, remedy = problem
    evidence = {'BIDS_DIR': str(Path(settings.bids.bids_dir).resolve())}
    finding = Finding('E96', 'FATAL', message, str(where), evidence, remedy)
    with contextlib.suppress(DatasetError, OSError), refusals_told(settings):
        raise DatasetError([finding], EXIT_USAGE)


def _misplaced_output(raw: Path, out: Path) -> tuple[Path, str, str] | None:
    """Return what is wrong with the place of the output folder: folder, message, remedy."""
    if out == raw:
        message = 'OUTPUT_DIR is the raw dataset'
    elif out.is_relative_to(raw) and out.relative_to(raw).parts[0] != 'derivatives':
        message = 'OUTPUT_DIR lies in the raw dataset, but not in its derivatives'
    elif out == raw / 'derivatives':
        message = 'OUTPUT_DIR is the folder of all derivatives'
    elif raw.is_relative_to(out):
        message = 'OUTPUT_DIR contains the raw dataset'
    elif re.fullmatch('sub-.+', out.name):
        message = 'OUTPUT_DIR has the name of a subject'
    elif out.exists() and not out.is_dir():
        message = 'OUTPUT_DIR is a file'
    else:
        return None
    return out, message, f'Use for example {raw / "derivatives" / "qsmflow"}.'


def _misplaced_work(raw: Path, out: Path, work: Path) -> tuple[Path, str, str] | None:
    """Return what is wrong with the place of the work folder: folder, message, remedy."""
    steps = version_folder(work)
    for option, folder in (('BIDS_DIR', raw), ('OUTPUT_DIR', out)):
        if folder.is_relative_to(steps):
            message = f'{option} is or lies in the folder of the steps in -w/--work-dir'
            return steps, message, 'Give a work folder elsewhere.'
    if is_hidden_in(work, out):
        return None
    if work.is_relative_to(out):
        remedy = f'Give a folder elsewhere, or a hidden one such as {out / ".work"}.'
        return work, '-w/--work-dir lies in the results', remedy
    if work.is_relative_to(raw):
        remedy = f'Give a folder elsewhere, for example {raw.parent / "work"}.'
        return work, '-w/--work-dir lies in the raw dataset', remedy
    return None
