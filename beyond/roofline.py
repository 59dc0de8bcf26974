"""How many float32 operations the cores can do at all, when nothing is read from memory."""

import numpy as np
from numba import njit, prange

from beyond.prefetch import LANES


def multiply_add(n, threads):
    """Do 24 * LANES * n * threads float32 operations in registers; return a result per thread.

    A measure of the machine: nothing is read from memory. Each result is 12 * LANES.
    """
    out = np.zeros(threads, np.float32)
    _multiply_add(np.float32(0.5), n, out)
    return out


@njit(parallel=True, fastmath={"contract"})
def _multiply_add(x, n, out):
    for thread in prange(len(out)):
        sums = np.zeros(12 * LANES, np.float32)
        for _ in range(n):
            for lane in range(12 * LANES):
                sums[lane] = sums[lane] * x + x
        out[thread] = sums.sum()
