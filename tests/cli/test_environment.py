import errno
import os
import subprocess
import sys
import tempfile
from dataclasses import replace

import pytest

from qsmflow.cli import environment
from qsmflow.settings import BIDSSettings, ExecutionSettings, ResourceSettings, Settings


@pytest.fixture
def settings(tmp_path):
    return Settings(
        bids=BIDSSettings(bids_dir=str(tmp_path), output_dir=str(tmp_path / 'out')),
        resources=ResourceSettings(nprocs=4, omp_nthreads=3),
        execution=ExecutionSettings(
            work_dir=str(tmp_path / 'work'), run_uuid='run', random_seed=11
        ),
    )


def test_folders_and_variables(settings, tmp_path):
    environ = {'HOME': str(tmp_path)}
    environment.prepare(settings, environ)
    assert (tmp_path / 'out').is_dir()
    assert (tmp_path / 'work').is_dir()
    for name in ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'NUMBA_NUM_THREADS'):
        assert environ[name] == '3'
    assert environ['ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS'] == '1'
    assert environ['ANTS_RANDOM_SEED'] == '11'
    assert environ['LOGNAME']
    assert environ['MALLOC_MMAP_THRESHOLD_'] == '1048576'
    assert environ['HOME'] == str(tmp_path), 'a home that can be written stays'


def test_numba_is_not_there_before_its_variables(tmp_path):
    code = (
        'import os, sys; from qsmflow.cli.environment import prepare; import qsmflow.cli.run; '
        'from qsmflow.cli.parser import parse_args; '
        "prepare(parse_args([*sys.argv[1:], 'participant', '--dry-run', '--omp-nthreads', '1'])); "
        "assert 'numba' not in sys.modules; print(os.environ['NUMBA_NUM_THREADS'])"
    )
    (tmp_path / 'raw').mkdir()
    arguments = [str(tmp_path / 'raw'), str(tmp_path / 'out')]
    done = subprocess.run([sys.executable, '-c', code, *arguments], capture_output=True, text=True)
    assert done.stdout == '1\n', done.stderr


def test_running_threads_of_numba_are_left_alone(settings, tmp_path, monkeypatch):
    pytest.importorskip('numba')
    monkeypatch.setenv('NUMBA_NUM_THREADS', '7')
    environment.prepare(settings)
    assert os.environ['NUMBA_NUM_THREADS'] == '7'
    assert os.environ['OMP_NUM_THREADS'] == '3'


def test_dry_run_writes_nothing(settings, tmp_path):
    dry = replace(settings, execution=replace(settings.execution, dry_run=True))
    environment.prepare(dry, {'HOME': str(tmp_path)})
    assert list(tmp_path.iterdir()) == []


def test_group_level_needs_no_work_folder(settings, tmp_path):
    group = replace(settings, bids=replace(settings.bids, analysis_level='group'))
    environment.prepare(group, {'HOME': str(tmp_path)})
    assert not (tmp_path / 'work').exists()


@pytest.mark.parametrize('home', [None, 'file/home', 'relative'])
def test_home_is_replaced_where_it_cannot_be_used(settings, tmp_path, home):
    (tmp_path / 'file').touch()
    home = str(tmp_path / home) if home == 'file/home' else home
    environ = {} if home is None else {'HOME': home}
    environment.prepare(settings, environ)
    assert os.access(environ['HOME'], os.W_OK)


def test_cache_folder_that_cannot_be_used(settings, tmp_path):
    (tmp_path / 'file').touch()
    environ = {'HOME': str(tmp_path), 'MPLCONFIGDIR': str(tmp_path / 'file' / 'mpl')}
    environment.prepare(settings, environ)
    assert os.access(environ['MPLCONFIGDIR'], os.W_OK)
    assert 'NUMBA_CACHE_DIR' not in environ, 'what is not set need not be replaced'


def test_folder_of_another_user_is_not_taken(settings, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
    theirs = tmp_path / f'qsmflow-{os.getuid()}'
    theirs.mkdir()
    theirs.chmod(0o777)  # as someone makes it who wants to write there later
    environ = {}
    environment.prepare(settings, environ)
    assert not environ['HOME'].startswith(f'{theirs}/')
    assert not list(theirs.iterdir())


def test_no_temporary_folder(settings, tmp_path, monkeypatch):
    def none():
        raise FileNotFoundError

    monkeypatch.setattr(tempfile, 'tempdir', tempfile.tempdir)
    monkeypatch.setattr(tempfile, 'gettempdir', none)
    environ = {}
    environment.prepare(settings, environ)
    assert environ['TMPDIR'] == str(tmp_path / 'work' / 'run' / 'tmp')
    assert environ['HOME'].startswith(environ['TMPDIR'])


def test_group_level_without_a_temporary_folder_writes_to_the_output(
    settings, tmp_path, monkeypatch
):
    """Where the work folder lies was not looked at."""

    def none():
        raise FileNotFoundError

    monkeypatch.setattr(tempfile, 'tempdir', tempfile.tempdir)
    monkeypatch.setattr(tempfile, 'gettempdir', none)
    group = replace(settings, bids=replace(settings.bids, analysis_level='group'))
    environ = {}
    environment.prepare(group, environ)
    assert environ['TMPDIR'] == str(tmp_path / 'out' / '.work' / 'run' / 'tmp')
    assert not (tmp_path / 'work').exists()


def test_folder_that_cannot_be_written(tmp_path, monkeypatch):
    def refuse(**kwargs):
        raise OSError(errno.EROFS, 'Read-only file system')

    monkeypatch.setattr(tempfile, 'TemporaryFile', refuse)
    with pytest.raises(OSError, match=r'--work-dir.*Read-only') as caught:
        environment.require_writable(tmp_path, '-w/--work-dir')
    assert caught.value.exit_code == 73
    assert str(os.getuid()) in str(caught.value)


def test_file_in_the_way(tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(OSError, match='OUTPUT_DIR') as caught:
        environment.require_writable(tmp_path / 'file' / 'out', 'OUTPUT_DIR')
    assert caught.value.exit_code == 73
