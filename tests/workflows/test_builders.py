"""Every builder makes a whole graph from its arguments alone, and says what it makes."""

import importlib
import inspect
import pkgutil
import re
from dataclasses import replace

import networkx as nx
import pytest
from nipype.interfaces.base import isdefined

from qsmflow import workflows
from qsmflow.algorithms.catalog import STAGES
from qsmflow.engine import Workflow
from qsmflow.interfaces import cosmos, field, phase, susceptibility
from qsmflow.interfaces.base import VolumeInterface
from qsmflow.interfaces.contrasts import Relaxometry
from qsmflow.interfaces.tables import RegionStatistics
from qsmflow.report import check_keys
from qsmflow.settings import Settings
from qsmflow.workflows.outputs import OUTPUTS
from tests.workflows.graphs import (
    ASEG,
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
)

MAPS = tuple(output.field for output in OUTPUTS)
METHODS = {'inversion': {'Method': 'tv', 'Parameters': {}}}
ALL_SPACES = {'spaces': ['T1w', 'MNI152NLin2009cAsym'], 'fields': MAPS, 'methods': METHODS}
T1W_DOOR = {'t1w', 't1w_mask', 't1w_to_template', 't1w_from_template', 't1w_check'}
DENTATE = {'dentate', 'dentate_info'}
OF_T1W = {'to_t1w', 'from_t1w', 't1w_check'}
WITH_DERIVATIVES = replace(SERIES, precomputed=READY)
DECAY = {'r2star', 't2star', 's0'}
EXTRAS = {'magnitude', 'r2star', 'field_noise'}
OF_PHASE = {'phase', 'sign'}
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
    case('dipole_inversion', method='tkd', unused=EXTRAS | OF_PHASE, unfed={'local_field'}),
    case(
        'dipole_inversion',
        method='medi0',
        unused={'field_noise', *OF_PHASE},
        unfed={'local_field'},
    ),
    case('dipole_inversion', method='tgv', unused=EXTRAS | OF_PHASE),
    case(
        'dipole_inversion',
        method='tgv_phase',
        te=TE,
        f0=127.7,
        unused={'local_field', 'r2star', 'field_noise'},
    ),
    case('susceptibility'),
    case('susceptibility', inversion='tgv', unfed={'background_convergence'}),
    case('susceptibility', inversion='tgv_phase', unfed={'background_convergence'}),
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
        for name, trait in node.inputs.traits(mandatory=True).items():
            if connected & set(trait.xor or ()):  # another takes its place
                needed.discard(name)
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
