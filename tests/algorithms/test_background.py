"""PDF and the methods with spherical mean values: SHARP, V-SHARP, RESHARP and iSMV."""

import numpy as np
import pytest
from scipy import fft
from scipy.sparse.linalg import LinearOperator, cg

from qsmflow.algorithms import operators as ops
from qsmflow.algorithms.background.ismv import ismv
from qsmflow.algorithms.background.pdf import pdf
from qsmflow.algorithms.background.spherical import resharp, sharp, vsharp
from tests.algorithms.background_battery import BackgroundBattery, case
from tests.algorithms.fields import phantom, relative_error

__all__ = ['case']


class TestPdf(BackgroundBattery):
    method = staticmethod(pdf)
    harmonic = None
    # The blocks of the coarse grids begin at a corner of the box.
    axes_limit = 0.03


class TestSharp(BackgroundBattery):
    method = staticmethod(sharp)
    options = {'radius': 3}


class TestVsharp(BackgroundBattery):
    method = staticmethod(vsharp)


class TestResharp(BackgroundBattery):
    method = staticmethod(resharp)
    options = {'radius': 3}


class TestIsmv(BackgroundBattery):
    method = staticmethod(ismv)
    options = {'radius': 3}


@pytest.fixture
def transforms(monkeypatch):
    """Count the Fourier transforms."""
    counts = {'rfft': 0, 'irfft': 0}
    for name in counts:
        plain = getattr(ops, name)

        def counted(*args, name=name, plain=plain):
            counts[name] += 1
            return plain(*args)

        for module in (ops, ops.fourier):  # callers of ours, and operators that transform
            monkeypatch.setattr(module, name, counted)
    return counts


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
    total, alone = local + background, {'coarse_iter': (), 'return_history': True}
    _, _, history = pdf(total, mask, (1, 1, 1), max_iter=15, **alone)
    assert len(history) == 15
    assert history[-1] < 0.1 * history[0]


def test_coarse_grids_save_iterations(case):
    _, mask, local, background = case
    errors = [
        relative_error(pdf(local + background, mask, (1, 1, 1), **options)[0], local, mask)
        for options in ({'max_iter': 12, 'coarse_iter': ()}, {'max_iter': 12})
    ]
    assert errors[1] < 0.9 * errors[0]


def reference_parts(field, mask, voxel_size, radius):
    """Return grid, filter, eroded mask and padded field by plain FFT on a doubled grid."""
    grid = tuple(2 * n for n in mask.shape)
    kernel = ops.smv_kernel(grid, voxel_size, radius).astype(np.float64)
    padded = ops.pad_to(np.where(mask, field, 0), grid).astype(np.float64)
    inside = ops.pad_to(mask, grid)
    means = through(inside.astype(np.float64), kernel)
    return grid, 1 - kernel, inside & (means > 0.999), padded


def through(volume, multiplier):
    return fft.irfftn(fft.rfftn(volume) * multiplier, volume.shape)


@pytest.mark.parametrize('voxel_size', [(1, 1, 1), (1, 1.2, 2)])
def test_vsharp_is_the_sum_over_radii_by_transforms(voxel_size):
    _, mask, local, background = phantom(voxel_size=voxel_size)
    total, radii = local + background, (10, 8, 6.5, 5, 3, 2)
    done, high_pass = 0, 0
    for radius in radii:
        grid, filtering, fits, padded = reference_parts(total, mask, voxel_size, radius)
        if fits.any() and not np.any(done):
            largest = radius
        high_pass = high_pass + through(padded, filtering) * (fits & (done == 0))
        done = done | fits
    # The deconvolution depends on the padding: that of the bounding box by the largest sphere.
    box = ops.bounding_box(mask)
    reach = [int(np.ceil(largest / s)) + 1 for s in voxel_size]
    grid = ops.pad_shape(mask[box].shape, reach)
    filtering = 1 - ops.smv_kernel(grid, voxel_size, largest).astype(np.float64)
    inverse = np.divide(1, filtering, out=np.zeros_like(filtering), where=filtering > 0.05)
    boxed = ops.pad_to(ops.crop(high_pass, mask.shape)[box], grid)
    expected = ops.crop(through(boxed, inverse), mask[box].shape)
    estimate, support = vsharp(total, mask, voxel_size, radii=radii)
    assert np.array_equal(support, ops.crop(done, mask.shape))
    expected = expected * support[box]
    np.testing.assert_allclose(estimate[box], expected, atol=2e-5 * np.abs(expected).max())


def test_vsharp_transforms(case, transforms):
    _, mask, local, background = case
    vsharp(local + background, mask, (1, 1, 1))
    # Two halves for each radius of 12 to 5 mm and two pairs; 4 to 1 mm are summed directly.
    assert transforms == {'rfft': 3, 'irfft': 17}


def test_resharp_is_the_minimum_of_its_objective():
    voxel_size, radius, reg_weight = (1.0, 1.2, 1.5), 3.0, 1e-2
    _, mask, local, background = phantom((23, 24, 21), voxel_size)
    box = ops.bounding_box(mask)
    total, mask = (local + background)[box], mask[box]
    weights = np.random.default_rng(1).uniform(0.3, 1, mask.shape).astype(np.float32)
    estimate, support = resharp(
        total, mask, voxel_size, weights=weights, radius=radius, reg_weight=reg_weight,
        max_iter=500, tol=1e-6,
    )  # fmt: skip
    grid = ops.pad_shape(mask.shape, [int(np.ceil(radius / s)) + 1 for s in voxel_size])
    filtering = 1 - ops.smv_kernel(grid, voxel_size, radius).astype(np.float64)
    weight2 = ops.pad_to(weights * support, grid).astype(np.float64) ** 2

    def normal(x):
        x = x.reshape(grid)
        return (through(through(x, filtering) * weight2, filtering) + reg_weight * x).ravel()

    size = int(np.prod(grid))
    rhs = through(through(ops.pad_to(total, grid), filtering) * weight2, filtering).ravel()
    expected, code = cg(LinearOperator((size, size), normal), rhs, rtol=1e-9, maxiter=2000)
    assert code == 0
    expected = ops.crop(expected.reshape(grid), mask.shape) * support
    np.testing.assert_allclose(estimate, expected, atol=1e-3 * np.abs(expected).max())


def test_resharp_takes_one_transform_pair_an_iteration(case, transforms):
    _, mask, local, background = case
    total = local + background
    *_, history = resharp(total, mask, (1, 1, 1), return_history=True)
    assert transforms['rfft'] + transforms['irfft'] <= 2 * len(history) + 6
    assert len(history) <= 15
    assert history[-1] < 1e-3


def test_resharp_is_not_worse_than_without_preconditioner(case):
    # Plain conjugate gradients on the volume, with four times as many iterations.
    _, mask, local, background = case
    estimate, support = resharp(local + background, mask, (1, 1, 1), radius=3)
    grid, filtering, fits, padded = reference_parts(local + background, mask, (1, 1, 1), 3)

    def normal(x):
        x = x.reshape(grid)
        return (through(through(x, filtering) * fits, filtering) + 1e-4 * x).ravel()

    size = int(np.prod(grid))
    rhs = through(through(padded, filtering) * fits, filtering).ravel()
    plain, _ = cg(LinearOperator((size, size), normal), rhs, rtol=1e-9, maxiter=60)
    plain = ops.crop(plain.reshape(grid), mask.shape)
    error = relative_error(plain, local, support)
    assert relative_error(estimate, local, support) < 1.03 * error


def test_ismv_is_the_limit_of_the_published_iteration():
    _, mask, local, background = phantom((23, 24, 21))
    total = local + background
    estimate, support, history = ismv(
        total, mask, (1, 1, 1), radius=3, tol=1e-5, return_history=True
    )
    _, filtering, fits, padded = reference_parts(total, mask, (1, 1, 1), 3)
    background = padded.copy()
    for _ in range(150):
        background = np.where(fits, background - through(background, filtering), padded)
    expected = ops.crop(padded - background, mask.shape)
    assert np.array_equal(support, ops.crop(fits, mask.shape))
    np.testing.assert_allclose(estimate, expected, atol=1e-3 * np.abs(expected).max())
    assert len(history) <= 9


@pytest.mark.parametrize(
    ('voxel_size', 'radius'), [((1, 1, 1), 2), ((1, 1, 3), 6), ((1, 1, 3), 2), ((1, 2, 1), 4)]
)
def test_ismv_converges_at_once(voxel_size, radius, transforms):
    _, mask, local, background = phantom(voxel_size=voxel_size)
    transforms['rfft'] = 0
    total = local + background
    *_, history = ismv(total, mask, voxel_size, radius=radius, return_history=True)
    assert len(history) <= 8
    assert history[-1] < 1e-3
    assert transforms['rfft'] <= len(history) + 2


def test_a_larger_sphere_removes_more_and_keeps_less(case):
    _, mask, local, background = case
    small, wide = (ismv(local + background, mask, (1, 1, 1), radius=r) for r in (2, 6))
    core = wide[1]
    assert core.sum() < 0.6 * small[1].sum()
    assert relative_error(wide[0], local, core) < relative_error(small[0], local, core)


def test_ismv_weights_mend_the_rim(case):
    _, mask, local, background = case
    total, weights = local + background, mask.astype(np.float32)
    clean, support = ismv(total, mask, (1, 1, 1), radius=3)
    rim = np.argwhere(mask & ~support)[::40]
    total[tuple(rim.T)] += 0.5
    weights[tuple(rim.T)] = 0.02
    plain, _ = ismv(total, mask, (1, 1, 1), radius=3)
    weighted, _ = ismv(total, mask, (1, 1, 1), radius=3, weights=weights)
    assert np.linalg.norm(weighted - clean) < 0.2 * np.linalg.norm(plain - clean)


def test_sphere_that_wraps_would_see_the_other_side():
    # The mask fills the grid: spheres about its faces leave it and must not fit.
    mask = np.ones((14, 16, 18), bool)
    for method in (sharp, resharp, ismv):
        _, support = method(0.0 * mask, mask, (1, 1, 1), radius=3)
        expected = np.zeros_like(mask)
        expected[3:-3, 3:-3, 3:-3] = True
        assert np.array_equal(support, expected)


def test_spheres_that_fit_nowhere():
    mask = np.zeros((12, 12, 12), bool)
    mask[5:7, 5:7, 5:7] = True
    for method in (sharp, resharp, ismv):
        with pytest.raises(ValueError, match='fits nowhere'):
            method(mask * 1.0, mask, (1, 1, 1), radius=6)
    with pytest.raises(ValueError, match='fits into the mask'):
        vsharp(mask * 1.0, mask, (1, 1, 1), radii=(5, 4))


def test_bad_parameters():
    mask = np.ones((12, 12, 12), bool)
    for method in (sharp, vsharp):
        with pytest.raises(ValueError, match='threshold'):
            method(mask * 1.0, mask, (1, 1, 1), threshold=0)
    for method in (sharp, resharp, ismv):
        with pytest.raises(ValueError, match='radius'):
            method(mask * 1.0, mask, (1, 1, 1), radius=-1)
        with pytest.raises(ValueError, match=r'2\.4 mm or more'):
            method(mask * 1.0, mask, (1, 1, 4), radius=2)
    with pytest.raises(ValueError, match='reg_weight'):
        resharp(mask * 1.0, mask, (1, 1, 1), radius=3, reg_weight=0)
    with pytest.raises(ValueError, match='radii'):
        vsharp(mask * 1.0, mask, (1, 1, 1), radii=(3, 0))
