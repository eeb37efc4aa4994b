"""Folders for a command line."""

import pytest


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """A dataset folder, an output folder and a current folder, as the three positionals."""
    (tmp_path / 'raw').mkdir()
    (tmp_path / 'here').mkdir()
    monkeypatch.chdir(tmp_path / 'here')
    return [str(tmp_path / 'raw'), str(tmp_path / 'out'), 'participant']
