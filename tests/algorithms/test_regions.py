"""Region tables with known values, empty regions, coverage, and references."""

import numpy as np
import pytest

from qsmflow.algorithms.regions import (
    RegionRow,
    add_asymmetry,
    apply_reference,
    asymmetry,
    csf_mask,
    reference_region,
    region_statistics,
)

SHAPE = (20, 16, 12)
VOXEL = (1.0, 1.5, 2.0)
ROWS = [
    RegionRow('caudate', 'L', (1,)),
    RegionRow('caudate', 'R', (101,)),
    RegionRow('putamen', 'L', (2,)),
    RegionRow('putamen', 'R', (102,)),
    RegionRow('striatum', 'L', (1, 2), 'group'),
    RegionRow('striatum', '', (1, 2, 101, 102), 'group'),
    RegionRow('dentate', 'L', (50,)),
    RegionRow('whole_brain'),
]


@pytest.fixture
def atlas():
    labels = np.zeros(SHAPE, np.int16)
    labels[2:7, 2:7, 2:7] = 1
    labels[2:7, 9:13, 2:7] = 2
    labels[13:18, 2:7, 2:7] = 101
    labels[13:18, 9:13, 2:7] = 102
    rng = np.random.default_rng(0)
    chi = rng.normal(0.02, 0.01, SHAPE)
    chi[labels == 1] += 0.05
    mask = np.ones(SHAPE, bool)
    mask[0] = False
    return labels, chi, mask


def find(table, region, hemi, name='chi'):
    (row,) = [r for r in table if (r['region'], r['hemi'], r['map']) == (region, hemi, name)]
    return row


def test_numbers_are_those_of_numpy(atlas):
    labels, chi, mask = atlas
    row = find(region_statistics({'chi': chi}, labels, ROWS, mask, VOXEL), 'caudate', 'L')
    values = chi[labels == 1]
    assert row['n_voxels'] == 125
    assert row['volume_mm3'] == pytest.approx(375)
    assert row['mean'] == pytest.approx(values.mean())
    assert row['median'] == pytest.approx(np.median(values))
    assert row['sd'] == pytest.approx(values.std(ddof=1))
    for q in (5, 25, 75, 95):
        assert row[f'p{q}'] == pytest.approx(np.percentile(values, q))
    assert row['core_n_voxels'] == 27
    assert row['core_mean'] == pytest.approx(chi[3:6, 3:6, 3:6].mean())
    assert row['coverage'] == 1
    assert row['qc'] == 'ok'


def test_groups_are_unions(atlas):
    labels, chi, mask = atlas
    table = region_statistics({'chi': chi}, labels, ROWS, mask, VOXEL)
    union = np.isin(labels, (1, 2, 101, 102))
    row = find(table, 'striatum', '')
    assert row['n_voxels'] == union.sum()
    assert row['mean'] == pytest.approx(chi[union].mean())
    assert row['kind'] == 'group'
    whole = find(table, 'whole_brain', '')
    assert whole['n_voxels'] == mask.sum()
    assert whole['mean'] == pytest.approx(chi[mask].mean())


def test_erosion_of_a_group_keeps_inner_borders():
    """Two labels that touch are one region: their common face is not a rim."""
    labels = np.zeros((9, 9, 9), int)
    labels[1:5, 1:8, 1:8], labels[5:8, 1:8, 1:8] = 1, 2
    rows = [RegionRow('pair', '', (1, 2), 'group')]
    row = region_statistics({'chi': labels * 1.0}, labels, rows, labels >= 0, VOXEL)[0]
    assert row['core_n_voxels'] == 125


def test_one_row_for_each_region_side_and_map_in_order(atlas):
    labels, chi, mask = atlas
    maps = {'chi': chi, 'R2star': chi + 20, 'T2star': chi * 0 + 0.05}
    table = region_statistics(maps, labels, ROWS, mask, VOXEL, reference='csf')
    assert [(r['region'], r['hemi'], r['map']) for r in table] == [
        (row.name, row.hemi, name) for row in ROWS for name in maps
    ]
    assert {r['reference'] for r in table if r['map'] == 'chi'} == {'csf'}
    assert {r['reference'] for r in table if r['map'] != 'chi'} == {''}
    assert len({tuple(r) for r in table}) == 1  # all rows have the same columns


def test_empty_region_is_a_row_without_numbers(atlas):
    labels, chi, mask = atlas
    row = find(region_statistics({'chi': chi}, labels, ROWS, mask, VOXEL), 'dentate', 'L')
    assert row['qc'] == 'empty'
    assert row['n_voxels'] == row['volume_mm3'] == 0
    for column in ('mean', 'median', 'sd', 'p5', 'p95', 'core_mean', 'asymmetry', 'coverage'):
        assert np.isnan(row[column])


def test_coverage_counts_the_mask(atlas):
    labels, chi, mask = atlas
    mask[2:5] = False  # three of the caudate's five planes
    row = find(region_statistics({'chi': chi}, labels, ROWS, mask, VOXEL), 'caudate', 'L')
    assert row['coverage'] == pytest.approx(0.4)
    assert row['n_voxels'] == 50
    assert row['qc'] == 'partial'


def test_coverage_counts_the_field_of_view(atlas):
    labels, chi, mask = atlas
    table = region_statistics(
        {'chi': chi}, labels, ROWS, mask, VOXEL, fov_fraction={1: 0.5, 2: 1.0, 50: 0.0}
    )
    assert find(table, 'caudate', 'L')['coverage'] == pytest.approx(0.5)
    assert find(table, 'caudate', 'L')['qc'] == 'partial'
    assert find(table, 'caudate', 'R')['coverage'] == 1
    assert find(table, 'striatum', 'L')['coverage'] == pytest.approx(225 / 350)
    assert find(table, 'dentate', 'L')['qc'] == 'empty'


def test_region_outside_the_mask_is_empty_but_covered_zero(atlas):
    labels, chi, mask = atlas
    mask[labels == 1] = False
    row = find(region_statistics({'chi': chi}, labels, ROWS, mask, VOXEL), 'caudate', 'L')
    assert (row['n_voxels'], row['coverage'], row['qc']) == (0, 0.0, 'empty')


def test_voxels_without_value_are_left_out(atlas):
    labels, chi, mask = atlas
    t2star = np.full(SHAPE, 0.05)
    chi[2, 2, 2], t2star[2, 2, 3] = np.nan, 0.0
    table = region_statistics({'chi': chi, 'T2star': t2star}, labels, ROWS, mask, VOXEL)
    assert find(table, 'caudate', 'L')['n_voxels'] == 124
    assert np.isfinite(find(table, 'caudate', 'L')['mean'])
    row = find(table, 'caudate', 'L', 'T2star')
    assert (row['n_voxels'], row['mean']) == (124, pytest.approx(0.05))


def test_small_regions_and_notes_are_flagged(atlas):
    labels, chi, mask = atlas
    labels[0, 0, 0], labels[1, 0, 0] = 50, 50
    table = region_statistics(
        {'chi': chi}, labels, ROWS, mask, VOXEL, notes={('dentate', 'L'): 'prior'}
    )
    assert find(table, 'dentate', 'L')['qc'] == 'partial;small;prior'
    assert np.isnan(find(table, 'dentate', 'L')['sd'])


def test_axes_do_not_matter(atlas):
    labels, chi, mask = atlas
    straight = region_statistics({'chi': chi}, labels, ROWS, mask, VOXEL)
    order = (2, 0, 1)
    turned = region_statistics(
        {'chi': chi.transpose(order)},
        labels.transpose(order),
        ROWS,
        mask.transpose(order),
        tuple(VOXEL[a] for a in order),
    )
    for one, other in zip(straight, turned, strict=True):
        assert one['mean'] == pytest.approx(other['mean'], nan_ok=True)
        assert one['core_mean'] == pytest.approx(other['core_mean'], nan_ok=True)
        assert one['volume_mm3'] == pytest.approx(other['volume_mm3'])


def test_maps_of_another_shape_are_refused(atlas):
    labels, chi, mask = atlas
    with pytest.raises(ValueError, match='chi has shape'):
        region_statistics({'chi': chi[1:]}, labels, ROWS, mask, VOXEL)


def test_asymmetry_compares_sides(atlas):
    labels, chi, mask = atlas
    table = region_statistics({'chi': chi}, labels, ROWS, mask, VOXEL)
    left, right = find(table, 'caudate', 'L'), find(table, 'caudate', 'R')
    difference = left['mean'] - right['mean']
    assert left['difference'] == right['difference'] == pytest.approx(difference)
    assert left['asymmetry'] == pytest.approx(2 * difference / (left['mean'] + right['mean']))
    assert np.isnan(find(table, 'striatum', 'L')['asymmetry'])  # its right side is not asked for
    assert np.isnan(find(table, 'striatum', '')['asymmetry'])


def test_asymmetry_of_opposite_signs_is_bounded():
    assert asymmetry(0.02, -0.02) == (2.0, 0.04)
    assert np.isnan(asymmetry(0.0, 0.0)[0])
    row = {'region': 'a', 'map': 'chi', 'hemi': 'L', 'mean': float('nan')}
    both = add_asymmetry([row, row | {'hemi': 'R', 'mean': 1.0}])
    assert np.isnan(both[1]['asymmetry'])


def test_reference_shifts_the_map_and_records_it(atlas):
    _, chi, mask = atlas
    chi = np.where(mask, chi, 0).astype(np.float32)
    before = chi.copy()
    region = mask & (np.indices(SHAPE)[0] < 6)
    shifted, stats = apply_reference(chi, region, 'csf', mask)
    assert shifted.dtype == np.float32
    assert shifted[region].mean(dtype=float) == pytest.approx(0, abs=1e-8)
    assert not shifted[~mask].any()
    assert stats.mean == pytest.approx(chi[region].mean(dtype=float))
    assert stats.sd == pytest.approx(chi[region].std(dtype=float), rel=1e-6)
    assert (stats.n_voxels, stats.region) == (region.sum(), 'csf')
    np.testing.assert_array_equal(chi, before)


def test_no_reference_keeps_the_map(atlas):
    _, chi, mask = atlas
    same, stats = apply_reference(chi, mask, 'none', mask)
    np.testing.assert_allclose(same[mask], chi[mask], rtol=1e-6)
    assert stats.mean == pytest.approx(chi[mask].mean())


def test_reference_without_voxels_is_refused(atlas):
    _, chi, mask = atlas
    with pytest.raises(ValueError, match="'csf' has no voxel"):
        apply_reference(chi, ~mask, 'csf', mask)


@pytest.fixture
def ventricles():
    """Two ventricles, fluid at the surface, a choroid plexus and single noise voxels."""
    shape = (50, 50, 50)
    r2star = np.full(shape, 20.0, np.float32)
    chi = np.random.default_rng(0).normal(0.0, 0.005, shape)
    csf = np.zeros(shape, bool)
    csf[15:22, 15:35, 22:30] = csf[28:35, 15:35, 22:30] = True
    r2star[csf] = 1.5
    plexus = np.zeros(shape, bool)
    plexus[17:19, 20:23, 24:26] = True
    chi[plexus] = -0.2
    r2star[:, :, :3] = 1.0
    r2star[5, 5, 5:8] = r2star[40, 25, 25] = r2star[25, 42, 25] = 2.0
    return r2star, chi, csf, plexus


def test_fluid_of_the_ventricles_is_found(ventricles):
    r2star, chi, csf, plexus = ventricles
    mask = np.ones(csf.shape, bool)
    found = csf_mask(r2star, chi, mask, (1.5, 1.5, 1.5))
    assert not found[plexus].any()
    assert found[csf & ~plexus].mean() > 0.97
    far = found & ~csf
    assert far.sum() <= 1  # at most the largest lone voxel as a third component


def test_sphere_is_in_millimetres(ventricles):
    r2star, _, _, _ = ventricles
    mask = np.ones(r2star.shape, bool)
    near = csf_mask(r2star, None, mask, (1.5, 1.5, 1.5))
    assert not near[:, :, :3].any()
    wide = csf_mask(r2star, None, mask, (1.5, 1.5, 1.0))
    assert wide[:, :, :3].any()  # with thinner slices the surface lies within 30 mm


def test_reference_falls_back_to_the_whole_brain_and_says_so(ventricles):
    r2star, chi, _, _ = ventricles
    mask = np.ones(r2star.shape, bool)
    region, used = reference_region('csf', mask, (1.5, 1.5, 1.5), r2star=r2star, chi=chi)
    assert used == 'csf'
    assert 1000 < region.sum() < 3000
    for none in (np.full(mask.shape, 20.0), None):
        region, used = reference_region('csf', mask, (1, 1, 1), r2star=none)
        assert used == 'whole_brain'
        assert region.all()
    region, used = reference_region('splenium', mask, (1, 1, 1), custom=r2star < 5)
    assert (used, region.sum()) == ('splenium', (r2star < 5).sum())
    with pytest.raises(ValueError, match='unknown reference region'):
        reference_region('splenium', mask, (1, 1, 1))


def test_fluid_mask_of_an_empty_brain_is_empty():
    nothing = np.zeros((5, 5, 5), bool)
    assert not csf_mask(nothing * 1.0, None, nothing, (1, 1, 1)).any()
