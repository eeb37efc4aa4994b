"""Time every method in FFT pairs, with its peak memory, beside other implementations.

    python benchmarks/speed.py [--sizes 4.9152 1 16] [--only STAGE[/METHOD] ...] [--threads N ...]
                               [--no-memory [--reuse FILE]] [--json FILE] [--markdown FILE]
                               [--check FILE]
    python benchmarks/speed.py --memory-table [--update]

The methods are those of the catalogue; the steps before and beside them, and whole chains from raw
phase to susceptibility, follow. The data is a head of ellipsoids in the shape of ``--sizes``, in
millions of voxels. Further sizes show how time and memory grow, with a few methods of every kind
(``SCALED``) unless ``--only`` names others. Times need a quiet machine and memory does not: it may
be measured before, and its figures taken from there with ``--no-memory --reuse FILE``.

* ``pairs``: time over that of one pair (forward and inverse) of float32 real transforms of the
  grid on which the method does its own, padded; measured in turn with the method, median.
* ``made``: the pairs among them that are transforms: the rest is everything else.
* ``aim``: the time of an iterative method over what was aimed at: one and a half times its
  transforms, and reading or writing once, at the bandwidth of the memory, every volume that its
  compiled kernels are given (``stencils.py`` says more of these).
* ``volumes``: peak memory beyond the arguments, in float32 volumes of that grid, in a process of
  its own.
* ``image pairs``: time over one pair of the image's grid; ``peer pairs``: the same for QSM.rs 0.20
  at 160 x 192 x 160 with 4 echoes and 2 threads, * an estimate; ``ratio``: ours over theirs.

Then, in the same run, plain numpy versions (``reference.py``) and scikit-image's unwrapping.
``--check`` compares with what ``--json`` recorded, at equal size, echoes and threads, and fails
where more transforms are made, the best repeat takes more than ``--factor`` times the pairs, or
nothing can be compared.
"""

import argparse
import json
import os
import sys
from dataclasses import asdict, dataclass
from functools import partial
from inspect import signature
from pathlib import Path
from statistics import median

import speed_tables as tables
from chain import CHAINS, run_chain
from compare import compare
from measure import copy_time, measure_time, memory_in_subprocess, peak_memory
from synthetic import Case, bind, head_shape

from qsmflow.algorithms import cost, get_method, masking, method_parameters, phase_offset
from qsmflow.algorithms import operators as ops
from qsmflow.algorithms.catalog import STAGES

#: Steps that are no stage of the catalogue.
STEPS = {
    ('step', 'phase_offset'): phase_offset.remove_phase_offset,
    ('step', 'threshold_mask'): masking.robust_mask,
}

#: Methods as the peer has them, or as far as it goes: method of the catalogue, arguments.
#: ``study.py less`` says what they reach.
VARIANTS = {
    ('background', 'pdf_8'): ('pdf', {'max_iter': 8}),
    ('inversion', 'tv_one_part'): ('tv', {'reweight': None}),
    ('inversion', 'tikhonov_closed'): ('tikhonov', {'weights': None, 'zero_outside': 1.0}),
}

#: Stages whose methods take a multi-echo series.
SERIES_STAGES = ('unwrapping', 'field', 'relaxometry')

#: What is measured at all sizes but the first.
SCALED = (
    'step/phase_offset', 'unwrapping/romeo', 'field/sequential', 'background/pdf',
    'background/vsharp', 'inversion/tkd', 'inversion/tv', 'chain/fast', 'chain/default',
)  # fmt: skip

#: Share of the recorded transforms that ``--check`` lets pass: an iteration that stops by a
#: tolerance may need one more on another processor.
MORE = 1.05

#: Million voxels of the tables; the first is 160 x 192 x 160, the grid of the peer's figures.
PAGE_SIZES = (4.9152, 1.0, 16.0)


@dataclass(frozen=True)
class Peer:
    """FFT pairs that QSM.rs 0.20 takes; chains are without its brain extraction."""

    pairs: float
    estimated: bool = False

    def __str__(self):
        return f'{self.pairs:g}{"*" * self.estimated}'


PEERS = {
    ('step', 'phase_offset'): Peer(27),
    ('step', 'threshold_mask'): Peer(20),
    ('unwrapping', 'romeo'): Peer(27),
    ('relaxometry', 'arlo'): Peer(2.2),
    ('background', 'vsharp'): Peer(103),
    ('background', 'lbv'): Peer(113),
    ('background', 'resharp'): Peer(206, estimated=True),
    ('background', 'pdf'): Peer(172, estimated=True),
    ('background', 'pdf_8'): Peer(172, estimated=True),
    ('inversion', 'tkd'): Peer(4.6),
    ('inversion', 'tikhonov_closed'): Peer(4.6),
    ('inversion', 'rts'): Peer(94),
    ('inversion', 'tv'): Peer(199),
    ('inversion', 'tv_one_part'): Peer(199),
    ('inversion', 'medi'): Peer(231),
    # Estimates for one iteration, 6 and 3 pairs, times the number of iterations that it sets.
    ('inversion', 'ndi'): Peer(200 * 6, estimated=True),
    ('inversion', 'tgv'): Peer(1000 * 3, estimated=True),
    ('inversion', 'ilsqr'): Peer(1100, estimated=True),
    ('chain', 'default'): Peer(251),
    ('chain', 'romeo_vsharp_rts'): Peer(251),
    ('chain', 'fast'): Peer(251),
}


@dataclass
class Row:
    """What was measured of one method at one size; ``error`` says why there is nothing."""

    stage: str
    method: str
    shape: tuple[int, int, int]
    n_echoes: int
    threads: int
    grid: tuple[int, int, int] | None = None
    seconds: float | None = None
    pairs: float | None = None
    least_pairs: float | None = None
    made: float | None = None
    iterations: int | None = None
    aim: float | None = None
    volumes: float | None = None
    image_pairs: float | None = None
    peer: str = ''
    ratio: float | None = None
    error: str = ''

    @property
    def key(self) -> tuple:
        """What must be equal for two rows to be compared."""
        return self.stage, self.method, tuple(self.shape), self.n_echoes, self.threads


def subjects() -> list[tuple[str, str]]:
    """Return everything that can be measured, as (stage, name)."""
    # A strategy costs what the inversions cost that it calls.
    methods = [
        (stage, name) for stage, found in STAGES.items() for name in found if stage != 'strategy'
    ]
    return [*STEPS, *methods, *VARIANTS, *(('chain', name) for name in CHAINS)]


def selected(patterns) -> list[tuple[str, str]]:
    """Return the subjects that ``STAGE`` or ``STAGE/NAME`` patterns choose."""
    chosen = [
        (stage, name)
        for stage, name in subjects()
        if not patterns or stage in patterns or f'{stage}/{name}' in patterns
    ]
    unknown = [p for p in patterns or () if not any(p in (s, f'{s}/{n}') for s, n in chosen)]
    if unknown:
        known = ', '.join(f'{stage}/{name}' for stage, name in subjects())
        raise SystemExit(f'nothing is called {", ".join(unknown)}; there are {known}')
    return chosen


def call_of(stage: str, name: str, case: Case):
    """Return the call that is measured, with its data made, and whether it returns a history."""
    if stage == 'chain':
        return partial(run_chain, case.as_scan(), **CHAINS[name]), False
    name, changes = VARIANTS.get((stage, name), (name, {}))
    if (stage, name) in STEPS:
        function, method = STEPS[stage, name], None
    else:
        function, method = get_method(stage, name), STAGES[stage][name]
    positional, keywords = bind(case, function, method)
    keywords |= changes
    with_history = 'return_history' in signature(function).parameters
    if with_history:
        keywords['return_history'] = True
    return partial(function, *positional, **keywords), with_history


def warm_up(stage: str, name: str, n_echoes: int) -> None:
    """Compile what a method needs: kernels are compiled for types, not for sizes."""
    call_of(stage, name, Case((32, 36, 32), n_echoes))[0]()


def measure(stage: str, name: str, case: Case, options: argparse.Namespace) -> Row:
    """Measure one method at one size."""
    row = Row(stage, name, case.shape, case.n_echoes, ops.workers())
    try:
        warm_up(stage, name, case.n_echoes)
        call, with_history = call_of(stage, name, case)
        found = measure_time(call, case.shape, repeats=options.repeats, with_history=with_history)
        if options.memory:
            bytes_used = memory_of(stage, name, case.shape, case.n_echoes)
            row.volumes = bytes_used / (4 * _size(found.grid))
    except Exception as error:
        # One method that fails must not lose the figures of the others; the exit status tells.
        row.error = f'{type(error).__name__}: {error}'
        return row
    row.grid, row.made, row.iterations = found.grid, found.transforms, found.iterations
    row.seconds, row.pairs = median(found.seconds), median(found.pairs)
    row.least_pairs = min(found.pairs)
    row.image_pairs = median(found.image_pairs)
    if row.iterations:
        pair = row.seconds / row.pairs
        row.aim = row.seconds / (1.5 * row.made * pair + found.floor * copy_time(row.grid))
    peer = PEERS.get((stage, name))
    if peer:
        row.peer = str(peer)
        row.ratio = row.image_pairs / peer.pairs
    return row


def _size(grid) -> int:
    return grid[0] * grid[1] * grid[2]


# --- memory -----------------------------------------------------------------------------------


def memory_of(stage: str, name: str, shape, n_echoes: int) -> int:
    """Return the peak memory of a method beyond its arguments, in bytes, in a fresh process."""
    what = ['--memory-of', f'{stage}/{name}', '--echoes', str(n_echoes), '--shape']
    return memory_in_subprocess(Path(__file__), [*what, *map(str, shape)])


def print_memory(options: argparse.Namespace) -> int:
    """Measure the memory of one method in this process: the other end of :func:`memory_of`."""
    stage, name = options.memory_of.split('/')
    warm_up(stage, name, options.echoes)
    call, _ = call_of(stage, name, Case(tuple(options.shape), options.echoes))
    print(json.dumps({'bytes': peak_memory(call)}))
    return 0


def reuse_memory(rows: list[Row], recorded: Path) -> None:
    """Fill in the memory of rows, in place, from an earlier run."""
    stored = [Row(**row) for row in json.loads(recorded.read_text(encoding='utf-8'))['methods']]
    # Memory does not depend on the number of threads.
    known = {row.key[:-1]: row for row in stored if row.volumes is not None}
    for row in rows:
        before = known.get(row.key[:-1])
        if row.volumes is None and before and row.grid and tuple(before.grid) == row.grid:
            row.volumes = before.volumes


def memory_entry(stage: str, name: str, shape, n_echoes: int) -> cost.Memory:
    """Measure the figures of a method for ``qsmflow.algorithms.cost``."""
    options = method_parameters(stage, name)
    pad, reach = options.get('pad', 0), options.get('radius') or 0.0  # of MEDI, None
    if 'radii' in options:
        reach = max(options['radii'] or (12.0,))
    empty = cost.Memory(0, 0, pad, float(reach))
    case = Case(tuple(shape), n_echoes)
    box = case.mask[ops.bounding_box(case.mask)].shape
    unit = 4 * _size(cost.working_grid(empty, box, case.voxel_size))
    volumes, per_echo = memory_of(stage, name, shape, n_echoes) / unit, 0.0
    if stage in SERIES_STAGES:
        more = memory_of(stage, name, shape, 2 * n_echoes) / unit
        per_echo = max(0.0, (more - volumes) / n_echoes)
        volumes = max(0.0, volumes - n_echoes * per_echo)
    return empty._replace(volumes=round(volumes, 1), per_echo=round(per_echo, 2))


def memory_table(options: argparse.Namespace) -> int:
    """Print the entries of ``VOLUMES``, or write them beside those that are not measured now."""
    shape = head_shape(1e6 * (options.sizes or PAGE_SIZES)[0])
    entries = dict(cost.VOLUMES)
    for stage, name in selected(options.only):
        if name in STAGES.get(stage, ()):
            entry = memory_entry(stage, name, shape, max(3, options.echoes))
            entries[stage, name] = entry
            print(f'    ({stage!r}, {name!r}): Memory{tuple(entry)},', flush=True)
    if options.update:
        lines = (
            f'    ({stage!r}, {name!r}): Memory{tuple(entries[stage, name])},\n'
            for stage, name in subjects()
            if (stage, name) in entries
        )
        ends = ('    # measured: begin\n', '    # measured: end\n')
        tables.replace_between(Path(cost.__file__), *ends, ''.join(lines))
    return 0


# --- check ------------------------------------------------------------------------------------


def check(rows: list[Row], recorded: Path, factor: float) -> list[str]:
    """Return what costs more than recorded, as lines of text.

    Transforms are counted, so that their number is the same on every machine; times may be larger
    by a factor.
    """
    stored = json.loads(recorded.read_text(encoding='utf-8'))['methods']
    known = {before.key: before for before in (Row(**row) for row in stored)}
    costlier, compared = [], 0
    for row in rows:
        before = known.get(row.key)
        if before is None or before.pairs is None or row.least_pairs is None:
            continue
        compared += 1
        name = f'{row.stage}/{row.method}'
        if (row.made or 0) > MORE * (before.made or 0) + 0.1:
            costlier.append(
                f'{name} computes {row.made:.1f} FFT pairs; {before.made or 0:.1f} are recorded'
            )
        # The best repeat: what else the machine does must not look like a slower method.
        if row.least_pairs > factor * before.pairs:
            costlier.append(
                f'{name} takes the time of {row.least_pairs:.1f} FFT pairs; '
                f'{before.pairs:.1f} are recorded, and {factor:g} times as many are allowed'
            )
    if not compared:
        costlier.append(
            f'{recorded} has no figures for this size, number of echoes and threads: '
            'record some with --json'
        )
    return costlier


# --- command line -----------------------------------------------------------------------------


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add(
        '--sizes',
        type=float,
        nargs='+',
        help='million voxels; all methods at the first one; three sizes with --markdown',
    )
    add('--only', nargs='+', metavar='NAME', help="stages, or e.g. 'inversion/tv'")
    add('--threads', type=int, nargs='+', help='numbers of threads')
    add('--echoes', type=int, default=4)
    add('--repeats', type=int, default=3, help='the median counts')
    add('--memory', action=argparse.BooleanOptionalAction, default=True, help='measure memory')
    add('--reuse', type=Path, metavar='JSON', help='take memory that is not measured from there')
    add('--compare', action=argparse.BooleanOptionalAction, default=True,
        help='time the plain numpy versions and scikit-image')  # fmt: skip
    add('--json', type=Path, help='write the figures')
    add('--markdown', type=Path, help='write the tables, between the marks of this file')
    add('--check', type=Path, metavar='JSON', help='fail where it is slower than recorded')
    add('--factor', type=float, default=1.5, help='of --check')
    add('--memory-table', action='store_true', help='print the table of qsmflow.algorithms.cost')
    add('--update', action='store_true', help='of --memory-table: write it there')
    add('--memory-of', help=argparse.SUPPRESS)
    add('--shape', type=int, nargs=3, help=argparse.SUPPRESS)
    return parser


def main(argv: list[str] | None = None) -> int:
    options = make_parser().parse_args(argv)
    if options.memory_of:
        return print_memory(options)
    if options.memory_table:
        return memory_table(options)
    options.sizes = options.sizes or (PAGE_SIZES if options.markdown else PAGE_SIZES[:1])
    chosen, rows, others = selected(options.only), [], []
    for threads in options.threads or [ops.workers()]:
        os.environ['OMP_NUM_THREADS'] = str(threads)
        for size in options.sizes:
            case = Case(head_shape(1e6 * size), options.echoes)
            print('\n'.join(tables.heading(case, threads)))
            first = size == options.sizes[0]
            for stage, name in chosen if first or options.only else selected(SCALED):
                rows.append(measure(stage, name, case, options))
                print(tables.line(rows[-1]), flush=True)
            if options.compare and first:
                others += compare(case, threads, options.repeats)
    if options.reuse:
        reuse_memory(rows, options.reuse)
    for text in (*tables.scaling(rows), *tables.comparisons(others)):
        print(text)
    if options.json:
        figures = {'about': tables.about(), 'methods': [asdict(row) for row in rows],
                   'comparisons': [asdict(other) for other in others]}  # fmt: skip
        options.json.write_text(json.dumps(figures, indent=1) + '\n', encoding='utf-8')
    if options.markdown:
        tables.write_markdown(options.markdown, rows, others)
    wrong = [f'{row.stage}/{row.method}: {row.error}' for row in rows if row.error]
    wrong += check(rows, options.check, options.factor) if options.check else []
    for text in wrong:
        print(text, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == '__main__':
    sys.exit(main())
