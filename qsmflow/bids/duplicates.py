"""One acquisition that was exported twice, such as Siemens' ND and NORM images (``B49``)."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from qsmflow.bids.checks_geometry import corner_shift
from qsmflow.bids.checks_metadata import SAME_TE
from qsmflow.bids.findings import Finding
from qsmflow.bids.grouping import Image
from qsmflow.bids.series import GRESeries
from qsmflow.io import GRID_TOLERANCE

#: Entities that tell exports of one scan apart.
EXPORT_ENTITIES = ('acq', 'rec')
#: Fields of sidecars that differ between scans: when, and with which contrast.
_TELLING = ('AcquisitionTime', 'AcquisitionDateTime', 'FlipAngle', 'RepetitionTimeExcitation')


def mark_duplicates(series: Sequence[GRESeries], images: Sequence[Image]) -> list[GRESeries]:
    """Warn of series that seem to be one scan.

    They differ in ``acq`` or ``rec`` alone, and agree in echo times, grid, flip angle and
    repetition time, and, where the sidecars have it, in the time of acquisition.

    Parameters
    ----------
    series : sequence of GRESeries
        All series.
    images : sequence of Image
        Their images, with the whole of their metadata.

    Returns
    -------
    list of GRESeries
        The same, with ``B49`` in both of each pair.
    """
    metadata = {image.path: image.metadata for image in images}
    found: dict[str, list[Finding]] = {}
    for first, second in itertools.combinations(series, 2):
        if _same_scan(first, second, metadata):
            for own, other in ((first, second), (second, first)):
                found.setdefault(own.name, []).append(_finding(own, other, metadata))
    return [
        dataclasses.replace(item, findings=(*item.findings, *found.get(item.name, ())))
        for item in series
    ]


def add_findings(
    series: Sequence[GRESeries], findings: Mapping[str, Sequence[Finding]]
) -> list[GRESeries]:
    """Add findings, by path of the image, to the series that have the images."""
    return [
        dataclasses.replace(
            item,
            findings=(*item.findings, *(f for path in item.files for f in findings.get(path, ()))),
        )
        for item in series
    ]


def _same_scan(first: GRESeries, second: GRESeries, metadata: Mapping[str, Mapping]) -> bool:
    one, other = dict(first.entities), dict(second.entities)
    differing = {key for key in {*one, *other} if one.get(key) != other.get(key)}
    if not differing or differing - set(EXPORT_ENTITIES):
        return False
    if len(first.te) != len(second.te) or first.shape != second.shape:
        return False
    if max(abs(a - b) for a, b in zip(first.te, second.te, strict=True)) > SAME_TE:
        return False
    shift = corner_shift(first.shape, np.array(first.affine), np.array(second.affine))
    return shift <= GRID_TOLERANCE and not any(
        _differ(first, second, key, metadata) for key in _TELLING
    )


def _differ(first: GRESeries, second: GRESeries, key: str, metadata: Mapping) -> bool:
    values = [metadata.get(item.files[0], {}).get(key) for item in (first, second)]
    return None not in values and values[0] != values[1]


def _finding(own: GRESeries, other: GRESeries, metadata: Mapping) -> Finding:
    name = own.sources[0].rpartition(':')[2]
    message = f'seems to be the same scan as {other.name}, exported twice; each is processed'
    known = [key for key in _TELLING if metadata.get(own.files[0], {}).get(key) is not None]
    evidence = {'other': other.name, 'te_s': list(own.te), 'compared': ['echo times', 'grid']}
    evidence['compared'] += known
    remedy = 'Choose one with --acq-label or a filter file; prefer images without filters (ND).'
    return Finding('B49', 'WARN', message, name, evidence, remedy)
