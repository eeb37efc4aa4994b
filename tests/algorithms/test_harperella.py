"""iHARPERELLA."""

import numpy as np
import pytest
from scipy import fft

from qsmflow.algorithms import operators as ops
from qsmflow.algorithms.background._multigrid import interior
from qsmflow.algorithms.background.harperella import iharperella
from qsmflow.algorithms.background.pdf import pdf
from tests.algorithms.background_battery import POLYNOMIALS, BackgroundBattery, case
from tests.algorithms.fields import SHAPE, phantom, relative_error
from tests.algorithms.test_lbv import dense_laplacian, noise, rough_mask

__all__ = ['case']


class TestIharperella(BackgroundBattery):
    method = staticmethod(iharperella)
    kept = 0.999
    harmonic = 1e-4
    axes_limit = 1e-2


@pytest.mark.parametrize('voxel_size', [(1, 1, 1), (0.8, 1, 2)])
def test_it_is_the_field_less_its_best_harmonic_fit(voxel_size):
    mask = rough_mask((9, 8, 8), -0.3)
    total = noise(mask.shape, 2)
    weights = np.random.default_rng(4).uniform(0.3, 1, mask.shape).astype(np.float32)
    estimate, support = iharperella(
        total, mask, voxel_size, weights=weights, tol=1e-6, max_iter=500
    )
    matrix, voxels, inner = dense_laplacian(mask, voxel_size)
    harmonic = np.linalg.svd(matrix)[2][len(inner) :].T
    index = tuple(voxels.T)
    w = weights[index].astype(np.float64)
    fit = np.linalg.lstsq(w[:, None] * harmonic, w * total[index], rcond=None)[0]
    expected = total[index] - harmonic @ fit
    assert np.array_equal(support, mask)
    np.testing.assert_allclose(estimate[index], expected, atol=1e-4 * np.abs(expected).max())


def test_it_is_the_published_minimum_over_exterior_sources():
    # Sources on all other voxels of a grid, by dense least squares.
    mask = np.zeros((8, 8, 8), bool)
    mask[2:7, 1:6, 2:6] = True
    mask[4, 3, 5] = False
    total = noise(mask.shape, 3) * mask
    estimate, _ = iharperella(total, mask, (1, 1, 1), tol=1e-6, max_iter=300)
    sines = [4 * np.sin(np.pi * k / 8) ** 2 for k in np.ogrid[:8, :8, :5]]
    eigenvalue = sines[0] + sines[1] + sines[2]
    eigenvalue[0, 0, 0] = np.inf

    def inverse(source):
        spectrum = fft.rfftn(source) / -eigenvalue
        return fft.irfftn(spectrum, mask.shape)[mask]

    # A periodic Laplacian has no mean: one voxel outside makes up for all the others.
    inner = interior(mask)
    known = np.where(inner, ops.laplacian(total), 0).astype(np.float64)
    known[0, 0, 0] -= known.sum()
    columns = [np.ones(mask.sum())]
    for voxel in np.argwhere(~inner)[1:]:
        source = np.zeros(mask.shape)
        source[tuple(voxel)] = 1
        source[0, 0, 0] = -1
        columns.append(inverse(source))
    design = np.stack(columns, axis=1)
    start = inverse(known)
    expected = start - design @ np.linalg.lstsq(design, start, rcond=1e-10)[0]
    np.testing.assert_allclose(estimate[mask], expected, atol=1e-4 * np.abs(expected).max())


def test_it_keeps_the_laplacian_and_no_harmonic_part(case):
    _, mask, local, background = case
    total = local + background
    estimate, _ = iharperella(total, mask, (1, 1, 1), tol=1e-5, max_iter=200)
    inner = interior(mask)
    change = (ops.laplacian(estimate) - ops.laplacian(total))[inner]
    assert np.linalg.norm(change) < 1e-3 * np.linalg.norm(ops.laplacian(total)[inner])
    axes = np.meshgrid(*(np.arange(n) - n / 2 for n in SHAPE), indexing='ij')
    for polynomial in POLYNOMIALS.values():
        values = polynomial(*axes)[mask]
        cosine = estimate[mask] @ values / np.linalg.norm(estimate) / np.linalg.norm(values)
        assert abs(cosine) < 1e-4


def test_only_the_laplacian_counts(case):
    # Any harmonic offset, as an unwrapped phase has it, drops out.
    _, mask, local, background = case
    total = local + background
    x, y, _ = np.meshgrid(*(np.arange(n, dtype=np.float32) for n in SHAPE), indexing='ij')
    one, _ = iharperella(total, mask, (1, 1, 1))
    other, _ = iharperella(total + 0.01 * x - 0.02 * y + 0.5, mask, (1, 1, 1))
    np.testing.assert_allclose(other, one, atol=2e-3 * np.abs(one).max())


def test_the_stop_is_where_nothing_changes(case):
    _, mask, local, background = case
    default, _, history = iharperella(local + background, mask, (1, 1, 1), return_history=True)
    full, _, long = iharperella(
        local + background, mask, (1, 1, 1), tol=1e-5, max_iter=300, return_history=True
    )
    assert len(history) <= 20 < len(long) <= 60
    assert relative_error(default, full, mask) < 0.03
    assert relative_error(default, local, mask) < relative_error(full, local, mask) + 0.01


def test_weights_keep_bad_voxels_from_spreading(case):
    _, mask, local, background = case
    bad = np.argwhere(mask)[:: mask.sum() // 60]
    total, weights = local + background, mask.astype(np.float32)
    total[tuple(bad.T)] += 2.0
    weights[tuple(bad.T)] = 0.01
    good = mask & (weights == 1)
    plain, _ = iharperella(total, mask, (1, 1, 1))
    weighted, _ = iharperella(total, mask, (1, 1, 1), weights=weights)
    assert relative_error(weighted, local, good) < 0.6 * relative_error(plain, local, good)


def test_it_is_in_the_class_of_projections(case):
    _, mask, local, background = case
    total = local + background
    found, _ = iharperella(total, mask, (1, 1, 1))
    other, _ = pdf(total, mask, (1, 1, 1), inside_scale=0)
    assert relative_error(found, local, mask) < relative_error(other, local, mask) + 0.03


def test_masks_without_interior_are_refused():
    solid = np.ones((9, 8, 7), bool)
    checkerboard = np.indices(solid.shape).sum(axis=0) % 2 == 0
    shell = solid & ~np.pad(np.ones((7, 6, 5), bool), 1)
    for mask in (solid[:1, :1, :1], solid[..., :1], solid[..., :2], checkerboard, shell):
        with pytest.raises(ValueError, match='no voxel inside its boundary layer'):
            iharperella(noise(mask.shape), mask, (1, 1, 1))


def test_field_of_a_small_source_outside():
    _, mask, _, _ = phantom()
    x, y, z = np.meshgrid(*(np.arange(n) - n / 2 for n in mask.shape), indexing='ij')
    dx, dz = x - 22, z - 3
    r2 = dx**2 + y**2 + dz**2
    field = np.where(mask, (3 * dz**2 / r2 - 1) / r2**1.5, 0)
    estimate, _ = iharperella(field, mask, (1, 1, 1))
    assert np.linalg.norm(estimate) < 0.03 * np.linalg.norm(field)
