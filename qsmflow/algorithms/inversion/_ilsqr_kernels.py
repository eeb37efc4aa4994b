"""Compiled loops over volumes for `ilsqr`, in the manner of `qsmflow.algorithms._kernels`."""

from qsmflow.algorithms._jit import njit, prange


@njit(cache=True, parallel=True)
def bend(x, inside, sx, sy, sz, out):
    # Absolute Laplacian; neighbours outside the mask, where the field is unknown, are left out.
    nx, ny, nz = x.shape
    for i in prange(nx):
        i0 = i - 1 if i > 0 else nx - 1
        i1 = i + 1 if i + 1 < nx else 0
        for j in range(ny):
            j0 = j - 1 if j > 0 else ny - 1
            j1 = j + 1 if j + 1 < ny else 0
            for k in range(nz):
                out[i, j, k] = 0
                if not inside[i, j, k]:
                    continue
                k0 = k - 1 if k > 0 else nz - 1
                k1 = k + 1 if k + 1 < nz else 0
                here = x[i, j, k]
                total = (x[i0, j, k] - here) * sx if inside[i0, j, k] else 0 * here
                total += (x[i1, j, k] - here) * sx if inside[i1, j, k] else 0 * here
                total += (x[i, j0, k] - here) * sy if inside[i, j0, k] else 0 * here
                total += (x[i, j1, k] - here) * sy if inside[i, j1, k] else 0 * here
                total += (x[i, j, k0] - here) * sz if inside[i, j, k0] else 0 * here
                total += (x[i, j, k1] - here) * sz if inside[i, j, k1] else 0 * here
                out[i, j, k] = abs(total)


@njit(cache=True, parallel=True)
def weighted_laplacian(x, weights, sx, sy, sz, out):
    # Minus the divergence of the weighted gradient; the steps are squared inverse edges.
    nx, ny, nz = x.shape
    for i in prange(nx):
        i0 = i - 1 if i > 0 else nx - 1
        i1 = i + 1 if i + 1 < nx else 0
        for j in range(ny):
            j0 = j - 1 if j > 0 else ny - 1
            j1 = j + 1 if j + 1 < ny else 0
            for k in range(nz):
                k0 = k - 1 if k > 0 else nz - 1
                k1 = k + 1 if k + 1 < nz else 0
                here = x[i, j, k]
                along = weights[0, i0, j, k] * (here - x[i0, j, k])
                along -= weights[0, i, j, k] * (x[i1, j, k] - here)
                across = weights[1, i, j0, k] * (here - x[i, j0, k])
                across -= weights[1, i, j, k] * (x[i, j1, k] - here)
                up = weights[2, i, j, k0] * (here - x[i, j, k0])
                up -= weights[2, i, j, k] * (x[i, j, k1] - here)
                out[i, j, k] = along * sx + across * sy + up * sz
