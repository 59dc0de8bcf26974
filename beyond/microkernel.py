"""The micro-kernel, and what surrounds it, in the words of the BLAS libraries: b is packed, the
micro-kernel computes a tile of c in registers, and asks for the rows of a that are needed next.
"""

import numpy as np
from llvmlite import binding as llvm
from numba import njit, prange
from numba.core.registry import cpu_target

from ladder.rungs import rung

from beyond.vectors import (
    accumulators,
    interleave,
    load,
    multiply_add,
    prefetch,
    store,
    sum_lanes,
)

ADD = "define <16 x float> @f(<16 x float> %x) {%y = fadd <16 x float> %x, %x ret <16 x float> %y}"


def simd_registers():
    """Return how many floats a register holds, and how many there are, by what LLVM makes of ADD.

    What counts is the CPU that Numba compiles for, which NUMBA_CPU_NAME, NUMBA_CPU_FEATURES and
    NUMBA_ENABLE_AVX may change: `magic_tuple` is LLVM's name of the platform, the CPU and its
    features. Numba doesn't know every CPU's features, but the registers' names tell: zmm
    (AVX-512), ymm (AVX), xmm (SSE), or v (ARM's NEON).
    """
    triple, cpu, features = cpu_target.target_context.codegen().magic_tuple()
    machine = llvm.Target.from_triple(triple).create_target_machine(cpu, features)
    assembly = machine.emit_assembly(llvm.parse_assembly(ADD))
    known = {"zmm": (16, 32), "ymm": (8, 16), "xmm": (4, 16)}
    return next((size for name, size in known.items() if name in assembly), (4, 32))


# A tile of R rows x C columns has R * C sums, and takes C vectors of b and one of a beside them:
# 4 x 5 is 26 registers, 5 x 2 is 13. It loads (R + C) / (R * C) vectors for each multiply-add:
# 0.45 and 0.7. The lesson's 10 columns are a multiple of both 5 and 2.
LANES, REGISTERS = simd_registers()
ROWS, COLUMNS = (4, 5) if REGISTERS == 32 else (5, 2)

# Rows are prefetched into L2, as L1 is filled by b: those of the tile after the next, and as many
# in each pass over columns as it takes to ask twice for each cache line in the lesson's passes,
# since some CPUs drop requests. See docs/cpu.md.
AHEAD, PER_PASS = 2, 4 if LANES == 16 else 1


def make_micro_kernel(rows, columns, lanes, per_pass=0, locality=2):
    """Return the micro-kernel for tiles of ``rows`` x ``columns``, and vectors of ``lanes``."""
    size = rows * columns * lanes

    @njit
    def micro_kernel(a, packed, c, row, column, later, first):
        """Compute the tile of c at (row, column), but for the k tail (see `add_k_tail`).

        The lanes of a vector are neighbouring k, so each sum is partial sums, which are added up
        at the end. Rows ``first``, first + 1, ... of the tile at row ``later`` are prefetched. A
        row or column that isn't there is computed as the last one again, and not stored.
        """
        (m, k), (n, width) = a.shape, packed.shape
        sums = accumulators(size)
        for i in range(0, k // lanes * lanes, lanes):
            for r in range(per_pass):
                prefetch(a, (later + (first + r) % rows) * k + i, locality)
            for r in range(rows):  # LLVM unrolls these loops, and loads each vector once
                for q in range(columns):
                    x = load(a, min(row + r, m - 1) * k + i, lanes)
                    y = load(packed, min(column + q, n - 1) * width + i, lanes)
                    j = (columns * r + q) * lanes
                    store(sums, j, multiply_add(x, y, load(sums, j, lanes)))
        for r in range(rows):
            for q in range(columns):
                if row + r < m and column + q < n:
                    c[row + r, column + q] = sum_lanes(load(sums, (columns * r + q) * lanes, lanes))

    return micro_kernel


@njit
def add_k_tail(a, b, c, row, stop, first):
    """c[row:stop] += a[row:stop, first:] @ b[first:], for what is left of k after whole vectors."""
    for i in range(row, min(stop, len(a))):
        for k in range(first, len(b)):
            for j in range(c.shape[1]):
                c[i, j] += a[i, k] * b[k, j]


@njit
def pack(b, k):
    """Return the first k floats, a multiple of 4, of each column of b, so that they lie side by side.

    A column starts at a cache line, so that no vector lies in two.
    """
    n = b.shape[1]
    width = (k + 15) // 16 * 16
    floats = np.empty(n * width + 16, np.float32)
    start = -(floats.ctypes.data // 4) % 16
    packed = floats[start : start + n * width].reshape(n, width)
    if n < 4:
        for j in range(n):
            for i in range(k):
                packed[j, i] = b[i, j]
    else:
        for j in range(0, n, 4):
            for i in range(0, k, 4):
                transpose_4_x_4(b, packed, i, min(j, n - 4))  # the last four may overlap
    return packed


@njit
def transpose_4_x_4(b, packed, i, j):
    """packed[j : j + 4, i : i + 4] = b[i : i + 4, j : j + 4].T."""
    n, width = b.shape[1], packed.shape[1]
    w, x = load(b, i * n + j, 4), load(b, (i + 1) * n + j, 4)
    y, z = load(b, (i + 2) * n + j, 4), load(b, (i + 3) * n + j, 4)
    u, v = interleave(w, y, 0), interleave(x, z, 0)
    store(packed, j * width + i, interleave(u, v, 0))
    store(packed, (j + 1) * width + i, interleave(u, v, 1))
    u, v = interleave(w, y, 1), interleave(x, z, 1)
    store(packed, (j + 2) * width + i, interleave(u, v, 0))
    store(packed, (j + 3) * width + i, interleave(u, v, 1))


def multiply_tiles(rows, columns, lanes, per_pass=0, locality=2, ahead=0):
    """Return a function of a, b and c that computes c = a @ b, for `njit` to compile.

    A tile is passed over once for every few columns. The first passes prefetch rows of the tile
    that lies ``ahead``, ``per_pass`` in each, until each cache line has been asked for twice.
    """
    plain = make_micro_kernel(rows, columns, lanes)
    prefetching = make_micro_kernel(rows, columns, lanes, per_pass, locality)
    in_all = rows * max(1, lanes // 8) if per_pass else 0  # 8 lanes ask for each line twice anyway

    def multiply(a, b, c):
        (m, k), n = a.shape, b.shape[1]
        whole = k // lanes * lanes
        packed, tiles = pack(b, whole), (m + rows - 1) // rows
        for tile in prange(tiles):
            row, later = rows * tile, rows * (tile + ahead)
            for column in range(0, n, columns):
                first = column // columns * per_pass
                if first < in_all and later < m:
                    prefetching(a, packed, c, row, column, later, first)
                else:
                    plain(a, packed, c, row, column, 0, 0)
            add_k_tail(a, b, c, row, row + rows, whole)

    return multiply


multiply_in_one_thread = njit(multiply_tiles(ROWS, COLUMNS, LANES, PER_PASS, 2, AHEAD))
multiply_in_all_threads = njit(parallel=True)(
    multiply_tiles(ROWS, COLUMNS, LANES, PER_PASS, 2, AHEAD)
)
multiply_without_prefetch = njit(parallel=True)(multiply_tiles(ROWS, COLUMNS, LANES))


@rung()
def matmul_numba_tile(a, b):
    """A register tile of 4 x 5 or 5 x 2 sums at a time, so that what is loaded is used 2 to 5 times.
    """
    c = a.new_empty(len(a), b.shape[1])
    multiply_without_prefetch(a.contiguous().numpy(), b.contiguous().numpy(), c.numpy())
    return c


@rung()
def matmul_numba_prefetch(a, b):
    """While a tile is computed, the rows of a later one are fetched from memory.
    """
    c = a.new_empty(len(a), b.shape[1])
    multiply_in_all_threads(a.contiguous().numpy(), b.contiguous().numpy(), c.numpy())
    return c
