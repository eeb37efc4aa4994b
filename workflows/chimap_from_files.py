"""Susceptibility from plain NIfTI files, without BIDS.

python workflows/chimap_from_files.py OUT --magnitude m1.nii m2.nii --phase p1.nii p2.nii \
    --te 0.005 0.010 --field-strength 3 [--mask brain.nii]

Phase is taken to be in radians. The map lands in OUT/chimap.nii.gz, in ppm, relative to the brain.
"""

import argparse
from pathlib import Path

from qsmflow.engine import Node, Workflow
from qsmflow.interfaces import DerivativesSink
from qsmflow.units import imaging_frequency
from qsmflow.workflows import init_reconstruction_wf


def init_chimap_from_files_wf(
    *,
    magnitude: list[str],
    phase: list[str],
    te: list[float],
    field_strength: float,
    out_dir: str,
    mask: str | None = None,
    name: str = 'chimap_from_files_wf',
) -> Workflow:
    """Reconstruct one series of files and keep its susceptibility map."""
    workflow = Workflow(name=name)
    # Nodes run in folders of their own, so that relative paths would lose their meaning.
    reconstruction_wf = init_reconstruction_wf(
        te=te, f0=imaging_frequency(field_strength), mask_file=mask
    )
    inputnode = reconstruction_wf.inputs.inputnode
    inputnode.magnitude_files = [str(Path(path).absolute()) for path in magnitude]
    inputnode.phase_files = [str(Path(path).absolute()) for path in phase]
    ds_chimap = Node(DerivativesSink(out_dir=out_dir, path='chimap.nii.gz'), name='ds_chimap')
    workflow.connect([(reconstruction_wf, ds_chimap, [('outputnode.chimap', 'in_file')])])
    return workflow


def main(argv: list[str] | None = None) -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('out_dir', type=Path)
    parser.add_argument('--magnitude', nargs='+', required=True)
    parser.add_argument('--phase', nargs='+', required=True)
    parser.add_argument('--te', nargs='+', type=float, required=True, help='in s')
    parser.add_argument('--field-strength', type=float, required=True, help='in T')
    parser.add_argument('--mask')
    options = vars(parser.parse_args(argv))
    out_dir = options.pop('out_dir').absolute()
    workflow = init_chimap_from_files_wf(out_dir=str(out_dir), **options)
    workflow.base_dir = str(out_dir / 'work')
    workflow.run()


if __name__ == '__main__':
    main()
