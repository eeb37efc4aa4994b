"""Names, sidecars and dataset files of what is written.

Patterns, units and the list of names that BIDS does not know are data: ``data/io_spec.json``.
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from qsmflow.bids.checks_metadata import PUBLIC_FIELDS
from qsmflow.bids.names import parse_name
from qsmflow.bids.series import KEPT_ENTITIES, GRESeries
from qsmflow.files import write_text

BIDS_VERSION = '1.11.1'
#: Spaces that BIDS knows; others need ``SpatialReference`` in the sidecar.
STANDARD_SPACES = ('MNI152NLin2009cAsym', 'MNI152NLin6Asym', 'MNI152NLin2009cSym')
_SKULL = {'Chimap', 'R2starmap', 'T2starmap', 'S0map', 'T1w', 'T2starw', 'MEGRE', 'fieldmap'}


_README = """# Quantitative susceptibility mapping

This derivative dataset was written by qsmflow {version}. It holds maps of magnetic susceptibility
and relaxation, tables of regions, registrations, and a report (sub-<label>.html) for each
participant.

- dataset_description.json names the raw dataset, descriptions.tsv explains the desc entities of
  file names, atlas-<label>_description.json the atlases.
- logs/CITATION.md has the text for a methods section, logs/<run>/qsmflow.toml the settings.
- The field maps in fmap are in Hz, Chimap is in ppm, tables of regions have susceptibility in ppb.

What each file holds is in docs/outputs.md of qsmflow.
"""


@cache
def io_spec() -> dict[str, Any]:
    """Return the table of patterns, suffixes and ignored names."""
    text = resources.files('qsmflow').joinpath('data/io_spec.json').read_text('utf-8')
    return json.loads(text)


def derivative_path(
    source: GRESeries | Mapping[str, str] | str,
    *,
    suffix: str,
    extension: str = '.nii.gz',
    datatype: str | None = None,
    kind: str | None = None,
    **entities: str | None,
) -> str:
    """Return where a result is written, below the output folder.

    Parameters
    ----------
    source : GRESeries, mapping or str
        The series, its entities (``{'sub': '01', 'acq': 'x'}``), or a file name with them.
        Entities that derivatives do not keep are dropped.
    suffix : str
        BIDS suffix, such as ``'Chimap'``; for figures and logs any word.
    extension : str, optional
        With leading dot.
    datatype : str, optional
        Folder; ``'anat'``, or ``'fmap'`` for field maps, if not given.
    kind : str, optional
        Pattern of ``io_spec.json``; taken from the suffix if not given.
    **entities : str or None
        Entities to add: ``desc``, ``space``, ``atlas``, ``res``, ``label``, ``seg``, ``echo``,
        ``part``, and ``from_``, ``to`` for transforms. None leaves one out.

    Returns
    -------
    str
        Relative path with forward slashes.

    Raises
    ------
    ValueError
        For a suffix, extension or entity that the table does not know, a label with characters
        other than letters and digits, or a required entity that is missing.

    Examples
    --------
    >>> derivative_path({'sub': '01', 'ses': '2'}, suffix='Chimap', space='T1w')
    'sub-01/ses-2/anat/sub-01_ses-2_space-T1w_Chimap.nii.gz'
    >>> derivative_path({'sub': '01'}, suffix='stats', extension='.tsv', atlas='CIT168')
    'sub-01/anat/sub-01_atlas-CIT168_stats.tsv'
    """
    spec = io_spec()
    rule = spec['suffixes'].get(suffix, {})
    kind = kind or rule.get('pattern')
    if kind not in spec['patterns']:
        known = ', '.join(spec['suffixes'])
        raise ValueError(f'suffix {suffix!r} has no pattern; io_spec.json knows {known}')
    allowed = spec.get(f'{kind}_extensions', rule.get('extensions', [extension]))
    if extension not in allowed:
        raise ValueError(f'{suffix!r} files end in one of {allowed}; got {extension!r}')
    values = {**_source_entities(source), **_checked(entities)}
    _check_reach(kind, values)
    values |= {'suffix': suffix, 'extension': extension}
    values['datatype'] = datatype or rule.get('datatype', 'anat')
    return resolve(spec['patterns'][kind], {**values, 'source': resolve(spec['source'], values)})


def resolve(pattern: str, values: Mapping[str, str]) -> str:
    """Fill a pattern; parts in brackets are left out when their entity is not set.

    Parameters
    ----------
    pattern : str
        Text with ``{name}`` and ``[optional parts]``, not nested.
    values : mapping of str
        Values by name.

    Raises
    ------
    ValueError
        If a required entity is missing.

    Examples
    --------
    >>> resolve('sub-{sub}[_ses-{ses}]_{suffix}', {'sub': '1', 'suffix': 'mask'})
    'sub-1_mask'
    """

    def optional(match: re.Match) -> str:
        names = re.findall(r'{(\w+)}', match[1])
        return match[1] if all(values.get(name) for name in names) else ''

    required = re.sub(r'\[([^\[\]]*)\]', optional, pattern)
    missing = [n for n in re.findall(r'{(\w+)}', required) if not values.get(n)]
    if missing:
        raise ValueError(f'the pattern {pattern!r} needs {", ".join(missing)}')
    return required.format_map(values)


def sidecar(
    series: GRESeries,
    *,
    suffix: str,
    description: str,
    sources: Sequence[str] | None = None,
    skull_stripped: bool | None = None,
    space: str | None = None,
    resolution: str | None = None,
    spatial_reference: str | None = None,
    units: str | None = None,
    **fields: Any,
) -> dict[str, Any]:
    """Return the sidecar of an image derivative.

    Only whitelisted acquisition fields of the input are passed on: no names, no dates.

    Parameters
    ----------
    series : GRESeries
        The acquisition that it comes from.
    suffix : str
        BIDS suffix; gives the unit.
    description : str
        What the image shows.
    sources : sequence of str, optional
        BIDS URIs; all images of the series if not given.
    skull_stripped : bool, optional
        Whether voxels outside the brain were removed; required by BIDS for images other than
        masks and segmentations, and taken as True there if not given.
    space : str, optional
        The entity ``space`` of the name.
    resolution : str, optional
        What the entity ``res`` of the name means.
    spatial_reference : str, optional
        URI of the image that defines ``space``; required for spaces that BIDS does not know.
    units : str, optional
        If not the unit of the suffix.
    **fields
        Further keys; None is left out.

    Returns
    -------
    dict
        Keys of BIDS first, then those of the acquisition, then ``fields``.

    Raises
    ------
    ValueError
        If ``space`` is not standard and ``spatial_reference`` is missing.
    """
    if space and space not in STANDARD_SPACES and not spatial_reference:
        raise ValueError(f'space-{space} is not standard: give spatial_reference')
    units = units or io_spec()['suffixes'].get(suffix, {}).get('units')
    is_image = suffix in _SKULL
    if is_image and skull_stripped is None:
        skull_stripped = True
    content = {
        'Description': description,
        'Sources': list(series.sources if sources is None else sources),
        'Units': units,
        'SkullStripped': skull_stripped if is_image else None,
        'SpatialReference': spatial_reference,
        'Resolution': resolution,
        'EchoTime': list(series.te) if len(series.te) > 1 else series.te[0],
        'MagneticFieldStrength': series.field_strength,
    }
    for key in PUBLIC_FIELDS:
        if key in series.metadata and key != 'ImageType':
            content.setdefault(key, series.metadata[key])
    content |= fields
    return {key: value for key, value in content.items() if value is not None}


def write_dataset_files(
    out_dir: str | os.PathLike,
    bids_dir: str | os.PathLike,
    version: str,
    *,
    links: Mapping[str, str | os.PathLike] | None = None,
    container: Mapping[str, str] | None = None,
    atlases: Sequence[str] = ('CIT168',),
) -> list[str]:
    """Write ``dataset_description.json``, ``.bidsignore``, ``descriptions.tsv`` and ``README``.

    Safe when several runs write into one folder: each file appears complete, and is the same
    whoever writes it.

    Parameters
    ----------
    out_dir : path-like
        Output dataset.
    bids_dir : path-like
        Raw dataset; becomes the dataset ``raw`` of the BIDS URIs.
    version : str
        Version of this software.
    links : mapping, optional
        Further datasets that URIs refer to, by name.
    container : mapping, optional
        ``Type``, ``Tag`` and ``URI`` of the container, for ``GeneratedBy``.
    atlases : sequence of str, optional
        Names of the atlases in use, whose ``desc`` entities are described.

    Returns
    -------
    list of str
        Paths written.
    """
    out = Path(out_dir)
    datasets = {'raw': bids_dir, **(links or {})}
    generator = {'Name': 'qsmflow', 'Version': version}
    if container:
        generator['Container'] = dict(container)
    content = {
        'Name': 'qsmflow: quantitative susceptibility mapping',
        'BIDSVersion': BIDS_VERSION,
        'DatasetType': 'derivative',
        'GeneratedBy': [generator],
        'DatasetLinks': {name: dataset_link(path, out) for name, path in datasets.items()},
        'SourceDatasets': [_source_dataset(Path(bids_dir), out)],
    }
    spec = io_spec()
    described = dict(spec['descriptions'])
    for name in atlases:
        described[f'{name}nuclei'] = spec['nuclei_description'].format(atlas=name)
    rows = ['desc_id\tdescription']
    rows += [f'desc-{label}\t{text}' for label, text in sorted(described.items())]
    texts = {
        'dataset_description.json': json.dumps(content, indent=2, ensure_ascii=False) + '\n',
        '.bidsignore': '\n'.join(spec['ignore']) + '\n',
        'descriptions.tsv': '\n'.join(rows) + '\n',
    }
    if _may_write_readme(out):
        texts['README'] = _README.format(version=version)
    return [str(write_text(out / name, text)) for name, text in texts.items()]


def _may_write_readme(out: Path) -> bool:
    """Tell whether there is no README yet that somebody else wrote."""
    own = out / 'README'
    if own.is_file():
        first = own.read_text(encoding='utf-8', errors='replace').partition('\n')[0]
        return first == _README.partition('\n')[0]
    return not any(out.glob('README*'))


def dataset_link(path: str | os.PathLike, out_dir: str | os.PathLike) -> str:
    """Return a dataset as a link of ``DatasetLinks``.

    Parameters
    ----------
    path : path-like or str
        Folder of the dataset, or a URI, which is kept.
    out_dir : path-like
        Dataset that holds the link.

    Returns
    -------
    str
        Relative if one of the two holds the other, so that both can be moved together; else a
        ``file`` URI.

    Examples
    --------
    >>> dataset_link('/data', '/data/derivatives/qsmflow')
    '../..'
    >>> dataset_link('/my data', '/results')
    'file:///my%20data'
    """
    if re.match(r'[a-z][a-z0-9+.-]*://', str(path)):
        return str(path)
    path, out = Path(os.path.abspath(path)), Path(os.path.abspath(out_dir))
    if path in out.parents or out in path.parents:
        return Path(os.path.relpath(path, out)).as_posix()
    return path.as_uri()


def write_json(path: str | os.PathLike, content: Mapping[str, Any]) -> str:
    """Write a dictionary as JSON; the file appears complete or not at all.

    Raises
    ------
    ValueError
        If a number is NaN or infinite, which JSON does not know.
    """
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False, default=_plain)
    return str(write_text(path, text + '\n'))


def _source_entities(source: GRESeries | Mapping[str, str] | str) -> dict[str, str]:
    """Return the entities of the source that derivatives keep."""
    if isinstance(source, GRESeries):
        entities = dict(source.entities)
    elif isinstance(source, str):
        name = source.rpartition('/')[2]
        bare = '-' in name.rpartition('_')[2].partition('.')[0]  # no suffix: a series name
        entities = parse_name(f'{name}_x' if bare else name)[0]
    else:
        entities = dict(source)
    return {key: entities[key] for key in KEPT_ENTITIES if entities.get(key)}


def _checked(entities: Mapping[str, str | None]) -> dict[str, str]:
    """Check names and labels of entities to add."""
    known = {*io_spec()['entities'], 'from', 'to'}
    checked = {}
    for key, label in entities.items():
        key = key.removesuffix('_')
        if key not in known:
            raise ValueError(f'unknown entity {key!r}; known are {", ".join(sorted(known))}')
        if label is None:
            continue
        if not re.fullmatch(r'[A-Za-z0-9+]+', str(label)):
            raise ValueError(f'the label {label!r} of {key} must be letters and digits')
        checked[key] = str(label)
    return checked


def _check_reach(kind: str, values: Mapping[str, str]) -> None:
    """Refuse entities that the pattern would drop without a word."""
    spec = io_spec()
    text = spec['patterns'][kind]
    text += spec['source'] if '{source}' in text else ''
    lost = [key for key in values if f'{{{key}}}' not in text]
    if kind not in ('report', 'group', 'group_report') and lost:
        raise ValueError(f'the pattern {kind!r} has no place for {", ".join(lost)}')


def _source_dataset(bids_dir: Path, out: Path) -> dict[str, str]:
    """Describe the raw dataset by its DOI and version, where it has them."""
    entry = {'URL': dataset_link(bids_dir, out)}
    try:
        content = json.loads((bids_dir / 'dataset_description.json').read_bytes())
    except (OSError, ValueError):
        return entry
    if doi := content.get('DatasetDOI'):
        entry['DOI'] = str(doi)
    return entry


def _plain(value: Any) -> Any:
    """Turn numpy scalars and arrays into what JSON knows."""
    if hasattr(value, 'tolist'):
        return value.tolist()
    raise TypeError(f'{type(value).__name__} cannot be written as JSON')
