"""Phase differences of two echoes, continuous in space.

A difference changes slowly in space, but for a few places. It is therefore unwrapped on cells of
about 2 mm instead of voxels, which costs an eighth at 1 mm; each voxel then takes the multiple of
2 pi that is nearest its cell. Where a cell holds more than pi its sum is small, and the
region growing visits it last.
"""

import math

import numpy as np

from qsmflow.algorithms import operators as ops
from qsmflow.algorithms._jit import njit, prange
from qsmflow.algorithms.unwrap import romeo

# Largest edge of a cell that holds several voxels, in mm.
_CELL = 2.0
# The same in voxels: beyond any volume, and counted in 32 bits.
_LARGEST_CELL = 2**30
_TURN = 2 * math.pi


@njit(cache=True, parallel=True)
def _sum_differences(phase, magnitude, pairs, coords, origin, starts, steps, sums, counts):
    for i in prange(starts.size - 1):
        for v in range(starts[i], starts[i + 1]):
            j = (coords[v, 1] - origin[1]) // steps[1]
            k = (coords[v, 2] - origin[2]) // steps[2]
            for p in range(pairs.shape[0]):
                a, b = pairs[p]
                angle = phase[b, v] - phase[a, v]
                strength = math.sqrt(abs(magnitude[a, v] * magnitude[b, v]))
                if math.isfinite(angle) and math.isfinite(strength):
                    sums[i, j, k, p] += strength * complex(math.cos(angle), math.sin(angle))
                    counts[i, j, k, p] += 1


@njit(cache=True, parallel=True)
def _nearest_turn(first, second, cells, coords, origin, steps, out):
    turn = np.float32(_TURN)
    for v in prange(out.size):
        i = (coords[v, 0] - origin[0]) // steps[0]
        j = (coords[v, 1] - origin[1]) // steps[1]
        k = (coords[v, 2] - origin[2]) // steps[2]
        cell = cells[i, j, k, 0]
        angle = second[v] - first[v]
        out[v] = angle + turn * np.rint((cell - angle) / turn)


def cell_steps(voxel_size):
    """Return the edges of the cells on which a difference is unwrapped, in voxels.

    Parameters
    ----------
    voxel_size : tuple of float
        Voxel edge lengths, in mm.

    Returns
    -------
    ndarray of int32, shape (3,)

    Examples
    --------
    >>> cell_steps((0.5, 1.0, 1.5)).tolist()
    [4, 2, 1]
    """
    steps = _CELL / np.asarray(voxel_size, np.float64) + 1e-6
    return np.clip(steps, 1, _LARGEST_CELL).astype(np.int32)


def unwrapped_difference(phase, magnitude, voxels, voxel_size, pairs, times):
    """Return the phase difference of two echoes at the voxels of a mask, continuous in space.

    Parameters
    ----------
    phase : ndarray of float32, shape (E, N)
        Wrapped phase at the voxels, in rad.
    magnitude : ndarray of float32, shape (E, N)
        Magnitude at the voxels, in arbitrary units.
    voxels : Voxels
        The mask.
    voxel_size : tuple of float
        Voxel edge lengths, in mm.
    pairs : sequence of (int, int)
        Earlier and later echo. The first pair is unwrapped; further ones guide it.
    times : sequence of float
        Difference of the echo times of each pair, in s, increasing.

    Returns
    -------
    ndarray of float32, shape (N,)
        Difference, in rad; NaN where it is not known.
    """
    steps = cell_steps(voxel_size)
    low, high = voxels.corners
    # Cells begin at multiples of their size, so that they do not move with the mask.
    origin = low // steps * steps
    strength = np.zeros((*-(-(high - origin) // steps), len(pairs)), np.complex64)
    counts = np.zeros(strength.shape, np.uint16)
    layers = voxels.layers(int(steps[0]), int(origin[0]))
    ops.use_threads()
    _sum_differences(
        *(phase, magnitude, np.array(pairs), voxels.coords, origin, layers, steps),
        *(strength, counts),
    )
    angle = np.angle(strength)
    angle[counts == 0] = np.nan
    strength = np.abs(strength)
    known = counts.any(axis=-1)
    strength /= np.maximum(counts, 1, out=counts)
    cells = romeo(angle, strength, known, tuple(voxel_size * steps), te=times)
    out = np.empty(len(voxels), np.float32)
    ops.use_threads()
    first, second = pairs[0]
    _nearest_turn(phase[first], phase[second], cells, voxels.coords, origin, steps, out)
    return out
