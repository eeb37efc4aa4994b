"""Background removal by the Laplacian inside the brain and sources outside (iHARPERELLA)."""

import numpy as np

from qsmflow.algorithms import operators as ops
from qsmflow.algorithms._checks import check_count, check_volume, check_voxel_size, check_weights
from qsmflow.algorithms._kernels import scale
from qsmflow.algorithms.background import _multigrid_kernels as kernels
from qsmflow.algorithms.background._multigrid import (
    DirichletLaplacian,
    framed,
    interior,
    row_range,
    unframed,
)
from qsmflow.algorithms.solvers import conjugate_gradient

#: Smallest relative confidence: less would let the field there become anything, and slow down
#: the solver.
LEAST_WEIGHT = np.float32(0.1)


def iharperella(
    total_field,
    mask,
    voxel_size,
    *,
    b0_dir=(0.0, 0.0, 1.0),
    weights=None,
    max_iter=60,
    tol=1e-2,
    return_history=False,
):
    r"""Remove the background field by sources of the Laplacian outside the brain (iHARPERELLA).

    .. math:: \min_{s} \| W M \Delta^{-1} (M \Delta f + s) \|^2, \quad s = 0 \text{ in the mask}

    The Laplacian of the field holds no background inside the mask :math:`M`; outside, where it
    is not known, it is chosen such that the tissue field :math:`l = \Delta^{-1}(\ldots)` has the
    least energy in the mask [1]_ [2]_.

    Two fields with the same Laplacian differ by a harmonic one, and sources outside make every
    harmonic one. Thus :math:`l` is the field less its best harmonic fit, the weighted
    least-squares projection:

    .. math:: \min_{l} \| W l \|^2 \quad \text{such that} \quad \Delta l = \Delta f
        \text{ inside the mask's boundary layer}

    and is solved for in this form, from the total field or any unwrapped phase, in ppm.

    Parameters
    ----------
    total_field : ndarray of float, shape (X, Y, Z)
        Total field, in ppm. Values outside ``mask`` are ignored.
    mask : ndarray of bool, shape (X, Y, Z)
        Region of interest, of any shape.
    voxel_size : tuple of float
        Voxel edge lengths, in mm, in array-axis order.
    b0_dir : tuple of float, optional
        Not used; part of the common signature.
    weights : ndarray of float, shape (X, Y, Z), optional
        Confidence :math:`W` in [0, 1], relative to its largest value; less than a tenth counts
        as a tenth. Ones by default, the published method. Where it is low the harmonic fit heeds
        the field less.
    max_iter : int, optional
        Largest number of iterations.
    tol : float, optional
        Stop when the relative norm of the residual, in the norm of the preconditioner, is below
        this.
    return_history : bool, optional
        Return the relative norm of the residual after each iteration as well.

    Returns
    -------
    local_field : ndarray of float32, shape (X, Y, Z)
        Tissue field, in ppm, zero outside ``mask``. Zero as well in voxels without a neighbour
        inside the boundary layer, whose field is all harmonic.
    mask : ndarray of bool, shape (X, Y, Z)
        Where the local field holds: the whole mask given.
    history : list of float
        Only with ``return_history``.

    Raises
    ------
    ValueError
        If no voxel of the mask has all its six neighbours inside, or arguments do not fit
        together.

    Notes
    -----
    The published methods find :math:`s` on the voxels of a finite frame by some tens of
    conjugate gradients with two FFT pairs each, whose end regularises. Here the minimum itself is
    found, and without FFT: with the seven-point Laplacian :math:`D` from the mask to the voxels
    inside its boundary layer, :math:`l = W^{-2} D^T v` and :math:`D W^{-2} D^T v = D f`, a
    bilaplacian on the mask with clamped boundary. Two multigrid cycles for the Laplacian with
    :math:`W^2` between them precondition conjugate gradients. The default stop, where the error
    on simulated heads has ended to change, takes 19 iterations at 2 mm and 31 at 1 mm, each at
    less than the cost of an FFT pair.

    What is harmonic in the local field is lost with the background, as in other projections: on
    simulated heads about a fifth of its contrast, against a tenth with methods that erode the
    mask.

    References
    ----------
    .. [1] Li W, et al. NMR Biomed 2014;27:219-227. doi:10.1002/nbm.3056
    .. [2] Li W, et al. Proc Intl Soc Mag Reson Med 2015, abstract 3313.

    Examples
    --------
    >>> x, y, z = np.ogrid[-8:8, -8:8, -8:8]
    >>> mask = x**2 + y**2 + z**2 < 36
    >>> local, _ = iharperella(0.1 + 0.05 * z + 0 * x * y, mask, (1, 1, 1))
    >>> bool(np.abs(local).max() < 1e-4)
    True
    """
    field, mask = check_volume(total_field, mask, 'total_field')
    voxel_size = check_voxel_size(voxel_size)
    weights = check_weights(weights, mask)
    check_count(max_iter=max_iter)
    box = ops.bounding_box(mask)
    inside = interior(mask[box])
    if not inside.any():
        raise ValueError(
            'The mask has no voxel inside its boundary layer, where the Laplacian of the field is '
            'known: all of the field would count as background. Check the mask.'
        )
    system = _ClampedBilaplacian(mask[box], inside, weights[box], voxel_size)
    solution, history = conjugate_gradient(
        system.apply,
        system.solver.laplacian(framed(field[box]), system.solver.empty()),
        precondition=system.precondition,
        max_iter=max_iter,
        tol=tol,
    )
    local = np.zeros_like(field)
    local[box] = unframed(system.source(solution))
    return (local, mask, history) if return_history else (local, mask)


class _ClampedBilaplacian:
    """The operator ``D W^-2 D^T`` on the voxels inside the boundary layer of a mask."""

    def __init__(self, mask, inside, weights, voxel_size):
        self.solver = DirichletLaplacian(inside, voxel_size)
        self.mask = framed(mask)
        self.rows = row_range(self.mask)
        self.weight2 = framed(np.maximum(weights / weights.max(), LEAST_WEIGHT) ** 2)
        self.middle, self.image, self.first, self.shaped = (self.solver.empty() for _ in range(4))

    def source(self, v):
        """Return ``W^-2 D^T v`` on the mask; it holds until the next call."""
        self.solver.laplacian(v, self.middle, where=(self.mask, self.rows))
        kernels.divide(self.middle, self.weight2)
        return self.middle

    def apply(self, v):
        """Return the image of a volume; it holds until the next call."""
        return self.solver.laplacian(self.source(v), self.image)

    def precondition(self, residual):
        """Return an approximate inverse; it holds until the next call."""
        self.solver.cycle(residual, self.first)
        scale(self.first, self.weight2)
        return self.solver.cycle(self.first, self.shaped)
