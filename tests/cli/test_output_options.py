"""What --level and --output-spaces change of what a run writes."""

from dataclasses import replace

import pytest

from qsmflow.cli.parser import parse_args
from qsmflow.interfaces.bids import DerivativesSink
from qsmflow.workflows.base import init_subject_wf
from tests.workflows.graphs import SERIES

FIELDS = {
    f'sub-01/fmap/sub-01_desc-{what}_fieldmap.nii.gz' for what in ('total', 'local', 'noise')
}
MNI = 'MNI152NLin2009cAsym'


def outputs(folders, *options, series=SERIES):
    """Return the paths of all files that the graph of a command line stores."""
    settings = parse_args([*folders, *options])
    workflow = init_subject_wf(series=[series], settings=settings, out_dir='/nowhere/out')
    nodes = (workflow.get_node(name) for name in workflow.list_node_names())
    return {n.interface.inputs.path for n in nodes if isinstance(n.interface, DerivativesSink)}


def test_minimal_leaves_out_the_field_maps_and_nothing_else(folders):
    full = outputs(folders, '--level', 'full')
    assert full == outputs(folders)
    assert full > FIELDS
    assert full - outputs(folders, '--level', 'minimal') == FIELDS


def in_space(space):
    return {
        f'sub-01/anat/sub-01_space-{space}_{suffix}.nii.gz'
        for suffix in ('Chimap', 'R2starmap', 'T2starmap')
    }


@pytest.mark.parametrize(
    ('spaces', 'has_t1w', 'added'),
    [
        (('T1w',), True, in_space('T1w')),
        ((MNI,), True, in_space(f'{MNI}_res-1')),
        (('T1w', MNI), True, in_space('T1w') | in_space(f'{MNI}_res-1')),
        (('T1w', MNI), False, in_space(f'{MNI}_res-1')),
    ],
)
def test_spaces_add_their_maps_and_nothing_else(folders, spaces, has_t1w, added):
    series = SERIES if has_t1w else replace(SERIES, t1w=None)
    without = outputs(folders, series=series)
    assert not without & added
    assert outputs(folders, '--output-spaces', *spaces, series=series) == without | added
