"""Confidence in a field of which nothing but its values is known."""

import numpy as np

from qsmflow.algorithms import operators as ops
from qsmflow.algorithms._checks import check_volume, check_voxel_size
from qsmflow.algorithms._jit import njit, prange

#: Step to a neighbour, in ppm, at which a voxel at the edge keeps a quarter of its weight. Chosen
#: on the head of seed 3 at 1 mm, from its true total field: 0.05 to 0.1 differ little.
STEP = 0.1
#: Largest voxel edge, in mm, at which that is judged: smooth fields make larger steps in larger
#: voxels.
LARGEST_VOXEL = 2.0


def edge_confidence(field, mask, voxel_size):
    r"""Return the confidence in a field, lower where it jumps at the edge of the mask.

    A voxel at the edge that is in part air or bone has a field that no source fits which lies in
    whole voxels inside or outside the mask. It gives itself away by the step :math:`\delta` to
    one of its six neighbours in the mask, and gets the weight
    :math:`1 / (1 + (\delta / 0.1\,\text{ppm})^2)^2`. All other voxels have weight 1: inside the
    mask, veins, haemorrhages and calcifications make steps of this size.

    Parameters
    ----------
    field : ndarray of float, shape (X, Y, Z)
        Total or local field, in ppm. Values outside ``mask`` are ignored.
    mask : ndarray of bool, shape (X, Y, Z)
        Region of interest. Where it ends with the volume is no edge.
    voxel_size : tuple of float
        Voxel edge lengths, in mm, in array-axis order. With one beyond 2 mm all weights are 1.

    Returns
    -------
    ndarray of float32, shape (X, Y, Z)
        Weights in (0, 1], zero outside ``mask``.

    Raises
    ------
    ValueError
        If the volumes do not fit together, or the field has values that are not finite.

    Notes
    -----
    The rule is this package's; ``docs/study.md`` says what it is worth.

    Examples
    --------
    >>> field = np.zeros((6, 6, 6))
    >>> field[1, 3, 3] = 0.1
    >>> mask = np.zeros(field.shape, bool)
    >>> mask[1:, 1:, 1:] = True
    >>> float(edge_confidence(field, mask, (1, 1, 1))[1, 3, 3])
    0.25
    """
    field, mask = check_volume(field, mask, 'field')
    confidence = mask.astype(np.float32)
    if max(check_voxel_size(voxel_size)) <= LARGEST_VOXEL:
        ops.use_threads()
        _lower(field, mask, np.float32(1 / STEP), confidence)
    return confidence


@njit(cache=True, parallel=True)
def _lower(field, mask, inverse_step, confidence):
    nx, ny, nz = field.shape
    for i in prange(nx):
        for j in range(ny):
            for k in range(nz):
                if not mask[i, j, k]:
                    continue
                at_edge, largest = False, np.float32(0)
                for n in range(6):
                    away = 2 * (n % 2) - 1
                    p = i + away * (n // 2 == 0)
                    q = j + away * (n // 2 == 1)
                    r = k + away * (n // 2 == 2)
                    if not (0 <= p < nx and 0 <= q < ny and 0 <= r < nz):
                        continue
                    if mask[p, q, r]:
                        largest = max(largest, abs(field[p, q, r] - field[i, j, k]))
                    else:
                        at_edge = True
                if at_edge:
                    ratio = largest * inverse_step
                    confidence[i, j, k] = 1 / (1 + ratio * ratio) ** 2
