"""What the inversions share: the problem on its padded grid, and the split of its gradient."""

from dataclasses import dataclass

import numpy as np

from qsmflow.algorithms import _kernels as kernels
from qsmflow.algorithms import operators as ops
from qsmflow.algorithms._checks import check_volume, check_voxel_size, check_weights


@dataclass
class Problem:
    """The field, weights and operators on the padded bounding box of the mask."""

    mask: np.ndarray
    box: tuple
    grid: tuple
    field: np.ndarray
    weight2: np.ndarray
    inside: np.ndarray
    kernel: np.ndarray
    steps: tuple
    eigenvalues: tuple

    @classmethod
    def build(cls, local_field, mask, voxel_size, b0_dir, weights, pad):
        """Check the arguments of an inversion and put them on the padded grid."""
        field, mask = check_volume(local_field, mask, 'local_field')
        voxel_size = check_voxel_size(voxel_size)
        weights = check_weights(weights, mask)
        box = ops.bounding_box(mask)
        grid = ops.pad_shape(mask[box].shape, pad)
        relative = relative_voxel_size(voxel_size)
        return cls(
            mask=mask,
            box=box,
            grid=grid,
            field=ops.pad_to(field[box], grid),
            weight2=ops.pad_to(weights[box], grid) ** 2,
            inside=ops.pad_to(mask[box], grid),
            kernel=ops.dipole_kernel(grid, voxel_size, b0_dir=b0_dir),
            steps=tuple(np.float32(1 / step) for step in relative),
            eigenvalues=ops.laplacian_eigenvalues(grid, relative),
        )

    def dipole(self, volume):
        """Return the field of a susceptibility volume on the padded grid."""
        return ops.convolve(volume, self.kernel)

    def placed(self, padded):
        """Return the data part of a padded volume on the full grid, zero outside the mask."""
        chi = np.zeros(self.mask.shape, np.float32)
        chi[self.box] = ops.crop(padded, self.mask[self.box].shape)
        chi *= self.mask
        return chi


class GradientSplit:
    """The dual variable of the gradient split and the source that it gives."""

    def __init__(self, grid, steps):
        self.dual = np.zeros((3, *grid), np.float32)
        self.divergence = np.zeros(grid, np.float32)
        self.source = np.empty(grid, np.float32)
        self.steps = steps

    def update(self, chi, penalty, level):
        """Return ``-div(g - u) + laplacian(chi)``, the part of the source not in chi."""
        ops.use_threads()
        kernels.project_dual(chi, penalty, np.float32(level), *self.steps, self.dual)
        kernels.dual_source(self.dual, *self.steps, self.divergence, self.source)
        return self.source


def relative_voxel_size(voxel_size):
    """Return voxel edges in units of their geometric mean, so that penalties carry over.

    Parameters
    ----------
    voxel_size : tuple of float
        Voxel edge lengths, in mm.

    Returns
    -------
    tuple of float
        Edge lengths with product 1.

    Examples
    --------
    >>> relative_voxel_size((2.0, 2.0, 2.0))
    (1.0, 1.0, 1.0)
    """
    mean = float(np.prod(voxel_size)) ** (1 / 3)
    return tuple(step / mean for step in voxel_size)
