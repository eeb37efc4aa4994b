"""Checks of arguments that the algorithms share.

Each names the argument, what was expected, what arrived and what to do about it.
"""

from numbers import Real

import numpy as np

from qsmflow.algorithms import _kernels as kernels
from qsmflow.algorithms._threads import use_threads

#: Weights that are all below this stand for no data: every penalty outweighs them, and far below
#: it their squares vanish in float32.
LEAST_CONFIDENCE = 1e-6


def check_volume(data, mask, name='local_field'):
    """Check a volume with its mask, and return a masked copy.

    Parameters
    ----------
    data : ndarray of float, shape (X, Y, Z)
        Volume. Values outside the mask are ignored, NaN among them.
    mask : ndarray of bool, shape (X, Y, Z)
        Region of interest.
    name : str, optional
        Name of the volume in messages.

    Returns
    -------
    data : ndarray of float32, shape (X, Y, Z)
        New array, zero outside the mask.
    mask : ndarray of bool, shape (X, Y, Z)
        Mask as booleans.

    Raises
    ------
    ValueError
        If shapes differ, the mask is empty, or values inside the mask are not finite.

    Examples
    --------
    >>> data, mask = check_volume(np.full((2, 2, 2), np.nan), np.zeros((2, 2, 2)))
    Traceback (most recent call last):
    ...
    ValueError: The mask is empty, ... Check the brain mask.
    """
    mask = check_mask(mask, np.shape(data), name)
    data = np.asarray(data)
    if np.iscomplexobj(data):
        raise ValueError(f'{name} must be real; got {data.dtype}.')
    # Values outside the mask may be anything, and need not fit.
    with np.errstate(over='ignore', invalid='ignore'):
        data = np.ascontiguousarray(data, np.float32)
    if not data.flags.writeable:
        data = data.copy()  # The kernel is compiled for arrays that may be written to.
    out = np.empty_like(data)
    use_threads()
    bad = int(kernels.copy_masked(data, mask, out))
    if bad:
        raise ValueError(
            f'{name} has {bad} values inside the mask that are not finite (NaN or infinite). '
            'Take these voxels out of the mask, or repair the stage before.'
        )
    return out, mask


def check_mask(mask, shape, name='data'):
    """Check a three-dimensional mask against a shape, and return it as booleans.

    Parameters
    ----------
    mask : ndarray, shape (X, Y, Z)
        Region of interest; non-zero is inside.
    shape : tuple of int
        Shape of the data.
    name : str, optional
        Name of the data in messages.

    Returns
    -------
    ndarray of bool, shape (X, Y, Z)
        Mask.

    Raises
    ------
    ValueError
        If shapes differ or are not three-dimensional, or the mask is empty.

    Examples
    --------
    >>> int(check_mask(np.ones((2, 2, 2), np.uint8), (2, 2, 2)).sum())
    8
    """
    # A new array: functions return the mask that they were given.
    mask = np.asarray(mask)
    mask = mask.copy(order='C') if mask.dtype == bool else np.ascontiguousarray(mask != 0)
    shape = tuple(shape)
    if len(shape) != 3:
        raise ValueError(f'{name} must have three dimensions; got shape {shape}.')
    if mask.shape != shape:
        raise ValueError(
            f'{name} has shape {shape}, its mask {mask.shape}: both must be on one grid.'
        )
    if not mask.any():
        raise ValueError(
            f'The mask is empty, so nothing of {name} is left to work on. Check the brain mask.'
        )
    return mask


def check_weights(weights, mask):
    """Check confidence weights, and return them as float32, zero outside the mask.

    Parameters
    ----------
    weights : ndarray of float, shape (X, Y, Z), or None
        Confidence in [0, 1]; None stands for ones.
    mask : ndarray of bool, shape (X, Y, Z)
        Region of interest.

    Returns
    -------
    ndarray of float32, shape (X, Y, Z)
        New array.

    Raises
    ------
    ValueError
        If the shape differs, or values inside the mask are outside [0, 1], all zero or all as
        good as zero.

    Examples
    --------
    >>> check_weights(None, np.array([[[True, False]]])).tolist()
    [[[1.0, 0.0]]]
    """
    if weights is None:
        return mask.astype(np.float32)
    weights, mask = check_volume(weights, mask, 'weights')
    low, high = float(weights.min()), float(weights.max())
    if low < 0 or high > 1.0001:
        raise ValueError(
            f'weights must lie in [0, 1]; got values from {low:g} to {high:g}. Divide them by '
            'their maximum.'
        )
    if high == 0:
        raise ValueError('weights are zero everywhere inside the mask: no data would be used.')
    if high < LEAST_CONFIDENCE:
        raise ValueError(
            f'weights are {high:g} at most inside the mask: hardly any data would be used. Divide '
            'them by their maximum.'
        )
    return weights


def check_voxel_size(voxel_size):
    """Check voxel edge lengths, and return them as a tuple of three floats.

    Parameters
    ----------
    voxel_size : tuple of float
        Voxel edge lengths, in mm.

    Returns
    -------
    tuple of float
        Voxel edge lengths, in mm.

    Raises
    ------
    ValueError
        If there are not three positive finite numbers.

    Examples
    --------
    >>> check_voxel_size((1, 1, 2))
    (1.0, 1.0, 2.0)
    """
    sizes = np.asarray(voxel_size, np.float64)
    if sizes.shape != (3,) or not np.isfinite(sizes).all() or (sizes <= 0).any():
        raise ValueError(
            f'voxel_size must be three positive lengths in mm, one for each axis; '
            f'got {voxel_size!r}.'
        )
    return tuple(float(s) for s in sizes)


def check_positive(**values):
    """Check that named parameters are positive finite numbers.

    Parameters
    ----------
    **values : float
        Parameters by name.

    Raises
    ------
    ValueError
        If one is not; the message names it.

    Examples
    --------
    >>> check_positive(reg_weight=-1)
    Traceback (most recent call last):
    ...
    ValueError: reg_weight must be a positive number; got -1.
    """
    for name, value in values.items():
        if not (_is_finite_number(value) and value > 0):
            raise ValueError(f'{name} must be a positive number; got {value!r}.')


def check_count(least=1, **values):
    """Check that named parameters are whole numbers, not too small.

    Parameters
    ----------
    least : int, optional
        Smallest number that is allowed.
    **values : int
        Parameters by name. A float without a fraction is whole, too.

    Raises
    ------
    ValueError
        If one is not; the message names it.

    Examples
    --------
    >>> check_count(max_iter=0.5)
    Traceback (most recent call last):
    ...
    ValueError: max_iter must be a whole number, 1 or more; got 0.5.
    """
    for name, value in values.items():
        if not (_is_finite_number(value) and value == int(value) and value >= least):
            raise ValueError(f'{name} must be a whole number, {least} or more; got {value!r}.')


def check_counts(least=1, **values):
    """Check that named parameters are sequences of whole numbers, which may be empty.

    Parameters
    ----------
    least : int, optional
        Smallest number that is allowed.
    **values : sequence of int
        Parameters by name.

    Raises
    ------
    ValueError
        If one is not; the message names it.

    Examples
    --------
    >>> check_counts(coarse_iter=30)
    Traceback (most recent call last):
    ...
    ValueError: coarse_iter must be a sequence of whole numbers, 1 or more, such as (30,); got 30.
    """
    for name, value in values.items():
        try:
            counts = list(value)
            check_count(least, **{f'{name}[{i}]': count for i, count in enumerate(counts)})
        except (TypeError, ValueError):
            raise ValueError(
                f'{name} must be a sequence of whole numbers, {least} or more, such as (30,); '
                f'got {value!r}.'
            ) from None


def _is_finite_number(value):
    return isinstance(value, Real) and bool(np.isfinite(value))
