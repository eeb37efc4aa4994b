"""Interfaces that place a scan in anatomy: brain extraction, registration, resampling.

Registrations run in one thread by design (the results repeat); give their nodes ``n_procs=1``
and let series run side by side.
"""

from pathlib import Path

import numpy as np
from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    File,
    InputMultiObject,
    TraitedSpec,
    isdefined,
    traits,
)

from qsmflow import atlas, io, registration
from qsmflow.interfaces.base import SEED, VolumeInterface
from qsmflow.interfaces.findings import (
    POSSIBLE_ML,
    brain_findings,
    registration_findings,
    with_findings,
)

_STARTS = traits.List(
    traits.Enum(*registration.STARTS), desc='starts of the registration, in order; all by default'
)


def _first_echo(path: str) -> io.Volume:
    """Load a volume, of several echoes the first."""
    volume = io.load_volume(path)
    if volume.data.ndim == 3:
        return volume
    return io.Volume(np.ascontiguousarray(volume.data[..., 0]), volume.affine, volume.path)


class _BrainExtractionInputSpec(BaseInterfaceInputSpec):
    in_file = File(exists=True, mandatory=True, desc='magnitude (first echo is used) or T1w')
    method = traits.Enum(
        'registration',
        'deepbet',
        usedefault=True,
        desc='registration to a full-head template, or the network of the deepbet package',
    )
    template = File(exists=True, desc='full-head template; the shipped one by default')
    template_mask = File(exists=True, desc='its brain mask')
    resolution = traits.Float(3.0, usedefault=True, desc='working voxel of the last stage, mm')
    starts = _STARTS
    seed = SEED


class _BrainExtractionOutputSpec(TraitedSpec):
    brain_mask = File(desc='brain mask on the grid of the image')
    info = traits.Dict(desc='method, score, volume_ml, passed, reasons ...')


class BrainExtraction(VolumeInterface):
    """Find the brain in a magnitude or T1w image."""

    input_spec = _BrainExtractionInputSpec
    output_spec = _BrainExtractionOutputSpec

    def _run_interface(self, runtime):
        image = _first_echo(self.inputs.in_file)
        if self.inputs.method == 'deepbet':
            mask, info = registration.extract_brain_deepbet(image, work_dir=runtime.cwd)
        else:
            mask, info = registration.extract_brain(image, **self._options())
        mask, info = self._replaced(image, mask, info)
        self._results['info'] = with_findings(info, brain_findings(info), runtime.cwd)
        self._write(runtime, image, brain_mask=mask)
        return runtime

    def _replaced(self, image: io.Volume, mask, info: dict) -> tuple[np.ndarray, dict]:
        """Return another mask where the one that was found cannot be that of a brain."""
        low, high = POSSIBLE_ML
        if low <= info.get('volume_ml', low) <= high:
            return mask, info
        other, found = registration.extract_object(image)
        if not other.any():
            return mask, info
        reasons = [*info.get('reasons', []), *found['reasons']]
        return other, found | {'replaced': info['method'], 'passed': False, 'reasons': reasons}

    def _options(self) -> dict:
        """Return the options that are set."""
        options = {'resolution': self.inputs.resolution, 'seed': self.inputs.seed}
        if isdefined(self.inputs.template):
            options['head'] = io.load_volume(self.inputs.template)
        if isdefined(self.inputs.template_mask):
            options['head_mask'] = io.load_volume(self.inputs.template_mask)
        if isdefined(self.inputs.starts):
            options['starts'] = tuple(self.inputs.starts)
        return options


class _RegisterInputSpec(BaseInterfaceInputSpec):
    in_file = File(exists=True, mandatory=True, desc='image to register (first echo is used)')
    in_mask = File(exists=True, mandatory=True, desc='its brain mask')
    lesion = File(exists=True, desc='mask of what the target does not have, on any grid')
    resolution = traits.Float(2.0, usedefault=True, desc='working voxel, mm')
    starts = _STARTS
    seed = SEED


class _RegisterOutputSpec(TraitedSpec):
    forward = File(desc='ITK transform that brings in_file to the target')
    inverse = File(desc='ITK transform that brings the target to in_file')
    target_in_native = File(desc='the target on the grid of in_file, for the figure of the check')
    target_mask_in_native = File(desc='brain of the target on that grid')
    check = traits.Dict(desc='score, dice, passed, reasons, start ...')


class _Register(VolumeInterface):
    """What the two registrations share: ``in_file`` is fixed, the target moves."""

    output_spec = _RegisterOutputSpec

    def _register(self, runtime, target, target_mask, *, names: tuple[str, str], **options):
        """Register, name the files after the way they lead, and bring the target along."""
        image = _first_echo(self.inputs.in_file)
        if isdefined(self.inputs.starts):
            options['starts'] = tuple(self.inputs.starts)
        if isdefined(self.inputs.lesion):
            options['lesion'] = io.load_given_mask(self.inputs.lesion, image)
        result = registration.register(
            image,
            target,
            out_dir=runtime.cwd,
            fixed_mask=io.load_mask(self.inputs.in_mask, like=image),
            moving_mask=None if target_mask is None else target_mask.data > 0.5,
            resolution=self.inputs.resolution,
            seed=self.inputs.seed,
            **options,
        )
        suffix = Path(result.forward).suffix
        here, there = names
        out = {
            'inverse': (result.forward, f'from-{there}_to-{here}{suffix}'),
            'forward': (result.inverse, f'from-{here}_to-{there}{suffix}'),
        }
        for output, (path, name) in out.items():
            self._results[output] = str(Path(path).rename(Path(runtime.cwd) / name))
        chain = [self._results['inverse']]
        moved = {'target_in_native': registration.resample(target, image, chain).data}
        if target_mask is not None:
            brain = registration.resample(target_mask, image, chain).data > 0.5
            moved['target_mask_in_native'] = brain
        check = result.check | {'target': there}
        self._results['check'] = with_findings(
            check, registration_findings(check, names), runtime.cwd
        )
        self._write(runtime, image, **moved)
        return runtime


class _RegisterToT1wInputSpec(_RegisterInputSpec):
    t1w = File(exists=True, mandatory=True, desc='T1w image of the subject')
    t1w_mask = File(exists=True, desc='its brain mask; with it only brains are compared')


class RegisterToT1w(_Register):
    """Register a magnitude image rigidly to the T1w image of the same subject.

    Writes ``from-GRE_to-T1w.txt`` and ``from-T1w_to-GRE.txt``.
    """

    input_spec = _RegisterToT1wInputSpec

    def _run_interface(self, runtime):
        target = _first_echo(self.inputs.t1w)
        mask = None
        if isdefined(self.inputs.t1w_mask):
            mask = io.load_volume(self.inputs.t1w_mask)
            io.check_same_grid(target, mask)
        return self._register(runtime, target, mask, kind='rigid', names=('GRE', 'T1w'))


class _RegisterToTemplateInputSpec(_RegisterInputSpec):
    source = traits.Enum(
        'T1w',
        'GRE',
        usedefault=True,
        desc='what in_file is: names the transforms and chooses the metric',
    )
    kind = traits.Enum('syn', 'affine', usedefault=True, desc='freedom of the transform')
    template = File(exists=True, desc='brain template; the shipped MNI152NLin2009cAsym by default')
    template_mask = File(exists=True, desc='its brain mask; by default where it is above zero')


class RegisterToTemplate(_Register):
    """Register a T1w or magnitude image to the template.

    Writes ``from-<source>_to-MNI152NLin2009cAsym.h5`` and the way back.
    """

    input_spec = _RegisterToTemplateInputSpec

    def _run_interface(self, runtime):
        given = isdefined(self.inputs.template)
        path = self.inputs.template if given else atlas.template('T1w_brain_res-2')
        target = io.load_volume(path)
        if isdefined(self.inputs.template_mask):
            mask = io.load_volume(self.inputs.template_mask)
        elif given:
            mask = io.Volume((target.data > 0).astype(np.float32), target.affine)
        else:
            mask = io.load_volume(atlas.template('brain_mask_res-2'))
        io.check_same_grid(target, mask)
        names = (self.inputs.source, atlas.TEMPLATE_SPACE)
        metric = 'cc' if self.inputs.source == 'T1w' else 'mi'
        return self._register(
            runtime, target, mask, names=names, kind=self.inputs.kind, metric=metric
        )


class _ApplyTransformsInputSpec(BaseInterfaceInputSpec):
    in_file = File(exists=True, mandatory=True, desc='map to bring along')
    reference = File(exists=True, mandatory=True, desc='image that gives the grid')
    transforms = InputMultiObject(
        File(exists=True), desc="ITK files in ANTs' order: the last is the nearest to in_file"
    )
    interpolation = traits.Enum(
        'linear', 'nearest', 'cubic', 'label', usedefault=True, desc='interpolation, done once'
    )


class _ApplyTransformsOutputSpec(TraitedSpec):
    out_file = File(desc='the map on the grid of the reference')


class ApplyTransforms(VolumeInterface):
    """Bring a map to another space through a chain of transforms, interpolating once."""

    input_spec = _ApplyTransformsInputSpec
    output_spec = _ApplyTransformsOutputSpec

    def _run_interface(self, runtime):
        reference = _first_echo(self.inputs.reference)
        volume = io.load_volume(self.inputs.in_file)
        discrete = self.inputs.interpolation in ('nearest', 'label')
        if discrete:
            volume = io.Volume(np.rint(volume.data).astype(np.int32), volume.affine, volume.path)
        chain = list(self.inputs.transforms) if isdefined(self.inputs.transforms) else []
        moved = registration.resample(
            volume, reference, chain, interpolation=self.inputs.interpolation
        )
        self._write(runtime, reference, out_file=moved.data)
        return runtime


class _AtlasToNativeInputSpec(BaseInterfaceInputSpec):
    in_file = File(exists=True, mandatory=True, desc='label image of the atlas')
    reference = File(exists=True, mandatory=True, desc='image that gives the grid')
    transforms = InputMultiObject(
        File(exists=True), desc="atlas to reference, ITK files in ANTs' order"
    )
    inverse_transforms = InputMultiObject(
        File(exists=True), desc="reference to atlas, ITK files in ANTs' order"
    )


class _AtlasToNativeOutputSpec(TraitedSpec):
    labels = File(desc='labels on the grid of the reference')
    fov_fraction = traits.Dict(desc='part of each label inside the field of view')


class AtlasToNative(VolumeInterface):
    """Bring the labels of an atlas to the grid of a scan."""

    input_spec = _AtlasToNativeInputSpec
    output_spec = _AtlasToNativeOutputSpec

    def _run_interface(self, runtime):
        labels = io.load_volume(self.inputs.in_file)
        reference = _first_echo(self.inputs.reference)
        ways = [
            list(way) if isdefined(way) else []
            for way in (self.inputs.transforms, self.inputs.inverse_transforms)
        ]
        warped = registration.warp_labels(labels, reference, ways[0])
        fractions = registration.field_of_view_fraction(labels, reference, ways[1])
        self._results['fov_fraction'] = {str(label): part for label, part in fractions.items()}
        self._write(runtime, reference, labels=warped.data)
        return runtime
