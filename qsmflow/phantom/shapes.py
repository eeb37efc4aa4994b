"""Shapes whose field is known in closed form, to test the physics."""

import numpy as np


def sphere(shape, voxel_size, *, radius, chi=1.0, centre=None, b0_dir=(0.0, 0.0, 1.0)):
    r"""Return a sphere and its field.

    Outside, :math:`\Delta B / B_0 = \frac{\chi}{3} (a/r)^3 (3 \cos^2\theta - 1)`; inside, with
    the Lorentz correction, zero [1]_. A paramagnetic sphere raises the field at its poles.

    Parameters
    ----------
    shape : tuple of int
        Shape of the grid.
    voxel_size : tuple of float
        Voxel edge lengths, in mm.
    radius : float
        Radius, in mm.
    chi : float, optional
        Susceptibility relative to the surroundings, in ppm.
    centre : tuple of float, optional
        Centre, in voxels; the middle of the grid by default.
    b0_dir : tuple of float, optional
        Direction of the main field, in array axes.

    Returns
    -------
    susceptibility : ndarray of float32, shape (X, Y, Z)
        Fraction of each voxel inside the sphere times ``chi``, in ppm.
    field : ndarray of float32, shape (X, Y, Z)
        Field, in ppm, at the voxel centres.

    References
    ----------
    .. [1] Haacke EM, Brown RW, Thompson MR, Venkatesan R. Magnetic Resonance Imaging: Physical
       Principles and Sequence Design. Wiley 1999, chapter 25.

    Examples
    --------
    >>> susceptibility, field = sphere((21, 21, 21), (1, 1, 1), radius=4)
    >>> float(field[10, 10, 18]), float(field[18, 10, 10]), float(field[10, 10, 10])
    (0.083, -0.0417, 0.0)
    """
    offset, direction = _offsets(shape, voxel_size, centre, b0_dir)
    distance = np.sqrt(sum(part**2 for part in offset))
    along = sum(part * component for part, component in zip(offset, direction, strict=True))
    safe = np.maximum(distance, radius * 1e-6)
    field = chi / 3 * (radius / safe) ** 3 * (3 * (along / safe) ** 2 - 1)
    field = np.where(distance < radius, 0.0, field)
    fraction = _coverage(offset, voxel_size, lambda p: np.sqrt(sum(q**2 for q in p)), radius)
    return (chi * fraction).astype(np.float32), field.astype(np.float32)


def cylinder(
    shape, voxel_size, *, radius, chi=1.0, axis=(1.0, 0.0, 0.0), centre=None,
    b0_dir=(0.0, 0.0, 1.0),
):  # fmt: skip
    r"""Return an infinite cylinder and its field.

    With :math:`\theta` the angle between axis and main field and :math:`\phi` that in the plane
    across the axis: outside,
    :math:`\Delta B / B_0 = \frac{\chi}{2} (a/\rho)^2 \sin^2\theta \cos 2\phi`; inside,
    :math:`\frac{\chi}{6} (3 \cos^2\theta - 1)` [1]_.

    Parameters
    ----------
    shape : tuple of int
        Shape of the grid.
    voxel_size : tuple of float
        Voxel edge lengths, in mm.
    radius : float
        Radius, in mm.
    chi : float, optional
        Susceptibility relative to the surroundings, in ppm.
    axis : tuple of float, optional
        Direction of the cylinder, in array axes.
    centre : tuple of float, optional
        A point of the axis, in voxels; the middle of the grid by default.
    b0_dir : tuple of float, optional
        Direction of the main field, in array axes.

    Returns
    -------
    susceptibility, field : ndarray of float32, shape (X, Y, Z)
        As of :func:`sphere`, in ppm.

    References
    ----------
    .. [1] Haacke EM, Brown RW, Thompson MR, Venkatesan R. Magnetic Resonance Imaging: Physical
       Principles and Sequence Design. Wiley 1999, chapter 25.

    Examples
    --------
    Along the field the inside is raised by a third, across it lowered by a sixth:

    >>> parallel = cylinder((9, 9, 9), (1, 1, 1), radius=2, axis=(0, 0, 1))[1]
    >>> across = cylinder((9, 9, 9), (1, 1, 1), radius=2, axis=(1, 0, 0))[1]
    >>> float(parallel[4, 4, 4]), float(across[4, 4, 4])
    (0.333, -0.167)
    """
    offset, direction = _offsets(shape, voxel_size, centre, b0_dir)
    line = np.asarray(axis, float) / np.linalg.norm(axis)
    cosine = float(line @ direction)
    sine_squared = 1 - cosine**2

    def across(parts):
        along = sum(part * component for part, component in zip(parts, line, strict=True))
        return [part - along * component for part, component in zip(parts, line, strict=True)]

    def from_axis(parts):
        return np.sqrt(sum(part**2 for part in across(parts)))

    distance = from_axis(offset)
    safe = np.maximum(distance, radius * 1e-6)
    field = np.zeros(distance.shape)
    if sine_squared > 1e-12:
        transverse = (direction - cosine * line) / np.sqrt(sine_squared)
        cos_phi = sum(p * c for p, c in zip(across(offset), transverse, strict=True)) / safe
        field = chi / 2 * (radius / safe) ** 2 * sine_squared * (2 * cos_phi**2 - 1)
    field = np.where(distance < radius, chi / 6 * (3 * cosine**2 - 1), field)
    fraction = _coverage(offset, voxel_size, from_axis, radius)
    return (chi * fraction).astype(np.float32), field.astype(np.float32)


def _offsets(shape, voxel_size, centre, b0_dir):
    """Return the place of every voxel from the centre, in mm, as three open arrays."""
    if centre is None:
        centre = [(n - 1) / 2 for n in shape]
    axes = [
        (np.arange(n) - c) * v for n, c, v in zip(shape, centre, voxel_size, strict=True)
    ]  # fmt: skip
    direction = np.asarray(b0_dir, float) / np.linalg.norm(b0_dir)
    return np.meshgrid(*axes, indexing='ij', sparse=True), direction


def _coverage(offset, voxel_size, distance, radius, parts=5):
    """Fraction of each voxel within ``radius``, from a lattice of points in every voxel."""
    steps = (np.arange(parts) + 0.5) / parts - 0.5
    total = 0.0
    for a in steps:
        for b in steps:
            for c in steps:
                shift = (a * voxel_size[0], b * voxel_size[1], c * voxel_size[2])
                moved = [part + s for part, s in zip(offset, shift, strict=True)]
                total = total + (distance(moved) < radius)
    return np.asarray(total, float) / parts**3
