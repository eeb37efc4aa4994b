"""A small clean BIDS dataset, and every way of the defect catalogue to break it.

One module for each group of the catalogue; and one each for what only the steps of the graph, only
the command line, and nobody sees. All add their defects to ``DEFECTS``.
"""

from . import companions, content, echoes, files, phase, program, protocol, scan, surroundings
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
from .program import Launch
from .registry import DEFECTS, Defect
from .scan import Scan
from .surroundings import Surroundings

__all__ = [
    'DEFECTS',
    'FIELD',
    'SHAPE',
    'SIDECAR',
    'TE',
    'UNEVEN',
    'Dataset',
    'Defect',
    'Launch',
    'Scan',
    'Surroundings',
    'affine',
    'companions',
    'content',
    'echoes',
    'files',
    'phantom',
    'phase',
    'program',
    'protocol',
    'real_and_imaginary',
    'scan',
    'stored',
    'surroundings',
    'write_4d',
    'write_clean',
    'write_image',
    'write_json',
    'write_scan',
    'write_series',
    'write_t1w',
]
