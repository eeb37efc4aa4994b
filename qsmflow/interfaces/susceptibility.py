"""Interfaces from the total field to referenced susceptibility."""

import numpy as np
from nipype.interfaces.base import BaseInterfaceInputSpec, File, TraitedSpec, traits

from qsmflow import io
from qsmflow.algorithms import catalog, get_method
from qsmflow.algorithms.regions import apply_reference, reference_region
from qsmflow.interfaces.base import B0_DIR, VolumeInterface, optional_volume


class _BackgroundRemovalInputSpec(BaseInterfaceInputSpec):
    total_field = File(exists=True, mandatory=True, desc='field, ppm')
    mask = File(exists=True, mandatory=True, desc='brain mask')
    weights = File(exists=True, desc='confidence in the field, 0 to 1')
    b0_dir = B0_DIR
    method = traits.Enum(*catalog.names('background'), usedefault=True, desc='algorithm')
    params = traits.Dict(traits.Str, desc='keyword arguments of the algorithm')


class _BackgroundRemovalOutputSpec(TraitedSpec):
    local_field = File(desc='field of the sources inside the mask, ppm')
    mask = File(desc='where the local field is valid')


class BackgroundRemoval(VolumeInterface):
    """Remove the field of the sources outside the mask."""

    input_spec = _BackgroundRemovalInputSpec
    output_spec = _BackgroundRemovalOutputSpec

    def _run_interface(self, runtime):
        field = io.load_volume(self.inputs.total_field)
        local_field, mask = get_method('background', self.inputs.method)(
            field.data,
            io.load_mask(self.inputs.mask, like=field),
            field.voxel_size,
            b0_dir=self._b0_dir(field),
            weights=optional_volume(self.inputs.weights, field),
            **(self.inputs.params or {}),
        )
        self._write(runtime, field, local_field=local_field, mask=mask)
        return runtime


class _DipoleInversionInputSpec(BaseInterfaceInputSpec):
    local_field = File(exists=True, mandatory=True, desc='local field, ppm')
    mask = File(exists=True, mandatory=True, desc='region of interest')
    weights = File(exists=True, desc='confidence in the field, 0 to 1')
    b0_dir = B0_DIR
    method = traits.Enum(*catalog.names('inversion'), usedefault=True, desc='algorithm')
    params = traits.Dict(traits.Str, desc='keyword arguments of the algorithm')


class _DipoleInversionOutputSpec(TraitedSpec):
    chimap = File(desc='susceptibility, ppm, not referenced')


class DipoleInversion(VolumeInterface):
    """Estimate susceptibility from the local field."""

    input_spec = _DipoleInversionInputSpec
    output_spec = _DipoleInversionOutputSpec

    def _run_interface(self, runtime):
        field = io.load_volume(self.inputs.local_field)
        chi = get_method('inversion', self.inputs.method)(
            field.data,
            io.load_mask(self.inputs.mask, like=field),
            field.voxel_size,
            b0_dir=self._b0_dir(field),
            weights=optional_volume(self.inputs.weights, field),
            **(self.inputs.params or {}),
        )
        self._write(runtime, field, chimap=chi)
        return runtime


class _SusceptibilityReferenceInputSpec(BaseInterfaceInputSpec):
    chimap = File(exists=True, mandatory=True, desc='susceptibility, ppm')
    mask = File(exists=True, mandatory=True, desc='brain mask')
    r2star = File(exists=True, desc='R2*, 1/s: finds the CSF')
    region = traits.Enum('wholebrain', 'csf', 'none', usedefault=True, desc='what is zero')


class _SusceptibilityReferenceOutputSpec(TraitedSpec):
    chimap = File(desc='susceptibility relative to the reference, ppm')
    reference = traits.Dict(desc='region, mean, SD and size, before the reference was applied')


class SusceptibilityReference(VolumeInterface):
    """Set the mean of a region to zero, and record what was subtracted."""

    input_spec = _SusceptibilityReferenceInputSpec
    output_spec = _SusceptibilityReferenceOutputSpec

    def _run_interface(self, runtime):
        chi = io.load_volume(self.inputs.chimap)
        brain = io.load_mask(self.inputs.mask, like=chi)
        wanted = self.inputs.region.replace('wholebrain', 'whole_brain')
        region, used = reference_region(
            wanted,
            brain,
            chi.voxel_size,
            r2star=optional_volume(self.inputs.r2star, chi),
            chi=chi.data,
        )
        referenced, stats = apply_reference(chi.data, region, used)
        _, whole = apply_reference(chi.data, brain, 'whole_brain')
        if used == 'none':
            referenced = chi.data
        self._results['reference'] = {
            'region': used,
            'requested': wanted,
            'mean': stats.mean,
            'sd': stats.sd,
            'n': stats.n_voxels,
            'whole_brain_mean': whole.mean - (0.0 if used == 'none' else stats.mean),
            'whole_brain_sd': whole.sd,
            'whole_brain_n': whole.n_voxels,
        }
        self._write(runtime, chi, chimap=np.where(brain, referenced, np.float32(0)))
        return runtime
