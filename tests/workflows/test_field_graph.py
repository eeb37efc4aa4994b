"""What the graph does about a bipolar readout and an unwrapping that fails, and what it says."""

from dataclasses import replace

import pytest
from nipype.pipeline.engine.utils import generate_expanded_graph

from qsmflow import workflows
from tests.workflows.graphs import SERIES, TE, real_nodes, settings


def wrapped_phase_path(workflow, end='unwrap'):
    """Return the nodes that the wrapped phase goes through until it is used."""
    flat, nodes = real_nodes(workflow)
    node = next(n for n in nodes if n.name == end)
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


@pytest.mark.parametrize(
    ('n_echoes', 'bipolar', 'path'),
    [
        (3, 'auto', ['prepare', 'bipolar', 'offset', 'invert']),
        (2, 'off', ['prepare', 'offset', 'invert']),
        (1, 'auto', ['prepare', 'invert']),
    ],
)
def test_inversion_of_phase_gets_the_corrected_phase_and_no_field(n_echoes, bipolar, path):
    workflow = workflows.init_reconstruction_wf(
        te=TE[:n_echoes], f0=127.7, bipolar=bipolar, methods={'inversion': 'tgv_phase'}
    )
    names = wrapped_phase_path(workflow, 'invert')
    assert [name for name in names if name not in ('inputnode', 'outputnode')] == path
    ready = generate_expanded_graph(workflow._create_flat_graph())
    given = {
        door: (source.name, output)
        for source, target, data in ready.edges(data=True)
        for output, door in data['connect']
        if target.name == 'invert'
    }
    assert given == {
        'phase': (path[-2], 'phase'),
        'sign': ('orient', 'info'),
        'magnitude': ('prepare', 'magnitude'),
        'mask': ('refine', 'mask'),
        'weights': ('fit', 'weights'),
    }
    invert = next(node for node in ready.nodes() if node.name == 'invert').inputs
    assert (invert.te, invert.f0) == (TE[:n_echoes], 127.7)
    assert not [node for node in ready.nodes() if node.name == 'remove']
    assert 'from the wrapped phase of the echoes by one-step multi-echo' in workflow.visit_desc()


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
        ('local_details', 'BipolarCorrection', 'Unwrapping'),
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
    for name, details in (
        ('total_field', 'field_details'),
        ('local_field', 'local_details'),
        ('field_noise', 'field_details'),
    ):
        (source,) = (
            s.name
            for s, _, links in ready.in_edges(nodes[f'ds_{name}'], data='connect')
            if ('out', 'details') in links
        )
        assert source == details
