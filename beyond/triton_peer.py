"""A peer: the same product in Triton, which works on tiles where CUDA works on threads.

`tl.dot` multiplies on tensor cores. They take TF32, floats of 11 bits; with tf32x3, three such
products make one that is as exact as float32. A GPU before compute capability 8.0 has no TF32.
"""

import torch

from ladder.launch import HERE, has_ampere
from ladder.rungs import rung

try:
    import triton
    import triton.language as tl
except ImportError:  # ladder.gpu.why_not says so
    triton = None
else:
    ROWS, DEPTH, COLS = tl.constexpr(128), tl.constexpr(32), tl.constexpr(16)

    @triton.jit
    def dot_kernel(a, b, c, m_size, k_size, n_size, precision: tl.constexpr):
        """A tile of c, ROWS x COLS, by products of tiles ROWS x DEPTH and DEPTH x COLS."""
        i = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)[:, None]
        j = (tl.program_id(1) * COLS + tl.arange(0, COLS))[None, :]
        tile = tl.zeros((ROWS, COLS), tl.float32)
        for start in range(0, k_size, DEPTH):
            k = start + tl.arange(0, DEPTH)
            x = tl.load(a + i * k_size + k[None, :], (i < m_size) & (k[None, :] < k_size), 0.0)
            y = tl.load(b + k[:, None] * n_size + j, (k[:, None] < k_size) & (j < n_size), 0.0)
            tile = tl.dot(x, y, tile, input_precision=precision)
        tl.store(c + i * n_size + j, tile, (i < m_size) & (j < n_size))


@rung(device="cuda", step=False)
def matmul_triton(a, b):
    """Triton's tl.dot on tiles of 128 x 32 of a: tensor cores, three TF32 products for each float32."""
    a, b = a.contiguous(), b.contiguous()
    (m, k), n, gpu = a.shape, b.shape[1], a.get_device()
    c = a.new_empty(m, n)
    if not c.numel():
        return c
    precision = "tf32x3" if has_ampere(gpu) else "ieee"
    grid = triton.cdiv(m, ROWS.value), triton.cdiv(n, COLS.value)
    with HERE if gpu < 0 or gpu == torch.cuda.current_device() else torch.cuda.device(gpu):
        dot_kernel[grid](a, b, c, m, k, n, precision, num_warps=4, num_stages=3)
    return c
