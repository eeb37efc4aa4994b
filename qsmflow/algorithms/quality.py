"""Scores of a susceptibility map against a truth, as the benchmark prints them.

``recon`` and ``truth`` are susceptibility in ppm on one grid. Both are demeaned over the mask,
since susceptibility is known up to a constant. Score on the whole brain mask: voxels that a method
leaves at zero then count as errors.
"""

import numpy as np
from scipy import ndimage

from qsmflow.algorithms.masking import ALL_NEIGHBOURS, FACES


def nrmse(recon, truth, mask) -> float:
    r"""Return the normalised root mean square error, :math:`100 \|a - b\| / \|b\|`.

    Parameters
    ----------
    recon, truth : ndarray of float, shape (X, Y, Z)
        Susceptibility, in ppm; each is demeaned over ``mask``.
    mask : ndarray of bool, shape (X, Y, Z)
        Voxels to score.

    Returns
    -------
    float
        In percent; NaN for an empty mask or a constant truth.

    Examples
    --------
    >>> truth = np.random.default_rng(0).normal(size=(8, 8, 8))
    >>> nrmse(1.1 * truth + 3, truth, np.ones(truth.shape, bool))
    10.0
    """
    a, b = _demeaned(recon, truth, mask)
    return _percent(a - b, b)


def nrmse_detrended(recon, truth, mask) -> float:
    """Return the error after a linear correction of the reconstruction.

    A line ``recon = slope * truth + intercept`` is fitted over the mask, the reconstruction is
    corrected by it, and :func:`nrmse` follows.

    Parameters
    ----------
    recon, truth : ndarray of float, shape (X, Y, Z)
        Susceptibility, in ppm.
    mask : ndarray of bool, shape (X, Y, Z)
        Voxels to score.

    Returns
    -------
    float
        In percent; infinite when the reconstruction does not depend on the truth, NaN for an
        empty mask or a constant truth.

    Examples
    --------
    >>> truth = np.random.default_rng(0).normal(size=(8, 8, 8))
    >>> round(nrmse_detrended(0.7 * truth + 3, truth, np.ones(truth.shape, bool)), 6)
    0.0
    """
    a, b = _demeaned(recon, truth, mask)
    energy = float(b @ b)
    if energy == 0:
        return float('nan')
    slope = float(a @ b) / energy
    return _percent(a / slope - b, b) if slope != 0 else float('inf')


def correlation(recon, truth, mask) -> float:
    """Return Pearson's correlation over a mask.

    Parameters
    ----------
    recon, truth : ndarray of float, shape (X, Y, Z)
        Susceptibility, in ppm.
    mask : ndarray of bool, shape (X, Y, Z)
        Voxels to score.

    Returns
    -------
    float
        In [-1, 1]; NaN when either map is constant.

    Examples
    --------
    >>> truth = np.random.default_rng(0).normal(size=(8, 8, 8))
    >>> round(correlation(-2 * truth, truth, np.ones(truth.shape, bool)), 6)
    -1.0
    """
    a, b = _demeaned(recon, truth, mask)
    norm = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / norm if norm > 0 else float('nan')


def xsim(recon, truth, mask, *, k1: float = 0.01, k2: float = 0.001, window: int = 5) -> float:
    """Return the structural similarity with constants made for susceptibility maps (XSIM).

    Parameters
    ----------
    recon, truth : ndarray of float, shape (X, Y, Z)
        Susceptibility, in ppm; each is demeaned over ``mask`` and zero outside.
    mask : ndarray of bool, shape (X, Y, Z)
        Voxels over which the similarity is averaged.
    k1, k2 : float, optional
        Constants of the similarity, for a data range of 1 ppm: C1 = k1^2, C2 = k2^2.
    window : int, optional
        Edge of the uniform window, in voxels.

    Returns
    -------
    float
        1 for equal maps; NaN for an empty mask.

    References
    ----------
    Milovic C, et al. XSIM: a structural similarity index measure optimized for MRI QSM. Magn Reson
    Med 2025. doi:10.1002/mrm.30271

    Examples
    --------
    >>> truth = np.random.default_rng(0).normal(size=(8, 8, 8))
    >>> xsim(truth, truth, np.ones(truth.shape, bool))
    1.0
    """
    mask = np.asarray(mask, bool)
    if not mask.any():
        return float('nan')
    a, b = (np.zeros(mask.shape), np.zeros(mask.shape))
    a[mask], b[mask] = _demeaned(recon, truth, mask)

    def local_mean(image):
        return ndimage.uniform_filter(image, window, mode='constant')

    mean_a, mean_b = local_mean(a), local_mean(b)
    variance_a = local_mean(a * a) - mean_a**2
    variance_b = local_mean(b * b) - mean_b**2
    covariance = local_mean(a * b) - mean_a * mean_b
    c1, c2 = k1**2, k2**2
    similarity = ((2 * mean_a * mean_b + c1) * (2 * covariance + c2)) / (
        (mean_a**2 + mean_b**2 + c1) * (variance_a + variance_b + c2)
    )
    return float(similarity[mask].mean())


def region_means(image, labels, indices) -> np.ndarray:
    """Return the mean of an image in each of some labels.

    Parameters
    ----------
    image : ndarray of float, shape (X, Y, Z)
        Any map.
    labels : ndarray of int, shape (X, Y, Z)
        Segmentation.
    indices : sequence of int
        Labels, in the order wanted.

    Returns
    -------
    ndarray of float, shape (len(indices),)
        NaN for a label without voxels.

    Examples
    --------
    >>> region_means(np.array([[[1.0, 3.0, 7.0]]]), np.array([[[4, 4, 9]]]), [9, 4])
    array([7., 2.])
    """
    indices = np.asarray(list(indices), int)
    chosen = np.isin(labels, indices)
    size = int(max(indices.max(initial=0), 0)) + 1
    inside = np.asarray(labels)[chosen].astype(int)
    counts = np.bincount(inside, minlength=size)[indices]
    sums = np.bincount(inside, np.asarray(image, np.float64)[chosen], minlength=size)[indices]
    return np.divide(sums, counts, out=np.full(len(indices), np.nan), where=counts > 0)


def dgm_linearity(recon, truth, labels, indices) -> float:
    """Return how far the slope of region means is from one, for the deep nuclei.

    Parameters
    ----------
    recon, truth : ndarray of float, shape (X, Y, Z)
        Susceptibility, in ppm.
    labels : ndarray of int, shape (X, Y, Z)
        Segmentation.
    indices : sequence of int
        Labels of the deep nuclei, two or more that exist.

    Returns
    -------
    float
        ``|1 - slope|`` of the line through mean of ``recon`` over mean of ``truth``; NaN with
        fewer than two regions.

    Examples
    --------
    >>> labels = np.arange(4).reshape(1, 2, 2)
    >>> round(dgm_linearity(0.9 * labels + 5, labels, labels, [1, 2, 3]), 6)
    0.1
    """
    a, b = region_means(recon, labels, indices), region_means(truth, labels, indices)
    found = np.isfinite(a) & np.isfinite(b)
    a, b = a[found] - a[found].mean() if found.any() else a[found], b[found]
    if found.sum() < 2 or np.ptp(b) == 0:
        return float('nan')
    b = b - b.mean()
    return abs(1 - float(a @ b) / float(b @ b))


def roi_mae(recon, truth, labels, indices, mask=None) -> float:
    """Return the mean absolute error of region means.

    Parameters
    ----------
    recon, truth : ndarray of float, shape (X, Y, Z)
        Susceptibility, in ppm.
    labels : ndarray of int, shape (X, Y, Z)
        Segmentation.
    indices : sequence of int
        Labels to compare; those without voxels are left out.
    mask : ndarray of bool, shape (X, Y, Z), optional
        Both maps are demeaned over it first. Without it they must have one reference.

    Returns
    -------
    float
        In ppb; NaN if no label has voxels.

    Examples
    --------
    >>> labels = np.arange(4).reshape(1, 2, 2)
    >>> round(roi_mae(labels + 0.002, labels, labels, [1, 2, 3]), 6)
    2.0
    """
    a, b = region_means(recon, labels, indices), region_means(truth, labels, indices)
    if mask is not None:
        mask = np.asarray(mask, bool)
        a = a - np.asarray(recon)[mask].mean(dtype=np.float64)
        b = b - np.asarray(truth)[mask].mean(dtype=np.float64)
    errors = np.abs(a - b)
    errors = errors[np.isfinite(errors)]
    return 1000 * float(errors.mean()) if errors.size else float('nan')


def calc_streak(recon, truth, source, mask=None, *, rim: int = 4) -> float:
    """Return the strength of streaks around a strong source.

    Parameters
    ----------
    recon, truth : ndarray of float, shape (X, Y, Z)
        Susceptibility, in ppm.
    source : ndarray of bool, shape (X, Y, Z)
        The source, such as a calcification.
    mask : ndarray of bool, shape (X, Y, Z), optional
        Voxels that may count.
    rim : int, optional
        Width of the shell around the source, in voxels.

    Returns
    -------
    float
        SD of ``recon - truth`` in the shell over the source's absolute mean in ``truth``.

    Examples
    --------
    >>> truth = np.zeros((15, 15, 15))
    >>> truth[7, 7, 7] = -0.3
    >>> calc_streak(truth, truth, truth < 0)
    0.0
    """
    source = np.asarray(source, bool)
    shell = ndimage.binary_dilation(source, ALL_NEIGHBOURS, iterations=rim) & ~source
    if mask is not None:
        shell &= np.asarray(mask, bool)
    strength = abs(float(np.mean(np.asarray(truth, np.float64)[source]))) if source.any() else 0.0
    if strength == 0 or not shell.any():
        return float('nan')
    error = np.asarray(recon, np.float64)[shell] - np.asarray(truth, np.float64)[shell]
    return float(error.std() / strength)


def dice(first, second) -> float:
    """Return the overlap of two masks, 2 |A and B| / (|A| + |B|).

    Parameters
    ----------
    first, second : ndarray of bool, shape (X, Y, Z)
        Masks on one grid.

    Returns
    -------
    float
        From 0 to 1; NaN when both are empty.

    Examples
    --------
    >>> dice(np.array([1, 1, 0, 0], bool), np.array([0, 1, 1, 0], bool))
    0.5
    """
    first, second = np.asarray(first, bool), np.asarray(second, bool)
    total = np.count_nonzero(first) + np.count_nonzero(second)
    return 2 * int(np.count_nonzero(first & second)) / int(total) if total else float('nan')


def scores(
    recon, truth, mask, labels, *, nuclei, tissue=(), blood=(), calcification=(), regions=None
) -> dict[str, float]:
    """Return all scores of a reconstruction, by the names that the benchmark prints.

    Parameters
    ----------
    recon, truth : ndarray of float, shape (X, Y, Z)
        Susceptibility, in ppm.
    mask : ndarray of bool, shape (X, Y, Z)
        Voxels to score: the whole brain, or a method's own support.
    labels : ndarray of int, shape (X, Y, Z)
        Segmentation of the truth.
    nuclei, tissue, blood, calcification : sequence of int
        Labels of the deep nuclei; of grey and white matter and thalamus; of the veins, which are
        dilated by one voxel; of a strong diamagnetic source.
    regions : sequence of int, optional
        Labels of the region table, by default nuclei and tissue.

    Returns
    -------
    dict of str to float
        ``nrmse``, ``xsim``, ``correlation``, ``nrmse_dgm``, ``nrmse_tissue``, ``nrmse_blood``,
        ``dgm_linearity``, ``roi_mae`` (ppb) and ``calc_streak``; NaN where labels are missing.

    Examples
    --------
    >>> labels = np.arange(64).reshape(4, 4, 4) % 4
    >>> truth = 0.1 * labels
    >>> found = scores(truth, truth, labels >= 0, labels, nuclei=(1, 2), tissue=(3,))
    >>> round(found['nrmse'], 6), round(found['xsim'], 6), round(found['roi_mae'], 6)
    (0.0, 1.0, 0.0)
    """
    mask = np.asarray(mask, bool)
    veins = ndimage.binary_dilation(np.isin(labels, blood), FACES) & mask
    regions = (*nuclei, *tissue) if regions is None else regions
    source = np.isin(labels, calcification)
    return {
        'nrmse': nrmse(recon, truth, mask),
        'xsim': xsim(recon, truth, mask),
        'correlation': correlation(recon, truth, mask),
        'nrmse_dgm': nrmse_detrended(recon, truth, mask & np.isin(labels, nuclei)),
        'nrmse_tissue': nrmse_detrended(recon, truth, mask & np.isin(labels, tissue)),
        'nrmse_blood': nrmse_detrended(recon, truth, veins),
        'dgm_linearity': dgm_linearity(recon, truth, labels, nuclei),
        'roi_mae': roi_mae(recon, truth, labels, regions, mask),
        'calc_streak': calc_streak(recon, truth, source, mask),
    }


def _demeaned(recon, truth, mask):
    mask = np.asarray(mask, bool)
    values = [np.asarray(image, np.float64)[mask] for image in (recon, truth)]
    return [v - v.mean() if v.size else v for v in values]


def _percent(error, truth):
    norm = float(np.linalg.norm(truth))
    return 100 * float(np.linalg.norm(error)) / norm if norm > 0 else float('nan')
