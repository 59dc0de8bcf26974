"""Matrix multiplication: each rung is checked against t1, tr and a float64 product, then timed."""

import ctypes
import math
import mmap
import os
import random
import sys
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
import pytest
import torch
from fastcore.test import test_close as close
from numba import njit

import kernels
from bench_fixtures import Product
from kernels import dot, frobenius
from rungs import FULL, RUNGS, SMALL, check_operands, rung

from beyond.roofline import LANES, multiply_add

CPU_RUNGS = [rung for rung in RUNGS.values() if rung.device == "cpu"]
CPU_NAMES = [rung.name for rung in CPU_RUNGS]
FAST_NAMES = [rung.name for rung in CPU_RUNGS if FULL in rung.shapes]

# ---- The lesson: dot and elementwise operations ------------------------------------

VECTORS = np.array([1.0, 2, 3]), np.array([2.0, 3, 4])
A, B = torch.tensor([10.0, 6, -4]), torch.tensor([2.0, 8, 7])
M = torch.tensor([[1.0, 2, 3], [4, 5, 6], [7, 8, 9]])


def test_dot():
    assert dot(*VECTORS) == 20.0
    assert dot(np.zeros(0), np.zeros(0)) == 0.0
    assert dot(np.array([1e8, 1, -1e8], "f4"), np.ones(3, "f4")) == 1.0  # 0 in float32


@pytest.mark.parametrize(
    "result, expected",
    [
        (A + B, [12.0, 14, 3]),
        ((A < B).float().mean(), 2 / 3),
        (frobenius(M), math.sqrt(285)),  # 16.88 in the course
        (M[0, :], [1.0, 2, 3]),
        (M[:, 2], [3.0, 6, 9]),
        (M[1:, :2], [[4.0, 5], [7, 8]]),
        (M[-1], [7.0, 8, 9]),
    ],
    ids=["a + b", "a < b", "frobenius", "row", "column", "block", "last row"],
)
def test_elementwise(result, expected):
    expected = torch.tensor(expected)
    assert result.shape == expected.shape
    close(result, expected, eps=1e-6)


def test_references(small_product, full_product):
    for product, shape in (small_product, (5, 10)), (full_product, (50_000, 10)):
        assert product.reference.shape == shape
        product.check(product.reference)


# ---- Correctness -------------------------------------------------------------------

ODD_SHAPES = """
    0x3x2 3x0x2 3x2x0 1x1x1 1x1x7 7x1x1 2x3x4 3x2x1 1x784x10 5x17x3 13x5x11 9x33x7 11x7x13
""".split()


@pytest.mark.parametrize("shape", ODD_SHAPES)
@pytest.mark.parametrize("rung", CPU_NAMES)
def test_odd_shapes(rung, shape):
    product = Product.random(*map(int, shape.split("x")))
    product.check(RUNGS[rung].fn(product.a, product.b))


@pytest.mark.parametrize("rows", [15, 16, 17, 127, 128, 300])
@pytest.mark.parametrize("rung", FAST_NAMES)
def test_more_rows(rung, rows):
    product = Product.random(rows, 784, 10)
    product.check(RUNGS[rung].fn(product.a, product.b))


STRIDED = {
    "transposed": lambda x: x.T.contiguous().T,
    "steps": lambda x: x.repeat_interleave(3, 0).repeat_interleave(2, 1)[::3, ::2],
    "expanded": lambda x: x[:1].expand(x.shape),
    "a slice": lambda x: torch.nn.functional.pad(x, (1, 2, 3, 4))[3:-4, 1:-2],
}


@pytest.mark.parametrize("layout", STRIDED)
@pytest.mark.parametrize("rung", CPU_NAMES)
def test_strided_operands(rung, layout):
    dense = Product.random(9, 12, 11)
    product = Product.of(STRIDED[layout](dense.a), STRIDED[layout](dense.b))
    product.check(RUNGS[rung].fn(product.a, product.b))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("rung", CPU_NAMES)
def test_nan_and_inf_come_through(rung, value):
    """In a row of a and a column of b, among the first k and the last."""
    product = Product.random(7, 19, 6)
    for k in 3, 18:
        a, b = product.a.clone(), product.b.clone()
        a[5, k] = b[k, 1] = value
        with np.errstate(invalid="ignore"):
            c = RUNGS[rung].fn(a, b)
        torch.testing.assert_close(c, a @ b, equal_nan=True, rtol=0, atol=1e-4)


@pytest.mark.parametrize("shape", [(3, 50, 7), (301, 1030, 11), (20, 33, 150)])
@pytest.mark.parametrize("rung", FAST_NAMES)
def test_stale_results(rung, shape):
    """An operand changes between two calls."""
    product = Product.random(*shape)
    c = RUNGS[rung].fn(product.a, product.b)
    product.b.neg_()
    negative = RUNGS[rung].fn(product.a, product.b)
    product.check(c)
    product.check(-negative)


@pytest.mark.parametrize("rung", FAST_NAMES)
def test_calls_from_several_threads(rung, monkeypatch):
    """Each thread gets the products of its own operands, though all have the same shape."""
    if rung.startswith("matmul_numba"):
        RUNGS["matmul_numba_parallel"].fn(*ONES)
        if numba.threading_layer() == "workqueue":
            pytest.skip("Numba's workqueue ends a process in which two threads call it")
    one = Product.random(6, 40, 10)
    products = [one, Product.of(-one.a, one.b), Product.of(one.a, 2 * one.b)]

    def right(product):
        results = [RUNGS[rung].fn(product.a, product.b) for _ in range(100)]
        return ((torch.stack(results) - product.exact).abs() <= product.bound).all()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(len(products)) as pool:
            assert all(pool.map(right, products))
    finally:
        sys.setswitchinterval(interval)


def settings():
    """What a rung could change for all that comes after it."""
    return (
        torch.get_num_threads(),
        numba.get_num_threads(),
        torch.get_default_dtype(),
        torch.get_float32_matmul_precision(),
        torch.is_grad_enabled(),
        (torch.tensor(1e-40) * 1).item(),  # 0 if subnormals are flushed
        torch.initial_seed(),
        random.getstate(),
        kernels.rnd_state,
    )


@pytest.mark.parametrize("rung", CPU_NAMES)
def test_leaves_settings_as_they_are(rung, dense):
    before, numbers = settings(), torch.get_rng_state()
    RUNGS[rung].fn(dense.a, dense.b)
    if rung in FAST_NAMES:  # with all of its threads
        RUNGS[rung].fn(torch.ones(101, 1000), torch.ones(1000, 10))
    assert settings() == before
    assert torch.get_rng_state().equal(numbers)


@pytest.mark.parametrize("default", [torch.float16, torch.float64])
@pytest.mark.parametrize("rung", CPU_NAMES)
def test_another_default_dtype_or_device(rung, default, dense):
    """The result is of the operands' kind, whatever torch makes by default."""
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(default)
        with torch.device("meta"):
            c = RUNGS[rung].fn(dense.a, dense.b)
    finally:
        torch.set_default_dtype(before)
    dense.check(c)


def guarded(rows, columns):
    """Return ones in front of memory that may not be read."""
    size = 4 * rows * columns
    readable = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
    memory = mmap.mmap(-1, readable + mmap.PAGESIZE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    end = ctypes.c_void_p(address + readable)
    assert ctypes.CDLL(None).mprotect(end, mmap.PAGESIZE, 0) == 0
    array = np.frombuffer(memory, "f4", rows * columns, readable - size)
    array[:] = 1
    return torch.from_numpy(array.reshape(rows, columns))


@pytest.mark.skipif(os.name != "posix", reason="this platform has no mprotect")
@pytest.mark.parametrize("rung", [name for name in FAST_NAMES if "numba" in name])
def test_reads_nothing_past_its_operands(rung):
    """A wrong read ends the process, pytest and all; -v shows at which rung."""
    for m in 1, 5, 6, 16, 21, 130:
        for k in 1, 15, 16, 17, 33, 784:
            for n in 1, 2, 5, 9, 10, 16, 17, 33:
                c = RUNGS[rung].fn(guarded(m, k), guarded(k, n))
                assert c.shape == (m, n) and (c == k).all(), (m, k, n)


# ---- What a rung takes, and what the check refuses ---------------------------------


ONES = torch.ones(2, 3), torch.ones(3, 4)
WRONG_OPERANDS = {
    "inner sizes": (ONES[0], torch.ones(4, 3), ValueError, r"takes shapes .*\(4, 3\)"),
    "1-D": (torch.ones(3), ONES[1], ValueError, r"takes shapes .*\(3,\)"),
    "3-D": (torch.ones(1, 2, 3), ONES[1], ValueError, r"takes shapes .*\(1, 2, 3\)"),
    "float64": (ONES[0].double(), ONES[1].double(), TypeError, "a is torch.float64, not a fl"),
    "integers": (ONES[0], ONES[1].long(), TypeError, "b is torch.int64"),
    "numpy": (ONES[0].numpy(), ONES[1], TypeError, "a is ndarray, not a float32 torch.Tensor"),
    "elsewhere": (ONES[0], ONES[1].to("meta"), ValueError, "b is on meta, but this rung runs on"),
}


@pytest.mark.parametrize("case", WRONG_OPERANDS)
@pytest.mark.parametrize("fn", [check_operands, RUNGS["matmul_numba_address"].fn])
def test_wrong_operands(fn, case):
    """The rung that hands out addresses makes the check itself: it would end the process."""
    a, b, error, message = WRONG_OPERANDS[case]
    with pytest.raises(error, match=message):
        fn(a, b)


@pytest.mark.parametrize(
    "a",
    [ONES[0].cfloat().conj().imag, torch._efficientzerotensor((2, 3)), ONES[0].to_sparse()],
    ids=["a negated view", "a zero tensor", "sparse"],
)
def test_no_plain_memory(a):
    """What has no floats of its own at its address can't be read there."""
    with pytest.raises((ValueError, RuntimeError)):
        RUNGS["matmul_numba_address"].fn(a, ONES[1])


def test_gradients_make_no_difference_to_reading(dense):
    dense.check(RUNGS["matmul_numba_address"].fn(dense.a.clone().requires_grad_(), dense.b))


def test_rungs_of_the_course():
    course = """
        matmul_loops matmul_numba_dot matmul_elementwise matmul_torch_dot matmul_broadcast
        matmul_einsum matmul_torch matmul_launch_kernel matmul_cuda matmul_torch_cuda
    """.split()
    assert list(RUNGS)[:10] == course
    for name in RUNGS:
        assert RUNGS[name].name == RUNGS[name].fn.__name__ == name
        assert RUNGS[name].device == ("cuda" if "_cuda" in name else "cpu")
    assert all(getattr(kernels, name) is RUNGS[name].fn for name in course)


@pytest.mark.parametrize(
    "name, doc, shapes, message",
    [
        ("matmul_loops", "New.", [SMALL], "there already is a rung matmul_loops"),
        ("matmul_new", None, [SMALL], "matmul_new: a rung has a docstring"),
        ("matmul_new", "New.", [FULL], r"matmul_new: shapes are \[SMALL\] or"),
        ("matmul_new", "New.", [SMALL, "6x7x8"], r"matmul_new: shapes are \[SMALL\] or"),
    ],
    ids=["a name taken", "no docstring", "not the small shape", "an unknown shape"],
)
def test_a_rung_that_is_not_registered(name, doc, shapes, message):
    def fn(a, b):
        return a @ b

    fn.__name__, fn.__doc__ = name, doc
    with pytest.raises(ValueError, match=message):
        rung(shapes)(fn)
    assert name not in RUNGS or RUNGS[name].fn is not fn


def test_rung_without_parentheses():
    with pytest.raises(TypeError, match=r"write @rung\(\), with parentheses, above frobenius"):
        rung(frobenius)


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda c: c[:-1], "shape"),
        (lambda c: c.double(), "dtype"),
        (lambda c: c.numpy(), "Tensor"),
        (lambda c: c.T.contiguous().reshape(c.shape), "of 21 cells differ"),
        (lambda c: c.bfloat16().float(), "of 21 cells differ"),
        (lambda c: c.where(torch.arange(21).reshape(3, 7) != 20, math.nan),
         r"1 of 21 cells differ .* worst is \(2, 6\): nan, not "),
    ],
    ids=["a row too few", "float64", "numpy", "transposed", "half precision", "NaN"],
)  # fmt: skip
def test_the_check_refuses(dense, spoil, message):
    c = dense.a @ dense.b
    dense.check(c)
    with pytest.raises(AssertionError, match=message):
        dense.check(spoil(c))


# ---- Timed: the rungs --------------------------------------------------------------


@pytest.mark.parametrize(
    "rung, shape", [(rung.name, shape) for rung in CPU_RUNGS for shape in rung.shapes]
)
def test_rung(time_rung, rung, shape, product):
    time_rung(f"matmul {shape}", rung, product)


@pytest.fixture(scope="module")
def more_rows(request, full_product):
    """The product of so many rows; made once for all rungs, as the last takes 1.6 GB."""
    return full_product.rows(request.param)


@pytest.mark.parametrize("more_rows", [5, 50, 500, 5_000, 50_000, 500_000], indirect=True)
@pytest.mark.parametrize("rung", ["matmul_torch", "matmul_numpy", "matmul_numba_address"])
def test_rows(time_rung, rung, more_rows):
    time_rung("rows", rung, more_rows)


@pytest.mark.parametrize("call", ["first, compiles", "second"])
def test_dot_compile(benchmark, call):
    benchmark.group = "dot"

    def fresh():
        return (njit(dot.py_func), *VECTORS), {}

    if call == "second":
        fn = fresh()[0][0]
        assert fn(*VECTORS) == 20.0
        benchmark(fn, *VECTORS)
    else:
        first = benchmark.pedantic(lambda fn, a, b: fn(a, b), setup=fresh, rounds=5)
        assert first == 20.0


# ---- Timed: the limit of the machine, beside the rungs, as it changes with what else runs ----

READS = {
    "torch.max": (torch.max, lambda x: x.max()),
    "torch.sum": (torch.sum, lambda x: x.sum(dtype="f8")),
    "numpy @ vector": (
        lambda x: x.numpy() @ np.ones(784, "f4"),
        lambda x: x.sum(axis=1, dtype="f8"),
    ),
}


@pytest.mark.parametrize("way", READS)
def test_read_limit(timed, way, x_train):
    def check(result):
        expected = np.asarray(total(x_train.numpy()), "f8")
        close(np.asarray(result, "f8"), expected, eps=1e-3 * expected.max())

    read, total = READS[way]
    timed("limit", check, read, x_train, limit="read", device="cpu", bytes=x_train.nbytes)


HALVES = torch.full((1024, 1024), 0.5)
STEPS, THREADS = 200_000, numba.get_num_threads()
MULTIPLY_ADDS = {  # the function, its arguments, float32 operations, each of its results
    "torch.matmul": (torch.matmul, (HALVES, HALVES), 2 * 1024**3, 256),
    "numpy @": (np.matmul, (HALVES.numpy(), HALVES.numpy()), 2 * 1024**3, 256),
    "registers": (multiply_add, (STEPS, THREADS), 24 * LANES * STEPS * THREADS, 12 * LANES),
}


@pytest.mark.parametrize("way", MULTIPLY_ADDS)
def test_multiply_add_limit(timed, way):
    def check(result):
        assert np.unique(result).tolist() == [expected]

    multiply_add(1, 1)  # compiles
    fn, args, flops, expected = MULTIPLY_ADDS[way]
    timed("limit", check, fn, *args, limit="flops", device="cpu", flops=flops)
