"""Phase unwrapping: exact region growing (ROMEO type) and the Laplacian fallback."""

import numba
import numpy as np
from scipy import fft, ndimage

from .operators import workers

_TWO_PI = 2 * np.pi
# Costs are 1 (best) ... 255 (worst); 0 marks an edge that leaves the mask.
_N_BINS = 256


@numba.njit(cache=True, inline='always')
def wrap_scalar(x):
    """Wrap one angle, in rad, to [-pi, pi]."""
    return x - _TWO_PI * np.rint(x / _TWO_PI)


def check_echoes(phase, magnitude, mask, te):
    """Check the arrays of one multi-echo series against each other.

    Parameters
    ----------
    phase : ndarray of float, shape (X, Y, Z, E)
        Phase, in rad.
    magnitude : ndarray of float, shape (X, Y, Z, E), or None
        Magnitude, in arbitrary units.
    mask : ndarray of bool, shape (X, Y, Z)
        Region of interest.
    te : sequence of float, shape (E,)
        Echo times, in s.

    Returns
    -------
    ndarray of float64, shape (E,)
        Echo times, in s.

    Raises
    ------
    ValueError
        If shapes disagree, or echo times are not positive and increasing.
    """
    times = np.atleast_1d(np.asarray(te, np.float64))
    if np.ndim(phase) != 4:
        raise ValueError(f'phase must have shape (X, Y, Z, E), echo last; got {np.shape(phase)}.')
    if phase.shape[:3] != np.shape(mask):
        raise ValueError(f'mask {np.shape(mask)} is not on the grid of phase {phase.shape[:3]}.')
    if magnitude is not None and np.shape(magnitude) != phase.shape:
        raise ValueError(f'magnitude {np.shape(magnitude)} and phase {phase.shape} differ.')
    if times.shape != (phase.shape[3],):
        raise ValueError(f'phase has {phase.shape[3]} echo(es), te names {times.size}.')
    if not np.all(np.isfinite(times)) or times[0] <= 0 or np.any(np.diff(times) <= 0):
        raise ValueError(f'te must be positive and increasing, in s; got {times.tolist()}.')
    return times


class _Grid:
    """Voxels of a mask as a list, with the way to the neighbours of each.

    ``index`` is a padded volume of list positions (-1 outside), flattened, so that a neighbour is
    one addition away and no border needs a test.
    """

    def __init__(self, mask):
        padded = np.pad(np.asarray(mask, bool), 1)
        self.position = np.flatnonzero(padded).astype(np.int64)
        self.index = np.full(padded.size, -1, np.int32)
        self.index[self.position] = np.arange(self.position.size, dtype=np.int32)
        self.strides = np.array([padded.shape[1] * padded.shape[2], padded.shape[2], 1], np.int64)


@numba.njit(cache=True)
def _edge_costs(phase, second, ratio, magnitude, index, position, strides):
    """Return the cost of the edge from each voxel to its next one along each axis.

    ``second`` is the phase of another echo and ``ratio`` the quotient of the echo times
    (template / other); a ratio of 0 leaves the second echo out.
    """
    n = position.size
    costs = np.zeros(3 * n, np.uint8)
    for v in range(n):
        for axis in range(3):
            stride = strides[axis]
            u = index[position[v] + stride]
            if u < 0:
                continue
            step = wrap_scalar(phase[u] - phase[v])
            weight = 0.1 + 0.9 * (1 - abs(step) / np.pi)
            if ratio > 0:
                other = wrap_scalar(second[u] - second[v])
                weight *= 0.1 + 0.9 * max(0.0, 1 - abs(step - other * ratio))
            before = index[position[v] - stride]
            after = index[position[u] + stride]
            if before >= 0 and after >= 0:
                bend = abs(wrap_scalar(phase[before] - 2.0 * phase[v] + phase[u])) / 2
                linear = max(0.0, 1 - bend)
                bend = abs(wrap_scalar(phase[v] - 2.0 * phase[u] + phase[after])) / 2
                weight *= 0.1 + 0.9 * linear * max(0.0, 1 - bend)
            else:
                weight *= 0.9
            low = min(magnitude[v], magnitude[u])
            high = max(magnitude[v], magnitude[u])
            quotient = low / high if high > 0 else 0.0
            weight *= 0.1 + 0.9 * quotient * quotient
            costs[3 * v + axis] = max(1, int(np.rint((1 - weight) * 255)))
    return costs


@numba.njit(cache=True)
def _grow(phase, costs, index, position, strides):
    """Unwrap along a minimum spanning tree; return turns and component number of each voxel.

    Every edge enters the bucket queue at most once, so the queue is one linked list per cost in
    one array. Within a bucket the newest edge is first: the order is fixed by the data alone.
    """
    n = position.size
    turns = np.zeros(n, np.int32)
    component = np.full(n, -1, np.int32)
    heads = np.full(_N_BINS, -1, np.int64)
    follower = np.full(3 * n, -1, np.int32)
    n_components = 0
    for seed in range(n):
        if component[seed] >= 0:
            continue
        low = _N_BINS
        newest = seed
        component[seed] = n_components
        while True:
            for axis in range(3):
                u = index[position[newest] + strides[axis]]
                if u >= 0 and component[u] < 0:
                    edge = 3 * newest + axis
                    follower[edge] = heads[costs[edge]]
                    heads[costs[edge]] = edge
                    low = min(low, costs[edge])
                u = index[position[newest] - strides[axis]]
                if u >= 0 and component[u] < 0:
                    edge = 3 * u + axis
                    follower[edge] = heads[costs[edge]]
                    heads[costs[edge]] = edge
                    low = min(low, costs[edge])
            newest = -1
            while low < _N_BINS:
                edge = heads[low]
                if edge < 0:
                    low += 1
                    continue
                heads[low] = follower[edge]
                v = edge // 3
                u = index[position[v] + strides[edge - 3 * v]]
                if component[v] < 0:
                    v, u = u, v
                if component[u] >= 0:
                    continue
                turns[u] = turns[v] + int(np.rint((phase[v] - phase[u]) / _TWO_PI))
                component[u] = n_components
                newest = u
                break
            if newest < 0:
                break
        n_components += 1
    return turns, component, n_components


def _align_components(phase, magnitude, turns, component, n_components, template, te):
    """Choose one multiple of 2 pi for each component, in place.

    The mean of the largest component goes to the multiple nearest 0, those of the others to the
    multiple nearest the largest's. Another multiple is taken where the other echoes, whose ratio
    of echo times is then not an integer, clearly ask for it.
    """
    t = phase[:, template]
    weight = magnitude[:, template].astype(np.float64)
    weight += 1e-6 * max(weight.max(), 1e-30)
    total = np.bincount(component, weight, n_components)
    mean = np.bincount(component, weight * (t + _TWO_PI * turns), n_components) / total
    largest = int(np.argmax(np.bincount(component, minlength=n_components)))
    sums = {}
    for j in range(te.size):
        if j != template:
            ratio = te[j] / te[template]
            misfit = phase[:, j] - ratio * (t + _TWO_PI * turns)
            share = weight * np.isfinite(misfit)
            misfit = np.nan_to_num(misfit, posinf=0, neginf=0)
            sums[ratio] = np.bincount(component, share * np.cos(misfit), n_components) + (
                1j * np.bincount(component, share * np.sin(misfit), n_components)
            )

    def choose(reference, mean, which):
        nearest = np.rint((reference - mean) / _TWO_PI)
        if not sums:
            return nearest
        candidates = nearest + np.arange(-2, 3)[:, None]
        score = np.zeros(candidates.shape)
        for ratio, z in sums.items():
            score += (z[which] * np.exp(-1j * _TWO_PI * ratio * candidates)).real
        score /= len(sums) * total[which]
        best = np.argmax(score, axis=0)
        columns = np.arange(candidates.shape[1])
        # The margin keeps noise, and ratios near an integer, from moving a component.
        clear = score[best, columns] > score[2] + 0.1
        return np.where(clear, candidates[best, columns], nearest)

    main = choose(0.0, mean[[largest]], [largest])
    shift = choose(mean[largest] + _TWO_PI * main[0], mean, np.arange(n_components))
    shift[largest] = main[0]
    turns += shift.astype(np.int32)[component]


def _compact(phase, magnitude, mask, template):
    """Return the voxels whose phase is finite in the template, as lists, and their grid."""
    region = np.asarray(mask, bool) & np.isfinite(phase[..., template])
    values = phase[region].astype(np.float32, copy=False)
    values[~np.isfinite(values)] = np.nan
    if magnitude is None:
        weights = np.ones(values.shape, np.float32)
    else:
        weights = np.nan_to_num(magnitude[region], nan=0, posinf=0, neginf=0).astype(np.float32)
        np.maximum(weights, 0, out=weights)
    return _Grid(region), region, values, weights


def _costs_of(grid, phase, magnitude, echo, te):
    other = echo + 1 if echo + 1 < te.size else echo - 1
    ratio = te[echo] / te[other] if te.size > 1 else 0.0
    return _edge_costs(
        np.ascontiguousarray(phase[:, echo]),
        np.nan_to_num(phase[:, other], nan=0, posinf=0, neginf=0),
        ratio,
        np.ascontiguousarray(magnitude[:, echo]),
        grid.index,
        grid.position,
        grid.strides,
    )


def _unwrap_echo(grid, phase, magnitude, echo, te, *, align_to):
    costs = _costs_of(grid, phase, magnitude, echo, te)
    first = np.ascontiguousarray(phase[:, echo])
    turns, component, count = _grow(first, costs, grid.index, grid.position, grid.strides)
    if align_to == 'echoes':
        _align_components(phase, magnitude, turns, component, count, echo, te)
    else:
        alone = slice(echo, echo + 1)
        _align_components(
            phase[:, alone], magnitude[:, alone], turns, component, count, 0, te[alone]
        )
    return turns


def romeo(phase, magnitude, mask, voxel_size, *, te, template=0, individual=False):
    r"""Unwrap multi-echo phase by region growing along the most reliable edges (ROMEO type).

    The template echo is unwrapped in space along a minimum spanning tree of the voxel graph. The
    weight of an edge is the product of phase coherence, phase-gradient coherence between two
    echoes, phase linearity and magnitude coherence, each scaled to ``0.1 + 0.9 w`` [1]_. Every
    other echo :math:`j` is unwrapped in time against the template :math:`t`:

    .. math:: \varphi_j - 2\pi\,\mathrm{round}\bigl((\varphi_j - \varphi_t TE_j/TE_t)/2\pi\bigr)

    The result differs from the input by a multiple of 2 pi in every voxel and is the same on every
    run.

    Parameters
    ----------
    phase : ndarray of float, shape (X, Y, Z, E)
        Wrapped phase, in rad, free of the phase offset (``remove_phase_offset``) unless
        ``individual``.
    magnitude : ndarray of float, shape (X, Y, Z, E), or None
        Magnitude, in arbitrary units. ``None`` leaves the magnitude out.
    mask : ndarray of bool, shape (X, Y, Z)
        Region to unwrap. Parts that do not touch are unwrapped one by one and aligned.
    voxel_size : tuple of float
        Voxel edge lengths, in mm. Not used: the weights are free of it.
    te : sequence of float, shape (E,)
        Echo times, in s, increasing.
    template : int, optional
        Index of the echo that is unwrapped in space.
    individual : bool, optional
        Unwrap every echo in space. For phase whose offset cannot be removed.

    Returns
    -------
    ndarray of float32, shape (X, Y, Z, E)
        Unwrapped phase, in rad; 0 outside ``mask``. NaN inside it where the phase of the echo or
        of the template is not finite: nothing is known there, and 0 would be a value.

    Raises
    ------
    ValueError
        If shapes or echo times are not consistent, or there is no echo ``template``.

    Notes
    -----
    The multiple of 2 pi of the whole is the one that brings the template's mean nearest to 0,
    unless the other echoes clearly ask for another.

    References
    ----------
    .. [1] Dymerska B, et al. Magn Reson Med 2021;85:2294-2308. doi:10.1002/mrm.28563

    Examples
    --------
    >>> truth = np.linspace(0, 20, 64)[:, None, None, None] * np.ones((64, 4, 4, 1))
    >>> wrapped = np.angle(np.exp(1j * truth))
    >>> found = romeo(wrapped, None, np.ones((64, 4, 4), bool), (1, 1, 1), te=[0.01])
    >>> turns = (found - truth) / (2 * np.pi)
    >>> bool(np.allclose(turns, np.round(turns[0, 0, 0, 0]), atol=1e-5))
    True
    """
    te = check_echoes(phase, magnitude, mask, te)
    if not 0 <= template < te.size:
        raise ValueError(f'template must be an echo index in 0..{te.size - 1}; got {template}.')
    out = np.zeros(phase.shape, np.float32)
    grid, region, values, weights = _compact(phase, magnitude, mask, template)
    out[np.asarray(mask, bool) & ~region] = np.nan
    if not grid.position.size:
        return out
    align_to = 'itself' if individual else 'echoes'
    turns = _unwrap_echo(grid, values, weights, template, te, align_to=align_to)
    reference = values[:, template] + _TWO_PI * turns
    for j in range(te.size):
        expected = reference * (te[j] / te[template])
        if j == template:
            column = reference
        elif individual and np.isfinite(values[:, j]).all():
            own = values[:, j] + _TWO_PI * _unwrap_echo(
                grid, values, weights, j, te, align_to='itself'
            )
            column = own + _TWO_PI * np.rint(np.median(expected - own) / _TWO_PI)
        else:
            column = values[:, j] + _TWO_PI * np.rint((expected - values[:, j]) / _TWO_PI)
        out[region, j] = column
    return out


def voxel_quality(phase, magnitude, mask, *, te):
    """Return how well each voxel's phase agrees with that of its neighbours.

    The quality is the mean weight of the edges to the up to six neighbours inside the mask, with
    the weights of :func:`romeo` for the first echo [1]_.

    Parameters
    ----------
    phase : ndarray of float, shape (X, Y, Z, E)
        Wrapped phase, in rad.
    magnitude : ndarray of float, shape (X, Y, Z, E), or None
        Magnitude, in arbitrary units.
    mask : ndarray of bool, shape (X, Y, Z)
        Region of interest.
    te : sequence of float, shape (E,)
        Echo times, in s, increasing.

    Returns
    -------
    ndarray of float32, shape (X, Y, Z)
        Quality in [0, 1]; 0 outside ``mask`` and for voxels without a neighbour.

    References
    ----------
    .. [1] Dymerska B, et al. Magn Reson Med 2021;85:2294-2308. doi:10.1002/mrm.28563

    Examples
    --------
    >>> smooth = np.zeros((4, 4, 4, 1))
    >>> quality = voxel_quality(smooth, None, np.ones((4, 4, 4), bool), te=[0.01])
    >>> round(float(quality.mean()), 1)
    0.9
    """
    te = check_echoes(phase, magnitude, mask, te)
    out = np.zeros(np.shape(mask), np.float32)
    grid, region, values, weights = _compact(phase[..., :2], _first_two(magnitude), mask, 0)
    if not grid.position.size:
        return out
    costs = _costs_of(grid, values, weights, 0, te[:2]).reshape(-1, 3)
    total = np.zeros(grid.position.size, np.float32)
    count = np.zeros(grid.position.size, np.float32)
    for axis in range(3):
        neighbour = grid.index[grid.position + grid.strides[axis]]
        edges = np.flatnonzero(neighbour >= 0)
        weight = 1 - costs[edges, axis].astype(np.float32) / 255
        # Along one axis a voxel is the next one of a single voxel: no index occurs twice.
        for ends in (edges, neighbour[edges]):
            total[ends] += weight
            count[ends] += 1
    out[region] = total / np.maximum(count, 1)
    return out


def _first_two(magnitude):
    return None if magnitude is None else magnitude[..., :2]


def laplacian(phase, magnitude, mask, voxel_size, *, te, template=0, individual=False):
    r"""Unwrap phase by solving a Poisson equation (Laplacian unwrapping). Not exact.

    The Laplacian of the true phase follows from the wrapped one [1]_. Here it is the divergence
    of the wrapped steps between neighbours, which is right wherever no true step exceeds half a
    turn, and it is inverted with the cosine transform [2]_. Steps across the edge of the mask do
    not count, which alters the harmonic field there: a fallback where :func:`romeo` fails.

    Parameters
    ----------
    phase : ndarray of float, shape (X, Y, Z, E)
        Wrapped phase, in rad.
    magnitude : ndarray of float, shape (X, Y, Z, E), or None
        Weights of the constant that is added to each echo.
    mask : ndarray of bool, shape (X, Y, Z)
        Region of interest.
    voxel_size : tuple of float
        Voxel edge lengths, in mm, in array-axis order.
    te : sequence of float, shape (E,)
        Echo times, in s, increasing.
    template : int, optional
        Index of the echo to whose prediction the constants of the others are aligned.
    individual : bool, optional
        Without effect: every echo is unwrapped on its own.

    Returns
    -------
    ndarray of float32, shape (X, Y, Z, E)
        Unwrapped phase, in rad; 0 outside ``mask``. It does not differ from the input by
        multiples of 2 pi.

    Raises
    ------
    ValueError
        If shapes or echo times are not consistent.

    References
    ----------
    .. [1] Schofield MA, Zhu Y. Opt Lett 2003;28:1194-1196. doi:10.1364/OL.28.001194
    .. [2] Ghiglia DC, Romero LA. J Opt Soc Am A 1994;11:107-117. doi:10.1364/JOSAA.11.000107

    Examples
    --------
    >>> x = np.linspace(-1, 1, 32)
    >>> truth = 8 * np.exp(-4 * (x[:, None, None] ** 2 + x[:, None] ** 2 + x**2))[..., None]
    >>> wrapped = np.angle(np.exp(1j * truth))
    >>> found = laplacian(wrapped, None, np.ones((32, 32, 32), bool), (1, 1, 1), te=[0.01])
    >>> bool(np.corrcoef(found.ravel(), truth.ravel())[0, 1] > 0.99)
    True
    """
    te = check_echoes(phase, magnitude, mask, te)
    region = np.asarray(mask, bool)
    out = np.zeros(phase.shape, np.float32)
    if not region.any():
        return out
    box = ndimage.find_objects(region.astype(np.uint8))[0]
    inside = region[box]
    eigenvalues = _laplacian_eigenvalues(inside.shape, voxel_size)
    means = np.zeros(te.size)
    for j in range(te.size):
        wrapped = np.where(inside, phase[(*box, j)], 0)
        wrapped = np.nan_to_num(wrapped, nan=0, posinf=0, neginf=0).astype(np.float32)
        solution = _poisson(_wrapped_laplacian(wrapped, inside, voxel_size), eigenvalues)
        weight = np.ones_like(wrapped) if magnitude is None else magnitude[(*box, j)]
        weight = np.nan_to_num(weight)[inside]
        misfit = np.exp(1j * (wrapped[inside] - solution[inside]))
        solution += np.angle(np.sum(weight * misfit, dtype=np.complex128))
        means[j] = solution[inside].mean()
        out[(*box, j)] = np.where(inside, solution, 0)
    shift = _TWO_PI * np.rint((means[template] * te / te[template] - means) / _TWO_PI)
    shift[template] = 0
    out[region] += shift.astype(np.float32)
    return out


def _laplacian_eigenvalues(shape, voxel_size):
    total = np.zeros(shape, np.float32)
    for axis, (n, size) in enumerate(zip(shape, voxel_size, strict=True)):
        along = (2 * np.cos(np.pi * np.arange(n) / n) - 2) / size**2
        total += along.astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
    total[0, 0, 0] = 1
    return total


def _wrapped_laplacian(wrapped, inside, voxel_size):
    result = np.zeros(wrapped.shape, np.float32)
    for axis, size in enumerate(voxel_size):
        lower = tuple(slice(None, -1) if a == axis else slice(None) for a in range(3))
        upper = tuple(slice(1, None) if a == axis else slice(None) for a in range(3))
        step = wrapped[upper] - wrapped[lower]
        flux = (step - np.float32(_TWO_PI) * np.rint(step / _TWO_PI)) / np.float32(size**2)
        flux *= inside[upper] & inside[lower]
        result[lower] += flux
        result[upper] -= flux
    return result


def _poisson(right_side, eigenvalues):
    spectrum = fft.dctn(right_side, workers=workers())
    spectrum /= eigenvalues
    spectrum[0, 0, 0] = 0
    return fft.idctn(spectrum, workers=workers())
