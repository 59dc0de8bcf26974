"""The ladder goes on: NumPy, then the course's three loops, compiled, one step at a time.

The full shape reads 157 MB for 0.78 GFLOP: what counts is how fast `a` comes from memory. What a
rung brought was measured on two cores of an AMD EPYC (Zen 5), as all figures in this folder.
"""

import numpy as np
import torch
from numba import njit, prange

from ladder.rungs import ANY_ORDER, rung


@rung()
def matmul_numpy(a, b):
    """For comparison: NumPy's @, which is OpenBLAS where torch has MKL."""
    return torch.from_numpy(a.numpy() @ b.numpy())


def loops(a, b, c):
    for i in prange(len(a)):  # which is range, unless compiled with parallel=True
        for j in range(b.shape[1]):
            tmp = np.float32(0)
            for k in range(len(b)):
                tmp += a[i, k] * b[k, j]
            c[i, j] = tmp


compiled = njit(loops)
vectorized = njit(fastmath=ANY_ORDER)(loops)
parallel = njit(fastmath=ANY_ORDER, parallel=True)(loops)


@rung()
def matmul_numba_loops(a, b):
    """The course's three loops, all compiled: no Python left, one multiplication at a time."""
    c = a.new_empty(len(a), b.shape[1])
    compiled(a.numpy(), b.numpy(), c.numpy())
    return c


@rung()
def matmul_numba_vector(a, b):
    """b stored by columns (31 KB, copied once), so that SIMD instructions read a and b along k.

    Brought 11 times on the full shape, 1.7 on the small one.
    """
    c = a.new_empty(len(a), b.shape[1])
    vectorized(a.contiguous().numpy(), b.T.contiguous().T.numpy(), c.numpy())
    return c


@rung()
def matmul_numba_parallel(a, b):
    """The rows of c split across all cores.

    Brought 1.9 times on the full shape, and cost 1.1 to 1.8 on the small one: threads have to wake.
    """
    c = a.new_empty(len(a), b.shape[1])
    parallel(a.contiguous().numpy(), b.T.contiguous().T.numpy(), c.numpy())
    return c
