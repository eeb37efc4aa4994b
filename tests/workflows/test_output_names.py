"""Every file of a run has a name of its own, whatever entities the names of the input have."""

import itertools
from dataclasses import replace

import pytest

from qsmflow.bids.names import ENTITY_ORDER, is_bids_name, parse_name
from qsmflow.bids.precomputed import Precomputed, Segmentation
from qsmflow.bids.series import KEPT_ENTITIES
from qsmflow.interfaces.bids import DerivativesSink
from qsmflow.settings import OutputSettings, Settings
from qsmflow.workflows.base import init_subject_wf
from tests.workflows.graphs import SERIES

LABELS = {
    'ses': 'pre', 'task': 'rest', 'acq': 'x', 'ce': 'gad', 'rec': 'y', 'run': '02', 'chunk': '1',
}  # fmt: skip
OPTIONAL = [key for key in KEPT_ENTITIES if key != 'sub']
#: Suffixes for which BIDS has no rule yet.
UNKNOWN = {'stats', 'xfm', 'fieldmap', 'figure', 'report'}
SETTINGS = Settings(outputs=OutputSettings(output_spaces=('T1w', 'MNI152NLin2009cAsym')))
#: Any file that is there: a graph does not read it.
SEGMENTATION = Segmentation(__file__, 'bids:fs:sub-01/mri/aseg.mgz', 'aseg', 'aseg')


def outputs(*entities):
    """Return all paths that the graph of a series with these entities would write."""
    series = replace(
        SERIES,
        entities=(('sub', '01'), *((key, LABELS[key]) for key in entities)),
        session=LABELS['ses'] if 'ses' in entities else None,
        precomputed=Precomputed(segmentations=(SEGMENTATION,)),
    )
    workflow = init_subject_wf(series=[series], settings=SETTINGS, out_dir='/nowhere/out')
    nodes = (workflow.get_node(name) for name in workflow.list_node_names())
    return [n.interface.inputs.path for n in nodes if isinstance(n.interface, DerivativesSink)]


def stripped(path):
    """Return a path without the optional entities of its source."""
    folder, _, name = path.rpartition('/')
    for key in OPTIONAL:
        folder = folder.replace(f'/{key}-{LABELS[key]}', '')
        name = name.replace(f'_{key}-{LABELS[key]}_', '_')
    return f'{folder}/{name}'


@pytest.fixture(scope='module')
def bare():
    return outputs()


def test_all_kinds_of_outputs_are_among_them(bare):
    suffixes = {path.rpartition('_')[2].partition('.')[0] for path in bare}
    assert suffixes == UNKNOWN | {
        *('Chimap', 'R2starmap', 'T2starmap', 'S0map', 'mask', 'dseg'),
    }
    assert any('atlas-aseg' in path for path in bare)


@pytest.mark.parametrize('entities', [*((key,) for key in OPTIONAL), tuple(OPTIONAL)])
def test_each_output_with_and_without_each_optional_entity(bare, entities):
    found = outputs(*entities)
    assert len(set(found)) == len(found)
    # The outputs of the T1w image are named after that, which has none of these entities.
    of_t1w = [path for path in found if path in bare]
    assert {path.partition('sub-01_')[2].split('_')[0] for path in of_t1w} <= {
        'space-T1w', 'from-T1w', 'from-MNI152NLin2009cAsym',
    }  # fmt: skip
    for path in set(found) - set(of_t1w):
        name = path.rpartition('/')[2]
        for key in entities:
            assert f'_{key}-{LABELS[key]}_' in name
        if 'ses' in entities and '/figures/' not in path:
            assert path.startswith('sub-01/ses-pre/')
        own = [key for key in parse_name(name)[0] if key in ENTITY_ORDER]
        assert own == sorted(own, key=ENTITY_ORDER.index), name
    assert sorted(map(stripped, found)) == sorted(bare)


def test_no_two_series_share_an_output():
    found = [set(outputs(*entities)) for entities in [(), *((key,) for key in OPTIONAL)]]
    shared = {
        path
        for one, other in itertools.combinations(found, 2)
        for path in one & other
        if not any(word in path for word in ('space-T1w_desc-brain', 'from-T1w', 'to-T1w'))
    }
    assert not shared


@pytest.mark.parametrize('entities', [(), ('ses', 'acq', 'run'), ('ses', 'acq', 'ce', 'rec')])
def test_names_are_those_of_bids_where_it_has_a_rule(entities):
    for path in outputs(*entities):
        suffix = path.rpartition('_')[2].partition('.')[0]
        if suffix in UNKNOWN or not path.endswith('.nii.gz'):
            continue
        folder, _, name = path.rpartition('/')
        plain = {k: v for k, v in parse_name(name)[0].items() if k in ('sub', 'ses', 'acq', 'run')}
        assert plain['sub'] == '01'
        if suffix in ('Chimap', 'R2starmap', 'T2starmap', 'S0map') and 'space-' not in name:
            assert is_bids_name(f'{folder}/{name}'), path
