"""What is asked of the operating system, and what its errors mean."""

import os
import signal
import subprocess
import sys
import time

import pytest

from qsmflow.cli import system


def test_descendants():
    code = 'import subprocess, sys; subprocess.run(["sleep", "60"])'
    process = subprocess.Popen([sys.executable, '-c', code])
    try:
        deadline = time.monotonic() + 20
        while len(system.descendants(process.pid)) < 1 and time.monotonic() < deadline:
            time.sleep(0.05)
        (child,) = system.descendants(process.pid)
        assert {process.pid, child} <= set(system.descendants(os.getpid()))
        os.kill(child, signal.SIGKILL)
    finally:
        process.kill()
        process.wait()


def test_a_zombie_is_gone():
    process = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])
    try:
        assert system.exists(process.pid)
        assert system.resident_bytes(process.pid) > 0
        system.kill(process.pid)
        deadline = time.monotonic() + 20
        while system.exists(process.pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not system.exists(process.pid), 'although nobody has waited for it'
        assert system.resident_bytes(process.pid) == 0
    finally:
        code = process.wait()
    assert system.how_ended(code) == 'was killed by SIGKILL'
    system.kill(process.pid)


@pytest.mark.parametrize(
    ('text', 'found'),
    [
        ('OSError: [Errno 28] No space left on device', 'is full'),
        ('OSError: [Errno 122] Disk quota exceeded', 'has no quota left'),
        ('OSError: [Errno 30] Read-only file system', 'is read-only'),
        ('PermissionError: [Errno 13] Permission denied', None),
        ('ValueError: 28 values', None),
    ],
)
def test_errors_of_the_disk_are_known(text, found, tmp_path):
    problem = system.disk_problem(text, [tmp_path])
    assert problem == (f'the disk of {tmp_path} {found}' if found else '')
