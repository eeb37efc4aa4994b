"""What the interfaces of the package share."""

from pathlib import Path

import numpy as np
from nipype.interfaces.base import SimpleInterface, isdefined, traits

from qsmflow import io

#: A trait for the direction of the main field, where the affine does not tell.
B0_DIR = traits.Tuple(
    *(traits.Float(),) * 3, desc='main field in array axes; by default as the affine says'
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
