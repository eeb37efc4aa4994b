"""Interfaces that combine scans of one head in several orientations."""

import logging
import warnings

import numpy as np
from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    File,
    InputMultiObject,
    SimpleInterface,
    TraitedSpec,
    isdefined,
    traits,
)

from qsmflow import io, registration
from qsmflow.algorithms.cosmos import POOR_CONDITIONING, cosmos, cosmos_conditioning
from qsmflow.bids.findings import Finding
from qsmflow.interfaces.base import SEED, VolumeInterface

#: Largest deviation of an entry of a rigid transform's matrix from the nearest rotation.
RIGID_TOLERANCE = 0.01
_LOGGER = logging.getLogger('qsmflow.interfaces.cosmos')


class _RegisterOrientationInputSpec(BaseInterfaceInputSpec):
    magnitudes = InputMultiObject(
        File(exists=True), mandatory=True, desc='3-D magnitude of each orientation'
    )
    masks = InputMultiObject(File(exists=True), mandatory=True, desc='brain mask of each')
    number = traits.Int(mandatory=True, desc='which one to register, counted from 0')
    resolution = traits.Float(2.0, usedefault=True, desc='working voxel, mm')
    seed = SEED


class _RegisterOrientationOutputSpec(TraitedSpec):
    transform = File(desc='ITK transform that brings the orientation to the first')
    check = traits.Dict(desc='score, dice, passed, reasons, start ...')


class RegisterOrientation(SimpleInterface):
    """Register one of several orientations of a head rigidly to the first.

    Writes ``orientation_forward.txt`` and the way back.
    """

    input_spec = _RegisterOrientationInputSpec
    output_spec = _RegisterOrientationOutputSpec

    def _run_interface(self, runtime):
        reference, orientation = (self._load(number) for number in (0, self.inputs.number))
        result = registration.register(
            reference[0],
            orientation[0],
            out_dir=runtime.cwd,
            name='orientation',
            kind='rigid',
            fixed_mask=reference[1],
            moving_mask=orientation[1],
            resolution=self.inputs.resolution,
            seed=self.inputs.seed,
        )
        self._results['transform'] = result.forward
        self._results['check'] = result.check | {'target': 'the first orientation'}
        return runtime

    def _load(self, number: int) -> tuple[io.Volume, np.ndarray]:
        """Return image and mask of an orientation."""
        image = io.load_volume(self.inputs.magnitudes[number])
        return image, io.load_mask(self.inputs.masks[number], like=image)


class _CosmosInversionInputSpec(BaseInterfaceInputSpec):
    fields = InputMultiObject(
        File(exists=True),
        mandatory=True,
        desc='field of each orientation, ppm, of the sources inside; the first gives the grid',
    )
    masks = InputMultiObject(File(exists=True), mandatory=True, desc='where each field is valid')
    weights = InputMultiObject(File(exists=True), desc='confidence in each field, 0 to 1')
    transforms = InputMultiObject(
        File(exists=True),
        mandatory=True,
        desc='rigid ITK transform that brings each orientation but the first to the first',
    )
    checks = traits.List(traits.Dict, desc='what the checks of these registrations found')
    b0_dirs = traits.List(
        traits.Tuple(*(traits.Float(),) * 3),
        desc='main field in the array axes of each field; by default as the affines say',
    )
    interpolation = traits.Enum('linear', 'cubic', usedefault=True, desc='of the fields')
    params = traits.Dict(traits.Str, desc='keyword arguments of the algorithm')


class _CosmosInversionOutputSpec(TraitedSpec):
    chimap = File(desc='susceptibility on the grid of the first field, ppm, not referenced')
    mask = File(desc='where all fields are valid')
    info = traits.Dict(
        desc='n, conditioning, b0_dirs (array axes of the first field), angles (degrees, between '
        'each two orientations), iterations, n_voxels, registrations'
    )
    warnings = traits.List(traits.Dict, desc='findings that need a look; not set if there is none')


class CosmosInversion(VolumeInterface):
    """Estimate susceptibility from the fields of three or more orientations (COSMOS).

    Fields, masks and weights are brought to the grid of the first field. The direction of the
    main field of each orientation is turned with its head: from its own array axes to the
    scanner, by the rotation of the registration, and to the array axes of the first field.
    """

    input_spec = _CosmosInversionInputSpec
    output_spec = _CosmosInversionOutputSpec

    def _run_interface(self, runtime):
        self._check_numbers()
        volumes = [io.load_volume(path) for path in self.inputs.fields]
        first = volumes[0]
        b0_dirs = self._turned_directions(volumes)
        fields, masks, weights = self._on_one_grid(volumes)
        mask = np.logical_and.reduce(masks)
        order = io.AxisOrder.of(first.affine)
        conditioning = cosmos_conditioning(first.shape, first.voxel_size, b0_dirs)
        with warnings.catch_warnings():
            # Told below, as a finding.
            warnings.filterwarnings('ignore', 'The orientations determine', UserWarning)
            chi, history = cosmos(
                [order.to_ras(field) for field in fields],
                [order.to_ras(each) for each in masks],
                order.lengths(first.voxel_size),
                b0_dirs=[order.vector(b0_dir) for b0_dir in b0_dirs],
                weights=None if weights is None else [order.to_ras(each) for each in weights],
                return_history=True,
                **(self.inputs.params or {}),
            )
        self._results['info'] = {
            'n': len(fields),
            'conditioning': round(conditioning, 3),
            'b0_dirs': [[round(value, 5) for value in b0_dir] for b0_dir in b0_dirs],
            'angles': angles_between(b0_dirs),
            'iterations': len(history),
            'n_voxels': int(mask.sum()),
            'registrations': self._checks(),
        }
        self._tell(conditioning, runtime.cwd)
        self._write(runtime, first, chimap=order.from_ras(chi), mask=mask)
        return runtime

    def _check_numbers(self) -> None:
        """Check that there is one file of each kind for each orientation."""
        number = len(self.inputs.fields)
        if number < 3:
            raise ValueError(
                f'COSMOS needs the fields of three or more orientations; got {number}. Invert '
                'each by a method for one orientation.'
            )
        expected = {'masks': number, 'weights': number, 'b0_dirs': number}
        for name, count in (expected | {'transforms': number - 1}).items():
            given = getattr(self.inputs, name)
            if isdefined(given) and len(given) != count:
                raise ValueError(
                    f'{number} fields need {count} {name}; got {len(given)}. The first field has '
                    'no transform: the others are brought to its grid.'
                )

    def _turned_directions(self, volumes: list[io.Volume]) -> list[tuple[float, float, float]]:
        """Return the main field of each orientation in the array axes of the first field."""
        given = self.inputs.b0_dirs
        own = given if isdefined(given) else [volume.b0_dir for volume in volumes]
        turned = [tuple(own[0])]
        for volume, b0_dir, path in zip(volumes[1:], own[1:], self.inputs.transforms, strict=True):
            turn = rotation_of(path)
            turned.append(turned_direction(b0_dir, volume.affine, turn, volumes[0].affine))
        return turned

    def _on_one_grid(self, volumes: list[io.Volume]):
        """Return fields, masks and weights on the grid of the first field."""
        first = volumes[0]
        with_weights = isdefined(self.inputs.weights)
        fields, masks, weights = [], [], []
        for number, volume in enumerate(volumes):
            inside = io.load_mask(self.inputs.masks[number], like=volume)
            field = np.where(inside, volume.data, np.float32(0))
            weight = None
            if with_weights:
                weight = io.load_volume(self.inputs.weights[number])
                io.check_same_grid(volume, weight)
                weight = weight.data
            if number:
                chain = [self.inputs.transforms[number - 1]]
                field = _moved(field, volume, first, chain, self.inputs.interpolation)
                inside = _moved(inside.astype(np.float32), volume, first, chain) > 0.5
                weight = None if weight is None else _moved(weight, volume, first, chain)
            fields.append(field)
            masks.append(inside)
            weights.append(weight)
        return fields, masks, weights if with_weights else None

    def _checks(self) -> list[dict]:
        return [dict(check) for check in self.inputs.checks or []]

    def _tell(self, conditioning: float, folder: str) -> None:
        """Log what needs a look, and set it as an output for the sidecar."""
        found = [registration_finding(n, check) for n, check in enumerate(self._checks(), 2)]
        found.append(conditioning_finding(conditioning))
        found = [finding for finding in found if finding is not None]
        for finding in found:
            _LOGGER.warning('%s (%s)', finding, folder)
        if found:
            self._results['warnings'] = [finding.as_dict() for finding in found]


def _moved(
    data: np.ndarray, own: io.Volume, like: io.Volume, chain: list[str], how: str = 'linear'
) -> np.ndarray:
    """Bring an array to another grid."""
    volume = io.Volume(data, own.affine, own.path)
    return registration.resample(volume, like, chain, interpolation=how).data


def rotation_of(transform: str) -> np.ndarray:
    """Return the rotation of a rigid ITK transform.

    Parameters
    ----------
    transform : str
        File with one linear transform.

    Returns
    -------
    ndarray of float, shape (3, 3)
        Turns directions of the fixed image to those of the moving one, in RAS.

    Raises
    ------
    ValueError
        If the transform scales or shears.
    """
    matrix = registration.read_affine(transform)[:3, :3]
    left, _, right = np.linalg.svd(matrix)
    rotation = left @ right
    deviation = float(np.abs(matrix - rotation).max())
    if deviation > RIGID_TOLERANCE or np.linalg.det(rotation) < 0:
        raise ValueError(
            f'{transform} is not rigid: its matrix is {deviation:.3f} from the nearest rotation. '
            'The orientations of one head differ by a rotation and a shift; register them so.'
        )
    return rotation


def turned_direction(
    b0_dir: tuple[float, float, float], own: np.ndarray, rotation: np.ndarray, target: np.ndarray
) -> tuple[float, float, float]:
    """Return the main field of one scan in the array axes of another of the same head.

    Parameters
    ----------
    b0_dir : tuple of float
        Main field in the array axes of its own scan.
    own, target : ndarray of float, shape (4, 4)
        Affines of the two scans.
    rotation : ndarray of float, shape (3, 3)
        Turns directions of the head in the target scan to those in its own scan, in RAS.

    Returns
    -------
    tuple of float
        Unit vector.

    Examples
    --------
    The head is turned by 90 degrees about the x axis between the scans:

    >>> turn = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
    >>> turned_direction((0.0, 0.0, 1.0), np.eye(4), turn, np.eye(4))
    (0.0, 1.0, 0.0)
    """
    axes, target_axes = (
        affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0) for affine in (own, target)
    )
    turned = target_axes.T @ rotation.T @ axes @ np.asarray(b0_dir, float)
    return tuple(float(value) + 0.0 for value in turned / np.linalg.norm(turned))


def angles_between(b0_dirs: list[tuple[float, float, float]]) -> list[list[float]]:
    """Return the angles between directions whose sign does not matter, in degrees.

    Examples
    --------
    >>> angles_between([(0, 0, 1), (0, 0.6, -0.8)])
    [[0.0, 36.9], [36.9, 0.0]]
    """
    vectors = np.array(b0_dirs, float)
    cosines = np.clip(np.abs(vectors @ vectors.T), 0, 1)
    angles = np.rad2deg(np.arccos(cosines))
    np.fill_diagonal(angles, 0)
    return [[round(float(angle), 1) for angle in row] for row in angles]


def conditioning_finding(conditioning: float) -> Finding | None:
    """Return what to say of the geometry, or None if it is good."""
    if conditioning <= POOR_CONDITIONING:
        return None
    how = (
        f'{conditioning:.0f} times worse than others'
        if np.isfinite(conditioning)
        else 'not at all'
    )
    return Finding(
        'ORICOND',
        'WARN',
        f'the orientations determine some frequencies {how}: expect noise and streaks in the '
        'COSMOS map',
        evidence={'conditioning': round(conditioning, 1), 'limit': POOR_CONDITIONING},
        remedy='Rotations about two different axes, or larger ones, would do better.',
    )


def registration_finding(number: int, check: dict) -> Finding | None:
    """Return what to say of the registration of an orientation, or None if it passed."""
    if check.get('passed', True):
        return None
    return Finding(
        'ORIREG',
        'WARN',
        f'orientation {number} may not be aligned with the first: the check of its registration '
        'failed',
        evidence={'score': check.get('score'), 'reasons': check.get('reasons', [])},
        remedy='Look at the COSMOS map; without that series it may be better (--run-label).',
    )
