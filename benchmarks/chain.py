"""The chain from raw phase to susceptibility, with any preset and methods of the catalogue."""

from functools import partial

import numpy as np

from qsmflow import io, units
from qsmflow.algorithms import catalog, get_method, method_parameters
from qsmflow.algorithms.bipolar import remove_bipolar
from qsmflow.algorithms.confidence import edge_confidence
from qsmflow.algorithms.phase_offset import remove_phase_offset
from qsmflow.settings import ReconstructionSettings

#: Chains that the speed benchmark times: the presets, and the methods of the peer's.
CHAINS = {
    **{name: {'preset': name} for name in catalog.PRESETS},
    'romeo_vsharp_rts': {'field': 'weighted', 'background': 'vsharp', 'inversion': 'rts'},
}
#: What a chain may begin with.
STARTS = ('raw', 'total', 'local')


def run_chain(scan, *, start='raw', mask=None, **choices) -> tuple[np.ndarray, np.ndarray]:
    """Return the susceptibility of a scan, and its support.

    Parameters
    ----------
    scan : Acquisition
        Scan with its truth.
    start : {'raw', 'total', 'local'}
        Begin with the phase, or with the true total or local field in the mask, of which an
        inversion of phase gets the wrapped phase. True fields are averages over voxels, so
        that ``voxel_average`` is switched off, and have no confidence that a fit would give: a
        total field has that of its edge, where voxels are part air.
    mask : ndarray of bool, shape (X, Y, Z), optional
        Brain mask; the true one by default.
    **choices
        Fields of :class:`qsmflow.settings.ReconstructionSettings`: ``preset``, the method of a
        stage, ``params``.

    Returns
    -------
    chi : ndarray of float32, shape (X, Y, Z)
        In ppm, not referenced.
    mask : ndarray of bool, shape (X, Y, Z)
        Where the background removal left a field.
    """
    chosen = ReconstructionSettings(**choices)
    mask = scan.truth['mask'] if mask is None else mask
    fit = field_of(scan, mask, chosen) if start == 'raw' else None
    field = scan.truth[f'{start}_field'] if fit is None else fit.total_field
    order = io.AxisOrder.of(scan.affine)
    known = {'b0_dir': order.vector(scan.b0_dir)}
    weights = _confidence(scan, mask, start) if fit is None else fit.weights
    known['weights'] = None if weights is None else order.to_ras(weights)
    method = catalog.STAGES['inversion'][chosen.inversion]
    if method.takes == 'phase':
        field = true_phase(scan, field) if fit is None else corrected_phase(scan, mask)
    size, field, mask = order.lengths(scan.voxel_size), order.to_ras(field), order.to_ras(mask)
    if method.takes == 'local_field' and start != 'local':
        remove = _method(chosen, 'background')
        if fit is None:
            remove = partial(remove, **for_true_field('background', chosen.background))
        field, mask = remove(field, mask, size, **known)[:2]
    options = {name: _extra(name, scan, fit, order, mask) for name in method.extras}
    own = get_method('inversion', chosen.inversion)
    own_params = dict(chosen.params.get('inversion', {}))
    if fit is None:
        own_params |= for_true_field('inversion', chosen.inversion)
    options = {name: value for name, value in options.items() if value is not None} | own_params
    chi = _method(chosen, 'strategy')(own, field, mask, size, **known, options=options)
    return order.from_ras(chi), order.from_ras(mask)


def for_true_field(stage, name):
    """Return the parameters of a method for true fields, which are averages over voxels."""
    return {'voxel_average': False} if 'voxel_average' in method_parameters(stage, name) else {}


def _confidence(scan, mask, start):
    """Return the confidence in a true field that voxels of air and bone are part of, or None."""
    if start == 'local':
        return None
    return edge_confidence(scan.truth['total_field'], mask, scan.voxel_size)


def true_phase(scan, field):
    """Return the wrapped phase that a field in ppm alone gives at the echo times of a scan."""
    turns = units.radians_per_ppm(np.array(scan.te), scan.f0)
    return np.angle(np.exp(1j * turns * field[..., None])).astype(np.float32)


def corrected_phase(scan, mask):
    """Return the wrapped phase of a scan without the offsets of its readout and of its coils."""
    known = {'te': scan.te}
    phase = scan.phase
    if len(scan.te) >= 3:
        phase, _, _ = remove_bipolar(phase, scan.magnitude, mask, scan.voxel_size, **known)
    if len(scan.te) > 1:
        phase, _ = remove_phase_offset(phase, scan.magnitude, mask, scan.voxel_size, **known)
    return phase


def field_of(scan, mask, chosen):
    """Return the field map of a scan with the methods chosen."""
    known = {'te': scan.te}
    phase = corrected_phase(scan, mask)
    unwrap, fit = _method(chosen, 'unwrapping'), _method(chosen, 'field')
    phase = unwrap(phase, scan.magnitude, mask, scan.voxel_size, **known)
    return fit(phase, scan.magnitude, mask, scan.voxel_size, f0=scan.f0, **known)


def _method(chosen, stage):
    function = get_method(stage, getattr(chosen, stage))
    return partial(function, **chosen.params.get(stage, {}))


def _extra(name, scan, fit, order, mask):
    if name == 'magnitude':
        return order.to_ras(np.sqrt((scan.magnitude**2).sum(axis=3)))
    if name == 'magnitudes':
        return order.to_ras(scan.magnitude)
    if name in ('te', 'f0'):
        return getattr(scan, name)
    if name == 'field_noise':
        return None if fit is None else order.to_ras(fit.field_noise)
    if name == 'phase_scale':
        return float(units.radians_per_ppm(float(np.mean(scan.te)), scan.f0))
    if name == 'r2star':
        relaxation = get_method('relaxometry', 'loglinear')
        stored = order.from_ras(mask)
        return order.to_ras(relaxation(scan.magnitude, stored, scan.voxel_size, te=scan.te).r2star)
    raise ValueError(f'no data for the extra {name!r}: add it in benchmarks/chain.py.')
