"""The program on tiny DICOM series, with the real dcm2niix."""

import builtins
import csv
import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest

from qsmflow.dicom import tool
from qsmflow.dicom.cli import main, make_parser
from qsmflow.dicom.tool import OPTIONS
from tests.dicom.scanner import SHAPE, TE, Scanner, stored
from tests.dicom.scanner import signal as scanned

ANAT = 'sub-01/anat/'


def call(source, out, *options, code=0, label='01') -> None:
    """Run the program; without the validator, which takes seconds, unless asked for."""
    skip = [] if '--validate' in options else ['--skip-bids-validation']
    options = [option for option in options if option != '--validate']
    arguments = [str(source), str(out), '--participant-label', label, *options, *skip]
    assert main(arguments) == code


def load(out, name):
    image = nib.load(Path(out) / ANAT / name)
    return image, json.loads((Path(out) / ANAT / name.replace('.nii.gz', '.json')).read_text())


def in_scanner_order(image) -> np.ndarray:
    """Return voxels in the order of rows, columns and slices of the synthetic scanner.

    Patient coordinates of DICOM grow to the left and the back, those of NIfTI to the right and
    the front.
    """
    las = nib.as_closest_canonical(image)
    return las.get_fdata()[::-1, ::-1]


# --- what is written ---


def test_a_new_dataset(siemens, tmp_path, capsys):
    out = tmp_path / 'my study'
    call(siemens, out, '--yes', '--validate')
    shown = capsys.readouterr().out
    # The table comes before anything is written, and the verdict after it.
    assert (
        shown.index('becomes') < shown.index('wrote 17 files') < shown.index('1 can be processed')
    )
    assert 'not validated' not in shown
    assert 'BIDS validator:' not in shown  # no error
    files = {path.relative_to(out).as_posix() for path in out.rglob('*') if path.is_file()}
    assert files == {
        'dataset_description.json', 'README', 'participants.tsv',
        *(f'{ANAT}sub-01_T1w.{end}' for end in ('nii.gz', 'json')),
        *(f'{ANAT}sub-01_echo-{e}_part-{part}_MEGRE.{end}'
          for e in (1, 2, 3) for part in ('mag', 'phase') for end in ('nii.gz', 'json')),
    }  # fmt: skip
    assert_siemens_voxels(out)
    description = json.loads((out / 'dataset_description.json').read_text())
    assert description['Name'] == 'my study'
    assert [tool['Name'] for tool in description['GeneratedBy']] == ['qsmflow-dicom', 'dcm2niix']
    assert (out / 'participants.tsv').read_text() == 'participant_id\nsub-01\n'


def test_nothing_private_is_copied(siemens, tmp_path):
    out = tmp_path / 'out'
    call(siemens, out, '--yes')
    private = (b'secret', b'987654', b'1970', b'2023', b'qsm_gre', b'101500', b'10:15', b'1.2.826')
    for path in [p for p in out.rglob('*') if p.is_file()]:
        content = path.read_bytes()
        if path.suffix == '.gz':
            content = gzip.decompress(content)[:352]  # the header
        found = [word for word in private if word in content.lower()]
        assert not found, (path.name, found)
    header = load(out, 'sub-01_echo-1_part-mag_MEGRE.nii.gz')[0].header
    assert header['descrip'].item() == b'TE=4'


def test_ge_real_and_imaginary(tmp_path):
    Scanner(tmp_path / 'dicom', 'GE MEDICAL SYSTEMS').series(
        7, [(part, te) for te in TE for part in ('mag', 'real', 'imag')]
    )
    call(tmp_path / 'dicom', tmp_path / 'out', '--yes')
    for echo, te in enumerate(TE, 1):
        for part in ('mag', 'real', 'imag'):
            image, _ = load(tmp_path / 'out', f'sub-01_echo-{echo}_part-{part}_MEGRE.nii.gz')
            np.testing.assert_array_equal(in_scanner_order(image), stored(part, te))


def test_philips_phase_is_in_radians(tmp_path):
    Scanner(tmp_path / 'dicom', 'Philips Medical Systems').series(
        701, [(part, te) for te in TE for part in ('mag', 'phase')]
    )
    call(tmp_path / 'dicom', tmp_path / 'out', '--yes', '--validate')
    for echo, te in enumerate(TE, 1):
        image, content = load(tmp_path / 'out', f'sub-01_echo-{echo}_part-phase_MEGRE.nii.gz')
        assert content['Units'] == 'rad'
        off = np.angle(np.exp(1j * (in_scanner_order(image) - np.angle(scanned(te)))))
        # Steps of the stored integers; the vendor's pi is 3.142.
        assert np.abs(off).max() < 1.5 * 2 * np.pi / 4095


def test_siemens_xa_classic_without_echo_numbers(tmp_path):
    scanner = Scanner(tmp_path / 'dicom', 'Siemens Healthineers')
    for number, part in ((5, 'mag'), (6, 'phase')):
        scanner.series(
            number, [(part, te) for te in TE], numbered=False, SoftwareVersions='syngo MR XA30'
        )
    call(tmp_path / 'dicom', tmp_path / 'out', '--yes')
    found = [
        load(tmp_path / 'out', f'sub-01_echo-{e}_part-phase_MEGRE.nii.gz')[1] for e in (1, 2, 3)
    ]
    assert [content['EchoTime'] for content in found] == [0.004, 0.008, 0.012]


def assert_siemens_voxels(out) -> None:
    """Compare all images with what the synthetic scanner stored."""
    for echo, te in enumerate(TE, 1):
        for part in ('mag', 'phase'):
            image, content = load(out, f'sub-01_echo-{echo}_part-{part}_MEGRE.nii.gz')
            assert image.shape == SHAPE
            assert content['EchoTime'] == pytest.approx(te / 1000)
            assert content.get('Units') == (None if part == 'mag' else 'arbitrary')
            raw = stored(part, te)
            wanted = raw if part == 'mag' else 2.0 * raw - 4096
            np.testing.assert_array_equal(in_scanner_order(image), wanted)


def test_siemens_xa_enhanced(tmp_path):
    scanner = Scanner(tmp_path / 'dicom', 'Siemens Healthineers')
    scanner.enhanced(5, 'mag')
    scanner.enhanced(6, 'phase')
    call(tmp_path / 'dicom', tmp_path / 'out', '--yes')
    assert_siemens_voxels(tmp_path / 'out')


def test_values_that_dcm2niix_misreads_are_not_written(tmp_path, capsys):
    scanner = Scanner(tmp_path / 'dicom', 'Siemens Healthineers')
    scanner.enhanced(5, 'mag', shared=True)
    scanner.enhanced(6, 'phase', shared=True)
    options = ['--subject', '01', '--yes', '--skip-bids-validation']
    code = main([str(tmp_path / 'dicom'), str(tmp_path / 'out'), *options])
    if code == 0:  # a version of dcm2niix that reads them
        assert_siemens_voxels(tmp_path / 'out')
    else:
        assert code == 65
        assert 'dcm2niix misread the file' in capsys.readouterr().out
        assert not (tmp_path / 'out').exists()


def test_magnitude_and_phase_that_nothing_tells_apart_are_not_written(tmp_path, capsys):
    parts = iter(('mag', 'phase'))
    Scanner(tmp_path / 'dicom', 'SIEMENS').series(
        5, [('mag', 4.0)] * 2, ImageType=['ORIGINAL', 'PRIMARY', 'OTHER'],
        values=lambda _, te: stored(next(parts), te),
    )  # fmt: skip
    call(tmp_path / 'dicom', tmp_path / 'out', '--yes', code=65)
    assert 'holds 2 volumes' in capsys.readouterr().out
    assert not (tmp_path / 'out').exists()


# --- asking, adding, refusing ---


def test_dry_run_writes_nothing_and_gives_the_verdict(siemens, tmp_path, capsys):
    call(siemens, tmp_path / 'out', '--dry-run')
    shown = capsys.readouterr().out
    assert 'sub-01_echo-3_part-phase_MEGRE.nii.gz' in shown
    assert '1 can be processed, 0 cannot' in shown
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(('answer', 'written'), [('y', True), ('', False), ('n', False)])
def test_it_asks_before_it_writes(siemens, tmp_path, monkeypatch, capsys, answer, written):
    def reply(question):
        assert 'Write these 7 images' in question
        assert 'becomes' in capsys.readouterr().out
        return answer

    monkeypatch.setattr(builtins, 'input', reply)
    monkeypatch.setattr(sys.stdin, 'isatty', lambda: True, raising=False)
    call(siemens, tmp_path / 'out', code=0 if written else 1)
    assert (tmp_path / 'out').exists() == written


def test_without_a_terminal_it_needs_yes(siemens, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys.stdin, 'isatty', lambda: False, raising=False)
    call(siemens, tmp_path / 'out', code=2)
    assert '--yes' in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


def test_adding_to_a_dataset_changes_no_file_of_it(siemens, tmp_path, state):
    out = tmp_path / 'out'
    call(siemens, out, '--yes')
    (out / 'participants.tsv').write_text('participant_id\tage\nsub-01\t30')
    before = {k: v for k, v in state(out).items() if v[1]}
    call(siemens, out, '--yes', '--session-label', 'post', '--acq-label', 'acq-x', label='sub-02')
    after = state(out)
    for path, known in before.items():
        if path != 'participants.tsv':
            assert after[path] == known
    with (out / 'participants.tsv').open() as stream:
        rows = list(csv.reader(stream, delimiter='\t'))
    assert rows == [['participant_id', 'age'], ['sub-01', '30'], ['sub-02', 'n/a']]
    name = 'sub-02/ses-post/anat/sub-02_ses-post_acq-x_echo-1_part-mag_MEGRE.nii.gz'
    assert (out / name).exists()


def test_a_dataset_without_a_table_of_participants_gets_none(siemens, tmp_path):
    out = tmp_path / 'out'
    (out / 'sub-09' / 'anat').mkdir(parents=True)
    (out / 'dataset_description.json').write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    call(siemens, out, '--yes')
    assert {path.name for path in out.iterdir()} == {
        'sub-01', 'sub-09', 'dataset_description.json',
    }  # fmt: skip


def test_two_conversions_into_one_new_dataset(siemens, tmp_path):
    command = [sys.executable, '-m', 'qsmflow.dicom.cli', siemens, tmp_path / 'out', '--yes']
    both = [
        subprocess.Popen(
            [*map(str, command), '--skip-bids-validation', '--subject', label],
            stdout=subprocess.DEVNULL,
        )
        for label in ('01', '02')
    ]
    assert [process.wait(timeout=120) for process in both] == [0, 0]
    rows = (tmp_path / 'out' / 'participants.tsv').read_text().split()
    assert sorted(rows) == ['participant_id', 'sub-01', 'sub-02']
    assert len(list((tmp_path / 'out').glob('sub-*/anat/*_MEGRE.nii.gz'))) == 12


def test_nothing_is_overwritten(siemens, tmp_path, state, capsys):
    out = tmp_path / 'out'
    call(siemens, out, '--yes')
    (out / ANAT / 'sub-01_echo-2_part-mag_MEGRE.nii.gz').write_bytes(b'mine')
    before = state(out)
    call(siemens, out, '--yes', code=2)
    assert 'not overwritten' in capsys.readouterr().err
    assert state(out) == before


def test_a_failure_while_writing_leaves_nothing(siemens, tmp_path, monkeypatch):
    from qsmflow.dicom import writing

    place = writing._place

    def full(path, content, written):
        if path.name == 'sub-01_echo-2_part-mag_MEGRE.nii.gz':
            raise OSError(28, 'No space left on device', str(path))
        place(path, content, written)

    monkeypatch.setattr(writing, '_place', full)
    call(siemens, tmp_path / 'out', '--yes', code=73)
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
    'content',
    [
        {'a.txt': 'x'},
        {'dataset_description.json': '{"DatasetType": "derivative"}'},
        {'dataset_description.json': '{'},
    ],
)
def test_a_folder_that_is_no_raw_dataset_is_refused(siemens, tmp_path, content, capsys):
    for name, text in content.items():
        (tmp_path / name).write_text(text)
    call(siemens, tmp_path, '--yes', code=2)
    assert 'dataset' in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == set(content)


def test_the_source_is_only_read(siemens, tmp_path, state):
    before = state(siemens)
    call(siemens, tmp_path / 'out', '--yes')
    assert state(siemens) == before


# --- errors ---


def test_no_dicom(tmp_path, capsys):
    (tmp_path / 'in').mkdir()
    call(tmp_path / 'in', tmp_path / 'out', '--yes', code=65)
    assert 'no DICOM images were found' in capsys.readouterr().err
    (tmp_path / 'in' / 'scan.dcm.gz').write_bytes(gzip.compress(b'x'))
    call(tmp_path / 'in', tmp_path / 'out', '--yes', code=65)
    assert 'Unpack the archives first' in capsys.readouterr().err
    call(tmp_path / 'absent', tmp_path / 'out', '--yes', code=2)
    assert 'does not exist' in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


def test_no_phase(tmp_path, capsys):
    Scanner(tmp_path / 'in', 'SIEMENS').series(5, [('mag', te) for te in TE])
    call(tmp_path / 'in', tmp_path / 'out', '--yes', code=65)
    assert 'no phase images were found' in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


def test_a_t1w_image_alone_is_taken_when_named(siemens, tmp_path, capsys):
    for path in siemens.glob('0003_*'):
        (tmp_path / 'in').mkdir(exist_ok=True)
        shutil.copy(path, tmp_path / 'in')
    call(tmp_path / 'in', tmp_path / 'out', '--yes', code=65)
    assert '--series 3' in capsys.readouterr().err
    call(tmp_path / 'in', tmp_path / 'out', '--yes', '--series', '3')
    assert (tmp_path / 'out' / ANAT / 'sub-01_T1w.nii.gz').exists()


def test_a_missing_echo_fails_its_scan_and_no_other(siemens, tmp_path, capsys):
    shutil.copytree(siemens, tmp_path / 'in')
    scanner = Scanner(tmp_path / 'in', 'SIEMENS')
    scanner.study = pydicom.dcmread(next(siemens.glob('*.dcm'))).StudyInstanceUID
    scanner.series(8, [('mag', te) for te in TE], time='110000', name='other')
    scanner.series(9, [('phase', te) for te in TE[:2]], time='110000', name='other')
    call(tmp_path / 'in', tmp_path / 'out', '--yes', code=1)
    shown = capsys.readouterr().out
    assert 'phase image of echo time 12 ms is missing' in shown
    assert (tmp_path / 'out' / ANAT / 'sub-01_echo-3_part-phase_MEGRE.nii.gz').exists()


def test_several_studies_are_not_mixed(siemens, tmp_path, capsys):
    shutil.copytree(siemens, tmp_path / 'in')
    Scanner(tmp_path / 'in', 'SIEMENS').series(
        15, [(p, te) for te in TE for p in ('mag', 'phase')]
    )
    call(tmp_path / 'in', tmp_path / 'out', '--yes', code=2)
    shown = capsys.readouterr().err
    assert 'several studies' in shown
    assert 'Secret' not in shown
    call(tmp_path / 'in', tmp_path / 'out', '--yes', '--study', '3', code=2)
    call(tmp_path / 'in', tmp_path / 'out', '--yes', '--study', '2')
    assert not (tmp_path / 'out' / ANAT / 'sub-01_T1w.nii.gz').exists()


def test_series_can_be_chosen(siemens, tmp_path, capsys):
    call(siemens, tmp_path / 'out', '--yes', '--series', '5', '7', code=2)
    assert 'there is no series 7; there are 3, 5, 6' in capsys.readouterr().err
    call(siemens, tmp_path / 'out', '--yes', '--series', '5', '6')
    assert not (tmp_path / 'out' / ANAT / 'sub-01_T1w.nii.gz').exists()


def test_without_dcm2niix(siemens, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tool, 'TOOL', 'dcm2niix-that-is-not-there')
    call(siemens, tmp_path / 'out', '--yes', code=127)
    assert "pip install 'qsmflow[dicom]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    'options', [['--session-label', 'a_b'], ['--echo-times', '0'], ['--run', '-1'], ['--acq', 'x']]
)
def test_wrong_usage(siemens, tmp_path, options):
    with pytest.raises(SystemExit) as stopped:
        call(siemens, tmp_path / 'out', *options)
    assert stopped.value.code == 2


@pytest.mark.parametrize('damage', ['removed', 'cut'])
@pytest.mark.parametrize('lost', [SHAPE[2] - 1, 4])
def test_a_lost_or_damaged_slice_fails_its_scan(siemens, tmp_path, capsys, lost, damage):
    shutil.copytree(siemens, tmp_path / 'in')
    path = sorted((tmp_path / 'in').glob('0006_*.dcm'))[lost]
    path.unlink() if damage == 'removed' else path.write_bytes(path.read_bytes()[:-200])
    call(tmp_path / 'in', tmp_path / 'out', '--yes', code=65)
    told = ''.join(capsys.readouterr())
    if damage == 'cut':  # dcm2niix drops the whole image
        assert 'some DICOM files could not be converted' in told
        assert 'phase image of echo time 4 ms is missing' in told
    else:
        assert 'its images have different grids (20 x 18 x 16 and 20 x 18 x 17)' in told
    assert not (tmp_path / 'out').exists()


def test_the_defaults_of_dcm2niix_at_home_have_no_effect(siemens, tmp_path, monkeypatch):
    home = tmp_path / 'home'
    home.mkdir()
    (home / '.dcm2nii.ini').write_text('isGZ=0\nisBIDS=0\nisAnonymizeBIDS=0\nfilename=%n\n')
    monkeypatch.setenv('HOME', str(home))
    call(siemens, tmp_path / 'out', '--yes')
    assert (tmp_path / 'out' / ANAT / 'sub-01_echo-1_part-mag_MEGRE.nii.gz').exists()


def test_sigterm_leaves_no_temporary_files(siemens, tmp_path):
    (tmp_path / 'tmp').mkdir()
    slow = tmp_path / 'bin' / 'dcm2niix'
    slow.parent.mkdir()
    slow.write_text('#!/bin/sh\n[ "$1" = -h ] || sleep 60\n')
    slow.chmod(0o755)
    code = (
        'import sys; from qsmflow.dicom import tool, cli; '
        f'cli.find_tool = tool.find_tool = lambda: {str(slow)!r}; sys.exit(cli.main())'
    )
    command = [
        sys.executable, '-c', code, str(siemens), str(tmp_path / 'out'), '--subject', '01', '--yes'
    ]  # fmt: skip
    environment = {**os.environ, 'TMPDIR': str(tmp_path / 'tmp')}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    for _ in range(300):
        if list((tmp_path / 'tmp').glob('*/converted')):
            break
        time.sleep(0.1)
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=30)
    assert process.returncode == 143
    assert 'exit code 143' in told
    assert not list((tmp_path / 'tmp').iterdir())
    assert not (tmp_path / 'out').exists()


def test_the_page_names_every_option():
    page = (Path(__file__).parents[2] / 'docs' / 'convert.md').read_text(encoding='utf-8')
    for action in make_parser()._actions:
        for name in action.option_strings:
            if name not in ('-h', '--help', '--version') and '_' not in name:
                assert f'`{name}`' in page, name
    assert ' '.join(OPTIONS[:-2]).rstrip() + " ''" == re.search(r'^-g i .*$', page, re.M)[0]
