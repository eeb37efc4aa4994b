"""Interfaces from unwrapped phase to the field map."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from nipype.interfaces.base import BaseInterfaceInputSpec, File, TraitedSpec, isdefined, traits

from qsmflow import io
from qsmflow.algorithms import catalog, get_method
from qsmflow.algorithms.field import FieldMap
from qsmflow.algorithms.phase import field_sign_evidence
from qsmflow.algorithms.phase_quality import unwrapping_failed
from qsmflow.bids.checks_run import sign_findings
from qsmflow.interfaces.base import B0_DIR, VolumeInterface, optional_volume
from qsmflow.interfaces.findings import motion_findings, with_findings

_LOGGER = logging.getLogger('qsmflow.interfaces')


def other_unwrappings(method: str, params: dict, n_echoes: int) -> list[tuple[str, dict]]:
    """Return what is tried where an unwrapping failed: methods and parameters, in order.

    First the same method on each echo by itself, if it is ROMEO, which then needs no phase that
    is linear in time; then the other methods of the table, Laplacian unwrapping at the end, as it
    alters the field.

    Examples
    --------
    >>> [name for name, _ in other_unwrappings('best_path', {}, 3)]
    ['romeo', 'laplacian']
    >>> other_unwrappings('romeo', {'template': 1}, 3)[0]
    ('romeo', {'template': 1, 'individual': True})
    """
    others = [(name, {}) for name in catalog.names('unwrapping') if name != method]
    others.sort(key=lambda other: other[0] == 'laplacian')
    if method == 'romeo' and n_echoes > 1 and not params.get('individual'):
        others.insert(0, (method, {**params, 'individual': True}))
    return others


@dataclass(frozen=True, eq=False)
class _Attempt:
    """An unwrapping, the fit to it, and how well both agree."""

    method: str
    params: dict
    phase: np.ndarray
    fit: FieldMap
    failed: bool
    verdict: dict

    @property
    def bad_share(self) -> float:
        return max(self.verdict['residual_share'], self.verdict['turn_share'] or 0.0)

    @property
    def name(self) -> str:
        """Method and parameters in words."""
        options = ', '.join(f'{key}={value!r}' for key, value in self.params.items())
        return f'{self.method} ({options})' if options else self.method

    def facts(self) -> dict:
        return {
            'Method': self.method,
            'Parameters': self.params,
            'ResidualShare': self.verdict['residual_share'],
            'TurnShare': self.verdict['turn_share'],
            'Failed': self.failed,
        }


class _FieldFitInputSpec(BaseInterfaceInputSpec):
    unwrapped_phase = File(exists=True, mandatory=True, desc='continuous phase, rad, echo last')
    magnitude = File(exists=True, mandatory=True, desc='magnitude, echo last')
    mask = File(exists=True, mandatory=True, desc='region of interest')
    te = traits.List(traits.Float, mandatory=True, desc='echo times, s')
    f0 = traits.Float(mandatory=True, desc='imaging frequency, MHz')
    method = traits.Enum(*catalog.names('field'), usedefault=True, desc='algorithm')
    params = traits.Dict(traits.Str, desc='keyword arguments of the algorithm')
    phase = File(exists=True, desc='wrapped phase, rad: to unwrap again where that failed')
    unwrapping = traits.Enum(
        *catalog.names('unwrapping'), usedefault=True, desc='how the phase was unwrapped'
    )
    unwrapping_params = traits.Dict(traits.Str, desc='keyword arguments of that method')
    fallback = traits.Bool(
        True, usedefault=True, desc='try the other methods where the unwrapping failed'
    )


class _FieldFitOutputSpec(TraitedSpec):
    total_field = File(desc='field, ppm')
    field_noise = File(desc='standard deviation of the field, ppm')
    residual = File(desc='relative residual of the fit')
    phase_offset = File(desc='phase at echo time zero that the fit found, rad')
    weights = File(desc='confidence in the field, 0 to 1')
    unwrapped_phase = File(desc='continuous phase that the field was fitted to, rad, echo last')
    info = traits.Dict(desc='which unwrapping was used, what was tried, and why')


class FieldFit(VolumeInterface):
    """Fit the field to the phases of all echoes; where they disagree, unwrap them otherwise.

    Whether the unwrapping failed is judged by the fit, see
    :func:`qsmflow.algorithms.phase_quality.unwrapping_failed`. The first method that does not
    fail is kept. If all fail, as they do where the data are at fault, that is the one which was
    asked for, unless another leaves less than ``clear_gain`` of its bad voxels.
    """

    input_spec = _FieldFitInputSpec
    output_spec = _FieldFitOutputSpec

    #: Share of the bad voxels of the first method, below which another that fails too is kept.
    clear_gain = 0.5

    def _run_interface(self, runtime):
        like = io.load_echoes([self.inputs.unwrapped_phase])
        data = (
            io.load_echoes([self.inputs.magnitude]).data,
            io.load_mask(self.inputs.mask, like=like),
            like.voxel_size,
        )
        params = dict(self.inputs.unwrapping_params or {})
        first = kept = self._fit(self.inputs.unwrapping, params, like.data, data)
        tried = [first.facts()]
        for other in self._others(first, like, data):
            tried.append(other.facts())
            if not other.failed or other.bad_share < min(
                kept.bad_share, self.clear_gain * first.bad_share
            ):
                kept = other
            if not other.failed:
                break
        info = self._info(first, kept, tried)
        self._results['info'] = with_findings(
            info, motion_findings(info, kept.facts()), runtime.cwd
        )
        if first.failed:
            _LOGGER.warning('%s [%s]', self._results['info']['Note'], runtime.cwd)
        maps = ('total_field', 'field_noise', 'residual', 'phase_offset', 'weights')
        self._write(runtime, like, **{name: getattr(kept.fit, name) for name in maps})
        if kept is first:
            self._results['unwrapped_phase'] = self.inputs.unwrapped_phase
        else:
            self._write(runtime, like, unwrapped_phase=kept.phase)
        return runtime

    def _fit(self, method: str, params: dict, phase: np.ndarray, data: tuple) -> _Attempt:
        """Fit the field to unwrapped phase, and judge the unwrapping by it.

        ``data`` are magnitude, mask and voxel size, as the methods of both stages take them.
        """
        times = {'te': tuple(self.inputs.te), 'f0': self.inputs.f0}
        fit = get_method('field', self.inputs.method)(
            phase, *data, **times, **(self.inputs.params or {})
        )
        failed, verdict = unwrapping_failed(
            fit.residual,
            data[1],
            unwrapped_phase=phase,
            total_field=fit.total_field,
            phase_offset=fit.phase_offset,
            **times,
        )
        return _Attempt(method, params, phase, fit, failed, verdict)

    def _others(self, first: _Attempt, like: io.Volume, data: tuple) -> Iterator[_Attempt]:
        """Unwrap by the other methods, one by one, if the first failed and that is wanted."""
        if not first.failed or not self.inputs.fallback or not isdefined(self.inputs.phase):
            return
        phase = io.load_echoes([self.inputs.phase])
        io.check_same_grid(like, phase)
        te = tuple(self.inputs.te)
        for method, params in other_unwrappings(first.method, first.params, len(te)):
            unwrapped = get_method('unwrapping', method)(phase.data, *data, te=te, **params)
            yield self._fit(method, params, unwrapped, data)

    def _info(self, first: _Attempt, kept: _Attempt, tried: list[dict]) -> dict:
        info = {
            'Requested': first.method,
            'Method': kept.method,
            'Parameters': kept.params,
            'Failed': kept.failed,
            'Reason': first.verdict['reason'],
            'Tried': tried,
        }
        if first.failed:
            info['Note'] = (
                f'unwrapping by {first.name} failed: {first.verdict["reason"]}; '
                f'{self._outcome(first, kept, len(tried))}'
            )
        return info

    def _outcome(self, first: _Attempt, kept: _Attempt, n_tried: int) -> str:
        """Say what was done about an unwrapping that failed."""
        if n_tried == 1:
            why = 'no wrapped phase was given' if self.inputs.fallback else 'switched off'
            return f'no other method was tried ({why})'
        if not kept.failed:
            return f'{kept.name} was used instead'
        if kept is not first:
            return f'all other methods failed too; {kept.name}, with far fewer bad voxels, is kept'
        return (
            'all other methods failed too, so that the data themselves seem to be at fault '
            '(phase offsets, bipolar readout, echo times or mask); its result is kept'
        )


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
        info = {'Sign': sign, 'Source': source, 'Evidence': float(evidence)}
        self._results['info'] = with_findings(info, sign_findings(info), runtime.cwd)
        self._write(runtime, field, total_field=sign * field.data)
        return runtime
