"""What can be different about a head beyond its shape: lesions, atrophy, size of the nuclei."""

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from scipy import ndimage

from qsmflow.phantom import anatomy, tissues

#: How far the edge of the brain tissue moves away from the fluid at ``atrophy=1``, in mm.
ATROPHY_SHIFT = 2.0

#: Smoothing of the fluid whose slope is the direction of the shift, in mm.
_ATROPHY_SIGMA = 4.0

#: Voxels of the template by which no nucleus grows more on any side.
_GROWTH = 10


@dataclass(frozen=True)
class Lesion:
    """A ball of one tissue.

    Attributes
    ----------
    tissue : Tissue
        What it is made of, at its usual susceptibility.
    centre : tuple of float
        In template coordinates, mm.
    radius : float
        In mm.
    """

    tissue: tissues.Tissue
    centre: tuple[float, float, float]
    radius: float

    def inside(self, place: np.ndarray) -> np.ndarray:
        """Tell which places, of shape (3, N) in template mm, lie in the lesion."""
        centre = np.array(self.centre)[:, np.newaxis]
        return ((place - centre) ** 2).sum(axis=0) < self.radius**2

    def of_strength(self, wanted) -> tissues.Tissue:
        """Return the tissue, with a susceptibility of its own where ``wanted`` is a number."""
        if wanted is True:
            return self.tissue
        chi = float(wanted)
        return replace(self.tissue, chi_para=max(chi, 0.0), chi_dia=min(chi, 0.0))


#: In the left frontal white matter.
CALCIFICATION = Lesion(tissues.CALCIFICATION, (-24.0, 22.0, 24.0), 2.5)

#: In the right parietal white matter.
HAEMORRHAGE = Lesion(tissues.HAEMORRHAGE, (27.0, -49.0, 30.0), 6.0)


def check(calcification, haemorrhage, atrophy, nuclei_scale) -> None:
    """Refuse variants that make no head.

    Raises
    ------
    ValueError
        If a calcification is not diamagnetic, a haemorrhage not paramagnetic, or a number is out
        of its range.
    """
    if calcification is not True and float(calcification) > 0:
        raise ValueError(f'a calcification is diamagnetic: below 0 ppm; got {calcification:g}.')
    if haemorrhage is not True and float(haemorrhage) < 0:
        raise ValueError(f'a haemorrhage is paramagnetic: above 0 ppm; got {haemorrhage:g}.')
    if not 0 <= atrophy <= 1:
        raise ValueError(f'atrophy must be from 0 to 1; got {atrophy:g}.')
    if not 0.8 <= nuclei_scale <= 1.2:
        raise ValueError(f'nuclei_scale must be from 0.8 to 1.2; got {nuclei_scale:g}.')


@lru_cache(maxsize=1)
def _towards_fluid() -> tuple[anatomy.Level, ...]:
    """Return the direction to the nearest fluid, in mm, longest where tissue meets fluid."""
    brain = anatomy.load_template().brain_t1
    fluid = (brain.data < anatomy.CSF_TO_GREY).astype(np.float32)
    smooth = ndimage.gaussian_filter(fluid, _ATROPHY_SIGMA)
    # The slope of a smoothed step is at most 1 / (sqrt(2 pi) sigma).
    factor = np.float32(ATROPHY_SHIFT * np.sqrt(2 * np.pi) * _ATROPHY_SIGMA)
    return tuple(anatomy.Level(factor * slope, brain.affine) for slope in np.gradient(smooth))


def recede(place: np.ndarray, atrophy: float) -> np.ndarray:
    """Map places of an atrophied brain to those of the template.

    Every place looks towards the fluid nearby, inside or around the brain, so that ventricles and
    sulci are wider and the cortex stands back from the skull, which stays.

    Parameters
    ----------
    place : ndarray of float32, shape (3, N)
        Template coordinates, in mm.
    atrophy : float
        From 0 to 1.

    Returns
    -------
    ndarray of float32, shape (3, N)
    """
    if not atrophy:
        return place
    return place + np.float32(atrophy) * np.stack([s.at(place) for s in _towards_fluid()])


@lru_cache(maxsize=4)
def scaled_nuclei(scale: float) -> anatomy.Level:
    """Return the labels of CIT168 with every nucleus grown or shrunk from its surface.

    Parameters
    ----------
    scale : float
        Linear size: a nucleus has ``scale**3`` of its volume. One that grows takes no fluid and
        nothing of another nucleus.

    Returns
    -------
    Level
    """
    template = anatomy.load_template()
    labels = template.nuclei
    if scale == 1:
        return labels
    result = np.zeros_like(labels.data)
    fluid = template.brain_t1.data < anatomy.CSF_TO_GREY
    for index, box in enumerate(ndimage.find_objects(labels.data), start=1):
        if box is None:
            continue
        box = tuple(slice(s.start - _GROWTH, s.stop + _GROWTH) for s in box)
        own = labels.data[box] == index
        taken = (labels.data[box] > 0) | fluid[box] | (result[box] > 0)
        distance = ndimage.distance_transform_edt(~own) - ndimage.distance_transform_edt(own)
        distance[taken & ~own] = np.inf
        count = round(np.count_nonzero(own) * scale**3)
        chosen = np.argpartition(distance, count, axis=None)[:count]
        part = result[box]
        part[np.unravel_index(chosen, own.shape)] = index
    return anatomy.Level(result, labels.affine)
