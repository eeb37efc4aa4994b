"""Checks of the grid: shapes, affines, voxel size and the direction of the main field."""

import itertools
import math
from collections.abc import Sequence

import numpy as np

from qsmflow.bids.checks_files import ImageFacts
from qsmflow.bids.findings import Finding
from qsmflow.io import GRID_TOLERANCE, b0_direction

#: Shift of a corner, in mm, up to which two affines differ by rounding alone.
ROUNDING = 1e-4
VOXEL_RANGE = (0.1, 10.0)  #: edge lengths that a head scan can have, in mm
MIN_SLICES = 16  #: below this a volume does not hold the dipole's field
MAX_SHEAR = 0.5  #: angle between axes that may differ from 90 degrees by this much, in degrees
#: Ratio of two edges, and an edge in mm, beyond which values are known to be too low.
MAX_RATIO, MAX_EDGE = 4.0, 3.0
OBLIQUE = 0.5  #: tilt of the grid against the main field that is worth telling, in degrees
_CODES = {2: 'another scan', 3: 'Talairach space', 4: 'MNI space', 5: 'a template'}


def corner_shift(shape: Sequence[int], first: np.ndarray, second: np.ndarray) -> float:
    """Return how far apart two affines put a corner of the volume, at most, in mm.

    Parameters
    ----------
    shape : sequence of int
        Spatial shape.
    first, second : ndarray, shape (4, 4)
        Voxel to scanner coordinates.

    Returns
    -------
    float
        Largest shift along one scanner axis, in mm; infinite where an affine is not finite.
    """
    corners = np.array(list(itertools.product((0, 1), repeat=3)), float)
    corners = np.hstack([corners * (np.array(shape[:3]) - 1), np.ones((8, 1))])
    with np.errstate(invalid='ignore'):
        shift = float(np.abs(corners @ (np.asarray(first) - np.asarray(second)).T).max())
    # Not a number would be within every tolerance.
    return math.inf if math.isnan(shift) else shift


def check_same_grid(facts: Sequence[ImageFacts], names: Sequence[str]) -> list[Finding]:
    """Check that all images of a series share shape (``C64``) and affine (``C65``).

    Parameters
    ----------
    facts : sequence of ImageFacts
        Images; the first is the reference.
    names : sequence of str
        How messages name them.
    """
    findings = []
    reference, first = facts[0], names[0]
    shifts = {}
    for fact, name in zip(facts[1:], names[1:], strict=True):
        if fact.shape[:3] != reference.shape[:3]:
            message = f'has another shape than {first}; probably a DICOM file is missing in one'
            evidence = {'shape': list(fact.shape[:3]), 'expected': list(reference.shape[:3])}
            remedy = 'Convert the complete DICOM series again.'
            findings.append(Finding('C64', 'ERROR', message, name, evidence, remedy))
        else:
            shifts[name] = corner_shift(fact.shape, reference.affine, fact.affine)
    for name, shift in shifts.items():
        if shift > GRID_TOLERANCE:
            message = f'lies elsewhere than {first}'
            evidence = {'corner_shift_mm': shift, 'tolerance_mm': GRID_TOLERANCE}
            remedy = (
                'All echoes and parts of one scan share one affine: check that the files belong '
                'together, and convert them again without realignment.'
            )
            findings.append(Finding('C65', 'ERROR', message, name, evidence, remedy))
    small = {n: s for n, s in shifts.items() if ROUNDING < s <= GRID_TOLERANCE}
    if small:
        name, shift = max(small.items(), key=lambda item: item[1])
        message = f'the affine differs slightly from that of {first}, whose affine is used'
        evidence = {'corner_shift_mm': shift, 'files': len(small)}
        findings.append(Finding('C65', 'FIX', message, name, evidence))
    return findings


def check_header(fact: ImageFacts, name: str, *, b0_given: bool = False) -> list[Finding]:
    """Check the geometry in one header.

    Parameters
    ----------
    fact : ImageFacts
        The reference image of the series.
    name : str
        How messages name it.
    b0_given : bool, optional
        Whether the user gave the direction of the main field.

    Returns
    -------
    list of Finding
        ``B45`` too few slices, ``C66`` disagreeing forms, ``C67`` no scanner coordinates,
        ``C68`` shear, ``C72`` voxel size, ``C73`` coarse or very anisotropic voxels.
    """
    voxel_size = np.linalg.norm(fact.affine[:3, :3], axis=0)
    findings = _check_voxels(voxel_size, name)
    if min(fact.shape[:3]) < MIN_SLICES:
        evidence = {'shape': list(fact.shape[:3]), 'minimum': MIN_SLICES}
        remedy = 'Use a 3-D acquisition: the inversion of the dipole field needs a volume.'
        findings.append(Finding('B45', 'ERROR', 'has too few slices', name, evidence, remedy))
    if any(item.stops for item in findings):
        return findings
    findings += _check_coarse(voxel_size, name)
    findings += _check_codes(fact, name, b0_given)
    findings += _check_shear(fact.affine, name)
    if fact.sform is not None and fact.qform is not None:
        shift = corner_shift(fact.shape, fact.sform, fact.qform)
        angle = _angle_between(fact.sform, fact.qform)
        if shift > 0.1 or angle > 0.1:
            evidence = {'corner_shift_mm': shift, 'angle_deg': angle}
            message = 'sform and qform disagree; the sform is used'
            remedy = 'Check the orientation in the report; convert the scan again if it is wrong.'
            findings.append(Finding('C66', 'WARN', message, name, evidence, remedy))
    return findings


def check_orientation(affine: np.ndarray, name: str, b0_dir: Sequence[float]) -> list[Finding]:
    """Report how the grid lies in the main field.

    Returns
    -------
    list of Finding
        ``C69`` oblique grid, ``C70`` third array axis not along the main field; both INFO, since
        the dipole kernel is rotated instead of the data.
    """
    findings = []
    axis = int(np.argmax(np.abs(b0_dir)))
    angle = float(np.degrees(np.arccos(min(1.0, abs(b0_dir[axis])))))
    direction = [round(float(v), 4) for v in b0_dir]
    if angle > OBLIQUE:
        message = 'oblique grid: the dipole kernel is rotated, the data are not resampled'
        evidence = {'angle_deg': round(angle, 2), 'b0_dir': direction}
        findings.append(Finding('C69', 'INFO', message, name, evidence))
    if axis != 2:
        message = f'the main field lies along array axis {axis}, not along the last'
        evidence = {'b0_dir': direction, 'axes': _axis_codes(affine)}
        findings.append(Finding('C70', 'INFO', message, name, evidence))
    return findings


def parse_b0_dir(value: str | Sequence[float] | None, affine: np.ndarray) -> tuple[float, ...]:
    """Return the direction of the main field, in array axes.

    Parameters
    ----------
    value : {'affine', 'x', 'y', 'z'}, sequence of 3 floats, or None
        An array axis, or a vector in array axes; ``'affine'`` and None take it from the affine.
    affine : ndarray, shape (4, 4)
        Voxel to scanner coordinates.

    Returns
    -------
    tuple of float
        Unit vector.

    Raises
    ------
    ValueError
        If the value is none of these.

    Examples
    --------
    >>> parse_b0_dir('y', np.eye(4))
    (0.0, 1.0, 0.0)
    """
    if value is None or (isinstance(value, str) and value == 'affine'):
        return b0_direction(affine)
    if isinstance(value, str):
        if value not in ('x', 'y', 'z'):
            raise ValueError(f"b0_dir must be 'affine', 'x', 'y', 'z' or a vector; got {value!r}")
        return tuple(float(axis == value) for axis in 'xyz')
    vector = np.asarray(value, float)
    length = float(np.linalg.norm(vector))
    if vector.shape != (3,) or not np.isfinite(length) or length == 0:
        raise ValueError(f'b0_dir must be a vector of three numbers, not all zero; got {value!r}')
    return tuple(float(v) for v in vector / length)


def _check_voxels(voxel_size: np.ndarray, name: str) -> list[Finding]:
    low, high = VOXEL_RANGE
    if np.all(np.isfinite(voxel_size)) and low <= voxel_size.min() <= voxel_size.max() <= high:
        return []
    evidence = {'voxel_size_mm': [float(v) for v in voxel_size], 'allowed_mm': [low, high]}
    message = 'the voxel size is none that a head scan has; perhaps it is not in mm'
    remedy = 'Write affine and pixdim in mm (xyzt_units = 2 for mm).'
    return [Finding('C72', 'ERROR', message, name, evidence, remedy)]


def _check_coarse(voxel_size: np.ndarray, name: str) -> list[Finding]:
    ratio, edge = float(voxel_size.max() / voxel_size.min()), float(voxel_size.max())
    if ratio <= MAX_RATIO and edge <= MAX_EDGE + 1e-3:
        return []
    evidence = {
        'voxel_size_mm': [round(float(v), 4) for v in voxel_size],
        'ratio': round(ratio, 2),
        'limits': f'{MAX_RATIO:g}:1, {MAX_EDGE:g} mm',
    }
    message = 'voxels are so long or so large that values of the nuclei come out too low'
    remedy = 'Compare such scans with their like only.'
    return [Finding('C73', 'WARN', message, name, evidence, remedy)]


def _check_codes(fact: ImageFacts, name: str, b0_given: bool) -> list[Finding]:
    code = fact.sform_code or fact.qform_code
    evidence = {'sform_code': fact.sform_code, 'qform_code': fact.qform_code}
    remedy = 'Convert the scan again, or give the direction of the main field with --b0-dir.'
    if code == 1 or (code == 2 and b0_given):
        return []
    if code == 2:
        message = "coordinates are marked as aligned to another scan, and taken as the scanner's"
        return [Finding('C67', 'WARN', message, name, evidence, f'If they are not: {remedy}')]
    if code == 0:
        message = 'has no scanner coordinates (both form codes are 0)'
    else:
        message = f'has the coordinates of {_CODES.get(code, "an unknown space")}'
    if b0_given:
        message += '; left and right are not sure'
        remedy = 'Check left and right in the figures, or convert the scan again.'
        return [Finding('C67', 'WARN', message, name, evidence, remedy)]
    message += ', so the direction of the main field is unknown'
    return [Finding('C67', 'ERROR', message, name, evidence, remedy)]


def _check_shear(affine: np.ndarray, name: str) -> list[Finding]:
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    dots = np.abs(axes.T @ axes)[np.triu_indices(3, 1)]
    angle = float(np.degrees(np.arcsin(min(1.0, dots.max()))))
    if angle < 0.06:  # a dot product of 1e-3, what rounding of stored quaternions can give
        return []
    evidence = {'shear_deg': angle, 'limit_deg': MAX_SHEAR}
    if angle <= MAX_SHEAR:
        message = 'axes are not quite at right angles; the shear is ignored'
        return [Finding('C68', 'FIX', message, name, evidence)]
    remedy = 'Convert the scan again, without any registration or gantry-tilt correction.'
    return [Finding('C68', 'ERROR', 'axes are not at right angles', name, evidence, remedy)]


def _angle_between(first: np.ndarray, second: np.ndarray) -> float:
    """Return the angle of the rotation between two affines, in degrees."""
    unit = [a[:3, :3] / np.linalg.norm(a[:3, :3], axis=0) for a in (first, second)]
    cosine = (np.trace(unit[0].T @ unit[1]) - 1) / 2
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))


def _axis_codes(affine: np.ndarray) -> str:
    from nibabel import aff2axcodes

    return ''.join(code or '?' for code in aff2axcodes(affine))
