"""What it costs to unwrap along each edge between neighbouring voxels, and what that means.

An *edge list* holds one word for each voxel of a :class:`~._grid.Box`: three bytes with the costs
of the edges to the next voxel along x, y and z, 1 (best) to 254 (worst) or 0 where there is no
edge, then three times two bits with the turn of each edge (-1, 0, 1), plus one. Edge and phase
travel together through the memory that way, and growing needs no phase at all.
"""

import math

import numpy as np

from qsmflow.algorithms._jit import njit, prange

#: The worst cost.
WORST = 254

#: Names of the six weights, in the order of the flags: coherence of the phase, coherence of its
#: gradient in two echoes, linearity of the phase, coherence of the magnitude, and magnitude that
#: is not too small and not too large.
TERMS = (
    'phase coherence',
    'phase gradient coherence',
    'phase linearity',
    'magnitude coherence',
    'enough magnitude',
    'no excess of magnitude',
)
#: Which of ``TERMS`` make up each named choice.
CHOICES = {
    'romeo': '111100',
    'romeo2': '100100',
    'romeo3': '110100',
    'romeo4': '111100',
    'romeo6': '111111',
}

# Limits of the second differences of a voxel, in rad: the rounding of stored phase, below which
# no order means anything, and 13 squares at their largest.
_LEAST_BEND = np.float32(0.01)
_LARGEST_BEND = 2 * math.pi * math.sqrt(13)
_MOST_RELIABLE = np.float32(2 / _LEAST_BEND)
_LEAST_RELIABLE = np.float32(2 / _LARGEST_BEND)
_COST_PER_FOLD = np.float32((WORST - 1) / math.log(_MOST_RELIABLE / _LEAST_RELIABLE))
# A line that leaves the mask cannot be tested for linearity; it is taken to be rather straight.
_LINEARITY_AT_BORDER = 0.9
# A gradient of the other echo that is not known says nothing for or against the edge.
_UNKNOWN_COHERENCE = 0.5

_TURN = np.float32(2 * math.pi)
_PER_TURN = np.float32(1 / (2 * math.pi))
_PER_HALF_TURN = np.float32(1 / math.pi)
_HALF = np.float32(0.5)
_ONE = np.float32(1)
_ZERO = np.float32(0)
_TINY = np.float32(1e-30)


def check_edge_weights(name):
    """Return the flags of the six terms, or None for ``'bestpath'``.

    Raises
    ------
    ValueError
        If the name is unknown.

    Examples
    --------
    >>> check_edge_weights('romeo2')
    (True, False, False, True, False, False)
    """
    if name == 'bestpath':
        return None
    flags = CHOICES.get(name, name)
    if isinstance(flags, str) and len(flags) == len(TERMS) and set(flags) <= {'0', '1'}:
        return tuple(flag == '1' for flag in flags)
    raise ValueError(
        f'edge_weights must be one of {", ".join(CHOICES)}, bestpath, or six digits 0 or 1 that '
        f'choose from {", ".join(TERMS)}; got {name!r}.'
    )


def edge_list(box, phase, other, ratio, magnitude, edge_weights, *, has_magnitude=True):
    """Return the edge list of one echo.

    Parameters
    ----------
    box : Box
        Padded bounding box.
    phase : ndarray of float32, shape (N,)
        Wrapped phase, in rad, NaN where not known.
    other : ndarray of float32, shape (N,), or None
        Wrapped phase of another echo.
    ratio : float
        Echo time of ``phase`` over that of ``other``.
    magnitude : ndarray of float32, shape (N,)
        Magnitude, in arbitrary units.
    edge_weights : str
        Of ``CHOICES``, ``'bestpath'``, or six digits.
    has_magnitude : bool, optional
        Whether ``magnitude`` was measured; if not, its terms are left out.

    Returns
    -------
    ndarray of int32, shape (N,)
        Edge list; see the module.
    """
    flags = check_edge_weights(edge_weights)
    edges = np.zeros(box.size, np.int32)
    nx, (sx, sy, _) = box.shape[0], box.strides
    if flags is None:
        bend = np.full(box.size, np.nan, np.float32)
        second_differences(phase, nx, sx, sy, bend)
        _reliability_edges(phase, bend, nx, sx, sy, edges)
        return edges
    usable = (True, other is not None, True, *3 * (has_magnitude,))
    # A term w counts as floor + (1 - floor) w: 0.1 + 0.9 w where it is on, 1 where it is off.
    floors = tuple(
        np.float32(0.1 if on and there else 1) for on, there in zip(flags, usable, strict=True)
    )
    middle = np.float32(0.5 * _high_magnitude(magnitude) if any(flags[4:]) else 1)
    other = phase if other is None else other
    _romeo_edges(phase, other, np.float32(ratio), magnitude, middle, floors, nx, sx, sy, edges)
    return edges


def _high_magnitude(magnitude):
    """Return the 95th percentile of the positive magnitude, which single bright voxels pass by."""
    positive = magnitude[magnitude > 0]
    return np.percentile(positive, 95) if positive.size else 1.0


@njit(cache=True, inline='always')
def _wrap(x):
    return x - _TURN * np.rint(x * _PER_TURN)


@njit(cache=True, inline='always')
def _weight(floor, term):
    return floor + (_ONE - floor) * term


@njit(cache=True, inline='always')
def _romeo_edge(phase, other, ratio, magnitude, middle, floors, v, stride, byte):
    """Return the bits of the edge from voxel ``v`` to the next one along an axis."""
    u = v + stride
    here, there = phase[v], phase[u]
    difference = there - here
    turn = np.rint(difference * _PER_TURN)
    step = difference - _TURN * turn
    weight = _weight(floors[0], _ONE - abs(step) * _PER_HALF_TURN)

    coherence = max(_ZERO, _ONE - abs(step - ratio * _wrap(other[u] - other[v])))
    coherence = coherence if coherence == coherence else np.float32(_UNKNOWN_COHERENCE)
    weight *= _weight(floors[1], coherence)

    before = _ONE - _HALF * abs(_wrap(phase[v - stride] - here - here + there))
    after = _ONE - _HALF * abs(_wrap(here - there - there + phase[u + stride]))
    linear = max(_ZERO, before) * max(_ZERO, after)
    inside = before == before and after == after
    weight *= _weight(floors[2], linear if inside else np.float32(_LINEARITY_AT_BORDER))

    low, high = min(magnitude[v], magnitude[u]), max(magnitude[v], magnitude[u])
    quotient = low / max(high, _TINY)
    weight *= _weight(floors[3], quotient * quotient)
    weight *= _weight(floors[4], _HALF + _HALF * min(_ONE, low / middle))
    weight *= _weight(floors[5], _HALF + _HALF * min(_ONE, middle / max(high, _TINY)))

    cost = np.int32(max(_ONE, np.rint((_ONE - weight) * np.float32(WORST))))
    bits = (cost << (8 * byte)) | ((np.int32(turn) + 1) << (24 + 2 * byte))
    return bits if difference == difference else np.int32(0)


# NaN marks the border of the region: arithmetic may be relaxed, but not by the promise that
# there is none of it.
_RELAXED = {'contract', 'nsz', 'arcp'}


@njit(cache=True, parallel=True, fastmath=_RELAXED, error_model='numpy')
def _romeo_edges(phase, other, ratio, magnitude, middle, floors, nx, sx, sy, edges):
    for i in prange(2, nx - 2):
        for v in range(i * sx, (i + 1) * sx):
            edges[v] = (
                _romeo_edge(phase, other, ratio, magnitude, middle, floors, v, sx, 0)
                | _romeo_edge(phase, other, ratio, magnitude, middle, floors, v, sy, 1)
                | _romeo_edge(phase, other, ratio, magnitude, middle, floors, v, 1, 2)
            )


@njit(cache=True, parallel=True, fastmath=_RELAXED, error_model='numpy')
def second_differences(phase, nx, sx, sy, out):
    """Write the root of the sum of the 13 squared second differences, in rad; NaN if none.

    Lines that leave the region are replaced by the mean of the others.
    """
    for i in prange(2, nx - 2):
        for v in range(i * sx, (i + 1) * sx):
            total = _ZERO
            count = _ZERO
            for a in range(0, 2):
                for b in range(-1, 2):
                    for c in range(-1, 2):
                        # One of each pair of opposite directions.
                        if a * 9 + b * 3 + c <= 0:
                            continue
                        step = a * sx + b * sy + c
                        bend = _wrap(phase[v - step] - phase[v]) - _wrap(
                            phase[v] - phase[v + step]
                        )
                        square = bend * bend
                        known = square == square
                        total += square if known else _ZERO
                        count += _ONE if known else _ZERO
            out[v] = np.sqrt(np.float32(13) * total / count)


@njit(cache=True, inline='always')
def _reliability_edge(phase, bend, v, stride, byte):
    """Return the bits of an edge whose cost is the logarithm of its reliability."""
    u = v + stride
    difference = phase[u] - phase[v]
    turn = np.rint(difference * _PER_TURN)
    reliability = _ZERO
    if bend[v] == bend[v]:
        reliability += _ONE / max(bend[v], _LEAST_BEND)
    if bend[u] == bend[u]:
        reliability += _ONE / max(bend[u], _LEAST_BEND)
    worse = np.log(_MOST_RELIABLE / max(reliability, _LEAST_RELIABLE))
    cost = np.int32(_ONE + np.rint(_COST_PER_FOLD * worse))
    bits = (cost << (8 * byte)) | ((np.int32(turn) + 1) << (24 + 2 * byte))
    return bits if difference == difference else np.int32(0)


@njit(cache=True, parallel=True, error_model='numpy')
def _reliability_edges(phase, bend, nx, sx, sy, edges):
    for i in prange(2, nx - 2):
        for v in range(i * sx, (i + 1) * sx):
            if phase[v] == phase[v]:
                edges[v] = (
                    _reliability_edge(phase, bend, v, sx, 0)
                    | _reliability_edge(phase, bend, v, sy, 1)
                    | _reliability_edge(phase, bend, v, 1, 2)
                )
