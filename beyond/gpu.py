"""Past the course on the GPU: from the course's kernel to the rate of the GPU's memory.

The full shape reads 157 MB for 0.78 GFLOP: memory is the limit. A kernel here takes addresses,
a[i * k_size + k] is row i, column k. Each adds one idea; docs/gpu.md explains its words, and
says what each reads and what was measured. Times below are of an H200.
"""

import math

from numba import cuda, float32

from beyond.launch import has_ampere, launch, resident_blocks
from beyond.warp import WARP, WARPS, add_partner, load, ptx, start_copy, warp_sum
from kernels import TPB
from ladder.gpu import SIMULATED
from ladder.rungs import rung


@cuda.jit
def cell_kernel(a, b, c, m_size, k_size, n_size):
    """The course's kernel: a thread for each cell of c; tmp is a float64."""
    i, j = cuda.grid(2)
    if i < m_size and j < n_size:
        tmp = 0.0
        for k in range(k_size):
            tmp += a[i * k_size + k] * b[k * n_size + j]
        c[i * n_size + j] = tmp


@rung(device="cuda")
def matmul_cuda_launch(a, b):
    """The course's kernel, launched by addresses: 12 µs of the host in a prototype, by Numba 190."""
    blocks = math.ceil(a.shape[0] / TPB), math.ceil(b.shape[1] / TPB)
    return launch(cell_kernel, a, b, blocks, (TPB, TPB))


@cuda.jit
def coalesced_kernel(a, b, c, m_size, k_size, n_size):
    """A warp for each row of c; its lanes read neighbouring k."""
    lane, i = cuda.threadIdx.x, cuda.blockIdx.x * WARPS + cuda.threadIdx.y
    row = i if i < m_size else 0  # past the last, too: every lane takes part in the shuffles
    tmp = cuda.local.array(1, float32)
    for j in range(n_size):
        tmp[0] = 0
        for k in range(lane, k_size, WARP):
            tmp[0] += a[row * k_size + k] * b[k * n_size + j]
        warp_sum(tmp, 1, WARP)
        if lane == 0 and i < m_size:
            c[i * n_size + j] = tmp[0]


@rung(device="cuda")
def matmul_cuda_coalesced(a, b):
    """A warp to a row, its 32 lanes read 128 neighbouring bytes: 5 rows take 23 µs, not 52.
    The full shape takes as long as before: the L1 cache served the course's reads, too."""
    return launch(coalesced_kernel, a, b, math.ceil(a.shape[0] / WARPS), (WARP, WARPS))


ROWS, COLS, TILE = 4, 10, 40
# Two blocks of 256 threads share a multiprocessor's 65,536 registers: 128 for each thread.
TWO_BLOCKS = {} if SIMULATED else {"launch_bounds": (WARPS * WARP, 2)}


@cuda.jit(device=True)
def share_columns(b, k_size, n_size, first, columns):
    """Copy ten columns of b, transposed, to shared memory; past the last, the first again."""
    # A thread takes a row of b: a warp stores 32 neighbouring k, to 32 banks.
    thread, threads = cuda.threadIdx.y * WARP + cuda.threadIdx.x, cuda.blockDim.y * WARP
    for k in range(thread, k_size, threads):
        for j in range(COLS):
            column = first + j if first + j < n_size else 0
            columns[j * k_size + k] = b[k * n_size + column]
    cuda.syncthreads()


@cuda.jit(**TWO_BLOCKS)
def shared_kernel(a, b, c, m_size, k_size, n_size):
    """Blocks walk over the rows of c, a warp to a row, for the ten columns that they keep."""
    lane, first = cuda.threadIdx.x, cuda.blockIdx.x * COLS
    columns = cuda.shared.array(0, float32)
    tmp = cuda.local.array(1, float32)
    share_columns(b, k_size, n_size, first, columns)
    for start in range(cuda.blockIdx.y * WARPS, m_size, cuda.gridDim.y * WARPS):
        i = start + cuda.threadIdx.y
        row = i if i < m_size else 0
        for j in range(COLS):
            tmp[0] = 0
            for k in range(lane, k_size, WARP):
                tmp[0] += a[row * k_size + k] * columns[j * k_size + k]
            warp_sum(tmp, 1, WARP)
            if lane == 0 and i < m_size and first + j < n_size:
                c[i * n_size + first + j] = tmp[0]


def launch_resident(kernel, a, b, rows, instead, width=1, warps=WARPS, more=0):
    """Return c = a @ b from as many blocks as the GPU holds at once, ``rows`` rows to a warp at a time.
    Each keeps ten columns of b, and ``more`` bytes, in shared memory. Where that doesn't fit, or
    a's rows don't begin at multiples of ``width`` floats, the rung ``instead`` computes c."""
    a, (m, k), n = a.contiguous(), a.shape, b.shape[1]
    threads, shared = (WARP, warps), 4 * COLS * k + more
    resident = resident_blocks(kernel, a.get_device(), threads, shared)
    if not resident or k % width or a.data_ptr() % (4 * width):
        return instead(a, b)
    blocks = math.ceil(n / COLS), min(resident, math.ceil(m / (warps * rows)))
    return launch(kernel, a, b, blocks, threads, shared)


@rung(device="cuda")
def matmul_cuda_shared(a, b):
    """b in shared memory (31 KB), read once by a block, not for every row: 5 rows take 17 µs.
    Nothing on the full shape: a is still read ten times, once for each column."""
    return launch_resident(shared_kernel, a, b, 1, matmul_cuda_coalesced)


def multiply_adds(width):
    """Return the device function that multiplies 4 rows and 10 columns at ``width`` k each."""

    @cuda.jit(device=True)
    def multiply_add(x, columns, k, k_size, sums):
        for j in range(COLS):
            y = load(columns, j * k_size + k, width)
            for r in range(ROWS):
                for n in range(width):
                    sums[r * COLS + j] += x[r, n] * y[n]

    return multiply_add


def tiles(width, store):
    """Return a kernel whose warps take 4 rows of c at a time: 4 x 10 sums in each lane. A lane
    loads ``width`` neighbouring k at once, and ``store`` adds up the sums of all lanes."""
    multiply_add = multiply_adds(width)

    @cuda.jit(**TWO_BLOCKS)
    def kernel(a, b, c, m_size, k_size, n_size):
        lane, first, step = cuda.threadIdx.x, cuda.blockIdx.x * COLS, WARPS * ROWS
        columns = cuda.shared.array(0, float32)
        sums = cuda.local.array(TILE, float32)
        x = cuda.local.array((ROWS, width), float32)
        share_columns(b, k_size, n_size, first, columns)
        for start in range(cuda.blockIdx.y * step, m_size, cuda.gridDim.y * step):
            i = start + cuda.threadIdx.y * ROWS
            for n in range(TILE):
                sums[n] = 0
            for k in range(width * lane, k_size, width * WARP):
                for r in range(ROWS):
                    row = i + r if i + r < m_size else 0
                    values = load(a, row * k_size + k, width)
                    for n in range(width):
                        x[r, n] = values[n]
                multiply_add(x, columns, k, k_size, sums)
            store(sums, c, m_size, n_size, i, first)

    return kernel


@cuda.jit(device=True)
def store_tile(sums, c, m_size, n_size, i, first):
    """Lane 0 writes all sums, to c[i : i + ROWS, first : first + COLS] as far as that exists."""
    warp_sum(sums, TILE, WARP)
    if cuda.threadIdx.x == 0:
        for r in range(ROWS):
            for j in range(COLS):
                if i + r < m_size and first + j < n_size:
                    c[(i + r) * n_size + first + j] = sums[r * COLS + j]


tile_kernel = tiles(1, store_tile)


@rung(device="cuda")
def matmul_cuda_tile(a, b):
    """A register tile: 4 x 10 sums in a lane, so that a is read once, and b for 4 rows at once."""
    return launch_resident(tile_kernel, a, b, ROWS, matmul_cuda_coalesced)


vector_kernel = tiles(4, store_tile)


@rung(device="cuda")
def matmul_cuda_vector(a, b):
    """128-bit loads: a quarter of the load instructions, and four times the bytes under way."""
    return launch_resident(vector_kernel, a, b, ROWS, matmul_cuda_tile, 4)


@cuda.jit(device=True)
def exchange(sums, half, bit):
    """Of sums[: 2 * half], keep one half, and the partner the other; add the partner's copy of it."""
    upper = cuda.threadIdx.x & bit
    for n in range(half):
        low, high = sums[n], sums[half + n]
        sums[n], sums[half + n] = (high, low) if upper else (low, high)
    add_partner(sums, half, half, bit)


@cuda.jit(device=True)
def reduce_scatter(sums, c, m_size, n_size, i, first):
    """A reduce-scatter: 8 lanes end up with 5 sums each, half a row of the tile, and write them."""
    exchange(sums, TILE // 2, WARP // 2)
    exchange(sums, TILE // 4, WARP // 4)
    exchange(sums, TILE // 8, WARP // 8)
    warp_sum(sums, TILE // 8, WARP // 8)
    share, other = divmod(cuda.threadIdx.x, WARP // 8)
    row, column = i + share // 2, first + share % 2 * (COLS // 2)
    if other == 0 and row < m_size:
        for n in range(TILE // 8):
            if column + n < n_size:
                c[row * n_size + column + n] = sums[n]


reduce_kernel = tiles(4, reduce_scatter)


@rung(device="cuda")
def matmul_cuda_reduce(a, b):
    """Lanes exchange halves of their sums as they add them up: 45 shuffles, where it took 200."""
    return launch_resident(reduce_kernel, a, b, ROWS, matmul_cuda_tile, 4)


MORE_WARPS = 2 if SIMULATED else 16
ONE_BLOCK = {} if SIMULATED else {"launch_bounds": (MORE_WARPS * WARP, 1)}
STAGES, AHEAD = 3, 2  # a warp multiplies what is in one stage, while two are being filled
STAGE = ROWS * WARP * 4  # floats: four neighbouring k of four rows for each lane
multiply_add4 = multiply_adds(4)
close_group, wait_for_oldest = ptx("cp.async.commit_group;"), ptx(f"cp.async.wait_group {AHEAD};")


@cuda.jit(device=True)
def start_copies(a, m_size, k_size, start, k_start, shared, stage):
    """Start to fill the lane's part of a stage, as one group; return what the next one begins with."""
    i, k = start + cuda.threadIdx.y * ROWS, k_start + 4 * cuda.threadIdx.x
    if start < m_size and k < k_size:
        for r in range(ROWS):
            row = i + r if i + r < m_size else 0
            start_copy(shared, stage + r * WARP * 4, a, row * k_size + k)
    close_group()
    k_start += 4 * WARP
    if k_start < k_size:
        return start, k_start
    return start + cuda.gridDim.y * MORE_WARPS * ROWS, 0


@cuda.jit(**ONE_BLOCK)
def async_kernel(a, b, c, m_size, k_size, n_size):
    """`reduce_kernel` with a in shared memory: each lane copies there what it will multiply."""
    lane, first, step = cuda.threadIdx.x, cuda.blockIdx.x * COLS, MORE_WARPS * ROWS
    shared = cuda.shared.array(0, float32)  # ten columns of b, then the stages of each warp
    stages = COLS * k_size + cuda.threadIdx.y * STAGES * STAGE + 4 * lane
    sums = cuda.local.array(TILE, float32)
    x = cuda.local.array((ROWS, 4), float32)
    ahead, k_ahead = cuda.blockIdx.y * step, 0
    for s in range(AHEAD):  # so that memory is busy while b is shared
        at = stages + s * STAGE
        ahead, k_ahead = start_copies(a, m_size, k_size, ahead, k_ahead, shared, at)
    share_columns(b, k_size, n_size, first, shared)
    stage = 0
    for start in range(cuda.blockIdx.y * step, m_size, cuda.gridDim.y * step):
        for n in range(TILE):
            sums[n] = 0
        for k_start in range(0, k_size, 4 * WARP):
            at = stages + (stage - STAGE if stage else AHEAD * STAGE)
            ahead, k_ahead = start_copies(a, m_size, k_size, ahead, k_ahead, shared, at)
            wait_for_oldest()
            k = k_start + 4 * lane
            if k < k_size:
                for r in range(ROWS):
                    values = load(shared, stages + stage + r * WARP * 4, 4)
                    for n in range(4):
                        x[r, n] = values[n]
                multiply_add4(x, shared, k, k_size, sums)
            stage = stage + STAGE if stage < AHEAD * STAGE else 0
        reduce_scatter(sums, c, m_size, n_size, start + cuda.threadIdx.y * ROWS, first)


@rung(device="cuda")
def matmul_cuda_async(a, b):
    """Asynchronous copies (cp.async): two steps ahead, a comes to shared memory, and no lane waits."""
    if not has_ampere(a.get_device()):
        return matmul_cuda_reduce(a, b)
    more = 4 * MORE_WARPS * STAGES * STAGE
    return launch_resident(async_kernel, a, b, ROWS, matmul_cuda_reduce, 4, MORE_WARPS, more)
