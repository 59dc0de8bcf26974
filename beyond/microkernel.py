"""The micro-kernel: 5 x 2 sums that stay in registers, and what surrounds it.

The words are those of the BLAS libraries: b is packed, a micro-kernel walks along k, and what it
will need next is fetched from memory meanwhile.
"""

import numpy as np
from llvmlite import binding as llvm
from numba import njit, prange
from numba.core.registry import cpu_target

from rungs import rung

from beyond.vectors import load, multiply_add, prefetch, store, total, zeros

# float32 lanes of a SIMD register, by its name in assembly. A CPU has 16 or 32 such registers.
SIMD = {"zmm": 16, "ymm": 8, "xmm": 4, "4s": 4}
ADD = "define <16 x float> @f(<16 x float> %x) {%y = fadd <16 x float> %x, %x ret <16 x float> %y}"


def simd_lanes():
    """Return how many floats are in a SIMD register that Numba compiles for.

    That need not be this CPU's: see NUMBA_CPU_NAME, NUMBA_CPU_FEATURES and NUMBA_ENABLE_AVX. And
    LLVM lists the features of some CPUs only; so look at what it makes of an addition.
    """
    triple, cpu, features = cpu_target.target_context.codegen().magic_tuple()
    machine = llvm.Target.from_triple(triple).create_target_machine(cpu, features)
    assembly = machine.emit_assembly(llvm.parse_assembly(ADD))
    return next(SIMD[name] for name in SIMD if name in assembly)


WIDE = simd_lanes()
LANES = min(8, WIDE)
ROWS = 5  # 5 x 2 sums, 2 vectors of b and 1 of a take 13 of 16 registers
AHEAD = 1  # how many tiles ahead a is prefetched


def lanes_for(a):
    """Return WIDE if all rows of ``a`` begin at a cache line (64 bytes), otherwise LANES.

    With AVX-512, 16 lanes gain 7% then. Otherwise they lose 30%: each load straddles two lines.
    """
    aligned = a.data_ptr() % 64 == 0 and 4 * a.shape[1] % 64 == 0
    return WIDE if aligned else LANES


def micro_kernel_of(lanes, take, put):
    """Return a micro-kernel: at each step along k, 5 rows of a times two vectors of b.

    That is 7 loads for 10 multiply-adds. What a lane is, is up to ``take``, which makes a vector of
    a's floats, and ``put``, which stores the two vectors of sums of a row:

    - along k: lanes are neighbouring k of a row of a (``load``), and of two columns of packed b.
      In the end the lanes of each sum are added up.
    - across columns: lanes are neighbouring columns of b as it is, and one float of a is in all
      of them (``broadcast``). Each lane ends up with a cell of c.
    """

    @njit
    def micro_kernel(a, b, c, sizes, row, column, b_vectors, steps, fetch):
        """Compute c[row : row + 5, column :], as many columns as two vectors are for ``put``.

        ``sizes`` are m, k and n; ``b_vectors`` where the two vectors of b begin, and how far it
        is to the next ones; ``steps`` where to stop along k, and how far a step is; ``fetch``
        where a is prefetched, and how much further at each step. All count floats.
        """
        (m, k, n), (left, right, down) = sizes, b_vectors
        (stop, step), (fetched, further) = steps, fetch
        last = m - 1  # computed again in place of the rows that a short last tile lacks
        p, q, r = row, min(row + 1, last), min(row + 2, last)
        s, t = min(row + 3, last), min(row + 4, last)
        p0 = p1 = q0 = q1 = r0 = r1 = s0 = s1 = t0 = t1 = zeros(lanes)
        for i in range(0, stop, step):
            prefetch(a, fetched)
            fetched += further
            x, y = load(b, left + i * down, lanes), load(b, right + i * down, lanes)
            z = take(a, p * k + i, lanes)
            p0, p1 = multiply_add(x, z, p0), multiply_add(y, z, p1)
            z = take(a, q * k + i, lanes)
            q0, q1 = multiply_add(x, z, q0), multiply_add(y, z, q1)
            z = take(a, r * k + i, lanes)
            r0, r1 = multiply_add(x, z, r0), multiply_add(y, z, r1)
            z = take(a, s * k + i, lanes)
            s0, s1 = multiply_add(x, z, s0), multiply_add(y, z, s1)
            z = take(a, t * k + i, lanes)
            t0, t1 = multiply_add(x, z, t0), multiply_add(y, z, t1)
        put(c, p * n + column, p0, p1, n - column)
        put(c, q * n + column, q0, q1, n - column)
        put(c, r * n + column, r0, r1, n - column)
        put(c, s * n + column, s0, s1, n - column)
        put(c, t * n + column, t0, t1, n - column)

    return micro_kernel


@njit
def put_totals(c, at, x, y, columns):
    store(c, at, total(x), columns)
    store(c, at + 1, total(y), columns - 1)


wide_along_k = micro_kernel_of(WIDE, load, put_totals)
along_k = micro_kernel_of(LANES, load, put_totals)


@njit
def add_rest(a, b, c, sizes, row, columns, strides, first):
    """c[row : row + 5, columns] += a[:, first:] @ b[first:], one float at a time."""
    (m, k, n), (down, across) = sizes, strides
    if first == k:
        return
    for i in range(row, min(row + ROWS, m)):
        for j in range(columns[0], min(columns[1], n)):
            cell = load(c, i * n + j, 1)
            for rest in range(first, k):
                x, y = load(a, i * k + rest, 1), load(b, rest * down + j * across, 1)
                cell = multiply_add(x, y, cell)
            store(c, i * n + j, cell, 1)


def multiply_packed(a, b, c, sizes, lanes, ahead):
    """c = a @ b for packed b; meanwhile the tile of a is prefetched that is ``ahead`` so many tiles.

    A tile is passed over once for every two columns, and each pass prefetches its share of the
    other tile, evenly: with 10 columns a cache line of 16 floats for every 16 lanes.
    """
    m, k, n = sizes
    passes, whole = (n + 1) // 2, k // lanes * lanes
    for tile in prange((m + ROWS - 1) // ROWS):
        row, other = ROWS * tile, ROWS * (tile + ahead) * k
        for column in range(0, n, 2):
            b_vectors = column * k, column * k + k, 1
            share = ROWS * k // passes
            fetch = other + share * (column // 2), ROWS * lanes // passes
            if lanes == WIDE:
                wide_along_k(a, b, c, sizes, row, column, b_vectors, (whole, WIDE), fetch)
            else:
                along_k(a, b, c, sizes, row, column, b_vectors, (whole, LANES), fetch)
        add_rest(a, b, c, sizes, row, (0, n), (1, k), whole)


multiply_packed_in_all_threads = njit(parallel=True)(multiply_packed)
multiply_packed = njit(multiply_packed)


@njit
def pack(b, k, n):
    """Return b with its columns along k, and a column of zeros after an odd last one.

    It starts at a cache line, so that no vector of 64 bytes lies in two of them.
    """
    packed = np.zeros((n + n % 2) * k + 16, np.float32)
    packed = packed[-(packed.ctypes.data // 4) % 16 :]  # from the next multiple of 64 bytes on
    for i in range(k):
        for j in range(n):
            store(packed, j * k + i, load(b, i * n + j, 1), 1)
    return packed


@njit
def multiply_in_one_thread(a, b, c, m, k, n, lanes):
    multiply_packed(a, pack(b, k, n), c, (m, k, n), lanes, AHEAD)


@njit
def multiply_in_all_threads(a, b, c, m, k, n, lanes, ahead=AHEAD):
    multiply_packed_in_all_threads(a, pack(b, k, n), c, (m, k, n), lanes, ahead)


@rung()
def matmul_numba_tile(a, b):
    """A register tile: 5 x 2 sums at a time, so that a row of a serves 2 columns, and of b 5 rows.

    Brought 1.4 to 1.6 times on the full shape, 2.6 on the small one. It prefetches only its own tile.
    """
    (m, k), n = a.shape, b.shape[1]
    a, b, c = a.contiguous(), b.contiguous(), a.new_empty(m, n)
    multiply_in_all_threads(a.numpy(), b.numpy(), c.numpy(), m, k, n, lanes_for(a), 0)
    return c


@rung()
def matmul_numba_prefetch(a, b):
    """While a tile is computed, the rows of the next one are fetched from memory.

    Brought 1.3 to 1.6 times on the full shape, and with AVX2 (NUMBA_CPU_NAME=haswell) 1.8.
    """
    (m, k), n = a.shape, b.shape[1]
    a, b, c = a.contiguous(), b.contiguous(), a.new_empty(m, n)
    multiply_in_all_threads(a.numpy(), b.numpy(), c.numpy(), m, k, n, lanes_for(a))
    return c
