"""The micro-kernel: 5 x 2 sums that stay in registers, and what surrounds it.

The words are those of the BLAS libraries: b is packed, a micro-kernel walks along k, and what it
will need next is fetched from memory meanwhile.
"""

import numpy as np
import torch
from llvmlite import binding as llvm
from numba import njit, prange
from numba.core.registry import cpu_target

from rungs import rung

from beyond.vectors import load, multiply_add, prefetch, store, total, zeros

# Lanes (of float32) and number of the SIMD registers, by their name in assembly.
SIMD = {"zmm": (16, 32), "ymm": (8, 16), "xmm": (4, 16), "4s": (4, 32)}
ADD = "define <16 x float> @f(<16 x float> %x) {%y = fadd <16 x float> %x, %x ret <16 x float> %y}"


def simd():
    """Return the lanes and the number of the SIMD registers that Numba compiles for.

    Those need not be this CPU's: see NUMBA_CPU_NAME, NUMBA_CPU_FEATURES and NUMBA_ENABLE_AVX. And
    LLVM lists the features of some CPUs only; so look at what it makes of an addition.
    """
    triple, cpu, features = cpu_target.target_context.codegen().magic_tuple()
    machine = llvm.Target.from_triple(triple).create_target_machine(cpu, features)
    assembly = machine.emit_assembly(llvm.parse_assembly(ADD))
    return next(SIMD[name] for name in SIMD if name in assembly)


LANES, REGISTERS = simd()
ROWS = 5  # times 2 sums, 2 vectors of b and 1 of a are 13 registers
AHEAD = 1  # tiles


def micro_kernel_of(multiply_row, store_row):
    """Return a micro-kernel, which multiplies 5 rows of a by two vectors of b at each step along k.

    ``multiply_row`` adds the products to the two sums of a row, ``store_row`` puts these into c.
    """

    @njit
    def micro_kernel(a, b, c, sizes, row, column, vectors, steps, ahead):
        (m, k, n), (left, right, down) = sizes, vectors
        (stop, step), (fetched, fetch) = steps, ahead
        last = m - 1  # stands in for the rows that a lacks
        p, q, r = row, min(row + 1, last), min(row + 2, last)
        s, t = min(row + 3, last), min(row + 4, last)
        p0 = p1 = q0 = q1 = r0 = r1 = s0 = s1 = t0 = t1 = zeros(LANES)
        for i in range(0, stop, step):
            prefetch(a, fetched)
            fetched += fetch
            x, y = load(b, left + i * down, LANES), load(b, right + i * down, LANES)
            p0, p1 = multiply_row(a, p * k + i, x, y, p0, p1)
            q0, q1 = multiply_row(a, q * k + i, x, y, q0, q1)
            r0, r1 = multiply_row(a, r * k + i, x, y, r0, r1)
            s0, s1 = multiply_row(a, s * k + i, x, y, s0, s1)
            t0, t1 = multiply_row(a, t * k + i, x, y, t0, t1)
        store_row(c, p * n + column, p0, p1, n - column)
        store_row(c, q * n + column, q0, q1, n - column)
        store_row(c, r * n + column, r0, r1, n - column)
        store_row(c, s * n + column, s0, s1, n - column)
        store_row(c, t * n + column, t0, t1, n - column)

    return micro_kernel


@njit
def multiply_row(a, at, x, y, sum0, sum1):
    z = load(a, at, LANES)
    return multiply_add(x, z, sum0), multiply_add(y, z, sum1)


@njit
def store_totals(c, at, sum0, sum1, columns):
    store(c, at, total(sum0), columns)
    store(c, at + 1, total(sum1), columns - 1)


along_k = micro_kernel_of(multiply_row, store_totals)


@njit
def add_rest(a, b, c, sizes, rows, columns, strides, first):
    """c[rows, columns] += a[:, first:] @ b[first:], one float at a time; b has these strides."""
    (m, k, n), (down, across) = sizes, strides
    for row in range(rows[0], min(rows[1], m) if first < k else rows[0]):
        for column in range(columns[0], min(columns[1], n)):
            cell = load(c, row * n + column, 1)
            for i in range(first, k):
                x, y = load(a, row * k + i, 1), load(b, i * down + column * across, 1)
                cell = multiply_add(x, y, cell)
            store(c, row * n + column, cell, 1)


def multiply_packed(a, b, c, sizes, ahead):
    """c = a @ b for packed b, while the tile is fetched that is so many tiles ``ahead``."""
    m, k, n = sizes
    passes, whole = (n + 1) // 2, k // LANES * LANES
    for tile in prange((m + ROWS - 1) // ROWS):
        row = ROWS * tile
        for column in range(0, n, 2):
            vectors = column * k, column * k + k, 1
            share = ROWS * (tile + ahead) * k + ROWS * k // passes * column // 2
            fetch = share, ROWS * LANES // passes
            along_k(a, b, c, sizes, row, column, vectors, (whole, LANES), fetch)
        add_rest(a, b, c, sizes, (row, row + ROWS), (0, n), (1, k), whole)


multiply_packed_in_all_threads = njit(parallel=True)(multiply_packed)
multiply_packed = njit(multiply_packed)


@njit
def pack(b, k, n):
    """Return b with its columns along k, and a column of zeros after an odd last one.

    It starts at a cache line, so that no vector of 64 bytes lies in two of them.
    """
    packed = np.zeros((n + n % 2) * k + 16, np.float32)
    packed = packed[-(packed.ctypes.data // 4) % 16 :]
    for i in range(k):
        for j in range(n):
            store(packed, j * k + i, load(b, i * n + j, 1), 1)
    return packed


@njit
def multiply_in_all_threads(a, b, c, m, k, n, ahead):
    multiply_packed_in_all_threads(a, pack(b, k, n), c, (m, k, n), ahead)


def product(a, b, ahead):
    (m, k), n = a.shape, b.shape[1]
    c = np.empty((m, n), np.float32)
    multiply_in_all_threads(a.contiguous().numpy(), b.contiguous().numpy(), c, m, k, n, ahead)
    return torch.from_numpy(c)


@rung()
def matmul_numba_tile(a, b):
    """A register tile: 5 x 2 sums at a time, so that a row of a serves 2 columns, and of b 5 rows."""
    return product(a, b, ahead=0)


@rung()
def matmul_numba_prefetch(a, b):
    """While a tile is computed, the rows of the next one are fetched from memory."""
    return product(a, b, AHEAD)
