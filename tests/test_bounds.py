"""No rung past the course reads or writes a float beyond its operands and its result."""

import sys

import pytest

# Arrays that end where a page begins that may not be touched, or begin where one ends. A process that
# touches it is ended by the operating system, so this runs in one of its own.
CHECK = """
import ctypes, mmap
import numpy as np, torch
from beyond.cpu import address, blocks, few_rows, prefetch, small_b, tile

libc, PAGE, KEPT = ctypes.CDLL(None, use_errno=True), mmap.PAGESIZE, []

def guarded(shape, at_the_end):
    size = 4 * shape[0] * shape[1]
    room = -(-size // PAGE) * PAGE
    memory = mmap.mmap(-1, room + 2 * PAGE)
    KEPT.append(memory)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for forbidden in start, start + PAGE + room:
        assert libc.mprotect(ctypes.c_void_p(forbidden), PAGE, 0) == 0
    first = PAGE + room - size if at_the_end else PAGE
    return np.frombuffer(memory, np.float32, shape[0] * shape[1], first).reshape(shape)

ways = {
    "tile": tile.in_all_threads, "one thread": tile.in_one_thread, "prefetch": prefetch.with_prefetch,
    "few rows": few_rows.multiply_few_rows, "small b": small_b.multiply_small_b,
    "blocks": blocks.multiply_blocks,
}
draw = np.random.default_rng(1).random
sizes = [(1, 1, 1), (2, 3, 17), (5, 16, 10), (9, 33, 49), (17, 5, 97), (64, 1030, 35)]
sizes += [(3, 2, 1), (5, 40, 3), (17, 40, 1), (8, 5, 47), (16, 5, 63), (3, 5, 15), (3, 20, 1)]
sizes += [(9, 1030, 300), (1500, 400, 20)]
for m, k, n in sizes:
    for at_the_end in True, False:
        a, b, c = (guarded(shape, at_the_end) for shape in ((m, k), (k, n), (m, n)))
        a[:], b[:] = draw(a.shape), draw(b.shape)
        for name, multiply in ways.items():
            print(name, a.shape, b.shape, flush=True)
            c[:] = np.nan
            multiply(a, b, c)
            assert np.allclose(c, a @ b, rtol=1e-4)
print("done")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="forbids pages as POSIX does")
def test_nothing_beyond_the_operands(python):
    status, output, errors = python("-c", CHECK)
    assert (status, output.splitlines()[-1:], errors) == (0, ["done"], "")
