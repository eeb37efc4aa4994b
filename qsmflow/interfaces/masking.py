"""Interfaces that make and refine masks."""

import numpy as np
from nipype.interfaces.base import BaseInterfaceInputSpec, File, TraitedSpec, isdefined, traits

from qsmflow import io
from qsmflow.algorithms import masking
from qsmflow.algorithms.unwrap import quality_map
from qsmflow.interfaces.base import VolumeInterface


class _PhaseQualityMaskInputSpec(BaseInterfaceInputSpec):
    phase = File(exists=True, mandatory=True, desc='wrapped phase, rad, echo last')
    te = traits.List(traits.Float, mandatory=True, desc='echo times, s')


class _PhaseQualityMaskOutputSpec(TraitedSpec):
    brain_mask = File(desc='the largest compact part of the head with coherent phase')
    info = traits.Dict(desc='method and volume')


class PhaseQualityMask(VolumeInterface):
    """Find tissue where there is no magnitude: by the coherence of the phase.

    The mask is generous, because coherent phase does not end at the brain; an opening cuts the
    scalp from it where the skull lies between.
    """

    input_spec = _PhaseQualityMaskInputSpec
    output_spec = _PhaseQualityMaskOutputSpec

    #: Radius of the opening, in mm.
    opening = 10.0

    def _run_interface(self, runtime):
        phase = io.load_echoes([self.inputs.phase])
        everywhere = np.ones(phase.shape, bool)
        quality = quality_map(phase.data, None, everywhere, te=tuple(self.inputs.te))
        good = quality > masking.otsu_threshold(quality)
        size = phase.voxel_size
        core = masking.largest_component(masking.erode(good, self.opening, size))
        mask = masking.fill_holes(masking.dilate(core, self.opening, size) & good)
        volume = float(mask.sum() * np.prod(size) / 1000)
        self._results['info'] = {'method': 'phase quality', 'volume_ml': volume}
        self._write(runtime, phase, brain_mask=mask)
        return runtime


class _MaskRefinementInputSpec(BaseInterfaceInputSpec):
    mask = File(exists=True, mandatory=True, desc='brain mask')
    phase = File(exists=True, mandatory=True, desc='wrapped phase, rad, echo last')
    magnitude = File(exists=True, mandatory=True, desc='magnitude, echo last')
    te = traits.List(traits.Float, mandatory=True, desc='echo times, s')
    refine = traits.Bool(
        True, usedefault=True, desc='remove the unreliable rim; else only measure'
    )
    info = traits.Dict(desc='how the mask was found')


class _MaskRefinementOutputSpec(TraitedSpec):
    mask = File(desc='brain mask without the unreliable part of its rim')
    quality = File(desc='phase quality, 0 to 1')
    removed_fraction = traits.Float(desc='part of the mask that was removed')
    volume_ml = traits.Float(desc='volume of the refined mask, ml')
    info = traits.Dict(desc='how the mask was found, with the two numbers')


class MaskRefinement(VolumeInterface):
    """Take from the rim of a brain mask what has no reliable phase."""

    input_spec = _MaskRefinementInputSpec
    output_spec = _MaskRefinementOutputSpec

    def _run_interface(self, runtime):
        phase = io.load_echoes([self.inputs.phase])
        magnitude = io.load_echoes([self.inputs.magnitude]).data
        mask = io.load_mask(self.inputs.mask, like=phase)
        if not mask.any():
            raise ValueError(
                f'{self.inputs.mask} is empty: no voxel is above 0.5. Give a mask of the brain '
                'on the grid of the images, or none, so that the brain is found.'
            )
        quality = quality_map(phase.data, magnitude, mask, te=tuple(self.inputs.te))
        refined, removed = mask, 0.0
        if self.inputs.refine:
            refined, removed = masking.refine_brain_mask(
                mask, magnitude=magnitude[..., 0], quality=quality, voxel_size=phase.voxel_size
            )
        x, y, z = phase.voxel_size
        found = self.inputs.info if isdefined(self.inputs.info) else {}
        measured = {
            'removed_fraction': float(removed),
            'volume_ml': float(refined.sum() * x * y * z / 1000),
        }
        self._results.update(measured, info={**found, **measured})
        self._write(runtime, phase, mask=refined, quality=quality)
        return runtime
