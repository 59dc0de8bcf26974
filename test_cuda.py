"""CUDA: one cell, a grid of cells in Python, then the same kernel on a GPU or in its simulator."""

import time

import pytest
import torch
from fastcore.test import test_close as close

from kernels import launch_kernel, matmul_and_copy, matmul_cell
from ladder.gpu import has_gpu, on_device
from ladder.rungs import RUNGS, rung_names
from ladder.shape import SMALL
from ladder.timing import call_or_skip

pytestmark = [pytest.mark.cuda, pytest.mark.usefixtures("patient_simulator")]
GPU = rung_names("cuda")
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
    r = matmul_and_copy(m1.numpy(), m2.numpy())
    close(t1, torch.from_numpy(r), eps=1e-4)
    assert r.dtype == "float64"


@needs_gpu
@pytest.mark.parametrize("rung", [name for name in GPU if name != "matmul_cuda"])
def test_streams_and_devices(rung, dense):
    """On a GPU that need not be the current one; and when a comes late, in a stream of its own."""
    matmul, last = RUNGS[rung].fn, torch.cuda.device_count() - 1
    a, b = dense.a.cuda(last), dense.b.cuda(last)
    dense.check(call_or_skip(matmul, a, b))
    with torch.cuda.stream(torch.cuda.Stream(last)):
        late = torch.zeros_like(a)
        torch.cuda._sleep(100_000_000)  # cycles
        dense.check(matmul(late.copy_(a), b))


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
    dense.check(call_or_skip(matmul, *on_device("cuda", dense.a, dense.b)))
    a, b = product.a.cuda(), product.b.cuda()
    timed(f"matmul {shape} and copy to the host", product.check, lambda: matmul(a, b).cpu())


@needs_gpu
@pytest.mark.benchmark(timer=synchronized)
@pytest.mark.parametrize("rung", GPU)
def test_rung_in_a_graph(timed, rung, small_product):
    """The GPU's time alone: 100 products in a CUDA graph, which one call launches."""
    if rung == "matmul_cuda":
        pytest.skip("a graph records torch's current stream, and not Numba's default one")
    matmul, graph = RUNGS[rung].fn, torch.cuda.CUDAGraph()
    a, b = on_device("cuda", small_product.a, small_product.b)
    call_or_skip(matmul, a, b)
    with torch.cuda.graph(graph):
        for _ in range(100):
            c = matmul(a, b)
    c.fill_(torch.nan)  # the graph has to compute it
    group = f"100 x matmul {SMALL} in a CUDA graph"
    timed(group, small_product.check, lambda: graph.replay() or c)


@needs_gpu
@pytest.mark.benchmark(timer=synchronized)
@pytest.mark.parametrize("way", ["torch.max", "torch.sum"])
def test_read_limit(timed, way, x_train):
    def check(result):
        return abs(result.item() / read(x_train.double()).item() - 1) < 1e-3

    read, x = {"torch.max": torch.max, "torch.sum": torch.sum}[way], x_train.cuda()
    timed("limit", check, read, x, limit="bytes", way=way, device="cuda", work=x.nbytes)


@needs_gpu
@pytest.mark.benchmark(timer=synchronized)
def test_multiply_add_limit(timed):
    x, flops = torch.full((4096, 4096), 0.5, device="cuda"), 2 * 4096**3
    about = {"limit": "flops", "way": "torch.matmul", "device": "cuda", "work": flops}
    timed("limit", lambda c: (c == 1024).all().item(), torch.matmul, x, x, **about)
