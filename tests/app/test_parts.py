"""Runs of a part: reports made again, the methods text alone, and a typo in a label."""

import re
import shutil
from pathlib import Path

import pytest

from tests.app.helpers import truth


@pytest.fixture
def results_copy(base_run, tmp_path):
    out = tmp_path / 'out'
    shutil.copytree(base_run.out, out)
    return out


def test_reports_are_made_again_byte_for_byte(app, phantom, state, results_copy, tmp_path):
    page = results_copy / 'sub-01.html'
    before = page.read_bytes()
    page.write_text('lost')
    kept = {k: v for k, v in state(results_copy).items() if k not in ('sub-01.html', '.')}
    (tmp_path / 'empty').mkdir()
    options = ('participant', '--reports-only')
    run = app.run(tmp_path / 'empty', results_copy, *options, work=tmp_path / 'w')
    assert run.code == 0, run.stderr
    assert page.read_bytes() == before
    assert {k: v for k, v in state(results_copy).items() if k in kept} == kept
    assert not (tmp_path / 'w').exists(), 'nothing was computed'
    assert run.seconds < 60


def test_reports_of_participants_that_are_not_there(app, phantom, results_copy, tmp_path):
    options = ('--reports-only', '--participant-label', '1')
    run = app.run(phantom, results_copy, 'participant', *options)
    assert run.code == 2
    assert 'Did you mean 01' in run.stderr
    run = app.run(phantom, tmp_path / 'empty', 'participant', '--reports-only')
    assert run.code == 65
    assert 'holds no results' in run.last_line


def test_methods_text_without_a_run(app, phantom, base_run, tmp_path):
    out, work = tmp_path / 'out', tmp_path / 'work'
    run = app.run(phantom, out, 'participant', '--boilerplate-only', work=work)
    assert run.code == 0, run.stderr
    assert run.files == {f'logs/CITATION.{kind}' for kind in ('md', 'bib', 'html')}
    for name in run.files:
        assert (out / name).read_bytes() == (Path(base_run.out) / name).read_bytes()
    assert not work.exists()
    options = ('--boilerplate-only', '--md-only-boilerplate', '--inversion', 'tkd')
    run = app.run(phantom, out, 'participant', *options)
    assert run.files == {'logs/CITATION.md', 'logs/CITATION.bib'}
    assert 'Shmueli' in (out / 'logs/CITATION.md').read_text()


@pytest.mark.parametrize(
    ('options', 'word'),
    [
        (('--participant-label', 'O1'), 'Did you mean 01'),
        (('--session-label', 'pre'), 'no session'),
        (('--bids-filter-file', 'FILTER'), 'Did you mean acquisition'),
    ],
)
def test_a_typo_names_what_is_near(app, phantom, tmp_path, options, word):
    path = tmp_path / 'filter.json'
    path.write_text('{"megre": {"acquisiton": "x"}}')
    options = [str(path) if option == 'FILTER' else option for option in options]
    run = app.run(phantom, tmp_path / 'out', 'participant', '--dry-run', *options)
    assert run.code == 2
    assert word in run.stderr
    assert run.last_line.endswith('exit code 2')


@pytest.mark.slow
def test_a_sloppy_run_says_so_and_is_measured(app, phantom, tmp_path):
    mask = ('--mask', truth(phantom, 'desc-brain_mask.nii.gz'), '--atlas', 'none')
    options = (*mask, '--sloppy', '--resource-monitor', '--debug', '--notrack')
    run = app.run(phantom, tmp_path / 'out', 'participant', *options, work=tmp_path / 'w')
    assert run.code == 0, run.stderr
    assert 'SLOPPY' in (tmp_path / 'out/sub-01.html').read_text()
    assert 'SLOPPY' in (tmp_path / 'out/sub-01/anat/sub-01_Chimap.json').read_text()
    assert re.search(r'preset = "fast"', (run.logs / 'qsmflow.toml').read_text())
    lines = (run.logs / 'resources.tsv').read_text().splitlines()
    rows = [dict(zip(lines[0].split('\t'), line.split('\t'), strict=True)) for line in lines[1:]]
    by_step = {row['step']: row for row in rows}
    invert = by_step['reconstruction: susceptibility: dipole inversion: invert']
    assert 0.05 < float(invert['peak_gb']) < 4
    assert float(invert['seconds']) > 0
    assert invert['status'] == 'end'
    assert float(invert['estimated_gb']) > 0
