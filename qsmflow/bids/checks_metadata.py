"""Checks of what the sidecars say: echo times, field strength, and what may be passed on."""

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from qsmflow.bids.findings import Finding
from qsmflow.units import GAMMA_BAR, imaging_frequency

#: Acquisition fields that go into derivatives. Nothing else does: no names, no dates, no places.
PUBLIC_FIELDS = (
    *('Manufacturer', 'ManufacturersModelName', 'SoftwareVersions', 'MagneticFieldStrength'),
    *('ImagingFrequency', 'ReceiveCoilName', 'CoilCombinationMethod', 'PulseSequenceType'),
    *('ScanningSequence', 'SequenceVariant', 'ScanOptions', 'MRAcquisitionType', 'FlipAngle'),
    *('RepetitionTimeExcitation', 'RepetitionTime', 'PartialFourier', 'PartialFourierDirection'),
    *('ParallelReductionFactorInPlane', 'ParallelReductionFactorOutOfPlane'),
    *('ParallelAcquisitionTechnique', 'PixelBandwidth', 'DwellTime', 'EchoTrainLength'),
    *('NonlinearGradientCorrection', 'ImageType', 'ContrastBolusIngredient'),
)
_SCALAR_FIELDS = {
    *('MagneticFieldStrength', 'ImagingFrequency', 'FlipAngle', 'RepetitionTimeExcitation'),
    *('RepetitionTime', 'PartialFourier', 'PixelBandwidth', 'DwellTime', 'EchoTrainLength'),
}
#: Fields in use, in T; a value in mT or gauss is recognised by them.
KNOWN_FIELDS = (0.55, 1.0, 1.5, 2.89, 3.0, 4.0, 4.7, 6.98, 7.0, 9.4, 10.5, 11.7)
_LEADERS = ('phase', 'real', 'imag', 'complex', 'mag')
MAX_TE = 0.3  #: echo times of gradient echoes are shorter than this, in s
SAME_TE = 1e-5  #: echo times closer than this are one, in s
EVEN_SPACING = 1e-4  #: largest deviation from the mean echo spacing, in s (rule DTEUNI)
_ADD_TE = 'Write it, in seconds, into the JSON sidecar of each file.'


@dataclass(frozen=True)
class SourceFile:
    """One image of a series, with its name taken apart and its inherited metadata.

    Attributes
    ----------
    path : str
        Absolute path.
    relative : str
        Path below the dataset, with forward slashes.
    entities : dict of str
        Entities as written in the name.
    part : {'mag', 'phase', 'real', 'imag', 'complex'}
        What the image holds; a file without the entity is a magnitude, or complex.
    echo : int or None
        Echo index of the name.
    metadata : dict
        Sidecar fields after inheritance.
    """

    path: str
    relative: str
    entities: dict[str, str]
    part: str
    echo: int | None
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Echo:
    """The files of one echo, by part, and its time.

    Attributes
    ----------
    index : int
        Echo number of the name, or position in the fourth dimension counted from 1.
    files : dict of SourceFile
        Files by part.
    """

    index: int
    files: dict[str, SourceFile]

    @property
    def leader(self) -> SourceFile:
        """The file that messages name: the phase where there is one."""
        return next(self.files[p] for p in _LEADERS if p in self.files)


def as_number(value: Any) -> float | None:
    """Return a sidecar value as a finite number, or None.

    Examples
    --------
    >>> as_number(' 2.86 '), as_number([0.004]), as_number('n/a'), as_number(float('nan'))
    (2.86, 0.004, None, None)
    """
    if isinstance(value, (list, tuple)) and len(value) == 1:
        value = value[0]
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def echo_times(
    echoes: Sequence[Echo], descriptions: Mapping[str, str]
) -> tuple[tuple[float, ...] | None, list[Finding]]:
    """Return the echo time of each echo of a series with one file for each echo.

    A time is looked for in the sidecar (inheritance included), then in the image header. It is
    never guessed.

    Parameters
    ----------
    echoes : sequence of Echo
        Echoes in the order of their indices.
    descriptions : mapping of str
        Header texts (``TE=2.9;...``, in ms) by relative path.

    Returns
    -------
    te : tuple of float or None
        Echo times in s, in the order of ``echoes``; None if there is an error.
    findings : list of Finding
        ``B31`` to ``B37``.
    """
    findings: list[Finding] = []
    times = [_time_of(echo, descriptions, findings) for echo in echoes]
    if any(item.stops for item in findings):
        return None, findings
    return judge_times(times, [echo.leader.relative for echo in echoes], findings)


def volume_times(
    source: SourceFile, n_volumes: int
) -> tuple[tuple[float, ...] | None, list[Finding]]:
    """Return the echo times of a 4-D image whose volumes are echoes.

    Returns
    -------
    te : tuple of float or None
        Echo times in s, in the order of the volumes; None if there is an error.
    findings : list of Finding
        ``B39`` if the volumes are echoes, ``B40`` if they are not, and ``B32`` to ``B36``.
    """
    value, name = source.metadata.get('EchoTime'), source.relative
    if not isinstance(value, (list, tuple)):
        message = 'has several volumes but one EchoTime: repetitions, not echoes'
        evidence = {'volumes': n_volumes, 'EchoTime': value}
        remedy = (
            'If they are echoes, write EchoTime as an array with one value, in seconds, for each '
            'volume. If they are repetitions, store each as its own file with a run entity, or '
            'choose one with --volume-index.'
        )
        return None, [Finding('B40', 'ERROR', message, name, evidence, remedy)]
    if len(value) != n_volumes:
        message = 'has another number of volumes than of echo times'
        evidence = {'volumes': n_volumes, 'EchoTime': list(value)}
        remedy = 'Split it into one file for each echo (fslsplit), or complete EchoTime.'
        return None, [Finding('B39', 'ERROR', message, name, evidence, remedy)]
    findings = [Finding('B39', 'FIX', 'volumes are used as echoes', name, {'volumes': n_volumes})]
    numbers = [as_number(item) for item in value]
    bad = [item for item in numbers if item is None or item <= 0]
    if bad:
        evidence = {'EchoTime': [str(item) for item in value]}
        message = 'EchoTime holds values that are no times'
        return None, [Finding('B33', 'ERROR', message, name, evidence, _ADD_TE)]
    return judge_times(numbers, [name] * n_volumes, findings, strings=value)


def judge_times(
    times: Sequence[float],
    names: Sequence[str],
    findings: list[Finding],
    strings: Sequence[Any] = (),
) -> tuple[tuple[float, ...] | None, list[Finding]]:
    """Check unit, distinctness, order and spacing of echo times.

    Parameters
    ----------
    times : sequence of float
        Positive numbers as they stand in the sidecars.
    names : sequence of str
        File of each.
    findings : list of Finding
        Findings so far; those of this function follow them.
    strings : sequence, optional
        Values as written, to tell of text.

    Returns
    -------
    te : tuple of float or None
        Times in s, in the given order; None if there is an error.
    findings : list of Finding
        ``B32`` unit, ``B33`` text, ``B34`` order, ``B35`` duplicates, ``B36`` spacing.
    """
    evidence = {'EchoTime': list(times)}
    if any(isinstance(item, str) for item in strings):
        findings.append(Finding('B33', 'FIX', 'EchoTime is text', names[0], evidence))
    if all(1 < t < 1000 * MAX_TE for t in times):
        times = [t / 1000 for t in times]
        message = 'EchoTime is in ms and was divided by 1000'
        remedy = 'Write EchoTime in seconds into the sidecars.'
        findings.append(Finding('B32', 'FIX', message, names[0], evidence, remedy))
    elif any(t > MAX_TE for t in times):
        message = 'EchoTime is not in seconds, and its unit is not clear'
        finding = Finding('B32', 'ERROR', message, names[0], evidence, _ADD_TE)
        return None, [*findings, finding]
    ordered = sorted(times)
    if any(b - a < SAME_TE for a, b in itertools.pairwise(ordered)):
        message = 'several echoes have the same EchoTime'
        shown = {name.rpartition('/')[2]: t for name, t in zip(names, times, strict=True)}
        shown = shown if len(shown) == len(times) else evidence
        remedy = (
            'Look up the true echo times in the protocol and write them into the sidecars; '
            'an inherited sidecar must not set one EchoTime for all echoes.'
        )
        finding = Finding('B35', 'ERROR', message, names[0], shown, remedy)
        return None, [*findings, finding]
    if list(times) != ordered:
        message = 'echoes are used in the order of their times, not of their numbers'
        findings.append(Finding('B34', 'FIX', message, names[0], {'te_s': list(times)}))
    steps = [b - a for a, b in itertools.pairwise(ordered)]
    mean = sum(steps) / len(steps) if steps else 0.0
    if steps and max(abs(step - mean) for step in steps) > EVEN_SPACING:
        message = 'uneven echo spacing: methods that need even spacing are not used'
        shown = {'spacing_ms': [round(1000 * step, 4) for step in steps]}
        findings.append(Finding('B36', 'FIX', message, names[0], shown))
    return tuple(float(t) for t in times), findings


def check_echo_numbers(echoes: Sequence[Echo]) -> list[Finding]:
    """Report gaps in the echo numbers, and numbers that start at 0 (``B37``).

    A series whose only echo has no number in its name is fine.
    """
    numbers = [echo.index for echo in echoes]
    name = echoes[0].leader.relative
    evidence = {'echo': numbers}
    if numbers[0] == 0 and numbers == list(range(len(numbers))):
        return [Finding('B37', 'INFO', 'echo numbers start at 0', name, evidence)]
    if numbers == list(range(1, len(numbers) + 1)):
        return []
    message = 'echo numbers have a gap; the echoes that are there are used'
    remedy = 'If a file is missing, copy it and run again.'
    return [Finding('B37', 'WARN', message, name, evidence, remedy)]


def main_field(
    sources: Sequence[SourceFile], given: float | None = None
) -> tuple[float | None, float | None, list[Finding]]:
    """Return field strength and imaging frequency.

    Parameters
    ----------
    sources : sequence of SourceFile
        All images of the series.
    given : float, optional
        Field strength of the command line, in T; used if no sidecar has one, and reported if it
        contradicts them.

    Returns
    -------
    field_strength : float or None
        In T; None if there is an error.
    f0 : float or None
        Imaging frequency, in MHz.
    findings : list of Finding
        ``B43`` missing or contradictory, ``B44`` unit.
    """
    name = sources[0].relative
    findings: list[Finding] = []
    values = _distinct(as_number(s.metadata.get('MagneticFieldStrength')) for s in sources)
    frequencies = _distinct(_frequency(s.metadata.get('ImagingFrequency')) for s in sources)
    if len(values) > 1:
        evidence = {'MagneticFieldStrength': values}
        message, remedy = 'files of one series differ in field strength', 'Correct the sidecars.'
        return None, None, [Finding('B43', 'ERROR', message, name, evidence, remedy)]
    frequency = frequencies[0] if frequencies else None
    if values:
        strength = _in_tesla(values[0], name, findings)
    elif given is not None:
        strength = float(given)
        message = 'MagneticFieldStrength is missing; the given value is used'
        findings.append(Finding('B43', 'FIX', message, name, {'field_T': strength}))
    elif frequency is not None:
        strength = round(frequency / GAMMA_BAR, 4)
        message = 'MagneticFieldStrength is missing; it was computed from ImagingFrequency'
        evidence = {'ImagingFrequency_MHz': frequency, 'field_T': strength}
        findings.append(Finding('B43', 'FIX', message, name, evidence))
    else:
        message = 'neither MagneticFieldStrength nor ImagingFrequency is in the sidecar'
        remedy = 'Add MagneticFieldStrength, in T, to the sidecar, or give --field-strength.'
        evidence = {'files': len(sources)}
        findings.append(Finding('B43', 'ERROR', message, name, evidence, remedy))
        return None, None, findings
    if strength is None:
        return None, None, findings
    if given is not None and abs(given - strength) > 0.02 * strength:
        message = 'the field strength of the sidecar is used, not the given one'
        evidence = {'sidecar_T': strength, 'given_T': float(given)}
        remedy = 'Correct the sidecar, or leave out --field-strength.'
        findings.append(Finding('B43', 'WARN', message, name, evidence, remedy))
    f0 = imaging_frequency(strength)
    if frequency is not None and abs(frequency - f0) < 0.05 * f0:
        f0 = frequency
    elif frequency is not None:
        message = 'ImagingFrequency does not fit the field strength and is not used'
        evidence = {'ImagingFrequency_MHz': frequency, 'expected_MHz': round(f0, 3)}
        remedy = 'Check both in the sidecar: the susceptibility scales with the field strength.'
        findings.append(Finding('B43', 'WARN', message, name, evidence, remedy))
    return strength, float(f0), findings


def public_metadata(sources: Sequence[SourceFile]) -> dict[str, Any]:
    """Return the acquisition fields that may be passed on and that are equal in all files.

    Parameters
    ----------
    sources : sequence of SourceFile
        All images of the series; ``ImageType`` differs between parts and comes from the first.

    Returns
    -------
    dict
        Whitelisted fields; numbers written as text become numbers.
    """
    metadata = {}
    for key in PUBLIC_FIELDS:
        values = [s.metadata[key] for s in sources if s.metadata.get(key) is not None]
        if key in _SCALAR_FIELDS:
            values = [number for number in map(as_number, values) if number is not None]
        if values and (key == 'ImageType' or all(value == values[0] for value in values)):
            metadata[key] = values[0]
    return metadata


def _time_of(echo: Echo, descriptions: Mapping[str, str], findings: list[Finding]) -> float:
    """Return the time of one echo as it is written; NaN, with a finding, where there is none."""
    found = {}
    for part in _LEADERS:
        if part in echo.files and echo.files[part].metadata.get('EchoTime') is not None:
            found[part] = echo.files[part].metadata['EchoTime']
    name = echo.leader.relative
    if not found:
        return _time_from_header(echo, descriptions, findings)
    numbers = {part: as_number(value) for part, value in found.items()}
    bad = [part for part, number in numbers.items() if number is None or number <= 0]
    if bad:
        evidence = {'EchoTime': str(found[bad[0]])}
        message, file = 'EchoTime is no time', echo.files[bad[0]].relative
        findings.append(Finding('B33', 'ERROR', message, file, evidence, _ADD_TE))
        return math.nan
    part, number = next(iter(numbers.items()))
    if not isinstance(found[part], (int, float)):
        evidence = {'EchoTime': str(found[part])}
        message = 'EchoTime is not written as a number, and was read as one'
        file = echo.files[part].relative
        findings.append(Finding('B33', 'FIX', message, file, evidence))
    if echo.leader.part != part:
        message = f'has no EchoTime; that of the {part} image is used'
        findings.append(Finding('B31', 'FIX', message, name, {'EchoTime': number}))
    if any(abs(other - number) > SAME_TE * max(1, number) for other in numbers.values()):
        message = 'the parts of one echo have different EchoTimes'
        remedy = 'Correct the sidecar that is wrong.'
        findings.append(Finding('B35', 'ERROR', message, name, dict(numbers), remedy))
    return number


def _time_from_header(
    echo: Echo, descriptions: Mapping[str, str], findings: list[Finding]
) -> float:
    name = echo.leader.relative
    for source in echo.files.values():
        match = re.search(r'\bTE=(\d+(?:\.\d+)?)', descriptions.get(source.relative, ''))
        if match and float(match[1]) > 0:
            seconds = float(match[1]) / 1000
            message = 'has no EchoTime; the one in the image header is used'
            evidence = {'header': match[0], 'EchoTime': seconds}
            findings.append(Finding('B31', 'FIX', message, name, evidence))
            return seconds
    message = 'has no EchoTime in its sidecar, an inherited one or the image header'
    texts = sorted({descriptions.get(s.relative, '') for s in echo.files.values()})
    evidence = {'header': texts}
    findings.append(Finding('B31', 'ERROR', message, name, evidence, _ADD_TE))
    return math.nan


def _in_tesla(value: float, name: str, findings: list[Finding]) -> float | None:
    """Return a field strength in T, from T, mT or gauss."""
    evidence = {'MagneticFieldStrength': value}
    if 0.01 < value <= 25:
        return value
    for divisor, unit in ((1e3, 'mT'), (1e4, 'gauss')):
        tesla = value / divisor
        if any(abs(tesla - known) <= 0.03 * known for known in KNOWN_FIELDS):
            message = f'MagneticFieldStrength is in {unit} and was converted'
            findings.append(Finding('B44', 'FIX', message, name, {**evidence, 'field_T': tesla}))
            return tesla
    message = 'MagneticFieldStrength is no field of a scanner in T, mT or gauss'
    remedy = 'Write it in T into the sidecar.'
    findings.append(Finding('B44', 'ERROR', message, name, evidence, remedy))
    return None


def _frequency(value: Any) -> float | None:
    """Return an imaging frequency in MHz; some sidecars have it in Hz."""
    number = as_number(value)
    if number is None or number <= 0:
        return None
    return number / 1e6 if number > 1e5 else number


def _distinct(values) -> list[float]:
    return sorted({value for value in values if value is not None})
