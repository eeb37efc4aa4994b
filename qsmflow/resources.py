"""How many processors and how much memory this process may use.

A cluster or a container gives a process a share of the machine. Counting the machine's own
processors would oversubscribe it, and asking for its memory would have the job killed, so each
limit that is in force is read and the smallest one is taken.
"""

import math
import os
from collections.abc import Mapping
from pathlib import Path

#: A cgroup v1 limit above this many bytes means "no limit".
_UNLIMITED = 1 << 60


def available_cpus(
    environ: Mapping[str, str] = os.environ,
    cgroup_root: str | Path = '/sys/fs/cgroup',
    membership: str | Path = '/proc/self/cgroup',
) -> int:
    """Return the number of processors that this process may use.

    The smallest of the affinity mask, the cgroup quota (v1 and v2) and the share that Slurm
    granted (``SLURM_CPUS_PER_TASK``, else ``SLURM_CPUS_ON_NODE``).

    Parameters
    ----------
    environ : mapping, optional
        Environment variables.
    cgroup_root : str or Path, optional
        Where the cgroup file systems are mounted.
    membership : str or Path, optional
        File that names the cgroups of this process.

    Returns
    -------
    int
        At least 1.

    Examples
    --------
    >>> available_cpus({'SLURM_CPUS_PER_TASK': '1'})
    1
    """
    limits = [_affinity(), _cgroup_cpus(Path(cgroup_root), Path(membership)), _slurm_cpus(environ)]
    return max(1, math.floor(min(limit for limit in limits if limit)))


def available_memory(
    environ: Mapping[str, str] = os.environ,
    cgroup_root: str | Path = '/sys/fs/cgroup',
    membership: str | Path = '/proc/self/cgroup',
    meminfo: str | Path = '/proc/meminfo',
) -> float:
    """Return the memory that this process may use, in GB (of 1024**3 bytes).

    The smallest of the machine's memory, the cgroup limit (v1 and v2) and the share that Slurm
    granted (``SLURM_MEM_PER_NODE``, else ``SLURM_MEM_PER_CPU`` for each processor).

    Parameters
    ----------
    environ : mapping, optional
        Environment variables.
    cgroup_root, membership, meminfo : str or Path, optional
        Where the limits are read.

    Returns
    -------
    float
        Rounded down to 0.1 GB; at least 0.1. When nothing can be read, 4.

    Examples
    --------
    >>> available_memory({'SLURM_MEM_PER_NODE': '512'})
    0.5
    """
    limits = [
        _machine_memory(Path(meminfo)),
        _cgroup_memory(Path(cgroup_root), Path(membership)),
        _slurm_memory(environ),
    ]
    known = [limit for limit in limits if limit]
    if not known:
        return 4.0
    return max(0.1, math.floor(10 * min(known) / 1024**3) / 10)


def _affinity() -> float:
    try:
        return float(len(os.sched_getaffinity(0)))
    except AttributeError:  # not a Linux kernel
        return float(os.cpu_count() or 1)


def _slurm_cpus(environ: Mapping[str, str]) -> float | None:
    return _number(environ.get('SLURM_CPUS_PER_TASK') or environ.get('SLURM_CPUS_ON_NODE'))


def _slurm_memory(environ: Mapping[str, str]) -> float | None:
    """Slurm writes MB, and 0 where it does not limit."""
    per_node = _number(environ.get('SLURM_MEM_PER_NODE'))
    if per_node:
        return per_node * 1024**2
    per_cpu = _number(environ.get('SLURM_MEM_PER_CPU'))
    cpus = _slurm_cpus(environ)
    return per_cpu * cpus * 1024**2 if per_cpu and cpus else None


def _cgroup_cpus(root: Path, membership: Path) -> float | None:
    limits = []
    for folder in _cgroup_folders(root, membership, 'cpu'):
        fields = _read(folder / 'cpu.max').split()  # v2: "quota period" or "max period"
        if len(fields) == 2 and fields[0] != 'max':
            limits.append(float(fields[0]) / float(fields[1]))
        quota = _number(_read(folder / 'cpu.cfs_quota_us'))  # v1: -1 is no limit
        period = _number(_read(folder / 'cpu.cfs_period_us'))
        if quota and period and quota > 0:
            limits.append(quota / period)
    return min(limits, default=None)


def _cgroup_memory(root: Path, membership: Path) -> float | None:
    limits = [
        _number(_read(folder / name))
        for folder in _cgroup_folders(root, membership, 'memory')
        for name in ('memory.max', 'memory.limit_in_bytes')
    ]
    return min((limit for limit in limits if limit and limit < _UNLIMITED), default=None)


def _cgroup_folders(root: Path, membership: Path, controller: str) -> list[Path]:
    """Return the folders whose limits hold for this process: its cgroups and all above them.

    In a container the own cgroup is often the root itself; in a Slurm job it lies deep below.
    """
    folders = [root, root / controller]
    for line in _read(membership).splitlines():
        _, controllers, path = [*line.split(':', 2), '', ''][:3]
        if controllers and controller not in controllers.split(','):
            continue
        base = root / controller if controllers else root  # v1 has a tree for each controller
        relative = Path(path.lstrip('/'))
        folders += [base / part for part in (relative, *relative.parents)]
    return list(dict.fromkeys(folders))


def _machine_memory(meminfo: Path) -> float | None:
    for line in _read(meminfo).splitlines():
        if line.startswith('MemTotal:'):
            return float(line.split()[1]) * 1024
    return None


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ''


def _number(text: str | None) -> float | None:
    try:
        return float(text)
    except (TypeError, ValueError):
        return None
