"""Normalised (masked) Gaussian smoothing of values known inside a mask only.

Smoothing with zeros outside the mask pulls the rim towards zero, a smooth error that no later
stage can see. Here numerator and denominator are smoothed alike, so a constant stays a constant up
to the last voxel of the mask. Wide Gaussians run on a coarser grid: the values are summed into
cells, smoothed there and interpolated back, which costs little time and no full-size temporaries.
"""

import numba
import numpy as np
from scipy import ndimage


@numba.njit(cache=True)
def _sum_into_cells(values, weights, coords, steps, sums):
    for v in range(values.shape[0]):
        weight = weights[v]
        i = coords[v, 0] // steps[0]
        j = coords[v, 1] // steps[1]
        k = coords[v, 2] // steps[2]
        for c in range(values.shape[1]):
            sums[c, i, j, k] += weight * values[v, c]
        sums[values.shape[1], i, j, k] += weight


@numba.njit(cache=True)
def _sample_cells(sums, coords, steps, out):
    shape = sums.shape[1:]
    n_values = sums.shape[0] - 1
    corner = np.zeros(3, np.int64)
    upper = np.zeros(3, np.int64)
    frac = np.zeros(3)
    for v in range(coords.shape[0]):
        for a in range(3):
            # Cell i covers voxels i * step ... (i + 1) * step - 1; its centre is their mean.
            position = (coords[v, a] + 0.5) / steps[a] - 0.5
            position = min(max(position, 0.0), shape[a] - 1.0)
            corner[a] = int(position)
            upper[a] = min(corner[a] + 1, shape[a] - 1)
            frac[a] = position - corner[a]
        total = 0.0
        for c in range(n_values, -1, -1):
            value = 0.0
            for bits in range(8):
                i = upper[0] if bits & 1 else corner[0]
                j = upper[1] if bits & 2 else corner[1]
                k = upper[2] if bits & 4 else corner[2]
                share = frac[0] if bits & 1 else 1 - frac[0]
                share *= frac[1] if bits & 2 else 1 - frac[1]
                share *= frac[2] if bits & 4 else 1 - frac[2]
                value += share * sums[c, i, j, k]
            if c == n_values:
                total = value
            else:
                out[v, c] = value / total if total > 0 else 0.0


class MaskedSmoother:
    """Gaussian smoothing of values given at the voxels of a mask, in the mask's C order.

    Parameters
    ----------
    coords : ndarray of int, shape (N, 3)
        Array indices of the voxels of the mask, as of ``numpy.argwhere``.
    voxel_size : tuple of float
        Voxel edge lengths, in mm, in array-axis order.
    sigma : float
        Standard deviation of the Gaussian, in mm. Along an axis whose voxels are larger than
        this, it is one voxel.
    """

    def __init__(self, coords, voxel_size, sigma):
        self._origin = coords.min(axis=0) if len(coords) else np.zeros(3, coords.dtype)
        self._coords = (coords - self._origin).astype(np.int32)
        sigma_voxels = np.maximum(sigma / np.asarray(voxel_size, np.float64), 1.0)
        # Two cells per sigma keep the interpolation error far below the noise.
        self._steps = np.maximum(np.floor(sigma_voxels / 2), 1).astype(np.int32)
        self._sigma_cells = sigma_voxels / self._steps
        extent = self._coords.max(axis=0) + 1 if len(coords) else np.ones(3, np.int32)
        self._shape = tuple(int(n) for n in -(-extent // self._steps))

    def __call__(self, values, weights):
        """Return the weighted mean of ``values`` around each voxel.

        Parameters
        ----------
        values : ndarray of float, shape (N,) or (N, C)
            Values, any unit. Must be finite where ``weights`` is not zero.
        weights : ndarray of float, shape (N,)
            Weights, not negative.

        Returns
        -------
        ndarray of float32, shape of ``values``
            Smoothed values; 0 where all weights around are 0.
        """
        table = np.asarray(values, np.float32)
        table = table[:, None] if table.ndim == 1 else table
        sums = np.zeros((table.shape[1] + 1, *self._shape), np.float64)
        table = np.where(weights[:, None] > 0, table, np.float32(0))
        _sum_into_cells(table, np.asarray(weights, np.float32), self._coords, self._steps, sums)
        for cells in sums:
            ndimage.gaussian_filter(cells, self._sigma_cells, mode='constant', output=cells)
        out = np.empty(table.shape, np.float32)
        _sample_cells(sums, self._coords, self._steps, out)
        return out.reshape(np.shape(values))
