"""Interfaces for maps that come from the magnitude."""

from nipype.interfaces.base import BaseInterfaceInputSpec, File, TraitedSpec, traits

from qsmflow import io
from qsmflow.algorithms import catalog, get_method
from qsmflow.interfaces.base import VolumeInterface


class _RelaxometryInputSpec(BaseInterfaceInputSpec):
    magnitude = File(exists=True, mandatory=True, desc='magnitude, echo last')
    mask = File(exists=True, mandatory=True, desc='region of interest')
    te = traits.List(traits.Float, mandatory=True, desc='echo times, s')
    method = traits.Enum(*catalog.names('relaxometry'), usedefault=True, desc='algorithm')
    params = traits.Dict(traits.Str, desc='keyword arguments of the algorithm')


class _RelaxometryOutputSpec(TraitedSpec):
    r2star = File(desc='R2*, 1/s')
    t2star = File(desc='T2*, s')
    s0 = File(desc='signal at echo time zero')


class Relaxometry(VolumeInterface):
    """Fit a mono-exponential decay to the magnitude."""

    input_spec = _RelaxometryInputSpec
    output_spec = _RelaxometryOutputSpec

    def _run_interface(self, runtime):
        magnitude = io.load_echoes([self.inputs.magnitude])
        fit = get_method('relaxometry', self.inputs.method)(
            magnitude.data,
            io.load_mask(self.inputs.mask, like=magnitude),
            magnitude.voxel_size,
            te=tuple(self.inputs.te),
            **(self.inputs.params or {}),
        )
        self._write(runtime, magnitude, r2star=fit.r2star, t2star=fit.t2star, s0=fit.s0)
        return runtime
