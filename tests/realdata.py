"""Where the real test data are. They are not part of the package."""

import os
from pathlib import Path

import pytest


def real_data(name: str) -> Path:
    """Return the folder of a real data set, or skip the test that asks for it.

    Parameters
    ----------
    name : str
        Name of the data set, a folder of ``QSMFLOW_TEST_DATA``, or of ``../shared/data`` beside
        the checkout if that variable is not set.

    Returns
    -------
    pathlib.Path
        Folder of the data set.
    """
    given = os.environ.get('QSMFLOW_TEST_DATA')
    checkout = Path(__file__).resolve().parents[1]
    root = Path(given) if given else checkout.parent / 'shared' / 'data'
    if not (root / name).is_dir():
        pytest.skip(f'real data set {name!r} is not in {root}; set QSMFLOW_TEST_DATA')
    return root / name
