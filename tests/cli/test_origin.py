"""Results of two datasets are not mixed, and one dataset may be moved, renamed or copied."""

import json
import shutil
import types
from dataclasses import replace

import pytest

from qsmflow.bids.findings import DatasetError
from qsmflow.cli import origin
from qsmflow.cli.history import mixture, require_one_method, write_record
from qsmflow.settings import BIDSSettings, Settings

DOI = '10.18112/openneuro.ds001234.v1.0.0'


def image(root, subject):
    return root / f'sub-{subject}/anat/sub-{subject}_echo-1_part-phase_MEGRE.nii.gz'


def write(root, seed=0, subjects=('01', '02'), **description):
    """Write a dataset: its description, and images whose size is always the same."""
    root.mkdir()
    (root / 'dataset_description.json').write_text(json.dumps(description))
    for label in subjects:
        image(root, label).parent.mkdir(parents=True)
        image(root, label).write_bytes(bytes(5000) + f'{seed}-{label}'.encode() + bytes(5000))
    return root


def settings(root):
    return Settings(bids=BIDSSettings(bids_dir=str(root)))


def process(root, out, *subjects):
    """Take down that there are results of subjects of a dataset."""
    for label in subjects:
        series = types.SimpleNamespace(files=(str(image(root, label)),))
        write_record(out, label, settings(root), [series])


@pytest.fixture
def out(tmp_path):
    """Return an output folder with results of both participants of ``first``."""
    process(write(tmp_path / 'first', Name='Iron', DatasetDOI=DOI), tmp_path / 'out', '01', '02')
    return tmp_path / 'out'


def told(out, root, *subjects, insist=False):
    given = settings(root)
    execution = replace(given.execution, allow_mixed_settings=insist)
    return require_one_method(out, list(subjects), replace(given, execution=execution))


def test_the_same_dataset_is_the_same(out, tmp_path):
    assert told(out, tmp_path / 'first', '02', '03') == ()
    assert mixture(out, tmp_path / 'first') == ()


@pytest.mark.parametrize(
    'description',
    [
        {'Name': 'Iron', 'DatasetDOI': DOI},
        {'Name': 'Iron in the brain'},
        {'Name': 'Iron', 'DatasetDOI': DOI.replace('v1.0.0', 'v2.1.3')},
        {},
    ],
    ids=['moved', 'renamed', 'new version', 'no description'],
)
def test_a_moved_or_renamed_dataset_is_the_same(out, tmp_path, description):
    shutil.rmtree(tmp_path / 'first')
    moved = write(tmp_path / 'elsewhere', subjects=('01', '02', '03'), **description)
    assert told(out, moved, '03') == ()
    assert mixture(out, moved) == ()


def test_another_version_of_the_dataset_with_corrected_images_is_the_same(out, tmp_path):
    doi = f'https://doi.org/{DOI.replace("v1.0.0", "v1.0.1")}'
    assert told(out, write(tmp_path / 'new', 7, Name='Iron (2)', DatasetDOI=doi), '03') == ()


def test_images_that_are_not_at_hand_have_not_changed(tmp_path):
    """As git-annex leaves them: links to content that was dropped."""
    root = write(tmp_path / 'raw', Name='Iron')
    process(root, tmp_path / 'out', '01')
    image(root, '01').unlink()
    image(root, '01').symlink_to('dropped')
    assert told(tmp_path / 'out', root, '02') == ()


@pytest.mark.parametrize(
    ('description', 'change'),
    [
        ({'Name': 'Myelin'}, 'Name: Iron -> Myelin'),
        ({'Name': 'Iron', 'DatasetDOI': '10.1/x'}, f'DatasetDOI: {DOI} -> 10.1/x'),
    ],
)
@pytest.mark.parametrize('subjects', [('01', '02', '03'), ('03',)])
def test_results_of_another_dataset_are_refused(out, tmp_path, description, change, subjects):
    """At the same path, as in a container, and whether or not it has the same labels."""
    shutil.rmtree(tmp_path / 'first')
    other = write(tmp_path / 'first', 1, subjects, **description)
    with pytest.raises(DatasetError) as refused:
        told(out, other, '03')
    text = str(refused.value)
    assert text.startswith('[FATAL E97]')
    assert 'results of sub-01, sub-02 were made from another dataset' in text
    assert change in text
    assert '--allow-mixed-settings' in text
    assert refused.value.exit_code == 2
    (finding,) = told(out, other, '03', insist=True)
    assert (finding.code, finding.level) == ('E97', 'WARN')
    assert 'another dataset' in str(mixture(out, other)[0])


def test_replacing_everything_is_a_warning(out, tmp_path):
    other = write(tmp_path / 'other', 1, Name='Myelin')
    (finding,) = told(out, other, '01', '02')
    assert (finding.code, finding.level) == ('E97', 'WARN')
    assert 'from another dataset and are replaced' in finding.message
    process(other, out, '01', '02')
    assert told(out, other, '01') == ()


@pytest.mark.parametrize('subjects', [('01', '02', '03'), ('03',)], ids=['changed', 'absent'])
def test_what_is_not_certain_is_a_warning(tmp_path, subjects):
    """Two datasets with the name of a template, or one of which something was taken away."""
    process(write(tmp_path / 'first', Name='My study'), tmp_path / 'out', '01', '02')
    (finding,) = told(tmp_path / 'out', write(tmp_path / 'b', 1, subjects, Name='My study'), '03')
    assert (finding.code, finding.level) == ('E97', 'WARN')
    assert 'results of sub-01, sub-02 may come from another dataset' in finding.message


def test_of_many_subjects_a_sample_is_looked_at(tmp_path, monkeypatch):
    labels = [f'{n:03d}' for n in range(95)]
    process(write(tmp_path / 'first', 0, labels, Name='Iron'), tmp_path / 'out', *labels)
    other = write(tmp_path / 'other', 1, labels, Name='Myelin')
    looked_at = []
    monkeypatch.setattr(origin, 'mark', lambda path: looked_at.append(path) or '')
    with pytest.raises(DatasetError, match='and 89 more were made from another'):
        told(tmp_path / 'out', other, '000')
    assert 5 < len(looked_at) <= 10


@pytest.mark.parametrize('kept', [None, 'text', {}, {'Images': {}}])
def test_old_records_say_nothing(tmp_path, kept):
    root = write(tmp_path / 'raw', Name='Iron')
    process(root, tmp_path / 'out', '01')
    path = tmp_path / 'out/logs/sub-01_settings.json'
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, 'Dataset': kept}))
    assert told(tmp_path / 'out', root, '02') == ()
