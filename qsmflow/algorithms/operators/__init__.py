"""Linear operators on volumes: Fourier transforms, the dipole kernel, stencils and spheres.

Spectra are half spectra of real volumes (:func:`scipy.fft.rfftn` layout). Data sits at the start
of a padded grid; as all operators are periodic on that grid, the padding at the end separates
the object from its periodic images on both sides. The finite differences are periodic as well,
so that each is diagonal in the Fourier domain and has an exact adjoint.
"""

import os

# The threads of compiled loops would else keep their processors busy for a while after each loop,
# waiting for the next one, and the Fourier transforms, which have threads of their own, would have
# to share them: twice the time in all. Counts if no OpenMP is loaded yet.
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')

from qsmflow.algorithms._threads import use_threads, workers
from qsmflow.algorithms.operators.dipole import (
    dipole_kernel,
    forward_field,
    unit_vector,
    voxel_response,
)
from qsmflow.algorithms.operators.fourier import (
    bounding_box,
    convolve,
    crop,
    irfft,
    pad_shape,
    pad_to,
    rfft,
)
from qsmflow.algorithms.operators.spheres import smv_kernel, smv_octant, sphere_weights
from qsmflow.algorithms.operators.stencils import (
    divergence,
    gradient,
    laplacian,
    laplacian_eigenvalues,
)

__all__ = [
    'bounding_box',
    'convolve',
    'crop',
    'dipole_kernel',
    'divergence',
    'forward_field',
    'gradient',
    'irfft',
    'laplacian',
    'laplacian_eigenvalues',
    'pad_shape',
    'pad_to',
    'rfft',
    'smv_kernel',
    'smv_octant',
    'sphere_weights',
    'unit_vector',
    'use_threads',
    'voxel_response',
    'workers',
]
