"""An output folder holds results that can be compared with each other."""

import json
from dataclasses import replace

import pytest

from qsmflow import __version__
from qsmflow.bids.findings import DatasetError
from qsmflow.cli.history import (
    method_settings,
    mixture,
    read_records,
    require_one_method,
    write_record,
)
from qsmflow.settings import (
    ExecutionSettings,
    OutputSettings,
    ReconstructionSettings,
    ResourceSettings,
    Settings,
)

TV = Settings()
TKD = Settings(reconstruction=ReconstructionSettings(inversion='tkd'))


def test_same_settings_again_are_fine(tmp_path):
    write_record(tmp_path, '01', TV)
    for subjects in (['01'], ['02'], ['01', '02']):
        assert require_one_method(tmp_path, subjects, TV) == ()
    assert mixture(tmp_path) == ()


@pytest.mark.parametrize(
    'other',
    [
        Settings(outputs=OutputSettings(atlas=(), level='minimal', output_spaces=('T1w',))),
        Settings(resources=ResourceSettings(nprocs=1, mem_gb=1.0)),
        Settings(reconstruction=ReconstructionSettings(phase_sign='-1', mask='/data/mask.nii')),
        Settings(reconstruction=ReconstructionSettings(field_strength=3.0, b0_dir='z')),
        Settings(execution=ExecutionSettings(verbosity=2, run_uuid='x')),
    ],
)
def test_what_holds_for_one_acquisition_or_changes_no_numbers_is_free(tmp_path, other):
    write_record(tmp_path, '01', TV)
    assert require_one_method(tmp_path, ['02'], other) == ()


@pytest.mark.parametrize(
    ('other', 'change'),
    [
        (TKD, 'inversion: tv -> tkd'),
        (
            Settings(reconstruction=ReconstructionSettings(params={'background': {'tol': 1e-3}})),
            'params.background.tol: default -> 0.001',
        ),
        (
            Settings(reconstruction=ReconstructionSettings(reference='csf')),
            'reference: wholebrain -> csf',
        ),
        (
            Settings(reconstruction=ReconstructionSettings(echoes=(1, 2, 3))),
            'echoes: [] -> [1, 2, 3]',
        ),
        (Settings(execution=ExecutionSettings(random_seed=7)), 'random_seed: 42 -> 7'),
        (Settings(execution=ExecutionSettings(sloppy=True)), 'sloppy: default -> True'),
    ],
)
def test_other_methods_beside_other_subjects_are_refused(tmp_path, other, change):
    write_record(tmp_path, '01', TV)
    write_record(tmp_path, '02', TV)
    with pytest.raises(DatasetError) as refused:
        require_one_method(tmp_path, ['02', '03'], other)
    text = str(refused.value)
    assert text.startswith('[FATAL E97]')
    assert 'results of sub-01 were made by other methods' in text
    assert change in text
    assert '--allow-mixed-settings' in text
    assert refused.value.exit_code == 2


def test_they_can_be_insisted_on_and_are_told_at_the_group_level(tmp_path):
    write_record(tmp_path, '01', TV)
    insisting = replace(TKD, execution=replace(TKD.execution, allow_mixed_settings=True))
    (finding,) = require_one_method(tmp_path, ['02'], insisting)
    assert (finding.code, finding.level) == ('E97', 'WARN')
    write_record(tmp_path, '02', insisting)
    (finding,) = mixture(tmp_path)
    assert '2 different choices of methods' in str(finding)


def test_replacing_everything_is_a_warning(tmp_path):
    write_record(tmp_path, '01', TV)
    (finding,) = require_one_method(tmp_path, ['01', '02'], TKD)
    assert (finding.code, finding.level) == ('E97', 'WARN')
    assert 'are replaced' in finding.message
    write_record(tmp_path, '01', TKD)
    assert read_records(tmp_path)['01']['Settings'] == method_settings(TKD)


def test_results_of_another_version_are_told(tmp_path):
    write_record(tmp_path, '01', TV)
    path = tmp_path / 'logs/sub-01_settings.json'
    path.write_text(path.read_text().replace(__version__, '0.0.9'))
    (finding,) = require_one_method(tmp_path, ['02'], TV)
    assert finding.level == 'WARN'
    assert '0.0.9' in finding.message
    write_record(tmp_path, '02', TV)
    assert '0.0.9' in str(mixture(tmp_path)[0])


def description(folder, **content):
    text = json.dumps({'Name': 'x', 'BIDSVersion': '1.11.1', **content})
    (folder / 'dataset_description.json').write_text(text)
    (folder / 'sub-01').mkdir()


def test_results_without_a_record_are_judged_by_their_description(tmp_path):
    description(
        tmp_path,
        DatasetType='derivative',
        GeneratedBy=[{'Name': 'qsmflow', 'Version': '0.0.1'}],
    )
    (finding,) = require_one_method(tmp_path, ['01'], TV)
    assert '0.0.1' in finding.message


@pytest.mark.parametrize(
    ('content', 'what'),
    [
        ({'DatasetType': 'derivative', 'GeneratedBy': [{'Name': 'fMRIPrep'}]}, 'fMRIPrep'),
        ({'DatasetType': 'raw'}, 'a raw dataset'),
        ({}, 'a raw dataset'),
    ],
)
def test_folder_of_another_program_is_left_alone(tmp_path, content, what):
    description(tmp_path, **content)
    with pytest.raises(DatasetError, match=what) as refused:
        require_one_method(tmp_path, ['01'], TV)
    assert refused.value.exit_code == 2
    assert str(tmp_path / 'qsmflow') in str(refused.value)


def test_broken_record_is_ignored_with_a_warning(tmp_path, caplog):
    import logging

    logging.getLogger('qsmflow').propagate = True
    write_record(tmp_path, '01', TKD)
    (tmp_path / 'logs/sub-01_settings.json').write_text('{')
    assert require_one_method(tmp_path, ['02'], TV) == ()
    assert 'sub-01_settings.json cannot be read' in caplog.text
