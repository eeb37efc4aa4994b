"""The shortest way from a checked series to a susceptibility map, in memory.

It reads the images as the graph does (`PhasePreparation`, given masks), so that a defect which was
fixed can be compared with the clean dataset.
"""

from dataclasses import asdict

import numpy as np

from qsmflow import io
from qsmflow.algorithms import get_method
from qsmflow.algorithms.mask_checks import repair_mask
from qsmflow.algorithms.masking import robust_mask
from qsmflow.interfaces.phase import PhasePreparation


def read_series(series) -> tuple[np.ndarray, io.Volume]:
    """Return magnitude and phase (rad) of a series, as the graph reads them."""
    prepare = PhasePreparation(
        scaling=asdict(series.scaling) if series.scaling else {},
        echoes=list(series.volumes) if series.volumes else [],
        magnitude_files=list(series.magnitude),
        phase_files=list(series.phase),
        real_files=list(series.real),
        imaginary_files=list(series.imag),
    )
    return prepare._read()


def mask_of(series, magnitude, like) -> np.ndarray:
    """Return the mask that a series has, mended as the graph does, or one by a threshold."""
    if series.mask is None:
        return robust_mask(magnitude[..., 0])
    return repair_mask(io.load_given_mask(series.mask, like), like.voxel_size)[0]


def susceptibility(series) -> np.ndarray:
    """Return a map, in ppm, by transforms alone: Laplacian unwrapping, SHARP, TKD."""
    magnitude, phase = read_series(series)
    mask = mask_of(series, magnitude, phase)
    data = (magnitude, mask, phase.voxel_size)
    te = series.te
    unwrapped = get_method('unwrapping', 'laplacian')(phase.data, *data, te=te)
    field = get_method('field', 'averaged')(unwrapped, *data, te=te, f0=series.f0).total_field
    volume = (mask, phase.voxel_size)
    local, inner = get_method('background', 'sharp')(
        field, *volume, b0_dir=series.b0_dir, radius=3.0
    )
    return get_method('inversion', 'tkd')(local, inner, phase.voxel_size, b0_dir=series.b0_dir)
