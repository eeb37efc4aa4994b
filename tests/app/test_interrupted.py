"""Runs that are interrupted, and workers that are killed."""

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.app.helpers import STAMP, rows, truth


def start(app, phantom, out, work, *options):
    """Start a run in a session of its own and wait for its first steps."""
    mask = ('--mask', truth(phantom, 'desc-brain_mask.nii.gz'), '--atlas', 'none')
    process = subprocess.Popen(
        app.command(phantom, out, 'participant', *mask, *options, work=work),
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
        # The tests may run in the background of a shell, which ignores it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    for line in process.stderr:
        if re.match(rf'{STAMP}.*prepare done', line):
            return process
    raise AssertionError('it ended before its first step')


def members(session):
    """Return the processes of a session, with their parent and command."""
    found = {}
    for folder in Path('/proc').glob('[0-9]*'):
        try:
            if os.getsid(int(folder.name)) == session:
                fields = (folder / 'stat').read_text().rpartition(')')[2].split()
                if fields[0] != 'Z':
                    found[int(folder.name)] = int(fields[1])
        except (OSError, ValueError):
            continue
    return found


def wait_for_end(session, seconds):
    deadline = time.time() + seconds
    while members(session) and time.time() < deadline:
        time.sleep(0.1)
    return members(session)


@pytest.mark.parametrize(
    ('processes', 'number', 'whole_group', 'code'),
    [(1, signal.SIGTERM, False, 143), (2, signal.SIGINT, True, 130)],
    ids=['terminated', 'ctrl-c'],
)
def test_ends_at_once(app, phantom, tmp_path, processes, number, whole_group, code):
    out, work = tmp_path / 'out', tmp_path / 'work'
    process = start(app, phantom, out, work, '--nprocs', processes)
    assert len(members(process.pid)) > 1, 'there are workers'
    sent = time.time()
    (os.killpg if whole_group else os.kill)(process.pid, number)
    _, text = process.communicate(timeout=60)
    assert time.time() - sent < 15, 'two seconds, if the machine has nothing else to do'
    assert process.returncode == code, text
    assert text.rstrip().endswith(f'exit code {code}')
    assert 'Traceback' not in text
    assert wait_for_end(process.pid, 5) == {}, 'nothing is left behind'
    (table,) = (out / 'logs').glob('*/status.tsv')
    kept = {row['name']: row['status'] for row in rows(table)}
    assert kept['sub-01'] == 'interrupted'
    assert f'received {number.name} while computing' in table.read_text()
    if kept.get('sub-01 report') == 'done':  # there was time for it
        page = (out / 'sub-01.html').read_text(encoding='utf-8')
        assert 'Interrupted: [FATAL E104] received' in page
    assert not list((out / 'sub-01').rglob('.*'))
    assert not [path for path in (*out.iterdir(), *work.iterdir()) if 'locks' in path.name]


@pytest.mark.slow
def test_a_killed_worker_is_told(app, phantom, tmp_path):
    process = start(app, phantom, tmp_path / 'out', tmp_path / 'work', '--nprocs', 1)
    family = members(process.pid)
    (worker,) = (one for one, parent in family.items() if family.get(parent) == process.pid)
    os.kill(worker, signal.SIGKILL)
    _, text = process.communicate(timeout=120)
    assert process.returncode == 1, text
    assert '[FATAL E103]' in text
    assert 'killed by SIGKILL' in text
    assert text.rstrip().endswith('exit code 1')
    (table,) = (tmp_path / 'out/logs').glob('*/status.tsv')
    state_ = {row['name']: row['status'] for row in rows(table)}
    assert state_ == {'sub-01': 'failed', 'sub-01 report': 'done'}
    assert 'killed by SIGKILL' in (tmp_path / 'out/sub-01.html').read_text(encoding='utf-8')


@pytest.mark.slow
def test_workers_do_not_outlive_a_killed_program(app, phantom, tmp_path):
    process = start(app, phantom, tmp_path / 'out', tmp_path / 'work', '--nprocs', 2)
    process.kill()
    process.wait(timeout=30)
    assert wait_for_end(process.pid, 60) == {}
    process.stderr.close()
