"""The phase that is there at echo time zero, and its removal (MCPC-3D-S), also slice by slice."""

import math

import numpy as np

from qsmflow.algorithms import operators as ops
from qsmflow.algorithms._checks import check_positive, check_voxel_size
from qsmflow.algorithms._differences import unwrapped_difference
from qsmflow.algorithms._jit import njit, prange
from qsmflow.algorithms._smoothing import MaskedSmoother
from qsmflow.algorithms._voxels import Voxels
from qsmflow.algorithms.phase import wrap
from qsmflow.algorithms.unwrap import check_echoes

_TURN = 2 * math.pi


def remove_phase_offset(phase, magnitude, mask, voxel_size, *, te, sigma=10.0):
    r"""Remove the phase that is there at echo time zero (MCPC-3D-S).

    The phase difference of the first two echoes, unwrapped in space, tells what the first echo
    gained since excitation; the rest is the offset,
    :math:`\varphi_1 - (\varphi_2 - \varphi_1)\,TE_1/(TE_2 - TE_1)` [1]_. It is smoothed as a
    complex number, normalised by the smoothed weight, so that it stays right up to the edge of
    the mask. A second pass over the remainder, with half the width, takes out what the first
    one loses where the offset is steep.

    Parameters
    ----------
    phase : ndarray of float, shape (X, Y, Z, E)
        Wrapped phase, in rad.
    magnitude : ndarray of float, shape (X, Y, Z, E), or None
        Magnitude, in arbitrary units.
    mask : ndarray of bool, shape (X, Y, Z)
        Region of interest.
    voxel_size : tuple of float
        Voxel edge lengths, in mm, in array-axis order.
    te : sequence of float, shape (E,)
        Echo times, in s, increasing.
    sigma : float, optional
        Standard deviation of the Gaussian, in mm. The authors' 10 voxels, at 1 mm.

    Returns
    -------
    phase_corrected : ndarray of float32, shape (X, Y, Z, E)
        Wrapped phase without the offset, in rad; 0 outside ``mask``. NaN stays NaN.
    phase_offset : ndarray of float32, shape (X, Y, Z)
        Offset, in [-pi, pi), in rad; 0 outside ``mask``. With one echo it cannot be known and is
        0 everywhere.

    Raises
    ------
    ValueError
        If shapes or echo times are not consistent, or ``voxel_size`` or ``sigma`` is not
        positive.

    Notes
    -----
    Assumes that all echoes are read out in the same direction. With bipolar readout the offsets
    of odd and even echoes differ: see :func:`qsmflow.algorithms.bipolar.remove_bipolar`. Two
    echoes cannot tell them apart.

    The difference is unwrapped on cells of up to 2 mm. In a voxel where that fails, because the
    difference changes by more than pi within a cell, the raw offset is wrong, but
    outvoted by those around it.

    References
    ----------
    .. [1] Eckstein K, et al. Magn Reson Med 2018;79:2996-3006. doi:10.1002/mrm.26963

    Examples
    --------
    >>> te, region = (0.004, 0.008), np.ones((8, 8, 8), bool)
    >>> phase = np.stack([np.full((8, 8, 8), 1.0 + 100 * t) for t in te], axis=-1)
    >>> corrected, offset = remove_phase_offset(phase, None, region, (1, 1, 1), te=te)
    >>> round(float(offset.mean()), 3)
    1.0
    """
    te = check_echoes(phase, magnitude, mask, te)
    voxel_size = check_voxel_size(voxel_size)
    check_positive(sigma=sigma)
    voxels = Voxels(mask)
    offset = np.zeros(len(voxels), np.float32)
    if te.size > 1 and len(voxels):
        offset = _estimate_offset(phase, magnitude, voxels, voxel_size, te, sigma)
    corrected = np.zeros(phase.shape, np.float32)
    phase = np.ascontiguousarray(phase, np.float32)
    ops.use_threads()
    _subtract(phase, offset, voxels.mask, voxels.starts, corrected)
    return corrected, voxels.scatter(offset)


def remove_slice_offsets(phase, magnitude, mask, voxel_size, *, te, axis=2):
    r"""Remove a phase offset that each slice has of its own, as 2-D scans have it.

    Between slices the phase then jumps by any amount, so that it cannot be unwrapped in space.
    From each slice the mean of the phase at echo time zero is taken,
    :math:`\varphi_1 - (\varphi_2 - \varphi_1)\,TE_1/(TE_2 - TE_1)`, which holds no field. The
    difference of two echoes has no such offset and is unwrapped in space as usual. What varies
    within a slice is left for :func:`remove_phase_offset`.

    Parameters
    ----------
    phase : ndarray of float, shape (X, Y, Z, E)
        Wrapped phase, in rad; two echoes or more.
    magnitude : ndarray of float, shape (X, Y, Z, E), or None
        Magnitude, in arbitrary units.
    mask : ndarray of bool, shape (X, Y, Z)
        Where the offset is measured; it is removed everywhere.
    voxel_size : tuple of float
        Voxel edge lengths, in mm, in array-axis order.
    te : sequence of float, shape (E,)
        Echo times, in s, increasing.
    axis : int, optional
        Slice axis.

    Returns
    -------
    phase : ndarray of float32, shape (X, Y, Z, E)
        Wrapped phase, in rad. Slices outside the mask are as before.
    offsets : ndarray of float32
        Offset of each slice, in rad.

    Raises
    ------
    ValueError
        If there is one echo only, shapes or echo times are not consistent, or ``voxel_size`` is
        not positive.

    Examples
    --------
    >>> te, region = (0.004, 0.008), np.ones((8, 8, 8), bool)
    >>> offsets = np.array([0.5, -2, 1, 3, -1, 0, 2, -3])[:, None]
    >>> phase = offsets + 100 * np.array(te) + np.zeros((8, 8, 1, 1))
    >>> removed = remove_slice_offsets(phase, None, region, (1, 1, 1), te=te)[1]
    >>> removed.round(2).tolist()
    [0.5, -2.0, 1.0, 3.0, -1.0, 0.0, 2.0, -3.0]
    """
    te = check_echoes(phase, magnitude, mask, te)
    voxel_size = check_voxel_size(voxel_size)
    if te.size < 2:
        raise ValueError('offsets of slices can be told from the field with two echoes or more.')
    voxels = Voxels(mask)
    offsets = np.zeros(phase.shape[axis], np.float32)
    if len(voxels):
        raw, weights = _raw_offset(phase, magnitude, voxels, voxel_size, te)
        slices = np.nonzero(voxels.mask)[axis]
        sums = [
            np.bincount(slices, weights * part(raw), minlength=offsets.size)
            for part in (np.cos, np.sin)
        ]
        offsets[:] = np.arctan2(sums[1], sums[0])
    shape = [-1 if a == axis else 1 for a in range(4)]
    return wrap(np.asarray(phase, np.float32) - offsets.reshape(shape)), offsets


def _estimate_offset(phase, magnitude, voxels, voxel_size, te, sigma):
    """Return the smoothed offset, in rad, at the voxels of the mask."""
    raw, weights = _raw_offset(phase, magnitude, voxels, voxel_size, te)
    return _smooth_angle(raw, weights, voxels, voxel_size, (sigma, sigma / 2))


def _raw_offset(phase, magnitude, voxels, voxel_size, te):
    """Return the offset of each voxel of the mask by itself, in rad, and its weight."""
    # Differences to the first echo hold no offset. The third echo guides the unwrapping and, with
    # uneven spacing, settles the multiple of 2 pi of the whole.
    used = min(te.size, 3)
    angles = voxels.gather(phase, used)
    if magnitude is None:
        strengths = np.ones(angles.shape, np.float32)
    else:
        strengths = voxels.gather(magnitude, used)
    pairs = [(0, j) for j in range(1, used)]
    gained = unwrapped_difference(angles, strengths, voxels, voxel_size, pairs, te[1:used] - te[0])
    raw = angles[0] - np.float32(te[0] / (te[1] - te[0])) * gained
    # The variance of the raw offset goes with the inverse square of the magnitude.
    weights = np.nan_to_num(strengths[0] * strengths[1], nan=0, posinf=0, neginf=0)
    weights = np.abs(weights, out=weights)
    np.minimum(weights, np.percentile(weights, 95), out=weights)
    known = np.isfinite(raw) & np.isfinite(angles).all(axis=0)
    weights *= known
    raw[~known] = 0
    return raw, weights


def _smooth_angle(angle, weights, voxels, voxel_size, widths):
    """Smooth an angle as a complex number, then its remainder with the next width, and so on."""
    rest = np.stack([np.cos(angle), np.sin(angle)])
    total = np.zeros_like(rest)
    total[0] = 1
    ops.use_threads()
    for width in widths:
        smooth = MaskedSmoother(voxels, voxel_size, width)(rest, weights)
        _turn_back(smooth, rest, total)
    out = np.empty(angle.shape, np.float32)
    _angles(total, out)
    return out


@njit(cache=True, parallel=True)
def _turn_back(smooth, rest, total):
    """Move the angle of ``smooth`` from ``rest`` to ``total``, all complex as (2, N)."""
    for v in prange(smooth.shape[1]):
        x, y = smooth[0, v], smooth[1, v]
        size = math.sqrt(x * x + y * y)
        if size == 0:
            continue
        x, y = x / size, y / size
        real, imag = rest[0, v], rest[1, v]
        rest[0, v] = real * x + imag * y
        rest[1, v] = imag * x - real * y
        real, imag = total[0, v], total[1, v]
        total[0, v] = real * x - imag * y
        total[1, v] = imag * x + real * y


@njit(cache=True, parallel=True)
def _angles(vectors, out):
    half = np.float32(math.pi)
    for v in prange(out.size):
        angle = np.float32(math.atan2(vectors[1, v], vectors[0, v]))
        out[v] = -half if angle >= half else angle


@njit(cache=True, parallel=True)
def _subtract(phase, offset, mask, starts, out):
    turn = np.float32(_TURN)
    half = np.float32(math.pi)
    for i in prange(mask.shape[0]):
        v = starts[i]
        for j in range(mask.shape[1]):
            for k in range(mask.shape[2]):
                if not mask[i, j, k]:
                    continue
                for c in range(phase.shape[3]):
                    angle = phase[i, j, k, c] - offset[v]
                    angle -= turn * np.rint(angle / turn)
                    if angle >= half or angle < -half:
                        angle = -half
                    out[i, j, k, c] = angle
                v += 1
