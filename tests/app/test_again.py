"""A run repeated: from its work folder, and from its settings file."""

import re
from pathlib import Path

import pytest

from tests.app.helpers import STAMP, results


def test_finished_nodes_are_not_run_again(base_run, second_run):
    assert second_run.code == 0, second_run.stderr
    assert second_run.seconds < base_run.seconds
    newer = [
        path.parent.name
        for path in Path(base_run.work).rglob('result_*.pklz')
        if path.stat().st_mtime > second_run.started
    ]
    assert len(newer) > 20
    assert {name for name in newer if not name.startswith('ds_')} == set()


def test_lost_output_comes_back_byte_for_byte(base_run, second_run):
    before, after = results(base_run.out), results(second_run.out)
    assert sorted(after) == sorted(before)
    assert [name for name in before if after[name] != before[name]] == []


def test_progress_is_live_on_a_terminal(second_run):
    assert '\x1b[' in second_run.stderr
    assert '━' in second_run.stderr
    plain = re.sub(r'\x1b\[[0-9;?]*[A-Za-z]', '', second_run.stderr)
    assert re.search(r'sub-01 +━+ +(\d+)/\1', plain), 'a bar that is full'
    assert not re.search(rf'{STAMP}.* done', plain), 'no lines beside the bars'
    assert 'exit code 0' in plain.rstrip().splitlines()[-1]
    assert '\x1b' not in second_run.stdout


@pytest.mark.slow
def test_the_settings_file_repeats_a_run(app, phantom, base_run, tmp_path):
    out = tmp_path / 'out'
    options = ('--config-file', base_run.logs / 'qsmflow.toml')
    run = app.run(phantom, out, 'participant', *options, work=tmp_path / 'work')
    assert run.code == 0, run.stderr
    before, after = results(base_run.out), results(out)
    assert sorted(after) == sorted(before)
    different = [name for name in before if after[name] != before[name]]
    # The page shows the settings, which name another output folder.
    assert different in ([], ['sub-01.html'])
