import io

import numpy as np
import pytest
from PIL import Image

from qsmflow.report import canvas, figures, planes

WINDOW = {'window': (-0.1, 0.1), 'unit': 'ppm'}


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert('RGB')).astype(int)


@pytest.fixture
def full_size():
    """Draw at the resolution of the report: for tests that look at thin lines or at the size."""


@pytest.fixture(autouse=True)
def _quick(request, monkeypatch):
    if 'full_size' not in request.fixturenames:
        monkeypatch.setattr(canvas, 'DPI', 40)


@pytest.fixture
def head():
    """An ellipsoid with one bright block on the subject's right, in front and above."""
    x, y, z = np.mgrid[-20:20, -24:24, -16:16]
    mask = (x / 16) ** 2 + (y / 20) ** 2 + (z / 13) ** 2 < 1
    data = np.where(mask, 0.0, 0.05)
    data[24:30, 28:36, 18:24] = 0.1
    return data, mask, np.diag([1.0, 1.0, 1.0, 1.0])


@pytest.mark.parametrize('flips', [(1, 1, 1), (-1, 1, 1), (-1, -1, 1)])
@pytest.mark.parametrize('axes', [(0, 1, 2), (2, 0, 1)])
def test_storage_order_does_not_change_the_figure(head, flips, axes):
    data, mask, affine = head
    expected = figures.three_planes(data, affine, mask=mask, n_slices=1, **WINDOW)
    stored, stored_mask, stored_affine = data, mask, affine.copy()
    for axis, sign in enumerate(flips):
        if sign < 0:
            stored, stored_mask = np.flip(stored, axis), np.flip(stored_mask, axis)
            stored_affine[:3, 3] += stored_affine[:3, axis] * (data.shape[axis] - 1)
            stored_affine[:3, axis] *= -1
    stored, stored_mask = stored.transpose(axes), stored_mask.transpose(axes)
    stored_affine = stored_affine[:, [*axes, 3]]
    image = figures.three_planes(stored, stored_affine, mask=stored_mask, n_slices=1, **WINDOW)
    assert image == expected


def test_the_right_of_the_subject_is_on_the_left_and_the_front_is_up():
    data = np.zeros((10, 12, 14))
    data[8, 9, 11] = 1  # right, anterior, superior
    box = tuple(slice(0, n) for n in data.shape)
    for plane, index, where in (
        ('axial', 11, (9, 1)),
        ('coronal', 9, (11, 1)),
        ('sagittal', 8, (11, 2)),  # anterior is on the left
    ):
        panel = planes.cut(data, plane, index, box)
        assert np.argwhere(panel).tolist() == [list(where)]


def test_aspect_ratio_is_that_of_the_body(head):
    data, mask, _ = head
    thick = planes.orient(data[:, :, ::2], np.diag([1.0, 1, 2, 1]))
    box = planes.bounding_box(mask[:, :, ::2], thick.voxel_size, margin=4)
    width, height = planes.panel_size('coronal', box, thick.voxel_size)
    fine = planes.bounding_box(mask, (1, 1, 1), margin=4)
    expected = planes.panel_size('coronal', fine, (1, 1, 1))
    assert (width, height) == pytest.approx(expected, abs=2)


def test_positions_are_scanner_coordinates():
    affine = np.array([[-2.0, 0, 0, 90], [0, 2, 0, -120], [0, 0, 2, -70], [0, 0, 0, 1]])
    volume = planes.orient(np.zeros((91, 109, 91)), affine)
    assert planes.position(volume, 'axial', 35) == pytest.approx(0)
    # After the flip to RAS, index 45 of the first axis is still the midline.
    assert planes.position(volume, 'sagittal', 45) == pytest.approx(0)
    assert planes.position(volume, 'sagittal', 46) == pytest.approx(2)
    assert volume.obliquity == pytest.approx(0)


def test_window_is_fixed_not_taken_from_the_data(head):
    _, mask, affine = head
    images = [
        pixels(figures.three_planes(value * mask, affine, mask=mask, n_slices=1, **WINDOW))
        for value in (0.05, 0.025)
    ]
    assert images[0].shape == images[1].shape
    # A quarter and an eighth of the window above its middle grey.
    assert (np.abs(images[0] - 0.75 * 255).max(axis=-1) < 4).any()
    assert (np.abs(images[1] - 0.625 * 255).max(axis=-1) < 4).any()
    assert not np.array_equal(images[0], images[1])


def test_same_arrays_give_the_same_bytes(head):
    data, mask, affine = head
    first = figures.three_planes(data, affine, outline=mask, n_slices=1, **WINDOW)
    assert first == figures.three_planes(data.copy(), affine, outline=mask, n_slices=1, **WINDOW)


def test_voxels_outside_the_mask_and_not_finite_ones_are_black(head):
    data, mask, affine = head
    plain = figures.three_planes(data, affine, mask=mask, n_slices=1, colour_bar=False, **WINDOW)
    broken = np.where(mask, data, np.nan)
    image = figures.three_planes(broken, affine, mask=mask, n_slices=1, colour_bar=False, **WINDOW)
    assert image == plain


@pytest.mark.usefixtures('full_size')
def test_outline_and_labels_are_drawn_in_their_colours(head):
    data, mask, affine = head

    def has(png, colour):
        wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
        return (np.abs(pixels(png) - wanted).max(axis=-1) < 24).any()

    outlined = figures.three_planes(data, affine, outline=mask, n_slices=1, **WINDOW)
    assert has(outlined, figures.OUTLINE)
    plain = figures.three_planes(data, affine, focus=mask, n_slices=1, **WINDOW)
    assert not has(plain, figures.OUTLINE)
    labels = np.zeros(data.shape, int)
    labels[8:14, 20:28, 12:20], labels[26:32, 20:28, 12:20] = 1, 101
    image, caption = figures.atlas(
        data, labels, affine, {1: 'red_nucleus', 101: 'red_nucleus', 2: 'GPe'}, mask=mask
    )
    assert has(image, figures.LABEL_COLOURS[0])
    assert not has(image, figures.LABEL_COLOURS[1])  # both sides share one colour
    assert caption == 'Not in this image: GPe.'


def test_slices_cover_every_label():
    labels = np.zeros((20, 20, 40), int)
    for index, z in enumerate((3, 11, 22, 37), 1):
        labels[5:9, 5:9, z] = index
    chosen = planes.covering_slices(labels, 2, 5)
    assert chosen == [3, 11, 22, 37]
    assert len(planes.covering_slices(labels, 2, 2)) == 2


def test_total_field_is_shown_without_its_median(head):
    data, mask, affine = head
    image, caption = figures.quantity(data, affine, 'total_field', mask=mask)
    shifted, _ = figures.quantity(data + 3.0, affine, 'total_field', mask=mask)
    assert np.abs(pixels(image) - pixels(shifted)).max() <= 4
    assert caption.startswith('Median taken off: 0.000 ppm.')


def test_caption_tells_how_much_lies_beyond_the_window():
    data = np.zeros((10, 10, 10))
    data[:5, :, :] = 0.3
    _, caption = figures.quantity(data, np.eye(4), 'chi')
    assert caption == ('Window −0.1 to 0.1 ppm. 50.0% of the voxels lie above it, 0.0% below.')


def test_registration_check_shows_a_shift(head):
    data, mask, affine = head
    fixed = 100.0 * mask + 40 * (data > 0.08)
    good = figures.registration_check(fixed, fixed, affine, mask=mask, moving_mask=mask)
    moved = np.roll(fixed, 5, axis=0)
    bad = figures.registration_check(
        fixed, moved, affine, mask=mask, moving_mask=np.roll(mask, 5, axis=0)
    )
    assert pixels(good).shape == pixels(bad).shape
    assert good != bad


@pytest.mark.parametrize('shape', [(1, 7, 9), (40, 2, 2)])
def test_odd_volumes_and_empty_masks_draw(shape):
    empty = np.zeros(shape, bool)
    image = figures.three_planes(
        np.full(shape, np.nan), np.eye(4), mask=empty, outline=empty, **WINDOW
    )
    assert pixels(image).ndim == 3
    figures.registration_check(np.zeros(shape), np.zeros(shape), np.eye(4), mask=empty)
    figures.atlas(np.zeros(shape), np.zeros(shape, int), np.eye(4), {1: 'GPe'}, mask=empty)
    assert figures.robust_window(np.zeros(shape)) == (0.0, 1.0)


def test_wrong_input_is_named():
    with pytest.raises(ValueError, match=r'shape \(X, Y, Z\); got \(4, 4, 4, 2\)'):
        figures.three_planes(np.zeros((4, 4, 4, 2)), np.eye(4), window=(0, 1))
    with pytest.raises(ValueError, match='share a shape'):
        figures.three_planes(
            np.zeros((4, 4, 4)), np.eye(4), window=(0, 1), mask=np.ones((4, 4, 5), bool)
        )
    with pytest.raises(ValueError, match='window must rise'):
        figures.three_planes(np.zeros((4, 4, 4)), np.eye(4), window=(1, 1))


@pytest.mark.usefixtures('full_size')
def test_a_full_size_figure_stays_small():
    """Eight figures of a noisy 1 mm head stay within 8 MB once they are in the page."""
    rng = np.random.default_rng(0)
    data = 0.01 * rng.standard_normal((180, 220, 180), dtype=np.float32)
    x, y, z = np.ogrid[-1:1:180j, -1:1:220j, -1:1:180j]
    image, _ = figures.quantity(data, np.eye(4), 'chi', mask=x**2 + y**2 + z**2 < 0.9)
    assert len(image) < 8e6 / 8 * 3 / 4


def test_legend_and_colour_bar_lie_inside_the_figure():
    from matplotlib.colors import Normalize

    from qsmflow.report import canvas, planes

    data = np.zeros((20, 20, 20))
    names = [f'a rather long name {i}' for i in range(14)]
    volume = planes.orient(data, np.eye(4))
    box = (slice(0, 20),) * 3
    sheet = canvas.Canvas(volume, box, {'axial': [5, 10, 15]}, legend=names)
    sheet.legend(dict.fromkeys(names, '#ff0000'))
    sheet.colour_bar(Normalize(-7.5, 52000), 'gray', 'a.u.')
    figure = sheet.figure
    figure.draw_without_rendering()
    width, height = figure.canvas.get_width_height()
    boxes = [figure.legends[0].get_window_extent(), figure.axes[-1].get_tightbbox()]
    for extent in boxes:
        assert extent.x0 >= 0
        assert extent.x1 <= width
        assert extent.y0 >= 0
        assert extent.y1 <= height
