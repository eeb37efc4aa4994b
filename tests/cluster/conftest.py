"""Slurm for tests: commands that imitate it in seconds, and a real one on this machine."""

import contextlib
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import textwrap
import time
from pathlib import Path

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


# A real one.

_CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={base}/munge.socket
CredType=cred/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=5
ReturnToService=2
SwitchType=switch/none
StateSaveLocation={base}/state
SlurmdSpoolDir={base}/spool
SlurmctldPidFile={base}/slurmctld.pid
SlurmdPidFile={base}/slurmd.pid
SlurmctldLogFile={base}/slurmctld.log
SlurmdLogFile={base}/slurmd.log
SlurmdParameters=config_overrides
MinJobAge=3600
KillWait=30
InactiveLimit=0
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=32000 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP OverTimeLimit=0
"""


class Slurm:
    """A cluster of this machine alone, with daemons, keys and ports of its own."""

    def __init__(self, base: Path):
        self.base = base

    def start(self) -> None:
        """Start ``munged``, ``slurmctld`` and ``slurmd``, and wait for the node."""
        for name in ('state', 'spool'):
            (self.base / name).mkdir()
        key = self.base / 'munge.key'
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        # Only this user can reach the folder, whoever owns the ones above it.
        self._call(
            'munged', '--force', f'--key-file={key}', f'--socket={self.base}/munge.socket',
            f'--pid-file={self.base}/munged.pid', f'--log-file={self.base}/munged.log',
            f'--seed-file={self.base}/munged.seed',
        )  # fmt: skip
        conf = self.base / 'slurm.conf'
        host = socket.gethostname().partition('.')[0]
        conf.write_text(_CONF.format(host=host, base=self.base, ports=_free_ports(2)))
        os.environ['SLURM_CONF'] = str(conf)
        self._call('slurmctld', '-f', conf)
        self._call('slurmd', '-f', conf)
        self.wait(lambda: 'idle' in self.call('sinfo', '-h', '-o', '%t'), 60, 'an idle node')

    def stop(self) -> None:
        """End the daemons, by the numbers that they wrote down."""
        with contextlib.suppress(subprocess.SubprocessError, OSError):
            self.call('scancel', '--user=root')
            self.wait(lambda: not self.call('squeue', '-h'), 60, 'an empty queue')
        for name in ('slurmd', 'slurmctld', 'munged'):
            with contextlib.suppress(OSError, ValueError):
                pid = int((self.base / f'{name}.pid').read_text())
                os.kill(pid, signal.SIGTERM)
                # Their last words are files, which must not come after the folder is gone.
                self.wait(lambda pid=pid: not Path(f'/proc/{pid}').exists(), 20, f'end of {name}')
        os.environ.pop('SLURM_CONF', None)

    def _call(self, name: str, *arguments) -> None:
        path = shutil.which(name, path=_DAEMONS)
        subprocess.run([path, *map(str, arguments)], check=True, timeout=60)

    def call(self, *command, **keywords) -> str:
        """Run a command of Slurm and return what it printed."""
        done = subprocess.run(
            [*map(str, command)], capture_output=True, text=True, timeout=120, **keywords
        )
        assert done.returncode == 0, f'{command}: {done.stdout}{done.stderr}'
        return done.stdout.strip()

    def wait(self, ready, seconds: float, what: str) -> None:
        """Wait until ``ready()`` is true."""
        deadline = time.monotonic() + seconds
        while not ready():
            assert time.monotonic() < deadline, f'no {what} after {seconds} s: {self.log()}'
            time.sleep(0.5)

    def wait_for_jobs(self, seconds: float = 600) -> None:
        """Wait until nothing is queued and nothing runs."""
        self.wait(lambda: not self.call('squeue', '-h', '-o', '%i %T %r'), seconds, 'end of jobs')

    def state(self, job: str) -> str:
        """Return the state of a job that may have ended."""
        text = self.call('scontrol', '-o', 'show', 'job', job)
        return re.search(r'JobState=(\S+)', text)[1]

    def log(self) -> str:
        """Return the end of the daemons' logs, and the queue."""
        queue = subprocess.run(['squeue'], capture_output=True, text=True).stdout
        logs = [path.read_text()[-2000:] for path in self.base.glob('slurm*.log')]
        return '\n'.join([queue, *logs])


def _free_ports(number: int) -> list[int]:
    sockets = [socket.socket() for _ in range(number)]
    for item in sockets:
        item.bind(('127.0.0.1', 0))
    ports = [item.getsockname()[1] for item in sockets]
    for item in sockets:
        item.close()
    return ports


_DAEMONS = f'{os.environ.get("PATH", "")}:/usr/sbin:/sbin'


@pytest.fixture(scope='session')
def slurm():
    """Start Slurm on this machine; skip the test where that is not possible."""
    missing = [n for n in ('slurmctld', 'slurmd', 'munged') if not shutil.which(n, path=_DAEMONS)]
    if missing:
        pytest.skip(f'{", ".join(missing)} not installed: apt-get install slurm-wlm munge')
    if os.getuid():
        pytest.skip('Slurm can only be started by root')
    # A short path: sockets have at most 107 characters.
    base = Path(tempfile.mkdtemp(prefix='slurm-', dir='/tmp'))
    cluster = Slurm(base)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(base, ignore_errors=True)
