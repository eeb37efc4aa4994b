"""Names, sidecars and dataset files of the output, judged by the official validator."""

import fnmatch
import itertools
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from defects import write_image, write_json, write_series

from qsmflow.bids import derivatives
from qsmflow.bids.derivatives import derivative_path, io_spec, resolve, sidecar
from qsmflow.bids.names import ENTITY_ORDER, parse_name
from qsmflow.bids.query import collect
from qsmflow.workflows import cosmos

OPTIONAL = {
    **{'ses': '1', 'task': 'rest', 'acq': 'x', 'ce': 'gad', 'rec': 'y', 'run': '2', 'echo': '1'},
    **{'part': 'mag', 'space': 'T1w', 'chunk': '1', 'atlas': 'A', 'seg': 'B', 'res': '1'},
    **{'label': 'L', 'desc': 'z'},
}


@pytest.fixture
def series(clean_root):
    return collect(clean_root).series[0]


def validate(root: Path) -> list[str]:
    """Run the official validator and return its errors."""
    beside_python = Path(sys.executable).parent / 'bids-validator-deno'
    command = [
        shutil.which('bids-validator-deno') or str(beside_python),
        str(root),
        '--format',
        'json',
        '--ignoreWarnings',
    ]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    issues = json.loads(result.stdout)['issues']['issues']
    found = [f'{i["code"]} {i.get("location", "")} {i.get("subCode", "")}' for i in issues]
    assert (result.returncode == 0) == (not found)
    return found


# ---- Paths ----------------------------------------------------------------------------------


def tokens_of(path):
    return [token.partition('-')[0] for token in path.rpartition('/')[2].split('_')[:-1]]


@pytest.mark.parametrize('kind', sorted(io_spec()['patterns']))
def test_pattern_with_and_without_each_optional_entity(kind):
    spec = io_spec()
    pattern = spec['patterns'][kind].replace('{source}', spec['source'])
    required = {'sub': '01', 'suffix': 'Chimap', 'extension': '.nii.gz', 'datatype': 'anat'}
    required |= {'from': 'T1w', 'to': 'GRE'}
    optional = set(re.findall(r'{(\w+)}', pattern)) - set(required)
    for entity in sorted(optional):
        without = resolve(pattern, required)
        with_it = resolve(pattern, {**required, entity: OPTIONAL[entity]})
        assert f'_{entity}-' not in without
        assert f'_{entity}-{OPTIONAL[entity]}' in with_it
        assert '[' not in with_it + without
        assert ']' not in with_it + without
    full = resolve(pattern, {**required, **OPTIONAL})
    placed = [entity for entity in tokens_of(full) if entity in ENTITY_ORDER]
    assert placed == sorted(placed, key=ENTITY_ORDER.index)
    assert '//' not in full


def test_required_entity_is_named():
    with pytest.raises(ValueError, match='needs sub'):
        derivative_path({'ses': '1'}, suffix='Chimap')


@pytest.mark.parametrize(
    ('keywords', 'expected'),
    [
        ({'suffix': 'Chimap'}, 'sub-01/anat/sub-01_Chimap.nii.gz'),
        ({'suffix': 'mask', 'desc': 'brain'}, 'sub-01/anat/sub-01_desc-brain_mask.nii.gz'),
        (
            {'suffix': 'stats', 'extension': '.tsv', 'atlas': 'CIT168'},
            'sub-01/anat/sub-01_atlas-CIT168_stats.tsv',
        ),
        (
            {'suffix': 'xfm', 'extension': '.h5', 'from_': 'T1w', 'to': 'GRE'},
            'sub-01/anat/sub-01_from-T1w_to-GRE_mode-image_xfm.h5',
        ),
        (
            {'suffix': 'Chimap', 'extension': '.svg', 'kind': 'figure', 'desc': 'three'},
            'sub-01/figures/sub-01_desc-three_Chimap.svg',
        ),
        ({'suffix': 'fieldmap', 'desc': 'total'}, 'sub-01/fmap/sub-01_desc-total_fieldmap.nii.gz'),
        (
            {'suffix': 'T2starw', 'part': 'mag', 'desc': 'combined'},
            'sub-01/anat/sub-01_part-mag_desc-combined_T2starw.nii.gz',
        ),
        ({'suffix': 'html', 'extension': '.html', 'kind': 'report'}, 'sub-01.html'),
        (
            {'suffix': 'stats', 'extension': '.tsv', 'kind': 'group', 'atlas': 'CIT168'},
            'group_atlas-CIT168_stats.tsv',
        ),
    ],
)
def test_paths(series, keywords, expected):
    assert derivative_path(series, **keywords) == expected


def test_source_entities_are_kept_and_echo_part_dropped():
    name = 'sub-01_ses-a_acq-x_rec-n_run-02_echo-1_part-phase_MEGRE.nii.gz'
    path = derivative_path(name, suffix='Chimap')
    assert path == 'sub-01/ses-a/anat/sub-01_ses-a_acq-x_rec-n_run-02_Chimap.nii.gz'
    assert derivative_path('sub-01_acq-x', suffix='S0map').endswith('sub-01_acq-x_S0map.nii.gz')


@pytest.mark.parametrize(
    ('keywords', 'message'),
    [
        ({'suffix': 'chimap'}, 'io_spec.json knows'),
        ({'suffix': 'Chimap', 'extension': '.tsv'}, 'end in one of'),
        ({'suffix': 'Chimap', 'dsc': 'x'}, 'unknown entity'),
        ({'suffix': 'Chimap', 'desc': 'a_b'}, 'letters and digits'),
        ({'suffix': 'xfm', 'extension': '.h5', 'from_': 'a', 'to': 'b', 'atlas': 'c'}, 'no place'),
        ({'suffix': 'xfm', 'extension': '.h5', 'to': 'b'}, 'needs from'),
    ],
)
def test_wrong_requests_for_a_path(series, keywords, message):
    with pytest.raises(ValueError, match=message):
        derivative_path(series, **keywords)


def test_outputs_do_not_differ_by_case_alone():
    suffixes = list(io_spec()['suffixes'])
    assert len({s.lower() for s in suffixes}) == len(suffixes)


def test_units_are_those_of_bids():
    """The schema fixes the unit of quantitative maps."""
    schema = pytest.importorskip('bidsschematools.schema').load_schema()
    for suffix, rule in io_spec()['suffixes'].items():
        fixed = schema.objects.suffixes.get(suffix, {}).get('unit')
        if fixed and suffix != 'fieldmap':
            assert rule['units'] == fixed, suffix


# ---- Sidecars -------------------------------------------------------------------------------


def test_sidecar_has_acquisition_but_no_person(series):
    content = sidecar(series, suffix='Chimap', description='Susceptibility', WarningCount=0)
    assert content['Units'] == 'ppm'
    assert content['SkullStripped'] is True
    assert content['EchoTime'] == pytest.approx([0.005, 0.010, 0.015])
    assert content['MagneticFieldStrength'] == 3.0
    assert content['FlipAngle'] == 15
    assert content['WarningCount'] == 0
    assert len(content['Sources']) == 6
    assert all(re.match(r'bids:raw:sub-01/anat/sub-01_echo', uri) for uri in content['Sources'])
    text = json.dumps(content)
    for secret in ('Nobody', '2020-01-01', 'Nowhere', str(Path(series.bids_dir).parent)):
        assert secret not in text


def test_sidecar_of_other_space_needs_reference(series):
    with pytest.raises(ValueError, match='spatial_reference'):
        sidecar(series, suffix='Chimap', description='x', space='T1w')
    uri = 'bids:raw:sub-01/anat/sub-01_T1w.nii.gz'
    content = sidecar(series, suffix='Chimap', description='', space='T1w', spatial_reference=uri)
    assert content['SpatialReference'] == uri
    assert 'SpatialReference' not in sidecar(
        series, suffix='Chimap', description='', space='MNI152NLin2009cAsym'
    )


def test_mask_has_no_unit_and_no_skull(series):
    content = sidecar(series, suffix='mask', description='brain', Type='Brain')
    assert 'Units' not in content
    assert 'SkullStripped' not in content
    assert content['Type'] == 'Brain'


def test_json_is_strict_and_complete_or_absent(tmp_path):
    path = tmp_path / 'a' / 'x.json'
    derivatives.write_json(path, {'a': np.float32(0.5), 'b': np.arange(2)})
    assert json.loads(path.read_text()) == {'a': 0.5, 'b': [0, 1]}
    with pytest.raises(ValueError, match='JSON'):
        derivatives.write_json(tmp_path / 'y.json', {'a': float('nan')})
    assert not list(tmp_path.glob('*y.json'))
    assert not list(tmp_path.rglob('.*part'))


def test_dataset_files(tmp_path, clean_root):
    out = tmp_path / 'out put'
    written = derivatives.write_dataset_files(out, clean_root, '9.9', links={'fs': tmp_path})
    assert [Path(p).name for p in written] == [
        *('dataset_description.json', '.bidsignore', 'descriptions.tsv', 'README')
    ]
    content = json.loads((out / 'dataset_description.json').read_text())
    assert content['DatasetType'] == 'derivative'
    assert content['GeneratedBy'] == [{'Name': 'qsmflow', 'Version': '9.9'}]
    assert content['DatasetLinks']['raw'] == Path(clean_root).as_uri()
    assert content['DatasetLinks']['fs'] == '..'
    before = {path: Path(path).read_bytes() for path in written}
    derivatives.write_dataset_files(out, clean_root, '9.9', links={'fs': tmp_path})
    assert before == {path: Path(path).read_bytes() for path in written}


def test_figures_are_ignored_without_trailing_slash():
    """With one, the validator still complains of the folder."""
    assert not any(line.endswith('/') for line in io_spec()['ignore'])


# ---- The whole output, judged by the validator ------------------------------------------------


def touch(root: Path, relative: str, text='x\n') -> None:
    path = root / relative
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def write_map(root: Path, series, suffix, *, metadata=True, **keywords) -> None:
    path = derivative_path(series, suffix=suffix, **keywords)
    integer = suffix in ('mask', 'dseg')
    write_image(root / path, np.ones((4, 4, 4), np.uint8 if integer else np.float32))
    space = keywords.get('space')
    reference = 'bids:raw:sub-01/anat/sub-01_T1w.nii.gz' if space == 'T1w' else None
    content = sidecar(
        series,
        suffix=suffix,
        description='test',
        space=space,
        spatial_reference=reference,
        resolution='1 mm' if 'res' in keywords else None,
        **({'Type': 'Brain'} if suffix == 'mask' else {}),
    )
    write_json(root / path.replace('.nii.gz', '.json'), content)


def write_output(root: Path, series, bids_dir) -> None:
    """Write one file of every kind that the app can write."""
    derivatives.write_dataset_files(root, bids_dir, '0.1.0')
    for suffix in ('Chimap', 'R2starmap', 'T2starmap', 'S0map'):
        write_map(root, series, suffix)
    for space, res in (('T1w', None), ('MNI152NLin2009cAsym', None), ('MNI152NLin2009cAsym', '1')):
        extra = {'space': space} | ({'res': res} if res else {})
        write_map(root, series, 'Chimap', **extra)
    for desc in ('paramagnetic', 'diamagnetic', 'tv'):
        write_map(root, series, 'Chimap', desc=desc)
    for desc in ('brain', 'reference', 'chi'):
        write_map(root, series, 'mask', desc=desc)
    write_map(root, series, 'mask', label='brain')
    write_map(root, series, 'probseg', label='GM')
    write_map(root, series, 'T2starw', part='mag', desc='combined')
    write_map(root, series, 'T1w', desc='preproc')
    write_map(root, series, 'MEGRE', echo='1', part='phase', desc='unwrapped')
    for desc in ('total', 'local', 'noise'):
        write_map(root, series, 'fieldmap', desc=desc)
    write_map(root, series, 'dseg', atlas='CIT168')
    table = derivative_path(series, suffix='dseg', extension='.tsv', atlas='CIT168')
    touch(root, table, 'index\tname\n1\tcaudate\n')
    write_json(root / 'atlas-CIT168_description.json', {'Name': 'CIT168', 'License': 'CC-BY-4.0'})
    stats = derivative_path(series, suffix='stats', extension='.tsv', atlas='CIT168')
    touch(root, stats, 'name\tmean\ncaudate\t0.05\n')
    write_json(root / stats.replace('.tsv', '.json'), {'mean': {'Units': 'ppm'}})
    for start, end, extension in (('T1w', 'GRE', '.mat'), ('T1w', 'MNI152NLin2009cAsym', '.h5')):
        keywords = {'from_': start, 'to': end, 'extension': extension}
        touch(root, derivative_path(series, suffix='xfm', **keywords))
    for extension in io_spec()['figure_extensions']:
        keywords = {'kind': 'figure', 'desc': 'planes', 'extension': extension}
        touch(root, derivative_path(series, suffix='Chimap', **keywords), '{}')
    touch(root, derivative_path(series, suffix='r', kind='report', extension='.html'))
    group = {'suffix': 'stats', 'kind': 'group', 'atlas': 'CIT168'}
    touch(root, derivative_path(series, extension='.tsv', **group), 'sub\tmean\n01\t1\n')
    touch(root, derivative_path(series, extension='.json', **group), '{}')
    touch(root, derivative_path(series, suffix='g', kind='group_report', extension='.html'))
    for name in ('CITATION.md', 'CITATION.bib', '20260101-uuid/qsmflow.toml', 'x/status.tsv'):
        touch(root, f'logs/{name}')


def test_output_is_valid_bids(tmp_path, clean_root):
    series = collect(clean_root).series[0]
    write_output(tmp_path / 'qsmflow', series, clean_root)
    assert validate(tmp_path / 'qsmflow') == []


def test_output_with_sessions_and_runs_is_valid_bids(dataset, tmp_path):
    write_series(dataset, ses='b', extra='_acq-hi_rec-n_run-2')
    series = next(s for s in collect(dataset.root).series if s.session == 'b')
    write_output(tmp_path / 'qsmflow', series, dataset.root)
    assert validate(tmp_path / 'qsmflow') == []


def test_validator_would_complain(tmp_path, clean_root):
    """The test above can fail: without the ignored names, and without SkullStripped."""
    series = collect(clean_root).series[0]
    root = tmp_path / 'qsmflow'
    write_output(root, series, clean_root)
    (root / '.bidsignore').unlink()
    path = root / derivative_path(series, suffix='Chimap', extension='.json')
    content = json.loads(path.read_text())
    del content['SkullStripped']
    write_json(path, content)
    found = validate(root)
    assert any('SkullStripped' in item for item in found)
    for pattern in ('_stats.tsv', '_xfm.', 'figures', '.html', 'fieldmap'):
        assert any(pattern in item for item in found), pattern


def test_clean_dataset_is_valid_bids(clean_root):
    assert validate(clean_root) == []


def test_readme_of_others_is_kept(tmp_path, clean_root):
    (tmp_path / 'README.md').write_text('Mine')
    derivatives.write_dataset_files(tmp_path, clean_root, '1')
    assert not (tmp_path / 'README').exists()
    (tmp_path / 'README.md').rename(tmp_path / 'README')
    derivatives.write_dataset_files(tmp_path, clean_root, '1')
    assert (tmp_path / 'README').read_text() == 'Mine'


def outputs_of_a_run():
    """Return the names that a run of the app writes, which a test of the app compares."""
    listed = Path(__file__).parents[1] / 'app/outputs.txt'
    return [*listed.read_text().splitlines(), 'group.html', 'group_atlas-CIT168_stats.tsv']


def test_descriptions_are_those_of_the_desc_entities_in_use(tmp_path, clean_root):
    used = set(re.findall(r'desc-([A-Za-z0-9]+)', '\n'.join(outputs_of_a_run())))
    used |= {output.desc for output in (cosmos._CHIMAP, cosmos._MASK)}
    derivatives.write_dataset_files(tmp_path, clean_root, '1')
    rows = (tmp_path / 'descriptions.tsv').read_text().splitlines()
    assert [row.partition('\t')[0] for row in rows[1:]] == sorted(
        f'desc-{label}' for label in used
    )


def test_bidsignore_names_only_what_is_written():
    names = {part for name in outputs_of_a_run() for part in (name, *name.split('/'))}
    for pattern in io_spec()['ignore']:
        bare = pattern.removeprefix('**/')
        assert any(fnmatch.fnmatch(name, bare) for name in names), pattern


def test_every_ignored_suffix_is_in_bidsignore():
    lines = io_spec()['ignore']
    for suffix, rule in io_spec()['suffixes'].items():
        assert any(f'_{suffix}.' in line for line in lines) == bool(rule.get('ignored')), suffix


def test_names_parse_back():
    for suffix, extras in itertools.product(('Chimap', 'mask'), ({}, {'desc': 'a'})):
        path = derivative_path({'sub': '01', 'run': '1'}, suffix=suffix, **extras)
        entities, found, extension = parse_name(path.rpartition('/')[2])
        assert (found, extension) == (suffix, '.nii.gz')
        assert entities == {'sub': '01', 'run': '1', **extras}
