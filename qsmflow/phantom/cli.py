"""``qsmflow-phantom``: write simulated heads as a BIDS dataset."""

import argparse
import sys
from dataclasses import replace

import qsmflow
from qsmflow.phantom.coils import OFFSET_SHAPES
from qsmflow.phantom.dataset import SMALL, Protocol, write_bids


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog='qsmflow-phantom',
        description='Write simulated gradient-echo scans of heads as a BIDS dataset, with the '
        'truth of every stage beside them.',
    )
    parser.add_argument('out', help='folder to write; it must not exist or be empty')
    parser.add_argument('--subjects', type=int, default=2, metavar='N', help='default: 2')
    parser.add_argument(
        '--sessions', type=int, nargs='+', metavar='N',
        help='number of sessions of each subject (default: 2 for the first, 1 for the others)',
    )  # fmt: skip
    parser.add_argument(
        '--small', action='store_true', help='coarse voxels (4 mm): seconds instead of minutes'
    )
    parser.add_argument(
        '--voxel-size', type=float, nargs='+', metavar='MM',
        help='one length or three, in mm (default: 1, or 4 with --small)',
    )  # fmt: skip
    parser.add_argument(
        '--te', type=float, nargs='+', metavar='MS', help='echo times in ms (default: 4 ... 28)'
    )
    parser.add_argument(
        '--field-strength', type=float, default=3.0, metavar='T', help='default: 3'
    )
    parser.add_argument(
        '--snr', type=float, default=60.0,
        help='of white matter, first echo (default: %(default)g)',
    )  # fmt: skip
    parser.add_argument(
        '--phase-units', choices=('rad', 'arbitrary'), default='rad',
        help='phase in radians, or as the integers -4096 to 4094',
    )  # fmt: skip
    parser.add_argument(
        '--calcification', action='store_true', help='add a small calcification to every head'
    )
    parser.add_argument(
        '--calcification-chi', type=float, metavar='PPM',
        help='add it with this susceptibility (default: -0.3)',
    )  # fmt: skip
    parser.add_argument(
        '--haemorrhage', action='store_true', help='add a haemorrhage of 1 ppm to every head'
    )
    parser.add_argument(
        '--atrophy', type=float, default=0.0, metavar='A',
        help='loss of brain tissue, from 0 to 1 (default: 0)',
    )  # fmt: skip
    parser.add_argument(
        '--nuclei-scale', type=float, default=1.0, metavar='S',
        help='size of the deep nuclei, from 0.8 to 1.2 (default: 1)',
    )  # fmt: skip
    parser.add_argument(
        '--offset-shape', choices=OFFSET_SHAPES, default=OFFSET_SHAPES[0],
        help='how the phase at echo time zero varies (default: %(default)s)',
    )  # fmt: skip
    parser.add_argument(
        '--bipolar', type=float, default=0.0, metavar='RAD',
        help='phase of even echoes at the edges of the field of view (default: 0)',
    )  # fmt: skip
    parser.add_argument(
        '--bad-voxels', type=float, default=0.0, metavar='F',
        help='fraction of the voxels whose phase is random (default: 0)',
    )  # fmt: skip
    parser.add_argument('--seed', type=int, default=1, help='same seed, same files (default: 1)')
    parser.add_argument('--no-truth', action='store_true', help='leave the true values out')
    parser.add_argument('--version', action='version', version=qsmflow.__version__)
    return parser


def protocol_from(options: argparse.Namespace) -> Protocol:
    """Turn the options into a protocol.

    Raises
    ------
    ValueError
        If a value is impossible; the message says which.
    """
    protocol = replace(
        SMALL if options.small else Protocol(),
        field_strength=options.field_strength,
        snr=options.snr,
        phase_units=options.phase_units,
        calcification=options.calcification_chi or options.calcification,
        haemorrhage=options.haemorrhage,
        atrophy=options.atrophy,
        nuclei_scale=options.nuclei_scale,
        offset_shape=options.offset_shape,
        bipolar=options.bipolar,
        bad_voxels=options.bad_voxels,
    )
    if options.te:
        protocol = replace(protocol, te=tuple(1e-3 * t for t in options.te))
    if options.voxel_size:
        sizes = options.voxel_size
        if len(sizes) not in (1, 3) or min(sizes) <= 0:
            raise ValueError(f'--voxel-size takes one or three positive lengths; got {sizes}.')
        sizes = tuple(sizes) if len(sizes) == 3 else (sizes[0],) * 3
        protocol = replace(protocol, voxel_size=sizes, shape=None)
    return protocol


def main(argv: list[str] | None = None) -> int:
    """Run the command.

    Parameters
    ----------
    argv : list of str, optional
        Arguments; those of the process by default.

    Returns
    -------
    int
        Exit status: 0, or 2 for arguments that cannot be used.
    """
    options = make_parser().parse_args(argv)
    try:
        write_bids(
            options.out,
            subjects=options.subjects,
            sessions=tuple(options.sessions) if options.sessions else None,
            protocol=protocol_from(options),
            seed=options.seed,
            truth=not options.no_truth,
            progress=lambda line: print(line, flush=True),
        )
    except (ValueError, OSError) as error:
        print(f'qsmflow-phantom: {error}', file=sys.stderr)
        return 2
    print(f'wrote {options.out}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
