"""A SIMD vector of float32 as a type of Numba's own, and what one can do with it.

LLVM, Numba's compiler, uses SIMD instructions and registers as it sees fit. Where that isn't good
enough, C has intrinsics, functions that stand for an instruction. Here they are for Numba:

    >>> @njit
    ... def dot(x, y):  # of a length that is a multiple of 8
    ...     sums = accumulators(8)
    ...     for i in range(0, len(x), 8):
    ...         store(sums, 0, multiply_add(load(x, i, 8), load(y, i, 8), load(sums, 0, 8)))
    ...     return sum_lanes(load(sums, 0, 8))
    >>> dot(np.ones(16, np.float32), np.full(16, 3, np.float32))
    48.0

A `Vector` of 4, 8 or 16 floats (lanes) is one register, or several if the CPU's are narrower.
``ptr`` is a contiguous float32 array or a pointer, ``i`` a float's index there in C order, which
isn't checked, ``lanes`` a constant. Numba calls an `intrinsic` while it compiles, with the types of
the arguments, for a signature (``vector(ptr, lanes)``: takes these, returns a vector) and code.
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


def written(signature, write, ptr=None, to=None):
    """Return the signature, and Numba's ``codegen``: LLVM's ``builder`` writes what ``write`` says.
    With the type of ``ptr``, the arguments ptr and i become a pointer to ptr[i], of type ``to``."""

    def codegen(context, builder, signature, args):
        if ptr is not None:
            if ptr.dtype != types.float32:
                raise TypeError(f"{ptr} is not of float32")
            start, i, *args = args
            if isinstance(ptr, types.Array):
                start = context.make_array(ptr)(context, builder, start).data
            start = builder.gep(start, [i])  # "get element pointer": start + i, in floats
            args = builder.bitcast(start, context.get_value_type(to).as_pointer()), *args
        result = write(builder, *args)
        return None if signature.return_type == types.void else result

    return signature, codegen


def call(builder, name, returns, *args, flags=()):
    kind = ir.FunctionType(returns, [arg.type for arg in args])
    return builder.call(builder.module.declare_intrinsic(name, fnty=kind), args, fastmath=flags)


def shuffle(builder, x, lanes):
    return builder.shuffle_vector(x, x, ir.Constant(ir.VectorType(INT, len(lanes)), lanes))


@intrinsic
def as_pointer(typingctx, address):
    """Return the pointer to an address; `numba.carray` makes an array of it."""
    return written(POINTER(types.intp), lambda b, x: b.inttoptr(x, FLOAT.as_pointer()))


@intrinsic(prefer_literal=True)
def accumulators(typingctx, count):
    """Return a pointer to ``count`` zeros that live as long as the function runs, in registers if
    there are enough, and if each index is a constant, or is one when LLVM has unrolled a short
    loop. A store there writes no memory then, it says which register is the sum from now on."""
    zeros = ir.Constant(ir.ArrayType(FLOAT, count.literal_value), None)
    start = cgutils.alloca_once_value  # a place on the stack, unless LLVM finds registers
    return written(POINTER(count), lambda b, _: b.bitcast(start(b, zeros), FLOAT.as_pointer()))


@intrinsic(prefer_literal=True)
def load(typingctx, ptr, i, lanes):
    """Return ptr[i : i + lanes]."""
    vector = Vector(lanes.literal_value)
    return written(vector(ptr, types.intp, lanes), lambda b, p, _: b.load(p, align=4), ptr, vector)


@intrinsic(prefer_literal=True)
def broadcast(typingctx, ptr, i, lanes):
    """Return a vector with ptr[i] in each lane."""
    vector, one = Vector(lanes.literal_value), Vector(1)
    signature, lane_0 = vector(ptr, types.intp, lanes), [0] * vector.lanes
    return written(signature, lambda b, p, _: shuffle(b, b.load(p, align=4), lane_0), ptr, one)


@intrinsic
def store(typingctx, ptr, i, x):
    """ptr[i : i + lanes] = x."""
    return written(types.void(ptr, types.intp, x), lambda b, p, x: b.store(x, p, align=4), ptr, x)


@intrinsic
def multiply_add(typingctx, x, y, z):
    """Return x * y + z, rounded once where the CPU can do that."""
    once = {"flags": ["contract"]}
    return written(x(x, x, x), lambda b, x, y, z: b.fadd(b.fmul(x, y, **once), z, **once))


@intrinsic
def sum_lanes(typingctx, x):
    """Return the sum of the lanes, in any order, as a float32."""
    add = f"llvm.vector.reduce.fadd.v{x.lanes}f32", FLOAT, FLOAT(-0.0)
    return written(types.float32(x), lambda b, x: call(b, *add, x, flags=["reassoc"]))


@intrinsic
def transpose(typingctx, x):
    """Return the transpose of 16 lanes, seen as 4 x 4."""
    lanes = [4 * row + column for column in range(4) for row in range(4)]
    return written(x(x), lambda b, x: shuffle(b, x, lanes))


@intrinsic(prefer_literal=True)
def prefetch(typingctx, ptr, i, locality):
    """Ask for the cache line of ptr[i], which need not exist, into L1 (locality 3) or L2 (2)."""
    how = INT(0), INT(locality.literal_value), INT(1)  # to read; locality; data, not code
    signature, ask = types.void(ptr, types.intp, locality), ("llvm.prefetch.p0", ir.VoidType())
    return written(signature, lambda b, p, _: call(b, *ask, p, *how), ptr, types.int8)
