"""The graph of a run: subjects, their T1w images, their series."""

import importlib.metadata
import logging
import math
import re
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np

from qsmflow import __version__, io
from qsmflow.algorithms import method_parameters
from qsmflow.algorithms.catalog import STAGES, TAKEN
from qsmflow.bids.orientations import orientation_finding, orientation_groups
from qsmflow.bids.series import GRESeries
from qsmflow.engine import Workflow
from qsmflow.interfaces.anatomy import BrainExtraction, RegisterToT1w, RegisterToTemplate
from qsmflow.settings import ReconstructionSettings, Settings
from qsmflow.workflows.anatomy import init_anatomy_wf, init_spaces_wf, init_t1w_wf
from qsmflow.workflows.common import t1w_entities
from qsmflow.workflows.contrasts import usable_relaxometry
from qsmflow.workflows.cosmos import add_cosmos
from qsmflow.workflows.field import untested_reason
from qsmflow.workflows.memory import step_memory
from qsmflow.workflows.outputs import FACTS, OUTPUTS, init_outputs_wf
from qsmflow.workflows.reconstruction import init_reconstruction_wf
from qsmflow.workflows.regions import init_regions_wf
from qsmflow.workflows.reportlets import init_reportlets_wf

#: Working voxel of registrations with ``--sloppy``, in mm.
SLOPPY_RESOLUTION = 4.0
#: Packages whose versions the report names.
PACKAGES = ('antspyx', 'nibabel', 'nipype', 'numba', 'numpy', 'pybids', 'scipy')
_LOGGER = logging.getLogger('qsmflow.workflows')


def init_qsmflow_wf(
    *,
    series: Sequence[GRESeries],
    settings: Settings,
    out_dir: str,
    name: str = 'qsmflow_wf',
) -> Workflow:
    """Build the graph for all series of a run.

    Parameters
    ----------
    series : sequence of GRESeries
        Checked series, of any number of subjects.
    settings : Settings
        Settings of the run; this builder and the ones of this module alone unpack them.
    out_dir : str
        Root of the derivative dataset.
    name : str
        Name of the workflow.

    Returns
    -------
    Workflow
        One workflow for each subject.
    """
    workflow = Workflow(name=name)
    workflow.__desc__ = opening(settings)
    for subject in dict.fromkeys(item.subject for item in series):
        own = [item for item in series if item.subject == subject]
        workflow.add_nodes([init_subject_wf(series=own, settings=settings, out_dir=out_dir)])
    if settings.execution.sloppy:
        coarsen(workflow)
    return workflow


def opening(settings: Settings) -> str:
    r"""Return the first sentence of the methods text: what program ran, and with which preset.

    Examples
    --------
    >>> from qsmflow.settings import ReconstructionSettings
    >>> opening(Settings(reconstruction=ReconstructionSettings(preset='fast')))
    'Images were processed with qsmflow ... (preset fast).\n'
    """
    preset = settings.reconstruction.preset
    chosen = '' if preset == ReconstructionSettings.preset else f' (preset {preset})'
    return f'Images were processed with qsmflow {__version__}{chosen}.\n'


def coarsen(workflow: Workflow) -> None:
    """Make the registrations of a workflow coarse, to save time in trials."""
    for name in workflow.list_node_names():
        node = workflow.get_node(name)
        if isinstance(node.interface, BrainExtraction | RegisterToT1w | RegisterToTemplate):
            node.inputs.resolution = SLOPPY_RESOLUTION


def seed_registrations(workflow: Workflow, seed: int) -> None:
    """Give every registration of a workflow the seed of what it draws.

    It is an input of the node, so that another seed repeats what another one gave.
    """
    for name in workflow.list_node_names():
        inputs = workflow.get_node(name).inputs
        if 'seed' in inputs.copyable_trait_names():
            inputs.seed = seed


def init_subject_wf(*, series: Sequence[GRESeries], settings: Settings, out_dir: str) -> Workflow:
    """Build the graph for the series of one subject; series share what is made of a T1w image.

    Parameters
    ----------
    series : sequence of GRESeries
        Series of one subject.
    settings : Settings
        Settings of the run.
    out_dir : str
        Root of the derivative dataset.

    Returns
    -------
    Workflow
        Its name holds the subject's label.
    """
    workflow = Workflow(name=subject_workflow_name(series[0].subject))
    workflow.__desc__ = opening(settings)
    use_t1w = bool(settings.outputs.atlas or settings.outputs.output_spaces)
    usable = [item for item in series if item.t1w and use_t1w and item.has_phase]
    first = {item.t1w: item for item in reversed(usable)}
    t1w_wfs = {
        path: init_t1w_wf(
            t1w=path,
            mask_method=settings.reconstruction.mask_method,
            out_dir=out_dir,
            bids_dir=settings.bids.bids_dir,
            lesion=next((s.lesion for s in series if s.t1w == path and s.lesion), None),
            precomputed=item.precomputed,
            entities=t1w_entities(item),
            name=f't1w_{number}_wf',
        )
        for number, (path, item) in enumerate(reversed(first.items()))
    }
    series_wfs = {}
    for item in series:
        series_wf = init_series_wf(series=item, settings=settings, out_dir=out_dir)
        series_wfs[item.name] = series_wf
        workflow.add_nodes([series_wf])
        if item.t1w in t1w_wfs and item.has_magnitude and item.has_phase:
            fields = ('mask', 'to_template', 'from_template', 'check')
            door = 'anatomy_wf.inputnode'
            links = [(f'outputnode.{field}', f'{door}.t1w_{field}') for field in fields]
            links.append(('outputnode.t1w', f'{door}.t1w'))
            workflow.connect([(t1w_wfs[item.t1w], series_wf, links)])
    if settings.reconstruction.cosmos:
        for group in orientation_groups(series):
            _add_cosmos(workflow, group, series_wfs, settings, out_dir)
    seed_registrations(workflow, settings.execution.random_seed)
    return workflow


def subject_workflow_name(subject: str) -> str:
    """Return the name of a subject's graph, and of its folder in the work folder.

    Examples
    --------
    >>> subject_workflow_name('01')
    'sub_01_wf'
    """
    return f'sub_{_identifier(subject)}_wf'


def _add_cosmos(workflow, group, series_wfs, settings, out_dir):
    """Combine the orientations of a session, or say why they cannot be."""
    finding = orientation_finding(group)
    if finding.level == 'WARN':
        _LOGGER.warning('%s: %s', group.name, finding)
    if not group.enough:
        return
    recon, first = settings.reconstruction, group.series[0]
    add_cosmos(
        workflow,
        group,
        [series_wfs[item.name] for item in group.series],
        out_dir=out_dir,
        methods=used_methods(first, settings),
        has_r2star='r2star' in _available_maps(first, recon.relaxometry),
        name=f'{_identifier(group.name)}_wf',
        reference=recon.reference,
        b0_dir=recon.b0_vector,
        mem_gb=settings.resources.mem_gb
        if settings.resources.low_mem
        else cosmos_memory_gb(first.shape, len(group.series)),
        n_procs=settings.resources.omp_nthreads,
    )


def init_series_wf(*, series: GRESeries, settings: Settings, out_dir: str) -> Workflow:
    """Build the graph for one series: reconstruction, anatomy, tables, outputs, figures.

    Parameters
    ----------
    series : GRESeries
        The series.
    settings : Settings
        Settings of the run.
    out_dir : str
        Root of the derivative dataset.

    Returns
    -------
    Workflow
        Its name holds the entities of the series.
    """
    recon = settings.reconstruction
    workflow = Workflow(name=f'{_identifier(series.name)}_wf')
    workflow.__desc__ = opening(settings)
    reconstruction_wf = _init_reconstruction(series, settings)
    workflow.add_nodes([reconstruction_wf])
    fields = _available_maps(series, recon.relaxometry)
    methods = used_methods(series, settings)
    outputs_wf = init_outputs_wf(
        series=series,
        out_dir=out_dir,
        methods=methods,
        fields=fields,
        level=settings.outputs.level,
    )
    _feed(workflow, reconstruction_wf, outputs_wf, (*fields, *FACTS))
    wanted = settings.outputs.atlas or settings.outputs.output_spaces
    anatomy = wanted and series.has_magnitude and series.has_phase
    if anatomy:
        _add_anatomy(workflow, reconstruction_wf, series, settings, out_dir, methods, fields)
    _add_reportlets(workflow, reconstruction_wf, series, settings, out_dir, methods, fields)
    seed_registrations(workflow, settings.execution.random_seed)
    return workflow


def _init_reconstruction(series: GRESeries, settings: Settings) -> Workflow:
    """Return the reconstruction of a series with its files."""
    recon = settings.reconstruction
    mask = series.mask if recon.mask in ('auto', 'derivatives') else recon.mask
    untested = ''
    if series.has_phase:
        untested = untested_reason(recon.bipolar, list(series.te), list(series.echo_numbers))
    if untested:
        _LOGGER.info('%s: not tested for a bipolar readout: %s', series.name, untested)
    one_file = len(series.phase or series.real or series.magnitude) == 1
    reconstruction_wf = init_reconstruction_wf(
        te=list(series.te),
        f0=series.f0,
        scaling=asdict(series.scaling) if series.scaling else None,
        echoes=list(series.volumes) if series.volumes and one_file else None,
        volume=series.volumes[0] if series.volumes and not one_file else None,
        slice_offsets=series.has_finding('A15', 'FIX'),
        echo_numbers=list(series.echo_numbers),
        bipolar=recon.bipolar,
        unwrapping_fallback=recon.unwrapping_fallback,
        mask_file=mask,
        mask_method=_mask_method(series, settings),
        sign=recon.phase_sign,
        methods={stage: getattr(recon, stage) for stage in STAGES},
        params=recon.params,
        reference=recon.reference,
        b0_dir=recon.b0_vector,
        has_magnitude=series.has_magnitude,
        has_phase=series.has_phase,
        mem_gb=series_memory(series, settings),
        n_procs=settings.resources.omp_nthreads,
    )
    door = reconstruction_wf.inputs.inputnode
    door.magnitude_files, door.phase_files = list(series.magnitude), list(series.phase)
    door.real_files, door.imaginary_files = list(series.real), list(series.imag)
    return reconstruction_wf


def _add_anatomy(workflow, reconstruction_wf, series, settings, out_dir, methods, fields):
    """Add registration, region tables and maps in other spaces."""
    atlases = settings.outputs.atlas
    anatomy_wf = init_anatomy_wf(series=series, out_dir=out_dir, has_t1w=series.t1w is not None)
    _feed(workflow, reconstruction_wf, anatomy_wf, ('first_magnitude', 'mask'))
    if atlases:
        given = series.precomputed.segmentations if series.precomputed and series.t1w else ()
        regions_wf = init_regions_wf(
            atlas_names=atlases, series=series, out_dir=out_dir, segmentations=given
        )
        if series.t1w:
            _feed(workflow, anatomy_wf, regions_wf, ('to_t1w', 'from_t1w', 't1w_check'))
        maps = [field for field in ('r2star', 't2star') if field in fields]
        _feed(
            workflow,
            reconstruction_wf,
            regions_wf,
            ('chimap', 'magnitude', 'qsm_mask', 'reference', *maps),
        )
        _feed(workflow, anatomy_wf, regions_wf, ('to_template', 'from_template', 'check'))
    if settings.outputs.output_spaces:
        spaces_wf = init_spaces_wf(
            spaces=[s for s in settings.outputs.output_spaces if s != 'T1w' or series.t1w],
            series=series,
            out_dir=out_dir,
            methods=methods,
            fields=fields,
        )
        _feed(workflow, reconstruction_wf, spaces_wf, [f for f in fields if f in _SPACE_FIELDS])
        _feed(workflow, anatomy_wf, spaces_wf, ('to_template', 'to_t1w', 't1w'))


_SPACE_FIELDS = ('chimap', 'r2star', 't2star')


def _add_reportlets(workflow, reconstruction_wf, series, settings, out_dir, methods, fields):
    """Add figures and the summary of the series."""
    summary = series_summary(series, methods, workflow.visit_desc())
    own = (('magnitude',) if series.has_magnitude else ()) + (
        ('phase',) if series.has_phase else ()
    )
    reportlets_wf = init_reportlets_wf(
        series=series, out_dir=out_dir, summary=summary, fields=(*fields, *own)
    )
    drawn = {*own, 'mask', 'qsm_mask', 'total_field', 'local_field', 'chimap', 'r2star'}
    maps = [field for field in (*own, *fields) if field in drawn]
    _feed(workflow, reconstruction_wf, reportlets_wf, maps)
    stages = {node.name: node for node in workflow._graph.nodes()}
    for fact, (stage, field) in _FACT_SOURCES.items():
        if stage == 'regions_wf' and 'CIT168' not in settings.outputs.atlas:
            continue
        if stage in stages:
            source = f'outputnode.{field}'
            workflow.connect(stages[stage], source, reportlets_wf, f'inputnode.{fact}_facts')


#: Where each part of the report's summary comes from: stage and field.
_FACT_SOURCES = {
    'mask': ('reconstruction_wf', 'mask_info'),
    'reference': ('reconstruction_wf', 'reference'),
    'preparation': ('reconstruction_wf', 'preparation_info'),
    'sign': ('reconstruction_wf', 'sign'),
    'bipolar': ('reconstruction_wf', 'bipolar'),
    'unwrapping': ('reconstruction_wf', 'unwrapping'),
    'regularisation': ('reconstruction_wf', 'inversion'),
    'background_convergence': ('reconstruction_wf', 'background_convergence'),
    'inversion_convergence': ('reconstruction_wf', 'inversion_convergence'),
    'registration': ('anatomy_wf', 'check'),
    'dentate': ('regions_wf', 'dentate'),
    'refinement': ('regions_wf', 'refinement'),
    'coverage': ('regions_wf', 'coverage'),
}


def _feed(workflow: Workflow, source: Workflow, target: Workflow, fields: Sequence[str]) -> None:
    """Connect fields of outputnodes to those of inputnodes of the same name."""
    links = [(f'outputnode.{field}', f'inputnode.{field}') for field in fields]
    workflow.connect([(source, target, links)])


def _available_maps(series: GRESeries, relaxometry: str) -> tuple[str, ...]:
    """Return the maps that this series gives."""
    decay = series.has_magnitude and usable_relaxometry(relaxometry, list(series.te))
    missing = () if decay else _DECAY_MAPS
    if not series.has_phase:
        missing = [o.field for o in OUTPUTS if o.field not in (*_DECAY_MAPS, 'mask')]
    return tuple(output.field for output in OUTPUTS if output.field not in missing)


_DECAY_MAPS = ('r2star', 't2star', 's0')


def used_methods(series: GRESeries, settings: Settings) -> dict[str, dict]:
    """Return method and parameters of each stage, defaults included.

    Parameters
    ----------
    series : GRESeries
        Its echoes decide on the relaxometry.
    settings : Settings
        Settings of the run.

    Returns
    -------
    dict of dict
        Stage -> ``{'Method': name, 'Parameters': {...}}``; of the inversion, ``'Input'`` too.
    """
    recon = settings.reconstruction
    chosen = {stage: getattr(recon, stage) for stage in STAGES}
    chosen['relaxometry'] = usable_relaxometry(recon.relaxometry, list(series.te))
    if chosen['relaxometry'] is None or not series.has_magnitude:
        del chosen['relaxometry']
    if STAGES['inversion'][recon.inversion].one_step:
        del chosen['background']
    if not series.has_phase:
        chosen = {stage: name for stage, name in chosen.items() if stage == 'relaxometry'}
    methods = {}
    for stage, method in chosen.items():
        own = recon.params.get(stage, {}) if method == getattr(recon, stage) else {}
        parameters = {**method_parameters(stage, method), **own}
        methods[stage] = {'Method': method, 'Parameters': parameters}
        if stage == 'inversion':
            methods[stage]['Input'] = TAKEN[STAGES[stage][method].takes]
    return methods


def series_summary(series: GRESeries, methods: dict, text: str) -> dict:
    """Return what the report says of a series and is known before the run.

    The schema is that of :mod:`qsmflow.report`.
    """
    acquisition = {
        'MagneticFieldStrength': series.field_strength,
        'ImagingFrequency': series.f0,
        'EchoTime': list(series.te),
        'VoxelSize': [round(size, 4) for size in series.voxel_size],
        'MatrixSize': list(series.shape),
        **{key: value for key, value in series.metadata.items() if key != 'EchoTime'},
    }
    versions = {package: importlib.metadata.version(package) for package in PACKAGES}
    return {
        'series': series.name,
        'sources': list(series.sources),
        'acquisition': acquisition,
        'findings': [item.as_dict() for item in series.findings],
        'methods': text,
        'parameters': {
            stage: {'method': entry['Method'], **entry['Parameters']}
            for stage, entry in methods.items()
        },
        'versions': {'qsmflow': __version__, **versions},
    }


def series_memory(series: GRESeries, settings: Settings) -> float | dict[str, float]:
    """Return the memory that the steps of a reconstruction claim, in GB.

    Parameters
    ----------
    series : GRESeries
        Its grid and its number of echoes count.
    settings : Settings
        Methods, and the memory of the run.

    Returns
    -------
    float or dict of str to float
        For each step, see :func:`qsmflow.workflows.memory.step_memory`. With ``--low-mem`` all
        that the run has, so that no other node runs beside.
    """
    if settings.resources.low_mem:
        return settings.resources.mem_gb
    return estimated_memory(series, settings)


def estimated_memory(series: GRESeries, settings: Settings) -> dict[str, float]:
    """Return what the steps of a reconstruction are estimated to need, in GB.

    Parameters
    ----------
    series : GRESeries
        Its grid and its number of echoes count.
    settings : Settings
        Methods.

    Returns
    -------
    dict of str to float
        See :func:`qsmflow.workflows.memory.step_memory`.
    """
    recon = settings.reconstruction
    order = io.AxisOrder.of(np.array(series.affine))
    methods = {stage: getattr(recon, stage) for stage in STAGES}
    methods['relaxometry'] = usable_relaxometry(recon.relaxometry, list(series.te))
    return step_memory(
        order.lengths(series.shape),
        order.lengths(series.voxel_size),
        len(series.te),
        methods,
        mask_method=_mask_method(series, settings),
    )


def _mask_method(series: GRESeries, settings: Settings) -> str:
    """Return how the brain is found: without a magnitude there is but one way."""
    return settings.reconstruction.mask_method if series.has_magnitude else 'quality'


def cosmos_memory_gb(shape: Sequence[int], n: int) -> float:
    """Estimate the memory of COSMOS.

    It holds about six padded volumes for each orientation, and twenty more.

    Parameters
    ----------
    shape : sequence of int
        Spatial shape of the first orientation.
    n : int
        Number of orientations.

    Returns
    -------
    float
        GB, the interpreter with its libraries included.
    """
    padded = 4 * math.prod(size + 32 for size in shape) / 1024**3
    return round(0.4 + (6 * n + 20) * padded, 2)


def _identifier(name: str) -> str:
    """Turn a series' name into a name that nipype takes."""
    return re.sub(r'[^0-9a-zA-Z]', '_', name)
