"""Unwrapping by a Poisson equation: smooth at any noise, but not exact."""

import numpy as np
from scipy import fft, ndimage

from qsmflow.algorithms._checks import check_voxel_size
from qsmflow.algorithms.operators import workers

from ._echoes import TWO_PI, check_echo, check_echoes


def laplacian(phase, magnitude, mask, voxel_size, *, te, template=0, individual=False):
    r"""Unwrap phase by solving a Poisson equation (Laplacian unwrapping). Not exact.

    .. math:: \nabla^2 \varphi = \nabla \cdot M\, W(\nabla \varphi_w)

    The Laplacian of the true phase follows from the wrapped one, :math:`\varphi_w` [1]_. Here it
    is the divergence of the wrapped steps :math:`W(\cdot)` between neighbours,
    which is right wherever no true step exceeds pi, and it is inverted with the cosine
    transform [2]_. Steps across the edge of the mask :math:`M` do not count, which alters the
    harmonic field there: a fallback where
    :func:`~qsmflow.algorithms.unwrap.romeo` fails.

    Parameters
    ----------
    phase : ndarray of float, shape (X, Y, Z, E)
        Wrapped phase, in rad.
    magnitude : ndarray of float, shape (X, Y, Z, E), or None
        Weights of the constant that is added to each echo.
    mask : ndarray of bool, shape (X, Y, Z)
        Region of interest.
    voxel_size : tuple of float
        Voxel edge lengths, in mm, in array-axis order.
    te : sequence of float, shape (E,)
        Echo times, in s, increasing.
    template : int, optional
        Index of the echo to whose prediction the constants of the others are aligned.
    individual : bool, optional
        Without effect: every echo is unwrapped on its own.

    Returns
    -------
    ndarray of float32, shape (X, Y, Z, E)
        Unwrapped phase, in rad; 0 outside ``mask``. It does not differ from the input by
        multiples of 2 pi.

    Raises
    ------
    ValueError
        If shapes or echo times are not consistent, ``voxel_size`` is not positive, or there is no
        echo ``template``.

    References
    ----------
    .. [1] Schofield MA, Zhu Y. Opt Lett 2003;28:1194-1196. doi:10.1364/OL.28.001194
    .. [2] Ghiglia DC, Romero LA. J Opt Soc Am A 1994;11:107-117. doi:10.1364/JOSAA.11.000107

    Examples
    --------
    >>> x = np.linspace(-1, 1, 32)
    >>> truth = 8 * np.exp(-4 * (x[:, None, None] ** 2 + x[:, None] ** 2 + x**2))[..., None]
    >>> wrapped = np.angle(np.exp(1j * truth))
    >>> found = laplacian(wrapped, None, np.ones((32, 32, 32), bool), (1, 1, 1), te=[0.01])
    >>> bool(np.corrcoef(found.ravel(), truth.ravel())[0, 1] > 0.99)
    True
    """
    te = check_echoes(phase, magnitude, mask, te)
    check_echo(template, te.size)
    voxel_size = check_voxel_size(voxel_size)
    region = np.asarray(mask, bool)
    out = np.zeros(phase.shape, np.float32)
    if not region.any():
        return out
    box = ndimage.find_objects(region.astype(np.uint8))[0]
    inside = region[box]
    eigenvalues = _laplacian_eigenvalues(inside.shape, voxel_size)
    means = np.zeros(te.size)
    for j in range(te.size):
        wrapped = np.where(inside, phase[(*box, j)], 0)
        wrapped = np.nan_to_num(wrapped, nan=0, posinf=0, neginf=0).astype(np.float32)
        solution = _poisson(_wrapped_laplacian(wrapped, inside, voxel_size), eigenvalues)
        weight = np.ones_like(wrapped) if magnitude is None else magnitude[(*box, j)]
        weight = np.nan_to_num(weight)[inside]
        misfit = np.exp(1j * (wrapped[inside] - solution[inside]))
        solution += np.angle(np.sum(weight * misfit, dtype=np.complex128))
        means[j] = solution[inside].mean()
        out[(*box, j)] = np.where(inside, solution, 0)
    shift = TWO_PI * np.rint((means[template] * te / te[template] - means) / TWO_PI)
    shift[template] = 0
    out[region] += shift.astype(np.float32)
    return out


def _laplacian_eigenvalues(shape, voxel_size):
    total = np.zeros(shape, np.float32)
    for axis, (n, size) in enumerate(zip(shape, voxel_size, strict=True)):
        along = (2 * np.cos(np.pi * np.arange(n) / n) - 2) / size**2
        total += along.astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
    total[0, 0, 0] = 1
    return total


def _wrapped_laplacian(wrapped, inside, voxel_size):
    result = np.zeros(wrapped.shape, np.float32)
    for axis, size in enumerate(voxel_size):
        lower = tuple(slice(None, -1) if a == axis else slice(None) for a in range(3))
        upper = tuple(slice(1, None) if a == axis else slice(None) for a in range(3))
        step = wrapped[upper] - wrapped[lower]
        flux = (step - np.float32(TWO_PI) * np.rint(step / TWO_PI)) / np.float32(size**2)
        flux *= inside[upper] & inside[lower]
        result[lower] += flux
        result[upper] -= flux
    return result


def _poisson(right_side, eigenvalues):
    spectrum = fft.dctn(right_side, workers=workers())
    spectrum /= eigenvalues
    spectrum[0, 0, 0] = 0
    return fft.idctn(spectrum, workers=workers())
