"""Workflows from the total field to referenced susceptibility."""

from qsmflow.algorithms.catalog import STAGES
from qsmflow.engine import Node, Workflow, identity
from qsmflow.interfaces.susceptibility import (
    BackgroundRemoval,
    DipoleInversion,
    SusceptibilityReference,
)
from qsmflow.workflows.common import cite, given


def init_background_removal_wf(
    *,
    method: str = 'pdf',
    params: dict | None = None,
    b0_dir: tuple[float, float, float] | None = None,
    mem_gb: float = 2.0,
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
    mem_gb : float
        Memory that the node may need, in GB.
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
    """
    entry = STAGES['background'][method]
    workflow = Workflow(name=name)
    workflow.tag = 'background_removal'
    workflow.__desc__ = (
        f'The background field was removed by {entry.title} [{cite(entry.citations)}].\n'
    )
    inputnode = identity('inputnode', ['total_field', 'mask', 'weights'])
    outputnode = identity('outputnode', ['local_field', 'mask'])
    remove = Node(
        BackgroundRemoval(method=method, params=params or {}, **given(b0_dir=b0_dir)),
        name='remove',
        mem_gb=mem_gb,
        n_procs=n_procs,
    )
    workflow.connect([
        (inputnode, remove, [(key, key) for key in ('total_field', 'mask', 'weights')]),
        (remove, outputnode, [('local_field', 'local_field'), ('mask', 'mask')]),
    ])  # fmt: skip
    return workflow


def init_dipole_inversion_wf(
    *,
    method: str = 'tv',
    params: dict | None = None,
    b0_dir: tuple[float, float, float] | None = None,
    mem_gb: float = 2.0,
    n_procs: int = 1,
    name: str = 'dipole_inversion_wf',
) -> Workflow:
    """Invert a local field into a susceptibility map.

    Workflow Graph
        .. workflow::
            :graph2use: orig
            :simple_form: yes

            from qsmflow.workflows import init_dipole_inversion_wf
            wf = init_dipole_inversion_wf()

    Parameters
    ----------
    method : str
        See ``STAGES['inversion']`` of :mod:`qsmflow.algorithms.catalog`.
    params : dict, optional
        Keyword arguments of the algorithm.
    b0_dir : tuple of float, optional
        Main field in array axes, where the affine does not tell.
    mem_gb : float
        Memory that the node may need, in GB.
    n_procs : int
        Threads of the node.
    name : str
        Name of the workflow.

    Inputs
    ------
    local_field, mask, weights : str
        Field (ppm), region of interest, confidence (0 to 1).

    Outputs
    -------
    chimap : str
        Susceptibility, in ppm, not referenced.
    """
    entry = STAGES['inversion'][method]
    workflow = Workflow(name=name)
    workflow.tag = 'dipole_inversion'
    workflow.__desc__ = (
        f'Susceptibility was estimated by {entry.title} [{cite(entry.citations)}].\n'
    )
    inputnode = identity('inputnode', ['local_field', 'mask', 'weights'])
    outputnode = identity('outputnode', ['chimap'])
    invert = Node(
        DipoleInversion(method=method, params=params or {}, **given(b0_dir=b0_dir)),
        name='invert',
        mem_gb=mem_gb,
        n_procs=n_procs,
    )
    workflow.connect([
        (inputnode, invert, [(key, key) for key in ('local_field', 'mask', 'weights')]),
        (invert, outputnode, [('chimap', 'chimap')]),
    ])  # fmt: skip
    return workflow


def init_susceptibility_wf(
    *,
    background: str = 'pdf',
    inversion: str = 'tv',
    reference: str = 'wholebrain',
    params: dict[str, dict] | None = None,
    b0_dir: tuple[float, float, float] | None = None,
    mem_gb: float = 2.0,
    n_procs: int = 1,
    name: str = 'susceptibility_wf',
) -> Workflow:
    """Estimate referenced susceptibility from the total field.

    The two stages inside carry the tags ``'background_removal'`` and ``'dipole_inversion'``:
    ``splice`` replaces either by a workflow of your own.

    Workflow Graph
        .. workflow::
            :graph2use: orig
            :simple_form: yes

            from qsmflow.workflows import init_susceptibility_wf
            wf = init_susceptibility_wf()

    Parameters
    ----------
    background, inversion : str
        Methods, see :data:`qsmflow.algorithms.catalog.STAGES`.
    reference : {'wholebrain', 'csf', 'none'}
        The region whose mean becomes zero.
    params : dict of dict, optional
        Keyword arguments by stage: ``'background'``, ``'inversion'``.
    b0_dir : tuple of float, optional
        Main field in array axes, where the affine does not tell.
    mem_gb : float
        Memory that a node may need, in GB.
    n_procs : int
        Threads of each node.
    name : str
        Name of the workflow.

    Inputs
    ------
    total_field, mask, weights : str
        Field (ppm), brain mask, confidence (0 to 1).
    r2star : str
        R2* (1/s); needed only for the CSF reference.

    Outputs
    -------
    chimap : str
        Susceptibility, in ppm, relative to the reference.
    local_field, mask : str
        Local field (ppm), and where it and ``chimap`` are valid.
    reference : dict
        Region, mean, SD and size of the reference.
    """
    params = params or {}
    resources = {'mem_gb': mem_gb, 'n_procs': n_procs, 'b0_dir': b0_dir}
    workflow = Workflow(name=name)
    workflow.tag = 'susceptibility'
    inputnode = identity('inputnode', ['total_field', 'mask', 'weights', 'r2star'])
    outputnode = identity('outputnode', ['chimap', 'local_field', 'mask', 'reference'])
    background_removal_wf = init_background_removal_wf(
        method=background, params=params.get('background'), **resources
    )
    dipole_inversion_wf = init_dipole_inversion_wf(
        method=inversion, params=params.get('inversion'), **resources
    )
    refer = Node(SusceptibilityReference(region=reference), name='refer', mem_gb=mem_gb)
    workflow.connect([
        (inputnode, background_removal_wf, [
            ('total_field', 'inputnode.total_field'),
            ('mask', 'inputnode.mask'),
            ('weights', 'inputnode.weights'),
        ]),
        (inputnode, dipole_inversion_wf, [('weights', 'inputnode.weights')]),
        (background_removal_wf, dipole_inversion_wf, [
            ('outputnode.local_field', 'inputnode.local_field'),
            ('outputnode.mask', 'inputnode.mask'),
        ]),
        (background_removal_wf, refer, [('outputnode.mask', 'mask')]),
        (dipole_inversion_wf, refer, [('outputnode.chimap', 'chimap')]),
        (background_removal_wf, outputnode, [
            ('outputnode.local_field', 'local_field'),
            ('outputnode.mask', 'mask'),
        ]),
        (refer, outputnode, [('chimap', 'chimap'), ('reference', 'reference')]),
    ])  # fmt: skip
    if reference == 'csf':
        workflow.connect(inputnode, 'r2star', refer, 'r2star')
    return workflow
