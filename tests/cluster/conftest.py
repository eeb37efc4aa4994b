"""Slurm for tests: commands that imitate it in seconds, and a real one on this machine."""

import contextlib
import os
import signal
import stat
import textwrap

import pytest

#: ``sbatch``, ``squeue`` and ``scancel`` that run each job at once as a process of its own.
_IMITATION = {
    'sbatch': """\
        #!/bin/bash
        # A job is its process: the number of the job is that of the process.
        output=/dev/null
        for word in "$@"; do case $word in --output=*) output=${word#--output=};; esac; done
        script=${!#}
        printf '%q ' "$@" >> "$FAKE_SLURM/sbatch.log"; echo >> "$FAKE_SLURM/sbatch.log"
        [ ! -e "$FAKE_SLURM/refuse" ] || { echo 'sbatch: error: no partition' >&2; exit 1; }
        setsid bash -c 'exec > "${0//%j/$$}" 2>&1; exec bash "$1"' "$output" "$script" \\
          < /dev/null > /dev/null 2>&1 &
        echo $! >> "$FAKE_SLURM/jobs"
        echo $!
        """,
    'squeue': """\
        #!/bin/bash
        echo asked >> "$FAKE_SLURM/squeue.log"
        [ ! -e "$FAKE_SLURM/busy" ] || { rm "$FAKE_SLURM/busy"; exit 1; }
        while read -r job; do
          case $(ps -o stat= -p "$job" 2>/dev/null) in ''|Z*) ;; *) echo "$job";; esac
        done < <(cat "$FAKE_SLURM/jobs" 2>/dev/null)
        """,
    'scancel': """\
        #!/bin/bash
        for job in "$@"; do kill -- "-$job"; echo "$job" >> "$FAKE_SLURM/scancel.log"; done
        """,
}


@pytest.fixture
def fake_slurm(tmp_path, monkeypatch):
    """Put imitations of Slurm's commands on the search path; return the folder of their notes."""
    folder = tmp_path / 'fake slurm'
    (folder / 'bin').mkdir(parents=True)
    for name, text in _IMITATION.items():
        path = folder / 'bin' / name
        path.write_text(textwrap.dedent(text))
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv('PATH', f'{folder / "bin"}:{os.environ["PATH"]}')
    monkeypatch.setenv('FAKE_SLURM', str(folder))
    yield folder
    jobs = folder / 'jobs'
    for job in jobs.read_text().split() if jobs.exists() else ():
        with contextlib.suppress(OSError):
            os.killpg(int(job), signal.SIGKILL)
