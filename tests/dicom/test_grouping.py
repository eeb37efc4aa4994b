"""Sorting of sidecar sets of each vendor, without DICOM files and without dcm2niix."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qsmflow.dicom.grouping import sort_images
from qsmflow.dicom.naming import plan_targets
from qsmflow.dicom.sidecars import phase_units
from qsmflow.dicom.table import render
from tests.dicom import vendors
from tests.dicom.vendors import GE, PHILIPS, TE, XA, image, scan


def names(images, **options) -> list[str]:
    found = sort_images(images)
    assert not found.problems
    targets = plan_targets(found.acquisitions, '01', **options)
    return [target.relative.removeprefix('sub-01/anat/') for target in targets]


def problem(images, **options) -> str:
    found = sort_images(images, **options)
    assert not found.acquisitions
    ((_, reason),) = found.problems
    return reason


def expected(*parts, suffix='MEGRE', prefix='sub-01') -> list[str]:
    return [
        f'{prefix}_echo-{echo}_part-{part}_{suffix}.nii.gz' for echo in (1, 2, 3) for part in parts
    ]


# --- vendors ---


def test_siemens_ve_magnitude_and_phase_are_two_series():
    assert names([*scan(5), *scan(6, ['phase'])]) == expected('mag', 'phase')


@pytest.mark.parametrize('number', [None, 1])
def test_siemens_xa_classic_has_no_echo_numbers(number):
    def bare(series, part):
        return [
            image(series, part, te, number, base=XA, series=str(series),
                  ends=(f'e{1000 * te:g}', vendors.PARTS[part]))
            for te in TE
        ]  # fmt: skip

    images = [*bare(5, 'mag'), *bare(6, 'phase')]
    assert names(images) == expected('mag', 'phase')
    (found,) = sort_images(images).acquisitions
    assert any('counted' in note for note in found.notes)


def test_ge_magnitude_and_phase_in_one_series():
    images = scan(7, ['mag', 'phase'], base=GE, kinds=['ORIGINAL', 'PRIMARY', 'OTHER'])
    assert names(images) == expected('mag', 'phase')


def test_ge_real_and_imaginary_with_and_without_magnitude():
    kinds = ['ORIGINAL', 'PRIMARY', 'OTHER']
    images = scan(7, ['real', 'imag'], base=GE, kinds=kinds)
    assert names(images) == expected('real', 'imag')
    images += scan(8, ['mag'], base=GE, kinds=kinds)
    assert names(images) == expected('mag', 'real', 'imag')


def test_ge_real_and_imaginary_as_two_series():
    images = [*scan(7, ['real'], base=GE), *scan(8, ['imag'], base=GE), *scan(9, base=GE)]
    assert names(images) == expected('mag', 'real', 'imag')


def test_phase_is_preferred_to_real_and_imaginary():
    images = scan(7, ['mag', 'phase', 'real', 'imag'], base=GE)
    assert names(images) == expected('mag', 'phase')


def test_philips_enhanced_image_type_is_that_of_another_frame():
    kinds = ['ORIGINAL', 'PRIMARY', 'T1', 'MIXED']
    images = scan(701, ['mag', 'phase'], base=PHILIPS, kinds=kinds)
    assert names(images) == expected('mag', 'phase')


def test_a_three_dimensional_scan_is_used_though_dcm2niix_guesses_a_field_map():
    assert len(names(scan(701, ['mag', 'phase'], base=PHILIPS))) == 6


# --- several scans ---


def test_runs_of_one_protocol_are_paired_by_their_times():
    later = {'AcquisitionTime': '10:25:00.000000'}
    images = [
        *scan(5), *scan(6, ['phase']), *scan(7, **later), *scan(8, ['phase'], **later),
    ]  # fmt: skip
    result = names(images)
    assert result[:2] == [
        'sub-01_run-1_echo-1_part-mag_MEGRE.nii.gz',
        'sub-01_run-1_echo-1_part-phase_MEGRE.nii.gz',
    ]
    found = sort_images(images)
    assert [item.numbers for item in found.acquisitions] == [(5, 6), (7, 8)]


def test_protocols_get_labels_of_their_names():
    other = {'AcquisitionTime': '10:25:00.000000', 'ProtocolName': 'fast_gre 2mm'}
    images = [*scan(5, ['mag', 'phase']), *scan(7, ['mag', 'phase'], **other)]
    found = {name.split('_')[1] for name in names(images)}
    assert found == {'acq-QsmGre', 'acq-FastGre2mm'}
    assert {n.split('_')[1] for n in names(images, acq='mine')} == {'acq-mine'}


def test_without_times_two_pairs_cannot_be_told_apart():
    images = [*scan(5), *scan(6, ['phase']), *scan(7), *scan(8, ['phase'])]
    for item in images:
        del item.metadata['AcquisitionTime']
    found = sort_images(images)
    assert not found.acquisitions
    assert 'nothing tells which' in found.problems[0][1]
    assert '--series' in found.problems[0][1]
    # The pair that the user names is taken, and told.
    (item,) = sort_images(images[:6], wanted=[5, 6]).acquisitions
    assert 'their times of acquisition do not say' in item.notes[0]


def test_copies_of_the_magnitude_are_left_out():
    normalised = scan(7, kinds=['ORIGINAL', 'PRIMARY', 'M', 'NORM', 'DIS2D'])
    found = sort_images([*scan(5), *scan(6, ['phase']), *normalised])
    (item,) = found.acquisitions
    assert item.numbers == (5, 6)
    assert '7 are copies' in item.notes[0]
    assert [why for _, why in found.left_out] == ['another copy of the magnitude']


def test_copies_of_the_phase_are_left_out():
    corrected = {'kinds': ['ORIGINAL', 'PRIMARY', 'P', 'DIS2D']}
    magnitude = scan(7, kinds=['ORIGINAL', 'PRIMARY', 'M', 'DIS2D'])
    images = [*scan(5), *scan(6, ['phase'], **corrected), *magnitude, *scan(8, ['phase'])]
    found = sort_images(images)
    assert [item.numbers for item in found.acquisitions] == [(5, 8)]
    assert not found.problems
    assert len(found.left_out) == 2
    # Two that cannot be told apart: one is kept, the other is not silently dropped.
    found = sort_images([*scan(5), *scan(6, ['phase']), *scan(8, ['phase'])])
    assert [item.numbers for item in found.acquisitions] == [(5, 6)]
    assert '--series' in found.problems[0][1]


def test_one_magnitude_is_not_given_to_either_of_two_phases():
    images = [*scan(5), *scan(6, ['phase']), *scan(8, ['phase'])]
    for item in images:
        del item.metadata['AcquisitionTime']
    found = sort_images(images)
    assert not found.acquisitions
    assert len(found.problems) == 2


def test_each_echo_as_a_series_of_its_own():
    images = [
        image(number, part, te, echo)
        for number, (part, echo, te) in enumerate(
            ((part, e, te) for part in ('mag', 'phase') for e, te in enumerate(TE, 1)), 5
        )
    ]
    assert names(images) == expected('mag', 'phase')


# --- other images ---


@pytest.mark.parametrize(
    ('fields', 'shown'),
    [
        ({'kinds': ['DERIVED', 'PRIMARY', 'MNIP', 'NORM']}, 'computed by the scanner'),
        ({'kinds': ['ORIGINAL', 'PRIMARY', 'M', 'SWI', 'NORM']}, 'computed by the scanner'),
        ({'ScanningSequence': 'EP'}, 'echo-planar'),
        ({'ScanningSequence': 'SE\\IR'}, 'spin echo'),
        ({'ProtocolName': 'AAHead_Scout'}, 'localizer'),
        ({'BidsGuess': ['func', '_bold']}, 'echo-planar'),
        ({'shape': (64, 64, 3)}, 'no volume'),
        ({'ends': ('e2', 'fieldmaphz')}, 'field map'),
        ({}, 'without phase'),
    ],
)
def test_what_is_no_gradient_echo_with_phase_is_left_out(fields, shown):
    other = image(9, **({'AcquisitionTime': '10:45:00.000000'} | fields))
    found = sort_images([*scan(5, ['mag', 'phase']), other])
    assert len(found.acquisitions) == 1
    assert not found.problems
    ((_, reason),) = found.left_out
    assert shown in reason


def test_field_maps_are_left_out_unless_asked_for():
    flat = {'MRAcquisitionType': '2D', 'ProtocolName': 'gre_field_mapping'}
    two = [
        image(8, part, te, e, **flat)
        for e, te in enumerate(TE[:2], 1)
        for part in ('mag', 'phase')
    ]
    assert 'field map' in sort_images(two).left_out[0][1]
    assert sort_images(two, wanted=[8]).acquisitions
    # Siemens saves a phase difference as the phase of the second echo.
    difference = [*scan(8)[:2], image(9, 'phase', TE[1], 2)]
    assert 'phase difference' in sort_images(difference, wanted=[8, 9]).left_out[0][1]


def test_t1w_volumes_are_recognised():
    kinds = ['ORIGINAL', 'PRIMARY', 'M', 'NORM']
    t1w = {'te': 0.0024, 'echo': None, 'AcquisitionTime': '10:05:00.0', 'InversionTime': 0.9}
    mprage = image(3, ProtocolName='t1_mprage_sag_p2', kinds=kinds, **t1w)
    plain = image(2, ProtocolName='t1_mprage_sag_p2', **t1w)
    gre = scan(5, ['mag', 'phase'])
    found = sort_images([plain, mprage, *gre])
    assert [(item.suffix, item.numbers) for item in found.acquisitions] == [
        ('T1w', (3,)), ('MEGRE', (5,)),
    ]  # fmt: skip
    assert found.left_out[0][1] == 'another copy of a T1w image'
    for name in ('3D Ax T1 BRAVO', 'WIP sT1W_3D_TFE', 'anat-T1w_acq-tfl', 'Sag T1 FSPGR'):
        (one,) = sort_images([image(3, ProtocolName=name, **t1w)]).acquisitions
        assert one.suffix == 'T1w'
    for name in ('mp2rage_INV1', 't2_space', 'B1map'):
        assert not sort_images([image(3, ProtocolName=name, **t1w)]).acquisitions


# --- incomplete or contradictory ---


def test_single_echo_is_t2starw_without_an_echo_entity():
    found = names([image(5), image(6, 'phase')])
    assert found == ['sub-01_part-mag_T2starw.nii.gz', 'sub-01_part-phase_T2starw.nii.gz']


def test_phase_alone_is_written_and_told():
    (item,) = sort_images(scan(6, ['phase'])).acquisitions
    assert 'no magnitude' in item.notes[0]


def test_a_missing_echo_is_named():
    images = [*scan(5), *scan(6, ['phase'])[:2]]
    reason = problem(images)
    assert 'phase image of echo time 12 ms is missing' in reason
    assert 'mag: 4, 8, 12 ms; phase: 4, 8 ms' in reason


def test_an_echo_missing_everywhere_leaves_its_gap():
    images = [i for i in [*scan(5), *scan(6, ['phase'])] if i.echo != 2]
    (item,) = sort_images(images).acquisitions
    assert list(item.te) == [1, 3]
    assert 'echo 2 is missing' in item.notes[0]
    assert names(images)[2].startswith('sub-01_echo-3')


def test_echo_times_that_differ_between_parts_are_not_reconciled():
    images = [*scan(5), *scan(6, ['phase'])]
    images[-1].metadata['EchoTime'] = 0.0121
    assert 'is missing' in problem(images)


def test_one_echo_time_for_all_echoes_is_never_mended_by_a_guess():
    images = scan(7, ['mag', 'phase'], base=GE)
    for item in images:
        item.metadata['EchoTime'] = 0.004
    reason = problem(images)
    assert 'have the echo time 4 ms' in reason
    assert '--echo-times' in reason
    (item,) = sort_images(images, echo_times=[0.004, 0.009, 0.014]).acquisitions
    assert item.te == {1: 0.004, 2: 0.009, 3: 0.014}
    assert 'those of --echo-times' in item.notes[0]
    targets = plan_targets([item], '01')
    assert [target.content['EchoTime'] for target in targets] == [0.004] * 2 + [0.009] * 2 + [
        0.014
    ] * 2
    # Another number of times is for another scan.
    assert 'have the echo time' in problem(images, echo_times=[0.004, 0.009])


def test_echo_times_need_echo_numbers():
    images = [image(7, 'phase', None, None, ends=('ph' + letter,)) for letter in ('', 'a')]
    assert 'no EchoTime' in problem(images)
    assert 'cannot be used' in problem(images, echo_times=[0.004, 0.009])


def test_only_one_of_real_and_imaginary():
    assert 'imag images are missing' in problem(scan(7, ['mag', 'real'], base=GE))


@pytest.mark.parametrize(
    ('fields', 'shown'),
    [
        ({'ends': ('phMag',), 'shape': (64, 64, 40, 2)}, 'merged into one image'),
        ({'kinds': ['ORIGINAL', 'PRIMARY', 'M', 'P'], 'shape': (64, 64, 40, 2)}, 'merged'),
        ({'shape': (64, 64, 40, 6)}, 'holds 6 volumes'),
        ({'ends': ('cH1P',)}, 'single coil'),
        ({'values': (0, 5e-34)}, 'misread'),
    ],
)
def test_merged_or_uncombined_images_are_problems(fields, shown):
    assert shown in problem([image(5, **fields)])


def test_a_lost_slice_is_never_hidden():
    images = [*scan(5), *scan(6, ['phase'])[:2], image(6, 'phase', TE[2], 3, shape=(64, 64, 39))]
    assert 'different grids (64 x 64 x 39 and 64 x 64 x 40)' in problem(images)
    # The magnitude of an acquisition is lost: the phase alone is not the scan.
    images = [image(5, 'mag', te, e, shape=(64, 64, 39)) for e, te in enumerate(TE, 1)]
    assert 'magnitude (series 5) has another grid' in problem([*images, *scan(6, ['phase'])])


JUNK = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)
KEYS = ('EchoTime', 'EchoNumber', 'ImageType', 'AcquisitionTime', 'ProtocolName', 'BidsGuess')
KEYS += ('ScanningSequence', 'MRAcquisitionType', 'EchoTrainLength', 'RepetitionTime')


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from(KEYS), JUNK), max_size=6))
def test_any_sidecar_ends_in_a_plan_or_a_reason(changes):
    images = [*scan(5), *scan(6, ['phase'])]
    for index, key, value in changes:
        images[index].metadata[key] = value
    found = sort_images(images)
    targets = plan_targets(found.acquisitions, '01')
    names = [target.relative for target in targets]
    assert len(set(names)) == len(names)
    for target in targets:
        json.dumps(dict(target.content), allow_nan=False)
        assert target.content['EchoTime'] > 0 or target.relative.endswith('_T1w.nii.gz')
    render(targets, found)
    assert found.acquisitions or found.left_out or found.problems


def test_the_phase_of_an_swi_scan_is_used():
    kinds = ['ORIGINAL', 'PRIMARY', 'P', 'SWI']
    assert names([*scan(5), *scan(6, ['phase'], kinds=kinds)]) == expected('mag', 'phase')


# --- units and sidecars ---


@pytest.mark.parametrize(
    ('values', 'units'),
    [
        ((-3.1416, 3.1405), 'rad'),
        ((0.0, 6.283), 'rad'),
        ((-4096, 4094), 'arbitrary'),
        ((0, 4095), 'arbitrary'),
        ((-3142, 3142), 'arbitrary'),
        ((-0.8, 0.9), 'arbitrary'),
    ],
)
def test_units_come_from_the_values_of_all_echoes(values, units):
    assert phase_units([image(6, 'phase', values=values)]) == units
    half = (values[0] / 2, values[1] / 2)
    assert phase_units([image(6, 'phase', values=v) for v in (half, values)]) == units


def test_sidecars_hold_nothing_private():
    targets = plan_targets(sort_images([*scan(5), *scan(6, ['phase'])]).acquisitions, '01')
    for target in targets:
        text = str(target.content).lower()
        assert 'secret' not in text
        assert '987654' not in text
        assert '10:15' not in text
        assert 'qsm_gre' not in text  # free text
        assert target.content['RepetitionTimeExcitation'] == 0.03
        assert ('Units' in target.content) == (target.part == 'phase')
