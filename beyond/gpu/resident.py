"""Launches kernels whose blocks are resident: as many as the GPU holds at once walk over c."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch

from beyond.gpu.addresses import compiled, current_gpu, launch, loaded
from beyond.gpu.libraries import MISSING, core
from beyond.gpu.warp import WARP, WARPS
from ladder.gpu import SIMULATED, has_gpu

COLS = 10  # columns of b that a block keeps in shared memory
SIMULATOR = -1  # its number as a GPU, as torch numbers the CPU


@dataclass(frozen=True, eq=False)
class Resident:
    """A kernel whose blocks keep ten columns of b in shared memory, and how it is launched.

    - ``kernel``: takes `ADDRESSES`; its grid is groups of columns x groups of rows.
    - ``otherwise``: the rung that computes c where this kernel can't.
    - ``rows``: of c, that a warp computes at a time.
    - ``warps``: in a block.
    - ``width``: floats that a lane loads at once; rows of a have to begin at multiples of that.
    - ``more_floats``: of shared memory, besides the columns.
    - ``capability``: the least compute capability that has all its instructions.
    """

    kernel: Callable
    otherwise: Callable
    rows: int = 1
    warps: int = WARPS
    width: int = 1
    more_floats: int = 0
    capability: tuple[int, int] = (0, 0)

    def multiply(self, a, b):
        """Return c = a @ b, from this kernel or from the rung ``otherwise``."""
        a, c = a.contiguous(), None
        if a.data_ptr() % (4 * self.width) == 0:
            c = launch(self.kernel, a, b, self.configure)
        if c is None:
            return self.otherwise(a, b)
        return c

    def configure(self, m, k, n):
        """Return the grid, the block and the bytes of shared memory; None if not even one fits."""
        gpu = SIMULATOR if SIMULATED else current_gpu()
        most = most_blocks(self, gpu, k) if self.fits(gpu, k) else 0
        if most == 0:
            return None
        groups = math.ceil(n / COLS)
        rows = math.ceil(m / (self.warps * self.rows))
        grid = groups, min(rows, max(1, most // groups))
        return grid, (WARP, self.warps), self.shared_bytes(k)

    def same_as(self, shape):
        """Return the rung ``otherwise`` if the current GPU runs that at a `Shape`, else None."""
        if MISSING:
            return None
        gpu = torch.cuda.current_device() if has_gpu() else SIMULATOR
        return None if self.fits(gpu, shape.k) else self.otherwise

    def fits(self, gpu, k):
        """Return whether a GPU has what the kernel needs for K = ``k``."""
        capability, most_shared = limits(gpu)
        if capability < self.capability or k % self.width:
            return False
        return self.shared_bytes(k) <= most_shared

    def shared_bytes(self, k):
        """Return the bytes of shared memory of a block."""
        return 4 * (COLS * k + self.more_floats)


@cache
def most_blocks(resident, gpu, k):
    """Return how many blocks of the kernel the current GPU holds at once; 0 if none fits."""
    if gpu == SIMULATOR:
        return 2
    kernel, shared_bytes = compiled(resident.kernel), resident.shared_bytes(k)
    most_shared = limits(gpu)[1] - kernel.shared_mem_per_block  # which it has besides
    if shared_bytes > most_shared:
        return 0
    allow_shared(loaded(resident.kernel, gpu), most_shared, gpu)
    return kernel.max_cooperative_grid_blocks((WARP, resident.warps), shared_bytes)


def allow_shared(function, most_shared, gpu):
    """Let a block have ``most_shared`` bytes: it gets no more than 48 KB without asking."""
    from numba.cuda.cudadrv.driver import binding, driver

    attribute = binding.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
    driver.cuKernelSetAttribute(attribute, most_shared, function.handle, gpu)


@cache
def limits(gpu):
    """Return a GPU's compute capability, and how many bytes of shared memory a block may have."""
    if gpu == SIMULATOR:
        return (8, 0), 48 * 1024
    device = core.Device(gpu)
    return device.compute_capability, device.properties.max_shared_memory_per_block_optin
