import io as stdio
import json

import numpy as np
import pytest
from PIL import Image

from qsmflow import io
from qsmflow.interfaces import reportlets
from qsmflow.report import canvas, figures


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.setattr(canvas, 'DPI', 40)
    shape = (16, 18, 12)
    affine = np.diag([2.0, 2.0, 3.0, 1.0])
    like = io.Volume(np.zeros(shape), affine)
    mask = np.zeros(shape, bool)
    mask[3:13, 3:15, 2:10] = True
    rng = np.random.default_rng(0)
    labels = np.zeros(shape, int)
    labels[4:7, 6:10, 4:8], labels[9:12, 6:10, 4:8] = 1, 101
    arrays = {
        'magnitude': rng.random((*shape, 2)) + mask[..., None],
        'chi': 0.05 * rng.standard_normal(shape),
        'mask': mask,
        'labels': labels,
    }
    return {
        name: io.save_volume(array, like, tmp_path / f'{name}.nii')
        for name, array in arrays.items()
    }, {**arrays, 'affine': affine}


def run(interface, tmp_path):
    folder = tmp_path / 'node'
    folder.mkdir()
    outputs = interface.run(cwd=str(folder)).outputs
    with open(outputs.out_file, 'rb') as stream:
        image = stream.read()
    assert Image.open(stdio.BytesIO(image)).size[0] == 600
    with open(outputs.out_json, encoding='utf-8') as stream:
        return image, json.load(stream)['caption']


def test_magnitude_shows_the_first_echo_and_the_volume_of_the_mask(files, tmp_path):
    paths, arrays = files
    _, caption = run(
        reportlets.MagnitudeMaskFigure(in_file=paths['magnitude'], mask=paths['mask']), tmp_path
    )
    assert caption == f'Volume of the mask: {arrays["mask"].sum() * 12 / 1000:.0f} ml.'


def test_map_is_the_kernel_called_directly(files, tmp_path):
    paths, _ = files
    image, caption = run(
        reportlets.MapFigure(
            in_file=paths['chi'], mask=paths['mask'], kind='chi', caption='Mine.'
        ),
        tmp_path,
    )
    assert caption.startswith('Mine. Window')
    caption = caption.removeprefix('Mine. ')
    chi, mask = io.load_volume(paths['chi']), io.load_mask(paths['mask'])
    assert (image, caption) == figures.quantity(chi.data, chi.affine, 'chi', mask=mask)


@pytest.mark.parametrize('kind', ['phase', 'total_field', 'local_field'])
def test_fields(files, tmp_path, kind):
    paths, _ = files
    image, _ = run(
        reportlets.FieldFigure(in_file=paths['magnitude'], kind=kind, mask=paths['mask'], echo=1),
        tmp_path,
    )
    volume = io.load_volume(paths['magnitude'])
    mask = io.load_mask(paths['mask'])
    assert image == figures.quantity(volume.data[..., 1], volume.affine, kind, mask=mask)[0]


def test_atlas_and_registration(files, tmp_path):
    paths, _ = files
    _, caption = run(
        reportlets.AtlasFigure(
            in_file=paths['chi'],
            labels=paths['labels'],
            names={1: 'GPe', 101: 'GPe', 2: 'GPi'},
            caption='Regions of mine.',
        ),
        tmp_path,
    )
    assert caption == 'Regions of mine. Not in this image: GPi.'
    (tmp_path / 'second').mkdir()
    _, caption = run(
        reportlets.RegistrationFigure(
            fixed=paths['magnitude'], moving=paths['chi'], moving_mask=paths['mask'],
            caption='Score 0.9.',
        ),
        tmp_path / 'second',
    )  # fmt: skip
    assert caption == 'Score 0.9.'


def test_another_grid_is_refused(files, tmp_path):
    paths, arrays = files
    other = io.save_volume(
        arrays['mask'], io.Volume(arrays['mask'], np.eye(4)), tmp_path / 'other.nii'
    )
    with pytest.raises(io.GridMismatchError):
        reportlets.MapFigure(in_file=paths['chi'], mask=other).run(cwd=str(tmp_path))
