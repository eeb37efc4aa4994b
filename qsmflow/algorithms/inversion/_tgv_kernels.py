"""Compiled loops of the one-step TGV inversion.

Volumes are float32 and C-contiguous, with a margin of at least one voxel on each side that stays
zero, so that no neighbour is out of bounds. The loops go from the first voxel inside of each row
to the last, by its bounds in ``rows``. These are uint64: an index that might be negative gets no
vector instructions. ``mask`` and ``inner`` are 1 or 0; ``inner`` marks the voxels that have a data
equation. A stencil is a tuple of ten weights: the centre, the neighbours across faces along each
axis, and for each pair of axes the neighbours across the two kinds of edges.
"""

import math

import numpy as np

from qsmflow.algorithms._jit import njit, prange

HALF, ONE, TWO = np.float32(0.5), np.float32(1), np.float32(2)
#: One, of the type of the bounds of rows, for indices to stay of it.
NEXT = np.uint64(1)

#: Step of the slack at voxels without a data equation, over that at the others. Their slack has
#: the largest effect on the equations around, which limits the steps of all if they are equal.
RIM = np.float32(0.1)


@njit(cache=True, fastmath=True, inline='always')
def _stencil(a, i, j, k, s):
    return (
        s[0] * a[i, j, k]
        + s[1] * (a[i - 1, j, k] + a[i + 1, j, k])
        + s[2] * (a[i, j - 1, k] + a[i, j + 1, k])
        + s[3] * (a[i, j, k - NEXT] + a[i, j, k + NEXT])
        + s[4] * (a[i + 1, j + 1, k] + a[i - 1, j - 1, k])
        + s[5] * (a[i + 1, j - 1, k] + a[i - 1, j + 1, k])
        + s[6] * (a[i + 1, j, k + NEXT] + a[i - 1, j, k - NEXT])
        + s[7] * (a[i + 1, j, k - NEXT] + a[i - 1, j, k + NEXT])
        + s[8] * (a[i, j + 1, k + NEXT] + a[i, j - 1, k - NEXT])
        + s[9] * (a[i, j + 1, k - NEXT] + a[i, j - 1, k + NEXT])
    )


@njit(cache=True, parallel=True, fastmath=True)
def apply_stencil(a, stencil, keep, rows, out):
    nx, ny, _ = a.shape
    for i in prange(1, nx - 1):
        for j in range(1, ny - 1):
            for k in range(rows[i, j, 0], rows[i, j, 1]):
                out[i, j, k] = keep[i, j, k] * _stencil(a, i, j, k, stencil)


@njit(cache=True, parallel=True, fastmath=True)
def primal_step(
    v, p, q, mask, inner, weight2, wave, lap, steps, tau_eta, tau_w, limit, relax,
    rows, w, eta, w_bar, eta_bar, descent,
):  # fmt: skip
    # `descent` receives the direction for chi, which is preconditioned outside.
    sx, sy, sz = steps
    nx, ny, _ = eta.shape
    for i in prange(1, nx - 1):
        for j in range(1, ny - 1):
            for k in range(rows[i, j, 0], rows[i, j, 1]):
                here = mask[i, j, k]
                tau = tau_eta * (RIM + (ONE - RIM) * inner[i, j, k])
                old = eta[i, j, k]
                new = old - tau * here * _stencil(v, i, j, k, lap)
                pull = tau * weight2[i, j, k]
                new -= pull * max(-limit, min(limit, new / (ONE + pull)))
                eta_bar[i, j, k] = TWO * new - old
                eta[i, j, k] = old + relax * (new - old)

                p0, p1, p2 = p[0, i, j, k], p[1, i, j, k], p[2, i, j, k]
                divergence = (
                    sx * (p0 - p[0, i - 1, j, k])
                    + sy * (p1 - p[1, i, j - 1, k])
                    + sz * (p2 - p[2, i, j, k - NEXT])
                )
                descent[i, j, k] = here * (divergence - _stencil(v, i, j, k, wave))

                # Differences exist between voxels that are both inside.
                fx, bx = sx * mask[i + 1, j, k], sx * mask[i - 1, j, k]
                fy, by = sy * mask[i, j + 1, k], sy * mask[i, j - 1, k]
                fz, bz = sz * mask[i, j, k + NEXT], sz * mask[i, j, k - NEXT]
                q3, q4, q5 = q[3, i, j, k], q[4, i, j, k], q[5, i, j, k]
                d0 = p0 + fx * q[0, i + 1, j, k] - bx * q[0, i, j, k]
                d0 += fy * q[3, i, j + 1, k] - by * q3 + fz * q[4, i, j, k + NEXT] - bz * q4
                d1 = p1 + fy * q[1, i, j + 1, k] - by * q[1, i, j, k]
                d1 += fx * q[3, i + 1, j, k] - bx * q3 + fz * q[5, i, j, k + NEXT] - bz * q5
                d2 = p2 + fz * q[2, i, j, k + NEXT] - bz * q[2, i, j, k]
                d2 += fx * q[4, i + 1, j, k] - bx * q4 + fy * q[5, i, j + 1, k] - by * q5
                step = tau_w * here
                old = w[0, i, j, k]
                w_bar[0, i, j, k] = old + TWO * step * d0
                w[0, i, j, k] = old + relax * step * d0
                old = w[1, i, j, k]
                w_bar[1, i, j, k] = old + TWO * step * d1
                w[1, i, j, k] = old + relax * step * d1
                old = w[2, i, j, k]
                w_bar[2, i, j, k] = old + TWO * step * d2
                w[2, i, j, k] = old + relax * step * d2


@njit(cache=True, parallel=True, fastmath=True)
def chi_step(direction, tau, relax, mask, rows, chi, chi_bar):
    nx, ny, _ = chi.shape
    sums = np.zeros((nx, 2))
    for i in prange(1, nx - 1):
        change, energy = 0.0, 0.0
        for j in range(1, ny - 1):
            for k in range(rows[i, j, 0], rows[i, j, 1]):
                step = tau * mask[i, j, k] * direction[i, j, k]
                old = chi[i, j, k]
                chi_bar[i, j, k] = old + TWO * step
                step *= relax
                chi[i, j, k] = old + step
                change += step * step
                energy += (old + step) * (old + step)
        sums[i, 0], sums[i, 1] = change, energy
    total = sums.sum(axis=0)
    return total[0] / (total[1] + 1e-30)


@njit(cache=True, parallel=True, fastmath=True)
def dual_step(
    chi_bar, w_bar, eta_bar, mask, inner, source, wave, lap, steps, sigma_p, sigma_q, alpha1,
    alpha0, relax, rows, p, q, residual,
):  # fmt: skip
    # `residual` receives that of the data equation, which is preconditioned outside.
    sx, sy, sz = steps
    nx, ny, _ = mask.shape
    for i in prange(1, nx - 1):
        for j in range(1, ny - 1):
            for k in range(rows[i, j, 0], rows[i, j, 1]):
                here = mask[i, j, k]
                image = _stencil(eta_bar, i, j, k, lap) + _stencil(chi_bar, i, j, k, wave)
                residual[i, j, k] = inner[i, j, k] * (image - source[i, j, k])

                chi = chi_bar[i, j, k]
                w0, w1, w2 = w_bar[0, i, j, k], w_bar[1, i, j, k], w_bar[2, i, j, k]
                p0, p1, p2 = p[0, i, j, k], p[1, i, j, k], p[2, i, j, k]
                step = sigma_p * here
                t0 = p0 + step * mask[i + 1, j, k] * (sx * (chi_bar[i + 1, j, k] - chi) - w0)
                t1 = p1 + step * mask[i, j + 1, k] * (sy * (chi_bar[i, j + 1, k] - chi) - w1)
                t2 = p2 + step * mask[i, j, k + NEXT] * (sz * (chi_bar[i, j, k + NEXT] - chi) - w2)
                scale = alpha1 / max(alpha1, math.sqrt(t0 * t0 + t1 * t1 + t2 * t2))
                p[0, i, j, k] = p0 + relax * (t0 * scale - p0)
                p[1, i, j, k] = p1 + relax * (t1 * scale - p1)
                p[2, i, j, k] = p2 + relax * (t2 * scale - p2)

                step = sigma_q * here
                bx = step * mask[i - 1, j, k] * sx
                by = step * mask[i, j - 1, k] * sy
                bz = step * mask[i, j, k - NEXT] * sz
                q0, q1, q2 = q[0, i, j, k], q[1, i, j, k], q[2, i, j, k]
                q3, q4, q5 = q[3, i, j, k], q[4, i, j, k], q[5, i, j, k]
                t0 = q0 + bx * (w0 - w_bar[0, i - 1, j, k])
                t1 = q1 + by * (w1 - w_bar[1, i, j - 1, k])
                t2 = q2 + bz * (w2 - w_bar[2, i, j, k - NEXT])
                t3 = by * (w0 - w_bar[0, i, j - 1, k]) + bx * (w1 - w_bar[1, i - 1, j, k])
                t4 = bz * (w0 - w_bar[0, i, j, k - NEXT]) + bx * (w2 - w_bar[2, i - 1, j, k])
                t5 = bz * (w1 - w_bar[1, i, j, k - NEXT]) + by * (w2 - w_bar[2, i, j - 1, k])
                t3, t4, t5 = q3 + HALF * t3, q4 + HALF * t4, q5 + HALF * t5
                size = t0 * t0 + t1 * t1 + t2 * t2 + TWO * (t3 * t3 + t4 * t4 + t5 * t5)
                scale = alpha0 / max(alpha0, math.sqrt(size))
                q[0, i, j, k] = q0 + relax * (t0 * scale - q0)
                q[1, i, j, k] = q1 + relax * (t1 * scale - q1)
                q[2, i, j, k] = q2 + relax * (t2 * scale - q2)
                q[3, i, j, k] = q3 + relax * (t3 * scale - q3)
                q[4, i, j, k] = q4 + relax * (t4 * scale - q4)
                q[5, i, j, k] = q5 + relax * (t5 * scale - q5)


@njit(cache=True, parallel=True, fastmath=True)
def add_inside(direction, factor, keep, rows, target):
    nx, ny, _ = target.shape
    for i in prange(1, nx - 1):
        for j in range(1, ny - 1):
            for k in range(rows[i, j, 0], rows[i, j, 1]):
                target[i, j, k] += factor * keep[i, j, k] * direction[i, j, k]


@njit(cache=True, parallel=True)
def bends(field, rows, out):
    # Second differences along the axes.
    nx, ny, _ = field.shape
    for i in prange(1, nx - 1):
        for j in range(1, ny - 1):
            for k in range(rows[i, j, 0], rows[i, j, 1]):
                here = field[i, j, k]
                out[0, i, j, k] = (field[i + 1, j, k] - here) - (here - field[i - 1, j, k])
                out[1, i, j, k] = (field[i, j + 1, k] - here) - (here - field[i, j - 1, k])
                out[2, i, j, k] = (field[i, j, k + NEXT] - here) - (here - field[i, j, k - NEXT])


@njit(cache=True, inline='always')
def _bend(a, i, j, k, axis):
    di, dj, dk = axis == 0, axis == 1, np.uint64(axis == 2)
    return a[i + di, j + dj, k + dk] + a[i - di, j - dj, k - dk] - TWO * a[i, j, k]


@njit(cache=True, parallel=True)
def laplacian_of_bends(bend, steps, inner, rows, out):
    # As `laplacian_stencil`. The order of differences matters only at open ends of fringes.
    nx, ny, _ = out.shape
    x2, y2, z2 = steps[0] ** 2, steps[1] ** 2, steps[2] ** 2
    twelfth = np.float32(1 / 24)
    for i in prange(1, nx - 1):
        for j in range(1, ny - 1):
            for k in range(rows[i, j, 0], rows[i, j, 1]):
                if inner[i, j, k] == 0:
                    continue
                total = x2 * bend[0, i, j, k] + y2 * bend[1, i, j, k] + z2 * bend[2, i, j, k]
                xy = _bend(bend[0], i, j, k, 1) + _bend(bend[1], i, j, k, 0)
                xz = _bend(bend[0], i, j, k, 2) + _bend(bend[2], i, j, k, 0)
                yz = _bend(bend[1], i, j, k, 2) + _bend(bend[2], i, j, k, 1)
                total += twelfth * ((x2 + y2) * xy + (x2 + z2) * xz + (y2 + z2) * yz)
                out[i, j, k] = total
