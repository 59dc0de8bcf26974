"""A SIMD vector of float32 as a type of Numba's own, and what one can do with it.

LLVM, Numba's compiler, turns a loop into SIMD instructions as it sees fit, and decides what stays
in registers. Where that isn't good enough, C has intrinsics, functions that stand for one
instruction, and Numba has none. Here they are. A dot product, 8 floats at a time:

    >>> @njit
    ... def dot(x, y):  # of a length that is a multiple of 8
    ...     sums = accumulators(8)
    ...     for i in range(0, len(x), 8):
    ...         store(sums, 0, multiply_add(load(x, i, 8), load(y, i, 8), load(sums, 0, 8)))
    ...     return sum_lanes(load(sums, 0, 8))
    >>> dot(np.ones(16, np.float32), np.full(16, 3, np.float32))
    48.0

A `Vector` of 4, 8 or 16 floats (its lanes) is one register, or several if the CPU's are narrower.
``ptr`` is a contiguous float32 array or a pointer, ``i`` the index of a float there in C order,
which isn't checked, and ``lanes`` a constant.

An `intrinsic` is called while Numba compiles, with the types of its arguments. It returns its
signature (``vector(ptr, lanes)``: takes these two, returns a vector) and the function that writes
LLVM's instructions.
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


@register_model(Vector)  # says what such a value is for LLVM
class VectorModel(models.PrimitiveModel):
    def __init__(self, manager, vector):
        super().__init__(manager, vector, ir.VectorType(FLOAT, vector.lanes))


def code(write, ptr=None, to=None):
    """Return Numba's ``codegen``: it calls ``write`` with LLVM's builder, and the arguments' values.

    Given the type of ``ptr``, the first two, ptr and i, become one pointer to ptr[i] as a ``to``.
    """

    def codegen(context, builder, signature, args):
        if ptr is None:
            return write(builder, *args)
        if ptr.dtype != types.float32:
            raise TypeError(f"{ptr} is not of float32")
        is_array = isinstance(ptr, types.Array)
        start = context.make_array(ptr)(context, builder, args[0]).data if is_array else args[0]
        at_i = builder.gep(start, [args[1]])  # "get element pointer": start + i, in floats
        at_i = builder.bitcast(at_i, context.get_value_type(to).as_pointer())
        return write(builder, at_i, *args[2:])

    return codegen


@intrinsic
def as_pointer(typingctx, address):
    """Return the pointer to an address; `numba.carray` makes an array of it."""
    return POINTER(types.intp), code(lambda builder, x: builder.inttoptr(x, FLOAT.as_pointer()))


@intrinsic(prefer_literal=True)
def accumulators(typingctx, count):
    """Return a pointer to ``count`` zeros, which are gone when the function returns.

    It looks like memory, but LLVM keeps it in registers if there are enough, and if each index is
    a constant, or becomes one as LLVM unrolls a short loop: then a store there writes no memory,
    and only says what the sum is from now on. Otherwise it is on the stack, and slow.
    """

    def write(builder, _):
        start = cgutils.alloca_once(builder, ir.ArrayType(FLOAT, count.literal_value))
        builder.store(ir.Constant(start.type.pointee, None), start)
        return builder.bitcast(start, FLOAT.as_pointer())

    return POINTER(count), code(write)


@intrinsic(prefer_literal=True)
def load(typingctx, ptr, i, lanes):
    """Return ptr[i : i + lanes]."""
    vector = Vector(lanes.literal_value)
    write = code(lambda builder, p, _: builder.load(p, align=4), ptr, vector)
    return vector(ptr, types.intp, lanes), write


@intrinsic(prefer_literal=True)
def broadcast(typingctx, ptr, i, lanes):
    """Return a vector with ptr[i] in each lane."""
    lane_0 = ir.Constant(ir.VectorType(INT, lanes.literal_value), None)

    def write(builder, p, _):
        one = builder.load(p, align=4)
        return builder.shuffle_vector(one, one, lane_0)

    return Vector(lanes.literal_value)(ptr, types.intp, lanes), code(write, ptr, Vector(1))


@intrinsic
def store(typingctx, ptr, i, x):
    """ptr[i : i + lanes] = x."""

    def write(builder, p, x):
        builder.store(x, p, align=4)

    return types.void(ptr, types.intp, x), code(write, ptr, x)


@intrinsic
def multiply_add(typingctx, x, y, z):
    """Return x * y + z, rounded once where the CPU can do that."""

    def write(builder, x, y, z):
        return builder.fadd(builder.fmul(x, y, flags=["contract"]), z, flags=["contract"])

    return x(x, x, x), code(write)


@intrinsic
def sum_lanes(typingctx, x):
    """Return the sum of the lanes, in any order, as a float32."""

    def write(builder, lanes):
        kind = ir.FunctionType(FLOAT, [FLOAT, lanes.type])
        name = f"llvm.vector.reduce.fadd.v{x.lanes}f32"
        add = builder.module.declare_intrinsic(name, fnty=kind)
        return builder.call(add, [FLOAT(-0.0), lanes], fastmath=["reassoc"])

    return types.float32(x), code(write)


@intrinsic
def transpose(typingctx, x):
    """Return the transpose of 16 lanes, seen as 4 x 4."""
    lanes = [4 * row + column for column in range(4) for row in range(4)]
    order = ir.Constant(ir.VectorType(INT, 16), lanes)
    return x(x), code(lambda builder, x: builder.shuffle_vector(x, x, order))


@intrinsic(prefer_literal=True)
def prefetch(typingctx, ptr, i, locality):
    """Ask for the cache line of ptr[i], which need not exist, into L1 (locality 3) or L2 (2)."""
    level = INT(locality.literal_value)

    def write(builder, p, _):
        kind = ir.FunctionType(ir.VoidType(), [p.type, INT, INT, INT])
        ask = builder.module.declare_intrinsic("llvm.prefetch.p0", fnty=kind)
        builder.call(ask, [p, INT(0), level, INT(1)])  # to read; locality; data, not code

    return types.void(ptr, types.intp, locality), code(write, ptr, types.int8)
