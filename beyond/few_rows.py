"""Few rows: what surrounds the product takes longer than the product."""

from numba import carray, njit
from torch import float32

from beyond.cpu import refuse, run
from beyond.microkernel import LANES, in_one_thread, matmul_numba_prefetch, with_prefetch
from beyond.vectors import accumulators, as_pointer, broadcast, load, multiply_add, store
from ladder.rungs import rung

PACK_FROM = 16  # rows: from here on, packing b costs less than vectors that 10 columns don't fill
THREADS_FROM = 100_000 * LANES  # multiply-adds: 15 to 30 µs, twice what waking threads takes
# Two vectors of 8 columns at a time, or one of 4 or 16, with sums of its own for even and odd k.
ROWS, VECTORS = 5, 2 if LANES == 8 else 1
STEPS, WIDTH, SIZE = 2 // VECTORS, VECTORS * LANES, ROWS * 2 * LANES


@njit
def multiply_few_rows(a, b, c):
    """c = a @ b, with b as it is: the lanes are neighbouring columns, each times a float of a.
    A vector may run past the end of a row of b; those lanes are discarded. The last rows, where
    that would be past the end of b, are the k tail."""
    (m, k), n = a.shape, b.shape[1]
    stop = max(0, k - (-n % WIDTH + n - 1) // max(1, n)) // STEPS * STEPS
    for row in range(0, m, ROWS):
        for column in range(0, n, WIDTH):
            sums, out = accumulators(SIZE), accumulators(SIZE)
            for i in range(0, stop, STEPS):
                for r in range(ROWS):
                    for q in range(2):
                        step, right = (q, 0) if STEPS == 2 else (0, q * LANES)
                        x = load(b, (i + step) * n + column + right, LANES)
                        y = broadcast(a, min(row + r, m - 1) * k + i + step, LANES)
                        j = (2 * r + q) * LANES
                        store(sums, j, multiply_add(x, y, load(sums, j, LANES)))
            for j in range(0, SIZE, LANES):  # so that sums, in registers, has constant indices
                store(out, j, load(sums, j, LANES))
            for i in range(row, min(row + ROWS, m)):
                for j in range(column, min(column + WIDTH, n)):
                    at = 2 * (i - row) * LANES + j - column
                    c[i, j] = out[at] + out[at + LANES] if STEPS == 2 else out[at]
                    for tail in range(stop, k):
                        c[i, j] += a[i, tail] * b[tail, j]


@njit
def multiply(a, b, c):
    """c = a @ b in the way that takes the least time."""
    if len(a) < PACK_FROM:
        multiply_few_rows(a, b, c)
    elif a.size * b.shape[1] < THREADS_FROM:
        in_one_thread(a, b, c)
    else:
        with_prefetch(a, b, c)


@njit
def multiply_at(a, b, c, m, k, n):
    left, right = carray(as_pointer(a), (m, k)), carray(as_pointer(b), (k, n))
    multiply(left, right, carray(as_pointer(c), (m, n)))


def is_small(shape):
    return shape.m * shape.k * shape.n < THREADS_FROM


def few_rows_same_as(shape):
    return None if shape.m < PACK_FROM or is_small(shape) else matmul_numba_prefetch


@rung(same_as=few_rows_same_as)
def matmul_numba_few_rows(a, b):
    """With up to 15 rows, packing b costs more than it saves, and waking other threads, too."""
    return run(multiply, a, b.contiguous())


@rung(same_as=lambda shape: None if is_small(shape) else matmul_numba_few_rows)
def matmul_numba_address(a, b):
    """Addresses instead of arrays: wrapping three tensors takes longer than the small product."""
    try:
        (m, k), (rows, n) = a.shape, b.shape
        right = rows == k and a.dtype is b.dtype is float32 and a.is_cpu and b.is_cpu
    except (AttributeError, ValueError):
        right = False
    if not right:  # a wrong address would crash the process
        refuse(a, b, "the CPU")
    a, b, c = a.contiguous(), b.contiguous(), a.new_empty(m, n)
    multiply_at(a.data_ptr(), b.data_ptr(), c.data_ptr(), m, k, n)
    return c
