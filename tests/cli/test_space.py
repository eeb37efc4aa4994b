"""Disks and rights are looked at before anything starts."""

import os
import shutil
import tempfile
import types
from dataclasses import replace
from pathlib import Path

import pytest

from qsmflow import __version__
from qsmflow.bids.findings import DatasetError
from qsmflow.cli import space
from qsmflow.settings import BIDSSettings, ExecutionSettings, OutputSettings, Settings

GB = 1 << 30


@pytest.fixture
def settings(tmp_path):
    out, work = tmp_path / 'out', tmp_path / 'work'
    out.mkdir()
    work.mkdir()
    return Settings(
        bids=BIDSSettings(output_dir=str(out)),
        outputs=OutputSettings(atlas=()),
        execution=ExecutionSettings(work_dir=str(work)),
    )


def series(subject='01', shape=(192, 224, 160), echoes=5, t1w=None):
    te = tuple(0.004 * n for n in range(1, echoes + 1))
    return types.SimpleNamespace(
        subject=subject, name=f'sub-{subject}', shape=shape, te=te, t1w=t1w
    )


@pytest.fixture
def disk(monkeypatch):
    """Return a function that sets the free bytes of folders by a part of their path."""

    def set_free(**free):
        def found(folder):
            numbered = enumerate(free.items())
            return next((n, size) for n, (part, size) in numbered if f'/{part}' in str(folder))

        monkeypatch.setattr(space, '_disk', found)

    return set_free


def test_estimate_grows_with_what_is_done(settings):
    one = space.estimate([series()], settings)
    assert space.estimate([series(), series('02')], settings)['work'] == pytest.approx(
        2 * one['work']
    )
    more = replace(settings, outputs=OutputSettings(output_spaces=('T1w',)))
    assert space.estimate([series()], more)['output'] > one['output'] + 1e7
    assert space.estimate([series(echoes=10)], settings)['work'] > 1.2 * one['work']


def test_too_little_space_is_refused_for_the_folder_that_lacks_it(settings, disk):
    needed = space.estimate([series()], settings)
    disk(work=0.5 * needed['work'], out=GB)
    with pytest.raises(DatasetError) as refused:
        space.require_space([series()], settings)
    text = str(refused.value)
    assert text.startswith('[FATAL E98]')
    assert settings.execution.work_dir in text
    assert f'needed_GB={needed["work"] / GB:.6g}' in text
    assert '-w/--work-dir' in text
    assert refused.value.exit_code == 73


def test_one_disk_for_both_is_asked_for_the_sum(settings, disk, tmp_path):
    needed = space.estimate([series()], settings)
    disk(**{tmp_path.name: needed['work'] + 0.9 * needed['output'] - 2})
    assert len(space.require_space([series()], settings)) == 1
    disk(**{tmp_path.name: 0.7 * (needed['work'] + needed['output'])})
    with pytest.raises(DatasetError, match='-w/--work-dir and OUTPUT_DIR'):
        space.require_space([series()], settings)


def test_tight_space_is_a_warning(settings, disk):
    needed = space.estimate([series()], settings)
    disk(work=1.1 * needed['work'], out=GB)
    (finding,) = space.require_space([series()], settings)
    assert (finding.code, finding.level) == ('E98', 'WARN')


def test_results_of_an_earlier_run_count_as_room(settings, disk):
    needed = space.estimate([series()], settings)
    folder = os.path.join(
        settings.execution.work_dir, f'qsmflow-{__version__}/qsmflow_wf/sub_01_wf'
    )
    os.makedirs(folder)
    with open(os.path.join(folder, 'x.nii'), 'wb') as stream:
        stream.truncate(int(needed['work']))
    disk(work=0, out=GB)
    assert space.require_space([series()], settings) == ()


@pytest.fixture
def open_folder():
    """Return a folder that other users reach, which those of pytest are not."""
    folder = Path(tempfile.mkdtemp(prefix='qsmflow-test-'))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize('mode', [0o755, 0o700])
def test_folder_of_another_user_is_told(open_folder, mode):
    """As another user, who may not write where an earlier run of root has."""
    if os.getuid() != 0:
        pytest.skip('only root can become another user')
    out, work = open_folder / 'out', open_folder / 'work'
    (out / 'sub-01/anat').mkdir(parents=True)
    (out / 'sub-01/anat').chmod(mode)
    work.mkdir()
    for folder in (out, work, out / 'sub-01'):
        folder.chmod(0o777)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.setgroups([])
            os.setgid(12345)
            os.setuid(12345)
            space.require_access(out, work, ['02'])
            try:
                space.require_access(out, work, ['01'])
            except DatasetError as error:
                text = str(error)
                right = 'FATAL E99' in text and 'user 0' in text and 'chown -R 12345' in text
                code = 0 if right and error.exit_code == 73 else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
