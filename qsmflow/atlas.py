"""Templates and atlases: what the package ships, and how an atlas of the user's is read.

An atlas is a label image with a table beside it. The package ships the deep nuclei of CIT168 and
a search prior for the dentate nucleus of its own making, both in MNI152NLin2009cAsym. Any folder
in the BIDS atlas layout, or any ``dseg`` image with its ``tsv``, is read in the same way.
"""

import csv
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from qsmflow.algorithms.regions import RegionRow
from qsmflow.files import write_text

#: The space of everything that is shipped.
TEMPLATE_SPACE = 'MNI152NLin2009cAsym'

#: Labels of the dentate prior by side. The search region holds the core.
DENTATE_SEARCH = {'L': (1, 3), 'R': (2, 4)}
DENTATE_CORE = {'L': (3,), 'R': (4,)}

#: In shipped atlases a right-sided label is the left-sided one plus this.
RIGHT_OFFSET = 100

_DATA = Path(str(resources.files('qsmflow') / 'data'))

_TEMPLATES = {
    'T1w_res-2': 'res-2_T1w',
    'brain_mask_res-2': 'res-2_desc-brain_mask',
    'T1w_brain_res-1': 'res-1_desc-brain_T1w',
    'T1w_brain_res-2': 'res-2_desc-brain_T1w',
}

_HEMISPHERES = {'': '', 'N/A': '', 'L': 'L', 'LEFT': 'L', 'LH': 'L', 'R': 'R', 'RIGHT': 'R'}
_HEMISPHERES |= {'RH': 'R', 'B': '', 'BOTH': '', 'BILATERAL': ''}


class AtlasError(ValueError):
    """An atlas cannot be read; the message says what is missing and where."""


@dataclass(frozen=True)
class Label:
    """One label of an atlas.

    Attributes
    ----------
    index : int
        Value in the label image, above zero.
    name : str
        Name of the region, the same on both sides.
    hemi : str
        ``'L'``, ``'R'``, or empty for a region of the midline or of both sides.
    group : str
        Name of the group that the region belongs to; empty for none.
    chi : float or None
        Typical susceptibility of an adult, in ppm, of a region that stands out in the map; its
        alignment is then refined by the map.
    """

    index: int
    name: str
    hemi: str = ''
    group: str = ''
    chi: float | None = None


@dataclass(frozen=True)
class Atlas:
    """A label image and what its labels mean.

    Attributes
    ----------
    name : str
        Alphanumeric name, for the ``atlas-`` entity.
    dseg : Path
        Label image.
    space : str
        Name of the template that it lies in; empty when it lies in a subject's own space.
    table : tuple of Label
        One entry for each label, by index.
    license, doi : str
        Terms and reference; empty when the atlas does not say.
    """

    name: str
    dseg: Path
    space: str
    table: tuple[Label, ...]
    license: str = ''
    doi: str = ''


def template(name: str) -> Path:
    """Return the path of a shipped template image.

    Parameters
    ----------
    name : {'T1w_res-2', 'brain_mask_res-2', 'T1w_brain_res-1', 'T1w_brain_res-2'}
        Full-head T1w at 2 mm, its brain mask, and the brain-only T1w at 1 or 2 mm, all in
        MNI152NLin2009cAsym.

    Returns
    -------
    Path

    Raises
    ------
    KeyError
        If there is no such template.

    References
    ----------
    Fonov V, et al. NeuroImage 2011;54:313-327. doi:10.1016/j.neuroimage.2010.07.033

    Examples
    --------
    >>> template('T1w_res-2').name
    'tpl-MNI152NLin2009cAsym_res-2_T1w.nii.gz'
    """
    if name not in _TEMPLATES:
        raise KeyError(f'no template is called {name!r}; there are {sorted(_TEMPLATES)}')
    stem = f'tpl-{TEMPLATE_SPACE}_{_TEMPLATES[name]}.nii.gz'
    return _DATA / 'templates' / f'tpl-{TEMPLATE_SPACE}' / stem


def builtin_atlases() -> tuple[str, ...]:
    """Return the names of the atlases that the package ships.

    Examples
    --------
    >>> builtin_atlases()
    ('CIT168', 'dentate')
    """
    folders = (_DATA / 'atlases').glob('atlas-*')
    return tuple(sorted(folder.name.removeprefix('atlas-') for folder in folders))


def load_atlas(name_or_path: str | Path) -> Atlas:
    """Read an atlas: a shipped one by name, any other by path.

    Parameters
    ----------
    name_or_path : str or Path
        Name of a shipped atlas; or a folder in the BIDS atlas layout with
        ``atlas-<label>_description.json``, one ``*_dseg.nii[.gz]`` and its ``*_dseg.tsv``; or a
        label image with a table beside it. The table has columns ``index`` and ``name``, and
        optionally ``hemi``, ``group`` and ``chi`` (ppm).

    Returns
    -------
    Atlas
        The voxels are not read here.

    Raises
    ------
    AtlasError
        If there is no such atlas, if files are missing or ambiguous, or if the table is not
        usable.

    Examples
    --------
    >>> atlas = load_atlas('CIT168')
    >>> atlas.space, atlas.license, len(atlas.table)
    ('MNI152NLin2009cAsym', 'CC-BY-4.0', 28)
    """
    if str(name_or_path) in builtin_atlases():
        return _load_folder(_DATA / 'atlases' / f'atlas-{name_or_path}')
    path = Path(name_or_path)
    if path.is_dir():
        return _load_folder(path)
    if path.is_file():
        return _make_atlas(path, {}, _name_from(path))
    raise AtlasError(
        f'{name_or_path} is neither a shipped atlas ({", ".join(builtin_atlases())}) nor an '
        'existing folder or label image.'
    )


#: Shipped tables of labels for segmentations: name -> what it describes.
LABEL_TABLES = {
    'aseg': 'Subcortical segmentation with the labels of FreeSurfer (aseg)',
    'aparcaseg': 'Cortical parcellation and subcortical segmentation with the labels of '
    'FreeSurfer (aparc+aseg, Desikan-Killiany)',
    'synthseg': 'Whole-brain segmentation with the labels of SynthSeg',
    'synthsegparc': 'Whole-brain segmentation with the labels of SynthSeg, cortex parcellated '
    '(Desikan-Killiany)',
    'tissue': 'Grey matter, white matter and cerebrospinal fluid',
}


def load_segmentation(path: str | Path, name: str, table: str) -> Atlas:
    """Return a segmentation of a subject as an atlas in the space of the T1w image.

    Parameters
    ----------
    path : path-like
        Label image; its voxels are not read here.
    name : str
        Name for the ``atlas-`` entity.
    table : str
        A key of ``LABEL_TABLES``, or the path of a TSV with the columns of an atlas.

    Returns
    -------
    Atlas

    Raises
    ------
    AtlasError
        If the table cannot be used.

    Examples
    --------
    >>> aseg = load_segmentation('aseg.mgz', 'aseg', 'aseg')
    >>> aseg.space, [label.index for label in aseg.table if label.name == 'putamen']
    ('T1w', [12, 51])
    """
    labels = _shipped_table(table) if table in LABEL_TABLES else _read_table(Path(table))
    return Atlas(re.sub(r'[^a-zA-Z0-9]', '', name), Path(path), 'T1w', labels)


def _shipped_table(name: str) -> tuple[Label, ...]:
    """Return one of the shipped tables; those with the numbers of FreeSurfer share one file."""
    folder = _DATA / 'segmentations'
    if (folder / f'{name}.tsv').is_file():
        return _read_table(folder / f'{name}.tsv')
    source = folder / 'freesurfer.tsv'
    rows = csv.DictReader(source.read_text(encoding='utf-8').splitlines(), delimiter='\t')
    return tuple(_read_row(row, source) for row in rows if name in row['sets'].split(','))


def _load_folder(folder: Path) -> Atlas:
    images = sorted(p for p in folder.rglob('*_dseg.nii*') if not p.name.startswith('.'))
    if len(images) != 1:
        found = ', '.join(p.name for p in images) or 'none'
        raise AtlasError(
            f'{folder}: expected one *_dseg.nii or *_dseg.nii.gz, found {found}. '
            'Give the path of the label image itself to choose one.'
        )
    descriptions = sorted(folder.glob('atlas-*_description.json'))
    about = {}
    if descriptions:
        try:
            about = json.loads(descriptions[0].read_text(encoding='utf-8'))
        except ValueError as error:
            raise AtlasError(f'{descriptions[0]} is not valid JSON: {error}') from error
        name = descriptions[0].name.removeprefix('atlas-').removesuffix('_description.json')
    else:
        name = _name_from(images[0])
    return _make_atlas(images[0], about, name)


def _make_atlas(image: Path, about: dict, name: str) -> Atlas:
    table_path = image.with_name(re.sub(r'\.nii(\.gz)?$', '.tsv', image.name))
    if not table_path.is_file():
        raise AtlasError(
            f'{image}: there is no table {table_path.name} beside it. It needs the columns '
            'index and name, one row for each label.'
        )
    space = re.search(r'(?:^|_)(?:space|tpl)-([a-zA-Z0-9]+)', image.name)
    inherited = about.get('TemplateSpace', '')
    return Atlas(
        name=re.sub(r'[^a-zA-Z0-9]', '', name),
        dseg=image,
        space=space.group(1) if space else inherited,
        table=_read_table(table_path),
        license=str(about.get('License', '')),
        doi=str(about.get('DatasetDOI', '')).removeprefix('doi:'),
    )


def _name_from(image: Path) -> str:
    """Take the name of an atlas from its ``atlas-`` entity, else from the file's own name."""
    entity = re.search(r'(?:^|_)(?:atlas|seg)-([a-zA-Z0-9]+)', image.name)
    if entity:
        return entity.group(1)
    stem = re.sub(r'(_dseg)?\.nii(\.gz)?$', '', image.name)
    return re.sub(r'[^a-zA-Z0-9]', '', stem) or 'custom'


def _read_table(path: Path) -> tuple[Label, ...]:
    with path.open(encoding='utf-8-sig', newline='') as stream:
        reader = csv.DictReader(stream, delimiter='\t')
        missing = {'index', 'name'} - set(reader.fieldnames or ())
        if missing:
            raise AtlasError(
                f'{path}: no column {" or ".join(sorted(missing))}; found '
                f'{reader.fieldnames}. Columns are separated by tabs.'
            )
        labels = [_read_row(row, path) for row in reader]
    labels = [label for label in labels if label.index != 0]
    indices = [label.index for label in labels]
    twice = sorted({index for index in indices if indices.count(index) > 1})
    if twice or not labels:
        problem = f'index {twice} occurs more than once' if twice else 'it has no label'
        raise AtlasError(f'{path}: {problem}.')
    return tuple(sorted(labels, key=lambda label: label.index))


def _read_row(row: dict, path: Path) -> Label:
    def text(column):
        value = (row.get(column) or '').strip()
        return '' if value.lower() == 'n/a' else value

    try:
        index = int(float(text('index')))
    except ValueError as error:
        raise AtlasError(f'{path}: index {row.get("index")!r} is not a number.') from error
    hemi = _HEMISPHERES.get(text('hemi').upper())
    if hemi is None:
        raise AtlasError(f'{path}: hemi {row["hemi"]!r} of label {index} is not L or R.')
    try:
        chi = float(text('chi')) if text('chi') else None
    except ValueError as error:
        raise AtlasError(f'{path}: chi {row["chi"]!r} of label {index} is no number.') from error
    return Label(index, text('name') or f'label_{index}', hemi, text('group'), chi)


def rows(atlas: Atlas) -> tuple[RegionRow, ...]:
    """Return the rows that a region table has for an atlas.

    A shipped atlas has the rows of ``data/regions.tsv``: every region and group for the left
    side, the right side and both. Any other atlas has one row for each label, then one for each
    region that is there on both sides, then its groups by side and together.

    Parameters
    ----------
    atlas : Atlas
        As from ``load_atlas``.

    Returns
    -------
    tuple of RegionRow

    Examples
    --------
    >>> [row for row in rows(load_atlas('CIT168')) if row.name == 'pallidum']
    [RegionRow(name='pallidum', hemi='L', labels=(5, 6), kind='group'),
     RegionRow(name='pallidum', hemi='R', labels=(105, 106), kind='group'),
     RegionRow(name='pallidum', hemi='', labels=(5, 6, 105, 106), kind='group')]
    """
    defined = [entry for entry in region_definitions() if entry['atlas'] == atlas.name]
    if defined and atlas.dseg.is_relative_to(_DATA):
        result = [row for entry in defined for row in _shipped_rows(entry, atlas.name)]
    else:
        result = _generic_rows(atlas.table)
    return tuple(result)


def whole_brain_row() -> RegionRow:
    """Return the row of the whole brain mask, which belongs to no atlas.

    Examples
    --------
    >>> whole_brain_row()
    RegionRow(name='whole_brain', hemi='', labels=(), kind='mask')
    """
    entry = next(entry for entry in region_definitions() if entry['labels'] == '*')
    return RegionRow(entry['name'], kind='mask')


def descriptions(atlas: Atlas | None = None) -> dict[str, str]:
    """Return what the regions of ``data/regions.tsv`` are, by name.

    Parameters
    ----------
    atlas : Atlas, optional
        Only the rows that a table of this atlas has: for one of the user's the whole brain alone,
        as the same names may stand for other regions there. CIT168 comes with the dentate nucleus.

    Examples
    --------
    >>> descriptions(load_atlas('dentate'))
    {'dentate': 'Dentate nucleus, as found in the subject', 'whole_brain': 'All of the brain mask'}
    """
    names = None
    if atlas is not None:
        shipped = atlas.dseg.is_relative_to(_DATA)
        names = {'*', *([atlas.name, 'dentate'] if shipped else [])}
    return {
        entry['name']: entry['description']
        for entry in region_definitions()
        if names is None or entry['atlas'] in names
    }


def region_definitions() -> list[dict[str, str]]:
    """Return atlas, name, labels and description of each row of ``data/regions.tsv``."""
    text = (_DATA / 'regions.tsv').read_text(encoding='utf-8')
    return list(csv.DictReader(text.splitlines(), delimiter='\t'))


def _shipped_rows(entry: dict[str, str], atlas_name: str) -> list[RegionRow]:
    left = tuple(int(label) for label in entry['labels'].split(','))
    # The dentate nucleus, found in the subject, is labelled 1 (left) and 2 (right).
    shift = 1 if atlas_name == 'dentate' else RIGHT_OFFSET
    right = tuple(label + shift for label in left)
    kind = 'group' if len(left) > 1 else 'region'
    name = entry['name']
    return [
        RegionRow(name, 'L', left, kind),
        RegionRow(name, 'R', right, kind),
        RegionRow(name, '', left + right, 'group'),
    ]


def _generic_rows(table: tuple[Label, ...]) -> list[RegionRow]:
    result = [RegionRow(label.name, label.hemi, (label.index,), 'region') for label in table]
    result += _unions(table, lambda label: label.name, sides=('',), taken=set())
    names = {row.name for row in result}
    result += _unions(table, lambda label: label.group, sides=('L', 'R', ''), taken=names)
    return result


def _unions(table, key, sides, taken) -> list[RegionRow]:
    """Union the labels that share a key, where that is more than one label."""
    result = []
    for name in dict.fromkeys(key(label) for label in table):
        if not name or name in taken:
            continue
        members = [label for label in table if key(label) == name]
        for side in sides:
            chosen = tuple(label.index for label in members if not side or label.hemi == side)
            if len(chosen) > 1:
                result.append(RegionRow(name, side, chosen, 'group'))
    return result


def write_descriptions(names: Iterable[str], out_dir: str | Path) -> None:
    """Copy what describes the atlases in use to the root of a dataset, as BIDS asks.

    Parameters
    ----------
    names : iterable of str
        Names of shipped atlases or tables of labels, or paths; the dentate prior comes with
        CIT168.
    out_dir : str or Path
        Root of the derivative dataset.
    """
    wanted = [*names, 'dentate'] if 'CIT168' in names else list(names)
    for name in dict.fromkeys(wanted):
        if name in LABEL_TABLES:
            about = {'Name': LABEL_TABLES[name], 'License': 'n/a'}
            text = json.dumps(about, indent=2, ensure_ascii=False) + '\n'
            write_text(Path(out_dir) / f'atlas-{name}_description.json', text)
            continue
        atlas = load_atlas(name)
        about = {'Name': atlas.name, 'License': atlas.license or 'unknown'}
        for path in atlas.dseg.parent.glob('atlas-*_description.json'):
            about |= json.loads(path.read_text(encoding='utf-8'))
        text = json.dumps(about, indent=2, ensure_ascii=False) + '\n'
        write_text(Path(out_dir) / f'atlas-{atlas.name}_description.json', text)
