"""Plain numpy versions and scikit-image, timed in turn with the package's own."""

import importlib.util
import time
from dataclasses import dataclass
from statistics import median

import numpy as np
import reference
from synthetic import Case

from qsmflow.algorithms import get_method
from qsmflow.algorithms import operators as ops

#: Iterations of total variation that are timed.
ITERATIONS = 4


@dataclass
class Comparison:
    """Times of the same work by two implementations, in s; ``note`` says why there is none."""

    work: str
    shape: tuple[int, int, int]
    threads: int
    other: str
    seconds: float | None = None
    other_seconds: float | None = None
    note: str = ''


def compare(case: Case, threads: int, repeats: int) -> list[Comparison]:
    """Time everything that there is another version of.

    Parameters
    ----------
    case : Case
        Data.
    threads : int
        Number of threads, for the record. The other versions use one.
    repeats : int
        Each is run so often, in turn; the median counts.
    """
    pairs = [_gradient(case), _arlo(case), _tv(case), _unwrapping(case)]
    result = []
    for work, other, calls in pairs:
        row = Comparison(work, case.shape, threads, other)
        if calls is None:
            row.note = f'{other} is not installed'
        else:
            row.seconds, row.other_seconds = _in_turn(*calls, repeats)
        result.append(row)
    return result


def _in_turn(first, second, repeats):
    first()
    times = [], []
    for _ in range(repeats):
        for call, taken in zip((first, second), times, strict=True):
            start = time.perf_counter()
            call()
            taken.append(time.perf_counter() - start)
    return tuple(median(taken) for taken in times)


def _gradient(case):
    volume = case.total_field
    out = np.empty((3, *volume.shape), np.float32)
    calls = (lambda: ops.gradient(volume, out=out)), (lambda: reference.gradient(volume))
    return 'gradient', 'numpy', calls


def _arlo(case):
    ours = get_method('relaxometry', 'arlo')
    arguments = case.series, case.mask
    return (
        'R2* by ARLO',
        'numpy',
        (
            lambda: ours(*arguments, case.voxel_size, te=case.te, noise=0),
            lambda: reference.arlo(*arguments, case.te),
        ),
    )


def _tv(case):
    """Time total variation alone: the default method as plain ADMM, without reweighting."""
    ours, field, mask = get_method('inversion', 'tv'), case.local_field, case.mask
    options = {'weights': case.weights, 'max_iter': ITERATIONS}
    plain = {**reference.PLAIN_TV, 'tol': 1e-12}
    return (
        f'TV, {ITERATIONS} iterations',
        'numpy',
        (
            lambda: ours(field, mask, (1.0, 1.0, 1.0), **options, **plain),
            lambda: reference.tv(field, mask, **options),
        ),
    )


def _unwrapping(case):
    work, other = 'unwrapping, one echo', 'scikit-image'
    if importlib.util.find_spec('skimage') is None:
        return work, other, None
    from skimage.restoration import unwrap_phase

    ours, te = get_method('unwrapping', 'romeo'), case.te[-1:]
    phase, magnitude = case.phase[..., -1:].copy(), case.series[..., -1:].copy()
    masked = np.ma.array(phase[..., 0], mask=~case.mask)
    return (
        work,
        other,
        (
            lambda: ours(phase, magnitude, case.mask, case.voxel_size, te=te),
            lambda: unwrap_phase(masked, rng=0),
        ),
    )
