"""One run under everything that paths, locale, network and sidecars may do to it at once.

Rows E94 (paths), E95 (input is only read), E105 (no network), E106 (locale) and E109 (private
fields) of the catalogue are made by ``bids/defects/surroundings.py``; of E108 (names that differ
by case) the names of the outputs are looked at. And the way of a finding, from before the run and
from within it, into log, sidecar, report and exit status.
"""

import gzip
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent / 'bids'))

import defects
from defects.surroundings import NO_NETWORK, SECRETS

ROWS = [defect for defect in defects.DEFECTS if defect.stage == 'surroundings']


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    """Return surroundings with all rows, and in them a clipped echo and a mask of its own."""
    folder = tmp_path_factory.mktemp('strange')
    place = defects.Surroundings(folder, defects.write_clean(folder / 'ds'))
    defects.files.clipped_magnitude(place.dataset)
    for row in ROWS:
        row.make(place)
    mask = defects.companions.head().astype(np.uint8)
    mask[12, 14, 10] = 0
    mask[0, 0, 0] = 1
    defects.write_image(place.folder / 'mask [x];.nii.gz', mask)
    return place


@pytest.fixture(scope='module')
def before(place, state):
    return state(place.dataset.root)


def test_the_network_is_out_of_reach(tmp_path):
    """The guard of the run below holds."""
    (tmp_path / 'sitecustomize.py').write_text(NO_NETWORK)
    code = "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9/')"
    done = subprocess.run(
        [sys.executable, '-c', code],
        capture_output=True,
        text=True,
        check=False,
        env={'PATH': os.environ['PATH'], 'PYTHONPATH': str(tmp_path)},
    )
    assert 'the network was used' in done.stderr or 'a name was looked up' in done.stderr


@pytest.fixture(scope='module')
def run(place, before, tmp_path_factory):
    """Return the finished process and the output folder."""
    site = tmp_path_factory.mktemp('site')
    (site / 'sitecustomize.py').write_text(place.site)
    out, work = place.path('out'), place.path('work')
    kept = {key: os.environ[key] for key in ('PATH', 'HOME') if key in os.environ}
    path = os.pathsep.join([str(site), *filter(None, [os.environ.get('PYTHONPATH')])])
    command = [
        *(sys.executable, '-m', 'qsmflow', str(place.dataset.root), str(out), 'participant'),
        *('-w', str(work), '--mask', str(place.folder / 'mask [x];.nii.gz'), '--atlas', 'none'),
        *('--inversion', 'tkd', '--bgfr', 'sharp', '--bgfr-param', 'radius=3'),
        *('--unwrap', 'laplacian', '--nprocs', '1', '--skip-bids-validation'),
    ]
    done = subprocess.run(
        command,
        capture_output=True,
        timeout=600,
        check=False,
        env={**kept, 'PYTHONPATH': path, **place.environ},
        cwd=Path(__file__).parents[1],
    )
    return done, out


def test_all_rows_are_made():
    assert {row.code for row in ROWS} == {'E94', 'E95', 'E105', 'E106', 'E109'}


def test_it_finishes(run):
    """E94, E105, E106: no path, no locale and no missing network stands in the way."""
    done, out = run
    log = done.stderr.decode('utf-8', 'replace')
    assert done.returncode == 0, log
    assert log.rstrip().endswith('exit code 0')
    assert (out / 'sub-01/anat/sub-01_Chimap.nii.gz').exists()
    assert 'Traceback' not in log


def test_nothing_was_written_elsewhere(place, before, state, run):
    """E95: the input is as it was; beside it there are output and work folder only."""
    assert state(place.dataset.root) == before
    ours = {place.path(name).name for name in ('ds', 'out', 'work')}
    assert {path.name for path in place.folder.iterdir()} == ours | {'mask [x];.nii.gz'}


def test_nothing_is_told_of_them(run):
    done, _ = run
    text = (done.stderr + done.stdout).decode('utf-8', 'replace')
    assert not [row.code for row in ROWS if f'{row.code}]' in text]


def test_findings_are_in_log_sidecar_and_report(run):
    """From before the run (C60) and from within it (D80), by their codes."""
    done, out = run
    log = (done.stderr + done.stdout).decode('utf-8', 'replace')
    assert re.search(r'\[WARN C60\] \S*echo-1_part-mag_MEGRE\.nii\.gz: .*fraction=', log)
    assert '[FIX D80]' in log
    sidecar = json.loads((out / 'sub-01/anat/sub-01_Chimap.json').read_text(encoding='utf-8'))
    warnings = {item['code']: item for item in sidecar['Warnings']}
    assert warnings['C60']['evidence']['voxels'] > 10
    assert warnings['D80']['evidence'] == {
        'islands_removed': 1, 'holes_filled': 1, 'changed_ml': 0.002
    }  # fmt: skip
    assert warnings['D80']['file'] == 'mask [x];.nii.gz'
    summary = out / 'sub-01/figures/sub-01_desc-summary_report.json'
    summary = json.loads(summary.read_text(encoding='utf-8'))
    assert 'D80' in [item['code'] for item in summary['warnings']]
    page = (out / 'sub-01.html').read_text(encoding='utf-8')
    for code in ('C60', 'D80', 'TELAST'):
        assert re.search(rf'>\s*{code}\s*<', page), f'{code} is in the report'


def test_names_do_not_differ_by_case_alone(run):
    """E108: the results survive a file system that does not tell case apart."""
    _, out = run
    paths = [path.relative_to(out).as_posix() for path in out.rglob('*')]
    assert len(paths) > 20
    assert len({path.lower() for path in paths}) == len(paths)


def test_private_fields_are_not_passed_on(run):
    """E109: no name, date, place or number of the sidecars or headers is in any output."""
    _, out = run
    for path in (path for path in out.rglob('*') if path.is_file()):
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix == '.gz' else content
        for secret in SECRETS:
            escaped = json.dumps(secret).strip('"').encode()
            assert secret.encode() not in content, f'{secret} in {path.name}'
            assert escaped not in content, f'{secret} in {path.name}'
