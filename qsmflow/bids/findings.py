"""What the checks of a dataset report: findings, each with a code, evidence and a remedy."""

import difflib
import errno
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

#: Levels, from the worst. FATAL: nothing starts. ERROR: this acquisition is left out, others run.
#: FIX: handled, and told in log, sidecar and report. WARN: runs, result needs a look. INFO: fact.
LEVELS = ('FATAL', 'ERROR', 'FIX', 'WARN', 'INFO')

EXIT_USAGE = 2  #: the command line asks for something that is not there
EXIT_DATA = 65  #: the dataset holds nothing that can be processed
EXIT_OUTPUT = 73  #: output or work folder cannot be written


@dataclass(frozen=True)
class Finding:
    """One fact about the input that its user should know.

    Attributes
    ----------
    code : str
        Stable name of the check: a letter and a row of the catalogue of defects (``'B31'``), or
        the name of a protocol rule (``'TELAST'``).
    level : {'FATAL', 'ERROR', 'FIX', 'WARN', 'INFO'}
        What it means for the run; see ``LEVELS``.
    message : str
        What was expected and what arrived. Names the file.
    file : str
        The file, relative to the dataset where possible; empty for the dataset itself.
    evidence : dict
        Measured numbers and values, of types that JSON knows; numbers that are not finite, which
        it does not, become text.
    remedy : str
        The next step for the user.

    Raises
    ------
    ValueError
        If ``level`` is unknown, or if a FATAL or ERROR finding has no remedy.

    Examples
    --------
    >>> print(Finding('B31', 'ERROR', 'no EchoTime', 'sub-01_echo-2_MEGRE.nii.gz',
    ...               remedy='Add it, in seconds, to the JSON sidecar.'))
    [ERROR B31] sub-01_echo-2_MEGRE.nii.gz: no EchoTime. Add it, in seconds, to the JSON sidecar.
    """

    code: str
    level: str
    message: str
    file: str = ''
    evidence: dict[str, Any] = field(default_factory=dict)
    remedy: str = ''

    def __post_init__(self) -> None:
        if self.level not in LEVELS:
            raise ValueError(f'level must be one of {LEVELS}; got {self.level!r}')
        if self.stops and not self.remedy:
            raise ValueError(f'finding {self.code} stops a series and must name a remedy')
        object.__setattr__(self, 'evidence', _finite(self.evidence))

    def __str__(self) -> str:
        where = f'{self.file}: ' if self.file else ''
        facts = ', '.join(f'{key}={_short(value)}' for key, value in self.evidence.items())
        text = f'{where}{self.message.rstrip(".")}{f" ({facts})" if facts else ""}.'
        return f'[{self.level} {self.code}] {text} {self.remedy}'.rstrip()

    @property
    def stops(self) -> bool:
        """Whether the acquisition, or the run, cannot go on."""
        return self.level in ('FATAL', 'ERROR')

    def as_dict(self) -> dict[str, Any]:
        """Return the finding as a dictionary for JSON."""
        return asdict(self)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(one) for one in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


class DatasetError(Exception):
    """The run cannot start.

    Attributes
    ----------
    findings : tuple of Finding
        All findings, the stopping ones first.
    exit_code : int
        2 for a wrong request, 65 for a dataset without usable data, 73 for an output folder that
        cannot be written.
    """

    def __init__(self, findings: Iterable[Finding], exit_code: int = EXIT_DATA) -> None:
        self.findings = tuple(sorted(findings, key=lambda item: LEVELS.index(item.level)))
        self.exit_code = exit_code
        super().__init__('\n'.join(str(item) for item in self.findings if item.stops))

    def __reduce__(self) -> tuple:
        return type(self), (self.findings, self.exit_code)


def unreadable(error: OSError, name: str) -> Finding:
    """Say why a file cannot be read (``C99``).

    Examples
    --------
    >>> unreadable(IsADirectoryError(21, 'Is a directory'), 'a.json').remedy
    'Put the file itself in the place of this folder.'
    """
    remedy = 'Give the user of this run the right to read it.'
    if error.errno == errno.EISDIR:
        remedy = 'Put the file itself in the place of this folder.'
    evidence = {'errno': errno.errorcode.get(error.errno, 'unknown')}
    return Finding('C99', 'ERROR', f'cannot be read: {error.strerror}', name, evidence, remedy)


def stopping(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return the findings that end a series or a run."""
    return tuple(item for item in findings if item.stops)


def suggestion(label: str, available: Iterable[str], what: str) -> str:
    """Return a sentence that names close matches, else all labels there are.

    Examples
    --------
    >>> suggestion('O1', ['01', '02'], 'participant')
    'Did you mean 01? Available participant labels: 01, 02.'
    """
    available = sorted(available)
    close = difflib.get_close_matches(label, available, n=3, cutoff=0.4)
    hint = f'Did you mean {" or ".join(close)}? ' if close else ''
    shown = ', '.join(available[:20]) + (', ...' if len(available) > 20 else '')
    return f'{hint}Available {what} labels: {shown or "none"}.'


def _short(value: Any) -> str:
    """Write a value of the evidence briefly."""
    if isinstance(value, float):
        return f'{value:.6g}'
    if isinstance(value, (list, tuple)):
        shown = [_short(item) for item in value[:8]]
        return '[' + ', '.join(shown) + (', ...' if len(value) > 8 else '') + ']'
    if isinstance(value, dict):
        return '{' + ', '.join(f'{key}: {_short(item)}' for key, item in value.items()) + '}'
    return str(value)
