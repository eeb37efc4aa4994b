"""Three turned heads give one map, better than that of one of them."""

import dataclasses
import logging

import numpy as np
import pytest
from scipy import ndimage

from qsmflow import io, registration
from qsmflow.algorithms import get_method
from qsmflow.interfaces.cosmos import (
    CosmosInversion,
    RegisterOrientation,
    angles_between,
    rotation_of,
    turned_direction,
)
from qsmflow.phantom.acquisition import simulate_gre
from qsmflow.phantom.head import Pose, make_head, rotation_matrix
from qsmflow.workflows import init_cosmos_wf

#: Pose of the head, turn of the slab and order of the axes of each scan.
SCANS = (
    (Pose(), (0, 0, 0), 'RAS'),
    (Pose((25, 0, 5), (3, -2, 4)), (0, 0, 0), 'RAS'),
    (Pose((-15, 20, 0), (-4, 3, 1)), (10, 0, -8), 'LPS'),
)
NOISE = 0.003  # ppm


@dataclasses.dataclass
class Scan:
    """Files of an orientation, its acquisition and the way from the first head to this one."""

    acquisition: object
    to_own: np.ndarray
    field: str
    mask: str
    magnitude: str
    weights: str


@pytest.fixture(scope='module')
def scans(tmp_path_factory):
    folder = tmp_path_factory.mktemp('orientations')
    random = np.random.default_rng(0)
    found = []
    for number, (pose, slab, axes) in enumerate(SCANS):
        head = make_head(voxel_size=16.0, seed=1, pose=pose)
        scan = simulate_gre(
            head, te=(0.004, 0.012), voxel_size=6.0, shape=(32, 38, 32), seed=number,
            rotation_deg=slab, axes=axes, dephasing=False,
        )  # fmt: skip
        mask = scan.truth['mask']
        field = scan.truth['local_field'] + NOISE * random.standard_normal(mask.shape)
        arrays = {'field': field, 'mask': mask, 'magnitude': scan.magnitude[..., 0]}
        arrays['weights'] = np.ones(mask.shape, np.float32)
        like = io.Volume(mask, scan.affine)
        files = {
            name: io.save_volume(array, like, folder / f'{name}_{number}.nii')
            for name, array in arrays.items()
        }
        found.append(Scan(scan, pose.matrix @ np.linalg.inv(SCANS[0][0].matrix), **files))
    return found


@pytest.fixture(scope='module')
def transforms(scans, tmp_path_factory):
    folder = tmp_path_factory.mktemp('transforms')
    return [
        registration.write_affine(scan.to_own, folder / f'{number}.txt')
        for number, scan in enumerate(scans[1:])
    ]


def combination(scans, transforms, **options):
    return CosmosInversion(
        fields=[scan.field for scan in scans],
        masks=[scan.mask for scan in scans],
        transforms=transforms,
        **options,
    )


def error(path, truth, where):
    """Return the RMS error of a map, in ppm, means taken out."""
    data = io.load_volume(path).data if isinstance(path, str) else path
    difference = (data - truth)[where].astype(float)
    return float(difference.std())


@pytest.fixture
def core(scans):
    return ndimage.binary_erosion(scans[0].acquisition.truth['mask'], iterations=2)


def expected_directions(scans):
    """Return the scanner's z axis in the head, in the array axes of the first scan (RAS)."""
    return [scan.to_own[:3, :3].T @ (0, 0, 1) for scan in scans]


@pytest.mark.parametrize('weighted', [False, True])
def test_three_orientations_are_better_than_one(scans, transforms, core, run, weighted):
    options = {'weights': [scan.weights for scan in scans]} if weighted else {}
    found = run(combination(scans, transforms, **options))
    first = scans[0].acquisition
    truth = first.truth['chi']
    single = [
        get_method('inversion', method)(
            io.load_volume(scans[0].field).data,
            first.truth['mask'],
            first.voxel_size,
            b0_dir=first.b0_dir,
        )
        for method in ('tv', 'rts', 'tkd')
    ]
    best = min(error(chi, truth, core) for chi in single)
    assert error(found.chimap, truth, core) < 0.75 * best
    volume, mask = io.load_volume(found.chimap), io.load_mask(found.mask)
    np.testing.assert_allclose(volume.affine, first.affine, atol=1e-5)
    assert not volume.data[~mask].any()
    assert mask[core].mean() > 0.98
    assert mask.sum() > 0.93 * first.truth['mask'].sum()


def test_geometry_is_told(scans, transforms, run):
    found = run(combination(scans, transforms, interpolation='cubic', checks=[{'passed': True}]))
    assert found.info['n'] == 3
    assert found.info['n_voxels'] == io.load_mask(found.mask).sum()
    assert found.info['iterations'] > 1
    assert found.info['registrations'] == [{'passed': True}]
    directions = np.array(found.info['b0_dirs'])
    np.testing.assert_allclose(directions, expected_directions(scans), atol=1e-4)
    assert found.info['angles'] == angles_between(directions)
    assert 20 < found.info['angles'][0][1] < 26
    assert 5 < found.info['conditioning'] < 10
    assert not found.warnings


def test_directions_turned_the_wrong_way_do_harm(scans, transforms, core, run):
    truth = scans[0].acquisition.truth['chi']
    right = run(combination(scans, transforms))
    turned_back = [
        turned_direction(
            tuple(scan.to_own[:3, 2]), np.eye(4), scan.to_own[:3, :3].T, scan.acquisition.affine
        )
        for scan in scans
    ]
    wrong = run(combination(scans, transforms, b0_dirs=turned_back))
    np.testing.assert_allclose(
        wrong.info['b0_dirs'], [scan.to_own[:3, 2] for scan in scans], atol=1e-4
    )
    assert error(wrong.chimap, truth, core) > 1.8 * error(right.chimap, truth, core)


def test_given_directions_win_over_the_affines(scans, transforms, run):
    own = [scan.acquisition.b0_dir for scan in scans]
    by_affine = run(combination(scans, transforms))
    given = run(combination(scans, transforms, b0_dirs=own))
    assert given.info == by_affine.info
    other = run(combination(scans, transforms, b0_dirs=[(0.0, 1.0, 0.0)] * 3))
    assert other.info['b0_dirs'][0] == [0.0, 1.0, 0.0]


def test_a_turned_slab_is_not_a_turned_head(scans, run, tmp_path, caplog):
    """The same head in three slabs: the main field lies in it as before, which must be said."""
    identity = registration.write_affine(np.eye(4), tmp_path / 'identity.txt')
    files = []
    for number, degrees in enumerate(((0, 0, 0), (30, 0, 0), (0, -30, 0))):
        affine = np.eye(4)
        affine[:3, :3] = rotation_matrix(degrees) * 6.0
        affine[:3, 3] = -affine[:3, :3] @ (7.5, 7.5, 7.5)
        like = io.Volume(np.ones((16, 16, 16), np.float32), affine)
        files.append(io.save_volume(like.data, like, tmp_path / f'field_{number}.nii'))
    interface = CosmosInversion(fields=files, masks=files, transforms=[identity] * 2)
    with caplog.at_level(logging.WARNING, 'qsmflow.interfaces.cosmos'):
        found = run(interface)
    assert np.max(found.info['angles']) < 0.1
    (warning,) = found.warnings
    assert (warning['code'], warning['level']) == ('ORICOND', 'WARN')
    assert warning['remedy']
    assert 'WARN ORICOND' in caplog.text


def test_failed_registration_is_told(scans, transforms, run, caplog):
    checks = [{'passed': True}, {'passed': False, 'score': 0.1, 'reasons': ['similarity is low']}]
    with caplog.at_level(logging.WARNING, 'qsmflow.interfaces.cosmos'):
        found = run(combination(scans, transforms, checks=checks))
    (warning,) = found.warnings
    assert warning['code'] == 'ORIREG'
    assert 'orientation 3' in warning['message']
    assert warning['evidence'] == {'score': 0.1, 'reasons': ['similarity is low']}
    assert 'WARN ORIREG' in caplog.text


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda i: i.trait_set(fields=i.fields[:2]), 'three or more'),
        (lambda i: i.trait_set(masks=i.masks[:2]), '3 fields need 3 masks'),
        (lambda i: i.trait_set(transforms=i.transforms * 2), '3 fields need 2 transforms'),
        (lambda i: i.trait_set(b0_dirs=[(0.0, 0.0, 1.0)]), '3 fields need 3 b0_dirs'),
    ],
)
def test_what_is_missing_is_named(scans, transforms, run, change, message):
    interface = combination(scans, transforms)
    change(interface.inputs)
    with pytest.raises(ValueError, match=message):
        run(interface)


def test_transform_that_is_not_rigid_is_refused(tmp_path):
    matrix = np.diag([1.05, 1.0, 1.0, 1.0])
    path = registration.write_affine(matrix, tmp_path / 'affine.txt')
    with pytest.raises(ValueError, match='is not rigid'):
        rotation_of(path)
    matrix[:3, :3] = rotation_matrix((20, -10, 5))
    path = registration.write_affine(matrix, tmp_path / 'rigid.txt')
    np.testing.assert_allclose(rotation_of(path), matrix[:3, :3], atol=1e-12)


def test_direction_follows_head_and_axes():
    affine = np.diag([-2.0, -2.0, 3.0, 1.0])
    turn = rotation_matrix((30, 0, 0))
    turned = turned_direction((0.0, 0.0, 1.0), np.eye(4), turn, affine)
    np.testing.assert_allclose(turned, (0, -0.5, 0.866), atol=1e-3)
    np.testing.assert_allclose(
        turned_direction((0.0, 0.5, 0.866), affine, np.eye(3), affine), (0, 0.5, 0.866), atol=1e-3
    )


@pytest.mark.parametrize('number', [1, 2])
def test_orientation_is_registered_to_the_first(scans, run, number):
    found = run(
        RegisterOrientation(
            magnitudes=[scan.magnitude for scan in scans],
            masks=[scan.mask for scan in scans],
            number=number,
        )
    )
    assert found.check['passed']
    assert found.check['kind'] == 'rigid'
    mask = scans[0].acquisition.truth['mask']
    points = np.c_[np.argwhere(mask), np.ones(mask.sum())] @ scans[0].acquisition.affine.T
    matrix = registration.read_affine(found.transform)
    distance = np.linalg.norm((points @ (matrix - scans[number].to_own).T)[:, :3], axis=1)
    assert distance.max() < 2.4  # of 6 mm voxels
    assert angles_between([matrix[2, :3], scans[number].to_own[2, :3]])[0][1] < 1


def test_workflow_registers_combines_and_refers(scans, core, tmp_path):
    workflow = init_cosmos_wf(n=3)
    workflow.base_dir = str(tmp_path)
    door = workflow.inputs.inputnode
    door.magnitudes = [scan.magnitude for scan in scans]
    door.brain_masks = door.masks = [scan.mask for scan in scans]
    door.local_fields = [scan.field for scan in scans]
    door.weights = [scan.weights for scan in scans]
    results = {node.name: node.result.outputs for node in workflow.run().nodes()}
    first = scans[0].acquisition
    single = get_method('inversion', 'rts')(
        io.load_volume(scans[0].field).data,
        first.truth['mask'],
        first.voxel_size,
        b0_dir=first.b0_dir,
    )
    truth = first.truth['chi']
    chimap = results['refer'].chimap
    assert error(chimap, truth, core) < 0.8 * error(single, truth, core)
    inside = io.load_mask(results['combine'].mask)
    assert abs(io.load_volume(chimap).data[inside].mean()) < 1e-6
    info = results['combine'].info
    assert [check['passed'] for check in info['registrations']] == [True, True]
    np.testing.assert_allclose(info['b0_dirs'], expected_directions(scans), atol=0.02)
