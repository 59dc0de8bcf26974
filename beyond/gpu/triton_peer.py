"""A peer: the same product in Triton, which works on tiles where CUDA works on threads.

`tl.dot` multiplies on tensor cores, in TF32, which keeps 11 bits of a float; with tf32x3, three
products are nearly as exact as one of float32, and a sum of many is. Where there is no TF32, before
compute capability 8.0, or where K is small, it multiplies in float32 (ieee), not on tensor cores.
"""

import os
from functools import cache

import torch

from ladder.rungs import rung

try:
    import triton
    import triton.language as tl
except ImportError:
    triton = None
else:
    ROWS, DEPTH, COLS = tl.constexpr(128), tl.constexpr(32), tl.constexpr(16)

    @triton.jit
    def dot_kernel(a, b, c, m_size, k_size, n_size, precision: tl.constexpr):
        """A tile of c, ROWS x COLS, by products of tiles ROWS x DEPTH and DEPTH x COLS."""
        number, tiles_in_a_row = tl.program_id(0), tl.cdiv(n_size, COLS)
        i = (number // tiles_in_a_row * ROWS + tl.arange(0, ROWS)).to(tl.int64)[:, None]
        j = (number % tiles_in_a_row * COLS + tl.arange(0, COLS))[None, :]
        tile = tl.zeros((ROWS, COLS), tl.float32)
        for start in range(0, k_size, DEPTH):
            k = start + tl.arange(0, DEPTH)
            k_row, k_column = k[None, :], k[:, None].to(tl.int64)
            x = tl.load(a + i * k_size + k_row, (i < m_size) & (k_row < k_size), 0.0)
            y = tl.load(b + k_column * n_size + j, (k_column < k_size) & (j < n_size), 0.0)
            tile = tl.dot(x, y, tile, input_precision=precision)
        tl.store(c + i * n_size + j, tile, (i < m_size) & (j < n_size))


# Three TF32 products are off by up to 48 * 2**-24 of the exact one; a float32 sum of K products may
# be off by K * 2**-24.
TF32_FROM = 64


@rung(device="cuda", starts_anew=True)
def matmul_triton(a, b):
    """A peer: Triton's tl.dot on tensor cores, 128 x 32 of a at a time, three TF32 products for one."""
    if not triton or not (a.is_cuda or os.environ.get("TRITON_INTERPRET") == "1"):
        raise ImportError("there is no Triton, or no GPU for it and TRITON_INTERPRET=1 is not set")
    a, b = a.contiguous(), b.contiguous()
    (m, k), n, gpu = a.shape, b.shape[1], a.get_device()
    c = a.new_empty(m, n)
    tiles = triton.cdiv(m, ROWS.value) * triton.cdiv(n, COLS.value)
    if tiles == 0:
        return c
    with torch.cuda.device(gpu):  # none, if that is -1: then Triton interprets the kernel
        precision = "tf32x3" if k >= TF32_FROM and has_tf32(gpu) else "ieee"
        dot_kernel[tiles,](a, b, c, m, k, n, precision, num_warps=4, num_stages=3)
    return c


@cache
def has_tf32(gpu):
    """Return whether GPU number ``gpu`` has TF32; Triton's interpreter (-1) takes it for float32."""
    return gpu < 0 or torch.cuda.get_device_capability(gpu) >= (8, 0)
