"""The dry run: tables, JSON, and the checks that need the settings."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / 'bids'))

import defects

from qsmflow.bids import collect
from qsmflow.bids.catalog import FINDINGS
from qsmflow.cli import plan
from qsmflow.cli.history import write_record
from qsmflow.cli.run import main
from qsmflow.settings import ReconstructionSettings, ResourceSettings, Settings


@pytest.fixture(scope='module')
def clean(tmp_path_factory):
    return defects.write_clean(tmp_path_factory.mktemp('plan') / 'a b [é];' / 'ds').root


@pytest.fixture
def dataset(tmp_path):
    return defects.write_clean(tmp_path / 'ds')


def dry(root, tmp_path, *options):
    """Return the exit code of a dry run."""
    arguments = [str(root), str(tmp_path / 'out'), 'participant', '--skip-bids-validation']
    return main([*arguments, '-w', str(tmp_path / 'work'), *options])


def test_tables(clean, tmp_path, capsys):
    assert dry(clean, tmp_path, '--dry-run') == 0
    text = capsys.readouterr().out
    assert '1 can be processed, 0 cannot.' in text
    lines = [line.split() for line in text.splitlines()]
    assert ['level', 'code', 'acquisition'] in [line[:3] for line in lines]
    assert ['WARN', 'TELAST', 'sub-01'] in [line[:3] for line in lines]
    assert '[WARN TELAST] sub-01/anat/' in text


def test_json_file(clean, tmp_path, capsys):
    path = tmp_path / 'plan ü.json'
    assert dry(clean, tmp_path, '--dry-run-json', str(path)) == 0
    assert '1 can be processed' in capsys.readouterr().out, 'the tables are printed too'
    content = json.loads(path.read_text(encoding='utf-8'))
    assert content['exit_code'] == 0
    assert content['bids_dir'] == str(clean)
    (series,) = content['series']
    assert series['EchoTime'] == list(defects.TE)
    found = {finding['code']: finding for finding in series['findings']}
    assert found['TELAST']['level'] == 'WARN'
    assert found['TELAST']['evidence']['value'] == 15
    assert content['counts'] == {'FATAL': 0, 'ERROR': 0, 'FIX': 0, 'WARN': 1, 'INFO': 1}
    assert not (tmp_path / 'out').exists()
    assert not (tmp_path / 'work').exists()


def test_json_on_standard_output(dataset, tmp_path, capsys):
    dataset.image(2).unlink()
    assert dry(dataset.root, tmp_path, '--dry-run-json', '-') == 65
    content = json.loads(capsys.readouterr().out)
    assert content['exit_code'] == 65
    (failed,) = content['failed']
    assert failed['name'] == 'sub-01'
    (error,) = [f for f in failed['findings'] if f['level'] == 'ERROR']
    assert error['code'] == 'B30'
    assert error['file'].endswith('sub-01_echo-2_part-phase_MEGRE.nii.gz')
    assert error['remedy']


def test_json_of_what_cannot_start(dataset, tmp_path, capsys):
    dataset.edit(dataset.root / 'dataset_description.json', DatasetType='derivative')
    assert dry(dataset.root, tmp_path, '--dry-run-json', '-') == 65
    content = json.loads(capsys.readouterr().out)
    assert content['series'] == []
    assert [(f['code'], f['level']) for f in content['findings']] == [('B54', 'FATAL')]
    assert content['exit_code'] == 65


def test_json_of_a_work_folder_in_the_wrong_place(clean, tmp_path, capsys):
    path = tmp_path / 'plan.json'
    with pytest.raises(SystemExit):
        dry(clean, tmp_path, '--dry-run-json', str(path), '-w', str(clean / 'work'))
    content = json.loads(path.read_text(encoding='utf-8'))
    assert [(f['code'], f['level']) for f in content['findings']] == [('E96', 'FATAL')]
    assert content['findings'][0]['file'] == str(clean / 'work')
    assert content['exit_code'] == 2
    assert content['bids_dir'] == str(clean)


def test_json_of_a_bad_filter(clean, tmp_path, capsys):
    filters = tmp_path / 'filter.json'
    filters.write_text('{"megre": {"aquisition": "x"}}')
    options = ['--dry-run-json', '-', '--bids-filter-file', str(filters)]
    assert dry(clean, tmp_path, *options) == 2
    content = json.loads(capsys.readouterr().out)
    assert [(f['code'], f['level']) for f in content['findings']] == [('E91', 'FATAL')]
    assert content['exit_code'] == 2


def state(folder):
    return {
        path: (path.stat().st_mtime_ns, path.is_file() and path.read_bytes())
        for path in [folder, *folder.rglob('*')]
    }


@pytest.mark.parametrize('insist', [False, True])
def test_results_of_other_methods_are_told_by_a_dry_run(clean, tmp_path, capsys, insist):
    other = Settings(reconstruction=ReconstructionSettings(inversion='tkd'))
    write_record(tmp_path / 'out', '02', other)
    before = state(tmp_path / 'out')
    options = ['--allow-mixed-settings'] if insist else []
    code = dry(clean, tmp_path, '--dry-run-json', str(tmp_path / 'plan.json'), *options)
    content = json.loads((tmp_path / 'plan.json').read_text(encoding='utf-8'))
    (finding,) = (f for f in content['findings'] if f['code'] == 'E97')
    assert finding['level'] == ('WARN' if insist else 'FATAL')
    assert code == content['exit_code'] == (0 if insist else 2)
    assert f'[{finding["level"]} E97]' in capsys.readouterr().out
    assert state(tmp_path / 'out') == before
    assert not (tmp_path / 'work').exists()


def test_folder_of_another_program_is_told_by_a_dry_run(clean, tmp_path, capsys):
    (tmp_path / 'out').mkdir()
    content = {'DatasetType': 'derivative', 'GeneratedBy': [{'Name': 'fMRIPrep'}]}
    (tmp_path / 'out/dataset_description.json').write_text(json.dumps(content))
    assert dry(clean, tmp_path, '--dry-run-json', '-') == 2
    printed = capsys.readouterr()
    assert json.loads(printed.out)['exit_code'] == 2
    assert 'the results of fMRIPrep' in printed.err


def test_json_file_in_the_dataset_is_refused(clean, tmp_path, capsys):
    with pytest.raises(SystemExit) as refused:
        dry(clean, tmp_path, '--dry-run-json', str(clean / 'plan.json'))
    assert refused.value.code == 2
    assert not (clean / 'plan.json').exists()
    assert 'lies in the raw dataset' in capsys.readouterr().err


def test_reader_that_goes_away_is_no_error(clean, tmp_path):
    """As with ``| head``: the exit code stays that of the plan, and the JSON is there."""
    path = tmp_path / 'plan.json'
    command = [
        *(sys.executable, '-m', 'qsmflow', str(clean), str(tmp_path / 'out'), 'participant'),
        *('--skip-bids-validation', '-w', str(tmp_path / 'w'), '--dry-run-json', str(path)),
    ]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        process.stdout.close()
        log = process.stderr.read()
    assert process.returncode == 0, log
    assert 'Traceback' not in log
    assert json.loads(path.read_text(encoding='utf-8'))['exit_code'] == 0


#: Some of those that reading the dataset finds. Its description is not asked for here, and
#: a dataset that is not there is refused before.
READ = [
    defect
    for defect in defects.DEFECTS
    if defect.stage == 'collection' and defect.code != 'B53' and defect.label != 'wrong_path'
][::9]


def as_arguments(dataset, tmp_path):
    """Return what the command line needs to ask for what a defect needs."""
    arguments = []
    for name, value in dataset.options.items():
        if name == 'derivatives':
            arguments += ['--derivatives', *(f'{one}={path}' for one, path in value.items())]
        elif name == 'bids_filter':
            (tmp_path / 'filter.json').write_text(json.dumps(value))
            arguments += ['--bids-filter-file', tmp_path / 'filter.json']
        elif name == 'echoes':
            arguments += ['--echoes', ','.join(map(str, value))]
        else:
            values = value if isinstance(value, list) else [value]
            arguments += [f'--{name.replace("_", "-")}', *values]
    return map(str, arguments)


@pytest.mark.parametrize('defect', READ, ids=lambda d: d.label)
def test_findings_and_exit_code_of_defects(dataset, tmp_path, capsys, defect):
    """What the collection says is what the program prints, writes and ends with."""
    defect.make(dataset)
    code = dry(dataset.root, tmp_path, '--dry-run-json', '-', *as_arguments(dataset, tmp_path))
    content = json.loads(capsys.readouterr().out)
    assert (
        code
        == content['exit_code']
        == {'series': 0, 'failed': 65}.get(defect.outcome, defect.outcome)
    )
    findings = content['findings'] + [
        finding for item in content['series'] + content['failed'] for finding in item['findings']
    ]
    assert (defect.code, defect.level) in {(f['code'], f['level']) for f in findings}
    assert {f['code'] for f in findings} <= set(FINDINGS)


# ---- Bipolar readout (B41) ------------------------------------------------------------------


@pytest.mark.parametrize('numbers', [(1, 2), (1,), (1, 3, 5)])
def test_bipolar_correction_that_is_not_possible_fails_its_series_alone(clean, numbers):
    collection = collect(clean)
    (good,) = collection.series
    bad = replace(good, te=tuple(0.005 * n for n in numbers), echo_numbers=numbers)
    both = replace(collection, series=(good, bad))
    settings = Settings(resources=ResourceSettings(nprocs=1, mem_gb=4.0))
    for mode in ('auto', 'off', 'on'):
        recon = replace(settings.reconstruction, bipolar=mode)
        found = plan.checked(both, replace(settings, reconstruction=recon))
        assert found.exit_code == (1 if mode == 'on' else 0)
    assert found.series == (good,)
    ((_, findings),) = found.failed
    assert [(f.code, f.level) for f in findings if f.stops] == [('B41', 'ERROR')]
    assert findings[-1].evidence == {'echoes': len(numbers), 'echo_numbers': list(numbers)}
    assert '--bipolar auto' in findings[-1].remedy


def test_json_knows_the_exit_code_of_a_correction_that_is_not_possible(dataset, tmp_path, capsys):
    for part in ('mag', 'phase'):
        dataset.image(3, part).unlink()
    assert dry(dataset.root, tmp_path, '--dry-run-json', '-', '--bipolar', 'on') == 65
    content = json.loads(capsys.readouterr().out)
    assert content['exit_code'] == 65
    assert 'B41' in {finding['code'] for finding in content['failed'][0]['findings']}


# ---- Memory (C76) ---------------------------------------------------------------------------


@pytest.fixture
def large(clean):
    """Return the series as if it had the matrix of a scan at 0.4 mm, and settings for 4 GB."""
    collection = collect(clean)
    (series,) = collection.series
    series = replace(series, shape=(480, 560, 400), voxel_size=(0.4, 0.4, 0.4))
    settings = Settings(resources=ResourceSettings(nprocs=1, mem_gb=4.0))
    return replace(collection, series=(series,)), settings


def test_series_too_large_for_the_memory(large):
    collection, settings = large
    found = plan.checked(collection, settings)
    assert not found.series
    ((name, findings),) = found.failed
    assert name == 'sub-01'
    finding = findings[-1]
    assert (finding.code, finding.level) == ('C76', 'ERROR')
    assert finding.evidence['needed_gb'] > finding.evidence['limit_gb'] == 4.0
    assert '--low-mem' in finding.remedy
    assert found.exit_code == 1, 'the data are not at fault'


def test_large_series_is_tried_with_low_mem(large):
    collection, settings = large
    low = replace(settings, resources=replace(settings.resources, low_mem=True))
    (series,) = plan.checked(collection, low).series
    assert [(f.code, f.level) for f in series.findings][-1] == ('C76', 'WARN')


def test_memory_is_no_matter_where_there_is_enough(large):
    collection, settings = large
    much = replace(settings, resources=replace(settings.resources, mem_gb=64.0))
    assert plan.checked(collection, much) == collection


def test_mask_of_the_command_line(clean, tmp_path):
    """It is checked for each series, and the series that it does not fit is left out."""
    collection = collect(clean)
    path = tmp_path / 'mask.nii.gz'
    settings = Settings(resources=ResourceSettings(nprocs=1, mem_gb=4.0))
    settings = replace(settings, reconstruction=replace(settings.reconstruction, mask=str(path)))
    defects.write_image(path, defects.companions.head().astype('u1'))
    (series,) = plan.checked(collection, settings).series
    assert series.mask == str(path)
    defects.write_image(path, 0 * defects.companions.head().astype('u1'))
    found = plan.checked(collection, settings)
    assert not found.series
    assert [f.code for f in found.failed[0][1] if f.stops] == ['D79']
    assert found.exit_code == 65
