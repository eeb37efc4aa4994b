import json
import subprocess
import sys
from pathlib import Path

import pytest

from qsmflow import __version__
from qsmflow.cli.descriptor import dump, make_descriptor, option_flag
from qsmflow.cli.options import build_parser
from qsmflow.cli.parser import parse_args
from qsmflow.cli.run import EXIT_CODES

FILE = Path(__file__).parents[2] / 'descriptor.json'


@pytest.fixture(scope='module')
def descriptor():
    return make_descriptor()


@pytest.fixture(scope='module')
def inputs(descriptor):
    return {entry['id']: entry for entry in descriptor['inputs']}


def bosh(*arguments):
    """Run the Boutiques command of this environment."""
    return subprocess.run(
        [Path(sys.executable).with_name('bosh'), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_file_is_fresh():
    command = 'python -m qsmflow.cli.descriptor > descriptor.json'
    assert FILE.read_text(encoding='utf-8') == dump(), f'run: {command}'


@pytest.mark.parametrize('options', [[], ['--bids']])
def test_valid(options):
    result = bosh('validate', *options, FILE)
    assert result.returncode == 0, result.stdout + result.stderr
    assert 'OK' in result.stdout
    if options:
        assert 'BIDS validation OK' in result.stdout


def test_validation_can_fail(tmp_path, descriptor):
    broken = {**descriptor, 'command-line': 'qsmflow [BIDS_DIR]'}
    (tmp_path / 'broken.json').write_text(json.dumps(broken))
    result = bosh('validate', '--bids', tmp_path / 'broken.json')
    assert result.returncode != 0


def test_every_option_is_there_and_nothing_else(inputs):
    options = {
        option_flag(action)
        for action in build_parser()._actions
        if action.option_strings and action.dest not in ('help', 'version')
    }
    assert {entry.get('command-line-flag') for entry in inputs.values()} - {None} == options


def test_choices_and_limits(inputs):
    for action in build_parser()._actions:
        if not action.option_strings or action.dest in ('help', 'version'):
            continue
        entry = inputs[option_flag(action)[2:].replace('-', '_')]
        assert entry.get('value-choices') == (list(action.choices) if action.choices else None)
        assert entry.get('list', False) == (action.nargs == '+')
        assert (entry['type'] == 'Flag') == (action.nargs == 0)
    assert inputs['random_seed']['maximum'] == 2**31 - 1
    assert inputs['nprocs']['integer']
    assert not inputs['field_strength']['integer']


def test_literals_keep_their_letters(inputs):
    assert inputs['participant_label']['description'].startswith('sub- labels')
    assert inputs['level']['description'].startswith('minimal leaves out')
    assert inputs['analysis_level']['description'].startswith('participant: ')
    assert inputs['nprocs']['description'].startswith('Processors to use')


def test_version_and_exit_codes(descriptor):
    assert descriptor['tool-version'] == __version__
    assert descriptor['container-image']['image'].endswith(f':{__version__}')
    assert {entry['code'] for entry in descriptor['error-codes']} == set(EXIT_CODES) - {0}


def test_command_line_is_understood(tmp_path, monkeypatch):
    """What Boutiques makes of an invocation is what the parser reads, odd characters included."""
    import shlex

    raw = tmp_path / "raw data; [1] it's"
    raw.mkdir()
    monkeypatch.chdir(tmp_path)
    invocation = {
        'bids_dir': str(raw),
        'output_dir_name': str(tmp_path / 'out put'),
        'analysis_level': 'participant',
        'participant_label': ['01', '02'],
        'b0_dir': '-1,0,0',
        'phase_sign': '-1',
        'inversion': 'tkd',
        'inversion_param': ['threshold=0.2'],
        'nprocs': 1,
        'field_strength': 3,
        'dry_run': True,
    }
    (tmp_path / 'invocation.json').write_text(json.dumps(invocation))
    result = bosh('exec', 'simulate', FILE, '-i', tmp_path / 'invocation.json')
    line = next(text for text in result.stdout.splitlines() if 'qsmflow' in text)
    _, _, command = line.partition('; qsmflow ')
    settings = parse_args(shlex.split(command))
    assert settings.bids.bids_dir == str(raw)
    assert settings.bids.output_dir == str(tmp_path / 'out put')
    assert settings.bids.participant_label == ('01', '02')
    assert settings.reconstruction.b0_vector == (-1, 0, 0)
    assert settings.reconstruction.phase_sign == '-1'
    assert settings.reconstruction.params == {'inversion': {'threshold': 0.2}}
    assert settings.resources.nprocs == 1
    assert settings.execution.dry_run
