"""What a request takes of a dataset, and what becomes of participants of whom it takes nothing."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qsmflow.bids import checks_dataset, filters
from qsmflow.bids.findings import EXIT_USAGE, DatasetError, Finding
from qsmflow.bids.grouping import Failure, Image
from qsmflow.bids.names import IMAGE_EXTENSIONS, looks_like_gre, parse_name
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
        """Return a request; a session that no participant of the dataset has is refused (``E91``).

        One that only others have is no error: each task of an array has one participant.
        """
        sessions = None
        if session_label is not None:
            available = {ses for label in labels for ses in checks_dataset.sessions(root, label)}
            wanted = [str(label) for label in session_label]
            if {label.removeprefix('ses-') for label in wanted} - available:
                everyone = checks_dataset.subjects(root)
                available |= {s for sub in everyone for s in checks_dataset.sessions(root, sub)}
            chosen = checks_dataset.choose_labels(wanted, available, 'session', 'ses-')
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


def narrow(images: Sequence[Image], request: Request, root: Path) -> list[Image]:
    """Keep the gradient-echo images of a request.

    Parameters
    ----------
    images : sequence of Image
        Of the sessions that are asked for.
    request : Request
        What is asked for.
    root : Path
        Root of the dataset: labels that only other participants have are no error.

    Returns
    -------
    list of Image

    Raises
    ------
    DatasetError
        ``E91`` with exit code 2 if the filter fits no image, or a label none of the dataset.
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
        available = _labels_of(chosen, key)
        wanted = _as_written(labels, available, key)
        if not set(wanted) <= available:
            others = named_images(root, checks_dataset.subjects(root))
            available |= _labels_of((o for o in others if looks_like_gre(o.name)), key)
            wanted = _as_written(labels, available, key)
        kept = checks_dataset.choose_labels(wanted, available, what, f'{key}-')
        chosen = [image for image in chosen if image.entities.get(key) in kept]
    return chosen


def _labels_of(images: Iterable[Image], key: str) -> set[str]:
    return {image.entities[key] for image in images if key in image.entities}


def _as_written(labels: Iterable[str], available: set[str], key: str) -> list[str]:
    """Return labels without prefix; run-01 and run-1 are one label to its user."""
    bare = [str(label).removeprefix(f'{key}-') for label in labels]
    if key != 'run':
        return bare
    padded = {label.lstrip('0') or '0': label for label in available}
    return [padded.get(label.lstrip('0') or '0', label) for label in bare]


def named_images(root: Path, labels: Iterable[str]) -> Iterator[Image]:
    """Yield all images in the ``anat`` folders of participants by their names, without metadata.

    Parameters
    ----------
    root : Path
        Root of the dataset.
    labels : iterable of str
        Participants, without prefix.
    """
    for label in labels:
        folder = root / f'sub-{label}'
        paths = [*folder.glob('anat/*.nii*'), *folder.glob('ses-*/anat/*.nii*')]
        for path in sorted(paths):
            entities, suffix, extension = parse_name(path.name)
            if extension in IMAGE_EXTENSIONS and not path.name.startswith('.'):
                relative = path.relative_to(root).as_posix()
                yield Image(str(path), relative, entities, suffix, {})


def passed_over(
    bids_dir: str | os.PathLike,
    labels: Sequence[str],
    *,
    session_label: Iterable[str] | None = None,
    acq_label: Iterable[str] | None = None,
    run_label: Iterable[str] | None = None,
    bids_filter: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[Finding]:
    """Say which participants have nothing of what is asked for, by the names of their files alone.

    Parameters
    ----------
    bids_dir : path-like
        Root of a raw BIDS dataset.
    labels : sequence of str
        Participants, without prefix.
    session_label, acq_label, run_label, bids_filter
        As of :func:`qsmflow.bids.collect`.

    Returns
    -------
    list of Finding
        ``E91`` for each of them; ``file`` is the participant's folder. Those without any
        gradient-echo data are not among them: that is a fault of theirs.

    Raises
    ------
    DatasetError
        ``E91`` with exit code 2 if no participant has what is asked for.
    """
    root = Path(os.path.abspath(bids_dir))
    query = filters.check_filters(bids_filter).get('megre', {})
    request = Request.of(root, labels, session_label, acq_label, run_label, query)
    everything = list(named_images(root, labels))
    images = [image for image in everything if request.takes_session(image.session)]
    chosen = narrow(images, request, root)
    served = {image.entities.get('sub') for image in chosen}
    unserved = [label for label in labels if label not in served]
    return sort_out(unserved, everything, chosen, request, root, named=False)[1]


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
