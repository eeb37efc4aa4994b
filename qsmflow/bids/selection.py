"""What a request takes of a dataset, and what becomes of participants of whom it takes nothing."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qsmflow.bids import checks_dataset, filters
from qsmflow.bids.findings import EXIT_USAGE, DatasetError, Finding
from qsmflow.bids.grouping import Failure, Image
from qsmflow.bids.names import looks_like_gre
from qsmflow.bids.series import series_name


@dataclass(frozen=True)
class Request:
    """Which images of the participants are asked for.

    Attributes
    ----------
    sessions : tuple of str or None
        Labels; None for all, those without a session included.
    acq, run : tuple of str or None
        Labels, with or without prefix; None for all.
    query : mapping
        Filter of the gradient-echo images.
    """

    sessions: tuple[str, ...] | None = None
    acq: tuple[str, ...] | None = None
    run: tuple[str, ...] | None = None
    query: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        root: Path,
        labels: Sequence[str],
        session_label: Iterable[str] | None,
        acq_label: Iterable[str] | None,
        run_label: Iterable[str] | None,
        query: Mapping[str, Any],
    ) -> 'Request':
        """Return a request; a session that no participant has is refused (``E91``)."""
        sessions = None
        if session_label is not None:
            available = {ses for label in labels for ses in checks_dataset.sessions(root, label)}
            chosen = checks_dataset.choose_labels(session_label, available, 'session', 'ses-')
            sessions = tuple(chosen)
        acq, run = (None if some is None else tuple(some) for some in (acq_label, run_label))
        return cls(sessions, acq, run, query)

    def takes_session(self, session: str | None) -> bool:
        """Tell whether images of a session are asked for."""
        return self.sessions is None or session in self.sessions

    def __str__(self) -> str:
        parts = [
            f'{what} {", ".join(map(str, labels))}'
            for what, labels in (('ses', self.sessions), ('acq', self.acq), ('run', self.run))
            if labels is not None
        ]
        if self.query:
            parts.append(f'filter megre {json.dumps(dict(self.query))}')
        return '; '.join(parts)


def narrow(images: Sequence[Image], request: Request) -> list[Image]:
    """Keep the gradient-echo images of a request.

    Parameters
    ----------
    images : sequence of Image
        Of the sessions that are asked for.
    request : Request
        What is asked for.

    Returns
    -------
    list of Image

    Raises
    ------
    DatasetError
        ``E91`` with exit code 2 if filter or labels fit no image of any participant.
    """
    chosen = [image for image in images if looks_like_gre(image.name)]
    kept = [image for image in chosen if filters.matches(image.relative, request.query)]
    if chosen and not kept:
        nothing = filters.kept_nothing(chosen, request.query, 'megre', 'FATAL')
        raise DatasetError([nothing], EXIT_USAGE)
    chosen = kept
    for key, what, labels in (('acq', 'acquisition', request.acq), ('run', 'run', request.run)):
        if labels is None:
            continue
        available = {image.entities[key] for image in chosen if key in image.entities}
        if key == 'run':  # run-01 and run-1 are one label to its user
            padded = {label.lstrip('0') or '0': label for label in available}
            labels = [
                padded.get(str(n).removeprefix('run-').lstrip('0') or '0', n) for n in labels
            ]
        kept = checks_dataset.choose_labels(labels, available, what, f'{key}-')
        chosen = [image for image in chosen if image.entities.get(key) in kept]
    return chosen


def sort_out(
    labels: Sequence[str],
    images: Sequence[Image],
    chosen: Sequence[Image],
    request: Request,
    root: Path,
    *,
    named: bool,
) -> tuple[list[Failure], list[Finding]]:
    """Say of participants without any series whether that is a fault or what was asked for.

    Parameters
    ----------
    labels : sequence of str
        The participants without a series.
    images : sequence of Image
        All images of the dataset, of every session.
    chosen : sequence of Image
        Those that are asked for.
    request : Request
        What is asked for.
    root : Path
        Root of the dataset.
    named : bool
        Whether the participants were asked for by their labels.

    Returns
    -------
    failed : list of (str, tuple of Finding)
        ``B28`` for participants without gradient-echo data, ``E91`` for those who were named and
        have none of the sessions, labels or filters that were asked for.
    left_out : list of Finding
        ``E91`` for the others who have none of these: they are not part of the request.
    """
    failed, left_out = [], []
    for label in labels:
        name = f'sub-{label}'
        own = [image for image in images if image.entities.get('sub') == label]
        there = checks_dataset.sessions(root, label)
        asked = any(image.entities.get('sub') == label for image in chosen)
        if asked or not _passed_over(own, there, request):
            failed.append((name, (_without_data(name, own),)))
        elif named:
            failed.append((name, (_not_there(name, own, there, request, 'ERROR'),)))
        else:
            left_out.append(_not_there(name, own, there, request, 'INFO'))
    return failed, left_out


def _passed_over(own: Sequence[Image], there: Sequence[str], request: Request) -> bool:
    """Tell whether a participant has other data, or another session, than is asked for."""
    lacks_session = request.sessions is not None and not set(there) & set(request.sessions)
    return lacks_session or any(looks_like_gre(image.name) for image in own)


def _without_data(name: str, own: Sequence[Image]) -> Finding:
    message = 'has no gradient-echo data with phase'
    remedy = 'Check the names of its files, or leave it out with --participant-label.'
    evidence = {'anat': [image.name for image in own][:10]}
    return Finding('B28', 'ERROR', message, name, evidence, remedy)


def _not_there(
    name: str, own: Sequence[Image], there: Sequence[str], request: Request, level: str
) -> Finding:
    """Say that a participant has nothing of what is asked for, and what there is instead."""
    series = {series_name(image.entities) for image in own if looks_like_gre(image.name)}
    evidence = {'sessions': list(there), 'series': sorted(series)[:10]}
    message = f'has no gradient-echo data of what was asked for ({request})'
    remedy = 'Nothing is to be done if that is meant.'
    if level == 'ERROR':
        remedy = 'Ask for what there is, or leave it out with --participant-label.'
    else:
        message += ', and is left out'
    return Finding('E91', level, message, name, evidence, remedy)
