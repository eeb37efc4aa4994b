"""Compiled loops of the multigrid solver.

All volumes carry one voxel of frame on every side, which stays zero. The rows ``first[i, j] <= k
< last[i, j]`` hold all unknowns; voxels outside the region stay zero. Red voxels are those whose
indices sum to an even number.
"""

import numpy as np

from qsmflow.algorithms._jit import njit, prange

_TWO = np.float32(2)


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


# --- links ----------------------------------------------------------------------------------
#
# Links join a voxel to the next one along each axis; the screen holds the links to the boundary.


@njit(cache=True, parallel=True)
def first_links(
    region, cx, cy, cz, factors, link_scales, screen_scale, new_x, new_y, new_z, new_screen
):
    # As `coarse_links`, from the links of a region of ones and zeros, which are not stored.
    nx, ny, nz = new_screen.shape
    fx, fy, fz = factors
    tx, ty, tz = link_scales[0] * cx, link_scales[1] * cy, link_scales[2] * cz
    size = region.shape[2]
    for i in prange(1, nx - 1):
        values = np.zeros(max(size, 2 * nz), np.float32)
        inner = values[1 : size - 1]
        for p in range(fx * (i - 1) + 1, min(fx * i + 1, region.shape[0] - 1)):
            for j in range(1, ny - 1):
                for q in range(fy * (j - 1) + 1, min(fy * j + 1, region.shape[1] - 1)):
                    rows = _around(region, p, q, 1, size - 1)
                    here = region[p, q, 1 : size - 1]
                    _lost_row(*rows, cx, cy, cz, inner)
                    _coarsen_row(values, fz, screen_scale, new_screen[i, j, 1 : nz - 1])
                    if p == fx * i:
                        _both_row(here, rows[2], inner)
                        _coarsen_row(values, fz, tx, new_x[i, j, 1 : nz - 1])
                    if q == fy * j:
                        _both_row(here, rows[4], inner)
                        _coarsen_row(values, fz, ty, new_y[i, j, 1 : nz - 1])
                    _both_row(here, region[p, q, 2:size], inner)
                    _last_row(values, fz, tz, new_z[i, j, 1 : nz - 1])


@njit(cache=True)
def _lost_row(here, before, after, left, right, cx, cy, cz, out):
    for k in range(out.size):
        value = cx * (_TWO - before[k] - after[k]) + cy * (_TWO - left[k] - right[k])
        value += cz * (_TWO - here[k] - here[k + 2])
        out[k] = value * here[k + 1]


@njit(cache=True)
def _both_row(here, other, out):
    for k in range(out.size):
        out[k] = here[k] * other[k]


@njit(cache=True)
def _coarsen_row(values, factor, scale, out):
    if factor == 1:
        for k in range(out.size):
            out[k] += scale * values[k + 1]
    else:
        for k in range(out.size):
            out[k] += scale * (values[2 * k + 1] + values[2 * k + 2])


@njit(cache=True)
def _last_row(values, factor, scale, out):
    # The links from the last fine voxel of each coarse one.
    for k in range(out.size):
        out[k] += scale * values[factor * (k + 1)]


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
def divide(volume, divisor):
    nx, ny, nz = volume.shape
    for i in prange(nx):
        for j in range(ny):
            for k in range(nz):
                volume[i, j, k] /= divisor[i, j, k]


# --- rows -----------------------------------------------------------------------------------
#
# Loops over one row, with few enough one-dimensional arrays, are turned into vector instructions.
# A sweep of one colour computes both and keeps the one: skipping voxels takes longer.


@njit(cache=True)
def _alternating(size):
    # Slices of it, from 0 or 1 on, are 1 at the voxels of one colour of a row.
    chosen = np.zeros(size + 1, np.float32)
    chosen[::2] = 1
    return chosen


@njit(cache=True, inline='always')
def _around(u, i, j, start, stop):
    # A row with one voxel more at both ends, and the rows beside it.
    here = u[i, j, start - 1 : stop + 1]
    before, after = u[i - 1, j, start:stop], u[i + 1, j, start:stop]
    return here, before, after, u[i, j - 1, start:stop], u[i, j + 1, start:stop]


@njit(cache=True, inline='always')
def _links_around(ax, ay, az, i, j, start, stop):
    x, y = (ax[i - 1, j, start:stop], ax[i, j, start:stop]), ay[i, j, start:stop]
    return *x, ay[i, j - 1, start:stop], y, az[i, j, start - 1 : stop]


@njit(cache=True)
def _neighbours(here, before, after, left, right, cx, cy, cz, out):
    for k in range(before.size):
        value = cx * (before[k] + after[k])
        value += cy * (left[k] + right[k])
        out[k] = value + cz * (here[k] + here[k + 2])


@njit(cache=True)
def _linked(here, before, after, left, right, ax0, ax, ay0, ay, az, out):
    # Two loops: with more arrays in one there are no vector instructions.
    for k in range(before.size):
        value = ax0[k] * before[k] + ax[k] * after[k]
        out[k] = value + (ay0[k] * left[k] + ay[k] * right[k])
    for k in range(before.size):
        out[k] += az[k] * here[k] + az[k + 1] * here[k + 2]


@njit(cache=True)
def _less(around, here, inside, diagonal, out):
    for k in range(out.size):
        value = around[k] - diagonal * here[k]
        out[k] = value if inside[k] else np.float32(0)


@njit(cache=True)
def _start(around, rhs, inside, inverse, chosen, out):
    for k in range(out.size):
        more = inverse * around[k] if chosen[k] > 0 else np.float32(0)
        value = inverse * (rhs[k] + more)
        out[k] = value if inside[k] else np.float32(0)


@njit(cache=True)
def _keep(inside, chosen, values):
    for k in range(inside.size):
        value = values[k] if inside[k] else np.float32(0)
        values[k] = value if chosen[k] > 0 else np.float32(0)


@njit(cache=True)
def _keep_chosen(chosen, values):
    for k in range(values.size):
        values[k] = values[k] if chosen[k] > 0 else np.float32(0)


@njit(cache=True)
def _relax(around, rhs, inside, inverse, chosen, u):
    for k in range(u.size):
        value = inverse * (rhs[k] + around[k])
        value = value if inside[k] else np.float32(0)
        u[k] = value if chosen[k] > 0 else u[k]


@njit(cache=True)
def _relax_linked(around, rhs, inverse, chosen, u):
    for k in range(u.size):
        value = inverse[k] * (rhs[k] + around[k])
        u[k] = value if chosen[k] > 0 else u[k]


@njit(cache=True)
def _add_scaled(scale, row, out):
    for k in range(out.size):
        out[k] += scale * row[k]


@njit(cache=True)
def _add_inside(row, inside, out):
    for k in range(out.size):
        out[k] += row[k] if inside[k] else np.float32(0)


# --- finest level: one link strength for each axis ------------------------------------------


@njit(cache=True, parallel=True)
def laplacian(u, region, cx, cy, cz, first, last, out):
    nx, ny, nz = u.shape
    diagonal = np.float32(2) * (cx + cy + cz)
    for i in prange(1, nx - 1):
        around = np.empty(nz, np.float32)
        for j in range(1, ny - 1):
            a, b = first[i, j], last[i, j]
            if a < b:
                _neighbours(*_around(u, i, j, a, b), cx, cy, cz, around)
                _less(around, u[i, j, a:b], region[i, j, a:b], diagonal, out[i, j, a:b])


@njit(cache=True, parallel=True)
def start_finest(u, rhs, region, cx, cy, cz, first, last):
    # One red and one black sweep from zero.
    nx, ny, nz = u.shape
    inverse = np.float32(0.5) / (cx + cy + cz)
    for i in prange(1, nx - 1):
        around, colours = np.empty(nz, np.float32), _alternating(nz)
        for j in range(1, ny - 1):
            a, b = first[i, j], last[i, j]
            if a < b:
                black = colours[(i + j + a + 1) & 1 :]
                _neighbours(*_around(rhs, i, j, a, b), cx, cy, cz, around)
                inside = region[i, j, a:b]
                _start(around, rhs[i, j, a:b], inside, inverse, black, u[i, j, a:b])


@njit(cache=True, parallel=True)
def sweep_finest(u, rhs, region, cx, cy, cz, first, last, colour):
    nx, ny, nz = u.shape
    inverse = np.float32(0.5) / (cx + cy + cz)
    for i in prange(1, nx - 1):
        around, colours = np.empty(nz, np.float32), _alternating(nz)
        for j in range(1, ny - 1):
            a, b = first[i, j], last[i, j]
            if a < b:
                chosen = colours[(i + j + a + colour) & 1 :]
                _neighbours(*_around(u, i, j, a, b), cx, cy, cz, around)
                inside = region[i, j, a:b]
                _relax(around, rhs[i, j, a:b], inside, inverse, chosen, u[i, j, a:b])


@njit(cache=True, parallel=True)
def restrict_finest(u, region, cx, cy, cz, first, last, factors, rhs, inverse, coarse, slabs):
    # The residual right after `start_finest`, when black ones and the diagonal's part are zero,
    # restricted to `rhs`; `coarse` is one red sweep with it from zero.
    nx, ny, nz = u.shape
    for slab in prange(slabs):
        start, stop = _slab(np.int64(slab), slabs, rhs.shape[0] - 2)
        values, row, plane = _rooms(nz, rhs.shape)
        colours = _alternating(nz)
        rhs[start:stop] = 0
        for p in range(*_planes(start, stop, factors[0], nx)):
            plane[:] = 0
            for q in range(1, ny - 1):
                a, b = first[p, q], last[p, q]
                if a < b:
                    values[:] = 0
                    _neighbours(*_around(u, p, q, a, b), cx, cy, cz, values[a:b])
                    _keep(region[p, q, a:b], colours[(p + q + a) & 1 :], values[a:b])
                    _restrict_row(values, q, factors, row, plane)
            _restrict_plane(plane, p, factors[0], start, stop, rhs)
        coarse[start:stop] = inverse[start:stop] * rhs[start:stop]


# --- coarse levels: links of their own for each voxel ---------------------------------------


@njit(cache=True, parallel=True)
def sweep_coarse(u, rhs, ax, ay, az, inverse, first, last, colour):
    nx, ny, nz = u.shape
    for i in prange(1, nx - 1):
        around, colours = np.empty(nz, np.float32), _alternating(nz)
        for j in range(1, ny - 1):
            a, b = first[i, j], last[i, j]
            if a < b:
                chosen = colours[(i + j + a + colour) & 1 :]
                links = _links_around(ax, ay, az, i, j, a, b)
                _linked(*_around(u, i, j, a, b), *links, around)
                here = inverse[i, j, a:b]
                _relax_linked(around, rhs[i, j, a:b], here, chosen, u[i, j, a:b])


@njit(cache=True, parallel=True)
def restrict_coarse(u, ax, ay, az, first, last, factors, rhs, inverse, coarse, slabs):
    # As `restrict_finest`, from one coarse level to the next.
    nx, ny, nz = u.shape
    for slab in prange(slabs):
        start, stop = _slab(np.int64(slab), slabs, rhs.shape[0] - 2)
        values, row, plane = _rooms(nz, rhs.shape)
        colours = _alternating(nz)
        rhs[start:stop] = 0
        for p in range(*_planes(start, stop, factors[0], nx)):
            plane[:] = 0
            for q in range(1, ny - 1):
                a, b = first[p, q], last[p, q]
                if a < b:
                    values[:] = 0
                    links = _links_around(ax, ay, az, p, q, a, b)
                    _linked(*_around(u, p, q, a, b), *links, values[a:b])
                    _keep_chosen(colours[(p + q + a) & 1 :], values[a:b])
                    _restrict_row(values, q, factors, row, plane)
            _restrict_plane(plane, p, factors[0], start, stop, rhs)
        coarse[start:stop] = inverse[start:stop] * rhs[start:stop]


# --- between levels -------------------------------------------------------------------------


@njit(cache=True, inline='always')
def _parents(index, factor):
    # The own coarse cell, the nearest other one, and the share of the own: linear interpolation
    # between cell centres.
    if factor == 1:
        return index, index, np.float32(1)
    own = (index + 1) // 2
    return own, own - 1 if index & 1 else own + 1, np.float32(0.75)


@njit(cache=True, inline='always')
def _slab(number, count, planes):
    # Every plane of a result is summed in the same order, whatever slab it is in.
    return 1 + planes * number // count, 1 + planes * (number + 1) // count


@njit(cache=True, inline='always')
def _planes(start, stop, factor, size):
    # The fine planes that contribute to coarse ones.
    if factor == 1:
        return start, stop
    return max(1, 2 * start - 2), min(2 * stop, size - 1)


@njit(cache=True)
def _rooms(size, shape):
    # Room for a fine row, with zeros for the last coarse voxel; for a coarse row; for a plane.
    values = np.zeros(max(size, 2 * shape[2]), np.float32)
    return values, np.empty(shape[2] - 2, np.float32), np.empty(shape[1:], np.float32)


@njit(cache=True)
def _halve(values, out):
    own, other = np.float32(0.75), np.float32(0.25)
    for k in range(out.size):
        value = own * (values[2 * k + 1] + values[2 * k + 2])
        out[k] = value + other * (values[2 * k] + values[2 * k + 3])


@njit(cache=True)
def _restrict_row(values, q, factors, row, plane):
    # Restriction is the adjoint of `prolong`; the frame of `plane` takes what is not used.
    if factors[2] == 1:
        row[:] = values[1 : row.size + 1]
    else:
        _halve(values, row)
    own, other, share = _parents(q, factors[1])
    _add_scaled(share, row, plane[own, 1:-1])
    if other != own:
        _add_scaled(np.float32(1) - share, row, plane[other, 1:-1])


@njit(cache=True)
def _restrict_plane(plane, p, factor, start, stop, out):
    own, other, share = _parents(p, factor)
    for i, scale in ((own, share), (other, np.float32(1) - share)):
        if start <= i < stop and scale > 0:
            for j in range(1, plane.shape[0] - 1):
                _add_scaled(scale, plane[j, 1:-1], out[i, j, 1:-1])


@njit(cache=True)
def _mix(a, b, c, d, near, beside, across, corner, out):
    for k in range(out.size):
        out[k] = (a * near[k] + b * beside[k]) + (c * across[k] + d * corner[k])


@njit(cache=True)
def _stretch(row, out):
    own, other = np.float32(0.75), np.float32(0.25)
    for k in range(row.size - 2):
        here = own * row[k + 1]
        out[2 * k + 1] = here + other * row[k]
        out[2 * k + 2] = here + other * row[k + 2]


@njit(cache=True, parallel=True)
def prolong(coarse, factors, region, first, last, fine):
    # Adds the interpolated correction; coarse cells outside the region stand for the boundary.
    nx, ny, _ = fine.shape
    fx, fy, fz = factors
    size = coarse.shape[2]
    for i in prange(1, nx - 1):
        p, p1, wp = _parents(np.int64(i), fx)
        row, values = np.empty(size, np.float32), np.empty(2 * size, np.float32)
        for j in range(1, ny - 1):
            q, q1, wq = _parents(j, fy)
            vp, vq = np.float32(1) - wp, np.float32(1) - wq
            a, b = first[i, j], last[i, j]
            if a < b:
                rows = coarse[p, q], coarse[p1, q], coarse[p, q1], coarse[p1, q1]
                _mix(wp * wq, vp * wq, wp * vq, vp * vq, *rows, row)
                if fz == 1:
                    values[:size] = row
                else:
                    _stretch(row, values)
                _add_inside(values[a:b], region[i, j, a:b], fine[i, j, a:b])
