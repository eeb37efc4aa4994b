"""Compiled loops of the conjugate gradients that keep the unknown as a half spectrum.

Volumes are float32, spectra complex64 half spectra, all C-contiguous. Inner products of half
spectra count every frequency of the full spectrum, so that divided by the number of voxels they
are those of the volumes. Sums go over planes first, so that they do not depend on the threads, and
over the planes with an axis named, as numba would share a plain sum among the threads.

Complex numbers, and sums over volumes, have no vector instructions: loops go over rows of real and
imaginary parts in turn, and only within these rows sums are reordered.
"""

import math

import numpy as np

from qsmflow.algorithms._jit import njit, prange
from qsmflow.algorithms._kernels import filter_row

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
    nx, ny, _ = image.shape
    sums = np.zeros((nx, 1))
    for i in prange(nx):
        for j in range(ny):
            sums[i, 0] += _weighted_square_row(weight2[i, j], image[i, j])
    return sums.sum(axis=0)[0]


@njit(cache=True, fastmath={'reassoc'})
def _weighted_square_row(weight2, image):
    total = 0.0
    for k in range(image.size):
        total += np.float64(weight2[k] * image[k] * image[k])
    return total


@njit(cache=True, parallel=True)
def invert(kernel, weight, penalty, inverse):
    nx, ny, nz = kernel.shape
    for i in prange(nx):
        for j in range(ny):
            for k in range(nz):
                total = weight * (kernel[i, j, k] * kernel[i, j, k]) + penalty[i, j, k]
                inverse[i, j, k] = np.float32(1) / total if total > 0 else np.float32(0)


# --- half spectra ---------------------------------------------------------------------------


def _parts(*spectra):
    return tuple(spectrum.view(np.float32) for spectrum in spectra)


def add_spectrum(data, kernel, other):
    """Replace the spectrum ``data`` by ``kernel * data + other``."""
    _add_spectrum(*_parts(data, other), kernel)


@njit(cache=True, parallel=True)
def _add_spectrum(data, other, kernel):
    nx, ny, _ = kernel.shape
    for i in prange(nx):
        for j in range(ny):
            _add_spectrum_row(data[i, j], other[i, j], kernel[i, j])


@njit(cache=True)
def _add_spectrum_row(data, other, kernel):
    for k in range(kernel.size):
        data[2 * k] = kernel[k] * data[2 * k] + other[2 * k]
        data[2 * k + 1] = kernel[k] * data[2 * k + 1] + other[2 * k + 1]


@njit(cache=True, inline='always')
def _full(total, first, last, last_counts_once):
    # Of a row of a half spectrum, the sum over the full one.
    return 2 * total - first - (last if last_counts_once else 0.0)


def gradient_products(gradient, kernel, penalty, unknown, previous, inverse, last_counts_once):
    """Make the gradient by the unknown of that by its field, with its inner products.

    Parameters
    ----------
    gradient : ndarray of complex64
        Changes to ``kernel * gradient + penalty * unknown``.
    kernel : ndarray of float32
        What makes a field of the unknown.
    penalty : ndarray of float32 or None
        Multiplier of the penalty.
    unknown, previous : ndarray of complex64
        The unknown, and the gradient before.
    inverse : ndarray of float32
        Preconditioner.
    last_counts_once : bool
        Whether the last frequency has no counterpart.

    Returns
    -------
    square, cross : float
        Inner products of the new gradient with itself and with ``previous``.
    """
    parts = _parts(gradient, unknown, previous)
    is_penalised = penalty is not None
    multipliers = kernel, penalty if is_penalised else kernel, inverse
    return _gradient_products(*parts, *multipliers, is_penalised, last_counts_once)


@njit(cache=True, parallel=True)
def _gradient_products(
    gradient, unknown, previous, kernel, penalty, inverse, is_penalised, last_counts_once
):
    nx, ny, _ = kernel.shape
    sums = np.zeros((nx, 2))
    for i in prange(nx):
        for j in range(ny):
            here = gradient[i, j]
            if is_penalised:
                _penalise_row(here, unknown[i, j], kernel[i, j], penalty[i, j])
            else:
                filter_row(here, kernel[i, j])
            square, cross = _products_row(here, previous[i, j], inverse[i, j], last_counts_once)
            sums[i, 0] += square
            sums[i, 1] += cross
    total = sums.sum(axis=0)
    return total[0], total[1]


@njit(cache=True)
def _penalise_row(data, unknown, kernel, penalty):
    for k in range(kernel.size):
        data[2 * k] = kernel[k] * data[2 * k] + penalty[k] * unknown[2 * k]
        data[2 * k + 1] = kernel[k] * data[2 * k + 1] + penalty[k] * unknown[2 * k + 1]


@njit(cache=True, fastmath={'reassoc'})
def _products_row(a, b, multiplier, last_counts_once):
    square, cross = 0.0, 0.0
    for k in range(multiplier.size):
        real, imag = a[2 * k], a[2 * k + 1]
        square += np.float64(multiplier[k] * (real * real + imag * imag))
        cross += np.float64(multiplier[k] * (real * b[2 * k] + imag * b[2 * k + 1]))
    m0, m1 = multiplier[0], multiplier[-1]
    squares = m0 * (a[0] * a[0] + a[1] * a[1]), m1 * (a[-2] * a[-2] + a[-1] * a[-1])
    crosses = m0 * (a[0] * b[0] + a[1] * b[1]), m1 * (a[-2] * b[-2] + a[-1] * b[-1])
    square = _full(square, squares[0], squares[1], last_counts_once)
    return square, _full(cross, crosses[0], crosses[1], last_counts_once)


def inner_products(gradient, previous, inverse, last_counts_once):
    """Return the inner products of a gradient with itself and with the one before."""
    return _inner_products(*_parts(gradient, previous), inverse, last_counts_once)


@njit(cache=True, parallel=True)
def _inner_products(gradient, previous, inverse, last_counts_once):
    nx, ny, _ = inverse.shape
    sums = np.zeros((nx, 2))
    for i in prange(nx):
        for j in range(ny):
            rows = gradient[i, j], previous[i, j], inverse[i, j]
            square, cross = _products_row(*rows, last_counts_once)
            sums[i, 0] += square
            sums[i, 1] += cross
    total = sums.sum(axis=0)
    return total[0], total[1]


def turn(direction, beta, gradient, inverse, kernel, penalty, image, last_counts_once):
    """Turn the direction to ``beta * direction - inverse * gradient``.

    Parameters
    ----------
    direction : ndarray of complex64
        Changes.
    beta : float32
        Share of the old direction.
    gradient : ndarray of complex64
        Gradient.
    inverse, kernel : ndarray of float32
        Preconditioner, and what makes a field of the unknown.
    penalty : ndarray of float32 or None
        Multiplier of the penalty.
    image : ndarray of complex64
        Receives the spectrum of the new direction's field.
    last_counts_once : bool
        Whether the last frequency has no counterpart.

    Returns
    -------
    slope, square : float
        Slope along the new direction, and its inner product with its product with the penalty.
    """
    parts = _parts(direction, gradient, image)
    is_penalised = penalty is not None
    multipliers = inverse, kernel, penalty if is_penalised else kernel
    return _turn(*parts, beta, *multipliers, is_penalised, last_counts_once)


@njit(cache=True, parallel=True)
def _turn(
    direction, gradient, image, beta, inverse, kernel, penalty, is_penalised, last_counts_once
):
    nx, ny, _ = kernel.shape
    sums = np.zeros((nx, 2))
    for i in prange(nx):
        for j in range(ny):
            rows = direction[i, j], gradient[i, j], image[i, j], inverse[i, j], kernel[i, j]
            sums[i, 0] += _turn_row(*rows, beta, last_counts_once)
            if is_penalised:
                sums[i, 1] += _square_row(direction[i, j], penalty[i, j], last_counts_once)
    total = sums.sum(axis=0)
    return total[0], total[1]


@njit(cache=True, fastmath={'reassoc'})
def _turn_row(direction, gradient, image, inverse, kernel, beta, last_counts_once):
    d, g = direction, gradient
    slope = 0.0
    for k in range(kernel.size):
        real = beta * d[2 * k] - inverse[k] * g[2 * k]
        imag = beta * d[2 * k + 1] - inverse[k] * g[2 * k + 1]
        d[2 * k], d[2 * k + 1] = real, imag
        image[2 * k], image[2 * k + 1] = kernel[k] * real, kernel[k] * imag
        slope += np.float64(g[2 * k] * real + g[2 * k + 1] * imag)
    first, last = g[0] * d[0] + g[1] * d[1], g[-2] * d[-2] + g[-1] * d[-1]
    return _full(slope, first, last, last_counts_once)


@njit(cache=True, fastmath={'reassoc'})
def _square_row(d, penalty, last_counts_once):
    total = 0.0
    for k in range(penalty.size):
        total += np.float64(penalty[k] * (d[2 * k] * d[2 * k] + d[2 * k + 1] * d[2 * k + 1]))
    first = penalty[0] * (d[0] * d[0] + d[1] * d[1])
    last = penalty[-1] * (d[-2] * d[-2] + d[-1] * d[-1])
    return _full(total, first, last, last_counts_once)


def advance_spectrum(unknown, direction, step):
    """Add ``step * direction`` to the unknown, and return the squared relative change."""
    return _advance_spectrum(*_parts(unknown, direction), step)


@njit(cache=True, parallel=True)
def _advance_spectrum(unknown, direction, step):
    nx, ny, _ = unknown.shape
    sums = np.zeros((nx, 2))
    for i in prange(nx):
        for j in range(ny):
            change, energy = _advance_row(unknown[i, j], direction[i, j], step)
            sums[i, 0] += change
            sums[i, 1] += energy
    total = sums.sum(axis=0)
    return total[0] / (total[1] + 1e-30)


@njit(cache=True, fastmath={'reassoc'})
def _advance_row(unknown, direction, step):
    change, energy = 0.0, 0.0
    for n in range(unknown.size):
        move = step * direction[n]
        new = unknown[n] + move
        unknown[n] = new
        change += np.float64(move * move)
        energy += np.float64(new * new)
    return change, energy
