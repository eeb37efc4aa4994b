"""Compiled loops of the direct inversions, on half spectra."""

import numpy as np

from qsmflow.algorithms._jit import njit, prange


@njit(cache=True, inline='always')
def _inverse(d, threshold, below):
    size = abs(d)
    inverse = np.float32(1) / size if size > threshold else below
    return inverse if d >= 0 else -inverse


@njit(cache=True, parallel=True)
def divide_truncated(spectrum, kernel, threshold, below, last_counts_once):
    # Multiplies the spectrum by 1 / D where |D| exceeds the threshold, else by the sign of D
    # times `below`. Returns the sum over all frequencies of D times that multiplier.
    nx, ny, nz = spectrum.shape
    sums = np.zeros((nx, 1))
    for i in prange(nx):
        for j in range(ny):
            row, share = np.float32(0), np.float32(0)
            for k in range(nz):
                d = kernel[i, j, k]
                inverse = _inverse(d, threshold, below)
                spectrum[i, j, k] *= inverse
                share = d * inverse
                row += share
                # All but the first and, of an even axis, the last frequency stand for two.
                if k == 0:
                    sums[i, 0] -= share
            if last_counts_once:
                sums[i, 0] -= share
            sums[i, 0] += 2.0 * row
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
        for j in range(ny):
            row, share = np.float32(0), np.float32(0)
            for k in range(nz):
                d = kernel[i, j, k]
                total = d * d + level + slope * (ex[i] + ey[j] + ez[k])
                inverse = d / total if total > 0 else np.float32(0)
                spectrum[i, j, k] *= inverse
                share = d * inverse
                row += share
                if k == 0:
                    sums[i, 0] -= share
            if last_counts_once:
                sums[i, 0] -= share
            sums[i, 0] += 2.0 * row
    return sums.sum(axis=0)[0]
