"""Invert one local field with every method that takes one and compare region means.

python workflows/compare_inversions.py LOCAL_FIELD MASK LABELS OUT

Writes OUT/chimap_<method>.nii.gz and prints the mean of each label, in ppb, one column per method.
"""

import sys
from pathlib import Path

import numpy as np

from qsmflow import io
from qsmflow.algorithms import STAGES
from qsmflow.engine import Node, Workflow
from qsmflow.interfaces import DerivativesSink
from qsmflow.workflows import init_dipole_inversion_wf

METHODS = [name for name, entry in STAGES['inversion'].items() if entry.takes == 'local_field']


def init_compare_inversions_wf(*, local_field: str, mask: str, out_dir: str) -> Workflow:
    """Build one branch for each inversion method."""
    workflow = Workflow(name='compare_inversions_wf')
    out_dir = str(Path(out_dir).absolute())
    for method in METHODS:
        invert_wf = init_dipole_inversion_wf(method=method, name=f'{method}_wf')
        invert_wf.inputs.inputnode.local_field = str(Path(local_field).absolute())
        invert_wf.inputs.inputnode.mask = str(Path(mask).absolute())
        sink = DerivativesSink(out_dir=out_dir, path=f'chimap_{method}.nii.gz')
        ds_chimap = Node(sink, name=f'ds_{method}')
        workflow.connect(invert_wf, 'outputnode.chimap', ds_chimap, 'in_file')
    return workflow


def label_means(out_dir: str, labels_file: str) -> dict[int, dict[str, float]]:
    """Return the mean of each label under each method, in ppb."""
    labels = np.rint(io.load_volume(labels_file).data).astype(int)
    maps = {m: io.load_volume(f'{out_dir}/chimap_{m}.nii.gz').data for m in METHODS}
    return {
        int(label): {m: 1000 * float(chi[labels == label].mean()) for m, chi in maps.items()}
        for label in np.unique(labels[labels > 0])
    }


def main(local_field: str, mask: str, labels: str, out_dir: str) -> None:
    """Run all methods and print the table."""
    workflow = init_compare_inversions_wf(local_field=local_field, mask=mask, out_dir=out_dir)
    workflow.base_dir = str(Path(out_dir).absolute() / 'work')
    workflow.run()
    print('label', *METHODS, sep='\t')
    for label, means in label_means(out_dir, labels).items():
        print(label, *(f'{value:.1f}' for value in means.values()), sep='\t')


if __name__ == '__main__':
    main(*sys.argv[1:5])
