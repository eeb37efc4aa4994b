"""A small oblique scan, in memory and as files."""

import dataclasses
import types

import numpy as np
import pytest

from qsmflow import io
from qsmflow.phantom import small_acquisition

TE = (0.004, 0.010, 0.016)


@pytest.fixture(scope='session')
def scan():
    """Return a head in 6 mm voxels whose field lies along none of the array axes."""
    acquisition = small_acquisition(
        shape=(32, 38, 32), voxel_size=6.0, te=TE, rotation_deg=(25, 0, 10)
    )
    # A header holds single precision; with it the same numbers are asked of both ways.
    return dataclasses.replace(acquisition, affine=acquisition.affine.astype('f4').astype(float))


@pytest.fixture
def like(scan):
    return io.Volume(scan.truth['mask'], scan.affine)


@pytest.fixture
def save(like, tmp_path):
    """Return a function that saves an array on the grid of the scan and gives its path."""

    def write(name, array, grid=like):
        return io.save_volume(np.asarray(array), grid, tmp_path / f'{name}.nii.gz')

    return write


@pytest.fixture
def files(scan, save):
    """Return the files of the scan, and of its truth."""
    arrays = {'magnitude': scan.magnitude, 'phase': scan.phase, **scan.truth}
    arrays['first'] = scan.magnitude[..., 0]
    arrays['weights'] = scan.truth['mask'] * np.float32(0.5)
    return types.SimpleNamespace(**{name: save(name, array) for name, array in arrays.items()})


@pytest.fixture
def run(tmp_path):
    """Return a function that runs an interface in a folder of its own and gives its outputs."""

    def start(interface):
        folder = tmp_path / f'node_{len(list(tmp_path.glob("node_*")))}'
        folder.mkdir()
        return interface.run(cwd=str(folder)).outputs

    return start


@pytest.fixture
def check(like):
    """Return a function that compares a file with an array, and its grid with the scan's."""

    def compare(path, expected):
        volume = io.load_volume(path)
        np.testing.assert_array_equal(volume.data, np.asarray(expected, np.float32))
        np.testing.assert_allclose(volume.affine, like.affine, atol=1e-5)

    return compare
