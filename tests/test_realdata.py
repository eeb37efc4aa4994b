import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

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
