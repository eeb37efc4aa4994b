import dataclasses
import subprocess
import sys

import pytest

from qsmflow import __version__
from qsmflow.algorithms.catalog import PRESETS, STAGES, Preset, default
from qsmflow.bids.findings import DatasetError
from qsmflow.cli import parser as parser_module
from qsmflow.cli.options import NOT_SETTINGS, STAGE_OPTIONS, build_parser
from qsmflow.cli.parser import MissingToolError, check_methods, parse_args
from qsmflow.cli.usage import refusal
from qsmflow.settings import Settings, SettingsError

#: Nothing of these may be loaded to show the help.
HEAVY = {'numpy', 'scipy', 'numba', 'nibabel', 'nipype', 'pandas', 'ants', 'bids', 'matplotlib'}


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """A dataset folder, an output folder and a current folder, as the three positionals."""
    (tmp_path / 'raw').mkdir()
    (tmp_path / 'here').mkdir()
    monkeypatch.chdir(tmp_path / 'here')
    return [str(tmp_path / 'raw'), str(tmp_path / 'out'), 'participant']


def refuse(capsys, argv) -> str:
    """Parse what must be refused as wrong usage; return the message."""
    with pytest.raises(SystemExit) as caught:
        parse_args(argv)
    assert caught.value.code == 2
    message = capsys.readouterr().err
    assert message.rstrip().endswith('exit code 2 (usage error).')
    return message


def run_help(*python_options):
    return subprocess.run(
        [sys.executable, *python_options, '-m', 'qsmflow', '--help'],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )


def test_help_loads_nothing_heavy():
    loaded = {
        line.rpartition('|')[2].strip().partition('.')[0]
        for line in run_help('-X', 'importtime').stderr.splitlines()
    }
    assert 'argparse' in loaded
    assert not HEAVY & loaded


def test_help_is_quick():
    # Processor time, which other programs on the machine do not change; half a second is what
    # numpy and nibabel alone would take.
    code = (
        'import resource, subprocess, sys;'
        'subprocess.run([sys.executable, "-m", "qsmflow", "--help"], check=True, stdout=-3);'
        'used = resource.getrusage(resource.RUSAGE_CHILDREN);'
        'print(used.ru_utime + used.ru_stime)'
    )
    result = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, check=True
    )
    assert float(result.stdout) < 1.0


def test_help_text():
    text = run_help().stdout
    for part in ('examples:', 'methods:', 'resources:', 'Exit codes:', 'docs/usage.md'):
        assert part in text
    for line in text.splitlines():
        assert len(line) <= 100
    assert '--participant_label' not in text, 'the second spelling would only be noise'


def test_version(capsys):
    with pytest.raises(SystemExit) as caught:
        parse_args(['--version'])
    assert caught.value.code == 0
    assert capsys.readouterr().out.strip() == f'qsmflow {__version__}'


# --- every option reaches a setting, every setting has an option ---


def setting_names():
    return {
        f'{group.name}.{item.name}'
        for group in dataclasses.fields(Settings)
        for item in dataclasses.fields(group.default_factory)
    }


def test_every_option_is_a_setting():
    for action in build_parser()._actions:
        if action.dest in NOT_SETTINGS:
            continue
        name, _, stage = action.dest.partition('.params.')
        if stage:
            assert stage in STAGES
        else:
            assert name in setting_names()


def test_every_setting_has_an_option():
    options = {action.dest.partition('.params.')[0] for action in build_parser()._actions}
    assert setting_names() - {'reconstruction.params'} <= options


def test_every_stage_and_method_has_a_choice():
    assert set(STAGE_OPTIONS) == set(STAGES)
    actions = {action.dest: action for action in build_parser()._actions}
    for stage, methods in STAGES.items():
        assert actions[f'reconstruction.{stage}'].choices == tuple(methods)


def test_every_preset_is_a_choice_and_explained():
    action = next(item for item in build_parser()._actions if '--preset' in item.option_strings)
    assert action.choices == tuple(PRESETS)
    for preset in PRESETS.values():
        assert f'{preset.name}: {preset.summary}' in action.help


def test_both_spellings():
    for action in build_parser()._actions:
        for name in action.option_strings:
            if name.startswith('--'):
                other = '--' + name[2:].replace('-', '_')
                assert other in action.option_strings


def test_no_abbreviations(folders, capsys):
    assert '--inversion' in refuse(capsys, [*folders, '--invers', 'tkd'])


# --- values ---


def test_defaults(folders, tmp_path):
    settings = parse_args(folders)
    assert settings.bids.bids_dir == str(tmp_path / 'raw')
    assert settings.execution.work_dir == str(tmp_path / 'here' / 'work')
    assert settings.reconstruction == Settings().reconstruction
    assert settings.outputs == Settings().outputs
    assert parse_args(folders).execution.run_uuid != settings.execution.run_uuid


@pytest.mark.parametrize(
    ('options', 'name', 'expected'),
    [
        (['--participant-label', 'sub-01', '02'], 'bids.participant_label', ('01', '02')),
        (['--participant_label', '01', '01'], 'bids.participant_label', ('01',)),
        (
            ['--participant-label', '01', '--participant-label', '02'],
            'bids.participant_label',
            ('01', '02'),
        ),
        (['--session-id', 'ses-pre'], 'bids.session_label', ('pre',)),
        (['--acq-label', 'acq-hires'], 'bids.acq_label', ('hires',)),
        (['--run-label', '1'], 'bids.run_label', ('1',)),
        (['--skip_bids_validation'], 'bids.skip_bids_validation', True),
        (['--phase-scale', '0.001'], 'reconstruction.phase_scale', '0.001'),
        (['--phase-sign', '-1'], 'reconstruction.phase_sign', '-1'),
        (['--phase-sign=1'], 'reconstruction.phase_sign', '+1'),
        (['--bipolar', 'on'], 'reconstruction.bipolar', 'on'),
        (['--bipolar', 'off', '--echoes', '1,3'], 'reconstruction.bipolar', 'off'),
        (['--echoes', '3,1-2'], 'reconstruction.echoes', (1, 2, 3)),
        (['--field-strength', '7'], 'reconstruction.field_strength', 7.0),
        (['--b0-dir', 'y'], 'reconstruction.b0_vector', (0, 1, 0)),
        (['--b0-dir=-1,0,0'], 'reconstruction.b0_vector', (-1, 0, 0)),
        (['--mask', 'derivatives'], 'reconstruction.mask', 'derivatives'),
        (['--mask-method', 'deepbet'], 'reconstruction.mask_method', 'deepbet'),
        (['--preset', 'fast'], 'reconstruction.preset', 'fast'),
        (['--cosmos'], 'reconstruction.cosmos', True),
        ([], 'reconstruction.cosmos', False),
        (['--unwrap', 'laplacian'], 'reconstruction.unwrapping', 'laplacian'),
        (['--no-unwrapping-fallback'], 'reconstruction.unwrapping_fallback', False),
        (['--field_fit', 'weighted'], 'reconstruction.field', 'weighted'),
        (['--bgfr', 'vsharp'], 'reconstruction.background', 'vsharp'),
        (['--inversion', 'rts'], 'reconstruction.inversion', 'rts'),
        (['--relaxometry', 'loglinear'], 'reconstruction.relaxometry', 'loglinear'),
        (['--reference-region', 'none'], 'reconstruction.reference', 'none'),
        (
            ['--inversion-param', 'reg-weight=1e-4', 'max_iter=20', '--inversion-param', 'x=true'],
            'reconstruction.params',
            {'inversion': {'reg_weight': 1e-4, 'max_iter': 20, 'x': True}},
        ),
        (['--atlas', 'none'], 'outputs.atlas', ()),
        (['--atlas', 'CIT168'], 'outputs.atlas', ('CIT168',)),
        (['--output-spaces', 'T1w', 'T1w'], 'outputs.output_spaces', ('T1w',)),
        (['--level', 'minimal'], 'outputs.level', 'minimal'),
        (['--n_cpus', '3'], 'resources.nprocs', 3),
        (['--nprocs', '6'], 'resources.omp_nthreads', 3),
        (['--nprocs', '3', '--omp-nthreads', '2'], 'resources.omp_nthreads', 2),
        (['--mem', '16'], 'resources.mem_gb', 16.0),
        (['--mem_gb', '512M'], 'resources.mem_gb', 0.5),
        (['--mem-mb', '2048'], 'resources.mem_gb', 2.0),
        (['--low-mem'], 'resources.low_mem', True),
        (['-w', '../scratch'], 'execution.work_dir', 'scratch'),
        (['--run-uuid', 'first'], 'execution.run_uuid', 'first'),
        (['--random-seed', '7'], 'execution.random_seed', 7),
        (['--dry-run'], 'execution.dry_run', True),
        (['--clean-workdir'], 'execution.clean_workdir', True),
        (['--allow-mixed-settings'], 'execution.allow_mixed_settings', True),
        (['--stop-on-first-crash'], 'execution.stop_on_first_crash', True),
        (['--write-graph'], 'execution.write_graph', True),
        (['--reports-only'], 'execution.reports_only', True),
        (['--boilerplate_only'], 'execution.boilerplate_only', True),
        (['--resource-monitor'], 'execution.resource_monitor', True),
        (['--sloppy'], 'reconstruction.preset', 'fast'),
        (['--sloppy', '--preset', 'thorough'], 'reconstruction.preset', 'thorough'),
        (['--debug'], 'execution.verbosity', 2),
        (['--output-layout', 'bids'], 'outputs.output_layout', 'bids'),
        (['--md_only_boilerplate'], 'outputs.md_only_boilerplate', True),
        (['-vv'], 'execution.verbosity', 2),
    ],
)
def test_values(folders, options, name, expected):
    group, _, setting = name.partition('.')
    found = getattr(getattr(parse_args([*folders, *options]), group), setting)
    if name == 'execution.work_dir':
        assert found.endswith(expected)
        assert found.startswith('/')
    else:
        assert found == expected
        assert type(found) is type(expected)


def test_notrack_changes_nothing(folders):
    options = ['--run-uuid', 'x']
    assert parse_args([*folders, *options, '--notrack']) == parse_args([*folders, *options])


def test_paths_become_absolute(folders, tmp_path):
    (tmp_path / 'here' / 'mask.nii.gz').touch()
    (tmp_path / 'here' / 'fmriprep').mkdir()
    settings = parse_args(
        [*folders, '--mask', 'mask.nii.gz', '-d', 'fmriprep', f'anat={tmp_path / "raw"}']
    )
    assert settings.reconstruction.mask == str(tmp_path / 'here' / 'mask.nii.gz')
    assert settings.bids.derivatives == {
        'fmriprep': str(tmp_path / 'here' / 'fmriprep'),
        'anat': str(tmp_path / 'raw'),
    }


@pytest.mark.parametrize('name', ['with space', 'größe', 'semi;colon', '[x]', "quote'"])
def test_unusual_folder_names(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()
    settings = parse_args([name, f'{name} out', 'group'])
    assert settings.bids.bids_dir == str(tmp_path / name)
    assert Settings.from_toml(settings.to_toml()) == settings


# --- wrong usage: the message names the option and what to do ---


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (['--inversoin', 'tkd'], ['--inversoin', "'--inversion'"]),
        (['--inversion', 'tkdd'], ['--inversion', 'tkdd', 'tkd']),
        (['--preset', 'quick'], ['--preset', 'quick', 'thorough']),
        (['–participant-label', '01'], ['typographic dash', '--participant-label']),
        (['—dry-run'], ['typographic dash', '--dry-run']),
        (['−w', '/tmp'], ['typographic dash', 'type -w']),
        (['extra'], ["'extra'", 'three positional']),
        (['--participant-label', 'sub-0_1'], ['--participant-label', "'sub-0_1'"]),
        (['--participant-label'], ['--participant-label', 'expected']),
        (['--echoes', '3-1'], ['--echoes', "'3-1'"]),
        (['--echoes', '0'], ['--echoes', 'from 1']),
        (['--bipolar', 'yes'], ['--bipolar', "'yes'", 'auto']),
        (['--bipolar', 'on', '--echoes', '1-2'], ['reconstruction.bipolar', 'three echoes']),
        (['--bipolar', 'on', '--echoes', '1,3,5'], ['odd and even', '[1, 3, 5]', "'auto'"]),
        (['--field-strength', '3000'], ['--field-strength', '<= 25', '3000']),
        (['--field-strength', 'nan'], ['--field-strength', 'nan']),
        (['--b0-dir', 'up'], ['--b0-dir', "'up'"]),
        (['--phase-sign', '2'], ['--phase-sign', '+1']),
        (['--mask', 'no-such.nii'], ['--mask', 'there is no file', 'no-such.nii']),
        (['-d', 'raw=.'], ['--derivatives', "'raw'", 'BIDS_DIR']),
        (['-d', 'a:b=.'], ['--derivatives', "'a:b'"]),
        (['-d', 'a=.', 'a=..'], ['--derivatives', "'a' names two datasets"]),
        (['-d', 'x=no-such'], ['--derivatives', 'there is no folder']),
        (['--inversion-param', 'reg_weight'], ['--inversion-param', 'KEY=VALUE']),
        (['--mem', '16000'], ['--mem', '16000M', '--mem-mb 16000']),
        (['--mem', 'much'], ['--mem', "'much'"]),
        (['--mem-gb', '1', '--mem-mb', '1'], ['--mem-mb', 'not allowed with']),
        (['--nprocs', '0'], ['--nprocs', '>= 1']),
        (['--nprocs', '2', '--omp-nthreads', '4'], ['omp_nthreads', 'nprocs']),
        (['--random-seed', '0'], ['--random-seed', '>= 1']),
        (['--atlas', './no-such'], ['--atlas', 'no-such']),
        (['--output-spaces', 'MNI'], ['--output-spaces', 'MNI152NLin2009cAsym']),
        (['--config-file', 'no-such.toml'], ['--config-file', 'there is no file']),
        (['--use-plugin', 'no-such.yml'], ['--use-plugin', 'there is no file']),
        (['--bids-filter-file', 'no.json'], ['--bids-filter-file', 'there is no file']),
        (['--bids-database-dir', '../raw/db'], ['--bids-database-dir', 'raw dataset']),
        (['--output-layout', 'legacy'], ['--output-layout', "'legacy'", "'bids'"]),
        (['--mem', '2049'], ['--mem', '2049 GB', '2049M']),
        (['--dry-run', '--reports-only'], ['dry_run', 'reports_only', 'exclude each other']),
    ],
)
def test_wrong_usage(folders, capsys, options, words):
    message = refuse(capsys, [*folders, *options])
    for word in words:
        assert word in message


def test_wrong_level(folders, capsys):
    message = refuse(capsys, [*folders[:2], 'subject'])
    assert 'subject' in message
    assert 'participant' in message


def test_missing_dataset(tmp_path, capsys):
    message = refuse(capsys, [str(tmp_path / 'nowhere'), str(tmp_path), 'participant'])
    assert 'BIDS_DIR' in message
    assert 'nowhere' in message


def test_swallowed_positionals(folders, capsys):
    message = refuse(capsys, ['--participant-label', '01', *folders])
    assert 'paths come before all options' in message
    message = refuse(capsys, ['--participant-label', '01'])
    assert 'come before all options' in message


@pytest.mark.parametrize(
    ('output', 'work', 'words'),
    [
        ('raw/sub-01', 'w', ['OUTPUT_DIR', 'Use for example', 'raw/derivatives/qsmflow']),
        ('out', 'out', ['--work-dir', 'results', 'out/.work']),
        ('file', 'w', ['OUTPUT_DIR', 'is a file']),
    ],
)
def test_folders_that_would_mix(folders, tmp_path, capsys, output, work, words):
    """Further places are among the defects of row E96 (tests/bids/defects/program.py)."""
    (tmp_path / 'file').touch()
    argv = [folders[0], str(tmp_path / output), 'participant', '-w', str(tmp_path / work)]
    message = refuse(capsys, argv)
    for word in words:
        assert word in message


def test_refusals_read_as_findings():
    from qsmflow.bids.findings import Finding

    for where, evidence in (('', {}), ('/out', {'BIDS_DIR': '/raw', 'uid': 0})):
        finding = Finding('E96', 'FATAL', 'is wrong', where, evidence, 'Do this.')
        assert refusal('E96', 'is wrong', 'Do this.', where, evidence) == str(finding)


def test_derivatives_in_the_dataset(folders, tmp_path):
    out = tmp_path / 'raw' / 'derivatives' / 'qsmflow'
    for work in (tmp_path / 'w', out / '.work'):
        settings = parse_args([folders[0], str(out), 'participant', '-w', str(work)])
        assert settings.execution.work_dir == str(work)


def test_work_folder_where_the_current_one_is_read_only(folders, tmp_path, monkeypatch):
    monkeypatch.setattr(parser_module.os, 'access', lambda path, mode: False)
    assert parse_args(folders).execution.work_dir == str(tmp_path / 'out' / '.work')


# --- configuration file ---


def test_command_line_wins_over_file(folders, tmp_path):
    config = tmp_path / 'config.toml'
    config.write_text(
        '[reconstruction]\ninversion = "rts"\nbackground = "vsharp"\n'
        '[reconstruction.params.inversion]\nmax_iter = 5\ndelta = 0.2\n'
        '[resources]\nnprocs = 8\nomp_nthreads = 8\n'
        '[execution]\nrun_uuid = "old"\nrandom_seed = 3\n'
    )
    options = ['--inversion', 'tkd', '--nprocs', '1', '--inversion-param', 'max_iter=9']
    settings = parse_args([*folders, '--config-file', str(config), *options])
    assert settings.reconstruction.inversion == 'tkd'
    assert settings.reconstruction.background == 'vsharp'
    assert settings.reconstruction.params == {'inversion': {'max_iter': 9, 'delta': 0.2}}
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


# --- presets ---


@pytest.fixture
def quick(monkeypatch):
    """A preset with another inversion than the default one."""
    params = {'inversion': {'threshold': 0.1}, 'background': {'max_iter': 7}}
    preset = Preset('quick', 'for this test', methods={'inversion': 'tkd'}, params=params)
    monkeypatch.setitem(PRESETS, 'quick', preset)
    return preset


def repeated(folders, tmp_path, options, again):
    """Run with options, then with the settings file of that run and further options."""
    config = tmp_path / 'effective.toml'
    config.write_text(parse_args([*folders, *options]).to_toml(), encoding='utf-8')
    return parse_args([*folders, '--config-file', str(config), *again]).reconstruction


def test_options_win_over_the_preset(folders, quick):
    options = ['--preset', 'quick', '--inversion-param', 'correct=true', '--bgfr', 'vsharp']
    recon = parse_args([*folders, *options]).reconstruction
    assert recon.inversion == 'tkd'
    assert recon.background == 'vsharp'
    assert recon.params == {'inversion': {'threshold': 0.1, 'correct': True}}


def test_file_wins_over_the_preset(folders, tmp_path, quick):
    config = tmp_path / 'config.toml'
    config.write_text(
        '[reconstruction]\nbackground = "resharp"\n'
        '[reconstruction.params.inversion]\nthreshold = 0.2\n'
    )
    options = ['--config-file', str(config), '--preset', 'quick']
    recon = parse_args([*folders, *options]).reconstruction
    assert recon.preset == 'quick'
    assert recon.background == 'resharp'
    assert recon.params == {'inversion': {'threshold': 0.2}}


def test_option_wins_over_the_preset_of_the_file(folders, tmp_path, quick):
    config = tmp_path / 'config.toml'
    config.write_text(
        '[reconstruction]\npreset = "quick"\n[reconstruction.params.background]\nmax_iter = 9\n'
    )
    recon = parse_args([*folders, '--config-file', str(config), '--preset', 'default'])
    assert recon.reconstruction.inversion == default('inversion')
    assert recon.reconstruction.params == {'background': {'max_iter': 9}}


@pytest.mark.parametrize('preset', ['quick', *PRESETS])
def test_effective_file_repeats_a_preset(folders, tmp_path, quick, preset):
    options = ['--preset', preset, '--inversion-param', 'pad=8']
    first = parse_args([*folders, *options]).reconstruction
    assert repeated(folders, tmp_path, options, []) == first


def test_effective_file_with_another_preset(folders, tmp_path, quick):
    options = ['--preset', 'quick', '--inversion-param', 'pad=8']
    recon = repeated(folders, tmp_path, options, ['--preset', 'default'])
    assert recon == parse_args([*folders, '--inversion-param', 'pad=8']).reconstruction
    recon = repeated(folders, tmp_path, [], ['--preset', 'quick'])
    assert recon == parse_args([*folders, '--preset', 'quick']).reconstruction


def test_effective_file_with_another_method(folders, tmp_path, quick):
    recon = repeated(folders, tmp_path, ['--preset', 'quick'], ['--inversion', 'rts'])
    assert recon.inversion == 'rts'
    assert recon.params == {'background': {'max_iter': 7}}


@pytest.mark.parametrize('preset', PRESETS)
def test_presets_pass_the_check_of_methods(folders, preset):
    check_methods(parse_args([*folders, '--preset', preset]))


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
    ],
)
def test_file_that_names_what_is_not_there(folders, tmp_path, capsys, text, option):
    config = tmp_path / 'config.toml'
    config.write_text(text)
    message = refuse(capsys, [*folders, '--config-file', str(config)])
    assert option in message
    assert '/no/such' in message


# --- what only the algorithms know ---


def test_method_parameters_are_known(folders):
    check_methods(
        parse_args([*folders, '--inversion', 'tkd', '--inversion-param', 'threshold=0.2'])
    )


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (
            ['--inversion', 'tkd', '--inversion-param', 'treshold=0.2'],
            ['--inversion-param', "Did you mean 'threshold'"],
        ),
        (['--inversion', 'tkd', '--inversion-param', 'b0_dir=1'], ['--inversion-param', 'b0_dir']),
        (['--phase-scale', 'degrees-ish'], ['--phase-scale', 'degrees-ish']),
        (['--atlas', 'CIT169'], ['--atlas', "Did you mean 'CIT168'"]),
    ],
)
def test_unknown_to_the_algorithms(folders, capsys, options, words):
    with pytest.raises(SystemExit) as caught:
        check_methods(parse_args([*folders, *options]))
    assert caught.value.code == 2
    message = capsys.readouterr().err
    for word in words:
        assert word in message


FILES = {
    'plugin: MultiProcc': ('plugin', ["'MultiProcc'", "Did you mean 'MultiProc'", 'SLURM']),
    'plugin_args: {}': ('plugin', ['names no plugin']),
    'plugin: SLURM\nplugin_arg: {}': ('plugin', ["'plugin_arg'", "'plugin_args'"]),
    'plugin: SLURM\nplugin_args: 3': ('plugin', ['must be a table']),
    'plugin: {': ('plugin', ['not valid YAML']),
    '{"megr": {}}': ('filter', ["'megr'", 'megre']),
    '{"megre": {"aquisition": "x"}}': ('filter', ["'aquisition'", 'acquisition']),
    '{"megre": {"run": {"x": 1}}}': ('filter', ["'run'", '"*"']),
    '{"megre": 3}': ('filter', ["'megre'", 'no JSON object']),
    '[1]': ('filter', ['no JSON object']),
    '{"megre": ': ('filter', ['cannot be read']),
}


@pytest.mark.parametrize('text', FILES)
def test_files_that_cannot_be_used(folders, tmp_path, text):
    kind, words = FILES[text]
    option = {'plugin': '--use-plugin', 'filter': '--bids-filter-file'}[kind]
    path = tmp_path / 'file.yml'
    path.write_text(text)
    settings = parse_args([*folders, option, str(path)])
    with pytest.raises((SettingsError, DatasetError)) as caught:
        check_methods(settings)
    assert caught.value.exit_code == 2
    for word in (option, str(path), *words):
        assert word in str(caught.value)


def test_missing_extra(folders, monkeypatch):
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    with pytest.raises(MissingToolError, match='--mask-method') as caught:
        check_methods(parse_args([*folders, '--mask-method', 'deepbet']))
    assert caught.value.exit_code == 127
