"""Judge transforms that another pipeline made."""

import numpy as np

from qsmflow.io import Volume
from qsmflow.registration import adapter
from qsmflow.registration.core import RESOLUTION, _check, _Pair

#: How far there and back may lead from where it began, in mm (95th percentile in the brain).
MAX_ROUND_TRIP = 3.0
_POINTS = 500


def check_transforms(
    fixed: Volume,
    moving: Volume,
    transforms: tuple[str, str],
    *,
    fixed_mask: np.ndarray,
    moving_mask: np.ndarray,
    resolution: float = RESOLUTION,
    min_score: float,
) -> dict:
    """Check transforms between two images by what they do, as our own registrations are.

    Parameters
    ----------
    fixed, moving : Volume
        3-D images.
    transforms : tuple of two str
        ITK files: the one that brings ``moving`` onto the grid of ``fixed``, and the way back.
    fixed_mask, moving_mask : ndarray of bool, shape (X, Y, Z)
        The brain in each image.
    resolution : float, optional
        Working voxel, in mm.
    min_score : float
        Lowest believable similarity.

    Returns
    -------
    dict
        That of :func:`~qsmflow.registration.registration_check`, with ``round_trip_mm``: how far
        the two transforms together lead from where they began, 95th percentile in the brain.
    """
    pair = _Pair.prepare(fixed, moving, fixed_mask, moving_mask, resolution)
    check = _check(pair, transforms[0], both=True, warped=True, min_score=min_score)
    index = np.argwhere(pair.fixed_mask.data)
    index = index[:: max(1, len(index) // _POINTS)]
    points = index @ pair.fixed.affine[:3, :3].T + pair.fixed.affine[:3, 3]
    back = adapter.map_points(adapter.map_points(points, transforms[0]), transforms[1])
    trip = float(np.percentile(np.linalg.norm(back - points, axis=1), 95))
    reasons = [*check['reasons']]
    if trip > MAX_ROUND_TRIP:
        reasons.append(f'the two transforms contradict each other by {trip:.1f} mm')
    return check | {
        'round_trip_mm': round(trip, 3),
        'passed': not reasons,
        'reasons': reasons,
        'kind': 'given',
    }
