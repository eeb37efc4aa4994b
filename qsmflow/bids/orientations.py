"""Which series of a subject show one head in several orientations, for COSMOS."""

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from qsmflow.bids.findings import Finding
from qsmflow.bids.query import Collection
from qsmflow.bids.series import KEPT_ENTITIES, GRESeries, series_name

#: Fewest orientations from which COSMOS can be computed.
MIN_ORIENTATIONS = 3
#: Entities in which orientations of one session may differ.
_DIFFERING = ('acq', 'run')


@dataclass(frozen=True)
class Orientations:
    """Series of one session that are taken for orientations of one head.

    Attributes
    ----------
    series : tuple of GRESeries
        Series with phase, and a magnitude by which they are registered; the first gives the grid.
    left_out : tuple of GRESeries
        Series without one of the two.
    """

    series: tuple[GRESeries, ...]
    left_out: tuple[GRESeries, ...] = ()

    @property
    def entities(self) -> dict[str, str]:
        """Entities that all series share; the COSMOS map is named after them."""
        everyone = [dict(item.entities) for item in (*self.series, *self.left_out)]
        return {
            key: label
            for key, label in everyone[0].items()
            if key in KEPT_ENTITIES and all(other.get(key) == label for other in everyone)
        }

    @property
    def name(self) -> str:
        """Name of the COSMOS map: ``'sub-01_ses-1_desc-cosmos'``."""
        return f'{series_name(self.entities)}_desc-cosmos'

    @property
    def enough(self) -> bool:
        """Whether there are as many orientations as COSMOS needs."""
        return len(self.series) >= MIN_ORIENTATIONS


def orientation_groups(series: Iterable[GRESeries]) -> tuple[Orientations, ...]:
    """Return the series that belong together for COSMOS.

    Series of one subject and session whose names differ in nothing but ``run``. Where no
    acquisition has three runs, those of all acquisitions are taken together, so that ``acq`` may
    number the orientations as well.

    Parameters
    ----------
    series : iterable of GRESeries
        Checked series of any number of subjects.

    Returns
    -------
    tuple of Orientations
        Every series is in one of them, whether or not that has enough.
    """
    sessions: dict[tuple, dict[str, list[GRESeries]]] = {}
    for item in series:
        entities = dict(item.entities)
        key = tuple(entities.get(name, '') for name in KEPT_ENTITIES if name not in _DIFFERING)
        by_acquisition = sessions.setdefault(key, {})
        by_acquisition.setdefault(entities.get('acq', ''), []).append(item)
    groups = []
    for by_acquisition in sessions.values():
        apart = [_divided(members) for members in by_acquisition.values()]
        together = _divided([item for members in by_acquisition.values() for item in members])
        groups += apart if any(group.enough for group in apart) else [together]
    return tuple(groups)


def _divided(members: Sequence[GRESeries]) -> Orientations:
    return Orientations(
        tuple(item for item in members if item.has_magnitude and item.has_phase),
        tuple(item for item in members if not (item.has_magnitude and item.has_phase)),
    )


def orientation_finding(group: Orientations) -> Finding:
    """Return what to say of a group: that COSMOS is computed, or why not."""
    number = len(group.series)
    evidence = {'series': [item.name for item in group.series]}
    if group.left_out:
        evidence['without_magnitude'] = [item.name for item in group.left_out]
    if not group.enough:
        return Finding(
            'ORIN',
            'WARN',
            f'there is no COSMOS map: it needs {MIN_ORIENTATIONS} series of one session with a '
            f'magnitude, in different orientations; found {number}',
            evidence=evidence,
            remedy='Series that differ in run, or in acq, count; check names and labels.',
        )
    message = f'{number} series are combined in {group.name}_Chimap'
    if group.left_out:
        message += '; those without a magnitude are not'
        remedy = 'Add the magnitude of those, if there is one, to combine them too.'
        return Finding('ORIN', 'WARN', message, evidence=evidence, remedy=remedy)
    return Finding('ORIN', 'INFO', message, evidence=evidence)


def with_orientations(collection: Collection) -> Collection:
    """Return a collection whose series say whether they are combined by COSMOS.

    Parameters
    ----------
    collection : Collection
        Checked series.

    Returns
    -------
    Collection
        With one more finding, ``ORIN``, for each series.
    """
    found = {
        item.name: orientation_finding(group)
        for group in orientation_groups(collection.series)
        for item in (*group.series, *group.left_out)
    }
    series = tuple(
        dataclasses.replace(item, findings=(*item.findings, found[item.name]))
        for item in collection.series
    )
    return dataclasses.replace(collection, series=series)
