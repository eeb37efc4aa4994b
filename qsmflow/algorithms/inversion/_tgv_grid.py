"""The grid of the one-step TGV inversion and its linear operators."""

import math

import numpy as np
from scipy import ndimage

from qsmflow.algorithms import operators as ops
from qsmflow.algorithms.inversion import _tgv_kernels as kernels
from qsmflow.algorithms.solvers import dot

_PAIRS = ((0, 1), (0, 2), (1, 2))

#: Screening of the smoothing operator, times the square of the shortest edge: smoothing ends at
#: about ten voxels.
_SCREENING = 0.01

#: Lanczos steps for the norms of operators, and the factor for what they leave out.
_LANCZOS = 5
_MARGIN = 1.25


def laplacian_stencil(steps):
    r"""Return the nineteen-point Laplacian, whose error is isotropic.

    .. math:: \sum_a \delta_a^2 / h_a^2 + \sum_{a<b} (h_a^{-2} + h_b^{-2})
        \delta_a^2 \delta_b^2 / 12 = \nabla^2 + \tfrac{1}{12} \nabla^2
        \sum_a h_a^2 \partial_a^2 + O(h^4)

    Parameters
    ----------
    steps : sequence of float, shape (3,)
        Voxel edge lengths :math:`h_a`.

    Returns
    -------
    tuple of float32
        Ten weights, in the order of the kernels.
    """
    return _stencil(np.ones(3), np.zeros(3), steps)


def wave_stencil(steps, b0_dir):
    r"""Return the operator :math:`\tfrac13 \nabla^2 - (b \cdot \nabla)^2` as a stencil.

    But for mixed derivatives, its error is that of :func:`laplacian_stencil`, so that the ratio
    of the two is the dipole kernel to fourth order.

    Parameters
    ----------
    steps : sequence of float, shape (3,)
        Voxel edge lengths.
    b0_dir : sequence of float, shape (3,)
        Direction :math:`b` of the main field, in array axes, of any length but zero.

    Returns
    -------
    tuple of float32
        Ten weights, in the order of the kernels.
    """
    b = ops.unit_vector(b0_dir)
    mixed = np.array([-2 * b[x] * b[y] for x, y in _PAIRS])
    return _stencil(1 / 3 - b**2, mixed, steps)


def _stencil(second, mixed, steps):
    """Return the stencil of second derivatives along the axes and of mixed ones."""
    weights = np.zeros(10)
    second = second / np.square(steps)
    weights[0] = -2 * second.sum()
    weights[1:4] = second
    for n, (x, y) in enumerate(_PAIRS):
        both = (second[x] + second[y]) / 12
        weights[0] += 4 * both
        weights[[1 + x, 1 + y]] -= 2 * both
        across = mixed[n] / (4 * steps[x] * steps[y])
        weights[4 + 2 * n] = both + across
        weights[5 + 2 * n] = both - across
    return tuple(np.float32(w) for w in weights)


class Grid:
    """The bounding box of a mask with a margin of one voxel or more, and its operators.

    Parameters
    ----------
    mask : ndarray of bool, shape (X, Y, Z)
        Voxels inside, cropped to their bounding box.
    steps : tuple of float
        Voxel edge lengths, relative to the mean one.
    b0_dir : tuple of float
        Direction of the main field, in array axes.

    Attributes
    ----------
    inner : ndarray of float32
        1 at voxels with a data equation: those whose eighteen neighbours are inside.
    rows : ndarray of uint64, shape (X', Y', 2)
        The first voxel to visit in each row along the last axis, and the one after the last: all
        that are inside, and up to seven before, so that few are left over by loops that take
        eight at a time. Both are zero where none is inside.
    """

    def __init__(self, mask, steps, b0_dir):
        self.steps = steps
        self.shape = ops.pad_shape(mask.shape, 1)
        self.data = tuple(slice(1, n + 1) for n in mask.shape)
        eighteen = ndimage.generate_binary_structure(3, 2)
        self.mask = self.placed(mask)
        self.inner = self.placed(ndimage.binary_erosion(mask, eighteen))
        self.rows = _rows(self.mask != 0)
        self.inverse = tuple(np.float32(1 / h) for h in steps)
        self.laplacian = laplacian_stencil(steps)
        self.wave = wave_stencil(steps, b0_dir)
        x, y, z = ops.laplacian_eigenvalues(self.shape, steps)
        screening = np.float32(_SCREENING / min(steps) ** 2)
        self.smoothing = 1 / (screening + x[:, None, None] + y[:, None] + z)

    def placed(self, volume):
        """Return a volume of the bounding box as float32 on the grid."""
        out = np.zeros(self.shape, np.float32)
        out[self.data] = volume
        return out

    def rim(self, value):
        """Return 1 at voxels with an equation and another value at all others."""
        return np.where(self.inner != 0, np.float32(1), np.float32(value))

    def smoothed(self, volume):
        """Return the solution of (screening - Laplacian) x = volume, in one FFT pair."""
        return ops.convolve(volume, self.smoothing)

    def apply(self, stencil, volume, keep):
        """Return a stencil's image of a volume, times ``keep``."""
        out = np.zeros(self.shape, np.float32)
        ops.use_threads()
        kernels.apply_stencil(volume, stencil, keep, self.rows, out)
        return out

    def bends(self, field):
        """Return the second differences of a field along the axes.

        Parameters
        ----------
        field : ndarray of float32, shape (X, Y, Z)
            Field in the bounding box.

        Returns
        -------
        ndarray of float32, shape (3, X', Y', Z')
            On the grid; not divided by the squares of the edge lengths.
        """
        out = np.zeros((3, *self.shape), np.float32)
        ops.use_threads()
        kernels.bends(self.placed(field), self.rows, out)
        return out

    def laplacian_of(self, bends):
        """Return the Laplacian of a field at voxels with an equation, from its `bends`."""
        out = np.zeros(self.shape, np.float32)
        ops.use_threads()
        kernels.laplacian_of_bends(bends, self.inverse, self.inner, self.rows, out)
        return out

    def norms(self):
        """Return bounds of the squared norms of the data equation's two operators.

        They are those of the Laplacian of the slack and of the wave operator on the
        susceptibility, each with the steps' preconditioners on either side. They depend on the
        shape of the mask: holes and a rough rim raise them.
        """
        noise = np.random.default_rng(0).standard_normal(self.shape, np.float32)
        start = (self.mask - self.inner) * (1 + noise)
        return (
            _MARGIN * largest_eigenvalue(self.slack_square, lambda x: x, start),
            _MARGIN * largest_eigenvalue(self.wave_square, self.smoothed_inside, start),
        )

    def smoothed_inside(self, volume):
        """Return `smoothed`, zero outside: the preconditioner of the susceptibility."""
        return self.smoothed(volume) * self.mask

    def slack_square(self, slack):
        """Return the image of the slack under its part of the data equation and the adjoint."""
        step = np.sqrt(self.mask * self.rim(kernels.RIM))
        image = self.apply(self.laplacian, step * slack, self.inner)
        image = self.smoothed(image) * self.inner
        return step * self.apply(self.laplacian, image, self.mask)

    def wave_square(self, chi):
        """Return the image of the susceptibility under its part and the adjoint."""
        image = self.apply(self.wave, chi, self.inner)
        image = self.smoothed(image) * self.inner
        return self.apply(self.wave, image, self.mask)


def _rows(inside):
    first, stop = inside.argmax(axis=2), inside.shape[2] - inside[:, :, ::-1].argmax(axis=2)
    first -= (first - stop) % 8
    rows = np.stack([np.maximum(first, 1), stop], axis=-1)
    return (rows * inside.any(axis=2)[..., None]).astype(np.uint64)


def largest_eigenvalue(square, precondition, start, count=_LANCZOS):
    """Return an estimate, from below, of the largest eigenvalue of a preconditioned operator.

    Parameters
    ----------
    square, precondition : callable
        Symmetric positive semidefinite operators M and T on volumes; the eigenvalue is that of
        T M.
    start : ndarray of float32
        Volume to start from. The largest eigenvectors of the operators here lie along the rim.
    count : int, optional
        Number of Lanczos steps.

    Returns
    -------
    float
    """
    diagonal, beside = [], []
    vector, image = start, precondition(start)
    norm, previous = math.sqrt(dot(vector, image)), None
    for _ in range(count):
        vector, image = vector / np.float32(norm), image / np.float32(norm)
        residual = square(image)
        if previous is not None:
            residual -= np.float32(norm) * previous
        diagonal.append(dot(residual, image))
        residual -= np.float32(diagonal[-1]) * vector
        previous, vector, image = vector, residual, precondition(residual)
        norm = math.sqrt(max(0.0, dot(vector, image)))
        beside.append(norm)
        if norm < 1e-3 * diagonal[0]:
            break
    matrix = np.diag(diagonal) + np.diag(beside[:-1], 1) + np.diag(beside[:-1], -1)
    return float(np.linalg.eigvalsh(matrix)[-1])
