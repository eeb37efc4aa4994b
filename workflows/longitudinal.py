"""Two sessions of one person: what changed between them, label by label.

python workflows/longitudinal.py OUT TE,TE,.. TESLA MAG PHASE MASK MAG PHASE MASK LABELS

MAG and PHASE (rad) are 4-D, LABELS on the grid of the first session. OUT gets both maps there and
difference.nii.gz (second minus first, ppm); the mean of each label is printed, in ppb.
"""

import sys
from pathlib import Path

import numpy as np

from qsmflow import io
from qsmflow.engine import Node, Workflow
from qsmflow.interfaces import ApplyTransforms, DerivativesSink, RegisterToT1w
from qsmflow.units import imaging_frequency
from qsmflow.workflows import init_reconstruction_wf


def init_longitudinal_wf(*, sessions: list[tuple], te: list, f0: float, out: str) -> Workflow:
    """Reconstruct two (magnitude, phase, mask) and bring the second map to the first, once."""
    workflow = Workflow(name='longitudinal_wf', base_dir=f'{out}/work')
    # The rigid registration takes any two images of one person; its target is the "T1w" one.
    register = Node(RegisterToT1w(), name='register')
    kinds = {'chimap': 'linear', 'qsm_mask': 'nearest'}
    move = {k: Node(ApplyTransforms(interpolation=v), name=f'move_{k}') for k, v in kinds.items()}
    for number, (magnitude, phase, mask) in enumerate(sessions, 1):
        wf = init_reconstruction_wf(te=te, f0=f0, mask_file=mask, name=f'session_{number}_wf')
        wf.inputs.inputnode.magnitude_files, wf.inputs.inputnode.phase_files = [magnitude], [phase]
        own, other = ('in_file', 'in_mask', 'reference'), ('t1w', 't1w_mask', 'in_file')
        image, brain, field = own if number == 1 else other
        workflow.connect(wf, 'outputnode.first_magnitude', register, image)
        workflow.connect(wf, 'outputnode.mask', register, brain)
        for key, node in move.items():
            workflow.connect(wf, f'outputnode.{key}', node, field)
            sink = DerivativesSink(out_dir=out, path=f'session-{number}_{key}.nii.gz')
            last = (wf, f'outputnode.{key}') if number == 1 else (node, 'out_file')
            workflow.connect(*last, Node(sink, name=f'ds_{number}_{key}'), 'in_file')
    workflow.connect([(register, node, [('inverse', 'transforms')]) for node in move.values()])
    return workflow


def main(out: str, te: str, tesla: str, *files: str) -> None:
    """Run, write the difference where both maps are valid, and print its label means."""
    out, *files = (str(Path(path).absolute()) for path in (out, *files))
    timing = {'te': [float(t) for t in te.split(',')], 'f0': imaging_frequency(float(tesla))}
    init_longitudinal_wf(sessions=[files[:3], files[3:6]], out=out, **timing).run()
    one, two = (io.load_volume(f'{out}/session-{n}_chimap.nii.gz') for n in (1, 2))
    both = np.all([io.load_mask(f'{out}/session-{n}_qsm_mask.nii.gz') for n in (1, 2)], axis=0)
    change = np.where(both, two.data - one.data, np.float32(0))
    io.save_volume(change, one, f'{out}/difference.nii.gz')
    labels = np.where(both, io.load_volume(files[6]).data, 0).round().astype(int)
    for label in np.unique(labels[labels > 0]):
        print(label, f'{1000 * change[labels == label].mean():.1f}', sep='\t')


if __name__ == '__main__':
    main(*sys.argv[1:])
