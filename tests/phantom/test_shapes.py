import numpy as np
import pytest

from qsmflow.algorithms.operators import forward_field
from qsmflow.phantom.shapes import cylinder, sphere

OBLIQUE = (0.36, -0.48, 0.8)


@pytest.mark.parametrize('b0_dir', [(0, 0, 1), OBLIQUE])
def test_sphere_field_agrees_with_the_forward_model(b0_dir):
    shape, size = (64, 64, 48), (1.0, 1.0, 1.3)
    chi, field = sphere(shape, size, radius=7.0, b0_dir=b0_dir)
    computed = forward_field(chi, size, b0_dir=b0_dir, pad=32)
    centre = (np.array(shape) - 1) / 2
    grid = [(k - c) * v for k, c, v in zip(np.indices(shape), centre, size, strict=True)]
    distance = np.sqrt(sum(g**2 for g in grid))
    outside = (distance > 8.5) & (distance < 22)
    error = computed[outside] - field[outside]
    # A turned field leaves more than 100 %, a wrong sign 200 %.
    assert np.sqrt(np.mean(error**2)) < 0.05 * np.sqrt(np.mean(field[outside] ** 2))
    # Inside, the closed form is zero: what is left is the ringing of a voxelated edge.
    assert abs(computed[distance < 5].mean()) < 0.004


def test_sphere_of_air_has_the_opposite_field():
    _, tissue = sphere((20, 20, 20), (1, 1, 1), radius=3, chi=-9.4)
    _, unit = sphere((20, 20, 20), (1, 1, 1), radius=3)
    np.testing.assert_allclose(tissue, -9.4 * unit, rtol=1e-5)


@pytest.mark.parametrize('b0_dir', [(0, 0, 1), (0.6, 0, 0.8)])
@pytest.mark.parametrize('axis', [(1, 0, 0), (0, 0, 1)])
def test_cylinder_field_agrees_with_the_forward_model(axis, b0_dir):
    # Periodic along its axis and far from its copies across: an infinite cylinder.
    along = int(np.argmax(axis))
    shape = tuple(8 if k == along else 128 for k in range(3))
    chi, field = cylinder(shape, (1, 1, 1), radius=6.0, axis=axis, b0_dir=b0_dir)
    spectrum = np.fft.fftn(chi)
    k = np.meshgrid(*(np.fft.fftfreq(n) for n in shape), indexing='ij')
    square = sum(q**2 for q in k)
    square[0, 0, 0] = 1
    kernel = 1 / 3 - sum(q * b for q, b in zip(k, b0_dir, strict=True)) ** 2 / square
    kernel[0, 0, 0] = 0
    computed = np.fft.ifftn(kernel * spectrum).real
    distance = np.sqrt(sum(
        ((index - (n - 1) / 2) ** 2)
        for index, n, axis_number in zip(np.indices(shape), shape, range(3), strict=True)
        if axis_number != along
    ))  # fmt: skip
    difference = computed - field
    # The mean field of the periodic copies is a constant.
    difference -= difference[distance < 4].mean()
    near = (distance > 8) & (distance < 25)
    assert np.abs(difference[distance < 4]).max() < 0.02
    assert np.sqrt(np.mean(difference[near] ** 2)) < 0.03 / 6 + 0.02 * field[near].std()


def test_coverage_has_the_volume_of_the_sphere():
    chi, _ = sphere((24, 24, 24), (1, 1, 1), radius=8.0)
    assert chi.sum() == pytest.approx(4 / 3 * np.pi * 8**3, rel=0.005)
