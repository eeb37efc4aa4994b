"""Everything that a run can be told, as one immutable value.

:class:`Settings` is built once, from defaults, an optional TOML file and the command line, and is
passed on from there. Nothing in the package reads settings from a module. The file that
:meth:`Settings.to_toml` writes beside the results gives the same value back.

This module imports nothing heavy: the command line is built from it.
"""

import dataclasses
import difflib
import re
import tomllib
import types
import typing
from dataclasses import dataclass, fields
from pathlib import Path

from qsmflow import resources
from qsmflow.algorithms.catalog import PRESETS, STAGES, Preset

ANALYSIS_LEVELS = ('participant', 'group')
MASK_METHODS = ('registration', 'deepbet')
REFERENCE_REGIONS = ('wholebrain', 'csf', 'none')
OUTPUT_SPACES = ('T1w', 'MNI152NLin2009cAsym')
OUTPUT_LEVELS = ('full', 'minimal')
OUTPUT_LAYOUTS = ('bids',)
PHASE_SIGNS = ('auto', '+1', '-1')
BIPOLAR_MODES = ('auto', 'on', 'off')
#: What can be insisted on although a check of the input speaks against it.
FORCE_FILTERED, FORCE_R2STAR = 'filtered-phase', 'r2star-only'
FORCES = (FORCE_FILTERED, FORCE_R2STAR)
#: Directions of the main field that have a name, in array axes.
B0_AXES = {'x': (1.0, 0.0, 0.0), 'y': (0.0, 1.0, 0.0), 'z': (0.0, 0.0, 1.0)}
#: Beyond this, threads wait for memory rather than compute.
MAX_OMP_NTHREADS = 8


class SettingsError(ValueError):
    """A setting has an unknown name, a wrong type or a value out of range.

    Attributes
    ----------
    exit_code : int
        Exit status of the command line: 2, a usage error.
    """

    exit_code = 2


@dataclass(frozen=True)
class BIDSSettings:
    """Which data to read, and where results go.

    Attributes
    ----------
    bids_dir, output_dir : str
        Absolute folders of the raw dataset and of the derivatives.
    analysis_level : {'participant', 'group'}
        What to run.
    participant_label, session_label, acq_label, run_label : tuple of str
        Labels to process, without ``sub-`` and the like; empty for all.
    bids_filter_file : str or None
        JSON file that narrows what is used of the dataset; see :mod:`qsmflow.bids.filters`.
    bids_database_dir : str or None
        Folder that keeps the index of the dataset between runs; see :mod:`qsmflow.bids.index`.
    derivatives : dict of str to str
        Name and folder of derivative datasets: brain masks, T1w images, segmentations and
        transforms to use.
    skip_bids_validation : bool
        Do not run the BIDS validator first.
    """

    bids_dir: str = ''
    output_dir: str = ''
    analysis_level: str = 'participant'
    participant_label: tuple[str, ...] = ()
    session_label: tuple[str, ...] = ()
    acq_label: tuple[str, ...] = ()
    run_label: tuple[str, ...] = ()
    bids_filter_file: str | None = None
    bids_database_dir: str | None = None
    derivatives: dict[str, str] = dataclasses.field(default_factory=dict)
    skip_bids_validation: bool = False

    def __post_init__(self):
        """Check the analysis level."""
        _one_of('bids.analysis_level', self.analysis_level, ANALYSIS_LEVELS)


@dataclass(frozen=True)
class ReconstructionSettings:
    """How susceptibility and relaxation maps are computed.

    Attributes
    ----------
    phase_scale : str
        ``'auto'``, the name of a rule, or the factor from stored values to radians.
    phase_sign : {'auto', '+1', '-1'}
        ``'-1'`` negates the phase, for scanners of the other convention.
    bipolar : {'auto', 'on', 'off'}
        Correct the phase by which odd and even echoes of a bipolar readout differ: if the data
        show it, always, or never.
    echoes : tuple of int
        Echoes to use, from 1 in order of echo time; empty for all.
    volume_index : int or None
        Repetition to use, counted from 0, of images that hold several volumes of one echo.
    force : tuple of str
        Checks of the input to override: go on with filtered phase, or without phase for R2* alone.
    field_strength : float or None
        Main field, in T, where the sidecar lacks it or is wrong.
    b0_dir : str
        ``'affine'``, an array axis ``'x'``, ``'y'`` or ``'z'``, or three comma-separated numbers.
    mask : str
        ``'auto'``, ``'derivatives'`` or the path of a mask.
    mask_method : {'registration', 'deepbet'}
        How the brain is found when no mask is given.
    preset : str
        Name of a choice of methods and parameters; see
        :data:`qsmflow.algorithms.catalog.PRESETS`.
    unwrapping, field, background, inversion, strategy, relaxometry : str
        Method of each stage; see :data:`qsmflow.algorithms.catalog.STAGES`. That of the preset
        where none is given.
    unwrapping_fallback : bool
        Try the other methods of unwrapping where the fit of the field shows that it failed.
    reference : {'wholebrain', 'csf', 'none'}
        Region whose mean susceptibility is set to zero.
    cosmos : bool
        Combine series of one session that show the head in three or more orientations.
    params : dict of str to dict
        Options of the methods, by stage: ``{'inversion': {'reg_weight': 1e-4}}``. They are laid
        over those of the preset, which a stage takes only if its method is that of the preset.

    Examples
    --------
    >>> recon = ReconstructionSettings(preset='fast', params={'inversion': {'max_iter': 15}})
    >>> recon.params['inversion']['max_iter']
    15
    >>> 'inversion' in ReconstructionSettings(preset='fast', inversion='rts').params
    False
    """

    phase_scale: str = 'auto'
    phase_sign: str = 'auto'
    bipolar: str = 'auto'
    echoes: tuple[int, ...] = ()
    volume_index: int | None = None
    force: tuple[str, ...] = ()
    field_strength: float | None = None
    b0_dir: str = 'affine'
    mask: str = 'auto'
    mask_method: str = 'registration'
    preset: str = 'default'
    unwrapping: str | None = None
    field: str | None = None
    background: str | None = None
    inversion: str | None = None
    strategy: str | None = None
    relaxometry: str | None = None
    unwrapping_fallback: bool = True
    reference: str = 'wholebrain'
    cosmos: bool = False
    params: dict[str, dict[str, object]] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        """Check every choice and range, and take from the preset what is not given."""
        _one_of('reconstruction.preset', self.preset, PRESETS)
        self._take_methods(PRESETS[self.preset])
        for stage, methods in STAGES.items():
            _one_of(f'reconstruction.{stage}', getattr(self, stage), methods)
        _one_of('reconstruction.phase_sign', self.phase_sign, PHASE_SIGNS)
        _one_of('reconstruction.bipolar', self.bipolar, BIPOLAR_MODES)
        _one_of('reconstruction.mask_method', self.mask_method, MASK_METHODS)
        _one_of('reconstruction.reference', self.reference, REFERENCE_REGIONS)
        for stage in self.params:
            _one_of('reconstruction.params', stage, STAGES)
        self._take_params(PRESETS[self.preset])
        if any(echo < 1 for echo in self.echoes):
            raise SettingsError(
                f'reconstruction.echoes counts echoes from 1; got {list(self.echoes)}.'
            )
        if self.volume_index is not None and self.volume_index < 0:
            raise SettingsError(
                f'reconstruction.volume_index counts volumes from 0; got {self.volume_index}.'
            )
        for name in self.force:
            _one_of('reconstruction.force', name, FORCES)
        self._check_bipolar()
        self._check_strategy()
        if self.field_strength is not None and not 0 < self.field_strength <= 25:
            raise SettingsError(
                'reconstruction.field_strength is in tesla, between 0 and 25; '
                f'got {self.field_strength:g}.'
            )
        parse_b0_dir(self.b0_dir)

    def _check_bipolar(self) -> None:
        """Refuse a correction that the chosen echoes rule out."""
        parities = {echo % 2 for echo in self.echoes}
        if self.bipolar == 'on' and self.echoes and (len(self.echoes) < 3 or len(parities) < 2):
            raise SettingsError(
                "reconstruction.bipolar = 'on' needs three echoes or more, with odd and even ones "
                f"among them; reconstruction.echoes has {list(self.echoes)}. Choose 'auto', "
                "'off' or more echoes."
            )

    def _check_strategy(self) -> None:
        """Refuse to look for strong sources in a field that still has its background."""
        entry = STAGES['inversion'][self.inversion]
        if self.strategy == 'superposed' and entry.takes == 'total_field':
            raise SettingsError(
                "reconstruction.strategy = 'superposed' works on the local field, and the "
                f'inversion {self.inversion!r} takes the total field. Choose the strategy '
                f"'single', or an inversion of the local field such as {_local_inversion()!r}."
            )

    def _take_methods(self, preset: Preset) -> None:
        """Take the method of the preset for every stage that has none."""
        for stage in STAGES:
            if getattr(self, stage) is None:
                object.__setattr__(self, stage, preset.method(stage))

    def _take_params(self, preset: Preset) -> None:
        """Lay the parameters over those of the preset, and leave out stages without any."""
        params = {}
        for stage in STAGES:
            chosen = preset.method(stage) == getattr(self, stage)
            base = preset.params.get(stage, {}) if chosen else {}
            params[stage] = {**base, **self.params.get(stage, {})}
        filled = {stage: own for stage, own in params.items() if own}
        object.__setattr__(self, 'params', filled)

    @property
    def b0_vector(self) -> tuple[float, float, float] | None:
        """Unit vector of the main field in array axes; ``None`` to take it from the affine."""
        return parse_b0_dir(self.b0_dir)


@dataclass(frozen=True)
class OutputSettings:
    """What is written.

    Attributes
    ----------
    atlas : tuple of str
        Atlases for the region tables: names of built-in ones, or paths. Empty for no table.
    output_spaces : tuple of str
        Spaces in which maps are written in addition to that of the acquisition.
    level : {'full', 'minimal'}
        ``'minimal'`` leaves out the field maps.
    output_layout : {'bids'}
        How the output folder is laid out.
    md_only_boilerplate : bool
        Write the methods text as Markdown and BibTeX only.
    """

    atlas: tuple[str, ...] = ('CIT168',)
    output_spaces: tuple[str, ...] = ()
    level: str = 'full'
    output_layout: str = 'bids'
    md_only_boilerplate: bool = False

    def __post_init__(self):
        """Check spaces, level and layout."""
        for space in self.output_spaces:
            _one_of('outputs.output_spaces', space, OUTPUT_SPACES)
        _one_of('outputs.level', self.level, OUTPUT_LEVELS)
        _one_of('outputs.output_layout', self.output_layout, OUTPUT_LAYOUTS)


@dataclass(frozen=True)
class ResourceSettings:
    """How much of the machine is used.

    Attributes
    ----------
    nprocs : int
        Processors in all.
    omp_nthreads : int
        Threads of one process; 0 takes half of ``nprocs``, at most eight: the registrations, which
        run in one thread, then have processors beside the reconstruction.
    mem_gb : float
        Memory in all, in GB.
    low_mem : bool
        Run memory-hungry nodes one at a time.
    """

    nprocs: int = dataclasses.field(default_factory=resources.available_cpus)
    omp_nthreads: int = 0
    mem_gb: float = dataclasses.field(default_factory=resources.available_memory)
    low_mem: bool = False

    def __post_init__(self):
        """Resolve the number of threads and check ranges."""
        if self.nprocs < 1:
            raise SettingsError(f'resources.nprocs must be at least 1; got {self.nprocs}.')
        if self.mem_gb <= 0:
            raise SettingsError(f'resources.mem_gb must be positive; got {self.mem_gb:g}.')
        if self.omp_nthreads == 0:
            threads = min(max(self.nprocs // 2, 1), MAX_OMP_NTHREADS)
            object.__setattr__(self, 'omp_nthreads', threads)
        if not 0 < self.omp_nthreads <= self.nprocs:
            raise SettingsError(
                f'resources.omp_nthreads is {self.omp_nthreads}; it must lie between 1 and '
                f'resources.nprocs, which is {self.nprocs}.'
            )


@dataclass(frozen=True)
class ExecutionSettings:
    """How the run is carried out.

    Attributes
    ----------
    work_dir : str
        Absolute folder of intermediate files.
    run_uuid : str
        Name of this run.
    random_seed : int
        Seed of everything that draws numbers.
    dry_run : bool
        Check the dataset and print the plan only.
    dry_run_json : str or None
        File that gets the plan as JSON, or ``'-'`` for standard output; it implies ``dry_run``.
    clean_workdir : bool
        Empty the work folder of earlier runs first.
    allow_mixed_settings : bool
        Write into a folder with results of other subjects that were made by other methods.
    stop_on_first_crash : bool
        Stop at the first failure rather than finish what can be finished.
    write_graph : bool
        Draw the workflow graph.
    reports_only : bool
        Make the reports of results that are there again, and compute nothing.
    boilerplate_only : bool
        Write the methods text only.
    resource_monitor : bool
        Write peak memory and time of each step into the log folder.
    sloppy : bool
        Trade quality for speed, for trials: preset ``fast``, coarse registrations.
    debug : bool
        Say everything, tracebacks included.
    plugin_file : str or None
        File with a nipype plugin and its arguments.
    verbosity : int
        0 for progress, 1 for details, 2 for debugging.
    """

    work_dir: str = ''
    run_uuid: str = ''
    random_seed: int = 42
    dry_run: bool = False
    dry_run_json: str | None = None
    clean_workdir: bool = False
    allow_mixed_settings: bool = False
    stop_on_first_crash: bool = False
    write_graph: bool = False
    reports_only: bool = False
    boilerplate_only: bool = False
    resource_monitor: bool = False
    sloppy: bool = False
    debug: bool = False
    plugin_file: str | None = None
    verbosity: int = 0

    def __post_init__(self):
        """Check the seed (for ITK it has 31 bits, and 0 is the time of day) and the parts."""
        if self.debug:
            object.__setattr__(self, 'verbosity', max(self.verbosity, 2))
        if self.dry_run_json:
            object.__setattr__(self, 'dry_run', True)
        parts = [
            name for name in ('dry_run', 'reports_only', 'boilerplate_only') if getattr(self, name)
        ]
        if len(parts) > 1:
            raise SettingsError(
                f'execution.{parts[0]} and execution.{parts[1]} exclude each other: each runs '
                'only a part. Choose one.'
            )
        if self.run_uuid and not re.fullmatch(r'[A-Za-z0-9][A-Za-z0-9._-]*', self.run_uuid):
            raise SettingsError(
                'execution.run_uuid is a name of letters, digits, dots, hyphens and underscores; '
                f'got {self.run_uuid!r}.'
            )
        if not 0 < self.random_seed < 2**31:
            raise SettingsError(
                f'execution.random_seed must lie between 1 and 2147483647; got {self.random_seed}.'
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
        groups = {}
        for name, content in values.items():
            _known(name, [item.name for item in fields(cls)], where='the settings')
            if not isinstance(content, dict):
                raise SettingsError(
                    f'{name} is a group of settings: write it as a [{name}] table.'
                )
            groups[name] = _GROUPS[name](**_typed(_GROUPS[name], content, name))
        return cls(**groups)

    @classmethod
    def from_toml(cls, text: str) -> 'Settings':
        """Build settings from TOML text; see :meth:`from_dict`."""
        return cls.from_dict(read_toml(text))


_GROUPS: dict[str, type] = {
    'bids': BIDSSettings,
    'reconstruction': ReconstructionSettings,
    'outputs': OutputSettings,
    'resources': ResourceSettings,
    'execution': ExecutionSettings,
}


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


def parse_b0_dir(text: str) -> tuple[float, float, float] | None:
    """Return the unit vector that a direction of the main field stands for.

    Parameters
    ----------
    text : str
        ``'affine'``, ``'x'``, ``'y'``, ``'z'``, or three comma-separated numbers.

    Returns
    -------
    tuple of float or None
        Unit vector in array axes; ``None`` for ``'affine'``.

    Raises
    ------
    SettingsError
        If the text is none of these, or the vector has no length.

    Examples
    --------
    >>> parse_b0_dir('0,0,2')
    (0.0, 0.0, 1.0)
    """
    if text == 'affine':
        return None
    if text in B0_AXES:
        return B0_AXES[text]
    try:
        vector = tuple(float(part) for part in text.split(','))
    except ValueError:
        vector = ()
    length = sum(component**2 for component in vector) ** 0.5
    if len(vector) != 3 or not 0 < length < float('inf'):
        raise SettingsError(
            "the direction of the main field is 'affine', 'x', 'y', 'z' or three numbers such as "
            f"'0,0.1,0.99'; got {text!r}."
        )
    return tuple(component / length for component in vector)


def nearest(name: str, known: typing.Iterable[str]) -> str:
    """Return a hint at the known name that is most like ``name``, or at all of them.

    Examples
    --------
    >>> nearest('inversoin', ['inversion', 'field'])
    " Did you mean 'inversion'?"
    """
    known = list(known)
    close = difflib.get_close_matches(str(name), known, n=1)
    return f' Did you mean {close[0]!r}?' if close else f' Known: {", ".join(known)}.'


def _local_inversion() -> str:
    """Return the first inversion that takes the local field."""
    methods = STAGES['inversion'].values()
    return next(method.name for method in methods if method.takes == 'local_field')


def _known(name: str, known: list[str], where: str) -> None:
    if name not in known:
        raise SettingsError(f'{name!r} is not part of {where}.{nearest(name, known)}')


def _one_of(name: str, value: str, choices: typing.Iterable[str]) -> None:
    if value not in choices:
        raise SettingsError(f'{name} cannot be {value!r}.{nearest(value, choices)}')


def _typed(kind: type, content: dict, group: str) -> dict:
    """Check names and types of one group of settings, and turn lists into tuples."""
    hints = typing.get_type_hints(kind)
    for name in content:
        _known(name, list(hints), where=f'[{group}]')
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
