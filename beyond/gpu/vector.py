"""128-bit loads: a lane reads four neighbouring floats by one instruction."""

from numba import cuda, float32

from beyond.gpu.resident import COLS, Resident
from beyond.gpu.shared import copy_columns
from beyond.gpu.tile import ROWS, TILE, matmul_cuda_tile, store_tile
from beyond.gpu.warp import WARP, WARPS, checked, kernel, load_4, warp_sums
from ladder.rungs import rung


@kernel(warps=WARPS, blocks=2)
def vector_kernel(a, b, c, m_size, k_size, n_size):
    """`tile_kernel`, but a lane takes four neighbouring k at a time."""
    lane, warp = cuda.threadIdx.x, cuda.threadIdx.y
    first = cuda.blockIdx.x * COLS
    columns = checked(cuda.shared.array(0, float32))
    copy_columns(b, k_size, n_size, first, columns, warp * WARP + lane, cuda.blockDim.y * WARP)
    cuda.syncthreads()
    sums = cuda.local.array(TILE, float32)
    x = cuda.local.array((ROWS, 4), float32)
    step = WARPS * ROWS
    for start in range(cuda.blockIdx.y * step, m_size, cuda.gridDim.y * step):
        i = start + warp * ROWS
        multiply_rows(a, columns, i, m_size, k_size, lane, x, sums)
        warp_sums(sums, TILE, WARP)
        if lane == 0:
            store_tile(sums, c, m_size, n_size, i, first)


@cuda.jit(device=True, inline="always")  # and so what depends on i alone is computed once
def multiply_rows(a, columns, i, m_size, k_size, lane, x, sums):
    """sums = a[i : i + ROWS] @ columns, but of every 32nd group of four k, from the lane's own on.

    x, (ROWS, 4), is what the lane has loaded of a.
    """
    for n in range(TILE):
        sums[n] = 0
    for k in range(4 * lane, k_size, 4 * WARP):
        for r in range(ROWS):
            row = i + r if i + r < m_size else 0
            values = load_4(a, row * k_size + k)
            for n in range(4):
                x[r, n] = values[n]
        multiply_add_4(x, columns, k, k_size, sums)


@cuda.jit(device=True)
def multiply_add_4(x, columns, k, k_size, sums):
    """sums += x @ columns[k : k + 4], where x is (ROWS, 4)."""
    for j in range(COLS):
        y = load_4(columns, j * k_size + k)
        for r in range(ROWS):
            for n in range(4):
                sums[r * COLS + j] += x[r, n] * y[n]


vector = Resident(vector_kernel, otherwise=matmul_cuda_tile, rows=ROWS, width=4)


@rung(device="cuda", same_as=vector.same_as)
def matmul_cuda_vector(a, b):
    """128-bit loads: a quarter of the load instructions, and four times the bytes under way."""
    return vector.multiply(a, b)
