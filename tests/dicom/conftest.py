import pytest

from tests.dicom.scanner import TE, Scanner


@pytest.fixture(scope='session')
def siemens(tmp_path_factory):
    """Return a folder with a T1w image, and a gradient echo as two series."""
    folder = tmp_path_factory.mktemp('siemens')
    scanner = Scanner(folder, 'SIEMENS')
    scanner.series(
        3, [('mag', 2.3)], name='t1_mprage_sag', time='100500', ScanningSequence=['GR', 'IR'],
        SequenceName='*tfl3d1', InversionTime=900,
    )  # fmt: skip
    scanner.series(5, [('mag', te) for te in TE])
    scanner.series(6, [('phase', te) for te in TE])
    return folder
