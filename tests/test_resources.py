import os

import pytest

from qsmflow import resources


@pytest.fixture
def machine(tmp_path):
    """A machine of 64 GB without cgroup limits."""
    meminfo = tmp_path / 'meminfo'
    meminfo.write_text('MemTotal:       67108864 kB\nMemFree: 1 kB\n')
    return {
        'cgroup_root': tmp_path / 'cgroup',
        'meminfo': meminfo,
        'membership': tmp_path / 'membership',
    }


@pytest.fixture
def sixteen_cpus(monkeypatch):
    monkeypatch.setattr(os, 'sched_getaffinity', lambda pid: set(range(16)))


def write(root, **files):
    for name, text in files.items():
        path = root / name.replace('__', '/').replace('_DOT_', '.')
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.usefixtures('sixteen_cpus')
@pytest.mark.parametrize(
    ('environ', 'files', 'expected'),
    [
        ({}, {}, 16),
        ({'SLURM_CPUS_PER_TASK': '4'}, {}, 4),
        ({'SLURM_CPUS_ON_NODE': '8'}, {}, 8),
        ({'SLURM_CPUS_PER_TASK': '4', 'SLURM_CPUS_ON_NODE': '8'}, {}, 4),
        ({'SLURM_CPUS_PER_TASK': '99'}, {}, 16),
        ({'SLURM_CPUS_PER_TASK': 'many'}, {}, 16),
        ({}, {'cpu_DOT_max': '250000 100000\n'}, 2),
        ({}, {'cpu_DOT_max': '50000 100000\n'}, 1),
        ({}, {'cpu_DOT_max': 'max 100000\n'}, 16),
        ({}, {'cpu__cpu.cfs_quota_us': '300000\n', 'cpu__cpu.cfs_period_us': '100000\n'}, 3),
        ({}, {'cpu__cpu.cfs_quota_us': '-1\n', 'cpu__cpu.cfs_period_us': '100000\n'}, 16),
    ],
)
def test_cpus(tmp_path, environ, files, expected):
    write(tmp_path, **files)
    assert resources.available_cpus(environ, tmp_path, tmp_path / 'none') == expected


@pytest.mark.parametrize(
    ('environ', 'files', 'expected'),
    [
        ({}, {}, 64),
        ({'SLURM_MEM_PER_NODE': '8192'}, {}, 8),
        ({'SLURM_MEM_PER_NODE': '0'}, {}, 64),
        ({'SLURM_MEM_PER_CPU': '2048', 'SLURM_CPUS_PER_TASK': '4'}, {}, 8),
        ({}, {'memory_DOT_max': f'{10 * 1024**3}\n'}, 10),
        ({}, {'memory_DOT_max': 'max\n'}, 64),
        ({}, {'memory__memory.limit_in_bytes': f'{6 * 1024**3}\n'}, 6),
        ({}, {'memory__memory.limit_in_bytes': '9223372036854771712\n'}, 64),
        ({'SLURM_MEM_PER_NODE': '20480'}, {'memory_DOT_max': f'{10 * 1024**3}\n'}, 10),
    ],
)
def test_memory(machine, environ, files, expected):
    write(machine['cgroup_root'], **files)
    assert resources.available_memory(environ, **machine) == expected


def test_memory_unknown(tmp_path):
    assert resources.available_memory({}, tmp_path, tmp_path / 'none', tmp_path / 'none') == 4


@pytest.mark.usefixtures('sixteen_cpus')
@pytest.mark.parametrize(
    ('membership', 'folder'),
    [
        ('0::/slurm/job_7/step_0\n', 'slurm/job_7'),
        ('4:cpu,cpuacct:/slurm/job_7\n9:memory:/slurm/job_7\n', '{controller}/slurm/job_7'),
    ],
)
def test_limits_of_the_own_cgroup_and_those_above(machine, membership, folder):
    machine['membership'].write_text(membership)
    root = machine['cgroup_root']
    cpu = root / folder.format(controller='cpu')
    memory = root / folder.format(controller='memory')
    for path in (cpu, memory):
        path.mkdir(parents=True, exist_ok=True)
    (cpu / 'cpu.max').write_text('500000 100000\n')
    (memory / 'memory.max').write_text(f'{3 * 1024**3}\n')
    assert resources.available_cpus({}, root, machine['membership']) == 5
    assert resources.available_memory({}, **machine) == 3
