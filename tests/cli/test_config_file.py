"""Settings files: the command line wins over them, they repeat a run, and some cannot be used."""

import dataclasses

import pytest

from qsmflow.cli.parser import check_methods, parse_args
from qsmflow.settings import Settings
from tests.cli.usage import refuse

#: Setting -> TOML of the file, what it gives; options, what they give. ``@`` is an existing file,
#: ``%`` an existing folder. Positional arguments are always on the command line.
CASES = {
    'bids.bids_dir': ('"/elsewhere"', None, [], '%raw'),
    'bids.output_dir': ('"/elsewhere"', None, [], '%out'),
    'bids.analysis_level': ('"group"', None, [], 'participant'),
    'bids.participant_label': ('["01"]', ('01',), ['--participant-label', '02'], ('02',)),
    'bids.session_label': ('["a"]', ('a',), ['--session-label', 'b'], ('b',)),
    'bids.acq_label': ('["a"]', ('a',), ['--acq-label', 'b'], ('b',)),
    'bids.run_label': ('["1"]', ('1',), ['--run-label', '2'], ('2',)),
    'bids.bids_filter_file': ('"@"', '@', ['--bids-filter-file', '@2'], '@2'),
    'bids.bids_database_dir': ('"%here"', '%here', ['--bids-database-dir', '%db'], '%db'),
    'bids.derivatives': (
        '{a = "%here"}',
        {'a': '%here'},
        ['-d', 'a=%raw', 'b=%here'],
        {'a': '%raw', 'b': '%here'},
    ),
    'bids.skip_bids_validation': ('false', False, ['--skip-bids-validation'], True),
    'reconstruction.phase_scale': ('"rad"', 'rad', ['--phase-scale', '0.5'], '0.5'),
    'reconstruction.phase_sign': ('"-1"', '-1', ['--phase-sign', '+1'], '+1'),
    'reconstruction.bipolar': ('"on"', 'on', ['--bipolar', 'off'], 'off'),
    'reconstruction.echoes': ('[1, 2]', (1, 2), ['--echoes', '1-3'], (1, 2, 3)),
    'reconstruction.volume_index': ('1', 1, ['--volume-index', '2'], 2),
    'reconstruction.force': (
        '["r2star-only"]', ('r2star-only',), ['--force', 'filtered-phase'], ('filtered-phase',),
    ),
    'reconstruction.field_strength': ('7', 7.0, ['--field-strength', '3'], 3.0),
    'reconstruction.b0_dir': ('"x"', 'x', ['--b0-dir', 'y'], 'y'),
    'reconstruction.mask': ('"derivatives"', 'derivatives', ['--mask', '@'], '@'),
    'reconstruction.mask_method': (
        '"deepbet"', 'deepbet', ['--mask-method', 'registration'], 'registration',
    ),
    'reconstruction.preset': ('"fast"', 'fast', ['--preset', 'thorough'], 'thorough'),
    'reconstruction.unwrapping': ('"laplacian"', 'laplacian', ['--unwrap', 'romeo'], 'romeo'),
    'reconstruction.field': ('"averaged"', 'averaged', ['--field-fit', 'weighted'], 'weighted'),
    'reconstruction.background': ('"sharp"', 'sharp', ['--bgfr', 'vsharp'], 'vsharp'),
    'reconstruction.inversion': ('"rts"', 'rts', ['--inversion', 'tkd'], 'tkd'),
    'reconstruction.strategy': ('"single"', 'single', ['--strategy', 'two_pass'], 'two_pass'),
    'reconstruction.relaxometry': ('"nlls"', 'nlls', ['--relaxometry', 'arlo'], 'arlo'),
    'reconstruction.unwrapping_fallback': ('true', True, ['--no-unwrapping-fallback'], False),
    'reconstruction.reference': ('"csf"', 'csf', ['--reference-region', 'none'], 'none'),
    'reconstruction.cosmos': ('false', False, ['--cosmos'], True),
    'reconstruction.params': (
        '{inversion = {max_iter = 5, pad = 8}}',
        {'inversion': {'max_iter': 5, 'pad': 8}},
        ['--inversion-param', 'max_iter=9'],
        {'inversion': {'max_iter': 9, 'pad': 8}},
    ),
    'outputs.atlas': ('["a"]', ('a',), ['--atlas', 'CIT168'], ('CIT168',)),
    'outputs.output_spaces': (
        '["T1w"]', ('T1w',), ['--output-spaces', 'MNI152NLin2009cAsym'], ('MNI152NLin2009cAsym',),
    ),
    'outputs.level': ('"minimal"', 'minimal', ['--level', 'full'], 'full'),
    'outputs.output_layout': ('"bids"', 'bids', ['--output-layout', 'bids'], 'bids'),
    'outputs.md_only_boilerplate': ('false', False, ['--md-only-boilerplate'], True),
    'resources.nprocs': ('3', 3, ['--nprocs', '2'], 2),
    'resources.omp_nthreads': ('2', 2, ['--omp-nthreads', '3'], 3),
    'resources.mem_gb': ('3', 3.0, ['--mem', '2G'], 2.0),
    'resources.low_mem': ('false', False, ['--low-mem'], True),
    'execution.work_dir': ('"%here"', '%here', ['-w', '%w'], '%w'),
    'execution.run_uuid': ('"old"', None, ['--run-uuid', 'new'], 'new'),
    'execution.random_seed': ('3', 3, ['--random-seed', '4'], 4),
    'execution.dry_run': ('false', False, ['--dry-run'], True),
    'execution.dry_run_json': ('"-"', '-', ['--dry-run-json', '%plan.json'], '%plan.json'),
    'execution.clean_workdir': ('false', False, ['--clean-workdir'], True),
    'execution.allow_mixed_settings': ('false', False, ['--allow-mixed-settings'], True),
    'execution.stop_on_first_crash': ('false', False, ['--stop-on-first-crash'], True),
    'execution.write_graph': ('false', False, ['--write-graph'], True),
    'execution.reports_only': ('false', False, ['--reports-only'], True),
    'execution.boilerplate_only': ('false', False, ['--boilerplate-only'], True),
    'execution.resource_monitor': ('false', False, ['--resource-monitor'], True),
    'execution.sloppy': ('false', False, ['--sloppy'], True),
    'execution.debug': ('false', False, ['--debug'], True),
    'execution.plugin_file': ('"@"', '@', ['--use-plugin', '@2'], '@2'),
    'execution.verbosity': ('1', 1, ['-vv'], 2),
}  # fmt: skip


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Return a function that fills in the places of a case."""
    for folder in ('raw', 'here'):
        (tmp_path / folder).mkdir()
    for name in ('file', 'file2'):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path / 'here')

    def fill(value):
        if isinstance(value, str):
            return value.replace('@', f'{tmp_path}/file').replace('%', f'{tmp_path}/')
        if isinstance(value, dict):
            return {key: fill(item) for key, item in value.items()}
        return [fill(item) for item in value] if isinstance(value, list) else value

    return fill


def test_every_setting_is_tested():
    names = {
        f'{group.name}.{item.name}'
        for group in dataclasses.fields(Settings)
        for item in dataclasses.fields(group.default_factory)
    }
    assert set(CASES) == names


@pytest.mark.parametrize('name', CASES)
def test_command_line_wins(tmp_path, place, name):
    group, _, setting = name.partition('.')
    toml, in_file, options, wins = (place(item) for item in CASES[name])
    lines = 'nprocs = 4\n' if setting == 'omp_nthreads' else ''
    config = tmp_path / 'config.toml'
    config.write_text(f'[{group}]\n{lines}{setting} = {toml}\n', encoding='utf-8')
    positionals = [str(tmp_path / 'raw'), str(tmp_path / 'out'), 'participant']

    def parsed(*more):
        settings = parse_args([*positionals, '--config-file', str(config), *more])
        return getattr(getattr(settings, group), setting)

    if in_file is not None:
        assert parsed() == in_file, 'the file wins over the default'
    assert parsed(*options) == wins


def test_command_line_wins_over_file(folders, tmp_path):
    config = tmp_path / 'config.toml'
    config.write_text(
        '[reconstruction]\ninversion = "rts"\nbackground = "vsharp"\n'
        '[reconstruction.params.inversion]\nmax_iter = 5\ndelta = 0.2\n'
        '[resources]\nnprocs = 8\nomp_nthreads = 8\n'
        '[execution]\nrun_uuid = "old"\nrandom_seed = 3\n'
    )
    options = ['--inversion', 'tkd', '--nprocs', '1', '--inversion-param', 'threshold=0.2']
    notes = []
    settings = parse_args([*folders, '--config-file', str(config), *options], notes)
    check_methods(settings)
    assert settings.reconstruction.inversion == 'tkd'
    assert settings.reconstruction.background == 'vsharp'
    assert settings.reconstruction.params == {'inversion': {'threshold': 0.2}}
    (note,) = notes
    for word in ('--inversion is tkd', 'rts', 'max_iter, delta'):
        assert word in note
    assert settings.resources.omp_nthreads == 1
    assert settings.execution.random_seed == 3
    assert settings.execution.run_uuid != 'old'


def test_effective_file_repeats_a_run(folders, tmp_path):
    options = ['--participant-label', '01', '--echoes', '1-3', '--unwrap-param', 'template=1']
    first = parse_args([*folders, *options])
    config = tmp_path / 'effective.toml'
    config.write_text(first.to_toml(), encoding='utf-8')
    again = parse_args([*folders, '--config-file', str(config)])
    assert again.execution.run_uuid != first.execution.run_uuid
    same_run = dataclasses.replace(again.execution, run_uuid=first.execution.run_uuid)
    assert dataclasses.replace(again, execution=same_run) == first


@pytest.mark.parametrize(
    ('text', 'options', 'params', 'told'),
    [
        ('inversion = "tv"', ['--inversion', 'tkd'], {}, 1),
        ('', ['--inversion', 'tkd'], {}, 1),
        ('preset = "default"', ['--inversion', 'tkd'], {}, 1),
        ('inversion = "tv"', ['--inversion', 'tv'], {'max_iter': 12}, 0),
        ('inversion = "tv"', ['--bgfr', 'vsharp'], {'max_iter': 12}, 0),
        ('', ['--preset', 'fast'], {'max_iter': 12, 'refine': 2, 'refine_coarse': (10,)}, 0),
        ('inversion = "rts"', ['--preset', 'fast'], {'max_iter': 12}, 0),
        ('preset = "fast"', ['--preset', 'thorough'], {'max_iter': 12, 'refine': 40}, 0),
        ('', ['--sloppy'], {'max_iter': 12, 'refine': 2, 'refine_coarse': (10,)}, 0),
    ],
)  # fmt: skip
def test_parameters_of_the_file_are_for_its_own_methods(
    folders, tmp_path, text, options, params, told
):
    config = tmp_path / 'config.toml'
    config.write_text(
        f'[reconstruction]\n{text}\n[reconstruction.params.inversion]\nmax_iter = 12\n'
    )
    notes = []
    settings = parse_args([*folders, '--config-file', str(config), *options], notes)
    check_methods(settings)
    assert settings.reconstruction.params.get('inversion', {}) == params
    assert len(notes) == told


def test_paths_are_read_as_on_the_command_line(folders, tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    (tmp_path / 'here' / 'mask.nii').touch()
    (tmp_path / 'plugin.yml').touch()
    config = tmp_path / 'config.toml'
    config.write_text(
        '[execution]\nwork_dir = "~/w"\nplugin_file = "~/plugin.yml"\n'
        '[reconstruction]\nmask = "mask.nii"\n'
        '[bids]\nbids_database_dir = "~/db"\nderivatives = {a = "~/raw"}\n'
        '[outputs]\natlas = ["~/raw", "CIT168", "~/raw"]\n'
    )
    settings = parse_args([*folders, '--config-file', str(config)])
    assert settings.execution.work_dir == str(tmp_path / 'w')
    assert settings.execution.plugin_file == str(tmp_path / 'plugin.yml')
    assert settings.reconstruction.mask == str(tmp_path / 'here' / 'mask.nii')
    assert settings.bids.bids_database_dir == str(tmp_path / 'db')
    assert settings.bids.derivatives == {'a': str(tmp_path / 'raw')}
    assert settings.outputs.atlas == (str(tmp_path / 'raw'), 'CIT168')


def test_no_atlas(folders, tmp_path):
    config = tmp_path / 'config.toml'
    config.write_text('[outputs]\natlas = ["none"]\n')
    assert parse_args([*folders, '--config-file', str(config)]).outputs.atlas == ()


# --- configuration files that cannot be used ---


@pytest.mark.parametrize(
    ('text', 'word'), [('[resources]\nnproc = 1', "'nprocs'"), ('x = ', 'TOML'), ('\xff', 'utf-8')]
)
def test_bad_file(folders, tmp_path, capsys, text, word):
    config = tmp_path / 'config.toml'
    config.write_text(text, encoding='latin-1')
    message = refuse(capsys, [*folders, '--config-file', str(config)])
    assert '--config-file' in message
    assert word in message


@pytest.mark.parametrize(
    ('text', 'option'),
    [
        ('[reconstruction]\nmask = "/no/such.nii"', '--mask'),
        ('[execution]\nplugin_file = "/no/such.yml"', '--use-plugin'),
        ('[bids.derivatives]\nfmriprep = "/no/such"', '--derivatives'),
        ('[bids]\nbids_filter_file = "/no/such.json"', '--bids-filter-file'),
        ('[outputs]\natlas = ["/no/such"]', 'outputs.atlas'),
    ],
)
def test_file_that_names_what_is_not_there(folders, tmp_path, capsys, text, option):
    config = tmp_path / 'config.toml'
    config.write_text(text)
    message = refuse(capsys, [*folders, '--config-file', str(config)])
    assert option in message
    assert '/no/such' in message


@pytest.mark.parametrize(
    ('text', 'word'),
    [
        ('[bids.derivatives]\nfs = ""', 'bids.derivatives.fs: expected a path'),
        ('[outputs]\natlas = [""]', 'outputs.atlas: expected a path'),
    ],
)
def test_empty_path_is_not_the_current_folder(folders, tmp_path, capsys, text, word):
    config = tmp_path / 'config.toml'
    config.write_text(text)
    assert word in refuse(capsys, [*folders, '--config-file', str(config)])


def test_what_stands_in_the_file_keeps_its_name(folders, tmp_path, capsys):
    config = tmp_path / 'config.toml'
    config.write_text('[reconstruction]\nbipolar = "on"\n')
    message = refuse(capsys, [*folders, '--config-file', str(config), '--echoes', '1'])
    assert "reconstruction.bipolar = 'on' needs" in message
    assert '--echoes has [1]' in message
