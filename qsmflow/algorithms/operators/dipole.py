"""The dipole kernel, and the field that a susceptibility distribution causes."""

import numpy as np
from scipy import fft

from qsmflow.algorithms import _kernels as kernels
from qsmflow.algorithms._threads import use_threads
from qsmflow.algorithms.operators.fourier import irfft, pad_shape, rfft


def unit_vector(b0_dir):
    """Return a direction as a float64 unit vector.

    Parameters
    ----------
    b0_dir : tuple of float
        Direction in array axes, of any length but zero.

    Returns
    -------
    ndarray of float64, shape (3,)
        Unit vector.

    Raises
    ------
    ValueError
        If the direction has not three finite components or is zero.

    Examples
    --------
    >>> unit_vector((0, 0, 2)).tolist()
    [0.0, 0.0, 1.0]
    """
    vector = np.asarray(b0_dir, np.float64)
    if vector.shape != (3,) or not np.isfinite(vector).all() or not vector.any():
        raise ValueError(
            f'b0_dir must be three finite numbers, not all zero, in array axes; got {b0_dir!r}.'
        )
    return vector / np.linalg.norm(vector)


def _frequencies(n, step, *, half):
    """Return the frequencies of an axis in 1/mm, and a copy with the Nyquist sample at zero."""
    k = fft.rfftfreq(n, step) if half else fft.fftfreq(n, step)
    odd = k.copy()
    if n % 2 == 0:
        odd[n // 2] = 0.0
    return k, odd


def dipole_kernel(shape, voxel_size, *, b0_dir=(0.0, 0.0, 1.0), real=True):
    r"""Return the dipole kernel in the Fourier domain.

    :math:`D(k) = 1/3 - (k \cdot b)^2 / |k|^2` with :math:`D(0) = 0`, so that the field of a
    susceptibility distribution is :math:`\mathcal{F}^{-1} D \mathcal{F} \chi` [1]_ [2]_. On
    Nyquist planes the mean over both signs of the frequency is taken, so that the kernel is that
    of a real operator for every direction of the field.

    Parameters
    ----------
    shape : tuple of int
        Shape (X, Y, Z) of the (padded) grid.
    voxel_size : tuple of float
        Voxel edge lengths, in mm, in array-axis order.
    b0_dir : tuple of float, optional
        Unit vector of the main field, in array axes; its sign has no effect.
    real : bool, optional
        Return the half spectrum of real transforms (default), else the full one.

    Returns
    -------
    ndarray of float32, shape (X, Y, Z // 2 + 1) or (X, Y, Z)
        Kernel, without unit, between -2/3 and 1/3.

    References
    ----------
    .. [1] Salomir R, et al. Concepts Magn Reson B 2003;19B:26-34. doi:10.1002/cmr.b.10083
    .. [2] Marques JP, Bowtell R. Concepts Magn Reson B 2005;25B:65-78.
       doi:10.1002/cmr.b.20034

    Examples
    --------
    >>> kernel = dipole_kernel((8, 8, 8), (1, 1, 1))
    >>> kernel.shape, round(float(kernel[0, 0, 1]), 4), round(float(kernel[1, 0, 0]), 4)
    ((8, 8, 5), -0.6667, 0.3333)
    """
    b = unit_vector(b0_dir)
    axes = [
        _frequencies(n, step, half=real and axis == 2)
        for axis, (n, step) in enumerate(zip(shape, voxel_size, strict=True))
    ]
    kernel = np.empty([len(k) for k, _ in axes], np.float32)
    use_threads()
    kernels.fill_dipole(kernel, *(a for axis in axes for a in axis), b)
    return kernel


def voxel_response(shape):
    r"""Return the Fourier multiplier of the average over a voxel.

    :math:`\prod_i \operatorname{sinc}(k_i v_i)` for voxel edges :math:`v_i`: what averaging over
    each voxel does to frequencies below the sampling limit.

    Parameters
    ----------
    shape : tuple of int
        Shape (X, Y, Z) of the (padded) grid.

    Returns
    -------
    ndarray of float32, shape (X, Y, Z // 2 + 1)
        Real half spectrum, from 1 at frequency zero to (2 / pi)^3 in the corners.

    Examples
    --------
    >>> voxel_response((4, 4, 4))[2, 2, 2].round(3)
    np.float32(0.258)
    """
    x, y = (np.sinc(fft.fftfreq(n)).astype(np.float32) for n in shape[:2])
    z = np.sinc(fft.rfftfreq(shape[2])).astype(np.float32)
    return x[:, None, None] * y[:, None] * z


def forward_field(chi, voxel_size, *, b0_dir=(0.0, 0.0, 1.0), pad=None):
    r"""Return the field that a susceptibility distribution causes.

    Parameters
    ----------
    chi : ndarray of float, shape (X, Y, Z)
        Susceptibility, in ppm; zero is assumed outside the grid.
    voxel_size : tuple of float
        Voxel edge lengths, in mm, in array-axis order.
    b0_dir : tuple of float, optional
        Unit vector of the main field, in array axes.
    pad : int or tuple of int, optional
        Zero voxels added on each side. Half the length of each axis by default, which doubles
        the grid.

    Returns
    -------
    ndarray of float32, shape (X, Y, Z)
        Field relative to the main field, in ppm, with the correction of the Lorentz sphere:
        inside a sphere the field is that of its surroundings.

    References
    ----------
    .. [1] Marques JP, Bowtell R. Concepts Magn Reson B 2005;25B:65-78.
       doi:10.1002/cmr.b.20034

    Examples
    --------
    >>> chi = np.zeros((16, 16, 16), np.float32)
    >>> chi[6:10, 6:10, 6:10] = 1
    >>> field = forward_field(chi, (1, 1, 1))
    >>> bool(field[8, 8, 11] > 0 > field[8, 11, 8])
    True
    """
    chi = np.asarray(chi, np.float32)
    grid = pad_shape(chi.shape, [n // 2 for n in chi.shape] if pad is None else pad)
    spectrum = rfft(chi, grid)
    spectrum *= dipole_kernel(grid, voxel_size, b0_dir=b0_dir)
    return irfft(spectrum, grid, chi.shape).copy()
