"""Checks of what the images show: clipping, interpolation, a brain that is cut, motion."""

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import ndimage

from qsmflow.algorithms.masking import robust_mask
from qsmflow.algorithms.phase import PhaseScaling, scale_to_radians
from qsmflow.bids.checks_files import ImageFacts
from qsmflow.bids.checks_metadata import Echo, SourceFile
from qsmflow.bids.findings import Finding
from qsmflow.io import load_volume

#: Share of a magnitude's voxels at its largest value that only clipping explains, and how many
#: times more than in a band of 2 % below it.
MAX_CLIPPED, CLIPPED_SPIKE = 1e-5, 2.0
#: Share of the measured part of k-space below which the matrix counts as interpolated.
MIN_OCCUPANCY = 0.6
#: Fall of the power at the border of the measured k-space, as a factor.
CLIFF = 20.0
#: Area of the object in an outer slice, as a share of its largest area along that axis, that only
#: a cut through the head explains: 15 mm below the top of the scalp it is 0.3.
MAX_CUT = 0.3
#: The outermost slices of a slab may be dark: all within this depth count, in mm, but no more
#: than this part of the image.
CUT_DEPTH, CUT_PART = 4.0, 1 / 32
#: Shift between echoes that is told, in mm and in blocks of voxels.
MAX_SHIFT, MAX_SHIFT_BLOCKS = 1.0, 0.5
#: Ratio of the mean magnitude of one echo to that of the echo before that decay can explain.
DECAY = (0.05, 1.1)
#: Lines of voxels that are looked at along each axis.
_LINES = 3000
_SIDES = (('left', 'right'), ('posterior', 'anterior'), ('inferior', 'superior'))


def check_kind(fact: ImageFacts, source: SourceFile) -> list[Finding]:
    """Check that an image is complex if its series is, and only then (``C61``)."""
    if (fact.kind == 'c') == (source.part == 'complex'):
        return []
    what, others = ('complex', 'real') if fact.kind == 'c' else ('real', 'complex')
    message = f'holds {what} voxels, while the series needs {others} ones'
    remedy = (
        'Save magnitude and phase of every echo as two images, with part-mag and part-phase; or '
        'every echo as a complex image without a part entity.'
    )
    evidence = {'kind': fact.kind, 'part': source.entities.get('part', 'none')}
    return [Finding('C61', 'ERROR', message, source.relative, evidence, remedy)]


def check_signal(
    echoes: Sequence[Echo],
    volumes: Sequence[int] | None,
    facts: Mapping[str, ImageFacts],
    scaling: PhaseScaling | None,
) -> list[Finding]:
    """Check what the images of a series show.

    Parameters
    ----------
    echoes : sequence of Echo
        Echoes in the order of their times.
    volumes : sequence of int or None
        Position of each echo in a 4-D image.
    facts : mapping of ImageFacts
        Measured numbers by relative path.
    scaling : PhaseScaling or None
        How stored phase becomes radians; None for real and imaginary images.

    Returns
    -------
    list of Finding
        ``C60`` clipped, ``C74`` interpolated, ``C75`` cut, ``D88`` shifted between echoes,
        ``MAGTE`` no decay.
    """
    magnitudes = [echo.files['mag'] for echo in echoes if 'mag' in echo.files]
    findings = []
    for source in {source.relative: source for source in magnitudes}.values():
        findings += check_clipping(facts[source.relative], source.relative)
    first = magnitudes[0] if magnitudes else echoes[0].files.get('complex')
    if first is not None:
        findings += check_cut(facts[first.relative], first.relative)
    if volumes is None:
        own = [facts[source.relative] for source in magnitudes]
        findings += check_motion(own, magnitudes) + check_decay(own, magnitudes)
    return findings + _check_matrix(echoes[0], volumes, facts, scaling)


def check_clipping(fact: ImageFacts, name: str) -> list[Finding]:
    """Check whether many voxels of a magnitude share the largest value (``C60``)."""
    total = math.prod(fact.shape)
    spike = fact.at_maximum / max(fact.near_maximum, 1)
    if fact.at_maximum < max(10, MAX_CLIPPED * total) or spike < CLIPPED_SPIKE:
        return []
    evidence = {
        'value': fact.maximum,
        'voxels': fact.at_maximum,
        'fraction': fact.at_maximum / total,
        'within_2_percent_below': fact.near_maximum,
    }
    message = 'the magnitude is clipped: many voxels share the largest value'
    remedy = 'Export it with a smaller scale; R2* is wrong in these voxels.'
    return [Finding('C60', 'WARN', message, name, evidence, remedy)]


def check_cut(fact: ImageFacts, name: str) -> list[Finding]:
    """Check whether the head goes on beyond the field of view, other than at the neck (``C75``).

    Slices are compared with the largest one along their axis. The lower end is not judged: it
    cuts through the neck, or through the head, which look alike.
    """
    small = fact.small
    if small is None or min(small.shape) < 8:
        return []
    inside = robust_mask(small)
    if not inside.any():
        return []
    voxel = np.linalg.norm(fact.affine[:3, :3], axis=0)
    turn = np.abs(fact.affine[:3, :3]) / voxel
    blocks = voxel * [-(-n // m) for n, m in zip(fact.shape, small.shape, strict=False)]
    cut = {}
    for axis in range(3):
        world = int(np.argmax(turn[:, axis]))
        area = inside.sum(axis=tuple(other for other in range(3) if other != axis))
        depth = max(1, int(min(CUT_DEPTH // blocks[axis], area.size * CUT_PART)))
        ends = [area[:depth].max() / area.max(), area[-depth:].max() / area.max()]
        if fact.affine[world, axis] < 0:
            ends.reverse()
        for side, share in zip(_SIDES[world], ends, strict=True):
            if side != 'inferior' and share > MAX_CUT:
                cut[side] = round(float(share), 2)
    if not cut:
        return []
    edges = np.array(fact.shape[:3]) * voxel
    evidence = {'area_at_the_border': cut, 'field_of_view_mm': [round(float(e)) for e in edges]}
    message = f'the head is cut by the field of view ({", ".join(cut)})'
    remedy = (
        'Values near the cut are not reliable, and background removal works less well; see the '
        'coverage of the regions in the table.'
    )
    return [Finding('C75', 'WARN', message, name, evidence, remedy)]


def check_motion(facts: Sequence[ImageFacts], sources: Sequence[SourceFile]) -> list[Finding]:
    """Check whether the head lies elsewhere in a later echo than in the first (``D88``)."""
    if len(facts) < 2 or facts[0].small is None or min(facts[0].small.shape) < 8:
        return []
    blocks = [-(-n // m) for n, m in zip(facts[0].shape, facts[0].small.shape, strict=False)]
    edges = np.linalg.norm(facts[0].affine[:3, :3], axis=0) * blocks
    shifts = [image_shift(facts[0].small, fact.small) for fact in facts[1:]]
    lengths = [float(np.linalg.norm(shift * edges)) for shift in shifts]
    worst = int(np.argmax(lengths))
    if lengths[worst] < MAX_SHIFT or np.abs(shifts[worst]).max() < MAX_SHIFT_BLOCKS:
        return []
    evidence = {'shift_mm': [round(length, 2) for length in lengths], 'limit_mm': MAX_SHIFT}
    message = 'the head lies elsewhere than in the first echo: motion, or echoes of several scans'
    remedy = 'Look at the figures; leave the echo out with --echoes, or scan again.'
    return [Finding('D88', 'WARN', message, sources[worst + 1].relative, evidence, remedy)]


def check_decay(facts: Sequence[ImageFacts], sources: Sequence[SourceFile]) -> list[Finding]:
    """Check whether the magnitude decays from echo to echo (``MAGTE``)."""
    if len(facts) < 2 or any(fact.small is None for fact in facts):
        return []
    inside = facts[0].small > 0.1 * np.percentile(facts[0].small, 99)
    if not inside.any() or any(fact.small.shape != inside.shape for fact in facts):
        return []
    means = [float(fact.small[inside].mean()) for fact in facts]
    ratios = [b / a if a > 0 else math.inf for a, b in itertools.pairwise(means)]
    wrong = [n for n, ratio in enumerate(ratios) if not DECAY[0] <= ratio <= DECAY[1]]
    if not wrong:
        return []
    evidence = {'mean_magnitude': [float(f'{mean:.4g}') for mean in means]}
    message = 'the magnitude does not decay from the echo before'
    remedy = 'Check the echo times, and export the echoes with one scale: R2* is wrong otherwise.'
    name = sources[wrong[0] + 1].relative
    return [Finding('MAGTE', 'WARN', message, name, evidence, remedy)]


def image_shift(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return by how many voxels the second image is shifted against the first.

    The peak of the correlation of the two gradients' magnitudes, with parabolas through its
    neighbours for parts of a voxel.

    Parameters
    ----------
    first, second : ndarray, shape (X, Y, Z)
        Two images of like contrast.

    Returns
    -------
    ndarray of float, shape (3,)
        Shift in voxels, along each axis up to half of the image.

    Examples
    --------
    >>> image = np.random.default_rng(0).normal(size=(16, 16, 16))
    >>> image_shift(image, np.roll(image, (2, 0, -1), (0, 1, 2))).round().tolist()
    [2.0, 0.0, -1.0]
    """
    spectra = [np.fft.rfftn(_edges(image)) for image in (first, second)]
    match = np.fft.irfftn(np.conj(spectra[0]) * spectra[1], first.shape, axes=(0, 1, 2))
    peak = np.unravel_index(int(np.argmax(match)), match.shape)
    shift = np.zeros(3)
    for axis, (place, size) in enumerate(zip(peak, match.shape, strict=True)):
        line = [match[tuple((p + (d if a == axis else 0)) % match.shape[a]
                            for a, p in enumerate(peak))] for d in (-1, 0, 1)]  # fmt: skip
        bend = line[0] - 2 * line[1] + line[2]
        part = 0.5 * (line[0] - line[2]) / bend if bend < 0 else 0.0
        shift[axis] = (place + size // 2) % size - size // 2 + part
    return shift


def _edges(image: np.ndarray) -> np.ndarray:
    """Return the strength of the edges of an image, about zero mean and of unit size."""
    edges = ndimage.gaussian_gradient_magnitude(np.asarray(image, np.float32), 1.0)
    edges -= edges.mean()
    return edges / max(float(np.linalg.norm(edges)), 1e-12)


def _check_matrix(
    echo: Echo,
    volumes: Sequence[int] | None,
    facts: Mapping[str, ImageFacts],
    scaling: PhaseScaling | None,
) -> list[Finding]:
    """Check whether the matrix was enlarged by zeros in k-space (``C74``)."""
    signal = _complex_signal(echo, volumes, scaling)
    if signal is None:
        return []
    name = echo.leader.relative
    measured = [measured_share(signal, axis) for axis in range(3)]
    occupancy = math.prod(measured)
    if occupancy >= MIN_OCCUPANCY:
        return []
    edges = np.linalg.norm(facts[name].affine[:3, :3], axis=0)
    true = edges / measured
    evidence = {
        'k_space_occupancy': round(occupancy, 3),
        'voxel_mm': [round(float(e), 3) for e in edges],
        'measured_voxel_mm': [round(float(e), 3) for e in true],
    }
    message = 'the matrix was enlarged by interpolation: voxels are finer than what was measured'
    remedy = 'It is processed as it is; memory and time grow with the matrix, detail does not.'
    return [Finding('C74', 'WARN', message, name, evidence, remedy)]


def _complex_signal(echo, volumes, scaling) -> np.ndarray | None:
    """Return the complex signal of an echo; None without a magnitude."""
    index = 0 if volumes is None else volumes[0]

    def load(part: str, component: str = 'real') -> np.ndarray:
        data = load_volume(echo.files[part].path, component=component).data
        return np.nan_to_num(data[..., index] if data.ndim == 4 else data, posinf=0, neginf=0)

    if 'complex' in echo.files:
        return load('complex') + 1j * load('complex', 'imag')
    if 'real' in echo.files:
        return load('real') + 1j * load('imag')
    if 'mag' not in echo.files or scaling is None:
        return None
    return load('mag') * np.exp(1j * scale_to_radians(load('phase'), scaling))


def measured_share(signal: np.ndarray, axis: int) -> float:
    """Return the part of the spatial frequencies along an axis that was measured.

    Zeros in k-space around what was measured show as a cliff: beyond a frequency, the power is
    far below that within, which the noise keeps up. Without a cliff all is taken as measured.

    Parameters
    ----------
    signal : ndarray of complex, shape (X, Y, Z)
        Complex image.
    axis : int
        Axis of the array.

    Returns
    -------
    float
        From 0.2 to 1.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> image = rng.normal(size=(64, 8, 8)) + 1j * rng.normal(size=(64, 8, 8))
    >>> spectrum = np.fft.fftshift(np.fft.fft(image, axis=0), axes=0)
    >>> spectrum[:16] = spectrum[-16:] = 0
    >>> image = np.fft.ifft(np.fft.ifftshift(spectrum, axes=0), axis=0)
    >>> measured_share(image, 0), measured_share(image, 1)
    (0.5, 1.0)
    """
    size = signal.shape[axis]
    if size < 16:
        return 1.0
    lines = np.moveaxis(signal, axis, -1)
    step = max(1, math.ceil(math.sqrt(math.prod(lines.shape[:2]) / _LINES)))
    lines = lines[::step, ::step]
    power = np.mean(np.abs(np.fft.fft(lines, axis=-1)) ** 2, axis=(0, 1))
    half = size // 2
    # Partial Fourier sampling leaves zeros on one side: the stronger side counts.
    power = np.maximum(power[1 : half + 1], power[-1 : -half - 1 : -1])
    width = max(2, half // 16)
    for cut in range(max(width, half // 5), half - 1):
        within, beyond = power[cut - width : cut].min(), power[cut + 1 :].max()
        if within > CLIFF * beyond and within > 0:
            return float((cut + (power[cut] > beyond * CLIFF)) / half)
    return 1.0
