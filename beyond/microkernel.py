"""The micro-kernel, and what surrounds it, in the words of the BLAS libraries: b is packed, the
micro-kernel walks along k, and what it will need next is fetched from memory meanwhile.
"""

import numpy as np
from llvmlite import binding as llvm
from numba import njit, prange
from numba.core.registry import cpu_target

from beyond.vectors import load, multiply_add, prefetch, registers, store, total
from ladder.rungs import rung

ADD = "define <16 x float> @f(<16 x float> %x) {%y = fadd <16 x float> %x, %x ret <16 x float> %y}"


def simd_lanes():
    """Return how many floats are in a register that Numba compiles for, by what LLVM makes of ADD.

    That need not be this CPU's (NUMBA_CPU_NAME, NUMBA_CPU_FEATURES, NUMBA_ENABLE_AVX), and Numba
    doesn't know every CPU's features. The registers are named zmm, ymm, xmm (SSE) or v (NEON).
    """
    triple, cpu, features = cpu_target.target_context.codegen().magic_tuple()
    machine = llvm.Target.from_triple(triple).create_target_machine(cpu, features)
    assembly = machine.emit_assembly(llvm.parse_assembly(ADD))
    return 16 if "zmm" in assembly else 8 if "ymm" in assembly else 4


LANES = simd_lanes()
ROWS = 5  # 5 x 2 sums, 2 vectors of b and 1 of a: 13 registers of the CPU's 16 (or 32)
TILE = ROWS * 2 * LANES


@njit
def add_product(sums, j, x, y):
    """sums[j] += x * y, for vectors."""
    store(sums, j * LANES, multiply_add(x, y, load(sums, j * LANES, LANES)))


@njit
def micro_kernel(a, packed, c, row, column, fetch):
    """Compute c[row : row + 5, column : column + 2], and prefetch row ``fetch`` of a meanwhile.

    The lanes of a vector are neighbouring k, so each sum is LANES partial sums, added up at the
    end. A step loads a vector of each of 2 columns of packed b and 5 rows of a: 7 loads for 10
    multiply-adds. What is left of k after the last whole vector is left to `add_rest`.
    """
    (m, k), n = a.shape, c.shape[1]
    sums = registers(TILE)
    for i in range(0, k // LANES * LANES, LANES):
        prefetch(a, fetch * k + i)
        x, y = load(packed, column * k + i, LANES), load(packed, (column + 1) * k + i, LANES)
        for r in range(ROWS):
            z = load(a, min(row + r, m - 1) * k + i, LANES)  # the last row again, if it lacks one
            add_product(sums, 2 * r, x, z)
            add_product(sums, 2 * r + 1, y, z)
    for r in range(ROWS):
        for j in range(2):
            if row + r < m and column + j < n:
                c[row + r, column + j] = total(load(sums, (2 * r + j) * LANES, LANES))


@njit
def add_rest(a, b, c, row, first):
    """c[row : row + 5] += a[row : row + 5, first:] @ b[first:], one float at a time."""
    for i in range(row, min(row + ROWS, len(a))):
        for k in range(first, len(b)):
            for j in range(c.shape[1]):
                c[i, j] += a[i, k] * b[k, j]


@njit
def pack(b):
    """Return b with its columns along k, and room for one more after an odd last one.

    It starts at a cache line, so that no vector of 64 bytes lies in two, if k is a multiple of 16.
    """
    k, n = b.shape
    size = (n + n % 2) * k
    floats = np.empty(size + 16, np.float32)
    start = -(floats.ctypes.data // 4) % 16
    packed = floats[start : start + size].reshape(n + n % 2, k)
    for j in range(n):
        for i in range(k):
            packed[j, i] = b[i, j]
    return packed


def multiply_tiles(a, b, c, ahead):
    """c = a @ b, while rows of the next tile are prefetched (``ahead`` = 1) or not (0).

    A tile is passed over once for every two columns; each pass prefetches one row, which makes all
    5 with the lesson's 10 columns.
    """
    packed, (m, k) = pack(b), a.shape
    for tile in prange((m + ROWS - 1) // ROWS):
        row, fetch = ROWS * tile, ROWS * (tile + ahead)
        for column in range(0, c.shape[1], 2):
            micro_kernel(a, packed, c, row, column, fetch + column // 2)
        add_rest(a, packed.T, c, row, k // LANES * LANES)


multiply_tiles_in_all_threads = njit(parallel=True)(multiply_tiles)
multiply_tiles = njit(multiply_tiles)


@rung()
def matmul_numba_tile(a, b):
    """A register tile: 5 x 2 sums at a time, so that a row of a serves 2 columns, and of b 5 rows.

    Brought 1.5 to 1.7 times on the full shape, 2.1 to 3.3 on the small one.
    """
    c = a.new_empty(len(a), b.shape[1])
    multiply_tiles_in_all_threads(a.contiguous().numpy(), b.contiguous().numpy(), c.numpy(), 0)
    return c


@rung()
def matmul_numba_prefetch(a, b):
    """While a tile is computed, the rows of the next one are fetched from memory.

    Brought 1.1 to 1.4 times on the full shape, and with AVX2 (NUMBA_CPU_NAME=haswell) 1.8.
    """
    c = a.new_empty(len(a), b.shape[1])
    multiply_tiles_in_all_threads(a.contiguous().numpy(), b.contiguous().numpy(), c.numpy(), 1)
    return c
