"""Prefetch: while a tile is computed, the rows of a later one are on their way from memory."""

from numba import njit, prange

from beyond.cpu.registers import LANES, REGISTERS
from beyond.cpu.tile import COLUMNS, ROWS, add_tail, make_tile, matmul_numba_tile, pack
from beyond.cpu.vectors import prefetch, zeros
from beyond.operands import multiply_arrays
from ladder.rungs import rung


def make_prefetching_kernel(rows, columns, lanes, rows_per_pass, level):
    """Return the micro-kernel of tile.py, which also prefetches rows of another tile.

    ``rows_per_pass`` is how many of them, ``level`` the cache that they are to come into: 1 or 2.
    """
    _, add_products, store_sums = make_tile(rows, columns, lanes)

    @njit
    def micro_kernel(a, packed, c, row, column, later_row, first):
        """Compute the tile at (row, column). Meanwhile, prefetch ``rows_per_pass`` rows of the tile
        at ``later_row``, from its row number ``first`` on, and after its last row its first."""
        k_size = a.shape[1]
        sums = zeros(rows, columns, lanes)
        for k in range(0, k_size // lanes * lanes, lanes):
            for r in range(rows_per_pass):
                prefetch(a, (later_row + (first + r) % rows) * k_size + k, level)
            add_products(sums, a, packed, row, column, k)
        store_sums(sums, c, row, column)

    return micro_kernel


def multiply_prefetching(rows, columns, lanes, rows_per_pass, level, tiles_ahead, cached):
    """Return a function for `njit`: c = a @ b, tile by tile.

    To compute a tile of rows, the kernel passes over these rows of a once for every ``columns``
    columns of b. In the first passes it also prefetches rows of the tile that is ``tiles_ahead``,
    until it has asked twice for each cache line, as a CPU may drop a request. Nothing is
    prefetched of an a of up to ``cached`` floats.
    """
    plain_kernel, _, _ = make_tile(rows, columns, lanes)
    prefetching_kernel = make_prefetching_kernel(rows, columns, lanes, rows_per_pass, level)
    # Vectors of 8 lanes or fewer ask twice for a line, 16 floats, in one pass.
    rows_to_ask_for = 2 * rows if lanes == 16 else rows

    def multiply(a, b, c):
        m, n = c.shape
        packed = pack(b, lanes)
        prefetches = rows_per_pass > 0 and a.size > cached
        for tile in prange((m + rows - 1) // rows):
            row, later_row = tile * rows, (tile + tiles_ahead) * rows
            for column in range(0, n, columns):
                asked_for = column // columns * rows_per_pass  # rows, in the passes before
                if prefetches and asked_for < rows_to_ask_for and later_row < m:
                    prefetching_kernel(a, packed, c, row, column, later_row, asked_for)
                else:
                    plain_kernel(a, packed, c, row, column)
            add_tail(a, b, c, row, min(row + rows, m), lanes)

    return multiply


# Enough for the lesson's ten columns, two passes of 5 or five of 2, to ask at least twice for each
# line.
if REGISTERS == 16:
    ROWS_PER_PASS = 1  # one of 5 in each of five passes: 8 lanes ask twice for a line, 4 four times
elif LANES == 16:
    ROWS_PER_PASS = 4  # all 4 in each of two passes
else:
    ROWS_PER_PASS = 2  # two of 4 in each of two passes; with 4 lanes, that is four times
LEVEL = 2  # L2, as b fills L1
TILES_AHEAD = 2
CACHED = 2**19  # floats, 2 MB: so much lies in two cores' L2

PREFETCH = ROWS_PER_PASS, LEVEL, TILES_AHEAD
multiply = multiply_prefetching(ROWS, COLUMNS, LANES, *PREFETCH, CACHED)
with_prefetch = njit(parallel=True)(multiply)


def prefetch_same_as(shape):
    return matmul_numba_tile if shape.m * shape.k <= CACHED else None


@rung(same_as=prefetch_same_as)
def matmul_numba_prefetch(a, b):
    """While a tile is computed, the rows of a later one are on their way from memory."""
    return multiply_arrays(with_prefetch, a, b.contiguous())
