"""Comparison of a converted dataset with the reference of the Philips data."""

import gzip
import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np

from tests.realdata import real_data

#: A step of the phase, 12 bits for a turn, in rad.
STEP = 2 * np.pi / 4095


def unpacked(kind: str, folder: Path) -> Path:
    """Unpack the DICOM files, ``'classic'`` or ``'enhanced'``, into a folder."""
    source = real_data('philips-3t-gre') / 'dicom'
    packed = source.glob('classic/*.gz') if kind == 'classic' else [source / 'enhanced.dcm.gz']
    target = Path(folder) / kind
    target.mkdir(parents=True)
    for path in packed:
        with gzip.open(path) as stream, (target / path.stem).open('wb') as out:
            shutil.copyfileobj(stream, out)
    return target


def assert_like_reference(dataset: Path) -> None:
    """Compare shape, affine, echo time, unit and values of all images with the reference.

    Phase may differ by half a step of the stored integers, magnitude by rounding.
    """
    reference = real_data('philips-3t-gre') / 'bids'
    wanted = sorted(p.relative_to(reference) for p in reference.glob('sub-01/anat/*_MEGRE.nii.gz'))
    found = sorted(p.relative_to(dataset) for p in Path(dataset).glob('sub-*/**/*.nii.gz'))
    assert found == wanted
    assert len(found) == 4
    for relative in found:
        image, expected = nib.load(Path(dataset) / relative), nib.load(reference / relative)
        assert image.shape == expected.shape
        np.testing.assert_allclose(image.affine, expected.affine, atol=1e-4)
        sidecar = str(relative).replace('.nii.gz', '.json')
        content = json.loads((Path(dataset) / sidecar).read_text(encoding='utf-8'))
        known = json.loads((reference / sidecar).read_text(encoding='utf-8'))
        assert content['EchoTime'] == known['EchoTime']
        assert content.get('Units') == known.get('Units')
        difference = np.abs(image.get_fdata() - expected.get_fdata())
        if 'part-phase' in relative.name:
            assert difference.max() <= STEP / 2
        else:
            assert difference.max() <= 1e-6 * expected.get_fdata().max()
