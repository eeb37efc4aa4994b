"""Two runs in one folder: one of them works, the other says which."""

import json
import logging
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from qsmflow.cli import locks
from qsmflow.cli.locks import FOLDER, InUseError, Locks


@pytest.fixture
def folders(tmp_path):
    out, work = tmp_path / 'out', tmp_path / 'work'
    out.mkdir()
    work.mkdir()
    return out, work


HOLD = """
import sys, time
from qsmflow.cli.locks import Locks
with Locks(sys.argv[1], sys.argv[2], sys.argv[4:], sys.argv[3]):
    print('held', flush=True)
    time.sleep(300)
"""


@pytest.fixture
def other(folders):
    """Return a function that starts another process which holds locks."""
    started = []

    def start(*subjects, out=folders[0], work=folders[1]):
        command = [sys.executable, '-c', HOLD, str(out), str(work), 'run-a', *subjects]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout.readline() == 'held\n'
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def left(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob('*'))


def test_nothing_is_left_behind(folders):
    with Locks(*folders, ['01', '02'], 'run-a'):
        for folder in folders:
            names = [path.name for path in (folder / FOLDER).iterdir()]
            assert {'sub-01', 'sub-02'} < set(names)
    assert [left(folder) for folder in folders] == [[], []]


def test_other_subjects_may_run_beside(folders):
    with Locks(*folders, ['01'], 'run-a'):
        with Locks(*folders, ['02'], 'run-b'):
            pass
        assert (folders[0] / FOLDER / 'sub-01').is_file(), 'the locks of others stay'
    assert [left(folder) for folder in folders] == [[], []]


def test_second_run_is_refused_with_the_first_ones_name(folders, other):
    process = other('01', '02')
    with pytest.raises(InUseError) as refused, Locks(*folders, ['03', '02'], 'run-b'):
        pytest.fail('two runs hold one subject')
    text = str(refused.value)
    assert text.startswith('[FATAL E102]')
    assert f'process {process.pid}' in text
    assert os.uname().nodename in text
    assert 'run run-a' in text
    assert 'sub-02' in text
    assert str(folders[0]) in text
    assert refused.value.exit_code == 75
    assert not (folders[0] / FOLDER / 'sub-03').exists(), 'nothing is kept after a refusal'


def test_only_the_work_folder_is_shared(folders, other, tmp_path):
    other('01')
    elsewhere = tmp_path / 'out2'
    elsewhere.mkdir()
    with (
        pytest.raises(InUseError, match=r'FATAL E101.*-w'),
        Locks(elsewhere, folders[1], ['01'], 'run-b'),
    ):
        pytest.fail('two runs hold one subject')
    assert left(elsewhere) == []


def test_lock_of_a_dead_process_is_taken_over(folders, other, caplog):
    other('01').kill()
    time.sleep(0.2)
    logging.getLogger('qsmflow').propagate = True
    with caplog.at_level('WARNING'), Locks(*folders, ['01'], 'run-b'):
        owner = json.loads((folders[1] / FOLDER / 'sub-01').read_text())
        assert owner['run'] == 'run-b'
    assert 'left behind by run run-a' in caplog.text
    assert [left(folder) for folder in folders] == [[], []]


def stamp(folders, seconds, **changes):
    """Make the locks those of another machine that gave no sign of life for a time."""
    for folder in folders:
        path = folder / FOLDER / 'sub-01'
        path.parent.mkdir()
        content = {**locks.asdict(locks.Owner.me('run-x')), 'host': 'node9', **changes}
        path.write_text(json.dumps(content))
        then = time.time() - seconds
        os.utime(path, (then, then))


@pytest.mark.parametrize(('seconds', 'stale'), [(60, False), (600, True)])
def test_lock_of_another_machine_is_stale_without_heartbeat(folders, seconds, stale):
    stamp(folders, seconds, place='another boot')
    if stale:
        with Locks(*folders, ['01'], 'run-b'):
            pass
        assert [left(folder) for folder in folders] == [[], []]
    else:
        with pytest.raises(InUseError, match='host node9'), Locks(*folders, ['01'], 'run-b'):
            pytest.fail('the other run may be alive')


def test_process_number_that_is_used_again_is_not_the_holder(folders):
    stamp(folders, 0, started='1')
    with Locks(*folders, ['01'], 'run-b'):
        pass


def test_half_written_lock_holds_until_it_is_old(folders):
    path = folders[0] / FOLDER / 'sub-01'
    path.parent.mkdir()
    path.write_text('{"run": "ru')
    with pytest.raises(InUseError), Locks(*folders, ['01'], 'run-b'):
        pytest.fail('someone may be writing it')
    os.utime(path, (1e9, 1e9))
    with Locks(*folders, ['01'], 'run-b'):
        pass


@pytest.mark.parametrize('stale', [False, True])
def test_only_one_of_many_gets_it(folders, stale):
    if stale:
        stamp(folders, 1000, place='another boot')
    held, most, refused = [], [], []

    def attempt(number):
        try:
            with Locks(*folders, ['01'], f'run-{number}'):
                held.append(number)
                most.append(len(held))
                time.sleep(0.05)
                held.remove(number)
        except InUseError:
            refused.append(number)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(attempt, range(24)))
    assert set(most) == {1}
    assert len(most) + len(refused) == 24
    assert [left(folder) for folder in folders] == [[], []]


def test_folder_of_the_locks_is_removed_while_it_is_made(folders, monkeypatch):
    real, left = os.mkdir, [1, 1]

    def mkdir(path, *args, **options):
        if left and os.path.basename(path) == FOLDER:
            left.pop()
            raise FileExistsError(17, 'File exists', path)
        real(path, *args, **options)

    monkeypatch.setattr(os, 'mkdir', mkdir)
    with Locks(*folders, ['01'], 'run-a'):
        assert (folders[0] / FOLDER / 'sub-01').exists()
    assert not left


def test_folder_of_the_locks_is_no_folder(folders):
    (folders[0] / FOLDER).write_text('')
    with pytest.raises(FileExistsError, match=FOLDER), Locks(*folders, ['01'], 'run-a'):
        pytest.fail('there is no lock')


@pytest.mark.parametrize('links', [True, False])
def test_without_hard_links(folders, monkeypatch, links):
    if not links:

        def no_links(*_):
            raise PermissionError(1, 'Operation not permitted')

        monkeypatch.setattr(os, 'link', no_links)
    with Locks(*folders, ['01'], 'run-a'), pytest.raises(InUseError):
        Locks(*folders, ['01'], 'run-b').__enter__()
    assert [left(folder) for folder in folders] == [[], []]


def test_heartbeat_and_loss(folders, monkeypatch):
    monkeypatch.setattr(locks, 'HEARTBEAT', 0.05)
    told = threading.Event()
    with Locks(*folders, ['01'], 'run-a', on_lost=lambda path: told.set()):
        path = folders[0] / FOLDER / 'sub-01'
        os.utime(path, (1e9, 1e9))
        deadline = time.monotonic() + 20
        while path.stat().st_mtime < 1.5e9 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert path.stat().st_mtime > time.time() - 60, 'it is touched'
        path.unlink()
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert json.loads(path.read_text())['run'] == 'run-a', 'it is made again'
        assert not told.is_set()
        # Not written in place: the lock is another name of the run's own file.
        other = folders[0] / 'thief'
        other.write_text(json.dumps(locks.asdict(locks.Owner.me('thief'))))
        other.replace(path)
        assert told.wait(10)
    assert json.loads(path.read_text())['run'] == 'thief', 'the lock of another is left alone'


def test_cleaning_and_working_exclude_each_other(folders, other):
    process = other('02')
    with (
        pytest.raises(InUseError, match=r'E101.*--clean-workdir would empty'),
        Locks(*folders, ['01'], 'run-b', clean=True),
    ):
        pytest.fail('the other run works there')
    process.kill()
    process.wait()
    with Locks(*folders, ['01'], 'run-b', clean=True) as cleaner:
        with pytest.raises(InUseError, match='empties this work folder'):
            Locks(*folders, ['03'], 'run-c').__enter__()
        cleaner.cleaned()
        with Locks(*folders, ['03'], 'run-c'):
            pass
    assert not Path(folders[1] / FOLDER / 'clean').exists()
