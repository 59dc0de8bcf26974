"""The micro-kernel, and what surrounds it, in the words of the BLAS libraries: b is packed, and the
micro-kernel computes a tile of c in registers, while rows of a that are needed later are on their way.
"""

import numpy as np
from llvmlite import binding as llvm
from numba import njit, prange
from numba.core.registry import cpu_target

from ladder.rungs import rung

from beyond.vectors import accumulators, interleave, load, multiply_add, prefetch, store, sum_lanes

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


LANES, REGISTERS = simd_registers()

# R rows x C columns are R * C sums, with C vectors of b and one of a beside them: 4 x 5 fill 26
# registers, 5 x 2 fill 13. They load (R + C) / (R * C) vectors a multiply-add: 0.45 and 0.7.
ROWS, COLUMNS = (4, 5) if REGISTERS == 32 else (5, 2)

# How rows are prefetched: so many in a pass, into L2 (2), as b fills L1 (3), for 2 tiles later.
PREFETCH = (4 if LANES == 16 else 1), 2, 2


def micro_kernel_of(rows, columns, lanes, per_pass, locality):
    size = rows * columns * lanes

    @njit
    def micro_kernel(a, packed, c, row, column, later, first):
        """Compute the tile of c at (row, column), without the `add_k_tail`.

        The lanes of a vector are neighbouring k, so a sum is partial sums, added up at the end. A
        row or column that the last tile lacks is computed as the one before, and not stored.
        Meanwhile ``per_pass`` rows of the tile at row ``later`` are prefetched, from its ``first``.
        """
        (m, k), (n, width) = a.shape, packed.shape
        sums = accumulators(size)
        for i in range(0, k // lanes * lanes, lanes):
            for r in range(per_pass):
                prefetch(a, (later + (first + r) % rows) * k + i, locality)
            for r in range(rows):  # LLVM unrolls these two loops, and loads each vector once
                for q in range(columns):
                    x = load(a, min(row + r, m - 1) * k + i, lanes)
                    y = load(packed, min(column + q, n - 1) * width + i, lanes)
                    j = (columns * r + q) * lanes
                    store(sums, j, multiply_add(x, y, load(sums, j, lanes)))
        for r in range(min(rows, m - row)):
            for q in range(min(columns, n - column)):
                c[row + r, column + q] = sum_lanes(load(sums, (columns * r + q) * lanes, lanes))

    return micro_kernel


@njit
def add_k_tail(a, b, c, rows, first):
    """c[rows] += a[rows, first:] @ b[first:], for the last k, which fill no whole vector."""
    for i in rows:
        for k in range(first, len(b)):
            for j in range(c.shape[1]):
                c[i, j] += a[i, k] * b[k, j]


@njit
def pack(b, k):
    """Return the columns of b, up to k (a multiple of 4), as rows that start at a cache line."""
    n, width = b.shape[1], (k + 15) // 16 * 16
    floats = np.empty(n * width + 16, np.float32)
    start = -(floats.ctypes.data // 4) % 16
    packed = floats[start : start + n * width].reshape(n, width)
    for j in range(0, n, 4):
        for i in range(0, k, 4):
            if n < 4:
                packed[:, i : i + 4] = b[i : i + 4].T
            else:
                transpose_4_x_4(b, packed, i, min(j, n - 4))  # the last ones may overlap
    return packed


@njit
def transpose_4_x_4(b, packed, i, j):
    """packed[j : j + 4, i : i + 4] = b[i : i + 4, j : j + 4].T, in registers."""
    n, width = b.shape[1], packed.shape[1]
    w, x = load(b, i * n + j, 4), load(b, (i + 1) * n + j, 4)
    y, z = load(b, (i + 2) * n + j, 4), load(b, (i + 3) * n + j, 4)
    low, high = interleave(w, y, 0), interleave(x, z, 0)
    store(packed, j * width + i, interleave(low, high, 0))
    store(packed, (j + 1) * width + i, interleave(low, high, 1))
    low, high = interleave(w, y, 1), interleave(x, z, 1)
    store(packed, (j + 2) * width + i, interleave(low, high, 0))
    store(packed, (j + 3) * width + i, interleave(low, high, 1))


def multiply_tiles(rows, columns, lanes, per_pass=0, locality=2, ahead=0):
    """Return a function that computes c = a @ b in tiles of ``rows`` x ``columns``, for `njit`.

    The lesson's 10 columns are 2 passes over the rows of a tile, or 5. The first passes prefetch
    ``per_pass`` rows each of the tile that comes ``ahead`` tiles later, until each cache line has
    been asked for twice, as CPUs may drop a request. Vectors of up to 8 lanes ask twice anyway.
    """
    plain = micro_kernel_of(rows, columns, lanes, 0, locality)
    prefetching = micro_kernel_of(rows, columns, lanes, per_pass, locality)
    requests = max(1, lanes // 8) * rows if per_pass else 0

    def multiply(a, b, c):
        (m, k), n = a.shape, b.shape[1]
        whole = k // lanes * lanes
        packed = pack(b, whole)
        for tile in prange((m + rows - 1) // rows):
            row, later = rows * tile, rows * (tile + ahead)
            for column in range(0, n, columns):
                first = column // columns * per_pass
                if first < requests and later < m:
                    prefetching(a, packed, c, row, column, later, first)
                else:
                    plain(a, packed, c, row, column, 0, 0)
            add_k_tail(a, b, c, range(row, min(row + rows, m)), whole)

    return multiply


in_one_thread = njit(multiply_tiles(ROWS, COLUMNS, LANES))
in_all_threads = njit(parallel=True)(multiply_tiles(ROWS, COLUMNS, LANES))
with_prefetch = njit(parallel=True)(multiply_tiles(ROWS, COLUMNS, LANES, *PREFETCH))


@rung()
def matmul_numba_tile(a, b):
    """A register tile: 4 x 5 sums at a time (AVX-512, ARM) or 5 x 2, as each load serves several.

    TILE_FIGURES
    """
    c = a.new_empty(len(a), b.shape[1])
    in_all_threads(a.contiguous().numpy(), b.contiguous().numpy(), c.numpy())
    return c


@rung()
def matmul_numba_prefetch(a, b):
    """While a tile is computed, the rows of a later one are on their way from memory.

    PREFETCH_FIGURES
    """
    c = a.new_empty(len(a), b.shape[1])
    with_prefetch(a.contiguous().numpy(), b.contiguous().numpy(), c.numpy())
    return c
