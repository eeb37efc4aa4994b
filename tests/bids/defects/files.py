"""Group C of the catalogue: files, headers and geometry."""

import gzip
import os

import nibabel as nib
import numpy as np

from .dataset import SHAPE, affine, phantom, write_image
from .registry import defect


@defect('C55', 'ERROR', file='echo-2_part-phase')
def truncated(ds):
    path = ds.image(2)
    path.write_bytes(path.read_bytes()[:-2000])


@defect('C56', 'ERROR', file='echo-2_part-phase')
def wrong_checksum(ds):
    path = ds.image(2)
    data = bytearray(path.read_bytes())
    data[-8] ^= 0xFF
    path.write_bytes(data)


@defect('C56', 'ERROR', file='echo-2_part-phase')
def damaged_inside(ds):
    path = ds.image(2)
    data = bytearray(path.read_bytes())
    data[5000:5200] = bytes(200)
    path.write_bytes(data)


@defect('C57', 'ERROR', file='echo-2_part-phase')
def not_compressed(ds):
    path = ds.image(2)
    path.write_bytes(gzip.decompress(path.read_bytes()))


@defect('C57', 'ERROR', file='echo-2_part-phase')
def annex_pointer(ds):
    ds.image(2).write_text('/annex/objects/MD5E-s100--0123456789abcdef.nii.gz\n')


@defect('C57', 'ERROR', file='echo-2_part-phase')
def empty_file(ds):
    ds.image(2).write_bytes(b'')


@defect('C57', 'ERROR', file='echo-2_part-phase')
def not_an_image(ds):
    ds.image(2).write_bytes(gzip.compress(b'no image' * 100))


@defect('C58', 'ERROR', file='echo-2_part-phase')
def dangling_link(ds):
    ds.image(2).unlink()
    os.symlink('../../.git/annex/objects/xx/MD5E-s1.nii.gz', ds.image(2))


@defect('C58', 'ERROR', file='sub-01_echo-2_part-phase_MEGRE.json')
def dangling_sidecar(ds):
    ds.sidecar(2).unlink()
    os.symlink('../../.git/annex/objects/xx/MD5E-s1.json', ds.sidecar(2))


@defect('C58', 'WARN', file='sub-01_T1w.json')
def dangling_sidecar_of_another_image(ds):
    os.symlink('../../.git/annex/objects/xx/MD5E-s1.json', ds.anat() / 'sub-01_T1w.json')


@defect('C59', 'WARN', file='echo-2_part-phase')
def longer_than_its_header(ds):
    data = gzip.decompress(ds.image(2).read_bytes())
    ds.image(2).write_bytes(gzip.compress(data + bytes(100)))


@defect('C59', 'ERROR', file='echo-2_part-phase')
def short_uncompressed(ds):
    data = gzip.decompress(ds.image(2).read_bytes())
    ds.image(2).unlink()
    ds.image(2, ext='.nii').write_bytes(data[:-10])


@defect('C99', 'ERROR', file='echo-2_part-phase')
def folder_in_place_of_an_image(ds):
    ds.image(2).unlink()
    ds.image(2).mkdir()


@defect('C99', 'ERROR', file='sub-01_echo-2_part-phase_MEGRE.json')
def folder_in_place_of_a_sidecar(ds):
    ds.sidecar(2).unlink()
    ds.sidecar(2).mkdir()


@defect('C99', 'WARN', file='sub-01_T1w.json')
def folder_in_place_of_another_sidecar(ds):
    (ds.anat() / 'sub-01_T1w.json').mkdir()


@defect('C61', 'ERROR', file='echo-2_part-phase')
def complex_voxels(ds):
    ds.rewrite(ds.image(2), lambda p: np.exp(1j * p), dtype=np.complex64)


@defect('C62', 'ERROR', file='echo-2_part-phase')
def colour_image(ds):
    kind = np.dtype([(c, 'u1') for c in 'RGB'])
    write_image(ds.image(2), np.zeros(SHAPE, kind))


@defect('C63', '')
def whole_numbers(ds):
    """No defect: stored as 16-bit integers with a slope, by which results must not be rounded."""
    for path in ds.images():
        image = nib.load(path)
        image = nib.Nifti1Image(image.get_fdata(dtype=np.float32), None, image.header)
        image.set_data_dtype(np.int16)
        nib.save(image, path)


@defect('C64', 'ERROR', file='echo-2_part-mag')
def slice_missing(ds):
    ds.rewrite(ds.image(2, 'mag'), lambda data: data[..., :-1])


@defect('C65', 'ERROR', file='echo-2_part-mag')
def moved_echo(ds):
    ds.rewrite(ds.image(2, 'mag'), lambda data: data, affine(rotation_deg=1.0))


@defect('C65', 'FIX', file='echo-2_part-mag')
def affine_rounding(ds):
    grid = affine()
    grid[0, 3] += 5e-4
    ds.rewrite(ds.image(2, 'mag'), lambda data: data, grid)


@defect('C66', 'WARN')
def forms_disagree(ds):
    ds.regrid(affine())
    for path in ds.images():
        image = nib.load(path)
        image.set_qform(affine(rotation_deg=2), code=1)
        image.set_sform(affine(), code=1)
        nib.save(nib.Nifti1Image(np.asanyarray(image.dataobj), None, image.header), path)


@defect('C67', 'ERROR')
def no_coordinates(ds):
    ds.regrid(affine(), sform=0, qform=0)


@defect('C67', 'WARN')
def no_coordinates_but_option(ds):
    no_coordinates(ds)
    ds.options['b0_dir'] = 'z'


@defect('C67', 'ERROR')
def template_coordinates(ds):
    ds.regrid(affine(), sform=4, qform=0)


@defect('C67', 'WARN')
def aligned_coordinates(ds):
    ds.regrid(affine(), sform=2, qform=0)


@defect('C68', 'ERROR')
def sheared(ds):
    grid = affine()
    grid[0, 1] = 0.1
    ds.regrid(grid, qform=0)


@defect('C68', 'FIX')
def slightly_sheared(ds):
    grid = affine()
    grid[0, 1] = 0.005
    ds.regrid(grid, qform=0)


@defect('C69', 'INFO')
def oblique(ds):
    ds.regrid(affine(rotation_deg=25))


@defect('C70', 'INFO')
def sagittal(ds):
    grid = np.array([[0, 0, 1.0, 0], [1.0, 0, 0, 0], [0, 1.0, 0, 0], [0, 0, 0, 1]])
    ds.regrid(grid)


@defect('C71', '')
def odd_matrix_sizes(ds):
    """No defect: a plane of air less along each axis."""
    grid = affine()
    grid[:3, 3] += grid[:3, :3].sum(axis=1)
    for path in ds.images():
        ds.rewrite(path, lambda data: data[1:, 1:, 1:], grid)


@defect('C72', 'ERROR')
def voxels_in_metres(ds):
    ds.regrid(affine((0.001, 0.001, 0.001)), unit='meter')


@defect('C72', 'ERROR')
def voxels_in_micrometres(ds):
    ds.regrid(affine((1000, 1000, 1000)), unit='micron')


@defect('C60', 'WARN', file='echo-1_part-mag')
def clipped_magnitude(ds):
    ds.rewrite(ds.image(1, 'mag'), lambda m: np.minimum(m, 850), dtype=np.int16)


def write_complex(ds, echoes=(1, 2, 3)):
    """Replace magnitude and phase of echoes by complex images without a part."""
    magnitude, phase = phantom()
    for echo in echoes:
        signal = magnitude[..., echo - 1] * np.exp(1j * phase[..., echo - 1])
        write_image(ds.image(echo, None), signal.astype(np.complex64))
        ds.sidecar(echo, 'mag').rename(ds.sidecar(echo, None))
        for part in ('mag', 'phase'):
            ds.image(echo, part).unlink()
            ds.sidecar(echo, part).unlink(missing_ok=True)


@defect('C61', 'FIX', file='echo-1_MEGRE')
def complex_series(ds):
    write_complex(ds)


@defect('C61', 'ERROR', file='echo-3_MEGRE')
def one_echo_not_complex(ds):
    write_complex(ds)
    ds.rewrite(ds.image(3, None), lambda s: np.abs(s), dtype=np.float32)


@defect('C73', 'WARN', file='echo-1_part-phase')
def long_voxels(ds):
    ds.regrid(affine((1, 1, 4.5)))


@defect('C73', 'WARN', file='echo-1_part-phase')
def large_voxels(ds):
    ds.regrid(affine((3.5, 3.5, 3.5)))


def zero_filled_signal(echo):
    """Return the signal of an echo (from 0) without the outer half of k-space along two axes."""
    magnitude, phase = phantom()
    signal = magnitude[..., echo] * np.exp(1j * phase[..., echo])
    spectrum = np.fft.fftshift(np.fft.fftn(signal))
    keep = np.zeros(spectrum.shape)
    x, y = (n // 4 for n in spectrum.shape[:2])
    keep[x:-x, y:-y] = 1
    return np.fft.ifftn(np.fft.ifftshift(spectrum * keep))


@defect('C74', 'WARN', file='echo-1_part-phase')
def zero_filled(ds):
    for echo in (1, 2, 3):
        signal = zero_filled_signal(echo - 1)
        for part, values in (('mag', np.abs(signal)), ('phase', np.angle(signal))):
            ds.rewrite(ds.image(echo, part), lambda _, v=values: v.astype(np.float32))


@defect('C75', 'WARN', file='echo-1_part-mag')
def cut_head(ds):
    for path in ds.images():
        ds.rewrite(path, lambda data: data[4:])
