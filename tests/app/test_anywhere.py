"""The program without a network, without a home, and as a user that nobody knows."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.app.helpers import truth

UID = 12345


def permitted(*command):
    """Tell whether a command of util-linux works here."""
    if shutil.which(command[0]) is None:
        return False
    return subprocess.run([*command, 'true'], capture_output=True, check=False).returncode == 0


#: That user may read what others closed, as the Python of a test may lie in somebody's home, but
#: write nothing that is not his.
READ_ALL = ('--inh-caps=+dac_read_search', '--ambient-caps=+dac_read_search')
AS_ANYONE = ('setpriv', f'--reuid={UID}', f'--regid={UID}', '--clear-groups', *READ_ALL)
NO_NETWORK = ('unshare', '--net')
#: The outermost first: one needs rights to drop them.
RESTRICTIONS = [part for part in (NO_NETWORK, AS_ANYONE) if permitted(*part)]


@pytest.fixture
def place(phantom):
    """Return a folder that any user can reach, with a dataset that only its owner can change."""
    if AS_ANYONE not in RESTRICTIONS:
        pytest.skip('this user may not become another one (setpriv)')
    folder = Path(tempfile.mkdtemp(prefix='qsmflow-test-'))
    folder.chmod(0o755)
    shutil.copytree(phantom, folder / 'raw')
    for name in ('out', 'work'):
        (folder / name).mkdir()
        os.chown(folder / name, UID, UID)
    yield folder
    shutil.rmtree(folder)


def start(place, *options, out='out'):
    """Run the program in a folder that cannot be written, with all restrictions there are."""
    keep = ('PATH', 'PYTHONPATH', 'OMP_NUM_THREADS', 'NUMBA_NUM_THREADS')
    command = [sys.executable, '-m', 'qsmflow', place / 'raw', place / out, *options]
    before = [word for part in RESTRICTIONS for word in part]
    return subprocess.run(
        [*before, *map(str, command)],
        capture_output=True, text=True, timeout=850, cwd=place, check=False,
        env={name: os.environ[name] for name in keep if name in os.environ},
    )  # fmt: skip


def test_we_are_what_we_say(place):
    code = 'import os, socket; print(os.getuid(), os.environ.get("HOME"))'
    before = [word for part in RESTRICTIONS for word in part]
    done = subprocess.run(
        [*before, sys.executable, '-c', code],
        capture_output=True, text=True, check=True, env={'PATH': os.environ['PATH']},
    )  # fmt: skip
    assert done.stdout.split() == [str(UID), 'None']


def test_checks_run_anywhere_and_the_validator_with_them(app, phantom, place, tmp_path):
    done = start(place, 'participant', '--dry-run')
    assert done.returncode == 0, done.stderr
    assert 'sub-01: will be processed' in done.stdout
    usual = app.run(phantom, tmp_path / 'out', 'participant', '--dry-run')
    told = [
        [line for line in text.splitlines() if line.startswith('  [')]
        for text in (done.stdout, usual.stdout)
    ]
    assert told[0] == told[1]
    assert not [line for line in told[0] if 'E93' in line], 'the validator ran, and had no reason'


def test_folder_that_may_not_be_written(place):
    done = start(place, 'participant', '-w', place / 'work', out='raw/derivatives/qsmflow')
    assert done.returncode == 73
    assert f'user {UID}' in done.stderr or str(UID) in done.stderr
    assert done.stderr.rstrip().endswith('exit code 73')


@pytest.mark.slow
def test_a_whole_run(phantom, place):
    mask = place / truth(phantom, 'desc-brain_mask.nii.gz').relative_to(phantom.parent)
    options = ('--mask', mask, '--inversion', 'tkd', '--atlas', 'none', '--nprocs', '1')
    done = start(place, 'participant', '-w', place / 'work', *options)
    assert done.returncode == 0, done.stderr
    chi = place / 'out/sub-01/anat/sub-01_Chimap.nii.gz'
    assert chi.stat().st_uid == UID
    assert (place / 'out/sub-01.html').is_file()
    done = start(place, 'participant', '--reports-only')
    assert done.returncode == 0, done.stderr
