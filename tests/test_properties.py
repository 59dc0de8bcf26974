"""What holds for a product whatever its operands: each rung is tried on named and on drawn ones."""

import math
from functools import partial, reduce

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ladder.gpu import has_gpu, on_device
from ladder.product import Product
from ladder.rungs import FULL, RUNGS, rung_names
from ladder.timing import call_or_skip

FAST = rung_names("cpu", FULL)
SLOW = [name for name in rung_names("cpu") if name not in FAST]
FEW, MANY = 100, 50_000  # multiplications; few in Python's loops and in simulated threads

LAYOUTS = {
    "as it is": lambda x: x,
    "transposed": lambda x: x.T.contiguous().T,
    "with steps": lambda x: x.repeat_interleave(2, 0).repeat_interleave(3, 1)[::2, ::3],
    "one row": lambda x: x[:1].expand(x.shape),
    "one column": lambda x: x[:, :1].expand(x.shape),
    "from the second float": lambda x: torch.cat([x.new_zeros(1), x.ravel()])[1:].view(x.shape),
    "in a frame": lambda x: torch.nn.functional.pad(x, (2, 1, 1, 1))[1:-1, 2:-1],
}
EMPTY = [(0, 3, 2), (3, 0, 2), (3, 2, 0)]
ODD = [(1, 1, 1), (1, 1, 7), (7, 1, 1), (5, 17, 3), (11, 7, 13), (9, 33, 7)]
# Around the CPU's tiles, thresholds and lanes, where a rung takes its ways apart.
LARGE = [(9, 33, 41), (15, 784, 10), (16, 33, 9), (20, 785, 11), (300, 785, 9), (64, 64, 65)]
# Around the GPU's tiles; 1,230 rows of b are more than fits into shared memory.
TILES = [(5, 17, 3), (19, 12, 3), (2, 77, 1), (1, 3, 21), (1, 1230, 1)]


@st.composite
def operands(draw, most):
    """a and b, 0 to 70 in each dimension, for at most so many multiplications, in any layout.

    Values are of about 10**exponent; below 1e-38 they are subnormal.
    """
    sizes = []
    for _ in range(3):
        sizes.append(min(draw(st.integers(0, 70)), most))
        most //= max(1, sizes[-1])
    m, k, n = draw(st.permutations(sizes))
    exponent = draw(st.integers(-44, 30))
    other = draw(st.integers(-30, min(30, 30 - exponent)))  # the products are not too large
    layouts = draw(st.tuples(*[st.sampled_from([*LAYOUTS])] * 2))
    return named((m, k, n), layouts, (exponent, other), draw(st.integers(0, 2**32)))


def named(shape, layouts=("as it is",) * 2, exponents=(0, 0), seed=1):
    (m, k, n), generator = shape, torch.Generator().manual_seed(seed)
    found = []
    for size, layout, exponent in zip([(m, k), (k, n)], layouts, exponents, strict=True):
        x = torch.randn(size, generator=generator).double() * 10.0**exponent
        found.append(LAYOUTS[layout](x.float()))
    return found


def examples(shapes, layouts=LAYOUTS, shape=(9, 12, 11)):
    """Try these shapes, and one in these layouts, before others are drawn."""
    cases = [named(x) for x in shapes] + [named(shape, (x, x)) for x in layouts]
    return lambda test: reduce(lambda test, ab: example(ab)(test), cases, test)


SETTINGS = torch.get_num_threads, torch.get_default_dtype, torch.get_float32_matmul_precision
BEFORE = [get() for get in SETTINGS]  # before any rung has been called


def check(rung, a, b):
    """A rung returns the product, as a new tensor: no operand, nor what another call returns."""
    fn = partial(call_or_skip, RUNGS[rung].fn)
    operands_before = a.clone(), b.clone()
    tensors = a, b, fn(a, b)
    before = *operands_before, tensors[2].clone()
    assert [get() for get in SETTINGS] == BEFORE
    another = fn(a + 1, b)
    assert all(map(torch.equal, tensors, before)) and another.is_contiguous()
    stores = [x.untyped_storage().data_ptr() for x in (*tensors, another) if x.numel()]
    assert len(stores) == len(set(stores))
    another.fill_(7)
    Product(a, b).check(fn(a, b))
    m, k = a.shape
    if m and k < 100:  # each float comes through a multiplication by 1, also a subnormal one
        assert fn(torch.eye(k), b).equal(b) and fn(a, torch.eye(k)).equal(a)


@pytest.mark.parametrize("rung", SLOW)
@examples(EMPTY + ODD[:5])
@given(operands(FEW))
def test_slow_rung(rung, ab):
    check(rung, *ab)


@pytest.mark.parametrize("rung", FAST)
@examples(EMPTY + ODD + LARGE)
@given(operands(MANY))
def test_fast_rung(rung, ab):
    check(rung, *ab)


@pytest.mark.cuda
@pytest.mark.usefixtures("patient_simulator")
@pytest.mark.parametrize("rung", rung_names("cuda"))
@settings(max_examples=30 if has_gpu() else 2)
@examples(EMPTY + TILES, ["transposed", "one row", "from the second float"], (5, 8, 3))
@given(operands(MANY if has_gpu() else FEW))
def test_gpu_rung(rung, ab):
    """One product of each pair of operands: the simulator is slow."""
    a, b = on_device("cuda", *ab)
    before = a.clone(), b.clone()
    c = call_or_skip(RUNGS[rung].fn, a, b)
    assert c.device == a.device and all(map(torch.equal, (a, b), before))
    Product(*ab).check(c)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("rung", rung_names("cpu") + has_gpu() * rung_names("cuda"))
def test_nan_and_inf_come_through(rung, value):
    """In a row of a and a column of b, among the first k and the last."""
    for k in 3, 18:
        a, b = named((7, 19, 6))
        a[5, k] = b[k, 1] = value
        with np.errstate(invalid="ignore"):
            c = call_or_skip(RUNGS[rung].fn, *on_device(RUNGS[rung].device, a, b)).cpu()
        torch.testing.assert_close(c, a @ b, equal_nan=True, rtol=0, atol=1e-4)
