"""Make a small clean BIDS dataset, and break it in one of the ways of the defect catalogue."""

import gzip
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import nibabel as nib
import numpy as np

SHAPE = (24, 28, 20)
TE = (0.005, 0.010, 0.015)
FIELD = 3.0
SIDECAR = {
    'MagneticFieldStrength': FIELD,
    'MRAcquisitionType': '3D',
    'Manufacturer': 'qsmflow',
    'FlipAngle': 15,
    'RepetitionTimeExcitation': 0.04,
    'PatientName': 'Nobody^Noone',
    'AcquisitionDateTime': '2020-01-01T00:00:00',
    'InstitutionName': 'Nowhere',
}


@cache
def phantom(shape=SHAPE, te=TE) -> tuple[np.ndarray, np.ndarray]:
    """Magnitude and wrapped phase, (X, Y, Z, E), of a smooth field with noise."""
    rng = np.random.default_rng(0)
    axes = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing='ij')
    radius = np.sqrt(sum(a**2 for a in axes))
    head = radius < 0.9
    field_hz = 60 * axes[0] * axes[2] + 45 * axes[1] + 30 * np.exp(-8 * radius**2)
    magnitude, phase = [], []
    for t in te:
        signal = 1000 * head * np.exp(-25 * t) * np.exp(1j * (0.4 + 2 * np.pi * field_hz * t))
        noise = rng.normal(size=shape) + 1j * rng.normal(size=shape)
        signal = signal + 8 * noise
        magnitude.append(np.abs(signal))
        phase.append(np.angle(signal))
    return np.stack(magnitude, -1).astype(np.float32), np.stack(phase, -1).astype(np.float32)


def affine(voxel_size=(1.0, 1.0, 1.0), rotation_deg=0.0) -> np.ndarray:
    angle = np.radians(rotation_deg)
    c, s = np.cos(angle), np.sin(angle)
    matrix = np.eye(4)
    matrix[:3, :3] = np.array([[1, 0, 0], [0, c, -s], [0, s, c]]) @ np.diag(voxel_size)
    matrix[:3, 3] = (-12, -14, -10)
    return matrix


def write_image(path: Path, data, grid=None, *, sform=1, qform=1, description='', unit='mm'):
    path.parent.mkdir(parents=True, exist_ok=True)
    grid = affine() if grid is None else grid
    image = nib.Nifti1Image(data, grid)
    image.header.set_xyzt_units(unit, 'sec')
    image.set_qform(grid, code=qform)
    image.set_sform(grid, code=sform)
    image.header['descrip'] = description.encode()
    nib.save(image, path)


def write_json(path: Path, content) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding='utf-8')


@dataclass
class Dataset:
    """A dataset on disk with helpers to change single files."""

    root: Path
    options: dict = field(default_factory=dict)

    def image(self, echo=1, part='phase', suffix='MEGRE', sub='01', extra='', ext='.nii.gz'):
        middle = f'_echo-{echo}' if echo is not None else ''
        middle += f'_part-{part}' if part else ''
        return self.anat(sub) / f'sub-{sub}{extra}{middle}_{suffix}{ext}'

    def anat(self, sub='01', ses=None) -> Path:
        folder = self.root / f'sub-{sub}'
        return (folder / f'ses-{ses}' if ses else folder) / 'anat'

    def sidecar(self, echo=1, part='phase', **names) -> Path:
        return self.image(echo, part, ext='.json', **names)

    def images(self) -> list[Path]:
        return sorted(self.anat().glob('*MEGRE.nii.gz'))

    def phases(self) -> list[Path]:
        return sorted(self.anat().glob('*part-phase_MEGRE.nii.gz'))

    def edit(self, path: Path, **changes) -> None:
        """Change keys of a sidecar; None removes one."""
        content = json.loads(path.read_text()) | changes
        write_json(path, {k: v for k, v in content.items() if v is not None})

    def edit_all(self, **changes) -> None:
        for path in self.anat().glob('*MEGRE.json'):
            self.edit(path, **changes)

    def rewrite(self, path: Path, change: Callable, grid=None, dtype=None, **keywords) -> None:
        """Replace the voxels of an image by a function of them."""
        image = nib.load(path)
        data = change(np.asanyarray(image.dataobj))
        grid = image.affine if grid is None else grid
        write_image(path, data if dtype is None else data.astype(dtype), grid, **keywords)

    def scale_phase(self, change: Callable, dtype=np.float32, units='arbitrary') -> None:
        for path in self.phases():
            self.rewrite(path, change, dtype=dtype)
        for echo in range(1, 4):
            self.edit(self.sidecar(echo), Units=units)

    def regrid(self, grid, **keywords) -> None:
        for path in self.images():
            self.rewrite(path, lambda data: data, grid, **keywords)

    def rename(self, old: str, new: str) -> None:
        """Replace text in the names of all files of the first subject's ``anat``."""
        for path in sorted(self.anat().iterdir()):
            path.rename(path.with_name(path.name.replace(old, new)))


def write_series(
    dataset: Dataset, sub='01', ses=None, extra='', suffix='MEGRE', te=TE, shape=SHAPE
) -> None:
    magnitude, phase = phantom(shape, tuple(te))
    entities = f'sub-{sub}' + (f'_ses-{ses}' if ses else '') + extra
    for i, t in enumerate(te):
        for part, data in (('mag', magnitude), ('phase', phase)):
            stem = f'{entities}_echo-{i + 1}_part-{part}_{suffix}'
            write_image(dataset.anat(sub, ses) / f'{stem}.nii.gz', data[..., i])
            content = SIDECAR | {'EchoTime': t} | ({'Units': 'rad'} if part == 'phase' else {})
            write_json(dataset.anat(sub, ses) / f'{stem}.json', content)


def write_t1w(dataset: Dataset, sub='01', ses=None, extra='') -> Path:
    entities = f'sub-{sub}' + (f'_ses-{ses}' if ses else '') + extra
    path = dataset.anat(sub, ses) / f'{entities}_T1w.nii.gz'
    write_image(path, phantom()[0][..., 0])
    return path


def write_clean(root: Path, subjects=('01',)) -> Dataset:
    """Write a valid dataset: for each subject three echoes, magnitude and phase, and a T1w."""
    root.mkdir(parents=True, exist_ok=True)
    description = {'Name': 'Tiny', 'BIDSVersion': '1.11.1', 'DatasetType': 'raw'}
    write_json(root / 'dataset_description.json', description)
    (root / 'README').write_text('A tiny dataset for tests.\n')
    dataset = Dataset(root)
    for sub in subjects:
        write_series(dataset, sub)
        write_t1w(dataset, sub)
    return dataset


@dataclass(frozen=True)
class Defect:
    """One way to break a clean dataset, and what must be said of it.

    ``outcome`` is ``'series'`` if the acquisition must still be processed, ``'failed'`` if it
    must be left out, or the exit code with which the run must end.
    """

    code: str
    level: str
    outcome: str | int
    make: Callable[[Dataset], None]
    label: str
    file: str = ''


DEFECTS: list[Defect] = []


def defect(code: str, level: str, outcome: str | int = '', file: str = '', label: str = ''):
    """Register a function that breaks a dataset."""
    outcome = outcome or ('failed' if level == 'ERROR' else 'series')

    def register(make: Callable[[Dataset], None]) -> Callable[[Dataset], None]:
        DEFECTS.append(Defect(code, level, outcome, make, label or make.__name__, file))
        return make

    return register


# ---- A. Content of the phase ----------------------------------------------------------------


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


@defect('HPF', 'WARN', file='part-phase')
def filtered_phase(ds):
    ds.edit_all(ImageType=['ORIGINAL', 'PRIMARY', 'P', 'SWI'])


# ---- B. Echoes and metadata -----------------------------------------------------------------


@defect('B28', 'ERROR', file='MEGRE')
def no_phase(ds):
    for path in ds.anat().glob('*part-phase*'):
        path.unlink()


@defect('B29', 'FIX', file='part-phase')
def no_magnitude(ds):
    for path in ds.anat().glob('*part-mag*'):
        path.unlink()


@defect('B30', 'ERROR', file='sub-01_echo-2_part-phase_MEGRE.nii.gz')
def phase_echo_missing(ds):
    ds.image(2).unlink()


@defect('B30', 'ERROR', file='sub-01_echo-3_part-mag_MEGRE.nii.gz')
def magnitude_echo_missing(ds):
    ds.image(3, 'mag').unlink()


@defect('B30', 'ERROR')
def requested_echo_missing(ds):
    ds.options['echoes'] = [1, 7]


@defect('B31', 'ERROR', file='echo-2')
def echo_time_missing(ds):
    ds.edit(ds.sidecar(2), EchoTime=None)
    ds.edit(ds.sidecar(2, 'mag'), EchoTime=None)


@defect('B31', 'FIX', file='echo-2')
def echo_time_in_header(ds):
    echo_time_missing(ds)
    ds.rewrite(ds.image(2), lambda data: data, description='TE=10.0;Time=120000.000')


@defect('B31', 'FIX', file='echo-2_part-phase')
def echo_time_of_magnitude(ds):
    ds.edit(ds.sidecar(2), EchoTime=None)


@defect('B32', 'FIX')
def echo_time_in_ms(ds):
    for echo, t in enumerate(TE, 1):
        for part in ('mag', 'phase'):
            ds.edit(ds.sidecar(echo, part), EchoTime=1000 * t)


@defect('B32', 'ERROR')
def echo_time_units_mixed(ds):
    for part in ('mag', 'phase'):
        ds.edit(ds.sidecar(2, part), EchoTime=10.0)


@defect('B33', 'FIX', file='echo-1_part-phase')
def echo_time_text(ds):
    ds.edit(ds.sidecar(1), EchoTime='0.005')


@defect('B33', 'ERROR', file='echo-1_part-phase')
def echo_time_nan(ds):
    ds.edit(ds.sidecar(1), EchoTime=float('nan'))


@defect('B33', 'ERROR', file='echo-1_part-phase')
def echo_time_negative(ds):
    ds.edit(ds.sidecar(1), EchoTime=-0.005)


@defect('B33', 'ERROR', file='echo-1_part-phase')
def echo_time_array(ds):
    ds.edit(ds.sidecar(1), EchoTime=list(TE))


@defect('B34', 'FIX')
def echoes_unsorted(ds):
    for echo, t in ((1, 0.015), (3, 0.005)):
        for part in ('mag', 'phase'):
            ds.edit(ds.sidecar(echo, part), EchoTime=t)


@defect('B35', 'ERROR')
def one_echo_time_for_all(ds):
    ds.edit_all(EchoTime=0.005)


@defect('B35', 'ERROR')
def inherited_echo_time(ds):
    for path in ds.anat().glob('*MEGRE.json'):
        ds.edit(path, EchoTime=None)
    write_json(ds.root / 'MEGRE.json', {'EchoTime': 0.005})


@defect('B35', 'ERROR', file='echo-1')
def parts_disagree(ds):
    ds.edit(ds.sidecar(1, 'mag'), EchoTime=0.004)


@defect('B36', 'FIX')
def uneven_spacing(ds):
    for part in ('mag', 'phase'):
        ds.edit(ds.sidecar(3, part), EchoTime=0.018)


@defect('B37', 'WARN')
def echo_gap(ds):
    ds.rename('echo-3', 'echo-4')


@defect('B37', 'INFO')
def echo_from_zero(ds):
    for echo in (1, 2, 3):
        ds.rename(f'echo-{echo}', f'echo-{echo - 1}')


@defect('B38', 'WARN')
def single_echo(ds):
    for echo in (2, 3):
        for path in ds.anat().glob(f'*echo-{echo}*'):
            path.unlink()


def write_4d(ds, echo_time, suffix='T2starw', order=(0, 1, 2)):
    for path in ds.anat().glob('*MEGRE*'):
        path.unlink()
    magnitude, phase = phantom()
    for part, data in (('mag', magnitude), ('phase', phase)):
        stem = f'sub-01_part-{part}_{suffix}'
        write_image(ds.anat() / f'{stem}.nii.gz', data[..., list(order)])
        content = {**SIDECAR, 'EchoTime': echo_time}
        write_json(ds.anat() / f'{stem}.json', {**content, 'Units': 'rad'})


@defect('B39', 'FIX', file='part-phase')
def echoes_in_4d(ds):
    write_4d(ds, list(TE))


@defect('B39', 'FIX', file='part-phase_MEGRE')
def echoes_in_4d_megre(ds):
    write_4d(ds, list(TE), 'MEGRE')


@defect('B39', 'ERROR', file='part-phase')
def too_few_times_for_4d(ds):
    write_4d(ds, list(TE[:2]))


@defect('B40', 'ERROR', file='part-phase')
def repeats_in_4d(ds):
    write_4d(ds, 0.005)


@defect('B40', 'ERROR')
def repeats_of_one_echo(ds):
    ds.rewrite(ds.image(1), lambda p: np.stack([p, p], -1))


@defect('B40', 'ERROR', file='echo-1_part-phase')
def five_dimensions(ds):
    ds.rewrite(ds.image(1), lambda p: np.stack([p, p], -1)[..., np.newaxis, :])


@defect('B43', 'FIX')
def field_from_frequency(ds):
    ds.edit_all(MagneticFieldStrength=None, ImagingFrequency=123.2)


@defect('B43', 'FIX')
def field_from_option(ds):
    ds.edit_all(MagneticFieldStrength=None)
    ds.options['field_strength'] = 3.0


@defect('B43', 'ERROR')
def field_missing(ds):
    ds.edit_all(MagneticFieldStrength=None)


@defect('B43', 'WARN')
def field_contradicts_option(ds):
    ds.options['field_strength'] = 7.0


@defect('B43', 'WARN')
def frequency_contradicts_field(ds):
    ds.edit_all(ImagingFrequency=63.9)


@defect('B44', 'FIX')
def field_in_millitesla(ds):
    ds.edit_all(MagneticFieldStrength=3000)


@defect('B44', 'FIX')
def field_in_gauss(ds):
    ds.edit_all(MagneticFieldStrength=30000)


@defect('B44', 'ERROR')
def field_impossible(ds):
    ds.edit_all(MagneticFieldStrength=127.7)


@defect('B45', 'ERROR')
def too_few_slices(ds):
    for path in ds.images():
        ds.rewrite(path, lambda data: data[..., :5])


@defect('B46', 'ERROR', file='sub-01_part-phase_echo-1_MEGRE.nii.gz')
def part_before_echo(ds):
    for echo in (1, 2, 3):
        ds.rename(f'_echo-{echo}_part-phase', f'_part-phase_echo-{echo}')


@defect('B46', 'ERROR', file='dir-AP')
def direction_entity(ds):
    ds.rename('sub-01_echo', 'sub-01_dir-AP_echo')


@defect('B46', 'ERROR', file='part-Phase')
def part_upper_case(ds):
    ds.rename('part-phase', 'part-Phase')


@defect('B46', 'ERROR', file='_GRE')
def wrong_suffix(ds):
    ds.rename('_MEGRE', '_GRE')


@defect('B47', 'ERROR', file='echo-1_part-phase')
def two_formats(ds):
    ds.image(1, ext='.nii').write_bytes(gzip.decompress(ds.image(1).read_bytes()))


@defect('B50', 'ERROR', file='sub-01_echo-2_part-phase_MEGRE.json')
def json_corrupt(ds):
    ds.sidecar(2).write_text('{"EchoTime": 0.01,\n  "Units": }')


@defect('B50', 'ERROR', file='sub-01_echo-2_part-phase_MEGRE.json')
def json_latin1(ds):
    ds.sidecar(2).write_bytes('{"Note": "é"}'.encode('latin-1'))


@defect('B50', 'ERROR', file='sub-01_echo-2_part-phase_MEGRE.json')
def json_with_bom(ds):
    ds.sidecar(2).write_bytes(b'\xef\xbb\xbf' + ds.sidecar(2).read_bytes())


@defect('B50', 'ERROR', file='sub-01_echo-2_part-phase_MEGRE.json')
def json_array(ds):
    ds.sidecar(2).write_text('[1, 2]')


@defect('B53', 'FATAL', 65, 'dataset_description.json')
def description_missing(ds):
    (ds.root / 'dataset_description.json').unlink()


@defect('B53', 'FATAL', 65, 'dataset_description.json')
def description_incomplete(ds):
    write_json(ds.root / 'dataset_description.json', {'Name': 'x'})


@defect('B54', 'FATAL', 65, 'dataset_description.json')
def derivative_dataset(ds):
    ds.edit(ds.root / 'dataset_description.json', DatasetType='derivative')


# ---- C. Files, headers, geometry ------------------------------------------------------------


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


@defect('C59', 'ERROR', file='echo-2_part-phase')
def short_uncompressed(ds):
    data = gzip.decompress(ds.image(2).read_bytes())
    ds.image(2).unlink()
    ds.image(2, ext='.nii').write_bytes(data[:-10])


@defect('C61', 'ERROR', file='echo-2_part-phase')
def complex_voxels(ds):
    ds.rewrite(ds.image(2), lambda p: np.exp(1j * p), dtype=np.complex64)


@defect('C62', 'ERROR', file='echo-2_part-phase')
def colour_image(ds):
    kind = np.dtype([(c, 'u1') for c in 'RGB'])
    write_image(ds.image(2), np.zeros(SHAPE, kind))


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


@defect('C72', 'ERROR')
def voxels_in_metres(ds):
    ds.regrid(affine((0.001, 0.001, 0.001)), unit='meter')


@defect('C72', 'ERROR')
def voxels_in_micrometres(ds):
    ds.regrid(affine((1000, 1000, 1000)), unit='micron')


# ---- D, E. Companions, request, folders -----------------------------------------------------


@defect('D81', 'WARN')
def no_t1w(ds):
    next(ds.anat().glob('*T1w.nii.gz')).unlink()


@defect('D82', 'WARN')
def t1w_of_other_session(ds):
    next(ds.anat().glob('*T1w.nii.gz')).unlink()
    write_t1w(ds, ses='late')


@defect('D82', 'WARN')
def t1w_damaged(ds):
    path = next(ds.anat().glob('*T1w.nii.gz'))
    path.write_bytes(path.read_bytes()[:1000])


@defect('E90', 'FATAL', 65)
def no_subjects(ds):
    (ds.root / 'sub-01').rename(ds.root / 'subject1')


@defect('E90', 'FATAL', 65)
def wrong_path(ds):
    ds.root = ds.root / 'nowhere'


@defect('E90', 'FATAL', 65)
def no_gre(ds):
    for path in ds.anat().glob('*MEGRE*'):
        path.unlink()


@defect('E91', 'FATAL', 2)
def participant_typo(ds):
    ds.options['participant_label'] = ['O1']


@defect('E91', 'FATAL', 2)
def session_typo(ds):
    ds.options['session_label'] = ['baseline']


@defect('E91', 'FATAL', 2)
def acquisition_typo(ds):
    ds.options['acq_label'] = ['hires']


@defect('E91', 'FATAL', 2)
def unknown_query(ds):
    ds.options['bids_filter'] = {'bold': {}}


@defect('E91', 'FATAL', 2)
def unknown_entity_in_filter(ds):
    ds.options['bids_filter'] = {'megre': {'aquisition': 'x'}}


# ---- Protocol -------------------------------------------------------------------------------


@defect('ACQ3D', 'WARN')
def two_dimensional(ds):
    ds.edit_all(MRAcquisitionType='2D')


@defect('ACQ3D', 'INFO')
def dimension_unknown(ds):
    ds.edit_all(MRAcquisitionType=None)


@defect('PF', 'WARN')
def partial_fourier(ds):
    ds.edit_all(PartialFourier=0.75)


@defect('SLTHK', 'WARN')
def thick_slices(ds):
    ds.regrid(affine((1, 1, 2.5)))


@defect('ISO', 'WARN')
def anisotropic(ds):
    ds.regrid(affine((1, 1, 2.5)))


@defect('FIELD', 'INFO')
def unusual_field(ds):
    ds.edit_all(MagneticFieldStrength=0.55)


def stored(phase):
    """Phase as a 12-bit integer, 0 to 4095."""
    return np.round((phase + np.pi) * 4096 / (2 * np.pi)) % 4096


def set_scaling(data: bytes, slope: float, intercept: float) -> bytes:
    """Write scl_slope and scl_inter into an uncompressed NIfTI-1."""
    return data[:112] + np.array([slope, intercept], '<f4').tobytes() + data[120:]
