"""Periodic finite differences, each with its exact adjoint."""

import math

import numpy as np

from qsmflow.algorithms import _kernels as kernels
from qsmflow.algorithms._threads import use_threads


def _inverse_steps(voxel_size, power=1):
    steps = np.ones(3) if voxel_size is None else np.asarray(voxel_size, np.float64)
    return tuple(np.float32(s) for s in 1.0 / steps**power)


def gradient(volume, voxel_size=None, *, out=None):
    """Return the periodic forward differences of a volume.

    Parameters
    ----------
    volume : ndarray of float32, shape (X, Y, Z)
        Volume, C-contiguous.
    voxel_size : tuple of float, optional
        Voxel edge lengths, in mm: the result is per mm. Per voxel by default.
    out : ndarray of float32, shape (3, X, Y, Z), optional
        Array for the result.

    Returns
    -------
    ndarray of float32, shape (3, X, Y, Z)
        Differences along each axis. The adjoint is ``-divergence``.

    Examples
    --------
    >>> gradient(np.eye(3, dtype=np.float32)[None])[2, 0, 0].tolist()
    [-1.0, 0.0, 1.0]
    """
    volume = np.ascontiguousarray(volume, np.float32)
    if out is None:
        out = np.empty((3, *volume.shape), np.float32)
    use_threads()
    kernels.gradient(volume, *_inverse_steps(voxel_size), out)
    return out


def divergence(vector, voxel_size=None, *, out=None):
    """Return the periodic divergence by backward differences, the negative adjoint of `gradient`.

    Parameters
    ----------
    vector : ndarray of float32, shape (3, X, Y, Z)
        Vector field.
    voxel_size : tuple of float, optional
        Voxel edge lengths, in mm: the result is per mm. Per voxel by default.
    out : ndarray of float32, shape (X, Y, Z), optional
        Array for the result.

    Returns
    -------
    ndarray of float32, shape (X, Y, Z)
        Divergence.

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(size=(4, 5, 6)).astype(np.float32)
    >>> bool(np.allclose(divergence(gradient(x)), laplacian(x), atol=1e-5))
    True
    """
    vector = np.ascontiguousarray(vector, np.float32)
    if out is None:
        out = np.empty(vector.shape[1:], np.float32)
    use_threads()
    kernels.divergence(vector, *_inverse_steps(voxel_size), out)
    return out


def laplacian(volume, voxel_size=None, *, out=None):
    """Return the periodic seven-point Laplacian, which is its own adjoint.

    Parameters
    ----------
    volume : ndarray of float32, shape (X, Y, Z)
        Volume.
    voxel_size : tuple of float, optional
        Voxel edge lengths, in mm: the result is per square mm. Per voxel by default.
    out : ndarray of float32, shape (X, Y, Z), optional
        Array for the result.

    Returns
    -------
    ndarray of float32, shape (X, Y, Z)
        Laplacian.

    Examples
    --------
    >>> bool(laplacian(np.full((4, 4, 4), 3, np.float32)).any())
    False
    """
    volume = np.ascontiguousarray(volume, np.float32)
    if out is None:
        out = np.empty(volume.shape, np.float32)
    use_threads()
    kernels.laplacian(volume, *_inverse_steps(voxel_size, 2), out)
    return out


def laplacian_eigenvalues(shape, voxel_size=None):
    r"""Return the eigenvalues of the negative Laplacian of each axis, for half spectra.

    Their outer sum :math:`L` is the Fourier multiplier of ``-laplacian`` and of
    ``-divergence(gradient(...))``.

    Parameters
    ----------
    shape : tuple of int
        Shape (X, Y, Z) of the grid.
    voxel_size : tuple of float, optional
        Voxel edge lengths, in mm. Ones by default.

    Returns
    -------
    tuple of ndarray of float32
        Three arrays, of X, Y and Z // 2 + 1 values, not negative.

    Examples
    --------
    >>> [len(a) for a in laplacian_eigenvalues((4, 5, 6))]
    [4, 5, 4]
    """
    steps = (1.0, 1.0, 1.0) if voxel_size is None else voxel_size
    counts = (shape[0], shape[1], shape[2] // 2 + 1)
    return tuple(
        (4.0 * np.sin(math.pi * np.arange(count) / n) ** 2 / step**2).astype(np.float32)
        for n, count, step in zip(shape, counts, steps, strict=True)
    )
