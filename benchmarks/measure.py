"""Time in FFT pairs and peak memory of a call.

Time is divided by that of one pair of float32 real 3-D transforms, taken right after the call, so
that the figure says how well a method uses the machine and carries over to others.
"""

import contextlib
import gc
import itertools
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

import numpy as np
from numba.core.dispatcher import Dispatcher

from qsmflow.algorithms import operators as ops

#: Calls are repeated more often until they took so long together, in s.
SHORT = 0.3
#: Calls are not repeated once they took so long together, in s: their noise averages out.
LONG = 10.0


def pair_time(grid, *, least: float = 0.05, rounds: int = 3) -> float:
    """Return the median time of one forward and inverse transform of a grid, in s.

    Parameters
    ----------
    grid : tuple of int
        Shape.
    least : float, optional
        Time that each round takes at least, in s.
    rounds : int, optional
        Number of rounds.
    """
    volume = np.random.default_rng(0).standard_normal(grid, np.float32)
    times, count = [], 1
    while len(times) < rounds:
        start = time.perf_counter()
        for _ in range(count):
            ops.irfft(ops.rfft(volume), grid)
        taken = time.perf_counter() - start
        if taken < least:
            count = max(2 * count, int(count * least / max(taken, 1e-6)) + 1)
            continue
        times.append(taken / count)
    return statistics.median(times)


def copy_time(grid) -> float:
    """Return the least time of copying a float32 volume on all threads, in s.

    Reading and writing a volume once is what a fused stencil takes at the bandwidth of the memory,
    for each volume that it reads and each that it writes half of that.
    """
    source, target = (np.zeros(grid, np.float32) for _ in range(2))
    threads = ops.workers()
    edges = np.linspace(0, grid[0], threads + 1).astype(int)
    slabs = [slice(*edge) for edge in itertools.pairwise(edges)]
    times = []
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(9):
            start = time.perf_counter()
            list(pool.map(lambda slab: np.copyto(target[slab], source[slab]), slabs))
            times.append(time.perf_counter() - start)
    return min(times)


class Transforms:
    """Counts the transforms that the algorithms make while it is active.

    Attributes
    ----------
    calls : collections.Counter
        Number of transforms, forward and inverse, of each grid.
    """

    def __init__(self):
        self.calls = Counter()
        self._changed = []

    def __enter__(self):
        for name in ('rfft', 'irfft'):
            original = getattr(ops, name)
            counted = self._counted(original)
            # Some modules hold the function itself, not the module of operators.
            for module in [m for n, m in sys.modules.items() if n.startswith('qsmflow.')]:
                if getattr(module, name, None) is original:
                    setattr(module, name, counted)
                    self._changed.append((module, name, original))
        return self

    def __exit__(self, *error):
        for module, name, original in self._changed:
            setattr(module, name, original)
        self._changed.clear()

    def _counted(self, function):
        def wrapper(data, *args, **kwargs):
            shape = kwargs.get('shape', args[0] if args else None)
            self.calls[tuple(data.shape if shape is None else shape)] += 1
            return function(data, *args, **kwargs)

        return wrapper

    @property
    def grid(self) -> tuple[int, int, int] | None:
        """Grid on which most of the work was done; None without transforms."""
        if not self.calls:
            return None
        return max(self.calls, key=lambda grid: self.calls[grid] * prod(grid))

    @property
    def pairs(self) -> float:
        """Number of pairs, those of other grids by their number of voxels."""
        if not self.calls:
            return 0.0
        return sum(n * prod(grid) for grid, n in self.calls.items()) / prod(self.grid) / 2


@dataclass
class Spent:
    """What calls of one kind took together.

    Attributes
    ----------
    seconds : float
        Time.
    touched : int
        Bytes of the arrays that they were given.
    """

    seconds: float = 0.0
    touched: int = 0

    def watching(self, function):
        """Return a function that is added up."""

        def watched(*args, **kwargs):
            start = time.perf_counter()
            result = function(*args, **kwargs)
            self.seconds += time.perf_counter() - start
            self.touched += sum(
                a.nbytes for a in (*args, *kwargs.values()) if isinstance(a, np.ndarray)
            )
            return result

        return watched

    def copies(self, grid) -> float:
        """Return how many float32 volumes of a grid could be copied with as many bytes."""
        return self.touched / (4 * prod(grid)) / 2


@contextlib.contextmanager
def watched(spent: Spent, is_wanted):
    """Add up the calls of what modules of the algorithms hold."""
    changed = []
    for module in [m for n, m in sys.modules.items() if n.startswith('qsmflow.algorithms')]:
        for name, value in list(vars(module).items()):
            if is_wanted(value):
                setattr(module, name, spent.watching(value))
                changed.append((module, name, value))
    try:
        yield
    finally:
        for module, name, value in changed:
            setattr(module, name, value)


def is_kernel(value) -> bool:
    """Return whether something is a compiled kernel."""
    return isinstance(value, Dispatcher)


@dataclass
class Timing:
    """Times of one call.

    Attributes
    ----------
    grid : tuple of int
        Grid of the transforms that the time is divided by.
    transforms : float
        FFT pairs that the call made on it.
    floor : float
        What its kernels read and write once at least, in copies of a volume of that grid.
    iterations : int or None
        Length of the history that it returned.
    seconds, pairs, image_pairs : list of float
        Time of each repeat, in s, in pairs of ``grid``, and in pairs of the image.
    """

    grid: tuple[int, int, int]
    transforms: float = 0.0
    floor: float = 0.0
    iterations: int | None = None
    seconds: list[float] = field(default_factory=list)
    pairs: list[float] = field(default_factory=list)
    image_pairs: list[float] = field(default_factory=list)


def measure_time(call, image, *, repeats: int = 3, with_history: bool = False) -> Timing:
    """Time a call and, after each repeat, the pair that it is compared with.

    Parameters
    ----------
    call : callable
        Takes nothing; what it compiles must be compiled already.
    image : tuple of int
        Shape of the image; the unit of a call that makes no transform.
    repeats : int, optional
        Number of calls; there are more of one that is over at once, up to four times as many,
        and fewer of one that takes seconds.
    with_history : bool, optional
        Whether the last thing that the call returns is its history.
    """
    timing, made_so_far, total = None, 0, 0.0
    while (made_so_far < repeats and total < LONG) or (
        total < SHORT and made_so_far < 4 * repeats
    ):
        gc.collect()
        kernels = Spent()
        with Transforms() as made, watched(kernels, is_kernel):
            start = time.perf_counter()
            result = call()
            taken = time.perf_counter() - start
        if timing is None:
            grid = made.grid or tuple(image)
            timing = Timing(grid, made.pairs, kernels.copies(grid))
            timing.iterations = len(result[-1]) or None if with_history else None
        del result
        made_so_far, total = made_so_far + 1, total + taken
        timing.seconds.append(taken)
        # Machines are not equally fast all the time: the longer a call, the longer its unit.
        least = min(max(0.05, taken / 20), 0.3)
        own = pair_time(timing.grid, least=least, rounds=5)
        timing.pairs.append(taken / own)
        whole = own
        if timing.grid != tuple(image):
            whole = pair_time(image, least=least, rounds=5)
        timing.image_pairs.append(taken / whole)
    return timing


# --- memory -----------------------------------------------------------------------------------


def _status(key: str) -> int:
    for line in Path('/proc/self/status').read_text().splitlines():
        if line.startswith(f'{key}:'):
            return 1024 * int(line.split()[1])
    raise OSError(f'/proc/self/status has no {key}')


@contextlib.contextmanager
def _sampling(found: list[int], step: float = 0.001):
    """Read the memory of this process again and again in a thread; for kernels without reset."""
    stop = threading.Event()

    def watch():
        while not stop.wait(step):
            found.append(_status('VmRSS'))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def peak_memory(call) -> int:
    """Return by how many bytes the memory of this process grows at most during a call."""
    gc.collect()
    try:
        # 5 sets the high-water mark back to what is in use.
        Path('/proc/self/clear_refs').write_text('5')
        readable = True
    except OSError:
        readable = False
    before = _status('VmRSS')
    samples = [before]
    with contextlib.nullcontext() if readable else _sampling(samples):
        result = call()
    samples.append(_status('VmHWM' if readable else 'VmRSS'))
    del result
    return max(samples) - before


def memory_in_subprocess(script: Path, arguments: list[str]) -> int:
    """Run a script that prints JSON with ``bytes``, and return that number.

    A fresh process has no memory of earlier calls that new arrays could take. The threshold keeps
    every array in a mapping of its own, which is given back when the array goes.
    """
    environment = os.environ | {'MALLOC_MMAP_THRESHOLD_': '65536'}
    command = [sys.executable, str(script), *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, check=False
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f'{" ".join(arguments)} failed:\n{done.stderr[-2000:]}')
    return int(json.loads(done.stdout.splitlines()[-1])['bytes'])
