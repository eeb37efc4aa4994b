"""Checks of one image file: whether it is whole, whether it is an image, and what it holds.

Every file is read once, to its very end: a header-only check finds neither a truncated file nor
one with a wrong checksum. The numbers that later stages need are measured in the same pass.
"""

import gzip
import io
import math
import os
import re
import zlib
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from qsmflow.bids.findings import Finding, unreadable
from qsmflow.io import NOT_AN_IMAGE, UNREADABLE

_COPY_AGAIN = 'Copy or convert the file again from its source.'
#: Longest edge of the small copy that is kept of an image, in blocks.
SMALL = 64
#: A value that marks the background: share of voxels that have it, and distance to all others
#: relative to their range.
_MANY, _APART = 0.01, 0.1
_ANNEX = re.compile(rb'^(\.\./)*\.?(git/annex|/annex)/objects|^version https://git-lfs')


@dataclass(frozen=True, eq=False)
class ImageFacts:
    """What was measured in one image file.

    Attributes
    ----------
    path : str
        Absolute path.
    shape : tuple of int
        Shape on disk, without trailing axes of length one.
    affine : ndarray, shape (4, 4)
        Voxel to scanner coordinates, mm: sform, else qform.
    sform, qform : ndarray or None
        The two affines of the header, where their code is above 0.
    sform_code, qform_code : int
        NIfTI codes (1 scanner, 2 aligned, 3 Talairach, 4 MNI, 0 unknown).
    integer : bool
        Whether voxels are stored as integers.
    slope, intercept : float
        Scaling as it stands on disk (0 and NaN mean 1 and 0).
    minimum, maximum : float
        Range of the finite voxels, scaling applied.
    nonfinite : int
        Number of NaN and infinite voxels.
    zero_fraction : float
        Fraction of voxels that are exactly zero.
    constant : tuple of int
        Volumes (0-based) in which all voxels are equal.
    description : str
        The header's free text.
    kind : {'i', 'u', 'f', 'c'}
        NumPy's kind of the stored voxels.
    at_maximum, near_maximum : int
        Voxels of the largest value, and voxels within 2 % below it, over all volumes.
    small : ndarray of float32
        The first volume in blocks of voxels, at most ``SMALL`` along each axis; not finite
        values count as 0.
    flag : float
        Extreme value that many voxels share and that lies apart from all others, as converters
        mark the background; NaN if there is none.
    flagged : int
        Number of voxels that have it.
    inner : tuple of float
        Range of the other voxels; that of all if there is no flag.
    """

    path: str
    shape: tuple[int, ...]
    affine: np.ndarray
    sform: np.ndarray | None
    qform: np.ndarray | None
    sform_code: int
    qform_code: int
    integer: bool
    slope: float
    intercept: float
    minimum: float
    maximum: float
    nonfinite: int
    zero_fraction: float
    constant: tuple[int, ...]
    description: str
    kind: str = 'f'
    at_maximum: int = 0
    near_maximum: int = 0
    small: np.ndarray | None = None
    flag: float = math.nan
    flagged: int = 0
    inner: tuple[float, float] = (math.nan, math.nan)

    @property
    def n_volumes(self) -> int:
        """Number of volumes along the fourth axis."""
        return self.shape[3] if len(self.shape) > 3 else 1


def read_bytes(path: str | os.PathLike, name: str) -> tuple[bytes | None, list[Finding]]:
    """Read a file to its end and verify its compression.

    Parameters
    ----------
    path : path-like
        Image file.
    name : str
        How messages name it.

    Returns
    -------
    content : bytes or None
        Decompressed content; None if the file is damaged.
    findings : list of Finding
        ``C55`` truncated, ``C56`` checksum, ``C57`` not an image, ``C58`` dangling link,
        ``C99`` not readable.
    """
    path = Path(path)
    if path.is_symlink() and not path.exists():
        return None, [_dangling(path, name)]
    try:
        packed = path.read_bytes()
    except OSError as error:
        return None, [unreadable(error, name)]
    if problem := _wrong_kind(packed, path.name, name):
        return None, [problem]
    if not path.name.endswith('.gz'):
        return packed, []
    try:
        return gzip.decompress(packed), []
    except EOFError:
        code, message = 'C55', 'the compressed stream ends early: the file is truncated'
    except gzip.BadGzipFile as error:
        code, message = 'C56', f'the compressed content is damaged: {error}'
    except zlib.error as error:
        code, message = 'C56', f'the compressed content is damaged: {error}'
    return None, [Finding(code, 'ERROR', message, name, {'bytes': len(packed)}, _COPY_AGAIN)]


def inspect_image(path: str | os.PathLike, name: str) -> tuple[ImageFacts | None, list[Finding]]:
    """Read an image completely and measure what the checks of a series need.

    Parameters
    ----------
    path : path-like
        NIfTI file.
    name : str
        How messages name it.

    Returns
    -------
    facts : ImageFacts or None
        None if the file cannot be used.
    findings : list of Finding
        Those of :func:`read_bytes`, and ``B40`` five dimensions, ``C59`` short or long file,
        ``C62`` colour, ``C66`` impossible qform, ``A04`` empty scaling.
    """
    content, findings = read_bytes(path, name)
    if content is None:
        return None, findings
    try:
        image = _image_from(content)
    except NOT_AN_IMAGE as error:
        remedy = 'Convert the scan to NIfTI again.'
        message = f'is not a NIfTI image: {error}'
        evidence = {'bytes': len(content)}
        return None, [*findings, Finding('C57', 'ERROR', message, name, evidence, remedy)]
    if problem := _wrong_voxels(image, len(content), name):
        return None, [*findings, problem]
    facts = _measure(image, content, str(Path(path).absolute()))
    expected = _expected_bytes(image)
    if len(content) > expected:
        evidence = {'expected_bytes': expected, 'bytes': len(content)}
        message = 'is longer than its header says: the header may be wrong'
        findings.append(Finding('C59', 'WARN', message, name, evidence, _COPY_AGAIN))
    if facts.qform is None and facts.qform_code > 0:
        evidence = {'qform_code': facts.qform_code, 'sform_code': facts.sform_code}
        message = 'the qform is no rotation; the sform is used'
        remedy = 'Check the orientation in the report; convert the scan again if it is wrong.'
        findings.append(Finding('C66', 'WARN', message, name, evidence, remedy))
    bad_slope = facts.slope == 0 or not np.isfinite(facts.slope)
    if bad_slope:
        evidence = {'scl_slope': str(facts.slope), 'scl_inter': str(facts.intercept)}
        message = 'the header has no usable scaling; values are taken as they are stored'
        findings.append(Finding('A04', 'FIX', message, name, evidence))
    return facts, findings


def is_complex(path: str | os.PathLike) -> bool:
    """Tell from its header whether an image holds complex voxels; False if it cannot be read."""
    try:
        return nib.load(path).get_data_dtype().kind == 'c'
    except UNREADABLE:
        return False  # what is wrong with the file is told when it is read


def _dangling(path: Path, name: str) -> Finding:
    target = os.readlink(path)
    annexed = 'annex/objects' in target
    remedy = f'Fetch it: datalad get {name}' if annexed else 'Mount or copy the target as well.'
    message = 'is a link whose target is not there'
    return Finding('C58', 'ERROR', message, name, {'target': target}, remedy)


def _wrong_kind(packed: bytes, filename: str, name: str) -> Finding | None:
    """Recognise empty files, pointers of git-annex and git-lfs, and files that are not gzip."""
    if not packed:
        return Finding('C57', 'ERROR', 'is empty', name, {'bytes': 0}, _COPY_AGAIN)
    if len(packed) < 4096 and (_ANNEX.match(packed) or b'annex/objects' in packed):
        message = 'is a text pointer of git-annex or git-lfs, not the image'
        remedy = f'Fetch the content: datalad get {name} (or git lfs pull).'
        return Finding('C57', 'ERROR', message, name, {'bytes': len(packed)}, remedy)
    if filename.endswith('.gz') and packed[:2] != b'\x1f\x8b':
        start = packed[:4].hex()
        kind = 'an uncompressed NIfTI' if packed[344:347] in (b'n+1', b'ni1') else 'not gzip'
        remedy = 'Compress it with gzip, or rename it to .nii if it is an uncompressed NIfTI.'
        message = f'has the extension .gz but is {kind}'
        return Finding('C57', 'ERROR', message, name, {'first_bytes': start}, remedy)
    return None


def _image_from(content: bytes) -> nib.Nifti1Image:
    """Open NIfTI-1 or NIfTI-2 from memory."""
    is_second = content[:4] in (b'\x1c\x02\x00\x00', b'\x00\x00\x02\x1c')
    return (nib.Nifti2Image if is_second else nib.Nifti1Image).from_bytes(content)


def _wrong_voxels(image: nib.Nifti1Image, n_bytes: int, name: str) -> Finding | None:
    """Judge voxel type and length of the file."""
    header = image.header
    dtype = header.get_data_dtype()
    if dtype.kind not in 'iufc':
        message, remedy = (
            'holds colours, not measured values',
            'Use the scan, not a colour map or screenshot.',
        )
        return Finding('C62', 'ERROR', message, name, {'type': str(dtype)}, remedy)
    shape = header.get_data_shape()
    if len(shape) < 3 or min(shape) < 1:
        remedy = 'Convert the whole series into one volume for each echo.'
        evidence = {'shape': list(shape)}
        return Finding('C57', 'ERROR', 'is not a volume', name, evidence, remedy)
    if len(shape) > 4 and any(n > 1 for n in shape[4:]):
        remedy = 'Store one volume for each echo, with a run entity for each repetition.'
        evidence = {'shape': list(shape)}
        message = 'has more than four dimensions'
        return Finding('B40', 'ERROR', message, name, evidence, remedy)
    expected = _expected_bytes(image)
    if n_bytes < expected:
        evidence = {'expected_bytes': expected, 'bytes': n_bytes}
        return Finding('C59', 'ERROR', 'is shorter than its header', name, evidence, _COPY_AGAIN)
    return None


def _expected_bytes(image: nib.Nifti1Image) -> int:
    """Return the length that a file has by its header."""
    # nibabel blanks vox_offset in a loaded header; its array proxy knows it.
    voxels = math.prod(int(n) for n in image.header.get_data_shape())
    return int(image.dataobj.offset) + voxels * image.header.get_data_dtype().itemsize


def _disk_scaling(content: bytes, header: nib.Nifti1Header) -> tuple[float, float]:
    """Return slope and intercept as stored; nibabel blanks them in a loaded header."""
    raw = type(header).from_fileobj(io.BytesIO(content), check=False)
    return float(raw['scl_slope']), float(raw['scl_inter'])


def _measure(image: nib.Nifti1Image, content: bytes, path: str) -> ImageFacts:
    """Measure an image volume by volume, so that scaled values of all echoes never coexist."""
    header = image.header
    shape = list(image.shape)
    while len(shape) > 3 and shape[-1] == 1:
        shape.pop()
    volumes, small = [], None
    for number, volume in enumerate(_volumes(image, shape)):
        values = np.abs(volume) if np.iscomplexobj(volume) else np.asarray(volume)
        small = _blocks(values) if number == 0 else small
        volumes.append(_measure_volume(values))
    low, high = (np.array([volume[i] for volume in volumes], float) for i in (0, 1))
    top = np.fmax.reduce(high)
    flags = {volume[6] for volume in volumes if volume[7]}
    one_flag = len(flags) == 1
    slope, intercept = _disk_scaling(content, header)
    try:
        qform, qcode = header.get_qform(coded=True)
    except ValueError:  # the sform is there, or the image could not have been opened
        qform, qcode = None, header['qform_code']
    sform, scode = header.get_sform(coded=True)
    return ImageFacts(
        path=path,
        shape=tuple(int(n) for n in shape),
        affine=np.array(image.affine, float),
        sform=sform,
        qform=qform,
        sform_code=int(scode),
        qform_code=int(qcode),
        integer=header.get_data_dtype().kind in 'iu',
        slope=slope,
        intercept=intercept,
        minimum=float(np.fmin.reduce(low)),
        maximum=float(top),
        nonfinite=sum(volume[2] for volume in volumes),
        zero_fraction=float(sum(volume[3] for volume in volumes) / np.prod(shape)),
        constant=tuple(i for i in range(len(volumes)) if not low[i] < high[i]),
        description=bytes(header['descrip'].item()).decode('latin-1').strip('\x00 '),
        kind=header.get_data_dtype().kind,
        at_maximum=sum(volume[4] for volume in volumes if volume[1] == top),
        near_maximum=sum(volume[5] for volume in volumes if volume[1] == top),
        small=small,
        flag=flags.pop() if one_flag else math.nan,
        flagged=sum(volume[7] for volume in volumes) if one_flag else 0,
        inner=(
            (min(volume[8] for volume in volumes), max(volume[9] for volume in volumes))
            if one_flag
            else (float(np.fmin.reduce(low)), float(np.fmax.reduce(high)))
        ),
    )


def _blocks(volume: np.ndarray) -> np.ndarray:
    """Average a volume over blocks of voxels; what does not fill a block is left out."""
    steps = [-(-n // SMALL) for n in volume.shape]
    cut = volume[tuple(slice(n - n % step) for n, step in zip(volume.shape, steps, strict=True))]
    if cut.dtype.kind == 'f':
        cut = np.nan_to_num(cut, posinf=0, neginf=0)
    pairs = [m for n, step in zip(cut.shape, steps, strict=True) for m in (n // step, step)]
    return cut.reshape(pairs).mean(axis=(1, 3, 5), dtype=np.float32)


def _volumes(image: nib.Nifti1Image, shape: list[int]):
    """Yield the volumes of an image, with the scaling of the header."""
    if len(shape) == 3:
        yield np.asanyarray(image.dataobj).reshape(shape)
        return
    for index in np.ndindex(*shape[3:]):
        yield image.dataobj[(slice(None),) * 3 + index]


def _measure_volume(volume: np.ndarray) -> tuple:
    """Return what is measured in one volume.

    Smallest and largest finite value (NaN if none); how many voxels are not finite, are 0, have
    the largest value, lie within 2 % below it; then what :func:`_find_flag` gives.
    """
    values = volume
    if volume.dtype.kind == 'f':
        finite = np.isfinite(volume)
        values = volume if finite.all() else volume[finite]
    n_bad = volume.size - values.size
    n_zero = int(np.count_nonzero(values == 0))
    if not values.size:
        return math.nan, math.nan, n_bad, 0, 0, 0, math.nan, 0, math.nan, math.nan
    low, top = values.min(), values.max()
    n_top = int(np.count_nonzero(values == top))
    n_near = int(np.count_nonzero(values > 0.98 * float(top))) - n_top if top > 0 else 0
    counts = n_bad, n_zero, n_top, n_near
    return float(low), float(top), *counts, *_find_flag(values, low, top)


def _find_flag(values: np.ndarray, low, high) -> tuple[float, int, float, float]:
    """Find an extreme that many voxels share and that lies apart: a mark of the background.

    Returns
    -------
    flag : float
        The value; NaN if there is none.
    count : int
        Voxels that have it.
    low, high : float
        Range of the others.
    """
    for extreme in (low, high):
        marked = values == extreme
        count = int(np.count_nonzero(marked))
        if count < _MANY * values.size or count == values.size:
            continue
        rest = values[~marked]
        inner_low, inner_high = float(rest.min()), float(rest.max())
        gap = max(inner_low - float(extreme), float(extreme) - inner_high)
        if gap > _APART * (inner_high - inner_low):
            return float(extreme), count, inner_low, inner_high
    return math.nan, 0, float(low), float(high)
