"""``qsmflow-slurm``: scripts for a dataset on a cluster with Slurm, and a list of what failed."""

import argparse
import itertools
import math
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

from qsmflow import __version__
from qsmflow.cli import values
from qsmflow.cli.slurm_scripts import (
    LOGS,
    MAIN_PROCESS_MB,
    SUBMIT,
    TABLE,
    Plan,
    task_range,
    task_words,
)
from qsmflow.cli.usage import HelpFormatter
from qsmflow.settings import Settings

#: Slurm's own limit of the number of tasks, unless the site has raised it.
MAX_TASKS = 1000
#: Room for smaller steps beside the largest one, and for what an estimate misses.
_FACTOR, _MORE_MB, _LEAST_MB = 1.25, 1024, 2048
#: Options of qsmflow that each task has already, and what to give before ``--`` instead.
_TAKEN = {
    'bids.participant_label': 'give it before --; each task has a participant of its own',
    'execution.work_dir': 'give it before --; each task has a folder of its own in it',
    'resources.nprocs': 'give --cpus before --',
    'resources.mem_gb': 'give --mem before --',
    'execution.run_uuid': 'leave it out; each task has a name of its own',
}
#: Parts of a run: a task that does only these would pass for one that is done. The first implies
#: the second.
_PARTS = ('dry_run_json', 'dry_run', 'reports_only', 'boilerplate_only')
_EPILOG = """\
examples:
  qsmflow-slurm write /data/study /data/results -w /scratch/qsmflow --at-once 20 --time 4:00:00
  qsmflow-slurm write /data/study /data/results -w /scratch/qsmflow \\
      --apptainer /images/qsmflow.sif --sbatch=--partition=long -- --preset fast --atlas none
  bash slurm/submit.sh
  qsmflow-slurm failed slurm/exit_codes.tsv

What comes after -- are options of qsmflow, for every participant. More: docs/hpc.md.
"""


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog='qsmflow-slurm', description=__doc__.partition('\n')[0].partition(': ')[2],
        epilog=_EPILOG, formatter_class=HelpFormatter, allow_abbrev=False,
    )  # fmt: skip
    parser.add_argument('--version', action='version', version=__version__)
    levels = parser.add_subparsers(dest='action', required=True)
    write = levels.add_parser(
        'write', help='write the scripts', formatter_class=HelpFormatter, allow_abbrev=False,
        epilog=_EPILOG,
    )  # fmt: skip
    failed = levels.add_parser(
        'failed', help='list the participants that failed, and how to run them again'
    )
    failed.add_argument('table', type=values.existing_file, help=f'{TABLE} beside the scripts')
    _add_folders(write)
    _add_resources(write)
    _add_containers(write)
    return parser


def _add_folders(parser) -> None:
    parser.add_argument('bids_dir', metavar='BIDS_DIR', type=values.existing_folder)
    parser.add_argument('output_dir', metavar='OUTPUT_DIR', type=values.any_path)
    parser.add_argument(
        '-w', '--work-dir', metavar='DIR', type=values.any_path, required=True,
        help='folder of intermediate files on a disk that all nodes see; kept, it lets a '
        'participant go on where it was stopped',
    )  # fmt: skip
    parser.add_argument(
        '--scripts', metavar='DIR', type=values.any_path, default='slurm',
        help='folder for scripts, logs and the table of exit codes (./slurm)',
    )  # fmt: skip
    parser.add_argument(
        '--participant-label', metavar='LABEL', nargs='+', type=values.Label('sub'),
        help='participants to process (all)',
    )  # fmt: skip


def _add_resources(parser) -> None:
    parser.add_argument(
        '--cpus', metavar='N', type=values.Number(int, minimum=1), default=4,
        help='processors of each task (4)',
    )  # fmt: skip
    parser.add_argument(
        '--mem', metavar='GB', type=values.memory_gb,
        help='memory of each task (what the largest acquisition is estimated to need)',
    )  # fmt: skip
    parser.add_argument(
        '--time', metavar='LIMIT', type=_time_limit,
        help='time limit of each task, as in 4:00:00 (that of the partition). It is not '
        'estimated: run one participant first',
    )  # fmt: skip
    parser.add_argument(
        '--grace', metavar='SECONDS', type=values.Number(int, minimum=30, maximum=3600),
        default=120, help='time before the limit at which a task is told to end (120)',
    )  # fmt: skip
    parser.add_argument(
        '--at-once', metavar='K', type=values.Number(int, minimum=1), default=0,
        help='tasks that run side by side (as many as Slurm allows)',
    )  # fmt: skip
    parser.add_argument(
        '--sbatch', metavar='OPTION', action='append', default=[],
        help='further option of sbatch, as in --sbatch=--partition=long; may be repeated',
    )  # fmt: skip
    parser.add_argument(
        '--setup', metavar='LINE', action='append', default=[],
        help="line of shell that each task starts with, as in 'module load apptainer'; may be "
        'repeated',
    )  # fmt: skip
    parser.add_argument(
        '--group-anyway', action='store_true',
        help='run the group level even if participants failed',
    )  # fmt: skip


def _add_containers(parser) -> None:
    group = parser.add_mutually_exclusive_group()
    group.add_argument('--apptainer', metavar='IMAGE', default='', help='run this Apptainer image')
    group.add_argument('--docker', metavar='IMAGE', default='', help='run this Docker image')


def _time_limit(text: str) -> str:
    if not re.fullmatch(r'(\d+-)?\d+(:\d\d){0,2}', text):
        raise argparse.ArgumentTypeError(f'expected a time such as 4:00:00, got {text!r}')
    return text


def main(argv: list[str] | None = None) -> int:
    """Run the command.

    Parameters
    ----------
    argv : list of str, optional
        Arguments; those of the process by default.

    Returns
    -------
    int
        Exit status: 0; 1 if participants failed; 2 for wrong usage; 65 for a dataset that cannot
        be used; 73 if the scripts cannot be written.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    cut = argv.index('--') if '--' in argv else len(argv)
    options = make_parser().parse_args(argv[:cut])
    try:
        if options.action == 'failed':
            return _show_failed(options.table)
        return _write(options, argv[cut + 1 :])
    except Exception as error:
        known = {OSError: 73, ValueError: 2}
        codes = [code for kind, code in known.items() if isinstance(error, kind)]
        code = getattr(error, 'exit_code', next(iter(codes), None))
        if code is None:
            raise
        print(f'qsmflow-slurm: error: {error}; exit code {code}', file=sys.stderr)
        return code


def _write(options: argparse.Namespace, words: list[str]) -> int:
    """Write the scripts and say how to submit them."""
    from qsmflow.bids.checks_dataset import check_dataset, choose_labels, subjects
    from qsmflow.cli.parser import check_methods
    from qsmflow.cli.slurm_scripts import write_scripts

    settings = _settings_of_task(options, words)
    check_methods(settings)
    root, _ = check_dataset(options.bids_dir, not settings.bids.skip_bids_validation)
    labels = choose_labels(options.participant_label, subjects(root), 'participant', 'sub-')
    labels = _concerned(settings, labels)
    mem_mb = math.ceil(1024 * options.mem) if options.mem else needed_mb(settings, labels)
    plan = Plan(
        bids_dir=options.bids_dir,
        output_dir=options.output_dir,
        work_dir=options.work_dir,
        folder=str(Path(options.scripts).absolute()),
        participants=tuple(labels),
        options=tuple(words),
        program=_program(),
        apptainer=_image(options.apptainer),
        docker=options.docker,
        binds=_paths_in(words),
        cpus=options.cpus,
        mem_mb=mem_mb,
        at_once=options.at_once,
        time=options.time or '',
        grace=options.grace,
        sbatch=tuple(options.sbatch),
        setup=tuple(options.setup),
        group_anyway=options.group_anyway,
    )
    _check(plan)
    script = write_scripts(plan)
    print(f'{len(labels)} participants, {plan.cpus} processors and {mem_mb} MB for each task')
    if len(labels) > MAX_TASKS:
        print(
            f'note: many sites allow no task above {MAX_TASKS}; see MaxArraySize in the output '
            'of scontrol show config, and write several folders of scripts if need be'
        )
    print(f'submit with: bash {_quoted(script)}')
    print(f'afterwards: qsmflow-slurm failed {_quoted(script.with_name(TABLE))}')
    return 0


def _settings_of_task(options: argparse.Namespace, words: list[str]) -> Settings:
    """Parse the line that a task will run: errors are found here, not in a hundred tasks.

    Raises
    ------
    ValueError
        If the further options are at odds with those that the script gives.
    SystemExit
        With code 2 after any other usage error.
    """
    from qsmflow.cli.options import build_parser
    from qsmflow.cli.parser import parse_args, typed_options

    typed = typed_options(build_parser(), words)
    for key, remedy in _TAKEN.items():
        if key in typed:
            raise ValueError(f'{typed[key]} cannot come after --: {remedy}')
    # Neither participants nor memory are known yet, and any make the same line.
    label = (options.participant_label or ['01'])[0]
    mem_mb = math.ceil(1024 * (options.mem or 8))
    if mem_mb <= MAIN_PROCESS_MB:
        raise ValueError(f'argument --mem: a task needs more than {MAIN_PROCESS_MB} MB')
    line = task_words(
        options.bids_dir,
        options.output_dir,
        label,
        str(Path(options.work_dir) / f'sub-{label}'),
        str(options.cpus),
        str(mem_mb - MAIN_PROCESS_MB),
    )
    # Tasks leave the validation out; whether the user does so matters to the check of the dataset.
    argv = [word for word in itertools.chain(*line) if word != '--skip-bids-validation']
    settings = parse_args([*argv, *words])
    for name in _PARTS:
        if getattr(settings.execution, name):
            what = typed.get(f'execution.{name}', f'execution.{name} of the settings file')
            raise ValueError(
                f'{what} is not for tasks: each of them is a whole run. Start qsmflow itself '
                'with it'
            )
    return settings


def _concerned(settings: Settings, labels: list[str]) -> list[str]:
    """Return the participants who have what is asked for, and say who has not.

    A task of theirs could only fail, each time it is submitted, and keep the group level waiting.

    Raises
    ------
    ValueError
        If there is no such participant.
    """
    from qsmflow.bids.filters import read_filter_file
    from qsmflow.bids.selection import passed_over

    given = settings.bids
    found = passed_over(
        given.bids_dir,
        labels,
        session_label=list(given.session_label) or None,
        acq_label=list(given.acq_label) or None,
        run_label=list(given.run_label) or None,
        bids_filter=read_filter_file(given.bids_filter_file) if given.bids_filter_file else None,
    )
    for finding in found:
        print(f'note: {finding}')
    left_out = {finding.file.removeprefix('sub-') for finding in found}
    kept = [label for label in labels if label not in left_out]
    if not kept:
        raise ValueError('no participant has what the options after -- ask for; correct them')
    return kept


def needed_mb(settings: Settings, labels: list[str]) -> int:
    """Estimate the memory of a task from the largest acquisition.

    Only headers are read to find it; then its participant is checked as a run would do, and the
    largest claim of its graph counts.

    Parameters
    ----------
    settings : Settings
        Those of the run; methods matter.
    labels : list of str
        Participants.

    Returns
    -------
    int
        MB.

    Raises
    ------
    ValueError
        If the largest acquisitions cannot be processed.
    """
    from qsmflow.cli.plan import collected
    from qsmflow.workflows import init_qsmflow_wf

    for label in by_size(settings.bids.bids_dir, labels)[:3]:
        bids = replace(settings.bids, participant_label=(label,))
        series = collected(replace(settings, bids=bids)).series
        if series:
            out_dir = settings.bids.output_dir
            workflow = init_qsmflow_wf(series=series, settings=settings, out_dir=out_dir)
            claims = [workflow.get_node(name).mem_gb for name in workflow.list_node_names()]
            needed = math.ceil(1024 * _FACTOR * max(claims)) + _MORE_MB + MAIN_PROCESS_MB
            return max(needed, _LEAST_MB)
    raise ValueError(
        'the memory cannot be estimated, as the largest acquisitions cannot be processed. '
        f'qsmflow {_quoted(settings.bids.bids_dir)} OUTPUT_DIR participant --dry-run says why; '
        'or give the memory of a task with --mem'
    )


def by_size(bids_dir: str, labels: list[str]) -> list[str]:
    """Return the labels that have gradient-echo images, the one with the largest first.

    The size of an acquisition is the number of its voxels, all echoes and parts together.
    """
    import nibabel as nib

    from qsmflow.bids.names import looks_like_gre
    from qsmflow.io import UNREADABLE

    sizes = {}
    for label in labels:
        folder = Path(bids_dir) / f'sub-{label}'
        groups: dict[str, list[Path]] = {}
        for path in sorted([*folder.glob('anat/*.nii*'), *folder.glob('ses-*/anat/*.nii*')]):
            if looks_like_gre(path.name):
                name = re.sub(r'_(echo|part)-[^_]+', '', path.name)
                groups.setdefault(name, []).append(path)
        for paths in groups.values():
            try:
                size = len(paths) * math.prod(nib.load(paths[0]).shape)
            except UNREADABLE:
                continue  # told when it is processed
            sizes[label] = max(size, sizes.get(label, 0))
    return sorted(sizes, key=sizes.get, reverse=True)


def _check(plan: Plan) -> None:
    """Refuse what the scripts cannot hold.

    Raises
    ------
    ValueError
        If a folder is in the wrong place, or a name would break a script or a mount.
    """
    folder, raw, out = (Path(p).resolve() for p in (plan.folder, plan.bids_dir, plan.output_dir))
    for place in (raw, out):
        if folder.is_relative_to(place):
            raise ValueError(f'argument --scripts: {folder} lies in {place}; give another folder')
    paths = (plan.bids_dir, plan.output_dir, plan.work_dir, *plan.binds)
    for path in (*paths, plan.folder):
        if '\n' in path or '"' in plan.folder:
            raise ValueError(f'{path!r}: scripts for Slurm cannot hold such a name')
    if plan.apptainer or plan.docker:
        for path in paths:
            if ':' in path or ',' in path:
                raise ValueError(f'{path}: a container cannot mount a path with a colon or comma')


def _program() -> tuple[str, ...]:
    """Return the words that start the program of this environment on any node."""
    beside = Path(sys.executable).with_name('qsmflow')
    found = str(beside) if beside.is_file() else shutil.which('qsmflow')
    return (found,) if found else (sys.executable, '-m', 'qsmflow')


def _image(text: str) -> str:
    """Return an image; a file by its absolute path, as tasks may start elsewhere."""
    path = Path(text).expanduser()
    return str(path.absolute()) if text and path.exists() else text


def _paths_in(words: list[str]) -> tuple[str, ...]:
    """Return the paths that options name, which a container has to see."""
    candidates = [part for word in words for part in (word, word.partition('=')[2])]
    paths = [path for path in candidates if path.startswith('/') and Path(path).exists()]
    return tuple(dict.fromkeys(paths))


def _show_failed(table: str) -> int:
    """Print who failed and the line that submits them again."""
    from qsmflow.cli.slurm_table import read_state

    state = read_state(table)
    script = Path(table).with_name(SUBMIT)
    for item in state.failed:
        code = 'none' if item.exit_code is None else item.exit_code
        print(f'sub-{item.participant}\texit code {code}\t{item.meaning}')
    total = len(state.done) + len(state.queued) + len(state.failed)
    print(
        f'{total} participants: {len(state.done)} done, {len(state.queued)} in the queue, '
        f'{len(state.failed)} to be run again'
    )
    if not state.queue_known:
        print('note: squeue gave no answer, so that running tasks count as failed')
    if state.longest:
        print(f'the longest finished task took {state.longest} s')
    if state.failed:
        tasks = task_range(item.task for item in state.failed)
        print(f'logs: {_quoted(Path(table).with_name(LOGS))}')
        print(f'run them again, from where they stopped: bash {_quoted(script)} {tasks}')
    elif state.group is not None:
        print(f'the group level failed: {state.group.meaning}')
        print(f'run it again: sbatch {_quoted(script.with_name("group.sbatch"))}')
    return 1 if state.failed or state.group else 0


def _quoted(path) -> str:
    import shlex

    return shlex.quote(str(path))
