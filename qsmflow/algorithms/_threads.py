"""How many threads the numerical code may use."""

import os

import numba


def workers():
    """Return the number of threads that the numerical code may use.

    The environment variable ``OMP_NUM_THREADS`` decides where it is set to a positive number,
    else the processors that this process may run on.

    Returns
    -------
    int
        Number of threads, at least 1.

    Examples
    --------
    >>> workers() >= 1
    True
    """
    wanted = os.environ.get('OMP_NUM_THREADS', '').split(',')[0].strip()
    if wanted.isdigit() and int(wanted) > 0:
        return int(wanted)
    if hasattr(os, 'sched_getaffinity'):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def use_threads():
    """Let the compiled kernels use as many threads as :func:`workers` allows.

    Returns
    -------
    int
        Number of threads in use.
    """
    threads = min(workers(), numba.config.NUMBA_NUM_THREADS)
    numba.set_num_threads(threads)
    return threads
