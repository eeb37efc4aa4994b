"""Compiled loops of the smoothed, weighted L1 norm of the gradient.

Volumes are float32, C-contiguous and of one grid; differences are periodic. ``faces`` has shape
(3, X, Y, Z): the weight of the face between a voxel and its next neighbour along each axis.
"""

import math

import numpy as np

from qsmflow.algorithms._jit import njit, prange


@njit(cache=True, parallel=True)
def face_slopes(inside, magnitude, sx, sy, sz, slopes):
    # The steepness of the magnitude across each face between voxels of the mask, -1 elsewhere.
    nx, ny, nz = inside.shape
    for i in prange(nx):
        i1 = i + 1 if i + 1 < nx else 0
        for j in range(ny):
            j1 = j + 1 if j + 1 < ny else 0
            for k in range(nz):
                k1 = k + 1 if k + 1 < nz else 0
                here = np.float32(magnitude[i, j, k])
                slopes[0, i, j, k] = slopes[1, i, j, k] = slopes[2, i, j, k] = -1
                if not inside[i, j, k]:
                    continue
                if inside[i1, j, k]:
                    slopes[0, i, j, k] = abs(magnitude[i1, j, k] - here) * sx
                if inside[i, j1, k]:
                    slopes[1, i, j, k] = abs(magnitude[i, j1, k] - here) * sy
                if inside[i, j, k1]:
                    slopes[2, i, j, k] = abs(magnitude[i, j, k1] - here) * sz


@njit(cache=True, parallel=True)
def weigh_slopes(slopes, level, weight, outside):
    # Turns slopes into weights: zero on edges, `outside` for the faces that have no slope.
    n, nx, ny, nz = slopes.shape
    for i in prange(nx):
        for axis in range(n):
            for j in range(ny):
                for k in range(nz):
                    slope = slopes[axis, i, j, k]
                    if slope < 0:
                        slopes[axis, i, j, k] = outside
                    elif slope > 0 and slope >= level:
                        slopes[axis, i, j, k] = 0
                    else:
                        slopes[axis, i, j, k] = weight


@njit(cache=True, inline='always')
def _pull(difference, face, step, epsilon2):
    # The weight of half the squared difference whose slope is that of the smoothed magnitude.
    slope = difference * step
    return face * step * step / math.sqrt(slope * slope + epsilon2)


@njit(cache=True, inline='always')
def _gradient_at(x, faces, sx, sy, sz, epsilon2, i0, i, i1, j0, j, j1, k0, k, k1):
    here = x[i, j, k]
    a0 = here - x[i0, j, k]
    a1 = here - x[i1, j, k]
    b0 = here - x[i, j0, k]
    b1 = here - x[i, j1, k]
    c0 = here - x[i, j, k0]
    c1 = here - x[i, j, k1]
    total = _pull(a0, faces[0, i0, j, k], sx, epsilon2) * a0
    total += _pull(a1, faces[0, i, j, k], sx, epsilon2) * a1
    total += _pull(b0, faces[1, i, j0, k], sy, epsilon2) * b0
    total += _pull(b1, faces[1, i, j, k], sy, epsilon2) * b1
    total += _pull(c0, faces[2, i, j, k0], sz, epsilon2) * c0
    total += _pull(c1, faces[2, i, j, k], sz, epsilon2) * c1
    return total


@njit(cache=True, parallel=True)
def edge_gradient(x, faces, sx, sy, sz, epsilon2, out):
    # The ends of the innermost axis are taken out of its loop, which is faster without branches.
    nx, ny, nz = x.shape
    for i in prange(nx):
        i0 = i - 1 if i > 0 else nx - 1
        i1 = i + 1 if i + 1 < nx else 0
        for j in range(ny):
            j0 = j - 1 if j > 0 else ny - 1
            j1 = j + 1 if j + 1 < ny else 0
            for k in range(1, nz - 1):
                out[i, j, k] = _gradient_at(
                    x, faces, sx, sy, sz, epsilon2, i0, i, i1, j0, j, j1, k - 1, k, k + 1
                )
            for k in (0, nz - 1):
                k0 = k - 1 if k > 0 else nz - 1
                k1 = k + 1 if k + 1 < nz else 0
                out[i, j, k] = _gradient_at(
                    x, faces, sx, sy, sz, epsilon2, i0, i, i1, j0, j, j1, k0, k, k1
                )


@njit(cache=True, parallel=True)
def edge_curvature(x, direction, faces, sx, sy, sz, epsilon2):
    # Curvature of the quadratic that touches the norm at x from above, and the sum of its weights.
    nx, ny, nz = x.shape
    sums = np.empty((nx, 2))
    for i in prange(nx):
        i1 = i + 1 if i + 1 < nx else 0
        curvature, weights = 0.0, 0.0
        for j in range(ny):
            j1 = j + 1 if j + 1 < ny else 0
            here, there, last = x[i, j], direction[i, j], nz - 1
            face = faces[0, i, j], faces[1, i, j], faces[2, i, j]
            one = _curvature_row(here, x[i1, j], there, direction[i1, j], face[0], sx, epsilon2)
            two = _curvature_row(here, x[i, j1], there, direction[i, j1], face[1], sy, epsilon2)
            # Along the row, and from its end back to its start.
            three = _curvature_row(
                here[:last], here[1:], there[:last], there[1:], face[2][:last], sz, epsilon2
            )
            four = _curvature_row(
                here[last:], here[:1], there[last:], there[:1], face[2][last:], sz, epsilon2
            )
            curvature += one[0] + two[0] + three[0] + four[0]
            weights += one[1] + two[1] + three[1] + four[1]
        sums[i, 0], sums[i, 1] = curvature, weights
    total = sums.sum(axis=0)
    return total[0], total[1]


@njit(cache=True, fastmath={'reassoc'}, error_model='numpy')
def _curvature_row(x, next_x, d, next_d, faces, step, epsilon2):
    # Only the sums are reordered.
    curvature, weights = np.float32(0), np.float32(0)
    for k in range(faces.size):
        slope = (next_x[k] - x[k]) * step
        along = (next_d[k] - d[k]) * step
        weight = faces[k] / math.sqrt(slope * slope + epsilon2)
        weights += weight
        curvature += weight * along * along
    return curvature, weights


@njit(cache=True, parallel=True)
def fill_inverse(inverse, kernel, ex, ey, ez, data, smooth):
    nx, ny, nz = inverse.shape
    for i in prange(nx):
        for j in range(ny):
            for k in range(nz):
                d = kernel[i, j, k]
                total = data * d * d + smooth * (ex[i] + ey[j] + ez[k])
                inverse[i, j, k] = 1 / total if total > 0 else np.float32(0)


@njit(cache=True, parallel=True)
def advance(x, direction, step, inside):
    nx, ny = x.shape[:2]
    sums = np.empty((nx, 2))
    for i in prange(nx):
        change, energy = 0.0, 0.0
        for j in range(ny):
            found = _advance_row(x[i, j], direction[i, j], step, inside[i, j])
            change += found[0]
            energy += found[1]
        sums[i, 0], sums[i, 1] = change, energy
    total = sums.sum(axis=0)
    return total[0] / (total[1] + 1e-30)


@njit(cache=True, fastmath={'reassoc'})
def _advance_row(x, direction, step, inside):
    change, energy = 0.0, 0.0
    for k in range(x.size):
        move = step * direction[k]
        new = x[k] + move
        x[k] = new
        counts = np.float32(1) if inside[k] else np.float32(0)
        change += np.float64(counts * move * move)
        energy += np.float64(counts * new * new)
    return change, energy
