"""Compiled loops of the fits: some rows at a time, planes in parallel.

Each loop takes the magnitude, shape (X, Y, Z, E), the mask and the echo times in s, and fills the
three maps R2*, T2* and S0.
"""

import math

import numpy as np

from qsmflow.algorithms._jit import njit, prange

from . import _rows as rows
from ._model import R2STAR_MAX

# Voxels that are worked on together: enough for vector instructions, and few enough for a cache.
_BLOCK = 1024


#: The fits of `linear`.
LINE, ARLO, TRAPEZOID = range(3)


@njit(cache=True, parallel=True)
def linear(magnitude, mask, te, floor, fit, r2star, t2star, s0):
    """Fit without iterations: ``LINE``, ``TRAPEZOID``, or for even echo times ``ARLO``."""
    nx, ny, nz = mask.shape
    spacing = (te[-1] - te[0]) / (te.size - 1)
    for x in prange(nx):
        room = np.empty((2, te.size, max(nz, _BLOCK)), np.float32)
        found = np.empty((2, room.shape[2]))
        y = 0
        while y < ny:
            end, n = rows.load(magnitude[x], mask[x], y, floor, room[0], room[1])
            signal, leads = room[0, :, :n], room[1, :, :n]
            rate, amplitude = found[0, :n], found[1, :n]
            if fit == ARLO:
                rows.arlo_rates(signal, leads, te, spacing, rate)
                rows.even_amplitudes(signal, leads, rate, te[0], spacing, amplitude)
            else:
                if fit == LINE:
                    rows.line_rates(signal, leads, te, rate)
                else:
                    rows.trapezoid_rates(signal, leads, te, rate)
                rows.amplitudes(signal, leads, rate, te, amplitude)
            rows.store(mask[x], y, end, rate, amplitude, r2star[x], t2star[x], s0[x])
            y = end


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


@njit(cache=True)
def _nlls_voxel(known, te, noise, limits, start, data, scratch):
    """Return amplitude and rate, from those of the start; ``data``, the signal, is lost.

    Noise adds to the square of the signal, which also decays, twice as fast.
    """
    amplitude, rate = start
    if not noise > 0.0:
        return _levenberg_marquardt(
            data, known, 0.0, te, amplitude, rate, R2STAR_MAX, limits, scratch
        )
    variance = noise * noise
    for j in range(te.size):
        data[j] = data[j] * data[j] - 2.0 * variance
    power, rate = _levenberg_marquardt(
        data,
        known,
        variance,
        te,
        amplitude * amplitude,
        2.0 * rate,
        2.0 * R2STAR_MAX,
        limits,
        scratch,
    )
    return math.sqrt(power), 0.5 * rate


@njit(cache=True)
def _refine(magnitude, mask, y, end, te, noise, limits, signal, rate, amplitude):
    """Improve amplitudes and rates of the rows of a plane from y to an end, in place."""
    data, known, scratch = np.empty(te.size), np.empty(te.size), np.empty((3, te.size))
    i = 0
    for row in range(y, end):
        first, last = rows.span(mask[row])
        for z in range(first, last):
            if mask[row, z]:
                for j in range(te.size):
                    known[j] = 1.0 if math.isfinite(magnitude[row, z, j]) else 0.0
                    data[j] = signal[j, i]
                start = amplitude[i], rate[i]
                size, speed = _nlls_voxel(known, te, noise, limits, start, data, scratch)
                amplitude[i] = size if size > 0.0 else 0.0
                rate[i] = speed if size > 0.0 else 0.0
            i += 1


@njit(cache=True, parallel=True)
def nlls(magnitude, mask, te, floor, noise, limits, r2star, t2star, s0):
    nx, ny, nz = mask.shape
    for x in prange(nx):
        room = np.empty((2, te.size, max(nz, _BLOCK)), np.float32)
        found = np.empty((2, room.shape[2]))
        y = 0
        while y < ny:
            end, n = rows.load(magnitude[x], mask[x], y, floor, room[0], room[1])
            signal, leads = room[0, :, :n], room[1, :, :n]
            rate, amplitude = found[0, :n], found[1, :n]
            rows.line_rates(signal, leads, te, rate)
            rows.amplitudes(signal, leads, rate, te, amplitude)
            _refine(magnitude[x], mask[x], y, end, te, noise, limits, signal, rate, amplitude)
            rows.store(mask[x], y, end, rate, amplitude, r2star[x], t2star[x], s0[x])
            y = end
