"""Compiled loops of the multigrid solver.

All volumes carry one voxel of frame on every side, which stays zero. The rows ``first[i, j] <= k
< last[i, j]`` hold all unknowns; voxels outside the region stay zero. Red voxels are those whose
indices sum to an even number.
"""

import numpy as np

from qsmflow.algorithms._jit import njit, prange


@njit(cache=True, parallel=True)
def row_range(region, first, last):
    nx, ny, nz = region.shape
    for i in prange(nx):
        for j in range(ny):
            first[i, j] = nz
            last[i, j] = 0
            for k in range(nz):
                if region[i, j, k]:
                    first[i, j] = min(first[i, j], k)
                    last[i, j] = k + 1


@njit(cache=True, parallel=True)
def finest_links(region, cx, cy, cz, ax, ay, az, screen):
    # Links join a voxel to the next one; the screen holds the links to the boundary.
    nx, ny, nz = region.shape
    for i in prange(1, nx - 1):
        for j in range(1, ny - 1):
            for k in range(1, nz - 1):
                if not region[i, j, k]:
                    continue
                ax[i, j, k] = cx if region[i + 1, j, k] else 0
                ay[i, j, k] = cy if region[i, j + 1, k] else 0
                az[i, j, k] = cz if region[i, j, k + 1] else 0
                lost = cx * (2 - region[i + 1, j, k] - region[i - 1, j, k])
                lost += cy * (2 - region[i, j + 1, k] - region[i, j - 1, k])
                lost += cz * (2 - region[i, j, k + 1] - region[i, j, k - 1])
                screen[i, j, k] = lost


@njit(cache=True, parallel=True)
def coarse_links(
    ax, ay, az, screen, factors, link_scales, screen_scale, new_x, new_y, new_z, new_screen
):
    nx, ny, nz = new_screen.shape
    fx, fy, fz = factors
    for i in prange(1, nx - 1):
        for j in range(1, ny - 1):
            for k in range(1, nz - 1):
                for p in range(fx * (i - 1) + 1, fx * i + 1):
                    for q in range(fy * (j - 1) + 1, fy * j + 1):
                        for r in range(fz * (k - 1) + 1, fz * k + 1):
                            new_screen[i, j, k] += screen_scale * screen[p, q, r]
                            if p == fx * i:
                                new_x[i, j, k] += link_scales[0] * ax[p, q, r]
                            if q == fy * j:
                                new_y[i, j, k] += link_scales[1] * ay[p, q, r]
                            if r == fz * k:
                                new_z[i, j, k] += link_scales[2] * az[p, q, r]


@njit(cache=True, parallel=True)
def inverse_diagonal(ax, ay, az, screen, inverse):
    nx, ny, nz = screen.shape
    for i in prange(1, nx - 1):
        for j in range(1, ny - 1):
            for k in range(1, nz - 1):
                total = screen[i, j, k] + ax[i, j, k] + ax[i - 1, j, k] + ay[i, j, k]
                total += ay[i, j - 1, k] + az[i, j, k] + az[i, j, k - 1]
                inverse[i, j, k] = 1 / total if total > 0 else 0


@njit(cache=True, parallel=True)
def laplacian(u, region, cx, cy, cz, first, last, out):
    nx, ny, _ = u.shape
    diagonal = np.float32(2) * (cx + cy + cz)
    for i in prange(1, nx - 1):
        for j in range(1, ny - 1):
            for k in range(first[i, j], last[i, j]):
                value = cx * (u[i - 1, j, k] + u[i + 1, j, k])
                value += cy * (u[i, j - 1, k] + u[i, j + 1, k])
                value += cz * (u[i, j, k - 1] + u[i, j, k + 1])
                value -= diagonal * u[i, j, k]
                out[i, j, k] = value if region[i, j, k] else np.float32(0)


@njit(cache=True, parallel=True)
def divide(volume, divisor):
    nx, ny, nz = volume.shape
    for i in prange(nx):
        for j in range(ny):
            for k in range(nz):
                volume[i, j, k] /= divisor[i, j, k]


# --- finest level: one link strength for each axis ------------------------------------------


@njit(cache=True, parallel=True)
def start_finest(u, rhs, region, cx, cy, cz, first, last):
    # One red and one black sweep from zero.
    nx, ny, _ = u.shape
    inverse = np.float32(0.5) / (cx + cy + cz)
    for i in prange(1, nx - 1):
        for j in range(1, ny - 1):
            for k in range(first[i, j], last[i, j]):
                if (i + j + k) & 1:
                    value = cx * (rhs[i - 1, j, k] + rhs[i + 1, j, k])
                    value += cy * (rhs[i, j - 1, k] + rhs[i, j + 1, k])
                    value += cz * (rhs[i, j, k - 1] + rhs[i, j, k + 1])
                    value = inverse * (rhs[i, j, k] + inverse * value)
                else:
                    value = inverse * rhs[i, j, k]
                u[i, j, k] = value if region[i, j, k] else np.float32(0)


@njit(cache=True, parallel=True)
def residual_finest(u, region, cx, cy, cz, first, last, out):
    # Right after `start_finest`, when black residuals and the diagonal's part are zero.
    nx, ny, _ = u.shape
    for i in prange(1, nx - 1):
        for j in range(1, ny - 1):
            for k in range(first[i, j], last[i, j]):
                value = cx * (u[i - 1, j, k] + u[i + 1, j, k])
                value += cy * (u[i, j - 1, k] + u[i, j + 1, k])
                value += cz * (u[i, j, k - 1] + u[i, j, k + 1])
                red = region[i, j, k] and not (i + j + k) & 1
                out[i, j, k] = value if red else np.float32(0)


@njit(cache=True, parallel=True)
def sweep_finest(u, rhs, region, cx, cy, cz, first, last, colour):
    nx, ny, _ = u.shape
    inverse = np.float32(0.5) / (cx + cy + cz)
    for i in prange(1, nx - 1):
        for j in range(1, ny - 1):
            start = first[i, j]
            start += (i + j + start + colour) & 1
            for k in range(start, last[i, j], 2):
                if region[i, j, k]:
                    value = rhs[i, j, k] + cx * (u[i - 1, j, k] + u[i + 1, j, k])
                    value += cy * (u[i, j - 1, k] + u[i, j + 1, k])
                    value += cz * (u[i, j, k - 1] + u[i, j, k + 1])
                    u[i, j, k] = inverse * value


# --- coarse levels: links of their own for each voxel ---------------------------------------


@njit(cache=True, inline='always')
def _linked(u, ax, ay, az, i, j, k):
    value = ax[i - 1, j, k] * u[i - 1, j, k] + ax[i, j, k] * u[i + 1, j, k]
    value += ay[i, j - 1, k] * u[i, j - 1, k] + ay[i, j, k] * u[i, j + 1, k]
    return value + az[i, j, k - 1] * u[i, j, k - 1] + az[i, j, k] * u[i, j, k + 1]


@njit(cache=True, parallel=True)
def start_coarse(u, rhs, ax, ay, az, inverse, first, last):
    nx, ny, _ = u.shape
    for i in prange(1, nx - 1):
        for j in range(1, ny - 1):
            for k in range(first[i, j], last[i, j]):
                value = rhs[i, j, k]
                if (i + j + k) & 1:
                    value += ax[i - 1, j, k] * inverse[i - 1, j, k] * rhs[i - 1, j, k]
                    value += ax[i, j, k] * inverse[i + 1, j, k] * rhs[i + 1, j, k]
                    value += ay[i, j - 1, k] * inverse[i, j - 1, k] * rhs[i, j - 1, k]
                    value += ay[i, j, k] * inverse[i, j + 1, k] * rhs[i, j + 1, k]
                    value += az[i, j, k - 1] * inverse[i, j, k - 1] * rhs[i, j, k - 1]
                    value += az[i, j, k] * inverse[i, j, k + 1] * rhs[i, j, k + 1]
                u[i, j, k] = inverse[i, j, k] * value


@njit(cache=True, parallel=True)
def residual_coarse(u, ax, ay, az, first, last, out):
    nx, ny, _ = u.shape
    for i in prange(1, nx - 1):
        for j in range(1, ny - 1):
            for k in range(first[i, j], last[i, j]):
                value = _linked(u, ax, ay, az, i, j, k)
                out[i, j, k] = np.float32(0) if (i + j + k) & 1 else value


@njit(cache=True, parallel=True)
def sweep_coarse(u, rhs, ax, ay, az, inverse, first, last, colour):
    nx, ny, _ = u.shape
    for i in prange(1, nx - 1):
        for j in range(1, ny - 1):
            start = first[i, j]
            start += (i + j + start + colour) & 1
            for k in range(start, last[i, j], 2):
                value = rhs[i, j, k] + _linked(u, ax, ay, az, i, j, k)
                u[i, j, k] = inverse[i, j, k] * value


# --- between levels -------------------------------------------------------------------------


@njit(cache=True, inline='always')
def _span(index, factor, size):
    # The fine voxels to which a coarse one contributes: 2i-2 .. 2i+1, or itself.
    if factor == 1:
        return index, index + 1
    return 2 * index - 2, min(2 * index + 2, size)


@njit(cache=True, inline='always')
def _share(index, coarse, factor):
    # Linear interpolation between cell centres: 3/4 of the own coarse cell, 1/4 of the next.
    if factor == 1:
        return np.float32(1)
    return np.float32(0.75) if (index + 1) // 2 == coarse else np.float32(0.25)


@njit(cache=True, parallel=True)
def restrict(fine, factors, first, last, out):
    # The adjoint of `prolong`.
    nx, ny, _ = out.shape
    fx, fy, fz = factors
    for i in prange(1, nx - 1):
        p0, p1 = _span(np.int64(i), fx, fine.shape[0])
        for j in range(1, ny - 1):
            q0, q1 = _span(j, fy, fine.shape[1])
            for k in range(first[i, j], last[i, j]):
                r0, r1 = _span(k, fz, fine.shape[2])
                total = np.float32(0)
                for p in range(p0, p1):
                    for q in range(q0, q1):
                        row = np.float32(0)
                        for r in range(r0, r1):
                            row += _share(r, k, fz) * fine[p, q, r]
                        total += _share(p, np.int64(i), fx) * _share(q, j, fy) * row
                out[i, j, k] = total


@njit(cache=True, inline='always')
def _parents(index, factor):
    # The own coarse cell, the nearest other one, and the share of the own.
    if factor == 1:
        return index, index, np.float32(1)
    own = (index + 1) // 2
    return own, own - 1 if index & 1 else own + 1, np.float32(0.75)


@njit(cache=True, parallel=True)
def prolong(coarse, factors, region, first, last, fine):
    # Adds the interpolated correction; coarse cells outside the region stand for the boundary.
    nx, ny, _ = fine.shape
    fx, fy, fz = factors
    for i in prange(1, nx - 1):
        p, p1, wp = _parents(np.int64(i), fx)
        for j in range(1, ny - 1):
            q, q1, wq = _parents(j, fy)
            a, b = wp * wq, (1 - wp) * wq
            c, d = wp * (1 - wq), (1 - wp) * (1 - wq)
            for k in range(first[i, j], last[i, j]):
                if region[i, j, k]:
                    r, r1, wr = _parents(k, fz)
                    own = a * coarse[p, q, r] + b * coarse[p1, q, r]
                    own += c * coarse[p, q1, r] + d * coarse[p1, q1, r]
                    other = a * coarse[p, q, r1] + b * coarse[p1, q, r1]
                    other += c * coarse[p, q1, r1] + d * coarse[p1, q1, r1]
                    fine[i, j, k] += wr * own + (1 - wr) * other
