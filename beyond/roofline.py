"""How many float32 operations the cores can do at all, when nothing is read from memory."""

import numpy as np
from numba import njit, prange

from beyond.microkernel import simd_lanes

LANES = simd_lanes()


def multiply_add(n, threads):
    """Do 24 * LANES * n * threads operations in registers; return 12 * LANES for each thread."""
    out = np.zeros(threads, np.float32)
    multiply_add_half(np.float32(0.5), n, out)
    return out


@njit(parallel=True, fastmath={"contract"})
def multiply_add_half(half, n, out):
    for thread in prange(len(out)):
        sums = np.zeros(12 * LANES, np.float32)
        for _ in range(n):
            for lane in range(12 * LANES):
                sums[lane] = sums[lane] * half + half
        out[thread] = sums.sum()
