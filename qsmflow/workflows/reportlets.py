"""Figures of a series for the report."""

from qsmflow.bids.derivatives import derivative_path
from qsmflow.bids.series import GRESeries
from qsmflow.engine import Node, Workflow, identity
from qsmflow.interfaces.bids import MergeFields
from qsmflow.interfaces.reportlets import FieldFigure, MagnitudeMaskFigure, MapFigure
from qsmflow.workflows.common import sink_node

#: Phase is drawn of the echo nearest to 17.5 ms at 3 T, in T s: earlier ones have little contrast.
PHASE_TE = 0.0175 * 3.0


def phase_figure(series: GRESeries) -> MapFigure:
    """Return the figure of the wrapped phase, of an echo that shows the brain.

    Parameters
    ----------
    series : GRESeries
        Gives echo times and field strength.
    """
    wanted = PHASE_TE / series.field_strength
    echo = min(range(len(series.te)), key=lambda number: abs(series.te[number] - wanted))
    caption = f'Echo {series.echo_numbers[echo]}, TE = {1e3 * series.te[echo]:.3g} ms.'
    return MapFigure(kind='phase', echo=echo, caption=caption)


#: ``desc`` of each figure -> interface, and which edges feed its image and its mask.
FIGURES = {
    'magnitude': (lambda _: MagnitudeMaskFigure(), 'magnitude', 'mask'),
    'phase': (phase_figure, 'phase', None),
    'total': (lambda _: FieldFigure(kind='total_field'), 'total_field', 'mask'),
    'local': (lambda _: FieldFigure(kind='local_field'), 'local_field', 'qsm_mask'),
    'chi': (lambda _: MapFigure(kind='chi'), 'chimap', 'qsm_mask'),
    'r2star': (lambda _: MapFigure(kind='r2star'), 'r2star', 'mask'),
}
#: Parts of the summary that are known only when the run is under way.
FACTS = (
    *('mask', 'reference', 'registration', 'preparation', 'sign', 'bipolar', 'unwrapping'),
    *('dentate', 'refinement', 'coverage'),
    *('regularisation', 'background_convergence', 'inversion_convergence'),
)


def init_reportlets_wf(
    *,
    series: GRESeries,
    out_dir: str,
    summary: dict,
    fields: tuple[str, ...],
    name: str = 'reportlets_wf',
) -> Workflow:
    """Draw the figures of a series and store what its report says.

    Workflow Graph
        One figure and two sinks for each map; there is nothing to draw.

    Parameters
    ----------
    series : GRESeries
        Gives the names.
    out_dir : str
        Root of the derivative dataset.
    summary : dict
        What is known before the run; see :mod:`qsmflow.report`.
    fields : tuple of str
        Which maps there are.
    name : str
        Name of the workflow.

    Inputs
    ------
    magnitude, phase, mask, qsm_mask, total_field, local_field, chimap, r2star : str
        What is drawn, as far as ``fields`` has it.
    mask_facts, reference_facts, registration_facts, preparation_facts, sign_facts : dict
        As the names say, for the summary.
    bipolar_facts, unwrapping_facts, dentate_facts, refinement_facts, coverage_facts : dict
        Dictionaries for the summary.
    regularisation_facts, background_convergence_facts, inversion_convergence_facts : dict
        Likewise.
    """
    workflow = Workflow(name=name)
    sources = dict.fromkeys(key for _, *edges in FIGURES.values() for key in edges if key)
    inputnode = identity('inputnode', [*sources, *(f'{fact}_facts' for fact in FACTS)])
    for desc, (interface, image, mask) in FIGURES.items():
        if image not in fields:
            continue
        draw = Node(interface(series), name=f'{desc}_rpt')
        workflow.connect(inputnode, image, draw, 'in_file')
        if mask:
            workflow.connect(inputnode, mask, draw, 'mask')
        store_figure(workflow, draw, series, out_dir, desc)
    merge = Node(MergeFields(fields=list(FACTS), static=summary, lift='warnings'), name='summary')
    workflow.connect([(inputnode, merge, [(f'{fact}_facts', fact) for fact in FACTS])])
    path = derivative_path(
        series, suffix='report', desc='summary', extension='.json', kind='figure'
    )
    sink = sink_node('ds_summary', out_dir=out_dir, path=path, kind='file')
    workflow.connect(merge, 'out_file', sink, 'in_file')
    return workflow


def store_figure(
    workflow: Workflow,
    draw: Node,
    series: GRESeries,
    out_dir: str,
    desc: str,
    suffix: str = 'figure',
    **entities: str,
) -> None:
    """Add the sinks of a figure and of its caption to a workflow."""
    for field, extension in (('out_file', '.png'), ('out_json', '.json')):
        path = derivative_path(
            series, suffix=suffix, desc=desc, extension=extension, kind='figure', **entities
        )
        name = f'ds_{desc}_{"_".join(entities.values())}{extension[1:]}'
        sink = sink_node(name, out_dir=out_dir, path=path, kind='file')
        workflow.connect(draw, field, sink, 'in_file')
