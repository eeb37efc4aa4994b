"""Compiled proximal steps of the data terms in `_admm` and of the splits in `_variation`.

All volumes are float32, C-contiguous and of one grid; differences are periodic.
"""

import math

import numpy as np

from qsmflow.algorithms._jit import njit, prange

_TURN = np.float32(2 * math.pi)
_PER_TURN = np.float32(0.5 / math.pi)
_ZERO, _HALF, _ONE, _TWO = (np.float32(value) for value in (0, 0.5, 1, 2))
_TINY = np.float32(1e-37)
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
#
# Where divisions by zero are errors, their loops get no vector instructions. Neither do loops in
# which too many rows may overlap: rows come one by one.


@njit(cache=True, fastmath=True, inline='always')
def _into_ellipsoid(v0, v1, v2, a0, a1, a2):
    # The nearest point of an ellipsoid with half axes a is a^2 v / (a^2 + t). Newton steps on the
    # inverse of the norm rise to t from the largest of bounds below: those that each axis alone
    # gives, and that of a ball with the largest. Three leave less than a thousandth in nearly all
    # cases of axes up to twenty times others. In units in which a^2 + t is at most one, they need
    # few divisions.
    b0, b1, b2 = a0 * a0, a1 * a1, a2 * a2
    w0, w1, w2 = abs(a0 * v0), abs(a1 * v1), abs(a2 * v2)
    size = math.sqrt(w0 * w0 + w1 * w1 + w2 * w2)
    unit = _ONE / max(max(b0, b1, b2) + size, _TINY)
    size, b0, b1, b2 = size * unit, b0 * unit, b1 * unit, b2 * unit
    w0, w1, w2 = w0 * unit, w1 * unit, w2 * unit
    t = max(w0 - b0, w1 - b1, w2 - b2, size - max(b0, b1, b2), _ZERO)
    for _ in range(3):
        d0, d1, d2 = b0 + t, b1 + t, b2 + t
        e0, e1, e2 = d1 * d2, d0 * d2, d0 * d1
        q0, q1, q2 = w0 * e0, w1 * e1, w2 * e2
        q0, q1, q2 = q0 * q0, q1 * q1, q2 * q2
        size2 = q0 + q1 + q2
        slope = max(q0 * e0 + q1 * e1 + q2 * e2, _TINY)
        t += max(math.sqrt(size2) - d0 * e0, _ZERO) * size2 / slope
    d0, d1, d2 = b0 + t, b1 + t, b2 + t
    e0, e1, e2 = d1 * d2, d0 * d2, d0 * d1
    inverse = _ONE / max(d0 * e0, _TINY)
    return b0 * v0 * e0 * inverse, b1 * v1 * e1 * inverse, b2 * v2 * e2 * inverse


@njit(cache=True, fastmath=True, error_model='numpy')
def _clip_ball(u0, u1, u2, penalty, level):
    for k in range(u0.size):
        v0, v1, v2 = u0[k], u1[k], u2[k]
        radius = level * penalty[k]
        scale = radius / max(math.sqrt(v0 * v0 + v1 * v1 + v2 * v2), radius)
        u0[k], u1[k], u2[k] = v0 * scale, v1 * scale, v2 * scale


@njit(cache=True, fastmath=True, error_model='numpy')
def _clip_ellipsoid(u0, u1, u2, p0, p1, p2, level):
    for k in range(u0.size):
        a0, a1, a2 = level * p0[k], level * p1[k], level * p2[k]
        u0[k], u1[k], u2[k] = _into_ellipsoid(u0[k], u1[k], u2[k], a0, a1, a2)


@njit(cache=True)
def _clip_row(u0, u1, u2, p0, p1, p2, level, uneven):
    # Beyond the bounds `uneven` the penalties of the axes are equal, and need no Newton steps.
    a, b = uneven[0], uneven[1]
    _clip_ball(u0[:a], u1[:a], u2[:a], p0[:a], level)
    _clip_ellipsoid(u0[a:b], u1[a:b], u2[a:b], p0[a:b], p1[a:b], p2[a:b], level)
    _clip_ball(u0[b:], u1[b:], u2[b:], p0[b:], level)


@njit(cache=True, fastmath=True)
def _add_difference(x, following, step, u):
    for k in range(u.size):
        u[k] += (following[k] - x[k]) * step


@njit(cache=True)
def _shift(x, out):
    # To the next voxel of the row.
    last = x.size - 1
    for k in range(last):
        out[k] = x[k + 1]
    out[last] = x[0]


@njit(cache=True, parallel=True)
def find_uneven(penalty, uneven):
    # `uneven` receives the first voxel of each row whose penalties differ between the axes, and
    # the one after the last; rounded to eights, so that loops which take eight at a time leave
    # few over.
    nx, ny, nz = penalty[0].shape
    for i in prange(nx):
        for j in range(ny):
            first, last = nz, 0
            for k in range(nz):
                p = penalty[0, i, j, k]
                if p != penalty[1, i, j, k] or p != penalty[2, i, j, k]:
                    first, last = min(first, k), k + 1
            uneven[i, j, 0] = min(first, last) // 8 * 8
            uneven[i, j, 1] = min((last + 7) // 8 * 8, nz)


@njit(cache=True, parallel=True, fastmath=True)
def project_weighted(x, penalty, uneven, level, sx, sy, sz, dual):
    nx, ny, nz = x.shape
    for i in prange(nx):
        i1 = i + 1 if i + 1 < nx else 0
        shifted = np.empty(nz, np.float32)
        for j in range(ny):
            j1 = j + 1 if j + 1 < ny else 0
            here, u0, u1, u2 = x[i, j], dual[0, i, j], dual[1, i, j], dual[2, i, j]
            _shift(here, shifted)
            _add_difference(here, x[i1, j], sx, u0)
            _add_difference(here, x[i, j1], sy, u1)
            _add_difference(here, shifted, sz, u2)
            p0, p1, p2 = penalty[0, i, j], penalty[1, i, j], penalty[2, i, j]
            _clip_row(u0, u1, u2, p0, p1, p2, level, uneven[i, j])


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


@njit(cache=True, fastmath=True)
def _vector_row(x, x1, s, a, a1, sa, b, b1, sb, c, c1, sc, ratio, step, w, u, pull):
    # One component, up to the projection of `u`.
    for k in range(w.size):
        new = (a[k] - a1[k]) * sa + (b[k] - b1[k]) * sb + (c[k] - c1[k]) * sc
        old = u[k]
        u[k] = (x1[k] - x[k]) * s - w[k] + old
        w[k] -= step * (old + ratio * (_TWO * new - pull[k]))
        pull[k] = new


@njit(cache=True, fastmath=True)
def _add_row(u, factor, w):
    for k in range(w.size):
        w[k] += factor * u[k]


@njit(cache=True, parallel=True, fastmath=True)
def vector_step(chi, w, q, penalty, uneven, level, ratio, step, sx, sy, sz, dual, pull):
    # `pull` holds the adjoint of the symmetrised derivative of `q`, here and before. The penalty
    # has one volume, or one for each axis.
    nx, ny, nz = chi.shape
    axes = len(penalty) - 1
    for i in prange(nx):
        i1 = i + 1 if i + 1 < nx else 0
        room = np.empty((4, nz), np.float32)
        chi_z, zz_z, xz_z, yz_z = room[0], room[1], room[2], room[3]
        for j in range(ny):
            j1 = j + 1 if j + 1 < ny else 0
            here = chi[i, j]
            _shift(here, chi_z)
            _shift(q[2, i, j], zz_z)
            _shift(q[4, i, j], xz_z)
            _shift(q[5, i, j], yz_z)
            _vector_row(
                here, chi[i1, j], sx, q[0, i, j], q[0, i1, j], sx, q[3, i, j], q[3, i, j1], sy,
                q[4, i, j], xz_z, sz, ratio, step, w[0, i, j], dual[0, i, j], pull[0, i, j],
            )  # fmt: skip
            _vector_row(
                here, chi[i, j1], sy, q[3, i, j], q[3, i1, j], sx, q[1, i, j], q[1, i, j1], sy,
                q[5, i, j], yz_z, sz, ratio, step, w[1, i, j], dual[1, i, j], pull[1, i, j],
            )  # fmt: skip
            _vector_row(
                here, chi_z, sz, q[4, i, j], q[4, i1, j], sx, q[5, i, j], q[5, i, j1], sy,
                q[2, i, j], zz_z, sz, ratio, step, w[2, i, j], dual[2, i, j], pull[2, i, j],
            )  # fmt: skip
            u0, u1, u2 = dual[0, i, j], dual[1, i, j], dual[2, i, j]
            p0, p1, p2 = penalty[0, i, j], penalty[min(axes, 1), i, j], penalty[axes, i, j]
            _clip_row(u0, u1, u2, p0, p1, p2, level, uneven[i, j])
            _add_row(u0, _TWO * step, w[0, i, j])
            _add_row(u1, _TWO * step, w[1, i, j])
            _add_row(u2, _TWO * step, w[2, i, j])


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
    nx, ny = chi.shape[:2]
    sums = np.empty((nx, 2))
    for i in prange(nx):
        change, energy = 0.0, 0.0
        for j in range(ny):
            rows = source[i, j], data[i, j], bend[i, j], chi[i, j], kernel[i, j]
            found = _coupled_row(*rows, ex[i] + ey[j], ez, mu, rho, muh)
            change += found[0]
            energy += found[1]
        sums[i, 0], sums[i, 1] = change, energy
    total = sums.sum(axis=0)
    return total[0] / (total[1] + 1e-30)


@njit(cache=True, fastmath=True, error_model='numpy')
def _coupled_row(source, data, bend, chi, kernel, exy, ez, mu, rho, muh):
    change, energy = _ZERO, _ZERO
    for k in range(kernel.size):
        d = kernel[k]
        lap = exy + ez[k]
        free = _ONE / (mu + muh * lap * lap)
        share = mu * muh * lap * free
        left = share * lap * d * d + rho * lap
        inverse = _ONE / left if left > _ZERO else _ZERO
        right = share * d * (lap * data[k] + bend[k]) + rho * (lap * chi[k] + source[k])
        new = inverse * right
        h = free * (mu * (data[k] - d * new) - muh * lap * bend[k])
        step = new - chi[k]
        change += step.real * step.real + step.imag * step.imag
        energy += new.real * new.real + new.imag * new.imag
        chi[k] = new
        source[k] = new
        data[k] = d * new + h
        bend[k] = -lap * h
    return change, energy
