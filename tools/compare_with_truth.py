"""Print the region tables of a run on the phantom beside the true values.

    python tools/compare_with_truth.py DATASET RESULTS [--limit PPB]

DATASET is what ``qsmflow-phantom`` wrote, with its truth; RESULTS are those of the participant
level. With ``--limit`` the exit status is 1 where the median absolute error exceeds it.
"""

import argparse
import csv
import statistics
import sys
from pathlib import Path

#: Regions of the tables by the labels of the phantom that they are made of.
PARTS = {
    'pallidum': ('GPe', 'GPi'),
    'substantia_nigra': ('SNc_VTA', 'SNr'),
}
#: Label of the phantom that a susceptibility reference other than the whole brain stands for.
REFERENCES = {'csf': 'csf'}
HEADER = ('region', 'side', 'chi', 'truth', 'error', 'R2*', 'truth', 'error')


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding='utf-8', newline='') as stream:
        return list(csv.DictReader(stream, delimiter='\t'))


def number(text: str | None) -> float:
    return float(text) if text not in (None, '', 'n/a') else float('nan')


def weighted_mean(rows: list[dict], column: str) -> float:
    """Return the mean over all voxels of some rows of the truth; NaN without voxels."""
    pairs = [(number(row['n_voxels']), number(row[column])) for row in rows]
    pairs = [(count, value) for count, value in pairs if count > 0]
    total = sum(count for count, _ in pairs)
    return sum(count * value for count, value in pairs) / total if total else float('nan')


def true_value(truth: list[dict], region: str, hemi: str, column: str) -> float:
    """Return the true mean of a region of the tables; NaN if the phantom has no such region."""
    names = PARTS.get(region, (region,))
    found = [
        row for row in truth if row['name'] in names and row['hemi'].replace('n/a', '') == hemi
    ]
    return weighted_mean(found, column) if len(found) == len(names) else float('nan')


def reference_value(truth: list[dict], reference: str) -> float:
    """Return the true susceptibility, in ppm, of the region that the tables refer to."""
    if reference == 'none':
        return 0.0
    name = REFERENCES.get(reference)
    return weighted_mean([row for row in truth if name in (None, row['name'])], 'chi_mean')


def compare(table: list[dict], truth: list[dict]) -> list[tuple]:
    """Return one line for each region with a truth: name, side, then chi (ppb) and R2* (1/s)."""
    lines = []
    chi_rows = [row for row in table if row['map'] == 'chi']
    rates = {(row['region'], row['hemi']): row for row in table if row['map'] == 'R2star'}
    for row in chi_rows:
        region, hemi = row['region'], row['hemi'].replace('n/a', '')
        expected = true_value(truth, region, hemi, 'chi_mean')
        if expected != expected:
            continue
        expected = 1000 * (expected - reference_value(truth, row['reference']))
        rate = number(rates.get((region, row['hemi']), {}).get('mean'))
        true_rate = true_value(truth, region, hemi, 'r2star_mean')
        chi = number(row['mean'])
        lines.append(
            (region, hemi, chi, expected, chi - expected, rate, true_rate, rate - true_rate)
        )
    return lines


def show(lines: list[tuple]) -> str:
    """Return the lines as text, susceptibility in ppb and rates in 1/s."""
    text = ['{:<18} {:<4} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8}'.format(*HEADER)]
    form = '{:<18} {:<4} {:>8.1f} {:>8.1f} {:>+8.1f} {:>8.1f} {:>8.1f} {:>+8.1f}'
    text += [form.format(*line) for line in lines]
    return '\n'.join(text)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('dataset', type=Path)
    parser.add_argument('results', type=Path)
    parser.add_argument('--limit', type=float, help='largest median absolute error, in ppb')
    options = parser.parse_args(argv)
    truth_dir = options.dataset / 'derivatives' / 'phantom-truth'
    errors = []
    for path in sorted(truth_dir.rglob('*_desc-truth_stats.tsv')):
        stem = path.name.removesuffix('_desc-truth_stats.tsv')
        folder = options.results / path.parent.relative_to(truth_dir)
        for table in sorted(folder.glob(f'{stem}_*stats.tsv')):
            lines = compare(read(table), read(path))
            if not lines:
                continue
            errors += [abs(line[4]) for line in lines if line[4] == line[4]]
            print(f'{table.name} (chi in ppb, R2* in 1/s)\n{show(lines)}\n')
    if not errors:
        print(f'no region of {options.results} has a truth in {truth_dir}', file=sys.stderr)
        return 1
    median = statistics.median(errors)
    print(f'{len(errors)} regions, median absolute error of chi {median:.1f} ppb')
    if options.limit is not None and median > options.limit:
        print(f'more than {options.limit:g} ppb', file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
