"""What is in the source beside the package: image, licences, documentation, demo."""

import ast
import importlib
import importlib.util
import inspect
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from qsmflow import __version__
from qsmflow.algorithms.catalog import STAGES

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob('*.md'), *ROOT.glob('docs/*.md'), *ROOT.glob('workflows/*.md')])

#: Options of other programs, and of scripts in the source, that pages name.
OTHERS = {
    *('--build-arg', '--cleanenv', '--contain', '--network', '--user'),  # containers
    *('--exclusive', '--export', '--signal'),  # sbatch
    *('--install', '--json'),  # tools/container_test.py, benchmarks/study.py
    *('--unwrapping-algorithm', '--bf-algorithm', '--qsm-algorithm', '--qsm-reference'),  # QSMxT
    *('--premade', '--two-pass', '--masking-algorithm'),
    *('--task-id', '--echo-idx'),  # fMRIPrep
}


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding='utf-8')


def load_tool(name: str):
    spec = importlib.util.spec_from_file_location(name, ROOT / 'tools' / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# --- versions ---


def test_one_version_everywhere():
    assert f'ARG VERSION={__version__}\n' in read('Dockerfile')
    assert f'org.opencontainers.image.version {__version__}\n' in read('container/qsmflow.def')
    assert f'"qsmflow {__version__}"' in read('container/qsmflow.def')
    assert f'qsmflow:{__version__}' in read('docs/installation.md')
    assert f'version: {__version__}\n' in read('CITATION.cff')
    assert f'## {__version__}' in read('CHANGES.md')


def constraints() -> dict[str, Version]:
    lines = [line for line in read('constraints.txt').splitlines() if not line.startswith('#')]
    return {name: Version(version) for name, version in (line.split('==') for line in lines)}


def test_constraints_pin_what_is_needed():
    project = tomllib.loads(read('pyproject.toml'))['project']
    pinned = constraints()
    assert not {'qsmflow', 'pip', 'setuptools', 'wheel'} & set(pinned)
    for line in project['dependencies'] + project['optional-dependencies']['test']:
        requirement = Requirement(line)
        name = re.sub(r'[-_.]+', '-', requirement.name).lower()
        assert name in pinned, f'{name} is missing: make constraints'
        assert pinned[name] in requirement.specifier


# --- licences ---


def test_licence_is_whole():
    text = read('LICENSE')
    assert 'Apache License' in text.splitlines()[0]
    for number in range(1, 10):
        assert re.search(rf'^ +{number}\. ', text, re.MULTILINE)
    assert 'END OF TERMS AND CONDITIONS' in text


def test_notice_names_the_data_of_others():
    text = ' '.join(read('NOTICE').split())
    for part in ('CIT168', 'Pauli', 'Creative Commons Attribution 4.0', '10.1038/sdata.2018.63'):
        assert part in text
    for part in ('ICBM 152', 'McConnell Brain Imaging Centre', 'copyright notice appear in all'):
        assert part in text
    for folder in re.findall(r'\((qsmflow/data/[^)]+)\)', text):
        assert (ROOT / folder).is_dir()


def test_citation_file():
    import yaml

    citation = yaml.safe_load(read('CITATION.cff'))
    assert citation['cff-version'] == '1.2.0'
    assert citation['license'] == 'Apache-2.0'
    for entry in (citation, *citation['references']):
        assert entry['title']
        assert all(author['name'] for author in entry['authors'])


# --- documentation ---


def anchors(page: Path) -> set[str]:
    """Return the names by which the headings of a page can be linked to, as GitHub makes them."""
    text = re.sub(r'^```.*?^```', '', page.read_text(encoding='utf-8'), flags=re.M | re.S)
    headings = re.findall(r'^#+ (.*)', text, re.M)
    return {re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-') for heading in headings}


@pytest.mark.parametrize('page', PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r'\]\(([^)\s]+)\)', page.read_text(encoding='utf-8')):
        if target.startswith('http'):
            continue
        file, _, anchor = target.partition('#')
        path = page.parent / file if file else page
        assert path.exists(), f'{page.name}: {target}'
        assert not anchor or anchor in anchors(path), f'{page.name}: {target}'


def python_blocks() -> list:
    return [
        pytest.param(block, id=f'{page.name}-{number}')
        for page in PAGES
        for number, block in enumerate(
            re.findall(r'^```python\n(.*?)^```', page.read_text(encoding='utf-8'), re.M | re.S)
        )
    ]


@pytest.mark.parametrize('block', python_blocks())
def test_python_in_the_documentation(block):
    """It is Python, and the names that it imports from the package are there."""
    for node in ast.walk(ast.parse(block)):
        if isinstance(node, ast.ImportFrom) and node.module.startswith('qsmflow'):
            module = importlib.import_module(node.module)
            for alias in node.names:
                assert hasattr(module, alias.name), f'{node.module} has no {alias.name}'


def options_of_programs() -> dict[str, set[str]]:
    """Return the options of each program, by its name."""
    from qsmflow.cli import slurm
    from qsmflow.cli.options import build_parser
    from qsmflow.dicom.cli import make_parser as make_dicom_parser
    from qsmflow.phantom.cli import make_parser as make_phantom_parser

    slurm_parser = slurm.make_parser()
    levels = next(action.choices for action in slurm_parser._actions if action.choices)
    parsers = {
        'qsmflow': [build_parser()],
        'qsmflow-dicom': [make_dicom_parser()],
        'qsmflow-phantom': [make_phantom_parser()],
        'qsmflow-slurm': [slurm_parser, *levels.values()],
    }
    return {
        name: {
            option
            for parser in own
            for action in parser._actions
            for option in action.option_strings
        }
        for name, own in parsers.items()
    }


def commands(page: Path) -> list[list[str]]:
    """Return the words of each command of a page that starts one of our programs."""
    blocks = re.findall(r'^ *```bash\n(.*?)^ *```', page.read_text(encoding='utf-8'), re.M | re.S)
    found = []
    for line in '\n'.join(blocks).replace('\\\n', ' ').splitlines():
        try:
            words = shlex.split(line, comments=True)
        except ValueError:
            continue  # a text of several lines, such as a file that is written
        names = [
            n for n, word in enumerate(words) if re.fullmatch(r'(.*/)?qsmflow(-[a-z]+)?', word)
        ]
        if not names and 'run' in words:
            names = [n for n, word in enumerate(words) if re.match(r'qsmflow(:|\.sif)', word)]
        if names:
            name = re.sub(r'.*/|:.*|\.sif', '', words[names[0]])
            found.append([name, *words[names[0] + 1 :]])
    return found


@pytest.mark.parametrize('page', PAGES, ids=lambda path: path.name)
def test_options_in_the_documentation_exist(page):
    known = options_of_programs()
    for name, *words in commands(page):
        for word in words:
            if word == '--':
                name = 'qsmflow'  # after it come options for the tasks
            elif re.match(r'--?[a-z]', word):
                assert word.partition('=')[0] in known[name], f'{page.name}: {name} {word}'


def test_options_named_in_the_text_exist():
    known = OTHERS.union(*options_of_programs().values())
    for page in set(PAGES) - {ROOT / 'CHANGES.md'}:  # which names those of earlier versions
        text = re.sub(r'^ *```.*?^ *```', '', page.read_text(encoding='utf-8'), flags=re.M | re.S)
        for option in re.findall(r'`(--[a-z][\w-]*)[^`]*`', text):
            assert option in known, f'{page.name}: {option}'


def test_parameters_that_are_documented_by_hand():
    rows = re.findall(
        r'^\| `(qsmflow\.algorithms\.\S+)\.(\w+)` \|.*?\|.*\| (`.*?`) \|.*\|$',
        read('docs/methods.md'),
        re.M,
    )
    assert {name for _, name, _ in rows} == {
        'remove_bipolar', 'remove_phase_offset', 'remove_slice_offsets', 'cosmos'
    }  # fmt: skip
    own = ('weights', 'polarity', 'return_history')  # data and what is returned, not choices
    for module, name, cell in rows:
        signature = inspect.signature(getattr(importlib.import_module(module), name))
        expected = [
            f'`{key}={parameter.default!r}`'
            for key, parameter in signature.parameters.items()
            if parameter.default is not parameter.empty and key not in own
        ]
        assert cell.split(', ') == expected, name


def test_tables_are_fresh():
    assert load_tool('make_docs_tables').main(['--check']) == 0, 'run: make docs'


def test_stale_tables_are_noticed():
    tool = load_tool('make_docs_tables')
    page = 'a\n<!-- begin x -->\nold\n<!-- end x -->\nb\n'
    assert tool.updated(page, 'x', 'new') == 'a\n<!-- begin x -->\n\nnew\n\n<!-- end x -->\nb\n'
    with pytest.raises(ValueError, match='no marks'):
        tool.updated(page, 'y', 'new')


def test_every_citation_is_in_the_bibliography():
    entries = load_tool('make_docs_tables').bibliography()
    for methods in STAGES.values():
        for method in methods.values():
            for key in method.citations:
                entry = entries[key]
                excused = entry.get('note') in ('no DOI', 'DOI not verified')
                assert excused or entry['kind'] == 'inproceedings' or entry['doi']


# --- demo and tests from the top ---


def make(*targets) -> str:
    result = subprocess.run(
        ['make', '-n', '-B', *targets], cwd=ROOT, capture_output=True, text=True, timeout=30
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_make_demo():
    lines = make('demo', 'DEMO=/tmp/demo folder')
    for part in ('-c constraints.txt', 'qsmflow-phantom', ' participant ', ' group ', 'report'):
        assert part in lines
    assert lines.index('participant') < lines.index('group') < lines.index('compare_with_truth')
    assert '--small' not in lines
    assert '--small' in make('demo-fast')


def test_make_demo_uses_known_options():
    from qsmflow.cli.options import build_parser
    from qsmflow.phantom.cli import make_parser

    lines = make('demo-fast').replace('\\\n', ' ')
    for line in lines.splitlines():
        words = shlex.split(line)
        if words and words[0].endswith('/qsmflow'):
            assert not build_parser().parse_known_args([str(ROOT), *words[2:]])[1]
        if words and words[0].endswith('/qsmflow-phantom'):
            assert not make_parser().parse_known_args(words[1:])[1]


def test_make_test():
    assert "pytest -m 'not slow and not slurm'" in make('test')


def test_ci_script():
    path = ROOT / '.ci' / 'run'
    text = path.read_text()
    assert path.stat().st_mode & 0o100, 'it must be executable'
    assert 'set -euo pipefail' in text
    subprocess.run(['bash', '-n', path], check=True)
    for target in ('make test', 'make demo-fast', 'make lint'):
        assert f'step {target}' in text


# --- comparison with the truth ---

TRUTH = """\
index	name	hemi	n_voxels	volume_mm3	chi_mean	chi_sd	chi_median	r2star_mean
5	GPe	L	30	30	0.130	0.01	0.13	40
6	GPi	L	10	10	0.090	0.01	0.09	40
2	caudate	L	40	40	0.050	0.01	0.05	25
102	caudate	R	0	0	n/a	n/a	n/a	n/a
32	csf	n/a	20	20	0.010	0.01	0.01	2
"""
TABLE = """\
region	hemi	map	mean	reference
pallidum	L	chi	71.0	wholebrain
caudate	L	chi	-25.0	wholebrain
caudate	R	chi	1.0	wholebrain
whole_brain	n/a	chi	0.0	wholebrain
pallidum	L	R2star	41.0	n/a
caudate	L	R2star	24.0	n/a
"""


@pytest.fixture
def compared(tmp_path):
    truth = tmp_path / 'dataset' / 'derivatives' / 'phantom-truth' / 'sub-01' / 'anat'
    results = tmp_path / 'results' / 'sub-01' / 'anat'
    for folder in (truth, results):
        folder.mkdir(parents=True)
    (truth / 'sub-01_desc-truth_stats.tsv').write_text(TRUTH)
    (results / 'sub-01_atlas-CIT168_stats.tsv').write_text(TABLE)
    return [str(tmp_path / 'dataset'), str(tmp_path / 'results')]


def test_compare_with_truth(compared, capsys):
    tool = load_tool('compare_with_truth')
    assert tool.main(compared) == 0
    lines = {
        tuple(line.split()[:2]): line.split()[2:] for line in capsys.readouterr().out.split('\n')
    }
    # The whole brain has 70 ppb: (30 * 130 + 10 * 90 + 40 * 50 + 20 * 10) / 100.
    assert lines['pallidum', 'L'] == ['71.0', '50.0', '+21.0', '41.0', '40.0', '+1.0']
    assert lines['caudate', 'L'] == ['-25.0', '-20.0', '-5.0', '24.0', '25.0', '-1.0']
    assert ('caudate', 'R') not in lines, 'it has no voxels in the truth'
    assert 'median absolute error of chi 13.0 ppb' in ' '.join(
        ' '.join([*key, *value]) for key, value in lines.items()
    )


def test_compare_with_truth_fails_beyond_the_limit(compared):
    tool = load_tool('compare_with_truth')
    assert tool.main([*compared, '--limit', '13.5']) == 0
    assert tool.main([*compared, '--limit', '12.5']) == 1


def test_compare_without_tables(compared, tmp_path):
    assert load_tool('compare_with_truth').main([compared[0], str(tmp_path / 'none')]) == 1


def test_constraints_tool():
    found = load_tool('make_constraints').closure('qsmflow', ('test',))
    assert {'numpy', 'boutiques', 'sqlalchemy'} <= set(found)
    assert 'deepbet' not in found, 'an extra that was not asked for'
    assert sys.version_info >= (3, 11)
