"""Methods against what they are said to compute, in float64 and by another algorithm."""

import numpy as np
import pytest

from qsmflow.algorithms import operators as ops
from qsmflow.algorithms.background.pdf import pdf
from qsmflow.algorithms.background.spherical import sharp, vsharp
from qsmflow.algorithms.inversion import rts as rts_module
from qsmflow.algorithms.inversion._problem import Problem
from qsmflow.algorithms.inversion.rts import rts
from qsmflow.algorithms.inversion.tv import tv
from tests.algorithms import variational
from tests.algorithms.fields import phantom

UNIT = (1.0, 1.0, 1.0)


def test_total_variation_is_the_minimum_of_its_objective():
    field, mask, weights = variational.small_problem()
    objective = variational.tv_objective(variational.squared, field, weights, 2e-4)
    least = variational.minimise(objective, mask.size)
    chi = tv(
        field, mask, UNIT, weights=weights, reg_weight=2e-4, rim_weight=1.0, outside_weight=1.0,
        voxel_average=False, reweight=None, pad=0, max_iter=3000, tol=0,
    )  # fmt: skip
    assert objective(chi.astype(np.float64).ravel())[0] == pytest.approx(least, rel=1e-5)


def test_the_second_step_of_rts_is_the_minimum_of_its_objective():
    field, mask, weights = variational.small_problem()
    problem = Problem.build(field, mask, UNIT, (0, 0, 1), weights, 0)
    first = rts_module._least_squares(problem, 8).astype(np.float64)
    known = np.abs(variational.Dipole().kernel) > 0.15
    reg_weight = 1e-4

    def objective(chi, eps=0.0):
        chi = chi.reshape(field.shape)
        misfit = np.fft.ifftn(known * np.fft.fftn(chi - first)).real
        size, direction = variational.lengths(variational.forward(chi), max(eps, 1e-30))
        gradient = misfit + reg_weight * variational.forward_adjoint(direction)
        return (misfit**2).sum() / 2 + reg_weight * size.sum(), gradient.ravel()

    least = variational.minimise(objective, field.size)
    chi = rts(
        field, mask, UNIT, weights=weights, reg_weight=reg_weight, rho=1e-2, pad=0,
        max_iter=3000, tol=0,
    )  # fmt: skip
    assert objective(chi.astype(np.float64).ravel())[0] == pytest.approx(least, rel=2e-6)


@pytest.mark.parametrize('radius', [2.0, 4.0, 6.0])
def test_vsharp_of_one_radius_is_sharp(radius):
    _, mask, local, background = phantom()
    one, kept = sharp(local + background, mask, UNIT, radius=radius)
    other, also = vsharp(local + background, mask, UNIT, radii=[radius])
    both = kept & also
    assert np.count_nonzero(both) > 0.999 * max(np.count_nonzero(kept), np.count_nonzero(also))
    np.testing.assert_allclose(other[both], one[both], rtol=0, atol=2e-7)


@pytest.mark.parametrize('iterations', [5, 15])
def test_pdf_takes_the_steps_of_conjugate_gradients(iterations):
    _, mask, local, background = phantom((23, 24, 21))
    total, pad = local + background, 6
    weights = np.random.default_rng(0).uniform(0.3, 1, mask.shape) * mask
    found, _ = pdf(
        total, mask, UNIT, weights=weights, pad=pad, max_iter=iterations, coarse_iter=(), tol=0
    )
    box = ops.bounding_box(mask)
    inside = mask[box]
    grid = ops.pad_shape(inside.shape, pad)
    kernel = ops.dipole_kernel(grid, UNIT).astype(np.float64)
    padded_mask = ops.pad_to(inside, grid)
    weight = ops.pad_to(weights[box], grid)
    scale = np.where(padded_mask, 0.02, 1.0)

    def dipole(volume):
        return np.fft.irfftn(np.fft.rfftn(volume) * kernel, grid, axes=(0, 1, 2))

    field = ops.pad_to(total[box].astype(np.float64), grid)
    sources = least_squares(
        lambda x: weight * dipole(scale * x), lambda r: scale * dipole(weight * r),
        weight * field, iterations,
    )  # fmt: skip
    expected = field - dipole(np.where(padded_mask, 0, scale * sources))
    difference = (ops.crop(expected, inside.shape) - found[box])[inside]
    assert np.abs(difference).max() < 1e-4 * np.abs(local).max()


def least_squares(forward, adjoint, data, iterations):
    """Return what conjugate gradients for least squares find, from zero, in float64."""
    residual = data.copy()
    direction = gradient = adjoint(residual)
    x, square = np.zeros_like(gradient), (gradient**2).sum()
    for _ in range(iterations):
        image = forward(direction)
        step = square / (image**2).sum()
        x += step * direction
        residual -= step * image
        gradient = adjoint(residual)
        previous, square = square, (gradient**2).sum()
        direction = gradient + square / previous * direction
    return x
