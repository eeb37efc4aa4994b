"""From the command line to settings: reading, merging and checking what was given."""

import os
import re
import sys
import uuid
from datetime import datetime
from pathlib import Path

from qsmflow.cli.hints import option_hint
from qsmflow.cli.options import STAGE_OPTIONS, build_parser
from qsmflow.cli.usage import refusal
from qsmflow.cli.workdir import is_hidden_in, uses_work_folder, version_folder
from qsmflow.settings import Settings, SettingsError, nearest, read_toml, without_preset

#: Dashes that word processors make of ``-``.
_TYPOGRAPHIC_DASHES = '‐‑‒–—―−'


class MissingToolError(RuntimeError):
    """A tool or an optional package is not installed.

    Attributes
    ----------
    exit_code : int
        Exit status of the command line: 127.
    """

    exit_code = 127


def parse_args(argv: list[str] | None = None) -> Settings:
    """Turn the command line into settings.

    Parameters
    ----------
    argv : list of str, optional
        Arguments without the program's name; those of the process by default.

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
    try:
        settings = Settings.from_dict(_merge(_read_config(given.get('config_file')), given))
    except SettingsError as error:
        parser.error(str(error))
    _check_inputs(parser, settings)
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


def _read_config(path: str | None) -> dict:
    if path is None:
        return {}
    try:
        config = read_toml(Path(path).read_text(encoding='utf-8'))
        Settings.from_dict(config)
    except (SettingsError, UnicodeDecodeError) as error:
        raise SettingsError(f'argument --config-file: {path}: {error}') from error
    # A new run gets a new name, even when it repeats an old one.
    config.get('execution', {}).pop('run_uuid', None)
    if 'reconstruction' in config:
        config['reconstruction'] = without_preset(config['reconstruction'])
    return config


def _merge(config: dict, given: dict) -> dict:
    """Lay the options over the configuration file, and fill what depends on the moment."""
    merged = {name: dict(content) for name, content in config.items()}
    if 'resources.nprocs' in given:
        # The number of threads in the file was chosen for another number of processors.
        merged.get('resources', {}).pop('omp_nthreads', None)
    for key, value in given.items():
        group, _, name = key.partition('.')
        stage = name.removeprefix('params.')
        content = merged.setdefault(group, {}) if name else {}
        if stage != name:
            params = dict(content.get('params', {}))
            params[stage] = {**params.get(stage, {}), **dict(value)}
            content['params'] = params
        elif key == 'bids.derivatives':
            _check_names(value)
            content[name] = {**content.get(name, {}), **dict(value)}
        elif key == 'outputs.atlas':
            content[name] = [item for item in value if item != 'none']
        elif name.endswith('_label') or key == 'outputs.output_spaces':
            content[name] = list(dict.fromkeys(value))
        elif name:
            content[name] = value
    execution = merged.setdefault('execution', {})
    if execution.get('sloppy'):
        merged.setdefault('reconstruction', {}).setdefault('preset', 'fast')
    execution.setdefault('run_uuid', _new_run_uuid())
    if not execution.get('work_dir'):
        bids = merged['bids']
        execution['work_dir'] = _default_work_dir(bids['bids_dir'], bids['output_dir'])
    return merged


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
                'digits, dots, dashes and underscores, and not raw, which is BIDS_DIR'
            )
        if not Path(folder).is_dir():
            parser.error(f'argument -d/--derivatives: {name}: there is no folder {folder}')


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
        if path not in (None, '', '-') and Path(path).resolve().is_relative_to(raw):
            message = f'{option} lies in the raw dataset, which is never written to'
            problem = problem or (str(path), message, 'Give another place.')
    if problem:
        where, message, remedy = problem
        parser.error(refusal('E96', message, remedy, where, {'BIDS_DIR': raw}))


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
