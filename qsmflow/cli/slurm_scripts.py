"""The scripts that ``qsmflow-slurm`` writes: one task of an array for each participant."""

import shlex
from dataclasses import dataclass
from pathlib import Path

from qsmflow import __version__

#: What the main process needs beside the steps, in MB.
MAIN_PROCESS_MB = 512
PARTICIPANTS, TABLE, JOBS, LOGS = 'participants.txt', 'exit_codes.tsv', 'jobs.txt', 'logs'
ARRAY, GROUP, SUBMIT = 'participant.sbatch', 'group.sbatch', 'submit.sh'
COLUMNS = ('participant', 'task', 'job', 'exit_code', 'seconds', 'host', 'time')
#: Written as the exit code when a task begins, so that one that ends without a word is noticed.
STARTED = 'started'


@dataclass(frozen=True)
class Plan:
    """What is to be run, and how.

    Attributes
    ----------
    bids_dir, output_dir, work_dir, folder : str
        Absolute folders: the dataset, the results, the intermediate files, and the scripts.
    participants : tuple of str
        Labels; the place in this list is the number of the task.
    options : tuple of str
        Further options of ``qsmflow``, as words.
    program : tuple of str
        Words that start ``qsmflow`` where there is no container.
    apptainer, docker : str
        Image to run instead; empty for none.
    binds : tuple of str
        Further paths that the container sees, read-only.
    cpus, mem_mb : int
        Processors and MB of each task.
    at_once : int
        Tasks that run side by side; 0 for as many as Slurm allows.
    time : str
        Time limit as Slurm writes it; empty for that of the partition.
    grace : int
        Seconds before the time limit at which the program is told to end.
    sbatch : tuple of str
        Further options of ``sbatch``.
    setup : tuple of str
        Lines of shell that come first, such as ``module load apptainer``.
    group_anyway : bool
        Run the group level even if participants failed.
    """

    bids_dir: str
    output_dir: str
    work_dir: str
    folder: str
    participants: tuple[str, ...]
    options: tuple[str, ...] = ()
    program: tuple[str, ...] = ('qsmflow',)
    apptainer: str = ''
    docker: str = ''
    binds: tuple[str, ...] = ()
    cpus: int = 2
    mem_mb: int = 8192
    at_once: int = 0
    time: str = ''
    grace: int = 120
    sbatch: tuple[str, ...] = ()
    setup: tuple[str, ...] = ()
    group_anyway: bool = False


def write_scripts(plan: Plan) -> Path:
    """Write scripts, list of participants, and the head of the table of exit codes.

    A table that is there already is kept.

    Parameters
    ----------
    plan : Plan
        What to run.

    Returns
    -------
    Path
        The script that submits everything.
    """
    folder = Path(plan.folder)
    (folder / LOGS).mkdir(parents=True, exist_ok=True)
    texts = {
        PARTICIPANTS: ''.join(f'{label}\n' for label in plan.participants),
        ARRAY: array_script(plan),
        GROUP: group_script(plan),
        SUBMIT: submit_script(plan),
    }
    if not (folder / TABLE).exists():
        texts[TABLE] = '\t'.join(COLUMNS) + '\n'
    for name, text in texts.items():
        (folder / name).write_text(text, encoding='utf-8')
    (folder / SUBMIT).chmod(0o755)
    return folder / SUBMIT


def task_range(numbers, at_once: int = 0) -> str:
    """Write numbers of tasks as ``sbatch --array`` takes them.

    Parameters
    ----------
    numbers : iterable of int
        Any order.
    at_once : int
        Tasks that run side by side; 0 for no limit.

    Examples
    --------
    >>> task_range([1, 2, 3, 7, 9, 10], at_once=4)
    '1-3,7,9-10%4'
    """
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    text = ','.join(str(a) if a == b else f'{a}-{b}' for a, b in runs)
    return f'{text}%{at_once}' if at_once else text


def array_script(plan: Plan) -> str:
    """Return the script of the participants."""
    numbers = range(1, len(plan.participants) + 1)
    command = _command(plan, 'participant')
    return f"""\
#!/bin/bash
# One participant in each task; {SUBMIT} submits it. Written by qsmflow-slurm {__version__}.
{_directives(plan, 'qsmflow', f'--array={task_range(numbers, plan.at_once)}')}
{_beginning(plan)}
task=$SLURM_ARRAY_TASK_ID
job=${{SLURM_ARRAY_JOB_ID}}_$task
label=$(sed -n "${{task}}p" "$folder"/{PARTICIPANTS})
if [ -z "$label" ]; then
  echo "line $task of $folder/{PARTICIPANTS} names no participant" >&2
  exit 2
fi
work={shlex.quote(plan.work_dir)}/sub-$label
mkdir -p "$work" "$output_dir" || {{ note 73; exit 73; }}
{_resources(plan)}
{_run(command)}"""


def group_script(plan: Plan) -> str:
    """Return the script of the group level."""
    command = _command(plan, 'group')
    return f"""\
#!/bin/bash
# The group level, after the participants; {SUBMIT} submits it. By qsmflow-slurm {__version__}.
{_directives(plan, 'qsmflow-group')}
{_beginning(plan)}
task=n/a
job=$SLURM_JOB_ID
label=group
work={shlex.quote(plan.work_dir)}/group
{_run(command)}"""


def submit_script(plan: Plan) -> str:
    """Return the script that submits the array, and the group level to follow it."""
    everyone = task_range(range(1, len(plan.participants) + 1), plan.at_once)
    after, unless = (
        ('afterany', '') if plan.group_anyway else ('afterok', '--kill-on-invalid-dep=yes ')
    )
    return f"""\
#!/bin/bash
# Submit the participants, and the group level to follow them. By qsmflow-slurm {__version__}.
# usage: {SUBMIT} [TASKS]   TASKS as in --array of sbatch, for some participants only
set -euo pipefail
folder={shlex.quote(plan.folder)}
tasks=${{1:-{everyone}}}
job=$(sbatch --parsable --array="$tasks" "$folder"/{ARRAY})
job=${{job%%;*}}
echo "$job" >> "$folder"/{JOBS}
echo "participants: job $job, tasks $tasks"
group=$(sbatch --parsable {unless}--dependency="{after}:$job" "$folder"/{GROUP})
echo "group level: job ${{group%%;*}}, when they are done"
"""


def _directives(plan: Plan, name: str, *more: str) -> str:
    log = f'{plan.folder}/{LOGS}/{"%x_%A_%a" if more else "%x_%j"}.log'
    options = [
        f'--job-name={name}',
        *more,
        f'--cpus-per-task={plan.cpus}',
        f'--mem={plan.mem_mb}M',
        *([f'--time={plan.time}'] if plan.time else []),
        f'--signal=B:TERM@{plan.grace}',
        f'--output="{log}"',
        '--open-mode=append',
        *plan.sbatch,
    ]
    return '\n'.join(f'#SBATCH {option}' for option in options)


def _beginning(plan: Plan) -> str:
    """Return what both scripts start with: folders, and the function that notes an exit code."""
    setup = ''.join(f'{line}\n' for line in plan.setup)
    return f"""{setup}
folder={shlex.quote(plan.folder)}
bids_dir={shlex.quote(plan.bids_dir)}
output_dir={shlex.quote(plan.output_dir)}

note() {{  # add a line to the table; the lock keeps lines of concurrent tasks apart
  {{
    flock -w 60 9 2>/dev/null
    printf '%s\\t%s\\t%s\\t%s\\t%s\\t%s\\t%s\\n' "$label" "$task" "$job" "$1" "$SECONDS" \\
      "$(hostname -s)" "$(date +%Y-%m-%dT%H:%M:%S)" >&9
  }} 9>>"$folder"/{TABLE}
}}
"""


def _resources(plan: Plan) -> str:
    """Return the lines that find out what Slurm granted: it may differ from what was asked."""
    return f"""\
cpus=${{SLURM_CPUS_PER_TASK:-{plan.cpus}}}
mem_mb=${{SLURM_MEM_PER_NODE:-0}}
if [ -n "${{SLURM_MEM_PER_CPU:-}}" ]; then mem_mb=$((SLURM_MEM_PER_CPU * cpus)); fi
if [ "$mem_mb" -eq 0 ]; then mem_mb={plan.mem_mb}; fi
mem_mb=$((mem_mb - {MAIN_PROCESS_MB}))  # for the main process, which is not counted
"""


def _run(command: str) -> str:
    """Return the lines that run the program, pass on SIGTERM, and note how it ended.

    Slurm sends the signal to the shell alone, and a shell that waits for a program in the
    foreground would act on it too late.
    """
    return f"""\
note {STARTED}
child=
terminated=
trap 'terminated=1; [ -z "$child" ] || kill -TERM "$child" 2>/dev/null' TERM
{command} &
child=$!
[ -z "$terminated" ] || kill -TERM "$child" 2>/dev/null
wait "$child"
code=$?
while [ -n "$terminated" ]; do  # the signal ended the waiting, not yet the program
  terminated=
  wait "$child"
  code=$?
done
note "$code"
exit "$code"
"""


def task_words(
    bids_dir: str, output_dir: str, label: str, work_dir: str, cpus: str, mem_mb: str
) -> list[list[str]]:
    """Return the arguments of a task, in groups, to which the options of the user are added.

    They are written here alone, so that what is checked is what is run.

    Parameters
    ----------
    bids_dir, output_dir, label, work_dir, cpus, mem_mb : str
        Values, or the shell's names for them.

    Examples
    --------
    >>> task_words('raw', 'out', '01', 'work', '2', '4096')[1]
    ['--participant-label', '01', '-w', 'work']
    """
    return [
        [bids_dir, output_dir, 'participant'],
        ['--participant-label', label, '-w', work_dir],
        ['--skip-bids-validation', '--nprocs', cpus, '--mem-mb', mem_mb],
    ]


def _command(plan: Plan, level: str) -> str:
    """Return the command line of a level, one group of words on each line."""
    bids_dir, output_dir, work = '"$bids_dir"', '"$output_dir"', '"$work"'
    if level == 'participant':
        words = task_words(bids_dir, output_dir, '"$label"', work, '"$cpus"', '"$mem_mb"')
        options = [shlex.join(plan.options)] if plan.options else []
    else:
        # Without a place for it the current folder, which may be the dataset, would be taken.
        words, options = [[bids_dir, output_dir, level], ['-w', work]], []
    return ' \\\n  '.join([*_start(plan, level), *map(' '.join, words), *options])


def _start(plan: Plan, level: str) -> list[str]:
    """Return the words before the arguments; containers see folders under their own names."""
    folders = [('$bids_dir', 'ro'), ('$output_dir', 'rw')]
    folders += [('$work', 'rw')] if level == 'participant' else []
    binds = [shlex.quote(f'{path}:{path}:ro') for path in plan.binds]
    if plan.apptainer:
        options = [f'-B "{name}:{name}:{mode}"' for name, mode in folders]
        options += [f'-B {bind}' for bind in binds]
        return ['apptainer run --cleanenv', ' '.join(options), shlex.quote(plan.apptainer)]
    if plan.docker:
        options = [f'-v "{name}:{name}:{mode}"' for name, mode in folders]
        options += [f'-v {bind}' for bind in binds]
        start = 'docker run --rm --read-only --tmpfs /tmp --network none -u "$(id -u):$(id -g)"'
        limits = '--cpus "$cpus" --memory "${mem_mb}m"' if level == 'participant' else ''
        return [start, *filter(None, [limits]), ' '.join(options), shlex.quote(plan.docker)]
    return [shlex.join(plan.program)]
