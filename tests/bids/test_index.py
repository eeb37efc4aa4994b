"""The index that is kept between runs: used while nothing changed, never believed otherwise."""

import json
import os
import shutil
from pathlib import Path

import pytest
from defects import write_clean, write_series

from qsmflow.bids import collect, index


@pytest.fixture
def kept(dataset, tmp_path, caplog):
    """Return a function that collects with a kept index and says what became of the index."""
    caplog.set_level('INFO', logger='qsmflow.bids')

    def run(**options):
        caplog.clear()
        found = collect(dataset.root, database_dir=tmp_path / 'db', **options)
        said = [record.getMessage() for record in caplog.records]
        assert found == collect(dataset.root, **options), 'the same as without an index'
        return ' '.join(said)

    return run


def test_it_is_made_once_and_then_used(kept, tmp_path):
    assert 'is kept in' in kept()
    before = (tmp_path / 'db' / index.DATABASE).read_bytes()
    assert 'is used' in kept()
    assert (tmp_path / 'db' / index.DATABASE).read_bytes() == before
    assert not list(tmp_path.glob('**/qsmflow-index-*'))


def older(path: Path) -> None:
    """Replace a file by one that is older than it, as an archive would."""
    content = json.loads(path.read_text()) | {'EchoTime': 0.0051}
    other = path.with_name('other')
    other.write_text(json.dumps(content))
    os.utime(other, (1, 1))
    os.replace(other, path)


@pytest.mark.parametrize(
    'change',
    [
        lambda ds: ds.edit(ds.sidecar(1, 'mag'), FlipAngle=11),
        lambda ds: [older(ds.sidecar(1, part)) for part in ('mag', 'phase')],
        lambda ds: write_series(ds, extra='_acq-new'),
        lambda ds: ds.sidecar(1, 'mag').unlink(),
        lambda ds: (ds.root / 'MEGRE.json').write_text('{"Manufacturer": "x"}'),
    ],
    ids=['edited', 'replaced by an older file', 'added', 'removed', 'inherited'],
)
def test_a_change_is_noticed(kept, dataset, change):
    kept()
    change(dataset)
    assert 'is made anew' in kept()
    assert 'is used' in kept()


def test_one_index_serves_every_subject(tmp_path, caplog):
    caplog.set_level('INFO', logger='qsmflow.bids')
    root = write_clean(tmp_path / 'ds', ('01', '02')).root
    collect(root, database_dir=tmp_path / 'db', participant_label=['01'])
    caplog.clear()
    (series,) = collect(root, database_dir=tmp_path / 'db', participant_label=['02']).series
    assert series.name == 'sub-02'
    assert 'is used' in caplog.text


def test_index_of_another_program_is_read_but_not_replaced(kept, dataset, tmp_path):
    from bids import BIDSLayout

    BIDSLayout(dataset.root, database_path=tmp_path / 'db')
    assert 'is used' in kept()
    write_series(dataset, extra='_acq-new')
    assert 'made by another program' in kept()
    assert not (tmp_path / 'db' / index.MARK).exists()


def test_index_of_another_dataset_is_not_used(kept, clean_root, dataset, tmp_path):
    collect(clean_root, database_dir=tmp_path / 'db')
    assert 'cannot be read here' in kept() or 'changed after it' in kept()


def test_damaged_index(kept, tmp_path):
    kept()
    (tmp_path / 'db' / index.DATABASE).write_bytes(b'no database')
    assert 'is made anew' in kept()


def test_folder_that_cannot_be_written(kept, tmp_path):
    (tmp_path / 'db').write_text('a file')
    assert 'could not be kept' in kept()


def test_nothing_is_left_in_the_temporary_folder(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(index.tempfile, 'tempdir', str(tmp_path / 'tmp'))
    (tmp_path / 'tmp').mkdir()
    for _ in range(2):
        collect(dataset.root, database_dir=tmp_path / 'db')
    import gc

    gc.collect()
    assert not list((tmp_path / 'tmp').iterdir())
    shutil.rmtree(tmp_path / 'tmp')
