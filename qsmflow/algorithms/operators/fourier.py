"""Fourier transforms of real volumes, and the padded grids on which they are made."""

import numpy as np
from scipy import fft

from qsmflow.algorithms import _kernels as kernels
from qsmflow.algorithms._checks import check_count
from qsmflow.algorithms._threads import use_threads, workers


def pad_shape(shape, pad):
    """Return the shape of a grid padded on every side, rounded up to fast transform lengths.

    Parameters
    ----------
    shape : tuple of int
        Shape of the data.
    pad : int or tuple of int
        Voxels wanted on each side of an axis.

    Returns
    -------
    tuple of int
        Shape of the padded grid, at least ``shape + 2 * pad``.

    Raises
    ------
    ValueError
        If ``pad`` is negative or not whole.

    Examples
    --------
    >>> pad_shape((100, 101, 30), 4)
    (108, 120, 40)
    """
    pads = (pad,) * len(shape) if np.ndim(pad) == 0 else tuple(pad)
    for value in pads:
        check_count(0, pad=value)
    return tuple(
        int(fft.next_fast_len(int(n + 2 * p), real=True)) for n, p in zip(shape, pads, strict=True)
    )


def rfft(volume, shape=None):
    """Return the half spectrum of a real volume, zero-padded at the end to ``shape``.

    Parameters
    ----------
    volume : ndarray of float32, shape (X, Y, Z)
        Real volume.
    shape : tuple of int, optional
        Shape of the padded grid; that of ``volume`` by default.

    Returns
    -------
    ndarray of complex64, shape (X', Y', Z' // 2 + 1)
        Half spectrum.
    """
    threads = workers()
    if shape is None or tuple(shape) == volume.shape:
        return fft.rfftn(volume, workers=threads)
    # Lines of zeros need no transform: the padding of an axis comes when its turn does.
    lines = fft.rfft(volume, n=shape[2], axis=2, workers=threads)
    planes = fft.fft(lines, n=shape[1], axis=1, workers=threads)
    del lines
    return fft.fft(planes, n=shape[0], axis=0, overwrite_x=True, workers=threads)


def irfft(spectrum, shape, part=None):
    """Return the real volume of a half spectrum, **overwriting** the spectrum.

    Parameters
    ----------
    spectrum : ndarray of complex64, shape (X', Y', Z' // 2 + 1)
        Half spectrum; its content is lost, which saves one volume of memory.
    shape : tuple of int
        Shape of the padded grid.
    part : tuple of int, optional
        Shape of the data part, the first voxels, if no more is wanted: lines that would be cut off
        are not transformed.

    Returns
    -------
    ndarray of float32, shape ``shape`` or ``part``
        Real volume; with ``part`` a view of a larger one.

    Examples
    --------
    >>> volume = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    >>> spectrum = rfft(volume, (4, 4, 6))
    >>> bool(np.allclose(irfft(spectrum, (4, 4, 6), volume.shape), volume, atol=1e-5))
    True
    """
    threads = workers()
    if part is not None:
        planes = fft.ifft(spectrum, axis=0, overwrite_x=True, workers=threads)[: part[0]]
        lines = fft.ifft(planes, axis=1, overwrite_x=True, workers=threads)[:, : part[1]]
        whole = fft.irfft(lines, n=shape[2], axis=2, overwrite_x=True, workers=threads)
        return whole[..., : part[2]]
    partial = fft.ifftn(spectrum, axes=(0, 1), overwrite_x=True, workers=threads)
    return fft.irfft(partial, n=shape[2], axis=2, overwrite_x=True, workers=threads)


def convolve(volume, multiplier):
    """Return a real volume whose half spectrum is multiplied by a real one.

    Parameters
    ----------
    volume : ndarray of float32, shape (X, Y, Z)
        Real volume.
    multiplier : ndarray of float32, shape (X, Y, Z // 2 + 1)
        Real half spectrum, such as :func:`dipole_kernel`.

    Returns
    -------
    ndarray of float32, shape (X, Y, Z)
        New volume.

    Examples
    --------
    >>> volume = np.ones((4, 4, 4), np.float32)
    >>> float(convolve(volume, np.full((4, 4, 3), 2, np.float32)).max())
    2.0
    """
    spectrum = rfft(volume)
    use_threads()
    kernels.filter_spectrum(spectrum, multiplier)
    return irfft(spectrum, volume.shape)


def crop(volume, shape):
    """Return the data part of a padded volume, as a view of its first voxels."""
    return volume[tuple(slice(n) for n in shape)]


def bounding_box(mask):
    """Return the slices of the smallest box that holds a mask.

    Parameters
    ----------
    mask : ndarray of bool, shape (X, Y, Z)
        Mask, not empty.

    Returns
    -------
    tuple of slice
        One slice for each axis.

    Examples
    --------
    >>> mask = np.zeros((5, 5, 5), bool)
    >>> mask[1:3, 2, 0:4] = True
    >>> bounding_box(mask)
    (slice(1, 3, None), slice(2, 3, None), slice(0, 4, None))
    """
    box = []
    for axis in range(mask.ndim):
        others = tuple(a for a in range(mask.ndim) if a != axis)
        inside = np.flatnonzero(mask.any(axis=others))
        box.append(slice(int(inside[0]), int(inside[-1]) + 1))
    return tuple(box)


def pad_to(volume, grid):
    """Return a new volume with zeros added at the end of each axis up to the shape ``grid``."""
    out = np.zeros(grid, volume.dtype)
    crop(out, volume.shape)[:] = volume
    return out
