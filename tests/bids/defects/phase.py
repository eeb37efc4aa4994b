"""Group A of the catalogue: what the voxels of the phase hold."""

import gzip

import nibabel as nib
import numpy as np

from .dataset import SIDECAR, phantom, write_image, write_json
from .registry import defect


def stored(phase):
    """Phase as a 12-bit integer, 0 to 4095."""
    return np.round((phase + np.pi) * 4096 / (2 * np.pi)) % 4096


def set_scaling(data: bytes, slope: float, intercept: float) -> bytes:
    """Write scl_slope and scl_inter into an uncompressed NIfTI-1."""
    return data[:112] + np.array([slope, intercept], '<f4').tobytes() + data[120:]


@defect('A01', 'FIX')
def siemens_integers(ds):
    ds.scale_phase(lambda p: stored(p), np.uint16)


@defect('A02', 'FIX')
def symmetric_integers(ds):
    ds.scale_phase(lambda p: 2 * stored(p) - 4096, np.int16)


@defect('A03', 'FIX')
def slope_applied_twice(ds):
    for path in ds.phases():
        data = gzip.decompress(path.read_bytes())
        path.write_bytes(gzip.compress(set_scaling(data, 0.00153455, -3.142)))


@defect('A04', 'FIX')
def slope_zero(ds):
    for path in ds.phases():
        data = gzip.decompress(path.read_bytes())
        path.write_bytes(gzip.compress(set_scaling(data, 0, 0)))


@defect('A04', 'FIX')
def slope_nan(ds):
    for path in ds.phases():
        data = gzip.decompress(path.read_bytes())
        path.write_bytes(gzip.compress(set_scaling(data, float('nan'), float('nan'))))


@defect('A05', 'FIX')
def milliradians(ds):
    ds.scale_phase(lambda p: 1000 * p)


@defect('A06', 'FIX')
def degrees(ds):
    ds.scale_phase(lambda p: np.degrees(p))


@defect('A07', 'FIX')
def zero_to_two_pi(ds):
    ds.scale_phase(lambda p: np.mod(p, 2 * np.pi), units='rad')


@defect('A08', 'FIX')
def background_flag(ds):
    head = phantom()[0][..., 0] > 200
    ds.scale_phase(lambda p: np.where(head, 2 * stored(p) - 4096, -8192), np.int16)


@defect('SAT', 'WARN')
def no_wraps_in_radians(ds):
    ds.scale_phase(lambda p: 0.2 * p, units='rad')


@defect('A05', 'FIX')
def philips_display(ds):
    ds.scale_phase(lambda p: np.round(p * 500 / np.pi), np.int16)


@defect('A09', 'ERROR', file='part-phase')
def no_wraps_unknown_units(ds):
    ds.scale_phase(lambda p: 0.2 * p)


@defect('A09', 'ERROR', file='part-phase')
def strange_range(ds):
    ds.scale_phase(lambda p: 777 * p)


@defect('A10', 'FIX')
def units_say_rad(ds):
    ds.scale_phase(lambda p: stored(p), np.uint16, 'rad')


@defect('A10', 'FIX')
def units_say_arbitrary(ds):
    ds.scale_phase(lambda p: p, units='arbitrary')


@defect('A10', 'WARN')
def units_missing(ds):
    ds.scale_phase(lambda p: p, units=None)


@defect('A16', 'ERROR', file='echo-2_part-phase')
def imaginary_named_phase(ds):
    ds.edit(ds.sidecar(2), ImageType=['ORIGINAL', 'PRIMARY', 'IMAGINARY'])


@defect('A17', 'FIX')
def real_and_imaginary(ds):
    for echo in (1, 2, 3):
        mag = np.asanyarray(nib.load(ds.image(echo, 'mag')).dataobj)
        phase = np.asanyarray(nib.load(ds.image(echo)).dataobj)
        for part, new, data in (
            ('mag', 'real', mag * np.cos(phase)),
            ('phase', 'imag', mag * np.sin(phase)),
        ):
            ds.image(echo, part).unlink()
            write_image(ds.image(echo, new), data.astype(np.float32))
            ds.sidecar(echo, part).rename(ds.sidecar(echo, new))


@defect('A17', 'ERROR')
def real_without_imaginary(ds):
    ds.rename('part-phase', 'part-real')


@defect('A21', 'ERROR', file='coil-')
def uncombined_coils(ds):
    ds.rename('_part-', '_coil-01_part-')


@defect('A21', 'WARN', file='coil-')
def single_coil_beside_a_complete_series(ds):
    path = ds.image(1, extra='_coil-01')
    path.write_bytes(ds.image(1).read_bytes())


@defect('A21', 'ERROR', file='echo-01')
def padded_and_plain_echo(ds):
    source = ds.image(1)
    ds.image('01').write_bytes(source.read_bytes())
    ds.sidecar('01').write_bytes(ds.sidecar(1).read_bytes())


@defect('A22', 'ERROR', file='flip-1')
def two_flip_angles(ds):
    for path in ds.anat().glob('*MEGRE*'):
        path.unlink()
    magnitude, phase = phantom()
    for flip in (1, 2):
        for part, data in (('mag', magnitude), ('phase', phase)):
            stem = f'sub-01_flip-{flip}_part-{part}_VFA'
            write_image(ds.anat() / f'{stem}.nii.gz', data[..., 0])
            write_json(ds.anat() / f'{stem}.json', {**SIDECAR, 'EchoTime': 0.005, 'Units': 'rad'})


@defect('A23', 'FIX', file='echo-1_part-phase')
def nan_outside(ds):
    def change(data):
        data = data.copy()
        data[0, 0, :5] = np.nan
        return data

    ds.rewrite(ds.image(1), change)


@defect('A23', 'ERROR', file='echo-2_part-mag')
def nan_inside(ds):
    def change(data):
        data = data.copy()
        data[10:14, 12:16, 8:12] = np.inf
        return data

    ds.rewrite(ds.image(2, 'mag'), change)


@defect('A24', 'ERROR', file='echo-3_part-mag')
def empty_echo(ds):
    ds.rewrite(ds.image(3, 'mag'), np.zeros_like)


@defect('A25', 'INFO', file='part-phase')
def masked_phase(ds):
    head = phantom()[0][..., 0] > 200
    ds.scale_phase(lambda p: p * head, units='rad')


@defect('A27', 'WARN', file='part-phase')
def nonlinearity_corrected(ds):
    ds.edit_all(NonlinearGradientCorrection=True)
