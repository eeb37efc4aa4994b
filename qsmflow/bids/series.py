"""One gradient-echo acquisition: its files and metadata, checked before any graph exists."""

import os
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from qsmflow.algorithms.phase import PhaseScaling
from qsmflow.bids import (
    checks_content,
    checks_geometry,
    checks_metadata,
    checks_protocol,
    checks_signal,
)
from qsmflow.bids.checks_files import ImageFacts, inspect_image, is_complex
from qsmflow.bids.checks_metadata import Echo, SourceFile
from qsmflow.bids.findings import Finding, stopping
from qsmflow.bids.names import join_name, split_extension

#: Entities that derivatives keep; ``echo`` and ``part`` are combined, the others must not differ.
KEPT_ENTITIES = ('sub', 'ses', 'task', 'acq', 'ce', 'rec', 'run', 'chunk')
#: What keeps two scans apart beside ``KEPT_ENTITIES``; derivatives have no name for it.
PARAMETER_ENTITIES = ('flip', 'inv', 'mt')


@dataclass(frozen=True)
class SeriesOptions:
    """What the user may say about all series of a run.

    Attributes
    ----------
    phase_scale : str
        ``'auto'`` or a rule for stored phase values.
    field_strength : float or None
        In T, for sidecars without one.
    b0_dir : str, sequence of float or None
        Direction of the main field in array axes, for headers without scanner coordinates.
    echoes : tuple of int or None
        Echo numbers to use (of the names; positions counted from 1 in a 4-D image); None for all.
    """

    phase_scale: str = 'auto'
    field_strength: float | None = None
    b0_dir: str | Sequence[float] | None = None
    echoes: tuple[int, ...] | None = None


@dataclass(frozen=True)
class GRESeries:
    """A complete, checked gradient-echo acquisition.

    Attributes
    ----------
    subject, session : str, str or None
        Labels without prefix.
    entities : tuple of (str, str)
        Entities of the names except ``echo`` and ``part``, in the order of BIDS.
    suffix : str
        ``'MEGRE'``, ``'T2starw'``, or another with a ``part`` entity.
    magnitude, phase, real, imag : tuple of str
        Absolute paths in the order of ``te``; a single 4-D image if ``volumes`` is set. Either
        ``phase``, or ``real`` and ``imag``, are there; ``magnitude`` may be empty. Complex
        images are both ``real`` and ``imag``.
    te : tuple of float
        Echo times in s, ascending.
    echo_numbers : tuple of int
        Echo numbers in the order of ``te``, as the names count them.
    volumes : tuple of int or None
        For 4-D images: index along the last axis of each echo of ``te``. None: one file each.
    field_strength : float
        Main field in T.
    f0 : float
        Imaging frequency in MHz.
    shape : tuple of int
        Spatial shape, (X, Y, Z).
    affine : tuple of tuple of float
        Voxel to scanner coordinates in mm, 4 x 4.
    voxel_size : tuple of float
        Edge lengths in mm, in array-axis order.
    b0_dir : tuple of float
        Unit vector of the main field in array axes.
    scaling : PhaseScaling or None
        How stored phase becomes radians, for all echoes; None for real and imaginary images.
    metadata : dict
        Acquisition fields that may be passed on.
    protocol : tuple of ProtocolRule
        Verdicts on the protocol.
    bids_dir : str
        Root of the dataset.
    t1w : str or None
        Anatomical image of the subject.
    t1w_note : str
        Why this one; empty if it is the only one of the session.
    mask : str or None
        Brain mask, given or of a derivative dataset, in the scanner coordinates of this series.
    lesion : str or None
        Mask of a lesion, which registrations leave out of account.
    findings : tuple of Finding
        All that is worth telling, none of level ERROR or FATAL.
    """

    subject: str
    session: str | None
    entities: tuple[tuple[str, str], ...]
    suffix: str
    magnitude: tuple[str, ...]
    phase: tuple[str, ...]
    real: tuple[str, ...]
    imag: tuple[str, ...]
    te: tuple[float, ...]
    echo_numbers: tuple[int, ...]
    volumes: tuple[int, ...] | None
    field_strength: float
    f0: float
    shape: tuple[int, int, int]
    affine: tuple[tuple[float, ...], ...]
    voxel_size: tuple[float, float, float]
    b0_dir: tuple[float, float, float]
    scaling: PhaseScaling | None
    metadata: dict[str, Any] = field(default_factory=dict, hash=False)
    protocol: tuple[checks_protocol.ProtocolRule, ...] = ()
    bids_dir: str = ''
    t1w: str | None = None
    t1w_note: str = ''
    mask: str | None = None
    lesion: str | None = None
    findings: tuple[Finding, ...] = field(default=(), hash=False)

    @property
    def name(self) -> str:
        """Entities that derivatives keep, joined: ``'sub-01_ses-1_acq-x_run-1'``."""
        return series_name(dict(self.entities))

    @property
    def files(self) -> tuple[str, ...]:
        """All image files, phase first."""
        return tuple(dict.fromkeys(self.phase + self.real + self.imag + self.magnitude))

    @property
    def has_magnitude(self) -> bool:
        """Whether there is a magnitude, of its own or from real and imaginary images."""
        return bool(self.magnitude or self.real)

    @property
    def sources(self) -> tuple[str, ...]:
        """BIDS URIs of all image files, in dataset ``raw``."""
        return tuple(bids_uri(path, self.bids_dir) for path in self.files)


def series_name(entities: Mapping[str, str]) -> str:
    """Return what the derivatives of a series are called after.

    Examples
    --------
    >>> series_name({'sub': '01', 'acq': 'x', 'echo': '1'})
    'sub-01_acq-x'
    """
    return '_'.join(f'{key}-{entities[key]}' for key in KEPT_ENTITIES if key in entities)


def bids_uri(path: str, bids_dir: str, dataset: str = 'raw') -> str:
    """Return the BIDS URI of a file of a dataset.

    Examples
    --------
    >>> bids_uri('/data/sub-01/anat/sub-01_T1w.nii.gz', '/data')
    'bids:raw:sub-01/anat/sub-01_T1w.nii.gz'
    """
    return f'bids:{dataset}:{os.path.relpath(path, bids_dir).replace(os.sep, "/")}'


def assemble(
    files: Sequence[SourceFile],
    suffix: str,
    options: SeriesOptions | None = None,
    *,
    bids_dir: str = '',
    inspect: Callable = inspect_image,
) -> tuple[GRESeries | None, tuple[Finding, ...]]:
    """Make a series of the files of one group, or say why it cannot be used.

    Parameters
    ----------
    files : sequence of SourceFile
        All files that share every entity but ``echo`` and ``part``.
    suffix : str
        Their suffix.
    options : SeriesOptions, optional
        What the user said.
    bids_dir : str, optional
        Root of the dataset.
    inspect : callable, optional
        Reads one file; see ``inspect_image``.

    Returns
    -------
    series : GRESeries or None
        None if any finding is an error.
    findings : tuple of Finding
        Everything found; also kept in the series.
    """
    options = options or SeriesOptions()
    echoes, findings = pair_echoes(_mark_complex(files), suffix, options.echoes)
    if stopping(findings):
        return None, tuple(findings)
    used = _files_of(echoes)
    facts, damaged = _inspect_all(used, inspect)
    findings += damaged
    if stopping(findings):
        return None, tuple(findings)
    ordered, te, volumes, found = _order_by_time(echoes, facts, options.echoes)
    field_strength, f0, unclear = checks_metadata.main_field(used, options.field_strength)
    findings += [*found, *unclear, *_check_images(used, facts, options)]
    scaling = None
    phases = [source for source in used if source.part == 'phase']
    if phases and not stopping(findings):
        scaling, found = checks_content.determine_scaling(phases, facts, options.phase_scale)
        findings += found
    if not stopping(findings):
        findings += checks_content.check_nonfinite(echoes, facts)
        findings += checks_signal.check_signal(ordered, volumes, facts, scaling)
    if stopping(findings):
        return None, tuple(findings)
    first = used[0]
    geometry = _geometry(facts[first.relative], options, first.relative, findings)
    metadata = checks_metadata.public_metadata(used)
    rules = checks_protocol.protocol_rules(te, geometry['voxel_size'], field_strength, metadata)
    findings += checks_protocol.protocol_findings(rules, first.relative)
    series = GRESeries(
        subject=first.entities['sub'],
        session=first.entities.get('ses'),
        entities=tuple((k, v) for k, v in first.entities.items() if k not in ('echo', 'part')),
        suffix=suffix,
        **_paths_by_part(ordered, volumes is not None),
        te=te,
        echo_numbers=tuple(echo.index for echo in ordered),
        volumes=volumes,
        field_strength=field_strength,
        f0=f0,
        **geometry,
        scaling=scaling,
        metadata=metadata,
        protocol=rules,
        bids_dir=bids_dir,
        findings=tuple(findings),
    )
    return series, series.findings


def _mark_complex(files: Sequence[SourceFile]) -> list[SourceFile]:
    """Give the part ``complex`` to images without a part whose voxels are complex."""
    plain = all('part' not in source.entities for source in files)
    if not plain or not any(is_complex(source.path) for source in files):
        return list(files)
    return [replace(source, part='complex') for source in files]


def _check_images(
    used: Sequence[SourceFile], facts: Mapping[str, ImageFacts], options: SeriesOptions
) -> list[Finding]:
    """Check grid, headers and values of the images of a series."""
    names = [source.relative for source in used]
    b0_given = options.b0_dir is not None and options.b0_dir != 'affine'
    findings = checks_geometry.check_same_grid([facts[name] for name in names], names)
    findings += checks_geometry.check_header(facts[names[0]], names[0], b0_given=b0_given)
    for source in used:
        findings += checks_content.check_values(facts[source.relative], source)
        findings += checks_signal.check_kind(facts[source.relative], source)
    return findings + checks_content.check_image_type(used)


def _geometry(
    fact: ImageFacts, options: SeriesOptions, name: str, findings: list[Finding]
) -> dict[str, Any]:
    """Return what a series knows of its grid, and add what is worth telling to the findings."""
    b0_dir = checks_geometry.parse_b0_dir(options.b0_dir, fact.affine)
    findings += checks_geometry.check_orientation(fact.affine, name, b0_dir)
    return {
        'shape': fact.shape[:3],
        'affine': tuple(tuple(float(v) for v in row) for row in fact.affine),
        'voxel_size': tuple(float(v) for v in np.linalg.norm(fact.affine[:3, :3], axis=0)),
        'b0_dir': b0_dir,
    }


def pair_echoes(
    files: Sequence[SourceFile], suffix: str, selection: Sequence[int] | None = None
) -> tuple[list[Echo], list[Finding]]:
    """Sort the files of a group into echoes and parts, and check that none is missing.

    Parameters
    ----------
    files : sequence of SourceFile
        Files of the group.
    suffix : str
        Their suffix, for the names of files that are missing.
    selection : sequence of int, optional
        Echo numbers to use.

    Returns
    -------
    echoes : list of Echo
        In the order of their numbers.
    findings : list of Finding
        ``A17`` real and imaginary, ``A21`` several files for one echo, ``B28`` no phase, ``B29``
        no magnitude, ``B30`` a file missing, ``B37`` numbers, ``B38`` one echo, ``B47`` one
        image in two files.
    """
    findings = _check_unique(files)
    if findings:
        return [], findings
    numbered = any(source.echo is not None for source in files)
    if selection is not None and numbered:
        missing = sorted(set(selection) - {source.echo for source in files})
        if missing:
            message, remedy = 'a requested echo is not there', 'Correct --echoes.'
            evidence = {'missing': missing, 'echo': sorted({s.echo for s in files if s.echo})}
            name = files[0].relative
            return [], [Finding('B30', 'ERROR', message, name, evidence, remedy)]
        files = [source for source in files if source.echo in selection]
    by_part: dict[str, dict[int, SourceFile]] = defaultdict(dict)
    for source in files:
        by_part[source.part][1 if source.echo is None else source.echo] = source
    needed, findings = _needed_parts(by_part, files[0].relative)
    if stopping(findings):
        return [], findings
    numbers = sorted(set().union(*(by_part[part] for part in needed)))
    for part in needed:
        findings += [
            _missing_file(by_part, part, number, suffix)
            for number in numbers
            if number not in by_part[part]
        ]
    if stopping(findings):
        return [], findings
    echoes = [Echo(n, {part: by_part[part][n] for part in needed}) for n in numbers]
    if selection is None and numbered:
        findings += checks_metadata.check_echo_numbers(echoes)
    return echoes, findings


def _check_unique(files: Sequence[SourceFile]) -> list[Finding]:
    """Check that each echo and part has one file."""
    seen: dict[tuple, list[SourceFile]] = defaultdict(list)
    for source in files:
        seen[source.echo, source.part].append(source)
    findings = []
    for group in seen.values():
        if len(group) == 1:
            continue
        names = [source.relative.rpartition('/')[2] for source in group]
        if len({split_extension(name)[0] for name in names}) == 1:
            code, message = 'B47', 'one image is there in two formats'
            remedy = 'Remove one of them.'
        else:
            code, message = 'A21', 'several files hold the same echo and part'
            remedy = 'Combine the coils before (for example with MCPC-3D-S), or rename the files.'
        evidence = {'files': names}
        findings.append(Finding(code, 'ERROR', message, group[0].relative, evidence, remedy))
    return findings


def _needed_parts(
    by_part: Mapping[str, Mapping[int, SourceFile]], name: str
) -> tuple[tuple[str, ...], list[Finding]]:
    """Decide which parts a group is made of."""
    has = set(by_part)
    if 'complex' in has:
        message = 'complex images are split into magnitude and phase'
        return ('complex',), [Finding('C61', 'FIX', message, name)]
    if 'phase' in has:
        if 'mag' in has:
            return ('phase', 'mag'), []
        message = 'has no magnitude: all voxels get the same weight; no R2*, no regions'
        remedy = 'Add the magnitude if the scanner can export it.'
        return ('phase',), [Finding('B29', 'FIX', message, name, {}, remedy)]
    if {'real', 'imag'} <= has:
        message = 'real and imaginary images are combined'
        return ('real', 'imag'), [Finding('A17', 'FIX', message, name)]
    if has & {'real', 'imag'}:
        message = 'of real and imaginary images, only one is there'
        evidence, remedy = {'parts': sorted(has)}, 'Add the other, or magnitude and phase.'
        return (), [Finding('A17', 'ERROR', message, name, evidence, remedy)]
    message = 'has no phase: R2* would be possible, susceptibility is not'
    remedy = (
        'Export the phase images (or real and imaginary) from the scanner, and name them '
        'part-phase. If they are there, check their names.'
    )
    return (), [Finding('B28', 'ERROR', message, name, {'parts': sorted(has)}, remedy)]


def _missing_file(by_part: Mapping, part: str, number: int, suffix: str) -> Finding:
    """Say which file of an echo is not there."""
    other = next(sources[number] for sources in by_part.values() if number in sources)
    folder, _, name = other.relative.rpartition('/')
    extension = split_extension(name)[1]
    entities = {key: value for key, value in other.entities.items() if key != 'part'}
    if part != 'mag' or any(s.entities.get('part') == 'mag' for s in by_part[part].values()):
        entities['part'] = part
    absent = f'{folder}/{join_name(entities, suffix, extension)}'
    message = f'is missing, while {name} is there'
    remedy = 'Copy the file, or choose the echoes to use with --echoes.'
    return Finding('B30', 'ERROR', message, absent, {'echo': number, 'part': part}, remedy)


def _files_of(echoes: Sequence[Echo]) -> list[SourceFile]:
    """Return all files, those of the leading part first: the first is the reference."""
    parts = list(echoes[0].files)
    return [echo.files[part] for part in parts for echo in echoes]


def _inspect_all(
    sources: Sequence[SourceFile], inspect: Callable
) -> tuple[dict[str, ImageFacts], list[Finding]]:
    """Read all files, a few at a time: decompression leaves Python's lock."""
    with ThreadPoolExecutor(min(4, len(os.sched_getaffinity(0)))) as pool:
        results = list(pool.map(lambda s: inspect(s.path, s.relative), sources))
    facts = {
        source.relative: fact
        for source, (fact, _) in zip(sources, results, strict=True)
        if fact is not None
    }
    return facts, [finding for _, found in results for finding in found]


def _order_by_time(
    echoes: list[Echo], facts: Mapping[str, ImageFacts], selection: Sequence[int] | None
) -> tuple[list[Echo], tuple[float, ...], tuple[int, ...] | None, list[Finding]]:
    """Find the echo times and return the echoes in their order.

    For a 4-D image, the echoes returned share its files, and ``volumes`` has their positions.
    """
    counts = {s.relative: facts[s.relative].n_volumes for e in echoes for s in e.files.values()}
    several = {name: count for name, count in counts.items() if count > 1}
    descriptions = {name: fact.description for name, fact in facts.items()}
    volumes = None
    if not several:
        te, findings = checks_metadata.echo_times(echoes, descriptions)
    elif len(echoes) > 1:
        name = next(iter(several))
        message = 'one of several echo files has several volumes: repetitions'
        remedy = 'Store each repetition as its own file with a run entity; never average phase.'
        evidence = {'volumes': several[name]}
        return [], (), None, [Finding('B40', 'ERROR', message, name, evidence, remedy)]
    elif len(set(counts.values())) > 1:
        name = min(counts, key=counts.get)
        evidence, remedy = {'volumes': counts}, 'Convert the complete series again.'
        message = 'magnitude and phase have different numbers of volumes'
        return [], (), None, [Finding('C64', 'ERROR', message, name, evidence, remedy)]
    else:
        leader = echoes[0].leader
        n_volumes = counts[leader.relative]
        te, findings = checks_metadata.volume_times(leader, n_volumes)
        echoes = [Echo(n + 1, echoes[0].files) for n in range(n_volumes)]
        if te is not None and selection is not None:
            chosen = [n for n in range(n_volumes) if n + 1 in selection]
            if len(chosen) != len(set(selection)):
                evidence = {'requested': list(selection), 'volumes': n_volumes}
                message, remedy = 'a requested echo is not there', 'Correct --echoes.'
                findings.append(
                    Finding('B30', 'ERROR', message, leader.relative, evidence, remedy)
                )
            echoes, te = [echoes[n] for n in chosen], tuple(te[n] for n in chosen)
        volumes = tuple(echo.index - 1 for echo in echoes)
    if te is None or stopping(findings):
        return [], (), None, findings
    order = sorted(range(len(te)), key=te.__getitem__)
    if len(te) == 1:
        message = 'one echo: the phase offset of the coils cannot be removed, and there is no R2*'
        findings.append(Finding('B38', 'WARN', message, echoes[0].leader.relative))
    ordered = [echoes[i] for i in order]
    volumes = None if volumes is None else tuple(volumes[i] for i in order)
    return ordered, tuple(te[i] for i in order), volumes, findings


def _paths_by_part(echoes: Sequence[Echo], four_dimensional: bool) -> dict[str, tuple[str, ...]]:
    """Return the paths of each part in echo order; one path for a 4-D image."""
    chosen = echoes[:1] if four_dimensional else echoes
    fields = {
        'magnitude': ('mag',),
        'phase': ('phase',),
        'real': ('real', 'complex'),
        'imag': ('imag', 'complex'),
    }
    return {
        name: tuple(e.files[part].path for e in chosen for part in parts if part in e.files)
        for name, parts in fields.items()
    }
