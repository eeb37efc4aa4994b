"""Write the values of regions that the tests expect of the small phantom.

    python tools/make_reference.py [--results DIR] > tests/app/regions.tsv

Without ``--results``, the phantom is made and processed with the defaults first, which takes a
few minutes. Do this only when results are meant to change, and say so in ``CHANGES.md`` under
"What changes in numbers".
"""

import argparse
import csv
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

KEYS = ('atlas', 'region', 'hemi', 'map', 'unit')
VALUES = ('n_voxels', 'mean', 'median', 'sd')
#: What a value may differ by without a change in the results: other processors round otherwise.
TOLERANCES = {'ppb': 0.5, '1/s': 0.05, 'ms': 0.2}


def make_results(folder: Path) -> Path:
    """Make the small phantom, process it with the defaults, and return the results."""
    raw, out = folder / 'raw', folder / 'out'
    phantom = ['qsmflow.phantom.cli', raw, '--small', '--subjects', '1', '--sessions', '1']
    run = ['qsmflow', raw, out, 'participant', '-w', folder / 'work']
    for command in (phantom, run):
        subprocess.run([sys.executable, '-m', *map(str, command)], check=True, stdout=sys.stderr)
    return out


def read_values(results: str | Path) -> dict[tuple[str, ...], dict[str, float]]:
    """Return the values of all regions of the only participant of some results.

    Returns
    -------
    dict
        ``(atlas, region, hemi, map, unit)`` -> value by column; what is not there is NaN.
    """
    found = {}
    for path in sorted(Path(results).glob('sub-01/anat/sub-01_atlas-*_stats.tsv')):
        atlas = path.name.split('_atlas-')[1].split('_')[0]
        with path.open(encoding='utf-8', newline='') as stream:
            for row in csv.DictReader(stream, delimiter='\t'):
                key = (atlas, *(row[name] for name in KEYS[1:]))
                found[key] = {name: number(row[name]) for name in VALUES}
    return found


def read_reference(path: str | Path) -> dict[tuple[str, ...], dict[str, float]]:
    """Return a table that this tool wrote, in the form of :func:`read_values`."""
    with Path(path).open(encoding='utf-8', newline='') as stream:
        rows = csv.DictReader(stream, delimiter='\t')
        return {
            tuple(row[name] for name in KEYS): {name: number(row[name]) for name in VALUES}
            for row in rows
        }


def number(text: str) -> float:
    return float('nan') if text == 'n/a' else float(text)


def differences(reference: dict, found: dict) -> list[str]:
    """Return a line for each value that differs by more than its tolerance, the worst first.

    A region may gain or lose a voxel, or two percent of them, by rounding in the registration;
    its values may then differ by what such voxels can do to them.
    """
    lines = [(float('inf'), f'{" ".join(key)}: is not there') for key in reference.keys() - found]
    lines += [(float('inf'), f'{" ".join(key)}: is new') for key in found.keys() - reference]
    for key in reference.keys() & found:
        old, new = reference[key], found[key]
        count = old['n_voxels']
        moved = abs(new['n_voxels'] - count)
        slack = 4 * np.nan_to_num(old['sd']) * moved / max(count, 1)
        for name in VALUES:
            limit = max(1, 0.02 * count) if name == 'n_voxels' else TOLERANCES[key[-1]] + slack
            both_missing = old[name] != old[name] and new[name] != new[name]
            change = abs(new[name] - old[name])
            if not both_missing and not change <= limit:
                text = f'{" ".join(key)}: {name} was {old[name]:g}, is {new[name]:g}'
                lines.append((change / limit, text))
    return [text for _, text in sorted(lines, key=lambda line: (-line[0], line[1]))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--results', type=Path, help='results of the small phantom, if there are')
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = arguments.results or make_results(Path(folder))
        values = read_values(results)
    print('\t'.join([*KEYS, *VALUES]))
    for key, row in values.items():
        shown = ('n/a' if row[name] != row[name] else f'{row[name]:.6g}' for name in VALUES)
        print('\t'.join([*key, *shown]))


if __name__ == '__main__':
    main()
