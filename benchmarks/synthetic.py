"""A head-like object of ellipsoids, and the arguments of any method made from it.

Speed and memory need data of the right kind, not a head: a field of strong sources outside the
mask, a smooth phase that wraps, a decaying magnitude, and noise. No scan is simulated.
"""

import inspect
from dataclasses import dataclass
from functools import cached_property
from types import SimpleNamespace

import numpy as np

from qsmflow import units
from qsmflow.algorithms import get_method
from qsmflow.algorithms import operators as ops
from qsmflow.algorithms.catalog import STAGES, Method

#: Imaging frequency, in MHz, and echo times, in s.
F0 = 127.7
FIRST_ECHO, ECHO_SPACING = 0.004, 0.006

#: Proportions of the grid.
PROPORTIONS = (5, 6, 5)

#: Keyword arguments that describe the scan, and are given to every method that has them.
_GEOMETRY = ('voxel_size', 'b0_dir', 'te', 'f0')


def head_shape(voxels: float) -> tuple[int, int, int]:
    """Return the shape of a grid with head-like proportions and about this many voxels.

    Examples
    --------
    >>> head_shape(4.9152e6)
    (160, 192, 160)
    """
    unit = (voxels / np.prod(PROPORTIONS)) ** (1 / 3)
    return tuple(max(12, round(unit * p)) for p in PROPORTIONS)


@dataclass(frozen=True, eq=False)
class Case:
    """The object on a grid. Maps are made when they are first asked for.

    Attributes
    ----------
    shape : tuple of int
        Shape of the image.
    n_echoes : int
        Number of equidistant echoes.
    """

    shape: tuple[int, int, int]
    n_echoes: int = 4

    b0_dir = (0.0, 0.0, 1.0)
    f0 = F0

    @property
    def voxel_size(self) -> tuple[float, float, float]:
        """Voxel edge lengths, in mm: 1 at 160 x 192 x 160, at most 3 on small grids."""
        return (min(192.0 / self.shape[1], 3.0),) * 3

    @property
    def te(self) -> tuple[float, ...]:
        """Echo times, in s."""
        return tuple(FIRST_ECHO + ECHO_SPACING * k for k in range(self.n_echoes))

    def _ball(self, centre, radii):
        axes = (
            (((np.arange(n, dtype=np.float32) + 0.5) / n * 2 - 1 - c) / r) ** 2
            for n, c, r in zip(self.shape, centre, radii, strict=True)
        )
        x, y, z = np.meshgrid(*axes, indexing='ij', sparse=True)
        return x + y + z < 1

    def _noise(self, seed):
        return np.random.default_rng(seed).standard_normal(self.shape, np.float32)

    @cached_property
    def mask(self):
        """Brain: half of its bounding box."""
        return self._ball((0, 0, 0.05), (0.86, 0.92, 0.8))

    @cached_property
    def chi(self):
        """Susceptibility of the brain, in ppm: nuclei on both sides, fluid and a strong source."""
        chi = np.zeros(self.shape, np.float32)
        chi[self._ball((0, 0, 0.1), (0.7, 0.75, 0.65))] = -0.03
        for side in (-1, 1):
            chi[self._ball((side * 0.12, 0.1, 0.0), (0.06, 0.25, 0.2))] = 0.02
            chi[self._ball((side * 0.3, 0.1, 0.0), (0.1, 0.2, 0.15))] = 0.12
        chi[self._ball((0.4, -0.4, 0.2), (0.04, 0.04, 0.04))] = -0.3
        chi *= self.mask
        return chi

    @cached_property
    def local_field(self):
        """Field of the brain, in ppm, with noise."""
        field = ops.forward_field(self.chi, self.voxel_size, b0_dir=self.b0_dir, pad=8)
        field += np.float32(0.002) * self._noise(1)
        field *= self.mask
        return field

    @cached_property
    def total_field(self):
        """The local field and that of an air space below and a bone in front, in ppm."""
        outside = np.zeros(self.shape, np.float32)
        outside[self._ball((0, 0.5, -0.93), (0.25, 0.3, 0.2))] = 9.0
        outside[self._ball((0, 0.97, 0.2), (0.3, 0.06, 0.3))] = -2.0
        outside *= ~self.mask
        field = ops.forward_field(outside, self.voxel_size, b0_dir=self.b0_dir, pad=8)
        field += self.local_field
        field *= self.mask
        return field

    @cached_property
    def r2star(self):
        """Relaxation rate, in 1/s."""
        return (np.float32(20) + 150 * np.abs(self.chi)) * self.mask

    @cached_property
    def r2prime(self):
        """Reversible part of it, in 1/s."""
        return 120 * np.abs(self.chi)

    @cached_property
    def r2(self):
        """Irreversible part of it, in 1/s."""
        return self.r2star - self.r2prime

    @cached_property
    def weights(self):
        """Confidence, low in one part near the edge."""
        weights = self.mask.astype(np.float32)
        weights[self._ball((0, 0.6, -0.6), (0.3, 0.3, 0.2))] *= np.float32(0.2)
        return weights

    @cached_property
    def field_noise(self):
        """Standard deviation of the field, in ppm."""
        return np.float32(0.002) / np.maximum(self.weights, np.float32(0.1))

    @property
    def phase_scale(self) -> float:
        """Phase of 1 ppm at the mean echo time, in rad."""
        return float(units.radians_per_ppm(float(np.mean(self.te)), self.f0))

    @cached_property
    def series(self):
        """Magnitude of every echo, in a.u., shape (X, Y, Z, E)."""
        result = np.empty((*self.shape, self.n_echoes), np.float32)
        air = np.abs(self._noise(2)) * 10
        for echo, time in enumerate(self.te):
            result[..., echo] = 1000 * np.exp(-np.float32(time) * self.r2star) * self.mask + air
        return result

    @property
    def magnitudes(self):
        """The same, under the name that it has as an extra of an inversion."""
        return self.series

    @cached_property
    def magnitude(self):
        """Magnitude combined over the echoes, in a.u."""
        return np.sqrt((self.series**2).sum(axis=3))

    @cached_property
    def unwrapped_phase(self):
        """Phase of every echo, in rad, with noise and without an offset, shape (X, Y, Z, E)."""
        result = np.empty((*self.shape, self.n_echoes), np.float32)
        for echo, time in enumerate(self.te):
            turn = np.float32(units.radians_per_ppm(time, self.f0))
            result[..., echo] = turn * self.total_field + 0.02 * self._noise(3 + echo)
        return result

    @cached_property
    def phase(self):
        """Measured phase of every echo, in rad, in [-pi, pi], shape (X, Y, Z, E)."""
        return np.angle(np.exp(1j * self.unwrapped_phase))

    def as_scan(self) -> SimpleNamespace:
        """Return what a chain needs of a scan."""
        names = ('phase', 'te', 'f0', 'voxel_size', 'b0_dir')
        known = {name: getattr(self, name) for name in names}
        known['affine'] = np.diag([*self.voxel_size, 1.0])
        return SimpleNamespace(magnitude=self.series, truth={'mask': self.mask}, **known)

    def arguments(self, stage: str, name: str) -> tuple[list, dict]:
        """Return the arguments with which a method of the catalogue is run.

        Data is found by the names of the function's parameters. Options keep their defaults.

        Raises
        ------
        ValueError
            If a parameter without a default has a name that this object has no data for.
        """
        return bind(self, get_method(stage, name), STAGES[stage][name])


def bind(case: Case, function, method: Method | None = None) -> tuple[list, dict]:
    """Return the arguments of a function by the names of its parameters."""
    extras = method.extras if method else ()
    positional, keywords = [], {}
    for parameter in inspect.signature(function).parameters.values():
        name, required = parameter.name, parameter.default is parameter.empty
        first = not positional and method is not None
        if not required and name not in (*_GEOMETRY, 'weights', *extras):
            continue
        if first and name in ('local_field', 'total_field'):
            name = method.takes if name == 'local_field' else name
        # The series is what stands in front; the combined magnitude is an extra.
        if name == 'magnitude' and name not in extras:
            name = 'series'
        if not hasattr(case, name):
            raise ValueError(
                f'{function.__name__} needs {name!r}, which Case has not: add it in '
                'benchmarks/synthetic.py.'
            )
        if parameter.kind is parameter.KEYWORD_ONLY:
            keywords[parameter.name] = getattr(case, name)
        else:
            positional.append(getattr(case, name))
    return positional, keywords
