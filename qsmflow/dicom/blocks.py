"""Images of one series and grid, and which of them belong to one scan."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from qsmflow.bids.checks_metadata import SAME_TE
from qsmflow.dicom.images import Converted

#: Series of one scan start together; slices of 2D scans make a difference of their own, in s.
SAME_START = 5.0
COMPLEX_PARTS = ('phase', 'real', 'imag')
_CORRECTED = ('DIS2D', 'DIS3D')


@dataclass(eq=False)
class Block:
    """Images that certainly belong together: those of one series on one grid, or joined.

    Attributes
    ----------
    images : list of Converted
        At least one.
    """

    images: list[Converted]

    @property
    def first(self) -> Converted:
        """Image of the lowest series number."""
        return self.images[0]

    @property
    def parts(self) -> set[str]:
        """Parts that there are images of."""
        return {image.part for image in self.images}

    @property
    def numbers(self) -> tuple[int, ...]:
        """Series numbers."""
        return tuple(sorted({image.number for image in self.images}))

    def times(self, part: str | None = None) -> tuple[float | None, ...]:
        """Return the echo times of a part, or of all, sorted; None where there is none."""
        chosen = [image for image in self.images if part in (None, image.part)]
        return tuple(sorted({image.te for image in chosen}, key=lambda te: (te is None, te)))

    @property
    def kinds(self) -> set[str]:
        """Words of ``ImageType`` of all images."""
        return set().union(*(image.kinds for image in self.images))

    @property
    def corrected(self) -> bool:
        """Whether the scanner corrected the images for gradient nonlinearity."""
        return bool(self.kinds & set(_CORRECTED))


def make_blocks(images: Sequence[Converted]) -> list[Block]:
    """Put the images of each series and grid together, and echoes that are series of their own.

    Parameters
    ----------
    images : sequence of Converted
        In the order of series numbers.

    Returns
    -------
    list of Block
        In that order.
    """
    blocks: list[Block] = []
    for image in images:
        for block in blocks:
            one = block.first
            own = (one.study, one.series, one.number) == (image.study, image.series, image.number)
            if own and one.on_grid_of(image):
                block.images.append(image)
                break
        else:
            blocks.append(Block([image]))
    return _join_echoes(blocks)


def _join_echoes(blocks: list[Block]) -> list[Block]:
    """Join series that hold one echo each of one scan."""
    joined: list[Block] = []
    for block in blocks:
        for other in joined:
            same = same_scan(other, block) and other.parts == block.parts
            alike = _name(other) == _name(block) and other.corrected == block.corrected
            if same and alike and not _share_times(other, block) and _normal(other, block):
                other.images += block.images
                break
        else:
            joined.append(block)
    return joined


def _normal(one: Block, other: Block) -> bool:
    return ('NORM' in one.kinds) == ('NORM' in other.kinds)


def _name(block: Block) -> str:
    """Return the name of the protocol without numbers, which may count echoes."""
    return re.sub(r'[\d._ -]+', '', block.first.protocol.lower())


def _share_times(one: Block, other: Block) -> bool:
    times = [te for te in one.times() if te is not None]
    return None in one.times() + other.times() or any(
        abs(te - own) < SAME_TE for te in times for own in other.times() if own is not None
    )


def began_together(block: Block, image: Converted) -> bool:
    """Tell whether an image is of the study of a block, and began with it."""
    first = block.first
    if first.study != image.study or first.seconds is None or image.seconds is None:
        return False
    return abs(first.seconds - image.seconds) <= SAME_START


def same_scan(one: Block, other: Block) -> bool:
    """Tell whether two blocks are of one study and grid, and began together."""
    return one.first.on_grid_of(other.first) and began_together(one, other.first)


def covers(one: Block, other: Block) -> bool:
    """Tell whether a block has all echo times of another."""
    known = [te for te in one.times() if te is not None]
    return all(
        te is not None and any(abs(te - own) < SAME_TE for own in known) for te in other.times()
    )


def candidates(block: Block, others: Sequence[Block]) -> tuple[list[Block], bool]:
    """Find the blocks that can belong to the scan of a block with phase.

    Parameters
    ----------
    block : Block
        With phase, or real or imaginary images.
    others : sequence of Block
        Blocks with parts that it lacks.

    Returns
    -------
    fitting : list of Block
        On its grid; begun with it if that can be told, else of the same protocol.
    by_time : bool
        Whether the times of acquisition say so.
    """
    on_grid = [
        other
        for other in others
        if other.first.study == block.first.study and other.first.on_grid_of(block.first)
    ]
    started = [other for other in on_grid if same_scan(block, other)]
    if started:
        return started, True
    alike = [other for other in on_grid if _name(other) == _name(block) and covers(other, block)]
    return alike, False


def preferred(block: Block, fitting: Sequence[Block]) -> tuple[Block | None, list[Block]]:
    """Choose among several copies of a magnitude.

    A scanner can save one scan corrected and uncorrected for gradient nonlinearity (DIS, ND), and
    with its sensitivity normalised or not (NORM). The copy that is closest to the measured
    signal, like the phase itself, is taken.

    Parameters
    ----------
    block : Block
        With phase.
    fitting : sequence of Block
        From :func:`candidates`.

    Returns
    -------
    chosen : Block or None
        None where two cannot be told apart.
    copies : list of Block
        The others.
    """

    def rank(other: Block) -> tuple:
        return not covers(other, block), other.corrected != block.corrected, 'NORM' in other.kinds

    ordered = sorted(fitting, key=lambda other: (*rank(other), other.first.number))
    if len(ordered) > 1 and rank(ordered[0]) == rank(ordered[1]):
        return None, ordered
    return ordered[0], ordered[1:]
