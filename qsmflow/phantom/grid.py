"""The grid of the physics and the grid of the scan, and the way from one to the other."""

from dataclasses import dataclass

import numpy as np
from scipy import fft

from qsmflow.algorithms.operators import workers
from qsmflow.phantom.tissues import RIGHT

# All labels in the order in which equals are chosen, and the place of each in that order.
_LABEL_AT = np.array(sorted(range(256), key=lambda label: (label % RIGHT, label)), np.uint8)
_RANK_OF = np.argsort(_LABEL_AT).astype(np.uint8)


def orient(shape, affine, axes: str) -> tuple[tuple[int, int, int], np.ndarray]:
    """Reorder and flip the axes of a grid that runs right, anterior, superior.

    Parameters
    ----------
    shape : tuple of int
        Shape of the grid in RAS order.
    affine : ndarray of float, shape (4, 4)
        Its affine.
    axes : str
        One of L/R, one of A/P and one of S/I, in the order of the new array axes; each letter
        is where its index grows to.

    Returns
    -------
    shape : tuple of int
    affine : ndarray of float, shape (4, 4)
        The same grid with other axes.

    Raises
    ------
    ValueError
        If the letters do not name three different axes.

    Examples
    --------
    >>> orient((4, 5, 6), np.eye(4), 'PSR')[0]
    (5, 6, 4)
    """
    letters = {'R': (0, 1), 'L': (0, -1), 'A': (1, 1), 'P': (1, -1), 'S': (2, 1), 'I': (2, -1)}
    chosen = [letters.get(letter) for letter in axes.upper()]
    if None in chosen or sorted(axis for axis, _ in chosen) != [0, 1, 2]:
        raise ValueError(f"axes must be three letters such as 'RAS' or 'LPS'; got {axes!r}.")
    result = np.eye(4)
    result[:, 3] = affine[:, 3]
    for new, (old, sign) in enumerate(chosen):
        result[:3, new] = sign * affine[:3, old]
        if sign < 0:
            result[:3, 3] += (shape[old] - 1) * affine[:3, old]
    return tuple(shape[old] for old, _ in chosen), result


@dataclass(frozen=True, eq=False)
class FineGrid:
    """The grid of the physics: the same field of view as the scan's, with smaller voxels.

    Attributes
    ----------
    shape : tuple of int
        Shape of the fine grid.
    affine : ndarray of float, shape (4, 4)
        Its voxel indices to scanner coordinates, in mm.
    coarse_shape : tuple of int
        Shape of the scan's grid.
    factor : int
        How many fine voxels lie along each edge of a voxel of the scan.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray
    coarse_shape: tuple[int, int, int]

    factor: int

    @classmethod
    def make(cls, shape, affine, factor: int) -> 'FineGrid':
        """Return the grid whose voxels are ``factor`` times smaller than the scan's.

        Only whole factors: the average over a voxel then cancels the ringing, at the fine grid's
        own Nyquist frequency, of the field of a sharp edge.
        """
        fine = np.array(affine, float)
        fine[:3, :3] /= factor
        # Both grids begin at the same edge, half a voxel before their first centre.
        fine[:3, 3] += np.asarray(affine)[:3, :3] @ np.full(3, 0.5 / factor - 0.5)
        return cls(tuple(n * factor for n in shape), fine, tuple(shape), factor)

    def coordinates(self):
        """Return the place along every axis, from -1 to 1 at the edges, as open float32 arrays."""
        axes = [(2 * np.arange(n, dtype=np.float32) + 1) / n - 1 for n in self.shape]
        return np.meshgrid(*axes, indexing='ij', sparse=True)

    def average(self, volume: np.ndarray) -> np.ndarray:
        """Average a volume of the fine grid over each voxel of the scan; float32."""
        result = volume.astype(np.float32, copy=False)
        for axis in (2, 1, 0):
            parts = [
                result[(slice(None),) * axis + (slice(k, None, self.factor),)]
                for k in range(self.factor)
            ]
            if self.factor > 1:
                result = sum(parts[1:], parts[0]) * np.float32(1 / self.factor)
        return result

    def majority(self, labels: np.ndarray) -> np.ndarray:
        """Return the commonest label above zero in each voxel of the scan, the lowest of equals.

        A label of the right side ranks as that of the left, so that neither side of a nucleus
        gets the voxels that it fills by half, and the other does not.

        Examples
        --------
        >>> grid = FineGrid.make((1, 1, 1), np.eye(4), 2)
        >>> int(grid.majority(np.array([0, 0, 0, 0, 0, 7, 7, 3]).reshape(2, 2, 2))[0, 0, 0])
        7
        >>> left, right = (np.repeat([30, nucleus], 4).reshape(2, 2, 2) for nucleus in (21, 121))
        >>> int(grid.majority(left)[0, 0, 0]), int(grid.majority(right)[0, 0, 0])
        (21, 121)
        """
        f = self.factor
        labels = _RANK_OF[labels]
        corners = np.ndindex(f, f, f)
        parts = np.sort([labels[tuple(slice(k, None, f) for k in c)] for c in corners], axis=0)
        best, most = parts[0], np.zeros(parts[0].shape, np.uint8)
        # In sorted order each label is one run: count its length where it begins.
        count = np.zeros(parts[0].shape, np.uint8)
        for index, part in enumerate(parts):
            same = part == parts[index - 1] if index else np.zeros(part.shape, bool)
            count = np.where(same, count + 1, 1) * (part > 0)
            better = count > most
            best, most = np.where(better, part, best), np.where(better, count, most)
        return _LABEL_AT[best]

    def crop_kspace(self, signal: np.ndarray) -> np.ndarray:
        """Keep the middle of the k-space of a signal, at the scan's voxel centres.

        Parameters
        ----------
        signal : ndarray of complex64
            On the fine grid; its content is lost.

        Returns
        -------
        ndarray of complex64
            On the scan's grid. Half of each Nyquist frequency is kept where there is one.
        """
        if self.factor == 1:
            return signal
        for axis in (2, 1, 0):
            signal = self._crop_axis(signal, axis)
        return signal

    def _crop_axis(self, signal, axis):
        n, m = self.coarse_shape[axis], self.shape[axis]
        spectrum = np.moveaxis(
            fft.fft(signal, axis=axis, workers=workers(), overwrite_x=True), axis, -1
        )
        positive, negative = (n + 1) // 2, n // 2
        kept = np.concatenate([spectrum[..., :positive], spectrum[..., m - negative :]], axis=-1)
        frequency = np.concatenate([np.arange(positive), np.arange(-negative, 0)])
        # The first centre of the scan lies this much of the field of view after that of the
        # fine grid.
        shift = 0.5 / n - 0.5 / m
        ramp = np.exp(2j * np.pi * frequency * shift) / self.factor
        kept *= ramp.astype(np.complex64)
        if n % 2 == 0:
            other = spectrum[..., n // 2] * np.complex64(np.exp(1j * np.pi * n * shift))
            kept[..., n // 2] = 0.5 * (kept[..., n // 2] + other / np.float32(self.factor))
        result = fft.ifft(kept, axis=-1, workers=workers(), overwrite_x=True)
        return np.ascontiguousarray(np.moveaxis(result, -1, axis))
