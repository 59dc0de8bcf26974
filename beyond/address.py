"""Less around the product: for few rows, the call costs more than the multiplications."""

import torch
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from rungs import check_operands, rung

from beyond.prefetch import (
    LANES,
    TILE_ROWS,
    _prefetched_tiles,
    _prefetched_tiles_parallel,
    arrays,
    padded_transpose,
)


@intrinsic
def matrix_at(typingctx, address, shape):
    """Return the contiguous float32 matrix of this shape that lies at ``address``, without a copy."""
    array_type = types.Array(types.float32, 2, "C")

    def codegen(context, builder, signature, args):
        array = context.make_array(array_type)(context, builder)
        itemsize = context.get_constant(types.intp, 4)
        rows, columns = cgutils.unpack_tuple(builder, args[1])
        context.populate_array(
            array,
            data=builder.inttoptr(args[0], array.data.type),
            shape=[rows, columns],
            strides=[builder.mul(columns, itemsize), itemsize],
            itemsize=itemsize,
            meminfo=None,
        )
        return array._getvalue()

    return array_type(types.intp, types.UniTuple(types.intp, 2)), codegen


@intrinsic
def multiply_rows(typingctx, a, i, b, j, c, stop):
    """c[i : i + TILE_ROWS, j : j + LANES] = a[:, :stop] @ b[:stop], as far as c goes.

    In Python, with all r at once::

        for k in range(stop):
            sums[r] += a[i + r, k] * b[k, j : j + LANES]
        c[i + r, j : j + LANES] = sums[r]

    The columns are neighbours in b, which need not be transposed, but has to go on for
    LANES floats from b[stop - 1, j]. Past the last row of a, that one stands in. All three
    arrays are contiguous.
    """

    def codegen(context, builder, signature, args):
        a, b, c = arrays(context, builder, signature, args, 0, 2, 4)
        i, j, stop = args[1], args[3], args[5]
        index, vector = ir.IntType(64), ir.VectorType(ir.FloatType(), LANES)
        lane = ir.IntType(32)
        all_lane_0 = ir.Constant(ir.VectorType(lane, LANES), None)
        (m, width), (_, n) = (cgutils.unpack_tuple(builder, x.shape) for x in (a, c))
        zero, last = ir.Constant(vector, None), builder.sub(m, index(1))
        sums = [cgutils.alloca_once_value(builder, zero) for _ in range(TILE_ROWS)]
        rows = [builder.add(i, index(r)) for r in range(TILE_ROWS)]
        rows = [builder.select(builder.icmp_signed("<", row, last), row, last) for row in rows]
        with cgutils.for_range(builder, stop, intp=index) as loop:
            k = loop.index
            item = builder.gep(b.data, [builder.add(builder.mul(k, n), j)])
            y = builder.load(builder.bitcast(item, vector.as_pointer()), align=4)
            for row, row_sum in zip(rows, sums, strict=True):
                item = builder.add(builder.mul(row, width), k)
                x = builder.load(builder.gep(a.data, [item]))
                x = builder.insert_element(zero, x, lane(0))
                x = builder.shuffle_vector(x, zero, all_lane_0)
                product = builder.fmul(x, y, flags=["contract"])
                total = builder.fadd(builder.load(row_sum), product, flags=["contract"])
                builder.store(total, row_sum)
        totals = [builder.load(row_sum) for row_sum in sums]
        for q in range(LANES):
            column = builder.add(j, index(q))
            with builder.if_then(builder.icmp_signed("<", column, n)):
                for row, total in zip(rows, totals, strict=True):
                    item = builder.add(builder.mul(row, n), column)
                    total = builder.extract_element(total, lane(q))
                    builder.store(total, builder.gep(c.data, [item]))
        return context.get_dummy_value()

    return types.void(a, types.intp, b, types.intp, c, types.intp), codegen


@njit
def _few_rows(a, b, c):
    (m, width), n = a.shape, c.shape[1]
    stop = max(0, width - LANES // n - 1)
    for i in range(0, m, TILE_ROWS):
        for j in range(0, n, LANES):
            multiply_rows(a, i, b, j, c, stop)
    for k in range(stop, width):
        for i in range(m):
            for j in range(n):
                c[i, j] += a[i, k] * b[k, j]


@rung()
def matmul_numba_address(a, b):
    """The same with less around it, for few rows: integers go to Numba instead of arrays.

    Wrapping three tensors as arrays takes longer than the product of the small shape. So
    does transposing b, for which up to 15 rows use `multiply_rows` instead, and waking other
    threads, for which small products stay in this one.
    """
    floats = a.dtype is b.dtype is torch.float32 and a.is_cpu and b.is_cpu
    if not floats or a.is_neg() or b.is_neg() or a.ndim != 2 or a.shape[1:] != b.shape[:1]:
        check_operands(a, b)
        raise ValueError("a or b is only a view that negates its memory: use .resolve_neg()")
    (m, k), n = a.shape, b.shape[1]
    a, b = a.contiguous(), b.contiguous()
    if not m * k * n:
        return a.new_zeros(m, n)
    c = a.new_empty(m, n)
    multiply = _at_addresses if m * k * n < 1_000_000 else _at_addresses_parallel
    addresses = a.data_ptr(), b.data_ptr()
    if 0 in addresses:
        raise ValueError("a or b has no memory of its own")
    multiply(*addresses, c.data_ptr(), m, k, n)
    return c


@njit
def _at_addresses(a, b, c, m, k, n):
    a, b, c = matrix_at(a, (m, k)), matrix_at(b, (k, n)), matrix_at(c, (m, n))
    if m < 16:
        _few_rows(a, b, c)
    else:
        _prefetched_tiles(a, padded_transpose(b), c)


@njit
def _at_addresses_parallel(a, b, c, m, k, n):
    a, b, c = matrix_at(a, (m, k)), matrix_at(b, (k, n)), matrix_at(c, (m, n))
    _prefetched_tiles_parallel(a, padded_transpose(b), c)
