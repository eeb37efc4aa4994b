"""The mask interfaces do what the kernels do, on files."""

import numpy as np
import pytest

from qsmflow import io
from qsmflow.algorithms.masking import dilate, refine_brain_mask
from qsmflow.algorithms.unwrap import quality_map
from qsmflow.interfaces.masking import MaskRefinement, PhaseQualityMask


@pytest.fixture
def generous(scan, save):
    mask = dilate(scan.truth['mask'], 13.0, scan.voxel_size)
    return mask, save('generous', mask)


def refine(scan, files, run, mask, **inputs):
    return run(
        MaskRefinement(
            mask=mask,
            phase=files.phase,
            magnitude=files.magnitude,
            te=list(scan.te),
            **inputs,
        )
    )


def test_refinement_is_the_kernel(scan, files, run, check, generous):
    mask, path = generous
    out = refine(scan, files, run, path)
    quality = quality_map(scan.phase, scan.magnitude, mask, te=scan.te)
    refined, removed = refine_brain_mask(
        mask, magnitude=scan.magnitude[..., 0], quality=quality, voxel_size=scan.voxel_size
    )
    check(out.mask, refined)
    check(out.quality, quality)
    assert out.removed_fraction == pytest.approx(removed)
    assert out.removed_fraction > 0.02
    assert out.volume_ml == pytest.approx(refined.sum() * 0.216, rel=1e-5)


def test_given_mask_is_only_measured(scan, files, run, check, generous):
    mask, path = generous
    out = refine(scan, files, run, path, refine=False, info={'method': 'given'})
    check(out.mask, mask)
    assert out.removed_fraction == 0
    assert out.info == {
        'method': 'given',
        'removed_fraction': 0.0,
        'volume_ml': pytest.approx(mask.sum() * 0.216, rel=1e-5),
    }


def test_numbers_of_the_refined_mask_replace_those_of_the_found_one(scan, files, run, generous):
    out = refine(
        scan,
        files,
        run,
        generous[1],
        info={'method': 'registration', 'volume_ml': 1e6, 'score': 1},
    )
    assert out.info['volume_ml'] == out.volume_ml < 1e5
    assert out.info['removed_fraction'] == out.removed_fraction
    assert out.info['score'] == 1


def test_brain_without_a_magnitude_by_coherent_phase(scan, files, run):
    out = run(PhaseQualityMask(phase=files.phase, te=list(scan.te)))
    mask = io.load_mask(out.brain_mask, like=io.load_volume(files.mask))
    brain = scan.truth['mask']
    assert (mask & brain).sum() > 0.9 * brain.sum()
    assert mask.sum() < 2 * brain.sum()
    head = scan.truth['s0'] > 0
    assert (mask & ~head).sum() < 0.1 * mask.sum()
    assert out.info['method'] == 'phase quality'
    assert out.info['volume_ml'] == pytest.approx(mask.sum() * 0.216, rel=1e-5)


def test_masks_of_another_grid_are_refused(scan, files, save, run):
    other = save('other', np.ones((4, 4, 4), bool), io.Volume(np.ones((4, 4, 4)), np.eye(4)))
    with pytest.raises(io.GridMismatchError):
        refine(scan, files, run, other)
