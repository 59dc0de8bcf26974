"""CUDA: one cell, a grid of cells in Python, then the same kernel on a GPU or in its simulator."""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numba
import pytest
import torch
from fastcore.test import test_close as close

import kernels
from bench_fixtures import Product, has_gpu, skip_if_not_simulated
from kernels import blocks_per_grid, launch_kernel, matmul_cell
from rungs import RUNGS

from beyond import gpu

pytestmark = [pytest.mark.cuda, pytest.mark.usefixtures("patient_simulator")]

GPU_RUNGS = [rung for rung in RUNGS.values() if rung.device == "cuda"]
GPU_NAMES = [rung.name for rung in GPU_RUNGS]
WITH_SHARED_MEMORY = "matmul_cuda_shared", "matmul_cuda_tile", "matmul_cuda_vector"

needs_gpu = pytest.mark.skipif(not has_gpu(), reason="there is no GPU to time")
needs_simulator = pytest.mark.skipif(
    not numba.config.ENABLE_CUDASIM, reason="Numba's simulator is not in use"
)


# ---- The lesson: one cell after the other, in Python -------------------------------


def test_one_cell(m1, m2, t1):
    res = torch.zeros(5, 10)
    matmul_cell((0, 0), m1, m2, res)
    close(res[0, 0], t1[0, 0], eps=1e-4)
    assert res.count_nonzero() == 1


@pytest.mark.parametrize("grid", [(5, 10), (16, 16), (5, 11)])
def test_launch_kernel(m1, m2, small_product, grid):
    res = torch.zeros(5, 10)
    launch_kernel(matmul_cell, *grid, m1, m2, res)
    small_product.check(res)


def test_launch_kernel_visits_each_cell_once():
    visited = []
    launch_kernel(lambda grid, *args, **kw: visited.append((grid, args, kw)), 2, 3, 7, x=8)
    cells = [(i, j) for i in range(2) for j in range(3)]
    assert visited == [(cell, (7,), {"x": 8}) for cell in cells]


@pytest.mark.parametrize(
    "shape, blocks",
    [
        ((50_000, 10), (3125, 1)),
        ((16, 16), (1, 1)),
        ((17, 33), (2, 3)),
        ((0, 10), (0, 1)),
    ],
)
def test_blocks_per_grid(shape, blocks):
    assert blocks_per_grid(shape) == blocks


# ---- All at once, on the GPU or in the simulator -----------------------------------

# A simulated thread is slow. K of 12 and 8 are for the vector kernel, which takes 4 at once.
SHAPES = """
    0x3x2 3x0x2 3x2x0 1x1x1 1x1x7 5x17x3 17x3x17 11x7x13 19x12x3 49x4x3 2x77x1 1x3x71
""".split()


def check_on_device(rung, product):
    skip_if_not_simulated(rung)
    a, b = (x.cuda() if has_gpu() else x for x in (product.a, product.b))
    c = RUNGS[rung].fn(a, b)
    assert c.device == a.device
    product.check(c)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rung", GPU_NAMES)
def test_odd_shapes(rung, shape):
    check_on_device(rung, Product.random(*map(int, shape.split("x"))))


@pytest.mark.parametrize("rung", GPU_NAMES)
def test_digits(rung, small_product):
    check_on_device(rung, small_product)


@pytest.mark.parametrize("rung", GPU_NAMES)
def test_strided_operands(rung):
    dense = Product.random(9, 12, 11)
    check_on_device(rung, Product.of(dense.a.T.contiguous().T, dense.b[:, ::2]))
    check_on_device(rung, Product.of(dense.a[:1].expand(9, 12), dense.b[:, :1].expand(12, 11)))


@pytest.mark.parametrize("k, offset", [(8, 0), (8, 1), (8, 4), (7, 0), (6, 2)])
def test_operands_that_are_not_aligned(k, offset):
    """128-bit loads need rows that begin at a multiple of 16 bytes."""
    floats = Product.random(1, 99, 1).a.flatten()
    a = floats[offset : offset + 5 * k].reshape(5, k)
    check_on_device("matmul_cuda_vector", Product.of(a, floats[: 3 * k].reshape(k, 3)))


@pytest.mark.parametrize("rung", WITH_SHARED_MEMORY)
def test_columns_that_do_not_fit_in_shared_memory(rung):
    """10 columns of 1,300 floats are more than 48 KB: the rung takes the path without."""
    check_on_device(rung, Product.random(2, 1300, 3))


class Watched:
    """An operand in the simulator: each index is within it, and noted."""

    def __init__(self, tensor):
        self.array, self.shape = tensor.numpy(), tensor.shape
        self.loaded, self.stored = Counter(), Counter()

    def __getitem__(self, index):
        assert all(0 <= i < size for i, size in zip(index, self.shape, strict=True))
        self.loaded[index] += 1
        return self.array[index]

    def __setitem__(self, index, value):
        self.stored[index] += 1

    def reshape(self, size):
        return self.array.reshape(size)


@needs_simulator
@pytest.mark.parametrize("shape", [(19, 12, 11), (3, 5, 21)])
@pytest.mark.parametrize("rung", [name for name in GPU_NAMES if name != "matmul_torch_cuda"])
def test_each_cell_is_stored_once(monkeypatch, rung, shape):
    """By one thread of all: what two of them store might differ, and takes twice the time."""
    watched = []

    def watch(tensor):
        watched.append(Watched(tensor))
        return watched[-1]

    monkeypatch.setattr(kernels, "device_array", watch)
    monkeypatch.setattr(gpu, "device_array", watch)
    m, k, n = shape
    RUNGS[rung].fn(torch.ones(m, k), torch.ones(k, n))
    a, b, c = watched
    assert not a.stored and not b.stored
    assert c.stored == {(i, j): 1 for i in range(m) for j in range(n)}
    if rung in WITH_SHARED_MEMORY:  # once in each block
        assert set(b.loaded.values()) <= {1, gpu.blocks_at_once(None, 0)}


# ---- Compiled, with or without a GPU -----------------------------------------------

COMPILE = """
import json, sys
from types import SimpleNamespace
from numba import cuda, float32
from numba.cuda import dispatcher
try:
    from numba.cuda.cudadrv.nvvm import NVVM
    NVVM()
except Exception as error:
    sys.exit(print(json.dumps(f"no libNVVM here: {error}"[:200])))
import kernels
from beyond import gpu
matrix, ptx = float32[:, ::1], {}
for target in (8, 0), (9, 0):
    # A kernel's device functions are compiled for the current device; there is none.
    device = SimpleNamespace(compute_capability=target)
    dispatcher.get_current_device = lambda: device
    for name, kernel in (vars(kernels) | vars(gpu)).items():
        if isinstance(kernel, dispatcher.CUDADispatcher):
            kernel.overloads.clear()
            if name.endswith("_kernel"):
                code, _ = cuda.compile_ptx(kernel.py_func, (matrix,) * 3, cc=target)
                ptx["%s sm_%d%d" % (name, *target)] = code
print(json.dumps(ptx))
"""


@pytest.fixture(scope="module")
def ptx():
    """The PTX of each kernel, from a process without the simulator."""
    done = subprocess.run(
        [sys.executable, "-c", COMPILE],
        cwd=Path(__file__).parent,
        env=os.environ | {"NUMBA_ENABLE_CUDASIM": "0"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    ptx = json.loads(done.stdout.splitlines()[-1])
    return ptx if isinstance(ptx, dict) else pytest.skip(ptx)


KERNELS = {  # barriers, and whether it has float64 and 128-bit loads
    "matmul_kernel": (0, True, False),
    "coalesced_kernel": (0, False, False),
    "shared_kernel": (2, False, False),
    "tile_kernel": (2, False, False),
    "vector_kernel": (2, False, True),
}


@pytest.mark.parametrize("target", ["sm_80", "sm_90"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_compiles(ptx, target, kernel):
    barriers, float64, wide_loads = KERNELS[kernel]
    code = ptx[f"{kernel} {target}"]
    assert "__local_depot" not in code  # no sum is in memory
    assert code.count("bar.sync") == barriers
    assert (".f64" in code) == float64
    assert ("ld.global.v4.f32" in code) == ("ld.shared.v4.f32" in code) == wide_loads


# ---- Timed, on a GPU only ----------------------------------------------------------


def synchronized():
    """A clock for the GPU: wait until it has finished, then read the time in seconds."""
    torch.cuda.synchronize()
    return time.perf_counter()


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
    def check(result):
        close(result.item() / expected, 1, 1e-3)

    x = x_train.cuda()
    read = {"torch.max": torch.max, "torch.sum": torch.sum}[way]
    expected = read(x_train.double()).item()
    timed("limit", check, read, x, limit="read", device="cuda", bytes=x.nbytes)


@needs_gpu
@pytest.mark.benchmark(timer=synchronized)
def test_multiply_add_limit(timed):
    def check(c):
        assert c.unique().tolist() == [1024]

    x = torch.full((4096, 4096), 0.5, device="cuda")
    flops = 2 * 4096**3
    timed("limit", check, torch.matmul, x, x, limit="flops", device="cuda", flops=flops)
