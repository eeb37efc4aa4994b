"""Figures of volumes: pure functions from arrays to PNG bytes.

Windows are fixed by quantity and never taken from the data, so that two subjects, or two versions
of the package, can be compared by eye. The same arrays give the same bytes.
"""

import io
from collections.abc import Mapping

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from PIL import Image
from scipy import ndimage

from qsmflow.report.canvas import Canvas

from . import planes

#: Display of each quantity: window, unit, colour map.
STYLES = {
    'phase': ((-np.pi, np.pi), 'rad', 'gray'),
    'total_field': ((-0.6, 0.6), 'ppm', 'RdBu_r'),
    'local_field': ((-0.06, 0.06), 'ppm', 'gray'),
    'chi': ((-0.1, 0.1), 'ppm', 'gray'),
    'r2star': ((0.0, 60.0), '1/s', 'gray'),
    't2star': ((0.0, 0.08), 's', 'gray'),
}

#: The close-up of the deep nuclei needs a wider window, in ppm, lest the pallidum saturates.
ATLAS_WINDOW = (-0.15, 0.15)

OUTLINE = '#ffb000'

#: Colours for labels: distinct from their neighbours in the list and from grey.
LABEL_COLOURS = (
    '#ff5a4f',
    '#38b6ff',
    '#ffd60a',
    '#3ddc84',
    '#c77dff',
    '#ff9f1c',
    '#00d5c4',
    '#ff7eb6',
    '#a8e10c',
    '#8c9eff',
    '#e8a87c',
    '#7fdbff',
    '#2f5bff',
    '#b8b42d',
)


def robust_window(data: np.ndarray, mask: np.ndarray | None = None) -> tuple[float, float]:
    """Return a window for an image in arbitrary units: zero to its 99.5th percentile.

    Parameters
    ----------
    data : ndarray of float, shape (X, Y, Z)
        Image, such as a magnitude.
    mask : ndarray of bool, shape (X, Y, Z), optional
        Where to look. Everywhere above zero when not given or empty.

    Returns
    -------
    tuple of float

    Examples
    --------
    >>> robust_window(np.linspace(0, 200, 201).reshape(67, 3, 1))
    (0.0, 199.0)
    """
    inside = data[mask] if mask is not None and mask.any() else data[data > 0]
    inside = inside[np.isfinite(inside)]
    top = float(np.percentile(inside, 99.5)) if inside.size else 1.0
    return 0.0, round(top, 3) if top > 0 else 1.0


def three_planes(
    data: np.ndarray,
    affine: np.ndarray,
    *,
    window: tuple[float, float],
    unit: str = '',
    cmap: str | Colormap = 'gray',
    mask: np.ndarray | None = None,
    outline: np.ndarray | None = None,
    contours: Mapping[str, tuple[np.ndarray, float]] | None = None,
    labels: np.ndarray | None = None,
    label_names: Mapping[int, str] | None = None,
    focus: np.ndarray | None = None,
    margin: float = 6.0,
    n_slices: int = 5,
    colour_bar: bool = True,
) -> bytes:
    r"""Draw a volume in rows of axial, coronal and sagittal slices.

    Parameters
    ----------
    data : ndarray of float, shape (X, Y, Z)
        Values to show, in ``unit``.
    affine : ndarray of float, shape (4, 4)
        Voxel indices to scanner coordinates, in mm; gives orientation and aspect ratio.
    window : tuple of float
        Values shown black and white, in ``unit``.
    unit : str, optional
        Unit at the colour bar.
    cmap : str or Colormap, optional
        Colour map.
    mask : ndarray of bool, shape (X, Y, Z), optional
        Voxels outside are left black.
    outline : ndarray of bool, shape (X, Y, Z), optional
        Region whose border is drawn.
    contours : mapping of str to (ndarray, float), optional
        Colour -> (volume of shape (X, Y, Z), level): level lines drawn over the image.
    labels : ndarray of int, shape (X, Y, Z), optional
        Regions whose borders are drawn, one colour for each name.
    label_names : mapping of int to str, optional
        Name of each label; labels that share a name (left and right) share a colour.
    focus : ndarray of bool, shape (X, Y, Z), optional
        Region that fills the panels; default: ``mask``, ``outline``, or everything.
    margin : float, optional
        Room around the focus, in mm.
    n_slices : int, optional
        Slices in each plane, at most.
    colour_bar : bool, optional
        Whether to draw one.

    Returns
    -------
    bytes
        A PNG image.

    Raises
    ------
    ValueError
        If an array has another shape than ``data``, or the window is empty.

    Examples
    --------
    >>> image = three_planes(np.zeros((8, 9, 10)), np.eye(4), window=(-0.1, 0.1), unit='ppm')
    >>> image[:4]
    b'\x89PNG'
    """
    if not window[0] < window[1]:
        raise ValueError(f'the window must rise; got {window}.')
    extra = [mask, outline, labels, focus, *(c[0] for c in (contours or {}).values())]
    for other in extra:
        if other is not None and other.shape != data.shape:
            raise ValueError(f'arrays of one figure share a shape: {other.shape}, {data.shape}.')
    volume = planes.orient(data, affine)

    def turn(array: np.ndarray | None) -> np.ndarray | None:
        return None if array is None else planes.orient(array, affine).data

    shown = np.ma.masked_invalid(volume.data)
    if mask is not None:
        shown = np.ma.masked_where(~turn(mask), shown)
    region = next((r for r in (focus, mask, outline) if r is not None), None)
    region = np.ones(volume.data.shape, bool) if region is None else turn(region)
    label_image = turn(labels)
    colours = _label_colours(label_image, label_names)
    named = dict(colours.values()) if label_names else {}
    canvas = Canvas(
        volume,
        planes.bounding_box(region, volume.voxel_size, margin=margin),
        _choose(region, label_image, n_slices),
        legend=list(named),
    )
    norm = Normalize(*window)
    overlays = [
        (turn(array), level, colour) for colour, (array, level) in (contours or {}).items()
    ]
    if outline is not None:
        overlays.append((turn(outline), 0.5, OUTLINE))
    overlays += [(label_image == index, 0.5, colour) for index, (_, colour) in colours.items()]
    for panel in canvas.panels():
        panel.image(shown, norm, cmap)
        for array, level, colour in overlays:
            panel.contour(array, level, colour)
    if colour_bar:
        canvas.colour_bar(norm, cmap, unit)
    if named:
        canvas.legend(named)
    return to_png(canvas.figure)


def quantity(
    data: np.ndarray,
    affine: np.ndarray,
    kind: str,
    *,
    mask: np.ndarray | None = None,
    window: tuple[float, float] | None = None,
) -> tuple[bytes, str]:
    """Draw a map of a known quantity in its fixed window.

    Parameters
    ----------
    data : ndarray of float, shape (X, Y, Z)
        Map in the unit that ``STYLES`` gives for ``kind``.
    affine : ndarray of float, shape (4, 4)
        Voxel indices to scanner coordinates, in mm.
    kind : str
        Key of ``STYLES``. A total field is shown with its median taken off; wrapped phase is
        shown around the mask as well, so that fringes can be followed into the air.
    mask : ndarray of bool, shape (X, Y, Z), optional
        Region of interest.
    window : tuple of float, optional
        Another window than the fixed one.

    Returns
    -------
    image : bytes
        A PNG image.
    caption : str
        Window, and the share of voxels beyond it.
    """
    fixed, unit, cmap = STYLES[kind]
    window = window or fixed
    inside = np.isfinite(data) & (mask if mask is not None else True)
    facts = []
    if kind == 'total_field' and inside.any():
        median = float(np.median(data[inside]))
        data = data - median
        facts.append(f'Median taken off: {median:.3f} ppm.')
    around = {'focus': mask, 'margin': 20.0} if kind == 'phase' else {'mask': mask}
    image = three_planes(data, affine, window=window, unit=unit, cmap=cmap, **around)
    if kind != 'phase' and inside.any():
        above, below = np.mean(data[inside] > window[1]), np.mean(data[inside] < window[0])
        facts.append(f'Window {window[0]:g} to {window[1]:g} {unit}.')
        facts.append(f'{above:.1%} of the voxels lie above it, {below:.1%} below.')
    return image, ' '.join(facts).replace('-', '−')


def atlas(
    chi: np.ndarray,
    labels: np.ndarray,
    affine: np.ndarray,
    names: Mapping[int, str],
    *,
    mask: np.ndarray | None = None,
) -> tuple[bytes, str]:
    """Draw the borders of regions on a susceptibility map, close up.

    Parameters
    ----------
    chi : ndarray of float, shape (X, Y, Z)
        Susceptibility, in ppm.
    labels : ndarray of int, shape (X, Y, Z)
        Label image, 0 outside.
    affine : ndarray of float, shape (4, 4)
        Voxel indices to scanner coordinates, in mm.
    names : mapping of int to str
        Name of each label; both sides of a region share one.
    mask : ndarray of bool, shape (X, Y, Z), optional
        Voxels to show.

    Returns
    -------
    image : bytes
        A PNG image.
    caption : str
        Regions without a voxel, which the image cannot show.
    """
    image = three_planes(
        chi,
        affine,
        window=ATLAS_WINDOW,
        unit='ppm',
        mask=mask,
        labels=labels,
        label_names={index: name.replace('_', ' ') for index, name in names.items()},
        focus=labels > 0 if (labels > 0).any() else None,
        margin=14.0,
    )
    present = set(np.unique(labels).tolist())
    lost = {name for i, name in names.items() if i not in present}
    lost = sorted(lost - {name for i, name in names.items() if i in present})
    return image, f'Not in this image: {", ".join(lost)}.' if lost else ''


def registration_check(
    fixed: np.ndarray,
    moving: np.ndarray,
    affine: np.ndarray,
    *,
    mask: np.ndarray | None = None,
    moving_mask: np.ndarray | None = None,
    n_slices: int = 5,
) -> bytes:
    """Draw the tissue borders of a registered image over the image it was registered to.

    Parameters
    ----------
    fixed : ndarray of float, shape (X, Y, Z)
        Image of the subject.
    moving : ndarray of float, shape (X, Y, Z)
        The registered image, resampled to the grid of ``fixed``.
    affine : ndarray of float, shape (4, 4)
        Voxel indices to scanner coordinates, in mm.
    mask : ndarray of bool, shape (X, Y, Z), optional
        Brain of the subject; sets window and slices.
    moving_mask : ndarray of bool, shape (X, Y, Z), optional
        Brain of the registered image; its border is drawn too.
    n_slices : int, optional
        Slices in each plane, at most.

    Returns
    -------
    bytes
        A PNG image.

    Notes
    -----
    Border of the registered brain in orange, and in blue the level line of the registered image,
    lightly smoothed, at Otsu's threshold within that brain: where its brighter and its darker
    tissue meet.
    """
    inside = moving_mask if moving_mask is not None else moving > 0
    smooth = ndimage.gaussian_filter(np.asarray(moving, np.float32), 0.7)
    contours = {}
    if inside.any():
        level = otsu_threshold(smooth[inside])
        contours['#3fd0ff'] = (np.where(inside, smooth, level - 1e-6), level)
    return three_planes(
        fixed,
        affine,
        window=robust_window(fixed, mask),
        unit='a.u.',
        outline=moving_mask,
        contours=contours,
        focus=mask,
        margin=12.0,
        n_slices=n_slices,
    )


def otsu_threshold(values: np.ndarray, bins: int = 128) -> float:
    """Return the threshold that splits values into two classes of least within-class variance.

    Parameters
    ----------
    values : ndarray of float, shape (N,)
        Values; at least one.
    bins : int, optional
        Number of histogram bins.

    Returns
    -------
    float

    Examples
    --------
    >>> 1 < otsu_threshold(np.array([1.0, 1.1, 0.9, 5.0, 5.1, 4.9])) < 5
    True
    """
    count, edges = np.histogram(values, bins)
    centres = (edges[1:] + edges[:-1]) / 2
    below = np.cumsum(count)
    total = np.cumsum(count * centres)
    above = below[-1] - below
    with np.errstate(invalid='ignore', divide='ignore'):
        between = below * above * (total / below - (total[-1] - total) / above) ** 2
    # Empty bins between the classes tie: their middle is the natural border.
    between = np.nan_to_num(between[:-1], nan=-1.0)
    best = np.flatnonzero(np.isclose(between, between.max()))
    return float(edges[1:][best].mean())


def to_png(figure: Figure) -> bytes:
    """Render a figure to PNG bytes.

    Intensities are rounded to 64 levels: on a screen nothing visible is lost, and noise, which
    fills most of such a file, takes half the space.
    """
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3].astype(np.uint16)
    pixels = np.minimum((pixels + 2) // 4 * 4, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, 'PNG', optimize=True)
    return buffer.getvalue()


def _choose(region: np.ndarray, labels: np.ndarray | None, count: int) -> dict[str, list[int]]:
    """Choose the slices of each plane: to show every label, or spread over the region."""
    if labels is not None and labels.any():
        return {p: planes.covering_slices(labels, a, count) for p, a in planes.PLANES.items()}
    return {p: planes.spread_slices(region, a, count) for p, a in planes.PLANES.items()}


def _label_colours(
    labels: np.ndarray | None, names: Mapping[int, str] | None
) -> dict[int, tuple[str, str]]:
    """Give each label that occurs a ``(name, colour)``, one colour for each name."""
    if labels is None:
        return {}
    indices = [int(i) for i in np.unique(labels) if i > 0]
    name_of = {index: (names or {}).get(index, str(index)) for index in indices}
    order = list(dict.fromkeys(name_of.values()))
    colour_of = {name: LABEL_COLOURS[i % len(LABEL_COLOURS)] for i, name in enumerate(order)}
    return {index: (name, colour_of[name]) for index, name in name_of.items()}
