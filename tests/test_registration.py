"""Registration against known deformations of the template, in another contrast."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from qsmflow import atlas, io, registration
from qsmflow.io import Volume
from qsmflow.registration import adapter


def oblique(voxel=(2.0, 2.0, 2.0), *, degrees=(0, 0, 0), origin=(0, 0, 0)):
    """Return an affine with rotations about x, y, z."""
    affine = np.eye(4)
    for axis, angle in enumerate(np.deg2rad(degrees)):
        turn = np.eye(4)
        first, second = (axis + 1) % 3, (axis + 2) % 3
        turn[first, first] = turn[second, second] = np.cos(angle)
        turn[first, second], turn[second, first] = -np.sin(angle), np.sin(angle)
        affine = turn @ affine
    affine[:3, :3] *= voxel
    affine[:3, 3] = origin
    return affine


@dataclass
class Head:
    """A scan of a deformed template, and what is true of it."""

    image: Volume
    brain: np.ndarray
    labels: np.ndarray
    template_point: np.ndarray


def make_head(
    shape, voxel, *, degrees=(8, -5, 4), seed=0, contrast='gre', noise=0.01, amplitude=4.0
):
    """Scan a smoothly deformed template with gradient-echo or T1w contrast."""
    rng = np.random.default_rng(seed)
    affine = oblique(voxel, degrees=degrees)
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2) + (5, -8, 12)
    grid = np.moveaxis(np.indices(shape), 0, -1) @ affine[:3, :3].T + affine[:3, 3]
    upright = (grid - (5, -8, 12)) @ (affine[:3, :3] / voxel)
    point = upright * (1.08, 1.05, 1.10) + (0, -18, 8)
    phase = rng.uniform(0, 2 * np.pi, (3, 2))
    point = point + amplitude * np.stack(
        [
            np.sin(2 * np.pi * point[..., (i + 1) % 3] / 120 + phase[i, 0])
            * np.cos(2 * np.pi * point[..., i] / 140 + phase[i, 1])
            for i in range(3)
        ],
        axis=-1,
    )

    def sample(path, order):
        volume = io.load_volume(path)
        index = (point - volume.affine[:3, 3]) @ np.linalg.inv(volume.affine[:3, :3]).T
        return ndimage.map_coordinates(volume.data, np.moveaxis(index, -1, 0), order=order)

    t1w = sample(atlas.template('T1w_res-2'), 1)
    t1w = t1w / np.percentile(t1w, 99.5)
    curve = [0, 0.35, 0.6, 1.0, 0.75, 0.95] if contrast == 'gre' else [0, 0.08, 0.3, 0.6, 0.75, 1]
    image = np.interp(t1w, [0, 0.08, 0.3, 0.6, 0.75, 1], curve)
    image *= np.exp(-0.5 * ((upright / 120) ** 2).sum(-1) + 0.3 * upright[..., 0] / 100)
    image = np.hypot(
        image + noise * rng.standard_normal(shape), noise * rng.standard_normal(shape)
    )
    return Head(
        Volume((1000 * image).astype(np.float32), affine),
        sample(atlas.template('brain_mask_res-2'), 1) > 0.5,
        np.rint(sample(atlas.load_atlas('CIT168').dseg, 0)).astype(int),
        point,
    )


def dice(first, second):
    return 2 * (first & second).sum() / (first.sum() + second.sum())


def target_error(head, transform, where):
    """Return the distance in mm between mapped and true template points."""
    index = np.argwhere(where)[::7]
    points = index @ head.image.affine[:3, :3].T + head.image.affine[:3, 3]
    mapped = adapter.map_points(points, transform)
    return np.linalg.norm(mapped - head.template_point[tuple(index.T)], axis=1)


@pytest.fixture(scope='module')
def template_brain():
    path = atlas.template('brain_mask_res-2')
    return io.load_volume(atlas.template('T1w_brain_res-2')), io.load_volume(path)


@pytest.fixture(scope='module')
def coarse_head():
    return make_head((52, 60, 48), (4.0, 4.0, 4.0), amplitude=2.0)


AFFINES = {
    'plain': oblique(),
    'oblique': oblique((1.0, 1.5, 3.0), degrees=(10, 20, -15), origin=(-30, 500, 7)),
    'flipped': oblique((2, 2, 2)) @ np.diag([-1, 1, 1, 1]),
    'permuted': oblique((1, 2, 3))[:, [2, 0, 1, 3]],
}


@pytest.mark.parametrize('name', AFFINES)
def test_volume_survives_ants(name):
    rng = np.random.default_rng(1)
    volume = Volume(rng.random((5, 6, 7)).astype(np.float32), AFFINES[name])
    back = registration.from_ants(registration.to_ants(volume))
    np.testing.assert_array_equal(back.data, volume.data)
    np.testing.assert_allclose(back.affine, volume.affine, atol=1e-5)


def test_values_that_are_not_finite_become_zero():
    data = np.array([np.nan, np.inf, -np.inf, 2.0], np.float32).reshape(1, 2, 2)
    image = registration.to_ants(Volume(data, np.eye(4)))
    np.testing.assert_array_equal(image.numpy().ravel(), [0, 0, 0, 2])


def test_linear_transform_maps_points_as_its_matrix(tmp_path):
    matrix = oblique((1.1, 0.9, 1.0), degrees=(5, 10, -20), origin=(3, -40, 600))
    path = registration.write_affine(matrix, tmp_path / 'x.txt')
    np.testing.assert_allclose(registration.read_affine(path), matrix, atol=1e-9)
    points = np.array([[0.0, 0, 0], [10, 20, 30], [-5, 70, 600]])
    expected = points @ matrix[:3, :3].T + matrix[:3, 3]
    np.testing.assert_allclose(adapter.map_points(points, path), expected, atol=1e-3)


def test_foreground_is_the_head(coarse_head):
    head = registration.foreground(coarse_head.image.data)
    assert (coarse_head.brain & head).sum() > 0.99 * coarse_head.brain.sum()
    assert 0.2 < head.mean() < 0.8
    assert registration.foreground(np.zeros((4, 5, 6))).all()


def test_flattening_removes_shading():
    x = np.linspace(-1, 1, 40)
    shading = np.exp(x)[:, None, None] * np.ones((40, 40, 40))
    mask = np.ones(shading.shape, bool)
    flat = registration.flatten_intensity(shading, mask, (4, 4, 4))
    assert np.ptp(flat[8:-8]) < 0.1
    assert np.ptp(shading[8:-8]) > 1


def test_similarity_ignores_contrast_but_not_place():
    rng = np.random.default_rng(0)
    image = ndimage.gaussian_filter(rng.standard_normal((30, 30, 30)), 1.5)
    mask = np.ones(image.shape, bool)
    score = registration.local_similarity
    assert score(image, image, mask) == pytest.approx(1, abs=1e-3)
    assert score(image, 3 - 2 * image, mask) == pytest.approx(1, abs=1e-3)
    assert score(image, np.roll(image, 8, axis=0), mask) < 0.3
    assert score(image, image, np.zeros_like(mask)) == 0
    assert score(image, np.ones_like(image), mask) == 0
    mask[15:] = False
    other = np.where(mask, image, rng.standard_normal(image.shape))
    assert score(image, other, mask) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize('start', registration.STARTS)
def test_starts_align_centres_whatever_the_origin(start):
    mask = np.zeros((20, 20, 20), bool)
    mask[4:10, 6:12, 8:16] = True
    fixed = Volume(mask, oblique((3, 3, 3), origin=(500, -500, 80)))
    moving = Volume(mask, oblique((2, 2, 2), degrees=(0, 15, 0)))
    matrix = registration.start_matrix(fixed, moving, start)
    inside = (
        np.argwhere(mask).mean(0) if registration.STARTS[start][0] == 'mass' else np.full(3, 9.5)
    )
    here, there = (np.append(inside, 1) @ v.affine.T for v in (fixed, moving))
    np.testing.assert_allclose(matrix @ here, there, atol=1e-6)
    assert np.linalg.det(matrix[:3, :3]) == pytest.approx(1)


def test_starts_turn_as_they_are_called():
    cube = Volume(np.ones((9, 9, 9), bool), np.eye(4))

    def turned(start, direction):
        return registration.start_matrix(cube, cube, start)[:3, :3] @ direction

    assert turned('pitch_back', [0, 1, 0])[2] > 0.3
    assert turned('pitch_forward', [0, 1, 0])[2] < -0.3


def test_working_grid_is_isotropic_and_keeps_its_place():
    data = np.zeros((40, 30, 12), np.float32)
    data[10:25, 8:20, 3:9] = 100
    volume = Volume(data, oblique((1.0, 1.5, 4.0), degrees=(10, 0, 30), origin=(0, 300, 0)))
    image, mask = registration.working_image(volume, 2.0, mask=data > 0, margin=6)
    np.testing.assert_allclose(image.voxel_size, 2.0)
    axes = image.affine[:3, :3] / 2
    np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-9)
    centre = image.affine[:3] @ np.append(ndimage.center_of_mass(mask.data), 1)
    expected = volume.affine[:3] @ np.append(ndimage.center_of_mass(data), 1)
    np.testing.assert_allclose(centre, expected, atol=0.7)
    assert mask.data.sum() * 8 == pytest.approx((data > 0).sum() * 6, rel=0.15)


def test_masked_working_image_is_zero_outside_and_spread_inside(coarse_head):
    image, mask = registration.working_image(coarse_head.image, 4.0, mask=coarse_head.brain)
    assert not image.data[~mask.data].any()
    low, high = np.percentile(image.data[mask.data], [2, 98])
    assert low < 0.5
    assert high > 1.0


def test_resampling_interpolates_once_along_a_chain(tmp_path):
    rng = np.random.default_rng(2)
    volume = Volume(rng.random((12, 12, 12)).astype(np.float32), np.eye(4))
    half, rest = np.eye(4), np.eye(4)
    half[0, 3], rest[0, 3] = 0.5, 1.5
    chain = [
        registration.write_affine(m, tmp_path / f'{i}.txt') for i, m in enumerate((half, rest))
    ]
    moved = registration.resample(volume, volume, chain)
    np.testing.assert_allclose(moved.data[:9], volume.data[2:11], atol=1e-5)
    np.testing.assert_allclose(registration.resample(volume, volume, []).data, volume.data)


def test_order_of_a_chain(tmp_path):
    points = Volume(np.zeros((20, 20, 20), np.float32), oblique((1, 1, 1), origin=(-10, -10, -10)))
    points.data[14, 7, 10] = 1
    shift = oblique((1, 1, 1), origin=(4, 0, 0))
    turn = oblique((1, 1, 1), degrees=(0, 0, 90))
    chain = [
        registration.write_affine(shift, tmp_path / 'shift.txt'),
        registration.write_affine(turn, tmp_path / 'turn.txt'),
    ]
    moved = registration.resample(points, points, chain)
    assert moved.data.max() == pytest.approx(1, abs=1e-4)
    found = np.array([*np.unravel_index(moved.data.argmax(), moved.shape), 1])
    np.testing.assert_allclose(turn @ shift @ points.affine @ found, [4, -3, 0, 1], atol=1e-6)


def test_unknown_interpolation_is_refused():
    volume = Volume(np.zeros((3, 3, 3), np.float32), np.eye(4))
    with pytest.raises(ValueError, match='interpolation must be one of'):
        registration.resample(volume, volume, [], interpolation='sinc')


def test_labels_keep_values_and_volume():
    data = np.zeros((40, 40, 40), np.int32)
    data[10:20, 10:20, 10:20] = 7
    data[20:30, 10:20, 10:20] = 114
    labels = Volume(data, np.eye(4))
    same = registration.warp_labels(labels, labels, [])
    np.testing.assert_array_equal(same.data, data)
    coarse = Volume(np.empty((16, 16, 16)), oblique((2.5, 2.5, 2.5), origin=(0.3, 0.2, 0.1)))
    moved = registration.warp_labels(labels, coarse, [])
    assert set(np.unique(moved.data)) == {0, 7, 114}
    for label in (7, 114):
        assert (moved.data == label).sum() * 2.5**3 == pytest.approx(1000, rel=0.2)


def test_labels_at_the_border_of_their_image():
    labels = Volume(np.full((6, 6, 6), 3, np.int32), np.eye(4))
    moved = registration.warp_labels(labels, labels, [])
    assert (moved.data == 3).all()


def test_field_of_view_fraction():
    data = np.zeros((20, 20, 20), np.int32)
    data[2:6, 5:15, 5:15] = 1
    data[8:12, 5:15, 5:15] = 2
    data[14:18, 5:15, 5:15] = 30
    view = Volume(np.empty((10, 20, 20)), np.eye(4))
    fraction = registration.field_of_view_fraction(Volume(data, np.eye(4)), view, [])
    assert fraction == {1: 1.0, 2: 0.5, 30: 0.0}


def test_check_flags_what_is_wrong():
    rng = np.random.default_rng(3)
    image = ndimage.gaussian_filter(rng.standard_normal((24, 24, 24)), 1.0)
    volume = Volume(image, np.eye(4))
    mask = np.zeros(image.shape, bool)
    mask[4:20, 4:20, 4:20] = True
    good = registration.registration_check(volume, volume, fixed_mask=mask, brains=(mask, mask))
    assert good['passed']
    assert good['dice'] == 1
    assert not good['reasons']
    moved = Volume(np.roll(image, 9, axis=0), np.eye(4))
    brains = (mask, np.roll(mask, 9, axis=0))
    bad = registration.registration_check(
        volume, moved, fixed_mask=mask, brains=brains, jacobian=(-0.2, 9.0)
    )
    assert not bad['passed']
    assert len(bad['reasons']) == 3
    hidden = np.zeros_like(mask)
    cut = registration.registration_check(volume, volume, fixed_mask=mask, view=hidden)
    assert not cut['passed']
    json.dumps([good, bad, cut])


def test_jacobian_of_a_scaling(tmp_path):
    path = registration.write_affine(oblique((1.2, 1.1, 1.0)), tmp_path / 'x.txt')
    like = Volume(np.empty((6, 6, 6)), oblique((2, 3, 4), degrees=(0, 20, 0)))
    low, high = registration.jacobian_range(like, path, np.ones(like.shape, bool))
    assert low == pytest.approx(1.32, rel=1e-3)
    assert high == pytest.approx(1.32, rel=1e-3)


def test_skull_stripped_images_are_recognised(coarse_head, template_brain):
    assert registration.is_skull_stripped(template_brain[0])
    assert not registration.is_skull_stripped(coarse_head.image)
    defaced = coarse_head.image.data * registration.foreground(coarse_head.image.data)
    assert not registration.is_skull_stripped(Volume(defaced, coarse_head.image.affine))
    mask, info = registration.extract_brain(template_brain[0])
    assert info['method'] == 'skull-stripped'
    assert dice(mask, template_brain[1].data > 0.5) > 0.97


def test_arguments_are_checked(tmp_path):
    volume = Volume(np.ones((8, 8, 8), np.float32), np.eye(4))
    empty = np.zeros((8, 8, 8), bool)
    with pytest.raises(ValueError, match='kind must be one of'):
        registration.register(volume, volume, out_dir=tmp_path, kind='bspline')
    with pytest.raises(ValueError, match='metric must be one of'):
        registration.register(volume, volume, out_dir=tmp_path, metric='ssd')
    with pytest.raises(ValueError, match='starts must be some of'):
        registration.register(volume, volume, out_dir=tmp_path, starts=('upside_down',))
    with pytest.raises(ValueError, match='empty'):
        registration.register(volume, volume, out_dir=tmp_path, fixed_mask=empty)
    with pytest.raises(ValueError, match='go together'):
        registration.extract_brain(volume, head=volume)


def test_rigid_motion_is_recovered_twice_alike(tmp_path, coarse_head):
    t1w = make_head((52, 60, 48), (4.0, 4.0, 4.0), contrast='t1w', amplitude=2.0)
    motion = oblique((1, 1, 1), degrees=(6, -4, 10), origin=(300, -20, 9))
    moved = Volume(t1w.image.data, motion @ t1w.image.affine)
    results = [
        registration.register(
            coarse_head.image,
            moved,
            out_dir=tmp_path,
            name=name,
            kind='rigid',
            fixed_mask=coarse_head.brain,
            resolution=4.0,
            starts=('center_of_mass',),
            seed=seed,
        )
        for name, seed in (('one', 5), ('two', 5), ('three', 6))
    ]
    first, second, other = results
    assert first.passed, first.check
    matrix = registration.read_affine(first.forward)
    index = np.argwhere(coarse_head.brain)[::50]
    points = np.c_[index, np.ones(len(index))] @ coarse_head.image.affine.T
    error = np.linalg.norm((points @ matrix.T - points @ motion.T)[:, :3], axis=1)
    assert error.max() < 1.5
    product = registration.read_affine(first.inverse) @ matrix
    np.testing.assert_allclose(product, np.eye(4), atol=1e-3)
    for way in ('forward', 'inverse'):
        texts = [Path(getattr(result, way)).read_text() for result in (first, second, other)]
        assert texts[0] == texts[1]
        assert texts[0] != texts[2], 'another seed draws other points'
    json.dumps(first.check)


def test_lesion_does_not_pull_the_registration(tmp_path, coarse_head):
    """Row D85: with the mask of a lesion the motion is recovered as without the lesion."""
    t1w = make_head((52, 60, 48), (4.0, 4.0, 4.0), contrast='t1w', amplitude=2.0)
    motion = oblique((1, 1, 1), degrees=(6, -4, 10), origin=(3, -2, 9))
    moved = Volume(t1w.image.data, motion @ t1w.image.affine)
    places = np.argwhere(coarse_head.brain)
    distance = np.linalg.norm(np.indices(coarse_head.brain.shape).T - places.mean(0) - (6, 7, 0),
                              axis=-1).T  # fmt: skip
    lesion = (distance < 7) & coarse_head.brain
    image = coarse_head.image.data.copy()
    image[lesion] = 4000 * (distance[lesion] > 4)
    index = places[::50]
    points = np.c_[index, np.ones(len(index))] @ coarse_head.image.affine.T

    def error(**options):
        result = registration.register(
            Volume(image, coarse_head.image.affine), moved, out_dir=tmp_path, kind='rigid',
            fixed_mask=coarse_head.brain, resolution=4.0, starts=('center_of_mass',), **options
        )  # fmt: skip
        matrix = registration.read_affine(result.forward)
        away = np.linalg.norm((points @ matrix.T - points @ motion.T)[:, :3], axis=1)
        return away.max()

    without, masked = error(), error(lesion=lesion)
    assert masked < 1.5
    assert masked < 0.7 * without


def test_unrelated_images_are_flagged_after_other_starts(tmp_path):
    rng = np.random.default_rng(5)
    images = [
        Volume(rng.random((14, 14, 14)).astype(np.float32), oblique((4, 4, 4))) for _ in range(2)
    ]
    starts = ('center_of_mass', 'center_of_grid', 'pitch_back', 'pitch_forward', 'yaw_left')
    result = registration.register(
        *images, out_dir=tmp_path, kind='rigid', resolution=4.0, starts=starts
    )
    assert not result.passed
    assert 'similarity' in result.check['reasons'][0]
    assert set(result.check['attempts']) == set(starts)


@pytest.mark.slow
def test_from_magnitude_to_labels_at_4_mm(tmp_path, monkeypatch, coarse_head, template_brain):
    head = coarse_head
    stage = adapter._STAGES['syn_mi']
    monkeypatch.setitem(adapter._STAGES, 'syn_mi', (*stage[:2], '40x20', *stage[3:]))
    mask, info = registration.extract_brain(head.image, starts=('center_of_mass',))
    assert info['passed'], info
    assert dice(mask, head.brain) > 0.95
    assert info['volume_ml'] == pytest.approx(head.brain.sum() * 0.064, rel=0.1)
    brain, brain_mask = template_brain
    result = registration.register(
        head.image,
        brain,
        out_dir=tmp_path,
        fixed_mask=mask,
        moving_mask=brain_mask.data > 0.5,
        resolution=4.0,
    )
    assert result.passed, result.check
    assert result.check['dice'] > 0.93
    deep = head.labels > 0
    # With few iterations this shows that the parts fit together: an error below one voxel.
    # What the full registration achieves is asserted by the slow test of accuracy.
    assert np.median(target_error(head, result.forward, deep)) < 4.0
    labels = io.load_volume(atlas.load_atlas('CIT168').dseg)
    warped = registration.warp_labels(labels, head.image, [result.forward]).data
    assert dice(warped > 0, deep) > 0.6
    fractions = registration.field_of_view_fraction(labels, head.image, [result.inverse])
    assert min(fractions.values()) == 1
    json.dumps([info, result.check])


@pytest.mark.slow
@pytest.mark.parametrize('contrast', ['gre', 't1w'])
def test_accuracy_at_2_mm(tmp_path, contrast, template_brain):
    head = make_head((104, 120, 92), (2.0, 2.0, 2.0), contrast=contrast, seed=2)
    mask, info = registration.extract_brain(head.image)
    assert info['passed'], info
    assert dice(mask, head.brain) > 0.95
    brain, brain_mask = template_brain
    result = registration.register(
        head.image,
        brain,
        out_dir=tmp_path,
        metric='mi' if contrast == 'gre' else 'cc',
        fixed_mask=mask,
        moving_mask=brain_mask.data > 0.5,
    )
    assert result.passed, result.check
    assert np.median(target_error(head, result.forward, head.labels > 0)) < (
        2.0 if contrast == 'gre' else 1.0
    )
    labels = io.load_volume(atlas.load_atlas('CIT168').dseg)
    warped = registration.warp_labels(labels, head.image, [result.forward]).data
    for index in (1, 2, 5, 101, 102, 105):
        here, there = (np.argwhere(x == index).mean(0) for x in (warped, head.labels))
        assert np.linalg.norm(here - there) * 2 < (2.5 if contrast == 'gre' else 1.0)


@pytest.mark.slow
@pytest.mark.parametrize('case', ['far_origin', 'rotated', 'permuted', 'flipped', 'thick_slices'])
def test_brain_extraction_whatever_the_geometry(case):
    options = {'degrees': (20, 10, -15)} if case == 'rotated' else {}
    shape, voxel = (70, 80, 64), (3.0, 3.0, 3.0)
    if case == 'thick_slices':
        shape, voxel = (100, 120, 38), (2.0, 2.0, 5.0)
    head = make_head(shape, voxel, **options)
    image, brain = head.image, head.brain
    if case == 'far_origin':
        image = Volume(image.data, image.affine.copy())
        image.affine[:3, 3] += 500
    if case == 'permuted':
        image = Volume(image.data.transpose(2, 0, 1).copy(), image.affine[:, [2, 0, 1, 3]])
        brain = brain.transpose(2, 0, 1)
    if case == 'flipped':
        affine = image.affine.copy()
        affine[:3, 3] += affine[:3, 0] * (shape[0] - 1)
        affine[:3, 0] *= -1
        image, brain = Volume(image.data[::-1].copy(), affine), brain[::-1]
    mask, info = registration.extract_brain(image)
    assert info['passed'], info
    assert dice(mask, brain) > 0.94
