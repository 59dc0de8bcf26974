"""Stand-ins, for Numba's simulator, for what only a GPU has.

The simulator runs a kernel as Python, and each thread of the GPU as a thread of Python. That is
slow, so a warp has 8 lanes here instead of 32, and a block 2 warps: the kernels take both numbers
from `warp`. What is shown is their logic, with every index looked at, and nothing of their speed.

While a kernel runs, Numba's simulator gives the name ``cuda`` in its file another meaning, and does
so in a device function's file only for moments. So a function that kernels of other files call, too,
doesn't use that name: it takes the lane, or a local array, as an argument.
"""

import threading

import numpy as np
from numba import cuda

WARP, WARPS = 8, 2  # lanes in a warp, and warps in a block


class Floats:
    """Stands for an address: floats that are read and written by index, within their bounds.

    A GPU reads and writes beyond them without a word, and Python counts -1 from the end.
    """

    def __init__(self, array):
        self.array = array

    def check(self, i, count=1):
        if i < 0 or i + count > len(self.array) or i % count:
            raise IndexError(f"{count} floats from {i} on, of {len(self.array)}")

    def __getitem__(self, i):
        self.check(i)
        return self.array[i]

    def __setitem__(self, i, x):
        self.check(i)
        self.array[i] = x


def launch(kernel, a, b, configuration):
    """Return c = a @ b from a kernel of `ADDRESSES`; None if there is no configuration for it."""
    if configuration is None:
        return None
    grid, block, shared_bytes = configuration
    c = a.new_empty(len(a), b.shape[1])
    addresses = [Floats(x.contiguous().view(-1).numpy()) for x in (a, b, c)]
    kernel[grid, block, 0, shared_bytes](*addresses, *a.shape, b.shape[1])
    return c


def kernel(warps, blocks):
    return cuda.jit


def checked(array):
    return Floats(array)


# What a lane shows to its partner. The simulator runs one block at a time.
shown = np.empty((2 * WARPS, WARP), np.float32)  # warp, lane


def partner(x, bit):
    thread = threading.current_thread()
    lane, warp = thread.threadIdx.x, thread.threadIdx.y
    shown[warp, lane] = x
    thread.syncthreads()
    theirs = shown[warp, lane ^ bit]
    thread.syncthreads()  # before anyone shows the next
    return theirs


def load_4(floats, i):
    floats.check(i, 4)
    return tuple(floats.array[i : i + 4])


# ---- Asynchronous copies, which are made as late as a kernel allows ---------------------


class Copies(threading.local):
    """What a thread has started to copy, in groups; the last is still open."""

    def __init__(self):
        self.groups = [[]]


copies = Copies()


def start_copy_4(to, i, floats, j):
    to.check(i, 4)
    copies.groups[-1].append((to, i, load_4(floats, j)))


def commit_group():
    copies.groups.append([])


def wait_group(groups):
    while len(copies.groups) > groups + 1:
        for to, i, values in copies.groups.pop(0):
            to.array[i : i + 4] = values
