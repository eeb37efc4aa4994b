"""Compiled loops over volumes for `ilsqr`, in the manner of `qsmflow.algorithms._kernels`."""

import numpy as np

from qsmflow.algorithms._jit import njit, prange


@njit(cache=True, parallel=True)
def bend(x, inside, sx, sy, sz, out):
    # Absolute Laplacian; neighbours outside the mask, where the field is unknown, are left out.
    nx, ny, nz = x.shape
    for i in prange(nx):
        i0 = i - 1 if i > 0 else nx - 1
        i1 = i + 1 if i + 1 < nx else 0
        for j in range(ny):
            j0 = j - 1 if j > 0 else ny - 1
            j1 = j + 1 if j + 1 < ny else 0
            for k in range(nz):
                out[i, j, k] = 0
                if not inside[i, j, k]:
                    continue
                k0 = k - 1 if k > 0 else nz - 1
                k1 = k + 1 if k + 1 < nz else 0
                here = x[i, j, k]
                total = (x[i0, j, k] - here) * sx if inside[i0, j, k] else 0 * here
                total += (x[i1, j, k] - here) * sx if inside[i1, j, k] else 0 * here
                total += (x[i, j0, k] - here) * sy if inside[i, j0, k] else 0 * here
                total += (x[i, j1, k] - here) * sy if inside[i, j1, k] else 0 * here
                total += (x[i, j, k0] - here) * sz if inside[i, j, k0] else 0 * here
                total += (x[i, j, k1] - here) * sz if inside[i, j, k1] else 0 * here
                out[i, j, k] = abs(total)


@njit(cache=True, parallel=True)
def weighted_laplacian(x, weights, sx, sy, sz, out):
    # Minus the divergence of the weighted gradient; the steps are squared inverse edges.
    nx, ny, _ = x.shape
    for i in prange(nx):
        i0 = i - 1 if i > 0 else nx - 1
        i1 = i + 1 if i + 1 < nx else 0
        for j in range(ny):
            j0 = j - 1 if j > 0 else ny - 1
            j1 = j + 1 if j + 1 < ny else 0
            here, row = x[i, j], out[i, j]
            _across_row(here, x[i0, j], x[i1, j], weights[0, i0, j], weights[0, i, j], sx, row)
            _add_across_row(here, x[i, j0], x[i, j1], weights[1, i, j0], weights[1, i, j], sy, row)
            _add_along_row(here, weights[2, i, j], sz, row)


@njit(cache=True)
def _across_row(here, before, after, weight0, weight, scale, out):
    for k in range(out.size):
        value = weight0[k] * (here[k] - before[k]) - weight[k] * (after[k] - here[k])
        out[k] = scale * value


@njit(cache=True)
def _add_across_row(here, before, after, weight0, weight, scale, out):
    for k in range(out.size):
        value = weight0[k] * (here[k] - before[k]) - weight[k] * (after[k] - here[k])
        out[k] += scale * value


@njit(cache=True)
def _add_along_row(here, weight, scale, out):
    # The ends are apart: an index that wraps around leaves no vector instructions.
    last = out.size - 1
    if last == 0:
        return
    wrap = weight[last] * (here[0] - here[last])
    out[0] += scale * (wrap - weight[0] * (here[1] - here[0]))
    for k in range(1, last):
        value = weight[k - 1] * (here[k] - here[k - 1]) - weight[k] * (here[k + 1] - here[k])
        out[k] += scale * value
    out[last] += scale * (weight[last - 1] * (here[last] - here[last - 1]) - wrap)


@njit(cache=True, parallel=True)
def falling(values, high, span):
    # In place: 1 at `span` below `high` and lower, 0 at `high` and above, a line between.
    nx, ny, nz = values.shape
    for i in prange(nx):
        for j in range(ny):
            for k in range(nz):
                share = (high - values[i, j, k]) / span
                values[i, j, k] = min(max(share, np.float32(0)), np.float32(1))
