"""Checks of single settings, whose message says what to write instead."""

import difflib
from collections.abc import Iterable

#: Directions of the main field that have a name, in array axes.
B0_AXES = {'x': (1.0, 0.0, 0.0), 'y': (0.0, 1.0, 0.0), 'z': (0.0, 0.0, 1.0)}


class SettingsError(ValueError):
    """A setting has an unknown name, a wrong type or a value out of range.

    Attributes
    ----------
    exit_code : int
        Exit status of the command line: 2, a usage error.
    """

    exit_code = 2


def parse_b0_dir(text: str) -> tuple[float, float, float] | None:
    """Return the unit vector that a direction of the main field stands for.

    Parameters
    ----------
    text : str
        ``'affine'``, ``'x'``, ``'y'``, ``'z'``, or three comma-separated numbers.

    Returns
    -------
    tuple of float or None
        Unit vector in array axes; ``None`` for ``'affine'``.

    Raises
    ------
    SettingsError
        If the text is none of these, or the vector has no length.

    Examples
    --------
    >>> parse_b0_dir('0,0,2')
    (0.0, 0.0, 1.0)
    """
    if text == 'affine':
        return None
    if text in B0_AXES:
        return B0_AXES[text]
    try:
        vector = tuple(float(part) for part in text.split(','))
    except ValueError:
        vector = ()
    length = sum(component**2 for component in vector) ** 0.5
    if len(vector) != 3 or not 0 < length < float('inf'):
        raise SettingsError(
            "the direction of the main field is 'affine', 'x', 'y', 'z' or three numbers such as "
            f"'0,0.1,0.99'; got {text!r}."
        )
    return tuple(component / length for component in vector)


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint at the known name that is most like ``name``, or at all of them.

    Examples
    --------
    >>> nearest('inversoin', ['inversion', 'field'])
    " Did you mean 'inversion'?"
    """
    known = list(known)
    close = difflib.get_close_matches(str(name), known, n=1)
    return f' Did you mean {close[0]!r}?' if close else f' Known: {", ".join(known)}.'


def require_known(name: str, known: list[str], where: str) -> None:
    """Refuse a name that ``where`` does not have."""
    if name not in known:
        raise SettingsError(f'{name!r} is not part of {where}.{nearest(name, known)}')


def require_one_of(name: str, value: str, choices: Iterable[str]) -> None:
    """Refuse a value of the setting ``name`` that is none of its choices."""
    if value not in choices:
        raise SettingsError(f'{name} cannot be {value!r}.{nearest(value, choices)}')
