"""Registration: brain extraction, GRE to T1w to template, labels and maps resampled.

Images go in and come out as :class:`~qsmflow.io.Volume`; transforms stay on disk as ITK files.
Everything runs in one thread and with a given seed: the same images give the same transforms.
antspyx is imported when it is first needed.

A registration starts from the centres of mass, so that the origin of a scan has no say. A number
judges it (:func:`registration_check`); when that is bad other starts are tried, and the best of
all is kept with ``passed = False`` when none is good enough: flagged, not hidden.
"""

from qsmflow.registration.adapter import (
    SEED,
    from_ants,
    read_affine,
    resample,
    to_ants,
    write_affine,
)
from qsmflow.registration.brain import (
    extract_brain,
    extract_brain_deepbet,
    extract_object,
    is_skull_stripped,
)
from qsmflow.registration.core import (
    MIN_SCORE,
    STARTS,
    RegistrationResult,
    jacobian_range,
    register,
    registration_check,
    start_matrix,
)
from qsmflow.registration.given import check_transforms
from qsmflow.registration.images import (
    flatten_intensity,
    foreground,
    local_similarity,
    working_image,
)
from qsmflow.registration.labels import field_of_view_fraction, warp_labels
from qsmflow.registration.nuclei import refine_alignment, unmoved

__all__ = [
    'MIN_SCORE',
    'SEED',
    'STARTS',
    'RegistrationResult',
    'check_transforms',
    'extract_brain',
    'extract_brain_deepbet',
    'extract_object',
    'field_of_view_fraction',
    'flatten_intensity',
    'foreground',
    'from_ants',
    'is_skull_stripped',
    'jacobian_range',
    'local_similarity',
    'read_affine',
    'refine_alignment',
    'register',
    'registration_check',
    'resample',
    'start_matrix',
    'to_ants',
    'unmoved',
    'warp_labels',
    'working_image',
    'write_affine',
]
