"""A real Slurm on this machine: arrays, a group level after them, jobs that end early.

The participants are small phantoms; what is compared are the bytes of the maps.
"""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

from qsmflow.cli import slurm as command
from qsmflow.cli.slurm_table import read_state

ROOT = Path(__file__).parents[2]
#: Masks of the phantom: extraction is of no interest here.
FAST = ('--preset', 'fast', '--mask', 'derivatives')
MAPS_ONLY = ('--atlas', 'none')
pytestmark = [pytest.mark.slurm, pytest.mark.timeout(1500)]


@pytest.fixture(scope='module')
def study(tmp_path_factory):
    """Return a dataset of two heads in a folder whose name has to be quoted."""
    raw = tmp_path_factory.mktemp('slurm') / "raw; it's 50%"
    subprocess.run(
        [sys.executable, '-m', 'qsmflow.phantom.cli', raw, '--small', '--voxel-size', '8',
         '--subjects', '2', '--sessions', '1', '1'],
        check=True, capture_output=True, timeout=600,
    )  # fmt: skip
    return raw


@pytest.fixture(scope='module', autouse=True)
def importable():
    """Let jobs import this checkout, whatever is installed."""
    before = os.environ.get('PYTHONPATH')
    os.environ['PYTHONPATH'] = os.pathsep.join(filter(None, [str(ROOT), before]))
    yield
    os.environ.pop('PYTHONPATH')
    if before is not None:
        os.environ['PYTHONPATH'] = before


def masks(study):
    return ('-d', f'truth={study / "derivatives/phantom-truth"}')


def run_plainly(study, base, *options):
    """Run both levels, or with options the participant level, without Slurm."""
    for level in ('participant', 'group')[: 1 if options else 2]:
        more = (*FAST, *masks(study), *options, '-w', base / 'work')
        done = subprocess.run(
            [sys.executable, '-m', 'qsmflow', study, base / 'out', level,
             *(more if level == 'participant' else ())],
            capture_output=True, text=True, timeout=1000, cwd=base,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    return base / 'out'


@pytest.fixture(scope='module')
def plain(study, tmp_path_factory):
    """Return the results of the program without Slurm."""
    return run_plainly(study, tmp_path_factory.mktemp('plain'))


@pytest.fixture(scope='module')
def plain_maps(study, tmp_path_factory):
    """Return the maps of the first participant without Slurm."""
    only = (*MAPS_ONLY, '--participant-label', '01')
    return run_plainly(study, tmp_path_factory.mktemp('maps'), *only)


def contents(folder, *endings):
    """Return the bytes of the results with these endings; logs are left out."""
    found = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in Path(folder).rglob('*')
        if path.name.endswith(endings) and 'logs' not in path.relative_to(folder).parts
    }
    assert found
    return found


def assert_same(expected, found):
    assert sorted(found) == sorted(expected)
    assert [name for name in expected if found[name] != expected[name]] == []


def assert_same_maps(plain_maps, out):
    assert_same(contents(plain_maps, '.nii.gz'), contents(out, '.nii.gz'))


def write(study, base, *options, words=(), work='work dir'):
    """Write the scripts for a dataset and return their folder."""
    scripts = base / 'slurm scripts'
    line = ['write', study, base / 'out put', '-w', base / work, '--scripts', scripts]
    line += ['--cpus', 1, *options, '--', *FAST, *masks(study), *words]
    assert command.main([*map(str, line)]) == 0
    return scripts


def submit(slurm, scripts, *tasks):
    """Submit with the script that was written; return the job numbers."""
    text = slurm.call('bash', scripts / 'submit.sh', *tasks)
    return re.findall(r'job (\d+)', text)


def failed(scripts, capsys):
    """Return exit code and output of ``qsmflow-slurm failed``."""
    capsys.readouterr()
    code = command.main(['failed', str(scripts / 'exit_codes.tsv')])
    return code, capsys.readouterr().out


def wait_for_line(slurm, scripts, text, seconds=400):
    """Wait until a task has logged something."""
    logs = scripts / 'logs'
    slurm.wait(lambda: any(text in p.read_text() for p in logs.glob('*.log')), seconds, text)


@pytest.mark.slow
def test_array_then_group_gives_what_a_plain_run_gives(slurm, study, plain, tmp_path, capsys):
    scripts = write(study, tmp_path, '--at-once', '2')
    array, group = submit(slurm, scripts)
    assert 'Dependency' in slurm.call('squeue', '-h', '-j', group, '-o', '%r')
    slurm.wait_for_jobs()
    state = read_state(scripts / 'exit_codes.tsv')
    assert state.done == ('01', '02'), slurm.log()
    assert state.failed == ()
    log = (scripts / f'logs/qsmflow_{array}_1.log').read_text()
    assert log.rstrip().endswith('exit code 0')
    assert state.group is None
    assert slurm.state(group) == 'COMPLETED'
    assert failed(scripts, capsys)[0] == 0
    out = tmp_path / 'out put'
    assert_same(contents(plain, '.nii.gz', '.tsv'), contents(out, '.nii.gz', '.tsv'))
    assert (out / 'group_atlas-CIT168_stats.tsv').is_file()


@pytest.mark.slow
def test_cancelled_task_is_listed_and_resumed_to_the_same_bytes(
    slurm, study, plain_maps, tmp_path, capsys
):
    scripts = write(study, tmp_path, '--participant-label', '01', words=MAPS_ONLY)
    array, group = submit(slurm, scripts)
    wait_for_line(slurm, scripts, 'unwrap done')
    assert read_state(scripts / 'exit_codes.tsv').queued == ('01',)
    slurm.call('scancel', f'{array}_1')
    slurm.wait_for_jobs()
    code, text = failed(scripts, capsys)
    assert code == 1
    assert 'sub-01\texit code 143\tterminated' in text
    log = scripts / f'logs/qsmflow_{array}_1.log'
    assert 'exit code 143' in log.read_text()
    assert slurm.state(group) == 'CANCELLED', 'nothing to group'
    assert [row for row in status(tmp_path / 'out put') if 'interrupted' in row]
    # The line that it printed.
    line = re.search(r'from where they stopped: (.+)$', text, re.M)[1]
    assert line.endswith("submit.sh' 1")
    again = re.search(r'job (\d+)', slurm.call(*shlex.split(line)))[1]
    slurm.wait_for_jobs()
    assert read_state(scripts / 'exit_codes.tsv').done == ('01',), slurm.log()
    assert_resumed(tmp_path, scripts / f'logs/qsmflow_{again}_1.log')
    assert_same_maps(plain_maps, tmp_path / 'out put')


@pytest.mark.slow
def test_time_limit_ends_a_task_in_order_and_it_is_resumed(slurm, study, plain_maps, tmp_path):
    """Slurm sends SIGTERM to the script before the limit; the script passes it on."""
    scripts = write(
        study,
        tmp_path,
        '--participant-label',
        '01',
        '--time',
        '30',
        '--grace',
        '30',
        words=MAPS_ONLY,
    )
    array, _ = submit(slurm, scripts)
    wait_for_line(slurm, scripts, 'unwrap done')
    # A step that would take for ever, so that the limit is met on any machine.
    servers = {*processes('multiprocessing.forkserver', f'SLURM_ARRAY_JOB_ID={array}')}
    workers = [pid for pid in servers if parent(pid) in servers]
    assert workers
    for worker in workers:
        os.kill(worker, signal.SIGSTOP)
    # Limits are whole minutes from one on, as is Slurm's look at them.
    slurm.call('scontrol', 'update', f'jobid={array}', f'timelimit={minutes(slurm, array) + 1}')
    slurm.wait_for_jobs()
    state = read_state(scripts / 'exit_codes.tsv')
    log = scripts / f'logs/qsmflow_{array}_1.log'
    assert [item.exit_code for item in state.failed] == [143]
    assert 'terminated, for example by the scheduler; exit code 143' in log.read_text()
    assert slurm.state(f'{array}_1') in ('FAILED', 'TIMEOUT')
    again, _ = submit(slurm, scripts, '1')
    slurm.wait_for_jobs()
    assert read_state(scripts / 'exit_codes.tsv').done == ('01',), slurm.log()
    assert_resumed(tmp_path, scripts / f'logs/qsmflow_{again}_1.log')
    assert_same_maps(plain_maps, tmp_path / 'out put')


def minutes(slurm, job):
    """Return the whole minutes that a job has run."""
    text = slurm.call('squeue', '-h', '-j', job, '-o', '%M')
    return int(text.partition(':')[0])


def status(out):
    return [path.read_text() for path in (out / 'logs').glob('*/status.tsv')]


def assert_resumed(base, log):
    """Check that steps which had been done were not done again."""
    kept = [*(base / 'work dir').rglob('result_prepare.pklz')]
    assert len(kept) == 1
    assert kept[0].stat().st_mtime < log.stat().st_ctime
    newest = max(p.stat().st_mtime for p in (base / 'work dir').rglob('result_*.pklz'))
    started = re.search(r'(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) INFO', log.read_text())[1]
    assert kept[0].stat().st_mtime < datetime.fromisoformat(started).timestamp() < newest


def test_task_that_is_killed_without_a_word_is_listed(slurm, study, tmp_path, capsys):
    scripts = write(study, tmp_path, '--participant-label', '02', words=MAPS_ONLY)
    submit(slurm, scripts)
    slurm.wait(lambda: 'started' in (scripts / 'exit_codes.tsv').read_text(), 120, 'start')
    (script,) = (pid for pid in processes('slurm_script') if pid != os.getpid())
    os.kill(script, signal.SIGKILL)
    slurm.wait_for_jobs()
    code, text = failed(scripts, capsys)
    assert code == 1
    assert 'sub-02\texit code none\tended without a word' in text


def processes(name, variable=''):
    """Return the processes whose command line holds a name, and whose environment a variable."""
    for folder in Path('/proc').glob('[0-9]*'):
        try:
            command_line = (folder / 'cmdline').read_bytes()
            environ = (folder / 'environ').read_bytes()
        except OSError:
            continue
        if name.encode() in command_line and variable.encode() in environ:
            yield int(folder.name)


def parent(pid):
    """Return the parent of a process."""
    return int(Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[1])


GRAPH = """
import sys
from qsmflow.workflows import init_dipole_inversion_wf

if __name__ == '__main__':
    field, mask, folder, plugin = sys.argv[1:]
    wf = init_dipole_inversion_wf(method='tkd')
    wf.inputs.inputnode.local_field = field
    wf.inputs.inputnode.mask = mask
    wf.base_dir = folder
    wf.config['execution']['poll_sleep_duration'] = '0.5'
    if plugin == 'ours':
        from qsmflow.cluster import SlurmPlugin
        plugin = SlurmPlugin(plugin_args={'poll_seconds': 0.5})
    graph = wf.run(plugin=plugin)
"""


@pytest.mark.parametrize('plugin', ['SLURM', 'ours'])
def test_imported_graph_runs_as_jobs(slurm, plain_maps, tmp_path, plugin):
    """A script of a user's own, with the plugin of nipype or with ours."""
    field = plain_maps / 'sub-01/fmap/sub-01_desc-local_fieldmap.nii.gz'
    mask = plain_maps / 'sub-01/anat/sub-01_desc-qsm_mask.nii.gz'
    script = tmp_path / 'graph.py'
    script.write_text(GRAPH)
    maps = {}
    for name in (plugin, 'Linear'):
        before = jobs(slurm)
        folder = tmp_path / name
        environment = {k: v for k, v in os.environ.items() if k not in ('LOGNAME', 'USER')}
        done = subprocess.run(
            [sys.executable, script, field, mask, folder, name],
            capture_output=True, text=True, timeout=600, env=environment, cwd=tmp_path,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        (chimap,) = [*folder.rglob('*chi*.nii*')]
        maps[name] = chimap.read_bytes()
        assert (len(jobs(slurm)) > len(before)) == (name != 'Linear')
    assert maps[plugin] == maps['Linear']


def jobs(slurm):
    return re.findall(r'JobId=(\d+)', slurm.call('scontrol', '-o', 'show', 'jobs'))


@pytest.mark.slow
def test_app_runs_its_steps_as_jobs(slurm, study, plain_maps, tmp_path):
    """``--use-plugin``: some forty jobs, each of which starts Python anew."""
    path = tmp_path / 'plugin.json'
    path.write_text(json.dumps({'plugin': 'SLURM', 'plugin_args': {'poll_seconds': 0.5}}))
    before = len(jobs(slurm))
    done = subprocess.run(
        [sys.executable, '-m', 'qsmflow', study, tmp_path / 'out', 'participant',
         '-w', tmp_path / 'work', *FAST, *MAPS_ONLY, *masks(study), '--participant-label', '01',
         '--use-plugin', path],
        capture_output=True, text=True, timeout=1400, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(jobs(slurm)) - before > 10
    assert_same_maps(plain_maps, tmp_path / 'out')
