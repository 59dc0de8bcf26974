"""Few rows: packing b would take longer than the product, so b is read as it is."""

from numba import njit

from beyond.cpu.prefetch import matmul_numba_prefetch
from beyond.cpu.registers import LANES, REGISTERS
from beyond.cpu.vectors import broadcast, load, load_part, multiply_add, store_part, zeros
from beyond.operands import multiply_arrays
from ladder.rungs import rung


@njit
def multiply_few_rows(a, b, c):
    """c = a @ b by tiles of ROWS x VECTORS vectors, whose lanes are neighbouring columns.

    In tile.py they are neighbouring k, as a packed b has those side by side. Here a row of b has
    the columns side by side, and each float of a is multiplied by a vector of them.
    """
    (m, k_size), n = a.shape, b.shape[1]
    safe = rows_before_the_end(k_size, n)
    for row in range(0, m, ROWS):
        for column in range(0, n, VECTORS * LANES):
            sums = zeros(ROWS, VECTORS, LANES)
            for k in range(safe):  # a vector may run on into b's next row: that isn't stored
                for q in range(VECTORS):
                    y = load(b, k * n + column + q * LANES, LANES)
                    add_products(sums, q, a, row, k, y)
            for k in range(safe, k_size):
                for q in range(VECTORS):
                    j = column + q * LANES
                    add_products(sums, q, a, row, k, load_part(b, k * n + j, LANES, n - j))
            store_sums(sums, c, row, column)


@njit
def rows_before_the_end(k_size, n):
    """Return how many rows of b a vector can start in without running past the end of b."""
    if n == 0:
        return k_size
    past_the_row = -n % (VECTORS * LANES)  # floats
    return max(0, k_size - (past_the_row + n - 1) // n)


@njit(forceinline=True)
def add_products(sums, q, a, row, k, y):
    """Add a[row : row + ROWS, k] times the vector y. For rows past the last, it is taken again."""
    m, k_size = a.shape
    for r in range(ROWS):
        x = broadcast(a, min(row + r, m - 1) * k_size + k, LANES)
        sums[r, q] = multiply_add(x, y, sums[r, q])


@njit(forceinline=True)
def store_sums(sums, c, row, column):
    """Store the tile, but nothing past the last column or row of c."""
    m, n = c.shape
    for r in range(ROWS):
        for q in range(VECTORS):
            j = column + q * LANES
            if row + r < m:
                store_part(c, (row + r) * n + j, sums[r, q], n - j)


# As many vectors as the lesson's ten columns take, if there are registers for five times as many
# sums: 1 of 16 lanes, 2 of 8, 2 or 3 of 4.
ROWS = 5
if LANES == 16:
    VECTORS = 1
elif LANES == 8 or REGISTERS == 16:
    VECTORS = 2
else:
    VECTORS = 3

PACK_FROM = (
    16  # rows of a: from here on, packing b costs less than the lanes that ten columns leave
)


def few_rows_same_as(shape):
    return None if shape.m < PACK_FROM else matmul_numba_prefetch


@rung(same_as=few_rows_same_as)
def matmul_numba_few_rows(a, b):
    """With up to 15 rows, packing b costs more than it saves, and waking other threads, too."""
    if len(a) < PACK_FROM:
        return multiply_arrays(multiply_few_rows, a, b.contiguous())
    return matmul_numba_prefetch(a, b)
