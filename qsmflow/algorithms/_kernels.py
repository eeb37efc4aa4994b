"""Compiled loops over volumes, for `operators` and the inversions.

All arrays are float32 or complex64, C-contiguous and of one grid; differences are periodic. The
results go to the array arguments that each kernel names.
"""

import math

import numpy as np

from qsmflow.algorithms._jit import njit, prange


@njit(cache=True, parallel=True)
def fill_dipole(kernel, kx, ox, ky, oy, kz, oz, b):
    # Products of two different components are odd in each of them: these use the copies whose
    # Nyquist sample, the mean of both signs, is zero.
    nx, ny = kernel.shape[:2]
    for i in prange(nx):
        for j in range(ny):
            k2 = kx[i] ** 2 + ky[j] ** 2
            along2 = (kx[i] * b[0]) ** 2 + (ky[j] * b[1]) ** 2
            along2 += 2.0 * ox[i] * oy[j] * b[0] * b[1]
            across = 2.0 * (ox[i] * b[0] + oy[j] * b[1]) * b[2]
            _dipole_row(kz, oz, k2, along2, across, b[2], kernel[i, j])


@njit(cache=True, error_model='numpy')
def _dipole_row(kz, oz, k2, along2, across, bz, kernel):
    for k in range(kernel.size):
        square = k2 + kz[k] * kz[k]
        along = along2 + (kz[k] * bz) * (kz[k] * bz) + across * oz[k]
        value = 1.0 / 3.0 - along / square
        kernel[k] = value if square > 0.0 else 0.0


@njit(cache=True, parallel=True)
def copy_masked(volume, mask, out):
    # Zero outside the mask. Returns how many of the values copied are not finite.
    nx, ny, nz = out.shape
    bad = np.zeros((nx, 1), np.int64)
    for i in prange(nx):
        count = 0
        for j in range(ny):
            for k in range(nz):
                value = volume[i, j, k] if mask[i, j, k] else np.float32(0)
                out[i, j, k] = value
                # NaN or infinity, less itself, is not zero.
                count += value - value != 0
        bad[i, 0] = count
    return bad.sum(axis=0)[0]


@njit(cache=True, parallel=True)
def multiply(a, b, out):
    nx, ny, nz = out.shape
    for i in prange(nx):
        for j in range(ny):
            for k in range(nz):
                out[i, j, k] = a[i, j, k] * b[i, j, k]


@njit(cache=True, parallel=True)
def scale(volume, factors):
    # One array is read and written: with a third for the result, that may be the same one, there
    # would be no vector instructions.
    nx, ny, nz = volume.shape
    for i in prange(nx):
        for j in range(ny):
            for k in range(nz):
                volume[i, j, k] *= factors[i, j, k]


def filter_spectrum(spectrum, multiplier):
    """Multiply a complex64 spectrum by a real multiplier, in place."""
    _filter_spectrum(spectrum.view(np.float32), multiplier)


@njit(cache=True, parallel=True)
def _filter_spectrum(spectrum, multiplier):
    nx, ny, _ = multiplier.shape
    for i in prange(nx):
        for j in range(ny):
            filter_row(spectrum[i, j], multiplier[i, j])


@njit(cache=True)
def filter_row(values, multiplier):
    # Real and imaginary parts in turn: complex numbers have no vector instructions.
    for k in range(multiplier.size):
        values[2 * k] *= multiplier[k]
        values[2 * k + 1] *= multiplier[k]


def filtered(spectrum, multiplier, out):
    """Write the product of a complex64 spectrum with a real multiplier to another one."""
    _filtered(spectrum.view(np.float32), multiplier, out.view(np.float32))


@njit(cache=True, parallel=True)
def _filtered(spectrum, multiplier, out):
    nx, ny, _ = multiplier.shape
    for i in prange(nx):
        for j in range(ny):
            filtered_row(spectrum[i, j], multiplier[i, j], out[i, j])


@njit(cache=True)
def filtered_row(values, multiplier, out):
    for k in range(multiplier.size):
        out[2 * k] = multiplier[k] * values[2 * k]
        out[2 * k + 1] = multiplier[k] * values[2 * k + 1]


@njit(cache=True, parallel=True)
def gradient(x, sx, sy, sz, out):
    nx, ny, nz = x.shape
    for i in prange(nx):
        i1 = i + 1 if i + 1 < nx else 0
        for j in range(ny):
            j1 = j + 1 if j + 1 < ny else 0
            for k in range(nz):
                k1 = k + 1 if k + 1 < nz else 0
                here = x[i, j, k]
                out[0, i, j, k] = (x[i1, j, k] - here) * sx
                out[1, i, j, k] = (x[i, j1, k] - here) * sy
                out[2, i, j, k] = (x[i, j, k1] - here) * sz


@njit(cache=True, parallel=True)
def divergence(v, sx, sy, sz, out):
    nx, ny, nz = out.shape
    for i in prange(nx):
        i0 = i - 1 if i > 0 else nx - 1
        for j in range(ny):
            j0 = j - 1 if j > 0 else ny - 1
            for k in range(nz):
                k0 = k - 1 if k > 0 else nz - 1
                out[i, j, k] = (
                    (v[0, i, j, k] - v[0, i0, j, k]) * sx
                    + (v[1, i, j, k] - v[1, i, j0, k]) * sy
                    + (v[2, i, j, k] - v[2, i, j, k0]) * sz
                )


@njit(cache=True, parallel=True)
def laplacian(x, sx, sy, sz, out):
    nx, ny, nz = x.shape
    for i in prange(nx):
        i0 = i - 1 if i > 0 else nx - 1
        i1 = i + 1 if i + 1 < nx else 0
        for j in range(ny):
            j0 = j - 1 if j > 0 else ny - 1
            j1 = j + 1 if j + 1 < ny else 0
            for k in range(nz):
                k0 = k - 1 if k > 0 else nz - 1
                k1 = k + 1 if k + 1 < nz else 0
                here = np.float32(2.0) * x[i, j, k]
                out[i, j, k] = (
                    (x[i0, j, k] + x[i1, j, k] - here) * sx
                    + (x[i, j0, k] + x[i, j1, k] - here) * sy
                    + (x[i, j, k0] + x[i, j, k1] - here) * sz
                )


@njit(cache=True, inline='always')
def _project(x, penalty, level, sx, sy, sz, dual, i, j, k, i1, j1, k1):
    here = x[i, j, k]
    v0 = (x[i1, j, k] - here) * sx + dual[0, i, j, k]
    v1 = (x[i, j1, k] - here) * sy + dual[1, i, j, k]
    v2 = (x[i, j, k1] - here) * sz + dual[2, i, j, k]
    radius = level * penalty[i, j, k]
    scale = radius / max(math.sqrt(v0 * v0 + v1 * v1 + v2 * v2), radius)
    dual[0, i, j, k] = v0 * scale
    dual[1, i, j, k] = v1 * scale
    dual[2, i, j, k] = v2 * scale


@njit(cache=True, parallel=True)
def project_dual(x, penalty, level, sx, sy, sz, dual):
    nx, ny, nz = x.shape
    for i in prange(nx):
        i1 = i + 1 if i + 1 < nx else 0
        for j in range(ny):
            j1 = j + 1 if j + 1 < ny else 0
            for k in range(nz - 1):
                _project(x, penalty, level, sx, sy, sz, dual, i, j, k, i1, j1, k + 1)
            _project(x, penalty, level, sx, sy, sz, dual, i, j, nz - 1, i1, j1, 0)


@njit(cache=True, parallel=True)
def dual_source(u, sx, sy, sz, divergence, source):
    nx, ny, nz = source.shape
    for i in prange(nx):
        i0 = i - 1 if i > 0 else nx - 1
        for j in range(ny):
            j0 = j - 1 if j > 0 else ny - 1
            for k in range(nz):
                k0 = k - 1 if k > 0 else nz - 1
                new = (
                    (u[0, i, j, k] - u[0, i0, j, k]) * sx
                    + (u[1, i, j, k] - u[1, i, j0, k]) * sy
                    + (u[2, i, j, k] - u[2, i, j, k0]) * sz
                )
                source[i, j, k] = np.float32(2) * new - divergence[i, j, k]
                divergence[i, j, k] = new


@njit(cache=True, parallel=True)
def data_step(model, dual, field, weight2, mu):
    # On return `model` holds the split variable less its dual, what the next update fits.
    nx, ny, nz = model.shape
    for i in prange(nx):
        for j in range(ny):
            for k in range(nz):
                total = model[i, j, k] + dual[i, j, k]
                w2 = weight2[i, j, k]
                new = w2 / (w2 + mu) * (total - field[i, j, k])
                dual[i, j, k] = new
                model[i, j, k] = total - np.float32(2) * new


@njit(cache=True, parallel=True)
def harmonic_step(laplacian, dual, inside, shrink):
    nx, ny, nz = laplacian.shape
    for i in prange(nx):
        for j in range(ny):
            for k in range(nz):
                total = laplacian[i, j, k] + dual[i, j, k]
                new = shrink * total if inside[i, j, k] else np.float32(0)
                dual[i, j, k] = new
                laplacian[i, j, k] = total - np.float32(2) * new


def fit_chi(source, data, chi, kernel, ex, ey, ez, mu, rho, own, keep_data=False):
    """Fit the spectrum of the susceptibility to a model field and to a source, in place.

    Divides ``mu * kernel * data + rho * (source + own * lap * chi)`` by
    ``mu * kernel^2 + rho * lap``, where ``lap`` is the sum of the eigenvalues of the three axes.

    Parameters
    ----------
    source, data, chi : ndarray of complex64, shape (X, Y, Z)
        On return the spectra of the susceptibility, of its field, and of the susceptibility again.
        With ``keep_data`` the second stays as it is.
    kernel : ndarray of float32, shape (X, Y, Z)
        Dipole kernel.
    ex, ey, ez : ndarray of float32
        Eigenvalues of the negative Laplacian of each axis.
    mu, rho, own : float32
        Weights of the data, of the source, and of the part of the source that is in ``chi``.

    Returns
    -------
    float
        Squared norm of the change relative to that of the new susceptibility.
    """
    spectra = (spectrum.view(np.float32) for spectrum in (source, data, chi))
    return _fit_chi(*spectra, kernel, ex, ey, ez, mu, rho, own, keep_data)


@njit(cache=True, parallel=True)
def _fit_chi(source, data, chi, kernel, ex, ey, ez, mu, rho, own, keep_data):
    nx, ny, nz = kernel.shape
    sums = np.empty((nx, 2))
    for i in prange(nx):
        room = np.empty((3, 2 * nz), np.float32)
        change, energy = 0.0, 0.0
        for j in range(ny):
            rows = source[i, j], data[i, j], chi[i, j], kernel[i, j]
            found = _fit_row(*rows, ex[i] + ey[j], ez, mu, rho, own, room[0], room[1], room[2])
            change += found[0]
            energy += found[1]
            if not keep_data:
                filtered_row(source[i, j], kernel[i, j], data[i, j])
        sums[i, 0], sums[i, 1] = change, energy
    total = sums.sum(axis=0)
    return total[0] / (total[1] + 1e-30)


@njit(cache=True, fastmath={'reassoc'})
def _fit_row(source, data, chi, kernel, exy, ez, mu, rho, own, of_data, of_source, of_chi):
    # Real and imaginary parts in turn, in loops that are simple enough for vector instructions,
    # which complex numbers are not. Only the sums are reordered.
    count = kernel.size
    for k in range(count):
        lap = exy + ez[k]
        left = mu * kernel[k] * kernel[k] + rho * lap
        inverse = np.float32(1) / left if left > 0 else np.float32(0)
        for n in range(2 * k, 2 * k + 2):
            of_data[n] = inverse * mu * kernel[k]
            of_source[n] = inverse * rho
            of_chi[n] = inverse * rho * own * lap
    change, energy = 0.0, 0.0
    for n in range(2 * count):
        new = of_data[n] * data[n] + of_source[n] * source[n] + of_chi[n] * chi[n]
        step = new - chi[n]
        change += np.float64(step * step)
        energy += np.float64(new * new)
        chi[n] = new
        source[n] = new
    return change, energy


@njit(cache=True, parallel=True)
def reweight(x, sx, sy, sz, inverse_step, penalty):
    nx, ny, nz = x.shape
    for i in prange(nx):
        i1 = i + 1 if i + 1 < nx else 0
        for j in range(ny):
            j1 = j + 1 if j + 1 < ny else 0
            for k in range(nz):
                k1 = k + 1 if k + 1 < nz else 0
                here = x[i, j, k]
                g0 = (x[i1, j, k] - here) * sx
                g1 = (x[i, j1, k] - here) * sy
                g2 = (x[i, j, k1] - here) * sz
                size = math.sqrt(g0 * g0 + g1 * g1 + g2 * g2)
                penalty[i, j, k] = 1 / (1 + size * inverse_step)
