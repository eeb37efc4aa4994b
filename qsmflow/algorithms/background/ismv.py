"""Background removal by iterated spherical mean values (iSMV)."""

import numpy as np

from qsmflow.algorithms import operators as ops
from qsmflow.algorithms._checks import check_count, check_volume, check_voxel_size, check_weights
from qsmflow.algorithms.background import _sphere_kernels as kernels
from qsmflow.algorithms.background import _spheres as spheres
from qsmflow.algorithms.background._multigrid import DirichletLaplacian
from qsmflow.algorithms.background._rim import trusted_values
from qsmflow.algorithms.solvers import add_scaled, conjugate_gradient


def ismv(
    total_field,
    mask,
    voxel_size,
    *,
    b0_dir=(0.0, 0.0, 1.0),
    weights=None,
    radius=5.0,
    max_iter=30,
    tol=1e-3,
    return_history=False,
):
    r"""Remove the background field by iterated spherical mean values (iSMV).

    The published iteration [1]_ replaces the field by its mean over a sphere where the sphere
    fits, in :math:`M'`, the mask eroded by the radius, and keeps it in the rim:
    :math:`f_B \leftarrow M' (\rho_R * f_B) + (1 - M') f`. Its limit is the background, which
    has the mean value property and the rim's values. Here the limit itself is solved for, as

    .. math:: M' (\delta - \rho_R) * l = M' (\delta - \rho_R) * f, \quad l = 0
        \text{ outside } M'

    for the local field :math:`l = f - f_B`.

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
        Confidence in [0, 1]. In the rim, whose field is the boundary value, a value whose
        confidence is a share :math:`w` of the largest counts by :math:`\min(1, 2w)`; the rest is
        a plane fitted to its neighbours. Ones by default, when the rim is taken as it is.
    radius : float, optional
        Radius of the sphere, in mm, 0.6 voxel edges or more; the rim is as thick. A
        larger one removes more of the local field's trace in the rim, and more of the mask. 5 mm
        is the default of a common toolbox.
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
        Local field, in ppm, zero outside the returned mask.
    mask : ndarray of bool, shape (X, Y, Z)
        Where the local field holds: the mask eroded by ``radius``.
    history : list of float
        Only with ``return_history``.

    Raises
    ------
    ValueError
        If the sphere fits nowhere into the mask, or a parameter is out of range.

    Notes
    -----
    One FFT pair and one multigrid cycle an iteration. The published iteration multiplies the
    slowest error by about :math:`1 - (R/L)^2` each time, for an object of radius :math:`L`, and
    still changes after 200. The system is symmetric and positive definite, hence fit for
    conjugate gradients. At low frequencies it is the Laplacian :math:`-D \Delta` with
    :math:`D = R^2 / 10` (from the second moments of the discrete sphere, for each axis), at high
    ones the identity: the sum of the identity and of a multigrid cycle for the Laplacian is
    the preconditioner, and the default stop takes about five iterations.

    References
    ----------
    .. [1] Wen Y, et al. Magn Reson Med 2014;72:1065-1071. doi:10.1002/mrm.24998

    Examples
    --------
    >>> x, y, z = np.ogrid[-8:8, -8:8, -8:8]
    >>> mask = x**2 + y**2 + z**2 < 49
    >>> local, reduced = ismv(0.1 + 0.05 * z + 0 * x * y, mask, (1, 1, 1), radius=3)
    >>> bool(np.abs(local).max() < 1e-3), bool(reduced.sum() < mask.sum())
    (True, True)
    """
    field, mask = check_volume(total_field, mask, 'total_field')
    voxel_size = check_voxel_size(voxel_size)
    spheres.check_radius(radius, voxel_size)
    check_count(max_iter=max_iter)
    weights = check_weights(weights, mask)
    box = ops.bounding_box(mask)
    inside = mask[box]
    fits = spheres.erode(inside, voxel_size, radius)
    field = trusted_values(field[box], weights[box], inside & ~fits, inside, voxel_size)
    system = _MeanValueSystem(fits, voxel_size, radius)
    solution, history = conjugate_gradient(
        system.apply,
        system.apply(system.framed(field)).copy(),
        precondition=system.precondition,
        max_iter=max_iter,
        tol=tol,
    )
    mask_out = np.zeros_like(mask)
    mask_out[box] = fits
    local = np.zeros(mask.shape, np.float32)
    local[box] = system.unframed(solution)
    return (local, mask_out, history) if return_history else (local, mask_out)


class _MeanValueSystem:
    """A volume less its spherical mean, on the voxels where the sphere fits.

    No padding is needed beyond the solver's frame of one voxel: a sphere that fits does not
    leave the data.
    """

    def __init__(self, fits, voxel_size, radius):
        self.shape = fits.shape
        smallest = [2 * r for r in spheres.reach(radius, voxel_size)]
        self.grid = ops.pad_shape(np.maximum(np.add(fits.shape, 2), smallest), 0)
        self.octant = ops.smv_octant(self.grid, voxel_size, radius)
        region = ops.pad_to(fits, tuple(n - 2 for n in self.grid))
        self.solver = DirichletLaplacian(region, _diffusion_steps(voxel_size, radius))
        self.image = self.solver.empty()
        self.shaped = self.solver.empty()

    def framed(self, volume):
        """Return a volume on the framed grid."""
        out = self.solver.empty()
        out[tuple(slice(1, n + 1) for n in self.shape)] = volume
        return out

    def unframed(self, volume):
        """Return the data part of a volume on the framed grid, as a view."""
        return volume[tuple(slice(1, n + 1) for n in self.shape)]

    def apply(self, volume):
        """Return the volume less its mean where the sphere fits; holds until the next call."""
        mean = spheres.filtered(ops.rfft(volume), self.octant, self.grid)
        kernels.subtract_where(volume, mean, self.solver.region, self.image)
        return self.image

    def precondition(self, volume):
        """Return an approximate inverse; it holds until the next call."""
        self.solver.cycle(volume, self.shaped)
        add_scaled(self.shaped, 1.0, volume)
        return self.shaped


def _diffusion_steps(voxel_size, radius):
    """Return steps with which the Laplacian is that of a volume less its spherical mean."""
    weights = ops.sphere_weights(voxel_size, radius)
    counts = [np.where(np.arange(n) > 0, 2.0, 1.0) for n in weights.shape]
    weights = weights * counts[0][:, None, None] * counts[1][:, None] * counts[2]
    steps = []
    for axis, step in enumerate(voxel_size):
        profile = weights.sum(axis=tuple(a for a in range(3) if a != axis))
        moment = float((profile * (np.arange(len(profile)) * step) ** 2).sum())
        steps.append(step / (moment / 2) ** 0.5)
    return tuple(steps)
