"""The groups together, and the TOML tables that they are read from and written to."""

import dataclasses
import tomllib
import types
import typing
from dataclasses import dataclass, fields
from pathlib import Path

from qsmflow.algorithms.catalog import PRESETS, STAGES
from qsmflow.settings.checks import SettingsError, require_known
from qsmflow.settings.groups import (
    BIDSSettings,
    ExecutionSettings,
    OutputSettings,
    ReconstructionSettings,
    ResourceSettings,
)


@dataclass(frozen=True)
class Settings:
    """All settings of a run.

    Examples
    --------
    >>> settings = Settings()
    >>> settings.reconstruction.inversion
    'tv'
    >>> Settings.from_toml(settings.to_toml()) == settings
    True
    """

    bids: BIDSSettings = dataclasses.field(default_factory=BIDSSettings)
    reconstruction: ReconstructionSettings = dataclasses.field(
        default_factory=ReconstructionSettings
    )
    outputs: OutputSettings = dataclasses.field(default_factory=OutputSettings)
    resources: ResourceSettings = dataclasses.field(default_factory=ResourceSettings)
    execution: ExecutionSettings = dataclasses.field(default_factory=ExecutionSettings)

    def to_dict(self) -> dict[str, dict]:
        """Return the settings as nested dicts of TOML types, without those that are None."""
        return {
            group.name: {
                item.name: _plain(value)
                for item in fields(getattr(self, group.name))
                if (value := getattr(getattr(self, group.name), item.name)) is not None
            }
            for group in fields(self)
        }

    def to_toml(self) -> str:
        """Return the settings as TOML text.

        Returns
        -------
        str
            Text from which :meth:`from_toml` builds an equal value.
        """
        import tomli_w

        return tomli_w.dumps(self.to_dict())

    @classmethod
    def from_dict(cls, values: dict[str, dict]) -> 'Settings':
        """Build settings from nested dicts; what is missing gets its default.

        Parameters
        ----------
        values : dict
            Groups of settings, as in the TOML file.

        Returns
        -------
        Settings

        Raises
        ------
        SettingsError
            If a name is unknown (the message proposes the nearest one), a type is wrong, or a
            value is not allowed.
        """
        kinds = {item.name: item.type for item in fields(cls)}
        groups = {}
        for name, content in values.items():
            require_known(name, list(kinds), where='the settings')
            if not isinstance(content, dict):
                raise SettingsError(
                    f'{name} is a group of settings: write it as a [{name}] table.'
                )
            groups[name] = kinds[name](**_typed(kinds[name], content, name))
        return cls(**groups)

    @classmethod
    def from_toml(cls, text: str) -> 'Settings':
        """Build settings from TOML text; see :meth:`from_dict`."""
        return cls.from_dict(read_toml(text))


def read_toml(text: str) -> dict:
    """Parse TOML text.

    Raises
    ------
    SettingsError
        If the text is not TOML; the message has the line.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f'this is not valid TOML: {error}.') from error


def without_preset(content: dict) -> dict:
    """Return a table of reconstruction settings without what its own preset gives.

    Effective settings, as a run writes them, hold the methods and parameters of their preset. When
    another preset or another method is laid over them, these must not pass for given ones.

    Parameters
    ----------
    content : dict
        The ``[reconstruction]`` table of a settings file, already checked.

    Returns
    -------
    dict
        The same table if it names no preset; else a smaller one for the same settings.

    Examples
    --------
    >>> params = {'inversion': {'max_iter': 15}}
    >>> without_preset({'preset': 'default', 'inversion': 'tv', 'params': params})
    {'preset': 'default', 'params': {'inversion': {'max_iter': 15}}}
    """
    if 'preset' not in content:
        return content
    preset = PRESETS[content['preset']]
    rest = {
        name: value
        for name, value in content.items()
        if name not in STAGES or value != preset.method(name)
    }
    if 'params' in content:
        rest['params'] = {
            stage: own if stage in rest else _difference(own, preset.params.get(stage, {}))
            for stage, own in content['params'].items()
        }
    return rest


def _difference(own: dict, base: dict) -> dict:
    """Return the entries of ``own`` that ``base`` does not have with the same value."""
    return {
        key: value for key, value in own.items() if key not in base or _frozen(value) != base[key]
    }


def _typed(kind: type, content: dict, group: str) -> dict:
    """Check names and types of one group of settings, and turn lists into tuples."""
    hints = typing.get_type_hints(kind)
    for name in content:
        require_known(name, list(hints), where=f'[{group}]')
    return {name: _cast(value, hints[name], f'{group}.{name}') for name, value in content.items()}


def _cast(value, hint, name: str):
    """Return ``value`` as the annotated type, or say what was expected."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        hint = next(argument for argument in arguments if argument is not type(None))
        return None if value is None else _cast(value, hint, name)
    if hint is object:
        return _frozen(value)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise SettingsError(f'{name} must be a list; got {value!r}.')
        return tuple(_cast(item, arguments[0], name) for item in value)
    if origin is dict:
        if not isinstance(value, dict):
            raise SettingsError(f'{name} must be a table; got {value!r}.')
        return {key: _cast(item, arguments[1], f'{name}.{key}') for key, item in value.items()}
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise SettingsError(f'{name} must be of type {hint.__name__}; got {value!r}.')
    return value


def _frozen(value):
    """Turn lists into tuples, so that what is read back equals what was written."""
    return tuple(_frozen(item) for item in value) if isinstance(value, (list, tuple)) else value


def _plain(value):
    """Turn tuples into lists and paths into text, for TOML."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
