"""The last rung: the way that is best for the shape, and addresses instead of arrays."""

from numba import carray, njit

from beyond.cpu import small_b
from beyond.cpu.blocks import count_parts, matmul_numba_blocks, multiply_blocks
from beyond.cpu.few_rows import (
    PACK_FROM,
    ROWS,
    VECTORS,
    matmul_numba_few_rows,
    multiply_few_rows,
)
from beyond.cpu.prefetch import matmul_numba_prefetch, with_prefetch
from beyond.cpu.registers import LANES
from beyond.cpu.tile import in_one_thread as tiles_in_one_thread
from beyond.cpu.vectors import pointer
from beyond.operands import operand_sizes
from ladder.rungs import rung
from ladder.shape import FULL, SMALL, SQUARE

FEW_ROWS, TILES_IN_ONE_THREAD, PREFETCH, SMALL_B, BLOCKS = range(5)
THREADS_FROM = 50_000 * LANES  # multiply-adds, 7 to 15 µs: from here on, waking threads pays


@njit
def best_way(m, k, n):
    """Return which way takes the least time for a, (m, k), times b, (k, n)."""
    one_thread = m * k * n < THREADS_FROM
    if m >= PACK_FROM and k >= 10 * n and wastes_lanes(n):
        return TILES_IN_ONE_THREAD if one_thread else PREFETCH
    if one_thread or (m <= ROWS and n <= small_b.LONGEST_ROW):
        return FEW_ROWS
    if small_b.is_small(k, n):
        return SMALL_B
    return BLOCKS


@njit
def wastes_lanes(n):
    """Return whether n columns, like the lesson's ten, are below 16, or leave a quarter of the lanes
    of their vectors empty.

    The vectors of tile.py hold neighbouring k instead, and are full if there are many k.
    """
    width = VECTORS * LANES
    return n < 16 or 4 * n < 3 * count_parts(n, width) * width


@njit
def multiply_at(a, b, c, m, k, n):
    """c = a @ b, where a, b and c are addresses."""
    a, b = carray(pointer(a), (m, k)), carray(pointer(b), (k, n))
    c = carray(pointer(c), (m, n))
    way = best_way(m, k, n)
    if way == FEW_ROWS:
        multiply_few_rows(a, b, c)
    elif way == TILES_IN_ONE_THREAD:
        tiles_in_one_thread(a, b, c)
    elif way == PREFETCH:
        with_prefetch(a, b, c)
    elif way == SMALL_B:
        small_b.multiply_small_b(a, b, c)
    else:
        multiply_blocks(a, b, c)


def address_same_as(shape):
    """The rung whose code runs, unless the product is so small that wrapping arrays shows."""
    m, k, n = shape.m, shape.k, shape.n
    if m * k * n < THREADS_FROM:
        return None
    rungs = {  # without TILES_IN_ONE_THREAD, the way of small products only
        FEW_ROWS: matmul_numba_few_rows,
        PREFETCH: matmul_numba_prefetch,
        SMALL_B: small_b.matmul_numba_small_b,
        BLOCKS: matmul_numba_blocks,
    }
    return rungs[best_way.py_func(m, k, n)]


@rung(shapes=(SMALL, FULL, SQUARE), same_as=address_same_as)
def matmul_numba_address(a, b):
    """The best way for the shape, by address: wrapping tensors takes longer than a small product."""
    m, k, n = operand_sizes(a, b, "cpu", "the CPU")
    a, b, c = a.contiguous(), b.contiguous(), a.new_empty(m, n)
    multiply_at(a.data_ptr(), b.data_ptr(), c.data_ptr(), m, k, n)
    return c
