"""Small helpers of the builders."""

import re
from pathlib import Path

from qsmflow.bids.names import parse_name
from qsmflow.bids.series import GRESeries
from qsmflow.engine import Node
from qsmflow.interfaces.bids import DerivativesSink


def cite(keys: tuple[str, ...]) -> str:
    """Join citation keys as Pandoc reads them.

    Examples
    --------
    >>> cite(('liu2011', 'sun2014'))
    '@liu2011; @sun2014'
    """
    return '; '.join(f'@{key}' for key in keys)


def given(**inputs) -> dict:
    """Return the inputs that are not None: an interface leaves the others undefined.

    Examples
    --------
    >>> given(b0_dir=None, method='tv')
    {'method': 'tv'}
    """
    return {key: value for key, value in inputs.items() if value is not None}


def sink_node(name: str, *, out_dir: str, path: str, kind: str = 'map', **inputs) -> Node:
    """Return a node that stores a derivative.

    Parameters
    ----------
    name : str
        Name of the node, ``ds_<what>``.
    out_dir, path : str
        Root of the derivative dataset, and the place below it.
    kind : {'map', 'label', 'mask', 'file'}
        What is stored. A plain copy is made at once, in the main process; the compression of an
        image is left to a worker.
    **inputs
        Further inputs of :class:`qsmflow.interfaces.bids.DerivativesSink`.
    """
    sink = DerivativesSink(out_dir=out_dir, path=path, kind=kind, **inputs)
    return Node(sink, name=name, run_without_submitting=kind == 'file')


def t1w_entities(series: GRESeries) -> dict[str, str]:
    """Return the entities of what is made of the T1w image of a series.

    They are those of its name, but of a FreeSurfer image subject and session.
    """
    entities = parse_name(Path(series.t1w).name)[0]
    if 'sub' in entities:
        return {key: label for key, label in entities.items() if key != 'desc'}
    session = re.search(r'/sub-[A-Za-z0-9]+_ses-([A-Za-z0-9]+)/mri/', series.t1w)
    return {'sub': series.subject} | ({'ses': session[1]} if session else {})
