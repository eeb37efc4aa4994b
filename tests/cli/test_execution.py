"""What is refused before anything is run."""

from dataclasses import replace

import pytest
from nipype.interfaces.utility import Function

from qsmflow.cli import execution
from qsmflow.engine import Node, Workflow
from qsmflow.settings import BIDSSettings, ExecutionSettings, ResourceSettings, Settings


def fail():
    raise AssertionError('this must not run')


@pytest.fixture
def workflow(tmp_path):
    """Return a graph of one subject whose inversion claims 3.5 GB and its removal 2.5 GB."""
    steps = Workflow(name='susceptibility_wf')
    for name, mem_gb in (('remove', 2.5), ('invert', 3.5), ('refer', 0.5)):
        steps.add_nodes([Node(Function(function=fail), name=name, mem_gb=mem_gb)])
    series = Workflow(name='sub_01_ses_a_wf')
    series.add_nodes([steps])
    subject = Workflow(name='sub_01_wf')
    subject.add_nodes([series])
    whole = Workflow(name='qsmflow_wf', base_dir=str(tmp_path))
    whole.add_nodes([subject])
    return whole


@pytest.fixture
def settings(tmp_path):
    """Return the settings of a run that may use 3 GB."""
    return Settings(
        bids=BIDSSettings(bids_dir=str(tmp_path), output_dir=str(tmp_path / 'out')),
        resources=ResourceSettings(nprocs=1, mem_gb=3.0),
    )


def test_node_that_cannot_fit_is_refused_before_the_run(workflow, settings, tmp_path):
    monitor = execution.make_monitor(workflow, settings)
    with pytest.raises(execution.InsufficientMemoryError) as refused:
        execution.run_graph(workflow, settings, tmp_path, monitor)
    text = str(refused.value)
    assert "sub-01_ses-a: the step 'susceptibility: invert' needs about 3.50 GB" in text
    assert 'may use 3.00 GB. ' in text
    assert '--mem ' in text
    assert '--low-mem' in text
    assert refused.value.exit_code == 1
    assert not monitor.finished
    assert not (tmp_path / 'qsmflow_wf').exists()


def test_all_steps_that_need_too_much_are_counted(workflow, settings):
    tight = replace(settings, resources=replace(settings.resources, mem_gb=1.0))
    with pytest.raises(execution.InsufficientMemoryError, match='2 steps need more'):
        execution.require_memory(workflow, tight)


@pytest.mark.parametrize(
    'change',
    [
        {'resources': ResourceSettings(nprocs=1, mem_gb=3.5)},
        {'resources': ResourceSettings(nprocs=1, mem_gb=3.0, low_mem=True)},
        {'execution': ExecutionSettings(plugin_file='cluster.yml')},
    ],
    ids=['enough', 'low-mem', 'plugin'],
)
def test_others_are_not_refused(workflow, settings, change):
    execution.require_memory(workflow, replace(settings, **change))


def test_empty_workflow_needs_nothing(settings):
    execution.require_memory(Workflow(name='nothing'), settings)
