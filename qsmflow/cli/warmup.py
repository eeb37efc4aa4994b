"""``python -m qsmflow.cli.warmup``: compile the kernels beforehand.

Containers start with what is inside them, and without kernels every run in a fresh container would
compile for minutes. This fills a store for :mod:`qsmflow.kernel_cache` by processing a coarse
phantom. Kernels of methods that are not used there are compiled when they are first used.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

from qsmflow.kernel_cache import MANIFEST, PORTABLE, STORE, supports

#: Options of the runs: the default chain, whose kernels are those of all presets, and a chain that
#: many are used to. Registration has no kernels.
RUNS = ((), ('--bgfr', 'vsharp', '--inversion', 'rts'))


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog='python -m qsmflow.cli.warmup',
        description='Compile the kernels of the usual methods beforehand, for an image or an '
        'installation that many share and cannot write.',
    )
    parser.add_argument(
        'folder', nargs='?', type=Path, default=STORE,
        help='where to keep them; only the default place is looked for (default: %(default)s)',
    )  # fmt: skip
    return parser


def main(argv: list[str] | None = None) -> int:
    """Fill the store, or say that this machine cannot; return 1 if a run fails."""
    store = make_parser().parse_args(argv).folder.absolute()
    cpu, needed = PORTABLE.get(platform.machine(), ('', frozenset()))
    if not cpu or not supports(needed):
        print(
            f'qsmflow: no store of kernels is made: this {platform.machine()} processor lacks '
            f'what a store is compiled for ({cpu or "none is known"}); kernels are compiled at '
            'first use. Build on another machine to have them beforehand',
            file=sys.stderr,
        )
        return 0
    store.mkdir(parents=True, exist_ok=True)
    environ = os.environ | {
        'NUMBA_CACHE_DIR': str(store),
        'NUMBA_CPU_NAME': cpu,
        'NUMBA_CPU_FEATURES': '',
    }
    with tempfile.TemporaryDirectory(prefix='qsmflow-warmup-') as scratch:
        try:
            _process_phantom(Path(scratch), environ)
        except subprocess.CalledProcessError as error:
            print(f'qsmflow: a run failed while kernels were compiled: {error}', file=sys.stderr)
            return 1
    manifest = {'cpu': cpu, 'build': uuid.uuid4().hex[:12]}
    (store / MANIFEST).write_text(json.dumps(manifest) + '\n', encoding='utf-8')
    files = list(store.glob('*/*.nbc'))
    size = sum(path.stat().st_size for path in files)
    print(f'{len(files)} kernels for {cpu}, {size / 1e6:.1f} MB, in {store}')
    return 0


def _process_phantom(scratch: Path, environ: dict[str, str]) -> None:
    raw = scratch / 'raw'
    phantom = ['-m', 'qsmflow.phantom.cli', str(raw), '--small', '--subjects', '1']
    _run([*phantom, '--sessions', '1'], environ, scratch)
    # Step by step in one process: it loads everything only once, and no two processes compile the
    # same kernel for different arguments, which numba could mix up.
    plugin = scratch / 'plugin.yml'
    plugin.write_text('plugin: Linear\n', encoding='utf-8')
    mask = raw / 'derivatives/phantom-truth/sub-01/anat/sub-01_desc-brain_mask.nii.gz'
    common = ['-w', scratch / 'work', '--use-plugin', plugin, '--mask', mask, '--atlas', 'none']
    for number, options in enumerate(RUNS):
        started = time.monotonic()
        app = ['-m', 'qsmflow', raw, scratch / f'out-{number}', 'participant']
        words = [*app, *common, '--skip-bids-validation', *options]
        _run(list(map(str, words)), environ, scratch)
        print(f'run {" ".join(options) or "with defaults"}: {time.monotonic() - started:.0f} s')


def _run(arguments: list[str], environ: dict[str, str], folder: Path) -> None:
    # Not in the folder of the source: Python would take the package from there, and kernels belong
    # to the place of their package.
    subprocess.run([sys.executable, *arguments], env=environ, check=True, cwd=folder)


if __name__ == '__main__':
    sys.exit(main())
