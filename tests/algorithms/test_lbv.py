"""LBV, its multigrid solver, and the treatment of doubtful values at the rim."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from qsmflow.algorithms import operators as ops
from qsmflow.algorithms.background._multigrid import (
    DirichletLaplacian,
    framed,
    interior,
    unframed,
)
from qsmflow.algorithms.background._rim import trusted_values
from qsmflow.algorithms.background.lbv import lbv
from qsmflow.algorithms.solvers import conjugate_gradient, dot
from tests.algorithms.background_battery import BackgroundBattery, case
from tests.algorithms.fields import phantom, relative_error

__all__ = ['case']


class TestLbv(BackgroundBattery):
    method = staticmethod(lbv)
    harmonic = 1e-4


def noise(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def rough_mask(shape=(40, 37, 30), threshold=-0.05):
    """Return a sponge: half of the voxels, in one large and many small parts with holes."""
    return gaussian_filter(noise(shape, 5), 1.2) > threshold


def dense_laplacian(mask, voxel_size):
    """Return the Laplacian from all voxels of the mask to its interior, and both index lists."""
    voxels, inner = np.argwhere(mask), np.argwhere(interior(mask))
    column = {tuple(v): n for n, v in enumerate(voxels)}
    matrix = np.zeros((len(inner), len(voxels)))
    for row, voxel in enumerate(inner):
        for axis, step in enumerate(voxel_size):
            for side in (-1, 1):
                other = voxel.copy()
                other[axis] += side
                matrix[row, column[tuple(other)]] += 1 / step**2
                matrix[row, column[tuple(voxel)]] -= 1 / step**2
    return matrix, voxels, inner


@pytest.mark.parametrize('voxel_size', [(1, 1, 1), (0.7, 1, 2.5)])
def test_lbv_is_the_dense_solution(voxel_size):
    mask = rough_mask((9, 8, 8), -0.3)
    total = noise(mask.shape, 1)
    estimate, support = lbv(total, mask, voxel_size, peel=0)
    matrix, voxels, inner = dense_laplacian(mask, voxel_size)
    is_inner = interior(mask)[tuple(voxels.T)]
    values = total[tuple(voxels.T)].astype(np.float64)
    background = np.linalg.solve(matrix[:, is_inner], -matrix[:, ~is_inner] @ values[~is_inner])
    assert np.array_equal(support, interior(mask))
    assert len(inner) > 40
    np.testing.assert_allclose(estimate[tuple(inner.T)], values[is_inner] - background, atol=2e-5)


@pytest.mark.parametrize(
    ('voxel_size', 'mask'),
    [
        ((1, 1, 1), phantom()[1]),
        ((1, 1, 3), phantom()[1]),
        ((3, 1, 1.2), phantom()[1]),
        ((1, 1, 1), rough_mask()),
        ((1, 2, 1), rough_mask()),
        ((1, 1, 1), np.ones((33, 34, 35), bool)),
        ((1, 1, 1), np.ones((60, 5, 3), bool)),
        ((1, 1, 6), phantom()[1][:, :, 15:20]),
    ],
)
def test_cycles_do_not_depend_on_mask_or_voxels(voxel_size, mask):
    *_, history = lbv(noise(mask.shape), mask, voxel_size, peel=0, return_history=True)
    assert history[-1] < 1e-6
    assert len(history) <= 11


def test_cycles_grow_little_with_the_grid():
    numbers = []
    for scale in (0.5, 1, 2):
        shape = tuple(int(n * scale) for n in (44, 40, 36))
        mask = phantom(shape, (1 / scale,) * 3)[1]
        *_, history = lbv(noise(shape), mask, (1, 1, 1), return_history=True)
        numbers.append(len(history))
    assert max(numbers) <= 10


def test_a_cycle_is_symmetric_and_near_the_inverse():
    region = rough_mask()
    solver = DirichletLaplacian(region, (1, 1.2, 2))
    a, b = (framed(noise(region.shape, seed) * region) for seed in (1, 2))
    forward = dot(a, solver.cycle(b, solver.empty()))
    assert forward == pytest.approx(dot(b, solver.cycle(a, solver.empty())), rel=1e-4)
    assert dot(a, solver.cycle(a, solver.empty())) > 0
    image = solver.laplacian(a, solver.empty())
    found = solver.cycle(-image, solver.empty())
    assert np.linalg.norm(found - a) < 0.35 * np.linalg.norm(a)
    assert not unframed(found)[~region].any()


@pytest.mark.parametrize('voxel_size', [(1, 1, 1), (3, 1, 1)])
def test_a_cycle_does_not_depend_on_the_threads(voxel_size, monkeypatch):
    # Each thread restricts a slab of planes, and works out those that it shares with others.
    region = rough_mask()
    solver = DirichletLaplacian(region, voxel_size)
    rhs = framed(noise(region.shape) * region)
    found = []
    for threads in (1, 2, 5):
        monkeypatch.setattr(ops, 'workers', lambda threads=threads: threads)
        found.append(solver.cycle(rhs, solver.empty()).tobytes())
    assert found[0] == found[1] == found[2]


def test_solution_is_that_of_a_slow_solver():
    region = rough_mask((20, 21, 22))
    solver = DirichletLaplacian(region, (1, 1, 1.5))
    rhs = framed(noise(region.shape) * region)

    def apply(u):
        return -solver.laplacian(u, solver.empty())

    slow, _ = conjugate_gradient(apply, rhs, max_iter=500, tol=1e-6)
    fast, history = conjugate_gradient(
        apply, rhs, precondition=lambda r: solver.cycle(r, solver.empty()), tol=1e-6
    )
    assert len(history) <= 9
    np.testing.assert_allclose(fast, slow, atol=1e-4 * np.abs(slow).max())


def test_field_of_a_dipole_outside():
    # Not from a transform: the closed form, with its source 9 mm from the mask.
    _, mask, _, _ = phantom()
    x, y, z = np.meshgrid(*(np.arange(n) - n / 2 for n in mask.shape), indexing='ij')
    for centre in ((0, 0, 22), (24, 0, 0), (16, 14, 5)):
        dx, dy, dz = (a - c for a, c in zip((x, y, z), centre, strict=True))
        r2 = dx**2 + dy**2 + dz**2
        r2[~mask] = 1
        field = (3 * dz**2 / r2 - 1) / r2**1.5
        estimate, support = lbv(field, mask, (1, 1, 1))
        assert np.linalg.norm(estimate) < 0.01 * np.linalg.norm(field[support])


def test_peel_keeps_a_bad_layer_out(case):
    _, mask, local, background = case
    total = local + background
    total[mask & ~interior(mask)] += noise(mask.shape)[mask & ~interior(mask)]
    errors, kept = [], []
    core = interior(interior(interior(mask)))
    for peel in (0, 1):
        estimate, support = lbv(total, mask, (1, 1, 1), peel=peel)
        errors.append(relative_error(estimate, local, core))
        kept.append(support)
    assert errors[1] < 0.5 * errors[0]
    assert np.array_equal(kept[1], interior(kept[0]))


def test_weights_mend_the_boundary(case):
    _, mask, local, background = case
    clean, support = lbv(local + background, mask, (1, 1, 1))
    total, weights = local + background, mask.astype(np.float32)
    ring = interior(mask) & ~support
    bad = np.argwhere(ring)[::12]
    total[tuple(bad.T)] += 1.0
    weights[tuple(bad.T)] = 0.02
    plain, _ = lbv(total, mask, (1, 1, 1))
    weighted, _ = lbv(total, mask, (1, 1, 1), weights=weights)
    assert np.linalg.norm(weighted - clean) < 0.1 * np.linalg.norm(plain - clean)
    same, _ = lbv(total, mask, (1, 1, 1), weights=mask.astype(np.float32))
    assert np.array_equal(same, plain)


def test_trusted_values_keep_linear_fields():
    mask = rough_mask(threshold=-0.2)
    x, y, z = np.meshgrid(*map(np.arange, mask.shape), indexing='ij')
    field = (0.3 + 0.01 * x - 0.02 * y + 0.015 * z).astype(np.float32)
    weights = np.random.default_rng(3).uniform(0, 1, mask.shape).astype(np.float32)
    spoilt = field + np.where(weights < 0.2, 5, 0).astype(np.float32)
    weights[weights < 0.2] = 0
    inner = np.zeros_like(mask)
    inner[6:-6, 6:-6, 6:-6] = mask[6:-6, 6:-6, 6:-6]
    found = trusted_values(spoilt, weights, inner, mask, (1, 1, 1.3))
    np.testing.assert_allclose(found[inner], field[inner], atol=2e-3)
    assert np.array_equal(found[~inner], spoilt[~inner])


def test_trusted_values_without_any_neighbour():
    field = np.full((9, 3, 3), 2, np.float32)
    mask = np.zeros(field.shape, bool)
    mask[0, 1, 1] = mask[8, 1, 1] = True
    weights = np.zeros_like(field)
    weights[8] = 0.5
    assert np.array_equal(trusted_values(field, weights, mask, mask, (1, 1, 1)), field)


def test_parts_do_not_know_of_each_other():
    mask = np.zeros((30, 14, 14), bool)
    mask[1:13, 1:13, 1:13] = mask[16:29, 1:13, 1:13] = True
    total = noise(mask.shape)
    both, _ = lbv(total, mask, (1, 1, 1))
    one = mask.copy()
    one[15:] = False
    alone, support = lbv(total, one, (1, 1, 1))
    np.testing.assert_allclose(both[support], alone[support], atol=1e-5)


def test_bad_parameters_and_small_masks():
    mask = np.ones((5, 5, 5), bool)
    for peel in (-1, 0.5):
        with pytest.raises(ValueError, match='peel must be'):
            lbv(mask * 1.0, mask, (1, 1, 1), peel=peel)
    _, support = lbv(mask * 1.0, mask, (1, 1, 1))
    assert support.sum() == 1
    with pytest.raises(ValueError, match='after 2 layers'):
        lbv(mask * 1.0, mask, (1, 1, 1), peel=2)
    with pytest.raises(ValueError, match='no voxel inside'):
        lbv(np.ones((8, 8, 1)), np.ones((8, 8, 1)), (1, 1, 1))
