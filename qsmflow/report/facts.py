"""Facts as text: numbers with units, the evidence of findings, and blocks of the summary."""

import math
import re
from collections.abc import Callable, Mapping

#: Units of acquisition parameters, where BIDS fixes them.
UNITS = {
    'EchoTime': 's', 'MagneticFieldStrength': 'T', 'ImagingFrequency': 'MHz', 'FlipAngle': '°',
    'RepetitionTimeExcitation': 's', 'RepetitionTime': 's', 'VoxelSize': 'mm',
    'PixelBandwidth': 'Hz', 'volume_ml': 'ml',
}  # fmt: skip
#: Last part of a name that is a unit, as in ``corner_shift_mm``.
_UNIT_ENDINGS = {
    'mm': 'mm', 'ms': 'ms', 's': 's', 'deg': '°', 'T': 'T', 'MHz': 'MHz', 'bytes': 'bytes',
}  # fmt: skip
_MAX_ITEMS = 8  #: items of a list in the evidence that are shown
_KINDS = {'rigid': 'rigid', 'affine': 'affine', 'syn': 'nonlinear', 'given': 'given'}


def format_value(value: object) -> str:
    """Return a value as it is shown: four significant digits, lists joined, nothing as a dash.

    Examples
    --------
    >>> format_value([0.004, 0.0121234]), format_value(True), format_value(None)
    ('0.004, 0.01212', 'yes', '–')
    """
    if value is None or value == '':
        return '–'
    if isinstance(value, bool):
        return 'yes' if value else 'no'
    if isinstance(value, float):
        return '–' if math.isnan(value) else f'{value:.4g}'.replace('-', '−')
    if isinstance(value, list | tuple):
        return ', '.join(format_value(item) for item in value) or '–'
    if isinstance(value, Mapping):
        return ', '.join(f'{k}: {format_value(v)}' for k, v in value.items()) or '–'
    return str(value)


def format_name(name: object) -> str:
    """Return a key as words.

    Examples
    --------
    >>> format_name('MRAcquisitionType'), format_name('volume_ml')
    ('MR Acquisition Type', 'volume ml')
    """
    words = re.sub(r'(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])', ' ', str(name))
    return words.replace('_', ' ')


def evidence_text(evidence: object) -> str:
    """Return the evidence of a finding as a short text.

    Parameters
    ----------
    evidence : mapping or str
        Measured values by name; names may end in a unit (``corner_shift_mm``). ``source``, where
        the limit comes from, goes to the end.

    Examples
    --------
    >>> evidence_text({'value': 28.0, 'limit': '30 to 40 ms', 'source': 'doi:10.1148/rg.210054'})
    'value 28, limit 30 to 40 ms; doi:10.1148/rg.210054'
    >>> evidence_text({'angle_deg': 12.64, 'b0_dir': [0.0, -0.2, 0.98]})
    'angle 12.64°, b0 dir (0, −0.2, 0.98)'
    """
    if not isinstance(evidence, Mapping):
        return str(evidence or '')
    facts = [_fact(str(k), v) for k, v in evidence.items() if k != 'source']
    text = ', '.join(facts).replace('<=', '≤').replace('>=', '≥')
    source = str(evidence.get('source') or '')
    return '; '.join(part for part in (text, source) if part)


def blocks(summary: Mapping[str, Mapping]) -> list[dict]:
    """Turn the facts of a summary into blocks for the page.

    Parameters
    ----------
    summary : mapping
        Parts of the summary by name, those of :mod:`qsmflow.report`; any may be absent or empty,
        and what is not known in a part is shown as name and value.

    Returns
    -------
    list of dict
        ``title``; ``text``, sentences; ``pairs``, list of (name, value, unit); ``heads`` and
        ``rows`` of a small table.
    """
    found = []
    for name, make in _BLOCKS.items():
        facts = summary.get(name)
        if facts:
            block = make(dict(facts))
            found.append(block)
    return found


def used_parameters(summary: Mapping[str, Mapping]) -> dict[str, object]:
    """Return the parameters of each stage, with what the data made of them.

    Parameters
    ----------
    summary : mapping
        With ``parameters``, and as options ``regularisation``, ``background_convergence`` and
        ``inversion_convergence``; see :mod:`qsmflow.report`.

    Returns
    -------
    dict
        Stage -> name -> value.

    Examples
    --------
    >>> used_parameters({
    ...     'parameters': {'inversion': {'method': 'tv', 'reg_weight': None}},
    ...     'regularisation': {'RegWeight': 1.7133e-4, 'FieldNoise': 9e-4},
    ...     'inversion_convergence': {'Iterations': 40, 'LastChange': 3e-3, 'Converged': False},
    ... })['inversion']
    {'method': 'tv', 'reg_weight': '1.7e−4 ppm, from the noise of the field', 'iterations': 40,
    'last_change': '0.003, ended by the number of iterations'}
    """
    stages = {
        stage: dict(values) if isinstance(values, Mapping) else values
        for stage, values in (summary.get('parameters') or {}).items()
    }
    inversion = stages.get('inversion')
    if isinstance(inversion, dict) and inversion.get('reg_weight', 0) is None:
        inversion['reg_weight'] = _chosen_weight(summary.get('regularisation') or {})
    for stage in ('background', 'inversion'):
        ended = summary.get(f'{stage}_convergence')
        if ended and isinstance(stages.get(stage), dict):
            stages[stage] |= _ended(ended)
    return stages


def _chosen_weight(facts: Mapping) -> str:
    """Return the weight of the regularisation that was taken from the data."""
    weight = facts.get('RegWeight')
    if weight is None:
        return 'from the noise of the field'
    known = facts.get('FieldNoise') is not None
    source = 'from the noise of the field' if known else 'for a field of unknown noise'
    return f'{weight:.1e} ppm, {source}'.replace('e-0', 'e−')


def _ended(facts: Mapping) -> dict[str, object]:
    """Return how an iteration ended, under the names of the page."""
    change = facts.get('LastChange')
    how = 'below its tolerance' if facts.get('Converged') else 'ended by the number of iterations'
    shown = '' if change is None else f'{change:.2g}'.replace('-', '−')
    return {
        'iterations': facts.get('Iterations'),
        'last_change': ', '.join(part for part in (shown, how) if part),
    }


def _fact(name: str, value: object) -> str:
    """Write one fact of the evidence."""
    stem, _, unit = name.rpartition('_')
    if stem and unit in _UNIT_ENDINGS:
        name, unit = stem, _UNIT_ENDINGS[unit]
    else:
        unit = ''
    if '.' not in name and '-' not in name:  # not the name of a file
        name = name.replace('_', ' ')
    shown = format_value(value)
    if isinstance(value, list | tuple):
        shown = format_value(value[:_MAX_ITEMS]) + (', …' if len(value) > _MAX_ITEMS else '')
        shown = f'({shown})' if len(value) > 1 else shown
    elif isinstance(value, Mapping):
        shown = f'({shown})'
    return f'{name} {shown}{unit if unit == "°" else f" {unit}" if unit else ""}'


def _block(title: str, rest: Mapping, *, text='', pairs=(), heads=(), rows=()) -> dict:
    """Make a block; what is left of the facts follows the pairs."""
    left = [(format_name(k), format_value(v), UNITS.get(k, '')) for k, v in rest.items()]
    return {
        'title': title,
        'text': text,
        'pairs': [*pairs, *left],
        'heads': list(heads),
        'rows': list(rows),
    }


def _plain(title: str) -> Callable[[dict], dict]:
    return lambda facts: _block(title, {k: v for k, v in facts.items() if v is not None})


def _preparation(facts: dict) -> dict:
    """Say whether slices were chopped."""
    text = ''
    removed, share = facts.pop('SliceChopRemoved', None), facts.pop('SliceChopEvidence', None)
    if removed is not None:
        measured = f' (the phase jumps by π between {share:.0%} of them)' if share else ''
        text = (
            f'Every second slice was negated: neighbouring slices alternate in sign{measured}.'
            if removed
            else f'Neighbouring slices do not alternate in sign{measured}; nothing was changed.'
        )
    return _block('Phase', facts, text=text)


def _sign(facts: dict) -> dict:
    """Say whether the phase was negated, and why."""
    sign, source = facts.pop('Sign', None), facts.pop('Source', None)
    evidence = facts.pop('Evidence', None)
    text = ''
    if sign is not None:
        done = 'was negated' if sign < 0 else 'was kept'
        why = {
            'user': 'as the user asked',
            'convention': 'by convention, as the field of the air does not decide it',
        }.get(str(source), f'by the {source}' if source else '')
        text = f'The sign of the phase {done}, {why}'.rstrip(', ')
        if evidence is not None:
            number = f'{evidence:.2f}'.replace('-', '−')
            text += f' (correlation of measured and expected field: {number})'
        text += '.'
    return _block('Sign of the phase', facts, text=text)


def _bipolar(facts: dict) -> dict:
    """Say whether odd and even echoes differed, and what was done."""
    tested, corrected = facts.pop('Tested', None), facts.pop('Corrected', None)
    reason, note = facts.pop('Reason', ''), facts.pop('Note', '')
    evidence, mode = facts.pop('Evidence', None), facts.pop('Mode', '')
    facts.pop('GradientError', None)
    text = ''
    if tested is not None:
        number = '' if evidence is None else f' (evidence: {evidence:.3g} standard errors)'
        if not tested:
            text = f'Not tested for a bipolar readout: {reason}.'
        elif corrected:
            why = ', as the user asked' if mode == 'on' else ''
            text = (
                f'The phase by which odd and even echoes differ was removed{why}{number}'
                f'{f"; {note}" if note else ""}.'
            )
        else:
            text = f'Odd and even echoes agree{number}; nothing was changed.'
    pairs = [
        (name, format_value(facts.pop(key)), unit)
        for key, name, unit in _READOUT
        if facts.get(key) is not None
    ]
    return _block('Bipolar readout', facts, text=text, pairs=pairs)


_READOUT = (
    ('Gradient', 'gradient along the array axes', 'rad/mm'),
    ('Span', 'difference over the brain', 'rad'),
    ('Axis', 'array axis of the largest change', ''),
)


def _unwrapping(facts: dict) -> dict:
    """Say which unwrapping was used, and how those that were tried agree with the fit."""
    method, note = facts.pop('Method', None), facts.pop('Note', '')
    for key in ('Requested', 'Parameters', 'Failed', 'Reason'):
        facts.pop(key, None)
    rows = []
    for one in facts.pop('Tried', None) or []:
        options = ', '.join(f'{k} {format_value(v)}' for k, v in one['Parameters'].items())
        shares = [one.get('ResidualShare'), one.get('TurnShare')]
        rows.append(
            [
                one['Method'] + (f' ({options})' if options else ''),
                *('–' if share is None else f'{share:.1%}' for share in shares),
                'failed' if one.get('Failed') else 'passed',
            ]
        )
    text = f'{note[:1].upper()}{note[1:]}.' if note else ''
    if method and not note:
        text = f'The field agrees with the phase as unwrapped by {method}.'
    heads = ('method', 'large residuals', 'multiples of 2π that disagree', 'check')
    heads = heads if rows else ()
    return _block('Phase unwrapping', facts, text=text, heads=heads, rows=rows)


def _mask(facts: dict) -> dict:
    """Say how the brain was found."""
    pairs = []
    if 'method' in facts:
        pairs.append(('found by', format_value(facts.pop('method')), ''))
    volume, removed = facts.pop('volume_ml', None), facts.pop('removed_fraction', None)
    if volume is not None:
        pairs.append(('volume', f'{volume:.0f}', 'ml'))
    if removed is not None:
        pairs.append(('removed at the rim', f'{removed:.1%}', ''))
    coverage = facts.pop('coverage', None)
    if coverage is not None:
        pairs.append(('brain in the field of view', f'{coverage:.0%}', ''))
    score = facts.pop('score', None)
    if score is not None:
        pairs.append(('similarity to the template', f'{score:.2f}', ''))
    pairs += _verdict(facts)
    return _block('Brain mask', facts, pairs=pairs)


def _reference(facts: dict) -> dict:
    """Say what was taken off the susceptibility, in ppb."""
    region, requested = facts.pop('region', None), facts.pop('requested', None)
    pairs = []
    if region:
        name = format_name(region)
        instead = requested and requested != region
        note = f' (in place of {format_name(requested)}, which was not found)' if instead else ''
        pairs.append(('region', name + note, ''))
    spread = ('before', 'mean', 'sd', 'n'), ('whole brain after', *_WHOLE_BRAIN)
    for title, mean, sd, count in spread:
        values = [facts.pop(key, None) for key in (mean, sd, count)]
        if values[0] is not None:
            title = f'{format_name(region or "region")} {title}' if title == 'before' else title
            pairs.append((title, _in_ppb(*values), ''))
    return _block('Reference of the susceptibility', facts, pairs=pairs)


_WHOLE_BRAIN = ('whole_brain_mean', 'whole_brain_sd', 'whole_brain_n')


def _in_ppb(mean: float, sd: float | None, count: int | None) -> str:
    text = f'{1e3 * mean:.1f}'
    text += f' ± {1e3 * sd:.1f} ppb' if sd is not None else ' ppb'
    return (text + (f' ({count} voxels)' if count is not None else '')).replace('-', '−')


def _registration(facts: dict) -> dict:
    """Show each step of a registration as a row."""
    steps = facts.pop('steps', None)
    if not steps and 'kind' in facts:  # a single step has its facts beside the verdict
        steps, facts = [facts], {}
    rows = []
    for step in steps or []:
        change = [step.get('jacobian_min'), step.get('jacobian_max')]
        rows.append(
            [
                _step_name(step),
                _two(step.get('score')),
                _two(step.get('dice')),
                '–' if None in change else f'{change[0]:.2f} to {change[1]:.2f}',
                'passed' if step.get('passed') else '; '.join(step.get('reasons') or ['failed']),
            ]
        )
    heads = ('step', 'similarity', 'Dice', 'volume change', 'check')
    if rows:
        for key in ('passed', 'score', 'target', 'reasons'):
            facts.pop(key, None)
    return _block('Registration', facts, heads=heads if rows else (), rows=rows)


def _step_name(step: Mapping) -> str:
    kind, target = step.get('kind'), step.get('target')
    name = _KINDS.get(str(kind), str(kind or ''))
    source = step.get('source')
    name = f'{name} by {source}' if source else name
    return ', '.join(part for part in (f'to {target}' if target else '', name) if part)


def _dentate(facts: dict) -> dict:
    """Show how each dentate nucleus was found."""
    rows = []
    for side in ('L', 'R'):
        found = facts.pop(side, None)
        if isinstance(found, Mapping):
            how = {'contrast': 'its contrast', 'prior': 'template only'}
            method = str(found.get('method', ''))
            volume = found.get('volume_mm3')
            rows.append(
                [
                    {'L': 'left', 'R': 'right'}[side],
                    how.get(method, method),
                    _two(found.get('qc')),
                    '–' if volume is None else f'{volume:.0f} mm³',
                    format_value(found.get('reason')),
                ]
            )
    heads = ('side', 'found by', 'confidence', 'volume', 'reason') if rows else ()
    return _block('Dentate nuclei', facts, heads=heads, rows=rows)


def _refinement(facts: dict) -> dict:
    """Say what the alignment of the nuclei with the susceptibility map did."""
    accepted, reason = facts.pop('accepted', None), facts.pop('reason', '')
    before, after = facts.pop('similarity_before', None), facts.pop('similarity_after', None)
    shift = facts.pop('shift_mm', None)
    gain = (
        '' if None in (before, after) else f' Similarity {before:.2f} before, {after:.2f} after.'
    )
    if accepted:
        moved = '' if shift is None else f' by up to {shift:.1f} mm'
        text = f'The labels were moved{moved} onto the nuclei that the map shows.{gain}'
    else:
        why = f' ({reason})' if reason else ''
        text = f'The labels were left where the registration placed them{why}.{gain}'
    return _block('Alignment of the nuclei with the map', facts, text=text)


def _verdict(facts: dict) -> list[tuple[str, str, str]]:
    """Return the check of a brain mask: passed or why not, and which start was the best."""
    pairs = []
    passed, reasons = facts.pop('passed', None), facts.pop('reasons', None)
    if passed is not None:
        why = '; '.join(reasons or [])
        pairs.append(('check', 'passed' if passed else f'failed: {why}'.rstrip(': '), ''))
    start, attempts = facts.pop('start', None), facts.pop('attempts', None)
    if start:
        tried = f', the best of {len(attempts)}' if attempts and len(attempts) > 1 else ''
        pairs.append(('start of the registration', format_name(start) + tried, ''))
    return pairs


def _two(value: float | None) -> str:
    return '–' if value is None else f'{value:.2f}'


#: Part of the summary -> how its block is made, in the order of the page.
_BLOCKS: dict[str, Callable[[dict], dict]] = {
    'acquisition': _plain('Acquisition'),
    'preparation': _preparation,
    'bipolar': _bipolar,
    'unwrapping': _unwrapping,
    'sign': _sign,
    'mask': _mask,
    'reference': _reference,
    'registration': _registration,
    'dentate': _dentate,
    'refinement': _refinement,
    'quality': _plain('Quality'),
}
