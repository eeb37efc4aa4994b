"""Susceptibility from several orientations of the head (COSMOS)."""

import warnings

import numpy as np

from qsmflow.algorithms import operators as ops
from qsmflow.algorithms._checks import (
    check_count,
    check_mask,
    check_positive,
    check_volume,
    check_voxel_size,
    check_weights,
)
from qsmflow.algorithms.solvers import conjugate_gradient

#: Conditioning from which the result carries much noise and needs regularisation.
POOR_CONDITIONING = 10.0

# Share of the largest sum of squared kernels below which a frequency counts as not measured.
_NOTHING = 1e-4

# Share of its mean that the preconditioner adds to the sum of squared kernels: it inverts the
# operator without masks, which is too little of a guide where the kernels are small.
_FLOOR = 0.1


def cosmos(
    fields,
    masks,
    voxel_size,
    *,
    b0_dirs,
    weights=None,
    pad=16,
    max_iter=60,
    tol=3e-3,
    return_history=False,
):
    r"""Return susceptibility from the fields of three or more orientations (COSMOS).

    .. math:: \min_\chi \sum_i \| W_i (d_i * \chi - f_i) \|^2,
        \quad \chi = 0 \text{ outside all masks}

    The cones on which the kernels :math:`D_i` vanish differ, so that together they determine
    every frequency and no regularisation is needed [1]_. With a field that is known everywhere
    the solution is closed, :math:`\sum_i D_i \mathcal{F} f_i / \sum_i D_i^2`; with masks or
    weights it is found by preconditioned conjugate gradients.

    Parameters
    ----------
    fields : sequence of ndarray of float, each of shape (X, Y, Z)
        Local fields, in ppm, registered to one grid. Values outside the masks are ignored.
    masks : ndarray of bool, shape (X, Y, Z), or sequence of them, or None
        Where the fields hold: one mask for all, one for each, or None for fields that are known
        everywhere.
    voxel_size : tuple of float
        Voxel edge lengths, in mm, in array-axis order.
    b0_dirs : sequence of tuple of float
        Unit vector of the main field for each orientation, in the array axes of the common
        grid.
    weights : sequence of ndarray of float, each of shape (X, Y, Z), optional
        Confidence :math:`W_i` in [0, 1]. Ones in the masks by default.
    pad : int, optional
        Voxels added on each side of the masks' bounding box.
    max_iter : int, optional
        Largest number of iterations.
    tol : float, optional
        Stop when the relative norm of the preconditioned residual is below this.
    return_history : bool, optional
        Return the relative norm of the residual after each iteration as well.

    Returns
    -------
    chi : ndarray of float32, shape (X, Y, Z)
        Susceptibility, in ppm, zero outside the voxels that all masks share, not referenced to
        any tissue.
    history : list of float
        Only with ``return_history``; empty for the closed solution.

    Raises
    ------
    ValueError
        If there are fewer than three fields, the numbers of fields, masks, directions and
        weights differ, the volumes do not fit together, or no voxel is in all masks.

    Warns
    -----
    UserWarning
        If :func:`cosmos_conditioning` of the directions exceeds 10: noise is amplified by up to
        that factor, and where it is infinite, as for one direction only, the map means nothing.

    Notes
    -----
    One FFT pair per orientation and two more in each iteration; ten to fifteen iterations. The
    preconditioner is the closed solution's filter. Three fields of no noise in a mask give
    the truth to within 0.001 ppm, where the closed solution with zeros outside the mask is off by
    twice that. Sources outside the masks are excluded: left free, they would take up noise and
    triple it within the mask. ``max_iter``, ``tol`` and ``pad`` are this package's choice.

    References
    ----------
    .. [1] Liu T, et al. Magn Reson Med 2009;61:196-204. doi:10.1002/mrm.21828

    Examples
    --------
    >>> chi = np.zeros((16, 16, 16), np.float32)
    >>> chi[5:10, 5:10, 5:10] = 0.1
    >>> b0_dirs = [(0, 0, 1), (0, 0.866, 0.5), (0, 0.866, -0.5)]
    >>> fields = [ops.forward_field(chi, (1, 1, 1), b0_dir=b0_dir) for b0_dir in b0_dirs]
    >>> found = cosmos(fields, np.ones(chi.shape), (1, 1, 1), b0_dirs=b0_dirs)
    >>> found -= found[0, 0, 0]
    >>> bool(np.abs(found - chi).max() < 0.01)
    True
    """
    check_positive(tol=tol)
    check_count(max_iter=max_iter)
    voxel_size = check_voxel_size(voxel_size)
    fields, masks, weights = _checked(fields, masks, weights, b0_dirs)
    common = np.logical_and.reduce(masks)
    if not common.any():
        raise ValueError('No voxel is in all masks. Check the registration of the orientations.')
    box = ops.bounding_box(np.logical_or.reduce(masks))
    shape = common[box].shape
    grid = ops.pad_shape(shape, pad)
    _warn_if_poor(cosmos_conditioning(grid, voxel_size, b0_dirs))
    kernels = [ops.dipole_kernel(grid, voxel_size, b0_dir=b0_dir) for b0_dir in b0_dirs]
    squares = sum(kernel**2 for kernel in kernels)
    history = []
    if weights is None:
        padded = _closed(fields, kernels, squares, box, grid)
    else:
        weights = [ops.pad_to(w[box], grid) ** 2 for w in weights]
        data = [ops.pad_to(field[box], grid) for field in fields]
        inside = ops.pad_to(np.logical_or.reduce(masks)[box], grid)
        padded, history = _weighted(data, weights, kernels, squares, inside, max_iter, tol)
    chi = np.zeros(common.shape, np.float32)
    chi[box] = ops.crop(padded, shape)
    chi *= common
    return (chi, history) if return_history else chi


def cosmos_conditioning(shape, voxel_size, b0_dirs):
    r"""Return how much worse the worst frequency is determined than the best.

    :math:`\sqrt{\max_k S / \min_k S}` with :math:`S = \sum_i D_i^2` over all frequencies but
    zero. Two different axes of rotation matter more than large angles: 0, 60 and 120 degrees
    about one axis give 2.0; 0, 20 degrees about one axis and 20 about another 6.4; 0 and
    :math:`\pm` 30 degrees about one axis 11; 0 and :math:`\pm` 15 degrees 57.

    Parameters
    ----------
    shape : tuple of int
        Shape (X, Y, Z) of the grid.
    voxel_size : tuple of float
        Voxel edge lengths, in mm, in array-axis order.
    b0_dirs : sequence of tuple of float
        Unit vector of the main field for each orientation, in array axes.

    Returns
    -------
    float
        From 1; infinite if some frequency is not determined at all.

    Notes
    -----
    Frequencies on Nyquist planes are left out: their sign is not known, so that the kernels
    there are means over two directions.

    Examples
    --------
    >>> b0_dirs = [(0, 0, 1), (0, 0.866, 0.5), (0, 0.866, -0.5)]
    >>> round(cosmos_conditioning((32, 32, 32), (1, 1, 1), b0_dirs), 2)
    2.03
    """
    voxel_size = check_voxel_size(voxel_size)
    total = sum(ops.dipole_kernel(shape, voxel_size, b0_dir=b) ** 2 for b in b0_dirs)
    measured = np.ones(total.shape, bool)
    measured[0, 0, 0] = False
    for axis, n in enumerate(shape):
        if n % 2 == 0:
            np.moveaxis(measured, axis, 0)[n // 2] = False
    values = total[measured]
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    return (high / low) ** 0.5 if low > 1e-12 else float('inf')


def _closed(fields, kernels, squares, box, grid):
    """Return the solution for fields without masks, zero where nothing is measured."""
    known = squares > _NOTHING * squares.max()
    inverse = known / np.where(known, squares, np.float32(1))
    spectrum = 0
    for field, kernel in zip(fields, kernels, strict=True):
        image = ops.rfft(field[box], grid)
        image *= kernel
        spectrum = spectrum + image
    spectrum *= inverse
    return ops.irfft(spectrum, grid)


def _weighted(data, weights, kernels, squares, inside, max_iter, tol):
    """Return the solution with squared weights and sources inside the masks, and the history."""
    grid = inside.shape
    mean = squares.mean(dtype=np.float64)
    squares[0, 0, 0] = mean
    nearly_inverse = 1 / (squares + np.float32(_FLOOR * mean))

    def adjoint(images):
        total = 0
        for image, weight, kernel in zip(images, weights, kernels, strict=True):
            image *= weight
            spectrum = ops.rfft(image)
            spectrum *= kernel
            total = total + spectrum
        sources = ops.irfft(total, grid)
        sources *= inside
        return sources

    def normal(chi):
        spectrum = ops.rfft(chi)
        return adjoint(ops.irfft(spectrum * kernel, grid) for kernel in kernels)

    def precondition(residual):
        spectrum = ops.rfft(residual)
        spectrum *= nearly_inverse
        sources = ops.irfft(spectrum, grid)
        sources *= inside
        return sources

    return conjugate_gradient(
        normal, adjoint(data), precondition=precondition, max_iter=int(max_iter), tol=tol
    )


def _warn_if_poor(conditioning):
    if conditioning > POOR_CONDITIONING:
        finite = np.isfinite(conditioning)
        how = f'{conditioning:.0f} times worse than others' if finite else 'not at all'
        warnings.warn(
            f'The orientations determine some frequencies {how}: expect noise and streaks. '
            'Rotations about two different axes, or larger ones, would do better.',
            stacklevel=3,
        )


def _checked(fields, masks, weights, b0_dirs):
    """Return lists of fields, masks and weights; no weights if the fields hold everywhere."""
    fields = list(fields)
    number = len(fields)
    if number < 3:
        raise ValueError(
            f'COSMOS needs the fields of three or more orientations; got {number}. Invert each '
            'by a method for one orientation.'
        )
    if len(b0_dirs) != number:
        raise ValueError(f'There are {number} fields but {len(b0_dirs)} directions in b0_dirs.')
    everywhere = masks is None and weights is None
    if masks is None:
        masks = np.ones(np.shape(fields[0]), bool)
    if np.ndim(masks) == 3:
        masks = [masks] * number
    for name, given in (('masks', masks), ('weights', weights)):
        if given is not None and len(given) != number:
            raise ValueError(f'There are {number} fields but {len(given)} {name}.')
    masks = [check_mask(mask, np.shape(fields[0]), 'fields') for mask in masks]
    pairs = [
        check_volume(field, mask, f'fields[{i}]')
        for i, (field, mask) in enumerate(zip(fields, masks, strict=True))
    ]
    fields = [field for field, _ in pairs]
    if everywhere:
        return fields, masks, None
    weights = [None] * number if weights is None else list(weights)
    weights = [check_weights(w, mask) for w, mask in zip(weights, masks, strict=True)]
    return fields, masks, weights
