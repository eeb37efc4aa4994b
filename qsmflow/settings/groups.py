"""The groups of settings, with what each may hold."""

import dataclasses
import re
from dataclasses import dataclass

from qsmflow import resources
from qsmflow.algorithms.catalog import PRESETS, STAGES, TAKEN, Preset
from qsmflow.settings.checks import SettingsError, parse_b0_dir, require_one_of

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
#: Beyond this, threads wait for memory rather than compute.
MAX_OMP_NTHREADS = 8


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
        require_one_of('bids.analysis_level', self.analysis_level, ANALYSIS_LEVELS)


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
        require_one_of('reconstruction.preset', self.preset, PRESETS)
        self._take_methods(PRESETS[self.preset])
        for stage, methods in STAGES.items():
            require_one_of(f'reconstruction.{stage}', getattr(self, stage), methods)
        require_one_of('reconstruction.phase_sign', self.phase_sign, PHASE_SIGNS)
        require_one_of('reconstruction.bipolar', self.bipolar, BIPOLAR_MODES)
        require_one_of('reconstruction.mask_method', self.mask_method, MASK_METHODS)
        require_one_of('reconstruction.reference', self.reference, REFERENCE_REGIONS)
        for stage in self.params:
            require_one_of('reconstruction.params', stage, STAGES)
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
            require_one_of('reconstruction.force', name, FORCES)
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
        if self.strategy == 'superposed' and entry.one_step:
            raise SettingsError(
                "reconstruction.strategy = 'superposed' works on the local field, and the "
                f'inversion {self.inversion!r} takes the {TAKEN[entry.takes]}. Choose the '
                "strategy 'single', or an inversion of the local field such as "
                f'{_local_inversion()!r}.'
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
            require_one_of('outputs.output_spaces', space, OUTPUT_SPACES)
        require_one_of('outputs.level', self.level, OUTPUT_LEVELS)
        require_one_of('outputs.output_layout', self.output_layout, OUTPUT_LAYOUTS)


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
        Write peak memory and time of each step into ``logs/<run>``.
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
        dry_run = 'dry_run_json' if self.dry_run_json else 'dry_run'
        parts = [
            name for name in (dry_run, 'reports_only', 'boilerplate_only') if getattr(self, name)
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


def _local_inversion() -> str:
    """Return the first inversion that takes the local field."""
    methods = STAGES['inversion'].values()
    return next(method.name for method in methods if method.takes == 'local_field')
