"""From converted images to acquisitions: magnitude and phase of all echoes, and T1w volumes."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from qsmflow.dicom.blocks import (
    COMPLEX_PARTS,
    Block,
    began_together,
    candidates,
    covers,
    make_blocks,
    preferred,
    same_scan,
)
from qsmflow.dicom.echoes import EchoError, order_echoes
from qsmflow.dicom.images import (
    Converted,
    is_field_map,
    is_t1w,
    merged_parts,
    single_coil,
    unusable,
)

_MERGED = (
    'magnitude and phase are merged into one image; convert again with a newer dcm2niix, or '
    'export magnitude and phase as series of their own'
)
_COIL = 'the image of a single coil; combine the coils first (for example with MCPC-3D-S)'
#: Integers that are read as floats look like this; no scanner saves such values.
_NO_SIGNAL = 1e-12
_MISREAD = (
    'its values are not those of a scan (at most {:.2g}): dcm2niix misread the file. Convert it '
    'with another version, or export it as classic DICOM'
)
_NO_PHASE = 'a magnitude without phase'


@dataclass
class Acquisition:
    """Images of one scan that will be written.

    Attributes
    ----------
    suffix : {'MEGRE', 'T2starw', 'T1w'}
        End of the names in BIDS.
    images : dict
        Converted images by part and number of the echo, in that order.
    te : dict
        Echo time of each number, in s.
    notes : list of str
        What its user should know.
    """

    suffix: str
    images: dict[tuple[str, int], Converted]
    te: dict[int, float]
    notes: list[str] = field(default_factory=list)

    @property
    def protocol(self) -> str:
        """Name of the protocol."""
        return next(iter(self.images.values())).protocol

    @property
    def numbers(self) -> tuple[int, ...]:
        """Numbers of the series it comes from."""
        return tuple(sorted({image.number for image in self.images.values()}))


@dataclass
class Sorted:
    """What was found.

    Attributes
    ----------
    acquisitions : list of Acquisition
        In the order of series numbers.
    left_out : list of (str, str)
        What is not written and why, as it should be.
    problems : list of (str, str)
        Scans with phase that cannot be written, and why.
    """

    acquisitions: list[Acquisition] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    problems: list[tuple[str, str]] = field(default_factory=list)


def sort_images(
    images: Sequence[Converted],
    *,
    echo_times: Sequence[float] | None = None,
    wanted: Collection[int] = (),
) -> Sorted:
    """Sort the images of one study into acquisitions.

    Parameters
    ----------
    images : sequence of Converted
        Of one study.
    echo_times : sequence of float, optional
        Echo times in s that the user knows, in the order of the echo numbers; they replace those
        of every gradient echo with as many echoes.
    wanted : collection of int, optional
        Series that the user asked for by number; field maps are not left out then.

    Returns
    -------
    Sorted
        Acquisitions, and all others with a reason.
    """
    result = Sorted()
    usable = [image for image in images if _sift(image, result)]
    blocks = _whole(make_blocks(usable), result)
    scans, magnitudes = _pair(blocks, result)
    for block, notes in scans:
        if reason := _lost_magnitude(block, images):
            result.problems.append((_title(block), reason))
            continue
        _add_gradient_echo(block, notes, echo_times, bool(wanted), result)
    _add_t1w(magnitudes, result)
    result.acquisitions.sort(key=lambda item: item.numbers)
    return result


def _sift(image: Converted, result: Sorted) -> bool:
    """Tell whether an image may be used; if not, say why."""
    if merged_parts(image):
        result.problems.append((str(image), _MERGED))
        return False
    if reason := unusable(image):
        result.left_out.append((str(image), reason))
        return False
    if single_coil(image):
        result.problems.append((str(image), _COIL))
        return False
    largest = max(abs(image.facts.minimum), abs(image.facts.maximum))
    if 0 < largest < _NO_SIGNAL:
        result.problems.append((str(image), _MISREAD.format(largest)))
        return False
    if image.facts.n_volumes > 1:
        reason = (
            f'holds {image.facts.n_volumes} volumes: repetitions, or magnitude and phase merged '
            'into one image, which cannot be told apart; export them as series of their own'
        )
        result.problems.append((str(image), reason))
        return False
    return True


def _whole(blocks: Sequence[Block], result: Sorted) -> list[Block]:
    """Return the blocks whose series has one grid; a series with phase and several is refused."""
    grids: dict[tuple, list[Block]] = defaultdict(list)
    for block in blocks:
        grids[block.first.study, block.first.series, block.first.number].append(block)
    refused: list[Block] = []
    for own in grids.values():
        several_echoes = len({te for block in own for te in block.times()}) > 1
        has_phase = any(block.parts & set(COMPLEX_PARTS) for block in own)
        if len(own) == 1 or not (has_phase or several_echoes):
            continue
        shapes = {' x '.join(map(str, block.first.shape)) for block in own}
        what = ' and '.join(sorted(shapes)) if len(shapes) > 1 else 'in different places'
        reason = f'its images have different grids ({what}): a DICOM file may be missing'
        result.problems.append((_title(own[0]), reason))
        refused += own
    return [block for block in blocks if block not in refused]


def _lost_magnitude(block: Block, images: Sequence[Converted]) -> str:
    """Say which magnitude of another grid began with a phase that has none; empty if none did."""
    if 'mag' in block.parts or 'phase' not in block.parts:
        return ''
    for image in images:
        if image.part == 'mag' and image.te in block.times() and began_together(block, image):
            return (
                f'its magnitude (series {image.number}) has another grid, or is incomplete: a '
                'DICOM file may be missing'
            )
    return ''


def _pair(blocks: Sequence[Block], result: Sorted) -> tuple[list, list[Block]]:
    """Bring the parts of each scan together.

    Returns
    -------
    scans : list of (Block, list of str)
        Blocks with phase, and notes.
    rest : list of Block
        Magnitudes without phase.
    """
    scans = [(block, []) for block in blocks if block.parts & set(COMPLEX_PARTS)]
    rest = [block for block in blocks if block.parts == {'mag'}]
    scans = _one_phase(_join_complex(scans), result)
    wanting = [block for block, _ in scans if 'mag' not in block.parts]
    complete = []
    # Where the times are known they decide, before anything is left for the protocol's name.
    for by_time in (True, False):
        for block, notes in list(scans):
            if 'mag' in block.parts:
                complete.append((block, notes))
                scans.remove((block, notes))
                continue
            fitting, timed = candidates(block, rest)
            if not fitting or timed != by_time:
                continue
            scans.remove((block, notes))
            others = [other for other in wanting if other is not block]
            rivals = [other for other in others if fitting[0] in candidates(other, rest)[0]]
            chosen, copies = preferred(block, fitting)
            if chosen is None or (not timed and (copies or rivals)):
                result.problems.append((_title(block), _which(fitting)))
                continue
            wanting.remove(block)
            complete.append((Block([*chosen.images, *block.images]), notes))
            notes += _pairing_notes(block, chosen, copies, timed)
            rest = [other for other in rest if other is not chosen and other not in copies]
            result.left_out += [(_title(copy), 'another copy of the magnitude') for copy in copies]
    return complete + scans, rest


def _one_phase(scans: list, result: Sorted) -> list:
    """Keep one phase of each scan: that without correction of gradient nonlinearity."""
    kept: list = []
    for block, notes in sorted(scans, key=lambda item: item[0].corrected):
        twins = [
            other
            for other, _ in kept
            if other.parts == block.parts
            and same_scan(other, block)
            and covers(other, block)
            and covers(block, other)
        ]
        if not twins:
            kept.append((block, notes))
        elif twins[0].corrected != block.corrected:
            result.left_out.append((_title(block), 'another copy of the phase'))
        else:
            reason = f'one scan with series {twins[0].numbers[0]}: choose one with --series'
            result.problems.append((_title(block), reason))
    return kept


def _join_complex(scans: list) -> list:
    """Join real and imaginary images that are series of their own."""
    joined: list = []
    for block, notes in scans:
        others = [other for other, _ in joined if not other.parts & block.parts]
        others = [other for other in others if other.parts | block.parts == {'real', 'imag'}]
        fitting, timed = candidates(block, others)
        if len(fitting) == 1 and timed:
            fitting[0].images += block.images
        else:
            joined.append((block, notes))
    return joined


def _pairing_notes(block: Block, chosen: Block, copies: Sequence[Block], timed: bool) -> list[str]:
    notes = []
    if not timed:
        notes.append(
            'magnitude and phase were brought together by grid, echo times and protocol: their '
            'times of acquisition do not say that they are one scan'
        )
    if copies:
        others = ', '.join(str(number) for copy in copies for number in copy.numbers)
        notes.append(f'the magnitude is series {chosen.numbers[0]}; {others} are copies of it')
    if chosen.corrected != block.corrected:
        notes.append('only one of magnitude and phase is corrected for gradient nonlinearity')
    return notes


def _which(fitting: Sequence[Block]) -> str:
    numbers = ', '.join(str(number) for block in fitting for number in block.numbers)
    return (
        f'its magnitude could be series {numbers}: nothing tells which. Name the series that '
        'belong together with --series'
    )


def _add_gradient_echo(
    block: Block,
    notes: list[str],
    echo_times: Sequence[float] | None,
    asked: bool,
    result: Sorted,
) -> None:
    """Add a scan with phase as MEGRE or T2starw, or say why not."""
    title = _title(block)
    if is_field_map(block.first) and not asked:
        reason = 'a two-dimensional field map; --series takes it all the same'
        result.left_out.append((title, reason))
        return
    if _phase_difference(block):
        reason = 'a phase difference: the phase of the last echo alone is there'
        result.left_out.append((title, reason))
        return
    try:
        echoes = order_echoes(block.images, echo_times)
    except EchoError as error:
        result.problems.append((title, str(error)))
        return
    suffix = 'MEGRE' if len(echoes.te) > 1 else 'T2starw'
    found = Acquisition(suffix, echoes.images, echoes.te, notes + echoes.notes)
    result.acquisitions.append(found)


def _phase_difference(block: Block) -> bool:
    """Tell whether two magnitudes have one phase, that of the later echo."""
    magnitude, phase = block.times('mag'), block.times('phase')
    return len(magnitude) == 2 and phase == magnitude[1:] and None not in magnitude


def _add_t1w(blocks: Sequence[Block], result: Sorted) -> None:
    """Add the T1w volumes among magnitudes without phase; the others are left out."""
    found: list[Block] = []
    for block in blocks:
        if not is_t1w(block.first) or len(block.images) > 1:
            result.left_out.append((_title(block), _NO_PHASE))
            continue
        twins, timed = candidates(block, found)
        if not timed:
            found.append(block)
            continue
        # A normalised copy is the better anatomical image.
        worse = block if 'NORM' in twins[0].kinds else twins[0]
        if worse is not block:
            found[found.index(worse)] = block
        result.left_out.append((_title(worse), 'another copy of a T1w image'))
    for block in found:
        images = {('', 1): block.first}
        te = {} if block.first.te is None else {1: block.first.te}
        result.acquisitions.append(Acquisition('T1w', images, te))


def _title(block: Block) -> str:
    numbers = ' + '.join(map(str, block.numbers))
    return f'series {numbers} ({block.first.protocol or "without a name"})'
