"""Wrong usage: the message names the option and what to do."""

import pytest

from qsmflow.bids.findings import DatasetError, Finding
from qsmflow.cli.parser import MissingToolError, check_methods, parse_args
from qsmflow.cli.usage import refusal
from qsmflow.settings import SettingsError
from tests.cli.usage import refuse


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
        (
            ['--bipolar', 'on', '--echoes', '1-2'],
            ['--bipolar on needs three echoes', '--echoes has [1, 2]'],
        ),
        (['--bipolar', 'on', '--echoes', '1'], ['--bipolar on', '--echoes has [1]']),
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
        (
            ['--nprocs', '2', '--omp-nthreads', '4'],
            ['--omp-nthreads is 4', '--nprocs, which is 2'],
        ),
        (['--n_cpus=2', '--omp_nthreads=4'], ['--omp_nthreads is 4', '--n_cpus, which is 2']),
        (['--omp-nthreads', '9999'], ['--omp-nthreads is 9999', '--nprocs, which is']),
        (['--run-uuid', '../x'], ['--run-uuid is a name of letters', "'../x'"]),
        (
            ['--strategy', 'superposed', '--inversion', 'tgv'],
            ['--strategy superposed works on the local field', 'takes the total field'],
        ),
        (
            ['--strategy', 'superposed', '--inversion', 'tgv_phase'],
            ['--strategy superposed works on the local field', 'takes the wrapped phase'],
        ),
        (['--random-seed', '0'], ['--random-seed', '>= 1']),
        (['--atlas', './no-such'], ['--atlas', 'no-such']),
        (['--output-spaces', 'MNI'], ['--output-spaces', 'MNI152NLin2009cAsym']),
        (['--config-file', 'no-such.toml'], ['--config-file', 'there is no file']),
        (['--use-plugin', 'no-such.yml'], ['--use-plugin', 'there is no file']),
        (['--bids-filter-file', 'no.json'], ['--bids-filter-file', 'there is no file']),
        (['--bids-database-dir', '../raw/db'], ['--bids-database-dir', 'raw dataset']),
        (['--output-layout', 'legacy'], ['--output-layout', "'legacy'", "'bids'"]),
        (['--mem', '2049'], ['--mem', '2049 GB', '2049M']),
        (['--dry-run', '--reports-only'], ['--dry-run and --reports-only exclude each other']),
        (
            ['--dry-run-json', '-', '--boilerplate_only'],
            ['--dry-run-json and --boilerplate_only exclude each other'],
        ),
        (['-d', 'fs='], ['--derivatives', 'expected a path, got nothing']),
        (['-d', ''], ['--derivatives', 'expected a path, got nothing']),
        (['-d', '../my derivs'], ['--derivatives', "'my_derivs=", 'NAME=PATH']),
        (['--mask', ''], ['--mask', 'expected a path']),
        (['--atlas', ''], ['--atlas', 'expected a path']),
        (['--config-file', ''], ['--config-file', 'expected a path']),
    ],
)
def test_wrong_usage(folders, tmp_path, capsys, options, words):
    (tmp_path / 'my derivs').mkdir()
    message = refuse(capsys, [*folders, *options])
    for word in words:
        assert word in message


def test_no_setting_is_named_that_was_not_given(folders, capsys):
    for options in (['--omp-nthreads', '9999'], ['--bipolar', 'on', '--echoes', '1']):
        message = refuse(capsys, [*folders, *options])
        assert 'resources.' not in message
        assert 'reconstruction.' not in message


@pytest.mark.parametrize('place', [0, 1])
def test_empty_folders(folders, capsys, place):
    folders[place] = ''
    message = refuse(capsys, folders)
    assert ('BIDS_DIR', 'OUTPUT_DIR')[place] in message
    assert 'expected a path, got nothing' in message


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
    for where, evidence in (('', {}), ('/out', {'BIDS_DIR': '/raw', 'uid': 0})):
        finding = Finding('E96', 'FATAL', 'is wrong', where, evidence, 'Do this.')
        assert refusal('E96', 'is wrong', 'Do this.', where, evidence) == str(finding)


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
    '[]': ('filter', ['no JSON object', 'megre (gradient-echo']),
    'null': ('filter', ['no JSON object', '{} filters nothing']),
    '{"flair": {}}': ('filter', ["'flair'", 'Queries are megre', 'dseg (segm']),
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
