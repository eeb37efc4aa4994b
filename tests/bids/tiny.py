"""A whole reconstruction of a tiny series in less than a second, without a graph."""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from qsmflow import io
from qsmflow.algorithms.catalog import PRESETS
from qsmflow.interfaces.field import FieldFit, FieldSign
from qsmflow.interfaces.masking import MaskRefinement
from qsmflow.interfaces.phase import (
    BipolarCorrection,
    PhaseOffsetRemoval,
    PhasePreparation,
    PhaseUnwrapping,
    readout_polarity,
)
from qsmflow.interfaces.susceptibility import BackgroundRemoval, DipoleInversion

PRESET = PRESETS['fast']


@dataclass(frozen=True, eq=False)
class Result:
    """What a reconstruction gives: map, where it is valid, what was decided, file of the map."""

    chi: np.ndarray
    mask: np.ndarray
    facts: dict
    file: str


def reconstruct(series, mask: np.ndarray, folder: Path, *, sign='+1', bipolar='off') -> Result:
    """Run the interfaces of the chain, with the preset ``fast``, on a checked series."""
    folder.mkdir(parents=True, exist_ok=True)

    def run(interface):
        own = folder / type(interface).__name__
        own.mkdir()
        return interface.run(cwd=str(own)).outputs

    one_file = len(series.phase or series.real) == 1
    volumes = list(series.volumes or [])
    inputs = {
        'magnitude_files': list(series.magnitude),
        'phase_files': list(series.phase),
        'real_files': list(series.real),
        'imaginary_files': list(series.imag),
        'echoes': volumes if one_file else [],
    }
    if series.scaling:
        inputs['scaling'] = asdict(series.scaling)
    if volumes and not one_file:
        inputs['volume'] = volumes[0]
    if series.has_finding('A15', 'FIX'):
        inputs |= {'slice_offsets': True, 'te': list(series.te)}
    ready = run(PhasePreparation(**inputs))
    like = io.load_volume(ready.first_magnitude)
    mask_file = io.save_volume(mask, like, folder / 'mask.nii')
    te, common = list(series.te), {'magnitude': ready.magnitude, 'mask': mask_file}
    refined = run(MaskRefinement(phase=ready.phase, te=te, refine=False, **common))
    common['mask'] = refined.mask
    phase, facts = ready.phase, {'preparation': ready.info, 'mask': refined.info}
    if bipolar != 'off':
        polarity = readout_polarity(series.echo_numbers)
        node = BipolarCorrection(phase=phase, te=te, polarity=polarity, mode=bipolar, **common)
        corrected = run(node)
        phase, facts['bipolar'] = corrected.phase, corrected.info
    if len(te) > 1:
        phase = run(PhaseOffsetRemoval(phase=phase, te=te, **common)).phase
    unwrapped = run(PhaseUnwrapping(phase=phase, te=te, **common)).unwrapped_phase
    fit = run(FieldFit(unwrapped_phase=unwrapped, phase=phase, te=te, f0=series.f0, **common))
    b0 = {'b0_dir': series.b0_dir}
    oriented = run(
        FieldSign(
            total_field=fit.total_field,
            first_magnitude=ready.first_magnitude,
            mask=refined.mask,
            sign=sign,
            **b0,
        )
    )
    facts['sign'] = oriented.info
    local = run(
        BackgroundRemoval(
            total_field=oriented.total_field,
            mask=refined.mask,
            weights=fit.weights,
            method=PRESET.method('background'),
            params=PRESET.params['background'],
            **b0,
        )
    )
    chi = run(
        DipoleInversion(
            local_field=local.local_field,
            mask=local.mask,
            weights=fit.weights,
            method=PRESET.method('inversion'),
            params=PRESET.params['inversion'],
            strategy=PRESET.method('strategy'),
            field_noise=fit.field_noise,
            te=te,
            f0=series.f0,
            magnitude=ready.magnitude,
            **b0,
        )
    ).chimap
    found = io.load_mask(local.mask)
    return Result(io.load_volume(chi).data * found, found, facts, chi)
