"""The options: help, both spellings, a setting for each, and the values that they give."""

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest

from qsmflow import __version__
from qsmflow.algorithms.catalog import PRESETS, STAGES
from qsmflow.cli import parser as parser_module
from qsmflow.cli.options import NOT_SETTINGS, STAGE_OPTIONS, build_parser
from qsmflow.cli.parser import parse_args
from qsmflow.settings import Settings
from tests.cli.usage import refuse

ROOT = Path(__file__).parents[2]
#: Nothing of these may be loaded to show the help.
HEAVY = {'numpy', 'scipy', 'numba', 'nibabel', 'nipype', 'pandas', 'ants', 'bids', 'matplotlib'}


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


def test_every_rule_of_the_phase_scale_is_explained():
    from qsmflow.algorithms.phase import SCALING_RULES

    action = next(a for a in build_parser()._actions if '--phase-scale' in a.option_strings)
    usage = (ROOT / 'docs/usage.md').read_text(encoding='utf-8')
    for rule in SCALING_RULES:
        assert re.search(rf'[ ]{rule}[ ,]', action.help), 'the help cannot import the rules'
        assert f'| `{rule}` |' in usage


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
        (['--atlas', 'CIT168', 'CIT168'], 'outputs.atlas', ('CIT168',)),
        (['--output-spaces', 'T1w', 'T1w'], 'outputs.output_spaces', ('T1w',)),
        (
            ['--output-spaces', 'T1w', '--output-spaces', 'MNI152NLin2009cAsym'],
            'outputs.output_spaces',
            ('T1w', 'MNI152NLin2009cAsym'),
        ),
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


def test_derivatives_in_the_dataset(folders, tmp_path):
    out = tmp_path / 'raw' / 'derivatives' / 'qsmflow'
    for work in (tmp_path / 'w', out / '.work'):
        settings = parse_args([folders[0], str(out), 'participant', '-w', str(work)])
        assert settings.execution.work_dir == str(work)


def test_work_folder_where_the_current_one_is_read_only(folders, tmp_path, monkeypatch):
    monkeypatch.setattr(parser_module.os, 'access', lambda path, mode: False)
    assert parse_args(folders).execution.work_dir == str(tmp_path / 'out' / '.work')


@pytest.mark.parametrize('here', ['raw', 'raw/sub-01', 'out', 'raw/derivatives/qsmflow'])
def test_default_work_folder_is_not_in_dataset_or_results(folders, tmp_path, monkeypatch, here):
    out = here if here.endswith(('out', 'qsmflow')) else 'out'
    (tmp_path / here).mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(tmp_path / here)
    settings = parse_args([folders[0], str(tmp_path / out), 'participant'])
    assert settings.execution.work_dir == str(tmp_path / out / '.work')


@pytest.mark.parametrize(
    'options',
    [('group',), ('participant', '--reports-only'), ('participant', '--boilerplate-only')],
)
def test_place_of_a_work_folder_that_is_not_used_is_no_matter(folders, tmp_path, options):
    parse_args([*folders[:2], *options, '-w', str(tmp_path / 'raw/work')])
    parse_args([*folders[:2], *options, '-w', str(tmp_path / 'out/work')])


@pytest.mark.parametrize('options', [(), ('--dry-run',)])
def test_place_of_a_work_folder_that_is_used_matters(folders, tmp_path, capsys, options):
    message = refuse(capsys, [*folders, *options, '-w', str(tmp_path / 'raw/work')])
    assert '-w/--work-dir lies in the raw dataset' in message
