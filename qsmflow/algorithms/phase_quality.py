"""Where the phase cannot be trusted: singularities, and unwrapping that failed."""

import math

import numpy as np

from qsmflow.algorithms import operators as ops
from qsmflow.algorithms._checks import check_mask
from qsmflow.algorithms._jit import njit, prange
from qsmflow.algorithms._voxels import Voxels
from qsmflow.algorithms.unwrap import check_echoes
from qsmflow.units import radians_per_ppm

_TURN = np.float32(2 * math.pi)


def singularities(phase, mask, *, axis=None):
    r"""Count, for each voxel, the closed loops through it around which the phase winds.

    The differences of a continuous phase add up to zero around any loop. Around a singularity,
    the wrapped differences of neighbours along a loop of 2 x 2 voxels add up to :math:`2\pi` or
    :math:`-2\pi` [1]_. Singularities are at the ends of fringe lines, in dephased voxels, and
    where the combination of coils failed. No unwrapping is free of jumps there.

    Parameters
    ----------
    phase : ndarray of float, shape (X, Y, Z)
        Phase of one echo, in rad, wrapped or not.
    mask : ndarray of bool, shape (X, Y, Z)
        Region of interest. Only loops inside it, with finite phase, count.
    axis : int, optional
        Count only loops in the planes perpendicular to this axis, for a number per slice. By
        default those of all three orientations.

    Returns
    -------
    ndarray of uint8, shape (X, Y, Z)
        Number of singular loops of which the voxel is a corner: 0 to 4 for each orientation.
        As each loop has four corners, the sum over a region is four times its loops.

    Raises
    ------
    ValueError
        If shapes differ or are not three-dimensional, the mask is empty, or there is no such
        axis.

    Notes
    -----
    Noise alone makes a third of all loops singular; the phase of tissue at a signal-to-noise
    ratio above 5 practically none.

    References
    ----------
    .. [1] Goldstein RM, Zebker HA, Werner CL. Radio Sci 1988;23:713-720.
       doi:10.1029/RS023i004p00713

    Examples
    --------
    A phase that winds once around an axis:

    >>> x, y, z = np.mgrid[-2:3, -2:3, 0:3] + 0.5
    >>> count = singularities(np.arctan2(y, x), np.ones((5, 5, 3), bool))
    >>> int(count.max()), int(count.sum()) // 4
    (1, 3)
    """
    mask = check_mask(mask, np.shape(phase), 'phase')
    if axis not in (None, 0, 1, 2):
        raise ValueError(f'axis must be 0, 1, 2 or None; got {axis!r}.')
    phase = np.ascontiguousarray(phase, np.float32)
    wanted = np.array([axis in (None, a) for a in range(3)])
    loops = np.zeros(mask.shape, np.uint8)
    count = np.zeros(mask.shape, np.uint8)
    ops.use_threads()
    _mark_loops(phase, np.ascontiguousarray(mask & np.isfinite(phase)), wanted, loops)
    _count_corners(loops, count)
    return count


@njit(cache=True, inline='always')
def _turns(a, b):
    return np.rint((b - a) / _TURN)


@njit(cache=True, parallel=True)
def _mark_loops(phase, mask, wanted, loops):
    """Set bit ``a`` where a singular loop perpendicular to axis ``a`` has its first corner."""
    nx, ny, nz = phase.shape
    for i in prange(nx):
        for j in range(ny):
            for k in range(nz):
                if not mask[i, j, k]:
                    continue
                for a in range(3):
                    di, dj, dk = (a + 1) % 3 == 0, (a + 1) % 3 == 1, (a + 1) % 3 == 2
                    ei, ej, ek = (a + 2) % 3 == 0, (a + 2) % 3 == 1, (a + 2) % 3 == 2
                    fi, fj, fk = i + di + ei, j + dj + ej, k + dk + ek
                    if not wanted[a] or fi >= nx or fj >= ny or fk >= nz:
                        continue
                    if not (
                        mask[i + di, j + dj, k + dk]
                        and mask[i + ei, j + ej, k + ek]
                        and mask[fi, fj, fk]
                    ):
                        continue
                    p, q = phase[i, j, k], phase[i + di, j + dj, k + dk]
                    r, s = phase[fi, fj, fk], phase[i + ei, j + ej, k + ek]
                    # The plain differences cancel around the loop: the multiples of 2 pi remain.
                    if _turns(p, q) + _turns(q, r) + _turns(r, s) + _turns(s, p) != 0:
                        loops[i, j, k] |= 1 << a


@njit(cache=True, parallel=True)
def _count_corners(loops, count):
    """Add up the loops of which each voxel is one of the four corners."""
    nx, ny, nz = loops.shape
    for i in prange(nx):
        for j in range(ny):
            for k in range(nz):
                total = 0
                for di in range(2):
                    for dj in range(2):
                        for dk in range(2):
                            if i < di or j < dj or k < dk:
                                continue
                            here = loops[i - di, j - dj, k - dk]
                            total += (here & 1) > 0 and di == 0
                            total += (here & 2) > 0 and dj == 0
                            total += (here & 4) > 0 and dk == 0
                count[i, j, k] = total


def unwrapping_failed(
    residual,
    mask,
    *,
    unwrapped_phase=None,
    total_field=None,
    phase_offset=None,
    te=None,
    f0=None,
    largest=0.3,
    share=0.1,
):
    r"""Tell from a field fit whether the unwrapping before it failed, so that another is tried.

    It failed if more than ``share`` of the mask has

    - a relative residual above ``largest``, or no residual that is finite; or
    - multiples of :math:`2\pi` that disagree: in most of the echoes after the first,
      :math:`\mathrm{round}\bigl((\varphi_j - \varphi_0 - k_j f)/2\pi\bigr)` is not zero. This
      finds a first echo that is wrong by multiples of :math:`2\pi` where whole ratios of echo
      times hide it from the residual. It needs ``unwrapped_phase``, ``total_field``, ``te`` and
      ``f0``.

    Parameters
    ----------
    residual : ndarray of float, shape (X, Y, Z)
        Relative residual of the field fit, 0 to 1.
    mask : ndarray of bool, shape (X, Y, Z)
        Region of interest.
    unwrapped_phase : ndarray of float, shape (X, Y, Z, E), optional
        Unwrapped phase that was fitted, in rad.
    total_field : ndarray of float, shape (X, Y, Z), optional
        Field that was found, in ppm.
    phase_offset : ndarray of float, shape (X, Y, Z), optional
        Offset that was found, in rad; zero by default.
    te : sequence of float, shape (E,), optional
        Echo times, in s.
    f0 : float, optional
        Imaging frequency, in MHz.
    largest : float, optional
        Largest residual of a good voxel; 0.3 is the limit that the consensus' example code [1]_
        excludes voxels by.
    share : float, optional
        Share of the mask that may be bad. This package's choice: in simulated heads at 3 T and
        7 T it is 0.5 to 2.5 %, and above 40 % where half of the head is off by 2 pi.

    Returns
    -------
    failed : bool
        Whether the unwrapping failed.
    info : dict
        ``residual_share`` and ``turn_share``: shares of the mask that are bad by each rule, the
        latter None where it was not looked at; ``reason``: what failed, in words, or empty.

    Raises
    ------
    ValueError
        If shapes differ, the mask is empty, ``largest`` or ``share`` is not between 0 and 1, or
        part of what the comparison of the echoes needs is missing.

    Notes
    -----
    A phase offset or a bipolar readout that was left in the data, or the wrong echo times, make
    the residual large as well: another unwrapping does not help then.

    References
    ----------
    .. [1] QSM Consensus Organization Committee, et al. Magn Reson Med 2024;91:1834-1862.
       doi:10.1002/mrm.30006

    Examples
    --------
    >>> residual, region = np.full((4, 4, 4), 0.05), np.ones((4, 4, 4), bool)
    >>> unwrapping_failed(residual, region)[0]
    False
    >>> residual[0] = 0.8
    >>> failed, info = unwrapping_failed(residual, region)
    >>> failed, info['reason']
    (True, 'the residual exceeds 0.3 in 25 % of the mask')
    """
    for name, value in (('largest', largest), ('share', share)):
        if not 0 < value < 1:
            raise ValueError(f'{name} must lie between 0 and 1; got {value!r}.')
    mask = check_mask(mask, np.shape(residual), 'residual')
    # Written so that NaN counts as bad.
    residual_share = float(np.mean(~(np.asarray(residual)[mask] <= largest)))
    turn_share = _turn_share(unwrapped_phase, total_field, phase_offset, mask, te, f0)
    reasons = []
    if residual_share > share:
        reasons.append(f'the residual exceeds {largest:g} in {residual_share:.0%} of the mask')
    if turn_share is not None and turn_share > share:
        reasons.append(f'most echoes are off by multiples of 2 pi in {turn_share:.0%} of the mask')
    info = {
        'residual_share': residual_share,
        'turn_share': turn_share,
        'reason': '; '.join(reasons).replace('%', ' %'),
    }
    return bool(reasons), info


def _turn_share(unwrapped_phase, total_field, phase_offset, mask, te, f0):
    """Return the share of the mask in which most echoes are off by multiples of 2 pi, or None."""
    needed = {'unwrapped_phase': unwrapped_phase, 'total_field': total_field, 'te': te, 'f0': f0}
    missing = [name for name, value in needed.items() if value is None]
    if len(missing) == len(needed):
        return None
    if missing:
        raise ValueError(
            f'to compare the echoes by multiples of 2 pi, {", ".join(needed)} are needed; '
            f'{", ".join(missing)} is missing.'
        )
    te = check_echoes(unwrapped_phase, None, mask, te)
    if te.size < 2:
        return None
    voxels = Voxels(mask)
    field = np.asarray(total_field, np.float32)[voxels.mask]
    offset = 0 if phase_offset is None else np.asarray(phase_offset, np.float32)[voxels.mask]
    wrong = np.zeros(len(voxels), np.int32)
    for phase, k in zip(voxels.gather(unwrapped_phase), radians_per_ppm(te, f0), strict=True):
        # NaN is no multiple of 2 pi: the residual knows of it.
        wrong += np.abs(phase - offset - np.float32(k) * field) > math.pi
    return float(np.mean(2 * wrong > te.size - 1))
