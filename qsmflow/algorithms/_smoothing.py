"""Normalised (masked) Gaussian smoothing of values known inside a mask only.

Smoothing with zeros outside the mask pulls the rim towards zero, a smooth error that no later
stage can see. Here numerator and denominator are smoothed alike, so a constant stays a constant up
to the last voxel of the mask. Wide Gaussians run on a coarser grid: the values are summed into
cells, smoothed there and interpolated back, which costs little time and no full-size temporaries.
"""

import numpy as np
from scipy import ndimage

from qsmflow.algorithms import operators as ops
from qsmflow.algorithms._checks import check_positive, check_voxel_size
from qsmflow.algorithms._jit import njit, prange

# Widest Gaussian, in voxels: beyond any volume, while cells of half of it are counted in 32 bits.
_WIDEST = 2.0**30


@njit(cache=True, parallel=True)
def _sum_into_cells(values, weights, coords, origin, starts, steps, sums):
    # Each layer of cells has a run of voxels of its own: no two threads add to one cell.
    n_values = values.shape[0]
    for i in prange(starts.size - 1):
        for v in range(starts[i], starts[i + 1]):
            weight = weights[v]
            if weight <= 0:
                continue
            j = (coords[v, 1] - origin[1]) // steps[1]
            k = (coords[v, 2] - origin[2]) // steps[2]
            for c in range(n_values):
                sums[c, i, j, k] += weight * values[c, v]
            sums[n_values, i, j, k] += weight


@njit(cache=True, inline='always')
def _between(index, step, n):
    # Cell i covers voxels i * step ... (i + 1) * step - 1; its centre is their mean.
    position = (index + 0.5) / step - 0.5
    position = min(max(position, 0.0), n - 1.0)
    lower = int(position)
    return lower, min(lower + 1, n - 1), np.float32(position - lower)


@njit(cache=True, parallel=True)
def _sample_cells(sums, coords, origin, steps, out):
    nx, ny, nz = sums.shape[1:]
    n_values = sums.shape[0] - 1
    one = np.float32(1)
    for v in prange(coords.shape[0]):
        i0, i1, x = _between(coords[v, 0] - origin[0], steps[0], nx)
        j0, j1, y = _between(coords[v, 1] - origin[1], steps[1], ny)
        k0, k1, z = _between(coords[v, 2] - origin[2], steps[2], nz)
        total = np.float32(0)
        for c in range(n_values, -1, -1):
            near = (one - z) * sums[c, i0, j0, k0] + z * sums[c, i0, j0, k1]
            far = (one - z) * sums[c, i0, j1, k0] + z * sums[c, i0, j1, k1]
            low = (one - y) * near + y * far
            near = (one - z) * sums[c, i1, j0, k0] + z * sums[c, i1, j0, k1]
            far = (one - z) * sums[c, i1, j1, k0] + z * sums[c, i1, j1, k1]
            value = (one - x) * low + x * ((one - y) * near + y * far)
            if c == n_values:
                total = value
            else:
                out[c, v] = value / total if total > 0 else np.float32(0)


class MaskedSmoother:
    """Gaussian smoothing of values given at the voxels of a mask, in the mask's C order.

    Parameters
    ----------
    voxels : Voxels
        The mask.
    voxel_size : tuple of float
        Voxel edge lengths, in mm, in array-axis order.
    sigma : float
        Standard deviation of the Gaussian, in mm. Along an axis whose voxels are larger than
        this, it is one voxel; one much wider than the mask gives the mean over the mask.

    Raises
    ------
    ValueError
        If ``voxel_size`` or ``sigma`` are not positive numbers.
    """

    def __init__(self, voxels, voxel_size, sigma):
        check_positive(sigma=sigma)
        voxel_size = check_voxel_size(voxel_size)
        self._coords = voxels.coords
        low, high = voxels.corners
        self._origin = low
        sigma_voxels = np.clip(sigma / np.array(voxel_size), 1.0, _WIDEST)
        # Two cells per sigma keep the interpolation error far below the noise.
        self._steps = np.maximum(np.floor(sigma_voxels / 2), 1).astype(np.int32)
        self._sigma_cells = sigma_voxels / self._steps
        self._shape = tuple(int(n) for n in -(-(high - low) // self._steps))
        self._starts = voxels.layers(int(self._steps[0]), int(low[0]))

    def __call__(self, values, weights, at=None):
        """Return the weighted mean of ``values`` around each voxel.

        Parameters
        ----------
        values : ndarray of float, shape (N,) or (C, N)
            Values, any unit. Must be finite where ``weights`` is not zero.
        weights : ndarray of float, shape (N,)
            Weights, not negative.
        at : ndarray of int, shape (M,), optional
            Voxels of the list at which the mean is wanted; all by default.

        Returns
        -------
        ndarray of float32, shape (M,) or (C, M)
            Smoothed values; 0 where all weights around are 0.
        """
        table = np.ascontiguousarray(np.atleast_2d(values), np.float32)
        weights = np.ascontiguousarray(weights, np.float32)
        sums = np.zeros((table.shape[0] + 1, *self._shape))
        ops.use_threads()
        grid = self._coords, self._origin
        _sum_into_cells(table, weights, *grid, self._starts, self._steps, sums)
        for cells in sums:
            ndimage.gaussian_filter(cells, self._sigma_cells, mode='constant', output=cells)
        coords = self._coords if at is None else self._coords[at]
        out = np.empty((table.shape[0], len(coords)), np.float32)
        _sample_cells(sums.astype(np.float32), coords, self._origin, self._steps, out)
        return out if np.ndim(values) == 2 else out[0]
