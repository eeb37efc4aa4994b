import errno
import logging
import os
import signal
import sys
import types

import pytest

from qsmflow.bids.findings import DatasetError
from qsmflow.cli import run


@pytest.fixture
def level(tmp_path, monkeypatch):
    """Run ``main`` with a stand-in for the participant level that calls what is given."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'raw').mkdir()
    # ``prepare`` changes the environment of this process.
    for name in [*os.environ]:
        monkeypatch.setenv(name, os.environ[name])
    monkeypatch.setattr('qsmflow.cli.environment.prepare', lambda settings: [])

    def start(action, name='participant', options=()):
        module = types.ModuleType(f'qsmflow.cli.{name}')
        module.run = action
        monkeypatch.setitem(sys.modules, f'qsmflow.cli.{name}', module)
        monkeypatch.setattr(f'qsmflow.cli.{name}', module, raising=False)
        return run.main([str(tmp_path / 'raw'), str(tmp_path / 'out'), name, *options])

    return start


def raising(error):
    def action(settings):
        raise error

    return action


class Coded(RuntimeError):
    exit_code = 65


@pytest.mark.parametrize(
    ('action', 'code'),
    [
        (lambda settings: 0, 0),
        (lambda settings: None, 0),
        (lambda settings: 1, 1),
        (raising(Coded('no echoes')), 65),
        (raising(DatasetError([], exit_code=2)), 2),
        (raising(OSError(errno.ENOSPC, 'No space left on device')), 73),
        (raising(PermissionError(errno.EACCES, 'Permission denied')), 73),
        (raising(FileNotFoundError(errno.ENOENT, 'No such file')), 70),
        (raising(ValueError('bug')), 70),
        (raising(KeyboardInterrupt()), 130),
    ],
)
def test_exit_codes(level, capsys, action, code):
    assert level(action) == code
    last = capsys.readouterr().err.rstrip().splitlines()[-1]
    assert last.endswith(f'exit code {code}')
    assert run.EXIT_CODES[code] in last


def test_group_level(level):
    seen = []
    assert level(lambda settings: seen.append(settings.bids.analysis_level), name='group') == 0
    assert seen == ['group']


def test_reason_is_told_once(level, capsys):
    level(raising(Coded('sub-01 has no EchoTime.')))
    text = capsys.readouterr().err
    assert text.count('sub-01 has no EchoTime') == 1
    assert 'Traceback' not in text


def test_folder_that_cannot_be_written(level, capsys):
    error = OSError(errno.EROFS, 'OUTPUT_DIR: /out cannot be written')
    error.exit_code = 73
    assert level(raising(error)) == 73
    text = capsys.readouterr().err
    assert '(OUTPUT_DIR: /out cannot be written)' in text
    assert 'Errno' not in text


def test_own_errors_come_with_a_traceback(level, capsys):
    level(raising(ValueError('bug')))
    text = capsys.readouterr().err
    assert 'Traceback' in text
    assert 'ValueError: bug' in text


def test_terminated(level):
    def end(settings):
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    assert level(end) == 143
    assert signal.getsignal(signal.SIGTERM) is before


def test_logging_is_left_as_it_was(level):
    logger = logging.getLogger('qsmflow')
    before = [*logger.handlers], logger.level, logger.propagate
    level(lambda settings: 0)
    assert ([*logger.handlers], logger.level, logger.propagate) == before


def test_usage_error_leaves_by_system_exit(tmp_path):
    with pytest.raises(SystemExit) as caught:
        run.main([str(tmp_path)])
    assert caught.value.code == 2


@pytest.mark.parametrize(
    ('code', 'name', 'options', 'words'),
    [
        (0, 'participant', ['--dry-run'], 'the checks passed, and nothing was computed'),
        (1, 'participant', ['--dry-run'], 'cannot be processed; nothing was computed'),
        (65, 'participant', ['--dry-run'], run.EXIT_CODES[65]),
        (0, 'participant', ['--reports-only'], 'the reports are made again'),
        (1, 'participant', ['--reports-only'], 'at least one report failed'),
        (0, 'participant', ['--boilerplate-only'], 'the methods text is written'),
        (0, 'group', [], 'the tables and the page of the group are written'),
        (0, 'group', ['--dry-run'], 'the checks passed, and nothing was computed'),
    ],
)
def test_last_line_says_what_was_done(level, capsys, code, name, options, words):
    assert level(lambda settings: code, name, options) == code
    last = capsys.readouterr().err.rstrip().splitlines()[-1]
    assert words in last
    assert 'all requested' not in last
    assert last.endswith(f'; exit code {code}')
