"""Workflows that combine several orientations of a head."""

import inspect
from collections.abc import Sequence

from nipype.interfaces.utility import Merge

from qsmflow.algorithms.cosmos import cosmos
from qsmflow.bids.derivatives import derivative_path
from qsmflow.bids.orientations import MIN_ORIENTATIONS, Orientations
from qsmflow.bids.series import bids_uri
from qsmflow.engine import Node, Workflow, identity
from qsmflow.interfaces.bids import MergeFields
from qsmflow.interfaces.cosmos import CosmosInversion, RegisterOrientation
from qsmflow.interfaces.susceptibility import SusceptibilityReference
from qsmflow.workflows.anatomy import REGISTRATION_MEM_GB
from qsmflow.workflows.common import given, sink_node
from qsmflow.workflows.outputs import Output, output_sidecar
from qsmflow.workflows.susceptibility import REFERENCE_SENTENCES

#: Fields of the inputnode that take a list, and the outputs of a reconstruction that fill them.
LISTS = {
    'magnitudes': 'first_magnitude',
    'brain_masks': 'mask',
    'local_fields': 'local_field',
    'masks': 'qsm_mask',
    'weights': 'weights',
}
_CHIMAP = Output(
    'chimap',
    'Chimap',
    'Magnetic susceptibility from several orientations of the head (COSMOS), relative to the '
    'reference region',
    desc='cosmos',
    stages=('inversion', 'background', 'field', 'unwrapping'),
)
_MASK = Output('mask', 'mask', 'Where all orientations are valid', desc='cosmos', kind='mask')
#: Values known only when the run is under way, by their key in the sidecar.
_DETAILS = {'Orientations': 'info', 'Warnings': 'warnings', 'Reference': 'reference'}


def init_cosmos_wf(
    *,
    n: int = 3,
    reference: str = 'wholebrain',
    params: dict | None = None,
    interpolation: str = 'linear',
    b0_dir: tuple[float, float, float] | None = None,
    mem_gb: float = 2.0,
    n_procs: int = 1,
    name: str = 'cosmos_wf',
) -> Workflow:
    """Estimate susceptibility from the local fields of several orientations of a head (COSMOS).

    The magnitude of each orientation is registered rigidly to that of the first, on whose grid
    the result lies.

    Workflow Graph
        .. workflow::
            :graph2use: orig
            :simple_form: yes

            from qsmflow.workflows import init_cosmos_wf
            wf = init_cosmos_wf(n=3)

    Parameters
    ----------
    n : int
        Number of orientations, three or more.
    reference : {'wholebrain', 'csf', 'none'}
        The region whose mean becomes zero.
    params : dict, optional
        Keyword arguments of :func:`qsmflow.algorithms.cosmos.cosmos`.
    interpolation : {'linear', 'cubic'}
        How the fields are brought to the grid of the first. Cubic keeps more of the detail, and
        of the noise.
    b0_dir : tuple of float, optional
        Main field in the array axes of every orientation, where the affines do not tell.
    mem_gb : float
        Memory that the inversion may need, in GB.
    n_procs : int
        Threads of the inversion.
    name : str
        Name of the workflow.

    Inputs
    ------
    magnitudes, brain_masks : list of str
        First echo and brain mask of each orientation.
    local_fields, masks, weights : list of str
        Field (ppm), where it is valid, confidence (0 to 1) of each orientation.
    r2star : str
        R2* (1/s) of the first; needed only for the CSF reference.

    Outputs
    -------
    chimap, mask : str
        Susceptibility, in ppm, relative to the reference, and where it is valid.
    info : dict
        Conditioning, directions of the main field, angles between the orientations.
    warnings : list of dict
        Findings that need a look: a poor geometry, a registration that failed its check. Not set
        if there is none.
    reference : dict
        Region, mean, SD and size of the reference.

    Raises
    ------
    ValueError
        If there are fewer than three orientations.
    """
    if n < MIN_ORIENTATIONS:
        raise ValueError(f'COSMOS needs {MIN_ORIENTATIONS} orientations or more; got n={n}.')
    workflow = Workflow(name=name)
    workflow.tag = 'cosmos'
    workflow.__desc__ = (
        f'The magnitudes of {n} orientations of the head were registered rigidly to the first '
        'with ANTs [@avants2011], and susceptibility was computed from their local fields '
        'together (COSMOS) [@liu2009].\n'
    )
    workflow.__postdesc__ = REFERENCE_SENTENCES[reference]
    inputnode = identity('inputnode', [*LISTS, 'r2star'])
    outputnode = identity('outputnode', ['chimap', 'mask', 'info', 'warnings', 'reference'])
    transforms, checks = (Node(Merge(n - 1), name=key) for key in ('transforms', 'checks'))
    b0_dirs = None if b0_dir is None else [b0_dir] * n
    combine = Node(
        CosmosInversion(
            params=params or {}, interpolation=interpolation, **given(b0_dirs=b0_dirs)
        ),
        name='combine',
        mem_gb=mem_gb,
        n_procs=n_procs,
    )
    refer = Node(SusceptibilityReference(region=reference), name='refer', mem_gb=mem_gb)
    for number in range(1, n):
        register = Node(
            RegisterOrientation(number=number),
            name=f'register_{number + 1}',
            mem_gb=REGISTRATION_MEM_GB,
        )
        workflow.connect([
            (inputnode, register, [('magnitudes', 'magnitudes'), ('brain_masks', 'masks')]),
            (register, transforms, [('transform', f'in{number}')]),
            (register, checks, [('check', f'in{number}')]),
        ])  # fmt: skip
    workflow.connect([
        (inputnode, combine, [
            ('local_fields', 'fields'), ('masks', 'masks'), ('weights', 'weights'),
        ]),
        (transforms, combine, [('out', 'transforms')]),
        (checks, combine, [('out', 'checks')]),
        (combine, refer, [('chimap', 'chimap'), ('mask', 'mask')]),
        (combine, outputnode, [(key, key) for key in ('mask', 'info', 'warnings')]),
        (refer, outputnode, [('chimap', 'chimap'), ('reference', 'reference')]),
    ])  # fmt: skip
    if reference == 'csf':
        workflow.connect(inputnode, 'r2star', refer, 'r2star')
    return workflow


def add_cosmos(
    workflow: Workflow,
    group: Orientations,
    series_wfs: Sequence[Workflow],
    *,
    out_dir: str,
    methods: dict[str, dict],
    has_r2star: bool,
    name: str,
    **options,
) -> None:
    """Combine the reconstructions of several series of a subject, and store the result.

    Parameters
    ----------
    workflow : Workflow
        Graph of the subject; the new part is added to it.
    group : Orientations
        Series that are combined.
    series_wfs : sequence of Workflow
        Workflow of each series, of :func:`qsmflow.workflows.init_series_wf`.
    out_dir : str
        Root of the derivative dataset.
    methods : dict of dict
        Stage -> ``{'Method': name, 'Parameters': {...}}``, for the sidecar.
    has_r2star : bool
        Whether there is an R2* map of the first series.
    name : str
        Name of the part.
    **options
        Further arguments of :func:`init_cosmos_wf`.
    """
    part = Workflow(name=name)
    cosmos_wf = init_cosmos_wf(n=len(group.series), **options)
    for key, field in LISTS.items():
        gather = Node(Merge(len(series_wfs)), name=f'gather_{key}')
        part.connect(gather, 'out', cosmos_wf, f'inputnode.{key}')
        for number, series_wf in enumerate(series_wfs, 1):
            source = f'reconstruction_wf.outputnode.{field}'
            workflow.connect(series_wf, source, part, f'gather_{key}.in{number}')
    if has_r2star:
        source = 'reconstruction_wf.outputnode.r2star'
        workflow.connect(series_wfs[0], source, part, 'cosmos_wf.inputnode.r2star')
    details = Node(MergeFields(fields=list(_DETAILS), lift='Warnings'), name='details')
    links = [(f'outputnode.{field}', key) for key, field in _DETAILS.items()]
    part.connect([(cosmos_wf, details, links)])
    for output in (_CHIMAP, _MASK):
        sink = sink_node(
            f'ds_{output.field}',
            out_dir=out_dir,
            path=derivative_path(group.entities, suffix=output.suffix, desc=output.desc),
            kind=output.kind,
            metadata=_sidecar(output, group, methods, options),
        )
        part.connect(cosmos_wf, f'outputnode.{output.field}', sink, 'in_file')
        if output is _CHIMAP:
            part.connect(details, 'out', sink, 'details')


def _parameters(options: dict) -> dict:
    """Return what may be set of COSMOS, defaults included."""
    known = inspect.signature(cosmos).parameters
    return {
        **{name: known[name].default for name in ('pad', 'max_iter', 'tol')},
        'interpolation': options.get('interpolation', 'linear'),
        **(options.get('params') or {}),
    }


def _sidecar(output: Output, group: Orientations, methods: dict[str, dict], options: dict) -> dict:
    """Return what the sidecars of all series have in common, with the sources of all."""
    first = group.series[0]
    own = {**methods, 'inversion': {'Method': 'cosmos', 'Parameters': _parameters(options)}}
    sidecars = [
        output_sidecar(
            output,
            series,
            own,
            sources=[uri for item in group.series for uri in item.sources],
            spatial_reference=bids_uri((first.magnitude or first.real)[0], first.bids_dir),
        )
        for series in group.series
    ]
    # Directions, and what was found in each series, differ by their nature.
    left_out = ('B0Direction', 'Warnings')
    return {
        key: value
        for key, value in sidecars[0].items()
        if key not in left_out and all(other.get(key) == value for other in sidecars)
    }
