"""What a gradient-echo scan of a head measures, and the truth of every stage beside it.

The field and the signal are computed on a grid finer than the scan's, and the scan's voxels come
from the middle of its k-space, as in a scanner: partial volume, dephasing within the voxel and
truncation all arise by themselves.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise

import numpy as np

from qsmflow import io, units
from qsmflow.algorithms.operators import forward_field, workers
from qsmflow.phantom import coils, tissues
from qsmflow.phantom.grid import FineGrid, orient
from qsmflow.phantom.head import (
    CENTRE,
    FIELD_OF_VIEW,
    Head,
    Pose,
    as_voxel_size,
    centred_affine,
    make_head,
    rasterise,
)

#: Echo times of the demonstration, in s.
ECHO_TIMES = (0.004, 0.010, 0.016, 0.022, 0.028)

#: The neck goes on for this far below the field of view, in mm.
NECK = 50.0

#: Air kept on every side of the head when its field is computed, in mm.
AIR_PADDING = 24.0


@dataclass(frozen=True, eq=False)
class Acquisition:
    """One simulated gradient-echo series and its truth.

    Attributes
    ----------
    magnitude : ndarray of float32, shape (X, Y, Z, E)
        Magnitude, in a.u.
    phase : ndarray of float32, shape (X, Y, Z, E)
        Wrapped phase, in rad, in [-pi, pi).
    te : tuple of float
        Echo times, in s.
    f0 : float
        Imaging frequency, in MHz.
    affine : ndarray of float, shape (4, 4)
        Voxel indices to scanner coordinates, in mm.
    repetition_time, flip_angle : float
        In s and in degrees.
    field_strength : float
        In T.
    truth : dict of str to ndarray, shape (X, Y, Z)
        ``chi``, ``chi_para``, ``chi_dia`` (ppm, zero outside the brain), ``total_field``,
        ``local_field``, ``background_field`` (ppm, everywhere; the total includes the shim, and
        is the sum of the other two), ``r2star``, ``r2`` (1/s), ``t1`` (s), ``s0`` (a.u.),
        ``phase_offset`` (rad), ``mask`` (bool, brain), ``labels`` (uint8, see ``tissues``).
    """

    magnitude: np.ndarray
    phase: np.ndarray
    te: tuple[float, ...]
    f0: float
    affine: np.ndarray
    repetition_time: float
    flip_angle: float
    field_strength: float
    truth: dict[str, np.ndarray]

    @property
    def voxel_size(self) -> tuple[float, float, float]:
        """Voxel edge lengths, in mm."""
        return io.Volume(self.truth['mask'], self.affine).voxel_size

    @property
    def b0_dir(self) -> tuple[float, float, float]:
        """Unit vector of the main field, in array axes."""
        return io.b0_direction(self.affine)


def simulate_gre(
    head: Head,
    *,
    te=ECHO_TIMES,
    field_strength: float = 3.0,
    snr: float = 60.0,
    voxel_size=None,
    shape=None,
    rotation_deg=(0.0, 0.0, 0.0),
    axes: str = 'RAS',
    oversampling: int = 2,
    dephasing: bool = True,
    phase_offset: bool | float = True,
    offset_shape: str = 'polynomial',
    shim: bool = True,
    bias: bool = True,
    bipolar: float = 0.0,
    bad_voxels: float = 0.0,
    repetition_time: float = 0.040,
    flip_angle: float = 15.0,
    seed: int = 0,
) -> Acquisition:
    r"""Scan a head with a spoiled multi-echo gradient-echo sequence.

    The signal of echo :math:`j` is :math:`S_0 e^{-R_2^* TE_j} e^{i(\phi_0 + 2\pi f TE_j)}` with
    the steady state :math:`S_0 = M_0 \sin a (1 - E_1)/(1 - E_1 \cos a)`, on the finer grid. The
    relaxation at 3 T is carried to other fields by R2 :math:`\propto B_0^{0.5}`, R2'
    :math:`\propto B_0` and T1 :math:`\propto B_0^{0.35}`.

    Parameters
    ----------
    head : Head
        Head; only its person and pose are used, on a grid of the scan's own.
    te : sequence of float, optional
        Echo times, in s.
    field_strength : float, optional
        Main field, in T.
    snr : float, optional
        White-matter magnitude of the first echo over the noise SD of the real part; ``inf`` for
        none.
    voxel_size : float or tuple of float, optional
        Voxel edge lengths, in mm, along the head's right-left, front-back and up-down; by
        default those of ``head``.
    shape : tuple of int, optional
        Shape of the grid, in the same order; by default it covers the head.
    rotation_deg : tuple of float, optional
        Turn of the slab about the scanner's axes, in degrees: an oblique acquisition.
    axes : str, optional
        Order and sense of the array axes, such as ``'RAS'``, ``'LPS'`` or ``'PSR'`` (sagittal).
    oversampling : int, optional
        How many times finer than the scan's the grid of the physics is. At 1 the field keeps the
        ringing of sharp edges.
    dephasing : bool, optional
        Sum the signal on the finer grid. Without, it follows from the average field and
        properties of each voxel, and the signal equation holds exactly: for coarse voxels, where
        dephasing would leave nothing near the sinuses.
    phase_offset : bool or float, optional
        Smooth phase that is there at echo time zero; a number scales it.
    offset_shape : {'polynomial', 'linear', 'coils', 'waves'}, optional
        How the phase offset varies: see :func:`qsmflow.phantom.coils.phase_offset`.
    shim : bool, optional
        Take harmonic fields up to the second order out, as a scanner does over the brain.
    bias : bool, optional
        Vary the receive sensitivity smoothly.
    bipolar : float, optional
        Phase at the edges of the field of view, in rad, that even echoes have along the first
        array axis because of their opposite readout.
    bad_voxels : float, optional
        Fraction of the voxels, spread at random, whose phase is random in every echo while their
        magnitude is as it should be.
    repetition_time, flip_angle : float, optional
        In s and degrees.
    seed : int, optional
        Noise, phase offset and sensitivity.

    Returns
    -------
    Acquisition

    Raises
    ------
    ValueError
        For echo times that do not rise, an oversampling that is no whole number, a fraction
        beyond 0 to 1, an offset shape that does not exist, or impossible axes.

    References
    ----------
    Marques JP, et al. Magn Reson Med 2021;86:526-542. doi:10.1002/mrm.28716
    """
    te = _check_echo_times(te)
    if oversampling != int(oversampling) or oversampling < 1:
        raise ValueError(f'oversampling must be a whole number from 1; got {oversampling:g}.')
    if not 0 <= bad_voxels <= 1:
        raise ValueError(f'bad_voxels is a fraction from 0 to 1; got {bad_voxels:g}.')
    size = as_voxel_size(voxel_size if voxel_size is not None else head.voxel_size)
    if shape is None:
        shape = tuple(round(f / v) for f, v in zip(FIELD_OF_VIEW, size, strict=True))
    shape, affine = orient(shape, centred_affine(shape, size, rotation_deg), axes)
    grid = FineGrid.make(shape, affine, int(oversampling))
    random = np.random.default_rng([seed, 11])
    fine = _scan_tissue(
        rasterise(head.person, head.pose, grid.shape, grid.affine),
        grid, field_strength, repetition_time, flip_angle,
    )  # fmt: skip
    if bias:
        fine.s0 *= coils.receive_bias(random, grid)
    truth = fine.truth
    truth['s0'] = grid.average(fine.s0)
    total = _fields(fine, head, grid, truth)
    if shim:
        total -= _shim_field(total, fine.mask, grid)
    truth['total_field'] = grid.average(total)
    truth['background_field'] = truth['total_field'] - truth['local_field']
    offset = float(phase_offset) * coils.phase_offset(random, grid, offset_shape)
    truth['phase_offset'] = grid.average(offset)

    if not dephasing:
        grid = FineGrid.make(shape, affine, 1)
        fine = replace(fine, s0=truth['s0'], r2star=truth['r2star'])
        total, offset = truth['total_field'], truth['phase_offset']
    f0 = units.imaging_frequency(field_strength)
    echoes = np.empty((*shape, len(te)), np.complex64)
    for index, time in enumerate(te):
        turn = offset
        if bipolar and index % 2:
            turn = offset + np.float32(bipolar) * grid.coordinates()[0]
        signal = _signal(fine, total, turn, time, units.radians_per_ppm(time, f0))
        echoes[..., index] = grid.crop_kspace(signal)
        del signal
    magnitude, phase = _add_noise(echoes, truth, snr, random)
    if bad_voxels:
        _spoil_phase(phase, bad_voxels, np.random.default_rng([seed, 29]))
    return Acquisition(
        magnitude=magnitude,
        phase=phase,
        te=te,
        f0=f0,
        affine=affine,
        repetition_time=repetition_time,
        flip_angle=flip_angle,
        field_strength=field_strength,
        truth=truth,
    )


def _check_echo_times(te):
    te = tuple(float(t) for t in np.atleast_1d(te))
    if te[0] <= 0 or any(b <= a for a, b in pairwise(te)):
        raise ValueError(f'echo times must be positive and rise; got {te}.')
    if te[-1] > 1:
        raise ValueError(f'echo times are in s; got {te}, which look like ms.')
    return te


@dataclass(eq=False)
class _ScanTissue:
    """What a scan needs of a head on the fine grid; the rest is in the truth already."""

    chi: np.ndarray
    s0: np.ndarray
    r2star: np.ndarray
    mask: np.ndarray
    truth: dict[str, np.ndarray]


def _scan_tissue(fine, grid, field_strength, repetition_time, flip_angle):
    ratio = field_strength / 3.0
    r2 = np.float32(ratio**0.5) * fine.r2
    r2star = r2 + np.float32(ratio) * fine.r2prime
    t1 = fine.t1 * np.float32(ratio**0.35)
    mask = grid.average(fine.brain_mask) > 0.5
    para = grid.average(fine.chi_para * fine.brain_mask) * mask
    dia = grid.average(fine.chi_dia * fine.brain_mask) * mask
    truth = {
        'chi': para + dia,
        'chi_para': para,
        'chi_dia': dia,
        'r2star': _water_average(grid, r2star, fine.m0),
        'r2': _water_average(grid, r2, fine.m0),
        't1': _water_average(grid, t1, fine.m0),
        'mask': mask,
        'labels': grid.majority(fine.labels * fine.brain_mask) * mask,
    }
    s0 = steady_state(fine.m0, t1, repetition_time, flip_angle)
    return _ScanTissue(fine.chi, s0, r2star, fine.brain_mask, truth)


def _water_average(grid, volume, weight):
    """Average over the water of each voxel: what holds none has no say."""
    water = grid.average(weight)
    mean = grid.average(volume * weight) / np.maximum(water, np.float32(1e-6))
    return np.where(water > 1e-3, mean, np.float32(0))


def _fields(fine, head, grid, truth):
    """Return the total field, in ppm, and enter that of the brain alone in the truth."""
    size = np.linalg.norm(grid.affine[:3, :3], axis=0)
    b0_dir = io.b0_direction(grid.affine)
    pad = tuple(int(np.ceil(AIR_PADDING / v)) for v in size)
    local = forward_field(fine.chi * fine.mask, size, b0_dir=b0_dir, pad=pad)
    truth['local_field'] = grid.average(local)
    del local
    # Relative to air, so that the surroundings of the head are zero.
    chi, crop = _with_neck(fine.chi, head, grid)
    chi -= np.float32(tissues.CHI_AIR)
    return np.ascontiguousarray(forward_field(chi, size, b0_dir=b0_dir, pad=pad)[crop])


def _with_neck(chi, head, grid):
    """Return the susceptibility of the head with more of the neck, and where the grid is in it."""
    down = -np.asarray(grid.affine[2, :3])
    axis = int(np.abs(down).argmax())
    extra = int(np.ceil(NECK / np.linalg.norm(grid.affine[:3, axis])))
    at_end = down[axis] > 0
    neck_shape = tuple(extra if k == axis else n for k, n in enumerate(grid.shape))
    affine = grid.affine.copy()
    affine[:3, 3] += grid.affine[:3, axis] * (grid.shape[axis] if at_end else -extra)
    neck = rasterise(head.person, head.pose, neck_shape, affine).chi
    start = 0 if at_end else extra
    crop = [slice(None)] * 3
    crop[axis] = slice(start, start + grid.shape[axis])
    return np.concatenate((chi, neck) if at_end else (neck, chi), axis=axis), tuple(crop)


def _shim_field(total, mask, grid):
    """Fit harmonic polynomials up to the second order over the brain; return them everywhere."""
    matrix, offset = grid.affine[:3, :3] / 80, (grid.affine[:3, 3] - CENTRE) / 80

    def harmonics(index):
        x, y, z = (
            sum(np.float32(matrix[r, c]) * index[c] for c in range(3)) + np.float32(offset[r])
            for r in range(3)
        )
        return (np.float32(1), x, y, z, x * y, x * z, y * z, x * x - y * y,
                2 * z * z - x * x - y * y)  # fmt: skip

    # A voxel in about 6 mm is plenty for nine coefficients.
    step = max(1, round(6.0 / float(np.linalg.norm(grid.affine[:3, 0]))))
    sparse = tuple(slice((n - 1) % step // 2, None, step) for n in grid.shape)
    chosen = mask[sparse]
    index = [k[sparse][chosen] for k in np.broadcast_arrays(*_open_index(grid.shape))]
    design = np.stack([np.broadcast_to(h, index[0].shape) for h in harmonics(index)], axis=1)
    factors = np.linalg.lstsq(design.astype(float), total[sparse][chosen], rcond=None)[0]
    result = np.zeros_like(total)
    for factor, basis in zip(factors, harmonics(_open_index(grid.shape)), strict=True):
        result += np.float32(factor) * basis
    return result


def _open_index(shape):
    axes = [np.arange(n, dtype=np.float32) for n in shape]
    return np.meshgrid(*axes, indexing='ij', sparse=True)


def steady_state(m0, t1, repetition_time, flip_angle):
    """Return the signal of a spoiled gradient echo at echo time zero.

    Parameters
    ----------
    m0 : ndarray of float
        Proton density, in a.u.
    t1 : ndarray of float
        Longitudinal relaxation time, in s.
    repetition_time : float
        In s.
    flip_angle : float
        In degrees.

    Returns
    -------
    ndarray of float
        In the unit of ``m0``.

    Examples
    --------
    >>> float(steady_state(np.array(1.0), np.array(0.8), 0.04, 15.0))
    0.1555
    """
    angle = np.deg2rad(flip_angle)
    e1 = np.exp(-repetition_time / t1)
    return m0 * np.float32(np.sin(angle)) * (1 - e1) / (1 - np.float32(np.cos(angle)) * e1)


def _signal(fine, total, offset, te, per_ppm):
    """Return the complex signal of one echo, slab by slab."""
    signal = np.empty(total.shape, np.complex64)

    def fill(i):
        size = fine.s0[i] * np.exp(np.float32(-te) * fine.r2star[i])
        angle = np.float32(per_ppm) * total[i] + offset[i]
        signal.real[i] = size * np.cos(angle)
        signal.imag[i] = size * np.sin(angle)

    with ThreadPoolExecutor(workers()) as pool:
        list(pool.map(fill, range(total.shape[0])))
    return signal


def _add_noise(echoes, truth, snr, random):
    white = truth['labels'] == tissues.WHITE.label
    level = float(np.abs(echoes[white, 0]).mean()) if white.any() else 1.0
    # White matter of the first echo at 1000 a.u., whatever the sequence.
    echoes *= np.float32(1000.0 / level)
    truth['s0'] = truth['s0'] * np.float32(1000.0 / level)
    if np.isfinite(snr):
        for part in (echoes.real, echoes.imag):
            part += np.float32(1000.0 / snr) * random.standard_normal(part.shape, np.float32)
    phase = np.angle(echoes)
    phase[phase >= np.float32(np.pi)] -= np.float32(2 * np.pi)
    return np.abs(echoes), np.clip(phase, -np.pi, None).astype(np.float32)


def _spoil_phase(phase, fraction, random):
    bad = random.random(phase.shape[:3], np.float32) < fraction
    values = random.uniform(-np.pi, np.pi, (np.count_nonzero(bad), phase.shape[3]))
    # Rounding to float32 must not reach +pi, which is the same as -pi.
    phase[bad] = np.clip(values, -3.1415925, 3.1415925)


def simulate_t1w(
    head: Head, *, voxel_size=1.0, shape=None, rotation_deg=(0.0, 0.0, 0.0), axes='RAS',
    snr: float = 80.0, seed: int = 0,
) -> io.Volume:  # fmt: skip
    """Take a T1-weighted image of a head: short repetition time, large flip angle.

    Parameters
    ----------
    head : Head
        Head; only its person and pose are used.
    voxel_size, shape, rotation_deg, axes
        Grid, as of :func:`simulate_gre`.
    snr : float, optional
        White-matter magnitude over the noise SD.
    seed : int, optional
        Noise.

    Returns
    -------
    io.Volume
        Magnitude, in a.u., float32.
    """
    size = as_voxel_size(voxel_size)
    if shape is None:
        shape = tuple(round(f / v) for f, v in zip(FIELD_OF_VIEW, size, strict=True))
    shape, affine = orient(shape, centred_affine(shape, size, rotation_deg), axes)
    grid = FineGrid.make(shape, affine, 1)
    fine = rasterise(head.person, head.pose, grid.shape, grid.affine)
    image = steady_state(fine.m0, fine.t1, 0.020, 25.0) * np.exp(np.float32(-0.003) * fine.r2star)
    image *= 1000.0 / image[fine.labels == tissues.WHITE.label].mean()
    random = np.random.default_rng([seed, 13])
    noise = random.standard_normal((2, *image.shape), np.float32) * np.float32(1000.0 / snr)
    return io.Volume(np.hypot(image + noise[0], noise[1]).astype(np.float32), affine)


@lru_cache(maxsize=8)
def small_acquisition(
    *,
    shape=(48, 56, 48),
    voxel_size=4.0,
    seed: int = 1,
    te=ECHO_TIMES,
    field_strength: float = 3.0,
    snr: float = 60.0,
    rotation_deg=(0.0, 0.0, 0.0),
    axes: str = 'RAS',
    phase_offset: bool | float = True,
    dephasing: bool = False,
) -> Acquisition:
    """Return a quick, coarse scan for tests, made once in a process.

    Its arrays are shared between callers and must not be changed.

    Parameters
    ----------
    shape : tuple of int, optional
        Shape of the grid, right-left, front-back, up-down.
    voxel_size : float, optional
        Voxel edge length, in mm.
    seed : int, optional
        Anatomy and noise.
    te, field_strength, snr, rotation_deg, axes, phase_offset, dephasing
        As of :func:`simulate_gre`.

    Returns
    -------
    Acquisition
    """
    head = make_head(voxel_size=16.0, seed=seed, pose=Pose())
    acquisition = simulate_gre(
        head, te=te, field_strength=field_strength, snr=snr, voxel_size=voxel_size, shape=shape,
        rotation_deg=rotation_deg, axes=axes, phase_offset=phase_offset,
        dephasing=dephasing, seed=seed,
    )  # fmt: skip
    for array in (acquisition.magnitude, acquisition.phase, *acquisition.truth.values()):
        array.flags.writeable = False
    return acquisition
