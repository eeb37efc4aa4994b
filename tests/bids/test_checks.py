"""Checks that need no dataset."""

import copy
import json
import pickle

import numpy as np
import pytest

from qsmflow.bids import checks_dataset
from qsmflow.bids.checks_protocol import protocol_findings, protocol_rules
from qsmflow.bids.findings import DatasetError, Finding
from qsmflow.bids.names import expected_name, is_usable_name, looks_like_gre

GOOD = {
    'te': [0.005, 0.010, 0.015, 0.020, 0.025, 0.030, 0.035],
    'voxel_size': (1.0, 1.0, 1.0),
    'field_strength': 3.0,
    'metadata': {'MRAcquisitionType': '3D'},
}


def test_folder_of_dicom_files_is_recognised(tmp_path):
    (tmp_path / 'study').mkdir()
    (tmp_path / 'study' / 'IM0001').write_bytes(bytes(128) + b'DICM' + bytes(50))
    with pytest.raises(DatasetError, match='qsmflow-dicom') as error:
        checks_dataset.check_dataset(tmp_path)
    assert error.value.findings[0].code == 'E90'
    (tmp_path / 'study' / 'IM0001').write_bytes(bytes(500))
    with pytest.raises(DatasetError, match='root folder of a BIDS dataset'):
        checks_dataset.check_dataset(tmp_path)


@pytest.mark.parametrize(
    ('code', 'level', 'change'),
    [
        ('ACQ3D', 'WARN', {'metadata': {'MRAcquisitionType': '2D'}}),
        ('ACQ3D', 'INFO', {'metadata': {}}),
        ('ECHON', 'WARN', {'te': [0.035]}),
        ('ECHON', 'INFO', {'te': [0.032, 0.033, 0.034, 0.035]}),
        ('TELAST', 'WARN', {'te': [0.003, 0.006, 0.009, 0.012, 0.015]}),
        ('TELAST', 'WARN', {'field_strength': 7.0}),
        ('DTE', 'WARN', {'te': [0.004, 0.012, 0.020, 0.028, 0.036]}),
        ('DTEUNI', 'INFO', {'te': [0.020, 0.0249, 0.0298, 0.0340, 0.0389]}),
        ('SLTHK', 'WARN', {'voxel_size': (1.5, 1.5, 2.0)}),
        ('ISO', 'INFO', {'voxel_size': (1.0, 1.0, 1.8)}),
        ('ISO', 'WARN', {'voxel_size': (0.5, 0.5, 1.5)}),
        ('PF', 'WARN', {'metadata': {'MRAcquisitionType': '3D', 'PartialFourier': '0.875'}}),
        ('FIELD', 'INFO', {'field_strength': 4.7}),
    ],
)
def test_protocol_rules(code, level, change):
    rules = protocol_rules(**(GOOD | change))
    found = {rule.code: rule.level for rule in rules if rule.level != 'OK'}
    allowed = {'TELAST'} if code == 'FIELD' or 'te' in change else set()
    assert found[code] == level
    assert set(found) - (allowed - {code}) == {code}
    findings = protocol_findings(rules, 'x.nii.gz')
    assert all(item.remedy for item in findings)
    messages = [str(item) for item in findings]
    assert any(code in text and 'x.nii.gz' in text for text in messages)


def test_good_protocol_keeps_every_rule():
    rules = protocol_rules(**GOOD)
    assert {rule.level for rule in rules} == {'OK'}
    assert [rule.code for rule in rules] == [
        *('ACQ3D', 'ECHON', 'TELAST', 'DTE', 'DTEUNI', 'SLTHK', 'ISO', 'PF', 'FIELD')
    ]


# ---- Findings -------------------------------------------------------------------------------


def test_finding_must_have_known_level_and_remedy():
    with pytest.raises(ValueError, match='level'):
        Finding('B31', 'BAD', 'x')
    with pytest.raises(ValueError, match='remedy'):
        Finding('B31', 'ERROR', 'x')


def test_dataset_error_survives_a_worker_process():
    error = DatasetError([Finding('E90', 'FATAL', 'x', remedy='y'), Finding('C1', 'INFO', 'z')], 2)
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert twin.exit_code == 2
        assert twin.findings == error.findings
        assert str(twin) == '[FATAL E90] x. y'


# ---- Names ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('wrong', 'right'),
    [
        ('sub-01_part-mag_echo-1_MEGRE.nii.gz', 'sub-01_echo-1_part-mag_MEGRE.nii.gz'),
        ('sub-01_dir-AP_echo-1_MEGRE.nii.gz', 'sub-01_echo-1_MEGRE.nii.gz'),
        ('sub-01_echo-1_part-Phase_megre.nii', 'sub-01_echo-1_part-phase_MEGRE.nii'),
        ('sub-01_run-1_acq-x_echo-2_part-magnitude_GRE.nii.gz',
         'sub-01_acq-x_run-1_echo-2_part-mag_MEGRE.nii.gz'),
        ('sub-01_echo-1_coil-3_part-mag_MEGRE.nii.gz', 'sub-01_echo-1_part-mag_MEGRE.nii.gz'),
        ('sub-01_part-mag_acq-a_t2starw.nii.gz', 'sub-01_acq-a_part-mag_T2starw.nii.gz'),
    ],
)  # fmt: skip
def test_expected_name_is_valid(wrong, right):
    assert looks_like_gre(wrong)
    assert not is_usable_name(f'sub-01/anat/{wrong}')
    assert expected_name(wrong) == right
    assert is_usable_name(f'sub-01/anat/{right}')


def test_names_that_are_used():
    for name in (
        'sub-01_echo-01_MEGRE.nii.gz',
        'sub-01_part-mag_MEGRE.nii.gz',  # echoes along the fourth axis
        'sub-01_MEGRE.nii.gz',
        'sub-01_acq-x_ce-g_rec-n_run-1_echo-1_part-real_MEGRE.nii.gz',
        'sub-01_part-phase_T1w.nii.gz',
    ):
        assert is_usable_name(f'sub-01/anat/{name}'), name
    assert not is_usable_name('sub-02/anat/sub-01_echo-1_MEGRE.nii.gz')


# ---- Geometry -------------------------------------------------------------------------------


def test_corner_shift_counts_rotation():
    from qsmflow.bids.checks_geometry import corner_shift

    turned = np.eye(4)
    turned[:2, :2] = [[np.cos(0.01), -np.sin(0.01)], [np.sin(0.01), np.cos(0.01)]]
    assert corner_shift((101, 101, 101), np.eye(4), turned) == pytest.approx(1.0, abs=0.01)
    assert corner_shift((101, 101, 101), np.eye(4), np.eye(4)) == 0


def test_evidence_that_is_no_number_is_json():
    evidence = {'a': float('nan'), 'b': [float('inf'), 1.5], 'c': {'d': -float('inf')}}
    text = json.dumps(Finding('C72', 'WARN', 'x', '', evidence).as_dict(), allow_nan=False)
    assert json.loads(text)['evidence'] == {'a': 'nan', 'b': ['inf', 1.5], 'c': {'d': '-inf'}}
