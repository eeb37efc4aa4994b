import json

import nibabel as nib
import numpy as np
import pytest

from qsmflow import atlas, io

AFFINE_1MM = np.array([[1.0, 0, 0, -96], [0, 1, 0, -132], [0, 0, 1, -78], [0, 0, 0, 1]])


def load_labels(name):
    return io.load_volume(atlas.load_atlas(name).dseg, np.uint8)


@pytest.mark.parametrize(
    ('name', 'shape', 'size'),
    [
        ('T1w_res-2', (97, 115, 97), 2.0),
        ('brain_mask_res-2', (97, 115, 97), 2.0),
        ('T1w_brain_res-2', (97, 115, 97), 2.0),
        ('T1w_brain_res-1', (193, 229, 193), 1.0),
    ],
)
def test_templates_lie_on_one_grid(name, shape, size):
    volume = io.load_volume(atlas.template(name))
    assert volume.shape == shape
    assert volume.voxel_size == (size,) * 3
    np.testing.assert_allclose(volume.affine[:3, 3], AFFINE_1MM[:3, 3])


def test_template_intensities_are_those_of_the_source_scale():
    brain = io.load_volume(atlas.template('T1w_brain_res-1'))
    assert 95 < brain.data.max() <= 102
    mask = io.load_mask(atlas.template('brain_mask_res-2'))
    assert 1.7e6 < mask.sum() * 8 < 2.0e6
    head = io.load_volume(atlas.template('T1w_res-2'))
    # The full head is bright outside the brain too: that is what brain extraction needs.
    assert (head.data[~mask] > 40).sum() > 50_000


def test_unknown_template_names_the_known_ones():
    with pytest.raises(KeyError, match='T1w_res-2'):
        atlas.template('T2w')


def test_cit168_sides_and_sizes():
    loaded = atlas.load_atlas('CIT168')
    labels = load_labels('CIT168')
    np.testing.assert_allclose(labels.affine, AFFINE_1MM)
    assert set(np.unique(labels.data)) - {0} == {label.index for label in loaded.table}
    for label in loaded.table:
        x = np.nonzero(labels.data == label.index)[0].mean() + AFFINE_1MM[0, 3]
        assert (x > 0) == (label.hemi == 'R'), label
    by_name = {(label.name, label.hemi): label.index for label in loaded.table}
    for name, low, high in [('putamen', 6e3, 1e4), ('red_nucleus', 300, 700), ('STN', 100, 400)]:
        for hemi in 'LR':
            assert low < (labels.data == by_name[name, hemi]).sum() < high


def test_dentate_prior_is_symmetric_nested_and_wide():
    labels = load_labels('dentate')
    np.testing.assert_allclose(labels.affine, AFFINE_1MM)
    # x = 0 is the centre of the grid, so that mirroring the array mirrors the head.
    mirrored = labels.data[::-1]
    for left, right in ((1, 2), (3, 4)):
        overlap = ((labels.data == left) & (mirrored == right)).sum()
        assert overlap > 0.97 * (labels.data == left).sum()
    search = np.isin(labels.data, atlas.DENTATE_SEARCH['R'])
    core = np.isin(labels.data, atlas.DENTATE_CORE['R'])
    assert core[search].sum() == core.sum()
    assert 400 < core.sum() < 1500
    assert search.sum() > 5 * core.sum()
    centroid = np.argwhere(core).mean(axis=0) + AFFINE_1MM[:3, 3]
    assert np.linalg.norm(centroid - (14, -60, -34)) < 3


def test_shipped_rows_have_both_sides_and_their_union():
    rows = {(row.name, row.hemi): row for row in atlas.rows(atlas.load_atlas('CIT168'))}
    assert rows['substantia_nigra', 'R'].labels == (107, 109)
    assert rows['caudate', ''].labels == (2, 102)
    assert rows['basal_ganglia', 'L'].labels == (1, 2, 5, 6)
    assert rows['caudate', 'L'].kind == 'region'
    assert rows['basal_ganglia', 'L'].kind == 'group'
    known = {label.index for label in atlas.load_atlas('CIT168').table}
    assert all(set(row.labels) <= known for row in rows.values())
    assert atlas.whole_brain_row().kind == 'mask'
    assert {name for name, _ in rows} <= set(atlas.descriptions())


def test_regions_of_one_label_have_its_name():
    """Label image, region table and report speak of one region by one name."""
    cit168 = atlas.load_atlas('CIT168')
    names = {label.index: label.name for label in cit168.table}
    single = [row for row in atlas.rows(cit168) if len(row.labels) == 1]
    assert {row.labels[0] for row in single} == set(names)
    assert all(row.name == names[row.labels[0]] for row in single)


def test_descriptions_are_of_the_regions_of_the_atlas(custom_atlas):
    cit168 = atlas.descriptions(atlas.load_atlas('CIT168'))
    assert 'ventral tegmental area' in cit168['SNc_VTA']
    assert 'ventral tegmental area' in cit168['substantia_nigra']
    assert {row.name for row in atlas.rows(atlas.load_atlas('CIT168'))} < set(cit168)
    assert 'dentate' in cit168
    assert list(atlas.descriptions(atlas.load_atlas(custom_atlas[0]))) == ['whole_brain']


def test_dentate_rows_are_those_of_the_subject():
    rows = {(row.name, row.hemi): row.labels for row in atlas.rows(atlas.load_atlas('dentate'))}
    assert rows == {
        ('dentate', 'L'): (1,),
        ('dentate', 'R'): (2,),
        ('dentate', ''): (1, 2),
    }


@pytest.fixture
def custom_atlas(tmp_path):
    folder = tmp_path / 'atlas-Mine'
    folder.mkdir()
    data = np.zeros((4, 4, 4), np.uint8)
    data[0], data[3], data[1, 0] = 1, 2, 7
    image = folder / 'tpl-MNI152NLin6Asym_atlas-Mine_res-2_dseg.nii.gz'
    nib.save(nib.Nifti1Image(data, np.eye(4)), image)
    (folder / 'atlas-Mine_description.json').write_text(json.dumps({'License': 'CC0'}))
    table = 'index\tname\themi\tgroup\n0\tbackground\t\t\n2\tthalamus\tright\tdeep\n'
    table += '1\tthalamus\tL\tdeep\n7\tpons\tn/a\tn/a\n'
    image.with_name(image.name.replace('.nii.gz', '.tsv')).write_text(table)
    return folder, image


def test_custom_folder(custom_atlas):
    loaded = atlas.load_atlas(custom_atlas[0])
    assert (loaded.name, loaded.space, loaded.license) == ('Mine', 'MNI152NLin6Asym', 'CC0')
    assert loaded.table[0] == atlas.Label(1, 'thalamus', 'L', 'deep')
    assert loaded.table[-1] == atlas.Label(7, 'pons')
    rows = [(row.name, row.hemi, row.labels, row.kind) for row in atlas.rows(loaded)]
    assert rows == [
        ('thalamus', 'L', (1,), 'region'),
        ('thalamus', 'R', (2,), 'region'),
        ('pons', '', (7,), 'region'),
        ('thalamus', '', (1, 2), 'group'),
        ('deep', '', (1, 2), 'group'),
    ]


def test_label_image_alone(custom_atlas):
    assert atlas.load_atlas(custom_atlas[1]).name == 'Mine'


def test_subject_segmentation_has_no_template_space(tmp_path):
    image = tmp_path / 'sub-01_desc-aseg_dseg.nii.gz'
    image.touch()
    image.with_name('sub-01_desc-aseg_dseg.tsv').write_text('index\tname\n11\tleft caudate\n')
    loaded = atlas.load_atlas(image)
    assert loaded.space == ''
    assert loaded.name.isalnum()


@pytest.mark.parametrize(
    ('table', 'message'),
    [
        ('label\tname\n1\ta\n', 'index'),
        ('index\tname\n1\ta\n1\tb\n', 'more than once'),
        ('index\tname\none\ta\n', 'not a number'),
        ('index\tname\themi\n1\ta\tmiddle\n', 'not L or R'),
        ('index\tname\n', 'no label'),
    ],
)
def test_bad_tables_are_refused(custom_atlas, table, message):
    folder, image = custom_atlas
    image.with_name(image.name.replace('.nii.gz', '.tsv')).write_text(table)
    with pytest.raises(atlas.AtlasError, match=message):
        atlas.load_atlas(folder)


def test_missing_pieces_are_named(custom_atlas, tmp_path):
    folder, image = custom_atlas
    with pytest.raises(atlas.AtlasError, match='CIT168'):
        atlas.load_atlas('cit168')
    (tmp_path / 'empty').mkdir()
    with pytest.raises(atlas.AtlasError, match='found none'):
        atlas.load_atlas(tmp_path / 'empty')
    image.with_name(image.name.replace('.nii.gz', '.tsv')).unlink()
    with pytest.raises(atlas.AtlasError, match='no table'):
        atlas.load_atlas(folder)


def test_sources_are_recorded_and_small():
    data = atlas.template('T1w_res-2').parents[2]
    sources = json.loads((data / 'templates' / 'SOURCES.json').read_text())['sources']
    assert len(sources) == 3
    assert all(len(source['sha256']) == 64 and source['license'] for source in sources)
    shipped = [*(data / 'templates').rglob('*'), *(data / 'atlases').rglob('*')]
    assert sum(path.stat().st_size for path in shipped if path.is_file()) < 6e6
    for folder in ('templates/tpl-MNI152NLin2009cAsym', 'atlases/atlas-CIT168'):
        assert (data / folder / 'LICENSE').is_file()
