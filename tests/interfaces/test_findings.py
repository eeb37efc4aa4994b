"""What is found while computing: the numbers that it rests on, and the way it goes.

That each row is told, and nothing of a clean scan, is tested with the other rows of the catalogue
(tests/bids/test_defects.py).
"""

import json
import logging

import numpy as np
import pytest

from qsmflow import io, registration
from qsmflow.bids.catalog import FINDINGS as KNOWN
from qsmflow.interfaces.anatomy import BrainExtraction
from qsmflow.interfaces.bids import DerivativesSink, MergeFields
from qsmflow.interfaces.checks import CombineChecks
from qsmflow.interfaces.findings import FINDINGS, registration_findings, with_findings
from qsmflow.interfaces.masking import MaskRefinement
from qsmflow.interfaces.tables import RegionStatistics


@pytest.fixture
def brain(scan):
    return scan.truth['mask'].copy()


@pytest.fixture
def mask_info(scan, files, save, run):
    """Return a function that gives what is told of a mask and of a magnitude."""

    def start(mask, magnitude=None, given=True):
        image = files.magnitude if magnitude is None else save('changed', magnitude)
        return run(
            MaskRefinement(
                mask=save('mask_in', mask), phase=files.phase, magnitude=image, te=list(scan.te),
                refine=not given, info={'method': 'given' if given else 'registration'},
            )
        )  # fmt: skip

    return start


def codes(info):
    """Return code and level of each finding, and check that it is documented and complete."""
    for finding in info.get(FINDINGS, []):
        assert finding['level'] in KNOWN[finding['code']].levels
        assert finding['evidence']
        assert finding['level'] == 'FIX' or finding['remedy']
    return [(finding['code'], finding['level']) for finding in info.get(FINDINGS, [])]


def test_islands_and_holes_are_mended(brain, mask_info, check, caplog):
    centre = tuple(np.argwhere(brain).mean(axis=0).astype(int))
    damaged = brain.copy()
    damaged[centre] = False
    damaged[0, 0, 0] = True
    with caplog.at_level(logging.WARNING):
        out = mask_info(damaged)
    assert codes(out.info) == [('D80', 'FIX')]
    check(out.mask, brain)
    evidence = out.info[FINDINGS][0]['evidence']
    assert (evidence['islands_removed'], evidence['holes_filled']) == (1, 1)
    assert evidence['changed_ml'] == pytest.approx(2 * 0.216, abs=1e-3)
    assert out.info[FINDINGS][0]['file'].startswith('mask_in')
    assert '[FIX D80] mask_in' in caplog.text


def test_large_parts_and_holes_are_kept(brain, mask_info, check):
    damaged = brain.copy()
    centre = np.argwhere(brain).mean(axis=0).astype(int)
    hole = tuple(slice(n - 1, n + 2) for n in centre)
    damaged[hole] = False
    damaged[0:3, 0:3, 0:3] = True
    out = mask_info(damaged)
    assert ('D80', 'WARN') in codes(out.info)
    check(out.mask, damaged)
    evidence = out.info[FINDINGS][0]['evidence']
    assert (evidence['parts'], evidence['holes']) == (2, 1)
    assert evidence['holes_ml'] == pytest.approx(27 * 0.216, abs=0.01)


def test_signal_void_in_the_brain(scan, brain, mask_info):
    """Metal: a ball of 2.6 cm without signal; single dark voxels are not told."""
    magnitude = scan.magnitude.copy()
    centre = np.argwhere(brain).mean(axis=0).astype(int)
    magnitude[tuple(centre)] = 0
    assert codes(mask_info(brain, magnitude).info) == []
    distance = np.linalg.norm(np.indices(brain.shape).T - centre, axis=-1).T
    magnitude[distance < 2.2] = 0
    found = mask_info(brain, magnitude, given=False).info[FINDINGS]
    (finding,) = found
    assert finding['code'] == 'D86'
    expected = np.count_nonzero((distance < 2.2) & brain) * 0.216
    assert finding['evidence']['void_ml'] == pytest.approx(expected, rel=0.3)
    assert 0 < finding['evidence']['fraction'] < 0.02


# ---- The brain is found ---------------------------------------------------------------------


@pytest.fixture
def extract(scan, files, run, monkeypatch):
    """Return a function that gives what is told when the extraction ends in some way."""

    def start(volume_ml, **info):
        mask = np.zeros(scan.truth['mask'].shape, bool)
        mask[:2, :2, :2] = True
        facts = {'method': 'registration', 'score': 0.5, 'coverage': 1.0, 'reasons': []}
        facts |= {'passed': True, 'volume_ml': volume_ml, **info}
        monkeypatch.setattr(registration, 'extract_brain', lambda image, **_: (mask, facts))
        return run(BrainExtraction(in_file=files.first))

    return start


def test_extraction_that_passed_says_nothing(extract):
    assert codes(extract(1300.0).info) == []


@pytest.mark.parametrize('volume_ml', [1.7, 5000.0])
def test_useless_mask_is_replaced_by_the_object(extract, scan, volume_ml):
    out = extract(volume_ml, passed=False, score=0.05, reasons=['similarity 0.05 is below 0.20'])
    assert codes(out.info) == [('D79', 'WARN'), ('D89', 'WARN')]
    assert out.info['method'] == 'object'
    assert out.info['replaced'] == 'registration'
    found = io.load_volume(out.brain_mask).data > 0.5
    truth = scan.truth['mask']
    assert np.count_nonzero(found & truth) / np.count_nonzero(truth) > 0.9


# ---- Registration ---------------------------------------------------------------------------


def test_failed_registration_goes_to_report_and_table(scan, files, save, run, tmp_path):
    check = {'passed': False, 'score': 0.1, 'reasons': ['similarity'], 'attempts': {'one': 0.1}}
    check['target'] = 'T1w'
    check = with_findings(check, registration_findings(check, ('GRE', 'T1w')), 'register')
    assert codes(check) == [('D84', 'WARN')]
    both = CombineChecks(first=check, second={**check, 'passed': True}).run().outputs.check
    assert [f['code'] for f in both[FINDINGS]] == ['D84', 'D84']
    assert all(FINDINGS not in step for step in both['steps'])
    dictionary = regions(scan, files, save, run, tmp_path, registration=check)
    assert [f['code'] for f in dictionary['Warnings']] == ['D84']


def regions(scan, files, save, run, tmp_path, **inputs):
    """Tabulate one region, and return the dictionary."""
    labels = np.zeros(scan.truth['mask'].shape, int)
    x, y, z = np.argwhere(scan.truth['mask']).mean(axis=0).round().astype(int)
    labels[x - 3 : x + 3, y - 2 : y + 3, z - 2 : z + 2] = 1
    path = save('mine_dseg', labels)
    (tmp_path / 'mine_dseg.tsv').write_text('index\tname\themi\n1\tbox\tL\n')
    out = run(
        RegionStatistics(labels=path, atlas=path, mask=files.mask, chimap=files.chi, **inputs)
    )
    with open(out.dictionary, encoding='utf-8') as stream:
        return json.load(stream)


# ---- Where they go --------------------------------------------------------------------------


def test_findings_are_lifted_into_the_sidecar(files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told = {'code': 'D80', 'level': 'FIX', 'message': 'x'}
    merge = MergeFields(fields=['Mask', 'Reference'], lift='Warnings')
    merge.inputs.Mask = {'method': 'given', FINDINGS: [told]}
    merge.inputs.Reference = {'mean': 0.0}
    details = merge.run().outputs.out
    assert details['Mask'] == {'method': 'given'}
    before = {'code': 'B36', 'level': 'FIX', 'message': 'y'}
    DerivativesSink(
        in_file=files.chi, out_dir=str(tmp_path), path='a_Chimap.nii.gz', details=details,
        metadata={'Units': 'ppm', 'Warnings': [before]},
    ).run()  # fmt: skip
    sidecar = json.loads((tmp_path / 'a_Chimap.json').read_text())
    assert [f['code'] for f in sidecar['Warnings']] == ['B36', 'D80']
