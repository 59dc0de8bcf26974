"""What Numba lacks, or only a GPU has: sums over a warp, wide loads, asynchronous copies. A warp
is 32 threads that run in step; a lane is one of them."""

from llvmlite import ir
from numba import cuda, types
from numba.extending import intrinsic

from ladder.gpu import SIMULATED

# Lanes in a warp, and warps in a block; simulated ones are slow.
WARP, WARPS = (8, 2) if SIMULATED else (32, 8)


@cuda.jit(device=True)
def add_partner(sums, count, start, bit):
    """Add to sums[:count] what the partner, lane ^ bit, has in sums[start : start + count]."""
    for n in range(count):
        sums[n] += cuda.shfl_xor_sync(0xFFFFFFFF, sums[start + n], bit)


@cuda.jit(device=True)
def warp_sum(sums, count, lanes):
    """Add up sums[:count] over groups of ``lanes`` neighbouring lanes, in place, in each of them."""
    bit = lanes // 2
    while bit:
        add_partner(sums, count, 0, bit)
        bit //= 2


@intrinsic(prefer_literal=True)
def load(typingctx, floats, start, width):
    """Return floats[start : start + width] by one load; start is a multiple of width."""
    size = width.literal_value
    result = types.UniTuple(types.float32, size)

    def codegen(context, builder, signature, args):
        first = args[0]  # an address, or an array
        if isinstance(floats, types.Array):
            first = context.make_array(floats)(context, builder, first).data
        at = builder.gep(first, [args[1]])
        vector = ir.VectorType(ir.FloatType(), size).as_pointer(at.type.addrspace)
        values = builder.load(builder.bitcast(at, vector), align=4 * size)
        items = [builder.extract_element(values, ir.IntType(32)(n)) for n in range(size)]
        return context.make_tuple(builder, result, items)

    return result(floats, types.intp, width), codegen


def emit(builder, code, *pointers):
    """Write PTX, with addresses for $0 and $1, past which no load or store is moved."""
    addresses = [builder.ptrtoint(p, ir.IntType(64)) for p in pointers]
    kind = ir.FunctionType(ir.VoidType(), [address.type for address in addresses])
    operands = "l," * len(addresses) + "~{memory}"
    builder.call(ir.InlineAsm(kind, code, operands, side_effect=True), addresses)


def ptx(code):
    """Return a device function without arguments that is this instruction."""

    @intrinsic
    def instruction(typingctx):
        return types.void(), lambda context, builder, *rest: emit(builder, code)

    return instruction


@intrinsic
def start_copy(typingctx, to, i, floats, j):
    """Start to copy floats[j : j + 4] to to[i : i + 4] in shared memory; 4 divides i and j."""
    spaces = ".reg .u64 s, g; cvta.to.shared.u64 s, $0; cvta.to.global.u64 g, $1;"
    code = f"{{ {spaces} cp.async.cg.shared.global [s], [g], 16; }}"

    def codegen(context, builder, signature, args):
        first = context.make_array(to)(context, builder, args[0]).data
        emit(builder, code, builder.gep(first, [args[1]]), builder.gep(args[2], [args[3]]))

    return types.void(to, types.intp, floats, types.intp), codegen


if SIMULATED:
    from beyond.simulator import add_partner, load, ptx, start_copy  # noqa: F401, F811
