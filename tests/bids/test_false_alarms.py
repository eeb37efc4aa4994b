"""What is fine is not complained of: a simulated head, and a scan of a volunteer."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from realdata import real_data

from qsmflow.bids import collect


def codes(root):
    """Return the codes of groups C, D and E, and of the rules on magnitudes, that are told."""
    collection = collect(root)
    (series,) = collection.series
    findings = [*collection.findings, *series.findings]
    told = {finding.code for finding in findings}
    rows = {code for code in told if code[0] in 'CDE' and code[1:].isdigit()}
    return rows | (told & {'MAGTE', 'SAT'})


def test_simulated_head(phantom):
    """Its voxels of 4 mm are told, and nothing else."""
    assert codes(phantom) == {'C73'}


def test_volunteer():
    """Oblique, the vertex cut by the field of view, no T1w image: all three are so."""
    assert codes(real_data('philips-3t-gre') / 'bids') == {'C69', 'C75', 'D81'}
