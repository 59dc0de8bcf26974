"""CUDA: one cell, a grid of cells in Python, then the same kernel on a GPU or in its simulator."""

import pytest
import torch
from fastcore.test import test_close as close

from kernels import launch_kernel, matmul_and_copy, matmul_cell
from ladder.gpu import has_gpu, on_device
from ladder.product import Product
from ladder.rungs import RUNGS, rung_names
from ladder.shape import SMALL, Shape
from ladder.timing import call_or_skip, prove, synchronized

pytestmark = [pytest.mark.cuda, pytest.mark.usefixtures("gpu_or_simulator")]
GPU = rung_names("cuda")
needs_gpu = pytest.mark.skipif(not has_gpu(), reason="there is no GPU to time")


# ---- The lesson: one cell after the other, in Python -------------------------------


def test_launch_kernel(m1, m2, t1):
    """One cell; then a grid that is larger than c, as one of whole blocks is."""
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
    """On the last GPU, which need not be the current one; and in another stream, where a is late."""
    matmul, last = RUNGS[rung].fn, torch.cuda.device_count() - 1
    a, b = dense.a.cuda(last), dense.b.cuda(last)
    dense.check(call_or_skip(matmul, a, b))
    with torch.cuda.stream(torch.cuda.Stream(last)):
        late = torch.zeros_like(a)
        torch.cuda._sleep(100_000_000)  # cycles
        dense.check(matmul(late.copy_(a), b))


# ---- Timed, on a GPU only ----------------------------------------------------------


@needs_gpu
@pytest.mark.ladder
@pytest.mark.benchmark(timer=synchronized)
def test_rung(time_rung, benchmark, rung, shape, product):
    """The product alone: operands on the GPU, calls in a row, then a wait for the last."""
    benchmark.group = f"matmul {shape}"
    time_rung(rung, product)


@needs_gpu
def test_rung_and_copy(timed, benchmark, rung, shape, product, dense):
    """As the course times it: the product and its way back to the host."""

    def matmul_and_copy_back(a, b):
        return rung.fn(a, b).cpu()

    prove(rung, dense)
    benchmark.group = f"matmul {shape} and copy to the host"
    timed(product.check, matmul_and_copy_back, product.a.cuda(), product.b.cuda())


@needs_gpu
@pytest.mark.benchmark(timer=synchronized, group=f"100 x matmul {SMALL} in a CUDA graph")
@pytest.mark.parametrize("rung", GPU, indirect=True)
def test_rung_in_a_graph(timed, rung, small_product):
    """The GPU's time alone: 100 products in a CUDA graph, which one call launches."""
    if rung.name == "matmul_cuda":
        pytest.skip("a graph records torch's current stream, and not Numba's default one")
    graph = torch.cuda.CUDAGraph()
    a, b = on_device("cuda", small_product.a, small_product.b)
    call_or_skip(rung.fn, a, b)
    with torch.cuda.graph(graph):
        for _ in range(100):
            c = rung.fn(a, b)
    c.fill_(torch.nan)  # the graph has to compute it

    def replay():
        graph.replay()
        return c

    timed(small_product.check, replay)


READS = {"torch.max": torch.max, "torch.sum": torch.sum}


@needs_gpu
@pytest.mark.ladder
@pytest.mark.benchmark(timer=synchronized, group="limit")
@pytest.mark.parametrize("way", READS)
def test_read_limit(timed, benchmark, way, x_train):
    read, x = READS[way], x_train.cuda()
    expected = read(x_train.double()).item()

    def check(result):
        assert abs(result.item() / expected - 1) < 1e-3

    benchmark.extra_info.update(limit="memory", way=way, device="cuda", work=x.nbytes)
    timed(check, read, x)


@needs_gpu
@pytest.mark.ladder
@pytest.mark.benchmark(timer=synchronized, group="limit")
def test_multiply_add_limit(timed, benchmark):
    x, work = torch.full((4096, 4096), 0.5, device="cuda"), 2 * 4096**3

    def check(c):
        assert (c == 1024).all()

    benchmark.extra_info.update(limit="arithmetic", way="torch.matmul", device="cuda", work=work)
    timed(check, torch.matmul, x, x)


@needs_gpu
@pytest.mark.ladder
@pytest.mark.benchmark(timer=synchronized, group="limit")
@pytest.mark.parametrize("rung", ["matmul_torch_cuda", "matmul_cuda_launch"], indirect=True)
def test_call_limit(timed, benchmark, rung):
    """What a call costs by itself: the product of one number by one."""
    product = Product.random(Shape(1, 1, 1))
    way = f"{rung.name} of 1x1x1"
    benchmark.extra_info.update(limit="call", way=way, device="cuda", work=1)
    a, b = product.a.cuda(), product.b.cuda()
    call_or_skip(rung.fn, a, b)
    timed(product.check, rung.fn, a, b)
