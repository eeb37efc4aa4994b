"""What other pipelines have made of a subject's T1w image, for use instead of our own steps.

Three layouts are read: BIDS derivatives (fMRIPrep, sMRIPrep, earlier results of this program and
others that use the same names), subject folders of FreeSurfer (``sub-01/mri/``), and files that
``mri_synthseg`` named after the T1w image (``sub-01_T1w_synthseg.nii.gz``).
"""

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qsmflow.bids.filters import matches
from qsmflow.bids.findings import Finding
from qsmflow.bids.names import IMAGE_EXTENSIONS, parse_name
from qsmflow.bids.series import GRESeries

#: The template that transforms must lead to.
TEMPLATE = 'MNI152NLin2009cAsym'
#: Tables of labels that the package ships: ``desc`` of a segmentation -> name of the table.
SHIPPED_TABLES = {'aseg': 'aseg', 'aparcaseg': 'aparcaseg', 'synthseg': 'synthseg', '': 'tissue'}
#: Files of a FreeSurfer subject, best first.
FREESURFER_T1W = ('T1.mgz', 'nu.mgz', 'orig.mgz', 'brain.mgz')
FREESURFER_MASKS = ('brainmask.mgz', 'brain.mgz')
FREESURFER_SEGMENTATIONS = {
    'aseg.mgz': 'aseg',
    'aparc+aseg.mgz': 'aparcaseg',
    'synthseg.mgz': 'synthseg',
    'synthseg.rca.mgz': 'synthseg',
}
_SYNTHSEG = re.compile(r'_synthseg\.(?:nii\.gz|nii|mgz)$')
#: Entities of a T1w image that its derivatives keep.
_SCAN = ('sub', 'ses', 'acq', 'ce', 'rec', 'run')


@dataclass(frozen=True)
class Segmentation:
    """A segmentation in the space of the T1w image.

    Attributes
    ----------
    path, uri : str
        File, and its BIDS URI.
    name : str
        Name for the ``atlas-`` entity of its region table.
    table : str
        Name of a shipped table of labels, or path of a TSV.
    """

    path: str
    uri: str
    name: str
    table: str


@dataclass(frozen=True)
class Precomputed:
    """What derivative datasets hold for the T1w image that a series uses.

    Attributes
    ----------
    pipeline : str
        Who made image, mask or transforms: ``'fMRIPrep 25.1.0 (dataset fmriprep)'``.
    t1w, t1w_uri : str or None
        Preprocessed image and its BIDS URI; None if the raw one is used.
    mask, mask_uri : str or None
        Brain mask on its grid.
    to_template, from_template : str or None
        ITK transforms between the image and the template; both or none.
    transform_uris : tuple of str
        Their BIDS URIs.
    segmentations : tuple of Segmentation
        Those that lie in the space of the image.
    """

    pipeline: str = ''
    t1w: str | None = None
    t1w_uri: str | None = None
    mask: str | None = None
    mask_uri: str | None = None
    to_template: str | None = None
    from_template: str | None = None
    transform_uris: tuple[str, ...] = ()
    segmentations: tuple[Segmentation, ...] = ()


@dataclass(frozen=True)
class Candidate:
    """What one dataset holds for one T1w image of a subject; see :class:`Precomputed`."""

    dataset: str
    root: Path
    entities: tuple[tuple[str, str], ...]
    t1w: Path | None = None
    mask: Path | None = None
    transforms: tuple[Path, ...] = ()
    segmentations: tuple[Segmentation, ...] = ()

    @property
    def session(self) -> str | None:
        """Label of the session; None for an image of all sessions."""
        return dict(self.entities).get('ses')

    def uri(self, path: Path) -> str:
        """Return the BIDS URI of a file of the dataset."""
        return uri(self.dataset, self.root, path)


def uri(dataset: str, root: Path, path: Path) -> str:
    """Return the BIDS URI of a file of a derivative dataset.

    Examples
    --------
    >>> uri('fs', Path('/fs'), Path('/fs/sub-01/mri/T1.mgz'))
    'bids:fs:sub-01/mri/T1.mgz'
    """
    return f'bids:{dataset}:{path.relative_to(root).as_posix()}'


def pipeline_of(dataset: str, root: Path) -> str:
    """Return which program made a dataset, as far as the dataset says so."""
    known = ''
    try:
        content = json.loads((root / 'dataset_description.json').read_bytes())
        first = content['GeneratedBy'][0]
        known = ' '.join(str(first[key]) for key in ('Name', 'Version') if first.get(key))
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        stamps = sorted(root.glob('sub-*/scripts/build-stamp.txt'))
        if stamps:
            known = stamps[0].read_text(encoding='utf-8', errors='replace').strip()
    return f'{known or "an unnamed pipeline"} (dataset {dataset})'


def candidates(
    dataset: str, root: Path, subject: str, queries: Mapping[str, Mapping[str, Any]]
) -> list[Candidate]:
    """Return what a dataset holds for the T1w images of a subject.

    Parameters
    ----------
    dataset : str
        Name of the dataset.
    root : Path
        Its folder.
    subject : str
        Label.
    queries : mapping
        Filters for ``t1w``, ``mask`` and ``dseg``.

    Returns
    -------
    list of Candidate
        One for each T1w image, or for each that is named by masks, transforms or segmentations.
    """
    found = [*_freesurfer(dataset, root, subject), *_bids(dataset, root, subject, queries)]
    return [item for item in found if item.t1w or item.mask or item.transforms or
            item.segmentations]  # fmt: skip


def _freesurfer(dataset: str, root: Path, subject: str) -> Iterator[Candidate]:
    """Read the folders of a FreeSurfer subject: one, or one for each session."""
    pattern = re.compile(rf'sub-{re.escape(subject)}(?:_(ses-[A-Za-z0-9]+))?')
    for folder in sorted(root.glob(f'sub-{subject}*')):
        match = pattern.fullmatch(folder.name)
        mri = folder / 'mri'
        if not match or not mri.is_dir():
            continue
        entities = {'sub': subject} | ({'ses': match[1][4:]} if match[1] else {})
        segmentations: dict[str, Segmentation] = {}
        for file, name in FREESURFER_SEGMENTATIONS.items():
            if (mri / file).is_file() and name not in segmentations:
                path = mri / file
                segmentations[name] = Segmentation(
                    str(path.absolute()), uri(dataset, root, path), name, name
                )
        yield Candidate(
            dataset,
            root,
            tuple(entities.items()),
            t1w=next((mri / n for n in FREESURFER_T1W if (mri / n).is_file()), None),
            mask=next((mri / n for n in FREESURFER_MASKS if (mri / n).is_file()), None),
            segmentations=tuple(segmentations.values()),
        )


def _bids(
    dataset: str, root: Path, subject: str, queries: Mapping[str, Mapping[str, Any]]
) -> Iterator[Candidate]:
    """Read files with BIDS names, and those of ``mri_synthseg``, by the scan they belong to."""
    scans: dict[tuple, dict[str, Any]] = {}
    for path in _images(root, subject):
        relative = path.relative_to(root).as_posix()
        name = _SYNTHSEG.sub('_desc-synthseg_dseg.nii.gz', path.name).replace('_T1w_', '_')
        entities, suffix, extension = parse_name(name)
        kind = {'T1w': 't1w', 'mask': 'mask', 'dseg': 'dseg', 'xfm': 'xfm'}.get(suffix)
        allowed = ('.h5',) if kind == 'xfm' else IMAGE_EXTENSIONS
        if kind is None or extension not in allowed or entities.get('sub') != subject:
            continue
        if kind != 'xfm' and not matches(relative, queries.get(kind, {})):
            continue
        key = tuple((k, v) for k, v in entities.items() if k in _SCAN)
        scan = scans.setdefault(key, {'t1w': [], 'mask': [], 'dseg': [], 'xfm': {}})
        if kind == 'xfm':
            scan['xfm'][entities.get('from'), entities.get('to')] = path
        elif entities.get('space') in (None, 'T1w'):
            scan[kind].append((path, entities))
    for key, scan in scans.items():
        yield _of_scan(dataset, root, key, scan)


def _images(root: Path, subject: str) -> Iterator[Path]:
    """Yield what may be of use: files in ``anat`` folders, and those of ``mri_synthseg``."""
    folder = root / f'sub-{subject}'
    for pattern in ('anat/*', 'ses-*/anat/*'):
        yield from sorted(folder.glob(pattern))
    for place in (root.glob(f'sub-{subject}_*_synthseg.*'), folder.glob('*_synthseg.*')):
        yield from sorted(place)


def _of_scan(dataset: str, root: Path, key: tuple, scan: Mapping[str, Any]) -> Candidate:
    """Choose among the files of one scan."""
    t1w = sorted(scan['t1w'], key=lambda item: item[1].get('desc') != 'preproc')
    # A dataset without a T1w image has its own space unmarked, and that of the T1w by its name.
    space = None if t1w else 'T1w'
    masks = [
        path
        for path, entities in scan['mask']
        if 'brain' in (entities.get('desc'), entities.get('label'))
        and entities.get('space') in (space, 'T1w')
    ]
    ways = [('T1w', TEMPLATE), (TEMPLATE, 'T1w')]
    complete = all(way in scan['xfm'] for way in ways)
    segmentations = {}
    for path, entities in scan['dseg']:
        synthseg = bool(_SYNTHSEG.search(path.name))
        if entities.get('space') not in (space, 'T1w') and not synthseg:
            continue
        name, table = _table_of(path, entities, root)
        if name not in segmentations:
            segmentations[name] = Segmentation(
                str(path.absolute()), uri(dataset, root, path), name, table
            )
    return Candidate(
        dataset,
        root,
        key,
        t1w=t1w[0][0] if t1w else None,
        mask=masks[0] if masks else None,
        transforms=tuple(scan['xfm'][way] for way in ways) if complete else (),
        segmentations=tuple(segmentations.values()),
    )


def _table_of(path: Path, entities: Mapping[str, str], root: Path) -> tuple[str, str]:
    """Return name and table of a segmentation; the table is empty if there is none."""
    kind = next((entities[k] for k in ('atlas', 'seg', 'desc') if k in entities), '')
    own = path.with_name(re.sub(r'\.nii(\.gz)?$', '.tsv', path.name))
    inherited = root / (f'desc-{kind}_dseg.tsv' if kind else 'dseg.tsv')
    if kind in SHIPPED_TABLES:
        return SHIPPED_TABLES[kind], SHIPPED_TABLES[kind]
    for table in (own, inherited):
        if table.is_file():
            return kind, str(table.absolute())
    return kind, ''


def choose(series: GRESeries, found: list[Candidate]) -> tuple[Precomputed | None, list[Finding]]:
    """Choose what a series uses.

    The first dataset with a T1w image of the subject gives image, mask and transforms: of the
    same session first, then one of all sessions, then of another one. Where no dataset has an
    image, mask and transforms may belong to the raw one. Segmentations are taken from every
    dataset that has some for the chosen image or for the same scan.

    Parameters
    ----------
    series : GRESeries
        With the T1w image of the dataset.
    found : list of Candidate
        Of all datasets, in their order.

    Returns
    -------
    precomputed : Precomputed or None
        None if there is nothing of use.
    findings : list of Finding
        ``D82`` if the image is of another session, ``DERSEG`` for a segmentation that has no
        table of labels.
    """
    target = next(iter(sorted((c for c in found if c.t1w), key=lambda c: _rank(c, series))), None)
    if target is None:
        target = next((c for c in found if _of_raw(c, series) and (c.mask or c.transforms)), None)
    findings = []
    result = Precomputed()
    if target is not None:
        result = _taken(target)
        findings += _told(target, series)
    segmentations: dict[str, Segmentation] = {}
    for candidate in found:
        if not _same_head(candidate, target, series):
            continue
        for one in candidate.segmentations:
            if not one.table:
                findings.append(_without_table(one))
            else:
                segmentations.setdefault(one.name, one)
    result = dataclasses.replace(result, segmentations=tuple(segmentations.values()))
    return (None if result == Precomputed() else result), findings


def _rank(candidate: Candidate, series: GRESeries) -> tuple:
    """Order candidates: session, then dataset (the sort is stable), then the plainer name."""
    own = candidate.session == series.session
    return (0 if own else 1 if candidate.session is None else 2,)


def _of_raw(candidate: Candidate, series: GRESeries) -> bool:
    """Tell whether a candidate without an image of its own belongs to the raw T1w in use."""
    if candidate.t1w or not series.t1w:
        return False
    entities = parse_name(Path(series.t1w).name)[0]
    return dict(candidate.entities) == {k: v for k, v in entities.items() if k in _SCAN}


def _same_head(candidate: Candidate, target: Candidate | None, series: GRESeries) -> bool:
    """Tell whether the segmentations of a candidate lie in the space of the image in use.

    Of another dataset, they do when that one shows the same scan, or the same session of it; the
    overlap with the brain is checked afterwards.
    """
    if candidate is target or _of_raw(candidate, series):
        return True
    if target is None or not target.t1w:
        return False
    return candidate.session in (target.session, None) or target.session is None


def _taken(target: Candidate) -> Precomputed:
    def where(path: Path | None) -> tuple[str | None, str | None]:
        return (None, None) if path is None else (str(path.absolute()), target.uri(path))

    (t1w, t1w_uri), (mask, mask_uri) = where(target.t1w), where(target.mask)
    ways = tuple(str(path.absolute()) for path in target.transforms) or (None, None)
    return Precomputed(
        pipeline=pipeline_of(target.dataset, target.root),
        t1w=t1w,
        t1w_uri=t1w_uri,
        mask=mask,
        mask_uri=mask_uri,
        to_template=ways[0],
        from_template=ways[1],
        transform_uris=tuple(target.uri(path) for path in target.transforms),
    )


def _told(target: Candidate, series: GRESeries) -> list[Finding]:
    """Say what is taken, and from which session."""
    parts = {
        'T1w image': target.t1w,
        'brain mask of the T1w image': target.mask,
        'transforms to the template': target.transforms,
    }
    message = f'used instead of our own: {", ".join(name for name, it in parts.items() if it)}'
    evidence = {'pipeline': pipeline_of(target.dataset, target.root)}
    path = target.t1w or target.mask or target.transforms[0]
    file = target.uri(path)
    found = [Finding('DERANAT', 'INFO', message, file, evidence)]
    if target.session not in (series.session, None):
        message = f'is used as anatomical image: from another session ({target.session})'
        remedy = 'Check that it shows the same anatomy.'
        evidence = {'session': target.session}
        found.append(Finding('D82', 'WARN', message, file, evidence, remedy))
    return found


def _without_table(one: Segmentation) -> Finding:
    message = 'the segmentation is not used: no table says what its labels mean'
    remedy = 'Put a TSV of the same name, with the columns index and name, beside it.'
    return Finding('DERSEG', 'WARN', message, one.uri, {}, remedy)
