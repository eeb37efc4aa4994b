"""Workflows that place a series in anatomy: T1w image, template, other spaces."""

import os
from collections.abc import Mapping, Sequence

from nipype.interfaces.utility import Merge

from qsmflow import atlas
from qsmflow.bids.derivatives import derivative_path
from qsmflow.bids.names import parse_name
from qsmflow.bids.precomputed import Precomputed
from qsmflow.bids.series import GRESeries, bids_uri
from qsmflow.engine import Node, Workflow, identity
from qsmflow.interfaces.anatomy import (
    ApplyTransforms,
    BrainExtraction,
    RegisterToT1w,
    RegisterToTemplate,
)
from qsmflow.interfaces.checks import CombineChecks
from qsmflow.interfaces.given import BinaryMask, CheckTransforms
from qsmflow.interfaces.reportlets import RegistrationFigure
from qsmflow.workflows.common import given, sink_node
from qsmflow.workflows.outputs import SPACE_OUTPUTS, output_sidecar
from qsmflow.workflows.reportlets import store_figure

#: Memory of a registration at 2 mm, in GB.
REGISTRATION_MEM_GB = 1.5
_TEMPLATE = atlas.TEMPLATE_SPACE


def init_t1w_wf(
    *,
    t1w: str,
    out_dir: str,
    bids_dir: str,
    mask_method: str = 'registration',
    lesion: str | None = None,
    precomputed: Precomputed | None = None,
    entities: Mapping[str, str] | None = None,
    name: str = 't1w_wf',
) -> Workflow:
    """Extract the brain of a T1w image and register it to the template.

    Workflow Graph
        .. workflow::
            :graph2use: orig
            :simple_form: yes

            from qsmflow.workflows import init_t1w_wf
            wf = init_t1w_wf(t1w='sub-01/anat/sub-01_T1w.nii.gz', out_dir='out', bids_dir='.')

    Parameters
    ----------
    t1w : str
        T1w image.
    out_dir : str
        Root of the derivative dataset; mask and transforms are stored there.
    bids_dir : str
        Root of the raw dataset, for the sidecars.
    mask_method : {'registration', 'deepbet'}
        How the brain is found.
    lesion : str, optional
        Mask of a lesion, in the coordinates of the image; the registration leaves it out.
    precomputed : Precomputed, optional
        Mask and transforms of another pipeline, which are used instead of our own.
    entities : mapping of str, optional
        Entities of the outputs; those of the image by default.
    name : str
        Name of the workflow.

    Inputs
    ------
    t1w : str
        The image; set from the start.

    Outputs
    -------
    t1w, mask : str
        The image and its brain mask.
    to_template, from_template : str
        ITK transforms.
    check : dict
        What the check of the registration found.
    """
    workflow = Workflow(name=name)
    workflow.tag = 't1w'
    ready = precomputed or Precomputed()
    workflow.__desc__ = _t1w_sentence(ready, mask_method)
    t1w = os.path.abspath(t1w)
    inputnode = identity('inputnode', ['t1w'], t1w=t1w)
    outputnode = identity('outputnode', ['t1w', 'mask', 'to_template', 'from_template', 'check'])
    if ready.mask:
        extract = Node(BinaryMask(in_file=ready.mask), name='given_mask', mem_gb=1.0)
    else:
        extract = Node(
            BrainExtraction(method=mask_method), name='extract', mem_gb=REGISTRATION_MEM_GB
        )
        workflow.connect(inputnode, 't1w', extract, 'in_file')
    if ready.to_template:
        interface = CheckTransforms(
            forward=ready.to_template, inverse=ready.from_template, source=ready.pipeline
        )
        register = Node(interface, name='given_transforms', mem_gb=REGISTRATION_MEM_GB)
    else:
        interface = RegisterToTemplate(source='T1w', **given(lesion=lesion))
        register = Node(interface, name='register', mem_gb=REGISTRATION_MEM_GB)
    workflow.connect([
        (inputnode, register, [('t1w', 'in_file')]),
        (inputnode, outputnode, [('t1w', 't1w')]),
        (extract, register, [('brain_mask', 'in_mask')]),
        (extract, outputnode, [('brain_mask', 'mask')]),
        (register, outputnode, [
            ('forward', 'to_template'),
            ('inverse', 'from_template'),
            ('check', 'check'),
        ]),
    ])  # fmt: skip
    entities = dict(entities or parse_name(t1w.rpartition('/')[2])[0])
    # What another pipeline made stays with it; sidecars say where.
    if not ready.mask:
        source = ready.t1w_uri or bids_uri(t1w, bids_dir)
        ds_mask = sink_node(
            'ds_mask',
            out_dir=out_dir,
            path=derivative_path(entities, suffix='mask', space='T1w', desc='brain'),
            kind='mask',
            metadata={
                'Description': 'Brain mask of the T1w image, on its grid',
                'Type': 'Brain',
                'Sources': [source],
                'SpatialReference': source,
            },
        )
        workflow.connect(extract, 'brain_mask', ds_mask, 'in_file')
    if not ready.to_template:
        _store_transforms(workflow, register, entities, out_dir, 'T1w', _TEMPLATE, '.h5')
    return workflow


def _t1w_sentence(ready: Precomputed, mask_method: str) -> str:
    """Say where image, mask and transforms come from."""
    first = 'its brain mask' if ready.t1w else 'the brain mask of the T1w image'
    parts = {
        'the T1w image': ready.t1w,
        first: ready.mask,
        f'its registration to {_TEMPLATE}': ready.to_template,
    }
    names = [name for name, it in parts.items() if it]
    text = ''
    if names:
        listed = ' and '.join(part for part in (', '.join(names[:-1]), names[-1]) if part)
        verb = 'was' if len(names) == 1 else 'were'
        text = f'{listed[0].upper()}{listed[1:]} {verb} taken from {ready.pipeline}. '
    if not ready.mask:
        text += (
            'The brain in the T1w image was found by registration to the full-head template.'
            if mask_method == 'registration'
            else 'The brain in the T1w image was found with the deepbet network [@fisch2024].'
        )
    return f'{text.strip()}\n'


def _store_transforms(workflow, register, source, out_dir, here, there, extension) -> None:
    """Store both directions of a registration as ITK files."""
    for field, start, end in (('forward', here, there), ('inverse', there, here)):
        path = derivative_path(source, suffix='xfm', extension=extension, from_=start, to=end)
        sink = sink_node(f'ds_{field}', out_dir=out_dir, path=path, kind='file')
        workflow.connect(register, field, sink, 'in_file')


def init_anatomy_wf(
    *, series: GRESeries, out_dir: str, has_t1w: bool, name: str = 'anatomy_wf'
) -> Workflow:
    """Register a series to the template, through the subject's T1w image if there is one.

    Workflow Graph
        Without a T1w image one registration, with it the rigid step alone: the other is made once
        by :func:`init_t1w_wf`.

    Parameters
    ----------
    series : GRESeries
        Gives the names.
    out_dir : str
        Root of the derivative dataset.
    has_t1w : bool
        Whether the ``t1w`` inputs are connected.
    name : str
        Name of the workflow.

    Inputs
    ------
    first_magnitude, mask : str
        Image to register and its brain mask.
    t1w, t1w_mask, t1w_to_template, t1w_from_template : str
        Of :func:`init_t1w_wf`.
    t1w_check : dict
        Likewise; these five are used with ``has_t1w``.

    Outputs
    -------
    to_template, from_template, to_t1w, from_t1w : list of str
        ITK transforms in ANTs' order; the last two are not set without a T1w image.
    t1w : str
        As given.
    check, t1w_check : dict
        Passed only if all steps passed; and of the step to the T1w image alone.
    """
    workflow = Workflow(name=name)
    workflow.tag = 'anatomy'
    t1w_fields = ('t1w', 't1w_mask', 't1w_to_template', 't1w_from_template', 't1w_check')
    inputnode = identity('inputnode', ['first_magnitude', 'mask', *t1w_fields])
    outputs = ['to_template', 'from_template', 'to_t1w', 'from_t1w', 't1w', 'check', 't1w_check']
    outputnode = identity('outputnode', outputs)
    target = 'T1w' if has_t1w else _TEMPLATE
    masked = given(lesion=None if has_t1w else series.lesion)
    interface = RegisterToT1w() if has_t1w else RegisterToTemplate(source='GRE', **masked)
    register = Node(interface, name='register', mem_gb=REGISTRATION_MEM_GB)
    chains = {key: Node(Merge(2 if has_t1w else 1), name=key) for key in _CHAINS}
    checks = Node(CombineChecks(), name='checks')
    workflow.connect([
        (inputnode, register, [('first_magnitude', 'in_file'), ('mask', 'in_mask')]),
        (register, checks, [('check', 'first')]),
        (checks, outputnode, [('check', 'check')]),
        *((node, outputnode, [('out', key)]) for key, node in chains.items()),
    ])  # fmt: skip
    if has_t1w:
        # ANTs applies the last transform of a list first.
        workflow.connect([
            (inputnode, register, [('t1w', 't1w'), ('t1w_mask', 't1w_mask')]),
            (inputnode, chains['to_template'], [('t1w_to_template', 'in1')]),
            (register, chains['to_template'], [('forward', 'in2')]),
            (register, chains['from_template'], [('inverse', 'in1')]),
            (inputnode, chains['from_template'], [('t1w_from_template', 'in2')]),
            (inputnode, checks, [('t1w_check', 'second')]),
            (inputnode, outputnode, [('t1w', 't1w')]),
            (register, outputnode, [
                ('forward', 'to_t1w'),
                ('inverse', 'from_t1w'),
                ('check', 't1w_check'),
            ]),
        ])  # fmt: skip
        ready = series.precomputed is not None and series.precomputed.to_template
        workflow.__desc__ = (
            'The magnitude was registered rigidly to the T1w image with ANTs [@avants2011].\n'
            if ready
            else 'The magnitude was registered rigidly to the T1w image, and that to '
            'MNI152NLin2009cAsym with ANTs (rigid, affine, SyN) [@avants2011; @fonov2011].\n'
        )
    else:
        workflow.connect(register, 'forward', chains['to_template'], 'in1')
        workflow.connect(register, 'inverse', chains['from_template'], 'in1')
        workflow.__desc__ = (
            'The magnitude was registered to MNI152NLin2009cAsym with ANTs (rigid, affine, SyN) '
            '[@avants2011; @fonov2011].\n'
        )
    extension = '.txt' if has_t1w else '.h5'
    _store_transforms(workflow, register, series, out_dir, 'GRE', target, extension)
    _draw_check(workflow, inputnode, register, series, out_dir)
    return workflow


_CHAINS = ('to_template', 'from_template')


def _draw_check(workflow, inputnode, register, series, out_dir) -> None:
    """Draw the registered target over the magnitude."""
    draw = Node(RegistrationFigure(), name='registration_rpt')
    workflow.connect([
        (inputnode, draw, [('first_magnitude', 'fixed'), ('mask', 'mask')]),
        (register, draw, [
            ('target_in_native', 'moving'),
            ('target_mask_in_native', 'moving_mask'),
        ]),
    ])  # fmt: skip
    store_figure(workflow, draw, series, out_dir, 'registration')


def init_spaces_wf(
    *,
    spaces: Sequence[str],
    series: GRESeries,
    out_dir: str,
    methods: dict[str, dict],
    fields: Sequence[str],
    name: str = 'spaces_wf',
) -> Workflow:
    """Bring the maps of a series to other spaces and store them.

    Workflow Graph
        One resampling and one sink for each map and space; each interpolates once.

    Parameters
    ----------
    spaces : sequence of {'T1w', 'MNI152NLin2009cAsym'}
        Where to.
    series : GRESeries
        Gives names and acquisition fields.
    out_dir : str
        Root of the derivative dataset.
    methods : dict of dict
        Stage -> ``{'Method': name, 'Parameters': {...}}``, for the sidecars.
    fields : sequence of str
        Which maps there are.
    name : str
        Name of the workflow.

    Inputs
    ------
    chimap, r2star, t2star : str
        Maps on the grid of the series, those of ``fields``.
    to_template, to_t1w : list of str
        ITK transforms, each for its space.
    t1w : str
        Image that gives the grid of ``T1w``.
    """
    workflow = Workflow(name=name)
    own = [output for output in SPACE_OUTPUTS if output.field in fields]
    inputnode = identity('inputnode', [*(o.field for o in own), 'to_template', 'to_t1w', 't1w'])
    for space in spaces:
        for output in own:
            label = f'{output.field}_{space}'
            move = Node(ApplyTransforms(interpolation='linear'), name=label, mem_gb=1.0)
            workflow.connect(inputnode, output.field, move, 'in_file')
            if space == 'T1w':
                workflow.connect(
                    [(inputnode, move, [('t1w', 'reference'), ('to_t1w', 'transforms')])]
                )
                placed = {'space': 'T1w', 'spatial_reference': series.t1w_uri}
            else:
                move.inputs.reference = str(atlas.template('T1w_brain_res-1'))
                workflow.connect(inputnode, 'to_template', move, 'transforms')
                placed = {'space': space, 'resolution': '1 mm isotropic'}
                if series.precomputed is not None and series.precomputed.transform_uris:
                    used = series.precomputed.transform_uris
                    placed['sources'] = [*series.sources, *used]
            sink = sink_node(
                f'ds_{label}',
                out_dir=out_dir,
                path=derivative_path(
                    series,
                    suffix=output.suffix,
                    space=space,
                    res=None if space == 'T1w' else '1',
                ),
                metadata=output_sidecar(output, series, methods, **placed),
            )
            workflow.connect(move, 'out_file', sink, 'in_file')
    return workflow
