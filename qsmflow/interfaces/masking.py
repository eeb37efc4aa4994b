"""Interfaces that make and refine masks."""

from nipype.interfaces.base import BaseInterfaceInputSpec, File, TraitedSpec, traits

from qsmflow import io
from qsmflow.algorithms.masking import refine_brain_mask
from qsmflow.algorithms.unwrap import voxel_quality
from qsmflow.interfaces.base import VolumeInterface


class _MaskRefinementInputSpec(BaseInterfaceInputSpec):
    mask = File(exists=True, mandatory=True, desc='brain mask')
    phase = File(exists=True, mandatory=True, desc='wrapped phase, rad, echo last')
    magnitude = File(exists=True, mandatory=True, desc='magnitude, echo last')
    te = traits.List(traits.Float, mandatory=True, desc='echo times, s')
    refine = traits.Bool(
        True, usedefault=True, desc='remove the unreliable rim; else only measure'
    )


class _MaskRefinementOutputSpec(TraitedSpec):
    mask = File(desc='brain mask without the unreliable part of its rim')
    quality = File(desc='phase quality, 0 to 1')
    removed_fraction = traits.Float(desc='part of the mask that was removed')
    volume_ml = traits.Float(desc='volume of the refined mask, ml')


class MaskRefinement(VolumeInterface):
    """Take from the rim of a brain mask what has no reliable phase."""

    input_spec = _MaskRefinementInputSpec
    output_spec = _MaskRefinementOutputSpec

    def _run_interface(self, runtime):
        phase = io.load_echoes([self.inputs.phase])
        magnitude = io.load_echoes([self.inputs.magnitude]).data
        mask = io.load_mask(self.inputs.mask, like=phase)
        quality = voxel_quality(phase.data, magnitude, mask, te=tuple(self.inputs.te))
        refined, removed = mask, 0.0
        if self.inputs.refine:
            refined, removed = refine_brain_mask(
                mask, magnitude=magnitude[..., 0], quality=quality, voxel_size=phase.voxel_size
            )
        x, y, z = phase.voxel_size
        self._results['removed_fraction'] = float(removed)
        self._results['volume_ml'] = float(refined.sum() * x * y * z / 1000)
        self._write(runtime, phase, mask=refined, quality=quality)
        return runtime
