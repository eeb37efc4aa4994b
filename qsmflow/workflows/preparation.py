"""Workflows from stored images to radians and a brain mask."""

import os
from collections.abc import Mapping

from qsmflow.engine import Node, Workflow, identity
from qsmflow.interfaces.anatomy import BrainExtraction
from qsmflow.interfaces.masking import MaskRefinement, PhaseQualityMask
from qsmflow.interfaces.phase import PhasePreparation
from qsmflow.workflows.common import given
from qsmflow.workflows.memory import claim


def init_preparation_wf(
    *,
    scaling: dict | None = None,
    echoes: list[int] | None = None,
    volume: int | None = None,
    remove_slice_chop: str = 'auto',
    slice_offsets_te: list[float] | None = None,
    mem_gb: float | Mapping[str, float] = 1.0,
    name: str = 'preparation_wf',
) -> Workflow:
    """Read the images of a series as magnitude and phase in radians.

    Workflow Graph
        .. workflow::
            :graph2use: orig
            :simple_form: yes

            from qsmflow.workflows import init_preparation_wf
            wf = init_preparation_wf()

    Parameters
    ----------
    scaling : dict, optional
        Fields of :class:`qsmflow.algorithms.phase.PhaseScaling`: how stored values become
        radians. By default they are radians.
    echoes : list of int, optional
        Echoes to keep, counted from 0; all by default.
    volume : int, optional
        Volume of each file, counted from 0, where files hold repetitions of an echo.
    remove_slice_chop : {'auto', 'yes', 'no'}
        Undo the alternating sign of GE slices; ``'auto'`` decides by the data.
    slice_offsets_te : list of float, optional
        Echo times, in s, if each slice has a phase offset of its own that must be removed.
    mem_gb : float or mapping of str to float
        Memory of each node in GB, or by its step; see :mod:`qsmflow.workflows.memory`.
    name : str
        Name of the workflow.

    Inputs
    ------
    magnitude_files, phase_files : list of str
        One image for each echo, ordered by echo time, or one 4-D image.
    real_files, imaginary_files : list of str
        In place of the former.

    Outputs
    -------
    magnitude, phase : str
        4-D, echo last; phase in rad.
    first_magnitude : str
        Magnitude of the first echo.
    info : dict
        What was found and done.
    """
    workflow = Workflow(name=name)
    workflow.tag = 'preparation'
    workflow.__desc__ = (
        'Phase images were brought to radians by the known range of their stored values.\n'
    )
    files = ['magnitude_files', 'phase_files', 'real_files', 'imaginary_files']
    inputnode = identity('inputnode', files)
    outputnode = identity('outputnode', ['magnitude', 'phase', 'first_magnitude', 'info'])
    prepare = Node(
        PhasePreparation(
            scaling=scaling or radians_scaling(),
            echoes=echoes or [],
            remove_slice_chop=remove_slice_chop,
            slice_offsets=slice_offsets_te is not None,
            **given(volume=volume, te=slice_offsets_te),
        ),
        name='prepare',
        mem_gb=claim(mem_gb, 'preparation'),
    )
    workflow.connect([
        (inputnode, prepare, [(field, field) for field in files]),
        (prepare, outputnode, [
            ('magnitude', 'magnitude'),
            ('phase', 'phase'),
            ('first_magnitude', 'first_magnitude'),
            ('info', 'info'),
        ]),
    ])  # fmt: skip
    return workflow


def radians_scaling() -> dict:
    """Return the scaling of images that are stored in radians already."""
    from dataclasses import asdict

    from qsmflow.algorithms.phase import parse_scaling

    return asdict(parse_scaling('rad'))


def init_brain_mask_wf(
    *,
    te: list[float],
    method: str = 'registration',
    mask_file: str | None = None,
    mem_gb: float | Mapping[str, float] = 2.0,
    name: str = 'brain_mask_wf',
) -> Workflow:
    """Find the brain in the magnitude and keep what has reliable phase.

    Workflow Graph
        .. workflow::
            :graph2use: orig
            :simple_form: yes

            from qsmflow.workflows import init_brain_mask_wf
            wf = init_brain_mask_wf(te=[0.005, 0.010])

    Parameters
    ----------
    te : list of float
        Echo times, in s.
    method : {'registration', 'deepbet', 'quality'}
        Registration to a full-head template, the network of the ``deepbet`` extra, or, for
        phase-only data, the coherence of the phase.
    mask_file : str, optional
        A mask on the grid of the images; it is used as it is, apart from voxels without data.
    mem_gb : float or mapping of str to float
        Memory of each node in GB, or by its step; see :mod:`qsmflow.workflows.memory`.
    name : str
        Name of the workflow.

    Inputs
    ------
    magnitude, phase : str
        4-D, echo last; phase in rad.
    first_magnitude : str
        Magnitude of the first echo; used only where the brain is found in it.

    Outputs
    -------
    mask : str
        Brain mask.
    volume_ml, removed_fraction : float
        Volume of the mask, and the part that the refinement took away.
    info : dict
        How the mask was found, with the two numbers.
    """
    workflow = Workflow(name=name)
    workflow.tag = 'brain_mask'
    inputnode = identity('inputnode', ['magnitude', 'phase', 'first_magnitude'])
    outputnode = identity('outputnode', ['mask', 'volume_ml', 'removed_fraction', 'info'])
    refine = Node(
        MaskRefinement(te=list(te), refine=mask_file is None),
        name='refine',
        mem_gb=claim(mem_gb, 'mask_refinement'),
    )
    workflow.connect([
        (inputnode, refine, [('magnitude', 'magnitude'), ('phase', 'phase')]),
        (refine, outputnode, [
            ('mask', 'mask'),
            ('volume_ml', 'volume_ml'),
            ('removed_fraction', 'removed_fraction'),
            ('info', 'info'),
        ]),
    ])  # fmt: skip
    if mask_file is not None:
        workflow.__desc__ = 'The brain mask was given by the user.\n'
        mask_file = os.path.abspath(mask_file)
        refine.inputs.mask = mask_file
        refine.inputs.info = {'method': 'given', 'source': mask_file}
        return workflow
    workflow.__desc__ = _MASK_SENTENCES[method]
    found_gb = claim(mem_gb, 'brain_mask')
    if method == 'quality':
        extract = Node(PhaseQualityMask(te=list(te)), name='extract', mem_gb=found_gb)
        workflow.connect(inputnode, 'phase', extract, 'phase')
    else:
        extract = Node(BrainExtraction(method=method), name='extract', mem_gb=found_gb)
        workflow.connect(inputnode, 'first_magnitude', extract, 'in_file')
    workflow.connect([(extract, refine, [('brain_mask', 'mask'), ('info', 'info')])])
    return workflow


_MASK_SENTENCES = {
    'registration': (
        'The brain was found by registration of the first-echo magnitude to the full-head '
        'MNI152NLin2009cAsym template [@fonov2011; @avants2011]; voxels of the rim without '
        'reliable phase were removed.\n'
    ),
    'deepbet': (
        'The brain was found with the deepbet network [@fisch2024]; voxels of the rim without '
        'reliable phase were removed.\n'
    ),
    'quality': (
        'For want of a magnitude, the brain was taken to be where the phase is coherent '
        '[@dymerska2021].\n'
    ),
}
