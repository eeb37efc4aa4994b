import csv
import json
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from qsmflow.bids import collect
from qsmflow.cli.run import main
from tests.realdata import real_data

BIN = Path(sys.executable).parent
#: Labels that a region table of CIT168 is made of; all of them must be placed.
SMALL = {'habenula', 'mammillary', 'extended_amygdala', 'STN', 'ventral_pallidum'}


@pytest.mark.slow
@pytest.mark.realdata
def test_a_real_head_with_two_short_echoes(tmp_path):
    dataset, out = real_data('philips-3t-gre') / 'bids', tmp_path / 'out'
    arguments = [str(dataset), str(out), 'participant', '-w', str(tmp_path / 'work')]
    assert main([*arguments, '--nprocs', '2']) == 0
    summary = json.loads(
        (out / 'sub-01/figures/sub-01_desc-summary_report.json').read_text(encoding='utf-8')
    )
    assert 1200 < summary['mask']['volume_ml'] < 1700
    assert summary['registration']['passed']
    assert summary['sign']['Sign'] == 1
    codes = {finding['code'] for finding in summary['findings']}
    assert {'TELAST', 'ECHON', 'D81'} <= codes
    path = out / 'sub-01/anat/sub-01_atlas-CIT168_stats.tsv'
    with path.open(encoding='utf-8', newline='') as stream:
        chi = {
            (row['region'], row['hemi']): row
            for row in csv.DictReader(stream, delimiter='\t')
            if row['map'] == 'chi'
        }
    assert {region for region, _ in chi} >= SMALL
    assert all('empty' not in row['qc'] for row in chi.values())
    # Iron-rich nuclei stand out, in the order that is known of adults.
    mean = {key: float(row['mean']) for key, row in chi.items()}
    for side in 'LR':
        assert mean['pallidum', side] > mean['putamen', side] > 20
        assert mean['substantia_nigra', side] > 50
        assert mean['dentate', side] > 50
    validated = subprocess.run(
        [BIN / 'bids-validator-deno', out], capture_output=True, check=False
    )
    assert validated.returncode == 0, validated.stdout.decode()
    page = (out / 'sub-01.html').read_text(encoding='utf-8')
    assert 'The last echo is early' in page


def _told(series) -> set[str]:
    """Return the codes of groups A and B that speak against a series."""
    found = {finding.code for finding in series.findings if finding.level != 'INFO'}
    return {code for code in found if code[0] in 'AB' and code[1:].isdigit()}


@pytest.mark.realdata
def test_checks_of_the_phase_find_nothing_in_a_good_scan():
    (series,) = collect(real_data('philips-3t-gre') / 'bids').series
    assert not _told(series)


@pytest.mark.realdata
def test_checks_of_the_phase_find_nothing_in_a_crop_at_7_t(tmp_path):
    """There is no air in it, and its stored phase has a scale of its own."""
    folder = real_data('romeo-7t-crop')
    magnitude, phase = (nib.load(folder / f'small_{part}.nii.gz') for part in ('Mag', 'Phase'))
    anat = tmp_path / 'sub-01/anat'
    anat.mkdir(parents=True)
    description = {'Name': 'crop', 'BIDSVersion': '1.11.1'}
    (tmp_path / 'dataset_description.json').write_text(json.dumps(description))
    sidecar = {'MagneticFieldStrength': 7, 'MRAcquisitionType': '3D', 'Units': 'arbitrary'}
    for echo, te in enumerate((0.004, 0.008, 0.012)):
        for part, image in (('mag', magnitude), ('phase', phase)):
            stem = anat / f'sub-01_echo-{echo + 1}_part-{part}_MEGRE'
            data = np.asanyarray(image.dataobj)[..., echo]
            one = nib.Nifti1Image(data, image.affine)
            one.set_sform(image.affine, code=1)
            nib.save(one, f'{stem}.nii.gz')
            Path(f'{stem}.json').write_text(json.dumps({**sidecar, 'EchoTime': te}))
    ((_, findings),) = collect(tmp_path).failed
    assert 'A09' in {finding.code for finding in findings}, 'the scale is not guessed'
    top = float(np.abs(np.asanyarray(phase.dataobj)).max())
    (series,) = collect(tmp_path, phase_scale=str(np.pi / top)).series
    assert not _told(series)
