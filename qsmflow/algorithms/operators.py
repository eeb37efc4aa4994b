r"""Linear operators on volumes: Fourier transforms, the dipole kernel, stencils and spheres.

Spectra are half spectra of real volumes (:func:`scipy.fft.rfftn` layout). Data sits at the start
of a padded grid; as all operators are periodic on that grid, the padding at the end separates
the object from its periodic images on both sides. The finite differences are periodic as well,
so that each is diagonal in the Fourier domain and has an exact adjoint.
"""

import math
import os

# The threads of compiled loops would else keep their processors busy for a while after each loop,
# waiting for the next one, and the Fourier transforms, which have threads of their own, would have
# to share them: twice the time in all. Counts if no OpenMP is loaded yet.
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')

import numba
import numpy as np
from scipy import fft

from qsmflow.algorithms import _kernels as kernels

# --- threads and Fourier transforms ---------------------------------------------------------


def workers():
    """Return the number of threads that the numerical code may use.

    The environment variable ``OMP_NUM_THREADS`` decides where it is set to a positive number,
    else the processors that this process may run on.

    Returns
    -------
    int
        Number of threads, at least 1.

    Examples
    --------
    >>> workers() >= 1
    True
    """
    wanted = os.environ.get('OMP_NUM_THREADS', '').split(',')[0].strip()
    if wanted.isdigit() and int(wanted) > 0:
        return int(wanted)
    if hasattr(os, 'sched_getaffinity'):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def use_threads():
    """Let the compiled kernels use as many threads as :func:`workers` allows.

    Returns
    -------
    int
        Number of threads in use.
    """
    threads = min(workers(), numba.config.NUMBA_NUM_THREADS)
    numba.set_num_threads(threads)
    return threads


def pad_shape(shape, pad):
    """Return the shape of a grid padded on every side, rounded up to fast transform lengths.

    Parameters
    ----------
    shape : tuple of int
        Shape of the data.
    pad : int or tuple of int
        Voxels wanted on each side of an axis.

    Returns
    -------
    tuple of int
        Shape of the padded grid, at least ``shape + 2 * pad``.

    Examples
    --------
    >>> pad_shape((100, 101, 30), 4)
    (108, 120, 40)
    """
    pads = (pad,) * len(shape) if np.isscalar(pad) else tuple(pad)
    return tuple(
        int(fft.next_fast_len(int(n + 2 * p), real=True)) for n, p in zip(shape, pads, strict=True)
    )


def rfft(volume, shape=None):
    """Return the half spectrum of a real volume, zero-padded at the end to ``shape``.

    Parameters
    ----------
    volume : ndarray of float32, shape (X, Y, Z)
        Real volume.
    shape : tuple of int, optional
        Shape of the padded grid; that of ``volume`` by default.

    Returns
    -------
    ndarray of complex64, shape (X', Y', Z' // 2 + 1)
        Half spectrum.
    """
    return fft.rfftn(volume, s=shape, workers=workers())


def irfft(spectrum, shape):
    """Return the real volume of a half spectrum, **overwriting** the spectrum.

    Parameters
    ----------
    spectrum : ndarray of complex64, shape (X', Y', Z' // 2 + 1)
        Half spectrum; its content is lost, which saves one volume of memory.
    shape : tuple of int
        Shape of the padded grid.

    Returns
    -------
    ndarray of float32, shape ``shape``
        Real volume.
    """
    threads = workers()
    partial = fft.ifftn(spectrum, axes=(0, 1), overwrite_x=True, workers=threads)
    return fft.irfft(partial, n=shape[2], axis=2, overwrite_x=True, workers=threads)


def convolve(volume, multiplier):
    """Return a real volume whose half spectrum is multiplied by a real one.

    Parameters
    ----------
    volume : ndarray of float32, shape (X, Y, Z)
        Real volume.
    multiplier : ndarray of float32, shape (X, Y, Z // 2 + 1)
        Real half spectrum, such as :func:`dipole_kernel`.

    Returns
    -------
    ndarray of float32, shape (X, Y, Z)
        New volume.

    Examples
    --------
    >>> volume = np.ones((4, 4, 4), np.float32)
    >>> float(convolve(volume, np.full((4, 4, 3), 2, np.float32)).max())
    2.0
    """
    spectrum = rfft(volume)
    use_threads()
    kernels.filter_spectrum(spectrum, multiplier)
    return irfft(spectrum, volume.shape)


def crop(volume, shape):
    """Return the data part of a padded volume, as a view of its first voxels."""
    return volume[tuple(slice(n) for n in shape)]


def bounding_box(mask):
    """Return the slices of the smallest box that holds a mask.

    Parameters
    ----------
    mask : ndarray of bool, shape (X, Y, Z)
        Mask, not empty.

    Returns
    -------
    tuple of slice
        One slice for each axis.

    Examples
    --------
    >>> mask = np.zeros((5, 5, 5), bool)
    >>> mask[1:3, 2, 0:4] = True
    >>> bounding_box(mask)
    (slice(1, 3, None), slice(2, 3, None), slice(0, 4, None))
    """
    box = []
    for axis in range(mask.ndim):
        others = tuple(a for a in range(mask.ndim) if a != axis)
        inside = np.flatnonzero(mask.any(axis=others))
        box.append(slice(int(inside[0]), int(inside[-1]) + 1))
    return tuple(box)


def pad_to(volume, grid):
    """Return a new volume with zeros added at the end of each axis up to the shape ``grid``."""
    out = np.zeros(grid, volume.dtype)
    crop(out, volume.shape)[:] = volume
    return out


# --- dipole ---------------------------------------------------------------------------------


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
    return crop(irfft(spectrum, grid), chi.shape).copy()


# --- stencils -------------------------------------------------------------------------------


def _inverse_steps(voxel_size, power=1):
    steps = np.ones(3) if voxel_size is None else np.asarray(voxel_size, np.float64)
    return tuple(np.float32(s) for s in 1.0 / steps**power)


def gradient(volume, voxel_size=None, *, out=None):
    """Return the periodic forward differences of a volume.

    Parameters
    ----------
    volume : ndarray of float32, shape (X, Y, Z)
        Volume, C-contiguous.
    voxel_size : tuple of float, optional
        Voxel edge lengths, in mm: the result is per mm. Per voxel by default.
    out : ndarray of float32, shape (3, X, Y, Z), optional
        Array for the result.

    Returns
    -------
    ndarray of float32, shape (3, X, Y, Z)
        Differences along each axis. The adjoint is ``-divergence``.

    Examples
    --------
    >>> gradient(np.eye(3, dtype=np.float32)[None])[2, 0, 0].tolist()
    [-1.0, 0.0, 1.0]
    """
    volume = np.ascontiguousarray(volume, np.float32)
    if out is None:
        out = np.empty((3, *volume.shape), np.float32)
    use_threads()
    kernels.gradient(volume, *_inverse_steps(voxel_size), out)
    return out


def divergence(vector, voxel_size=None, *, out=None):
    """Return the periodic divergence by backward differences, the negative adjoint of `gradient`.

    Parameters
    ----------
    vector : ndarray of float32, shape (3, X, Y, Z)
        Vector field.
    voxel_size : tuple of float, optional
        Voxel edge lengths, in mm: the result is per mm. Per voxel by default.
    out : ndarray of float32, shape (X, Y, Z), optional
        Array for the result.

    Returns
    -------
    ndarray of float32, shape (X, Y, Z)
        Divergence.

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(size=(4, 5, 6)).astype(np.float32)
    >>> bool(np.allclose(divergence(gradient(x)), laplacian(x), atol=1e-5))
    True
    """
    vector = np.ascontiguousarray(vector, np.float32)
    if out is None:
        out = np.empty(vector.shape[1:], np.float32)
    use_threads()
    kernels.divergence(vector, *_inverse_steps(voxel_size), out)
    return out


def laplacian(volume, voxel_size=None, *, out=None):
    """Return the periodic seven-point Laplacian, which is its own adjoint.

    Parameters
    ----------
    volume : ndarray of float32, shape (X, Y, Z)
        Volume.
    voxel_size : tuple of float, optional
        Voxel edge lengths, in mm: the result is per square mm. Per voxel by default.
    out : ndarray of float32, shape (X, Y, Z), optional
        Array for the result.

    Returns
    -------
    ndarray of float32, shape (X, Y, Z)
        Laplacian.

    Examples
    --------
    >>> bool(laplacian(np.full((4, 4, 4), 3, np.float32)).any())
    False
    """
    volume = np.ascontiguousarray(volume, np.float32)
    if out is None:
        out = np.empty(volume.shape, np.float32)
    use_threads()
    kernels.laplacian(volume, *_inverse_steps(voxel_size, 2), out)
    return out


def laplacian_eigenvalues(shape, voxel_size=None):
    r"""Return the eigenvalues of the negative Laplacian of each axis, for half spectra.

    Their outer sum :math:`L` is the Fourier multiplier of ``-laplacian`` and of
    ``-divergence(gradient(...))``.

    Parameters
    ----------
    shape : tuple of int
        Shape (X, Y, Z) of the grid.
    voxel_size : tuple of float, optional
        Voxel edge lengths, in mm. Ones by default.

    Returns
    -------
    tuple of ndarray of float32
        Three arrays, of X, Y and Z // 2 + 1 values, not negative.

    Examples
    --------
    >>> [len(a) for a in laplacian_eigenvalues((4, 5, 6))]
    [4, 5, 4]
    """
    steps = (1.0, 1.0, 1.0) if voxel_size is None else voxel_size
    counts = (shape[0], shape[1], shape[2] // 2 + 1)
    return tuple(
        (4.0 * np.sin(math.pi * np.arange(count) / n) ** 2 / step**2).astype(np.float32)
        for n, count, step in zip(shape, counts, steps, strict=True)
    )


# --- spheres --------------------------------------------------------------------------------


def smv_kernel(shape, voxel_size, radius):
    """Return the spectrum of the mean over a sphere, the spherical mean value (SMV).

    Voxels on the surface count by the part of them that lies inside the sphere.

    Parameters
    ----------
    shape : tuple of int
        Shape (X, Y, Z) of the (padded) grid.
    voxel_size : tuple of float
        Voxel edge lengths, in mm, in array-axis order.
    radius : float
        Radius of the sphere, in mm.

    Returns
    -------
    ndarray of float32, shape (X, Y, Z // 2 + 1)
        Real half spectrum; 1 at frequency zero.

    Raises
    ------
    ValueError
        If the radius is not positive or the sphere does not fit into the grid.

    References
    ----------
    .. [1] Schweser F, et al. NeuroImage 2011;54:2789-2807.
       doi:10.1016/j.neuroimage.2010.10.070

    Examples
    --------
    >>> float(smv_kernel((16, 16, 16), (1, 1, 1), 3)[0, 0, 0])
    1.0
    """
    octant = smv_octant(shape, voxel_size, radius)
    fold = [np.minimum(np.arange(n), n - np.arange(n)) for n in shape[:2]]
    return np.ascontiguousarray(octant[np.ix_(*fold)])


def smv_octant(shape, voxel_size, radius):
    """Return the spectrum of the mean over a sphere at the frequencies that are not negative.

    The spectrum is even along each axis, so that this eighth holds all of :func:`smv_kernel`.

    Parameters
    ----------
    shape : tuple of int
        Shape (X, Y, Z) of the (padded) grid.
    voxel_size : tuple of float
        Voxel edge lengths, in mm, in array-axis order.
    radius : float
        Radius of the sphere, in mm.

    Returns
    -------
    ndarray of float32, shape (X // 2 + 1, Y // 2 + 1, Z // 2 + 1)
        Real spectrum; 1 at frequency zero.

    Raises
    ------
    ValueError
        If the radius is not positive or the sphere does not fit into the grid.

    Examples
    --------
    >>> octant = smv_octant((16, 12, 9), (1, 1, 1), 3)
    >>> octant.shape, float(octant[0, 0, 0])
    ((9, 7, 5), 1.0)
    """
    weights = sphere_weights(voxel_size, radius)
    span = tuple(2 * n - 1 for n in weights.shape)
    if any(s > n for s, n in zip(span, shape, strict=True)):
        raise ValueError(
            f'A sphere of radius {radius:g} mm spans {span} voxels and does not fit into '
            f'a grid of {tuple(shape)}. Take a smaller radius or pad the grid.'
        )
    # The few voxels of a sphere are quicker summed as cosines, axis by axis, than transformed.
    for n in shape:
        phases = np.outer(np.arange(weights.shape[0]), np.arange(n // 2 + 1)) * (2 * math.pi / n)
        cosines = np.cos(phases)
        cosines[1:] *= 2
        weights = np.tensordot(weights, cosines, axes=(0, 0))
    return weights.astype(np.float32)


def sphere_weights(voxel_size, radius, parts=6):
    """Return the share of the voxels of an octant in a sphere, normalised over the whole sphere.

    Parameters
    ----------
    voxel_size : tuple of float
        Voxel edge lengths, in mm, in array-axis order.
    radius : float
        Radius of the sphere, in mm.
    parts : int, optional
        Parts along each edge by which a voxel on the surface is judged.

    Returns
    -------
    ndarray of float64, shape (I, J, K)
        Weights of the voxels at offsets (i, j, k) that are not negative, the centre first. The
        others follow by symmetry; all together sum to 1.

    Raises
    ------
    ValueError
        If the radius is not positive.

    Examples
    --------
    >>> sphere_weights((1, 1, 1), 0.4).tolist()
    [[[1.0]]]
    """
    if not radius > 0:
        raise ValueError(f'The radius of a sphere must be positive, in mm; got {radius!r}.')
    offsets = (np.arange(parts) + 0.5) / parts - 0.5
    squares, number = [], []
    for step in voxel_size:
        half = math.floor(radius / step + 0.5)
        squares.append((((np.arange(half + 1)[:, None] + offsets) * step) ** 2).ravel())
        number.append(half + 1)
    weights = np.empty(number)
    for i in range(number[0]):  # one slab at a time keeps the fine grid small
        slab = squares[0][i * parts : (i + 1) * parts, None, None] + squares[1][:, None]
        inside = (slab + squares[2] <= radius**2).reshape(
            parts, number[1], parts, number[2], parts
        )
        weights[i] = inside.sum(axis=(0, 2, 4))
    if not weights.any():
        return np.ones((1, 1, 1))
    copies = np.ones(1)
    for n in number:
        copies = np.multiply.outer(copies, np.where(np.arange(n) > 0, 2.0, 1.0))
    return weights / (weights * copies[0]).sum()
