import pytest

from qsmflow.files import completed, write_text


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / 'table.tsv'
    write_text(path, 'old')

    def fail_half_way():
        with completed(path) as partial:
            partial.write_text('half')
            assert path.read_text() == 'old'
            raise OSError('disk full')

    with pytest.raises(OSError, match='disk'):
        fail_half_way()
    assert path.read_text() == 'old'
    assert list(tmp_path.iterdir()) == [path]


def test_folders_are_made_and_the_extension_is_kept(tmp_path):
    path = tmp_path / 'sub-01' / 'anat' / 'sub-01_Chimap.nii.gz'
    with completed(path) as partial:
        assert partial.name.endswith('.nii.gz')
        partial.write_bytes(b'x')
    assert path.read_bytes() == b'x'


def test_two_writers_do_not_meet(tmp_path):
    path = tmp_path / 'a.txt'
    with completed(path) as one, completed(path) as other:
        assert one != other
        one.write_text('one')
        other.write_text('other')
    assert path.read_text() == 'one'


def test_text_is_utf8_with_plain_line_ends(tmp_path):
    path = write_text(tmp_path / 'a.txt', 'χ\n')
    assert path.read_bytes() == 'χ\n'.encode()
