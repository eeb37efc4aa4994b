"""Facts of a run as a reader meets them: evidence in words, blocks of the summary."""

import pytest

from qsmflow.report import facts

STEP = {'score': 0.7979, 'dice': 0.9738, 'overlap': 1.0, 'passed': True, 'reasons': []}
RIGID = {**STEP, 'kind': 'rigid', 'target': 'T1w', 'jacobian_min': None, 'jacobian_max': None}
SYN = {**STEP, 'kind': 'syn', 'target': 'MNI', 'jacobian_min': 0.746, 'jacobian_max': 1.407}


def block(**summary):
    (made,) = facts.blocks(summary)
    return made


@pytest.mark.parametrize(
    ('evidence', 'text'),
    [
        ({'value': 6.0, 'limit': '<= 5 ms', 'source': 'doi:1'}, 'value 6, limit ≤ 5 ms; doi:1'),
        ({'corner_shift_mm': 0.25, 'files': 3}, 'corner shift 0.25 mm, files 3'),
        ({'EchoTime': [0.1] * 9}, 'EchoTime (' + '0.1, ' * 8 + '…)'),
        ({'sub-01_echo-1_MEGRE.nii.gz': 0.004}, 'sub-01_echo-1_MEGRE.nii.gz 0.004'),
        ({'volumes': {'a_b.nii': 2}}, 'volumes (a_b.nii: 2)'),
        ({}, ''),
        (None, ''),
        ('already text', 'already text'),
    ],
)
def test_evidence(evidence, text):
    assert facts.evidence_text(evidence) == text


def test_slices():
    kept = block(preparation={'SliceChopEvidence': 0.0, 'SliceChopRemoved': False})
    assert kept['text'] == 'Neighbouring slices do not alternate in sign; nothing was changed.'
    mended = block(preparation={'SliceChopEvidence': 0.97, 'SliceChopRemoved': True})
    assert mended['text'].startswith('Every second slice was negated')
    assert '97%' in mended['text']


BIPOLAR = {'Mode': 'auto', 'Tested': True, 'Corrected': True, 'Evidence': 2464.8}
BIPOLAR |= {'Gradient': [0.0104, 0.0, 0.0], 'GradientError': [1e-6] * 3, 'Span': 1.44, 'Axis': 'i'}


def test_bipolar_readout():
    mended = block(bipolar=BIPOLAR)
    assert mended['text'] == (
        'The phase by which odd and even echoes differ was removed '
        '(evidence: 2.46e+03 standard errors).'
    )
    assert mended['pairs'] == [
        ('gradient along the array axes', '0.0104, 0, 0', 'rad/mm'),
        ('difference over the brain', '1.44', 'rad'),
        ('array axis of the largest change', 'i', ''),
    ]
    asked = block(bipolar={**BIPOLAR, 'Mode': 'on', 'Note': 'three echoes only'})['text']
    assert 'removed, as the user asked (' in asked
    assert asked.endswith('; three echoes only.')
    kept = block(bipolar={**BIPOLAR, 'Corrected': False, 'Evidence': 0.5})['text']
    assert kept == (
        'Odd and even echoes agree (evidence: 0.5 standard errors); nothing was changed.'
    )
    untested = {'Mode': 'off', 'Tested': False, 'Corrected': False, 'Reason': 'switched off'}
    made = block(bipolar=untested)
    assert made['text'] == 'Not tested for a bipolar readout: switched off.'
    assert made['pairs'] == []


def test_unwrapping():
    good = {'Method': 'romeo', 'Parameters': {}, 'Failed': False}
    good |= {'ResidualShare': 0.0123, 'TurnShare': None}
    facts_ = {'Requested': 'romeo', 'Method': 'romeo', 'Parameters': {}, 'Failed': False}
    facts_ |= {'Reason': '', 'Tried': [good]}
    made = block(unwrapping=facts_)
    assert made['text'] == 'The field agrees with the phase as unwrapped by romeo.'
    assert made['rows'] == [['romeo', '1.2%', '–', 'passed']]
    assert made['pairs'] == []
    bad = {**good, 'Failed': True, 'ResidualShare': 0.5, 'TurnShare': 0.5}
    other = {**good, 'Parameters': {'individual': True}}
    note = 'unwrapping by romeo failed: reason; romeo (individual=True) was used instead'
    made = block(unwrapping={**facts_, 'Reason': 'reason', 'Tried': [bad, other], 'Note': note})
    assert made['text'] == f'U{note[1:]}.'
    assert made['rows'] == [
        ['romeo', '50.0%', '50.0%', 'failed'],
        ['romeo (individual yes)', '1.2%', '–', 'passed'],
    ]


@pytest.mark.parametrize(
    ('given', 'text'),
    [
        ({'Sign': -1, 'Source': 'user', 'Evidence': -0.5}, 'was negated, as the user asked ('),
        ({'Sign': 1, 'Source': 'convention', 'Evidence': 0.1}, 'was kept, by convention'),
        ({'Sign': 1, 'Source': 'field of the air', 'Evidence': 0.8}, 'by the field of the air ('),
        ({'Sign': 1}, 'The sign of the phase was kept.'),
    ],
)
def test_sign(given, text):
    made = block(sign=given)
    assert text in made['text']
    assert made['pairs'] == []


def test_registration_with_t1w_has_two_rows():
    made = block(registration={'passed': True, 'score': 0.7, 'target': 'a', 'steps': [RIGID, SYN]})
    assert made['rows'] == [
        ['to T1w, rigid', '0.80', '0.97', '–', 'passed'],
        ['to MNI, nonlinear', '0.80', '0.97', '0.75 to 1.41', 'passed'],
    ]
    assert made['pairs'] == []


def test_one_registration_and_its_failure():
    made = block(registration={**SYN, 'passed': False, 'reasons': ['Dice 0.5 < 0.8', 'small']})
    assert [row[-1] for row in made['rows']] == ['Dice 0.5 < 0.8; small']


def test_mask_reference_and_dentate():
    mask = {'method': 'registration', 'volume_ml': 1400.2, 'removed_fraction': 0.0312}
    mask |= {'passed': False, 'reasons': ['too small'], 'start': 'pitch_back', 'novel': 3}
    pairs = {name: f'{value} {unit}'.strip() for name, value, unit in block(mask=mask)['pairs']}
    assert pairs == {
        'found by': 'registration',
        'volume': '1400 ml',
        'removed at the rim': '3.1%',
        'check': 'failed: too small',
        'start of the registration': 'pitch back',
        'novel': '3',
    }
    reference = {'region': 'whole_brain', 'requested': 'csf', 'mean': -0.004, 'sd': 0.03, 'n': 9}
    rows = dict(pair[:2] for pair in block(reference=reference)['pairs'])
    assert rows['region'] == 'whole brain (in place of csf, which was not found)'
    assert rows['whole brain before'] == '−4.0 ± 30.0 ppb (9 voxels)'
    side = {'method': 'prior', 'qc': 0.2, 'volume_mm3': 384.4, 'reason': 'no contrast'}
    rows = block(dentate={'L': side, 'R': {**side, 'method': 'contrast', 'reason': ''}})['rows']
    assert rows[0] == ['left', 'template only', '0.20', '384 mm³', 'no contrast']
    assert rows[1] == ['right', 'its contrast', '0.20', '384 mm³', '–']


def test_order_is_fixed_and_absent_parts_are_left_out():
    titles = [b['title'] for b in facts.blocks({'sign': {'Sign': 1}, 'acquisition': {'A': 1}})]
    assert titles == ['Acquisition', 'Sign of the phase']
    assert facts.blocks({'mask': {}}) == []


def test_unknown_shapes_are_shown_as_pairs():
    assert block(dentate={'value': 'none'})['pairs'] == [('value', 'none', '')]
    assert block(registration={'value': 'x'})['pairs'] == [('value', 'x', '')]
    for part in ('bipolar', 'unwrapping'):
        made = block(**{part: {'value': 'x'}})
        assert (made['text'], made['pairs']) == ('', [('value', 'x', '')])


def test_alignment_of_the_nuclei_reads_as_a_sentence():
    found = {'accepted': True, 'reason': '', 'similarity_before': 0.53, 'similarity_after': 0.732}
    assert block(refinement={**found, 'shift_mm': 3.35})['text'] == (
        'The labels were moved by up to 3.4 mm onto the nuclei that the map shows. '
        'Similarity 0.53 before, 0.73 after.'
    )
    left = block(refinement={'accepted': False, 'reason': 'no gain in similarity'})
    assert left['text'] == (
        'The labels were left where the registration placed them (no gain in similarity).'
    )


USED = {'parameters': {'inversion': {'method': 'tv', 'reg_weight': None}, 'field': 'none'}}


@pytest.mark.parametrize(
    ('chosen', 'text'),
    [
        ({'RegWeight': 1.7133e-4, 'FieldNoise': 1e-3}, '1.7e−4 ppm, from the noise of the field'),
        ({'RegWeight': 1.5e-4, 'FieldNoise': None}, '1.5e−4 ppm, for a field of unknown noise'),
        ({}, 'from the noise of the field'),  # of results that an earlier version wrote
    ],
)
def test_weight_that_the_data_chose_is_shown(chosen, text):
    used = facts.used_parameters({**USED, 'regularisation': chosen})
    assert used['inversion'] == {'method': 'tv', 'reg_weight': text}
    assert used['field'] == 'none'
    given = {'parameters': {'inversion': {'reg_weight': 0.1}}, 'regularisation': chosen}
    assert facts.used_parameters(given)['inversion']['reg_weight'] == 0.1


def test_end_of_the_iteration_stands_with_the_parameters():
    ended = {'Iterations': 40, 'LastChange': 0.0031, 'Converged': False}
    used = facts.used_parameters({**USED, 'inversion_convergence': ended})
    assert used['inversion']['iterations'] == 40
    assert used['inversion']['last_change'] == '0.0031, ended by the number of iterations'
    ended |= {'LastChange': 8e-5, 'Converged': True}
    used = facts.used_parameters({**USED, 'inversion_convergence': ended})
    assert used['inversion']['last_change'] == '8e−05, below its tolerance'
    assert 'iterations' not in USED['parameters']['inversion']
