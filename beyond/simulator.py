"""Twins, for Numba's simulator, of what beyond/warp.py has: a lane is a thread of Python there."""

import threading

import numpy as np

# One simulated block at a time. Each step of a sum has a buffer of its own, or a lane would
# overwrite what its partner hasn't read yet.
buffers = np.empty((8, 2, 8, 40), np.float32)  # bit, warp of the block, lane, sum


def add_partner(sums, count, start, bit):
    thread = threading.current_thread()
    lane, buffer = thread.threadIdx.x, buffers[bit, thread.threadIdx.y]
    buffer[lane, :count] = sums[start : start + count]
    thread.syncthreads()
    sums[:count] += buffer[lane ^ bit, :count]


def load(floats, start, width):
    return tuple(floats[start : start + width])


def start_copy(to, i, floats, j):
    to[i : i + 4] = floats[j : j + 4]


def ptx(code):
    return lambda: None
