"""Interfaces and graphs for the tests of plugins; jobs import them by this module's name."""

import os
import time

from nipype.interfaces.base import BaseInterfaceInputSpec, SimpleInterface, TraitedSpec, traits

from qsmflow.engine import MapNode, Node, Workflow


class _StepIn(BaseInterfaceInputSpec):
    number = traits.Int(mandatory=True)
    seconds = traits.Float(0.0, usedefault=True)
    how = traits.Enum('well', 'error', 'kill', usedefault=True)


class _StepOut(TraitedSpec):
    number = traits.Int()


class Step(SimpleInterface):
    """Add one; or end as it is told."""

    input_spec = _StepIn
    output_spec = _StepOut

    def _run_interface(self, runtime):
        time.sleep(self.inputs.seconds)
        if self.inputs.how == 'error':
            raise ValueError(f'the number {self.inputs.number} is not liked')
        if self.inputs.how == 'kill':
            os.kill(os.getpid(), 9)
        self._results['number'] = self.inputs.number + 1
        return runtime


class _TotalIn(BaseInterfaceInputSpec):
    numbers = traits.List(traits.Int(), mandatory=True)


class Total(SimpleInterface):
    """Add up."""

    input_spec = _TotalIn
    output_spec = _StepOut

    def _run_interface(self, runtime):
        self._results['number'] = sum(self.inputs.numbers)
        return runtime


def chain(folder, **ends):
    """Return a graph of two steps and a sum; ``ends`` tells the first step how to end."""
    workflow = Workflow(name='chain_wf', base_dir=str(folder))
    first = Node(Step(number=1, **ends), name='first', mem_gb=0.2, n_procs=1)
    second = Node(Step(), name='second', mem_gb=0.2)
    workflow.connect(first, 'number', second, 'number')
    return workflow


def fan(folder):
    """Return a graph with a MapNode of two: 11 + 21."""
    workflow = Workflow(name='fan_wf', base_dir=str(folder))
    several = MapNode(Step(), iterfield='number', name='several', mem_gb=0.2)
    several.inputs.number = [10, 20]
    total = Node(Total(), name='total', mem_gb=0.2)
    workflow.connect([(several, total, [('number', 'numbers')])])
    return workflow
