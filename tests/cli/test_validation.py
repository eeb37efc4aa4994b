"""The validator's verdict: only what concerns files in use, and never the end of a run."""

import json
import sys
import types

import pytest

from qsmflow.bids import Collection, Finding
from qsmflow.cli import validation
from qsmflow.cli.run import main
from tests.bids.defects import write_clean

PHASE = 'sub-01/anat/sub-01_echo-1_part-phase_MEGRE.nii.gz'
T1W = 'sub-01/anat/sub-01_T1w.nii.gz'
MEANINGS = {'PHASE_UNITS': 'Phase images must have\nunits.', 'EMPTY_FILE': 'Empty files.'}


@pytest.fixture
def collection(tmp_path):
    series = types.SimpleNamespace(files=(str(tmp_path / PHASE),), t1w=str(tmp_path / T1W))
    missing = Finding('B30', 'ERROR', 'm', 'sub-02/anat/sub-02_part-mag_MEGRE.nii.gz', remedy='r')
    return Collection(str(tmp_path), (series,), failed=(('sub-02', (missing,)),))


@pytest.fixture
def tool(tmp_path):
    """Make a stand-in for the validator that runs a line of Python."""

    def make(line):
        path = tmp_path / 'validator'
        path.write_text(f'#!{sys.executable}\nimport sys, time, json\n{line}\n', encoding='utf-8')
        path.chmod(0o755)
        return str(path)

    return make


def report(*issues):
    """Write a line that prints a report with issues (code, severity, location)."""
    listed = [dict(zip(('code', 'severity', 'location'), i, strict=True)) for i in issues]
    content = json.dumps({'issues': {'issues': listed, 'codeMessages': MEANINGS}})
    return f'print({content!r}); sys.exit(16)'


def test_only_errors_of_used_files_are_shown(collection, tool):
    path = tool(
        report(
            ('PHASE_UNITS', 'error', f'/{PHASE}'),
            ('PHASE_UNITS', 'error', '/sub-01/anat/sub-01_T1w.json'),
            ('EMPTY_FILE', 'warning', f'/{PHASE}'),
            ('EMPTY_FILE', 'error', '/sub-02/anat/sub-02_part-mag_MEGRE.nii.gz'),
            ('EMPTY_FILE', 'error', '/sub-03/anat/sub-03_part-mag_MEGRE.nii.gz'),
            ('EMPTY_FILE', 'error', '/sub-01/func/sub-01_task-rest_bold.nii.gz'),
            ('MISMATCH', 'error', '/participants.tsv'),
            ('EMPTY_FILE', 'error', '/task-rest_bold.json'),
        )
    )
    findings = validation.validate(collection, tool=path)
    assert {(f.code, f.level) for f in findings} == {('E93', 'WARN')}
    shown = {f.evidence['code']: (f.file, f.evidence['files'], f.message) for f in findings}
    assert shown == {
        'MISMATCH': ('participants.tsv', 1, 'BIDS validator: MISMATCH'),
        'PHASE_UNITS': (
            'sub-01/anat/sub-01_T1w.json',
            2,
            'BIDS validator: Phase images must have units',
        ),
        'EMPTY_FILE': (
            'sub-02/anat/sub-02_part-mag_MEGRE.nii.gz',
            1,
            'BIDS validator: Empty files',
        ),
    }


def test_thousands_of_errors_elsewhere_do_not_matter(collection, tool, tmp_path):
    line = (
        'issues = [{"code": "EMPTY_FILE", "severity": "error", "location": '
        'f"/sub-{n:05d}/func/sub-{n:05d}_task-rest_bold.nii.gz"} for n in range(30000)]\n'
        f'issues.append({{"code": "PHASE_UNITS", "severity": "error", "location": "/{PHASE}"}})\n'
        'print(json.dumps({"issues": {"issues": issues, "codeMessages": {}}})); sys.exit(16)'
    )
    (finding,) = validation.validate(collection, tool=tool(line))
    assert finding.evidence == {'code': 'PHASE_UNITS', 'files': 1}


def test_many_files_of_one_kind_are_one_line(collection, tool):
    names = [f'/sub-02/anat/sub-02_part-mag_MEGRE.nii.gz#{n}' for n in range(3)]
    path = tool(report(*(('EMPTY_FILE', 'error', name.partition('#')[0]) for name in names)))
    (finding,) = validation.validate(collection, tool=path)
    assert finding.evidence['files'] == 1


def test_its_runtime_asks_nobody_for_updates(collection, tool):
    line = (
        'import os; sys.stderr.write(os.environ["DENO_NO_UPDATE_CHECK"] + os.environ["NO_COLOR"]);'
        'sys.exit(3)'
    )
    (finding,) = validation.validate(collection, tool=tool(line))
    assert finding.message.endswith('exit code 3: 11')


def test_a_valid_dataset_gives_no_finding(collection, tool):
    assert validation.validate(collection, tool=tool(report())) == ()


@pytest.mark.parametrize(
    ('line', 'reason'),
    [
        ('time.sleep(30)', 'did not end within 0.3 s'),
        ('sys.exit("no such option")', 'failed with exit code 1: no such option'),
        ('print("{}")', 'failed with exit code 0'),
    ],
)
def test_a_validator_that_fails_is_told_and_stops_nothing(collection, tool, line, reason):
    timeout = 0.3 if 'sleep' in line else 60
    (finding,) = validation.validate(collection, tool=tool(line), timeout=timeout)
    assert finding.level == 'INFO'
    assert reason in finding.message


def test_a_file_that_is_no_program(collection, tmp_path):
    (finding,) = validation.validate(collection, tool=str(tmp_path / 'absent'))
    assert 'cannot be run' in finding.message


def test_absent_tool_is_told_once_with_a_remedy(collection, monkeypatch):
    monkeypatch.setattr(validation.shutil, 'which', lambda name, path=None: None)
    (finding,) = validation.validated(collection).findings
    assert finding.level == 'INFO'
    assert 'pip install bids-validator-deno' in finding.remedy


def test_tool_beside_the_interpreter_is_found(tool, tmp_path, monkeypatch):
    tool('pass')
    (tmp_path / 'validator').rename(tmp_path / validation.TOOL)
    monkeypatch.setenv('PATH', '/nowhere')
    monkeypatch.setattr(sys, 'executable', str(tmp_path / 'python'))
    assert validation.find_tool() == str(tmp_path / validation.TOOL)


def test_participant_level_asks_unless_told_not_to(collection, monkeypatch, capsys):
    from qsmflow import bids
    from qsmflow.cli import participant
    from qsmflow.settings import Settings

    monkeypatch.setattr(bids, 'collect', lambda **selection: Collection(collection.bids_dir, ()))
    note = Finding('E93', 'WARN', 'something about the dataset')
    monkeypatch.setattr(validation, 'validate', lambda found: (note,))
    for skip in (False, True):
        settings = Settings()
        object.__setattr__(settings.bids, 'skip_bids_validation', skip)
        participant.run(settings)
        assert ('something about' in capsys.readouterr().out) is not skip


def test_the_real_validator(tmp_path):
    tool = validation.find_tool()
    assert tool, 'bids-validator-deno belongs to the test extra'
    root = tmp_path / 'ds'
    (root / 'sub-01' / 'anat').mkdir(parents=True)
    (root / PHASE).touch()
    (root / 'sub-01' / 'anat' / 'sub-01_T2w.nii.gz').touch()
    (root / 'dataset_description.json').write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    series = types.SimpleNamespace(files=(str(root / PHASE),), t1w=None)
    findings = validation.validate(Collection(str(root), (series,)), tool=tool)
    assert [f.level for f in findings] == ['WARN'] * len(findings)
    assert {f.file for f in findings} >= {PHASE}
    assert not any('T2w' in f.file for f in findings)


@pytest.mark.parametrize('described', [True, False])
def test_the_option_leaves_out_validator_and_description(tmp_path, monkeypatch, described):
    """Without it the validator is asked, and a dataset without a description refused (B53)."""
    root = write_clean(tmp_path / 'ds').root
    if not described:
        (root / 'dataset_description.json').unlink()
    asked = []
    monkeypatch.setattr(validation, 'validate', lambda found: asked.append(found) or ())
    line = [str(root), str(tmp_path / 'out'), 'participant', '--dry-run']
    assert main(line) == (0 if described else 65)
    assert len(asked) == described
    assert main([*line, '--skip-bids-validation']) == 0
    assert len(asked) == described, 'not once more'
