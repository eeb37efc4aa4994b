"""Interfaces that sum up checks."""

from nipype.interfaces.base import BaseInterfaceInputSpec, SimpleInterface, TraitedSpec, traits

from qsmflow.interfaces.findings import FINDINGS


class _CombineChecksInputSpec(BaseInterfaceInputSpec):
    first = traits.Dict(mandatory=True, desc='check of the first registration of a chain')
    second = traits.Dict(desc='check of the second registration')


class _CombineChecksOutputSpec(TraitedSpec):
    check = traits.Dict(desc='passed only if all steps passed; score of the worst step')


class CombineChecks(SimpleInterface):
    """Join the checks of the registrations that lead to the template."""

    input_spec = _CombineChecksInputSpec
    output_spec = _CombineChecksOutputSpec

    def _run_interface(self, runtime):
        steps = [dict(check) for check in (self.inputs.first, self.inputs.second) if check]
        worst = min(steps, key=lambda step: (step['passed'], step['score']))
        self._results['check'] = {
            'passed': all(step['passed'] for step in steps),
            'score': worst['score'],
            'target': ' and '.join(step['target'] for step in steps),
            'reasons': [reason for step in steps for reason in step.get('reasons', [])],
            'steps': steps,
        }
        found = [finding for step in steps for finding in step.pop(FINDINGS, [])]
        if found:
            self._results['check'][FINDINGS] = found
        return runtime
