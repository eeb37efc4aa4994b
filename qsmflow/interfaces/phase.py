"""Interfaces from stored images to phase in radians, unwrapped."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from nipype.interfaces.base import BaseInterfaceInputSpec, File, TraitedSpec, isdefined, traits

from qsmflow import io
from qsmflow.algorithms import catalog, get_method
from qsmflow.algorithms import phase as phase_algorithms
from qsmflow.algorithms.bipolar import remove_bipolar
from qsmflow.algorithms.phase_evidence import object_mask
from qsmflow.algorithms.phase_offset import remove_phase_offset, remove_slice_offsets
from qsmflow.bids.checks_run import readout_findings, slice_findings
from qsmflow.interfaces.base import VolumeInterface
from qsmflow.interfaces.findings import with_findings

_LOGGER = logging.getLogger('qsmflow.interfaces')


class _PhasePreparationInputSpec(BaseInterfaceInputSpec):
    magnitude_files = traits.List(
        File(exists=True), desc='magnitude, an image for each echo or one in 4-D'
    )
    phase_files = traits.List(File(exists=True), desc='phase, ordered as the magnitude')
    real_files = traits.List(
        File(exists=True), desc='real part, or complex, in place of magnitude and phase'
    )
    imaginary_files = traits.List(
        File(exists=True), desc='imaginary part; the same files if they are complex'
    )
    scaling = traits.Dict(desc='fields of PhaseScaling: how stored values become radians')
    echoes = traits.List(traits.Int, desc='echoes to keep, counted from 0 in order of echo time')
    volume = traits.Int(desc='volume of each file, counted from 0, where they hold repetitions')
    slice_offsets = traits.Bool(
        False, usedefault=True, desc='remove an offset that each slice has of its own'
    )
    te = traits.List(traits.Float, desc='echo times, s: to remove offsets of slices')
    remove_slice_chop = traits.Enum('auto', 'yes', 'no', usedefault=True, desc='GE slice chopping')


class _PhasePreparationOutputSpec(TraitedSpec):
    magnitude = File(desc='magnitude, (X, Y, Z, E)')
    phase = File(desc='wrapped phase, rad, (X, Y, Z, E)')
    first_magnitude = File(desc='magnitude of the first echo')
    info = traits.Dict(desc='what was found and done')


class PhasePreparation(VolumeInterface):
    """Read magnitude and phase, or real and imaginary parts, into one array of radians each.

    Where there is a magnitude alone, there is no phase in the output either.
    """

    input_spec = _PhasePreparationInputSpec
    output_spec = _PhasePreparationOutputSpec

    #: Fraction of slice pairs that must jump by pi before slice chopping is undone.
    chop_limit = 0.8

    def _run_interface(self, runtime):
        if not self._has_phase():
            magnitude = self._load(self.inputs.magnitude_files)
            first = magnitude.data[..., 0]
            self._results['info'] = {}
            self._write(runtime, magnitude, magnitude=magnitude.data, first_magnitude=first)
            return runtime
        magnitude, like = self._read()
        phase = like.data
        evidence = phase_algorithms.slice_chop(magnitude, phase)
        chopped = self.inputs.remove_slice_chop == 'yes' or (
            self.inputs.remove_slice_chop == 'auto' and evidence > self.chop_limit
        )
        if chopped:
            phase = phase_algorithms.remove_slice_chop(phase)
        info = {'SliceChopEvidence': float(evidence), 'SliceChopRemoved': chopped}
        if self.inputs.slice_offsets:
            tissue = object_mask(magnitude[..., 0])
            phase, offsets = remove_slice_offsets(
                phase, magnitude, tissue, like.voxel_size, te=tuple(self.inputs.te)
            )
            info['SliceOffsetSpread'] = float(np.std(offsets))
        found = slice_findings(info, Path(like.path).name)
        self._results['info'] = with_findings(info, found, runtime.cwd)
        self._write(
            runtime, like, magnitude=magnitude, phase=phase, first_magnitude=magnitude[..., 0]
        )
        return runtime

    def _has_phase(self) -> bool:
        parts = self.inputs.phase_files, self.inputs.real_files
        return any(isdefined(files) and files for files in parts)

    def _read(self) -> tuple[np.ndarray, io.Volume]:
        """Return magnitude and phase (rad) of the chosen echoes."""
        if isdefined(self.inputs.real_files) and self.inputs.real_files:
            real = self._load(self.inputs.real_files)
            imaginary = self._load(self.inputs.imaginary_files, component='imag')
            io.check_same_grid(real, imaginary)
            for part, other in zip(real.data, imaginary.data, strict=True):
                size = np.hypot(part, other)
                np.arctan2(other, part, out=other)
                part[...] = size
            return real.data, imaginary
        phase = self._phase()
        if isdefined(self.inputs.magnitude_files) and self.inputs.magnitude_files:
            image = self._load(self.inputs.magnitude_files)
            io.check_same_grid(phase, image)
            return image.data, phase
        return np.ones_like(phase.data), phase

    def _phase(self) -> io.Volume:
        stored = self._load(self.inputs.phase_files)
        scaling = phase_algorithms.PhaseScaling(**self.inputs.scaling)
        phase = phase_algorithms.scale_to_radians(stored.data, scaling)
        return io.Volume(phase, stored.affine, stored.path)

    def _load(self, paths: list[str], component: str = 'real') -> io.Volume:
        """Load the chosen echoes, with 0 where a value is not finite."""
        echoes = self.inputs.echoes
        chosen = list(echoes) if isdefined(echoes) else None
        volume = self.inputs.volume if isdefined(self.inputs.volume) else None
        image = io.load_echoes(paths, chosen, component=component, volume=volume)
        for plane in image.data:  # the masks of a plane are small
            plane[~np.isfinite(plane)] = 0
        return image


def readout_polarity(echo_numbers: Sequence[int]) -> list[int]:
    """Return the direction of each echo's readout, if it alternates: -1 for odd numbers, else 1.

    Examples
    --------
    >>> readout_polarity([1, 2, 4])
    [-1, 1, 1]
    """
    return [1 if number % 2 == 0 else -1 for number in echo_numbers]


def bipolar_obstacle(polarity: Sequence[int]) -> str:
    """Say why the phase of a bipolar readout cannot be told from the field; empty if it can.

    Examples
    --------
    >>> bipolar_obstacle([-1, 1])
    'this needs three echoes or more; in use: 2'
    >>> bipolar_obstacle([-1, 1, -1])
    ''
    """
    if len(polarity) < 3:
        return f'this needs three echoes or more; in use: {len(polarity)}'
    if len(set(polarity)) == 1:
        return 'all echoes in use have the same direction of readout, which needs no correction'
    return ''


def untested_bipolar(mode: str, reason: str) -> dict:
    """Return what is said where nothing was tested; see :class:`BipolarCorrection`."""
    return {'Mode': mode, 'Tested': False, 'Corrected': False, 'Reason': reason}


class _BipolarCorrectionInputSpec(BaseInterfaceInputSpec):
    phase = File(exists=True, mandatory=True, desc='wrapped phase, rad, echo last')
    magnitude = File(exists=True, mandatory=True, desc='magnitude, echo last')
    mask = File(exists=True, mandatory=True, desc='region of interest')
    te = traits.List(traits.Float, mandatory=True, desc='echo times, s')
    polarity = traits.List(
        traits.Int, desc='direction of the readout of each echo, 1 or -1; alternating by default'
    )
    mode = traits.Enum(
        'auto', 'on', 'off', usedefault=True, desc='correct by the evidence, always, or never'
    )
    params = traits.Dict(traits.Str, desc='keyword arguments of the algorithm')


class _BipolarCorrectionOutputSpec(TraitedSpec):
    phase = File(desc='wrapped phase as if all echoes were read out in one direction, rad')
    info = traits.Dict(desc='what was tested, found (rad/mm, rad) and done')


class BipolarCorrection(VolumeInterface):
    """Remove the phase by which echoes of opposite readout direction differ, if there is one."""

    input_spec = _BipolarCorrectionInputSpec
    output_spec = _BipolarCorrectionOutputSpec

    def _run_interface(self, runtime):
        mode, te = self.inputs.mode, self.inputs.te
        given = isdefined(self.inputs.polarity) and self.inputs.polarity
        polarity = self.inputs.polarity if given else readout_polarity(range(1, len(te) + 1))
        reason = 'switched off' if mode == 'off' else bipolar_obstacle(polarity)
        if reason and mode == 'on':
            raise ValueError(f'a bipolar readout cannot be corrected: {reason}.')
        if reason:
            self._results.update(phase=self.inputs.phase, info=untested_bipolar(mode, reason))
            _LOGGER.info('not tested for a bipolar readout: %s [%s]', reason, runtime.cwd)
            return runtime
        phase = io.load_echoes([self.inputs.phase])
        corrected, _, found = remove_bipolar(
            phase.data,
            io.load_echoes([self.inputs.magnitude]).data,
            io.load_mask(self.inputs.mask, like=phase),
            phase.voxel_size,
            te=tuple(te),
            polarity=tuple(polarity),
            always=mode == 'on',
            **(self.inputs.params or {}),
        )
        info = self._info(found, len(te))
        self._results['info'] = with_findings(info, readout_findings(info), runtime.cwd)
        if info['Corrected']:
            self._write(runtime, phase, phase=corrected)
        else:
            self._results['phase'] = self.inputs.phase
        return runtime

    def _info(self, found: dict, n_echoes: int) -> dict:
        info = {
            'Mode': self.inputs.mode,
            'Tested': True,
            'Corrected': found['corrected'],
            'Evidence': found['evidence'],
            'Gradient': list(found['gradient']),
            'GradientError': list(found['gradient_error']),
            'Span': found['span'],
            'Axis': 'ijk'[found['axis']],
        }
        if info['Corrected'] and n_echoes == 3:
            info['Note'] = 'with three echoes, phase that bends in time looks the same'
        return info


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
        corrected, offset = remove_phase_offset(
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
