"""Everything that a run can be told, as one immutable value.

:class:`Settings` is built once, from defaults, an optional TOML file and the command line, and is
passed on from there. Nothing in the package reads settings from a module. The file that
:meth:`Settings.to_toml` writes beside the results gives the same value back.

This package imports nothing heavy: the command line is built from it.
"""

from qsmflow.settings.checks import B0_AXES, SettingsError, nearest, parse_b0_dir
from qsmflow.settings.groups import (
    ANALYSIS_LEVELS,
    BIPOLAR_MODES,
    FORCE_FILTERED,
    FORCE_R2STAR,
    FORCES,
    MASK_METHODS,
    MAX_OMP_NTHREADS,
    OUTPUT_LAYOUTS,
    OUTPUT_LEVELS,
    OUTPUT_SPACES,
    PHASE_SIGNS,
    REFERENCE_REGIONS,
    BIDSSettings,
    ExecutionSettings,
    OutputSettings,
    ReconstructionSettings,
    ResourceSettings,
)
from qsmflow.settings.tables import Settings, read_toml, without_preset

__all__ = [
    'ANALYSIS_LEVELS',
    'B0_AXES',
    'BIPOLAR_MODES',
    'FORCES',
    'FORCE_FILTERED',
    'FORCE_R2STAR',
    'MASK_METHODS',
    'MAX_OMP_NTHREADS',
    'OUTPUT_LAYOUTS',
    'OUTPUT_LEVELS',
    'OUTPUT_SPACES',
    'PHASE_SIGNS',
    'REFERENCE_REGIONS',
    'BIDSSettings',
    'ExecutionSettings',
    'OutputSettings',
    'ReconstructionSettings',
    'ResourceSettings',
    'Settings',
    'SettingsError',
    'nearest',
    'parse_b0_dir',
    'read_toml',
    'without_preset',
]
