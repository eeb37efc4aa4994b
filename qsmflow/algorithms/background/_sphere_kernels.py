"""Compiled loops of the methods with spherical mean values."""

import numpy as np

from qsmflow.algorithms._jit import njit, prange


@njit(cache=True, inline='always')
def _fold(index, size):
    # Filters are even along each axis: negative frequencies read the positive ones.
    index = np.int64(index)
    return min(index, size - index)


@njit(cache=True, parallel=True)
def multiply(spectrum, octant, out):
    nx, ny, nz = spectrum.shape
    for i in prange(nx):
        p = _fold(i, nx)
        for j in range(ny):
            q = _fold(j, ny)
            for k in range(nz):
                out[i, j, k] = octant[p, q, k] * spectrum[i, j, k]


@njit(cache=True, parallel=True)
def high_pass_direct(field, mask, offsets, weights, sliver, done, high_pass):
    # Spheres that fit, among the voxels not done yet; sums in a fixed order in float64.
    nx, ny, nz = field.shape
    for i in prange(nx):
        for j in range(ny):
            for k in range(nz):
                if done[i, j, k] or not mask[i, j, k]:
                    continue
                missing, mean = 0.0, 0.0
                for n in range(len(weights)):
                    p, q, r = i + offsets[n, 0], j + offsets[n, 1], k + offsets[n, 2]
                    inside = 0 <= p < nx and 0 <= q < ny and 0 <= r < nz
                    if inside and mask[p, q, r]:
                        mean += weights[n] * field[p, q, r]
                    else:
                        missing += weights[n]
                        if missing >= sliver:
                            break
                if missing < sliver:
                    high_pass[i, j, k] = field[i, j, k] - mean
                    done[i, j, k] = True


@njit(cache=True, parallel=True)
def high_pass_where(field, mean, fits, done, high_pass):
    nx, ny, nz = field.shape
    for i in prange(nx):
        for j in range(ny):
            for k in range(nz):
                if fits[i, j, k] and not done[i, j, k]:
                    high_pass[i, j, k] = field[i, j, k] - mean[i, j, k]
                    done[i, j, k] = True


@njit(cache=True, parallel=True)
def multiply_columns(spectrum, octant, columns, out):
    nx, ny, nz = spectrum.shape
    for i in prange(nx):
        p = _fold(i, nx)
        for j in range(ny):
            q = _fold(j, ny)
            for k in range(nz):
                out[i, j, k] = octant[p, q, k] * columns[k] * spectrum[i, j, k]


@njit(cache=True, parallel=True)
def add_filtered(spectrum, octant, columns, factor, other, out):
    nx, ny, nz = spectrum.shape
    for i in prange(nx):
        p = _fold(i, nx)
        for j in range(ny):
            q = _fold(j, ny)
            for k in range(nz):
                value = octant[p, q, k] * columns[k] * spectrum[i, j, k]
                out[i, j, k] = value + factor * other[i, j, k]


@njit(cache=True, parallel=True)
def subtract_where(volume, mean, inside, out):
    nx, ny, nz = volume.shape
    for i in prange(nx):
        for j in range(ny):
            for k in range(nz):
                if inside[i, j, k]:
                    out[i, j, k] = volume[i, j, k] - mean[i, j, k]
