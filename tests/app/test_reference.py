"""Values of regions against a stored table: a change in numbers must be meant, and be told."""

import copy
from pathlib import Path

from tests.test_packaging import load_tool

REFERENCE = Path(__file__).with_name('regions.tsv')
ADVICE = """\
The values of regions changed beyond rounding:
  {lines}
If that is meant: say so in CHANGES.md under "What changes in numbers", and make the table again:
  python tools/make_reference.py > tests/app/regions.tsv
If not: something that should not touch the results does.
"""
tool = load_tool('make_reference')


def test_regions_have_the_values_of_the_reference(base_run):
    reference = tool.read_reference(REFERENCE)
    assert len(reference) > 100
    lines = tool.differences(reference, tool.read_values(base_run.out))
    shown = [*lines[:20], f'... and {len(lines) - 20} more'] if len(lines) > 20 else lines
    assert not lines, ADVICE.format(lines='\n  '.join(shown))


def test_a_change_would_be_seen():
    reference = tool.read_reference(REFERENCE)
    assert tool.differences(reference, reference) == []
    key = next(k for k, row in reference.items() if k[-1] == 'ppb' and row['n_voxels'] > 20)
    changed = copy.deepcopy(reference)
    changed[key]['mean'] += 0.4
    assert tool.differences(reference, changed) == [], 'rounding'
    changed[key]['mean'] += 0.2
    (line,) = tool.differences(reference, changed)
    assert line.startswith(' '.join(key))
    del changed[key]
    assert tool.differences(reference, changed) == [f'{" ".join(key)}: is not there']
    changed[key] = {**reference[key], 'mean': float('nan')}
    assert len(tool.differences(reference, changed)) == 1, 'a value that got lost'
