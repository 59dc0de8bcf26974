"""Launches kernels by addresses: Numba looks at each argument of each call, which takes the host
longer than the product. Here it compiles a kernel for `ADDRESSES` once, and cuda.core, on which
numba-cuda stands, launches it. In Numba's simulator, 1-D arrays stand for the addresses."""

from contextlib import nullcontext
from functools import cache, lru_cache

import torch
from numba import cuda, float32, int64, types

from beyond.operands import operand_sizes
from ladder.gpu import SIMULATED

try:
    import numba_cuda
    from cuda import core
except ImportError:
    numba_cuda = None  # and numba.cuda is Numba's own

# What such a kernel takes: the addresses of a, b and c, then M, K and N.
ADDRESSES = (types.CPointer(float32),) * 3 + (int64,) * 3


@cache
def has_ampere(gpu):
    """Return whether GPU number ``gpu`` has TF32 and asynchronous copies, as simulators (-1) do."""
    return gpu < 0 or torch.cuda.get_device_capability(gpu) >= (8, 0)


def on(gpu):
    """Return a context in which GPU number ``gpu`` is the current one; -1 is the simulator."""
    here = gpu < 0 or gpu == torch.cuda.current_device()
    return nullcontext() if here else torch.cuda.device(gpu)


def launch(kernel, a, b, blocks, threads, shared=0):
    """Return c = a @ b from a kernel of `ADDRESSES`, launched in torch's current stream, with
    ``shared`` bytes of shared memory a block. Raises ValueError for what an address can't tell:
    another dtype, shape or device; ImportError without numba-cuda."""
    m, k, n = operand_sizes(a, b, "cpu" if SIMULATED else "cuda", "one GPU")
    gpu, a, b = a.get_device(), a.contiguous(), b.contiguous()
    c = a.new_empty(m, n) if k else a.new_zeros(m, n)
    if not (m and k and n):
        return c
    if SIMULATED:
        kernel[blocks, threads, 0, shared](*(x.view(-1).numpy() for x in (a, b, c)), m, k, n)
        return c
    with on(gpu):
        core.launch(
            wrapped_stream(torch._C._cuda_getCurrentRawStream(gpu)),  # 5 µs less than in public
            launch_config(blocks, threads, shared),
            loaded(kernel, gpu).kernel,
            *(a.data_ptr(), b.data_ptr(), c.data_ptr(), m, k, n),
        )
    return c


@cache
def wrapped_stream(handle):
    return core.Stream.from_handle(handle)


@lru_cache(maxsize=1000)
def launch_config(blocks, threads, shared):
    return core.LaunchConfig(grid=blocks, block=threads, shmem_size=shared)


def compiled(kernel):
    """Return the kernel as compiled for `ADDRESSES` and the current GPU."""
    if not numba_cuda:
        raise ImportError("addresses need numba-cuda: install requirements-cuda.txt")
    return kernel.compile(ADDRESSES)


@cache
def loaded(kernel, gpu):
    """Return the kernel's function as it is loaded to GPU number ``gpu``."""
    with on(gpu):
        return compiled(kernel).library.get_cufunc()


@cache
def resident_blocks(kernel, gpu, threads, shared):
    """Return how many blocks with ``shared`` bytes each the GPU holds at once; 0 if none fits."""
    if SIMULATED:
        return 2 if shared <= 48 * 1024 else 0
    with on(gpu):
        most = cuda.get_current_device().MAX_SHARED_MEMORY_PER_BLOCK_OPTIN
        if shared > most:
            return 0
        if shared > 48 * 1024:  # a block gets no more without asking
            from numba.cuda.cudadrv.driver import binding, driver

            name = binding.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
            driver.cuKernelSetAttribute(name, most, loaded(kernel, gpu).handle, gpu)
        return compiled(kernel).max_cooperative_grid_blocks(threads, shared)
