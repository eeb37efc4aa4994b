"""Say how near the compiled kernels of the iterative methods are to the bandwidth of the memory.

    python benchmarks/stencils.py [--size MILLIONS] [--only STAGE/METHOD ...] [--markdown FILE]

Each iterative method runs once, compiled beforehand, on the head of ``speed.py``. Of all its calls
of compiled kernels it is taken down how long they took, and how large the arrays are that they
were given. A kernel reads or writes each of these at least once, half of the time of copying it,
which is measured on the same threads. Arrays that are read and written, or read again because the
caches have lost them, count once: the floor is a low one.

* ``kernels``, ``transforms``: their shares of the time; the rest is numpy, allocation and Python.
* ``floor``: copies of a volume of the method's grid that the arrays amount to, per iteration.
* ``copies``: those that the kernels take, per iteration.
* ``ratio``: of the two.
"""

import argparse
import sys
import time
from math import prod
from pathlib import Path

import speed
from measure import Spent, Transforms, copy_time, is_kernel, watched
from speed_tables import PEER_SHAPE, replace_between, table
from synthetic import Case, head_shape

from qsmflow.algorithms import operators as ops

BEGIN, END = '<!-- stencils: begin -->\n', '<!-- stencils: end -->\n'
COLUMNS = ('method', 'kernels', 'transforms', 'floor', 'copies', 'ratio')


def measure(stage: str, name: str, case: Case) -> list[str] | None:
    """Return the row of a method; None for one that does not iterate."""
    speed.warm_up(stage, name, case.n_echoes)
    call, with_history = speed.call_of(stage, name, case)
    if not with_history:
        return None
    with Transforms() as made:
        iterations = len(call()[-1])
    if not iterations:
        return None
    fourier = (ops.rfft, ops.irfft)
    kernels, transforms = Spent(), Spent()
    start = time.perf_counter()
    with (
        watched(kernels, is_kernel),
        watched(transforms, lambda value: any(value is function for function in fourier)),
    ):
        call()
    taken = time.perf_counter() - start
    grid = made.grid or case.shape
    floor = kernels.copies(grid) / iterations
    copies = kernels.seconds / copy_time(grid) / iterations
    shares = (f'{100 * part.seconds / taken:.0f} %' for part in (kernels, transforms))
    return [f'{stage}/{name}', *shares, f'{floor:.1f}', f'{copies:.1f}', f'{copies / floor:.1f}']


def main(argv: list[str] | None = None) -> int:
    """Print the table, and write it into a page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--size', type=float, default=prod(PEER_SHAPE) / 1e6)
    parser.add_argument('--only', nargs='+', metavar='STAGE[/METHOD]')
    parser.add_argument('--markdown', type=Path, metavar='PAGE')
    options = parser.parse_args(argv)
    case = Case(head_shape(1e6 * options.size), 4)
    rows = []
    for stage, name in speed.selected(options.only or ('background', 'inversion')):
        row = measure(stage, name, case)
        if row:
            rows.append(row)
            print(f'{row[0]:24}' + ''.join(f'{cell:>12}' for cell in row[1:]))
    if options.markdown:
        text = '\n' + '\n'.join(table(COLUMNS, rows))
        replace_between(options.markdown, BEGIN, END, text + '\n')
    return 0


if __name__ == '__main__':
    sys.exit(main())
