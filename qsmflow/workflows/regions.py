"""Workflow from maps and an atlas to region tables."""

import csv
import io as textio
import os
from collections.abc import Sequence
from pathlib import Path

from qsmflow import atlas as atlases
from qsmflow.bids.derivatives import derivative_path
from qsmflow.bids.precomputed import Segmentation
from qsmflow.bids.series import GRESeries
from qsmflow.engine import Node, Workflow, identity
from qsmflow.interfaces.anatomy import AtlasToNative
from qsmflow.interfaces.bids import MergeFields
from qsmflow.interfaces.nuclei import NucleiRefinement
from qsmflow.interfaces.reportlets import AtlasFigure
from qsmflow.interfaces.tables import DentateSegmentation, RegionStatistics, WriteText
from qsmflow.workflows.common import sink_node, t1w_entities
from qsmflow.workflows.reportlets import store_figure

#: The atlas whose table gets the rows of the dentate nuclei, which are found in the subject.
WITH_DENTATE = 'CIT168'
_MAPS = ('chimap', 'r2star', 't2star', 'magnitude', 'qsm_mask')
_WAYS = ('from_template', 'to_template')
#: Fields of the inputnodes of the two kinds of stages inside.
_DENTATE_INPUTS = ('chimap', 'r2star', 'magnitude', 'qsm_mask', *_WAYS)
_TABLE_INPUTS = (*_MAPS, *_WAYS, 'reference', 'check')
#: What leads to a segmentation in the space of the T1w image, and the fields for it.
_T1W_INPUTS = ('from_t1w', 'to_t1w', 't1w_check')
_T1W_TARGETS = (*_WAYS, 'check')


def init_regions_wf(
    *,
    atlas_names: Sequence[str],
    series: GRESeries,
    out_dir: str,
    segmentations: Sequence[Segmentation] = (),
    name: str = 'regions_wf',
) -> Workflow:
    """Bring each atlas to the series and tabulate its regions.

    Workflow Graph
        One :func:`init_atlas_table_wf` for each atlas, and the dentate nuclei before them.

    Parameters
    ----------
    atlas_names : sequence of str
        Names of shipped atlases, or paths.
    series : GRESeries
        Gives the names.
    out_dir : str
        Root of the derivative dataset.
    segmentations : sequence of Segmentation
        Of the subject, in the space of the T1w image; each gets a table too.
    name : str
        Name of the workflow.

    Inputs
    ------
    chimap, r2star, t2star, magnitude, qsm_mask : str
        Maps of the series; the second and third may be missing. The magnitude serves the dentate
        nuclei.
    from_template, to_template : list of str
        ITK transforms.
    reference, check : dict
        Of the susceptibility, and of the registration.
    from_t1w, to_t1w : list of str
        ITK transforms, for segmentations.
    t1w_check : dict
        Of the registration to the T1w image.

    Outputs
    -------
    dentate : dict
        How each dentate nucleus was found; not set without the atlas that takes their rows.
    refinement, coverage : dict
        Of :func:`init_atlas_table_wf`, for that atlas.
    """
    workflow = Workflow(name=name)
    workflow.tag = 'regions'
    inputnode = identity('inputnode', [*_MAPS, *_WAYS, 'reference', 'check', *_T1W_INPUTS])
    outputnode = identity('outputnode', ['dentate', 'refinement', 'coverage'])
    for one in segmentations:
        table_wf = init_atlas_table_wf(
            atlas=one.path, series=series, out_dir=out_dir, segmentation=one
        )
        own = tuple(field for field in _TABLE_INPUTS if field not in (*_WAYS, 'check'))
        _pass_all(workflow, inputnode, table_wf, own)
        links = [(f, f'inputnode.{g}') for f, g in zip(_T1W_INPUTS, _T1W_TARGETS, strict=True)]
        workflow.connect([(inputnode, table_wf, links)])
    dentate_wf = None
    if WITH_DENTATE in atlas_names:
        dentate_wf = init_dentate_wf(series=series, out_dir=out_dir)
        _pass_all(workflow, inputnode, dentate_wf, _DENTATE_INPUTS)
        workflow.connect(dentate_wf, 'outputnode.info', outputnode, 'dentate')
    for entry in atlas_names:
        if entry == 'dentate':
            continue
        table_wf = init_atlas_table_wf(
            atlas=entry, series=series, out_dir=out_dir, with_dentate=entry == WITH_DENTATE
        )
        _pass_all(workflow, inputnode, table_wf, _TABLE_INPUTS)
        if entry == WITH_DENTATE:
            results = [(f'outputnode.{field}', field) for field in ('refinement', 'coverage')]
            workflow.connect([(table_wf, outputnode, results)])
            links = [(f'outputnode.{a}', f'inputnode.{b}') for a, b in _DENTATE_EDGES]
            workflow.connect([(dentate_wf, table_wf, links)])
    return workflow


_DENTATE_EDGES = (('labels', 'dentate'), ('info', 'dentate_info'))
_DENTATE_CAPTION = (
    'Dentate nuclei, in the cerebellum; under Parameters stands how each one was found.'
)


def _pass_all(workflow, inputnode, target, fields) -> None:
    workflow.connect([(inputnode, target, [(field, f'inputnode.{field}') for field in fields])])


def init_dentate_wf(*, series: GRESeries, out_dir: str, name: str = 'dentate_wf') -> Workflow:
    """Find the dentate nuclei in the subject, and store and draw their labels.

    Parameters
    ----------
    series : GRESeries
        Gives the names.
    out_dir : str
        Root of the derivative dataset.
    name : str
        Name of the workflow.

    Inputs
    ------
    chimap, r2star, magnitude, qsm_mask, from_template, to_template
        As in :func:`init_regions_wf`.

    Outputs
    -------
    labels : str
        1 left, 2 right.
    info : dict
        How each side was found.
    """
    workflow = Workflow(name=name)
    workflow.tag = 'dentate'
    workflow.__desc__ = (
        'The dentate nuclei were found by their own contrast inside a search region of the '
        'template.\n'
    )
    prior_atlas = atlases.load_atlas('dentate')
    inputnode = identity('inputnode', list(_DENTATE_INPUTS))
    outputnode = identity('outputnode', ['labels', 'info'])
    prior = Node(AtlasToNative(in_file=str(prior_atlas.dseg)), name='prior', mem_gb=1.0)
    segment = Node(DentateSegmentation(), name='segment', mem_gb=1.0)
    text = 'Dentate nuclei: 1 left, 2 right'
    sources = [*_placed_by(series), _about('dentate')]
    metadata = _label_sidecar(text, series, sources)
    path = derivative_path(series, suffix='dseg', atlas='dentate')
    store = sink_node('ds_labels', out_dir=out_dir, path=path, kind='label', metadata=metadata)
    workflow.connect([
        (inputnode, prior, [
            ('chimap', 'reference'),
            ('from_template', 'transforms'),
            ('to_template', 'inverse_transforms'),
        ]),
        (inputnode, segment, [
            ('chimap', 'chimap'),
            ('r2star', 'r2star'),
            ('magnitude', 'magnitude'),
            ('qsm_mask', 'mask'),
        ]),
        (prior, segment, [('labels', 'prior')]),
        (segment, outputnode, [('labels', 'labels'), ('info', 'info')]),
        (segment, store, [('labels', 'in_file')]),
    ])  # fmt: skip
    rows = [(1, 'dentate', 'L'), (2, 'dentate', 'R')]
    # They lie far below the regions of the atlas: in one figure both would be small.
    draw = Node(
        AtlasFigure(names={index: label for index, label, _ in rows}, caption=_DENTATE_CAPTION),
        name='outlines_rpt',
    )
    workflow.connect([
        (inputnode, draw, [('chimap', 'in_file'), ('qsm_mask', 'mask')]),
        (segment, draw, [('labels', 'labels')]),
    ])  # fmt: skip
    store_figure(workflow, draw, series, out_dir, 'outlines', atlas='dentate')
    _store_text(workflow, table_text(rows), path, out_dir)
    return workflow


def init_atlas_table_wf(
    *,
    atlas: str,
    series: GRESeries,
    out_dir: str,
    with_dentate: bool = False,
    segmentation: Segmentation | None = None,
    name: str = '',
) -> Workflow:
    """Bring one atlas to the series, and tabulate and draw its regions.

    Parameters
    ----------
    atlas : str
        Name of a shipped atlas, or a path.
    series : GRESeries
        Gives the names.
    out_dir : str
        Root of the derivative dataset.
    with_dentate : bool
        Whether the table gets the rows of the dentate nuclei.
    segmentation : Segmentation, optional
        What the file is, if it is a segmentation of the subject and no atlas.
    name : str
        Name of the workflow; by default that of the atlas.

    Inputs
    ------
    chimap, r2star, t2star, magnitude, qsm_mask, from_template, to_template, reference, check
        As in :func:`init_regions_wf`; transforms and check serve atlases in a template's space.
    dentate, dentate_info
        Of :func:`init_dentate_wf`; used with ``with_dentate``.

    Outputs
    -------
    refinement : dict
        Of :func:`init_atlas_labels_wf`.
    coverage : dict
        Findings on regions that are partly outside.
    """
    # Nodes run in folders of their own: a path must not depend on where they are.
    atlas = atlas if atlas in atlases.builtin_atlases() else os.path.abspath(atlas)
    entry = _entry(atlas, segmentation)
    workflow = Workflow(name=name or f'{entry.name}_wf')
    inputnode = identity('inputnode', [*_TABLE_INPUTS, 'dentate', 'dentate_info'])
    outputnode = identity('outputnode', ['refinement', 'coverage'])
    labels_wf = init_atlas_labels_wf(
        atlas=atlas, series=series, out_dir=out_dir, segmentation=segmentation
    )
    measure = Node(RegionStatistics(atlas=atlas), name='measure', mem_gb=1.0)
    if segmentation is not None:
        measure.inputs.table = segmentation.table
    names = {label.index: label.name for label in entry.table}
    draw = Node(AtlasFigure(names=names, caption=f'Regions of {entry.name}.'), name='outlines_rpt')
    placed = ('chimap', 'magnitude', 'qsm_mask', 'from_template', 'to_template')
    workflow.connect([
        (inputnode, labels_wf, [(field, f'inputnode.{field}') for field in placed]),
        (inputnode, measure, [
            ('chimap', 'chimap'),
            ('r2star', 'r2star'),
            ('t2star', 't2star'),
            ('qsm_mask', 'mask'),
            ('reference', 'reference'),
        ]),
        (labels_wf, measure, [
            ('outputnode.labels', 'labels'),
            ('outputnode.fov_fraction', 'fov_fraction'),
        ]),
        (inputnode, draw, [('chimap', 'in_file'), ('qsm_mask', 'mask')]),
        (labels_wf, draw, [('outputnode.labels', 'labels')]),
        (labels_wf, outputnode, [('outputnode.refinement', 'refinement')]),
        (measure, outputnode, [('info', 'coverage')]),
    ])  # fmt: skip
    if entry.space:
        workflow.connect(inputnode, 'check', measure, 'registration')
    if with_dentate:
        workflow.connect(
            [(inputnode, measure, [('dentate', 'dentate'), ('dentate_info', 'dentate_info')])]
        )
    store_figure(workflow, draw, series, out_dir, 'outlines', atlas=entry.name)
    _store_stats(workflow, measure, series, entry.name, out_dir)
    return workflow


def init_atlas_labels_wf(
    *,
    atlas: str,
    series: GRESeries,
    out_dir: str,
    segmentation: Segmentation | None = None,
    name: str = 'labels_wf',
) -> Workflow:
    """Bring the labels of an atlas to the series, refine them by the map, and store them.

    Parameters
    ----------
    atlas : str
        Name of a shipped atlas, or a path. Labels with a typical susceptibility in its table are
        aligned with the map.
    series : GRESeries
        Gives the names.
    out_dir : str
        Root of the derivative dataset.
    segmentation : Segmentation, optional
        What the file is, if it is a segmentation of the subject and no atlas.
    name : str
        Name of the workflow.

    Inputs
    ------
    chimap, magnitude, qsm_mask : str
        Maps of the series.
    from_template, to_template : list of str
        ITK transforms.

    Outputs
    -------
    labels : str
        Labels on the grid of the series.
    fov_fraction : dict
        Part of each label inside the field of view.
    refinement : dict
        What the alignment by the map did; not set for an atlas without typical values.
    """
    entry = _entry(atlas, segmentation)
    refines = bool(entry.space) and any(label.chi is not None for label in entry.table)
    workflow = Workflow(name=name)
    workflow.tag = f'labels_{entry.name}'
    workflow.__desc__ = _sentence(entry, refines)
    fields = ['chimap', 'magnitude', 'qsm_mask', 'from_template', 'to_template']
    inputnode = identity('inputnode', fields)
    outputnode = identity('outputnode', ['labels', 'fov_fraction', 'refinement'])
    warp = Node(AtlasToNative(in_file=str(entry.dseg)), name='warp', mem_gb=1.0)
    path = derivative_path(series, suffix='dseg', atlas=entry.name)
    text = f'Regions of the {entry.name} atlas'
    sources = [*(_placed_by(series) if entry.space else ()), _about(entry.name)]
    if refines:
        sources.append(f'bids::{_warp_path(series, entry.name)}')
    if segmentation is not None:
        text = f'Segmentation {entry.name} on the grid of the scan'
        sources = [segmentation.uri, *_placed_by(series, template=False)]
    metadata = _label_sidecar(text, series, sources)
    store = sink_node('ds_labels', out_dir=out_dir, path=path, kind='label', metadata=metadata)
    last = warp
    workflow.connect(inputnode, 'chimap', warp, 'reference')
    if entry.space:
        workflow.connect(inputnode, 'from_template', warp, 'transforms')
        workflow.connect(inputnode, 'to_template', warp, 'inverse_transforms')
    if refines:
        last = Node(NucleiRefinement(atlas=atlas), name='refine', mem_gb=1.5)
        details = Node(MergeFields(fields=['Refinement']), name='details')
        workflow.connect([
            (inputnode, last, [
                ('chimap', 'chimap'),
                ('magnitude', 'magnitude'),
                ('qsm_mask', 'mask'),
                ('from_template', 'transforms'),
            ]),
            (warp, last, [('labels', 'labels')]),
            (last, details, [('info', 'Refinement')]),
            (details, store, [('out', 'details')]),
            (last, outputnode, [('info', 'refinement')]),
        ])  # fmt: skip
        _store_warp(workflow, last, series, entry.name, out_dir)
    workflow.connect([
        (last, store, [('labels', 'in_file')]),
        (last, outputnode, [('labels', 'labels')]),
        (warp, outputnode, [('fov_fraction', 'fov_fraction')]),
    ])  # fmt: skip
    rows = [(label.index, label.name, label.hemi) for label in entry.table]
    _store_text(workflow, table_text(rows), path, out_dir)
    return workflow


def _placed_by(series: GRESeries, template: bool = True) -> list[str]:
    """Return the URIs of what brings labels to a series, of the template or the T1w image."""

    def way(source, start, end, extension):
        path = derivative_path(source, suffix='xfm', extension=extension, from_=start, to=end)
        return f'bids::{path}'

    space = atlases.TEMPLATE_SPACE
    if not series.t1w:
        return [way(series, space, 'GRE', '.h5')] if template else []
    sources = [series.t1w_uri, way(series, 'T1w', 'GRE', '.txt')]
    if template:
        ready = series.precomputed.transform_uris if series.precomputed else ()
        sources += ready or [way(t1w_entities(series), space, 'T1w', '.h5')]
    return sources


def _about(atlas_name: str) -> str:
    """Return the URI of the file that says what an atlas is and where it comes from."""
    return f'bids::atlas-{atlas_name}_description.json'


def _label_sidecar(description: str, series: GRESeries, sources: Sequence[str]) -> dict:
    """Return the sidecar of a label image, which describes the table of its labels too."""
    return {
        'Description': description,
        'Sources': [*series.sources, *sources],
        'SpatialReference': series.sources[0],
        # The columns index and name are BIDS's own, and may not be described anew.
        'hemi': {
            'Description': 'Side of the brain; n/a for a region of both sides or the midline',
            'Levels': {'L': 'left', 'R': 'right'},
        },
    }


def _warp_path(series: GRESeries, atlas_name: str) -> str:
    return derivative_path(series, suffix='xfm', from_='GRE', to='GRE', desc=f'{atlas_name}nuclei')


def _store_warp(workflow, refine, series, atlas_name, out_dir) -> None:
    """Store the field that moved the labels onto the nuclei of the map."""
    path = _warp_path(series, atlas_name)
    metadata = {
        'Description': "Displacement field in ITK's convention (mm, LPS) that goes after the "
        f'transforms from the template to the scan: with them it places the atlas {atlas_name}. '
        'Zero where the alignment with the map was not believed',
        'Sources': [*series.sources, *_placed_by(series), _about(atlas_name)],
    }
    sink = sink_node('ds_warp', out_dir=out_dir, path=path, kind='file', metadata=metadata)
    workflow.connect(refine, 'warp', sink, 'in_file')


def _store_stats(workflow, measure, series, atlas_name, out_dir) -> None:
    for field, extension in (('stats', '.tsv'), ('dictionary', '.json')):
        path = derivative_path(series, suffix='stats', extension=extension, atlas=atlas_name)
        sink = sink_node(f'ds_{field}', out_dir=out_dir, path=path, kind='file')
        workflow.connect(measure, field, sink, 'in_file')


def _store_text(workflow, text, image_path, out_dir) -> None:
    """Store a table of labels beside its image."""
    write = Node(WriteText(text=text, file_name='labels.tsv'), name='label_table')
    path = image_path.removesuffix('.nii.gz') + '.tsv'
    sink = sink_node('ds_table', out_dir=out_dir, path=path, kind='file')
    workflow.connect(write, 'out_file', sink, 'in_file')


def table_text(rows: Sequence[tuple[int, str, str]]) -> str:
    r"""Return a BIDS table of labels.

    Parameters
    ----------
    rows : sequence of (int, str, str)
        Index, name and side of each label.

    Examples
    --------
    >>> table_text([(1, 'dentate', 'L')])
    'index\tname\themi\n1\tdentate\tL\n'
    """
    stream = textio.StringIO()
    writer = csv.writer(stream, delimiter='\t', lineterminator='\n')
    writer.writerow(['index', 'name', 'hemi'])
    writer.writerows([index, label, hemi or 'n/a'] for index, label, hemi in rows)
    return stream.getvalue()


def _entry(atlas: str, segmentation: Segmentation | None) -> atlases.Atlas:
    """Return the atlas, or the segmentation in the place of one."""
    if segmentation is None:
        return atlases.load_atlas(atlas)
    return atlases.load_segmentation(atlas, segmentation.name, segmentation.table)


def _sentence(entry: atlases.Atlas, refined: bool) -> str:
    if entry.space == 'T1w':
        return (
            'Susceptibility, R2* and T2* were summarised over the regions of the segmentation '
            f'{entry.name} of the participant, brought to the space of the acquisition.\n'
        )
    citation = ' [@pauli2018]' if entry.name == 'CIT168' else ''
    shipped = entry.name if entry.name in atlases.builtin_atlases() else Path(entry.dseg).name
    return (
        f'Susceptibility, R2* and T2* were summarised over the regions of {shipped}{citation}, '
        f'brought to the space of the acquisition{_REFINED if refined else ""}.\n'
    )


_REFINED = (
    ' and aligned with the nuclei that the susceptibility map shows (symmetric diffeomorphic '
    'registration by local cross-correlation [@avants2008])'
)
