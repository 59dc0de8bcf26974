"""CUDA: one cell, a grid of cells in Python, then the same kernel on a GPU or in its simulator."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from fastcore.test import test_close as close

import beyond  # noqa: F401
from kernels import launch_kernel, matmul_and_copy, matmul_cell
from ladder.gpu import has_gpu, why_not
from ladder.product import Product
from ladder.rungs import RUNGS, SMALL

pytestmark = [pytest.mark.cuda, pytest.mark.usefixtures("patient_simulator")]

GPU_NAMES = [name for name, rung in RUNGS.items() if rung.device == "cuda"]

needs_gpu = pytest.mark.skipif(not has_gpu(), reason="there is no GPU to time")


# ---- The lesson: one cell after the other, in Python -------------------------------


def test_launch_kernel(m1, m2, t1):
    """One cell; then a grid of more than c has, as that of a GPU's blocks."""
    res = torch.zeros(5, 10)
    matmul_cell((0, 0), m1, m2, res)
    assert res.count_nonzero() == 1
    close(res[0, 0], t1[0, 0], eps=1e-4)
    launch_kernel(matmul_cell, 16, 16, m1, m2, res)
    close(res, t1, eps=1e-4)


def test_copies(m1, m2, t1):
    """The course's cells, from the host and back."""
    if reason := why_not("matmul_cuda"):
        pytest.skip(reason)
    r = matmul_and_copy(m1.numpy(), m2.numpy())
    close(t1, torch.from_numpy(r), eps=1e-4)
    assert r.dtype == "float64"


# ---- Correctness: all cells at once, on the GPU or in a simulator -------------------


def fn(rung):
    if reason := why_not(rung):
        pytest.skip(reason)
    return RUNGS[rung].fn


def check_on_device(rung, product):
    a, b = (x.cuda() if has_gpu() else x for x in (product.a, product.b))
    c = fn(rung)(a, b)
    assert c.device == a.device
    product.check(c)


@pytest.mark.parametrize("first", [1, 2, 4])
@pytest.mark.parametrize("rung", GPU_NAMES[-4:])
def test_rows_that_are_not_aligned(rung, first):
    """128-bit loads and copies need rows that begin at a multiple of 16 bytes."""
    floats = Product.random("1x44x1").a.flatten()[first : first + 40]
    check_on_device(rung, Product.of(floats.reshape(5, 8), torch.ones(8, 3)))


@needs_gpu
@pytest.mark.parametrize("rung", [name for name in GPU_NAMES if name != "matmul_cuda"])
def test_streams_and_devices(rung, dense):
    """On a GPU that need not be the current one; and when a comes late, in a stream of its own."""
    matmul, last = fn(rung), torch.cuda.device_count() - 1
    a, b = dense.a.cuda(last), dense.b.cuda(last)
    dense.check(matmul(a, b))
    with torch.cuda.stream(torch.cuda.Stream(last)):
        late = torch.zeros_like(a)
        torch.cuda._sleep(100_000_000)  # cycles
        dense.check(matmul(late.copy_(a), b))


# ---- Compiled, with or without a GPU -----------------------------------------------

COMPILE = """
import json
from types import SimpleNamespace
from numba import cuda, float32
from numba.cuda import dispatcher
import kernels
from beyond import gpu
from ladder.launch import ADDRESSES
ptx, target, arrays = {}, (8, 0), (float32[:, ::1],) * 3
# A kernel's device functions are compiled for the current device; there is none.
dispatcher.get_current_device = lambda: SimpleNamespace(compute_capability=target)
for name, kernel in (vars(kernels) | vars(gpu)).items():
    if isinstance(kernel, dispatcher.CUDADispatcher) and name.endswith("_kernel"):
        takes = arrays if name == "matmul_kernel" else ADDRESSES
        ptx[name], _ = cuda.compile_ptx(kernel.py_func, takes, cc=target)
print(json.dumps(ptx))
"""


def test_compiles():
    """Compiled in a process without the simulator: no sum is in memory, none is float64 beyond the
    course's, loads are wide and copies asynchronous where a rung says so."""
    env = os.environ | {"NUMBA_ENABLE_CUDASIM": "0"}
    command, folder = [sys.executable, "-c", COMPILE], Path(__file__).parent
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    if "NvvmSupportError" in done.stderr:
        pytest.skip("there is no libNVVM")
    assert done.returncode == 0, done.stderr
    ptx = json.loads(done.stdout)
    assert [name for name in ptx if "__local_depot" in ptx[name]] == []
    assert [name for name in ptx if ".f64" in ptx[name]] == ["matmul_kernel", "cell_kernel"]
    assert "ld.global.v4.f32" in ptx["vector_kernel"] and "ld.global.v4.f32" in ptx["reduce_kernel"]
    assert "cp.async.cg.shared.global" in ptx["async_kernel"]


# ---- Timed, on a GPU only ----------------------------------------------------------


def synchronized():
    """A clock for the GPU: wait until it has finished, then read the time in seconds."""
    torch.cuda.synchronize()
    return time.perf_counter()


@needs_gpu
@pytest.mark.benchmark(timer=synchronized)
def test_rung(time_rung, rung, shape, product):
    """The product alone: operands on the GPU, calls in a row, then a wait for the last."""
    time_rung(f"matmul {shape}", rung, product)


@needs_gpu
def test_rung_and_copy(timed, rung, shape, product, dense):
    """As the course times it: the product and its way back to the host."""
    matmul = RUNGS[rung].fn
    dense.check(matmul(dense.a.cuda(), dense.b.cuda()))
    a, b = product.a.cuda(), product.b.cuda()
    timed(f"matmul {shape} and copy to the host", product.check, lambda: matmul(a, b).cpu())


@needs_gpu
@pytest.mark.benchmark(timer=synchronized)
@pytest.mark.parametrize("rung", GPU_NAMES)
def test_rung_in_a_graph(timed, rung, small_product):
    """The GPU's time alone: 100 products in a CUDA graph, which one call launches."""
    matmul = fn(rung)
    a, b, graph = small_product.a.cuda(), small_product.b.cuda(), torch.cuda.CUDAGraph()
    matmul(a, b)  # compiles it
    with torch.cuda.graph(graph):
        for _ in range(100):
            c = matmul(a, b)
    group = f"100 x matmul {SMALL} in a CUDA graph"
    timed(group, small_product.check, lambda: graph.replay() or c)


@needs_gpu
@pytest.mark.benchmark(timer=synchronized)
@pytest.mark.parametrize("way", ["torch.max", "torch.sum"])
def test_read_limit(timed, way, x_train):
    def check(result):
        close(result.item() / read(x_train.double()).item(), 1, 1e-3)

    read, x = {"torch.max": torch.max, "torch.sum": torch.sum}[way], x_train.cuda()
    timed("limit", check, read, x, limit="bytes", device="cuda", work=x.nbytes)


@needs_gpu
@pytest.mark.benchmark(timer=synchronized)
def test_multiply_add_limit(timed):
    def check(c):
        assert c.unique().tolist() == [1024]

    x, flops = torch.full((4096, 4096), 0.5, device="cuda"), 2 * 4096**3
    about = {"limit": "flops", "way": "torch.matmul", "device": "cuda", "work": flops}
    timed("limit", check, torch.matmul, x, x, **about)
