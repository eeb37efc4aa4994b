"""Workflow from wrapped phase to the field map."""

from qsmflow.algorithms.catalog import STAGES
from qsmflow.engine import Node, Workflow, identity
from qsmflow.interfaces.field import FieldFit, FieldSign
from qsmflow.interfaces.phase import PhaseOffsetRemoval, PhaseUnwrapping
from qsmflow.workflows.common import cite, given


def init_field_mapping_wf(
    *,
    te: list[float],
    f0: float,
    unwrapping: str = 'romeo',
    field: str = 'sequential',
    sign: str = 'auto',
    b0_dir: tuple[float, float, float] | None = None,
    params: dict[str, dict] | None = None,
    mem_gb: float = 2.0,
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
    sign : {'auto', '+1', '-1'}
        Sign of the stored phase; ``'auto'`` decides by the field of the head's air.
    b0_dir : tuple of float, optional
        Main field in array axes, where the affine does not tell.
    params : dict of dict, optional
        Keyword arguments by stage: ``'offset'``, ``'unwrapping'``, ``'field'``.
    mem_gb : float
        Memory that a node may need, in GB.
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
    phase_offset : str
        Phase at echo time zero, in rad; of one echo, zero.
    sign : dict
        Sign of the phase, how it was decided, and the evidence.
    """
    params = params or {}
    resources = {'mem_gb': mem_gb, 'n_procs': n_procs}
    workflow = Workflow(name=name)
    workflow.tag = 'field_mapping'
    workflow.__desc__ = _sentence(len(te), unwrapping, field)
    inputnode = identity('inputnode', ['magnitude', 'phase', 'first_magnitude', 'mask'])
    outputs = ['total_field', 'field_noise', 'weights', 'residual', 'unwrapped_phase']
    outputnode = identity('outputnode', [*outputs, 'phase_offset', 'sign'])
    unwrap = Node(
        PhaseUnwrapping(te=list(te), method=unwrapping, params=params.get('unwrapping', {})),
        name='unwrap',
        **resources,
    )
    fit = Node(
        FieldFit(te=list(te), f0=f0, method=field, params=params.get('field', {})),
        name='fit',
        **resources,
    )
    orient = Node(FieldSign(sign=sign, **given(b0_dir=b0_dir)), name='orient', **resources)
    workflow.connect([
        (inputnode, unwrap, [('magnitude', 'magnitude'), ('mask', 'mask')]),
        (inputnode, fit, [('magnitude', 'magnitude'), ('mask', 'mask')]),
        (inputnode, orient, [('first_magnitude', 'first_magnitude'), ('mask', 'mask')]),
        (unwrap, fit, [('unwrapped_phase', 'unwrapped_phase')]),
        (fit, orient, [('total_field', 'total_field')]),
        (unwrap, outputnode, [('unwrapped_phase', 'unwrapped_phase')]),
        (fit, outputnode, [(key, key) for key in ('field_noise', 'weights', 'residual')]),
        (orient, outputnode, [('total_field', 'total_field'), ('info', 'sign')]),
    ])  # fmt: skip
    if len(te) == 1:
        workflow.connect(inputnode, 'phase', unwrap, 'phase')
        workflow.connect(fit, 'phase_offset', outputnode, 'phase_offset')
        return workflow
    offset = Node(
        PhaseOffsetRemoval(te=list(te), params=params.get('offset', {})),
        name='offset',
        **resources,
    )
    workflow.connect([
        (inputnode, offset, [(key, key) for key in ('phase', 'magnitude', 'mask')]),
        (offset, unwrap, [('phase', 'phase')]),
        (offset, outputnode, [('phase_offset', 'phase_offset')]),
    ])  # fmt: skip
    return workflow


def _sentence(n_echoes: int, unwrapping: str, field: str) -> str:
    """Describe the field mapping, with citations."""
    unwrap, fit = STAGES['unwrapping'][unwrapping], STAGES['field'][field]
    offset = (
        'The phase offset was estimated from the first two echoes (MCPC-3D-S) with smoothing '
        'confined to the brain [@eckstein2018]. '
        if n_echoes > 1
        else ''
    )
    echoes = f'the {n_echoes} echoes' if n_echoes > 1 else 'the single echo'
    return (
        f'{offset}Phase was unwrapped by {unwrap.title} [{cite(unwrap.citations)}], and the field '
        f'was mapped from {echoes} by {fit.title} [{cite(fit.citations)}].\n'
    )
