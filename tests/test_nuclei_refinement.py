import numpy as np
import pytest
from scipy import ndimage

from qsmflow import atlas, io
from qsmflow.interfaces.nuclei import NucleiRefinement
from qsmflow.registration import refine_alignment, resample, unmoved, warp_labels

SHIFT = (0.0, -3.0, 1.5)


@pytest.fixture(scope='module')
def scene():
    """Labels of the atlas at 3 mm, and a map in which the nuclei lie some mm away."""
    finer = io.load_volume(atlas.template('T1w_brain_res-2'))
    affine = finer.affine @ np.diag([1.5, 1.5, 1.5, 1])
    coarse = io.Volume(np.empty([n * 2 // 3 for n in finer.shape], np.float32), affine)
    template = resample(finer, coarse, [])
    entry = atlas.load_atlas('CIT168')
    labels = warp_labels(io.load_volume(entry.dseg), template, [])
    expected = {label.index: label.chi for label in entry.table if label.chi is not None}
    drawn = np.zeros(labels.shape, np.float32)
    for index, value in expected.items():
        drawn[labels.data == index] = value
    voxels = np.array(SHIFT) / template.voxel_size
    noise = np.random.default_rng(0).normal(0, 0.01, labels.shape)
    chi = ndimage.shift(ndimage.gaussian_filter(drawn, 0.5), voxels, order=1) + noise
    truth = ndimage.shift(labels.data, voxels, order=0)
    mask = template.data > 0
    return {
        'labels': labels,
        'truth': truth,
        'chi': io.Volume(np.where(mask, chi, 0).astype(np.float32), template.affine),
        'expected': expected,
        'mask': mask,
        # An image without contrast inside the brain, as an early echo is.
        'anatomy': (io.Volume(mask.astype(np.float32), template.affine), template),
    }


def overlap(labels, truth, index):
    one, other = labels == index, truth == index
    return 2 * np.count_nonzero(one & other) / (one.sum() + other.sum())


def refine(scene, folder, **changes):
    given = {**scene, **changes}
    return refine_alignment(
        given['labels'],
        given['chi'],
        given['expected'],
        mask=given['mask'],
        anatomy=given['anatomy'],
        out_dir=folder,
    )


def test_displaced_nuclei_are_found(scene, tmp_path):
    warp, info = refine(scene, tmp_path)
    assert info['accepted']
    assert info['similarity_after'] > info['similarity_before'] + 0.1
    assert 1.5 < info['shift_mm'] < 6
    entry = atlas.load_atlas('CIT168')
    refined = warp_labels(io.load_volume(entry.dseg), scene['chi'], [warp]).data
    for index in (5, 6, 105, 106):  # the globus pallidus, for which it is there
        before = overlap(scene['labels'].data, scene['truth'], index)
        after = overlap(refined, scene['truth'], index)
        assert after > max(before + 0.1, 0.65)


def test_a_map_without_nuclei_moves_nothing(scene, tmp_path):
    noise = np.random.default_rng(1).normal(0, 0.02, scene['chi'].shape).astype(np.float32)
    warp, info = refine(scene, tmp_path, chi=io.Volume(noise, scene['chi'].affine))
    assert warp is None
    assert not info['accepted']
    assert info['reason']
    assert not list(tmp_path.iterdir())


def test_labels_outside_the_mask_are_left_alone(scene, tmp_path):
    warp, info = refine(scene, tmp_path, mask=np.zeros_like(scene['mask']))
    assert warp is None
    assert 'too few voxels' in info['reason']


def test_a_field_that_moves_nothing(scene, tmp_path):
    dseg = io.load_volume(atlas.load_atlas('CIT168').dseg)
    field = unmoved(scene['chi'], tmp_path)
    moved = warp_labels(dseg, scene['chi'], [field]).data
    np.testing.assert_array_equal(moved, scene['labels'].data)


@pytest.mark.slow
def test_interface_gives_what_the_function_gives(scene, tmp_path):
    chi = io.save_volume(scene['chi'].data, scene['chi'], tmp_path / 'chi.nii')
    labels = io.save_volume(scene['labels'].data, scene['chi'], tmp_path / 'labels.nii')
    mask = io.save_volume(scene['mask'], scene['chi'], tmp_path / 'mask.nii')
    flat = io.save_volume(scene['anatomy'][0].data, scene['chi'], tmp_path / 'magnitude.nii')
    interface = NucleiRefinement(
        labels=labels, atlas='CIT168', chimap=chi, magnitude=flat, mask=mask
    )
    result = interface.run(cwd=tmp_path).outputs
    template = io.load_volume(atlas.template('T1w_brain_res-1'))
    placed = resample(template, scene['chi'], [])
    warp, info = refine(scene, tmp_path, anatomy=(scene['anatomy'][0], placed))
    assert result.info == info
    dseg = io.load_volume(atlas.load_atlas('CIT168').dseg)
    for field in (warp, result.warp):
        np.testing.assert_array_equal(
            io.load_volume(result.labels).data, warp_labels(dseg, scene['chi'], [field]).data
        )
