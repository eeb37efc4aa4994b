"""What the workers of the participant level say."""

import subprocess
import sys


def test_warnings_of_workers_are_shown_once():
    code = (
        'import logging; from qsmflow.cli.workers import show_messages; show_messages();'
        'logging.getLogger("qsmflow.interfaces").warning("unwrapping by x failed")'
    )
    done = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == ''
    assert done.stderr.count('unwrapping by x failed') == 1
    assert 'WARNING qsmflow: unwrapping by x failed' in done.stderr
