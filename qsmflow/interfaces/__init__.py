"""Nipype interfaces: load, call one algorithm, save."""

from qsmflow.interfaces.anatomy import (
    ApplyTransforms,
    AtlasToNative,
    BrainExtraction,
    RegisterToT1w,
    RegisterToTemplate,
)
from qsmflow.interfaces.bids import DerivativesSink
from qsmflow.interfaces.contrasts import Relaxometry
from qsmflow.interfaces.field import FieldFit, FieldSign
from qsmflow.interfaces.masking import MaskRefinement, PhaseQualityMask
from qsmflow.interfaces.phase import PhaseOffsetRemoval, PhasePreparation, PhaseUnwrapping
from qsmflow.interfaces.susceptibility import (
    BackgroundRemoval,
    DipoleInversion,
    SusceptibilityReference,
)
from qsmflow.interfaces.tables import DentateSegmentation, RegionStatistics

__all__ = [
    'ApplyTransforms',
    'AtlasToNative',
    'BackgroundRemoval',
    'BrainExtraction',
    'DentateSegmentation',
    'DerivativesSink',
    'DipoleInversion',
    'FieldFit',
    'FieldSign',
    'MaskRefinement',
    'PhaseOffsetRemoval',
    'PhasePreparation',
    'PhaseQualityMask',
    'PhaseUnwrapping',
    'RegionStatistics',
    'RegisterToT1w',
    'RegisterToTemplate',
    'Relaxometry',
    'SusceptibilityReference',
]
