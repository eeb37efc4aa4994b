"""The graph of a subject combines the orientations of each session, or says why not."""

import logging
from dataclasses import replace

import networkx as nx
import pytest
from nipype.interfaces.utility import IdentityInterface

from qsmflow import workflows
from qsmflow.bids.orientations import orientation_groups
from qsmflow.cli.execution import NodeFailure
from qsmflow.cli.participant import _cosmos_outcome
from qsmflow.cli.progress import Monitor
from qsmflow.settings import ReconstructionSettings, ResourceSettings, Settings
from tests.workflows.graphs import RUNS, SERIES, WITH_COSMOS

PART = 'sub_01_desc_cosmos_wf'


def subject(series, settings=WITH_COSMOS):
    return workflows.init_subject_wf(series=series, settings=settings, out_dir='/nowhere/out')


def nodes_of(workflow):
    """Return the nodes of the combination by name, and the flat graph."""
    flat = workflow._create_flat_graph()
    own = {node.name: node for node in flat.nodes() if f'.{PART}.' in f'.{node.fullname}'}
    return own, flat


def origins(flat, node, field):
    """Return the nodes from which an input comes, doors and merges passed over."""
    found, pending = [], [(node, field)]
    while pending:
        target, name = pending.pop()
        for source, _, links in flat.in_edges(target, data='connect'):
            for out, into in links:
                passing = isinstance(source.interface, IdentityInterface)
                if into != name and not (name == '*' and into.startswith('in')):
                    continue
                if passing:
                    pending.append((source, out))
                elif 'gather' in source.name:
                    pending.append((source, '*'))
                else:
                    found.append((source.fullname, out))
    return sorted(found)


def test_orientations_of_all_series_are_combined():
    own, flat = nodes_of(subject(RUNS))
    assert nx.is_directed_acyclic_graph(flat)
    assert {'register_2', 'register_3', 'combine', 'refer', 'ds_chimap', 'ds_mask'} <= set(own)
    assert 'register_4' not in own
    for field, node, out in (
        ('fields', 'background_removal_wf.remove', 'local_field'),
        ('masks', 'background_removal_wf.remove', 'mask'),
    ):
        found = origins(flat, own['combine'], field)
        assert len(found) == 3
        for run, (name, source) in enumerate(found, 1):
            assert f'.sub_01_run_{run}_wf.' in f'.{name}'
            assert name.endswith(node)
            assert source == out
    for field in ('magnitudes', 'masks'):
        assert len(origins(flat, own['register_2'], field)) == 3
    assert [own[f'register_{n}'].inputs.number for n in (2, 3)] == [1, 2]


def test_each_series_keeps_its_own_outputs():
    alone = set(subject(RUNS, Settings()).list_node_names())
    together = set(subject(RUNS).list_node_names())
    assert alone < together
    assert all(PART in name for name in together - alone)


def test_map_is_named_and_described_after_all_series():
    series = [replace(RUNS[0], f0=127.6), *RUNS[1:]]
    series[1] = replace(series[1], te=(0.005, 0.010, 0.020), b0_dir=(0.0, 0.6, 0.8))
    own, _ = nodes_of(subject(series))
    sink = own['ds_chimap'].inputs
    assert sink.path == 'sub-01/anat/sub-01_desc-cosmos_Chimap.nii.gz'
    assert own['ds_mask'].inputs.path == 'sub-01/anat/sub-01_desc-cosmos_mask.nii.gz'
    about = sink.metadata
    assert about['Sources'] == [uri for item in series for uri in item.sources]
    assert about['SpatialReference'] == 'bids:raw:sub-01/anat/sub-01_echo-1_part-mag_MEGRE.nii.gz'
    assert about['DipoleInversion']['Method'] == about['EstimationAlgorithm'] == 'cosmos'
    assert about['DipoleInversion']['Parameters']['max_iter'] == 60
    assert about['BackgroundFieldRemoval']['Method'] == 'pdf'
    assert about['MagneticFieldStrength'] == 3.0
    # What differs between the series belongs to none.
    assert not {'EchoTime', 'B0Direction', 'Warnings'} & set(about)


def test_settings_reach_the_combination():
    settings = Settings(
        reconstruction=ReconstructionSettings(cosmos=True, reference='csf', b0_dir='y'),
        resources=ResourceSettings(nprocs=4, omp_nthreads=3, mem_gb=5.0, low_mem=True),
    )
    own, flat = nodes_of(subject(RUNS, settings))
    assert own['combine'].inputs.b0_dirs == [(0.0, 1.0, 0.0)] * 3
    assert own['combine'].n_procs == 3
    assert own['combine'].mem_gb == 5.0
    assert own['refer'].inputs.region == 'csf'
    ((name, _),) = origins(flat, own['refer'], 'r2star')
    assert 'sub_01_run_1_wf' in name


@pytest.mark.parametrize('number', [1, 2])
def test_too_few_orientations_are_said_and_not_combined(number, caplog):
    with caplog.at_level(logging.WARNING, 'qsmflow.workflows'):
        workflow = subject(RUNS[:number])
    assert not [name for name in workflow.list_node_names() if 'cosmos' in name]
    assert 'WARN ORIN' in caplog.text
    assert f'found {number}' in caplog.text


def test_sessions_are_combined_apart():
    sessions = [
        replace(SERIES, session=ses, entities=(('sub', '01'), ('ses', ses), ('run', run)))
        for ses, runs in (('a', '123'), ('b', '1234'), ('c', '12'))
        for run in runs
    ]
    names = subject(sessions).list_node_names()
    parts = {name.partition('.')[0] for name in names if 'cosmos' in name}
    assert parts == {'sub_01_ses_a_desc_cosmos_wf', 'sub_01_ses_b_desc_cosmos_wf'}
    registrations = [name for name in names if 'ses_b' in name and 'cosmos_wf.register' in name]
    assert len(registrations) == 3


def test_too_few_are_refused_by_the_builder():
    with pytest.raises(ValueError, match='3 orientations or more; got n=2'):
        workflows.init_cosmos_wf(n=2)


def test_a_lost_reconstruction_is_a_lost_map():
    (group,) = orientation_groups(RUNS)
    stem = 'qsmflow_wf.sub_01_wf.sub_01_run_2_wf'

    def outcome(failed, node):
        failures = (NodeFailure(failed, node, 'ValueError: x', 'crash'),)
        return _cosmos_outcome(group, failures, Monitor({}))

    lost = outcome('sub-01_run-2', f'{stem}.reconstruction_wf.field_mapping_wf.fit')
    assert (lost.name, lost.status) == ('sub-01_desc-cosmos', 'failed')
    assert 'sub-01_run-2' in lost.reason
    own = outcome('sub-01_desc-cosmos', f'qsmflow_wf.sub_01_wf.{PART}.cosmos_wf.combine')
    assert own.status == 'failed'
    assert 'ValueError: x' in own.reason
    assert outcome('sub-01_run-2', f'{stem}.anatomy_wf.register').status == 'done'
    assert outcome('sub-02_run-2', 'x.reconstruction_wf.fit').status == 'done'
