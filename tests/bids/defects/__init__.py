"""A small clean BIDS dataset, and every way of the defect catalogue to break it.

One module for each group of the catalogue; each adds its defects to ``DEFECTS``.
"""

from . import companions, content, echoes, files, phase, protocol
from .dataset import (
    FIELD,
    SHAPE,
    SIDECAR,
    TE,
    Dataset,
    affine,
    phantom,
    write_clean,
    write_image,
    write_json,
    write_scan,
    write_series,
    write_t1w,
)
from .echoes import UNEVEN, write_4d
from .phase import real_and_imaginary, stored
from .registry import DEFECTS, Defect

__all__ = [
    'DEFECTS',
    'FIELD',
    'SHAPE',
    'SIDECAR',
    'TE',
    'UNEVEN',
    'Dataset',
    'Defect',
    'affine',
    'companions',
    'content',
    'echoes',
    'files',
    'phantom',
    'phase',
    'protocol',
    'real_and_imaginary',
    'stored',
    'write_4d',
    'write_clean',
    'write_image',
    'write_json',
    'write_scan',
    'write_series',
    'write_t1w',
]
