"""Derivative datasets as other pipelines would make them of a phantom, from its truth.

Masks and segmentations follow from the true labels and the true motion between the scans;
transforms to the template are those of an earlier run, as a test has them.
"""

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage

TEMPLATE = 'MNI152NLin2009cAsym'
#: Labels of the phantom -> of FreeSurfer.
FREESURFER = {
    1: 12, 101: 51, 2: 11, 102: 50, 3: 26, 103: 58, 5: 13, 105: 52, 6: 13, 106: 52, 20: 10,
    120: 49, 30: 2, 31: 3, 32: 24,
}  # fmt: skip
TISSUES = {30: 2, 31: 1, 32: 3}


class Truth:
    """The truth of a phantom's only series, on the grid of its T1w image."""

    def __init__(self, raw):
        self.raw = Path(raw)
        anat = self.raw / 'derivatives/phantom-truth/sub-01/anat'
        self.t1w = self.raw / 'sub-01/anat/sub-01_T1w.nii.gz'
        motion = json.loads((anat / 'sub-01_from-MEGRE_to-T1w_mode-image_xfm.json').read_text())
        self.motion = np.array(motion['Matrix'])
        self.image = nib.load(self.t1w)
        self.labels = self.moved(nib.load(anat / 'sub-01_desc-truth_dseg.nii.gz'))
        self.mask = self.moved(nib.load(anat / 'sub-01_desc-brain_mask.nii.gz'))

    def moved(self, source) -> np.ndarray:
        """Return labels of the gradient echo on the grid of the T1w image."""
        index = np.linalg.inv(source.affine) @ np.linalg.inv(self.motion) @ self.image.affine
        data = np.asanyarray(source.dataobj)
        return ndimage.affine_transform(
            data, index[:3, :3], index[:3, 3], output_shape=self.image.shape[:3], order=0
        )

    def relabelled(self, table: dict[int, int]) -> np.ndarray:
        """Return the labels with other numbers; those that are not listed are background."""
        result = np.zeros(self.labels.shape, np.int32)
        for source, target in table.items():
            result[self.labels == source] = target
        return result


def save(data, like, path, kind=nib.Nifti1Image, dtype=np.int16) -> Path:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(kind(np.asarray(data).astype(dtype), like.affine), path)
    return path


def describe(root, name, version) -> None:
    root.mkdir(parents=True, exist_ok=True)
    content = {
        'Name': name, 'BIDSVersion': '1.9.0', 'DatasetType': 'derivative',
        'GeneratedBy': [{'Name': name, 'Version': version}],
    }  # fmt: skip
    (root / 'dataset_description.json').write_text(json.dumps(content))


def fmriprep(root, truth: Truth, transforms_of=None) -> Path:
    """Write what fMRIPrep and sMRIPrep leave of a T1w image: same names, same spaces."""
    root = Path(root)
    describe(root, 'fMRIPrep', '25.1.0')
    anat = root / 'sub-01/anat'
    data = np.asanyarray(truth.image.dataobj)
    save(data, truth.image, anat / 'sub-01_desc-preproc_T1w.nii.gz', dtype=np.float32)
    save(truth.mask, truth.image, anat / 'sub-01_desc-brain_mask.nii.gz', dtype=np.uint8)
    aseg = truth.relabelled(FREESURFER)
    save(aseg, truth.image, anat / 'sub-01_desc-aseg_dseg.nii.gz')
    save(truth.relabelled(TISSUES), truth.image, anat / 'sub-01_dseg.nii.gz')
    save(aseg, truth.image, anat / f'sub-01_space-{TEMPLATE}_desc-aseg_dseg.nii.gz')
    if transforms_of is not None:
        for way in (f'from-T1w_to-{TEMPLATE}', f'from-{TEMPLATE}_to-T1w'):
            name = f'sub-01_{way}_mode-image_xfm.h5'
            shutil.copy(Path(transforms_of) / 'sub-01/anat' / name, anat / name)
    return root


def freesurfer(root, truth: Truth) -> Path:
    """Write the part of a FreeSurfer subject that is read here, in its own format and grid."""
    root = Path(root)
    mri = root / 'sub-01/mri'
    turned = nib.as_closest_canonical(truth.image)
    for name, data in (
        ('T1.mgz', np.asanyarray(truth.image.dataobj)),
        ('brainmask.mgz', np.asanyarray(truth.image.dataobj) * (truth.mask > 0)),
        ('aseg.mgz', truth.relabelled(FREESURFER)),
        ('aparc+aseg.mgz', truth.relabelled({**FREESURFER, 31: 1024})),
    ):
        image = nib.as_closest_canonical(
            nib.Nifti1Image(data.astype(np.int32), truth.image.affine)
        )
        save(image.dataobj, turned, mri / name, nib.MGHImage, np.int32)
    scripts = root / 'sub-01/scripts'
    scripts.mkdir()
    (scripts / 'build-stamp.txt').write_text('freesurfer-linux-7.4.1\n')
    return root


def synthseg(root, truth: Truth, parcellated=False) -> Path:
    """Write what ``mri_synthseg --o FOLDER`` leaves: a file named after the T1w image."""
    table = {**FREESURFER, 31: 1024} if parcellated else FREESURFER
    path = Path(root) / 'sub-01_T1w_synthseg.nii.gz'
    return save(truth.relabelled(table), truth.image, path).parent
