"""Instructions of a GPU that Numba doesn't offer, or not in the form that is needed here.

A warp is 32 threads that run in step; a lane is one of them. Numba calls an `intrinsic` while it
compiles a call of it, with the types of the arguments. It gets back the signature of the call, and
a function that then writes the call's code by the methods of LLVM's ``builder``.
"""

from llvmlite import ir
from numba import cuda, types
from numba.core.typing import signature
from numba.extending import intrinsic

from beyond.pointers import address_of

WARP, WARPS = 32, 8  # lanes in a warp, and warps in a block
ALL_LANES = 0xFFFFFFFF
INT64, VECTOR = ir.IntType(64), ir.VectorType(ir.FloatType(), 4)


def kernel(warps, blocks):
    """Make a kernel of the function below, for blocks of so many ``warps``.

    A multiprocessor shall hold so many ``blocks`` at once: its 65,536 registers are divided among
    their threads, and Numba keeps within that.
    """
    return cuda.jit(launch_bounds=(warps * WARP, blocks))


@cuda.jit(device=True)
def checked(array):
    """Return the array; in the simulator, one whose indices are checked."""
    return array


@cuda.jit(device=True)
def partner(x, bit):
    """Return the x of the partner: the lane whose number differs from this one's in ``bit``."""
    return cuda.shfl_xor_sync(ALL_LANES, x, bit)


@intrinsic
def load_4(typingctx, floats, i):
    """Return floats[i : i + 4] as a tuple, by one instruction; i is a multiple of 4."""

    def write(context, builder, _, arguments):
        first = address_of(context, builder, floats, arguments[0], arguments[1])
        address = builder.bitcast(first, VECTOR.as_pointer(first.type.addrspace))
        vector = builder.load(address, align=16)
        items = [builder.extract_element(vector, ir.IntType(32)(n)) for n in range(4)]
        return context.make_tuple(builder, four, items)

    four = types.UniTuple(types.float32, 4)
    return signature(four, floats, types.intp), write


# ---- Asynchronous copies: a GPU has them from compute capability 8.0 on ---------------


@intrinsic
def start_copy_4(typingctx, to, i, floats, j):
    """Start to copy floats[j : j + 4] to to[i : i + 4], which is shared memory; 4 divides i and j."""

    def write(context, builder, _, arguments):
        target = address_of(context, builder, to, arguments[0], arguments[1])
        source = address_of(context, builder, floats, arguments[2], arguments[3])
        write_ptx(
            builder,
            "{ .reg .u64 s, g; cvta.to.shared.u64 s, $0; cvta.to.global.u64 g, $1;"
            " cp.async.cg.shared.global [s], [g], 16; }",
            [target, source],
        )

    return signature(types.void, to, types.intp, floats, types.intp), write


@intrinsic
def commit_group(typingctx):
    """Make a group of the copies that this thread has started since the last group."""

    def write(context, builder, _, arguments):
        write_ptx(builder, "cp.async.commit_group;")

    return signature(types.void), write


@intrinsic(prefer_literal=True)
def wait_group(typingctx, groups):
    """Wait until all but the last ``groups`` groups of this thread, a constant, have arrived."""
    count = groups.literal_value

    def write(context, builder, _, arguments):
        write_ptx(builder, f"cp.async.wait_group {count};")

    return signature(types.void, groups), write


def write_ptx(builder, code, addresses=()):
    """Write PTX, the GPU's assembly, with the addresses for $0, $1 and so on.

    The compiler moves no load and no store across it.
    """
    numbers = [builder.ptrtoint(address, INT64) for address in addresses]
    takes = ir.FunctionType(ir.VoidType(), [INT64] * len(numbers))
    operands = ["l"] * len(numbers) + ["~{memory}"]  # l: a register of 64 bits
    builder.call(ir.InlineAsm(takes, code, ",".join(operands), side_effect=True), numbers)
