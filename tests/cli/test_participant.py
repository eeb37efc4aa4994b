"""What the participant level refuses before it starts, and what its workers say."""

import dataclasses
import subprocess
import sys
import types

import pytest

from qsmflow.cli import participant
from qsmflow.settings import Settings, SettingsError


def series(name, *numbers):
    te = tuple(0.005 * number for number in numbers)
    return types.SimpleNamespace(name=name, te=te, echo_numbers=numbers, has_phase=True)


@pytest.fixture
def start(monkeypatch):
    """Return a function that starts a run on stand-ins for series, and stops before any work."""

    def run(mode, *found):
        collection = types.SimpleNamespace(series=found, failed=(), exit_code=0)
        monkeypatch.setattr('qsmflow.bids.collect', lambda **options: collection)
        monkeypatch.setattr('qsmflow.cli.plan.checked', lambda collection, settings: collection)
        monkeypatch.setattr('qsmflow.cli.plan.show', lambda collection, settings: None)
        settings = Settings()
        return participant.run(
            dataclasses.replace(
                settings,
                bids=dataclasses.replace(settings.bids, skip_bids_validation=True),
                reconstruction=dataclasses.replace(settings.reconstruction, bipolar=mode),
                execution=dataclasses.replace(settings.execution, dry_run=True),
            )
        )

    return run


@pytest.mark.parametrize('numbers', [(1, 2), (1,), (1, 3, 5)])
def test_bipolar_correction_that_is_not_possible_is_refused(start, numbers):
    good, bad = series('sub-01', 1, 2, 3), series('sub-02_acq-x', *numbers)
    with pytest.raises(SettingsError, match=r'--bipolar: sub-02_acq-x: .*auto'):
        start('on', good, bad)
    for mode in ('auto', 'off'):
        assert start(mode, good, bad) == 0
    assert start('on', good) == 0


def test_warnings_of_workers_are_shown_once():
    code = (
        'import logging; from qsmflow.cli.workers import show_messages; show_messages();'
        'logging.getLogger("qsmflow.interfaces").warning("unwrapping by x failed")'
    )
    done = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == ''
    assert done.stderr.count('unwrapping by x failed') == 1
    assert 'WARNING qsmflow: unwrapping by x failed' in done.stderr
