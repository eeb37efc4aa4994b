"""What --clean-workdir removes, and what it leaves."""

import pytest

from qsmflow import __version__
from qsmflow.bids.findings import DatasetError
from qsmflow.cli import participant
from qsmflow.cli.workdir import clean
from qsmflow.settings import BIDSSettings, ExecutionSettings, Settings


def steps_of(work, version):
    """Make the steps of an earlier run; return their folder."""
    steps = work / f'qsmflow-{version}' / 'qsmflow_wf'
    (steps / 'sub_01_wf').mkdir(parents=True)
    (steps / 'sub_01_wf/result_fit.pklz').touch()
    return steps


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob('*'))


@pytest.fixture
def work(tmp_path):
    """Return a current folder in which someone keeps datasets, results and notes."""
    for name in ('qsmflow-study', 'qsmflow-results-2025', 'qsmflow-2.0', 'qsmflow-2025'):
        (tmp_path / name / 'sub-01/anat').mkdir(parents=True)
        (tmp_path / name / 'dataset_description.json').touch()
    (tmp_path / 'qsmflow-notes.txt').touch()
    (tmp_path / 'qsmflow-1.0').touch()
    (tmp_path / 'qsmflow-study/qsmflow_wf').mkdir()
    return tmp_path


def settings(raw, out, work, **derivatives):
    bids = BIDSSettings(
        bids_dir=str(raw),
        output_dir=str(out),
        derivatives={name: str(path) for name, path in derivatives.items()},
    )
    return Settings(bids=bids, execution=ExecutionSettings(work_dir=str(work)))


def test_only_steps_of_earlier_runs_are_removed(work):
    before = names(work)
    for version in (__version__, '0.0.9', '0.2.0.dev3+g1a2b3c.d20250101'):
        steps_of(work, version)
    participant._clean(settings(work / 'qsmflow-study', work / 'qsmflow-results-2025', work))
    assert names(work) == before


def test_what_else_lies_beside_the_steps_stays(work):
    steps = steps_of(work, '0.0.9')
    (steps.parent / 'notes.txt').touch()
    assert clean(work, work / 'out', {}) == [steps]
    assert names(steps.parent) == ['notes.txt']


@pytest.mark.parametrize('inner', [False, True])
def test_links_stay_and_are_told(work, tmp_path_factory, caplog, inner):
    elsewhere = tmp_path_factory.mktemp('elsewhere')
    steps = steps_of(elsewhere, '0.0.9')
    link = work / 'qsmflow-0.0.9'
    if inner:
        link.mkdir()
        (link / 'qsmflow_wf').symlink_to(steps)
    else:
        link.symlink_to(steps.parent)
    assert clean(work, work / 'out', {}) == []
    assert (steps / 'sub_01_wf/result_fit.pklz').is_file()
    assert str(link / 'qsmflow_wf') in caplog.text


@pytest.mark.parametrize(
    ('raw', 'out', 'prep', 'words'),
    [
        ('qsmflow-study', 'qsmflow-0.0.9/qsmflow_wf', 'prep', 'is OUTPUT_DIR'),
        ('qsmflow-study', 'qsmflow-0.0.9/qsmflow_wf/out', 'prep', 'contains OUTPUT_DIR'),
        ('qsmflow-0.0.9/qsmflow_wf/raw', 'out', 'prep', 'contains BIDS_DIR'),
        ('qsmflow-study', 'out', 'qsmflow-0.0.9/qsmflow_wf/p', 'contains --derivatives prep'),
        ('qsmflow-study', 'out', '.', 'lies in --derivatives prep'),
        ('.', 'out', 'prep', 'lies in BIDS_DIR'),
        ('qsmflow-study', 'link', 'prep', 'is OUTPUT_DIR'),
    ],
)
def test_datasets_and_results_are_never_removed(work, raw, out, prep, words):
    first, second = steps_of(work, '0.0.8'), steps_of(work, '0.0.9')
    (work / 'link').symlink_to(second)
    before = names(work)
    with pytest.raises(DatasetError, match=words) as refused:
        participant._clean(settings(work / raw, work / out, work, prep=work / prep))
    assert refused.value.exit_code == 2
    assert [(f.code, f.level) for f in refused.value.findings] == [('E96', 'FATAL')]
    assert names(work) == before, 'nothing was removed, not even what could have been'
    assert first.is_dir()


def test_a_hidden_work_folder_in_the_results_can_be_cleaned(tmp_path):
    raw = tmp_path / 'raw'
    out = raw / 'derivatives/qsmflow'
    steps = steps_of(out / '.work', '0.0.9')
    participant._clean(settings(raw, out, out / '.work', earlier=out))
    assert not steps.parent.exists()
    assert out.is_dir()
