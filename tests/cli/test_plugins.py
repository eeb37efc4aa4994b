"""The plugin that a file names: read in three formats, and the right class started."""

import json

import pytest

from qsmflow.cli import execution
from qsmflow.cli.parser import MissingToolError
from qsmflow.cli.plugins import nipype_plugin, plugin_names, read_plugin_file
from qsmflow.cluster import SlurmPlugin
from qsmflow.settings import ExecutionSettings, ResourceSettings, Settings, SettingsError

ARGUMENTS = {'n_procs': 2, 'memory_gb': 4}
TEXTS = {
    'p.yml': 'plugin: MultiProc\nplugin_args:\n  n_procs: 2\n  memory_gb: 4\n',
    'p.json': json.dumps({'plugin': 'MultiProc', 'plugin_args': ARGUMENTS}),
    'p.toml': 'plugin = "MultiProc"\n[plugin_args]\nn_procs = 2\nmemory_gb = 4\n',
}


@pytest.mark.parametrize('name', TEXTS)
def test_formats(tmp_path, name):
    path = tmp_path / name
    path.write_text(TEXTS[name])
    assert read_plugin_file(path) == ('MultiProc', ARGUMENTS)


def test_plugins_of_nipype_are_known():
    assert {'MultiProc', 'LegacyMultiProc', 'Linear', 'SLURM', 'SGE'} <= set(plugin_names())


@pytest.mark.parametrize('name', ['SLURMGraph', 'SGEGraph', 'CondorDAGMan'])
def test_plugins_that_do_not_wait_for_their_jobs_are_refused(tmp_path, name):
    path = tmp_path / 'p.yml'
    path.write_text(f'plugin: {name}\n')
    with pytest.raises(SettingsError, match=f'{name} does not tell how its jobs end'):
        read_plugin_file(path)


def made(tmp_path, text, monkeypatch):
    """Return the plugin that would be used, made without its processes."""
    seen = {}

    def remember(self, plugin_args=None):
        seen['kind'], seen['args'] = type(self), plugin_args

    monkeypatch.setattr('shutil.which', lambda name: f'/usr/bin/{name}')
    for kind in (execution.SafeMultiProcPlugin, SlurmPlugin):
        monkeypatch.setattr(kind, '__init__', remember)
    path = tmp_path / 'p.yml'
    path.write_text(text)
    execution._plugin(
        Settings(
            resources=ResourceSettings(nprocs=8, mem_gb=16),
            execution=ExecutionSettings(plugin_file=str(path)),
        )
    )
    return seen['kind'], seen['args']


def test_multiproc_of_a_file_is_ours_and_ends_when_it_should(tmp_path, monkeypatch):
    kind, args = made(tmp_path, 'plugin: MultiProc\nplugin_args: {n_procs: 2}', monkeypatch)
    assert kind is execution.SafeMultiProcPlugin
    assert args['n_procs'] == 2, 'the file wins'
    assert args['memory_gb'] == 16, 'and the run fills in the rest'


def test_cluster_plugin_gets_its_arguments_and_the_progress(tmp_path, monkeypatch):
    text = 'plugin: SLURM\nplugin_args: {sbatch_args: --mem=8G}'
    kind, args = made(tmp_path, text, monkeypatch)
    assert kind is SlurmPlugin
    assert set(args) == {'sbatch_args', 'status_callback'}


def test_jobs_need_sbatch(tmp_path, monkeypatch):
    monkeypatch.setenv('PATH', '/nonexistent')
    with pytest.raises(MissingToolError, match=r'no sbatch here.*docs/hpc.md') as missing:
        nipype_plugin('SLURM')
    assert missing.value.exit_code == 127
