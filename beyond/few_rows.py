"""A register tile in LLVM's own language, with the next rows fetched while it is computed."""

import numpy as np
import torch
from llvmlite import ir
from llvmlite.binding import get_host_cpu_features
from numba import njit, prange, types
from numba.core import cgutils
from numba.extending import intrinsic

from rungs import rung

from beyond.cpu import ANY_ORDER, _dot32


def tile_size(features):
    """Return (floats in a vector, rows, columns) of the tile that fits a CPU's registers.

    ``features`` are LLVM's names. AVX-512: 32 registers of 16 floats, NEON: 32 of 4,
    AVX2: 16 of 8.
    """
    if features.get("avx512f"):
        return 16, 5, 5
    return (4, 5, 5) if features.get("neon") else (8, 2, 5)


LANES, TILE_ROWS, TILE_COLUMNS = tile_size(get_host_cpu_features())


@rung()
def matmul_numba_prefetch(a, b):
    """While a tile is computed, the rows of a tile to come are fetched from memory.

    Without that, memory rests while the cores compute, and the cores while memory is read:
    the two times add up. Numba has no prefetch instruction, and LLVM vectorizes no loop
    that has one; so the tile's inner loop is written in LLVM's language, as large as the
    registers allow (5 x 5 vectors of 16 floats with AVX-512).
    """
    m, n = len(a), b.shape[1]
    c = np.empty((m, n), np.float32)
    _prefetched_tiles_parallel(a.contiguous().numpy(), padded_transpose(b.contiguous().numpy()), c)
    return torch.from_numpy(c)


TILES_AHEAD = 4


@intrinsic
def multiply_tile(typingctx, a, i, bt, j, c):
    """c[i : i + TILE_ROWS, j : j + TILE_COLUMNS] = a @ bt.T, over K // LANES * LANES of K columns.

    In Python, with all r and q at once::

        for k in range(0, K // LANES * LANES, LANES):
            prefetch(a[i + r + TILES_AHEAD * TILE_ROWS, k])
            sums[r, q] += a[i + r, k : k + LANES] * bt[j + q, k : k + LANES]
        c[i + r, j + q] = sums[r, q].sum()

    The prefetch goes to the second-level cache. All three arrays are contiguous; bt has the
    rows that the tile needs, even where c has no such column.
    """

    def codegen(context, builder, signature, args):
        a, bt, c = arrays(context, builder, signature, args, 0, 2, 4)
        i, j = args[1], args[3]
        index, float_, byte = ir.IntType(64), ir.FloatType(), ir.IntType(8).as_pointer()
        flag, vector = ir.IntType(32), ir.VectorType(float_, LANES)
        width, n = (cgutils.unpack_tuple(builder, array.shape)[1] for array in (a, c))
        ahead = builder.mul(width, index(TILES_AHEAD * TILE_ROWS))
        prefetch = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(ir.VoidType(), [byte, flag, flag, flag]),
            "llvm.prefetch.p0",
        )

        def starts(first, count, width):
            rows = [builder.add(first, index(r)) for r in range(count)]
            return [builder.mul(row, width) for row in rows]

        def load(array, start, k):
            item = builder.gep(array.data, [builder.add(start, k)])
            return builder.load(builder.bitcast(item, vector.as_pointer()), align=4)

        zero = ir.Constant(vector, None)
        sums = [
            [cgutils.alloca_once_value(builder, zero) for _ in range(TILE_COLUMNS)]
            for _ in range(TILE_ROWS)
        ]
        rows, columns = starts(i, TILE_ROWS, width), starts(j, TILE_COLUMNS, width)
        stop = builder.and_(width, index(-LANES))
        with cgutils.for_range_slice(builder, index(0), stop, index(LANES), index) as (
            k,
            _,
        ):
            for row in rows:
                item = builder.gep(a.data, [builder.add(builder.add(row, k), ahead)])
                to_read, to_l2, data = flag(0), flag(2), flag(1)
                item = builder.bitcast(item, byte)
                builder.call(prefetch, [item, to_read, to_l2, data])
            xs = [load(a, row, k) for row in rows]
            for q, column in enumerate(columns):
                y = load(bt, column, k)
                for row_sums, x in zip(sums, xs, strict=True):
                    product = builder.fmul(x, y, flags=["contract"])
                    total = builder.load(row_sums[q])
                    total = builder.fadd(total, product, flags=["contract"])
                    builder.store(total, row_sums[q])
        totals = add_lanes(builder, [builder.load(s) for row in sums for s in row])
        outs = starts(i, TILE_ROWS, n)
        for q in range(TILE_COLUMNS):
            column = builder.add(j, index(q))
            with builder.if_then(builder.icmp_signed("<", column, n)):
                for out, total in zip(outs, totals[q::TILE_COLUMNS], strict=True):
                    item = builder.gep(c.data, [builder.add(out, column)])
                    builder.store(total, item)
        return context.get_dummy_value()

    return types.void(a, types.intp, bt, types.intp, c), codegen


def arrays(context, builder, signature, args, *positions):
    """Return those of an intrinsic's arguments that are arrays, with .data and .shape."""
    return [context.make_array(signature.args[n])(context, builder, args[n]) for n in positions]


def add_lanes(builder, vectors):
    """Return the sum over the lanes of each vector: neighbours are added, in pairs of vectors."""
    lane, count = ir.IntType(32), len(vectors)
    even, odd = (
        ir.Constant(ir.VectorType(lane, LANES), list(range(n, 2 * LANES, 2))) for n in (0, 1)
    )
    width = LANES
    while width > 1:
        if len(vectors) % 2:
            vectors.append(vectors[-1])
        vectors = [
            builder.fadd(builder.shuffle_vector(x, y, even), builder.shuffle_vector(x, y, odd))
            for x, y in zip(vectors[::2], vectors[1::2], strict=True)
        ]
        width //= 2
    return [builder.extract_element(vectors[n // LANES], lane(n % LANES)) for n in range(count)]


@njit
def _prefetched_tile(a, bt, c, i):
    """Compute the rows c[i : i + TILE_ROWS]."""
    n, width = c.shape[1], a.shape[1]
    for j in range(0, n, TILE_COLUMNS):
        multiply_tile(a, i, bt, j, c)
    for k in range(width // LANES * LANES, width):
        for r in range(i, i + TILE_ROWS):
            for j in range(n):
                c[r, j] += a[r, k] * bt[j, k]


@njit
def _prefetched_tiles(a, bt, c):
    m = len(c)
    for i in range(0, m - TILE_ROWS + 1, TILE_ROWS):
        _prefetched_tile(a, bt, c, i)
    _rest(a, bt, c, m // TILE_ROWS * TILE_ROWS)


@njit(parallel=True)
def _prefetched_tiles_parallel(a, bt, c):
    m = len(c)
    for tile in prange(m // TILE_ROWS):
        _prefetched_tile(a, bt, c, tile * TILE_ROWS)
    _rest(a, bt, c, m // TILE_ROWS * TILE_ROWS)


@njit(fastmath=ANY_ORDER)
def _rest(a, bt, c, first):
    for i in range(first, c.shape[0]):
        for j in range(c.shape[1]):
            c[i, j] = _dot32(a[i], bt[j])


@njit
def padded_transpose(b):
    """Return b.T (N, K), contiguous, with rows of zeros up to a multiple of TILE_COLUMNS."""
    width, n = b.shape
    bt = np.empty((-(-n // TILE_COLUMNS) * TILE_COLUMNS, width), np.float32)
    for k in range(width):
        for j in range(n):
            bt[j, k] = b[k, j]
    bt[n:] = 0
    return bt
