"""The anatomy interfaces do what the functions do, on files."""

import os

import numpy as np
import pytest
from nipype.interfaces.base import isdefined
from scipy import ndimage

from qsmflow import atlas, io, registration
from qsmflow.interfaces.anatomy import (
    ApplyTransforms,
    AtlasToNative,
    BrainExtraction,
    RegisterToT1w,
    RegisterToTemplate,
)
from qsmflow.interfaces.cosmos import RegisterOrientation


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def shift(distance, path):
    matrix = np.eye(4)
    matrix[0, 3] = distance
    return registration.write_affine(matrix, path)


@pytest.fixture
def blob(folder):
    """Return a file with a smooth object and one with its mask."""
    rng = np.random.default_rng(0)
    data = ndimage.gaussian_filter(rng.random((24, 26, 22)), 1.5)
    mask = np.zeros(data.shape, bool)
    mask[5:19, 5:21, 5:17] = True
    data = ((data - data.min()) / np.ptp(data) + 0.5) * np.where(mask, 1000, 20)
    like = io.Volume(data, np.diag([4.0, 4.0, 4.0, 1]))
    return (
        io.save_volume(data, like, folder / 'image.nii.gz'),
        io.save_volume(mask, like, folder / 'mask.nii.gz'),
    )


def test_brain_of_a_stripped_image_and_first_echo(folder):
    source = io.load_volume(atlas.template('T1w_brain_res-2'))
    echoes = np.stack([source.data, source.data * 0], axis=-1)
    path = io.save_volume(echoes, source, folder / 'echoes.nii.gz')
    result = BrainExtraction(in_file=path).run().outputs
    mask = io.load_mask(result.brain_mask, like=source)
    expected, info = registration.extract_brain(source)
    np.testing.assert_array_equal(mask, expected)
    assert result.info == info
    assert os.path.dirname(result.brain_mask) == str(folder)


def test_brain_extraction_passes_its_options(blob, monkeypatch):
    image, mask = blob
    seen = {}

    def fake(magnitude, **options):
        seen.update(options)
        return magnitude.data > 100, {'method': 'registration'}

    monkeypatch.setattr(registration, 'extract_brain', fake)
    BrainExtraction(
        in_file=image, template=image, template_mask=mask, starts=['pitch_back'], resolution=4.0,
        seed=7,
    ).run()  # fmt: skip
    assert seen['starts'] == ('pitch_back',)
    assert seen['resolution'] == 4.0
    assert seen['seed'] == 7
    assert seen['head'].path == image
    assert seen['head_mask'].path == mask


class _Seen(Exception):
    """The registration was called."""


def test_registrations_pass_the_seed(blob, monkeypatch):
    image, mask = blob
    seen = []

    def fake(*images, seed, **options):
        seen.append(seed)
        raise _Seen

    monkeypatch.setattr(registration, 'register', fake)
    both = {'magnitudes': [image, image], 'masks': [mask, mask], 'number': 1}
    for interface in (
        RegisterToT1w(in_file=image, in_mask=mask, t1w=image, seed=7),
        RegisterToTemplate(in_file=image, in_mask=mask, seed=7),
        RegisterOrientation(**both, seed=7),
    ):
        with pytest.raises(_Seen):
            interface.run()
    assert seen == [7, 7, 7]


def test_missing_deepbet_is_explained(blob, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, 'deepbet', None)
    with pytest.raises(ImportError, match=r'qsmflow\[deepbet\]'):
        BrainExtraction(in_file=blob[0], method='deepbet').run()


def test_rigid_registration_names_its_files_and_checks(blob, folder):
    image, mask = blob
    source = io.load_volume(image)
    moved = io.Volume(source.data, source.affine.copy())
    moved.affine[:3, 3] = (120.0, -40, 7)
    t1w = io.save_volume(moved.data, moved, folder / 't1w.nii.gz')
    result = (
        RegisterToT1w(
            in_file=image, in_mask=mask, t1w=t1w, resolution=4.0, starts=['center_of_mass']
        )
        .run()
        .outputs
    )
    assert result.forward == str(folder / 'from-GRE_to-T1w.txt')
    assert result.inverse == str(folder / 'from-T1w_to-GRE.txt')
    assert result.check['passed'], result.check
    assert result.check['target'] == 'T1w'
    assert not isdefined(result.target_mask_in_native)
    matrix = registration.read_affine(result.inverse)
    centre = np.array([48, 52, 44, 1.0])
    expected = centre[:3] + np.array([120, -40, 7])
    np.testing.assert_allclose((matrix @ centre)[:3], expected, atol=1.5)
    back = io.load_volume(result.target_in_native)
    io.check_same_grid(source, back)
    assert np.corrcoef(back.data.ravel(), source.data.ravel())[0, 1] > 0.98
    brought = (
        ApplyTransforms(in_file=image, reference=t1w, transforms=[result.forward]).run().outputs
    )
    there = io.load_volume(brought.out_file)
    io.check_same_grid(moved, there)
    assert np.corrcoef(there.data.ravel(), source.data.ravel())[0, 1] > 0.98


def test_template_registration_with_given_template(blob, folder):
    image, mask = blob
    result = (
        RegisterToTemplate(
            in_file=image,
            in_mask=mask,
            source='GRE',
            template=image,
            template_mask=mask,
            resolution=4.0,
            starts=['center_of_mass'],
        )
        .run()
        .outputs
    )
    assert result.forward == str(folder / 'from-GRE_to-MNI152NLin2009cAsym.h5')
    assert result.inverse == str(folder / 'from-MNI152NLin2009cAsym_to-GRE.h5')
    assert os.path.exists(result.forward)
    assert result.check['passed'], result.check
    assert result.check['dice'] > 0.97
    truth = io.load_mask(mask)
    np.testing.assert_array_equal(
        ndimage.binary_erosion(truth) & ~io.load_mask(result.target_mask_in_native), False
    )


def test_masks_must_lie_on_their_image(blob, folder):
    image, _ = blob
    other = io.Volume(np.ones((5, 5, 5), bool), np.eye(4))
    wrong = io.save_volume(other.data, other, folder / 'wrong.nii.gz')
    with pytest.raises(io.GridMismatchError):
        RegisterToTemplate(in_file=image, in_mask=wrong).run()


def test_maps_go_through_a_chain_at_once(blob, folder):
    image, mask = blob
    chain = [shift(1.5, folder / 'a.txt'), shift(2.5, folder / 'b.txt')]
    result = ApplyTransforms(in_file=image, reference=image, transforms=chain).run().outputs
    source, moved = io.load_volume(image).data, io.load_volume(result.out_file).data
    np.testing.assert_allclose(moved[:20], source[1:21], rtol=1e-3)
    result = ApplyTransforms(
        in_file=mask, reference=image, transforms=chain, interpolation='label'
    ).run()
    assert set(np.unique(io.load_volume(result.outputs.out_file).data)) == {0, 1}


def test_atlas_labels_and_their_coverage(folder):
    data = np.zeros((20, 20, 20), np.int32)
    data[2:8, 5:15, 5:15] = 5
    data[12:18, 5:15, 5:15] = 105
    labels = io.Volume(data, np.eye(4))
    view = io.Volume(np.zeros((10, 20, 20), np.float32), np.eye(4))
    result = (
        AtlasToNative(
            in_file=io.save_volume(data, labels, folder / 'dseg.nii.gz'),
            reference=io.save_volume(view.data, view, folder / 'view.nii.gz'),
            transforms=[shift(5.0, folder / 'there.txt')],
            inverse_transforms=[shift(-5.0, folder / 'back.txt')],
        )
        .run()
        .outputs
    )
    warped = io.load_volume(result.labels, dtype=np.int32).data
    np.testing.assert_array_equal(warped, data[5:15])
    assert result.fov_fraction == {'5': 0.5, '105': 0.5}
