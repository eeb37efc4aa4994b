"""Compiled loops of the fits: one voxel at a time, planes in parallel.

Each loop takes the magnitude, shape (X, Y, Z, E), the mask and the echo times in s, and fills the
three maps R2*, T2* and S0.
"""

import math

import numpy as np

from qsmflow.algorithms._jit import njit, prange

from ._model import R2STAR_MAX, R2STAR_SEEN

_SMALLEST = float(np.finfo(np.float32).tiny)


@njit(cache=True, inline='always')
def _load(magnitude, x, y, z, floor, signal):
    """Copy the echoes of a voxel; return how many lead above the noise floor, two at least.

    Signal falls once and for all: what comes after an echo at the floor is noise, whatever its
    size. A decay too fast to see still has a lower bound, from two echoes.
    """
    leading = 0
    for j in range(signal.size):
        value = np.float64(magnitude[x, y, z, j])
        if not (0.0 < value < np.inf):
            value = 0.0
        signal[j] = value
        if leading == j and value > floor:
            leading += 1
    return max(leading, 2)


@njit(cache=True, inline='always')
def _bounded(rate):
    return min(max(rate, 0.0), R2STAR_MAX) if rate == rate else 0.0


@njit(cache=True, inline='always')
def _store(rate, amplitude, x, y, z, r2star, t2star, s0):
    r2star[x, y, z] = rate
    t2star[x, y, z] = 1.0 / rate if rate >= R2STAR_SEEN else 0.0
    s0[x, y, z] = amplitude


@njit(cache=True, inline='always')
def _amplitude(rate, signal, n, te):
    """Return the least-squares signal at echo time zero for a given rate."""
    above = 0.0
    below = 0.0
    for j in range(n):
        decay = math.exp(-rate * te[j])
        above += decay * signal[j]
        below += decay * decay
    return above / max(below, 1e-300)


@njit(cache=True, inline='always')
def _even_amplitude(rate, signal, n, start, spacing):
    """Return the same for equally spaced echoes, with two exponentials in all."""
    decay = np.float64(math.exp(np.float32(-rate * start)))
    factor = np.float64(math.exp(np.float32(-rate * spacing)))
    above = 0.0
    below = 0.0
    for j in range(n):
        above += decay * signal[j]
        below += decay * decay
        decay *= factor
    return above / max(below, 1e-300)


@njit(cache=True)
def _line_rate(signal, n, te):
    """Return the slope of a line through the logarithms, weighted by the squared signal.

    The second round takes the signal of the fit for the weights: the weights of the first carry
    the noise, which biases the slope.
    """
    weights = np.empty(n)
    logs = np.empty(n)
    for j in range(n):
        weights[j] = signal[j] * signal[j]
        logs[j] = math.log(max(signal[j], _SMALLEST))
    rate = 0.0
    for round_ in range(2):
        total = 0.0
        centre = 0.0
        level = 0.0
        for j in range(n):
            total += weights[j]
            centre += weights[j] * te[j]
            level += weights[j] * logs[j]
        if not total > 0.0:
            return 0.0
        centre /= total
        level /= total
        square = 0.0
        cross = 0.0
        for j in range(n):
            away = te[j] - centre
            square += weights[j] * away * away
            cross += weights[j] * away * logs[j]
        rate = -cross / square if square > 0.0 else 0.0
        if round_ == 0:
            top = max(-rate * (te[0] - centre), -rate * (te[n - 1] - centre))
            for j in range(n):
                relative = max(-rate * (te[j] - centre) - top, -40.0)
                weights[j] = math.exp(2.0 * relative) if signal[j] > 0.0 else 0.0
    return rate


@njit(cache=True, inline='always')
def _arlo_rate(signal, n, third):
    square = 0.0
    cross = 0.0
    area_square = 0.0
    for j in range(n - 2):
        area = third * (signal[j] + 4.0 * signal[j + 1] + signal[j + 2])
        drop = signal[j] - signal[j + 2]
        square += drop * drop
        cross += area * drop
        area_square += area * area
    below = area_square + third * cross
    return (third * square + cross) / below if below > 0.0 else 0.0


@njit(cache=True, inline='always')
def _trapezoid_rate(signal, n, te):
    area = 0.0
    for j in range(n - 1):
        area += 0.5 * (te[j + 1] - te[j]) * (signal[j] + signal[j + 1])
    return (signal[0] - signal[n - 1]) / area if area > 0.0 else 0.0


@njit(cache=True, parallel=True, error_model='numpy')
def arlo(magnitude, mask, te, floor, spacing, r2star, t2star, s0):
    nx, ny, nz = mask.shape
    for x in prange(nx):
        signal = np.empty(te.size)
        for y in range(ny):
            for z in range(nz):
                if not mask[x, y, z]:
                    continue
                n = _load(magnitude, x, y, z, floor, signal)
                if n > 2:
                    rate = _arlo_rate(signal, n, spacing / 3.0)
                else:
                    rate = _line_rate(signal, n, te)
                rate = _bounded(rate)
                amplitude = _even_amplitude(rate, signal, n, te[0], spacing)
                _store(rate, amplitude, x, y, z, r2star, t2star, s0)


@njit(cache=True, parallel=True, error_model='numpy')
def trapezoid(magnitude, mask, te, floor, r2star, t2star, s0):
    nx, ny, nz = mask.shape
    for x in prange(nx):
        signal = np.empty(te.size)
        for y in range(ny):
            for z in range(nz):
                if not mask[x, y, z]:
                    continue
                n = _load(magnitude, x, y, z, floor, signal)
                rate = _bounded(_trapezoid_rate(signal, n, te))
                amplitude = _amplitude(rate, signal, n, te)
                _store(rate, amplitude, x, y, z, r2star, t2star, s0)


@njit(cache=True, parallel=True, error_model='numpy')
def loglinear(magnitude, mask, te, floor, r2star, t2star, s0):
    nx, ny, nz = mask.shape
    for x in prange(nx):
        signal = np.empty(te.size)
        for y in range(ny):
            for z in range(nz):
                if not mask[x, y, z]:
                    continue
                n = _load(magnitude, x, y, z, floor, signal)
                rate = _bounded(_line_rate(signal, n, te))
                amplitude = _amplitude(rate, signal, n, te)
                _store(rate, amplitude, x, y, z, r2star, t2star, s0)


@njit(cache=True, inline='always')
def _misfit(data, weights, te, amplitude, rate, decay):
    """Return the weighted sum of squared residuals; the decay goes to the last argument."""
    total = 0.0
    for j in range(data.size):
        decay[j] = math.exp(-rate * te[j])
        rest = data[j] - amplitude * decay[j]
        total += weights[j] * rest * rest
    return total


@njit(cache=True, inline='always')
def _normal_equations(data, weights, te, amplitude, decay):
    """Return the Gauss-Newton matrix (aa, ar, rr) and the gradient (ga, gr)."""
    aa = ar = rr = ga = gr = 0.0
    for j in range(data.size):
        slope = -te[j] * amplitude * decay[j]
        rest = data[j] - amplitude * decay[j]
        aa += weights[j] * decay[j] * decay[j]
        ar += weights[j] * decay[j] * slope
        rr += weights[j] * slope * slope
        ga += weights[j] * decay[j] * rest
        gr += weights[j] * slope * rest
    return aa, ar, rr, ga, gr


@njit(cache=True)
def _levenberg_marquardt(data, known, variance, te, amplitude, rate, largest, limits, scratch):
    """Fit ``amplitude * exp(-rate * te)`` to the data within 0 <= rate <= largest, amplitude >= 0.

    The weights are ``known``, 0 or 1. With ``variance`` above 0 they follow the fit as well: the
    inverse variance of the square of a magnitude with noise of that variance. ``limits`` are the
    number of steps and the tolerance, ``scratch`` three arrays like the data. Returns amplitude
    and rate.
    """
    max_iter, tol = limits
    weights, decay, trial = scratch[0], scratch[1], scratch[2]
    weights[:] = known
    _misfit(data, weights, te, amplitude, rate, decay)
    damping = 1e-3
    for _ in range(max_iter):
        before = 0.0
        for j in range(data.size):
            if variance > 0.0:
                weights[j] = known[j] / (amplitude * decay[j] + variance)
            before += weights[j] * (data[j] - amplitude * decay[j]) ** 2
        aa, ar, rr, ga, gr = _normal_equations(data, weights, te, amplitude, decay)
        if not aa > 0.0:
            break
        outward = gr * aa - ga * ar
        held = (rate <= 0.0 and outward < 0.0) or (rate >= largest and outward > 0.0)
        accepted = False
        new_a, new_r = amplitude, rate
        while not accepted and damping < 1e8:
            a, r = aa * (1.0 + damping), rr * (1.0 + damping)
            determinant = a * r - ar * ar
            if held or not determinant > 0.0:
                new_a = max(amplitude + ga / a, 0.0)
            else:
                new_a = max(amplitude + (ga * r - gr * ar) / determinant, 0.0)
                new_r = min(max(rate + (gr * a - ga * ar) / determinant, 0.0), largest)
            accepted = _misfit(data, weights, te, new_a, new_r, trial) <= before
            damping *= 0.1 if accepted else 10.0
        if not accepted:
            break
        change = abs(new_r - rate) * (te[-1] - te[0])
        small = change <= tol and abs(new_a - amplitude) <= tol * amplitude
        amplitude, rate = new_a, new_r
        decay[:] = trial
        if small:
            break
    return amplitude, rate


@njit(cache=True, inline='always')
def _nlls_voxel(signal, known, n, te, noise, limits, data, scratch):
    """Return amplitude and rate, from the weighted line as start.

    Noise adds to the square of the signal, which also decays, twice as fast.
    """
    rate = _bounded(_line_rate(signal, n, te))
    amplitude = _amplitude(rate, signal, n, te)
    if not noise > 0.0:
        data[:] = signal
        return _levenberg_marquardt(
            data, known, 0.0, te, amplitude, rate, R2STAR_MAX, limits, scratch
        )
    variance = noise * noise
    for j in range(te.size):
        data[j] = signal[j] * signal[j] - 2.0 * variance
    start = amplitude * amplitude
    power, rate = _levenberg_marquardt(
        data, known, variance, te, start, 2.0 * rate, 2.0 * R2STAR_MAX, limits, scratch
    )
    return math.sqrt(power), 0.5 * rate


@njit(cache=True, parallel=True, error_model='numpy')
def nlls(magnitude, mask, te, floor, noise, limits, r2star, t2star, s0):
    nx, ny, nz = mask.shape
    for x in prange(nx):
        signal = np.empty(te.size)
        known = np.empty(te.size)
        data = np.empty(te.size)
        scratch = np.empty((3, te.size))
        for y in range(ny):
            for z in range(nz):
                if not mask[x, y, z]:
                    continue
                n = _load(magnitude, x, y, z, floor, signal)
                for j in range(te.size):
                    known[j] = 1.0 if math.isfinite(magnitude[x, y, z, j]) else 0.0
                amplitude, rate = _nlls_voxel(signal, known, n, te, noise, limits, data, scratch)
                if not amplitude > 0.0:
                    amplitude, rate = 0.0, 0.0
                _store(rate, amplitude, x, y, z, r2star, t2star, s0)
