"""Deep nuclei aligned by their own susceptibility, after the registration by anatomy."""

import tempfile
from pathlib import Path

import numpy as np
from scipy import ndimage

from qsmflow.io import Volume
from qsmflow.registration import adapter
from qsmflow.registration.images import local_similarity

#: Working voxel, in mm, and margin around the labels, in mm.
RESOLUTION = 2.0
MARGIN = 12.0
#: Distance from the labels, in mm, within which the images are compared.
REACH = 6.0
#: Half width of the cross-correlation's window, in voxels.
WINDOW = 3
#: The warp is kept if the similarity rises by this at least.
MIN_GAIN = 0.02
#: The warp is not believed if the 95th percentile of its length near the labels exceeds this, mm.
MAX_SHIFT = 6.0
#: Susceptibility beyond these, in ppm, is vein or artefact and says nothing of a nucleus.
WINDOW_PPM = (-0.08, 0.25)


def refine_alignment(
    labels: Volume,
    chi: Volume,
    expected: dict[int, float],
    *,
    mask: np.ndarray,
    anatomy: tuple[Volume, Volume],
    out_dir: str | Path,
    name: str = 'refinement',
) -> tuple[str | None, dict]:
    """Align labels with the iron-rich nuclei that a susceptibility map shows.

    On a T1w image, or an early echo, the globus pallidus hardly differs from the white matter
    around it, so a registration by anatomy leaves it out of place by up to some mm. The map shows
    it plainly. An image with the typical susceptibility of each label is warped to the map
    (symmetric diffeomorphic registration by local cross-correlation [1]_ at 2 mm, near the labels
    only). The anatomical image and the template beside it take part with the same weight: they
    hold what the map shows badly, such as the border of the ventricles. Cross-correlation asks
    for shape, not for values: nuclei with more or less iron than typical are aligned all the same.

    Parameters
    ----------
    labels : Volume
        Labels on the grid of ``chi``, as the registration by anatomy places them.
    chi : Volume
        Susceptibility, in ppm.
    expected : dict of int to float
        Typical susceptibility of the labels that stand out, in ppm; the others do not take part
        but move along.
    mask : ndarray of bool, shape (X, Y, Z)
        Where ``chi`` is valid.
    anatomy : tuple of Volume
        Anatomical image of the subject (T1w, or magnitude), and the template as the registration
        by anatomy places it, both on the grid of ``chi``.
    out_dir : path-like
        Where the warp goes; it must exist.
    name : str, optional
        Stem of its file.

    Returns
    -------
    warp : str or None
        ITK displacement field that goes before the transforms from the template; None if the warp
        was not believed, or there was nothing to align.
    info : dict
        ``accepted``, ``reason``, ``similarity_before``, ``similarity_after`` (0 to 1) and
        ``shift_mm`` (95th percentile of the warp's length near the labels).

    References
    ----------
    .. [1] Avants BB, et al. Med Image Anal 2008;12:26-41. doi:10.1016/j.media.2007.06.004
    """
    standing_out = np.isin(labels.data, list(expected)) & mask
    if np.count_nonzero(standing_out) < 50:
        return None, {'accepted': False, 'reason': 'too few voxels of the nuclei in the mask'}
    box = _box(standing_out, chi.voxel_size)
    fixed, moving, near = _images(labels, chi, expected, mask, standing_out, box)
    subject, template = (_working(image.data, chi, box) for image in anatomy)
    ants = adapter.load_ants()
    with tempfile.TemporaryDirectory() as folder:
        result = ants.registration(
            fixed,
            moving,
            'SyNOnly',
            initial_transform='identity',
            syn_metric='CC',
            syn_sampling=WINDOW,
            grad_step=0.2,
            flow_sigma=3,
            reg_iterations=(40, 20),
            multivariate_extras=[('CC', subject, template, 1, WINDOW)],
            mask=near,
            outprefix=f'{folder}/',
        )
        field = next(path for path in result['fwdtransforms'] if path.endswith('.nii.gz'))
        info = _judge(fixed, moving, result['warpedmovout'], near, ants.image_read(field))
        if not info['accepted']:
            return None, info
        warp = Path(out_dir).absolute() / f'{name}.nii.gz'
        ants.image_write(ants.image_read(field), str(warp))
    return str(warp), info


def unmoved(chi: Volume, out_dir: str | Path, name: str = 'refinement') -> str:
    """Write a displacement field that moves nothing, for labels that stay where they are.

    Parameters
    ----------
    chi : Volume
        Gives the space.
    out_dir : path-like
        Where the field goes; it must exist.
    name : str, optional
        Stem of its file.

    Returns
    -------
    str
        ITK displacement field. Beyond its few voxels, too, a point stays where it is.
    """
    ants = adapter.load_ants()
    zero = adapter.to_ants(Volume(np.zeros((2, 2, 2), np.float32), chi.affine))
    path = Path(out_dir).absolute() / f'{name}.nii.gz'
    ants.image_write(ants.merge_channels([zero] * 3), str(path))
    return str(path)


def _box(region: np.ndarray, voxel_size: tuple) -> tuple[slice, ...]:
    """Return the box around a region with a margin."""
    found = ndimage.find_objects(region.astype(np.uint8))[0]
    pads = [int(np.ceil(MARGIN / size)) for size in voxel_size]
    return tuple(
        slice(max(part.start - pad, 0), min(part.stop + pad, n))
        for part, pad, n in zip(found, pads, region.shape, strict=True)
    )


def _images(labels, chi, expected, mask, standing_out, box):
    """Return map, expected map and the region of the comparison, for ANTs, at working size."""
    shown = np.where(mask, np.clip(chi.data, *WINDOW_PPM), 0)
    drawn = np.zeros(labels.shape, np.float32)
    for label, value in expected.items():
        drawn[labels.data == label] = value
    distance = ndimage.distance_transform_edt(~standing_out, sampling=chi.voxel_size)
    near = (distance <= REACH) & mask
    images = [_working(data, chi, box) for data in (shown, drawn, near)]
    return images[0], images[1], images[2] > 0.5


def _working(data: np.ndarray, like: Volume, box: tuple[slice, ...]):
    """Cut an image to a box and bring it to the working voxel, for ANTs."""
    affine = like.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ [part.start for part in box]
    widths = [0.4 * max(RESOLUTION, size) / size for size in like.voxel_size]
    smooth = ndimage.gaussian_filter(np.asarray(data, np.float32), widths)[box]
    image = adapter.to_ants(Volume(np.ascontiguousarray(smooth), affine))
    spacing = [max(RESOLUTION, size) for size in like.voxel_size]
    return adapter.load_ants().resample_image(image, spacing, False, 0)


def _judge(fixed, moving, moved, near, field) -> dict:
    """Measure what the warp gained and how far it moves, and decide on it."""
    region = near.numpy() > 0.5
    before = local_similarity(fixed.numpy(), moving.numpy(), region)
    after = local_similarity(fixed.numpy(), moved.numpy(), region)
    length = np.linalg.norm(field.numpy(), axis=-1)
    shift = float(np.percentile(length[region], 95))
    reason = ''
    if after < before + MIN_GAIN:
        reason = 'no gain in similarity'
    elif shift > MAX_SHIFT:
        reason = f'it moves the nuclei by {shift:.1f} mm'
    return {
        'accepted': not reason,
        'reason': reason,
        'similarity_before': round(before, 4),
        'similarity_after': round(after, 4),
        'shift_mm': round(shift, 2),
    }
