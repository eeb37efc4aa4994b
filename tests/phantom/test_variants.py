"""Lesions, atrophy, size of the nuclei, phase offsets of other shapes, and bad phase."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from qsmflow.phantom import (
    SMALL,
    make_head,
    region_truth,
    simulate_gre,
    tissues,
    variants,
    write_bids,
)
from qsmflow.phantom.cli import make_parser, protocol_from
from qsmflow.phantom.coils import OFFSET_SHAPES
from qsmflow.phantom.dataset import TRUTH

COARSE = {'voxel_size': 6.0, 'dephasing': False, 'snr': float('inf'), 'seed': 1}


def volume(head, label):
    return np.count_nonzero(head.labels == label)


@pytest.fixture(scope='module')
def plain():
    return make_head(voxel_size=2.0, seed=3)


@pytest.fixture(scope='module')
def ill():
    return make_head(voxel_size=2.0, seed=3, haemorrhage=True, calcification=-3.0)


def test_haemorrhage_is_strong_and_in_white_matter(plain, ill):
    where = ill.labels == tissues.HAEMORRHAGE.label
    assert where.sum() * 8 == pytest.approx(4 / 3 * np.pi * 6**3, rel=0.15)
    assert ill.chi[where].mean() == pytest.approx(1.0, abs=0.15)
    assert ill.r2star[where].mean() > 150
    rim = ndimage.binary_dilation(where) & ~where
    assert (ill.labels[rim] == tissues.WHITE.label).all()
    assert (plain.labels[where] == tissues.WHITE.label).all()


def test_calcification_takes_a_susceptibility(plain, ill):
    where = ill.labels == tissues.CALCIFICATION.label
    assert ill.chi[where].mean() == pytest.approx(-3.0, rel=0.2)
    usual = make_head(voxel_size=2.0, seed=3, calcification=True)
    np.testing.assert_array_equal(usual.labels == tissues.CALCIFICATION.label, where)
    assert usual.chi[where].mean() == pytest.approx(0.1 * ill.chi[where].mean(), rel=1e-4)


def test_lesions_change_nothing_else(plain, ill):
    lesion = np.isin(ill.labels, (tissues.HAEMORRHAGE.label, tissues.CALCIFICATION.label))
    np.testing.assert_array_equal(ill.chi[~lesion], plain.chi[~lesion])
    np.testing.assert_array_equal(ill.labels[~lesion], plain.labels[~lesion])


def test_atrophy_widens_fluid_within_the_same_skull(plain):
    heads = [plain, *(make_head(voxel_size=2.0, seed=3, atrophy=a) for a in (0.5, 1.0))]
    fluid = [volume(head, tissues.CSF.label) for head in heads]
    assert fluid[1] > 1.5 * fluid[0]
    assert fluid[2] > 1.3 * fluid[1]
    for head in heads[1:]:
        np.testing.assert_array_equal(head.brain_mask, plain.brain_mask)
        outside = ~plain.brain_mask
        np.testing.assert_array_equal(head.chi[outside], plain.chi[outside])
    rim = plain.brain_mask & ~ndimage.binary_erosion(plain.brain_mask)
    shares = [(head.labels[rim] == tissues.CSF.label).mean() for head in heads]
    assert shares[2] > 0.5 > shares[0]
    ventricles = [np.zeros_like(plain.brain_mask) for _ in heads]
    deep = ndimage.binary_erosion(plain.brain_mask, iterations=12)
    for region, head in zip(ventricles, heads, strict=True):
        region[:] = deep & (head.labels == tissues.CSF.label)
    assert ventricles[2].sum() > 1.2 * ventricles[0].sum()


def test_atrophy_does_not_fold_the_brain():
    grid = np.meshgrid(*[np.arange(-60, 60, 2.0)] * 3, indexing='ij')
    points = np.stack(grid).reshape(3, -1).astype(np.float32)
    moved = variants.recede(points, 1.0)
    assert np.linalg.norm(moved - points, axis=0).max() <= variants.ATROPHY_SHIFT * 1.01
    place = np.moveaxis(moved.reshape(3, 60, 60, 60), 0, -1)
    slopes = np.stack(np.gradient(place, 2.0, axis=(0, 1, 2)), axis=-1)
    assert np.linalg.det(slopes).min() > 0.2


@pytest.mark.parametrize('scale', [0.8, 1.2])
def test_nuclei_scale_is_linear_size(scale):
    usual, scaled = (variants.scaled_nuclei(s).data for s in (1.0, scale))
    before, after = (np.bincount(a.ravel())[1:] for a in (usual, scaled))
    there = before > 100
    np.testing.assert_allclose(after[there] / before[there], scale**3, rtol=0.01)
    kept = (usual == 5) & (scaled == 5)
    assert kept.sum() == min((usual == 5).sum(), (scaled == 5).sum())
    assert not ((usual > 0) & (scaled > 0) & (usual != scaled)).any()


def test_nuclei_scale_reaches_all_nuclei_of_a_head(plain):
    small, large = (make_head(voxel_size=2.0, seed=3, nuclei_scale=s) for s in (0.8, 1.2))
    for label in (1, 101, 20, 21, 121):
        ratio = volume(large, label) / volume(small, label)
        assert 2.2 < ratio < 4.5, label
    far = ~ndimage.binary_dilation(np.isin(large.labels % 100, range(1, 22)), iterations=3)
    np.testing.assert_array_equal(large.labels[far], plain.labels[far])


@pytest.mark.parametrize(
    ('wrong', 'match'),
    [
        ({'calcification': 1.0}, 'diamagnetic'),
        ({'haemorrhage': -1.0}, 'paramagnetic'),
        ({'atrophy': 1.5}, 'atrophy'),
        ({'nuclei_scale': 2.0}, 'nuclei_scale'),
    ],
)
def test_impossible_variants_are_refused(wrong, match):
    with pytest.raises(ValueError, match=match):
        make_head(voxel_size=16.0, **wrong)
    with pytest.raises(ValueError, match=match):
        replace(SMALL, **wrong)


@pytest.mark.parametrize('shape', OFFSET_SHAPES)
def test_offset_shapes_are_smooth_seeded_and_in_the_phase(shape):
    head = make_head(voxel_size=16.0, seed=1)
    scan, again = (simulate_gre(head, offset_shape=shape, **COARSE) for _ in range(2))
    offset, mask = scan.truth['phase_offset'], scan.truth['mask']
    np.testing.assert_array_equal(offset, again.truth['phase_offset'])
    other = simulate_gre(head, offset_shape=shape, **COARSE | {'seed': 2})
    assert np.abs(offset - other.truth['phase_offset']).max() > 0.3
    assert 0.2 < np.ptp(offset[mask]) < 12
    steps = [np.abs(np.diff(offset, axis=axis)).max() for axis in range(3)]
    assert max(steps) < 1.0
    bare = simulate_gre(head, offset_shape=shape, phase_offset=False, **COARSE)
    turn = np.exp(1j * (scan.phase - bare.phase - offset[..., np.newaxis]))
    assert np.abs(np.angle(turn[mask])).max() < 1e-3


def test_offset_shapes_leave_the_noise_alone():
    head = make_head(voxel_size=16.0, seed=1)
    noisy = COARSE | {'snr': 40.0, 'phase_offset': 0.0}
    scans = [simulate_gre(head, offset_shape=shape, **noisy) for shape in OFFSET_SHAPES]
    for scan in scans[1:]:
        np.testing.assert_array_equal(scan.phase, scans[0].phase)


def test_bad_voxels_have_random_phase_and_true_magnitude():
    head = make_head(voxel_size=16.0, seed=1)
    good, bad = (simulate_gre(head, bad_voxels=f, **COARSE) for f in (0.0, 0.02))
    np.testing.assert_array_equal(good.magnitude, bad.magnitude)
    changed = (good.phase != bad.phase).any(axis=3)
    assert changed.mean() == pytest.approx(0.02, rel=0.15)
    phase = bad.phase[changed]
    assert np.abs(np.exp(1j * phase).mean()) < 0.1
    assert phase.min() >= -np.pi
    assert phase.max() < np.pi


def test_impossible_phase_errors_are_refused():
    head = make_head(voxel_size=16.0)
    with pytest.raises(ValueError, match='bad_voxels'):
        simulate_gre(head, bad_voxels=2.0)
    with pytest.raises(ValueError, match='offset_shape'):
        simulate_gre(head, offset_shape='cubic', **COARSE)


def test_tables_list_a_haemorrhage_only_where_there_is_one():
    rows = []
    for wanted in (False, True):
        head = make_head(voxel_size=16.0, haemorrhage=wanted)
        scan = simulate_gre(head, **COARSE)
        rows.append({row['name']: row for row in region_truth(scan)})
    assert 'haemorrhage' not in rows[0]
    assert rows[1]['haemorrhage']['chi_mean'] > 0.4
    assert set(rows[1]) - set(rows[0]) == {'haemorrhage'}


def test_options_of_the_command_line_reach_the_files(tmp_path):
    options = make_parser().parse_args([
        str(tmp_path), '--small', '--voxel-size', '8', '--haemorrhage', '--atrophy', '0.5',
        '--nuclei-scale', '1.1', '--calcification-chi', '-3', '--offset-shape', 'waves',
        '--bipolar', '0.3', '--bad-voxels', '0.01',
    ])  # fmt: skip
    protocol = protocol_from(options)
    assert protocol.anatomy == {
        'calcification': -3.0, 'haemorrhage': True, 'atrophy': 0.5, 'nuclei_scale': 1.1,
    }  # fmt: skip
    assert (protocol.offset_shape, protocol.bipolar, protocol.bad_voxels) == ('waves', 0.3, 0.01)
    out = tmp_path / 'out'
    write_bids(out, subjects=1, sessions=(1,), protocol=replace(protocol, t1w_voxel_size=8.0))
    table = (out / TRUTH / 'sub-01/anat/sub-01_desc-truth_stats.tsv').read_text()
    assert '\thaemorrhage\t' in table
