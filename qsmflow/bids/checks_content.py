"""Checks of the voxel values of a series: what they mean, and whether they can be used."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from qsmflow.algorithms.phase import PhaseScaling, identify_scaling, parse_scaling
from qsmflow.bids.checks_files import ImageFacts
from qsmflow.bids.checks_metadata import Echo, SourceFile, as_number
from qsmflow.bids.checks_phase import image_type
from qsmflow.bids.findings import Finding
from qsmflow.io import load_volume

MAX_NONFINITE = 1e-3  #: fraction of the object's voxels that may be NaN or infinite
MANY_ZEROS = 0.2  #: fraction of exact zeros in a phase that shows masked or defaced data
FEW_RADIANS = math.pi  #: a range below this may come from a header scaling that counts twice
NEARLY_A_TURN = 0.9 * 2 * math.pi  #: less than this does not span 2 pi
#: Row of the catalogue that each rule of ``identify_scaling`` handles.
_SCALING_ROWS = {
    'rad-2pi': ('A07', 'phase from 0 to 2 pi'),
    'siemens-unsigned': ('A01', 'phase from 0 to 4096'),
    'siemens-signed': ('A02', 'phase from -4096 to 4096'),
    'mrad': ('A05', 'phase in mrad'),
    'philips-display': ('A05', 'phase from -500 to 500'),
    'degrees': ('A06', 'phase in degrees'),
    'degrees-360': ('A06', 'phase in degrees'),
}
_SCALE_REMEDY = (
    'Look up how the scanner exports phase and give --phase-scale (rad, a named rule, or the '
    'factor to radians). The range of the data is not stretched to 2 pi: that would falsify the '
    'susceptibility of data without wraps.'
)


def check_values(fact: ImageFacts, source: SourceFile) -> list[Finding]:
    """Check one image for empty volumes (``A24``) and masked phase (``A25``)."""
    findings = []
    for volume in fact.constant:
        message = 'all voxels are equal: the reconstruction failed or the image was blanked'
        evidence = {'volume': volume + 1, 'echo': source.echo, 'value': fact.minimum}
        remedy = 'Export the series again, or leave this echo out with --echoes.'
        findings.append(Finding('A24', 'ERROR', message, source.relative, evidence, remedy))
    if source.part == 'phase' and fact.zero_fraction > MANY_ZEROS and not fact.constant:
        message = 'much of the phase is exactly zero: masked, brain-extracted or defaced data'
        evidence = {'zero_fraction': round(fact.zero_fraction, 3)}
        findings.append(Finding('A25', 'INFO', message, source.relative, evidence))
    return findings


def check_nonfinite(echoes: Sequence[Echo], facts: Mapping[str, ImageFacts]) -> list[Finding]:
    """Judge NaN and infinite voxels (``A23``): few, or outside the object, are set to zero.

    The object is where the first magnitude exceeds a tenth of its 99th percentile; without a
    magnitude, the whole volume counts.

    Parameters
    ----------
    echoes : sequence of Echo
        Echoes of the series.
    facts : mapping of ImageFacts
        Measured numbers by relative path.
    """
    affected = [s for s in _unique_files(echoes) if facts[s.relative].nonfinite]
    if not affected:
        return []
    inside = _object(echoes)
    findings = []
    for source in affected:
        bad = ~np.isfinite(load_volume(source.path).data)
        bad = bad.any(axis=3) if bad.ndim == 4 else bad
        region = inside if inside is not None else np.ones(bad.shape, bool)
        fraction = float(np.count_nonzero(bad & region) / max(np.count_nonzero(region), 1))
        evidence = {'voxels': facts[source.relative].nonfinite, 'fraction_in_object': fraction}
        if fraction > MAX_NONFINITE:
            message = 'has NaN or infinite voxels inside the object'
            remedy = 'Export the series again; these voxels have no value that could be used.'
            level = 'ERROR'
        else:
            message, remedy, level = 'NaN or infinite voxels are set to zero', '', 'FIX'
        findings.append(Finding('A23', level, message, source.relative, evidence, remedy))
    return findings


def check_image_type(sources: Sequence[SourceFile]) -> list[Finding]:
    """Check what the sidecars of phase images say of their kind.

    Returns
    -------
    list of Finding
        ``A16`` real or imaginary image named phase, ``A27`` gradient-nonlinearity correction.
    """
    findings = []
    phases = [source for source in sources if source.part == 'phase']
    for source in phases:
        kinds = image_type(source)
        if kinds & {'REAL', 'IMAGINARY'} and not kinds & {'P', 'PHASE'}:
            message = 'is named phase, but its sidecar says real or imaginary'
            remedy = 'Rename it to part-real or part-imag.'
            evidence = {'ImageType': sorted(kinds)}
            findings.append(Finding('A16', 'ERROR', message, source.relative, evidence, remedy))
    for source in phases[:1]:
        kinds = image_type(source)
        corrected = source.metadata.get('NonlinearGradientCorrection') is True
        if corrected or kinds & {'DIS2D', 'DIS3D'}:
            message = 'phase was corrected for gradient nonlinearity: wraps were interpolated'
            remedy = 'Prefer the uncorrected (ND) series if there is one.'
            evidence = {'ImageType': sorted(kinds), 'NonlinearGradientCorrection': corrected}
            findings.append(Finding('A27', 'WARN', message, source.relative, evidence, remedy))
    return findings


def determine_scaling(
    phases: Sequence[SourceFile], facts: Mapping[str, ImageFacts], phase_scale: str = 'auto'
) -> tuple[PhaseScaling | None, list[Finding]]:
    """Determine once, for all echoes, how stored values become radians.

    Parameters
    ----------
    phases : sequence of SourceFile
        Phase images of the series.
    facts : mapping of ImageFacts
        Measured numbers by relative path.
    phase_scale : str, optional
        ``'auto'``, or what the user asks for (see ``parse_scaling``).

    Returns
    -------
    scaling : PhaseScaling or None
        Rule with the range over all echoes; None if no known rule fits.
    findings : list of Finding
        ``A01`` to ``A08`` the rule, ``A09`` none fits, ``A10`` contradiction of ``Units``,
        ``SAT`` radians that do not span 2 pi.
    """
    used = [facts[source.relative] for source in phases]
    low = min(fact.minimum for fact in used)
    high = max(fact.maximum for fact in used)
    integer = all(fact.integer for fact in used)
    units = phases[0].metadata.get('Units')
    units = units if isinstance(units, str) else None
    given = None if phase_scale == 'auto' else parse_scaling(phase_scale)
    if given is not None:
        return dataclasses.replace(given, raw_min=low, raw_max=high), []
    scaling = identify_scaling(low, high, integer=integer, units=units)
    name = phases[0].relative
    findings = []
    if scaling is None:
        scaling = _without_flag(used, units)
    if scaling is None:
        scaling, findings = _by_philips_fields(phases, used, units)
        if scaling is not None:
            scaling = dataclasses.replace(scaling, raw_min=low, raw_max=high)
            return scaling, findings + _check_units(phases, scaling.rule)
    if scaling is None or high - low < FEW_RADIANS:
        stored, note = _without_header_scaling(used, units)
        if stored is not None:
            scaling = dataclasses.replace(stored, raw_min=low, raw_max=high)
            findings = [Finding('A03', 'FIX', note, name, {'range': [low, high]})]
            return scaling, findings + _check_units(phases, scaling.rule)
    if scaling is None:
        evidence = {'minimum': low, 'maximum': high, 'Units': units, 'integer': integer}
        message = 'the range of the phase fits no known scaling'
        return None, [Finding('A09', 'ERROR', message, name, evidence, _SCALE_REMEDY)]
    findings = _scaling_used(scaling, name, used) + _check_each_range(phases, used, scaling)
    return scaling, findings + _check_units(phases, scaling.rule)


def _check_each_range(
    phases: Sequence[SourceFile], used: Sequence[ImageFacts], scaling: PhaseScaling
) -> list[Finding]:
    """Check whether one file is scaled by its header otherwise than the rest (``SAT``).

    Early echoes need not span 2 pi. But if one does not, and its header scales it otherwise than
    those that do, the scaling is the likelier reason.
    """
    turns = [scaling.slope * (fact.maximum - fact.minimum) / (2 * math.pi) for fact in used]
    slopes = [fact.slope if fact.slope and math.isfinite(fact.slope) else 1.0 for fact in used]
    full = [slope for slope, turn in zip(slopes, turns, strict=True) if turn > 0.9]
    findings = []
    for source, slope, turn in zip(phases, slopes, turns, strict=True):
        shared = any(math.isclose(slope, other, rel_tol=1e-5) for other in full)
        if turn <= 0.9 and full and not shared:
            evidence = {'scl_slope': slope, 'others': full[0], 'turns': round(turn, 3)}
            message = 'the phase of this file does not span 2 pi, and its header scales it alone'
            remedy = 'Convert the series again with one scaling for all echoes.'
            findings.append(Finding('SAT', 'WARN', message, source.relative, evidence, remedy))
    return findings


def _without_flag(facts: Sequence[ImageFacts], units: str | None) -> PhaseScaling | None:
    """Find the rule of the values without those that mark the background."""
    flags = {fact.flag for fact in facts if fact.flagged}
    if len(flags) != 1:
        return None
    low, high = (f(fact.inner[i] for fact in facts) for i, f in ((0, min), (1, max)))
    integer = all(fact.integer for fact in facts)
    scaling = identify_scaling(low, high, integer=integer, units=units)
    return None if scaling is None else dataclasses.replace(scaling, flag=flags.pop())


def _scaling_used(scaling: PhaseScaling, name: str, facts: Sequence[ImageFacts]) -> list[Finding]:
    """Name the row of the catalogue that a rule handles; none for 2 pi in radians."""
    low, high = scaling.raw_min, scaling.raw_max
    evidence = {'minimum': low, 'maximum': high, 'rule': scaling.rule}
    flagged = sum(fact.flagged for fact in facts)
    if math.isfinite(scaling.flag) or (scaling.rule == 'siemens-signed' and low < -4096):
        flag = scaling.flag if math.isfinite(scaling.flag) else low
        evidence |= {'slope': scaling.slope, 'flag': flag, 'voxels': flagged}
        message = 'the phase was scaled to radians; a value that marks the background became 0'
        remedy = 'Check that the marked voxels lie outside the head.'
        return [Finding('A08', 'FIX', message, name, evidence, remedy)]
    if scaling.rule == 'rad':
        if high - low > NEARLY_A_TURN:
            return []
        message = 'the phase does not span 2 pi; it is taken as radians because Units says so'
        remedy = 'If the map is too weak or too strong, give --phase-scale.'
        return [Finding('SAT', 'WARN', message, name, evidence, remedy)]
    code, what = _SCALING_ROWS.get(scaling.rule, ('A05', 'phase in units of the vendor'))
    evidence |= {'slope': scaling.slope, 'intercept': scaling.intercept}
    return [Finding(code, 'FIX', f'{what} was scaled to radians', name, evidence)]


def _without_header_scaling(
    facts: Sequence[ImageFacts], units: str | None
) -> tuple[PhaseScaling | None, str]:
    """Try the stored values: a header whose scaling was already applied counts twice.

    The rule returned holds for the values with the header's scaling, as they are loaded.
    """
    pairs = {(fact.slope, fact.intercept) for fact in facts}
    slope, intercept = next(iter(pairs))
    if len(pairs) > 1 or not math.isfinite(slope) or slope in (0.0, 1.0):
        return None, ''
    ends = [(end - intercept) / slope for fact in facts for end in (fact.minimum, fact.maximum)]
    integer = all(fact.integer for fact in facts)
    scaling = identify_scaling(min(ends), max(ends), integer=integer, units=units)
    if scaling is None:
        return None, ''
    note = 'only the values without the scaling of the header make sense; it is undone'
    combined = dataclasses.replace(
        scaling,
        slope=scaling.slope / slope,
        intercept=scaling.intercept - scaling.slope * intercept / slope,
    )
    return combined, note


def _by_philips_fields(
    phases: Sequence[SourceFile], facts: Sequence[ImageFacts], units: str | None
) -> tuple[PhaseScaling | None, list[Finding]]:
    """Try the scalings that the sidecar of a Philips image names, on the values as stored."""
    pairs = {(fact.slope, fact.intercept) for fact in facts}
    slope, intercept = next(iter(pairs))
    if len(pairs) > 1 or not math.isfinite(slope) or slope == 0:
        return None, []
    ends = [(end - intercept) / slope for fact in facts for end in (fact.minimum, fact.maximum)]
    for kind in ('RWV', 'Rescale'):
        keys = f'Philips{kind}Slope', f'Philips{kind}Intercept'
        a, b = (as_number(phases[0].metadata.get(key)) for key in keys)
        if not a or b is None:
            continue
        scaling = identify_scaling(a * min(ends) + b, a * max(ends) + b, units=units)
        if scaling is None:
            continue
        factor = scaling.slope * a / slope
        combined = dataclasses.replace(
            scaling,
            slope=factor,
            intercept=scaling.intercept + scaling.slope * b - factor * intercept,
        )
        evidence = {keys[0]: a, keys[1]: b, 'slope': factor, 'intercept': combined.intercept}
        message = f'the scaling of the sidecar ({keys[0]}) makes radians of the stored values'
        return combined, [Finding('A05', 'FIX', message, phases[0].relative, evidence)]
    return None, []


def _check_units(phases: Sequence[SourceFile], rule: str) -> list[Finding]:
    """Compare ``Units`` of the sidecar with what the data say (``A10``)."""
    units = phases[0].metadata.get('Units')
    name = phases[0].relative
    in_radians = rule in ('rad', 'rad-2pi')
    evidence = {'Units': units, 'rule': rule}
    if units not in ('rad', 'arbitrary'):
        message = 'Units is missing or unknown; the unit was found from the data'
        remedy = 'BIDS requires Units, "rad" or "arbitrary", in the sidecar of a phase image.'
        return [Finding('A10', 'WARN', message, name, evidence, remedy)]
    if units == 'rad' and not in_radians:
        message = 'Units says rad, but the data are not in radians; the data are believed'
        return [Finding('A10', 'FIX', message, name, evidence, 'Correct Units to "arbitrary".')]
    if units == 'arbitrary' and in_radians:
        message = 'Units says arbitrary, but the data are in radians; the data are believed'
        return [Finding('A10', 'FIX', message, name, evidence, 'Correct Units to "rad".')]
    return []


def _object(echoes: Sequence[Echo]) -> np.ndarray | None:
    """Return where the first magnitude shows an object."""
    first = next((echo.files['mag'] for echo in echoes if 'mag' in echo.files), None)
    if first is None:
        return None
    data = load_volume(first.path).data
    data = np.nan_to_num(data[..., 0] if data.ndim == 4 else data, posinf=0, neginf=0)
    return data > 0.1 * np.percentile(data, 99)


def _unique_files(echoes: Sequence[Echo]) -> list[SourceFile]:
    files = {s.relative: s for echo in echoes for s in echo.files.values()}
    return list(files.values())
