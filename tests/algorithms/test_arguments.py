"""Arguments that no method can work with are named, in every stage and for every method."""

import functools
import inspect

import numpy as np
import pytest

from qsmflow.algorithms import catalog, get_method
from qsmflow.algorithms._smoothing import MaskedSmoother
from qsmflow.algorithms._voxels import Voxels
from qsmflow.algorithms.bipolar import bipolar_evidence, remove_bipolar
from qsmflow.algorithms.inversion.direct import tkd
from qsmflow.algorithms.phase_offset import remove_phase_offset, remove_slice_offsets
from tests.algorithms.fields import phantom

TE = (0.005, 0.010, 0.015)
UNIT = (1.0, 1.0, 1.0)
SHAPE = (16, 15, 14)
OFFSETS = {
    'remove_phase_offset': remove_phase_offset,
    'remove_slice_offsets': remove_slice_offsets,
    'bipolar_evidence': bipolar_evidence,
    'remove_bipolar': remove_bipolar,
}
NAMES = [
    *((stage, name) for stage, methods in catalog.STAGES.items() for name in methods),
    *(('phase', name) for name in OFFSETS),
]
IDS = ['-'.join(pair) for pair in NAMES]


def function(stage, name):
    return OFFSETS[name] if stage == 'phase' else get_method(stage, name)


@functools.cache
def data():
    _, mask, local, background = phantom(SHAPE)
    return mask, local, local + background


def call(stage, name, voxel_size=UNIT, **options):
    """Call a method with good data, so that only what the test gives can be wrong."""
    method = function(stage, name)
    mask, local, total = data()
    if 'te' in inspect.signature(method).parameters:
        times = np.array(TE)
        decay = np.exp(-40 * times) * np.ones((*SHAPE, 1))
        options = {'te': TE, **options}
        if stage == 'relaxometry':
            return method(decay, mask, voxel_size, **options)
        phase = np.angle(np.exp(1j * 800 * times * total[..., None]))
        options |= {'f0': 127.0} if stage in ('field', 'inversion') else {}
        if stage == 'inversion':
            return method(phase, mask, voxel_size, **{'magnitudes': decay, **options})
        return method(phase, decay, mask, voxel_size, **options)
    if name in ('sharp', 'resharp', 'ismv'):
        options = {'radius': 3.0, **options}
    if stage == 'strategy':
        weights = mask * np.float32(1)
        weights[8, 8, 8] = 0.1
        return method(tkd, local, mask, voxel_size, weights=weights, **options)
    return method(total if stage == 'background' else local, mask, voxel_size, **options)


@pytest.mark.parametrize(('stage', 'name'), NAMES, ids=IDS)
@pytest.mark.parametrize(
    'voxel_size',
    [(1, 1, np.nan), (0, 1, 1), (1, 1, -1), (1, np.inf, 1), (1, 1), 1.0],
    ids=['nan', 'zero', 'negative', 'infinite', 'two', 'scalar'],
)
def test_voxel_sizes(stage, name, voxel_size):
    with pytest.raises(ValueError, match='voxel_size must be three positive lengths in mm'):
        call(stage, name, voxel_size)


SMOOTHED = [('phase', 'remove_phase_offset'), ('field', 'sequential'), ('field', 'refined')]


@pytest.mark.parametrize(('stage', 'name'), SMOOTHED)
@pytest.mark.parametrize('sigma', [np.nan, np.inf, 0, -1, '4'])
def test_widths_of_gaussians(stage, name, sigma):
    with pytest.raises(ValueError, match='sigma must be a positive number'):
        call(stage, name, sigma=sigma)


@pytest.mark.parametrize('sigma', [1e3, 1e7, 1e11, 1e300])
def test_a_gaussian_wider_than_the_mask_gives_the_mean(sigma):
    mask = data()[0]
    voxels = Voxels(mask)
    values = np.random.default_rng(0).normal(size=len(voxels)).astype(np.float32)
    weights = np.random.default_rng(1).uniform(size=len(voxels)).astype(np.float32)
    smooth = MaskedSmoother(voxels, UNIT, sigma)(values, weights)
    np.testing.assert_allclose(smooth, np.average(values, weights=weights), atol=1e-4)


@pytest.mark.parametrize('voxel_size', [(np.nan, 1, 1), (0, 1, 1)])
def test_the_smoother_checks_what_it_is_given(voxel_size):
    voxels = Voxels(data()[0])
    with pytest.raises(ValueError, match='voxel_size'):
        MaskedSmoother(voxels, voxel_size, 4.0)
    with pytest.raises(ValueError, match='sigma'):
        MaskedSmoother(voxels, UNIT, voxel_size[0])


TIMED = [(stage, name) for stage, name in NAMES if stage in ('unwrapping', 'field', 'phase')]
OTHERS = [('inversion', 'tgv_phase'), *((s, n) for s, n in NAMES if s == 'relaxometry')]


@pytest.mark.parametrize(('stage', 'name'), [*TIMED, *OTHERS])
@pytest.mark.parametrize(
    'te', [(np.nan, 0.010, 0.015), (-0.005, 0.010, 0.025), (0.005, 0.010, np.inf)]
)
def test_echo_times(stage, name, te):
    with pytest.raises(ValueError, match=r'positive and (in )?increasing'):
        call(stage, name, te=te)


def test_complex_series():
    mask, _, total = data()
    series = np.exp(1j * total[..., None] * np.array(TE))
    for stage, name in NAMES:
        if stage == 'relaxometry':
            with pytest.raises(ValueError, match=r'magnitude must be real; got complex128\. Take'):
                function(stage, name)(series, mask, UNIT, te=TE)
    for stage, name in TIMED:
        options = {'te': TE} | ({'f0': 127.0} if stage == 'field' else {})
        with pytest.raises(ValueError, match=r'phase must be real; got complex128\. Take'):
            function(stage, name)(series, None, mask, UNIT, **options)
        with pytest.raises(ValueError, match=r'magnitude must be real; got complex128\. Take'):
            function(stage, name)(series.real, series, mask, UNIT, **options)


COUNTS = (
    *('max_iter', 'inner_iter', 'first_iter', 'strong_iter', 'max_seeds'),
    *('rounds', 'pdf_iter', 'outside_iter'),
)
MAY_BE_ZERO = ('start_iter', 'refine', 'peel', 'erosions', 'alternations', 'pad')


def having(*parameters):
    """Return (stage, method, parameter) for each method that has one of the parameters."""
    return [
        (stage, name, parameter)
        for stage, name in NAMES
        for parameter in parameters
        if parameter in inspect.signature(function(stage, name)).parameters
    ]


@pytest.mark.parametrize(('stage', 'name', 'parameter'), having(*COUNTS))
@pytest.mark.parametrize('value', [0, -1, 0.5, 1.5, np.nan, np.inf, '5', None])
def test_counts(stage, name, parameter, value):
    with pytest.raises(ValueError, match=f'{parameter} must be a whole number, 1 or more; got'):
        call(stage, name, **{parameter: value})


@pytest.mark.parametrize(('stage', 'name', 'parameter'), having(*MAY_BE_ZERO))
@pytest.mark.parametrize('value', [-1, 0.5, np.nan, '5'])
def test_counts_that_may_be_zero(stage, name, parameter, value):
    with pytest.raises(ValueError, match=f'{parameter} must be a whole number, 0 or more; got'):
        call(stage, name, **{parameter: value})


@pytest.mark.parametrize(('stage', 'name', 'parameter'), having('coarse_iter', 'refine_coarse'))
@pytest.mark.parametrize('value', [30, (-1,), (0.5,), 'ab', None])
def test_lists_of_counts(stage, name, parameter, value):
    with pytest.raises(ValueError, match=f'{parameter} must be a sequence of whole numbers'):
        call(stage, name, **{parameter: value})


@pytest.mark.parametrize(('stage', 'name', 'parameter'), having('max_iter'))
def test_a_whole_float_is_a_count(stage, name, parameter):
    one, other = (call(stage, name, max_iter=value) for value in (3, 3.0))
    if stage in ('field', 'relaxometry'):
        one, other = (
            getattr(result, 'total_field' if stage == 'field' else 'r2star')
            for result in (one, other)
        )
    elif stage == 'background':
        one, other = one[0], other[0]
    assert one.any()
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(('stage', 'name', 'parameter'), having('template'))
@pytest.mark.parametrize('value', [3, -1, 1.5, None])
def test_templates(stage, name, parameter, value):
    with pytest.raises(ValueError, match=r'template must be an echo index in 0\.\.2; got'):
        call(stage, name, template=value)


@pytest.mark.parametrize('name', ['tkd', 'tsvd', 'rts', 'ilsqr'])
@pytest.mark.parametrize('value', [0, -0.1, 2 / 3, np.nan])
def test_levels_of_truncation(name, value):
    with pytest.raises(ValueError, match=r'threshold must lie in \(0, 2/3\)'):
        call('inversion', name, threshold=value)


@pytest.mark.parametrize(
    ('value', 'message'),
    [
        (6, 'radii must be a sequence of lengths'),
        ((), 'radii must be a sequence of lengths'),
        ([0.4], r'radii\[0\] must be 0\.6 mm or more'),
        ([5, 0.4], r'radii\[1\] must be 0\.6 mm or more'),
        ([np.nan], r'radii\[0\] must be a positive number'),
    ],
)
def test_radii(value, message):
    with pytest.raises(ValueError, match=message):
        call('background', 'vsharp', radii=value)


def test_steps_of_the_gradient_descent():
    with pytest.raises(ValueError, match=r'step must lie in \(0, 2\.25\)'):
        call('inversion', 'ndi', step=2.25, accelerate=False)
    assert call('inversion', 'ndi', step=5).any()


WEIGHTED = [(stage, name) for stage, name in NAMES if stage in ('background', 'inversion')]


@pytest.mark.parametrize(('stage', 'name'), WEIGHTED)
def test_weights_whose_squares_vanish(stage, name):
    mask = data()[0]
    with pytest.raises(ValueError, match=r'weights are 1e-25 at most .* Divide them'):
        call(stage, name, weights=mask * np.float32(1e-25))
    result = call(stage, name, weights=mask * np.float32(1e-3))
    assert (result[0] if stage == 'background' else result).any()


def test_weights_that_are_zero_where_the_sphere_fits():
    mask = data()[0]
    kept = call('background', 'resharp')[1]
    with pytest.raises(ValueError, match='weights are zero wherever a sphere of radius 3 mm fits'):
        call('background', 'resharp', weights=1.0 * (mask & ~kept))
