"""Estimates of memory."""

import pytest

from qsmflow.algorithms import cost
from qsmflow.algorithms.catalog import STAGES, default


def test_default_methods_were_measured_and_nothing_else_is_listed():
    # A strategy needs what the inversion needs that it calls.
    measured = [stage for stage in STAGES if stage != 'strategy']
    assert all((stage, default(stage)) in cost.VOLUMES for stage in measured)
    assert all(name in STAGES[stage] for stage, name in cost.VOLUMES)


@pytest.mark.parametrize('key', cost.VOLUMES, ids='/'.join)
def test_figures_are_those_of_real_methods(key):
    """Each needs room for its result at least, and no more than aims allow for whole chains."""
    memory = cost.VOLUMES[key]
    assert 0.5 < memory.volumes + 4 * memory.per_echo < 60
    assert 0 <= memory.pad <= 64
    assert 0 <= memory.reach <= 40


def test_estimate_is_volumes_of_the_padded_grid(monkeypatch):
    monkeypatch.setitem(cost.VOLUMES, ('inversion', 'x'), cost.Memory(10, pad=16))
    assert cost.estimate_gb('inversion', 'x', (160, 192, 160)) == pytest.approx(
        4e-9 * 10 * 192 * 225 * 192
    )


def test_estimate_grows_with_echoes_and_with_spheres_in_voxels(monkeypatch):
    monkeypatch.setitem(cost.VOLUMES, ('field', 'x'), cost.Memory(3, per_echo=2))
    few, many = (cost.estimate_gb('field', 'x', (64, 64, 64), n_echoes=n) for n in (1, 6))
    assert many == pytest.approx(few * 15 / 5)
    monkeypatch.setitem(cost.VOLUMES, ('background', 'x'), cost.Memory(5, reach=12.0))
    fine, coarse = (
        cost.working_grid(cost.memory_volumes('background', 'x'), (64, 64, 64), (v, v, v))
        for v in (1.0, 3.0)
    )
    assert fine == (90, 90, 90)
    assert coarse == (72, 72, 72)
    assert cost.estimate_gb('background', 'x', (64, 64, 64)) == pytest.approx(4e-9 * 5 * 90**3)


def test_unmeasured_method_gets_the_most_of_its_stage():
    found = cost.memory_volumes('inversion', 'not there')
    listed = [m for (stage, _), m in cost.VOLUMES.items() if stage == 'inversion']
    assert found.volumes == max(m.volumes for m in listed)
    assert found.pad == max(m.pad for m in listed)


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match='no figures for the stage'):
        cost.estimate_gb('painting', 'x', (4, 4, 4))
    with pytest.raises(ValueError, match='shape must be'):
        cost.estimate_gb('inversion', 'tkd', (4, 4))
    with pytest.raises(ValueError, match='n_echoes'):
        cost.estimate_gb('inversion', 'tkd', (4, 4, 4), n_echoes=0)
