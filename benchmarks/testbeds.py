"""The simulated scans of the accuracy study, by name, and the scores of a map made from one.

    python benchmarks/testbeds.py --list
    python benchmarks/testbeds.py --score [--only NAME ...] [--voxel-size 3] [--folder DIR]

Methods and their parameters are chosen on the beds of ``TUNING``; figures are reported on those of
``HELD_OUT``, whose anatomies, noise and, in part, protocols are others. Within a set each bed
differs from its ``reference`` in one respect, which its name tells.

A bed is simulated when it is first asked for and kept as .npz in ``--folder``, so that later runs
read it. ``--voxel-size`` replaces the voxel size of every bed: at 3 mm each takes seconds.
"""

import argparse
import hashlib
import sys
from dataclasses import asdict, astuple, dataclass, fields, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from chain import run_chain

from qsmflow import phantom
from qsmflow.algorithms import quality
from qsmflow.phantom import Acquisition, tissues

#: From this voxel edge on, in mm, dephasing would leave nothing near the sinuses.
COARSE = 2.5

#: Kept out of the files, because they follow from the other maps.
_DERIVED = ('chi', 'background_field')


@dataclass(frozen=True)
class Bed:
    """One test bed: a head and a protocol.

    Attributes
    ----------
    seed : int
        Anatomy and noise.
    atrophy, nuclei_scale, calcification, haemorrhage
        As of :func:`qsmflow.phantom.make_head`.
    pose : tuple of float
        Turn of the head in the scanner, in degrees.
    voxel_size, field_strength, te, snr, rotation_deg, oversampling, offset_shape, bipolar,
    bad_voxels
        As of :func:`qsmflow.phantom.simulate_gre`.
    """

    seed: int
    atrophy: float = 0.0
    nuclei_scale: float = 1.0
    calcification: bool | float = False
    haemorrhage: bool | float = False
    pose: tuple[float, float, float] = (0.0, 0.0, 0.0)
    voxel_size: tuple[float, float, float] = (1.0, 1.0, 1.0)
    field_strength: float = 3.0
    te: tuple[float, ...] = (0.004, 0.010, 0.016, 0.022, 0.028)
    snr: float = 60.0
    rotation_deg: tuple[float, float, float] = (0.0, 0.0, 0.0)
    oversampling: int = 2
    offset_shape: str = 'polynomial'
    bipolar: float = 0.0
    bad_voxels: float = 0.0


def _beds(reference: Bed, **changes: dict) -> dict[str, Bed]:
    return {'reference': reference} | {k: replace(reference, **v) for k, v in changes.items()}


#: Where methods and parameters are chosen.
TUNING = _beds(
    Bed(seed=3),
    other_head={'seed': 5},
    atrophy={'seed': 5, 'atrophy': 0.6, 'nuclei_scale': 0.9},
    oblique15={'rotation_deg': (15.0, 0.0, 0.0)},
    fine08={'voxel_size': (0.8, 0.8, 0.8)},
    coarse15={'voxel_size': (1.5, 1.5, 1.5)},
    slices={'voxel_size': (0.8, 0.8, 2.0), 'seed': 5},
    field15={'field_strength': 1.5, 'te': (0.006, 0.016, 0.026, 0.036, 0.046)},
    field7={'field_strength': 7.0, 'te': (0.004, 0.012, 0.020, 0.028)},
    echoes1={'te': (0.020,)},
    echoes2={'te': (0.006, 0.018)},
    echoes8={'te': tuple(0.003 + 0.004 * k for k in range(8))},
    uneven={'te': (0.004, 0.009, 0.017, 0.030)},
    snr100={'snr': 100.0},
    snr15={'snr': 15.0, 'seed': 5},
    calcification={'calcification': -3.0},
    haemorrhage={'haemorrhage': True, 'seed': 5},
    offset_coils={'offset_shape': 'coils'},
    bipolar={'bipolar': 0.5},
    bad_voxels={'bad_voxels': 0.002},
)

#: Where figures are reported; nothing is chosen here (but one rule, see docs/study.md).
HELD_OUT = _beds(
    Bed(seed=20, pose=(6.0, -3.0, 4.0)),
    other_head={'seed': 21},
    large_nuclei={'seed': 22, 'nuclei_scale': 1.15},
    atrophy={'seed': 23, 'atrophy': 1.0, 'nuclei_scale': 0.85},
    oblique15={'seed': 24, 'rotation_deg': (-12.0, 9.0, 0.0)},
    oblique30={'seed': 25, 'rotation_deg': (30.0, 0.0, 0.0)},
    fine06={'seed': 21, 'voxel_size': (0.6, 0.6, 0.6), 'snr': 25.0, 'oversampling': 1},
    coarse15={'seed': 22, 'voxel_size': (1.5, 1.5, 1.5)},
    slices={'seed': 23, 'voxel_size': (0.8, 0.8, 2.0)},
    field15={'seed': 24, 'field_strength': 1.5, 'te': (0.005, 0.015, 0.025, 0.035, 0.045)},
    field7={'seed': 25, 'field_strength': 7.0, 'te': (0.005, 0.011, 0.017, 0.023)},
    echoes1={'seed': 21, 'te': (0.018,)},
    echoes2={'seed': 22, 'te': (0.0046, 0.0146)},
    echoes8={'seed': 23, 'te': tuple(0.0035 + 0.0035 * k for k in range(8))},
    uneven={'seed': 24, 'te': (0.003, 0.0075, 0.013, 0.021, 0.032)},
    late_first={'seed': 25, 'te': (0.008, 0.015, 0.022, 0.029)},
    snr100={'seed': 21, 'snr': 100.0},
    snr30={'seed': 22, 'snr': 30.0},
    snr15={'seed': 23, 'snr': 15.0},
    calcification={'seed': 24, 'calcification': -3.0},
    haemorrhage={'seed': 25, 'haemorrhage': True},
    sources={'seed': 21, 'calcification': -3.0, 'haemorrhage': True, 'field_strength': 7.0,
             'te': (0.004, 0.012, 0.020, 0.028)},
    offset_waves={'seed': 22, 'offset_shape': 'waves'},
    offset_linear={'seed': 23, 'offset_shape': 'linear'},
    bipolar={'seed': 24, 'bipolar': 0.8},
    bad_voxels={'seed': 25, 'bad_voxels': 0.003},
)  # fmt: skip


def bed(name: str) -> Bed:
    """Return a bed by its full name, such as ``'tuning/reference'``.

    Examples
    --------
    >>> bed('held_out/field7').field_strength
    7.0
    """
    known = names()
    if name not in known:
        raise KeyError(f'no test bed {name!r}; choose one of {", ".join(known)}')
    group, _, short = name.partition('/')
    return {'tuning': TUNING, 'held_out': HELD_OUT}[group][short]


def names() -> list[str]:
    """Return the full names of all beds."""
    return [*(f'tuning/{name}' for name in TUNING), *(f'held_out/{name}' for name in HELD_OUT)]


# --- scans ------------------------------------------------------------------------------------


def acquire(which: Bed | str, folder=None, *, voxel_size=None) -> Acquisition:
    """Return the scan of a bed, from the folder if it is there.

    Parameters
    ----------
    which : Bed or str
        A bed, or its full name.
    folder : path-like, optional
        Where scans are kept; without one the scan is simulated. A file is read only if neither
        the bed nor the phantom has changed since.
    voxel_size : float or tuple of float, optional
        Replaces the bed's own, in mm.

    Returns
    -------
    Acquisition
    """
    wanted = bed(which) if isinstance(which, str) else which
    if voxel_size is not None:
        sizes = np.broadcast_to(np.asarray(voxel_size, float), (3,))
        wanted = replace(wanted, voxel_size=tuple(float(v) for v in sizes))
    if folder is None:
        return simulate(wanted)
    path = Path(folder) / f'bed-{_fingerprint(wanted)}.npz'
    if path.exists():
        return _load(path, wanted)
    scan = simulate(wanted)
    _save(path, scan)
    return scan


def simulate(wanted: Bed) -> Acquisition:
    """Simulate the scan of a bed."""
    options = asdict(wanted)
    person = ('seed', 'atrophy', 'nuclei_scale', 'calcification', 'haemorrhage')
    anatomy = {name: options.pop(name) for name in person}
    pose = phantom.Pose(options.pop('pose'))
    head = phantom.make_head(voxel_size=16.0, pose=pose, **anatomy)
    dephasing = min(wanted.voxel_size) < COARSE
    return phantom.simulate_gre(head, dephasing=dephasing, seed=wanted.seed, **options)


@lru_cache(maxsize=1)
def _sources() -> bytes:
    folder = Path(phantom.__file__).parent
    return b''.join(path.read_bytes() for path in sorted(folder.glob('*.py')))


def _fingerprint(wanted: Bed) -> str:
    described = repr([(f.name, v) for f, v in zip(fields(Bed), astuple(wanted), strict=True)])
    return hashlib.sha256(described.encode() + _sources()).hexdigest()[:16]


def _save(path: Path, scan: Acquisition) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    numbers = ('f0', 'affine', 'repetition_time', 'flip_angle', 'field_strength')
    truth = {f'truth_{k}': v for k, v in scan.truth.items() if k not in _DERIVED}
    # Written aside and renamed, so that a run that is stopped leaves no half file.
    partial = path.with_suffix(f'.{id(scan)}.npz')
    np.savez_compressed(
        partial, magnitude=scan.magnitude, phase=scan.phase,
        **{name: getattr(scan, name) for name in numbers}, **truth,
    )  # fmt: skip
    partial.replace(path)


def _load(path: Path, wanted: Bed) -> Acquisition:
    with np.load(path) as stored:
        values = {name: stored[name] for name in stored.files}
    prefix = 'truth_'
    truth = {k.removeprefix(prefix): v for k, v in values.items() if k.startswith(prefix)}
    truth['chi'] = truth['chi_para'] + truth['chi_dia']
    truth['background_field'] = truth['total_field'] - truth['local_field']
    others = ('f0', 'repetition_time', 'flip_angle', 'field_strength')
    return Acquisition(
        magnitude=values['magnitude'], phase=values['phase'], affine=values['affine'],
        te=wanted.te, truth=truth, **{name: float(values[name]) for name in others},
    )  # fmt: skip


# --- scores -----------------------------------------------------------------------------------


def score(chi, scan: Acquisition, mask=None, *, show: bool = True) -> dict[str, dict[str, float]]:
    """Score a susceptibility map against the truth of a scan.

    Parameters
    ----------
    chi : ndarray of float, shape (X, Y, Z)
        Susceptibility, in ppm, zero where the method gives none.
    scan : Acquisition
        Scan that it was made from.
    mask : ndarray of bool, shape (X, Y, Z), optional
        The method's own support; by default where ``chi`` is not zero.
    show : bool, optional
        Print the scores.

    Returns
    -------
    dict
        ``'brain'``, on the whole brain, and ``'own'``, on the support within the brain: each has
        the scores of :func:`qsmflow.algorithms.quality.scores`, ``bleed_streak`` (as
        ``calc_streak``, around a haemorrhage), ``missing`` (fraction of the brain without an
        estimate), and ``mask`` (Dice coefficient of support and brain).
    """
    brain = scan.truth['mask']
    support = np.asarray(chi != 0 if mask is None else mask, bool)
    found = {name: _scores(chi, scan, where)
             for name, where in (('brain', brain), ('own', support & brain))}  # fmt: skip
    shared = {
        'missing': float(1 - np.count_nonzero(support & brain) / np.count_nonzero(brain)),
        'mask': quality.dice(support, brain),
    }
    for values in found.values():
        values |= shared
    if show:
        print(f'{"":14}{"brain":>10}{"own":>10}')
        for name, value in found['brain'].items():
            print(f'{name:14}{value:10.3f}{found["own"][name]:10.3f}')
    return found


def _scores(chi, scan, where):
    labels, truth = scan.truth['labels'], scan.truth['chi']
    present = [int(n) for n in np.unique(labels[where]) if n]
    thalamus = [n for n in present if n % tissues.RIGHT == 20]
    nuclei = [n for n in present if n % tissues.RIGHT < 20 or n % tissues.RIGHT == 21]
    found = quality.scores(
        chi, truth, where, labels, nuclei=nuclei,
        tissue=[tissues.WHITE.label, tissues.GREY.label, *thalamus],
        blood=[tissues.VEIN.label], calcification=[tissues.CALCIFICATION.label],
    )  # fmt: skip
    bleed = labels == tissues.HAEMORRHAGE.label
    return found | {'bleed_streak': quality.calc_streak(chi, truth, bleed, where)}


# --- command line -----------------------------------------------------------------------------

_SHOWN = ('nrmse', 'xsim', 'correlation', 'nrmse_dgm', 'nrmse_tissue', 'nrmse_blood',
          'dgm_linearity', 'roi_mae', 'calc_streak', 'bleed_streak', 'missing')  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--list', action='store_true', help='print the beds')
    parser.add_argument('--make', action='store_true', help='simulate into --folder')
    parser.add_argument('--score', action='store_true', help='run the chain and score it')
    parser.add_argument('--only', nargs='+', metavar='NAME', help="e.g. 'tuning/reference'")
    parser.add_argument('--set', choices=('tuning', 'held_out'), help='one of the two sets')
    parser.add_argument('--voxel-size', type=float, help='mm; replaces those of the beds')
    parser.add_argument('--folder', type=Path, help='keep the scans here')
    parser.add_argument(
        '--methods', nargs='+', default=[], metavar='STAGE=NAME',
        help="methods other than the defaults, e.g. 'inversion=rts'",
    )  # fmt: skip
    options = parser.parse_args(argv)
    methods = dict(text.split('=', 1) for text in options.methods)
    chosen = options.only or [n for n in names() if n.startswith(options.set or '')]
    if options.list:
        for name in chosen:
            plain = Bed(seed=0)
            differs = {k: v for k, v in asdict(bed(name)).items() if v != getattr(plain, k)}
            print(f'{name:24}{", ".join(f"{k}={v}" for k, v in differs.items())}')
    if options.make and not options.folder:
        parser.error('--make needs --folder')
    if options.score:
        print(f'{"bed (whole brain)":24}' + ''.join(f'{name:>14}' for name in _SHOWN))
    for name in chosen if options.make or options.score else ():
        scan = acquire(name, options.folder, voxel_size=options.voxel_size)
        if options.score:
            chi, mask = run_chain(scan, **methods)
            values = score(chi, scan, mask, show=False)['brain']
            cells = ''.join(f'{values[k]:14.3f}' for k in _SHOWN)
            print(f'{name:24}{cells}', flush=True)
    return 0


if __name__ == '__main__':
    sys.exit(main())
