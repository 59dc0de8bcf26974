"""Few rows: what surrounds the product takes longer than the product."""

from numba import njit
from torch import float32

from rungs import check_operands, rung

from beyond.microkernel import (
    AHEAD,
    LANES,
    ROWS,
    add_rest,
    micro_kernel_of,
    multiply_in_all_threads,
    multiply_packed,
    pack,
)
from beyond.vectors import add, broadcast, multiply_add, store

FEW = 16  # rows: from here on it pays to pack b; measured with SSE2, AVX2 and AVX-512
MUCH = 35_000 * LANES  # multiply-adds: from here on it pays to wake the other threads; likewise


# b as it is: neighbouring columns are neighbours in memory, so each float of a is multiplied by
# LANES of them. x and y are more columns, or, if one vector holds them all, the next row of b.


@njit
def multiply_columns(a, at, x, y, sum0, sum1):
    z = broadcast(a, at, LANES)
    return multiply_add(x, z, sum0), multiply_add(y, z, sum1)


@njit
def store_columns(c, at, sum0, sum1, columns):
    store(c, at, sum0, columns)
    store(c, at + LANES, sum1, columns - LANES)


@njit
def multiply_two_rows(a, at, x, y, sum0, sum1):
    sum0 = multiply_add(x, broadcast(a, at, LANES), sum0)
    return sum0, multiply_add(y, broadcast(a, at + 1, LANES), sum1)


@njit
def store_both(c, at, sum0, sum1, columns):
    store(c, at, add(sum0, sum1), columns)


two_vectors = micro_kernel_of(multiply_columns, store_columns)
one_vector = micro_kernel_of(multiply_two_rows, store_both)


@njit
def multiply_few_rows(a, b, c, m, k, n, ahead):
    """c = a @ b, with b as it is; where a vector would go on past the end of b, k has a rest."""
    sizes = m, k, n
    for row in range(0, m, ROWS):
        for column in range(0, n, 2 * LANES):
            fetch = row * k, 0
            if column + LANES < n:
                whole = max(0, (k * n - column - 2 * LANES) // n + 1)
                vectors = column, column + LANES, n
                two_vectors(a, b, c, sizes, row, column, vectors, (whole, 1), fetch)
            else:
                whole = max(0, (k * n - column - LANES) // n + 1) // 2 * 2
                vectors = column, column + n, n
                one_vector(a, b, c, sizes, row, column, vectors, (whole, 2), fetch)
            columns = column, column + 2 * LANES
            add_rest(a, b, c, sizes, (row, row + ROWS), columns, (n, 1), whole)


@njit
def multiply_in_one_thread(a, b, c, m, k, n, ahead):
    multiply_packed(a, pack(b, k, n), c, (m, k, n), ahead)


def fastest(m, k, n):
    """Return what multiplies matrices of these sizes in the least time."""
    if m < FEW:
        return multiply_few_rows
    return multiply_in_one_thread if m * k * n < MUCH else multiply_in_all_threads


@rung()
def matmul_numba_few_rows(a, b):
    """Up to 15 rows don't pay for packing b, nor a small product for waking the other threads."""
    (m, k), n = a.shape, b.shape[1]
    c = a.new_empty(m, n)
    a, b = a.contiguous(), b.contiguous()
    fastest(m, k, n)(a.numpy(), b.numpy(), c.numpy(), m, k, n, AHEAD)
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
    c = a.new_empty(m, n)
    a, b = a.contiguous(), b.contiguous()
    address_a, address_b = a.data_ptr(), b.data_ptr()
    if not (address_a and address_b) and m * k * n:
        raise ValueError("a or b has no memory of its own")
    fastest(m, k, n)(address_a, address_b, c.data_ptr(), m, k, n, AHEAD)
    return c
