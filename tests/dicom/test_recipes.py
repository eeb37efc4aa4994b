"""The recipes for heudiconv and dcm2bids: their logic, and where the tools are installed, they."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
from collections import namedtuple
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from qsmflow.bids import collect
from qsmflow.dicom.tool import OPTIONS, find_tool
from tests.dicom import vendors
from tests.dicom.reference import assert_like_reference, unpacked
from tests.dicom.scanner import TE, Scanner
from tests.dicom.vendors import scan

RECIPES = Path(__file__).parents[2] / 'docs' / 'convert'
FIELDS = 'series_id protocol_name series_description image_type is_derived custom'
Series = namedtuple('Series', FIELDS)


def run(command) -> subprocess.CompletedProcess:
    """Run a tool with our dcm2niix on its search path."""
    path = os.pathsep.join([str(Path(find_tool()).parent), os.environ['PATH']])
    environment = {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'} | {'PATH': path}
    return subprocess.run(
        [str(word) for word in command],
        capture_output=True, text=True, check=False, env=environment,
    )  # fmt: skip


def need(tool: str) -> str:
    path = shutil.which(tool)
    if path is None:
        pytest.skip(f'{tool} is not on the search path')
    return path


# --- heudiconv ---


@pytest.fixture
def heuristic():
    spec = importlib.util.spec_from_file_location('heuristic', RECIPES / 'heuristic_qsm.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def series(number, kinds, name='qsm_gre', maker='SIEMENS', derived=False):
    return Series(f'{number}-{name}', name, name, tuple(kinds), derived, maker)


def planned(heuristic, *found) -> dict[str, str]:
    """Return the end of the name for each series."""
    info = heuristic.infotodict(list(found))
    prefix = '{bids_subject_session_dir}/anat/{bids_subject_session_prefix}'
    assert all(key[0].startswith(prefix) and key[1] == ('nii.gz',) for key in info)
    return {ids[0]: key[0].removeprefix(prefix) for key, ids in info.items()}


def test_heudiconv_siemens(heuristic):
    plan = planned(
        heuristic,
        series(3, ['ORIGINAL', 'PRIMARY', 'M', 'ND'], 't1_mprage_sag'),
        series(5, ['ORIGINAL', 'PRIMARY', 'M', 'ND']),
        series(6, ['ORIGINAL', 'PRIMARY', 'M', 'NORM']),
        series(7, ['ORIGINAL', 'PRIMARY', 'P', 'ND']),
        series(8, ['ORIGINAL', 'PRIMARY', 'M', 'SWI']),
        series(9, ['ORIGINAL', 'PRIMARY', 'M', 'ND'], 'ep2d_bold'),
    )
    assert plan == {
        '3-t1_mprage_sag': '_T1w',
        '5-qsm_gre': '_part-mag_MEGRE',
        '7-qsm_gre': '_part-phase_MEGRE',
    }


def test_heudiconv_philips_holds_both_parts_in_one_series(heuristic):
    one = series(701, ['ORIGINAL', 'PRIMARY', 'PHASE MAP', 'P', 'FFE'], maker='Philips')
    assert planned(heuristic, one) == {'701-qsm_gre': '_MEGRE'}


def test_heudiconv_runs_and_protocols(heuristic):
    both = [['ORIGINAL', 'PRIMARY', part] for part in 'MP' * 2]
    plan = planned(heuristic, *(series(n, kinds) for n, kinds in enumerate(both, 5)))
    assert plan['5-qsm_gre'] == '_run-1_part-mag_MEGRE'
    assert plan['8-qsm_gre'] == '_run-2_part-phase_MEGRE'
    plan = planned(heuristic, series(5, 'M'), series(7, 'M', 'qsm fast'))
    assert set(plan.values()) == {'_acq-qsmgre_part-mag_MEGRE', '_acq-qsmfast_part-mag_MEGRE'}


@pytest.mark.parametrize(
    ('kinds', 'maker'),
    [(['ORIGINAL', 'PRIMARY', 'T1', 'MIXED'], 'Philips'), (['ORIGINAL'], 'GE MEDICAL SYSTEMS')],
)
def test_heudiconv_refuses_what_it_would_spoil(heuristic, kinds, maker):
    with pytest.raises(ValueError, match='Convert it with qsmflow-dicom'):
        planned(heuristic, series(7, kinds, maker=maker))


@pytest.mark.parametrize(('scale', 'units'), [(1.0, 'rad'), (4096 / np.pi, 'arbitrary')])
def test_heudiconv_writes_units(heuristic, tmp_path, scale, units):
    values = scale * np.linspace(-np.pi, np.pi, 64, dtype=np.float32).reshape(4, 4, 4)
    for echo in (1, 2):
        for part in ('mag', 'phase'):
            path = tmp_path / f'sub-01_echo-{echo}_part-{part}_MEGRE.nii.gz'
            nib.save(nib.Nifti1Image(values, np.eye(4)), path)
            sidecar = Path(str(path).replace('.nii.gz', '.json'))
            sidecar.write_text('{"EchoTime": 0.004}')
            sidecar.chmod(0o444)
    heuristic.custom_callable(str(tmp_path / 'sub-01_MEGRE'), ('nii.gz',), [])
    for path in tmp_path.glob('*.json'):
        content = json.loads(path.read_text())
        assert content.get('Units') == (units if 'phase' in path.name else None)


def run_heudiconv(source, out, folder, pattern='qsm'):
    tool = need('heudiconv')
    text = (RECIPES / 'heuristic_qsm.py').read_text().replace("r'qsm|", f"r'{pattern}|")
    adapted = folder / 'heuristic.py'
    adapted.write_text(text)
    command = [
        tool, '--files', source, '-o', out, '-f', adapted, '-s', '01', '-c', 'dcm2niix', '-b',
        '--minmeta', '-g', 'all',
    ]  # fmt: skip
    return run(command)


@pytest.mark.realdata
def test_heudiconv_really_on_philips_classic(tmp_path):
    done = run_heudiconv(unpacked('classic', tmp_path), tmp_path / 'out', tmp_path, 'field mapp')
    assert done.returncode == 0, done.stderr
    assert_like_reference(tmp_path / 'out')


@pytest.mark.realdata
def test_heudiconv_really_refuses_philips_enhanced(tmp_path):
    done = run_heudiconv(unpacked('enhanced', tmp_path), tmp_path / 'out', tmp_path, 'field mapp')
    assert done.returncode != 0
    assert 'Convert it with qsmflow-dicom' in done.stderr


def test_heudiconv_really_on_siemens(siemens, tmp_path):
    done = run_heudiconv(siemens, tmp_path / 'out', tmp_path)
    assert done.returncode == 0, done.stderr
    (one,) = collect(tmp_path / 'out').series
    assert one.te == pytest.approx([te / 1000 for te in TE])
    assert one.scaling.rule == 'siemens-signed'
    assert one.t1w is not None
    assert not {'A10'} & {finding.code for finding in one.findings}  # Units are there and right


# --- dcm2bids ---


@pytest.fixture
def config():
    return json.loads((RECIPES / 'dcm2bids_config.json').read_text())


def matches(config, image) -> list[tuple]:
    """Return what an image becomes: criteria are matched from the start, by ``re``."""
    assert config['search_method'] == 're'
    name = image.path.name.replace('.nii.gz', '.json')
    data = {**image.metadata, 'SidecarFilename': name}
    found = []
    for description in config['descriptions']:
        criteria = description['criteria'].items()
        if all(re.match(pattern, str(data.get(key, ''))) for key, pattern in criteria):
            part = next((e for e in description.get('custom_entities', []) if '-' in e), '')
            units = description.get('sidecar_changes', {}).get('Units')
            found.append((description['suffix'], part, units))
    return found


@pytest.mark.parametrize(
    ('base', 'parts', 'units'),
    [
        (vendors.VE, ('mag', 'phase'), 'arbitrary'),
        (vendors.GE, ('mag', 'phase'), 'arbitrary'),
        (vendors.GE, ('mag', 'real', 'imag'), None),
        (vendors.PHILIPS, ('mag', 'phase'), 'rad'),
    ],
)
def test_dcm2bids_every_image_has_one_description(config, base, parts, units):
    for image in scan(5, parts, base=base):
        wanted = ('MEGRE', f'part-{image.part}', units if image.part == 'phase' else None)
        assert matches(config, image) == [wanted]


def test_dcm2bids_other_images(config):
    other = vendors.image(3, ProtocolName='t1_mprage_sag', ends=())
    assert matches(config, other) == [('T1w', '', None)]
    assert matches(config, vendors.image(3, ProtocolName='ep2d_bold', ends=())) == []


def test_dcm2bids_uses_the_options_of_our_own_converter(config):
    words = config['dcm2niixOptions'].split()
    for option in ('-g', '-b', '-ba', '-p', '-m', '-c'):
        value = words[words.index(option) + 1].strip("'")
        assert value == OPTIONS[OPTIONS.index(option) + 1]
    assert config['extractors'] == {'EchoNumber': [r'^(?P<echo>\d+)$']}


def run_dcm2bids(config, source, out, folder, pattern='qsm'):
    tool = need('dcm2bids')
    adapted = folder / 'config.json'
    adapted.write_text(json.dumps(config).replace('(qsm|', f'({pattern}|'))
    out.mkdir()
    command = [tool, '-d', source, '-p', '01', '-c', adapted, '-o', out]
    done = run(command)
    shutil.rmtree(out / 'tmp_dcm2bids')
    description = {'Name': 'test', 'BIDSVersion': '1.10.0'}
    (out / 'dataset_description.json').write_text(json.dumps(description))
    return done


@pytest.mark.realdata
@pytest.mark.parametrize('kind', ['classic', 'enhanced'])
def test_dcm2bids_really_on_philips(config, kind, tmp_path):
    done = run_dcm2bids(config, unpacked(kind, tmp_path), tmp_path / 'out', tmp_path, 'field mapp')
    assert done.returncode == 0, done.stderr
    assert_like_reference(tmp_path / 'out')


@pytest.mark.parametrize('parts', [('mag', 'phase'), ('mag', 'real', 'imag')])
def test_dcm2bids_really_on_ge(config, parts, tmp_path):
    need('dcm2bids')
    scanner = Scanner(tmp_path / 'dicom', 'GE MEDICAL SYSTEMS')
    scanner.series(7, [(part, te) for te in TE for part in parts])
    done = run_dcm2bids(config, tmp_path / 'dicom', tmp_path / 'out', tmp_path)
    assert done.returncode == 0, done.stderr
    (one,) = collect(tmp_path / 'out').series
    assert one.te == pytest.approx([te / 1000 for te in TE])


def test_dcm2bids_really_on_siemens(config, siemens, tmp_path):
    done = run_dcm2bids(config, siemens, tmp_path / 'out', tmp_path)
    assert done.returncode == 0, done.stderr
    (one,) = collect(tmp_path / 'out').series
    assert one.scaling.rule == 'siemens-signed'
    assert one.t1w is not None
