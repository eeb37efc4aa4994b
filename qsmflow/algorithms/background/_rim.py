"""Field values at the rim of the mask that are trusted, by their weights."""

import math

import numpy as np

from qsmflow.algorithms import operators as ops
from qsmflow.algorithms._jit import njit, prange

#: Confidence, relative to the largest, from which on a value is taken as it is.
SURE = 0.5
#: Neighbours of a doubtful voxel that stand in for it lie within so many mean voxel edges.
REACH = 2.5
#: Ridge on the slopes of the local fit, relative to the summed weights, in squares of the reach:
#: small against neighbours on both sides (0.2), large against none.
RIDGE = 1e-3


def trusted_values(field, weights, where, mask, voxel_size):
    r"""Return a field whose doubtful values at the rim are replaced by what is around them.

    In the voxels ``where`` the value is :math:`t f + (1 - t) \hat f`, with the trust
    :math:`t = \min(1, 2w)`, where :math:`w` is the confidence relative to the largest, and the
    fit :math:`\hat f` of a plane (constant and slopes) to the neighbours in the mask, weighted
    by :math:`w^2` and a taper with distance. Fields that are linear in space stay what they are
    for any weights.

    Parameters
    ----------
    field, weights : ndarray of float32, shape (X, Y, Z)
        Field, and confidence, which counts relative to the largest in the mask.
    where, mask : ndarray of bool, shape (X, Y, Z)
        Voxels to look at, and those that may be used.
    voxel_size : tuple of float
        Voxel edge lengths, in mm.

    Returns
    -------
    ndarray of float32, shape (X, Y, Z)
        New field.
    """
    field, mask = np.array(field, order='C'), np.ascontiguousarray(mask)
    weights, where = np.ascontiguousarray(weights), np.ascontiguousarray(where)
    largest = weights.max(where=mask, initial=0)
    voxels = np.flatnonzero(where)
    doubtful = mask.ravel()[voxels] & (weights.ravel()[voxels] / largest < SURE)
    index = np.unravel_index(voxels[doubtful], mask.shape)
    voxels = np.stack(index, axis=-1)
    if not len(voxels):
        return field
    reach = REACH * math.prod(voxel_size) ** (1 / 3)
    ranges = [np.arange(-int(reach / s), int(reach / s) + 1) for s in voxel_size]
    offsets = np.stack(np.meshgrid(*ranges, indexing='ij'), axis=-1).reshape(-1, 3)
    places = offsets * (np.asarray(voxel_size) / reach)
    taper = np.maximum(1 - (places**2).sum(axis=1), 0) ** 2
    offsets, places, taper = (a[taper > 0] for a in (offsets, places, taper))
    fits = np.empty(len(voxels), np.float32)
    ops.use_threads()
    _fit(field, weights, largest, mask, voxels, offsets, places, taper, RIDGE, fits)
    trust = weights[index] / largest / np.float32(SURE)
    field[index] = trust * field[index] + (1 - trust) * fits
    return field


@njit(cache=True, inline='always')
def _plane_at_centre(s0, sx, sy, sz, sxx, syy, szz, sxy, sxz, syz, b0, bx, by, bz):
    # Elimination of the slopes z, y, x in turn from the symmetric 4 x 4 normal equations.
    sxx -= sxz * sxz / szz
    sxy -= sxz * syz / szz
    syy -= syz * syz / szz
    s0, sx, sy = s0 - sz * sz / szz, sx - sz * sxz / szz, sy - sz * syz / szz
    b0, bx, by = b0 - sz * bz / szz, bx - sxz * bz / szz, by - syz * bz / szz
    sxx -= sxy * sxy / syy
    s0, sx = s0 - sy * sy / syy, sx - sy * sxy / syy
    b0, bx = b0 - sy * by / syy, bx - sxy * by / syy
    return (b0 - sx * bx / sxx) / (s0 - sx * sx / sxx)


@njit(cache=True, parallel=True)
def _fit(field, weights, largest, mask, voxels, offsets, places, taper, ridge, fits):
    for v in prange(len(voxels)):
        i, j, k = voxels[v]
        s0, sx, sy, sz, sxx, syy, szz = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
        sxy, sxz, syz, b0, bx, by, bz = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
        for n in range(len(offsets)):
            p, q, r = i + offsets[n, 0], j + offsets[n, 1], k + offsets[n, 2]
            if not (0 <= p < mask.shape[0] and 0 <= q < mask.shape[1] and 0 <= r < mask.shape[2]):
                continue
            if not mask[p, q, r]:
                continue
            x, y, z = places[n]
            share = weights[p, q, r] / largest
            w = taper[n] * (share * share)
            f = w * field[p, q, r]
            s0, b0 = s0 + w, b0 + f
            sx, sxx, sxy, bx = sx + w * x, sxx + w * x * x, sxy + w * x * y, bx + f * x
            sy, syy, syz, by = sy + w * y, syy + w * y * y, syz + w * y * z, by + f * y
            sz, szz, sxz, bz = sz + w * z, szz + w * z * z, sxz + w * x * z, bz + f * z
        if s0 < 1e-12:
            fits[v] = field[i, j, k]
            continue
        sxx, syy, szz = sxx + ridge * s0, syy + ridge * s0, szz + ridge * s0
        fits[v] = _plane_at_centre(s0, sx, sy, sz, sxx, syy, szz, sxy, sxz, syz, b0, bx, by, bz)
