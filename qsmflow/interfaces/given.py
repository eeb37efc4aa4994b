"""Interfaces that take over what another pipeline made of a T1w image."""

import numpy as np
from nipype.interfaces.base import BaseInterfaceInputSpec, File, TraitedSpec, traits

from qsmflow import atlas, io, registration
from qsmflow.interfaces.base import VolumeInterface


class _BinaryMaskInputSpec(BaseInterfaceInputSpec):
    in_file = File(exists=True, mandatory=True, desc='mask, or an image that is zero outside it')


class _BinaryMaskOutputSpec(TraitedSpec):
    brain_mask = File(desc='1 where the image is above zero')


class BinaryMask(VolumeInterface):
    """Make a mask of an image of the brain alone, such as FreeSurfer's ``brainmask.mgz``."""

    input_spec = _BinaryMaskInputSpec
    output_spec = _BinaryMaskOutputSpec

    def _run_interface(self, runtime):
        volume = io.load_volume(self.inputs.in_file)
        self._write(runtime, volume, brain_mask=volume.data > 0)
        return runtime


class _CheckTransformsInputSpec(BaseInterfaceInputSpec):
    in_file = File(exists=True, mandatory=True, desc='T1w image')
    in_mask = File(exists=True, mandatory=True, desc='its brain mask')
    forward = File(exists=True, mandatory=True, desc='ITK transform from the T1w to the template')
    inverse = File(exists=True, mandatory=True, desc='the way back')
    source = traits.Str(desc='who made them')
    resolution = traits.Float(2.0, usedefault=True, desc='working voxel of the check, mm')


class _CheckTransformsOutputSpec(TraitedSpec):
    forward = File(desc='as given')
    inverse = File(desc='as given')
    check = traits.Dict(desc='score, dice, round_trip_mm, passed, reasons ...')


class CheckTransforms(VolumeInterface):
    """Check given transforms between a T1w image and the template, and pass them on."""

    input_spec = _CheckTransformsInputSpec
    output_spec = _CheckTransformsOutputSpec

    def _run_interface(self, runtime):
        image = io.load_volume(self.inputs.in_file)
        target = io.load_volume(atlas.template('T1w_brain_res-2'))
        brain = io.load_mask(atlas.template('brain_mask_res-2'), like=target)
        check = registration.check_transforms(
            image,
            target,
            (self.inputs.inverse, self.inputs.forward),
            fixed_mask=np.asarray(io.load_mask(self.inputs.in_mask, like=image)),
            moving_mask=brain,
            resolution=self.inputs.resolution,
            min_score=registration.MIN_SCORE,
        )
        check |= {'target': atlas.TEMPLATE_SPACE, 'source': self.inputs.source}
        self._results |= {
            'forward': self.inputs.forward,
            'inverse': self.inputs.inverse,
            'check': check,
        }
        return runtime
