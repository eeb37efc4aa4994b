"""Susceptibility from several orientations."""

import warnings

import numpy as np
import pytest

from qsmflow.algorithms import operators as ops
from qsmflow.algorithms.cosmos import cosmos, cosmos_conditioning
from tests.algorithms.fields import SHAPE, phantom, relative_error
from tests.algorithms.inversion_battery import SMALL


def tilted(axis, degrees):
    """Return the field's direction in a head that is turned about an axis."""
    a = np.deg2rad(degrees)
    return (0.0, np.sin(a), np.cos(a)) if axis == 'x' else (np.sin(a), 0.0, np.cos(a))


IDEAL = [tilted('x', angle) for angle in (0, 60, 120)]
TWO_AXES = [tilted('x', 0), tilted('x', 20), tilted('y', 20)]
OBLIQUE = [(0.3, -0.4, 0.866), (0.8, 0.3, 0.5), (-0.5, 0.7, 0.5)]
GEOMETRIES = {
    'ideal': (SHAPE, (1.0, 1.0, 1.0), IDEAL),
    'two axes': (SHAPE, (1.0, 1.0, 1.0), TWO_AXES),
    'oblique, anisotropic': ((44, 44, 24), (0.8, 0.8, 1.6), OBLIQUE),
}


def acquire(shape, voxel_size, b0_dirs):
    chi, mask, _, _ = phantom(shape, voxel_size)
    return chi, mask, [ops.forward_field(chi, voxel_size, b0_dir=b) for b in b0_dirs]


def rmse(estimate, truth, mask):
    error = (estimate - truth)[mask].astype(float)
    return float(np.sqrt(np.mean((error - error.mean()) ** 2)))


@pytest.mark.parametrize(
    ('angles', 'expected'),
    [
        ([('x', 0), ('x', 60), ('x', 120)], 2.03),
        ([('x', 0), ('x', 20), ('y', 20)], 6.4),
        ([('x', 0), ('x', 30), ('x', -30)], 11.0),
        ([('x', 0), ('x', 15), ('x', -15)], 57),
    ],
)
def test_conditioning(angles, expected):
    b0_dirs = [tilted(*angle) for angle in angles]
    assert cosmos_conditioning((64, 64, 64), (1, 1, 1), b0_dirs) == pytest.approx(
        expected, rel=0.015
    )


def test_conditioning_of_one_direction_is_infinite_and_voxels_matter_little():
    assert cosmos_conditioning((32, 32, 32), (1, 1, 1), [(1, 1, 1)] * 3) > 1e3
    assert cosmos_conditioning((1, 1, 1), (1, 1, 1), IDEAL) == np.inf
    flat = cosmos_conditioning((33, 40, 20), (0.8, 0.8, 1.6), IDEAL)
    assert flat == pytest.approx(2.03, abs=0.02)


@pytest.mark.parametrize('geometry', GEOMETRIES.values(), ids=GEOMETRIES)
def test_noise_free_fields_in_a_mask_give_the_truth(geometry):
    _, voxel_size, b0_dirs = geometry
    chi, mask, fields = acquire(*geometry)
    fields = [np.where(mask, field, np.nan) for field in fields]
    found, history = cosmos(fields, mask, voxel_size, b0_dirs=b0_dirs, pad=8, return_history=True)
    assert found.dtype == np.float32
    assert not found[~mask].any()
    assert rmse(found, chi, mask) < 1e-3
    assert relative_error(found, chi, mask) < 0.02
    assert len(history) < 20


def test_closed_solution_is_exact_for_periodic_fields():
    chi = np.random.default_rng(0).normal(scale=0.1, size=(11, 12, 13)).astype(np.float32)
    fields = [ops.forward_field(chi, (1, 1, 1), b0_dir=b, pad=0) for b in OBLIQUE]
    # Lengths that are no fast ones would be padded.
    assert ops.pad_shape(chi.shape, 0) != chi.shape
    chi = chi[:9, :12, :10].copy()
    fields = [ops.forward_field(chi, (1, 1, 1), b0_dir=b, pad=0) for b in OBLIQUE]
    closed, history = cosmos(fields, None, (1, 1, 1), b0_dirs=OBLIQUE, pad=0, return_history=True)
    everywhere = np.ones(chi.shape, bool)
    iterated, more = cosmos(
        fields, everywhere, (1, 1, 1), b0_dirs=OBLIQUE, pad=0, tol=1e-5, return_history=True
    )
    assert history == []
    assert len(more) > 0
    assert rmse(closed, chi, everywhere) < 1e-5
    np.testing.assert_allclose(iterated, closed, atol=1e-3)


def test_weighted_solution_agrees_with_a_dense_one():
    shape = (5, 9, 5)
    assert ops.pad_shape(shape, 0) == shape
    random = np.random.default_rng(1)
    fields = [random.normal(size=shape).astype(np.float32) for _ in OBLIQUE]
    weights = [random.uniform(0.3, 1, shape).astype(np.float32) for _ in OBLIQUE]
    found = cosmos(
        fields, None, (1, 1, 1), b0_dirs=OBLIQUE, weights=weights, pad=0, max_iter=300, tol=1e-6
    )
    rows, right = [], []
    for field, weight, b0_dir in zip(fields, weights, OBLIQUE, strict=True):
        columns = []
        for index in range(field.size):
            unit = np.zeros(shape, np.float32)
            unit.flat[index] = 1
            image = ops.forward_field(unit, (1, 1, 1), b0_dir=b0_dir, pad=0)
            columns.append((weight * image).astype(float).ravel())
        rows.append(np.stack(columns, axis=1))
        right.append((weight * field).astype(float).ravel())
    expected = np.linalg.lstsq(np.concatenate(rows), np.concatenate(right), rcond=1e-5)[0]
    np.testing.assert_allclose(found.ravel(), expected, atol=2e-3 * np.abs(expected).max())


def test_weights_keep_bad_voxels_from_spreading():
    chi, mask, fields = acquire(SMALL, (1, 1, 1), IDEAL)
    bad = tuple(np.argwhere(mask)[50::200].T)
    fields[1][bad] += 0.3
    weights = [mask.astype(np.float32) for _ in fields]
    weights[1][bad] = 0.02
    plain, weighted = (
        cosmos(fields, mask, (1, 1, 1), b0_dirs=IDEAL, weights=w, pad=6) for w in (None, weights)
    )
    assert rmse(weighted, chi, mask) < 0.2 * rmse(plain, chi, mask)


def test_each_orientation_may_have_its_mask():
    chi, mask, fields = acquire(SMALL, (1, 1, 1), IDEAL)
    masks = [mask.copy() for _ in fields]
    masks[0][: SMALL[0] // 2 - 4] = False
    found = cosmos(fields, masks, (1, 1, 1), b0_dirs=IDEAL, pad=6)
    assert not found[~masks[0]].any()
    assert rmse(found, chi, masks[0]) < 2e-3


@pytest.mark.parametrize('b0_dirs', [IDEAL, TWO_AXES])
def test_noise_grows_by_what_the_kernels_say(b0_dirs):
    chi, mask, fields = acquire(SHAPE, (1, 1, 1), b0_dirs)
    random = np.random.default_rng(0)
    fields = [f + random.normal(scale=0.002, size=SHAPE) for f in fields]
    found = cosmos(fields, mask, (1, 1, 1), b0_dirs=b0_dirs, pad=8)
    squares = sum(ops.dipole_kernel((45, 45, 45), (1, 1, 1), b0_dir=b) ** 2 for b in b0_dirs)
    expected = 0.002 * np.sqrt(np.mean(1 / squares.ravel()[1:].astype(float)))
    assert 0.9 * expected < rmse(found, chi, mask) < 1.3 * expected


def test_order_and_sign_of_directions_have_no_effect():
    _, mask, fields = acquire(SMALL, (1, 1, 1), OBLIQUE)
    one = cosmos(fields, mask, (1, 1, 1), b0_dirs=OBLIQUE, pad=6)
    turned = [tuple(-c for c in b) for b in OBLIQUE[::-1]]
    other = cosmos(fields[::-1], mask, (1, 1, 1), b0_dirs=turned, pad=6)
    np.testing.assert_allclose(one, other, atol=1e-5)


def test_poor_conditioning_is_said():
    _, mask, _, _ = phantom(SMALL)
    fields = [0.0 * mask] * 3
    with pytest.warns(UserWarning, match='times worse'):
        chi = cosmos(
            fields, mask, (1, 1, 1), b0_dirs=[tilted('x', a) for a in (0, 15, -15)], pad=6
        )
    assert not chi.any()
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        cosmos(fields, mask, (1, 1, 1), b0_dirs=IDEAL, pad=6)


def test_identical_directions_determine_some_frequencies_not_at_all():
    _, mask, _, _ = phantom(SMALL)
    with pytest.warns(UserWarning, match='some frequencies not at all: expect'):
        cosmos([0.0 * mask] * 3, mask, (1, 1, 1), b0_dirs=[(0, 0, 1)] * 3, pad=6)


def test_bad_input_is_named():
    _, mask, fields = acquire(SMALL, (1, 1, 1), IDEAL)
    with pytest.raises(ValueError, match='three or more'):
        cosmos(fields[:2], mask, (1, 1, 1), b0_dirs=IDEAL[:2])
    with pytest.raises(ValueError, match='3 fields but 2 directions'):
        cosmos(fields, mask, (1, 1, 1), b0_dirs=IDEAL[:2])
    with pytest.raises(ValueError, match='3 fields but 2 masks'):
        cosmos(fields, [mask, mask], (1, 1, 1), b0_dirs=IDEAL)
    with pytest.raises(ValueError, match='3 fields but 2 weights'):
        cosmos(fields, mask, (1, 1, 1), b0_dirs=IDEAL, weights=[1.0 * mask] * 2)
    with pytest.raises(ValueError, match='one grid'):
        cosmos([*fields[:2], fields[2][1:]], mask, (1, 1, 1), b0_dirs=IDEAL)
    with pytest.raises(ValueError, match=r'fields\[1\] has'):
        cosmos([fields[0], fields[1] * np.nan, fields[2]], mask, (1, 1, 1), b0_dirs=IDEAL)
    left, right = mask.copy(), mask.copy()
    left[SMALL[0] // 2 :] = False
    right[: SMALL[0] // 2] = False
    with pytest.raises(ValueError, match='No voxel is in all masks'):
        cosmos(fields, [left, right, mask], (1, 1, 1), b0_dirs=IDEAL)
    with pytest.raises(ValueError, match='b0_dir'):
        cosmos(fields, mask, (1, 1, 1), b0_dirs=[*IDEAL[:2], (0, 0, 0)])


def test_one_voxel_and_one_slice():
    one = np.zeros((5, 5, 5), bool)
    one[2, 2, 2] = True
    assert np.isfinite(cosmos([0.1 * one] * 3, one, (1, 1, 1), b0_dirs=IDEAL, pad=6)).all()
    flat = np.ones((9, 8, 1), bool)
    field = np.random.default_rng(0).normal(size=flat.shape)
    assert np.isfinite(cosmos([field] * 3, flat, (1, 1, 1), b0_dirs=IDEAL, pad=6)).all()
