"""The list of defects, and how one is added to it."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Defect:
    """One way to break what is clean, and what must be said of it.

    ``stage`` is what sees it, and with that what ``make`` is given:

    ``'collection'``
        reading and checking the dataset; a ``Dataset``.
    ``'node'``
        a step of the graph, named by ``seen_by``; a ``Scan``.
    ``'program'``
        the command line; a ``Launch``.
    ``'surroundings'``
        nobody, as the program must not care; a ``Surroundings``.

    ``outcome`` is ``'series'`` if the acquisition must still be processed, ``'failed'`` if it
    must be left out, or the exit code with which the run must end. ``file`` is a part of the
    file's name. ``level`` is empty where nothing may be said. ``told`` are the places beside the
    log: ``'status'`` table and ``'report'``.
    """

    code: str
    level: str
    outcome: str | int
    make: Callable
    label: str
    file: str = ''
    stage: str = 'collection'
    seen_by: str = ''
    told: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Return how tests name it."""
        return f'{self.code}-{self.label}'


DEFECTS: list[Defect] = []


def defect(
    code: str,
    level: str,
    outcome: str | int = '',
    file: str = '',
    label: str = '',
    stage: str = 'collection',
    seen_by: str = '',
    told: tuple[str, ...] = (),
):
    """Register a function that breaks something."""
    outcome = 'failed' if outcome == '' and level == 'ERROR' else outcome
    outcome = 'series' if outcome == '' else outcome

    def register(make: Callable) -> Callable:
        name = label or make.__name__
        DEFECTS.append(Defect(code, level, outcome, make, name, file, stage, seen_by, told))
        return make

    return register
