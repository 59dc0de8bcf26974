"""The last rung: it takes the way that is best for the shape, and addresses instead of arrays."""

from numba import carray, njit

from beyond.cpu.few_rows import PACK_FROM, matmul_numba_few_rows, multiply_few_rows
from beyond.cpu.prefetch import matmul_numba_prefetch, with_prefetch
from beyond.cpu.registers import LANES
from beyond.cpu.tile import in_one_thread
from beyond.cpu.vectors import pointer
from beyond.operands import operand_sizes
from ladder.rungs import rung

FEW_ROWS, ONE_THREAD, PREFETCH = range(3)
THREADS_FROM = 100_000 * LANES  # multiply-adds: 15 to 30 µs, twice what waking threads takes


@njit
def best_way(m, k, n):
    """Return which way takes the least time for a, (m, k), times b, (k, n)."""
    if m < PACK_FROM:
        return FEW_ROWS
    if m * k * n < THREADS_FROM:
        return ONE_THREAD
    return PREFETCH


@njit
def multiply_at(a, b, c, m, k, n):
    """c = a @ b, where a, b and c are addresses."""
    a, b = carray(pointer(a), (m, k)), carray(pointer(b), (k, n))
    c = carray(pointer(c), (m, n))
    way = best_way(m, k, n)
    if way == FEW_ROWS:
        multiply_few_rows(a, b, c)
    elif way == ONE_THREAD:
        in_one_thread(a, b, c)
    else:
        with_prefetch(a, b, c)


def address_same_as(shape):
    """The rung whose code is run, but where the product is so small that wrapping shows."""
    m, k, n = shape.m, shape.k, shape.n
    if m * k * n < THREADS_FROM:
        return None
    ways = {FEW_ROWS: matmul_numba_few_rows, PREFETCH: matmul_numba_prefetch}
    return ways[best_way.py_func(m, k, n)]


@rung(same_as=address_same_as)
def matmul_numba_address(a, b):
    """Addresses instead of arrays: wrapping three tensors takes longer than the small product."""
    m, k, n = operand_sizes(a, b, "cpu", "the CPU")
    a, b, c = a.contiguous(), b.contiguous(), a.new_empty(m, n)
    multiply_at(a.data_ptr(), b.data_ptr(), c.data_ptr(), m, k, n)
    return c
