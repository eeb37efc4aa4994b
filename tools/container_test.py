"""Build the image of this source and run it as users do: read-only, as anyone, without a network.

    python3 tools/container_test.py [STEP ...] [--storage FOLDER] [--install]

The steps, all of them by default, in this order:

* ``base``: make Debian's base image with debootstrap under the name that the Dockerfile asks for,
  as slim as the published one, so that no registry of images is needed. Kept for the next time.
* ``build``: build the Dockerfile with buildah.
* ``image``: size, labels, version, and that no tools of the build are left.
* ``run``: simulate a dataset and process it with podman as
  ``--read-only --user 1234:1234 --network none --tmpfs /tmp``, mounted read-only, in folders with
  spaces in their names; check outputs, exit codes, signals, compiled kernels, and that the input
  is as it was.
* ``unpacked``: run the unpacked image as ``nobody`` with Charliecloud, with the sections of
  container/qsmflow.def for Apptainer; left out, and said so, where ``ch-run`` is not installed.

It needs root on Debian, Python, and buildah, podman, runc and debootstrap, which ``--install``
installs. The exit status is 1 if anything is not as promised.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from _checks import ROOT, Report, outputs, state, version

STEPS = ('base', 'build', 'image', 'run', 'unpacked')
TOOLS = ('buildah', 'podman', 'runc', 'debootstrap')
BASE = 'docker.io/library/debian:bookworm-slim'
IMAGE = 'localhost/qsmflow:test'
RESTRICTED = ('--read-only', '--user', '1234:1234', '--network', 'none', '--tmpfs', '/tmp')
SOURCES = (
    'deb {mirror} bookworm main',
    'deb {mirror} bookworm-updates main',
    'deb {mirror}-security bookworm-security main',
)
#: What Debian's own base image is configured with: apt keeps nothing, dpkg leaves manuals out.
SLIM = {
    'etc/apt/apt.conf.d/docker-clean': 'APT::Keep-Downloaded-Packages "false";\n'
    'Dir::Cache::pkgcache "";\nDir::Cache::srcpkgcache "";\n'
    'DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb || true"; };\n',
    'etc/dpkg/dpkg.cfg.d/docker': 'path-exclude /usr/share/doc/*\n'
    'path-include /usr/share/doc/*/copyright\npath-exclude /usr/share/man/*\n'
    'path-exclude /usr/share/locale/*\npath-include /usr/share/locale/locale.alias\n',
}
#: Limits of resources that can be set without more rights than a container has.
CONTAINERS_CONF = """[containers]
default_ulimits = ["nofile=1024:4096", "nproc=1024:2048"]
netns = "host"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
"""
#: Times the first call of a kernel in a process of its own.
FIRST_CALL = """
import time, numpy
from qsmflow.algorithms.solvers import dot
start = time.perf_counter()
dot(numpy.ones(9, numpy.float32), numpy.ones(9, numpy.float32))
print(round(time.perf_counter() - start, 3))
"""


class Engine:
    """Runs buildah and podman with storage of their own below one folder."""

    def __init__(self, storage: Path):
        self.storage = storage
        storage.mkdir(parents=True, exist_ok=True)
        conf = storage / 'containers.conf'
        conf.write_text(CONTAINERS_CONF, encoding='utf-8')
        self.environ = os.environ | {'CONTAINERS_CONF': str(conf)}
        self.options = (
            *('--root', str(storage / 'store'), '--runroot', str(storage / 'run')),
            *('--storage-driver', 'overlay'),
        )

    def call(self, tool: str, *words, **options) -> subprocess.CompletedProcess:
        """Run a tool to its end; raise if it fails, unless ``check=False``."""
        options = {'check': True, 'text': True, 'env': self.environ, 'cwd': ROOT} | options
        return subprocess.run([tool, *self.options, *map(str, words)], **options)

    def output(self, tool: str, *words, **options) -> str:
        """Return what a tool prints."""
        return self.call(tool, *words, stdout=subprocess.PIPE, **options).stdout.strip()

    def exists(self, image: str) -> bool:
        """Tell whether there is an image of this name."""
        return self.call('podman', 'image', 'exists', image, check=False).returncode == 0

    def run(self, *words, mounts=(), entry=None, options=()) -> subprocess.CompletedProcess:
        """Run the image under the restrictions and return its exit code and what it printed."""
        entry = ('--entrypoint', entry) if entry else ()
        mounts = [word for mount in mounts for word in ('-v', mount)]
        return self.call(
            'podman', 'run', '--rm', *RESTRICTED, *mounts, *entry, *options, IMAGE, *words,
            check=False, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip


def missing_tools() -> list[str]:
    return [tool for tool in TOOLS if not shutil.which(tool)]


def install(tools: list[str]) -> None:
    environ = os.environ | {'DEBIAN_FRONTEND': 'noninteractive'}
    for words in (['update', '-qq'], ['install', '-y', '--no-install-recommends', *tools]):
        subprocess.run(['apt-get', *words], check=True, env=environ)


# --- base and build ---


def make_base(engine: Engine, mirror: str) -> None:
    if engine.exists(BASE):
        print(f'      {BASE} is there already (remove {engine.storage} to make it anew)')
        return
    rootfs = engine.storage / 'rootfs'
    shutil.rmtree(rootfs, ignore_errors=True)
    words = ['debootstrap', '--variant=minbase', '--include=ca-certificates', 'bookworm']
    subprocess.run([*words, str(rootfs), mirror], check=True, stdout=subprocess.DEVNULL)
    sources = ''.join(line.format(mirror=mirror) + '\n' for line in SOURCES)
    for name, text in {'etc/apt/sources.list': sources, **SLIM}.items():
        (rootfs / name).write_text(text, encoding='utf-8')
    # Certificates that this host trusts beyond Debian's: where a proxy re-signs, pip needs them.
    for path in Path('/usr/local/share/ca-certificates').glob('*.crt'):
        shutil.copy(path, rootfs / path.relative_to('/'))
    # Up to date, as a published image is.
    for command in ('apt-get -qq update', 'apt-get -qq -y upgrade', 'update-ca-certificates'):
        environ = {'PATH': '/usr/sbin:/usr/bin:/sbin:/bin', 'DEBIAN_FRONTEND': 'noninteractive'}
        words = ['chroot', str(rootfs), *command.split()]
        subprocess.run(words, check=True, env=environ, stdout=subprocess.DEVNULL)
    for pattern in ('var/cache/apt/*.bin', 'var/cache/apt/archives/*.deb', 'var/log/*.log'):
        for path in rootfs.glob(pattern):
            path.unlink()
    for folder in ('var/lib/apt/lists', 'usr/share/man', 'usr/share/locale'):
        for path in (rootfs / folder).iterdir():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    for path in [*(rootfs / 'usr/share/doc').rglob('*')]:
        if not path.is_dir() and path.name != 'copyright':
            path.unlink()
    container = engine.output('buildah', 'from', 'scratch')
    engine.call('buildah', 'add', '-q', container, rootfs, '/', stdout=subprocess.DEVNULL)
    path = 'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
    engine.call('buildah', 'config', '--env', path, container)
    engine.call('buildah', 'commit', '-q', '--rm', container, BASE, stdout=subprocess.DEVNULL)
    shutil.rmtree(rootfs)


def build(engine: Engine) -> None:
    revision = subprocess.run(
        ['git', '-C', str(ROOT), 'rev-parse', '--short', 'HEAD'], capture_output=True, text=True
    ).stdout.strip()
    started = time.monotonic()
    log = engine.storage / 'build.log'
    with log.open('w', encoding='utf-8') as stream:
        done = engine.call(
            'buildah', 'bud', '--isolation', 'chroot', '--network', 'host', '--pull-never',
            '--layers',  # so that the next build repeats only what has changed
            '--build-arg', f'REVISION={revision or "unknown"}', '-t', IMAGE, '.',
            check=False, stdout=stream, stderr=subprocess.STDOUT,
        )  # fmt: skip
    if done.returncode:
        print(*log.read_text(encoding='utf-8').splitlines()[-30:], sep='\n')
        sys.exit(f'the build failed; its whole log is {log}')
    lines = log.read_text(encoding='utf-8').splitlines()
    print(*(f'      {line}' for line in lines if ' kernels ' in line), sep='\n')
    print(f'      built in {time.monotonic() - started:.0f} s; log: {log}')


# --- checks ---


def check_image(engine: Engine, report: Report, limit: float) -> None:
    found = json.loads(engine.output('podman', 'image', 'inspect', IMAGE))[0]
    base = json.loads(engine.output('podman', 'image', 'inspect', BASE))[0]
    size = found['Size'] / 1e9
    what = f'{size:.2f} GB, of which the base {base["Size"] / 1e9:.2f}'
    report.check(size < limit, f'image under {limit:g} GB', what)
    labels = found['Config']['Labels']
    prefix = 'org.opencontainers.image.'
    names = ('title', 'description', 'version', 'revision', 'licenses', 'authors', 'base.name')
    absent = [name for name in names if not labels.get(prefix + name)]
    report.check(not absent, 'labels', f'missing {absent}' if absent else len(names))
    report.check(labels.get(prefix + 'version') == version(), 'label of the version', version())
    done = engine.run('--version')
    report.check(done.stdout.strip() == f'qsmflow {version()}', '--version', done.stdout.strip())
    tools = 'for t in gcc cc g++ make pip pip3; do command -v $t; done; find / -xdev -name pip'
    done = engine.run('-c', f'{tools} -path "*site-packages*"', entry='/bin/sh')
    report.check(not done.stdout.strip(), 'no tools of the build are left', done.stdout.strip())
    # Elsewhere than in the image there are none: compiled in the first process, then loaded.
    compiled, again = first_calls(engine, '-e', 'NUMBA_CACHE_DIR=/tmp/empty')
    found = f'{again} s, not {compiled}'
    report.check(again < compiled / 2, 'first call in a second process', found)
    ready = max(first_calls(engine))
    found = f'{ready} s, not {compiled}'
    report.check(ready < compiled / 2, 'first call of a kernel that is inside', found)


def first_calls(engine: Engine, *options: str) -> tuple[float, ...]:
    """Return the seconds of the first call of a kernel in two processes of a fresh container."""
    words = ('-c', f'for n in 1 2; do /opt/qsmflow/bin/python -c "{FIRST_CALL}"; done')
    done = engine.run(*words, entry='/bin/sh', options=options)
    return tuple(float(word) for word in done.stdout.split()) or (float('nan'),) * 2


def make_folders(engine: Engine) -> Path:
    """Return a new folder with subfolders that user 1234 may write."""
    place = engine.storage / 'a place'
    shutil.rmtree(place, ignore_errors=True)
    for name in ('made', 'all results', 'work', 'tmp', 'broken results', 'stopped results'):
        (place / name).mkdir(parents=True)
        (place / name).chmod(0o777)
    return place


def check_run(engine: Engine, report: Report) -> None:
    place = make_folders(engine)
    small = ('--small', '--subjects', '1', '--sessions', '1')
    done = engine.run('/made/raw', *small, entry='qsmflow-phantom', mounts=[f'{place}/made:/made'])
    report.check(done.returncode == 0, 'qsmflow-phantom', done.stderr.strip()[-300:])
    raw = place / 'made' / 'raw'
    before = state(raw)
    mounts = [f'{raw}:/my data:ro', f'{place}/all results:/my results', f'{place}/work:/my work']
    app = ('/my data', '/my results')
    check_participant(engine, report, place, app, mounts)
    done = engine.run(*app, 'group', mounts=mounts)
    report.check(done.returncode == 0, 'group level, exit code', done.returncode)
    written = {name for name in outputs(place / 'all results') if name.startswith('group')}
    expected = {'group.html', 'group_atlas-CIT168_stats.tsv', 'group_atlas-CIT168_stats.json'}
    report.check(expected <= written, 'group level, files', sorted(written))
    validator = engine.run('/my results', entry='bids-validator-deno', mounts=mounts)
    report.check(validator.returncode == 0, 'results are valid BIDS', validator.returncode)
    if validator.returncode:
        print(validator.stdout[-3000:])
    check_truth(report, raw, place / 'all results')
    check_stop(engine, report, place, raw)
    report.check(
        state(raw) == before, 'the input is as it was', f'{len(before)} files and folders'
    )
    check_broken(engine, report, place, raw)


def check_participant(engine: Engine, report: Report, place: Path, app, mounts) -> None:
    options = ('-e', 'NUMBA_DEBUG_CACHE=1')
    started = time.monotonic()
    done = engine.run(*app, 'participant', '-w', '/my work', mounts=mounts, options=options)
    seconds = time.monotonic() - started
    report.check(
        done.returncode == 0, 'participant level, exit code', f'{done.returncode}, {seconds:.0f} s'
    )
    if done.returncode:
        print(done.stderr[-3000:])
    loaded, saved = (done.stdout.count(f'[cache] data {what} ') for what in ('loaded', 'saved'))
    report.check(saved == 0 < loaded, 'kernels loaded, compiled', (loaded, saved))
    results = place / 'all results'
    expected = set((ROOT / 'tests/app/outputs.txt').read_text(encoding='utf-8').split())
    found = outputs(results)
    report.check(found == expected, 'files as listed', sorted(found ^ expected) or len(found))
    html = (results / 'sub-01.html').read_text(encoding='utf-8')
    embedded = html.count('data:image/png;base64,')
    report.check(embedded >= 8, 'report with its figures inside', embedded)
    owners = {path.stat().st_uid for path in results.rglob('*')}
    report.check(owners == {1234}, 'files belong to the user', owners)


def check_truth(report: Report, raw: Path, results: Path) -> None:
    """Compare region values with the truth, as far as voxels of 4 mm allow."""
    words = [sys.executable, 'tools/compare_with_truth.py', raw, results, '--limit', '30']
    done = subprocess.run(list(map(str, words)), cwd=ROOT, capture_output=True, text=True)
    last = (done.stdout + done.stderr).strip().splitlines()[-1]
    report.check(done.returncode == 0, 'region values agree with the truth', last)


def check_broken(engine: Engine, report: Report, place: Path, raw: Path) -> None:
    """Cut a phase image in half: the exit code of the program is that of the container."""
    broken = place / 'broken'
    shutil.copytree(raw, broken)
    path = broken / 'sub-01/anat/sub-01_echo-2_part-phase_MEGRE.nii.gz'
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    mounts = [f'{broken}:/data:ro', f'{place}/broken results:/out']
    done = engine.run('/data', '/out', 'participant', '-w', '/tmp/work', mounts=mounts)
    named = path.name in done.stdout + done.stderr
    report.check(done.returncode == 65 and named, 'damaged input, exit code', done.returncode)
    done = engine.run('/nothing', '/out', 'participant', mounts=mounts)
    what = 'no dataset at the path, exit code'
    report.check(done.returncode not in (0, 1), what, done.returncode)


def check_stop(engine: Engine, report: Report, place: Path, raw: Path) -> None:
    """Stop a run in its midst, as a scheduler or ``docker stop`` does."""
    name = f'qsmflow-stop-{os.getpid()}'
    words = ['run', '-d', '--name', name, *RESTRICTED, '-v', f'{raw}:/data:ro']
    words += ['-v', f'{place}/stopped results:/out', IMAGE, '/data', '/out', 'participant']
    engine.output('podman', *words, '-w', '/tmp/work')
    try:
        for _ in range(240):
            log = engine.call(
                'podman', 'logs', name, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            ).stdout
            if ' done (' in log:
                break
            time.sleep(0.5)
        started = time.monotonic()
        engine.output('podman', 'stop', '-t', '30', name)
        seconds = time.monotonic() - started
        code = engine.output('podman', 'inspect', '--format', '{{.State.ExitCode}}', name)
    finally:
        engine.call('podman', 'rm', '-f', name, stdout=subprocess.DEVNULL)
    report.check(' done (' in log, 'the run that is stopped was under way')
    quick = code == '143' and seconds < 20
    report.check(quick, 'stopped, exit code', f'{code} after {seconds:.1f} s')


# --- the unpacked image, as nobody ---


def section(name: str) -> str:
    """Return a section of the definition for Apptainer; of its last stage."""
    text = (ROOT / 'container/qsmflow.def').read_text(encoding='utf-8')
    return re.findall(rf'^%{name}\b.*\n((?:(?!%|Bootstrap:).*\n?)*)', text, re.M)[-1]


def check_unpacked(engine: Engine, report: Report) -> None:
    if not shutil.which('ch-run'):
        print('      unpacked: left out, for there is no ch-run (Debian: charliecloud-runtime)')
        return
    place = engine.storage / 'unpacked'
    shutil.rmtree(place, ignore_errors=True)
    rootfs = place / 'image'
    place.mkdir()
    container = engine.output('buildah', 'from', '--pull-never', IMAGE)
    try:
        mounted = engine.output('buildah', 'mount', container)
        subprocess.run(['cp', '-a', mounted, str(rootfs)], check=True)
    finally:
        engine.call('buildah', 'rm', container, stdout=subprocess.DEVNULL)
    for number in (1, 2):
        (rootfs / 'mnt' / str(number)).mkdir()
    (place / 'out').mkdir()
    (place / 'out').chmod(0o777)
    raw = engine.storage / 'a place' / 'made' / 'raw'
    app = ('/mnt/1', '/mnt/2', 'participant', '-w', '/mnt/2/.work', '--atlas', 'none')
    for name, words in {'test': (), 'runscript': app}.items():
        started = time.monotonic()
        script = section('environment') + section(name)
        done = as_nobody(rootfs, (raw, place / 'out'), script, words)
        found = f'{done.returncode}, {time.monotonic() - started:.0f} s'
        report.check(done.returncode == 0, f'unpacked, as nobody: %{name}, exit code', found)
        if done.returncode:
            print(done.stderr[-2000:])
    chimap = place / 'out/sub-01/anat/sub-01_Chimap.nii.gz'
    report.check(chimap.exists(), 'unpacked, as nobody: a map is there')


def as_nobody(rootfs: Path, mounts, script: str, words) -> subprocess.CompletedProcess:
    """Run a shell script in an unpacked image with Charliecloud, without any right."""
    binds = [
        word for number, path in enumerate(mounts, 1) for word in ('-b', f'{path}:/mnt/{number}')
    ]
    command = ['ch-run', '--unset-env=*', *binds, str(rootfs), '--', '/bin/sh', '-c', script, 'sh']
    user = ['runuser', '-u', 'nobody', '--', 'env', 'USER=nobody']
    return subprocess.run([*user, *command, *words], capture_output=True, text=True, cwd='/')


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('steps', nargs='*', metavar='STEP', help=', '.join(STEPS))
    parser.add_argument('--storage', type=Path, default=Path('/var/tmp/qsmflow-container'))
    parser.add_argument('--install', action='store_true', help='install what is missing with apt')
    parser.add_argument('--mirror', default='http://deb.debian.org/debian', help='of Debian')
    parser.add_argument('--size-limit', type=float, default=1.6, metavar='GB')
    options = parser.parse_args(argv)
    unknown = set(options.steps) - set(STEPS)
    if unknown:
        parser.error(f'unknown step {", ".join(sorted(unknown))}; known are {", ".join(STEPS)}')
    if os.getuid() != 0:
        sys.exit('needs root: containers are built and run with storage of their own')
    missing = missing_tools()
    if missing and options.install:
        install(missing)
    elif missing:
        sys.exit(
            f'missing: {", ".join(missing)}. On Debian: apt-get install '
            f'--no-install-recommends {" ".join(missing)}; or run again with --install'
        )
    engine, report = Engine(options.storage.absolute()), Report()
    for step in options.steps or STEPS:
        print(f'--- {step}', flush=True)
        if step == 'base':
            make_base(engine, options.mirror)
        elif step == 'build':
            build(engine)
        elif step == 'image':
            check_image(engine, report, options.size_limit)
        elif step == 'run':
            check_run(engine, report)
        else:
            check_unpacked(engine, report)
    return report.end()


if __name__ == '__main__':
    sys.exit(main())
