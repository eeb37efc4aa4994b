"""The one-step inversion by total generalised variation."""

from functools import lru_cache, partial

import numpy as np
import pytest
from scipy import ndimage

from qsmflow.algorithms import operators as ops
from qsmflow.algorithms.inversion import _tgv_kernels as kernels
from qsmflow.algorithms.inversion import tgv as module
from qsmflow.algorithms.inversion._tgv_grid import Grid, laplacian_stencil, wave_stencil
from qsmflow.algorithms.inversion.tgv import tgv, tgv_phase
from qsmflow.units import radians_per_ppm
from tests.algorithms.fields import B0_DIRECTIONS, SHAPE, ellipsoid, phantom, relative_error
from tests.algorithms.inversion_battery import SMALL, InversionBattery

UNIT = (1.0, 1.0, 1.0)


@lru_cache
def sampled_phantom(b0_dir=(0.0, 0.0, 1.0), voxel_size=UNIT, shape=SHAPE):
    """Return chi, mask and total field of the test object, as means over the parts of voxels.

    The Laplacian is local, so it needs a field as it is measured. The phantom's own field is that
    of sharp voxels without their higher frequencies, which rings far into the mask.
    """
    fine = tuple(2 * n for n in shape), tuple(step / 2 for step in voxel_size)
    chi, mask, local, background = phantom(*fine, b0_dir)
    parts = [n for count in shape for n in (count, 2)]
    means = [v.reshape(parts).mean(axis=(1, 3, 5)) for v in (chi, mask, local + background)]
    return means[0], means[1] == 1, means[2]


class TestTgv(InversionBattery):
    method = staticmethod(tgv)
    error = 0.34
    full: dict = {}
    quick = {'max_iter': 25}

    def small(self, *args, **options):
        # There is no padding to set.
        return tgv(*args, **{**self.quick, **options})

    @pytest.mark.parametrize('b0_dir', B0_DIRECTIONS)
    def test_susceptibility_is_recovered(self, b0_dir):
        chi, mask, total = sampled_phantom(b0_dir)
        estimate = tgv(total, mask, UNIT, b0_dir=b0_dir)
        assert estimate.dtype == np.float32
        assert not estimate[~mask].any()
        assert relative_error(estimate, chi, mask) < self.error

    def test_anisotropic_voxels(self):
        voxel_size = (0.8, 0.8, 1.6)
        chi, mask, total = sampled_phantom((0, 0, 1), voxel_size, (44, 44, 24))
        assert relative_error(tgv(total, mask, voxel_size), chi, mask) < self.error + 0.1

    def test_single_slice_and_one_voxel_masks(self):
        for shape in ((9, 8, 1), (1, 1, 1)):
            with pytest.raises(ValueError, match='no voxel whose eighteen neighbours'):
                self.small(np.ones(shape, np.float32), np.ones(shape, bool), UNIT)


def wave_vectors(length, count=40):
    """Return wave vectors of one length in all directions, in rad per mm."""
    directions = np.random.default_rng(0).normal(size=(count, 3))
    return length * directions / np.linalg.norm(directions, axis=1)[:, None]


def symbol(stencil, k, steps):
    """Return the eigenvalues of a stencil for plane waves."""
    x, y, z = (k * steps).T
    faces = np.stack([np.ones(len(k)), *(2 * np.cos([x, y, z]))])
    edges = [2 * np.cos(a + sign * b) for a, b in ((x, y), (x, z), (y, z)) for sign in (1, -1)]
    return np.array(stencil, np.float64) @ np.concatenate([faces, edges])


def dipole_error(length, steps, b0_dir):
    k, b = wave_vectors(length), ops.unit_vector(b0_dir)
    exact = 1 / 3 - (k @ b) ** 2 / length**2
    ratio = symbol(wave_stencil(steps, b), k, steps) / symbol(laplacian_stencil(steps), k, steps)
    return np.abs(ratio - exact).max()


@pytest.mark.parametrize('steps', [UNIT, (0.8, 0.8, 1.6)])
def test_ratio_of_stencils_is_the_dipole_kernel(steps):
    scale = 0.6 / max(steps)
    coarse, fine = (dipole_error(length, steps, (0, 0, 1)) for length in (scale, scale / 2))
    assert coarse < 2e-3
    assert fine < coarse / 14
    oblique = (0.3, -0.4, 0.866)
    coarse, fine = (dipole_error(length, steps, oblique) for length in (scale, scale / 2))
    assert coarse < 2e-2
    assert fine < coarse / 3.8


def test_stencils_act_as_their_symbols():
    rng = np.random.default_rng(0)
    mask, steps, b = np.ones((9, 8, 7), bool), np.array([0.9, 1.0, 1.1]), (0.3, -0.4, 0.866)
    grid = Grid(mask, tuple(steps), b)
    k = rng.normal(size=(1, 3))
    at = np.stack(np.meshgrid(*(np.arange(n) for n in grid.shape), indexing='ij'), axis=-1)
    wave = np.cos((at * steps) @ k[0] + 0.3).astype(np.float32)
    for stencil in (laplacian_stencil(steps), wave_stencil(steps, b)):
        image = grid.apply(stencil, wave, grid.inner)
        expected = symbol(stencil, k, steps) * wave * grid.inner
        np.testing.assert_allclose(image, expected, atol=2e-5)


def test_wave_of_a_smooth_source_is_the_laplacian_of_its_field():
    b0_dir = (0.3, -0.4, 0.866)
    x, y, z = np.ogrid[-16:16, -16:16, -16:16]
    chi = np.exp(-(x**2 + 1.2 * y**2 + 0.8 * z**2) / 18).astype(np.float32)
    field = ops.forward_field(chi, UNIT, b0_dir=b0_dir)
    grid = Grid(np.ones(chi.shape, bool), UNIT, b0_dir)
    bend = grid.laplacian_of(grid.bends(field))
    wave = grid.apply(grid.wave, grid.placed(chi), grid.inner)
    assert np.linalg.norm(bend - wave) < 0.03 * np.linalg.norm(wave)


def test_harmonic_fields_vanish_and_change_nothing():
    _, mask, total = sampled_phantom()
    x, y, z = np.meshgrid(*(np.arange(n) - n / 2 for n in SHAPE), indexing='ij')
    background = 1e-4 * (x**3 - 3 * x * y**2) + 1e-3 * (2 * z**2 - x**2 - y**2) + 0.01 * y * z
    assert np.ptp(background[mask]) > 5 * np.ptp(total[mask])
    one, other = (tgv(f, mask, UNIT) for f in (total, total + background))
    np.testing.assert_allclose(one, other, atol=0.01 * np.abs(one).max())


TE, F0 = (0.006, 0.014, 0.022), 127.7


def series(field, te=TE, *, wrapped=True):
    """Return the phase of a field at echo times, in rad."""
    phase = radians_per_ppm(np.array(te), F0) * field[..., None]
    return (np.angle(np.exp(1j * phase)) if wrapped else phase).astype(np.float32)


def steep_field():
    """Return mask and field of the phantom on a slope of more than half a turn in later echoes."""
    _, mask, total = sampled_phantom()
    return mask, total + 0.2 * np.arange(SHAPE[0], dtype=np.float32)[:, None, None]


@pytest.mark.parametrize('te', [TE, TE[:1]])
def test_wrapped_phase_gives_the_result_of_the_field(te):
    mask, field = steep_field()
    phase = series(field, te, wrapped=False)
    assert np.ptp(phase[mask]) > 8 * np.pi
    assert len(te) == 1 or np.abs(np.diff(phase[..., -1], axis=0)).max() > np.pi
    one = tgv(field, mask, UNIT)
    for image in (phase, series(field, te)):
        other = tgv_phase(image, mask, UNIT, te=te, f0=F0)
        np.testing.assert_allclose(one, other, atol=5e-3 * np.abs(one).max())


def test_echoes_count_by_their_information():
    mask, field = steep_field()
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(*SHAPE, len(TE))).astype(np.float32)
    magnitudes = np.exp(-np.array(TE) / 0.02) * np.ones((*SHAPE, 1), np.float32)
    phase = series(field) + 0.03 * noise / magnitudes
    solve = partial(tgv_phase, mask=mask, voxel_size=UNIT, f0=F0)
    truth = tgv(field, mask, UNIT)
    errors = [
        relative_error(solve(phase[..., e : e + 1], te=TE[e : e + 1]), truth, mask)
        for e in range(len(TE))
    ]
    everything = solve(phase, te=TE, magnitudes=magnitudes)
    assert relative_error(everything, truth, mask) < 0.9 * min(errors)
    scaled = solve(phase, te=TE, magnitudes=1e4 * magnitudes)
    np.testing.assert_allclose(scaled, everything, atol=1e-4)


def test_echoes_without_signal_and_dephased_echoes_do_no_harm():
    mask, field = steep_field()
    magnitudes = np.ones((*SHAPE, len(TE)), np.float32)
    truth = tgv(field, mask, UNIT)
    rng = np.random.default_rng(0)
    spoiled = series(field)
    spoiled[..., 1] = rng.uniform(-np.pi, np.pi, SHAPE)
    magnitudes[..., 1] = 0
    magnitudes[5, 5, 5] = np.nan
    found = tgv_phase(spoiled, mask, UNIT, te=TE, f0=F0, magnitudes=magnitudes)
    assert relative_error(found, truth, mask) < 0.02
    spoiled = series(field)
    some = tuple(np.argwhere(mask)[200::400].T)
    spoiled[(*some, 2)] += 2.0
    found = tgv_phase(spoiled, mask, UNIT, te=TE, f0=F0, magnitudes=np.ones_like(magnitudes))
    assert relative_error(found, truth, mask) < 0.2


def test_phase_takes_a_history_and_every_option_too():
    mask, field = steep_field()
    b0_dir = (0.3, -0.4, 0.866)
    options = {
        'b0_dir': b0_dir, 'weights': 0.5 * mask, 'reg_weight': 3e-4, 'reg_ratio': 2.0,
        'robust': None, 'erosions': 1, 'max_iter': 5, 'tol': 1e-9, 'return_history': True,
    }  # fmt: skip
    one, one_history = tgv(field, mask, UNIT, **options)
    other, history = tgv_phase(series(field), mask, UNIT, te=TE, f0=F0, **options)
    np.testing.assert_allclose(one, other, atol=5e-3 * np.abs(one).max())
    np.testing.assert_allclose(one_history, history, rtol=0.01)


def random_mask(shape=(9, 8, 7)):
    mask = np.random.default_rng(3).random(shape) > 0.02
    mask[2, 3, 3] = False
    return mask


def random_state(grid):
    rng = np.random.default_rng(1)

    def draw(*extra):
        return rng.normal(size=(*extra, *grid.shape)).astype(np.float32) * grid.mask

    chi, eta, w, v, p, q = draw(), draw(), draw(3), draw() * grid.inner, draw(3), draw(6)
    for axis in range(3):  # differences exist between voxels that are both inside
        p[axis] *= np.roll(grid.mask, -1, axis)
        q[axis] *= np.roll(grid.mask, 1, axis)
    for n, (a, b) in enumerate(((0, 1), (0, 2), (1, 2))):
        q[3 + n] *= np.maximum(np.roll(grid.mask, 1, a), np.roll(grid.mask, 1, b))
    return chi, eta, w, v, p, q


def test_rows_hold_all_voxels_inside():
    mask = np.random.default_rng(3).random((9, 8, 30)) > 0.9
    mask[4, 4] = False
    grid = Grid(mask, (1, 1, 1), (0, 0, 1))
    first, stop = np.moveaxis(grid.rows.astype(int), -1, 0)[..., None]
    k = np.arange(grid.shape[2])
    assert grid.mask[(k < first) | (k >= stop)].sum() == 0
    assert (grid.mask.any(axis=2) == (first < stop)[..., 0]).all()
    assert (((stop - first) % 8 == 0) | (first == 1)).all()
    assert (first[first < stop] >= 1).all()
    assert stop.max() < grid.shape[2]


def test_steps_of_both_sides_are_adjoint():
    grid = Grid(random_mask(), (0.9, 1.0, 1.1), (0.3, -0.4, 0.866))
    chi, eta, w, v, p, q = random_state(grid)
    one, huge, zero = np.float32(1), np.float32(1e30), np.zeros(grid.shape, np.float32)
    up_p, up_q, up_v = np.zeros_like(p), np.zeros_like(q), zero.copy()
    common = grid.wave, grid.laplacian, grid.inverse
    kernels.dual_step(
        chi, w, eta, grid.mask, grid.inner, zero, *common, one, one, huge, huge, one, grid.rows,
        up_p, up_q, up_v,
    )  # fmt: skip
    down_w, down_eta, down_chi = np.zeros_like(w), zero.copy(), zero.copy()
    kernels.primal_step(
        v, p, q, grid.mask, grid.inner, zero, *common, one, one, huge, one, grid.rows,
        down_w, down_eta, np.zeros_like(w), zero.copy(), down_chi,
    )  # fmt: skip
    twice = np.array([1, 1, 1, 2, 2, 2]).reshape(6, 1, 1, 1)
    left = np.sum(up_p * p) + np.sum(twice * up_q * q) + np.sum(up_v * v)
    right = -np.sum(down_w * w) - np.sum(down_eta / grid.rim(kernels.RIM) * eta)
    assert left == pytest.approx(right - np.sum(down_chi * chi), rel=1e-4)


def dense(square, grid):
    """Return the matrix of an operator on the voxels inside."""
    inside = np.flatnonzero(grid.mask)
    rows = []
    for voxel in inside:
        unit = np.zeros(grid.shape, np.float32)
        unit.flat[voxel] = 1
        rows.append(square(unit).flat[inside])
    return np.array(rows)


def squares(grid):
    return grid.slack_square, lambda x: grid.smoothed_inside(grid.wave_square(x))


@pytest.mark.parametrize('mask', [random_mask((7, 7, 6)), np.ones((3, 3, 3), bool)])
def test_norms_bound_the_operators(mask):
    grid = Grid(mask, (0.9, 1.0, 1.1), (0.3, -0.4, 0.866))
    for bound, square in zip(grid.norms(), squares(grid), strict=True):
        largest = np.abs(np.linalg.eigvals(dense(square, grid))).max()
        assert largest < bound < 1.3 * largest


@pytest.mark.parametrize('holes', [0, 0.003, 0.05, 0.2])
def test_norms_hold_for_smooth_and_rough_masks(holes):
    mask = ellipsoid((60, 56, 50), UNIT, (0, 0, 0), (27, 26, 24))
    mask &= np.random.default_rng(0).random(mask.shape) >= holes
    grid = Grid(mask, UNIT, (0, 0, 1))
    for bound, square in zip(grid.norms(), squares(grid), strict=True):
        x = np.random.default_rng(1).normal(size=grid.shape).astype(np.float32) * grid.mask
        for _ in range(40):
            x = square(x / np.linalg.norm(x))
        assert np.linalg.norm(x) < bound


def test_norm_of_all_blocks_is_below_one():
    slack, wave, smooth, vector, bend = np.sqrt(module._SHARES)
    blocks = [[slack, wave, 0], [0, smooth, vector], [0, 0, bend]]
    assert np.linalg.norm(blocks, 2) < 1


def differences(volume, mask, axis, sense):
    """Return forward (1) or backward (-1) differences between voxels that are both inside."""
    both = mask * np.roll(mask, -sense, axis)
    return sense * (np.roll(volume, -sense, axis) - volume) * both


def test_solution_fulfils_the_conditions_of_optimality():
    rng = np.random.default_rng(0)
    mask = np.ones((11, 10, 9), bool)
    mask[0, 0] = mask[-1, -1] = False
    grid = Grid(mask, UNIT, (0.3, -0.4, 0.866))
    field = rng.normal(size=mask.shape).astype(np.float32) * 0.02
    source = grid.laplacian_of(grid.bends(field))
    alphas, limit = (2e-4, 4e-4), np.finfo(np.float32).max
    solver = module._PrimalDual(grid, source, mask * np.float32(0.9), *alphas, limit)
    for _ in range(4000):
        solver.iterate()
    inside, chi, w = grid.mask, solver.chi, solver.w
    equation = grid.apply(grid.laplacian, solver.eta, grid.inner) - source
    equation += grid.apply(grid.wave, chi, grid.inner)
    assert np.abs(equation).max() < 1e-3 * np.abs(source).max()
    slack = -grid.apply(grid.laplacian, solver.multiplier, grid.mask)
    np.testing.assert_allclose(solver.weight2 * solver.eta, slack, atol=1e-2 * slack.max())
    gradient = np.stack([differences(chi, inside, a, 1) for a in range(3)])
    gradient -= w * np.stack([inside * np.roll(inside, -1, a) for a in range(3)])
    total = alphas[0] * np.sqrt((gradient**2).sum(axis=0)).sum()
    assert np.sum(solver.p * gradient) == pytest.approx(total, rel=1e-2)
    rises = [[differences(w[c], inside, a, -1) for a in range(3)] for c in range(3)]
    bend = np.array([[(rises[a][b] + rises[b][a]) / 2 for a in range(3)] for b in range(3)])
    total = alphas[1] * np.sqrt((bend**2).sum(axis=(0, 1))).sum()
    pairs = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))
    product = sum(
        (1 if a == b else 2) * solver.q[n] * bend[a, b] for n, (a, b) in enumerate(pairs)
    )
    assert product.sum() == pytest.approx(total, rel=1e-2, abs=1e-2 * alphas[0])
    divergence = sum(solver.p[a] - np.roll(solver.p[a], 1, a) for a in range(3)) * inside
    wave = grid.apply(grid.wave, solver.multiplier, grid.mask)
    np.testing.assert_allclose(divergence, wave, atol=1e-2 * np.abs(divergence).max())


def roof(shape=(48, 30, 30)):
    """Return a ramp up and down along the first axis, in a slab."""
    chi = np.zeros(shape, np.float32)
    along = np.maximum(0, 0.1 - 0.008 * np.abs(np.arange(shape[0]) - 23.5))
    chi[:, 8:22, 8:22] = along[:, None, None]
    return chi


def test_ramps_stay_ramps():
    chi = roof()
    mask = np.ones(chi.shape, bool)
    noise = np.random.default_rng(0).normal(scale=0.002, size=chi.shape).astype(np.float32)
    field = ops.forward_field(chi, UNIT) + noise
    # With a weight this large the vector field is as good as rigid: total variation is left.
    plain, general = (
        tgv(field, mask, UNIT, reg_weight=3e-4, reg_ratio=ratio, max_iter=150, tol=1e-4)
        for ratio in (1e3, 1.0)
    )
    spread = [np.diff(v[14:23, 12:18, 12:18], axis=0).std() for v in (plain, general)]
    assert spread[1] < 0.2 * spread[0]


def test_steps_stay_sharp():
    chi, mask, total = sampled_phantom()
    estimate = tgv(total, mask, UNIT)
    steepest, truth = (np.abs(np.diff(v, axis=0)).max() for v in (estimate, chi))
    assert steepest > 0.8 * truth


def test_more_regularisation_is_smoother():
    _, mask, total = sampled_phantom()
    noise = np.random.default_rng(0).normal(scale=0.005, size=mask.shape).astype(np.float32)
    one, other = (tgv(total + noise, mask, UNIT, reg_weight=w) for w in (1e-4, 4e-4))
    assert np.abs(ops.gradient(other)).sum() < 0.6 * np.abs(ops.gradient(one)).sum()


def test_robust_term_catches_bad_voxels_without_weights():
    chi, mask, total = sampled_phantom()
    field = total.copy()
    field[tuple(np.argwhere(mask)[200::400].T)] += 0.3
    plain, robust = (tgv(field, mask, UNIT, robust=limit) for limit in (None, 0.005))
    assert relative_error(robust, chi, mask) < 0.7 * relative_error(plain, chi, mask)


def test_erosion_takes_layers_off():
    _, mask, total = sampled_phantom()
    kept = ndimage.binary_erosion(mask, iterations=2)
    estimate = tgv(total, mask, UNIT, erosions=2)
    assert not estimate[~kept].any()
    np.testing.assert_array_equal(estimate, tgv(total, kept, UNIT))


def test_iteration_converges_in_its_default_number():
    _, mask, total = sampled_phantom()
    _, history = tgv(total, mask, UNIT, return_history=True)
    assert 20 < len(history) < 80
    assert history[0] == pytest.approx(1)
    assert history[-1] < 5e-3 < history[-2]
    assert (np.diff(history[::5]) < 0).mean() > 0.7


@pytest.mark.parametrize('reg_weight', [1e-5, 1e-3])
def test_default_number_of_iterations_does_for_other_weights(reg_weight):
    _, mask, total = sampled_phantom()
    solve = partial(tgv, total, mask, UNIT, reg_weight=reg_weight)
    near, far = solve(), solve(max_iter=400, tol=1e-6)
    assert relative_error(near, far, mask) < 0.1


@pytest.mark.parametrize('holes', [0.001, 0.05])
def test_iteration_is_stable_in_a_mask_with_holes(holes):
    _, mask, total = sampled_phantom()
    holed = mask & (np.random.default_rng(0).random(mask.shape) > holes)
    _, history = tgv(total, holed, UNIT, max_iter=200, tol=1e-9, return_history=True)
    assert history[-1] < 0.01


def test_same_input_gives_same_bytes():
    _, mask, total = sampled_phantom()
    one, other = (tgv(total, mask, UNIT, max_iter=10) for _ in range(2))
    np.testing.assert_array_equal(one, other)


def test_masks_without_inner_voxels_are_refused():
    random = np.random.default_rng(0)
    solid = np.ones((9, 8, 7), bool)
    checkerboard = np.indices(solid.shape).sum(axis=0) % 2 == 0
    shell = solid & ~np.pad(np.ones((7, 6, 5), bool), 1)
    for mask in (solid[..., :1], solid[..., :2], checkerboard, shell):
        field = random.normal(size=mask.shape).astype(np.float32)
        with pytest.raises(ValueError, match='eighteen neighbours'):
            tgv(field, mask, UNIT)
    with pytest.raises(ValueError, match=r'nowhere \(erosions: 3\)'):
        tgv(random.normal(size=solid.shape), solid, UNIT, erosions=3)
    three = random.normal(size=(3, 3, 3)).astype(np.float32)
    assert tgv(three, np.ones(three.shape, bool), UNIT).any()


def test_bad_options_are_named():
    _, mask, local, _ = phantom(SMALL)
    for name in ('reg_ratio', 'robust', 'max_iter'):
        with pytest.raises(ValueError, match=name):
            tgv(local, mask, UNIT, **{name: -1})
    with pytest.raises(ValueError, match='erosions must be a whole number'):
        tgv(local, mask, UNIT, erosions=1.5)
    with pytest.raises(ValueError, match='leaves nothing'):
        tgv(local, mask, UNIT, erosions=30)


def test_bad_phase_is_named():
    mask, field = steep_field()
    phase = series(field)
    solve = partial(tgv_phase, mask=mask, voxel_size=UNIT)
    with pytest.raises(ValueError, match='echo last'):
        solve(phase[..., 0], te=TE[:1], f0=F0)
    with pytest.raises(ValueError, match=r'3 echo\(es\), te names 2'):
        solve(phase, te=TE[:2], f0=F0)
    with pytest.raises(ValueError, match='positive and increasing'):
        solve(phase, te=TE[::-1], f0=F0)
    with pytest.raises(ValueError, match=r'magnitude .* and phase .* differ'):
        solve(phase, te=TE, f0=F0, magnitudes=phase[..., :2])
    with pytest.raises(ValueError, match='must be real'):
        solve(np.exp(1j * phase), te=TE, f0=F0)
    for f0 in (0, -1, np.nan):
        with pytest.raises(ValueError, match='f0 must be a positive number'):
            solve(phase, te=TE, f0=f0)
    with pytest.raises(ValueError, match='mask is empty'):
        tgv_phase(phase, 0 * mask, UNIT, te=TE, f0=F0)
    phase[..., 1][mask] = np.nan
    with pytest.raises(ValueError, match=r'phase of echo 2 has .* not finite'):
        solve(phase, te=TE, f0=F0)
