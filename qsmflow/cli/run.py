"""The entry point: parse, prepare, run, and leave with a meaningful exit code.

The last line that the program prints says what happened and names the exit code, so that a log
alone tells how a run ended.
"""

import errno
import faulthandler
import logging
import os
import sys
from contextlib import contextmanager

from qsmflow import __version__
from qsmflow.cli.progress import message_handler
from qsmflow.cli.signals import Terminated, handled
from qsmflow.settings import Settings

#: What each exit code means; part of the interface, see ``docs/usage.md``.
EXIT_CODES = {
    0: 'all requested acquisitions and reports are done',
    1: 'at least one acquisition or report failed',
    2: 'wrong usage: an option, a label or a combination of them',
    65: 'nothing in the dataset can be used',
    70: 'an error of the program',
    73: 'a folder cannot be written or the disk is full',
    75: 'another run is using the output or work folder',
    127: 'a tool or an optional package is missing',
    130: 'interrupted by the user',
    143: 'terminated, for example by the scheduler',
}
#: What they mean where only a part of a run was asked for.
_PARTS = {
    ('dry run', 0): 'the checks passed, and nothing was computed',
    ('dry run', 1): 'at least one acquisition cannot be processed; nothing was computed',
    ('methods text', 0): 'the methods text is written, and nothing was computed',
    ('reports', 0): 'the reports are made again, and nothing was computed',
    ('reports', 1): 'at least one report failed',
    ('group', 0): 'the tables and the page of the group are written',
}
_CANNOT_WRITE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT}
_LOGGER = logging.getLogger('qsmflow.cli')


def main(argv: list[str] | None = None) -> int:
    """Run the BIDS App.

    Parameters
    ----------
    argv : list of str, optional
        Arguments without the program's name; those of the process by default.

    Returns
    -------
    int
        Exit code, a key of ``EXIT_CODES``. ``--help``, ``--version`` and usage errors leave by
        ``SystemExit`` instead.
    """
    from qsmflow.cli.environment import prepare, remove_empty
    from qsmflow.cli.parser import check_methods, parse_args

    if argv is None:
        _read_names_as_utf8()
    notes: list[str] = []
    settings = parse_args(argv, notes)
    if settings.execution.debug:
        faulthandler.enable()  # where a library crashed, which Python cannot tell afterwards
    with _messages(settings.execution.verbosity), handled():
        made = []
        try:
            made = prepare(settings)
            for note in notes:
                _LOGGER.warning('%s', note)
            with _refusals_told(settings):
                check_methods(settings)
            code, reason = _dispatch(settings), ''
        except (Exception, KeyboardInterrupt, Terminated) as error:
            code, reason = _explain(error)
        finally:
            remove_empty(made)
        return _finish(code, reason, settings)


@contextmanager
def _refusals_told(settings: Settings):
    """Tell a program that asked for JSON why nothing can start.

    What it takes is imported late: the environment must be set first.
    """
    if settings.execution.dry_run_json is None:
        yield
        return
    from qsmflow.cli.plan import refusals_told

    with refusals_told(settings):
        yield


def _read_names_as_utf8() -> None:
    """Start again in Python's UTF-8 mode where the locale has another encoding for file names.

    Names that are not ASCII would be read wrong there, and databases refuse them.
    """
    if sys.getfilesystemencoding().lower() != 'utf-8':
        os.environ['PYTHONUTF8'] = '1'
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _dispatch(settings: Settings) -> int:
    """Run the level that was asked for; it returns 0, or 1 if anything failed."""
    _LOGGER.info(
        'qsmflow %s, %s level, run %s',
        __version__,
        settings.bids.analysis_level,
        settings.execution.run_uuid,
    )
    if settings.bids.analysis_level == 'group':
        from qsmflow.cli import group as level
    else:
        from qsmflow.cli import participant as level
    return int(level.run(settings) or 0)


def _explain(error: BaseException) -> tuple[int, str]:
    """Return exit code and reason for an exception, and log what helps to mend it.

    Errors that explain themselves, by an ``exit_code`` or by their nature, are shown as one
    message; the others with their traceback, as they are the program's.
    """
    if isinstance(error, KeyboardInterrupt):
        return 130, ''
    if isinstance(error, Terminated):
        return 143, ''
    code = getattr(error, 'exit_code', None)
    if code is None and isinstance(error, OSError) and error.errno in _CANNOT_WRITE:
        code = 73
    if code is None:
        _LOGGER.error('unexpected error', exc_info=error)
        return 70, f'{type(error).__name__}: {error}'
    _LOGGER.debug('details', exc_info=error)
    # The text of our own messages; str() would put the system's error number before it.
    own = isinstance(error, OSError) and hasattr(error, 'exit_code')
    return int(code), error.strerror if own else str(error)


def _finish(code: int, reason: str, settings: Settings) -> int:
    """Print the last line."""
    meaning = _PARTS.get((_part(settings), code)) or EXIT_CODES.get(code, 'failed')
    details = f' ({reason.rstrip(".")})' if reason else ''
    level = logging.INFO if code == 0 else logging.ERROR
    _LOGGER.log(level, '%s%s; exit code %d', meaning, details, code)
    return code


def _part(settings: Settings) -> str:
    """Return which part of a run was asked for; empty for a whole one."""
    execution = settings.execution
    asked = {
        'dry run': execution.dry_run,
        'methods text': execution.boilerplate_only,
        'reports': execution.reports_only,
        'group': settings.bids.analysis_level == 'group',
    }
    return next((name for name, value in asked.items() if value), '')


@contextmanager
def _messages(verbosity: int):
    """Send the package's messages, and only once, to standard error."""
    logger = logging.getLogger('qsmflow')
    handler = message_handler()
    before = logger.level, logger.propagate
    logger.setLevel(logging.DEBUG if verbosity > 0 else logging.INFO)
    # nipype gives the root logger a handler, which would print everything twice.
    logger.propagate = False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.level, logger.propagate = before
