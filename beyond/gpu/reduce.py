"""A reduce-scatter: as lanes add up their sums, each keeps fewer of them.

Two lanes have 40 sums each, and 40 totals are wanted. In `warp_sums` each sends all 40 to the other,
and both end up with all totals. Here each keeps one half, and sends the half that the other keeps:

                  lane 0                           lane 16
    has           [ first 20 ][ last 20 ]          [ first 20 ][ last 20 ]
    keeps         [ first 20 ]                                 [ last 20 ]
    sends                     [ last 20 ] -->  <-- [ first 20 ]

In the next step, lanes 8 apart do so with the 20 that they kept, then lanes 4 apart with 10. Lanes 0
to 3 are left with the first 5, lanes 4 to 7 with the next 5, and so on. Five can't be halved: four
neighbouring lanes add them up as before.
"""

from numba import cuda, float32

from beyond.gpu.resident import COLS, Resident
from beyond.gpu.shared import copy_columns
from beyond.gpu.tile import ROWS, TILE, matmul_cuda_tile
from beyond.gpu.vector import multiply_rows
from beyond.gpu.warp import WARP, WARPS, checked, kernel, partner, warp_sums
from ladder.rungs import rung

SHARE = TILE // 8  # sums that a lane has in the end: half a row of the tile


@kernel(warps=WARPS, blocks=2)
def reduce_kernel(a, b, c, m_size, k_size, n_size):
    """`vector_kernel`, but eight lanes write five sums each, where one wrote forty."""
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
        reduce_scatter(sums, lane)
        store_share(sums, c, m_size, n_size, i, first, lane)


@cuda.jit(device=True)
def reduce_scatter(sums, lane):
    """Add up the sums of all lanes; sums[:SHARE] are then a lane's share of the totals."""
    exchange(sums, TILE // 2, WARP // 2, lane)
    exchange(sums, TILE // 4, WARP // 4, lane)
    exchange(sums, TILE // 8, WARP // 8, lane)
    warp_sums(sums, SHARE, WARP // 8)


@cuda.jit(device=True)
def exchange(sums, half, bit, lane):
    """Of 2 * half sums, keep one half and send the other to the lane that differs in ``bit``."""
    upper = lane & bit
    for n in range(half):
        first, last = sums[n], sums[half + n]
        kept, sent = (last, first) if upper else (first, last)
        sums[n] = kept + partner(sent, bit)


@cuda.jit(device=True)
def store_share(sums, c, m_size, n_size, i, first, lane):
    """Write the lane's share: that of lanes 0 to 3 is the first half of row i, and so on."""
    share = lane // (WARP // 8)
    row, column = i + share // 2, first + share % 2 * SHARE
    if lane % (WARP // 8) == 0 and row < m_size:
        for n in range(SHARE):
            if column + n < n_size:
                c[row * n_size + column + n] = sums[n]


reduce = Resident(reduce_kernel, otherwise=matmul_cuda_tile, rows=ROWS, width=4)


@rung(device="cuda", same_as=reduce.same_as)
def matmul_cuda_reduce(a, b):
    """Lanes exchange halves of their sums as they add them up: 45 shuffles, where it took 200."""
    return reduce.multiply(a, b)
