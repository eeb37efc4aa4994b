"""Phase before unwrapping: scaling to radians, vendor signs and slice chopping."""

import math
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from .operators import forward_field

_TURN = 2 * math.pi
# Slack of floating-point ranges in rad, as rounding and header scaling leave it.
_SLACK = 0.1
# Part of a 12- or 13-bit range that must be in use. Noise in air fills it in any real image.
_FILLED = 0.95


@dataclass(frozen=True)
class PhaseScaling:
    """How stored phase values become radians: ``slope * value + intercept``, then wrapped.

    Attributes
    ----------
    rule : str
        Name of the rule.
    slope : float
        Factor, in rad per stored unit.
    intercept : float
        Offset, in rad.
    raw_min, raw_max : float
        Extremes of the stored values over all echoes; NaN where they were not looked at.
    note : str
        What was noticed; empty if the data are just as expected.
    flag : float
        Stored value that marks the background and becomes 0 rad; NaN if there is none.
    """

    rule: str
    slope: float
    intercept: float
    raw_min: float = math.nan
    raw_max: float = math.nan
    note: str = ''
    flag: float = math.nan


#: Known scalings: name -> (slope, intercept), see ``identify_scaling``.
SCALING_RULES = {
    'rad': (1.0, 0.0),
    'rad-2pi': (1.0, 0.0),
    'rad-unwrapped': (1.0, 0.0),
    'siemens-unsigned': (_TURN / 4096, -math.pi),
    'siemens-signed': (math.pi / 4096, 0.0),
    'mrad': (1e-3, 0.0),
    'philips-display': (math.pi / 500, 0.0),
    'degrees': (math.pi / 180, 0.0),
    'degrees-360': (math.pi / 180, 0.0),
}


def wrap(x):
    """Wrap angles to [-pi, pi).

    Parameters
    ----------
    x : array_like of float
        Angles, in rad.

    Returns
    -------
    ndarray
        Wrapped angles, in rad; float32 stays float32. Angles that are in range stay as they are.

    Examples
    --------
    >>> wrap([0.5, 4.0, -np.pi, np.pi]).round(4).tolist()
    [0.5, -2.2832, -3.1416, -3.1416]
    """
    x = np.asarray(x)
    x = x if np.issubdtype(x.dtype, np.floating) else x.astype(np.float64)
    wrapped = np.asarray(x - x.dtype.type(_TURN) * np.rint(x / x.dtype.type(_TURN)))
    half = x.dtype.type(math.pi)
    wrapped[wrapped >= half] = -half
    return np.maximum(wrapped, -half, out=wrapped)


def _matches(low, high, raw_min, raw_max, slack):
    return abs(raw_min - low) <= slack and abs(raw_max - high) <= slack


def _fills(low, high, raw_min, raw_max):
    """Tell whether extremes lie in [low, high] and near both ends."""
    margin = (1 - _FILLED) * (high - low)
    return low <= raw_min <= low + margin and high - margin <= raw_max <= high


def _known_rule(raw_min, raw_max, whole):
    """Return the name of the rule whose range fits, or None."""
    if _matches(-math.pi, math.pi, raw_min, raw_max, _SLACK):
        return 'rad'
    if _matches(0, _TURN, raw_min, raw_max, _SLACK):
        return 'rad-2pi'
    if whole and _fills(0, 4096, raw_min, raw_max):
        return 'siemens-unsigned'
    # Converters may mark the background by -8192.
    if whole and _fills(-4096, 4096, -4096 if raw_min == -8192 else raw_min, raw_max):
        return 'siemens-signed'
    if _matches(-1000 * math.pi, 1000 * math.pi, raw_min, raw_max, 5 * math.pi):
        return 'mrad'
    if whole and _fills(-500, 500, raw_min, raw_max):
        return 'philips-display'
    if _matches(-180, 180, raw_min, raw_max, 1.8):
        return 'degrees'
    if _matches(0, 360, raw_min, raw_max, 1.8):
        return 'degrees-360'
    return None


def identify_scaling(raw_min, raw_max, *, integer=False, units=None):
    """Find out how stored phase values become radians, from known ranges alone.

    The known ranges are those of vendors and converters: -pi..pi and 0..2 pi rad, 0..4095 and
    -4096..4095 (Siemens), -500..500 and -3142..3142 mrad (Philips), -180..180 and 0..360 degrees.
    The measured extremes are never stretched to 2 pi: that would be wrong by any factor
    whenever the data do not span one.

    Parameters
    ----------
    raw_min, raw_max : float
        Extremes over **all** echoes together, after the header's slope and intercept.
    integer : bool, optional
        Whether the values are stored as whole numbers.
    units : str or None, optional
        ``Units`` of the sidecar, ``'rad'`` or ``'arbitrary'``. Where it contradicts the range,
        the range is believed and ``note`` says so.

    Returns
    -------
    PhaseScaling or None
        ``None`` if no known range fits; then the user has to tell (see ``parse_scaling``).

    References
    ----------
    .. [1] Li X, et al. The first step for neuroimaging data analysis: DICOM to NIfTI conversion.
       J Neurosci Methods 2016;264:47-56. doi:10.1016/j.jneumeth.2016.03.001

    Examples
    --------
    >>> identify_scaling(0, 4095, integer=True).rule
    'siemens-unsigned'
    >>> identify_scaling(-0.8, 0.9) is None
    True
    """
    low, high = float(raw_min), float(raw_max)
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        return None
    whole = low.is_integer() and high.is_integer()
    in_radians = units == 'rad'
    rule = None
    # Header scaling can make fractions of stored integers, so the extremes count as well.
    rounded = bool(integer) and whole
    if not (rounded and max(-low, high) < 7):  # -3..3 is radians cut to whole numbers
        rule = _known_rule(low, high, whole)
        if rule is None and in_radians and max(-low, high) <= math.pi + _SLACK:
            rule = 'rad'
    if rule is None:
        return None
    return PhaseScaling(
        rule, *SCALING_RULES[rule], low, high, _scaling_note(rule, low, high, units)
    )


def _scaling_note(rule, low, high, units):
    notes = []
    if units == 'rad' and not rule.startswith('rad'):
        notes.append(f'Units is "rad", but values from {low:g} to {high:g} are {rule}')
    if units not in (None, 'rad') and rule.startswith('rad'):
        notes.append(f'Units is "{units}", but the values are radians')
    if rule == 'siemens-signed' and low < -4096:
        notes.append('background is marked by -8192, which becomes 0 rad')
    if rule == 'rad' and high - low < 0.9 * _TURN:
        notes.append(f'values span only {(high - low) / _TURN:.0%} of 2 pi')
    return '; '.join(notes)


def parse_scaling(text):
    """Read a phase scaling that the user asks for.

    Parameters
    ----------
    text : str
        ``'auto'``, a key of ``SCALING_RULES``, or the factor from stored value to rad.

    Returns
    -------
    PhaseScaling or None
        ``None`` for ``'auto'``.

    Raises
    ------
    ValueError
        If it is none of these, or the factor is zero or not finite.

    Examples
    --------
    >>> parse_scaling('mrad').slope
    0.001
    >>> parse_scaling('0.5').rule
    'factor'
    """
    name = str(text).strip().lower()
    if name == 'auto':
        return None
    if name in SCALING_RULES:
        return PhaseScaling(name, *SCALING_RULES[name], note='as asked for')
    try:
        factor = float(name)
    except ValueError:
        factor = math.nan
    if not math.isfinite(factor) or factor == 0:
        known = ', '.join(['auto', *SCALING_RULES])
        raise ValueError(
            f'phase scale must be one of {known}, or the factor that turns stored values into '
            f'radians; got {text!r}.'
        )
    return PhaseScaling('factor', factor, 0.0, note='as asked for')


def scale_to_radians(raw, scaling):
    """Convert stored phase values to radians.

    Parameters
    ----------
    raw : ndarray
        Stored values, after the header's slope and intercept.
    scaling : PhaseScaling
        Rule to apply.

    Returns
    -------
    ndarray of float32, shape of ``raw``
        Phase in [-pi, pi), in rad; 0 where a value is not finite or marks the background.

    Examples
    --------
    >>> scaling = parse_scaling('siemens-unsigned')
    >>> scale_to_radians(np.array([0, 1024, 2048, 4095]), scaling).round(4).tolist()
    [-3.1416, -1.5708, 0.0, 3.1401]
    """
    raw = np.asarray(raw)
    out = np.empty(raw.shape, np.float32)
    # Slab by slab in double precision: exact, without two full-size temporaries.
    slabs = range(raw.shape[0]) if raw.ndim > 1 else [slice(None)]
    for slab in slabs:
        values = raw[slab].astype(np.float64)
        unknown = ~np.isfinite(values) | (values == scaling.flag)
        values[unknown] = -scaling.intercept / scaling.slope
        out[slab] = wrap(scaling.slope * values + scaling.intercept)
    # A value just below pi may have been rounded up to it.
    out[out >= np.float32(math.pi)] = -np.float32(math.pi)
    return out


def slice_chop(magnitude, phase, axis=2):
    r"""Measure whether the phase jumps by pi from each slice to the next (GE slice chopping).

    For slices :math:`z` and :math:`z + 1` the angle of
    :math:`\sum m_z m_{z+1} e^{i(\varphi_{z+1} - \varphi_z)}` is taken. A jump is an angle beyond
    pi/2. Chopping is there in all echoes, so the least convinced echo decides.

    Parameters
    ----------
    magnitude : ndarray of float, shape (X, Y, Z) or (X, Y, Z, E), or None
        Magnitude, in arbitrary units.
    phase : ndarray of float, shape (X, Y, Z) or (X, Y, Z, E)
        Wrapped phase, in rad.
    axis : int, optional
        Slice axis.

    Returns
    -------
    float
        Fraction of slice pairs that jump, in [0, 1]. Above 0.8 the data are chopped.

    Examples
    --------
    >>> phase = np.zeros((4, 4, 6))
    >>> phase[:, :, 1::2] = -np.pi
    >>> slice_chop(np.ones((4, 4, 6)), phase)
    1.0
    """
    fractions = []
    echoes = [()] if np.ndim(phase) == 3 else [(..., j) for j in range(phase.shape[3])]
    for echo in echoes:
        turned = np.moveaxis(phase[echo], axis, 0)
        weight = None if magnitude is None else np.moveaxis(magnitude[echo], axis, 0)
        jumps = total = 0
        for z in range(turned.shape[0] - 1):
            product = np.exp(1j * (turned[z + 1] - turned[z]))
            if weight is not None:
                product = product * (weight[z] * weight[z + 1])
            mean = np.sum(product[np.isfinite(product)], dtype=np.complex128)
            total += bool(mean)
            jumps += bool(mean) and abs(np.angle(mean)) > math.pi / 2
        fractions.append(jumps / total if total else 0.0)
    return float(min(fractions, default=0.0))


def remove_slice_chop(phase, axis=2):
    """Add pi to every second slice.

    Parameters
    ----------
    phase : ndarray of float, shape (X, Y, Z) or (X, Y, Z, E)
        Wrapped phase, in rad.
    axis : int, optional
        Slice axis.

    Returns
    -------
    ndarray of float32
        Wrapped phase, in rad.

    Examples
    --------
    >>> remove_slice_chop(np.zeros((1, 1, 3))).round(4).ravel().tolist()
    [0.0, -3.1416, 0.0]
    """
    out = np.array(phase, np.float32)
    odd = tuple(slice(1, None, 2) if a == axis else slice(None) for a in range(out.ndim))
    out[odd] = wrap(out[odd] + np.float32(math.pi))
    return out


def field_sign_evidence(total_field, magnitude_first_echo, mask, voxel_size, *, b0_dir):
    """Measure whether the field has the right sign, from the air in and around the head.

    The field of a head of uniform tissue in air, where air is what gives no signal, is
    correlated with the measured one inside the mask. Polynomials of second order, which the shim
    adds, are removed from both.

    Parameters
    ----------
    total_field : ndarray of float, shape (X, Y, Z)
        Total field, in ppm.
    magnitude_first_echo : ndarray of float, shape (X, Y, Z)
        Magnitude of the first echo over the whole image, not brain-extracted.
    mask : ndarray of bool, shape (X, Y, Z)
        Brain mask.
    voxel_size : tuple of float
        Voxel edge lengths, in mm, in array-axis order.
    b0_dir : tuple of float
        Unit vector of the main field, in array axes.

    Returns
    -------
    float
        Correlation in [-1, 1]; positive means that the sign is right, below about -0.3 that it
        is inverted. 0 if there is no air in the image or too little brain.

    Notes
    -----
    Air is 9.4 ppm above tissue. Bone gives little signal as well; what is narrower than the
    skull is therefore filled before the field is predicted. The evidence is about 0.7 in
    simulated heads and 0.4 in a real one. A wrong ``b0_dir`` can turn it.

    References
    ----------
    .. [1] Schenck JF. Med Phys 1996;23:815-850. doi:10.1118/1.597854
    """
    blocks = [max(1, round(3.0 / size)) for size in voxel_size]
    field = np.where(mask, np.nan_to_num(total_field), 0)
    share = _block_mean(np.asarray(mask, np.float32), blocks)
    field = _block_mean(field, blocks) / np.maximum(share, 1e-6)
    signal = _block_mean(np.nan_to_num(magnitude_first_echo), blocks)
    inside = share > 0.5
    if np.count_nonzero(inside) < 100:
        return 0.0
    tissue = (signal > 0.2 * np.median(signal[inside])) | inside
    if tissue.all():
        return 0.0
    size = [block * edge for block, edge in zip(blocks, voxel_size, strict=True)]
    # Bone is as dark as air, but narrower than twice this.
    reach = max(1, round(12.0 / max(size)))
    closed = ndimage.binary_closing(np.pad(tissue, reach), iterations=reach)
    tissue = closed[(slice(reach, -reach),) * 3]
    # Tissue below air, and nothing outside the image: what is not seen counts as air.
    predicted = forward_field(np.where(tissue, np.float32(-9.4), 0), size, b0_dir=b0_dir)
    detrended = _remove_shim(np.stack([field[inside], predicted[inside]], axis=-1), inside)
    # The few voxels next to the sinuses must not rule alone.
    limit = 3 * 1.4826 * np.median(np.abs(detrended), axis=0)
    if not limit.all():
        return 0.0
    a, b = np.clip(detrended, -limit, limit).T
    return float(np.clip(np.corrcoef(a, b)[0, 1], -1, 1))


def _block_mean(volume, blocks):
    shape = [-(-n // block) for n, block in zip(volume.shape, blocks, strict=True)]
    pads = [(0, s * b - n) for s, b, n in zip(shape, blocks, volume.shape, strict=True)]
    padded = np.pad(np.asarray(volume, np.float32), pads)
    split = [part for pair in zip(shape, blocks, strict=True) for part in pair]
    return padded.reshape(split).mean(axis=(1, 3, 5))


def _remove_shim(columns, inside):
    """Remove polynomials of second order from values at the voxels of a mask."""
    points = np.argwhere(inside) / np.maximum(np.array(inside.shape) - 1, 1) * 2 - 1
    x, y, z = points.T
    basis = np.stack([np.ones_like(x), x, y, z, x * x, y * y, z * z, x * y, x * z, y * z], axis=-1)
    return columns - basis @ np.linalg.lstsq(basis, columns, rcond=None)[0]
