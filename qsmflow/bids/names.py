"""File names of BIDS: parse, judge, and say what a wrong one should be.

pybids leaves files with a wrong name out without a word, and drops entities it does not know
(``coil``). Names are therefore read here, and judged with the validator's name rules.
"""

import re
from collections.abc import Mapping
from functools import cache

#: Entities in the order in which a file name has them.
ENTITY_ORDER = (
    *('sub', 'ses', 'sample', 'task', 'tracksys', 'acq', 'nuc', 'voi', 'ce', 'trc', 'stain'),
    *('rec', 'dir', 'run', 'mod', 'echo', 'flip', 'inv', 'mt', 'part', 'proc', 'hemi', 'space'),
    *('split', 'recording', 'chunk', 'atlas', 'seg', 'scale', 'res', 'den', 'label', 'desc'),
)
#: Suffixes that are gradient-echo data by definition.
GRE_SUFFIXES = ('MEGRE', 'T2starw')
#: Suffixes that hold gradient-echo data if the image has a phase (a ``part`` entity).
PART_SUFFIXES = (
    *('T1w', 'T2w', 'PDw', 'FLASH', 'PD', 'angio', 'MPM', 'VFA', 'MP2RAGE', 'T2star'),
    *('inplaneT1', 'inplaneT2', 'FLAIR', 'PDT2'),
)
#: Names seen in the field for what BIDS calls otherwise.
SUFFIX_ALIASES = {'gre': 'MEGRE', 'qsm': 'MEGRE', 'medic': 'MEGRE', 't2star': 'T2starw'}
PARTS = ('mag', 'phase', 'real', 'imag')
_PART_ALIASES = {
    **{'mag': 'mag', 'magnitude': 'mag', 'm': 'mag', 'phase': 'phase', 'ph': 'phase'},
    **{'p': 'phase', 'real': 'real', 're': 'real', 'imag': 'imag', 'imaginary': 'imag'},
}
IMAGE_EXTENSIONS = ('.nii.gz', '.nii')


def split_extension(name: str) -> tuple[str, str]:
    """Split a file name at its first dot.

    Examples
    --------
    >>> split_extension('sub-01_T1w.nii.gz')
    ('sub-01_T1w', '.nii.gz')
    """
    stem, dot, rest = name.partition('.')
    return stem, dot + rest


def parse_name(name: str) -> tuple[dict[str, str], str, str]:
    """Read entities, suffix and extension from a file name, in the order they stand there.

    Parameters
    ----------
    name : str
        File name without folders.

    Returns
    -------
    entities : dict of str
        Key to label, both as they are written. A token without a hyphen is skipped.
    suffix : str
        Last token of the stem.
    extension : str
        Everything from the first dot on.

    Examples
    --------
    >>> parse_name('sub-01_echo-02_part-phase_MEGRE.nii.gz')
    ({'sub': '01', 'echo': '02', 'part': 'phase'}, 'MEGRE', '.nii.gz')
    """
    stem, extension = split_extension(name)
    *tokens, suffix = stem.split('_')
    pairs = (token.partition('-') for token in tokens)
    return {key: label for key, hyphen, label in pairs if hyphen}, suffix, extension


def join_name(entities: Mapping[str, str], suffix: str, extension: str) -> str:
    """Write a file name with the entities in the order that BIDS asks for.

    Examples
    --------
    >>> join_name({'part': 'mag', 'echo': '1', 'sub': '01'}, 'MEGRE', '.nii.gz')
    'sub-01_echo-1_part-mag_MEGRE.nii.gz'
    """
    rank = {key: position for position, key in enumerate(ENTITY_ORDER)}
    ordered = sorted(entities.items(), key=lambda item: rank.get(item[0], len(rank)))
    return '_'.join([f'{key}-{label}' for key, label in ordered] + [suffix]) + extension


@cache
def _validator():
    from bids_validator import BIDSValidator

    return BIDSValidator()


def is_bids_name(relative_path: str) -> bool:
    """Tell whether a path below the dataset is one that BIDS allows.

    Parameters
    ----------
    relative_path : str
        Path with forward slashes, such as ``'sub-01/anat/sub-01_T1w.nii.gz'``.
    """
    return bool(_validator().is_bids('/' + relative_path.lstrip('/')))


def is_usable_name(relative_path: str) -> bool:
    """Tell whether a path is valid, or a 4-D ``MEGRE`` whose echoes need no ``echo`` entity."""
    if is_bids_name(relative_path):
        return True
    folder, _, name = relative_path.rpartition('/')
    entities, suffix, extension = parse_name(name)
    if suffix != 'MEGRE' or 'echo' in entities or join_name(entities, suffix, extension) != name:
        return False
    return is_bids_name(f'{folder}/{join_name({**entities, "echo": "1"}, suffix, extension)}')


def looks_like_gre(name: str) -> bool:
    """Tell whether a file name is, or was meant to be, gradient-echo data with a phase.

    Examples
    --------
    >>> [looks_like_gre(n) for n in ('sub-01_megre.nii', 'sub-01_part-phase_T1w.nii.gz')]
    [True, True]
    >>> looks_like_gre('sub-01_T1w.nii.gz')
    False
    """
    entities, suffix, extension = parse_name(name)
    if extension not in IMAGE_EXTENSIONS:
        return False
    if _suffix(suffix) in GRE_SUFFIXES:
        return True
    return 'part' in {key.lower() for key in entities} and _suffix(suffix) in PART_SUFFIXES


def expected_name(name: str) -> str:
    """Return the name that BIDS would give to a file whose name is nearly right.

    Case is repaired, entities are put in order, and those that BIDS does not allow for
    gradient-echo images (``dir``, ``coil``) are left out.

    Examples
    --------
    >>> expected_name('sub-01_part-Phase_echo-1_megre.nii.gz')
    'sub-01_echo-1_part-phase_MEGRE.nii.gz'
    >>> expected_name('sub-01_part-mag_GRE.nii.gz')
    'sub-01_echo-1_part-mag_MEGRE.nii.gz'
    """
    entities, suffix, extension = parse_name(name)
    suffix = _suffix(suffix)
    repaired = {}
    for key, label in entities.items():
        key = key.lower()
        if key in ENTITY_ORDER and key != 'dir':
            repaired[key] = _PART_ALIASES.get(label.lower(), label) if key == 'part' else label
    if suffix == 'MEGRE':
        repaired = {k: v for k, v in repaired.items() if k not in ('flip', 'inv', 'mt')}
        if not re.fullmatch(r'\d+', repaired.get('echo', '')):
            repaired['echo'] = '1'
    return join_name(repaired, suffix, extension)


def _suffix(suffix: str) -> str:
    """Return the suffix of BIDS that is spelled like this one, ignoring case."""
    known = {item.lower(): item for item in GRE_SUFFIXES + PART_SUFFIXES} | SUFFIX_ALIASES
    return known.get(suffix.lower(), suffix)
