"""Run the app on the full phantom with its defaults and compare everything with the truth.

    python benchmarks/accuracy.py [--voxel-size 1] [--seed 5] [--folder DIR] [--limits]

Prints region means beside the truth (same reference: the whole brain), the error over the
deep nuclei, the Dice coefficients of the brain mask and (mean) of the labels, and nrmse, xsim and
the other scores of the susceptibility map on the whole true brain.

With ``--limits`` the exit status is 1 where a figure misses what the project holds itself to.
"""

import argparse
import csv
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from qsmflow import io
from qsmflow.algorithms import quality

#: Deep nuclei over which the error is averaged, as the table names them.
NUCLEI = (
    *('caudate', 'putamen', 'GPe', 'GPi', 'accumbens', 'substantia_nigra', 'red_nucleus'),
    *('STN', 'dentate'),
)
#: Regions of the table that are unions of the phantom's labels.
PARTS = {'substantia_nigra': ('SNc_VTA', 'SNr'), 'pallidum': ('GPe', 'GPi')}
#: Labels of the phantom by what they are.
WHITE, GREY, VEIN, THALAMUS = 30, 31, 33, (20, 120)


def make_and_run(folder: Path, options: argparse.Namespace) -> tuple[Path, Path]:
    """Simulate one subject and run the participant level on it."""
    dataset, results = folder / 'dataset', folder / 'results'
    command = Path(sys.executable).parent
    if not dataset.exists():
        simulate = ['--subjects', '1', '--sessions', '1', '--voxel-size', str(options.voxel_size)]
        arguments = [dataset, *simulate, '--seed', str(options.seed)]
        subprocess.run([command / 'qsmflow-phantom', *arguments], check=True)
    arguments = [dataset, results, 'participant', '-w', folder / 'work', *options.app]
    subprocess.run([command / 'qsmflow', *arguments], check=True)
    return dataset / 'derivatives' / 'phantom-truth', results


def read_tsv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding='utf-8', newline='') as stream:
        return list(csv.DictReader(stream, delimiter='\t'))


def true_means(path: Path) -> dict[tuple[str, str], float]:
    """Return the true mean of each region and side, in ppb, relative to the whole brain."""
    rows = [row for row in read_tsv(path) if row['chi_mean'] != 'n/a']
    sums = {(row['name'], row['hemi']): _sum(row) for row in rows}
    total = np.sum(list(sums.values()), axis=0)
    whole = total[1] / total[0]
    means = {}
    for region in {*NUCLEI, *PARTS}:
        for side in 'LR':
            parts = [sums.get((name, side)) for name in PARTS.get(region, (region,))]
            if None not in parts:
                count, value = np.sum(parts, axis=0)
                means[region, side] = 1000 * (value / count - whole)
    return means


def _sum(row: dict[str, str]) -> tuple[float, float]:
    count = float(row['n_voxels'])
    return count, count * float(row['chi_mean'])


def region_errors(results: Path, truth: Path) -> dict[str, float]:
    """Print region means beside the truth, and return their summary."""
    expected = true_means(next(truth.rglob('*_desc-truth_stats.tsv')))
    table = read_tsv(next(results.rglob('*_atlas-CIT168_stats.tsv')))
    found = {
        (row['region'], row['hemi']): (float(row['mean']), float(row['core_mean']), row['qc'])
        for row in table
        if row['map'] == 'chi' and row['mean'] != 'n/a' and row['core_mean'] != 'n/a'
    }
    print(f'{"region":18}{"side":>5}{"chi":>8}{"core":>8}{"truth":>8}{"error":>8}  (ppb)')
    errors, pairs = {}, []
    for (region, side), true in sorted(expected.items()):
        mean, core, flag = found.get((region, side), (np.nan, np.nan, 'missing'))
        errors[region, side] = mean - true
        pairs += [(true, mean)] if region in NUCLEI else []
        print(f'{region:18}{side:>5}{mean:8.1f}{core:8.1f}{true:8.1f}{mean - true:+8.1f}  {flag}')
    nuclei = [abs(error) for (region, _), error in errors.items() if region in NUCLEI]
    return {
        'table_mae': float(np.mean(nuclei)),
        'table_slope': float(np.polyfit(*np.transpose(pairs), 1)[0]),
        'table_dentate_sn': max(
            abs(errors[region, side])
            for region in ('dentate', 'substantia_nigra')
            for side in 'LR'
        ),
    }


def map_scores(results: Path, truth: Path) -> dict[str, float]:
    """Compare mask and susceptibility map with the truth, on the whole true brain."""
    image = io.load_volume(_native(truth, '_Chimap.nii.gz'))
    mask = io.load_mask(next(truth.rglob('*_desc-brain_mask.nii.gz')), like=image)
    labels = np.rint(io.load_volume(next(truth.rglob('*_desc-truth_dseg.nii.gz'))).data)
    chi = io.load_volume(_native(results, '_Chimap.nii.gz'))
    own = io.load_mask(_native(results, '_desc-brain_mask.nii.gz'), like=image)
    nuclei = [n for n in np.unique(labels[mask]) if 0 < n % 100 < 20 or n % 100 == 21]
    scores = quality.scores(
        chi.data,
        image.data,
        mask,
        labels.astype(int),
        nuclei=[int(n) for n in nuclei],
        tissue=[WHITE, GREY, *THALAMUS],
        blood=[VEIN],
    )
    placed = np.rint(io.load_volume(_native(results, '_atlas-CIT168_dseg.nii.gz')).data)
    overlap = [
        quality.dice(placed == label, labels == label) for label in nuclei if label % 100 < 20
    ]
    return {'dice': quality.dice(own, mask), 'label_dice': float(np.mean(overlap)), **scores}


def _native(results: Path, ending: str) -> Path:
    """Return the map of the series itself: in its own space, no variant by ``desc``."""
    found = [p for p in sorted(results.rglob(f'*{ending}')) if '_space-' not in p.name]
    own = [p for p in found if '_desc-' not in p.name.removesuffix(ending)]
    if len(own) != 1:
        raise SystemExit(f'{results}: expected one *{ending}, found {len(own)}')
    return own[0]


#: What the project holds itself to on the full phantom.
LIMITS = {
    'table_mae': (0, 8),
    'table_slope': (0.9, 1.1),
    'table_dentate_sn': (0, 12),
    'dice': (0.95, 1),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--voxel-size', type=float, default=1.0, help='mm')
    parser.add_argument('--seed', type=int, default=5)
    parser.add_argument('--folder', type=Path, help='keep dataset and results here')
    parser.add_argument('--limits', action='store_true', help='fail where a figure misses')
    parser.add_argument('app', nargs='*', help='options of qsmflow, after --')
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        truth, results = make_and_run(folder, options)
        figures = {**region_errors(results, truth), **map_scores(results, truth)}
    missed = []
    for name, value in figures.items():
        low, high = LIMITS.get(name, (None, None))
        verdict = '' if low is None or low <= value <= high else f'  misses [{low}, {high}]'
        missed += [name] if verdict else []
        print(f'{name:22}{value:10.3f}{verdict}')
    return 1 if missed and options.limits else 0


if __name__ == '__main__':
    sys.exit(main())
