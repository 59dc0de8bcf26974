"""What the lanes of a warp do together, wide loads, asynchronous copies; twins in the simulator.

A warp is 32 threads that run in step; a lane is one of them. Numba's simulator runs each as a
thread of Python and knows none of this: there, warps are smaller, and the twins below take over.
"""

import threading

import numpy as np
from llvmlite import ir
from numba import cuda, types
from numba.extending import intrinsic

from ladder.gpu import SIMULATED

# Lanes in a warp, and warps in a block.
WARP, WARPS = (8, 2) if SIMULATED else (32, 8)


@cuda.jit(device=True)
def warp_sum(sums, count, lanes):
    """Add up sums[:count] over groups of ``lanes`` neighbouring lanes, in place, in each of them."""
    bit = lanes // 2
    while bit:
        add_partner(sums, count, 0, bit)
        bit //= 2


if SIMULATED:
    # One block runs at a time. Each step of a sum has a buffer of its own: in one for all, a lane
    # could overwrite what its partner has yet to read.
    buffers = np.empty((WARP, WARPS, WARP, 40), np.float32)

    def add_partner(sums, count, start, bit):
        thread = threading.current_thread()
        lane, buffer = thread.threadIdx.x, buffers[bit, thread.threadIdx.y]
        buffer[lane, :count] = sums[start : start + count]
        thread.syncthreads()
        sums[:count] += buffer[lane ^ bit, :count]

    def load(floats, start, width):
        return tuple(floats[start : start + width])

    def start_copy(to, i, floats, j):
        to[i : i + 4] = floats[j : j + 4]

    def ptx(code):
        return lambda: None

else:

    @cuda.jit(device=True)
    def add_partner(sums, count, start, bit):
        """Add to sums[:count] what the partner, lane ^ bit, has in sums[start : start + count]."""
        for n in range(count):
            sums[n] += cuda.shfl_xor_sync(0xFFFFFFFF, sums[start + n], bit)

    def pointer(context, builder, kind, value, index):
        """Return LLVM's pointer to item ``index`` of an array, or past an address."""
        if isinstance(kind, types.Array):
            value = context.make_array(kind)(context, builder, value).data
        return builder.gep(value, [index])

    def emit(builder, code, *pointers):
        """Write PTX, with 64-bit addresses for $0, $1; no load or store moves past it."""
        numbers = [builder.ptrtoint(p, ir.IntType(64)) for p in pointers]
        kind = ir.FunctionType(ir.VoidType(), [number.type for number in numbers])
        operands = ",".join(["l"] * len(numbers) + ["~{memory}"])
        builder.call(ir.InlineAsm(kind, code, operands, side_effect=True), numbers)

    @intrinsic(prefer_literal=True)
    def load(typingctx, floats, start, width):
        """Return floats[start : start + width] by one load; start is a multiple of width."""
        size = width.literal_value
        result = types.UniTuple(types.float32, size)

        def codegen(context, builder, signature, args):
            at = pointer(context, builder, floats, *args[:2])
            vector = ir.VectorType(ir.FloatType(), size).as_pointer(at.type.addrspace)
            values = builder.load(builder.bitcast(at, vector), align=4 * size)
            items = [builder.extract_element(values, ir.IntType(32)(n)) for n in range(size)]
            return context.make_tuple(builder, result, items)

        return result(floats, types.intp, width), codegen

    @intrinsic
    def start_copy(typingctx, to, i, floats, j):
        """Start to copy floats[j : j + 4] to to[i : i + 4] in shared memory; 4 divides i and j."""
        code = (
            "{ .reg .u64 s, g; cvta.to.shared.u64 s, $0; cvta.to.global.u64 g, $1;"
            " cp.async.cg.shared.global [s], [g], 16; }"
        )

        def codegen(context, builder, signature, args):
            target = pointer(context, builder, to, *args[:2])
            emit(builder, code, target, pointer(context, builder, floats, *args[2:]))

        return types.void(to, types.intp, floats, types.intp), codegen

    def ptx(code):
        """Return a device function without arguments that is this PTX."""

        @intrinsic
        def instruction(typingctx):
            return types.void(), lambda context, builder, *rest: emit(builder, code)

        return instruction
