"""What the methods with spherical mean values share: radii, erosion and filters."""

import math

import numpy as np

from qsmflow.algorithms import operators as ops
from qsmflow.algorithms._checks import check_positive
from qsmflow.algorithms.background import _sphere_kernels as kernels

#: A sphere lies in the mask if at most this share of it does not: slivers of surface voxels.
SLIVER = 0.001
#: Shortest radius in voxel edges: a sphere of less covers no part of the next voxel that counts.
LEAST_RADIUS = 0.6


def reach(radius, voxel_size):
    """Return the voxels that a sphere reaches along each axis."""
    return tuple(math.ceil(radius / step) + 1 for step in voxel_size)


def one_sided_shape(shape, radius, voxel_size):
    """Return a grid that holds a sphere, which about no voxel of the data wraps onto others."""
    reaches = reach(radius, voxel_size)
    return ops.pad_shape([max(n + r, 2 * r) for n, r in zip(shape, reaches, strict=True)], 0)


def check_radius(radius, voxel_size, name='radius'):
    """Check that a sphere reaches the next voxel along each axis.

    Parameters
    ----------
    radius : float
        Radius of a sphere, in mm.
    voxel_size : tuple of float
        Voxel edge lengths, in mm.
    name : str, optional
        Name of the parameter in messages.

    Raises
    ------
    ValueError
        If it does not, or if the radius is not a positive number.

    Examples
    --------
    >>> check_radius(2, (1, 1, 4))
    Traceback (most recent call last):
    ...
    ValueError: radius must be 2.4 mm or more, 0.6 of the longest voxel edge, ...; got 2.
    """
    check_positive(**{name: radius})
    least = LEAST_RADIUS * max(voxel_size)
    if radius < least:
        raise ValueError(
            f'{name} must be {least:g} mm or more, {LEAST_RADIUS:g} of the longest voxel edge, '
            f'for the sphere to reach the next voxel; got {radius:g}.'
        )


def filtered(spectrum, octant, grid):
    """Return the volume of a half spectrum times an even real filter; the spectrum stays."""
    product = np.empty_like(spectrum)
    ops.use_threads()
    kernels.multiply(spectrum, octant, product)
    return ops.irfft(product, grid)


def eroded(mask, mask_spectrum, octant, grid):
    """Return where the sphere lies inside the mask, but for slivers of surface voxels."""
    return mask & (ops.crop(filtered(mask_spectrum, octant, grid), mask.shape) > 1 - SLIVER)


def erode(mask, voxel_size, radius):
    """Return where a sphere lies inside a mask, or an error if that is nowhere.

    Parameters
    ----------
    mask : ndarray of bool, shape (X, Y, Z)
        Mask.
    voxel_size : tuple of float
        Voxel edge lengths, in mm.
    radius : float
        Radius of the sphere, in mm.

    Returns
    -------
    ndarray of bool, shape (X, Y, Z)
        Centres of the spheres that fit.

    Raises
    ------
    ValueError
        If there is none.

    Examples
    --------
    >>> int(erode(np.ones((8, 7, 7), bool), (1, 1, 1), 3).sum())
    2
    """
    grid = one_sided_shape(mask.shape, radius, voxel_size)
    spectrum = ops.rfft(mask.astype(np.float32), grid)
    fits = eroded(mask, spectrum, ops.smv_octant(grid, voxel_size, radius), grid)
    if not fits.any():
        raise ValueError(
            f'A sphere of radius {radius:g} mm fits nowhere into the mask. Take a smaller radius '
            'or check the mask.'
        )
    return fits


def deconvolve(volume, octant, threshold):
    """Divide a volume by a filter in the Fourier domain where its size exceeds a threshold."""
    keep = np.abs(octant) > threshold
    inverse = np.divide(1, octant, out=np.zeros_like(octant), where=keep)
    return filtered(ops.rfft(volume), inverse, volume.shape)


def taps(voxel_size, radius):
    """Return offsets and weights of the voxels of a sphere, from the outside in.

    Returns
    -------
    offsets : ndarray of int, shape (N, 3)
        Offsets from the centre, in voxels.
    weights : ndarray of float64, shape (N,)
        Weights, of sum 1.
    """
    octant = ops.sphere_weights(voxel_size, radius)
    whole = np.pad(octant, [(n - 1, 0) for n in octant.shape], mode='reflect')
    offsets = np.argwhere(whole > 0)
    weights = whole[tuple(offsets.T)]
    offsets -= np.array(octant.shape) - 1
    order = np.argsort(-((offsets * voxel_size) ** 2).sum(axis=1), kind='stable')
    return offsets[order], weights[order]
