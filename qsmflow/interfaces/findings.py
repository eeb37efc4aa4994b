"""What is found while computing: findings that travel in the dictionaries between the nodes.

An interface puts them under ``FINDINGS`` of the dictionary that it gives out anyway (how a mask
was found, the check of a registration). Where such dictionaries are merged, for a sidecar or for
the report, they are lifted out of them.
"""

import logging
from collections.abc import Sequence

from qsmflow.algorithms.regions import CSF_R2STAR, MIN_REFERENCE
from qsmflow.bids.findings import Finding

#: Key of a dictionary that holds findings.
FINDINGS = 'findings'
_LOGGER = logging.getLogger('qsmflow.interfaces')


def with_findings(facts: dict, findings: Sequence[Finding], folder: str) -> dict:
    """Tell findings in the log and add them to a dictionary.

    Parameters
    ----------
    facts : dict
        What an interface gives out.
    findings : sequence of Finding
        What was found.
    folder : str
        Folder of the node, which names series and step.

    Returns
    -------
    dict
        ``facts`` itself if there is nothing to add.
    """
    for finding in findings:
        level = logging.WARNING if finding.level in ('WARN', 'FIX') else logging.INFO
        _LOGGER.log(level, '%s [%s]', finding, folder)
    if not findings:
        return facts
    return {**facts, FINDINGS: [*facts.get(FINDINGS, []), *(f.as_dict() for f in findings)]}


def lifted(merged: dict, key: str) -> dict:
    """Move the findings out of the dictionaries that hold them.

    Parameters
    ----------
    merged : dict
        Dictionaries by name, and other values.
    key : str
        Where the findings go; there is no such key if there are none.

    Examples
    --------
    >>> lifted({'Mask': {'n': 1, 'findings': [{'code': 'D80'}]}, 'x': 2}, 'Warnings')
    {'Mask': {'n': 1}, 'x': 2, 'Warnings': [{'code': 'D80'}]}
    """
    found = list(merged.get(key) or [])
    out = {}
    for name, value in merged.items():
        if isinstance(value, dict) and FINDINGS in value:
            found += value[FINDINGS]
            value = {own: item for own, item in value.items() if own != FINDINGS}
        out[name] = value
    return {**out, key: found} if found else out


def registration_findings(check: dict, names: tuple[str, str]) -> list[Finding]:
    """Say that the check of a registration failed (``D84``).

    Parameters
    ----------
    check : dict
        Of :func:`qsmflow.registration.registration_check`, with ``attempts``.
    names : tuple of str
        Image and target.
    """
    if check.get('passed', True):
        return []
    measured = ('score', 'dice', 'overlap', 'jacobian_min', 'jacobian_max')
    evidence = {key: check[key] for key in measured if check.get(key) is not None}
    evidence |= {'reasons': list(check.get('reasons', [])), 'starts': len(check['attempts'])}
    message = f'the registration of {names[0]} to {names[1]} failed its check from every start'
    remedy = (
        'Look at the registration figure. The region table is written and marked (qc); do not '
        'use its values unless the figure is right.'
    )
    return [Finding('D84', 'WARN', message, '', evidence, remedy)]


#: Volume of a brain mask that is believed at all, and that needs no second look, in ml.
POSSIBLE_ML, ADULT_ML = (50.0, 3000.0), (700.0, 2200.0)
#: Part of the surface of a mask on the border of the volume that is told.
MAX_BORDER = 0.05
#: Part of the template's brain in the field of view below which the brain is cut.
MIN_COVERAGE = 0.9
#: Volume inside a mask without signal that is told, in ml.
MAX_VOID_ML = 0.5


def size_finding(volume_ml: float, info: dict) -> Finding | None:
    """Say that a mask does not have the size of a brain (``D79``).

    Parameters
    ----------
    volume_ml : float
        Volume of the mask, in ml.
    info : dict
        How it was found: a given mask was judged before the run.
    """
    low, high = POSSIBLE_ML
    if low <= volume_ml <= high or info.get('method') == 'given':
        return None
    evidence = {'volume_ml': round(volume_ml, 1), 'expected_ml': list(POSSIBLE_ML)}
    message = 'the mask that was found does not have the size of a brain'
    return Finding('D79', 'WARN', message, '', evidence, 'Give one with --mask.')


def brain_findings(info: dict) -> list[Finding]:
    """Say what the check of an extracted brain found.

    Parameters
    ----------
    info : dict
        Of :func:`qsmflow.registration.extract_brain`.

    Returns
    -------
    list of Finding
        ``D79`` the method was replaced, ``D89`` not the head of an adult, ``C75`` cut brain.
    """
    findings = []
    remedy = 'Look at the figure of the mask; give a better one with --mask.'
    if info.get('replaced'):
        evidence = {'replaced': info['replaced'], 'method': info.get('method', '')}
        evidence['volume_ml'] = info.get('volume_ml')
        message = 'the brain mask was useless, and another method took its place'
        findings.append(Finding('D79', 'WARN', message, '', evidence, remedy))
    if info.get('passed') is False:
        evidence = {key: info.get(key) for key in ('score', 'volume_ml', 'reasons')}
        message = 'this does not look like the head of an adult: the check of the mask failed'
        remedy += ' For a phantom or an animal, use --atlas none too.'
        findings.append(Finding('D89', 'WARN', message, '', evidence, remedy))
    coverage = info.get('coverage')
    if coverage is not None and coverage < MIN_COVERAGE and info.get('passed'):
        evidence = {'coverage': coverage, 'minimum': MIN_COVERAGE}
        message = 'part of the brain lies outside the field of view'
        remedy = 'See the coverage of the regions in the table.'
        findings.append(Finding('C75', 'WARN', message, '', evidence, remedy))
    return findings


def mask_findings(measured: dict, repair, source: str = '') -> list[Finding]:
    """Say what is wrong with the mask that is used.

    Parameters
    ----------
    measured : dict
        ``border_share`` and ``void_ml``.
    repair : MaskRepair or None
        What was mended in a given mask.
    source : str
        How messages name the mask.

    Returns
    -------
    list of Finding
        ``D80`` islands, holes, border; ``D86`` no signal.
    """
    findings = []
    if repair is not None and (repair.islands or repair.holes):
        evidence = {
            'islands_removed': repair.islands,
            'holes_filled': repair.holes,
            'changed_ml': round(repair.changed_ml, 3),
        }
        message = 'small islands of the mask were removed and small holes filled'
        findings.append(Finding('D80', 'FIX', message, source, evidence))
    if repair is not None and (repair.parts > 1 or repair.open_holes):
        evidence = {
            'parts': repair.parts,
            'holes': repair.open_holes,
            'holes_ml': round(repair.holes_ml, 2),
        }
        message = 'the mask has several parts or large holes; they are kept as they are'
        remedy = 'Check the mask: the field of what a hole leaves out counts as background.'
        findings.append(Finding('D80', 'WARN', message, source, evidence, remedy))
    if measured['border_share'] > MAX_BORDER:
        evidence = {'border_share': round(measured['border_share'], 3), 'limit': MAX_BORDER}
        message = 'the mask touches the border of the field of view'
        remedy = 'Values near the border are not reliable.'
        findings.append(Finding('D80', 'WARN', message, source, evidence, remedy))
    if measured['void_ml'] > MAX_VOID_ML:
        evidence = {
            'void_ml': round(measured['void_ml'], 2),
            'fraction': round(measured['void_ml'] / max(measured['volume_ml'], 1e-9), 5),
        }
        message = 'the mask holds volume without signal: metal, bleeding, or air'
        remedy = (
            'It gets no weight in the fit; values around it are not reliable. Give a mask without '
            'it if it is not tissue.'
        )
        findings.append(Finding('D86', 'WARN', message, source, evidence, remedy))
    return findings


#: Part of the mask with large residuals of the field fit, of two echoes or more, that is told.
MAX_RESIDUAL_SHARE = 0.05


def motion_findings(info: dict, fit: dict) -> list[Finding]:
    """Say that the echoes do not fit together (``D88``).

    Parameters
    ----------
    info : dict
        What is given out of the field fit. Where the unwrapping failed, that is told instead.
    fit : dict
        ``ResidualShare``, part of the mask in which no field explains the echoes.
    """
    share = fit.get('ResidualShare')
    if info.get('Failed') or share is None or share <= MAX_RESIDUAL_SHARE:
        return []
    evidence = {'residual_share': round(float(share), 4), 'limit': MAX_RESIDUAL_SHARE}
    message = 'no field explains the echoes in part of the brain: motion, ghosts or flow'
    return [
        Finding('D88', 'WARN', message, '', evidence, 'Look at the figures of phase and field.')
    ]


def reference_findings(wanted: str, used: str, has_r2star: bool) -> list[Finding]:
    """Say that another reference region was used than the one that was asked for (``REFREGION``).

    Parameters
    ----------
    wanted, used : str
        Names of the regions.
    has_r2star : bool
        Whether there was a map of R2*, without which fluid cannot be found.
    """
    if wanted == used:
        return []
    evidence = {'requested': wanted, 'used': used}
    if has_r2star:
        evidence |= {'r2star_below': CSF_R2STAR, 'minimum_voxels': MIN_REFERENCE}
        message = 'too little fluid of the lateral ventricles was found to be the reference'
    else:
        evidence['r2star'] = 'none'
        message = 'the fluid of the ventricles is found by R2*, and there is no map of it'
    message += '; the mean over the whole brain is zero instead'
    remedy = (
        'Do not compare this map with maps of another reference; --reference-region wholebrain '
        'gives all the same.'
    )
    return [Finding('REFREGION', 'WARN', message, '', evidence, remedy)]


def coverage_findings(table: Sequence[dict]) -> list[Finding]:
    """Say which regions are partly outside (``D87``).

    Parameters
    ----------
    table : sequence of dict
        Rows of :func:`qsmflow.algorithms.regions.region_statistics`.
    """
    partial = {}
    for row in table:
        if 'partial' in row['qc'].split(';') or 'empty' in row['qc'].split(';'):
            name = '_'.join(part for part in (row['region'], row['hemi']) if part)
            coverage = row['coverage']
            partial[name] = None if coverage != coverage else round(float(coverage), 2)
    if not partial:
        return []
    message = 'regions lie partly or wholly outside the mask or the field of view'
    remedy = 'See columns coverage and qc of the table before using them.'
    return [Finding('D87', 'WARN', message, '', {'coverage': partial}, remedy)]
