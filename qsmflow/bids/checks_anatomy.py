"""Checks of the images beside a series: an anatomical image without its head, masks of lesions."""

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from qsmflow.bids.checks_files import ImageFacts, inspect_image
from qsmflow.bids.findings import Finding, stopping
from qsmflow.bids.names import IMAGE_EXTENSIONS, parse_name
from qsmflow.bids.series import GRESeries
from qsmflow.io import load_volume, mask_values

if TYPE_CHECKING:
    from qsmflow.bids.companions import NamedImage

#: Share of zeros that a stripped image has at least, and the volume of its rest, in ml.
STRIPPED_ZEROS, STRIPPED_ML = 1 / 3, (50.0, 2200.0)
#: Share of zeros, in the half that holds the face and in the other, that defacing leaves.
DEFACED_ZEROS, REST_ZEROS = 0.04, 0.01


def check_anatomical(fact: ImageFacts, name: str) -> list[Finding]:
    """Check whether a T1w image shows a brain without its head, or no face (``D83``).

    Masking leaves exact zeros. Where the scanner itself sets the air to zero, a face that was
    removed cannot be told from air.

    Parameters
    ----------
    fact : ImageFacts
        What was measured in the image.
    name : str
        How messages name it.
    """
    voxel = math.prod(np.linalg.norm(fact.affine[:3, :3], axis=0))
    rest = (1 - fact.zero_fraction) * math.prod(fact.shape[:3]) * float(voxel) / 1000
    evidence = {'zero_fraction': round(fact.zero_fraction, 3), 'rest_ml': round(rest)}
    if fact.zero_fraction > STRIPPED_ZEROS and STRIPPED_ML[0] <= rest <= STRIPPED_ML[1]:
        message = 'the T1w image shows the brain without its head'
        remedy = 'It is used; give the original image for a better mask and registration.'
        return [Finding('D83', 'WARN', message, name, evidence, remedy)]
    face, other = _zeros_by_half(fact)
    if face > DEFACED_ZEROS and other < REST_ZEROS:
        evidence |= {'zeros_in_front': round(face, 3), 'zeros_behind': round(other, 3)}
        message = 'the face was removed from the T1w image'
        remedy = 'Look at the figure of the registration.'
        return [Finding('D83', 'WARN', message, name, evidence, remedy)]
    return []


def _zeros_by_half(fact: ImageFacts) -> tuple[float, float]:
    """Return the share of blocks that are zero in the front lower quarter, and behind."""
    if fact.small is None or min(fact.small.shape) < 8:
        return 0.0, 0.0
    zero = fact.small == 0
    turn = fact.affine[:3, :3]
    for world, keep in ((1, 'high'), (2, 'low')):
        axis = int(np.argmax(np.abs(turn[world])))
        middle = zero.shape[axis] // 2
        upper = (turn[world, axis] > 0) == (keep == 'high')
        front = [slice(None)] * 3
        front[axis] = slice(middle, None) if upper else slice(0, middle)
        if world == 1:
            back = [slice(None)] * 3
            back[axis] = slice(0, middle) if upper else slice(middle, None)
            other = float(zero[tuple(back)].mean())
        zero = zero[tuple(front)]
    return float(zero.mean()), other


def add_lesion(
    series: GRESeries, images: Sequence['NamedImage'], derivatives: Mapping[str, str | os.PathLike]
) -> GRESeries:
    """Give a series the mask of a lesion, if there is one (``D85``).

    Looked for are ``*_label-lesion_mask``, ``*_desc-lesion_mask`` and ``*_label-lesion_roi``, in
    the dataset and in its derivatives, of the same session or without one. It must lie in the
    coordinates of the scanner: on the grid of the series or of a T1w image.

    Parameters
    ----------
    series : GRESeries
        The series.
    images : sequence of NamedImage
        Images of the dataset.
    derivatives : mapping
        Names and roots of derivative datasets.

    Returns
    -------
    GRESeries
        With ``lesion``, and a finding that names it, or says why it is not used.
    """
    found = [(image.path, image.relative) for image in images if _is_lesion_of(image, series)]
    for dataset, root in derivatives.items():
        for path in lesions_of(root, series):
            found.append((str(path), f'{dataset}:{path.relative_to(root).as_posix()}'))
    if not found:
        return series
    path, name = found[0]
    finding = _check_lesion(path, name)
    lesion = os.path.abspath(path) if finding.level == 'FIX' else None
    return dataclasses.replace(series, lesion=lesion, findings=(*series.findings, finding))


def lesions_of(root: str | os.PathLike, series: GRESeries) -> list[Path]:
    """Return the masks of lesions that a derivative dataset holds for a series."""
    folder = Path(root) / f'sub-{series.subject}'
    found = []
    for path in sorted(folder.rglob('*lesion*.nii*')) if folder.is_dir() else ():
        *parts, extension = parse_name(path.name)
        if extension in IMAGE_EXTENSIONS and _is_lesion_of(_Named(*parts), series):
            found.append(path)
    return found


@dataclasses.dataclass(frozen=True)
class _Named:
    """A name taken apart."""

    entities: dict[str, str]
    suffix: str


def _is_lesion_of(image, series: GRESeries) -> bool:
    entities = image.entities
    lesion = 'lesion' in (entities.get('label'), entities.get('desc'))
    return (
        lesion
        and image.suffix in ('mask', 'roi')
        and entities.get('sub') == series.subject
        and entities.get('ses') in (None, series.session)
        and entities.get('space', 'T1w') in ('T1w', 'orig')
    )


def _check_lesion(path: str, name: str) -> Finding:
    facts, findings = inspect_image(path, name)
    problem = next(iter(stopping(findings)), None)
    message, evidence = '', {}
    if problem is not None:
        message, evidence = problem.message, {'code': problem.code}
    elif len(facts.shape) != 3 or (facts.sform_code or facts.qform_code) not in (1, 2):
        message = "is not one volume in the scanner's coordinates"
        evidence = {'shape': list(facts.shape), 'form_code': facts.sform_code or facts.qform_code}
    else:
        volume = load_volume(path)
        mask, kind = mask_values(volume.data)
        evidence = {'volume_ml': round(float(mask.sum() * math.prod(volume.voxel_size) / 1000), 2)}
        if kind == 'image' or not mask.any():
            message = 'is empty or no mask'
    if message:
        remedy = 'Registration does not know of the lesion: look at its figure.'
        return Finding('D85', 'WARN', f'lesion mask not used: {message}', name, evidence, remedy)
    message = 'registrations leave the lesion out of account'
    return Finding('D85', 'FIX', message, name, evidence)
