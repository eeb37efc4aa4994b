"""Region tables on disk, and the table of a whole group.

One layout holds everywhere: a row for each region, side and map. Numbers keep six significant
digits, what is missing reads ``n/a``, and a JSON file beside each table says what its columns
mean.
"""

import json
import logging
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from qsmflow.algorithms.regions import MIN_COVERAGE, MIN_VOXELS
from qsmflow.files import write_text

_LOGGER = logging.getLogger('qsmflow.tables')
MISSING = 'n/a'
#: Words of a column's name that say who someone is, unless another word says that it is a thing.
_PRIVATE = {
    *('name', 'names', 'firstname', 'lastname', 'surname', 'givenname', 'fullname', 'initials'),
    *('birth', 'birthdate', 'birthday', 'dob', 'date', 'datetime', 'address', 'street', 'zip'),
    *('postcode', 'phone', 'telephone', 'mobile', 'email', 'mail', 'mrn', 'ssn', 'accession'),
    *('passport', 'patientid', 'patientname', 'nhs', 'insurance'),
}
_THINGS = {'site', 'scanner', 'group', 'study', 'centre', 'center', 'cohort', 'arm', 'task'}

#: Keys of a data dictionary that are passed on from participants.json.
_DESCRIBING = ('LongName', 'Description', 'Units', 'Levels')

#: Units in which a map appears in a table, and the factor from the unit of the map on disk.
MAP_UNITS = {'chi': ('ppb', 1000.0), 'R2star': ('1/s', 1.0), 'T2star': ('ms', 1000.0)}

#: Columns in the order of the table: description, and unit where the column has one of its own.
COLUMNS: dict[str, tuple[str, str]] = {
    'region': ('Name of the region', ''),
    'hemi': ('Side of the brain; n/a for both together', ''),
    'kind': ('What the row stands for', ''),
    'map': ('Quantity', ''),
    'unit': ('Unit of mean, median, sd, percentiles, core_mean and difference in this row', ''),
    'n_voxels': ('Voxels of the region inside the mask that have a value', ''),
    'volume_mm3': ('Volume of these voxels', 'mm^3'),
    'mean': ('Mean', ''),
    'median': ('Median', ''),
    'sd': ('Standard deviation of the voxels', ''),
    'p5': ('5th percentile', ''),
    'p25': ('25th percentile', ''),
    'p75': ('75th percentile', ''),
    'p95': ('95th percentile', ''),
    'coverage': ('Fraction of the region that lies inside the mask and the field of view', '1'),
    'core_n_voxels': ('Voxels left after an erosion by one voxel', ''),
    'core_mean': ('Mean after an erosion by one voxel, less touched by partial volume', ''),
    'asymmetry': ('Index of the means, 2 (L - R) / (|L| + |R|); unstable near zero', '1'),
    'difference': ('Mean of the left side minus mean of the right side', ''),
    'reference': ('Region whose mean susceptibility is zero, for chi', ''),
    'qc': ('Quality: ok, or flags joined by ";"', ''),
}

#: Values that a column can have, and what they mean; several flags of ``qc`` may hold together.
LEVELS: dict[str, dict[str, str]] = {
    'hemi': {'L': 'left', 'R': 'right'},
    'kind': {
        'region': 'one label',
        'group': 'union of labels, such as both sides of a region',
        'mask': 'all of the brain mask',
    },
    'map': {
        'chi': 'magnetic susceptibility, in ppb',
        'R2star': 'effective transverse relaxation rate, in 1/s',
        'T2star': 'effective transverse relaxation time, in ms',
    },
    'qc': {
        'ok': 'nothing was found',
        'empty': 'no voxel has a value',
        'partial': f'coverage is below {MIN_COVERAGE:g}',
        'small': f'fewer than {MIN_VOXELS} voxels have a value',
        'registration': 'the check of the registration to the atlas failed',
        'prior': 'dentate nucleus that was not told by its contrast: its likely place was taken',
    },
}

#: Columns whose values carry the unit of the row.
IN_MAP_UNIT = ('mean', 'median', 'sd', 'p5', 'p25', 'p75', 'p95', 'core_mean', 'difference')

TEXT = ('region', 'hemi', 'kind', 'map', 'unit', 'reference', 'qc')
WHOLE = ('n_voxels', 'core_n_voxels')

#: Robust z beyond which a subject is named as an outlier (Iglewicz and Hoaglin 1993).
OUTLIER_Z = 3.5


def write_stats(
    rows: Iterable[Mapping],
    path: str | os.PathLike,
    *,
    warnings: Iterable[Mapping] = (),
    regions: Mapping[str, str] | None = None,
) -> Path:
    """Write a region table and its data dictionary.

    Parameters
    ----------
    rows : iterable of mapping
        Rows of :func:`qsmflow.algorithms.regions.region_statistics`, in the units of the maps
        (ppm, 1/s, s). Susceptibility is written in ppb and T2* in ms, unless a row has a ``unit``,
        which says that its numbers are in that unit already.
    path : path-like
        Table to write, ending in ``.tsv``; the dictionary gets ``.json``.
    warnings : iterable of mapping, optional
        Findings, for the key ``Warnings`` of the dictionary.
    regions : mapping of str to str, optional
        What regions are, by name; those that the table has become ``Levels`` of ``region``.

    Returns
    -------
    Path
        The table. Both files appear complete or not at all.

    Raises
    ------
    ValueError
        If a row has a column that the table does not, or the name does not end in ``.tsv``.

    Examples
    --------
    >>> import tempfile
    >>> row = {'region': 'caudate', 'hemi': 'L', 'map': 'chi', 'mean': 0.0441, 'sd': float('nan')}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     table = read_stats(write_stats([row], Path(folder) / 'sub-01_atlas-X_stats.tsv'))
    >>> print(table['mean'][0], table['unit'][0])
    44.1 ppb
    """
    path = Path(path)
    if path.suffix != '.tsv':
        raise ValueError(f'{path.name}: a table of regions ends in .tsv.')
    columns = list(COLUMNS)
    lines = ['\t'.join(columns)]
    names = []
    for row in rows:
        names.append(row.get('region'))
        unknown = set(row) - set(columns)
        if unknown:
            raise ValueError(f'{path.name} has no columns {sorted(unknown)}; it has {columns}.')
        entry = _in_table_units(row)
        lines.append('\t'.join(_format(entry.get(column), column) for column in columns))
    warnings = [dict(warning) for warning in warnings]
    levels = {name: text for name, text in (regions or {}).items() if name in names}
    dictionary = data_dictionary(regions=levels) | ({'Warnings': warnings} if warnings else {})
    write_text(path.with_suffix('.json'), _dump(dictionary))
    write_text(path, '\n'.join(lines) + '\n')
    return path


def read_stats(path: str | os.PathLike) -> pd.DataFrame:
    """Read a region table.

    Parameters
    ----------
    path : path-like
        A table made by :func:`write_stats`.

    Returns
    -------
    DataFrame
        Text columns hold ``''`` and number columns NaN where the table has ``n/a``.

    Raises
    ------
    ValueError
        If columns are missing.
    """
    table = _read_tsv(path)
    missing = [column for column in COLUMNS if column not in table]
    if missing:
        raise ValueError(f'{path} is not a table of regions: it has no column {missing[0]!r}.')
    for column in COLUMNS:
        if column in TEXT:
            table[column] = table[column].replace(MISSING, '')
        else:
            table[column] = _numbers(table[column])
    return table


def data_dictionary(
    extra: Mapping[str, Mapping] | None = None, regions: Mapping[str, str] | None = None
) -> dict:
    """Return what the columns of a table mean, as BIDS wants it in the JSON file beside it.

    Parameters
    ----------
    extra : mapping of str to mapping, optional
        Entries of further columns, which come first.
    regions : mapping of str to str, optional
        What the regions are, by name.

    Examples
    --------
    >>> data_dictionary()['volume_mm3']
    {'Description': 'Volume of these voxels', 'Units': 'mm^3'}
    """
    dictionary = {name: dict(entry) for name, entry in (extra or {}).items()}
    for name, (description, unit) in COLUMNS.items():
        dictionary[name] = {'Description': description}
        if name in IN_MAP_UNIT:
            unit = "see column 'unit'"
        if unit:
            dictionary[name]['Units'] = unit
        levels = LEVELS.get(name, {}) if name != 'region' else regions
        if levels:
            dictionary[name]['Levels'] = dict(levels)
    return dictionary


def group_table(
    tables: Iterable[tuple[str | os.PathLike, Mapping[str, str]]],
    participants_tsv: str | os.PathLike | None = None,
) -> pd.DataFrame:
    """Join the tables of all series with what is known of the participants.

    Parameters
    ----------
    tables : iterable of (path, entities)
        Table and entities of each series, such as ``{'sub': '01', 'ses': '1'}`` (labels with or
        without their key as prefix).
    participants_tsv : path-like, optional
        The dataset's ``participants.tsv``. Its columns follow ``participant_id``. Participants
        without a table are left out, those who are not listed have empty cells.

    Returns
    -------
    DataFrame
        Columns ``participant_id``, ``session_id`` and further entities if there are any, those of
        the participants, those of the region tables. Rows are in the order of participant and
        series.

    Examples
    --------
    >>> group_table([]).empty
    True
    """
    parts = []
    for path, entities in tables:
        table = read_stats(path)
        for position, (column, value) in enumerate(_entity_columns(entities).items()):
            table.insert(position, column, value)
        parts.append(table)
    if not parts:
        return pd.DataFrame(columns=['participant_id', *COLUMNS])
    table = pd.concat(parts, ignore_index=True)
    keys = [column for column in table.columns if column not in COLUMNS]
    keys = ['participant_id', *(['session_id'] if 'session_id' in keys else []), *keys]
    keys = list(dict.fromkeys(keys))
    table[keys] = table[keys].fillna('')
    table = table.sort_values(keys, kind='stable', ignore_index=True)
    people = _participants(participants_tsv)
    people = people.rename(columns={c: f'participant_{c}' for c in people if c in COLUMNS})
    people = people[[c for c in people if c == 'participant_id' or c not in keys]]
    merged = table.merge(people, on='participant_id', how='left')
    facts = [column for column in people.columns if column != 'participant_id']
    return merged[[*keys, *facts, *COLUMNS]]


def write_group(
    table: pd.DataFrame,
    path: str | os.PathLike,
    descriptions: Mapping[str, Mapping] | None = None,
    regions: Mapping[str, str] | None = None,
) -> Path:
    """Write the table of a group and its data dictionary.

    Parameters
    ----------
    table : DataFrame
        Result of :func:`group_table`, with or without the columns of :func:`flag_outliers`.
    path : path-like
        Table to write, ending in ``.tsv``.
    descriptions : mapping of str to mapping, optional
        Entries for the participants' columns: :func:`participant_columns`.
    regions : mapping of str to str, optional
        What the regions are, by name.

    Returns
    -------
    Path
    """
    path = Path(path)
    known = {
        'participant_id': 'Participant, as in participants.tsv',
        'session_id': 'Session',
        'robust_z': '0.6745 (mean - median) / median absolute deviation over the group, for this '
        'region, side and map; n/a with fewer than 4 values',
        'outlier': f'1 if robust_z lies beyond {OUTLIER_Z}, else 0',
    }
    entries = {**(descriptions or {}), **{c: {'Description': text} for c, text in known.items()}}
    extra = {
        _inert(c): entries.get(c, {'Description': f'Label of the entity {c} of the series'})
        for c in table
        if c not in COLUMNS
    }
    lines = ['\t'.join(map(_inert, table.columns))]
    for values in table.itertuples(index=False):
        cells = (_format(v, c) for v, c in zip(values, table.columns, strict=True))
        lines.append('\t'.join(cells))
    write_text(path.with_suffix('.json'), _dump(data_dictionary(extra, regions)))
    write_text(path, '\n'.join(lines) + '\n')
    return path


def participant_columns(participants_tsv: str | os.PathLike | None) -> dict[str, dict]:
    """Return what the columns of participants.tsv mean, as the JSON file beside it says.

    Parameters
    ----------
    participants_tsv : path-like
        The dataset's table; None or one that is not there for none.

    Returns
    -------
    dict of str to dict
        Entry of each column that :func:`group_table` takes, by its name there: those keys of
        BIDS that describe it, as texts without line breaks. A column that the dataset does not
        describe is said to be one of participants.tsv.
    """
    told: dict = {}
    if participants_tsv is not None:
        path = Path(participants_tsv).with_suffix('.json')
        try:
            told = json.loads(path.read_bytes().decode('utf-8-sig')) if path.is_file() else {}
        except (OSError, ValueError) as error:
            _LOGGER.warning('%s cannot be read, its descriptions are not used: %s', path, error)
    told = told if isinstance(told, dict) else {}
    columns = {}
    for name in _participants(participants_tsv).columns.drop('participant_id'):
        entry = _described(told.get(name))
        entry.setdefault('Description', f'Column {_inert(name)} of participants.tsv')
        columns[f'participant_{name}' if name in COLUMNS else name] = entry
    return columns


def _described(entry: object) -> dict:
    """Keep what describes a column, as plain texts."""
    kept: dict = {}
    for key in _DESCRIBING if isinstance(entry, dict) else ():
        value = entry.get(key)
        if isinstance(value, str):
            kept[key] = _inert(value)
        elif key == 'Levels' and isinstance(value, dict):
            # BIDS allows an object with a description for a level.
            texts = {
                k: v.get('Description') if isinstance(v, dict) else v for k, v in value.items()
            }
            kept[key] = {_inert(k): _inert(str(text)) for k, text in texts.items()}
    return kept


def flag_outliers(
    table: pd.DataFrame, value: str = 'mean', threshold: float = OUTLIER_Z, min_count: int = 4
) -> pd.DataFrame:
    r"""Mark the rows whose value lies far from the group's.

    For each region, side and map :math:`z = 0.6745 (x - \mathrm{median}) / \mathrm{MAD}`.

    Parameters
    ----------
    table : DataFrame
        Result of :func:`group_table`; it is not modified.
    value : str, optional
        Column to compare.
    threshold : float, optional
        ``|z|`` beyond this is an outlier.
    min_count : int, optional
        Fewer values than this have no distribution: no z, and no outlier.

    Returns
    -------
    DataFrame
        The table with columns ``robust_z`` (NaN where it cannot be computed) and ``outlier``
        (bool). Where the deviation of most is zero, any value that differs has an infinite z.

    References
    ----------
    Iglewicz B, Hoaglin DC. How to detect and handle outliers. ASQC Quality Press, 1993.

    Examples
    --------
    >>> rows = pd.DataFrame({'region': 'SN', 'hemi': 'L', 'map': 'chi', 'mean': [1, 2, 3, 2, 99]})
    >>> flag_outliers(rows).outlier.tolist()
    [False, False, False, False, True]
    """
    table = table.copy()
    values = table[value].astype(float)
    groups = [table[column] for column in ('region', 'hemi', 'map')]
    median = values.groupby(groups, dropna=False).transform('median')
    deviation = (values - median).abs()
    mad = deviation.groupby(groups, dropna=False).transform('median')
    count = values.groupby(groups, dropna=False).transform('count')
    with np.errstate(divide='ignore', invalid='ignore'):
        z = 0.6745 * (values - median) / mad.where(mad > 0)
        z = z.where(mad > 0, np.where(deviation > 0, np.inf * np.sign(values - median), 0.0))
    table['robust_z'] = z.where((count >= min_count) & values.notna())
    table['outlier'] = table['robust_z'].abs() > threshold
    return table


def _in_table_units(row: Mapping) -> dict:
    entry = dict(row)
    if not entry.get('unit'):
        unit, factor = MAP_UNITS.get(entry.get('map', ''), ('', 1.0))
        entry['unit'] = unit
        for column in IN_MAP_UNIT:
            if entry.get(column) is not None:
                entry[column] = entry[column] * factor
    return entry


def _format(value, column: str) -> str:
    if value is None or (isinstance(value, str) and not value):
        return MISSING
    if isinstance(value, str):
        return _inert(value)
    if isinstance(value, bool | np.bool_):
        return str(int(value))
    number = float(value)
    if np.isnan(number):
        return MISSING
    if column in WHOLE or isinstance(value, int | np.integer):
        return str(int(number))
    return f'{number + 0.0:.6g}'  # the sum turns -0 into 0


def _inert(text: str) -> str:
    r"""Return text that is one cell, and no formula to a spreadsheet.

    Examples
    --------
    >>> _inert('=1+1'), _inert('-SUM(A1)'), _inert('+/-'), _inert('a\tb')
    ("'=1+1", "'-SUM(A1)", '+/-', 'a b')
    """
    text = ' '.join(text.split())  # a tab or a line break would shift the columns
    return f"'{text}" if re.match(r'[=@]|[+-].*[(|!]', text) else text


def _is_private(column: str) -> bool:
    """Tell whether the name of a column says that it tells who a participant is.

    Examples
    --------
    >>> [_is_private(name) for name in ('birth_date', 'PatientName', 'age', 'site_name')]
    [True, True, False, False]
    """
    words = set(re.findall(r'[a-z]+', re.sub(r'(?<=[a-z])(?=[A-Z])', '_', column).lower()))
    return bool(words & _PRIVATE) and not words & _THINGS


def _read_tsv(path) -> pd.DataFrame:
    return pd.read_csv(path, sep='\t', dtype=str, keep_default_na=False, encoding='utf-8-sig')


def _numbers(column: pd.Series) -> pd.Series:
    return pd.to_numeric(column.replace({MISSING: None, '': None})).astype(float)


def _entity_columns(entities: Mapping[str, str]) -> dict[str, str]:
    columns = {}
    for key, value in entities.items():
        if not value:
            continue
        short = {'subject': 'sub', 'session': 'ses'}.get(key, key)
        name = {'sub': 'participant_id', 'ses': 'session_id'}.get(short, short)
        prefix = f'{short}-' if short in ('sub', 'ses') else ''
        columns[name] = prefix + str(value).removeprefix(f'{short}-')
    return columns


def _participants(path) -> pd.DataFrame:
    """Read participants.tsv; columns of numbers become numbers, what is missing becomes NaN."""
    if path is None or not Path(path).is_file():
        return pd.DataFrame({'participant_id': pd.Series(dtype=str)})
    table = _read_tsv(path)
    if 'participant_id' not in table:
        raise ValueError(f'{path} has no column participant_id, which BIDS requires.')
    table['participant_id'] = 'sub-' + table['participant_id'].str.strip().str.removeprefix('sub-')
    table = table.drop_duplicates('participant_id')
    private = [column for column in table.columns if _is_private(column)]
    if private:
        _LOGGER.warning('%s: not copied, as private: %s', path, ', '.join(private))
        table = table.drop(columns=private)
    for column in table.columns.drop('participant_id'):
        try:
            table[column] = _numbers(table[column])
        except (ValueError, TypeError):
            table[column] = table[column].replace({MISSING: None, '': None})
    return table


def _dump(content: dict) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + '\n'
