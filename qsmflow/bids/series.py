"""One gradient-echo acquisition: its files and metadata, checked before any graph exists."""

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from qsmflow.algorithms.phase import PhaseScaling
from qsmflow.bids import (
    checks_content,
    checks_geometry,
    checks_metadata,
    checks_phase,
    checks_protocol,
    checks_signal,
)
from qsmflow.bids.checks_files import ImageFacts, inspect_image, is_complex
from qsmflow.bids.checks_metadata import Echo, SourceFile
from qsmflow.bids.findings import Finding, stopping
from qsmflow.bids.pairing import check_polarity, order_by_time, pair_echoes
from qsmflow.settings import FORCE_R2STAR

if TYPE_CHECKING:
    from qsmflow.bids.precomputed import Precomputed

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
    volume_index : int or None
        Repetition to use, counted from 0, of images that hold several; None refuses them.
    force : tuple of str
        What is done although a check speaks against it; see ``settings.FORCES``.
    """

    phase_scale: str = 'auto'
    field_strength: float | None = None
    b0_dir: str | Sequence[float] | None = None
    echoes: tuple[int, ...] | None = None
    volume_index: int | None = None
    force: tuple[str, ...] = ()


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
        ``phase``, or ``real`` and ``imag``, are there, unless only R2* was asked for;
        ``magnitude`` may be empty. Complex images are both ``real`` and ``imag``.
    te : tuple of float
        Echo times in s, ascending.
    echo_numbers : tuple of int
        Echo numbers in the order of ``te``, as the names count them.
    volumes : tuple of int or None
        For 4-D images: index along the last axis of each echo of ``te``; either of one file that
        holds all echoes, or of a file for each echo that holds repetitions. None: 3-D images.
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
    precomputed : Precomputed or None
        What derivative datasets hold for the T1w image.
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
    precomputed: 'Precomputed | None' = None
    findings: tuple[Finding, ...] = field(default=(), hash=False)

    @property
    def name(self) -> str:
        """Entities that derivatives keep, joined: ``'sub-01_ses-1_acq-x_run-1'``."""
        return series_name(dict(self.entities))

    @property
    def files(self) -> tuple[str, ...]:
        """All image files, phase first."""
        return tuple(dict.fromkeys(self.phase + self.real + self.imag + self.magnitude))

    def has_finding(self, code: str, level: str) -> bool:
        """Whether the checks of the input found something that the reconstruction must know."""
        return any(item.code == code and item.level == level for item in self.findings)

    @property
    def has_phase(self) -> bool:
        """Whether there is a phase, of its own or from real and imaginary images."""
        return bool(self.phase or self.real)

    @property
    def has_magnitude(self) -> bool:
        """Whether there is a magnitude, of its own or from real and imaginary images."""
        return bool(self.magnitude or self.real)

    @property
    def t1w_uri(self) -> str:
        """BIDS URI of the T1w image in use; empty if there is none."""
        if self.precomputed is not None and self.precomputed.t1w_uri:
            return self.precomputed.t1w_uri
        return bids_uri(self.t1w, self.bids_dir) if self.t1w else ''

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
    r2star_only = FORCE_R2STAR in options.force
    echoes, findings = pair_echoes(
        _mark_complex(files), suffix, options.echoes, r2star_only=r2star_only
    )
    if stopping(findings):
        return None, tuple(findings)
    used = _files_of(echoes)
    facts, damaged = _inspect_all(used, inspect)
    findings += damaged
    if stopping(findings):
        return None, tuple(findings)
    ordered, te, volumes, found = order_by_time(
        echoes, facts, options.echoes, options.volume_index
    )
    if te and used[0].part == 'mag' and len(te) < 2:
        message, remedy = 'has neither phase nor a second echo', 'Export the phase images.'
        evidence = {'echoes': len(te)}
        found.append(Finding('B28', 'ERROR', message, used[0].relative, evidence, remedy))
    field_strength, f0, unclear = checks_metadata.main_field(used, options.field_strength)
    findings += [*found, *unclear, *_check_images(used, facts, options)]
    scaling = None
    if not stopping(findings):
        findings += check_polarity(ordered, te)
        images = checks_phase.SeriesImages(ordered, volumes)
        scaling, found = _check_content(images, used, facts, options, te, f0)
        findings += found
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
        **_paths_by_part(ordered),
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


def _check_content(
    images: checks_phase.SeriesImages,
    used: Sequence[SourceFile],
    facts: Mapping[str, ImageFacts],
    options: SeriesOptions,
    te: Sequence[float],
    f0: float,
) -> tuple[PhaseScaling | None, list[Finding]]:
    """Check what the voxels hold, and find out how the phase is stored."""
    findings = checks_content.check_nonfinite(images.echoes, facts)
    phases = [source for source in used if source.part == 'phase']
    scaling = None
    if phases and options.phase_scale == 'auto':
        findings += checks_phase.check_roles(images)
    if phases and not stopping(findings):
        scaling, found = checks_content.determine_scaling(phases, facts, options.phase_scale)
        integer = all(facts[source.relative].integer for source in phases)
        unwrapped = [] if scaling else checks_phase.check_unwrapped(images, integer)
        findings += unwrapped or found
    if not stopping(findings) and used[0].part != 'mag':
        findings += checks_phase.check_phase(
            images,
            scaling,
            voxel_size=_voxel_size(facts[used[0].relative]),
            te=te,
            f0=f0,
            force=options.force,
        )
    return scaling, findings


def _voxel_size(fact: ImageFacts) -> tuple[float, ...]:
    return tuple(float(v) for v in np.linalg.norm(fact.affine[:3, :3], axis=0))


def _geometry(
    fact: ImageFacts, options: SeriesOptions, name: str, findings: list[Finding]
) -> dict[str, Any]:
    """Return what a series knows of its grid, and add what is worth telling to the findings."""
    b0_dir = checks_geometry.parse_b0_dir(options.b0_dir, fact.affine)
    findings += checks_geometry.check_orientation(fact.affine, name, b0_dir)
    return {
        'shape': fact.shape[:3],
        'affine': tuple(tuple(float(v) for v in row) for row in fact.affine),
        'voxel_size': _voxel_size(fact),
        'b0_dir': b0_dir,
    }


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


def _paths_by_part(echoes: Sequence[Echo]) -> dict[str, tuple[str, ...]]:
    """Return the paths of each part in echo order; one path for a 4-D image of all echoes."""
    fields = {
        'magnitude': ('mag',),
        'phase': ('phase',),
        'real': ('real', 'complex'),
        'imag': ('imag', 'complex'),
    }
    paths = {
        name: [e.files[part].path for e in echoes for part in parts if part in e.files]
        for name, parts in fields.items()
    }
    return {name: tuple(dict.fromkeys(own)) for name, own in paths.items()}
