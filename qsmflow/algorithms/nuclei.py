"""Segmentation of nuclei by their own contrast, where no atlas label may be shared.

The dentate nucleus is paramagnetic, dark in late echoes and decays fast. Inside a search region it
is found by a minimum cut that weighs this contrast against a short boundary. Where the contrast is
absent, the prior's core is used instead, and the result says so.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage, signal, sparse
from scipy.sparse import csgraph

from qsmflow.algorithms.masking import ALL_NEIGHBOURS, FACES, otsu_threshold

#: Plausible volumes of one dentate nucleus, in mm3.
DENTATE_VOLUME = (200.0, 2500.0)

#: Sides whose volumes differ by more than this factor are not both right.
MAX_VOLUME_RATIO = 3.0

#: A found nucleus must exceed its surroundings by this many pooled standard deviations ...
MIN_CONTRAST = 1.0

#: ... and by this susceptibility, in ppm.
MIN_CHI_DIFFERENCE = 0.020

#: Confidence of a side that was taken from the prior.
PRIOR_QC = 0.2

#: How far the nucleus may lie from where the prior expects it, in mm.
MAX_SHIFT = 7.0

#: Susceptibility above the surroundings that counts in full when the prior is placed, in ppm.
CLEAR_CHI = 0.10

#: Fraction of a nucleus that may lie on the edge of the search region.
MAX_TOUCHING = 0.15

#: Susceptibility above the surroundings that only veins have, in ppm.
VEIN_CHI = 0.25

#: Capacities of the cut are integers; one unit of energy is this many.
CAPACITY_SCALE = 1000


@dataclass(frozen=True)
class SideResult:
    """How one side was found.

    Attributes
    ----------
    method : str
        ``'contrast'`` or ``'prior'``.
    qc : float
        Confidence, from 0 to 1; at most 0.2 for ``'prior'``.
    volume_mm3 : float
        Volume of the label, in mm3.
    reason : str
        Why the prior was used; empty for ``'contrast'``.
    """

    method: str
    qc: float
    volume_mm3: float
    reason: str = ''


@dataclass(frozen=True, eq=False)
class DentateResult:
    """Segmentation of both dentate nuclei.

    Attributes
    ----------
    labels : ndarray of uint8, shape (X, Y, Z)
        0 outside, 1 left, 2 right.
    left, right : SideResult
        How each side was found, and how sure.
    """

    labels: np.ndarray
    left: SideResult
    right: SideResult


@dataclass(frozen=True, eq=False)
class _Found:
    mask: np.ndarray
    qc: float
    reason: str = ''


def segment_dentate(
    chi,
    r2star,
    magnitude_last,
    search_left,
    search_right,
    core_left,
    core_right,
    mask,
    voxel_size,
    *,
    smoothness: float = 0.5,
) -> DentateResult:
    r"""Find the dentate nuclei inside search regions by their contrast.

    On each side, with :math:`c` the contrast (0 in the surroundings, 1 in the nucleus) and labels
    :math:`x` in {0, 1},

    .. math:: \min_x \sum_v (1/2 - c_v + p_v) x_v
              + \lambda \sum_{v \sim w} e^{-(c_v - c_w)^2 / (2 \cdot 0.3^2)} |x_v - x_w| / d_{vw}

    for face neighbours :math:`d_{vw}` mm apart is solved exactly as a minimum cut. The contrast
    joins robust z-scores of susceptibility, R2* and the late echo's darkness; :math:`p` grows with
    the distance from the prior's core. Before that the prior is moved by up to 7 mm to where it
    fits, since registration of the cerebellum is that uncertain, and veins are taken out: voxels
    far above the nucleus in susceptibility that reach the edge of the search region. A result of
    implausible size, contrast, place or side ratio is replaced by the core.

    Parameters
    ----------
    chi : ndarray of float, shape (X, Y, Z)
        Susceptibility, in ppm.
    r2star, magnitude_last : ndarray of float, shape (X, Y, Z), or None
        R2* (1/s) and magnitude of the last echo (arbitrary units); either may be missing.
    search_left, search_right : ndarray of bool, shape (X, Y, Z)
        Where the nuclei may lie.
    core_left, core_right : ndarray of bool, shape (X, Y, Z)
        Where the prior expects them.
    mask : ndarray of bool, shape (X, Y, Z)
        Where the maps are defined.
    voxel_size : tuple of float
        Voxel edge lengths, in mm, in array-axis order.
    smoothness : float, optional
        Weight :math:`\lambda` of the boundary, for neighbours 1 mm apart.

    Returns
    -------
    DentateResult
        Labels 1 (left) and 2 (right), and for each side method, confidence and volume.

    References
    ----------
    Boykov Y, Funka-Lea G. Int J Comput Vis 2006;70:109-131. doi:10.1007/s11263-006-7934-5
    (segmentation by minimum cuts).

    Examples
    --------
    >>> chi = np.zeros((30, 16, 16), np.float32)
    >>> chi[4:12, 4:12, 4:12] = chi[18:26, 4:12, 4:12] = 0.1
    >>> left, right = np.zeros(chi.shape, bool), np.zeros(chi.shape, bool)
    >>> left[:15], right[15:] = True, True
    >>> core = ndimage.binary_erosion(chi > 0)
    >>> result = segment_dentate(chi, None, None, left, right, core & left, core & right,
    ...                          np.ones(chi.shape, bool), (1, 1, 1))
    >>> bool(np.array_equal(result.labels > 0, chi > 0)), result.left.method
    (True, 'contrast')
    """
    mask = np.asarray(mask, bool)
    images = (chi, r2star, magnitude_last)
    sides = [(search_left, core_left), (search_right, core_right)]
    cores = [np.asarray(core, bool) & mask for _, core in sides]
    found = [
        _one_side(images, np.asarray(search, bool) & mask, core, mask, voxel_size, smoothness)
        for (search, _), core in zip(sides, cores, strict=True)
    ]
    found = _compare_sides(found)
    labels = np.zeros(mask.shape, np.uint8)
    results = []
    for index, (side, (_, prior), core) in enumerate(zip(found, sides, cores, strict=True), 1):
        region = core if side.reason else side.mask
        region = region & (labels == 0)
        labels[region] = index
        volume = float(np.count_nonzero(region) * np.prod(voxel_size))
        if side.reason:
            seen = np.count_nonzero(core) / max(1, np.count_nonzero(prior))
            results.append(SideResult('prior', PRIOR_QC * seen, volume, side.reason))
        else:
            results.append(SideResult('contrast', side.qc, volume))
    return DentateResult(labels, *results)


def _one_side(images, search, core, mask, voxel_size, smoothness):
    """Segment one side in a box around its search region."""
    nothing = np.zeros(search.shape, bool)
    if np.count_nonzero(core) < 3 or np.count_nonzero(search & ~core) < 10:
        return _Found(nothing, 0.0, 'search region outside the mask')
    box = _box_around(search | core, voxel_size)
    search, core, mask = (search | core)[box], core[box], mask[box]
    chi, *others = (_finite(image, box, search) for image in images)
    if chi is None:
        return _Found(nothing, 0.0, 'no susceptibility in the search region')
    shift = _find_shift(chi, search, core, mask, voxel_size)
    search, core = (_shifted(region, shift) & mask for region in (search, core))
    if np.count_nonzero(core) < 3:
        return _Found(nothing, 0.0, 'search region outside the mask')
    distance = ndimage.distance_transform_edt(~core, sampling=voxel_size)
    near = search & (distance <= 3)
    allowed = search & ~_veins(chi, search, near)
    contrast, reason = _contrast(chi, others, allowed, near & allowed)
    if reason:
        return _Found(nothing, 0.0, reason)
    penalty = np.clip((distance - 3) / 12, 0, 1)  # half the contrast at 9 mm from the core
    cut = _minimum_cut(0.5 - contrast + penalty, contrast, allowed, voxel_size, smoothness)
    nucleus = _select(cut, search, distance)
    qc, reason = _judge(nucleus, chi, allowed, search, distance, voxel_size)
    nothing[box] = nucleus
    return _Found(nothing, qc, reason)


def _finite(image, box, search):
    """Return a map in the box with its holes filled by the median; None where there is no map."""
    if image is None:
        return None
    image = np.asarray(image)[box].astype(np.float64)
    finite = np.isfinite(image)
    known = image[search & finite]
    return np.where(finite, image, np.median(known)) if known.size else None


def _box_around(region, voxel_size):
    """Return the box of a region with room for the largest shift."""
    tight = ndimage.find_objects(region.astype(np.uint8))[0]
    room = [1 + int(MAX_SHIFT / size) for size in voxel_size]
    return tuple(
        slice(max(0, part.start - extra), part.stop + extra)
        for part, extra in zip(tight, room, strict=True)
    )


def _find_shift(chi, search, core, mask, voxel_size):
    """Return the shift of the prior, in voxels, that its surroundings agree with best.

    Registration misses the cerebellum by some millimetres. The filter is positive in the prior's
    core with a margin and negative in the shell around, and small shifts are preferred.
    """
    level = np.median(chi[search])
    score = np.clip((chi - level) / CLEAR_CHI, -0.5, 1) * mask
    distance = ndimage.distance_transform_edt(~core, sampling=voxel_size)
    inner, shell = distance <= 2, (distance > 4) & (distance <= 8)
    if not shell.any():
        return (0, 0, 0)
    weights = inner / np.count_nonzero(inner) - shell / np.count_nonzero(shell)
    reach = [int(MAX_SHIFT / size) for size in voxel_size]
    padded = np.pad(score, [(r, r) for r in reach])
    match = signal.correlate(padded, weights, mode='valid', method='fft')
    steps = np.indices(match.shape, float) - np.reshape(reach, (3, 1, 1, 1))
    away = (steps * np.reshape(voxel_size, (3, 1, 1, 1))) ** 2
    away = away.sum(0) / MAX_SHIFT**2
    match = np.where(away <= 1, match - 0.1 * away, -np.inf)
    best = np.unravel_index(match.argmax(), match.shape)
    return tuple(int(b - r) for b, r in zip(best, reach, strict=True))


def _shifted(region, shift):
    """Move a region by whole voxels; what leaves the array is lost."""
    moved = np.zeros_like(region)
    source = tuple(
        slice(max(0, -s), n - max(0, s)) for s, n in zip(shift, region.shape, strict=True)
    )
    target = tuple(
        slice(max(0, s), n - max(0, -s)) for s, n in zip(shift, region.shape, strict=True)
    )
    moved[target] = region[source]
    return moved


def _two_levels(image, near, search, ceiling):
    """Split the voxels near the core in two; return the split, and the level above and below it.

    The core is a guess of place, and a folded nucleus fills it in part only: what stands out in
    its neighbourhood tells the level of the nucleus, wherever in it that lies.
    """
    values = np.minimum(image[near], ceiling)
    split = otsu_threshold(values)
    above, below = values[values > split], image[search & (image <= split)]
    if above.size < 3 or below.size < 10:
        return None
    return split, float(np.median(above)), float(np.median(below))


def _veins(chi, search, near):
    """Return voxels far above the nucleus that belong to something reaching beyond the search."""
    nowhere = np.zeros(chi.shape, bool)
    levels = _two_levels(chi, near, search, np.median(chi[search]) + VEIN_CHI)
    if levels is None:
        return nowhere
    split, nucleus, _ = levels
    spread = _spread(chi[near & (chi > split)])
    bright, count = ndimage.label(search & (chi > nucleus + max(4 * spread, 0.08)), ALL_NEIGHBOURS)
    if count == 0:
        return nowhere
    crossing = np.unique(bright[search & ~ndimage.binary_erosion(search, FACES)])
    veins = np.isin(bright, crossing[crossing > 0])
    # The flank of a vein has the susceptibility of the nucleus: take one voxel more.
    return veins | (ndimage.binary_dilation(veins, FACES) & search)


def _contrast(chi, others, search, near):
    """Scale the maps to 0 in the surroundings and 1 in the nucleus, and join them."""
    around = search & ~near
    if np.count_nonzero(around) < 10 or np.count_nonzero(near) < 10:
        return None, 'search region too small'
    score = np.zeros(chi.shape)
    weight = 0.0
    for image, sign, share in zip((chi, *others), (1, 1, -1), (2.0, 1.0, 0.5), strict=True):
        if image is None:
            continue
        background = np.median(image[around])
        noise = max(_spread(image[around]), 1e-9)
        score += share * np.clip(sign * (image - background) / noise, -6, 12)
        weight += share
    score /= weight
    levels = _two_levels(score, near, search, np.inf)
    if levels is None or levels[1] - levels[2] < MIN_CONTRAST:
        return None, 'no contrast'
    _, nucleus, surround = levels
    return np.clip((score - surround) / (nucleus - surround), -0.5, 1.5), ''


def _minimum_cut(cost, contrast, search, voxel_size, smoothness):
    """Minimise the energy of the segmentation exactly, by the maximum flow of its graph."""
    number = np.full(search.shape, -1)
    nodes = np.count_nonzero(search)
    number[search] = np.arange(nodes)
    source, sink = nodes, nodes + 1
    unary = np.rint(CAPACITY_SCALE * cost[search]).astype(np.int64)
    rows, columns, capacities = [], [], []

    def connect(first, second, capacity):
        rows.append(first)
        columns.append(second)
        capacities.append(capacity)

    own = np.arange(nodes)
    connect(np.full(nodes, source), own, np.maximum(-unary, 0))
    connect(own, np.full(nodes, sink), np.maximum(unary, 0))
    for axis in range(3):
        ahead = tuple(slice(1, None) if a == axis else slice(None) for a in range(3))
        back = tuple(slice(None, -1) if a == axis else slice(None) for a in range(3))
        both = search[ahead] & search[back]
        step = contrast[ahead][both] - contrast[back][both]
        # A face's energy falls with the distance of the centres it separates, as its area does.
        strength = smoothness * np.exp(-(step**2) / (2 * 0.3**2)) / voxel_size[axis]
        capacity = np.rint(CAPACITY_SCALE * strength).astype(np.int64)
        one, other = number[back][both], number[ahead][both]
        connect(one, other, capacity)
        connect(other, one, capacity)
    shape = (nodes + 2, nodes + 2)
    values = np.concatenate(capacities).astype(np.int32)
    pairs = (np.concatenate(rows), np.concatenate(columns))
    graph = sparse.csr_matrix((values, pairs), shape=shape)
    flow = csgraph.maximum_flow(graph, source, sink).flow
    residual = graph - flow
    residual.data = (residual.data > 0).astype(np.int8)
    residual.eliminate_zeros()
    reached = csgraph.breadth_first_order(residual, source, return_predecessors=False)
    chosen = np.zeros(nodes + 2, bool)
    chosen[reached] = True
    result = np.zeros(search.shape, bool)
    result[search] = chosen[:nodes]
    return result


def _select(cut, search, distance):
    """Keep the parts that lie near the core, freed of what reaches beyond the search region."""
    edge = search & ~ndimage.binary_erosion(search, FACES) & (distance > 3)
    if np.count_nonzero(cut & edge) > MAX_TOUCHING * np.count_nonzero(cut):
        # Much at the edge is another structure that hangs on the nucleus by a thin bridge.
        opened = _near_parts(ndimage.binary_opening(cut & ~edge, FACES), distance)
        if opened.any():
            cut = cut & ~edge & ndimage.binary_dilation(opened, FACES)
    return ndimage.binary_fill_holes(_near_parts(cut, distance)) & search


def _near_parts(mask, distance):
    """Return the components with most of their voxels within 4 mm of the core, without crumbs."""
    labels, count = ndimage.label(mask, ALL_NEIGHBOURS)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    near = np.bincount(labels[distance <= 4], minlength=count + 1)
    good = near > 0.5 * sizes
    good[0] = False
    if good.any():
        good &= sizes >= 0.1 * sizes[good].max()
    return good[labels]


def _judge(nucleus, chi, allowed, search, distance, voxel_size):
    """Return the confidence in a segmentation and, if it is not plausible, the reason."""
    count = np.count_nonzero(nucleus)
    volume = count * float(np.prod(voxel_size))
    if not DENTATE_VOLUME[0] <= volume <= DENTATE_VOLUME[1]:
        return 0.0, f'implausible volume of {volume:.0f} mm3'
    outside = allowed & ~ndimage.binary_dilation(nucleus, FACES)
    if np.count_nonzero(outside) < 10:
        return 0.0, 'fills the search region'
    difference = np.median(chi[nucleus]) - np.median(chi[outside])
    noise = np.sqrt((_spread(chi[nucleus]) ** 2 + _spread(chi[outside]) ** 2) / 2)
    separation = difference / max(noise, 1e-9)
    if difference < MIN_CHI_DIFFERENCE or separation < MIN_CONTRAST:
        return 0.0, 'no contrast'
    placed = np.count_nonzero(distance[nucleus] <= 4) / count
    edge = search & ~ndimage.binary_erosion(search, FACES) & (distance > 3)
    touching = np.count_nonzero(nucleus & edge) / count
    if placed < 0.6 or touching > MAX_TOUCHING:
        return 0.0, 'not where the prior expects it'
    clear = 1 - np.exp(-separation / 3)
    return float(clear * placed * (1 - touching)), ''


def _compare_sides(found):
    """Distrust the less sure side when the two volumes cannot both be right."""
    if any(side.reason for side in found):
        return found
    sizes = [max(1, np.count_nonzero(side.mask)) for side in found]
    if max(sizes) <= MAX_VOLUME_RATIO * min(sizes):
        return found
    worse = int(np.argmin([side.qc for side in found]))
    return [
        _Found(side.mask, 0.0, 'volume unlike that of the other side') if i == worse else side
        for i, side in enumerate(found)
    ]


def _spread(values):
    """Return the scaled median absolute deviation."""
    return 1.4826 * float(np.median(np.abs(values - np.median(values))))
