"""The benchmarks run, and measure what they say."""

import doctest
import importlib
import json
import subprocess
import sys
from dataclasses import asdict, fields, replace
from pathlib import Path

import numpy as np
import pytest

from qsmflow.algorithms import catalog, confidence, get_method, method_parameters
from qsmflow.algorithms import operators as ops
from qsmflow.phantom import tissues

FOLDER = Path(__file__).parents[1] / 'benchmarks'
NAMES = ('testbeds', 'synthetic', 'reference', 'measure', 'compare', 'speed_tables', 'chain',
         'speed', 'stencils', 'study', 'overview')  # fmt: skip


@pytest.fixture(scope='module')
def bench():
    """The modules of the benchmarks, as they see each other when they are run."""
    sys.path.insert(0, str(FOLDER))
    try:
        yield {name: importlib.import_module(name) for name in NAMES}
    finally:
        sys.path.remove(str(FOLDER))
        for name in NAMES:
            sys.modules.pop(name, None)


@pytest.mark.parametrize('name', NAMES)
def test_examples(bench, name):
    assert doctest.testmod(bench[name]).failed == 0


class TestBeds:
    def test_sets_share_no_anatomy(self, bench):
        tuning, held = (
            {bed.seed for bed in beds.values()}
            for beds in (bench['testbeds'].TUNING, bench['testbeds'].HELD_OUT)
        )
        assert tuning == {3, 5}
        assert min(held) >= 20

    def test_every_kind_of_variation_is_in_both_sets(self, bench):
        for beds in (bench['testbeds'].TUNING, bench['testbeds'].HELD_OUT):
            found = {f.name: {getattr(b, f.name) for b in beds.values()} for f in fields(
                bench['testbeds'].Bed)}  # fmt: skip
            varied = {name for name, values in found.items() if len(values) > 1}
            assert varied >= {
                'seed', 'atrophy', 'nuclei_scale', 'rotation_deg', 'voxel_size', 'te', 'snr',
                'field_strength', 'calcification', 'haemorrhage', 'offset_shape', 'bipolar',
                'bad_voxels',
            }  # fmt: skip
            assert found['field_strength'] == {1.5, 3.0, 7.0}
            assert {len(te) for te in found['te']} >= {1, 2, 5, 8}
            assert {15.0, 100.0} <= found['snr']

    def test_scan_is_kept_and_read_back(self, bench, tmp_path, monkeypatch):
        beds = bench['testbeds']
        wanted = replace(beds.bed('held_out/sources'), rotation_deg=(10.0, 0.0, 0.0))
        first = beds.acquire(wanted, tmp_path, voxel_size=8)
        monkeypatch.setattr(beds, 'simulate', None)
        again = beds.acquire(wanted, tmp_path, voxel_size=(8, 8, 8))
        for name in ('magnitude', 'phase', 'affine'):
            np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
        assert first.truth.keys() == again.truth.keys()
        for name, volume in first.truth.items():
            assert volume.dtype == again.truth[name].dtype
            np.testing.assert_array_equal(volume, again.truth[name])
        assert (first.te, first.f0) == (again.te, again.f0)
        assert first.b0_dir == again.b0_dir
        assert len(list(tmp_path.iterdir())) == 1

    def test_other_bed_is_another_file(self, bench, tmp_path):
        beds = bench['testbeds']
        for name in ('tuning/snr100', 'tuning/snr15'):
            beds.acquire(name, tmp_path, voxel_size=16)
        assert len(list(tmp_path.iterdir())) == 2

    def test_unknown_bed_is_refused(self, bench):
        with pytest.raises(KeyError, match='tuning/reference'):
            bench['testbeds'].bed('tuning/none')

    def test_scores(self, bench, capsys):
        beds = bench['testbeds']
        scan = beds.acquire('held_out/sources', voxel_size=3)
        truth, brain = scan.truth['chi'], scan.truth['mask']
        found = beds.score(truth + 0.1, scan, brain)
        printed = capsys.readouterr().out
        for values in found.values():
            assert values['nrmse'] == pytest.approx(0, abs=1e-3)
            assert values['xsim'] == pytest.approx(1)
            assert values['missing'] == 0
            assert values['mask'] == 1
            for source in ('calc_streak', 'bleed_streak'):
                assert values[source] == pytest.approx(0, abs=1e-4)
        assert all(name in printed for name in found['brain'])
        half = brain.copy()
        half[: brain.shape[0] // 2] = False
        found = beds.score(truth * half, scan, show=False)
        assert found['brain']['nrmse'] > 30 > 1 > found['own']['nrmse']
        assert 0.3 < found['own']['missing'] < 0.7
        assert capsys.readouterr().out == ''
        present = np.unique(scan.truth['labels'])
        assert {tissues.CALCIFICATION.label, tissues.HAEMORRHAGE.label} <= set(present.tolist())

    def test_command_line(self, bench, tmp_path, capsys):
        options = ['--only', 'tuning/echoes2', '--voxel-size', '6', '--folder', str(tmp_path)]
        methods = ['background=vsharp', 'inversion=tkd', 'field=weighted']
        assert bench['testbeds'].main(['--list', '--score', *options, '--methods', *methods]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert 'te=(0.006, 0.018)' in lines[0]
        assert lines[-1].startswith('tuning/echoes2')
        assert 0 < float(lines[-1].split()[1]) < 1000


class TestSynthetic:
    def test_shape(self, bench):
        shape = bench['synthetic'].head_shape(4.9152e6)
        assert shape == (160, 192, 160)

    def test_fields_and_signals_belong_together(self, bench):
        case = bench['synthetic'].Case((32, 38, 32), 4)
        box = case.mask[ops.bounding_box(case.mask)]
        assert 0.45 < box.mean() < 0.58
        expected = ops.forward_field(case.chi, case.voxel_size) * case.mask
        assert np.corrcoef(expected[case.mask], case.local_field[case.mask])[0, 1] > 0.9
        assert case.total_field[case.mask].std() > 3 * case.local_field[case.mask].std()
        turns = (case.unwrapped_phase - case.phase) / (2 * np.pi)
        np.testing.assert_allclose(turns, np.rint(turns), atol=1e-4)
        assert np.abs(turns[case.mask]).max() > 0.5

    @pytest.mark.parametrize('stage', [s for s in catalog.STAGES if s != 'strategy'])
    def test_every_method_gets_its_arguments(self, bench, stage):
        case = bench['synthetic'].Case((16, 16, 16), 3)
        for name, method in catalog.STAGES[stage].items():
            positional, keywords = case.arguments(stage, name)
            assert any(value is case.mask for value in (*positional, *keywords.values()))
            assert set(method.extras) <= keywords.keys()
            if stage == 'inversion':
                assert positional[0] is getattr(case, method.takes)
            for extra, axes in {'magnitude': 3, 'magnitudes': 4}.items():
                assert extra not in method.extras or keywords[extra].ndim == axes

    def test_missing_data_is_named(self, bench):
        def strange(mask, moonlight):
            """Need what there is not."""

        case = bench['synthetic'].Case((16, 16, 16), 3)
        with pytest.raises(ValueError, match="'moonlight'"):
            bench['synthetic'].bind(case, strange)


@pytest.fixture(scope='module')
def case(bench):
    return bench['synthetic'].Case((24, 28, 24), 4)


class TestReference:
    """The plain versions do the same as the compiled ones."""

    def test_gradient(self, bench, case):
        found = bench['reference'].gradient(case.total_field)
        np.testing.assert_allclose(found, ops.gradient(case.total_field), atol=1e-7)
        back = bench['reference'].divergence(found)
        np.testing.assert_allclose(back, ops.laplacian(case.total_field), atol=1e-5)

    def test_arlo(self, bench, case):
        ours = get_method('relaxometry', 'arlo')(
            case.series, case.mask, case.voxel_size, te=case.te, noise=0
        )
        found = bench['reference'].arlo(case.series, case.mask, case.te)
        np.testing.assert_allclose(found, ours.r2star, rtol=1e-3, atol=1e-3)

    def test_total_variation(self, bench, case):
        options = {'weights': case.weights, 'max_iter': 6}
        ours = get_method('inversion', 'tv')(
            case.local_field, case.mask, (1, 1, 1), tol=1e-12, **bench['reference'].PLAIN_TV,
            **options,
        )  # fmt: skip
        found = bench['reference'].tv(case.local_field, case.mask, **options)
        assert np.abs(found - ours).max() < 1e-4 * np.abs(ours).max()


class TestStudy:
    def test_runs_are_recorded_continued_and_tabled(self, bench, tmp_path, monkeypatch):
        study, record, page = bench['study'], tmp_path / 'study.json', tmp_path / 'page.md'
        page.write_text('# Page\n<!-- begin inputs -->\nold\n<!-- end inputs -->\nrest\n')
        arguments = ['inputs', '--only', 'held_out/reference', '--voxel-size', '4']
        arguments += ['--json', str(record), '--markdown', str(page)]
        assert study.main(arguments) == 0
        runs = json.loads(record.read_text())['inputs']['held_out/reference']
        assert list(runs) == ['raw', 'total', 'local']
        assert runs['local']['xsim'] > runs['raw']['xsim']
        assert runs['total']['missing'] == 0
        text = page.read_text()
        assert 'old' not in text
        assert text.endswith('<!-- end inputs -->\nrest\n')
        assert f'| {runs["raw"]["nrmse"]:.1f} |' in text
        # A second run has nothing left to do.
        monkeypatch.setattr(study, 'run_and_score', None)
        assert study.main(arguments) == 0

    def test_nuclei(self, bench):
        scan = bench['testbeds'].acquire('held_out/reference', voxel_size=4)
        (name, function, arguments), *_ = bench['study'].regions(scan, None)
        found = function(scan, **arguments)
        assert name == 'raw'
        assert {'putamen', 'SNr', 'mammillary', 'dentate'} <= set(found)
        assert 'thalamus' not in found
        assert abs(found['putamen']) < 40
        assert found['dgm_linearity'] != found['larger_linearity']

    def test_doing_less_gives_something_else(self, bench):
        scan = bench['testbeds'].acquire('held_out/reference', voxel_size=4)
        runs = {name: (f, a) for name, f, a in bench['study'].less(scan, None)}
        found = {}
        for method in ('background/pdf', 'inversion/tv', 'inversion/tikhonov'):
            own = [name for name in runs if name.startswith(method)]
            assert method in own
            assert len(own) > 1
            found |= {name: runs[name][0](scan, **runs[name][1])['nrmse'] for name in own}
        assert len(set(found.values())) == len(found) == len(runs)
        assert all(0 < error < 150 for error in found.values())

    def test_padding_and_steps_are_put_back(self, bench):
        scan = bench['testbeds'].acquire('tuning/reference', voxel_size=4)
        wanted = ('total, step 0.2 ppm', 'raw, step 0.1 ppm', 'inversion/tkd, pad 0')
        before = confidence.STEP, bench['chain'].field_of
        runs = {name: (f, a) for name, f, a in bench['study'].choices(scan, None)}
        for name in wanted:
            function, arguments = runs[name]
            assert 0 < function(scan, **arguments)['nrmse'] < 150
        assert before == (confidence.STEP, bench['chain'].field_of)

    def test_every_method_has_a_run(self, bench):
        names = [name for name, _, _ in bench['study'].methods(None, None)]
        for stage in ('background', 'inversion', 'field', 'unwrapping'):
            for method in catalog.STAGES[stage]:
                assert f'{stage}/{method}/chain' in names


#: What the default chain gives on the reference bed of the set `tuning` at 3 mm, with a tenth to
#: spare: nrmse, xsim, error of region means. It must not get worse unnoticed.
RECORDED = {'nrmse': 79.5, 'xsim': 0.565, 'roi_mae': 7.54}


def test_accuracy_of_the_default_chain_is_kept(bench):
    scan = bench['testbeds'].acquire('tuning/reference', voxel_size=3)
    chi, mask = bench['chain'].run_chain(scan)
    found = bench['testbeds'].score(chi, scan, mask, show=False)['brain']
    assert found['nrmse'] < 1.1 * RECORDED['nrmse']
    assert found['xsim'] > 0.97 * RECORDED['xsim']
    assert found['roi_mae'] < 1.1 * RECORDED['roi_mae']


#: Counts of transforms, the same on every machine, and times; see docs/speed.md.
STORED = json.loads((FOLDER / 'recorded.json').read_text(encoding='utf-8'))['methods']


# The thorough chain makes what the default one does, for three times as long.
@pytest.mark.parametrize(
    'stored',
    [row for row in STORED if row['made'] and row['method'] != 'thorough'],
    ids=lambda row: f'{row["stage"]}-{row["method"]}',
)
def test_transforms_do_not_grow(bench, stored):
    case = bench['synthetic'].Case(tuple(stored['shape']), stored['n_echoes'])
    call, _ = bench['speed'].call_of(stored['stage'], stored['method'], case)
    with bench['measure'].Transforms() as made:
        call()
    assert made.pairs <= bench['speed'].MORE * stored['made'] + 0.1


def test_everything_is_recorded(bench):
    assert [(row['stage'], row['method']) for row in STORED] == bench['speed'].subjects()


class TestMeasure:
    def test_transforms_are_counted_by_grid(self, bench):
        with bench['measure'].Transforms() as made:
            for grid, number in (((16, 16, 16), 3), ((8, 8, 8), 2)):
                for _ in range(number):
                    ops.irfft(ops.rfft(np.zeros(grid, np.float32)), grid)
        assert made.grid == (16, 16, 16)
        assert made.pairs == pytest.approx(3 + 2 / 8)
        assert ops.rfft.__name__ == 'rfft'

    def test_transforms_of_a_method(self, bench, monkeypatch):
        case = bench['synthetic'].Case((24, 28, 24), 3)
        call, with_history = bench['speed'].call_of('inversion', 'tv', case)
        monkeypatch.setattr(
            bench['measure'], 'pair_time', lambda g, **_: 0.5 if g != case.shape else 2
        )
        found = bench['measure'].measure_time(call, case.shape, repeats=1, with_history=True)
        box = case.mask[ops.bounding_box(case.mask)].shape
        assert with_history
        assert found.grid == ops.pad_shape(box, 16)
        assert found.transforms >= found.iterations > 1
        # The split alone holds the map, a dual with three components and the source.
        assert 2.5 < found.floor / found.iterations < 20
        assert found.pairs[0] == pytest.approx(found.seconds[0] / 0.5)
        assert found.image_pairs[0] == pytest.approx(found.seconds[0] / 2)

    def test_time_of_a_pair_grows_with_the_grid(self, bench):
        small, large = (bench['measure'].pair_time((n, n, n), least=0.01) for n in (16, 64))
        assert 0 < 4 * small < large

    def test_peak_memory_is_that_of_the_call(self, tmp_path):
        # In a process of its own: a long-lived one has memory that new arrays can take.
        script = tmp_path / 'call.py'
        script.write_text(
            f'import sys; sys.path.insert(0, {str(FOLDER)!r})\n'
            'import json, measure, numpy as np\n'
            'def call():\n'
            '    first = np.ones(8_000_000, np.float32)\n'
            '    del first\n'
            '    return np.ones(3_000_000, np.float32)\n'
            "print(json.dumps({'bytes': measure.peak_memory(call)}))\n"
        )
        done = subprocess.run(
            [sys.executable, script], capture_output=True, text=True, check=True, timeout=120
        )
        assert 28e6 < json.loads(done.stdout)['bytes'] < 50e6

    def test_memory_of_a_method_in_a_process_of_its_own(self, bench):
        shape = (64, 76, 64)
        found = bench['speed'].memory_of('inversion', 'tkd', shape, 3)
        mask = bench['synthetic'].Case(shape, 3).mask
        grid = ops.pad_shape(mask[ops.bounding_box(mask)].shape, 16)
        # At least a spectrum and the result, at most a few more volumes.
        assert 1.0 < found / (4 * np.prod(grid)) < 8

    def test_failure_in_the_process_is_told(self, bench):
        with pytest.raises(RuntimeError, match='inversion/none'):
            bench['speed'].memory_of('inversion', 'none', (24, 24, 24), 3)


@pytest.fixture(scope='module')
def written(bench, tmp_path_factory):
    folder = tmp_path_factory.mktemp('speed')
    arguments = [
        '--sizes', '0.02', '0.04', '--only', 'inversion/tkd', 'relaxometry/arlo',
        'step/phase_offset', 'chain/fast', '--repeats', '1', '--no-memory',
        '--json', str(folder / 'found.json'), '--markdown', str(folder / 'speed.md'),
    ]  # fmt: skip
    assert bench['speed'].main(arguments) == 0
    return folder


class TestSpeed:
    def test_figures(self, bench, written):
        found = json.loads((written / 'found.json').read_text())
        rows = [bench['speed'].Row(**row) for row in found['methods']]
        assert len({row.key for row in rows}) == len(rows) == 8
        for row in rows:
            assert row.error == ''
            assert row.seconds > 0
            assert row.pairs > 0
            assert row.threads == ops.workers()
        by_name = {row.method: row for row in rows}
        assert by_name['tkd'].ratio == pytest.approx(by_name['tkd'].image_pairs / 4.6)
        assert {other['work'] for other in found['comparisons']} >= {'gradient', 'R2* by ARLO'}
        assert {'numpy', 'numba'} <= found['about'].keys()

    def test_markdown_is_between_its_marks(self, bench, written):
        path = written / 'speed.md'
        tables = bench['speed_tables']
        text = path.read_text()
        assert text.startswith(tables.BEGIN)
        assert '| inversion/tkd | ' in text
        assert 'time ~ N^' in text
        path.write_text('# Speed\n\n' + text + '\nthe end\n')
        row = bench['speed'].Row('a', 'b', (4, 4, 4), 1, 1, (8, 8, 8), 1.0, 2.0)
        tables.write_markdown(path, [row], [])
        new = path.read_text()
        assert new.startswith('# Speed')
        assert new.endswith('the end\n')
        assert '| a/b | 8x8x8 | 2.0 |' in new
        assert 'inversion/tkd' not in new
        assert 'peer pairs' not in new, 'they are of another grid'
        row = bench['speed'].Row('a', 'b', tables.PEER_SHAPE, 1, 1, (8, 8, 8), 1.0, 2.0, peer='9')
        assert '| 9 |' in tables.markdown([row], [])

    def test_variants_do_less(self, bench):
        case = bench['synthetic'].Case((24, 28, 24), 3)
        for (stage, name), (method, changes) in bench['speed'].VARIANTS.items():
            made = []
            for one in (name, method):
                call, _ = bench['speed'].call_of(stage, one, case)
                with bench['measure'].Transforms() as counted:
                    call()
                made.append(counted.pairs)
            assert made[0] < 0.6 * made[1], name
            assert changes.keys() <= {*method_parameters(stage, method), 'weights'}

    def test_what_was_aimed_at(self, bench):
        options = bench['speed'].make_parser().parse_args(['--no-memory', '--repeats', '1'])
        case = bench['synthetic'].Case((24, 28, 24), 3)
        iterates, does_not = (
            bench['speed'].measure('inversion', name, case, options) for name in ('tv', 'tkd')
        )
        # The transforms alone make it larger.
        assert 0 < iterates.aim < iterates.pairs / (1.5 * iterates.made)
        assert does_not.aim is None

    def test_document_without_marks_is_left_alone(self, bench, tmp_path):
        path = tmp_path / 'other.md'
        path.write_text('text\n')
        with pytest.raises(SystemExit, match='needs the lines'):
            bench['speed_tables'].write_markdown(path, [], [])
        assert path.read_text() == 'text\n'

    def test_check_fails_where_it_is_slower(self, bench, tmp_path, capsys):
        row = bench['speed'].Row('inversion', 'tkd', (20, 24, 20), 4, 1, pairs=10.0,
                                 least_pairs=9.0)  # fmt: skip
        recorded = tmp_path / 'recorded.json'

        def check(pairs, **changes):
            stored = asdict(replace(row, pairs=pairs, **changes))
            recorded.write_text(json.dumps({'methods': [stored]}))
            return bench['speed'].check([row], recorded, 1.5)

        assert check(6.1) == []
        assert len(check(5.9)) == 1
        assert '9.0 FFT pairs' in check(5.9)[0]
        assert 'no figures' in check(6.1, threads=2)[0]
        row = replace(row, made=10.0)
        assert check(6.1, made=9.8) == []
        assert '10.0 FFT pairs; 9.0 are recorded' in check(6.1, made=9.0)[0]
        assert 'no figures' in check(6.1, shape=(10, 12, 10))[0]

    def test_command_line_fails_where_it_is_slower(self, bench, written, tmp_path, capsys):
        found = json.loads((written / 'found.json').read_text())
        for row in found['methods']:
            row['pairs'] *= 1e-3
        recorded = tmp_path / 'recorded.json'
        recorded.write_text(json.dumps(found))
        arguments = ['--sizes', '0.02', '--only', 'inversion/tkd', '--repeats', '1',
                     '--no-memory', '--no-compare', '--check', str(recorded)]  # fmt: skip
        assert bench['speed'].main(arguments) == 1
        assert 'inversion/tkd takes' in capsys.readouterr().err

    def test_a_method_that_fails_loses_only_its_own_figures(self, bench, monkeypatch, capsys):
        def broken(case):
            raise RuntimeError('no light')

        monkeypatch.setitem(bench['speed'].STEPS, ('step', 'threshold_mask'), broken)
        arguments = ['--sizes', '0.02', '--only', 'step/threshold_mask', 'inversion/tkd',
                     '--repeats', '1', '--no-memory', '--no-compare']  # fmt: skip
        monkeypatch.setattr(
            bench['speed'], 'warm_up', lambda s, n, e: broken(None) if s == 'step' else None
        )
        assert bench['speed'].main(arguments) == 1
        told = capsys.readouterr()
        assert 'RuntimeError: no light' in told.err
        assert 'inversion/tkd' in told.out

    def test_further_sizes_take_few_methods(self, bench, monkeypatch, capsys):
        seen = []

        def measure(stage, name, case, options):
            seen.append((stage, name))
            known = {'seconds': 1.0, 'pairs': 2.0, 'volumes': 3.0}
            return bench['speed'].Row(
                stage, name, case.shape, case.n_echoes, 1, case.shape, **known
            )

        monkeypatch.setattr(bench['speed'], 'measure', measure)
        assert bench['speed'].main(['--sizes', '0.02', '0.04', '--no-compare']) == 0
        scaled = bench['speed'].selected(bench['speed'].SCALED)
        assert seen == [*bench['speed'].subjects(), *scaled]

    def test_memory_is_taken_from_an_earlier_run(self, bench, tmp_path):
        row = bench['speed'].Row('inversion', 'tkd', (20, 24, 20), 4, 1, (54, 64, 54))
        earlier = tmp_path / 'earlier.json'
        stored = asdict(replace(row, threads=2, volumes=4.5))
        earlier.write_text(json.dumps({'methods': [stored]}))
        other = replace(row, grid=(60, 64, 54))
        bench['speed'].reuse_memory([row, other], earlier)
        assert (row.volumes, other.volumes) == (4.5, None)

    def test_unknown_names_are_refused(self, bench):
        with pytest.raises(SystemExit, match='inversion/none'):
            bench['speed'].selected(['inversion/none', 'inversion/tkd'])

    def test_growth(self, bench):
        voxels = [1e6, 2e6, 8e6]
        assert bench['speed_tables'].exponent(voxels, [v**1.3 for v in voxels]) == pytest.approx(
            1.3
        )

    def test_missing_scikit_image_is_told(self, bench, monkeypatch):
        compare = bench['compare']
        monkeypatch.setattr(compare.importlib.util, 'find_spec', lambda name: None)
        case = bench['synthetic'].Case((16, 19, 16), 3)
        rows = {row.work: row for row in compare.compare(case, 1, 1)}
        assert 'not installed' in rows['unwrapping, one echo'].note
        text = '\n'.join(bench['speed_tables'].comparisons(rows.values()))
        assert 'scikit-image is not installed' in text
        assert rows['gradient'].other_seconds > 0

    def test_memory_table_is_written_beside_what_is_not_measured(
        self, bench, monkeypatch, tmp_path
    ):
        speed = bench['speed']
        copy = tmp_path / 'cost.py'
        copy.write_text(Path(speed.cost.__file__).read_text())
        monkeypatch.setattr(speed.cost, '__file__', str(copy))
        monkeypatch.setattr(speed, 'memory_of', lambda s, n, shape, echoes: 10**6 * (5 + echoes))
        names = ['inversion/tkd', 'relaxometry/arlo', 'background/vsharp']
        speed.main(['--memory-table', '--update', '--sizes', '0.02', '--only', *names])
        scope = {}
        exec(compile(copy.read_text(), copy, 'exec'), scope)
        new, old = scope['VOLUMES'], speed.cost.VOLUMES
        changed = {('inversion', 'tkd'), ('relaxometry', 'arlo'), ('background', 'vsharp')}
        assert {key for key in new if new[key] != old.get(key)} == changed
        assert new['inversion', 'tkd'].pad == method_parameters('inversion', 'tkd')['pad']
        assert new['background', 'vsharp'].reach == 12
        assert new['relaxometry', 'arlo'].per_echo > 0


class TestOverview:
    def test_every_method_has_its_accuracy_and_cost(self, bench):
        overview = bench['overview']
        scores = json.loads((FOLDER / 'study.json').read_text())['methods'][overview.BED]
        costs = overview.first_size(json.loads((FOLDER / 'speed.json').read_text()))
        table = list(overview.rows(scores, costs))
        cells = {
            row.split(' | ')[0].strip('| '): row.strip('| ').split(' | ') for row in table[2:]
        }
        assert set(cells) == {
            *(f'{stage}/{name}' for stage in catalog.STAGES for name in catalog.STAGES[stage]),
            'inversion/cosmos',
        }
        for name, row in cells.items():
            assert row[1] != '–' or row[3] != '–', name
            assert row[7] != '–' or name.startswith('strategy/') or name == 'inversion/cosmos', (
                name
            )
        assert [row for row in table if row not in overview.PAGE.read_text('utf-8')] == []

    def test_numbers_land_in_their_columns(self, bench):
        scores = {'inversion/tv/true': {'nrmse': 1.25, 'xsim': 0.5}}
        costs = {'inversion/tv': {'pairs': 7.04, 'iterations': 40, 'volumes': None}}
        (row,) = [r for r in bench['overview'].rows(scores, costs) if 'inversion/tv ' in r]
        assert row == '| inversion/tv | 1.2 | 0.500 | – | – | – | – | 7.0 | 40 | – |'

    def test_marks_that_are_missing_are_told(self, bench, tmp_path):
        page = tmp_path / 'page.md'
        page.write_text('nothing')
        with pytest.raises(SystemExit, match='begin comparison'):
            bench['study'].write_between(page, {'comparison': 'x'})


class TestStencils:
    def test_iterative_methods_are_in_the_table_and_kernels_are_put_back(
        self, bench, tmp_path, capsys
    ):
        from qsmflow.algorithms import _kernels

        stencils, kernels = bench['stencils'], dict(vars(_kernels))
        page = tmp_path / 'page.md'
        page.write_text(f'before\n{stencils.BEGIN}old\n{stencils.END}after\n')
        methods = ['inversion/tv', 'inversion/tkd']
        assert stencils.main(
            ['--size', '0.01', '--only', *methods, '--markdown', str(page)]
        ) == 0  # fmt: skip
        assert vars(_kernels) == kernels
        (row,) = (line for line in page.read_text().splitlines() if 'inversion/' in line)
        name, *shares, floor, copies, ratio = (cell.strip() for cell in row.strip('|').split('|'))
        assert name == 'inversion/tv'
        assert 0 < sum(float(share.rstrip(' %')) for share in shares) <= 101
        # The split alone holds the map, a dual with three components and the source.
        assert 2.5 < float(floor) < 20
        assert float(copies) > 0
        assert float(ratio) > 0

    def test_arrays_that_are_given_are_counted(self, bench):
        spent = bench['stencils'].Spent()
        array = np.zeros(10, np.float32)
        assert spent.watching(lambda a, b, out: b)(array, 3, out=array[:5]) == 3
        assert spent.touched == 60
        assert spent.seconds > 0
