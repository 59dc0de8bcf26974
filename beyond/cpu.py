"""The ladder goes on: NumPy, then the course's three loops, compiled, one step at a time.

The full shape reads 157 MB for 0.78 GFLOP: what counts is how fast `a` comes from memory. Factors
are to the rung above, on two cores of an AMD EPYC (Zen 5).
"""

import numpy as np
import torch
from numba import njit, prange

from ladder.rungs import ANY_ORDER, rung


def run(multiply, a, b):
    """Return the new c that ``multiply(a, b, c)`` fills; its arguments are NumPy's views."""
    c = a.new_empty(len(a), b.shape[1])
    multiply(a.contiguous().numpy(), b.numpy(), c.numpy())
    return c


def refuse(a, b, place):
    """Raise the error of a rung that hands out addresses, which don't tell what is there."""
    are = (getattr(x, y, type(x)) for x in (a, b) for y in ("dtype", "shape", "device"))
    what = "float32 tensors of shapes (M, K) and (K, N)"
    raise ValueError(f"takes {what} on {place}, not {', '.join(map(str, are))}")


@rung(starts_anew=True)
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


@rung(starts_anew=True)
def matmul_numba_loops(a, b):
    """The course's three loops, all compiled: no Python left, one multiplication at a time."""
    return run(compiled, a, b)


@rung()
def matmul_numba_vector(a, b):
    """ANY_ORDER lets LLVM use SIMD; b stored by columns gives it neighbouring floats to load.
    ``b.T.contiguous().T`` is b again, but copied so that a column's floats are neighbours, as those
    of a row of a are. 11x faster on the full shape, 1.7x on the small one."""
    return run(vectorized, a, b.T.contiguous().T)


@rung()
def matmul_numba_parallel(a, b):
    """The rows of c split across all cores; with few rows, waking them costs more than the work."""
    return run(parallel, a, b.T.contiguous().T)
