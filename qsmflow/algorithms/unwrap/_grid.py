"""The bounding box of a mask as flat lists of voxels, and the way there and back.

Two voxels of border on every side let a loop look at the neighbours of a voxel, and at theirs,
without a test: in a list, the next voxel along an axis is one stride away. Phase is NaN wherever
it is not known, which is how all loops know the region.
"""

import numpy as np

from qsmflow.algorithms import operators as ops
from qsmflow.algorithms._jit import njit, prange

from ._echoes import TWO_PI

BORDER = 2


class Box:
    """The padded bounding box of a mask.

    Parameters
    ----------
    mask : ndarray of bool, shape (X, Y, Z)
        Region of interest, not empty.

    Attributes
    ----------
    mask : ndarray of bool, shape (X, Y, Z)
        Region of interest.
    shape : tuple of int
        Shape of the padded box.
    size : int
        Number of its voxels, the length of every list.
    strides : tuple of int
        Distance in a list between neighbours along each axis.
    """

    def __init__(self, mask):
        box = ops.bounding_box(mask)
        self.mask = np.ascontiguousarray(mask, bool)
        self.origin = tuple(s.start - BORDER for s in box)
        self.shape = tuple(s.stop - s.start + 2 * BORDER for s in box)
        self.size = int(np.prod(self.shape))
        self.strides = (self.shape[1] * self.shape[2], self.shape[2], 1)
        ops.use_threads()

    def phase(self, volumes, echo):
        """Return the wrapped phase of one echo, NaN outside the mask and where not finite."""
        out = np.empty(self.shape, np.float32)
        _gather_phase(np.asarray(volumes, np.float32), echo, self.mask, self.origin, out)
        return out.ravel()

    def magnitude(self, volumes, echo):
        """Return the magnitude of one echo, 0 outside the mask; ones if there is none."""
        if volumes is None:
            return np.ones(self.size, np.float32)
        out = np.empty(self.shape, np.float32)
        _gather_magnitude(np.asarray(volumes, np.float32), echo, self.mask, self.origin, out)
        return out.ravel()

    def fill(self, values, out):
        """Write a list into the volume ``out``, shape (X, Y, Z), within the mask."""
        inner = tuple(slice(BORDER, n - BORDER) for n in self.shape)
        box = tuple(
            slice(o + BORDER, o + n - BORDER) for o, n in zip(self.origin, self.shape, strict=True)
        )
        np.copyto(out[box], values.reshape(self.shape)[inner], where=self.mask[box])


@njit(cache=True, parallel=True)
def _gather_phase(volumes, echo, mask, origin, out):
    nx, ny, nz = out.shape
    for i in prange(nx):
        x = i + origin[0]
        for j in range(ny):
            y = j + origin[1]
            for k in range(nz):
                z = k + origin[2]
                out[i, j, k] = np.nan
                edge = min(i, j, k) < BORDER or nx - i <= BORDER
                if edge or ny - j <= BORDER or nz - k <= BORDER or not mask[x, y, z]:
                    continue
                value = np.float64(volumes[x, y, z, echo])
                if np.isfinite(value):
                    out[i, j, k] = value - TWO_PI * np.rint(value / TWO_PI)


@njit(cache=True, parallel=True)
def _gather_magnitude(volumes, echo, mask, origin, out):
    nx, ny, nz = out.shape
    for i in prange(nx):
        x = i + origin[0]
        for j in range(ny):
            y = j + origin[1]
            for k in range(nz):
                z = k + origin[2]
                out[i, j, k] = 0
                edge = min(i, j, k) < BORDER or nx - i <= BORDER
                if edge or ny - j <= BORDER or nz - k <= BORDER or not mask[x, y, z]:
                    continue
                value = volumes[x, y, z, echo]
                if np.isfinite(value) and value > 0:
                    out[i, j, k] = value


@njit(cache=True, parallel=True)
def write_echoes(volumes, references, source, ratio, template, mask, origin, shape, out):
    """Bring each echo to within pi of a reference, in rad, and write it to ``out``.

    Echo ``e`` follows ``ratio[e]`` times the list ``references[source[e]]``. A voxel that the
    reference of the template does not know is NaN in all echoes.
    """
    nx, ny, nz = shape
    for i in prange(BORDER, nx - BORDER):
        x = i + origin[0]
        for j in range(BORDER, ny - BORDER):
            y = j + origin[1]
            for k in range(BORDER, nz - BORDER):
                z = k + origin[2]
                if not mask[x, y, z]:
                    continue
                v = (i * ny + j) * nz + k
                unknown = np.isnan(references[source[template], v])
                for e in range(out.shape[3]):
                    value = np.float64(volumes[x, y, z, e])
                    expected = ratio[e] * references[source[e], v]
                    turns = np.rint((expected - value) / TWO_PI)
                    out[x, y, z, e] = np.nan if unknown else value + TWO_PI * turns
