"""What BIDS calls the images of each acquisition."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from qsmflow.bids.names import join_name
from qsmflow.dicom.errors import ConversionError
from qsmflow.dicom.grouping import Acquisition
from qsmflow.dicom.images import Converted
from qsmflow.dicom.sidecars import phase_units, sidecar

_LONGEST = 24  #: letters of a label that is made from the name of a protocol


@dataclass(frozen=True, eq=False)
class Target:
    """An image and where it goes.

    Attributes
    ----------
    image : Converted
        Image.
    part : str
        ``'mag'``, ``'phase'``, ``'real'``, ``'imag'``, or empty for a T1w image.
    echo : int
        Number of the echo.
    relative : str
        Path of the image below the dataset, with forward slashes.
    content : dict
        Content of the sidecar.
    """

    image: Converted
    part: str
    echo: int
    relative: str
    content: Mapping[str, Any] = field(repr=False)

    @property
    def relative_sidecar(self) -> str:
        """Path of the sidecar below the dataset."""
        return self.relative.removesuffix('.nii.gz') + '.json'


def check_label(value: str, prefix: str) -> str:
    """Return a label without its prefix.

    Parameters
    ----------
    value : str
        Label, with or without ``prefix``.
    prefix : str
        Such as ``'sub-'``.

    Raises
    ------
    ValueError
        If it has other signs than letters and digits.

    Examples
    --------
    >>> check_label('sub-01', 'sub-')
    '01'
    """
    label = value.removeprefix(prefix)
    if not re.fullmatch(r'[0-9A-Za-z]+', label):
        raise ValueError(f'{value!r}: a label has letters and digits only')
    return label


def plan_targets(
    acquisitions: Sequence[Acquisition],
    participant: str,
    *,
    session: str | None = None,
    acq: str | None = None,
    run: int | None = None,
) -> list[Target]:
    """Name the images of all acquisitions of one participant and session.

    Gradient echoes of several protocols get ``acq-`` labels from the names of the protocols,
    several scans of one protocol are counted by ``run-``. A single one gets neither.

    Parameters
    ----------
    acquisitions : sequence of Acquisition
        In the order in which they are counted.
    participant, session : str
        Labels without prefix.
    acq : str, optional
        Label of all gradient echoes.
    run : int, optional
        Number of the first run of each protocol.

    Returns
    -------
    list of Target
        In the order of acquisitions, echoes and parts.

    Raises
    ------
    ConversionError
        If two images would have one name.
    """
    base = {'sub': participant} | ({'ses': session} if session else {})
    folder = '/'.join(f'{key}-{label}' for key, label in base.items()) + '/anat/'
    labels = _acq_labels([item for item in acquisitions if item.suffix != 'T1w'], acq)
    groups: dict[tuple, list[Acquisition]] = defaultdict(list)
    for item in acquisitions:
        label = '' if item.suffix == 'T1w' else labels[item.protocol]
        groups[item.suffix, label].append(item)
    targets = []
    for (suffix, label), members in groups.items():
        for count, item in enumerate(members):
            entities = base | ({'acq': label} if label else {})
            if len(members) > 1 or (run is not None and suffix != 'T1w'):
                entities['run'] = str(count + (1 if run is None or suffix == 'T1w' else run))
            targets += _targets(item, entities, folder)
    names = [target.relative for target in targets]
    if len(set(names)) < len(names):  # cannot happen with the labels above
        raise ConversionError('several images would have one name; convert them apart', 2)
    return targets


def _targets(item: Acquisition, entities: dict, folder: str) -> list[Target]:
    units = None
    phases = [image for (part, _), image in item.images.items() if part == 'phase']
    if phases:
        units = phase_units(phases)
    targets = []
    for (part, number), image in item.images.items():
        own = dict(entities)
        if item.suffix == 'MEGRE':
            own['echo'] = str(number)
        if part:
            own['part'] = part
        content = sidecar(
            image.metadata,
            te=item.te.get(number),
            units=units if part == 'phase' else None,
            gradient_echo=item.suffix != 'T1w',
        )
        name = join_name(own, item.suffix, '.nii.gz')
        targets.append(Target(image, part, number, folder + name, content))
    return targets


def _acq_labels(acquisitions: Sequence[Acquisition], acq: str | None) -> dict[str, str]:
    """Return the label of each protocol; empty where there is one protocol only."""
    names = list(dict.fromkeys(item.protocol for item in acquisitions))
    if acq or len(names) == 1:
        return dict.fromkeys(names, acq or '')
    labels: dict[str, str] = {}
    for name in names:
        words = re.findall(r'[0-9A-Za-z]+', name)
        label = ''.join(word[0].upper() + word[1:] for word in words)[:_LONGEST] or 'gre'
        taken = {own.lower() for own in labels.values()}
        while label.lower() in taken:  # labels may not differ in case only
            label = f'{label[: _LONGEST - 2]}{len(taken) + 1}'
        labels[name] = label
    return labels
