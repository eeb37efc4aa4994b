"""Brain extraction by registration to a full-head template."""

import tempfile
from pathlib import Path

import numpy as np

from qsmflow.algorithms import masking
from qsmflow.io import Volume, load_mask, load_volume, save_volume
from qsmflow.registration import adapter
from qsmflow.registration.core import (
    COARSE_RESOLUTION,
    FIRST_STARTS,
    GOOD_SCORE,
    MIN_SCORE,
    STARTS,
    _Pair,
    _search,
    grow,
)
from qsmflow.registration.images import foreground, local_similarity, working_image

#: Working voxel of the last stage, in mm.
RESOLUTION = 3.0
#: Similarity of coarsely registered heads that spares them the later starts.
FAIR_SCORE = 0.3
#: Volume of a brain mask that needs no explanation (children to large adults), in ml.
VOLUME_ML = (700.0, 2200.0)
#: Width of the rim around the brain whose skull and scalp guide the last stage, in mm.
RIM = 10.0


def is_skull_stripped(volume: Volume) -> bool:
    """Tell whether an image holds a brain without its head.

    Parameters
    ----------
    volume : Volume
        3-D image.

    Returns
    -------
    bool
        True when a third or more of the voxels are exactly zero and the rest, with its holes
        filled, is no larger than a brain. Masking after reconstruction leaves exact zeros;
        defacing leaves a head that is larger than a brain.
    """
    data = np.nan_to_num(volume.data)
    if np.mean(data == 0) < 1 / 3:
        return False
    return _volume_ml(foreground(data), volume) <= VOLUME_ML[1]


def _volume_ml(mask: np.ndarray, volume: Volume) -> float:
    """Return the volume of a mask, in ml."""
    return float(mask.sum() * abs(np.linalg.det(volume.affine[:3, :3])) / 1000)


def extract_brain(
    magnitude: Volume,
    *,
    head: Volume | None = None,
    head_mask: Volume | None = None,
    starts: tuple[str, ...] = tuple(STARTS),
    resolution: float = RESOLUTION,
    seed: int = adapter.SEED,
) -> tuple[np.ndarray, dict]:
    """Find the brain by registering a full-head template to the image.

    Affine by mutual information at 4 mm from several starts, of which the one with the best
    local similarity around the brain goes on; then affine and a light diffeomorphic stage at
    3 mm inside the brain and a rim of 10 mm. The template's mask comes back with the transform.

    Parameters
    ----------
    magnitude : Volume
        3-D image of a head: gradient-echo magnitude (an early echo is best) or T1w.
    head, head_mask : Volume, optional
        Full-head template and its brain mask, on one grid; MNI152NLin2009cAsym at 2 mm [1]_
        without them.
    starts : tuple of str, optional
        Keys of ``STARTS``, in the order in which they are tried.
    resolution : float, optional
        Working voxel of the last stage, in mm.
    seed : int, optional
        Seed of the sampling of mutual information.

    Returns
    -------
    mask : ndarray of bool, shape (X, Y, Z)
        The brain on the grid of ``magnitude``.
    info : dict
        ``method``, ``score`` (local similarity, 0 to 1), ``volume_ml``, ``coverage`` (part of
        the template's brain inside the field of view), ``start``, ``attempts``, ``passed`` and
        ``reasons``; it can be written as JSON.

    Notes
    -----
    An image that is already skull-stripped is not registered: its own object is the brain.

    References
    ----------
    .. [1] Fonov V, et al. NeuroImage 2011;54:313-327. doi:10.1016/j.neuroimage.2010.07.033
    """
    if is_skull_stripped(magnitude):
        mask = foreground(magnitude.data)
        return mask, _verdict('skull-stripped', 1.0, _volume_ml(mask, magnitude), 1.0)
    head, head_mask = _template(head, head_mask)
    pair = _Pair.prepare(magnitude, head, None, None, COARSE_RESOLUTION, seed=seed)
    attempts: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        start, initial = _search_brain(pair, head_mask, starts, folder, attempts)
        transform, score = _refine(magnitude, head, head_mask, initial, folder, resolution, seed)
        here = adapter.resample(head_mask, magnitude, [transform]).data
        coverage = _coverage(magnitude, head_mask, initial, folder)
    mask = here > 0.5
    info = _verdict('registration', score, _volume_ml(mask, magnitude), coverage)
    return mask, info | {'start': start, 'attempts': attempts}


def extract_brain_deepbet(magnitude: Volume, *, work_dir: str | Path) -> tuple[np.ndarray, dict]:
    """Find the brain with the network of the optional package deepbet [1]_.

    Parameters
    ----------
    magnitude : Volume
        3-D image of a head.
    work_dir : path-like
        Where the two images that the package reads and writes may lie.

    Returns
    -------
    mask : ndarray of bool, shape (X, Y, Z)
        The brain on the grid of ``magnitude``.
    info : dict
        As :func:`extract_brain` returns it; ``score`` and ``coverage`` are None.

    Raises
    ------
    ImportError
        If deepbet is not installed.

    References
    ----------
    .. [1] Fisch L, et al. NeuroImage 2024;295:120640. doi:10.1016/j.neuroimage.2024.120640
    """
    try:
        from deepbet import run_bet
    except ImportError as error:
        raise ImportError(
            'the deepbet package is not installed. Install qsmflow[deepbet], or let the brain be '
            "found by 'registration'."
        ) from error
    image = save_volume(magnitude.data, magnitude, Path(work_dir) / 'deepbet_input.nii.gz')
    target = str(Path(work_dir) / 'deepbet_mask.nii.gz')
    run_bet([image], None, [target], None, threshold=0.5, n_dilate=0, no_gpu=True)
    mask = load_mask(target, like=magnitude)
    return mask, _verdict('deepbet', None, _volume_ml(mask, magnitude), None)


def extract_object(magnitude: Volume, *, opening: float = 10.0) -> tuple[np.ndarray, dict]:
    """Find the largest compact bright part of an image, whatever it shows.

    For scans in which no brain is found: an opening cuts thin layers, such as the scalp, from
    what lies inside.

    Parameters
    ----------
    magnitude : Volume
        3-D image.
    opening : float, optional
        Radius of the opening, in mm.

    Returns
    -------
    mask : ndarray of bool, shape (X, Y, Z)
        The object; without the opening where that leaves nothing.
    info : dict
        As of :func:`extract_brain`; there is no score.
    """
    bright = masking.robust_mask(magnitude.data)
    size = magnitude.voxel_size
    core = masking.largest_component(masking.erode(bright, opening, size))
    if core.any():
        bright = masking.fill_holes(masking.dilate(core, opening, size) & bright)
    return bright, _verdict('object', None, _volume_ml(bright, magnitude), None)


def _template(head: Volume | None, head_mask: Volume | None) -> tuple[Volume, Volume]:
    """Return the template that is given, or the shipped one."""
    if (head is None) != (head_mask is None):
        raise ValueError('a head template and its brain mask go together; one of them is missing')
    if head is not None:
        return head, head_mask
    from qsmflow.atlas import template

    return load_volume(template('T1w_res-2')), load_volume(template('brain_mask_res-2'))


def _search_brain(pair: _Pair, head_mask: Volume, starts, folder: str, attempts: dict):
    """Register heads coarsely from each start; judge each by what lies around the brain."""
    grid = adapter.to_ants(pair.fixed)
    brain = adapter.to_ants(head_mask)
    results = {}
    for number, start in enumerate(starts):
        if number >= FIRST_STARTS and max(attempts.values()) >= FAIR_SCORE:
            break
        _, initial = _search(pair, (start,), ('rigid_coarse', 'affine_coarse'), folder, {})
        moved, _, _ = pair.move(initial)
        found = Volume(adapter.apply(brain, grid, [initial], 'linear') > 0.5, pair.fixed.affine)
        attempts[start] = round(local_similarity(pair.fixed.data, moved, grow(found, RIM)), 4)
        results[start] = initial
        if attempts[start] >= GOOD_SCORE:
            break
    best = max(results, key=attempts.get)
    return best, results[best]


def _refine(
    magnitude, head, head_mask, initial: str, folder: str, resolution: float, seed: int
) -> tuple[str, float]:
    """Register again around the brain and return the transform and its similarity."""
    found = adapter.resample(head_mask, magnitude, [initial]).data > 0.5
    region = grow(Volume(found, magnitude.affine), RIM)
    if not region.any():
        return initial, 0.0
    fixed, inside = working_image(magnitude, resolution, mask=region, keep_outside=True)
    moving, _ = working_image(head, resolution)
    grid, other = adapter.to_ants(fixed), adapter.to_ants(moving)
    metric_mask = adapter.mask_to_ants(inside)
    stages = ('affine_light', 'syn_light')
    files = adapter.optimise(
        grid, other, stages, initial, f'{folder}/brain_', fixed_mask=metric_mask, seed=seed
    )
    moved = adapter.apply(other, grid, [files[0]], 'linear')
    return files[0], local_similarity(fixed.data, moved, inside.data)


def _coverage(magnitude: Volume, head_mask: Volume, initial: str, folder: str) -> float:
    """Return the part of the template's brain that the field of view holds."""
    inverse = np.linalg.inv(adapter.read_affine(initial))
    path = adapter.write_affine(inverse, f'{folder}/inverse.txt')
    view = Volume(np.ones(magnitude.shape, np.float32), magnitude.affine)
    seen = adapter.resample(view, head_mask, [path], interpolation='nearest').data > 0.5
    brain = head_mask.data > 0.5
    return float((seen & brain).sum() / max(brain.sum(), 1))


def _verdict(method: str, score: float | None, volume_ml: float, coverage: float | None) -> dict:
    """Say whether a brain mask can be believed, and why not."""
    reasons = []
    if score is not None and score < MIN_SCORE:
        reasons.append(f'similarity {score:.2f} is below {MIN_SCORE:.2f}')
    low, high = VOLUME_ML[0] * (1.0 if coverage is None else coverage), VOLUME_ML[1]
    if not low <= volume_ml <= high:
        reasons.append(f'a volume of {volume_ml:.0f} ml is outside {low:.0f} to {high:.0f} ml')
    return {
        'method': method,
        'score': None if score is None else round(score, 4),
        'volume_ml': round(volume_ml, 1),
        'coverage': None if coverage is None else round(coverage, 4),
        'passed': not reasons,
        'reasons': reasons,
    }
