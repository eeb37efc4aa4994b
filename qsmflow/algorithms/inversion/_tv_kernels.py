"""Compiled loops of the over-relaxed alternating directions of `tv`.

The state of each split is ``t``, the split variable plus its dual. With ``P`` the projection
onto the ball of the penalty, the shrunk gradient is ``t - P(t)``, its dual ``P(t)``, and the next
susceptibility fits ``t - 2 P(t)``. All arrays are float32 or complex64, C-contiguous and of one
grid; differences are periodic.
"""

import math

import numpy as np

from qsmflow.algorithms._jit import njit, prange


@njit(cache=True, inline='always')
def _share(a, b, c, radius):
    # P(t) as a share of t.
    return radius / max(math.sqrt(a * a + b * b + c * c), radius)


@njit(cache=True, parallel=True)
def relax_gradient(x, penalty, level, relaxation, sx, sy, sz, state):
    nx, ny, nz = x.shape
    for i in prange(nx):
        i1 = i + 1 if i + 1 < nx else 0
        for j in range(ny):
            j1 = j + 1 if j + 1 < ny else 0
            for k in range(nz):
                k1 = k + 1 if k + 1 < nz else 0
                here = x[i, j, k]
                a, b, c = state[0, i, j, k], state[1, i, j, k], state[2, i, j, k]
                kept = np.float32(1) - _share(a, b, c, level * penalty[i, j, k])
                state[0, i, j, k] = a + relaxation * ((x[i1, j, k] - here) * sx - kept * a)
                state[1, i, j, k] = b + relaxation * ((x[i, j1, k] - here) * sy - kept * b)
                state[2, i, j, k] = c + relaxation * ((x[i, j, k1] - here) * sz - kept * c)


@njit(cache=True, parallel=True)
def gradient_source(state, penalty, level, sx, sy, sz, factor, source):
    # The negative divergence of t - 2 P(t); `factor` is room for a row's factors of t.
    nx, ny, nz = source.shape
    for i in prange(nx):
        for j in range(ny):
            for k in range(nz):
                share = _share(
                    state[0, i, j, k],
                    state[1, i, j, k],
                    state[2, i, j, k],
                    level * penalty[i, j, k],
                )
                factor[i, j, k] = np.float32(1) - np.float32(2) * share
    for i in prange(nx):
        i0 = i - 1 if i > 0 else nx - 1
        for j in range(ny):
            j0 = j - 1 if j > 0 else ny - 1
            for k in range(nz):
                k0 = k - 1 if k > 0 else nz - 1
                here = factor[i, j, k]
                total = (here * state[0, i, j, k] - factor[i0, j, k] * state[0, i0, j, k]) * sx
                total += (here * state[1, i, j, k] - factor[i, j0, k] * state[1, i, j0, k]) * sy
                total += (here * state[2, i, j, k] - factor[i, j, k0] * state[2, i, j, k0]) * sz
                source[i, j, k] = -total


@njit(cache=True, parallel=True)
def relax_data(model, field, weight2, mu, relaxation, state):
    # On return `model` holds what the next susceptibility fits.
    nx, ny, nz = model.shape
    for i in prange(nx):
        for j in range(ny):
            for k in range(nz):
                w2 = weight2[i, j, k]
                inverse = np.float32(1) / (w2 + mu)
                wf = w2 * field[i, j, k]
                t = state[i, j, k]
                t += relaxation * (model[i, j, k] - (wf + mu * t) * inverse)
                state[i, j, k] = t
                model[i, j, k] = np.float32(2) * (wf + mu * t) * inverse - t


@njit(cache=True, parallel=True)
def relax_harmonic(bend, inside, kept, relaxation, state):
    nx, ny, nz = bend.shape
    for i in prange(nx):
        for j in range(ny):
            for k in range(nz):
                t = state[i, j, k]
                share = kept if inside[i, j, k] else np.float32(1)
                t += relaxation * (bend[i, j, k] - share * t)
                state[i, j, k] = t
                bend[i, j, k] = (np.float32(2) * share - np.float32(1)) * t


@njit(cache=True, parallel=True)
def fit_both(source, data, bend, chi, kernel, ex, ey, ez, mu, rho, muh):
    # On return the first three hold the spectra of chi, of the model field and of lap(h).
    nx, ny, nz = chi.shape
    sums = np.empty((nx, 2))
    for i in prange(nx):
        change, energy = 0.0, 0.0
        for j in range(ny):
            for k in range(nz):
                d = kernel[i, j, k]
                lap = ex[i] + ey[j] + ez[k]
                fitted = mu * data[i, j, k]
                right = d * fitted + rho * source[i, j, k]
                other = fitted - muh * lap * bend[i, j, k]
                h_h = mu + muh * lap * lap
                # The determinant with its equal terms cancelled. At frequency
                # zero the field does not determine the susceptibility.
                determinant = lap * (mu * d * d * muh * lap + rho * h_h)
                new = (h_h * right - mu * d * other) / determinant if lap > 0 else np.complex64(0)
                h = (other - mu * d * new) / h_h
                step = new - chi[i, j, k]
                change += step.real * step.real + step.imag * step.imag
                energy += new.real * new.real + new.imag * new.imag
                chi[i, j, k] = new
                source[i, j, k] = new
                data[i, j, k] = d * new + h
                bend[i, j, k] = -lap * h
        sums[i, 0], sums[i, 1] = change, energy
    total = sums.sum(axis=0)
    return total[0] / (total[1] + 1e-30)
