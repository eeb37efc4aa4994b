"""Workflows for maps that come from the magnitude."""

import itertools
from collections.abc import Mapping

from qsmflow.algorithms.catalog import STAGES
from qsmflow.engine import Node, Workflow, identity
from qsmflow.interfaces.contrasts import Relaxometry
from qsmflow.workflows.common import cite
from qsmflow.workflows.memory import claim

#: Echo spacings may differ by this much, in s, and still count as equal.
SPACING_TOLERANCE = 1e-4


def usable_relaxometry(method: str, te: list[float]) -> str | None:
    """Return the relaxometry method that these echo times allow.

    Parameters
    ----------
    method : str
        The method that was asked for.
    te : list of float
        Echo times, in s, ascending.

    Returns
    -------
    str or None
        ``method`` itself, ``'loglinear'`` where ARLO lacks three equidistant echoes, or None for a
        single echo.

    Examples
    --------
    >>> usable_relaxometry('arlo', [0.004, 0.010, 0.016])
    'arlo'
    >>> usable_relaxometry('arlo', [0.004, 0.010])
    'loglinear'
    """
    if len(te) < 2:
        return None
    spacing = [after - before for before, after in itertools.pairwise(te)]
    equal = len(te) >= 3 and max(spacing) - min(spacing) <= SPACING_TOLERANCE
    return 'loglinear' if method == 'arlo' and not equal else method


def init_relaxometry_wf(
    *,
    te: list[float],
    method: str = 'arlo',
    params: dict | None = None,
    mem_gb: float | Mapping[str, float] = 1.0,
    n_procs: int = 1,
    name: str = 'relaxometry_wf',
) -> Workflow:
    """Map R2*, T2* and the signal at echo time zero.

    Workflow Graph
        .. workflow::
            :graph2use: orig
            :simple_form: yes

            from qsmflow.workflows import init_relaxometry_wf
            wf = init_relaxometry_wf(te=[0.004, 0.010, 0.016])

    Parameters
    ----------
    te : list of float
        Echo times, in s.
    method : str
        See ``STAGES['relaxometry']`` of :mod:`qsmflow.algorithms.catalog`.
    params : dict, optional
        Keyword arguments of the algorithm.
    mem_gb : float or mapping of str to float
        Memory of each node in GB, or by its step; see :mod:`qsmflow.workflows.memory`.
    n_procs : int
        Threads of the node.
    name : str
        Name of the workflow.

    Inputs
    ------
    magnitude, mask : str
        4-D magnitude, echo last; region of interest.

    Outputs
    -------
    r2star, t2star, s0 : str
        In 1/s, s and the magnitude's unit.
    """
    entry = STAGES['relaxometry'][method]
    citation = f' [{cite(entry.citations)}]' if entry.citations else ''
    workflow = Workflow(name=name)
    workflow.tag = 'relaxometry'
    workflow.__desc__ = f'R2* was mapped from the magnitude by {entry.title}{citation}.\n'
    inputnode = identity('inputnode', ['magnitude', 'mask'])
    outputnode = identity('outputnode', ['r2star', 't2star', 's0'])
    fit = Node(
        Relaxometry(te=list(te), method=method, params=params or {}),
        name='fit',
        mem_gb=claim(mem_gb, 'relaxometry'),
        n_procs=n_procs,
    )
    workflow.connect([
        (inputnode, fit, [('magnitude', 'magnitude'), ('mask', 'mask')]),
        (fit, outputnode, [('r2star', 'r2star'), ('t2star', 't2star'), ('s0', 's0')]),
    ])  # fmt: skip
    return workflow
