"""Make a small clean BIDS dataset, with helpers to change single files of it."""

import json
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


def write_scan(dataset: Dataset, magnitude, phase, te, grid, sub='01') -> None:
    """Replace the echoes of a subject by those of a scan, (X, Y, Z, E)."""
    for path in dataset.anat(sub).glob('*MEGRE*'):
        path.unlink()
    for i, t in enumerate(te):
        for part, data in (('mag', magnitude), ('phase', phase)):
            image = data[..., i].astype(np.float32)
            write_image(dataset.image(i + 1, part, sub=sub), image, grid)
            content = SIDECAR | {'EchoTime': t} | ({'Units': 'rad'} if part == 'phase' else {})
            write_json(dataset.sidecar(i + 1, part, sub=sub), content)


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
