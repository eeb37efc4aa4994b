"""A small synthetic object of nested ellipsoids with internal and external sources."""

import numpy as np

from qsmflow.algorithms import operators as ops

SHAPE = (44, 40, 36)
B0_DIRECTIONS = [(0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (0.3, -0.4, 0.866)]


def ellipsoid(shape, voxel_size, centre, radii):
    """Return an ellipsoid as booleans; centre and radii in mm from the middle of the grid."""
    axes = [(np.arange(n) - (n - 1) / 2) * step for n, step in zip(shape, voxel_size, strict=True)]
    x, y, z = np.meshgrid(*axes, indexing='ij', sparse=True)
    offsets = [(a - c) / r for a, c, r in zip((x, y, z), centre, radii, strict=True)]
    return sum(o**2 for o in offsets) <= 1


def phantom(shape=SHAPE, voxel_size=(1.0, 1.0, 1.0), b0_dir=(0.0, 0.0, 1.0)):
    """Return chi inside, mask, local field and background field of the test object."""
    half = np.asarray(shape) * np.asarray(voxel_size) / 2

    def part(centre, radii):
        return ellipsoid(shape, voxel_size, np.multiply(centre, half), np.multiply(radii, half))

    mask = part((0, 0, 0), (0.72, 0.72, 0.72))
    chi = np.zeros(shape, np.float32)
    chi[part((0, 0, 0), (0.55, 0.5, 0.5))] = -0.03
    chi[part((0.3, 0.1, 0), (0.15, 0.2, 0.22))] = 0.10
    chi[part((-0.3, 0.1, 0), (0.15, 0.2, 0.22))] = 0.06
    chi[part((0, -0.3, 0.1), (0.18, 0.12, 0.15))] = -0.08
    chi *= mask
    outside = np.zeros(shape, np.float32)
    outside[part((0.2, 0.86, -0.3), (0.2, 0.1, 0.2))] = 3.0
    outside[part((-0.2, 0.1, -0.9), (0.2, 0.2, 0.08))] = -3.0
    outside *= ~mask
    local = ops.forward_field(chi, voxel_size, b0_dir=b0_dir) * mask
    background = ops.forward_field(outside, voxel_size, b0_dir=b0_dir) * mask
    return chi, mask, local, background


def relative_error(estimate, truth, mask):
    """Return the norm of the error over that of the truth, both without their mean."""
    a, b = (v[mask] - v[mask].mean(dtype=np.float64) for v in (estimate, truth))
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))
