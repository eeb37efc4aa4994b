"""The same input gives the same bytes, wherever it lies in memory, and from loaded kernels."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest

from qsmflow.algorithms import catalog, get_method, solvers
from tests.algorithms.fields import phantom
from tests.algorithms.outputs import METHODS as NAMES
from tests.algorithms.outputs import RELAXED, STENCIL, STRICT


def _shifted(array):
    """Return a copy of an array that begins four bytes off any wider boundary."""
    room = np.empty(array.nbytes + 68, np.uint8)
    start = (-room.ctypes.data) % 64 + 4
    out = room[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    out[:] = array
    return out


METHODS = [
    pytest.param(stage, method, id=f'{stage}-{name}')
    for stage in ('background', 'inversion')
    for name, method in catalog.STAGES[stage].items()
]


@pytest.mark.parametrize(('stage', 'method'), METHODS)
def test_same_bytes(stage, method):
    _, mask, local, background = phantom((23, 24, 21))
    run = get_method(stage, method.name)
    total = stage == 'background' or method.one_step
    field = local + background if total else local
    options = {'radius': 3.0} if method.name in ('sharp', 'resharp', 'ismv') else {}
    if method.takes == 'phase':
        options = {'te': (0.01, 0.02), 'f0': 127.7}
        field = np.angle(np.exp(1j * np.array([8, 16]) * field[..., None])).astype(np.float32)
    results = []
    for copy in (np.copy, _shifted, np.copy):
        result = run(copy(field), copy(mask), (1.0, 1.1, 1.3), **options)
        result = result[0] if isinstance(result, tuple) else result
        results.append(result.tobytes())
        held = np.empty(np.random.default_rng(len(results)).integers(1, 1 << 20), np.uint8)
        del held
    assert results[0] == results[1] == results[2]


# --- compiled or loaded ---


@pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason='one thread only')
def test_inner_product_does_not_depend_on_the_number_of_threads(monkeypatch):
    a, b = np.random.default_rng(0).normal(size=(2, 500_003)).astype(np.float32)
    before, found = numba.get_num_threads(), []
    for threads in (1, 2):
        monkeypatch.setattr(
            solvers, 'use_threads', lambda threads=threads: numba.set_num_threads(threads)
        )
        found.append(solvers.dot(a, b))
    numba.set_num_threads(before)
    assert found[0] == found[1]


def _hashes(cache, threads, *methods):
    """Return the hashes of outputs from a new process that keeps its kernels in a folder."""
    command = [sys.executable, '-m', 'tests.algorithms.outputs', *methods]
    settings = {
        'NUMBA_CACHE_DIR': str(cache),
        'NUMBA_NUM_THREADS': threads,
        'OMP_NUM_THREADS': threads,
    }
    root = Path(__file__).parents[2]
    environment = {**os.environ, **settings}
    done = subprocess.run(command, cwd=root, env=environment, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def test_loaded_kernel_gives_what_it_gave_when_compiled(tmp_path):
    compiled, loaded = (_hashes(tmp_path, '1', STENCIL) for _ in range(2))
    assert len(list(tmp_path.glob('*/*apply_stencil*.nbc'))) == 1
    assert compiled == loaded


def test_kernels_give_the_same_in_whatever_order_they_are_compiled(tmp_path):
    one, other = (
        _hashes(tmp_path, '1', *order) for order in ((STRICT, RELAXED), (RELAXED, STRICT))
    )
    assert one[STRICT] != one[RELAXED], 'otherwise nothing can be mixed up'
    assert one == other


@pytest.mark.slow
@pytest.mark.parametrize('threads', ['1', '2'])
def test_loaded_methods_give_what_they_gave_when_compiled(tmp_path, threads):
    compiled, loaded = (_hashes(tmp_path, threads) for _ in range(2))
    assert list(compiled) == NAMES
    assert compiled == loaded
