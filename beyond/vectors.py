"""A SIMD vector of float32 as a type of Numba's own, and what one can do with it.

LLVM turns a loop into SIMD instructions as it sees fit, and decides what stays in registers.
Where that isn't good enough, C has intrinsics, and Numba has none. Here they are, for code that
Numba compiles: a `Vector` of 4, 8 or 16 floats is LLVM's vector, which is one register (or
several, if the CPU's are narrower), and each function is an instruction or a few.

An intrinsic returns a signature and a function that writes LLVM's code: ``vector(lanes)`` means
that it takes ``lanes`` and returns a vector.

``at`` is a contiguous float32 array, or its address as an integer, and ``i`` is the index of a
float there, in C order. It is not checked. ``lanes`` is a constant.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

FLOAT, INT = ir.FloatType(), ir.IntType(32)


class Vector(types.Type):
    def __init__(self, lanes):
        self.lanes = lanes
        super().__init__(f"float32x{lanes}")


@register_model(Vector)
class VectorModel(models.PrimitiveModel):
    def __init__(self, manager, vector):
        super().__init__(manager, vector, ir.VectorType(FLOAT, vector.lanes))


def pointer(context, builder, signature, args, to=FLOAT):
    """Return LLVM's pointer to at[i], where these are the first arguments of an intrinsic."""
    at, i = args[:2]
    if isinstance(signature.args[0], types.Array):
        if signature.args[0].dtype != types.float32:
            raise TypeError(f"an array of {signature.args[0].dtype}, not of float32")
        start = context.make_array(signature.args[0])(context, builder, at).data
    else:
        start = builder.inttoptr(at, FLOAT.as_pointer())
    return builder.bitcast(builder.gep(start, [i]), to.as_pointer())


@intrinsic(prefer_literal=True)
def zeros(typingctx, lanes):
    """Return a vector of zeros."""
    vector = Vector(lanes.literal_value)
    return vector(lanes), lambda context, *_: ir.Constant(context.get_value_type(vector), None)


@intrinsic(prefer_literal=True)
def load(typingctx, at, i, lanes):
    """Return at[i : i + lanes]."""
    vector = Vector(lanes.literal_value)

    def codegen(context, builder, signature, args):
        to = context.get_value_type(vector)
        return builder.load(pointer(context, builder, signature, args, to), align=4)

    return vector(at, types.intp, lanes), codegen


@intrinsic(prefer_literal=True)
def broadcast(typingctx, at, i, lanes):
    """Return a vector with at[i] in each lane."""
    vector = Vector(lanes.literal_value)

    def codegen(context, builder, signature, args):
        value = builder.load(pointer(context, builder, signature, args))
        empty = ir.Constant(context.get_value_type(vector), ir.Undefined)
        all_lane_0 = ir.Constant(ir.VectorType(INT, vector.lanes), None)
        first = builder.insert_element(empty, value, INT(0))
        return builder.shuffle_vector(first, empty, all_lane_0)

    return vector(at, types.intp, lanes), codegen


@intrinsic
def multiply_add(typingctx, x, y, z):
    """Return x * y + z, rounded once where the CPU can do that."""

    def codegen(context, builder, signature, args):
        product = builder.fmul(*args[:2], flags=["contract"])
        return builder.fadd(product, args[2], flags=["contract"])

    return x(x, x, x), codegen


@intrinsic
def total(typingctx, x):
    """Return the sum of the lanes, in any order, as a vector of one lane."""

    def codegen(context, builder, signature, args):
        reduce = ir.FunctionType(FLOAT, [FLOAT, args[0].type])
        name = f"llvm.vector.reduce.fadd.v{x.lanes}f32"
        reduce = cgutils.get_or_insert_function(builder.module, reduce, name)
        value = builder.call(reduce, [FLOAT(-0.0), args[0]], fastmath=["reassoc"])
        one = ir.Constant(ir.VectorType(FLOAT, 1), ir.Undefined)
        return builder.insert_element(one, value, INT(0))

    return Vector(1)(x), codegen


@intrinsic
def store(typingctx, at, i, x, count):
    """at[i : i + count] = x[:count], for a ``count`` from 0 to the number of lanes, or clipped to it."""

    def codegen(context, builder, signature, args):
        start = pointer(context, builder, signature, args)
        for lane in range(x.lanes):
            with builder.if_then(builder.icmp_signed(">", args[3], args[3].type(lane))):
                to = builder.gep(start, [INT(lane)])
                builder.store(builder.extract_element(args[2], INT(lane)), to)
        return context.get_dummy_value()

    return types.void(at, types.intp, x, types.intp), codegen


@intrinsic
def prefetch(typingctx, at, i):
    """Ask for at[i] and what is in its cache line, which may be past the end of the array."""

    def codegen(context, builder, signature, args):
        byte = pointer(context, builder, signature, args, ir.IntType(8))
        fetch = ir.FunctionType(ir.VoidType(), [byte.type, INT, INT, INT])
        fetch = cgutils.get_or_insert_function(builder.module, fetch, "llvm.prefetch.p0")
        builder.call(fetch, [byte, INT(0), INT(3), INT(1)])  # to read; into all caches; data
        return context.get_dummy_value()

    return types.void(at, types.intp), codegen
