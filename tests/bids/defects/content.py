"""Rows of group A that are seen in the voxels, beyond the range of the phase."""

import numpy as np

from .dataset import SHAPE, TE, affine, phantom
from .phase import stored
from .registry import defect


@defect('A08', 'FIX', file='part-phase')
def background_flag_in_radians(ds):
    head = phantom()[0][..., 0] > 200
    ds.scale_phase(lambda p: np.where(head, p, -1000), units='rad')


@defect('A05', 'FIX', file='part-phase')
def philips_fields_of_the_sidecar(ds):
    """Stored integers without header scaling, whose scaling only the sidecar knows."""
    ds.scale_phase(lambda p: np.round((p + np.pi) * 700 / (2 * np.pi)), np.int16)
    fields = {'PhilipsRWVSlope': 2 * np.pi / 700, 'PhilipsRWVIntercept': -np.pi}
    ds.edit_all(**fields)


@defect('A06', 'FIX', file='part-phase')
def degrees_to_360(ds):
    ds.scale_phase(lambda p: np.degrees(np.mod(p, 2 * np.pi)))


@defect('A11', 'ERROR', file='part-phase')
def unwrapped(ds):
    """A phase without noise in the air and without wraps, as unwrapping leaves it."""
    for echo, (path, t) in enumerate(zip(ds.phases(), TE, strict=True)):
        ds.rewrite(path, lambda p, e=echo, t=t: unwrapped_phase(e, t), dtype=np.float32)


@defect('A11', 'ERROR', file='part-phase')
def unwrapped_and_masked(ds):
    head = phantom()[0][..., 0] > 200
    for echo, (path, t) in enumerate(zip(ds.phases(), TE, strict=True)):
        ds.rewrite(path, lambda p, e=echo, t=t: head * unwrapped_phase(e, t), dtype=np.float32)


@defect('A12', 'ERROR', file='part-phase')
def filtered(ds):
    """The phase without what is wider than a few voxels (homodyne filter)."""
    _filter(ds)


@defect('A12', 'ERROR', file='part-phase')
def filtered_and_named_so(ds):
    _filter(ds)
    ds.edit_all(ImageType=['ORIGINAL', 'PRIMARY', 'P', 'SWI'])


@defect('A12', 'WARN', file='part-phase')
def filtered_but_insisted_on(ds):
    _filter(ds)
    ds.options['force'] = ['filtered-phase']


@defect('A12', 'WARN', file='part-phase')
def named_filtered_but_is_not(ds):
    ds.edit_all(ImageType=['ORIGINAL', 'PRIMARY', 'P', 'SWI'])


@defect('A12', 'ERROR', file='part-phase')
def named_filtered_and_too_early_to_tell(ds):
    ds.edit_all(ImageType=['DERIVED', 'PRIMARY', 'P', 'HP'])
    for echo, t in enumerate((0.001, 0.002, 0.003), 1):
        for part in ('mag', 'phase'):
            ds.edit(ds.sidecar(echo, part), EchoTime=t)


@defect('A15', 'WARN', file='part-phase')
def slice_offsets_of_one_echo(ds):
    slice_offsets(ds)
    ds.options['echoes'] = [1]


@defect('A15', 'FIX', file='part-phase')
def slice_offsets(ds):
    offsets = np.random.default_rng(3).uniform(-np.pi, np.pi, SHAPE[2])
    ds.scale_phase(lambda p: wrapped(p + offsets), units='rad')


@defect('A16', 'ERROR', file='part-phase')
def real_part_named_phase(ds):
    magnitude, phase = phantom()
    real = magnitude * np.cos(phase)
    scale = 4096 / np.abs(real).max()  # the range of a symmetric Siemens phase
    for echo, path in enumerate(ds.phases()):
        ds.rewrite(path, lambda p, e=echo: np.round(scale * real[..., e]), dtype=np.int16)
        ds.edit(ds.sidecar(echo + 1), Units='arbitrary')


@defect('A18', 'ERROR', file='part-phase')
def parts_swapped(ds):
    for echo in (1, 2, 3):
        images = ds.image(echo, 'mag'), ds.image(echo)
        content = [path.read_bytes() for path in images]
        for path, other in zip(images, reversed(content), strict=True):
            path.write_bytes(other)


@defect('A18', 'ERROR', file='part-phase')
def integer_parts_swapped(ds):
    """The magnitude fills the range of a Siemens phase, so that its range says nothing."""
    magnitude, phase = phantom()
    top = 4095 / magnitude.max()
    for echo in range(3):
        one = np.round(top * magnitude[..., echo]).astype(np.uint16)
        other = stored(phase[..., echo]).astype(np.uint16)
        ds.rewrite(ds.image(echo + 1), lambda p, a=one: a)
        ds.rewrite(ds.image(echo + 1, 'mag'), lambda p, a=other: a)
        ds.edit(ds.sidecar(echo + 1), Units='arbitrary')


@defect('A18', 'ERROR', file='part-phase')
def magnitude_twice(ds):
    for echo in (1, 2, 3):
        ds.image(echo).write_bytes(ds.image(echo, 'mag').read_bytes())


@defect('A19', 'WARN', file='part-phase')
def eight_bits(ds):
    ds.scale_phase(lambda p: np.round(p * 127 / np.pi) * np.pi / 127, units='rad')


@defect('A19', 'WARN', file='part-phase')
def lossy(ds):
    ds.edit_all(LossyImageCompression='01')


@defect('A20', 'WARN', file='part-phase')
def open_fringe_lines(ds):
    ds.scale_phase(lambda p: wrapped(p + pole()), units='rad')
    ds.regrid(affine((3, 3, 3)))


@defect('A26', 'FIX', file='part-mag')
def blank_border(ds):
    """The first four planes of the last axis hold nothing, and cut the head."""

    def blank(data):
        data = data.copy()
        data[:, :, :4] = 0
        return data

    for path in ds.images():
        ds.rewrite(path, blank)


def unwrapped_phase(echo: int, t: float) -> np.ndarray:
    """Return a phase of several turns that equals the one of the phantom up to whole turns."""
    axes = np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing='ij')
    radius = np.sqrt(sum(a**2 for a in axes))
    field_hz = 60 * axes[0] * axes[2] + 45 * axes[1] + 30 * np.exp(-8 * radius**2)
    true = 0.4 + 2 * np.pi * field_hz * t
    head = radius < 0.9
    noise = np.angle(np.exp(1j * (phantom()[1][..., echo] - true)))
    return np.where(head, true + noise, true)


def wrapped(phase: np.ndarray) -> np.ndarray:
    """Return angles in -pi to pi."""
    return np.angle(np.exp(1j * phase))


def pole() -> np.ndarray:
    """Return a phase that turns once around a line along the last axis."""
    x, y, _ = np.indices(SHAPE)
    return np.arctan2(y - 0.45 * SHAPE[1] + 0.3, x - 0.45 * SHAPE[0] + 0.3)


def _filter(ds) -> None:
    """Divide the signal by what is left of it after a strong blur."""
    from scipy import ndimage

    magnitude, phase = phantom()
    for echo, path in enumerate(ds.phases()):
        signal = magnitude[..., echo] * np.exp(1j * phase[..., echo])
        slow = ndimage.gaussian_filter(signal.real, 1.0) + 1j * ndimage.gaussian_filter(
            signal.imag, 1.0
        )
        data = np.angle(signal * np.conj(slow)).astype(np.float32)
        ds.rewrite(path, lambda p, a=data: a)
