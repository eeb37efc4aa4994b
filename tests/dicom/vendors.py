"""Sidecars and file names as dcm2niix writes them for scanners of each vendor."""

from pathlib import Path

import numpy as np

from qsmflow.bids.checks_files import ImageFacts
from qsmflow.dicom.images import Converted

TE = (0.004, 0.008, 0.012)
PARTS = {'mag': '', 'phase': 'ph', 'real': 'real', 'imag': 'imaginary'}
SIEMENS = {
    'Modality': 'MR', 'Manufacturer': 'Siemens', 'MagneticFieldStrength': 3,
    'MRAcquisitionType': '3D', 'ScanningSequence': 'GR', 'SequenceVariant': 'SP',
    'SeriesDescription': 'qsm_gre', 'ProtocolName': 'qsm_gre', 'RepetitionTime': 0.03,
    'AcquisitionTime': '10:15:00.000000', 'AcquisitionNumber': 1, 'FlipAngle': 15,
    'InstitutionName': 'Secret Hospital', 'StationName': 'SECRETSTATION',
    'DeviceSerialNumber': '987654', 'ProcedureStepDescription': 'Secret',
}  # fmt: skip
VE = SIEMENS | {'SoftwareVersions': 'syngo MR E11', 'SequenceName': '*fl3d3'}
XA = SIEMENS | {'SoftwareVersions': 'syngo MR XA30', 'PulseSequenceName': '*fl3d3'}
GE = SIEMENS | {'Manufacturer': 'GE', 'ScanningSequence': 'RM', 'SoftwareVersions': 'MR29.1'}
PHILIPS = SIEMENS | {
    'Manufacturer': 'Philips', 'SequenceName': 'T1FFE', 'BidsGuess': ['fmap', '_acq-x_phase1'],
}  # fmt: skip
RANGE = {'mag': (0, 3000), 'phase': (-4096, 4094), 'real': (-900, 900), 'imag': (-900, 900)}


def facts(low=0.0, high=3000.0, shape=(64, 64, 40), shift=0.0) -> ImageFacts:
    """Return measured numbers of an image."""
    affine = np.diag([2.0, 2.0, 2.5, 1.0])
    affine[0, 3] = shift
    return ImageFacts(
        path='', shape=shape, affine=affine, sform=affine, qform=affine, sform_code=1,
        qform_code=1, integer=True, slope=1.0, intercept=0.0, minimum=float(low),
        maximum=float(high), nonfinite=0, zero_fraction=0.0, constant=(), description='',
    )  # fmt: skip


def image(
    number, part='mag', te=TE[0], echo=1, *, base=VE, kinds=None, ends=None, series=None,
    values=None, shape=(64, 64, 40), shift=0.0, **fields,
) -> Converted:  # fmt: skip
    """Return one converted image.

    Parameters
    ----------
    number : int
        Series number; each is a series of its own.
    part, te, echo
        What it is; ``te`` and ``echo`` of None are left out of the sidecar.
    base : dict
        Fields of the vendor.
    kinds : list of str, optional
        ``ImageType``.
    ends : tuple of str, optional
        What dcm2niix adds to the name.
    series : str, optional
        UID of the series.
    values : tuple of float, optional
        Range of the voxels.
    shape, shift
        Grid.
    **fields
        Further fields of the sidecar.
    """
    metadata = dict(base)
    metadata['SeriesNumber'] = number
    letter = {'mag': 'M', 'phase': 'P', 'real': 'R', 'imag': 'I'}[part]
    metadata['ImageType'] = kinds or ['ORIGINAL', 'PRIMARY', letter, 'ND']
    if te is not None:
        metadata['EchoTime'] = te
    if echo is not None:
        metadata['EchoNumber'] = echo
    metadata |= fields
    if ends is None:
        ends = tuple(filter(None, (f'e{echo}' if echo else '', PARTS[part])))
    low, high = values or RANGE[part]
    name = '_'.join((f'1~{series or number}~{number}~', *ends)) + '.nii.gz'
    return Converted(
        Path(name), '1', series or str(number), number, ends, metadata,
        facts(low, high, shape, shift),
    )  # fmt: skip


def scan(number, parts=('mag',), **options) -> list[Converted]:
    """Return a series with all echoes of some parts."""
    return [
        image(number, part, te, echo, **options) for echo, te in enumerate(TE, 1) for part in parts
    ]
