"""Workflow from wrapped phase to the field map."""

from collections.abc import Mapping

from qsmflow.algorithms.catalog import STAGES
from qsmflow.engine import Node, Workflow, identity
from qsmflow.interfaces.field import FieldFit, FieldSign
from qsmflow.interfaces.phase import (
    BipolarCorrection,
    PhaseOffsetRemoval,
    PhaseUnwrapping,
    bipolar_obstacle,
    readout_polarity,
    untested_bipolar,
)
from qsmflow.workflows.common import cite, given
from qsmflow.workflows.memory import claim


def init_field_mapping_wf(
    *,
    te: list[float],
    f0: float,
    unwrapping: str = 'romeo',
    field: str = 'sequential',
    bipolar: str = 'auto',
    echo_numbers: list[int] | None = None,
    unwrapping_fallback: bool = True,
    sign: str = 'auto',
    b0_dir: tuple[float, float, float] | None = None,
    params: dict[str, dict] | None = None,
    mem_gb: float | Mapping[str, float] = 2.0,
    n_procs: int = 1,
    name: str = 'field_mapping_wf',
) -> Workflow:
    """Map the field from the wrapped phase of one or more echoes.

    Workflow Graph
        .. workflow::
            :graph2use: orig
            :simple_form: yes

            from qsmflow.workflows import init_field_mapping_wf
            wf = init_field_mapping_wf(te=[0.005, 0.010], f0=127.7)

    Parameters
    ----------
    te : list of float
        Echo times, in s.
    f0 : float
        Imaging frequency, in MHz.
    unwrapping, field : str
        Methods, see :data:`qsmflow.algorithms.catalog.STAGES`.
    bipolar : {'auto', 'on', 'off'}
        Correct the phase of a bipolar readout if the data show one, always, or never.
    echo_numbers : list of int, optional
        Number of each echo in the acquisition, where some were left out: their parity tells the
        direction of a bipolar readout. By default 1, 2, ...
    unwrapping_fallback : bool
        Try the other methods where the fit shows that the unwrapping failed.
    sign : {'auto', '+1', '-1'}
        Sign of the stored phase; ``'auto'`` decides by the field of the head's air.
    b0_dir : tuple of float, optional
        Main field in array axes, where the affine does not tell.
    params : dict of dict, optional
        Keyword arguments by stage: ``'bipolar'``, ``'offset'``, ``'unwrapping'``, ``'field'``.
    mem_gb : float or mapping of str to float
        Memory of each node in GB, or by its step; see :mod:`qsmflow.workflows.memory`.
    n_procs : int
        Threads of each node.
    name : str
        Name of the workflow.

    Inputs
    ------
    magnitude, phase : str
        4-D, echo last; phase in rad.
    first_magnitude : str
        Magnitude of the first echo.
    mask : str
        Brain mask.

    Outputs
    -------
    total_field, field_noise : str
        Field and its standard deviation, in ppm.
    weights, residual : str
        Confidence in the field (0 to 1), relative residual of the fit.
    unwrapped_phase : str
        In rad, echo last.
    phase : str
        Wrapped phase behind the corrections, in rad, echo last; its sign is that of the files.
    phase_offset : str
        Phase at echo time zero, in rad; of one echo, zero.
    sign : dict
        Sign of the phase, how it was decided, and the evidence.
    bipolar, unwrapping : dict
        What was found of a bipolar readout and done about it; which unwrapping was used, and what
        was tried.

    Raises
    ------
    ValueError
        If ``bipolar`` is ``'on'`` and the echoes do not allow it, or there is not a number for
        each echo.
    """
    params = params or {}

    def resources(step: str) -> dict:
        return {'mem_gb': claim(mem_gb, step), 'n_procs': n_procs}

    polarity = _polarity(te, echo_numbers)
    untested = untested_reason(bipolar, te, echo_numbers)
    workflow = Workflow(name=name)
    workflow.tag = 'field_mapping'
    workflow.optional_outputs = ('phase', 'bipolar', 'unwrapping')
    tested = '' if untested else bipolar
    workflow.__desc__ = _sentence(len(te), tested, unwrapping, unwrapping_fallback, field)
    inputnode = identity('inputnode', ['magnitude', 'phase', 'first_magnitude', 'mask'])
    outputs = ['total_field', 'field_noise', 'weights', 'residual', 'unwrapped_phase']
    outputnode = identity(
        'outputnode', [*outputs, 'phase', 'phase_offset', 'sign', 'bipolar', 'unwrapping']
    )
    unwrap = Node(
        PhaseUnwrapping(te=list(te), method=unwrapping, params=params.get('unwrapping', {})),
        name='unwrap',
        **resources('unwrapping'),
    )
    fit = Node(
        FieldFit(
            te=list(te),
            f0=f0,
            method=field,
            params=params.get('field', {}),
            unwrapping=unwrapping,
            unwrapping_params=params.get('unwrapping', {}),
            fallback=unwrapping_fallback,
        ),
        name='fit',
        **resources('field'),
    )
    orient = Node(FieldSign(sign=sign, **given(b0_dir=b0_dir)), name='orient', **resources('sign'))
    workflow.connect([
        (inputnode, unwrap, [('magnitude', 'magnitude'), ('mask', 'mask')]),
        (inputnode, fit, [('magnitude', 'magnitude'), ('mask', 'mask')]),
        (inputnode, orient, [('first_magnitude', 'first_magnitude'), ('mask', 'mask')]),
        (unwrap, fit, [('unwrapped_phase', 'unwrapped_phase')]),
        (fit, orient, [('total_field', 'total_field')]),
        (fit, outputnode, [(key, key) for key in ('field_noise', 'weights', 'residual')]),
        (fit, outputnode, [('unwrapped_phase', 'unwrapped_phase'), ('info', 'unwrapping')]),
        (orient, outputnode, [('total_field', 'total_field'), ('info', 'sign')]),
    ])  # fmt: skip
    source = inputnode
    if untested:
        outputnode.inputs.bipolar = untested_bipolar(bipolar, untested)
    else:
        correct = BipolarCorrection(
            te=list(te), polarity=polarity, mode=bipolar, params=params.get('bipolar', {})
        )
        correct = Node(correct, name='bipolar', **resources('bipolar'))
        source = _add_correction(workflow, source, correct)
        workflow.connect(source, 'info', outputnode, 'bipolar')
    if len(te) > 1:
        remove = PhaseOffsetRemoval(te=list(te), params=params.get('offset', {}))
        remove = Node(remove, name='offset', **resources('offset'))
        source = _add_correction(workflow, source, remove)
    workflow.connect([
        (source if len(te) > 1 else fit, outputnode, [('phase_offset', 'phase_offset')]),
        (source, unwrap, [('phase', 'phase')]),
        (source, fit, [('phase', 'phase')]),
        (source, outputnode, [('phase', 'phase')]),
    ])  # fmt: skip
    return workflow


def _add_correction(workflow: Workflow, source: Node, node: Node) -> Node:
    """Put a correction of the wrapped phase behind ``source``."""
    inputnode = workflow.get_node('inputnode')
    workflow.connect([
        (source, node, [('phase', 'phase')]),
        (inputnode, node, [('magnitude', 'magnitude'), ('mask', 'mask')]),
    ])  # fmt: skip
    return node


def untested_reason(bipolar: str, te: list[float], echo_numbers: list[int] | None = None) -> str:
    """Return why a bipolar readout is not tested for; empty if it is.

    Parameters
    ----------
    bipolar, te, echo_numbers
        As of :func:`init_field_mapping_wf`.

    Raises
    ------
    ValueError
        If it has to be corrected and cannot.

    Examples
    --------
    >>> untested_reason('auto', [0.005, 0.010])
    'this needs three echoes or more; in use: 2'
    """
    if bipolar not in ('auto', 'on', 'off'):
        raise ValueError(f"bipolar must be 'auto', 'on' or 'off'; got {bipolar!r}.")
    if bipolar == 'off':
        return 'switched off'
    reason = bipolar_obstacle(_polarity(te, echo_numbers))
    if reason and bipolar == 'on':
        raise ValueError(
            f"a bipolar readout cannot be corrected as asked for: {reason}. Choose 'auto' or "
            "'off', or use more echoes."
        )
    return reason


def _polarity(te: list[float], echo_numbers: list[int] | None) -> list[int]:
    """Return the direction of the readout of each echo, should it alternate."""
    numbers = range(1, len(te) + 1) if echo_numbers is None else echo_numbers
    if len(numbers) != len(te):
        raise ValueError(f'echo_numbers must name {len(te)} echoes; got {list(numbers)}.')
    return readout_polarity(numbers)


_BIPOLAR_SENTENCES = {
    'auto': (
        'The phase was tested for the difference between odd and even echoes that a bipolar '
        'readout makes, and corrected if one was found [@li2015]. '
    ),
    'on': (
        'The phase by which odd and even echoes differ after a bipolar readout was fitted and '
        'removed [@li2015]. '
    ),
}


def _sentence(n_echoes: int, bipolar: str, unwrapping: str, fallback: bool, field: str) -> str:
    """Describe the field mapping, with citations.

    ``bipolar`` is the mode, or empty where nothing is tested.
    """
    unwrap, fit = STAGES['unwrapping'][unwrapping], STAGES['field'][field]
    offset = (
        'The phase offset was estimated from the first two echoes (MCPC-3D-S) with smoothing '
        'confined to the brain [@eckstein2018]. '
        if n_echoes > 1
        else ''
    )
    echoes = f'the {n_echoes} echoes' if n_echoes > 1 else 'the single echo'
    otherwise = (
        ', or by another method if the fit of the field showed that this had failed'
        if fallback
        else ''
    )
    return (
        f'{_BIPOLAR_SENTENCES.get(bipolar, "")}{offset}Phase was unwrapped by {unwrap.title} '
        f'[{cite(unwrap.citations)}]{otherwise}, and the field was mapped from {echoes} by '
        f'{fit.title} [{cite(fit.citations)}].\n'
    )
