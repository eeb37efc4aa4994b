"""``qsmflow-dicom``: convert the DICOM files of one participant into a BIDS dataset."""

import argparse
import contextlib
import errno
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

import qsmflow
from qsmflow.dicom.errors import ConversionError
from qsmflow.dicom.grouping import Sorted, sort_images
from qsmflow.dicom.images import Converted
from qsmflow.dicom.naming import check_label, plan_targets
from qsmflow.dicom.table import render
from qsmflow.dicom.tool import convert, find_tool, read_converted, tool_version
from qsmflow.dicom.verdict import check_written
from qsmflow.dicom.writing import check_dataset_folder, check_new, write_targets

_CANNOT_WRITE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT}
_NO_PHASE = (
    'no phase images were found. Magnitude alone gives no susceptibility map. Export the phase '
    'too: on Siemens choose "Magn./Phase" in the reconstruction, on Philips add P to the images '
    'of the reconstruction, on GE save phase, or real and imaginary images (docs/convert.md). If '
    'they were saved, they may be series of their own that were not copied'
)

_OPTIONS: dict[tuple[str, ...], dict] = {
    ('--participant-label', '--subject'): {
        'metavar': 'LABEL', 'required': True,
        'help': 'label of the participant, with or without sub-',
    },
    ('--session-label', '--session'): {
        'metavar': 'LABEL', 'help': 'label of the session (none)',
    },
    ('--acq-label',): {
        'metavar': 'LABEL',
        'help': 'acq- label of the gradient echoes (none; names of protocols for several)',
    },
    ('--run',): {
        'type': int, 'metavar': 'N',
        'help': 'number of the first run of each protocol (none; 1 for several)',
    },
    ('--series',): {
        'type': int, 'nargs': '+', 'metavar': 'N', 'default': (),
        'help': 'numbers of the series to convert (all)',
    },
    ('--study',): {
        'type': int, 'metavar': 'N',
        'help': 'which study to convert, where the folder holds several: 1, 2, ...',
    },
    ('--echo-times',): {
        'type': float, 'nargs': '+', 'metavar': 'MS',
        'help': 'echo times in ms, in the order of the echoes, where the DICOM header lacks them '
        'or holds one for all',
    },
    ('--dataset-name',): {
        'metavar': 'NAME', 'help': 'name of a new dataset (that of its folder)',
    },
    ('--dry-run',): {
        'action': 'store_true',
        'help': 'show the table and the verdict of the checks, and write nothing',
    },
    ('-y', '--yes'): {'action': 'store_true', 'help': 'write without asking'},
    ('--skip-bids-validation',): {
        'action': 'store_true', 'help': 'do not run the BIDS validator',
    },
}  # fmt: skip


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog='qsmflow-dicom',
        description='Convert the gradient echoes with phase, and T1w images, of one participant '
        'and session from DICOM into a BIDS dataset. dcm2niix reads the DICOM files.',
        allow_abbrev=False,
    )
    parser.add_argument('dicom_dir', help='folder with the DICOM files; it is only read')
    parser.add_argument('bids_dir', help='dataset to create, or to add to')

    for names, options in _OPTIONS.items():
        long = [name[2:] for name in names if name.startswith('--')]
        twins = [f'--{name.replace("-", "_")}' for name in long if '-' in name]
        parser.add_argument(*names, *twins, **options)
    parser.add_argument('--version', action='version', version=qsmflow.__version__)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command.

    Parameters
    ----------
    argv : list of str, optional
        Arguments; those of the process by default.

    Returns
    -------
    int
        0 all is written and passes the checks; 1 something with phase could not be written, or
        does not pass, or the user said no; 2 wrong usage, or files are there already; 65 no
        usable DICOM data; 73 a folder cannot be written; 127 dcm2niix is missing; 130 and 143
        interrupted.
    """
    parser = make_parser()
    options = parser.parse_args(argv)
    try:
        options.participant_label = check_label(options.participant_label, 'sub-')
        if options.session_label is not None:
            options.session_label = check_label(options.session_label, 'ses-')
        if options.acq_label is not None:
            options.acq_label = check_label(options.acq_label, 'acq-')
        if options.echo_times and not all(0 < te < 300 for te in options.echo_times):
            raise ValueError('--echo-times are in ms, above 0 and below 300')
        if options.run is not None and options.run < 0:
            raise ValueError('--run is a number of 0 or more')
    except ValueError as error:
        parser.error(str(error))
    try:
        with _terminate_raises():
            return run(options)
    except ConversionError as error:
        code, message = error.exit_code, str(error)
    except KeyboardInterrupt:
        code, message = 130, 'interrupted; nothing more is written'
    except _Terminated:
        code, message = 143, 'terminated; nothing more is written'
    except OSError as error:
        if error.errno not in _CANNOT_WRITE:
            raise
        code, message = 73, f'{error.filename or options.bids_dir}: {error.strerror}'
    print(f'qsmflow-dicom: {message.rstrip(".")}; exit code {code}', file=sys.stderr)
    return code


def run(options: argparse.Namespace) -> int:
    """Convert, show, ask, write and check.

    Parameters
    ----------
    options : argparse.Namespace
        From the parser, with labels without prefix.

    Returns
    -------
    int
        0 or 1, see :func:`main`.

    Raises
    ------
    ConversionError
        For everything that ends the conversion.
    """
    root = Path(os.path.abspath(options.bids_dir))
    check_dataset_folder(root)
    tool = tool_version(find_tool())
    with tempfile.TemporaryDirectory(prefix='qsmflow-dicom-') as temporary:
        converted = Path(temporary) / 'converted'
        converted.mkdir()
        print(f'dcm2niix {tool} reads {options.dicom_dir}', flush=True)
        notes = convert(options.dicom_dir, converted)
        images, broken = read_converted(converted)
        images = _chosen(images, options)
        times = options.echo_times and [te / 1000 for te in options.echo_times]
        found = sort_images(images, echo_times=times, wanted=options.series)
        found.problems += [('dcm2niix', reason) for reason in broken]
        targets = plan_targets(
            found.acquisitions, options.participant_label, session=options.session_label,
            acq=options.acq_label, run=options.run,
        )  # fmt: skip
        print(render(targets, found, [f'dcm2niix: {note}' for note in notes]), flush=True)
        _require_phase(found, asked=bool(options.series))
        check_new(root, targets)
        if options.dry_run:
            root = Path(temporary) / 'dataset'
        elif not options.yes and not _confirmed(len(targets), root):
            print('nothing was written')
            return 1
        name = options.dataset_name or Path(os.path.abspath(options.bids_dir)).name
        written = write_targets(root, targets, options.participant_label, name=name, tool=tool)
        if not options.dry_run:
            print(f'wrote {len(written)} files into {root}\n', flush=True)
        good = check_written(
            root, options.participant_label, options.session_label, targets,
            validate=not options.skip_bids_validation,
        )  # fmt: skip
        if options.dry_run:
            print('this was a dry run: nothing was written')
    return 0 if good and not found.problems else 1


def _chosen(images: Sequence[Converted], options: argparse.Namespace) -> list[Converted]:
    """Return the images of the study and the series that are asked for."""
    studies = list(dict.fromkeys(image.study for image in images))
    if options.study is not None and not 1 <= options.study <= len(studies):
        raise ConversionError(f'--study {options.study}: there are {len(studies)} studies', 2)
    if options.study is None and len(studies) > 1:
        lines = [
            f'  {number}: series '
            + ', '.join(f'{n}' for n in sorted({i.number for i in images if i.study == study}))
            for number, study in enumerate(studies, 1)
        ]
        raise ConversionError(
            'the folder holds several studies, perhaps of several people. Choose one with '
            '--study, or name the folder of one:\n' + '\n'.join(lines),
            2,
        )
    kept = [i for i in images if options.study is None or i.study == studies[options.study - 1]]
    numbers = {image.number for image in kept}
    if missing := set(options.series) - numbers:
        there = ', '.join(map(str, sorted(numbers)))
        raise ConversionError(f'there is no series {min(missing)}; there are {there}', 2)
    return [image for image in kept if not options.series or image.number in options.series]


def _require_phase(found: Sorted, *, asked: bool) -> None:
    """Check that there is something with phase, or a T1w image that was asked for by number."""
    if any(item.suffix != 'T1w' for item in found.acquisitions):
        return
    if found.problems:
        raise ConversionError('no gradient echo with phase can be written: see the reasons above')
    if not found.acquisitions:
        raise ConversionError(_NO_PHASE)
    if not asked:
        numbers = ' '.join(str(n) for item in found.acquisitions for n in item.numbers)
        raise ConversionError(f'{_NO_PHASE}. For the T1w image alone, give --series {numbers}')


def _confirmed(count: int, root: Path) -> bool:
    """Ask whether the files shall be written."""
    if not sys.stdin.isatty():
        raise ConversionError('cannot ask without a terminal: give --yes to write', 2)
    answer = input(f'Write these {count} images into {root}? [y/N] ')
    return answer.strip().lower() in ('y', 'yes')


class _Terminated(BaseException):
    """The process was asked to end; not an ``Exception``, so that no handler swallows it."""


@contextlib.contextmanager
def _terminate_raises():
    """Let SIGTERM unwind, so that temporary files are removed."""

    def terminate(signum, frame):
        raise _Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


if __name__ == '__main__':
    sys.exit(main())
