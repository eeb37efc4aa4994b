"""The options of the command line, in small groups.

Every option but the few in ``NOT_SETTINGS`` names the setting it fills as its ``dest``, such as
``reconstruction.inversion``. Options that are not given leave no trace in the namespace, so that
defaults, configuration file and command line can be laid over one another.
"""

import argparse

from qsmflow import __version__
from qsmflow.algorithms.catalog import PRESETS, STAGES
from qsmflow.cli import values
from qsmflow.cli.usage import HelpFormatter, Parser
from qsmflow.settings import (
    ANALYSIS_LEVELS,
    BIPOLAR_MODES,
    FORCES,
    MASK_METHODS,
    OUTPUT_LAYOUTS,
    OUTPUT_LEVELS,
    OUTPUT_SPACES,
    PHASE_SIGNS,
    REFERENCE_REGIONS,
)

#: Options that fill no setting of their own.
NOT_SETTINGS = ('help', 'version', 'config_file', 'notrack')
#: Option of each stage; ``--<option>-param`` sets its parameters.
STAGE_OPTIONS = {
    'unwrapping': 'unwrap',
    'field': 'field-fit',
    'background': 'bgfr',
    'inversion': 'inversion',
    'strategy': 'strategy',
    'relaxometry': 'relaxometry',
}
_STAGE_HELP = {
    'unwrapping': 'phase unwrapping',
    'field': 'fit of the total field to all echoes',
    'background': 'background field removal',
    'inversion': 'dipole inversion',
    'strategy': 'how the inversion deals with unreliable voxels and strong sources',
    'relaxometry': 'R2* fit',
}
_USAGE = 'qsmflow BIDS_DIR OUTPUT_DIR {participant,group} [options]'
_DESCRIPTION = """\
Quantitative susceptibility mapping: from multi-echo gradient-echo magnitude and phase in a BIDS
dataset to susceptibility and R2* maps in ppm and 1/s, region tables and a report per participant.
"""
_EPILOG = """\
examples:
  qsmflow /data/study /data/study/derivatives/qsmflow participant --participant-label 01 02
  qsmflow /data/study /data/study/derivatives/qsmflow group
  qsmflow /data/study /tmp/out participant --dry-run

Labels are given with or without 'sub-', 'ses-', 'acq-' and 'run-'. Every option can also be
written with underscores. Exit codes: 0 all is well; 1 at least one acquisition failed; 2 wrong
usage; 65 nothing in the dataset can be used; 70 an error of the program; 73 a folder cannot be
written; 75 another run uses the folders; 127 a tool is missing; 130 and 143 interrupted.

More: docs/usage.md, docs/outputs.md and docs/methods.md of the source.
"""


def build_parser() -> argparse.ArgumentParser:
    """Build the parser.

    Returns
    -------
    argparse.ArgumentParser
        Parser whose namespace holds only what was given.
    """
    parser = Parser(
        prog='qsmflow',
        usage=_USAGE,
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=HelpFormatter,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
        add_help=False,
    )
    for add in (
        _add_positionals,
        _add_selection,
        _add_pipeline,
        _add_methods,
        _add_outputs,
        _add_resources,
        _add_execution,
        _add_other,
    ):
        add(parser)
    return parser


def _option(group, *names: str, **keywords) -> None:
    """Add an option in both spellings, with dashes and with underscores."""
    spellings = [name[:2] + name[2:].replace('-', '_') for name in names if name.startswith('--')]
    group.add_argument(*dict.fromkeys([*names, *spellings]), **keywords)


def _add_positionals(parser) -> None:
    group = parser.add_argument_group('required, in this order and before all options')
    group.add_argument(
        'bids.bids_dir',
        metavar='BIDS_DIR',
        type=values.dataset_folder,
        help='root folder of the raw BIDS dataset; it is never written to',
    )
    group.add_argument(
        'bids.output_dir',
        metavar='OUTPUT_DIR',
        type=values.any_path,
        help='folder of the results, a BIDS derivative dataset; made if it is not there',
    )
    group.add_argument(
        'bids.analysis_level',
        metavar='{participant,group}',
        choices=ANALYSIS_LEVELS,
        help='participant: compute maps, tables and reports. '
        'group: merge the tables of all participants into one table and report',
    )


def _add_selection(parser) -> None:
    group = parser.add_argument_group('what to process')
    for entity, name, aliases in (
        ('sub', 'participant', ()),
        ('ses', 'session', ('--session-id',)),
        ('acq', 'acq', ()),
        ('run', 'run', ()),
    ):
        _option(
            group,
            f'--{name}-label',
            *aliases,
            dest=f'bids.{name}_label',
            metavar='LABEL',
            nargs='+',
            action='extend',
            type=values.Label(entity),
            help=f'{entity}- labels to process (all)',
        )
    _option(
        group,
        '--bids-filter-file',
        dest='bids.bids_filter_file',
        metavar='FILE',
        type=values.existing_file,
        help='JSON file that narrows what is used, by queries megre, t1w, mask and dseg, as in '
        '{"t1w": {"acquisition": "mprage", "run": null}}; null: without it, "*": any',
    )
    _option(
        group,
        '--bids-database-dir',
        dest='bids.bids_database_dir',
        metavar='DIR',
        type=values.any_path,
        help='folder that keeps the index of the dataset for later runs; made if it is not there, '
        'and made anew when the dataset changed',
    )
    _option(
        group,
        '-d',
        '--derivatives',
        dest='bids.derivatives',
        metavar='NAME=PATH',
        nargs='+',
        action='extend',
        type=values.derivatives,
        help='derivative datasets, such as those of fMRIPrep, sMRIPrep, FreeSurfer and SynthSeg, '
        'whose brain masks, T1w images, segmentations and transforms are used',
    )
    _option(
        group,
        '--skip-bids-validation',
        '--skip-bids-validator',
        dest='bids.skip_bids_validation',
        action='store_true',
        help='do not run the BIDS validator on the dataset first',
    )


def _add_pipeline(parser) -> None:
    group = parser.add_argument_group('input data and reference')
    _option(
        group,
        '--phase-scale',
        dest='reconstruction.phase_scale',
        metavar='RULE',
        help='how stored phase becomes radians: auto, a factor to radians, or a rule: rad, '
        'rad-2pi, rad-unwrapped, siemens-unsigned, siemens-signed, mrad, philips-display, '
        'degrees or degrees-360 (auto)',
    )
    _option(
        group,
        '--phase-sign',
        dest='reconstruction.phase_sign',
        metavar='{auto,+1,-1}',
        type=values.phase_sign,
        choices=PHASE_SIGNS,
        help='sign of the phase; -1 for scanners whose phase falls where the field is raised. '
        'auto compares the field with that of the air around the brain (auto)',
    )
    _option(
        group,
        '--bipolar',
        dest='reconstruction.bipolar',
        choices=BIPOLAR_MODES,
        help='phase by which odd and even echoes of a bipolar readout differ: auto removes it if '
        'three echoes or more show it, on always, off never (auto)',
    )
    _option(
        group,
        '--echoes',
        dest='reconstruction.echoes',
        metavar='LIST',
        type=values.echoes,
        help='echoes to use, in order of echo time, such as 1-3 or 1,3,5 (all)',
    )
    _option(
        group,
        '--volume-index',
        dest='reconstruction.volume_index',
        metavar='N',
        type=values.Number(int, minimum=0),
        help='volume to use, counted from 0, of images that hold repetitions of one echo; they '
        'are refused without it',
    )
    _option(
        group,
        '--force',
        dest='reconstruction.force',
        nargs='+',
        action='extend',
        type=values.force,
        choices=FORCES,
        help='go on although the phase was high-pass filtered (filtered-phase), or without phase, '
        'for R2* alone (r2star-only)',
    )
    _option(
        group,
        '--field-strength',
        dest='reconstruction.field_strength',
        metavar='T',
        type=values.Number(float, minimum=0.01, maximum=25),
        help='main field in tesla, where the sidecar lacks it or is wrong (sidecar)',
    )
    _option(
        group,
        '--b0-dir',
        dest='reconstruction.b0_dir',
        metavar='{affine,x,y,z,X,Y,Z}',
        type=values.b0_direction,
        help='direction of the main field in voxel axes: from the affine, an axis, or three '
        'numbers as in --b0-dir=0,-0.1,0.99 (affine)',
    )
    _option(
        group,
        '--mask',
        dest='reconstruction.mask',
        metavar='{auto,derivatives,PATH}',
        type=values.mask,
        help='brain mask: auto takes one from --derivatives if it matches and finds the brain '
        'otherwise; derivatives insists on one; PATH is used for every acquisition (auto)',
    )
    _option(
        group,
        '--mask-method',
        dest='reconstruction.mask_method',
        choices=MASK_METHODS,
        help='how the brain is found: by registration to a template, or by the learned extractor '
        'of the package deepbet, if it is installed (registration)',
    )
    _option(
        group,
        '--reference-region',
        dest='reconstruction.reference',
        choices=REFERENCE_REGIONS,
        help='region whose mean susceptibility is set to zero (wholebrain)',
    )


def _add_methods(parser) -> None:
    group = parser.add_argument_group(
        'methods',
        'A preset chooses methods and parameters; those that are given win over it. The first\n'
        'method of each list is the default. Parameters and references: docs/methods.md.',
    )
    presets = '; '.join(f'{preset.name}: {preset.summary}' for preset in PRESETS.values())
    _option(
        group,
        '--preset',
        dest='reconstruction.preset',
        choices=tuple(PRESETS),
        help=f'methods and parameters by one name (default). {presets}',
    )
    for stage, option in STAGE_OPTIONS.items():
        _option(
            group,
            f'--{option}',
            dest=f'reconstruction.{stage}',
            choices=tuple(STAGES[stage]),
            metavar='METHOD',
            help=f'{_STAGE_HELP[stage]}: {", ".join(STAGES[stage])}',
        )
        _option(
            group,
            f'--{option}-param',
            dest=f'reconstruction.params.{stage}',
            metavar='KEY=VALUE',
            nargs='+',
            action='extend',
            type=values.parameter,
            help=f'parameters of the --{option} method',
        )
    _option(
        group,
        '--no-unwrapping-fallback',
        dest='reconstruction.unwrapping_fallback',
        action='store_false',
        help='do not try other methods where the field fit shows that the unwrapping failed',
    )
    _option(
        group,
        '--cosmos',
        dest='reconstruction.cosmos',
        action='store_true',
        help='combine series of one session that show the head in three or more orientations '
        '(different run, or acq) in one more map, by COSMOS',
    )


def _add_outputs(parser) -> None:
    group = parser.add_argument_group('outputs')
    _option(
        group,
        '--atlas',
        dest='outputs.atlas',
        metavar='NAME_OR_PATH',
        nargs='+',
        action='extend',
        type=values.atlas,
        help='atlases for the region tables: a built-in one, a BIDS atlas folder, or a '
        'segmentation with a TSV beside it; none for no table (CIT168)',
    )
    _option(
        group,
        '--output-spaces',
        dest='outputs.output_spaces',
        nargs='+',
        action='extend',
        choices=OUTPUT_SPACES,
        help='write maps in these spaces too; that of the acquisition is always written (none)',
    )
    _option(
        group,
        '--level',
        dest='outputs.level',
        choices=OUTPUT_LEVELS,
        help='minimal leaves out the field maps (full)',
    )
    _option(
        group,
        '--output-layout',
        dest='outputs.output_layout',
        choices=OUTPUT_LAYOUTS,
        help='layout of OUTPUT_DIR; the one there is (bids)',
    )
    _option(
        group,
        '--md-only-boilerplate',
        dest='outputs.md_only_boilerplate',
        action='store_true',
        help='write the methods text as Markdown and BibTeX, without HTML',
    )


def _add_resources(parser) -> None:
    group = parser.add_argument_group(
        'resources', 'Defaults are what the machine, the container and Slurm allow.'
    )
    _option(
        group,
        '--nprocs',
        '--nthreads',
        '--n-cpus',
        dest='resources.nprocs',
        metavar='N',
        type=values.Number(int, minimum=1),
        help='processors to use in all',
    )
    _option(
        group,
        '--omp-nthreads',
        dest='resources.omp_nthreads',
        metavar='N',
        type=values.Number(int, minimum=1),
        help='threads of one process (half of --nprocs, at most 8)',
    )
    memory = group.add_mutually_exclusive_group()
    _option(
        memory,
        '--mem-gb',
        '--mem',
        dest='resources.mem_gb',
        metavar='GB',
        type=values.memory_gb,
        help='memory to use in all, in GB, or with a unit as in 16000M',
    )
    _option(
        memory,
        '--mem-mb',
        dest='resources.mem_gb',
        metavar='MB',
        type=values.memory_mb,
        help='the same, in MB',
    )
    _option(
        group,
        '--low-mem',
        dest='resources.low_mem',
        action='store_true',
        help='run steps that need much memory one at a time',
    )
    _option(
        group,
        '--use-plugin',
        '--nipype-plugin-file',
        dest='execution.plugin_file',
        metavar='FILE',
        type=values.existing_file,
        help='YAML, JSON or TOML file with the nipype "plugin" and its "plugin_args"',
    )


def _add_execution(parser) -> None:
    group = parser.add_argument_group('execution')
    _option(
        group,
        '-w',
        '--work-dir',
        dest='execution.work_dir',
        metavar='DIR',
        type=values.any_path,
        help='folder of intermediate files; given again, it resumes an interrupted run '
        '(./work, or .work in OUTPUT_DIR where that cannot be written or lies in BIDS_DIR or '
        'OUTPUT_DIR)',
    )
    for flag, setting, text in (
        (
            '--clean-workdir',
            'clean_workdir',
            'remove the steps of earlier runs from the work folder first; other files stay',
        ),
        (
            '--allow-mixed-settings',
            'allow_mixed_settings',
            'write beside results of other participants that were made by other methods or from '
            'another dataset',
        ),
        ('--dry-run', 'dry_run', 'check the dataset, print what would be done, and stop'),
        ('--stop-on-first-crash', 'stop_on_first_crash', 'stop at the first failure'),
        ('--write-graph', 'write_graph', 'draw the workflow graph into the folder logs/<run>'),
        (
            '--reports-only',
            'reports_only',
            'make the reports of the results in OUTPUT_DIR again; nothing is computed',
        ),
        (
            '--boilerplate-only',
            'boilerplate_only',
            'write the methods text and its citations, and stop',
        ),
        (
            '--resource-monitor',
            'resource_monitor',
            'write peak memory and time of each step into the folder logs/<run>',
        ),
        (
            '--sloppy',
            'sloppy',
            'for trials only: preset fast unless one is given, registrations at 4 mm',
        ),
        ('--debug', 'debug', 'say everything, with tracebacks'),
    ):
        _option(group, flag, dest=f'execution.{setting}', action='store_true', help=text)
    _option(
        group,
        '--dry-run-json',
        dest='execution.dry_run_json',
        metavar='FILE',
        type=values.file_or_stdout,
        help='like --dry-run, with everything found in a JSON file; - for standard output, '
        'in place of the tables',
    )
    _option(
        group,
        '--random-seed',
        dest='execution.random_seed',
        metavar='N',
        type=values.Number(int, minimum=1, maximum=2**31 - 1),
        help='seed of everything random (42)',
    )
    _option(
        group,
        '--run-uuid',
        dest='execution.run_uuid',
        metavar='NAME',
        help='name of this run in logs and work folder (date, time and a random part)',
    )
    _option(
        group,
        '--config-file',
        dest='config_file',
        metavar='FILE',
        type=values.existing_file,
        help='TOML file with settings, such as the one kept with earlier results; '
        'the command line wins',
    )


def _add_other(parser) -> None:
    group = parser.add_argument_group('other')
    group.add_argument('-h', '--help', action='help', help='show this text')
    group.add_argument(
        '--version', action='version', version=f'qsmflow {__version__}', help='show the version'
    )
    group.add_argument(
        '-v',
        '--verbose',
        dest='execution.verbosity',
        action='count',
        help='say more; -vv for debugging',
    )
    _option(
        group,
        '--notrack',
        dest='notrack',
        action='store_true',
        help='accepted and without effect: nothing is ever reported to anyone',
    )
