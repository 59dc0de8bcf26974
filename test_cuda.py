"""CUDA: one cell, a grid of cells in Python, then the same kernel on a GPU or in its simulator."""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from types import SimpleNamespace

import numba
import numpy as np
import pytest
import torch
from fastcore.test import test_close as close
from fastcore.test import test_eq as eq

import kernels
from conftest import HERE, has_gpu, random_product, skip_if_not_simulated
from kernels import RUNGS, TPB, blocks_per_grid, launch_kernel, matmul_cell

pytestmark = [pytest.mark.cuda, pytest.mark.usefixtures("patient_simulator")]

GPU_RUNGS = [rung for rung in RUNGS.values() if rung.device == "cuda"]
WITH_SHARED_MEMORY = "matmul_cuda_shared", "matmul_cuda_tile", "matmul_cuda_vector"
# A simulated thread is slow. K of 12 is the one for the vector kernel, which takes 4 at once.
SHAPES = """
    0x3x2 3x0x2 3x2x0 1x1x1 1x1x7 3x2x1 5x17x3 9x33x7 11x7x13 19x12x3 49x4x3 2x77x1 1x3x71
""".split()

needs_simulator = pytest.mark.skipif(
    not numba.config.ENABLE_CUDASIM, reason="Numba's simulator is not in use"
)
needs_gpu = pytest.mark.skipif(not has_gpu(), reason="there is no GPU to time")


def synchronized():
    """A clock for the GPU: wait until it has finished, then read the time in seconds."""
    torch.cuda.synchronize()
    return time.perf_counter()


def on_device(*tensors):
    return [tensor.cuda() if has_gpu() else tensor for tensor in tensors]


# ---- One cell after the other, in Python -------------------------------------------


def test_one_cell(m1, m2, t1):
    res = torch.zeros(5, 10)
    matmul_cell((0, 0), m1, m2, res)
    close(res[0, 0], t1[0, 0], eps=1e-4)
    eq(res.count_nonzero(), torch.tensor(1))


@pytest.mark.parametrize("grid", [(5, 10), (16, 16), (5, 11)])
def test_launch_kernel(m1, m2, small_product, grid):
    res = torch.zeros(5, 10)
    launch_kernel(matmul_cell, *grid, m1, m2, res)
    small_product.check(res)


def test_launch_kernel_visits_each_cell_once():
    visited = []
    launch_kernel(
        lambda grid, *args, **kw: visited.append((grid, args, kw)), 2, 3, 7, x=8
    )
    grid = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    eq(visited, [(cell, (7,), {"x": 8}) for cell in grid])


# ---- All at once, on the GPU or in the simulator -----------------------------------


@pytest.mark.parametrize(
    "shape, blocks",
    [
        ((50_000, 10), (3125, 1)),
        ((5, 10), (1, 1)),
        ((16, 16), (1, 1)),
        ((17, 33), (2, 3)),
        ((0, 10), (0, 1)),
    ],
)
def test_blocks_per_grid(shape, blocks):
    eq(TPB, 16)
    eq(blocks_per_grid(shape), blocks)


@pytest.mark.parametrize("odd", ["17x3x17", "16x784x10", "33x50x7"], indirect=True)
@pytest.mark.parametrize("rung", ["matmul_cuda", "matmul_torch_cuda"])
def test_shapes_around_16(rung, odd):
    prove_on_device(rung, odd)


@pytest.mark.parametrize("odd", SHAPES, indirect=True)
@pytest.mark.parametrize("rung", [rung.name for rung in GPU_RUNGS])
def test_odd_shapes(rung, odd):
    prove_on_device(rung, odd)


@pytest.mark.parametrize("rung", [rung.name for rung in GPU_RUNGS])
def test_digits(rung, small_product):
    prove_on_device(rung, small_product)


def prove_on_device(rung, product):
    skip_if_not_simulated(rung)
    a, b = on_device(product.a, product.b)
    c = RUNGS[rung].fn(a, b)
    eq(c.device, a.device)
    product.check(c)


@pytest.mark.parametrize("rung", [rung.name for rung in GPU_RUNGS])
def test_strided_operands(rung, odd_strided):
    prove_on_device(rung, odd_strided)


def test_columns_that_do_not_fit_in_shared_memory():
    """10 columns of 1,300 floats are more than 48 KB: the rung takes the path without."""
    for rung in WITH_SHARED_MEMORY:
        prove_on_device(rung, random_product((2, 1300, 3)))


class Watched:
    """An operand in the simulator: each index is within it, and noted."""

    def __init__(self, tensor):
        self.array, self.shape = tensor.numpy(), tensor.shape
        self.loaded, self.stored = [], []

    def note(self, noted, index):
        assert all(0 <= i < size for i, size in zip(index, self.shape, strict=True))
        noted.append(index)

    def __getitem__(self, index):
        self.note(self.loaded, index)
        return self.array[index]

    def __setitem__(self, index, value):
        self.note(self.stored, index)

    def reshape(self, size):
        return self.array.reshape(size)


@needs_simulator
@pytest.mark.parametrize("shape", [(19, 12, 11), (3, 5, 21)])
@pytest.mark.parametrize("rung", [rung.name for rung in GPU_RUNGS])
def test_each_cell_is_stored_once(monkeypatch, rung, shape):
    """By one thread of all: what two of them store might differ, and takes twice the time."""
    skip_if_not_simulated(rung)
    watched = []

    def watch(tensor):
        watched.append(Watched(tensor))
        return watched[-1]

    monkeypatch.setattr(kernels, "device_array", watch)
    m, k, n = shape
    RUNGS[rung].fn(torch.ones(m, k), torch.ones(k, n))
    a, b, c = watched
    eq((a.stored, b.stored), ([], []))
    eq(sorted(c.stored), [(i, j) for i in range(m) for j in range(n)])
    if rung in WITH_SHARED_MEMORY:
        blocks = kernels.blocks_at_once(torch.device("cpu"), 0)
        (times,) = set(Counter(b.loaded).values())  # once in each block
        assert times <= blocks


class Recorder(list):
    """Takes a kernel's place, and notes how it is launched."""

    def __getitem__(self, configuration):
        self.append(configuration)
        return lambda a, b, c: None


@pytest.mark.parametrize("k", [5, 6, 7, 8])
@pytest.mark.parametrize("offset", range(8))
def test_vector_loads_only_where_all_are_aligned(monkeypatch, k, offset):
    skip_if_not_simulated("matmul_cuda_vector")
    tile, vector = Recorder(), Recorder()
    monkeypatch.setattr(kernels, "tile_kernel", tile)
    monkeypatch.setattr(kernels, "vector_kernel", vector)
    a, b = on_device(torch.ones(99), torch.ones(k, 3))
    RUNGS["matmul_cuda_vector"].fn(a[offset:][: 5 * k].reshape(5, k), b)
    eq((len(vector), len(tile)), (1, 0) if k == 8 and offset % 4 == 0 else (0, 1))


@pytest.mark.parametrize(
    "rung, rows, k, grid",
    [
        ("matmul_cuda", 33, 5, ((3, 1), (16, 16))),
        ("matmul_cuda_coalesced", 33, 5, (17, (4, 2), 0, 0)),
        ("matmul_cuda_shared", 33, 5, (17, (4, 2), 0, 200)),
        ("matmul_cuda_tile", 33, 5, (5, (4, 2), 0, 200)),
        ("matmul_cuda_vector", 33, 8, (5, (4, 2), 0, 320)),
        ("matmul_cuda_vector", 999, 8, (99, (4, 2), 0, 320)),
    ],
)
def test_launch(monkeypatch, rung, rows, k, grid):
    """Grid, block, stream, bytes of shared memory: enough threads, and no block too many."""
    skip_if_not_simulated(rung)
    recorder = Recorder()
    kernel = {"matmul_cuda": "matmul_kernel"}.get(rung, f"{rung[12:]}_kernel")
    monkeypatch.setattr(kernels, kernel, recorder)
    monkeypatch.setattr(kernels, "blocks_at_once", lambda device, shared: 99)
    monkeypatch.setattr(kernels, "WARP", 4)
    monkeypatch.setattr(kernels, "WARPS", 2)
    RUNGS[rung].fn(*on_device(torch.ones(rows, k), torch.ones(k, 3)))
    eq(list(recorder), [grid])


@pytest.mark.parametrize(
    "shared, blocks",
    [
        (1024, 132 * 8),
        (31_360, 132 * 7),
        (37_888, 132 * 6),
        (37_889, 132 * 5),
        (48 * 1024, 132 * 4),
        (48 * 1024 + 1, 0),
    ],
)
def test_blocks_that_an_h100_holds_at_once(monkeypatch, shared, blocks):
    """132 multiprocessors of 2,048 threads and 228 KiB, of which each block takes 1 KiB more."""
    h100 = SimpleNamespace(
        multi_processor_count=132,
        max_threads_per_multi_processor=2048,
        shared_memory_per_multiprocessor=228 * 1024,
        shared_memory_per_block=48 * 1024,
    )
    monkeypatch.setattr(numba.config, "ENABLE_CUDASIM", 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", {"cuda": h100}.get)
    monkeypatch.setattr(kernels, "WARP", 32)
    monkeypatch.setattr(kernels, "WARPS", 8)
    eq(kernels.blocks_at_once("cuda", shared), blocks)


@needs_simulator
def test_what_the_simulator_stands_in_for():
    eq(kernels.load4(np.arange(24).reshape(3, 8), 12), (12, 13, 14, 15))
    eq([kernels.blocks_at_once("cpu", shared) for shared in (49_152, 49_153)], [2, 0])
    eq((kernels.WARP, kernels.WARPS), (4, 2))


@pytest.mark.skipif(has_gpu(), reason="there is a GPU")
def test_torch_on_the_gpu_is_not_faked(m1, m2):
    with pytest.raises(ValueError, match="needs tensors on a GPU, not on cpu"):
        RUNGS["matmul_torch_cuda"].fn(m1, m2)


# ---- Compiled, with or without a GPU -----------------------------------------------

COMPILE = """
import json, sys
from types import SimpleNamespace
import numpy as np
from numba import cuda, float32, njit
from numba.cuda import dispatcher
try:
    from numba.cuda.cudadrv.nvvm import NVVM
    NVVM()
except Exception as error:
    sys.exit(print(json.dumps({"skip": f"no libNVVM here: {error}"[:200]})))
import kernels
matrix, ptx = float32[:, ::1], {}
for target in (8, 0), (9, 0):
    # A kernel's device functions are compiled for the current device; there is none.
    device = SimpleNamespace(compute_capability=target)
    dispatcher.get_current_device = lambda: device
    for name, kernel in vars(kernels).items():
        if isinstance(kernel, dispatcher.CUDADispatcher):
            kernel.overloads.clear()
            if name.endswith("_kernel"):
                code, _ = cuda.compile_ptx(kernel.py_func, (matrix,) * 3, cc=target)
                ptx.setdefault("sm_%d%d" % target, {})[name] = code

# The two device functions that the simulator has twins of: one on the CPU, the other with
# what all 32 threads of a warp hold in an array.
@njit
def loaded(array, start):
    first, second, third, last = kernels.load4(array, start)
    return last, third, second, first  # a float that is missing would not stay in its place

def shfl_xor_sync(mask, held_by_lane, bit):
    assert mask == 2**32 - 1
    return held_by_lane[np.arange(32) ^ bit]

kernels.cuda = SimpleNamespace(shfl_xor_sync=shfl_xor_sync)
sums = [np.arange(32.0), np.arange(32.0) ** 2]
kernels.warp_sum.py_func(sums)
alone = {
    "load4": loaded(np.arange(24, dtype="f4").reshape(3, 8), 12),
    "warp_sum": [sorted(set(held_by_lane)) for held_by_lane in sums],
    "called by kernels": kernels.warp_sum.targetoptions["device"],
    "block": (kernels.WARP, kernels.WARPS),
}
print(json.dumps({"ptx": ptx, "alone": alone}))
"""


@pytest.fixture(scope="module")
def compiled():
    """What a process without the simulator makes of kernels.py: PTX, and device functions alone."""
    done = subprocess.run(
        [sys.executable, "-c", COMPILE],
        cwd=HERE,
        env=os.environ | {"NUMBA_ENABLE_CUDASIM": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    compiled = json.loads(done.stdout.splitlines()[-1])
    if "skip" in compiled:
        pytest.skip(compiled["skip"])
    return compiled


@pytest.fixture
def ptx(compiled):
    """The PTX of each CUDA kernel, by target and name."""
    return compiled["ptx"]


def test_device_functions_without_the_simulator(compiled):
    alone = {
        "load4": [15, 14, 13, 12],
        "warp_sum": [[sum(range(32))], [sum(lane**2 for lane in range(32))]],
        "called by kernels": True,
        "block": [32, 8],
    }
    eq(compiled["alone"], alone)


KERNELS = {  # cells that a thread stores, barriers, and whether it has float64 and 128-bit loads
    "matmul_kernel": (1, 0, True, False),
    "coalesced_kernel": (1, 0, False, False),
    "shared_kernel": (1, 2, False, False),
    "tile_kernel": (40, 2, False, False),
    "vector_kernel": (40, 2, False, True),
}


@pytest.mark.parametrize("target", ["sm_80", "sm_90"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_compiles(ptx, target, kernel):
    """No sum is in memory."""
    cells, barriers, float64, wide_loads = KERNELS[kernel]
    code = ptx[target][kernel]
    assert f".target {target}" in code
    assert "__local_depot" not in code
    eq(code.count("st.global.f32"), cells)
    eq(code.count("bar.sync"), barriers)
    eq(".f64" in code, float64)
    for space in "global", "shared":
        eq(f"ld.{space}.v4.f32" in code, wide_loads)
    if wide_loads:
        eq(code.count("fma.rn.f32"), 4 * cells)


def test_each_kernel_is_looked_at(ptx):
    assert set(KERNELS) <= set(ptx["sm_90"])
    eq(sorted(ptx["sm_80"]), sorted(ptx["sm_90"]))


# ---- Timed, on a GPU only ----------------------------------------------------------

GPU_CASES = [(rung.name, shape) for rung in GPU_RUNGS for shape in rung.shapes]


@needs_gpu
@pytest.mark.benchmark(timer=synchronized)
@pytest.mark.parametrize("rung, shape", GPU_CASES)
def test_rung(time_rung, rung, shape, product):
    """The product alone: operands on the GPU, calls in a row, then a wait for the last."""
    time_rung(f"matmul {shape}", rung, product, to=torch.Tensor.cuda)


@needs_gpu
@pytest.mark.parametrize("rung, shape", GPU_CASES)
def test_rung_and_copy(timed, rung, shape, product, dense):
    """As the course times it: the product and its way back to the host."""
    matmul = RUNGS[rung].fn
    dense.check(matmul(dense.a.cuda(), dense.b.cuda()))
    a, b = product.a.cuda(), product.b.cuda()
    group = f"matmul {shape} and copy to the host"
    timed(group, product.check, lambda: matmul(a, b).cpu())


@needs_gpu
@pytest.mark.benchmark(timer=synchronized)
@pytest.mark.parametrize("way", ["torch.max", "torch.sum"])
def test_read_limit(timed, way, x_train):
    x = x_train.cuda()
    read = {"torch.max": torch.max, "torch.sum": torch.sum}[way]
    expected = read(x_train.double()).item()
    info = {"limit": "read", "device": "cuda", "bytes": x.nbytes}
    timed(
        "limit",
        lambda result: close(result.item() / expected, 1, 1e-3),
        read,
        x,
        **info,
    )


@needs_gpu
@pytest.mark.benchmark(timer=synchronized)
def test_multiply_add_limit(timed):
    x = torch.full((4096, 4096), 0.5, device="cuda")
    info = {"limit": "flops", "device": "cuda", "flops": 2 * 4096**3}
    timed(
        "limit", lambda c: eq(c.unique().tolist(), [1024]), torch.matmul, x, x, **info
    )
