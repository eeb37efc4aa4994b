"""The multiples of 2 pi between parts that do not touch, and that of the whole."""

import math

import numpy as np
from scipy import ndimage

from qsmflow.algorithms._jit import njit, prange

from ._echoes import TWO_PI

# A ratio of echo times this close to an integer cannot tell one multiple of 2 pi from another.
_INTEGER = 0.01
# The margin keeps noise, and ratios near an integer, from moving a part.
_MARGIN = 0.1
# Tables of this many numbers may be kept for each thread's share; else one share does it all.
_LARGEST_TABLE = 1 << 22


def lift(box, phase, turns):
    """Add multiples of 2 pi to a list of phase, in place."""
    _lift(phase, turns, box.shape[0])


@njit(cache=True, parallel=True)
def _lift(phase, turns, nx):
    plane = phase.size // nx
    for i in prange(nx):
        for v in range(i * plane, (i + 1) * plane):
            phase[v] += TWO_PI * turns[v]


def align_by_echoes(box, reference, magnitude, regions, volumes, te, template):
    """Choose a multiple of 2 pi for each part of the template, and add it in place.

    The mean of the largest part goes to the multiple nearest 0, those of the others to the
    multiple nearest the largest's. Another multiple is taken where the other echoes, whose ratio
    of echo times is then not an integer, clearly ask for it.

    Parameters
    ----------
    box : Box
        Padded bounding box.
    reference : ndarray of float32, shape (N,)
        Unwrapped phase of the template, in rad; modified.
    magnitude : ndarray of float32, shape (N,)
        Magnitude of the template.
    regions : Regions
        Parts.
    volumes : ndarray of float32, shape (X, Y, Z, E)
        Wrapped phase of all echoes, in rad.
    te : ndarray of float, shape (E,)
        Echo times, in s.
    template : int
        Index of the template.
    """
    ratios = te / te[template]
    telling = np.abs(ratios - np.rint(ratios)) > _INTEGER
    echoes = np.flatnonzero(telling)
    shares = box.shape[0] if box.shape[0] * regions.count * te.size < _LARGEST_TABLE else 1
    tiny = 1e-6 * max(float(magnitude.max()), 1e-30)
    table = np.zeros((shares, regions.count, 3 + 2 * echoes.size))
    _gather_statistics(
        *(reference, magnitude, np.float32(tiny), regions.label, volumes),
        *(echoes, ratios[echoes].astype(np.float32), box.origin, box.shape, table),
    )
    table = table.sum(axis=0)
    count, total, mean = table[:, 0], table[:, 1], table[:, 2] / table[:, 1]
    # Echoes that tell nothing dilute what the others say, as a vote for no change.
    votes = (table[:, 3::2] + 1j * table[:, 4::2]) / (total[:, None] * max(te.size - 1, 1))
    largest = int(np.argmax(count))
    main = _nearest(0.0, mean[[largest]], votes[[largest]], ratios[echoes])
    shift = _nearest(mean[largest] + TWO_PI * main[0], mean, votes, ratios[echoes])
    shift[largest] = main[0]
    _shift_parts(box, reference, regions.label, shift)


def align_to_itself(box, reference, magnitude, regions):
    """Bring the mean of each part nearest to the largest's, and that nearest to 0, in place."""
    nothing = np.zeros((1, 1, 1, 1), np.float32)
    align_by_echoes(box, reference, magnitude, regions, nothing, np.ones(1), 0)


def align_to_prediction(box, own, regions, expected):
    """Bring each part to within pi of a prediction, by its median, in place."""
    away = expected - own
    known = ~np.isnan(away)
    away, part = away[known], regions.label[known]
    if not away.size:
        return
    if regions.count == 1:
        median = np.array([np.median(away)])
    else:
        median = ndimage.median(away, part, np.arange(regions.count))
    shift = np.rint(np.nan_to_num(median) / TWO_PI)
    _shift_parts(box, own, regions.label, shift)


def _nearest(goal, mean, votes, ratios):
    """Return the turns that bring each mean to the goal, or those that the echoes prefer."""
    nearest = np.rint((goal - mean) / TWO_PI)
    candidates = nearest + np.arange(-2, 3)[:, None]
    turned = np.exp(-1j * TWO_PI * candidates[..., None] * ratios)
    score = (votes * turned).real.sum(axis=-1)
    best = np.argmax(score, axis=0)
    columns = np.arange(nearest.size)
    clear = score[best, columns] > score[2] + _MARGIN
    return np.where(clear, candidates[best, columns], nearest)


def _shift_parts(box, phase, label, shift):
    if shift.any():
        # The last number stands for outside, label -1.
        turns = np.append(shift, 0).astype(np.int32)
        lift(box, phase, turns[label])


@njit(cache=True, parallel=True)
def _gather_statistics(
    reference, magnitude, tiny, label, volumes, echoes, ratios, origin, shape, table
):
    """Sum over each part: voxels, weight, weighted phase, weighted misfit phasor of each echo."""
    shares = table.shape[0]
    planes = (shape[0] + shares - 1) // shares
    for share in prange(shares):
        for i in range(share * planes, min((share + 1) * planes, shape[0])):
            for j in range(shape[1]):
                for k in range(shape[2]):
                    v = (i * shape[1] + j) * shape[2] + k
                    part = label[v]
                    if part < 0:
                        continue
                    row = table[share, part]
                    weight = magnitude[v] + tiny
                    row[0] += 1
                    row[1] += weight
                    row[2] += weight * reference[v]
                    for e in range(echoes.size):
                        value = volumes[i + origin[0], j + origin[1], k + origin[2], echoes[e]]
                        misfit = value - ratios[e] * reference[v]
                        if math.isfinite(misfit):
                            misfit -= np.float32(TWO_PI) * np.rint(misfit / np.float32(TWO_PI))
                            row[3 + 2 * e] += weight * math.cos(misfit)
                            row[4 + 2 * e] += weight * math.sin(misfit)
