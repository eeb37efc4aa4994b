"""Compiled loops of the conjugate gradients that keep the unknown as a half spectrum.

Volumes are float32, spectra complex64 half spectra, all C-contiguous. Inner products of half
spectra count every frequency of the full spectrum, so that divided by the number of voxels they
are those of the volumes.
"""

import math

import numpy as np

from qsmflow.algorithms._jit import njit, prange

_TURN = np.float32(2 * math.pi)
_PER_TURN = np.float32(1 / (2 * math.pi))
_HALF_TURN = np.float32(math.pi)
_SINE = tuple(np.float32((-1) ** n / math.factorial(2 * n + 1)) for n in range(6))


@njit(cache=True, inline='always')
def _sine(x):
    # The library's sine takes longer than a Fourier transform, as it works on one number at a
    # time. Folded to pi / 2, the series is good to single precision.
    x -= np.rint(x * _PER_TURN) * _TURN
    x = max(min(x, _HALF_TURN - x), -_HALF_TURN - x)
    x2 = x * x
    series = _SINE[4] + x2 * _SINE[5]
    series = _SINE[2] + x2 * (_SINE[3] + x2 * series)
    return x * (_SINE[0] + x2 * (_SINE[1] + x2 * series))


@njit(cache=True, inline='always')
def _misfit(model, field, weight2, scale):
    # The gradient of W^2 (1 - cos(scale (model - field))) / scale^2; of its limit for scale 0.
    difference = model - field
    if scale > 0:
        difference = _sine(scale * difference) / scale
    return weight2 * difference


@njit(cache=True, parallel=True)
def data_gradient(model, field, weight2, scale, out):
    nx, ny, nz = model.shape
    for i in prange(nx):
        for j in range(ny):
            for k in range(nz):
                out[i, j, k] = _misfit(model[i, j, k], field[i, j, k], weight2[i, j, k], scale)


@njit(cache=True, parallel=True)
def advance_model(model, image, step, field, weight2, scale):
    # On return `image`, the model field of the direction, holds the gradient of the data term.
    nx, ny, nz = model.shape
    for i in prange(nx):
        for j in range(ny):
            for k in range(nz):
                new = model[i, j, k] + step * image[i, j, k]
                model[i, j, k] = new
                image[i, j, k] = _misfit(new, field[i, j, k], weight2[i, j, k], scale)


@njit(cache=True, parallel=True)
def weighted_square(weight2, image):
    nx, ny, nz = image.shape
    total = 0.0
    for i in prange(nx):
        for j in range(ny):
            for k in range(nz):
                total += weight2[i, j, k] * image[i, j, k] * image[i, j, k]
    return total


@njit(cache=True, parallel=True)
def add_spectrum(data, kernel, other):
    nx, ny, nz = data.shape
    for i in prange(nx):
        for j in range(ny):
            for k in range(nz):
                data[i, j, k] = kernel[i, j, k] * data[i, j, k] + other[i, j, k]


@njit(cache=True, parallel=True)
def add_penalty(data, kernel, penalty, unknown):
    nx, ny, nz = data.shape
    for i in prange(nx):
        for j in range(ny):
            for k in range(nz):
                data[i, j, k] = (
                    kernel[i, j, k] * data[i, j, k] + penalty[i, j, k] * unknown[i, j, k]
                )


@njit(cache=True, inline='always')
def _real_product(a, b):
    return a.real * b.real + a.imag * b.imag


@njit(cache=True, parallel=True)
def inner_products(gradient, previous, inverse, last_counts_once):
    nx, ny, nz = gradient.shape
    square = 0.0
    cross = 0.0
    for i in prange(nx):
        for j in range(ny):
            for k in range(nz):
                count = 1.0 if k == 0 or (last_counts_once and k == nz - 1) else 2.0
                here = gradient[i, j, k]
                scaled = count * inverse[i, j, k]
                square += scaled * _real_product(here, here)
                cross += scaled * _real_product(here, previous[i, j, k])
    return square, cross


@njit(cache=True, parallel=True)
def turn(direction, beta, gradient, inverse, kernel, image, last_counts_once):
    # `image` receives the spectrum of the new direction's field. Returns the slope along it.
    nx, ny, nz = gradient.shape
    slope = 0.0
    for i in prange(nx):
        for j in range(ny):
            for k in range(nz):
                count = 1.0 if k == 0 or (last_counts_once and k == nz - 1) else 2.0
                here = gradient[i, j, k]
                new = beta * direction[i, j, k] - inverse[i, j, k] * here
                direction[i, j, k] = new
                image[i, j, k] = kernel[i, j, k] * new
                slope += count * _real_product(here, new)
    return slope


@njit(cache=True, parallel=True)
def advance_spectrum(unknown, direction, step):
    nx, ny, nz = unknown.shape
    change = 0.0
    energy = 1e-30
    for i in prange(nx):
        for j in range(ny):
            for k in range(nz):
                move = step * direction[i, j, k]
                new = unknown[i, j, k] + move
                unknown[i, j, k] = new
                change += _real_product(move, move)
                energy += _real_product(new, new)
    return change / energy


@njit(cache=True, parallel=True)
def penalty_square(direction, penalty, last_counts_once):
    nx, ny, nz = direction.shape
    total = 0.0
    for i in prange(nx):
        for j in range(ny):
            for k in range(nz):
                count = 1.0 if k == 0 or (last_counts_once and k == nz - 1) else 2.0
                here = direction[i, j, k]
                total += count * penalty[i, j, k] * _real_product(here, here)
    return total
