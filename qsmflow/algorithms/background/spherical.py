"""Background removal by spherical mean values."""

import numpy as np

from qsmflow.algorithms import operators as ops
from qsmflow.algorithms._checks import (
    check_positive,
    check_volume,
    check_voxel_size,
    check_weights,
)
from qsmflow.algorithms.solvers import conjugate_gradient


def vsharp(
    total_field,
    mask,
    voxel_size,
    *,
    b0_dir=(0.0, 0.0, 1.0),
    weights=None,
    radii=None,
    threshold=0.05,
):
    r"""Remove the background field by spherical mean values of variable radius (V-SHARP).

    A harmonic background equals its mean over any sphere inside the mask, so that
    :math:`(\delta - \rho_R) * f` is free of it. Each voxel takes the largest sphere that fits;
    the result is deconvolved with the largest kernel, truncated below ``threshold`` [1]_ [2]_.

    Parameters
    ----------
    total_field : ndarray of float, shape (X, Y, Z)
        Total field, in ppm. Values outside ``mask`` are ignored.
    mask : ndarray of bool, shape (X, Y, Z)
        Region of interest.
    voxel_size : tuple of float
        Voxel edge lengths, in mm, in array-axis order.
    b0_dir : tuple of float, optional
        Not used; part of the common signature.
    weights : ndarray of float, shape (X, Y, Z), optional
        Not used; part of the common signature.
    radii : sequence of float, optional
        Radii of the spheres, in mm. By default 12, 11, ... down to the longest voxel edge,
        but not below 1 (the consensus example [3]_ uses 12 to 1). Spheres that fit nowhere in
        the mask are left out.
    threshold : float, optional
        Truncation level of the deconvolution, in (0, 1).

    Returns
    -------
    local_field : ndarray of float32, shape (X, Y, Z)
        Local field, in ppm, zero outside the returned mask.
    mask : ndarray of bool, shape (X, Y, Z)
        Where the local field holds: the mask given less the rim in which no sphere fits.

    Raises
    ------
    ValueError
        If no sphere fits into the mask.

    References
    ----------
    .. [1] Li W, et al. NeuroImage 2011;55:1645-1656. doi:10.1016/j.neuroimage.2010.11.088
    .. [2] Wu B, et al. Magn Reson Med 2012;67:137-147. doi:10.1002/mrm.23000
    .. [3] Bilgic B, et al. Magn Reson Med 2024;91:1834-1862. doi:10.1002/mrm.30006

    Examples
    --------
    >>> x, y, z = np.ogrid[-8:8, -8:8, -8:8]
    >>> mask = x**2 + y**2 + z**2 < 49
    >>> local, reduced = vsharp(0.1 + 0.05 * z + 0 * x * y, mask, (1, 1, 1))
    >>> bool(np.abs(local).max() < 1e-3), bool(reduced.sum() < mask.sum())
    (True, True)
    """
    field, mask = check_volume(total_field, mask, 'total_field')
    voxel_size = check_voxel_size(voxel_size)
    if not 0 < threshold < 1:
        raise ValueError(f'threshold must lie in (0, 1); got {threshold!r}.')
    if weights is not None:
        check_weights(weights, mask)
    radii = _radii(radii, mask, voxel_size)
    box = ops.bounding_box(mask)
    grid = ops.pad_shape(mask[box].shape, _reach(radii[0], voxel_size))
    spectrum = ops.rfft(field[box], grid)
    mask_spectrum = ops.rfft(mask[box].astype(np.float32), grid)
    high_pass = np.zeros(grid, np.float32)
    done = np.zeros(grid, bool)
    largest = None
    for radius in radii:
        mean = ops.smv_kernel(grid, voxel_size, radius)
        fits = _eroded(mask_spectrum, mean, ops.pad_to(mask[box], grid))
        if not fits.any():
            continue
        if largest is None:
            largest = 1 - mean
        new = fits & ~done
        high_pass[new] = ops.irfft(spectrum * (1 - mean), grid)[new]
        done |= fits
    if largest is None:
        raise ValueError(
            f'No sphere of radius {radii[-1]:g} mm fits into the mask. Check the mask and the '
            'voxel size, or give smaller radii.'
        )
    keep = np.abs(largest) > threshold
    inverse = np.divide(1, largest, out=np.zeros_like(largest), where=keep)
    deconvolved = ops.irfft(ops.rfft(high_pass) * inverse, grid)
    mask_out = np.zeros_like(mask)
    mask_out[box] = ops.crop(done, mask[box].shape)
    local = np.zeros_like(field)
    local[box] = ops.crop(deconvolved, mask[box].shape)
    local *= mask_out
    return local, mask_out


def resharp(
    total_field,
    mask,
    voxel_size,
    *,
    b0_dir=(0.0, 0.0, 1.0),
    weights=None,
    radius=6.0,
    reg_weight=1e-4,
    max_iter=50,
    tol=1e-3,
    return_history=False,
):
    r"""Remove the background field by regularised spherical mean values (RESHARP).

    .. math:: \min_{x} \| W M' (\delta - \rho_R) * (x - f) \|^2 + \lambda \| x \|^2

    :math:`M'` is the mask eroded by the radius [1]_. Solved by conjugate gradients from zero.

    Parameters
    ----------
    total_field : ndarray of float, shape (X, Y, Z)
        Total field, in ppm. Values outside ``mask`` are ignored.
    mask : ndarray of bool, shape (X, Y, Z)
        Region of interest.
    voxel_size : tuple of float
        Voxel edge lengths, in mm, in array-axis order.
    b0_dir : tuple of float, optional
        Not used; part of the common signature.
    weights : ndarray of float, shape (X, Y, Z), optional
        Confidence :math:`W` in [0, 1]. Ones by default.
    radius : float, optional
        Radius of the sphere, in mm. A larger one removes more background and more of the rim.
    reg_weight : float, optional
        Weight :math:`\lambda` of the energy of the local field (1e-4 in the authors' code).
    max_iter : int, optional
        Largest number of iterations.
    tol : float, optional
        Stop when the relative norm of the residual is below this.
    return_history : bool, optional
        Return the relative norm of the residual after each iteration as well.

    Returns
    -------
    local_field : ndarray of float32, shape (X, Y, Z)
        Local field, in ppm, zero outside the returned mask.
    mask : ndarray of bool, shape (X, Y, Z)
        Where the local field holds: the mask eroded by ``radius``.
    history : list of float
        Only with ``return_history``.

    Raises
    ------
    ValueError
        If the sphere fits nowhere into the mask.

    References
    ----------
    .. [1] Sun H, Wilman AH. Magn Reson Med 2014;71:1151-1157. doi:10.1002/mrm.24765

    Examples
    --------
    >>> x, y, z = np.ogrid[-8:8, -8:8, -8:8]
    >>> mask = x**2 + y**2 + z**2 < 49
    >>> local, reduced = resharp(0.1 + 0.05 * z + 0 * x * y, mask, (1, 1, 1), radius=3)
    >>> bool(np.abs(local).max() < 1e-3), bool(reduced.sum() < mask.sum())
    (True, True)
    """
    field, mask = check_volume(total_field, mask, 'total_field')
    voxel_size = check_voxel_size(voxel_size)
    check_positive(radius=radius, reg_weight=reg_weight)
    weights = check_weights(weights, mask)
    box = ops.bounding_box(mask)
    inside = mask[box]
    grid = ops.pad_shape(inside.shape, _reach(radius, voxel_size))
    mean = ops.smv_kernel(grid, voxel_size, radius)
    padded_mask = ops.pad_to(inside, grid)
    eroded = _eroded(ops.rfft(padded_mask.astype(np.float32)), mean, padded_mask)
    if not eroded.any():
        raise ValueError(
            f'A sphere of radius {radius:g} mm fits nowhere into the mask. Take a smaller radius '
            'or check the mask.'
        )
    high_pass = 1 - mean
    weight2 = ops.pad_to(weights[box], grid) ** 2 * eroded

    def filtered(x):
        return ops.irfft(ops.rfft(x) * high_pass, grid)

    def normal(x):
        image = filtered(filtered(x) * weight2)
        image += np.float32(reg_weight) * x
        return image

    rhs = filtered(filtered(ops.pad_to(field[box], grid)) * weight2)
    solution, history = conjugate_gradient(normal, rhs, max_iter=max_iter, tol=tol)
    mask_out = np.zeros_like(mask)
    mask_out[box] = ops.crop(eroded, inside.shape)
    local = np.zeros_like(field)
    local[box] = ops.crop(solution, inside.shape)
    local *= mask_out
    return (local, mask_out, history) if return_history else (local, mask_out)


def _radii(radii, mask, voxel_size):
    """Return radii in mm, largest first, none of which is wider than the mask."""
    if radii is None:
        smallest = max(1.0, *voxel_size)
        radii = [*np.arange(12.0, smallest, -1.0), smallest]
    radii = sorted((float(r) for r in radii), reverse=True)
    if not radii or radii[-1] <= 0:
        raise ValueError(f'radii must be positive lengths in mm; got {radii}.')
    box = ops.bounding_box(mask)
    width = min((s.stop - s.start) * step for s, step in zip(box, voxel_size, strict=True))
    return [r for r in radii if 2 * r <= width] or radii[-1:]


def _reach(radius, voxel_size):
    """Return the voxels that a sphere reaches along each axis."""
    return tuple(int(np.ceil(radius / step)) + 1 for step in voxel_size)


def _eroded(mask_spectrum, mean, mask):
    """Return where the sphere lies inside the mask, but for a sliver of a surface voxel."""
    return (ops.irfft(mask_spectrum * mean, mask.shape) > 0.999) & mask
