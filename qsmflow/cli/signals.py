"""SIGTERM and SIGINT: a tidy end if that takes a moment, else an end nevertheless.

The first signal raises an exception in the main thread, which ends the workers, writes the status
table and the reports. A library may swallow the exception, or the thread may be inside a long
call: then, or at the second signal, another thread writes the status table, kills what was
started, and leaves.
"""

import contextlib
import logging
import multiprocessing
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator

from qsmflow.cli.progress import say
from qsmflow.cli.system import descendants, kill

#: Seconds that a tidy end may take. Schedulers kill soon after they terminate.
GRACE = 2.0
#: A signal that follows the first within so many seconds is the same wish: schedulers, ``timeout``
#: and terminals signal the whole process group, and so may the parent.
ECHO = 0.7
_LOGGER = logging.getLogger('qsmflow.cli')


class Terminated(BaseException):
    """The process was asked to end; not an ``Exception``, so that no handler swallows it."""

    exit_code = 143


#: What each signal raises, and the exit code.
_RAISED: dict[int, tuple[type[BaseException], int]] = {
    signal.SIGTERM: (Terminated, 143),
    signal.SIGINT: (KeyboardInterrupt, 130),
}
_LAST_WORDS: list[Callable[[str], None]] = []
_RAISED_SO_FAR: list[BaseException] = []


@contextlib.contextmanager
def handled(grace: float = GRACE) -> Iterator[None]:
    """Raise on SIGTERM and SIGINT, and see to it that the process ends.

    Does nothing outside the main thread, which alone may set handlers.

    Parameters
    ----------
    grace : float, optional
        Seconds from the first signal to the forced end.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    watch: list[threading.Timer] = []
    first: list[float] = []

    def on_signal(signum, frame):
        error, code = _RAISED[signum]
        if first:
            if time.monotonic() - first[0] > ECHO:
                _leave(code, 'asked twice')
            return
        first.append(time.monotonic())
        timer = threading.Timer(grace, _leave, (code, f'no tidy end within {grace:g} s'))
        timer.daemon = True
        watch.append(timer)
        timer.start()
        _RAISED_SO_FAR.append(error(f'received {signal.Signals(signum).name}'))
        raise _RAISED_SO_FAR[-1]

    # Someone who ignores a signal, as nohup does, means it.
    previous = {
        number: signal.signal(number, on_signal)
        for number in _RAISED
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    _RAISED_SO_FAR.clear()
    try:
        yield
    finally:
        _RAISED_SO_FAR.clear()
        for number, handler in previous.items():
            signal.signal(number, handler)
        for timer in watch:
            timer.cancel()


def raise_again() -> None:
    """Raise what a signal has raised before, if there was one.

    A library may have swallowed it, or made another error of it. Called between the steps, and
    where a failure is about to be noted which is none.
    """
    if _RAISED_SO_FAR:
        error = _RAISED_SO_FAR[-1]
        raise type(error)(*error.args)


@contextlib.contextmanager
def last_words(speak: Callable[[str], None]) -> Iterator[None]:
    """Have a function called, with a reason, should the process be forced to end in between."""
    _LAST_WORDS.append(speak)
    try:
        yield
    finally:
        _LAST_WORDS.remove(speak)


def _leave(code: int, why: str) -> None:
    """End this process and all that it started, now."""
    try:
        for pid in descendants(os.getpid()):
            kill(pid)
        for speak in reversed(_LAST_WORDS):
            with contextlib.suppress(Exception):
                speak('interrupted')
        # No exit handler will do it.
        folder = multiprocessing.current_process()._config.get('tempdir')
        if folder:
            shutil.rmtree(folder, ignore_errors=True)
        meaning = 'interrupted by the user' if code == 130 else 'terminated'
        # Not by the logger, whose lock the main thread may hold.
        say(f'ERROR qsmflow: {meaning}, {why}; exit code {code}')
        sys.stderr.flush()
    finally:
        os._exit(code)
