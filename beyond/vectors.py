"""A SIMD vector of float32 as a type of Numba's own, and what one can do with it.

LLVM, Numba's compiler, turns a loop into SIMD instructions as it sees fit, and decides what stays
in registers. Where that isn't good enough, C has intrinsics, functions that stand for one
instruction each, and Numba has none. Here they are. A dot product, 8 floats at a time:

    >>> from numba import njit
    >>> @njit
    ... def dot(x, y):  # of a length that is a multiple of 8
    ...     sums = accumulators(8)
    ...     for i in range(0, len(x), 8):
    ...         store(sums, 0, multiply_add(load(x, i, 8), load(y, i, 8), load(sums, 0, 8)))
    ...     return sum_lanes(load(sums, 0, 8))
    >>> import numpy as np
    >>> dot(np.ones(16, np.float32), np.full(16, 3, np.float32))
    48.0

A `Vector` of 4, 8 or 16 floats (its lanes) is one register, or several if the CPU's are narrower.
``ptr`` is a contiguous float32 array or a pointer, ``i`` the index of a float there in C order,
which isn't checked, and ``lanes`` a constant.

An `intrinsic` is called while Numba compiles, with the types of the arguments. It returns its own
signature (``vector(ptr, lanes)``: takes these two, returns a vector) and ``codegen``, which writes
LLVM's instructions with the ``builder``; ``args`` are the arguments' values, as LLVM sees them.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

FLOAT, INT = ir.FloatType(), ir.IntType(32)
POINTER = types.CPointer(types.float32)  # Numba's own type; as in C, p[i] is a float there


class Vector(types.Type):
    def __init__(self, lanes):
        self.lanes = lanes
        super().__init__(f"float32x{lanes}")


@register_model(Vector)  # tells Numba what a value of the type is for LLVM
class VectorModel(models.PrimitiveModel):
    def __init__(self, manager, vector):
        super().__init__(manager, vector, ir.VectorType(FLOAT, vector.lanes))


def pointer(context, builder, ptr, args, to):
    """Return LLVM's pointer to ptr[i] as a ``to``, where ``args`` are the values of ptr, i, ..."""
    if ptr.dtype != types.float32:
        raise TypeError(f"{ptr} is not of float32")
    is_array = isinstance(ptr, types.Array)
    start = context.make_array(ptr)(context, builder, args[0]).data if is_array else args[0]
    at_i = builder.gep(start, [args[1]])  # "get element pointer": start + i, counted in floats
    return builder.bitcast(at_i, context.get_value_type(to).as_pointer())


@intrinsic
def as_pointer(typingctx, address):
    """Return the pointer to an address; `numba.carray` makes an array of it."""

    def codegen(context, builder, signature, args):
        return builder.inttoptr(args[0], FLOAT.as_pointer())

    return POINTER(types.intp), codegen


@intrinsic(prefer_literal=True)
def accumulators(typingctx, count):
    """Return a pointer to ``count`` zeros, which are gone when the function returns.

    They look like memory, but are registers if there are enough, and if each index is a constant,
    or becomes one when LLVM unrolls a short loop: to store there then writes no memory, it only
    says which register holds a sum from now on. Otherwise they are on the stack, and slow.
    """
    zeros = ir.Constant(ir.ArrayType(FLOAT, count.literal_value), None)

    def codegen(context, builder, signature, args):
        start = cgutils.alloca_once(builder, zeros.type)
        builder.store(zeros, start)
        return builder.bitcast(start, FLOAT.as_pointer())

    return POINTER(count), codegen


@intrinsic(prefer_literal=True)
def load(typingctx, ptr, i, lanes):
    """Return ptr[i : i + lanes]."""
    vector = Vector(lanes.literal_value)

    def codegen(context, builder, signature, args):
        return builder.load(pointer(context, builder, ptr, args, vector), align=4)

    return vector(ptr, types.intp, lanes), codegen


@intrinsic(prefer_literal=True)
def broadcast(typingctx, ptr, i, lanes):
    """Return a vector with ptr[i] in each lane."""
    vector = Vector(lanes.literal_value)

    def codegen(context, builder, signature, args):
        one = builder.load(pointer(context, builder, ptr, args, Vector(1)), align=4)
        all_lane_0 = ir.Constant(ir.VectorType(INT, vector.lanes), None)
        return builder.shuffle_vector(one, one, all_lane_0)

    return vector(ptr, types.intp, lanes), codegen


@intrinsic
def store(typingctx, ptr, i, x):
    """ptr[i : i + lanes] = x."""

    def codegen(context, builder, signature, args):
        builder.store(args[2], pointer(context, builder, ptr, args, x), align=4)

    return types.void(ptr, types.intp, x), codegen


@intrinsic
def multiply_add(typingctx, x, y, z):
    """Return x * y + z, rounded once where the CPU can do that."""

    def codegen(context, builder, signature, args):
        product = builder.fmul(*args[:2], flags=["contract"])
        return builder.fadd(product, args[2], flags=["contract"])

    return x(x, x, x), codegen


@intrinsic
def sum_lanes(typingctx, x):
    """Return the sum of the lanes, in any order, as a float32."""

    def codegen(context, builder, signature, args):
        kind = ir.FunctionType(FLOAT, [FLOAT, args[0].type])
        name = f"llvm.vector.reduce.fadd.v{x.lanes}f32"
        reduce = builder.module.declare_intrinsic(name, fnty=kind)
        return builder.call(reduce, [FLOAT(-0.0), args[0]], fastmath=["reassoc"])

    return types.float32(x), codegen


@intrinsic(prefer_literal=True)
def interleave(typingctx, x, y, half):
    """Return x[0], y[0], x[1], y[1], ... of the lower (0) or upper (1) half of their lanes."""
    first = half.literal_value * x.lanes // 2
    lanes = [i + own for i in range(first, first + x.lanes // 2) for own in (0, x.lanes)]

    def codegen(context, builder, signature, args):
        return builder.shuffle_vector(*args[:2], ir.Constant(ir.VectorType(INT, x.lanes), lanes))

    return x(x, x, half), codegen


@intrinsic(prefer_literal=True)
def prefetch(typingctx, ptr, i, locality):
    """Ask for the cache line of ptr[i], which need not exist, into L1 (locality 3) or L2 (2)."""
    level = INT(locality.literal_value)

    def codegen(context, builder, signature, args):
        byte = pointer(context, builder, ptr, args, types.int8)
        kind = ir.FunctionType(ir.VoidType(), [byte.type, INT, INT, INT])
        ask = builder.module.declare_intrinsic("llvm.prefetch.p0", fnty=kind)
        builder.call(ask, [byte, INT(0), level, INT(1)])  # to read; locality; data, not code

    return types.void(ptr, types.intp, locality), codegen
