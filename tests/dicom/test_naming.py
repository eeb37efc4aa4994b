import pytest

from qsmflow.bids.names import is_bids_name
from qsmflow.dicom.grouping import sort_images
from qsmflow.dicom.naming import check_label, plan_targets
from tests.dicom.vendors import image, scan

T1W = {'te': 0.0024, 'echo': None, 'AcquisitionTime': '10:05:00.0', 'ProtocolName': 'mprage'}


@pytest.mark.parametrize('session', [None, 'pre'])
@pytest.mark.parametrize('acq', [None, 'hires'])
@pytest.mark.parametrize('run', [None, 3])
@pytest.mark.parametrize('parts', [('mag', 'phase'), ('mag', 'real', 'imag'), ('phase',)])
def test_every_name_is_one_that_bids_allows(session, acq, run, parts):
    images = [image(3, **T1W), *scan(5, parts)]
    targets = plan_targets(
        sort_images(images).acquisitions, '01', session=session, acq=acq, run=run
    )
    assert len(targets) == 1 + 3 * len(parts)
    for target in targets:
        assert is_bids_name(target.relative)
        assert ('ses-pre' in target.relative) == (session is not None)
        gre = target.relative.endswith('MEGRE.nii.gz')
        assert ('acq-hires' in target.relative) == (gre and acq is not None)
        assert ('run-3' in target.relative) == (gre and run is not None)


def test_labels_of_protocols_never_differ_in_case_only():
    times = ('10:15:00.0', '10:25:00.0', '10:35:00.0')
    protocols = ('QSM gre', 'qsm_gre', '***')
    images = [
        one
        for number, (time, name) in enumerate(zip(times, protocols, strict=True), 5)
        for one in scan(number, ('mag', 'phase'), AcquisitionTime=time, ProtocolName=name)
    ]
    targets = plan_targets(sort_images(images).acquisitions, '01')
    labels = {target.relative.split('_')[1].lower() for target in targets}
    assert len(labels) == 3


@pytest.mark.parametrize('label', ['', 'sub-', 'a_b', 'a-b', '../x', 'é', '01 '])
def test_labels_with_other_signs_are_refused(label):
    with pytest.raises(ValueError, match='letters and digits'):
        check_label(label, 'sub-')
