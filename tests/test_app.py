"""The program as its users meet it: folders in, folders, log lines and exit codes out."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

VALIDATOR = Path(sys.executable).with_name('bids-validator-deno')
EXPECTED = (Path(__file__).with_name('app_outputs.txt')).read_text().split()
GROUP_FILES = {
    *('group.html', 'group_atlas-CIT168_stats.tsv', 'group_atlas-CIT168_stats.json'),
}
STAMP = r'\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\] '
#: Regions of many voxels, even on the coarse grid of the small phantom.
REGIONS = [(name, side) for name in ('caudate', 'putamen', 'GPe') for side in 'LR']


def rows(path):
    with open(path, encoding='utf-8', newline='') as stream:
        return list(csv.DictReader(stream, delimiter='\t'))


def truth(phantom, name):
    anat = phantom / 'derivatives/phantom-truth/sub-01/anat'
    return anat / f'sub-01_{name}'


def load(path):
    return np.asanyarray(nib.load(path).dataobj)


def status(run):
    return {row['name']: (row['status'], row['reason']) for row in rows(run.logs / 'status.tsv')}


def agreement(chimap, mask, phantom, rim=0):
    """Return correlation and slope of a susceptibility map against the truth.

    A ``rim`` of so many voxels is left out.
    """
    inside = load(mask) > 0
    inside = ndimage.binary_erosion(inside, iterations=rim) if rim else inside
    true, found = load(truth(phantom, 'Chimap.nii.gz'))[inside], load(chimap)[inside]
    return np.corrcoef(true, found)[0, 1], np.polyfit(true, found, 1)[0]


# The participant level with its defaults.


def test_finishes_and_says_so(base_run):
    assert base_run.code == 0, base_run.stderr
    assert base_run.last_line.endswith(
        'all requested acquisitions and reports are done; exit code 0'
    )
    assert status(base_run) == {'sub-01': ('done', 'n/a'), 'sub-01 report': ('done', 'n/a')}


def test_writes_exactly_what_is_listed(base_run):
    assert sorted(base_run.files - GROUP_FILES) == sorted(EXPECTED)
    hidden = [path for path in Path(base_run.out).rglob('.*') if path.name != '.bidsignore']
    assert not hidden


@pytest.mark.parametrize('which', ['input', 'output'])
def test_is_valid_bids(phantom, base_run, which):
    folder = phantom if which == 'input' else base_run.out
    done = subprocess.run([VALIDATOR, folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_progress_is_lines_with_time_when_there_is_no_terminal(base_run):
    lines = [line for line in base_run.stderr.splitlines() if line.startswith('[')]
    assert all(re.match(rf'{STAMP}sub-01( T1w)?: .+ done \(\d+/\d+\)$', line) for line in lines)
    assert any('dipole inversion: invert done' in line for line in lines)
    assert 8 < len(lines) < 35, 'one line for each step, none for each stored file'
    assert '\x1b' not in base_run.stderr
    assert 'Traceback' not in base_run.stderr


def test_regions_agree_with_the_truth(phantom, base_run):
    table = rows(Path(base_run.out) / 'sub-01/anat/sub-01_atlas-CIT168_stats.tsv')
    found = {(row['region'], row['hemi'], row['map']): row for row in table}
    true = {(r['name'], r['hemi']): r for r in rows(truth(phantom, 'desc-truth_stats.tsv'))}
    chi = np.array([float(found[(*region, 'chi')]['mean']) for region in REGIONS])
    r2star = np.array([float(found[(*region, 'R2star')]['mean']) for region in REGIONS])
    assert {found[(*region, 'chi')]['unit'] for region in REGIONS} == {'ppb'}
    # The table is in ppb, the truth in ppm. The tolerance is that of voxels of 4 mm.
    expected = 1000 * np.array([float(true[region]['chi_mean']) for region in REGIONS])
    assert np.abs(chi - expected).max() < 45
    assert 0.5 < np.polyfit(expected, chi, 1)[0] < 1.3
    expected = np.array([float(true[region]['r2star_mean']) for region in REGIONS])
    assert np.abs(r2star / expected - 1).max() < 0.2
    whole = found['whole_brain', 'n/a', 'chi']
    assert abs(float(whole['mean'])) < 0.01, 'the whole brain is the reference'
    assert whole['reference'] == 'whole_brain'


def test_map_agrees_with_the_truth(phantom, base_run):
    anat = Path(base_run.out) / 'sub-01/anat'
    correlation, slope = agreement(
        anat / 'sub-01_Chimap.nii.gz', anat / 'sub-01_desc-qsm_mask.nii.gz', phantom
    )
    assert correlation > 0.6
    assert 0.5 < slope < 1.3
    brain = load(truth(phantom, 'desc-brain_mask.nii.gz')) > 0
    mask = load(anat / 'sub-01_desc-brain_mask.nii.gz') > 0
    assert 2 * np.sum(brain & mask) / (brain.sum() + mask.sum()) > 0.9


def test_report_has_every_section(base_run):
    html = (Path(base_run.out) / 'sub-01.html').read_text(encoding='utf-8')
    sections = re.findall(r'<section[^>]* id="sub-01-([^"]+)"', html)
    assert sections == [
        *('findings', 'magnitude', 'phase', 'total-field', 'local-field', 'chi', 'r2star'),
        *('atlas', 'registration', 'table-CIT168', 'methods', 'details'),
    ]
    assert html.count('data:image/png;base64,') >= 8
    assert not re.search(r'(?:src|href)="(?!#|data:|https://doi)[^"]', html), 'self-contained'


def test_citations_and_settings_lie_beside_the_results(phantom, base_run):
    import tomllib

    text = (Path(base_run.out) / 'logs/CITATION.md').read_text(encoding='utf-8')
    assert 'projection onto dipole fields (Liu et al. 2011)' in text
    assert '@' not in text.split('## References')[0], 'every citation was resolved'
    entries = (Path(base_run.out) / 'logs/CITATION.bib').read_text(encoding='utf-8')
    assert entries.count('\n@') + entries.startswith('@') == len(
        re.findall(r'^\d+\. ', text, re.MULTILINE)
    )
    settings = tomllib.loads((base_run.logs / 'qsmflow.toml').read_text(encoding='utf-8'))
    assert settings['bids']['bids_dir'] == str(phantom)
    assert settings['execution']['run_uuid'] == base_run.logs.name
    assert settings['reconstruction']['inversion'] == 'tv'


def test_input_is_not_touched(app, phantom, state, base_run):
    before = json.loads((app.root / 'raw.json').read_text())
    assert {name: list(entry) for name, entry in state(phantom).items()} == before


# Again, from the work folder.


@pytest.fixture(scope='module')
def second_run(app, phantom, base_run):
    """Return a run on the same work folder and a copy of the output that lost some files.

    Its standard error is a terminal.
    """
    out = app.root / 'out2'

    def action():
        shutil.copytree(base_run.out, out, ignore=shutil.ignore_patterns('logs', 'group*'))
        for lost in ('anat/sub-01_Chimap.nii.gz', 'anat/sub-01_atlas-CIT168_stats.tsv'):
            (out / 'sub-01' / lost).unlink()
        shutil.rmtree(out / 'sub-01/figures')
        return on_terminal(app, phantom, out, base_run.work)

    return app.once('second', action)


def on_terminal(app, raw, out, work):
    import pty

    ours, theirs = pty.openpty()
    command = app.command(raw, out, 'participant', work=work)
    started = time.time()
    environment = {**os.environ, 'TERM': 'xterm-256color', 'COLUMNS': '120', 'LINES': '40'}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=theirs, cwd=app.root, env=environment
    ) as process:
        os.close(theirs)
        shown = b''
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # the other end was closed
                break
            if not part:
                break
            shown += part
        stdout = process.stdout.read().decode()
    os.close(ours)
    text = shown.decode(errors='replace').replace('\r\n', '\n')
    seconds = time.time() - started
    kind = type(app.once('base', None))
    return kind(process.returncode, stdout, text, started, seconds, str(out), str(work))


def results(folder):
    """Return the bytes of all results; run names and folders in the pages are left out."""
    found = {}
    for path in sorted(Path(folder).rglob('*')):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not name.startswith(('logs/', 'group')):
            content = path.read_bytes()
            if path.suffix == '.html':
                content = re.sub(rb'\d{8}-\d{6}_[0-9a-f-]{36}', b'RUN', content)
                content = content.replace(f'output_dir = &#34;{folder}&#34;'.encode(), b'OUT')
            found[name] = content
    return found


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


# The group level, and runs without results.


def test_group_level(app, phantom, base_run):
    with app.alone('group'):
        run = app.run(phantom, base_run.out, 'group')
    assert run.code == 0, run.stderr
    assert run.last_line.endswith('exit code 0')
    assert run.files >= GROUP_FILES
    table = rows(Path(base_run.out) / 'group_atlas-CIT168_stats.tsv')
    own = rows(Path(base_run.out) / 'sub-01/anat/sub-01_atlas-CIT168_stats.tsv')
    assert len(table) == len(own)
    assert {row['participant_id'] for row in table} == {'sub-01'}
    (participant,) = rows(phantom / 'participants.tsv')
    assert {row['age'] for row in table} == {participant['age']}
    assert [row['mean'] for row in table] == [row['mean'] for row in own]
    assert 'caudate' in (Path(base_run.out) / 'group.html').read_text(encoding='utf-8')


def test_group_level_without_tables(app, phantom, tmp_path):
    run = app.run(phantom, tmp_path / 'out', 'group')
    assert run.code == 65
    assert 'participant level' in run.last_line
    assert run.last_line.endswith('exit code 65')


def test_dry_run_leaves_nothing(app, phantom, state, tmp_path):
    before = state(phantom)
    out, work = tmp_path / 'out', tmp_path / 'work'
    run = app.run(phantom, out, 'participant', '--dry-run', work=work)
    assert run.code == 0, run.stderr
    assert 'sub-01: will be processed' in run.stdout
    assert not list(tmp_path.iterdir())
    assert state(phantom) == before


# Interrupted.


def start(app, phantom, out, work, *options):
    """Start a run in a session of its own and wait for its first steps."""
    mask = ('--mask', truth(phantom, 'desc-brain_mask.nii.gz'), '--atlas', 'none')
    process = subprocess.Popen(
        app.command(phantom, out, 'participant', *mask, *options, work=work),
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    for line in process.stderr:
        if re.match(rf'{STAMP}.*prepare done', line):
            return process
    raise AssertionError('it ended before its first step')


def members(session):
    """Return the processes of a session, with their parent and command."""
    found = {}
    for folder in Path('/proc').glob('[0-9]*'):
        try:
            if os.getsid(int(folder.name)) == session:
                fields = (folder / 'stat').read_text().rpartition(')')[2].split()
                if fields[0] != 'Z':
                    found[int(folder.name)] = int(fields[1])
        except (OSError, ValueError):
            continue
    return found


def wait_for_end(session, seconds):
    deadline = time.time() + seconds
    while members(session) and time.time() < deadline:
        time.sleep(0.1)
    return members(session)


@pytest.mark.parametrize(
    ('processes', 'number', 'whole_group', 'code'),
    [(1, signal.SIGTERM, False, 143), (2, signal.SIGINT, True, 130)],
    ids=['terminated', 'ctrl-c'],
)
def test_ends_at_once(app, phantom, tmp_path, processes, number, whole_group, code):
    out, work = tmp_path / 'out', tmp_path / 'work'
    process = start(app, phantom, out, work, '--nprocs', processes)
    assert len(members(process.pid)) > 1, 'there are workers'
    sent = time.time()
    (os.killpg if whole_group else os.kill)(process.pid, number)
    _, text = process.communicate(timeout=60)
    assert time.time() - sent < 15, 'two seconds, if the machine has nothing else to do'
    assert process.returncode == code
    assert text.rstrip().endswith(f'exit code {code}')
    assert 'Traceback' not in text
    assert wait_for_end(process.pid, 5) == {}, 'nothing is left behind'
    (table,) = (out / 'logs').glob('*/status.tsv')
    kept = {row['name']: row['status'] for row in rows(table)}
    assert kept['sub-01'] == 'interrupted'
    assert f'received {number.name} while computing' in table.read_text()
    if kept.get('sub-01 report') == 'done':  # there was time for it
        page = (out / 'sub-01.html').read_text(encoding='utf-8')
        assert 'Interrupted: received' in page
    assert not list((out / 'sub-01').rglob('.*'))
    assert not [path for path in (*out.iterdir(), *work.iterdir()) if 'locks' in path.name]


@pytest.mark.slow
def test_a_killed_worker_is_told(app, phantom, tmp_path):
    process = start(app, phantom, tmp_path / 'out', tmp_path / 'work', '--nprocs', 1)
    family = members(process.pid)
    (worker,) = (one for one, parent in family.items() if family.get(parent) == process.pid)
    os.kill(worker, signal.SIGKILL)
    _, text = process.communicate(timeout=120)
    assert process.returncode == 1
    assert '[FATAL E103]' in text
    assert 'killed by SIGKILL' in text
    assert text.rstrip().endswith('exit code 1')
    (table,) = (tmp_path / 'out/logs').glob('*/status.tsv')
    state_ = {row['name']: row['status'] for row in rows(table)}
    assert state_ == {'sub-01': 'failed', 'sub-01 report': 'done'}
    assert 'killed by SIGKILL' in (tmp_path / 'out/sub-01.html').read_text(encoding='utf-8')


@pytest.mark.slow
def test_workers_do_not_outlive_a_killed_program(app, phantom, tmp_path):
    process = start(app, phantom, tmp_path / 'out', tmp_path / 'work', '--nprocs', 2)
    process.kill()
    process.wait(timeout=30)
    assert wait_for_end(process.pid, 60) == {}
    process.stderr.close()


# Series that are not the usual ones.


def series_files(phantom, part='*'):
    return sorted((phantom / 'sub-01/anat').glob(f'sub-01_echo-*_part-{part}_MEGRE.*'))


def copy_series(phantom, raw, acq, files, edit=lambda path: None):
    """Copy files of the phantom's series under another ``acq`` label."""
    anat = raw / 'sub-01/anat'
    for source in files:
        target = anat / source.name.replace('sub-01_', f'sub-01_acq-{acq}_')
        shutil.copy(source, target)
        edit(target)


def truncate(path):
    if path.name.endswith('echo-2_part-phase_MEGRE.nii.gz'):
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])


def add_complex(phantom, raw):
    """Write the phantom's series as real and imaginary parts."""
    for source in series_files(phantom, 'mag'):
        if source.suffix == '.json':
            continue
        phase = nib.load(str(source).replace('part-mag', 'part-phase'))
        signal_ = np.asanyarray(nib.load(source).dataobj) * np.exp(1j * phase.get_fdata())
        for part, values in (('real', signal_.real), ('imag', signal_.imag)):
            name = source.name.replace('sub-01_', 'sub-01_acq-complex_')
            target = raw / 'sub-01/anat' / name.replace('part-mag', f'part-{part}')
            nib.save(nib.Nifti1Image(values.astype(np.float32), phase.affine), target)
            sidecar = json.loads(Path(str(source).replace('.nii.gz', '.json')).read_text())
            sidecar = {**sidecar, 'Units': 'arbitrary'}
            Path(str(target).replace('.nii.gz', '.json')).write_text(json.dumps(sidecar))


def empty_dataset(phantom, raw):
    (raw / 'sub-01/anat').mkdir(parents=True)
    shutil.copy(phantom / 'dataset_description.json', raw)
    return raw


@pytest.fixture(scope='module')
def variants(app, phantom):
    """Return a run of several unusual series, one of them broken, without registration."""
    raw, out = app.root / 'variants', app.root / 'variants-out'

    def action():
        empty_dataset(phantom, raw)
        every = series_files(phantom)
        copy_series(phantom, raw, 'broken', every, truncate)
        copy_series(phantom, raw, 'phaseonly', series_files(phantom, 'phase'))
        copy_series(phantom, raw, 'single', [f for f in every if '_echo-3_' in f.name])
        copy_series(phantom, raw, 'usual', every)
        add_complex(phantom, raw)
        mask = truth(phantom, 'desc-brain_mask.nii.gz')
        options = ('--mask', mask, '--atlas', 'none', '--level', 'minimal')
        return app.run(raw, out, 'participant', *options, work=app.root / 'variants-work')

    return app.once('variants', action)


@pytest.mark.slow
def test_a_broken_series_does_not_stop_the_others(variants):
    assert variants.code == 1, variants.stderr
    assert variants.last_line.endswith('exit code 1')
    found = status(variants)
    state_, reason = found.pop('sub-01_acq-broken')
    assert state_ == 'not started'
    assert 'sub-01_acq-broken_echo-2_part-phase_MEGRE.nii.gz' in reason
    names = [f'sub-01_acq-{acq}' for acq in ('complex', 'phaseonly', 'single', 'usual')]
    assert found == dict.fromkeys([*names, 'sub-01 report'], ('done', 'n/a'))
    assert not [name for name in variants.files if 'acq-broken' in name]


@pytest.mark.slow
@pytest.mark.parametrize(
    ('acq', 'suffixes'),
    [
        ('usual', ['Chimap', 'R2starmap', 'S0map', 'T2starmap', 'mask', 'mask']),
        ('complex', ['Chimap', 'R2starmap', 'S0map', 'T2starmap', 'mask', 'mask']),
        ('phaseonly', ['Chimap', 'mask', 'mask']),
        ('single', ['Chimap', 'mask', 'mask']),
    ],
)
def test_unusual_series(phantom, variants, acq, suffixes):
    anat = Path(variants.out) / 'sub-01/anat'
    images = sorted(anat.glob(f'sub-01_acq-{acq}_*.nii.gz'))
    assert [path.name.split('.')[0].rpartition('_')[2] for path in images] == suffixes
    assert 'fmap' not in {Path(name).parent.name for name in variants.files}, '--level minimal'
    correlation, slope = agreement(
        anat / f'sub-01_acq-{acq}_Chimap.nii.gz',
        anat / f'sub-01_acq-{acq}_desc-qsm_mask.nii.gz',
        phantom,
        rim=2,  # a given mask is used as it is, and its rim has little signal
    )
    assert correlation > (0.35 if acq == 'single' else 0.7)
    assert 0.5 < slope < 1.2
    sidecar = json.loads((anat / f'sub-01_acq-{acq}_Chimap.json').read_text())
    assert sidecar['Mask']['method'] == 'given'


@pytest.mark.slow
def test_complex_parts_give_the_same_map(variants):
    anat = Path(variants.out) / 'sub-01/anat'
    one, other = (load(anat / f'sub-01_acq-{acq}_Chimap.nii.gz') for acq in ('usual', 'complex'))
    # Their phase differs by rounding, which the iterative methods enlarge, most of all at the rim.
    assert np.percentile(np.abs(one - other)[one != 0], 99) < 2e-3
    assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.999


@pytest.mark.slow
def test_phase_alone_gives_its_own_mask(app, phantom, tmp_path):
    raw = empty_dataset(phantom, tmp_path / 'raw')
    copy_series(phantom, raw, 'phaseonly', series_files(phantom, 'phase'))
    out = tmp_path / 'out'
    run = app.run(raw, out, 'participant', work=tmp_path / 'work')
    assert run.code == 0, run.stderr
    anat = out / 'sub-01/anat'
    sidecar = json.loads((anat / 'sub-01_acq-phaseonly_Chimap.json').read_text())
    assert sidecar['Mask']['method'] == 'phase quality'
    found = load(anat / 'sub-01_acq-phaseonly_desc-brain_mask.nii.gz') > 0
    brain = load(truth(phantom, 'desc-brain_mask.nii.gz')) > 0
    assert np.sum(found & brain) / brain.sum() > 0.8
    assert 'where the phase is coherent' in (out / 'logs/CITATION.md').read_text()
    assert not [name for name in run.files if 'R2star' in name or '_stats' in name]


@pytest.mark.slow
def test_all_series_broken(app, phantom, tmp_path):
    raw = empty_dataset(phantom, tmp_path / 'raw')
    copy_series(phantom, raw, 'broken', series_files(phantom), truncate)
    run = app.run(raw, tmp_path / 'out', 'participant', work=tmp_path / 'work')
    assert run.code == 65
    assert run.last_line.endswith('exit code 65')
    ((name, (state_, _)),) = status(run).items()
    assert (name, state_) == ('sub-01_acq-broken', 'not started')


@pytest.mark.slow
def test_a_node_that_fails_is_listed(app, phantom, tmp_path):
    image = nib.load(truth(phantom, 'desc-brain_mask.nii.gz'))
    empty = tmp_path / 'empty.nii.gz'
    nib.save(nib.Nifti1Image(np.zeros(image.shape, np.uint8), image.affine), empty)
    options = ('--mask', empty, '--atlas', 'none')
    run = app.run(phantom, tmp_path / 'out', 'participant', *options, work=tmp_path / 'work')
    assert run.code == 1
    assert run.last_line.endswith('exit code 1')
    state_, reason = status(run)['sub-01']
    assert state_ == 'failed'
    assert re.search(r'brain_mask_wf\.refine: ValueError: .*empty\.nii\.gz is empty', reason)
    (crash,) = run.logs.glob('crash-*.txt')
    assert str(crash) in run.stderr
    assert 'brain mask: refine FAILED' in run.stderr
    assert not (tmp_path / 'out/sub-01/anat/sub-01_Chimap.nii.gz').exists()


@pytest.mark.slow
def test_other_spaces_and_reference(app, phantom, base_run, second_run, tmp_path):
    out = tmp_path / 'out'
    options = ('--reference-region', 'csf', '--output-spaces', 'T1w', 'MNI152NLin2009cAsym')
    with app.alone('second'):
        run = app.run(phantom, out, 'participant', *options, work=base_run.work)
    assert run.code == 0, run.stderr
    anat = out / 'sub-01/anat'
    sidecar = json.loads((anat / 'sub-01_Chimap.json').read_text())
    # No voxel of 4 mm is pure fluid: the whole brain takes its place, and this is recorded.
    assert sidecar['Reference']['requested'] == 'csf'
    assert sidecar['Reference']['region'] == 'whole_brain'
    inside = load(anat / 'sub-01_desc-qsm_mask.nii.gz') > 0
    own = load(anat / 'sub-01_Chimap.nii.gz')[inside]
    t1w = nib.load(phantom / 'sub-01/anat/sub-01_T1w.nii.gz')
    for space in ('T1w', 'MNI152NLin2009cAsym'):
        (path,) = anat.glob(f'sub-01_space-{space}*_Chimap.nii.gz')
        moved = nib.load(path)
        values = moved.get_fdata()
        assert np.isfinite(values).all()
        there = values[values != 0]
        # Interpolation lowers the extremes, but the same brain is there in its own size.
        volume = there.size * np.prod(moved.header.get_zooms()[:3])
        assert 0.6 < volume / (inside.sum() * 64) < 1.6
        assert abs(np.median(there) - np.median(own)) < 0.01
        if space == 'T1w':
            assert moved.shape == t1w.shape
            np.testing.assert_allclose(moved.affine, t1w.affine, atol=1e-4)
    done = subprocess.run([VALIDATOR, out], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


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
