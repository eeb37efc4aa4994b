"""Checks of a chain of registrations are as good as its worst step."""

import pytest

from qsmflow.interfaces.checks import CombineChecks

GOOD = {'passed': True, 'score': 0.6, 'target': 'T1w', 'reasons': []}
BETTER = {'passed': True, 'score': 0.9, 'target': 'MNI', 'reasons': []}
BAD = {'passed': False, 'score': 0.95, 'target': 'MNI', 'reasons': ['folded']}


def combine(*checks):
    return (
        CombineChecks(**dict(zip(('first', 'second'), checks, strict=False))).run().outputs.check
    )


def test_one_step():
    check = combine(GOOD)
    assert (check['passed'], check['score'], check['target']) == (True, 0.6, 'T1w')
    assert check['steps'] == [GOOD]


@pytest.mark.parametrize('order', [1, -1])
def test_the_lower_score_counts(order):
    check = combine(*[GOOD, BETTER][::order])
    assert check['passed'] is True
    assert check['score'] == 0.6


@pytest.mark.parametrize('order', [1, -1])
def test_one_failure_fails_the_chain_whatever_its_score(order):
    check = combine(*[GOOD, BAD][::order])
    assert check['passed'] is False
    assert check['score'] == 0.95
    assert check['reasons'] == ['folded']
    assert check['target'] in ('T1w and MNI', 'MNI and T1w')
