"""A real scan, as classic and as enhanced DICOM, against its reference in BIDS."""

import pytest

from qsmflow.dicom.cli import main
from tests.dicom.reference import assert_like_reference, unpacked

pytestmark = pytest.mark.realdata


@pytest.mark.parametrize('kind', ['classic', 'enhanced', 'enhanced/enhanced.dcm'])
def test_the_result_equals_the_reference(kind, tmp_path, capsys):
    folder, _, file = kind.partition('/')
    source = unpacked(folder, tmp_path) / file
    assert main([str(source), str(tmp_path / 'out'), '--subject', '01', '--yes']) == 0
    assert_like_reference(tmp_path / 'out')
    shown = capsys.readouterr().out
    assert '1 can be processed, 0 cannot' in shown
    assert 'BIDS validator' not in shown  # no error, and it did run
    assert 'not validated' not in shown
