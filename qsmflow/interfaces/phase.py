"""Interfaces from stored images to phase in radians, unwrapped."""

import numpy as np
from nipype.interfaces.base import BaseInterfaceInputSpec, File, TraitedSpec, isdefined, traits

from qsmflow import io
from qsmflow.algorithms import catalog, get_method
from qsmflow.algorithms import phase as phase_algorithms
from qsmflow.interfaces.base import VolumeInterface


class _PhasePreparationInputSpec(BaseInterfaceInputSpec):
    magnitude_files = traits.List(
        File(exists=True), desc='magnitude, an image for each echo or one in 4-D'
    )
    phase_files = traits.List(File(exists=True), desc='phase, ordered as the magnitude')
    real_files = traits.List(File(exists=True), desc='real part, in place of magnitude and phase')
    imaginary_files = traits.List(File(exists=True), desc='imaginary part')
    scaling = traits.Dict(desc='fields of PhaseScaling: how stored values become radians')
    echoes = traits.List(traits.Int, desc='echoes to keep, counted from 0 in order of echo time')
    remove_slice_chop = traits.Enum('auto', 'yes', 'no', usedefault=True, desc='GE slice chopping')


class _PhasePreparationOutputSpec(TraitedSpec):
    magnitude = File(desc='magnitude, (X, Y, Z, E)')
    phase = File(desc='wrapped phase, rad, (X, Y, Z, E)')
    first_magnitude = File(desc='magnitude of the first echo')
    info = traits.Dict(desc='what was found and done')


class PhasePreparation(VolumeInterface):
    """Read magnitude and phase, or real and imaginary parts, into one array of radians each."""

    input_spec = _PhasePreparationInputSpec
    output_spec = _PhasePreparationOutputSpec

    #: Fraction of slice pairs that must jump by pi before slice chopping is undone.
    chop_limit = 0.8

    def _run_interface(self, runtime):
        magnitude, phase, like = self._read()
        evidence = phase_algorithms.slice_chop(magnitude, phase)
        chopped = self.inputs.remove_slice_chop == 'yes' or (
            self.inputs.remove_slice_chop == 'auto' and evidence > self.chop_limit
        )
        if chopped:
            phase = phase_algorithms.remove_slice_chop(phase)
        self._results['info'] = {'SliceChopEvidence': float(evidence), 'SliceChopRemoved': chopped}
        self._write(
            runtime, like, magnitude=magnitude, phase=phase, first_magnitude=magnitude[..., 0]
        )
        return runtime

    def _read(self) -> tuple[np.ndarray, np.ndarray, io.Volume]:
        """Return magnitude, phase (rad) and the volume that gives the grid."""
        if isdefined(self.inputs.real_files) and self.inputs.real_files:
            real = io.load_echoes(self.inputs.real_files)
            imaginary = io.load_echoes(self.inputs.imaginary_files)
            io.check_same_grid(real, imaginary)
            parts = self._keep(real.data), self._keep(imaginary.data)
            return np.hypot(*parts), np.arctan2(parts[1], parts[0]), real
        stored = io.load_echoes(self.inputs.phase_files)
        scaling = phase_algorithms.PhaseScaling(**self.inputs.scaling)
        phase = phase_algorithms.scale_to_radians(self._keep(stored.data), scaling)
        if isdefined(self.inputs.magnitude_files) and self.inputs.magnitude_files:
            image = io.load_echoes(self.inputs.magnitude_files)
            io.check_same_grid(stored, image)
            return self._keep(image.data), phase, stored
        return np.ones_like(phase), phase, stored

    def _keep(self, data: np.ndarray) -> np.ndarray:
        """Return the chosen echoes, with 0 where a value is not finite."""
        echoes = self.inputs.echoes
        data = data[..., echoes] if isdefined(echoes) and echoes else data
        return np.nan_to_num(data, nan=0, posinf=0, neginf=0)


class _PhaseOffsetRemovalInputSpec(BaseInterfaceInputSpec):
    phase = File(exists=True, mandatory=True, desc='wrapped phase, rad, echo last')
    magnitude = File(exists=True, mandatory=True, desc='magnitude, echo last')
    mask = File(exists=True, mandatory=True, desc='region of interest')
    te = traits.List(traits.Float, mandatory=True, desc='echo times, s')
    params = traits.Dict(traits.Str, desc='keyword arguments of the algorithm')


class _PhaseOffsetRemovalOutputSpec(TraitedSpec):
    phase = File(desc='wrapped phase without the offset, rad')
    phase_offset = File(desc='phase at echo time zero, rad')


class PhaseOffsetRemoval(VolumeInterface):
    """Remove the phase that is there at echo time zero (MCPC-3D-S)."""

    input_spec = _PhaseOffsetRemovalInputSpec
    output_spec = _PhaseOffsetRemovalOutputSpec

    def _run_interface(self, runtime):
        phase = io.load_echoes([self.inputs.phase])
        magnitude = io.load_echoes([self.inputs.magnitude])
        corrected, offset = phase_algorithms.remove_phase_offset(
            phase.data,
            magnitude.data,
            io.load_mask(self.inputs.mask, like=phase),
            phase.voxel_size,
            te=tuple(self.inputs.te),
            **(self.inputs.params or {}),
        )
        self._write(runtime, phase, phase=corrected, phase_offset=offset)
        return runtime


class _PhaseUnwrappingInputSpec(BaseInterfaceInputSpec):
    phase = File(exists=True, mandatory=True, desc='wrapped phase, rad, echo last')
    magnitude = File(exists=True, mandatory=True, desc='magnitude, echo last')
    mask = File(exists=True, mandatory=True, desc='region of interest')
    te = traits.List(traits.Float, mandatory=True, desc='echo times, s')
    method = traits.Enum(*catalog.names('unwrapping'), usedefault=True, desc='algorithm')
    params = traits.Dict(traits.Str, desc='keyword arguments of the algorithm')


class _PhaseUnwrappingOutputSpec(TraitedSpec):
    unwrapped_phase = File(desc='continuous phase, rad, echo last')


class PhaseUnwrapping(VolumeInterface):
    """Unwrap the phase of every echo."""

    input_spec = _PhaseUnwrappingInputSpec
    output_spec = _PhaseUnwrappingOutputSpec

    def _run_interface(self, runtime):
        phase = io.load_echoes([self.inputs.phase])
        unwrapped = get_method('unwrapping', self.inputs.method)(
            phase.data,
            io.load_echoes([self.inputs.magnitude]).data,
            io.load_mask(self.inputs.mask, like=phase),
            phase.voxel_size,
            te=tuple(self.inputs.te),
            **(self.inputs.params or {}),
        )
        self._write(runtime, phase, unwrapped_phase=unwrapped)
        return runtime
