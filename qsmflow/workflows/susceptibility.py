"""Workflows from the total field to referenced susceptibility."""

from collections.abc import Mapping

from qsmflow.algorithms.catalog import STAGES, TAKEN, Method
from qsmflow.algorithms.regions import CSF_R2STAR
from qsmflow.engine import Node, Workflow, identity
from qsmflow.interfaces.susceptibility import (
    BackgroundRemoval,
    DipoleInversion,
    SusceptibilityReference,
)
from qsmflow.workflows.common import cite, given
from qsmflow.workflows.memory import claim

#: Output fields that say how the iterations ended.
CONVERGENCE = ('background_convergence', 'inversion_convergence')

#: What the methods text says of each reference.
REFERENCE_SENTENCES = {
    'wholebrain': 'Susceptibility is relative to its mean over the whole brain.\n',
    'csf': 'Susceptibility is relative to its mean over the cerebrospinal fluid of the lateral '
    f'ventricles, which was found by its R2* below {CSF_R2STAR:g} 1/s [@dimov2022], or over the '
    'whole brain where too little of it was found.\n',
    'none': 'Susceptibility was not referenced to any region.\n',
}


def init_background_removal_wf(
    *,
    method: str = 'pdf',
    params: dict | None = None,
    b0_dir: tuple[float, float, float] | None = None,
    mem_gb: float | Mapping[str, float] = 2.0,
    n_procs: int = 1,
    name: str = 'background_removal_wf',
) -> Workflow:
    """Remove the field of the sources outside the brain.

    Workflow Graph
        .. workflow::
            :graph2use: orig
            :simple_form: yes

            from qsmflow.workflows import init_background_removal_wf
            wf = init_background_removal_wf()

    Parameters
    ----------
    method : str
        See ``STAGES['background']`` of :mod:`qsmflow.algorithms.catalog`.
    params : dict, optional
        Keyword arguments of the algorithm.
    b0_dir : tuple of float, optional
        Main field in array axes, where the affine does not tell.
    mem_gb : float or mapping of str to float
        Memory of each node in GB, or by its step; see :mod:`qsmflow.workflows.memory`.
    n_procs : int
        Threads of the node.
    name : str
        Name of the workflow.

    Inputs
    ------
    total_field, mask, weights : str
        Field (ppm), brain mask, confidence (0 to 1).

    Outputs
    -------
    local_field, mask : str
        Field of the sources in the mask (ppm), and where it is valid.
    convergence : dict
        How the iteration ended.
    """
    entry = STAGES['background'][method]
    workflow = Workflow(name=name)
    workflow.tag = 'background_removal'
    workflow.optional_outputs = ('convergence',)
    workflow.__desc__ = (
        f'The background field was removed by {entry.title} [{cite(entry.citations)}].\n'
    )
    inputnode = identity('inputnode', ['total_field', 'mask', 'weights'])
    outputnode = identity('outputnode', ['local_field', 'mask', 'convergence'])
    remove = Node(
        BackgroundRemoval(method=method, params=params or {}, **given(b0_dir=b0_dir)),
        name='remove',
        mem_gb=claim(mem_gb, 'background'),
        n_procs=n_procs,
    )
    workflow.connect([
        (inputnode, remove, [(key, key) for key in ('total_field', 'mask', 'weights')]),
        (remove, outputnode, [(key, key) for key in ('local_field', 'mask', 'convergence')]),
    ])  # fmt: skip
    return workflow


def init_dipole_inversion_wf(
    *,
    method: str = 'tv',
    params: dict | None = None,
    strategy: str = 'single',
    strategy_params: dict | None = None,
    te: list[float] | None = None,
    f0: float | None = None,
    b0_dir: tuple[float, float, float] | None = None,
    mem_gb: float | Mapping[str, float] = 2.0,
    n_procs: int = 1,
    name: str = 'dipole_inversion_wf',
) -> Workflow:
    """Invert a field into a susceptibility map.

    Workflow Graph
        .. workflow::
            :graph2use: orig
            :simple_form: yes

            from qsmflow.workflows import init_dipole_inversion_wf
            wf = init_dipole_inversion_wf()

    Parameters
    ----------
    method, strategy : str
        See ``STAGES['inversion']`` and ``STAGES['strategy']`` of
        :mod:`qsmflow.algorithms.catalog`.
    params, strategy_params : dict, optional
        Keyword arguments of the algorithm and of the strategy.
    te : list of float, optional
        Echo times, in s; methods that work on phase use them with ``f0``.
    f0 : float, optional
        Imaging frequency, in MHz.
    b0_dir : tuple of float, optional
        Main field in array axes, where the affine does not tell.
    mem_gb : float or mapping of str to float
        Memory of each node in GB, or by its step; see :mod:`qsmflow.workflows.memory`.
    n_procs : int
        Threads of the node.
    name : str
        Name of the workflow.

    Inputs
    ------
    local_field, mask, weights : str
        Field (ppm), region of interest, confidence (0 to 1). The total field for a method that
        takes that.
    phase : str
        Wrapped phase, in rad, echo last; in place of the field, for a method that takes that.
    sign : dict
        Sign of that phase, as :class:`qsmflow.interfaces.field.FieldSign` tells it; optional.
    magnitude, r2star, field_noise : str
        Magnitude with echoes last, R2* (1/s), SD of the field (ppm); for the methods that ask
        for them, and optional.

    Outputs
    -------
    chimap : str
        Susceptibility, in ppm, not referenced.
    info : dict
        What was decided from the data, such as the weight of the regularisation.
    convergence : dict
        How the iteration ended.
    local_field : str
        Its field, in ppm; only of a method that removes the background itself.
    """
    entry = STAGES['inversion'][method]
    workflow = Workflow(name=name)
    workflow.tag = 'dipole_inversion'
    workflow.optional_inputs = ('phase', 'sign', 'magnitude', 'r2star', 'field_noise')
    workflow.optional_outputs = ('info', 'convergence', 'local_field')
    workflow.__desc__ = _sentence(entry, STAGES['strategy'][strategy])
    extras = ['magnitude', 'r2star', 'field_noise']
    inputnode = identity('inputnode', ['local_field', 'phase', 'sign', 'mask', 'weights', *extras])
    outputnode = identity('outputnode', ['chimap', 'info', 'convergence', 'local_field'])
    invert = Node(
        DipoleInversion(
            method=method,
            params=params or {},
            strategy=strategy,
            strategy_params=strategy_params or {},
            **given(b0_dir=b0_dir, te=te, f0=f0),
        ),
        name='invert',
        mem_gb=claim(mem_gb, 'inversion'),
        n_procs=n_procs,
    )
    source = ['phase', 'sign'] if entry.takes == 'phase' else ['local_field']
    wanted = [key.replace('magnitudes', 'magnitude') for key in entry.extras]
    used = [*source, 'mask', 'weights', *(key for key in extras if key in wanted)]
    workflow.connect([
        (inputnode, invert, [(key, key) for key in used]),
        (invert, outputnode, [(key, key) for key in ('chimap', 'info', 'convergence')]),
    ])  # fmt: skip
    if entry.one_step:
        workflow.connect(invert, 'local_field', outputnode, 'local_field')
    return workflow


def _sentence(inversion: Method, strategy: Method) -> str:
    """Describe the inversion, with citations."""
    source = f'from the {TAKEN[inversion.takes]} ' if inversion.one_step else ''
    text = f'Susceptibility was estimated {source}by {inversion.title}'
    text += f' [{cite(inversion.citations)}]' if inversion.citations else ''
    if strategy.name != 'single':
        text += f', as a {strategy.title}'
        text += f' [{cite(strategy.citations)}]' if strategy.citations else ''
    return text + '.\n'


def init_susceptibility_wf(
    *,
    background: str = 'pdf',
    inversion: str = 'tv',
    strategy: str = 'single',
    reference: str = 'wholebrain',
    params: dict[str, dict] | None = None,
    te: list[float] | None = None,
    f0: float | None = None,
    b0_dir: tuple[float, float, float] | None = None,
    mem_gb: float | Mapping[str, float] = 2.0,
    n_procs: int = 1,
    name: str = 'susceptibility_wf',
) -> Workflow:
    """Estimate referenced susceptibility from the total field.

    The two stages inside carry the tags ``'background_removal'`` and ``'dipole_inversion'``:
    ``splice`` replaces either by a workflow of your own. An inversion that takes the total field
    or the phase has no background removal before it.

    Workflow Graph
        .. workflow::
            :graph2use: orig
            :simple_form: yes

            from qsmflow.workflows import init_susceptibility_wf
            wf = init_susceptibility_wf()

    Parameters
    ----------
    background, inversion, strategy : str
        Methods, see :data:`qsmflow.algorithms.catalog.STAGES`.
    reference : {'wholebrain', 'csf', 'none'}
        The region whose mean becomes zero.
    params : dict of dict, optional
        Keyword arguments by stage: ``'background'``, ``'inversion'``, ``'strategy'``.
    te : list of float, optional
        Echo times, in s.
    f0 : float, optional
        Imaging frequency, in MHz.
    b0_dir : tuple of float, optional
        Main field in array axes, where the affine does not tell.
    mem_gb : float or mapping of str to float
        Memory of each node in GB, or by its step; see :mod:`qsmflow.workflows.memory`.
    n_procs : int
        Threads of each node.
    name : str
        Name of the workflow.

    Inputs
    ------
    total_field, mask, weights : str
        Field (ppm), brain mask, confidence (0 to 1).
    phase : str
        Wrapped phase, in rad, echo last; for an inversion that takes that.
    sign : dict
        Sign of that phase, as :func:`init_field_mapping_wf` tells it.
    magnitude, r2star, field_noise : str
        Magnitude with echoes last, R2* (1/s), SD of the field (ppm). R2* for the CSF reference,
        all for the inversions that ask for them.

    Outputs
    -------
    chimap : str
        Susceptibility, in ppm, relative to the reference.
    local_field, mask : str
        Local field (ppm), and where it and ``chimap`` are valid.
    reference : dict
        Region, mean, SD and size of the reference.
    inversion : dict
        What the inversion decided from the data.
    background_convergence, inversion_convergence : dict
        How the iterations ended.
    """
    params = params or {}
    resources = {'mem_gb': mem_gb, 'n_procs': n_procs, 'b0_dir': b0_dir}
    workflow = Workflow(name=name)
    workflow.tag = 'susceptibility'
    workflow.__postdesc__ = REFERENCE_SENTENCES[reference]
    workflow.optional_inputs = ('phase', 'sign', 'magnitude', 'field_noise')
    workflow.optional_outputs = ('inversion', *CONVERGENCE)
    extras = ['phase', 'sign', 'magnitude', 'r2star', 'field_noise']
    inputnode = identity('inputnode', ['total_field', 'mask', 'weights', *extras])
    results = ['chimap', 'local_field', 'mask', 'reference', 'inversion', *CONVERGENCE]
    outputnode = identity('outputnode', results)
    dipole_inversion_wf = init_dipole_inversion_wf(
        method=inversion,
        params=params.get('inversion'),
        strategy=strategy,
        strategy_params=params.get('strategy'),
        te=te,
        f0=f0,
        **resources,
    )
    refer = Node(
        SusceptibilityReference(region=reference),
        name='refer',
        mem_gb=claim(mem_gb, 'reference'),
    )
    passed = [(key, f'inputnode.{key}') for key in ('weights', *extras)]
    workflow.connect([
        (inputnode, dipole_inversion_wf, passed),
        (dipole_inversion_wf, refer, [('outputnode.chimap', 'chimap')]),
        (dipole_inversion_wf, outputnode, [
            ('outputnode.info', 'inversion'),
            ('outputnode.convergence', 'inversion_convergence'),
        ]),
        (refer, outputnode, [('chimap', 'chimap'), ('reference', 'reference')]),
    ])  # fmt: skip
    if reference == 'csf':
        workflow.connect(inputnode, 'r2star', refer, 'r2star')
    if STAGES['inversion'][inversion].one_step:
        _connect_total_field(workflow)
    else:
        _connect_local_field(
            workflow,
            init_background_removal_wf(
                method=background, params=params.get('background'), **resources
            ),
        )
    return workflow


def _connect_local_field(workflow: Workflow, background_removal_wf: Workflow) -> None:
    """Give the inversion the field that a background removal leaves."""
    nodes = {node.name: node for node in workflow._graph.nodes()}
    inversion, refer, outputnode = (
        nodes[key] for key in ('dipole_inversion_wf', 'refer', 'outputnode')
    )
    doors = [(key, f'inputnode.{key}') for key in ('total_field', 'mask', 'weights')]
    results = [('outputnode.local_field', 'local_field'), ('outputnode.mask', 'mask')]
    workflow.connect([
        (nodes['inputnode'], background_removal_wf, doors),
        (background_removal_wf, inversion, [(a, f'inputnode.{b}') for a, b in results]),
        (background_removal_wf, refer, results[1:]),
        (background_removal_wf, outputnode, [
            *results, ('outputnode.convergence', 'background_convergence'),
        ]),
    ])  # fmt: skip


def _connect_total_field(workflow: Workflow) -> None:
    """Give the inversion the total field."""
    nodes = {node.name: node for node in workflow._graph.nodes()}
    inputnode, inversion, refer, outputnode = (
        nodes[key] for key in ('inputnode', 'dipole_inversion_wf', 'refer', 'outputnode')
    )
    doors = [('total_field', 'inputnode.local_field'), ('mask', 'inputnode.mask')]
    workflow.connect([
        (inputnode, inversion, doors),
        (inputnode, refer, [('mask', 'mask')]),
        (inputnode, outputnode, [('mask', 'mask')]),
        (inversion, outputnode, [('outputnode.local_field', 'local_field')]),
    ])  # fmt: skip
