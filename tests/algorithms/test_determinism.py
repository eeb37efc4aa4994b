"""The same input gives the same bytes, wherever it lies in memory, and from loaded kernels."""

import ast
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


def _shared_sums(source):
    """Yield parallel loops that sum up a scalar, and plain sums in parallel kernels.

    numba gives each thread a share of either, so that the last digits depend on their number.
    """
    for kernel in ast.walk(ast.parse(source)):
        if not isinstance(kernel, ast.FunctionDef):
            continue
        parallel = any('parallel=True' in ast.unparse(d) for d in kernel.decorator_list)
        for node in ast.walk(kernel) if parallel else ():
            if isinstance(node, ast.Call) and ast.unparse(node).endswith('.sum()'):
                yield f'{kernel.name}: {ast.unparse(node)}'
            if isinstance(node, ast.For) and ast.unparse(node.iter).startswith('prange('):
                names = [n for n in ast.walk(node) if isinstance(n, ast.AugAssign)]
                summed = {n.target.id for n in names if isinstance(n.target, ast.Name)}
                own = {
                    n.id
                    for assignment in ast.walk(node)
                    if isinstance(assignment, ast.Assign)
                    for n in ast.walk(assignment)
                    if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
                }
                yield from (f'{kernel.name}: {name}' for name in summed - own)


def test_no_sum_is_shared_among_threads():
    folder = Path(catalog.__file__).parent
    found = {
        str(p.relative_to(folder)): list(_shared_sums(p.read_text())) for p in folder.rglob('*.py')
    }
    assert {name: sums for name, sums in found.items() if sums} == {}


@pytest.mark.parametrize('line', ['total += a[i]', 'b[i] = a.sum()'])
def test_shared_sums_are_recognised(line):
    kernel = f'@njit(parallel=True)\ndef k(a, b):\n total = 0\n for i in prange(9):\n  {line}\n'
    assert list(_shared_sums(kernel))


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
