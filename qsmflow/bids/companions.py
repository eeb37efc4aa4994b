"""Images that go with a series: the T1w of its subject and a brain mask from derivatives."""

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from qsmflow.bids.checks_anatomy import check_anatomical, lesions_of
from qsmflow.bids.checks_files import inspect_image
from qsmflow.bids.checks_mask import check_mask
from qsmflow.bids.checks_precomputed import verified
from qsmflow.bids.filters import matches
from qsmflow.bids.findings import EXIT_USAGE, DatasetError, Finding, stopping
from qsmflow.bids.names import IMAGE_EXTENSIONS, parse_name
from qsmflow.bids.precomputed import candidates, choose
from qsmflow.bids.series import GRESeries, series_name

if TYPE_CHECKING:
    from qsmflow.bids.query import Collection


class NamedImage(Protocol):
    """What is needed of an image of the dataset."""

    path: str
    relative: str
    entities: dict[str, str]
    suffix: str


def rank_t1w(
    images: Sequence[NamedImage], subject: str, session: str | None, run: str | None
) -> list[tuple[NamedImage, str]]:
    """Order the anatomical images of a subject by how well they suit a series.

    First those of the same session, then those of others; within a session without contrast
    agent first, then the nearest run. The label of ``acq`` never counts: anatomical and
    gradient-echo scans have no reason to share it.

    Parameters
    ----------
    images : sequence of NamedImage
        Images of the dataset.
    subject, session, run : str or None
        Labels of the series.

    Returns
    -------
    list of (NamedImage, str)
        Best first, each with the reason that should be told (empty if it is the only one of
        the session).
    """
    found = [
        image
        for image in images
        if image.suffix == 'T1w'
        and image.entities.get('sub') == subject
        and 'part' not in image.entities
        and 'echo' not in image.entities
    ]
    wanted = _number(run)

    def rank(image: NamedImage) -> tuple:
        return (
            image.entities.get('ses') != session,
            'ce' in image.entities,
            abs(_number(image.entities.get('run')) - wanted),
            len(image.entities),
            image.relative,
        )

    found.sort(key=rank)
    same = sum(image.entities.get('ses') == session for image in found)
    ranked = []
    for image in found:
        note = ''
        if image.entities.get('ses') != session:
            note = f'from another session ({image.entities.get("ses") or "none"})'
        elif same > 1:
            note = f'one of {same} of this session'
        ranked.append((image, note))
    return ranked


def add_t1w(
    series: GRESeries, images: Sequence[NamedImage], bids_dir: str, cache: dict
) -> GRESeries:
    """Give a series the anatomical image of its subject.

    Parameters
    ----------
    series : GRESeries
        The series.
    images : sequence of NamedImage
        Images of the dataset.
    bids_dir : str
        Root of the dataset.
    cache : dict
        Results of images already read; filled here.

    Returns
    -------
    GRESeries
        With ``t1w``, ``t1w_note`` and the findings ``D81`` (none usable), ``D82`` (a choice was
        made, or a better one is damaged), ``D83`` (masked before).
    """
    entities = dict(series.entities)
    ranked = rank_t1w(images, series.subject, series.session, entities.get('run'))
    findings = []
    for image, note in ranked:
        if image.path not in cache:
            facts, found = inspect_image(image.path, image.relative)
            own = [] if facts is None else check_anatomical(facts, image.relative)
            cache[image.path] = stopping(found), own
        problems, own = cache[image.path]
        if problems:
            evidence = {'code': problems[0].code}
            message = f'cannot be used as anatomical image: {problems[0].message}'
            remedy = problems[0].remedy
            findings.append(Finding('D82', 'WARN', message, image.relative, evidence, remedy))
            continue
        if note:
            elsewhere = note.startswith('from')
            message = f'is used as anatomical image: {note}'
            evidence = {'candidates': [other.relative for other, _ in ranked]}
            level = 'WARN' if elsewhere else 'INFO'
            remedy = 'Check that it shows the same anatomy.' if elsewhere else ''
            findings.append(Finding('D82', level, message, image.relative, evidence, remedy))
        findings += own
        return dataclasses.replace(
            series, t1w=image.path, t1w_note=note, findings=(*series.findings, *findings)
        )
    message = 'the subject has no usable T1w: the magnitude is registered to the template'
    name = os.path.relpath(series.files[0], bids_dir)
    evidence = {'t1w_images': len(ranked)}
    remedy = 'Look at the registration figure; a T1w image places the regions better.'
    findings.append(Finding('D81', 'WARN', message, name, evidence, remedy))
    return dataclasses.replace(series, findings=(*series.findings, *findings))


def add_mask(
    series: GRESeries,
    derivatives: Mapping[str, str | os.PathLike],
    query: Mapping[str, Any] | None = None,
) -> tuple[GRESeries, Finding | None]:
    """Give a series a brain mask of a derivative dataset, if there is one for it.

    A mask belongs to a series if its name has the entities of the series, ``desc-brain`` or
    ``label-brain``, and no ``space``, and if no T1w image beside it has the same entities.

    Parameters
    ----------
    series : GRESeries
        The series.
    derivatives : mapping
        Names and roots of derivative datasets; the first that has a mask is taken.
    query : mapping, optional
        Values that ``desc`` or ``label`` must have instead of ``brain``.

    Returns
    -------
    series : GRESeries
        With ``mask``, an INFO finding that names it, and those of
        :func:`~qsmflow.bids.checks_mask.check_mask`.
    problem : Finding or None
        What makes the mask useless: a mask that was asked for is never replaced silently.
    """
    for dataset, root in derivatives.items():
        for path in _masks_of(root, series, query or {}):
            name = f'{dataset}:{path.relative_to(root).as_posix()}'
            findings = check_mask(path, name, series)
            if stopping(findings):
                return series, stopping(findings)[0]
            note = Finding('D77', 'INFO', 'is used as brain mask', name)
            told = (*series.findings, note, *findings)
            return dataclasses.replace(series, mask=str(path.absolute()), findings=told), None
    return series, None


def is_mask_of_t1w(path: Path) -> bool:
    """Tell whether a mask without ``space`` belongs to a T1w image of its dataset.

    fMRIPrep leaves the entity out in the space of the T1w image.
    """
    own, _, _ = parse_name(path.name)
    own = {key: label for key, label in own.items() if key not in ('desc', 'label')}
    for image in path.parent.glob('*_T1w.nii*'):
        entities, _, _ = parse_name(image.name)
        entities.pop('desc', None)
        if entities == own:
            return True
    return False


def add_precomputed(
    series: GRESeries,
    derivatives: Mapping[str, str | os.PathLike],
    queries: Mapping[str, Mapping[str, Any]],
    cache: dict,
) -> GRESeries:
    """Give a series what derivative datasets hold for its T1w image.

    Parameters
    ----------
    series : GRESeries
        With the raw T1w image, if there is one.
    derivatives : mapping
        Names and roots of derivative datasets.
    queries : mapping
        Filters of the user.
    cache : dict
        Results of checks; filled here.

    Returns
    -------
    GRESeries
        With ``precomputed``; ``t1w`` is the preprocessed image where there is one. Findings of
        :mod:`qsmflow.bids.precomputed` and :mod:`qsmflow.bids.checks_precomputed`.
    """
    found = [
        candidate
        for dataset, root in derivatives.items()
        for candidate in candidates(dataset, Path(root), series.subject, queries)
    ]
    chosen, findings = choose(series, found)
    if chosen is None:
        return dataclasses.replace(series, findings=(*series.findings, *findings))
    key = chosen, series.t1w
    if key not in cache:
        cache[key] = verified(chosen, series.t1w)
    usable, problems = cache[key]
    own = series.findings
    if usable is not None and usable.t1w:
        # What was said of raw images does not hold for the one in use.
        own = tuple(item for item in own if item.code not in ('D81', 'D82'))
        series = dataclasses.replace(series, t1w=usable.t1w, t1w_note='')
    return dataclasses.replace(series, precomputed=usable, findings=(*own, *findings, *problems))


def refuse_raw(derivatives: Mapping[str, str | os.PathLike], root: Path) -> None:
    """Check that no derivative dataset is the dataset itself.

    Parameters
    ----------
    derivatives : mapping
        Names and roots of derivative datasets.
    root : Path
        Root of the raw dataset.

    Raises
    ------
    DatasetError
        ``E91`` with exit code 2: raw images would be taken for results of another pipeline.
    """
    for name, path in derivatives.items():
        if Path(path).resolve() == root.resolve():
            message = f'argument --derivatives: {name}={path} is BIDS_DIR itself'
            remedy = 'Leave it out, or give the folder of the results: it holds sub-* folders too.'
            raise DatasetError([Finding('E91', 'FATAL', message, remedy=remedy)], EXIT_USAGE)


def without_use(
    series: Sequence[GRESeries],
    derivatives: Mapping[str, str | os.PathLike],
    queries: Mapping[str, Mapping[str, Any]],
) -> list[Finding]:
    """Name the derivative datasets that hold nothing for any series.

    Parameters
    ----------
    series : sequence of GRESeries
        All series of the run.
    derivatives : mapping
        Names and roots of derivative datasets.
    queries : mapping
        Filters of the user.

    Returns
    -------
    list of Finding
        ``DERNONE``, one for each dataset.
    """
    subjects = sorted({item.subject for item in series})
    findings = []
    for name, path in derivatives.items():
        root = Path(path)
        used = any(candidates(name, root, subject, queries) for subject in subjects) or any(
            any(_masks_of(root, item, queries.get('mask', {}))) or lesions_of(root, item)
            for item in series
        )
        if series and not used:
            message = f'the derivative dataset {name}={path} holds nothing for any participant'
            evidence = {'looked_for': [f'sub-{subject}' for subject in subjects]}
            finding = Finding(
                'DERNONE', 'WARN', message, evidence=evidence, remedy=_better_root(name, root)
            )
            findings.append(finding)
    return findings


def _better_root(name: str, root: Path) -> str:
    """Say which folder to give, if one above or below holds participants."""
    below = sorted(item for item in root.iterdir() if item.is_dir()) if root.is_dir() else []
    holding = [item for item in below if any(item.glob('sub-*'))]
    if any(item.name.startswith('sub-') for item in below):
        return (
            'It has sub-* folders: check that they are those of these participants, with names '
            'that can be used (see Results of other pipelines in docs/usage.md).'
        )
    if root.name.startswith('sub-'):
        holding = [root.parent]
    close = ' or '.join(f'{name}={item}' for item in holding[:3])
    hint = f' Did you mean {close}?' if close else ''
    return f'Give the folder that holds sub-*.{hint}'


def _masks_of(
    root: str | os.PathLike, series: GRESeries, query: Mapping[str, Any]
) -> Iterator[Path]:
    """Yield the brain masks of a series in a derivative dataset."""
    folder = Path(root) / f'sub-{series.subject}'
    for path in sorted(folder.rglob('*_mask.nii*')) if folder.is_dir() else ():
        if _is_mask_of(path.name, series, query) and not is_mask_of_t1w(path):
            yield path


def _is_mask_of(name: str, series: GRESeries, query: Mapping[str, Any]) -> bool:
    entities, suffix, extension = parse_name(name)
    if suffix != 'mask' or extension not in IMAGE_EXTENSIONS or 'space' in entities:
        return False
    if query:
        if not matches(f'anat/{name}', query):
            return False
    elif 'brain' not in (entities.get('desc'), entities.get('label')):
        return False
    own = {k: v for k, v in entities.items() if k not in ('desc', 'label', 'echo', 'part', 'res')}
    return own == {key: value for key, value in own.items() if key in dict(series.entities)} and (
        series_name(own) == series.name
    )


def _number(run: str | None) -> int:
    """Return a run as a number; a scan without the entity is the first."""
    digits = ''.join(c for c in run or '' if c.isdigit())
    return int(digits) if digits else 1


def require_masks(collection: 'Collection') -> 'Collection':
    """Return the collection without the series that no derivative dataset has a mask for.

    Parameters
    ----------
    collection : Collection
        Series, with the masks that were found.

    Returns
    -------
    Collection
        The series left out are among ``failed``, with a finding ``D77``.
    """
    message = 'has no brain mask in the derivative datasets, and one was asked for'
    remedy = 'Give the dataset that holds it with --derivatives, or use --mask auto.'
    missing = [
        (item.name, (Finding('D77', 'ERROR', message, item.name, {}, remedy),))
        for item in collection.series
        if item.mask is None
    ]
    return dataclasses.replace(
        collection,
        series=tuple(item for item in collection.series if item.mask is not None),
        failed=(*collection.failed, *missing),
    )
