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
from qsmflow.interfaces.cosmos import CosmosInversion, RegisterOrientation
from qsmflow.interfaces.field import FieldFit, FieldSign
from qsmflow.interfaces.masking import MaskRefinement, PhaseQualityMask
from qsmflow.interfaces.phase import (
    BipolarCorrection,
    PhaseOffsetRemoval,
    PhasePreparation,
    PhaseUnwrapping,
)
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
    'BipolarCorrection',
    'BrainExtraction',
    'CosmosInversion',
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
    'RegisterOrientation',
    'RegisterToT1w',
    'RegisterToTemplate',
    'Relaxometry',
    'SusceptibilityReference',
]
