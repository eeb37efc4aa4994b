"""Background removal by the Laplacian boundary value problem (LBV)."""

import numpy as np

from qsmflow.algorithms import operators as ops
from qsmflow.algorithms._checks import check_count, check_volume, check_voxel_size, check_weights
from qsmflow.algorithms.background._multigrid import (
    DirichletLaplacian,
    framed,
    interior,
    unframed,
)
from qsmflow.algorithms.background._rim import trusted_values
from qsmflow.algorithms.solvers import conjugate_gradient


def lbv(
    total_field,
    mask,
    voxel_size,
    *,
    b0_dir=(0.0, 0.0, 1.0),
    weights=None,
    peel=1,
    max_iter=50,
    tol=1e-6,
    return_history=False,
):
    r"""Remove the background field by the Laplacian boundary value problem (LBV).

    .. math:: \Delta f_B = 0 \text{ in the mask}, \quad f_B = f \text{ on its boundary}, \quad
        l = f - f_B

    A background has no source inside, and is determined by its boundary values; they are taken
    from the total field, so that the local field is assumed to vanish there [1]_. The boundary
    is the outermost layer of the mask, the voxels with a face neighbour outside; the Laplacian
    is that of seven points, with the voxel's edge lengths.

    Parameters
    ----------
    total_field : ndarray of float, shape (X, Y, Z)
        Total field, in ppm. Values outside ``mask`` are ignored.
    mask : ndarray of bool, shape (X, Y, Z)
        Region of interest, of any shape; it may have holes and several parts.
    voxel_size : tuple of float
        Voxel edge lengths, in mm, in array-axis order.
    b0_dir : tuple of float, optional
        Not used; part of the common signature.
    weights : ndarray of float, shape (X, Y, Z), optional
        Confidence in [0, 1]. A boundary value whose confidence is a share :math:`w` of the
        largest counts by :math:`\min(1, 2w)`; the rest is a plane fitted to its neighbours in the
        mask. Ones by default, when the boundary is taken as it is.
    peel : int, optional
        Layers of the mask removed first. Each costs a voxel of rim and takes the boundary
        farther away from the voxels that hold something else than tissue, whose field the method
        would carry inwards. One layer is this package's choice, on simulated heads; common
        toolboxes take 0 to 2.
    max_iter : int, optional
        Largest number of iterations.
    tol : float, optional
        Stop when the relative norm of the residual, in the norm of the preconditioner, is below
        this. 1e-6 is that of a common toolbox; harmonic fields are removed to this accuracy.
    return_history : bool, optional
        Return the relative norm of the residual after each iteration as well.

    Returns
    -------
    local_field : ndarray of float32, shape (X, Y, Z)
        Local field, in ppm, zero outside the returned mask.
    mask : ndarray of bool, shape (X, Y, Z)
        Where the local field holds: the mask given less ``peel`` layers and the boundary.
    history : list of float
        Only with ``return_history``.

    Raises
    ------
    ValueError
        If nothing is left inside the boundary, or a parameter is out of range.

    Notes
    -----
    No FFT. Conjugate gradients with a multigrid cycle as preconditioner, about eight iterations
    to the default stop, for any mask and voxel size; each takes about half the
    time of an FFT pair. The system is solved for the local field, which is zero on the boundary:
    harmonic fields have no right-hand side, and rounding errors are relative to the local field.

    References
    ----------
    .. [1] Zhou D, et al. NMR Biomed 2014;27:312-319. doi:10.1002/nbm.3064

    Examples
    --------
    >>> x, y, z = np.ogrid[-8:8, -8:8, -8:8]
    >>> mask = x**2 + y**2 + z**2 < 49
    >>> local, reduced = lbv(0.1 + 0.05 * z + 0 * x * y, mask, (1, 1, 1))
    >>> bool(np.abs(local).max() < 1e-5), bool(reduced.sum() < mask.sum())
    (True, True)
    """
    field, mask = check_volume(total_field, mask, 'total_field')
    voxel_size = check_voxel_size(voxel_size)
    weights = check_weights(weights, mask)
    check_count(max_iter=max_iter)
    check_count(0, peel=peel)
    box = ops.bounding_box(mask)
    peeled, inside = _domain(mask[box], int(peel))
    boundary = peeled & ~inside
    values = trusted_values(field[box], weights[box], boundary, mask[box], voxel_size)
    solver = DirichletLaplacian(inside, voxel_size)
    image, shaped = solver.empty(), solver.empty()
    solution, history = conjugate_gradient(
        lambda u: solver.laplacian(u, image, sign=-1),
        solver.laplacian(framed(values), solver.empty(), sign=-1),
        precondition=lambda r: solver.cycle(r, shaped),
        max_iter=max_iter,
        tol=tol,
    )
    mask_out = np.zeros_like(mask)
    mask_out[box] = inside
    local = np.zeros(mask.shape, np.float32)
    local[box] = unframed(solution)
    return (local, mask_out, history) if return_history else (local, mask_out)


def _domain(mask, peel):
    """Return the peeled mask and its part inside the boundary layer."""
    for _ in range(peel):
        mask = interior(mask)
    inside = interior(mask)
    if not inside.any():
        raise ValueError(
            f'The mask has no voxel inside its boundary after {peel} layers are peeled off. '
            'Take a smaller peel, or check the mask.'
        )
    return mask, inside
