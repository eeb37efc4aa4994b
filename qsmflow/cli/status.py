"""How every series, map and report of a run stands, at any time of the run."""

import csv
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from qsmflow.bids.findings import Finding
from qsmflow.files import completed


@dataclass(frozen=True)
class Outcome:
    """How one series, or the report of a subject, ended.

    Attributes
    ----------
    name : str
        Series or COSMOS map, as in file names; or ``sub-<label>`` for what belongs to a subject.
    status : {'done', 'failed', 'not started', 'interrupted'}
        ``'not started'`` when a check of the input stopped it, or the run ended before it.
    reason : str
        Empty when done.
    """

    name: str
    status: str
    reason: str = ''

    @property
    def subject(self) -> str:
        """Subject that it belongs to, with ``sub-``."""
        return self.name.replace(' ', '_').partition('_')[0]


class Ledger:
    """Keeps the outcomes of a run; what is still open has been interrupted if the run ends now.

    Parameters
    ----------
    path : path-like
        ``status.tsv`` of the run.

    Attributes
    ----------
    phase : str
        What the run is doing.
    notes : list of Finding
        What is to be said of the dataset or the run as a whole. It goes to log and report, not
        into sidecars: a run that is resumed gives the same results.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.phase = 'starting'
        self.notes: list[Finding] = []
        self._outcomes: dict[str, Outcome | None] = {}
        self._needed: dict[str, tuple[str, ...]] = {}
        self._monitor = None

    def put(self, *outcomes: Outcome) -> None:
        """Take down how parts ended."""
        self._outcomes.update((outcome.name, outcome) for outcome in outcomes)

    def expect(self, *names: str) -> None:
        """Name parts whose outcome is open."""
        for name in names:
            self._outcomes.setdefault(name, None)

    def watch(self, parts: Iterable[tuple[str, tuple[str, ...]]], monitor) -> None:
        """Name parts that are done when all nodes of their groups are, as a monitor tells."""
        self._needed = dict(parts)
        self._monitor = monitor
        self.expect(*self._needed)

    def close(
        self, reason: str, status: str = 'interrupted', failed: Collection[str] = ()
    ) -> None:
        """Take down everything that is open.

        Parameters
        ----------
        reason : str
            Why it ended.
        status : str
            Of what is not complete.
        failed : collection of str
            Groups of nodes; what needs one of them has failed.
        """
        for name, outcome in list(self._outcomes.items()):
            if outcome is None:
                self.put(self._closed(name, reason, status, failed))
        if not self._outcomes:
            self.put(Outcome('all', status, reason))

    def _closed(self, name: str, reason: str, status: str, failed: Collection[str]) -> Outcome:
        needed = set(self._needed.get(name, ()))
        if needed and all(self._monitor.complete(group) for group in needed):
            return Outcome(name, 'done')
        return Outcome(name, 'failed' if needed & set(failed) else status, reason)

    def outcomes(self) -> list[Outcome]:
        """Return what is known, in the order in which it was expected."""
        return [outcome for outcome in self._outcomes.values() if outcome is not None]

    def unfinished(self) -> list[Outcome]:
        """Return what is not done."""
        return [outcome for outcome in self.outcomes() if outcome.status != 'done']

    def write(self) -> None:
        """Write one line for each outcome; the file appears when it is complete."""
        with completed(self.path) as partial, partial.open('w', encoding='utf-8') as stream:
            writer = csv.writer(stream, delimiter='\t', lineterminator='\n')
            writer.writerow(['name', 'status', 'reason'])
            for outcome in self.outcomes():
                reason = ' '.join(outcome.reason.split()) or 'n/a'
                writer.writerow([outcome.name, outcome.status, reason])

    def interrupt(self, reason: str) -> Finding:
        """Write the table of a run that ends now, and return what it says (``E104``)."""
        finding = Finding(
            *('E104', 'FATAL', f'{reason} while {self.phase}'),
            remedy='Run the same command again: finished steps are not repeated.',
        )
        self.close(str(finding))
        self.write()
        return finding
