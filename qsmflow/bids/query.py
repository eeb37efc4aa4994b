"""From a dataset to checked series: index, group, check, and tell the plan."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from qsmflow.algorithms.phase import parse_scaling
from qsmflow.bids import checks_dataset, companions, filters, selection
from qsmflow.bids.checks_anatomy import add_lesion
from qsmflow.bids.checks_geometry import parse_b0_dir
from qsmflow.bids.duplicates import add_findings, mark_duplicates
from qsmflow.bids.findings import EXIT_DATA, DatasetError, Finding
from qsmflow.bids.grouping import Failure, Image, assemble_groups, group_images, unrelated
from qsmflow.bids.index import make_index, open_index
from qsmflow.bids.inheritance import resolve_sidecars
from qsmflow.bids.names import is_usable_name
from qsmflow.bids.series import GRESeries, SeriesOptions


@dataclass(frozen=True)
class Collection:
    """What a dataset gives.

    Attributes
    ----------
    bids_dir : str
        Root of the dataset.
    series : tuple of GRESeries
        Series that will be processed, sorted by name.
    failed : tuple of (str, tuple of Finding)
        Name and findings of each acquisition that cannot be processed.
    findings : tuple of Finding
        Findings that belong to no acquisition.
    """

    bids_dir: str
    series: tuple[GRESeries, ...]
    failed: tuple[Failure, ...] = ()
    findings: tuple[Finding, ...] = ()

    @property
    def exit_code(self) -> int:
        """Exit status of a dry run: 0, 1 if an acquisition failed, 65 if the data of all did.

        Data that this machine has no memory for (``C76``) are not at fault.
        """
        too_large = any(f.code == 'C76' and f.stops for _, found in self.failed for f in found)
        if not self.series and not too_large:
            return EXIT_DATA
        return 1 if self.failed else 0


def collect(
    bids_dir: str | os.PathLike,
    *,
    participant_label: Iterable[str] | None = None,
    session_label: Iterable[str] | None = None,
    acq_label: Iterable[str] | None = None,
    run_label: Iterable[str] | None = None,
    bids_filter: Mapping[str, Mapping[str, Any]] | None = None,
    database_dir: str | os.PathLike | None = None,
    phase_scale: str = 'auto',
    field_strength: float | None = None,
    b0_dir: str | Sequence[float] | None = None,
    echoes: Iterable[int] | None = None,
    volume_index: int | None = None,
    force: Iterable[str] = (),
    need_description: bool = True,
    derivatives: Mapping[str, str | os.PathLike] | None = None,
) -> Collection:
    """Find the gradient-echo series of a dataset and check each of them.

    Parameters
    ----------
    bids_dir : path-like
        Root of a raw BIDS dataset. It is only read.
    participant_label, session_label, acq_label, run_label : iterable of str, optional
        Labels to use, with or without prefix; None for all.
    bids_filter : mapping, optional
        Queries of :mod:`qsmflow.bids.filters`: entities and the values they must have. None
        means that the entity must be absent, ``'*'`` that it must be present.
    database_dir : path-like, optional
        Folder that keeps the index of the dataset; see :mod:`qsmflow.bids.index`.
    phase_scale : str, optional
        ``'auto'``, or the rule for stored phase values.
    field_strength : float, optional
        In T, for sidecars without one.
    b0_dir : str or sequence of float, optional
        Direction of the main field in array axes (``'x'``, ``'y'``, ``'z'``, a vector);
        ``'affine'`` or None takes it from the header.
    echoes : iterable of int, optional
        Echo numbers to use; None for all.
    volume_index : int, optional
        Repetition to use, counted from 0, of images that hold several volumes of one echo.
    force : iterable of str, optional
        Checks to override, see ``settings.FORCES``.
    need_description : bool, optional
        Whether a missing or incomplete ``dataset_description.json`` ends the run.
    derivatives : mapping, optional
        Names and roots of derivative datasets, in which brain masks are looked for.

    Returns
    -------
    Collection
        Series and failures; at least one of either.

    Raises
    ------
    DatasetError
        If nothing can start: exit code 2 for a wrong request, 65 for a dataset without
        gradient-echo data.
    ValueError
        If ``phase_scale`` or ``b0_dir`` cannot be read.
    """
    root, undescribed = checks_dataset.check_dataset(bids_dir, need_description)
    labels = checks_dataset.choose_labels(
        participant_label, checks_dataset.subjects(root), 'participant', 'sub-'
    )
    queries = filters.check_filters(bids_filter)
    companions.refuse_raw(derivatives or {}, root)
    request = selection.Request.of(
        root, labels, session_label, acq_label, run_label, queries.get('megre', {})
    )
    options = SeriesOptions(
        phase_scale=phase_scale,
        field_strength=field_strength,
        b0_dir=b0_dir,
        echoes=None if echoes is None else tuple(sorted({int(n) for n in echoes})),
        volume_index=volume_index,
        force=tuple(force),
    )
    # A wrong request fails here, not once for each series.
    parse_b0_dir(b0_dir, np.eye(4))
    parse_scaling(phase_scale)
    broken = checks_dataset.broken_sidecars(root, labels)
    layout = (
        open_index(root, labels, broken, database_dir)
        if database_dir
        else make_index(root, labels, broken)
    )
    everything = _images(layout, root, labels)
    images = [image for image in everything if request.takes_session(image.session)]
    chosen = selection.narrow(images, request, root)
    candidates, contradictions = resolve_sidecars(chosen, root, broken)
    groups, misnamed, findings = group_images(candidates)
    findings += undescribed
    series, failed = assemble_groups(groups, misnamed, broken, options, str(root))
    series = add_findings(series, contradictions)
    series = mark_duplicates(series, candidates)
    served = {item.subject for item in series} | {_subject_of(name) for name, _ in failed}
    unserved = [label for label in labels if label not in served]
    without, left_out = selection.sort_out(
        unserved, everything, chosen, request, root, named=participant_label is not None
    )
    findings += left_out
    if not series and not failed:
        _refuse(root, without, findings, request)
    failed += without
    anatomical = [image for image in images if image.suffix == 'T1w']
    anatomical, lost_t1w = _filtered_t1w(anatomical, queries.get('t1w'))
    complete, lost = _add_companions(
        series, images, anatomical, derivatives or {}, queries, str(root)
    )
    failed += lost
    findings += companions.without_use(series, derivatives or {}, queries)
    findings += [*lost_t1w, *unrelated(broken, images)]
    findings += checks_dataset.check_participants(root)
    return Collection(
        bids_dir=str(root),
        series=tuple(sorted(complete, key=lambda item: item.name)),
        failed=tuple(sorted(failed, key=lambda item: item[0])),
        findings=tuple(findings),
    )


def _images(layout, root: Path, labels: Sequence[str]) -> list[Image]:
    """Return all images in the ``anat`` folders, the ones that pybids does not know included.

    Raises
    ------
    RuntimeError
        If pybids did not index an image with a valid name: its metadata would be missed.
    """
    known = {str(file.path): file for file in layout.get_files().values()}
    images = []
    for image in selection.named_images(root, labels):
        file = known.get(image.path)
        # A folder of such a name is told when it is read.
        if file is None and is_usable_name(image.relative) and not Path(image.path).is_dir():
            raise RuntimeError(f'{image.relative} was not indexed; please report this')
        metadata = {} if file is None else dict(file.get_metadata())
        images.append(replace(image, metadata=metadata))
    return images


def _subject_of(name: str) -> str:
    """Return the label of the participant in the name of a series, or in a path."""
    return name.split('_')[0].split('/')[0].removeprefix('sub-')


def _filtered_t1w(
    images: Sequence[Image], query: Mapping | None
) -> tuple[list[Image], list[Finding]]:
    """Keep the T1w images that a filter keeps; one can do without them, so that is told only."""
    kept = [image for image in images if filters.matches(image.relative, query or {})]
    if kept or not images:
        return kept, []
    return [], [filters.kept_nothing(images, query or {}, 't1w', 'WARN')]


def _refuse(
    root: Path,
    without: Sequence[Failure],
    findings: Sequence[Finding],
    request: selection.Request,
) -> NoReturn:
    """Raise, as the dataset has no gradient-echo data at all of what was asked for."""
    message = 'no gradient-echo data with phase were found'
    remedy = (
        'Expected are files such as sub-01/anat/sub-01_echo-1_part-phase_MEGRE.nii.gz with the '
        'magnitude beside them; check names and labels.'
    )
    evidence: dict[str, Any] = {'dataset': root.name}
    told = [finding for _, found in without for finding in found]
    if asked := str(request):
        missed = [item for item in (*told, *findings) if item.code == 'E91']
        there = [item.evidence.get('series', ()) for item in missed]
        evidence |= {
            'asked_for': asked,
            'series': sorted(name for names in there for name in names),
        }
    told = [finding for finding in told if finding.code != 'B28']  # it says the same
    finding = Finding('E90', 'FATAL', message, evidence=evidence, remedy=remedy)
    raise DatasetError([finding, *told, *findings], EXIT_DATA)


def _add_companions(
    series: Sequence[GRESeries],
    images: Sequence[Image],
    anatomical: Sequence[Image],
    derivatives: Mapping[str, str | os.PathLike],
    queries: Mapping[str, Mapping],
    root: str,
) -> tuple[list[GRESeries], list[Failure]]:
    """Give each series its T1w, mask and the like; a mask that does not fit fails the series."""
    complete, failed = [], []
    cache: dict = {}
    for item in series:
        item = companions.add_t1w(item, anatomical, root, cache)
        item = companions.add_precomputed(item, derivatives, queries, cache)
        item = add_lesion(item, images, derivatives)
        item, problem = companions.add_mask(item, derivatives, queries.get('mask'))
        if problem:
            failed.append((item.name, (*item.findings, problem)))
        else:
            complete.append(item)
    return complete, failed
