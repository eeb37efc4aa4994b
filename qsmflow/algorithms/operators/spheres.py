"""Means over spheres (SMV), as multipliers in the Fourier domain and as weights of voxels."""

import math

import numpy as np


def smv_kernel(shape, voxel_size, radius):
    """Return the spectrum of the mean over a sphere, the spherical mean value (SMV).

    Voxels on the surface count by the part of them that lies inside the sphere.

    Parameters
    ----------
    shape : tuple of int
        Shape (X, Y, Z) of the (padded) grid.
    voxel_size : tuple of float
        Voxel edge lengths, in mm, in array-axis order.
    radius : float
        Radius of the sphere, in mm.

    Returns
    -------
    ndarray of float32, shape (X, Y, Z // 2 + 1)
        Real half spectrum; 1 at frequency zero.

    Raises
    ------
    ValueError
        If the radius is not positive or the sphere does not fit into the grid.

    References
    ----------
    .. [1] Schweser F, et al. NeuroImage 2011;54:2789-2807.
       doi:10.1016/j.neuroimage.2010.10.070

    Examples
    --------
    >>> float(smv_kernel((16, 16, 16), (1, 1, 1), 3)[0, 0, 0])
    1.0
    """
    octant = smv_octant(shape, voxel_size, radius)
    fold = [np.minimum(np.arange(n), n - np.arange(n)) for n in shape[:2]]
    return np.ascontiguousarray(octant[np.ix_(*fold)])


def smv_octant(shape, voxel_size, radius):
    """Return the spectrum of the mean over a sphere at the frequencies that are not negative.

    The spectrum is even along each axis, so that this eighth holds all of :func:`smv_kernel`.

    Parameters
    ----------
    shape : tuple of int
        Shape (X, Y, Z) of the (padded) grid.
    voxel_size : tuple of float
        Voxel edge lengths, in mm, in array-axis order.
    radius : float
        Radius of the sphere, in mm.

    Returns
    -------
    ndarray of float32, shape (X // 2 + 1, Y // 2 + 1, Z // 2 + 1)
        Real spectrum; 1 at frequency zero.

    Raises
    ------
    ValueError
        If the radius is not positive or the sphere does not fit into the grid.

    Examples
    --------
    >>> octant = smv_octant((16, 12, 9), (1, 1, 1), 3)
    >>> octant.shape, float(octant[0, 0, 0])
    ((9, 7, 5), 1.0)
    """
    weights = sphere_weights(voxel_size, radius)
    span = tuple(2 * n - 1 for n in weights.shape)
    if any(s > n for s, n in zip(span, shape, strict=True)):
        raise ValueError(
            f'A sphere of radius {radius:g} mm spans {span} voxels and does not fit into '
            f'a grid of {tuple(shape)}. Take a smaller radius or pad the grid.'
        )
    # The few voxels of a sphere are quicker summed as cosines, axis by axis, than transformed.
    for n in shape:
        phases = np.outer(np.arange(weights.shape[0]), np.arange(n // 2 + 1)) * (2 * math.pi / n)
        cosines = np.cos(phases)
        cosines[1:] *= 2
        weights = np.tensordot(weights, cosines, axes=(0, 0))
    return weights.astype(np.float32)


def sphere_weights(voxel_size, radius, parts=6):
    """Return the share of the voxels of an octant in a sphere, normalised over the whole sphere.

    Parameters
    ----------
    voxel_size : tuple of float
        Voxel edge lengths, in mm, in array-axis order.
    radius : float
        Radius of the sphere, in mm.
    parts : int, optional
        Parts along each edge by which a voxel on the surface is judged.

    Returns
    -------
    ndarray of float64, shape (I, J, K)
        Weights of the voxels at offsets (i, j, k) that are not negative, the centre first. The
        others follow by symmetry; all together sum to 1.

    Raises
    ------
    ValueError
        If the radius is not positive.

    Examples
    --------
    >>> sphere_weights((1, 1, 1), 0.4).tolist()
    [[[1.0]]]
    """
    if not radius > 0:
        raise ValueError(f'The radius of a sphere must be positive, in mm; got {radius!r}.')
    offsets = (np.arange(parts) + 0.5) / parts - 0.5
    squares, number = [], []
    for step in voxel_size:
        half = math.floor(radius / step + 0.5)
        squares.append((((np.arange(half + 1)[:, None] + offsets) * step) ** 2).ravel())
        number.append(half + 1)
    weights = np.empty(number)
    for i in range(number[0]):  # one slab at a time keeps the fine grid small
        slab = squares[0][i * parts : (i + 1) * parts, None, None] + squares[1][:, None]
        inside = (slab + squares[2] <= radius**2).reshape(
            parts, number[1], parts, number[2], parts
        )
        weights[i] = inside.sum(axis=(0, 2, 4))
    if not weights.any():
        return np.ones((1, 1, 1))
    copies = np.ones(1)
    for n in number:
        copies = np.multiply.outer(copies, np.where(np.arange(n) > 0, 2.0, 1.0))
    return weights / (weights * copies[0]).sum()
