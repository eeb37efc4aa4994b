"""The list of defects, and how one is added to it."""

from collections.abc import Callable
from dataclasses import dataclass

from .dataset import Dataset


@dataclass(frozen=True)
class Defect:
    """One way to break a clean dataset, and what must be said of it.

    ``outcome`` is ``'series'`` if the acquisition must still be processed, ``'failed'`` if it
    must be left out, or the exit code with which the run must end.
    """

    code: str
    level: str
    outcome: str | int
    make: Callable[[Dataset], None]
    label: str
    file: str = ''


DEFECTS: list[Defect] = []


def defect(code: str, level: str, outcome: str | int = '', file: str = '', label: str = ''):
    """Register a function that breaks a dataset."""
    outcome = outcome or ('failed' if level == 'ERROR' else 'series')

    def register(make: Callable[[Dataset], None]) -> Callable[[Dataset], None]:
        DEFECTS.append(Defect(code, level, outcome, make, label or make.__name__, file))
        return make

    return register
