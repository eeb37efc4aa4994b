"""From images to acquisitions: group by name, judge names, and check each group."""

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qsmflow.bids.checks_metadata import SourceFile
from qsmflow.bids.findings import Finding
from qsmflow.bids.names import (
    ENTITY_ORDER,
    GRE_SUFFIXES,
    PARTS,
    expected_name,
    is_usable_name,
    looks_like_gre,
    parse_name,
)
from qsmflow.bids.series import (
    KEPT_ENTITIES,
    PARAMETER_ENTITIES,
    GRESeries,
    SeriesOptions,
    assemble,
    series_name,
)

#: An acquisition that cannot be processed: its name and why.
Failure = tuple[str, tuple[Finding, ...]]
#: Suffix and entities (without ``echo`` and ``part``) of a group, with its images.
Groups = dict[tuple[str, tuple[tuple[str, str], ...]], list['Image']]


@dataclass(frozen=True)
class Image:
    """An image of the dataset: its name taken apart, and its inherited metadata.

    Attributes
    ----------
    path, relative : str
        Absolute path, and path below the dataset.
    entities : dict of str
        As written in the name.
    suffix : str
        As written in the name.
    metadata : dict
        Sidecar fields after inheritance.
    """

    path: str
    relative: str
    entities: dict[str, str]
    suffix: str
    metadata: dict[str, Any]

    @property
    def name(self) -> str:
        """File name without folders."""
        return self.relative.rpartition('/')[2]

    @property
    def session(self) -> str | None:
        """Label of the session."""
        return self.entities.get('ses')


def group_images(
    images: Iterable[Image],
) -> tuple[Groups, dict[str, list[Finding]], list[Finding]]:
    """Group gradient-echo images by every entity but ``echo`` and ``part``.

    Parameters
    ----------
    images : iterable of Image
        Images that are, or were meant to be, gradient-echo data.

    Returns
    -------
    groups : dict
        Images by suffix and entities.
    misnamed : dict of list of Finding
        ``B46`` and ``A21`` for images whose names BIDS does not allow, by name of the series.
    findings : list of Finding
        ``B28`` for plain images that are taken as anatomical.
    """
    groups: Groups = defaultdict(list)
    misnamed: dict[str, list[Finding]] = defaultdict(list)
    findings = []
    for image in images:
        if is_usable_name(image.relative):
            rest = tuple((k, v) for k, v in image.entities.items() if k not in ('echo', 'part'))
            groups[image.suffix, rest].append(image)
        else:
            name = series_name(image.entities) or image.relative
            misnamed[name].append(_misnamed(image))
    for key, members in list(groups.items()):
        parts = {image.entities.get('part') for image in members}
        plain = parts == {None} and all('echo' not in image.entities for image in members)
        if key[0] not in GRE_SUFFIXES and not parts & {'phase', 'real', 'imag'}:
            del groups[key]  # a T1w of which only the magnitude is named: anatomical
        elif key[0] == 'T2starw' and plain:
            del groups[key]
            message = 'has no phase and no echo or part entity: an anatomical image, not used'
            evidence = {'images': len(members)}
            remedy = 'If it belongs to a series, give it an echo or part entity as BIDS asks.'
            name = members[0].relative
            findings.append(Finding('B28', 'WARN', message, name, evidence, remedy))
    return groups, misnamed, findings


def assemble_groups(
    groups: Groups,
    misnamed: Mapping[str, Sequence[Finding]],
    broken: Mapping[str, Finding],
    options: SeriesOptions,
    bids_dir: str,
) -> tuple[list[GRESeries], list[Failure]]:
    """Check every group.

    Groups whose results would have one name are refused together. Images with wrong names are
    told with the series they would belong to, if that can do without them; else they fail it.

    Parameters
    ----------
    groups, misnamed : dict
        From :func:`group_images`.
    broken : mapping of Finding
        Problems of sidecars, by path below the dataset.
    options : SeriesOptions
        What the user said.
    bids_dir : str
        Root of the dataset.

    Returns
    -------
    series : list of GRESeries
        Complete series.
    failed : list of (str, tuple of Finding)
        The others.
    """
    by_name: dict[str, list] = {name: [] for name in misnamed}
    for key in groups:
        by_name.setdefault(series_name(dict(key[1])), []).append(key)
    series, failed = [], []
    for name, keys in by_name.items():
        wrong = list(misnamed.get(name, ()))
        made, findings = _assemble_name(keys, groups, broken, options, bids_dir)
        if made is not None:
            findings = (*findings, *wrong)
            series.append(dataclasses.replace(made, findings=findings))
        else:
            errors = [dataclasses.replace(finding, level='ERROR') for finding in wrong]
            failed.append((name, (*findings, *errors)))
    return series, failed


def applies(sidecar: str, image: str) -> bool:
    """Tell whether a sidecar gives metadata to an image, by the inheritance principle.

    Parameters
    ----------
    sidecar, image : str
        Paths below the dataset, with forward slashes.

    Examples
    --------
    >>> applies('part-phase_MEGRE.json', 'sub-01/anat/sub-01_echo-1_part-phase_MEGRE.nii.gz')
    True
    >>> applies('sub-01/anat/sub-01_T1w.json', 'sub-01/anat/sub-01_echo-1_MEGRE.nii.gz')
    False
    """
    folder, _, name = sidecar.rpartition('/')
    entities, suffix, _ = parse_name(name)
    image_folder, _, image_name = image.rpartition('/')
    own, own_suffix, _ = parse_name(image_name)
    above = folder == '' or (image_folder + '/').startswith(folder + '/')
    return above and suffix == own_suffix and entities.items() <= own.items()


def unrelated(broken: Mapping[str, Finding], images: Sequence[Image]) -> list[Finding]:
    """Return the problems of sidecars that concern no gradient-echo image, as warnings."""
    gre = [image.relative for image in images if looks_like_gre(image.name)]
    return [
        dataclasses.replace(finding, level='WARN')
        for path, finding in sorted(broken.items())
        if not any(applies(path, relative) for relative in gre)
    ]


def _assemble_name(
    keys: Sequence[tuple],
    groups: Groups,
    broken: Mapping[str, Finding],
    options: SeriesOptions,
    bids_dir: str,
) -> tuple[GRESeries | None, tuple[Finding, ...]]:
    """Check the groups that share a name: none, one, or too many."""
    if not keys:
        return None, ()
    if len(keys) > 1:
        return None, (_collision(keys, groups),)
    members = groups[keys[0]]
    problems = [
        finding
        for path, finding in sorted(broken.items())
        if any(applies(path, image.relative) for image in members)
    ]
    if problems:
        return None, tuple(problems)
    files = [_source(image) for image in members]
    return assemble(files, keys[0][0], options, bids_dir=bids_dir)


def _misnamed(image: Image) -> Finding:
    """Say what is wrong with a name and what it should be."""
    folder = image.relative.rpartition('/')[0]
    if 'coil' in image.entities:
        message = 'holds a single coil (entity coil), which BIDS does not know'
        remedy = 'Combine the coils before (for example with MCPC-3D-S).'
        evidence = {'coil': image.entities['coil']}
        return Finding('A21', 'WARN', message, image.relative, evidence, remedy)
    unknown = [key for key in image.entities if key not in ENTITY_ORDER]
    evidence = {'expected': expected_name(image.name)}
    if unknown:
        evidence['unknown_entities'] = unknown
    message = 'has a name that BIDS does not allow, and is left out'
    remedy = f'Rename it to {folder}/{evidence["expected"]}, and its JSON file alike.'
    return Finding('B46', 'WARN', message, image.relative, evidence, remedy)


def _collision(keys: Sequence[tuple], groups: Groups) -> Finding:
    """Refuse series that differ only in what the names of derivatives do not have."""
    files = [groups[key][0].name for key in keys]
    differing = sorted({entity for key in keys for entity, _ in key[1]} - set(KEPT_ENTITIES))
    by_parameter = set(differing) & set(PARAMETER_ENTITIES)
    what = 'flip angle, inversion or saturation' if by_parameter else 'suffix'
    message = f'several acquisitions differ only in {what}: their results would have one name'
    remedy = 'Give each its own acq- label, or choose one with --acq-label.'
    evidence = {'files': files, 'entities': differing}
    return Finding('A22', 'ERROR', message, groups[keys[0]][0].relative, evidence, remedy)


def _source(image: Image) -> SourceFile:
    echo = image.entities.get('echo')
    part = image.entities.get('part', 'mag')
    return SourceFile(
        path=image.path,
        relative=image.relative,
        entities=image.entities,
        part=part if part in PARTS else 'mag',
        echo=None if echo is None else int(echo),
        metadata=image.metadata,
    )
