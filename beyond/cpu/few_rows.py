"""Few rows: packing b would take longer than the product, so b is read as it is."""

from numba import njit

from beyond.cpu.prefetch import matmul_numba_prefetch
from beyond.cpu.registers import LANES, REGISTERS
from beyond.cpu.vectors import broadcast, load, load_part, multiply_add, store_part, zeros
from beyond.operands import multiply_arrays
from ladder.rungs import rung


def make_tile(rows, vectors):
    """Return a micro-kernel for tiles of ``rows`` rows and ``vectors`` vectors, and its two parts:
    add_products, and finish, which stores the tile.

    In tile.py the lanes of a vector are neighbouring k, as a packed b has those side by side. Here
    they are neighbouring columns, as in a row of b, and each float of a is multiplied by a vector
    of them.
    """

    @njit
    def micro_kernel(a, b, c, row, column, safe):
        """Compute c[row : row + rows, column : column + vectors * LANES], as far as that exists.

        From the first ``safe`` rows of b, vectors can be loaded whole (see `rows_before_the_end`).
        """
        sums = zeros(rows, vectors, LANES)
        for k in range(safe):
            add_products(sums, a, b, row, column, k)
        finish(sums, a, b, c, row, column, safe)

    @njit(forceinline=True)
    def add_products(sums, a, b, row, column, k):
        """Add a[row : row + rows, k] times b[k, column : …]. A vector may run on into b's next row:
        what it finds there isn't stored."""
        for q in range(vectors):
            y = load(b, k * b.shape[1] + column + q * LANES, LANES)
            multiply_by(sums, q, a, row, k, y)

    @njit(forceinline=True)
    def multiply_by(sums, q, a, row, k, y):
        """Add a[row : row + rows, k] times the vector y. For rows past the last, it is taken again."""
        m, k_size = a.shape
        for r in range(rows):
            x = broadcast(a, min(row + r, m - 1) * k_size + k, LANES)
            sums[r, q] = multiply_add(x, y, sums[r, q])

    @njit(forceinline=True)
    def finish(sums, a, b, c, row, column, start):
        """Add the products of the k from ``start`` on, where b ends; then store the tile, but
        nothing past the last column or row of c."""
        m, n = c.shape
        for k in range(start, len(b)):
            for q in range(vectors):
                j = column + q * LANES
                multiply_by(sums, q, a, row, k, load_part(b, k * n + j, LANES, n - j))
        for r in range(rows):
            for q in range(vectors):
                j = column + q * LANES
                if row + r < m:
                    store_part(c, (row + r) * n + j, sums[r, q], n - j)

    return micro_kernel, add_products, finish


@njit
def rows_before_the_end(b, vectors):
    """Return how many rows of b can be read in whole vectors. The last vector of a row may run past
    its end, into the rows below; in b's last rows it could run past the end of b."""
    k_size, n = b.shape
    if n == 0:
        return k_size
    past_the_row = -n % (vectors * LANES)  # floats
    return max(0, k_size - (past_the_row + n - 1) // n)


# As many vectors as the lesson's ten columns take, if there are registers for five times as many
# sums: 1 of 16 lanes, 2 of 8, 2 or 3 of 4.
ROWS = 5
if LANES == 16:
    VECTORS = 1
elif LANES == 8 or REGISTERS == 16:
    VECTORS = 2
else:
    VECTORS = 3

micro_kernel, _, _ = make_tile(ROWS, VECTORS)


@njit
def multiply_few_rows(a, b, c):
    """c = a @ b, tile by tile."""
    m, n = c.shape
    safe = rows_before_the_end(b, VECTORS)
    for row in range(0, m, ROWS):
        for column in range(0, n, VECTORS * LANES):
            micro_kernel(a, b, c, row, column, safe)


# Rows of a: from here on, packing b costs less than the lanes that ten columns leave empty.
PACK_FROM = 16


def few_rows_same_as(shape):
    return None if shape.m < PACK_FROM else matmul_numba_prefetch


@rung(same_as=few_rows_same_as)
def matmul_numba_few_rows(a, b):
    """With up to 15 rows, packing b costs more than it saves, and so does waking other threads."""
    if len(a) < PACK_FROM:
        return multiply_arrays(multiply_few_rows, a, b.contiguous())
    return matmul_numba_prefetch(a, b)
