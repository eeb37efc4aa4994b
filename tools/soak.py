"""Run many small subjects through both levels, and fail if memory, files or time grow.

A dataset of many participants is made from one simulated head, and processed in one run on two
processes. Meanwhile the resident memory and the open files of the main process and of the workers
are taken down, with what lies in the folder of temporary files. The tool prints a table of ten
parts of the run, and fails if the last parts need more than the early ones::

    python tools/soak.py --subjects 50

Interrupted (SIGTERM, Ctrl-C), it can be started again: the program resumes. Each start is a run of
its own in the table.
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

#: Growth from the second tenth to the last one that is tolerated: MB of the main process, MB of
#: all workers, open files, entries of the temporary folder, and relative time per subject.
LIMITS = {'main_mb': 40.0, 'worker_mb': 60.0, 'files': 8, 'temp': 4, 'seconds': 0.5}
OPTIONS = (
    *('--preset', 'fast', '--inversion', 'tkd', '--unwrap', 'laplacian', '--level', 'minimal'),
    *('--no-unwrapping-fallback', '--skip-bids-validation', '--nprocs', '2'),
)


def make_dataset(folder: Path, count: int, voxel: float) -> Path:
    """Write a dataset of ``count`` participants with one series each, all of one head."""
    raw = folder / 'raw'
    if (raw / f'sub-{count:03d}').is_dir():
        return raw
    source = folder / 'one'
    command = [sys.executable, '-m', 'qsmflow.phantom.cli', str(source)]
    size = ['--voxel-size', str(voxel), '--te', '4', '12', '20']
    subprocess.run([*command, '--subjects', '1', '--sessions', '1', *size], check=True)
    truth = source / 'derivatives/phantom-truth/sub-01/anat'
    shutil.copy(next(truth.glob('*_desc-brain_mask.nii.gz')), folder / 'mask.nii.gz')
    raw.mkdir()
    shutil.copy(source / 'dataset_description.json', raw)
    for number in range(1, count + 1):
        label = f'{number:03d}'
        anat = raw / f'sub-{label}.part' / 'anat'
        anat.mkdir(parents=True)
        for path in sorted((source / 'sub-01/anat').glob('*_MEGRE.*')):
            shutil.copy(path, anat / path.name.replace('sub-01', f'sub-{label}'))
        anat.parent.rename(raw / f'sub-{label}')
    return raw


def family(pid: int) -> list[int]:
    """Return the processes that a process has started, and those that they have."""
    from qsmflow.cli.system import descendants

    return descendants(pid)


def resident_mb(pid: int) -> float:
    """Return the resident memory of a process."""
    try:
        pages = int(Path(f'/proc/{pid}/statm').read_text().split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * os.sysconf('SC_PAGE_SIZE') / 1e6


def open_files(pid: int) -> int:
    """Return the number of open files of a process."""
    try:
        return len(os.listdir(f'/proc/{pid}/fd'))
    except OSError:
        return 0


def sample(pid: int, out: Path, temp: Path) -> dict:
    """Take down the state of a run."""
    workers = sorted((resident_mb(one) for one in family(pid)), reverse=True)
    everyone = [pid, *family(pid)]
    return {
        'time': time.time(),
        'done': len(list(out.glob('sub-*/figures/*_desc-summary_report.json'))),
        'main_mb': resident_mb(pid),
        'worker_mb': sum(workers[:2]),
        'files': sum(map(open_files, everyone)),
        'temp': len(list(temp.iterdir())),
    }


def watch(command: list[str], out: Path, temp: Path, log: Path) -> tuple[int, list[dict]]:
    """Run the program and take down its state every two seconds."""
    samples = []
    environment = {**os.environ, 'TMPDIR': str(temp)}
    with log.open('a') as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=stream, env=environment)
        try:
            while process.poll() is None:
                samples.append(sample(process.pid, out, temp))
                time.sleep(2)
        except KeyboardInterrupt:
            process.terminate()
            process.wait()
    return process.returncode, samples


def lend_tables(command: list[str], folder: Path, out: Path, log: Path) -> None:
    """Give every subject the region table of one that is registered to the atlas."""
    place = folder / 'registered'
    one = [*command, '--participant-label', '001']
    one[one.index(str(out))] = str(place)
    one[one.index('none')] = 'CIT168'
    with log.open('a') as stream:
        subprocess.run(one, stdout=stream, stderr=stream, check=True)
    for anat in sorted(out.glob('sub-*/anat')):
        for path in place.glob('sub-001/anat/*_stats.*'):
            shutil.copy(path, anat / path.name.replace('sub-001', anat.parent.name))


def tenths(samples: list[dict], count: int) -> list[dict]:
    """Summarise the samples by tenths of the subjects that were finished meanwhile."""
    first, last = samples[0]['done'], samples[-1]['done']
    step = max((last - first) / 10, 1)
    rows, edge = [], samples[0]['time']
    for number in range(10):
        low, high = first + number * step, first + (number + 1) * step
        part = [s for s in samples if low <= s['done'] < high or (s['done'] == last == high)]
        if not part:
            continue
        end = part[-1]['time']
        rows.append(
            {
                'subjects': f'{low:.0f}-{min(high, count):.0f}',
                'seconds': (end - edge) / step,
                **{
                    key: sorted(s[key] for s in part)[len(part) // 2]
                    for key in ('main_mb', 'worker_mb', 'files', 'temp')
                },
            }
        )
        edge = end
    return rows


def trends(rows: list[dict]) -> list[str]:
    """Name what grew from the second tenth, when all is loaded, to the last."""
    if len(rows) < 4:
        return []
    early, late = rows[1], rows[-2]
    found = []
    for key, limit in LIMITS.items():
        growth = late[key] - early[key]
        if key == 'seconds':
            growth /= max(early[key], 1e-9)
        if growth > limit:
            found.append(f'{key} grew from {early[key]:.1f} to {late[key]:.1f}')
    return found


def show(rows: list[dict]) -> None:
    """Print the table."""
    print('| subjects | s per subject | main (MB) | workers (MB) | open files | temporary |')
    print('|---|---|---|---|---|---|')
    for row in rows:
        print(
            f'| {row["subjects"]} | {row["seconds"]:.1f} | {row["main_mb"]:.0f} | '
            f'{row["worker_mb"]:.0f} | {row["files"]} | {row["temp"]} |'
        )


def main() -> int:
    """Make the data, run both levels, and judge."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--subjects', type=int, default=50)
    parser.add_argument('--voxel-size', type=float, default=10.0, metavar='MM')
    parser.add_argument(
        '--atlas',
        default='CIT168',
        help='none registers one subject only, whose table all others get for the group level',
    )
    parser.add_argument('--folder', type=Path, help='kept; a temporary one by default')
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = options.folder or Path(tempfile.mkdtemp(prefix='qsmflow-soak-'))
    folder.mkdir(parents=True, exist_ok=True)
    temp = folder / 'tmp'
    temp.mkdir(exist_ok=True)
    raw = make_dataset(folder, options.subjects, options.voxel_size)
    out, log = folder / 'out', folder / 'log.txt'
    start = [sys.executable, '-m', 'qsmflow', str(raw), str(out)]
    more = ('--mask', str(folder / 'mask.nii.gz'), '--atlas', options.atlas)
    command = [*start, 'participant', '-w', str(folder / 'work'), *OPTIONS, *more]
    began = time.time()
    code, samples = watch(command, out, temp, log)
    rows = tenths(samples, options.subjects)
    (folder / f'samples-{int(began)}.json').write_text(json.dumps(samples))
    show(rows)
    problems = trends(rows)
    if code != 0:
        problems.append(f'the participant level ended with code {code}; see {log}')
    if code == 0:
        if options.atlas == 'none':
            lend_tables(command, folder, out, log)
        code, samples = watch([*start, 'group'], out, temp, log)
        print(f'group level: {samples[-1]["time"] - samples[0]["time"]:.0f} s, at most '
              f'{max(s["main_mb"] for s in samples):.0f} MB')  # fmt: skip
        if code != 0:
            problems.append(f'the group level ended with code {code}; see {log}')
    left = [path.name for path in temp.iterdir() if not re.fullmatch(r'qsmflow-\d+', path.name)]
    if left:
        problems.append(f'left in the temporary folder: {", ".join(left[:5])}')
    hidden = [str(path) for path in out.rglob('.part-*')]
    if hidden:
        problems.append(f'left in the output folder: {", ".join(hidden[:5])}')
    for problem in problems:
        print(f'FAILED: {problem}')
    print(f'{options.subjects} subjects, {time.time() - began:.0f} s: '
          + ('failed' if problems else 'steady'))  # fmt: skip
    if options.folder is None and not problems:
        shutil.rmtree(folder)
    return 1 if problems else 0


if __name__ == '__main__':
    sys.exit(main())
