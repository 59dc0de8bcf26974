"""A register tile: each lane has sums for 4 rows and 10 columns, so that a load serves several."""

from numba import cuda, float32

from beyond.gpu.coalesced import matmul_cuda_coalesced
from beyond.gpu.resident import COLS, Resident
from beyond.gpu.shared import copy_columns
from beyond.gpu.warp import WARP, WARPS, checked, kernel, warp_sums
from ladder.rungs import rung

ROWS = 4  # of c, that a warp computes at a time
TILE = ROWS * COLS  # sums of a lane: sums[r * COLS + j] is that of row r, column j


@kernel(warps=WARPS, blocks=2)
def tile_kernel(a, b, c, m_size, k_size, n_size):
    """`shared_kernel`, but a warp takes four rows of c at a time: 4 x 10 sums in each lane."""
    lane, warp = cuda.threadIdx.x, cuda.threadIdx.y
    first = cuda.blockIdx.x * COLS
    columns = checked(cuda.shared.array(0, float32))
    copy_columns(b, k_size, n_size, first, columns, warp * WARP + lane, cuda.blockDim.y * WARP)
    cuda.syncthreads()
    sums = cuda.local.array(TILE, float32)
    x = cuda.local.array(ROWS, float32)
    step = WARPS * ROWS
    for start in range(cuda.blockIdx.y * step, m_size, cuda.gridDim.y * step):
        i = start + warp * ROWS
        for n in range(TILE):
            sums[n] = 0
        for k in range(lane, k_size, WARP):
            for r in range(ROWS):
                row = i + r if i + r < m_size else 0
                x[r] = a[row * k_size + k]
            for j in range(COLS):
                y = columns[j * k_size + k]
                for r in range(ROWS):
                    sums[r * COLS + j] += x[r] * y
        warp_sums(sums, TILE, WARP)
        if lane == 0:
            store_tile(sums, c, m_size, n_size, i, first)


@cuda.jit(device=True)
def store_tile(sums, c, m_size, n_size, i, first):
    """c[i : i + ROWS, first : first + COLS] = sums, as far as that is within c."""
    for r in range(ROWS):
        for j in range(COLS):
            if i + r < m_size and first + j < n_size:
                c[(i + r) * n_size + first + j] = sums[r * COLS + j]


tile = Resident(tile_kernel, otherwise=matmul_cuda_coalesced, rows=ROWS)


@rung(device="cuda", same_as=tile.same_as)
def matmul_cuda_tile(a, b):
    """A register tile: 4 x 10 sums in a lane, so that a is read once, and b for 4 rows at once."""
    return tile.multiply(a, b)
