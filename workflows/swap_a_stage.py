"""Put an inversion of your own in the place of the package's.

python workflows/swap_a_stage.py TOTAL_FIELD MASK OUT

Any workflow that has the tag ``dipole_inversion``, the fields ``local_field``, ``mask`` and
``weights`` in its inputnode, and ``chimap`` in its outputnode, can stand in for that stage.
"""

import sys
from pathlib import Path

from nipype.interfaces import utility

from qsmflow.engine import Node, Workflow, identity
from qsmflow.interfaces import DerivativesSink
from qsmflow.workflows import init_susceptibility_wf


def divide_by_kernel(local_field: str, mask: str, limit: float) -> str:
    """Truncate the inverse kernel to zero below ``limit`` (TSVD): the part to replace."""
    import os

    import numpy as np

    from qsmflow import io
    from qsmflow.algorithms.operators import dipole_kernel

    field = io.load_volume(local_field)
    region = io.load_mask(mask, like=field)
    kernel = dipole_kernel(field.shape, field.voxel_size, b0_dir=field.b0_dir)
    inverse = np.divide(1, kernel, out=np.zeros_like(kernel), where=np.abs(kernel) > limit)
    chi = np.fft.irfftn(np.fft.rfftn(field.data * region) * inverse, s=field.shape, axes=(0, 1, 2))
    return io.save_volume(chi * region, field, os.path.abspath('chimap.nii'))


def init_my_inversion_wf(*, limit: float = 0.15, name: str = 'my_inversion_wf') -> Workflow:
    """Wrap the function above as a stage."""
    workflow = Workflow(name=name)
    workflow.tag = 'dipole_inversion'
    inputnode = identity('inputnode', ['local_field', 'mask', 'weights'])
    outputnode = identity('outputnode', ['chimap'])
    function = utility.Function(output_names=['chimap'], function=divide_by_kernel)
    invert = Node(function, name='invert')
    invert.inputs.limit = limit
    workflow.connect([
        (inputnode, invert, [('local_field', 'local_field'), ('mask', 'mask')]),
        (invert, outputnode, [('chimap', 'chimap')]),
    ])  # fmt: skip
    return workflow


def init_swapped_wf(*, total_field: str, mask: str, out_dir: str) -> Workflow:
    """Build the package's graph and splice the stage into it."""
    susceptibility_wf = init_susceptibility_wf().splice(init_my_inversion_wf())
    susceptibility_wf.inputs.inputnode.total_field = str(Path(total_field).absolute())
    susceptibility_wf.inputs.inputnode.mask = str(Path(mask).absolute())
    workflow = Workflow(name='swapped_wf', base_dir=str(Path(out_dir).absolute() / 'work'))
    out_dir = str(Path(out_dir).absolute())
    sink = Node(DerivativesSink(out_dir=out_dir, path='chimap.nii.gz'), name='ds_chimap')
    workflow.connect(susceptibility_wf, 'outputnode.chimap', sink, 'in_file')
    return workflow


if __name__ == '__main__':
    init_swapped_wf(total_field=sys.argv[1], mask=sys.argv[2], out_dir=sys.argv[3]).run()
