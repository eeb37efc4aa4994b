"""Checks of what the voxels of the phase show, beyond their range.

A few volumes are read for them: magnitude and phase of the first echo, of the last, and the phase
of one that is twice as late as the first.
"""

import math
from collections.abc import Sequence

import numpy as np

from qsmflow.algorithms import phase_evidence as evidence
from qsmflow.algorithms.phase import PhaseScaling, scale_to_radians
from qsmflow.bids.checks_metadata import Echo, SourceFile
from qsmflow.bids.findings import Finding
from qsmflow.io import load_volume
from qsmflow.settings import FORCE_FILTERED

IS_PHASE = 0.3  #: coherence of the object less that of the air, above which an image is a phase
IS_NO_PHASE = 0.15  #: below this it may be something else
SAME_IMAGE = 0.95  #: correlation in the object from which a phase is a copy of the magnitude
CONCENTRATED = 0.8  #: share of the air with one value, from which an image is real or imaginary
BEYOND_A_TURN = 0.01  #: share of voxels beyond -pi to pi of a phase that was unwrapped
FEW_JUMPS = 1e-4  #: share of jumps between neighbours, below which a phase has no wraps
FILTERED = 0.12  #: spread of the slow phase, below which it was filtered out
UNFILTERED = 0.25  #: spread above which it was not
FILLED = 0.9 * 2 * math.pi  #: range, in rad, of phase that spans 2 pi
#: Imaging frequency times echo time, in MHz s, from which an unfiltered phase must spread: a
#: background of 0.05 ppm then gives 0.4 rad.
SLOW_PHASE_FROM = 1.3
SLICE_STEP = 0.7  #: change of the step between slices, in rad, that shows offsets of their own
LINE_MM = 20.0  #: length of a line of singularities that comes from the combination of coils
FEW_VALUES = 256  #: values that 8 bits can hold
BLANK_TOUCHES = 0.05  #: share of the plane beside a blank border that the object fills
#: Words of ``ImageType`` for filtered phase.
FILTER_WORDS = {'SWI', 'HP', 'FILTERED', 'HPF'}


class SeriesImages:
    """The volumes of a series, read when they are needed and kept.

    Parameters
    ----------
    echoes : sequence of Echo
        Echoes in the order of their times.
    volumes : sequence of int or None
        Index of each echo in a 4-D image; None for one file each.
    """

    def __init__(self, echoes: Sequence[Echo], volumes: Sequence[int] | None):
        self.echoes = tuple(echoes)
        self.volumes = volumes
        self._kept: dict[tuple[int, str], np.ndarray] = {}

    def __len__(self) -> int:
        """Return the number of echoes."""
        return len(self.echoes)

    def source(self, echo: int, part: str = 'phase') -> SourceFile:
        """Return the file of a part of an echo, or of the part that leads."""
        files = self.echoes[echo].files
        return files.get(part, self.echoes[echo].leader)

    def raw(self, echo: int, part: str) -> np.ndarray | None:
        """Return a volume as it is stored, header scaling applied, 0 where it is not finite."""
        echo %= len(self)
        files = self.echoes[echo].files
        source = files.get('complex') if part in ('real', 'imag') else None
        source = files.get(part, source)
        if source is None:
            return None
        if (echo, part) not in self._kept:
            volume = None if self.volumes is None else self.volumes[echo]
            component = 'imag' if part == 'imag' else 'real'
            image = load_volume(source.path, component=component, volume=volume)
            self._kept[echo, part] = np.nan_to_num(image.data, posinf=0, neginf=0)
        return self._kept[echo, part]

    def magnitude(self, echo: int) -> np.ndarray | None:
        """Return the magnitude of an echo, if there is one."""
        real, imag = self.raw(echo, 'real'), self.raw(echo, 'imag')
        return np.hypot(real, imag) if real is not None else self.raw(echo, 'mag')

    def phase(self, echo: int, scaling: PhaseScaling | None) -> np.ndarray:
        """Return the phase of an echo, in rad."""
        real, imag = self.raw(echo, 'real'), self.raw(echo, 'imag')
        if real is not None:
            return np.arctan2(imag, real)
        return scale_to_radians(self.raw(echo, 'phase'), scaling)


def check_roles(images: SeriesImages) -> list[Finding]:
    """Check that what is named phase and magnitude is what it is named, in the first echo.

    Returns
    -------
    list of Finding
        ``A18`` the two are swapped, or the phase is a copy of the magnitude; ``A16`` the phase
        is a real or imaginary image.
    """
    phase, magnitude = images.raw(0, 'phase'), images.raw(0, 'mag')
    if phase is None or magnitude is None:
        return []
    source = images.source(0)
    other = images.source(0, 'mag').relative.rpartition('/')[2]
    found = {
        'contrast_as_named': evidence.noise_contrast(phase, magnitude),
        'contrast_swapped': evidence.noise_contrast(magnitude, phase),
        'correlation': evidence.similarity(phase, magnitude),
    }
    if found['contrast_swapped'] > IS_PHASE and not found['contrast_as_named'] > IS_NO_PHASE:
        message = f'looks like a magnitude, and {other} like a phase: they seem to be swapped'
        remedy = 'Exchange the names part-mag and part-phase, those of the JSON files as well.'
        return [_error('A18', message, source, found, remedy)]
    if found['correlation'] > SAME_IMAGE and not found['contrast_as_named'] > IS_PHASE:
        message = f'is named phase, but shows the same as {other}'
        remedy = 'Export the phase images from the scanner; this one is a magnitude.'
        return [_error('A18', message, source, found, remedy)]
    share = evidence.air_concentration(phase, magnitude)
    if share > CONCENTRATED:
        message = 'is named phase, but its air is not noise from -pi to pi: it seems to be a '
        message += 'real or imaginary image'
        remedy = 'Rename it to part-real or part-imag; both are needed.'
        found = {'air_with_one_value': share, 'of_phase': 0.1}
        return [_error('A16', message, source, found, remedy)]
    return []


def check_unwrapped(images: SeriesImages, integer: bool) -> list[Finding]:
    """Tell a phase that was unwrapped before from one of unknown unit (``A11``)."""
    phase = images.raw(-1, 'phase')
    if integer or phase is None:
        return []
    beyond = float(np.mean(np.abs(phase) > math.pi + 0.1))
    jumps = evidence.jump_share(phase)
    if beyond <= BEYOND_A_TURN or jumps > FEW_JUMPS:
        return []
    found = {
        'minimum': float(phase.min()),
        'maximum': float(phase.max()),
        'beyond_a_turn': beyond,
        'jumps': jumps,
    }
    message = 'goes beyond -pi to pi and has no wraps: it was unwrapped before, or is a field map'
    remedy = (
        'Export the wrapped phase. If the values are unwrapped radians that nothing else was '
        'done to, give --phase-scale rad-unwrapped.'
    )
    return [_error('A11', message, images.source(-1), found, remedy)]


def check_phase(
    images: SeriesImages,
    scaling: PhaseScaling | None,
    *,
    voxel_size: Sequence[float],
    te: Sequence[float],
    f0: float,
    force: Sequence[str] = (),
) -> list[Finding]:
    """Check the phase, in radians, for what spoils a susceptibility map.

    Parameters
    ----------
    images : SeriesImages
        The series.
    scaling : PhaseScaling or None
        How stored values become radians; None for real and imaginary images.
    voxel_size : sequence of float
        Edge lengths, in mm.
    te : sequence of float
        Echo times, in s.
    f0 : float
        Imaging frequency, in MHz.
    force : sequence of str, optional
        What the user insists on.

    Returns
    -------
    list of Finding
        ``A12`` filtered, ``A15`` offsets of slices, ``A19`` few values, ``A20`` lines of
        singularities, ``A26`` blank border.
    """
    first, magnitude = images.phase(0, scaling), images.magnitude(0)
    name = images.source(0).relative
    last = images.phase(len(images) - 1, scaling) if len(images) > 1 else first
    spreads = [
        evidence.slow_phase_spread(first, magnitude),
        evidence.slow_phase_spread(last, images.magnitude(-1)),
    ]
    # Phase of a wrong scale spreads too little as well, but does not span 2 pi.
    filled = float(np.ptp(last)) > FILLED
    findings = check_filter(images.source(0), spreads, f0 * te[-1] if filled else 0.0, force)
    steps = evidence.slice_steps(first, magnitude)
    findings += _check_slices(name, steps, len(images))
    findings += _check_depth(images)
    if magnitude is None:
        return findings
    findings += _check_border(magnitude, images.source(0, 'mag').relative)
    later = next((j for j, t in enumerate(te) if t >= 1.9 * te[0]), None)
    if later is not None and steps <= SLICE_STEP:
        found = evidence.singular_lines(first, magnitude, voxel_size, images.phase(later, scaling))
        findings += _check_lines(name, *found)
    return findings


def check_filter(
    source: SourceFile, spreads: Sequence[float], frequency_time: float, force: Sequence[str] = ()
) -> list[Finding]:
    """Judge whether the phase was high-pass filtered (``A12``), by data and ``ImageType``.

    Parameters
    ----------
    source : SourceFile
        Phase of the first echo.
    spreads : sequence of float
        Spread of the slow phase in the first echo and in the last.
    frequency_time : float
        Imaging frequency times the last echo time, in MHz s; 0 where the data cannot tell.
    force : sequence of str, optional
        ``'filtered-phase'`` makes it a warning.
    """
    words = sorted(image_type(source) & FILTER_WORDS)
    telling = frequency_time >= SLOW_PHASE_FROM and math.isfinite(spreads[-1])
    measured = telling and spreads[-1] < FILTERED
    if not words and not measured:
        return []
    found = {
        'ImageType': words,
        'slow_phase_spread_first_echo': round(float(spreads[0]), 4),
        'slow_phase_spread_last_echo': round(float(spreads[-1]), 4),
        'limit': FILTERED,
    }
    name = source.relative
    if words and telling and spreads[-1] > UNFILTERED:
        message = 'ImageType says that the phase was filtered, but its slow part is there'
        remedy = 'Check which images were exported; unfiltered phase is needed.'
        return [Finding('A12', 'WARN', message, name, found, remedy)]
    message = 'was high-pass filtered: it holds too little susceptibility for a map'
    if not words:
        message = 'has no slow part in any echo: it was high-pass filtered, or its background '
        message += 'field was removed'
    remedy = 'Export the unfiltered phase.'
    if FORCE_FILTERED in force:
        return [Finding('A12', 'WARN', message, name, found, remedy)]
    remedy += f' --force {FORCE_FILTERED} goes on; the values will be wrong.'
    return [Finding('A12', 'ERROR', message, name, found, remedy)]


def image_type(source: SourceFile) -> set[str]:
    """Return the words of ``ImageType``, in upper case."""
    value = source.metadata.get('ImageType')
    value = [value] if isinstance(value, str) else value
    return {str(item).upper() for item in value} if isinstance(value, (list, tuple)) else set()


def _check_depth(images: SeriesImages) -> list[Finding]:
    """Check how finely the phase is stored (``A19``)."""
    source = images.source(0)
    lossy = str(source.metadata.get('LossyImageCompression', '')).lstrip('0') == '1'
    raw = images.raw(0, 'phase')
    count = FEW_VALUES + 1 if raw is None else evidence.distinct_values(raw, FEW_VALUES)
    if count > FEW_VALUES and not lossy:
        return []
    found = {'values': count if count <= FEW_VALUES else f'more than {FEW_VALUES}'}
    message = 'the phase has no more values than 8 bits hold'
    if lossy:
        found['LossyImageCompression'] = source.metadata['LossyImageCompression']
        message = 'the phase was compressed with loss'
    remedy = 'Export the phase with 12 bits or more, without lossy compression.'
    return [Finding('A19', 'WARN', message, source.relative, found, remedy)]


def _check_slices(name: str, steps: float, n_echoes: int) -> list[Finding]:
    """Judge steps between slices (``A15``); two echoes tell offsets from the field."""
    if steps <= SLICE_STEP:
        return []
    message = 'the phase jumps from slice to slice by amounts that change: each slice has an '
    message += 'offset of its own'
    found = {'step_change_rad': round(steps, 3), 'limit_rad': SLICE_STEP, 'echoes': n_echoes}
    if n_echoes > 1:
        message += ', which is removed'
        remedy = 'Look at sagittal and coronal planes of the map.'
        return [Finding('A15', 'FIX', message, name, found, remedy)]
    remedy = 'The map is not usable unless this is wrong: with one echo it cannot be removed.'
    return [Finding('A15', 'WARN', message, name, found, remedy)]


def _check_lines(name: str, density: float, length: float) -> list[Finding]:
    """Judge lines of singularities (``A20``)."""
    if length <= LINE_MM:
        return []
    message = 'fringe lines of the phase have open ends: the coils were not combined well, and '
    message += 'no unwrapping is right there'
    found = {'line_mm': round(length, 1), 'limit_mm': LINE_MM}
    found['loops_per_voxel'] = round(density, 6)
    remedy = 'Combine the coils with MCPC-3D-S or ASPIRE if the raw data allow it; distrust the '
    remedy += 'map along these lines.'
    return [Finding('A20', 'WARN', message, name, found, remedy)]


def _check_border(magnitude: np.ndarray, name: str) -> list[Finding]:
    """Find blank planes at the border that cut the object (``A26``)."""
    planes = evidence.blank_planes(magnitude)
    if not any(start or end for start, end in planes):
        return []
    inside = evidence.object_mask(magnitude)
    cut = {}
    for axis, (start, end) in enumerate(planes):
        for count, index in ((start, start), (end, magnitude.shape[axis] - 1 - end)):
            if not 0 < count < magnitude.shape[axis]:
                continue
            share = float(np.take(inside, index, axis=axis).mean())
            if share > BLANK_TOUCHES:
                side = 'first' if index == start else 'last'
                cut[f'{"ijk"[axis]}_{side}_planes'] = count
    if not cut:
        return []
    message = 'blank planes at the border cut the object; the mask leaves them out, and the '
    message += 'voxels beside them'
    return [Finding('A26', 'FIX', message, name, cut)]


def _error(code: str, message: str, source: SourceFile, found: dict, remedy: str) -> Finding:
    """Make an error whose evidence JSON can hold."""
    plain = {
        key: None if isinstance(value, float) and math.isnan(value) else value
        for key, value in found.items()
    }
    return Finding(code, 'ERROR', message, source.relative, plain, remedy)
