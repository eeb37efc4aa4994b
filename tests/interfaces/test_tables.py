"""The table interfaces do what the kernels do, on files."""

import json

import numpy as np
import pytest
from scipy import ndimage

from qsmflow import atlas, io, tables
from qsmflow.algorithms import nuclei, regions
from qsmflow.interfaces.tables import DentateSegmentation, RegionStatistics, WriteText


@pytest.fixture
def labelled(scan, save, tmp_path):
    """Return labels with an atlas of them, a path with a table beside it."""
    labels = np.zeros(scan.truth['mask'].shape, int)
    where = np.argwhere(scan.truth['mask']).mean(axis=0).round().astype(int)
    x, y, z = where
    labels[x - 6 : x - 2, y - 2 : y + 3, z - 2 : z + 2] = 1
    labels[x + 2 : x + 6, y - 2 : y + 3, z - 2 : z + 2] = 7
    path = save('mine_dseg', labels)
    table = 'index\tname\themi\n1\tbox\tL\n7\tbox\tR\n9\tnowhere\tL\n'
    (tmp_path / 'mine_dseg.tsv').write_text(table)
    return labels, path


def summarise(files, run, path, **inputs):
    out = run(
        RegionStatistics(labels=path, atlas=path, mask=files.mask, chimap=files.chi, **inputs)
    )
    with open(out.dictionary, encoding='utf-8') as stream:
        assert set(json.load(stream)) >= set(tables.COLUMNS)
    return tables.read_stats(out.stats)


def cell(table, region, hemi, column, name='chi'):
    rows = table[(table.region == region) & (table.hemi == hemi) & (table['map'] == name)]
    assert len(rows) == 1
    return rows[column].iloc[0]


def test_table_is_the_kernel(scan, files, run, labelled):
    labels, path = labelled
    table = summarise(
        files, run, path, r2star=files.r2star, reference={'region': 'csf', 'mean': 0.01}
    )
    rows = [*atlas.rows(atlas.load_atlas(path)), atlas.whole_brain_row()]
    maps = {'chi': scan.truth['chi'], 'R2star': scan.truth['r2star']}
    expected = regions.region_statistics(
        maps, labels, rows, scan.truth['mask'], scan.voxel_size, reference='csf'
    )
    assert len(table) == len(expected) == 2 * len(rows)
    for got, want in zip(table.to_dict('records'), expected, strict=True):
        for key in ('region', 'hemi', 'map', 'n_voxels', 'reference', 'qc'):
            assert got[key] == want[key]
        factor = 1000 if want['map'] == 'chi' else 1
        for key in ('mean', 'median', 'sd', 'core_mean', 'difference'):
            assert got[key] == pytest.approx(want[key] * factor, rel=1e-5, nan_ok=True)
    assert cell(table, 'box', 'L', 'n_voxels') == (labels == 1).sum()
    assert cell(table, 'nowhere', 'L', 'qc') == 'empty'
    assert cell(table, 'whole_brain', '', 'n_voxels') == scan.truth['mask'].sum()
    assert cell(table, 'box', 'L', 'reference', 'R2star') == ''


def test_field_of_view_counts_in_the_coverage(files, run, labelled):
    table = summarise(files, run, labelled[1], fov_fraction={'1': 0.5, '7': 1.0})
    assert cell(table, 'box', 'L', 'coverage') == pytest.approx(0.5)
    assert 'partial' in cell(table, 'box', 'L', 'qc')
    assert cell(table, 'box', 'R', 'coverage') == 1


@pytest.mark.parametrize(('passed', 'flag'), [(True, 'ok'), (False, 'registration')])
def test_failed_registration_marks_every_region(files, run, labelled, passed, flag):
    table = summarise(files, run, labelled[1], registration={'passed': passed})
    assert cell(table, 'box', 'R', 'qc') == flag
    assert cell(table, 'whole_brain', '', 'qc') == 'ok'


def test_dentate_nuclei_join_another_atlas(scan, files, save, run, labelled):
    _, path = labelled
    found = np.zeros(scan.truth['mask'].shape, np.uint8)
    x, y, z = np.argwhere(scan.truth['mask']).mean(axis=0).round().astype(int)
    found[x - 5 : x - 2, y - 6 : y - 4, z] = 1
    found[x + 2 : x + 5, y - 6 : y - 3, z] = 2
    info = {'L': {'method': 'contrast'}, 'R': {'method': 'prior'}}
    table = summarise(files, run, path, dentate=save('dentate', found), dentate_info=info)
    for hemi, region in (('L', found == 1), ('R', found == 2), ('', found > 0)):
        assert cell(table, 'dentate', hemi, 'n_voxels') == region.sum()
        mean = 1000 * scan.truth['chi'][region].mean(dtype=float)
        assert cell(table, 'dentate', hemi, 'mean') == pytest.approx(mean, rel=1e-4)
    assert 'prior' not in cell(table, 'dentate', 'L', 'qc')
    assert 'prior' in cell(table, 'dentate', 'R', 'qc')
    assert 'prior' in cell(table, 'dentate', '', 'qc')


def test_labels_of_another_grid_are_refused(scan, files, save, run, labelled):
    labels, path = labelled
    other = save('other', labels, io.Volume(labels, np.diag([6.0, 6, 6, 1])))
    inputs = {'mask': files.mask, 'chimap': files.chi, 'atlas': path}
    with pytest.raises(io.GridMismatchError):
        run(RegionStatistics(labels=other, **inputs))


def test_dentate_segmentation_is_the_kernel(run, tmp_path):
    shape, rng = (44, 24, 24), np.random.default_rng(0)
    prior, chi = np.zeros(shape, int), 0.01 * rng.standard_normal(shape)
    for side, x in enumerate((11, 32)):
        core = np.zeros(shape, bool)
        core[x - 4 : x + 4, 8:16, 8:16] = True
        search = ndimage.binary_dilation(core, iterations=4)
        prior[search], prior[ndimage.binary_erosion(core)] = side + 1, side + 3
        if side == 0:
            chi[core] += 0.12
    arrays = {'chi': chi, 'prior': prior, 'mask': np.ones(shape, bool)}
    arrays['magnitude'] = np.stack([1 + 0 * chi, 60 - 100 * chi], axis=-1)
    like = io.Volume(chi, np.eye(4))
    paths = {k: io.save_volume(v, like, tmp_path / f'{k}.nii') for k, v in arrays.items()}
    out = run(
        DentateSegmentation(
            chimap=paths['chi'],
            prior=paths['prior'],
            mask=paths['mask'],
            magnitude=paths['magnitude'],
        )
    )
    stored = {name: io.load_volume(path).data for name, path in paths.items()}
    search = [np.isin(prior, atlas.DENTATE_SEARCH[side]) for side in 'LR']
    core = [np.isin(prior, atlas.DENTATE_CORE[side]) for side in 'LR']
    expected = nuclei.segment_dentate(
        stored['chi'],
        None,
        stored['magnitude'][..., -1],
        *search,
        *core,
        arrays['mask'],
        (1.0, 1.0, 1.0),
    )
    np.testing.assert_array_equal(io.load_volume(out.labels).data, expected.labels)
    assert out.info['L']['method'] == 'contrast'
    assert out.info['R']['method'] == 'prior'
    assert out.info['R']['reason'] == expected.right.reason != ''
    assert out.info['L']['volume_mm3'] == (expected.labels == 1).sum()
    json.dumps(out.info, allow_nan=False)


def test_text_is_written_as_it_is(run):
    out = run(WriteText(text='a\tµ\n', file_name='labels.tsv'))
    assert out.out_file.endswith('/labels.tsv')
    with open(out.out_file, encoding='utf-8') as stream:
        assert stream.read() == 'a\tµ\n'
