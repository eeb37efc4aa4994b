"""Which series are taken for orientations of one head, and what is said of them."""

import dataclasses

import pytest
from defects import write_series

from qsmflow.bids import collect, render_plan
from qsmflow.bids.orientations import orientation_groups, with_orientations


@pytest.fixture
def template(clean_root):
    return collect(clean_root).series[0]


@pytest.fixture
def made(template):
    """Return a function that makes series of these names."""

    def make(*names):
        return [
            dataclasses.replace(
                template,
                subject=name.split('_')[0].removeprefix('sub-'),
                entities=tuple(tuple(part.split('-')) for part in name.split('_')),
            )
            for name in names
        ]

    return make


def summary(groups):
    return {group.name.removesuffix('_desc-cosmos'): len(group.series) for group in groups}


@pytest.mark.parametrize(
    ('names', 'expected'),
    [
        (['sub-1_run-1', 'sub-1_run-2', 'sub-1_run-3'], {'sub-1': 3}),
        (['sub-1_acq-a', 'sub-1_acq-b', 'sub-1_acq-c', 'sub-1'], {'sub-1': 4}),
        (['sub-1_acq-a_run-1', 'sub-1_acq-b_run-1', 'sub-1_acq-c_run-1'], {'sub-1_run-1': 3}),
        (['sub-1_acq-a_run-1', 'sub-1_acq-a_run-2', 'sub-1_acq-b_run-3'], {'sub-1': 3}),
        (
            [*(f'sub-1_acq-a_run-{n}' for n in '1234'), 'sub-1_acq-b_run-1', 'sub-1_acq-b_run-2'],
            {'sub-1_acq-a': 4, 'sub-1_acq-b': 2},
        ),
        (
            [f'sub-1_ses-{s}_run-{n}' for s in 'ab' for n in '123'],
            {'sub-1_ses-a': 3, 'sub-1_ses-b': 3},
        ),
        (['sub-1_rec-x', 'sub-1_rec-y'], {'sub-1_rec-x': 1, 'sub-1_rec-y': 1}),
        (['sub-1_run-1', 'sub-1_run-2', 'sub-2_run-1'], {'sub-1': 2, 'sub-2_run-1': 1}),
    ],
)
def test_groups(made, names, expected):
    groups = orientation_groups(made(*names))
    assert summary(groups) == expected
    assert [group.enough for group in groups] == [number >= 3 for number in expected.values()]


def test_order_is_kept_and_the_first_gives_the_grid(made):
    (group,) = orientation_groups(made('sub-1_run-2', 'sub-1_run-1', 'sub-1_run-3'))
    assert [item.name for item in group.series] == ['sub-1_run-2', 'sub-1_run-1', 'sub-1_run-3']


def test_scans_without_magnitude_do_not_count(made):
    series = made('sub-1_run-1', 'sub-1_run-2', 'sub-1_run-3', 'sub-1_run-4')
    series[1] = dataclasses.replace(series[1], magnitude=())
    (group,) = orientation_groups(series)
    assert group.enough
    assert [item.name for item in group.left_out] == ['sub-1_run-2']
    (group,) = orientation_groups(series[:3])
    assert not group.enough


@pytest.mark.parametrize(
    ('runs', 'level', 'words'),
    [
        ((1, 2), 'WARN', 'there is no COSMOS map'),
        ((1, 2, 3), 'INFO', '3 series are combined in sub-01_desc-cosmos_Chimap'),
    ],
)
def test_plan_says_what_becomes_of_the_orientations(dataset, runs, level, words):
    for path in dataset.anat('01').iterdir():
        path.unlink()
    for run in runs:
        write_series(dataset, extra=f'_run-{run}')
    collection = with_orientations(collect(dataset.root))
    for series in collection.series:
        (finding,) = [item for item in series.findings if item.code == 'ORIN']
        assert finding.level == level
        assert words in finding.message
        assert finding.evidence['series'] == [f'sub-01_run-{run}' for run in runs]
    text = render_plan(collection)
    assert text.count(f'[{level} ORIN] {words}') == len(runs)
