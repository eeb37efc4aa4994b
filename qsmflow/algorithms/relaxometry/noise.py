"""The noise of magnitude images, from the air around the head."""

import numpy as np

#: Mean of a Rayleigh distribution over its parameter, sqrt(pi/2).
RAYLEIGH_MEAN = float(np.sqrt(np.pi / 2))

# Mean over standard deviation of air: 1.91 for one channel; about sqrt(4 L - 1) for the root of
# the sum of squares of L channels, of which this many are told from tissue.
_SINGLE_CHANNEL = 1.6, 2.3
_LARGEST_RATIO = 12.0
# The mean of air stays the same over the echoes, within this fraction. Tissue decays.
_STEADY = 0.05


def noise_level(magnitude: np.ndarray) -> float:
    r"""Estimate the noise from the air in the corners of the volume.

    The corners of most head scans hold air alone. There, the magnitude of one channel follows the
    Rayleigh distribution, whose mean is 1.91 times its standard deviation; that of L channels,
    combined by the root of the sum of squares, a chi distribution with a ratio near
    :math:`\sqrt{4L - 1}` [1]_. A corner counts if it has the first ratio, or a larger one and a
    mean that does not change from the first echo to the last, as that of any tissue would. Empty
    corners (a masked image) and those with tissue say nothing about the noise and are left out.

    Parameters
    ----------
    magnitude : ndarray of float, shape (X, Y, Z, E)
        Magnitude, in arbitrary units.

    Returns
    -------
    float
        Root of half the mean square of the air, in units of the magnitude; 0 when fewer than two
        corners show it. For one channel this is the standard deviation of its noise, for more
        that of a single channel with the same noise floor.

    Notes
    -----
    The noise of air is not that of the head where parallel imaging amplifies it in the middle, or
    where the images were filtered or corrected for sensitivity: then give the noise to the fit.

    References
    ----------
    .. [1] Gudbjartsson H, Patz S. Magn Reson Med 1995;34:910-914. doi:10.1002/mrm.1910340618

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> air = np.abs(rng.normal(size=(24, 24, 24, 1)) + 1j * rng.normal(size=(24, 24, 24, 1)))
    >>> round(noise_level(air), 1)
    1.0
    """
    sides = [_ends(n) for n in magnitude.shape[:3]]
    estimates = []
    for block in ((x, y, z) for x in sides[0] for y in sides[1] for z in sides[2]):
        last = _known(magnitude[(*block, -1)])
        spread = last.std() if last.size >= 8 else 0.0
        if spread > 0 and _is_air(last.mean() / spread, last, magnitude[(*block, 0)]):
            estimates.append(np.sqrt(np.mean(last**2) / 2))
    return float(np.median(estimates)) if len(estimates) >= 2 else 0.0


def _ends(n):
    width = max(2, min(8, n // 4))
    return slice(0, width), slice(-width, None)


def _known(values):
    values = np.asarray(values, np.float64)
    return values[np.isfinite(values) & (values > 0)]


def _is_air(ratio, last, first):
    low, high = _SINGLE_CHANNEL
    if not low < ratio < _LARGEST_RATIO:
        return False
    if ratio < high:
        return True
    first = _known(first)
    mean = last.mean()
    return first.size >= 8 and abs(first.mean() - mean) < _STEADY * mean
