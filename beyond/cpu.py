"""The ladder goes on: a peer, then the course's three loops, compiled, one step at a time.

The full shape reads 157 MB for 0.78 GFLOP: what counts is how fast a comes from memory. What a rung
brought was measured on two cores of an AMD EPYC (Zen 5), as all figures in this folder.
"""

import numpy as np
import torch
from numba import njit, prange

from rungs import ANY_ORDER, rung


@rung()
def matmul_numpy(a, b):
    """For comparison: NumPy's @, which is OpenBLAS where torch has MKL."""
    return torch.from_numpy(a.numpy() @ b.numpy())


@rung()
def matmul_numba_loops(a, b):
    """The course's three loops, all compiled: no Python left, one multiplication at a time."""
    c = np.empty((len(a), b.shape[1]), np.float32)
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


@rung()
def matmul_numba_vector(a, b):
    """b transposed once (31 KB), so that SIMD instructions read both operands along k.

    Brought 11 times on the full shape.
    """
    c = np.empty((len(a), b.shape[1]), np.float32)
    dots(a.contiguous().numpy(), b.T.contiguous().numpy(), c)
    return torch.from_numpy(c)


@rung()
def matmul_numba_parallel(a, b):
    """The rows of c split across all cores.

    Brought 2.0 times on the full shape, and cost 1.8 on the small one: threads have to be woken.
    """
    c = np.empty((len(a), b.shape[1]), np.float32)
    dots_parallel(a.contiguous().numpy(), b.T.contiguous().numpy(), c)
    return torch.from_numpy(c)


def dots_in_python(a, bt, c):
    for i in prange(c.shape[0]):
        for j in range(c.shape[1]):
            x, y, tmp = a[i], bt[j], np.float32(0)
            for k in range(len(x)):
                tmp += x[k] * y[k]
            c[i, j] = tmp


dots = njit(fastmath=ANY_ORDER)(dots_in_python)  # where prange is range
dots_parallel = njit(parallel=True, fastmath=ANY_ORDER)(dots_in_python)
