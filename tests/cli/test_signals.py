"""SIGTERM and SIGINT end the program soon, whatever it is doing, and it says so."""

import csv
import signal
import subprocess
import sys
import time

import pytest

#: A program that stops at one place of the run, says so, and waits there.
PROGRAM = """
import signal, sys, time
# The tests may run in the background of a shell, which ignores it.
signal.signal(signal.SIGINT, signal.default_int_handler)

def here(*args, **kwargs):
    told = False
    while True:
        try:
            if not told:
                told = True
                print('HERE', file=sys.stderr, flush=True)
            time.sleep(60)
        except BaseException:
            if not {deaf}:
                raise
            print('SWALLOWED', file=sys.stderr, flush=True)

from qsmflow.cli.run import main
{patch}
sys.exit(main(sys.argv[1:]))
"""
PLACES = {
    'reading the dataset': 'import qsmflow.bids; qsmflow.bids.collect = here',
    'building the graph': 'import qsmflow.workflows.base as b; b.init_qsmflow_wf = here',
    'writing reports': (
        'import qsmflow.report, qsmflow.cli.execution as e; e.run_graph = lambda *a: ();'
        'qsmflow.report.build_report = here'
    ),
}


@pytest.fixture
def start(tmp_path):
    """Return a function that starts the program on a dataset and waits until it is there."""
    started = []

    def begin(raw, place, deaf=False):
        empty = tmp_path / 'raw'
        empty.mkdir()
        code = PROGRAM.format(patch=PLACES[place], deaf=deaf)
        options = ['-w', tmp_path / 'work', '--skip-bids-validation', '--atlas', 'none']
        command = [
            sys.executable,
            '-c',
            code,
            raw or empty,
            tmp_path / 'out',
            'participant',
            *options,
        ]
        process = subprocess.Popen(
            list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        started.append(process)
        for line in process.stderr:
            if line == 'HERE\n':
                return process
        raise AssertionError('it never came there')

    yield begin
    for process in started:
        process.kill()
        process.stderr.close()
        process.wait()


def end(process, *numbers):
    """Send signals and return exit code, seconds and what was printed."""
    began = time.monotonic()
    for number in numbers:
        process.send_signal(number)
        time.sleep(1)
    text = process.communicate(timeout=60)[1]
    return process.returncode, time.monotonic() - began, text


def table(tmp_path):
    (path,) = (tmp_path / 'out/logs').glob('*/status.tsv')
    with path.open(newline='') as stream:
        return {row['name']: (row['status'], row['reason']) for row in csv.DictReader(
            stream, delimiter='\t'
        )}  # fmt: skip


@pytest.mark.parametrize(
    ('place', 'number', 'code'),
    [
        ('reading the dataset', signal.SIGTERM, 143),
        ('building the graph', signal.SIGINT, 130),
        ('writing reports', signal.SIGTERM, 143),
    ],
)
def test_everywhere(start, request, tmp_path, place, number, code):
    reading = place == 'reading the dataset'
    process = start(None if reading else request.getfixturevalue('phantom'), place)
    returned, seconds, text = end(process, number)
    assert returned == code
    assert seconds < 15, 'two seconds, if the machine has nothing else to do'
    assert text.rstrip().endswith(f'exit code {code}')
    assert 'Traceback' not in text
    found = table(tmp_path)
    reason = (
        f'[FATAL E104] received {number.name} while {place}. '
        'Run the same command again: finished steps are not repeated.'
    )
    if reading:
        assert found == {'all': ('interrupted', reason)}
    elif place == 'building the graph':
        assert found['sub-01'] == ('interrupted', reason)
    else:
        assert found == {'sub-01': ('done', 'n/a'), 'sub-01 report': ('interrupted', reason)}
    for folder in (tmp_path / 'out', tmp_path / 'work'):
        assert not list(folder.glob('*locks*'))


@pytest.mark.parametrize(
    ('numbers', 'code', 'why'),
    [
        ([signal.SIGTERM], 143, 'no tidy end within 2 s'),
        ([signal.SIGINT, signal.SIGINT], 130, 'asked twice'),
    ],
    ids=['once', 'twice'],
)
def test_a_library_that_swallows_everything_does_not_stop_it(start, tmp_path, numbers, code, why):
    process = start(None, 'reading the dataset', deaf=True)
    returned, seconds, text = end(process, *numbers)
    assert returned == code
    assert seconds < 15
    assert 'SWALLOWED' in text
    assert why in text
    assert text.rstrip().endswith(f'exit code {code}')
    assert table(tmp_path)['all'][0] == 'interrupted'


def test_ignored_signals_stay_ignored():
    """As under nohup."""
    code = (
        'import os, signal; from qsmflow.cli.signals import handled\n'
        'signal.signal(signal.SIGINT, signal.SIG_IGN)\n'
        'with handled():\n    os.kill(os.getpid(), signal.SIGINT)\n'
        'print("alive")'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout == 'alive\n'
