"""The course's kernel, but launched by addresses."""

import math

from numba import cuda

from beyond.gpu.addresses import launch
from kernels import TPB
from ladder.rungs import rung

MOST_BLOCKS = 65_535  # in a grid's second dimension; in its first, there may be 2 billion


@cuda.jit
def cell_kernel(a, b, c, m_size, k_size, n_size):
    """The course's kernel: a thread for each cell of c; tmp is a float64.

    Where c has more columns than the grid may have threads, a thread computes several cells.
    """
    i, first = cuda.grid(2)
    for j in range(first, n_size, cuda.gridDim.y * TPB):
        if i < m_size:
            tmp = 0.0
            for k in range(k_size):
                tmp += a[i * k_size + k] * b[k * n_size + j]
            c[i * n_size + j] = tmp


def configure_cells(m, k, n):
    """Return the grid, the block and the bytes of shared memory for a product."""
    grid = math.ceil(m / TPB), min(math.ceil(n / TPB), MOST_BLOCKS)
    return grid, (TPB, TPB), 0


@rung(device="cuda")
def matmul_cuda_launch(a, b):
    """The course's kernel, launched by addresses: Numba's launch takes longer than a small product.

    On an H200, 5 rows take 48 µs, and by Numba 172.
    """
    return launch(cell_kernel, a, b, configure_cells)
