"""What the sidecar of a converted image keeps, and the unit of its phase."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from qsmflow.algorithms.phase import identify_scaling
from qsmflow.bids.checks_metadata import PUBLIC_FIELDS
from qsmflow.dicom.images import Converted

#: Fields of dcm2niix that say how an image was acquired and converted. All others are left out:
#: names, dates, times, places, serial numbers, and every free text, which may hold a name.
FIELDS = tuple(
    dict.fromkeys(
        (
            'Modality',
            *PUBLIC_FIELDS,
            *('SequenceName', 'PulseSequenceName', 'MTState', 'SpoilingState', 'SpoilingType'),
            *('SeriesNumber', 'AcquisitionNumber', 'BodyPart', 'BodyPartExamined'),
            *('PatientPosition', 'EchoNumber', 'EchoTime', 'InversionTime', 'WaterFatShift'),
            *('SpacingBetweenSlices', 'NumberOfAverages', 'BaseResolution', 'PhaseResolution'),
            *('PercentPhaseFOV', 'PercentSampling', 'PhaseEncodingSteps', 'AcquisitionMatrixPE'),
            *('FrequencyEncodingSteps', 'PhaseEncodingStepsOutOfPlane', 'ReconMatrixPE'),
            *('ParallelReductionOutOfPlane', 'RefLinesPE', 'MatrixCoilMode', 'CoilString'),
            *('ReceiveCoilActiveElements', 'ShimSetting', 'TxRefAmp', 'SAR'),
            *('PhilipsRWVSlope', 'PhilipsRWVIntercept', 'PhilipsRescaleSlope'),
            *('PhilipsRescaleIntercept', 'PhilipsScaleSlope', 'UsePhilipsFloatNotDisplayScaling'),
            *('PhaseEncodingDirection', 'PhaseEncodingAxis', 'PhaseEncodingPolarityGE'),
            *('ImageOrientationPatientDICOM', 'InPlanePhaseEncodingDirectionDICOM'),
            *('ConversionSoftware', 'ConversionSoftwareVersion'),
        )
    )
)


def phase_units(phases: Iterable[Converted]) -> str:
    """Find the unit of phase images from their values.

    Parameters
    ----------
    phases : iterable of Converted
        Phase of all echoes of one scan.

    Returns
    -------
    {'rad', 'arbitrary'}
        The two that BIDS knows. The range over all echoes decides, by the rules that the app
        itself applies; radians that do not span 2 pi cannot be told from other units, and are
        arbitrary.
    """
    facts = [image.facts for image in phases]
    low, high = min(f.minimum for f in facts), max(f.maximum for f in facts)
    scaling = identify_scaling(low, high, integer=all(fact.integer for fact in facts))
    return 'rad' if scaling is not None and scaling.rule in ('rad', 'rad-2pi') else 'arbitrary'


def sidecar(
    metadata: Mapping[str, Any], *, te: float | None = None, units: str | None = None,
    gradient_echo: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Return the content of a sidecar.

    Parameters
    ----------
    metadata : mapping
        What dcm2niix wrote.
    te : float, optional
        Echo time, in s.
    units : str, optional
        Unit of a phase image.
    gradient_echo : bool, optional
        Whether the time between excitations is the repetition time; BIDS has a field for it.

    Returns
    -------
    dict
        Fields of the list, none of them private.

    Examples
    --------
    >>> told = {'EchoTime': 0.02, 'PatientName': 'A', 'StationName': 'B', 'RepetitionTime': 0.03}
    >>> sidecar(told, te=0.02, units='rad', gradient_echo=True)
    {'EchoTime': 0.02, 'RepetitionTimeExcitation': 0.03, 'Units': 'rad'}
    """
    known = {key: metadata[key] for key in FIELDS if metadata.get(key) not in (None, '', [])}
    kept = {key: value for key, value in known.items() if _is_json(value)}
    if te is not None:
        kept['EchoTime'] = te
    if gradient_echo and 'RepetitionTime' in kept:
        time = kept.pop('RepetitionTime')
        kept.setdefault('RepetitionTimeExcitation', time)
    if units is not None:
        kept['Units'] = units
    return kept


def _is_json(value: Any) -> bool:
    """Tell whether a value can stand in JSON; NaN and infinity cannot."""
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        return False
    return True
