"""What all unwrapping shares: the wrap of one angle, and the check of a multi-echo series."""

from numbers import Integral

import numpy as np

from qsmflow.algorithms._jit import njit

TWO_PI = 2 * np.pi


@njit(cache=True, inline='always')
def wrap_scalar(x):
    """Wrap one angle, in rad, to [-pi, pi]."""
    return x - TWO_PI * np.rint(x / TWO_PI)


def check_echoes(phase, magnitude, mask, te):
    """Check the arrays of one multi-echo series against each other.

    Parameters
    ----------
    phase : ndarray of float, shape (X, Y, Z, E)
        Phase, in rad.
    magnitude : ndarray of float, shape (X, Y, Z, E), or None
        Magnitude, in arbitrary units.
    mask : ndarray of bool, shape (X, Y, Z)
        Region of interest.
    te : sequence of float, shape (E,)
        Echo times, in s.

    Returns
    -------
    ndarray of float64, shape (E,)
        Echo times, in s.

    Raises
    ------
    ValueError
        If shapes disagree, phase or magnitude is complex, or echo times are not positive and
        increasing.
    """
    times = np.atleast_1d(np.asarray(te, np.float64))
    if np.ndim(phase) != 4:
        raise ValueError(f'phase must have shape (X, Y, Z, E), echo last; got {np.shape(phase)}.')
    if phase.shape[:3] != np.shape(mask):
        raise ValueError(f'mask {np.shape(mask)} is not on the grid of phase {phase.shape[:3]}.')
    if magnitude is not None and np.shape(magnitude) != phase.shape:
        raise ValueError(f'magnitude {np.shape(magnitude)} and phase {phase.shape} differ.')
    for name, series in (('phase', phase), ('magnitude', magnitude)):
        if np.iscomplexobj(series):
            raise ValueError(
                f'{name} must be real; got {series.dtype}. Take the angle and the absolute value '
                'of the signal.'
            )
    if times.shape != (phase.shape[3],):
        raise ValueError(f'phase has {phase.shape[3]} echo(es), te names {times.size}.')
    if not np.all(np.isfinite(times)) or times[0] <= 0 or np.any(np.diff(times) <= 0):
        raise ValueError(f'te must be positive and increasing, in s; got {times.tolist()}.')
    return times


def check_echo(echo, count, name='template'):
    """Check that an echo index is one of ``count`` echoes, and raise a ValueError if not."""
    if not (isinstance(echo, Integral) and 0 <= echo < count):
        raise ValueError(f'{name} must be an echo index in 0..{count - 1}; got {echo!r}.')
