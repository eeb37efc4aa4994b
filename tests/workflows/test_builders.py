"""Every builder makes a whole graph from its arguments alone, and says what it makes."""

import importlib
import inspect
import pkgutil
import re
from dataclasses import replace

import networkx as nx
import pytest
from nipype.interfaces.base import isdefined
from nipype.interfaces.utility import IdentityInterface
from nipype.pipeline.engine.utils import generate_expanded_graph

from qsmflow import workflows
from qsmflow.algorithms.catalog import STAGES
from qsmflow.algorithms.phase import parse_scaling
from qsmflow.bids.precomputed import Precomputed, Segmentation
from qsmflow.bids.series import GRESeries
from qsmflow.engine import Workflow
from qsmflow.interfaces import cosmos, field, phase, susceptibility
from qsmflow.interfaces.base import VolumeInterface
from qsmflow.interfaces.contrasts import Relaxometry
from qsmflow.interfaces.tables import RegionStatistics
from qsmflow.report import check_keys
from qsmflow.settings import OutputSettings, ReconstructionSettings, Settings
from qsmflow.workflows.outputs import OUTPUTS

TE = [0.005, 0.010, 0.015]
RAW = '/nowhere/raw'
STEM = f'{RAW}/sub-01/anat/sub-01_echo'
SERIES = GRESeries(
    subject='01',
    session=None,
    entities=(('sub', '01'),),
    suffix='MEGRE',
    magnitude=tuple(f'{STEM}-{n}_part-mag_MEGRE.nii.gz' for n in (1, 2, 3)),
    phase=tuple(f'{STEM}-{n}_part-phase_MEGRE.nii.gz' for n in (1, 2, 3)),
    real=(),
    imag=(),
    te=tuple(TE),
    echo_numbers=(1, 2, 3),
    volumes=None,
    field_strength=3.0,
    f0=127.7,
    shape=(64, 64, 40),
    affine=((1.0, 0, 0, 0), (0, 1.0, 0, 0), (0, 0, 2.0, 0), (0, 0, 0, 1.0)),
    voxel_size=(1.0, 1.0, 2.0),
    b0_dir=(0.0, 0.0, 1.0),
    scaling=parse_scaling('rad'),
    bids_dir=RAW,
    t1w=f'{RAW}/sub-01/anat/sub-01_T1w.nii.gz',
)
RUNS = [replace(SERIES, entities=(('sub', '01'), ('run', str(n)))) for n in (1, 2, 3)]
WITH_COSMOS = Settings(reconstruction=ReconstructionSettings(cosmos=True))
OUT = {'series': SERIES, 'out_dir': '/nowhere/out'}
MAPS = tuple(output.field for output in OUTPUTS)
METHODS = {'inversion': {'Method': 'tv', 'Parameters': {}}}
ALL_SPACES = {'spaces': ['T1w', 'MNI152NLin2009cAsym'], 'fields': MAPS, 'methods': METHODS}
T1W_DOOR = {'t1w', 't1w_mask', 't1w_to_template', 't1w_from_template', 't1w_check'}
DENTATE = {'dentate', 'dentate_info'}
OF_T1W = {'to_t1w', 'from_t1w', 't1w_check'}
# Any file that is there: a graph does not read it.
ASEG = Segmentation(__file__, 'bids:fs:sub-01/mri/aseg.mgz', 'aseg', 'aseg')
MASK_ONLY = Precomputed('fMRIPrep 1 (dataset x)', mask=__file__, mask_uri='bids:x:mask')
READY = replace(MASK_ONLY, to_template=__file__, from_template=__file__, segmentations=(ASEG,))
NO_MASK = replace(READY, mask=None)
WITH_DERIVATIVES = replace(SERIES, precomputed=READY)
DECAY = {'r2star', 't2star', 's0'}
EXTRAS = {'magnitude', 'r2star', 'field_noise'}
DRAWN = (*MAPS, 'magnitude', 'phase')


def case(builder, unused=(), unfed=(), **options):
    """Name a builder, its options, and the optional fields that these leave aside."""
    label = '-'.join(str(value) for value in options.values() if isinstance(value, str | bool))
    return pytest.param(
        getattr(workflows, f'init_{builder}_wf'),
        options,
        set(unused),
        set(unfed),
        id=f'{builder}-{label}',
    )


CASES = [
    case('preparation'),
    case('brain_mask', te=TE),
    case('brain_mask', te=TE, method='deepbet'),
    case('brain_mask', te=TE, method='quality', unused={'first_magnitude'}),
    case('brain_mask', te=TE, mask_file=__file__, unused={'first_magnitude'}),
    case('field_mapping', te=TE, f0=127.7),
    case('field_mapping', te=TE, f0=127.7, bipolar='on', unwrapping_fallback=False),
    case('field_mapping', te=TE, f0=127.7, bipolar='off', unfed={'bipolar'}),
    case('field_mapping', te=TE[:2], f0=127.7, unfed={'bipolar'}),
    case('field_mapping', te=TE[:1], f0=127.7, unfed={'bipolar'}),
    case('relaxometry', te=TE),
    case('background_removal'),
    case('dipole_inversion', method='tkd', unused=EXTRAS, unfed={'local_field'}),
    case('dipole_inversion', method='medi0', unused={'field_noise'}, unfed={'local_field'}),
    case('susceptibility'),
    case('susceptibility', reference='csf'),
    case('cosmos', unused={'r2star'}),
    case('cosmos', n=5, reference='csf', interpolation='cubic', b0_dir=(0.0, 1.0, 0.0)),
    case('reconstruction', te=TE, f0=127.7),
    case('reconstruction', te=TE, f0=127.7, reference='csf', mask_file=__file__),
    case('reconstruction', te=TE[:1], f0=127.7, unfed=DECAY),
    case(
        'reconstruction',
        te=TE,
        f0=127.7,
        has_magnitude=False,
        mask_method='quality',
        unfed=DECAY,
    ),
    case('t1w', t1w=SERIES.t1w, out_dir='/nowhere/out', bids_dir=RAW),
    case('t1w', t1w=SERIES.t1w, out_dir='/nowhere/out', bids_dir=RAW, precomputed=READY),
    case('t1w', t1w=SERIES.t1w, out_dir='/out', bids_dir=RAW, precomputed=MASK_ONLY),
    case('t1w', t1w=SERIES.t1w, out_dir='/out', bids_dir=RAW, precomputed=NO_MASK),
    case('anatomy', has_t1w=True, **OUT),
    case('anatomy', has_t1w=False, **OUT, unused=T1W_DOOR, unfed=OF_T1W | {'t1w'}),
    case('spaces', **ALL_SPACES, **OUT),
    case('spaces', **ALL_SPACES | {'spaces': ['T1w']}, **OUT, unused={'to_template'}),
    case('dentate', **OUT),
    case('atlas_labels', atlas='CIT168', **OUT),
    case('atlas_table', atlas='CIT168', with_dentate=True, **OUT),
    case('atlas_table', atlas='CIT168', **OUT, unused=DENTATE),
    case('regions', atlas_names=['CIT168'], **OUT, unused=OF_T1W),
    case('regions', atlas_names=['CIT168'], segmentations=[ASEG], **OUT),
    case('atlas_table', atlas=ASEG.path, segmentation=ASEG, **OUT, unused=DENTATE),
    case('outputs', methods=METHODS, fields=MAPS, **OUT),
    case(
        'outputs',
        methods=METHODS,
        fields=MAPS,
        level='minimal',
        **OUT,
        unused={'total_field', 'local_field', 'field_noise'},
    ),
    case('reportlets', summary={'series': 'sub-01'}, fields=DRAWN, **OUT),
    case('series', series=WITH_DERIVATIVES, settings=Settings(), out_dir='/nowhere/ready'),
    case('series', series=SERIES, settings=Settings(), out_dir='/nowhere/out'),
    case('subject', series=[SERIES], settings=Settings(), out_dir='/nowhere/out'),
    case('subject', series=RUNS, settings=WITH_COSMOS, out_dir='/nowhere/out'),
    case('qsmflow', series=[SERIES], settings=Settings(), out_dir='/nowhere/out'),
]
#: Stages whose kernels use the threads that they are given.
THREADED = (
    phase.BipolarCorrection,
    phase.PhaseOffsetRemoval,
    phase.PhaseUnwrapping,
    field.FieldFit,
    field.FieldSign,
    susceptibility.BackgroundRemoval,
    susceptibility.DipoleInversion,
    cosmos.CosmosInversion,
    Relaxometry,
)
every_case = pytest.mark.parametrize(('builder', 'options', 'unused', 'unfed'), CASES)


def all_builders():
    """Return every builder of the package's modules, by name."""
    found = {}
    for module in pkgutil.iter_modules(workflows.__path__, 'qsmflow.workflows.'):
        for name, function in vars(importlib.import_module(module.name)).items():
            if re.fullmatch(r'init_\w+_wf', name) and inspect.isfunction(function):
                found[name] = function
    return found


def door(workflow, name):
    """Return the door of a workflow and its fields."""
    node = next((n for n in workflow._graph.nodes() if n.name == name), None)
    return node, set(node.interface._fields) if node else set()


def real_nodes(workflow):
    """Return the nodes that do something, at any depth."""
    flat = workflow._create_flat_graph()
    return flat, [n for n in flat.nodes() if not isinstance(n.interface, IdentityInterface)]


def test_every_builder_is_public_and_tested():
    builders = all_builders()
    assert set(builders) == set(workflows.__all__)
    assert all(getattr(workflows, name) is builder for name, builder in builders.items())
    assert {parameter.values[0] for parameter in CASES} == set(builders.values())


@every_case
def test_doors_are_connected_on_their_inner_side(builder, options, unused, unfed):
    workflow = builder(**options)
    inputnode, inputs = door(workflow, 'inputnode')
    outputnode, outputs = door(workflow, 'outputnode')
    edges = list(workflow._graph.edges(data='connect'))
    used = {pair[0] for source, _, links in edges if source is inputnode for pair in links}
    fed = {pair[1] for _, target, links in edges if target is outputnode for pair in links}
    assert inputs - used == unused
    assert outputs - fed == unfed


@every_case
def test_what_a_node_needs_is_set_or_connected(builder, options, unused, unfed):
    flat, nodes = real_nodes(builder(**options))
    assert nodes
    assert nx.is_directed_acyclic_graph(flat)
    for node in nodes:
        connected = {
            pair[1] for *_, links in flat.in_edges(node, data='connect') for pair in links
        }
        needed = set(node.inputs.traits(mandatory=True)) - connected
        missing = {name for name in needed if not isdefined(getattr(node.inputs, name))}
        assert not missing, f'{node.fullname} lacks {missing}'


@every_case
def test_doors_of_the_stages_inside_are_fed(builder, options, unused, unfed):
    workflow = builder(**options)
    flat = workflow._create_flat_graph()
    own, _ = door(workflow, 'inputnode')
    missing = set()
    for node in flat.nodes():
        if node.name != 'inputnode' or (own and node.fullname == own.fullname):
            continue
        fed = {pair[1] for *_, links in flat.in_edges(node, data='connect') for pair in links}
        empty = {f for f in node.interface._fields if not isdefined(getattr(node.inputs, f))}
        missing |= {(node.fullname.split('.')[-2], field) for field in empty - fed}
    expected = set()
    if unfed == DECAY:  # no decay, no fluid
        expected = {('susceptibility_wf', 'r2star')}
    if builder is workflows.init_series_wf:  # those of the T1w image belong to the subject
        expected |= {('anatomy_wf', field) for field in T1W_DOOR}
    # Only the table of the atlas gets the rows of the dentate nuclei.
    missing -= {('aseg_wf', field) for field in DENTATE}
    assert missing == expected


@every_case
def test_docstring_names_the_fields_of_both_doors(builder, options, unused, unfed):
    workflow = builder(**options)
    for name, title in (('inputnode', 'Inputs'), ('outputnode', 'Outputs')):
        _, fields = door(workflow, name)
        assert fields == documented_fields(builder, title)


def documented_fields(builder, title):
    lines = inspect.getdoc(builder).splitlines()
    if title not in lines:
        return set()
    section = lines[lines.index(title) + 2 :]
    ends = [i for i, line in enumerate(section) if re.fullmatch('-{3,}', line)]
    names = [line for line in section[: ends[0] - 1 if ends else None] if re.match(r'\w', line)]
    return {name.strip() for line in names for name in line.split(' : ')[0].split(',')}


@every_case
def test_description_cites_what_the_bibliography_holds(builder, options, unused, unfed):
    text = builder(**options).visit_desc()
    check_keys(text)
    # No citation that the pattern of the checker overlooks.
    assert len(re.findall(r'@\w', text)) == sum(
        group.count('@') for group in re.findall(r'\[@[^\]]+\]', text)
    )
    assert '{' not in text


@pytest.mark.parametrize('builder', all_builders().values(), ids=all_builders())
def test_parameters_are_keywords_and_documented(builder):
    signature = inspect.signature(builder)
    text = inspect.getdoc(builder)
    assert signature.return_annotation is Workflow
    for parameter in signature.parameters.values():
        assert parameter.kind is inspect.Parameter.KEYWORD_ONLY
        assert re.search(rf'(^|, ){parameter.name}(,[\w, ]+)? : ', text, re.MULTILINE)


@every_case
def test_memory_and_threads_are_claimed(builder, options, unused, unfed):
    accepted = inspect.signature(builder).parameters
    claim = {k: v for k, v in (('mem_gb', 5.5), ('n_procs', 3)) if k in accepted}
    _, nodes = real_nodes(builder(**options, **claim))
    heavy = [n for n in nodes if isinstance(n.interface, VolumeInterface | RegionStatistics)]
    for node in heavy:
        if 'mem_gb' in claim:
            assert node._mem_gb == 5.5, node.fullname
        else:
            assert node._mem_gb > 0.2, node.fullname  # what nipype claims by default
    for node in nodes:
        threads = claim.get('n_procs', node.n_procs) if isinstance(node.interface, THREADED) else 1
        assert node.n_procs == threads, node.fullname


@pytest.mark.parametrize(
    ('stage', 'method'), [(stage, name) for stage in STAGES for name in STAGES[stage]]
)
def test_every_method_builds_and_is_named_and_cited(stage, method):
    params = {stage: {'max_iter': 3}} if method == 'tv' else {}
    workflow = workflows.init_reconstruction_wf(
        te=TE, f0=127.7, methods={stage: method}, params=params
    )
    text = workflow.visit_desc()
    entry = STAGES[stage][method]
    assert entry.title in text or method == 'single'  # as it is by default
    assert set(entry.citations) <= set(check_keys(text))
    _, nodes = real_nodes(workflow)
    trait = 'strategy' if stage == 'strategy' else 'method'
    chosen = [n for n in nodes if getattr(n.inputs, trait, None) == method]
    assert len(chosen) == 1
    if stage != 'strategy':
        assert chosen[0].inputs.params == params.get(stage, {})


def wrapped_phase_path(workflow):
    """Return the nodes that the wrapped phase goes through until it is unwrapped."""
    flat, nodes = real_nodes(workflow)
    node = next(n for n in nodes if n.name == 'unwrap')
    names = []
    while node:
        names.insert(0, node.name)
        edges = flat.in_edges(node, data='connect')
        sources = [s for s, _, links in edges for pair in links if pair == ('phase', 'phase')]
        node = sources[0] if sources else None
    return names


@pytest.mark.parametrize(
    ('n_echoes', 'mode', 'path'),
    [
        (3, 'auto', ['inputnode', 'bipolar', 'offset', 'unwrap']),
        (3, 'on', ['inputnode', 'bipolar', 'offset', 'unwrap']),
        (3, 'off', ['inputnode', 'offset', 'unwrap']),
        (2, 'auto', ['inputnode', 'offset', 'unwrap']),
        (1, 'auto', ['inputnode', 'unwrap']),
    ],
)
def test_bipolar_readout_is_corrected_before_all_else(n_echoes, mode, path):
    workflow = workflows.init_field_mapping_wf(te=TE[:n_echoes], f0=127.7, bipolar=mode)
    assert wrapped_phase_path(workflow) == path
    assert ('@li2015]' in workflow.__desc__) is ('bipolar' in path)
    # What is unwrapped again, if need be, is the same phase.
    flat, nodes = real_nodes(workflow)
    fit = next(n for n in nodes if n.name == 'fit')
    sources = {
        source.name
        for source, _, links in flat.in_edges(fit, data='connect')
        if ('phase', 'phase') in links
    }
    assert sources == {path[-2]}


def test_what_is_said_of_a_bipolar_readout_is_true_whether_or_not_there_is_one():
    options = {'te': TE, 'f0': 127.7}
    auto = workflows.init_field_mapping_wf(**options).__desc__
    assert 'was tested for' in auto
    assert 'corrected if one was found' in auto
    assert (
        'was fitted and removed'
        in workflows.init_field_mapping_wf(**options, bipolar='on').visit_desc()
    )


@pytest.mark.parametrize(
    ('fallback', 'unwrapping'), [(True, 'romeo'), (False, 'romeo'), (True, 'best_path')]
)
def test_fit_knows_how_the_phase_was_unwrapped(fallback, unwrapping):
    params = {'unwrapping': {'template': 1}, 'field': {}}
    workflow = workflows.init_field_mapping_wf(
        te=TE, f0=127.7, unwrapping=unwrapping, params=params, unwrapping_fallback=fallback
    )
    fit = workflow.get_node('fit').inputs
    assert (fit.unwrapping, fit.unwrapping_params) == (unwrapping, {'template': 1})
    assert fit.fallback is fallback
    assert ('or by another method if' in workflow.__desc__) is fallback


@pytest.mark.parametrize(
    ('options', 'polarity'),
    [
        ({}, [-1, 1, -1]),
        ({'echoes': [1, 2, 3]}, [1, -1, 1]),
        ({'echoes': [0, 1, 3]}, [-1, 1, 1]),
        ({'echoes': [0, 1, 3], 'echo_numbers': [2, 3, 4]}, [1, -1, 1]),
    ],
)
def test_echoes_that_were_left_out_count_for_the_readout(options, polarity):
    workflow = workflows.init_reconstruction_wf(te=TE, f0=127.7, **options)
    assert workflow.get_node('field_mapping_wf.bipolar').inputs.polarity == polarity


def test_bipolar_correction_that_is_not_possible_is_refused():
    for options in ({'te': TE[:2]}, {'te': TE, 'echo_numbers': [1, 3, 5]}):
        with pytest.raises(ValueError, match="Choose 'auto'"):
            workflows.init_field_mapping_wf(f0=127.7, bipolar='on', **options)
    with pytest.raises(ValueError, match='must name 3 echoes'):
        workflows.init_field_mapping_wf(te=TE, f0=127.7, echo_numbers=[1, 2])
    with pytest.raises(ValueError, match="'yes'"):
        workflows.init_field_mapping_wf(te=TE, f0=127.7, bipolar='yes')


def test_settings_of_bipolar_and_unwrapping_reach_their_nodes():
    chosen = settings(recon={'bipolar': 'on', 'unwrapping_fallback': False}, atlas=())
    left_out = replace(SERIES, echo_numbers=(1, 2, 4))
    workflow = workflows.init_series_wf(series=left_out, settings=chosen, out_dir='/nowhere/out')
    mapping = workflow.get_node('reconstruction_wf.field_mapping_wf')
    correct = mapping.get_node('bipolar').inputs
    assert (correct.mode, correct.polarity) == ('on', [-1, 1, 1])
    assert mapping.get_node('fit').inputs.fallback is False


@pytest.mark.parametrize('n_echoes', [2, 3])
def test_what_was_found_reaches_sidecars_and_report(n_echoes, caplog):
    caplog.set_level('INFO', logger='qsmflow')
    series = replace(
        SERIES,
        magnitude=SERIES.magnitude[:n_echoes],
        phase=SERIES.phase[:n_echoes],
        te=SERIES.te[:n_echoes],
        echo_numbers=SERIES.echo_numbers[:n_echoes],
    )
    workflow = workflows.init_series_wf(
        series=series, settings=settings(atlas=()), out_dir='/nowhere/out'
    )
    said = f'{series.name}: not tested for a bipolar readout: this needs three echoes'
    assert (said in caplog.text) is (n_echoes == 2)
    # The files of the series are not there to be set.
    workflow.get_node('reconstruction_wf').inputs.inputnode.trait_set(
        magnitude_files=[], phase_files=[]
    )
    ready = generate_expanded_graph(workflow._create_flat_graph())
    nodes = {node.name: node for node in ready.nodes()}
    for name, bipolar, unwrapping in (
        ('details', 'BipolarCorrection', 'Unwrapping'),
        ('field_details', 'BipolarCorrection', 'Unwrapping'),
        ('summary', 'bipolar', 'unwrapping'),
    ):
        fed = {
            pair[1]: source.name
            for source, _, links in ready.in_edges(nodes[name], data='connect')
            for pair in links
        }
        assert fed[unwrapping] == 'fit'
        if n_echoes == 3:
            assert fed[bipolar] == 'bipolar'
        else:
            said = getattr(nodes[name].inputs, bipolar)
            assert said['Tested'] is False
            assert 'in use: 2' in said['Reason']
    for name in ('total_field', 'local_field', 'field_noise'):
        (source,) = (
            s.name
            for s, _, links in ready.in_edges(nodes[f'ds_{name}'], data='connect')
            if ('out', 'details') in links
        )
        assert source == 'field_details'


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


def settings(**options):
    return Settings(
        reconstruction=ReconstructionSettings(**options.pop('recon', {})),
        outputs=OutputSettings(**options),
    )


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
