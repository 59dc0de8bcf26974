"""A small b: what stays in L2 is read as it is, by all threads, without packing.

The tile is that of few_rows.py, whose lanes are neighbouring columns. Each tile of rows reads all of
b again, from L2. In the pass over the first columns, the rows of a later tile are prefetched.
"""

from numba import njit, prange

from beyond.cpu.blocks import count_parts, matmul_numba_blocks
from beyond.cpu.few_rows import ROWS as FEW_ROWS
from beyond.cpu.few_rows import VECTORS, make_tile, rows_before_the_end
from beyond.cpu.prefetch import CACHED, LEVEL, TILES_AHEAD
from beyond.cpu.registers import LANES
from beyond.cpu.vectors import prefetch, zeros
from beyond.operands import multiply_arrays
from ladder.rungs import rung

# With two units for multiply-adds, and four cycles from the start of one to its end, 8 sums or more
# keep a core busy. Five rows are 10 sums with 8 lanes, but 5 with 16.
ROWS = 8 if LANES == 16 else FEW_ROWS
CACHE_LINE = 16  # floats

plain_kernel, add_products, finish = make_tile(ROWS, VECTORS)


@njit
def prefetching_kernel(a, b, c, row, column, safe, later_row):
    """Compute the tile as plain_kernel does. Meanwhile, prefetch the tile of a at ``later_row``."""
    k_size = a.shape[1]
    sums = zeros(ROWS, VECTORS, LANES)
    for k in range(safe):
        if k % CACHE_LINE == 0:
            for r in range(ROWS):
                prefetch(a, (later_row + r) * k_size + k, LEVEL)
        add_products(sums, a, b, row, column, k)
    finish(sums, a, b, c, row, column, safe)


@njit(parallel=True)
def multiply_small_b(a, b, c):
    """c = a @ b, tile by tile. Nothing is prefetched of a small a, which is in a cache anyway."""
    m, n = c.shape
    safe = rows_before_the_end(b, VECTORS)
    for tile in prange(count_parts(m, ROWS)):
        row, later_row = tile * ROWS, (tile + TILES_AHEAD) * ROWS
        prefetches = a.size > CACHED and later_row < m
        for column in range(0, n, VECTORS * LANES):
            if prefetches and column == 0:
                prefetching_kernel(a, b, c, row, column, safe, later_row)
            else:
                plain_kernel(a, b, c, row, column, safe)


# As much as an L2 holds: CPUs with AVX-512 have 1 MB or more, others 256 KB or more.
LARGEST_B = 2**18 if LANES == 16 else 2**16  # floats

# A CPU foresees what is read at a fixed distance, but only within a page, 4 KB. If b's rows are as
# long as that or nearly, it doesn't bring the next row from L2 to L1 in time.
LONGEST_ROW = 1000  # floats


@njit
def is_small(k, n):
    """Return whether b, (k, n), is best read as it is."""
    return k * n <= LARGEST_B and n <= LONGEST_ROW


def small_b_same_as(shape):
    return None if is_small.py_func(shape.k, shape.n) else matmul_numba_blocks


@rung(shapes=(), same_as=small_b_same_as)
def matmul_numba_small_b(a, b):
    """A b that L2 holds is read as it is by all threads: packing costs more than it saves."""
    if is_small(*b.shape):
        return multiply_arrays(multiply_small_b, a, b.contiguous())
    return matmul_numba_blocks(a, b)
