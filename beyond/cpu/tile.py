"""A tile of c in registers: each vector that is loaded serves several sums.

In BLAS libraries, the function that computes a tile is called a micro-kernel. Before it runs, b is
packed: copied into the order in which the micro-kernel reads it.
"""

from numba import njit, prange

from beyond.cpu.registers import LANES, REGISTERS
from beyond.cpu.vectors import (
    aligned_floats,
    load,
    multiply_add,
    store,
    sum_lanes,
    transpose,
    zeros,
)
from beyond.operands import multiply_arrays
from ladder.rungs import rung
from ladder.shape import FULL, SMALL, SQUARE


def make_tile(rows, columns, lanes):
    """Return a micro-kernel for tiles of ``rows`` x ``columns`` sums, and the two parts of it.

    They take ``a``, (M, K), ``packed``, whose rows are b's columns without their last K % lanes
    floats (see `pack`), and ``c``, (M, N). The tile is
    c[row : row + rows, column : column + columns], as far as that exists.
    """

    @njit
    def micro_kernel(a, packed, c, row, column):
        """Compute the tile for all k but the last K % lanes.

        A vector holds neighbouring k. So lane 0 sums the products of k = 0, lanes, 2 * lanes, …,
        lane 1 those of k = 1, lanes + 1, …; in the end the lanes are added up.
        """
        sums = zeros(rows, columns, lanes)
        for k in range(0, a.shape[1] // lanes * lanes, lanes):
            add_products(sums, a, packed, row, column, k)
        store_sums(sums, c, row, column)

    @njit(forceinline=True)
    def add_products(sums, a, packed, row, column, k):
        """LLVM unrolls the two loops and loads each vector once. For rows and columns that don't
        exist, the last one is taken again."""
        last_row, last_column = len(a) - 1, len(packed) - 1
        for r in range(rows):
            for q in range(columns):
                x = load(a, min(row + r, last_row) * a.shape[1] + k, lanes)
                y = load(packed, min(column + q, last_column) * packed.shape[1] + k, lanes)
                sums[r, q] = multiply_add(x, y, sums[r, q])

    @njit(forceinline=True)
    def store_sums(sums, c, row, column):
        for r in range(rows):
            for q in range(columns):
                if row + r < c.shape[0] and column + q < c.shape[1]:
                    c[row + r, column + q] = sum_lanes(sums[r, q])

    return micro_kernel, add_products, store_sums


def multiply_tiles(rows, columns, lanes):
    """Return a function for `njit`: c = a @ b, tile by tile."""
    micro_kernel, _, _ = make_tile(rows, columns, lanes)

    def multiply(a, b, c):
        m, n = c.shape
        packed = pack(b, lanes)
        for tile in prange((m + rows - 1) // rows):
            row = tile * rows
            for column in range(0, n, columns):
                micro_kernel(a, packed, c, row, column)
            add_tail(a, b, c, row, min(row + rows, m), lanes)

    return multiply


@njit(forceinline=True)
def add_tail(a, b, c, start, stop, lanes):
    """Add to c[start:stop] the products of the last K % lanes k, which fill no vector."""
    k_size = len(b)
    for i in range(start, stop):
        for k in range(k_size // lanes * lanes, k_size):
            for j in range(b.shape[1]):
                c[i, j] += a[i, k] * b[k, j]


@njit
def pack(b, lanes):
    """Return b's columns as rows, each of them from the beginning of a cache line on.

    The last K % lanes floats of a column are left out, and what follows them is uninitialized.
    """
    n, k_size = b.shape[1], len(b) // lanes * lanes  # a multiple of 4, as lanes is
    width = (k_size + 15) // 16 * 16  # a cache line has 16 floats
    packed = aligned_floats(n * width).reshape(n, width)
    if n < 4:
        for j in range(n):
            for k in range(k_size):
                packed[j, k] = b[k, j]
    else:
        for column in range(0, n, 4):
            pack_four_columns(b, packed, min(column, n - 4), k_size)  # the last may overlap
    return packed


@njit
def pack_four_columns(b, packed, j, k_size):
    """Copy columns j to j + 3 of b to rows j to j + 3 of packed."""
    n, width = b.shape[1], packed.shape[1]
    for k in range(0, k_size, 4):
        r0 = load(b, (k + 0) * n + j, 4)
        r1 = load(b, (k + 1) * n + j, 4)
        r2 = load(b, (k + 2) * n + j, 4)
        r3 = load(b, (k + 3) * n + j, 4)
        c0, c1, c2, c3 = transpose(r0, r1, r2, r3)
        store(packed, (j + 0) * width + k, c0)
        store(packed, (j + 1) * width + k, c1)
        store(packed, (j + 2) * width + k, c2)
        store(packed, (j + 3) * width + k, c3)


# A tile of R rows and C columns needs R * C registers for its sums, C for vectors of b and one for
# a vector of a. For each multiply-add it loads (R + C) / (R * C) vectors.
if REGISTERS == 32:
    ROWS, COLUMNS = 4, 5  # 26 registers, 0.45 loads
else:
    ROWS, COLUMNS = 5, 2  # 13 registers of 16, 0.7 loads

in_all_threads = njit(parallel=True)(multiply_tiles(ROWS, COLUMNS, LANES))
in_one_thread = njit(multiply_tiles(ROWS, COLUMNS, LANES))


@rung(shapes=(SMALL, FULL, SQUARE))
def matmul_numba_tile(a, b):
    """A register tile: 4 x 5 sums at a time (5 x 2 with 16 registers), so each load serves several."""
    return multiply_arrays(in_all_threads, a, b.contiguous())
