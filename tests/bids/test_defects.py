"""Every defect of the catalogue that can be seen before a graph exists, and what is said of it."""

import dataclasses
import re

import numpy as np
import pytest
from defects import DEFECTS, TE, phantom, stored
from says import MEASURED, SAYS, SAYS_OF_FILES, has_number

from qsmflow.bids.findings import DatasetError
from qsmflow.bids.query import collect

#: Rows of groups A and B without a defect here: A13, A14 and B41 are found while computing (see
#: test_fixed_phase_maps.py); B48 and B51 are no defects (see test_query.py).
ELSEWHERE = {'A13', 'A14', 'B41', 'B48', 'B51'}
#: Rows of the catalogue that this stage must cover. C71 is tested on its own below; E96 and E99
#: concern the output folder and are tested with it.
ROWS = [
    *sorted({f'{"A" if n < 28 else "B"}{n:02d}' for n in range(1, 55)} - ELSEWHERE),
    *('C55', 'C56', 'C57', 'C58', 'C64', 'C65', 'C67', 'C69', 'C70'),
    *('C59', 'C60', 'C61', 'C62', 'C66', 'C68', 'C72', 'C73', 'C74', 'C75', 'D77', 'D78', 'D79'),
    *('D81', 'D82', 'D83', 'D85', 'D88', 'E90', 'E91', 'E92'),
]


def run(dataset):
    """Return all findings with the outcome: series, failed or exit code."""
    try:
        collection = collect(dataset.root, **dataset.options)
    except DatasetError as error:
        return list(error.findings), error.exit_code, None
    findings = list(collection.findings)
    for series in collection.series:
        findings += series.findings
    for _, found in collection.failed:
        findings += found
    outcome = 'failed' if collection.failed else 'series'
    assert bool(collection.series) != bool(collection.failed)
    return findings, outcome, collection


def test_catalogue_is_covered():
    made = {defect.code for defect in DEFECTS}
    assert not set(ROWS) - made
    assert {code for code in made if code[0] in 'AB' and code[1:].isdigit()} == set(SAYS)
    assert {code for code in made if code[0] in 'CDE' and code[1:].isdigit()} == set(SAYS_OF_FILES)


@pytest.mark.parametrize('defect', DEFECTS, ids=lambda d: f'{d.code}-{d.label}')
def test_defect_is_named(dataset, defect):
    defect.make(dataset)
    findings, outcome, _ = run(dataset)
    assert outcome == defect.outcome, '\n'.join(map(str, findings))
    matching = [f for f in findings if f.code == defect.code and f.level == defect.level]
    assert matching, '\n'.join(map(str, findings))
    assert any(defect.file in f.file for f in matching), [f.file for f in matching]
    says = SAYS | SAYS_OF_FILES
    if defect.code in says:
        assert any(re.search(says[defect.code], f.message) for f in matching), matching
        # What is not in the dataset has nothing to be measured.
        assert all(f.evidence or f.code in ('E90', 'E91') for f in matching), matching
    if defect.code in MEASURED:
        assert any(has_number(f.evidence) for f in matching), matching
    for finding in findings:
        assert finding.message
        assert not finding.stops or finding.remedy
        assert finding.level in ('FATAL', 'ERROR') or outcome == 'series' or defect.level != 'FIX'


def test_clean_dataset_has_no_complaint(dataset):
    findings, outcome, collection = run(dataset)
    assert outcome == 'series'
    codes = sorted((f.code, f.level) for f in findings)
    assert codes == [('ECHON', 'INFO'), ('TELAST', 'WARN')]
    assert collection.exit_code == 0
    (series,) = collection.series
    assert series.te == pytest.approx(TE)
    assert series.scaling.slope == 1
    assert series.scaling.intercept == 0


PHASE_DEFECTS = [
    d for d in DEFECTS if d.level == 'FIX' and d.code in ('A01', 'A02', 'A03', 'A05', 'A06', 'A07')
]


@pytest.mark.parametrize('defect', PHASE_DEFECTS, ids=lambda d: d.label)
def test_scaled_phase_equals_clean_phase(clean_root, dataset, defect):
    """What was stored in another unit means the same radians, up to half a step of storage."""
    from qsmflow.algorithms.phase import scale_to_radians
    from qsmflow.io import load_echoes

    defect.make(dataset)
    _, _, collection = run(dataset)
    (series,) = collection.series
    found = scale_to_radians(load_echoes(list(series.phase)).data, series.scaling)
    error = np.angle(np.exp(1j * (found - phantom()[1])))
    half_step = 0.51 * abs(series.scaling.slope) * (2 if 'symmetric' in defect.label else 1)
    assert np.abs(error).max() <= max(half_step, 1e-3)
    raw = load_echoes(list(series.phase)).data
    assert series.scaling.raw_min == pytest.approx(float(raw.min()))
    assert series.scaling.raw_max == pytest.approx(float(raw.max()))


@pytest.mark.parametrize(
    'label', ['echo_time_in_ms', 'echo_time_text', 'echo_time_of_magnitude', 'echoes_in_4d',
              'echo_time_in_header', 'field_in_gauss', 'field_in_millitesla', 'affine_rounding']
)  # fmt: skip
def test_fixed_series_equals_clean_series(clean_root, dataset, label):
    """A defect that is fixed leaves no trace in what the graph gets."""
    next(d for d in DEFECTS if d.label == label).make(dataset)
    _, _, collection = run(dataset)
    (clean,) = collect(clean_root).series
    (series,) = collection.series
    assert series.te == pytest.approx(clean.te)
    assert series.field_strength == pytest.approx(clean.field_strength)
    assert series.f0 == pytest.approx(clean.f0)
    np.testing.assert_allclose(series.affine, clean.affine)
    assert series.scaling == clean.scaling


def test_every_finding_can_be_written_as_json(dataset):
    import json

    for defect in [d for d in DEFECTS if d.code.startswith('A')][:20:4]:
        defect.make(dataset)
    findings, _, _ = run(dataset)
    for finding in findings:
        assert json.loads(json.dumps(finding.as_dict())) == finding.as_dict()


def test_scaling_of_range_over_all_echoes(dataset):
    """The first echo alone does not reach the ends: only together do they fit the rule."""
    dataset.scale_phase(stored, np.uint16)
    path = dataset.image(1)
    dataset.rewrite(path, lambda p: np.clip(p, 1500, 2500))
    (series,) = collect(dataset.root).series
    assert series.scaling.raw_min < 10
    assert series.scaling.raw_max > 4085


def test_frozen(dataset):
    (series,) = collect(dataset.root).series
    with pytest.raises(dataclasses.FrozenInstanceError):
        series.te = (1.0,)
