"""The tables of the speed benchmark, as text and as Markdown."""

import math
import platform
from importlib.metadata import version
from pathlib import Path

#: Grid of the peer's figures: at other sizes they say nothing.
PEER_SHAPE = (160, 192, 160)

#: What stands around the tables in a document.
BEGIN, END = '<!-- speed: begin -->\n', '<!-- speed: end -->\n'

_COLUMNS = ('grid', 'seconds', 'pairs', 'made', 'iterations', 'aim', 'volumes',
            'image pairs', 'peer pairs', 'ratio')  # fmt: skip


def about() -> dict[str, str]:
    """Return what the figures were made with."""
    packages = {name: version(name) for name in ('qsmflow', 'numpy', 'scipy', 'numba')}
    return {'python': platform.python_version(), **packages}


def _by(numbers) -> str:
    return ' x '.join(str(n) for n in numbers)


def _cells(row) -> list[str]:
    """Return the cells of one method, an empty one for what there is not."""

    def number(value, digits):
        return '' if value is None else f'{value:.{digits}f}'

    iterations = '' if row.iterations is None else str(row.iterations)
    return [
        'x'.join(str(n) for n in row.grid or ()), number(row.seconds, 3), number(row.pairs, 1),
        number(row.made, 1), iterations, number(row.aim, 2), number(row.volumes, 1),
        number(row.image_pairs, 1), row.peer, number(row.ratio, 2),
    ]  # fmt: skip


def heading(case, threads: int) -> list[str]:
    """Return the lines above the methods at one size."""
    title = f'{_by(case.shape)} voxels, {case.n_echoes} echoes, {threads} threads'
    return ['', title, f'{"method":32}' + ''.join(f'{name:>13}' for name in _COLUMNS)]


def line(row) -> str:
    """Return one method as a line."""
    name = f'{row.stage}/{row.method}'
    if row.error:
        return f'{name:32} {row.error}'
    return f'{name:32}' + ''.join(f'{cell:>13}' for cell in _cells(row))


# --- growth with size -------------------------------------------------------------------------


def _groups(rows):
    """Return the rows of each method and number of threads, where there are several sizes."""
    groups = {}
    for row in rows:
        if not row.error:
            groups.setdefault((row.stage, row.method, row.threads), []).append(row)
    return {key: group for key, group in groups.items() if len(group) > 1}


def exponent(voxels, values) -> float:
    """Return the power of the number of voxels with which values grow; 1 is linear.

    Examples
    --------
    >>> round(exponent([1, 2, 4], [3, 6, 12]), 6)
    1.0
    """
    x, y = ([math.log(v) for v in numbers] for numbers in (voxels, values))
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    above = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return above / sum((a - mean_x) ** 2 for a in x)


def _scaling_rows(rows):
    for (stage, method, threads), group in _groups(rows).items():
        group = sorted(group, key=lambda row: math.prod(row.shape))
        voxels = [math.prod(row.shape) for row in group]
        memory = [row.volumes * math.prod(row.grid) for row in group if row.volumes]
        yield [
            f'{stage}/{method}', str(threads),
            *(f'{v / 1e6:.2g} M: {row.pairs:.0f} pairs'
              for v, row in zip(voxels, group, strict=True)),
            f'time ~ N^{exponent(voxels, [row.seconds for row in group]):.2f}',
            f'memory ~ N^{exponent(voxels, memory):.2f}' if len(memory) == len(group) else '',
        ]  # fmt: skip


def scaling(rows) -> list[str]:
    """Return lines that tell how each method grows with the size; none for one size."""
    found = list(_scaling_rows(rows))
    return ['', 'growth with the number of voxels N', *('  '.join(row) for row in found)] * bool(
        found
    )


def comparisons(others) -> list[str]:
    """Return lines that compare with other implementations."""
    lines = ['', f'{"work":24}{"shape":>18}{"threads":>9}{"s":>10}{"other":>14}{"s":>10}  faster']
    for row in others:
        start = f'{row.work:24}{_by(row.shape):>18}{row.threads:9}'
        if row.note:
            lines.append(f'{start}  {row.note}')
            continue
        times = f'{row.seconds:10.4f}{row.other:>14}{row.other_seconds:10.4f}'
        lines.append(f'{start}{times}{row.other_seconds / row.seconds:7.1f}x')
    return lines if others else []


# --- Markdown ---------------------------------------------------------------------------------


def table(columns, rows) -> list[str]:
    """Return the lines of a table in Markdown, with an empty one behind it."""
    lines = ['| ' + ' | '.join(columns) + ' |', '|' + '---|' * len(columns)]
    return [*lines, *('| ' + ' | '.join(cells) + ' |' for cells in rows), '']


def markdown(rows, others) -> str:
    """Return all tables as Markdown."""
    made_with = ', '.join(f'{name} {number}' for name, number in about().items())
    lines = [f'Made with `python benchmarks/speed.py`: {made_with}.', '']
    sizes = dict.fromkeys((tuple(row.shape), row.n_echoes, row.threads) for row in rows)
    for shape, echoes, threads in sizes:
        here = [r for r in rows if (tuple(r.shape), r.n_echoes, r.threads)
                == (shape, echoes, threads) and not r.error]  # fmt: skip
        lines += [f'{_by(shape)} voxels, {echoes} echoes, {threads} threads:', '']
        # No seconds, which tell of a machine as much as of a method.
        shown = (
            0,
            *range(2, len(_COLUMNS) if shape == PEER_SHAPE else _COLUMNS.index('image pairs')),
        )
        cells = ([f'{row.stage}/{row.method}', *(_cells(row)[k] for k in shown)] for row in here)
        lines += table(('method', *(_COLUMNS[k] for k in shown)), cells)
    found = list(_scaling_rows(rows))
    if found:
        width = max(len(cells) for cells in found) - 4
        names = ('method', 'threads', *(f'size {k + 1}' for k in range(width)), 'time', 'memory')
        lines += ['Growth with the number of voxels N:', '', *table(names, found)]
    if others:
        cells = (
            [r.work, _by(r.shape), str(r.threads), r.other,
             r.note or f'{r.other_seconds / r.seconds:.1f}']
            for r in others
        )  # fmt: skip
        columns = ('work', 'voxels', 'threads', 'other', 'times faster')
        lines += ['The same work by other implementations, which use one thread:', '']
        lines += table(columns, cells)
    return '\n'.join(lines) + '\n'


def write_markdown(path: Path, rows, others) -> None:
    """Write the tables between the marks of a document, or a new one with nothing else."""
    if not path.exists():
        path.write_text(BEGIN + END, encoding='utf-8')
    replace_between(path, BEGIN, END, '\n' + markdown(rows, others))


def replace_between(path: Path, begin: str, end: str, text: str) -> None:
    """Replace what stands between two marks of a file.

    Raises
    ------
    SystemExit
        If the file does not have each mark once, in this order.
    """
    before = path.read_text(encoding='utf-8')
    if before.count(begin) != 1 or before.count(end) != 1 or before.find(begin) > before.find(end):
        raise SystemExit(f'{path} needs the lines {begin.strip()!r} and {end.strip()!r} once')
    head, rest = before.split(begin)
    path.write_text(head + begin + text + end + rest.split(end)[1], encoding='utf-8')
