"""Charts of tables: pure functions from data frames to SVG text."""

import io
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure

#: Maps that are drawn, in order, as they are written in text.
MAPS = {'chi': 'χ', 'R2star': 'R2*', 'T2star': 'T2*'}

#: Colour, marker and name of each side.
SIDES = {
    'L': ('#2563a8', 'o', 'left'),
    'R': ('#d9622b', 's', 'right'),
    '': ('#4b5563', 'D', 'both or midline'),
}

_INK = '#374151'
_STYLE = {
    'font.family': 'DejaVu Sans',
    'font.size': 9,
    'svg.hashsalt': 'qsmflow',
    'text.parse_math': False,  # a name may have dollar signs
    'axes.edgecolor': '#9ca3af',
    'axes.labelcolor': _INK,
    'text.color': _INK,
    'xtick.color': _INK,
    'ytick.color': _INK,
    'axes.spines.top': False,
    'axes.spines.right': False,
    'axes.grid': True,
    'grid.color': '#e5e7eb',
    'grid.linewidth': 0.7,
    'axes.axisbelow': True,
}


def shown_maps(table: pd.DataFrame, maps: Sequence[str] = ('chi', 'R2star')) -> list[str]:
    """Return those of ``maps`` for which the table has a finite mean."""
    present = set(_drawable(table)['map'])
    return [name for name in maps if name in present]


def map_title(table: pd.DataFrame, name: str) -> str:
    """Return name and unit of a map, as ``'χ (ppb)'``."""
    units = table.loc[table['map'] == name, 'unit']
    unit = units.iloc[0] if len(units) else ''
    return MAPS.get(name, name) + (f' ({unit})' if unit else '')


def region_chart(table: pd.DataFrame, maps: Sequence[str] = ('chi', 'R2star')) -> str:
    """Draw region statistics of one image: median, middle half and 5th to 95th percentile.

    Parameters
    ----------
    table : DataFrame
        As :func:`qsmflow.tables.read_stats` returns it. The row of the whole mask is left out.
    maps : sequence of str, optional
        Maps to draw, one panel each.

    Returns
    -------
    str
        An SVG document; empty when the table holds no finite value.
    """
    names = shown_maps(table, maps)
    if not names:
        return ''
    table = _drawable(table[table['map'].isin(names)])
    regions = list(dict.fromkeys(table['region']))
    with rc_context(_STYLE):
        figure = Figure(figsize=(11, 0.75 + 0.30 * len(regions)), layout='constrained')
        axes = np.atleast_1d(figure.subplots(1, len(names), sharey=True))
        for panel, name in zip(axes, names, strict=True):
            _region_panel(panel, table[table['map'] == name], regions, name)
        axes[0].set_yticks(range(len(regions)), [_pretty(region) for region in regions])
        axes[0].set_ylim(len(regions) - 0.5, -0.5)
        handles, labels = axes[0].get_legend_handles_labels()
        unique = dict(zip(labels, handles, strict=True))
        figure.legend(unique.values(), unique, loc='outside upper right', ncols=3, frameon=False)
        return _svg(figure)


def group_chart(table: pd.DataFrame, name: str, label: str = 'label') -> str:
    """Draw the distribution of each region over subjects and name the outliers.

    Parameters
    ----------
    table : DataFrame
        As :func:`qsmflow.tables.flag_outliers` returns it, with the column ``label``.
    name : str
        Map to draw.
    label : str, optional
        Column that names a point.

    Returns
    -------
    str
        An SVG document; empty when there is no finite value.
    """
    table = _drawable(table[table['map'] == name])
    if table.empty:
        return ''
    regions = list(dict.fromkeys(table['region']))
    near = 0.04 * float(np.ptp(table['mean']))
    with rc_context(_STYLE):
        figure = Figure(figsize=(11, 0.8 + 0.42 * len(regions)), layout='constrained')
        axes = figure.subplots()
        for row, region in enumerate(regions):
            rows = table[table['region'] == region]
            sides = [side for side in SIDES if (rows['hemi'] == side).any()]
            for i, side in enumerate(sides):
                offset = 0.0 if len(sides) == 1 else (i - (len(sides) - 1) / 2) * 0.28
                _distribution(axes, rows[rows['hemi'] == side], row + offset, side, label, near)
        axes.set_yticks(range(len(regions)), [_pretty(region) for region in regions])
        axes.set_ylim(len(regions) - 0.4, -0.6)
        axes.set_xlabel(map_title(table, name))
        _zero_line(axes)
        handles, labels = axes.get_legend_handles_labels()
        unique = dict(zip(labels, handles, strict=True))
        figure.legend(unique.values(), unique, loc='outside upper right', ncols=4, frameon=False)
        return _svg(figure)


def _region_panel(axes, rows: pd.DataFrame, regions: list[str], name: str) -> None:
    for row in rows.to_dict('records'):
        side = row['hemi'] if row['hemi'] in SIDES else ''
        colour, marker, text = SIDES[side]
        y = regions.index(row['region']) + {'L': -0.16, 'R': 0.16}.get(side, 0.0)
        value = {key: float(row[key]) for key in ('median', 'p5', 'p25', 'p75', 'p95')}
        axes.plot([value['p5'], value['p95']], [y, y], color=colour, lw=0.9, alpha=0.6)
        axes.plot(
            [value['p25'], value['p75']], [y, y], color=colour, lw=3.2, alpha=0.55,
            solid_capstyle='round',
        )  # fmt: skip
        axes.plot(value['median'], y, marker, color=colour, ms=4.5, mec='white', mew=0.6,
                  label=text, ls='none')  # fmt: skip
    axes.set_xlabel(map_title(rows, name))
    _zero_line(axes)
    axes.tick_params(length=0)


def _distribution(axes, rows, y, side, label, near) -> None:
    """One box with its points; the place of a point across the line depends on its rank alone."""
    rows = rows.sort_values('mean', kind='stable')
    values = rows['mean'].to_numpy(float)
    colour, marker, text = SIDES[side]
    if len(values) >= 4:
        low, middle, high = np.percentile(values, [25, 50, 75])
        axes.barh(y, high - low, left=low, height=0.26, color=colour, alpha=0.16, lw=0)
        axes.plot([middle, middle], [y - 0.15, y + 0.15], color=colour, lw=2)
    spread = y + 0.07 * np.resize([0, 1, -1, 0.5, -0.5], len(values))
    out = rows['outlier'].to_numpy(bool)
    axes.plot(values[~out], spread[~out], marker, color=colour, ms=3.6, alpha=0.75, mec='white',
              mew=0.4, label=text, ls='none')  # fmt: skip
    if not out.any():
        return
    axes.plot(values[out], spread[out], 'o', mfc='none', mec='#b91c1c', mew=1.4, ms=7,
              label='outlier', ls='none')  # fmt: skip
    axes.plot(values[out], spread[out], marker, color=colour, ms=3.6, ls='none')
    _name(
        axes,
        values[out],
        spread[out],
        rows[label][out].astype(str).tolist(),
        np.median(values),
        near,
    )


def _name(axes, x, y, names, middle, near) -> None:
    """Write names beside points; neighbours on one side share a line, so that none is covered."""
    low = np.flatnonzero(x < middle)
    high = np.flatnonzero(x >= middle)[::-1]
    for side, order in ((-1, low), (1, high)):
        while order.size:
            steps = np.abs(np.diff(x[order]))
            far = np.flatnonzero(steps > near)
            close = order[: far[0] + 1] if far.size else order
            axes.annotate(
                ', '.join(names[i] for i in close), (x[close[0]], y[close].mean()),
                xytext=(7 * side, 0), textcoords='offset points', va='center',
                ha='left' if side > 0 else 'right', fontsize=7.5, color='#b91c1c',
            )  # fmt: skip
            order = order[close.size :]


def _drawable(table: pd.DataFrame) -> pd.DataFrame:
    return table[np.isfinite(table['mean']) & (table['kind'] != 'mask')]


def _zero_line(axes) -> None:
    low, high = axes.get_xlim()
    if low < 0 < high:
        axes.axvline(0, color='#9ca3af', lw=1, zorder=0.5)


def _pretty(region: str) -> str:
    return str(region).replace('_', ' ')


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format='svg', metadata={'Date': None, 'Creator': None})
    return buffer.getvalue()
