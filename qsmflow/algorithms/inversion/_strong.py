"""Strong sources, found by an inversion with much regularisation."""

import numpy as np

from qsmflow.algorithms import operators as ops
from qsmflow.algorithms._checks import check_volume
from qsmflow.algorithms.inversion.tv import tv

# Step, in ppm, at which the second part halves the penalty: edges of strong sources alone.
_STEP = 0.1


def split_off(
    local_field,
    mask,
    voxel_size,
    *,
    b0_dir,
    weights,
    strong_weight,
    threshold,
    pad,
    max_iter,
    tol,
    voxel_average=False,
):
    """Return the strong sources, the field without theirs, and the history of the search.

    Parameters
    ----------
    local_field, mask, voxel_size, b0_dir, weights, pad
        As for the inversions.
    strong_weight : float
        Weight of total variation, in ppm; so much that no weak source and no streak is left.
    threshold : float
        Distance from the median over the mask, in ppm, from which a source is strong.
    max_iter : int
        Largest number of iterations of each of two parts, the second with a reweighted penalty;
        of two FFT pairs each.
    tol : float
        Stop when the relative change is below this.
    voxel_average : bool, optional
        Return the mean of the sources over each voxel, as `tv` does.

    Returns
    -------
    sources : ndarray of float32, shape (X, Y, Z)
        Susceptibility of the strong sources relative to the median, in ppm, zero elsewhere.
    rest : ndarray of float32, shape (X, Y, Z)
        Local field less that of the sources, in ppm, zero outside the mask.
    history : list of float
        Relative change in each iteration.
    """
    rest, mask = check_volume(local_field, mask, 'local_field')
    sources, history = tv(
        rest,
        mask,
        voxel_size,
        b0_dir=b0_dir,
        weights=weights,
        reg_weight=strong_weight,
        rim_weight=1.0,
        voxel_average=voxel_average,
        harmonic_weight=None,
        reweight=_STEP,
        refine=0,
        robust=None,
        pad=pad,
        max_iter=max_iter,
        tol=tol,
        return_history=True,
    )
    sources -= np.median(sources[mask])
    sources *= mask
    sources[np.abs(sources) <= threshold] = 0
    if sources.any():
        box = ops.bounding_box(mask)
        rest[box] -= _field_of(sources[box], voxel_size, b0_dir, pad, voxel_average)
        rest *= mask
    return sources, rest, history


def _field_of(sources, voxel_size, b0_dir, pad, voxel_average):
    grid = ops.pad_shape(sources.shape, pad)
    kernel = ops.dipole_kernel(grid, voxel_size, b0_dir=b0_dir)
    if voxel_average:
        kernel /= ops.voxel_response(grid)
    spectrum = ops.rfft(sources, grid)
    spectrum *= kernel
    return ops.irfft(spectrum, grid, sources.shape)
