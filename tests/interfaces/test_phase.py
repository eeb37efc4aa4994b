"""The phase interfaces do what the kernels do, on files."""

import logging
from dataclasses import asdict

import numpy as np
import pytest

from qsmflow import io
from qsmflow.algorithms import get_method, phase
from qsmflow.algorithms.bipolar import remove_bipolar
from qsmflow.algorithms.phase_offset import remove_phase_offset
from qsmflow.interfaces.phase import (
    BipolarCorrection,
    PhaseOffsetRemoval,
    PhasePreparation,
    PhaseUnwrapping,
)
from qsmflow.phantom import make_head, simulate_gre

RADIANS = asdict(phase.parse_scaling('rad'))


@pytest.fixture
def echoes(scan, save):
    """Return one file for each echo of magnitude and of phase."""
    return [
        [save(f'{name}_{echo}', image[..., echo]) for echo in range(len(scan.te))]
        for name, image in (('m', scan.magnitude), ('p', scan.phase))
    ]


def test_one_file_for_each_echo_and_one_file_for_all_are_the_same(scan, files, echoes, run, check):
    by_echo = run(
        PhasePreparation(magnitude_files=echoes[0], phase_files=echoes[1], scaling=RADIANS)
    )
    in_4d = run(
        PhasePreparation(
            magnitude_files=[files.magnitude], phase_files=[files.phase], scaling=RADIANS
        )
    )
    for out in (by_echo, in_4d):
        check(out.magnitude, scan.magnitude)
        check(out.phase, scan.phase)
        check(out.first_magnitude, scan.magnitude[..., 0])
        assert out.info['SliceChopRemoved'] is False
        assert out.info['SliceChopEvidence'] == phase.slice_chop(scan.magnitude, scan.phase)


def test_stored_integers_become_radians_as_the_kernel_says(scan, save, run, check):
    stored = np.rint(scan.phase / np.pi * 4096).clip(-4096, 4095)
    scaling = phase.identify_scaling(stored.min(), stored.max(), integer=True)
    path = save('stored', stored.astype(np.int32))
    out = run(PhasePreparation(phase_files=[path], scaling=asdict(scaling)))
    check(out.phase, phase.scale_to_radians(stored.astype(np.float32), scaling))
    error = phase.wrap(io.load_volume(out.phase).data - scan.phase)
    assert np.abs(error).max() < 2 * np.pi / 8192 * 2


def test_real_and_imaginary_parts_are_magnitude_and_phase(scan, save, run):
    signal = scan.magnitude * np.exp(1j * scan.phase)
    parts = {
        'real_files': [save('real', signal.real)],
        'imaginary_files': [save('imaginary', signal.imag)],
    }
    out = run(PhasePreparation(**parts))
    np.testing.assert_allclose(io.load_volume(out.magnitude).data, scan.magnitude, rtol=1e-4)
    bright = scan.magnitude > 1
    error = phase.wrap(io.load_volume(out.phase).data - scan.phase)
    assert np.abs(error[bright]).max() < 1e-4


def test_chosen_echoes_alone_are_kept_in_their_order(scan, files, echoes, run, check):
    for inputs in (
        {'magnitude_files': [files.magnitude], 'phase_files': [files.phase]},
        {'magnitude_files': echoes[0], 'phase_files': echoes[1]},
    ):
        out = run(PhasePreparation(**inputs, scaling=RADIANS, echoes=[1, 2]))
        check(out.phase, scan.phase[..., 1:])
        check(out.first_magnitude, scan.magnitude[..., 1])


def test_without_magnitude_all_voxels_count_the_same(scan, files, run, check):
    out = run(PhasePreparation(phase_files=[files.phase], scaling=RADIANS))
    check(out.magnitude, np.ones_like(scan.phase))
    check(out.phase, scan.phase)


def test_a_single_echo_keeps_its_axis_of_echoes(scan, echoes, run):
    out = run(
        PhasePreparation(magnitude_files=echoes[0][:1], phase_files=echoes[1][:1], scaling=RADIANS)
    )
    unwrapped = run(
        PhaseUnwrapping(
            phase=out.phase, magnitude=out.magnitude, mask=out.first_magnitude, te=[0.004]
        )
    )
    assert io.load_echoes([unwrapped.unwrapped_phase]).data.shape == (*scan.magnitude.shape[:3], 1)


@pytest.mark.parametrize(('option', 'removed'), [('auto', True), ('yes', True), ('no', False)])
def test_slice_chop_is_removed(scan, files, save, run, check, option, removed):
    chopped = phase.remove_slice_chop(scan.phase)
    out = run(
        PhasePreparation(
            magnitude_files=[files.magnitude],
            phase_files=[save('chopped', chopped)],
            scaling=RADIANS,
            remove_slice_chop=option,
        )
    )
    assert out.info['SliceChopEvidence'] > PhasePreparation.chop_limit
    assert out.info['SliceChopRemoved'] is removed
    check(out.phase, phase.remove_slice_chop(chopped) if removed else chopped)
    if removed:
        error = phase.wrap(io.load_volume(out.phase).data - scan.phase)
        assert np.abs(error).max() < 1e-5


@pytest.mark.parametrize('bad', [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_become_zero(scan, save, run, bad):
    images = {name: getattr(scan, name).copy() for name in ('magnitude', 'phase')}
    for image in images.values():
        image[3, 4, 5, 0] = bad
    inputs = {f'{name}_files': [save(name, image)] for name, image in images.items()}
    out = run(PhasePreparation(**inputs, scaling=RADIANS))
    for path in (out.magnitude, out.phase):
        data = io.load_volume(path).data
        assert data[3, 4, 5, 0] == 0
        assert np.isfinite(data).all()


def test_images_of_two_grids_are_refused(scan, files, save, run):
    moved = scan.affine.copy()
    moved[0, 3] += 1
    path = save('moved', scan.magnitude, io.Volume(scan.magnitude, moved))
    with pytest.raises(io.GridMismatchError, match='does not lie on the grid'):
        run(PhasePreparation(magnitude_files=[path], phase_files=[files.phase], scaling=RADIANS))


EVEN_TE = (0.004, 0.009, 0.014, 0.019, 0.024)


@pytest.fixture(scope='module')
def bipolar_scan():
    """Return a head whose even echoes have 2 rad more at the edges, by a bipolar readout."""
    head = make_head(voxel_size=16.0, seed=1)
    grid = {'shape': (32, 38, 32), 'voxel_size': 6.0, 'dephasing': False}
    return simulate_gre(head, te=EVEN_TE, bipolar=2.0, seed=1, **grid)


@pytest.fixture
def bipolar_inputs(bipolar_scan, tmp_path):
    """Return a function that gives the inputs for chosen echoes of the bipolar scan."""
    grid = io.Volume(bipolar_scan.truth['mask'], bipolar_scan.affine)

    def choose(echoes):
        arrays = {
            'phase': bipolar_scan.phase[..., echoes],
            'magnitude': bipolar_scan.magnitude[..., echoes],
            'mask': bipolar_scan.truth['mask'],
        }
        files = {
            name: io.save_volume(array, grid, tmp_path / f'{name}.nii')
            for name, array in arrays.items()
        }
        return files | {'te': [EVEN_TE[echo] for echo in echoes]}

    return choose


def test_bipolar_readout_is_found_and_removed_as_the_kernel_does(
    bipolar_scan, bipolar_inputs, run, caplog
):
    caplog.set_level(logging.INFO, logger='qsmflow')
    out = run(BipolarCorrection(**bipolar_inputs(range(5))))
    expected, _, found = remove_bipolar(
        bipolar_scan.phase,
        bipolar_scan.magnitude,
        bipolar_scan.truth['mask'],
        bipolar_scan.voxel_size,
        te=EVEN_TE,
    )
    np.testing.assert_array_equal(io.load_volume(out.phase).data, expected)
    info = out.info
    assert (info['Mode'], info['Tested'], info['Corrected']) == ('auto', True, True)
    assert info['Evidence'] == found['evidence'] > 1000
    # 2 rad at an edge, half of it for each direction, over half of 32 voxels of 6 mm.
    np.testing.assert_allclose(info['Gradient'], (1 / 96, 0, 0), atol=1e-4)
    assert len(info['GradientError']) == 3
    assert info['Axis'] == 'i'
    assert 1 < info['Span'] < 2
    assert 'Note' not in info
    assert '[FIX B41]' in caplog.text


def test_bipolar_readout_of_echoes_that_were_left_out(bipolar_scan, bipolar_inputs, run):
    inputs = bipolar_inputs([0, 1, 3, 4])
    right = run(BipolarCorrection(**inputs, polarity=[-1, 1, 1, -1])).info
    np.testing.assert_allclose(right['Gradient'], (1 / 96, 0, 0), atol=1e-4)
    wrong = run(BipolarCorrection(**inputs)).info
    assert abs(wrong['Gradient'][0] - 1 / 96) > 1e-3


def test_bipolar_readout_of_three_echoes_is_less_certain(bipolar_inputs, run):
    info = run(BipolarCorrection(**bipolar_inputs(range(3)))).info
    assert info['Corrected']
    assert 'bends in time' in info['Note']


def test_readout_in_one_direction_is_left_alone_unless_asked_for(scan, files, run, caplog):
    caplog.set_level(logging.INFO, logger='qsmflow')
    inputs = {'phase': files.phase, 'magnitude': files.magnitude, 'mask': files.mask}
    out = run(BipolarCorrection(**inputs, te=list(scan.te)))
    assert out.phase == files.phase, 'not even written again'
    assert (out.info['Tested'], out.info['Corrected']) == (True, False)
    assert 0 < out.info['Evidence'] < 6
    assert not caplog.records
    forced = run(BipolarCorrection(**inputs, te=list(scan.te), mode='on', params={'order': 1}))
    expected = remove_bipolar(
        scan.phase,
        scan.magnitude,
        scan.truth['mask'],
        scan.voxel_size,
        te=scan.te,
        always=True,
        order=1,
    )[0]
    np.testing.assert_array_equal(io.load_volume(forced.phase).data, expected)
    assert (forced.info['Mode'], forced.info['Corrected']) == ('on', True)


@pytest.mark.parametrize(
    ('echoes', 'mode', 'polarity', 'reason'),
    [
        ([0, 1], 'auto', None, 'in use: 2'),
        ([0], 'auto', None, 'in use: 1'),
        ([0, 2, 4], 'auto', [-1, -1, -1], 'same direction'),
        ([0, 1, 2], 'off', None, 'switched off'),
    ],
)
def test_what_is_not_tested_is_said(bipolar_inputs, run, caplog, echoes, mode, polarity, reason):
    caplog.set_level(logging.INFO, logger='qsmflow')
    inputs = bipolar_inputs(echoes) | ({'polarity': polarity} if polarity else {})
    out = run(BipolarCorrection(**inputs, mode=mode))
    assert out.phase == inputs['phase']
    assert reason in out.info['Reason']
    assert out.info | {'Reason': ''} == {
        'Mode': mode, 'Tested': False, 'Corrected': False, 'Reason': ''
    }  # fmt: skip
    assert reason in caplog.text
    if mode != 'off':
        with pytest.raises(ValueError, match=reason):
            run(BipolarCorrection(**inputs, mode='on'))


def test_correction_that_is_asked_for_and_finds_no_signal_warns(
    bipolar_scan, bipolar_inputs, run, caplog
):
    inputs = bipolar_inputs(range(3))
    grid = io.load_volume(inputs['mask'])
    dark = np.zeros((*grid.shape, 3), np.float32)
    io.save_volume(dark, grid, inputs['magnitude'])
    out = run(BipolarCorrection(**inputs, mode='on'))
    assert not out.info['Corrected']
    assert caplog.records[-1].levelname == 'WARNING'
    assert 'no signal' in caplog.text


def test_offset_removal_is_the_kernel(scan, files, run, check):
    inputs = {'phase': files.phase, 'magnitude': files.magnitude, 'mask': files.mask}
    out = run(PhaseOffsetRemoval(**inputs, te=list(scan.te), params={'sigma': 14.0}))
    corrected, offset = remove_phase_offset(
        scan.phase, scan.magnitude, scan.truth['mask'], scan.voxel_size, te=scan.te, sigma=14.0
    )
    check(out.phase, corrected)
    check(out.phase_offset, offset)
    assert offset.std() > 0.1


@pytest.mark.parametrize('method', ['romeo', 'laplacian'])
def test_unwrapping_is_the_kernel(scan, files, run, check, method):
    inputs = {'phase': files.phase, 'magnitude': files.magnitude, 'mask': files.mask}
    out = run(PhaseUnwrapping(**inputs, te=list(scan.te), method=method))
    expected = get_method('unwrapping', method)(
        scan.phase, scan.magnitude, scan.truth['mask'], scan.voxel_size, te=scan.te
    )
    check(out.unwrapped_phase, expected)
    assert np.abs(expected).max() > np.pi


def test_unwrapping_passes_its_parameters(scan, files, run, check):
    inputs = {'phase': files.phase, 'magnitude': files.magnitude, 'mask': files.mask}
    out = run(PhaseUnwrapping(**inputs, te=list(scan.te), params={'individual': True}))
    expected = get_method('unwrapping', 'romeo')(
        scan.phase,
        scan.magnitude,
        scan.truth['mask'],
        scan.voxel_size,
        te=scan.te,
        individual=True,
    )
    check(out.unwrapped_phase, expected)
