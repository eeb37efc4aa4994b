"""Every defect of the catalogue, and what is said of it, by whatever sees it."""

import dataclasses
import logging
import re
from pathlib import Path

import numpy as np
import pytest
from defects import DEFECTS, TE, Launch, Scan, phantom, stored
from nodes import QUICK, findings_of
from says import (
    IN_THE_MESSAGE,
    MEASURED,
    NO_FILE,
    NOTHING_TO_MEASURE,
    SAYS,
    has_number,
    read_findings,
)

from qsmflow.bids import Finding
from qsmflow.bids.catalog import FINDINGS, HANDLED
from qsmflow.bids.findings import DatasetError
from qsmflow.bids.query import collect

ROWS = {
    f'{letter}{number:02d}'
    for letter, first, last in
    (('A', 1, 27), ('B', 28, 54), ('C', 55, 76), ('D', 77, 89), ('E', 90, 110))
    for number in range(first, last + 1)
}  # fmt: skip
#: Rows that no defect makes, and why, in the words of docs/findings.md.
CANNOT_BE_HAD = {
    'E108': 'needs a file system that does not tell case apart; instead the names of all outputs '
    'of a run are compared',  # by test_surroundings.py
}
DOCUMENTED = Path(__file__).parents[2] / 'docs/findings.md'
#: Those that are made at once, for one run: see test_surroundings.py.
SINGLE = [defect for defect in DEFECTS if defect.stage != 'surroundings']


@dataclasses.dataclass(frozen=True)
class Observed:
    """What was told of a defect, and what became of the series or the run.

    ``places`` has the texts of the status table and the report.
    """

    findings: list[Finding]
    outcome: str | int
    places: dict = dataclasses.field(default_factory=dict)


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
    assert collection.exit_code == (65 if collection.failed else 0)
    return findings, outcome, collection


@pytest.fixture
def collection(dataset):
    """Return a function that reads a dataset with a defect."""

    def observe(defect):
        defect.make(dataset)
        findings, outcome, _ = run(dataset)
        return Observed(findings, outcome)

    return observe


@pytest.fixture
def node(clean_root, tmp_path, caplog):
    """Return a function that runs a step of the graph on a scan with a defect."""

    def observe(defect):
        scan = Scan()
        defect.make(scan)
        with caplog.at_level(logging.INFO, logger='qsmflow'):
            try:
                found = findings_of(defect.seen_by, scan, tmp_path, clean_root)
            except ValueError as error:
                return Observed(read_findings(str(error)), 'failed')
        findings = [Finding(**finding) for finding in found]
        for finding in findings:
            assert str(finding) in caplog.text
        return Observed(findings, 'series')

    return observe


@pytest.fixture
def program(dataset, monkeypatch, capsys):
    """Return a function that runs the command line with a defect."""

    def observe(defect):
        launch = Launch(dataset, monkeypatch)
        defect.make(launch)
        code = launch.run()
        printed = capsys.readouterr()
        text = printed.err + printed.out
        assert printed.err.rstrip().endswith((f'exit code {code}', 'exit code 2 (usage error).'))
        assert 'Traceback' not in text
        texts = {'status': 'logs/*/status.tsv', 'report': 'sub-01.html'}
        places = dict.fromkeys(texts, '')
        for name, pattern in texts.items():
            for path in launch.out.glob(pattern) if defect.told else ():
                places[name] += path.read_text(encoding='utf-8')
        return Observed(read_findings(text), code, places)

    return observe


def test_every_row_is_made():
    """At each of its levels; and only the rows without a finding are made without a level."""
    made = {(defect.code, defect.level) for defect in DEFECTS if defect.code in ROWS}
    wanted = {(code, level) for code in ROWS & set(FINDINGS) for level in FINDINGS[code].levels}
    wanted |= {(code, '') for code in HANDLED if code not in CANNOT_BE_HAD}
    assert made == wanted
    assert {code for code, _ in made} | set(CANNOT_BE_HAD) == ROWS
    assert set(SAYS) == {code for code, level in made if level}
    documented = ' '.join(DOCUMENTED.read_text(encoding='utf-8').split())
    for code, why in CANNOT_BE_HAD.items():
        assert f'{code} {why}' in documented


@pytest.mark.parametrize('defect', SINGLE, ids=lambda d: d.name)
def test_defect_is_named(request, defect):
    observed = request.getfixturevalue(defect.stage)(defect)
    listed = '\n'.join(map(str, observed.findings))
    assert observed.outcome == defect.outcome, listed
    if not defect.level:
        assert sorted((f.code, f.level) for f in set_of(observed.findings)) == CLEAN, listed
        return
    matching = [f for f in observed.findings if (f.code, f.level) == (defect.code, defect.level)]
    assert matching, listed
    assert any(defect.file in f.file for f in matching), [f.file for f in matching]
    if defect.code in ROWS:
        check_row(matching)
    for finding in observed.findings:
        assert finding.message
        assert not finding.stops or finding.remedy
    for place in defect.told:
        assert f'[{defect.level} {defect.code}]' in observed.places[place], place


CLEAN = [('ECHON', 'INFO'), ('TELAST', 'WARN')]


def set_of(findings):
    """Return findings without those that only differ in the file."""
    return list({(f.code, f.level): f for f in findings}.values())


def check_row(findings):
    """Check message, file, evidence and remedy of the findings of one row."""
    code, level = findings[0].code, findings[0].level
    assert any(re.search(SAYS[code], f.message) for f in findings), findings
    assert code in NO_FILE or all(f.file for f in findings), findings
    if (code, level) not in NOTHING_TO_MEASURE:
        assert code in IN_THE_MESSAGE or all(f.evidence for f in findings), findings
        assert code not in MEASURED or any(has_number(f.evidence) for f in findings), findings
    assert level in ('FIX', 'INFO') or all(f.remedy not in ('', '?') for f in findings), findings


def test_clean_dataset_has_no_complaint(dataset):
    findings, outcome, collection = run(dataset)
    assert outcome == 'series'
    assert sorted((f.code, f.level) for f in findings) == CLEAN
    assert collection.exit_code == 0
    (series,) = collection.series
    assert series.te == pytest.approx(TE)
    assert series.scaling.slope == 1
    assert series.scaling.intercept == 0


@pytest.mark.parametrize(('seen_by', 'given'), [*((one, True) for one in QUICK), ('mask', False)])
def test_clean_scan_has_no_complaint(clean_root, tmp_path, seen_by, given):
    scan = Scan()
    scan.given = given
    assert findings_of(seen_by, scan, tmp_path, clean_root) == []


def test_clean_launch_has_no_complaint(dataset, monkeypatch, capsys):
    assert Launch(dataset, monkeypatch).run() == 0
    printed = capsys.readouterr()
    codes = {(f.code, f.level) for f in read_findings(printed.err + printed.out)}
    assert sorted(codes) == CLEAN


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
