"""What is found while computing: each row made from a clean scan, with its code where it belongs.

Rows C75, D79, D80, D84, D86, D87, D88 and D89 cannot be seen before the run.
"""

import json
import logging

import numpy as np
import pytest

from qsmflow import io, registration
from qsmflow.algorithms import get_method
from qsmflow.bids.catalog import FINDINGS as KNOWN
from qsmflow.interfaces.anatomy import BrainExtraction, RegisterToT1w
from qsmflow.interfaces.bids import DerivativesSink, MergeFields
from qsmflow.interfaces.checks import CombineChecks
from qsmflow.interfaces.field import FieldFit
from qsmflow.interfaces.findings import FINDINGS
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


def test_clean_scan_has_no_complaint(brain, mask_info):
    assert codes(mask_info(brain).info) == []
    assert codes(mask_info(brain, given=False).info) == []


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


def test_mask_at_the_border(brain, mask_info):
    widened = brain | (np.indices(brain.shape)[2] < 12) & brain.any(axis=2, keepdims=True)
    found = mask_info(widened).info[FINDINGS]
    assert [(f['code'], f['level']) for f in found][:1] == [('D80', 'WARN')]
    assert found[0]['evidence']['border_share'] > 0.05


def test_empty_mask_names_its_row(brain, mask_info):
    with pytest.raises(ValueError, match=r'\[ERROR D79\] mask_in.*is empty.*--mask'):
        mask_info(brain & False)


def test_mask_that_was_found_and_is_too_small(brain, mask_info):
    tiny = np.zeros_like(brain)
    tiny[tuple(slice(n - 2, n + 3) for n in np.argwhere(brain).mean(axis=0).astype(int))] = True
    assert ('D79', 'WARN') in codes(mask_info(tiny, given=False).info)


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


def test_not_an_adult(extract):
    out = extract(420.0, passed=False, reasons=['a volume of 420 ml is outside 700 to 2200 ml'])
    assert codes(out.info) == [('D89', 'WARN')]
    assert out.info[FINDINGS][0]['evidence']['volume_ml'] == 420.0
    assert '--mask' in out.info[FINDINGS][0]['remedy']


def test_slab(extract):
    assert codes(extract(600.0, coverage=0.45).info) == [('C75', 'WARN')]


# ---- Registration, regions, echoes ----------------------------------------------------------


def test_failed_registration_goes_to_report_and_table(scan, files, save, run, tmp_path):
    noise = np.random.default_rng(0).normal(500, 100, scan.truth['mask'].shape)
    out = run(
        RegisterToT1w(
            in_file=files.first, in_mask=files.mask, t1w=save('t1w', noise), resolution=8.0,
            starts=['center_of_mass', 'center_of_grid'],
        )
    )  # fmt: skip
    assert not out.check['passed']
    assert codes(out.check) == [('D84', 'WARN')]
    assert out.check[FINDINGS][0]['evidence']['starts'] == 2
    both = CombineChecks(first=out.check, second={**out.check, 'passed': True}).run().outputs.check
    assert [f['code'] for f in both[FINDINGS]] == ['D84', 'D84']
    assert all(FINDINGS not in step for step in both['steps'])
    dictionary = regions(scan, files, save, run, tmp_path, registration=out.check)
    assert [f['code'] for f in dictionary['Warnings']] == ['D84']


def regions(scan, files, save, run, tmp_path, shift=0, **inputs):
    """Tabulate one region, which may lie partly outside the mask, and return the dictionary."""
    labels = np.zeros(scan.truth['mask'].shape, int)
    inside = np.argwhere(scan.truth['mask'])
    x, y, z = inside.mean(axis=0).round().astype(int)
    edge = inside[(inside[:, 1] == y) & (inside[:, 2] == z)][:, 0].min()
    x = edge if shift else x
    labels[x - 3 : x + 3, y - 2 : y + 3, z - 2 : z + 2] = 1
    path = save('mine_dseg', labels)
    (tmp_path / 'mine_dseg.tsv').write_text('index\tname\themi\n1\tbox\tL\n')
    out = run(
        RegionStatistics(labels=path, atlas=path, mask=files.mask, chimap=files.chi, **inputs)
    )
    with open(out.dictionary, encoding='utf-8') as stream:
        return json.load(stream)


def test_region_partly_outside(scan, files, save, run, tmp_path, caplog):
    assert 'Warnings' not in regions(scan, files, save, run, tmp_path)
    with caplog.at_level(logging.WARNING):
        dictionary = regions(scan, files, save, run, tmp_path, shift=1)
    (finding,) = dictionary['Warnings']
    assert (finding['code'], finding['level']) == ('D87', 'WARN')
    assert 0.3 < finding['evidence']['coverage']['box_L'] < 0.8
    assert '[WARN D87]' in caplog.text


def test_echoes_that_do_not_fit_together(scan, files, save, run, brain):
    arguments = (scan.magnitude, brain, scan.voxel_size)
    unwrapped = get_method('unwrapping', 'romeo')(scan.phase, *arguments, te=scan.te)

    def fit(phase):
        return run(
            FieldFit(
                unwrapped_phase=save('unwrapped', phase), magnitude=files.magnitude,
                mask=files.mask, te=list(scan.te), f0=scan.f0,
            )
        ).info  # fmt: skip

    assert codes(fit(unwrapped)) == []
    rng = np.random.default_rng(0)
    moved = unwrapped.copy()
    where = brain & (rng.random(brain.shape) < 0.08)
    moved[where, 1] += np.float32(1.8)
    assert codes(fit(moved)) == [('D88', 'WARN')]


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
