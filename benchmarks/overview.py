"""One table of every method: accuracy on a test bed and cost.

    python benchmarks/overview.py --run [--folder FOLDER]
    python benchmarks/overview.py

With ``--run`` the study (``study.py methods``) and the benchmark (``speed.py``) run first, which
takes about an hour on two otherwise idle cores; without, the table is made of what they recorded
in ``study.json`` and ``speed.json``. It is written between the marks of ``docs/comparison.md``.
"""

import argparse
import json
import sys
from pathlib import Path

import speed
import study

from qsmflow.algorithms.catalog import STAGES

HERE = Path(__file__).parent
PAGE = HERE.parent / 'docs/comparison.md'
BED = study.DEFAULT_BEDS['methods'][0]
#: Columns of accuracy: title, run of the study, score, digits.
ACCURACY = (
    ('true input: nrmse', 'true', 'nrmse', 1),
    ('xsim', 'true', 'xsim', 3),
    ('in the chain: nrmse', 'chain', 'nrmse', 1),
    ('xsim', 'chain', 'xsim', 3),
    ('dgm_linearity', 'chain', 'dgm_linearity', 3),
    ('roi_mae', 'chain', 'roi_mae', 1),
)
#: Columns of cost: title, field of the benchmark, digits.
COST = (('pairs', 'pairs', 1), ('iterations', 'iterations', 0), ('volumes', 'volumes', 1))


def methods() -> list[str]:
    """Return the names of all methods, with their stages."""
    return [*(f'{stage}/{name}' for stage in STAGES for name in STAGES[stage]), 'inversion/cosmos']


def rows(scores: dict, costs: dict):
    """Yield the rows of the table.

    Parameters
    ----------
    scores : dict
        Scores of one bed, by run: ``'inversion/tv/chain'``.
    costs : dict
        Rows of the benchmark at its first size, by method: ``'inversion/tv'``.
    """
    titles = ['method', *(one[0] for one in (*ACCURACY, *COST))]
    yield '| ' + ' | '.join(titles) + ' |'
    yield '|---' * len(titles) + '|'
    for name in methods():
        cells = [
            _cell(scores.get(f'{name}/{run}', {}).get(score), digits)
            for _, run, score, digits in ACCURACY
        ]
        cells += [_cell(costs.get(name, {}).get(field), digits) for _, field, digits in COST]
        yield f'| {name} | ' + ' | '.join(cells) + ' |'


def _cell(value, digits: int) -> str:
    return '–' if value is None else f'{value:.{digits}f}'


def first_size(recorded: dict) -> dict:
    """Return the rows of the benchmark at the size that it measures all methods at."""
    found: dict = {}
    for row in recorded['methods']:
        found.setdefault(f'{row["stage"]}/{row["method"]}', row)
    return found


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--run', action='store_true', help='run study and benchmark before')
    parser.add_argument('--folder', type=Path, help='keep the scans of the study here')
    options = parser.parse_args(argv)
    records = {name: HERE / f'{name}.json' for name in ('study', 'speed')}
    if options.run:
        scans = ['--folder', str(options.folder)] if options.folder else []
        page = str(HERE.parent / 'docs/study.md')
        study.main(['methods', '--json', str(records['study']), '--markdown', page, *scans])
        page = str(HERE.parent / 'docs/speed.md')
        speed.main(['--json', str(records['speed']), '--markdown', page])
    scores = json.loads(records['study'].read_text())['methods'][BED]
    costs = first_size(json.loads(records['speed'].read_text()))
    study.write_between(PAGE, {'comparison': '\n'.join(rows(scores, costs))})
    return 0


if __name__ == '__main__':
    sys.exit(main())
