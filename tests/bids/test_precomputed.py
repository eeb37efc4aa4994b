"""What other pipelines left is found by name, and used only if it fits."""

import dataclasses
import shutil
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from qsmflow.bids import collect
from qsmflow.bids.findings import DatasetError
from qsmflow.bids.precomputed import TEMPLATE

sys.path.insert(0, str(Path(__file__).parents[1]))

import derived
from defects import write_image, write_series, write_t1w


class SmallTruth(derived.Truth):
    """A ball of labels in the T1w image of the clean dataset, in the place of a phantom's."""

    def __init__(self, dataset):
        self.t1w = dataset.anat() / 'sub-01_T1w.nii.gz'
        self.image = nib.load(self.t1w)
        shape = self.image.shape[:3]
        axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing='ij')
        radius = np.sqrt(sum(axis**2 for axis in axes))
        self.mask = (radius < 0.8).astype(np.uint8)
        self.labels = np.select([radius < 0.3, radius < 0.6, radius < 0.75], [1, 30, 31], 0)


@pytest.fixture
def truth(dataset):
    return SmallTruth(dataset)


@pytest.fixture
def prep(tmp_path, truth):
    """Return a dataset as fMRIPrep writes it; its transforms are no real ones."""
    root = derived.fmriprep(tmp_path / 'fmriprep', truth)
    for way in (f'from-T1w_to-{TEMPLATE}', f'from-{TEMPLATE}_to-T1w'):
        (root / f'sub-01/anat/sub-01_{way}_mode-image_xfm.h5').write_bytes(b'\x89HDF rest')
    return root


def only(dataset, **derivatives):
    """Return the only series of a dataset, and its findings by code."""
    collection = collect(dataset.root, derivatives=derivatives)
    assert not collection.failed
    (series,) = collection.series
    return series, {f.code: f for f in series.findings}


def names(series):
    return [one.name for one in series.precomputed.segmentations]


def test_everything_of_fmriprep_is_found(dataset, prep):
    series, found = only(dataset, prep=prep)
    given = series.precomputed
    anat = prep / 'sub-01/anat'
    assert series.t1w == given.t1w == str(anat / 'sub-01_desc-preproc_T1w.nii.gz')
    assert series.t1w_uri == 'bids:prep:sub-01/anat/sub-01_desc-preproc_T1w.nii.gz'
    assert given.mask == str(anat / 'sub-01_desc-brain_mask.nii.gz')
    assert given.to_template == str(anat / f'sub-01_from-T1w_to-{TEMPLATE}_mode-image_xfm.h5')
    assert given.from_template == str(anat / f'sub-01_from-{TEMPLATE}_to-T1w_mode-image_xfm.h5')
    assert given.transform_uris[0].startswith('bids:prep:')
    assert given.pipeline == 'fMRIPrep 25.1.0 (dataset prep)'
    assert sorted((one.name, one.table) for one in given.segmentations) == [
        ('aseg', 'aseg'), ('tissue', 'tissue'),
    ]  # fmt: skip
    assert series.mask is None, 'the mask of the T1w image is none of the gradient echo'
    assert found['DERANAT'].level == 'INFO'
    assert 'brain mask' in found['DERANAT'].message
    assert not {'D81', 'D82', 'DERGRID', 'DERSEG'} & set(found)


def test_without_derivatives_nothing_changes(dataset):
    series, _ = only(dataset)
    assert series.precomputed is None
    assert series.t1w_uri == 'bids:raw:sub-01/anat/sub-01_T1w.nii.gz'


def test_a_dataset_without_anything_is_told_with_the_better_folder(dataset, prep):
    above = prep.parent / 'derivatives'
    shutil.copytree(prep, above / 'fmriprep')
    wrong = {'high': above, 'low': prep / 'sub-01', 'good': prep}
    told = {f.message.split()[3]: f for f in collect(dataset.root, derivatives=wrong).findings}
    assert set(told) == {f'high={above}', f'low={prep / "sub-01"}'}
    assert {(f.code, f.level) for f in told.values()} == {('DERNONE', 'WARN')}
    assert f'Did you mean high={above / "fmriprep"}?' in told[f'high={above}'].remedy
    assert f'Did you mean low={prep}?' in told[f'low={prep / "sub-01"}'].remedy


def test_a_dataset_of_others_alone_is_told(dataset, prep):
    (prep / 'sub-01').rename(prep / 'sub-02')
    (finding,) = collect(dataset.root, derivatives={'prep': prep}).findings
    assert finding.code == 'DERNONE'
    assert finding.evidence == {'looked_for': ['sub-01']}
    assert 'those of these participants' in finding.remedy


def test_the_dataset_itself_is_no_derivative(dataset, tmp_path):
    (tmp_path / 'link').symlink_to(dataset.root)
    with pytest.raises(DatasetError, match=r'me=.*link is BIDS_DIR itself') as caught:
        collect(dataset.root, derivatives={'me': tmp_path / 'link'})
    assert caught.value.exit_code == 2


def test_freesurfer(dataset, truth, tmp_path):
    series, _ = only(dataset, fs=derived.freesurfer(tmp_path / 'fs', truth))
    given = series.precomputed
    assert series.t1w_uri == 'bids:fs:sub-01/mri/T1.mgz'
    assert given.mask.endswith('brainmask.mgz')
    assert names(series) == ['aseg', 'aparcaseg']
    assert given.to_template is None
    assert given.pipeline == 'freesurfer-linux-7.4.1 (dataset fs)'


@pytest.mark.parametrize('parcellated', [False, True])
def test_synthseg_belongs_to_the_raw_image(dataset, truth, tmp_path, parcellated):
    series, _ = only(dataset, seg=derived.synthseg(tmp_path / 'seg', truth, parcellated))
    assert series.t1w_uri.startswith('bids:raw:')
    assert names(series) == ['synthsegparc' if parcellated else 'synthseg']
    assert series.precomputed.pipeline == ''


def test_segmentations_of_several_datasets_come_together(dataset, prep, truth, tmp_path):
    fs = derived.freesurfer(tmp_path / 'fs', truth)
    seg = derived.synthseg(tmp_path / 'seg', truth)
    series, _ = only(dataset, prep=prep, fs=fs, seg=seg)
    assert series.t1w_uri.startswith('bids:prep:'), 'the first dataset with an image'
    assert sorted(names(series)) == ['aparcaseg', 'aseg', 'synthseg', 'tissue']
    uris = {one.name: one.uri for one in series.precomputed.segmentations}
    assert uris['aseg'].startswith('bids:prep:'), 'of two of a kind, that of the first dataset'


def test_results_of_an_earlier_run_are_used_again(dataset, prep, tmp_path):
    """They name the space of the T1w image, and hold no copy of it."""
    own = tmp_path / 'own'
    shutil.copytree(prep, own)
    anat = own / 'sub-01/anat'
    (anat / 'sub-01_desc-preproc_T1w.nii.gz').unlink()
    (anat / 'sub-01_dseg.nii.gz').rename(anat / 'sub-01_atlas-X_dseg.nii.gz')
    (anat / 'sub-01_desc-aseg_dseg.nii.gz').unlink()
    mask = anat / 'sub-01_desc-brain_mask.nii.gz'
    mask.rename(anat / 'sub-01_space-T1w_desc-brain_mask.nii.gz')
    series, _ = only(dataset, own=own)
    given = series.precomputed
    assert series.t1w_uri == 'bids:raw:sub-01/anat/sub-01_T1w.nii.gz'
    assert given.mask_uri == 'bids:own:sub-01/anat/sub-01_space-T1w_desc-brain_mask.nii.gz'
    assert given.to_template
    assert not given.segmentations, 'labels without a space lie on the grid of the scan'


def test_own_session_comes_first(dataset, prep, truth):
    shutil.rmtree(dataset.root / 'sub-01')
    write_series(dataset, ses='a')
    other = prep / 'sub-01/ses-b/anat'
    shutil.copytree(prep / 'sub-01/anat', other)
    shutil.rmtree(prep / 'sub-01/anat')
    for path in other.iterdir():
        path.rename(path.with_name(path.name.replace('sub-01_', 'sub-01_ses-b_')))
    series, found = only(dataset, prep=prep)
    assert '/ses-b/' in series.t1w
    assert found['D82'].level == 'WARN'
    assert 'another session (b)' in found['D82'].message
    own = prep / 'sub-01/ses-a/anat'
    shutil.copytree(other, own)
    for path in own.iterdir():
        path.rename(path.with_name(path.name.replace('ses-b', 'ses-a')))
    series, found = only(dataset, prep=prep)
    assert '/ses-a/' in series.t1w
    assert 'D82' not in found


def test_no_raw_t1w_is_needed(dataset, prep):
    (dataset.anat() / 'sub-01_T1w.nii.gz').unlink()
    series, found = only(dataset, prep=prep)
    assert series.t1w_uri.startswith('bids:prep:')
    assert 'D81' not in found


# ---- What does not fit is told and left out --------------------------------------------------


def shifted(path, by):
    image = nib.load(path)
    affine = image.affine.copy()
    affine[:3, 3] += by
    nib.save(nib.Nifti1Image(np.asanyarray(image.dataobj), affine), path)


def test_mask_on_another_grid(dataset, prep):
    shifted(prep / 'sub-01/anat/sub-01_desc-brain_mask.nii.gz', 2)
    series, found = only(dataset, prep=prep)
    assert series.precomputed.mask is None
    assert series.precomputed.to_template
    assert found['DERGRID'].level == 'WARN'
    assert found['DERGRID'].file == 'bids:prep:sub-01/anat/sub-01_desc-brain_mask.nii.gz'


def test_segmentation_of_another_place(dataset, prep):
    shifted(prep / 'sub-01/anat/sub-01_desc-aseg_dseg.nii.gz', 12)
    series, found = only(dataset, prep=prep)
    assert names(series) == ['tissue']
    assert found['DERGRID'].evidence['share'] < 0.85


def test_segmentation_on_a_grid_of_its_own_is_fine(dataset, prep):
    path = prep / 'sub-01/anat/sub-01_desc-aseg_dseg.nii.gz'
    image = nib.as_closest_canonical(nib.load(path))
    turned = np.asanyarray(image.dataobj)[::-1, 1:, :]
    affine = image.affine @ np.array(
        [[-1, 0, 0, image.shape[0] - 1], [0, 1, 0, 1], [0, 0, 1, 0], [0, 0, 0, 1]]
    )
    nib.save(nib.Nifti1Image(turned, affine), path)
    series, found = only(dataset, prep=prep)
    assert 'aseg' in names(series)
    assert 'DERGRID' not in found


@pytest.mark.parametrize(
    ('name', 'lost'),
    [
        ('sub-01_desc-preproc_T1w.nii.gz', 't1w'),
        ('sub-01_desc-brain_mask.nii.gz', 'mask'),
        (f'sub-01_from-T1w_to-{TEMPLATE}_mode-image_xfm.h5', 'to_template'),
        (f'sub-01_from-{TEMPLATE}_to-T1w_mode-image_xfm.h5', 'from_template'),
    ],
)
def test_damaged_file(dataset, prep, name, lost):
    path = prep / 'sub-01/anat' / name
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] if lost in ('t1w', 'mask') else b'text')
    series, _ = only(dataset, prep=prep)
    told = [f for f in series.findings if f.code == 'DERANAT' and f.level == 'WARN']
    assert [f.file for f in told] == [f'bids:prep:sub-01/anat/{name}']
    assert getattr(series.precomputed, lost) is None
    if lost == 't1w':
        assert series.t1w_uri.startswith('bids:raw:'), 'the raw image takes its place'
        assert series.precomputed.mask is None


def test_one_transform_is_not_enough(dataset, prep):
    (prep / f'sub-01/anat/sub-01_from-{TEMPLATE}_to-T1w_mode-image_xfm.h5').unlink()
    series, _ = only(dataset, prep=prep)
    assert series.precomputed.to_template is None


def test_unknown_segmentation_needs_a_table(dataset, prep):
    anat = prep / 'sub-01/anat'
    (anat / 'sub-01_dseg.nii.gz').rename(anat / 'sub-01_seg-mine_dseg.nii.gz')
    series, found = only(dataset, prep=prep)
    assert names(series) == ['aseg']
    assert 'no table says' in found['DERSEG'].message
    (anat / 'sub-01_seg-mine_dseg.tsv').write_text('index\tname\n1\tball\n2\tshell\n')
    series, found = only(dataset, prep=prep)
    assert 'mine' in names(series)
    assert 'DERSEG' not in found


def test_empty_segmentation(dataset, prep):
    path = prep / 'sub-01/anat/sub-01_dseg.nii.gz'
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.zeros(image.shape, np.uint8), image.affine), path)
    _, found = only(dataset, prep=prep)
    assert 'empty' in found['DERSEG'].message


def test_filters_narrow_derivatives_too(dataset, prep):
    collection = collect(
        dataset.root,
        derivatives={'prep': prep},
        bids_filter={'dseg': {'desc': 'aseg'}, 'mask': {'desc': 'other'}},
    )
    given = collection.series[0].precomputed
    assert [one.name for one in given.segmentations] == ['aseg']
    assert given.mask is None


def test_mask_of_the_gradient_echo_beside_fmriprep(dataset, prep, tmp_path):
    path = tmp_path / 'masks/sub-01/anat/sub-01_desc-brain_mask.nii.gz'
    write_image(path, np.ones((24, 28, 20), np.uint8))
    series, _ = only(dataset, prep=prep, masks=tmp_path / 'masks')
    assert series.mask == str(path)
    assert '/fmriprep/' in series.precomputed.mask


def test_several_t1w_of_the_dataset_do_not_matter(dataset, prep):
    write_t1w(dataset, extra='_run-2')
    series, found = only(dataset, prep=prep)
    assert series.t1w_uri.startswith('bids:prep:')
    assert 'D82' not in found


def test_values_are_frozen(dataset, prep):
    series, _ = only(dataset, prep=prep)
    with pytest.raises(dataclasses.FrozenInstanceError):
        series.precomputed.mask = None
