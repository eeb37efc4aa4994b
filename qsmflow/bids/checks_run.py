"""Findings that only the computation brings: slices, sign and readout of the phase."""

from collections.abc import Mapping
from typing import Any

from qsmflow.bids.findings import Finding

#: Correlation of measured and expected field that decides on the sign.
_SURE = 0.3


def slice_findings(facts: Mapping[str, Any], name: str = '') -> list[Finding]:
    """Say that slices alternated (``A14``).

    Parameters
    ----------
    facts : mapping
        ``SliceChopRemoved`` and ``SliceChopEvidence``, see
        :class:`~qsmflow.interfaces.phase.PhasePreparation`.
    name : str, optional
        How messages name the phase.
    """
    if not facts.get('SliceChopRemoved'):
        return []
    message = 'the phase of every second slice was turned by pi, which was undone'
    evidence = {'share_of_slices_that_jump': facts.get('SliceChopEvidence')}
    return [Finding('A14', 'FIX', message, name, evidence)]


def sign_findings(facts: Mapping[str, Any], name: str = '') -> list[Finding]:
    """Say that the phase was negated, or that its sign is not sure (``A13``).

    Parameters
    ----------
    facts : mapping
        ``Sign``, ``Source``, ``Evidence``, see :class:`~qsmflow.interfaces.field.FieldSign`.
    name : str, optional
        How messages name the phase.
    """
    source, sign = facts.get('Source'), facts.get('Sign')
    correlation = facts.get('Evidence')
    evidence = {'sign': sign, 'correlation_with_field_of_air': correlation}
    look = 'Veins and deep nuclei must be bright in the susceptibility map; '
    if source == 'convention':
        message = 'the sign of the phase was kept, but the field of the air does not confirm it'
        remedy = look + 'if they are dark, give --phase-sign -1, else +1.'
        return [Finding('A13', 'WARN', message, name, evidence, remedy)]
    if source == 'user':
        if correlation is None or sign is None or sign * correlation > -_SURE:
            return []
        message = 'the sign of the phase that was given contradicts the field of the air'
        return [Finding('A13', 'WARN', message, name, evidence, look + 'check --phase-sign.')]
    if sign is not None and sign < 0:
        message = 'the phase has the opposite sign and was negated'
        remedy = look + 'if they are dark, give --phase-sign +1.'
        return [Finding('A13', 'FIX', message, name, evidence, remedy)]
    return []


def readout_findings(facts: Mapping[str, Any], name: str = '') -> list[Finding]:
    """Say that a bipolar readout was corrected, or could not be (``B41``).

    Parameters
    ----------
    facts : mapping
        Facts of :class:`~qsmflow.interfaces.phase.BipolarCorrection`.
    name : str, optional
        How messages name the phase.
    """
    evidence = {
        'standard_errors': facts.get('Evidence'),
        'span_rad': facts.get('Span'),
        'axis': facts.get('Axis'),
    }
    if facts.get('Corrected'):
        message = 'odd and even echoes were read out in opposite directions; the phase by which '
        message += 'they differ was removed'
        remedy = facts.get('Note', '')
        remedy = f'Caution: {remedy}. --bipolar off leaves it.' if remedy else ''
        return [Finding('B41', 'FIX', message, name, evidence, remedy)]
    if facts.get('Mode') == 'on' and facts.get('Tested'):
        message = 'a bipolar readout was to be corrected, but there is no signal to do it with'
        remedy = 'Check the mask and the echoes.'
        return [Finding('B41', 'WARN', message, name, evidence, remedy)]
    return []
