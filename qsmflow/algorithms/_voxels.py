"""The voxels of a mask as a list, and the way between lists and volumes.

Work on a list costs what the mask holds instead of what the grid holds. The list is in the
mask's C order, so that each plane of the first axis is one run of it: loops run in parallel over
these planes, and no two threads write to one place.
"""

from functools import cached_property

import numpy as np

from qsmflow.algorithms import operators as ops
from qsmflow.algorithms._jit import njit, prange


@njit(cache=True, parallel=True)
def _list_coordinates(mask, starts, coords):
    for i in prange(mask.shape[0]):
        v = starts[i]
        for j in range(mask.shape[1]):
            for k in range(mask.shape[2]):
                if mask[i, j, k]:
                    coords[v, 0] = i
                    coords[v, 1] = j
                    coords[v, 2] = k
                    v += 1


@njit(cache=True)
def _corners(coords):
    low = coords[0].copy()
    high = coords[0].copy()
    for v in range(coords.shape[0]):
        for a in range(3):
            low[a] = min(low[a], coords[v, a])
            high[a] = max(high[a], coords[v, a])
    return low, high + 1


@njit(cache=True, parallel=True)
def _gather(volume, mask, starts, out):
    for i in prange(mask.shape[0]):
        v = starts[i]
        for j in range(mask.shape[1]):
            for k in range(mask.shape[2]):
                if mask[i, j, k]:
                    for c in range(out.shape[0]):
                        out[c, v] = volume[i, j, k, c]
                    v += 1


@njit(cache=True, parallel=True)
def _scatter(values, mask, starts, out):
    for i in prange(mask.shape[0]):
        v = starts[i]
        for j in range(mask.shape[1]):
            for k in range(mask.shape[2]):
                if mask[i, j, k]:
                    out[i, j, k] = values[v]
                    v += 1


class Voxels:
    """The voxels of a mask, in C order.

    Parameters
    ----------
    mask : ndarray, shape (X, Y, Z)
        Region of interest; non-zero is inside.

    Attributes
    ----------
    mask : ndarray of bool, shape (X, Y, Z)
        Mask.
    starts : ndarray of int64, shape (X + 1,)
        Where in the list the planes of the first axis begin and the last one ends.
    """

    def __init__(self, mask):
        self.mask = np.ascontiguousarray(mask, bool)
        counts = np.count_nonzero(self.mask, axis=(1, 2))
        self.starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)

    def __len__(self):
        return int(self.starts[-1])

    @cached_property
    def coords(self):
        """Array indices of the voxels, int32, shape (N, 3)."""
        coords = np.empty((len(self), 3), np.int32)
        ops.use_threads()
        _list_coordinates(self.mask, self.starts, coords)
        return coords

    @cached_property
    def corners(self):
        """First array indices of the bounding box, and those behind its end."""
        if not len(self):
            return np.zeros(3, np.int32), np.zeros(3, np.int32)
        return _corners(self.coords)

    def layers(self, step, origin=0):
        """Return where in the list each layer of ``step`` planes begins, and where the last ends.

        Parameters
        ----------
        step : int
            Planes of the first axis in a layer.
        origin : int, optional
            First plane of the first layer.

        Returns
        -------
        ndarray of int64
            Positions in the list, one more than there are layers from ``origin`` to the end of
            the bounding box.
        """
        n_layers = -(-(int(self.corners[1][0]) - origin) // step)
        planes = origin + np.arange(n_layers + 1) * step
        return self.starts[np.minimum(planes, self.mask.shape[0])]

    def gather(self, volumes, count=None):
        """Return the values of volumes at the voxels.

        Parameters
        ----------
        volumes : ndarray of float, shape (X, Y, Z, C)
            Volumes.
        count : int, optional
            Take the first ``count`` volumes only.

        Returns
        -------
        ndarray of float32, shape (C, N)
            New array.
        """
        out = np.empty((count or volumes.shape[3], len(self)), np.float32)
        ops.use_threads()
        _gather(np.ascontiguousarray(volumes, np.float32), self.mask, self.starts, out)
        return out

    def scatter(self, values):
        """Return a volume with the values of a list at its voxels, and zero elsewhere.

        Parameters
        ----------
        values : ndarray of float, shape (N,)
            Values at the voxels.

        Returns
        -------
        ndarray of float32, shape (X, Y, Z)
            New array.
        """
        out = np.zeros(self.mask.shape, np.float32)
        ops.use_threads()
        _scatter(np.ascontiguousarray(values, np.float32), self.mask, self.starts, out)
        return out
