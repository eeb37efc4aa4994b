"""A clean dataset, written once, and copies of it to break."""

import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for the helper modules beside the tests

import defects


@pytest.fixture(scope='session')
def clean_root(tmp_path_factory):
    return defects.write_clean(tmp_path_factory.mktemp('clean') / 'ds').root


@pytest.fixture
def dataset(clean_root, tmp_path):
    """A copy of the clean dataset that a test may change."""
    root = tmp_path / 'ds'
    shutil.copytree(clean_root, root)
    return defects.Dataset(root)
