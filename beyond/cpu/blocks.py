"""Cache blocks: what has been brought into a cache is used many times before it leaves.

In a product of large matrices, each float of b is needed for every row of a, and each float of a
for every column of b. The tile of tile.py reads all of b again for every few rows of c. While b is
in a cache near the core, that is cheap: the lesson's b is 31 KB. But the b of a product of
1024 x 1024 x 1024 is 4 MB, and comes from a slower cache, or from memory, 256 times. Here the
product is cut up as Goto and van de Geijn do it (Anatomy of High-Performance Matrix Multiplication,
2008), and in the terms of BLIS:

- c is computed by blocks, NC columns of it at a time, from KC rows of b at a time. Those are packed
  once, for all threads: into panels, NR columns wide, in which row follows row.
- Each thread has rows of its own, and takes MC of them at a time. That block of a is packed, too:
  into strips, MR rows high, in which column follows column. (With MC rows or fewer, and more
  panels than strips, all threads share this block, and each has columns of its own.)
- The micro-kernel walks down a strip and a panel, k by k, in the order in which they lie in memory.
  A tile of c, MR x NR, is in its registers. It also prefetches what is needed soon: the rows of c
  that the tile is added to, and a part of the next panel.

So a float of a strip, once it is in a register, serves NR columns, and one of a panel MR rows; a
panel in L2 serves the MC rows of a block, and a block in L2 NC columns. The lesson's full shape
gains nothing by it: its b is in L1 already, and with ten columns each float of a is used ten times,
however the product is cut up. What takes time there is to read a once from memory; to pack it would
only add a copy.
"""

from numba import get_num_threads, njit, prange

from beyond.cpu.registers import LANES, REGISTERS
from beyond.cpu.vectors import (
    add,
    aligned_floats,
    broadcast,
    load,
    load_part,
    multiply_add,
    prefetch,
    store,
    store_part,
    transpose,
    zeros,
)
from beyond.operands import multiply_arrays
from ladder.rungs import rung
from ladder.shape import FULL, SMALL, SQUARE


@njit
def multiply_blocks(a, b, c):
    """c = a @ b. Takes 4.3 MB of memory, and 0.3 MB a thread, at most."""
    (m, k_size), n = a.shape, b.shape[1]
    if k_size == 0:
        c[:] = 0
    if m <= MC and count_parts(m, MR) < count_parts(n, NR):
        share_columns(a, b, c)
    else:
        share_rows(a, b, c)


@njit(parallel=True)
def share_rows(a, b, c):
    """c = a @ b, and each thread has rows of its own. Nothing is computed if there is no k."""
    (m, k_size), n = a.shape, b.shape[1]
    threads = get_num_threads()
    depth = equal_parts(k_size, KC, 1)  # rows of b at a time
    width = equal_parts(n, NC, NR)  # columns of c at a time
    packed_b = aligned_floats(depth * width)
    for column in range(0, n, width):
        columns = min(width, n - column)
        for k in range(0, k_size, depth):
            ks = min(depth, k_size - k)
            for number in prange(count_parts(columns, NR)):
                panel = packed_b[number * NR * ks :]
                pack_panel(b, k, ks, column + number * NR, panel)
            for thread in prange(threads):
                start, stop = share_of_thread(thread, threads, m, MR)
                packed_a = aligned_floats(MC * rounded_up(depth))
                for row in range(start, stop, MC):
                    rows = min(MC, stop - row)
                    pack_strips(a, row, rows, k, ks, packed_a)
                    for j in range(0, columns, NR):
                        panel, next_panel = packed_b[j * ks :], packed_b[(j + NR) * ks :]
                        multiply_panel(
                            packed_a, panel, ks, c, row, rows, column + j, k == 0, next_panel, NR
                        )


@njit(parallel=True)
def share_columns(a, b, c):
    """c = a @ b for up to MC rows, one block of a: each thread has columns of its own.

    So few rows use a panel only a few times. Written to memory for all threads, and read again by
    one, it would cost more than it saves; here the thread that packs it uses it at once, from L2.
    """
    (m, k_size), n = a.shape, b.shape[1]
    threads = get_num_threads()
    depth = equal_parts(k_size, KC, 1)  # rows of b at a time
    floats = b.reshape(b.size)
    packed_a = aligned_floats(MC * rounded_up(depth))
    for k in range(0, k_size, depth):
        ks = min(depth, k_size - k)
        for strip in prange(count_parts(m, MR)):
            row = strip * MR
            pack_strips(a, row, min(MR, m - row), k, ks, packed_a[row * rounded_up(ks) :])
        for thread in prange(threads):
            start, stop = share_of_thread(thread, threads, n, NR)
            panel = aligned_floats(NR * depth)
            for column in range(start, stop, NR):
                pack_panel(b, k, ks, column, panel)
                next_panel = floats[k * n + column + NR :]
                multiply_panel(packed_a, panel, ks, c, 0, m, column, k == 0, next_panel, n)


@njit
def count_parts(size, part):
    """Return how many parts of size ``part`` there are; the last one may be smaller."""
    return (size + part - 1) // part


@njit
def equal_parts(size, most, unit):
    """Return the size of equal parts, at most ``most`` each: a multiple of ``unit``, which may make
    the last one smaller."""
    parts = max(1, count_parts(size, most))
    return max(1, count_parts(size, parts * unit)) * unit


@njit
def share_of_thread(thread, threads, size, unit):
    """Return where a thread's rows or columns start and stop, of ``size`` in all: each thread has the
    same number of units (strips or panels), or one more."""
    units = count_parts(size, unit)
    start, stop = units * thread // threads, units * (thread + 1) // threads
    return start * unit, min(stop * unit, size)


@njit
def multiply_panel(packed_a, panel, ks, c, row, rows, column, first, next_panel, stride):
    """Multiply a block of a by a panel. Store the products of these ``ks`` k in ``rows`` rows of c,
    from ``row`` and ``column`` on, if they are the ``first`` k, or else add them.

    Each strip prefetches a part of ``next_panel``, packed or still in b; its rows are ``stride``
    floats apart.
    """
    columns = c.shape[1] - column
    for i in range(0, rows, MR):
        strip = packed_a[i * rounded_up(ks) :]
        part = next_panel[i // MR * (ks // STRIPS) * stride :]
        if columns > 2 * LANES:
            three_vectors(strip, panel, ks, c, row + i, column, first, part, stride)
        elif columns > LANES:
            two_vectors(strip, panel, ks, c, row + i, column, first, part, stride)
        else:
            one_vector(strip, panel, ks, c, row + i, column, first, part, stride)


def make_micro_kernel(vectors):
    """Return the function that computes a tile of MR rows and ``vectors`` vectors, in a panel as
    wide as that: the last one may be narrower than NR columns."""

    @njit
    def micro_kernel(strip, panel, ks, c, row, column, first, part, stride):
        """Add to c[row : row + MR, column : column + vectors * LANES] the products of ``ks`` k.

        Every STRIPS k it prefetches a row of ``part``, a part of the next panel, and, the first MR
        times, a row of the tile in c: not all at once, as a core has room for few requests.
        """
        n = c.shape[1]
        sums = zeros(MR, vectors, LANES)
        rows_of_part = ks // STRIPS
        for i in range(rows_of_part):
            for q in range(vectors):
                if i < MR:
                    prefetch(c, (row + i) * n + column + q * LANES, 1)
                prefetch(part, i * stride + q * LANES, 2)
            for k in range(i * STRIPS, (i + 1) * STRIPS):
                add_products(sums, strip, panel, k)
        for k in range(rows_of_part * STRIPS, ks):
            add_products(sums, strip, panel, k)
        store_sums(sums, c, row, column, first)

    @njit(forceinline=True)
    def add_products(sums, strip, panel, k):
        """LLVM unrolls the two loops and loads each vector once."""
        for r in range(MR):
            x = broadcast(strip, k * MR + r, LANES)
            for q in range(vectors):
                y = load(panel, (k * vectors + q) * LANES, LANES)
                sums[r, q] = multiply_add(x, y, sums[r, q])

    @njit(forceinline=True)
    def store_sums(sums, c, row, column, first):
        """Store the tile, or add it to c, but nothing past the last row or column."""
        m, n = c.shape
        if row + MR <= m and column + vectors * LANES <= n:
            for r in range(MR):
                for q in range(vectors):
                    i, x = (row + r) * n + column + q * LANES, sums[r, q]
                    if not first:
                        x = add(x, load(c, i, LANES))
                    store(c, i, x)
        else:
            for r in range(MR):
                for q in range(vectors):
                    i, x = (row + r) * n + column + q * LANES, sums[r, q]
                    lanes = n - column - q * LANES if row + r < m else 0
                    if not first:
                        x = add(x, load_part(c, i, LANES, lanes))
                    store_part(c, i, x, lanes)

    return micro_kernel


one_vector, two_vectors, three_vectors = map(make_micro_kernel, (1, 2, 3))


@njit
def pack_panel(b, k, ks, column, panel):
    """Copy ``ks`` rows of b, from row k and ``column`` on, to the panel: NR columns, or as many
    vectors as the columns that are left take."""
    n = b.shape[1]
    columns = n - column
    if columns >= NR:
        for row in range(ks):
            for q in range(VECTORS):
                prefetch(b, (k + row + ROWS_AHEAD) * n + column + q * LANES, 2)
            for q in range(VECTORS):
                x = load(b, (k + row) * n + column + q * LANES, LANES)
                store(panel, (row * VECTORS + q) * LANES, x)
    else:
        vectors = count_parts(columns, LANES)
        for row in range(ks):
            for q in range(vectors):
                i = (k + row) * n + column + q * LANES
                x = load_part(b, i, LANES, columns - q * LANES)
                store(panel, (row * vectors + q) * LANES, x)


@njit
def pack_strips(a, row, rows, k, ks, packed_a):
    """Copy a[row : row + rows, k : k + ks] to packed_a, strip by strip, by transposing four rows and
    four columns at a time. Rows past the last of a are copies of it, or are left uninitialized: their
    sums are never stored."""
    m, k_size = a.shape
    whole = ks // 4 * 4
    for r in range(0, rows, 4):
        strip = r // MR  # that holds the rows r to r + 3
        to = strip * MR * rounded_up(ks) + r % MR
        row_0 = (row + r) * k_size + k
        row_1 = min(row + r + 1, m - 1) * k_size + k
        row_2 = min(row + r + 2, m - 1) * k_size + k
        row_3 = min(row + r + 3, m - 1) * k_size + k
        for i in range(0, whole, 4):
            x0, x1 = load(a, row_0 + i, 4), load(a, row_1 + i, 4)
            x2, x3 = load(a, row_2 + i, 4), load(a, row_3 + i, 4)
            store_columns(packed_a, to + i * MR, x0, x1, x2, x3)
        if whole < ks:
            i, left = whole, ks - whole
            x0, x1 = load_part(a, row_0 + i, 4, left), load_part(a, row_1 + i, 4, left)
            x2, x3 = load_part(a, row_2 + i, 4, left), load_part(a, row_3 + i, 4, left)
            store_columns(packed_a, to + i * MR, x0, x1, x2, x3)


@njit(forceinline=True)
def store_columns(packed_a, to, x0, x1, x2, x3):
    """Store the columns of the 4 x 4 matrix that has these rows, each in its place in a strip."""
    y0, y1, y2, y3 = transpose(x0, x1, x2, x3)
    store(packed_a, to, y0)
    store(packed_a, to + MR, y1)
    store(packed_a, to + 2 * MR, y2)
    store(packed_a, to + 3 * MR, y3)


@njit
def rounded_up(ks):
    """Return for how many k a strip has room: four columns are stored at a time."""
    return (ks + 3) // 4 * 4


# The registers: MR * VECTORS sums, VECTORS vectors of b, and one or more with a float of a in each
# lane. With 32, 24 + 3 leave 5; with 16, 12 + 3 leave 1. For 24 multiply-adds that is 11 loads, for
# 12 it is 7: fewer than a core can load meanwhile. MR is a multiple of 4, as four rows are packed
# at a time.
VECTORS = 3
MR = 8 if REGISTERS == 32 else 4
NR = VECTORS * LANES

# The caches. Each cell of c is read and written again for every KC of b's rows: so KC is as large as
# L2 allows, which holds a panel (4 * NR * KC bytes: 48 to 192 KB) and a block of a (4 * MC * KC:
# 256 KB). While the block is used, the panels come from L3, each float for MC rows. NC is a
# multiple of NR, such that packed b (4 * NC * KC: 4.3 MB) leaves room for the rest in L3.
KC = 1024
MC = 64
NC = 1056
STRIPS = MC // MR  # in a block; each prefetches 1 / STRIPS of the next panel

# The rows of a panel are n floats apart in b. If that is a page (4 KB) or more, the CPU itself
# doesn't see what comes next.
ROWS_AHEAD = 64


@rung(shapes=(SMALL, FULL, SQUARE))
def matmul_numba_blocks(a, b):
    """Cache blocks: what is packed into panels and strips is used many times while a cache has it."""
    return multiply_arrays(multiply_blocks, a, b.contiguous())
