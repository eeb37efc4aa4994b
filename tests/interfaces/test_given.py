"""Masks, transforms and segmentations of other pipelines: taken over, judged by their effect."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from qsmflow import atlas, io, registration
from qsmflow.interfaces.anatomy import AtlasToNative
from qsmflow.interfaces.given import BinaryMask, CheckTransforms
from qsmflow.interfaces.tables import RegionStatistics
from qsmflow.tables import read_stats
from tests import derived
from tests.app.helpers import load, truth


def test_mask_of_an_image_of_the_brain(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = np.zeros((8, 9, 10), np.uint8)
    data[2:5, 3:6, 4:8] = 110
    affine = np.array([[-1, 0, 0, 3], [0, 0, 1, -4], [0, -1, 0, 5], [0, 0, 0, 1.0]])
    nib.save(nib.MGHImage(data, affine), 'brainmask.mgz')
    path = BinaryMask(in_file=str(tmp_path / 'brainmask.mgz')).run().outputs.brain_mask
    mask = nib.load(path)
    np.testing.assert_array_equal(np.asanyarray(mask.dataobj), data > 0)
    np.testing.assert_allclose(mask.affine, affine, atol=1e-5)


@pytest.fixture(scope='module')
def head(tmp_path_factory):
    """Return the template as a subject's image, its mask, and transforms by some millimetres."""
    folder = tmp_path_factory.mktemp('head')
    image = io.load_volume(atlas.template('T1w_brain_res-2'))
    mask = io.load_mask(atlas.template('brain_mask_res-2'), like=image)
    files = {
        't1w': io.save_volume(image.data, image, folder / 't1w.nii'),
        'mask': io.save_volume(mask, image, folder / 'mask.nii'),
    }
    for name, shift in (('right', 0.0), ('there', 15.0), ('back', -15.0)):
        matrix = np.eye(4)
        matrix[1, 3] = shift
        files[name] = registration.write_affine(matrix, folder / f'{name}.txt')
    return files


def judged(head, forward, inverse):
    interface = CheckTransforms(
        in_file=head['t1w'], in_mask=head['mask'], forward=head[forward], inverse=head[inverse],
        source='fMRIPrep 1 (dataset x)', resolution=4.0,
    )  # fmt: skip
    outputs = interface.run().outputs
    assert (outputs.forward, outputs.inverse) == (head[forward], head[inverse])
    return outputs.check


def test_right_transforms_pass(head, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check = judged(head, 'right', 'right')
    assert check['passed'], check['reasons']
    assert check['dice'] > 0.97
    assert check['round_trip_mm'] < 0.01
    assert check['source'] == 'fMRIPrep 1 (dataset x)'


def test_transforms_of_another_head_are_found_out(head, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check = judged(head, 'there', 'back')
    assert not check['passed']
    assert 'Dice' in ' '.join(check['reasons'])
    assert check['round_trip_mm'] < 0.01, 'they fit each other'


def test_transforms_that_contradict_each_other_are_found_out(head, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check = judged(head, 'there', 'right')
    assert any('contradict' in reason for reason in check['reasons'])
    assert check['round_trip_mm'] == pytest.approx(15, abs=0.1)


@pytest.mark.parametrize(
    ('write', 'name', 'table'),
    [
        (derived.fmriprep, 'sub-01/anat/sub-01_desc-aseg_dseg.nii.gz', 'aseg'),
        (derived.freesurfer, 'sub-01/mri/aparc+aseg.mgz', 'aparcaseg'),
        (derived.synthseg, 'sub-01_T1w_synthseg.nii.gz', 'synthseg'),
    ],
    ids=['fmriprep', 'freesurfer', 'synthseg'],
)
def test_values_of_a_segmentation_are_the_true_ones(
    phantom, tmp_path, monkeypatch, write, name, table
):
    """With the true map and the true motion of the head, only the borders of regions differ."""
    monkeypatch.chdir(tmp_path)
    facts = derived.Truth(phantom)
    root = write(tmp_path / 'derivatives', facts)
    there = registration.write_affine(facts.motion, tmp_path / 'to-T1w.txt')
    back = registration.write_affine(np.linalg.inv(facts.motion), tmp_path / 'from-T1w.txt')
    chi, mask = (str(truth(phantom, n)) for n in ('Chimap.nii.gz', 'desc-brain_mask.nii.gz'))
    # ANTs' transforms lead from the grid that is resampled to where the values are.
    moved = AtlasToNative(
        in_file=str(root / name), reference=chi, transforms=[there], inverse_transforms=[back]
    ).run()
    found = RegionStatistics(
        labels=moved.outputs.labels, atlas=str(root / name), table=table, mask=mask, chimap=chi,
        fov_fraction=moved.outputs.fov_fraction,
    ).run()  # fmt: skip
    stats = read_stats(Path(found.outputs.stats)).set_index(['region', 'hemi', 'map'])
    true, labels = (
        load(truth(phantom, 'Chimap.nii.gz')),
        load(truth(phantom, 'desc-truth_dseg.nii.gz')),
    )
    for region, hemi, own in (
        ('putamen', 'L', [1]), ('putamen', 'R', [101]), ('caudate', 'L', [2]),
        ('thalamus', 'R', [120]), ('pallidum', 'L', [5, 6]), ('cerebral_white_matter', 'L', [30]),
    ):  # fmt: skip
        row = stats.loc[(region, hemi, 'chi')]
        expected = 1000 * true[np.isin(labels, own)].mean()
        assert row['mean'] == pytest.approx(expected, abs=12), (region, hemi)
        assert row['coverage'] > 0.95
    assert ('ctx_precentral', 'L', 'chi') in stats.index or table != 'aparcaseg'
