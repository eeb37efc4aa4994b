"""The same algorithms in plain numpy, to compare the compiled ones with.

Written from the equations, for one thread and clarity; each is tested to give the same result as
its counterpart in ``qsmflow.algorithms``.
"""

import numpy as np

from qsmflow.algorithms import operators as ops


def gradient(volume: np.ndarray) -> np.ndarray:
    """Return periodic forward differences per voxel, shape (3, X, Y, Z)."""
    return np.stack([np.roll(volume, -1, axis=axis) - volume for axis in range(3)])


def divergence(vector: np.ndarray) -> np.ndarray:
    """Return the periodic backward-difference divergence per voxel."""
    return sum(vector[axis] - np.roll(vector[axis], 1, axis=axis) for axis in range(3))


def arlo(series: np.ndarray, mask: np.ndarray, te) -> np.ndarray:
    """Return R2* by auto-regression on linear operations, in 1/s; every echo counts."""
    spacing = (te[-1] - te[0]) / (len(te) - 1)
    signal = series[mask].astype(np.float64)
    integral = (signal[:, :-2] + 4 * signal[:, 1:-1] + signal[:, 2:]) * (spacing / 3)
    drop = signal[:, :-2] - signal[:, 2:]
    above = spacing / 3 * (drop**2).sum(axis=1) + (integral * drop).sum(axis=1)
    below = (integral**2).sum(axis=1) + spacing / 3 * (integral * drop).sum(axis=1)
    result = np.zeros(mask.shape, np.float32)
    result[mask] = np.maximum(above / below, 0)
    return result


#: Options with which the package's own method is that of `tv`.
PLAIN_TV = {
    'rim_weight': 1.0, 'voxel_average': False, 'reweight': None, 'relaxation': 1.0,
    'mu': 0.03, 'rho': 0.01, 'reg_weight': 1.5e-4,
}  # fmt: skip


def tv(field, mask, *, weights=None, reg_weight=1.5e-4, outside_weight=0.01, mu=0.03, rho=0.01,
       pad=16, max_iter=20) -> np.ndarray:  # fmt: skip
    r"""Return the susceptibility by ADMM with isotropic total variation; 1 mm voxels, field up.

    .. math:: \min_\chi \tfrac12 \|W (d * \chi - f)\|^2 + \lambda \sum_v w_v |\nabla \chi|_v
    """
    box = ops.bounding_box(mask)
    grid = ops.pad_shape(mask[box].shape, pad)
    inside = ops.pad_to(mask[box], grid)
    data = ops.pad_to(np.asarray(field, np.float32)[box], grid) * inside
    trust = inside.astype(np.float32) if weights is None else ops.pad_to(weights[box], grid)
    trust = (trust * inside) ** 2
    level = np.float32(reg_weight / rho) * np.where(inside, 1, outside_weight).astype(np.float32)
    dipole = ops.dipole_kernel(grid, (1, 1, 1))
    x, y, z = np.ix_(*ops.laplacian_eigenvalues(grid))
    laplacian = x + y + z
    below = np.float32(mu) * dipole**2 + np.float32(rho) * laplacian
    below[0, 0, 0] = 1
    chi, model, data_dual = (np.zeros(grid, np.float32) for _ in range(3))
    dual = np.zeros((3, *grid), np.float32)
    for _ in range(max_iter):
        target = gradient(chi) + dual
        size = np.sqrt((target**2).sum(axis=0))
        split = target * np.maximum(1 - level / np.maximum(size, 1e-30), 0)
        dual = target - split
        total = model + data_dual
        fitted = (trust * data + mu * total) / (trust + mu)
        data_dual = total - fitted
        above = np.float32(mu) * dipole * np.fft.rfftn(fitted - data_dual)
        above += np.float32(rho) * np.fft.rfftn(-divergence(split - dual))
        spectrum = above / below
        spectrum[0, 0, 0] = 0
        chi = np.fft.irfftn(spectrum, grid, axes=(0, 1, 2)).astype(np.float32)
        model = np.fft.irfftn(dipole * spectrum, grid, axes=(0, 1, 2)).astype(np.float32)
    result = np.zeros(mask.shape, np.float32)
    result[box] = ops.crop(chi, mask[box].shape)
    return result * mask
