"""The program and its surroundings: killed, without room, in company, with input that vanishes."""

import csv
import gzip
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

#: Texts in sidecars that must not be passed on, and one that may, but only as text.
PRIVATE = {
    'PatientName': 'ROE^JANE',
    'PatientBirthDate': '19700102',
    'AcquisitionDateTime': '2026-03-04T05:06:07',
    'InstitutionName': 'Hospital of Nowhere',
    'DeviceSerialNumber': 'SN-31415',
    'StudyInstanceUID': '1.2.3.4.5.6.7',
}
MAKER = '<script>alert("maker")</script>'
SEED = 20261128


@pytest.fixture(scope='module')
def tiny(tmp_path_factory):
    """Return a dataset of one series of very coarse voxels, and its mask."""
    folder = tmp_path_factory.mktemp('tiny')
    raw = folder / 'raw'
    size = ('--voxel-size', '8', '--te', '4', '12', '20', '--subjects', '1', '--sessions', '1')
    command = [sys.executable, '-m', 'qsmflow.phantom.cli', str(raw), *size]
    subprocess.run(command, check=True, capture_output=True)
    (mask,) = raw.glob('derivatives/phantom-truth/sub-01/anat/*_desc-brain_mask.nii.gz')
    shutil.move(mask, folder / 'mask.nii.gz')
    shutil.rmtree(raw / 'derivatives')
    for path in raw.glob('sub-01/anat/*T1w*'):
        path.unlink()
    for path in raw.glob('sub-01/anat/*.json'):
        content = {**json.loads(path.read_text()), **PRIVATE, 'Manufacturer': MAKER}
        path.write_text(json.dumps(content))
    return raw


def options(raw, *more):
    return [
        *('--preset', 'fast', '--inversion', 'tkd', '--unwrap', 'laplacian', '--level'),
        *('minimal', '--no-unwrapping-fallback', '--atlas', 'none', '--skip-bids-validation'),
        *('--nprocs', '2', '--mask', str(raw.parent / 'mask.nii.gz'), *more),
    ]


def command(raw, base, *more):
    start = [sys.executable, '-m', 'qsmflow', raw, base / 'out', 'participant', '-w']
    return list(map(str, [*start, base / 'work', *options(raw, *more)]))


def run(raw, base, *more, prefix=()):
    """Run the program and return exit code and what it said."""
    done = subprocess.run(
        [*prefix, *command(raw, base, *more)], capture_output=True, text=True, timeout=850
    )
    return done.returncode, done.stderr


def read_only(folder):
    """Return the start of a command that sees a folder mounted read-only; nothing if it cannot."""
    mount = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && '
    prefix = ['unshare', '-m', 'sh', '-c', mount + 'exec "$@"', str(folder)]
    test = [*prefix, 'sh', '-c', f'touch "{folder}/x" 2>/dev/null && echo written']
    done = (
        subprocess.run(test, capture_output=True, text=True) if shutil.which('unshare') else None
    )
    (folder / 'x').unlink(missing_ok=True)
    usable = done is not None and 'mount' not in done.stderr and not done.stdout
    return prefix if usable and not done.stderr else []


@pytest.fixture(scope='module')
def reference(tiny, state, tmp_path_factory):
    """Return the folder of an undisturbed run; its input is mounted read-only where that works.

    Whether it was is what ``input.txt`` says.
    """
    base = tmp_path_factory.mktemp('reference')
    before = state(tiny)
    prefix = read_only(tiny)
    (base / 'input.txt').write_text('read-only' if prefix else 'writable')
    code, text = run(tiny, base, prefix=prefix)
    assert code == 0, text
    assert state(tiny) == before
    return base


def results(base):
    """Return the bytes of all results; of pages and logs without names of runs and folders."""
    found = {}
    for path in sorted((base / 'out').rglob('*')):
        name = path.relative_to(base / 'out').as_posix()
        name = re.sub(r'\d{8}-\d{6}_[0-9a-f-]{36}', 'RUN', name)
        if path.is_file() and not name.startswith('logs/RUN'):
            content = path.read_bytes()
            if path.suffix == '.html':
                content = re.sub(rb'\d{8}-\d{6}_[0-9a-f-]{36}', b'RUN', content)
                content = content.replace(str(base).encode(), b'BASE')
            found[name] = content
    return found


def assert_same(base, reference):
    expected, found = results(reference), results(base)
    assert sorted(found) == sorted(expected)
    assert [name for name in expected if found[name] != expected[name]] == []


def table(base):
    """Return name, status and reason from the newest status table."""
    paths = sorted((base / 'out/logs').glob('*/status.tsv'), key=lambda p: p.stat().st_mtime)
    with paths[-1].open(newline='') as stream:
        return {
            r['name']: (r['status'], r['reason']) for r in csv.DictReader(stream, delimiter='\t')
        }


def finished_nodes(base):
    # Not rglob: folders come and go meanwhile.
    names = (name for _, _, names in os.walk(base / 'work') for name in names)
    return sum(name.startswith('result_') and name.endswith('.pklz') for name in names)


def start_until(raw, base, nodes, delay):
    """Start a run in a session of its own, and wait until so many more nodes are finished."""
    before = finished_nodes(base)
    process = subprocess.Popen(
        command(raw, base), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    while process.poll() is None and finished_nodes(base) < before + nodes:
        time.sleep(0.02)
    time.sleep(delay)
    return process


def kill(process, whole_group):
    """Kill as the kernel does, and wait until nothing of the run is there."""
    if whole_group:
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    raise AssertionError('processes outlive the program')


def test_input_can_be_mounted_read_only(reference):
    """The run of the fixture ended with exit code 0, and the input was as before."""
    if (reference / 'input.txt').read_text() != 'read-only':
        pytest.skip('mounting is not permitted here: the input was compared, not mounted')
    assert (reference / 'out/sub-01/anat/sub-01_Chimap.nii.gz').is_file()


def test_nothing_private_is_passed_on(reference):
    for path in [*(reference / 'out').rglob('*'), *(reference / 'out/logs').rglob('*')]:
        if path.is_file():
            content = path.read_bytes()
            content = gzip.decompress(content) if path.suffix == '.gz' else content
            for value in PRIVATE.values():
                assert value.encode() not in content, path
    page = (reference / 'out/sub-01.html').read_text(encoding='utf-8')
    assert '<script>alert' not in page
    assert '&lt;script&gt;alert' in page
    sidecar = json.loads((reference / 'out/sub-01/anat/sub-01_Chimap.json').read_text())
    assert sidecar['Manufacturer'] == MAKER


def test_second_run_is_refused_and_a_killed_one_is_resumed(tiny, reference, tmp_path):
    process = start_until(tiny, tmp_path, nodes=6, delay=0.1)
    assert process.poll() is None
    # On a slow machine it would be done before the other has begun; stopped, it is not dead.
    os.killpg(process.pid, signal.SIGSTOP)
    code, text = run(tiny, tmp_path)
    assert code == 75
    assert '[FATAL E102]' in text
    assert f'process {process.pid}' in text
    assert process.poll() is None, 'the first run goes on'
    kill(process, whole_group=True)
    code, text = run(tiny, tmp_path)
    assert code == 0, text
    assert 'is taken over' in text
    assert_same(tmp_path, reference)
    for folder in (tmp_path / 'out', tmp_path / 'work'):
        assert not [path for path in folder.rglob('.*') if path.name != '.bidsignore']


@pytest.mark.slow
def test_killed_at_many_points_and_resumed_gives_the_same_bytes(tiny, reference, tmp_path):
    dice = random.Random(SEED)
    kills = 0
    for number in range(8):
        process = start_until(tiny, tmp_path, dice.randint(0, 8), dice.uniform(0, 1.5))
        kills += process.poll() is None
        kill(process, whole_group=bool(number % 2))
    assert kills >= 4, 'most of them were killed in mid-run'
    code, text = run(tiny, tmp_path)
    assert code == 0, text
    assert_same(tmp_path, reference)
    assert not list((tmp_path / 'out').rglob('.part-*'))


@pytest.mark.slow
def test_same_threads_same_bytes(tiny, reference, tmp_path):
    """Another number of processes and another order of steps change nothing."""
    code, text = run(tiny, tmp_path, '--nprocs', '3', '--omp-nthreads', '1')
    assert code == 0, text
    expected, found = results(reference), results(tmp_path)
    different = [name for name in expected if found[name] != expected[name]]
    assert different == ['sub-01.html'], 'it shows the settings'


@pytest.fixture
def small_disk(tmp_path):
    """Return a function that mounts a small file system."""
    mounted = []

    def mount(name, size):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        done = subprocess.run(
            ['mount', '-t', 'tmpfs', '-o', f'size={size}', 'tmpfs', str(folder)], check=False,
            capture_output=True,
        )  # fmt: skip
        if done.returncode:
            pytest.skip('mounting is not permitted here')
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(['umount', '-l', str(folder)], check=True)


@pytest.mark.parametrize('which', ['work', 'out'])
def test_disk_that_is_too_small_is_refused_at_the_start(tiny, tmp_path, small_disk, which):
    folder = small_disk(which, '1m')
    code, text = run(tiny, tmp_path)
    assert code == 73
    assert '[FATAL E98]' in text
    assert f'{folder}: too little space' in text
    assert not (tmp_path / 'out/sub-01').exists()


@pytest.mark.slow
@pytest.mark.parametrize('which', ['work', 'out'])
def test_disk_that_fills_up_leaves_nothing_half(tiny, reference, tmp_path, small_disk, which):
    folder = small_disk(which, '64m')
    process = subprocess.Popen(
        command(tiny, tmp_path), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    # Neither the first step nor the last: results are being written.
    while process.poll() is None and finished_nodes(tmp_path) < 4:
        time.sleep(0.02)
    with (folder / 'ballast').open('wb', buffering=0) as stream:
        try:
            while True:
                stream.write(bytes(4096))
        except OSError:
            pass
    _, text = process.communicate(timeout=300)
    assert process.returncode == 73, text
    assert '[FATAL E98]' in text
    assert str(folder) in text
    assert text.rstrip().endswith('exit code 73'), text
    final = results(reference)
    for name, content in results(tmp_path).items():
        if name != 'ballast' and not name.endswith('.html'):
            assert content == final[name], f'{name} is half a file'
    assert not list((tmp_path / 'out').rglob('.part-*'))
    (folder / 'ballast').unlink()
    code, text = run(tiny, tmp_path)
    assert code == 0, text
    if which == 'work':
        assert_same(tmp_path, reference)


VANISH = """
import sys
from pathlib import Path
import qsmflow.cli.execution as execution
run_graph = execution.run_graph

def after_the_checks(*arguments):
    Path({path!r}).unlink()
    return run_graph(*arguments)

execution.run_graph = after_the_checks
from qsmflow.cli.run import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_input_that_vanishes_fails_its_series_alone(tiny, tmp_path):
    raw = tmp_path / 'raw'
    shutil.copytree(tiny, raw)
    shutil.copy(tiny.parent / 'mask.nii.gz', tmp_path)
    for path in sorted((raw / 'sub-01/anat').iterdir()):
        shutil.copy(path, path.with_name(path.name.replace('sub-01_', 'sub-01_acq-b_')))
        path.rename(path.with_name(path.name.replace('sub-01_', 'sub-01_acq-a_')))
    lost = raw / 'sub-01/anat/sub-01_acq-b_echo-2_part-phase_MEGRE.nii.gz'
    start = [sys.executable, '-c', VANISH.format(path=str(lost))]
    done = subprocess.run(
        [*start, *command(raw, tmp_path)[3:]], capture_output=True, text=True, timeout=850
    )
    assert done.returncode == 1, done.stderr
    assert done.stderr.rstrip().endswith('exit code 1')
    found = table(tmp_path)
    assert found['sub-01_acq-a'] == ('done', 'n/a')
    status, reason = found['sub-01_acq-b']
    assert status == 'failed'
    assert lost.name in reason
    assert found['sub-01 report'] == ('done', 'n/a')
    assert (tmp_path / 'out/sub-01/anat/sub-01_acq-a_Chimap.nii.gz').is_file()
    assert not (tmp_path / 'out/sub-01/anat/sub-01_acq-b_Chimap.nii.gz').exists()
    page = (tmp_path / 'out/sub-01.html').read_text(encoding='utf-8')
    assert 'Failed: ' in page
    assert lost.name in page
