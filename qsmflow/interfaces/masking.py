"""Interfaces that make and refine masks."""

from pathlib import Path

import numpy as np
from nipype.interfaces.base import BaseInterfaceInputSpec, File, TraitedSpec, isdefined, traits

from qsmflow import io
from qsmflow.algorithms import masking
from qsmflow.algorithms.mask_checks import MaskRepair, border_share, repair_mask, void_volume
from qsmflow.algorithms.unwrap import quality_map
from qsmflow.bids.findings import Finding
from qsmflow.interfaces.base import VolumeInterface
from qsmflow.interfaces.findings import mask_findings, size_finding, with_findings


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
    phase = File(exists=True, desc='wrapped phase, rad, echo last')
    magnitude = File(exists=True, mandatory=True, desc='magnitude, echo last')
    te = traits.List(traits.Float, mandatory=True, desc='echo times, s')
    refine = traits.Bool(
        True, usedefault=True, desc='remove the unreliable rim; else only measure'
    )
    info = traits.Dict(desc='how the mask was found')


class _MaskRefinementOutputSpec(TraitedSpec):
    mask = File(desc='brain mask without the unreliable part of its rim')
    quality = File(desc='phase quality, 0 to 1; not without phase')
    removed_fraction = traits.Float(desc='part of the mask that was removed')
    volume_ml = traits.Float(desc='volume of the refined mask, ml')
    info = traits.Dict(desc='how the mask was found, with the two numbers')


class MaskRefinement(VolumeInterface):
    """Take from a brain mask what holds no data, and from its rim what has no reliable phase.

    With ``refine`` off, the mask is one that was given: it may lie on any grid in the scanner's
    coordinates, small islands and holes are mended, and the rim stays.
    """

    input_spec = _MaskRefinementInputSpec
    output_spec = _MaskRefinementOutputSpec

    def _run_interface(self, runtime):
        image = io.load_echoes([self.inputs.magnitude])
        magnitude, phase = image.data, self._phase(image)
        found = dict(self.inputs.info) if isdefined(self.inputs.info) else {}
        mask, repair = self._mask(image)
        mask, blank = masking.without_blank(mask, magnitude, phase)
        if not mask.any():
            name = Path(self.inputs.mask).name
            message = 'all voxels of the brain mask are blank in magnitude or phase'
            evidence = {'voxels': 0, 'blank_fraction': blank}
            remedy = 'Check that mask and images belong together.'
            raise ValueError(str(Finding('D79', 'ERROR', message, name, evidence, remedy)))
        quality = None
        if phase is not None:
            quality = quality_map(phase, magnitude, mask, te=tuple(self.inputs.te))
        refined, removed = mask, 0.0
        if self.inputs.refine:
            refined, removed = masking.refine_brain_mask(
                mask, magnitude=magnitude[..., 0], quality=quality, voxel_size=image.voxel_size
            )
        x, y, z = image.voxel_size
        measured = {
            'removed_fraction': float(removed),
            'volume_ml': float(refined.sum() * x * y * z / 1000),
        }
        facts = measured | {
            'border_share': border_share(refined),
            'void_ml': void_volume(refined, magnitude[..., 0], image.voxel_size),
        }
        source = '' if self.inputs.refine else Path(self.inputs.mask).name
        found_here = [
            size_finding(measured['volume_ml'], found),
            *mask_findings(facts, repair, source),
        ]
        findings = [finding for finding in found_here if finding is not None]
        blanked = {'blank_fraction': blank} if blank else {}
        info = with_findings({**found, **measured, **blanked}, findings, runtime.cwd)
        self._results.update(measured, info=info)
        self._write(runtime, image, mask=refined)
        if quality is not None:
            self._write(runtime, image, quality=quality)
        return runtime

    def _mask(self, like: io.Volume) -> tuple[np.ndarray, MaskRepair | None]:
        """Load the mask; one that was given may lie on any grid, and is mended."""
        if self.inputs.refine:
            mask, repair = io.load_mask(self.inputs.mask, like=like), None
        else:
            mask, repair = repair_mask(io.load_given_mask(self.inputs.mask, like), like.voxel_size)
        if not mask.any():
            name = Path(self.inputs.mask).name
            message, evidence = 'the brain mask is empty', {'voxels': 0}
            remedy = 'Give a mask of the brain with --mask, or look why none was found.'
            raise ValueError(str(Finding('D79', 'ERROR', message, name, evidence, remedy)))
        return mask, repair

    def _phase(self, image: io.Volume) -> np.ndarray | None:
        """Return the phase, if there is one."""
        if not isdefined(self.inputs.phase):
            return None
        phase = io.load_echoes([self.inputs.phase])
        io.check_same_grid(image, phase)
        return phase.data
