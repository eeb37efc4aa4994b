"""What series, settings and derivatives make of the graph of a run."""

from dataclasses import replace
from pathlib import Path

import pytest
from nipype.pipeline.engine.utils import generate_expanded_graph

from qsmflow import __version__, workflows
from qsmflow.interfaces import (
    BrainExtraction,
    RegisterOrientation,
    RegisterToT1w,
    RegisterToTemplate,
)
from qsmflow.settings import ExecutionSettings
from qsmflow.workflows.outputs import DETAILS
from tests.workflows.graphs import (
    MASK_ONLY,
    NO_MASK,
    OUT,
    RAW,
    READY,
    RUNS,
    SERIES,
    TE,
    WITH_COSMOS,
    real_nodes,
    settings,
)


def test_direction_of_the_field_reaches_all_that_need_it():
    _, nodes = real_nodes(workflows.init_reconstruction_wf(te=TE, f0=1.0, b0_dir=(0.0, 1.0, 0.0)))
    directed = [n for n in nodes if 'b0_dir' in n.inputs.copyable_trait_names()]
    assert len(directed) == 3
    assert all(n.inputs.b0_dir == (0.0, 1.0, 0.0) for n in directed)


def test_relative_paths_are_made_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ('mask.nii', 'mine_dseg.nii'):
        (tmp_path / name).touch()
    (tmp_path / 'mine_dseg.tsv').write_text('index\tname\n1\tbox\n')
    brain = workflows.init_brain_mask_wf(te=TE, mask_file='mask.nii')
    assert brain.get_node('refine').inputs.mask == str(tmp_path / 'mask.nii')
    table = workflows.init_atlas_table_wf(atlas='mine_dseg.nii', **OUT)
    assert table.get_node('measure').inputs.atlas == str(tmp_path / 'mine_dseg.nii')
    assert table.get_node('labels_wf.warp').inputs.in_file == str(tmp_path / 'mine_dseg.nii')
    t1w = workflows.init_t1w_wf(t1w='sub-01_T1w.nii.gz', out_dir='out', bids_dir='.')
    assert t1w.get_node('inputnode').inputs.t1w == str(tmp_path / 'sub-01_T1w.nii.gz')


def test_run_has_one_workflow_for_each_subject_and_one_for_each_t1w():
    other = replace(SERIES, subject='02', entities=(('sub', '02'),), t1w=None)
    second = replace(SERIES, entities=(('sub', '01'), ('run', '2')))
    workflow = workflows.init_qsmflow_wf(
        series=[SERIES, second, other], settings=settings(), out_dir='/nowhere/out'
    )
    names = workflow.list_node_names()
    extractions = [name for name in names if name.endswith('t1w_0_wf.extract')]
    assert extractions == ['sub_01_wf.t1w_0_wf.extract']
    assert 'sub_01_wf.sub_01_run_2_wf.anatomy_wf.register' in names
    assert 'sub_02_wf.sub_02_wf.reconstruction_wf.field_mapping_wf.fit' in names
    paths = [n.inputs.path for n in real_nodes(workflow)[1] if hasattr(n.inputs, 'path')]
    assert len(paths) == len(set(paths)) > 50


def test_every_registration_has_the_seed_of_the_run():
    chosen = replace(WITH_COSMOS, execution=ExecutionSettings(random_seed=7))
    options = {'settings': chosen, 'out_dir': '/nowhere/out'}
    alone = replace(SERIES, subject='02', entities=(('sub', '02'),), t1w=None)
    run = workflows.init_qsmflow_wf(series=[*RUNS, alone], **options)
    own = workflows.init_series_wf(series=alone, **options)
    for workflow, kinds in (
        (run, {BrainExtraction, RegisterToT1w, RegisterToTemplate, RegisterOrientation}),
        (own, {BrainExtraction, RegisterToTemplate}),
    ):
        seeds = {
            (type(node.interface), node.inputs.seed)
            for node in real_nodes(workflow)[1]
            if isinstance(node.interface, tuple(kinds))
        }
        assert seeds == {(kind, 7) for kind in kinds}


def test_what_a_preset_gives_is_used_and_recorded():
    chosen = settings(recon={'preset': 'fast'}, atlas=())
    workflow = workflows.init_series_wf(series=SERIES, settings=chosen, out_dir='/nowhere/out')
    recon = chosen.reconstruction
    nodes = {node.name: node.inputs for node in real_nodes(workflow)[1]}
    given = recon.params['inversion']
    assert given
    assert nodes['invert'].method == recon.inversion
    assert nodes['invert'].params == given
    recorded = nodes['ds_chimap'].metadata['DipoleInversion']
    assert recorded['Method'] == recon.inversion
    assert given.items() <= recorded['Parameters'].items()


@pytest.mark.parametrize(
    ('inversion', 'taken'),
    [
        ('tkd', 'local field'),
        ('tgv', 'total field'),
        ('tgv_phase', 'wrapped phase of the echoes'),
    ],
)
def test_sidecar_says_what_the_inversion_took(inversion, taken):
    workflow = workflows.init_series_wf(
        series=SERIES,
        settings=settings(recon={'inversion': inversion}, atlas=()),
        out_dir='/nowhere/out',
    )
    nodes = {node.name: node.inputs for node in real_nodes(workflow)[1]}
    recorded = nodes['ds_chimap'].metadata
    assert recorded['DipoleInversion']['Method'] == inversion
    assert recorded['DipoleInversion']['Input'] == taken
    assert ('BackgroundFieldRemoval' in recorded) is (inversion == 'tkd')


def test_end_of_the_iterations_reaches_sidecars_and_report():
    workflow = workflows.init_series_wf(
        series=SERIES, settings=settings(atlas=()), out_dir='/nowhere/out'
    )
    ready = generate_expanded_graph(workflow._create_flat_graph())
    edges = {
        (source.name, output, target.name, door)
        for source, target, data in ready.edges(data=True)
        for output, door in data['connect']
    }
    for step, key, fact in (
        ('remove', 'BackgroundFieldRemoval', 'background_convergence'),
        ('invert', 'DipoleInversion', 'inversion_convergence'),
    ):
        assert (step, 'convergence', 'details', key) in edges
        assert (step, 'convergence', 'summary', fact) in edges
    assert ('invert', 'info', 'summary', 'regularisation') in edges
    assert ('remove', 'convergence', 'local_details', 'BackgroundFieldRemoval') in edges
    assert ('local_details', 'out', 'ds_local_field', 'details') in edges
    assert ('field_details', 'out', 'ds_total_field', 'details') in edges


@pytest.mark.parametrize(
    ('te', 'field_strength', 'echo', 'caption'),
    [
        ((0.004, 0.010, 0.016, 0.022), 3.0, 2, 'Echo 3, TE = 16 ms.'),
        ((0.004, 0.010, 0.016, 0.022), 7.0, 1, 'Echo 2, TE = 10 ms.'),
        ((0.004, 0.010), 3.0, 1, 'Echo 2, TE = 10 ms.'),
        ((0.025,), 3.0, 0, 'Echo 1, TE = 25 ms.'),
    ],
)
def test_phase_is_drawn_of_an_echo_that_shows_the_brain(te, field_strength, echo, caption):
    numbers = tuple(range(1, len(te) + 1))
    series = replace(SERIES, te=te, echo_numbers=numbers, field_strength=field_strength)
    wf = workflows.init_reportlets_wf(
        series=series, out_dir='/nowhere/out', summary={}, fields=('phase',)
    )
    drawn = wf.get_node('phase_rpt').inputs
    assert (drawn.kind, drawn.echo, drawn.caption) == ('phase', echo, caption)


@pytest.mark.parametrize(
    ('recon', 'first', 'reference'),
    [
        ({}, f'qsmflow {__version__}.', 'its mean over the whole brain.'),
        (
            {'preset': 'thorough', 'reference': 'csf'},
            f'qsmflow {__version__} (preset thorough).',
            'R2* below 5 1/s [@dimov2022], or over the whole brain where too little of it was '
            'found.',
        ),
        ({'inversion': 'tgv', 'reference': 'none'}, f'qsmflow {__version__}.', 'to any region.'),
    ],
)
def test_methods_text_names_program_preset_and_reference(recon, first, reference):
    chosen = settings(recon=recon)
    options = {'settings': chosen, 'out_dir': '/nowhere/out'}
    other = replace(SERIES, subject='02', entities=(('sub', '02'),), t1w=None)
    run = workflows.init_qsmflow_wf(series=[SERIES, other], **options)
    own = workflows.init_series_wf(series=SERIES, **options)
    for text in (run.visit_desc(), own.visit_desc()):
        paragraphs = text.split('\n\n')
        assert paragraphs[0] == f'Images were processed with {first}'
        number = next(
            n for n, p in enumerate(paragraphs) if p.startswith('Susceptibility was estimated')
        )
        assert paragraphs[number + 1].startswith('Susceptibility ')
        assert paragraphs[number + 1].endswith(reference)
        assert len(paragraphs) == len(set(paragraphs))


def test_all_labels_that_get_rows_of_the_table_are_drawn():
    workflow = workflows.init_regions_wf(atlas_names=['CIT168'], **OUT)
    flat, nodes = real_nodes(workflow)
    drawn = {n.inputs.path for n in nodes if n.name.startswith('ds_outlines') and 'png' in n.name}
    assert {path.rpartition('/')[2] for path in drawn} == {
        'sub-01_atlas-CIT168_desc-outlines_figure.png',
        'sub-01_atlas-dentate_desc-outlines_figure.png',
    }
    sources = {
        source.name
        for source, node, data in flat.edges(data=True)
        if node.name == 'outlines_rpt' and 'labels' in dict(data['connect']).values()
    }
    assert sources == {'outputnode', 'segment'}, 'what is drawn is what the tables take'


def test_without_tables_and_spaces_nothing_is_registered():
    workflow = workflows.init_series_wf(
        series=SERIES, settings=settings(atlas=()), out_dir='/nowhere/out'
    )
    assert not [name for name in workflow.list_node_names() if 'anatomy' in name]


def test_phase_only_series_builds_without_magnitude():
    workflow = workflows.init_subject_wf(
        series=[replace(SERIES, magnitude=())], settings=settings(), out_dir='/nowhere/out'
    )
    names = workflow.list_node_names()
    assert not [n for n in names if 'relaxometry' in n or 'anatomy' in n or 'magnitude' in n]
    assert 'where the phase is coherent' in workflow.visit_desc()


def test_t1w_image_reaches_its_stages_when_the_graph_is_made_ready(tmp_path):
    image = tmp_path / 'sub-01_T1w.nii.gz'
    image.touch()
    workflow = workflows.init_t1w_wf(t1w=str(image), out_dir='/nowhere/out', bids_dir=RAW)
    ready = generate_expanded_graph(workflow._create_flat_graph())
    inputs = {node.name: node.inputs for node in ready.nodes()}
    assert inputs['extract'].in_file == inputs['register'].in_file == str(image)


def test_what_is_given_is_not_made_again():
    def steps(given):
        options = {'t1w': SERIES.t1w, 'out_dir': '/nowhere/out', 'bids_dir': RAW}
        workflow = workflows.init_t1w_wf(**options, precomputed=given)
        names = {n.rpartition('.')[2] for n in workflow.list_node_names()}
        return names - {'inputnode', 'outputnode'}, workflow.visit_desc()

    names, text = steps(READY)
    assert names == {'given_mask', 'given_transforms'}, 'nothing is computed, and nothing copied'
    assert text == (
        'The brain mask of the T1w image and its registration to MNI152NLin2009cAsym were taken '
        'from fMRIPrep 1 (dataset x).'
    )
    names, text = steps(MASK_ONLY)
    assert names == {'given_mask', 'register', 'ds_forward', 'ds_inverse'}
    assert text == 'The brain mask of the T1w image was taken from fMRIPrep 1 (dataset x).'
    names, text = steps(NO_MASK)
    assert names == {'extract', 'given_transforms', 'ds_mask'}
    assert 'Its registration to MNI152NLin2009cAsym was taken from fMRIPrep 1' in text
    _, text = steps(replace(READY, t1w='/x'))
    assert text.startswith('The T1w image, its brain mask and its registration to MNI')
    assert 'by registration to the full-head template' not in text


@pytest.mark.parametrize('t1w', [SERIES.t1w, None])
def test_labels_name_what_placed_them(t1w):
    """The T1w image, the transforms that are stored, and the atlas."""
    workflow = workflows.init_qsmflow_wf(
        series=[replace(SERIES, t1w=t1w)], settings=settings(), out_dir='/nowhere/out'
    )
    sinks = [n.inputs for n in real_nodes(workflow)[1] if hasattr(n.inputs, 'path')]
    stored = {inputs.path for inputs in sinks}
    stored |= {f'atlas-{name}_description.json' for name in ('CIT168', 'dentate')}
    labels = {i.path: i.metadata for i in sinks if i.path.endswith('dseg.nii.gz')}
    assert len(labels) == 2
    for path, metadata in labels.items():
        sources = metadata['Sources']
        own = [uri.removeprefix('bids::') for uri in sources if uri.startswith('bids::')]
        assert set(own) <= stored, 'each is a file of the dataset'
        assert sum(uri.endswith('xfm.h5') for uri in own) == 1
        assert any('_description.json' in uri for uri in own)
        assert any('nuclei_xfm' in uri for uri in own) == ('CIT168' in path)
        assert any('to-GRE_mode-image_xfm.txt' in uri for uri in own) == bool(t1w)
        assert any(uri.endswith('_T1w.nii.gz') for uri in sources) == bool(t1w)
        assert metadata['SpatialReference'] == SERIES.sources[0]
        assert {'index', 'name', 'hemi'} & set(metadata) == {'hemi'}, 'the others are of BIDS'


def test_sidecars_of_masks_say_what_they_are():
    workflow = workflows.init_qsmflow_wf(
        series=[SERIES], settings=settings(), out_dir='/nowhere/out'
    )
    sinks = [n.inputs for n in real_nodes(workflow)[1] if hasattr(n.inputs, 'path')]
    masks = [inputs.metadata for inputs in sinks if inputs.path.endswith('_mask.nii.gz')]
    assert len(masks) == 3
    assert all(mask['Description'] and mask['SpatialReference'] for mask in masks)


def test_keys_of_sidecars_are_documented():
    workflow = workflows.init_qsmflow_wf(
        series=[SERIES], settings=settings(), out_dir='/nowhere/out'
    )
    sinks = [n.inputs for n in real_nodes(workflow)[1] if hasattr(n.inputs, 'path')]
    keys = {key for i in sinks if i.metadata for key in i.metadata}
    keys |= {*DETAILS, 'Refinement', 'Orientations', 'Warnings', 'Resolution', 'Relaxometry'}
    page = (Path(__file__).parents[2] / 'docs/outputs.md').read_text(encoding='utf-8')
    assert not {key for key in keys if f'`{key}`' not in page}
