"""Study the chain on the test beds, each stage fed with truth and with the real thing.

    python benchmarks/study.py chains [--set held_out] [--presets fast default thorough]
    python benchmarks/study.py inputs [--only held_out/reference]
    python benchmarks/study.py methods [--only held_out/reference]
    python benchmarks/study.py regions [--only held_out/oblique15]
    python benchmarks/study.py removal [--only held_out/reference]
    python benchmarks/study.py choices [--only tuning/reference]
    python benchmarks/study.py less [--only held_out/reference]

``chains`` runs presets from raw phase; ``inputs`` feeds the default chain with raw phase, the true
total field and the masked true local field; ``methods`` tries each method of background removal
and inversion: with true input, and in the default chain; ``regions`` tells which nuclei the
default chain misses; ``removal`` feeds each background removal with the true local and the true
background field alone; ``choices`` tries what some parameters were chosen from; ``less`` tells
what methods reach that do less than by default. Every figure is on the whole brain but those
marked ``own`` and those of ``removal``. Results go into ``--json`` as they come, and a run
continues where that file ends; ``--markdown`` writes the tables between the marks of a page.
"""

import argparse
import json
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest import mock

import chain
import numpy as np
import testbeds
from chain import STARTS, field_of, for_true_field, run_chain
from scipy import fft

from qsmflow.algorithms import catalog, confidence, get_method, operators, quality
from qsmflow.algorithms.confidence import edge_confidence
from qsmflow.algorithms.cosmos import cosmos
from qsmflow.phantom import tissues
from qsmflow.settings import ReconstructionSettings

SCORES = ('nrmse', 'xsim', 'dgm_linearity', 'roi_mae', 'nrmse_dgm', 'nrmse_tissue', 'calc_streak')
DEFAULT_BEDS = {
    'chains': None,
    'inputs': ['held_out/reference', 'held_out/field7'],
    'methods': ['held_out/reference'],
    'regions': [
        f'held_out/{name}' for name in ('reference', 'large_nuclei', 'oblique15', 'atrophy')
    ],
    'removal': ['held_out/reference'],
    'choices': ['tuning/reference'],
    'less': ['held_out/reference'],
}
#: Inversions that are also tried after the background removal that looks at sources inside.
AFTER_TFI = ('rts', 'medi0', 'nltv', 'l1qsm')
#: Nuclei of 0.05 to 0.2 ml, whose means are those of a few voxels and their surroundings.
SMALLEST = ('mammillary', 'habenula')


def chains(scan, options):
    """Yield name, function and arguments of every chain of presets."""
    for preset in options.presets:
        yield preset, run_and_score, {'preset': preset}


def inputs(scan, options):
    """Yield the default chain with each of its inputs."""
    for start in STARTS:
        yield start, run_and_score, {'start': start}


def methods(scan, options):
    """Yield every method of background removal and inversion, with true input and in the chain."""
    for name in catalog.STAGES['background']:
        yield f'background/{name}/true', score_removal, {'name': name}
        yield f'background/{name}/edges', score_removal, {'name': name, 'edges': True}
        yield f'background/{name}/chain', run_and_score, {'background': name}
    for name, method in catalog.STAGES['inversion'].items():
        start = 'total' if method.one_step else 'local'
        yield f'inversion/{name}/true', run_and_score, {'inversion': name, 'start': start}
        yield f'inversion/{name}/chain', run_and_score, {'inversion': name}
    for name in AFTER_TFI:
        yield f'inversion/{name}/tfi', run_and_score, {'inversion': name, 'background': 'tfi'}
    for name in catalog.STAGES['field']:
        yield f'field/{name}/chain', score_field, {'field': name}
    for name in catalog.STAGES['unwrapping']:
        yield f'unwrapping/{name}/chain', score_field, {'unwrapping': name}
    for name in catalog.STAGES['strategy']:
        yield f'strategy/{name}/chain', run_and_score, {'strategy': name}
    for name in catalog.STAGES['relaxometry']:
        yield f'relaxometry/{name}/true', score_relaxation, {'name': name}
    yield 'inversion/cosmos/true', score_cosmos, {}


def regions(scan, options):
    """Yield the default chain nucleus by nucleus.

    From raw phase; the same with the average over a voxel that the simulation takes; and from the
    true total and local field.
    """
    yield 'raw', score_nuclei, {}
    yield 'raw, simulated average', _with_simulated_average, {}
    for start in ('total', 'local'):
        yield start, score_nuclei, {'start': start}


def removal(scan, options):
    """Yield every background removal with the parts of the true total field by themselves."""
    for name in catalog.STAGES['background']:
        yield name, score_parts, {'name': name}


def choices(scan, options):
    """Yield what some parameters were chosen from.

    The step of the field at which a voxel of the edge loses its weight, from the true total field
    and, on top of its own weights, from raw phase; the rounds of ``tfi``; the padding, from the
    true local field and from raw phase.
    """
    yield 'total, no weights', _with_step, {'step': np.inf, 'start': 'total'}
    for step in (0.05, 0.07, 0.1, 0.15, 0.2):
        yield f'total, step {step} ppm', _with_step, {'step': step, 'start': 'total'}
    yield 'raw', run_and_score, {}
    yield 'raw, step 0.1 ppm', _with_edges_from_raw, {}
    padding = {'background': {'pad': 8}, 'inversion': {'pad': 8}}
    yield 'raw, pad 8', run_and_score, {'params': padding}
    for rounds in (1, 2, 3):
        found = {'name': 'tfi', 'edges': True, 'rounds': rounds}
        yield f'background/tfi, rounds {rounds}', score_removal, found
    for name in ('tv', 'rts', 'tkd', 'tsvd'):
        for pad in (16, 8, 4, 0):
            yield f'inversion/{name}, pad {pad}', _inverted, {'name': name, 'pad': pad}


def less(scan, options):
    """Yield methods that do less than by default, beside the default, from true fields.

    What they cost is in the benchmark of speed, under the names in ``VARIANTS``.
    """
    removals = {
        'pdf, 20 iterations on one grid': {'coarse_iter': (), 'max_iter': 20},
        'pdf, 60 iterations on one grid': {'coarse_iter': (), 'max_iter': 60},
        'pdf, 8 iterations': {'max_iter': 8},
        'pdf': {},
    }
    for name, params in removals.items():
        yield f'background/{name}', score_removal, {'name': 'pdf', **params}
    yield 'inversion/tv, one part', _inverted, {'name': 'tv', 'reweight': None}
    yield 'inversion/tv', _inverted, {'name': 'tv'}
    yield 'inversion/tikhonov, closed', _inverted, {'name': 'tikhonov', 'zero_outside': 1.0}
    yield 'inversion/tikhonov', _inverted, {'name': 'tikhonov'}


def _inverted(scan, name, **params):
    """Return the scores of an inversion of the true local field."""
    return run_and_score(scan, inversion=name, start='local', params={'inversion': params})


def _with_step(scan, step, **choices):
    with mock.patch.object(confidence, 'STEP', step):
        return run_and_score(scan, **choices)


def _with_edges_from_raw(scan):
    def field(scan, mask, chosen):
        found = field_of(scan, mask, chosen)
        edges = edge_confidence(found.total_field, mask, scan.voxel_size)
        return replace(found, weights=found.weights * edges)

    with mock.patch.object(chain, 'field_of', field):
        return run_and_score(scan)


def run_and_score(scan, **choices):
    """Return the scores of a chain on the whole brain, and its nrmse and xsim on its support."""
    chi, mask = run_chain(scan, **choices)
    found = testbeds.score(chi, scan, mask, show=False)
    own = {f'own_{name}': found['own'][name] for name in ('nrmse', 'xsim')}
    kept = {name: found['brain'][name] for name in (*SCORES, 'bleed_streak', 'missing')}
    return kept | own


def score_nuclei(scan, **choices):
    """Return the error of each nucleus in ppb, mean of both sides, and that of the slope.

    Errors are relative to the mean over all nuclei, as for the slope.
    """
    chi, _ = run_chain(scan, **choices)
    labels, truth = scan.truth['labels'], scan.truth['chi']
    sides = [(t, side) for t in _nuclei() for side in (t.label, t.label + tissues.RIGHT)]
    error = quality.region_means(chi, labels, [label for _, label in sides])
    error -= quality.region_means(truth, labels, [label for _, label in sides])
    error = 1000 * (error - np.nanmean(error))
    larger = [label for tissue, label in sides if tissue.name not in SMALLEST]
    return {
        'dgm_linearity': quality.dgm_linearity(chi, truth, labels, [n for _, n in sides]),
        'larger_linearity': quality.dgm_linearity(chi, truth, labels, larger),
        **{t.name: np.nanmean(error[2 * i : 2 * i + 2]) for i, t in enumerate(_nuclei())},
    }


def _with_simulated_average(scan):
    """Score the nuclei with the average over a voxel that the truth of the simulation has.

    It is that of two samples along each axis, for the physics are simulated on a grid twice as
    fine, and damps high frequencies less than that of the whole voxel, which the inversion takes.
    """

    def response(shape):
        full, half = fft.fftfreq, fft.rfftfreq
        axes = (f(n) for f, n in zip((full, full, half), shape, strict=True))
        x, y, z = (np.cos(np.pi * axis / 2).astype(np.float32) for axis in axes)
        return x[:, None, None] * y[:, None] * z

    with mock.patch.object(operators, 'voxel_response', response):
        return score_nuclei(scan)


def _nuclei():
    return [tissue for tissue in tissues.NUCLEI if tissue.name != 'thalamus']


def score_removal(scan, name, edges=False, **params):
    """Return the error of the local field from the true total field.

    With ``edges`` the method is told that voxels at the edge are part air: their confidence.
    """
    function, mask = _removal(name), scan.truth['mask']
    total, truth = scan.truth['total_field'], scan.truth['local_field']
    weights = edge_confidence(total, mask, scan.voxel_size) if edges else None
    params |= {'b0_dir': scan.b0_dir, 'weights': weights}
    local, support = function(total, mask, scan.voxel_size, **params)[:2]
    found = {'nrmse': quality.nrmse(local, truth, mask), 'xsim': quality.xsim(local, truth, mask)}
    found |= {'own_nrmse': quality.nrmse(local, truth, support)}
    return found | {
        'own_xsim': quality.xsim(local, truth, support),
        'missing': float(1 - support[mask].mean()),
    }


def _removal(name):
    """Return a background removal for true fields."""
    return partial(get_method('background', name), **for_true_field('background', name))


def score_relaxation(scan, name):
    """Return the error of R2* from the magnitude, where the field is smooth.

    The true R2* leaves out the decay by fields that change inside a voxel, which the magnitude
    has: voxels count where the total field changes by less than 10 ppb to every neighbour.
    """
    mask, truth, field = (scan.truth[key] for key in ('mask', 'r2star', 'total_field'))
    steps = [np.abs(np.gradient(field, axis=axis)) for axis in range(3)]
    smooth = mask & (np.max(steps, axis=0) < 0.01)
    fit = get_method('relaxometry', name)(scan.magnitude, mask, scan.voxel_size, te=scan.te)
    return {
        'nrmse': quality.nrmse(fit.r2star, truth, smooth),
        'correlation': quality.correlation(fit.r2star, truth, smooth),
        'missing': float(1 - smooth[mask].mean()),
    }


def score_cosmos(scan):
    """Return the error of COSMOS from local fields of three orientations.

    They are made of the true susceptibility with the dipole kernel of the inversion, and a noise
    of 1 ppb: 0 degrees, and 25 degrees about two axes.
    """
    turn = np.radians(25)
    b0_dirs = [(0, 0, 1), (np.sin(turn), 0, np.cos(turn)), (0, np.sin(turn), np.cos(turn))]
    mask, chi = scan.truth['mask'], scan.truth['chi']
    noise = np.random.default_rng(0)
    fields = []
    for b0_dir in b0_dirs:
        field = operators.forward_field(chi * mask, scan.voxel_size, b0_dir=b0_dir)
        fields.append(field + noise.normal(0, 1e-3, field.shape).astype(np.float32))
    found = testbeds.score(
        cosmos(fields, mask, scan.voxel_size, b0_dirs=b0_dirs), scan, mask, show=False
    )
    return {name: found['brain'][name] for name in SCORES}


def score_parts(scan, name):
    """Return what a removal takes of a local field alone, and what it leaves of a background.

    In percent of the local field, on the support of the method, means taken off. With both fields
    the error of a linear method is the sum of these two.
    """
    function, mask = _removal(name), scan.truth['mask']
    truth = scan.truth['local_field']
    background = scan.truth['total_field'] - truth
    found = {}
    for part, field, wanted in (('taken', truth, truth), ('left', background, 0 * truth)):
        local, support = function(field * mask, mask, scan.voxel_size, b0_dir=scan.b0_dir)[:2]
        error, scale = (local - wanted)[support], truth[support]
        found[part] = 100 * float(error.std(dtype=float) / scale.std(dtype=float))
    return found


def score_field(scan, **choices):
    """Return the error of the total field from the raw phase."""
    mask, truth = scan.truth['mask'], scan.truth['total_field']
    field = field_of(scan, mask, ReconstructionSettings(**choices)).total_field
    return {'nrmse': quality.nrmse(field, truth, mask), 'xsim': quality.xsim(field, truth, mask)}


def run(options) -> dict:
    """Run what is missing, and return all results by bed and name."""
    results = (
        json.loads(options.json.read_text()) if options.json and options.json.exists() else {}
    )
    for bed in _beds(options):
        own = results.setdefault(options.part, {}).setdefault(bed, {})
        scan = None
        for name, function, arguments in PARTS[options.part](scan, options):
            if name in own or not _wanted(name, options.methods):
                continue
            scan = scan or testbeds.acquire(bed, options.folder, voxel_size=options.voxel_size)
            begin = time.perf_counter()
            own[name] = _plain(function(scan, **arguments))
            _show(bed, name, own[name], time.perf_counter() - begin)
            if options.json:
                options.json.write_text(json.dumps(results, indent=1) + '\n')
    return results


PARTS = {
    part.__name__: part for part in (chains, inputs, methods, regions, removal, choices, less)
}


def _beds(options):
    beds = options.only or DEFAULT_BEDS[options.part]
    return beds or [name for name in testbeds.names() if name.startswith(options.set)]


def _wanted(name, patterns):
    return not patterns or any(pattern in name for pattern in patterns)


def _plain(scores):
    """Return scores as JSON holds them: rounded, None for what is not defined."""
    return {name: round(float(v), 4) if v == v else None for name, v in scores.items()}


def _show(bed, name, scores, seconds):
    cells = ' '.join(f'{key} {value:.3f}' for key, value in scores.items() if value is not None)
    print(f'{bed:24}{name:28}{cells} ({seconds:.0f} s)', flush=True)


# --- tables -------------------------------------------------------------------------------------


def tables(results: dict) -> dict[str, str]:
    """Return a Markdown table for each part that has results."""
    return {
        part: '\n'.join(_rows(part, beds)) for part, beds in results.items() if any(beds.values())
    }


def _rows(part, beds):
    shown = {
        'chains': ('nrmse', 'xsim', 'dgm_linearity', 'roi_mae', 'nrmse_tissue'),
        'inputs': ('nrmse', 'xsim', 'dgm_linearity', 'roi_mae', 'nrmse_tissue'),
        'methods': (
            'nrmse',
            'xsim',
            'own_nrmse',
            'own_xsim',
            'missing',
            'dgm_linearity',
            'roi_mae',
        ),
        'removal': ('taken', 'left'),
        'choices': ('nrmse', 'xsim', 'dgm_linearity', 'roi_mae'),
        'less': ('nrmse', 'xsim'),
        'regions': (
            'dgm_linearity',
            'larger_linearity',
            *(tissue.name for tissue in _nuclei()),
        ),
    }[part]
    yield '| bed | run | ' + ' | '.join(shown) + ' |'
    yield '|---|---|' + '---|' * len(shown)
    for bed, runs in beds.items():
        for name, scores in runs.items():
            cells = [_cell(key, scores.get(key)) for key in shown]
            yield f'| {bed} | {name} | ' + ' | '.join(cells) + ' |'


def _cell(key, value):
    if value is None:
        return '–'
    digits = {'xsim': 3, 'own_xsim': 3, 'missing': 2}.get(key, 3 if 'linearity' in key else 1)
    return f'{value:.{digits}f}'


def write_between(page: Path, parts: dict[str, str]) -> None:
    """Replace tables of a page, each between its marks."""
    text = page.read_text('utf-8')
    for part, table in parts.items():
        begin, end = f'<!-- begin {part} -->', f'<!-- end {part} -->'
        head, _, rest = text.partition(begin)
        _, _, tail = rest.partition(end)
        if not rest or not tail:
            raise SystemExit(f'{page}: expected the marks {begin} and {end}; add them.')
        text = f'{head}{begin}\n\n{table}\n\n{end}{tail}'
    page.write_text(text, 'utf-8')


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('part', choices=tuple(PARTS))
    parser.add_argument('--only', nargs='+', metavar='BED')
    parser.add_argument('--set', choices=('tuning', 'held_out'), default='held_out')
    parser.add_argument('--presets', nargs='+', default=['default'], choices=catalog.PRESETS)
    parser.add_argument('--methods', nargs='+', metavar='TEXT', help='runs whose name holds this')
    parser.add_argument('--voxel-size', type=float, help='mm; replaces those of the beds')
    parser.add_argument('--folder', type=Path, help='keep the scans here')
    parser.add_argument('--json', type=Path, help='results, added to as they come')
    parser.add_argument('--markdown', type=Path, metavar='PAGE', help='write tables into a page')
    options = parser.parse_args(argv)
    results = run(options)
    if options.markdown:
        write_between(options.markdown, tables(results))
    return 0


if __name__ == '__main__':
    sys.exit(main())
