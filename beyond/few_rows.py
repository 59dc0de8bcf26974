"""Few rows: what surrounds the product takes longer than the product."""

import torch
from numba import carray, njit

from ladder.rungs import rung

from beyond.microkernel import LANES, add_k_tail, multiply_in_all_threads, multiply_in_one_thread
from beyond.vectors import accumulators, as_pointer, broadcast, load, multiply_add, store

# From this many rows on it pays to pack b, and from this many multiply-adds of vectors on to wake
# the other threads.
PACK_FROM = 12
THREADS_FROM = 100_000

ROWS = 5  # the lesson's; 5 x 2 sums, 2 vectors of b and one of a are 13 registers of 16 or more
SUMS = ROWS * 2 * LANES


def make_few_rows(vectors):
    """Return the function for so many ``vectors`` of columns at a time, 1 or 2."""
    steps = 2 // vectors  # 5 sums alone would each wait for its last addition: two for even, odd k

    @njit
    def multiply(a, b, c):
        """c = a @ b, with b as it is: the lanes are neighbouring columns, each times one float of a.

        A vector may run past the end of a row of b; those lanes are discarded. The last rows,
        where that would be past the end of b, are left to `add_k_tail`.
        """
        (m, k), n = a.shape, b.shape[1]
        past_row = -n % (vectors * LANES)
        stop = max(0, k - (past_row + n - 1) // max(1, n)) // steps * steps
        for row in range(0, m, ROWS):
            for column in range(0, n, vectors * LANES):
                sums, out = accumulators(SUMS), accumulators(SUMS)
                for i in range(0, stop, steps):
                    for r in range(ROWS):
                        for q in range(2):  # vector q, or step q
                            step, ahead = q % steps, q // steps * LANES
                            x = load(b, (i + step) * n + column + ahead, LANES)
                            y = broadcast(a, min(row + r, m - 1) * k + i + step, LANES)
                            j = (2 * r + q) * LANES
                            store(sums, j, multiply_add(x, y, load(sums, j, LANES)))
                # An index that isn't constant would push the sums out of registers: copy them.
                for j in range(0, SUMS, LANES):
                    store(out, j, load(sums, j, LANES))
                for r in range(min(ROWS, m - row)):
                    for j in range(min(vectors * LANES, n - column)):
                        at = 2 * r * LANES + j
                        c[row + r, column + j] = out[at] + out[at + LANES] if steps == 2 else out[at]
            add_k_tail(a, b, c, row, row + ROWS, stop)

    return multiply


multiply_one_vector, multiply_two_vectors = make_few_rows(1), make_few_rows(2)


@njit
def multiply(a, b, c):
    """c = a @ b in the way that takes the least time."""
    if len(a) >= PACK_FROM and a.size * b.shape[1] > THREADS_FROM * LANES:
        multiply_in_all_threads(a, b, c)
    elif len(a) >= PACK_FROM:
        multiply_in_one_thread(a, b, c)
    elif b.shape[1] > LANES:
        multiply_two_vectors(a, b, c)
    else:
        multiply_one_vector(a, b, c)


@njit
def multiply_at(a, b, c, m, k, n):
    """The same, for addresses."""
    left, right = carray(as_pointer(a), (m, k)), carray(as_pointer(b), (k, n))
    multiply(left, right, carray(as_pointer(c), (m, n)))


@rung(step=lambda m, k, n: m < PACK_FROM)
def matmul_numba_few_rows(a, b):
    """With a few rows, packing b costs more than it saves, and waking other threads, too.

    """
    c = a.new_empty(len(a), b.shape[1])
    multiply(a.contiguous().numpy(), b.contiguous().numpy(), c.numpy())
    return c


@rung()
def matmul_numba_address(a, b):
    """Addresses instead of arrays: wrapping three tensors takes longer than the small product.
    """
    try:
        (m, k), (rows, n) = a.shape, b.shape
        fit = rows == k and a.dtype is b.dtype is torch.float32 and a.is_cpu and b.is_cpu
    except (AttributeError, TypeError, ValueError):
        fit = False
    if not fit:
        refuse(a, b)
    a, b, c = a.contiguous(), b.contiguous(), a.new_empty(m, n)
    multiply_at(a.data_ptr(), b.data_ptr(), c.data_ptr(), m, k, n)
    return c


def refuse(a, b):
    """Say what is wrong with the operands: a wrong address would end the process."""
    for x in a, b:
        if not (isinstance(x, torch.Tensor) and x.dtype is torch.float32 and x.is_cpu):
            raise TypeError(f"a float32 tensor in memory is needed, not {x!r:.80}")
    raise ValueError(f"shapes (M, K) and (K, N) are needed, not {a.shape} and {b.shape}")
