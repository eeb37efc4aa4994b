"""The scripts of ``qsmflow-slurm``: what they say, and that they run as bash reads them."""

import os
import re
import shlex
import shutil
import signal
import stat
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from qsmflow.cli import slurm
from qsmflow.cli.parser import parse_args
from qsmflow.cli.run import main
from qsmflow.cli.slurm_scripts import COLUMNS, Plan, task_range, write_scripts
from qsmflow.cli.slurm_table import TableError, read_state
from tests.bids.defects import write_clean, write_series

SHELLCHECK = shutil.which('shellcheck')
NAMES = ('participant.sbatch', 'group.sbatch', 'submit.sh')

#: In the place of qsmflow: it notes its arguments, and ends as the file ``code`` says.
PROGRAM = """\
#!/bin/bash
here=$(dirname "$0")
printf '%s\\n' "$@" > "$here/arguments"
trap 'echo told > "$here/told"; exit 143' TERM
touch "$here/running"
for _ in $(seq "$(cat "$here/tenths" 2>/dev/null || echo 0)"); do sleep 0.1; done
exit "$(cat "$here/code" 2>/dev/null || echo 0)"
"""


@pytest.fixture
def base(tmp_path):
    """Return a folder whose name has to be quoted."""
    folder = tmp_path / "a b; $c it's 50%"
    folder.mkdir()
    return folder


@pytest.fixture
def program(base):
    path = base / 'program'
    path.write_text(PROGRAM)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.fixture
def plan(base, program):
    return Plan(
        bids_dir=str(base / 'raw'),
        output_dir=str(base / 'out'),
        work_dir=str(base / 'work'),
        folder=str(base / 'scripts'),
        participants=('01', '02', 'A7'),
        options=('--preset', 'fast', '--mask', str(base / 'm.nii')),
        program=(str(program),),
        mem_mb=4096,
    )


def environment(task=1, **more):
    given = {'SLURM_ARRAY_TASK_ID': task, 'SLURM_ARRAY_JOB_ID': 12, 'SLURM_JOB_ID': 12}
    return {**os.environ, **{k: str(v) for k, v in {**given, **more}.items()}}


def run(plan, name='participant.sbatch', **variables):
    script = f'{plan.folder}/{name}'
    return subprocess.run(
        ['bash', script], capture_output=True, text=True, timeout=60, env=environment(**variables)
    )


def arguments(plan):
    return (program_folder(plan) / 'arguments').read_text().splitlines()


def program_folder(plan):
    from pathlib import Path

    return Path(plan.program[0]).parent


def rows(plan):
    text = (program_folder(plan) / 'scripts/exit_codes.tsv').read_text().splitlines()
    return [dict(zip(COLUMNS, line.split('\t'), strict=True)) for line in text[1:]]


# What tasks do.


def test_task_runs_its_participant_with_what_slurm_granted(plan, base):
    write_scripts(plan)
    done = run(plan, task=2, SLURM_CPUS_PER_TASK=3, SLURM_MEM_PER_NODE=5000)
    assert done.returncode == 0, done.stderr
    assert arguments(plan) == [
        *(str(base / 'raw'), str(base / 'out'), 'participant'),
        *('--participant-label', '02', '-w', str(base / 'work/sub-02')),
        *('--skip-bids-validation', '--nprocs', '3', '--mem-mb', str(5000 - 512)),
        *('--preset', 'fast', '--mask', str(base / 'm.nii')),
    ]
    assert [(row['participant'], row['exit_code']) for row in rows(plan)] == [
        ('02', 'started'),
        ('02', '0'),
    ]
    assert {row['job'] for row in rows(plan)} == {'12_2'}


@pytest.mark.parametrize(
    ('granted', 'expected'),
    [
        ({'SLURM_MEM_PER_CPU': 2000, 'SLURM_CPUS_PER_TASK': 4}, 8000 - 512),
        ({'SLURM_MEM_PER_NODE': 0}, 4096 - 512),
        ({}, 4096 - 512),
    ],
    ids=['per processor', 'all of the node', 'unknown'],
)
def test_memory_is_read_in_every_way_that_slurm_tells_it(plan, granted, expected):
    write_scripts(plan)
    run(plan, **granted)
    words = arguments(plan)
    assert words[words.index('--mem-mb') + 1] == str(expected)


@pytest.mark.parametrize('code', [1, 65, 137])
def test_exit_code_is_noted_and_passed_on(plan, base, code):
    write_scripts(plan)
    (base / 'code').write_text(str(code))
    assert run(plan).returncode == code
    assert rows(plan)[-1]['exit_code'] == str(code)


def test_sigterm_reaches_the_program_and_its_exit_code_is_kept(plan, base):
    """Slurm signals the shell alone; in the foreground it would wait for the program first."""
    write_scripts(plan)
    (base / 'tenths').write_text('300')
    with subprocess.Popen(
        ['bash', f'{plan.folder}/participant.sbatch'], env=environment()
    ) as process:
        deadline = time.monotonic() + 30
        while not (base / 'running').exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 143
    assert (base / 'told').exists()
    assert rows(plan)[-1]['exit_code'] == '143'


def test_task_without_participant(plan):
    write_scripts(plan)
    done = run(plan, task=9)
    assert done.returncode == 2
    assert 'line 9 of' in done.stderr


def test_group_level(plan, base):
    write_scripts(plan)
    assert run(plan, 'group.sbatch').returncode == 0
    paths = [str(base / name) for name in ('raw', 'out', 'work/group')]
    assert arguments(plan) == [*paths[:2], 'group', '-w', paths[2]]
    assert rows(plan)[-1]['participant'] == 'group'


def test_lines_of_concurrent_tasks_stay_whole(plan):
    labels = tuple(f'{number:02}' for number in range(1, 25))
    plan = Plan(**{**vars(plan), 'participants': labels})
    write_scripts(plan)
    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(lambda task: run(plan, task=task), range(1, 25)))
    assert all(item.returncode == 0 for item in done)
    assert len(rows(plan)) == 48
    assert {row['participant'] for row in rows(plan) if row['exit_code'] == '0'} == set(labels)


def test_setup_and_options_of_sbatch(plan):
    plan = Plan(
        **{**vars(plan), 'setup': ('export WHERE="a module"',), 'sbatch': ('--partition=long',),
           'time': '4:00:00', 'grace': 300, 'at_once': 2}
    )  # fmt: skip
    write_scripts(plan)
    for name, array in (('participant.sbatch', True), ('group.sbatch', False)):
        text = (program_folder(plan) / 'scripts' / name).read_text()
        head = re.findall(r'^#SBATCH (.+)$', text, re.M)
        assert ('--array=1-3%2' in head) == array
        assert {'--mem=4096M', '--time=4:00:00', '--signal=B:TERM@300', '--partition=long'} <= {
            *head
        }
        assert text.index('#SBATCH') < text.index('export WHERE')


@pytest.mark.skipif(SHELLCHECK is None, reason='shellcheck is not installed')
@pytest.mark.parametrize('container', ['', 'apptainer', 'docker'])
def test_scripts_are_clean_for_shellcheck(plan, container):
    # Excluded: a dollar in single quotes, which is one in the name of the folder.
    if container:
        plan = Plan(**{**vars(plan), container: 'an image', 'binds': ('/some where',)})
    write_scripts(plan)
    done = subprocess.run(
        [SHELLCHECK, '--shell=bash', '--exclude=SC2016', *NAMES],
        cwd=plan.folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


def test_scripts_are_bash(plan):
    write_scripts(plan)
    for name in NAMES:
        subprocess.run(['bash', '-n', f'{plan.folder}/{name}'], check=True)


# Containers: their programs are imitated.


@pytest.mark.parametrize('kind', ['apptainer', 'docker'])
def test_containers_see_every_folder_by_its_own_name(plan, base, program, monkeypatch, kind):
    (base / 'bin').mkdir()
    shutil.copy(program, base / 'bin' / kind)
    monkeypatch.setenv('PATH', f'{base / "bin"}:{os.environ["PATH"]}')
    mask = str(base / 'm.nii')
    plan = Plan(**{**vars(plan), kind: 'qsmflow:1', 'binds': (mask,)})
    write_scripts(plan)
    done = run(plan)
    assert done.returncode == 0, done.stderr
    words = (base / 'bin/arguments').read_text().splitlines()
    cut = words.index('qsmflow:1')
    flag = '-B' if kind == 'apptainer' else '-v'
    mounts = [words[i + 1] for i, word in enumerate(words[:cut]) if word == flag]
    raw, out, work = (str(base / name) for name in ('raw', 'out', 'work/sub-01'))
    assert mounts == [
        f'{raw}:{raw}:ro',
        f'{out}:{out}:rw',
        f'{work}:{work}:rw',
        f'{mask}:{mask}:ro',
    ]
    assert words[cut + 1 : cut + 4] == [raw, out, 'participant']
    if kind == 'apptainer':
        assert words[:2] == ['run', '--cleanenv']
    else:
        assert f'{os.getuid()}:{os.getgid()}' in words
        assert {'--network', 'none', '--read-only'} <= set(words[:cut])
    assert (base / 'out').is_dir(), 'a mount would make it for root'


# Submission, and again.


def test_submission_chains_the_group_level(plan, base, fake_slurm, tmp_path):
    (fake_slurm / 'bin/sbatch').write_text(
        '#!/bin/bash\nprintf \'%s\\n\' "$@" -- >> "$FAKE_SLURM/words"\necho "77;cluster"\n'
    )
    write_scripts(plan)
    script = str(base / 'scripts/submit.sh')
    subprocess.run([script], check=True, timeout=30)
    subprocess.run([script, '2%1'], check=True, timeout=30)
    calls = (fake_slurm / 'words').read_text().split('\n--\n')
    assert calls[0].split('\n')[:2] == ['--parsable', '--array=1-3']
    assert '--dependency=afterok:77' in calls[1]
    assert '--kill-on-invalid-dep=yes' in calls[1]
    assert '--array=2%1' in calls[2]
    assert (base / 'scripts/jobs.txt').read_text() == '77\n77\n'


def test_ranges():
    assert task_range([5]) == '5'
    assert task_range([3, 1, 2, 2, 8]) == '1-3,8'


# Who failed.


def table(plan, *lines):
    write_scripts(plan)
    path = program_folder(plan) / 'scripts/exit_codes.tsv'
    with path.open('a') as stream:
        for label, code in lines:
            task = dict(zip(plan.participants, '123', strict=True)).get(label, 'n/a')
            stream.write(f'{label}\t{task}\t12_{task}\t{code}\t60\thost\t2026-01-01T00:00:00\n')
    return path


@pytest.fixture
def queue(fake_slurm):
    """Let ``squeue`` answer what is written into a file."""
    path = fake_slurm / 'queue'
    path.write_text('')
    (fake_slurm / 'bin/squeue').write_text('#!/bin/bash\ncat "$FAKE_SLURM/queue"\n')
    return path


def test_nobody_failed(plan, queue, capsys):
    path = table(plan, ('01', 'started'), ('01', '0'), ('02', '0'), ('A7', '143'), ('A7', '0'))
    assert slurm.main(['failed', str(path)]) == 0
    assert '3 done, 0 in the queue, 0 to be run again' in capsys.readouterr().out


def test_failed_tasks_are_listed_with_the_line_that_submits_them(plan, queue, capsys):
    path = table(plan, ('01', '0'), ('01', 'started'), ('02', '0'), ('A7', '137'))
    assert slurm.main(['failed', str(path)]) == 1
    out = capsys.readouterr().out
    assert 'sub-01\texit code none\tended without a word' in out
    assert 'sub-A7\texit code 137\tkilled' in out
    line = re.search(r'they stopped: (.+)$', out, re.M)[1]
    assert shlex.split(line) == ['bash', f'{plan.folder}/submit.sh', '1,3']
    assert 'took 60 s' in out


def test_tasks_in_the_queue_have_not_failed(plan, queue, base):
    path = table(plan, ('01', '143'), ('02', 'started'), ('group', '1'))
    (base / 'scripts/jobs.txt').write_text('12\n30\n')
    queue.write_text('12_2\n30_1\n99_3\n')
    state = read_state(path)
    assert state.queued == ('01', '02')
    assert [item.participant for item in state.failed] == ['A7']
    assert state.failed[0].meaning == 'never began'
    assert state.group.exit_code == 1


def test_group_level_that_failed_is_told(plan, queue, capsys):
    path = table(plan, *((label, '0') for label in plan.participants), ('group', '1'))
    assert slurm.main(['failed', str(path)]) == 1
    assert 'run it again: sbatch' in capsys.readouterr().out


def test_no_answer_of_slurm_is_told(plan, capsys, monkeypatch):
    path = table(plan, ('01', 'started'))
    monkeypatch.setenv('PATH', '/nonexistent')
    assert slurm.main(['failed', str(path)]) == 1
    assert 'squeue gave no answer' in capsys.readouterr().out


def test_line_cut_short_counts_as_none(plan, queue):
    path = table(plan, ('01', '0'))
    path.write_text(path.read_text() + '02\t2\t12')
    assert read_state(path).done == ('01',)


@pytest.mark.parametrize('text', ['', 'participant\texit_code\n', '\x00\xff'])
def test_another_file_is_refused(plan, text, capsys):
    path = table(plan)
    path.write_bytes(text.encode('latin-1'))
    with pytest.raises(TableError):
        read_state(path)
    assert slurm.main(['failed', str(path)]) == 2
    assert str(path) in capsys.readouterr().err


# Writing them for a dataset.


@pytest.fixture(scope='module')
def raw(tmp_path_factory):
    """Return a dataset of two subjects, of whom the second has one echo more."""
    dataset = write_clean(tmp_path_factory.mktemp('raw') / 'ds', subjects=('01', '02'))
    for path in sorted((dataset.root / 'sub-01/anat').glob('*_echo-3_*')):
        path.unlink()
    return dataset.root


def write(raw, base, *words):
    line = ['write', raw, base / 'out', '-w', base / 'work', '--scripts', base / 'scripts', *words]
    return slurm.main([*map(str, line)])


def test_everything_is_written(raw, base, capsys):
    assert write(raw, base, '--at-once', '5', '--', '--preset', 'fast') == 0
    out = capsys.readouterr().out
    assert '2 participants, 4 processors and' in out
    line = re.search(r'submit with: (.+)$', out, re.M)[1]
    assert shlex.split(line)[1] == str(base / 'scripts/submit.sh')
    assert (base / 'scripts/participants.txt').read_text() == '01\n02\n'
    text = (base / 'scripts/participant.sbatch').read_text()
    assert '--array=1-2%5' in text
    assert '  --preset fast &' in text
    assert not (base / 'out').exists(), 'nothing is run'


def test_memory_follows_the_largest_acquisition(raw, base, monkeypatch):
    seen = []
    from qsmflow.workflows import base as graphs

    def remember(*, series, settings, out_dir, name='w'):
        seen.append([item.subject for item in series])
        workflow = graphs.Workflow(name='w')
        from qsmflow.engine import Node
        from tests.cluster.graphs import Step

        workflow.add_nodes([Node(Step(), name='big', mem_gb=8.0), Node(Step(), name='small')])
        return workflow

    monkeypatch.setattr('qsmflow.workflows.init_qsmflow_wf', remember)
    assert slurm.by_size(str(raw), ['01', '02']) == ['02', '01']
    assert write(raw, base) == 0
    assert seen == [['02']]
    text = (base / 'scripts/participant.sbatch').read_text()
    assert f'--mem={int(1.25 * 8 * 1024) + 1024 + 512}M' in text


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (('--', '--invresion', 'tv'), 'no option --invresion'),
        (('--', '--inversion-param', 'treshold=1'), 'has no parameter'),
        (('--participant-label', '03'), "no participant '03'"),
        (('--time', 'long'), 'expected a time'),
        (('--docker', 'x', '--apptainer', 'y'), 'not allowed with'),
        (('--', '--mem', '8'), '--mem cannot come after --: give --mem before'),
        (('--', '--mem_mb=8000'), '--mem_mb cannot come after --: give --mem before'),
        (('--', '--participant-label', '01'), '--participant-label cannot come after --'),
        (('--', '-w', '/tmp/w'), '-w cannot come after --'),
        (('--', '--n-cpus', '2'), '--n-cpus cannot come after --: give --cpus'),
        (('--', '--run-uuid', 'x'), '--run-uuid cannot come after --'),
        (('--', '--dry-run'), '--dry-run is not for tasks: each of them is a whole run'),
        (('--', '--dry-run-json', '-'), '--dry-run-json is not for tasks'),
        (('--', '--reports-only'), '--reports-only is not for tasks'),
        (('--', '--boilerplate_only'), '--boilerplate_only is not for tasks'),
        (('--', '--omp-nthreads', '9'), '--omp-nthreads is 9'),
        (('--mem', '512M'), 'argument --mem: a task needs more than 512 MB'),
    ],
)
def test_typing_errors_are_found_now(raw, base, capsys, words, message):
    try:
        code = write(raw, base, '--mem', '4', *words)
    except SystemExit as error:
        code = error.code
    assert code == 2
    assert message in capsys.readouterr().err
    assert not (base / 'scripts').exists()


def test_a_part_of_a_run_in_the_settings_file_is_refused(raw, base, capsys):
    (base / 'config.toml').write_text('[execution]\nreports_only = true\n')
    assert write(raw, base, '--mem', '4', '--', '--config-file', base / 'config.toml') == 2
    assert 'execution.reports_only of the settings file' in capsys.readouterr().err


def test_what_is_checked_is_what_a_task_runs(raw, base, program, monkeypatch, capsys):
    seen = []
    from qsmflow.cli import parser

    parse = parser.parse_args
    monkeypatch.setattr(parser, 'parse_args', lambda argv: seen.append(argv) or parse(argv))
    monkeypatch.setattr(slurm, '_program', lambda: (str(program),))
    label = ('--participant-label', '02')
    assert write(raw, base, '--mem', '4', *label, '--', '--preset', 'fast') == 0
    script = str(base / 'scripts/participant.sbatch')
    subprocess.run(['bash', script], check=True, timeout=60, env=environment())
    ran = (base / 'arguments').read_text().splitlines()
    ran.remove('--skip-bids-validation')
    assert seen == [ran]


def test_group_level_can_be_started_from_the_dataset(raw, base, program, monkeypatch, capsys):
    monkeypatch.setattr(slurm, '_program', lambda: (str(program),))
    assert write(raw, base, '--mem', '4') == 0
    monkeypatch.chdir(raw)
    script = str(base / 'scripts/group.sbatch')
    subprocess.run(['bash', script], check=True, timeout=60, env=environment())
    parse_args((base / 'arguments').read_text().splitlines())


def test_scripts_do_not_lie_in_the_dataset_or_the_results(raw, base, capsys):
    for place in (raw / 'scripts', base / 'out/scripts'):
        assert write(raw, base, '--mem', '4', '--scripts', place) == 2
        assert 'argument --scripts' in capsys.readouterr().err
        assert not place.exists()


def test_containers_mount_what_options_name(raw, base, capsys):
    (base / 'my filter.json').write_text('{}')
    words = ('--bids-filter-file', base / 'my filter.json')
    assert write(raw, base, '--mem', '4', '--docker', 'qsmflow:1', '--', *words) == 0
    path = shlex.quote(f'{base / "my filter.json"}:{base / "my filter.json"}:ro')
    assert f'-v {path}' in (base / 'scripts/participant.sbatch').read_text()
    (base / 'x,y').mkdir()
    assert write(raw, base / 'x,y', '--mem', '4', '--docker', 'qsmflow:1') == 2
    assert 'colon or comma' in capsys.readouterr().err


@pytest.fixture
def visits(tmp_path):
    """Return a dataset in which 01 was seen before and after, 02 before, and 03 after."""
    dataset = write_clean(tmp_path / 'visits', ('01', '02', '03'))
    for sub, labels in (('01', ('pre', 'post')), ('02', ('pre',)), ('03', ('post',))):
        shutil.rmtree(dataset.root / f'sub-{sub}')
        for ses in labels:
            write_series(dataset, sub, ses=ses, extra='_acq-hi' if ses == 'post' else '')
    return dataset.root


@pytest.mark.parametrize(
    'words',
    [
        ('--', '--session-label', 'post'),
        ('--', '--acq-label', 'hi'),
        ('--', '--bids-filter-file', 'FILTER'),
        ('--participant-label', '01', '02', '03', '--', '--session-id', 'post'),
    ],
)
def test_participants_without_what_is_asked_for_get_no_task(visits, base, capsys, words):
    """Their tasks would fail as often as they are submitted, and the group level never begin."""
    (base / 'filter.json').write_text('{"megre": {"acquisition": "hi"}}')
    words = [base / 'filter.json' if word == 'FILTER' else word for word in words]
    assert write(visits, base, *words) == 0
    assert (base / 'scripts/participants.txt').read_text() == '01\n03\n'
    out = capsys.readouterr().out
    assert '2 participants' in out
    assert 'note: [INFO E91] sub-02: has no gradient-echo data of what was asked for' in out
    assert 'sub-01:' not in out
    assert 'sub-03:' not in out


@pytest.mark.parametrize('label', ['02', '03'])
def test_a_task_runs_what_its_participant_has_of_several_sessions(visits, base, capsys, label):
    sessions = ('--session-label', 'pre', 'post')
    assert write(visits, base, '--mem', '4', '--', *sessions) == 0
    assert (base / 'scripts/participants.txt').read_text() == '01\n02\n03\n'
    line = [visits, base / 'out', 'participant', '--participant-label', label, *sessions]
    assert main([*map(str, line), '--skip-bids-validation', '--dry-run']) == 0


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (('--', '--session-label', 'late'), "no session 'late'"),
        (('--participant-label', '02', '--', '--session-label', 'post'), 'no participant has'),
    ],
)
def test_nobody_with_what_is_asked_for_is_an_error(visits, base, capsys, words, message):
    assert write(visits, base, '--mem', '4', *words) == 2
    assert message in capsys.readouterr().err
    assert not (base / 'scripts').exists()
