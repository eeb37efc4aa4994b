"""The whole reconstruction: from stored images to susceptibility and R2*."""

from collections.abc import Mapping

from qsmflow.engine import Workflow, identity
from qsmflow.workflows.contrasts import init_relaxometry_wf, usable_relaxometry
from qsmflow.workflows.field import init_field_mapping_wf
from qsmflow.workflows.preparation import init_brain_mask_wf, init_preparation_wf
from qsmflow.workflows.susceptibility import CONVERGENCE, init_susceptibility_wf

#: Fields of the inputnode and of the outputnode, by the stage that feeds them.
INPUTS = ('magnitude_files', 'phase_files', 'real_files', 'imaginary_files')
OUTPUTS = {
    'preparation': ('magnitude', 'phase', 'first_magnitude', 'info'),
    'brain_mask': ('mask', 'volume_ml', 'removed_fraction', 'info'),
    'field_mapping': (
        *('total_field', 'field_noise', 'weights', 'residual'),
        *('unwrapped_phase', 'phase_offset', 'sign', 'bipolar', 'unwrapping'),
    ),
    'susceptibility': (
        *('chimap', 'local_field', 'mask', 'reference', 'inversion'),
        *CONVERGENCE,
    ),
    'relaxometry': ('r2star', 't2star', 's0'),
}
#: Output fields that need another name, because two stages have one of the same name.
RENAMED = {
    ('preparation', 'info'): 'preparation_info',
    ('brain_mask', 'info'): 'mask_info',
    ('susceptibility', 'mask'): 'qsm_mask',
}


def init_reconstruction_wf(
    *,
    te: list[float],
    f0: float,
    scaling: dict | None = None,
    echoes: list[int] | None = None,
    volume: int | None = None,
    slice_offsets: bool = False,
    echo_numbers: list[int] | None = None,
    mask_file: str | None = None,
    mask_method: str = 'registration',
    bipolar: str = 'auto',
    unwrapping_fallback: bool = True,
    sign: str = 'auto',
    methods: dict[str, str] | None = None,
    params: dict[str, dict] | None = None,
    reference: str = 'wholebrain',
    b0_dir: tuple[float, float, float] | None = None,
    has_magnitude: bool = True,
    has_phase: bool = True,
    mem_gb: float | Mapping[str, float] = 2.0,
    n_procs: int = 1,
    name: str = 'reconstruction_wf',
) -> Workflow:
    """Reconstruct susceptibility and R2* from the images of one series.

    Workflow Graph
        .. workflow::
            :graph2use: orig
            :simple_form: yes

            from qsmflow.workflows import init_reconstruction_wf
            wf = init_reconstruction_wf(te=[0.005, 0.010, 0.015], f0=127.7)

    Parameters
    ----------
    te : list of float
        Echo times of the echoes that are used, in s, ascending.
    f0 : float
        Imaging frequency, in MHz.
    scaling : dict, optional
        How stored phase becomes radians; see :func:`init_preparation_wf`.
    echoes : list of int, optional
        Echoes to keep of those in the files, counted from 0.
    volume : int, optional
        Volume of each file, counted from 0, where files hold repetitions of an echo.
    slice_offsets : bool
        Remove a phase offset that each slice has of its own; needs two echoes.
    echo_numbers : list of int, optional
        Number of each echo that is used in the acquisition, counted from 1; by default those of
        ``echoes``.
    mask_file : str, optional
        Brain mask to use as it is.
    mask_method : {'registration', 'deepbet', 'quality'}
        How the brain is found otherwise; phase-only data need the last.
    bipolar : {'auto', 'on', 'off'}
        Correct the phase of a bipolar readout if the data show one, always, or never.
    unwrapping_fallback : bool
        Try the other methods where the unwrapping failed.
    sign : {'auto', '+1', '-1'}
        Sign of the stored phase.
    methods, params : dict, optional
        Method, and its keyword arguments, of the stages ``'unwrapping'``, ``'field'``,
        ``'background'``, ``'inversion'``, ``'strategy'`` and ``'relaxometry'``.
    reference : {'wholebrain', 'csf', 'none'}
        The region whose mean susceptibility becomes zero.
    b0_dir : tuple of float, optional
        Main field in array axes, where the affine does not tell.
    has_magnitude : bool
        False for phase-only data; there is no R2* then.
    has_phase : bool
        False for magnitude-only data; there is only R2* then.
    mem_gb : float or mapping of str to float
        Memory of each node in GB, or by its step; see :mod:`qsmflow.workflows.memory`.
    n_procs : int
        Threads of each node.
    name : str
        Name of the workflow.

    Inputs
    ------
    magnitude_files, phase_files, real_files, imaginary_files : list of str
        Stored images; either the first two or the last two.

    Outputs
    -------
    magnitude, phase, first_magnitude, preparation_info
        Of :func:`init_preparation_wf`.
    mask, volume_ml, removed_fraction, mask_info
        Of :func:`init_brain_mask_wf`.
    total_field, field_noise, weights, residual, unwrapped_phase, phase_offset, sign
        Of :func:`init_field_mapping_wf`.
    bipolar, unwrapping
        Of the same.
    chimap, local_field, qsm_mask, reference, inversion
        Of :func:`init_susceptibility_wf`.
    background_convergence, inversion_convergence
        Of :func:`init_susceptibility_wf`.
    r2star, t2star, s0
        Of :func:`init_relaxometry_wf`; not set for a single echo.
    """
    methods, params = methods or {}, params or {}
    resources = {'mem_gb': mem_gb, 'n_procs': n_procs}
    stages = {
        'preparation': init_preparation_wf(
            scaling=scaling,
            echoes=echoes,
            volume=volume,
            slice_offsets_te=list(te) if slice_offsets else None,
            mem_gb=mem_gb,
        ),
        'brain_mask': init_brain_mask_wf(
            te=te, method=mask_method, mask_file=mask_file, mem_gb=mem_gb
        ),
    }
    if has_phase:
        stages['field_mapping'] = init_field_mapping_wf(
            te=te,
            f0=f0,
            bipolar=bipolar,
            echo_numbers=echo_numbers or ([echo + 1 for echo in echoes] if echoes else None),
            unwrapping_fallback=unwrapping_fallback,
            sign=sign,
            b0_dir=b0_dir,
            params=params,
            **_chosen(methods, 'unwrapping', 'field'),
            **resources,
        )
        stages['susceptibility'] = init_susceptibility_wf(
            reference=reference,
            b0_dir=b0_dir,
            params=params,
            te=te,
            f0=f0,
            **_chosen(methods, 'background', 'inversion', 'strategy'),
            **resources,
        )
    relaxometry = usable_relaxometry(methods.get('relaxometry', 'arlo'), te)
    if relaxometry and has_magnitude:
        stages['relaxometry'] = init_relaxometry_wf(
            te=te, method=relaxometry, params=_own(params, methods, relaxometry), **resources
        )
    workflow = Workflow(name=name)
    workflow.tag = 'reconstruction'
    _connect_doors(workflow, stages)
    _connect_stages(workflow, stages)
    return workflow


def _chosen(methods: dict[str, str], *stages: str) -> dict[str, str]:
    """Return the methods of some stages, leaving the builders' defaults where none is given."""
    return {stage: methods[stage] for stage in stages if stage in methods}


def _own(params: dict, methods: dict, used: str) -> dict:
    """Return the relaxometry parameters, unless another method had to take its place."""
    return params.get('relaxometry', {}) if methods.get('relaxometry', 'arlo') == used else {}


def _connect_doors(workflow: Workflow, stages: dict[str, Workflow]) -> None:
    """Connect the inputnode to the first stage and every stage to the outputnode."""
    names = {
        (stage, field): RENAMED.get((stage, field), field)
        for stage, fields in OUTPUTS.items()
        for field in fields
    }
    inputnode = identity('inputnode', list(INPUTS))
    outputnode = identity('outputnode', list(names.values()))
    workflow.connect(
        [(inputnode, stages['preparation'], [(field, f'inputnode.{field}') for field in INPUTS])]
    )
    for (stage, field), outer in names.items():
        if stage in stages:
            workflow.connect(stages[stage], f'outputnode.{field}', outputnode, outer)


def _connect_stages(workflow: Workflow, stages: dict[str, Workflow]) -> None:
    """Connect those stages with one another that there are."""

    def pass_on(source: str, target: str, *fields: str) -> None:
        if source not in stages or target not in stages:
            return
        links = [(f'outputnode.{field}', f'inputnode.{field}') for field in fields]
        workflow.connect([(stages[source], stages[target], links)])

    pass_on('preparation', 'brain_mask', 'magnitude', 'phase', 'first_magnitude')
    pass_on('preparation', 'field_mapping', 'magnitude', 'phase', 'first_magnitude')
    pass_on('brain_mask', 'field_mapping', 'mask')
    pass_on('brain_mask', 'susceptibility', 'mask')
    pass_on('preparation', 'susceptibility', 'magnitude')
    pass_on('field_mapping', 'susceptibility', 'total_field', 'weights', 'field_noise')
    pass_on('field_mapping', 'susceptibility', 'phase', 'sign')
    pass_on('preparation', 'relaxometry', 'magnitude')
    pass_on('brain_mask', 'relaxometry', 'mask')
    pass_on('relaxometry', 'susceptibility', 'r2star')
