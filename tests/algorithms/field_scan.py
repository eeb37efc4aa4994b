"""A field, and scans of it, for the tests of the field fits."""

import numpy as np

from qsmflow.units import radians_per_ppm

F0 = 127.732
EVEN = np.array([0.004, 0.010, 0.016, 0.022, 0.028])
UNEVEN = np.array([0.0046, 0.0103, 0.0190, 0.0300])
SHAPE = (24, 26, 22)
SIZE = (2.0, 2.0, 2.0)


def grid():
    return np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing='ij')


def truth():
    x, y, z = grid()
    return 0.15 * x - 0.1 * y * z + 0.2 * np.exp(-8 * (x**2 + y**2 + z**2))


def scan(te, *, snr=None, offset=0.0, seed=0, r2star=30.0):
    """Return (unwrapped phase, magnitude) of the field ``truth()``."""
    te = np.asarray(te)
    phase = np.asarray(offset)[..., None] + radians_per_ppm(te, F0) * truth()[..., None]
    x, _, _ = grid()
    magnitude = 1000 * np.exp(-r2star * te) * (1 + 0.3 * x[..., None])
    if snr is None:
        return phase, np.broadcast_to(magnitude, phase.shape).copy()
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=phase.shape) + 1j * rng.normal(size=phase.shape)
    signal = magnitude + 1000 / snr * noise
    return phase + np.angle(signal), np.abs(signal)


def region():
    x, y, z = grid()
    return x**2 + y**2 + z**2 < 0.9


def lists(te, snr, **options):
    """Return phase and magnitude of the voxels as the kernels take them, (E, N), and k."""
    phase, magnitude = scan(te, snr=snr, **options)
    pick = region()
    k = radians_per_ppm(te, F0)
    return phase[pick].T.astype(np.float32), (magnitude[pick].T / 1000).astype(np.float32), k
