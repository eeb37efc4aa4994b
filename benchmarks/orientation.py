"""Measure one head on grids of other directions, axes, voxel shapes and sizes.

    python benchmarks/orientation.py [--voxel-size 1.5] [--seed 1] [--only NAME ...] [--out FILE]

The head and the main field stay; only the grid of the scan changes. Every version has noise, phase
offset and coil sensitivity of its own, as scans have; the version ``noise`` differs from the
reference in these alone and so tells what a difference is worth.

Three tables in ppb, relative to the mean of the whole brain. Regions are the true labels on each
version's own grid.

* the true mean of each region: it differs between grids, because voxels at a border hold the
  average of both sides;
* the error of the reconstruction, estimate less truth;
* the change of that error from the reference: what the chain itself owes to the grid. Those beyond
  ``--limit`` carry a star, and the exit status is 1 if a region of at least ``--volume`` does.

The truth is the average over each voxel. A scan keeps the middle of k-space instead, which raises
small bright regions; ``--truth kspace`` compares with the susceptibility truncated in this way.
"""

import argparse
import csv
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from chain import run_chain

from qsmflow import io, phantom
from qsmflow.phantom import tissues
from qsmflow.phantom.grid import FineGrid
from qsmflow.phantom.head import rasterise

#: Labels of one side by region; the other side's are added.
REGIONS = {
    'caudate': (2,), 'putamen': (1,), 'accumbens': (3,), 'GPe': (5,), 'GPi': (6,),
    'pallidum': (5, 6), 'SNc': (7,), 'SNr': (9,), 'SN': (7, 9), 'red_nucl.': (8,), 'STN': (16,),
    'thalamus': (20,), 'dentate': (21,), 'white': (30,), 'grey': (31,), 'csf': (32,),
    'vein': (33,),
}  # fmt: skip


def versions(size: float) -> dict[str, dict]:
    """Return the options of ``simulate_gre`` for every version; anisotropic ones keep the volume.

    Examples
    --------
    >>> versions(1.0)['1x1x2']['voxel_size']
    (0.7937, 0.7937, 1.5874)
    """
    short, long = size * 2 ** (-1 / 3), size * 2 ** (2 / 3)
    usual = [round(length / size) for length in phantom.head.FIELD_OF_VIEW]
    return {
        'reference': {},
        'noise': {'seed': 1},
        'x15': {'rotation_deg': (15, 0, 0)},
        'x30': {'rotation_deg': (30, 0, 0)},
        'y15': {'rotation_deg': (0, 15, 0)},
        'y30': {'rotation_deg': (0, 30, 0)},
        'LPS': {'axes': 'LPS'},
        'PSR': {'axes': 'PSR'},
        '1x1x2': {'voxel_size': (short, short, long)},
        '2x1x1': {'voxel_size': (long, short, short)},
        # One voxel more on each axis: even sizes become odd and odd ones even, and the voxels'
        # centres move by half a voxel against the head.
        'size': {'shape': tuple(n + 1 for n in usual)},
    }


def reconstruct_by_workflow(scan: phantom.Acquisition) -> tuple[np.ndarray, np.ndarray]:
    """Return chi and mask of the reconstruction workflow, which finds the brain by itself."""
    from qsmflow.workflows import init_reconstruction_wf

    with tempfile.TemporaryDirectory() as folder:
        workflow = init_reconstruction_wf(te=list(scan.te), f0=scan.f0)
        workflow.base_dir = folder
        door = workflow.inputs.inputnode
        for name in ('magnitude', 'phase'):
            like = io.Volume(getattr(scan, name), scan.affine)
            path = io.save_volume(like.data, like, Path(folder) / f'{name}.nii')
            setattr(door, f'{name}_files', [path])
        done = {node.name: node.result.outputs for node in workflow.run().nodes()}
        chi = io.load_volume(done['refer'].chimap)
        return chi.data, io.load_mask(done['remove'].mask, like=chi)


def truncated_truth(scan: phantom.Acquisition, head: phantom.Head) -> np.ndarray:
    """Return the susceptibility of the brain in the middle of k-space, as a scan samples it."""
    grid = FineGrid.make(scan.truth['mask'].shape, scan.affine, 2)
    fine = rasterise(head.person, head.pose, grid.shape, grid.affine)
    return grid.crop_kspace((fine.chi * fine.brain_mask).astype(np.complex64)).real


def region_means(volume: np.ndarray, labels: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the mean of each region in ppb, relative to the mean over the mask."""
    whole = volume[mask].mean(dtype=np.float64)
    return np.array([
        1000 * (volume[where & mask].mean(dtype=np.float64) - whole) for where in _places(labels)
    ])  # fmt: skip


def _places(labels):
    for one_side in REGIONS.values():
        yield np.isin(labels, [*one_side, *(n + tissues.RIGHT for n in one_side)])


def measure(head, options: argparse.Namespace, changes: dict) -> dict[str, np.ndarray]:
    """Scan and reconstruct one version; return true means, errors and volumes of its regions."""
    arguments = {'voxel_size': options.voxel_size, 'seed': 0, 'snr': options.snr} | changes
    scan = phantom.simulate_gre(head, **arguments)
    chi, mask = (run_chain if options.algorithms_only else reconstruct_by_workflow)(scan)
    labels, brain = scan.truth['labels'], scan.truth['mask']
    truth = truncated_truth(scan, head) if options.truth == 'kspace' else scan.truth['chi']
    voxels = [np.count_nonzero(where) for where in _places(labels)]
    true = region_means(truth, labels, brain & mask)
    return {
        'true': true,
        'error': region_means(chi, labels, brain & mask) - true,
        'mm3': np.array(voxels) * float(np.prod(scan.voxel_size)),
    }


def row(name: str, values: np.ndarray, star: np.ndarray | None = None) -> str:
    marks = ['*' if s else ' ' for s in star] if star is not None else [' '] * len(values)
    cells = [f'{value:9.1f}{mark}' for value, mark in zip(values, marks, strict=True)]
    return f'{name:10}' + ''.join(cells)


def report(found: dict[str, dict], limit: float, volume: float) -> list[str]:
    """Print the tables and return what misses the limit in regions that are large enough."""
    head = ' ' * 10 + ''.join(f'{name:>9} ' for name in REGIONS)
    first = found['reference']
    print('\ntrue means, ppb', head, row('mm3', first['mm3']), sep='\n')
    for name, result in found.items():
        print(row(name, result['true']))
    print('\nerror, estimate - truth, ppb', head, sep='\n')
    for name, result in found.items():
        print(row(name, result['error']))
    print(f'\nchange of the error from the reference, ppb; * beyond {limit:g}', head, sep='\n')
    missed = []
    for name, result in list(found.items())[1:]:
        change = result['error'] - first['error']
        far = np.abs(change) > limit
        print(row(name, change, far))
        missed += [
            f'{name} {region}'
            for region, size, bad in zip(REGIONS, first['mm3'], far, strict=True)
            if bad and size >= volume
        ]
    return missed


def write(found: dict[str, dict], path: Path) -> None:
    with path.open('w', encoding='utf-8', newline='') as stream:
        table = csv.writer(stream, delimiter='\t', lineterminator='\n')
        table.writerow(['version', 'region', 'mm3', 'true_ppb', 'error_ppb'])
        for name, result in found.items():
            for index, region in enumerate(REGIONS):
                values = (result[key][index] for key in ('mm3', 'true', 'error'))
                table.writerow([name, region, *(f'{value:.2f}' for value in values)])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--voxel-size', type=float, default=1.5, help='mm')
    parser.add_argument('--seed', type=int, default=1, help='anatomy')
    parser.add_argument('--snr', type=float, default=60.0, help='of white matter, first echo')
    parser.add_argument('--truth', choices=('voxel', 'kspace'), default='voxel')
    parser.add_argument('--limit', type=float, default=3.0, help='ppb')
    parser.add_argument('--volume', type=float, default=0.0, help='regions that count, mm3')
    parser.add_argument('--only', nargs='+', metavar='NAME', help='versions beside the reference')
    parser.add_argument('--out', type=Path, help='also write a TSV')
    parser.add_argument(
        '--algorithms-only',
        action=argparse.BooleanOptionalAction,
        default=True,
        help='the algorithms in the true brain mask; else the workflow with its own mask',
    )
    options = parser.parse_args()
    head = phantom.make_head(voxel_size=16.0, seed=options.seed)
    found = {}
    for name, changes in versions(options.voxel_size).items():
        if name != 'reference' and options.only and name not in options.only:
            continue
        start = time.monotonic()
        found[name] = measure(head, options, changes)
        print(f'{name}: {time.monotonic() - start:.0f} s', file=sys.stderr)
    missed = report(found, options.limit, options.volume)
    if options.out:
        write(found, options.out)
    print('\nbeyond the limit:', ', '.join(missed) or 'none')
    return 1 if missed else 0


if __name__ == '__main__':
    sys.exit(main())
