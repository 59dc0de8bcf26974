"""SIMD vectors for Numba: a type, and what one can do with it.

A SIMD register of the CPU holds 4, 8 or 16 floats, its lanes; one instruction works on all of
them. Numba's compiler, LLVM, uses such instructions where it sees fit. Where that isn't good
enough, the functions of this file say what to do, each in an instruction or a few:

    >>> @njit
    ... def dot(x, y):  # of a length that is a multiple of 8
    ...     sums = zeros(1, 1, 8)
    ...     for i in range(0, len(x), 8):
    ...         sums[0, 0] = multiply_add(load(x, i, 8), load(y, i, 8), sums[0, 0])
    ...     return sum_lanes(sums[0, 0])
    >>> dot(np.ones(16, np.float32), np.full(16, 3, np.float32))
    48.0

A vector is a value, as a float is. One of more lanes than a register has takes several registers.
In what follows, ``floats`` is a contiguous float32 array of any shape, or the `pointer` to an
address; ``i`` counts its floats from the first on, row by row, and is not checked; ``lanes``
is a constant.

How such a function comes about: Numba calls an `intrinsic` not when the program runs, but while it
compiles a call of it. It passes the types of the arguments (of a constant, with its value). It gets
back the signature of the call, and a function that then writes the call's code, by the methods of
LLVM's ``builder``: ``builder.fadd(x, y)`` writes an addition, and returns a name for its result.
The names of the arguments at run time are in ``arguments``. ``signature(result, argument, ...)``
takes the types, the result's first. ``typingctx``, ``context`` and ``_``, the signature again, are
Numba's own; they are only passed on.
"""

import operator

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.core.typing import signature
from numba.extending import intrinsic, models, overload, register_model

from beyond import pointers

FLOAT, INDEX = ir.FloatType(), ir.IntType(32)  # as LLVM calls them
POINTER = types.CPointer(types.float32)  # an address of floats, as Numba calls it


class Vector(types.Type):
    """The type of a vector of float32."""

    def __init__(self, lanes):
        self.lanes = lanes
        super().__init__(f"float32x{lanes}")


@register_model(Vector)
class VectorModel(models.PrimitiveModel):
    """Such a value is one of LLVM's vectors."""

    def __init__(self, manager, vector):
        super().__init__(manager, vector, ir.VectorType(FLOAT, vector.lanes))


# ---- Between memory and registers --------------------------------------------------


@intrinsic(prefer_literal=True)
def load(typingctx, floats, i, lanes):
    """Return the vector floats[i : i + lanes]."""
    vector = Vector(lanes.literal_value)

    def write(context, builder, _, arguments):
        address = address_as(context, builder, floats, arguments, vector)
        return builder.load(address, align=4)  # wherever a float may lie

    return signature(vector, floats, types.intp, lanes), write


@intrinsic
def store(typingctx, floats, i, vector):
    """floats[i : i + lanes] = vector."""

    def write(context, builder, _, arguments):
        address = address_as(context, builder, floats, arguments, vector)
        builder.store(arguments[2], address, align=4)

    return signature(types.void, floats, types.intp, vector), write


@intrinsic(prefer_literal=True)
def load_part(typingctx, floats, i, lanes, count):
    """Return the vector floats[i : i + count], and 0 in its other lanes, for which nothing is read.

    ``count`` may be 0 or less (none of them), or more than ``lanes`` (all).
    """
    vector = Vector(lanes.literal_value)

    def write(context, builder, _, arguments):
        address = address_as(context, builder, floats, arguments, vector)
        wanted = first_lanes(builder, vector.lanes, arguments[3])
        nothing = ir.Constant(ir.VectorType(FLOAT, vector.lanes), None)
        takes = [address.type, INDEX, wanted.type, nothing.type]
        name = f"llvm.masked.load.v{vector.lanes}f32.p0"
        masked = declare(builder, name, nothing.type, takes)
        return builder.call(masked, [address, INDEX(4), wanted, nothing])

    return signature(vector, floats, types.intp, lanes, types.intp), write


@intrinsic
def store_part(typingctx, floats, i, vector, count):
    """floats[i : i + count] = the vector's first lanes, as `load_part` counts them."""

    def write(context, builder, _, arguments):
        address = address_as(context, builder, floats, arguments, vector)
        wanted = first_lanes(builder, vector.lanes, arguments[3])
        takes = [arguments[2].type, address.type, INDEX, wanted.type]
        name = f"llvm.masked.store.v{vector.lanes}f32.p0"
        masked = declare(builder, name, ir.VoidType(), takes)
        builder.call(masked, [arguments[2], address, INDEX(4), wanted])

    return signature(types.void, floats, types.intp, vector, types.intp), write


@intrinsic(prefer_literal=True)
def broadcast(typingctx, floats, i, lanes):
    """Return a vector with floats[i] in each lane."""
    vector = Vector(lanes.literal_value)

    def write(context, builder, _, arguments):
        address = address_as(context, builder, floats, arguments, Vector(1))
        return pick(builder, builder.load(address, align=4), [0] * vector.lanes)

    return signature(vector, floats, types.intp, lanes), write


@intrinsic(prefer_literal=True)
def prefetch(typingctx, floats, i, level):
    """Ask for the cache line (64 bytes) of floats[i], which need not exist, into cache L1 or L2."""
    locality = {1: 3, 2: 2}[level.literal_value]  # how near to the core, in LLVM's count

    def write(context, builder, _, arguments):
        address = address_as(context, builder, floats, arguments, types.int8)
        to_read, data = INDEX(0), INDEX(1)  # and not to write; and not code
        takes = [address.type, INDEX, INDEX, INDEX]
        ask = declare(builder, "llvm.prefetch.p0", ir.VoidType(), takes)
        builder.call(ask, [address, to_read, INDEX(locality), data])

    return signature(types.void, floats, types.intp, level), write


@intrinsic
def pointer(typingctx, address):
    """Return the pointer to floats at an address, an int; `numba.carray` makes an array of it."""

    def write(context, builder, _, arguments):
        return builder.inttoptr(arguments[0], FLOAT.as_pointer())

    return signature(POINTER, types.intp), write


def address_as(context, builder, floats, arguments, kind):
    """Write what computes the address of floats[i], as one of a value of type ``kind``.

    The first two arguments are floats, whose type is ``floats``, and i.
    """
    if floats.dtype != types.float32:
        raise TypeError(f"{floats} is not of float32")
    address = pointers.address_of(context, builder, floats, arguments[0], arguments[1])
    return builder.bitcast(address, context.get_value_type(kind).as_pointer())


def first_lanes(builder, lanes, count):
    """Write what compares the number of each lane with ``count``: true in the first ones."""
    numbers = ir.Constant(ir.VectorType(INDEX, lanes), list(range(lanes)))
    one = builder.insert_element(numbers, builder.trunc(count, INDEX), INDEX(0))
    return builder.icmp_signed("<", numbers, pick(builder, one, [0] * lanes))


def declare(builder, name, returns, takes):
    """Return the function of LLVM's that has this name, for `builder.call`."""
    return builder.module.declare_intrinsic(name, fnty=ir.FunctionType(returns, takes))


# ---- Arithmetic --------------------------------------------------------------------


@intrinsic
def multiply_add(typingctx, x, y, z):
    """Return x * y + z, lane by lane, rounded once where the CPU can do that."""

    def write(context, builder, _, arguments):
        x, y, z = arguments
        product = builder.fmul(x, y, flags=["contract"])  # LLVM may make one instruction of the two
        return builder.fadd(product, z, flags=["contract"])

    return signature(x, x, x, x), write


@intrinsic
def add(typingctx, x, y):
    """Return x + y, lane by lane."""

    def write(context, builder, _, arguments):
        return builder.fadd(*arguments)

    return signature(x, x, x), write


@intrinsic
def sum_lanes(typingctx, x):
    """Return the sum of a vector's lanes, a float32: the upper half is added to the lower one, until
    one lane is left."""

    def write(context, builder, _, arguments):
        found, lanes = arguments[0], x.lanes
        while lanes > 1:
            lanes //= 2
            low = pick(builder, found, range(lanes))
            high = pick(builder, found, range(lanes, 2 * lanes))
            found = builder.fadd(low, high)
        return builder.extract_element(found, INDEX(0))

    return signature(types.float32, x), write


@intrinsic
def transpose(typingctx, x0, x1, x2, x3):
    """Return the columns of a 4 x 4 matrix, four vectors; the arguments are its rows."""

    def write(context, builder, _, arguments):
        def pick_of_both(x, y, lanes):  # 0 to 3 are those of x, 4 to 7 those of y
            return builder.shuffle_vector(x, y, constant_lanes(lanes))

        x0, x1, x2, x3 = arguments
        left_01, right_01 = pick_of_both(x0, x1, [0, 4, 1, 5]), pick_of_both(x0, x1, [2, 6, 3, 7])
        left_23, right_23 = pick_of_both(x2, x3, [0, 4, 1, 5]), pick_of_both(x2, x3, [2, 6, 3, 7])
        columns = [
            pick_of_both(left_01, left_23, [0, 1, 4, 5]),
            pick_of_both(left_01, left_23, [2, 3, 6, 7]),
            pick_of_both(right_01, right_23, [0, 1, 4, 5]),
            pick_of_both(right_01, right_23, [2, 3, 6, 7]),
        ]
        return context.make_tuple(builder, four, columns)

    four = types.UniTuple(x0, 4)
    return signature(four, x0, x1, x2, x3), write


def pick(builder, x, lanes):
    """Write what makes a vector of these lanes of x."""
    return builder.shuffle_vector(x, x, constant_lanes(lanes))


def constant_lanes(lanes):
    return ir.Constant(ir.VectorType(INDEX, len(lanes)), list(lanes))


# ---- Many vectors in registers -----------------------------------------------------


class Vectors(types.Type):
    """The type of a matrix of vectors, as `zeros` returns it."""

    def __init__(self, rows, columns, vector):
        self.rows, self.columns, self.vector = rows, columns, vector
        super().__init__(f"{rows} x {columns} of {vector}")


@register_model(Vectors)
class VectorsModel(models.PrimitiveModel):
    """For LLVM, such a value is the address of the first vector."""

    def __init__(self, manager, vectors):
        vector = manager[vectors.vector].get_value_type()
        super().__init__(manager, vectors, vector.as_pointer())


@intrinsic(prefer_literal=True)
def zeros(typingctx, rows, columns, lanes):
    """Return rows x columns vectors of zeros, ``v``: v[r, q] reads one, v[r, q] = x sets it.

    They live as long as the function runs: on its stack, in memory; but LLVM keeps them in
    registers if there are enough, and if each r and q is a constant, or is one once LLVM has
    unrolled a short loop such as ``for r in range(4)``. Then v[r, q] = x takes no instruction: it
    says which register is v[r, q] from here on.
    """
    vector = Vector(lanes.literal_value)
    vectors = Vectors(rows.literal_value, columns.literal_value, vector)

    def write(context, builder, _, arguments):
        kind = context.get_value_type(vector)
        nothing = ir.Constant(ir.ArrayType(kind, vectors.rows * vectors.columns), None)
        on_the_stack = cgutils.alloca_once_value(builder, nothing)
        return builder.bitcast(on_the_stack, kind.as_pointer())

    return signature(vectors, rows, columns, lanes), write


@overload(operator.getitem)
def vectors_getitem(vectors, index):
    if isinstance(vectors, Vectors):
        columns = vectors.columns
        return lambda vectors, index: get_vector(vectors, index[0] * columns + index[1])


@overload(operator.setitem)
def vectors_setitem(vectors, index, vector):
    if isinstance(vectors, Vectors):
        columns = vectors.columns
        return lambda vectors, index, vector: set_vector(
            vectors, index[0] * columns + index[1], vector
        )


@intrinsic
def get_vector(typingctx, vectors, i):
    def write(context, builder, _, arguments):
        return builder.load(builder.gep(arguments[0], [arguments[1]]))

    return signature(vectors.vector, vectors, types.intp), write


@intrinsic
def set_vector(typingctx, vectors, i, vector):
    def write(context, builder, _, arguments):
        builder.store(arguments[2], builder.gep(arguments[0], [arguments[1]]))

    return signature(types.void, vectors, types.intp, vectors.vector), write


# ---- Memory ------------------------------------------------------------------------


@njit
def aligned_floats(count):
    """Return an uninitialized float32 array, (count,), that begins with a cache line (64 bytes)."""
    floats = np.empty(count + 15, np.float32)
    start = -(floats.ctypes.data // 4) % 16
    return floats[start : start + count]
