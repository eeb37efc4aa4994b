"""One image as dcm2niix wrote it: which part, which echo, and whether it can be used."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from qsmflow.bids.checks_files import ImageFacts
from qsmflow.bids.checks_metadata import as_number

#: Words of ``ImageType`` for each part. Philips writes R and I; dcm2niix adds the long ones.
_PART_WORDS = {
    'mag': {'M', 'MAGNITUDE', 'M_FFE'},
    'phase': {'P', 'PHASE', 'PHASE MAP', 'P_FFE'},
    'real': {'R', 'REAL', 'R_FFE'},
    'imag': {'I', 'IMAGINARY', 'I_FFE'},
}
#: Ends of file names that dcm2niix gives to a part, see its FILENAMING.md.
_PART_ENDS = {'ph': 'phase', 'real': 'real', 'imaginary': 'imag'}
#: Ends of file names of images that are no scan of their own, and what they are.
_OTHER_ENDS = (
    (r'fieldmaphz', 'a field map computed by the scanner'),
    (r'ROI\d+', 'an overlay'),
    (r'Tilt', 'resampled by dcm2niix for a tilted gantry'),
    (r'ADC', 'a map computed by the scanner'),
    (r'MoCo', 'resampled by the scanner for motion'),
    (r'(Raw|PS)', 'not an image'),
)
#: Words of ``ImageType`` of images that a scanner computed from others.
_COMPUTED = {
    *('SWI', 'SWIM', 'SW', 'MNIP', 'MINIP', 'MIN IP', 'MIP', 'MPR', 'MPR_RANGE', 'ADC', 'FA'),
    *('PROJECTION IMAGE', 'REFORMATTED', 'CSA RESAMPLED', 'SUBTRACTION', 'T2 STAR MAP'),
    *('T2_STAR MAP', 'T2STAR MAP', 'R2_STAR MAP', 'R2STAR MAP', 'T2 MAP', 'T1 MAP', 'B0 MAP'),
    *('FIELD_MAP', 'QSM', 'QMAP'),
}
_LOCALIZER = re.compile(r'(?<![a-z])(locali[sz]er|scout|survey|aahead|3-?plane|loc)(?![a-z])')
_FIELD_MAP = re.compile(r'field.?map|\bb0.?map|\bfmap\b|gre_field')
#: Sequences of T1-weighted volumes, as protocols and sequences are called.
_T1W = re.compile(
    r'mp-?rage|t1w|t1_mpr|\bbravo\b|ir-?f?spgr|fspgr.*t1|(3d|sag|ax|tra|cor)[ _-]*t1'
    r'|t1[ _-]*(3d|sag|ax|tra|cor|tfe|mpr|vol)|tfl3d'
)
_OF_SWI = {'SWI', 'SW'}
MIN_SLICES = 16  #: images with fewer voxels along an axis are no volume


@dataclass(frozen=True, eq=False)
class Converted:
    """An image written by dcm2niix, with its sidecar and what its file name says.

    Attributes
    ----------
    path : Path
        NIfTI file; the sidecar lies beside it.
    study, series : str
        Instance UIDs of study and series; they are in no file that is kept.
    number : int
        Series number.
    ends : tuple of str
        What dcm2niix added to the file name, such as ``('e2', 'ph')``.
    metadata : mapping
        Content of the sidecar.
    facts : ImageFacts
        What was measured in the image.
    """

    path: Path
    study: str
    series: str
    number: int
    ends: tuple[str, ...]
    metadata: Mapping[str, Any] = field(repr=False)
    facts: ImageFacts = field(repr=False)

    @property
    def kinds(self) -> set[str]:
        """Words of ``ImageType``, in capitals."""
        value = self.metadata.get('ImageType') or []
        words = value if isinstance(value, list) else str(value).split('\\')
        return {str(word).strip().upper() for word in words}

    @property
    def part(self) -> str:
        """Part of the complex image: ``'mag'``, ``'phase'``, ``'real'`` or ``'imag'``.

        dcm2niix reads the vendor's own fields and says so in the file name. ``ImageType`` alone
        is asked second: in enhanced DICOM it can be that of another frame.
        """
        for end, part in _PART_ENDS.items():
            if any(re.fullmatch(end + '[a-z]?', own) for own in self.ends):
                return part
        found = [part for part, words in _PART_WORDS.items() if words & self.kinds]
        return found[0] if len(found) == 1 else 'mag'

    @property
    def te(self) -> float | None:
        """Echo time, in s; None where the sidecar has none that is above 0."""
        value = as_number(self.metadata.get('EchoTime'))
        return value if value is not None and math.isfinite(value) and value > 0 else None

    @property
    def echo(self) -> int | None:
        """Echo number of the DICOM header; None where there is none.

        That of the file name is not asked: without a number in the header, dcm2niix makes one
        from the echo time.
        """
        value = as_number(self.metadata.get('EchoNumber'))
        known = value is not None and value >= 1 and float(value).is_integer()
        return int(value) if known else None

    @property
    def seconds(self) -> float | None:
        """Start of the acquisition, in s since midnight."""
        parts = str(self.metadata.get('AcquisitionTime', '')).split(':')
        try:
            hours, minutes, seconds = (float(part) for part in parts)
        except ValueError:
            return None
        return 3600 * hours + 60 * minutes + seconds

    @property
    def protocol(self) -> str:
        """Name of the protocol, else of the series."""
        names = (self.metadata.get('ProtocolName'), self.metadata.get('SeriesDescription'))
        return next((str(name).strip() for name in names if name), '')

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the image."""
        return self.facts.shape

    @property
    def words(self) -> str:
        """Every name that says what the image is, in small letters."""
        keys = ('SeriesDescription', 'ProtocolName', 'SequenceName', 'PulseSequenceName')
        keys += ('PulseSequenceDetails',)
        return ' '.join(str(self.metadata.get(key, '')) for key in keys).lower()

    @property
    def guess(self) -> tuple[str, str]:
        """What dcm2niix takes the image for: folder and end of its name in BIDS."""
        value = self.metadata.get('BidsGuess')
        if isinstance(value, list) and len(value) == 2:
            return str(value[0]), str(value[1])
        return '', ''

    def on_grid_of(self, other: 'Converted') -> bool:
        """Tell whether two images have the same voxels."""
        return self.shape[:3] == other.shape[:3] and bool(
            np.allclose(self.facts.affine, other.facts.affine, atol=1e-3)
        )

    def __str__(self) -> str:
        ends = ''.join(f'_{end}' for end in self.ends)
        return f'series {self.number} ({self.protocol or "without a name"}){ends}'


def merged_parts(image: Converted) -> bool:
    """Tell whether magnitude and phase are, or may be, volumes of one image."""
    if any(end.startswith('phMag') for end in image.ends):
        return True
    both = all(_PART_WORDS[part] & image.kinds for part in ('mag', 'phase'))
    return image.facts.n_volumes > 1 and both


def unusable(image: Converted) -> str:
    """Say why an image is no part of a gradient echo or T1w volume.

    Returns
    -------
    str
        Reason; empty for an image that may be used.
    """
    meta, (folder, _) = image.metadata, image.guess
    for pattern, reason in _OTHER_ENDS:
        if any(re.fullmatch(pattern + '[a-z]?', end) for end in image.ends):
            return reason
    if folder == 'discard' or _LOCALIZER.search(image.words):
        return 'a localizer'
    computed = image.kinds & _COMPUTED
    # Some versions mark the phase of an SWI scan like the image computed from it.
    if computed - (_OF_SWI if image.part != 'mag' else set()):
        return f'computed by the scanner from other images ({", ".join(sorted(computed))})'
    sequence = set(re.split(r'[\\/]', str(meta.get('ScanningSequence', ''))))
    if 'EP' in sequence or folder in ('func', 'dwi', 'perf'):
        return 'echo-planar imaging, diffusion or perfusion'
    if 'SE' in sequence:
        return 'a spin echo'
    if len(image.shape) < 3 or min(image.shape[:3]) < MIN_SLICES:
        return f'no volume: {" x ".join(map(str, image.shape))} voxels'
    return ''


def single_coil(image: Converted) -> bool:
    """Tell whether an image is that of one coil of an array."""
    return any(re.fullmatch(r'c[A-Z0-9].*', end) for end in image.ends)


def is_t1w(image: Converted) -> bool:
    """Tell whether a magnitude image is a T1-weighted volume, by names and dcm2niix's guess."""
    if str(image.metadata.get('MRAcquisitionType', '3D')).upper() != '3D':
        return False
    if re.search(r'mp2rage|\binv-?[12]\b', image.words):
        return False
    return image.guess[1].endswith('_T1w') or bool(_T1W.search(image.words))


def is_field_map(image: Converted) -> bool:
    """Tell whether an image is of a two-dimensional scan for a field map."""
    flat = str(image.metadata.get('MRAcquisitionType', '')).upper() == '2D'
    return flat and (image.guess[0] == 'fmap' or bool(_FIELD_MAP.search(image.words)))
