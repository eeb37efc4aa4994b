"""Background removal by total field inversion."""

import numpy as np
import pytest

from qsmflow.algorithms.background.pdf import pdf
from qsmflow.algorithms.background.tfi import tfi
from tests.algorithms.background_battery import BackgroundBattery, case
from tests.algorithms.fields import phantom, relative_error

__all__ = ['case']


class TestTfi(BackgroundBattery):
    method = staticmethod(tfi)
    kept = 0.999
    linear = False
    # Forward differences know the sense of an axis.
    axes_limit = 5e-2
    options = {'voxel_average': False}


def test_it_keeps_what_pdf_takes_away(case):
    _, mask, local, background = case
    total = local + background
    found, _ = tfi(total, mask, (1, 1, 1), voxel_average=False)
    other, _ = pdf(total, mask, (1, 1, 1))
    assert relative_error(found, local, mask) < 0.6 * relative_error(other, local, mask)


def test_values_without_confidence_are_those_of_the_sources(case):
    _, mask, local, background = case
    bad = np.argwhere(mask)[:: mask.sum() // 60]
    total, weights = local + background, mask.astype(np.float32)
    total[tuple(bad.T)] += 2.0
    weights[tuple(bad.T)] = 0.01
    plain, _ = tfi(total, mask, (1, 1, 1), voxel_average=False)
    weighted, _ = tfi(total, mask, (1, 1, 1), weights=weights, voxel_average=False)
    error = np.abs(weighted - local)[tuple(bad.T)]
    assert np.median(error) < 0.005
    assert np.median(np.abs(plain - local)[tuple(bad.T)]) > 1
    assert relative_error(weighted, local, mask) < 0.2 * relative_error(plain, local, mask)


def test_the_history_has_all_rounds(case):
    _, mask, local, background = case
    _, _, history = tfi(
        local + background, mask, (1, 1, 1), rounds=3, max_iter=5, tol=0, return_history=True
    )
    assert len(history) == 5 + 3 + 3
    _, _, short = tfi(
        local + background, mask, (1, 1, 1), max_iter=50, tol=0.1, return_history=True
    )
    assert len(short) < 50
    assert short[-1] < 0.1


def test_a_weight_must_be_positive():
    _, mask, local, _ = phantom((16, 16, 16))
    with pytest.raises(ValueError, match='reg_weight'):
        tfi(local, mask, (1, 1, 1), reg_weight=0)
