"""Numbers that tell whether an image is the phase that a reconstruction needs.

Each function measures one thing in one or two volumes, in a second or less at 1 mm. What the
numbers mean is decided by :mod:`qsmflow.bids.checks_phase`.
"""

import math

import numpy as np
from scipy import ndimage

from qsmflow.algorithms.phase import wrap
from qsmflow.algorithms.phase_quality import singularities

_TURN = 2 * math.pi
#: Air has less than this share of the 99th percentile of a magnitude, the object more than that.
AIR, OBJECT = 0.05, 0.2
_CELLS = 8  #: cells along the longest edge of the object, for the part that varies slowly
_MIN_PAIRS = 500  #: fewer neighbours than this give no number


def object_mask(magnitude, share=OBJECT):
    """Return where a magnitude exceeds a share of its 99th percentile.

    Parameters
    ----------
    magnitude : ndarray of float, shape (X, Y, Z)
        Magnitude, in arbitrary units; NaN and infinite values are outside.
    share : float, optional
        Share of the 99th percentile of the voxels that are not zero.

    Returns
    -------
    ndarray of bool, shape (X, Y, Z)

    Examples
    --------
    >>> object_mask(np.array([[[0.0, 1.0, 90.0, 100.0]]])).tolist()
    [[[False, False, True, True]]]
    """
    values = np.nan_to_num(np.asarray(magnitude, np.float32), posinf=0, neginf=0)
    signal = values[values > 0]
    if not signal.size:
        return np.zeros(values.shape, bool)
    return values > share * _percentile(signal, 99)


def neighbour_coherence(values, region, span):
    r"""Measure how alike neighbours are, on a circle of the given circumference.

    Parameters
    ----------
    values : ndarray of float, shape (X, Y, Z)
        Image in any unit.
    region : ndarray of bool, shape (X, Y, Z)
        Voxels that count; pairs of equal values (blanked background) do not.
    span : float
        What makes 2 pi, in the unit of ``values``.

    Returns
    -------
    float
        Mean of :math:`\cos(2\pi\,\Delta v / \mathrm{span})` over neighbours along the first axis:
        1 for a smooth image, 0 for noise that fills the span; NaN if there are too few pairs.

    Examples
    --------
    >>> noise = np.random.default_rng(0).uniform(-np.pi, np.pi, (30, 30, 30))
    >>> abs(neighbour_coherence(noise, np.ones(noise.shape, bool), 2 * np.pi)) < 0.02
    True
    """
    pairs = region[1:] & region[:-1]
    change = (values[1:][pairs] - values[:-1][pairs]).astype(np.float64)
    change = change[np.isfinite(change) & (change != 0)]
    if change.size < _MIN_PAIRS or not span > 0:
        return math.nan
    return float(np.cos(change * (_TURN / span)).mean())


def noise_contrast(values, guide):
    """Measure how much less coherent an image is where another one shows air.

    Phase is noise in the air and smooth in the object. A magnitude is smooth, on the scale of
    its range, in both.

    Parameters
    ----------
    values : ndarray of float, shape (X, Y, Z)
        Image that may be a phase; its range is taken as 2 pi.
    guide : ndarray of float, shape (X, Y, Z)
        Image that may be a magnitude.

    Returns
    -------
    float
        Coherence in the object less that in the air: above 0.3 if ``values`` is a phase and
        ``guide`` a magnitude with air, near 0 or below if not. NaN if there is no air to look at.
    """
    low = float(np.nanmin(guide))
    above = np.asarray(guide, np.float32) - np.float32(low)
    span = float(np.nanmax(values) - np.nanmin(values))
    air = ~object_mask(above, AIR)
    return neighbour_coherence(values, object_mask(above), span) - neighbour_coherence(
        values, air, span
    )


def similarity(values, guide):
    """Return the correlation of two images where the second one shows the object.

    Parameters
    ----------
    values, guide : ndarray of float, shape (X, Y, Z)
        Images in any unit.

    Returns
    -------
    float
        Pearson's correlation, from -1 to 1; 0 if one of them is constant there.
    """
    inside = object_mask(guide) & np.isfinite(values)
    if np.count_nonzero(inside) < _MIN_PAIRS:
        return 0.0
    a, b = values[inside].astype(np.float64), np.asarray(guide)[inside].astype(np.float64)
    return float(np.corrcoef(a, b)[0, 1]) if a.std() > 0 and b.std() > 0 else 0.0


def air_concentration(values, magnitude):
    """Return which part of the air has nearly one value in a phase image.

    Parameters
    ----------
    values : ndarray of float, shape (X, Y, Z)
        What is named phase, in any unit.
    magnitude : ndarray of float, shape (X, Y, Z)
        Magnitude.

    Returns
    -------
    float
        Share of the voxels of the air that lie within a tenth of half the range of their median.
        0.1 for phase, which is uniform there, near 1 for a real or imaginary image. Voxels that
        are exactly zero, or have an extreme value, as a mark of the background has, do not
        count; NaN if there are too few others.
    """
    low, high = np.nanmin(values), np.nanmax(values)
    air = ~object_mask(magnitude, AIR) & (values != 0) & (values > low) & (values < high)
    if np.count_nonzero(air) < _MIN_PAIRS:
        return math.nan
    noise = values[air]
    half = (high - low) / 2
    return float(np.mean(np.abs(noise - np.median(noise)) < 0.1 * half))


def jump_share(values):
    """Return the share of neighbours that differ by more than three quarters of the range.

    Wrapped phase has such jumps at its wraps, and in the noise of the air one in sixteen.
    Unwrapped phase has none.

    Parameters
    ----------
    values : ndarray of float, shape (X, Y, Z)
        Image in any unit.

    Returns
    -------
    float
        From 0 to 1.

    Examples
    --------
    >>> ramp = np.broadcast_to(np.linspace(0, 40, 50)[:, None, None], (50, 4, 4))
    >>> jump_share(ramp), round(jump_share(ramp % 6.28), 2)
    (0.0, 0.12)
    """
    change = np.abs(np.diff(values, axis=0))
    limit = 0.75 * (np.nanmax(values) - np.nanmin(values))
    return float(np.count_nonzero(change > limit) / max(change.size, 1))


def slow_phase_spread(phase, magnitude=None):
    r"""Measure how much the part of the phase that varies slowly in space spreads.

    The signal is averaged as complex numbers in cells of an eighth of the object. The background
    field spreads their phases over 2 pi and more; a high-pass filter leaves them all near zero.

    Parameters
    ----------
    phase : ndarray of float, shape (X, Y, Z)
        Wrapped phase of one echo, in rad.
    magnitude : ndarray of float, shape (X, Y, Z), optional
        Magnitude; by default all voxels count alike.

    Returns
    -------
    float
        Circular variance of the phase of the cells, weighted by their signal: 0 if all have one
        phase, up to 1 if it is spread over the circle; NaN if there is no object.
    """
    weight = np.ones(phase.shape, np.float32) if magnitude is None else magnitude
    inside = object_mask(weight) & np.isfinite(phase)
    if not inside.any():
        return math.nan
    box = ndimage.find_objects(inside.astype(np.uint8))[0]
    edge = max(2, math.ceil(max(part.stop - part.start for part in box) / _CELLS))
    signal = np.where(inside[box], weight[box], 0) * np.exp(1j * np.nan_to_num(phase[box]))
    signal = signal.astype(np.complex64)
    for axis in range(3):
        starts = np.arange(0, signal.shape[axis], edge)
        signal = np.add.reduceat(signal, starts, axis=axis)
    size = np.abs(signal)
    return float(1 - np.abs(signal.sum(dtype=np.complex128)) / max(size.sum(), 1e-30))


def slice_steps(phase, magnitude=None, axis=2):
    r"""Measure whether each slice has a phase offset of its own.

    For slices :math:`z` and :math:`z + 1`, :math:`\theta_z` is the angle of
    :math:`\sum m_z m_{z+1} e^{i(\varphi_{z+1} - \varphi_z)}`. A field that is smooth in space
    changes it little from one pair to the next.

    Parameters
    ----------
    phase : ndarray of float, shape (X, Y, Z)
        Wrapped phase of one echo, in rad.
    magnitude : ndarray of float, shape (X, Y, Z), optional
        Magnitude.
    axis : int, optional
        Slice axis.

    Returns
    -------
    float
        Robust standard deviation of :math:`\theta_{z+1} - \theta_z`, in rad: 1.4826 times the
        median of its absolute value. Alternating slices, which all differ by pi, give 0.

    Examples
    --------
    >>> phase = np.zeros((6, 6, 20)) + np.random.default_rng(1).uniform(-3, 3, 20)
    >>> slice_steps(phase) > 1
    True
    """
    turned = np.moveaxis(phase, axis, 0)
    weight = None if magnitude is None else np.moveaxis(magnitude, axis, 0)
    sums = np.zeros(max(turned.shape[0] - 1, 0), np.complex128)
    for z in range(sums.size):
        product = np.exp(1j * (turned[z + 1] - turned[z]))
        if weight is not None:
            product = product * (weight[z] * weight[z + 1])
        sums[z] = np.sum(product[np.isfinite(product)], dtype=np.complex128)
    # Slices outside the head hold noise, whose angle means nothing.
    kept = np.abs(sums) > 0.1 * np.abs(sums).max(initial=0)
    both = kept[1:] & kept[:-1]
    if not both.any():
        return 0.0
    change = np.angle(sums[1:][both] * np.conj(sums[:-1][both]))
    return float(1.4826 * np.median(np.abs(change)))


def singular_lines(phase, magnitude, voxel_size, later_phase=None):
    r"""Find lines of singularities deep in the object, where the coils were combined wrongly.

    Fringe lines with an open end wind around a line through several slices. They are there at
    echo time zero, so that the difference of two echoes is free of them; where the field changes
    by more than pi from voxel to voxel, the difference is singular too.

    Parameters
    ----------
    phase : ndarray of float, shape (X, Y, Z)
        Wrapped phase of the first echo, in rad.
    magnitude : ndarray of float, shape (X, Y, Z)
        Its magnitude.
    voxel_size : tuple of float
        Edge lengths, in mm, in array-axis order.
    later_phase : ndarray of float, shape (X, Y, Z), optional
        Wrapped phase of the second echo. Singularities of the first echo within 2 voxels of one
        of the difference do not count. Without it, all count.

    Returns
    -------
    density : float
        Singular loops for each voxel of the object, its rim of 4 mm left out.
    length : float
        Diagonal of the box around the longest connected line, in mm; 0 if there is none.
    """
    inside = _core(magnitude, voxel_size)
    if not inside.any():
        return 0.0, 0.0
    count = singularities(phase, inside)
    if later_phase is not None:
        steep = singularities(wrap(later_phase - phase), inside) > 0
        count[_spread(steep, (2, 2, 2))] = 0
    density = float(count.sum() / 4 / np.count_nonzero(inside))
    labels = ndimage.label(count > 0, ndimage.generate_binary_structure(3, 3))[0]
    lengths = [
        math.hypot(*((s.stop - s.start - 1) * e for s, e in zip(box, voxel_size, strict=True)))
        for box in ndimage.find_objects(labels)
    ]
    return density, float(max(lengths, default=0.0))


def _spread(mask, reach):
    """Widen a mask by so many voxels along each axis."""
    for axis, n in enumerate(reach):
        mask = ndimage.maximum_filter1d(mask.view(np.uint8), 2 * n + 1, axis=axis).astype(bool)
    return mask


def _core(magnitude, voxel_size):
    """Return where tissue has strong signal, without a rim of 4 mm."""
    values = np.nan_to_num(np.asarray(magnitude, np.float32), posinf=0, neginf=0)
    inside = object_mask(values)
    if not inside.any():
        return inside
    inside &= values > 0.5 * _percentile(values[inside], 50)
    return ~_spread(~inside, [max(1, round(4.0 / edge)) for edge in voxel_size])


def distinct_values(values, limit=256, sample=200_000):
    """Count the distinct values of an image, up to a limit.

    Parameters
    ----------
    values : ndarray of float
        Image of any shape.
    limit : int, optional
        Where counting ends.
    sample : int, optional
        Voxels that are looked at first; if they show more than ``limit``, that is enough.

    Returns
    -------
    int
        Number of distinct values, or ``limit + 1`` if there are more.

    Examples
    --------
    >>> distinct_values(np.arange(1000) % 10), distinct_values(np.arange(1000))
    (10, 257)
    """
    flat = np.ravel(values)
    step = max(1, flat.size // sample)
    for part in (flat[::step], flat):
        n = len(np.unique(part[np.isfinite(part)]))
        if n > limit:
            return limit + 1
    return int(n)


def blank_planes(volume):
    """Count the planes at each end of each axis in which all voxels are zero.

    Parameters
    ----------
    volume : ndarray of float, shape (X, Y, Z)
        Magnitude.

    Returns
    -------
    list of tuple of int
        For each axis, the number of planes at its start and at its end; all planes at the start
        if the volume is empty.

    Examples
    --------
    >>> volume = np.zeros((5, 4, 3))
    >>> volume[1:4, :, :2] = 1
    >>> blank_planes(volume)
    [(1, 1), (0, 0), (0, 1)]
    """
    found = []
    signal = np.asarray(volume) != 0
    for axis in range(3):
        used = np.flatnonzero(signal.any(axis=tuple(a for a in range(3) if a != axis)))
        n = signal.shape[axis]
        found.append((int(used[0]), int(n - 1 - used[-1])) if used.size else (n, 0))
    return found


def _percentile(values, q):
    """Return a percentile, of a sample where there are many values."""
    step = max(1, values.size // 1_000_000)
    return float(np.percentile(values[::step], q))
