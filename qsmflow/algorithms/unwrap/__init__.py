"""Phase unwrapping: exact methods that follow paths, and the Laplacian fallback.

All methods share one signature and take all echoes of a series at once. The exact ones change
each voxel by a multiple of 2 pi and nothing else.
"""

from ._echoes import check_echoes, wrap_scalar
from .path_following import best_path, romeo
from .poisson import laplacian
from .quality import quality_map, second_difference_reliability

__all__ = [
    'best_path',
    'check_echoes',
    'laplacian',
    'quality_map',
    'romeo',
    'second_difference_reliability',
    'wrap_scalar',
]
