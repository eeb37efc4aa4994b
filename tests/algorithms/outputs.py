"""Hashes of what methods return for a small input: ``python -m tests.algorithms.outputs ID ...``.

A program of its own, so that kernels can be compiled in one process and loaded in another. Without
words it takes all methods.
"""

import dataclasses
import hashlib
import json
import sys

import numpy as np

from qsmflow.algorithms import get_method
from qsmflow.algorithms._jit import njit
from qsmflow.algorithms.catalog import STAGES
from qsmflow.algorithms.inversion._tgv_kernels import apply_stencil
from qsmflow.units import radians_per_ppm
from tests.algorithms.field_scan import EVEN, F0, SIZE, region, scan
from tests.algorithms.fields import phantom

FITS = ('unwrapping', 'field', 'relaxometry')
METHODS = [
    f'{stage}-{name}' for stage in (*FITS, 'background', 'inversion') for name in STAGES[stage]
]
#: Kernels alone: a sum of many terms with ``fastmath``, to show whether sums are reordered, and a
#: division of complex numbers without it and with it.
STENCIL, STRICT, RELAXED = KERNELS = ('kernel-stencil', 'kernel-strict', 'kernel-relaxed')


def output(method):
    """Return the output of a method, given as ``stage-name``, or of one of `KERNELS`."""
    if method in KERNELS:
        return _stencil() if method == STENCIL else _quotient(fast=method == RELAXED)
    stage, _, name = method.partition('-')
    run = get_method(stage, name)
    return _of_echoes(stage, run) if stage in FITS else _of_field(STAGES[stage][name], stage, run)


def _stencil():
    rng = np.random.default_rng(0)
    volume, keep = rng.random((2, 12, 13, 14), np.float32)
    weights = tuple(rng.random(10, np.float32))
    out = np.zeros_like(volume)
    apply_stencil(volume, weights, keep, np.tile(np.uint64([1, 13]), (*volume.shape[:2], 1)), out)
    return out


def _quotient(fast):
    @njit(fastmath=fast)
    def divide(a, b, out):
        for i in range(a.size):
            out[i] = a[i] / b[i]

    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 1000, 2)).astype(np.float32).view(np.complex64)[..., 0]
    out = np.zeros_like(a)
    divide(a, b, out)
    return out


def _of_echoes(stage, run):
    phase, magnitude = (a.astype(np.float32) for a in scan(EVEN, snr=30))
    if stage == 'relaxometry':
        return run(magnitude, region(), SIZE, te=EVEN)
    if stage == 'field':
        return run(phase, magnitude, region(), SIZE, te=EVEN, f0=F0)
    return run(np.angle(np.exp(1j * phase)), magnitude, region(), SIZE, te=EVEN)


def _of_field(method, stage, run):
    chi, mask, local, background = phantom((23, 24, 21))
    noise = np.random.default_rng(0).normal(0, 0.002, mask.shape).astype(np.float32)
    total = stage == 'background' or method.one_step
    field = (local + background if total else local) + noise * mask
    extras = {
        'magnitude': (1 - chi) * mask,
        'r2star': 20 * mask.astype(np.float32),
        'field_noise': np.full(mask.shape, 0.002, np.float32),
        'phase_scale': float(radians_per_ppm(0.02, F0)),
        'magnitudes': np.repeat(((1 - chi) * mask)[..., None], len(EVEN), axis=-1),
        'te': EVEN,
        'f0': F0,
    }
    if method.takes == 'phase':
        scales = [float(radians_per_ppm(te, F0)) for te in EVEN]
        field = np.angle(np.exp(1j * field[..., None] * scales)).astype(np.float32)
    options = {name: extras[name] for name in method.extras}
    if method.name in ('sharp', 'resharp', 'ismv'):
        options['radius'] = 3.0
    return run(field, mask, (1.0, 1.1, 1.3), **options)


def digest(result):
    """Return a hash of the bytes of an array, or of all arrays of a tuple or dataclass."""
    out = hashlib.sha256()
    for part in _parts(result):
        out.update(np.ascontiguousarray(part).tobytes())
    return out.hexdigest()[:16]


def _parts(result):
    if dataclasses.is_dataclass(result):
        return _parts([getattr(result, each.name) for each in dataclasses.fields(result)])
    if isinstance(result, list | tuple):
        return [part for each in result for part in _parts(each)]
    return [np.asarray(result)]


if __name__ == '__main__':
    print(json.dumps({method: digest(output(method)) for method in sys.argv[1:] or METHODS}))
