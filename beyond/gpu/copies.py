"""Asynchronous copies: a comes to shared memory while the lanes multiply what came before.

A lane multiplies 4 rows x 4 floats of a in a step. It copies them itself, two steps ahead, into one
of three stages, which it uses in turns:

    step          0  1  2  3  4  5
    multiplies    0  1  2  0  1  2    from this stage
    copies to     2  0  1  2  0  1    for the step after the next: into the stage before, which is
                                      the one that was multiplied in the step before

So a copy has two steps' time, and no lane waits for another: what a lane copies, it reads itself.
"""

from numba import cuda, float32

from beyond.gpu.reduce import matmul_cuda_reduce, reduce_scatter, store_share
from beyond.gpu.resident import COLS, Resident
from beyond.gpu.shared import copy_columns
from beyond.gpu.tile import ROWS, TILE
from beyond.gpu.vector import multiply_add_4
from beyond.gpu.warp import (
    WARP,
    WARPS,
    checked,
    commit_group,
    kernel,
    load_4,
    start_copy_4,
    wait_group,
)
from ladder.rungs import rung

MORE_WARPS = 2 * WARPS  # in a block; fewer wouldn't keep memory busy
STAGES, AHEAD = 3, 2
STAGE = ROWS * WARP * 4  # floats of a stage, for all lanes of a warp
STEP = 4 * WARP  # k of a step, for all lanes


@kernel(warps=MORE_WARPS, blocks=1)
def async_kernel(a, b, c, m_size, k_size, n_size):
    """`reduce_kernel` with a in shared memory: each lane copies there what it will multiply."""
    lane, warp = cuda.threadIdx.x, cuda.threadIdx.y
    first = cuda.blockIdx.x * COLS
    # Shared memory: ten columns of b, then the stages of each warp.
    shared = checked(cuda.shared.array(0, float32))
    stages = COLS * k_size + warp * STAGES * STAGE + 4 * lane  # where the lane's part begins
    sums = cuda.local.array(TILE, float32)
    x = cuda.local.array((ROWS, 4), float32)
    first_rows, step = cuda.blockIdx.y * MORE_WARPS * ROWS, cuda.gridDim.y * MORE_WARPS * ROWS

    copied, k_copied = first_rows, 0  # the rows of the block and the k that are copied next
    for s in range(AHEAD):  # so that memory is busy while b is copied
        start_copies(a, copied, k_copied, m_size, k_size, shared, stages + s * STAGE)
        copied, k_copied = next_step(copied, k_copied, k_size, step)
    copy_columns(b, k_size, n_size, first, shared, warp * WARP + lane, cuda.blockDim.y * WARP)
    cuda.syncthreads()

    stage = 0
    for start in range(first_rows, m_size, step):
        for n in range(TILE):
            sums[n] = 0
        for k_start in range(0, k_size, STEP):
            free = stage - STAGE  # the stage before, which was multiplied in the step before
            if stage == 0:
                free = AHEAD * STAGE
            start_copies(a, copied, k_copied, m_size, k_size, shared, stages + free)
            copied, k_copied = next_step(copied, k_copied, k_size, step)
            wait_group(AHEAD)
            k = k_start + 4 * lane
            if k < k_size:
                for r in range(ROWS):
                    values = load_4(shared, stages + stage + r * STEP)
                    for n in range(4):
                        x[r, n] = values[n]
                multiply_add_4(x, shared, k, k_size, sums)
            stage = stage + STAGE if stage < AHEAD * STAGE else 0
        reduce_scatter(sums, lane)
        store_share(sums, c, m_size, n_size, start + warp * ROWS, first, lane)


@cuda.jit(device=True)
def start_copies(a, start, k_start, m_size, k_size, shared, stage):
    """Start to copy what the lane multiplies in one step, to shared[stage] and on, as one group.

    The step is the one in which the block begins at row ``start``, and at ``k_start``. Beyond the
    last step, the group is empty, so that there is one for each step.
    """
    i, k = start + cuda.threadIdx.y * ROWS, k_start + 4 * cuda.threadIdx.x
    if start < m_size and k < k_size:
        for r in range(ROWS):
            row = i + r if i + r < m_size else 0
            start_copy_4(shared, stage + r * STEP, a, row * k_size + k)
    commit_group()


@cuda.jit(device=True)
def next_step(start, k_start, k_size, step):
    """Return the rows and the k of the step after this one: further on, or in the next rows."""
    if k_start + STEP < k_size:
        return start, k_start + STEP
    return start + step, 0


copies = Resident(
    async_kernel,
    otherwise=matmul_cuda_reduce,
    rows=ROWS,
    warps=MORE_WARPS,
    width=4,
    more_floats=MORE_WARPS * STAGES * STAGE,
    capability=(8, 0),
)


@rung(device="cuda", same_as=copies.same_as)
def matmul_cuda_async(a, b):
    """Asynchronous copies (cp.async): two steps ahead, a comes to shared memory, and no lane waits."""
    return copies.multiply(a, b)
