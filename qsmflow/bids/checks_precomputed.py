"""Checks of what comes from derivative datasets: whole files, one grid, one head.

What does not pass is left out with a WARN finding, and our own step takes its place.
"""

import dataclasses
import gzip
from pathlib import Path

import nibabel as nib
import numpy as np

from qsmflow.bids.findings import Finding
from qsmflow.bids.precomputed import Precomputed, Segmentation
from qsmflow.io import UNREADABLE, Volume, same_grid

#: Part of the labelled voxels that must lie in the brain mask (of a generous mask, nearly all).
MIN_INSIDE = 0.85
#: Part of the labelled voxels that must lie in the field of view, where there is no mask.
MIN_IN_VIEW = 0.95
#: Labels of the cortical parcellation begin here.
FIRST_PARCEL = 1000
_HDF5 = b'\x89HDF'


def verified(
    found: Precomputed, raw_t1w: str | None
) -> tuple[Precomputed | None, tuple[Finding, ...]]:
    """Return what can be used, and what is wrong with the rest.

    Parameters
    ----------
    found : Precomputed
        As chosen by name.
    raw_t1w : str or None
        Raw T1w image, which is used where ``found`` has none.

    Returns
    -------
    precomputed : Precomputed or None
        None if nothing can be used.
    findings : tuple of Finding
        ``DERGRID`` and ``DERANAT``, all of level WARN.
    """
    findings: list[Finding] = []
    image = None
    if found.t1w:
        image, problem = _load(found.t1w, found.t1w_uri)
        if problem:
            findings.append(problem)
            found = Precomputed(segmentations=found.segmentations)
    if image is None and raw_t1w:
        image, _ = _load(raw_t1w, raw_t1w)
    if image is None:
        return None, tuple(findings)
    mask = None
    if found.mask:
        mask, problem = _check_mask(found, image)
        if problem:
            findings.append(problem)
            found = dataclasses.replace(found, mask=None, mask_uri=None)
    if found.to_template:
        problem = _check_transforms(found)
        if problem:
            findings.append(problem)
            found = dataclasses.replace(
                found, to_template=None, from_template=None, transform_uris=()
            )
    kept = []
    for one in found.segmentations:
        problem, parcellated = _check_segmentation(one, image, mask)
        findings += [problem] if problem else []
        if one.table == 'synthseg' and parcellated:
            one = dataclasses.replace(one, name='synthsegparc', table='synthsegparc')
        kept += [] if problem else [one]
    found = dataclasses.replace(found, segmentations=tuple(kept))
    empty = dataclasses.replace(found, pipeline='') == Precomputed()
    return (None if empty else found), tuple(findings)


def _load(path: str, name: str) -> tuple[Volume | None, Finding | None]:
    """Read a 3-D image to its end, with whole numbers as they are."""
    try:
        image = nib.load(path)
        data = np.asanyarray(image.dataobj)
        if path.endswith('.gz'):
            _read_to_end(path)
    except UNREADABLE as error:
        message = f'cannot be used: {type(error).__name__}: {error}'
        remedy = 'Copy the file again, or make it again with its pipeline.'
        return None, Finding('DERANAT', 'WARN', message, name, {}, remedy)
    while data.ndim > 3 and data.shape[-1] == 1:
        data = data[..., 0]
    if data.ndim != 3:
        evidence = {'shape': list(data.shape)}
        remedy = 'Give the dataset of another run of its pipeline.'
        message = 'cannot be used: it is no single volume'
        return None, Finding('DERANAT', 'WARN', message, name, evidence, remedy)
    return Volume(data, np.array(image.affine, float), path), None


def _read_to_end(path: str) -> None:
    """Read a compressed file to its checksum, which nibabel does not."""
    with gzip.open(path) as stream:
        while stream.read(1 << 22):
            pass


def _check_mask(found: Precomputed, image: Volume) -> tuple[Volume | None, Finding | None]:
    mask, problem = _load(found.mask, found.mask_uri)
    if problem:
        return None, problem
    remedy = 'The brain is extracted here instead; give a mask made for this image to use it.'
    if not same_grid(image, mask):
        evidence = {'shape': list(mask.shape), 'expected': list(image.shape)}
        message = 'the mask does not lie on the grid of the T1w image in use'
        return None, Finding('DERGRID', 'WARN', message, found.mask_uri, evidence, remedy)
    if not (mask.data > 0).any():
        message = 'the mask is empty'
        return None, Finding('DERGRID', 'WARN', message, found.mask_uri, {}, remedy)
    return mask, None


def _check_transforms(found: Precomputed) -> Finding | None:
    """Look for files that are no transforms; whether they fit is judged by their effect."""
    for path, name in zip(
        (found.to_template, found.from_template), found.transform_uris, strict=True
    ):
        try:
            with Path(path).open('rb') as stream:
                start = stream.read(len(_HDF5))
        except OSError as error:
            start, reason = b'', error.strerror or str(error)
        else:
            reason = 'it is no ITK transform in HDF5'
        if start != _HDF5:
            message = f'the transform cannot be used: {reason}'
            remedy = 'The T1w image is registered here instead; copy the file again to use it.'
            return Finding('DERANAT', 'WARN', message, name, {}, remedy)
    return None


def _check_segmentation(
    one: Segmentation, image: Volume, mask: Volume | None
) -> tuple[Finding | None, bool]:
    """Check that a segmentation shows the same head in the same place as the T1w image.

    The second value tells whether it has labels of the cortical parcellation.
    """
    labels, problem = _load(one.path, one.uri)
    if problem:
        return problem, False
    voxels = np.argwhere(labels.data > 0)
    remedy = 'Give the segmentation of this T1w image, or leave its dataset out.'
    if not len(voxels):
        message = 'the segmentation is empty'
        return Finding('DERSEG', 'WARN', message, one.uri, {}, remedy), False
    inside, limit, what = _share_inside(voxels, labels.affine, image, mask)
    if inside >= limit:
        return None, bool(labels.data.max() >= FIRST_PARCEL)
    message = f'the segmentation is not used: too little of it lies in the {what}'
    evidence = {'share': round(inside, 3), 'limit': limit}
    return Finding('DERGRID', 'WARN', message, one.uri, evidence, remedy), False


def _share_inside(
    voxels: np.ndarray, affine: np.ndarray, image: Volume, mask: Volume | None
) -> tuple[float, float, str]:
    """Return the share of labelled voxels in the brain mask, or in the field of view."""
    step = max(1, len(voxels) // 200_000)  # enough to tell heads apart
    points = nib.affines.apply_affine(
        np.linalg.inv(image.affine) @ affine, voxels[::step].astype(float)
    )
    index = np.rint(points).astype(int)
    within = ((index >= 0) & (index < np.array(image.shape))).all(axis=1)
    if mask is None:
        return float(within.mean()), MIN_IN_VIEW, 'field of view of the T1w image'
    hit = np.zeros(len(index), bool)
    hit[within] = mask.data[tuple(index[within].T)] > 0
    return float(hit.mean()), MIN_INSIDE, 'brain mask of the T1w image'
