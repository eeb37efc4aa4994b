"""Pure functions on arrays: the science of the package.

Every stage has one table of methods, :data:`qsmflow.algorithms.catalog.STAGES`; all methods of a
stage share one signature. :func:`get_method` turns a table entry into its function.
"""

from collections.abc import Callable
from importlib import import_module

from qsmflow.algorithms.catalog import EXTRAS, STAGES, Method


def get_method(stage: str, name: str) -> Callable:
    """Return the function of a method.

    Parameters
    ----------
    stage : str
        A key of ``STAGES``: ``'unwrapping'``, ``'field'``, ``'background'``, ``'inversion'``,
        ``'strategy'`` or ``'relaxometry'``.
    name : str
        A method of that stage.

    Returns
    -------
    callable

    Raises
    ------
    ValueError
        If there is no such method; the message lists those there are.

    Examples
    --------
    >>> get_method('inversion', 'tkd').__name__
    'tkd'
    """
    if name not in STAGES[stage]:
        raise ValueError(
            f'{name!r} is no {stage} method; choose one of {", ".join(STAGES[stage])}'
        )
    module, _, function = STAGES[stage][name].function.partition(':')
    return getattr(import_module(f'{__name__}.{module}'), function)


def method_parameters(stage: str, name: str) -> dict[str, object]:
    """Return the options of a method with their defaults.

    Data, geometry and bookkeeping arguments are left out: what remains is what a user may set.

    Examples
    --------
    >>> method_parameters('inversion', 'tkd')
    {'threshold': 0.15, 'correct': False, 'pad': 8}
    """
    import inspect

    reserved = {'b0_dir', 'weights', 'return_history', *EXTRAS}
    reserved |= {'options', 'reliable'}  # of strategies: the method's own, and data
    parameters = inspect.signature(get_method(stage, name)).parameters.values()
    return {
        p.name: p.default
        for p in parameters
        if p.kind is inspect.Parameter.KEYWORD_ONLY and p.name not in reserved
    }


__all__ = ['STAGES', 'Method', 'get_method', 'method_parameters']
