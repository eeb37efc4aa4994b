import tracemalloc

import nibabel as nib
import numpy as np
import pytest

from qsmflow import io


def rotation(degrees, axis):
    from scipy.spatial.transform import Rotation

    return Rotation.from_euler(axis, degrees, degrees=True).as_matrix()


@pytest.fixture
def volume():
    affine = np.diag([1.0, 1.5, 2.0, 1.0])
    affine[:3, 3] = (-10, 5, 3)
    data = np.random.default_rng(0).normal(size=(5, 6, 7)).astype(np.float32)
    return io.Volume(data, affine)


def test_round_trip_keeps_values_and_place(volume, tmp_path):
    path = io.save_volume(volume.data, volume, tmp_path / 'a.nii.gz')
    loaded = io.load_volume(path)
    np.testing.assert_array_equal(loaded.data, volume.data)
    np.testing.assert_allclose(loaded.affine, volume.affine)
    assert loaded.voxel_size == pytest.approx((1.0, 1.5, 2.0))
    header = nib.load(path).header
    assert header.get_xyzt_units()[0] == 'mm'
    assert (int(header['qform_code']), int(header['sform_code'])) == (1, 1)


def test_same_data_give_the_same_bytes(volume, tmp_path):
    first = io.save_volume(volume.data, volume, tmp_path / 'a.nii.gz')
    second = io.save_volume(volume.data, volume, tmp_path / 'b.nii.gz')
    with open(first, 'rb') as one, open(second, 'rb') as other:
        assert one.read() == other.read()


def test_no_partial_file_stays_behind(volume, tmp_path):
    io.save_volume(volume.data > 0, volume, tmp_path / 'mask.nii.gz')
    assert [path.name for path in tmp_path.iterdir()] == ['mask.nii.gz']


def test_mask_and_labels_are_stored_as_integers(volume, tmp_path):
    mask = io.save_volume(volume.data > 0, volume, tmp_path / 'mask.nii')
    labels = io.save_volume(np.full(volume.shape, 300, np.int64), volume, tmp_path / 'labels.nii')
    assert nib.load(mask).get_data_dtype() == np.uint8
    assert nib.load(labels).get_data_dtype() == np.int32
    np.testing.assert_array_equal(io.load_mask(mask, like=volume), volume.data > 0)


def test_stored_scaling_is_applied_and_not_inherited(volume, tmp_path):
    image = nib.Nifti1Image((volume.data * 1000).astype(np.int16), volume.affine)
    image.header.set_slope_inter(0.001, 0)
    nib.save(image, tmp_path / 'scaled.nii')
    loaded = io.load_volume(tmp_path / 'scaled.nii')
    np.testing.assert_allclose(loaded.data, volume.data, atol=0.0011)
    written = nib.load(io.save_volume(loaded.data, loaded, tmp_path / 'fresh.nii'))
    assert written.get_data_dtype() == np.float32
    assert written.dataobj.slope == 1


@pytest.mark.parametrize(('axis', 'angle'), [('x', 25), ('y', -40), ('z', 30)])
def test_main_field_of_a_rotated_grid(axis, angle):
    affine = np.eye(4)
    affine[:3, :3] = rotation(angle, axis) @ np.diag([1.0, 2.0, 3.0])
    direction = np.array(io.b0_direction(affine))
    # Walking along the returned direction, in mm, moves straight along the bore.
    world = rotation(angle, axis) @ direction
    np.testing.assert_allclose(world, (0, 0, 1), atol=1e-12)


def test_grid_mismatch_names_both_files(volume, tmp_path):
    moved = io.Volume(volume.data, volume.affine + np.eye(4)[:, [3, 0, 1, 2]] * 0.5, 'moved.nii')
    with pytest.raises(io.GridMismatchError, match=r'moved\.nii'):
        io.check_same_grid(io.Volume(volume.data, volume.affine, 'first.nii'), moved)
    assert io.same_grid(volume, io.Volume(volume.data, volume.affine + 1e-7))


def test_echoes_are_stacked_last(volume, tmp_path):
    paths = [
        io.save_volume(volume.data * n, volume, tmp_path / f'echo-{n}.nii') for n in (1, 2, 3)
    ]
    stacked = io.load_echoes(paths)
    assert stacked.data.shape == (5, 6, 7, 3)
    np.testing.assert_allclose(stacked.data[..., 2], 3 * volume.data)
    four_d = io.save_volume(stacked.data, volume, tmp_path / 'all.nii')
    np.testing.assert_array_equal(io.load_echoes([four_d]).data, stacked.data)


def test_chosen_echoes_alone_are_read(volume, tmp_path):
    data = np.stack([n * volume.data for n in (1, 2, 3)], axis=-1)
    paths = [io.save_volume(data[..., n], volume, tmp_path / f'{n}.nii') for n in range(3)]
    paths[1] = str(tmp_path / 'missing.nii')
    four_d = io.save_volume(data, volume, tmp_path / 'all.nii')
    for files in (paths, [four_d]):
        np.testing.assert_array_equal(io.load_echoes(files, [2, 0]).data, data[..., [2, 0]])


@pytest.mark.parametrize('name', ['stored.nii', 'stored.nii.gz'])
def test_loading_takes_no_second_copy(volume, tmp_path, name):
    stored = np.arange(48**3 * 4, dtype=np.int16).reshape(48, 48, 48, 4)
    image = nib.Nifti1Image(stored, volume.affine)
    image.header.set_slope_inter(0.5, 3)
    nib.save(image, tmp_path / name)
    io.load_volume(tmp_path / name)
    tracemalloc.start()
    loaded = io.load_volume(tmp_path / name).data
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    np.testing.assert_array_equal(loaded, stored * 0.5 + 3)
    assert loaded.flags.c_contiguous
    assert peak < 1.2 * loaded.nbytes
