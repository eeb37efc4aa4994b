import csv
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from qsmflow import io
from qsmflow.phantom import SMALL, region_truth, small_acquisition, write_bids
from qsmflow.phantom.cli import main, make_parser, protocol_from
from qsmflow.phantom.dataset import TRUTH

VALIDATOR = Path(sys.executable).with_name('bids-validator-deno')
TINY = replace(SMALL, voxel_size=(8.0, 8.0, 8.0), shape=(24, 28, 24), t1w_voxel_size=8.0)


@pytest.fixture(scope='module')
def dataset(tmp_path_factory):
    return write_bids(tmp_path_factory.mktemp('phantom') / 'bids', protocol=SMALL, seed=4)


def read_tsv(path):
    with path.open(newline='') as stream:
        return list(csv.DictReader(stream, delimiter='\t'))


@pytest.mark.parametrize('part', ['', TRUTH])
def test_validator_finds_no_error(dataset, part):
    command = [str(VALIDATOR), str(dataset / part), '--json']
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    issues = json.loads(result.stdout)['issues']['issues']
    errors = [issue for issue in issues if issue.get('severity') == 'error']
    assert result.returncode == 0, errors
    assert errors == []


def test_subjects_sessions_and_files(dataset):
    anat = sorted(p.relative_to(dataset).as_posix() for p in dataset.glob('sub-*/**/anat'))
    assert anat == ['sub-01/ses-1/anat', 'sub-01/ses-2/anat', 'sub-02/anat']
    for folder in anat:
        assert len(list((dataset / folder).glob('*_part-mag_MEGRE.nii.gz'))) == 5
        assert len(list((dataset / folder).glob('*_part-phase_MEGRE.nii.gz'))) == 5
        assert len(list((dataset / folder).glob('*_T1w.nii.gz'))) == 1
    people = read_tsv(dataset / 'participants.tsv')
    assert [p['participant_id'] for p in people] == ['sub-01', 'sub-02']
    assert all(20 < int(p['age']) < 80 and p['sex'] in 'MF' for p in people)


def test_sidecars(dataset):
    times = []
    for echo in range(1, 6):
        name = f'sub-02/anat/sub-02_echo-{echo}_part-phase_MEGRE.json'
        about = json.loads((dataset / name).read_text())
        times.append(about['EchoTime'])
        assert about['Units'] == 'rad'
        assert about['ImagingFrequency'] == pytest.approx(127.73, abs=0.01)
        assert about['MagneticFieldStrength'] == 3.0
        assert about['MRAcquisitionType'] == '3D'
    np.testing.assert_allclose(times, [0.004, 0.010, 0.016, 0.022, 0.028])


def test_phase_on_disk_is_in_radians_and_agrees_with_the_truth(dataset):
    truth = dataset / TRUTH / 'sub-02/anat'
    mask = io.load_mask(truth / 'sub-02_desc-brain_mask.nii.gz')
    field = io.load_volume(truth / 'sub-02_desc-total_fieldmap.nii.gz')
    offset = io.load_volume(truth / 'sub-02_desc-offset_phasemap.nii.gz')
    phase = io.load_volume(dataset / 'sub-02/anat/sub-02_echo-2_part-phase_MEGRE.nii.gz')
    io.check_same_grid(field, phase)
    assert phase.data.min() >= -np.float32(np.pi)
    assert phase.data.max() < np.pi
    expected = 2 * np.pi * 127.7324 * 0.010 * field.data + offset.data
    error = np.angle(np.exp(1j * (phase.data - expected)))[mask]
    assert np.median(np.abs(error)) < 0.03


def test_head_moves_between_the_scans_as_stated(dataset):
    """The T1w head, carried back by the stated motion, lies where the gradient echo saw it."""
    stem = 'sub-01_ses-1'
    truth = dataset / TRUTH / 'sub-01/ses-1/anat'
    motion = json.loads((truth / f'{stem}_from-MEGRE_to-T1w_mode-image_xfm.json').read_text())
    motion = np.array(motion['Matrix'])
    assert np.abs(motion - np.eye(4)).max() > 0.05
    t1w = io.load_volume(dataset / f'sub-01/ses-1/anat/{stem}_T1w.nii.gz')
    # The T1w is sagittal: its axes run posterior, superior, right.
    assert nib.aff2axcodes(t1w.affine) == ('P', 'S', 'R')
    gre = io.load_volume(truth / f'{stem}_desc-truth_dseg.nii.gz')
    from scipy import ndimage

    def mean_over_white(matrix):
        index = np.argwhere(gre.data == 30).T
        place = gre.affine[:3, :3] @ index + gre.affine[:3, 3:]
        place = matrix[:3, :3] @ place + matrix[:3, 3:]
        back = np.linalg.inv(t1w.affine)
        index = back[:3, :3] @ place + back[:3, 3:]
        return ndimage.map_coordinates(t1w.data, index, order=1).mean()

    assert mean_over_white(motion) > 1.03 * mean_over_white(np.eye(4))
    assert mean_over_white(motion) > 1.03 * mean_over_white(np.linalg.inv(motion))


def test_sessions_share_the_anatomy_but_not_the_position(dataset):
    tables = [
        read_tsv(dataset / TRUTH / f'sub-01/ses-{k}/anat/sub-01_ses-{k}_desc-truth_stats.tsv')
        for k in (1, 2)
    ]
    volumes = [[float(row['volume_mm3']) for row in table[:60]] for table in tables]
    large = [pair for pair in zip(*volumes, strict=True) if min(pair) > 4000]
    assert large
    assert all(0.8 < a / b < 1.25 for a, b in large)
    first, second = (
        io.load_volume(
            dataset / f'sub-01/ses-{k}/anat/sub-01_ses-{k}_echo-1_part-mag_MEGRE.nii.gz'
        )
        for k in (1, 2)
    )
    assert not np.allclose(first.affine, second.affine)


def test_region_table_is_the_mean_of_the_truth():
    scan = small_acquisition()
    rows = {(row['name'], row['hemi']): row for row in region_truth(scan)}
    where = scan.truth['labels'] == 101
    putamen = rows['putamen', 'R']
    assert putamen['n_voxels'] == where.sum() > 20
    assert putamen['volume_mm3'] == where.sum() * 64
    assert putamen['chi_mean'] == pytest.approx(scan.truth['chi'][where].mean(), rel=1e-5)
    assert putamen['r2star_mean'] == pytest.approx(scan.truth['r2star'][where].mean(), rel=1e-5)
    # No calcification: the row is there, and empty.
    assert rows['calcification', '']['n_voxels'] == 0
    assert np.isnan(rows['calcification', '']['chi_mean'])


def test_same_seed_same_bytes(tmp_path):
    first, again = (
        write_bids(tmp_path / name, subjects=1, sessions=(1,), protocol=TINY, seed=2)
        for name in 'ab'
    )
    files = sorted(p.relative_to(first) for p in first.rglob('*') if p.is_file())
    assert len(files) > 30
    for name in files:
        assert (first / name).read_bytes() == (again / name).read_bytes(), name


def test_integer_phase(tmp_path):
    protocol = replace(TINY, phase_units='arbitrary', te=(0.005, 0.015))
    out = write_bids(tmp_path / 'x', subjects=1, sessions=(1,), protocol=protocol, truth=False)
    name = out / 'sub-01/anat/sub-01_echo-2_part-phase_MEGRE'
    image = nib.load(f'{name}.nii.gz')
    data = np.asanyarray(image.dataobj)
    assert np.issubdtype(data.dtype, np.integer)
    assert data.min() >= -4096
    assert data.max() <= 4095
    assert json.loads(Path(f'{name}.json').read_text())['Units'] == 'arbitrary'
    assert not (out / 'derivatives').exists()


def test_full_folder_is_left_alone(tmp_path):
    (tmp_path / 'mine.txt').write_text('keep')
    with pytest.raises(FileExistsError, match='not empty'):
        write_bids(tmp_path, protocol=TINY)
    assert [p.name for p in tmp_path.iterdir()] == ['mine.txt']


def test_sessions_must_fit_the_subjects(tmp_path):
    with pytest.raises(ValueError, match='sessions'):
        write_bids(tmp_path / 'x', subjects=3, sessions=(1, 1), protocol=TINY)


def test_command_line(tmp_path, capsys):
    arguments = [str(tmp_path / 'out'), '--voxel-size', '8', '--te', '5', '10', '--subjects', '1']
    assert main([*arguments, '--sessions', '1', '--small', '--field-strength', '7']) == 0
    assert 'wrote' in capsys.readouterr().out
    sidecar = tmp_path / 'out/sub-01/anat/sub-01_echo-2_part-mag_MEGRE.json'
    about = json.loads(sidecar.read_text())
    assert (about['EchoTime'], about['MagneticFieldStrength']) == (0.010, 7.0)
    assert main([*arguments, '--small']) == 2
    assert 'not empty' in capsys.readouterr().err
    assert main([str(tmp_path / 'b'), '--voxel-size', '1', '2']) == 2
    assert '--voxel-size' in capsys.readouterr().err


def test_default_protocol_is_the_demonstration():
    protocol = protocol_from(make_parser().parse_args(['out']))
    assert protocol.voxel_size == (1.0, 1.0, 1.0)
    assert protocol.te[0] == 0.004
    assert protocol.te[-1] == 0.028


def test_help_names_every_default():
    for action in make_parser()._actions:
        if isinstance(action.default, int | float) and action.nargs != 0:
            shown = action.help % vars(action)
            assert f'default: {action.default:g}' in shown, action.dest
