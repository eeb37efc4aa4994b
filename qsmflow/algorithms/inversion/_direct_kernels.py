"""Compiled loops of the direct inversions, on half spectra."""

import numpy as np

from qsmflow.algorithms._jit import njit, prange


@njit(cache=True)
def _multiply_row(spectrum, kernel, inverse, last_counts_once):
    # Returns the sum of the kernel times the multiplier over all frequencies: all but the first
    # and, of an even axis, the last one stand for two.
    row, share = np.float32(0), np.float32(0)
    for k in range(kernel.size):
        spectrum[k] *= inverse[k]
        share = kernel[k] * inverse[k]
        row += share
    once = np.float64(kernel[0] * inverse[0])
    if last_counts_once:
        once += share
    return 2.0 * row - once


@njit(cache=True, parallel=True)
def divide_truncated(spectrum, kernel, threshold, below, last_counts_once):
    # Multiplies the spectrum by 1 / D where |D| exceeds the threshold, else by the sign of D
    # times `below`. Returns the sum over all frequencies of D times that multiplier.
    nx, ny, nz = spectrum.shape
    sums = np.zeros((nx, 1))
    for i in prange(nx):
        inverse = np.empty(nz, np.float32)
        for j in range(ny):
            for k in range(nz):
                d = kernel[i, j, k]
                size = np.float32(1) / abs(d) if abs(d) > threshold else below
                inverse[k] = size if d >= 0 else -size
            sums[i, 0] += _multiply_row(spectrum[i, j], kernel[i, j], inverse, last_counts_once)
    # By plane, and with an axis: other sums depend on the threads.
    return sums.sum(axis=0)[0]


@njit(cache=True, parallel=True)
def divide_regularised(spectrum, kernel, ex, ey, ez, level, slope, last_counts_once):
    # Multiplies the spectrum by D / (D^2 + level + slope * E), with the eigenvalues E, zero where
    # neither data nor penalty say anything. Returns the sum over all frequencies of D times that
    # multiplier.
    nx, ny, nz = spectrum.shape
    sums = np.zeros((nx, 1))
    for i in prange(nx):
        inverse = np.empty(nz, np.float32)
        for j in range(ny):
            for k in range(nz):
                d = kernel[i, j, k]
                total = d * d + level + slope * (ex[i] + ey[j] + ez[k])
                inverse[k] = d / total if total > 0 else np.float32(0)
            sums[i, 0] += _multiply_row(spectrum[i, j], kernel[i, j], inverse, last_counts_once)
    return sums.sum(axis=0)[0]
