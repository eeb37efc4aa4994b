"""A small subject: figures, tables and summaries as the graph leaves them behind."""

import json

import numpy as np
import pytest

from qsmflow import tables
from qsmflow.report import figures

SERIES = 'sub-01_ses-1_run-1'
METHODS = (
    'Phase was unwrapped by *region growing* [@dymerska2021].\n\n'
    'Susceptibility was estimated with TV [@bilgic2014tv; @milovic2019].'
)


def make_rows(shift=0.0):
    """Return region statistics in ppm and 1/s, one region empty."""
    rows = []
    # The dentate's right side is empty: such a row must survive as n/a.
    for i, region in enumerate(('caudate', 'GPe', 'dentate')):
        for hemi in 'LR':
            for name, value, spread in (('chi', 0.05 * (i + 1), 0.01), ('R2star', 20.0 + i, 2.0)):
                empty = region == 'dentate' and hemi == 'R'
                mean = np.nan if empty else value * (1 + shift)
                row = {'region': region, 'hemi': hemi, 'kind': 'region', 'map': name}
                row |= {'n_voxels': 200, 'volume_mm3': 200.0, 'coverage': 1.0, 'qc': 'ok'}
                row |= {'mean': mean, 'median': mean, 'sd': spread, 'difference': 0.005}
                row |= {'p5': mean - 2 * spread, 'p25': mean - spread}
                row |= {'p75': mean + spread, 'p95': mean + 2 * spread}
                if empty:
                    row |= {'n_voxels': 0, 'coverage': 0.0, 'qc': 'empty'}
                    row |= {'sd': np.nan, 'difference': np.nan}
                rows.append({**row, 'reference': 'whole_brain'})
    return rows


def _write_series(out_dir, series, *, shift=0.0, session=None, draw=False, **summary):
    """Write what the graph of one series leaves behind."""
    subject = series.split('_')[0]
    figure_dir = out_dir / subject / 'figures'
    anat = out_dir / subject / (f'ses-{session}' if session else '') / 'anat'
    figure_dir.mkdir(parents=True, exist_ok=True)
    tables.write_stats(make_rows(shift), anat / f'{series}_atlas-CIT168_stats.tsv')
    if draw:
        image = figures.three_planes(np.zeros((8, 8, 8)), np.eye(4), window=(-1, 1), n_slices=1)
        for name in ('magnitude_MEGRE', 'chi_Chimap', 'r2star_R2starmap'):
            (figure_dir / f'{series}_desc-{name}.png').write_bytes(image)
        (figure_dir / f'{series}_atlas-CIT168_desc-outlines_Chimap.png').write_bytes(image)
    content = {'series': series, **summary}
    (figure_dir / f'{series}_desc-summary_report.json').write_text(json.dumps(content))


@pytest.fixture
def write_series():
    """Return the function that writes a series."""
    return _write_series


@pytest.fixture
def subject(tmp_path):
    """A folder of derivatives with one subject and one rich series."""
    _write_series(
        tmp_path,
        SERIES,
        session='1',
        draw=True,
        sources=['bids:raw:sub-01/anat/x.nii.gz'],
        acquisition={
            'MagneticFieldStrength': 3.0,
            'EchoTime': [0.004, 0.010, 0.016],
            'VoxelSize': [1.0, 1.0, 1.2],
        },
        findings=[
            {
                'code': 'A03',
                'level': 'FIX',
                'message': 'Phase was scaled.',
                'file': 'sub-01/anat/sub-01_part-phase_MEGRE.nii.gz',
            },
            {'code': 'C21', 'level': 'WARN', 'message': '<b>Short</b> echo.', 'remedy': 'Look.'},
        ],
        mask={'method': 'template', 'volume_ml': 1400.0},
        reference={'region': 'whole_brain', 'mean': -0.004, 'sd': 0.03, 'n': 1000},
        registration={'passed': True, 'score': 0.9},
        methods=METHODS,
        parameters={'inversion': {'method': 'tv', 'reg_weight': 1.5e-4}},
        versions={'qsmflow': '0'},
    )
    return tmp_path
