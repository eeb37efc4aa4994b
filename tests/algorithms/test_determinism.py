"""The same input gives the same bytes, wherever it lies in memory."""

import numpy as np
import pytest

from qsmflow.algorithms import catalog, get_method
from tests.algorithms.fields import phantom


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
