"""Interfaces that write derivatives."""

import shutil
from pathlib import Path

import numpy as np
from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    DynamicTraitedSpec,
    File,
    SimpleInterface,
    TraitedSpec,
    isdefined,
    traits,
)
from nipype.interfaces.io import add_traits

from qsmflow import io
from qsmflow.bids.derivatives import write_json
from qsmflow.files import completed
from qsmflow.interfaces.findings import lifted


class _DerivativesSinkInputSpec(BaseInterfaceInputSpec):
    in_file = File(exists=True, mandatory=True, desc='what to store')
    out_dir = traits.Str(mandatory=True, desc='root of the derivative dataset')
    path = traits.Str(mandatory=True, desc='where to store it, relative to the root')
    kind = traits.Enum('map', 'label', 'mask', 'file', usedefault=True, desc='what the values are')
    scale = traits.Float(
        1.0, usedefault=True, desc='factor from the stored values to the unit of the derivative'
    )
    metadata = traits.Dict(desc='sidecar; none is written without it')
    details = traits.Dict(desc='more fields of the sidecar, known only when the run is under way')


class _DerivativesSinkOutputSpec(TraitedSpec):
    out_file = File(desc='the stored file')


class DerivativesSink(SimpleInterface):
    """Store a file of the working folder as a derivative, with its sidecar.

    It always runs, so that outputs that were deleted come back from the working folder. A file
    appears under its name only when it is complete.
    """

    input_spec = _DerivativesSinkInputSpec
    output_spec = _DerivativesSinkOutputSpec
    _always_run = True

    def _run_interface(self, runtime):
        target = inside(self.inputs.out_dir, self.inputs.path)
        target.parent.mkdir(parents=True, exist_ok=True)
        if self.inputs.kind == 'file':
            copy_atomically(self.inputs.in_file, target)
        else:
            volume = io.load_volume(self.inputs.in_file)
            data = _typed(volume.data, self.inputs.kind, self.inputs.scale)
            io.save_volume(data, volume, target)
        if isdefined(self.inputs.metadata) and self.inputs.metadata:
            details = self.inputs.details if isdefined(self.inputs.details) else {}
            write_json(sidecar_path(target), _plain(_joined(self.inputs.metadata, details)))
        self._results['out_file'] = str(target)
        return runtime


def _joined(metadata: dict, details: dict) -> dict:
    """Put together what was known before and what was found: lists and dictionaries grow."""
    fields = {**metadata, **details}
    for key in metadata.keys() & details.keys():
        known, found = metadata[key], details[key]
        if isinstance(known, dict) and isinstance(found, dict):
            fields[key] = {**known, **found}
        elif isinstance(known, list) and isinstance(found, list):
            fields[key] = known + found
    return fields


def _typed(data: np.ndarray, kind: str, scale: float) -> np.ndarray:
    if kind == 'map':
        return data if scale == 1 else data * np.float32(scale)
    return data > 0.5 if kind == 'mask' else np.rint(data).astype(np.int32)


def inside(root: str, relative: str) -> Path:
    """Return the path below ``root``.

    Raises
    ------
    ValueError
        If ``relative`` leads out of ``root``.

    Examples
    --------
    >>> inside('/out', 'sub-01/anat/sub-01_Chimap.nii.gz').name
    'sub-01_Chimap.nii.gz'
    """
    base = Path(root).resolve()
    place = base / relative
    # A link of that name is replaced, not followed: version control may have put it there.
    target = place.parent.resolve() / place.name
    if place.name == '..' or target == base or not target.is_relative_to(base):
        raise ValueError(f'{relative} leads out of the output folder {base}.')
    return target


def sidecar_path(path: Path) -> Path:
    """Return the JSON beside an image or table.

    Examples
    --------
    >>> sidecar_path(Path('sub-01_Chimap.nii.gz')).name
    'sub-01_Chimap.json'
    """
    return path.with_name(path.name.split('.', 1)[0] + '.json')


def copy_atomically(source: str, target: Path) -> None:
    """Copy a file so that it has its name only when it is complete."""
    with completed(target) as partial:
        shutil.copyfile(source, partial)


def _plain(value):
    """Turn numpy values, tuples and NaN into what JSON knows."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


class _MergeFieldsOutputSpec(TraitedSpec):
    out = traits.Dict(desc='the fields together')
    out_file = File(desc='the same as a JSON file')


class MergeFields(SimpleInterface):
    """Put values from several nodes under one key each.

    Parameters
    ----------
    fields : list of str
        Keys; each becomes an input that may stay unset.
    static : dict, optional
        Keys whose values are known from the start.
    lift : str, optional
        Key under which the findings are listed that the values bring along, see
        :mod:`qsmflow.interfaces.findings`; they stay where they are without it.
    """

    input_spec = DynamicTraitedSpec
    output_spec = _MergeFieldsOutputSpec

    def __init__(
        self,
        fields: list[str] | None = None,
        static: dict | None = None,
        lift: str | None = None,
        **inputs,
    ):
        super().__init__(**inputs)
        self._fields = list(fields or [])
        add_traits(self.inputs, [*self._fields, 'static', 'lift'])
        if static:
            self.inputs.static = static
        if lift:
            self.inputs.lift = lift

    def _run_interface(self, runtime):
        merged = dict(self.inputs.static) if isdefined(self.inputs.static) else {}
        for field in self._fields:
            value = getattr(self.inputs, field)
            if isdefined(value):
                merged[field] = value
        if isdefined(self.inputs.lift):
            merged = lifted(merged, self.inputs.lift)
        merged = _plain(merged)
        self._results['out'] = merged
        self._results['out_file'] = write_json(Path(runtime.cwd) / 'fields.json', merged)
        return runtime
