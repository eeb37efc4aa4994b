"""The echoes of one gradient echo: their order, their times, and whether any is missing."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from qsmflow.bids.checks_metadata import SAME_TE, as_number
from qsmflow.dicom.images import Converted

#: Echo times in s and images, in the order of time.
Timed = list[tuple[float, Converted]]

_PARTS = ('mag', 'phase', 'real', 'imag')
_TELL = 'If you know the echo times, give them with --echo-times; they are never guessed'
_EXPORT = 'Export them from the scanner or the archive again'


class EchoError(Exception):
    """The echoes of a scan are incomplete or cannot be told apart."""


@dataclass
class Echoes:
    """Echoes in order.

    Attributes
    ----------
    images : dict
        Images by part and number.
    te : dict
        Echo time of each number, in s.
    notes : list of str
        What was noticed.
    """

    images: dict[tuple[str, int], Converted]
    te: dict[int, float]
    notes: list[str] = field(default_factory=list)


def order_echoes(images: Sequence[Converted], echo_times: Sequence[float] | None = None) -> Echoes:
    """Put the images of one scan in order.

    Echoes are told apart by their times. The numbers of the DICOM header are kept where they
    agree with the times, so that a gap stays visible; else echoes are counted.

    Parameters
    ----------
    images : sequence of Converted
        Magnitude and phase, or real and imaginary images with or without magnitude.
    echo_times : sequence of float, optional
        Times in s that the user gives, for a scan with as many echoes.

    Returns
    -------
    Echoes
        Complete: every part has every echo.

    Raises
    ------
    EchoError
        If a time is missing or is that of several echoes, or if a part lacks an echo.
    """
    parts = _needed(images)
    notes = []
    if 'mag' not in parts and 'phase' in parts:
        notes.append('there is no magnitude: no R2*, no regions')
    given = echo_times and all(len(own) == len(echo_times) for own in parts.values())
    if given:
        notes.append('echo times are those of --echo-times')
        timed = {part: _given_times(own, echo_times) for part, own in parts.items()}
    else:
        timed = {part: _own_times(part, own) for part, own in parts.items()}
    _check_complete(timed)
    numbers, numbering = _numbers(timed)
    te = {n: time for n, (time, _) in zip(numbers, next(iter(timed.values())), strict=True)}
    found = {
        (part, number): image
        for index, number in enumerate(numbers)
        for part, own in timed.items()
        for image in (own[index][1],)
    }
    return Echoes(found, te, [*notes, *numbering, *_announced(images, len(te))])


def _needed(images: Sequence[Converted]) -> dict[str, list[Converted]]:
    """Return the images by part: magnitude and phase, or real and imaginary."""
    parts: dict[str, list[Converted]] = defaultdict(list)
    for part in _PARTS:
        for image in images:
            if image.part == part:
                parts[part].append(image)
    if 'phase' in parts:  # then real and imaginary images add nothing
        return {part: parts[part] for part in ('mag', 'phase') if part in parts}
    missing = [part for part in ('real', 'imag') if part not in parts]
    if missing:
        raise EchoError(f'{missing[0]} images are missing. {_EXPORT}')
    return dict(parts)


def _own_times(part: str, images: Sequence[Converted]) -> Timed:
    """Return the images of a part in the order of the times in their sidecars."""
    absent = [image for image in images if image.te is None]
    if absent:
        raise EchoError(f'{absent[0]} has no EchoTime. {_TELL}')
    ordered = sorted(((image.te, image) for image in images), key=lambda pair: pair[0])
    for (te, one), (later, other) in pairwise(ordered):
        if later - te < SAME_TE:
            raise EchoError(
                f'two {part} images have the echo time {1000 * te:g} ms: {one} and {other}. '
                'Either the header holds the time of the first echo for all (some GE research '
                f'sequences), or they are repetitions or single coils. {_TELL}'
            )
    return ordered


def _given_times(images: Sequence[Converted], echo_times: Sequence[float]) -> Timed:
    """Return the images of a part in the order of their numbers, with the times given."""
    if len({image.echo for image in images} - {None}) != len(echo_times):
        raise EchoError(
            '--echo-times cannot be used: the images have no echo numbers that tell which is '
            'which. Convert the echoes one by one, and write their sidecars by hand'
        )
    ordered = sorted(images, key=lambda image: image.echo)
    return list(zip(sorted(echo_times), ordered, strict=True))


def _check_complete(timed: Mapping[str, Timed]) -> None:
    """Check that all parts have the same echo times."""
    times = {part: [te for te, _ in own] for part, own in timed.items()}
    there = '; '.join(f'{part}: {_in_ms(own)}' for part, own in times.items())
    for part, own in times.items():
        others = {te for part_times in times.values() for te in part_times}
        missing = [te for te in others if all(abs(te - mine) >= SAME_TE for mine in own)]
        if missing:
            raise EchoError(
                f'the {part} image of echo time {_in_ms(missing)} is missing ({there}). {_EXPORT}'
            )


def _in_ms(times: Iterable[float]) -> str:
    return ', '.join(f'{1000 * te:g}' for te in sorted(times)) + ' ms'


def _numbers(timed: Mapping[str, Timed]) -> tuple[list[int], list[str]]:
    """Return the number of each echo in the order of time, and what was noticed."""
    by_part = [[image.echo for _, image in own] for own in timed.values()]
    numbers = by_part[0]
    if len(numbers) == 1:
        return [1], []
    known = None not in numbers and all(own == numbers for own in by_part)
    if not known or sorted(set(numbers)) != numbers:
        note = 'the header numbers no echoes, or not in the order of time: they were counted'
        return list(range(1, len(numbers) + 1)), [note]
    gaps = sorted(set(range(1, numbers[-1] + 1)) - set(numbers))
    if gaps:
        shown = ', '.join(map(str, gaps))
        return numbers, [f'by their numbers, echo {shown} is missing in all parts']
    return numbers, []


def _announced(images: Sequence[Converted], count: int) -> list[str]:
    """Compare the number of echoes with what the header announces."""
    values = [as_number(image.metadata.get('EchoTrainLength')) for image in images]
    announced = max((value for value in values if value is not None), default=0)
    if announced > count > 1:
        return [f'the header speaks of {announced:g} echoes, and {count} are there']
    return []
