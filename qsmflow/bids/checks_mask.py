"""Checks of masks that are given: their grid, their values, and what they can hold."""

import dataclasses
import math
import os
from typing import TYPE_CHECKING

import numpy as np

from qsmflow.bids.checks_files import ImageFacts, inspect_image
from qsmflow.bids.checks_geometry import corner_shift
from qsmflow.bids.findings import Finding, stopping
from qsmflow.bids.series import GRESeries
from qsmflow.io import GRID_TOLERANCE, Volume, load_volume, mask_values, resample_mask

if TYPE_CHECKING:
    from qsmflow.bids.query import Collection

#: Volumes of a brain mask that need no second look, in ml.
VOLUME_ML = (50.0, 3000.0)
#: Part of a mask that must lie in the field of view of the series.
MIN_INSIDE = 0.9
_SCANNER = (1, 2)
_GIVE_ANOTHER = 'Give a brain mask in the space of the gradient-echo images, or --mask auto.'


def check_mask(path: str | os.PathLike, name: str, series: GRESeries) -> list[Finding]:
    """Check a mask that shall be used for a series.

    Parameters
    ----------
    path : path-like
        Mask image.
    name : str
        How messages name it.
    series : GRESeries
        Gives the grid.

    Returns
    -------
    list of Finding
        Those of :func:`~qsmflow.bids.checks_files.inspect_image`; ``D77`` another grid (WARN if
        it can be resampled in the coordinates of the scanner, else ERROR); ``D78`` values that
        are no mask; ``D79`` empty (ERROR), or not of the size of a brain (WARN).
    """
    facts, findings = inspect_image(path, name)
    if facts is None or stopping(findings):
        return findings
    # The scaling of a mask means nothing, and a constant image is told as a mask below.
    if len(facts.shape) != 3 or facts.kind == 'c':
        evidence = {'shape': list(facts.shape), 'kind': facts.kind}
        message = 'is no mask: a mask is one volume of real numbers'
        return [Finding('D78', 'ERROR', message, name, evidence, _GIVE_ANOTHER)]
    mask = load_volume(path)
    found, values = _check_values(mask.data, facts, name)
    if stopping(found):
        return found
    if not values.any():
        message = 'the mask is empty'
        return [Finding('D79', 'ERROR', message, name, {'volume_ml': 0.0}, _GIVE_ANOTHER)]
    return [
        *found,
        *_check_grid(Volume(values, mask.affine, mask.path), facts, series, name),
        *_check_size(values, mask, name),
    ]


def _check_values(
    data: np.ndarray, facts: ImageFacts, name: str
) -> tuple[list[Finding], np.ndarray]:
    """Judge the values, and return the mask that they stand for."""
    values, kind = mask_values(data)
    evidence = {'minimum': facts.minimum, 'maximum': facts.maximum}
    bad = int(np.count_nonzero(~np.isfinite(data)))
    if bad:
        evidence['not_finite'] = bad
    if kind == 'image':
        message = 'is no mask: its values are neither two, nor probabilities, nor labels'
        return [Finding('D78', 'ERROR', message, name, evidence, _GIVE_ANOTHER)], values
    texts = {
        'probability': 'holds probabilities: voxels above 0.5 are used',
        'labels': 'holds labels: all that are not 0 are used',
        'binary': 'NaN and infinite voxels count as outside',
    }
    if kind == 'binary' and not bad:
        return [], values
    evidence['voxels'] = int(np.count_nonzero(values))
    return [Finding('D78', 'FIX', texts[kind], name, evidence)], values


def _check_grid(mask: Volume, facts: ImageFacts, series: GRESeries, name: str) -> list[Finding]:
    """Judge the grid: another one is fine as long as the coordinates are those of the scanner."""
    evidence = {'shape': list(facts.shape), 'expected': list(series.shape)}
    like = Volume(np.empty(series.shape, bool), np.array(series.affine))
    if mask.shape == series.shape:
        shift = corner_shift(series.shape, like.affine, mask.affine)
        if shift <= GRID_TOLERANCE:
            return []
        evidence['corner_shift_mm'] = shift
    code = facts.sform_code or facts.qform_code
    voxel = [abs(float(np.linalg.det(v.affine[:3, :3]))) for v in (mask, like)]
    before = np.count_nonzero(mask.data) * voxel[0]
    after = np.count_nonzero(resample_mask(mask, like)) * voxel[1]
    evidence |= {'form_code': code, 'inside': round(after / before, 3)}
    if code in _SCANNER and abs(after / before - 1) <= 1 - MIN_INSIDE:
        message = f'the mask was resampled (nearest neighbour) to the grid of {series.name}'
        remedy = 'Look at the figure of the mask.'
        return [Finding('D77', 'WARN', message, name, evidence, remedy)]
    message = f'the mask does not lie on the grid of {series.name}, nor in its field of view'
    if code not in _SCANNER:
        message = (
            f'the mask does not lie on the grid of {series.name}, and its coordinates are not '
            "the scanner's"
        )
    remedy = 'Resample it to the gradient-echo image (nearest neighbour), or do not give it.'
    return [Finding('D77', 'ERROR', message, name, evidence, remedy)]


def _check_size(values: np.ndarray, mask: Volume, name: str) -> list[Finding]:
    """Judge the volume: it may be an animal or a phantom, so that it is told only."""
    voxel = math.prod(mask.voxel_size)
    volume = float(np.count_nonzero(values) * voxel / 1000)
    view = float(values.size * voxel / 1000)
    # An image smaller than a brain holds something else, and its user knows that.
    if VOLUME_ML[0] <= volume <= VOLUME_ML[1] or view < VOLUME_ML[0]:
        return []
    evidence = {'volume_ml': round(volume, 1), 'expected_ml': list(VOLUME_ML)}
    message = 'the mask does not have the size of a brain'
    remedy = 'Check the mask and its voxel size; for an animal or a phantom, use --atlas none.'
    return [Finding('D79', 'WARN', message, name, evidence, remedy)]


def with_mask(collection: 'Collection', path: str) -> 'Collection':
    """Give every series the mask of the command line, if it can be used.

    Parameters
    ----------
    collection : Collection
        Series that were found.
    path : str
        Mask image.

    Returns
    -------
    Collection
        Series that the mask does not fit are among ``failed``.
    """
    series, failed = [], []
    name = os.path.basename(path)
    for item in collection.series:
        findings = (*item.findings, *check_mask(path, name, item))
        if stopping(findings):
            failed.append((item.name, findings))
        else:
            series.append(dataclasses.replace(item, mask=path, findings=findings))
    return dataclasses.replace(
        collection, series=tuple(series), failed=(*collection.failed, *failed)
    )
