"""Interfaces from the total field to referenced susceptibility."""

from functools import partial

import numpy as np
from nipype.interfaces.base import BaseInterfaceInputSpec, File, TraitedSpec, isdefined, traits

from qsmflow import io
from qsmflow.algorithms import catalog, get_method, method_parameters
from qsmflow.algorithms.inversion.tv import regularisation_weight
from qsmflow.algorithms.operators import forward_field
from qsmflow.algorithms.regions import apply_reference, reference_region
from qsmflow.interfaces.base import B0_DIR, FieldProblem, VolumeInterface, optional_volume
from qsmflow.interfaces.findings import reference_findings, with_findings
from qsmflow.units import radians_per_ppm

_WEIGHTS = (
    'confidence in the field, 0 to 1; by default 1, and less where the field jumps at the edge of '
    'the mask'
)


class _BackgroundRemovalInputSpec(BaseInterfaceInputSpec):
    total_field = File(exists=True, mandatory=True, desc='field, ppm')
    mask = File(exists=True, mandatory=True, desc='brain mask')
    weights = File(exists=True, desc=_WEIGHTS)
    b0_dir = B0_DIR
    method = traits.Enum(*catalog.names('background'), usedefault=True, desc='algorithm')
    params = traits.Dict(traits.Str, desc='keyword arguments of the algorithm')


class _BackgroundRemovalOutputSpec(TraitedSpec):
    local_field = File(desc='field of the sources inside the mask, ppm')
    mask = File(desc='where the local field is valid')
    convergence = traits.Dict(desc='how the iteration ended; empty for a direct method')


class BackgroundRemoval(VolumeInterface):
    """Remove the field of the sources outside the mask."""

    input_spec = _BackgroundRemovalInputSpec
    output_spec = _BackgroundRemovalOutputSpec

    def _run_interface(self, runtime):
        field = io.load_volume(self.inputs.total_field)
        problem = FieldProblem(field, self.inputs.mask, self._b0_dir(field))
        params = self.inputs.params or {}
        (local_field, mask), history = problem.solve(
            get_method('background', self.inputs.method),
            weights=problem.confidence(self.inputs.weights),
            **params,
        )
        parameters = {**method_parameters('background', self.inputs.method), **params}
        self._results['convergence'] = convergence(history, parameters)
        self._write(runtime, field, local_field=local_field, mask=mask)
        return runtime


class _DipoleInversionInputSpec(BaseInterfaceInputSpec):
    local_field = File(
        exists=True,
        mandatory=True,
        xor=['phase'],
        desc='local field, ppm; the total field for a method that takes that',
    )
    phase = File(
        exists=True,
        mandatory=True,
        xor=['local_field'],
        desc='wrapped phase, rad, echo last: in place of a field, for a method that takes that',
    )
    sign = traits.Dict(desc='sign of that phase, as FieldSign found it; by default it is right')
    mask = File(exists=True, mandatory=True, desc='region of interest')
    weights = File(exists=True, desc=_WEIGHTS)
    magnitude = File(exists=True, desc='magnitude, echo last: for methods that look at it')
    r2star = File(exists=True, desc='R2*, 1/s: for methods that look for CSF')
    field_noise = File(exists=True, desc='standard deviation of the field, ppm')
    te = traits.List(traits.Float, desc='echo times, s: for methods that work on phase')
    f0 = traits.Float(desc='imaging frequency, MHz: likewise')
    b0_dir = B0_DIR
    method = traits.Enum(*catalog.names('inversion'), usedefault=True, desc='algorithm')
    params = traits.Dict(traits.Str, desc='keyword arguments of the algorithm')
    strategy = traits.Enum(*catalog.names('strategy'), usedefault=True, desc='how it is used')
    strategy_params = traits.Dict(traits.Str, desc='keyword arguments of the strategy')


class _DipoleInversionOutputSpec(TraitedSpec):
    chimap = File(desc='susceptibility, ppm, not referenced')
    info = traits.Dict(desc='what was decided from the data')
    convergence = traits.Dict(desc='how the iteration ended; empty for a direct method')
    local_field = File(
        desc='field of that susceptibility, ppm; only of a method that removes the background'
    )


class DipoleInversion(VolumeInterface):
    """Estimate susceptibility from the local field, or in one step from total field or phase."""

    input_spec = _DipoleInversionInputSpec
    output_spec = _DipoleInversionOutputSpec

    def _run_interface(self, runtime):
        field = self._field()
        problem = FieldProblem(field, self.inputs.mask, self._b0_dir(field))
        invert = get_method('inversion', self.inputs.method)
        strategy = get_method('strategy', self.inputs.strategy)
        params = self.inputs.params or {}
        options = {**self._extras(problem), **params}
        self._results['info'] = self._decide(options, problem)
        (chi,), history = problem.solve(
            partial(strategy, invert),
            weights=self._confidence(problem),
            options=options,
            **(self.inputs.strategy_params or {}),
        )
        parameters = {**method_parameters('inversion', self.inputs.method), **params}
        self._results['convergence'] = convergence(history, parameters)
        self._write(runtime, field, chimap=chi)
        if self._entry.one_step:
            self._write(runtime, field, local_field=self._own_field(chi, field))
        return runtime

    @property
    def _entry(self) -> catalog.Method:
        return catalog.STAGES['inversion'][self.inputs.method]

    def _confidence(self, problem: FieldProblem) -> np.ndarray | None:
        # A phase wraps, so that its jumps say nothing.
        if self._entry.takes == 'phase':
            return problem.volume(self.inputs.weights)
        return problem.confidence(self.inputs.weights)

    def _field(self) -> io.Volume:
        """Return the field that the method takes, or the phase with the sign of the convention.

        Raises
        ------
        ValueError
            If the other of the two was given, or the phase without what belongs to it.
        """
        wanted = 'phase' if self._entry.takes == 'phase' else 'local_field'
        if not isdefined(getattr(self.inputs, wanted)):
            raise ValueError(
                f'the inversion {self.inputs.method!r} takes the '
                f'{catalog.TAKEN[self._entry.takes]}; got '
                f'{"a field" if wanted == "phase" else "phase"}. Set {wanted!r}, or choose '
                'another method.'
            )
        if wanted == 'local_field':
            return io.load_volume(self.inputs.local_field)
        if not (isdefined(self.inputs.te) and isdefined(self.inputs.f0)):
            raise ValueError(
                f'the inversion {self.inputs.method!r} needs the echo times and the imaging '
                "frequency with the phase. Set 'te', in s, and 'f0', in MHz."
            )
        phase = io.load_echoes([self.inputs.phase])
        if isdefined(self.inputs.sign) and self.inputs.sign['Sign'] < 0:
            np.negative(phase.data, out=phase.data)
        return phase

    def _decide(self, options: dict, problem: FieldProblem) -> dict:
        """Set what the method leaves to the data, and return it for the record."""
        left = method_parameters('inversion', self.inputs.method).get('reg_weight', 0) is None
        if not left or options.get('reg_weight') is not None:
            return {}
        noise = options.get('field_noise')
        options['reg_weight'] = regularisation_weight(noise, problem.mask)
        median = None if noise is None else float(np.median(noise[problem.mask]))
        return {'RegWeight': options['reg_weight'], 'FieldNoise': median}

    def _own_field(self, chi: np.ndarray, field: io.Volume) -> np.ndarray:
        own = forward_field(chi, field.voxel_size, b0_dir=self._b0_dir(field))
        return own * io.load_mask(self.inputs.mask, like=field)

    def _extras(self, problem: FieldProblem) -> dict:
        """Return the further data that the method asks for and that there are."""
        known = {}
        for name in self._entry.extras:
            if name == 'phase_scale':
                known[name] = self._phase_scale()
            elif name in ('magnitude', 'magnitudes'):
                known[name] = self._magnitude(problem, combined=name == 'magnitude')
            elif name in ('te', 'f0'):
                known[name] = getattr(self.inputs, name)
            else:
                known[name] = problem.volume(getattr(self.inputs, name))
        return {name: value for name, value in known.items() if value is not None}

    def _phase_scale(self) -> float | None:
        if not (isdefined(self.inputs.te) and isdefined(self.inputs.f0)):
            return None
        return float(np.mean(radians_per_ppm(np.array(self.inputs.te), self.inputs.f0)))

    def _magnitude(self, problem: FieldProblem, *, combined: bool) -> np.ndarray | None:
        """Return the magnitude of each echo, or the root of the sum of their squares."""
        if not isdefined(self.inputs.magnitude):
            return None
        echoes = io.load_echoes([self.inputs.magnitude])
        io.check_same_grid(problem.like, echoes)
        if not combined:
            return problem.order.to_ras(echoes.data)
        squares = np.einsum('...e,...e->...', echoes.data, echoes.data)
        return problem.order.to_ras(np.sqrt(squares, out=squares))


def convergence(history: list[float], parameters: dict) -> dict:
    """Say how an iteration ended.

    Parameters
    ----------
    history : list of float
        One number for each iteration, of all stages of the method.
    parameters : dict
        Of the method, defaults included.

    Returns
    -------
    dict
        ``Iterations``; ``LastChange``, what the method compares with its tolerance, in the last
        one; ``Converged``, whether it stopped by itself. Empty without iterations.

    Examples
    --------
    >>> convergence([0.5, 0.002], {'max_iter': 2, 'tol': 1e-3})
    {'Iterations': 2, 'LastChange': 0.002, 'Converged': False}
    """
    if not history:
        return {}
    # The last stage of iLSQR has a tolerance of its own.
    tol = parameters.get('streak_tol', parameters.get('tol', 0))
    # PDF stops before the iteration that would be below its tolerance.
    stopped = history[-1] < tol or len(history) < parameters.get('max_iter', 0)
    return {
        'Iterations': len(history),
        'LastChange': float(history[-1]),
        'Converged': bool(stopped),
    }


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
        r2star = optional_volume(self.inputs.r2star, chi)
        wanted = self.inputs.region.replace('wholebrain', 'whole_brain')
        region, used = reference_region(
            wanted,
            brain,
            chi.voxel_size,
            r2star=r2star,
            chi=chi.data,
        )
        referenced, stats = apply_reference(chi.data, region, used)
        _, whole = apply_reference(chi.data, brain, 'whole_brain')
        if used == 'none':
            referenced = chi.data
        reference = {
            'region': used,
            'requested': wanted,
            'mean': stats.mean,
            'sd': stats.sd,
            'n': stats.n_voxels,
            'whole_brain_mean': whole.mean - (0.0 if used == 'none' else stats.mean),
            'whole_brain_sd': whole.sd,
            'whole_brain_n': whole.n_voxels,
        }
        found = reference_findings(wanted, used, r2star is not None)
        self._results['reference'] = with_findings(reference, found, runtime.cwd)
        self._write(runtime, chi, chimap=np.where(brain, referenced, np.float32(0)))
        return runtime
