"""What is stored of a series: names, sidecars and sinks."""

from dataclasses import asdict, dataclass

from qsmflow.bids.derivatives import derivative_path, sidecar
from qsmflow.bids.series import GRESeries
from qsmflow.engine import Node, Workflow, identity
from qsmflow.interfaces.bids import MergeFields
from qsmflow.workflows.common import sink_node


@dataclass(frozen=True)
class Output:
    """An image that is stored for each series.

    Attributes
    ----------
    field : str
        Name of the edge that brings it.
    suffix, desc : str
        BIDS suffix, and the ``desc`` entity.
    kind : {'map', 'mask', 'label'}
        What its values are.
    description : str
        For the sidecar.
    stages : tuple of str
        Stages whose method the sidecar names, the last one first.
    minimal : bool
        Whether it is stored at level ``'minimal'`` too.
    in_hz : bool
        Whether it is converted from ppm to Hz.
    """

    field: str
    suffix: str
    description: str
    desc: str | None = None
    kind: str = 'map'
    stages: tuple[str, ...] = ()
    minimal: bool = True
    in_hz: bool = False


_TO_FIELD = ('field', 'unwrapping')
OUTPUTS = (
    Output(
        'chimap',
        'Chimap',
        'Magnetic susceptibility relative to the reference region',
        stages=('inversion', 'strategy', 'background', *_TO_FIELD),
    ),
    Output('r2star', 'R2starmap', 'Effective transverse relaxation rate', stages=('relaxometry',)),
    Output('t2star', 'T2starmap', 'Effective transverse relaxation time', stages=('relaxometry',)),
    Output('s0', 'S0map', 'Signal at echo time zero', stages=('relaxometry',)),
    Output('mask', 'mask', 'Brain mask', desc='brain', kind='mask'),
    Output('qsm_mask', 'mask', 'Where the susceptibility is valid', desc='qsm', kind='mask'),
    Output(
        'total_field',
        'fieldmap',
        'Field of all sources',
        desc='total',
        stages=_TO_FIELD,
        minimal=False,
        in_hz=True,
    ),
    Output(
        'local_field',
        'fieldmap',
        'Field of the sources inside the mask',
        desc='local',
        stages=('background', *_TO_FIELD),
        minimal=False,
        in_hz=True,
    ),
    Output(
        'field_noise',
        'fieldmap',
        'Standard deviation of the field',
        desc='noise',
        stages=_TO_FIELD,
        minimal=False,
        in_hz=True,
    ),
)
#: Maps that are brought to other spaces on request.
SPACE_OUTPUTS = tuple(
    output for output in OUTPUTS if output.field in ('chimap', 'r2star', 't2star')
)
#: Values known only when the run is under way, by their key in the sidecar of the susceptibility.
DETAILS = (
    *('Reference', 'PhaseSign', 'Preparation', 'Mask', 'BipolarCorrection', 'Unwrapping'),
    *('Regularisation', 'BackgroundFieldRemoval', 'DipoleInversion'),
)
#: Those of them that the sidecars of the field maps have too, and that of the local field.
FIELD_DETAILS = ('BipolarCorrection', 'Unwrapping')
LOCAL_DETAILS = (*FIELD_DETAILS, 'BackgroundFieldRemoval')
#: Edges that bring the details, in their order.
FACTS = (
    *('reference', 'sign', 'preparation_info', 'mask_info', 'bipolar', 'unwrapping'),
    *('inversion', 'background_convergence', 'inversion_convergence'),
)


def init_outputs_wf(
    *,
    series: GRESeries,
    out_dir: str,
    methods: dict[str, dict],
    fields: tuple[str, ...],
    level: str = 'full',
    name: str = 'outputs_wf',
) -> Workflow:
    """Store the maps of a series in its own space.

    Workflow Graph
        One sink for each map; there is nothing to draw.

    Parameters
    ----------
    series : GRESeries
        Gives names and acquisition fields.
    out_dir : str
        Root of the derivative dataset.
    methods : dict of dict
        Stage -> ``{'Method': name, 'Parameters': {...}}``, for the sidecars.
    fields : tuple of str
        Which maps there are; the others are not stored.
    level : {'full', 'minimal'}
        Whether field maps are stored.
    name : str
        Name of the workflow.

    Inputs
    ------
    chimap, r2star, t2star, s0, mask, qsm_mask, total_field, local_field, field_noise : str
        Maps, in the package's units; those of ``fields`` that ``level`` keeps are stored.
    reference, sign, preparation_info, mask_info, bipolar, unwrapping, inversion : dict
        What was decided on the way.
    background_convergence, inversion_convergence : dict
        How the iterations ended.
    """
    workflow = Workflow(name=name)
    edges = dict(zip(DETAILS, FACTS, strict=True))
    inputnode = identity('inputnode', [*(output.field for output in OUTPUTS), *FACTS])
    chosen = {'details': DETAILS}
    if level == 'full':
        chosen |= {'field_details': FIELD_DETAILS, 'local_details': LOCAL_DETAILS}
    details = {}
    for name, keys in chosen.items():
        merge = MergeFields(fields=list(keys), lift='Warnings')
        details[name] = Node(merge, name=name)
        workflow.connect([(inputnode, details[name], [(edges[key], key) for key in keys])])
    for output in OUTPUTS:
        if output.field not in fields or not (output.minimal or level == 'full'):
            continue
        sink = _sink(output, series, out_dir, methods)
        workflow.connect(inputnode, output.field, sink, 'in_file')
        if output.field == 'chimap':
            workflow.connect(details['details'], 'out', sink, 'details')
        elif output.suffix == 'fieldmap':
            own = 'local_details' if output.field == 'local_field' else 'field_details'
            workflow.connect(details[own], 'out', sink, 'details')
    return workflow


def _sink(output: Output, series: GRESeries, out_dir: str, methods: dict) -> Node:
    return sink_node(
        f'ds_{output.field}',
        out_dir=out_dir,
        path=derivative_path(series, suffix=output.suffix, desc=output.desc),
        kind=output.kind,
        scale=series.f0 if output.in_hz else 1.0,
        metadata=output_sidecar(output, series, methods),
    )


def output_sidecar(output: Output, series: GRESeries, methods: dict, **fields) -> dict:
    """Return the sidecar of a stored map.

    Parameters
    ----------
    output : Output
        The map.
    series : GRESeries
        The series it comes from.
    methods : dict of dict
        Stage -> ``{'Method': name, 'Parameters': {...}}``.
    **fields
        Further arguments of :func:`qsmflow.bids.derivatives.sidecar`.
    """
    own = {_STAGE_KEYS[stage]: methods[stage] for stage in output.stages if stage in methods}
    if output.kind == 'mask':
        fields['Type'] = 'Brain' if output.desc == 'brain' else 'ROI'
        fields.setdefault('spatial_reference', series.sources[0])
    if output.field == 'chimap':
        own['PhaseScaling'] = asdict(series.scaling) if series.scaling else {'rule': 'complex'}
        own['B0Direction'] = list(series.b0_dir)
        own['EchoesUsed'] = list(series.echo_numbers)
    if output.stages and output.stages[0] in methods:
        fields['EstimationAlgorithm'] = methods[output.stages[0]]['Method']
    findings = [item.as_dict() for item in series.findings if item.level in ('FIX', 'WARN')]
    return sidecar(
        series,
        suffix=output.suffix,
        description=output.description,
        Warnings=findings or None,
        **own,
        **fields,
    )


_STAGE_KEYS = {
    'unwrapping': 'PhaseUnwrapping',
    'field': 'FieldFit',
    'background': 'BackgroundFieldRemoval',
    'inversion': 'DipoleInversion',
    'strategy': 'InversionStrategy',
    'relaxometry': 'Relaxometry',
}
