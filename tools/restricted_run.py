"""Run the installed program with as few rights as in a container, without building one.

    .venv/bin/python tools/restricted_run.py [--storage FOLDER]

A wheel of this source is installed, not editable, into an environment of its own, which takes the
dependencies from that of the interpreter. It then processes a simulated dataset as a user whom the
machine does not know, in a mount namespace where everything but output, work and temporary folder
is read-only, in a network namespace with no network, and without HOME or any other variable.
Twice: in the second process no kernel is compiled.

It needs root and namespaces. Where they are missing it says so, and exits with 0.
"""

import argparse
import os
import resource
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from shlex import quote

from _checks import ROOT, Report, outputs, state, version

#: A user whom no machine knows.
UID = 61234
#: What stays writable is mounted first, then everything else is made read-only.
SCRIPT = f"""
set -e
{{opened}}
for folder in out work tmp; do mount --bind "$0/$folder" "$0/$folder"; done
mount -o remount,bind,ro /
exec setpriv --reuid {UID} --regid {UID} --clear-groups --no-new-privs --bounding-set=-all \\
  env -i PATH=/usr/bin:/bin TMPDIR="$0/tmp" "$@"
"""
NAMESPACES = ['unshare', '--mount', '--net', '--propagation', 'private', '--']
OPTIONS = ('--preset', 'fast', '--atlas', 'none', '--nprocs', '2')


def opened() -> str:
    """Return commands that let others reach Python and the packages, in this namespace only.

    They may lie in a home folder that only its owner can enter: it is covered by an empty one, in
    which just these folders appear again.
    """
    needed = {Path(sys.base_prefix).resolve(), Path(sysconfig.get_paths()['purelib']).resolve()}
    closed = {}
    for path in needed:
        shut = [parent for parent in path.parents if not parent.stat().st_mode & 0o001]
        if shut:
            closed[path] = shut[-1]
    held = {path: f'"$0"/held/{number}' for number, path in enumerate(closed)}
    lines = [f'mkdir -p {at} && mount --bind {quote(str(path))} {at}' for path, at in held.items()]
    for parent in sorted({str(parent) for parent in closed.values()}):
        lines.append(f'mount -t tmpfs -o mode=755 tmpfs {quote(parent)}')
    for path, at in held.items():
        lines.append(f'mkdir -p {quote(str(path))} && mount --bind {at} {quote(str(path))}')
    return '\n'.join(lines)


def restricted(storage: Path, *words) -> subprocess.CompletedProcess:
    """Run a command under the restrictions."""
    command = [*NAMESPACES, 'sh', '-c', SCRIPT.format(opened=opened()), storage, *words]
    return subprocess.run(list(map(str, command)), cwd='/', capture_output=True, text=True)


def why_not(storage: Path) -> str:
    """Return why the restrictions cannot be set up here; empty if they can."""
    if os.getuid() != 0:
        return 'not root'
    absent = [name for name in ('unshare', 'setpriv', 'mount') if not shutil.which(name)]
    if absent:
        return f'no {", ".join(absent)}'
    done = restricted(storage, 'true')
    return done.stderr.strip() if done.returncode else ''


def install(storage: Path) -> Path:
    """Install a wheel of the source, and return the folder of its programs."""
    pip = [sys.executable, '-m', 'pip', '--quiet', '--disable-pip-version-check']
    wheels = storage / 'wheels'
    build = ['wheel', '--no-deps', '--no-build-isolation', '--wheel-dir', wheels, ROOT]
    subprocess.run([*pip, *map(str, build)], check=True)
    environment = storage / 'environment'
    subprocess.run([sys.executable, '-m', 'venv', '--without-pip', str(environment)], check=True)
    python = environment / 'bin/python'
    (wheel,) = wheels.glob('*.whl')
    words = ['--python', python, 'install', '--no-deps', '--no-index', wheel]
    subprocess.run([*pip, *map(str, words)], check=True)
    (packages,) = environment.glob('lib/python3*/site-packages')
    # Only the folder is added: pointers to editable sources in it are not followed.
    dependencies = sysconfig.get_paths()['purelib']
    (packages / 'dependencies.pth').write_text(dependencies + '\n', encoding='utf-8')
    return python.parent


def processor_time() -> float:
    """Return the seconds that processors have spent on children that have ended."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def check(storage: Path, report: Report) -> None:
    programs = install(storage)
    done = restricted(storage, programs / 'qsmflow', '--version')
    report.check(done.stdout.strip() == f'qsmflow {version()}', '--version', done.stdout.strip())
    where = 'import qsmflow; print(qsmflow.__file__)'
    done = restricted(storage, programs / 'python', '-c', where)
    inside = done.stdout.startswith(str(storage))
    report.check(inside, 'the installed package runs', done.stdout.strip() or done.stderr)
    raw = storage / 'raw'
    words = [programs / 'qsmflow-phantom', raw, '--small', '--subjects', '1', '--sessions', '1']
    subprocess.run(list(map(str, words)), check=True, capture_output=True)
    before = state(raw)
    mask = raw / 'derivatives/phantom-truth/sub-01/anat/sub-01_desc-brain_mask.nii.gz'
    for number in (1, 2):  # the second in a fresh process
        out, work = storage / f'out/{number}', storage / f'work/{number}'
        started, before_it = time.monotonic(), processor_time()
        words = ['NUMBA_DEBUG_CACHE=1', programs / 'qsmflow', raw, out, 'participant', '-w', work]
        done = restricted(storage, *words, '--mask', mask, *OPTIONS)
        seconds, used = time.monotonic() - started, processor_time() - before_it
        found = f'{done.returncode}, {seconds:.0f} s, processors {used:.0f} s'
        report.check(done.returncode == 0, f'run {number}, exit code', found)
        if done.returncode:
            print(done.stderr[-3000:])
            return
        kernels = [done.stdout.count(f'[cache] data {what} ') for what in ('saved', 'loaded')]
        report.check((kernels[0] > 0) == (number == 1), 'kernels compiled, loaded', kernels)
    names = outputs(out)
    chi = 'sub-01/anat/sub-01_Chimap.nii.gz'
    report.check({chi, 'sub-01.html'} <= names, 'map and report are there', len(names))
    validator = Path(sys.executable).with_name('bids-validator-deno')
    done = subprocess.run([validator, out], capture_output=True, text=True)
    report.check(done.returncode == 0, 'results are valid BIDS', done.returncode)
    report.check(
        state(raw) == before, 'the input is as it was', f'{len(before)} files and folders'
    )
    (kernels_at,) = (storage / 'tmp').glob(f'qsmflow-numba-{UID}')
    mode = oct(kernels_at.stat().st_mode & 0o777)
    report.check(mode == '0o700', 'nobody else can change the kernels', mode)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--storage', type=Path, default=Path('/var/tmp'), help='where to work')
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix='qsmflow-restricted-', dir=options.storage) as name:
        storage = Path(name)
        storage.chmod(0o755)
        for folder in ('out', 'work', 'tmp'):
            (storage / folder).mkdir()
            (storage / folder).chmod(0o777)
        reason = why_not(storage)
        if reason:
            print(f'restricted run: left out, for its restrictions cannot be set up: {reason}')
            return 0
        report = Report()
        check(storage, report)
    return report.end()


if __name__ == '__main__':
    sys.exit(main())
