"""Numbers that tell phase from what is no phase: of good heads, and of bad ones."""

import numpy as np
import pytest

from qsmflow.algorithms import phase_evidence as evidence
from qsmflow.algorithms.phase import wrap
from qsmflow.bids import checks_phase as limits
from qsmflow.phantom import small_acquisition

HEADS = {
    '3 T': {'te': (0.004, 0.012, 0.020)},
    '7 T': {'te': (0.003, 0.006, 0.012), 'field_strength': 7.0},
    '1.5 T': {'te': (0.005, 0.040), 'field_strength': 1.5},
    'oblique, stored as PIL': {
        'te': (0.004, 0.020), 'rotation_deg': (20.0, 10.0, 0.0), 'axes': 'PIL',
    },
    'noisy': {'te': (0.004, 0.020), 'snr': 15.0, 'dephasing': True},
    'one echo': {'te': (0.020,), 'phase_offset': False},
}  # fmt: skip


@pytest.fixture(params=HEADS)
def head(request):
    return small_acquisition(**HEADS[request.param])


@pytest.fixture
def scan():
    return small_acquisition(**HEADS['3 T'])


def test_good_heads_are_far_from_every_limit(head):
    magnitude, phase = head.magnitude[..., 0], head.phase[..., 0]
    assert evidence.noise_contrast(phase, magnitude) > 1.5 * limits.IS_PHASE
    assert not evidence.noise_contrast(magnitude, phase) > 0.5 * limits.IS_PHASE
    assert abs(evidence.similarity(phase, magnitude)) < 0.5 * limits.SAME_IMAGE
    assert evidence.air_concentration(phase, magnitude) < 0.2 * limits.CONCENTRATED
    assert evidence.jump_share(phase) > 100 * limits.FEW_JUMPS
    assert evidence.slice_steps(phase, magnitude) < 0.5 * limits.SLICE_STEP
    last = evidence.slow_phase_spread(head.phase[..., -1], head.magnitude[..., -1])
    assert last > 1.5 * limits.UNFILTERED
    assert evidence.distinct_values(phase) > limits.FEW_VALUES


@pytest.mark.parametrize('name', ['3 T', '7 T'])
def test_good_heads_have_no_lines(name):
    head = small_acquisition(**HEADS[name])
    later = head.phase[..., 1]
    _, length = evidence.singular_lines(
        head.phase[..., 0], head.magnitude[..., 0], head.voxel_size, later
    )
    assert length < 0.6 * limits.LINE_MM


def test_line_of_the_coils_is_found(scan):
    x, y, _ = np.indices(scan.magnitude.shape[:3])
    pole = np.arctan2(y - 25.2, x - 21.4)
    first, later = (wrap(scan.phase[..., echo] + pole) for echo in (0, 1))
    density, length = evidence.singular_lines(
        first, scan.magnitude[..., 0], scan.voxel_size, later
    )
    assert length > 3 * limits.LINE_MM
    assert density > 1e-4


@pytest.mark.parametrize('width', [2.0, 3.0])
def test_filtered_phase_is_flat(scan, width):
    from scipy import ndimage

    signal = scan.magnitude[..., -1] * np.exp(1j * scan.phase[..., -1])
    slow = [ndimage.gaussian_filter(part, width) for part in (signal.real, signal.imag)]
    filtered = np.angle(signal * (slow[0] - 1j * slow[1]))
    spread = evidence.slow_phase_spread(filtered, scan.magnitude[..., -1])
    assert spread < limits.FILTERED


def test_other_images_are_no_phase(scan):
    magnitude, phase = scan.magnitude[..., 0], scan.phase[..., 0]
    assert not evidence.noise_contrast(magnitude, phase) > limits.IS_NO_PHASE
    assert evidence.similarity(3 * magnitude + 5, magnitude) > limits.SAME_IMAGE
    real = magnitude * np.cos(phase)
    assert evidence.air_concentration(real, magnitude) > limits.CONCENTRATED


def test_unwrapped_phase_has_no_jumps():
    x, y, z = np.mgrid[0:1:30j, 0:1:30j, 0:1:30j]
    smooth = 30 * x + 8 * y**2 - 3 * z
    assert evidence.jump_share(smooth) == 0
    assert evidence.jump_share(wrap(smooth)) > limits.FEW_JUMPS


def test_offsets_of_slices(scan):
    offsets = np.random.default_rng(0).normal(0, 1, scan.phase.shape[2])
    phase = wrap(scan.phase[..., 0] + offsets)
    assert evidence.slice_steps(phase, scan.magnitude[..., 0]) > limits.SLICE_STEP


def test_numbers_of_images_without_signal():
    empty = np.zeros((6, 6, 6), np.float32)
    assert not evidence.object_mask(empty).any()
    assert np.isnan(evidence.noise_contrast(empty, empty))
    assert np.isnan(evidence.slow_phase_spread(empty, empty))
    assert evidence.singular_lines(empty, empty, (1, 1, 1), empty) == (0.0, 0.0)
    assert evidence.blank_planes(empty) == [(6, 0)] * 3
