"""Growing of regions along the cheapest edges, and the merging of regions that meet."""

from typing import NamedTuple

import numpy as np

from qsmflow.algorithms._jit import njit, prange

from ._costs import WORST

_N_BUCKETS = WORST + 2
# Larger than any cost: the state of a voxel that no region has reached.
_UNREACHED = WORST + 1


class Regions(NamedTuple):
    """Voxels unwrapped in regions.

    Attributes
    ----------
    turns : ndarray of int32, shape (N,)
        Multiple of 2 pi to be added to the wrapped phase.
    label : ndarray of int32, shape (N,)
        Number of the region, from 0; -1 outside all.
    count : int
        Number of regions.
    """

    turns: np.ndarray
    label: np.ndarray
    count: int


def grow(box, phase, edges, max_seeds=1):
    """Unwrap along a minimum spanning tree of the edges, from one or more seeds.

    With one seed, each part of the region that does not touch another is one tree. With more,
    a region that could only grow on over bad edges waits: a seed is put at the best voxel left,
    as long as there are seeds and the voxel is better than the edge. Regions that meet are merged
    by the vote of all edges between them, each with its quality.

    Parameters
    ----------
    box : Box
        Padded bounding box.
    phase : ndarray of float32, shape (N,)
        Phase, NaN outside the region.
    edges : ndarray of int32, shape (N,)
        Edge list.
    max_seeds : int, optional
        Number of regions that may grow side by side. Parts that do not touch have one each in any
        case.

    Returns
    -------
    Regions
        Parts that do not touch; the multiples of 2 pi between them are not known yet.
    """
    reached = np.zeros(box.size, np.uint8)
    reached[~np.isnan(phase)] = _UNREACHED
    seeds, seed_costs = _seeds(box, edges, reached, in_order=max_seeds > 1)
    capacity = _edges_of_each_cost(box, edges)
    queue = np.empty(capacity.sum(), np.int32 if 8 * box.size < 2**31 else np.int64)
    turns = np.zeros(box.size, np.int32)
    label = np.full(box.size, -1, np.int32)
    count = _grow(
        *(edges, reached, *box.strides[:2], seeds, seed_costs, max_seeds),
        *(capacity, queue, turns, label),
    )
    regions = Regions(turns, label, count)
    return regions if max_seeds == 1 or count <= 1 else _merge(box, edges, regions)


def _seeds(box, edges, reached, in_order):
    """Return all voxels of the region, if asked for the best first, and the cost of each."""
    voxels = np.flatnonzero(reached)
    if not in_order:
        return voxels, np.zeros(voxels.size, np.uint8)
    costs = mean_costs(edges, *box.strides[:2], box.shape[0])[voxels]
    order = np.argsort(costs, kind='stable')
    return voxels[order], np.ceil(costs[order]).astype(np.uint8)


def _edges_of_each_cost(box, edges):
    counts = np.zeros((box.shape[0], _N_BUCKETS), np.int64)
    _count_costs(edges, counts)
    counts[:, 0] = 0
    return counts.sum(axis=0)


@njit(cache=True, parallel=True)
def mean_costs(edges, sx, sy, nx):
    """Return the mean cost of the up to six edges of each voxel; ``WORST`` if there is none."""
    out = np.full(edges.size, np.float32(WORST), np.float32)
    for i in prange(2, nx - 2):
        for v in range(i * sx, (i + 1) * sx):
            total = 0
            count = 0
            for axis in range(3):
                stride = sx if axis == 0 else (sy if axis == 1 else 1)
                ahead = (edges[v] >> (8 * axis)) & 255
                behind = (edges[v - stride] >> (8 * axis)) & 255
                total += ahead + behind
                count += (ahead > 0) + (behind > 0)
            if count:
                out[v] = np.float32(total) / np.float32(count)
    return out


@njit(cache=True, parallel=True)
def _count_costs(edges, counts):
    """Count the edges of each cost, plane by plane; entry 0 takes those that are none."""
    planes = counts.shape[0]
    plane = edges.size // planes
    for i in prange(planes):
        for v in range(i * plane, (i + 1) * plane):
            word = edges[v]
            if word:
                counts[i, word & 255] += 1
                counts[i, (word >> 8) & 255] += 1
                counts[i, (word >> 16) & 255] += 1


@njit(cache=True, inline='always')
def _offer(edges, reached, v, strides, queue, top, low):
    """Queue the edges from voxel ``v`` to voxels that it reaches at a lower cost than others."""
    for axis in range(3):
        stride = strides[axis]
        cost = (edges[v] >> (8 * axis)) & 255
        if cost != 0 and cost < reached[v + stride]:
            reached[v + stride] = cost
            queue[top[cost]] = 8 * (v + stride) + 2 * axis
            top[cost] += 1
            low = min(low, cost)
        cost = (edges[v - stride] >> (8 * axis)) & 255
        if cost != 0 and cost < reached[v - stride]:
            reached[v - stride] = cost
            queue[top[cost]] = 8 * (v - stride) + 2 * axis + 1
            top[cost] += 1
            low = min(low, cost)
    return low


@njit(cache=True)
def _grow(edges, reached, sx, sy, seeds, seed_costs, max_seeds, capacity, queue, turns, label):
    """Grow all regions; return their number.

    ``reached`` holds the lowest cost at which a voxel can be reached so far, and 0 for a voxel
    that has been, so that an entry of the queue counts only as long as it is the best of its
    voxel. One stack for each cost, side by side in ``queue``: an edge is offered at most once, so
    the number of edges of each cost is room enough. An entry is 8 times the voxel plus 2 times
    the axis, plus 1 if the edge leads against the axis.
    """
    strides = (sx, sy, 1)
    bottom = np.zeros(_N_BUCKETS, np.int64)
    for cost in range(1, _N_BUCKETS):
        bottom[cost] = bottom[cost - 1] + capacity[cost - 1]
    top = bottom.copy()
    low = _N_BUCKETS
    threshold = _N_BUCKETS
    count = 0
    following = 0
    while True:
        while low < _N_BUCKETS:
            if top[low] == bottom[low]:
                low += 1
                continue
            entry = np.int64(queue[top[low] - 1])
            u = entry >> 3
            if reached[u] == low:
                break
            top[low] -= 1
        if low > threshold or low == _N_BUCKETS:
            while following < seeds.size and reached[seeds[following]] == 0:
                following += 1
            if following < seeds.size and (low == _N_BUCKETS or seed_costs[following] < low):
                u = seeds[following]
                label[u] = count
                reached[u] = 0
                count += 1
                threshold = _N_BUCKETS
                if count < max_seeds:
                    # Half way from the quality of the seed to the worst.
                    threshold = _N_BUCKETS - (_N_BUCKETS - seed_costs[following]) // 2
                low = _offer(edges, reached, u, strides, queue, top, low)
                continue
            if low == _N_BUCKETS:
                return count
        top[low] -= 1
        axis = (entry & 7) >> 1
        v = u + strides[axis] if entry & 1 else u - strides[axis]
        first = min(u, v)
        turn = ((edges[first] >> (24 + 2 * axis)) & 3) - 1
        turns[u] = turns[v] + turn if entry & 1 else turns[v] - turn
        label[u] = label[v]
        reached[u] = 0
        low = _offer(edges, reached, u, strides, queue, top, low)


def _merge(box, edges, regions):
    """Merge regions that meet, the longest and best border first."""
    votes = _votes(box, edges, regions)
    shift = np.zeros(regions.count, np.int64)
    root = np.arange(regions.count)
    while votes:
        strength = {}
        for (a, b, _), weight in votes.items():
            strength[a, b] = strength.get((a, b), 0) + weight
        a, b = max(strength, key=lambda pair: (strength[pair], -pair[0], -pair[1]))
        of_pair = {j: w for (x, y, j), w in votes.items() if (x, y) == (a, b)}
        jump = max(of_pair, key=lambda j: (of_pair[j], -abs(j), -j))
        moved = root == b
        shift[moved] += jump
        root[moved] = a
        votes = _with_one_less(votes, a, b, jump)
    _, compact = np.unique(root, return_inverse=True)
    inside = regions.label >= 0
    label = regions.label[inside]
    regions.turns[inside] += shift[label].astype(np.int32)
    regions.label[inside] = compact[label].astype(np.int32)
    return Regions(regions.turns, regions.label, int(compact.max()) + 1)


def _votes(box, edges, regions):
    """Return by (region a, region b > a, turns that b must gain on a) the summed edge quality."""
    rows, weights = [], []
    for axis, stride in enumerate(box.strides):
        cost = (edges[:-stride] >> (8 * axis)) & 255
        here, there = regions.label[:-stride], regions.label[stride:]
        at = np.flatnonzero((cost > 0) & (here != there))
        turn = ((edges[at] >> (24 + 2 * axis)) & 3) - 1
        jump = regions.turns[at] - turn - regions.turns[at + stride]
        a, b = here[at], there[at]
        swap = a > b
        rows.append(
            np.stack([np.where(swap, b, a), np.where(swap, a, b), np.where(swap, -jump, jump)])
        )
        weights.append(WORST + 1 - cost[at])
    keys, which = np.unique(np.concatenate(rows, axis=1), axis=1, return_inverse=True)
    total = np.bincount(which.ravel(), np.concatenate(weights), keys.shape[1])
    return {tuple(key): weight for key, weight in zip(keys.T.tolist(), total, strict=True)}


def _with_one_less(votes, a, b, jump):
    """Return the votes after region ``b``, raised by ``jump`` turns, has become part of ``a``."""
    merged = {}
    for (x, y, j), weight in votes.items():
        if (x, y) == (a, b):
            continue
        if x == b:
            x, j = a, j + jump
        elif y == b:
            y, j = a, j - jump
        if x > y:
            x, y, j = y, x, -j
        merged[x, y, j] = merged.get((x, y, j), 0) + weight
    return merged
