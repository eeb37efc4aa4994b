"""What a run repeats of an earlier one: what has changed by content, and what follows from it."""

import os
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / 'bids'))

import defects
from defects import program

from qsmflow.cli import workdir
from qsmflow.engine import Workflow
from qsmflow.workflows.base import _init_reconstruction, subject_workflow_name

METHODS = ('--inversion', 'tkd', '--bgfr', 'sharp', '--bgfr-param', 'radius=3')
METHODS += ('--unwrap', 'laplacian', '--no-unwrapping-fallback')


def reconstruction_alone(*, series, settings, **_):
    """Return the real reconstruction of the only series, without figures, tables and sinks."""
    name = subject_workflow_name('01')
    whole, subject, own = Workflow('qsmflow_wf'), Workflow(name), Workflow(name)
    own.add_nodes([_init_reconstruction(series[0], settings)])
    subject.add_nodes([own])
    whole.add_nodes([subject])
    return whole


class Study:
    """A tiny dataset with a mask, and the program on it, in this process."""

    def __init__(self, folder, patch):
        self.folder, self.patch = folder, patch
        self.dataset = defects.write_clean(folder / 'ds')
        self.mask = folder / 'mask.nii.gz'
        defects.write_image(self.mask, defects.companions.head().astype(np.uint8))
        (folder / 'out/sub-01').mkdir(parents=True)

    def run(self, *options, work='work'):
        """Run the reconstruction; return the steps that were run, by name, and how often."""
        launch = defects.Launch(self.dataset, self.patch)
        launch.work = self.folder / work
        launch.steps = [program.step(program.fail, 'so_that_it_runs')]
        launch.options += [*METHODS, '--mask', str(self.mask), *options]
        launch.graph = reconstruction_alone
        before = self.steps(work)
        assert launch.run() == 0
        now = self.steps(work)
        return {path.parent.name for path, date in now.items() if before.get(path) != date}

    def steps(self, work='work'):
        """Return the dates of the stored results of all steps."""
        paths = (self.folder / work).rglob('result_*.pklz')
        return {path: path.stat().st_mtime_ns for path in paths}

    def maps(self, work='work'):
        """Return the bytes of all images that the steps have made, by step and name."""
        paths = (self.folder / work).rglob('*.nii*')
        return {(path.parent.name, path.name): path.read_bytes() for path in paths}


@pytest.fixture
def study(tmp_path, monkeypatch):
    """Return a study on which a run has finished."""
    study = Study(tmp_path, monkeypatch)
    assert study.run() > {'prepare', 'refine', 'fit', 'remove', 'invert', 'refer'}
    return study


def change(path, values):
    """Replace the voxels of an image by a function of them; the file keeps its date."""
    date = path.stat().st_mtime_ns
    image = nib.load(path)
    defects.write_image(path, values(np.asanyarray(image.dataobj)), image.affine)
    os.utime(path, ns=(date, date))


def test_a_new_date_repeats_nothing(study):
    """Neither do files that were written again with the same bytes, as by a copy."""
    paths = [study.mask, *(p for p in study.dataset.root.rglob('*') if p.is_file())]
    for path in paths:
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content)
        os.utime(path, (1e9, 1e9))
    assert study.run() == set()


@pytest.mark.parametrize('what', ['phase', 'mask'])
def test_other_content_repeats_what_depends_on_it(study, what):
    """The date of the file is the old one. The maps are those of a run from the beginning."""
    every = {path.parent.name for path in study.steps()}
    if what == 'phase':
        change(study.dataset.image(2, 'phase'), lambda phase: phase[:, ::-1])
        independent = set()
    else:
        change(study.mask, lambda mask: mask & (np.arange(mask.shape[2]) < 14))
        independent = {'prepare'}
    relaxometry = _relaxometry(study)
    assert study.run() == every - independent
    assert (_relaxometry(study) == relaxometry) is (what == 'phase'), 'R2* needs no phase'
    study.run(work='another')
    assert study.maps() == study.maps('another')


def _relaxometry(study):
    return {path: date for path, date in study.steps().items() if 'relaxometry_wf' in path.parts}


def test_another_version_repeats_everything(study, monkeypatch):
    every, before = {path.parent.name for path in study.steps()}, study.steps()
    monkeypatch.setattr(workdir, '__version__', '0.0.9')
    assert study.run() == every
    assert before.items() <= study.steps().items(), 'those of the other version are kept'
    assert study.run() == set()


def test_a_clean_work_folder_repeats_everything(study):
    """What else lies in the folder stays; steps of another version go too."""
    every = {path.parent.name for path in study.steps()}
    (study.folder / 'work/notes.txt').touch()
    old = study.folder / 'work/qsmflow-0.0.9/qsmflow_wf/sub_01_wf'
    old.mkdir(parents=True)
    assert study.run('--clean-workdir') == every
    assert (study.folder / 'work/notes.txt').exists()
    assert not old.exists()
