"""Launches kernels that take addresses.

Numba looks at each argument of each call, which takes the host longer than the product takes the
GPU. Here Numba only compiles the kernel, and cuda.core, on which numba-cuda stands, launches it.
In Numba's simulator, which has no addresses, arrays of one dimension take their place.
"""

import threading
from functools import cache, lru_cache

import torch
from numba import float32, int64, types

from beyond.gpu import simulator
from beyond.gpu.libraries import MISSING, core
from beyond.operands import operand_sizes
from ladder.gpu import SIMULATED

# What such a kernel takes: the addresses of a, b and c, then M, K and N.
ADDRESSES = (types.CPointer(float32),) * 3 + (int64,) * 3


def launch(kernel, a, b, configure):
    """Return c = a @ b, which ``kernel`` computes in torch's current stream on the operands' GPU.

    ``kernel`` takes `ADDRESSES`. ``configure(m, k, n)`` returns what CUDA calls its execution
    configuration, on the current GPU: the grid (in blocks), the block (in threads) and the bytes of
    shared memory of a block; or None if the kernel can't compute that product there, and then None
    is returned. It is called once for each shape.

    c is a new float32 tensor, (M, N). Raises ValueError for operands of another dtype, shape or
    device, of which an address tells nothing, and ImportError where something is missing.
    """
    if MISSING:
        raise ImportError(MISSING)
    m, k, n = operand_sizes(a, b, "cpu" if SIMULATED else "cuda", "one GPU")
    if m == 0 or k == 0 or n == 0:
        return a.new_zeros(m, n)
    if SIMULATED:
        return simulator.launch(kernel, a, b, configure(m, k, n))
    gpu = a.get_device()
    if gpu != current_gpu():
        with torch.cuda.device(gpu):
            return launch(kernel, a, b, configure)
    stream = torch._C._cuda_getCurrentRawStream(gpu)  # the public function takes 5 µs more
    prepared = prepare(kernel, configure, m, k, n, gpu, stream)
    if prepared is None:
        return None
    stream, config, function = prepared
    a, b, c = a.contiguous(), b.contiguous(), a.new_empty(m, n)
    core.launch(stream, config, function, a.data_ptr(), b.data_ptr(), c.data_ptr(), m, k, n)
    return c


@lru_cache(maxsize=1000)
def prepare(kernel, configure, m, k, n, gpu, stream):
    """Return what cuda.core's launch takes besides the arguments of the kernel; or None."""
    configuration = configure(m, k, n)
    if configuration is None:
        return None
    grid, block, shared_bytes = configuration
    config = core.LaunchConfig(grid=grid, block=block, shmem_size=shared_bytes)
    return core.Stream.from_handle(stream), config, loaded(kernel, gpu).kernel


def compiled(kernel):
    """Return the kernel as compiled for `ADDRESSES` and the current GPU."""
    return kernel.compile(ADDRESSES)


@cache
def loaded(kernel, gpu):
    """Return the kernel's function as loaded to GPU number ``gpu``, which is the current one."""
    return compiled(kernel).library.get_cufunc()


# ---- Where a launch happens --------------------------------------------------------


class Thread(threading.local):
    """What each thread of Python has for itself."""

    has_context = False


thread = Thread()


def current_gpu():
    """Return the number of torch's current GPU.

    A thread can't launch before the GPU's context is current in it, too. torch sees to that late,
    when it needs it; so here it is done when a thread asks for the first time.
    """
    gpu = torch.cuda.current_device()
    if not thread.has_context:
        core.Device(gpu).set_current()
        thread.has_context = True
    return gpu
