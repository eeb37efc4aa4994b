"""Confidence in a field by its steps at the edge of the mask."""

import numpy as np
import pytest

from qsmflow.algorithms.confidence import STEP, edge_confidence


def block(margin=2):
    mask = np.zeros((10, 9, 8), bool)
    inner = slice(margin, -margin) if margin else slice(None)
    mask[inner, inner, inner] = True
    return mask


@pytest.mark.parametrize('step', [-3.0, -0.5, 0.1, 1.0])
def test_the_formula_holds_at_the_edge(step):
    mask = block()
    field = np.zeros(mask.shape, np.float32)
    field[2, 4, 3] = step * STEP
    confidence = edge_confidence(field, mask, (1, 1, 1))
    assert confidence[2, 4, 3] == pytest.approx(1 / (1 + step**2) ** 2, rel=1e-5)
    assert confidence[2, 5, 3] == pytest.approx(1 / (1 + step**2) ** 2, rel=1e-5)


def test_the_largest_of_the_steps_to_neighbours_in_the_mask_counts():
    mask = block()
    field = np.zeros(mask.shape, np.float32)
    field[2, 4, 3], field[2, 5, 3], field[1, 4, 3] = 0.1, -0.1, 5.0
    confidence = edge_confidence(field, mask, (1, 1, 1))
    assert confidence[2, 4, 3] == pytest.approx(1 / (1 + (0.2 / STEP) ** 2) ** 2, rel=1e-5)


def test_steps_inside_are_those_of_sources():
    mask = block()
    field = np.where(mask, 0, np.nan).astype(np.float32)
    field[5, 4, 4] = 2.0
    confidence = edge_confidence(field, mask, (1, 1, 1))
    inside = np.zeros_like(mask)
    inside[3:-3, 3:-3, 3:-3] = True
    assert (confidence[inside] == 1).all()
    assert not confidence[~mask].any()


def test_the_end_of_the_volume_is_no_edge():
    field = np.zeros((10, 9, 8), np.float32)
    field[0, 0, 0] = 1.0
    assert (edge_confidence(field, np.ones(field.shape, bool), (1, 1, 1)) == 1).all()


def test_large_voxels_are_not_judged():
    mask = block()
    field = np.random.default_rng(0).normal(0, 1, mask.shape)
    assert np.array_equal(edge_confidence(field, mask, (1, 1, 2.5)), mask)
    assert not np.array_equal(edge_confidence(field, mask, (1, 1, 2.0)), mask)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match='not finite'):
        edge_confidence(np.full((4, 4, 4), np.nan), np.ones((4, 4, 4), bool), (1, 1, 1))
