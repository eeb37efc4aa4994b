"""A stage of one's own takes the place of the package's, and the rest stays as it is."""

import numpy as np
import pytest
from nipype.interfaces import utility

from qsmflow import io, workflows
from qsmflow.engine import Node, Workflow, identity

TE = [0.004, 0.010, 0.016]
KEPT = ('remove.local_field', 'remove.mask')


def scale_field(local_field: str) -> str:
    """Take twice the field for the susceptibility."""
    import os

    from qsmflow import io

    field = io.load_volume(local_field)
    return io.save_volume(2 * field.data, field, os.path.abspath('doubled.nii'))


def init_doubling_wf(tag='dipole_inversion'):
    workflow = Workflow(name='doubling_wf')
    workflow.tag = tag
    workflow.__desc__ = 'The field was doubled.\n'
    inputnode = identity('inputnode', ['local_field', 'mask', 'weights'])
    outputnode = identity('outputnode', ['chimap'])
    function = utility.Function(output_names=['chimap'], function=scale_field)
    double = Node(function, name='double')
    workflow.connect(inputnode, 'local_field', double, 'local_field')
    workflow.connect(double, 'chimap', outputnode, 'chimap')
    return workflow


def susceptibility(scan, files):
    workflow = workflows.init_susceptibility_wf(inversion='tkd', background='resharp')
    door = workflow.inputs.inputnode
    door.total_field, door.mask, door.weights = files.total_field, files.mask, files.weights
    return workflow


def reconstruction(scan, files):
    workflow = workflows.init_reconstruction_wf(
        te=TE,
        f0=scan.f0,
        mask_file=files.mask,
        methods={'inversion': 'tkd', 'background': 'resharp'},
    )
    door = workflow.inputs.inputnode
    door.magnitude_files, door.phase_files = [files.magnitude], [files.phase]
    return workflow


@pytest.mark.parametrize('build', [susceptibility, reconstruction])
def test_replaced_inversion_changes_the_map_and_nothing_before_it(scan, files, results, build):
    own = [io.load_volume(p).data for p in results(build(scan, files), 'refer.chimap', *KEPT)]
    spliced = build(scan, files).splice(init_doubling_wf())
    got = [io.load_volume(p).data for p in results(spliced, 'refer.chimap', *KEPT)]
    chi, field, mask = got
    np.testing.assert_array_equal(field, own[1])
    np.testing.assert_array_equal(mask, own[2])
    assert not np.allclose(chi, own[0], atol=1e-3)
    inside = mask > 0.5
    expected = np.where(inside, 2 * field - 2 * field[inside].mean(dtype=float), 0)
    np.testing.assert_allclose(chi, expected, atol=1e-6)


@pytest.mark.parametrize('build', [susceptibility, reconstruction])
def test_names_doors_and_the_other_sentences_stay(scan, files, build):
    before, spliced = build(scan, files), build(scan, files).splice(init_doubling_wf())
    theirs = {name for name in before.list_node_names() if 'dipole_inversion' not in name}
    assert theirs == {n for n in spliced.list_node_names() if 'dipole_inversion' not in n}
    assert any(n.endswith('dipole_inversion_wf.double') for n in spliced.list_node_names())
    sentence = before.find('dipole_inversion').__desc__.strip()
    assert spliced.visit_desc() == before.visit_desc().replace(sentence, 'The field was doubled.')


def test_stage_without_the_connected_field_is_refused(scan, files):
    lacking = Workflow(name='lacking_wf')
    lacking.tag = 'dipole_inversion'
    lacking.connect(
        identity('inputnode', ['local_field', 'mask']), 'mask', identity('outputnode', ['chimap']),
        'chimap',
    )  # fmt: skip
    with pytest.raises(Exception, match='weights'):
        susceptibility(scan, files).splice(lacking)


def test_unknown_stage_is_refused(scan, files):
    with pytest.raises(KeyError, match='background_removal'):
        susceptibility(scan, files).splice(init_doubling_wf(tag='nothing'))
