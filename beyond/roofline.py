"""How many float32 operations the cores can do at all, when nothing is read from memory."""

import numpy as np
from numba import njit, prange

from beyond.microkernel import WIDE


def multiply_adds(n, threads):
    """Do 24 * WIDE * n * threads operations in registers; return 12 * WIDE for each thread.

    12 independent sums, as each multiply-add has to wait for the last one to its sum."""
    out = np.zeros(threads, np.float32)
    fma_loop(np.float32(0.5), n, out)
    return out


@njit(parallel=True, fastmath={"contract"})
def fma_loop(half, n, out):
    for thread in prange(len(out)):
        sums = np.zeros(12 * WIDE, np.float32)
        for _ in range(n):
            for lane in range(12 * WIDE):
                sums[lane] = sums[lane] * half + half
        out[thread] = sums.sum()
