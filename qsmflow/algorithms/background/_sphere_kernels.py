"""Compiled loops of the methods with spherical mean values.

Half spectra are complex64. Their loops go over rows of real and imaginary parts in turn: complex
numbers have no vector instructions.
"""

import numpy as np

from qsmflow.algorithms._jit import njit, prange
from qsmflow.algorithms._kernels import filtered_row


@njit(cache=True, inline='always')
def _fold(index, size):
    # Filters are even along each axis: negative frequencies read the positive ones.
    index = np.int64(index)
    return min(index, size - index)


def _parts(*spectra):
    return tuple(spectrum.view(np.float32) for spectrum in spectra)


def multiply(spectrum, octant, out):
    """Write the product of a spectrum with a filter to ``out``."""
    _multiply(*_parts(spectrum, out), octant)


@njit(cache=True, parallel=True)
def _multiply(spectrum, out, octant):
    nx, ny, _ = spectrum.shape
    for i in prange(nx):
        p = _fold(i, nx)
        for j in range(ny):
            filtered_row(spectrum[i, j], octant[p, _fold(j, ny)], out[i, j])


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


def multiply_columns(spectrum, octant, columns, out):
    """Write the product of a spectrum, a filter and a factor of each column to ``out``."""
    _multiply_columns(*_parts(spectrum, out), octant, columns)


@njit(cache=True, parallel=True)
def _multiply_columns(spectrum, out, octant, columns):
    nx, ny, _ = spectrum.shape
    for i in prange(nx):
        p = _fold(i, nx)
        for j in range(ny):
            row = octant[p, _fold(j, ny)]
            _multiply_columns_row(spectrum[i, j], row, columns, out[i, j])


@njit(cache=True)
def _multiply_columns_row(values, multiplier, columns, out):
    for k in range(multiplier.size):
        factor = multiplier[k] * columns[k]
        out[2 * k] = factor * values[2 * k]
        out[2 * k + 1] = factor * values[2 * k + 1]


def add_filtered(spectrum, octant, columns, factor, other, out):
    """Write what ``multiply_columns`` does plus ``factor * other`` to ``out``."""
    _add_filtered(*_parts(spectrum, other, out), octant, columns, factor)


@njit(cache=True, parallel=True)
def _add_filtered(spectrum, other, out, octant, columns, factor):
    nx, ny, _ = spectrum.shape
    for i in prange(nx):
        p = _fold(i, nx)
        for j in range(ny):
            row = octant[p, _fold(j, ny)]
            _add_filtered_row(spectrum[i, j], row, columns, factor, other[i, j], out[i, j])


@njit(cache=True)
def _add_filtered_row(values, multiplier, columns, factor, other, out):
    for k in range(multiplier.size):
        scale = multiplier[k] * columns[k]
        out[2 * k] = scale * values[2 * k] + factor * other[2 * k]
        out[2 * k + 1] = scale * values[2 * k + 1] + factor * other[2 * k + 1]


@njit(cache=True, parallel=True)
def subtract_where(volume, mean, inside, out):
    nx, ny, nz = volume.shape
    for i in prange(nx):
        for j in range(ny):
            for k in range(nz):
                value = volume[i, j, k] - mean[i, j, k]
                out[i, j, k] = value if inside[i, j, k] else np.float32(0)
