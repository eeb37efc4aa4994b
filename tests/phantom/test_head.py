import numpy as np
import pytest

from qsmflow.phantom import anatomy, tissues
from qsmflow.phantom.head import Pose, make_head, make_person, rotation_matrix


@pytest.fixture(scope='module')
def head():
    return make_head(voxel_size=2.0, seed=3)


def test_parts_of_the_susceptibility_have_their_signs(head):
    assert head.chi_para.min() >= 0
    assert head.chi_dia.max() <= 0
    np.testing.assert_array_equal(head.chi, head.chi_para + head.chi_dia)
    assert (head.t1 > 0).all()
    assert (head.r2star > 0).all()
    assert (head.m0 >= 0).all()


@pytest.mark.parametrize(
    'tissue', [t for t in tissues.BRAIN if t.label != 34], ids=lambda t: t.name
)
def test_every_tissue_has_its_value(head, tissue):
    sides = (0, tissues.RIGHT) if tissue.paired else (0,)
    for side in sides:
        where = head.labels == tissue.label + side
        assert where.sum() >= 3
        # Edges and texture blur the mean, most of all that of small and thin structures.
        assert np.median(head.chi[where]) == pytest.approx(
            tissue.chi, abs=0.025 + 0.2 * abs(tissue.chi)
        )


def test_order_of_the_regions(head):
    def mean(label):
        return head.chi[np.isin(head.labels, (label, label + tissues.RIGHT))].mean()

    order = [mean(label) for label in (5, 9, 2, 20)] + [head.chi[head.labels == 30].mean()]
    assert order == sorted(order, reverse=True)


def test_sizes_are_those_of_a_head(head):
    assert 1.4e6 < head.brain_mask.sum() * 8 < 2.4e6
    dentate = (head.labels == 21).sum() * 8
    assert 400 < dentate < 1500
    for label in (tissues.BONE.label, tissues.FAT.label, tissues.MUSCLE.label):
        assert (head.labels == label).sum() * 8 > 1e5
    cavities = (head.labels == tissues.AIR.label).sum() * 8
    assert 5e3 < cavities < 1e5
    assert not (head.labels[head.brain_mask] >= tissues.MUSCLE.label)[
        head.labels[head.brain_mask] < tissues.RIGHT
    ].any()


def test_left_is_left(head):
    x = head.affine[0, 0] * np.arange(head.labels.shape[0]) + head.affine[0, 3]
    for label in (1, 5, 21):
        left = x[np.nonzero(head.labels == label)[0]].mean()
        right = x[np.nonzero(head.labels == label + tissues.RIGHT)[0]].mean()
        assert left < 0 < right


def test_seed_decides_the_anatomy():
    first, again = (make_head(voxel_size=6.0, seed=5) for _ in range(2))
    np.testing.assert_array_equal(first.chi, again.chi)
    make_person.cache_clear()
    np.testing.assert_array_equal(first.chi, make_head(voxel_size=6.0, seed=5).chi)
    other = make_head(voxel_size=6.0, seed=6)
    assert (first.labels != other.labels).mean() > 0.05


def test_warps_do_not_fold():
    for seed in range(1, 6):
        person = make_person(seed)
        u = np.stack([level.data for level in person.warp], axis=-1)
        slopes = np.stack(np.gradient(u, 8.0, axis=(0, 1, 2)), axis=-1)
        jacobian = np.linalg.det(np.eye(3) + slopes)
        assert jacobian.min() > 0.3


def test_pose_moves_the_head():
    straight = make_head(voxel_size=4.0, seed=2)
    pose = Pose(translation=(8.0, 0.0, 0.0))
    moved = make_head(voxel_size=4.0, seed=2, pose=pose)
    np.testing.assert_array_equal(moved.labels[2:], straight.labels[:-2])


def test_pose_turns_about_the_centre():
    pose = Pose((10.0, -5.0, 3.0), (1.0, 2.0, 3.0))
    turn = pose.matrix[:3, :3]
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(turn, rotation_matrix((10.0, -5.0, 3.0)))
    from qsmflow.phantom.head import CENTRE

    np.testing.assert_allclose(pose.matrix @ [*CENTRE, 1], [*np.add(CENTRE, (1, 2, 3)), 1])


def test_calcification_is_there_when_wanted():
    with_it = make_head(voxel_size=2.0, seed=0, calcification=True)
    where = with_it.labels == tissues.CALCIFICATION.label
    assert 4 <= where.sum() <= 14
    assert with_it.chi[where].mean() < -0.2


def test_dentate_is_a_sheet_within_the_search_region():
    from qsmflow import atlas, io

    prior = io.load_volume(atlas.load_atlas('dentate').dseg, np.uint8)
    grid = np.meshgrid(
        np.arange(2, 40, 0.5), np.arange(-85, -35, 0.5), np.arange(-50, -15, 0.5), indexing='ij'
    )
    points = np.stack(grid).reshape(3, -1)
    inside = points[:, anatomy.dentate_level(points) > 0]
    assert 600 < inside.shape[1] / 8 < 1200
    assert np.linalg.norm(inside.mean(axis=1) - (14, -60, -34)) < 2.5
    found = anatomy.Level(prior.data, prior.affine).at(inside, order=0)
    assert np.isin(found, atlas.DENTATE_SEARCH['R']).mean() > 0.99
    # The nucleus is a sheet around the core, not the core.
    core = np.isin(found, atlas.DENTATE_CORE['R']).mean()
    assert core < 0.5


def test_bad_voxel_size_is_refused():
    with pytest.raises(ValueError, match='positive'):
        make_head(voxel_size=(1, 0, 1))
