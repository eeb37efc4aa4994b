"""Transforms are the same bytes whenever they are written, and ITK still reads them."""

import time

import numpy as np
import pytest

from qsmflow.registration import hdf5
from qsmflow.registration.adapter import load_ants


@pytest.fixture(scope='module')
def written(tmp_path_factory):
    """Return two files of one transform, written in different seconds."""
    ants = load_ants()
    folder = tmp_path_factory.mktemp('hdf5')
    matrix = np.array([[0.9, 0.1, 0, 5], [-0.1, 0.9, 0, -3], [0, 0.05, 1.1, 2]])
    parameters = np.concatenate([matrix[:, :3].ravel(), matrix[:, 3]])
    transform = ants.create_ants_transform(
        transform_type='AffineTransform', dimension=3, parameters=parameters
    )
    paths = [str(folder / f'{name}.h5') for name in 'ab']
    for path in paths:
        ants.write_transform(transform, path)
        time.sleep(1.1)
    return paths, parameters


def content(path):
    with open(path, 'rb') as stream:
        return stream.read()


def test_times_are_all_that_differs(written):
    (one, other), parameters = written
    assert content(one) != content(other), 'ITK writes the time'
    counts = [hdf5.remove_times(path) for path in (one, other)]
    assert counts[0] == counts[1] > 0
    assert content(one) == content(other)
    # The library checks the sum of each header when it reads it.
    found = load_ants().read_transform(one)
    np.testing.assert_allclose(found.parameters, parameters)


def test_again_changes_nothing(written):
    path = written[0][0]
    hdf5.remove_times(path)
    before = content(path)
    hdf5.remove_times(path)
    assert content(path) == before


@pytest.mark.parametrize(
    'data',
    [
        b'',
        b'OHDR',
        b'OHDR\x02',
        b'xxOHDR\x02\x20',
        b'OHDR\x02\x20' + bytes(40),
        b'OHDR\x01\x20' * 9,
    ],
)
def test_what_only_looks_like_a_header_is_left_alone(tmp_path, data):
    path = tmp_path / 'x.h5'
    path.write_bytes(data)
    assert hdf5.remove_times(path) == 0
    assert path.read_bytes() == data


def test_damage_is_not_covered_up(written, tmp_path):
    data = bytearray(content(written[0][1]))
    start = data.find(b'OHDR')
    data[start + 30] ^= 0xFF
    path = tmp_path / 'x.h5'
    path.write_bytes(data)
    before = path.read_bytes()
    hdf5.remove_times(path)
    assert path.read_bytes()[start : start + 40] == before[start : start + 40]
