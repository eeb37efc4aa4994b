"""The nipype plugin that a file of the user names, checked before anything runs."""

import shutil
import tomllib
from importlib import import_module
from pathlib import Path

from qsmflow.cli.parser import MissingToolError
from qsmflow.settings import SettingsError, nearest

_KEYS = ('plugin', 'plugin_args')
_EXAMPLE = 'plugin: MultiProc, plugin_args: {n_procs: 4, memory_gb: 16}'


def read_plugin_file(path: str | Path) -> tuple[str, dict]:
    """Read the name of a plugin and its arguments.

    Parameters
    ----------
    path : path-like
        TOML file if its name ends so; else YAML, which JSON is a part of.

    Returns
    -------
    name : str
        Name of a nipype plugin, such as ``'SLURM'``.
    arguments : dict
        ``plugin_args``; empty if there are none.

    Raises
    ------
    SettingsError
        If the file cannot be read, has other keys, or names a plugin that nipype does not have.
    """
    content = _read(Path(path))
    if not isinstance(content, dict) or not isinstance(content.get('plugin'), str):
        raise _refused(path, f'it names no plugin. Write for example: {_EXAMPLE}')
    for key in content:
        if key not in _KEYS:
            raise _refused(path, f'it has an unknown key {key!r}.{nearest(str(key), _KEYS)}')
    arguments = content.get('plugin_args') or {}
    if not isinstance(arguments, dict):
        raise _refused(path, f'plugin_args must be a table; got {arguments!r}')
    known = plugin_names()
    name = content['plugin'].removesuffix('Plugin')
    if name not in known:
        if name in _not_waiting():
            hint = nearest(name, known)
            raise _refused(path, f'{name} does not tell how its jobs end.{hint}')
        hint = nearest(name, known)
        raise _refused(path, f'nipype has no plugin {name!r}.{hint} Plugins: {", ".join(known)}')
    return name, arguments


def plugin_names() -> list[str]:
    """Return the names of the plugins of nipype that can be used."""
    return sorted(set(_all_plugins()) - set(_not_waiting()))


def _all_plugins() -> list[str]:
    plugins = import_module('nipype.pipeline.plugins')
    return [name.removesuffix('Plugin') for name in dir(plugins) if name.endswith('Plugin')]


def _not_waiting() -> list[str]:
    """Return the plugins that submit a graph and leave: nobody would know how it ended."""
    return [n for n in _all_plugins() if n.endswith(('Graph', 'DAGMan')) or n == 'SomaFlow']


def nipype_plugin(name: str) -> type:
    """Return the class of a plugin; for Slurm, our own.

    Raises
    ------
    MissingToolError
        If jobs cannot be submitted from here.
    """
    if name == 'SLURM':
        if shutil.which('sbatch') is None:
            raise MissingToolError(
                'argument --use-plugin: there is no sbatch here, so that no jobs can be '
                'submitted. In a container, run one job for each participant instead: see '
                'docs/hpc.md'
            )
        from qsmflow.cluster import SlurmPlugin

        return SlurmPlugin
    return getattr(import_module('nipype.pipeline.plugins'), f'{name}Plugin')


def _read(path: Path) -> object:
    """Return the content of the file."""
    try:
        text = path.read_text(encoding='utf-8')
        if path.suffix == '.toml':
            return tomllib.loads(text)
        import yaml

        return yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise _refused(path, f'it cannot be read: {error}') from error
    except yaml.YAMLError as error:
        raise _refused(path, f'it is not valid YAML or JSON: {error}') from error


def _refused(path: str | Path, reason: str) -> SettingsError:
    text = ' '.join(reason.split()).rstrip('.')
    return SettingsError(f'argument --use-plugin: {path}: {text}.')
