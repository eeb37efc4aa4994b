"""The descriptor in the hands of Boutiques: examples, simulated command lines, real launches."""

import json
import os
import random
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from qsmflow.cli import values
from qsmflow.cli.descriptor import make_descriptor, option_flag
from qsmflow.cli.options import build_parser
from qsmflow.cli.parser import parse_args
from qsmflow.settings import Settings
from tests.bids.defects import write_clean

ROOT = Path(__file__).parents[2]
FILE = ROOT / 'descriptor.json'
#: Values in the place of the free text that Boutiques makes up, by the type of the option.
SAMPLES = {
    'any_path': 'some folder',
    'atlas': 'none',
    'b0_direction': '-1,0,0',
    'derivatives': 'other=derivatives folder',
    'echoes': '1-3',
    'existing_file': 'a file.toml',
    'file_or_stdout': '-',
    'mask': 'a file.toml',
    'memory_gb': '16G',
    'memory_mb': '16000',
}
NAMED = {
    'phase_scale': 'rad',
    'run_uuid': 'a-name',
    'work_dir': 'work folder',
    # Which of the methods are made up together is not known, so that their parameters are not.
    **dict.fromkeys(('omp_nthreads', 'nprocs'), 4),
    'strategy': 'single',
}


def in_process(capsys, *words):
    """Run Boutiques in this process and return what it printed."""
    from boutiques.bosh import bosh

    capsys.readouterr()
    result = bosh([str(word) for word in words])
    return result, capsys.readouterr().out


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Work in a folder with odd characters that holds what the samples name."""
    # Without brackets: Boutiques looks for outputs by a pattern.
    folder = tmp_path / "odd; $name it's é"
    folder.mkdir()
    (folder / 'derivatives folder').mkdir()
    (folder / 'a file.toml').write_text('')
    write_clean(folder / 'raw data')
    monkeypatch.chdir(folder)
    return folder


def actions():
    found = [a for a in build_parser()._actions if a.option_strings]
    return {
        option_flag(a)[2:].replace('-', '_'): a for a in found if a.dest not in ('help', 'version')
    }


def sample(name, action, made_up):
    """Return a value that the option takes; those that Boutiques chose are kept."""
    if name in NAMED:
        return NAMED[name]
    if isinstance(action.type, values.Label):
        return ['01']
    if isinstance(made_up, bool) or action.choices or isinstance(action.type, values.Number):
        return made_up
    kind = getattr(action.type, '__name__', '')
    assert kind in SAMPLES, f'--{name}: add a value for it to SAMPLES or NAMED of this test'
    return [SAMPLES[kind]] if action.nargs == '+' else SAMPLES[kind]


def completed(made_up, folder):
    """Return an invocation that can be run, from one that Boutiques made up."""
    known = actions()
    ours = {
        name: sample(name, known[name], value)
        for name, value in made_up.items()
        if name in known and not name.endswith('_param')
    }
    # What excludes one another beyond what a descriptor can say.
    for name in ('boilerplate_only', 'reports_only', 'volume_index', 'config_file', 'use_plugin'):
        ours.pop(name, None)
    return {
        **ours,
        'bids_dir': str(folder / 'raw data'),
        'output_dir_name': str(folder / 'out put'),
        'analysis_level': 'participant',
    }


def command_line(capsys, invocation, folder):
    """Let Boutiques make the command line of an invocation, and return its words."""
    path = folder / 'invocation.json'
    path.write_text(json.dumps(invocation))
    result, _ = in_process(capsys, 'exec', 'simulate', FILE, '-i', path)
    assert result.exit_code == 0
    first, _, rest = result.stdout.strip().partition('; qsmflow ')
    assert first == f'mkdir -p {shlex.quote(invocation["output_dir_name"])}'
    return shlex.split(rest)


@pytest.mark.parametrize('seed', range(3))
def test_complete_examples_are_command_lines(capsys, place, seed):
    random.seed(seed)
    example, _ = in_process(capsys, 'example', '--complete', FILE)
    invocation = completed(json.loads(example), place)
    assert len(invocation) > 30
    settings = parse_args(command_line(capsys, invocation, place))
    recon = settings.reconstruction
    assert recon.background == invocation['bgfr']
    assert recon.inversion == invocation['inversion']
    assert recon.field_strength == pytest.approx(invocation['field_strength'])
    assert recon.b0_vector == (-1, 0, 0)
    assert recon.mask == str(place / 'a file.toml')
    assert settings.execution.random_seed == invocation['random_seed']
    assert settings.execution.work_dir == str(place / 'work folder')
    assert settings.bids.derivatives == {'other': str(place / 'derivatives folder')}
    assert settings.outputs.output_spaces == tuple(dict.fromkeys(invocation['output_spaces']))


def test_every_option_is_understood_by_itself(place):
    """The flag and the separator of the descriptor, with a value, are what the parser reads."""
    start = [str(place / 'raw data'), str(place / 'out put'), 'participant']
    known = actions()
    inputs = [e for e in make_descriptor()['inputs'] if 'command-line-flag' in e]
    assert len(inputs) == len(known)
    for entry in inputs:
        name, flag = entry['id'], entry['command-line-flag']
        if entry['type'] == 'Flag':
            words = [flag]
        elif name.endswith('_param'):
            words = [flag]  # a list of none is no list
        else:
            value = (entry.get('value-choices') or [None])[0]
            value = value or (2 if entry['type'] == 'Number' else sample(name, known[name], None))
            value = value[0] if isinstance(value, list) else value
            separator = entry.get('command-line-flag-separator')
            assert (separator is None) == entry.get('list', False)
            words = [flag, str(value)] if separator is None else [f'{flag}{separator}{value}']
        namespace, unknown = build_parser().parse_known_args(
            [*start, *words, *(['max_iter=3'] if name.endswith('_param') else [])]
        )
        assert unknown == [], name
        assert known[name].dest in vars(namespace), name


def test_no_default_is_in_the_descriptor_but_it_is_told():
    """Boutiques puts a default on every command line, where it would win over a settings file."""
    defaults = Settings()
    told = 0
    for entry in make_descriptor()['inputs']:
        assert 'default-value' not in entry
        action = actions().get(entry['id'])
        group, _, name = (action.dest if action else '').partition('.')
        value = getattr(getattr(defaults, group, None), name, None)
        at_end = re.search(r'\((\w+)\)\.$', entry['description'])
        if at_end and value and isinstance(value, (str, int)) and not isinstance(value, bool):
            assert at_end[1] == str(value), entry['id']
            told += 1
    assert told >= 8


def test_resources_and_test_invocation(capsys, tmp_path):
    descriptor = make_descriptor()
    resources = descriptor['suggested-resources']
    assert resources == {'cpu-cores': 4, 'ram': 8, 'walltime-estimate': 3600}
    (test,) = descriptor['tests']
    path = tmp_path / 'invocation.json'
    path.write_text(json.dumps(test['invocation']))
    in_process(capsys, 'invocation', FILE, '-i', path)  # raises if it is not valid


def test_value_out_of_range_is_refused(capsys, place):
    from boutiques.invocationSchemaHandler import InvocationValidationError

    with pytest.raises((InvocationValidationError, SystemExit, Exception), match='nprocs'):
        command_line(capsys, {**completed({}, place), 'nprocs': 0}, place)


# Launched for real, without a container.


@pytest.fixture
def launch(place, monkeypatch):
    """Launch an invocation with this checkout as the program."""
    programs = place / 'programs'
    programs.mkdir()
    program = programs / 'qsmflow'
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m qsmflow "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv('PATH', f'{programs}:{os.environ["PATH"]}')
    paths = filter(None, [str(ROOT), os.environ.get('PYTHONPATH')])
    monkeypatch.setenv('PYTHONPATH', os.pathsep.join(paths))

    def start(timeout=120, **changes):
        invocation = {**completed({}, place), 'work_dir': str(place / 'work'), **changes}
        path = place / 'invocation.json'
        path.write_text(json.dumps({k: v for k, v in invocation.items() if v is not None}))
        return subprocess.run(
            [Path(sys.executable).with_name('bosh'), 'exec', 'launch', '--no-container',
             FILE, path],
            capture_output=True, text=True, timeout=timeout, cwd=place,
        )  # fmt: skip

    return start


def test_example_to_dry_run(capsys, launch, place):
    """The least example, with the folders that are there, is a run that would work."""
    text, _ = in_process(capsys, 'example', FILE)
    example = json.loads(text)
    invocation = completed(example, place)
    assert set(example) == set(invocation), 'nothing but the folders had to be filled in'
    done = launch(**invocation, dry_run=True, skip_bids_validation=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r'^\s*sub-01 +3 +5, 10, 15 ', done.stdout, re.M), done.stdout
    assert '1 can be processed, 0 cannot.' in done.stdout
    shown = done.stdout + done.stderr
    assert 'the checks passed, and nothing was computed; exit code 0' in shown
    assert list((place / 'out put').iterdir()) == [], 'Boutiques makes the folder; it stays empty'


def test_exit_code_and_output_of_a_dry_run_that_finds_faults(launch, place):
    dataset = write_clean(place / 'raw data', ('01', '02'))
    for path in dataset.anat('02').glob('*part-phase_MEGRE*'):
        path.unlink()
    done = launch(dry_run=True, skip_bids_validation=True)
    assert done.returncode == 1, done.stdout + done.stderr
    assert '1 can be processed, 1 cannot.' in done.stdout
    assert re.search(r'^\s*sub-02: (?!will be)', done.stdout, re.M), done.stdout
    assert 'at least one acquisition cannot be processed' in done.stdout + done.stderr


def test_exit_code_of_a_broken_dataset_is_passed_on(launch, place):
    for path in (place / 'raw data').rglob('*_MEGRE*'):
        path.unlink()
    done = launch()
    assert done.returncode == 65, done.stdout + done.stderr
    codes = {e['code']: e['description'] for e in make_descriptor()['error-codes']}
    assert codes[65] in done.stdout + done.stderr


@pytest.mark.slow
def test_launch_to_the_end(launch, place):
    from qsmflow.phantom.cli import main

    raw, out = place / 'a head', place / 'out put'
    options = ['--small', '--voxel-size', '8', '--subjects', '1', '--sessions', '1']
    assert main([str(raw), *options]) == 0
    mask = raw / 'derivatives/phantom-truth/sub-01/anat/sub-01_desc-brain_mask.nii.gz'
    done = launch(
        timeout=850, bids_dir=str(raw), mask=str(mask), preset='fast', atlas=['none'],
        nprocs=1, skip_bids_validation=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert (out / 'sub-01/anat/sub-01_Chimap.nii.gz').is_file()
    assert (out / 'sub-01.html').is_file()
