"""The random numbers of the lesson, many at once.

Each number of Wichmann and Hill's generator waits for the state that the last one left. But n
steps of its first part multiply the state by 171**n modulo 30269, and so on: a table of these
powers lets one jump ahead, to as many numbers at once as the CPU has SIMD lanes.
"""

import numpy as np
from numba import njit

GENERATORS = (171, 30269), (172, 30307), (170, 30323)
POWERS = [np.array([pow(a, i, p) for i in range(1, 513)], np.uint32) for a, p in GENERATORS]


def rand_array_numba(n, state):
    """Return the n numbers that `kernels.rand` gives after ``state``, float64 (n,), and the state then.

    The loop of the course, compiled.
    """
    out = np.empty(n)
    return out, rand_loop(out, *state)


@njit
def rand_loop(out, x, y, z):
    for i in range(len(out)):
        x = (171 * x) % 30269
        y = (172 * y) % 30307
        z = (170 * z) % 30323
        out[i] = (x / 30269 + y / 30307 + z / 30323) % 1.0
    return x, y, z


def rand_array(n, state):
    """Return the same as `rand_array_numba`, by jumping ahead: blocks of 512 independent numbers."""
    out = np.empty(n)
    rand_jump(out, *state, *POWERS)
    after = (pow(a, n, p) * s % p for (a, p), s in zip(GENERATORS, state, strict=True))
    return out, tuple(after)


@njit(error_model="numpy")
def rand_jump(out, x, y, z, x_powers, y_powers, z_powers):
    x, y, z = np.uint32(x), np.uint32(y), np.uint32(z)
    block = len(x_powers)
    for start in range(0, len(out), block):
        numbers = out[start : start + block]
        for i in range(len(numbers)):
            u = np.float64(np.uint32(x * x_powers[i]) % np.uint32(30269)) / 30269
            v = np.float64(np.uint32(y * y_powers[i]) % np.uint32(30307)) / 30307
            w = np.float64(np.uint32(z * z_powers[i]) % np.uint32(30323)) / 30323
            total = u + v + w
            numbers[i] = total - np.floor(total)
        x = x * x_powers[-1] % np.uint32(30269)
        y = y * y_powers[-1] % np.uint32(30307)
        z = z * z_powers[-1] % np.uint32(30323)
