"""The synthetic object of `fields` with a haemorrhage or a calcification in it."""

import numpy as np

from qsmflow.algorithms import operators as ops
from tests.algorithms.fields import SHAPE, ellipsoid, phantom

HAEMORRHAGE = (1.0, 3.0)
CALCIFICATION = (-3.0, 1.6)


def with_source(value, radius, *, noise=0.002):
    """Return chi, mask, noisy local field and the source, of some ppm and some mm of radius."""
    chi, mask, _, _ = phantom()
    source = ellipsoid(SHAPE, (1, 1, 1), (0, 6, -6), (radius,) * 3)
    chi[source] = value
    random = np.random.default_rng(0)
    field = ops.forward_field(chi, (1, 1, 1)) + random.normal(scale=noise, size=SHAPE)
    return chi, mask, (field * mask).astype(np.float32), source
