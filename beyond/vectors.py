"""A SIMD vector of float32 as a type of Numba's own, and what one can do with it.

LLVM turns a loop into SIMD instructions as it sees fit, and decides what stays in registers.
Where that isn't good enough, C has intrinsics for SIMD, and Numba has none. Here they are, for
code that Numba compiles: a `Vector` of 4, 8 or 16 floats is LLVM's vector, which is one register
(or several, if the CPU's are narrower), and each function is an instruction or a few.

An intrinsic returns a signature and a function that writes LLVM's code: ``vector(at, lanes)``
means that it takes ``at`` and ``lanes``, and returns a vector. ``lanes`` is a constant, ``at`` a
contiguous float32 array or a pointer, and ``i`` the index of a float there, in C order, which
isn't checked.
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


@register_model(Vector)
class VectorModel(models.PrimitiveModel):
    def __init__(self, manager, vector):
        super().__init__(manager, vector, ir.VectorType(FLOAT, vector.lanes))


def pointer(context, builder, at, args, to):
    """Return LLVM's pointer to at[i] as a ``to``, where ``args`` are the values of at, i, ..."""
    if at.dtype != types.float32:
        raise TypeError(f"{at} is not of float32")
    is_array = isinstance(at, types.Array)
    start = context.make_array(at)(context, builder, args[0]).data if is_array else args[0]
    return builder.bitcast(builder.gep(start, [args[1]]), context.get_value_type(to).as_pointer())


@intrinsic
def floats_at(typingctx, address):
    """Return the pointer to an address; `numba.carray` makes an array of it."""

    def codegen(context, builder, signature, args):
        return builder.inttoptr(args[0], FLOAT.as_pointer())

    return POINTER(types.intp), codegen


@intrinsic(prefer_literal=True)
def registers(typingctx, count):
    """Return a pointer to ``count`` zeros, which are gone when the function returns.

    They stay in registers if there are enough, and if each index is a constant, or becomes one
    when LLVM unrolls a short loop. Otherwise they are on the stack.
    """
    zeros = ir.Constant(ir.ArrayType(FLOAT, count.literal_value), None)

    def codegen(context, builder, signature, args):
        start = cgutils.alloca_once(builder, zeros.type)
        builder.store(zeros, start)
        return builder.bitcast(start, FLOAT.as_pointer())

    return POINTER(count), codegen


@intrinsic(prefer_literal=True)
def load(typingctx, at, i, lanes):
    """Return at[i : i + lanes]."""
    vector = Vector(lanes.literal_value)

    def codegen(context, builder, signature, args):
        return builder.load(pointer(context, builder, at, args, vector), align=4)

    return vector(at, types.intp, lanes), codegen


@intrinsic(prefer_literal=True)
def broadcast(typingctx, at, i, lanes):
    """Return a vector with at[i] in each lane."""
    vector = Vector(lanes.literal_value)

    def codegen(context, builder, signature, args):
        one = builder.load(pointer(context, builder, at, args, Vector(1)), align=4)
        all_lane_0 = ir.Constant(ir.VectorType(INT, vector.lanes), None)
        return builder.shuffle_vector(one, one, all_lane_0)

    return vector(at, types.intp, lanes), codegen


@intrinsic
def store(typingctx, at, i, x):
    """at[i : i + lanes] = x."""

    def codegen(context, builder, signature, args):
        builder.store(args[2], pointer(context, builder, at, args, x), align=4)

    return types.void(at, types.intp, x), codegen


@intrinsic
def multiply_add(typingctx, x, y, z):
    """Return x * y + z, rounded once where the CPU can do that."""

    def codegen(context, builder, signature, args):
        product = builder.fmul(*args[:2], flags=["contract"])
        return builder.fadd(product, args[2], flags=["contract"])

    return x(x, x, x), codegen


@intrinsic
def total(typingctx, x):
    """Return the sum of the lanes, in any order, as a float32."""

    def codegen(context, builder, signature, args):
        kind = ir.FunctionType(FLOAT, [FLOAT, args[0].type])
        name = f"llvm.vector.reduce.fadd.v{x.lanes}f32"
        reduce = builder.module.declare_intrinsic(name, fnty=kind)
        return builder.call(reduce, [FLOAT(-0.0), args[0]], fastmath=["reassoc"])

    return types.float32(x), codegen


@intrinsic
def prefetch(typingctx, at, i):
    """Ask for at[i] and what is in its cache line, which may be past the end of the array."""

    def codegen(context, builder, signature, args):
        byte = pointer(context, builder, at, args, types.int8)
        kind = ir.FunctionType(ir.VoidType(), [byte.type, INT, INT, INT])
        fetch = builder.module.declare_intrinsic("llvm.prefetch.p0", fnty=kind)
        builder.call(fetch, [byte, INT(0), INT(3), INT(1)])  # to read; into all caches; data

    return types.void(at, types.intp), codegen
