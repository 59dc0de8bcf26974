"""Few rows: what surrounds the product takes longer than the product."""

import torch
from numba import carray, njit

from beyond import microkernel
from beyond.microkernel import LANES, ROWS, TILE, add_product, add_rest
from beyond.vectors import broadcast, floats_at, load, registers, store
from ladder.rungs import rung

# From this many rows on it pays to pack b, and from this many multiply-adds of vectors on to wake
# the other threads. Measured with AVX2 and AVX-512.
PACK_FROM = 16
THREADS_FROM = 35_000


@njit
def multiply_few_rows(a, b, c):
    """c = a @ b, with b as it is: the lanes are neighbouring columns, each times one float of a.

    If a row has fewer floats left, a vector goes on with the next row's, which are thrown away in
    the end; the last rows of b, where that would reach past its end, are left to `add_rest`. Even
    and odd k have sums of their own: 5 sums alone would idle, each waiting for its last addition.
    """
    (m, k), n = a.shape, b.shape[1]
    past_row = -n % LANES
    stop = max(0, k - (past_row + n - 1) // max(1, n)) // 2 * 2
    for row in range(0, m, ROWS):
        for column in range(0, n, LANES):
            sums, out = registers(TILE), registers(TILE)
            for i in range(0, stop, 2):
                x = load(b, i * n + column, LANES)
                y = load(b, (i + 1) * n + column, LANES)
                for r in range(ROWS):
                    at = min(row + r, m - 1) * k + i
                    add_product(sums, 2 * r, x, broadcast(a, at, LANES))
                    add_product(sums, 2 * r + 1, y, broadcast(a, at + 1, LANES))
            # An index that isn't a constant would push the sums out of registers: copy them first.
            for j in range(2 * ROWS):
                store(out, j * LANES, load(sums, j * LANES, LANES))
            for r in range(min(ROWS, m - row)):
                for j in range(min(LANES, n - column)):
                    at = 2 * r * LANES + j
                    c[row + r, column + j] = out[at] + out[at + LANES]
        add_rest(a, b, c, row, stop)


@njit
def multiply(a, b, c):
    """c = a @ b in the way that takes the least time."""
    if len(a) < PACK_FROM:
        multiply_few_rows(a, b, c)
    elif a.size * b.shape[1] <= THREADS_FROM * LANES:
        microkernel.multiply_tiles(a, b, c, 1)
    else:
        microkernel.multiply_tiles_in_all_threads(a, b, c, 1)


@njit
def multiply_at(a, b, c, m, k, n):
    """The same, for addresses."""
    left, right = carray(floats_at(a), (m, k)), carray(floats_at(b), (k, n))
    multiply(left, right, carray(floats_at(c), (m, n)))


@rung()
def matmul_numba_few_rows(a, b):
    """With up to 15 rows, packing b costs more than it saves, and waking other threads, too.

    Brought 1.6 to 1.8 times on the small shape.
    """
    c = a.new_empty(len(a), b.shape[1])
    multiply(a.contiguous().numpy(), b.contiguous().numpy(), c.numpy())
    return c


@rung()
def matmul_numba_address(a, b):
    """Addresses instead of arrays: wrapping three tensors takes longer than the small product.

    Brought 1.5 to 1.6 times on the small shape. A wrong address would end the process, so it
    checks its operands itself.
    """
    for x in a, b:
        if not isinstance(x, torch.Tensor) or x.dtype is not torch.float32 or not x.is_cpu:
            raise TypeError(f"a float32 tensor in memory is needed, not {x!r:.80}")
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[0]:
        raise ValueError(f"shapes (M, K) and (K, N) are needed, not {a.shape} and {b.shape}")
    (m, k), n = a.shape, b.shape[1]
    a, b, c = a.contiguous(), b.contiguous(), a.new_empty(m, n)
    multiply_at(a.data_ptr(), b.data_ptr(), c.data_ptr(), m, k, n)
    return c
