"""Smooth fields that the coils and the readout add to a scan: phase offset and sensitivity."""

import numpy as np

#: Ways in which the phase offset varies; the first is the default.
OFFSET_SHAPES = ('polynomial', 'linear', 'coils', 'waves')


def phase_offset(random, grid, shape: str = 'polynomial') -> np.ndarray:
    """Return a smooth phase of a few rad over the head.

    Parameters
    ----------
    random : numpy.random.Generator
        Source of the coefficients. It gives the same number of values for every shape, so that
        what is drawn after it does not depend on the shape.
    grid : FineGrid
        Grid of the physics.
    shape : {'polynomial', 'linear', 'coils', 'waves'}, optional
        A polynomial of the third order, of long reach; a plane, as from a shift of the echo in
        the readout; the mean of the phases of eight receivers around the head, weighted by their
        nearness; or plane waves of 80 to 200 mm.

    Returns
    -------
    ndarray of float32
        In rad; it spans the grid.

    Raises
    ------
    ValueError
        For a shape without a name here.
    """
    if shape not in OFFSET_SHAPES:
        raise ValueError(f'offset_shape must be one of {", ".join(OFFSET_SHAPES)}; got {shape!r}.')
    coordinates = grid.coordinates()
    a = random.uniform(-1, 1, 9).astype(np.float32)
    if shape == 'polynomial':
        return _polynomial(a, *coordinates)
    if shape == 'linear':
        x, y, z = coordinates
        return (4 * (a[0] * x + a[1] * y + a[2] * z) + 2 * a[3]).astype(np.float32)
    # More numbers are needed than nine: they follow from these.
    random = np.random.default_rng(a.view(np.uint32))
    return (_receivers if shape == 'coils' else _waves)(random, grid, *coordinates)


def _polynomial(a, x, y, z):
    offset = 1.2 * (a[0] * x + a[1] * y + a[2] * z) + 2 * a[3]
    offset = offset + 0.9 * (a[4] * x * y + a[5] * y * z + a[6] * x * z)
    offset = offset + 0.8 * a[7] * (x * x + y * y) + 0.5 * a[8] * x * x * y
    return offset.astype(np.float32)


def _receivers(random, grid, x, y, z, number=8, reach=0.7):
    """Average phases, not signals: the phase of a sum of signals can have singularities."""
    total = np.zeros(grid.shape, np.float32)
    weights = np.full(grid.shape, 1e-6, np.float32)
    for angle in np.arange(number) * (2 * np.pi / number):
        centre = (1.1 * np.cos(angle), 1.1 * np.sin(angle), random.uniform(-0.6, 0.6))
        weight = np.float32(1)
        for axis, place in zip((x, y, z), centre, strict=True):
            weight = weight * np.exp(-((axis - np.float32(place)) ** 2) / np.float32(2 * reach**2))
        b = random.uniform(-1, 1, 4).astype(np.float32)
        total += weight * (2 * b[0] + 1.2 * (b[1] * x + b[2] * y + b[3] * z))
        weights += weight
    total /= weights
    return total


def _waves(random, grid, x, y, z, number=6):
    affine = np.asarray(grid.affine)[:3, :3]
    half = np.linalg.norm(affine, axis=0) * np.array(grid.shape) / 2
    total = np.full(grid.shape, random.uniform(-2, 2), np.float32)
    for _ in range(number):
        direction = random.standard_normal(3)
        direction *= 2 * np.pi / (random.uniform(80.0, 200.0) * np.linalg.norm(direction))
        kx, ky, kz = (direction * half).astype(np.float32)
        phase = kx * x + ky * y + kz * z + np.float32(random.uniform(0, 2 * np.pi))
        total += np.float32(0.5) * np.cos(phase)
    return total


def receive_bias(random, grid) -> np.ndarray:
    """Return a smooth sensitivity around 1, higher near the surface on one side."""
    x, y, z = grid.coordinates()
    a = random.uniform(-0.12, 0.12, 3).astype(np.float32)
    distance = x * x + y * y + z * z
    return (0.9 + 0.12 * distance + a[0] * x + a[1] * y + a[2] * z).astype(np.float32)
