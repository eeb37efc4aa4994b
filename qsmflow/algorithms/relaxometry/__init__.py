"""Effective transverse relaxation from the decay of the magnitude over the echoes.

The model is one exponential, :math:`m_j = S_0 e^{-R_2^* TE_j}`. The linear methods leave out the
echoes of a voxel from the first that sinks into the noise floor on, because the floor flattens
the decay; the nonlinear one has the floor in its model.
"""

from ._model import R2STAR_MAX, R2STAR_SEEN, Relaxation, uniform_spacing
from .linear import arlo, loglinear, numart2s
from .noise import RAYLEIGH_MEAN, noise_level
from .nonlinear import nlls

__all__ = [
    'R2STAR_MAX',
    'R2STAR_SEEN',
    'RAYLEIGH_MEAN',
    'Relaxation',
    'arlo',
    'loglinear',
    'nlls',
    'noise_level',
    'numart2s',
    'uniform_spacing',
]
