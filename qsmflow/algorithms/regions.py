"""Statistics of maps over labelled regions, and the reference of a susceptibility map."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from qsmflow.algorithms.masking import FACES

#: Percentiles of a table, by column name.
PERCENTILES = {'p5': 5, 'p25': 25, 'p75': 75, 'p95': 95}

#: A region of which less than this fraction lies in mask and field of view is flagged 'partial'.
MIN_COVERAGE = 0.8

#: A region with fewer measured voxels than this is flagged 'small'.
MIN_VOXELS = 10

#: A reference region of cerebrospinal fluid with fewer voxels than this is not trusted.
MIN_REFERENCE = 100

#: R2* below which tissue counts as cerebrospinal fluid, in 1/s.
CSF_R2STAR = 5.0


@dataclass(frozen=True)
class RegionRow:
    """One row of a region table.

    Attributes
    ----------
    name : str
        Region, such as ``'caudate'``.
    hemi : str
        ``'L'``, ``'R'`` or ``''`` for both sides together.
    labels : tuple of int
        Labels that make up the region. Empty for the whole of the mask.
    kind : str
        ``'region'`` for one label, ``'group'`` for a union.
    """

    name: str
    hemi: str = ''
    labels: tuple[int, ...] = ()
    kind: str = 'region'


@dataclass(frozen=True)
class ReferenceStats:
    """What a susceptibility map was referenced to.

    Attributes
    ----------
    region : str
        Name of the reference region.
    mean, sd : float
        Mean and standard deviation of the map over it before referencing, in ppm.
    n_voxels : int
        Size of the region.
    """

    region: str
    mean: float
    sd: float
    n_voxels: int


def apply_reference(chi, region_mask, name: str, mask=None) -> tuple[np.ndarray, ReferenceStats]:
    """Shift a susceptibility map so that its mean over a reference region is zero.

    Parameters
    ----------
    chi : ndarray of float, shape (X, Y, Z)
        Susceptibility, in ppm; it is not modified.
    region_mask : ndarray of bool, shape (X, Y, Z)
        Reference region.
    name : str
        Its name, for the record. ``'none'`` leaves the map as it is.
    mask : ndarray of bool, shape (X, Y, Z), optional
        Where the map is defined; the result is zero elsewhere. By default where ``chi`` is not
        exactly zero.

    Returns
    -------
    chi : ndarray of float32, shape (X, Y, Z)
        Referenced susceptibility, in ppm.
    stats : ReferenceStats
        Mean, SD and size of the region before the shift.

    Raises
    ------
    ValueError
        If the region has no voxel where the map is defined.

    Examples
    --------
    >>> chi = np.array([[[0.0, 0.1, 0.3]]], np.float32)
    >>> shifted, stats = apply_reference(chi, chi == np.float32(0.1), 'csf')
    >>> shifted, round(stats.mean, 3), stats.n_voxels
    (array([[[0. , 0. , 0.2]]], dtype=float32), 0.1, 1)
    """
    chi = np.asarray(chi)
    finite = np.isfinite(chi)
    defined = finite & (np.asarray(mask, bool) if mask is not None else chi != 0)
    region = np.asarray(region_mask, bool) & defined
    values = chi[region].astype(np.float64)
    if values.size == 0 and name != 'none':
        raise ValueError(
            f'the reference region {name!r} has no voxel inside the map. '
            'Choose another reference, or check that the region lies on the grid of the map.'
        )
    mean, sd = (float(values.mean()), float(values.std())) if values.size else (0.0, 0.0)
    shift = 0.0 if name == 'none' else mean
    shifted = np.where(defined, np.where(finite, chi, 0) - shift, 0).astype(np.float32)
    return shifted, ReferenceStats(name, mean, sd, int(values.size))


def csf_mask(r2star, chi, mask, voxel_size, *, threshold=CSF_R2STAR, radius=30.0) -> np.ndarray:
    """Find the fluid of the lateral ventricles by its slow decay.

    Voxels below a threshold of R2* within a sphere around the centre of the brain; the three
    largest components of them, joined by faces; without voxels whose susceptibility is more than
    three scaled median absolute deviations off the median (choroid plexus, vessels).

    Parameters
    ----------
    r2star : ndarray of float, shape (X, Y, Z)
        Effective transverse relaxation rate, in 1/s.
    chi : ndarray of float, shape (X, Y, Z), or None
        Susceptibility, in ppm; None leaves the last step out.
    mask : ndarray of bool, shape (X, Y, Z)
        Brain mask.
    voxel_size : tuple of float
        Voxel edge lengths, in mm, in array-axis order.
    threshold : float, optional
        R2* below this is fluid, in 1/s.
    radius : float, optional
        Radius of the sphere, in mm.

    Returns
    -------
    ndarray of bool, shape (X, Y, Z)
        May be empty.

    References
    ----------
    Dimov AV, et al. J Neuroimaging 2022. doi:10.1111/jon.12923 (mask from a threshold of R2*).

    Examples
    --------
    >>> r2star = np.full((9, 9, 9), 20.0)
    >>> r2star[3:6, 3:6, 3:6] = 1.5
    >>> int(csf_mask(r2star, None, np.ones(r2star.shape, bool), (1, 1, 1)).sum())
    27
    """
    mask = np.asarray(mask, bool)
    found = np.zeros(mask.shape, bool)
    if not mask.any():
        return found
    centre = [float(np.mean(axis)) for axis in np.nonzero(mask)]
    away = [
        ((np.arange(n) - c) * size) ** 2
        for n, c, size in zip(mask.shape, centre, voxel_size, strict=True)
    ]
    near = away[0][:, None, None] + away[1][:, None] + away[2] <= radius**2
    fluid = mask & near & np.isfinite(r2star) & (np.asarray(r2star) < threshold)
    labels, count = ndimage.label(fluid, FACES)
    if count == 0:
        return found
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    largest = np.argsort(sizes, kind='stable')[::-1][: min(3, count)]
    found = np.isin(labels, largest)
    if chi is not None:
        values = np.asarray(chi, np.float64)[found]
        centre_value = np.median(values)
        spread = 1.4826 * np.median(np.abs(values - centre_value))
        found[found] = np.abs(values - centre_value) <= 3 * spread
    return found


def reference_region(
    name: str,
    mask,
    voxel_size,
    *,
    r2star=None,
    chi=None,
    custom=None,
    min_voxels: int = MIN_REFERENCE,
) -> tuple[np.ndarray, str]:
    """Return the reference region that a name asks for, or the whole brain where it is missing.

    Parameters
    ----------
    name : str
        ``'whole_brain'``, ``'csf'``, ``'none'``, or the name of a region given as ``custom``.
    mask : ndarray of bool, shape (X, Y, Z)
        Brain mask.
    voxel_size : tuple of float
        Voxel edge lengths, in mm, in array-axis order.
    r2star, chi : ndarray of float, shape (X, Y, Z), optional
        For ``'csf'``: relaxation rate (1/s), needed, and susceptibility (ppm).
    custom : ndarray of bool, shape (X, Y, Z), optional
        A region of the user's; used for any other name.
    min_voxels : int, optional
        A ``'csf'`` region below this size is not trusted.

    Returns
    -------
    region : ndarray of bool, shape (X, Y, Z)
    used : str
        The name of what was used: ``'whole_brain'`` when the wanted region is too small, so that
        the outputs carry the true label. The caller warns when it differs from ``name``.

    Raises
    ------
    ValueError
        If the name is unknown and no custom region is given.

    Examples
    --------
    >>> mask = np.ones((4, 4, 4), bool)
    >>> reference_region('csf', mask, (1, 1, 1), r2star=np.full(mask.shape, 20.0))[1]
    'whole_brain'
    """
    mask = np.asarray(mask, bool)
    if name in ('whole_brain', 'none'):
        return mask.copy(), name
    if custom is not None:
        region, enough = np.asarray(custom, bool) & mask, 1
    elif name == 'csf' and r2star is not None:
        region, enough = csf_mask(r2star, chi, mask, voxel_size), min_voxels
    elif name == 'csf':
        region, enough = np.zeros(mask.shape, bool), 1
    else:
        raise ValueError(
            f"unknown reference region {name!r}; expected 'whole_brain', 'csf', 'none', "
            'or a region of your own.'
        )
    return (region, name) if np.count_nonzero(region) >= enough else (mask.copy(), 'whole_brain')


def region_statistics(
    maps: Mapping[str, np.ndarray],
    labels: np.ndarray,
    rows: Iterable[RegionRow],
    mask: np.ndarray,
    voxel_size: Sequence[float],
    *,
    reference: str = '',
    fov_fraction: Mapping[int, float] | None = None,
    notes: Mapping[tuple[str, str], str] | None = None,
) -> list[dict]:
    """Summarise maps over regions: one row for each region, side and map.

    Parameters
    ----------
    maps : mapping of str to ndarray of float, shape (X, Y, Z)
        Maps by table name: ``'chi'`` (ppm), ``'R2star'`` (1/s), ``'T2star'`` (s). Voxels that are
        not finite are left out, and those of T2* that are zero, where it is not defined.
    labels : ndarray of int, shape (X, Y, Z)
        Segmentation on the grid of the maps.
    rows : iterable of RegionRow
        Regions and groups; any object with the attributes of ``RegionRow`` will do. Each gives a
        row for each map, also when it is empty.
    mask : ndarray of bool, shape (X, Y, Z)
        Where the maps are defined.
    voxel_size : tuple of float
        Voxel edge lengths, in mm, in array-axis order.
    reference : str, optional
        Reference region of the susceptibility, entered in the rows of ``'chi'``.
    fov_fraction : mapping of int to float, optional
        For each label the fraction of its volume that lies in the field of view; 1 if not given.
    notes : mapping of (name, hemi) to str, optional
        Quality flags from elsewhere, such as how a nucleus was found, added to the row's own.

    Returns
    -------
    list of dict
        Keys ``region``, ``hemi``, ``kind``, ``map``, ``n_voxels``, ``volume_mm3``, ``mean``,
        ``median``, ``sd``, ``p5``, ``p25``, ``p75``, ``p95``, ``coverage`` (fraction of the region
        inside mask and field of view), ``core_mean`` and ``core_n_voxels`` (after erosion by one
        voxel), ``asymmetry`` (index) and ``difference`` (left minus right, in the map's unit),
        ``reference`` and ``qc``. What cannot be computed is NaN. ``qc`` is ``'ok'`` or flags
        joined by ``';'``: ``empty``, ``partial``, ``small``, and those of ``notes``.

    Raises
    ------
    ValueError
        If a map, the labels and the mask differ in shape.

    Examples
    --------
    >>> labels = np.zeros((6, 6, 6), int)
    >>> labels[1:4, 1:4, 1:4] = 5
    >>> rows = [RegionRow('caudate', 'L', (5,)), RegionRow('putamen', 'L', (6,))]
    >>> table = region_statistics({'chi': labels * 0.01}, labels, rows, labels >= 0, (1, 1, 2))
    >>> [(row['region'], row['n_voxels'], row['volume_mm3'], row['qc']) for row in table]
    [('caudate', 27, 54.0, 'ok'), ('putamen', 0, 0.0, 'empty')]
    """
    labels, mask = np.asarray(labels), np.asarray(mask, bool)
    for name, image in [*maps.items(), ('mask', mask)]:
        if image.shape != labels.shape:
            raise ValueError(f'{name} has shape {image.shape}, the labels {labels.shape}.')
    boxes = ndimage.find_objects(np.where(labels > 0, labels, 0).astype(np.int32))
    volume = float(np.prod(voxel_size))
    table = []
    for row in rows:
        box, region = _region(row, labels, mask, boxes)
        inside = region & mask[box]
        core = ndimage.binary_erosion(inside, FACES)
        coverage = _coverage(row, labels[box], region, inside, fov_fraction)
        note = (notes or {}).get((row.name, row.hemi), '')
        for name, image in maps.items():
            entry = {'region': row.name, 'hemi': row.hemi, 'kind': row.kind, 'map': name}
            entry |= _summary(image[box], inside, core, volume, positive=name == 'T2star')
            entry['coverage'] = coverage
            entry['reference'] = reference if name == 'chi' else ''
            entry['qc'] = _flags(entry['n_voxels'], coverage, note)
            table.append(entry)
    return add_asymmetry(table)


def asymmetry(left: float, right: float) -> tuple[float, float]:
    """Compare the two sides of a region.

    Parameters
    ----------
    left, right : float
        Values of the sides, in one unit.

    Returns
    -------
    index : float
        ``2 (left - right) / (|left| + |right|)``, in [-2, 2]; unstable where both are near zero,
        NaN where both are zero.
    difference : float
        ``left - right``, in the unit of the values.

    Examples
    --------
    >>> asymmetry(3.0, 1.0)
    (1.0, 2.0)
    """
    total = abs(left) + abs(right)
    difference = float(left - right)
    return (2 * difference / total if total > 0 else float('nan')), difference


def add_asymmetry(table: list[dict]) -> list[dict]:
    """Enter index and difference of the means in the rows of both sides of each region.

    Parameters
    ----------
    table : list of dict
        Rows with ``region``, ``hemi``, ``map`` and ``mean``; they are not modified.

    Returns
    -------
    list of dict
        Rows with ``asymmetry`` and ``difference``, NaN where a side is missing or has none.

    Examples
    --------
    >>> row = {'region': 'caudate', 'map': 'chi'}
    >>> sides = [row | {'hemi': 'L', 'mean': 3.0}, row | {'hemi': 'R', 'mean': 1.0}]
    >>> [(side['asymmetry'], side['difference']) for side in add_asymmetry(sides)]
    [(1.0, 2.0), (1.0, 2.0)]
    """
    means = {(row['region'], row['map'], row['hemi']): row['mean'] for row in table}
    result = []
    for row in table:
        index = difference = float('nan')
        pair = [means.get((row['region'], row['map'], side)) for side in 'LR']
        if row['hemi'] in ('L', 'R') and None not in pair:
            index, difference = asymmetry(*pair)
        result.append(row | {'asymmetry': index, 'difference': difference})
    return result


def _region(row, labels, mask, boxes):
    """Return the box around a region and the region in it; an empty box if it has no voxel."""
    if not row.labels:
        return (slice(None),) * 3, mask
    found = [boxes[i - 1] for i in row.labels if 0 < i <= len(boxes) and boxes[i - 1] is not None]
    if not found:
        nowhere = (slice(0, 0),) * 3
        return nowhere, np.zeros((0, 0, 0), bool)
    box = tuple(
        slice(min(b[axis].start for b in found), max(b[axis].stop for b in found))
        for axis in range(3)
    )
    return box, np.isin(labels[box], row.labels)


def _coverage(row, labels, region, inside, fov_fraction):
    """Return the fraction of a region inside mask and field of view; NaN without any voxel."""
    if not (row.labels and fov_fraction):
        total = float(np.count_nonzero(region))
    else:
        total = sum(
            np.count_nonzero(labels == index) / fov_fraction.get(index, 1.0)
            for index in row.labels
            if fov_fraction.get(index, 1.0) > 0
        )
    return float(np.count_nonzero(inside) / total) if total > 0 else float('nan')


def _summary(image, inside, core, volume, *, positive):
    valid = inside & np.isfinite(image)
    if positive:
        valid &= image > 0
    values = image[valid].astype(np.float64)
    nan = float('nan')
    entry = {'n_voxels': int(values.size), 'volume_mm3': values.size * volume}
    if values.size:
        entry |= {
            'mean': float(values.mean()),
            'median': float(np.median(values)),
            'sd': float(values.std(ddof=1)) if values.size > 1 else nan,
        }
        entry |= dict(
            zip(
                PERCENTILES,
                np.percentile(values, list(PERCENTILES.values())).tolist(),
                strict=True,
            )
        )
    else:
        entry |= dict.fromkeys(('mean', 'median', 'sd', *PERCENTILES), nan)
    inner = image[core & valid].astype(np.float64)
    entry['core_n_voxels'] = int(inner.size)
    entry['core_mean'] = float(inner.mean()) if inner.size else nan
    return entry


def _flags(count, coverage, note):
    flags = []
    if count == 0:
        flags.append('empty')
    else:
        if coverage < MIN_COVERAGE:
            flags.append('partial')
        if count < MIN_VOXELS:
            flags.append('small')
    if note:
        flags.append(note)
    return ';'.join(flags) or 'ok'
