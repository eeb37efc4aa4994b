import math

import numpy as np
import pytest

from qsmflow.algorithms import operators as ops
from qsmflow.algorithms.solvers import cgls, conjugate_gradient, dot
from tests.algorithms.fields import B0_DIRECTIONS

SHAPES = [(8, 10, 12), (9, 7, 5), (6, 9, 10)]


def _random(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _apply(kernel, volume):
    return ops.irfft(ops.rfft(volume) * kernel, volume.shape)


@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize('b0_dir', B0_DIRECTIONS)
def test_dipole_is_its_own_adjoint(shape, b0_dir):
    kernel = ops.dipole_kernel(shape, (1.0, 1.3, 2.0), b0_dir=b0_dir)
    x, y = _random(shape, 1), _random(shape, 2)
    assert dot(_apply(kernel, x), y) == pytest.approx(dot(x, _apply(kernel, y)), rel=1e-4)


@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize('b0_dir', B0_DIRECTIONS)
def test_half_and_full_kernels_are_one_operator(shape, b0_dir):
    volume = _random(shape)
    half = ops.dipole_kernel(shape, (1.0, 1.3, 2.0), b0_dir=b0_dir)
    full = ops.dipole_kernel(shape, (1.0, 1.3, 2.0), b0_dir=b0_dir, real=False)
    by_full = np.fft.ifftn(np.fft.fftn(volume) * full)
    assert np.abs(by_full.imag).max() < 1e-6
    np.testing.assert_allclose(_apply(half, volume), by_full.real, atol=1e-5)


def test_dipole_kernel_values():
    b0_dir = ops.unit_vector((0.2, -0.5, 0.8))
    kernel = ops.dipole_kernel((9, 7, 11), (1.0, 2.0, 0.5), b0_dir=b0_dir, real=False)
    k = np.array([np.fft.fftfreq(9)[2], np.fft.fftfreq(7, 2.0)[-3], np.fft.fftfreq(11, 0.5)[4]])
    assert kernel[2, -3, 4] == pytest.approx(1 / 3 - (k @ b0_dir) ** 2 / (k @ k), abs=1e-6)
    assert kernel[0, 0, 0] == 0
    assert kernel.min() >= -2 / 3 - 1e-6
    assert kernel.max() <= 1 / 3 + 1e-6


def test_sign_and_length_of_b0_have_no_effect():
    one, other = (
        ops.dipole_kernel((8, 9, 10), (1, 1, 1), b0_dir=v) for v in [(1, 2, 3), (-2, -4, -6)]
    )
    np.testing.assert_allclose(one, other, atol=1e-6)


@pytest.mark.parametrize('bad', [(0, 0, 0), (1, 0), (np.nan, 0, 1)])
def test_bad_direction_is_refused(bad):
    with pytest.raises(ValueError, match='b0_dir'):
        ops.dipole_kernel((4, 4, 4), (1, 1, 1), b0_dir=bad)


@pytest.mark.parametrize('order', [(1, 2, 0), (2, 1, 0), (1, 0, 2)])
def test_forward_field_follows_the_axes(order):
    chi = _random((8, 10, 13))
    voxel_size, b0_dir = np.array([1.0, 1.5, 2.0]), np.array([0.3, -0.4, 0.866])
    field = ops.forward_field(chi, voxel_size, b0_dir=b0_dir)
    moved = ops.forward_field(
        chi.transpose(order), voxel_size[list(order)], b0_dir=b0_dir[list(order)]
    )
    np.testing.assert_allclose(moved, field.transpose(order), atol=1e-5)


@pytest.mark.parametrize('axis', [0, 1, 2])
def test_forward_field_follows_flips(axis):
    chi = _random((8, 10, 13))
    b0_dir = np.array([0.3, -0.4, 0.866])
    field = ops.forward_field(chi, (1, 1, 1), b0_dir=b0_dir)
    b0_dir[axis] *= -1
    flipped = ops.forward_field(np.flip(chi, axis), (1, 1, 1), b0_dir=b0_dir)
    np.testing.assert_allclose(flipped, np.flip(field, axis), atol=1e-5)


@pytest.mark.parametrize('voxel_size', [(1.0, 1.0, 1.0), (1.0, 1.0, 1.5)])
@pytest.mark.parametrize('b0_dir', B0_DIRECTIONS)
def test_field_of_a_sphere(voxel_size, b0_dir):
    shape, radius = (48, 48, 40), 7.0
    axes = [(np.arange(n) - n // 2) * s for n, s in zip(shape, voxel_size, strict=True)]
    x, y, z = np.meshgrid(*axes, indexing='ij')
    r = np.sqrt(x**2 + y**2 + z**2)
    width = np.mean(voxel_size)
    chi = np.clip((radius - r) / width + 0.5, 0, 1).astype(np.float32)
    field = ops.forward_field(chi, voxel_size, b0_dir=b0_dir)
    b = ops.unit_vector(b0_dir)
    safe = np.maximum(r, 1e-6)
    cosine = (x * b[0] + y * b[1] + z * b[2]) / safe
    outside = (radius / safe) ** 3 / 3 * (3 * cosine**2 - 1)
    # Partial volume at the surface and ringing of the kernel leave about two parts in a hundred.
    assert np.abs(field[r < radius - 3]).max() < 0.025
    assert np.abs((field - outside)[r > radius + 3]).max() < 0.025


def test_field_of_a_cylinder_across_the_field():
    x, y = np.meshgrid(np.arange(64) - 32, np.arange(64) - 32, indexing='ij')
    rho = np.hypot(x, y)
    chi = np.repeat(np.clip(8.5 - rho, 0, 1)[:, :, None], 16, axis=2).astype(np.float32)
    # No padding along the axis of the cylinder: it is periodic, hence without end.
    field = ops.forward_field(chi, (1, 1, 1), b0_dir=(1, 0, 0), pad=(64, 64, 0))
    assert field[rho < 5].mean() == pytest.approx(-1 / 6, abs=5e-3)
    safe = np.maximum(rho, 1)
    outside = 0.5 * (8 / safe) ** 2 * (x**2 - y**2) / safe**2
    assert np.abs((field[:, :, 8] - outside)[rho > 11]).max() < 0.02


@pytest.mark.parametrize('voxel_size', [None, (1.0, 0.7, 2.0)])
@pytest.mark.parametrize('shape', SHAPES)
def test_divergence_is_the_negative_adjoint_of_the_gradient(shape, voxel_size):
    x, v = _random(shape), _random((3, *shape), 1)
    left = dot(ops.gradient(x, voxel_size), v)
    assert left == pytest.approx(-dot(x, ops.divergence(v, voxel_size)), rel=1e-4)


@pytest.mark.parametrize('voxel_size', [None, (1.0, 0.7, 2.0)])
@pytest.mark.parametrize('shape', SHAPES)
def test_laplacian_agrees_with_its_eigenvalues_and_its_adjoint(shape, voxel_size):
    x, y = _random(shape), _random(shape, 1)
    ex, ey, ez = ops.laplacian_eigenvalues(shape, voxel_size)
    stencil = ops.laplacian(x, voxel_size)
    np.testing.assert_allclose(
        _apply(ex[:, None, None] + ey[:, None] + ez, x), -stencil, atol=2e-4
    )
    np.testing.assert_allclose(
        ops.divergence(ops.gradient(x, voxel_size), voxel_size), stencil, atol=2e-4
    )
    assert dot(stencil, y) == pytest.approx(dot(x, ops.laplacian(y, voxel_size)), rel=1e-3)


def test_gradient_is_per_mm():
    x = np.zeros((4, 4, 4), np.float32)
    x[:, :, 2] = 6
    assert ops.gradient(x, (1, 1, 3))[2, 0, 0].tolist() == [0, 2, -2, 0]


@pytest.mark.parametrize(('voxel_size', 'radius'), [((1, 1, 1), 4.0), ((1, 1, 2), 5.0)])
def test_spherical_mean_is_a_mean_and_its_own_adjoint(voxel_size, radius):
    shape = (20, 18, 15)
    kernel = ops.smv_kernel(shape, voxel_size, radius)
    x, y = _random(shape), _random(shape, 1)
    np.testing.assert_allclose(_apply(kernel, np.ones(shape, np.float32)), 1, atol=1e-5)
    assert dot(_apply(kernel, x), y) == pytest.approx(dot(x, _apply(kernel, y)), rel=1e-3)
    point = np.zeros(shape, np.float32)
    point[10, 9, 7] = 1
    spread = _apply(kernel, point)
    volume = 4 / 3 * math.pi * radius**3 / np.prod(voxel_size)
    assert spread.max() == pytest.approx(1 / volume, rel=0.03)
    assert spread.min() > -1e-6


def test_spherical_mean_must_fit():
    with pytest.raises(ValueError, match='does not fit'):
        ops.smv_kernel((8, 8, 8), (1, 1, 1), 6)
    with pytest.raises(ValueError, match='positive'):
        ops.smv_kernel((8, 8, 8), (1, 1, 1), 0)


def test_threads_follow_the_environment(monkeypatch):
    monkeypatch.setenv('OMP_NUM_THREADS', '3,2')
    assert ops.workers() == 3
    monkeypatch.setenv('OMP_NUM_THREADS', 'none')
    assert ops.workers() >= 1


def test_padding_and_cropping_return_the_data():
    volume = _random((5, 6, 7))
    grid = ops.pad_shape(volume.shape, (1, 2, 3))
    assert all(g >= n + 2 * p for g, n, p in zip(grid, volume.shape, (1, 2, 3), strict=True))
    padded = ops.pad_to(volume, grid)
    assert np.array_equal(ops.crop(padded, volume.shape), volume)
    assert padded.sum(dtype=np.float64) == pytest.approx(volume.sum(dtype=np.float64))


@pytest.mark.parametrize('shape', [(5, 6, 7), (9, 10, 12), (9, 3, 12), (1, 1, 1)])
def test_transforms_of_padded_data_leave_out_lines_of_zeros_alone(shape):
    grid = (9, 10, 12)
    volume = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    spectrum = ops.rfft(volume, grid)
    expected = np.fft.rfftn(ops.pad_to(volume, grid))
    assert spectrum.dtype == np.complex64
    np.testing.assert_allclose(spectrum, expected, atol=1e-6 * np.abs(expected).max())
    spectrum *= ops.dipole_kernel(grid, (1, 1, 2), b0_dir=(0.3, 0.1, 0.9))
    whole = ops.irfft(spectrum.copy(), grid)
    part = ops.irfft(spectrum, grid, shape)
    assert part.shape == shape
    assert part.dtype == np.float32
    np.testing.assert_allclose(part, ops.crop(whole, shape), atol=1e-6 * np.abs(whole).max())


def test_conjugate_gradients_solve_dense_systems():
    rng = np.random.default_rng(3)
    matrix = rng.normal(size=(12, 8)).astype(np.float32)
    data = rng.normal(size=12).astype(np.float32)
    expected = np.linalg.lstsq(matrix.astype(np.float64), data, rcond=None)[0]
    x, history = cgls(
        lambda v: matrix @ v, lambda r: matrix.T @ r, data.copy(), max_iter=40, tol=1e-6
    )
    np.testing.assert_allclose(x, expected, atol=1e-4)
    assert history[-1] < 1e-6 or len(history) == 40
    x, history = conjugate_gradient(
        lambda v: matrix.T @ (matrix @ v), matrix.T @ data, max_iter=40, tol=1e-6
    )
    np.testing.assert_allclose(x, expected, atol=1e-4)


def test_solvers_return_zero_for_zero_data():
    zero = np.zeros(5, np.float32)
    for x, history in (
        cgls(lambda v: v, lambda r: r, zero),
        conjugate_gradient(lambda v: v, zero),
    ):
        assert not x.any()
        assert history == []
