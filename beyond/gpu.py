"""Past the course on the GPU: from the course's kernel towards the rate of its memory.

The full shape reads 157 MB for 0.78 GFLOP, so memory is the limit. In the course's kernel,
neighbouring threads read different rows of a, and 6 of 16 columns are idle.
"""

import math
import threading

import numba
import torch
from llvmlite import ir
from numba import cuda, float32, types
from numba.extending import intrinsic

from rungs import device_array, rung

# Threads in a warp, and warps in a block; fewer where each is a thread of the simulator.
WARP, WARPS = (4, 2) if numba.config.ENABLE_CUDASIM else (32, 8)
ROWS, COLS = 4, 10
TILE = ROWS * COLS

if numba.config.ENABLE_CUDASIM:
    # Twins of the two instructions that the simulator lacks. Of two threads that come to a
    # shared array first, each may get one of its own there: hence the lock.
    first_come = threading.Lock()

    @cuda.jit(device=True)
    def warp_sum(sums):
        with first_come:
            lanes = cuda.shared.array((WARPS, WARP, TILE), float32)
        lane, warp = cuda.threadIdx.x, cuda.threadIdx.y
        lanes[warp, lane, : len(sums)] = sums
        cuda.syncthreads()
        sums[:] = lanes[warp, :, : len(sums)].sum(axis=0)
        cuda.syncthreads()

    def load4(array, start):
        return tuple(array.reshape(-1)[start : start + 4])

else:

    @cuda.jit(device=True)
    def warp_sum(sums):
        """Add up the 1-D array ``sums`` over the 32 threads of a warp, in place, in each of them."""
        for bit in (16, 8, 4, 2, 1):
            for n in range(len(sums)):
                sums[n] += cuda.shfl_xor_sync(0xFFFFFFFF, sums[n], bit)

    @intrinsic
    def load4(typingctx, array, start):
        """Return four floats of a contiguous array, from the start-th on, by one 128-bit load.

        ``start`` counts floats from the array's beginning and is a multiple of 4.
        """

        def codegen(context, builder, signature, args):
            ary = context.make_array(signature.args[0])(context, builder, args[0])
            item = builder.gep(ary.data, [args[1]])
            four = ir.VectorType(ir.FloatType(), 4).as_pointer(item.type.addrspace)
            values = builder.load(builder.bitcast(item, four), align=16)
            lanes = [ir.Constant(ir.IntType(32), n) for n in range(4)]
            items = [builder.extract_element(values, lane) for lane in lanes]
            return context.make_tuple(builder, signature.return_type, items)

        return types.UniTuple(types.float32, 4)(array, types.intp), codegen


def launch_warps(kernel, a, b, rows=1, shared=0):
    """Return c = a @ b from a kernel whose warps take ``rows`` rows of c at a time.

    ``shared`` is how many bytes of shared memory a block needs. A kernel that needs any
    gets as many blocks as the GPU holds at once, and these walk over c; any other gets
    as many as cover c.
    """
    a, b = a.contiguous(), b.contiguous()
    c = a.new_zeros(len(a), b.shape[1])
    if a.numel() and b.numel():
        blocks = math.ceil(len(a) / (WARPS * rows))
        if shared:
            blocks = min(blocks, blocks_at_once(a.device, shared))
        arrays = map(device_array, (a, b, c))
        kernel[blocks, (WARP, WARPS), 0, shared](*arrays)
    return c


def blocks_at_once(device, shared):
    """Return how many blocks with ``shared`` bytes the GPU holds at once; 0 if not even one."""
    if numba.config.ENABLE_CUDASIM:
        return 2 if shared <= 48 * 1024 else 0
    gpu = torch.cuda.get_device_properties(device)
    if shared > gpu.shared_memory_per_block:
        return 0
    by_threads = gpu.max_threads_per_multi_processor // (WARPS * WARP)
    by_memory = gpu.shared_memory_per_multiprocessor // (shared + 1024)
    return gpu.multi_processor_count * min(by_threads, by_memory)


@cuda.jit
def coalesced_kernel(a, b, c):
    """A warp for each row of c; its threads read neighbouring k."""
    lane, i = cuda.threadIdx.x, cuda.blockIdx.x * WARPS + cuda.threadIdx.y
    row = i if i < c.shape[0] else 0
    tmp = cuda.local.array(1, float32)
    for j in range(c.shape[1]):
        tmp[0] = 0
        for k in range(lane, a.shape[1], WARP):
            tmp[0] += a[row, k] * b[k, j]
        warp_sum(tmp)
        if lane == 0 and i < c.shape[0]:
            c[i, j] = tmp[0]


@rung(device="cuda")
def matmul_cuda_coalesced(a, b):
    """A warp to a row: its 32 threads read 128 neighbouring bytes of a at once; float32 sums."""
    return launch_warps(coalesced_kernel, a, b)


@cuda.jit(device=True)
def share_columns(b, first, columns):
    """Copy b[:, first : first + COLS], transposed, to ``columns`` in shared memory; 0 for what b lacks."""
    cuda.syncthreads()
    thread = cuda.threadIdx.y * WARP + cuda.threadIdx.x
    for index in range(thread, COLS * b.shape[0], WARPS * WARP):
        k, j = index // COLS, index % COLS
        columns[j * b.shape[0] + k] = b[k, first + j] if first + j < b.shape[1] else float32(0)
    cuda.syncthreads()


@cuda.jit
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
                warp_sum(tmp)
                if lane == 0 and i < c.shape[0] and first + j < c.shape[1]:
                    c[i, first + j] = tmp[0]


def launch_tiles(kernel, a, b, rows):
    """`launch_warps` with 10 columns of b in shared memory; without it if they don't fit."""
    shared = COLS * len(b) * 4
    if not blocks_at_once(a.device, shared):
        return launch_warps(coalesced_kernel, a, b)
    return launch_warps(kernel, a, b, rows, shared)


@rung(device="cuda")
def matmul_cuda_shared(a, b):
    """b in shared memory (31 KB): each block reads it once, not once for every row."""
    return launch_tiles(shared_kernel, a, b, rows=1)


@cuda.jit(device=True)
def store_tile(sums, c, i, first):
    """Write the sums over the warp to c[i : i + ROWS, first : first + COLS], as far as that exists."""
    warp_sum(sums)
    if cuda.threadIdx.x == 0:
        for r in range(ROWS):
            for j in range(COLS):
                if i + r < c.shape[0] and first + j < c.shape[1]:
                    c[i + r, first + j] = sums[r * COLS + j]


@cuda.jit
def tile_kernel(a, b, c):
    """A warp for 4 rows at a time: 4 x 10 sums in each thread's registers."""
    lane, k_size = cuda.threadIdx.x, a.shape[1]
    columns = cuda.shared.array(0, float32)
    sums = cuda.local.array(TILE, float32)
    step = WARPS * ROWS
    for first in range(0, c.shape[1], COLS):
        share_columns(b, first, columns)
        for start in range(cuda.blockIdx.x * step, c.shape[0], cuda.gridDim.x * step):
            i = start + cuda.threadIdx.y * ROWS
            for n in range(TILE):
                sums[n] = 0
            for k in range(lane, k_size, WARP):
                for r in range(ROWS):
                    x = a[i + r if i + r < c.shape[0] else 0, k]
                    for j in range(COLS):
                        sums[r * COLS + j] += x * columns[j * k_size + k]
            store_tile(sums, c, i, first)


@rung(device="cuda")
def matmul_cuda_tile(a, b):
    """A register tile: 4 x 10 sums in a thread, so that a is read once, and b for 4 rows at once."""
    return launch_tiles(tile_kernel, a, b, ROWS)


@cuda.jit
def vector_kernel(a, b, c):
    """`tile_kernel` with 128-bit loads: each thread takes 4 neighbouring k. K has to be 4 n."""
    lane, k_size = cuda.threadIdx.x, a.shape[1]
    columns = cuda.shared.array(0, float32)
    sums = cuda.local.array(TILE, float32)
    step = WARPS * ROWS
    for first in range(0, c.shape[1], COLS):
        share_columns(b, first, columns)
        for start in range(cuda.blockIdx.x * step, c.shape[0], cuda.gridDim.x * step):
            i = start + cuda.threadIdx.y * ROWS
            for n in range(TILE):
                sums[n] = 0
            for k in range(4 * lane, k_size, 4 * WARP):
                for r in range(ROWS):
                    row = i + r if i + r < c.shape[0] else 0
                    x = load4(a, row * k_size + k)
                    for j in range(COLS):
                        y = load4(columns, j * k_size + k)
                        for n in range(4):
                            sums[r * COLS + j] += x[n] * y[n]
            store_tile(sums, c, i, first)


@rung(device="cuda")
def matmul_cuda_vector(a, b):
    """128-bit loads: a quarter of the load instructions. Needs rows at 16 n bytes, else it is the tile."""
    a = a.contiguous()
    aligned = a.shape[1] % 4 == 0 and a.data_ptr() % 16 == 0
    return launch_tiles(vector_kernel if aligned else tile_kernel, a, b, ROWS)
