"""Derivatives are stored whole, inside the output folder, with a valid sidecar."""

import json
import os
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from qsmflow import io
from qsmflow.engine import Node, Workflow
from qsmflow.interfaces.bids import DerivativesSink, MergeFields, inside

PLACE = 'sub-01/anat/sub-01_Chimap.nii.gz'


@pytest.fixture
def source(tmp_path):
    data = np.random.default_rng(0).standard_normal((5, 6, 7)).astype(np.float32)
    affine = np.array([[0, -2.0, 0, 4], [3.0, 0, 0, -5], [0, 0, 1.5, 6], [0, 0, 0, 1]])
    path = io.save_volume(data, io.Volume(data, affine), tmp_path / 'source.nii')
    return data, affine, path


@pytest.fixture
def sink(tmp_path, source):
    """Return a function that stores the source and gives the path."""

    def store(**inputs):
        defaults = {'in_file': source[2], 'out_dir': str(tmp_path / 'out'), 'path': PLACE}
        return Path(DerivativesSink(**defaults | inputs).run().outputs.out_file)

    return store


def sidecar(path):
    return json.loads(Path(str(path).replace('.nii.gz', '.json')).read_text())


def test_map_keeps_values_and_place(sink, source, tmp_path):
    path = sink()
    assert path == tmp_path / 'out' / PLACE
    image = nib.load(path)
    np.testing.assert_array_equal(image.get_fdata(dtype=np.float32), source[0])
    np.testing.assert_allclose(image.affine, source[1])
    assert image.header['scl_slope'] in (1, 0) or np.isnan(image.header['scl_slope'])
    assert not path.with_name('sub-01_Chimap.json').exists()


def test_field_is_stored_in_hertz(sink, source):
    stored = io.load_volume(sink(scale=127.7)).data
    np.testing.assert_allclose(stored, source[0] * 127.7, rtol=1e-6)


@pytest.mark.parametrize(
    ('kind', 'values', 'stored'),
    [('mask', [0, 0.4, 0.6, 1], [0, 0, 1, 1]), ('label', [0, 0.9, 7.1, 300], [0, 1, 7, 300])],
)
def test_masks_and_labels_are_stored_as_integers(sink, tmp_path, kind, values, stored):
    data = np.array(values, np.float32).reshape(1, 2, 2)
    path = io.save_volume(data, io.Volume(data, np.eye(4)), tmp_path / 'discrete.nii')
    image = nib.load(sink(in_file=path, kind=kind))
    assert np.issubdtype(image.get_data_dtype(), np.integer)
    assert np.asarray(image.dataobj).ravel().tolist() == stored


def test_any_file_is_copied_byte_by_byte(sink, tmp_path):
    (tmp_path / 'figure.png').write_bytes(b'\x89PNG\x00\xff')
    path = sink(in_file=str(tmp_path / 'figure.png'), kind='file', path='sub-01/figures/a.png')
    assert path.read_bytes() == b'\x89PNG\x00\xff'


def test_what_was_found_of_a_method_stands_beside_its_parameters(sink):
    known = {'Units': 'ppm', 'DipoleInversion': {'Method': 'tv', 'Parameters': {'tol': 0.1}}}
    found = {'DipoleInversion': {'Iterations': 3}, 'BackgroundFieldRemoval': {'Iterations': 2}}
    told = sidecar(sink(metadata=known, details=found))
    assert told['DipoleInversion'] == {
        'Method': 'tv', 'Parameters': {'tol': 0.1}, 'Iterations': 3,
    }  # fmt: skip
    assert told['BackgroundFieldRemoval'] == {'Iterations': 2}


def test_sidecar_joins_what_was_known_and_what_was_found(sink):
    path = sink(
        metadata={'Units': 'ppm', 'Size': (np.float32(1.5), np.int64(2)), 'Place': Path('a')},
        details={'Reference': {'mean': np.float64(0.25), 1: True}},
    )
    assert sidecar(path) == {
        'Units': 'ppm',
        'Size': [1.5, 2],
        'Place': 'a',
        'Reference': {'mean': 0.25, '1': True},
    }


@pytest.mark.parametrize('bad', [float('nan'), float('inf'), np.float32('nan')])
def test_sidecar_holds_no_nan(sink, bad):
    path = sink(metadata={'A': bad, 'B': [1.0, bad]}, details={'C': {'D': bad}})
    text = path.with_name('sub-01_Chimap.json').read_text()
    assert json.loads(text, parse_constant=pytest.fail) == {
        'A': None,
        'B': [1.0, None],
        'C': {'D': None},
    }


@pytest.mark.parametrize(
    'path', ['../x.nii.gz', 'sub-01/../../x.nii.gz', '/tmp/x.nii.gz', 'sub-01/..', '..', '', '.']
)
def test_paths_that_leave_the_output_folder_are_refused(sink, tmp_path, path):
    before = sorted(tmp_path.rglob('*'))
    with pytest.raises(ValueError, match='leads out of the output folder'):
        sink(path=path)
    assert sorted(tmp_path.rglob('*')) == before


def test_links_to_folders_outside_are_refused(sink, tmp_path):
    (tmp_path / 'out').mkdir()
    (tmp_path / 'elsewhere').mkdir()
    (tmp_path / 'out' / 'sub-01').symlink_to(tmp_path / 'elsewhere')
    with pytest.raises(ValueError, match='leads out'):
        sink()
    assert not list((tmp_path / 'elsewhere').iterdir())


def test_output_folder_may_be_reached_through_a_link(tmp_path):
    (tmp_path / 'real').mkdir()
    (tmp_path / 'link').symlink_to(tmp_path / 'real')
    assert inside(str(tmp_path / 'link'), 'a/b.json') == tmp_path / 'real' / 'a' / 'b.json'


@pytest.mark.parametrize('kind', ['map', 'file'])
def test_link_in_the_place_of_an_output_is_replaced_not_followed(sink, source, tmp_path, kind):
    """Version control of large files puts read-only objects behind links."""
    place = tmp_path / 'out' / PLACE
    place.parent.mkdir(parents=True)
    (tmp_path / 'object').write_text('archived')
    place.symlink_to(tmp_path / 'object')
    assert sink(kind=kind) == place
    assert not place.is_symlink()
    assert (tmp_path / 'object').read_text() == 'archived'


@pytest.mark.parametrize('kind', ['map', 'file'])
def test_failed_write_leaves_neither_name_nor_remains(sink, tmp_path, monkeypatch, kind):
    kept = sink(kind=kind).read_bytes()

    def fail(*_):
        raise OSError('no space left on device')

    monkeypatch.setattr(os, 'replace', fail)
    with pytest.raises(OSError, match='no space'):
        sink(kind=kind)
    files = [path for path in (tmp_path / 'out').rglob('*') if path.is_file()]
    assert [path.name for path in files] == ['sub-01_Chimap.nii.gz']
    assert files[0].read_bytes() == kept


def test_same_input_gives_the_same_bytes(sink):
    assert sink().read_bytes() == sink(path='again.nii.gz').read_bytes()


def test_deleted_outputs_come_back(source, tmp_path):
    inputs = {'in_file': source[2], 'out_dir': str(tmp_path / 'out'), 'path': PLACE}
    for _ in range(2):
        workflow = Workflow(name='store', base_dir=str(tmp_path / 'work'))
        workflow.add_nodes([Node(DerivativesSink(**inputs), name='ds')])
        workflow.run()
        assert (tmp_path / 'out' / PLACE).is_file()
        shutil.rmtree(tmp_path / 'out')


def test_missing_source_is_an_error(tmp_path):
    with pytest.raises(ValueError, match='in_file'):
        DerivativesSink(out_dir=str(tmp_path), path='a.nii.gz').run()


def test_fields_are_merged_and_unset_ones_left_out(tmp_path):
    merge = MergeFields(fields=['sign', 'mask', 'unset'], static={'series': 'sub-01'})
    merge.inputs.sign = {'Evidence': float('nan')}
    merge.inputs.mask = {'volume_ml': np.float32(2)}
    outputs = merge.run(cwd=str(tmp_path)).outputs
    expected = {'series': 'sub-01', 'sign': {'Evidence': None}, 'mask': {'volume_ml': 2.0}}
    assert outputs.out == expected
    assert json.loads(Path(outputs.out_file).read_text()) == expected
