"""Matrix multiplication: each rung is checked against t1, tr and a float64 product, then timed."""

import math

import numba
import numpy as np
import pytest
import torch
from fastcore.test import test_close as close
from numba import njit, prange

from beyond.cpu.registers import LANES
from kernels import dot, frobenius
from ladder.product import Product
from ladder.rungs import RUNGS, rung
from ladder.shape import FULL, SMALL, SQUARE, Shape
from ladder.timing import need_memory

# ---- The lesson --------------------------------------------------------------------

VECTORS = np.array([1.0, 2, 3]), np.array([2.0, 3, 4])


def test_dot():
    assert dot(*VECTORS) == 20.0
    assert dot(np.array([1e8, 1, -1e8], "f4"), np.ones(3, "f4")) == 1.0  # 0 in float32


def test_elementwise():
    a, b = torch.tensor([10.0, 6, -4]), torch.tensor([2.0, 8, 7])
    close((a < b).float().mean(), torch.tensor(2 / 3))
    close(frobenius(torch.arange(1.0, 10).reshape(3, 3)), torch.tensor(16.8819), eps=1e-4)


@pytest.mark.parametrize("name, before", [
    ("loops", None), ("numba_dot", "loops"), ("torch", "einsum"), ("launch_kernel", None),
    ("torch_cuda", "cuda"), ("numpy", None), ("numba_vector", "numba_loops"),
])  # fmt: skip
def test_steps(name, before):
    """A rung is a step over the one above it, unless it starts anew."""
    previous = RUNGS[f"matmul_{name}"].before
    if before is None:
        assert previous is None
    else:
        assert previous.name == f"matmul_{before}"


@pytest.mark.parametrize("name, shape, runs", [
    ("numba_prefetch", SMALL, "numba_tile"), ("numba_prefetch", FULL, "numba_prefetch"),
    ("numba_prefetch", Shape(512, 1024, 9), "numba_tile"),
    ("numba_prefetch", Shape(513, 1024, 9), "numba_prefetch"),
    ("numba_few_rows", SMALL, "numba_few_rows"), ("numba_few_rows", FULL, "numba_prefetch"),
    ("numba_few_rows", Shape(15, 784, 10), "numba_few_rows"),
    ("numba_few_rows", Shape(16, 784, 10), "numba_tile"),
    ("numba_address", SMALL, "numba_address"), ("numba_address", FULL, "numba_prefetch"),
    ("numba_address", SQUARE, "numba_blocks"), ("numba_blocks", SQUARE, "numba_blocks"),
    ("numba_address", Shape(5, 2000, 1000), "numba_few_rows"),
    ("numba_address", Shape(6, 2000, 1000), "numba_blocks"),
    ("numba_address", Shape(6, 600, 2000), "numba_blocks"),
    ("numba_address", Shape(5, 600, 2000), "numba_blocks"),
    ("numba_address", Shape(2048, 2048, 15), "numba_prefetch"),
    ("numba_address", Shape(2048, 200, 48), "numba_small_b"),
    ("numba_address", Shape(2048, 4096, 128), "numba_blocks"),
    ("numba_small_b", Shape(2048, 200, 48), "numba_small_b"),
    ("numba_small_b", SQUARE, "numba_blocks"),
])  # fmt: skip
def test_whose_code_a_rung_runs(name, shape, runs):
    assert RUNGS[f"matmul_{name}"].whose_code(shape).name == f"matmul_{runs}"


# ---- Correctness: tests/test_properties.py tries what holds for any operands ----------

WRONG_RESULTS = {
    "3-D": (lambda c, bound: c[None], "the shape is"),
    "float64": (lambda c, bound: c.double(), "the dtype is"),
    "numpy": (lambda c, bound: c.numpy(), "not a torch.Tensor"),
    "by columns": (lambda c, bound: c.T.contiguous().T, "c is not contiguous"),
    "transposed": (lambda c, bound: c.T.reshape(c.shape), "cells differ from the float64 product"),
    "imprecise": (lambda c, bound: c + 1.5 * bound, "(21 of 3x7|63 of 9x7) cells .* float64"),
    "NaN": (lambda c, bound: c.where(c != c[2, 6], math.nan), r" of .x7 .* \(2, 6\): nan, not "),
}


@pytest.mark.parametrize("case", WRONG_RESULTS)
def test_the_check_refuses(dense, case):
    """Whether numbers are large or small; and of rows that were repeated."""
    spoil, message = WRONG_RESULTS[case]
    small = Product(dense.a * 1e-9, dense.b)
    for product in dense, small, small.rows(9):
        c = product.a @ product.b
        bound = 50 * 2**-24 * product.a.abs() @ product.b.abs()
        product.check(c + 0.5 * bound)
        with pytest.raises(AssertionError, match=message):
            product.check(spoil(c, bound))
        with pytest.raises(AssertionError, match=r"(21 of 3x7|63 of 9x7) cells .* reference"):
            Product(product.a, product.b, reference=c + 2.5 * bound).check(c)


A, B = torch.ones(2, 3), torch.ones(3, 4)


@pytest.mark.parametrize("a, b", [
    (A, A), (A[0], B), (A.double(), B.double()), (A.numpy(), B), ([[1.0]], B), (A, B.to("meta")),
])  # fmt: skip
def test_wrong_operands(a, b):
    """This rung passes bare addresses on, so it checks its operands: a wrong one would crash."""
    with pytest.raises(ValueError, match=r"takes float32 .* \(K, N\) on the CPU, not "):
        RUNGS["matmul_numba_address"].fn(a, b)


@pytest.mark.parametrize("name, doc, options, mistake", [
    ("matmul_loops", "New.", {}, "two rungs are named matmul_loops"),
    ("mine", " \n", {}, "mine: a rung has a docstring"),
    ("mine", "New.", {"device": "gpu"}, "mine: the device is \"cpu\" or \"cuda\", not 'gpu'"),
    ("mine", "New.", {"shapes": SMALL}, r"mine: shapes is a list such as \[SMALL, Shape"),
    ("mine", "New.", {"shapes": ["5x784x10"]}, "mine: shapes is a list such as"),
])  # fmt: skip
def test_a_rung_that_is_refused(name, doc, options, mistake):
    def fn(a, b):
        return a @ b

    fn.__name__, fn.__doc__ = name, doc
    with pytest.raises(ValueError, match=mistake):
        rung(**options)(fn)
    assert "mine" not in RUNGS


def test_a_rung_without_parentheses():
    with pytest.raises(ValueError, match=r"matmul_torch: write @rung\(\), with parentheses"):
        rung(RUNGS["matmul_torch"].fn)


def test_a_rung_is_defined_again(monkeypatch):
    """As a notebook's cell does, and importlib.reload: the new one takes the old one's place."""
    names = list(RUNGS)
    for name in "matmul_loops", "matmul_torch":
        old = RUNGS[name]
        monkeypatch.setitem(RUNGS, name, old)  # and puts it back
        new = type(old.fn)(old.fn.__code__, old.fn.__globals__, name)
        new.__doc__, new.__module__ = "New.", old.fn.__module__
        assert rung()(new) is new is RUNGS[name].fn
    assert list(RUNGS) == names


# ---- Timed: the rungs --------------------------------------------------------------


@pytest.mark.ladder
def test_rung(time_rung, benchmark, rung, shape, product):
    benchmark.group = f"matmul {shape}"
    time_rung(rung, product)


@pytest.mark.benchmark(group="rows")
@pytest.mark.parametrize("rows", [5, 50, 500, 5_000, 50_000, 500_000])
@pytest.mark.parametrize(
    "rung", ["matmul_torch", "matmul_numpy", "matmul_numba_address"], indirect=True
)
def test_rows(time_rung, rung, rows, full_product):
    need_memory(Shape(rows, 784, 10))
    time_rung(rung, full_product.rows(rows))


def fresh_dot():
    """Return a new `dot` that Numba hasn't compiled yet, and its arguments."""
    return (njit(dot.py_func), *VECTORS), {}


def call(fn, a, b):
    return fn(a, b)


@pytest.mark.benchmark(group="dot")
@pytest.mark.parametrize("which", ["first, compiles", "second"])
def test_dot_compile(benchmark, which):
    (fn, a, b), _ = fresh_dot()
    assert fn(a, b) == 20.0
    if which == "second":
        benchmark(fn, a, b)
    else:
        benchmark.pedantic(call, setup=fresh_dot, rounds=5)


# ---- Timed: the limits of the machine ----------------------------------------------

READS = {
    "torch.max": (torch.max, lambda x: x.max()),
    "torch.sum": (torch.sum, lambda x: x.sum(dtype="f8")),
    "numpy @ vector": (lambda x: x.numpy() @ np.ones(784, "f4"), lambda x: x.sum(1, dtype="f8")),
}


@pytest.mark.ladder
@pytest.mark.benchmark(group="limit")
@pytest.mark.parametrize("way", READS)
def test_read_limit(timed, benchmark, way, x_train):
    read, total = READS[way]
    expected = np.asarray(total(x_train.numpy()), "f8")

    def check(result):
        close(np.asarray(result, "f8"), expected, eps=1e-3 * expected.max())

    work = x_train.nbytes
    benchmark.extra_info.update(limit="memory", way=way, device="cpu", work=work)
    timed(check, read, x_train)


@njit(parallel=True, fastmath={"contract"})
def multiply_adds(n, threads):
    """Do 24 * LANES * n * threads operations in registers; return 12 * LANES for each thread.

    There are 12 independent sums, as each multiply-add has to wait for the last one to its sum.
    A step halves each lane and adds a half, so it ends at 1.
    """
    half, out = np.float32(0.5), np.zeros(threads, np.float32)
    for thread in prange(threads):
        sums = np.zeros(12 * LANES, np.float32)
        for _ in range(n):
            for lane in range(12 * LANES):
                sums[lane] = sums[lane] * half + half
        out[thread] = sums.sum()
    return out


HALVES = torch.full((1024, 1024), 0.5)
STEPS, THREADS = 200_000, numba.config.NUMBA_NUM_THREADS
MULTIPLY_ADDS = {  # the function, its arguments, its operations, and each number that it returns
    "torch.matmul": (torch.matmul, (HALVES, HALVES), 2 * 1024**3, 256),
    "numpy @": (np.matmul, (HALVES.numpy(), HALVES.numpy()), 2 * 1024**3, 256),
    "registers": (multiply_adds, (STEPS, THREADS), 24 * LANES * STEPS * THREADS, 12 * LANES),
}


@pytest.mark.ladder
@pytest.mark.benchmark(group="limit")
@pytest.mark.parametrize("way", MULTIPLY_ADDS)
def test_multiply_add_limit(timed, benchmark, way):
    fn, args, work, expected = MULTIPLY_ADDS[way]

    def check(result):
        assert np.unique(result).tolist() == [expected]

    benchmark.extra_info.update(limit="arithmetic", way=way, device="cpu", work=work)
    timed(check, fn, *args)


@pytest.mark.ladder
@pytest.mark.benchmark(group="limit")
@pytest.mark.parametrize("rung", ["matmul_torch", "matmul_numba_address"], indirect=True)
def test_call_limit(timed, benchmark, rung):
    """What a call costs by itself: the product of one number by one."""
    product = Product.random(Shape(1, 1, 1))
    way = f"{rung.name} of 1x1x1"
    benchmark.extra_info.update(limit="call", way=way, device="cpu", work=1)
    timed(product.check, rung.fn, product.a, product.b)
