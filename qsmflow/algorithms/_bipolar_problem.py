"""The bipolar readout as a problem: combinations of three echoes, summed in cells."""

import math
from typing import NamedTuple

import numpy as np
from scipy import fft

from qsmflow.algorithms import operators as ops
from qsmflow.algorithms._checks import check_voxel_size
from qsmflow.algorithms._differences import unwrapped_difference
from qsmflow.algorithms._jit import njit, prange
from qsmflow.algorithms._polynomials import columns, fit_angles
from qsmflow.algorithms._voxels import Voxels
from qsmflow.algorithms.unwrap import check_echoes

_TURN = 2 * math.pi
# Edge of the cells that the phase is summed in, in mm.
_CELL = 4.0
# Parts of the mask along each axis that count as independent of each other.
_PARTS = 6
# A ratio of echo spacings this near a whole number needs no unwrapping.
_WHOLE = 2e-3
# Smallest sine of the angle between the readout and the quadratic in time that tells them apart.
_DISTINCT = 0.1


def _check_polarity(polarity, count):
    """Return the direction of each echo's readout as floats."""
    if polarity is None:
        return np.where(np.arange(count) % 2, 1.0, -1.0)
    signs = np.asarray(polarity, float)
    if signs.shape != (count,) or not np.isin(signs, (-1, 1)).all():
        raise ValueError(
            f'polarity must be 1 or -1 for each of the {count} echoes; got {polarity!r}.'
        )
    if np.ptp(signs) == 0:
        raise ValueError(
            'polarity is the same for all echoes: that is a readout in one direction, which '
            'needs no bipolar correction.'
        )
    return signs


class _Triples(NamedTuple):
    """Three echoes in a row, for each first echo: the ratio of spacings, and what psi holds."""

    ratio: np.ndarray
    design: np.ndarray

    @classmethod
    def of(cls, te, polarity):
        ratio = np.diff(te)[1:] / np.diff(te)[:-1]

        def combine(values):
            return np.diff(values)[1:] - ratio * np.diff(values)[:-1]

        readout = combine(polarity)
        if not readout.any():
            raise ValueError(
                f'the directions {polarity.astype(int).tolist()} at these echo times are not '
                'distinct from a field. Keep more echoes.'
            )
        bend = combine((te / te[-1]) ** 2)
        design = np.stack([readout, bend / np.abs(bend).max()], axis=1)
        unit = design / np.linalg.norm(design, axis=0)
        sine = math.sqrt(max(0.0, 1 - float(unit[:, 0] @ unit[:, 1]) ** 2))
        return cls(ratio, design if sine > _DISTINCT else design[:, :1])


class Problem(NamedTuple):
    """The sums of all triples of echoes in the cells that the mask holds.

    ``points`` are the places of the cells, -1 to 1 over their bounding box, whose middle and
    half lengths, in mm, are ``middle`` and ``half``.
    """

    sums: np.ndarray
    points: np.ndarray
    clusters: np.ndarray
    design: np.ndarray
    start: np.ndarray
    polarity: np.ndarray
    middle: np.ndarray
    half: np.ndarray
    voxel_size: np.ndarray
    shape: tuple

    @classmethod
    def build(cls, phase, magnitude, mask, voxel_size, te, polarity):
        """Check the arguments and sum the phase; None if the mask holds no signal."""
        te = check_echoes(phase, magnitude, mask, te)
        size = np.array(check_voxel_size(voxel_size))
        if te.size < 3:
            raise ValueError(
                f'a bipolar readout can be told from the field with three echoes or more; got '
                f'{te.size}. Take all echoes, or leave the correction out.'
            )
        polarity = _check_polarity(polarity, te.size)
        triples = _Triples.of(te, polarity)
        voxels = Voxels(mask)
        volume, places, steps = _sum_in_cells(phase, magnitude, voxels, size, te, triples.ratio)
        filled = places[3] > 0
        if not filled.any():
            return None
        sums = volume[:, filled]
        # Not their middles, but where the signal of each is: at the rim these are different.
        points = (places[:3, filled] / places[3, filled]).T * size
        low, high = points.min(axis=0), points.max(axis=0)
        half = np.maximum((high - low) / 2, size)
        middle = (low + high) / 2
        points = (points - middle) / half
        part = np.clip((points + 1) / 2 * _PARTS, 0, _PARTS - 1).astype(int)
        gradient = _first_gradient(volume, triples.design[:, 0]) * half / (steps * size)
        start = _place_turns(sums, points, triples, gradient)
        return cls(
            sums,
            points,
            np.ravel_multi_index(part.T, (_PARTS,) * 3),
            triples.design,
            start,
            polarity,
            middle,
            half,
            size,
            np.shape(mask),
        )

    def fit(self, order):
        """Return the fit of polynomials; the first is that of the readout."""
        basis = np.stack(columns(tuple(self.points.T), order), axis=1)
        start = np.zeros((self.design.shape[1], basis.shape[1]))
        start[0, :4] = self.start
        return fit_angles(self.sums, self.design, basis, start, self.clusters)

    def evaluate(self, coefficients, order):
        """Return a polynomial on the grid of the image."""
        axes = [
            ((np.arange(n) * size - middle) / half).astype(np.float32)
            for n, size, middle, half in zip(
                self.shape, self.voxel_size, self.middle, self.half, strict=True
            )
        ]
        points = tuple(np.meshgrid(*axes, indexing='ij', sparse=True))
        result = np.zeros(self.shape, np.float32)
        for factor, term in zip(coefficients, columns(points, order), strict=True):
            result += np.float32(factor) * term
        return result


def _sum_in_cells(phase, magnitude, voxels, voxel_size, te, ratio):
    """Sum the triples of echoes in cells.

    Returns
    -------
    sums : ndarray of complex, shape (T, X', Y', Z')
        Sums of unit vectors times inverse variances.
    places : ndarray of float, shape (4, X', Y', Z')
        Sums of array indices times inverse variances, and of these alone.
    steps : ndarray of int, shape (3,)
        Voxels along the edges of a cell.
    """
    angles = voxels.gather(phase)
    if magnitude is None:
        strengths = np.ones(angles.shape, np.float32)
    else:
        strengths = voxels.gather(magnitude)
    gained = np.empty((ratio.size, len(voxels)), np.float32)
    for t, whole in enumerate(np.abs(ratio - np.rint(ratio)) < _WHOLE):
        if whole:
            difference = angles[t + 1] - angles[t]
            gained[t] = difference - np.float32(_TURN) * np.rint(difference / np.float32(_TURN))
        elif len(voxels):
            pair, time = [(t, t + 1)], [te[t + 1] - te[t]]
            gained[t] = unwrapped_difference(angles, strengths, voxels, voxel_size, pair, time)
    steps = np.maximum(_CELL / voxel_size + 1e-6, 1).astype(np.int32)
    shape = -(-np.array(voxels.mask.shape) // steps)
    sums = np.zeros((ratio.size, *shape), np.complex128)
    places = np.zeros((4, *shape))
    ops.use_threads()
    _sum_triples(
        angles,
        strengths,
        gained,
        ratio,
        voxels.coords,
        voxels.layers(int(steps[0])),
        steps,
        sums,
        places,
    )
    return sums, places, steps


@njit(cache=True, parallel=True)
def _sum_triples(phase, magnitude, gained, ratio, coords, starts, steps, sums, places):
    for i in prange(starts.size - 1):
        for v in range(starts[i], starts[i + 1]):
            j = coords[v, 1] // steps[1]
            k = coords[v, 2] // steps[2]
            for t in range(ratio.size):
                r = ratio[t]
                angle = phase[t + 2, v] - phase[t + 1, v] - r * gained[t, v]
                m0, m1, m2 = magnitude[t, v], magnitude[t + 1, v], magnitude[t + 2, v]
                if math.isfinite(angle) and m0 > 0 and m1 > 0 and m2 > 0:
                    variance = (r / m0) ** 2 + ((1 + r) / m1) ** 2 + (1 / m2) ** 2
                    if math.isfinite(variance):
                        unit = complex(math.cos(angle), math.sin(angle))
                        sums[t, i, j, k] += unit / variance
                        for a in range(3):
                            places[a, i, j, k] += coords[v, a] / variance
                        places[3, i, j, k] += 1 / variance


def _first_gradient(volume, readout):
    """Return the gradient of g, in rad per cell, at the highest peak of a Fourier transform."""
    best = int(np.argmax(np.abs(readout) * np.abs(volume).sum(axis=(1, 2, 3))))
    # Twice the size, so that a peak between two samples is found as well.
    grid = [2 * n for n in volume.shape[1:]]
    peak = np.unravel_index(
        np.abs(fft.fftn(volume[best], grid, workers=ops.workers())).argmax(), grid
    )
    turns = [fft.fftfreq(n)[p] for n, p in zip(grid, peak, strict=True)]
    return _TURN * np.array(turns) / readout[best]


def _place_turns(sums, points, triples, gradient):
    """Return the first constant and gradient of g, and turn the sums, in place, to fit them.

    Where a difference of echoes was unwrapped, a multiple of 2 pi of the whole is open, and with
    it 2 pi times the ratio of spacings in the sum: the one that asks for the smallest constant is
    taken.
    """
    readout = triples.design[:, 0]
    ramp = points @ gradient
    turns = np.arange(-3, 4)[:, None] * _TURN
    level = np.angle(np.sum(sums * np.exp(-1j * readout[:, None] * ramp), axis=1))
    options = (level + turns * triples.ratio + np.pi) % _TURN - np.pi
    best = np.argmin(np.abs(options), axis=0)
    open_turn = np.abs(triples.ratio - np.rint(triples.ratio)) >= _WHOLE
    sums *= np.exp(1j * open_turn * turns[best, 0] * triples.ratio)[:, None]
    level = np.where(open_turn, options[best, np.arange(len(level))], level)
    strength = np.abs(sums).sum(axis=1) * np.abs(readout)
    first = int(np.argmax(strength))
    return np.concatenate([[level[first] / readout[first]], gradient])
