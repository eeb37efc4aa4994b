"""A small scan with a given mask, so that nothing needs to be registered."""

import types

import numpy as np
import pytest
from scipy import ndimage

from qsmflow import io
from qsmflow.phantom import small_acquisition

TE = (0.004, 0.010, 0.016)


@pytest.fixture(scope='session')
def scan():
    """Return a head in 6 mm voxels."""
    return small_acquisition(shape=(32, 38, 32), voxel_size=6.0, te=TE, snr=100)


@pytest.fixture(scope='session')
def files(scan, tmp_path_factory):
    """Return the files of the scan, one for each echo and one for all, and of its truth."""
    folder = tmp_path_factory.mktemp('scan')
    like = io.Volume(scan.truth['mask'], scan.affine)
    arrays = {'magnitude': scan.magnitude, 'phase': scan.phase, **scan.truth}
    for echo in range(len(TE)):
        arrays[f'magnitude_{echo}'] = scan.magnitude[..., echo]
        arrays[f'phase_{echo}'] = scan.phase[..., echo]
    signal = scan.magnitude * np.exp(1j * scan.phase)
    arrays |= {'real': signal.real, 'imaginary': signal.imag}
    arrays['weights'] = scan.truth['mask'].astype(np.float32)
    arrays['half'] = (scan.truth['mask'] & (np.indices(like.shape)[0] > 15)).astype(np.uint8)
    paths = {name: io.save_volume(a, like, folder / f'{name}.nii') for name, a in arrays.items()}
    return types.SimpleNamespace(folder=folder, **paths)


@pytest.fixture(scope='session')
def core(scan):
    """Return the brain without its rim."""
    return ndimage.binary_erosion(scan.truth['mask'], iterations=2)


@pytest.fixture
def results(tmp_path):
    """Return a function that runs a graph and gives the output of a node by its full name."""

    def run(workflow, *names):
        workflow.base_dir = str(tmp_path / 'work')
        done = {node.fullname: node.result.outputs for node in workflow.run().nodes()}
        found = []
        for name in names:
            node, _, field = name.rpartition('.')
            matches = [o for key, o in done.items() if f'.{key}'.endswith(f'.{node}')]
            assert len(matches) == 1, (name, sorted(done))
            found.append(getattr(matches[0], field))
        return found

    return run
