"""Scans that are unusual but good raise no alarm of groups A and B."""

import numpy as np
import pytest
from defects import write_scan

from qsmflow.bids import collect
from qsmflow.phantom import small_acquisition

TE = (0.004, 0.012, 0.020)
#: What may be said of them all the same.
ALLOWED = {('A25', 'INFO')}


def brain_only(scan):
    inside = scan.truth['mask'][..., None]
    return scan.magnitude * inside, scan.phase * inside


def phase_of_the_brain_only(scan):
    return scan.magnitude, scan.phase * scan.truth['mask'][..., None]


def air_below_a_threshold(scan):
    magnitude = scan.magnitude
    return np.where(magnitude > 0.05 * magnitude.max(), magnitude, 0), scan.phase


def interpolated(scan):
    """Half of k-space along each axis, filled up with zeros."""
    axes = (0, 1, 2)
    full = np.fft.fftshift(np.fft.fftn(scan.magnitude * np.exp(1j * scan.phase), axes=axes), axes)
    part = np.zeros_like(full)
    middle = tuple(slice(n // 4, n - n // 4) for n in full.shape[:3])
    part[middle] = full[middle]
    signal = np.fft.ifftn(np.fft.ifftshift(part, axes), axes=axes)
    return np.abs(signal), np.angle(signal)


def crop_without_air(scan):
    middle = (slice(12, 36), slice(14, 42), slice(14, 36))
    return scan.magnitude[middle], scan.phase[middle]


@pytest.mark.parametrize(
    'change',
    [
        brain_only,
        phase_of_the_brain_only,
        air_below_a_threshold,
        interpolated,
        crop_without_air,
    ],
)
def test_no_alarm(dataset, change):
    scan = small_acquisition(te=TE)
    write_scan(dataset, *change(scan), TE, scan.affine)
    (series,) = collect(dataset.root).series
    told = {(f.code, f.level) for f in series.findings if f.code[0] in 'AB' and len(f.code) == 3}
    assert told <= ALLOWED
