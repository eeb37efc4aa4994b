"""Compiled loops of the linear fits over lists of voxels, simple enough for vectors.

``signal`` and ``leads`` have shape (E, N): the echoes of the voxels, and 1 where an echo leads
above the noise floor, else 0. Results go to the last argument, of shape (N,). Without fast math,
vector instructions round as single ones do, so that no result depends on its place in the list.
"""

import math

import numpy as np

from qsmflow.algorithms._jit import njit

from ._model import R2STAR_MAX, R2STAR_SEEN

_SMALLEST = np.finfo(np.float32).tiny
_LN2 = math.log(2.0)
# In two parts, so that multiples of the first have no rounding.
_LN2_HIGH, _LN2_LOW = np.float32(0.693359375), np.float32(_LN2 - 0.693359375)
_PER_LN2, _LEAST = np.float32(1 / _LN2), np.float32(-80)
_E = tuple(np.float32(1 / math.factorial(n)) for n in range(8))
_NONE, _UNIT, _INFINITE = np.float32(0), np.float32(1), np.float32(np.inf)
# Bits of float32: of the root of one half, of one, and those of the fraction.
_ROOT_HALF, _ONE, _FRACTION = 0x3F3504F3, 0x3F800000, 0x007FFFFF


@njit(cache=True)
def span(mask):
    """Return the first voxel of a mask of one row and the end of the last one; 0, 0 without."""
    first, end = 0, mask.size
    while first < end and not mask[first]:
        first += 1
    while end > first and not mask[end - 1]:
        end -= 1
    return (first, end) if end > first else (0, 0)


@njit(cache=True)
def load(magnitude, mask, y, floor, signal, leads):
    """Load the voxels of as many rows of a plane, (Y, Z, E), as there is room for, from y on.

    What lies between voxels of the mask goes with them. Signal falls once and for all: what comes
    after an echo at the floor is noise, whatever its size. A decay too fast to see still has a
    lower bound, from two echoes.

    Returns
    -------
    y : int
        The first row that had no room.
    n : int
        Number of voxels.
    """
    n, (n_echoes, room) = 0, signal.shape
    while y < mask.shape[0]:
        first, end = span(mask[y])
        after = n + end - first
        if after > room:
            break
        row = magnitude[y, first:end]
        # Four at a time are read at once; of what is left over some may be read twice.
        for j in range(0, n_echoes if n_echoes >= 4 else 0, 4):
            k = min(j, n_echoes - 4)
            to = signal[k : k + 4, n:after]
            _copy_four(row[:, k:], to[0], to[1], to[2], to[3])
        for j in range(n_echoes if n_echoes < 4 else 0):
            _copy(row[:, j], signal[j, n:after])
        n, y = after, y + 1
    limit = np.float32(floor)
    for j in range(n_echoes):
        _lead(signal[j, :n], leads[max(j - 1, 0), :n], limit, j == 0, leads[j, :n])
    leads[:2, :n] = 1
    return y, n


@njit(cache=True)
def store(mask, y, end, rate, amplitude, r2star, t2star, s0):
    """Put what was found for the rows from y to an end to their places in the planes of maps."""
    n = 0
    for row in range(y, end):
        first, last = span(mask[row])
        after = n + last - first
        _store(
            mask[row, first:last],
            rate[n:after],
            amplitude[n:after],
            r2star[row, first:last],
            t2star[row, first:last],
            s0[row, first:last],
        )
        n = after


@njit(cache=True, error_model='numpy')
def _store(mask, rate, amplitude, r2star, t2star, s0):
    for i in range(rate.size):
        inverse = 1.0 / rate[i]
        seen = mask[i] and rate[i] >= R2STAR_SEEN
        r2star[i] = rate[i] if mask[i] else 0.0
        t2star[i] = inverse if seen else 0.0
        s0[i] = amplitude[i] if mask[i] else 0.0


@njit(cache=True)
def _copy(echo, signal):
    for i in range(signal.size):
        signal[i] = echo[i]


@njit(cache=True)
def _copy_four(row, first, second, third, fourth):
    for i in range(first.size):
        first[i] = row[i, 0]
        second[i] = row[i, 1]
        third[i] = row[i, 2]
        fourth[i] = row[i, 3]


@njit(cache=True)
def _lead(signal, before, floor, is_first, leads):
    for i in range(signal.size):
        signal[i] = signal[i] if _NONE < signal[i] < _INFINITE else _NONE
        lead = _UNIT if is_first else before[i]
        leads[i] = lead if signal[i] > floor else _NONE


@njit(cache=True)
def _exps(x, bits, scale):
    """Turn numbers from -80 to 0 into their exponentials; ``scale`` are the ``bits`` as float32.

    The library works on one number at a time.
    """
    for i in range(x.size):
        here = max(x[i], _LEAST)
        power = np.rint(here * _PER_LN2)
        rest = (here - power * _LN2_HIGH) - power * _LN2_LOW
        series = _E[4] + rest * (_E[5] + rest * (_E[6] + rest * _E[7]))
        x[i] = _E[0] + rest * (_E[1] + rest * (_E[2] + rest * (_E[3] + rest * series)))
        bits[i] = (np.int32(power) + np.int32(127)) << np.int32(23)
    for i in range(x.size):
        x[i] *= scale[i]


@njit(cache=True, error_model='numpy')
def _logs(signal, fraction, bits, power, out):
    # To 1e-9. `bits` are those of `fraction`, which is brought near one.
    for i in range(out.size):
        fraction[i] = max(signal[i], _SMALLEST)
    _split(bits, power)
    for i in range(out.size):
        ratio = (np.float64(fraction[i]) - 1.0) / (np.float64(fraction[i]) + 1.0)
        square = ratio * ratio
        series = 1.0 / 5.0 + square * (1.0 / 7.0 + square * (1.0 / 9.0))
        series = 1.0 + square * (1.0 / 3.0 + square * series)
        out[i] = 2.0 * ratio * series + _LN2 * power[i]


@njit(cache=True)
def _split(bits, power):
    for i in range(power.size):
        shifted = bits[i] + np.int32(_ONE - _ROOT_HALF)
        power[i] = (shifted >> np.int32(23)) - np.int32(127)
        bits[i] = (shifted & np.int32(_FRACTION)) + np.int32(_ROOT_HALF)


@njit(cache=True)
def _bound(rate):
    for i in range(rate.size):
        found = rate[i] if rate[i] == rate[i] else 0.0
        rate[i] = min(max(found, 0.0), R2STAR_MAX)


# --- the slope of a line through the logarithms -------------------------------------------------


@njit(cache=True)
def line_rates(signal, leads, te, rate):
    """Find the slopes of lines through the logarithms, weighted by the squared signal.

    The second round takes the signal of the fit for the weights: the weights of the first carry
    the noise, which biases the slope.
    """
    n_echoes, n = signal.shape
    logs, weights = np.empty((n_echoes, n)), np.empty((n_echoes, n))
    bits, power = np.empty(n, np.int32), np.empty(n, np.int32)
    powers, last = np.empty(n, np.float32), np.zeros(n)
    for j in range(n_echoes):
        _logs(signal[j], bits.view(np.float32), bits, power, logs[j])
        _measured_weights(signal[j], leads[j], te[j], weights[j], last)
    work = np.empty((5, n))
    _line(logs, weights, te, work, rate)
    for j in range(n_echoes):
        _fitted_powers(rate, work[1], last, te[0], te[j], powers)
        _exps(powers, bits, bits.view(np.float32))
        _kept(signal[j], leads[j], powers, weights[j])
    _line(logs, weights, te, work, rate)
    _bound(rate)


@njit(cache=True)
def _measured_weights(signal, leads, te, weights, last):
    for i in range(last.size):
        weights[i] = leads[i] * (np.float64(signal[i]) * np.float64(signal[i]))
        last[i] = te if leads[i] > 0 else last[i]


@njit(cache=True)
def _fitted_powers(rate, centre, last, first, te, out):
    # The logarithms of the squared signal of the fit, over its largest.
    for i in range(out.size):
        top = max(-rate[i] * (first - centre[i]), -rate[i] * (last[i] - centre[i]))
        out[i] = 2.0 * min(-rate[i] * (te - centre[i]) - top, 0.0)


@njit(cache=True)
def _kept(signal, leads, values, weights):
    for i in range(weights.size):
        weights[i] = np.float64(values[i]) if signal[i] > 0 and leads[i] > 0 else 0.0


@njit(cache=True)
def _line(logs, weights, te, work, rate):
    # On return `work` holds the sums of the weights, and the centres of the echo times.
    total, centre, level, square, cross = work[0], work[1], work[2], work[3], work[4]
    work[:] = 0
    for j in range(te.size):
        _add_means(logs[j], weights[j], te[j], total, centre, level)
    _divide(centre, total)
    _divide(level, total)
    for j in range(te.size):
        _add_moments(logs[j], weights[j], te[j], centre, square, cross)
    _slopes(square, cross, rate)


@njit(cache=True)
def _add_means(logs, weights, te, total, centre, level):
    for i in range(total.size):
        total[i] += weights[i]
        centre[i] += weights[i] * te
        level[i] += weights[i] * logs[i]


@njit(cache=True, error_model='numpy')
def _divide(sums, total):
    for i in range(sums.size):
        mean = sums[i] / total[i]
        sums[i] = mean if total[i] > 0.0 else 0.0


@njit(cache=True)
def _add_moments(logs, weights, te, centre, square, cross):
    for i in range(square.size):
        away = te - centre[i]
        square[i] += weights[i] * away * away
        cross[i] += weights[i] * away * logs[i]


@njit(cache=True, error_model='numpy')
def _slopes(square, cross, rate):
    for i in range(rate.size):
        found = -cross[i] / square[i]
        rate[i] = found if square[i] > 0.0 else 0.0


# --- ARLO and the trapezoid rule ----------------------------------------------------------------


@njit(cache=True)
def arlo_rates(signal, leads, te, spacing, rate):
    """Find the rates by auto-regression; by a line where fewer than three echoes lead."""
    n_echoes, n = signal.shape
    sums = np.zeros((3, n))
    for j in range(n_echoes - 2):
        rows = signal[j], signal[j + 1], signal[j + 2], leads[j + 2]
        _add_area(*rows, spacing / 3.0, sums[0], sums[1], sums[2])
    _arlo_ratio(sums[0], sums[1], sums[2], spacing / 3.0, rate)
    _bound(rate)
    if _lacks(leads[2]):
        line = np.empty(n)
        line_rates(signal, leads, te, line)
        for i in range(n):
            rate[i] = rate[i] if leads[2, i] > 0 else line[i]


@njit(cache=True)
def _lacks(leads):
    lacking = 0
    for i in range(leads.size):
        lacking += leads[i] == 0
    return lacking > 0


@njit(cache=True)
def _add_area(first, second, third, lead, factor, square, cross, area_square):
    for i in range(square.size):
        area = np.float64(first[i]) + 4.0 * np.float64(second[i]) + np.float64(third[i])
        area *= factor * lead[i]
        drop = lead[i] * (np.float64(first[i]) - np.float64(third[i]))
        square[i] += drop * drop
        cross[i] += area * drop
        area_square[i] += area * area


@njit(cache=True, error_model='numpy')
def _arlo_ratio(square, cross, area_square, factor, rate):
    for i in range(rate.size):
        below = area_square[i] + factor * cross[i]
        found = (factor * square[i] + cross[i]) / below
        rate[i] = found if below > 0.0 else 0.0


@njit(cache=True)
def trapezoid_rates(signal, leads, te, rate):
    """Find the rates by the drop over the area below the signal."""
    n_echoes, n = signal.shape
    area, drop = np.zeros(n), np.zeros(n)
    for j in range(n_echoes - 1):
        half = 0.5 * (te[j + 1] - te[j])
        _add_trapezoid(signal[j], signal[j + 1], leads[j + 1], half, area, drop)
    _drop_ratio(drop, area, rate)
    _bound(rate)


@njit(cache=True)
def _add_trapezoid(first, second, lead, half, area, drop):
    for i in range(area.size):
        area[i] += lead[i] * (half * (np.float64(first[i]) + np.float64(second[i])))
        drop[i] += lead[i] * (np.float64(first[i]) - np.float64(second[i]))


@njit(cache=True, error_model='numpy')
def _drop_ratio(drop, area, rate):
    for i in range(rate.size):
        found = drop[i] / area[i]
        rate[i] = found if area[i] > 0.0 else 0.0


# --- the signal at echo time zero ---------------------------------------------------------------


@njit(cache=True)
def amplitudes(signal, leads, rate, te, amplitude):
    """Find the least-squares signal at echo time zero for given rates."""
    n = rate.size
    room, bits = np.zeros((3, n), np.float32), np.empty(n, np.int32)
    for j in range(te.size):
        _decays(rate, te[j] - te[0], bits, room[2])
        _add_decay(signal[j], leads[j], room[2], room[0], room[1])
    _decays(rate, te[0], bits, room[2])
    _amplitude_ratio(room[0], room[1], room[2], amplitude)


@njit(cache=True)
def even_amplitudes(signal, leads, rate, first, spacing, amplitude):
    """Find the same for equally spaced echoes, with two exponentials for each voxel."""
    n_echoes, n = signal.shape
    room, bits = np.zeros((4, n), np.float32), np.empty(n, np.int32)
    above, below, decay, factor = room[0], room[1], room[2], room[3]
    decay[:] = 1
    _decays(rate, spacing, bits, factor)
    for j in range(n_echoes):
        _add_decay(signal[j], leads[j], decay, above, below)
        _multiply(decay, factor)
    _decays(rate, first, bits, factor)
    _amplitude_ratio(above, below, factor, amplitude)


@njit(cache=True)
def _decays(rate, time, bits, decay):
    for i in range(rate.size):
        decay[i] = -rate[i] * time
    _exps(decay, bits, bits.view(np.float32))


@njit(cache=True)
def _add_decay(signal, leads, decay, above, below):
    for i in range(decay.size):
        here = leads[i] * decay[i]
        above[i] += here * signal[i]
        below[i] += here * here


@njit(cache=True)
def _multiply(decay, factor):
    for i in range(decay.size):
        decay[i] *= factor[i]


@njit(cache=True, error_model='numpy')
def _amplitude_ratio(above, below, decay, amplitude):
    # The decay is that until the first echo, from which on the sums count: `below` is above 1.
    for i in range(amplitude.size):
        amplitude[i] = above[i] / (below[i] * decay[i])
