"""A tile of c in registers, computed by a micro-kernel, as BLAS libraries call it, from packed b."""

from functools import cache

import numpy as np
from llvmlite import binding as llvm
from numba import njit, prange
from numba.core.registry import cpu_target

from beyond.cpu import run
from beyond.vectors import accumulators, load, multiply_add, prefetch, store, sum_lanes, transpose
from ladder.rungs import rung


def simd_registers():
    """Return how many floats a SIMD register holds, and how many registers there are. LLVM compiles
    an addition for Numba's CPU (`magic_tuple`, which NUMBA_CPU_NAME changes), and the register that
    it names is the answer: zmm (AVX-512), ymm (AVX), xmm (SSE), or else one of NEON's."""
    triple, cpu, features = cpu_target.target_context.codegen().magic_tuple()
    machine = llvm.Target.from_triple(triple).create_target_machine(cpu, features)
    add = "<16 x float> @add(<16 x float> %x) {%y = fadd <16 x float> %x, %x ret <16 x float> %y}"
    code = machine.emit_assembly(llvm.parse_assembly(f"define {add}"))
    sizes = {"zmm": (16, 32), "ymm": (8, 16), "xmm": (4, 16), "": (4, 32)}
    return next(sizes[name] for name in sizes if name in code)


# A tile of R rows x C columns has R * C sums, and needs C vectors of b and one of a beside them:
# 4 x 5 take 26 registers, 5 x 2 take 13. It loads (R + C) / (R * C) vectors a multiply-add.
LANES, REGISTERS = simd_registers()
ROWS, COLUMNS = (4, 5) if REGISTERS == 32 else (5, 2)
# Rows of a later tile that a pass over COLUMNS columns asks for, so that 10 columns ask twice for each
# line (a CPU may drop a request); into L2 (locality 2), as b fills L1; how many tiles ahead.
PREFETCH = ROWS * max(1, LANES // 8) * COLUMNS // 10, 2, 2
CACHED = 2**19  # floats, 2 MB: what lies in two cores' L2 is not prefetched


@cache
def make_micro_kernel(rows, columns, lanes, per_pass, locality):
    size = rows * columns * lanes

    @njit
    def micro_kernel(a, packed, c, row, column, later, first):
        """Compute the tile of c at (row, column); a row or column past the last is the last again.
        A lane sums every lanes-th k, and the lanes are added up in the end. Meanwhile ``per_pass``
        rows of the tile at row ``later`` are prefetched, from its row ``first`` on."""
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
        for r in range(rows):
            for q in range(columns):
                i, j = min(row + r, m - 1), min(column + q, n - 1)
                c[i, j] = sum_lanes(load(sums, (columns * r + q) * lanes, lanes))

    return micro_kernel


@njit
def pack(b, k):
    """Return b's columns as rows, the first k of each (a multiple of 4), from a cache line on."""
    n, width = b.shape[1], (k + 15) // 16 * 16
    floats = np.empty(n * width + 16, np.float32)
    start = -(floats.ctypes.data // 4) % 16
    packed = floats[start : start + n * width].reshape(n, width)
    for j in range(n if n < 4 else 0):
        for i in range(k):
            packed[j, i] = b[i, j]
    for column in range(0, n if n >= 4 else 0, 4):
        j = min(column, n - 4)  # the last four may overlap
        for i in range(0, k, 4):
            block = accumulators(16)
            for r in range(4):
                store(block, 4 * r, load(b, (i + r) * n + j, 4))
            store(block, 0, transpose(load(block, 0, 16)))
            for r in range(4):
                store(packed, (j + r) * width + i, load(block, 4 * r, 4))
    return packed


def multiply_tiles(rows, columns, lanes, per_pass=0, locality=2, ahead=0, cached=0):
    """Return a function for `njit`: c = a @ b by tiles, in a pass for each few columns. The first
    passes prefetch the tile ``ahead``, until each cache line (16 floats) was asked for twice (by up
    to 8 lanes in one pass), as a CPU may drop a request; but not of up to ``cached`` floats."""
    plain = make_micro_kernel(rows, columns, lanes, 0, 2)
    prefetching = make_micro_kernel(rows, columns, lanes, per_pass, locality)
    requests = rows * max(1, lanes // 8) if per_pass else 0

    def multiply(a, b, c):
        (m, k), n = a.shape, b.shape[1]
        whole, wanted = k // lanes * lanes, requests if m * k > cached else 0
        packed = pack(b, whole)
        for tile in prange((m + rows - 1) // rows):
            row, later = rows * tile, rows * (tile + ahead)
            for column in range(0, n, columns):
                first = column // columns * per_pass
                if first < wanted and later < m:
                    prefetching(a, packed, c, row, column, later, first)
                else:
                    plain(a, packed, c, row, column, later, first)
            for i in range(row, min(row + rows, m)):
                for tail in range(whole, k):  # the k tail: what is left after whole vectors
                    for j in range(n):
                        c[i, j] += a[i, tail] * b[tail, j]

    return multiply


in_one_thread = njit(multiply_tiles(ROWS, COLUMNS, LANES))
in_all_threads = njit(parallel=True)(multiply_tiles(ROWS, COLUMNS, LANES))
with_prefetch = njit(parallel=True)(multiply_tiles(ROWS, COLUMNS, LANES, *PREFETCH, CACHED))


@rung()
def matmul_numba_tile(a, b):
    """A register tile: 4 x 5 sums at a time (5 x 2 with 16 registers), so each load serves several."""
    return run(in_all_threads, a, b.contiguous())


@rung(same_as=lambda shape: matmul_numba_tile if shape.m * shape.k <= CACHED else None)
def matmul_numba_prefetch(a, b):
    """While a tile is computed, the rows of a later one are on their way from memory."""
    return run(with_prefetch, a, b.contiguous())
