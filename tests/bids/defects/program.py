"""What only the command line sees: request, folders, other runs, and what happens in a run."""

import errno
import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from nipype.interfaces.utility import Function

from qsmflow import __version__
from qsmflow.engine import Node, Workflow
from qsmflow.settings import BIDSSettings, ReconstructionSettings, Settings

from .dataset import Dataset
from .registry import defect

OTHER_METHODS = Settings(reconstruction=ReconstructionSettings(inversion='tkd'))


class Launch:
    """A command line to come, on a clean dataset of one series.

    Nothing is computed, unless a defect gives ``steps``: then they run, in processes, as the
    graph of the series. ``computing`` may take the place of that.
    """

    def __init__(self, dataset: Dataset, patch):
        self.dataset, self.patch = dataset, patch
        base = dataset.root.parent
        self.raw, self.out, self.work = dataset.root, base / 'out', base / 'work'
        self.mem, self.options = '4', ['--skip-bids-validation']
        self.steps: list[Node] = []
        self.computing: Callable = finished
        self.after = ExitStack()

    def argv(self) -> list[str]:
        """Return the arguments."""
        start = [self.raw, self.out, 'participant', '-w', self.work, '--atlas', 'none']
        return [*map(str, start), '--nprocs', '1', '--mem', self.mem, *self.options]

    def graph(self, **_) -> Workflow:
        """Return the graph of the steps, in place of the one for the series."""
        whole, subject, series = (
            Workflow(name=f'{n}_wf') for n in ('qsmflow', 'sub_01', 'sub_01')
        )
        series.add_nodes(self.steps or [step(fail, 'never_run')])
        subject.add_nodes([series])
        whole.add_nodes([subject])
        return whole

    def run(self) -> int:
        """Run the program in this process, and return its exit code."""
        from qsmflow.cli import execution, run
        from qsmflow.workflows import base

        self.patch.setattr(base, 'init_qsmflow_wf', self.graph)
        if not self.steps:
            self.patch.setattr(execution, 'run_graph', self.computing)
        # The forced end would be that of the tests.
        self.patch.setattr(run, 'handled', functools.partial(run.handled, grace=120))
        with self.after:
            try:
                return run.main(self.argv())
            except SystemExit as usage:
                return usage.code

    def free(self, **sizes: float) -> None:
        """Set the free bytes of the disks of ``work`` and ``out``."""
        from qsmflow.cli import space

        def found(folder):
            sizes_by_name = {'work': 1e12, 'out': 1e12, **sizes}
            return Path(folder).name, sizes_by_name[Path(folder).name]

        self.patch.setattr(space, '_disk', found)


def finished(workflow, settings, crash_dir, monitor) -> tuple:
    """Leave what the graph leaves for the report, and say that no step failed."""
    figures = Path(settings.bids.output_dir, 'sub-01', 'figures')
    figures.mkdir(parents=True, exist_ok=True)
    summary = figures / 'sub-01_desc-summary_report.json'
    summary.write_text(json.dumps({'series': 'sub-01'}))
    return ()


def launched(code: str, level: str, outcome: int, **keywords):
    """Register a defect that the command line sees."""
    return defect(code, level, outcome, stage='program', **keywords)


# ---- Request and folders --------------------------------------------------------------------


@launched('E90', 'FATAL', 2)
def dataset_that_is_not_mounted(launch):
    launch.raw = launch.raw / 'nowhere'


@launched('E91', 'FATAL', 2)
def typographic_dash(launch):
    launch.options += ['\u2013participant-label', '01']


@launched('E91', 'FATAL', 2)
def unknown_option(launch):
    launch.options += ['--inversoin', 'tkd']


@launched('B41', 'ERROR', 65, file='MEGRE.nii.gz', told=('status', 'report'))
def correction_that_two_echoes_do_not_allow(launch):
    for part in ('mag', 'phase'):
        launch.dataset.image(3, part).unlink()
    launch.options += ['--bipolar', 'on']


@launched('C76', 'ERROR', 1, file='MEGRE.nii.gz', told=('status', 'report'))
def too_large_for_the_memory(launch):
    launch.mem = '0.05'


@launched('C76', 'WARN', 0, file='MEGRE.nii.gz')
def too_large_but_insisted_on(launch):
    launch.mem = '0.05'
    launch.options += ['--low-mem', '--dry-run']


@launched('E93', 'WARN', 0, file='sub-01/anat', told=('report',))
def invalid_sidecar(launch):
    launch.options = []
    launch.dataset.edit_all(FlipAngle='steep')


@launched('E93', 'INFO', 0)
def no_validator(launch):
    from qsmflow.cli import validation

    launch.options = ['--dry-run']
    launch.patch.setattr(validation, 'find_tool', lambda: None)


@launched('E96', 'FATAL', 2, file='ds')
def output_is_the_dataset(launch):
    launch.out = launch.raw


@launched('E96', 'FATAL', 2, file='ds/results')
def output_in_the_dataset(launch):
    launch.out = launch.raw / 'results'


@launched('E96', 'FATAL', 2, file='ds/derivatives')
def output_is_the_folder_of_derivatives(launch):
    launch.out = launch.raw / 'derivatives'


@launched('E96', 'FATAL', 2, file='ds/sub-01')
def output_in_a_subject_through_a_link(launch):
    launch.out = launch.raw.parent / 'link' / 'sub-01'
    (launch.raw.parent / 'link').symlink_to(launch.raw)


@launched('E96', 'FATAL', 2)
def output_contains_the_dataset(launch):
    launch.out = launch.raw.parent


@launched('E96', 'FATAL', 2, file='sub-02')
def output_named_like_a_subject(launch):
    launch.out = launch.raw.parent / 'sub-02'


@launched('E96', 'FATAL', 2, file='derivatives/work')
def work_in_the_dataset(launch):
    launch.work = launch.raw / 'derivatives' / 'work'


@launched('E96', 'FATAL', 2, file='out/work')
def work_in_the_results(launch):
    launch.work = launch.out / 'work'


@launched('E96', 'FATAL', 2, file=f'qsmflow-{__version__}')
def output_in_the_folder_of_the_steps(launch):
    launch.work = launch.raw.parent / 'w'
    launch.out = launch.work / f'qsmflow-{__version__}' / 'out'


@launched('E96', 'FATAL', 2, file='qsmflow-0.0.9/qsmflow_wf')
def cleaning_would_remove_a_dataset(launch):
    steps = launch.work / 'qsmflow-0.0.9' / 'qsmflow_wf'
    steps.mkdir(parents=True)
    launch.options += ['--clean-workdir', '--derivatives', f'prep={launch.work}']


# ---- What lies in the folders, and their disks ----------------------------------------------


@launched('E97', 'FATAL', 2, file='out')
def results_of_other_methods(launch):
    record(launch, '02', OTHER_METHODS)


@launched('E97', 'FATAL', 2, file='out/dataset_description.json')
def results_of_another_program(launch):
    launch.out.mkdir()
    content = {'DatasetType': 'derivative', 'GeneratedBy': [{'Name': 'fMRIPrep'}]}
    (launch.out / 'dataset_description.json').write_text(json.dumps(content))


@launched('E97', 'FATAL', 2, file='out')
def results_of_another_dataset(launch):
    other = BIDSSettings(bids_dir=str(launch.raw.parent / 'other'))
    Path(other.bids_dir).mkdir()
    description = Path(other.bids_dir, 'dataset_description.json')
    description.write_text(json.dumps({'Name': 'Another study'}))
    record(launch, '02', Settings(bids=other))


@launched('E97', 'WARN', 0, file='out', told=('report',))
def results_that_are_replaced(launch):
    record(launch, '01', OTHER_METHODS)


@launched('E97', 'WARN', 0, file='out', told=('report',))
def results_of_other_methods_but_insisted_on(launch):
    record(launch, '02', OTHER_METHODS)
    launch.options += ['--allow-mixed-settings']


@launched('E97', 'WARN', 0, file='out', told=('report',))
def results_of_another_version(launch):
    path = record(launch, '02', Settings())
    path.write_text(path.read_text().replace(__version__, '0.0.9'))


def record(launch: Launch, subject: str, settings: Settings) -> Path:
    """Take down that there are results of a subject."""
    from qsmflow.cli.history import write_record

    write_record(launch.out, subject, settings)
    return launch.out / f'logs/sub-{subject}_settings.json'


@launched('E98', 'FATAL', 73, file='work')
def too_little_space(launch):
    launch.free(work=1e6)


@launched('E98', 'WARN', 0, file='out', told=('report',))
def hardly_enough_space(launch):
    launch.free(out=3.2e6)


@launched('E98', 'FATAL', 73, told=('status', 'report'))
def disk_that_fills_up(launch):
    """The run ends at once, though another step is at work."""
    launch.steps = [step(write_to_a_full_disk, 'remove'), step(work_on, 'wait')]
    launch.options += ['--nprocs', '2']


@launched('E99', 'FATAL', 73, file='out')
def output_below_a_file(launch):
    (launch.raw.parent / 'file').touch()
    launch.out = launch.raw.parent / 'file' / 'out'


@launched('E99', 'FATAL', 73, file='work')
def work_folder_that_is_read_only(launch):
    write = tempfile.TemporaryFile

    def refuse(*arguments, dir=None, **keywords):
        if Path(dir or '').name == 'work':
            raise OSError(errno.EROFS, 'Read-only file system')
        return write(*arguments, dir=dir, **keywords)

    launch.patch.setattr(tempfile, 'TemporaryFile', refuse)


@launched('E100', 'INFO', 0, file='work')
def steps_of_an_earlier_run(launch):
    folder = launch.work / f'qsmflow-{__version__}/qsmflow_wf/sub_01_wf/steps_wf/fit'
    folder.mkdir(parents=True)
    (folder / 'result_fit.pklz').touch()


@launched('E107', 'INFO', 0)
def no_home(launch):
    launch.patch.delenv('HOME')
    launch.options += ['--dry-run']


# ---- Other runs -----------------------------------------------------------------------------

_HOLD = """
import sys, time
from qsmflow.cli.locks import Locks
with Locks(*sys.argv[1:3], ['01'], 'run-a'):
    print('held', flush=True)
    time.sleep(300)
"""


@launched('E101', 'FATAL', 75, file='work')
def another_run_on_the_work_folder(launch):
    hold(launch, launch.raw.parent / 'elsewhere', launch.work)


@launched('E102', 'FATAL', 75, file='out')
def another_run_on_the_participant(launch):
    hold(launch, launch.out, launch.raw.parent / 'elsewhere')


def hold(launch: Launch, out: Path, work: Path) -> None:
    """Start a process that holds the locks of the participant until the launch is over."""
    for folder in (out, work):
        folder.mkdir()
    command = [sys.executable, '-c', _HOLD, str(out), str(work)]
    process = launch.after.enter_context(
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    )
    launch.after.callback(process.kill)
    assert process.stdout.readline() == 'held\n'


# ---- What happens in a run ------------------------------------------------------------------


@launched('E103', 'FATAL', 1, told=('status', 'report'))
def worker_that_is_killed(launch):
    launch.steps = [step(be_killed, 'invert')]


@launched('E104', 'FATAL', 143, told=('status', 'report'))
def terminated_by_the_scheduler(launch):
    launch.computing = functools.partial(interrupted, signal.SIGTERM)


@launched('E104', 'FATAL', 130, told=('status', 'report'))
def interrupted_by_the_user(launch):
    # The tests may run in the background of a shell, which ignores it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    launch.after.callback(signal.signal, signal.SIGINT, before)
    launch.computing = functools.partial(interrupted, signal.SIGINT)


@launched('E110', 'ERROR', 1, told=('status', 'report'))
def step_that_fails(launch):
    launch.steps = [step(fail, 'fit')]


def step(function: Callable, name: str) -> Node:
    """Return a step of the graph that calls a function."""
    return Node(Function(function=function, output_names=['out']), name=name)


def write_to_a_full_disk():
    import errno

    raise OSError(errno.ENOSPC, 'No space left on device')


def work_on():
    import time

    time.sleep(1000)  # longer than a test may take


def be_killed():
    import os
    import signal
    import time

    time.sleep(1.5)  # so that what it held was seen
    os.kill(os.getpid(), signal.SIGKILL)


def fail():
    raise ValueError('a value is wrong')


def interrupted(number: int, *_) -> None:
    """Stand in for the graph that is running when a signal comes."""
    import time

    os.kill(os.getpid(), number)
    time.sleep(60)
