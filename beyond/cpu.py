"""The ladder goes on: a peer, then the course's three loops, compiled, a step at a time.

The full shape reads 157 MB for 0.78 GFLOP: what counts is how fast a comes from memory.
"""

import numpy as np
import torch
from numba import njit, prange

from rungs import rung


@rung()
def matmul_numpy(a, b):
    """A peer: numpy's @, which is OpenBLAS where torch has MKL."""
    return torch.from_numpy(a.numpy() @ b.numpy())


@rung()
def matmul_numba_loops(a, b):
    """The course's three loops, all compiled: no Python left, one multiplication at a time."""
    m, n = len(a), b.shape[1]
    c = np.empty((m, n), np.float32)
    loops(a.numpy(), b.numpy(), c)
    return torch.from_numpy(c)


@njit
def loops(a, b, c):
    for i in range(c.shape[0]):
        for j in range(c.shape[1]):
            tmp = np.float32(0)
            for k in range(a.shape[1]):
                tmp += a[i, k] * b[k, j]
            c[i, j] = tmp


# Vectors of sums add up in another order than the loop says. These flags allow that, and
# unlike the whole of fastmath let NaN and Inf come through.
ANY_ORDER = {"reassoc", "contract", "nsz"}


@rung()
def matmul_numba_vector(a, b):
    """b transposed once (31 KB), so that vector instructions read both operands along k."""
    m, n = len(a), b.shape[1]
    c = np.empty((m, n), np.float32)
    _dots(a.contiguous().numpy(), b.T.contiguous().numpy(), c)
    return torch.from_numpy(c)


@njit(fastmath=ANY_ORDER)
def _dots(a, bt, c):
    for i in range(c.shape[0]):
        for j in range(c.shape[1]):
            c[i, j] = _dot32(a[i], bt[j])


@njit(fastmath=ANY_ORDER)
def _dot32(x, y):
    tmp = np.float32(0)
    for k in range(len(x)):
        tmp += x[k] * y[k]
    return tmp


@rung()
def matmul_numba_parallel(a, b):
    """The rows of c shared out to all cores."""
    m, n = len(a), b.shape[1]
    c = np.empty((m, n), np.float32)
    _dots_parallel(a.contiguous().numpy(), b.T.contiguous().numpy(), c)
    return torch.from_numpy(c)


@njit(parallel=True, fastmath=ANY_ORDER)
def _dots_parallel(a, bt, c):
    for i in prange(c.shape[0]):
        for j in range(c.shape[1]):
            c[i, j] = _dot32(a[i], bt[j])


@rung()
def matmul_numba_tile(a, b):
    """A register tile: 4 x 2 sums at a time, so that a row of a serves 2 columns, and of bt 4 rows."""
    m, n = len(a), b.shape[1]
    c = np.empty((m, n), np.float32)
    _tiles(a.contiguous().numpy(), b.T.contiguous().numpy(), c)
    return torch.from_numpy(c)


@njit(parallel=True, fastmath=ANY_ORDER)
def _tiles(a, bt, c):
    m, n = c.shape
    for tile in prange((m + 3) // 4):
        # Past the last row or column, the last one stands in; it is computed again.
        i0 = 4 * tile
        i1, i2, i3 = min(i0 + 1, m - 1), min(i0 + 2, m - 1), min(i0 + 3, m - 1)
        for j0 in range(0, n, 2):
            j1 = min(j0 + 1, n - 1)
            p, q, r, s, x, y = a[i0], a[i1], a[i2], a[i3], bt[j0], bt[j1]
            px = py = qx = qy = rx = ry = sx = sy = np.float32(0)
            for k in range(len(x)):
                px += p[k] * x[k]
                py += p[k] * y[k]
                qx += q[k] * x[k]
                qy += q[k] * y[k]
                rx += r[k] * x[k]
                ry += r[k] * y[k]
                sx += s[k] * x[k]
                sy += s[k] * y[k]
            c[i0, j0], c[i0, j1], c[i1, j0], c[i1, j1] = px, py, qx, qy
            c[i2, j0], c[i2, j1], c[i3, j0], c[i3, j1] = rx, ry, sx, sy
