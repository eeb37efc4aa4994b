"""What the interfaces of the package share."""

import inspect
from pathlib import Path

import numpy as np
from nipype.interfaces.base import SimpleInterface, isdefined, traits

from qsmflow import io, registration
from qsmflow.algorithms.confidence import edge_confidence

#: A trait for the direction of the main field, where the affine does not tell.
B0_DIR = traits.Tuple(
    *(traits.Float(),) * 3, desc='main field in array axes; by default as the affine says'
)

#: A trait for what registrations draw: which points of the images they compare.
SEED = traits.Int(
    registration.SEED, usedefault=True, desc='seed of the sampling of mutual information'
)


class VolumeInterface(SimpleInterface):
    """A ``SimpleInterface`` that writes its volumes under the names of its outputs.

    Files between nodes are not compressed: they are read back at once, and compression would
    cost more time than most algorithms do.
    """

    def _write(self, runtime, like: io.Volume, **volumes: np.ndarray) -> None:
        """Save each array as ``<output>.nii`` in the node's folder and set the output."""
        for output, data in volumes.items():
            path = Path(runtime.cwd) / f'{output}.nii'
            self._results[output] = io.save_volume(data, like, path)

    def _b0_dir(self, volume: io.Volume) -> tuple[float, float, float]:
        """Return the main field in array axes: as given, else from the affine."""
        return self.inputs.b0_dir if isdefined(self.inputs.b0_dir) else volume.b0_dir


class FieldProblem:
    """A field with its mask, voxel size, main field and further volumes in the order RAS+.

    Parameters
    ----------
    field : Volume
        Field, which gives the grid.
    mask_file : str
        Mask on the same grid.
    b0_dir : tuple of float
        Main field in the axes of the stored array.
    """

    def __init__(self, field: io.Volume, mask_file: str, b0_dir: tuple[float, float, float]):
        self.like = field
        self.order = io.AxisOrder.of(field.affine)
        self.field = self.order.to_ras(field.data)
        self.mask = self.order.to_ras(io.load_mask(mask_file, like=field))
        self.voxel_size = self.order.lengths(field.voxel_size)
        self.b0_dir = self.order.vector(b0_dir)

    def volume(self, path: str | None) -> np.ndarray | None:
        """Load the array of a file on the same grid, or return None when there is no file."""
        data = optional_volume(path, self.like)
        return None if data is None else self.order.to_ras(data)

    def confidence(self, path: str | None) -> np.ndarray:
        """Load the confidence in the field, or find what the field itself tells of it."""
        given = self.volume(path)
        if given is None:
            return edge_confidence(self.field, self.mask, self.voxel_size)
        return given

    def solve(self, function, **options) -> tuple[list[np.ndarray], list[float]]:
        """Call an algorithm and return what it gives.

        Parameters
        ----------
        function : callable
            Takes field, mask, voxel size and ``b0_dir``.
        **options
            Further arguments.

        Returns
        -------
        arrays : list of ndarray
            Its results in the order of the stored array.
        history : list of float
            One number for each iteration; empty where the algorithm has none.
        """
        iterates = 'return_history' in inspect.signature(function).parameters
        if iterates:
            options['return_history'] = True
        result = function(self.field, self.mask, self.voxel_size, b0_dir=self.b0_dir, **options)
        parts = list(result) if isinstance(result, tuple) else [result]
        history = parts.pop() if iterates else []
        return [self.order.from_ras(array) for array in parts], history


def optional_volume(path: str | None, like: io.Volume | None = None) -> np.ndarray | None:
    """Load the array of a file, or return None when there is no file.

    Parameters
    ----------
    path : str or Undefined or None
        A trait value that may not be set.
    like : Volume, optional
        The grid it must lie on.

    Raises
    ------
    GridMismatchError
        If it does not lie on the grid of ``like``.
    """
    if not isdefined(path) or not path:
        return None
    volume = io.load_volume(path)
    if like is not None:
        io.check_same_grid(like, volume)
    return volume.data
