"""Judge the protocol of an acquisition.

The rules follow the consensus recommendations [1]_ and a review of clinical practice [2]_.
None of them stops a run.

References
----------
.. [1] Bilgic B, et al. (QSM Consensus Organization Committee). Magn Reson Med 2024.
   doi:10.1002/mrm.30006
.. [2] Harada T, et al. RadioGraphics 2022. doi:10.1148/rg.210054
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from qsmflow.bids.checks_metadata import EVEN_SPACING, as_number
from qsmflow.bids.findings import Finding

_CONSENSUS = 'doi:10.1002/mrm.30006'
_REVIEW = 'doi:10.1148/rg.210054'
_PRACTICE = 'default of this software'
#: Window of the last echo time for the brain at 3 T, in ms; T2* of the tissue sets it.
TE_LAST_3T = (30.0, 40.0)
#: What to do about a rule that is not kept. The scan at hand is processed in any case.
_REMEDIES = {
    'ACQ3D': 'Acquire in 3-D from now on; if this was 3-D, add MRAcquisitionType to the sidecar.',
    'ECHON': 'Acquire five or more echoes from now on.',
    'TELAST': 'Compare only with scans of like echo times; choose other ones from now on.',
    'DTE': 'Look at the total field for steps; space echoes more closely from now on.',
    'DTEUNI': 'Nothing, unless R2* by ARLO is wanted: that takes even spacing.',
    'SLTHK': 'Compare only with scans of like voxels; acquire thinner slices from now on.',
    'ISO': 'Compare only with scans of like voxels and orientation; acquire cubes from now on.',
    'PF': 'Look at the field next to sinuses and veins; acquire all of k-space from now on.',
    'FIELD': 'Check MagneticFieldStrength; compare only with scans at the same field.',
}


@dataclass(frozen=True)
class ProtocolRule:
    """One rule applied to one series.

    Attributes
    ----------
    code : str
        Name of the rule, such as ``'TELAST'``.
    level : {'OK', 'INFO', 'WARN'}
        The verdict; OK if the rule is kept.
    value : object
        What was found.
    limit : str
        What the rule asks for, with the unit.
    message : str
        What the deviation means.
    source : str
        Where the rule comes from.
    """

    code: str
    level: str
    value: Any
    limit: str
    message: str
    source: str

    def as_dict(self) -> dict[str, Any]:
        """Return the rule as a dictionary for JSON."""
        return asdict(self)


def protocol_rules(
    te: Sequence[float],
    voxel_size: Sequence[float],
    field_strength: float,
    metadata: Mapping[str, Any],
) -> tuple[ProtocolRule, ...]:
    """Apply all protocol rules to one series.

    Parameters
    ----------
    te : sequence of float
        Echo times in s, ascending.
    voxel_size : sequence of float
        Edge lengths in mm. The slice axis is not in the header: the longest edge is judged.
    field_strength : float
        In T.
    metadata : mapping
        Sidecar fields.

    Returns
    -------
    tuple of ProtocolRule
        One for each of ``ACQ3D ECHON TELAST DTE DTEUNI SLTHK ISO PF FIELD``; the rules of the
        echo spacing only where there are enough echoes.

    Examples
    --------
    >>> rules = protocol_rules([0.02], (1, 1, 1), 3.0, {'MRAcquisitionType': '3D'})
    >>> [rule.code for rule in rules if rule.level == 'WARN']
    ['ECHON', 'TELAST']
    """
    rules = [_acquisition(metadata), _echo_number(len(te)), _last_echo(te, field_strength)]
    rules += _spacing(te)
    rules += _voxels(voxel_size)
    rules += [_partial_fourier(metadata), _field(field_strength)]
    return tuple(rules)


def protocol_findings(rules: Sequence[ProtocolRule], name: str) -> list[Finding]:
    """Turn the rules that are not kept into findings on a file."""
    return [
        Finding(
            rule.code,
            rule.level,
            rule.message,
            name,
            {'value': rule.value, 'limit': rule.limit, 'source': rule.source},
            _REMEDIES[rule.code],
        )
        for rule in rules
        if rule.level != 'OK'
    ]


def _acquisition(metadata: Mapping[str, Any]) -> ProtocolRule:
    value = metadata.get('MRAcquisitionType')
    level = {'3D': 'OK', '2D': 'WARN'}.get(value if isinstance(value, str) else '', 'INFO')
    message = 'a 2-D acquisition: slices have phase offsets of their own, and thick slices bias'
    if level == 'INFO':
        message = 'the sidecar does not tell whether the acquisition is 3-D'
    return ProtocolRule('ACQ3D', level, value, '3D', message, _CONSENSUS)


def _echo_number(n_echoes: int) -> ProtocolRule:
    if n_echoes == 1:
        level, message = 'WARN', 'one echo cannot measure the field well in all tissues; no R2*'
    elif n_echoes < 5:
        level, message = 'INFO', 'five or more echoes are preferred; ARLO needs three'
    else:
        level, message = 'OK', 'enough echoes'
    return ProtocolRule('ECHON', level, n_echoes, '>= 5 echoes', message, _REVIEW)


def _last_echo(te: Sequence[float], field_strength: float) -> ProtocolRule:
    """Judge the last echo, which should be near T2* of the tissue; that falls with the field."""
    value = 1000 * max(te)
    low, high = (limit * _t2star_factor(field_strength) for limit in TE_LAST_3T)
    inside = low - 0.05 <= value <= high + 0.05
    message = 'the last echo is early: less contrast for weak sources'
    if value > high:
        message = 'the last echo is late: little signal is left where iron is high'
    limit = f'{low:.0f} to {high:.0f} ms at {field_strength:g} T'
    level = 'OK' if inside else 'WARN'
    return ProtocolRule('TELAST', level, round(value, 3), limit, message, _REVIEW)


def _t2star_factor(field_strength: float) -> float:
    """Return T2* of brain tissue relative to 3 T: R2* is half as large at 3 T as at 7 T."""
    slope = math.log(2) / math.log(7 / 3)
    return (3.0 / field_strength) ** slope


def _spacing(te: Sequence[float]) -> list[ProtocolRule]:
    ordered = sorted(te)
    steps = [b - a for a, b in itertools.pairwise(ordered)]
    if not steps:
        return []
    longest = round(1000 * max(steps), 3)
    message = 'widely spaced echoes: fast-changing fields wrap between them'
    level = 'WARN' if longest > 5.0 + 1e-6 else 'OK'
    rules = [ProtocolRule('DTE', level, longest, '<= 5 ms', message, _REVIEW)]
    mean = sum(steps) / len(steps)
    deviation = max(abs(step - mean) for step in steps)
    level = 'INFO' if deviation > EVEN_SPACING else 'OK'
    message = 'uneven echo spacing: ARLO cannot be used'
    value, limit = round(1000 * deviation, 4), '<= 0.1 ms from the mean spacing'
    return [*rules, ProtocolRule('DTEUNI', level, value, limit, message, _PRACTICE)]


def _voxels(voxel_size: Sequence[float]) -> list[ProtocolRule]:
    longest, shortest = max(voxel_size), min(voxel_size)
    level = 'WARN' if longest >= 2.0 - 1e-6 else 'OK'
    message = 'thick slices lower the susceptibility of small structures'
    rules = [
        ProtocolRule('SLTHK', level, round(longest, 4), '< 2 mm', message, _REVIEW),
    ]
    ratio = longest / shortest
    level = 'WARN' if ratio > 2 + 1e-6 else 'INFO' if ratio > 1.5 + 1e-6 else 'OK'
    message = 'anisotropic voxels: susceptibility depends on the orientation of structures'
    value, limit = round(ratio, 3), '<= 1.5 (longest to shortest edge)'
    return [*rules, ProtocolRule('ISO', level, value, limit, message, _PRACTICE)]


def _partial_fourier(metadata: Mapping[str, Any]) -> ProtocolRule:
    value = as_number(metadata.get('PartialFourier'))
    level = 'WARN' if value is not None and 0 < value < 1 - 1e-6 else 'OK'
    message = 'partial Fourier sampling blurs the phase where the field changes fast'
    return ProtocolRule('PF', level, value, '1 or not set', message, _CONSENSUS)


def _field(field_strength: float) -> ProtocolRule:
    usual = any(abs(field_strength - known) <= 0.05 * known for known in (1.5, 3.0, 7.0))
    message = 'a field at which this chain has no reference values'
    level = 'OK' if usual else 'INFO'
    limit = '1.5, 3 or 7 T'
    return ProtocolRule('FIELD', level, field_strength, limit, message, _PRACTICE)
