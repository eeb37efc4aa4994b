"""Compiled proximal steps of the data terms in `_admm` and of the splits in `_variation`.

All volumes are float32, C-contiguous and of one grid; differences are periodic.
"""

import math

import numpy as np

from qsmflow.algorithms._jit import njit, prange

_TURN = np.float32(2 * math.pi)
_PER_TURN = np.float32(0.5 / math.pi)
_ZERO, _HALF, _ONE, _TWO = (np.float32(value) for value in (0, 0.5, 1, 2))
_TINY = np.float32(1e-30)
#: Taylor coefficients in the squared argument; exact in float32 up to pi / 2.
_SINC = tuple(np.float32((-1) ** n / math.factorial(2 * n + 1)) for n in range(6))
_COS = tuple(np.float32((-1) ** n / math.factorial(2 * n)) for n in range(7))


@njit(cache=True, fastmath=True, inline='always')
def _sinc(x2):
    a0, a1, a2, a3, a4, a5 = _SINC
    return a0 + x2 * (a1 + x2 * (a2 + x2 * (a3 + x2 * (a4 + x2 * a5))))


@njit(cache=True, fastmath=True, inline='always')
def _cosine(x2):
    a0, a1, a2, a3, a4, a5, a6 = _COS
    return a0 + x2 * (a1 + x2 * (a2 + x2 * (a3 + x2 * (a4 + x2 * (a5 + x2 * a6)))))


@njit(cache=True, parallel=True, fastmath=True)
def phase_step(model, dual, field, weight2, mu, scale):
    # 1 - cos is concave in the squared misfit, so that its tangent there, a parabola with the
    # weight sin(r) / r about the nearest turn of the field, lies above it.
    nx, ny, nz = model.shape
    per_radian = _ONE / scale
    for i in prange(nx):
        for j in range(ny):
            for k in range(nz):
                misfit = scale * (model[i, j, k] - field[i, j, k])
                turns = _TURN * np.floor(misfit * _PER_TURN + _HALF)
                half = _HALF * (misfit - turns)
                h2 = half * half
                w2 = weight2[i, j, k] * max(_sinc(h2) * _cosine(h2), _ZERO)
                total = model[i, j, k] + dual[i, j, k]
                new = w2 / (w2 + mu) * (total - field[i, j, k] - turns * per_radian)
                dual[i, j, k] = new
                model[i, j, k] = total - _TWO * new


@njit(cache=True, parallel=True, fastmath=True)
def bent_step(model, dual, field, weight2, mu, bend):
    nx, ny, nz = model.shape
    for i in prange(nx):
        for j in range(ny):
            for k in range(nz):
                total = model[i, j, k] + dual[i, j, k]
                w2 = weight2[i, j, k]
                limit = w2 * bend / mu
                new = w2 / (w2 + mu) * (total - field[i, j, k])
                new = min(max(new, -limit), limit)
                dual[i, j, k] = new
                model[i, j, k] = total - _TWO * new


@njit(cache=True, parallel=True, fastmath=True)
def absolute_step(model, dual, field, weight, mu):
    nx, ny, nz = model.shape
    for i in prange(nx):
        for j in range(ny):
            for k in range(nz):
                total = model[i, j, k] + dual[i, j, k]
                limit = weight[i, j, k] / mu
                new = min(max(total - field[i, j, k], -limit), limit)
                dual[i, j, k] = new
                model[i, j, k] = total - _TWO * new


@njit(cache=True, parallel=True, fastmath=True)
def chord_step(model, dual, field, weight, mu, scale):
    # As in `phase_step`: the sine of half the misfit is concave in the misfit's absolute value.
    nx, ny, nz = model.shape
    per_radian = _ONE / scale
    for i in prange(nx):
        for j in range(ny):
            for k in range(nz):
                misfit = scale * (model[i, j, k] - field[i, j, k])
                turns = _TURN * np.floor(misfit * _PER_TURN + _HALF)
                half = _HALF * (misfit - turns)
                limit = weight[i, j, k] * max(_cosine(half * half), _ZERO) / mu
                total = model[i, j, k] + dual[i, j, k]
                new = total - field[i, j, k] - turns * per_radian
                new = min(max(new, -limit), limit)
                dual[i, j, k] = new
                model[i, j, k] = total - _TWO * new


# --- gradients with a weight for each axis ---------------------------------------------------


@njit(cache=True, fastmath=True, inline='always')
def _into_ball(v0, v1, v2, radius):
    scale = radius / max(math.sqrt(v0 * v0 + v1 * v1 + v2 * v2), radius)
    return v0 * scale, v1 * scale, v2 * scale


@njit(cache=True, fastmath=True, inline='always')
def _into_ellipsoid(v0, v1, v2, a0, a1, a2):
    # The nearest point of an ellipsoid with half axes a is a^2 v / (a^2 + t). Newton steps on the
    # inverse of the norm rise to t from zero; four leave less than a thousandth.
    b0, b1, b2 = a0 * a0, a1 * a1, a2 * a2
    c0, c1, c2 = b0 * v0 * v0, b1 * v1 * v1, b2 * v2 * v2
    t = _ZERO
    for _ in range(4):
        i0, i1, i2 = _ONE / (b0 + t), _ONE / (b1 + t), _ONE / (b2 + t)
        q0, q1, q2 = c0 * i0 * i0, c1 * i1 * i1, c2 * i2 * i2
        size2 = q0 + q1 + q2
        slope = max(q0 * i0 + q1 * i1 + q2 * i2, _TINY)
        t += max(math.sqrt(size2) - _ONE, _ZERO) * size2 / slope
    return b0 * v0 / (b0 + t), b1 * v1 / (b1 + t), b2 * v2 / (b2 + t)


@njit(cache=True, fastmath=True, inline='always')
def _project_weighted(x, penalty, level, sx, sy, sz, dual, i, j, k, i1, j1, k1):
    here = x[i, j, k]
    v0, v1, v2 = _into_ellipsoid(
        (x[i1, j, k] - here) * sx + dual[0, i, j, k],
        (x[i, j1, k] - here) * sy + dual[1, i, j, k],
        (x[i, j, k1] - here) * sz + dual[2, i, j, k],
        level * penalty[0, i, j, k],
        level * penalty[1, i, j, k],
        level * penalty[2, i, j, k],
    )
    dual[0, i, j, k], dual[1, i, j, k], dual[2, i, j, k] = v0, v1, v2


@njit(cache=True, parallel=True, fastmath=True)
def project_weighted(x, penalty, level, sx, sy, sz, dual):
    nx, ny, nz = x.shape
    for i in prange(nx):
        i1 = i + 1 if i + 1 < nx else 0
        for j in range(ny):
            j1 = j + 1 if j + 1 < ny else 0
            for k in range(nz - 1):
                _project_weighted(x, penalty, level, sx, sy, sz, dual, i, j, k, i1, j1, k + 1)
            _project_weighted(x, penalty, level, sx, sy, sz, dual, i, j, nz - 1, i1, j1, 0)


# --- second-order total generalised variation ------------------------------------------------
#
# Vector fields have the components x, y, z, symmetric tensors xx, yy, zz, xy, xz, yz. Gradients
# take forward differences, symmetrised derivatives of vector fields backward ones.


@njit(cache=True, parallel=True, fastmath=True)
def project_tensor(w, penalty, level, sx, sy, sz, dual, divergence):
    nx, ny, nz = penalty.shape
    for i in prange(nx):
        i0 = i - 1 if i > 0 else nx - 1
        for j in range(ny):
            j0 = j - 1 if j > 0 else ny - 1
            for k in range(nz):
                k0 = k - 1 if k > 0 else nz - 1
                x, y, z = w[0, i, j, k], w[1, i, j, k], w[2, i, j, k]
                xx, yy = (x - w[0, i0, j, k]) * sx, (y - w[1, i, j0, k]) * sy
                zz = (z - w[2, i, j, k0]) * sz
                divergence[i, j, k] = xx + yy + zz
                q0 = dual[0, i, j, k] + xx
                q1 = dual[1, i, j, k] + yy
                q2 = dual[2, i, j, k] + zz
                cross = (x - w[0, i, j0, k]) * sy + (y - w[1, i0, j, k]) * sx
                q3 = dual[3, i, j, k] + _HALF * cross
                cross = (x - w[0, i, j, k0]) * sz + (z - w[2, i0, j, k]) * sx
                q4 = dual[4, i, j, k] + _HALF * cross
                cross = (y - w[1, i, j, k0]) * sz + (z - w[2, i, j0, k]) * sy
                q5 = dual[5, i, j, k] + _HALF * cross
                size = q0 * q0 + q1 * q1 + q2 * q2 + _TWO * (q3 * q3 + q4 * q4 + q5 * q5)
                radius = level * penalty[i, j, k]
                scale = radius / max(math.sqrt(size), radius)
                dual[0, i, j, k] = q0 * scale
                dual[1, i, j, k] = q1 * scale
                dual[2, i, j, k] = q2 * scale
                dual[3, i, j, k] = q3 * scale
                dual[4, i, j, k] = q4 * scale
                dual[5, i, j, k] = q5 * scale


@njit(cache=True, fastmath=True, inline='always')
def _vector_step(
    chi, w, q, penalty, level, ratio, step, sx, sy, sz, dual, pull, i, j, k, i1, j1, k1
):
    xy, xz, yz = q[3, i, j, k], q[4, i, j, k], q[5, i, j, k]
    p0 = (q[0, i, j, k] - q[0, i1, j, k]) * sx
    p0 += (xy - q[3, i, j1, k]) * sy + (xz - q[4, i, j, k1]) * sz
    p1 = (q[1, i, j, k] - q[1, i, j1, k]) * sy
    p1 += (xy - q[3, i1, j, k]) * sx + (yz - q[5, i, j, k1]) * sz
    p2 = (q[2, i, j, k] - q[2, i, j, k1]) * sz
    p2 += (xz - q[4, i1, j, k]) * sx + (yz - q[5, i, j1, k]) * sy
    here = chi[i, j, k]
    u0, u1, u2 = dual[0, i, j, k], dual[1, i, j, k], dual[2, i, j, k]
    v0 = (chi[i1, j, k] - here) * sx - w[0, i, j, k] + u0
    v1 = (chi[i, j1, k] - here) * sy - w[1, i, j, k] + u1
    v2 = (chi[i, j, k1] - here) * sz - w[2, i, j, k] + u2
    a0 = level * penalty[0, i, j, k]
    if penalty.shape[0] == 1:
        v0, v1, v2 = _into_ball(v0, v1, v2, a0)
    else:
        a1, a2 = level * penalty[1, i, j, k], level * penalty[2, i, j, k]
        v0, v1, v2 = _into_ellipsoid(v0, v1, v2, a0, a1, a2)
    w[0, i, j, k] += step * (_TWO * v0 - u0 - ratio * (_TWO * p0 - pull[0, i, j, k]))
    w[1, i, j, k] += step * (_TWO * v1 - u1 - ratio * (_TWO * p1 - pull[1, i, j, k]))
    w[2, i, j, k] += step * (_TWO * v2 - u2 - ratio * (_TWO * p2 - pull[2, i, j, k]))
    dual[0, i, j, k], dual[1, i, j, k], dual[2, i, j, k] = v0, v1, v2
    pull[0, i, j, k], pull[1, i, j, k], pull[2, i, j, k] = p0, p1, p2


@njit(cache=True, parallel=True, fastmath=True)
def vector_step(chi, w, q, penalty, level, ratio, step, sx, sy, sz, dual, pull):
    # `pull` holds the adjoint of the symmetrised derivative of `q`, here and before. The penalty
    # has one volume, or one for each axis.
    nx, ny, nz = chi.shape
    for i in prange(nx):
        i1 = i + 1 if i + 1 < nx else 0
        for j in range(ny):
            j1 = j + 1 if j + 1 < ny else 0
            for k in range(nz):
                k1 = k + 1 if k + 1 < nz else 0
                _vector_step(
                    chi, w, q, penalty, level, ratio, step, sx, sy, sz, dual, pull,
                    i, j, k, i1, j1, k1,
                )  # fmt: skip


@njit(cache=True, parallel=True, fastmath=True)
def vector_source(u, w, sx, sy, sz, dual_divergence, divergence, source):
    nx, ny, nz = source.shape
    for i in prange(nx):
        i0 = i - 1 if i > 0 else nx - 1
        for j in range(ny):
            j0 = j - 1 if j > 0 else ny - 1
            for k in range(nz):
                k0 = k - 1 if k > 0 else nz - 1
                du = (u[0, i, j, k] - u[0, i0, j, k]) * sx
                du += (u[1, i, j, k] - u[1, i, j0, k]) * sy
                du += (u[2, i, j, k] - u[2, i, j, k0]) * sz
                dw = (w[0, i, j, k] - w[0, i0, j, k]) * sx
                dw += (w[1, i, j, k] - w[1, i, j0, k]) * sy
                dw += (w[2, i, j, k] - w[2, i, j, k0]) * sz
                source[i, j, k] = _TWO * du - dual_divergence[i, j, k] - dw + divergence[i, j, k]
                dual_divergence[i, j, k] = du


@njit(cache=True, parallel=True, fastmath=True)
def follow_gradient(chi, before, step, sx, sy, sz, w):
    nx, ny, nz = chi.shape
    for i in prange(nx):
        i1 = i + 1 if i + 1 < nx else 0
        for j in range(ny):
            j1 = j + 1 if j + 1 < ny else 0
            for k in range(nz):
                k1 = k + 1 if k + 1 < nz else 0
                here = chi[i, j, k] - before[i, j, k]
                w[0, i, j, k] += step * sx * (chi[i1, j, k] - before[i1, j, k] - here)
                w[1, i, j, k] += step * sy * (chi[i, j1, k] - before[i, j1, k] - here)
                w[2, i, j, k] += step * sz * (chi[i, j, k1] - before[i, j, k1] - here)


# --- susceptibility and harmonic background together -----------------------------------------


@njit(cache=True, parallel=True, fastmath=True)
def coupled_step(source, data, bend, chi, kernel, ex, ey, ez, mu, rho, muh):
    # On return the first three hold the spectra of chi, of the model field and of lap(h). What
    # the background explains at its own cost is taken out of the weight of the data first.
    nx, ny, nz = chi.shape
    change = 0.0
    energy = 1e-30
    for i in prange(nx):
        for j in range(ny):
            for k in range(nz):
                d = kernel[i, j, k]
                lap = ex[i] + ey[j] + ez[k]
                free = _ONE / (mu + muh * lap * lap)
                share = mu * muh * lap * free
                right = share * d * (lap * data[i, j, k] + bend[i, j, k])
                right += rho * (lap * chi[i, j, k] + source[i, j, k])
                left = share * lap * d * d + rho * lap
                new = right / left if left > 0 else np.complex64(0)
                h = free * (mu * (data[i, j, k] - d * new) - muh * lap * bend[i, j, k])
                step = new - chi[i, j, k]
                change += step.real * step.real + step.imag * step.imag
                energy += new.real * new.real + new.imag * new.imag
                chi[i, j, k] = new
                source[i, j, k] = new
                data[i, j, k] = d * new + h
                bend[i, j, k] = -lap * h
    return change / energy
