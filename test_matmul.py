"""Matrix multiplication: each rung is proved against t1, tr and a float64 product, then timed."""

import math

import numba
import numpy as np
import pytest
import torch
from fastcore.test import test_close as close
from fastcore.test import test_eq as eq
from numba import njit

import kernels
from conftest import ODD_SHAPES
from kernels import FULL, LANES, RUNGS, SMALL, dot, frobenius

CPU_RUNGS = [rung for rung in RUNGS.values() if rung.device == "cpu"]


@pytest.mark.parametrize(
    "rung, shape", [(rung.name, shape) for rung in CPU_RUNGS for shape in rung.shapes]
)
def test_rung(time_rung, rung, shape, product):
    time_rung(f"matmul {shape}", rung, product)


@pytest.mark.parametrize("rows", [5, 50, 500, 5_000, 50_000, 500_000])
@pytest.mark.parametrize(
    "rung", ["matmul_torch", "matmul_numpy", "matmul_numba_address"]
)
def test_rows(time_rung, rung, rows, full_product):
    time_rung("rows", rung, full_product.rows(rows))


@pytest.mark.parametrize("odd", ODD_SHAPES, indirect=True)
@pytest.mark.parametrize("rung", [rung.name for rung in CPU_RUNGS])
def test_odd_shapes(rung, odd):
    odd.check(RUNGS[rung].fn(odd.a, odd.b))


def test_references(small_product, full_product):
    for product, shape in (small_product, (5, 10)), (full_product, (50_000, 10)):
        eq(product.reference.shape, torch.Size(shape))
        product.check(product.reference)


def test_rungs_of_the_course():
    course = """
        matmul_loops matmul_numba_dot matmul_elementwise matmul_torch_dot matmul_broadcast
        matmul_einsum matmul_torch matmul_launch_kernel matmul_cuda matmul_torch_cuda
    """.split()
    eq([name for name in RUNGS if name in course], course)
    for name, rung in RUNGS.items():
        eq((rung.name, rung.fn.__name__), (name, name))


@pytest.mark.parametrize(
    "name, doc, shapes, message",
    [
        ("matmul_loops", "New.", [SMALL], "there already is a rung matmul_loops"),
        ("matmul_new", None, [SMALL], "matmul_new: a rung has a docstring"),
        ("matmul_new", "New.", [FULL], "matmul_new: a rung has .* and the shapes"),
        ("matmul_new", "New.", [SMALL, "6x7x8"], "matmul_new: a rung has .* not"),
    ],
)
def test_a_rung_that_is_not_registered(name, doc, shapes, message):
    def fn(a, b):
        return a @ b

    fn.__name__, fn.__doc__ = name, doc
    with pytest.raises(ValueError, match=message):
        kernels.rung(shapes)(fn)
    assert RUNGS.get(name) is not fn


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda c: c[:-1], "shape"),
        (lambda c: c.double(), "dtype"),
        (lambda c: c.numpy(), "Tensor"),
        (lambda c: c.T.contiguous().reshape(c.shape), "of 21 cells differ"),
        (lambda c: c.index_put_([torch.tensor(2), torch.tensor(6)], torch.tensor(math.nan)),
         r"1 of 21 cells differ .* worst is \(2, 6\): nan, not "),
    ],
    ids=["a row too few", "float64", "numpy", "transposed", "NaN"],
)  # fmt: skip
def test_the_proof_refuses(dense, spoil, message):
    c = dense.a @ dense.b
    dense.check(c)
    with pytest.raises(AssertionError, match=message):
        dense.check(spoil(c))


# ---- The limit of the machine ------------------------------------------------------

READS = {
    "torch.max": torch.max,
    "torch.sum": torch.sum,
    "numpy @ vector": lambda x: x.numpy() @ np.ones(784, np.float32),
}


@pytest.mark.parametrize("way", READS)
def test_read_limit(timed, way, x_train):
    def check(result):
        whole = {"torch.max": x_train.numpy().max()}.get(way, x_train.double().sum())
        close(
            np.float64(np.sum(np.asarray(result), dtype="f8")),
            float(whole),
            eps=abs(whole) * 1e-3,
        )

    info = {"limit": "read", "device": "cpu", "bytes": x_train.nbytes}
    timed("limit", check, READS[way], x_train, **info)


@pytest.mark.parametrize("way", ["torch.matmul", "numpy @", "registers"])
def test_multiply_add_limit(timed, way):
    x = torch.full((2048, 2048), 0.5)
    threads, n = numba.get_num_threads(), 200_000
    fn, args, flops, value = {
        "torch.matmul": (torch.matmul, (x, x), 2 * 2048**3, 512),
        "numpy @": (np.matmul, (x.numpy(), x.numpy()), 2 * 2048**3, 512),
        "registers": (
            kernels.multiply_add,
            (n, threads),
            24 * LANES * n * threads,
            12 * LANES,
        ),
    }[way]
    timed(
        "limit",
        lambda result: eq(set(np.unique(result)), {value}),
        fn,
        *args,
        limit="flops",
        device="cpu",
        flops=flops,
    )


# ---- dot ---------------------------------------------------------------------------

VECTORS = np.array([1.0, 2, 3]), np.array([2.0, 3, 4])


def test_dot():
    eq(dot(*VECTORS), 20.0)
    eq(dot.py_func(*VECTORS), 20.0)
    eq(dot(np.zeros(0), np.zeros(0)), 0.0)


@pytest.mark.parametrize("call", ["first, compiles", "second"])
def test_dot_compile(benchmark, call):
    benchmark.group = "dot"

    def fresh():
        return (njit(dot.py_func), *VECTORS), {}

    if call == "second":
        fn = fresh()[0][0]
        eq(fn(*VECTORS), 20.0)
        benchmark(fn, *VECTORS)
    else:
        first = benchmark.pedantic(lambda fn, a, b: fn(a, b), setup=fresh, rounds=5)
        eq(first, 20.0)


# ---- Elementwise operations --------------------------------------------------------

A, B = torch.tensor([10.0, 6, -4]), torch.tensor([2.0, 8, 7])
M = torch.tensor([[1.0, 2, 3], [4, 5, 6], [7, 8, 9]])


@pytest.mark.parametrize(
    "result, expected",
    [
        (A + B, [12.0, 14, 3]),
        ((A < B).float().mean(), 2 / 3),
        (frobenius(M), math.sqrt(285)),
        (M[0, :], [1.0, 2, 3]),
        (M[:, 2], [3.0, 6, 9]),
        (M[1:, :2], [[4.0, 5], [7, 8]]),
        (M[-1], [7.0, 8, 9]),
    ],
    ids=["a + b", "a < b", "frobenius", "row", "column", "block", "last row"],
)
def test_elementwise(result, expected):
    expected = torch.tensor(expected)
    eq(result.shape, expected.shape)
    close(result, expected, eps=1e-6)


def test_frobenius_prints_as_in_the_course():
    eq(f"{frobenius(M):.2f}", "16.88")
