"""What the threads of a warp do together. A warp is 32 threads that run in step, its lanes.

On a GPU, these are its own instructions; in Numba's simulator, stand-ins with fewer lanes.
"""

from numba import cuda

from beyond.gpu import instructions, simulator
from ladder.gpu import SIMULATED

here = simulator if SIMULATED else instructions
WARP, WARPS = here.WARP, here.WARPS  # lanes in a warp, and warps in a block
kernel, checked = here.kernel, here.checked
load_4, partner = here.load_4, here.partner
start_copy_4, commit_group, wait_group = here.start_copy_4, here.commit_group, here.wait_group


@cuda.jit(device=True)
def warp_sum(x):
    """Return the sum of x over all lanes, in each of them.

    After the first step, two lanes have the same sum of two; after five, 32 have that of 32.
    """
    bit = WARP // 2
    while bit:
        x += partner(x, bit)
        bit //= 2
    return x


@cuda.jit(device=True)
def warp_sums(sums, count, lanes):
    """Do so with each of sums[:count], in place, among groups of ``lanes`` neighbouring lanes."""
    bit = lanes // 2
    while bit:
        for n in range(count):
            sums[n] += partner(sums[n], bit)
        bit //= 2
