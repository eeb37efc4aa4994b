"""The Laplacian on an arbitrary region with zeros around it, and its fast approximate inverse."""

from dataclasses import dataclass

import numba
import numpy as np

from qsmflow.algorithms import operators as ops
from qsmflow.algorithms.background import _multigrid_kernels as kernels

#: Axes with steps up to this times the shortest are coarsened together, the others later.
ISOTROPY = 1.5
#: A link across a face of twice the distance conducts half of what its parts do together.
LINK_SCALE = 0.5
#: Loss of conductance to the boundary with each coarsening, between none and a half: there the
#: distance grows by less than in the interior. Chosen for the fewest cycles on brain masks.
SCREEN_SCALE = 0.7
#: Sweeps of each direction on the coarsest level, which has at most a few voxels.
COARSEST_SWEEPS = 6
#: Voxels up to which one thread is faster than to share a level among several.
SMALL = 1 << 16
#: Planes that a thread restricts at least: it works out two more for its neighbours.
SLAB = 4


@dataclass
class _Level:
    """A coarse level: links to the next voxel along each axis, and work arrays."""

    factors: tuple
    links: tuple
    screen: np.ndarray
    inverse: np.ndarray
    rows: tuple
    region: np.ndarray
    u: np.ndarray
    rhs: np.ndarray

    @property
    def target(self):
        """What the restriction of a residual takes, and where it writes to."""
        slabs = max(1, min(ops.workers(), self.rhs.shape[0] // SLAB))
        return self.factors, self.rhs, self.inverse, self.u, slabs


class DirichletLaplacian:
    r"""The seven-point Laplacian :math:`\Delta` on a region, with zeros outside.

    ``-laplacian`` is symmetric and positive definite on volumes that vanish outside the region.
    ``cycle`` is one symmetric V-cycle of geometric multigrid, close to its inverse: as the
    preconditioner of conjugate gradients it needs about eight iterations for six digits, on
    rough regions as well. Coarse cells are unions of fine ones; the strength of each link
    between them, and that of each cell to the boundary, is summed from the fine links, so that
    cells which the boundary cuts are tied to it as firmly as their parts are.

    Volumes carry a frame of one voxel on every side, see ``framed`` and ``unframed``.

    Parameters
    ----------
    region : ndarray of bool, shape (X, Y, Z)
        Where the unknowns are.
    voxel_size : sequence of float
        Step along each axis; the Laplacian is per square step.
    """

    def __init__(self, region, voxel_size):
        self.region = np.pad(region, 1)
        self.strengths = tuple(np.float32(1 / step**2) for step in voxel_size)
        self.rows = row_range(self.region)
        self.levels = _build_levels(self.region, self.strengths, voxel_size)

    def empty(self):
        """Return a framed volume of zeros."""
        return np.zeros(self.region.shape, np.float32)

    def laplacian(self, u, out, where=None, sign=1):
        """Write ``sign`` times the Laplacian of ``u`` on the region, or on ``where``, to ``out``.

        ``where`` is a pair of a framed mask and its rows; ``out`` must be zero elsewhere.
        """
        region, rows = (self.region, self.rows) if where is None else where
        ops.use_threads()
        kernels.laplacian(u, region, *(sign * s for s in self.strengths), *rows, out)
        return out

    def cycle(self, rhs, out):
        """Write the approximate solution of ``-laplacian(u) = rhs`` to ``out``, zero outside."""
        threads = ops.use_threads()
        fine = (self.region, *self.strengths, *self.rows)
        kernels.start_finest(out, rhs, *fine)
        if self.levels:
            level = self.levels[0]
            kernels.restrict_finest(out, *fine, *level.target)
            self._correct(0, threads)
            numba.set_num_threads(threads)
            kernels.prolong(level.u, level.factors, self.region, *self.rows, out)
        kernels.sweep_finest(out, rhs, *fine, 1)
        kernels.sweep_finest(out, rhs, *fine, 0)
        return out

    def _correct(self, number, threads):
        """Solve for the correction on a coarse level, from its right side and its first sweep."""
        level = self.levels[number]
        threads = threads if level.u.size > SMALL else 1
        numba.set_num_threads(threads)
        stencil = (*level.links, level.inverse, *level.rows)
        kernels.sweep_coarse(level.u, level.rhs, *stencil, 1)
        if number + 1 == len(self.levels):
            for _ in range(COARSEST_SWEEPS):
                kernels.sweep_coarse(level.u, level.rhs, *stencil, 0)
                kernels.sweep_coarse(level.u, level.rhs, *stencil, 1)
            for _ in range(COARSEST_SWEEPS):
                kernels.sweep_coarse(level.u, level.rhs, *stencil, 1)
                kernels.sweep_coarse(level.u, level.rhs, *stencil, 0)
        else:
            coarse = self.levels[number + 1]
            kernels.restrict_coarse(level.u, *level.links, *level.rows, *coarse.target)
            self._correct(number + 1, threads)
            numba.set_num_threads(threads)
            kernels.prolong(coarse.u, coarse.factors, level.region, *level.rows, level.u)
        kernels.sweep_coarse(level.u, level.rhs, *stencil, 1)
        kernels.sweep_coarse(level.u, level.rhs, *stencil, 0)


def framed(volume):
    """Return a copy of a volume with one voxel of zeros on every side."""
    return np.pad(volume, 1)


def unframed(volume):
    """Return the part of a volume inside its frame, as a view."""
    return volume[1:-1, 1:-1, 1:-1]


def interior(mask):
    """Return the voxels whose six neighbours all lie in the mask.

    Parameters
    ----------
    mask : ndarray of bool, shape (X, Y, Z)
        Mask; beyond the grid is outside.

    Returns
    -------
    ndarray of bool, shape (X, Y, Z)
        The mask without its outermost layer.

    Examples
    --------
    >>> int(interior(np.ones((4, 4, 3), bool)).sum())
    4
    """
    around = np.pad(mask, 1)
    inside = mask.copy()
    for axis in range(3):
        for start in (0, 2):
            part = [slice(1, -1)] * 3
            part[axis] = slice(start, start + mask.shape[axis])
            inside &= around[tuple(part)]
    return inside


def row_range(region):
    """Return where each row along the last axis enters a region, and where it has left it."""
    first, last = np.empty((2, *region.shape[:2]), np.int32)
    ops.use_threads()
    kernels.row_range(region, first, last)
    return first, last


def _factors(steps, sizes):
    """Return by how much to coarsen each axis, 1 or 2, towards cubes."""
    shortest = min((s for s, n in zip(steps, sizes, strict=True) if n > 1), default=0)
    return tuple(
        2 if n > 1 and s <= ISOTROPY * shortest else 1 for s, n in zip(steps, sizes, strict=True)
    )


def _build_levels(region, strengths, voxel_size):
    """Return the coarse levels, the finest of them first."""
    levels, steps, sizes = [], tuple(voxel_size), tuple(n - 2 for n in region.shape)
    ones = region.astype(np.float32)
    ops.use_threads()
    while max(sizes) > 2:
        factors = _factors(steps, sizes)
        sizes = tuple(-(-n // f) for n, f in zip(sizes, factors, strict=True))
        steps = tuple(s * f for s, f in zip(steps, factors, strict=True))
        new = [np.zeros(tuple(n + 2 for n in sizes), np.float32) for _ in range(7)]
        if levels:
            kernels.coarse_links(*levels[-1].links, levels[-1].screen, *_scales(factors), *new[:4])
        else:
            kernels.first_links(ones, *strengths, *_scales(factors), *new[:4])
        levels.append(_level(factors, new))
    return levels


def _scales(factors):
    """Return what the links of a level that is coarsened by ``factors`` are made with."""
    links = tuple(np.float32(LINK_SCALE if f == 2 else 1) for f in factors)
    return factors, links, np.float32(SCREEN_SCALE)


def _level(factors, volumes):
    """Return a level from its links, its screen and three empty volumes."""
    kernels.inverse_diagonal(*volumes[:5])
    region = volumes[4] > 0
    links, screen = tuple(volumes[:3]), volumes[3]
    return _Level(factors, links, screen, volumes[4], row_range(region), region, *volumes[5:])
