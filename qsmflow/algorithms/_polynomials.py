"""Robust fit of polynomials in space to angles that are known up to multiples of 2 pi."""

from typing import NamedTuple

import numpy as np

# Residuals beyond this many standard deviations count for less and less (Geman-McClure).
_CUTOFF = 2.5
# Smallest standard deviation of the residuals, in rad, so that clean data do not divide by zero.
_SMALLEST_DEVIATION = 0.01
_LARGEST_STEPS = 30
# The iteration ends when a step turns no angle by more than this, in rad.
_TOLERANCE = 1e-5


def columns(points, order):
    """Return the monomials of up to the first or second order.

    Parameters
    ----------
    points : tuple of three ndarray
        Coordinates, -1 to 1, that broadcast against each other. Second-order terms keep the
        value that they have at the ends.
    order : int
        1 or 2.

    Returns
    -------
    list of ndarray
        1, x, y, z; then x^2, y^2, z^2, xy, xz, yz.

    Examples
    --------
    >>> [float(c) for c in columns((0.5, -1.0, 2.0), 2)]
    [1.0, 0.5, -1.0, 2.0, 0.25, 1.0, 1.0, -0.5, 0.5, -1.0]
    """
    x, y, z = points
    terms = [np.ones_like(x), x, y, z]
    if order == 2:
        x, y, z = (np.clip(p, -1, 1) for p in points)
        terms += [x * x, y * y, z * z, x * y, x * z, y * z]
    return terms


class AngleFit(NamedTuple):
    """Coefficients, shape (K, P), their standard errors, and how many clusters gave these."""

    coefficients: np.ndarray
    errors: np.ndarray
    clusters: int


def fit_angles(sums, design, basis, start, clusters):
    r"""Fit polynomials to the angles of complex sums by iteratively reweighted least squares.

    The angle of sum :math:`c` of series :math:`t` is modelled as
    :math:`\sum_k A_{tk} \sum_p \beta_{kp} X_{cp}`. Its residual is wrapped, has the modulus of
    the sum as weight, and counts less the larger it is (Geman-McClure).

    Parameters
    ----------
    sums : ndarray of complex, shape (T, C)
        Sums of unit vectors times inverse variances.
    design : ndarray of float, shape (T, K)
        Factors :math:`A` of the polynomials in each series.
    basis : ndarray of float, shape (C, P)
        Monomials :math:`X` at each sum.
    start : ndarray of float, shape (K, P)
        First coefficients, right to within pi in most places.
    clusters : ndarray of int, shape (C,)
        Part of space that each sum lies in. Residuals of one part may depend on each other, as
        anatomy makes them; the standard errors allow for that.

    Returns
    -------
    AngleFit
    """
    coefficients = np.array(start, float)
    sizes = np.abs(sums)
    for _ in range(_LARGEST_STEPS):
        model = design @ coefficients @ basis.T
        rest = np.angle(sums * np.exp(-1j * model))
        deviation = max(1.4826 * float(np.median(np.abs(rest))), _SMALLEST_DEVIATION)
        spread = (rest / (_CUTOFF * deviation)) ** 2
        weights = sizes / (1 + spread) ** 2
        inverse, right = _normal_equations(weights, rest, design, basis)
        step = (inverse @ right).reshape(coefficients.shape)
        coefficients += step
        if np.abs(design @ step).sum(axis=1).max() < _TOLERANCE:
            break
    errors, count = _clustered_errors(weights * rest, design, basis, inverse, clusters)
    # The weights fall as residuals rise, so the fit gives way more than they tell: the slope of
    # the pull on the fit counts.
    slope = np.sum(sizes * (1 - 3 * spread) / (1 + spread) ** 3)
    errors *= weights.sum() / max(slope, 0.1 * weights.sum())
    return AngleFit(coefficients, errors.reshape(coefficients.shape), count)


def _normal_equations(weights, rest, design, basis):
    """Return the inverse of the normal matrix and the right side; unknowns ordered (K, P)."""
    size = design.shape[1] * basis.shape[1]
    normal, right = np.zeros((size, size)), np.zeros(size)
    for factors, weight, angle in zip(design, weights, rest, strict=True):
        normal += np.kron(np.outer(factors, factors), basis.T @ (weight[:, None] * basis))
        right += np.kron(factors, basis.T @ (weight * angle))
    # Without extent along an axis its monomials are not independent: the smallest solution then.
    return np.linalg.pinv(normal, rcond=1e-10, hermitian=True), right


def _clustered_errors(weighted, design, basis, inverse, clusters):
    """Return standard errors from the scatter of the clusters' scores (sandwich estimate)."""
    _, clusters = np.unique(clusters, return_inverse=True)
    count = int(clusters.max()) + 1
    scores = np.zeros((count, len(inverse)))
    for factors, values in zip(design, weighted, strict=True):
        table = [np.bincount(clusters, values * term, count) for term in basis.T]
        scores += np.kron(factors, np.stack(table, axis=1))
    covariance = inverse @ (scores.T @ scores) @ inverse
    covariance *= count / max(count - len(inverse), 1)
    return np.sqrt(np.maximum(np.diag(covariance), 0)), count
