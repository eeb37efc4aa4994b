"""From a dataset to series: what is grouped, what is kept apart, what is chosen."""

import json
import os
import shutil

import numpy as np
import pytest
from defects import (
    TE,
    affine,
    phantom,
    write_4d,
    write_clean,
    write_image,
    write_json,
    write_series,
    write_t1w,
)

from qsmflow.bids import collect, plan_as_dict, render_plan
from qsmflow.bids.checks_geometry import parse_b0_dir
from qsmflow.bids.findings import DatasetError
from qsmflow.bids.grouping import applies
from qsmflow.io import load_echoes


def names(collection):
    return [series.name for series in collection.series]


# ---- Grouping -------------------------------------------------------------------------------


def test_sessions_runs_and_acquisitions_are_kept_apart(dataset):
    shutil.rmtree(dataset.root / 'sub-01')
    wanted = []
    for ses, extra in (('a', '_run-1'), ('a', '_run-2'), ('b', '_acq-x'), ('b', '_rec-n_run-01')):
        write_series(dataset, ses=ses, extra=extra)
        wanted.append(f'sub-01_ses-{ses}{extra}')
    collection = collect(dataset.root)
    assert names(collection) == sorted(wanted)
    for series in collection.series:
        assert series.te == pytest.approx(TE)
        assert len(series.magnitude) == len(series.phase) == 3
        assert all(series.name in path for path in series.files)


def test_paths_follow_the_echo_times(dataset):
    for echo, t in ((1, 0.015), (2, 0.005), (3, 0.010)):
        for part in ('mag', 'phase'):
            dataset.edit(dataset.sidecar(echo, part), EchoTime=t)
    (series,) = collect(dataset.root).series
    assert series.te == pytest.approx(TE)
    assert series.echo_numbers == (2, 3, 1)
    assert [path[-len('2_part-phase_MEGRE.nii.gz')] for path in series.phase] == ['2', '3', '1']
    assert [path[-len('2_part-mag_MEGRE.nii.gz')] for path in series.magnitude] == ['2', '3', '1']


def test_ten_echoes_are_ordered_as_numbers(dataset):
    shutil.rmtree(dataset.root / 'sub-01')
    te = tuple(0.003 * n for n in range(1, 12))
    write_series(dataset, te=te, shape=(16, 16, 16))
    (series,) = collect(dataset.root).series
    assert series.echo_numbers == tuple(range(1, 12))
    assert series.te == pytest.approx(te)


def test_magnitude_without_part(dataset):
    dataset.rename('_part-mag', '')
    (series,) = collect(dataset.root).series
    assert series.magnitude[0].endswith('sub-01_echo-1_MEGRE.nii.gz')
    assert len(series.phase) == 3


def test_padded_echo_numbers(dataset):
    dataset.rename('echo-', 'echo-0')
    (series,) = collect(dataset.root).series
    assert series.echo_numbers == (1, 2, 3)


def test_single_echo_as_part_t1w_beside_plain_t1w(dataset):
    """A T1w with parts is data; a plain one is anatomical."""
    for path in dataset.anat().glob('*MEGRE*'):
        path.unlink()
    magnitude, phase = phantom()
    for part, data in (('mag', magnitude), ('phase', phase)):
        stem = f'sub-01_part-{part}_T1w'
        write_image(dataset.anat() / f'{stem}.nii.gz', data[..., 1])
        content = {'EchoTime': 0.01, 'MagneticFieldStrength': 3, 'Units': 'rad'}
        write_json(dataset.anat() / f'{stem}.json', content)
    (series,) = collect(dataset.root).series
    assert series.suffix == 'T1w'
    assert series.te == (0.01,)
    assert series.t1w.endswith('sub-01_T1w.nii.gz')


def test_legacy_t2starw_multi_echo(dataset):
    dataset.rename('_MEGRE', '_T2starw')
    (series,) = collect(dataset.root).series
    assert series.suffix == 'T2starw'
    assert len(series.te) == 3


def test_real_and_imaginary_are_paired(dataset):
    from defects import real_and_imaginary

    real_and_imaginary(dataset)
    (series,) = collect(dataset.root).series
    assert len(series.real) == len(series.imag) == 3
    assert series.phase == series.magnitude == ()
    assert series.scaling is None


def test_echoes_along_the_fourth_axis_in_any_order(dataset):
    order = (2, 0, 1)
    write_4d(dataset, [TE[i] for i in order], order=order)
    (series,) = collect(dataset.root).series
    assert series.te == pytest.approx(TE)
    assert len(series.phase) == 1
    loaded = load_echoes(list(series.phase)).data[..., list(series.volumes)]
    np.testing.assert_array_equal(loaded, phantom()[1])


def test_choice_of_echoes(dataset):
    (series,) = collect(dataset.root, echoes=[3, 1]).series
    assert series.echo_numbers == (1, 3)
    assert series.te == pytest.approx((TE[0], TE[2]))
    write_4d(dataset, list(TE))
    (series,) = collect(dataset.root, echoes=[2, 3]).series
    assert series.volumes == (1, 2)
    assert series.te == pytest.approx(TE[1:])


def test_choice_of_echoes_accepts_a_missing_file(dataset):
    dataset.image(2).unlink()
    (series,) = collect(dataset.root, echoes=[1, 3]).series
    assert len(series.phase) == len(series.magnitude) == 2


def test_plain_t2starw_beside_megre_is_anatomical(dataset):
    write_image(dataset.anat() / 'sub-01_T2starw.nii.gz', phantom()[0][..., 0])
    collection = collect(dataset.root)
    assert names(collection) == ['sub-01']
    assert [f.code for f in collection.findings] == ['B28']


def test_same_name_of_two_series_is_refused(dataset):
    write_series(dataset, suffix='T2starw')
    collection = collect(dataset.root)
    ((name, (finding,)),) = collection.failed
    assert name == 'sub-01'
    assert finding.code == 'A22'
    assert len(finding.evidence['files']) == 2


def test_misnamed_file_beside_a_complete_series_is_only_told(dataset):
    source = dataset.image(1)
    shutil.copy(source, source.with_name('sub-01_part-phase_echo-9_MEGRE.nii.gz'))
    collection = collect(dataset.root)
    assert not collection.failed
    (finding,) = [f for f in collection.series[0].findings if f.code == 'B46']
    assert finding.level == 'WARN'
    assert finding.evidence['expected'] == 'sub-01_echo-9_part-phase_MEGRE.nii.gz'


def test_all_reasons_of_one_series_are_told_together(dataset):
    """Phase with wrong names: the series has no phase, and here is why."""
    dataset.rename('part-phase', 'part-Phase')
    ((name, findings),) = collect(dataset.root).failed
    assert name == 'sub-01'
    assert {f.code for f in findings} == {'B28', 'B46'}


# ---- Metadata -------------------------------------------------------------------------------


def test_inherited_sidecars_at_the_top_level(dataset):
    """Row 51: no sidecar beside any image."""
    for path in dataset.anat().glob('*MEGRE.json'):
        path.unlink()
    common = {'MagneticFieldStrength': 3, 'MRAcquisitionType': '3D'}
    write_json(dataset.root / 'MEGRE.json', common)
    write_json(dataset.root / 'part-phase_MEGRE.json', {'Units': 'rad'})
    for echo, t in enumerate(TE, 1):
        write_json(dataset.root / f'echo-{echo}_MEGRE.json', {'EchoTime': t})
    (series,) = collect(dataset.root).series
    assert series.te == pytest.approx(TE)
    assert series.field_strength == 3
    assert 'A10' not in [f.code for f in series.findings]


def test_lower_sidecar_overrides_higher(dataset):
    write_json(dataset.root / 'MEGRE.json', {'MagneticFieldStrength': 7, 'FlipAngle': 5})
    (series,) = collect(dataset.root).series
    assert series.field_strength == 3
    assert series.metadata['FlipAngle'] == 15


def test_imaging_frequency_is_preferred_to_nominal_field(dataset):
    dataset.edit_all(ImagingFrequency=123.25, MagneticFieldStrength=2.89362)
    (series,) = collect(dataset.root).series
    assert series.f0 == 123.25
    assert series.field_strength == 2.89362


def test_metadata_hold_no_person(dataset):
    (series,) = collect(dataset.root).series
    assert series.metadata['Manufacturer'] == 'qsmflow'
    assert not {'PatientName', 'AcquisitionDateTime', 'InstitutionName'} & set(series.metadata)


def test_applies_only_down_the_tree():
    image = 'sub-01/ses-1/anat/sub-01_ses-1_echo-1_part-phase_MEGRE.nii.gz'
    assert applies('sub-01/sub-01_MEGRE.json', image)
    assert applies('sub-01/ses-1/anat/sub-01_ses-1_echo-1_MEGRE.json', image)
    assert not applies('sub-01/ses-2/anat/sub-01_MEGRE.json', image)
    assert not applies('sub-01/ses-1/anat/sub-01_ses-1_echo-2_MEGRE.json', image)
    assert not applies('sub-1/sub-1_MEGRE.json', 'sub-11/anat/sub-11_echo-1_MEGRE.nii.gz')


# ---- Isolation ------------------------------------------------------------------------------


def test_defects_of_others_do_not_concern_the_requested_subject(tmp_path):
    """Rows 50 and 58: a corrupt and a dangling sidecar elsewhere must not stop the run."""
    dataset = write_clean(tmp_path / 'ds', ('01', '02'))
    dataset.sidecar(1, sub='02').write_text('{ not json')
    dataset.sidecar(2, sub='02').unlink()
    os.symlink('nowhere', dataset.sidecar(2, sub='02'))
    alone = collect(dataset.root, participant_label=['sub-01'])
    assert names(alone) == ['sub-01']
    assert not alone.failed
    both = collect(dataset.root)
    assert names(both) == ['sub-01']
    assert [name for name, _ in both.failed] == ['sub-02']
    assert both.exit_code == 1
    with pytest.raises(DatasetError) as caught:
        collect(dataset.root, participant_label=['03'])
    assert caught.value.exit_code == 2
    assert 'Available participant labels: 01, 02' in str(caught.value)


def test_subject_without_gre_is_reported(tmp_path):
    dataset = write_clean(tmp_path / 'ds', ('01', '02'))
    for path in dataset.anat('02').glob('*MEGRE*'):
        path.unlink()
    collection = collect(dataset.root)
    ((name, (finding,)),) = collection.failed
    assert (name, finding.code, finding.level) == ('sub-02', 'B28', 'ERROR')


@pytest.fixture
def sessions(tmp_path):
    """Two participants: one was seen before and after, one only before."""
    dataset = write_clean(tmp_path / 'ds', ('01', '02'))
    for sub, labels in (('01', ('pre', 'post')), ('02', ('pre',))):
        shutil.rmtree(dataset.root / f'sub-{sub}')
        for ses in labels:
            write_series(dataset, sub, ses=ses, extra='_acq-hi' if sub == '01' else '')
    return dataset


REQUESTS = [
    {'session_label': ['post']},
    {'session_label': ['post', 'pre'], 'acq_label': ['hi']},
    {'bids_filter': {'megre': {'acquisition': 'hi'}}},
]


@pytest.mark.parametrize('request_', REQUESTS)
def test_participants_without_what_was_asked_for_are_left_out(sessions, request_):
    collection = collect(sessions.root, **request_)
    assert {series.subject for series in collection.series} == {'01'}
    assert not collection.failed
    assert collection.exit_code == 0
    (told,) = collection.findings
    assert (told.code, told.level, told.file) == ('E91', 'INFO', 'sub-02')
    assert told.evidence == {'sessions': ['pre'], 'series': ['sub-02_ses-pre']}
    assert ('post' if 'session_label' in request_ else '"hi"') in told.message
    assert 'left out' in render_plan(collection)


@pytest.mark.parametrize('request_', REQUESTS)
def test_a_participant_that_was_named_must_have_what_was_asked_for(sessions, request_):
    collection = collect(sessions.root, participant_label=['01', '02'], **request_)
    ((name, (finding,)),) = collection.failed
    assert (name, finding.code, finding.level) == ('sub-02', 'E91', 'ERROR')
    assert 'sessions=[pre], series=[sub-02_ses-pre]' in str(finding)
    assert collection.exit_code == 1


@pytest.mark.parametrize('request_', REQUESTS[:2])
def test_a_participant_alone_is_told_what_it_has_not(sessions, request_):
    """As a task of an array is, whose line is the same for all participants."""
    with pytest.raises(DatasetError) as caught:
        collect(sessions.root, participant_label=['02'], **request_)
    assert [f.code for f in caught.value.findings] == ['E90', 'E91']
    assert caught.value.findings[1].file == 'sub-02'
    assert caught.value.findings[0].evidence['series'] == ['sub-02_ses-pre']
    assert caught.value.exit_code == 65


@pytest.mark.parametrize(
    'request_',
    [
        {'session_label': ['ses-pre', 'post']},
        {'session_label': ['pre'], 'acq_label': ['lo', 'hi']},
        {'session_label': ['pre'], 'run_label': ['1', 'run-2']},
    ],
)
def test_a_participant_alone_may_have_a_part_of_what_was_asked_for(sessions, request_):
    write_series(sessions, '02', ses='pre', extra='_acq-lo_run-01')
    write_series(sessions, '01', ses='pre', extra='_acq-hi_run-02')
    collection = collect(sessions.root, participant_label=['02'], **request_)
    assert {(item.subject, item.session) for item in collection.series} == {('02', 'pre')}
    assert not collection.failed
    (key,) = request_.keys() - ({'session_label'} if len(request_) > 1 else set())
    with pytest.raises(DatasetError, match=r'E91.*has no \w+ .typo.') as caught:
        collect(sessions.root, participant_label=['02'], **request_ | {key: ['typo']})
    assert caught.value.exit_code == 2


def test_a_session_without_gre_of_a_participant_without_any_is_a_fault(sessions):
    for path in sessions.root.glob('sub-02/ses-pre/anat/*MEGRE*'):
        path.unlink()
    ((name, (finding,)),) = collect(sessions.root, session_label=['pre']).failed
    assert (name, finding.code, finding.level) == ('sub-02', 'B28', 'ERROR')


def test_nothing_of_what_was_asked_for_says_what_there_is(sessions):
    shutil.rmtree(sessions.root / 'sub-01/ses-post/anat')
    with pytest.raises(DatasetError) as caught:
        collect(sessions.root, session_label=['post'])
    assert [f.code for f in caught.value.findings] == ['E90', 'E91', 'E91']
    assert 'asked_for=ses post, series=[sub-01_ses-pre_acq-hi, sub-02_ses-pre]' in str(
        caught.value
    )
    assert caught.value.findings[-1].evidence['sessions'] == ['pre']


def test_label_that_is_a_prefix_of_another(tmp_path):
    dataset = write_clean(tmp_path / 'ds', ('1', '11'))
    assert names(collect(dataset.root, participant_label=['1'])) == ['sub-1']


def test_dataset_reached_through_a_link(clean_root, tmp_path):
    (tmp_path / 'link').symlink_to(clean_root)
    (series,) = collect(tmp_path / 'link').series
    assert series.te == pytest.approx(TE)
    assert series.phase[0].startswith(str(tmp_path / 'link'))


def test_broken_sidecar_of_the_t1w_stops_nothing(dataset):
    (dataset.anat() / 'sub-01_T1w.json').write_text('{')
    collection = collect(dataset.root)
    assert names(collection) == ['sub-01']
    assert [(f.code, f.level) for f in collection.findings] == [('B50', 'WARN')]


@pytest.mark.parametrize('folder', ['a b', 'é[1];$x', 'sub-x'])
def test_strange_folder_names(clean_root, tmp_path, folder):
    root = tmp_path / folder / 'ds'
    shutil.copytree(clean_root, root)
    (series,) = collect(root).series
    assert series.sources[0].startswith('bids:raw:sub-01/anat/')
    assert series.te == pytest.approx(TE)


def test_input_is_only_read(clean_root):
    before = sorted((p.as_posix(), p.stat().st_mtime_ns) for p in clean_root.rglob('*'))
    collect(clean_root)
    assert before == sorted((p.as_posix(), p.stat().st_mtime_ns) for p in clean_root.rglob('*'))


# ---- Filters --------------------------------------------------------------------------------


def test_filters(dataset):
    write_series(dataset, extra='_acq-hi_run-01')
    write_series(dataset, extra='_acq-lo_run-02')
    assert len(collect(dataset.root).series) == 3
    assert names(collect(dataset.root, acq_label=['acq-hi'])) == ['sub-01_acq-hi_run-01']
    assert names(collect(dataset.root, run_label=['2'])) == ['sub-01_acq-lo_run-02']
    chosen = collect(dataset.root, bids_filter={'megre': {'acquisition': None}})
    assert names(chosen) == ['sub-01']
    chosen = collect(dataset.root, bids_filter={'megre': {'acquisition': '*', 'run': 2}})
    assert names(chosen) == ['sub-01_acq-lo_run-02']
    with pytest.raises(DatasetError, match='hi, lo'):
        collect(dataset.root, acq_label=['high'])
    with pytest.raises(DatasetError, match='acq: hi, lo') as caught:
        collect(dataset.root, bids_filter={'megre': {'acquisition': 'high'}})
    assert caught.value.exit_code == 2


def test_filter_of_the_t1w(dataset):
    write_t1w(dataset, extra='_acq-a')
    write_t1w(dataset, extra='_acq-b_run-01')
    (series,) = collect(dataset.root, bids_filter={'t1w': {'acq': 'b', 'run': 1}}).series
    assert series.t1w.endswith('_acq-b_run-01_T1w.nii.gz')
    found = collect(dataset.root, bids_filter={'t1w': {'acquisition': 'c'}})
    assert found.series[0].t1w is None, 'one can do without'
    (told,) = [f for f in found.findings if f.code == 'E91']
    assert told.level == 'WARN'
    assert 'acq: a, b' in told.remedy


def test_session_filter(dataset):
    write_series(dataset, ses='a')
    assert names(collect(dataset.root, session_label=['ses-a'])) == ['sub-01_ses-a']


def test_wrong_options_end_at_once(clean_root):
    with pytest.raises(ValueError, match='b0_dir'):
        collect(clean_root, b0_dir='up')
    with pytest.raises(ValueError, match='scale'):
        collect(clean_root, phase_scale='vendor')


def test_phase_scale_of_the_user_wins(dataset):
    (series,) = collect(dataset.root, phase_scale='0.5').series
    assert series.scaling.slope == 0.5
    assert series.scaling.raw_max == pytest.approx(np.pi, abs=0.01)


# ---- T1w and masks --------------------------------------------------------------------------


def test_t1w_of_the_same_session_whatever_its_acq(dataset):
    shutil.rmtree(dataset.root / 'sub-01')
    write_series(dataset, ses='b', extra='_acq-qsm')
    write_t1w(dataset, ses='a', extra='_acq-qsm')
    write_t1w(dataset, ses='b', extra='_acq-mprage')
    (series,) = collect(dataset.root).series
    assert series.t1w.endswith('sub-01_ses-b_acq-mprage_T1w.nii.gz')
    assert series.t1w_note == ''
    assert 'D82' not in [f.code for f in series.findings]


def test_t1w_of_the_nearest_run_and_without_contrast_agent(dataset):
    shutil.rmtree(dataset.root / 'sub-01')
    write_series(dataset, extra='_run-3')
    for extra in ('_run-1', '_run-2', '_ce-gad_run-3'):
        write_t1w(dataset, extra=extra)
    (series,) = collect(dataset.root).series
    assert series.t1w.endswith('sub-01_run-2_T1w.nii.gz')
    (finding,) = [f for f in series.findings if f.code == 'D82']
    assert finding.level == 'INFO'


def test_damaged_t1w_is_passed_over(dataset):
    good = write_t1w(dataset, extra='_run-2')
    bad = next(dataset.anat().glob('sub-01_T1w.nii.gz'))
    bad.write_bytes(bad.read_bytes()[:2000])
    (series,) = collect(dataset.root).series
    assert series.t1w == str(good)


def test_mask_from_derivatives(dataset, tmp_path):
    path = tmp_path / 'der' / 'sub-01' / 'anat' / 'sub-01_desc-brain_mask.nii.gz'
    mask = (phantom()[0][..., 0] > 200).astype(np.uint8)
    write_image(path, mask)
    write_image(path.with_name('sub-01_space-T1w_desc-brain_mask.nii.gz'), mask)
    (series,) = collect(dataset.root, derivatives={'der': tmp_path / 'der'}).series
    assert series.mask == str(path)
    grid = affine()
    grid[2, 3] += 40
    write_image(path, mask, grid)
    collection = collect(dataset.root, derivatives={'der': tmp_path / 'der'})
    ((_, findings),) = collection.failed
    assert findings[-1].code == 'D77'
    assert collect(dataset.root).series[0].mask is None


def test_mask_of_another_run_is_not_taken(dataset, tmp_path):
    path = tmp_path / 'der' / 'sub-01' / 'anat' / 'sub-01_run-2_desc-brain_mask.nii.gz'
    write_image(path, np.ones((24, 28, 20), np.uint8))
    (series,) = collect(dataset.root, derivatives={'der': tmp_path / 'der'}).series
    assert series.mask is None


# ---- Geometry -------------------------------------------------------------------------------


def test_odd_matrix_is_accepted(dataset):
    """Row 71: nothing is said, and nothing is cut."""
    for path in dataset.images():
        dataset.rewrite(path, lambda data: data[:23, :27, :19])
    (series,) = collect(dataset.root).series
    assert series.shape == (23, 27, 19)
    assert not [f for f in series.findings if f.code.startswith('C')]


def test_direction_of_the_main_field(dataset):
    dataset.regrid(affine(rotation_deg=25))
    (series,) = collect(dataset.root).series
    expected = (0, np.sin(np.radians(25)), np.cos(np.radians(25)))
    assert series.b0_dir == pytest.approx(expected, abs=1e-5)
    (series,) = collect(dataset.root, b0_dir=(0, 0, 2)).series
    assert series.b0_dir == (0, 0, 1)


@pytest.mark.parametrize('value', ['w', (1, 2), (0, 0, 0), (np.nan, 0, 1)])
def test_wrong_direction(value):
    with pytest.raises(ValueError, match='b0_dir'):
        parse_b0_dir(value, np.eye(4))


def test_uncompressed_nifti(dataset):
    import gzip

    for path in dataset.images():
        path.with_suffix('').write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    (series,) = collect(dataset.root).series
    assert series.phase[0].endswith('.nii')


# ---- Plan -----------------------------------------------------------------------------------


def test_plan(tmp_path):
    dataset = write_clean(tmp_path / 'ds', ('01', '02'))
    dataset.image(2, sub='02').unlink()
    collection = collect(dataset.root)
    text = render_plan(collection)
    assert 'sub-01' in text
    assert '5, 10, 15' in text
    assert '24 x 28 x 20' in text
    assert 'sub-02: CANNOT be processed' in text
    assert 'sub-02_echo-2_part-phase_MEGRE.nii.gz' in text
    assert text.endswith('1 can be processed, 1 cannot.\n')
    assert not any(line != line.rstrip() for line in text.splitlines())
    plan = json.loads(json.dumps(plan_as_dict(collection), allow_nan=False))
    assert plan['exit_code'] == 1
    assert plan['series'][0]['PhaseScaling']['factor'] == 1
    assert plan['series'][0]['t1w'] == 'sub-01/anat/sub-01_T1w.nii.gz'
    assert plan['failed'][0]['findings'][0]['code'] == 'B30'
