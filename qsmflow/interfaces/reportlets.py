"""Interfaces that draw the figures of the report.

Each writes ``out_file``, a PNG image, and ``out_json``, facts on it for its caption.
"""

import json
from pathlib import Path

import numpy as np
from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    File,
    SimpleInterface,
    TraitedSpec,
    isdefined,
    traits,
)

from qsmflow import io
from qsmflow.report import figures


class _FigureOutputSpec(TraitedSpec):
    out_file = File(exists=True, desc='the figure, PNG')
    out_json = File(exists=True, desc='facts on the figure: {"caption": str}')


class _Figure(SimpleInterface):
    """Write a figure and its facts under the name of the interface."""

    output_spec = _FigureOutputSpec

    def _write(self, runtime, image: bytes, caption: str = '') -> None:
        path = Path(runtime.cwd) / 'figure.png'
        path.write_bytes(image)
        facts = path.with_suffix('.json')
        facts.write_text(json.dumps({'caption': caption}, ensure_ascii=False), encoding='utf-8')
        self._results.update(out_file=str(path), out_json=str(facts))

    def _mask(self, like: io.Volume) -> np.ndarray | None:
        path = self.inputs.mask
        return io.load_mask(path, like=like) if isdefined(path) else None


class _MagnitudeMaskFigureInputSpec(BaseInterfaceInputSpec):
    in_file = File(exists=True, mandatory=True, desc='magnitude; the first echo of 4-D data')
    mask = File(exists=True, mandatory=True, desc='brain mask')


class MagnitudeMaskFigure(_Figure):
    """Draw the magnitude with the border of the brain mask."""

    input_spec = _MagnitudeMaskFigureInputSpec

    def _run_interface(self, runtime):
        magnitude = _first_echo(io.load_volume(self.inputs.in_file))
        mask = self._mask(magnitude)
        image = figures.three_planes(
            magnitude.data,
            magnitude.affine,
            window=figures.robust_window(magnitude.data, mask),
            unit='a.u.',
            outline=mask,
            margin=25.0,
        )
        volume = mask.sum() * np.prod(magnitude.voxel_size) / 1000
        self._write(runtime, image, f'Volume of the mask: {volume:.0f} ml.')
        return runtime


class _MapFigureInputSpec(BaseInterfaceInputSpec):
    in_file = File(exists=True, mandatory=True, desc='volume; the chosen echo of 4-D data')
    mask = File(exists=True, desc='voxels to show; others stay black')
    kind = traits.Enum('chi', *figures.STYLES, usedefault=True, desc='quantity of the map')
    window = traits.Tuple(traits.Float, traits.Float, desc='values shown black and white')
    echo = traits.Int(0, usedefault=True, desc='index of the echo of 4-D data')
    caption = traits.Str('', usedefault=True, desc='what is drawn')


class MapFigure(_Figure):
    """Draw a map of susceptibility, R2* or T2* in its fixed window."""

    input_spec = _MapFigureInputSpec

    def _run_interface(self, runtime):
        volume = _first_echo(io.load_volume(self.inputs.in_file), self.inputs.echo)
        window = self.inputs.window if isdefined(self.inputs.window) else None
        image, caption = figures.quantity(
            volume.data, volume.affine, self.inputs.kind, mask=self._mask(volume), window=window
        )
        self._write(runtime, image, f'{self.inputs.caption} {caption}'.strip())
        return runtime


class _FieldFigureInputSpec(_MapFigureInputSpec):
    kind = traits.Enum(
        'phase', 'total_field', 'local_field', mandatory=True, desc='quantity of the map'
    )


class FieldFigure(MapFigure):
    """Draw wrapped phase, total or local field in its fixed window."""

    input_spec = _FieldFigureInputSpec


class _AtlasFigureInputSpec(BaseInterfaceInputSpec):
    in_file = File(exists=True, mandatory=True, desc='susceptibility, ppm')
    labels = File(exists=True, mandatory=True, desc='label image on the same grid')
    names = traits.Dict(traits.Int, traits.Str, desc='names of the labels')
    mask = File(exists=True, desc='voxels to show; others stay black')
    caption = traits.Str('', usedefault=True, desc='what the labels are')


class AtlasFigure(_Figure):
    """Draw the borders of regions on the susceptibility map."""

    input_spec = _AtlasFigureInputSpec

    def _run_interface(self, runtime):
        chi = io.load_volume(self.inputs.in_file)
        labels = io.load_volume(self.inputs.labels)
        io.check_same_grid(chi, labels)
        names = self.inputs.names if isdefined(self.inputs.names) else {}
        image, lost = figures.atlas(
            chi.data, np.rint(labels.data).astype(int), chi.affine, names, mask=self._mask(chi)
        )
        self._write(runtime, image, f'{self.inputs.caption} {lost}'.strip())
        return runtime


class _RegistrationFigureInputSpec(BaseInterfaceInputSpec):
    fixed = File(exists=True, mandatory=True, desc='image of the subject')
    moving = File(exists=True, mandatory=True, desc='registered image on the grid of fixed')
    mask = File(exists=True, desc='brain of the subject')
    moving_mask = File(exists=True, desc='brain of the registered image, on the same grid')
    caption = traits.Str('', usedefault=True, desc='score and verdict of the check')


class RegistrationFigure(_Figure):
    """Draw the borders of a registered image over the image it was registered to."""

    input_spec = _RegistrationFigureInputSpec

    def _run_interface(self, runtime):
        fixed = _first_echo(io.load_volume(self.inputs.fixed))
        moving = io.load_volume(self.inputs.moving)
        io.check_same_grid(fixed, moving)
        brain = None
        if isdefined(self.inputs.moving_mask):
            brain = io.load_mask(self.inputs.moving_mask, like=fixed)
        image = figures.registration_check(
            fixed.data, moving.data, fixed.affine, mask=self._mask(fixed), moving_mask=brain
        )
        self._write(runtime, image, self.inputs.caption)
        return runtime


def _first_echo(volume: io.Volume, echo: int = 0) -> io.Volume:
    """Return one echo of a volume with echoes, or the volume itself."""
    if volume.data.ndim == 3:
        return volume
    return io.Volume(volume.data[..., echo], volume.affine, volume.path)
