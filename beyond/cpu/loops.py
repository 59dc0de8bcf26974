"""The course's three loops: compiled, then with SIMD, then on all cores."""

import numpy as np
from numba import njit, prange

from beyond.operands import multiply_arrays
from ladder.rungs import ANY_ORDER, rung


def loops(a, b, c):
    for i in prange(len(a)):  # prange is range, unless compiled with parallel=True
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
    return multiply_arrays(compiled, a, b)


def by_columns(b):
    """Return b, copied so that the floats of a column are neighbours, as those of a row of a are."""
    return b.T.contiguous().T


@rung()
def matmul_numba_vector(a, b):
    """SIMD: as a sum may be added up in any order, one instruction does 4 to 16 of its products.

    The sum of floats depends on their order, so LLVM, Numba's compiler, keeps it unless ANY_ORDER
    allows others. With b by columns, it finds the floats of such an instruction side by side.
    """
    return multiply_arrays(vectorized, a, by_columns(b))


@rung()
def matmul_numba_parallel(a, b):
    """The rows of c split across all cores; with few rows, waking them costs more than the work."""
    return multiply_arrays(parallel, a, by_columns(b))
