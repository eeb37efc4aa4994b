"""Compiled loops of masks and thresholds.

Masks are uint8, 0 or 1, C-contiguous and of one shape (X, Y, Z); what lies beyond is background.
"""

import math

import numpy as np

from qsmflow.algorithms._jit import njit, prange


@njit(cache=True, parallel=True)
def root_mean_square(echoes, out):
    # Values that are not finite count as zero.
    nx, ny, nz, n_echoes = echoes.shape
    for i in prange(nx):
        for j in range(ny):
            for k in range(nz):
                total = np.float32(0)
                for n in range(n_echoes):
                    value = echoes[i, j, k, n]
                    if math.isfinite(value):
                        total += value * value
                out[i, j, k] = math.sqrt(total / np.float32(n_echoes))


@njit(cache=True, parallel=True)
def count_bins(values, edges, counts):
    # Like np.histogram, each of `counts`, shape (N, bins), those of a row of (N, M) values.
    n, bins = counts.shape
    first, per_bin = edges[0], bins / (edges[-1] - edges[0])
    for row in prange(n):
        for k in range(values.shape[1]):
            value = np.float64(values[row, k])
            if not math.isfinite(value):
                continue
            bin_ = min(int((value - first) * per_bin), bins - 1)
            # The bin may be wrong by rounding.
            if value < edges[bin_]:
                bin_ -= 1
            elif bin_ < bins - 1 and value >= edges[bin_ + 1]:
                bin_ += 1
            counts[row, bin_] += 1


@njit(cache=True, parallel=True)
def erode_faces(mask, out):
    nx, ny, _ = mask.shape
    for i in prange(nx):
        for j in range(ny):
            if 0 < i < nx - 1 and 0 < j < ny - 1:
                sides = mask[i - 1, j], mask[i + 1, j], mask[i, j - 1], mask[i, j + 1]
                _all_of(mask[i, j], sides[0], sides[1], sides[2], sides[3], out[i, j])
            else:
                out[i, j] = 0


@njit(cache=True)
def _all_of(here, a, b, c, d, out):
    end = here.size - 1
    for k in range(1, end):
        out[k] = here[k - 1] & here[k] & here[k + 1] & a[k] & b[k] & c[k] & d[k]
    out[0] = out[end] = 0


@njit(cache=True, parallel=True)
def dilate_faces(mask, out):
    nx, ny, _ = mask.shape
    for i in prange(nx):
        for j in range(ny):
            # A voxel at the edge stands for its neighbour beyond.
            x0, x1 = mask[max(i - 1, 0), j], mask[min(i + 1, nx - 1), j]
            y0, y1 = mask[i, max(j - 1, 0)], mask[i, min(j + 1, ny - 1)]
            _any_of(x0, x1, y0, y1, mask[i, j], out[i, j])
            _any_along(mask[i, j], out[i, j])


@njit(cache=True)
def _any_of(a, b, c, d, e, out):
    for k in range(out.size):
        out[k] = a[k] | b[k] | c[k] | d[k] | e[k]


@njit(cache=True)
def _any_along(row, out):
    end = row.size - 1
    for k in range(end):
        out[k] |= row[k + 1]
    for k in range(1, end + 1):
        out[k] |= row[k - 1]


@njit(cache=True, parallel=True)
def dilate_all_within(mask, within, out):
    # By all 26 neighbours, then what of it is in another mask.
    nx, ny, nz = mask.shape
    for i in prange(nx):
        row = np.empty(nz, np.uint8)
        for j in range(ny):
            row[:] = 0
            for x in range(max(i - 1, 0), min(i + 2, nx)):
                y0, y1 = max(j - 1, 0), min(j + 1, ny - 1)
                _add_any(mask[x, y0], mask[x, j], mask[x, y1], row)
            _any_along_within(row, within[i, j], out[i, j])


@njit(cache=True)
def _add_any(a, b, c, out):
    for k in range(out.size):
        out[k] |= a[k] | b[k] | c[k]


@njit(cache=True)
def _any_along_within(row, within, out):
    end = row.size - 1
    for k in range(1, end):
        out[k] = (row[k - 1] | row[k] | row[k + 1]) & within[k]
    for k in (0, end):
        out[k] = (row[max(k - 1, 0)] | row[k] | row[min(k + 1, end)]) & within[k]
