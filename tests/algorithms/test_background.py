import numpy as np
import pytest

from qsmflow.algorithms.background import pdf, resharp, vsharp
from tests.algorithms.fields import SHAPE, phantom, relative_error

METHODS = {'pdf': pdf, 'vsharp': vsharp, 'resharp': lambda *a, **k: resharp(*a, radius=3, **k)}
every_method = pytest.mark.parametrize('remove', METHODS.values(), ids=METHODS)
VOXELS = [(1.0, 1.0, 1.0), (1.0, 1.2, 2.0)]


@pytest.fixture(scope='module')
def case():
    return phantom()


@every_method
def test_local_field_is_recovered(remove, case):
    _, mask, local, background = case
    estimate, support = remove(local + background, mask, (1, 1, 1))
    assert support[mask].mean() > 0.45
    assert not estimate[~support].any()
    assert not support[~mask].any()
    assert np.linalg.norm(background) > 3 * np.linalg.norm(local)
    assert np.corrcoef(estimate[support], local[support])[0, 1] > 0.9
    slope = np.polyfit(local[support], estimate[support], 1)[0]
    assert 0.7 < slope < 1.1


@every_method
def test_external_field_is_removed(remove, case):
    _, mask, _, background = case
    estimate, support = remove(background, mask, (1, 1, 1))
    assert np.linalg.norm(estimate) < 0.06 * np.linalg.norm(background[support])


@pytest.mark.parametrize('remove', [vsharp, METHODS['resharp']], ids=['vsharp', 'resharp'])
@pytest.mark.parametrize('voxel_size', VOXELS)
@pytest.mark.parametrize('name', ['1', 'x', 'z', 'xy', 'x2-y2', '2z2-x2-y2'])
def test_harmonic_polynomials_vanish(remove, voxel_size, name):
    _, mask, _, _ = phantom(voxel_size=voxel_size)
    axes = [(np.arange(n) - n / 2) * s for n, s in zip(SHAPE, voxel_size, strict=True)]
    x, y, z = np.meshgrid(*axes, indexing='ij')
    field = {
        '1': np.ones(SHAPE),
        'x': x,
        'z': z,
        'xy': x * y,
        'x2-y2': x**2 - y**2,
        '2z2-x2-y2': 2 * z**2 - x**2 - y**2,
    }[name]
    field = field / np.abs(field).max()
    estimate, support = remove(field, mask, voxel_size)
    assert np.std(estimate[support]) < 0.02 * np.sqrt(np.mean(field[support] ** 2))


@every_method
def test_axes_and_flips(remove):
    voxel_size, b0_dir = np.array([1.0, 1.2, 1.5]), np.array([0.3, -0.4, 0.866])
    _, mask, local, background = phantom((23, 24, 21), voxel_size, b0_dir)
    total = local + background
    one, support = remove(total, mask, voxel_size, b0_dir=b0_dir)
    order = [2, 0, 1]
    other, moved = remove(
        total.transpose(order), mask.transpose(order), voxel_size[order], b0_dir=b0_dir[order]
    )
    scale = np.abs(one).max()
    assert np.array_equal(moved, support.transpose(order))
    np.testing.assert_allclose(other, one.transpose(order), atol=2e-3 * scale)
    b0_dir[1] *= -1
    flipped, turned = remove(np.flip(total, 1), np.flip(mask, 1), voxel_size, b0_dir=b0_dir)
    assert np.array_equal(turned, np.flip(support, 1))
    np.testing.assert_allclose(flipped, np.flip(one, 1), atol=2e-3 * scale)


@every_method
def test_scaling_zero_and_input(remove, case):
    _, mask, local, background = case
    total = local + background
    before = total.copy()
    once, _ = remove(total, mask, (1, 1, 1))
    assert np.array_equal(total, before)
    twice, _ = remove(2 * total, mask, (1, 1, 1))
    np.testing.assert_allclose(twice, 2 * once, atol=1e-5)
    assert once.dtype == np.float32
    assert not remove(0 * total, mask, (1, 1, 1))[0].any()


@every_method
def test_values_outside_the_mask_are_ignored(remove, case):
    _, mask, local, background = case
    total = local + background
    one, _ = remove(total, mask, (1, 1, 1))
    other, _ = remove(np.where(mask, total, np.nan), mask, (1, 1, 1))
    assert np.array_equal(one, other)


@every_method
def test_bad_input_is_named(remove, case):
    _, mask, local, _ = case
    with pytest.raises(ValueError, match='mask is empty'):
        remove(local, 0 * mask, (1, 1, 1))
    with pytest.raises(ValueError, match='one grid'):
        remove(local, mask[1:], (1, 1, 1))
    with pytest.raises(ValueError, match='voxel_size'):
        remove(local, mask, (1, 1, 0))
    with pytest.raises(ValueError, match='not finite'):
        remove(np.full(mask.shape, np.inf), mask, (1, 1, 1))
    with pytest.raises(ValueError, match=r'weights must lie in \[0, 1\]'):
        remove(local, mask, (1, 1, 1), weights=3.0 * mask)


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
