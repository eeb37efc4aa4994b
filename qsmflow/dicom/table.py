"""What will be written, as text: the table that is shown before anything is."""

from collections.abc import Iterable, Sequence

from qsmflow.dicom.grouping import Sorted
from qsmflow.dicom.naming import Target

_COLUMNS = ('series', 'protocol', 'part', 'echo', 'TE (ms)', 'matrix', 'units', 'becomes')
_LONGEST = 28


def render(targets: Sequence[Target], found: Sorted, notes: Iterable[str] = ()) -> str:
    """Return the plan as plain text.

    Parameters
    ----------
    targets : sequence of Target
        What will be written.
    found : Sorted
        What was found, with everything that is left out.
    notes : iterable of str
        Further lines, such as warnings of dcm2niix.

    Returns
    -------
    str
        Table, then what is left out, what cannot be written, and notes.
    """
    lines: list[str] = []
    if targets:
        lines += _aligned([_COLUMNS, *(_row(target) for target in targets)])
    for title, entries in (
        ('Cannot be written:', found.problems),
        ('Left out:', found.left_out),
    ):
        if entries:
            lines += ['', title, *(f'  {what}: {why}' for what, why in dict.fromkeys(entries))]
    told = [
        f'series {" + ".join(map(str, item.numbers))}: {note}'
        for item in found.acquisitions
        for note in item.notes
    ]
    if told or notes:
        lines += ['', 'Notes:', *(f'  {note}' for note in (*told, *notes))]
    return '\n'.join(line.rstrip() for line in lines).lstrip('\n') + '\n'


def _row(target: Target) -> tuple[str, ...]:
    te = target.content.get('EchoTime')
    protocol = target.image.protocol
    return (
        str(target.image.number),
        protocol if len(protocol) <= _LONGEST else protocol[: _LONGEST - 3] + '...',
        target.part or '-',
        str(target.echo),
        '-' if te is None else f'{1000 * te:.5g}',
        ' x '.join(map(str, target.image.shape)),
        str(target.content.get('Units', '-')),
        target.relative,
    )


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        '  '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]
    return [lines[0], '  '.join('-' * width for width in widths), *lines[1:]]
