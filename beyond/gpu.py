"""Past the course on the GPU: from the course's kernel towards the rate of its memory.

The full shape reads 157 MB for 0.78 GFLOP, so memory is the limit. In the course's kernel,
neighbouring threads read different rows of a, and 6 of 16 columns are idle. Each rung here
adds one idea; docs/gpu.md says what each of them reads and writes.
"""

import math
from functools import cache

import numba
import numpy as np
from llvmlite import ir
from numba import cuda, float32, types
from numba.extending import intrinsic

from ladder.gpu import current_stream, device_array
from ladder.rungs import rung

# Lanes (threads) in a warp, and warps in a block; fewer where each is a thread of Python.
WARP, WARPS = (8, 2) if numba.config.ENABLE_CUDASIM else (32, 8)
ROWS, COLS = 4, 10
TILE = ROWS * COLS

# ---- What only a GPU runs, and its twins in the simulator --------------------------

if numba.config.ENABLE_CUDASIM:
    two_blocks = {}
    # One block runs at a time. A step of a sum has its own bit, and so its own mailbox.
    mailbox = np.empty((WARP, WARPS, WARP, TILE), np.float32)

    @cuda.jit(device=True)
    def add_partner(sums, count, start, bit):
        lane, box = cuda.threadIdx.x, mailbox[bit, cuda.threadIdx.y]
        box[lane, :count] = sums[start : start + count]
        cuda.syncthreads()
        sums[:count] += box[lane ^ bit, :count]

    def load(array, start, width):
        return tuple(array.reshape(-1)[start : start + width])

    def resident_blocks(kernel, device, shared):
        return 2 if shared <= 48 * 1024 else 0

else:
    # Of a multiprocessor's 65,536 registers, as many for a thread as let two blocks in.
    two_blocks = {"max_registers": 65_536 // (2 * WARPS * WARP)}

    @cuda.jit(device=True)
    def add_partner(sums, count, start, bit):
        """Add to sums[:count] what the partner, lane ^ bit, has in sums[start : start + count]."""
        for n in range(count):
            sums[n] += cuda.shfl_xor_sync(0xFFFFFFFF, sums[start + n], bit)

    @intrinsic(prefer_literal=True)
    def load(typingctx, array, start, width):
        """Return ``width`` floats of a contiguous array by one load, from the start-th on: a
        multiple of ``width``."""
        size = width.literal_value
        floats = types.UniTuple(types.float32, size)

        def codegen(context, builder, signature, args):
            ary = context.make_array(array)(context, builder, args[0])
            item = builder.gep(ary.data, [args[1]])
            vector = ir.VectorType(ir.FloatType(), size).as_pointer(item.type.addrspace)
            values = builder.load(builder.bitcast(item, vector), align=4 * size)
            items = [builder.extract_element(values, ir.IntType(32)(n)) for n in range(size)]
            return context.make_tuple(builder, floats, items)

        return floats(array, types.intp, width), codegen

    @cache
    def resident_blocks(kernel, device, shared):
        """Return how many blocks with ``shared`` bytes each ``device``, the current one, holds."""
        compiled, gpu = kernel.compile((float32[:, ::1],) * 3), cuda.get_current_device()
        most = gpu.MAX_SHARED_MEMORY_PER_BLOCK_OPTIN
        if shared > most:
            return 0
        if shared > 48 * 1024:  # a block gets no more without asking
            from numba.cuda.cudadrv.driver import binding, driver

            name = binding.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
            driver.cuKernelSetAttribute(name, most, compiled.library.get_cufunc().handle, gpu.id)
        return compiled.max_cooperative_grid_blocks((WARP, WARPS), shared)


# ---- The rungs ---------------------------------------------------------------------


def launch_warps(kernel, a, b, rows=1, columns=0):
    """Return c = a @ b from a kernel whose warps take ``rows`` rows of c at a time.

    If blocks keep ``columns`` columns of b in shared memory, as many as the GPU holds at once
    walk over c, or `coalesced_kernel` does the work if none fits. Otherwise blocks cover c.
    """
    a, b = a.contiguous(), b.contiguous()
    if not (a.numel() and b.numel()):
        return a.new_zeros(len(a), b.shape[1])
    c = a.new_empty(len(a), b.shape[1])
    blocks, shared = math.ceil(len(a) / (WARPS * rows)), 4 * columns * len(b)
    with current_stream(a) as stream:
        if shared:
            blocks = min(blocks, resident_blocks(kernel, a.device, shared))
        if not blocks:
            return launch_warps(coalesced_kernel, a, b)
        kernel[blocks, (WARP, WARPS), stream, shared](*map(device_array, (a, b, c)))
    return c


@cuda.jit(device=True)
def warp_sum(sums, count, lanes):
    """Add up sums[:count] over groups of ``lanes`` neighbouring lanes, in place, in each of them."""
    bit = lanes // 2
    while bit:
        add_partner(sums, count, 0, bit)
        bit //= 2


@cuda.jit
def coalesced_kernel(a, b, c):
    """A warp for each row of c; its lanes read neighbouring k."""
    lane, i = cuda.threadIdx.x, cuda.blockIdx.x * WARPS + cuda.threadIdx.y
    row = i if i < c.shape[0] else 0
    tmp = cuda.local.array(1, float32)
    for j in range(c.shape[1]):
        tmp[0] = 0
        for k in range(lane, a.shape[1], WARP):
            tmp[0] += a[row, k] * b[k, j]
        warp_sum(tmp, 1, WARP)
        if lane == 0 and i < c.shape[0]:
            c[i, j] = tmp[0]


@rung(device="cuda")
def matmul_cuda_coalesced(a, b):
    """A warp to a row: its 32 lanes read 128 neighbouring bytes of a at once; float32 sums."""
    return launch_warps(coalesced_kernel, a, b)


@cuda.jit(device=True)
def share_columns(b, first, columns):
    """Copy b[:, first : first + COLS], transposed, to shared memory; b's first for those it lacks."""
    cuda.syncthreads()
    # A thread takes a row of b: a warp stores 32 neighbouring k, to 32 banks.
    for k in range(cuda.threadIdx.y * WARP + cuda.threadIdx.x, b.shape[0], WARPS * WARP):
        for j in range(COLS):
            columns[j * b.shape[0] + k] = b[k, first + j if first + j < b.shape[1] else 0]
    cuda.syncthreads()


@cuda.jit(**two_blocks)
def shared_kernel(a, b, c):
    """Ten columns of b in each block's shared memory; a warp walks over rows of c."""
    lane, k_size = cuda.threadIdx.x, a.shape[1]
    columns = cuda.shared.array(0, float32)
    tmp = cuda.local.array(1, float32)
    for first in range(0, c.shape[1], COLS):
        share_columns(b, first, columns)
        for start in range(cuda.blockIdx.x * WARPS, c.shape[0], cuda.gridDim.x * WARPS):
            i = start + cuda.threadIdx.y
            row = i if i < c.shape[0] else 0
            for j in range(COLS):
                tmp[0] = 0
                for k in range(lane, k_size, WARP):
                    tmp[0] += a[row, k] * columns[j * k_size + k]
                warp_sum(tmp, 1, WARP)
                if lane == 0 and i < c.shape[0] and first + j < c.shape[1]:
                    c[i, first + j] = tmp[0]


@rung(device="cuda")
def matmul_cuda_shared(a, b):
    """b in shared memory (31 KB): each block reads it once, not once for every row."""
    return launch_warps(shared_kernel, a, b, 1, COLS)


def tiles(width, store):
    """Return a kernel whose warps take 4 rows of c at a time: 4 x 10 sums in each lane.

    A lane loads ``width`` neighbouring k at once. ``store`` adds up the sums of all lanes.
    """

    @cuda.jit(**two_blocks)
    def kernel(a, b, c):
        lane, k_size, step = cuda.threadIdx.x, a.shape[1], WARPS * ROWS
        columns = cuda.shared.array(0, float32)
        sums = cuda.local.array(TILE, float32)
        x = cuda.local.array((ROWS, width), float32)
        for first in range(0, c.shape[1], COLS):
            share_columns(b, first, columns)
            for start in range(cuda.blockIdx.x * step, c.shape[0], cuda.gridDim.x * step):
                i = start + cuda.threadIdx.y * ROWS
                for n in range(TILE):
                    sums[n] = 0
                for k in range(width * lane, k_size, width * WARP):
                    for r in range(ROWS):
                        row = i + r if i + r < c.shape[0] else 0
                        values = load(a, row * k_size + k, width)
                        for n in range(width):
                            x[r, n] = values[n]
                    for j in range(COLS):
                        y = load(columns, j * k_size + k, width)
                        for r in range(ROWS):
                            for n in range(width):
                                sums[r * COLS + j] += x[r, n] * y[n]
                store(sums, c, i, first)

    return kernel


@cuda.jit(device=True)
def store_tile(sums, c, i, first):
    """Lane 0 writes all sums, to c[i : i + ROWS, first : first + COLS] as far as that exists."""
    warp_sum(sums, TILE, WARP)
    if cuda.threadIdx.x == 0:
        for r in range(ROWS):
            for j in range(COLS):
                if i + r < c.shape[0] and first + j < c.shape[1]:
                    c[i + r, first + j] = sums[r * COLS + j]


tile_kernel = tiles(1, store_tile)


@rung(device="cuda")
def matmul_cuda_tile(a, b):
    """A register tile: 4 x 10 sums in a lane, so that a is read once, and b for 4 rows at once."""
    return launch_warps(tile_kernel, a, b, ROWS, COLS)


vector_kernel = tiles(4, store_tile)


def launch_vectors(kernel, a, b):
    """`launch_warps` for 128-bit loads: rows begin at 16 n bytes, or else the tile does the work."""
    a = a.contiguous()
    aligned = a.shape[1] % 4 == 0 and a.data_ptr() % 16 == 0
    return launch_warps(kernel if aligned else tile_kernel, a, b, ROWS, COLS)


@rung(device="cuda")
def matmul_cuda_vector(a, b):
    """128-bit loads: a quarter of the load instructions, and four times the bytes under way."""
    return launch_vectors(vector_kernel, a, b)


@cuda.jit(device=True)
def halve(sums, half, bit):
    """Keep one half of sums[: 2 * half], and the partner the other; add up what both had of it."""
    upper = cuda.threadIdx.x & bit
    for n in range(half):
        low, high = sums[n], sums[half + n]
        sums[n], sums[half + n] = (high, low) if upper else (low, high)
    add_partner(sums, half, half, bit)


@cuda.jit(device=True)
def store_shares(sums, c, i, first):
    """8 lanes end up with half a row of the tile each, 5 sums, and write them."""
    halve(sums, TILE // 2, WARP // 2)
    halve(sums, TILE // 4, WARP // 4)
    halve(sums, TILE // 8, WARP // 8)
    warp_sum(sums, TILE // 8, WARP // 8)
    share, other = divmod(cuda.threadIdx.x, WARP // 8)
    row, column = i + share // 2, first + share % 2 * (COLS // 2)
    if other == 0 and row < c.shape[0]:
        for n in range(TILE // 8):
            if column + n < c.shape[1]:
                c[row, column + n] = sums[n]


reduce_kernel = tiles(4, store_shares)


@rung(device="cuda")
def matmul_cuda_reduce(a, b):
    """Lanes share the sums out as they add them up: 45 shuffles for 40 sums, where it took 200."""
    return launch_vectors(reduce_kernel, a, b)
