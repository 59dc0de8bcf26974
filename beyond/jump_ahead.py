"""The random numbers of the lesson, many at once.

Each number waits for the state that the last one left. But n steps of the generator's first part
multiply its state by 171**n modulo 30269, and so on. With a table of such powers, one can jump
ahead, and make as many numbers at once as the CPU has SIMD lanes.
"""

import numpy as np
from numba import njit, uint32

PARTS = (171, 30269), (172, 30307), (170, 30323)
BLOCK = 512
POWERS = [np.array([pow(a, i, p) for i in range(1, BLOCK + 1)], np.uint32) for a, p in PARTS]


@njit
def rand_array_numba(n, state):
    """Return the n numbers that `kernels.rand` gives from ``state`` on, float64 (n,), and the state after them."""
    out, (x, y, z) = np.empty(n), state
    for i in range(n):
        x = (171 * x) % 30269
        y = (172 * y) % 30307
        z = (170 * z) % 30323
        out[i] = (x / 30269 + y / 30307 + z / 30323) % 1.0
    return out, (x, y, z)


def rand_array(n, state):
    """Return the same, in blocks of numbers that don't wait for each other."""
    out = np.empty(n)
    rand_blocks(out, *state, *POWERS)
    return out, tuple(pow(a, n, p) * s % p for (a, p), s in zip(PARTS, state, strict=True))


@njit(error_model="numpy")  # with 32-bit integers and no check for division by 0, LLVM uses SIMD
def rand_blocks(out, x, y, z, x_powers, y_powers, z_powers):
    x, y, z = uint32(x), uint32(y), uint32(z)
    for start in range(0, len(out), BLOCK):
        block = out[start : start + BLOCK]
        for i in range(len(block)):
            u = np.float64(uint32(x * x_powers[i]) % uint32(30269)) / 30269
            v = np.float64(uint32(y * y_powers[i]) % uint32(30307)) / 30307
            w = np.float64(uint32(z * z_powers[i]) % uint32(30323)) / 30323
            block[i] = u + v + w - np.floor(u + v + w)
        x = x * x_powers[-1] % uint32(30269)
        y = y * y_powers[-1] % uint32(30307)
        z = z * z_powers[-1] % uint32(30323)
