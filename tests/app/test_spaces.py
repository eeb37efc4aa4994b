"""Maps in other spaces."""

import json
import subprocess

import nibabel as nib
import numpy as np
import pytest

from tests.app.helpers import VALIDATOR, load


@pytest.mark.slow
def test_other_spaces_and_reference(app, phantom, base_run, second_run, tmp_path):
    out = tmp_path / 'out'
    options = ('--reference-region', 'csf', '--output-spaces', 'T1w', 'MNI152NLin2009cAsym')
    with app.alone('second'):
        run = app.run(phantom, out, 'participant', *options, work=base_run.work)
    assert run.code == 0, run.stderr
    anat = out / 'sub-01/anat'
    sidecar = json.loads((anat / 'sub-01_Chimap.json').read_text())
    # No voxel of 4 mm is pure fluid: the whole brain takes its place, and this is recorded.
    assert sidecar['Reference']['requested'] == 'csf'
    assert sidecar['Reference']['region'] == 'whole_brain'
    inside = load(anat / 'sub-01_desc-qsm_mask.nii.gz') > 0
    own = load(anat / 'sub-01_Chimap.nii.gz')[inside]
    t1w = nib.load(phantom / 'sub-01/anat/sub-01_T1w.nii.gz')
    for space in ('T1w', 'MNI152NLin2009cAsym'):
        (path,) = anat.glob(f'sub-01_space-{space}*_Chimap.nii.gz')
        moved = nib.load(path)
        values = moved.get_fdata()
        assert np.isfinite(values).all()
        there = values[values != 0]
        # Interpolation lowers the extremes, but the same brain is there in its own size.
        volume = there.size * np.prod(moved.header.get_zooms()[:3])
        assert 0.6 < volume / (inside.sum() * 64) < 1.6
        assert abs(np.median(there) - np.median(own)) < 0.01
        if space == 'T1w':
            assert moved.shape == t1w.shape
            np.testing.assert_allclose(moved.affine, t1w.affine, atol=1e-4)
    done = subprocess.run([VALIDATOR, out], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
