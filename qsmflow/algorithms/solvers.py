"""Iterative solvers of linear least squares on volumes.

Each takes functions for the operators, works on float32 volumes with float64 reductions, and
returns the solution together with its history, one number for each iteration.
"""

import numpy as np

from qsmflow.algorithms._jit import njit, prange
from qsmflow.algorithms.operators import use_threads


def dot(a, b):
    """Return the inner product of two volumes, summed in double precision.

    Parameters
    ----------
    a, b : ndarray of float32
        C-contiguous arrays of equal size.

    Returns
    -------
    float
        Sum of the products.

    Examples
    --------
    >>> dot(np.ones((2, 3), np.float32), np.full((2, 3), 2, np.float32))
    12.0
    """
    use_threads()
    return float(_dot(a.ravel(), b.ravel()))


# Lists are summed in parts of this length, so that the sum does not depend on the threads.
_PART = 8192


@njit(cache=True, fastmath={'reassoc'})
def _dot_part(a, b):
    # Several sums side by side, in an order that is fixed when this is compiled.
    total = 0.0
    for i in range(a.size):
        total += np.float64(a[i]) * np.float64(b[i])
    return total


@njit(cache=True, parallel=True)
def _dot(a, b):
    parts = np.empty(((a.size + _PART - 1) // _PART, 1))
    for p in prange(len(parts)):
        part = slice(p * _PART, (p + 1) * _PART)
        parts[p, 0] = _dot_part(a[part], b[part])
    # With an axis: numba shares a plain sum among the threads.
    return parts.sum(axis=0)[0]


def add_scaled(target, factor, other):
    """Add ``factor * other`` to a volume in place.

    Parameters
    ----------
    target, other : ndarray of float32
        C-contiguous arrays of equal size; ``target`` changes.
    factor : float
        Factor.
    """
    use_threads()
    _add_scaled(target.reshape(-1), np.float32(factor), other.reshape(-1))


@njit(cache=True, parallel=True)
def _add_scaled(target, factor, other):
    for i in prange(target.size):
        target[i] += factor * other[i]


def scale_add(target, factor, other):
    """Replace a volume by ``other + factor * target`` in place.

    Parameters
    ----------
    target, other : ndarray of float32
        C-contiguous arrays of equal size; ``target`` changes.
    factor : float
        Factor.
    """
    use_threads()
    _scale_add(target.reshape(-1), np.float32(factor), other.reshape(-1))


@njit(cache=True, parallel=True)
def _scale_add(target, factor, other):
    for i in prange(target.size):
        target[i] = other[i] + factor * target[i]


def conjugate_gradient(apply, rhs, *, precondition=None, max_iter=50, tol=1e-3):
    r"""Solve :math:`A x = b` for a symmetric positive semidefinite operator, from zero.

    Parameters
    ----------
    apply : callable
        ``apply(x) -> A x`` for a float32 volume; must return a new or reusable array.
    rhs : ndarray of float32
        Right-hand side :math:`b`; must lie in the range of :math:`A`.
    precondition : callable, optional
        ``precondition(r) -> P r``, symmetric and positive, near the inverse of :math:`A`; must
        return a new or reusable array.
    max_iter : int, optional
        Largest number of iterations.
    tol : float, optional
        Stop when the norm of the residual is below ``tol`` times that of ``rhs``. With a
        preconditioner the norm is :math:`\sqrt{r^T P r}`.

    Returns
    -------
    x : ndarray of float32
        Solution.
    history : list of float
        Relative norm of the residual after each iteration.

    References
    ----------
    .. [1] Hestenes MR, Stiefel E. J Res Natl Bur Stand 1952;49:409-436.
       doi:10.6028/jres.049.044

    Examples
    --------
    >>> x, history = conjugate_gradient(lambda x: 2 * x, np.full(4, 6, np.float32))
    >>> x.tolist(), len(history)
    ([3.0, 3.0, 3.0, 3.0], 1)
    """
    x = np.zeros_like(rhs)
    residual = rhs.copy()
    shaped = residual if precondition is None else precondition(residual)
    direction = shaped.copy()
    start = rho = dot(residual, shaped)
    history = []
    while rho > 0 and len(history) < max_iter:
        image = apply(direction)
        curvature = dot(direction, image)
        if curvature <= 0:
            break
        add_scaled(x, rho / curvature, direction)
        add_scaled(residual, -rho / curvature, image)
        shaped = residual if precondition is None else precondition(residual)
        previous, rho = rho, dot(residual, shaped)
        history.append((max(rho, 0.0) / start) ** 0.5)
        if history[-1] < tol:
            break
        scale_add(direction, rho / previous, shaped)
    return x, history


def cgls(forward, adjoint, data, *, start=None, max_iter=50, tol=1e-3):
    r"""Solve :math:`\min_x \|A x - b\|^2` by conjugate gradients for least squares.

    The number of iterations regularises: components that :math:`A` passes well come first.

    Parameters
    ----------
    forward, adjoint : callable
        ``forward(x) -> A x`` and ``adjoint(r) -> A^T r``; neither may change its argument, and
        each must return a new array.
    data : ndarray of float32
        Data :math:`b`. Its content is lost: the residual takes its place.
    start : ndarray of float32, optional
        Where to begin; zero by default. Its content is lost.
    max_iter : int, optional
        Largest number of iterations.
    tol : float, optional
        Stop when the norm of the gradient :math:`A^T(b - A x)` is below ``tol`` times its
        first value.

    Returns
    -------
    x : ndarray of float32
        Solution.
    history : list of float
        Relative norm of the gradient after each iteration.

    References
    ----------
    .. [1] Paige CC, Saunders MA. ACM Trans Math Softw 1982;8:43-71. doi:10.1145/355984.355989

    Examples
    --------
    >>> x, _ = cgls(lambda x: 2 * x, lambda r: 2 * r, np.full(3, 4, np.float32))
    >>> x.tolist()
    [2.0, 2.0, 2.0]
    """
    residual = data
    if start is not None:
        residual -= forward(start)
    direction = adjoint(residual)
    x = np.zeros_like(direction) if start is None else start
    gamma = first = dot(direction, direction)
    history = []
    while gamma > 0 and len(history) < max_iter:
        image = forward(direction)
        curvature = dot(image, image)
        if curvature <= 0:
            break
        add_scaled(x, gamma / curvature, direction)
        add_scaled(residual, -gamma / curvature, image)
        del image  # room for the volumes of the adjoint
        gradient = adjoint(residual)
        previous, gamma = gamma, dot(gradient, gradient)
        history.append((gamma / first) ** 0.5)
        if history[-1] < tol:
            break
        scale_add(direction, gamma / previous, gradient)
        del gradient
    return x, history
