"""No rung past the course reads or writes a float beyond its operands and its result."""

import ctypes
import mmap
import os

import numpy as np
import pytest
import torch

from ladder.rungs import RUNGS
from tests.operands import FAST

pytestmark = pytest.mark.skipif(os.name != "posix", reason="this platform has no mprotect")


def guarded(rows, columns, at_the_end=True):
    """Return a float32 array between pages that may not be touched: it ends where one begins, or
    begins where one ends. What touches such a page ends the process."""
    size, page = 4 * rows * columns, mmap.PAGESIZE
    room = (size + page - 1) // page * page
    memory = mmap.mmap(-1, page + room + page)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for forbidden in start, start + page + room:
        assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(forbidden), page, 0) == 0
    first = page + room - size if at_the_end else page
    return np.frombuffer(memory, np.float32, rows * columns, first).reshape(rows, columns)


@pytest.mark.parametrize("rung", [name for name in FAST if "numba" in name])
def test_reads_nothing_past_its_operands(rung):
    """A wrong read ends the process, pytest and all; -v shows at which rung."""
    for m in 1, 5, 6, 16, 21, 130:
        for k in 1, 15, 16, 17, 33, 784, 1025:
            for n in 1, 2, 5, 9, 10, 16, 17, 33, 48, 49, 100:
                a, b = (torch.from_numpy(guarded(*shape)).fill_(1) for shape in ((m, k), (k, n)))
                c = RUNGS[rung].fn(a, b)
                assert c.shape == (m, n) and (c == k).all(), (m, k, n)


# The ways themselves, with a result that is guarded, too, in a process of its own.
CHECK = """
import numpy as np
from beyond.cpu import blocks, few_rows, prefetch, small_b, tile
from tests.test_bounds import guarded

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
        a, b, c = (guarded(*shape, at_the_end) for shape in ((m, k), (k, n), (m, n)))
        a[:], b[:] = draw(a.shape), draw(b.shape)
        for name, multiply in ways.items():
            print(name, a.shape, b.shape, flush=True)
            c[:] = np.nan
            multiply(a, b, c)
            assert np.allclose(c, a @ b, rtol=1e-4)
print("done")
"""


def test_nothing_beyond_the_operands(python):
    status, output, errors = python("-c", CHECK)
    assert (status, output.splitlines()[-1:], errors) == (0, ["done"], "")
