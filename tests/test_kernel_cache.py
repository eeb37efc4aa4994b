import json
import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from qsmflow import kernel_cache
from qsmflow.cli import warmup

FLAGS = 'fpu avx avx2 bmi1 bmi2 f16c fma abm movbe xsave'

#: A kernel that is called, and the files that numba then has of it.
KERNEL = """
import os, sys
sys.path.insert(0, {folder!r})
from qsmflow import kernel_cache
from pathlib import Path
kernel_cache.prepare(os.environ, Path({package!r}), Path({store!r}))
import kernel
assert kernel.add(1.0, 2.0) == 3.0
print(os.environ.get('NUMBA_CACHE_DIR', ''), sum(kernel.add.stats.cache_hits.values()))
"""


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """Use a folder of the test for temporary files."""
    folder = tmp_path / 'tmp'
    folder.mkdir()
    monkeypatch.setattr(tempfile, 'tempdir', str(folder))
    return folder


@pytest.fixture
def portable(monkeypatch):
    """Have a processor that is as good as any."""
    monkeypatch.setitem(
        kernel_cache.PORTABLE, kernel_cache.platform.machine(), ('any', frozenset())
    )


@pytest.fixture
def store(tmp_path):
    """Return a store with one kernel of one module."""
    folder = tmp_path / 'store'
    (folder / 'module_0').mkdir(parents=True)
    for name in ('f.py311.nbi', 'f.py311.1.nbc', 'other.txt'):
        (folder / 'module_0' / name).write_text(name)
    (folder / kernel_cache.MANIFEST).write_text(json.dumps({'cpu': 'any', 'build': 'b1'}))
    return folder


@pytest.fixture
def closed(tmp_path, monkeypatch):
    """Return a package folder that cannot be written, also not by root."""
    folder = tmp_path / 'package'
    folder.mkdir()
    access = os.access
    monkeypatch.setattr(os, 'access', lambda path, mode: path != folder and access(path, mode))
    return folder


def test_choice_of_the_user_is_left_alone(closed, store, portable, temporary):
    environ = {'NUMBA_CACHE_DIR': '/mine'}
    kernel_cache.prepare(environ, closed, store)
    assert environ == {'NUMBA_CACHE_DIR': '/mine'}


def test_beside_the_package_where_it_can_be_written(tmp_path, temporary):
    environ = {}
    kernel_cache.prepare(environ, tmp_path, tmp_path / 'no store')
    assert environ == {}
    assert not list(temporary.iterdir())


def test_private_folder_where_the_package_cannot_be_written(closed, temporary, tmp_path):
    environ = {}
    kernel_cache.prepare(environ, closed, tmp_path / 'no store')
    folder = Path(environ.pop('NUMBA_CACHE_DIR'))
    assert folder == temporary / f'qsmflow-numba-{os.getuid()}'
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert environ == {}


def test_store_is_linked_for_its_processor(closed, store, portable, temporary):
    environ = {}
    kernel_cache.prepare(environ, closed, store)
    folder = Path(environ['NUMBA_CACHE_DIR'])
    assert folder.parent.parent == temporary
    assert folder.name == 'b1', 'another build has another folder'
    names = {
        path.relative_to(folder).as_posix() for path in folder.rglob('*') if path.is_symlink()
    }
    assert names == {'module_0/f.py311.nbi', 'module_0/f.py311.1.nbc', kernel_cache.MANIFEST}
    assert environ['NUMBA_CPU_NAME'] == 'any'
    assert environ['NUMBA_CPU_FEATURES'] == ''
    # Again, as in the next container on the same /tmp, beside what was compiled meanwhile.
    (folder / 'module_0/f.py311.1.nbc').unlink()
    (folder / 'module_0/f.py311.1.nbc').write_text('compiled here')
    kernel_cache.prepare({}, closed, store)
    kernel_cache.link_store(store, folder)
    assert (folder / 'module_0/f.py311.1.nbc').read_text() == 'compiled here'


@pytest.mark.parametrize(
    'manifest', ['{"cpu": "other", "build": "b1"}', '{"build": "b1"}', '[]', 'no JSON']
)
def test_store_that_does_not_fit_is_not_used(closed, store, portable, temporary, manifest):
    (store / kernel_cache.MANIFEST).write_text(manifest)
    environ = {}
    kernel_cache.prepare(environ, closed, store)
    assert list(environ) == ['NUMBA_CACHE_DIR'], 'the processor is not set'
    assert not list(Path(environ['NUMBA_CACHE_DIR']).iterdir())


def test_processor_that_the_user_chose_is_kept(closed, store, portable, temporary):
    environ = {'NUMBA_CPU_NAME': 'mine'}
    kernel_cache.prepare(environ, closed, store)
    assert environ['NUMBA_CPU_NAME'] == 'mine'
    assert 'NUMBA_CPU_FEATURES' not in environ
    assert not list(Path(environ['NUMBA_CACHE_DIR']).iterdir())


@pytest.mark.parametrize(
    ('text', 'answer'),
    [
        (f'processor : 0\nflags : {FLAGS}\n', True),
        (f'flags : {FLAGS}\nflags : {FLAGS} avx512f\n', True),
        (f'flags : {FLAGS}\nflags : {FLAGS.replace("avx2", "")}\n', False),
        ('processor : 0\n', False),
        (None, False),
    ],
)
def test_features_of_the_processor(tmp_path, text, answer):
    needed = frozenset(('avx2', 'fma', 'abm'))
    path = tmp_path / 'cpuinfo'
    if text is not None:
        path.write_text(text)
    assert kernel_cache.supports(needed, path) is answer
    assert kernel_cache.supports(frozenset(), path)


def test_folder_of_another_user_is_not_trusted(temporary):
    folder = temporary / f'qsmflow-numba-{os.getuid()}'
    folder.mkdir()
    folder.chmod(0o777)
    found = kernel_cache.private_folder()
    assert found != folder
    assert stat.S_IMODE(found.stat().st_mode) == 0o700


def test_link_in_place_of_the_folder_is_not_followed(temporary, tmp_path):
    (temporary / f'qsmflow-numba-{os.getuid()}').symlink_to(tmp_path)
    assert kernel_cache.private_folder().parent == temporary
    assert not kernel_cache.private_folder().is_symlink()


def test_nowhere_to_write(closed, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path / 'missing'))
    environ = {}
    kernel_cache.prepare(environ, closed, tmp_path / 'no store')
    assert environ == {}, 'numba looks in the home folder'


def test_a_kernel_of_the_store_is_not_compiled_again(tmp_path):
    """numba compiles into a store, and another process reads it through links."""
    (tmp_path / 'kernel.py').write_text(
        'from numba import njit\n\n@njit(cache=True)\ndef add(a, b):\n    return a + b\n'
    )
    (tmp_path / 'tmp').mkdir()
    store = tmp_path / 'store'
    cpu, needed = kernel_cache.PORTABLE.get(kernel_cache.platform.machine(), ('', frozenset()))
    if not cpu or not kernel_cache.supports(needed):
        pytest.skip('no store is made for this processor')
    environ = {name: text for name, text in os.environ.items() if not name.startswith('NUMBA')}
    environ |= {'TMPDIR': str(tmp_path / 'tmp'), 'PYTHONPATH': os.pathsep.join(sys.path)}
    fill = {'NUMBA_CACHE_DIR': str(store), 'NUMBA_CPU_NAME': cpu, 'NUMBA_CPU_FEATURES': ''}
    code = KERNEL.format(folder=str(tmp_path), package=str(tmp_path / 'gone'), store=str(store))

    def run(extra):
        return subprocess.run(
            [sys.executable, '-c', code],
            env=environ | extra,
            check=True,
            capture_output=True,
            text=True,
        ).stdout.split()

    assert run(fill) == [str(store), '0']
    (store / kernel_cache.MANIFEST).write_text(json.dumps({'cpu': cpu, 'build': 'b1'}))
    before = {path: path.stat().st_mtime_ns for path in store.rglob('*')}
    folder, hits = run({})
    assert Path(folder).parent.parent == tmp_path / 'tmp'
    assert hits == '1'
    assert {path: path.stat().st_mtime_ns for path in store.rglob('*')} == before


def test_warmup_says_where_it_makes_nothing(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(warmup, 'supports', lambda needed: False)
    assert warmup.main([str(tmp_path / 'store')]) == 0
    assert 'compiled at first use' in capsys.readouterr().err
    assert not (tmp_path / 'store').exists()


def test_warmup_fails_where_a_run_fails(monkeypatch, tmp_path, capsys):
    def fail(scratch, environ):
        assert environ['NUMBA_CACHE_DIR'] == str(tmp_path / 'store')
        raise subprocess.CalledProcessError(1, ['qsmflow'])

    monkeypatch.setattr(warmup, 'supports', lambda needed: True)
    monkeypatch.setattr(warmup, '_process_phantom', fail)
    assert warmup.main([str(tmp_path / 'store')]) == 1
    assert 'a run failed' in capsys.readouterr().err
    assert not (tmp_path / 'store' / kernel_cache.MANIFEST).exists()


def test_runs_of_the_warmup_have_known_options(tmp_path):
    from qsmflow.cli.options import build_parser

    for options in warmup.RUNS:
        words = [str(tmp_path), str(tmp_path), 'participant', *options]
        assert build_parser().parse_known_args(words)[1] == []


# --- several processes ---


def test_variants_compiled_at_the_same_time_do_not_overwrite_each_other(tmp_path):
    """Each of two processes saves a variant while it knows nothing of the other's."""
    from numba.core.caching import IndexDataCacheFile

    from qsmflow.algorithms import _jit  # noqa: F401, it changes how numba names its files

    first, second, third = (IndexDataCacheFile(str(tmp_path), 'f', 'stamp') for _ in range(3))
    first._load_index = second._load_index = dict
    first.save('float32', 'code for float32')
    second.save('float64', 'code for float64')
    assert third.load('float32') is None, 'the index of the last one does not list it'
    assert third.load('float64') == 'code for float64'
    first.save('float32', 'code for float32')
    assert third.load('float32') == 'code for float32'


def test_every_kernel_is_compiled_that_way():
    package = Path(kernel_cache.__file__).parent
    sources = [path for path in package.rglob('*.py') if path.name != '_jit.py']
    using = [path for path in sources if 'njit' in path.read_text(encoding='utf-8')]
    assert len(using) > 20
    for path in using:
        text = path.read_text(encoding='utf-8')
        assert 'from qsmflow.algorithms._jit import' in text, path
        assert 'from numba import' not in text, path
        assert 'numba.njit' not in text, path
