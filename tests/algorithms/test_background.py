"""PDF, V-SHARP and RESHARP."""

import numpy as np
import pytest

from qsmflow.algorithms.background.pdf import pdf
from qsmflow.algorithms.background.spherical import resharp, vsharp
from tests.algorithms.background_battery import BackgroundBattery, case
from tests.algorithms.fields import relative_error

__all__ = ['case']


class TestPdf(BackgroundBattery):
    method = staticmethod(pdf)
    harmonic = None


class TestVsharp(BackgroundBattery):
    method = staticmethod(vsharp)


class TestResharp(BackgroundBattery):
    method = staticmethod(resharp)
    options = {'radius': 3}


def test_pdf_weights_keep_bad_voxels_from_spreading(case):
    _, mask, local, background = case
    rim = np.argwhere(mask)[:: len(np.argwhere(mask)) // 60]
    total, weights = local + background, mask.astype(np.float32)
    total[tuple(rim.T)] += 2.0
    weights[tuple(rim.T)] = 0.01
    good = mask & (weights == 1)
    plain, _ = pdf(total, mask, (1, 1, 1))
    weighted, _ = pdf(total, mask, (1, 1, 1), weights=weights)
    assert relative_error(weighted, local, good) < 0.6 * relative_error(plain, local, good)


def test_sources_inside_keep_contrast(case):
    _, mask, local, background = case
    slopes = []
    for scale in (0, 0.02):
        estimate, _ = pdf(local + background, mask, (1, 1, 1), inside_scale=scale)
        slopes.append(np.polyfit(local[mask], estimate[mask], 1)[0])
    assert slopes[0] < slopes[1] < 1.02
    with pytest.raises(ValueError, match='inside_scale'):
        pdf(local, mask, (1, 1, 1), inside_scale=2)


def test_pdf_history_falls(case):
    _, mask, local, background = case
    _, _, history = pdf(local + background, mask, (1, 1, 1), max_iter=15, return_history=True)
    assert len(history) == 15
    assert history[-1] < 0.1 * history[0]


def test_spheres_that_fit_nowhere():
    mask = np.zeros((12, 12, 12), bool)
    mask[5:7, 5:7, 5:7] = True
    with pytest.raises(ValueError, match='fits nowhere'):
        resharp(mask * 1.0, mask, (1, 1, 1))
    with pytest.raises(ValueError, match='fits into the mask'):
        vsharp(mask * 1.0, mask, (1, 1, 1), radii=(5, 4))


def test_bad_parameters():
    mask = np.ones((12, 12, 12), bool)
    with pytest.raises(ValueError, match='threshold'):
        vsharp(mask * 1.0, mask, (1, 1, 1), threshold=0)
    with pytest.raises(ValueError, match='radius'):
        resharp(mask * 1.0, mask, (1, 1, 1), radius=-1)
    with pytest.raises(ValueError, match='radii'):
        vsharp(mask * 1.0, mask, (1, 1, 1), radii=(3, 0))
