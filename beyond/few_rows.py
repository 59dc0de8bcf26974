"""Few rows: what surrounds the product takes longer than the product."""

from numba import njit
from torch import float32

from rungs import check_operands, rung

from beyond.microkernel import (
    LANES,
    ROWS,
    add_rest,
    lanes_for,
    micro_kernel_of,
    multiply_in_all_threads,
    multiply_in_one_thread,
)
from beyond.vectors import broadcast, store

# From so many rows on it pays to pack b, and from so many multiply-adds of vectors on to wake the
# other threads: measured with SSE2, AVX2 and AVX-512.
PACK_FROM = 16
THREADS_FROM = 35_000


@njit
def put_columns(c, at, x, y, columns):
    store(c, at, x, columns)
    store(c, at + LANES, y, columns - LANES)


across_columns = micro_kernel_of(LANES, broadcast, put_columns)


@njit
def multiply_few_rows(a, b, c, m, k, n):
    """c = a @ b, with b as it is: each float of a is multiplied by neighbouring columns.

    Nothing is prefetched: all of a is in the cache.
    """
    for row in range(0, m, ROWS):
        for column in range(0, n, 2 * LANES):
            # Rows of b from which two vectors can be loaded without going on past its end.
            whole = max(0, (k * n - column - 2 * LANES) // n + 1)
            b_vectors, steps = (column, column + LANES, n), (whole, 1)
            across_columns(a, b, c, (m, k, n), row, column, b_vectors, steps, (row * k, 0))
            add_rest(a, b, c, (m, k, n), row, (column, column + 2 * LANES), (n, 1), whole)


def multiply(a, b, c, m, k, n, tensor):
    """c = a @ b in the way that takes the least time; ``tensor`` is a again, as a tensor."""
    if m < PACK_FROM:
        multiply_few_rows(a, b, c, m, k, n)
        return
    lanes = lanes_for(tensor)
    all_threads = m * k * n > THREADS_FROM * lanes
    in_threads = multiply_in_all_threads if all_threads else multiply_in_one_thread
    in_threads(a, b, c, m, k, n, lanes)


@rung()
def matmul_numba_few_rows(a, b):
    """With up to 15 rows, packing b costs more than it saves, and waking other threads, too.

    Brought 1.8 times on the small shape.
    """
    (m, k), n = a.shape, b.shape[1]
    a, b, c = a.contiguous(), b.contiguous(), a.new_empty(m, n)
    multiply(a.numpy(), b.numpy(), c.numpy(), m, k, n, a)
    return c


@rung()
def matmul_numba_address(a, b):
    """Addresses instead of arrays: wrapping three tensors takes longer than the small product.

    Brought 1.3 times on the small shape. A wrong address would end the process, so it looks at its
    operands itself.
    """
    left, right = a.shape, b.shape
    fit = len(left) == len(right) == 2 and left[1] == right[0]
    floats = a.dtype is b.dtype is float32 and a.is_cpu and b.is_cpu
    if not (fit and floats) or a.is_neg() or b.is_neg():
        check_operands(a, b)
        raise ValueError("a or b is only a view that negates its memory: use .resolve_neg()")
    (m, k), n = left, right[1]
    a, b, c = a.contiguous(), b.contiguous(), a.new_empty(m, n)
    address_a, address_b = a.data_ptr(), b.data_ptr()
    if not (address_a and address_b) and m * k * n:
        raise ValueError("a or b has no memory of its own")
    multiply(address_a, address_b, c.data_ptr(), m, k, n, a)
    return c
