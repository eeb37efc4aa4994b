"""Morphology enabled dipole inversion, and MEDI+0."""

import numpy as np
import pytest
from scipy import optimize

from qsmflow.algorithms import operators as ops
from qsmflow.algorithms.inversion._medi import MediDescent, face_weights
from qsmflow.algorithms.inversion._problem import Problem
from qsmflow.algorithms.inversion.medi import medi, medi0
from qsmflow.algorithms.regions import csf_mask
from tests.algorithms.fields import ellipsoid, phantom, relative_error
from tests.algorithms.inversion_battery import SMALL, InversionBattery

VOXEL = (1, 1, 1)


class TestMedi(InversionBattery):
    method = staticmethod(medi)
    error = 0.12
    quick = {'max_iter': 10}
    flip_limit = 1e-2


class TestMedi0(InversionBattery):
    method = staticmethod(medi0)
    error = 0.12
    quick = {'max_iter': 10}
    flip_limit = 1e-2
    positive = 'csf_weight'


def objective(chi, field, weights, faces, scale, epsilon, region=None, weight=0.0):
    """Return the objective of the periodic problem, in float64."""
    kernel = ops.dipole_kernel(chi.shape, VOXEL, real=False).astype(np.float64)
    model = np.fft.ifftn(np.fft.fftn(chi) * kernel).real
    data = np.abs(np.exp(1j * scale * model) - np.exp(1j * scale * field)) ** 2
    total = 0.5 * (weights**2 * data).sum() / scale**2
    for axis in range(3):
        step = np.roll(chi, -1, axis) - chi
        total += (faces[axis] * (np.sqrt(step**2 + epsilon**2) - epsilon)).sum()
    if region is not None:
        total += 0.5 * weight * ((chi[region] - chi[region].mean()) ** 2).sum()
    return total


def slope(chi, field, weights, faces, scale, epsilon):
    """Return the gradient of the objective without a region, in float64."""
    kernel = ops.dipole_kernel(chi.shape, VOXEL, real=False).astype(np.float64)
    model = np.fft.ifftn(np.fft.fftn(chi) * kernel).real
    misfit = weights**2 * np.sin(scale * (model - field)) / scale
    total = np.fft.ifftn(np.fft.fftn(misfit) * kernel).real
    for axis in range(3):
        step = np.roll(chi, -1, axis) - chi
        flux = faces[axis] * step / np.sqrt(step**2 + epsilon**2)
        total += np.roll(flux, 1, axis) - flux
    return total


@pytest.fixture
def tiny():
    """Return field, weights and mask of a periodic problem of a few voxels."""
    random = np.random.default_rng(2)
    field = random.normal(scale=0.05, size=(6, 5, 6)).astype(np.float32)
    weights = random.uniform(0.3, 1, size=field.shape).astype(np.float32)
    return field, weights, np.ones(field.shape, bool)


def descend(field, mask, weights=None, *, magnitude=None, pad=0):
    problem = Problem.build(field, mask, VOXEL, (0, 0, 1), weights, pad)
    faces = face_weights(
        problem.inside, 1e-3, 0.1, magnitude=magnitude, steps=problem.steps, fraction=0.3
    )
    return MediDescent(problem, faces, 16.0, 1e-3)


def test_the_gradient_is_that_of_the_objective(tiny):
    field, weights, mask = tiny
    random = np.random.default_rng(5)
    descent = descend(field, mask, weights, magnitude=np.abs(field))
    region = field > 0.04
    descent.run(3, 0)
    descent.join(region, 0.1)
    # The next gradient is taken at the susceptibility that three steps have led to.
    chi = descent.chi.astype(np.float64)
    found = ops.irfft(descent._gradient(), field.shape)
    for _ in range(4):
        direction = random.normal(size=field.shape)
        direction -= direction.mean()
        values = [
            objective(chi + s * direction, field, weights, descent.faces, 16.0, 1e-3, region, 0.1)
            for s in (1e-6, -1e-6)
        ]
        expected = (values[0] - values[1]) / 2e-6
        size = np.linalg.norm(found) * np.linalg.norm(direction)
        assert np.vdot(found, direction) == pytest.approx(expected, abs=2e-4 * size)


def test_no_step_raises_the_objective(tiny):
    field, weights, mask = tiny
    # Fields of several turns: the data term is far from quadratic.
    descent = descend(20 * field, mask, weights, magnitude=np.abs(field))
    values = []
    for _ in range(25):
        chi = descent.chi.astype(np.float64)
        values.append(objective(chi, 20 * field, weights, descent.faces, 16.0, 1e-3))
        descent.run(1, 0)
    assert (np.diff(values) < 1e-6 * values[0]).all()
    assert values[-1] < 0.9 * values[0]


def test_dense_reference(tiny):
    field, weights, mask = tiny
    faces = face_weights(mask, 1e-3, 0.1)

    terms = (field, weights, faces, 16.0, 1e-3)

    def function(x):
        chi = x.reshape(field.shape)
        return objective(chi, *terms), slope(chi, *terms).ravel()

    best = optimize.minimize(
        function, np.zeros(field.size), jac=True, method='BFGS', options={'gtol': 1e-7}
    )
    found = medi(
        field, mask, VOXEL, weights=weights, reg_weight=1e-3, smoothing=1e-3, merit=None, pad=0,
        max_iter=400, tol=1e-6,
    )  # fmt: skip
    assert function(found.astype(np.float64))[0] < best.fun * (1 + 1e-4)
    np.testing.assert_allclose(
        found.ravel() - found.mean(), best.x - best.x.mean(), atol=0.02 * np.abs(best.x).max()
    )


def test_edges_of_the_magnitude_keep_a_boundary():
    chi, mask, local, _ = phantom()
    noise = np.random.default_rng(0).normal(scale=0.002, size=mask.shape).astype(np.float32)
    magnitude = np.where(chi == 0, 1.0, 1.5 + 5 * chi)
    plain, guided = (
        medi(local + noise, mask, VOXEL, reg_weight=1e-3, magnitude=m, pad=8)
        for m in (None, magnitude)
    )
    across = mask & np.roll(mask, -1, 0) & (np.abs(np.roll(chi, -1, 0) - chi) > 0.09)
    truth = (np.roll(chi, -1, 0) - chi)[across]
    jumps = [np.mean(((np.roll(c, -1, 0) - c)[across]) / truth) for c in (plain, guided)]
    assert jumps[1] > jumps[0] + 0.1
    assert jumps[1] > 0.8
    assert relative_error(guided, chi, mask) < 0.8 * relative_error(plain, chi, mask)


def test_an_unrelated_magnitude_makes_no_edges_in_the_result():
    _, mask, local, _ = phantom()
    stripes = 1 + 0.5 * (np.arange(mask.shape[0]) % 6 < 3)[:, None, None] * np.ones(mask.shape)
    plain, striped = (medi(local, mask, VOXEL, magnitude=m, pad=8) for m in (None, stripes))
    assert relative_error(striped, plain, mask) < 0.15


@pytest.mark.parametrize('fraction', [0.0, 0.1, 0.3])
def test_the_share_of_edges_is_the_one_asked_for(fraction):
    _, mask, _, _ = phantom(SMALL)
    magnitude = np.random.default_rng(0).uniform(size=mask.shape).astype(np.float32)
    inner = face_weights(mask, 1.0, 0.5) == 1
    faces = face_weights(
        mask, 1.0, 0.5, magnitude=magnitude, steps=(1.0, 1.0, 2.0), fraction=fraction
    )
    assert (faces[inner] == 0).mean() == pytest.approx(fraction, abs=1e-3)
    assert (faces[~inner] == 0.5).all()
    slopes = np.stack([np.abs(np.roll(magnitude, -1, a) - magnitude) for a in range(3)])
    slopes[2] *= 2
    if fraction:
        assert slopes[inner & (faces == 0)].min() > slopes[inner & (faces == 1)].max()


def test_a_flat_magnitude_has_no_edges():
    _, mask, local, _ = phantom(SMALL)
    plain, flat = (
        medi(local, mask, VOXEL, magnitude=m, pad=6, max_iter=8) for m in (None, 2.0 * mask)
    )
    np.testing.assert_array_equal(plain, flat)


def test_merit_rejects_corrupted_voxels():
    chi, mask, local, _ = phantom()
    field = local.copy()
    field[tuple(np.argwhere(mask)[50::400].T)] += 0.06
    clean = relative_error(medi(local, mask, VOXEL, pad=8), chi, mask)
    plain, robust = (
        relative_error(medi(field, mask, VOXEL, merit=m, pad=8), chi, mask) for m in (None, 6.0)
    )
    assert plain > 2 * clean
    assert robust < clean + 0.4 * (plain - clean)


def test_merit_lowers_the_weights_of_outliers_by_the_square_of_their_excess():
    _, mask, local, _ = phantom(SMALL)
    descent = descend(local, mask, pad=6)
    problem = descent.problem
    before = problem.weight2.copy()
    descent.model = problem.field + np.float32(1e-3) * problem.inside
    outlier = tuple(np.argwhere(problem.inside)[100])
    descent.model[outlier] += np.float32(0.05)
    misfit = 2 * np.abs(np.sin(8 * (descent.model - problem.field)))
    limit = 6 * misfit[problem.inside].std()
    assert descent.trust_less(6.0)
    changed = problem.weight2 != before
    assert changed.sum() == 1
    expected = (limit / misfit[outlier]) ** 4
    assert problem.weight2[outlier] == pytest.approx(expected, rel=1e-3)


def test_a_field_wrong_by_a_turn_does_no_harm():
    _, mask, local, _ = phantom(SMALL)
    wrapped = local.copy()
    wrapped[tuple(np.argwhere(mask)[100::50].T)] -= np.float32(2 * np.pi / 16)
    right, wrong = (medi(field, mask, VOXEL, pad=6) for field in (local, wrapped))
    assert relative_error(wrong, right, mask) < 1e-3


def test_the_balance_does_not_depend_on_the_phase_scale():
    _, mask, local, _ = phantom(SMALL)
    one, other = (medi(local, mask, VOXEL, phase_scale=s, pad=6, max_iter=10) for s in (0.5, 4.0))
    assert relative_error(other, one, mask) < 0.02


def test_parameters_carry_over_between_voxel_sizes():
    _, mask, local, _ = phantom(SMALL)
    one, other = (medi(local, mask, (s,) * 3, pad=6, max_iter=10) for s in (1.0, 0.5))
    np.testing.assert_allclose(one, other, atol=1e-4 * np.abs(one).max())


def test_more_regularisation_is_smoother():
    _, mask, local, _ = phantom(SMALL)
    noise = np.random.default_rng(0).normal(scale=0.005, size=mask.shape).astype(np.float32)
    sums = [
        np.abs(ops.gradient(medi(local + noise, mask, VOXEL, reg_weight=w, pad=6))).sum()
        for w in (1e-5, 1e-3)
    ]
    assert sums[1] < 0.5 * sums[0]


def test_sources_outside_take_up_background_that_is_left():
    chi, mask, local, background = phantom()
    field = local + 0.3 * background
    published, default = (
        relative_error(medi(field, mask, VOXEL, outside_weight=w, pad=8), chi, mask)
        for w in (1.0, 0.1)
    )
    assert default < 0.9 * published


def test_the_sphere_takes_out_background():
    chi, mask, local, background = phantom()
    field = local + background
    centre = ellipsoid(mask.shape, VOXEL, (0, 0, 0), (12, 11, 10))
    plain, filtered = (
        relative_error(medi(field, mask, VOXEL, radius=r, pad=8), chi, centre) for r in (None, 3.0)
    )
    assert filtered < 0.4 * plain
    with pytest.raises(ValueError, match='fits nowhere'):
        medi(field, mask, VOXEL, radius=20.0, pad=16)


def test_weights_count_in_the_sphere():
    chi, mask, local, _ = phantom()
    field, weights = local.copy(), mask.astype(np.float32)
    bad = tuple(np.argwhere(mask)[200::800].T)
    field[bad] += 0.1
    weights[bad] = 0.0
    plain, weighted = (
        relative_error(
            medi(field, mask, VOXEL, weights=w, radius=3.0, merit=None, pad=8), chi, mask
        )
        for w in (None, weights)
    )
    assert weighted < 0.8 * plain


def ventricle():
    """Return the phantom with a uniform fluid, R2*, and the fluid as booleans."""
    chi, mask, _, _ = phantom()
    chi = chi.copy()
    fluid = ellipsoid(chi.shape, VOXEL, (0, 8, 0), (3, 4, 5))
    chi[fluid] = 0.02
    local = ops.forward_field(chi, VOXEL) * mask
    return chi, mask, local, np.where(fluid, 1.0, 25.0), fluid


def test_the_fluid_is_uniform_and_zero():
    chi, mask, local, r2star, fluid = ventricle()
    noise = np.random.default_rng(0).normal(scale=0.003, size=mask.shape).astype(np.float32)
    plain, uniform = (
        f(local + noise, mask, VOXEL, pad=8, **options)
        for f, options in ((medi, {}), (medi0, {'r2star': r2star}))
    )
    assert uniform[fluid].std() < 0.6 * plain[fluid].std()
    assert abs(uniform[fluid].mean()) < 1e-3
    assert not uniform[~mask].any()
    assert relative_error(uniform, chi, mask) < relative_error(plain, chi, mask)
    firm = medi0(local + noise, mask, VOXEL, r2star=r2star, csf_weight=10.0, pad=8)
    assert np.median(np.abs(firm[fluid])) < 0.2 * np.median(np.abs(uniform[fluid]))


def test_voxels_of_the_fluid_that_differ_are_left_out():
    chi, mask, _, r2star, fluid = ventricle()
    plexus = ellipsoid(chi.shape, VOXEL, (0, 8, 0), (1.2, 1.2, 2.2))
    chi[plexus] = -0.2
    local = ops.forward_field(chi, VOXEL) * mask
    found = medi0(local, mask, VOXEL, r2star=r2star, pad=8)
    kept = csf_mask(r2star, found, mask, VOXEL)
    assert not kept[plexus].any()
    assert kept[fluid & ~plexus].mean() > 0.5
    assert found[plexus].mean() - found[fluid & ~plexus].mean() < -0.15


def test_without_fluid_it_is_medi():
    _, mask, local, r2star, fluid = ventricle()
    options = {'pad': 8, 'max_iter': 12}
    plain = medi(local, mask, VOXEL, **options)
    none = medi0(local, mask, VOXEL, **options)
    few = np.where(np.cumsum(fluid).reshape(fluid.shape) <= 50, r2star, 25.0)
    little = medi0(local, mask, VOXEL, r2star=few, **options)
    np.testing.assert_array_equal(none, plain)
    np.testing.assert_array_equal(little, plain)


def test_bad_parameters_are_named():
    _, mask, local, _ = phantom(SMALL)
    with pytest.raises(ValueError, match='edge_fraction'):
        medi(local, mask, VOXEL, edge_fraction=1.0)
    with pytest.raises(ValueError, match='magnitude'):
        medi(local, mask, VOXEL, magnitude=np.ones((2, 2, 2)))
    with pytest.raises(ValueError, match='r2star'):
        medi0(local, mask, VOXEL, r2star=np.ones((2, 2, 2)))
    for name in ('merit', 'smoothing', 'radius', 'phase_scale', 'outside_weight', 'reg_weight'):
        with pytest.raises(ValueError, match=name):
            medi(local, mask, VOXEL, **{name: -1})
