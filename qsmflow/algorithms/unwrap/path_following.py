"""Exact unwrapping along paths of reliable edges: ROMEO and the best-path method."""

import numpy as np

from qsmflow.algorithms._checks import check_count, check_voxel_size

from . import _alignment, _costs
from ._echoes import check_echo, check_echoes
from ._grid import Box, write_echoes
from ._growing import grow


def romeo(
    phase,
    magnitude,
    mask,
    voxel_size,
    *,
    te,
    template=0,
    individual=False,
    edge_weights='romeo',
    max_seeds=1,
):
    r"""Unwrap multi-echo phase by region growing along the most reliable edges (ROMEO).

    The template echo is unwrapped in space along a minimum spanning tree of the voxel graph. The
    weight of the edge between the voxels i and j is a product of up to six terms, each counted as
    :math:`0.1 + 0.9 w` [1]_:

    1. phase coherence, :math:`1 - |W(\varphi_j - \varphi_i)| / \pi`;
    2. phase-gradient coherence of two echoes,
       :math:`\max(0, 1 - |W(\Delta\varphi_1) - W(\Delta\varphi_2)\,TE_1/TE_2|)`;
    3. phase linearity, the product over the two lines of three voxels around the edge of
       :math:`\max(0, 1 - |W(\varphi_{k-1} - 2\varphi_k + \varphi_{k+1})| / 2)`, or 0.9 where a
       line leaves the mask;
    4. magnitude coherence, :math:`(m_{min} / m_{max})^2`;
    5. enough magnitude, :math:`\frac12 + \frac12 \min(1, m_{min} / m_{50})`;
    6. no excess of magnitude, :math:`\frac12 + \frac12 \min(1, m_{50} / m_{max})`, with
       :math:`m_{50}` half the 95th percentile of the magnitude.

    Every other echo :math:`j` is unwrapped in time against the template :math:`t`:

    .. math:: \varphi_j - 2\pi\,\mathrm{round}\bigl((\varphi_j - \varphi_t TE_j/TE_t)/2\pi\bigr)

    The result differs from the input by a multiple of 2 pi in every voxel and is the same on every
    run, with any number of threads.

    Parameters
    ----------
    phase : ndarray of float, shape (X, Y, Z, E)
        Wrapped phase, in rad, free of the phase offset (``remove_phase_offset``) unless
        ``individual``.
    magnitude : ndarray of float, shape (X, Y, Z, E), or None
        Magnitude, in arbitrary units. ``None`` leaves its terms out.
    mask : ndarray of bool, shape (X, Y, Z)
        Region to unwrap. Parts that do not touch are unwrapped one by one and aligned.
    voxel_size : tuple of float
        Voxel edge lengths, in mm. Not used: the weights are free of it.
    te : sequence of float, shape (E,)
        Echo times, in s, increasing.
    template : int, optional
        Index of the echo that is unwrapped in space; the first by default, as in [1]_.
    individual : bool, optional
        Unwrap every echo in space. For phase whose offset cannot be removed.
    edge_weights : str, optional
        The terms that count, by the names of the authors' program: ``'romeo'`` (1 to 4, also
        ``'romeo4'``), ``'romeo2'`` (1 and 4), ``'romeo3'`` (1, 2 and 4), ``'romeo6'`` (all), or
        six digits such as ``'101100'``, 1 for on. ``'bestpath'`` takes the weights of
        :func:`best_path`. Terms whose data are missing are left out.
    max_seeds : int, optional
        Number of regions that may grow side by side. Above 1, growth does not cross edges worse
        than half way between the seed and the worst as long as there is a better seed; regions
        that meet are then merged by the vote of all edges between them. 1, the authors' default,
        takes the single best edge.

    Returns
    -------
    ndarray of float32, shape (X, Y, Z, E)
        Unwrapped phase, in rad; 0 outside ``mask``. NaN inside it where the phase of the echo or
        of the template is not finite: nothing is known there, and 0 would be a value.

    Raises
    ------
    ValueError
        If shapes or echo times are not consistent, ``voxel_size`` is not positive, there is no
        echo ``template``, ``edge_weights`` is unknown, or ``max_seeds`` is below 1.

    Notes
    -----
    Costs are 254 levels of the weight; among equal ones the newest edge goes first. The multiple
    of 2 pi of the whole is the one that brings the template's mean nearest to 0, and of parts
    that do not touch the one nearest to the largest part, unless the other echoes, predicted from
    the template, clearly ask for another. The time is linear in voxels.

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
    check_voxel_size(voxel_size)
    _costs.check_edge_weights(edge_weights)
    check_count(max_seeds=max_seeds)
    check_echo(template, te.size)
    return _unwrap(phase, magnitude, mask, te, template, individual, edge_weights, int(max_seeds))


def best_path(phase, magnitude, mask, voxel_size, *, te, template=0, individual=False):
    r"""Unwrap phase along the path of smallest second differences (best path).

    .. math:: R = \Bigl( \sum_{d=1}^{13} \bigl( W(\varphi_{-d} - \varphi_0)
                        - W(\varphi_0 - \varphi_{+d}) \bigr)^2 \Bigr)^{-1/2}

    The reliability :math:`R` of a voxel is the inverse of the root of the sum of its squared
    second differences along the 13 lines through it and two of its 26 neighbours, that of an edge
    the sum of both of its voxels, and edges are followed from the most reliable on [1]_. Other
    echoes are unwrapped in time by the template, as in :func:`romeo`. Needs neither magnitude nor
    several echoes. The result differs from the input by a multiple of 2 pi in every voxel.

    Parameters
    ----------
    phase : ndarray of float, shape (X, Y, Z, E)
        Wrapped phase, in rad, free of the phase offset unless ``individual``.
    magnitude : ndarray of float, shape (X, Y, Z, E), or None
        Weights of the mean phase that parts which do not touch are aligned by; nothing else.
    mask : ndarray of bool, shape (X, Y, Z)
        Region to unwrap. Parts that do not touch are unwrapped one by one and aligned.
    voxel_size : tuple of float
        Voxel edge lengths, in mm. Not used.
    te : sequence of float, shape (E,)
        Echo times, in s, increasing.
    template : int, optional
        Index of the echo that is unwrapped in space.
    individual : bool, optional
        Unwrap every echo in space.

    Returns
    -------
    ndarray of float32, shape (X, Y, Z, E)
        Unwrapped phase, in rad; 0 outside ``mask``, NaN inside it where the phase of the echo or
        of the template is not finite.

    Raises
    ------
    ValueError
        If shapes or echo times are not consistent, ``voxel_size`` is not positive, or there is no
        echo ``template``.

    Notes
    -----
    The authors join groups of voxels by sorted edges; growing one region over the cheapest edge
    gives the same tree but for ties. Edges tie within 3 % of reliability, one of 254 logarithmic
    levels. Lines that leave the mask, which the authors do not treat, are replaced by the mean of
    the others.

    References
    ----------
    .. [1] Abdul-Rahman HS, et al. Appl Opt 2007;46:6623-6635. doi:10.1364/AO.46.006623

    Examples
    --------
    >>> truth = np.linspace(0, 20, 64)[:, None, None, None] * np.ones((64, 4, 4, 1))
    >>> wrapped = np.angle(np.exp(1j * truth))
    >>> found = best_path(wrapped, None, np.ones((64, 4, 4), bool), (1, 1, 1), te=[0.01])
    >>> turns = (found - truth) / (2 * np.pi)
    >>> bool(np.allclose(turns, np.round(turns[0, 0, 0, 0]), atol=1e-5))
    True
    """
    te = check_echoes(phase, magnitude, mask, te)
    check_voxel_size(voxel_size)
    check_echo(template, te.size)
    return _unwrap(phase, magnitude, mask, te, template, individual, 'bestpath', 1)


def _unwrap(phase, magnitude, mask, te, template, individual, edge_weights, max_seeds):
    phase = np.asarray(phase, np.float32)
    mask = np.asarray(mask, bool)
    out = np.zeros(phase.shape, np.float32)
    if not mask.any():
        return out
    box = Box(mask)
    options = (box, phase, magnitude, te, edge_weights, max_seeds)
    reference, regions, weight = _in_space(*options, template)
    if regions.count:
        _alignment.align_by_echoes(box, reference, weight, regions, phase, te, template)
    references, source, ratio = [reference], np.zeros(te.size, np.int64), te / te[template]
    if individual:
        for j in range(te.size):
            if j != template:
                own, regions, weight = _in_space(*options, j)
                if regions.count:
                    _alignment.align_to_prediction(box, own, regions, reference * ratio[j])
                source[j] = len(references)
                references.append(own)
        ratio = np.ones(te.size)
    write_echoes(
        *(phase, np.stack(references), source, ratio, template),
        *(mask, box.origin, box.shape, out),
    )
    return out


def _in_space(box, phase, magnitude, te, edge_weights, max_seeds, echo):
    """Return one echo unwrapped in space, its parts, and its magnitude."""
    values, strength, edges = edges_of_echo(box, phase, magnitude, te, edge_weights, echo)
    regions = grow(box, values, edges, max_seeds)
    _alignment.lift(box, values, regions.turns)
    return values, regions, strength


def edges_of_echo(box, phase, magnitude, te, edge_weights, echo):
    """Return wrapped phase, magnitude and edge list of one echo, with the next one beside it."""
    values = box.phase(phase, echo)
    strength = box.magnitude(magnitude, echo)
    other, ratio = None, 0.0
    if te.size > 1 and edge_weights != 'bestpath':
        beside = echo + 1 if echo + 1 < te.size else echo - 1
        other, ratio = box.phase(phase, beside), te[echo] / te[beside]
    edges = _costs.edge_list(
        *(box, values, other, ratio, strength, edge_weights),
        has_magnitude=magnitude is not None,
    )
    return values, strength, edges
