"""The settings file: read, and brought into the form that the options of the command line have."""

import argparse
from pathlib import Path

from qsmflow.algorithms.catalog import PRESETS, STAGES
from qsmflow.cli import values
from qsmflow.settings import Settings, SettingsError, read_toml, without_preset

#: Settings that name a file or folder, and what they may hold instead.
_PATHS = {
    'bids.bids_filter_file': (),
    'bids.bids_database_dir': (),
    'reconstruction.mask': ('auto', 'derivatives'),
    'execution.work_dir': ('',),
    'execution.dry_run_json': ('', '-'),
    'execution.plugin_file': (),
}


def read_config(path: str | None) -> dict:
    """Read a settings file.

    Paths are expanded as on the command line: ``~`` is the home folder, and what is not absolute
    starts at the current folder.

    Parameters
    ----------
    path : str or None
        TOML file; None for no file.

    Returns
    -------
    dict
        Groups of settings, without the name of the run and without what its preset gives.

    Raises
    ------
    SettingsError
        If the file cannot be used; the message names option, file and setting.
    """
    if path is None:
        return {}
    try:
        config = read_toml(Path(path).read_text(encoding='utf-8'))
        Settings.from_dict(config)
        _expand(config)
    except (SettingsError, UnicodeDecodeError) as error:
        raise SettingsError(f'argument --config-file: {path}: {error}') from error
    # A new run gets a new name, even when it repeats an old one.
    config.get('execution', {}).pop('run_uuid', None)
    if 'reconstruction' in config:
        config['reconstruction'] = without_preset(config['reconstruction'])
    return config


def _expand(config: dict) -> None:
    for key, words in _PATHS.items():
        group, _, name = key.partition('.')
        content = config.get(group, {})
        if name in content and content[name] not in words:
            content[name] = _read(values.any_path, content[name], key)
    derivatives = config.get('bids', {}).get('derivatives', {})
    for name, folder in derivatives.items():
        derivatives[name] = _read(values.any_path, folder, f'bids.derivatives.{name}')
    outputs = config.get('outputs', {})
    if 'atlas' in outputs:
        read = [_read(values.atlas, atlas, 'outputs.atlas') for atlas in outputs['atlas']]
        outputs['atlas'] = atlases(read)


def _read(reader, text: str, key: str) -> str:
    """Return what the reader of an option makes of a setting."""
    try:
        return reader(text)
    except argparse.ArgumentTypeError as error:
        raise SettingsError(f'{key}: {error}') from error


def atlases(names: list[str]) -> list[str]:
    """Return each atlas once, without the word ``none``.

    Examples
    --------
    >>> atlases(['none']), atlases(['CIT168', 'CIT168'])
    ([], ['CIT168'])
    """
    return [name for name in dict.fromkeys(names) if name != 'none']


def params_that_hold(
    config: dict, merged: dict
) -> tuple[dict[str, dict], list[tuple[str, str, str]]]:
    """Return the parameters of a file that belong to the methods that are used in the end.

    Those of a file that names neither method nor preset are for any preset, as it wins over it.

    Parameters
    ----------
    config : dict
        ``[reconstruction]`` of the file.
    merged : dict
        The same with the options of the command line laid over it.

    Returns
    -------
    params : dict of dict
        Parameters by stage, without those of stages that got another method.
    left_out : list of (str, str, str)
        Such stages, their method in the file, and the one that is used.

    Examples
    --------
    >>> config = {'inversion': 'tv', 'params': {'inversion': {'max_iter': 12}}}
    >>> params_that_hold(config, {**config, 'inversion': 'tkd'})
    ({}, [('inversion', 'tv', 'tkd')])
    """
    params, left_out = {}, []
    for stage, own in config.get('params', {}).items():
        before, after = _method(config, stage), _method(merged, stage)
        for_any_preset = 'preset' not in config and stage not in merged
        if before == after or for_any_preset:
            params[stage] = dict(own)
        elif own:
            left_out.append((stage, before, after))
    return params, left_out


def _method(content: dict, stage: str) -> str | None:
    preset = PRESETS.get(content.get('preset', 'default'))
    given = content.get(stage)
    # What is unknown is refused where the settings are made.
    return given or (preset.method(stage) if preset and stage in STAGES else None)
