"""Readers of option values: each turns text into a value, or says what it expected.

They raise ``argparse.ArgumentTypeError``; argparse puts the name of the option before the message.
"""

import argparse
import re
from dataclasses import dataclass
from pathlib import Path

from qsmflow.cli.usage import refusal
from qsmflow.settings import SettingsError, parse_b0_dir

#: A number above this cannot be meant as GB.
LARGEST_PLAUSIBLE_GB = 2048
_MEMORY = re.compile(r'(?P<number>\d+(\.\d+)?)\s*(?P<unit>[KMGT]?)(i?B)?', re.IGNORECASE)
_GB_PER_UNIT = {'K': 1024**-2, 'M': 1 / 1024, 'G': 1.0, 'T': 1024.0}


@dataclass(frozen=True)
class Number:
    """A number within limits.

    Attributes
    ----------
    kind : type
        ``int`` or ``float``.
    minimum, maximum : float, optional
        Limits, which are allowed themselves.

    Examples
    --------
    >>> Number(int, minimum=1)('3')
    3
    """

    kind: type
    minimum: float | None = None
    maximum: float | None = None

    def __call__(self, text: str) -> float:
        """Return the number that ``text`` stands for."""
        try:
            number = self.kind(text)
        except ValueError:
            number = None
        low = self.minimum is not None and number is not None and number < self.minimum
        high = self.maximum is not None and number is not None and number > self.maximum
        if number is None or number != number or low or high:
            raise argparse.ArgumentTypeError(f'expected {self}, got {text!r}')
        return number

    def __str__(self):
        limits = [
            f'{sign} {limit:g}'
            for sign, limit in (('>=', self.minimum), ('<=', self.maximum))
            if limit is not None
        ]
        noun = 'a whole number' if self.kind is int else 'a number'
        return ' '.join([noun, ' and '.join(limits)]).strip()


@dataclass(frozen=True)
class Label:
    """A BIDS label, given with or without the entity before it.

    Examples
    --------
    >>> Label('sub')('sub-01'), Label('sub')('01')
    ('01', '01')
    """

    entity: str

    def __call__(self, text: str) -> str:
        """Return the label without its entity."""
        label = text.removeprefix(f'{self.entity}-')
        if not re.fullmatch(r'[0-9a-zA-Z+]+', label):
            hint = '; paths come before all options' if '/' in text else ''
            raise argparse.ArgumentTypeError(
                f'{text!r} is no BIDS label (letters and digits, as in {self.entity}-01){hint}'
            )
        return label


def memory_gb(text: str) -> float:
    """Return memory in GB; a bare number is in GB.

    Examples
    --------
    >>> memory_gb('16'), memory_gb('16G'), memory_gb('512M')
    (16.0, 16.0, 0.5)
    """
    gigabytes, unit = _memory(text, 'G')
    if not unit and gigabytes > LARGEST_PLAUSIBLE_GB:
        raise argparse.ArgumentTypeError(
            f'{text} would be {text} GB: write {text}M, or --mem-mb {text}, if it is in MB'
        )
    return gigabytes


def memory_mb(text: str) -> float:
    """Return memory in GB; a bare number is in MB.

    Examples
    --------
    >>> memory_mb('16384')
    16.0
    """
    return _memory(text, 'M')[0]


def _memory(text: str, default_unit: str) -> tuple[float, str]:
    match = _MEMORY.fullmatch(text.strip())
    if not match or float(match['number']) == 0:
        raise argparse.ArgumentTypeError(
            f'expected memory such as 16, 16G or 16000M, got {text!r}'
        )
    unit = match['unit'].upper()
    return float(match['number']) * _GB_PER_UNIT[unit or default_unit], unit


def echoes(text: str) -> tuple[int, ...]:
    """Return echo numbers, from 1, of a list such as ``1-3`` or ``1,3,5``.

    Examples
    --------
    >>> echoes('1-3,5')
    (1, 2, 3, 5)
    """
    numbers = set()
    for part in text.split(','):
        match = re.fullmatch(r'(\d+)(?:-(\d+))?', part.strip())
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not 1 <= first <= last:
            raise argparse.ArgumentTypeError(
                f'expected echo numbers from 1, such as 1-3 or 1,3,5, got {text!r}'
            )
        numbers.update(range(first, last + 1))
    return tuple(sorted(numbers))


def phase_sign(text: str) -> str:
    """Return ``'auto'``, ``'+1'`` or ``'-1'``.

    Examples
    --------
    >>> phase_sign('1')
    '+1'
    """
    known = {'auto': 'auto', '1': '+1', '+1': '+1', '+': '+1', '-1': '-1', '-': '-1'}
    if text not in known:
        raise argparse.ArgumentTypeError(f'expected auto, +1 or -1, got {text!r}')
    return known[text]


def b0_direction(text: str) -> str:
    """Return the text of a field direction after checking that it is one."""
    try:
        parse_b0_dir(text)
    except SettingsError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def dataset_folder(text: str) -> str:
    """Return the absolute path of the dataset, which must be there (``E90``)."""
    path = Path(any_path(text))
    if not path.is_dir():
        message = f'there is no folder {path}{_mount_hint(path)}'
        raise argparse.ArgumentTypeError(refusal('E90', message, 'Check the path of the dataset.'))
    return str(path)


def existing_folder(text: str) -> str:
    """Return the absolute path of a folder that exists."""
    path = Path(any_path(text))
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f'there is no folder {path}{_mount_hint(path)}')
    return str(path)


def existing_file(text: str) -> str:
    """Return the absolute path of a file that exists."""
    path = Path(any_path(text))
    if not path.is_file():
        raise argparse.ArgumentTypeError(f'there is no file {path}{_mount_hint(path)}')
    return str(path)


def any_path(text: str) -> str:
    """Return the absolute path of something that need not exist."""
    if not text:
        # As of a variable of the shell that is not set; it would mean the current folder.
        raise argparse.ArgumentTypeError('expected a path, got nothing')
    return str(Path(text).expanduser().absolute())


def file_or_stdout(text: str) -> str:
    """Return the absolute path of a file to write, whose folder must exist, or ``-``."""
    if text == '-':
        return text
    path = Path(any_path(text))
    if path.is_dir() or not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f'{path} cannot be a file: check its folder')
    return str(path)


def mask(text: str) -> str:
    """Return ``'auto'``, ``'derivatives'`` or the absolute path of a mask."""
    return text if text in ('auto', 'derivatives') else existing_file(text)


def derivatives(text: str) -> tuple[str, str]:
    """Return name and absolute folder of ``NAME=PATH``, or of a path, named after its folder."""
    name, separator, path = text.partition('=')
    if not separator:
        name, path = Path(text).absolute().name, text
    return name, existing_folder(path)


def force(text: str) -> str:
    """Return a check to override; that results are replaced needs no force."""
    if text.lower() in ('overwrite', 'overwrites', 'recompute', 'rerun', 'reprocess'):
        raise argparse.ArgumentTypeError(
            f'{text!r} is not needed: results of the same participants are replaced. Beside '
            'results of others that were made by other methods, give --allow-mixed-settings'
        )
    return text


def atlas(text: str) -> str:
    """Return the name of an atlas, or the absolute path when something exists there."""
    path = Path(any_path(text))
    if path.exists():
        return str(path)
    if '/' in text or text.endswith(('.nii', '.nii.gz')):
        raise argparse.ArgumentTypeError(f'there is no atlas at {path}')
    return text


def parameter(text: str) -> tuple[str, object]:
    """Return key and value of ``KEY=VALUE``; the value is TOML, or else text.

    Examples
    --------
    >>> parameter('reg_weight=1e-4'), parameter('radii=[6, 4]'), parameter('kind=soft')
    (('reg_weight', 0.0001), ('radii', (6, 4)), ('kind', 'soft'))
    """
    import tomllib

    key, separator, value = text.partition('=')
    key = key.strip().replace('-', '_')
    if not separator or not key.isidentifier():
        raise argparse.ArgumentTypeError(f'expected KEY=VALUE, got {text!r}')
    try:
        parsed = tomllib.loads(f'value = {value}')['value']
    except tomllib.TOMLDecodeError:
        parsed = value
    return key, tuple(parsed) if isinstance(parsed, list) else parsed


def _mount_hint(path: Path) -> str:
    """Return a hint for container users: a folder that is not mounted does not exist there."""
    inside = any(Path(mark).exists() for mark in ('/.dockerenv', '/run/.containerenv'))
    inside = inside or Path('/.singularity.d').exists()
    return '; it must be mounted into the container' if inside else ''
