"""Interfaces from unwrapped phase to the field map."""

from nipype.interfaces.base import BaseInterfaceInputSpec, File, TraitedSpec, traits

from qsmflow import io
from qsmflow.algorithms import catalog, get_method
from qsmflow.algorithms.phase import field_sign_evidence
from qsmflow.interfaces.base import B0_DIR, VolumeInterface, optional_volume


class _FieldFitInputSpec(BaseInterfaceInputSpec):
    unwrapped_phase = File(exists=True, mandatory=True, desc='continuous phase, rad, echo last')
    magnitude = File(exists=True, mandatory=True, desc='magnitude, echo last')
    mask = File(exists=True, mandatory=True, desc='region of interest')
    te = traits.List(traits.Float, mandatory=True, desc='echo times, s')
    f0 = traits.Float(mandatory=True, desc='imaging frequency, MHz')
    method = traits.Enum(*catalog.names('field'), usedefault=True, desc='algorithm')
    params = traits.Dict(traits.Str, desc='keyword arguments of the algorithm')


class _FieldFitOutputSpec(TraitedSpec):
    total_field = File(desc='field, ppm')
    field_noise = File(desc='standard deviation of the field, ppm')
    residual = File(desc='relative residual of the fit')
    phase_offset = File(desc='phase at echo time zero that the fit found, rad')
    weights = File(desc='confidence in the field, 0 to 1')


class FieldFit(VolumeInterface):
    """Fit the field to the phases of all echoes."""

    input_spec = _FieldFitInputSpec
    output_spec = _FieldFitOutputSpec

    def _run_interface(self, runtime):
        phase = io.load_echoes([self.inputs.unwrapped_phase])
        fit = get_method('field', self.inputs.method)(
            phase.data,
            io.load_echoes([self.inputs.magnitude]).data,
            io.load_mask(self.inputs.mask, like=phase),
            phase.voxel_size,
            te=tuple(self.inputs.te),
            f0=self.inputs.f0,
            **(self.inputs.params or {}),
        )
        self._write(
            runtime,
            phase,
            total_field=fit.total_field,
            field_noise=fit.field_noise,
            residual=fit.residual,
            phase_offset=fit.phase_offset,
            weights=fit.weights,
        )
        return runtime


class _FieldSignInputSpec(BaseInterfaceInputSpec):
    total_field = File(exists=True, mandatory=True, desc='field, ppm')
    first_magnitude = File(exists=True, mandatory=True, desc='magnitude of the first echo')
    mask = File(exists=True, mandatory=True, desc='brain mask')
    b0_dir = B0_DIR
    sign = traits.Enum('auto', '+1', '-1', usedefault=True, desc='sign of the stored phase')


class _FieldSignOutputSpec(TraitedSpec):
    total_field = File(desc='field with the sign of the convention, ppm')
    info = traits.Dict(desc='sign, how it was decided, evidence')


class FieldSign(VolumeInterface):
    """Give the field the sign of the convention: positive where the main field is raised."""

    input_spec = _FieldSignInputSpec
    output_spec = _FieldSignOutputSpec

    #: The field is flipped when it contradicts the field of the head's air by this correlation.
    flip_limit = -0.3

    def _run_interface(self, runtime):
        field = io.load_volume(self.inputs.total_field)
        evidence = field_sign_evidence(
            field.data,
            optional_volume(self.inputs.first_magnitude, field),
            io.load_mask(self.inputs.mask, like=field),
            field.voxel_size,
            b0_dir=self._b0_dir(field),
        )
        if self.inputs.sign == 'auto':
            sign = -1 if evidence < self.flip_limit else 1
            decided = abs(evidence) >= abs(self.flip_limit)
            source = 'field of the air in and around the head' if decided else 'convention'
        else:
            sign, source = int(self.inputs.sign), 'user'
        self._results['info'] = {'Sign': sign, 'Source': source, 'Evidence': float(evidence)}
        self._write(runtime, field, total_field=sign * field.data)
        return runtime
