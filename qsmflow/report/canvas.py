"""The sheet that the panels of a figure lie on, and the panels themselves."""

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from . import planes

#: Resolution of the figures, in dots per inch, and their width, in inches.
DPI = 110
WIDTH = 15.0

_BAR_ROOM = 1.05  #: room for the colour bar with its labels at the right edge, in inches
_LETTER = 0.087  #: mean width of a letter of the legend, in inches
_HANDLE = 0.55  #: width of a line of the legend with the gaps around it, in inches
_LEGEND_ROW = 0.24  #: height of a row of the legend, in inches
_SUPERSCRIPTS = str.maketrans('-0123456789', '⁻⁰¹²³⁴⁵⁶⁷⁸⁹')

_INK = '#c9ced6'
_BACKGROUND = '#000000'


class Canvas:
    """A black figure with one row of panels for each plane, all at one scale.

    Parameters
    ----------
    volume : Oriented
        What is drawn; gives the positions of the slices.
    box : tuple of slice
        Part of the volume that fills the panels.
    slices : mapping of str to list of int
        Plane -> slices, in the order of rows and columns.
    legend : sequence of str, optional
        Names for which the foot has room.
    """

    def __init__(
        self,
        volume: planes.Oriented,
        box: tuple[slice, slice, slice],
        slices: Mapping[str, list[int]],
        *,
        legend: Sequence[str] = (),
    ):
        self.volume, self.box, self.slices = volume, box, slices
        self.sizes = {p: planes.panel_size(p, box, volume.voxel_size) for p in slices}
        columns = max(len(indices) for indices in slices.values())
        gap = 0.08
        self._cell = (WIDTH - _BAR_ROOM) / columns
        self._scale = min((self._cell - gap) / size[0] for size in self.sizes.values())
        heights = {p: size[1] * self._scale + 0.32 for p, size in self.sizes.items()}
        rows = math.ceil(len(legend) / legend_columns(legend))
        self._legend = rows * _LEGEND_ROW + 0.18 if legend else 0.0
        self._height = sum(heights.values()) + 0.12 + self._legend
        self._tops = {}
        top = self._height - 0.06
        for plane, height in heights.items():
            self._tops[plane] = top
            top -= height
        self.figure = Figure(figsize=(WIDTH, self._height), dpi=DPI, facecolor=_BACKGROUND)

    def panels(self) -> Iterator['Panel']:
        """Yield the panels, row by row."""
        for plane, indices in self.slices.items():
            width, height = (v * self._scale for v in self.sizes[plane])
            for column, index in enumerate(indices):
                left = 0.04 + self._cell * column + (self._cell - width) / 2
                rect = (
                    left / WIDTH,
                    (self._tops[plane] - 0.26 - height) / self._height,
                    width / WIDTH,
                    height / self._height,
                )
                yield Panel(self, plane, index, self.figure.add_axes(rect))

    def colour_bar(self, norm: Normalize, cmap: str | Colormap, unit: str) -> None:
        """Draw the colour bar at the right edge."""
        length = min(2.6, self._height * 0.6)
        middle = (self._height + self._legend) / 2
        axes = self.figure.add_axes(
            (1 - (_BAR_ROOM - 0.2) / WIDTH, (middle - length / 2) / self._height, 0.14 / WIDTH,
             length / self._height)
        )  # fmt: skip
        bar = self.figure.colorbar(ScalarMappable(norm, cmap), cax=axes)
        bar.outline.set_edgecolor(_INK)
        bar.outline.set_linewidth(0.6)
        if np.isclose(norm.vmax, np.pi):
            bar.set_ticks([-np.pi, 0, np.pi], labels=['−π', '0', 'π'])
        else:
            ticks = np.linspace(norm.vmin, norm.vmax, 5)
            labels, power = tick_labels(ticks)
            unit = f'{power} {unit}'.strip()
            bar.set_ticks(ticks, labels=labels)
        axes.tick_params(colors=_INK, labelsize=10.5, width=0.6, length=3)
        axes.set_title(unit, color=_INK, fontsize=11, pad=8)

    def legend(self, colours: Mapping[str, str]) -> None:
        """Draw the names of the labels along the lower edge."""
        handles = [Line2D([], [], color=c, lw=2.5, label=name) for name, c in colours.items()]
        self.figure.legend(
            handles=handles,
            loc='lower center',
            ncols=legend_columns(list(colours)),
            frameon=False,
            labelcolor=_INK,
            fontsize=10.5,
            handlelength=1.1,
            columnspacing=1.4,
            borderaxespad=0.3,
        )


def tick_labels(ticks: Sequence[float]) -> tuple[list[str], str]:
    """Write the ticks of a colour bar in few letters.

    Parameters
    ----------
    ticks : sequence of float
        Values.

    Returns
    -------
    labels : list of str
        Values, divided by a power of ten if they are very large or very small.
    power : str
        That power, or nothing.

    Examples
    --------
    >>> tick_labels([-0.15, 0.075]), tick_labels([0, 1147.3]), tick_labels([0, 52500.0])
    ((['−0.15', '0.075'], ''), (['0', '1147'], ''), (['0', '5.25'], '10⁴'))
    """
    largest = max(abs(float(tick)) for tick in ticks)
    power = math.floor(math.log10(largest)) if largest > 0 else 0
    power = power if power >= 4 or power < -2 else 0
    digits = 4 if 1000 <= largest < 1e4 else 3
    step = largest / 10**digits  # less than this is nothing beside the largest
    shown = [0.0 if abs(tick) < step else tick / 10**power for tick in ticks]
    labels = [f'{value:.{digits}g}'.replace('-', '−') for value in shown]
    return labels, f'10{str(power).translate(_SUPERSCRIPTS)}' if power else ''


def legend_columns(names: Sequence[str]) -> int:
    """Return how many names of a legend fit beside each other; its columns are equally wide."""
    longest = max((len(name) for name in names), default=0)
    return max(1, min(len(names), int((WIDTH - 0.3) / (_HANDLE + _LETTER * longest))))


class Panel:
    """One slice on the page."""

    def __init__(self, canvas: Canvas, plane: str, index: int, axes: Axes):
        self.canvas, self.plane, self.index, self.axes = canvas, plane, index, axes
        self.width, self.height = canvas.sizes[plane]
        axes.set_axis_off()
        place = planes.position(canvas.volume, plane, index)
        name = 'xyz'[planes.PLANES[plane]]
        axes.set_title(
            f'{name} = {round(place)} mm'.replace('-', '−'), color=_INK, fontsize=10, pad=3
        )
        left, right = planes.EDGE_LETTERS[plane]
        for x, letter, align in ((0.015, left, 'left'), (0.985, right, 'right')):
            text = axes.text(
                x, 0.98, letter, ha=align, va='top', color='#ffffff', fontsize=11,
                transform=axes.transAxes,
            )  # fmt: skip
            text.set_path_effects([withStroke(linewidth=2, foreground=_BACKGROUND)])

    def image(self, data: np.ma.MaskedArray, norm: Normalize, cmap: str | Colormap) -> None:
        """Show the slice at its true aspect ratio."""
        panel = np.ma.filled(planes.cut(data, self.plane, self.index, self.canvas.box), np.nan)
        self.axes.imshow(
            np.ma.masked_invalid(panel),
            origin='lower',
            extent=(0, self.width, 0, self.height),
            norm=norm,
            cmap=_with_black(cmap),
            interpolation='nearest' if min(panel.shape) < 80 else 'antialiased',
        )

    def contour(self, array: np.ndarray, level: float, colour: str) -> None:
        """Draw a level line of a volume on the slice."""
        panel = planes.cut(array, self.plane, self.index, self.canvas.box).astype(np.float32)
        if not panel.min() < level < panel.max():
            return
        rows, columns = panel.shape
        x = (np.arange(columns) + 0.5) * self.width / columns
        y = (np.arange(rows) + 0.5) * self.height / rows
        self.axes.contour(x, y, panel, levels=[level], colors=[to_rgb(colour)], linewidths=0.9)


def _with_black(cmap: str | Colormap) -> Colormap:
    """Return a colour map that leaves masked voxels black."""
    chosen = colormaps[cmap] if isinstance(cmap, str) else cmap
    return chosen.with_extremes(bad=_BACKGROUND)
