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

FEW = 16  # rows: from here on it pays to pack b; measured with SSE2, AVX2 and AVX-512
MUCH = 35_000 * LANES  # multiply-adds: from here on it pays to wake the other threads; likewise


@njit
def put_columns(c, at, x, y, columns):
    store(c, at, x, columns)
    store(c, at + LANES, y, columns - LANES)


across_columns = micro_kernel_of(LANES, broadcast, put_columns)


@njit
def multiply_few_rows(a, b, c, m, k, n):
    """c = a @ b, with b as it is: each float of a is multiplied by neighbouring columns.

    The last rows of b are a rest, as a vector would go on past its end.
    """
    for row in range(0, m, ROWS):
        for column in range(0, n, 2 * LANES):
            whole = max(0, (k * n - column - 2 * LANES) // n + 1)
            b_vectors, steps = (column, column + LANES, n), (whole, 1)
            across_columns(a, b, c, (m, k, n), row, column, b_vectors, steps, (row * k, 0))
            add_rest(a, b, c, (m, k, n), row, (column, column + 2 * LANES), (n, 1), whole)


def multiply(a, b, c, m, k, n, tensor):
    """c = a @ b in the way that takes the least time; ``tensor`` is a again, as a tensor."""
    if m < FEW:
        multiply_few_rows(a, b, c, m, k, n)
    elif m * k * n < MUCH:
        multiply_in_one_thread(a, b, c, m, k, n, lanes_for(tensor))
    else:
        multiply_in_all_threads(a, b, c, m, k, n, lanes_for(tensor))


@rung()
def matmul_numba_few_rows(a, b):
    """Up to 15 rows don't pay for packing b, nor a small product for waking the other threads."""
    (m, k), n = a.shape, b.shape[1]
    a, b, c = a.contiguous(), b.contiguous(), a.new_empty(m, n)
    multiply(a.numpy(), b.numpy(), c.numpy(), m, k, n, a)
    return c


@rung()
def matmul_numba_address(a, b):
    """Addresses instead of arrays: wrapping three tensors takes longer than the small product.

    A wrong address would end the process, so it looks at its operands itself.
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
